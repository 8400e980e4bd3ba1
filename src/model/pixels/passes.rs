//! The resize as a device does it: two passes over packed pictures, each along one axis by a table.

use super::{axis, vertical_first};

/// From u8 `[outer, from, inner]` to `[outer, to, inner]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    pub outer: usize,
    pub from: usize,
    pub to: usize,
    pub inner: usize,
}

/// What makes pictures of `side * side` pixels of as many of this size, in Pillow's order. A pass that keeps its
/// size, which Pillow leaves out, changes no level.
pub fn passes((width, height): (u32, u32), side: usize, pictures: usize) -> [Pass; 2] {
    let (width, height) = (width as usize, height as usize);
    let across = |rows: usize| Pass {
        outer: pictures * rows,
        from: width,
        to: side,
        inner: 3,
    };
    let down = |columns: usize| Pass {
        outer: pictures,
        from: height,
        to: side,
        inner: columns * 3,
    };
    if vertical_first(width, height, side) {
        [down(width), across(side)]
    } else {
        [across(height), down(side)]
    }
}

/// First source pixel of each target pixel along an axis, and as many weights of each.
pub fn table(from: usize, to: usize) -> (Vec<usize>, Vec<i32>) {
    let axis = axis(from, to);
    let (starts, weights) = axis.table();
    (starts.to_vec(), weights.to_vec())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        media::{RgbImage, rgb_bytes},
        model::pixels::resize_bicubic,
    };

    /// The kernel `resample` of resize.cu, thread by thread.
    fn resample(source: &[u8], pass: Pass) -> Vec<u8> {
        let Pass {
            outer,
            from,
            to,
            inner,
        } = pass;
        let (starts, weights) = table(from, to);
        let taps = weights.len() / to;
        (0..outer * to * inner)
            .map(|i| {
                let (target, outer) = (i / inner % to, i / inner / to);
                let first = (outer * from + starts[target]) * inner + i % inner;
                let sum: i32 = (0..taps)
                    .map(|k| i32::from(source[first + k * inner]) * weights[target * taps + k])
                    .sum();
                ((sum + (1 << 21)) >> 22).clamp(0, 255) as u8
            })
            .collect()
    }

    #[test]
    fn two_passes_of_packed_pictures_give_the_same_bytes() {
        let side = 56;
        // Smaller, one side kept, stretched, wide, tall so that the vertical pass is first, a single column.
        for size in [
            (40, 30),
            (56, 30),
            (30, 56),
            (104, 30),
            (21, 149),
            (3, 100),
            (1, 1),
            (56, 56),
        ] {
            let picture = |seed: u32| RgbImage {
                width: size.0,
                height: size.1,
                data: (0..rgb_bytes(size) as u32)
                    .map(|i| ((i + seed).wrapping_mul(2_654_435_761) >> 24) as u8)
                    .collect(),
            };
            let pictures = [picture(1), picture(77)];
            let packed: Vec<u8> = pictures.iter().flat_map(|p| p.data.clone()).collect();
            let [first, second] = passes(size, side, pictures.len());
            let between = resample(&packed, first);
            assert!(
                between.len() <= pictures.len() * 3 * side * side,
                "{size:?}"
            );
            let expected: Vec<u8> = pictures
                .iter()
                .flat_map(|p| resize_bicubic(p, side as u32).unwrap())
                .collect();
            assert_eq!(resample(&between, second), expected, "{size:?}");
        }
    }
}
