//! Calibration on normal footage alone, and how it would do beside a few-shot calibration.

use tokio_util::sync::CancellationToken;

use super::{
    CalibrateOptions, CalibrateStage, Calibration, ProgressFn,
    fit::{Part, validation_videos},
    new_profile, rows,
};
use crate::{
    engine::probe::ProbeInfo,
    error::{Error, Kind, Result},
    eval::metrics::{average_precision, roc_auc},
    hunt::{
        HuntOptions,
        calibrate::PAPER_SIGMA,
        folds,
        normal::{NormalHunt, rank_heads},
        normality::{fit, held_out_distances, with_quantiles},
        rate::{self, RateFit},
        stopped,
    },
    limits::{NORMAL_COMPARISON_SAMPLES_MAX, NORMALITY_NUMBERS_MAX},
    pipeline::{labelled::LabelledVideo, report, samples::SampleSet},
    profile::{LocatorParams, Scorer},
    report::Method,
    score::{locate::SegmentSpan, normality::Normality},
    segment::SegmentRule,
};

/// What a calibration on normal footage is to do.
#[derive(Clone, Debug)]
pub struct NormalOptions {
    /// Name, prompts, segment rule, K, λ, seed and edge; K cannot be chosen and no part is kept for
    /// validation here.
    pub calibrate: CalibrateOptions,
    /// False alarms per camera and day that the threshold aims at, above 0.
    pub false_alarms_per_day: f64,
    /// With too little footage to show that rate, take the threshold without any false alarm on it
    /// and tell the upper bound.
    pub accept_upper_bound: bool,
}

impl NormalOptions {
    /// What can be told to be wrong before the long work of extraction.
    ///
    /// # Errors
    /// `InvalidArgument`, with the field where it is an option.
    pub fn check(&self, info: &ProbeInfo, videos: &[LabelledVideo]) -> Result<()> {
        self.calibrate.check_numbers(info)?;
        if self.calibrate.auto_top_k {
            return Err(Error::invalid(
                "the number of heads is chosen by how well they tell anomalies apart: with normal footage alone give top_k",
            )
            .with_field("auto_top_k"));
        }
        if self.calibrate.validation_fraction > 0.0 {
            return Err(Error::invalid(
                "with normal footage alone every video is held out once: leave validation_fraction at 0",
            )
            .with_field("validation_fraction"));
        }
        let most = most_heads(info.head_dim);
        if self.calibrate.hunt.top_k > most {
            return Err(Error::invalid(format!(
                "top_k is {}: with normal footage alone heads may have {NORMALITY_NUMBERS_MAX} numbers together, so give 1 to {most}",
                self.calibrate.hunt.top_k
            ))
            .with_field("top_k"));
        }
        rate::check_rate(self.false_alarms_per_day)?;
        let whole = |video: &&LabelledVideo| !video.anomaly && !video.intervals_known;
        if videos.iter().any(|video| whole(&video)) {
            return Err(whole_videos());
        }
        let normal = videos.iter().filter(|video| !video.anomaly).count();
        if normal < 2 {
            return Err(Error::invalid(format!(
                "{normal} of {} clips are normal: what unseen normal footage looks like is measured on clips that the fit has not seen, so at least 2 are needed",
                videos.len()
            )));
        }
        Ok(())
    }
}

fn whole_videos() -> Error {
    Error::invalid(
        "normal clips are sampled as whole videos: false alarms are counted in time, so sample segments",
    )
    .with_field("sampling_unit")
}

/// Most heads whose covariance is taken apart.
fn most_heads(head_dim: usize) -> usize {
    (NORMALITY_NUMBERS_MAX / head_dim.max(1)).max(1)
}

/// Marks every frame of normal clips as known, so that they are cut into segments although no clip
/// has intervals: false alarms are counted in time, which a whole-video sample does not have.
pub fn cut_normal_clips(videos: &mut [LabelledVideo]) {
    for video in videos {
        video.intervals_known |= !video.anomaly;
    }
}

/// How a calibration on normal footage came out.
#[derive(Debug)]
pub struct NormalFit {
    /// Every head's measures.
    pub hunt: NormalHunt,
    /// How τ was placed.
    pub rate: RateFit,
}

