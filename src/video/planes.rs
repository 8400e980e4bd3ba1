//! Pictures as most decoders give them, 8-bit luma and once for two by two pixels Cb and Cr: half the bytes of RGB, for
//! a way on which they are dear. To the other end they come in bands, and are the same RGB there to the bit.

use serde::{Deserialize, Serialize};

use super::convert::{Component, Matrix, Range, yuv_to_rgb};
use crate::error::{Error, Result};

/// Rows of a band: with 320 pixels its planes and its RGB stay in the nearest cache. Even, so that no two bands share
/// chroma, and such that each begins at a multiple of eight bytes.
const BAND_ROWS: usize = 16;

/// What is known of planes that lie one after another: luma, Cb, Cr, each row after the one before, and each plane
/// at a multiple of eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Planes {
    pub width: u32,
    pub height: u32,
    pub matrix: Matrix,
    pub range: Range,
}

impl Planes {
    /// Width and height of a chroma plane.
    fn chroma(&self) -> (usize, usize) {
        let half = |n: u32| n.div_ceil(2) as usize;
        (half(self.width), half(self.height))
    }

    /// Where luma, Cb and Cr begin, and where they end; `None` where no memory has so many bytes.
    fn places(&self) -> Option<[usize; 4]> {
        let (chromas, rows) = self.chroma();
        let luma = (self.width as usize).checked_mul(self.height as usize)?;
        let luma = luma.checked_next_multiple_of(8)?;
        let chroma = chromas.checked_mul(rows)?.checked_next_multiple_of(8)?;
        let cr = luma.checked_add(chroma)?;
        Some([0, luma, cr, cr.checked_add(chroma)?])
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> Option<usize> {
        self.places().map(|[.., end]| end)
    }

    /// Whether these components are such planes, or can be laid down as such.
    pub fn fit([y, cb, cr]: &[Component<'_>; 3]) -> bool {
        let eight = |c: &Component<'_>, sub| c.depth == 8 && (c.w_sub, c.h_sub) == (sub, sub);
        eight(y, 0) && eight(cb, 1) && eight(cr, 1) && y.step == 1
    }

    /// Lays components that [`fit`](Self::fit) down.
    ///
    /// Fails with `Internal` where a component or `on` is too short.
    pub fn lay(&self, components: [Component<'_>; 3], on: &mut [u8]) -> Result<()> {
        let short = || Error::internal("there is no room for a picture's planes");
        let (chromas, rows) = self.chroma();
        let (width, height) = (self.width as usize, self.height as usize);
        let sizes = [(width, height), (chromas, rows), (chromas, rows)];
        let places = self.places().ok_or_else(short)?;
        for ((component, (width, rows)), at) in components.into_iter().zip(sizes).zip(places) {
            // Its own rows, one after another.
            let own = Component {
                h_sub: 0,
                ..component
            };
            let plane = on.get_mut(at..).and_then(|on| on.get_mut(..width * rows));
            let plane = plane.ok_or_else(short)?;
            for (row, to) in plane.chunks_exact_mut(width.max(1)).enumerate() {
                let from = own.bytes(row, width, 1)?;
                if own.step == 1 {
                    to.copy_from_slice(from);
                } else {
                    for (to, from) in to.iter_mut().zip(from.iter().step_by(own.step)) {
                        *to = *from;
                    }
                }
            }
        }
        Ok(())
    }

    /// Gives the RGB rows, as [`yuv_to_rgb`] does. `read` copies bytes from a place, which is a multiple of eight.
    ///
    /// Fails with what `read` fails with.
    pub fn rows(
        &self,
        mut read: impl FnMut(usize, &mut [u8]) -> Result<()>,
        give: &mut dyn FnMut(&[u8]),
    ) -> Result<()> {
        let [luma_at, cb_at, cr_at, _] = self
            .places()
            .ok_or_else(|| Error::internal("a picture's planes are too large"))?;
        let (chromas, _) = self.chroma();
        let (width, height) = (self.width as usize, self.height as usize);
        let [mut luma, mut cb, mut cr] = [const { Vec::new() }; 3];
        for first in (0..height).step_by(BAND_ROWS) {
            let rows = BAND_ROWS.min(height - first);
            let mut take = |to: &mut Vec<u8>, at: usize, bytes: usize| {
                to.resize(bytes, 0);
                read(at, to)
            };
            let (row, rows_of_chroma) = (first / 2, rows.div_ceil(2));
            take(&mut luma, luma_at + first * width, rows * width)?;
            take(&mut cb, cb_at + row * chromas, rows_of_chroma * chromas)?;
            take(&mut cr, cr_at + row * chromas, rows_of_chroma * chromas)?;
            let plane = |data, stride, sub| Component {
                data,
                stride,
                step: 1,
                depth: 8,
                shift: 0,
                w_sub: sub,
                h_sub: sub,
            };
            let planes = [
                plane(&luma, width, 0),
                plane(&cb, chromas, 1),
                plane(&cr, chromas, 1),
            ];
            yuv_to_rgb(width, rows, planes, self.matrix, self.range, give)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Planes of odd sizes and of two layouts: apart, and Cb beside Cr.
    #[test]
    fn bands_give_the_rows_of_the_whole_picture_to_the_bit() {
        for (width, height) in [(1, 1), (2, 2), (7, 5), (33, 47), (320, 240), (322, 33)] {
            let (w, h) = (width as usize, height as usize);
            let (cw, ch) = (w.div_ceil(2), h.div_ceil(2));
            let noise = |n: usize, seed: u32| -> Vec<u8> {
                let mut state = seed;
                std::iter::repeat_with(|| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .take(n)
                .collect()
            };
            // Rows with gaps between them.
            let (luma, pairs) = (noise((w + 3) * h, 1), noise((2 * cw + 6) * ch, 2));
            let component = |data, stride, step, sub| Component {
                data,
                stride,
                step,
                depth: 8,
                shift: 0,
                w_sub: sub,
                h_sub: sub,
            };
            let parts = [
                component(&luma[..], w + 3, 1, 0),
                component(&pairs[..], 2 * cw + 6, 2, 1),
                component(&pairs[1..], 2 * cw + 6, 2, 1),
            ];
            assert!(Planes::fit(&parts));
            for (matrix, range) in [
                (Matrix::Bt601, Range::Limited),
                (Matrix::Bt709, Range::Full),
            ] {
                let planes = Planes {
                    width,
                    height,
                    matrix,
                    range,
                };
                let mut whole = Vec::new();
                let mut give = |rows: &[u8]| whole.extend_from_slice(rows);
                yuv_to_rgb(w, h, parts, matrix, range, &mut give).unwrap();
                let mut laid = vec![0; planes.bytes().unwrap()];
                planes.lay(parts, &mut laid).unwrap();
                let mut short = vec![0; laid.len() - 8];
                assert!(planes.lay(parts, &mut short).is_err());
                let mut banded = Vec::new();
                let read = |at: usize, to: &mut [u8]| {
                    assert!(at.is_multiple_of(8), "{at} of {width} x {height}");
                    to.copy_from_slice(&laid[at..at + to.len()]);
                    Ok(())
                };
                let mut give = |rows: &[u8]| banded.extend_from_slice(rows);
                planes.rows(read, &mut give).unwrap();
                assert!(banded == whole, "{width} x {height}");
            }
        }
    }

    #[test]
    fn sizes_that_no_memory_has_are_none() {
        let planes = Planes {
            width: u32::MAX,
            height: u32::MAX,
            matrix: Matrix::Bt601,
            range: Range::Limited,
        };
        // On 64 bits they can be counted still.
        assert!(planes.bytes().is_none_or(|bytes| bytes > 1 << 62));
    }
}
