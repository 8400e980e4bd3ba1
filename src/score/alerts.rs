//! What people are told of the locator's events.
//!
//! The locator finds every run of anomalous segments, some segments late (p′ is final only once later
//! segments are known). People want less and sooner: [`Alerts`] leaves out short events and those too
//! soon after the last one, and can start an event at the first provisional p′ over the threshold. By
//! default it passes everything on as it is.
//!
//! - **Minimum duration.** An event is told once its length (start to end of its last known segment)
//!   has reached it, as the event is then. One that ends before is never told.
//! - **Cooldown.** For so long after the end of the last event that was told, nothing is told. An
//!   event that is still running when the cooldown has passed is told then, with its own start; one
//!   that ends within it never is. A provisional event that was not confirmed was no event, and no
//!   cooldown follows it.
//! - **Provisional events.** While no event is open (told or not), a segment whose provisional p′ is
//!   over the threshold starts one at once, marked provisional, whatever the minimum duration. The
//!   event that the locator then finds, by this segment or by one that was waiting before it, goes on
//!   under the same id: from then on the event is the locator's, so its start may move a little. It is
//!   confirmed when it would be told anyway. If the final p′ of the segment that started it is at
//!   or below the threshold, or the locator's event ends too short, it ends with
//!   [`EndReason::NotConfirmed`].
//!
//! Every start that is told has exactly one end, no two events are open at a time, and ids count up
//! from 0 in the order of telling.

use std::time::Duration;

use super::{
    events::{EndReason, Event},
    locate::{LocatorOutput, SegmentSpan},
    tracker::TOLERANCE_NS,
};
use crate::media::MediaTime;

#[cfg(test)]
mod tests;

/// What is left out and what comes early; everything off by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlertRules {
    /// Start events at the first provisional p′ over the threshold.
    pub provisional: bool,
    /// Shorter events are not told.
    pub min_duration: Duration,
    /// How long nothing is told after an event.
    pub cooldown: Duration,
}

/// One thing to tell.
#[derive(Clone, Debug, PartialEq)]
pub enum Alert {
    /// An event began.
    Started(Event),
    /// It grew or was confirmed.
    Updated(Event),
    /// It is over.
    Ended(Event, EndReason),
}

/// Turns the output of a [`StreamingLocator`](super::locate::StreamingLocator) into what people are
/// told. Media time must not run backwards, as [`FrameStamp::pts`](crate::media::FrameStamp) promises.
#[derive(Clone, Debug)]
pub struct Alerts {
    rules: AlertRules,
    /// τ, the locator's.
    threshold: f64,
    /// Whether the locator has an open event.
    found: bool,
    /// The event that was told and has not ended, as it was told last.
    told: Option<Event>,
    /// The segment that started `told`, where it is provisional.
    started_by: u64,
    /// End of the last event that was told.
    last_end: Option<MediaTime>,
    next_id: u64,
}

impl Alerts {
    /// For a detection's start; `threshold` is the locator's.
    pub fn new(rules: AlertRules, threshold: f64) -> Alerts {
        Alerts {
            rules,
            threshold,
            found: false,
            told: None,
            started_by: 0,
            last_end: None,
            next_id: 0,
        }
    }

    /// The locator that follows has another threshold; the one before has ended, and so have its
    /// events. Ids count on, and a cooldown goes on.
    pub fn restart(&mut self, threshold: f64) {
        self.threshold = threshold;
        self.found = false;
    }

    /// Takes the locator's next output, in order, and gives what to tell because of it.
    pub fn take(&mut self, output: &LocatorOutput) -> Option<Alert> {
        match output {
            LocatorOutput::Provisional {
                segment,
                smoothed,
                span,
                ..
            } => self.provisional(*segment, *smoothed, span),
            LocatorOutput::Final {
                segment, smoothed, ..
            } => self.judged(*segment, *smoothed),
            LocatorOutput::Started(event) | LocatorOutput::Updated(event) => {
                self.found = true;
                self.grown(event)
            }
            LocatorOutput::Ended(event, reason) => {
                self.found = false;
                self.ended(event, *reason)
            }
        }
    }

    fn provisional(&mut self, segment: u64, smoothed: f64, span: &SegmentSpan) -> Option<Alert> {
        let may = self.rules.provisional && !self.found && self.told.is_none();
        if !may || smoothed <= self.threshold || !self.has_cooled(span.end) {
            return None;
        }
        self.started_by = segment;
        Some(self.start(Event {
            id: 0,
            start: span.start,
            end: span.end,
            first_frame: span.first_frame,
            last_frame: span.last_frame,
            peak: smoothed,
            mean: smoothed,
            provisional: true,
        }))
    }

    /// The final p′ of a segment. Over the threshold the locator's own event follows it; and where
    /// it has one open already, its end does.
    fn judged(&mut self, segment: u64, smoothed: f64) -> Option<Alert> {
        let told = self.told.as_ref()?;
        let waits = told.provisional && !self.found && self.started_by == segment;
        if !waits || smoothed > self.threshold {
            return None;
        }
        self.told
            .take()
            .map(|event| Alert::Ended(event, EndReason::NotConfirmed))
    }

    fn grown(&mut self, event: &Event) -> Option<Alert> {
        let counts =
            at_least(event.start, event.end, self.rules.min_duration) && self.has_cooled(event.end);
        if let Some(told) = &mut self.told {
            *told = Event {
                id: told.id,
                provisional: told.provisional && !counts,
                ..event.clone()
            };
            return Some(Alert::Updated(told.clone()));
        }
        counts.then(|| self.start(event.clone()))
    }

    fn ended(&mut self, event: &Event, reason: EndReason) -> Option<Alert> {
        let told = self.told.take()?;
        let event = Event {
            id: told.id,
            provisional: told.provisional,
            ..event.clone()
        };
        if told.provisional {
            return Some(Alert::Ended(event, EndReason::NotConfirmed));
        }
        self.last_end = Some(event.end);
        Some(Alert::Ended(event, reason))
    }

    fn start(&mut self, event: Event) -> Alert {
        let event = Event {
            id: self.next_id,
            ..event
        };
        self.next_id = self.next_id.saturating_add(1);
        self.told = Some(event.clone());
        Alert::Started(event)
    }

    /// Whether the cooldown has passed at this time.
    fn has_cooled(&self, now: MediaTime) -> bool {
        self.last_end
            .is_none_or(|end| at_least(end, now, self.rules.cooldown))
    }
}

/// Whether so much time passed, up to the rounding of PTS.
fn at_least(from: MediaTime, to: MediaTime, span: Duration) -> bool {
    to.saturating_since(from).as_nanos() + TOLERANCE_NS >= span.as_nanos()
}
