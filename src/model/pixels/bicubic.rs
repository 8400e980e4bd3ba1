//! Pillow's antialiased bicubic in its own fixed-point arithmetic (`ImagingResample` for 8-bit
//! pictures): weights of 22 fractional bits, i32 sums, rounding to u8 after each pass.

#[cfg(target_arch = "x86_64")]
mod avx2;

/// Fractional bits of a weight: 32 less 8 for the level and 2 for the filter's overshoot.
const FRACTION_BITS: u32 = 32 - 8 - 2;

/// Half a level, so that the shift rounds.
const HALF: i32 = 1 << (FRACTION_BITS - 1);

/// Half-width of the bicubic kernel, in pixels of the coarser of the two grids.
const SUPPORT: f64 = 2.0;

/// Rows that [`Horizontal`] takes at a time, side by side.
const ROWS: usize = 16;

/// Columns that [`Horizontal`] lays out at a time.
const STRETCH: usize = 64;

/// Values that [`resample`] keeps in registers at a time: one column of [`ROWS`] RGB pixels, and a
/// divisor of a row of 448.
const LANES: usize = ROWS * 3;

/// Which source pixels make each target pixel along one axis, and with which weights.
pub(super) struct Axis {
    /// Source pixels.
    pub from: usize,
    /// Target pixels.
    pub to: usize,
    /// First source pixel of each target pixel.
    starts: Vec<usize>,
    /// Weights per target pixel, zeros where a window is shorter. `starts[i] + taps <= from`.
    taps: usize,
    /// `to * taps` weights.
    weights: Vec<i32>,
    /// The same for two source pixels at a time.
    #[cfg(target_arch = "x86_64")]
    pairs: avx2::Pairs,
}

impl Axis {
    /// For `from` source and `to` target pixels, both at least 1.
    pub fn new(from: usize, to: usize) -> Axis {
        let windows: Vec<(usize, Vec<i32>)> = (0..to).map(|i| window(from, to, i)).collect();
        let taps = windows.iter().map(|(_, w)| w.len()).max().unwrap_or(1);
        let mut weights = vec![0; to * taps];
        let starts = windows
            .iter()
            .zip(weights.chunks_exact_mut(taps))
            .map(|((start, window), row)| {
                let moved = (*start).min(from - taps);
                row[start - moved..][..window.len()].copy_from_slice(window);
                moved
            })
            .collect();
        Axis {
            from,
            to,
            starts,
            taps,
            #[cfg(target_arch = "x86_64")]
            pairs: avx2::Pairs::of(&weights, taps),
            weights,
        }
    }
}

#[cfg(any(test, feature = "cuda"))]
impl Axis {
    /// First source pixel of each target pixel, and as many weights of each.
    pub fn table(&self) -> (&[usize], &[i32]) {
        (&self.starts, &self.weights)
    }
}

/// First source pixel and weights of target pixel `i`. The order and types of the operations are
/// Pillow's, since the last bit of a weight may hang on them.
fn window(from: usize, to: usize, i: usize) -> (usize, Vec<i32>) {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = SUPPORT * stretch;
    let centre = (i as f64 + 0.5) * scale;
    // `as` truncates towards zero and saturates at 0, as Pillow's casts and clamps do together.
    let first = (centre - support + 0.5) as usize;
    let last = ((centre + support + 0.5) as usize).min(from);

    let shrink = 1.0 / stretch;
    let raw: Vec<f64> = (0..last - first)
        .map(|k| kernel((k as f64 + first as f64 - centre + 0.5) * shrink))
        .collect();
    let sum: f64 = raw.iter().fold(0.0, |sum, w| sum + w);
    let weights = raw
        .iter()
        .map(|&w| {
            let w = if sum == 0.0 { w } else { w / sum };
            let half = if w < 0.0 { -0.5 } else { 0.5 };
            (half + w * f64::from(1 << FRACTION_BITS)) as i32
        })
        .collect();
    (first, weights)
}

