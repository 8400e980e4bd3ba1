//! Decoded planes to full-range 8-bit RGB, by the stream's own matrix and range. Pure.
//!
//! With Kr and Kb of the matrix (ITU-R BT.601, BT.709, BT.2020 and their kin) and, for samples of
//! n bits, s = 2^(n-8):
//!
//! ```text
//! limited: Y' = (Y - 16s) / 219s    Pb, Pr = (C - 128s) / 224s
//! full:    Y' = Y / (2^n - 1)       Pb, Pr = (C - 128s) / (2^n - 1)
//! R = Y' + 2(1-Kr) Pr    B = Y' + 2(1-Kb) Pb
//! G = Y' - 2(1-Kr)Kr/(1-Kr-Kb) Pr - 2(1-Kb)Kb/(1-Kr-Kb) Pb
//! ```
//!
//! scaled by 255, rounded to nearest, clipped. Subsampled chroma is repeated, not interpolated:
//! it is what swscale's direct conversion does, which the method's published figures rest on, and
//! the picture is shrunk afterwards anyway. Transfer functions and primaries are left as they are.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

#[cfg(target_arch = "x86_64")]
mod avx2;

/// The luma and chroma equation of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Matrix {
    /// ITU-R BT.601, BT.470 BG, SMPTE 170M.
    Bt601,
    /// ITU-R BT.709.
    Bt709,
    /// ITU-R BT.2020, non-constant luminance.
    Bt2020,
    /// FCC 73.682.
    Fcc,
    /// SMPTE 240M.
    Smpte240m,
}

impl Matrix {
    /// Kr and Kb.
    const fn weights(self) -> (f64, f64) {
        match self {
            Matrix::Bt601 => (0.299, 0.114),
            Matrix::Bt709 => (0.2126, 0.0722),
            Matrix::Bt2020 => (0.2627, 0.0593),
            Matrix::Fcc => (0.30, 0.11),
            Matrix::Smpte240m => (0.212, 0.087),
        }
    }

    /// What a stream that does not say is taken for: BT.601 below 720 lines, BT.709 from there.
    pub const fn unspecified(lines: u32) -> Self {
        if lines < 720 {
            Matrix::Bt601
        } else {
            Matrix::Bt709
        }
    }
}

/// Which values samples take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Range {
    /// 16..235 (chroma 16..240) at 8 bits.
    Limited,
    /// 0..255 at 8 bits.
    Full,
}

/// One component (Y, Cb, Cr, or R, G, B) in memory.
#[derive(Clone, Copy, Debug)]
pub struct Component<'a> {
    /// From the component's first sample on.
    pub data: &'a [u8],
    /// From one row to the next, bytes.
    pub stride: usize,
    /// From one sample to the next, bytes.
    pub step: usize,
    /// Significant bits of a sample: 8..16. More than 8 are stored as 16-bit little endian.
    pub depth: u32,
    /// Zero bits below the significant ones.
    pub shift: u32,
    /// Samples cover 2^w_sub pixels in a row.
    pub w_sub: u32,
    /// Samples cover 2^h_sub rows.
    pub h_sub: u32,
}

impl Component<'_> {
    /// The bytes of so many samples of the row that covers picture row `y`.
    pub(super) fn bytes(&self, y: usize, samples: usize, sample_bytes: usize) -> Result<&[u8]> {
        let start = (y >> self.h_sub) * self.stride;
        let needed = samples.saturating_sub(1) * self.step + sample_bytes;
        self.data
            .get(start..start + needed)
            .ok_or_else(|| Error::internal("a decoded picture is smaller than its caps say"))
    }

    /// Reads the samples of the row that covers picture row `y`, one per pixel of `out`.
    fn read_row(&self, y: usize, out: &mut [f32]) -> Result<()> {
        let samples = out.len().div_ceil(1 << self.w_sub);
        let bytes = if self.depth > 8 { 2 } else { 1 };
        let row = self.bytes(y, samples, bytes)?;
        let sub = self.w_sub;
        if bytes == 2 {
            let shift = self.shift;
            let samples = row.chunks(self.step).map(|c| match c {
                [low, high, ..] => f32::from(u16::from_le_bytes([*low, *high]) >> shift),
                _ => 0.0,
            });
            repeat(out, samples, sub);
        } else if self.step == 1 {
            repeat(out, row.iter().map(|&v| f32::from(v)), sub);
        } else {
            repeat(
                out,
                row.iter().step_by(self.step).map(|&v| f32::from(v)),
                sub,
            );
        }
        Ok(())
    }
}

