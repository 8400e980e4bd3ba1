//! The scorers that a profile may hold, as they stand in its file.
//!
//! `"scorer": {"weights": […], "intercept": …}` is the logistic one of schema 1;
//! `"scorer": {"normality": {…}}` came with schema 2.

use serde::{Deserialize, Serialize};

use super::{SCHEMA, SCHEMA_NEWEST};

/// How a feature vector z becomes a probability p.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub enum Scorer {
    /// Fitted to labelled samples of both classes.
    Logistic(ScorerParams),
    /// Fitted to normal samples alone.
    Normality(NormalityParams),
}

/// p = σ(w·z + b).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScorerParams {
    /// w, `heads * head_dim` numbers.
    pub weights: Vec<f64>,
    /// b.
    pub intercept: f64,
}

/// How far z lies from normal footage, as a quantile of normal footage.
///
/// The covariance of z is one variance s² in every direction plus more in a few orthonormal ones:
/// Σ = s² (I + Σⱼ aⱼ uⱼ uⱼᵀ) with aⱼ ≥ 0. The squared Mahalanobis distance is then
/// (‖z − μ‖² − Σⱼ aⱼ / (1 + aⱼ) (uⱼ·(z − μ))²) / s², and p is its quantile among
/// distances of normal footage that the fit had not seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NormalityParams {
    /// μ, `heads * head_dim` numbers.
    pub mean: Vec<f64>,
    /// s², above 0.
    pub variance: f64,
    /// aⱼ: by what part of s² the variance along uⱼ exceeds s².
    pub excess: Vec<f64>,
    /// uⱼ, row-major `[excess, heads * head_dim]`, orthonormal.
    pub directions: Vec<f64>,
    /// Squared distances, ascending, at which p is `quantiles`; p is linear between them, and from
    /// (0, 0) to the first.
    pub distances: Vec<f64>,
    /// p at `distances`, strictly ascending, within 0 to 1.
    pub quantiles: Vec<f64>,
    /// Mean excess of squared distances in the tail, above 0: beyond the last distance 1 − p falls
    /// off exponentially with it.
    pub tail_scale: f64,
}

impl Scorer {
    /// The oldest schema that can hold it.
    pub fn schema(&self) -> u32 {
        match self {
            Scorer::Logistic(_) => SCHEMA,
            Scorer::Normality(_) => SCHEMA_NEWEST,
        }
    }

    /// The logistic scorer, if it is one.
    pub fn logistic(&self) -> Option<&ScorerParams> {
        match self {
            Scorer::Logistic(params) => Some(params),
            Scorer::Normality(_) => None,
        }
    }

    /// The logistic scorer to change, if it is one.
    pub fn logistic_mut(&mut self) -> Option<&mut ScorerParams> {
        match self {
            Scorer::Logistic(params) => Some(params),
            Scorer::Normality(_) => None,
        }
    }
}

impl From<ScorerParams> for Scorer {
    fn from(params: ScorerParams) -> Self {
        Scorer::Logistic(params)
    }
}

impl From<NormalityParams> for Scorer {
    fn from(params: NormalityParams) -> Self {
        Scorer::Normality(params)
    }
}

/// The object in the file: the keys of one scorer or of the other.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weights: Option<Vec<f64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    intercept: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    normality: Option<NormalityParams>,
}

impl TryFrom<Fields> for Scorer {
    type Error = &'static str;

    fn try_from(fields: Fields) -> Result<Self, Self::Error> {
        match fields {
            Fields {
                weights: Some(weights),
                intercept: Some(intercept),
                normality: None,
            } => Ok(Scorer::Logistic(ScorerParams { weights, intercept })),
            Fields {
                weights: None,
                intercept: None,
                normality: Some(params),
            } => Ok(Scorer::Normality(params)),
            _ => Err("the scorer has neither weights and intercept nor normality, or both"),
        }
    }
}

impl From<Scorer> for Fields {
    fn from(scorer: Scorer) -> Self {
        match scorer {
            Scorer::Logistic(ScorerParams { weights, intercept }) => Fields {
                weights: Some(weights),
                intercept: Some(intercept),
                normality: None,
            },
            Scorer::Normality(params) => Fields {
                normality: Some(params),
                ..Fields::default()
            },
        }
    }
}
