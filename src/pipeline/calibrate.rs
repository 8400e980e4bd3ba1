//! Calibration: labelled samples of a few clips to a profile. Hunts the heads, fits the scorer,
//! scores samples that the fit has not seen, and calibrates the locator on those scores.
//!
//! With `validation_fraction` 0 everything is fitted on all samples and the scores are out of fold
//! (folds by video). Above 0 that part of the videos is kept from hunting, choosing K and fitting, and
//! the locator and the report use it alone.

pub(in crate::pipeline) mod fit;
mod normal;
mod options;
mod refit;

use std::{
    collections::HashSet,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use self::fit::{Part, Row, Rows};
pub use self::{
    normal::{NormalFit, NormalOptions, calibrate_normal, cut_normal_clips},
    options::{CalibrateOptions, CalibrateStage, ProgressFn},
    refit::{RefitSample, Refitted, refit},
};
use crate::{
    engine::probe::ProbeInfo,
    error::{Error, Result},
    head::{HeadId, HeadSelection},
    hunt::{
        self, HuntOptions, HuntResult, Samples,
        calibrate::LocatorFit,
        choose_k::{KChoice, choose_k},
    },
    limits::AUTO_TOP_K_MAX,
    pipeline::{
        labelled::LabelledVideo,
        report::{self, Report},
        samples::SampleSet,
    },
    profile::{LocatorParams, ModelBinding, Profile, Scorer, ScorerParams},
};

/// A finished calibration.
#[derive(Debug)]
pub struct Calibration {
    /// What detection needs.
    pub profile: Profile,
    /// Every head's metrics; none with normal footage alone.
    pub hunt: Option<HuntResult>,
    /// How σ and τ were found; none with normal footage alone.
    pub locator: Option<LocatorFit>,
    /// The same for normal footage alone.
    pub normal: Option<NormalFit>,
    /// The numbers and pictures behind it.
    pub report: Report,
    /// Things an operator should know.
    pub warnings: Vec<String>,
}

/// A finished hunt.
#[derive(Debug)]
pub struct Hunted {
    /// Every head's metrics.
    pub hunt: HuntResult,
    /// The numbers and pictures behind it.
    pub report: Report,
    /// Things an operator should know.
    pub warnings: Vec<String>,
}

/// Ranks the heads, fits scorer and locator. `fingerprint` gives the model's for a number of
/// layers; it is asked once the heads are known. `progress` is told (stage, done, total).
///
/// # Errors
/// `InvalidArgument` for options or samples that cannot be used, naming the option or the sample;
/// `Cancelled` once `cancel` is.
pub fn calibrate(
    set: &SampleSet,
    videos: &[LabelledVideo],
    info: &ProbeInfo,
    fingerprint: impl FnOnce(usize) -> Result<String>,
    options: &CalibrateOptions,
    cancel: &CancellationToken,
    progress: &ProgressFn,
) -> Result<Calibration> {
    set.check_model(info)?;
    let part = part(set, options)?;
    let ranked = rank(set, &part, options, cancel, progress)?;
    let z = set.gather(0, &ranked.hunt.expert_heads)?;
    let rows = rows(set, &z);
    let fitted = fit::fit(&rows, &part, videos, options, cancel, progress)?;

    let mut warnings = ranked.hunt.notes.clone();
    warnings.extend(fitted.locator.warnings.iter().cloned());
    warnings.extend(unseen_events(set, videos));
    progress(CalibrateStage::Report, 0, 1);
    let mut report = report::of_calibration(&report::Material {
        title: format!("Calibration of {}", options.name),
        options: report::options(options, Some(ranked.hunt.expert_heads.len())),
        prompts: options.prompts.clone(),
        rows: &rows,
        videos,
        validation: part.kept.is_some(),
        edge: options.edge,
        fitted: &fitted,
        ranking: Some(&ranked.hunt),
        choice: ranked.choice.as_ref(),
        warnings: &warnings,
    })?;
    let held_labels: Vec<bool> = fitted
        .held_out
        .iter()
        .map(|&i| set.samples[i].anomaly)
        .collect();
    let heads = ranked.hunt.expert_heads.len();
    match normal::comparison(
        set,
        &part,
        options,
        heads,
        (&fitted.p, &held_labels),
        cancel,
    )? {
        Ok(rows) => report.comparison = rows,
        // For the report alone: the profile does not depend on it.
        Err(why) => report.warnings.push(why),
    }
    progress(CalibrateStage::Report, 1, 1);
    let locator = LocatorParams {
        sigma: fitted.locator.sigma,
        threshold: fitted.locator.threshold,
        edge: options.edge,
        event_bridge_s: None,
    };
    let profile = new_profile(
        options,
        info,
        fingerprint,
        ranked.hunt.expert_heads.clone(),
        Scorer::from(ScorerParams::from(fitted.scorer)),
        locator,
        notes(set, videos, options, &ranked, &fitted.locator, &warnings),
    )?;
    Ok(Calibration {
        profile,
        hunt: Some(ranked.hunt),
        locator: Some(fitted.locator),
        normal: None,
        report,
        warnings,
    })
}

/// Ranks the heads and chooses K; no scorer comes of it. Errors as [`calibrate`].
pub fn hunt_heads(
    set: &SampleSet,
    videos: &[LabelledVideo],
    info: &ProbeInfo,
    options: &CalibrateOptions,
    cancel: &CancellationToken,
    progress: &ProgressFn,
) -> Result<Hunted> {
    set.check_model(info)?;
    let part = part(set, options)?;
    let ranked = rank(set, &part, options, cancel, progress)?;
    let mut warnings = ranked.hunt.notes.clone();
    let unseen = unseen_events(set, videos);
    warnings.extend(unseen.iter().cloned());
    progress(CalibrateStage::Report, 0, 1);
    let mut report = report::of_hunt(
        &ranked.hunt,
        ranked.choice.as_ref(),
        report::options(options, Some(ranked.hunt.expert_heads.len())),
        options.prompts.clone(),
        report::counts(
            &set.labels(),
            videos.len(),
            part.kept.as_ref().map_or(0, Vec::len),
        ),
    );
    report.warnings.extend(unseen);
    progress(CalibrateStage::Report, 1, 1);
    Ok(Hunted {
        hunt: ranked.hunt,
        report,
        warnings,
    })
}

/// Videos that are named in a warning at most.
const NAMED_MAX: usize = 10;

/// Tells of anomalous videos of which no segment is: what was meant to be learnt from them was not.
fn unseen_events(set: &SampleSet, videos: &[LabelledVideo]) -> Option<String> {
    let seen: HashSet<usize> = set
        .samples
        .iter()
        .filter(|sample| sample.anomaly)
        .map(|sample| sample.video)
        .collect();
    let unseen: Vec<&str> = (videos.iter().enumerate())
        .filter(|(number, video)| video.anomaly && !seen.contains(number))
        .map(|(_, video)| video.name.as_str())
        .collect();
    let named: Vec<&str> = unseen.iter().copied().take(NAMED_MAX).collect();
    let more = match unseen.len().saturating_sub(named.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!unseen.is_empty()).then(|| {
        format!(
            "the labelled frames of {}{more} fill half of no segment, so all of it was learnt as normal: label the frames before and after the event too, or use shorter segments",
            named.join(", ")
        )
    })
}

/// A hunt with K chosen.
struct Ranked {
    hunt: HuntResult,
    choice: Option<KChoice>,
}

/// Which samples are trained on and which are kept.
fn part(set: &SampleSet, options: &CalibrateOptions) -> Result<Part> {
    let groups: Vec<usize> = set.samples.iter().map(|s| s.video).collect();
    Part::new(&set.labels(), &groups, options)
}

fn rows<'a>(set: &'a SampleSet, z: &'a [Vec<f32>]) -> Rows<'a> {
    Rows {
        rows: set
            .samples
            .iter()
            .zip(z)
            .map(|(sample, z)| Row {
                z,
                anomaly: sample.anomaly,
                group: sample.video,
                span: sample.span,
            })
            .collect(),
    }
}

/// Ranks the heads on the training part. A K that is to be chosen is chosen afterwards, so that
/// what is wrong with the samples shows in the first hunt.
fn rank(
    set: &SampleSet,
    part: &Part,
    options: &CalibrateOptions,
    cancel: &CancellationToken,
    progress: &ProgressFn,
) -> Result<Ranked> {
    let (labels, names) = (set.labels(), set.names());
    let samples = Samples {
        features: &set.features,
        labels: &labels,
        names: Some(&names),
        rows: part.training.as_deref(),
    };
    let stop = || cancel.is_cancelled();
    let most = AUTO_TOP_K_MAX.min(set.features.layers * set.features.heads);
    let hunt_options = HuntOptions {
        top_k: if options.auto_top_k {
            most
        } else {
            options.hunt.top_k
        },
        lambda: options.hunt.lambda,
    };
    let mut hunt = hunt::hunt_samples(&samples, &hunt_options, &stop, &|done, total| {
        progress(CalibrateStage::Hunt, done, total);
    })?;
    let choice = if options.auto_top_k {
        let groups: Vec<usize> = set.samples.iter().map(|s| s.video).collect();
        let choice = choose_k(
            &samples,
            &groups,
            &hunt_options,
            &options.fit,
            options.seed,
            &stop,
            &|done, total| progress(CalibrateStage::ChooseK, done, total),
        )?;
        hunt.expert_heads.truncate(choice.k);
        Some(choice)
    } else {
        None
    };
    Ok(Ranked { hunt, choice })
}

/// A profile of these heads; `fingerprint` is asked for the layers that they need.
fn new_profile(
    options: &CalibrateOptions,
    info: &ProbeInfo,
    fingerprint: impl FnOnce(usize) -> Result<String>,
    heads: Vec<HeadId>,
    scorer: Scorer,
    locator: LocatorParams,
    notes: Value,
) -> Result<Profile> {
    let layers = HeadSelection::Only(heads.clone()).layers_needed(info.layers);
    Ok(Profile {
        schema: scorer.schema(),
        name: options.name.clone(),
        created_unix_s: now_unix_s()?,
        model: ModelBinding {
            name: info.name.clone(),
            fingerprint: fingerprint(layers)?,
            head_dim: info.head_dim,
            device: info.device.clone(),
            dtype: info.dtype.clone(),
        },
        segment: options.rule,
        frames_per_segment: options.frames_per_segment,
        heads,
        hunt_prompts: options.prompts.clone(),
        scoring_prompts: options.prompts.iter().take(1).cloned().collect(),
        scorer,
        locator,
        notes: match notes {
            Value::Object(map) => map,
            _ => Map::new(),
        },
    })
}

fn now_unix_s() -> Result<u64> {
    Ok(SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(|e| Error::internal("the clock stands before 1970").with_source(e))?
        .as_secs())
}

/// What the profile says of how it came about. Keys of options that are off are left out, so that a
/// plain calibration writes the profile that it always did.
fn notes(
    set: &SampleSet,
    videos: &[LabelledVideo],
    options: &CalibrateOptions,
    ranked: &Ranked,
    locator: &LocatorFit,
    warnings: &[String],
) -> Value {
    let hunted = &ranked.hunt;
    let rss = |id: &HeadId| hunted.rss.get(id.layer * hunted.heads + id.head).copied();
    let mut value = json!({
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
    if options.auto_top_k {
        value["auto_top_k"] = true.into();
    }
    if options.validation_fraction > 0.0 {
        value["validation_fraction"] = options.validation_fraction.into();
    }
    value
}
