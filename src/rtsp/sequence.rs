//! Order: sequence numbers and timestamps without their wraps, late packets put back into their
//! place, missing ones counted. Pure.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::limits;

/// Timestamps of 32 bits on a line of 64. It begins at the first value; every further one is as far
/// from its predecessor as the shorter way round says.
#[derive(Debug, Default)]
pub(super) struct Ticks {
    last: Option<(u32, i64)>,
}

impl Ticks {
    pub fn unwrap(&mut self, timestamp: u32) -> i64 {
        let ticks = match self.last {
            None => i64::from(timestamp),
            Some((before, ticks)) => {
                ticks + i64::from(timestamp.wrapping_sub(before).cast_signed())
            }
        };
        self.last = Some((timestamp, ticks));
        ticks
    }
}

/// What became of a pushed item. The numbers are sequence numbers without their wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Taken(i64),
    /// Taken as the first of a new line of numbers.
    Restarted(i64),
    /// A duplicate, too late, or not yet confirmed.
    Refused,
}

/// Gives items in the order of their sequence numbers, each with the count of those missing before
/// it. With room for some, an item waits for its predecessors until the room or the patience ends.
/// Without room (a transport that keeps the order) nothing waits.
#[derive(Debug)]
pub(super) struct Order<T> {
    /// Items that may wait.
    room: usize,
    /// How long each of them may.
    patience: Duration,
    /// The number to give next; `None` before the first.
    next: Option<i64>,
    /// Items that wait, with their arrival.
    held: BTreeMap<i64, (T, Duration)>,
    /// Items in order, with what is missing before each.
    out: VecDeque<(T, u32)>,
    /// A packet far off the others. With room, a stray one (very late, damaged) must not end the
    /// order of the others: a second one near it has to confirm.
    candidate: Option<(u16, T, Duration)>,
}

impl<T> Order<T> {
    pub fn new(room: usize, patience: Duration) -> Self {
        Order {
            room,
            patience,
            next: None,
            held: BTreeMap::new(),
            out: VecDeque::new(),
            candidate: None,
        }
    }

    /// Takes an item that arrived now.
    pub fn push(&mut self, sequence: u16, item: T, now: Duration) -> Pushed {
        let Some(next) = self.next else {
            return self.restart(sequence, item, now);
        };
        // The low 16 bits of the expected number; the difference is at most half the circle.
        let expected = (next & 0xffff) as u16;
        let number = next + i64::from(sequence.wrapping_sub(expected).cast_signed());
        let highest = self.held.last_key_value().map_or(next - 1, |(n, _)| *n);
        let window = i64::try_from(limits::RTP_REORDER_PACKETS).unwrap_or(i64::MAX);
        if number - highest > limits::RTP_SEQUENCE_JUMP || next - number > window {
            return self.far_off(sequence, item, now);
        }
        self.candidate = None;
        if number < next || self.held.contains_key(&number) {
            return Pushed::Refused;
        }
        self.held.insert(number, (item, now));
        self.settle();
        Pushed::Taken(number)
    }

    /// The next item in order and how many are missing before it.
    pub fn pop(&mut self, now: Duration) -> Option<(T, u32)> {
        if self.out.is_empty() && self.due().is_some_and(|due| due <= now) {
            self.release();
        }
        self.out.pop_front()
    }

    /// When `pop` gives something without a further `push`.
    pub fn due(&self) -> Option<Duration> {
        let oldest = self.held.values().map(|(_, arrived)| *arrived).min()?;
        Some(oldest.saturating_add(self.patience))
    }

    /// Gives up waiting for what is missing.
    pub fn flush(&mut self) {
        while !self.held.is_empty() {
            self.release();
        }
    }

    /// Begins a new line of numbers with this item. Nobody knows how many are missing before it; after others
    /// it is one at least, or what follows would be taken for whole.
    pub fn restart(&mut self, sequence: u16, item: T, now: Duration) -> Pushed {
        self.flush();
        self.candidate = None;
        let number = i64::from(sequence);
        let first = self.next.replace(number).is_none();
        self.held.insert(number, (item, now));
        self.settle();
        if !first && let Some((_, missing)) = self.out.back_mut() {
            *missing = 1;
        }
        Pushed::Restarted(number)
    }

    fn far_off(&mut self, sequence: u16, item: T, now: Duration) -> Pushed {
        if self.room == 0 {
            return self.restart(sequence, item, now);
        }
        match self.candidate.take() {
            Some((other, first, then)) if near(other, sequence) => {
                let ((low, item, at), (high, later, after)) =
                    if sequence.wrapping_sub(other).cast_signed() > 0 {
                        ((other, first, then), (sequence, item, now))
                    } else {
                        ((sequence, item, now), (other, first, then))
                    };
                let restarted = self.restart(low, item, at);
                match self.push(high, later, after) {
                    Pushed::Taken(number) => Pushed::Restarted(number),
                    _ => restarted,
                }
            }
            _ => {
                self.candidate = Some((sequence, item, now));
                Pushed::Refused
            }
        }
    }

    /// Moves what is in order to `out`, and more where there is no room to wait.
    fn settle(&mut self) {
        while let Some(entry) = self.held.first_entry() {
            if Some(*entry.key()) != self.next && self.held.len() <= self.room {
                return;
            }
            self.release();
        }
    }

    /// Moves the lowest waiting item and its direct successors to `out`.
    fn release(&mut self) {
        let Some((number, (item, _))) = self.held.pop_first() else {
            return;
        };
        let missing = self.next.map_or(0, |next| number - next);
        self.out
            .push_back((item, u32::try_from(missing).unwrap_or(0)));
        let mut next = number + 1;
        while let Some((item, _)) = self.held.remove(&next) {
            self.out.push_back((item, 0));
            next += 1;
        }
        self.next = Some(next);
    }
}

fn near(a: u16, b: u16) -> bool {
    let apart = a.wrapping_sub(b).min(b.wrapping_sub(a));
    (1..=limits::RTP_RESTART_SPREAD).contains(&apart)
}

#[cfg(test)]
mod tests;
