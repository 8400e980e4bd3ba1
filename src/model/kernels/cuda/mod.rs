//! The kernels on a CUDA GPU, in bf16: ours from the `.cu` files beside this one, products by cuBLASLt.
//!
//! Everything of one GPU runs on one stream, in the order it was asked for; so memory may be given
//! back as soon as the last kernel that uses it has been queued, and nothing waits but a read of results.
//!
//! Each function here takes what its namesake in [`super`] takes, and gives `None` where it does not fit
//! (another number type, a width that is no multiple of 8): candle's own operations do it then.

mod attention;
mod pictures;
mod pointwise;
mod product;
mod resize;
mod tiled;

use std::sync::{Arc, PoisonError, RwLock};

use candle_core::{
    CudaDevice, CudaStorage, DType, Device, Error, Result, Shape, Storage, Tensor, WithDType,
    cuda::{
        CudaDType, WrapErr,
        cudarc::{
            cublaslt::CudaBlasLT,
            driver::{
                CudaContext, CudaFunction, CudaModule, CudaStream, DevicePtr, DeviceRepr, sys,
            },
            nvrtc::Ptx,
        },
    },
    op::BackpropOp,
};
use half::bf16;

pub use pictures::patches;

/// Made by build.rs: each `.cu` file, compiled.
mod code {
    include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
}

/// Free memory that a GPU must have to be opened: workspace, code and two buffers of pictures.
const MEMORY_MIN_BYTES: usize = 256 << 20;

/// Numbers that a thread loads at once: 16 bytes.
const CHUNK: usize = 8;

/// Opens the GPU of this number, once per process, and loads the kernels onto it.
pub fn open(number: usize) -> Result<Device> {
    let find = |opened: &[Arc<Kernels>]| {
        opened
            .iter()
            .find(|k| k.number == number)
            .map(|k| Device::Cuda(k.device.clone()))
    };
    let mut opened = OPENED.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = find(&opened) {
        return Ok(device);
    }
    let kernels = Kernels::load(number)?;
    opened.push(Arc::new(kernels));
    find(&opened).ok_or_else(|| Error::msg("the GPU was not opened"))
}

/// Whether the driver says that there is no GPU. Its library must be there.
pub fn none() -> bool {
    match CudaContext::device_count() {
        Ok(count) => count == 0,
        Err(e) => e.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE,
    }
}

/// Compute capability that PTX is for, times ten, and whether for that one alone.
fn target(ptx: &str) -> Option<(i32, bool)> {
    let (_, rest) = ptx.split_once(".target sm_")?;
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    let alone = rest.get(end..)?.starts_with('a');
    Some((rest.get(..end)?.parse().ok()?, alone))
}

