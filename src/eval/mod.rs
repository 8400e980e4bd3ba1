//! EVAL: data set annotations and metrics of frames and events; pure.
//!
//! A [`Dataset`] says of each video how many frames it has and which are anomalous; [`ucf_crime`],
//! [`xd_violence`] and [`manifest`] read one from the respective annotations together with the
//! [`counts`]. [`evaluate()`] takes a [`scores`] file and computes the [`metrics`] over the frames of
//! all videos, concatenated, the same per class, and the [`events`]. [`bootstrap`] says how far such
//! figures depend on which videos were tested. A video without scores is an
//! error, not a skip.

mod accumulate;
pub mod bootstrap;
pub mod counts;
pub mod dataset;
mod evaluation;
pub mod events;
pub mod manifest;
pub mod metrics;
pub mod scores;
pub mod ucf_crime;
pub mod xd_violence;

pub use accumulate::Accumulator;
pub use dataset::{Dataset, VideoTruth};
pub use evaluation::{
    ClassEvaluation, EvaluateOptions, Evaluation, Evaluator, evaluate, evaluate_with,
};

/// A video's name without a trailing `.mp4`: some files of one data set write it, others do not.
/// Only that: names contain dots.
pub fn video_name(name: &str) -> &str {
    name.strip_suffix(".mp4").unwrap_or(name)
}