/// Keys' cubic convolution kernel with a = −0.5.
fn kernel(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// A sum of weighted levels as a level.
#[inline(always)]
fn level(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

/// Resizes every row of so many RGB pixels, as `axis` says. The rows come when they are made.
///
/// Rows are laid side by side in blocks, pixel by pixel: then all of them take the same weight at the
/// same time, and the pass is [`vertical`]'s.
pub(super) struct Horizontal<'a> {
    axis: &'a Axis,
    /// Rows that are no whole block yet.
    waiting: Vec<u8>,
    /// A block of rows side by side, before and after.
    source: Vec<u8>,
    target: Vec<u8>,
    /// Where the next resized rows go.
    out: &'a mut [u8],
}

impl<'a> Horizontal<'a> {
    /// For rows of `axis.from` pixels, as many as rows of `axis.to` pixels fit into `out`.
    pub fn new(axis: &'a Axis, out: &'a mut [u8]) -> Self {
        Horizontal {
            axis,
            waiting: Vec::with_capacity(ROWS * axis.from * 3),
            source: vec![0; axis.from * LANES],
            target: vec![0; axis.to * LANES],
            out,
        }
    }

    /// Takes the next rows.
    pub fn push(&mut self, mut rows: &[u8]) {
        let block = ROWS * self.axis.from * 3;
        if !self.waiting.is_empty() {
            let (first, rest) = rows.split_at(rows.len().min(block - self.waiting.len()));
            self.waiting.extend_from_slice(first);
            rows = rest;
            if self.waiting.len() < block {
                return;
            }
            let waiting = std::mem::take(&mut self.waiting);
            self.resize(&waiting);
            self.waiting = waiting;
            self.waiting.clear();
        }
        let blocks = rows.chunks_exact(block);
        self.waiting.extend_from_slice(blocks.remainder());
        blocks.for_each(|rows| self.resize(rows));
    }

    /// No more rows will come.
    pub fn finish(mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        if !waiting.is_empty() {
            self.resize(&waiting);
        }
    }

    /// A block of rows, or what is left of one.
    fn resize(&mut self, rows_in: &[u8]) {
        let (axis, width) = (self.axis, self.axis.from);
        let rows = rows_in.len() / (width * 3);
        let (rows_out, rest) = std::mem::take(&mut self.out).split_at_mut(rows * axis.to * 3);
        self.out = rest;
        let (source, target) = (&mut self.source, &mut self.target);
        // In short stretches, so that the columns stay in the nearest cache.
        for at in (0..width).step_by(STRETCH) {
            let columns = source.as_chunks_mut::<LANES>().0;
            let columns = &mut columns[at..(at + STRETCH).min(width)];
            for (r, row) in rows_in.chunks_exact(width * 3).enumerate().take(ROWS) {
                lay_out(&row[at * 3..], columns, r);
            }
        }
        resample(source, target, LANES, axis);
        for at in (0..axis.to).step_by(STRETCH) {
            let columns = target.as_chunks::<LANES>().0;
            let columns = &columns[at..(at + STRETCH).min(axis.to)];
            for (r, row) in rows_out
                .chunks_exact_mut(axis.to * 3)
                .enumerate()
                .take(ROWS)
            {
                take_up(columns, r, &mut row[at * 3..]);
            }
        }
    }
}

/// Lays pixels of row `r` into its place in each column. Four bytes are moved for three where the fourth does
/// not matter: the next row's lie there, and come later.
#[inline(always)]
fn lay_out(row: &[u8], columns: &mut [[u8; LANES]], r: usize) {
    let fours = row.windows(4).step_by(3);
    let wide = if r + 1 < ROWS {
        fours.len().min(columns.len())
    } else {
        0
    };
    let (first, rest) = columns.split_at_mut(wide);
    for (pixel, column) in fours.zip(first) {
        column[r * 3..r * 3 + 4].copy_from_slice(pixel);
    }
    let pixels = row[wide * 3..].as_chunks::<3>().0;
    for (pixel, column) in pixels.iter().zip(rest) {
        column[r * 3..r * 3 + 3].copy_from_slice(pixel);
    }
}

/// The reverse: the pixels of row `r`, one of each column. The fourth byte is the next pixel's, which comes later.
#[inline(always)]
fn take_up(columns: &[[u8; LANES]], r: usize, row: &mut [u8]) {
    let wide = if r + 1 < ROWS {
        columns.len().saturating_sub(1)
    } else {
        0
    };
    for (i, column) in columns[..wide].iter().enumerate() {
        row[i * 3..i * 3 + 4].copy_from_slice(&column[r * 3..r * 3 + 4]);
    }
    let pixels = row[wide * 3..].as_chunks_mut::<3>().0;
    for (pixel, column) in pixels.iter_mut().zip(&columns[wide..]) {
        pixel.copy_from_slice(&column[r * 3..r * 3 + 3]);
    }
}

/// Resizes the columns of rows of `width` RGB pixels to the `axis.to` rows of `out`.
pub(super) fn vertical(data: &[u8], width: usize, axis: &Axis, out: &mut [u8]) {
    resample(data, out, width * 3, axis);
}

/// Makes the `axis.to` rows of `target` from the `axis.from` rows of `source`, each of `stride`
/// values.
fn resample(source: &[u8], target: &mut [u8], stride: usize, axis: &Axis) {
    #[cfg(target_arch = "x86_64")]
    {
        // The arithmetic is in integers, so it comes to the same.
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor was just asked for AVX2.
            return unsafe { avx2::resample(source, target, stride, axis) };
        }
    }
    resample_rows(source, target, stride, axis);
}

