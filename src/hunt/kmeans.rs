//! Two-means clustering, label for label what scikit-learn's KMeans(n_clusters=2, random_state=42,
//! n_init="auto") gives.
//!
//! Its random generator enters through three uniform numbers only, which are constants here. Where
//! the order of additions can decide a tie (a sample as near to one centre as to the other) the sums
//! run in the reference's order: means sample by sample, products component by component with fused
//! multiply-adds, centres' norms in NumPy's interleaved order. One order is not followed: where both
//! candidates for the second centre leave exactly the same potential (samples of small integers, say),
//! rounding decides here and there.

use super::linalg::norm2;
use super::samples::{Layout, Scratch};
use super::simd::{Isa, padded, stride, tile};

/// What numpy's RandomState(42) draws for the first centre.
const FIRST: f64 = 0.374_540_118_847_362_5;

/// What it draws next, for the two candidates for the second centre.
const CANDIDATES: [f64; 2] = [0.950_714_306_409_916_2, 0.731_993_941_811_405_1];

/// Most iterations.
const ITERATIONS_MAX: usize = 300;

/// Movement of the centres, as a fraction of the mean variance of a feature, that ends the iteration.
const TOLERANCE: f64 = 1e-4;

/// Clusters the samples of one head into `scratch.labels` (0 or 1, in the layout's order) and
/// returns the samples that the centres started from.
#[inline(always)]
pub(super) fn kmeans<T: Isa>(layout: &Layout, scratch: &mut Scratch) -> [usize; 2] {
    let (n, d, st) = (layout.samples(), layout.dim, stride(layout.dim));
    let start = plus_plus::<T>(n, d, scratch);
    let rows = &scratch.rows;
    let tolerance = TOLERANCE
        * (0..n)
            .map(|i| norm2::<T>(&rows[i * st..][..d]))
            .sum::<f64>()
        / (n * d) as f64;
    let [centres, before, interleaved] = &mut scratch.centres;
    for (centre, &sample) in centres.chunks_exact_mut(d).zip(&start) {
        centre.copy_from_slice(&rows[sample * st..][..d]);
    }
    let (labels, labels_before) = (&mut scratch.labels, &mut scratch.labels_before);
    labels_before.fill(u8::MAX);
    for _ in 0..ITERATIONS_MAX {
        assign::<T>(&scratch.columns, n, d, centres, interleaved, labels);
        std::mem::swap(centres, before);
        move_centres(rows, n, d, before, centres, labels);
        if labels == labels_before {
            return start;
        }
        let movement: f64 = (0..2)
            .map(|c| {
                let root = distance2(&centres[c * d..][..d], &before[c * d..][..d]).sqrt();
                root * root
            })
            .sum();
        if movement <= tolerance {
            break;
        }
        labels_before.copy_from_slice(labels);
    }
    // The centres moved after the last assignment.
    assign::<T>(&scratch.columns, n, d, centres, interleaved, labels);
    start
}

/// The k-means++ start: the first sample by the first uniform number, the second the better of two
/// drawn with probability proportional to the squared distance from the first.
#[inline(always)]
fn plus_plus<T: Isa>(n: usize, d: usize, scratch: &mut Scratch) -> [usize; 2] {
    let (st, ns) = (stride(d), stride(n));
    let weight = 1.0 / n as f64;
    let total = (0..n).fold(0.0, |sum, _| sum + weight);
    let mut sum = 0.0;
    let first = (0..n)
        .find(|_| {
            sum += weight;
            sum / total > FIRST
        })
        .unwrap_or(n - 1);
    let [norms, nearest, one, two] = &mut scratch.vectors;
    let (rows, columns) = (&scratch.rows, &scratch.columns);
    for (i, norm) in norms[..n].iter_mut().enumerate() {
        *norm = norm2::<T>(&rows[i * st..][..d]);
    }
    let interleaved = &mut scratch.centres[2];
    for (k, pair) in interleaved.chunks_exact_mut(2).enumerate() {
        pair.fill(rows[first * st + k]);
    }
    squared_distances::<T>(
        columns,
        ns,
        n,
        interleaved,
        [first; 2],
        norms,
        [nearest, one],
    );
    let potential: f64 = nearest[..n].iter().sum();
    let candidates = CANDIDATES.map(|uniform| {
        let wanted = uniform * potential;
        let mut sum = 0.0;
        nearest[..n]
            .iter()
            .position(|x| {
                sum += x;
                sum >= wanted
            })
            .unwrap_or(n - 1)
    });
    for (k, pair) in interleaved.chunks_exact_mut(2).enumerate() {
        pair[0] = rows[candidates[0] * st + k];
        pair[1] = rows[candidates[1] * st + k];
    }
    squared_distances::<T>(columns, ns, n, interleaved, candidates, norms, [one, two]);
    let potential = |distances: &[f64]| -> f64 {
        distances[..n]
            .iter()
            .zip(&nearest[..n])
            .map(|(a, b)| a.min(*b))
            .sum()
    };
    let second = if potential(two) < potential(one) {
        candidates[1]
    } else {
        candidates[0]
    };
    [first, second]
}

