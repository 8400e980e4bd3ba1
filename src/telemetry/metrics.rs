//! What is measured, as typed functions: names, units and label values live here alone, so that
//! no caller can invent a label. Durations are seconds, sizes are bytes or counts.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use metrics::{counter, gauge, histogram};

use crate::media::{Gap, GapReason};

/// Segments that left the engine or never went there, by `outcome`.
pub const SEGMENTS_TOTAL: &str = "headhunt_segments_total";
/// Segments that wait, by `lane`.
pub const QUEUE_DEPTH: &str = "headhunt_queue_depth_segments";
/// How long a segment waited in the queue, by `lane`.
pub const QUEUE_WAIT_SECONDS: &str = "headhunt_queue_wait_seconds";
/// How long a stage took, by `stage`.
pub const STAGE_SECONDS: &str = "headhunt_stage_seconds";
/// Clips in one pass.
pub const BATCH_CLIPS: &str = "headhunt_batch_clips";
/// Measured throughput of the model.
pub const SEGMENTS_PER_SECOND: &str = "headhunt_segments_per_second";
/// Panics of the model that were caught.
pub const PROBE_PANICS_TOTAL: &str = "headhunt_probe_panics_total";
/// Decoded frames.
pub const FRAMES_TOTAL: &str = "headhunt_frames_total";
/// Gaps in media, by `reason`.
pub const GAPS_TOTAL: &str = "headhunt_gaps_total";
/// Media time that has no scores, by `reason`.
pub const GAP_SECONDS_TOTAL: &str = "headhunt_gap_seconds_total";
/// Events that began.
pub const EVENTS_TOTAL: &str = "headhunt_events_total";
/// From the arrival of an event's first frame to the sending of its start; live sources alone.
pub const ALERT_DELAY_SECONDS: &str = "headhunt_alert_delay_seconds";

/// A label whose values are few and known when this is compiled.
pub trait Label: Copy {
    /// The label's name.
    const NAME: &'static str;
    /// The label's value.
    fn value(self) -> &'static str;
}

/// What became of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its features were computed.
    Scored,
    /// The model failed on it.
    Failed,
    /// Its caller left before its pass.
    Cancelled,
    /// It waited too long.
    DeadlineExceeded,
    /// There was no room for it.
    Rejected,
    /// Nothing moved, so it repeats a score and never went to the engine.
    Gated,
}

impl Outcome {
    const ALL: [Outcome; 6] = [
        Outcome::Scored,
        Outcome::Failed,
        Outcome::Cancelled,
        Outcome::DeadlineExceeded,
        Outcome::Rejected,
        Outcome::Gated,
    ];
}

impl Label for Outcome {
    const NAME: &'static str = "outcome";
    fn value(self) -> &'static str {
        match self {
            Outcome::Scored => "scored",
            Outcome::Failed => "failed",
            Outcome::Cancelled => "cancelled",
            Outcome::DeadlineExceeded => "deadline_exceeded",
            Outcome::Rejected => "rejected",
            Outcome::Gated => "gated",
        }
    }
}

/// A stage of a segment's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for and decoding the frames of one segment.
    Decode,
    /// RGB conversion and resizing of one segment's sampled frames.
    Preprocess,
    /// Waiting for the model.
    Queue,
    /// One whole pass of the model over a batch.
    Pass,
    /// The vision tower and projector of one pass.
    Vision,
    /// The language model of one pass.
    Language,
    /// Scorer and locator of one segment.
    Score,
}

impl Label for Stage {
    const NAME: &'static str = "stage";
    fn value(self) -> &'static str {
        match self {
            Stage::Decode => "decode",
            Stage::Preprocess => "preprocess",
            Stage::Queue => "queue",
            Stage::Pass => "pass",
            Stage::Vision => "vision",
            Stage::Language => "language",
            Stage::Score => "score",
        }
    }
}

/// Every reason of a gap.
pub(super) const GAP_REASONS: [GapReason; 5] = [
    GapReason::DecodeError,
    GapReason::TimestampJump,
    GapReason::ConnectionLost,
    GapReason::Stalled,
    GapReason::LoadShed,
];

impl Label for GapReason {
    const NAME: &'static str = "reason";
    fn value(self) -> &'static str {
        self.as_str()
    }
}

fn pair<L: Label>(label: L) -> [(&'static str, &'static str); 1] {
    [(L::NAME, label.value())]
}

