//! The samples of one head in f64, in the arrangements that the metrics read, and the scratch memory
//! that every head of a hunt reuses.

use super::linalg::norm2;
use super::simd::{BLOCK, Isa, padded, stride};

/// Where the labelled samples of every head lie: anomalous ones first, then normal ones, each in
/// their order in the features (the reference's order, which k-means' start depends on).
#[derive(Debug)]
pub(super) struct Layout {
    /// Sample numbers in that order.
    pub order: Vec<usize>,
    /// How many of them are anomalous.
    pub anomalous: usize,
    /// Numbers per sample.
    pub dim: usize,
}

impl Layout {
    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.order.len()
    }

    /// Whether the within-class scatter cannot have full rank, so that LDA is cheaper and more exact
    /// in the space of the samples.
    pub fn wide(&self) -> bool {
        self.dim + 1 >= self.samples()
    }
}

/// Memory of one worker, filled anew for each head.
pub(super) struct Scratch {
    /// Rows minus the mean of all samples, `[samples][stride(dim)]`.
    pub rows: Vec<f64>,
    /// The same transposed, `[dim][stride(samples)]`.
    pub columns: Vec<f64>,
    /// Rows minus the mean of their class, `[samples][stride(dim)]`.
    pub within: Vec<f64>,
    /// Squared norms of `within`'s rows.
    pub within_norms: Vec<f64>,
    /// Mean of the anomalous minus mean of the normal samples, padded.
    pub delta: Vec<f64>,
    /// Square matrices over features or samples, whichever is larger, rows `stride` apart.
    pub matrices: [Vec<f64>; 3],
    /// Vectors of the same length.
    pub vectors: [Vec<f64>; 4],
    /// Squared distances of all pairs of samples: anomalous, mixed, normal pairs.
    pub distances: Vec<f64>,
    /// A few of them, for the median.
    pub gathered: Vec<f64>,
    /// Products of one block of samples with all others.
    pub strip: Vec<f64>,
    /// `within` transposed, only where the layout is wide.
    pub within_columns: Vec<f64>,
    /// Two cluster centres, now and before, `[2][dim]` each, and interleaved `[dim][2]`.
    pub centres: [Vec<f64>; 3],
    /// Cluster of each sample.
    pub labels: Vec<u8>,
    /// Cluster of each sample one step before.
    pub labels_before: Vec<u8>,
}

impl Scratch {
    /// Memory for heads of this layout.
    pub fn new(layout: &Layout) -> Scratch {
        let (n, d) = (layout.samples(), layout.dim);
        let by_feature = padded(d) * stride(d);
        let by_sample = if layout.wide() {
            padded(n) * stride(n)
        } else {
            0
        };
        let longest = stride(d).max(stride(n));
        Scratch {
            rows: vec![0.0; n * stride(d)],
            columns: vec![0.0; d * stride(n)],
            within: vec![0.0; n * stride(d)],
            within_norms: vec![0.0; n],
            delta: vec![0.0; stride(d)],
            matrices: [
                vec![0.0; by_feature],
                vec![0.0; by_feature],
                vec![0.0; by_feature.max(by_sample)],
            ],
            vectors: std::array::from_fn(|_| vec![0.0; longest]),
            distances: vec![0.0; n * (n - 1) / 2],
            strip: vec![0.0; BLOCK * stride(n)],
            gathered: Vec::new(),
            within_columns: vec![0.0; if layout.wide() { d * stride(n) } else { 0 }],
            centres: std::array::from_fn(|_| vec![0.0; 2 * d]),
            labels: vec![0; n],
            labels_before: vec![0; n],
        }
    }

    /// Reads one head: `data[order[i] * step..][..dim]` is its sample i. Means are summed sample by
    /// sample, as NumPy does along the first axis.
    #[inline(always)]
    pub fn fill<T: Isa>(&mut self, layout: &Layout, data: &[f32], step: usize) {
        let (n, d, ds) = (layout.samples(), layout.dim, stride(layout.dim));
        let [total, anomalous, normal, _] = &mut self.vectors;
        let (total, anomalous, normal) = (&mut total[..d], &mut anomalous[..d], &mut normal[..d]);
        total.fill(0.0);
        normal.fill(0.0);
        for (i, &sample) in layout.order.iter().enumerate() {
            if i == layout.anomalous {
                anomalous.copy_from_slice(total);
            }
            let from = &data[sample * step..][..d];
            let row = &mut self.rows[i * ds..][..d];
            for ((x, sum), &f) in row.iter_mut().zip(&mut *total).zip(from) {
                *x = f64::from(f);
                *sum += *x;
            }
            if i >= layout.anomalous {
                for (sum, x) in normal.iter_mut().zip(&*row) {
                    *sum += x;
                }
            }
        }
        let (na, nn) = (layout.anomalous as f64, (n - layout.anomalous) as f64);
        for j in 0..d {
            total[j] /= n as f64;
            anomalous[j] /= na;
            normal[j] /= nn;
            self.delta[j] = anomalous[j] - normal[j];
        }
        for i in 0..n {
            let class = if i < layout.anomalous {
                &*anomalous
            } else {
                &*normal
            };
            let row = &mut self.rows[i * ds..][..d];
            let within = &mut self.within[i * ds..][..d];
            for j in 0..d {
                within[j] = row[j] - class[j];
                row[j] -= total[j];
            }
            self.within_norms[i] = norm2::<T>(within);
        }
        transpose(&self.rows, n, d, &mut self.columns);
        if layout.wide() {
            transpose(&self.within, n, d, &mut self.within_columns);
        }
    }
}

/// `[n][stride(d)]` to `[d][stride(n)]`, in squares that fit the first cache level.
#[inline(always)]
fn transpose(rows: &[f64], n: usize, d: usize, columns: &mut [f64]) {
    const SIDE: usize = 8;
    let (ds, ns) = (stride(d), stride(n));
    for i0 in (0..n).step_by(SIDE) {
        let height = SIDE.min(n - i0);
        for j0 in (0..d).step_by(SIDE) {
            let width = SIDE.min(d - j0);
            for j in 0..width {
                let to = &mut columns[(j0 + j) * ns + i0..][..height];
                for (i, x) in to.iter_mut().enumerate() {
                    *x = rows[(i0 + i) * ds + j0 + j];
                }
            }
        }
    }
}
