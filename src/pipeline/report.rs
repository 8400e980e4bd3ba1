//! Fills a [`Report`] from what a hunt or a calibration found.

use serde_json::{Map, Value, json};

pub use crate::report::Report;
use crate::{
    error::Result,
    hunt::{
        HuntOptions, HuntResult,
        calibrate::{CalibrationVideo, LocatorFit},
        choose_k::KChoice,
        file::LabelledFeatures,
        normal::NormalHunt,
        rate::RateFit,
    },
    intervals,
    limits::{REPORT_CLIP_SEGMENTS_MAX, REPORT_CLIPS_MAX},
    pipeline::{
        calibrate::{
            CalibrateOptions, NormalOptions,
            fit::{Fitted, Rows, validation_videos},
        },
        labelled::LabelledVideo,
    },
    profile::{Edge, LocatorParams},
    report::{Clip, FalseAlarms, Grid, HeldOut, Metric, Ranking, SampleCounts, TopK},
    score::locate::{SegmentSpan, smooth_runs},
    segment::SegmentRule,
};

/// What a calibration's report is made from.
pub(in crate::pipeline) struct Material<'a> {
    pub title: String,
    pub options: Map<String, Value>,
    pub prompts: Vec<String>,
    pub rows: &'a Rows<'a>,
    pub videos: &'a [LabelledVideo],
    /// Whether the held-out samples are kept videos, not folds.
    pub validation: bool,
    pub edge: Edge,
    pub fitted: &'a Fitted,
    pub ranking: Option<&'a HuntResult>,
    pub choice: Option<&'a KChoice>,
    pub warnings: &'a [String],
}

/// The report of a calibration or a refit.
pub(in crate::pipeline) fn of_calibration(material: &Material<'_>) -> Result<Report> {
    let Material {
        rows,
        videos,
        fitted,
        ..
    } = material;
    let labels = rows.labels();
    let held_labels: Vec<bool> = fitted.held_out.iter().map(|&i| labels[i]).collect();
    let how = if material.validation {
        "videos kept from hunting and fitting"
    } else {
        "out of fold: each scored by a fit without its video, with heads chosen on all"
    };
    let locator = &fitted.locator;
    let videos_held_out = validation_videos(rows, &fitted.held_out, &fitted.p, videos);
    let (clips, clips_left_out) = clips(
        videos_held_out,
        &LocatorParams {
            sigma: locator.sigma,
            threshold: locator.threshold,
            edge: material.edge,
            event_bridge_s: None,
        },
    )?;
    Ok(Report {
        title: material.title.clone(),
        options: material.options.clone(),
        prompts: material.prompts.clone(),
        samples: counts(
            &labels,
            videos.len(),
            if material.validation {
                fitted.held_out.len()
            } else {
                0
            },
        ),
        ranking: material.ranking.map(ranking),
        top_k: material.choice.map(top_k),
        held_out: Some(HeldOut::new(how, &fitted.p, &held_labels)?),
        locator: Some(grid(locator)),
        clips,
        clips_left_out,
        warnings: material.warnings.to_vec(),
        ..Report::default()
    })
}

/// What the report of a calibration on normal footage is made from.
pub(in crate::pipeline) struct NormalMaterial<'a> {
    pub options: &'a NormalOptions,
    pub rows: &'a Rows<'a>,
    pub videos: &'a [LabelledVideo],
    /// Of every sample, from fits that have not seen it.
    pub p: &'a [f64],
    pub hunt: &'a NormalHunt,
    pub rate: &'a RateFit,
    pub locator: &'a LocatorParams,
    pub warnings: &'a [String],
}

