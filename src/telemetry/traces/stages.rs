//! When the stages of a segment's way began and ended.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use crate::{limits::TRACE_STAGES_MAX, telemetry::metrics::Stage};

/// One stage.
#[derive(Clone, Copy, Debug)]
pub struct StageTime {
    /// Which.
    pub stage: Stage,
    /// Its begin.
    pub from: Instant,
    /// Its end.
    pub to: Instant,
    /// Segments that went through it together.
    pub clips: usize,
}

impl StageTime {
    /// A stage of one segment alone.
    pub fn new(stage: Stage, from: Instant, to: Instant) -> StageTime {
        StageTime {
            stage,
            from,
            to: to.max(from),
            clips: 1,
        }
    }
}

/// The stages of one segment, written down wherever it is. A batch that fails is run again, so a stage may
/// be there more than once.
#[derive(Debug, Default)]
pub struct Stages(Mutex<Vec<StageTime>>);

impl Stages {
    /// One more; beyond [`TRACE_STAGES_MAX`] it is left out.
    pub fn add(&self, time: StageTime) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if times.len() < TRACE_STAGES_MAX {
            times.push(time);
        }
    }

    /// Those so far, in the order in which they ended.
    pub fn so_far(&self) -> Vec<StageTime> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
