//! The one place that knows vector registers: a register-tiled product, and the dispatch of a whole
//! computation to the widest instruction set that the processor has.
//!
//! Everything is generic over [`Isa`] and inlined into one function per instruction set, so the
//! compiler sees the features in every loop and no call crosses the boundary in a hot loop.

use std::array;

/// Every dimension is padded to a multiple of this, so that tiles never have edges.
pub(super) const BLOCK: usize = 16;

/// `n` rounded up to whole blocks.
pub(super) const fn padded(n: usize) -> usize {
    n.next_multiple_of(BLOCK)
}

/// Distance between the rows of a padded matrix, in numbers. An odd count of cache lines: a power
/// of two would map all rows to a few cache sets.
pub(super) const fn stride(columns: usize) -> usize {
    let lines = padded(columns) / 8;
    (lines + (lines + 1) % 2) * 8
}

/// One instruction set: a register of `LANES` f64 and its multiply-add.
pub(super) trait Isa: Copy {
    /// Lanes per register; divides [`BLOCK`].
    const LANES: usize;
    /// A register.
    type V: Copy;
    /// All lanes `x`.
    fn splat(x: f64) -> Self::V;
    /// The first `LANES` numbers of `from`; panics if there are fewer.
    fn load(from: &[f64]) -> Self::V;
    /// Writes to the first `LANES` numbers of `to`; panics if there are fewer.
    fn store(v: Self::V, to: &mut [f64]);
    /// `a * b + c`, fused where the hardware fuses.
    fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `c - a * b`, fused where the hardware fuses.
    fn fnma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a * b`.
    fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// `c += a * bᵀ` restricted to `upper` tiles; see [`product`].
    fn product(c: Target, a: Operand, b: Operand, k: usize);
    /// Scalar `a * b + c` with the same rounding as [`Isa::fma`].
    fn fma1(a: f64, b: f64, c: f64) -> f64;
}

/// Rows `from..to` of a matrix held "k-major": row `p` of `data` has the p-th component of each.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    /// The numbers.
    pub data: &'a [f64],
    /// Distance between components.
    pub stride: usize,
    /// First row, a multiple of [`BLOCK`].
    pub from: usize,
    /// Past the last row, a multiple of [`BLOCK`].
    pub to: usize,
}

/// What [`Isa::product`] does with the sums.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Store {
    /// Replaces.
    Set,
    /// Subtracts from what is there.
    Subtract,
}

/// Where [`Isa::product`] writes: `c[(i - a.from) * stride + (j - b.from)]`.
pub(super) struct Target<'a> {
    /// The numbers.
    pub data: &'a mut [f64],
    /// Distance between rows.
    pub stride: usize,
    /// Replace or subtract.
    pub store: Store,
    /// Skips tiles wholly below the diagonal of the operands' own numbering.
    pub upper: bool,
}

/// Sums over `k` components of the outer products of `R` rows and `V` registers of columns.
#[inline(always)]
pub(super) fn tile<T: Isa, const R: usize, const V: usize>(
    a: &[f64],
    a_stride: usize,
    b: &[f64],
    b_stride: usize,
    k: usize,
) -> [[T::V; V]; R] {
    let mut acc = [[T::splat(0.0); V]; R];
    for p in 0..k {
        let row = &a[p * a_stride..p * a_stride + R];
        let columns = &b[p * b_stride..p * b_stride + V * T::LANES];
        let mut x = [T::splat(0.0); V];
        for v in 0..V {
            x[v] = T::load(&columns[v * T::LANES..]);
        }
        for r in 0..R {
            let s = T::splat(row[r]);
            for v in 0..V {
                acc[r][v] = T::fma(s, x[v], acc[r][v]);
            }
        }
    }
    acc
}

/// `c[i][j] (=, -=) Σ_p a[p][i] · b[p][j]` over `k` components, tile by tile of `R` rows and `V`
/// registers.
#[inline(always)]
fn product<T: Isa, const R: usize, const V: usize>(c: Target, a: Operand, b: Operand, k: usize) {
    let width = V * T::LANES;
    let minus = T::splat(-1.0);
    // The panel of b (k × width) stays in the first cache level while the rows of a pass by.
    let mut j = b.from;
    while j < b.to {
        let mut i = a.from;
        while i < a.to {
            if c.upper && j + width <= i {
                break;
            }
            let sums = tile::<T, R, V>(&a.data[i..], a.stride, &b.data[j..], b.stride, k);
            for (r, row) in sums.iter().enumerate() {
                let at = (i - a.from + r) * c.stride + (j - b.from);
                let to = &mut c.data[at..at + width];
                for (v, &sum) in row.iter().enumerate() {
                    let to = &mut to[v * T::LANES..];
                    let value = match c.store {
                        Store::Set => sum,
                        Store::Subtract => T::fma(sum, minus, T::load(to)),
                    };
                    T::store(value, to);
                }
            }
            i += R;
        }
        j += width;
    }
}

/// Any processor: two lanes that the compiler maps to what there is.
#[derive(Clone, Copy)]
pub(super) struct Plain;

impl Isa for Plain {
    const LANES: usize = 2;
    type V = [f64; 2];
    #[inline(always)]
    fn splat(x: f64) -> [f64; 2] {
        [x; 2]
    }
    #[inline(always)]
    fn load(from: &[f64]) -> [f64; 2] {
        [from[0], from[1]]
    }
    #[inline(always)]
    fn store(v: [f64; 2], to: &mut [f64]) {
        to[..2].copy_from_slice(&v);
    }
    #[inline(always)]
    fn fma(a: [f64; 2], b: [f64; 2], c: [f64; 2]) -> [f64; 2] {
        array::from_fn(|i| Self::fma1(a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn fnma(a: [f64; 2], b: [f64; 2], c: [f64; 2]) -> [f64; 2] {
        array::from_fn(|i| Self::fma1(-a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn mul(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
        array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn product(c: Target, a: Operand, b: Operand, k: usize) {
        product::<Self, 4, 2>(c, a, b, k);
    }
    #[inline(always)]
    fn fma1(a: f64, b: f64, c: f64) -> f64 {
        // Without the instruction mul_add is a slow library call.
        if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
            a.mul_add(b, c)
        } else {
            a * b + c
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Isa, Operand, Target, product};

    macro_rules! isa {
        ($(#[$doc:meta])* $name:ident, $lanes:literal, $v:ident, rows $rows:literal, $set1:ident,
         $loadu:ident, $storeu:ident, $fmadd:ident, $fnmadd:ident, $mul:ident) => {
            $(#[$doc])*
            #[derive(Clone, Copy)]
            pub(in crate::hunt) struct $name;

            impl Isa for $name {
                const LANES: usize = $lanes;
                type V = $v;
                #[inline(always)]
                fn splat(x: f64) -> $v {
                    // SAFETY: this type is named only in the function that `dispatch` calls after
                    // it found the instruction set on this processor (all of this impl).
                    unsafe { $set1(x) }
                }
                #[inline(always)]
                fn load(from: &[f64]) -> $v {
                    let from = &from[..$lanes];
                    // SAFETY: as in `splat`; the slice has LANES numbers and the load is unaligned.
                    unsafe { $loadu(from.as_ptr()) }
                }
                #[inline(always)]
                fn store(v: $v, to: &mut [f64]) {
                    let to = &mut to[..$lanes];
                    // SAFETY: as in `load`.
                    unsafe { $storeu(to.as_mut_ptr(), v) }
                }
                #[inline(always)]
                fn fma(a: $v, b: $v, c: $v) -> $v {
                    // SAFETY: as in `splat`.
                    unsafe { $fmadd(a, b, c) }
                }
                #[inline(always)]
                fn fnma(a: $v, b: $v, c: $v) -> $v {
                    // SAFETY: as in `splat`.
                    unsafe { $fnmadd(a, b, c) }
                }
                #[inline(always)]
                fn mul(a: $v, b: $v) -> $v {
                    // SAFETY: as in `splat`.
                    unsafe { $mul(a, b) }
                }
                #[inline(always)]
                fn product(c: Target, a: Operand, b: Operand, k: usize) {
                    product::<Self, $rows, 2>(c, a, b, k);
                }
                #[inline(always)]
                fn fma1(a: f64, b: f64, c: f64) -> f64 {
                    a.mul_add(b, c)
                }
            }
        };
    }

    isa!(
        /// AVX2 with FMA.
        Avx2, 4, __m256d, rows 4, _mm256_set1_pd, _mm256_loadu_pd, _mm256_storeu_pd,
        _mm256_fmadd_pd, _mm256_fnmadd_pd, _mm256_mul_pd
    );
    isa!(
        /// AVX-512F.
        Avx512, 8, __m512d, rows 8, _mm512_set1_pd, _mm512_loadu_pd, _mm512_storeu_pd,
        _mm512_fmadd_pd, _mm512_fnmadd_pd, _mm512_mul_pd
    );
}

/// A computation that runs on whichever instruction set there is.
pub(super) trait Task {
    /// What it returns.
    type Output;
    /// Runs it; must be `#[inline(always)]` down to its hot loops.
    fn run<T: Isa>(self) -> Self::Output;
}

