//! Spectral measure of a vector under a symmetric matrix: eigenvalues, and the vector's component
//! along each eigenvector. Enough for any quadratic form vᵀ f(A) v, without the eigenvectors.
//!
//! Householder reduction to tridiagonal form, then the implicit QL iteration, both carrying only
//! the vector along (Golub & Van Loan, Matrix Computations, §8.3).

use crate::error::{Error, Result};

/// Sweeps of the QL iteration per eigenvalue; it takes two or three, thirty is the customary bound.
const SWEEPS_MAX: usize = 60;

/// Eigenvalues of the symmetric `n` × `n` matrix whose upper triangle is in `a` (rows `stride`
/// apart, overwritten) into `values`, unordered; `v` becomes its own coordinates in the same order.
///
/// # Errors
/// `Internal` if the iteration does not settle, which finite input does not bring about.
pub(super) fn spectrum(
    a: &mut [f64],
    n: usize,
    stride: usize,
    v: &mut [f64],
    values: &mut [f64],
) -> Result<()> {
    for i in 0..n {
        for j in 0..i {
            a[i * stride + j] = a[j * stride + i];
        }
    }
    let mut off = vec![0.0; n];
    tridiagonal(a, n, stride, v, values, &mut off);
    ql(values, &mut off, v)
}

/// Reduces the full symmetric `a` to `diagonal` and `off` (off[i] couples i and i + 1).
fn tridiagonal(
    a: &mut [f64],
    n: usize,
    stride: usize,
    v: &mut [f64],
    diagonal: &mut [f64],
    off: &mut [f64],
) {
    let mut u = vec![0.0; n];
    let mut q = vec![0.0; n];
    for k in 0..n {
        diagonal[k] = a[k * stride + k];
        if k + 1 == n {
            off[k] = 0.0;
            break;
        }
        let m = n - k - 1;
        let u = &mut u[..m];
        let q = &mut q[..m];
        u.copy_from_slice(&a[k * stride + k + 1..][..m]);
        let tail: f64 = u[1..].iter().map(|x| x * x).sum();
        if tail == 0.0 {
            off[k] = u[0];
            continue;
        }
        // The reflection I − β u uᵀ maps the row onto its first coordinate.
        let norm = (u[0] * u[0] + tail).sqrt();
        let target = if u[0] > 0.0 { -norm } else { norm };
        u[0] -= target;
        off[k] = target;
        let beta = 2.0 / (u[0] * u[0] + tail);
        let rest = &mut a[(k + 1) * stride..];
        for (i, q) in q.iter_mut().enumerate() {
            let row = &rest[i * stride + k + 1..][..m];
            *q = beta * row.iter().zip(&*u).map(|(x, u)| x * u).sum::<f64>();
        }
        let half = 0.5 * beta * q.iter().zip(&*u).map(|(q, u)| q * u).sum::<f64>();
        for (q, u) in q.iter_mut().zip(&*u) {
            *q -= half * u;
        }
        for i in 0..m {
            let (ui, qi) = (u[i], q[i]);
            let row = &mut rest[i * stride + k + 1..][..m];
            for (x, (u, q)) in row.iter_mut().zip(u.iter().zip(&*q)) {
                *x -= ui * q + qi * u;
            }
        }
        let v = &mut v[k + 1..n];
        let along = beta * v.iter().zip(&*u).map(|(v, u)| v * u).sum::<f64>();
        for (v, u) in v.iter_mut().zip(&*u) {
            *v -= along * u;
        }
    }
}

/// Diagonalises the tridiagonal matrix in place, rotating `v` along.
fn ql(diagonal: &mut [f64], off: &mut [f64], v: &mut [f64]) -> Result<()> {
    let n = diagonal.len();
    for low in 0..n {
        let mut sweeps = 0;
        loop {
            // The first place from `low` on where the matrix splits.
            let high = (low..n - 1)
                .find(|&i| {
                    off[i].abs() <= f64::EPSILON * (diagonal[i].abs() + diagonal[i + 1].abs())
                })
                .unwrap_or(n - 1);
            if high == low {
                break;
            }
            sweeps += 1;
            if sweeps > SWEEPS_MAX {
                return Err(Error::internal(format!(
                    "an eigenvalue of a {n} × {n} scatter matrix did not settle in {SWEEPS_MAX} sweeps"
                )));
            }
            // Wilkinson's shift from the leading 2 × 2 block.
            let half = (diagonal[low + 1] - diagonal[low]) / (2.0 * off[low]);
            let root = half.hypot(1.0).copysign(half);
            let mut g = diagonal[high] - diagonal[low] + off[low] / (half + root);
            let (mut s, mut c, mut p) = (1.0, 1.0, 0.0);
            let mut split = false;
            for i in (low..high).rev() {
                let f = s * off[i];
                let b = c * off[i];
                let r = f.hypot(g);
                off[i + 1] = r;
                if r == 0.0 {
                    diagonal[i + 1] -= p;
                    off[high] = 0.0;
                    split = true;
                    break;
                }
                s = f / r;
                c = g / r;
                g = diagonal[i + 1] - p;
                let t = (diagonal[i] - g) * s + 2.0 * c * b;
                p = s * t;
                diagonal[i + 1] = g + p;
                g = c * t - b;
                let upper = v[i + 1];
                v[i + 1] = s * v[i] + c * upper;
                v[i] = c * v[i] - s * upper;
            }
            if split {
                continue;
            }
            diagonal[low] -= p;
            off[low] = g;
            off[high] = 0.0;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_the_measure_are_those_of_the_matrix() {
        for n in [1_usize, 2, 3, 17, 60] {
            let rank = n.div_ceil(2);
            let rows: Vec<f64> = (0..rank * n)
                .map(|i| {
                    (((i as f64 + 1.0) * 78.233).sin() * 43_758.545_3).fract()
                        * if i % 7 == 0 { 100.0 } else { 1.0 }
                })
                .collect();
            let mut a = vec![0.0; n * n];
            for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
                a[i * n + j] = (0..rank).map(|k| rows[k * n + i] * rows[k * n + j]).sum();
            }
            let start: Vec<f64> = (0..n).map(|i| (i as f64 * 1.7).cos()).collect();
            let mut want = Vec::new();
            let mut x = start.clone();
            for _ in 0..4 {
                want.push(x.iter().zip(&start).map(|(a, b)| a * b).sum::<f64>());
                x = (0..n)
                    .map(|i| (0..n).map(|j| a[i * n + j] * x[j]).sum())
                    .collect();
            }
            let trace: f64 = (0..n).map(|i| a[i * n + i]).sum();
            let (mut v, mut values) = (start, vec![0.0; n]);
            spectrum(&mut a, n, n, &mut v, &mut values).unwrap();
            assert!((values.iter().sum::<f64>() / trace - 1.0).abs() < 1e-12);
            for (power, want) in want.iter().enumerate() {
                let got: f64 = values
                    .iter()
                    .zip(&v)
                    .map(|(m, c)| m.powi(power as i32) * c * c)
                    .sum();
                assert!(
                    (got / want - 1.0).abs() < 1e-10,
                    "{n} {power}: {got} {want}"
                );
            }
            let null = values.iter().filter(|m| m.abs() < 1e-9 * trace).count();
            assert_eq!(null, n - rank, "{n}");
        }
    }
}