/// A segment left the engine, or was kept from it.
pub fn segment(outcome: Outcome) {
    counter!(SEGMENTS_TOTAL, &pair(outcome)).increment(1);
}

/// So many segments wait in a lane now.
pub fn queue_depth(lane: impl Label, segments: usize) {
    gauge!(QUEUE_DEPTH, &pair(lane)).set(segments as f64);
}

/// A segment waited so long in a lane before its pass began.
pub fn queue_wait(lane: impl Label, waited: Duration) {
    histogram!(QUEUE_WAIT_SECONDS, &pair(lane)).record(waited.as_secs_f64());
    stage(Stage::Queue, waited);
}

/// A stage took so long.
pub fn stage(stage: Stage, took: Duration) {
    histogram!(STAGE_SECONDS, &pair(stage)).record(took.as_secs_f64());
}

/// A pass ran over so many clips.
pub fn batch_size(clips: usize) {
    histogram!(BATCH_CLIPS).record(clips as f64);
}

/// The engine's throughput, segments per second.
pub fn segments_per_second(rate: f64) {
    gauge!(SEGMENTS_PER_SECOND).set(rate);
}

/// The model panicked and the panic was caught.
pub fn probe_panic() {
    counter!(PROBE_PANICS_TOTAL).increment(1);
}

/// So many frames were decoded.
pub fn frames(n: u64) {
    counter!(FRAMES_TOTAL).increment(n);
}

/// A gap was found.
pub fn gap(gap: &Gap) {
    /// Parts of seconds that are not counted yet: a counter takes whole numbers.
    static REST: Mutex<BTreeMap<&'static str, Duration>> = Mutex::new(BTreeMap::new());
    let reason = pair(gap.reason);
    counter!(GAPS_TOTAL, &reason).increment(1);
    let mut rest = REST.lock().unwrap_or_else(PoisonError::into_inner);
    let rest = rest.entry(gap.reason.value()).or_default();
    let span = rest.saturating_add(gap.to.saturating_since(gap.from));
    counter!(GAP_SECONDS_TOTAL, &reason).increment(span.as_secs());
    *rest = Duration::from_nanos(span.subsec_nanos().into());
}

/// An event began.
pub fn event_started() {
    counter!(EVENTS_TOTAL).increment(1);
}

/// The start of an event was sent now whose first frame had arrived at `received`. A clock that was
/// set back in between leaves nothing to record.
pub fn alert_delay(received: SystemTime) {
    if let Ok(delay) = received.elapsed() {
        histogram!(ALERT_DELAY_SECONDS).record(delay.as_secs_f64());
    }
}

/// Names and units of everything above, for `/metrics`; once per process, after the recorder is
/// installed.
pub(super) fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_counter!(SEGMENTS_TOTAL, "Segments by what became of them");
    describe_gauge!(QUEUE_DEPTH, "Segments that wait for the model, by lane");
    describe_histogram!(
        QUEUE_WAIT_SECONDS,
        Unit::Seconds,
        "How long a segment waited in the queue, by lane"
    );
    describe_histogram!(
        STAGE_SECONDS,
        Unit::Seconds,
        "How long a stage took, by stage"
    );
    describe_histogram!(BATCH_CLIPS, "Clips in one pass of the model");
    describe_gauge!(SEGMENTS_PER_SECOND, "Measured throughput of the model");
    describe_counter!(PROBE_PANICS_TOTAL, "Panics of the model that were caught");
    describe_counter!(FRAMES_TOTAL, "Decoded frames");
    // From 0 on, so that the first one is an increase.
    for outcome in Outcome::ALL {
        counter!(SEGMENTS_TOTAL, &pair(outcome)).increment(0);
    }
    for reason in GAP_REASONS {
        counter!(GAPS_TOTAL, &pair(reason)).increment(0);
        counter!(GAP_SECONDS_TOTAL, &pair(reason)).increment(0);
    }
    for name in [PROBE_PANICS_TOTAL, FRAMES_TOTAL, EVENTS_TOTAL] {
        counter!(name).increment(0);
    }
    describe_counter!(GAPS_TOTAL, "Gaps in media, by reason");
    describe_counter!(
        GAP_SECONDS_TOTAL,
        Unit::Seconds,
        "Media time that has no scores, by reason"
    );
    describe_counter!(EVENTS_TOTAL, "Events that began");
    describe_histogram!(
        ALERT_DELAY_SECONDS,
        Unit::Seconds,
        "From the arrival of an event's first frame to the sending of its start"
    );
}
