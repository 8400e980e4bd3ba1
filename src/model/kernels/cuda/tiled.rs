//! Attention on Hopper, where the tensor copy engine brings the tiles; see `attention_hopper.cu`.

use std::mem::MaybeUninit;

use candle_core::{
    Error, Result, Tensor,
    cuda::{
        WrapErr,
        cudarc::driver::{CudaFunction, DeviceRepr, LaunchConfig, PushKernelArg, sys},
    },
};
use half::bf16;

use super::{Kernels, attention::strides, int};
use crate::model::kernels::Heads;

/// Queries of a block.
const QUERIES: usize = 128;
/// Keys of a tile: with 64 it ran at 0.82 of the speed on an H200.
pub const KEYS: usize = 128;
/// Threads of a block.
const THREADS: u32 = 384;
/// Numbers of a row that the engine brings at once: 128 bytes.
const COLUMNS: u32 = 64;

/// Bytes of shared memory for heads of `dim` numbers: queries, two tiles of keys and two of values, and what
/// the first may be moved by.
pub fn shared(dim: usize) -> usize {
    1024 + (QUERIES + 4 * KEYS) * dim * size_of::<bf16>()
}

/// Where a tensor is and how its rows lie, as the engine takes it.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Map(sys::CUtensorMap);

// SAFETY: the kernel takes the driver's 128 bytes as they are.
unsafe impl DeviceRepr for Map {}

/// The map of `x` `[batch, rows, width]` for tiles of `rows` rows.
fn map(kernels: &Kernels, x: &Tensor, rows: usize) -> Result<Map> {
    let (batch, length, width) = x.dims3()?;
    let Some((row, clip)) = strides(x) else {
        candle_core::bail!(
            "attention: rows of {:?} do not start at 16 bytes",
            x.layout()
        );
    };
    let bytes = |numbers: i64| numbers as u64 * size_of::<bf16>() as u64;
    let sizes = [width as u64, length as u64, batch as u64];
    // With one clip its stride is never used, and may be anything that the driver takes.
    let strides = [bytes(row), bytes(if batch > 1 { clip } else { row })];
    let tile = [COLUMNS, int(rows)? as u32, 1];
    let steps = [1u32; 3];
    let mut made = MaybeUninit::<sys::CUtensorMap>::uninit();
    // SAFETY: the arrays have the three sizes, two strides, and three more sizes each that the call reads; it
    // writes the map where it succeeds.
    let made = unsafe {
        sys::cuTensorMapEncodeTiled(
            made.as_mut_ptr(),
            sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            3,
            kernels.address::<bf16>(x)? as *mut _,
            sizes.as_ptr(),
            strides.as_ptr(),
            tile.as_ptr(),
            steps.as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
        .result()
        .map_err(|e| Error::msg(format!("attention: {:?}: {e}", x.layout())))?;
        made.assume_init()
    };
    Ok(Map(made))
}

/// [`super::attention`] for heads in order.
pub fn attention(
    kernels: &Kernels,
    function: &CudaFunction,
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    heads: &Heads,
    group: usize,
) -> Result<Tensor> {
    let (batch, length, _) = q.dims3()?;
    let (keys, count) = (k.dim(1)?, heads.kv_of.len());
    let (out, to) = kernels.empty((batch, length, count * heads.dim))?;
    let maps = [
        map(kernels, q, QUERIES)?,
        map(kernels, k, KEYS)?,
        map(kernels, v, KEYS)?,
    ];
    let scale = (std::f64::consts::LOG2_E / (heads.dim as f64).sqrt()) as f32;
    let config = LaunchConfig {
        grid_dim: (
            int(length.div_ceil(QUERIES))? as u32,
            int(count)? as u32,
            int(batch)? as u32,
        ),
        block_dim: (THREADS, 1, 1),
        shared_mem_bytes: int(shared(heads.dim))? as u32,
    };
    let (length, keys, count) = (int(length)?, int(keys)?, int(count)?);
    let (group, causal) = (int(group.max(1))?, i32::from(heads.causal));
    let mut launch = kernels.stream.launch_builder(function);
    for map in &maps {
        launch.arg(map);
    }
    launch.arg(&to).arg(&length).arg(&keys).arg(&count);
    launch.arg(&group).arg(&causal).arg(&scale);
    // SAFETY: the arguments are those of the kernel; the caller compared the shapes, and the maps hold them.
    unsafe { launch.launch(config) }.w()?;
    Ok(out)
}
