//! A whole product in blocks over the thread pool.

use candle_core::Result;
use rayon::prelude::*;

use super::{
    finish::{Block, Finish},
    isa::Isa,
    layout::{Activation, Panels, pack_rows},
    tile::{COLUMNS, ROWS, tile},
};

/// Most rows of a block, a multiple of a tile's: with 1,024 numbers a row they take 491 kB in bf16
/// and stay in a core's second-level cache while the weights stream past.
const BLOCK_ROWS: usize = 240;

/// Panels whose sums are finished at once: 240 × 128 f32 take 123 kB.
pub const BLOCK_PANELS: usize = 4;
/// Their columns.
pub const BLOCK_COLUMNS: usize = BLOCK_PANELS * COLUMNS;

/// A product's left side: `rows` rows of `width` numbers, one after another.
#[derive(Clone, Copy)]
pub struct Rows<'a, T> {
    pub x: &'a [T],
    pub width: usize,
}

/// `x Wᵀ`, finished into `out`, whose rows have `out_width` numbers.
///
/// A row's result does not depend on which rows lie beside it, nor on the number of threads.
pub fn product<T: Activation, F: Finish>(
    isa: Isa,
    Rows { x, width }: Rows<'_, T>,
    (weights, columns): (&Panels, usize),
    (out, out_width): (&mut [F::Out], usize),
    finish: &F,
) -> Result<()> {
    let fits = width > 0
        && out_width > 0
        && x.len().is_multiple_of(width)
        && weights.depth() == width.div_ceil(2)
        && weights.count() == columns.div_ceil(COLUMNS)
        && out.len() == x.len() / width * out_width;
    if !fits {
        candle_core::bail!(
            "{} numbers in rows of {width} do not fit weights of {} inputs and {columns} outputs",
            x.len(),
            weights.depth() * 2
        );
    }
    let rows = x.len() / width;
    let threads = rayon::current_num_threads();
    let block = block_rows(rows, threads);
    if rows.div_ceil(ROWS) < threads {
        few_rows(
            isa,
            Rows { x, width },
            (weights, columns),
            (out, out_width),
            finish,
        );
        return Ok(());
    }
    x.par_chunks(block * width)
        .zip(out.par_chunks_mut(block * out_width))
        .with_max_len(1)
        .for_each_init(
            || (Vec::new(), Vec::new()),
            |(packed, sums), (x, out)| {
                let rows = x.len() / width;
                pack_rows(x, width, width, rows, packed);
                let sums = scratch(sums, rows);
                for first in (0..weights.count()).step_by(BLOCK_PANELS) {
                    multiply(isa, packed, weights, (first, BLOCK_PANELS), sums);
                    finish.finish(finished(sums, rows, first, columns), out);
                }
            },
        );
    Ok(())
}

/// Rows of each block, whole tiles: as many blocks for each thread, but for those that the rounding to tiles leaves out, and no
/// larger than [`BLOCK_ROWS`].
fn block_rows(rows: usize, threads: usize) -> usize {
    let blocks = rows.div_ceil(BLOCK_ROWS).next_multiple_of(threads.max(1));
    rows.div_ceil(blocks.max(1)).next_multiple_of(ROWS)
}

/// Room for the sums of `rows` rows and [`BLOCK_PANELS`] panels.
fn scratch(sums: &mut Vec<f32>, rows: usize) -> &mut [f32] {
    sums.resize(rows.next_multiple_of(ROWS) * BLOCK_COLUMNS, 0.0);
    sums
}

fn multiply(
    isa: Isa,
    packed: &[super::tile::RowPair],
    weights: &Panels,
    (first, count): (usize, usize),
    sums: &mut [f32],
) {
    let stride = BLOCK_COLUMNS;
    for (number, panel) in weights.part(first, count).enumerate() {
        for (rows, sums) in packed
            .chunks_exact(weights.depth())
            .zip(sums.chunks_mut(ROWS * stride))
        {
            if let Some(sums) = sums.get_mut(number * COLUMNS..) {
                tile(isa, rows, panel, sums, stride, false);
            }
        }
    }
}

fn finished(sums: &mut [f32], rows: usize, first: usize, columns: usize) -> Block<'_> {
    let column = first * COLUMNS;
    Block {
        sums,
        stride: BLOCK_COLUMNS,
        rows,
        column,
        columns: BLOCK_COLUMNS.min(columns - column),
    }
}

/// [`product`] of so few rows that the threads share the columns instead.
fn few_rows<T: Activation, F: Finish>(
    isa: Isa,
    Rows { x, width }: Rows<'_, T>,
    (weights, columns): (&Panels, usize),
    (out, _): (&mut [F::Out], usize),
    finish: &F,
) {
    let rows = x.len() / width;
    let mut packed = Vec::new();
    pack_rows(x, width, width, rows, &mut packed);
    let firsts: Vec<usize> = (0..weights.count()).step_by(BLOCK_PANELS).collect();
    let mut blocks: Vec<Vec<f32>> = firsts
        .par_iter()
        .map(|&first| {
            let mut sums = Vec::new();
            scratch(&mut sums, rows);
            multiply(isa, &packed, weights, (first, BLOCK_PANELS), &mut sums);
            sums
        })
        .collect();
    for (&first, sums) in firsts.iter().zip(&mut blocks) {
        finish.finish(finished(sums, rows, first, columns), out);
    }
}
