//! Eigenvalues and eigenvectors of a symmetric matrix.
//!
//! Householder reduction to tridiagonal form, then the implicit QL iteration (Golub & Van Loan, Matrix
//! Computations, §8.3), as in [`spectrum`](super::spectrum), but carrying a whole basis along.

use crate::error::{Error, Result};

/// Sweeps of the QL iteration per eigenvalue; it takes two or three, thirty is the customary bound.
const SWEEPS_MAX: usize = 60;

/// Eigenvalues of the symmetric `n` × `n` matrix `a` (row-major, overwritten), largest first, and
/// the orthonormal eigenvectors as rows in the same order, `[n, n]`.
///
/// # Errors
/// `Internal` if the iteration does not settle, which finite input does not bring about.
pub(super) fn eigen(mut a: Vec<f64>, n: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut basis = vec![0.0; n * n];
    for i in 0..n {
        basis[i * n + i] = 1.0;
    }
    let (mut diagonal, mut off) = (vec![0.0; n], vec![0.0; n]);
    tridiagonal(&mut a, n, &mut basis, &mut diagonal, &mut off);
    ql(&mut diagonal, &mut off, &mut basis, n)?;
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| diagonal[j].total_cmp(&diagonal[i]));
    let values = order.iter().map(|&i| diagonal[i]).collect();
    let vectors = order
        .iter()
        .flat_map(|&i| basis[i * n..(i + 1) * n].iter().copied())
        .collect();
    Ok((values, vectors))
}

/// Reduces `a` to `diagonal` and `off` (off[i] couples i and i + 1); row i of `basis` becomes the
/// i-th reflected coordinate of every unit vector.
fn tridiagonal(a: &mut [f64], n: usize, basis: &mut [f64], diagonal: &mut [f64], off: &mut [f64]) {
    let (mut u, mut q, mut along) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
    for k in 0..n {
        diagonal[k] = a[k * n + k];
        if k + 1 == n {
            break;
        }
        let m = n - k - 1;
        let (u, q) = (&mut u[..m], &mut q[..m]);
        u.copy_from_slice(&a[k * n + k + 1..][..m]);
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
        let rest = &mut a[(k + 1) * n..];
        for (row, q) in rest.chunks_exact(n).zip(q.iter_mut()) {
            *q = beta
                * row[k + 1..]
                    .iter()
                    .zip(&*u)
                    .map(|(x, u)| x * u)
                    .sum::<f64>();
        }
        let half = 0.5 * beta * q.iter().zip(&*u).map(|(q, u)| q * u).sum::<f64>();
        for (q, u) in q.iter_mut().zip(&*u) {
            *q -= half * u;
        }
        for (i, row) in rest.chunks_exact_mut(n).enumerate() {
            let (ui, qi) = (u[i], q[i]);
            for (x, (u, q)) in row[k + 1..].iter_mut().zip(u.iter().zip(&*q)) {
                *x -= ui * q + qi * u;
            }
        }
        along.fill(0.0);
        for (row, u) in basis[(k + 1) * n..].chunks_exact(n).zip(&*u) {
            for (sum, x) in along.iter_mut().zip(row) {
                *sum += beta * u * x;
            }
        }
        for (row, u) in basis[(k + 1) * n..].chunks_exact_mut(n).zip(&*u) {
            for (x, along) in row.iter_mut().zip(&along) {
                *x -= u * along;
            }
        }
    }
}

/// Diagonalises the tridiagonal matrix in place, rotating the rows of `basis` along.
fn ql(diagonal: &mut [f64], off: &mut [f64], basis: &mut [f64], n: usize) -> Result<()> {
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
                    "an eigenvalue of a {n} × {n} covariance did not settle in {SWEEPS_MAX} sweeps"
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
                let r = f64::hypot(f, g);
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
                let (upper, lower) = basis[i * n..(i + 2) * n].split_at_mut(n);
                for (x, y) in upper.iter_mut().zip(lower) {
                    let below = *y;
                    *y = s * *x + c * below;
                    *x = c * *x - s * below;
                }
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
    fn the_matrix_is_its_decomposition_also_where_it_is_singular() {
        for (n, rank) in [(1, 1), (2, 2), (3, 1), (17, 17), (40, 12)] {
            let rows: Vec<f64> = (0..rank * n)
                .map(|i| (((i as f64 + 1.0) * 78.233).sin() * 43_758.545_3).fract())
                .collect();
            let mut a = vec![0.0; n * n];
            for i in 0..n {
                for j in 0..n {
                    a[i * n + j] = (0..rank).map(|k| rows[k * n + i] * rows[k * n + j]).sum();
                }
            }
            let (values, vectors) = eigen(a.clone(), n).unwrap();
            assert!(values.windows(2).all(|w| w[0] >= w[1]));
            for i in 0..n {
                for j in 0..n {
                    let back: f64 = (0..n)
                        .map(|k| values[k] * vectors[k * n + i] * vectors[k * n + j])
                        .sum();
                    assert!(
                        (back - a[i * n + j]).abs() < 1e-10 * n as f64,
                        "{n} {i} {j}"
                    );
                    let dot: f64 = (0..n)
                        .map(|k| vectors[i * n + k] * vectors[j * n + k])
                        .sum();
                    assert!(
                        (dot - f64::from(u8::from(i == j))).abs() < 1e-12,
                        "{n} {i} {j}"
                    );
                }
            }
        }
    }
}
