//! Whichever scorer a profile holds.

use super::{logistic::Logistic, normality::Normality};
use crate::{
    error::Result,
    profile::{self, Profile},
};

/// A profile's scorer, ready to score.
#[derive(Clone, Debug, PartialEq)]
pub enum Scorer {
    /// Fitted to labelled samples of both classes.
    Logistic(Logistic),
    /// Fitted to normal samples alone.
    Normality(Normality),
}

impl Scorer {
    /// p of a feature vector, 0 to 1.
    ///
    /// `InvalidArgument` for a wrong length, a NaN or an infinite feature.
    pub fn probability(&self, z: &[f32]) -> Result<f64> {
        match self {
            Scorer::Logistic(scorer) => scorer.probability(z),
            Scorer::Normality(scorer) => scorer.probability(z),
        }
    }
}

impl From<&profile::Scorer> for Scorer {
    fn from(params: &profile::Scorer) -> Self {
        match params {
            profile::Scorer::Logistic(params) => Scorer::Logistic(params.into()),
            profile::Scorer::Normality(params) => Scorer::Normality(params.into()),
        }
    }
}

impl From<&Profile> for Scorer {
    fn from(profile: &Profile) -> Self {
        Scorer::from(&profile.scorer)
    }
}
