//! How far frame metrics depend on which videos were tested: the percentile bootstrap over videos.
//!
//! Frames of one video are not independent, so whole videos are drawn: as many as there are, with
//! replacement, seeded. The same draws serve every way of scoring, so that their intervals can be
//! compared. A draw without anomalous or without normal frames has no curve and is left out.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::metrics::{Areas, Curves};
use crate::{
    error::{Error, Result},
    limits::BOOTSTRAP_MAX,
};

/// Frames of one video that share a score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Piece {
    /// Which video, from 0.
    pub video: usize,
    /// The score; finite.
    pub score: f64,
    /// Anomalous ones among the frames.
    pub positive: u64,
    /// The others.
    pub negative: u64,
}

/// Pieces from the highest score down, sorted once for all draws.
#[derive(Clone, Debug)]
pub struct Ranked {
    pieces: Vec<Piece>,
    videos: usize,
}

impl Ranked {
    /// `InvalidArgument` where a score is not finite.
    pub fn new(mut pieces: Vec<Piece>) -> Result<Ranked> {
        if pieces.iter().any(|piece| !piece.score.is_finite()) {
            return Err(Error::invalid("a score is not a finite number"));
        }
        for piece in &mut pieces {
            // −0 and 0 are one score.
            piece.score += 0.0;
        }
        pieces.sort_unstable_by(|a, b| b.score.total_cmp(&a.score));
        let videos = pieces.iter().map(|p| p.video + 1).max().unwrap_or(0);
        Ok(Ranked { pieces, videos })
    }

    /// The areas of all videos, each once.
    ///
    /// `InvalidArgument` where the frames are of one class only.
    pub fn areas(&self) -> Result<Areas> {
        let once = vec![1; self.videos];
        self.drawn(&once).ok_or_else(|| {
            Error::invalid("the frames are all anomalous or all normal: the curves need both")
        })
    }

    /// F1 of the frames whose score is above `threshold`: 2 TP / (2 TP + FP + FN), 0 without TP.
    pub fn f1(&self, threshold: f64) -> f64 {
        let (mut hits, mut flagged, mut positives) = (0, 0, 0);
        for piece in &self.pieces {
            positives += piece.positive;
            if piece.score > threshold {
                hits += piece.positive;
                flagged += piece.positive + piece.negative;
            }
        }
        if hits == 0 {
            0.0
        } else {
            (2 * hits) as f64 / (flagged + positives) as f64
        }
    }

    /// The same frames with the score 1 above `threshold` and 0 elsewhere.
    pub fn binarised(&self, threshold: f64) -> Ranked {
        let mut binary = self.clone();
        // They stay in order.
        for piece in &mut binary.pieces {
            piece.score = f64::from(u8::from(piece.score > threshold));
        }
        binary
    }

    /// The areas where each video counts so many times; `None` without frames of both classes.
    fn drawn(&self, times: &[u32]) -> Option<Areas> {
        let times = |piece: &Piece| u64::from(times.get(piece.video).copied().unwrap_or(0));
        let (mut positives, mut negatives) = (0, 0);
        for piece in &self.pieces {
            positives += times(piece) * piece.positive;
            negatives += times(piece) * piece.negative;
        }
        if positives == 0 || negatives == 0 {
            return None;
        }
        let mut curves = Curves::new(positives, negatives);
        for tied in self.pieces.chunk_by(|a, b| a.score == b.score) {
            let (mut hits, mut alarms) = (0, 0);
            for piece in tied {
                hits += times(piece) * piece.positive;
                alarms += times(piece) * piece.negative;
            }
            curves.pass(hits, alarms);
        }
        Some(curves.areas())
    }
}

/// Draws of videos.
#[derive(Clone, Debug)]
pub struct Draws {
    /// How often each video was drawn, per draw.
    times: Vec<Vec<u32>>,
}

impl Draws {
    /// `draws` draws of `videos` videos; the same for the same seed.
    ///
    /// `InvalidArgument` for more than [`BOOTSTRAP_MAX`] draws.
    pub fn new(videos: usize, draws: usize, seed: u64) -> Result<Draws> {
        if draws > BOOTSTRAP_MAX {
            return Err(Error::invalid(format!(
                "a bootstrap of {draws} draws: give at most {BOOTSTRAP_MAX} (1000 is usual)"
            ))
            .with_field("bootstrap"));
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let times = (0..draws)
            .map(|_| {
                let mut times = vec![0; videos];
                for _ in 0..videos {
                    times[rng.random_range(0..videos)] += 1;
                }
                times
            })
            .collect();
        Ok(Draws { times })
    }

    /// 95 % intervals of ROC-AUC and average precision, each the mean over `rankings` of the same
    /// videos (one, or one per seed of a random choice). `None` where fewer than half of the draws
    /// have frames of both classes.
    pub fn intervals(&self, rankings: &[Ranked]) -> Option<Intervals> {
        let drawn: Vec<(f64, f64)> = self
            .times
            .par_iter()
            .filter_map(|times| {
                let (mut auc, mut ap) = (0.0, 0.0);
                for ranked in rankings {
                    let areas = ranked.drawn(times)?;
                    auc += areas.roc_auc;
                    ap += areas.average_precision;
                }
                let n = rankings.len() as f64;
                Some((auc / n, ap / n))
            })
            .collect();
        if drawn.is_empty() || 2 * drawn.len() < self.times.len() {
            return None;
        }
        let (auc, ap) = drawn.into_iter().unzip();
        Some(Intervals {
            roc_auc: percentiles(auc),
            average_precision: percentiles(ap),
        })
    }
}

/// 95 % intervals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Intervals {
    /// Of the ROC-AUC, lower and upper end.
    pub roc_auc: (f64, f64),
    /// Of the average precision.
    pub average_precision: (f64, f64),
}