/// Repeats each sample over the 2^sub pixels it covers.
fn repeat(out: &mut [f32], samples: impl Iterator<Item = f32>, sub: u32) {
    match sub {
        0 => {
            for (o, s) in out.iter_mut().zip(samples) {
                *o = s;
            }
        }
        1 => {
            // The common case, without a loop inside the loop.
            for (o, s) in out.chunks_mut(2).zip(samples) {
                if let [a, b] = o {
                    (*a, *b) = (s, s);
                } else {
                    o.fill(s);
                }
            }
        }
        _ => {
            for (o, s) in out.chunks_mut(1 << sub).zip(samples) {
                o.fill(s);
            }
        }
    }
}

/// Rounds to the nearest level and clips. Adding 2^23 leaves the integer in the low mantissa bits,
/// which vectorises where a float-to-integer cast does not.
fn level(v: f32) -> u8 {
    const TWO_POW_23: f32 = 8_388_608.0;
    (v.clamp(0.0, 255.0) + TWO_POW_23).to_bits() as u8
}

/// Linear map of one component to 0..255.
#[derive(Clone, Copy)]
struct Scale {
    offset: f32,
    factor: f64,
}

impl Scale {
    fn luma(depth: u32, range: Range) -> Self {
        match range {
            Range::Limited => {
                let s = 1 << (depth - 8);
                Scale {
                    offset: (16 * s) as f32,
                    factor: 255.0 / f64::from(219 * s),
                }
            }
            Range::Full => Scale {
                offset: 0.0,
                factor: 255.0 / f64::from((1u32 << depth) - 1),
            },
        }
    }

    fn chroma(depth: u32, range: Range) -> Self {
        let s = 1 << (depth - 8);
        Scale {
            offset: (128 * s) as f32,
            factor: match range {
                Range::Limited => 255.0 / f64::from(224 * s),
                Range::Full => 255.0 / f64::from((1u32 << depth) - 1),
            },
        }
    }
}

