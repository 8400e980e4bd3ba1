//! What calibrating and refitting share: the parts of the samples, the scorer, the scores of samples
//! that it has not seen, and the locator on those.

use tokio_util::sync::CancellationToken;

use super::{CalibrateOptions, CalibrateStage, ProgressFn};
use crate::{
    error::Result,
    hunt::{
        calibrate::{CalibrationVideo, LocatorFit, calibrate_locator},
        folds::out_of_fold,
        split, stopped,
    },
    pipeline::labelled::LabelledVideo,
    score::{locate::SegmentSpan, logistic::Logistic},
};

/// One sample as the scorer sees it.
#[derive(Clone, Copy)]
pub(in crate::pipeline) struct Row<'a> {
    /// The expert heads' features.
    pub z: &'a [f32],
    /// Its label.
    pub anomaly: bool,
    /// Its video; at or above the number of videos: from elsewhere.
    pub group: usize,
    /// Where it stands in the video.
    pub span: Option<SegmentSpan>,
}

/// All samples.
pub(in crate::pipeline) struct Rows<'a> {
    pub rows: Vec<Row<'a>>,
}

impl<'a> Rows<'a> {
    pub fn labels(&self) -> Vec<bool> {
        self.rows.iter().map(|row| row.anomaly).collect()
    }

    pub fn groups(&self) -> Vec<usize> {
        self.rows.iter().map(|row| row.group).collect()
    }

    fn z(&self, rows: Option<&[usize]>) -> Vec<&'a [f32]> {
        match rows {
            Some(rows) => rows.iter().map(|&i| self.rows[i].z).collect(),
            None => self.rows.iter().map(|row| row.z).collect(),
        }
    }
}

/// Which samples are trained on and which are kept for validation.
pub(in crate::pipeline) struct Part {
    /// Samples to train on, ascending; `None`: all.
    pub training: Option<Vec<usize>>,
    /// Samples kept, ascending; `None`: none, scores are out of fold.
    pub kept: Option<Vec<usize>>,
}

impl Part {
    /// As the options say; see [`split::validation`].
    pub fn new(labels: &[bool], groups: &[usize], options: &CalibrateOptions) -> Result<Part> {
        let kept = split::validation(labels, groups, options.validation_fraction, options.seed)?;
        if options.validation_fraction == 0.0 {
            return Ok(Part {
                training: None,
                kept: None,
            });
        }
        let (kept, training) = (0..labels.len()).partition(|&i| kept[i]);
        Ok(Part {
            training: Some(training),
            kept: Some(kept),
        })
    }
}

/// A scorer with its locator.
pub(in crate::pipeline) struct Fitted {
    /// Fitted to all samples that are trained on.
    pub scorer: Logistic,
    /// Samples that were scored by a fit that has not seen them, ascending.
    pub held_out: Vec<usize>,
    /// Their p.
    pub p: Vec<f64>,
    /// The locator on those with a place in a video.
    pub locator: LocatorFit,
}

/// Fits the scorer and calibrates the locator. Samples of no video (`group` beyond the videos) are
/// trained on and do not enter the grid.
pub(in crate::pipeline) fn fit(
    rows: &Rows<'_>,
    part: &Part,
    videos: &[LabelledVideo],
    options: &CalibrateOptions,
    cancel: &CancellationToken,
    progress: &ProgressFn,
) -> Result<Fitted> {
    let check = || {
        if cancel.is_cancelled() {
            Err(stopped())
        } else {
            Ok(())
        }
    };
    check()?;
    progress(CalibrateStage::Fit, 0, 1);
    let labels = rows.labels();
    let training = part.training.as_deref();
    let train_labels = match training {
        Some(training) => training.iter().map(|&i| labels[i]).collect(),
        None => labels.clone(),
    };
    let scorer = Logistic::fit(&rows.z(training), &train_labels, &options.fit)?;
    check()?;
    let (held_out, p) = match &part.kept {
        Some(kept) => {
            let p = kept
                .iter()
                .map(|&i| scorer.probability(rows.rows[i].z))
                .collect::<Result<_>>()?;
            (kept.clone(), p)
        }
        None => {
            let p = out_of_fold(
                &rows.z(None),
                &labels,
                &rows.groups(),
                options.seed,
                &options.fit,
            )?;
            ((0..rows.rows.len()).collect(), p)
        }
    };
    progress(CalibrateStage::Fit, 1, 1);
    check()?;
    progress(CalibrateStage::Locate, 0, 1);
    let validation = validation_videos(rows, &held_out, &p, videos);
    let locator = calibrate_locator(&validation, options.edge)?;
    progress(CalibrateStage::Locate, 1, 1);
    Ok(Fitted {
        scorer,
        held_out,
        p,
        locator,
    })
}

/// The videos of held-out samples, each with the p of its segments in order.
pub(in crate::pipeline) fn validation_videos(
    rows: &Rows<'_>,
    held_out: &[usize],
    p: &[f64],
    videos: &[LabelledVideo],
) -> Vec<CalibrationVideo> {
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
    for (&i, &p) in held_out.iter().zip(p) {
        let row = &rows.rows[i];
        if let (Some(span), Some(video)) = (row.span, found.get_mut(row.group)) {
            video.spans.push(span);
            video.p.push(p);
        }
    }
    found.retain(|v| !v.spans.is_empty());
    found
}
