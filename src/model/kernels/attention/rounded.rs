//! Attention in bf16 on the CPU: both products by the tiles of [`packed`](super::super::packed),
//! scores, their softmax and the sums in f32.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape};
use half::bf16;
use rayon::prelude::*;

use super::{Heads, check};
use crate::{
    limits::ATTENTION_KEY_ROWS,
    model::kernels::{
        math::{Running, exp_round, round, scale},
        packed::{COLUMNS, ColumnPair, Isa, ROWS, RowPair, pack_rows, tile},
    },
};

/// Query rows of a strip: its scores (24 × 512 f32, 49 kB) and weights stay near the core while the
/// keys and values of a tile (131 kB at d = 64) come from the second-level cache.
const STRIP_ROWS: usize = 2 * ROWS;

// The keys of a tile are whole panels, and its values whole pairs.
const _: () = assert!(ATTENTION_KEY_ROWS.is_multiple_of(COLUMNS));

/// Query rows of a task, which runs all heads of them.
const TASK_ROWS: usize = 4 * STRIP_ROWS;

/// See [`super::attention`].
pub struct Tiled<'a> {
    heads: &'a Heads,
    isa: Isa,
}

impl<'a> Tiled<'a> {
    /// With the fastest tiles of this CPU.
    pub fn new(heads: &'a Heads) -> Self {
        Self::with_isa(heads, Isa::best())
    }

    /// With these tiles, which must be available.
    pub fn with_isa(heads: &'a Heads, isa: Isa) -> Self {
        Tiled { heads, isa }
    }
}

/// The numbers of a contiguous bf16 tensor.
fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [bf16]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::BF16(v), Some((start, end))) => v
            .get(start..end)
            .ok_or_else(|| candle_core::Error::msg("attention: layout past its storage")),
        _ => candle_core::bail!("attention: contiguous bf16 tensors are needed"),
    }
}

impl CustomOp3 for Tiled<'_> {
    fn name(&self) -> &'static str {
        "attention in bf16"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let heads = self.heads;
        let (_, length, width) = q_layout.shape().dims3()?;
        let (_, keys, kv_width) = k_layout.shape().dims3()?;
        let offset = check(q_layout.shape(), k_layout.shape(), v_layout.shape(), heads)?;
        let (q, k, v) = (
            numbers(q, q_layout)?,
            numbers(k, k_layout)?,
            numbers(v, v_layout)?,
        );
        let mut out = vec![bf16::ZERO; q.len()];
        // Of every batch entry before any of them is gone through: one has fewer tasks than a large machine has threads.
        let entries: Vec<_> = k
            .chunks_exact(keys * kv_width)
            .zip(v.chunks_exact(keys * kv_width))
            .collect();
        let packed: Vec<KeysValues> = (0..entries.len() * heads.kv_heads)
            .into_par_iter()
            .filter_map(|number| {
                let (entry, head) = (number / heads.kv_heads, number % heads.kv_heads);
                let (k, v) = entries.get(entry)?;
                let at = head * heads.dim;
                Some(KeysValues::pack(k, v, kv_width, at, heads.dim))
            })
            .collect();
        let tasks: Vec<_> = q
            .chunks_exact(length * width)
            .zip(out.chunks_exact_mut(length * width))
            .zip(packed.chunks_exact(heads.kv_heads))
            .flat_map(|((q, out), packed)| {
                let parts = q
                    .chunks(TASK_ROWS * width)
                    .zip(out.chunks_mut(TASK_ROWS * width));
                let firsts = (offset..).step_by(TASK_ROWS);
                firsts
                    .zip(parts)
                    .map(move |(first, part)| (first, part, packed))
            })
            .collect();
        tasks.into_par_iter().with_max_len(1).for_each_init(
            Scratch::default,
            |scratch, (first, (q, out), packed)| {
                let strip = STRIP_ROWS * width;
                for (head, &kv) in heads.kv_of.iter().enumerate() {
                    let Some(packed) = packed.get(kv) else {
                        continue;
                    };
                    let strips = q.chunks(strip).zip(out.chunks_mut(strip));
                    for (number, (q, out)) in strips.enumerate() {
                        let strip = Strip {
                            isa: self.isa,
                            heads,
                            q,
                            rows: q.len() / width,
                            width,
                            first: first + number * STRIP_ROWS,
                        };
                        strip.run(head, packed, scratch, out);
                    }
                }
            },
        );
        Ok((CpuStorage::BF16(out), q_layout.shape().clone()))
    }
}

/// Keys and values of one head as the tiles read them.
struct KeysValues {
    keys: usize,
    /// For each 32 keys a panel: their numbers in pairs along the head's dimensions.
    k: Vec<ColumnPair>,
    /// For each 32 dimensions a panel: their numbers in pairs of keys.
    v: Vec<ColumnPair>,
}

const ZERO: ColumnPair = ColumnPair([0; COLUMNS]);

fn pair(first: bf16, second: bf16) -> u32 {
    u32::from(first.to_bits()) | u32::from(second.to_bits()) << 16
}

