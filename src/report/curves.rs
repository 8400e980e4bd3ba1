//! Curves of held-out scores: ROC, precision and recall, histograms, reliability.

use serde::Serialize;

use crate::{
    error::Result,
    eval::metrics::{average_precision, roc_auc},
};

/// Bins of a histogram over 0 to 1.
const HISTOGRAM_BINS: usize = 20;

/// Bins of a reliability plot.
const RELIABILITY_BINS: usize = 10;

/// Points of a drawn curve; a longer one is thinned evenly.
const CURVE_POINTS: usize = 400;

/// Scores of samples that the fit had not seen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeldOut {
    /// How they were held out, e.g. `out of fold`.
    pub how: String,
    /// Number of samples.
    pub samples: usize,
    /// Anomalous ones among them.
    pub anomalous: usize,
    /// Area under the ROC curve; none with one class only.
    pub roc_auc: Option<f64>,
    /// Average precision; none with one class only.
    pub average_precision: Option<f64>,
    /// (false-positive rate, true-positive rate), ascending.
    pub roc: Vec<(f64, f64)>,
    /// (recall, precision), recall ascending.
    pub precision_recall: Vec<(f64, f64)>,
    /// Normal samples by p, 20 bins over 0 to 1.
    pub histogram_normal: Vec<usize>,
    /// Anomalous samples by p, 20 bins over 0 to 1.
    pub histogram_anomalous: Vec<usize>,
    /// Where p has samples, ten bins over 0 to 1.
    pub reliability: Vec<Reliability>,
}

/// One bin of a reliability plot.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Reliability {
    /// Mean p of the bin's samples.
    pub mean: f64,
    /// Part of them that is anomalous.
    pub anomalous: f64,
    /// How many they are.
    pub samples: usize,
}

impl HeldOut {
    /// From p (0 to 1) and label of each sample.
    ///
    /// # Errors
    /// `InvalidArgument` where the counts differ or a p is NaN.
    pub fn new(how: impl Into<String>, p: &[f64], labels: &[bool]) -> Result<HeldOut> {
        let anomalous = labels.iter().filter(|l| **l).count();
        let both = anomalous > 0 && anomalous < labels.len();
        let (roc, precision_recall) = if both {
            curves(p, labels)
        } else {
            Default::default()
        };
        let area = |f: fn(&[f64], &[bool]) -> Result<f64>| both.then(|| f(p, labels)).transpose();
        Ok(HeldOut {
            how: how.into(),
            samples: labels.len(),
            anomalous,
            roc_auc: area(roc_auc)?,
            average_precision: area(average_precision)?,
            roc,
            precision_recall,
            histogram_normal: histogram(p, labels, false),
            histogram_anomalous: histogram(p, labels, true),
            reliability: if both {
                reliability(p, labels)
            } else {
                Vec::new()
            },
        })
    }
}

type Points = Vec<(f64, f64)>;

/// ROC and precision-recall points at every distinct score, from the highest down.
fn curves(p: &[f64], labels: &[bool]) -> (Points, Points) {
    let mut order: Vec<usize> = (0..p.len().min(labels.len())).collect();
    order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
    let positives = labels.iter().filter(|l| **l).count() as f64;
    let negatives = labels.len() as f64 - positives;
    let (mut roc, mut pr) = (vec![(0.0, 0.0)], Vec::new());
    let (mut hits, mut alarms) = (0.0, 0.0);
    for tied in order.chunk_by(|&a, &b| p[a] == p[b]) {
        for &i in tied {
            if labels[i] {
                hits += 1.0;
            } else {
                alarms += 1.0;
            }
        }
        roc.push((alarms / negatives, hits / positives));
        pr.push((hits / positives, hits / (hits + alarms)));
    }
    (thinned(roc), thinned(pr))
}

/// At most [`CURVE_POINTS`] of the points, first and last among them.
fn thinned(points: Points) -> Points {
    let n = points.len();
    if n <= CURVE_POINTS {
        return points;
    }
    (0..CURVE_POINTS)
        .map(|i| points[i * (n - 1) / (CURVE_POINTS - 1)])
        .collect()
}

fn bin(p: f64, bins: usize) -> usize {
    // A float to integer cast saturates, and NaN becomes 0.
    ((p * bins as f64) as usize).min(bins - 1)
}

fn histogram(p: &[f64], labels: &[bool], class: bool) -> Vec<usize> {
    let mut counts = vec![0; HISTOGRAM_BINS];
    for (&p, _) in p.iter().zip(labels).filter(|(_, label)| **label == class) {
        counts[bin(p, HISTOGRAM_BINS)] += 1;
    }
    counts
}

fn reliability(p: &[f64], labels: &[bool]) -> Vec<Reliability> {
    let mut bins = vec![(0.0, 0_usize, 0_usize); RELIABILITY_BINS];
    for (&p, &label) in p.iter().zip(labels) {
        let bin = &mut bins[bin(p, RELIABILITY_BINS)];
        bin.0 += p;
        bin.1 += usize::from(label);
        bin.2 += 1;
    }
    bins.into_iter()
        .filter(|(_, _, n)| *n > 0)
        .map(|(sum, anomalous, n)| Reliability {
            mean: sum / n as f64,
            anomalous: anomalous as f64 / n as f64,
            samples: n,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_pass_ties_together_and_enclose_the_areas() {
        let p = [0.9, 0.8, 0.8, 0.3, 0.3, 0.1];
        let labels = [true, true, false, false, true, false];
        let held = HeldOut::new("out of fold", &p, &labels).unwrap();
        let third = 1.0 / 3.0;
        assert_eq!(
            held.roc,
            [
                (0.0, 0.0),
                (0.0, third),
                (third, 2.0 / 3.0),
                (2.0 / 3.0, 1.0),
                (1.0, 1.0)
            ]
        );
        let area: f64 = held
            .roc
            .windows(2)
            .map(|w| (w[1].0 - w[0].0) * 0.5 * (w[0].1 + w[1].1))
            .sum();
        assert!((area - held.roc_auc.unwrap()).abs() < 1e-12);
        let mut before = 0.0;
        let ap: f64 = held
            .precision_recall
            .iter()
            .map(|(recall, precision)| {
                let step = recall - before;
                before = *recall;
                step * precision
            })
            .sum();
        assert!((ap - held.average_precision.unwrap()).abs() < 1e-12);
        assert_eq!(held.histogram_anomalous.iter().sum::<usize>(), 3);
        assert_eq!(held.histogram_anomalous[18], 1);
        assert_eq!(held.histogram_normal[16], 1);
        let last = held.reliability.last().unwrap();
        assert_eq!((last.anomalous, last.samples), (1.0, 1));
    }

    #[test]
    fn one_class_has_no_curves_and_long_curves_keep_their_ends() {
        let held = HeldOut::new("normal footage", &[0.2, 1.0], &[false, false]).unwrap();
        assert_eq!(
            (held.roc_auc, held.roc.len(), held.reliability.len()),
            (None, 0, 0)
        );
        assert_eq!(held.histogram_normal[19], 1);
        let p: Vec<f64> = (0..5000).map(|i| f64::from(i) / 5000.0).collect();
        let labels: Vec<bool> = (0..5000).map(|i| i % 3 == 0).collect();
        let held = HeldOut::new("", &p, &labels).unwrap();
        assert_eq!(held.roc.len(), CURVE_POINTS);
        assert_eq!(
            (held.roc[0], held.roc[CURVE_POINTS - 1]),
            ((0.0, 0.0), (1.0, 1.0))
        );
    }
}
