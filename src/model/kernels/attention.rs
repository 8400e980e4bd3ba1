//! Grouped-query attention in tiles: scores of all positions against all positions never exist at
//! once.

mod rounded;

#[cfg(test)]
pub use rounded::Tiled as Rounded;

use candle_core::{CpuStorage, CustomOp3, DType, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{
    cpu::numbers,
    math::{Running, scale, softmax_step},
};
use crate::limits::{ATTENTION_KEY_ROWS, ATTENTION_QUERY_ROWS};

/// How the heads of an attention layer lie.
#[derive(Clone, Debug)]
pub struct Heads {
    /// For each query head its key/value head.
    pub kv_of: Vec<usize>,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Numbers per head.
    pub dim: usize,
    /// Whether a query sees only the keys up to its own position; the last query stands at the
    /// last key.
    pub causal: bool,
}

impl Heads {
    /// Every query head has its own keys, and every position is seen.
    pub fn full(heads: usize, dim: usize) -> Self {
        Heads {
            kv_of: (0..heads).collect(),
            kv_heads: heads,
            dim,
            causal: false,
        }
    }

    /// Causal; each key/value head serves `heads / kv_heads` query heads in a row.
    pub fn grouped(heads: usize, kv_heads: usize, dim: usize) -> Self {
        let group = heads / kv_heads.max(1);
        Heads {
            kv_of: (0..heads).map(|h| h / group.max(1)).collect(),
            kv_heads,
            dim,
            causal: true,
        }
    }
}

/// softmax(q kᵀ / √dim) v for each head: `q` `[batch, length, heads * dim]`, `k` and `v`
/// `[batch, keys, kv_heads * dim]`, result like `q`. With `causal`, `keys ≥ length`, and query i
/// stands at position `keys − length + i`.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: &Heads) -> Result<Tensor> {
    let cpu = q.device().is_cpu();
    if cpu && matches!(q.dtype(), DType::F32 | DType::BF16) {
        let (q, k, v) = (q.contiguous()?, k.contiguous()?, v.contiguous()?);
        return match q.dtype() {
            DType::BF16 => q.apply_op3_no_bwd(&k, &v, &rounded::Tiled::new(heads)),
            _ => q.apply_op3_no_bwd(&k, &v, &Tiled { heads }),
        };
    }
    #[cfg(feature = "cuda")]
    {
        check(q.shape(), k.shape(), v.shape(), heads)?;
        if let Some(out) = super::cuda::attention(q, k, v, heads) {
            return out;
        }
    }
    attention_plain(q, k, v, heads)
}

/// Query rows of one product of [`attention_plain`]: the scores of all heads of the 8B model at
/// 4,272 tokens take 245 MB in f32.
const PLAIN_QUERY_ROWS: usize = 512;

