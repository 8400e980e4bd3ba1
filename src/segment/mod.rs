//! SEGMENT: frames to segments of sampled frames; pure.

use serde::{Deserialize, Serialize};

/// How a video is cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentRule {
    /// So many decoded frames each.
    Frames(u32),
    /// So many seconds of media time each; for sources whose frame rate cannot be believed.
    Seconds(f64),
}
