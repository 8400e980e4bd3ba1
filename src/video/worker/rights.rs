//! Open files that go from one process to another through a socket, with a byte that says what they are.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};

/// Files that go together at most.
pub(super) const FILES_MAX: usize = 4;

/// Sends a byte with open files.
pub(super) fn send(to: impl AsFd, what: u8, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !rights.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::Error::other("too many files at once"));
    }
    sendmsg(
        to,
        &[IoSlice::new(&[what])],
        &mut rights,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Receives what [`send`] sent; `None` when the other end has hung up.
pub(super) fn receive(from: impl AsFd) -> io::Result<Option<(u8, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received = recvmsg(
        from,
        &mut [IoSliceMut::new(&mut byte)],
        &mut rights,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let files = rights
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        })
        .flatten()
        .collect();
    if received.flags.contains(ReturnFlags::CTRUNC) {
        // The kernel drops files that this process has no room for.
        return Err(Errno::MFILE.into());
    }
    let [what] = byte;
    Ok((received.bytes > 0).then_some((what, files)))
}

/// Receives as many files as there are to be with a byte that is to be `expected`.
pub(super) fn expect<const N: usize>(from: impl AsFd, expected: u8) -> io::Result<[OwnedFd; N]> {
    match receive(from)? {
        Some((what, files)) if what == expected => files
            .try_into()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "other files came")),
        Some(_) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "something else came",
        )),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
