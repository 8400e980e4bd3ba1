//! Pictures to the GPU, as bytes: resized where they are smaller, normalised and cut into patches there.
//!
//! The copies run on a stream of their own, from memory that the GPU reads by itself, into two buffers by
//! turns: the pictures of the next pass of the tower travel while it works on these.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{
    CudaDevice, Device, Error, Result, Tensor,
    cuda::{
        WrapErr,
        cudarc::driver::{
            CudaEvent, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, LaunchConfig,
            PinnedHostSlice, PushKernelArg, result::memcpy_htod_async,
        },
    },
};

use super::{Kernels, function, int};
use crate::{
    limits::VISION_FRAMES_PER_PASS_GPU,
    media::SharedImage,
    model::{pixels, vision::PATCH_ALIGNMENT},
};

const THREADS: u32 = 256;

pub struct Pictures {
    patches: CudaFunction,
    /// f32 `[3, 256]`: the normalised value of each level of each channel.
    levels: CudaSlice<f32>,
    copies: Arc<CudaStream>,
    buffers: Mutex<Buffers>,
}

/// Made with the first pictures, and anew where those of another model are larger.
#[derive(Default)]
struct Buffers {
    pairs: [Option<Buffer>; 2],
    next: usize,
}

struct Buffer {
    host: PinnedHostSlice<u8>,
    device: CudaSlice<u8>,
    /// Recorded behind the copy and behind the kernel that reads it.
    copied: CudaEvent,
    read: CudaEvent,
}

impl Pictures {
    pub fn load(device: &CudaDevice, module: &Arc<CudaModule>) -> Result<Self> {
        let levels: Vec<f32> = pixels::levels().iter().flatten().copied().collect();
        Ok(Pictures {
            patches: function(module, "patches")?,
            levels: device.clone_htod(&levels)?,
            copies: device.cuda_stream().context().new_stream().w()?,
            buffers: Mutex::default(),
        })
    }
}

impl Buffer {
    fn new(stream: &Arc<CudaStream>, bytes: usize) -> Result<Self> {
        let context = stream.context();
        // SAFETY: every byte that is copied or read was written before.
        unsafe {
            Ok(Buffer {
                // Flag 0: written by the CPU in any order, read by the GPU.
                host: context.alloc_pinned_with_flags(bytes, 0).w()?,
                device: stream.alloc(bytes).w()?,
                copied: context.new_event(None).w()?,
                read: context.new_event(None).w()?,
            })
        }
    }
}

/// Pictures of `grid * patch` pixels a side, or of any size with fewer pixels, which is resized; at most
/// [`VISION_FRAMES_PER_PASS_GPU`]; to their normalised patches:
/// bf16 `[pictures * grid * grid, 3 * patch * patch]`, each row filled up with zeros to a multiple of
/// `PATCH_ALIGNMENT`.
pub fn patches(
    device: &Device,
    pictures: &[&SharedImage],
    (grid, patch): (usize, usize),
) -> Result<Tensor> {
    let Device::Cuda(device) = device else {
        candle_core::bail!("pictures are cut up on a GPU only");
    };
    let kernels = Kernels::on(device).ok_or_else(|| Error::msg("the GPU is not open"))?;
    kernels.patches(pictures, grid, patch)
}

impl Kernels {
    fn patches(&self, pictures: &[&SharedImage], grid: usize, patch: usize) -> Result<Tensor> {
        let side = grid * patch;
        let one = 3 * side * side;
        let fits = |picture: &&SharedImage| picture.is_whole() && picture.data.len() <= one;
        if pictures.len() > VISION_FRAMES_PER_PASS_GPU || !pictures.iter().all(fits) {
            candle_core::bail!(
                "at most {VISION_FRAMES_PER_PASS_GPU} pictures of up to {one} bytes go up at once"
            );
        }
        let sizes: Vec<(u32, u32)> = pictures.iter().map(|picture| picture.size()).collect();
        let all: usize = pictures.iter().map(|picture| picture.data.len()).sum();
        let row = (3 * patch * patch).next_multiple_of(PATCH_ALIGNMENT);
        let rows = pictures.len() * grid * grid;
        let (out, to) = self.empty((rows, row))?;

        let of = &self.pictures;
        let mut buffers = of.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let most = one * VISION_FRAMES_PER_PASS_GPU;
        let turn = buffers.next % buffers.pairs.len();
        buffers.next = turn + 1;
        let place = buffers.pairs.iter_mut().nth(turn);
        let place = place.ok_or_else(|| Error::msg("there is no buffer for pictures"))?;
        let buffer = match place {
            Some(buffer) if buffer.device.len() >= most => buffer,
            place => {
                // Nobody may be at the old one; and the new one may be given to the other stream from here on.
                of.copies.synchronize().w()?;
                let buffer = Buffer::new(&self.stream, most)?;
                self.stream.synchronize().w()?;
                place.insert(buffer)
            }
        };
        // Until the copy before this one is through, its bytes must stay; until the kernel behind it has
        // read them, so must the device's.
        buffer.copied.synchronize().w()?;
        let Some(bytes) = (buffer.host.as_mut_slice().w()?).get_mut(..all) else {
            candle_core::bail!("a buffer for pictures is too small");
        };
        let mut rest = &mut *bytes;
        for picture in pictures {
            let (to, behind) = rest.split_at_mut(picture.data.len());
            to.copy_from_slice(&picture.data);
            rest = behind;
        }
        of.copies.wait(&buffer.read).w()?;
        let from = buffer.device.device_ptr(&self.stream).0;
        // SAFETY: both buffers have room for these bytes, and stay until `copied` is through.
        unsafe { memcpy_htod_async(from, bytes, of.copies.cu_stream()) }.w()?;
        buffer.copied.record(&of.copies).w()?;
        self.stream.wait(&buffer.copied).w()?;

        let resized = (sizes.iter())
            .any(|(width, height)| (*width as usize, *height as usize) != (side, side))
            .then(|| self.resize(from, &sizes, side))
            .transpose()?;
        let squares = (resized.as_ref()).map_or(from, |all| all.device_ptr(&self.stream).0);

        let levels = of.levels.device_ptr(&self.stream).0;
        let count = rows * row;
        let (grid, patch, stride) = (int(grid)?, int(patch)?, int(row)?);
        let numbers = count as i64;
        let mut launch = self.stream.launch_builder(&of.patches);
        launch.arg(&squares).arg(&levels).arg(&to);
        launch.arg(&grid).arg(&patch).arg(&stride).arg(&numbers);
        let config = LaunchConfig {
            grid_dim: (int(count.div_ceil(THREADS as usize))? as u32, 1, 1),
            block_dim: (THREADS, 1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: the pictures come to `squares` in front of this kernel, and `out` has `count` numbers.
        unsafe { launch.launch(config) }.w()?;
        buffer.read.record(&self.stream).w()?;
        Ok(out)
    }
}
