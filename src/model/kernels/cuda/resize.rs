//! Pictures to the model's size on the GPU, to the same bytes as [`pixels::resize_bicubic`].

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{
    Result,
    cuda::{
        WrapErr,
        cudarc::driver::{
            CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, LaunchConfig,
            PushKernelArg, result::memcpy_dtod_async,
        },
    },
};

use super::{Kernels, function, int};
use crate::{
    limits::RESIZE_TABLES_MAX,
    media::rgb_bytes,
    model::pixels::{self, Pass},
};

const THREADS: u32 = 256;

pub struct Resizer {
    resample: CudaFunction,
    /// The last used comes last.
    tables: Mutex<Vec<Arc<Table>>>,
}

/// Of one axis, on the GPU.
struct Table {
    from: usize,
    to: usize,
    taps: usize,
    /// `to` first source pixels, then `to * taps` weights.
    numbers: CudaSlice<i32>,
}

impl Resizer {
    pub fn load(module: &Arc<CudaModule>) -> Result<Self> {
        Ok(Resizer {
            resample: function(module, "resample")?,
            tables: Mutex::default(),
        })
    }

    fn table(&self, stream: &Arc<CudaStream>, from: usize, to: usize) -> Result<Arc<Table>> {
        let mut kept = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let table = match kept.iter().position(|t| (t.from, t.to) == (from, to)) {
            Some(at) => kept.remove(at),
            None => {
                let (starts, weights) = pixels::table(from, to);
                let starts = starts.iter().map(|start| int(*start));
                let mut numbers = starts.collect::<Result<Vec<i32>>>()?;
                numbers.extend(&weights);
                Arc::new(Table {
                    from,
                    to,
                    taps: weights.len() / to.max(1),
                    numbers: stream.clone_htod(&numbers).w()?,
                })
            }
        };
        if kept.len() >= RESIZE_TABLES_MAX {
            // Whatever was queued with it is in front of its memory's release.
            kept.remove(0);
        }
        kept.push(Arc::clone(&table));
        Ok(table)
    }
}

impl Kernels {
    /// RGB pictures of these sizes, that lie one after the other from `from` on, to `side * side` pixels each.
    /// None may have more pixels than that.
    pub(super) fn resize(
        &self,
        from: u64,
        sizes: &[(u32, u32)],
        side: usize,
    ) -> Result<CudaSlice<u8>> {
        let one = 3 * side * side;
        // SAFETY: each byte that is read later is written first, in the order of the stream.
        let (squares, between) = unsafe {
            let new = || self.stream.alloc::<u8>(one * sizes.len()).w();
            (new()?, new()?)
        };
        let (mut from, mut to) = (from, squares.device_ptr(&self.stream).0);
        let between = between.device_ptr(&self.stream).0;
        // Frames of one stream come together.
        for alike in sizes.chunk_by(|a, b| a == b) {
            let Some(&size) = alike.first() else { continue };
            let (width, height) = (size.0 as usize, size.1 as usize);
            let bytes = rgb_bytes(size) * alike.len();
            if bytes > one * alike.len() {
                candle_core::bail!("{width} x {height} pixels are more than {side} x {side}");
            }
            if (width, height) == (side, side) {
                // SAFETY: as many bytes are at both.
                unsafe { memcpy_dtod_async(to, from, bytes, self.stream.cu_stream()) }.w()?;
            } else {
                // Neither pass makes more than `one` bytes of a picture that has no more, since Pillow begins
                // with the one along which the picture is longer.
                let [first, second] = pixels::passes(size, side, alike.len());
                self.pass(from, between, first)?;
                self.pass(between, to, second)?;
            }
            from += bytes as u64;
            to += (one * alike.len()) as u64;
        }
        Ok(squares)
    }

    fn pass(&self, from: u64, to: u64, pass: Pass) -> Result<()> {
        let table = self.resizer.table(&self.stream, pass.from, pass.to)?;
        let count = pass.outer * pass.to * pass.inner;
        let numbers = table.numbers.device_ptr(&self.stream).0;
        let config = LaunchConfig {
            grid_dim: (int(count.div_ceil(THREADS as usize))? as u32, 1, 1),
            block_dim: (THREADS, 1, 1),
            shared_mem_bytes: 0,
        };
        let (taps, length, target) = (int(table.taps)?, int(pass.from)?, int(pass.to)?);
        let (inner, count) = (int(pass.inner)?, int(count)?);
        let mut launch = self.stream.launch_builder(&self.resizer.resample);
        launch.arg(&from).arg(&to).arg(&numbers);
        launch.arg(&taps).arg(&length).arg(&target);
        launch.arg(&inner).arg(&count);
        // SAFETY: the arguments are those of the kernel; `outer * from * inner` bytes are at `from`, and
        // `count` fit at `to`.
        unsafe { launch.launch(config) }.w()?;
        Ok(())
    }
}