#[inline(always)]
fn resample_rows(source: &[u8], target: &mut [u8], stride: usize, axis: &Axis) {
    for ((target, &start), weights) in target
        .chunks_exact_mut(stride)
        .zip(&axis.starts)
        .zip(axis.weights.chunks_exact(axis.taps))
    {
        let window = &source[start * stride..(start + axis.taps) * stride];
        let (blocks, rest) = target.as_chunks_mut::<LANES>();
        let done = blocks.len() * LANES;
        for (b, block) in blocks.iter_mut().enumerate() {
            let mut sums = [HALF; LANES];
            for (row, &weight) in window.chunks_exact(stride).zip(weights) {
                let values = &row[b * LANES..(b + 1) * LANES];
                for (sum, &value) in sums.iter_mut().zip(values) {
                    *sum += i32::from(value) * weight;
                }
            }
            *block = sums.map(level);
        }
        resample_rest(window, rest, done, weights, stride);
    }
}

/// The last values of a row, from `done` on.
#[inline(always)]
fn resample_rest(window: &[u8], rest: &mut [u8], done: usize, weights: &[i32], stride: usize) {
    for (j, to) in rest.iter_mut().enumerate() {
        let rows = window.chunks_exact(stride).zip(weights);
        *to = level(rows.fold(HALF, |sum, (row, &weight)| {
            sum + i32::from(row[done + j]) * weight
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_gives_the_same_bytes() {
        let source: Vec<u8> = (0..97 * 67 * 3u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        for (from, to) in [(67, 31), (67, 150)] {
            let axis = Axis::new(from, to);
            let mut plain = vec![0; to * 97 * 3];
            resample_rows(&source, &mut plain, 97 * 3, &axis);
            let mut fast = vec![0; plain.len()];
            vertical(&source, 97, &axis, &mut fast);
            assert_eq!(plain, fast);
        }
    }

    #[test]
    fn weights_of_a_pixel_add_up_to_one() {
        for (from, to) in [(1, 1), (1, 9), (9, 1), (320, 448), (1920, 448), (8192, 3)] {
            let axis = Axis::new(from, to);
            for (&start, weights) in axis.starts.iter().zip(axis.weights.chunks_exact(axis.taps)) {
                let sum: i64 = weights.iter().map(|&w| i64::from(w)).sum();
                let off = (sum - (1 << FRACTION_BITS)).unsigned_abs();
                assert!(off <= axis.taps as u64, "{from} to {to}: off by {off}");
                assert!(start + axis.taps <= from);
            }
        }
    }
}
