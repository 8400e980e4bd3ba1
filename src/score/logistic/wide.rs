//! The same fit for samples with far more features than there are samples (100,352 for all heads of an
//! 8B model, of some hundred samples).
//!
//! The optimum depends on the samples through their products K = X Xᵀ alone. So K is computed once,
//! factored as L Lᵀ, and the rows of L (as many numbers as there are samples, with the very same
//! products) are fitted instead. At the optimum w/C + Xᵀ r = 0 with r = p − y, so w = −C Xᵀ r.

use rayon::prelude::*;

use super::{FitOptions, Logistic, Problem, check};
use crate::error::Result;

/// Pivots below this part of the largest are rounding: the samples before them span the rest.
const RANK_TOLERANCE: f64 = 1e-13;

impl Logistic {
    /// As [`fit`](Logistic::fit), and with the same optimum. Takes n² numbers of memory beside the
    /// rows, and time that does not grow with the features once their products are known.
    ///
    /// Errors as [`fit`](Logistic::fit).
    pub fn fit_wide(rows: &[&[f32]], labels: &[bool], options: &FitOptions) -> Result<Logistic> {
        let dim = check(rows, labels, options)?;
        let gram = products(rows);
        let (coordinates, rank) = embed(gram, rows.len());
        let width = rank + 1;
        // The appended feature of value 1 comes last.
        let x: Vec<f64> = (0..rows.len())
            .flat_map(|i| {
                let point = &coordinates[i * rank..(i + 1) * rank];
                point.iter().copied().chain(std::iter::once(1.0))
            })
            .collect();
        let problem = Problem {
            x: &x,
            width,
            labels,
            c: options.c,
            penalize_intercept: options.penalize_intercept,
        };
        let dual = (rows.len() < width).then(|| problem.gram());
        let w = problem.solve(dual.as_deref())?;
        let residual = problem.at(&w).residual;
        let mut weights = vec![0.0; dim];
        for (row, r) in rows.iter().zip(&residual) {
            let scale = -options.c * r;
            for (w, x) in weights.iter_mut().zip(*row) {
                *w += scale * f64::from(*x);
            }
        }
        Ok(Logistic {
            weights,
            intercept: w.last().copied().unwrap_or_default(),
        })
    }
}

/// X Xᵀ `[n, n]` in f64; the upper triangle mirrors the lower one.
fn products(rows: &[&[f32]]) -> Vec<f64> {
    let n = rows.len();
    let mut gram = vec![0.0; n * n];
    gram.par_chunks_mut(n.max(1))
        .zip(rows)
        .enumerate()
        .for_each(|(i, (out, a))| {
            for (out, b) in out.iter_mut().zip(&rows[..=i]) {
                *out = dot(a, b);
            }
        });
    for i in 0..n {
        for j in 0..i {
            gram[j * n + i] = gram[i * n + j];
        }
    }
    gram
}

/// Eight sums at once, so that the additions do not wait for one another.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0.0_f64; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f64 = a8
        .remainder()
        .iter()
        .zip(b8.remainder())
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum();
    for (a, b) in a8.zip(b8) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += f64::from(*a) * f64::from(*b);
        }
    }
    tail + sums.iter().sum::<f64>()
}

/// Points `[n, rank]` whose products are `gram`, by Cholesky with the largest pivot first: samples
/// that are combinations of others add no coordinate.
fn embed(gram: Vec<f64>, n: usize) -> (Vec<f64>, usize) {
    let mut left: Vec<f64> = (0..n).map(|i| gram[i * n + i]).collect();
    let first = left.iter().copied().fold(0.0, f64::max);
    // One column of coordinates after another, each of n numbers.
    let mut columns: Vec<Vec<f64>> = Vec::new();
    while columns.len() < n {
        let (pivot, value) =
            left.iter().copied().enumerate().fold(
                (0, 0.0),
                |best, (i, v)| if v > best.1 { (i, v) } else { best },
            );
        if value <= first * RANK_TOLERANCE || value <= 0.0 {
            break;
        }
        let root = value.sqrt();
        let column: Vec<f64> = (0..n)
            .into_par_iter()
            .map(|i| {
                let done: f64 = columns.iter().map(|c| c[i] * c[pivot]).sum();
                (gram[i * n + pivot] - done) / root
            })
            .collect();
        for (left, c) in left.iter_mut().zip(&column) {
            *left -= c * c;
        }
        // What rounding leaves of a point that is used up.
        left[pivot] = 0.0;
        columns.push(column);
    }
    let rank = columns.len();
    let points = (0..n)
        .flat_map(|i| columns.iter().map(move |c| c[i]))
        .collect();
    (points, rank)
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn sample(n: usize, dim: usize, seed: u64) -> (Vec<Vec<f32>>, Vec<bool>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let labels: Vec<bool> = (0..n).map(|i| i % 3 == 0).collect();
        let rows = labels
            .iter()
            .map(|&label| {
                let shift = if label { 0.4 } else { 0.0 };
                (0..dim)
                    .map(|_| rng.random::<f32>() - 0.5 + shift)
                    .collect()
            })
            .collect();
        (rows, labels)
    }

    #[test]
    fn equals_the_plain_fit() {
        for (n, dim) in [(30, 5), (30, 29), (30, 30), (24, 200)] {
            let (mut data, labels) = sample(n, dim, 7);
            // A sample that comes twice: the products have no full rank.
            data[4] = data[1].clone();
            let rows: Vec<&[f32]> = data.iter().map(Vec::as_slice).collect();
            for penalize_intercept in [true, false] {
                let options = FitOptions {
                    c: 1.0,
                    penalize_intercept,
                };
                let plain = Logistic::fit(&rows, &labels, &options).unwrap();
                let wide = Logistic::fit_wide(&rows, &labels, &options).unwrap();
                let pairs = plain.weights.iter().zip(&wide.weights);
                let far = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(far < 1e-8, "{n} x {dim}: {far}");
                let off = (plain.intercept - wide.intercept).abs();
                assert!(off < 1e-8, "{n} x {dim}: {off}");
            }
        }
    }

    #[test]
    fn points_have_the_products_they_were_made_from() {
        let (data, _) = sample(9, 4, 3);
        let rows: Vec<&[f32]> = data.iter().map(Vec::as_slice).collect();
        let gram = products(&rows);
        let (points, rank) = embed(gram.clone(), 9);
        assert_eq!(rank, 4);
        for i in 0..9 {
            for j in 0..9 {
                let (a, b) = (&points[i * rank..][..rank], &points[j * rank..][..rank]);
                let product: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                assert!((product - gram[i * 9 + j]).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn samples_without_any_feature_still_have_an_intercept() {
        let rows: [&[f32]; 3] = [&[0.0, 0.0]; 3];
        let labels = [true, false, false];
        let options = FitOptions {
            c: 1.0,
            penalize_intercept: false,
        };
        let fitted = Logistic::fit_wide(&rows, &labels, &options).unwrap();
        assert_eq!(fitted.weights, [0.0, 0.0]);
        assert!((fitted.intercept - 0.5_f64.ln()).abs() < 1e-7);
        assert!(Logistic::fit_wide(&rows, &[true; 3], &options).is_err());
    }
}
