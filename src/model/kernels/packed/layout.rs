//! Matrices as the tiles read them: panels of rows or columns, two numbers of each side by side.

use half::bf16;
use rayon::prelude::*;

use super::tile::{COLUMNS, ColumnPair, ROWS, RowPair};
use crate::model::weights::{RawTensor, StoredDtype, number};

const ZERO: ColumnPair = ColumnPair([0; COLUMNS]);

/// Two bf16 as the tiles take them.
#[inline(always)]
pub fn pair(first: bf16, second: bf16) -> u32 {
    u32::from(first.to_bits()) | u32::from(second.to_bits()) << 16
}

/// The weights of `x Wᵀ`: for each 32 rows of W a panel, its numbers in pairs along the row. What
/// the last panel lacks is zero.
pub struct Panels {
    pairs: Vec<ColumnPair>,
    depth: usize,
}

impl Panels {
    /// `count` panels of `depth` pairs each. `row` gives the bytes of the W row that makes column
    /// `i` of panel `p`, or nothing for a column of zeros; each has `2 * depth` numbers, or one less.
    pub fn of_rows<'a>(
        count: usize,
        depth: usize,
        row: impl Fn(usize, usize) -> Option<RawTensor<'a>> + Sync,
    ) -> Self {
        let mut pairs = vec![ZERO; count * depth];
        if depth > 0 {
            pairs
                .par_chunks_mut(depth)
                .enumerate()
                .for_each(|(panel, pairs)| {
                    for column in 0..COLUMNS {
                        if let Some(row) = row(panel, column) {
                            fill(pairs, column, row);
                        }
                    }
                });
        }
        Panels { pairs, depth }
    }

    /// Pairs of each panel.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Panels.
    pub fn count(&self) -> usize {
        self.pairs.len() / self.depth.max(1)
    }

    /// The panels in order.
    pub fn iter(&self) -> impl Iterator<Item = &[ColumnPair]> {
        self.pairs.chunks_exact(self.depth.max(1))
    }

    /// Panels from `first` on, at most `count`.
    pub fn part(&self, first: usize, count: usize) -> impl Iterator<Item = &[ColumnPair]> {
        self.iter().skip(first).take(count)
    }
}

/// Puts a row of numbers into one column of a panel.
fn fill(pairs: &mut [ColumnPair], column: usize, row: RawTensor<'_>) {
    let size = row.dtype.size();
    let whole = row.bytes.chunks_exact(2 * size);
    let rest = whole.remainder();
    let slots = pairs.iter_mut().map(|pair| &mut pair.0[column]);
    let one = |bytes: &[u8]| bf16::from_f32(number(row.dtype, bytes));
    if row.dtype == StoredDtype::Bf16 {
        for (slot, b) in slots.zip(whole) {
            *slot = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        }
    } else {
        for (slot, b) in slots.zip(whole) {
            let (first, second) = b.split_at(size);
            *slot = pair(one(first), one(second));
        }
    }
    if let (Some(last), false) = (pairs.last_mut(), rest.is_empty()) {
        last.0[column] = pair(one(rest), bf16::ZERO);
    }
}

/// A number that a row of activations holds.
pub trait Activation: Copy + Sync {
    /// Rounded to the nearest.
    fn bf16(self) -> bf16;
}

impl Activation for bf16 {
    #[inline(always)]
    fn bf16(self) -> bf16 {
        self
    }
}

impl Activation for f32 {
    #[inline(always)]
    fn bf16(self) -> bf16 {
        bf16::from_f32(self)
    }
}

/// Packs rows of `width`, `stride` apart in `x`, into panels of [`ROWS`] rows, each of
/// `width / 2` pairs, rounded up. Rows that the last panel lacks are zero.
pub fn pack_rows<T: Activation>(
    x: &[T],
    width: usize,
    stride: usize,
    rows: usize,
    out: &mut Vec<RowPair>,
) {
    let depth = width.div_ceil(2);
    out.resize(rows.div_ceil(ROWS) * depth, [0; ROWS]);
    for (panel, first) in out.chunks_exact_mut(depth).zip((0..rows).step_by(ROWS)) {
        let count = ROWS.min(rows - first);
        if count < ROWS {
            panel.fill([0; ROWS]);
        }
        let row = |row: usize| {
            let at = (first + row) * stride;
            x.get(at..at + width).unwrap_or_default()
        };
        debug_assert_eq!(row(count - 1).len(), width);
        // Four rows at a time where there are four: one store instead of four.
        let grouped = count - count % GROUP;
        for group in (0..grouped).step_by(GROUP) {
            let [a, b, c, d] = [0, 1, 2, 3].map(|i| row(group + i).chunks_exact(2));
            for (slot, ((a, b), (c, d))) in panel.iter_mut().zip(a.zip(b).zip(c.zip(d))) {
                let pairs = [a, b, c, d].map(|x| pair(x[0].bf16(), x[1].bf16()));
                slot[group..group + GROUP].copy_from_slice(&pairs);
            }
        }
        for i in grouped..count {
            for (slot, x) in panel.iter_mut().zip(row(i).chunks_exact(2)) {
                slot[i] = pair(x[0].bf16(), x[1].bf16());
            }
        }
        // Of an odd width the last number is alone.
        if let (Some(slot), false) = (panel.last_mut(), width.is_multiple_of(2)) {
            for (i, slot) in slot.iter_mut().enumerate().take(count) {
                let last = row(i).last().map_or(bf16::ZERO, |x| x.bf16());
                *slot = pair(last, bf16::ZERO);
            }
        }
    }
}

/// Rows that are packed at once.
const GROUP: usize = 4;
