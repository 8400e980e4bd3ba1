//! What normal footage looks like: a Gaussian with Ledoit-Wolf covariance, and how far held-out
//! normal footage lies from it.
//!
//! There are 640 numbers and often fewer samples, so the covariance is not stored whole (205,000
//! numbers, beyond what a profile may have). Ledoit & Wolf's estimate is (1 − ρ) S + ρ m I, S having at most as
//! many directions as samples: every other direction has the one variance ρ m. The largest directions
//! are kept, and the variance of those that are left out is their mean, so that the total variance
//! stays. With up to 64 samples nothing is left out, and the distance is Ledoit & Wolf's to rounding.

use std::collections::BTreeMap;

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{eigen::eigen, kl::shrinkage, stopped};
use crate::{
    error::{Error, Result},
    limits::{
        NORMALITY_DIRECTION_NUMBERS_MAX, NORMALITY_DIRECTIONS_MAX, NORMALITY_FOLDS_MAX,
        NORMALITY_QUANTILES_MAX, NORMALITY_SAMPLES_MIN,
    },
    profile::NormalityParams,
    score::normality::Normality,
};

/// Least variance of a direction, as a part of the mean variance: keeps the distance finite where
/// the shrinkage comes out as nothing.
const VARIANCE_FLOOR: f64 = 1e-9;

/// Part of the held-out distances whose mean excess gives the tail's scale.
const TAIL_PART: f64 = 0.1;

/// Fewest distances in that part.
const TAIL_LEAST: usize = 5;

/// Fits mean and covariance to `rows` (n ≥ 2 normal samples of d numbers). Its quantiles are not
/// set: see [`with_quantiles`].
///
/// # Errors
/// `InvalidArgument`, naming the row, for rows of different lengths or not finite, for fewer than 2
/// rows, and where no sample differs from another.
pub fn fit(rows: &[&[f32]]) -> Result<NormalityParams> {
    let (n, dims) = (rows.len(), rows.first().map_or(0, |row| row.len()));
    if n < 2 || dims == 0 {
        return Err(Error::invalid(format!(
            "{n} normal samples of {dims} numbers: a covariance needs at least 2 samples"
        )));
    }
    for (i, row) in rows.iter().enumerate() {
        if row.len() != dims || row.iter().any(|v| !v.is_finite()) {
            return Err(Error::invalid(format!(
                "normal sample {i} has {} numbers, some of them perhaps not finite; sample 0 has {dims}",
                row.len()
            )));
        }
    }
    let mut mean = vec![0.0; dims];
    for row in rows {
        for (sum, v) in mean.iter_mut().zip(*row) {
            *sum += f64::from(*v);
        }
    }
    mean.iter_mut().for_each(|m| *m /= n as f64);
    let centred: Vec<f64> = rows
        .iter()
        .flat_map(|row| row.iter().zip(&mean).map(|(v, m)| f64::from(*v) - m))
        .collect();
    let norms: Vec<f64> = centred
        .chunks_exact(dims)
        .map(|row| row.iter().map(|x| x * x).sum())
        .collect();
    let mean_variance = norms.iter().sum::<f64>() / n as f64 / dims as f64;
    if !(mean_variance > 0.0 && mean_variance.is_finite()) {
        return Err(Error::invalid(
            "the normal samples do not differ from each other: use clips of different times",
        ));
    }
    // The scatter has the same eigenvalues over samples and over numbers; the smaller is taken.
    let over_samples = n <= dims;
    let side = n.min(dims);
    let gram = if over_samples {
        products(&centred, n, dims)
    } else {
        products(&transposed(&centred, n, dims), dims, n)
    };
    let frobenius2: f64 = gram.iter().map(|x| x * x).sum();
    let rho = if dims == 1 {
        0.0
    } else {
        shrinkage(&norms, frobenius2, mean_variance, dims as f64)
    };
    let (values, vectors) = eigen(gram, side)?;
    // Rounding leaves the null space with tiny eigenvalues of either sign.
    let least = values.first().copied().unwrap_or(0.0) * side as f64 * f64::EPSILON;
    let rank = values.iter().take_while(|v| **v > least).count();
    let most = NORMALITY_DIRECTIONS_MAX.min((NORMALITY_DIRECTION_NUMBERS_MAX / dims).max(1));
    let kept = rank.min(most);
    let along = |value: f64| (1.0 - rho) * value / n as f64 + rho * mean_variance;
    let variance = if kept < dims {
        // The total is that of the scatter: what is left out, spread over all other directions.
        let left_out: f64 = values[kept..].iter().map(|v| v.max(0.0)).sum();
        (1.0 - rho) * left_out / n as f64 / (dims - kept) as f64 + rho * mean_variance
    } else {
        along(values[kept - 1])
    }
    .max(VARIANCE_FLOOR * mean_variance);
    let mut directions = Vec::with_capacity(kept * dims);
    let mut excess = Vec::with_capacity(kept);
    for (value, vector) in values.iter().zip(vectors.chunks_exact(side)).take(kept) {
        excess.push((along(*value) / variance - 1.0).max(0.0));
        if over_samples {
            let mut direction = vec![0.0; dims];
            for (row, v) in centred.chunks_exact(dims).zip(vector) {
                for (sum, x) in direction.iter_mut().zip(row) {
                    *sum += v * x;
                }
            }
            let norm = direction.iter().map(|x| x * x).sum::<f64>().sqrt();
            directions.extend(direction.iter().map(|x| x / norm));
        } else {
            directions.extend_from_slice(vector);
        }
    }
    Ok(NormalityParams {
        mean,
        variance,
        excess,
        directions,
        distances: Vec::new(),
        quantiles: Vec::new(),
        tail_scale: 1.0,
    })
}

