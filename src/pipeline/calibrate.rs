//! Calibration: labelled samples of a few clips to a profile. Hunts the heads, fits the scorer,
//! scores every sample out of fold, and calibrates the locator on those scores.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, json};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::probe::ProbeInfo,
    error::{Error, Result},
    head::{HeadId, HeadSelection},
    hunt::{
        self, HuntOptions, HuntResult,
        calibrate::{CalibrationVideo, LocatorFit, calibrate_locator},
        folds::out_of_fold,
    },
    pipeline::{labelled::LabelledVideo, report::Report, samples::SampleSet},
    profile::{Edge, LocatorParams, ModelBinding, Profile, SCHEMA},
    score::logistic::{FitOptions, Logistic},
    segment::SegmentRule,
};

/// What a calibration is to do.
#[derive(Clone, Debug)]
pub struct CalibrateOptions {
    /// Name of the profile.
    pub name: String,
    /// Prompts that heads are ranked over; the first is the scoring prompt.
    pub prompts: Vec<String>,
    /// How videos are cut.
    pub rule: SegmentRule,
    /// Frames sampled per segment.
    pub frames_per_segment: usize,
    /// K and λ.
    pub hunt: HuntOptions,
    /// Choose K by cross-validation instead of `hunt.top_k`.
    pub auto_top_k: bool,
    /// Part of the videos kept from hunting and fitting for validation; 0: none, out of fold.
    pub validation_fraction: f64,
    /// Scorer.
    pub fit: FitOptions,
    /// Seed of the folds.
    pub seed: u64,
    /// Ends of the smoothed sequence.
    pub edge: Edge,
}

impl CalibrateOptions {
    /// What can be told to be wrong before the long work of extraction: K, λ, C and labels of one
    /// class only.
    pub fn check(&self, info: &ProbeInfo, videos: &[LabelledVideo]) -> Result<()> {
        let heads = info.layers * info.heads;
        if self.hunt.top_k == 0 || self.hunt.top_k > heads {
            return Err(Error::invalid(format!(
                "top_k is {}; the model has {heads} heads, so give 1 to {heads}",
                self.hunt.top_k
            ))
            .with_field("top_k"));
        }
        if !(self.hunt.lambda >= 0.0 && self.hunt.lambda.is_finite()) {
            return Err(Error::invalid(format!(
                "lambda is {}; give a number of at least 0",
                self.hunt.lambda
            ))
            .with_field("lambda"));
        }
        if !(self.fit.c > 0.0 && self.fit.c.is_finite()) {
            return Err(
                Error::invalid(format!("C is {}; give a number above 0", self.fit.c))
                    .with_field("c"),
            );
        }
        if !videos.iter().any(|video| video.anomaly) {
            return Err(Error::invalid(
                "no clip is anomalous: label some, with the frames where something happens",
            ));
        }
        if videos
            .iter()
            .all(|video| video.anomaly && !video.intervals_known)
        {
            return Err(Error::invalid(
                "every clip is anomalous as a whole: add normal clips, or the frames where something happens",
            ));
        }
        Ok(())
    }
}

/// What a calibration is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalibrateStage {
    /// Measuring heads.
    Hunt,
    /// Choosing K.
    ChooseK,
    /// Fitting the scorer.
    Fit,
    /// Calibrating the locator.
    Locate,
    /// Writing the report.
    Report,
}

impl CalibrateStage {
    /// For people and progress messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            CalibrateStage::Hunt => "hunt",
            CalibrateStage::ChooseK => "choose-k",
            CalibrateStage::Fit => "fit",
            CalibrateStage::Locate => "locate",
            CalibrateStage::Report => "report",
        }
    }
}

/// Is told the stage, what of it is done, and all of it.
pub type CalibrateProgress<'a> = &'a (dyn Fn(CalibrateStage, usize, usize) + Sync);

/// A finished hunt.
#[derive(Debug)]
pub struct Hunted {
    /// Every head's metrics.
    pub hunt: HuntResult,
    /// The same for people.
    pub report: Report,
    /// Things an operator should know.
    pub warnings: Vec<String>,
}

/// Ranks the heads.
///
/// Fails as [`hunt::hunt`], and with `Cancelled`.
pub fn hunt_heads(
    set: &SampleSet,
    _videos: &[LabelledVideo],
    _info: &ProbeInfo,
    options: &CalibrateOptions,
    cancel: &CancellationToken,
    progress: CalibrateProgress,
) -> Result<Hunted> {
    let hunted = hunt::hunt(
        &set.features,
        &set.labels(),
        Some(&set.names()),
        &options.hunt,
        &|done, total| progress(CalibrateStage::Hunt, done, total),
    )?;
    still_wanted(cancel)?;
    progress(CalibrateStage::Report, 0, 1);
    Ok(Hunted {
        report: Report::of_hunt(set, &options.prompts, &hunted, &options.hunt)?,
        warnings: hunted.notes.clone(),
        hunt: hunted,
    })
}

