//! Attention in tiles; see `attention.cu`.

use std::sync::Arc;

use candle_core::{
    DType, Error, Result, Tensor,
    cuda::{
        WrapErr,
        cudarc::driver::{CudaFunction, CudaModule, DeviceRepr, LaunchConfig, PushKernelArg, sys},
    },
};
use half::bf16;

use super::{CHUNK, Kernels, function, int, tiled};
use crate::model::kernels::Heads;

/// Query heads that the form for the last token takes.
const LAST_HEADS_MAX: usize = 128;
/// Threads of its blocks.
const LAST_THREADS: u32 = 256;

/// The kernels for one size of head.
struct OfSize {
    /// Numbers per head.
    dim: usize,
    tiles: CudaFunction,
    /// Queries of a tile.
    queries: u32,
    warps: u32,
    /// Bytes of shared memory.
    shared: u32,
    last: CudaFunction,
    /// In place of `tiles`, on a GPU that has what it takes.
    hopper: Option<CudaFunction>,
}

pub struct Functions {
    sizes: Vec<OfSize>,
}

/// Key/value head of each query head, as the kernel takes it.
#[repr(C)]
#[derive(Clone, Copy)]
struct KvOf([u8; LAST_HEADS_MAX]);

// SAFETY: plain bytes, laid out as the kernel's struct.
unsafe impl DeviceRepr for KvOf {}

impl Functions {
    /// From the modules of `attention.cu` and, in a build for Hopper, of `attention_hopper.cu`.
    pub fn load(module: &Arc<CudaModule>, hopper: Option<&Arc<CudaModule>>) -> Result<Self> {
        // Measured on an H200 among 12 shapes of tiles: these were the fastest for the vision tower and for
        // prompts of 4,272 tokens, or within 3% of it.
        let sizes = [(64, 128, 64, 4), (128, 64, 64, 4)]
            .into_iter()
            .map(|(dim, queries, keys, warps)| {
                let name = format!("attention_{dim}_{queries}_{keys}_{warps}");
                let tiles = function(module, &name)?;
                let shared = (queries + 4 * keys) * dim * 2;
                share(&tiles, shared)?;
                let hopper = hopper
                    .map(|module| {
                        let hopper = function(module, &format!("hopper_{dim}_{}", tiled::KEYS))?;
                        share(&hopper, tiled::shared(dim))?;
                        Ok::<_, Error>(hopper)
                    })
                    .transpose()?;
                Ok(OfSize {
                    dim,
                    tiles,
                    queries: queries as u32,
                    warps,
                    shared: shared as u32,
                    last: function(module, &format!("attention_last_{dim}"))?,
                    hopper,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Functions { sizes })
    }
}

/// Lets a kernel have so many bytes of shared memory.
fn share(function: &CudaFunction, bytes: usize) -> Result<()> {
    let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    function.set_attribute(attribute, int(bytes)?).w()
}

/// Numbers from row to row and from clip to clip of `x` `[batch, rows, width]`, if each row is whole and
/// starts at a multiple of 16 bytes.
pub(super) fn strides(x: &Tensor) -> Option<(i64, i64)> {
    let layout = x.layout();
    let &[batch, row, 1] = layout.stride() else {
        return None;
    };
    let aligned = [batch, row, layout.start_offset()]
        .iter()
        .all(|n| n.is_multiple_of(CHUNK));
    (aligned && x.dtype() == DType::BF16).then_some((row as i64, batch as i64))
}

/// softmax(q kᵀ / √dim) v; see [`super::super::attention`]. Rows may lie apart.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: &Heads) -> Option<Result<Tensor>> {
    let kernels = Kernels::of(q)?;
    let of_size = (kernels.attention.sizes.iter()).find(|of| of.dim == heads.dim)?;
    let (batch, length, _) = q.dims3().ok()?;
    let keys = k.dim(1).ok()?;
    let count = heads.kv_of.len();
    let group = count / heads.kv_heads;
    let in_order = count.is_multiple_of(heads.kv_heads)
        && (heads.kv_of.iter().enumerate()).all(|(h, &kv)| kv == h / group);
    let last = length == 1 && count <= LAST_HEADS_MAX;
    let rows = [strides(q)?, strides(k)?, strides(v)?];
    if in_order
        && !last
        && let Some(function) = &of_size.hopper
    {
        return Some(tiled::attention(
            &kernels,
            function,
            (q, k, v),
            heads,
            group,
        ));
    }
    (in_order || last).then(|| {
        let (out, to) = kernels.empty((batch, length, count * heads.dim))?;
        let (q, k, v) = (
            kernels.address::<bf16>(q)?,
            kernels.address::<bf16>(k)?,
            kernels.address::<bf16>(v)?,
        );
        let scale = (std::f64::consts::LOG2_E / (heads.dim as f64).sqrt()) as f32;
        let numbers = [length, keys, count, group.max(1), usize::from(heads.causal)];
        let mut sizes = [0i32; 5];
        for (size, n) in sizes.iter_mut().zip(numbers) {
            *size = int(n)?;
        }
        let mut kv_of = KvOf([0; LAST_HEADS_MAX]);
        for (to, &kv) in kv_of.0.iter_mut().zip(&heads.kv_of) {
            *to = u8::try_from(kv)
                .map_err(|_| Error::msg(format!("there is no key/value head {kv}")))?;
        }
        let mut launch =
            kernels
                .stream
                .launch_builder(if last { &of_size.last } else { &of_size.tiles });
        launch.arg(&q).arg(&k).arg(&v).arg(&to);
        for (row, _) in &rows {
            launch.arg(row);
        }
        for (_, batch) in &rows {
            launch.arg(batch);
        }
        for size in &sizes {
            launch.arg(size);
        }
        launch.arg(&scale);
        let config = if last {
            launch.arg(&kv_of);
            LaunchConfig {
                grid_dim: (int(count)? as u32, int(batch)? as u32, 1),
                block_dim: (LAST_THREADS, 1, 1),
                shared_mem_bytes: 0,
            }
        } else {
            LaunchConfig {
                grid_dim: (
                    (int(length)? as u32).div_ceil(of_size.queries),
                    int(count)? as u32,
                    int(batch)? as u32,
                ),
                block_dim: (of_size.warps * 32, 1, 1),
                shared_mem_bytes: of_size.shared,
            }
        };
        // SAFETY: the arguments are those of the kernel; `check` of the caller compared the shapes, and
        // `strides` says how rows lie.
        unsafe { launch.launch(config) }.w()?;
        Ok(out)
    })
}
