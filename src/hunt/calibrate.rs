//! Calibrates the locator: the (σ, τ) of a grid with the best frame-level F1.

use rayon::prelude::*;

use crate::{
    error::Result,
    intervals::{merge, overlap},
    profile::Edge,
    score::locate::{SegmentSpan, smooth_runs},
};

/// The paper's σ_g, kept where calibration finds nothing.
pub const PAPER_SIGMA: f64 = 1.5;
/// The paper's τ, kept where calibration finds nothing.
pub const PAPER_THRESHOLD: f64 = 0.65;

/// A validation video.
#[derive(Clone, Debug, PartialEq)]
pub struct CalibrationVideo {
    /// For messages.
    pub name: String,
    /// Its segments, in media order.
    pub spans: Vec<SegmentSpan>,
    /// Out-of-fold p of each segment.
    pub p: Vec<f64>,
    /// Anomalous frames, end exclusive.
    pub truth: Vec<(u64, u64)>,
    /// Whether `truth` says of every frame what it is; a clip with a label for the whole of it alone
    /// does not enter the grid.
    pub has_intervals: bool,
}

/// What calibration found.
#[derive(Clone, Debug, PartialEq)]
pub struct LocatorFit {
    /// σ_g, segments.
    pub sigma: f64,
    /// τ.
    pub threshold: f64,
    /// Frame-level F1 there.
    pub f1: f64,
    /// What the caller should know.
    pub warnings: Vec<String>,
    /// (σ, τ, F1) of the whole grid, σ-major, ascending.
    pub surface: Vec<(f64, f64, f64)>,
}

/// The grid's σ: 0.5 to 3.0 in steps of 0.25.
pub fn sigmas() -> impl ExactSizeIterator<Item = f64> {
    (2..13_u8).map(|quarters| f64::from(quarters) / 4.0)
}

/// The grid's τ: 0.10 to 0.90 in steps of 0.01.
pub fn thresholds() -> impl ExactSizeIterator<Item = f64> {
    (10..91_u8).map(|hundredths| f64::from(hundredths) / 100.0)
}

/// What one segment adds: it either is above τ with all its frames or is not.
struct Segment {
    frames: u64,
    anomalous: u64,
}

/// F1 = 2 TP / (2 TP + FP + FN) in whole frames, so that equal scores are equal.
#[derive(Clone, Copy)]
struct F1 {
    twice_hits: u64,
    of: u64,
}

impl F1 {
    fn value(self) -> f64 {
        if self.twice_hits == 0 {
            0.0
        } else {
            self.twice_hits as f64 / self.of as f64
        }
    }

    fn better_than(self, other: F1) -> bool {
        u128::from(self.twice_hits) * u128::from(other.of)
            > u128::from(other.twice_hits) * u128::from(self.of)
    }
}

/// Searches the grid over the frames of all segments of the videos with intervals. Ties go to the
/// smaller σ, then the smaller τ. Where F1 is 0 everywhere the paper's values stay, with a warning.
///
/// `InvalidArgument`, naming the video, where spans and p do not match or p is not within 0..1.
pub fn calibrate_locator(videos: &[CalibrationVideo], edge: Edge) -> Result<LocatorFit> {
    let entering: Vec<&CalibrationVideo> = videos.iter().filter(|v| v.has_intervals).collect();
    let mut segments = Vec::new();
    for video in &entering {
        let truth = merge(video.truth.clone());
        for span in &video.spans {
            let end = span.last_frame.saturating_add(1);
            segments.push(Segment {
                frames: end.saturating_sub(span.first_frame),
                anomalous: overlap(&truth, span.first_frame, end),
            });
        }
    }
    let anomalous: u64 = segments.iter().map(|s| s.anomalous).sum();

    let rows: Vec<Vec<(f64, f64, F1)>> = sigmas()
        .collect::<Vec<_>>()
        .into_par_iter()
        .map(|sigma| row(&entering, &segments, anomalous, sigma, edge))
        .collect::<Result<_>>()?;

    let mut best: Option<(f64, f64, F1)> = None;
    let mut surface = Vec::with_capacity(sigmas().len() * thresholds().len());
    for (sigma, threshold, f1) in rows.into_iter().flatten() {
        surface.push((sigma, threshold, f1.value()));
        if f1.twice_hits > 0 && best.is_none_or(|(_, _, best)| f1.better_than(best)) {
            best = Some((sigma, threshold, f1));
        }
    }
    let mut warnings = Vec::new();
    let (sigma, threshold, f1) = match best {
        Some((sigma, threshold, f1)) => (sigma, threshold, f1.value()),
        None => {
            let why = if entering.is_empty() {
                "no clip has annotated intervals"
            } else if anomalous == 0 {
                "no segment of the clips with annotated intervals is anomalous"
            } else {
                "F1 is 0 at every sigma and threshold"
            };
            warnings.push(format!(
                "the locator is not calibrated ({why}): it keeps the paper's sigma \
                 {PAPER_SIGMA} and threshold {PAPER_THRESHOLD}"
            ));
            (PAPER_SIGMA, PAPER_THRESHOLD, 0.0)
        }
    };
    Ok(LocatorFit {
        sigma,
        threshold,
        f1,
        warnings,
        surface,
    })
}

