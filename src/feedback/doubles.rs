//! What the tests of this room share: a profile, segments, and a clock that a test moves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use crate::{
    clock::{Clock, Sleep},
    head::HeadId,
    media::MediaTime,
    profile::{Edge, LocatorParams, ModelBinding, Profile, SCHEMA, ScorerParams},
    score::{events::Event, locate::SegmentSpan},
    segment::SegmentRule,
};

/// Length of a segment.
pub const SEGMENT: Duration = Duration::from_millis(1600);

/// Numbers of a segment: two prompts, two heads of three.
pub const NUMBERS: usize = 12;

pub fn profile(name: &str) -> Arc<Profile> {
    Arc::new(Profile {
        schema: SCHEMA,
        name: name.into(),
        created_unix_s: 1_700_000_000,
        model: ModelBinding {
            name: "double".into(),
            fingerprint: "f1".repeat(32),
            head_dim: 3,
            device: "cpu".into(),
            dtype: "f32".into(),
        },
        segment: SegmentRule::Frames(48),
        frames_per_segment: 16,
        heads: vec![HeadId { layer: 1, head: 0 }, HeadId { layer: 0, head: 1 }],
        hunt_prompts: vec!["one".into()],
        scoring_prompts: vec!["one".into(), "two".into()],
        scorer: ScorerParams {
            weights: vec![0.5; 6],
            intercept: 0.0,
        }
        .into(),
        locator: LocatorParams {
            sigma: 1.0,
            threshold: 0.5,
            edge: Edge::Renormalize,
            event_bridge_s: None,
        },
        notes: serde_json::Map::new(),
    })
}

/// The n-th segment, of 48 frames.
pub fn span(n: u64) -> SegmentSpan {
    let at = |n: u64| MediaTime::from_nanos(SEGMENT.as_nanos() as i64 * n as i64);
    SegmentSpan {
        first_frame: n * 48,
        last_frame: n * 48 + 47,
        start: at(n),
        end: at(n + 1),
        run: 0,
    }
}

/// An event from one segment to another, inclusive.
pub fn event(id: u64, from: u64, to: u64) -> Event {
    Event {
        id,
        start: span(from).start,
        end: span(to).end,
        first_frame: span(from).first_frame,
        last_frame: span(to).last_frame,
        peak: 0.9,
        mean: 0.8,
        provisional: false,
    }
}

/// The features of the n-th segment of a session: all different.
pub fn z(n: u64) -> Vec<f32> {
    (0..NUMBERS).map(|i| n as f32 + i as f32 / 64.0).collect()
}

/// Stands still until a test moves it.
#[derive(Debug, Default)]
pub struct HandClock(AtomicU64);

impl HandClock {
    pub fn advance(&self, span: Duration) {
        self.0.fetch_add(span.as_millis() as u64, SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(SeqCst))
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + self.now()
    }

    fn sleep(&self, span: Duration) -> Sleep {
        self.advance(span);
        Box::pin(std::future::ready(()))
    }
}
