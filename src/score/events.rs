//! Runs of anomalous segments as events.

use crate::media::MediaTime;

/// An anomalous interval, from its first to its last segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Zero-based count of the detection's events; stable.
    pub id: u64,
    /// PTS of the first frame.
    pub start: MediaTime,
    /// PTS + duration of the last frame known so far.
    pub end: MediaTime,
    /// Index of the first frame.
    pub first_frame: u64,
    /// Index of the last frame, inclusive.
    pub last_frame: u64,
    /// Largest p′ over the event's segments.
    pub peak: f64,
    /// Mean p′ over the event's segments.
    pub mean: f64,
    /// Not yet confirmed by a final p′; see [`Alerts`](super::alerts::Alerts).
    pub provisional: bool,
}

/// Why an event ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// A segment at or below the threshold followed.
    BelowThreshold,
    /// A gap longer than the bridge followed.
    Gap,
    /// The media ended.
    EndOfStream,
    /// A provisional event was none: its segment's final p′ was at or below the threshold, or it
    /// was over before it had lasted long enough.
    NotConfirmed,
    /// Another version of the profile scores what follows.
    ProfileChanged,
}
