//! Memory that a decoder process shares with its server, for reduced pictures: written by the one, read
//! by the other through the kernel. It is a file without a name, and nobody maps it: what the process does
//! to it while it is read changes pixels and nothing else.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create},
    io::{pread, pwrite},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
    process::{Resource, getrlimit},
};

use crate::limits::WORKER_SHARED_BYTES;

/// The shared memory.
#[derive(Debug)]
pub(super) struct Board {
    file: OwnedFd,
    /// All that there is of it.
    bytes: u64,
}

impl Board {
    pub(super) fn new() -> io::Result<Self> {
        let file = memfd_create(
            "headhunt-pictures",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        // Where files may not be as large there is none, and pictures go another way; to try is a signal.
        let files = getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX);
        let bytes = if files < WORKER_SHARED_BYTES {
            0
        } else {
            WORKER_SHARED_BYTES
        };
        // It takes memory as far as it is written, and no more than this: no limit of the process counts it.
        ftruncate(&file, bytes)?;
        fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok(Board { file, bytes })
    }

    /// Gives it to whoever listens at the other end, ahead of all messages.
    pub(super) fn give(&self, to: &UnixStream) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        let files = [self.file.as_fd()];
        if !rights.push(SendAncillaryMessage::ScmRights(&files)) {
            return Err(io::Error::other("no room for a file"));
        }
        sendmsg(to, &[IoSlice::new(b"B")], &mut rights, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Takes what [`give`](Self::give) gave.
    pub(super) fn take(from: &UnixStream) -> io::Result<Self> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let received = recvmsg(
            from,
            &mut [IoSliceMut::new(&mut byte)],
            &mut rights,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let whole = received.bytes == 1 && !received.flags.contains(ReturnFlags::CTRUNC);
        let file = rights.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        match file {
            Some(file) if whole => {
                let bytes = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
                Ok(Board { file, bytes })
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "no shared memory came",
            )),
        }
    }

    /// Lays a picture down.
    pub(super) fn write(&self, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
        if at.saturating_add(bytes.len() as u64) > self.bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        while !bytes.is_empty() {
            let n = pwrite(&self.file, bytes, at)?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = bytes.get(n..).unwrap_or_default();
            at += n as u64;
        }
        Ok(())
    }

    /// Takes a picture of so many bytes up.
    pub(super) fn read(&self, bytes: usize, at: u64) -> io::Result<Arc<[u8]>> {
        // Not cleared before: that takes as long as to copy it.
        let mut picture = Arc::<[u8]>::new_uninit_slice(bytes);
        let mut rest = Arc::get_mut(&mut picture).unwrap_or_default();
        let mut at = at;
        while !rest.is_empty() {
            let (read, unread) = pread(&self.file, rest, at)?;
            if read.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            at += read.len() as u64;
            rest = unread;
        }
        // SAFETY: the loop ends with nothing left that has not been read into; nobody else holds the picture yet, so
        // `get_mut` gave all of it.
        let picture = unsafe { picture.assume_init() };
        Ok(picture)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_end_lays_down_the_other_takes_up() {
        let (a, b) = UnixStream::pair().unwrap();
        let ours = Board::new().unwrap();
        ours.give(&a).unwrap();
        let theirs = Board::take(&b).unwrap();
        theirs.write(b"a picture", 3).unwrap();
        assert_eq!(&*ours.read(9, 3).unwrap(), b"a picture");
        assert_eq!(&*ours.read(4, 0).unwrap(), b"\0\0\0a");
        assert!(theirs.write(b"x", WORKER_SHARED_BYTES).is_err(), "it grew");
        assert!(ours.read(1, WORKER_SHARED_BYTES).is_err());
        // Whoever sends something else is not believed.
        io::Write::write_all(&mut &a, b"x").unwrap();
        assert!(Board::take(&b).is_err());
    }
}
