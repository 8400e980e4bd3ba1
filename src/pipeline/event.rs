//! What a detection tells its caller, in media order.

use std::time::{Duration, SystemTime};

use crate::{
    media::{FrameStamp, Gap, MediaInfo, SourceState},
    score::events::{EndReason, Event},
};

use super::snapshot::Snapshot;

/// Whether a score can still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// p is final, p′ is smoothed over what is known so far.
    Provisional,
    /// Neither will change.
    Final,
}

/// One segment's scores; every decoded frame of the segment carries them.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentScores {
    /// Whether they can still change.
    pub stage: Stage,
    /// Zero-based count of the detection's segments.
    pub segment: u64,
    /// Every decoded frame of the segment, in decoding order.
    pub frames: Vec<FrameStamp>,
    /// p, 0..1.
    pub probability: f64,
    /// p′, 0..1.
    pub smoothed: f64,
    /// Nothing moved: p is that of the last segment that the model saw.
    pub gated: bool,
    /// When the segment's last frame had been received; of live sources alone.
    pub received: Option<SystemTime>,
    /// From then to the segment's p.
    pub lag: Option<Duration>,
}

/// Totals of a detection that ended well.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// Decoded frames that had a final score, each exactly one.
    pub frames: u64,
    /// Segments with a score.
    pub segments: u64,
    /// Segments, of these, that repeat a score because nothing moved.
    pub segments_gated: u64,
    /// Events that were told; not those that were not confirmed.
    pub events: u64,
    /// Gaps.
    pub gaps: u64,
    /// PTS + duration of the last frame.
    pub duration: Duration,
    /// Decoded frames of segments that were dropped because they could not be scored in time.
    pub frames_shed: u64,
    /// Those segments.
    pub segments_shed: u64,
}

/// One message of a detection.
#[derive(Clone, Debug, PartialEq)]
pub enum DetectEvent {
    /// First.
    Opened(MediaInfo),
    /// Once per segment with [`Stage::Final`], and before that once with [`Stage::Provisional`]
    /// where asked for.
    Scores(SegmentScores),
    /// An event began.
    EventStarted(Event),
    /// A running event grew.
    EventUpdated(Event),
    /// An event is over; with a picture of it where asked for.
    EventEnded(Event, EndReason, Option<Snapshot>),
    /// A part of the media without scores.
    Gap(Gap),
    /// A live source was interrupted or is back.
    Source(SourceState),
    /// From the segment whose scores come next on this profile scores.
    ProfileChanged {
        /// Its name.
        profile: String,
        /// SHA-256 of its content, hex.
        version: String,
    },
    /// Last.
    Summary(Summary),
}

impl DetectEvent {
    /// The event that people are told of here, as it is now.
    pub fn told(&self) -> Option<&Event> {
        match self {
            DetectEvent::EventStarted(event)
            | DetectEvent::EventUpdated(event)
            | DetectEvent::EventEnded(event, ..) => Some(event),
            _ => None,
        }
    }
}
