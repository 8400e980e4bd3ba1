//! Pictures as most decoders give them, 8-bit luma and once for two by two pixels Cb and Cr, in memory that is read in
//! pieces: they come in bands, and are the same RGB to the bit as where they lie at hand.

use serde::{Deserialize, Serialize};

use super::convert::{Component, Matrix, Range, yuv_to_rgb};
use crate::error::{Error, Result};

/// Rows of a band: with 320 pixels its planes and its RGB stay in the nearest cache. Even, so that no two bands share
/// chroma.
const BAND_ROWS: usize = 16;

/// What a place that is read from is a multiple of, bytes.
const WORD: usize = 8;

/// How the planes of a picture lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Planes {
    pub width: u32,
    pub height: u32,
    pub matrix: Matrix,
    pub range: Range,
    /// Of luma, Cb and Cr.
    pub planes: [Plane; 3],
}

/// How a plane lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plane {
    /// From the picture's first byte, bytes.
    pub at: usize,
    /// From one row to the next, bytes.
    pub stride: usize,
}

impl Planes {
    /// Pixels of a row and rows of each plane.
    fn sizes(&self) -> [(usize, usize); 3] {
        let half = |n: u32| n.div_ceil(2) as usize;
        let chroma = (half(self.width), half(self.height));
        [(self.width as usize, self.height as usize), chroma, chroma]
    }

    /// Bytes up to the end of the last plane. `None` where they are no picture, where no memory has so many bytes, or where
    /// a row does not begin at a multiple of eight.
    pub fn bytes(&self) -> Option<usize> {
        let mut end = 0;
        for (plane, (width, rows)) in self.planes.iter().zip(self.sizes()) {
            let aligned = plane.at.is_multiple_of(WORD) && plane.stride.is_multiple_of(WORD);
            if !aligned || width == 0 || plane.stride < width {
                return None;
            }
            let last = rows.checked_sub(1)?.checked_mul(plane.stride)?;
            end = end.max(plane.at.checked_add(last)?.checked_add(width)?);
        }
        Some(end)
    }

    /// Gives the RGB rows, as [`yuv_to_rgb`] does. `read` copies bytes from a place, which is a multiple of eight.
    ///
    /// Fails with what `read` fails with.
    pub fn rows(
        &self,
        mut read: impl FnMut(usize, &mut [u8]) -> Result<()>,
        give: &mut dyn FnMut(&[u8]),
    ) -> Result<()> {
        if self.bytes().is_none() {
            return Err(Error::internal("a picture's planes are too large"));
        }
        let sizes = self.sizes();
        let (width, height) = (self.width as usize, self.height as usize);
        let mut bands = [const { Vec::new() }; 3];
        for first in (0..height).step_by(BAND_ROWS) {
            let rows = BAND_ROWS.min(height - first);
            for (c, band) in bands.iter_mut().enumerate() {
                let (Plane { at, stride }, (width, _)) = (self.planes[c], sizes[c]);
                let (first, rows) = match c {
                    0 => (first, rows),
                    _ => (first / 2, rows.div_ceil(2)),
                };
                // With what lies between them, which is little.
                band.resize((rows - 1) * stride + width, 0);
                read(at + first * stride, band)?;
            }
            let component = |c: usize| Component {
                data: &bands[c][..],
                stride: self.planes[c].stride,
                step: 1,
                depth: 8,
                shift: 0,
                w_sub: u32::from(c > 0),
                h_sub: u32::from(c > 0),
            };
            let parts = [component(0), component(1), component(2)];
            yuv_to_rgb(width, rows, parts, self.matrix, self.range, give)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize, seed: u32) -> Vec<u8> {
        let mut state = seed;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(n)
        .collect()
    }

    /// Planes of odd sizes, close together and with gaps between rows and planes.
    #[test]
    fn bands_give_the_rows_of_the_whole_picture_to_the_bit() {
        for (width, height) in [
            (1_u32, 1_u32),
            (2, 2),
            (7, 5),
            (33, 47),
            (320, 240),
            (322, 33),
        ] {
            for (gap, swapped) in [(0, false), (8, false), (72, true)] {
                let stride = |width: u32| (width as usize).next_multiple_of(8) + gap;
                let (cw, ch) = (width.div_ceil(2), height.div_ceil(2) as usize);
                let chroma = stride(cw) * ch;
                let luma = (stride(width) * height as usize).next_multiple_of(8);
                let (mut cb, mut cr) = (luma + gap, luma + 2 * gap + chroma);
                if swapped {
                    std::mem::swap(&mut cb, &mut cr);
                }
                let plane = |at, width| Plane {
                    at,
                    stride: stride(width),
                };
                let all = noise(luma + 3 * gap + 2 * chroma, 1);
                for (matrix, range) in [
                    (Matrix::Bt601, Range::Limited),
                    (Matrix::Bt709, Range::Full),
                ] {
                    let planes = Planes {
                        width,
                        height,
                        matrix,
                        range,
                        planes: [plane(0, width), plane(cb, cw), plane(cr, cw)],
                    };
                    let bytes = planes.bytes().unwrap();
                    assert!(bytes <= all.len());
                    let component = |c: usize, sub| Component {
                        data: &all[planes.planes[c].at..bytes],
                        stride: planes.planes[c].stride,
                        step: 1,
                        depth: 8,
                        shift: 0,
                        w_sub: sub,
                        h_sub: sub,
                    };
                    let parts = [component(0, 0), component(1, 1), component(2, 1)];
                    let mut whole = Vec::new();
                    let mut give = |rows: &[u8]| whole.extend_from_slice(rows);
                    let (w, h) = (width as usize, height as usize);
                    yuv_to_rgb(w, h, parts, matrix, range, &mut give).unwrap();
                    let mut banded = Vec::new();
                    let read = |at: usize, to: &mut [u8]| {
                        assert!(at.is_multiple_of(8) && at + to.len() <= bytes);
                        to.copy_from_slice(&all[at..at + to.len()]);
                        Ok(())
                    };
                    let mut give = |rows: &[u8]| banded.extend_from_slice(rows);
                    planes.rows(read, &mut give).unwrap();
                    assert!(banded == whole, "{width} x {height}");
                }
            }
        }
    }

    #[test]
    fn planes_that_are_no_picture_have_no_bytes() {
        let plane = |at, stride| Plane { at, stride };
        let fine = Planes {
            width: 16,
            height: 4,
            matrix: Matrix::Bt601,
            range: Range::Limited,
            planes: [plane(0, 16), plane(64, 8), plane(80, 8)],
        };
        assert_eq!(fine.bytes(), Some(96));
        for (c, wrong) in [
            (0, plane(0, 8)),
            (0, plane(4, 16)),
            (0, plane(0, 20)),
            (0, plane(0, usize::MAX - 7)),
            (1, plane(usize::MAX - 7, 8)),
            (2, plane(80, 0)),
        ] {
            let mut planes = fine;
            planes.planes[c] = wrong;
            assert_eq!(planes.bytes(), None, "{wrong:?}");
            let read = |_: usize, _: &mut [u8]| -> Result<()> { panic!("it was read") };
            assert!(planes.rows(read, &mut |_| {}).is_err());
        }
        for (width, height) in [(16, 0), (0, 4), (0, 0)] {
            let none = Planes {
                width,
                height,
                ..fine
            };
            assert_eq!(none.bytes(), None);
        }
    }
}