/// Ranks heads by normal clips, fits their distribution, and places τ by a rate of false alarms on
/// held-out normal clips (smoothing is the paper's: without anomalies none can be said to be
/// better). Anomalous clips are fitted to nowhere; where there are any, the report shows how they
/// score.
///
/// # Errors
/// As [`NormalOptions::check`]; `FailedPrecondition` for too little footage; `InvalidArgument` for
/// samples that cannot be used; `Cancelled` once `cancel` is.
pub fn calibrate_normal(
    set: &SampleSet,
    videos: &[LabelledVideo],
    info: &ProbeInfo,
    fingerprint: impl FnOnce(usize) -> Result<String>,
    options: &NormalOptions,
    cancel: &CancellationToken,
    progress: &ProgressFn,
) -> Result<Calibration> {
    let asked = &options.calibrate;
    options.check(info, videos)?;
    set.check_model(info)?;
    let normal: Vec<usize> = (0..set.samples.len())
        .filter(|&i| {
            videos
                .get(set.samples[i].video)
                .is_some_and(|video| !video.anomaly)
        })
        .collect();
    let spans: Vec<_> = normal.iter().filter_map(|&i| set.samples[i].span).collect();
    if spans.len() < normal.len() || spans.is_empty() {
        return Err(whole_videos());
    }
    rate::check_footage(
        rate::days(&spans),
        options.false_alarms_per_day,
        options.accept_upper_bound,
    )?;
    let stop = || cancel.is_cancelled();
    let groups: Vec<usize> = set.samples.iter().map(|s| s.video).collect();
    let hunt = rank_heads(
        &set.features,
        &normal,
        &groups,
        &asked.hunt,
        asked.seed,
        &stop,
        &|done, total| progress(CalibrateStage::Hunt, done, total),
    )?;

    progress(CalibrateStage::Fit, 0, 1);
    let z = set.gather(0, &hunt.expert_heads)?;
    let normal_z: Vec<&[f32]> = normal.iter().map(|&i| z[i].as_slice()).collect();
    let normal_groups: Vec<usize> = normal.iter().map(|&i| groups[i]).collect();
    let distances = held_out_distances(&normal_z, &normal_groups, asked.seed, &stop)?;
    if stop() {
        return Err(stopped());
    }
    let params = with_quantiles(fit(&normal_z)?, &distances)?;
    let scorer = Normality::from(&params);
    // Normal samples by the fits that had not seen them, the others by the final one.
    let mut p = z
        .iter()
        .map(|z| scorer.probability(z))
        .collect::<Result<Vec<_>>>()?;
    for (&i, distance) in normal.iter().zip(&distances) {
        p[i] = scorer.quantile(*distance);
    }
    progress(CalibrateStage::Fit, 1, 1);

    progress(CalibrateStage::Locate, 0, 1);
    let all = rows(set, &z);
    let normal_p: Vec<f64> = normal.iter().map(|&i| p[i]).collect();
    let footage = validation_videos(&all, &normal, &normal_p, videos);
    let rate = rate::place(
        &footage,
        PAPER_SIGMA,
        asked.edge,
        bridge_seconds(asked.rule, &spans),
        options.false_alarms_per_day,
        options.accept_upper_bound,
    )?;
    progress(CalibrateStage::Locate, 1, 1);

    let warnings = warnings(&hunt, &rate, options);
    progress(CalibrateStage::Report, 0, 1);
    let locator = LocatorParams {
        sigma: PAPER_SIGMA,
        threshold: rate.threshold,
        edge: asked.edge,
        event_bridge_s: None,
    };
    let report = report::of_normal(&report::NormalMaterial {
        options,
        rows: &all,
        videos,
        p: &p,
        hunt: &hunt,
        rate: &rate,
        locator: &locator,
        warnings: &warnings,
    })?;
    progress(CalibrateStage::Report, 1, 1);
    let notes = serde_json::json!({
        "videos": videos.len(),
        "normal_samples": normal.len(),
        "lambda": asked.hunt.lambda,
        "seed": asked.seed,
        "false_alarms_per_day": options.false_alarms_per_day,
        "footage_hours": rate.days * 24.0,
        "false_alarms_on_footage": rate.events,
        "false_alarms_per_day_upper_bound": rate.upper_bound_per_day,
        "warnings": warnings,
    });
    let profile = new_profile(
        asked,
        info,
        fingerprint,
        hunt.expert_heads.clone(),
        Scorer::Normality(params),
        locator,
        notes,
    )?;
    Ok(Calibration {
        profile,
        hunt: None,
        locator: None,
        normal: Some(NormalFit { hunt, rate }),
        report,
        warnings,
    })
}

/// The bridge inside an event that a profile without one has: one segment.
fn bridge_seconds(rule: SegmentRule, spans: &[SegmentSpan]) -> f64 {
    match rule {
        SegmentRule::Seconds(seconds) => seconds,
        SegmentRule::Frames(_) => {
            // The usual length of a segment of so many frames.
            let mut lengths: Vec<i128> = spans
                .iter()
                .map(|s| i128::from(s.end.as_nanos()) - i128::from(s.start.as_nanos()))
                .collect();
            lengths.sort_unstable();
            lengths
                .get(lengths.len() / 2)
                .map_or(0.0, |ns| *ns as f64 / 1e9)
        }
    }
}

