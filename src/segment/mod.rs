//! SEGMENT: frames to segments of sampled frames; pure.
//!
//! [`Segmenter`] cuts a stream of frames by a [`SegmentRule`] and picks the frames that the model
//! sees; [`sample_indices`] is the same choice where only a count is known. [`mask`] blackens what
//! nobody is to see, and [`motion`] tells segments in which nothing moves.

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    limits::{SEGMENT_MAX_FRAMES, SEGMENT_SECONDS_MAX, SEGMENT_SECONDS_MIN},
};

pub mod mask;
pub mod motion;
mod sampling;
mod segmenter;
#[cfg(test)]
mod tests;

pub use sampling::{sample_indices, whole_video_indices};
pub use segmenter::{SampledSegment, Segmenter};

/// How a video is cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentRule {
    /// So many decoded frames each.
    Frames(u32),
    /// So many seconds of media time each; for sources whose frame rate cannot be believed.
    Seconds(f64),
}

impl SegmentRule {
    /// Refuses a length that no segment can have.
    pub fn validate(&self) -> Result<()> {
        match *self {
            SegmentRule::Frames(n) if n == 0 || n as usize > SEGMENT_MAX_FRAMES => {
                Err(Error::invalid(format!(
                    "a segment of {n} frames: give 1 to {SEGMENT_MAX_FRAMES} (48 is the method's)"
                ))
                .with_field("segment.frames"))
            }
            // Written so that NaN is refused too.
            SegmentRule::Seconds(s)
                if !(SEGMENT_SECONDS_MIN..=SEGMENT_SECONDS_MAX).contains(&s) =>
            {
                Err(Error::invalid(format!(
                    "a segment of {s} s: give {SEGMENT_SECONDS_MIN} to {SEGMENT_SECONDS_MAX} \
                     (1.6 is the method's)"
                ))
                .with_field("segment.seconds"))
            }
            _ => Ok(()),
        }
    }

    /// Length of a full segment in seconds; `fps` matters to the `frames` rule alone, and 30 (the
    /// method's rate: 48 frames are 1.6 s) stands in where it is not known or not positive.
    pub fn seconds(&self, fps: Option<f64>) -> f64 {
        match *self {
            SegmentRule::Frames(n) => {
                let fps = fps.filter(|f| f.is_finite() && *f > 0.0).unwrap_or(30.0);
                f64::from(n) / fps
            }
            SegmentRule::Seconds(s) => s,
        }
    }
}