/// `[count, count]` products of all pairs of rows of `width` numbers.
fn products(rows: &[f64], count: usize, width: usize) -> Vec<f64> {
    use rayon::prelude::*;
    let mut out = vec![0.0; count * count];
    out.par_chunks_mut(count).enumerate().for_each(|(i, out)| {
        let a = &rows[i * width..(i + 1) * width];
        for (b, out) in rows.chunks_exact(width).zip(out) {
            *out = a.iter().zip(b).map(|(a, b)| a * b).sum();
        }
    });
    out
}

fn transposed(rows: &[f64], n: usize, width: usize) -> Vec<f64> {
    let mut out = vec![0.0; n * width];
    for (i, row) in rows.chunks_exact(width).enumerate() {
        for (j, x) in row.iter().enumerate() {
            out[j * n + i] = *x;
        }
    }
    out
}

/// Squared distance of each row from a fit that has not seen its video (`groups` names each row's):
/// each video is held out by itself, or, beyond 20 videos, with others, drawn from `seed`.
///
/// # Errors
/// As [`fit`]; `InvalidArgument` where all rows are of one video; `Cancelled` once `stop` says so.
pub fn held_out_distances(
    rows: &[&[f32]],
    groups: &[usize],
    seed: u64,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<f64>> {
    let mut videos: Vec<usize> = groups.to_vec();
    videos.sort_unstable();
    videos.dedup();
    if videos.len() < 2 {
        return Err(Error::invalid(format!(
            "normal samples of {} video: how far unseen normal footage lies is measured on videos that the fit has not seen, so at least 2 are needed",
            videos.len()
        )));
    }
    videos.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let folds = videos.len().min(NORMALITY_FOLDS_MAX);
    let fold_of: BTreeMap<usize, usize> = videos
        .into_iter()
        .enumerate()
        .map(|(i, video)| (video, i % folds))
        .collect();
    let mut distances = vec![0.0; rows.len()];
    for fold in 0..folds {
        if stop() {
            return Err(stopped());
        }
        let inside = |i: usize| fold_of.get(&groups[i]) == Some(&fold);
        let train: Vec<&[f32]> = (0..rows.len())
            .filter(|&i| !inside(i))
            .map(|i| rows[i])
            .collect();
        let scorer = Normality::from(&fit(&train)?);
        for i in (0..rows.len()).filter(|&i| inside(i)) {
            distances[i] = scorer.squared_distance(rows[i])?;
        }
    }
    Ok(distances)
}

/// Adds the quantiles of held-out distances of normal footage: the i-th smallest of m is the
/// i / (m + 1) quantile; of more than 256, those are kept that lie evenly in −ln(1 − p), so that the
/// tail keeps its steps. Beyond the last, 1 − p falls off exponentially with the mean excess of the
/// largest tenth.
///
/// # Errors
/// `InvalidArgument` for fewer than 20 distances, or where they do not differ.
pub fn with_quantiles(mut params: NormalityParams, held_out: &[f64]) -> Result<NormalityParams> {
    let mut sorted = held_out.to_vec();
    sorted.sort_by(f64::total_cmp);
    let m = sorted.len();
    if m < NORMALITY_SAMPLES_MIN {
        return Err(Error::invalid(format!(
            "{m} normal samples: quantiles need at least {NORMALITY_SAMPLES_MIN}; use more or longer clips"
        )));
    }
    let mut ranks: Vec<usize> = if m <= NORMALITY_QUANTILES_MAX {
        (1..=m).collect()
    } else {
        let whole = ((m + 1) as f64).ln();
        (1..=NORMALITY_QUANTILES_MAX)
            .map(|j| {
                let part = j as f64 / NORMALITY_QUANTILES_MAX as f64;
                let p = 1.0 - (-whole * part).exp();
                ((p * (m + 1) as f64).round() as usize).clamp(1, m)
            })
            .collect()
    };
    ranks.dedup();
    (params.distances, params.quantiles) = ranks
        .iter()
        // Of equal distances the last: that part of normal footage lies no farther.
        .filter(|&&rank| rank == m || sorted[rank - 1] < sorted[rank])
        .map(|&rank| (sorted[rank - 1], rank as f64 / (m + 1) as f64))
        .unzip();
    let tail = ((m as f64 * TAIL_PART) as usize).clamp(TAIL_LEAST, m - 1);
    let from = sorted[m - tail - 1];
    let mean_excess = sorted[m - tail..].iter().map(|d| d - from).sum::<f64>() / tail as f64;
    if !(mean_excess > 0.0 && mean_excess.is_finite()) {
        return Err(Error::invalid(
            "the largest distances of normal samples do not differ: use more varied clips",
        ));
    }
    params.tail_scale = mean_excess;
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(n: usize, dims: usize) -> Vec<Vec<f32>> {
        (0..n)
            .map(|i| {
                (0..dims)
                    .map(|j| {
                        let x = ((i * 97 + j * 31 + i * j) as f64 * 0.618).sin();
                        (x * (1.0 + 5.0 / (1.0 + j as f64))) as f32
                    })
                    .collect()
            })
            .collect()
    }

    #[test]
    fn what_is_left_out_keeps_the_total_variance_and_directions_are_orthonormal() {
        for (n, dims) in [(300, 100), (100, 300), (30, 12)] {
            let data = rows(n, dims);
            let data: Vec<&[f32]> = data.iter().map(Vec::as_slice).collect();
            let params = fit(&data).unwrap();
            let kept = params.excess.len();
            assert_eq!(kept, 64.min(dims), "{n} {dims}");
            let total = params.variance * (dims as f64 + params.excess.iter().sum::<f64>());
            let want: f64 = (0..dims)
                .map(|j| {
                    data.iter()
                        .map(|r| (f64::from(r[j]) - params.mean[j]).powi(2))
                        .sum::<f64>()
                        / n as f64
                })
                .sum();
            assert!(
                (total / want - 1.0).abs() < 1e-9,
                "{n} {dims}: {total} {want}"
            );
            for i in 0..kept {
                for j in 0..=i {
                    let dot: f64 = (0..dims)
                        .map(|k| params.directions[i * dims + k] * params.directions[j * dims + k])
                        .sum();
                    assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-9);
                }
            }
        }
    }

    #[test]
    fn quantiles_are_those_of_the_distances_and_fit_a_profile() {
        let params = fit(&[&[0.0, 1.0][..], &[1.0, 3.0], &[2.0, 2.0]]).unwrap();
        let few: Vec<f64> = (1..=40).map(f64::from).collect();
        let scorer = Normality::from(&with_quantiles(params.clone(), &few).unwrap());
        for d in 1..=40 {
            assert_eq!(scorer.quantile(f64::from(d)), f64::from(d) / 41.0);
        }
        // The largest four and more: 5 above 35, mean excess 3.
        assert!((1.0 - scorer.quantile(43.0) - (-1.0_f64).exp() / 41.0).abs() < 1e-12);
        let many: Vec<f64> = (0..3000)
            .map(|i| -(1.0 - f64::from(i) / 3000.0).ln())
            .collect();
        let with = with_quantiles(params.clone(), &many).unwrap();
        assert!(
            (150..=256).contains(&with.distances.len()),
            "{}",
            with.distances.len()
        );
        let scorer = Normality::from(&with);
        for i in (0..3000).step_by(7) {
            let p = scorer.quantile(many[i]);
            let want = (i + 1) as f64 / 3001.0;
            assert!((p - want).abs() < 0.03 * (1.0 - want) + 1e-9, "{p} {want}");
        }
        assert!((with.tail_scale - 1.0).abs() < 0.1);
        let ties = [
            vec![1.0; 30],
            vec![2.0; 10],
            (3..9).map(f64::from).collect(),
        ]
        .concat();
        let with = with_quantiles(params.clone(), &ties).unwrap();
        assert_eq!((with.distances[0], with.quantiles[0]), (1.0, 30.0 / 47.0));
        assert!(with_quantiles(params.clone(), &[1.0; 40]).is_err());
        assert!(
            with_quantiles(params, &few[..19])
                .unwrap_err()
                .message()
                .contains("at least 20")
        );
    }

    #[test]
    fn a_held_out_distance_is_of_a_fit_without_the_video() {
        let data = rows(12, 5);
        let data: Vec<&[f32]> = data.iter().map(Vec::as_slice).collect();
        let groups: Vec<usize> = (0..12).map(|i| i / 4).collect();
        let found = held_out_distances(&data, &groups, 0, &|| false).unwrap();
        let without: Vec<&[f32]> = data[..4].iter().chain(&data[8..]).copied().collect();
        let scorer = Normality::from(&fit(&without).unwrap());
        assert_eq!(found[5], scorer.squared_distance(data[5]).unwrap());
        assert!(held_out_distances(&data, &[7; 12], 0, &|| false).is_err());
        assert!(held_out_distances(&data, &groups, 0, &|| true).is_err());
        assert!(fit(&[&[1.0, 2.0][..]; 3]).is_err());
        assert!(fit(&[&[1.0, 2.0][..], &[f32::NAN, 0.0]]).is_err());
    }
}