/// [`attention`] in candle's own operations: all heads of a block of queries at a time.
pub fn attention_plain(q: &Tensor, k: &Tensor, v: &Tensor, heads: &Heads) -> Result<Tensor> {
    let (batch, length, _) = q.dims3()?;
    let keys = k.dim(1)?;
    let offset = check(q.shape(), k.shape(), v.shape(), heads)?;
    let split = |x: &Tensor, count: usize| {
        x.reshape((batch, x.dim(1)?, count, heads.dim))?
            .transpose(1, 2)?
            .contiguous()
    };
    let count = heads.kv_of.len();
    let q = split(q, count)?;
    let mut k = split(k, heads.kv_heads)?;
    let mut v = split(v, heads.kv_heads)?;
    let group = count / heads.kv_heads;
    let in_order = count.is_multiple_of(heads.kv_heads)
        && heads
            .kv_of
            .iter()
            .enumerate()
            .all(|(h, &kv)| kv == h / group);
    // Heads that share their keys lie next to each other: their rows go into one product. Any
    // other order gets a copy of its keys for each head.
    let kv_heads = if in_order {
        heads.kv_heads
    } else {
        let order: Vec<u32> = heads.kv_of.iter().map(|&kv| kv as u32).collect();
        let order = Tensor::new(order, q.device())?;
        k = k.index_select(&order, 1)?;
        v = v.index_select(&order, 1)?;
        count
    };
    let group = count / kv_heads;
    let factor = 1.0 / (heads.dim as f64).sqrt();
    let mut blocks = Vec::new();
    for first in (0..length).step_by(PLAIN_QUERY_ROWS) {
        let rows = PLAIN_QUERY_ROWS.min(length - first);
        let seen = if heads.causal {
            offset + first + rows
        } else {
            keys
        };
        let queries = q.narrow(2, first, rows)?.contiguous()?.reshape((
            batch,
            kv_heads,
            group * rows,
            heads.dim,
        ))?;
        let keys = k.narrow(2, 0, seen)?.contiguous()?;
        let values = v.narrow(2, 0, seen)?.contiguous()?;
        let mut scores = (queries.matmul(&keys.t()?)? * factor)?
            .to_dtype(DType::F32)?
            .reshape((batch, count, rows, seen))?;
        if heads.causal {
            let mask = causal_mask(rows, seen, offset + first, q.device())?;
            scores = scores.broadcast_add(&mask)?;
        }
        let weights = candle_nn::ops::softmax_last_dim(&scores)?
            .to_dtype(values.dtype())?
            .reshape((batch, kv_heads, group * rows, seen))?;
        let block = weights
            .matmul(&values)?
            .reshape((batch, count, rows, heads.dim))?;
        blocks.push(block.transpose(1, 2)?);
    }
    Tensor::cat(&blocks, 1)?.contiguous()?.flatten_from(2)
}

/// f32 `[rows, seen]`: 0 where row i, at position `first + i`, sees the key, and elsewhere a
/// number that no score outweighs. Made on the device: sending it there would take longer than
/// the products.
fn causal_mask(rows: usize, seen: usize, first: usize, device: &Device) -> Result<Tensor> {
    let keys = Tensor::arange(0, seen as u32, device)?.unsqueeze(0)?;
    let own = Tensor::arange(first as u32, (first + rows) as u32, device)?.unsqueeze(1)?;
    keys.broadcast_gt(&own)?.to_dtype(DType::F32)? * -1e30
}

/// Checks the shapes and returns the position of the first query.
fn check(q: &Shape, k: &Shape, v: &Shape, heads: &Heads) -> Result<usize> {
    let (batch, length, width) = q.dims3()?;
    let (key_batch, keys, key_width) = k.dims3()?;
    let fits = key_batch == batch
        && k == v
        && width == heads.kv_of.len() * heads.dim
        && key_width == heads.kv_heads * heads.dim
        && heads.kv_of.iter().all(|&kv| kv < heads.kv_heads)
        && width > 0
        && length > 0
        && keys > 0
        && heads.dim > 0
        && (!heads.causal || keys >= length);
    if !fits {
        candle_core::bail!("attention: q {q:?}, k {k:?}, v {v:?} do not fit {heads:?}");
    }
    Ok(keys.saturating_sub(length))
}

struct Tiled<'a> {
    heads: &'a Heads,
}

impl CustomOp3 for Tiled<'_> {
    fn name(&self) -> &'static str {
        "attention"
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
        let q = numbers(q, q_layout, self.name())?;
        let k = numbers(k, k_layout, self.name())?;
        let v = numbers(v, v_layout, self.name())?;
        let mut out = vec![0.0; q.len()];
        // One task for a block of queries of one batch entry: its part of the output is one
        // slice of rows.
        let mut tasks = Vec::new();
        for ((q, k), (v, out)) in q
            .chunks_exact(length * width)
            .zip(k.chunks_exact(keys * kv_width))
            .zip(
                v.chunks_exact(keys * kv_width)
                    .zip(out.chunks_exact_mut(length * width)),
            )
        {
            let block = ATTENTION_QUERY_ROWS * width;
            for (i, (q, out)) in q.chunks(block).zip(out.chunks_mut(block)).enumerate() {
                let first = offset + i * ATTENTION_QUERY_ROWS;
                tasks.push((q, k, v, out, first));
            }
        }
        tasks
            .into_par_iter()
            .with_max_len(1)
            .try_for_each(|(q, k, v, out, first)| {
                let block = Block {
                    heads,
                    q,
                    k,
                    v,
                    first,
                    rows: q.len() / width,
                    keys,
                };
                block.run(out)
            })?;
        Ok((CpuStorage::F32(out), q_layout.shape().clone()))
    }
}