fn warnings(hunt: &NormalHunt, rate: &RateFit, options: &NormalOptions) -> Vec<String> {
    let mut warnings = hunt.notes.clone();
    warnings.push(
        "p is the quantile among normal footage, not the probability of an anomaly: it is uniform over normal footage. A scorer fitted to labelled anomalies is better wherever there are some".into(),
    );
    if !rate.target_shown {
        warnings.push(format!(
            "{:.2} hours of normal footage cannot show {} false alarms a day: the threshold lies above all of it, and the rate is at most {:.0} a day at 95% confidence",
            rate.days * 24.0,
            options.false_alarms_per_day,
            rate.upper_bound_per_day
        ));
    }
    warnings
}

/// How normal footage alone would do on the held-out samples of a few-shot calibration: heads ranked
/// by the normal samples that are trained on (out of fold: by all normal ones), distances from fits
/// to normal samples that exclude the held-out video, at most 1,024 of them, taken evenly.
///
/// Errors as [`rank_heads`] and [`fit`].
pub(super) fn compare(
    set: &SampleSet,
    part: &Part,
    options: &CalibrateOptions,
    heads: usize,
    cancel: &CancellationToken,
) -> Result<Method> {
    let stop = || cancel.is_cancelled();
    let labels = set.labels();
    let groups: Vec<usize> = set.samples.iter().map(|s| s.video).collect();
    let training: Vec<usize> = match &part.training {
        Some(training) => training.clone(),
        None => (0..labels.len()).collect(),
    };
    let normal: Vec<usize> = training.into_iter().filter(|&i| !labels[i]).collect();
    let hunt_options = HuntOptions {
        top_k: heads.min(most_heads(set.features.head_dim)),
        lambda: options.hunt.lambda,
    };
    let hunt = rank_heads(
        &set.features,
        &normal,
        &groups,
        &hunt_options,
        options.seed,
        &stop,
        &|_, _| (),
    )?;
    let z = set.gather(0, &hunt.expert_heads)?;
    let scorer = |rows: &mut dyn Iterator<Item = usize>| -> Result<Normality> {
        if stop() {
            return Err(stopped());
        }
        let mut rows: Vec<&[f32]> = rows.map(|i| z[i].as_slice()).collect();
        let n = rows.len();
        if n > NORMAL_COMPARISON_SAMPLES_MAX {
            rows = (0..NORMAL_COMPARISON_SAMPLES_MAX)
                .map(|i| rows[i * n / NORMAL_COMPARISON_SAMPLES_MAX])
                .collect();
        }
        Ok(Normality::from(&fit(&rows)?))
    };
    let (held_out, distances) = match &part.kept {
        Some(kept) => {
            let scorer = scorer(&mut normal.iter().copied())?;
            let distances = kept
                .iter()
                .map(|&i| scorer.squared_distance(&z[i]))
                .collect::<Result<Vec<_>>>()?;
            (kept.clone(), distances)
        }
        None => {
            let fold_of = folds::assign(&labels, &groups, options.seed)?;
            let folds = fold_of.iter().max().map_or(0, |last| last + 1);
            let mut distances = vec![0.0; labels.len()];
            for fold in 0..folds {
                let scorer = scorer(&mut normal.iter().copied().filter(|&i| fold_of[i] != fold))?;
                for i in (0..labels.len()).filter(|&i| fold_of[i] == fold) {
                    distances[i] = scorer.squared_distance(&z[i])?;
                }
            }
            ((0..labels.len()).collect(), distances)
        }
    };
    let held_labels: Vec<bool> = held_out.iter().map(|&i| labels[i]).collect();
    Ok(Method {
        name: "normal footage only".to_owned(),
        fitted_on: format!(
            "normal samples {} (heads ranked by {} normal samples)",
            if part.kept.is_some() {
                "that were trained on"
            } else {
                "of the other folds"
            },
            normal.len()
        ),
        roc_auc: roc_auc(&distances, &held_labels)?,
        average_precision: average_precision(&distances, &held_labels)?,
    })
}

/// The two rows of the comparison, or why there are none.
pub(super) fn comparison(
    set: &SampleSet,
    part: &Part,
    options: &CalibrateOptions,
    heads: usize,
    (p, held_labels): (&[f64], &[bool]),
    cancel: &CancellationToken,
) -> Result<std::result::Result<Vec<Method>, String>> {
    let normal_only = match compare(set, part, options, heads, cancel) {
        Ok(row) => row,
        // Too few normal samples or videos, or one class only among the held-out ones: no row.
        // Nor does anything else but being cancelled end a calibration that does not depend on it.
        Err(error) if error.kind() != Kind::Cancelled => {
            return Ok(Err(format!(
                "no comparison with normal footage alone: {}",
                error.message()
            )));
        }
        Err(error) => return Err(error),
    };
    let few_shot = Method {
        name: "few-shot (this profile)".to_owned(),
        fitted_on: if part.kept.is_some() {
            "labelled samples that were trained on".to_owned()
        } else {
            "labelled samples of the other folds (heads ranked by all)".to_owned()
        },
        roc_auc: roc_auc(p, held_labels)?,
        average_precision: average_precision(p, held_labels)?,
    };
    Ok(Ok(vec![few_shot, normal_only]))
}
