//! Pillow's antialiased bicubic in its own fixed-point arithmetic (`ImagingResample` for 8-bit
//! pictures): weights of 22 fractional bits, i32 sums, rounding to u8 after each pass.

/// Fractional bits of a weight: 32 less 8 for the level and 2 for the filter's overshoot.
const FRACTION_BITS: u32 = 32 - 8 - 2;

/// Half a level, so that the shift rounds.
const HALF: i32 = 1 << (FRACTION_BITS - 1);

/// Half-width of the bicubic kernel, in pixels of the coarser of the two grids.
const SUPPORT: f64 = 2.0;

/// Pixels that [`horizontal`] takes at a time.
const STEP: usize = 8;

/// Bytes and weights of one such step: R G B of each pixel.
const LANES: usize = STEP * 3;

/// Rows that [`horizontal`] takes at a time: each loaded weight serves all of them.
const ROWS: usize = 4;

/// Values of a row that [`vertical`] takes at a time.
const COLUMNS: usize = 64;

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
    /// First source pixel of the windows for [`horizontal`], moved back where they would pass the
    /// end; a source narrower than `wide_taps` is padded.
    wide_starts: Vec<usize>,
    /// `taps` rounded up to whole steps.
    wide_taps: usize,
    /// `to * wide_taps * 3` weights: each one three times, for R, G and B.
    wide_weights: Vec<i32>,
}

impl Axis {
    /// For `from` source and `to` target pixels, both at least 1.
    pub fn new(from: usize, to: usize) -> Axis {
        let windows: Vec<(usize, Vec<i32>)> = (0..to).map(|i| window(from, to, i)).collect();
        let taps = windows.iter().map(|(_, w)| w.len()).max().unwrap_or(1);
        let (starts, weights) = spread(&windows, taps, from, 1);
        let wide_taps = taps.next_multiple_of(STEP);
        let (wide_starts, wide_weights) = spread(&windows, wide_taps, from.max(wide_taps), 3);
        Axis {
            from,
            to,
            starts,
            taps,
            weights,
            wide_starts,
            wide_taps,
            wide_weights,
        }
    }
}

/// Gives every window the same number of taps, within `room` source pixels, each weight `repeat`
/// times.
fn spread(
    windows: &[(usize, Vec<i32>)],
    taps: usize,
    room: usize,
    repeat: usize,
) -> (Vec<usize>, Vec<i32>) {
    let mut weights = vec![0; windows.len() * taps * repeat];
    let starts = windows
        .iter()
        .zip(weights.chunks_exact_mut(taps * repeat))
        .map(|((start, window), row)| {
            let moved = (*start).min(room - taps);
            let row = &mut row[(start - moved) * repeat..];
            for (to, &weight) in row.chunks_exact_mut(repeat).zip(window) {
                to.fill(weight);
            }
            moved
        })
        .collect();
    (starts, weights)
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

/// Runs `$body` compiled for the widest vectors that this processor has. The arithmetic is the same
/// integers in each.
macro_rules! widest {
    ($name:ident => $body:ident, ($($arg:ident: $type:ty),*) -> $out:ty) => {
        fn $name($($arg: $type),*) -> $out {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $type),*) -> $out {
                    $body($($arg),*)
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor was just asked for AVX2.
                    return unsafe { avx2($($arg),*) };
                }
            }
            $body($($arg),*)
        }
    };
}

widest!(horizontal_widest => horizontal_rows, (data: &[u8], width: usize, axis: &Axis) -> Vec<u8>);
widest!(vertical_widest => vertical_rows, (data: &[u8], stride: usize, axis: &Axis) -> Vec<u8>);

/// Resizes every row of `width` RGB pixels to `axis.to` pixels.
pub(super) fn horizontal(data: &[u8], width: usize, axis: &Axis) -> Vec<u8> {
    horizontal_widest(data, width, axis)
}

/// Resizes the columns of rows of `width` RGB pixels to `axis.to` rows.
pub(super) fn vertical(data: &[u8], width: usize, axis: &Axis) -> Vec<u8> {
    vertical_widest(data, width * 3, axis)
}

