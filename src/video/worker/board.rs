//! Memory that a decoder process shares with its server, for pictures: a file without a name that both map. At its
//! beginning are places for reduced pictures, which the server gives out, and then room for pictures as they are
//! decoded, which the process gives out. The process draws in it; the server reads words of it, each as if another thread might be writing it, so what a
//! process does to it meanwhile changes pixels and nothing else.

use std::{
    io,
    ops::Range,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use memmap2::{MmapOptions, MmapRaw};
use rustix::{
    fs::{
        FallocateFlags, MemfdFlags, SealFlags, SeekFrom, fallocate, fcntl_add_seals, fstat,
        ftruncate, memfd_create, seek,
    },
    io::{Errno, pwrite},
    process::{Resource, getrlimit},
};

use super::{locked, rights};
use crate::{
    limits::{WORKER_REDUCED_BYTES, WORKER_SHARED_BYTES, WORKER_SPARE_BOARDS, WORKER_SPARE_BYTES},
    media::spare,
};

/// What goes with it.
const GIVEN: u8 = b'B';

/// Bytes that are read at a time.
const WORD: usize = size_of::<AtomicU64>();

/// Zeros, to write.
static NOTHING: [u8; 64 << 10] = [0; 64 << 10];

/// Boards of processes that have ended, cleared. For the kernel to find a page and to clear it takes four times as long as to clear
/// one that is there, and a short clip in a small picture has 10 MB of them.
static SPARE: Mutex<Vec<Board>> = Mutex::new(Vec::new());

/// The shared memory, for the server.
#[derive(Debug)]
pub(super) struct Board {
    file: OwnedFd,
    /// None where there is none to be had.
    map: Option<MmapRaw>,
}

impl Board {
    /// One with nothing on it.
    pub(super) fn new() -> io::Result<Self> {
        let spare = locked(&SPARE).pop();
        spare.map_or_else(Board::fresh, Ok)
    }

    /// Keeps it for another process. Its own must have ended.
    pub(super) fn keep(self) {
        let room = || locked(&SPARE).len() < WORKER_SPARE_BOARDS;
        // At once: what its process left there, 140 MiB perhaps, would be this one's for as long as none is started. What it
        // took without writing it is not seen by whoever clears.
        let cleared = || {
            self.clear()
                .is_ok_and(|()| self.bytes() <= WORKER_SPARE_BYTES)
        };
        if self.map.is_some() && room() && cleared() {
            let mut spare = locked(&SPARE);
            if spare.len() < WORKER_SPARE_BOARDS {
                spare.push(self);
            }
        }
    }

    /// What was written anywhere is gone, and of the memory no more is kept than a small stream needs.
    fn clear(&self) -> io::Result<()> {
        let all = self.map.as_ref().map_or(0, |map| map.len() as u64);
        let (mut at, mut kept) = (0, 0);
        while at < all {
            let start = match seek(&self.file, SeekFrom::Data(at)) {
                Ok(start) => start,
                // From here on nothing was written.
                Err(Errno::NXIO) => break,
                Err(e) => return Err(e.into()),
            };
            let end = seek(&self.file, SeekFrom::Hole(start))?;
            let keep = end.min(start.saturating_add(WORKER_SPARE_BYTES - kept));
            at = start;
            while at < keep {
                let most =
                    usize::try_from(keep - at).map_or(NOTHING.len(), |n| n.min(NOTHING.len()));
                at += pwrite(&self.file, NOTHING.get(..most).unwrap_or_default(), at)? as u64;
            }
            kept += keep - start;
            if keep < end {
                let whole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(&self.file, whole, keep, all - keep)?;
                break;
            }
        }
        Ok(())
    }

    /// Memory that it has, bytes.
    fn bytes(&self) -> u64 {
        let blocks = fstat(&self.file).map(|file| file.st_blocks);
        blocks.map_or(u64::MAX, |blocks| {
            u64::try_from(blocks).unwrap_or(0).saturating_mul(512)
        })
    }

    fn fresh() -> io::Result<Self> {
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

    /// Whether there is so much room for decoded pictures.
    pub(super) fn has_room(&self, at: u64, bytes: usize) -> bool {
        let end = at.checked_add(bytes as u64);
        let all = self.map.as_ref().map_or(0, |map| map.len() as u64);
        at >= WORKER_REDUCED_BYTES && end.is_some_and(|end| end <= all)
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

/// The same for the process, which draws: the places for reduced pictures.
#[derive(Debug)]
pub(super) struct Canvas(Option<Sheet>);

#[derive(Debug)]
struct Sheet {
    map: MmapRaw,
    /// Where somebody draws.
    drawn: Mutex<Vec<Range<usize>>>,
}

impl Canvas {
    /// Takes what [`Board::give`] gave. And the room for pictures as they are decoded, which begins where these end.
    pub(super) fn take(from: &UnixStream) -> io::Result<(Self, Option<MmapRaw>)> {
        let [file] = rights::expect(from, GIVEN)?;
        let all = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
        let Some(pictures) = all.checked_sub(WORKER_REDUCED_BYTES) else {
            return Ok((Canvas(None), None));
        };
        let length = |bytes: u64| usize::try_from(bytes).map_err(io::Error::other);
        let map = MmapOptions::new()
            .len(length(WORKER_REDUCED_BYTES)?)
            .map_raw(&file)?;
        let pictures = MmapOptions::new()
            .offset(WORKER_REDUCED_BYTES)
            .len(length(pictures)?)
            .map_raw(&file)?;
        let drawn = Mutex::default();
        Ok((Canvas(Some(Sheet { map, drawn })), Some(pictures)))
    }

    /// Has a picture of so many bytes drawn at this place; `None` where there is no such place, or where somebody draws
    /// already.
    pub(super) fn draw<T>(
        &self,
        at: u64,
        bytes: usize,
        draw: impl FnOnce(&mut [u8]) -> T,
    ) -> Option<T> {
        let sheet = self.0.as_ref()?;
        let at = usize::try_from(at).ok()?;
        let place = at..at.checked_add(bytes)?;
        if place.end > sheet.map.len() {
            return None;
        }
        let _taken = sheet.taken(&place)?;
        // SAFETY: it lies inside of the map, which nobody writes to elsewhere and whose file keeps its length, since the
        // server sealed it; and nobody else draws there until `_taken` is dropped.
        let place =
            unsafe { std::slice::from_raw_parts_mut(sheet.map.as_mut_ptr().add(at), bytes) };
        Some(draw(place))
    }
}

impl Sheet {
    fn taken(&self, place: &Range<usize>) -> Option<Taken<'_>> {
        let mut drawn = locked(&self.drawn);
        let apart = |other: &Range<usize>| place.end <= other.start || other.end <= place.start;
        if !drawn.iter().all(apart) {
            return None;
        }
        drawn.push(place.clone());
        Some(Taken(self, place.clone()))
    }
}

/// A place where nobody else draws.
struct Taken<'a>(&'a Sheet, Range<usize>);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        locked(&self.0.drawn).retain(|place| *place != self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::WORKER_PICTURES_BYTES;

    #[test]
    fn what_one_end_lays_down_the_other_takes_up() {
        let (a, b) = UnixStream::pair().unwrap();
        let ours = Board::fresh().unwrap();
        ours.give(&a).unwrap();
        let (theirs, pictures) = Canvas::take(&b).unwrap();
        let draw = |at, picture: &[u8]| {
            theirs.draw(at, picture.len(), |place| place.copy_from_slice(picture))
        };
        draw(3, b"a picture").unwrap();
        // Two at a time, but not on top of each other.
        let beside = theirs.draw(100, 8, |_| {
            [
                draw(92, b"........"),
                draw(108, b"........"),
                draw(101, b"."),
            ]
            .map(|drawn| drawn.is_some())
        });
        assert_eq!(beside, Some([true, true, false]));
        assert!(draw(101, b".").is_some());
        assert_eq!(&*ours.read(12, 0).unwrap(), b"\0\0\0a picture");
        assert_eq!(&*ours.read(3, 8).unwrap(), b"tur");
        let mut piece = [0; 9];
        ours.read_into(0, &mut piece).unwrap();
        assert_eq!(&piece, b"\0\0\0a pict");
        assert!(ours.read(4, 3).is_err());
        assert!(ours.read(9, WORKER_SHARED_BYTES - 8).is_err());
        let pictures = pictures.unwrap();
        assert_eq!(pictures.len() as u64, WORKER_PICTURES_BYTES);
        // SAFETY: it is that long, and nobody else has it.
        unsafe {
            pictures
                .as_mut_ptr()
                .add(8)
                .copy_from(b"decoded".as_ptr(), 7)
        };
        assert_eq!(
            &*ours.read(7, WORKER_REDUCED_BYTES + 8).unwrap(),
            b"decoded"
        );
        for (at, bytes, has) in [
            (WORKER_REDUCED_BYTES, 8, true),
            (WORKER_REDUCED_BYTES - 8, 8, false),
            (WORKER_SHARED_BYTES - 8, 8, true),
            (WORKER_SHARED_BYTES - 8, 9, false),
            (u64::MAX, 9, false),
        ] {
            assert_eq!(ours.has_room(at, bytes), has, "{at}, {bytes}");
        }
        assert!(
            draw(WORKER_REDUCED_BYTES, b"x").is_none(),
            "it is not for these"
        );
        assert!(draw(u64::MAX, b"x").is_none());
        assert!(ours.read(1, WORKER_SHARED_BYTES).is_err());
        // What was left on it is not there for the next one.
        ours.clear().unwrap();
        for at in [0, WORKER_REDUCED_BYTES] {
            assert_eq!(&*ours.read(24, at).unwrap(), [0; 24]);
        }
        // Whoever sends something else is not believed.
        io::Write::write_all(&mut &a, b"x").unwrap();
        assert!(Canvas::take(&b).is_err());
    }

    #[test]
    fn a_board_is_cleared_wherever_it_was_used_and_kept_with_little_memory() {
        let board = Board::fresh().unwrap();
        board.clear().unwrap();
        assert_eq!(board.bytes(), 0);
        // Two pieces with a hole between them, and one too many at the end.
        let half = WORKER_SPARE_BYTES / 2;
        let pieces = [
            (4096, half),
            (WORKER_REDUCED_BYTES + half, half),
            (WORKER_SHARED_BYTES - half, half),
        ];
        for (at, bytes) in pieces {
            let used = vec![0xA5; bytes as usize];
            assert_eq!(pwrite(&board.file, &used, at).unwrap(), used.len());
        }
        assert!(board.bytes() > WORKER_SPARE_BYTES);
        board.keep();
        let board = Board::new().unwrap();
        assert_eq!(board.bytes(), WORKER_SPARE_BYTES);
        for (at, bytes) in pieces {
            let read = board.read(bytes as usize, at).unwrap();
            assert!(read.iter().all(|byte| *byte == 0), "at {at}");
        }
        // Taken and never written, which looks like a hole.
        fallocate(&board.file, FallocateFlags::empty(), 0, WORKER_SHARED_BYTES).unwrap();
        assert_eq!(board.bytes(), WORKER_SHARED_BYTES);
        board.keep();
        assert_eq!(Board::new().unwrap().bytes(), 0, "it was not kept");
    }
}
