//! Memory that a decoder process shares with its server, for pictures: a file without a name that both map. The
//! process draws in it; the server reads words of it, each as if another thread might be writing it, so what a
//! process does to it meanwhile changes pixels and nothing else.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use memmap2::{MmapMut, MmapOptions, MmapRaw};
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create},
    process::{Resource, getrlimit},
};

use super::{locked, rights};
use crate::{limits::WORKER_SHARED_BYTES, media::spare};

/// What goes with it.
const GIVEN: u8 = b'B';

/// Bytes that are read at a time.
const WORD: usize = size_of::<AtomicU64>();

/// The shared memory, for the server.
#[derive(Debug)]
pub(super) struct Board {
    file: OwnedFd,
    /// None where there is none to be had.
    map: Option<MmapRaw>,
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
        let map = match bytes {
            0 => None,
            _ => Some(MmapOptions::new().map_raw_read_only(&file)?),
        };
        Ok(Board { file, map })
    }

    /// Gives it to whoever listens at the other end, ahead of all messages.
    pub(super) fn give(&self, to: &UnixStream) -> io::Result<()> {
        rights::send(to, GIVEN, &[self.file.as_fd()])
    }

    /// Takes a picture of so many bytes up. `at` is a multiple of eight.
    pub(super) fn read(&self, bytes: usize, at: u64) -> io::Result<Arc<[u8]>> {
        let mut picture = spare::take(bytes);
        // Nobody else holds it yet.
        self.read_into(at, Arc::get_mut(&mut picture).unwrap_or_default())?;
        Ok(picture)
    }

    /// Takes the next bytes of a picture up, which fill `to`. `at` is a multiple of eight.
    pub(super) fn read_into(&self, at: u64, to: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(at)
            .ok()
            .filter(|at| at.is_multiple_of(WORD))
            .and_then(|at| {
                let first = at / WORD;
                let last = first.checked_add(to.len().div_ceil(WORD))?;
                self.words().get(first..last)
            });
        let from = from.ok_or(io::ErrorKind::UnexpectedEof)?;
        let (whole, rest) = to.as_chunks_mut::<WORD>();
        let bytes = |word: &AtomicU64| word.load(Ordering::Relaxed).to_ne_bytes();
        for (to, word) in whole.iter_mut().zip(from) {
            *to = bytes(word);
        }
        if let Some(word) = from.get(whole.len()) {
            for (to, byte) in rest.iter_mut().zip(bytes(word)) {
                *to = byte;
            }
        }
        Ok(())
    }

    fn words(&self) -> &[AtomicU64] {
        let Some(map) = &self.map else {
            return &[];
        };
        // SAFETY: the map begins at a page, is as long as the file, which was sealed so that it stays so, and lives as long as
        // this. What changes behind it are atomic words, and relaxed loads of them need not be able to write.
        unsafe { std::slice::from_raw_parts(map.as_ptr().cast(), map.len() / WORD) }
    }
}

/// The same for the process, which draws.
#[derive(Debug)]
pub(super) struct Canvas(Option<Mutex<MmapMut>>);

impl Canvas {
    /// Takes what [`Board::give`] gave.
    pub(super) fn take(from: &UnixStream) -> io::Result<Self> {
        let [file] = rights::expect(from, GIVEN)?;
        if fstat(&file)?.st_size == 0 {
            return Ok(Canvas(None));
        }
        // SAFETY: nobody else writes there, and the file keeps its length: the server sealed it.
        let map = unsafe { MmapMut::map_mut(&file) }?;
        Ok(Canvas(Some(Mutex::new(map))))
    }

    /// Has a picture of so many bytes drawn at this place; `None` where there is no such place.
    pub(super) fn draw<T>(
        &self,
        at: u64,
        bytes: usize,
        draw: impl FnOnce(&mut [u8]) -> T,
    ) -> Option<T> {
        let at = usize::try_from(at).ok()?;
        let mut map = locked(self.0.as_ref()?);
        Some(draw(map.get_mut(at..at.checked_add(bytes)?)?))
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
        let theirs = Canvas::take(&b).unwrap();
        let draw = |at, picture: &[u8]| {
            theirs.draw(at, picture.len(), |place| place.copy_from_slice(picture))
        };
        draw(3, b"a picture").unwrap();
        assert_eq!(&*ours.read(12, 0).unwrap(), b"\0\0\0a picture");
        assert_eq!(&*ours.read(3, 8).unwrap(), b"tur");
        let mut piece = [0; 9];
        ours.read_into(0, &mut piece).unwrap();
        assert_eq!(&piece, b"\0\0\0a pict");
        assert!(ours.read(4, 3).is_err());
        assert!(ours.read(9, WORKER_SHARED_BYTES - 8).is_err());
        assert!(draw(WORKER_SHARED_BYTES, b"x").is_none(), "it grew");
        assert!(draw(u64::MAX, b"x").is_none());
        assert!(ours.read(1, WORKER_SHARED_BYTES).is_err());
        // Whoever sends something else is not believed.
        io::Write::write_all(&mut &a, b"x").unwrap();
        assert!(Canvas::take(&b).is_err());
    }
}
