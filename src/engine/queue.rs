//! Lanes of waiting work: priority between lanes without starvation, turns between the streams of
//! a lane, order within a stream. Pure; who may enter and who waits is decided elsewhere.

use std::collections::VecDeque;

use crate::limits::LANE_PASSED_OVER_MAX;

use super::Lane;

/// The waiting work of every lane.
pub(super) struct Lanes<T> {
    lanes: [Streams<T>; Lane::ALL.len()],
}

/// One lane: streams in the order of their turns, each with its work in order; none is empty.
struct Streams<T> {
    turns: VecDeque<(u64, VecDeque<T>)>,
    len: usize,
    /// Passes since this lane last went first, while it had work.
    passed_over: u32,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Lanes {
            lanes: std::array::from_fn(|_| Streams {
                turns: VecDeque::new(),
                len: 0,
                passed_over: 0,
            }),
        }
    }
}

impl<T> Lanes<T> {
    pub fn len(&self, lane: Lane) -> usize {
        self.lane(lane).len
    }

    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.len == 0)
    }

    pub fn push(&mut self, lane: Lane, stream: u64, work: T) {
        let lane = &mut self.lanes[lane.index()];
        lane.len += 1;
        match lane.turns.iter_mut().find(|(id, _)| *id == stream) {
            Some((_, queue)) => queue.push_back(work),
            None => lane.turns.push_back((stream, VecDeque::from([work]))),
        }
    }

    /// The work that a new pass starts with: from the first lane that has any, unless a later one
    /// was passed over for too long.
    pub fn take_first(&mut self) -> Option<T> {
        let waiting = || {
            Lane::ALL
                .into_iter()
                .filter(|lane| self.lane(*lane).len > 0)
        };
        let starved = waiting()
            .filter(|lane| self.lane(*lane).passed_over >= LANE_PASSED_OVER_MAX)
            // Of several the one that waits longest; of equals the first.
            .max_by_key(|lane| {
                (
                    self.lane(*lane).passed_over,
                    std::cmp::Reverse(lane.index()),
                )
            });
        let chosen = starved.or_else(|| waiting().next())?;
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            lane.passed_over = if index == chosen.index() || lane.len == 0 {
                0
            } else {
                lane.passed_over.saturating_add(1)
            };
        }
        self.lanes[chosen.index()].take(|_| true)
    }

    /// More work for the same pass: the next in turn that fits, lanes in order.
    pub fn take_fitting(&mut self, fits: impl Fn(&T) -> bool) -> Option<T> {
        self.lanes.iter_mut().find_map(|lane| lane.take(&fits))
    }

    /// Takes out everything that `is_dead` says, wherever it waits.
    pub fn remove_if(&mut self, mut is_dead: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        for lane in &mut self.lanes {
            for (_, queue) in &mut lane.turns {
                for work in std::mem::take(queue) {
                    if is_dead(&work) {
                        removed.push(work);
                    } else {
                        queue.push_back(work);
                    }
                }
            }
            lane.turns.retain(|(_, queue)| !queue.is_empty());
            lane.len = lane.turns.iter().map(|(_, queue)| queue.len()).sum();
        }
        removed
    }

    fn lane(&self, lane: Lane) -> &Streams<T> {
        &self.lanes[lane.index()]
    }
}

impl<T> Streams<T> {
    /// The oldest work of the first stream in turn whose oldest work fits; that stream's next turn
    /// comes after the others'.
    fn take(&mut self, fits: impl Fn(&T) -> bool) -> Option<T> {
        let turn = self
            .turns
            .iter()
            .position(|(_, queue)| queue.front().is_some_and(&fits))?;
        let (stream, mut queue) = self.turns.remove(turn)?;
        let work = queue.pop_front()?;
        if !queue.is_empty() {
            self.turns.push_back((stream, queue));
        }
        self.len -= 1;
        Some(work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_take_turns_and_keep_their_order() {
        let mut lanes = Lanes::default();
        for work in ["a1", "a2", "a3"] {
            lanes.push(Lane::Upload, 1, work);
        }
        lanes.push(Lane::Upload, 2, "b1");
        lanes.push(Lane::Upload, 3, "c1");
        lanes.push(Lane::Upload, 2, "b2");
        let order: Vec<_> = std::iter::from_fn(|| lanes.take_first()).collect();
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3"]);
        assert!(lanes.is_empty());
    }

    #[test]
    fn live_goes_first_and_no_lane_gets_less_than_a_tenth() {
        let mut lanes = Lanes::default();
        for lane in Lane::ALL {
            for _ in 0..1000 {
                lanes.push(lane, 0, lane);
            }
        }
        let taken: Vec<_> = (0..1000).filter_map(|_| lanes.take_first()).collect();
        assert_eq!(taken[0], Lane::Live);
        // In any ten passes in a row, not only on average.
        for window in taken.windows(10) {
            for lane in Lane::ALL {
                assert!(window.contains(&lane), "{lane:?} starved in {window:?}");
            }
        }
        let live = taken.iter().filter(|lane| **lane == Lane::Live).count();
        assert!(live >= 750, "live got {live} of 1000 passes");
    }

    #[test]
    fn a_lane_that_was_empty_has_no_credit() {
        let mut lanes = Lanes::default();
        for _ in 0..50 {
            lanes.push(Lane::Live, 0, Lane::Live);
            assert_eq!(lanes.take_first(), Some(Lane::Live));
        }
        lanes.push(Lane::Offline, 0, Lane::Offline);
        lanes.push(Lane::Live, 0, Lane::Live);
        assert_eq!(lanes.take_first(), Some(Lane::Live));
    }

    #[test]
    fn fitting_work_comes_from_the_heads_of_streams_only() {
        let mut lanes = Lanes::default();
        lanes.push(Lane::Live, 1, 10);
        lanes.push(Lane::Live, 1, 21);
        lanes.push(Lane::Offline, 2, 31);
        // 21 stands behind 10 in its stream, so 31 comes first.
        assert_eq!(lanes.take_fitting(|n| n % 10 == 1), Some(31));
        assert_eq!(lanes.take_fitting(|n| n % 10 == 1), None);
        assert_eq!(lanes.take_first(), Some(10));
        assert_eq!(lanes.take_fitting(|n| n % 10 == 1), Some(21));
    }

    #[test]
    fn removal_keeps_order_and_count() {
        let mut lanes = Lanes::default();
        for n in 0..6 {
            lanes.push(Lane::Upload, n % 2, n);
        }
        assert_eq!(lanes.remove_if(|n| *n == 0 || *n == 4), [0, 4]);
        assert_eq!(lanes.len(Lane::Upload), 4);
        assert_eq!(lanes.remove_if(|n| *n == 2), [2]);
        let order: Vec<_> = std::iter::from_fn(|| lanes.take_first()).collect();
        assert_eq!(order, [1, 3, 5]);
        assert_eq!(lanes.len(Lane::Upload), 0);
    }
}
