//! Dense symmetric linear algebra on padded row-major matrices: products, Cholesky, triangular solves.
//!
//! A symmetric positive definite A is held by its upper triangle and factored in place as A = RᵀR.
//! Dimensions are multiples of [`BLOCK`]; callers put 1 on the padded diagonal and 0 elsewhere, so
//! that padding neither breaks a factorisation nor changes a solution.

use super::simd::{BLOCK, Isa, Operand, Store, Target};

/// Upper triangle (at least) of Σ_p x_p x_pᵀ over the `k` rows of `rows`, each of `n` numbers.
///
/// `n` is a multiple of [`BLOCK`]; both matrices have rows `stride` apart.
#[inline(always)]
pub(super) fn scatter<T: Isa>(c: &mut [f64], rows: &[f64], n: usize, stride: usize, k: usize) {
    let all = Operand {
        data: rows,
        stride,
        from: 0,
        to: n,
    };
    let target = Target {
        data: c,
        stride,
        store: Store::Set,
        upper: true,
    };
    T::product(target, all, all, k);
}

/// Solves Rᵀ X = B in place for one register of columns of the block rows `at..at + BLOCK`, where
/// `r` is the block of R on the diagonal.
#[inline(always)]
fn solve_strip<T: Isa>(
    r: &[[f64; BLOCK]; BLOCK],
    inverse: &[f64; BLOCK],
    b: &mut [f64],
    stride: usize,
    column: usize,
) {
    let mut x = [T::splat(0.0); BLOCK];
    for k in 0..BLOCK {
        let row = &mut b[k * stride + column..k * stride + column + T::LANES];
        let mut v = T::load(row);
        for p in 0..k {
            v = T::fnma(T::splat(r[p][k]), x[p], v);
        }
        v = T::mul(v, T::splat(inverse[k]));
        T::store(v, row);
        x[k] = v;
    }
}

/// Copies the diagonal block at `at`, with the inverses of its diagonal.
#[inline(always)]
fn diagonal_block(a: &[f64], stride: usize, at: usize) -> ([[f64; BLOCK]; BLOCK], [f64; BLOCK]) {
    let mut block = [[0.0; BLOCK]; BLOCK];
    let mut inverse = [0.0; BLOCK];
    for (k, row) in block.iter_mut().enumerate() {
        row.copy_from_slice(&a[(at + k) * stride + at..][..BLOCK]);
        inverse[k] = 1.0 / row[k];
    }
    (block, inverse)
}

/// Factors the upper triangle of `a` (`n` × `n`) in place as A = RᵀR.
///
/// Returns the smallest squared pivot, or `None` if A is not positive definite to working
/// precision (then `a` is half overwritten).
#[inline(always)]
pub(super) fn cholesky<T: Isa>(a: &mut [f64], n: usize, stride: usize) -> Option<f64> {
    let mut smallest = f64::INFINITY;
    let mut at = 0;
    while at < n {
        for k in at..at + BLOCK {
            for p in at..k {
                let (above, row) = a.split_at_mut(k * stride);
                let above = &above[p * stride..][..at + BLOCK];
                let factor = above[k];
                for j in k..at + BLOCK {
                    row[j] = T::fma1(-factor, above[j], row[j]);
                }
            }
            let row = &mut a[k * stride..][..at + BLOCK];
            let pivot = row[k];
            // Also refuses NaN.
            if !(pivot > 0.0 && pivot < f64::INFINITY) {
                return None;
            }
            smallest = smallest.min(pivot);
            let root = pivot.sqrt();
            let inverse = 1.0 / root;
            row[k] = root;
            for x in &mut row[k + 1..] {
                *x *= inverse;
            }
        }
        let rest = at + BLOCK;
        if rest < n {
            let (block, inverse) = diagonal_block(a, stride, at);
            let mut column = rest;
            while column < n {
                solve_strip::<T>(&block, &inverse, &mut a[at * stride..], stride, column);
                column += T::LANES;
            }
            let (done, trailing) = a.split_at_mut(rest * stride);
            let panel = Operand {
                data: &done[at * stride..],
                stride,
                from: rest,
                to: n,
            };
            let target = Target {
                data: &mut trailing[rest..],
                stride,
                store: Store::Subtract,
                upper: true,
            };
            T::product(target, panel, panel, BLOCK);
        }
        at = rest;
    }
    Some(smallest)
}

/// ‖R⁻ᵀ Sᵀ‖²: the squared Frobenius norm of the solution of Rᵀ M = Sᵀ for two factors R and S of
/// the same size, which is the trace of (RᵀR)⁻¹ (SᵀS). `m` (`n` rows) is overwritten.
#[inline(always)]
pub(super) fn trace_of_quotient<T: Isa>(
    r: &[f64],
    s: &[f64],
    m: &mut [f64],
    n: usize,
    stride: usize,
) -> f64 {
    let mut sum = 0.0;
    let mut at = 0;
    // M is lower triangular: row block `at` has columns up to its own block.
    while at < n {
        let end = at + BLOCK;
        for i in at..end {
            let row = &mut m[i * stride..][..end];
            for (j, x) in row.iter_mut().enumerate() {
                *x = if j <= i { s[j * stride + i] } else { 0.0 };
            }
        }
        let (above, rows) = m.split_at_mut(at * stride);
        let mut column = 0;
        while column < at {
            // Column block `column` of M starts in row `column`.
            let k = at - column;
            let a = Operand {
                data: &r[column * stride..],
                stride,
                from: at,
                to: end,
            };
            let b = Operand {
                data: &above[column * stride..],
                stride,
                from: column,
                to: column + BLOCK,
            };
            let target = Target {
                data: &mut rows[column..],
                stride,
                store: Store::Subtract,
                upper: false,
            };
            T::product(target, a, b, k);
            column += BLOCK;
        }
        let (block, inverse) = diagonal_block(r, stride, at);
        let mut column = 0;
        while column < end {
            solve_strip::<T>(&block, &inverse, rows, stride, column);
            column += T::LANES;
        }
        for i in 0..BLOCK {
            sum += norm2::<T>(&rows[i * stride..][..end]);
        }
        at = end;
    }
    sum
}

