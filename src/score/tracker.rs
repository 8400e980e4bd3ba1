//! Follows p′ segment by segment and says where events start, grow and end. Both locators feed it
//! the same final values in the same order, so their events are the same to the last bit.

use std::time::Duration;

use super::{
    events::{EndReason, Event},
    locate::SegmentSpan,
};
use crate::media::MediaTime;

/// Times that differ by no more than this are equal, nanoseconds: a gap of one segment, measured by
/// rounded PTS, is a gap of one segment.
pub(super) const TOLERANCE_NS: u128 = 1_000_000;

/// A change of the open event.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    Started(Event),
    Updated(Event),
    Ended(Event, EndReason),
}

#[derive(Clone, Debug)]
pub(super) struct Tracker {
    threshold: f64,
    bridge_ns: u128,
    next_id: u64,
    open: Option<Open>,
}

#[derive(Clone, Debug)]
struct Open {
    event: Event,
    run: u64,
    sum: f64,
    segments: u64,
}

impl Tracker {
    pub(super) fn new(threshold: f64, bridge_s: f64) -> Tracker {
        Tracker {
            threshold,
            // Saturates: a bridge of ten thousand years bridges everything.
            bridge_ns: (bridge_s * 1e9).round() as u128,
            next_id: 0,
            open: None,
        }
    }

    /// The first segment after a gap is `span`, its p′ not known yet: the event before the gap ends
    /// here if the gap is too long to be inside an event. Not for later segments of that run before
    /// the first one's p′ was pushed; nothing happens for segments of the event's own run.
    pub(super) fn announce(&mut self, span: &SegmentSpan) -> Option<Change> {
        let open = self.open.as_ref()?;
        if open.run == span.run {
            return None;
        }
        self.reached(span.start)
    }

    /// No segment begins before this one's start any more: the open event ends if that is too far from its end.
    pub(super) fn reached(&mut self, start: MediaTime) -> Option<Change> {
        let open = self.open.as_ref()?;
        let gap = i128::from(start.as_nanos()) - i128::from(open.event.end.as_nanos());
        // Time that runs backwards over a gap is a jump like one forwards.
        if gap.unsigned_abs() <= self.bridge_ns.saturating_add(TOLERANCE_NS) {
            return None;
        }
        self.end(EndReason::Gap)
    }

    /// The next segment's final p′; the first of each run is announced before.
    pub(super) fn push(&mut self, span: &SegmentSpan, smoothed: f64) -> Option<Change> {
        // A gap short enough is inside the event only if the segment after it is anomalous too.
        if smoothed <= self.threshold {
            return self.end(EndReason::BelowThreshold);
        }
        match &mut self.open {
            Some(open) => {
                open.run = span.run;
                open.sum += smoothed;
                open.segments += 1;
                let event = &mut open.event;
                event.end = span.end;
                event.last_frame = span.last_frame;
                event.peak = event.peak.max(smoothed);
                event.mean = open.sum / open.segments as f64;
                Some(Change::Updated(event.clone()))
            }
            None => {
                let event = Event {
                    id: self.next_id,
                    start: span.start,
                    end: span.end,
                    first_frame: span.first_frame,
                    last_frame: span.last_frame,
                    peak: smoothed,
                    mean: smoothed,
                    provisional: false,
                };
                self.next_id += 1;
                self.open = Some(Open {
                    event: event.clone(),
                    run: span.run,
                    sum: smoothed,
                    segments: 1,
                });
                Some(Change::Started(event))
            }
        }
    }

    /// No segment will come for longer than the bridge.
    pub(super) fn interrupted(&mut self) -> Option<Change> {
        self.end(EndReason::Gap)
    }

    /// The longest gap inside an event.
    pub(super) fn bridge(&self) -> Duration {
        Duration::from_nanos(u64::try_from(self.bridge_ns).unwrap_or(u64::MAX))
    }

    /// The media ended.
    pub(super) fn finish(&mut self) -> Option<Change> {
        self.end(EndReason::EndOfStream)
    }

    fn end(&mut self, reason: EndReason) -> Option<Change> {
        self.open
            .take()
            .map(|open| Change::Ended(open.event, reason))
    }
}
