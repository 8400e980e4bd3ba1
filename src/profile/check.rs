//! What makes a profile usable: by itself, and with a model.

use std::collections::HashSet;

use crate::{
    engine::probe::ProbeInfo,
    error::{Error, Result},
    head::HeadId,
    limits,
};

use super::{NormalityParams, Profile, Scorer, ScorerParams};

impl Profile {
    /// Refuses what no writer of ours would write, with
    /// [`Kind::InvalidArgument`](crate::error::Kind::InvalidArgument) and the key's name.
    pub fn validate(&self) -> Result<()> {
        // One content, one form: a profile is written in the oldest schema that can hold it.
        let schema = self.scorer.schema();
        if self.schema != schema {
            return Err(bad(
                "schema",
                format!(
                    "is {}, where a profile of this scorer has {schema}",
                    self.schema
                ),
            ));
        }
        check_name(&self.name)?;
        self.check_segment()?;
        self.check_heads()?;
        check_prompts("hunt_prompts", &self.hunt_prompts, 0)?;
        check_prompts("scoring_prompts", &self.scoring_prompts, 1)?;
        self.check_scorer()?;
        self.check_locator()
    }

    fn check_segment(&self) -> Result<()> {
        self.segment.validate()?;
        let frames = self.frames_per_segment;
        if !(1..=limits::FRAMES_PER_SEGMENT_MAX).contains(&frames) {
            return Err(bad(
                "frames_per_segment",
                format!(
                    "is {frames}: 1 to {} are possible",
                    limits::FRAMES_PER_SEGMENT_MAX
                ),
            ));
        }
        Ok(())
    }

