//! Timestamps of a file that is played over and over. Pure.

/// A picture's times on the line that goes on for ever, nanoseconds, or as its file has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    /// When it is shown.
    pub(super) pts: i64,
    /// When it is decoded, if that is known.
    pub(super) dts: Option<i64>,
}

/// Joins passes over a file: the first picture of a pass follows the last one of the pass before
/// by that one's duration.
#[derive(Debug, Default)]
pub(super) struct Seam {
    /// Where the present pass begins.
    base: i64,
    /// The present pass's first picture, in its file's time.
    first: Option<i64>,
    /// Where the present pass ends so far.
    end: i64,
    /// Pictures before this pass.
    started: bool,
}

impl Seam {
    /// Places a picture of the present pass that lasts `duration`; pictures come in decoding
    /// order. `None` if it must not be sent: it is shown before the file's first key frame and
    /// needs what is not there.
    pub(super) fn place(&mut self, times: Times, duration: i64) -> Option<Times> {
        let first = match self.first {
            Some(first) => first,
            None => {
                if !self.started {
                    // No decoding time comes before zero.
                    self.base = times.dts.map_or(0, |dts| (times.pts - dts).max(0));
                    self.end = self.base;
                    self.started = true;
                }
                *self.first.insert(times.pts)
            }
        };
        if times.pts < first {
            return None;
        }
        let shift = self.base - first;
        let placed = Times {
            pts: times.pts + shift,
            dts: times.dts.map(|dts| (dts + shift).max(0)),
        };
        self.end = self.end.max(placed.pts + duration.max(0));
        Some(placed)
    }

    /// The file begins again.
    pub(super) fn next_pass(&mut self) {
        self.base = self.end;
        self.first = None;
    }

    /// Whether the present pass has had a picture.
    pub(super) fn moved(&self) -> bool {
        self.first.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(pts: i64, dts: Option<i64>) -> Times {
        Times { pts, dts }
    }

    #[test]
    fn passes_follow_each_other_without_a_hole() {
        let mut seam = Seam::default();
        let mut shown = Vec::new();
        for _ in 0..3 {
            for pts in [1000, 1040, 1080] {
                shown.push(seam.place(times(pts, None), 40).unwrap().pts);
            }
            assert!(seam.moved());
            seam.next_pass();
            assert!(!seam.moved());
        }
        let expected: Vec<i64> = (0..9).map(|n| n * 40).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn reordered_pictures_keep_their_order_and_decoding_times_go_on() {
        let mut seam = Seam::default();
        let mut decoded = Vec::new();
        let mut shown = Vec::new();
        for _ in 0..2 {
            // I P B B: shown 0, 3, 1, 2.
            for (dts, pts) in [(-2, 0), (-1, 3), (0, 1), (1, 2)] {
                let placed = seam.place(times(pts * 40, Some(dts * 40)), 40).unwrap();
                decoded.push(placed.dts.unwrap());
                shown.push(placed.pts);
            }
            seam.next_pass();
        }
        assert_eq!(decoded, (0..8).map(|n| n * 40).collect::<Vec<_>>());
        shown.sort_unstable();
        assert_eq!(shown, (2..10).map(|n| n * 40).collect::<Vec<_>>());
    }

    #[test]
    fn pictures_before_the_first_key_frame_are_left_out() {
        let mut seam = Seam::default();
        assert_eq!(seam.place(times(80, None), 40), Some(times(0, None)));
        assert_eq!(seam.place(times(40, None), 40), None);
        assert_eq!(seam.place(times(120, None), 40), Some(times(40, None)));
        seam.next_pass();
        assert_eq!(seam.place(times(80, None), 40), Some(times(80, None)));
    }
}
