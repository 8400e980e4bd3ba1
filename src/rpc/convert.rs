//! Detection events to messages.

use std::time::Duration as StdDuration;

use prost_types::Duration;

use super::proto;
use crate::{
    media::{self, MediaTime},
    pipeline::{
        event::{self, DetectEvent},
        snapshot::Snapshot,
    },
    score::events,
};
use proto::detect_response::Message;

/// What the messages of one detection have in common.
pub(super) struct Context {
    pub session_id: String,
    pub profile: String,
    pub profile_version: String,
}

/// The response for an event.
pub(super) fn response(context: &Context, event: DetectEvent) -> proto::DetectResponse {
    let message = match event {
        DetectEvent::Opened(info) => Message::Opened(proto::Opened {
            session_id: context.session_id.clone(),
            media: Some(media_info(info)),
            profile: context.profile.clone(),
            profile_version: context.profile_version.clone(),
        }),
        DetectEvent::Scores(scores) => Message::FrameScores(frame_scores(&scores)),
        DetectEvent::EventStarted(event) => Message::EventStarted(proto::EventStarted {
            event: Some(interval(&event)),
        }),
        DetectEvent::EventUpdated(event) => Message::EventUpdated(proto::EventUpdated {
            event: Some(interval(&event)),
        }),
        DetectEvent::EventEnded(event, reason, picture) => Message::EventEnded(proto::EventEnded {
            event: Some(interval(&event)),
            reason: end_reason(reason).into(),
            snapshot: picture.map(snapshot),
        }),
        DetectEvent::Gap(gap) => Message::Gap(proto::Gap {
            from: Some(time(gap.from)),
            to: Some(time(gap.to)),
            reason: gap_reason(gap.reason).into(),
            frames_lost: gap.frames_lost,
            detail: gap.detail,
        }),
        DetectEvent::Summary(summary) => Message::Summary(proto::Summary {
            frames: summary.frames,
            segments: summary.segments,
            events: summary.events,
            gaps: summary.gaps,
            duration: Some(span(summary.duration)),
            frames_shed: summary.frames_shed,
            segments_shed: summary.segments_shed,
            segments_gated: summary.segments_gated,
        }),
        DetectEvent::Source(state) => Message::SourceState(source_state(state)),
        DetectEvent::ProfileChanged { profile, version } => {
            Message::ProfileChanged(proto::ProfileChanged {
                profile,
                profile_version: version,
            })
        }
    };
    proto::DetectResponse {
        message: Some(message),
        received_at: None,
    }
}

fn media_info(info: media::MediaInfo) -> proto::MediaInfo {
    proto::MediaInfo {
        container: info.container,
        codec: info.codec,
        width: info.width,
        height: info.height,
        declared_fps: info.declared_fps.unwrap_or(0.0),
    }
}

fn frame_scores(scores: &event::SegmentScores) -> proto::FrameScores {
    let stage = match scores.stage {
        event::Stage::Provisional => proto::ScoreStage::Provisional,
        event::Stage::Final => proto::ScoreStage::Final,
    };
    proto::FrameScores {
        stage: stage.into(),
        segment: scores.segment,
        gated: scores.gated,
        frames: scores
            .frames
            .iter()
            .map(|frame| proto::FrameScore {
                index: frame.index,
                pts: Some(time(frame.pts)),
                probability: scores.probability,
                smoothed: scores.smoothed,
            })
            .collect(),
    }
}

fn interval(event: &events::Event) -> proto::Event {
    proto::Event {
        id: event.id.to_string(),
        start: Some(time(event.start)),
        end: Some(time(event.end)),
        first_frame: event.first_frame,
        last_frame: event.last_frame,
        peak: event.peak,
        mean: event.mean,
        provisional: event.provisional,
    }
}

fn snapshot(snapshot: Snapshot) -> proto::Snapshot {
    proto::Snapshot {
        jpeg: snapshot.jpeg.to_vec(),
        frame_index: snapshot.frame.index,
        pts: Some(time(snapshot.frame.pts)),
    }
}

fn end_reason(reason: events::EndReason) -> proto::EventEndReason {
    match reason {
        events::EndReason::BelowThreshold => proto::EventEndReason::BelowThreshold,
        events::EndReason::Gap => proto::EventEndReason::Gap,
        events::EndReason::EndOfStream => proto::EventEndReason::EndOfStream,
        events::EndReason::NotConfirmed => proto::EventEndReason::NotConfirmed,
        events::EndReason::ProfileChanged => proto::EventEndReason::ProfileChanged,
    }
}

fn source_state(state: media::SourceState) -> proto::SourceState {
    match state {
        media::SourceState::Connected => proto::SourceState {
            status: proto::SourceStatus::Connected.into(),
            ..proto::SourceState::default()
        },
        media::SourceState::Interrupted {
            reason,
            detail,
            attempts,
            retry_in,
        } => proto::SourceState {
            status: proto::SourceStatus::Interrupted.into(),
            reason: gap_reason(reason).into(),
            detail,
            attempts,
            retry_in: Some(span(retry_in)),
        },
    }
}

fn gap_reason(reason: media::GapReason) -> proto::GapReason {
    match reason {
        media::GapReason::DecodeError => proto::GapReason::DecodeError,
        media::GapReason::TimestampJump => proto::GapReason::TimestampJump,
        media::GapReason::ConnectionLost => proto::GapReason::ConnectionLost,
        media::GapReason::Stalled => proto::GapReason::Stalled,
        media::GapReason::LoadShed => proto::GapReason::LoadShed,
    }
}

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Seconds and nanoseconds of the same sign, as the well-known type asks.
fn time(time: MediaTime) -> Duration {
    let nanos = time.as_nanos();
    Duration {
        seconds: nanos / NANOS_PER_SECOND,
        nanos: (nanos % NANOS_PER_SECOND) as i32, // below 1e9
    }
}

fn span(span: StdDuration) -> Duration {
    Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: span.subsec_nanos() as i32, // below 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_time_keeps_its_nanoseconds_and_its_sign() {
        let at = |nanos| {
            let d = time(MediaTime::from_nanos(nanos));
            (d.seconds, d.nanos)
        };
        assert_eq!(at(1_600_000_001), (1, 600_000_001));
        assert_eq!(at(-1_600_000_001), (-1, -600_000_001));
        assert_eq!(at(i64::MAX), (9_223_372_036, 854_775_807));
        let d = span(StdDuration::MAX);
        assert_eq!((d.seconds, d.nanos), (i64::MAX, 999_999_999));
    }
}
