//! Areas under curves, exact for tied scores.
//!
//! All sort once, O(n log n), and walk down the distinct scores; scores that are equal are passed
//! together. A higher score means more anomalous; only the order counts.

use crate::error::{Error, Result};

/// Frames that share a score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tally {
    /// The score; not NaN.
    pub score: f64,
    /// Anomalous ones among them.
    pub positive: u64,
    /// The others.
    pub negative: u64,
}

/// The areas of one set of scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Areas {
    /// Area under the ROC curve: the chance that an anomalous frame scores higher than a normal one,
    /// ties counting half.
    pub roc_auc: f64,
    /// Σ (Rₙ − Rₙ₋₁) Pₙ, scikit-learn's `average_precision_score`.
    pub average_precision: f64,
    /// Area under the PR curve by the trapezoid rule, from the point (recall 0, precision 1):
    /// scikit-learn's `auc(recall, precision)`. With tied scores up to 2 points from the average
    /// precision; papers mix them.
    pub pr_auc_trapezoid: f64,
}

/// [`Areas::roc_auc`] of one score and label per frame.
///
/// `InvalidArgument`: lengths that differ, a NaN (by its index), frames of one class only.
pub fn roc_auc(scores: &[f64], positive: &[bool]) -> Result<f64> {
    Ok(areas(tallies(scores, positive)?)?.roc_auc)
}

/// [`Areas::average_precision`] of one score and label per frame; errors as [`roc_auc`].
pub fn average_precision(scores: &[f64], positive: &[bool]) -> Result<f64> {
    Ok(areas(tallies(scores, positive)?)?.average_precision)
}

/// [`Areas::pr_auc_trapezoid`] of one score and label per frame; errors as [`roc_auc`].
pub fn pr_auc_trapezoid(scores: &[f64], positive: &[bool]) -> Result<f64> {
    Ok(areas(tallies(scores, positive)?)?.pr_auc_trapezoid)
}

fn tallies(scores: &[f64], positive: &[bool]) -> Result<Vec<Tally>> {
    if scores.len() != positive.len() {
        return Err(Error::invalid(format!(
            "{} scores but {} labels",
            scores.len(),
            positive.len()
        )));
    }
    if let Some(at) = scores.iter().position(|s| s.is_nan()) {
        return Err(Error::invalid(format!("score {at} is NaN")));
    }
    Ok(scores
        .iter()
        .zip(positive)
        .map(|(&score, &positive)| Tally {
            score,
            positive: u64::from(positive),
            negative: u64::from(!positive),
        })
        .collect())
}

/// All three areas of frames that come in tallies.
///
/// `InvalidArgument` where a score is NaN or the frames are of one class only.
pub fn areas(mut tallies: Vec<Tally>) -> Result<Areas> {
    if tallies.iter().any(|t| t.score.is_nan()) {
        return Err(Error::invalid("a score is NaN"));
    }
    let positives: u64 = tallies.iter().map(|t| t.positive).sum();
    let negatives: u64 = tallies.iter().map(|t| t.negative).sum();
    if positives == 0 || negatives == 0 {
        return Err(Error::invalid(format!(
            "{positives} anomalous and {negatives} normal frames: the curves need both"
        )));
    }
    for tally in &mut tallies {
        // −0 and 0 are one score.
        tally.score += 0.0;
    }
    tallies.sort_unstable_by(|a, b| b.score.total_cmp(&a.score));
    let mut curves = Curves::new(positives, negatives);
    for tied in tallies.chunk_by(|a, b| a.score == b.score) {
        curves.pass(
            tied.iter().map(|t| t.positive).sum(),
            tied.iter().map(|t| t.negative).sum(),
        );
    }
    Ok(curves.areas())
}

/// Both curves, walked from the highest score down.
#[derive(Clone, Debug)]
pub(super) struct Curves {
    positives: u64,
    negatives: u64,
    tp: u64,
    fp: u64,
    /// Twice the pairs (anomalous, normal) in the right order, ties once: exact.
    pairs: u128,
    ap: f64,
    trapezoid: f64,
    precision_before: f64,
}

impl Curves {
    /// Before the highest score; both classes have frames.
    pub(super) fn new(positives: u64, negatives: u64) -> Curves {
        Curves {
            positives,
            negatives,
            tp: 0,
            fp: 0,
            pairs: 0,
            ap: 0.0,
            trapezoid: 0.0,
            precision_before: 1.0,
        }
    }

    /// Passes all frames of the next lower score.
    pub(super) fn pass(&mut self, hits: u64, alarms: u64) {
        if hits + alarms == 0 {
            return;
        }
        self.tp += hits;
        self.fp += alarms;
        self.pairs += pairs(hits, alarms, self.negatives - self.fp);
        let precision = self.tp as f64 / (self.tp + self.fp) as f64;
        let recall_step = hits as f64 / self.positives as f64;
        self.ap += recall_step * precision;
        self.trapezoid += recall_step * 0.5 * (precision + self.precision_before);
        self.precision_before = precision;
    }

    /// After the lowest score.
    pub(super) fn areas(&self) -> Areas {
        Areas {
            roc_auc: auc(self.pairs, self.positives, self.negatives),
            average_precision: self.ap,
            pr_auc_trapezoid: self.trapezoid,
        }
    }
}

/// Twice the pairs that `hits` anomalous frames make with the normal ones of the same score (`tied`,
/// counting half) and of lower ones (`below`).
pub(super) fn pairs(hits: u64, tied: u64, below: u64) -> u128 {
    u128::from(hits) * (2 * u128::from(below) + u128::from(tied))
}

/// Area under the ROC curve from twice the pairs in the right order.
pub(super) fn auc(pairs: u128, positives: u64, negatives: u64) -> f64 {
    pairs as f64 / (2 * u128::from(positives) * u128::from(negatives)) as f64
}
