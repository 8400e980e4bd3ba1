//! What the pictures of a camera, and times without any, become: frames and gaps on one line, over all of its connections.
//! Pure.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use super::{Decoded, codec_name};
use crate::{
    limits::{LIVE_HOLE_MILLIS, LIVE_STEP_MILLIS},
    media::{Frame, Gap, GapReason, MediaEvent, MediaInfo, MediaTime, SourceState},
    rtsp::Codec,
    video::{
        decode::gap_before,
        timeline::{Raw, Timeline},
    },
};

/// Why there are no frames now.
struct Outage {
    reason: GapReason,
    detail: String,
}

/// The frames so far, and why there are none now.
pub(super) struct Sequencer {
    timeline: Timeline,
    outage: Option<Outage>,
    /// When the packets of the last picture arrived.
    arrived: Option<Duration>,
}

/// Through which connection a picture came, and when.
pub(super) struct Came {
    pub codec: Codec,
    /// The first one of its connection.
    pub first: bool,
    /// When it was there, on the wall clock.
    pub received: Option<SystemTime>,
}

impl Sequencer {
    pub fn new() -> Self {
        Sequencer {
            timeline: Timeline::new(None),
            outage: None,
            arrived: None,
        }
    }

    /// Whether there was a picture.
    pub fn has_shown(&self) -> bool {
        self.timeline.frames() > 0
    }

    /// No pictures come, until one does. The first reason holds; before the first picture there is none to tell.
    pub fn interrupted(&mut self, reason: GapReason, detail: &str) {
        if self.outage.is_none() && self.has_shown() {
            self.outage = Some(Outage {
                reason,
                detail: detail.to_owned(),
            });
        }
    }

    /// The gap of an outage that nothing follows, up to where the camera's clock has `reached`.
    pub fn close(&mut self, reached: MediaTime) -> Option<MediaEvent> {
        let outage = self.outage.take()?;
        let from = self.timeline.end();
        // From the camera's clock to that of the frames, which begins with the first one.
        let shift = self
            .timeline
            .end_on_clock()
            .map_or(0, |end| end.saturating_sub(from.as_nanos()));
        let to = MediaTime::from_nanos(reached.as_nanos().saturating_sub(shift));
        let frame = self.timeline.last_duration();
        Some(gap(from, to, frame, outage.reason, outage.detail))
    }

    /// Tells of the next picture, and of what is missing before it: at most four events.
    pub fn picture(&mut self, decoded: Decoded, came: &Came, told: &mut VecDeque<MediaEvent>) {
        if !self.has_shown() {
            let (width, height) = decoded.size;
            told.push_back(MediaEvent::Opened(MediaInfo {
                container: "rtsp".to_owned(),
                codec: codec_name(came.codec).to_owned(),
                width,
                height,
                // What cameras declare is not believed.
                declared_fps: None,
            }));
        }
        let before = self.timeline.last_duration();
        let hole = self.hole(&decoded, before);
        self.arrived = decoded.arrived.or(self.arrived);
        let raw = Raw {
            pts: Some(decoded.pts),
            duration: None,
        };
        let placed = if self.outage.is_some() || decoded.jumped || hole.is_some() {
            self.timeline.push_after_break(raw)
        } else {
            self.timeline.push(raw)
        };
        let (from, to) = (placed.previous_end, placed.stamp.pts);
        if came.first {
            told.push_back(MediaEvent::Source(SourceState::Connected));
        }
        if let Some(from) = from {
            let gap = if let Some(outage) = self.outage.take() {
                Some(gap(from, to, before, outage.reason, outage.detail))
            } else if decoded.jumped {
                let detail = "the camera's clock jumped".to_owned();
                Some(gap(from, to, before, GapReason::TimestampJump, detail))
            } else if let Some(gap) = gap_before(&placed, decoded.loss, before, true) {
                Some(MediaEvent::Gap(gap))
            } else {
                hole.map(|(reason, detail)| gap(from, to, before, reason, detail.to_owned()))
            };
            told.extend(gap);
        }
        told.push_back(MediaEvent::Frame(Frame {
            stamp: placed.stamp,
            picture: decoded.picture,
            received: came.received,
        }));
    }

    /// Why there were no pictures for long before this one, if so. Nothing was lost on the way and the
    /// clock goes on believably, yet whoever adds up scores and gaps must not find a hole.
    fn hole(&self, decoded: &Decoded, before: Duration) -> Option<(GapReason, &'static str)> {
        let end = self.timeline.end_on_clock()?;
        let hole = Duration::from_nanos(u64::try_from(decoded.pts.saturating_sub(end)).ok()?);
        if hole <= before.saturating_mul(3) {
            return None;
        }
        let passed = match (self.arrived, decoded.arrived) {
            (Some(last), Some(this)) => this.saturating_sub(last),
            _ => hole,
        };
        if passed < hole / 2 && hole > Duration::from_millis(LIVE_STEP_MILLIS) {
            let detail = "the camera's clock stepped ahead of its pictures, or it left some out";
            return Some((GapReason::TimestampJump, detail));
        }
        (hole > Duration::from_millis(LIVE_HOLE_MILLIS))
            .then_some((GapReason::Stalled, "the camera sent no picture"))
    }
}

/// A gap between two frames, the one before it shown for so long.
fn gap(
    from: MediaTime,
    to: MediaTime,
    frame: Duration,
    reason: GapReason,
    detail: String,
) -> MediaEvent {
    let to = to.max(from);
    let frame = frame.as_nanos().max(1);
    let lost = (to.saturating_since(from).as_nanos() + frame / 2) / frame;
    MediaEvent::Gap(Gap {
        from,
        to,
        reason,
        frames_lost: u64::try_from(lost).unwrap_or(u64::MAX),
        detail,
    })
}

#[cfg(test)]
#[path = "sequencer_tests.rs"]
mod tests;
