//! How far a job has come.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Kind;
use crate::telemetry::{jobs as counted, metrics::Label};

/// What a job is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits for the jobs before it.
    Queued,
    /// It runs.
    Running,
    /// Its result is there.
    Succeeded,
    /// It could not be done.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl State {
    /// Whether nothing more happens.
    pub const fn is_end(self) -> bool {
        matches!(self, State::Succeeded | State::Failed | State::Cancelled)
    }
}

impl Label for State {
    const NAME: &'static str = "state";
    fn value(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Running => "running",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        }
    }
}

impl Label for Kind {
    const NAME: &'static str = "kind";
    fn value(self) -> &'static str {
        match self {
            Kind::Hunt => "hunt",
            Kind::Calibrate => "calibrate",
            Kind::Evaluate => "evaluate",
        }
    }
}

/// How far a job has come.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// What it is in.
    pub state: State,
    /// "extract", "hunt", "choose-k", "fit", "locate", "report", "evaluate"; empty before it runs.
    pub stage: &'static str,
    /// Of the stage.
    pub done: u64,
    /// Of the stage; 0: not known yet. Of "extract" an estimate by the clips' bytes until each clip's
    /// samples were counted once.
    pub total: u64,
    /// Of the stage, by its pace so far.
    pub remaining: Option<Duration>,
    /// Where it failed: what was wrong and what to do.
    pub error: Option<String>,
    /// Samples whose kept features saved a pass.
    pub samples_reused: u64,
}

impl Progress {
    /// Of a job in this state.
    pub fn new(state: State) -> Progress {
        Progress {
            state,
            stage: "",
            done: 0,
            total: 0,
            remaining: None,
            error: None,
            samples_reused: 0,
        }
    }
}

/// Tells a running job's progress; `Sync`, since hunting tells it from several threads.
pub(super) struct Meter<'a> {
    to: &'a watch::Sender<Progress>,
}

/// The pace of a stage.
pub(super) struct Pace {
    begun: Instant,
    steps: u64,
}

impl Pace {
    pub fn begin() -> Pace {
        Pace {
            begun: Instant::now(),
            steps: 0,
        }
    }

    /// One more step that took time.
    pub fn step(&mut self) {
        self.steps += 1;
    }

    /// Time for the rest where so much of it is done since the beginning.
    pub fn remaining_of(&self, done: u64, total: u64) -> Option<Duration> {
        if done == 0 || done > total {
            return None;
        }
        let rest = (total - done) as f64 / done as f64;
        Duration::try_from_secs_f64(self.begun.elapsed().as_secs_f64() * rest).ok()
    }

    /// Time for so many more.
    pub fn remaining(&self, steps: u64) -> Option<Duration> {
        let each = self
            .begun
            .elapsed()
            .checked_div(u32::try_from(self.steps).ok()?)?;
        each.checked_mul(u32::try_from(steps).ok()?)
    }
}

impl<'a> Meter<'a> {
    pub fn new(to: &'a watch::Sender<Progress>) -> Meter<'a> {
        Meter { to }
    }

    /// So much of a stage is done. Calls from several threads may overtake each other.
    pub fn tell(&self, stage: &'static str, done: u64, total: u64, remaining: Option<Duration>) {
        self.to.send_modify(|progress| {
            let back = progress.stage == stage && done < progress.done;
            if !back {
                progress.stage = stage;
                progress.done = done;
                progress.total = total;
                progress.remaining = remaining;
                counted::progress(stage, done, total);
            }
        });
    }

    /// One more sample whose features were there.
    pub fn reused(&self) {
        self.to.send_modify(|progress| progress.samples_reused += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_does_not_go_back_within_a_stage() {
        let (sender, receiver) = watch::channel(Progress::new(State::Running));
        let meter = Meter::new(&sender);
        meter.tell("hunt", 8, 24, None);
        meter.tell("hunt", 5, 24, None);
        assert_eq!((receiver.borrow().done, receiver.borrow().total), (8, 24));
        meter.tell("fit", 0, 1, None);
        assert_eq!(
            (receiver.borrow().stage, receiver.borrow().done),
            ("fit", 0)
        );
        assert_eq!(Pace::begin().remaining(3), None, "no pace without a step");
    }
}
