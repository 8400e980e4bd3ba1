//! What a job is asked to do.

use serde::{Deserialize, Serialize};

use super::Kind;
use crate::{
    hunt::HuntOptions,
    limits::{FRAMES_PER_SEGMENT, SEGMENT_FRAMES},
    model::prompt::DEFAULT_PROMPTS,
    pipeline::{calibrate::CalibrateOptions, labelled::SamplingUnit},
    profile::Edge,
    score::logistic::FitOptions,
    segment::SegmentRule,
};

/// How heads are hunted and a scorer is fitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HuntSettings {
    /// Prompts the heads are ranked over; detection runs with the first.
    pub prompts: Vec<String>,
    /// K.
    pub top_k: usize,
    /// λ.
    pub lambda: f64,
    /// Of folds and splits.
    pub seed: u64,
    /// Choose K by cross-validation.
    pub auto_top_k: bool,
    /// C.
    pub c: f64,
    /// Part of the videos kept for validation.
    pub validation_fraction: f64,
    /// What one sample is.
    pub unit: SamplingUnit,
    /// How a clip is cut.
    pub rule: SegmentRule,
}

impl Default for HuntSettings {
    /// As the command line's.
    fn default() -> Self {
        let hunt = HuntOptions::default();
        HuntSettings {
            prompts: DEFAULT_PROMPTS.map(str::to_owned).to_vec(),
            top_k: hunt.top_k,
            lambda: hunt.lambda,
            seed: 0,
            auto_top_k: false,
            c: FitOptions::default().c,
            validation_fraction: 0.0,
            unit: SamplingUnit::Auto,
            rule: SegmentRule::Frames(SEGMENT_FRAMES),
        }
    }
}

impl HuntSettings {
    /// For the pipeline, into a profile of this name.
    pub(super) fn options(&self, name: &str) -> CalibrateOptions {
        CalibrateOptions {
            name: name.to_owned(),
            prompts: self.prompts.clone(),
            rule: self.rule,
            frames_per_segment: FRAMES_PER_SEGMENT,
            hunt: HuntOptions {
                top_k: self.top_k,
                lambda: self.lambda,
            },
            auto_top_k: self.auto_top_k,
            validation_fraction: self.validation_fraction,
            fit: FitOptions {
                c: self.c,
                ..FitOptions::default()
            },
            seed: self.seed,
            edge: Edge::Renormalize,
        }
    }
}

/// Calibration without any anomalous clip.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NormalOnly {
    /// False alarms per camera and day that the threshold aims at.
    pub false_alarms_per_day: f64,
    /// Write what the footage does show as an upper bound instead of refusing.
    pub accept_upper_bound: bool,
}

/// A profile to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrateRequest {
    /// Its name.
    pub profile: String,
    /// How.
    pub options: HuntSettings,
    /// Make it the active one.
    pub activate: bool,
    /// Keep heads and prompts of the current version.
    pub keep_heads: bool,
    /// Which version that was when the job was taken; put here then.
    pub base_version: String,
    /// Add the samples of reported feedback.
    pub include_feedback: bool,
    /// Calibrate on normal clips alone.
    pub normal_only: Option<NormalOnly>,
}

/// What a job is asked to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Rank heads.
    Hunt {
        /// How.
        options: HuntSettings,
    },
    /// Make a profile.
    Calibrate(CalibrateRequest),
    /// Score clips with a profile.
    Evaluate {
        /// Its name; empty: the active one, whose name is put here when the job is taken.
        profile: String,
        /// Its version; empty: the current one, as above.
        version: String,
    },
}

impl Request {
    /// What sort of job it is.
    pub fn kind(&self) -> Kind {
        match self {
            Request::Hunt { .. } => Kind::Hunt,
            Request::Calibrate(_) => Kind::Calibrate,
            Request::Evaluate { .. } => Kind::Evaluate,
        }
    }

    /// The profile that it writes or evaluates; empty: none.
    pub fn profile(&self) -> &str {
        match self {
            Request::Hunt { .. } => "",
            Request::Calibrate(request) => &request.profile,
            Request::Evaluate { profile, .. } => profile,
        }
    }
}