fn check(components: &[Component<'_>]) -> Result<()> {
    if components
        .iter()
        .any(|c| !(8..=16).contains(&c.depth) || c.step == 0 || c.w_sub > 3 || c.h_sub > 3)
    {
        return Err(Error::internal("a decoded picture has an unknown layout"));
    }
    Ok(())
}

/// Converts Y, Cb, Cr. Gives `height` rows of `width * 3` bytes, one by one.
///
/// # Errors
/// `Internal` if a component is shorter than the picture.
pub fn yuv_to_rgb(
    width: usize,
    height: usize,
    components: [Component<'_>; 3],
    matrix: Matrix,
    range: Range,
    give: &mut dyn FnMut(&[u8]),
) -> Result<()> {
    let fast = fast_rows(&components);
    yuv_rows(width, height, components, matrix, range, fast, give)
}

/// Converts what it can of a row, see [`avx2::row`], and says how many pixels these are.
type FastRow = fn(&[u8], [&[f32]; 3], (f32, f32), &mut [u8]) -> usize;

/// The fast form of a row, for the layout that nearly every camera has: 8 bits, chroma once for two pixels.
#[cfg(target_arch = "x86_64")]
fn fast_rows([y, cb, _]: &[Component<'_>; 3]) -> Option<FastRow> {
    let fits = y.depth == 8 && y.step == 1 && y.w_sub == 0 && cb.w_sub == 1;
    (fits && std::arch::is_x86_feature_detected!("avx2")).then_some(
        |lumas: &[u8], adds: [&[f32]; 3], (offset, factor): (f32, f32), out: &mut [u8]| {
            let luma = avx2::Luma { offset, factor };
            // SAFETY: the processor has AVX2.
            unsafe { avx2::row(lumas, adds, luma, out) }
        },
    )
}

#[cfg(not(target_arch = "x86_64"))]
fn fast_rows(_: &[Component<'_>; 3]) -> Option<FastRow> {
    None
}

fn yuv_rows(
    width: usize,
    height: usize,
    [y, cb, cr]: [Component<'_>; 3],
    matrix: Matrix,
    range: Range,
    fast: Option<FastRow>,
    give: &mut dyn FnMut(&[u8]),
) -> Result<()> {
    check(&[y, cb, cr])?;
    if cb.w_sub != cr.w_sub {
        return Err(Error::internal("a decoded picture has an unknown layout"));
    }
    let (kr, kb) = matrix.weights();
    let kg = 1.0 - kr - kb;
    let luma = Scale::luma(y.depth, range);
    let chroma = Scale::chroma(cb.depth, range);
    let y_mul = luma.factor as f32;
    let r_cr = (2.0 * (1.0 - kr) * chroma.factor) as f32;
    let b_cb = (2.0 * (1.0 - kb) * chroma.factor) as f32;
    let g_cr = (-2.0 * (1.0 - kr) * kr / kg * chroma.factor) as f32;
    let g_cb = (-2.0 * (1.0 - kb) * kb / kg * chroma.factor) as f32;

    // Chroma is read and weighed at its own resolution.
    let covered = 1 << cb.w_sub;
    let row = |n: usize| vec![0f32; n];
    let chromas = width.div_ceil(covered);
    let (own_cb, own_cr) = (Component { w_sub: 0, ..cb }, Component { w_sub: 0, ..cr });
    let (mut lumas, mut cbs, mut crs) = (row(width), row(chromas), row(chromas));
    // What the chroma adds to each channel; kept while rows share it.
    let (mut add_r, mut add_g, mut add_b) = (row(chromas), row(chromas), row(chromas));
    let mut levels = vec![0u8; width * 3];
    let mut line = vec![0u8; width * 3];
    let mut chroma_row = None;
    for row in 0..height {
        let covers = (row >> cb.h_sub, row >> cr.h_sub);
        if chroma_row != Some(covers) {
            own_cb.read_row(row, &mut cbs)?;
            own_cr.read_row(row, &mut crs)?;
            let adds = [&mut *add_r, &mut *add_g, &mut *add_b];
            weigh(&cbs, &crs, chroma.offset, [r_cr, g_cb, g_cr, b_cb], adds);
            chroma_row = Some(covers);
        }
        let adds = [&*add_r, &*add_g, &*add_b];
        let done = match fast {
            Some(fast) => fast(
                y.bytes(row, width, 1)?,
                adds,
                (luma.offset, y_mul),
                &mut line,
            ),
            None => 0,
        };
        if done < width {
            y.read_row(row, &mut lumas)?;
            for l in &mut lumas {
                *l = (*l - luma.offset) * y_mul;
            }
            // Channel by channel, so that it vectorises; then interleaved.
            let (reds, rest) = levels.split_at_mut(width);
            let (greens, blues) = rest.split_at_mut(width);
            for (levels, adds) in [&mut *reds, &mut *greens, &mut *blues]
                .into_iter()
                .zip(adds)
            {
                spread(levels, &lumas, adds, covered);
            }
            let pixels = line.chunks_exact_mut(3).zip(reds).zip(greens).zip(blues);
            for (((pixel, r), g), b) in pixels {
                if let [pr, pg, pb] = pixel {
                    (*pr, *pg, *pb) = (*r, *g, *b);
                }
            }
        }
        give(&line);
    }
    Ok(())
}

/// What a row of chroma adds to red, green and blue, with the weights of Cr in red, Cb and Cr in green, and Cb in blue.
fn weigh(cbs: &[f32], crs: &[f32], offset: f32, weights: [f32; 4], adds: [&mut [f32]; 3]) {
    let [r_cr, g_cb, g_cr, b_cb] = weights;
    let [reds, greens, blues] = adds;
    let chroma = cbs.iter().zip(crs);
    let adds = reds.iter_mut().zip(greens).zip(blues);
    for ((u, v), ((red, green), blue)) in chroma.zip(adds) {
        let (u, v) = (u - offset, v - offset);
        *red = r_cr * v;
        *green = g_cb * u + g_cr * v;
        *blue = b_cb * u;
    }
}

/// The levels of a channel, where each chroma value covers so many pixels.
fn spread(levels: &mut [u8], lumas: &[f32], adds: &[f32], covered: usize) {
    if covered == 1 {
        for ((o, l), a) in levels.iter_mut().zip(lumas).zip(adds) {
            *o = level(l + a);
        }
        return;
    }
    let groups = levels.chunks_mut(covered).zip(lumas.chunks(covered));
    for ((levels, lumas), a) in groups.zip(adds) {
        for (o, l) in levels.iter_mut().zip(lumas) {
            *o = level(l + a);
        }
    }
}

/// Gathers R, G, B, or three times grey. Gives rows as [`yuv_to_rgb`]; 8-bit full-range samples pass unchanged.
///
/// # Errors
/// As [`yuv_to_rgb`].
pub fn rgb_to_rgb(
    width: usize,
    height: usize,
    components: [Component<'_>; 3],
    range: Range,
    give: &mut dyn FnMut(&[u8]),
) -> Result<()> {
    check(&components)?;
    let mut line = vec![0; width * 3];
    let mut samples = vec![0f32; width];
    for row in 0..height {
        for (channel, component) in components.iter().enumerate() {
            let scale = Scale::luma(component.depth, range);
            let factor = scale.factor as f32;
            component.read_row(row, &mut samples)?;
            for (pixel, &s) in line.chunks_exact_mut(3).zip(&samples) {
                if let Some(value) = pixel.get_mut(channel) {
                    *value = level((s - scale.offset) * factor);
                }
            }
        }
        give(&line);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