/// The report of a calibration on normal footage.
pub(in crate::pipeline) fn of_normal(material: &NormalMaterial<'_>) -> Result<Report> {
    let NormalMaterial {
        options: asked,
        rows,
        videos,
        p,
        hunt,
        rate,
        locator,
        ..
    } = *material;
    let labels = rows.labels();
    let all: Vec<usize> = (0..labels.len()).collect();
    let (clips, clips_left_out) = clips(validation_videos(rows, &all, p, videos), locator)?;
    let mut options = options(&asked.calibrate, Some(hunt.expert_heads.len()));
    for unused in [
        "c",
        "penalize_intercept",
        "validation_fraction",
        "auto_top_k",
    ] {
        options.remove(unused);
    }
    options.insert(
        "false_alarms_per_day".into(),
        asked.false_alarms_per_day.into(),
    );
    options.insert("accept_upper_bound".into(), asked.accept_upper_bound.into());
    Ok(Report {
        title: format!("Calibration of {} on normal footage", asked.calibrate.name),
        options,
        prompts: asked.calibrate.prompts.clone(),
        samples: counts(&labels, videos.len(), 0),
        ranking: Some(normal_ranking(hunt)),
        held_out: Some(HeldOut::new(
            "normal samples scored by fits without their video; anomalous ones, where there are any, by the final fit, which has seen none",
            p,
            &labels,
        )?),
        false_alarms: Some(FalseAlarms {
            target_per_day: asked.false_alarms_per_day,
            footage_days: rate.days,
            events: rate.events,
            observed_per_day: rate.events as f64 / rate.days,
            upper_bound_per_day: rate.upper_bound_per_day,
            target_shown: rate.target_shown,
            threshold: rate.threshold,
        }),
        clips,
        clips_left_out,
        warnings: material.warnings.to_vec(),
        ..Report::default()
    })
}

/// The report of a hunt alone.
pub(in crate::pipeline) fn of_hunt(
    result: &HuntResult,
    choice: Option<&KChoice>,
    options: Map<String, Value>,
    prompts: Vec<String>,
    samples: SampleCounts,
) -> Report {
    Report {
        title: "Expert heads".to_owned(),
        options,
        prompts,
        samples,
        ranking: Some(ranking(result)),
        top_k: choice.map(top_k),
        warnings: result.notes.clone(),
        ..Report::default()
    }
}

/// The report of a hunt on a file of features.
pub fn of_features(
    labelled: &LabelledFeatures,
    result: &HuntResult,
    options: &HuntOptions,
) -> Report {
    let asked = json!({"top_k": options.top_k, "lambda": options.lambda});
    of_hunt(
        result,
        None,
        object(asked),
        labelled.prompts.clone().unwrap_or_default(),
        counts(&labelled.labels, 0, 0),
    )
}

/// Counts of labelled samples.
pub(in crate::pipeline) fn counts(
    labels: &[bool],
    videos: usize,
    validation: usize,
) -> SampleCounts {
    SampleCounts {
        videos,
        samples: labels.len(),
        anomalous: labels.iter().filter(|l| **l).count(),
        validation,
        feedback: 0,
    }
}