/// Solves Rᵀ y = b in place.
#[inline(always)]
pub(super) fn solve_forward<T: Isa>(r: &[f64], b: &mut [f64], n: usize, stride: usize) {
    for p in 0..n {
        let row = &r[p * stride..][..n];
        let y = b[p] / row[p];
        b[p] = y;
        for (x, &factor) in b[p + 1..n].iter_mut().zip(&row[p + 1..]) {
            *x = T::fma1(-factor, y, *x);
        }
    }
}

/// Solves R x = y in place.
#[inline(always)]
pub(super) fn solve_backward<T: Isa>(r: &[f64], y: &mut [f64], n: usize, stride: usize) {
    for i in (0..n).rev() {
        let row = &r[i * stride..][..n];
        let sum = dot::<T>(&row[i + 1..], &y[i + 1..n]);
        y[i] = (y[i] - sum) / row[i];
    }
}

/// Σ a·b, in eight interleaved partial sums.
#[inline(always)]
pub(super) fn dot<T: Isa>(a: &[f64], b: &[f64]) -> f64 {
    let mut acc = [0.0; 8];
    let (a8, a1) = a.as_chunks::<8>();
    let (b8, b1) = b.as_chunks::<8>();
    for (x, y) in a8.iter().zip(b8) {
        for l in 0..8 {
            acc[l] = T::fma1(x[l], y[l], acc[l]);
        }
    }
    let mut sum = acc.iter().sum();
    for (x, y) in a1.iter().zip(b1) {
        sum = T::fma1(*x, *y, sum);
    }
    sum
}

/// Σ a².
#[inline(always)]
pub(super) fn norm2<T: Isa>(a: &[f64]) -> f64 {
    dot::<T>(a, a)
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Isa, Task, stride, tests::on_every_isa};
    use super::*;

    fn spd(n: usize, stride: usize, seed: f64) -> Vec<f64> {
        let rows: Vec<f64> = (0..n * n)
            .map(|i| ((i as f64 + seed) * 12.9898).sin())
            .collect();
        let mut a = vec![0.0; n * stride];
        for i in 0..n {
            for j in 0..n {
                a[i * stride + j] = (0..n)
                    .map(|k| rows[i * n + k] * rows[j * n + k])
                    .sum::<f64>()
                    + if i == j { 0.5 } else { 0.0 };
            }
        }
        a
    }

    #[derive(Clone, Copy)]
    struct Factor;
    impl Task for Factor {
        type Output = ();
        #[inline(always)]
        fn run<T: Isa>(self) {
            for n in [16, 32, 64, 112] {
                let st = stride(n);
                let (a, b) = (spd(n, st, 0.1), spd(n, st, 7.3));
                let (mut r, mut s) = (a.clone(), b.clone());
                assert!(cholesky::<T>(&mut r, n, st).is_some_and(|p| p > 0.0));
                assert!(cholesky::<T>(&mut s, n, st).is_some());
                for i in 0..n {
                    for j in i..n {
                        let got: f64 = (0..=i).map(|k| r[k * st + i] * r[k * st + j]).sum();
                        assert!(
                            (got - a[i * st + j]).abs() < 1e-11 * n as f64,
                            "{n} {i} {j}"
                        );
                    }
                }
                // trace(A⁻¹B) column by column of B.
                let mut trace = 0.0;
                for j in 0..n {
                    let mut x: Vec<f64> = (0..n).map(|i| b[i * st + j]).collect();
                    solve_forward::<T>(&r, &mut x, n, st);
                    solve_backward::<T>(&r, &mut x, n, st);
                    for i in 0..n {
                        let back = dot::<T>(&a[i * st..][..n], &x);
                        assert!((back - b[i * st + j]).abs() < 1e-8);
                    }
                    trace += x[j];
                }
                let mut m = vec![f64::NAN; n * st];
                let got = trace_of_quotient::<T>(&r, &s, &mut m, n, st);
                assert!((got / trace - 1.0).abs() < 1e-10, "{n}: {got} {trace}");
            }
            let mut indefinite = spd(32, stride(32), 0.1);
            indefinite[20 * stride(32) + 20] = -1.0;
            assert_eq!(cholesky::<T>(&mut indefinite, 32, stride(32)), None);
        }
    }

    #[test]
    fn factors_reproduce_the_matrix_and_solve_on_every_instruction_set() {
        on_every_isa(Factor);
    }
}
