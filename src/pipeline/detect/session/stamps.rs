//! A segment between the decode thread and its final scores.

use std::time::Duration;

use crate::{
    error::{Error, Result},
    media::FrameStamp,
    pipeline::{
        event::{DetectEvent, SegmentScores, Stage},
        prepare::Received,
        snapshot::Snapshot,
    },
    score::locate::SegmentSpan,
    telemetry::traces::TracedSegment,
};

/// A segment without its pixels.
pub(super) struct Stamps {
    /// By the decode thread.
    pub number: u64,
    pub run: u64,
    pub frames: Vec<FrameStamp>,
    /// It repeats a score.
    pub gated: bool,
    pub snapshot: Option<Snapshot>,
    pub received: Received,
    /// From the arrival of its last frame to its p, of a live source.
    pub lag: Option<Duration>,
    /// Where it is traced; until its p is known.
    pub span: Option<TracedSegment>,
}

impl Stamps {
    pub fn span(&self) -> Result<SegmentSpan> {
        match (self.frames.first(), self.frames.last()) {
            (Some(first), Some(last)) => Ok(SegmentSpan {
                first_frame: first.index,
                last_frame: last.index,
                start: first.pts,
                end: last.end(),
                run: self.run,
            }),
            _ => Err(Error::internal(format!(
                "segment {} has no frames",
                self.number
            ))),
        }
    }
}

pub(super) fn scores(
    stage: Stage,
    stamps: &Stamps,
    frames: Vec<FrameStamp>,
    probability: f64,
    smoothed: f64,
) -> DetectEvent {
    DetectEvent::Scores(SegmentScores {
        stage,
        segment: stamps.number,
        frames,
        probability,
        smoothed,
        gated: stamps.gated,
        received: stamps.received.last,
        lag: stamps.lag,
    })
}
