//! PROFILE: what hunting and calibration found, as a versioned, checksummed JSON file.

mod check;
mod file;
mod scorer;
mod store;

pub use check::check_name;
pub use scorer::{NormalityParams, Scorer, ScorerParams};
pub use store::{ProfileEntry, ProfileStore, Scope, Selected};

use serde::{Deserialize, Serialize};

use crate::{head::HeadId, segment::SegmentRule};

/// Schema of a profile that needs nothing newer. It is still written so, byte for byte as the
/// versions before [`SCHEMA_NEWEST`] did, so that such a version reads it after a rollback.
pub const SCHEMA: u32 = 1;

/// Newest schema that this version reads and writes: 2 adds [`Scorer::Normality`].
pub const SCHEMA_NEWEST: u32 = 2;

/// Everything that detection needs besides the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The oldest schema that can hold it: [`Scorer::schema`].
    pub schema: u32,
    /// Name, `[a-z0-9][a-z0-9._-]{0,63}`.
    pub name: String,
    /// Seconds since 1970 when it was made.
    pub created_unix_s: u64,
    /// The model it belongs to.
    pub model: ModelBinding,
    /// How a video is cut.
    pub segment: SegmentRule,
    /// Frames sampled per segment.
    pub frames_per_segment: usize,
    /// Expert heads, in the order of the scorer's weights.
    pub heads: Vec<HeadId>,
    /// Prompts the heads were ranked over.
    pub hunt_prompts: Vec<String>,
    /// Prompts that detection runs with; p is averaged over them. Usually one.
    pub scoring_prompts: Vec<String>,
    /// How z becomes p.
    pub scorer: Scorer,
    /// The locator.
    pub locator: LocatorParams,
    /// How it came about; for people and reports, detection does not read it.
    #[serde(default)]
    pub notes: serde_json::Map<String, serde_json::Value>,
}

/// The model that a profile belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelBinding {
    /// Name for people.
    pub name: String,
    /// SHA-256, hex: must equal the resident model's for the same number of layers.
    pub fingerprint: String,
    /// Numbers per head.
    pub head_dim: usize,
    /// Device of calibration; another one is a warning.
    pub device: String,
    /// Type of calibration; another one is a warning.
    pub dtype: String,
}

/// What happens at the ends of a smoothed sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edge {
    /// Taps are renormalised over those inside the sequence.
    #[default]
    Renormalize,
    /// Zeros stand outside the sequence, as in the reference.
    Zero,
}

/// Smoothing and threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocatorParams {
    /// σ_g of the Gaussian filter, segments.
    pub sigma: f64,
    /// τ: a segment is anomalous if p′ > τ.
    pub threshold: f64,
    /// What happens at the ends.
    #[serde(default)]
    pub edge: Edge,
    /// Longest gap inside an event, seconds; `None`: one segment.
    #[serde(default)]
    pub event_bridge_s: Option<f64>,
}
