//! Memory of pictures that nobody holds any more, for the next ones.
//!
//! A clip's pixels are 9.6 MB. Where the allocator gives so much back to the system at the end of each clip, the next
//! one's pages come one fault at a time, cleared: that took a third of the CPU time of a small picture's stream.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use crate::limits::{SPARE_PIXELS_MAX_BYTES, SPARE_PIXELS_MIN_BYTES};

/// The last that came goes first: it may lie in a cache still.
struct Spare {
    kept: VecDeque<Arc<[u8]>>,
    bytes: usize,
}

static SPARE: Mutex<Spare> = Mutex::new(Spare {
    kept: VecDeque::new(),
    bytes: 0,
});

impl Spare {
    fn take(&mut self, bytes: usize) -> Option<Arc<[u8]>> {
        let at = self.kept.iter().rposition(|p| p.len() == bytes)?;
        let pixels = self.kept.remove(at)?;
        self.bytes -= bytes;
        Some(pixels)
    }

    /// Keeps it, and gives what there is no room for any more, the oldest.
    fn keep(&mut self, pixels: Arc<[u8]>) -> Vec<Arc<[u8]>> {
        self.bytes += pixels.len();
        self.kept.push_back(pixels);
        let mut over = Vec::new();
        while self.bytes > SPARE_PIXELS_MAX_BYTES
            && let Some(oldest) = self.kept.pop_front()
        {
            self.bytes -= oldest.len();
            over.push(oldest);
        }
        over
    }
}

/// Memory for so many bytes of pixels that nobody else holds. What is in it is left from before, perhaps of another
/// source: **all of it has to be written**.
pub(crate) fn take(bytes: usize) -> Arc<[u8]> {
    let kept = SPARE
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take(bytes);
    kept.unwrap_or_else(|| std::iter::repeat_n(0, bytes).collect())
}

/// Keeps memory that came from [`take`] or from elsewhere, if nobody else holds it and it is worth keeping.
pub(crate) fn give_back(mut pixels: Arc<[u8]>) {
    let worth = (SPARE_PIXELS_MIN_BYTES..=SPARE_PIXELS_MAX_BYTES).contains(&pixels.len());
    if worth && Arc::get_mut(&mut pixels).is_some() {
        // Freed once nobody waits for the lock any more.
        let over = SPARE
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .keep(pixels);
        drop(over);
    }
}

/// As [`take`], for as long as this is.
pub(crate) struct Scratch(Arc<[u8]>);

impl Scratch {
    pub fn new(bytes: usize) -> Self {
        Scratch(take(bytes))
    }

    /// All of it.
    pub fn get(&mut self) -> &mut [u8] {
        // Nobody else ever has it.
        Arc::get_mut(&mut self.0).unwrap_or_default()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(bytes: usize, level: u8) -> Arc<[u8]> {
        std::iter::repeat_n(level, bytes).collect()
    }

    #[test]
    fn the_latest_of_the_size_goes_first_and_the_oldest_makes_room() {
        let mut spare = Spare {
            kept: VecDeque::new(),
            bytes: 0,
        };
        let most = SPARE_PIXELS_MAX_BYTES / 4;
        for level in 1..=4 {
            assert!(spare.keep(picture(most, level)).is_empty());
        }
        assert!(spare.take(most - 1).is_none());
        let over = spare.keep(picture(most + 1, 5));
        assert_eq!(over.iter().map(|p| p[0]).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(spare.take(most).unwrap()[0], 4);
        assert_eq!(spare.take(most + 1).unwrap()[0], 5);
        assert_eq!(spare.take(most).unwrap()[0], 3);
        assert!(spare.take(most).is_none());
        assert_eq!(spare.bytes, 0);
    }

    #[test]
    fn what_somebody_holds_is_not_kept() {
        // A size of no other test.
        let bytes = SPARE_PIXELS_MIN_BYTES + 7;
        let pixels = picture(bytes, 9);
        let held = Arc::clone(&pixels);
        give_back(pixels);
        assert_eq!(take(bytes)[0], 0);
        give_back(held);
        assert_eq!(take(bytes)[0], 9);
        // Nor what is not worth it.
        give_back(picture(SPARE_PIXELS_MIN_BYTES - 1, 9));
        assert_eq!(take(SPARE_PIXELS_MIN_BYTES - 1)[0], 0);
    }
}