/// Squared distances of all samples to two of them.
#[inline(always)]
fn squared_distances<T: Isa>(
    columns: &[f64],
    ns: usize,
    n: usize,
    interleaved: &[f64],
    to: [usize; 2],
    norms: &[f64],
    out: [&mut [f64]; 2],
) {
    let width = 2 * T::LANES;
    let [first, second] = out;
    for i in (0..padded(n)).step_by(width) {
        let sums = tile::<T, 2, 2>(interleaved, 2, &columns[i..], ns, interleaved.len() / 2);
        for (out, sums) in [&mut *first, &mut *second].into_iter().zip(sums) {
            for (v, sum) in sums.into_iter().enumerate() {
                T::store(sum, &mut out[i + v * T::LANES..]);
            }
        }
    }
    for (out, to) in [first, second].into_iter().zip(to) {
        for (x, norm) in out[..n].iter_mut().zip(norms) {
            *x = (-2.0 * *x + norms[to] + norm).max(0.0);
        }
    }
}

/// Labels each sample with the nearer centre, the first on a tie.
#[inline(always)]
fn assign<T: Isa>(
    columns: &[f64],
    n: usize,
    d: usize,
    centres: &[f64],
    interleaved: &mut [f64],
    labels: &mut [u8],
) {
    let ns = stride(n);
    let (first, second) = centres.split_at(d);
    for ((pair, a), b) in interleaved.chunks_exact_mut(2).zip(first).zip(second) {
        pair[0] = *a;
        pair[1] = *b;
    }
    let (norm0, norm1) = (interleaved_norm2(first), interleaved_norm2(second));
    let width = 2 * T::LANES;
    let mut products = [[0.0; 16]; 2];
    for (i, labels) in labels.chunks_mut(width).enumerate() {
        let sums = tile::<T, 2, 2>(interleaved, 2, &columns[i * width..], ns, d);
        for (products, sums) in products.iter_mut().zip(sums) {
            for (v, sum) in sums.into_iter().enumerate() {
                T::store(sum, &mut products[v * T::LANES..]);
            }
        }
        for ((label, a), b) in labels.iter_mut().zip(products[0]).zip(products[1]) {
            *label = u8::from(norm1 - 2.0 * b < norm0 - 2.0 * a);
        }
    }
}

/// Means of the clusters into `centres`. A cluster without samples takes the sample farthest from
/// its centre in `before`; if all samples lie on their centres it joins the other centre.
#[inline(always)]
fn move_centres(
    rows: &[f64],
    n: usize,
    d: usize,
    before: &[f64],
    centres: &mut [f64],
    labels: &[u8],
) {
    let st = stride(d);
    let mut members = [0_usize; 2];
    centres.fill(0.0);
    for (row, &label) in rows.chunks_exact(st).zip(labels) {
        let label = usize::from(label);
        members[label] += 1;
        for (sum, x) in centres[label * d..][..d].iter_mut().zip(row) {
            *sum += x;
        }
    }
    if let Some(empty) = members.iter().position(|&m| m == 0) {
        let full = 1 - empty;
        let mut farthest = (0, 0.0);
        for i in 0..n {
            let distance = distance2(&rows[i * st..][..d], &before[full * d..][..d]);
            if distance >= farthest.1 {
                farthest = (i, distance);
            }
        }
        if farthest.1 > 0.0 {
            for k in 0..d {
                let x = rows[farthest.0 * st + k];
                centres[full * d + k] -= x;
                centres[empty * d + k] = x;
            }
            members[empty] = 1;
            members[full] -= 1;
        }
    }
    for (centre, &m) in centres.chunks_exact_mut(d).zip(&members) {
        if m > 0 {
            let scale = 1.0 / m as f64;
            for x in centre {
                *x *= scale;
            }
        }
    }
    if let Some(empty) = members.iter().position(|&m| m == 0) {
        let (first, second) = centres.split_at_mut(d);
        if empty == 0 {
            first.copy_from_slice(second);
        } else {
            second.copy_from_slice(first);
        }
    }
}

/// Σ (a − b)², four at a time.
#[inline(always)]
fn distance2(a: &[f64], b: &[f64]) -> f64 {
    let (a4, a1) = a.as_chunks::<4>();
    let (b4, b1) = b.as_chunks::<4>();
    let mut sum = 0.0;
    for (x, y) in a4.iter().zip(b4) {
        let [p, q, r, s] = std::array::from_fn(|i| (x[i] - y[i]) * (x[i] - y[i]));
        sum += p + q + r + s;
    }
    for (x, y) in a1.iter().zip(b1) {
        sum += (x - y) * (x - y);
    }
    sum
}

/// Σ a² in the order of NumPy's einsum on two-lane registers: groups of four registers, the last of
/// a group first, into one accumulator.
#[inline(always)]
fn interleaved_norm2(a: &[f64]) -> f64 {
    let mut acc = [0.0; 2];
    let (eights, rest) = a.as_chunks::<8>();
    for x in eights {
        for pair in [6, 4, 2, 0] {
            acc[0] += x[pair] * x[pair];
            acc[1] += x[pair + 1] * x[pair + 1];
        }
    }
    for x in rest.chunks(2) {
        for (acc, x) in acc.iter_mut().zip(x) {
            *acc += x * x;
        }
    }
    acc[0] + acc[1]
}
