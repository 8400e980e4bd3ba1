//! The motion gate: tells segments in which nothing moves, so that the model need not see them.
//!
//! Each sampled frame is reduced to the mean luma of blocks, 56 along each side of the picture (8 × 8
//! pixels at 448; a picture smaller than 56 pixels has one block a pixel). The difference of two
//! frames is the mean, over the worst 1/64 of the blocks, of the blocks' differences, in parts of
//! full brightness. A segment repeats the last scored segment's score if each of its frames differs
//! by less than the threshold from the frame before it and from the scored segment's frame in the
//! same place. The last *scored* segment is the measure, so that a slow change adds up until it
//! counts.
//!
//! What it cannot see: a change of colour that keeps the luma, and movement of less than a block's
//! detail.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    limits::{GATED_RUN_MAX, MOTION_BLOCKS_PER_SIDE, MOTION_WORST_ONE_IN},
    media::{FrameStamp, MediaTime, SharedImage},
};

#[cfg(test)]
mod tests;

/// Luma of a block, in parts of this: full brightness.
const FULL: u64 = u16::MAX as u64;

/// Weights of red, green and blue in luma (BT.601), in parts of 256.
const LUMA: [u32; 3] = [77, 150, 29];

/// Decides segment by segment; made for one stream.
#[derive(Debug)]
pub struct MotionGate {
    /// In parts of full brightness.
    threshold: f64,
    blocks: Blocks,
    /// The last segment that was to be scored.
    scored: Option<Scored>,
}

#[derive(Debug)]
struct Scored {
    number: u64,
    run: u64,
    end: MediaTime,
    grids: Vec<Arc<[u16]>>,
}

impl MotionGate {
    /// A gate for frames of `side * side` RGB pixels.
    ///
    /// `InvalidArgument` for a threshold that is not more than 0 and at most 1.
    pub fn new(threshold: f64, side: usize) -> Result<MotionGate> {
        // Written so that NaN is refused too.
        if !(threshold > 0.0 && threshold <= 1.0) {
            return Err(Error::invalid(format!(
                "the motion gate's threshold is {threshold}: give more than 0, at most 1"
            ))
            .with_field("motion_gate.threshold"));
        }
        Ok(MotionGate {
            threshold,
            blocks: Blocks::new(side),
            scored: None,
        })
    }

    /// Takes the next segment: its number, its run, the stamps of its frames and its sampled frames.
    /// Gives the number of the earlier segment whose score it repeats, or `None` where it is to be
    /// scored: where something moves, at the start of a run, and where a score would be repeated for
    /// more than [`GATED_RUN_MAX`].
    ///
    /// `Internal` for a frame of another size.
    pub fn repeats(
        &mut self,
        number: u64,
        run: u64,
        stamps: &[FrameStamp],
        frames: &[SharedImage],
    ) -> Result<Option<u64>> {
        let mut grids: Vec<Arc<[u16]>> = Vec::with_capacity(frames.len());
        for (i, frame) in frames.iter().enumerate() {
            let same = i.checked_sub(1).filter(|before| {
                let before = frames.get(*before);
                before.is_some_and(|before| Arc::ptr_eq(&before.data, &frame.data))
            });
            grids.push(match same.and_then(|before| grids.get(before)) {
                Some(grid) => grid.clone(),
                None => self.blocks.grid(&frame.data)?,
            });
        }
        let end = stamps.last().map_or(MediaTime::ZERO, FrameStamp::end);
        if let Some(scored) = &self.scored
            && scored.run == run
            && scored.grids.len() == grids.len()
            && end.saturating_since(scored.end) <= GATED_RUN_MAX
            && grids
                .windows(2)
                .all(|pair| self.is_still(&pair[0], &pair[1]))
            && grids
                .iter()
                .zip(&scored.grids)
                .all(|(grid, before)| self.is_still(grid, before))
        {
            return Ok(Some(scored.number));
        }
        self.scored = Some(Scored {
            number,
            run,
            end,
            grids,
        });
        Ok(None)
    }

    /// The next segment is to be scored, whatever it shows.
    pub fn forget(&mut self) {
        self.scored = None;
    }

    fn is_still(&self, a: &Arc<[u16]>, b: &Arc<[u16]>) -> bool {
        Arc::ptr_eq(a, b) || difference(a, b) < self.threshold
    }
}

/// Mean difference of the worst blocks, in parts of full brightness.
fn difference(a: &[u16], b: &[u16]) -> f64 {
    let mut apart: Vec<u16> = a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).collect();
    let worst = apart.len().div_ceil(MOTION_WORST_ONE_IN);
    let Some(last) = worst.checked_sub(1) else {
        return 0.0;
    };
    let (before, kth, _) = apart.select_nth_unstable_by(last, |a, b| b.cmp(a));
    // Integers, so that the order of the sum does not matter.
    let sum = u64::from(*kth) + before.iter().map(|d| u64::from(*d)).sum::<u64>();
    sum as f64 / (worst as u64 * FULL) as f64
}

/// How a picture is cut into blocks.
#[derive(Clone, Copy, Debug)]
struct Blocks {
    /// Of the picture, pixels.
    side: usize,
    /// Of a block, pixels; the last of a row or column may be smaller.
    block: usize,
}

impl Blocks {
    fn new(side: usize) -> Blocks {
        Blocks {
            side,
            block: side.div_ceil(MOTION_BLOCKS_PER_SIDE).max(1),
        }
    }

    /// Mean luma of each block, in parts of [`FULL`].
    fn grid(&self, frame: &[u8]) -> Result<Arc<[u16]>> {
        let Blocks { side, block } = *self;
        if side == 0 || frame.len() != side * side * 3 {
            return Err(Error::internal(format!(
                "a frame of {} bytes came to the motion gate, not of {side} x {side} x 3",
                frame.len()
            )));
        }
        let mut grid = Vec::with_capacity(side.div_ceil(block) * side.div_ceil(block));
        for rows in frame.chunks(block * side * 3) {
            let high = rows.len() / (side * 3);
            // One per block of this row of blocks.
            let mut sums = vec![0u64; side.div_ceil(block)];
            for row in rows.chunks_exact(side * 3) {
                for (sum, pixels) in sums.iter_mut().zip(row.chunks(block * 3)) {
                    let luma: u32 = pixels
                        .as_chunks::<3>()
                        .0
                        .iter()
                        .map(|[r, g, b]| {
                            LUMA[0] * u32::from(*r)
                                + LUMA[1] * u32::from(*g)
                                + LUMA[2] * u32::from(*b)
                        })
                        .sum();
                    *sum += u64::from(luma);
                }
            }
            for (i, sum) in sums.into_iter().enumerate() {
                let wide = block.min(side - i * block);
                let full = (wide * high) as u64 * 255 * 256;
                // At most FULL: a sum is at most `full`.
                grid.push((sum * FULL / full) as u16);
            }
        }
        Ok(grid.into())
    }
}
