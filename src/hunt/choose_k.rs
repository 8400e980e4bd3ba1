//! Chooses K, the number of expert heads, by cross-validation.
//!
//! Folds are those of [`folds::assign`]: five of whole videos, or one per video below ten. In each
//! fold heads are ranked on the training part alone: ranked on all samples they would have seen the
//! held-out ones, and every K would look better than it is. One ranking a fold costs what a hunt
//! costs. A scorer is then fitted to the training part with the best k heads, for every k, and
//! scores the held-out part.
//!
//! The curve is average precision against k. Where every held-out part has both classes, it is the
//! mean over folds, with their standard error. Where one lacks a class (each normal video that is a
//! fold of its own does) it has no average precision: then the out-of-fold p of all folds are pooled,
//! and the standard error is the jackknife's, which leaves out one fold at a time. The smallest k within one
//! standard error of the best mean is chosen: a larger one costs layers and features for a
//! difference that the samples do not show.

use rayon::prelude::*;

use super::{HuntOptions, Samples, folds, hunt_samples, stopped};
use crate::{
    error::Result,
    eval::metrics::average_precision,
    limits::AUTO_TOP_K_MAX,
    score::logistic::{FitOptions, Logistic},
};

/// One point of the curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KPoint {
    /// Number of heads.
    pub k: usize,
    /// Held-out average precision, 0 to 1.
    pub average_precision: f64,
    /// Its standard error over folds.
    pub standard_error: f64,
}

/// A chosen K.
#[derive(Clone, Debug, PartialEq)]
pub struct KChoice {
    /// The smallest k within one standard error of the best.
    pub k: usize,
    /// k = 1, 2, … to 32 or the number of heads.
    pub curve: Vec<KPoint>,
    /// Number of folds.
    pub folds: usize,
    /// Whether the curve is of pooled probabilities, because a held-out part lacks a class.
    pub pooled: bool,
}