/// A block of queries of one batch entry against all keys that it sees.
struct Block<'a> {
    heads: &'a Heads,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    /// Position of the first query.
    first: usize,
    rows: usize,
    keys: usize,
}

impl Block<'_> {
    fn run(&self, out: &mut [f32]) -> Result<()> {
        let Heads { dim, causal, .. } = *self.heads;
        let width = self.heads.kv_of.len() * dim;
        let kv_width = self.heads.kv_heads * dim;
        let seen = if causal {
            self.first + self.rows
        } else {
            self.keys
        };
        let factor = 1.0 / (dim as f32).sqrt();
        let tile = ATTENTION_KEY_ROWS.min(seen);
        let mut scores = vec![0.0; self.rows * tile];
        for (head, &kv) in self.heads.kv_of.iter().enumerate() {
            let mut running = vec![Running::START; self.rows];
            for start in (0..seen).step_by(ATTENTION_KEY_ROWS) {
                let count = ATTENTION_KEY_ROWS.min(seen - start);
                let at = start * kv_width + kv * dim;
                let (Some(q), Some(k), Some(v), Some(out)) = (
                    self.q.get(head * dim..),
                    self.k.get(at..),
                    self.v.get(at..),
                    out.get_mut(head * dim..),
                ) else {
                    candle_core::bail!("attention: head {head} lies outside its tensors");
                };
                product(
                    [self.rows, count, dim],
                    (&mut scores, tile),
                    false,
                    (q, width, 1),
                    (k, 1, kv_width),
                    factor,
                )?;
                for (row, (scores, running)) in
                    scores.chunks_exact_mut(tile).zip(&mut running).enumerate()
                {
                    let valid = if causal {
                        (self.first + row + 1).saturating_sub(start).min(count)
                    } else {
                        count
                    };
                    let earlier = running.sum != 0.0;
                    let shrink = softmax_step(&mut scores[..count], valid, running);
                    if earlier && shrink != 1.0 {
                        let at = row * width;
                        scale(&mut out[at..at + dim], shrink);
                    }
                }
                product(
                    [self.rows, dim, count],
                    (out, width),
                    start > 0,
                    (&scores, tile, 1),
                    (v, kv_width, 1),
                    1.0,
                )?;
            }
            for (row, running) in running.iter().enumerate() {
                let at = row * width + head * dim;
                scale(&mut out[at..at + dim], 1.0 / running.sum);
            }
        }
        Ok(())
    }
}

/// `out = factor · a b`, or `out + factor · a b` where `accumulate`; sizes `[m, n, k]`, `out` with
/// its row stride, `a` and `b` with row and column strides.
fn product(
    [m, n, k]: [usize; 3],
    (out, out_rows): (&mut [f32], usize),
    accumulate: bool,
    (a, a_rows, a_cols): (&[f32], usize, usize),
    (b, b_rows, b_cols): (&[f32], usize, usize),
    factor: f32,
) -> Result<()> {
    let reach = |rows: usize, cols: usize, row_stride: usize, col_stride: usize| {
        (rows.max(1) - 1) * row_stride + (cols.max(1) - 1) * col_stride + 1
    };
    if m == 0
        || n == 0
        || k == 0
        || n > out_rows
        || reach(m, n, out_rows, 1) > out.len()
        || reach(m, k, a_rows, a_cols) > a.len()
        || reach(k, n, b_rows, b_cols) > b.len()
    {
        candle_core::bail!("attention: a product of {m}x{n}x{k} reaches outside its slices");
    }
    // SAFETY: all elements that the strides reach lie inside the slices (just checked), `out` is
    // borrowed exclusively, and its rows do not overlap.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_rows as isize,
            accumulate,
            a.as_ptr(),
            a_cols as isize,
            a_rows as isize,
            b.as_ptr(),
            b_cols as isize,
            b_rows as isize,
            1.0f32,
            factor,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
    Ok(())
}
