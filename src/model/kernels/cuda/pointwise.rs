//! Norms, activations, residuals and the rotary embedding; see `pointwise.cu`.

use std::sync::Arc;

use candle_core::{
    DType, Result, Tensor,
    cuda::{
        WrapErr,
        cudarc::driver::{CudaFunction, CudaModule, LaunchArgs, LaunchConfig, PushKernelArg},
    },
};
use half::bf16;

use super::{CHUNK, Kernels, function, int, whole};
use crate::model::kernels::Norm;

/// Threads of a block.
const THREADS: u32 = 256;
/// Blocks per multiprocessor for what goes over a tensor once: two rounds of as many as it holds.
const BLOCKS: u32 = 16;
/// Widest row of a norm: see `CHUNKS_MAX` in the kernels.
const NORM_CHUNKS_MAX: usize = 8 * THREADS as usize;

pub struct Functions {
    rms_norm: CudaFunction,
    layer_norm: CudaFunction,
    add_scaled_rms_norm: CudaFunction,
    add_scaled_layer_norm: CudaFunction,
    add_scaled: CudaFunction,
    gelu_bias: CudaFunction,
    add_bias: CudaFunction,
    silu_mul: CudaFunction,
    rotary: CudaFunction,
}

impl Functions {
    pub fn load(module: &Arc<CudaModule>) -> Result<Self> {
        let function = |name| function(module, name);
        Ok(Functions {
            rms_norm: function("rms_norm")?,
            layer_norm: function("layer_norm")?,
            add_scaled_rms_norm: function("add_scaled_rms_norm")?,
            add_scaled_layer_norm: function("add_scaled_layer_norm")?,
            add_scaled: function("add_scaled")?,
            gelu_bias: function("gelu_bias")?,
            add_bias: function("add_bias")?,
            silu_mul: function("silu_mul")?,
            rotary: function("rotary")?,
        })
    }
}

fn check(norm: &Norm, width: usize) -> Result<()> {
    whole(norm.weight, width, "norm")?;
    norm.bias.map_or(Ok(()), |bias| whole(bias, width, "norm"))
}

/// Rows and chunks of a row of a tensor whose rows are the last dimension.
fn rows(x: &Tensor) -> (usize, usize) {
    let width = x.dims().last().copied().unwrap_or(0);
    (x.elem_count() / width.max(1), width / CHUNK)
}

/// One block a row, with a thread for every chunk as far as that goes.
fn row_blocks(rows: usize, chunks: usize) -> Result<LaunchConfig> {
    let threads = (chunks.next_multiple_of(32)).min(THREADS as usize);
    Ok(LaunchConfig {
        grid_dim: (int(rows)? as u32, 1, 1),
        block_dim: (threads as u32, 1, 1),
        shared_mem_bytes: 0,
    })
}

impl Kernels {
    /// Blocks for `chunks` chunks that are gone over once.
    fn blocks(&self, chunks: usize) -> LaunchConfig {
        let most = (self.multiprocessors * BLOCKS) as usize;
        let blocks = chunks.div_ceil(THREADS as usize).min(most);
        LaunchConfig {
            grid_dim: (blocks as u32, 1, 1),
            block_dim: (THREADS, 1, 1),
            shared_mem_bytes: 0,
        }
    }

    fn builder<'a>(&'a self, function: &'a CudaFunction) -> LaunchArgs<'a> {
        self.stream.launch_builder(function)
    }
}

/// `x` `[rows, width]` to the same shape.
pub fn norm(x: &Tensor, by: Norm) -> Option<Result<Tensor>> {
    let kernels = Kernels::fitting(x)?;
    let (rows, chunks) = rows(x);
    (chunks <= NORM_CHUNKS_MAX).then(|| {
        check(&by, chunks * CHUNK)?;
        let (out, to) = kernels.empty(x.shape())?;
        let from = kernels.address::<bf16>(x)?;
        let weight = kernels.address::<bf16>(by.weight)?;
        let bias = by.bias.map(|b| kernels.address::<bf16>(b)).transpose()?;
        let (width, eps) = (int(chunks)?, by.eps as f32);
        let functions = &kernels.pointwise;
        let mut launch = kernels.builder(match bias {
            Some(_) => &functions.layer_norm,
            None => &functions.rms_norm,
        });
        launch.arg(&from).arg(&weight);
        if let Some(bias) = &bias {
            launch.arg(bias);
        }
        launch.arg(&to).arg(&width).arg(&eps);
        // SAFETY: the arguments are those of the kernel, and every tensor has the size that it reads or
        // writes.
        unsafe { launch.launch(row_blocks(rows, chunks)?) }.w()?;
        Ok(out)
    })
}

/// `x + scale * (y + shift)`, which is written over `x`, and its norm; `scale_shift` `[2, width]`.
pub fn add_scaled_norm(
    x: &Tensor,
    y: &Tensor,
    scale_shift: &Tensor,
    by: Norm,
) -> Option<Result<Tensor>> {
    let kernels = Kernels::fitting(x)?;
    let (rows, chunks) = rows(x);
    (chunks <= NORM_CHUNKS_MAX).then(|| {
        check(&by, chunks * CHUNK)?;
        whole(y, x.elem_count(), "add_scaled_norm")?;
        whole(scale_shift, 2 * chunks * CHUNK, "add_scaled_norm")?;
        let (out, to) = kernels.empty(x.shape())?;
        let onto = kernels.address::<bf16>(x)?;
        let other = kernels.address::<bf16>(y)?;
        let scale = kernels.address::<bf16>(scale_shift)?;
        let weight = kernels.address::<bf16>(by.weight)?;
        let bias = by.bias.map(|b| kernels.address::<bf16>(b)).transpose()?;
        let (width, eps) = (int(chunks)?, by.eps as f32);
        let functions = &kernels.pointwise;
        let mut launch = kernels.builder(match bias {
            Some(_) => &functions.add_scaled_layer_norm,
            None => &functions.add_scaled_rms_norm,
        });
        launch.arg(&onto).arg(&other).arg(&scale).arg(&weight);
        if let Some(bias) = &bias {
            launch.arg(bias);
        }
        launch.arg(&to).arg(&width).arg(&eps);
        // SAFETY: as in `norm`; the caller holds the only handle of `x`, which is overwritten.
        unsafe { launch.launch(row_blocks(rows, chunks)?) }.w()?;
        Ok(out)
    })
}

