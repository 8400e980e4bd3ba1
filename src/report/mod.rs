//! REPORT: what a hunt or a calibration found, as JSON with all numbers and as one HTML page with
//! pictures; pure.
//!
//! The page needs no network and no script, follows the reader's light or dark setting, and every
//! text that came from outside is escaped. Its size is bounded: charts by their numbers of points,
//! clips by [`REPORT_CLIPS_MAX`](crate::limits::REPORT_CLIPS_MAX).

mod clips;
mod curves;
mod heads;
mod page;
mod scores;
mod svg;

use serde::Serialize;
use serde_json::{Map, Value};

pub use curves::{HeldOut, Reliability};

use crate::{
    error::{Error, Kind, Result, ResultExt},
    head::HeadId,
    limits::REPORT_MAX_BYTES,
};

/// Everything a report tells.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Heading of the page.
    pub title: String,
    /// What was asked for, by name.
    pub options: Map<String, Value>,
    /// Prompts, the scoring prompt first.
    pub prompts: Vec<String>,
    /// What it was made from.
    pub samples: SampleCounts,
    /// How the heads were ranked; none where they were kept.
    pub ranking: Option<Ranking>,
    /// How K was chosen, where it was.
    pub top_k: Option<TopK>,
    /// Scores of samples that the fit had not seen.
    pub held_out: Option<HeldOut>,
    /// The locator's grid.
    pub locator: Option<Grid>,
    /// Ways of scoring side by side, on the same held-out samples.
    pub comparison: Vec<Method>,
    /// How the threshold was placed by a rate of false alarms.
    pub false_alarms: Option<FalseAlarms>,
    /// Held-out clips over time, at most [`REPORT_CLIPS_MAX`](crate::limits::REPORT_CLIPS_MAX).
    pub clips: Vec<Clip>,
    /// How many held-out clips are not among them.
    pub clips_left_out: usize,
    /// What a reader should know about these numbers.
    pub warnings: Vec<String>,
}

/// Counts of what a report was made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SampleCounts {
    /// Videos; 0: not known.
    pub videos: usize,
    /// Samples.
    pub samples: usize,
    /// Anomalous ones among them.
    pub anomalous: usize,
    /// Samples kept for validation.
    pub validation: usize,
    /// Samples that came from feedback.
    pub feedback: usize,
}

/// How all heads were ranked.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ranking {
    /// Layers of the model.
    pub layers: usize,
    /// Heads per layer.
    pub heads: usize,
    /// Number of prompts.
    pub prompts: usize,
    /// The chosen heads as `[layer, head]`, best first.
    pub expert_heads: Vec<HeadId>,
    /// What was measured of each head.
    pub metrics: Vec<Metric>,
    /// Mean of the scaled metrics, `[prompts, layers, heads]`.
    pub saliency: Vec<f64>,
    /// Robust score: mean − λ · std, `[layers, heads]`.
    pub rss: Vec<f64>,
    /// Mean saliency over prompts, `[layers, heads]`.
    pub mean: Vec<f64>,
    /// Standard deviation over prompts, `[layers, heads]`.
    pub std: Vec<f64>,
}

/// One metric of all heads.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it means, in a few words.
    pub meaning: &'static str,
    /// `[prompts, layers, heads]`.
    pub values: Vec<f64>,
}

/// How K was chosen by cross-validation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TopK {
    /// The chosen K.
    pub k: usize,
    /// Number of folds.
    pub folds: usize,
    /// Whether probabilities of all folds were pooled, because a fold lacks a class.
    pub pooled: bool,
    /// (k, held-out average precision, its standard error).
    pub curve: Vec<(usize, f64, f64)>,
}

/// Frame-level F1 over smoothing and threshold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Grid {
    /// The chosen σ, segments.
    pub sigma: f64,
    /// The chosen τ.
    pub threshold: f64,
    /// F1 there.
    pub f1: f64,
    /// (σ, τ, F1), σ-major, ascending.
    pub surface: Vec<(f64, f64, f64)>,
}

/// One way of scoring the held-out samples.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Method {
    /// Its name.
    pub name: String,
    /// What it was fitted to.
    pub fitted_on: String,
    /// ROC-AUC over held-out samples.
    pub roc_auc: f64,
    /// Average precision over held-out samples.
    pub average_precision: f64,
}

/// A threshold placed by a rate of false alarms.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FalseAlarms {
    /// What was asked for, events per camera and day.
    pub target_per_day: f64,
    /// Held-out normal footage, days.
    pub footage_days: f64,
    /// Events on it at the threshold.
    pub events: usize,
    /// Events divided by footage, per day.
    pub observed_per_day: f64,
    /// Upper bound of the rate at 95% confidence, per day.
    pub upper_bound_per_day: f64,
    /// Whether the footage suffices to show the target.
    pub target_shown: bool,
    /// The threshold.
    pub threshold: f64,
}

/// A held-out clip over time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Clip {
    /// Its name.
    pub name: String,
    /// Whether it is labelled anomalous.
    pub anomaly: bool,
    /// Segments: start and end in seconds, p, p′; at most
    /// [`REPORT_CLIP_SEGMENTS_MAX`](crate::limits::REPORT_CLIP_SEGMENTS_MAX).
    pub segments: Vec<[f64; 4]>,
    /// Segments that are not shown, after these.
    pub segments_left_out: usize,
    /// Anomalous stretches, seconds.
    pub truth: Vec<(f64, f64)>,
    /// τ.
    pub threshold: f64,
}

impl Report {
    /// All numbers as JSON, one line.
    ///
    /// # Errors
    /// `Internal` where it cannot be written.
    pub fn json(&self) -> Result<String> {
        let mut json = serde_json::to_string(self)
            .or_kind(Kind::Internal, || "cannot write the report as JSON".into())?;
        json.push('\n');
        Ok(json)
    }

    /// The page.
    ///
    /// # Errors
    /// `ResourceExhausted` where it would have more than
    /// [`REPORT_MAX_BYTES`] bytes.
    pub fn html(&self) -> Result<String> {
        let page = page::page(self);
        if page.len() > REPORT_MAX_BYTES {
            return Err(Error::exhausted(format!(
                "the report would have {} bytes, and {REPORT_MAX_BYTES} are possible: ask for it as JSON",
                page.len()
            )));
        }
        Ok(page)
    }
}