    fn check_heads(&self) -> Result<()> {
        let count = self.heads.len();
        if !(1..=limits::PROFILE_HEADS_MAX).contains(&count) {
            return Err(bad(
                "heads",
                format!(
                    "has {count}: 1 to {} are possible",
                    limits::PROFILE_HEADS_MAX
                ),
            ));
        }
        let mut seen = HashSet::new();
        if let Some(id) = self.heads.iter().find(|id| !seen.insert(**id)) {
            return Err(bad(
                "heads",
                format!("names layer {} head {} twice", id.layer, id.head),
            ));
        }
        let possible =
            |id: &HeadId| id.layer < limits::MODEL_MAX_LAYERS && id.head < limits::MODEL_MAX_HEADS;
        if let Some(id) = self.heads.iter().find(|id| !possible(id)) {
            return Err(bad(
                "heads",
                format!(
                    "names layer {} head {}: no model has more than {} layers and {} heads",
                    id.layer,
                    id.head,
                    limits::MODEL_MAX_LAYERS,
                    limits::MODEL_MAX_HEADS
                ),
            ));
        }
        let fingerprint = &self.model.fingerprint;
        if fingerprint.len() != 64
            || !fingerprint
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Err(bad(
                "model.fingerprint",
                format!("is {fingerprint:?}, not 64 lower-case hex digits"),
            ));
        }
        if self.model.head_dim == 0 {
            return Err(bad("model.head_dim", "is 0".into()));
        }
        Ok(())
    }

    fn check_scorer(&self) -> Result<()> {
        let dims = self.heads.len().saturating_mul(self.model.head_dim);
        match &self.scorer {
            Scorer::Logistic(params) => self.check_logistic(params, dims),
            Scorer::Normality(params) => self.check_normality(params, dims),
        }
    }

    fn check_logistic(&self, params: &ScorerParams, dims: usize) -> Result<()> {
        self.check_numbers("scorer.weights", &params.weights, dims)?;
        if !params.intercept.is_finite() {
            return Err(bad("scorer.intercept", "is not finite".into()));
        }
        Ok(())
    }

    fn check_normality(&self, params: &NormalityParams, dims: usize) -> Result<()> {
        self.check_numbers("scorer.normality.mean", &params.mean, dims)?;
        for (key, value) in [
            ("scorer.normality.variance", params.variance),
            ("scorer.normality.tail_scale", params.tail_scale),
        ] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(bad(key, format!("is {value}: it must be above 0")));
            }
        }
        let rank = params.excess.len();
        if rank > limits::NORMALITY_DIRECTIONS_MAX {
            return Err(bad(
                "scorer.normality.excess",
                format!(
                    "has {rank}: at most {} are possible",
                    limits::NORMALITY_DIRECTIONS_MAX
                ),
            ));
        }
        if let Some(at) = params
            .excess
            .iter()
            .position(|a| !(*a >= 0.0 && a.is_finite()))
        {
            return Err(bad(
                "scorer.normality.excess",
                format!("is negative or not finite at {at}"),
            ));
        }
        let expected = rank.saturating_mul(dims);
        if params.directions.len() != expected {
            return Err(bad(
                "scorer.normality.directions",
                format!(
                    "has {} numbers: {rank} directions of {dims} need {expected}",
                    params.directions.len()
                ),
            ));
        }
        // Orthonormal within rounding, or a distance could come out negative.
        for (i, a) in params.directions.chunks_exact(dims.max(1)).enumerate() {
            for (j, b) in params
                .directions
                .chunks_exact(dims.max(1))
                .enumerate()
                .take(i + 1)
            {
                let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                let want = if i == j { 1.0 } else { 0.0 };
                let off = (dot - want).abs();
                if off.is_nan() || off > ORTHONORMAL_TOLERANCE {
                    return Err(bad(
                        "scorer.normality.directions",
                        format!("are not orthonormal at {j} and {i}"),
                    ));
                }
            }
        }
        check_quantiles(params)
    }

    fn check_numbers(&self, key: &str, numbers: &[f64], expected: usize) -> Result<()> {
        if numbers.len() != expected {
            return Err(bad(
                key,
                format!(
                    "has {} numbers: {} heads of {} need {expected}",
                    numbers.len(),
                    self.heads.len(),
                    self.model.head_dim
                ),
            ));
        }
        if let Some(at) = numbers.iter().position(|w| !w.is_finite()) {
            return Err(bad(key, format!("is not finite at {at}")));
        }
        Ok(())
    }

    fn check_locator(&self) -> Result<()> {
        let locator = &self.locator;
        if !(locator.sigma > 0.0 && locator.sigma <= limits::LOCATOR_SIGMA_MAX) {
            return Err(bad(
                "locator.sigma",
                format!(
                    "is {}: it must be above 0 and at most {} segments",
                    locator.sigma,
                    limits::LOCATOR_SIGMA_MAX
                ),
            ));
        }
        if !(0.0..=1.0).contains(&locator.threshold) {
            return Err(bad(
                "locator.threshold",
                format!("is {}: it must be 0 to 1", locator.threshold),
            ));
        }
        if let Some(bridge) = locator.event_bridge_s
            && !(0.0..=limits::EVENT_BRIDGE_MAX_SECONDS).contains(&bridge)
        {
            return Err(bad(
                "locator.event_bridge_s",
                format!(
                    "is {bridge}: it must be 0 to {} seconds",
                    limits::EVENT_BRIDGE_MAX_SECONDS
                ),
            ));
        }
        Ok(())
    }

    /// How many of the model's layers, from the first, the profile's heads need.
    pub fn layers_needed(&self) -> usize {
        self.heads.iter().map(|id| id.layer + 1).max().unwrap_or(0)
    }

    /// Whether a model has the profile's heads, by count alone: what can be said before its
    /// fingerprint is known. Fails as [`check_model`](Self::check_model).
    pub fn check_shape(&self, info: &ProbeInfo) -> Result<()> {
        let misfit = |what| Err(self.misfit(info, what));
        if self.model.head_dim != info.head_dim {
            return misfit(format!(
                "its heads have {} numbers where {}'s have {}",
                self.model.head_dim, info.name, info.head_dim
            ));
        }
        if let Some(id) = self
            .heads
            .iter()
            .find(|id| id.layer >= info.layers || id.head >= info.heads)
        {
            return misfit(format!(
                "it uses layer {} head {} where {} has {} layers of {} heads",
                id.layer, id.head, info.name, info.layers, info.heads
            ));
        }
        if self.layers_needed() > info.resident_layers {
            return Err(Error::precondition(format!(
                "profile {} needs the first {} layers, and only {} of {} are loaded: load more",
                self.name,
                self.layers_needed(),
                info.resident_layers,
                info.name
            )));
        }
        Ok(())
    }

    fn misfit(&self, info: &ProbeInfo, what: String) -> Error {
        Error::precondition(format!(
            "profile {} was made for the model {}, and {what}: use a profile calibrated on {}",
            self.name, self.model.name, info.name
        ))
    }

    /// Whether the profile fits a model whose first [`layers_needed`](Self::layers_needed) layers
    /// have this fingerprint. Returns warnings about what may shift scores a little: another
    /// device or type than at calibration.
    ///
    /// Fails with [`Kind::FailedPrecondition`](crate::error::Kind::FailedPrecondition), naming
    /// both sides, where the model is another one or lacks a head.
    pub fn check_model(&self, info: &ProbeInfo, fingerprint: &str) -> Result<Vec<String>> {
        self.check_shape(info)?;
        if self.model.fingerprint != fingerprint {
            return Err(self.misfit(
                info,
                format!(
                    "its fingerprint {} differs from {fingerprint} of {}",
                    self.model.fingerprint, info.name
                ),
            ));
        }
        let mut warnings = Vec::new();
        for (what, then, now) in [
            ("device", &self.model.device, &info.device),
            ("type", &self.model.dtype, &info.dtype),
        ] {
            if then != now {
                warnings.push(format!(
                    "profile {} was calibrated on {what} {then} and runs on {now}: scores may differ slightly",
                    self.name
                ));
            }
        }
        Ok(warnings)
    }
}

