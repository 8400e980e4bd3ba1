//! MMD²: the biased V-statistic under a Gaussian kernel whose width is the median distance.

use super::samples::{Layout, Scratch};
use super::simd::{BLOCK, Isa, Operand, Store, Target, padded, stride};

/// A squared distance below this fraction of the two squared norms has lost too many digits to
/// cancellation in ‖x‖² + ‖y‖² − 2xy and is summed from the differences.
const CANCELLED: f64 = 1e-6;

/// Bins of the counting pass of the median; the counters fill a third of the first cache level.
const BINS: usize = 4096;

/// Measures one head, ≥ 0. Leaves the squared distances of all pairs in `scratch.distances`.
#[inline(always)]
pub(super) fn mmd<T: Isa>(layout: &Layout, scratch: &mut Scratch) -> f64 {
    distances::<T>(layout, scratch);
    let (a, b) = (layout.anomalous, layout.samples() - layout.anomalous);
    let gamma = match median_of_positive(&scratch.distances, &mut scratch.gathered) {
        Some(median) => 1.0 / (2.0 * median),
        None => 1.0,
    };
    let (within_a, rest) = scratch.distances.split_at(a * (a - 1) / 2);
    let (between, within_b) = rest.split_at(a * b);
    let (a, b) = (a as f64, b as f64);
    // Each sample's kernel with itself is 1, each pair counts twice.
    let kernel_a = (a + 2.0 * kernel_sum::<T>(within_a, gamma)) / (a * a);
    let kernel_b = (b + 2.0 * kernel_sum::<T>(within_b, gamma)) / (b * b);
    let kernel_ab = kernel_sum::<T>(between, gamma) / (a * b);
    (kernel_a + kernel_b - 2.0 * kernel_ab).max(0.0)
}

/// Squared distances of all pairs: anomalous pairs, then mixed, then normal ones.
#[inline(always)]
fn distances<T: Isa>(layout: &Layout, scratch: &mut Scratch) {
    let (n, d) = (layout.samples(), layout.dim);
    let ns = stride(n);
    let columns = &scratch.columns;
    let [norms, ..] = &mut scratch.vectors;
    // In the order of the products below, so that equal samples cancel to exactly 0.
    let norms = &mut norms[..n];
    norms.fill(0.0);
    for j in 0..d {
        for (sum, &x) in norms.iter_mut().zip(&columns[j * ns..][..n]) {
            *sum = T::fma1(x, x, *sum);
        }
    }
    let (mut anomalous, rest) = scratch
        .distances
        .split_at_mut(layout.anomalous * (layout.anomalous - 1) / 2);
    let (mut mixed, mut normal) = rest.split_at_mut(layout.anomalous * (n - layout.anomalous));
    let strip = &mut scratch.strip[..BLOCK * ns];
    for i0 in (0..n).step_by(BLOCK) {
        let rows = Operand {
            data: columns,
            stride: ns,
            from: i0,
            to: i0 + BLOCK,
        };
        let others = Operand {
            to: padded(n),
            ..rows
        };
        let target = Target {
            data: strip,
            stride: ns,
            store: Store::Set,
            upper: true,
        };
        T::product(target, rows, others, d);
        for i in i0..n.min(i0 + BLOCK) {
            let row = Row {
                i,
                i0,
                products: &strip[(i - i0) * ns..][..n - i0],
                norms,
                rows: &scratch.rows,
                dim: d,
            };
            if i < layout.anomalous {
                let (out, rest) = anomalous.split_at_mut(layout.anomalous - i - 1);
                row.distances(i + 1, out);
                anomalous = rest;
                let (out, rest) = mixed.split_at_mut(n - layout.anomalous);
                row.distances(layout.anomalous, out);
                mixed = rest;
            } else {
                let (out, rest) = normal.split_at_mut(n - i - 1);
                row.distances(i + 1, out);
                normal = rest;
            }
        }
    }
}

/// What the distances of one sample to later ones are made of.
struct Row<'a> {
    i: usize,
    /// The sample that `products` starts with.
    i0: usize,
    products: &'a [f64],
    norms: &'a [f64],
    /// Centred samples, `[samples][stride(dim)]`.
    rows: &'a [f64],
    dim: usize,
}

impl Row<'_> {
    /// Squared distances of sample `i` to samples `from` and on.
    #[inline(always)]
    fn distances(&self, from: usize, out: &mut [f64]) {
        let to = from + out.len();
        let products = &self.products[from - self.i0..to - self.i0];
        let own = self.norms[self.i];
        let mut cancelled = false;
        for ((out, product), norm) in out.iter_mut().zip(products).zip(&self.norms[from..to]) {
            let scale = own + norm;
            *out = scale - 2.0 * product;
            cancelled |= *out < CANCELLED * scale;
        }
        if cancelled {
            let st = stride(self.dim);
            let x = &self.rows[self.i * st..][..self.dim];
            for (j, out) in (from..to).zip(out) {
                if *out < CANCELLED * (own + self.norms[j]) {
                    let y = &self.rows[j * st..][..self.dim];
                    *out = x.iter().zip(y).map(|(x, y)| (x - y) * (x - y)).sum();
                }
            }
        }
    }
}

