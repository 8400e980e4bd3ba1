//! What is asked of the engine, and the promise of an answer.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Error, Result},
    head::{HeadFeatures, HeadSelection},
    limits,
    telemetry::{
        metrics::{Label, Stage},
        traces::{StageTime, Stages},
    },
};

use super::{
    gate::Gate,
    probe::{Clip, ProbeInfo},
};

/// Who waits for a segment, most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// A camera: late results are worth less.
    Live,
    /// A client that uploads a file and waits.
    Upload,
    /// Hunting, calibration, files on the command line.
    Offline,
}

impl Lane {
    /// Every lane, most urgent first.
    pub const ALL: [Lane; 3] = [Lane::Live, Lane::Upload, Lane::Offline];

    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

impl Label for Lane {
    const NAME: &'static str = "lane";
    fn value(self) -> &'static str {
        match self {
            Lane::Live => "live",
            Lane::Upload => "upload",
            Lane::Offline => "offline",
        }
    }
}

/// One segment for the model.
#[derive(Clone)]
pub struct Job {
    /// The sampled frames.
    pub clip: Clip,
    /// Prompts to run.
    pub prompts: Arc<[String]>,
    /// Heads to extract.
    pub heads: HeadSelection,
    /// Who waits.
    pub lane: Lane,
    /// Streams of a lane take turns; see [`EngineHandle::new_stream`](super::EngineHandle::new_stream).
    pub stream: u64,
    /// When its pass must have begun; later it is answered with
    /// [`Kind::DeadlineExceeded`](crate::error::Kind::DeadlineExceeded).
    pub deadline: Option<Instant>,
    /// Takes it out of the queue.
    pub cancel: CancellationToken,
    /// Where its stages in the engine are noted down, if anybody wants to know.
    pub stages: Option<Arc<Stages>>,
}

impl Job {
    /// Notes down a stage that is over now.
    pub(super) fn passed(&self, stage: Stage, since: Instant) {
        if let Some(stages) = &self.stages {
            stages.add(StageTime::new(stage, since, Instant::now()));
        }
    }

    /// Whether both can share a pass. Their heads may differ: the pass extracts the heads of both. Jobs and
    /// detections do not: who waits for a detection would wait for all layers, and their time would be taken for that
    /// of detections.
    pub(super) fn fits(&self, other: &Job) -> bool {
        let offline = |job: &Job| job.lane == Lane::Offline;
        offline(self) == offline(other)
            && self.clip.frames.len() == other.clip.frames.len()
            && (Arc::ptr_eq(&self.prompts, &other.prompts) || self.prompts == other.prompts)
    }

    /// Refuses what the model could not run, before it waits and before it can spoil a batch.
    pub(super) fn check(&self, info: &ProbeInfo) -> Result<()> {
        let frames = self.clip.frames.len();
        if !(1..=limits::FRAMES_PER_SEGMENT_MAX).contains(&frames) {
            return Err(Error::invalid(format!(
                "a segment of {frames} frames: the model takes 1 to {}",
                limits::FRAMES_PER_SEGMENT_MAX
            )));
        }
        for frame in &self.clip.frames {
            info.check_picture(frame)?;
        }
        check_prompts(&self.prompts)?;
        check_heads(&self.heads, info)
    }
}

fn check_prompts(prompts: &[String]) -> Result<()> {
    if !(1..=limits::PROMPTS_MAX).contains(&prompts.len()) {
        return Err(Error::invalid(format!(
            "{} prompts: 1 to {} are possible",
            prompts.len(),
            limits::PROMPTS_MAX
        )));
    }
    for (number, prompt) in prompts.iter().enumerate() {
        if prompt.trim().is_empty() || prompt.len() > limits::PROMPT_MAX_BYTES {
            return Err(Error::invalid(format!(
                "prompt {number} has {} bytes: 1 to {} are possible, and not only spaces",
                prompt.len(),
                limits::PROMPT_MAX_BYTES
            )));
        }
    }
    Ok(())
}

fn check_heads(heads: &HeadSelection, info: &ProbeInfo) -> Result<()> {
    let needed = heads.layers_needed(info.layers);
    if needed > info.resident_layers {
        return Err(Error::precondition(format!(
            "heads up to layer {} are wanted, but {} holds the first {} of {} layers",
            needed - 1,
            info.name,
            info.resident_layers,
            info.layers
        )));
    }
    if let HeadSelection::Only(ids) = heads {
        if ids.is_empty() {
            return Err(Error::invalid("no heads are wanted: name at least one"));
        }
        if let Some(id) = ids.iter().find(|id| id.head >= info.heads) {
            return Err(Error::precondition(format!(
                "head {} of layer {} is wanted, but {} has {} heads a layer",
                id.head, id.layer, info.name, info.heads
            )));
        }
    }
    Ok(())
}

/// The promise of one segment's features. Dropping it takes the segment out of the queue.
#[must_use = "a dropped ticket cancels its segment"]
pub struct Ticket {
    answer: oneshot::Receiver<Result<HeadFeatures>>,
    gate: Arc<Gate>,
    answered: bool,
}

impl Ticket {
    pub(super) fn new(answer: oneshot::Receiver<Result<HeadFeatures>>, gate: Arc<Gate>) -> Self {
        Ticket {
            answer,
            gate,
            answered: false,
        }
    }
}

impl Future for Ticket {
    type Output = Result<HeadFeatures>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let poll = Pin::new(&mut self.answer).poll(context);
        poll.map(|answer| {
            self.answered = true;
            answer.unwrap_or_else(|_| Err(self.gate.stopped()))
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.answered {
            self.answer.close();
            self.gate.sweep();
        }
    }
}
