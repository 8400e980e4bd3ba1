//! Where the model runs.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

#[cfg(feature = "cuda")]
use candle_core::cuda::cudarc::driver::{CudaEvent, sys::CUevent_flags};
use candle_core::{DType, Device};

use crate::error::{Error, Result};

/// Which device to load a model to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeviceSpec {
    /// The CPU.
    Cpu,
    /// The CUDA GPU of this number.
    Cuda(usize),
    /// The first CUDA GPU where this build and this machine have one, else the CPU.
    #[default]
    Auto,
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceSpec::Cpu => f.write_str("cpu"),
            DeviceSpec::Cuda(number) => write!(f, "cuda:{number}"),
            DeviceSpec::Auto => f.write_str("auto"),
        }
    }
}

impl FromStr for DeviceSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "cpu" => Ok(DeviceSpec::Cpu),
            "auto" => Ok(DeviceSpec::Auto),
            "cuda" => Ok(DeviceSpec::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(DeviceSpec::Cuda)
                .ok_or_else(|| {
                    Error::invalid(format!(
                        "device {text:?} is unknown; use auto, cpu, cuda or cuda:N"
                    ))
                }),
        }
    }
}

/// Which number type a model computes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// f32 on the CPU, bf16 on a GPU.
    #[default]
    Auto,
    /// Weights and activations in f32; on the CPU only.
    F32,
    /// Weights in bf16. On the CPU what enters a product is rounded to bf16, and sums, norms and
    /// hidden states stay in f32; on a GPU all are bf16.
    Bf16,
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Precision::Auto),
            "f32" => Ok(Precision::F32),
            "bf16" => Ok(Precision::Bf16),
            _ => Err(Error::invalid(format!(
                "number type {text:?} is unknown; use auto, f32 or bf16"
            ))),
        }
    }
}

/// An opened device and the number types that the model has there.
#[derive(Clone, Debug)]
pub struct Place {
    /// candle's handle.
    pub device: Device,
    /// Of the weights of products and of what enters them: f32 or bf16.
    pub dtype: DType,
    /// `cpu` or `cuda:0`.
    pub name: String,
}

impl Place {
    /// The CPU, in f32.
    pub fn cpu() -> Self {
        Place {
            device: Device::Cpu,
            dtype: DType::F32,
            name: DeviceSpec::Cpu.to_string(),
        }
    }

    /// Opens the device.
    ///
    /// Fails with `Unavailable` where a GPU was asked for and the driver, a CUDA library or the
    /// GPU is not there, or where there is one to be chosen and it cannot be used, with `FailedPrecondition` in a build without CUDA, and with
    /// `InvalidArgument` for f32 on a GPU.
    pub fn open(spec: DeviceSpec, precision: Precision) -> Result<Self> {
        let mut place = match spec {
            DeviceSpec::Cpu => Self::cpu(),
            DeviceSpec::Cuda(number) => cuda(number)?,
            DeviceSpec::Auto => automatic()?,
        };
        match precision {
            Precision::Auto => {}
            Precision::F32 if !place.device.is_cpu() => {
                return Err(Error::invalid(format!(
                    "the model computes in bf16 on {}; use the number type auto or bf16, or the \
                     device cpu",
                    place.name
                )));
            }
            Precision::F32 => place.dtype = DType::F32,
            Precision::Bf16 => place.dtype = DType::BF16,
        }
        Ok(place)
    }

    /// The type of hidden states, norms and biases: f32 on the CPU whatever the weights are.
    pub fn hidden(&self) -> DType {
        if self.device.is_cpu() {
            DType::F32
        } else {
            self.dtype
        }
    }

    /// `f32` or `bf16`.
    pub fn dtype_name(&self) -> &'static str {
        self.dtype.as_str()
    }

    /// The moment when all work that was asked for so far will be done.
    pub fn mark(&self) -> Result<Mark> {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(device) = &self.device {
            let flags = CUevent_flags::CU_EVENT_DEFAULT;
            return (device.cuda_stream().record_event(Some(flags)))
                .map(Mark::Gpu)
                .map_err(|e| Error::internal("cannot mark a moment on the GPU").with_source(e));
        }
        Ok(Mark::Cpu(Instant::now()))
    }

    /// Gives back what is kept of a GPU's memory without being used, so that what is free is in one piece. Whether
    /// that was possible; on a CPU there is nothing.
    #[cfg(feature = "cuda")]
    pub fn give_back(&self) -> bool {
        let Device::Cuda(device) = &self.device else {
            return false;
        };
        let given = super::kernels::cuda::give_back(device);
        if let Err(error) = &given {
            tracing::warn!(%error, "cannot give back the GPU's memory");
        }
        given.is_ok()
    }

    /// Gives back a GPU's memory; this build has none.
    #[cfg(not(feature = "cuda"))]
    pub fn give_back(&self) -> bool {
        false
    }

    /// Used and total memory of a GPU, bytes, whoever uses it; `None` on the CPU, and where the driver
    /// does not say.
    #[cfg(feature = "cuda")]
    pub fn memory(&self) -> Option<(u64, u64)> {
        let stream = self.device.as_cuda_device().ok()?.cuda_stream();
        let (free, total) = stream.context().mem_get_info().ok()?;
        Some((total.saturating_sub(free) as u64, total as u64))
    }

    /// Used and total memory of a GPU, bytes; this build has none.
    #[cfg(not(feature = "cuda"))]
    pub fn memory(&self) -> Option<(u64, u64)> {
        None
    }
}

