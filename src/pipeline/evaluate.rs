//! Frame-level figures of a profile on labelled videos.

use serde::Serialize;

use crate::{
    error::{Error, Result},
    eval::metrics::{self, Tally},
    intervals::overlap,
    profile::LocatorParams,
    score::locate::{SegmentSpan, smooth_runs},
};

/// A video with the p of its segments.
#[derive(Clone, Debug)]
pub struct ScoredVideo {
    /// For messages.
    pub name: String,
    /// Decoded frames.
    pub frames: u64,
    /// Anomalous frames, end exclusive, sorted, without overlaps.
    pub anomalous: Vec<(u64, u64)>,
    /// What sort of anomaly, where that is known.
    pub class: Option<String>,
    /// Its segments, in order.
    pub spans: Vec<SegmentSpan>,
    /// p of each.
    pub p: Vec<f64>,
}

/// How well a profile tells anomalous frames from normal ones, on p′.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProfileEvaluation {
    /// Videos.
    pub videos: u64,
    /// Frames.
    pub frames: u64,
    /// Anomalous ones among them.
    pub positives: u64,
    /// Area under the ROC curve.
    pub roc_auc: f64,
    /// scikit-learn's average precision.
    pub average_precision: f64,
    /// Area under the PR curve by the trapezoid rule.
    pub pr_auc_trapezoid: f64,
}

/// Frame AUC and AP of p′ over all videos' frames together.
///
/// Fails with `InvalidArgument` for a frame without a score and where all frames are of one class.
pub fn evaluate_videos(
    videos: &[ScoredVideo],
    locator: &LocatorParams,
) -> Result<ProfileEvaluation> {
    let mut tallies = Vec::new();
    for video in videos {
        let smoothed = smooth_runs(&video.spans, &video.p, locator.sigma, locator.edge)
            .map_err(|e| e.context(&video.name))?;
        let mut next = 0;
        for (span, score) in video.spans.iter().zip(smoothed) {
            if span.first_frame != next {
                break;
            }
            next = span.last_frame + 1;
            let positive = overlap(&video.anomalous, span.first_frame, next);
            tallies.push(Tally {
                score,
                positive,
                negative: next - span.first_frame - positive,
            });
        }
        if next != video.frames {
            return Err(Error::invalid(format!(
                "{}: frame {next} of {} has no score",
                video.name, video.frames
            )));
        }
    }
    let positives = tallies.iter().map(|tally| tally.positive).sum();
    let frames = positives + tallies.iter().map(|tally| tally.negative).sum::<u64>();
    let areas = metrics::areas(tallies)?;
    Ok(ProfileEvaluation {
        videos: videos.len() as u64,
        frames,
        positives,
        roc_auc: areas.roc_auc,
        average_precision: areas.average_precision,
        pr_auc_trapezoid: areas.pr_auc_trapezoid,
    })
}
