//! Products with weights by cuBLASLt: the bias and the residual are added to the f32 sums before they are
//! rounded, which spares a pass over the result each.

use std::sync::Arc;

use candle_core::{
    DType, Error, Result, Tensor,
    cuda::cudarc::{
        cublaslt::{Matmul, MatmulConfig},
        driver::{CudaStream, DevicePtr, DevicePtrMut, DeviceSlice, SyncOnDrop, sys::CUdeviceptr},
    },
};
use half::bf16;

use super::{CHUNK, Kernels, whole};

/// Some bf16 numbers on the GPU, as the binding of cuBLASLt takes them. Nothing is recorded of their use:
/// one stream does all the work.
struct Numbers {
    at: CUdeviceptr,
    len: usize,
    stream: Arc<CudaStream>,
}

impl DeviceSlice<bf16> for Numbers {
    fn len(&self) -> usize {
        self.len
    }

    fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }
}

impl DevicePtr<bf16> for Numbers {
    fn device_ptr<'a>(&'a self, _: &'a CudaStream) -> (CUdeviceptr, SyncOnDrop<'a>) {
        (self.at, SyncOnDrop::Record(None))
    }
}

impl DevicePtrMut<bf16> for Numbers {
    fn device_ptr_mut<'a>(&'a mut self, _: &'a CudaStream) -> (CUdeviceptr, SyncOnDrop<'a>) {
        (self.at, SyncOnDrop::Record(None))
    }
}

/// `x wᵀ + bias`, or `x wᵀ`: `x` `[rows, input]`, `w` `[output, input]`, `bias` `[output]`.
pub fn product(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Option<Result<Tensor>> {
    let kernels = Kernels::fitting(x)?;
    let (rows, output) = (x.dim(0).ok()?, w.dim(0).ok()?);
    fits(x, w).then(|| {
        let (out, at) = kernels.empty((rows, output))?;
        kernels.multiply(x, w, bias, (at, rows * output), 0.0)?;
        Ok(out)
    })
}

/// Writes `x + y wᵀ` over `x` `[rows, output]`: `y` `[rows, input]`, `w` `[output, input]`.
pub fn add_product(x: &Tensor, y: &Tensor, w: &Tensor) -> Option<Result<()>> {
    let kernels = Kernels::fitting(y)?;
    Kernels::fitting(x)?;
    fits(y, w).then(|| {
        let rows = y.dim(0)?;
        whole(x, rows * w.dim(0)?, "add_product")?;
        let at = kernels.address::<bf16>(x)?;
        kernels.multiply(y, w, None, (at, x.elem_count()), 1.0)
    })
}

/// Whether the rows of all three matrices start at a multiple of 16 bytes.
fn fits(x: &Tensor, w: &Tensor) -> bool {
    let (Ok((_, input)), Ok((output, width))) = (x.dims2(), w.dims2()) else {
        return false;
    };
    input == width
        && output.is_multiple_of(CHUNK)
        && w.dtype() == DType::BF16
        && w.is_contiguous()
        && w.layout().start_offset().is_multiple_of(CHUNK)
}

impl Kernels {
    /// `to = x wᵀ + bias + keep * to`. cuBLAS counts by columns: its matrices are the transposes of ours,
    /// so the weights come first.
    fn multiply(
        &self,
        x: &Tensor,
        w: &Tensor,
        bias: Option<&Tensor>,
        (to, len): (u64, usize),
        keep: f32,
    ) -> Result<()> {
        let (rows, input) = x.dims2()?;
        let output = w.dim(0)?;
        let numbers = |at, len| Numbers {
            at,
            len,
            stream: self.stream.clone(),
        };
        let of = |t: &Tensor| Ok::<_, Error>(numbers(self.address::<bf16>(t)?, t.elem_count()));
        let bias = bias
            .map(|bias| {
                whole(bias, output, "bias")?;
                of(bias)
            })
            .transpose()?;
        let config = MatmulConfig {
            transa: true,
            transb: false,
            transc: false,
            m: output as u64,
            n: rows as u64,
            k: input as u64,
            alpha: 1.0,
            lda: input as i64,
            ldb: input as i64,
            beta: keep,
            ldc: output as i64,
            stride_a: None,
            stride_b: None,
            stride_c: None,
            stride_bias: None,
            batch_size: None,
        };
        let mut to = numbers(to, len);
        // SAFETY: the three matrices have the sizes of `config`, which `fits` and the callers checked.
        unsafe { (self.blas).matmul(config, &of(w)?, &of(x)?, &mut to, bias.as_ref(), None) }
            .map_err(|e| Error::msg(format!("cuBLASLt, {rows} x {input} x {output}: {e}")))
    }
}
