//! Refitting: a profile's heads and prompts stay, scorer and locator are fitted anew to features of
//! those heads alone. No hunt, no forward pass.

use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    CalibrateOptions, CalibrateStage, ProgressFn,
    fit::{self, Part, Row, Rows},
    now_unix_s,
};
use crate::{
    error::{Error, Result},
    hunt::{calibrate::LocatorFit, stopped},
    pipeline::{
        labelled::LabelledVideo,
        report::{self, Report},
    },
    profile::{LocatorParams, Profile, Scorer, ScorerParams},
    score::locate::SegmentSpan,
};

/// One sample for a refit.
#[derive(Clone, Debug, PartialEq)]
pub struct RefitSample {
    /// For messages.
    pub name: String,
    /// Features of the profile's heads under its scoring prompt: `heads * head_dim` numbers.
    pub z: Vec<f32>,
    /// Its label.
    pub anomaly: bool,
    /// Which of the labelled videos it is from; at or above their number: from feedback, one number
    /// per stream or event that is held out together.
    pub group: usize,
    /// Where it stands in its video.
    pub span: Option<SegmentSpan>,
}

/// A finished refit.
#[derive(Debug)]
pub struct Refitted {
    /// The profile with the new scorer and locator.
    pub profile: Profile,
    /// How σ and τ were found.
    pub locator: LocatorFit,
    /// The numbers and pictures behind it.
    pub report: Report,
    /// Things an operator should know.
    pub warnings: Vec<String>,
}

/// Fits scorer and locator to samples of `base`'s heads. Of `options` the name, C, seed, edge and
/// validation fraction are read; K, λ, prompts and segment rule stay `base`'s. Samples of feedback
/// enter the scorer's fit, not the locator's grid, and are never kept for validation.
///
/// # Errors
/// `InvalidArgument`, naming the sample, for features of another length or not finite, and where a
/// class has too few samples or videos; `Cancelled` once `cancel` is.
pub fn refit(
    base: &Profile,
    samples: &[RefitSample],
    videos: &[LabelledVideo],
    options: &CalibrateOptions,
    cancel: &CancellationToken,
    progress: &ProgressFn,
) -> Result<Refitted> {
    if cancel.is_cancelled() {
        return Err(stopped());
    }
    check(base, samples)?;
    let rows = Rows {
        rows: samples
            .iter()
            .map(|sample| Row {
                z: &sample.z,
                anomaly: sample.anomaly,
                group: sample.group,
                span: sample.span,
            })
            .collect(),
    };
    let part = part(samples, videos.len(), options)?;
    let fitted = fit::fit(&rows, &part, videos, options, cancel, progress)?;
    let feedback = samples.iter().filter(|s| s.group >= videos.len()).count();

    let warnings = fitted.locator.warnings.clone();
    progress(CalibrateStage::Report, 0, 1);
    let mut report = report::of_calibration(&report::Material {
        title: format!("Refit of {}", options.name),
        options: report::options(options, None),
        prompts: base.scoring_prompts.clone(),
        rows: &rows,
        videos,
        validation: part.kept.is_some(),
        edge: options.edge,
        fitted: &fitted,
        ranking: None,
        choice: None,
        warnings: &warnings,
    })?;
    report.samples.feedback = feedback;
    progress(CalibrateStage::Report, 1, 1);

    let scorer = Scorer::from(ScorerParams::from(fitted.scorer));
    let mut profile = base.clone();
    profile.schema = scorer.schema();
    profile.scorer = scorer;
    profile.name.clone_from(&options.name);
    profile.created_unix_s = now_unix_s()?;
    profile.locator = LocatorParams {
        sigma: fitted.locator.sigma,
        threshold: fitted.locator.threshold,
        edge: options.edge,
        event_bridge_s: base.locator.event_bridge_s,
    };
    profile.notes = notes(
        base,
        samples,
        feedback,
        videos,
        options,
        &fitted.locator,
        &warnings,
    )?;
    Ok(Refitted {
        profile,
        locator: fitted.locator,
        report,
        warnings,
    })
}

fn check(base: &Profile, samples: &[RefitSample]) -> Result<()> {
    let expected = base.heads.len() * base.model.head_dim;
    for sample in samples {
        if sample.z.len() != expected {
            return Err(Error::invalid(format!(
                "sample {} has {} numbers where the heads of {} have {expected}: leave it out, it is of other heads",
                sample.name,
                sample.z.len(),
                base.name
            )));
        }
        if let Some(at) = sample.z.iter().position(|v| !v.is_finite()) {
            return Err(Error::invalid(format!(
                "sample {} has the feature {} in component {at}: leave it out",
                sample.name, sample.z[at]
            )));
        }
    }
    Ok(())
}

/// The split is drawn among samples of videos; those of feedback are trained on.
fn part(samples: &[RefitSample], videos: usize, options: &CalibrateOptions) -> Result<Part> {
    let of_videos: Vec<usize> = (0..samples.len())
        .filter(|&i| samples[i].group < videos)
        .collect();
    let labels: Vec<bool> = of_videos.iter().map(|&i| samples[i].anomaly).collect();
    let groups: Vec<usize> = of_videos.iter().map(|&i| samples[i].group).collect();
    let part = Part::new(&labels, &groups, options)?;
    let Some(kept) = part.kept else {
        return Ok(part);
    };
    let kept: Vec<usize> = kept.into_iter().map(|at| of_videos[at]).collect();
    Ok(Part {
        training: Some(
            (0..samples.len())
                .filter(|i| kept.binary_search(i).is_err())
                .collect(),
        ),
        kept: Some(kept),
    })
}

fn notes(
    base: &Profile,
    samples: &[RefitSample],
    feedback: usize,
    videos: &[LabelledVideo],
    options: &CalibrateOptions,
    locator: &LocatorFit,
    warnings: &[String],
) -> Result<Map<String, Value>> {
    let mut notes = base.notes.clone();
    let new = json!({
        "refit_of": base.checksum()?,
        "videos": videos.len(),
        "samples": samples.len(),
        "feedback_samples": feedback,
        "anomalous_samples": samples.iter().filter(|s| s.anomaly).count(),
        "c": options.fit.c,
        "penalize_intercept": options.fit.penalize_intercept,
        "seed": options.seed,
        "validation_fraction": options.validation_fraction,
        "validation_frame_f1": locator.f1,
        "warnings": warnings,
    });
    if let Value::Object(new) = new {
        notes.extend(new);
    }
    Ok(notes)
}
