//! How many encoded frames never became pictures. Pure.
//!
//! Every encoded frame is entered with its presentation time as it leaves the demuxer; a picture
//! that comes out strikes out its own entry, and earlier entries that are still open have been
//! lost, because pictures come out in order of presentation. Containers without presentation times
//! (AVI with reordered codecs) only have counts; see [`Loss`].
//!
//! An open entry alone is no proof: the second field of a frame or an invisible reference frame
//! never becomes a picture of its own. The caller reports a loss only where the pictures' times
//! leave a hole.

use std::collections::BTreeMap;

use crate::limits::PENDING_MAX_FRAMES;

/// Timestamps this close are the same, nanoseconds: containers round to a millisecond.
const SAME_NANOS: i64 = 1_000_000;

/// What stands between the picture before and this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loss {
    /// Encoded frames that should have come out and did not.
    pub(crate) frames: u64,
    /// The same where frames have no times; how many is not known exactly.
    pub(crate) untimed: bool,
    /// The demuxer marked a discontinuity: bytes were missing or unreadable.
    pub(crate) discontinuity: bool,
}

impl Loss {
    pub(crate) fn any(self) -> bool {
        self.frames > 0 || self.untimed || self.discontinuity
    }
}

/// The open entries.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    open: BTreeMap<i64, u32>,
    open_count: usize,
    /// Entries dropped because too many were open.
    expired: u64,
    /// Frames entered without a time, and pictures since then.
    untimed: u64,
    pictures: u64,
    /// Smallest backlog of untimed frames seen: what reordering alone holds back.
    backlog: Option<u64>,
    entered: u64,
    discontinuity: Option<i64>,
}

impl Ledger {
    /// An encoded frame left the demuxer.
    pub(crate) fn enter(&mut self, pts: Option<i64>, discontinuity: bool) {
        // The first one always is.
        if discontinuity && self.entered > 0 {
            self.discontinuity = Some(pts.unwrap_or(i64::MIN));
        }
        self.entered += 1;
        let Some(pts) = pts else {
            self.untimed += 1;
            return;
        };
        *self.open.entry(pts).or_default() += 1;
        self.open_count += 1;
        if self.open_count > PENDING_MAX_FRAMES {
            self.strike_first();
            self.expired += 1;
        }
    }

    /// A picture came out.
    pub(crate) fn picture(&mut self, pts: Option<i64>) -> Loss {
        self.pictures += 1;
        let mut loss = Loss::default();
        if let Some(pts) = pts {
            while let Some((&first, _)) = self.open.first_key_value() {
                if first >= pts.saturating_sub(SAME_NANOS) {
                    break;
                }
                self.strike_first();
                loss.frames += 1;
            }
            if self
                .open
                .first_key_value()
                .is_some_and(|(&first, _)| first <= pts.saturating_add(SAME_NANOS))
            {
                self.strike_first();
            }
            if loss.frames > 0 {
                loss.frames += std::mem::take(&mut self.expired);
            }
        }
        if self.untimed > 0 {
            let backlog = self.entered.saturating_sub(self.pictures);
            let held = *self.backlog.get_or_insert(backlog);
            self.backlog = Some(held.min(backlog));
            loss.untimed = backlog > held;
        }
        if self
            .discontinuity
            .is_some_and(|at| pts.is_none_or(|pts| at <= pts.saturating_add(SAME_NANOS)))
        {
            self.discontinuity = None;
            loss.discontinuity = true;
        }
        loss
    }

    /// A loss was reported: untimed frames counted as lost are not counted again.
    pub(crate) fn reported(&mut self) {
        if self.untimed > 0 {
            self.backlog = Some(self.entered.saturating_sub(self.pictures));
        }
    }

    /// Frames still open at the end of the media whose time is at or past `end`.
    pub(crate) fn rest(&self, end: i64) -> u64 {
        self.open
            .range(end.saturating_sub(SAME_NANOS)..)
            .map(|(_, &n)| u64::from(n))
            .sum()
    }

    /// Encoded frames entered so far.
    pub(crate) fn entered(&self) -> u64 {
        self.entered
    }

    fn strike_first(&mut self) {
        if let Some(mut first) = self.open.first_entry() {
            *first.get_mut() -= 1;
            self.open_count -= 1;
            if *first.get() == 0 {
                first.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn ledger(pts: &[i64]) -> Ledger {
        let mut ledger = Ledger::default();
        for &p in pts {
            ledger.enter(Some(p * MS), false);
        }
        ledger
    }

    #[test]
    fn reordered_frames_are_not_lost() {
        // Decoding order I P B B.
        let mut l = ledger(&[0, 120, 40, 80]);
        for t in [0, 40, 80, 120] {
            assert_eq!(l.picture(Some(t * MS)), Loss::default());
        }
        assert_eq!(l.rest(160 * MS), 0);
    }

    #[test]
    fn frames_that_never_come_out_are_counted_once() {
        let mut l = ledger(&[0, 40, 80, 120, 160]);
        assert_eq!(l.picture(Some(0)).frames, 0);
        assert_eq!(l.picture(Some(120 * MS)).frames, 2);
        assert_eq!(l.picture(Some(160 * MS)).frames, 0);
        l.enter(Some(200 * MS), false);
        l.enter(Some(240 * MS), false);
        assert_eq!(l.rest(200 * MS), 2);
    }

    #[test]
    fn a_discontinuity_is_seen_by_the_first_picture_after_it() {
        let mut l = Ledger::default();
        l.enter(Some(0), true);
        l.enter(Some(40 * MS), false);
        l.enter(Some(200 * MS), true);
        assert!(!l.picture(Some(0)).any());
        assert!(!l.picture(Some(40 * MS)).any());
        assert!(l.picture(Some(200 * MS)).discontinuity);
        assert!(!l.picture(Some(240 * MS)).any());
    }

    #[test]
    fn untimed_losses_are_what_exceeds_the_reordering() {
        let mut l = Ledger::default();
        let mut seen = vec![];
        for i in 0..20 {
            l.enter(None, false);
            // Two frames are held back; 10, 11 and 12 are lost.
            if i >= 2 && !(10..13).contains(&i) && l.picture(None).untimed {
                seen.push(i);
                l.reported();
            }
        }
        assert_eq!(seen, [13]);
    }

    #[test]
    fn memory_is_bounded_and_expired_frames_are_counted() {
        let mut l = Ledger::default();
        let n = i64::try_from(PENDING_MAX_FRAMES).unwrap() + 500;
        for t in 0..n {
            l.enter(Some(t * 40 * MS), false);
        }
        assert_eq!(l.open_count, PENDING_MAX_FRAMES);
        let loss = l.picture(Some((n - 1) * 40 * MS));
        assert_eq!(loss.frames, u64::try_from(n - 1).unwrap());
    }
}
