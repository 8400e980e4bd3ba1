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

use crate::error::{Error, Result};

/// The luma and chroma equation of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Reads the samples of the row that covers picture row `y`, one per pixel of `out`.
    fn read_row(&self, y: usize, out: &mut [f32]) -> Result<()> {
        let samples = out.len().div_ceil(1 << self.w_sub);
        let bytes = if self.depth > 8 { 2 } else { 1 };
        let start = (y >> self.h_sub) * self.stride;
        let needed = samples.saturating_sub(1) * self.step + bytes;
        let row = self
            .data
            .get(start..start + needed)
            .ok_or_else(|| Error::internal("a decoded picture is smaller than its caps say"))?;
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

fn checked(width: usize, height: usize, components: &[Component<'_>]) -> Result<Vec<u8>> {
    if components
        .iter()
        .any(|c| !(8..=16).contains(&c.depth) || c.step == 0 || c.w_sub > 3 || c.h_sub > 3)
    {
        return Err(Error::internal("a decoded picture has an unknown layout"));
    }
    Ok(vec![0; width * height * 3])
}

/// Converts Y, Cb, Cr. Returns `width * height * 3` bytes.
///
/// # Errors
/// `Internal` if a component is shorter than the picture.
pub fn yuv_to_rgb(
    width: usize,
    height: usize,
    [y, cb, cr]: [Component<'_>; 3],
    matrix: Matrix,
    range: Range,
) -> Result<Vec<u8>> {
    let mut out = checked(width, height, &[y, cb, cr])?;
    let (kr, kb) = matrix.weights();
    let kg = 1.0 - kr - kb;
    let luma = Scale::luma(y.depth, range);
    let chroma = Scale::chroma(cb.depth, range);
    let y_mul = luma.factor as f32;
    let r_cr = (2.0 * (1.0 - kr) * chroma.factor) as f32;
    let b_cb = (2.0 * (1.0 - kb) * chroma.factor) as f32;
    let g_cr = (-2.0 * (1.0 - kr) * kr / kg * chroma.factor) as f32;
    let g_cb = (-2.0 * (1.0 - kb) * kb / kg * chroma.factor) as f32;

    let row = || vec![0f32; width];
    let (mut lumas, mut cbs, mut crs) = (row(), row(), row());
    // What the chroma adds to each channel; kept while rows share it.
    let (mut add_r, mut add_g, mut add_b) = (row(), row(), row());
    let mut levels = vec![0u8; width * 3];
    let mut chroma_row = None;
    for (row, out) in out.chunks_exact_mut((width * 3).max(1)).enumerate() {
        y.read_row(row, &mut lumas)?;
        for l in &mut lumas {
            *l = (*l - luma.offset) * y_mul;
        }
        let covers = (row >> cb.h_sub, row >> cr.h_sub);
        if chroma_row != Some(covers) {
            cb.read_row(row, &mut cbs)?;
            cr.read_row(row, &mut crs)?;
            for v in cbs.iter_mut().chain(&mut crs) {
                *v -= chroma.offset;
            }
            for (a, v) in add_r.iter_mut().zip(&crs) {
                *a = r_cr * v;
            }
            for ((a, u), v) in add_g.iter_mut().zip(&cbs).zip(&crs) {
                *a = g_cb * u + g_cr * v;
            }
            for (a, u) in add_b.iter_mut().zip(&cbs) {
                *a = b_cb * u;
            }
            chroma_row = Some(covers);
        }
        // Channel by channel, so that it vectorises; then interleaved.
        let (reds, rest) = levels.split_at_mut(width);
        let (greens, blues) = rest.split_at_mut(width);
        for (levels, adds) in [
            (&mut *reds, &add_r),
            (&mut *greens, &add_g),
            (&mut *blues, &add_b),
        ] {
            for ((o, l), a) in levels.iter_mut().zip(&lumas).zip(adds) {
                *o = level(l + a);
            }
        }
        for (((pixel, r), g), b) in out.chunks_exact_mut(3).zip(reds).zip(greens).zip(blues) {
            if let [pr, pg, pb] = pixel {
                (*pr, *pg, *pb) = (*r, *g, *b);
            }
        }
    }
    Ok(out)
}

/// Converts grey. Returns `width * height * 3` bytes.
///
/// # Errors
/// As [`yuv_to_rgb`].
pub fn gray_to_rgb(width: usize, height: usize, y: Component<'_>, range: Range) -> Result<Vec<u8>> {
    rgb_to_rgb(width, height, [y, y, y], range)
}

/// Gathers R, G, B. Returns `width * height * 3` bytes; 8-bit full-range samples pass unchanged.
///
/// # Errors
/// As [`yuv_to_rgb`].
pub fn rgb_to_rgb(
    width: usize,
    height: usize,
    components: [Component<'_>; 3],
    range: Range,
) -> Result<Vec<u8>> {
    let mut out = checked(width, height, &components)?;
    let mut samples = vec![0f32; width];
    for (channel, component) in components.iter().enumerate() {
        let scale = Scale::luma(component.depth, range);
        let factor = scale.factor as f32;
        for (row, out) in out.chunks_exact_mut((width * 3).max(1)).enumerate() {
            component.read_row(row, &mut samples)?;
            for (pixel, &s) in out.chunks_exact_mut(3).zip(&samples) {
                if let Some(value) = pixel.get_mut(channel) {
                    *value = level((s - scale.offset) * factor);
                }
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