/// Chooses K for a hunt on these samples; `groups` names each sample's video (of all samples). Of
/// `options` only λ is read. `progress` is told folds done and in all.
///
/// # Errors
/// As [`hunt`](super::hunt()) for a fold's training part, naming the fold; as [`folds::assign`];
/// `Cancelled` once `stop` says so.
pub fn choose_k(
    samples: &Samples<'_>,
    groups: &[usize],
    options: &HuntOptions,
    fit: &FitOptions,
    seed: u64,
    stop: &(dyn Fn() -> bool + Sync),
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<KChoice> {
    let features = samples.features;
    let rows: Vec<usize> = match samples.rows {
        Some(rows) => rows.to_vec(),
        None => (0..samples.labels.len()).collect(),
    };
    let labels: Vec<bool> = rows.iter().map(|&i| samples.labels[i]).collect();
    let row_groups: Vec<usize> = rows.iter().map(|&i| groups[i]).collect();
    let fold_of = folds::assign(&labels, &row_groups, seed)?;
    let folds = fold_of.iter().max().map_or(0, |last| last + 1);
    let most = AUTO_TOP_K_MAX.min(features.layers * features.heads);
    let hunt_options = HuntOptions {
        top_k: most,
        lambda: options.lambda,
    };
    // p of each row held out, `[k - 1][row]`.
    let mut held_out = vec![vec![0.0; rows.len()]; most];
    for fold in 0..folds {
        progress(fold, folds);
        let training: Vec<usize> = (0..rows.len()).filter(|i| fold_of[*i] != fold).collect();
        let train_rows: Vec<usize> = training.iter().map(|&i| rows[i]).collect();
        let part = Samples {
            rows: Some(&train_rows),
            ..*samples
        };
        let hunted = hunt_samples(&part, &hunt_options, stop, &|_, _| ()).map_err(|e| {
            e.context(format!(
                "choosing top_k, without fold {} of {folds}",
                fold + 1
            ))
        })?;
        let z: Vec<Vec<f32>> = rows
            .iter()
            .map(|&i| {
                let mut z = Vec::with_capacity(most * features.head_dim);
                features.gather(0, i, &hunted.expert_heads, &mut z)?;
                Ok(z)
            })
            .collect::<Result<_>>()?;
        let y: Vec<bool> = training.iter().map(|&i| labels[i]).collect();
        held_out
            .par_iter_mut()
            .enumerate()
            .try_for_each(|(index, p)| {
                if stop() {
                    return Err(stopped());
                }
                let width = (index + 1) * features.head_dim;
                let x: Vec<&[f32]> = training.iter().map(|&i| &z[i][..width]).collect();
                let scorer = Logistic::fit(&x, &y, fit)?;
                for (i, p) in p.iter_mut().enumerate() {
                    if fold_of[i] == fold {
                        *p = scorer.probability(&z[i][..width])?;
                    }
                }
                Ok(())
            })?;
    }
    progress(folds, folds);
    let pooled = (0..folds).any(|fold| {
        let mut classes = (0..rows.len())
            .filter(|i| fold_of[*i] == fold)
            .map(|i| labels[i]);
        let first = classes.next();
        classes.all(|class| Some(class) == first)
    });
    let curve = held_out
        .iter()
        .enumerate()
        .map(|(index, p)| {
            let (mean, standard_error) = if pooled {
                pooled_precision(p, &labels, &fold_of, folds)?
            } else {
                mean_precision(p, &labels, &fold_of, folds)?
            };
            Ok(KPoint {
                k: index + 1,
                average_precision: mean,
                standard_error,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(KChoice {
        k: smallest_within_one_error(&curve),
        curve,
        folds,
        pooled,
    })
}

/// The one-standard-error rule; the best is the smallest k with the largest mean.
fn smallest_within_one_error(curve: &[KPoint]) -> usize {
    let best = curve
        .iter()
        .fold(None::<&KPoint>, |best, point| match best {
            Some(best) if best.average_precision >= point.average_precision => Some(best),
            _ => Some(point),
        });
    let least = best.map_or(0.0, |b| b.average_precision - b.standard_error);
    curve
        .iter()
        .find(|point| point.average_precision >= least)
        .map_or(1, |point| point.k)
}

/// Average precision of the rows that `keep` takes.
fn precision(p: &[f64], labels: &[bool], keep: impl Fn(usize) -> bool) -> Result<f64> {
    let (p, labels): (Vec<f64>, Vec<bool>) = (0..p.len())
        .filter(|&i| keep(i))
        .map(|i| (p[i], labels[i]))
        .unzip();
    average_precision(&p, &labels)
}

/// Mean over folds and its standard error.
fn mean_precision(
    p: &[f64],
    labels: &[bool],
    fold_of: &[usize],
    folds: usize,
) -> Result<(f64, f64)> {
    let each = (0..folds)
        .map(|fold| precision(p, labels, |i| fold_of[i] == fold))
        .collect::<Result<Vec<_>>>()?;
    let n = folds as f64;
    let mean = each.iter().sum::<f64>() / n;
    let squares: f64 = each.iter().map(|x| (x - mean) * (x - mean)).sum();
    Ok((mean, (squares / (n - 1.0) / n).sqrt()))
}

/// Over all folds at once, with the jackknife's standard error over folds.
fn pooled_precision(
    p: &[f64],
    labels: &[bool],
    fold_of: &[usize],
    folds: usize,
) -> Result<(f64, f64)> {
    let whole = precision(p, labels, |_| true)?;
    let without = (0..folds)
        .map(|fold| precision(p, labels, |i| fold_of[i] != fold))
        .collect::<Result<Vec<_>>>()?;
    let n = folds as f64;
    let mean = without.iter().sum::<f64>() / n;
    let squares: f64 = without.iter().map(|x| (x - mean) * (x - mean)).sum();
    Ok((whole, ((n - 1.0) / n * squares).sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hunt::Features;

    /// 12 heads of 4 numbers; head 7 alone sees the label, a little of it per number.
    fn set(videos: usize) -> (Features, Vec<bool>, Vec<usize>) {
        let [prompts, layers, heads, head_dim] = [2, 3, 4, 4];
        let samples = videos * 4;
        let labels: Vec<bool> = (0..samples).map(|i| i % 4 < 2).collect();
        let groups = (0..samples).map(|i| i / 4).collect();
        let mut data = Vec::new();
        for prompt in 0..prompts {
            for (i, label) in labels.iter().enumerate() {
                for at in 0..layers * heads * head_dim {
                    let noise = ((prompt * 7919 + i * 131 + at * 17) as f64 * 0.731).sin() as f32;
                    let shift = if *label && at / head_dim == 7 {
                        1.6
                    } else {
                        0.0
                    };
                    data.push(noise + shift);
                }
            }
        }
        let features = Features {
            prompts,
            samples,
            layers,
            heads,
            head_dim,
            data,
        };
        (features, labels, groups)
    }

    fn choose(videos: usize, labels: impl Fn(Vec<bool>) -> Vec<bool>) -> KChoice {
        let (features, plain, groups) = set(videos);
        let labels = labels(plain);
        let samples = Samples {
            features: &features,
            labels: &labels,
            names: None,
            rows: None,
        };
        let options = HuntOptions::default();
        choose_k(
            &samples,
            &groups,
            &options,
            &FitOptions::default(),
            3,
            &|| false,
            &|_, _| (),
        )
        .unwrap()
    }

    #[test]
    fn one_head_that_tells_the_classes_apart_is_enough() {
        let choice = choose(12, |labels| labels);
        assert_eq!((choice.k, choice.folds, choice.pooled), (1, 5, false));
        assert_eq!(choice.curve.len(), 12);
        assert!(
            choice.curve[0].average_precision > 0.9,
            "{:?}",
            choice.curve[0]
        );
    }

    #[test]
    fn folds_that_lack_a_class_are_pooled() {
        // Of seven videos three are wholly normal; each is a fold of its own.
        let choice = choose(7, |mut labels| {
            labels[..12].fill(false);
            labels
        });
        assert_eq!((choice.folds, choice.pooled), (7, true));
        assert!(
            choice
                .curve
                .iter()
                .all(|point| point.standard_error.is_finite())
        );
    }

    #[test]
    fn without_any_signal_held_out_precision_is_that_of_chance() {
        // Labels that no head knows: ranked on all samples the best of 12 heads would seem to.
        let choice = choose(15, |labels| {
            (0..labels.len())
                .map(|i| ((i * 2_654_435_761) >> 7) & 1 == 0)
                .collect()
        });
        let mean: f64 = choice
            .curve
            .iter()
            .map(|p| p.average_precision)
            .sum::<f64>()
            / 12.0;
        assert!((0.3..0.72).contains(&mean), "{mean}");
    }

    #[test]
    fn the_rule_takes_the_smallest_within_one_error_of_the_best() {
        let point = |k, ap, se| KPoint {
            k,
            average_precision: ap,
            standard_error: se,
        };
        let curve = [
            point(1, 0.7, 0.2),
            point(2, 0.85, 0.1),
            point(3, 0.9, 0.06),
            point(4, 0.9, 0.0),
        ];
        assert_eq!(smallest_within_one_error(&curve), 2);
        assert_eq!(smallest_within_one_error(&curve[2..]), 3);
    }

    #[test]
    fn it_stops_when_asked() {
        let (features, labels, groups) = set(10);
        let samples = Samples {
            features: &features,
            labels: &labels,
            names: None,
            rows: None,
        };
        let error = choose_k(
            &samples,
            &groups,
            &HuntOptions::default(),
            &FitOptions::default(),
            3,
            &|| true,
            &|_, _| (),
        )
        .unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Cancelled);
    }
}
