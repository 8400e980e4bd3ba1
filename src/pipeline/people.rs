//! Events as people are told of them: which ones and when ([`Alerts`]), with a picture of each, and
//! how late.

use std::time::SystemTime;

use crate::{
    profile::Profile,
    score::{
        alerts::{Alert, Alerts},
        events::EndReason,
        locate::LocatorOutput,
    },
};

use super::{event::DetectEvent, options::DetectOptions, snapshot::Snapshot};

/// Follows the locator's output.
pub(super) struct People {
    alerts: Alerts,
    /// The segment that became final last.
    latest: Seen,
    /// The segment of the locator's open event with the largest p′, of those with a picture.
    best: Option<(f64, Snapshot)>,
    /// When the first frame of the newest event had been received.
    began: Option<SystemTime>,
}

/// What stays of a segment until its event is told.
#[derive(Default)]
pub(super) struct Seen {
    pub smoothed: f64,
    pub snapshot: Option<Snapshot>,
    /// When its first frame had been received.
    pub received: Option<SystemTime>,
}

impl People {
    pub fn new(options: &DetectOptions, profile: &Profile) -> People {
        People {
            alerts: Alerts::new(options.alerts, profile.locator.threshold),
            latest: Seen::default(),
            best: None,
            began: None,
        }
    }

    /// Another profile locates what follows; the locator before has ended.
    pub fn restart(&mut self, profile: &Profile) {
        self.alerts.restart(profile.locator.threshold);
        self.best = None;
    }

    /// A segment became final; before [`take`](Self::take) of that output.
    pub fn see(&mut self, seen: Seen) {
        self.latest = seen;
    }

    /// Takes the locator's next output and gives what to tell because of it. `newest` is when the
    /// first frame of the newest segment had been received.
    pub fn take(
        &mut self,
        output: &LocatorOutput,
        newest: Option<SystemTime>,
    ) -> Option<DetectEvent> {
        match output {
            LocatorOutput::Started(_) => {
                self.began = self.latest.received;
                self.best = None;
                self.offer();
            }
            LocatorOutput::Updated(_) => self.offer(),
            LocatorOutput::Provisional { .. }
            | LocatorOutput::Final { .. }
            | LocatorOutput::Ended(..) => {}
        }
        let told = self.alerts.take(output).map(|alert| match alert {
            Alert::Started(event) => {
                if matches!(output, LocatorOutput::Provisional { .. }) {
                    self.began = newest;
                }
                DetectEvent::EventStarted(event)
            }
            Alert::Updated(event) => DetectEvent::EventUpdated(event),
            Alert::Ended(event, reason) => {
                let best = self.best.take().map(|(_, snapshot)| snapshot);
                // One that smoothing took back has no segment but the one that started it, which
                // has just become final.
                let picture = match reason {
                    EndReason::NotConfirmed => best.or_else(|| self.latest.snapshot.take()),
                    _ => best,
                };
                DetectEvent::EventEnded(event, reason, picture)
            }
        });
        if matches!(output, LocatorOutput::Ended(..)) {
            self.best = None;
        }
        told
    }

    /// When the first frame of the event that was told last had been received; of live sources.
    pub fn began(&self) -> Option<SystemTime> {
        self.began
    }

    /// The first of equals stays.
    fn offer(&mut self) {
        let larger = self
            .best
            .as_ref()
            .is_none_or(|(best, _)| self.latest.smoothed > *best);
        if larger && let Some(snapshot) = self.latest.snapshot.take() {
            self.best = Some((self.latest.smoothed, snapshot));
        }
    }
}