impl KeysValues {
    /// Of the head whose `dim` numbers begin at `at` in each row of `k` and `v`, rows of `width`.
    fn pack(k: &[bf16], v: &[bf16], width: usize, at: usize, dim: usize) -> Self {
        let keys = k.len() / width;
        let depth = dim.div_ceil(2);
        let mut packed_k = vec![ZERO; keys.div_ceil(COLUMNS) * depth];
        for (key, k) in k.chunks_exact(width).enumerate() {
            let k = &k[at..at + dim];
            let panel = &mut packed_k[key / COLUMNS * depth..][..depth];
            for (slot, k) in panel.iter_mut().zip(k.chunks(2)) {
                let second = k.get(1).copied().unwrap_or(bf16::ZERO);
                slot.0[key % COLUMNS] = pair(k[0], second);
            }
        }
        let depth = keys.div_ceil(2);
        let mut packed_v = vec![ZERO; dim.div_ceil(COLUMNS) * depth];
        for (number, v) in v.chunks(2 * width).enumerate() {
            let (first, second) = v.split_at(width);
            for d in 0..dim {
                let second = second.get(at + d).copied().unwrap_or(bf16::ZERO);
                packed_v[d / COLUMNS * depth + number].0[d % COLUMNS] = pair(first[at + d], second);
            }
        }
        KeysValues {
            keys,
            k: packed_k,
            v: packed_v,
        }
    }
}

/// Room that a thread uses again and again.
#[derive(Default)]
struct Scratch {
    q: Vec<RowPair>,
    scores: Vec<f32>,
    weights: Vec<bf16>,
    packed: Vec<RowPair>,
    sums: Vec<f32>,
}

/// A few queries of one batch entry.
struct Strip<'a> {
    isa: Isa,
    heads: &'a Heads,
    /// Rows of all heads.
    q: &'a [bf16],
    rows: usize,
    width: usize,
    /// Position of the first query.
    first: usize,
}

impl Strip<'_> {
    /// One head of the strip against all keys that it sees.
    fn run(&self, head: usize, with: &KeysValues, scratch: &mut Scratch, out: &mut [bf16]) {
        let Heads { dim, causal, .. } = *self.heads;
        let seen = if causal {
            (self.first + self.rows).min(with.keys)
        } else {
            with.keys
        };
        let factor = 1.0 / (dim as f32).sqrt();
        let (depth, key_pairs) = (dim.div_ceil(2), with.keys.div_ceil(2));
        let padded_dim = dim.next_multiple_of(COLUMNS);
        let Scratch {
            q,
            scores,
            weights,
            packed,
            sums,
        } = scratch;
        pack_rows(&self.q[head * dim..], dim, self.width, self.rows, q);
        scores.resize(STRIP_ROWS * ATTENTION_KEY_ROWS, 0.0);
        weights.resize(STRIP_ROWS * ATTENTION_KEY_ROWS, bf16::ZERO);
        sums.resize(STRIP_ROWS * padded_dim, 0.0);
        let mut running = [Running::START; STRIP_ROWS];
        for start in (0..seen).step_by(ATTENTION_KEY_ROWS) {
            let count = ATTENTION_KEY_ROWS.min(seen - start);
            let first_panel = start / COLUMNS * depth;
            let panels = with.k[first_panel..].chunks_exact(depth);
            for (panel, k) in panels.take(count.div_ceil(COLUMNS)).enumerate() {
                for (q, scores) in q
                    .chunks_exact(depth)
                    .zip(scores.chunks_exact_mut(ROWS * ATTENTION_KEY_ROWS))
                {
                    let scores = &mut scores[panel * COLUMNS..];
                    tile(self.isa, q, k, scores, ATTENTION_KEY_ROWS, false);
                }
            }
            let rows = scores
                .chunks_exact_mut(ATTENTION_KEY_ROWS)
                .zip(weights.chunks_exact_mut(ATTENTION_KEY_ROWS))
                .zip(sums.chunks_exact_mut(padded_dim))
                .zip(&mut running)
                .take(self.rows);
            for (row, (((scores, weights), sums), running)) in rows.enumerate() {
                let valid = if causal {
                    (self.first + row + 1).saturating_sub(start).min(count)
                } else {
                    count
                };
                let (scores, weights) = (&mut scores[..count], &mut weights[..count]);
                let shrink = exp_round(scores, valid, factor, running, weights);
                if start > 0 && shrink != 1.0 {
                    scale(sums, shrink);
                }
            }
            pack_rows(weights, count, ATTENTION_KEY_ROWS, self.rows, packed);
            let depth = count.div_ceil(2);
            for (panel, v) in with.v.chunks_exact(key_pairs).enumerate() {
                let v = &v[start / 2..start / 2 + depth];
                for (weights, sums) in packed
                    .chunks_exact(depth)
                    .zip(sums.chunks_exact_mut(ROWS * padded_dim))
                {
                    let sums = &mut sums[panel * COLUMNS..];
                    tile(self.isa, weights, v, sums, padded_dim, start > 0);
                }
            }
        }
        let rows = sums
            .chunks_exact_mut(padded_dim)
            .zip(out.chunks_exact_mut(self.width))
            .zip(&running)
            .take(self.rows);
        for ((sums, out), running) in rows {
            let sums = &mut sums[..dim];
            scale(sums, 1.0 / running.sum);
            round(sums, &mut out[head * dim..(head + 1) * dim]);
        }
    }
}