/// The options by name; `top_k`: the heads that were chosen, where any were.
pub(in crate::pipeline) fn options(
    options: &CalibrateOptions,
    top_k: Option<usize>,
) -> Map<String, Value> {
    let mut asked = json!({
        "c": options.fit.c,
        "penalize_intercept": options.fit.penalize_intercept,
        "validation_fraction": options.validation_fraction,
        "seed": options.seed,
        "edge": options.edge,
    });
    if let Some(top_k) = top_k {
        asked["top_k"] = top_k.into();
        asked["auto_top_k"] = options.auto_top_k.into();
        asked["lambda"] = options.hunt.lambda.into();
        asked["frames_per_segment"] = options.frames_per_segment.into();
        asked["segment"] = match options.rule {
            SegmentRule::Frames(frames) => format!("{frames} frames").into(),
            SegmentRule::Seconds(seconds) => format!("{seconds} s").into(),
        };
    }
    object(asked)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn ranking(result: &HuntResult) -> Ranking {
    let metric = |name, meaning, values: &[f64]| Metric {
        name,
        meaning,
        values: values.to_vec(),
    };
    Ranking {
        layers: result.layers,
        heads: result.heads,
        prompts: result.prompts,
        expert_heads: result.expert_heads.clone(),
        metrics: vec![
            metric("LDA", "distance of class means against spread", &result.lda),
            metric("KL", "divergence of two Gaussians", &result.kl),
            metric("MMD²", "difference of distributions", &result.mmd),
            metric("NMI", "agreement of two clusters with labels", &result.nmi),
        ],
        saliency: result.saliency.clone(),
        rss: result.rss.clone(),
        mean: result.mean.clone(),
        std: result.std.clone(),
    }
}

fn normal_ranking(hunt: &NormalHunt) -> Ranking {
    let mut metrics = vec![Metric {
        name: "structure",
        meaning: "held-out gain of the shrunk Gaussian over a round one",
        values: hunt.structure.clone(),
    }];
    if !hunt.steadiness.is_empty() {
        metrics.push(Metric {
            name: "steadiness",
            meaning: "same differences between samples under each prompt",
            values: hunt.steadiness.clone(),
        });
    }
    Ranking {
        layers: hunt.layers,
        heads: hunt.heads,
        prompts: hunt.prompts,
        expert_heads: hunt.expert_heads.clone(),
        metrics,
        saliency: hunt.saliency.clone(),
        rss: hunt.rss.clone(),
        mean: hunt.mean.clone(),
        std: hunt.std.clone(),
    }
}

fn top_k(choice: &KChoice) -> TopK {
    TopK {
        k: choice.k,
        folds: choice.folds,
        pooled: choice.pooled,
        curve: choice
            .curve
            .iter()
            .map(|point| (point.k, point.average_precision, point.standard_error))
            .collect(),
    }
}

fn grid(locator: &LocatorFit) -> Grid {
    Grid {
        sigma: locator.sigma,
        threshold: locator.threshold,
        f1: locator.f1,
        surface: locator.surface.clone(),
    }
}

/// Held-out clips over time, anomalous ones first, and how many are left out.
fn clips(mut videos: Vec<CalibrationVideo>, locator: &LocatorParams) -> Result<(Vec<Clip>, usize)> {
    // Stable: the manifest's order stays within each kind.
    videos.sort_by_key(|video| video.truth.is_empty());
    let left_out = videos.len().saturating_sub(REPORT_CLIPS_MAX);
    let clips = videos
        .into_iter()
        .take(REPORT_CLIPS_MAX)
        .map(|video| {
            let smoothed = smooth_runs(&video.spans, &video.p, locator.sigma, locator.edge)?;
            let seconds = |span: &SegmentSpan| {
                (
                    span.start.as_nanos() as f64 / 1e9,
                    span.end.as_nanos() as f64 / 1e9,
                )
            };
            let segments: Vec<[f64; 4]> = video
                .spans
                .iter()
                .zip(video.p.iter().zip(&smoothed))
                .take(REPORT_CLIP_SEGMENTS_MAX)
                .map(|(span, (p, smoothed))| {
                    let (start, end) = seconds(span);
                    [start, end, *p, *smoothed]
                })
                .collect();
            Ok(Clip {
                anomaly: !video.truth.is_empty(),
                segments_left_out: video.spans.len() - segments.len(),
                segments,
                truth: truth_seconds(&video.truth, &video.spans),
                threshold: locator.threshold,
                name: video.name,
            })
        })
        .collect::<Result<_>>()?;
    Ok((clips, left_out))
}

/// Anomalous frames as stretches of time: a frame's place is read off the segment that holds it.
fn truth_seconds(truth: &[(u64, u64)], spans: &[SegmentSpan]) -> Vec<(f64, f64)> {
    let mut found: Vec<(f64, f64)> = Vec::new();
    for (first, end) in intervals::merge(truth.to_vec()) {
        for span in spans {
            let span_end = span.last_frame.saturating_add(1);
            let (from, to) = (first.max(span.first_frame), end.min(span_end));
            if from >= to {
                continue;
            }
            let (start, stop) = (
                span.start.as_nanos() as f64 / 1e9,
                span.end.as_nanos() as f64 / 1e9,
            );
            let frames = (span_end - span.first_frame) as f64;
            let at =
                |frame: u64| start + (stop - start) * (frame - span.first_frame) as f64 / frames;
            match found.last_mut() {
                // The next segment goes on where the last one ended.
                Some(last) if from > first && (at(from) - last.1).abs() < 1e-3 => last.1 = at(to),
                _ => found.push((at(from), at(to))),
            }
        }
    }
    found
}
