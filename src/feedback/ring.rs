//! What one detection remembers: the place of its newest segments, the features of the last minutes
//! of them, and the places of its events. Pure.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use crate::{limits, media::MediaTime, score::locate::SegmentSpan};

use super::Binding;

/// One scored segment.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Zero-based count of the detection's segments.
    pub segment: u64,
    pub span: SegmentSpan,
    pub p: f64,
    pub binding: Arc<Binding>,
    /// `[prompts, heads, head_dim]`; `None` where they have gone, or never were because nothing
    /// moved and the score repeats another's.
    pub z: Option<Arc<[f32]>>,
}

/// First and last frame of an event, inclusive, as it was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    id: u64,
    first_frame: u64,
    last_frame: u64,
}

/// The memory of one detection; bounded in media time, bytes, segments and events, oldest first.
pub(super) struct Ring {
    keep: Duration,
    max_bytes: usize,
    entries: VecDeque<Entry>,
    /// No entry before this one has features.
    held_from: usize,
    feature_bytes: usize,
    events: VecDeque<Place>,
}

impl Ring {
    pub fn new(keep: Duration, max_bytes: usize) -> Ring {
        Ring {
            keep,
            max_bytes,
            entries: VecDeque::new(),
            held_from: 0,
            feature_bytes: 0,
            events: VecDeque::new(),
        }
    }

    /// Takes the next segment, and lets go of what is too old or too much.
    pub fn push(&mut self, entry: Entry) {
        let now = entry.span.end;
        self.feature_bytes += bytes_of(entry.z.as_ref());
        self.entries.push_back(entry);
        while let Some(oldest) = self.entries.get_mut(self.held_from) {
            let is_over = now.saturating_since(oldest.span.end) > self.keep
                || self.feature_bytes > self.max_bytes;
            if oldest.z.is_some() && !is_over {
                break;
            }
            self.feature_bytes -= bytes_of(oldest.z.take().as_ref());
            self.held_from += 1;
        }
        while self.entries.len() > limits::FEEDBACK_SEGMENTS_MAX {
            let gone = self.entries.pop_front().and_then(|entry| entry.z);
            self.feature_bytes -= bytes_of(gone.as_ref());
            self.held_from = self.held_from.saturating_sub(1);
        }
    }

    /// An event was told: it began, grew or ended.
    pub fn event(&mut self, id: u64, first_frame: u64, last_frame: u64) {
        let place = Place {
            id,
            first_frame,
            last_frame,
        };
        // Mostly the newest one.
        match self.events.iter_mut().rev().find(|known| known.id == id) {
            Some(known) => *known = place,
            None => self.events.push_back(place),
        }
        if self.events.len() > limits::FEEDBACK_EVENTS_MAX {
            self.events.pop_front();
        }
    }

    /// The segments of an event, oldest first; `None` where it is not known (any more).
    pub fn of_event(&self, id: u64) -> Option<Vec<Entry>> {
        let event = self.events.iter().rev().find(|event| event.id == id)?;
        let found = self.entries.iter().filter(|entry| {
            entry.span.first_frame <= event.last_frame && event.first_frame <= entry.span.last_frame
        });
        Some(found.cloned().collect())
    }

    /// The segments that overlap an interval, oldest first.
    pub fn within(&self, start: MediaTime, end: MediaTime) -> Vec<Entry> {
        let found = self
            .entries
            .iter()
            .filter(|entry| entry.span.start < end && start < entry.span.end);
        found.cloned().collect()
    }

    /// From the start of the oldest segment that is remembered to the end of the newest.
    pub fn extent(&self) -> Option<(MediaTime, MediaTime)> {
        Some((
            self.entries.front()?.span.start,
            self.entries.back()?.span.end,
        ))
    }

    /// Memory that it holds, bytes, to a few hundred.
    pub fn bytes(&self) -> usize {
        self.feature_bytes
            + self.entries.len() * size_of::<Entry>()
            + self.events.len() * size_of::<Place>()
    }

    /// Whether there is nothing that a verdict could be about.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn bytes_of(z: Option<&Arc<[f32]>>) -> usize {
    z.map_or(0, |z| size_of_val::<[f32]>(z))
}

#[cfg(test)]
mod tests;