/// Whether the GPU can run what this program was built with.
fn suits(context: &CudaContext) -> Result<()> {
    use sys::CUdevice_attribute as Attribute;
    let of = |what| context.attribute(what).w();
    let major = of(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = of(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let has = major * 10 + minor;
    match target(code::POINTWISE) {
        Some((built, alone)) if has < built || (alone && has != built) => Err(Error::msg(format!(
            "this program was built for GPUs of compute capability {}.{}{}, and this one has {major}.{minor}: build with CUDA_COMPUTE_CAP={has}",
            built / 10,
            built % 10,
            if alone { "" } else { " and later" },
        ))),
        _ => Ok(()),
    }
}

/// GPUs of this process, at most as many as the machine has.
static OPENED: RwLock<Vec<Arc<Kernels>>> = RwLock::new(Vec::new());

/// What is loaded onto one GPU.
pub struct Kernels {
    number: usize,
    device: CudaDevice,
    stream: Arc<CudaStream>,
    blas: CudaBlasLT,
    /// Streaming multiprocessors.
    multiprocessors: u32,
    attention: attention::Functions,
    pointwise: pointwise::Functions,
    pictures: pictures::Pictures,
    resizer: resize::Resizer,
}

impl Kernels {
    fn load(number: usize) -> Result<Self> {
        let device = CudaDevice::new_with_stream(number)?;
        // SAFETY: one stream does all the work; the copies of pictures, on a second one, wait for it
        // and it for them by events of their own.
        unsafe { device.disable_event_tracking() };
        let stream = device.cuda_stream();
        enough_memory(&stream)?;
        let context = stream.context();
        suits(context)?;
        keep_memory(number).map_err(|e| Error::msg(format!("setting up device memory: {e}")))?;
        let module = |code: &str| context.load_module(Ptx::from_src(code)).w();
        let multiprocessors = context
            .attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
            .w()?;
        let pointwise = module(code::POINTWISE)?;
        // Empty in a build for another kind of GPU.
        let hopper = (code::ATTENTION_HOPPER.contains(".entry"))
            .then(|| module(code::ATTENTION_HOPPER))
            .transpose()?;
        Ok(Kernels {
            number,
            blas: CudaBlasLT::new(stream.clone())
                .map_err(|e| Error::msg(format!("opening cuBLASLt: {e}")))?,
            multiprocessors: multiprocessors.max(1) as u32,
            attention: attention::Functions::load(&module(code::ATTENTION)?, hopper.as_ref())?,
            pictures: pictures::Pictures::load(&device, &pointwise)?,
            pointwise: pointwise::Functions::load(&pointwise)?,
            resizer: resize::Resizer::load(&module(code::RESIZE)?)?,
            device,
            stream,
        })
    }

    /// Of the GPU that `x` is on.
    fn of(x: &Tensor) -> Option<Arc<Kernels>> {
        match x.device() {
            Device::Cuda(device) => Kernels::on(device),
            _ => None,
        }
    }

    fn on(device: &CudaDevice) -> Option<Arc<Kernels>> {
        let opened = OPENED.read().unwrap_or_else(PoisonError::into_inner);
        opened
            .iter()
            .find(|k| k.device.id() == device.id())
            .cloned()
    }

    /// Of the GPU that `x` is on, if it holds whole chunks of bf16 one after the other.
    fn fitting(x: &Tensor) -> Option<Arc<Kernels>> {
        let width = x.dims().last().copied().unwrap_or(0);
        let fits = x.dtype() == DType::BF16
            && x.is_contiguous()
            && x.elem_count() > 0
            && width.is_multiple_of(CHUNK)
            && x.layout().start_offset().is_multiple_of(CHUNK);
        if fits { Kernels::of(x) } else { None }
    }

    /// A new tensor whose numbers are whatever was there, and where they are.
    fn empty(&self, shape: impl Into<Shape>) -> Result<(Tensor, u64)> {
        let shape = shape.into();
        // SAFETY: the caller has a kernel write every number.
        let slice = unsafe { self.device.alloc::<bf16>(shape.elem_count())? };
        let at = slice.device_ptr(&self.stream).0;
        let storage = CudaStorage::wrap_cuda_slice(slice, self.device.clone());
        let storage = Storage::Cuda(storage);
        Ok((
            Tensor::from_storage(storage, shape, BackpropOp::none(), false),
            at,
        ))
    }

    /// Where the first number of `x` is. Good for as long as `x` is kept.
    fn address<T: CudaDType + DeviceRepr + WithDType>(&self, x: &Tensor) -> Result<u64> {
        let (storage, layout) = x.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            candle_core::bail!("a tensor is not on the GPU");
        };
        let first = storage.as_cuda_slice::<T>()?.device_ptr(&self.stream).0;
        Ok(first + (layout.start_offset() * size_of::<T>()) as u64)
    }
}

/// Checks that `parameter` is contiguous bf16 of these many numbers, on an address that is a multiple of
/// 16 bytes.
fn whole(parameter: &Tensor, numbers: usize, what: &str) -> Result<()> {
    let fits = parameter.dtype() == DType::BF16
        && parameter.is_contiguous()
        && parameter.layout().start_offset().is_multiple_of(CHUNK);
    if !fits || parameter.elem_count() != numbers {
        candle_core::bail!(
            "{what}: {numbers} contiguous numbers in bf16 are needed, not {:?} {:?}",
            parameter.dtype(),
            parameter.dims()
        );
    }
    Ok(())
}

/// A number of a tensor's size as a kernel takes it.
fn int(n: usize) -> Result<i32> {
    i32::try_from(n).map_err(|_| Error::msg(format!("a size of {n} is too large for a kernel")))
}

fn function(module: &Arc<CudaModule>, name: &str) -> Result<CudaFunction> {
    module.load_function(name).w()
}

/// The binding of cuBLASLt panics where its workspace of 32 MiB finds no room.
fn enough_memory(stream: &CudaStream) -> Result<()> {
    let (free, total) = stream.context().mem_get_info().w()?;
    if free < MEMORY_MIN_BYTES {
        candle_core::bail!(
            "out of memory: {} of {} MiB are free, {} are needed before any weights",
            free >> 20,
            total >> 20,
            MEMORY_MIN_BYTES >> 20
        );
    }
    Ok(())
}

/// Memory that was given back stays with this process, for the next pass: else every wait returns it to
/// the driver and the next pass asks for it again.
fn keep_memory(number: usize) -> std::result::Result<(), Box<dyn std::error::Error>> {
    use candle_core::cuda::cudarc::driver::result::device;
    let ordinal = i32::try_from(number)?;
    // SAFETY: the context of this device was opened before, and the value is the u64 that this attribute
    // takes.
    unsafe {
        let pool = device::get_default_mem_pool(device::get(ordinal)?)?;
        let mut threshold = u64::MAX;
        sys::cuMemPoolSetAttribute(
            pool,
            sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
            (&raw mut threshold).cast(),
        )
        .result()?;
    }
    Ok(())
}

/// Gives back to the driver what this process keeps of the GPU's memory without using it. What is free of it may lie
/// in pieces that are each too small; the driver can put them together.
pub fn give_back(device: &CudaDevice) -> Result<()> {
    use candle_core::cuda::cudarc::driver::result::{device, mem_pool};
    let kernels = Kernels::on(device).ok_or_else(|| Error::msg("the GPU is not open"))?;
    // Behind the work that still uses it.
    kernels.stream.synchronize().w()?;
    // SAFETY: the context of this device was opened before; memory in use stays.
    unsafe {
        let ordinal = device::get(int(kernels.number)?).w()?;
        let pool = device::get_default_mem_pool(ordinal).w()?;
        mem_pool::trim_to(pool, 0).w()
    }
}

pub use attention::attention;
pub use pointwise::{add_bias, add_scaled, add_scaled_norm, gelu_bias, norm, rotary, silu_mul};
pub use product::{add_product, product};
