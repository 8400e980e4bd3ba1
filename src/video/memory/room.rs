//! Places in memory that another process maps too: whole pages, the lowest that fits.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use memmap2::{Advice, MmapRaw};

use crate::limits::WORKER_PICTURES_STEP_BYTES;

const PAGE: usize = 4096;

/// Memory for pictures, and which of it is free.
#[derive(Debug)]
pub(super) struct Room {
    map: MmapRaw,
    /// Where its first byte lies for the other process, bytes.
    first: u64,
    free: Mutex<Free>,
}

#[derive(Debug)]
struct Free {
    /// Bytes that are free from each place on; no two of them touch.
    spans: BTreeMap<usize, usize>,
    /// Up to here there are pages.
    paged: usize,
}

impl Room {
    pub fn new(map: MmapRaw, first: u64) -> Self {
        let spans = BTreeMap::from([(0, map.len() / PAGE * PAGE)]);
        let free = Free { spans, paged: 0 };
        Room {
            map,
            first,
            free: Mutex::new(free),
        }
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for so many bytes, at the start of a page. What is in it is left from before.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Option<Span> {
        let bytes = bytes.max(1).checked_next_multiple_of(PAGE)?;
        let mut free = self.free();
        let (&at, &size) = free.spans.iter().find(|(_, size)| **size >= bytes)?;
        free.spans.remove(&at);
        if size > bytes {
            free.spans.insert(at + bytes, size - bytes);
        }
        let end = at + bytes;
        if end > free.paged {
            // Some at a time: a fault for each of them takes three times as long.
            let upto = (free.paged + WORKER_PICTURES_STEP_BYTES).clamp(end, self.map.len());
            // Linux 5.14; before it they come as they are written. To read them is enough, and is quicker where they
            // are there already.
            let _ = self
                .map
                .advise_range(Advice::PopulateRead, free.paged, upto - free.paged);
            free.paged = upto;
        }
        drop(free);
        Some(Span {
            room: Arc::clone(self),
            at,
            bytes,
        })
    }
}

/// A place in a [`Room`], until it is dropped.
#[derive(Debug)]
pub(super) struct Span {
    room: Arc<Room>,
    at: usize,
    bytes: usize,
}

impl Span {
    /// Where it lies in this process.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        // Within the map, so it does not wrap.
        self.room.map.as_mut_ptr().wrapping_add(self.at)
    }

    /// Where it lies for the other process, bytes.
    pub fn place(&self) -> u64 {
        self.room.first + self.at as u64
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let mut free = self.room.free();
        let (mut at, mut bytes) = (self.at, self.bytes);
        if let Some((&before, &size)) = free.spans.range(..at).next_back()
            && before + size == at
        {
            free.spans.remove(&before);
            at = before;
            bytes += size;
        }
        if let Some(size) = free.spans.remove(&(at + bytes)) {
            bytes += size;
        }
        free.spans.insert(at, bytes);
    }
}

#[cfg(test)]
mod tests {
    use memmap2::MmapOptions;

    use super::*;

    fn room(bytes: usize) -> Arc<Room> {
        let map = MmapOptions::new().len(bytes).map_anon().unwrap();
        Arc::new(Room::new(MmapRaw::from(map), 1 << 20))
    }

    #[test]
    fn the_lowest_place_that_fits_is_taken_and_what_is_free_grows_together() {
        let room = room(10 * PAGE);
        let place = |span: &Option<Span>| span.as_ref().unwrap().place() - (1 << 20);
        let spans = || room.free().spans.clone();
        let page = PAGE as u64;
        let mut a = room.take(1);
        let mut b = room.take(3 * PAGE);
        let mut c = room.take(2 * PAGE + 1);
        assert_eq!([&a, &b, &c].map(place), [0, page, 4 * page]);
        assert!(room.take(4 * PAGE).is_none());
        b.take();
        let d = room.take(2 * PAGE);
        assert_eq!(place(&d), page);
        let e = room.take(2 * PAGE);
        assert_eq!(place(&e), 7 * page, "three pages lie there, one before");
        c.take();
        a.take();
        assert_eq!(
            spans(),
            [(0, PAGE), (3, 4), (9, 1)]
                .map(|(at, n)| {
                    if at == 0 {
                        (0, n)
                    } else {
                        (at * PAGE, n * PAGE)
                    }
                })
                .into()
        );
        drop((d, e));
        assert_eq!(spans(), [(0, 10 * PAGE)].into());
        assert!(room.take(usize::MAX).is_none());
        assert!(room.take(10 * PAGE).is_some());
    }

    #[test]
    fn places_can_be_written_to_their_ends_and_do_not_overlap() {
        let room = room(3 * WORKER_PICTURES_STEP_BYTES / 2);
        let bytes = 200_000;
        let mut spans: Vec<Span> = std::iter::from_fn(|| room.take(bytes)).collect();
        let fits = 3 * WORKER_PICTURES_STEP_BYTES / 2 / bytes.next_multiple_of(PAGE);
        assert_eq!(spans.len(), fits);
        let fill = |span: &Span, level| {
            // SAFETY: the place is this span's, and that long.
            unsafe { span.as_mut_ptr().write_bytes(level, bytes) };
        };
        let is = |span: &Span, level| {
            // SAFETY: as above.
            let all = unsafe { std::slice::from_raw_parts(span.as_mut_ptr(), bytes) };
            all.iter().all(|byte| *byte == level)
        };
        for (level, span) in (0..).zip(&spans) {
            fill(span, level);
        }
        spans.remove(2);
        let again = room.take(bytes).unwrap();
        fill(&again, 99);
        for (level, span) in [0, 1, 3, 4].into_iter().zip(&spans) {
            assert!(is(span, level), "{level}");
        }
    }
}