/// A moment in a device's work. On a GPU, which only queues what it is asked for, it may lie ahead.
pub enum Mark {
    /// The work before it is done.
    Cpu(Instant),
    /// Behind the work before it.
    #[cfg(feature = "cuda")]
    Gpu(CudaEvent),
}

impl Mark {
    /// How long the work between the two takes; waits for it.
    pub fn until(&self, later: &Mark) -> Result<Duration> {
        match (self, later) {
            (Mark::Cpu(from), Mark::Cpu(to)) => Ok(to.duration_since(*from)),
            #[cfg(feature = "cuda")]
            (Mark::Gpu(from), Mark::Gpu(to)) => {
                let took = to.synchronize().and_then(|()| from.elapsed_ms(to));
                let took =
                    took.map_err(|e| Error::internal("cannot time the GPU's work").with_source(e))?;
                Ok(Duration::from_secs_f64(f64::from(took).max(0.0) / 1e3))
            }
            #[cfg(feature = "cuda")]
            _ => Err(Error::internal("two moments are of different devices")),
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda(_number: usize) -> Result<Place> {
    Err(Error::precondition(
        "this build cannot use CUDA; build with `--features cuda`, or use the device cpu",
    ))
}

#[cfg(not(feature = "cuda"))]
fn automatic() -> Result<Place> {
    Ok(Place::cpu())
}

/// The GPU, if there is one. One that cannot be used is no reason to go on at a hundredth of the speed.
#[cfg(feature = "cuda")]
fn automatic() -> Result<Place> {
    if !libraries::driver() || super::kernels::cuda::none() {
        tracing::info!("there is no CUDA GPU: the model runs on the CPU");
        return Ok(Place::cpu());
    }
    cuda(0).map_err(|e| {
        let message = format!("{e:#}; or choose the device cpu");
        Error::new(e.kind(), message).with_source(e)
    })
}

#[cfg(feature = "cuda")]
fn cuda(number: usize) -> Result<Place> {
    libraries::probe()?;
    let device = super::kernels::cuda::open(number).map_err(|e| {
        Error::unavailable(format!("cannot open the GPU cuda:{number}"))
            .with_source(super::linear::bare(e))
    })?;
    Ok(Place {
        device,
        dtype: DType::BF16,
        name: DeviceSpec::Cuda(number).to_string(),
    })
}

#[cfg(feature = "cuda")]
mod libraries {
    //! The CUDA binding panics where a library is missing, so they are looked for first.

    use crate::error::{Error, Result};

    /// Each library under the names that distributions and wheels give it.
    const NEEDED: [&[&str]; 5] = [
        &["libcuda.so.1", "libcuda.so"],
        &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"],
        &["libcurand.so.10", "libcurand.so"],
        &["libcublas.so.13", "libcublas.so.12", "libcublas.so"],
        &["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"],
    ];

    /// Whether the driver's library is here.
    pub fn driver() -> bool {
        let [names, ..] = NEEDED;
        names.iter().any(|name| loads(name))
    }

    /// Fails with `Unavailable` naming every library that cannot be loaded.
    pub fn probe() -> Result<()> {
        let missing: Vec<&str> = NEEDED
            .iter()
            .filter(|names| !names.iter().any(|name| loads(name)))
            .filter_map(|names| names.last().copied())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::unavailable(format!(
            "CUDA cannot be used: {} cannot be loaded; install the NVIDIA driver and the CUDA \
             libraries, or put their folder on LD_LIBRARY_PATH",
            missing.join(", ")
        )))
    }

    fn loads(name: &str) -> bool {
        // SAFETY: these are NVIDIA's libraries, which the CUDA binding is about to load anyway;
        // their initialisers have no preconditions.
        unsafe { libloading::Library::new(name) }.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn names_parse_and_print_alike() {
        for text in ["cpu", "auto", "cuda:0", "cuda:3"] {
            assert_eq!(text.parse::<DeviceSpec>().unwrap().to_string(), text);
        }
        assert_eq!(
            "tpu".parse::<DeviceSpec>().unwrap_err().kind(),
            Kind::InvalidArgument
        );
        assert!("cuda:x".parse::<DeviceSpec>().is_err());
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_says_how_to_get_it() {
        let e = Place::open(DeviceSpec::Cuda(0), Precision::Auto).unwrap_err();
        assert_eq!(e.kind(), Kind::FailedPrecondition);
        assert!(e.message().contains("--features cuda"));
        let place = Place::open(DeviceSpec::Auto, Precision::Auto).unwrap();
        assert_eq!((place.name.as_str(), place.dtype_name()), ("cpu", "f32"));
    }

    #[test]
    fn the_cpu_takes_either_number_type() {
        for (text, dtype) in [
            ("auto", DType::F32),
            ("f32", DType::F32),
            ("bf16", DType::BF16),
        ] {
            let place = Place::open(DeviceSpec::Cpu, text.parse().unwrap()).unwrap();
            assert_eq!((place.dtype, place.hidden()), (dtype, DType::F32));
        }
        let e = "int8".parse::<Precision>().unwrap_err();
        assert_eq!(e.kind(), Kind::InvalidArgument);
    }
}