/// Writes `x + scale * (y + shift)` over `x`; `scale_shift` `[2, width]`.
pub fn add_scaled(x: &Tensor, y: &Tensor, scale_shift: &Tensor) -> Option<Result<()>> {
    let kernels = Kernels::fitting(x)?;
    Some((|| {
        let (rows, chunks) = rows(x);
        whole(y, x.elem_count(), "add_scaled")?;
        whole(scale_shift, 2 * chunks * CHUNK, "add_scaled")?;
        let onto = kernels.address::<bf16>(x)?;
        let other = kernels.address::<bf16>(y)?;
        let scale = kernels.address::<bf16>(scale_shift)?;
        let (width, count) = (int(chunks)?, (rows * chunks) as i64);
        let mut launch = kernels.builder(&kernels.pointwise.add_scaled);
        launch.arg(&onto).arg(&other).arg(&scale);
        launch.arg(&width).arg(&count);
        // SAFETY: as in `add_scaled_norm`.
        unsafe { launch.launch(kernels.blocks(rows * chunks)) }.w()?;
        Ok(())
    })())
}

/// Writes `gelu(x + bias)` over `x`.
pub fn gelu_bias(x: &Tensor, bias: &Tensor) -> Option<Result<()>> {
    let kernels = Kernels::fitting(x)?;
    Some(kernels.with_bias(&kernels.pointwise.gelu_bias, x, bias))
}

/// Writes `x + bias` over `x`.
pub fn add_bias(x: &Tensor, bias: &Tensor) -> Option<Result<()>> {
    let kernels = Kernels::fitting(x)?;
    Some(kernels.with_bias(&kernels.pointwise.add_bias, x, bias))
}

impl Kernels {
    fn with_bias(&self, function: &CudaFunction, x: &Tensor, bias: &Tensor) -> Result<()> {
        let (rows, chunks) = rows(x);
        whole(bias, chunks * CHUNK, "bias")?;
        let onto = self.address::<bf16>(x)?;
        let shift = self.address::<bf16>(bias)?;
        let (width, count) = (int(chunks)?, (rows * chunks) as i64);
        let mut launch = self.builder(function);
        launch.arg(&onto).arg(&shift).arg(&width).arg(&count);
        // SAFETY: as in `add_scaled_norm`.
        unsafe { launch.launch(self.blocks(rows * chunks)) }.w()?;
        Ok(())
    }
}

/// Writes `silu(gate) * up` over `gate`.
pub fn silu_mul(gate: &Tensor, up: &Tensor) -> Option<Result<()>> {
    let kernels = Kernels::fitting(gate)?;
    Some((|| {
        whole(up, gate.elem_count(), "silu_mul")?;
        let chunks = gate.elem_count() / CHUNK;
        let onto = kernels.address::<bf16>(gate)?;
        let other = kernels.address::<bf16>(up)?;
        let count = chunks as i64;
        let mut launch = kernels.builder(&kernels.pointwise.silu_mul);
        launch.arg(&onto).arg(&other).arg(&count);
        // SAFETY: as in `add_scaled_norm`.
        unsafe { launch.launch(kernels.blocks(chunks)) }.w()?;
        Ok(())
    })())
}

/// Turns the first `width` numbers of each row of `x` `[batch, length, …]` in place: `cos` and `sin` f32
/// `[length, half]`.
pub fn rotary(x: &Tensor, width: usize, cos: &Tensor, sin: &Tensor) -> Option<Result<()>> {
    let kernels = Kernels::fitting(x)?;
    let (length, half) = cos.dims2().ok()?;
    let (rows, chunks) = rows(x);
    let tables = [cos, sin];
    let fits = half.is_multiple_of(CHUNK)
        && width.is_multiple_of(2 * half)
        && width <= chunks * CHUNK
        && rows.is_multiple_of(length)
        && tables.iter().all(|t| {
            t.dtype() == DType::F32 && t.is_contiguous() && t.dims() == [length, half]
                // Four of a table are read at once.
                && t.layout().start_offset().is_multiple_of(4)
        });
    fits.then(|| {
        let onto = kernels.address::<bf16>(x)?;
        let cos = kernels.address::<f32>(cos)?;
        let sin = kernels.address::<f32>(sin)?;
        let row_pairs = width / CHUNK / 2;
        let pairs = rows * row_pairs;
        let (length, half, row_chunks, row_pairs) = (
            int(length)?,
            int(half / CHUNK)?,
            int(chunks)?,
            int(row_pairs)?,
        );
        let count = pairs as i64;
        let mut launch = kernels.builder(&kernels.pointwise.rotary);
        launch.arg(&onto).arg(&cos).arg(&sin);
        launch
            .arg(&length)
            .arg(&half)
            .arg(&row_chunks)
            .arg(&row_pairs)
            .arg(&count);
        let config = LaunchConfig {
            grid_dim: (int(pairs.div_ceil(THREADS as usize))? as u32, 1, 1),
            block_dim: (THREADS, 1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: as in `add_scaled_norm`; the tables hold `length` rows of `half` numbers.
        unsafe { launch.launch(config) }.w()?;
        Ok(())
    })
}