/// The grid at one σ, τ ascending.
fn row(
    videos: &[&CalibrationVideo],
    segments: &[Segment],
    anomalous: u64,
    sigma: f64,
    edge: Edge,
) -> Result<Vec<(f64, f64, F1)>> {
    let mut smoothed = Vec::with_capacity(segments.len());
    for video in videos {
        let p = smooth_runs(&video.spans, &video.p, sigma, edge)
            .map_err(|e| e.context(format!("video {}", video.name)))?;
        smoothed.extend(p);
    }
    Ok(thresholds()
        .map(|threshold| {
            let (mut hits, mut flagged) = (0, 0);
            for (segment, p) in segments.iter().zip(&smoothed) {
                if *p > threshold {
                    hits += segment.anomalous;
                    flagged += segment.frames;
                }
            }
            // 2 TP + FP + FN = flagged + anomalous
            let f1 = F1 {
                twice_hits: 2 * hits,
                of: flagged + anomalous,
            };
            (sigma, threshold, f1)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::MediaTime;

    fn video(p: Vec<f64>, truth: Vec<(u64, u64)>) -> CalibrationVideo {
        let spans = (0..p.len() as u64)
            .map(|i| SegmentSpan {
                first_frame: 48 * i,
                last_frame: 48 * i + 47,
                start: MediaTime::from_nanos(i as i64 * 1_600_000_000),
                end: MediaTime::from_nanos((i as i64 + 1) * 1_600_000_000),
                run: 0,
            })
            .collect();
        CalibrationVideo {
            name: "clip".into(),
            spans,
            p,
            truth,
            has_intervals: true,
        }
    }

    #[test]
    fn the_grid_is_the_methods() {
        let sigmas: Vec<f64> = sigmas().collect();
        assert_eq!((sigmas[0], sigmas[4], sigmas[10]), (0.5, 1.5, 3.0));
        assert_eq!(sigmas.len(), 11);
        let thresholds: Vec<f64> = thresholds().collect();
        assert_eq!(
            (thresholds[0], thresholds[55], thresholds[80]),
            (0.1, 0.65, 0.9)
        );
        assert_eq!(thresholds.len(), 81);
    }

    #[test]
    fn f1_is_counted_frame_by_frame() {
        let videos = [
            video(
                vec![0.1, 0.2, 0.9, 0.8, 0.3, 0.1, 0.6, 0.2],
                vec![(100, 250), (240, 261), (330, 340)],
            ),
            video(vec![0.7, 0.1], vec![]),
        ];
        let fit = calibrate_locator(&videos, Edge::Renormalize).unwrap();
        assert!(fit.warnings.is_empty());
        let mut best = (0.0, 0.0, 0.0);
        for (at, (sigma, threshold)) in sigmas()
            .flat_map(|s| thresholds().map(move |t| (s, t)))
            .enumerate()
        {
            let (mut tp, mut fp, mut missed) = (0, 0, 0);
            for v in &videos {
                let p = smooth_runs(&v.spans, &v.p, sigma, Edge::Renormalize).unwrap();
                for frame in 0..48 * p.len() {
                    let truth = v
                        .truth
                        .iter()
                        .any(|(a, b)| (*a..*b).contains(&(frame as u64)));
                    match (p[frame / 48] > threshold, truth) {
                        (true, true) => tp += 1,
                        (true, false) => fp += 1,
                        (false, true) => missed += 1,
                        (false, false) => {}
                    }
                }
            }
            let f1 = if tp == 0 {
                0.0
            } else {
                f64::from(2 * tp) / f64::from(2 * tp + fp + missed)
            };
            assert_eq!(fit.surface[at], (sigma, threshold, f1));
            if f1 > best.2 {
                best = (sigma, threshold, f1);
            }
        }
        // The first of the best: the smaller sigma, then the smaller threshold.
        assert_eq!((fit.sigma, fit.threshold, fit.f1), best);
    }

    #[test]
    fn clips_without_intervals_do_not_enter() {
        let with = video(vec![0.1, 0.9, 0.9, 0.1], vec![(48, 144)]);
        let mut without = video(vec![0.9, 0.9], vec![(0, 1)]);
        without.has_intervals = false;
        let alone = calibrate_locator(std::slice::from_ref(&with), Edge::Zero).unwrap();
        assert_eq!(
            calibrate_locator(&[with, without.clone()], Edge::Zero).unwrap(),
            alone
        );
        let none = calibrate_locator(&[without], Edge::Zero).unwrap();
        assert_eq!((none.sigma, none.threshold, none.f1), (1.5, 0.65, 0.0));
        assert!(none.warnings[0].contains("no clip has annotated intervals"));
    }

    #[test]
    fn without_any_hit_the_papers_values_stay_and_it_is_said() {
        let fit = calibrate_locator(&[video(vec![0.05; 9], vec![(0, 48)])], Edge::Zero).unwrap();
        assert_eq!((fit.sigma, fit.threshold, fit.f1), (1.5, 0.65, 0.0));
        assert!(fit.warnings[0].contains("F1 is 0"));
        assert_eq!(fit.surface.len(), 11 * 81);
    }

    #[test]
    fn what_does_not_fit_together_is_refused_by_video() {
        let mut short = video(vec![0.5; 3], vec![]);
        short.p.pop();
        let error = calibrate_locator(&[short], Edge::Zero).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("video clip: 3 segments but 2")
        );
    }
}