/// Runs `task` compiled for the widest instruction set of this processor.
pub(super) fn dispatch<K: Task>(task: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")]
        fn avx512<K: Task>(task: K) -> K::Output {
            task.run::<x86::Avx512>()
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2<K: Task>(task: K) -> K::Output {
            task.run::<x86::Avx2>()
        }
        let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        if fma
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
        {
            // SAFETY: the features were just found on this processor.
            return unsafe { avx512(task) };
        }
        if fma {
            // SAFETY: as above.
            return unsafe { avx2(task) };
        }
    }
    task.run::<Plain>()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Runs a check under every instruction set that this processor has.
    pub(in crate::hunt) fn on_every_isa<K: Task + Copy>(task: K) {
        task.run::<Plain>();
        dispatch(task);
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            #[target_feature(enable = "avx2,fma")]
            fn avx2<K: Task>(task: K) -> K::Output {
                task.run::<x86::Avx2>()
            }
            // SAFETY: the features were just found on this processor.
            unsafe { avx2(task) };
        }
    }

    #[derive(Clone, Copy)]
    struct Product;
    impl Task for Product {
        type Output = ();
        #[inline(always)]
        fn run<T: Isa>(self) {
            let (m, n, k) = (32, 48, 7);
            let a: Vec<f64> = (0..k * m).map(|i| (i as f64 * 0.37).sin()).collect();
            let b: Vec<f64> = (0..k * n).map(|i| (i as f64 * 0.73).cos()).collect();
            for (store, upper) in [(Store::Set, false), (Store::Subtract, true)] {
                let mut c = vec![2.0; m * n];
                let target = Target {
                    data: &mut c,
                    stride: n,
                    store,
                    upper,
                };
                let rows = |data, to| Operand {
                    data,
                    stride: to,
                    from: 0,
                    to,
                };
                T::product(target, rows(&a[..], m), rows(&b[..], n), k);
                for i in 0..m {
                    for j in 0..n {
                        let sum: f64 = (0..k).map(|p| a[p * m + i] * b[p * n + j]).sum();
                        let want = match store {
                            Store::Set => sum,
                            Store::Subtract => 2.0 - sum,
                        };
                        let got = c[i * n + j];
                        // Below the diagonal a skipped tile keeps its 2.
                        assert!(
                            (got - want).abs() < 1e-13 || (upper && j < i && got == 2.0),
                            "{i} {j}: {got} {want}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn product_is_the_sum_of_outer_products_on_every_instruction_set() {
        on_every_isa(Product);
    }

    #[test]
    fn strides_hold_the_columns_in_an_odd_number_of_cache_lines() {
        for n in 1..600 {
            assert!(stride(n) >= padded(n) && padded(n) >= n);
            assert_eq!(stride(n) / 8 % 2, 1);
        }
    }
}