/// How far two stored directions may be from orthonormal.
const ORTHONORMAL_TOLERANCE: f64 = 1e-6;

fn check_quantiles(params: &NormalityParams) -> Result<()> {
    let (distances, quantiles) = (&params.distances, &params.quantiles);
    let most = limits::NORMALITY_QUANTILES_MAX;
    if !(1..=most).contains(&distances.len()) || distances.len() != quantiles.len() {
        return Err(bad(
            "scorer.normality.quantiles",
            format!(
                "has {} for {} distances: 1 to {most} are possible, one each",
                quantiles.len(),
                distances.len()
            ),
        ));
    }
    for (key, values, most) in [
        ("scorer.normality.distances", distances, f64::MAX),
        ("scorer.normality.quantiles", quantiles, 1.0),
    ] {
        let ascending = values.windows(2).all(|pair| pair[0] < pair[1]);
        // Also refuses NaN.
        let inside = values.iter().all(|v| *v >= 0.0 && *v <= most);
        if !ascending || !inside {
            return Err(bad(key, "do not ascend, or leave their range".into()));
        }
    }
    Ok(())
}

/// Refuses names that are not `[a-z0-9][a-z0-9._-]{0,63}`. No such name leaves a directory.
pub fn check_name(name: &str) -> Result<()> {
    let plain = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
    let fits = (1..=64).contains(&name.len())
        && name.bytes().next().is_some_and(|byte| plain(&byte))
        && name
            .bytes()
            .all(|byte| plain(&byte) || matches!(byte, b'.' | b'_' | b'-'));
    if fits {
        Ok(())
    } else {
        Err(bad(
            "name",
            format!(
                "is {:?}: 1 to 64 of a-z 0-9 . _ - are possible, a letter or digit first",
                name.chars().take(80).collect::<String>()
            ),
        ))
    }
}

fn check_prompts(key: &str, prompts: &[String], at_least: usize) -> Result<()> {
    if !(at_least..=limits::PROMPTS_MAX).contains(&prompts.len()) {
        return Err(bad(
            key,
            format!(
                "has {}: {at_least} to {} are possible",
                prompts.len(),
                limits::PROMPTS_MAX
            ),
        ));
    }
    for (number, prompt) in prompts.iter().enumerate() {
        if prompt.trim().is_empty() {
            return Err(bad(key, format!("is empty at {number}")));
        }
        if prompt.len() > limits::PROMPT_MAX_BYTES {
            return Err(bad(
                key,
                format!(
                    "has {} bytes at {number}: at most {} are possible",
                    prompt.len(),
                    limits::PROMPT_MAX_BYTES
                ),
            ));
        }
    }
    Ok(())
}

fn bad(key: &str, what: String) -> Error {
    Error::invalid(format!("{key} {what}"))
}
