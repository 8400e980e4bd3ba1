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

    let (mut tp, mut fp) = (0_u64, 0_u64);
    // Twice the pairs (anomalous, normal) in the right order, ties once: exact.
    let mut pairs = 0_u128;
    let (mut ap, mut trapezoid) = (0.0, 0.0);
    let mut precision_before = 1.0;
    for tied in tallies.chunk_by(|a, b| a.score == b.score) {
        let hits: u64 = tied.iter().map(|t| t.positive).sum();
        let alarms: u64 = tied.iter().map(|t| t.negative).sum();
        if hits + alarms == 0 {
            continue;
        }
        tp += hits;
        fp += alarms;
        pairs += u128::from(hits) * (2 * u128::from(negatives - fp) + u128::from(alarms));
        let precision = tp as f64 / (tp + fp) as f64;
        let recall_step = hits as f64 / positives as f64;
        ap += recall_step * precision;
        trapezoid += recall_step * 0.5 * (precision + precision_before);
        precision_before = precision;
    }
    Ok(Areas {
        roc_auc: pairs as f64 / (2 * u128::from(positives) * u128::from(negatives)) as f64,
        average_precision: ap,
        pr_auc_trapezoid: trapezoid,
    })
}