fn still_wanted(cancel: &CancellationToken) -> Result<()> {
    if cancel.is_cancelled() {
        return Err(Error::cancelled("the calibration was cancelled"));
    }
    Ok(())
}

/// A finished calibration.
#[derive(Debug)]
pub struct Calibration {
    /// What detection needs.
    pub profile: Profile,
    /// Every head's metrics.
    pub hunt: HuntResult,
    /// How σ and τ were found.
    pub locator: LocatorFit,
    /// The same for people.
    pub report: Report,
    /// Things an operator should know.
    pub warnings: Vec<String>,
}

/// Ranks the heads, fits scorer and locator. `fingerprint` gives the model's for a number of
/// layers; it is asked once the heads are known.
pub fn calibrate(
    set: &SampleSet,
    videos: &[LabelledVideo],
    info: &ProbeInfo,
    fingerprint: impl FnOnce(usize) -> Result<String>,
    options: &CalibrateOptions,
    cancel: &CancellationToken,
    progress: CalibrateProgress,
) -> Result<Calibration> {
    let labels = set.labels();
    let Hunted {
        hunt: hunted,
        report,
        mut warnings,
    } = hunt_heads(set, videos, info, options, cancel, progress)?;
    progress(CalibrateStage::Fit, 0, 1);
    let rows = set.gather(0, &hunted.expert_heads)?;
    let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
    let scorer = Logistic::fit(&rows, &labels, &options.fit)?;
    let groups: Vec<usize> = set.samples.iter().map(|s| s.video).collect();
    let p = out_of_fold(&rows, &labels, &groups, options.seed, &options.fit)?;
    still_wanted(cancel)?;
    progress(CalibrateStage::Locate, 0, 1);
    let locator = calibrate_locator(&validation_videos(set, videos, &p)?, options.edge)?;
    still_wanted(cancel)?;

    warnings.extend(locator.warnings.iter().cloned());
    let layers = HeadSelection::Only(hunted.expert_heads.clone()).layers_needed(info.layers);
    let profile = Profile {
        schema: SCHEMA,
        name: options.name.clone(),
        created_unix_s: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_err(|e| Error::internal("the clock stands before 1970").with_source(e))?
            .as_secs(),
        model: ModelBinding {
            name: info.name.clone(),
            fingerprint: fingerprint(layers)?,
            head_dim: info.head_dim,
            device: info.device.clone(),
            dtype: info.dtype.clone(),
        },
        segment: options.rule,
        frames_per_segment: options.frames_per_segment,
        heads: hunted.expert_heads.clone(),
        hunt_prompts: options.prompts.clone(),
        scoring_prompts: options.prompts.iter().take(1).cloned().collect(),
        scorer: scorer.into(),
        locator: LocatorParams {
            sigma: locator.sigma,
            threshold: locator.threshold,
            edge: options.edge,
            event_bridge_s: None,
        },
        notes: notes(set, videos, options, &hunted, &locator, &warnings),
    };
    Ok(Calibration {
        profile,
        hunt: hunted,
        locator,
        report,
        warnings,
    })
}

/// Videos with known intervals, each with the out-of-fold p of its segments in order.
fn validation_videos(
    set: &SampleSet,
    videos: &[LabelledVideo],
    p: &[f64],
) -> Result<Vec<CalibrationVideo>> {
    let mut found: Vec<CalibrationVideo> = videos
        .iter()
        .map(|v| CalibrationVideo {
            name: v.name.clone(),
            spans: Vec::new(),
            p: Vec::new(),
            truth: v.anomalous.clone(),
            has_intervals: v.intervals_known,
        })
        .collect();
    for (sample, &p) in set.samples.iter().zip(p) {
        if let Some(span) = &sample.span {
            let video = found.get_mut(sample.video).ok_or_else(|| {
                Error::internal(format!("sample {} belongs to no video", sample.name))
            })?;
            video.spans.push(*span);
            video.p.push(p);
        }
    }
    found.retain(|v| !v.spans.is_empty());
    Ok(found)
}

fn notes(
    set: &SampleSet,
    videos: &[LabelledVideo],
    options: &CalibrateOptions,
    hunted: &HuntResult,
    locator: &LocatorFit,
    warnings: &[String],
) -> Map<String, serde_json::Value> {
    let rss = |id: &HeadId| hunted.rss.get(id.layer * hunted.heads + id.head).copied();
    let value = json!({
        "videos": videos.len(),
        "samples": set.samples.len(),
        "anomalous_samples": set.samples.iter().filter(|s| s.anomaly).count(),
        "lambda": options.hunt.lambda,
        "c": options.fit.c,
        "penalize_intercept": options.fit.penalize_intercept,
        "seed": options.seed,
        "expert_head_rss": hunted.expert_heads.iter().map(rss).collect::<Vec<_>>(),
        "validation_frame_f1": locator.f1,
        "warnings": warnings,
    });
    match value {
        serde_json::Value::Object(map) => map,
        _ => Map::new(),
    }
}