#[inline(always)]
fn horizontal_rows(data: &[u8], width: usize, axis: &Axis) -> Vec<u8> {
    let padded;
    let (data, width) = if width < axis.wide_taps {
        padded = pad_rows(data, width, axis.wide_taps);
        (padded.as_slice(), axis.wide_taps)
    } else {
        (data, width)
    };
    let rows = data.len() / (width * 3);
    let mut out = vec![0; rows * axis.to * 3];
    let whole = rows - rows % ROWS;
    let (in_whole, in_rest) = data.split_at(whole * width * 3);
    let (out_whole, out_rest) = out.split_at_mut(whole * axis.to * 3);
    for (source, target) in in_whole
        .chunks_exact(ROWS * width * 3)
        .zip(out_whole.chunks_exact_mut(ROWS * axis.to * 3))
    {
        horizontal_block::<ROWS>(source, target, axis);
    }
    for (source, target) in in_rest
        .chunks_exact(width * 3)
        .zip(out_rest.chunks_exact_mut(axis.to * 3))
    {
        horizontal_block::<1>(source, target, axis);
    }
    out
}

/// One block of `N` rows. Lane `j` of a step holds channel `j % 3`, so a step needs no shuffling;
/// the lanes of a channel are added up at the end.
#[inline(always)]
fn horizontal_block<const N: usize>(source: &[u8], target: &mut [u8], axis: &Axis) {
    let (in_stride, out_stride) = (source.len() / N, target.len() / N);
    let span = axis.wide_taps * 3;
    let rows: [&[u8]; N] = std::array::from_fn(|r| &source[r * in_stride..(r + 1) * in_stride]);
    for ((i, &start), weights) in axis
        .wide_starts
        .iter()
        .enumerate()
        .zip(axis.wide_weights.chunks_exact(span))
    {
        let windows: [&[[u8; LANES]]; N] =
            std::array::from_fn(|r| rows[r][start * 3..start * 3 + span].as_chunks().0);
        let mut sums = [[0i32; LANES]; N];
        for (step, weights) in weights.as_chunks::<LANES>().0.iter().enumerate() {
            for r in 0..N {
                let bytes = &windows[r][step];
                for lane in 0..LANES {
                    sums[r][lane] += i32::from(bytes[lane]) * weights[lane];
                }
            }
        }
        for r in 0..N {
            for channel in 0..3 {
                let sum: i32 = (0..STEP).map(|p| sums[r][p * 3 + channel]).sum();
                target[r * out_stride + i * 3 + channel] = level(sum + HALF);
            }
        }
    }
}

/// Rows of `width` RGB pixels with black after them up to `wide` pixels.
fn pad_rows(data: &[u8], width: usize, wide: usize) -> Vec<u8> {
    let mut out = vec![0; data.len() / width * wide];
    for (row, padded) in data
        .chunks_exact(width * 3)
        .zip(out.chunks_exact_mut(wide * 3))
    {
        padded[..width * 3].copy_from_slice(row);
    }
    out
}

#[inline(always)]
fn vertical_rows(data: &[u8], stride: usize, axis: &Axis) -> Vec<u8> {
    let mut out = vec![0; axis.to * stride];
    for ((target, &start), weights) in out
        .chunks_exact_mut(stride)
        .zip(&axis.starts)
        .zip(axis.weights.chunks_exact(axis.taps))
    {
        let source = &data[start * stride..(start + axis.taps) * stride];
        let (blocks, rest) = target.as_chunks_mut::<COLUMNS>();
        for (b, block) in blocks.iter_mut().enumerate() {
            let mut sums = [HALF; COLUMNS];
            for (row, &weight) in source.chunks_exact(stride).zip(weights) {
                let values: &[u8] = &row[b * COLUMNS..(b + 1) * COLUMNS];
                for (sum, &value) in sums.iter_mut().zip(values) {
                    *sum += i32::from(value) * weight;
                }
            }
            for (to, &sum) in block.iter_mut().zip(&sums) {
                *to = level(sum);
            }
        }
        let done = blocks.len() * COLUMNS;
        for (j, to) in rest.iter_mut().enumerate() {
            let sum = source
                .chunks_exact(stride)
                .zip(weights)
                .fold(HALF, |sum, (row, &weight)| {
                    sum + i32::from(row[done + j]) * weight
                });
            *to = level(sum);
        }
    }
    out
}