/// Median of the positive numbers among non-negative finite `values`; `None` if there are none.
///
/// One counting pass over the binary representations, whose order is that of positive numbers,
/// leaves the few numbers around the middle to be sorted.
#[inline(always)]
fn median_of_positive(values: &[f64], gathered: &mut Vec<f64>) -> Option<f64> {
    let (mut count, mut least, mut most) = (0_usize, u64::MAX, 0_u64);
    for v in values {
        let positive = *v > 0.0;
        count += usize::from(positive);
        least = least.min(if positive { v.to_bits() } else { u64::MAX });
        most = most.max(v.to_bits());
    }
    if count == 0 {
        return None;
    }
    let shift = (u64::BITS - (most - least).leading_zeros()).saturating_sub(BINS.ilog2());
    let bin = |v: f64| ((v.to_bits() - least) >> shift) as usize;
    let mut counts = [0_u32; BINS];
    for &v in values {
        if v > 0.0 {
            counts[bin(v) % BINS] += 1;
        }
    }
    let (lower, upper) = ((count - 1) / 2, count / 2);
    let (mut before, mut first, mut last) = (0, 0, BINS - 1);
    let mut seen = 0;
    for (i, &c) in counts.iter().enumerate() {
        let next = seen + c as usize;
        if seen <= lower && lower < next {
            (before, first) = (seen, i);
        }
        if upper < next {
            last = i;
            break;
        }
        seen = next;
    }
    gathered.clear();
    gathered.extend(
        values
            .iter()
            .filter(|&&v| v > 0.0 && (first..=last).contains(&bin(v))),
    );
    gathered.sort_unstable_by(f64::total_cmp);
    let at = |rank: usize| gathered.get(rank - before).copied();
    Some((at(lower)? + at(upper)?) / 2.0)
}

/// Σ exp(−γ x).
#[inline(always)]
fn kernel_sum<T: Isa>(distances: &[f64], gamma: f64) -> f64 {
    let mut acc = [0.0; 8];
    let (eights, rest) = distances.as_chunks::<8>();
    for x in eights {
        for l in 0..8 {
            acc[l] += exp::<T>(-gamma * x[l]);
        }
    }
    for (l, x) in rest.iter().enumerate() {
        acc[l] += exp::<T>(-gamma * x);
    }
    acc.iter().sum()
}

/// eˣ for x ≤ 0 within 2 units in the last place, without branches so that the compiler can do eight
/// at once. Below −708, where the result leaves the normal numbers, it stays at e⁻⁷⁰⁸ ≈ 0.
#[inline(always)]
fn exp<T: Isa>(x: f64) -> f64 {
    // Adding 1.5 · 2⁵² rounds to an integer and leaves it in the low bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    // ln 2 in two parts, the first short enough for exact products with the exponent.
    const LN2_HIGH: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
    const LN2_LOW: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);
    // 1/13!, 1/12!, …, 1/2!, 1, 1.
    const FACTORIALS: [f64; 14] = [
        1.0 / 6_227_020_800.0,
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    let x = x.max(-708.0);
    let shifted = T::fma1(x, std::f64::consts::LOG2_E, ROUND);
    let power = shifted - ROUND;
    let r = T::fma1(-power, LN2_LOW, T::fma1(-power, LN2_HIGH, x));
    let mut sum = FACTORIALS[0];
    for c in &FACTORIALS[1..] {
        sum = T::fma1(sum, r, *c);
    }
    let exponent = shifted.to_bits().wrapping_add(1023) << 52;
    sum * f64::from_bits(exponent)
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Task, tests::on_every_isa};
    use super::*;

    #[derive(Clone, Copy)]
    struct Exp;
    impl Task for Exp {
        type Output = ();
        #[inline(always)]
        fn run<T: Isa>(self) {
            for i in 0..200_000 {
                let x = -f64::from(i) * 0.0035;
                let (got, want) = (exp::<T>(x), x.exp());
                assert!((got / want - 1.0).abs() < 5e-16, "{x}: {got} {want}");
            }
            assert_eq!(exp::<T>(0.0), 1.0);
            assert!(exp::<T>(f64::MIN) < 1e-300);
        }
    }

    #[test]
    fn exp_is_the_library_s_within_two_units_in_the_last_place() {
        on_every_isa(Exp);
    }

    #[test]
    fn median_is_that_of_the_sorted_positive_numbers() {
        let mut gathered = Vec::new();
        assert_eq!(median_of_positive(&[], &mut gathered), None);
        assert_eq!(median_of_positive(&[0.0, 0.0], &mut gathered), None);
        assert_eq!(median_of_positive(&[0.0, 3.0], &mut gathered), Some(3.0));
        for n in 1..300_usize {
            for scale in [1e-3, 1.0, 40.0] {
                let values: Vec<f64> = (0..n)
                    .map(|i| {
                        let x = (i as f64 * 12.9898).sin();
                        // Zeros, repeated numbers and a heavy tail.
                        match i % 9 {
                            0 => 0.0,
                            1 => 1.0,
                            _ => (x * scale).exp(),
                        }
                    })
                    .collect();
                let mut sorted: Vec<f64> = values.iter().copied().filter(|&v| v > 0.0).collect();
                sorted.sort_by(f64::total_cmp);
                let m = sorted.len();
                let want = (m > 0).then(|| (sorted[(m - 1) / 2] + sorted[m / 2]) / 2.0);
                assert_eq!(
                    median_of_positive(&values, &mut gathered),
                    want,
                    "{n} {scale}"
                );
            }
        }
    }
}