/// The 2.5th and 97.5th percentiles, between two values by their distance. At least one value.
fn percentiles(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_unstable_by(f64::total_cmp);
    let at = |part: f64| {
        let place = part * (values.len() - 1) as f64;
        let (low, high) = (place.floor() as usize, place.ceil() as usize);
        values[low] + (values[high] - values[low]) * (place - place.floor())
    };
    (at(0.025), at(0.975))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces() -> Vec<Piece> {
        (0..60)
            .map(|i| Piece {
                video: i / 6,
                score: ((i * 37 + 11) % 23) as f64 / 23.0 + if i % 4 == 0 { 0.3 } else { 0.0 },
                positive: if i % 4 == 0 { 40 } else { 0 },
                negative: if i % 4 == 0 { 8 } else { 48 },
            })
            .collect()
    }

    #[test]
    fn percentiles_are_numpys() {
        let values: Vec<f64> = (0..41).map(f64::from).rev().collect();
        assert_eq!(percentiles(values), (1.0, 39.0));
        assert_eq!(percentiles(vec![7.0]), (7.0, 7.0));
        // numpy.percentile([1, 2, 4], [2.5, 97.5]) = [1.05, 3.9]
        let (low, high) = percentiles(vec![4.0, 1.0, 2.0]);
        assert!((low - 1.05).abs() < 1e-12 && (high - 3.9).abs() < 1e-12);
    }

    #[test]
    fn a_draw_equals_the_videos_written_out() {
        let all = pieces();
        let ranked = Ranked::new(all.clone()).unwrap();
        let times = [2, 0, 1, 0, 0, 3, 1, 1, 1, 1];
        let mut written = Vec::new();
        for (video, &times) in times.iter().enumerate() {
            for _ in 0..times {
                written.extend(all.iter().filter(|p| p.video == video).copied());
            }
        }
        let written = Ranked::new(written).unwrap().areas().unwrap();
        let drawn = ranked.drawn(&times).unwrap();
        assert!((drawn.roc_auc - written.roc_auc).abs() < 1e-15);
        assert!((drawn.average_precision - written.average_precision).abs() < 1e-12);
    }

    #[test]
    fn f1_and_binary_scores_by_hand() {
        let piece = |score, positive, negative| Piece {
            video: 0,
            score,
            positive,
            negative,
        };
        let ranked = Ranked::new(vec![
            piece(0.5, 3, 7),
            piece(0.9, 8, 2),
            piece(0.2, 1, 19),
            piece(0.7, 0, 10),
        ])
        .unwrap();
        // Above 0.5: 8 hits, 12 alarms, 4 missed.
        assert_eq!(ranked.f1(0.5), 16.0 / 32.0);
        assert_eq!(ranked.f1(0.95), 0.0);
        let areas = ranked.binarised(0.5).areas().unwrap();
        // (TPR + TNR) / 2 for one step.
        assert_eq!(areas.roc_auc, (8.0 / 12.0 + 26.0 / 38.0) / 2.0);
    }

    #[test]
    fn intervals_repeat_for_a_seed_and_lie_around_the_figure() {
        let ranked = [Ranked::new(pieces()).unwrap()];
        let intervals = |seed| {
            let draws = Draws::new(10, 400, seed).unwrap();
            draws.intervals(&ranked).unwrap()
        };
        assert_eq!(intervals(5), intervals(5));
        assert_ne!(intervals(5), intervals(6));
        let (low, high) = intervals(5).roc_auc;
        let auc = ranked[0].areas().unwrap().roc_auc;
        assert!(low < auc && auc < high, "{low} {auc} {high}");
        // The mean over the same ranking twice is that ranking.
        let twice = [ranked[0].clone(), ranked[0].clone()];
        let draws = Draws::new(10, 400, 5).unwrap();
        assert_eq!(draws.intervals(&twice).unwrap(), intervals(5));
    }

    #[test]
    fn draws_without_both_classes_are_left_out_and_too_few_give_none() {
        // One of ten videos has the only anomalous frames: a draw lacks it with 0.9^10 = 0.35.
        let mut one = pieces();
        for piece in &mut one {
            if piece.video != 3 {
                piece.positive = 0;
            }
        }
        let draws = Draws::new(10, 400, 1).unwrap();
        assert!(
            draws
                .intervals(&[Ranked::new(one.clone()).unwrap()])
                .is_some()
        );
        for piece in &mut one {
            piece.positive = 0;
        }
        let none = Ranked::new(one).unwrap();
        assert!(none.areas().is_err());
        assert!(draws.intervals(&[none]).is_none());
        let ranked = [Ranked::new(pieces()).unwrap()];
        assert!(Draws::new(10, 0, 1).unwrap().intervals(&ranked).is_none());
        assert!(Draws::new(1, BOOTSTRAP_MAX + 1, 1).is_err());
    }
}
