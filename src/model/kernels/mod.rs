//! Pointwise and attention kernels, fused: vectorised on the CPU, our own in CUDA C++ on a GPU (see
//! `cuda`), and candle's operations where a shape fits neither.
//!
//! A function that takes its first tensor by value may overwrite it: its caller must hold the only
//! handle of that storage.
//!
//! On the CPU the hidden states are always f32. Where a function takes the `dtype` of its result, that
//! is the type of what goes into a product or into the attention: f32, or bf16 for [`packed`]
//! weights. On a GPU every tensor has the one type of the model, and `dtype` is that one.

mod attention;
mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod math;
pub mod packed;
#[cfg(test)]
mod tests;

use candle_core::{DType, Result, Tensor};

pub use attention::{Heads, attention, attention_plain};

/// LayerNorm over the last dimension: `x` `[rows, width]`, `weight` and `bias` `[width]`.
pub fn layer_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    dtype: DType,
) -> Result<Tensor> {
    if on_cpu(x) {
        let eps = eps as f32;
        return x.apply_op3_no_bwd(weight, bias, &cpu::LayerNorm { eps, dtype });
    }
    #[cfg(feature = "cuda")]
    if let Some(out) = cuda::norm(
        x,
        Norm {
            weight,
            bias: Some(bias),
            eps,
        },
    ) {
        return out;
    }
    candle_nn::ops::layer_norm(x, weight, bias, eps as f32)
}

/// RMSNorm over the last dimension: `x` `[rows, width]`, `weight` `[width]`.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64, dtype: DType) -> Result<Tensor> {
    if on_cpu(x) {
        let eps = eps as f32;
        return x.apply_op2_no_bwd(weight, &cpu::RmsNorm { eps, dtype });
    }
    #[cfg(feature = "cuda")]
    if let Some(out) = cuda::norm(
        x,
        Norm {
            weight,
            bias: None,
            eps,
        },
    ) {
        return out;
    }
    candle_nn::ops::rms_norm(x, weight, eps as f32)
}

/// `x + bias`, `x` `[rows, width]`.
pub fn add_bias(x: Tensor, bias: &Tensor) -> Result<Tensor> {
    if on_cpu(&x) {
        x.inplace_op2(bias, &cpu::AddBias)?;
        return Ok(x);
    }
    #[cfg(feature = "cuda")]
    if let Some(done) = cuda::add_bias(&x, bias) {
        return done.map(|()| x);
    }
    x.broadcast_add(bias)
}

/// `gelu(x + bias)` with the exact (erf) GELU, `x` `[rows, width]`.
pub fn gelu_bias(x: Tensor, bias: &Tensor) -> Result<Tensor> {
    if on_cpu(&x) {
        x.inplace_op2(bias, &cpu::GeluBias)?;
        return Ok(x);
    }
    #[cfg(feature = "cuda")]
    if let Some(done) = cuda::gelu_bias(&x, bias) {
        return done.map(|()| x);
    }
    x.broadcast_add(bias)?.gelu_erf()
}

/// `silu(gate) * up`, both of one shape.
pub fn silu_mul(gate: Tensor, up: &Tensor) -> Result<Tensor> {
    if on_cpu(&gate) {
        gate.inplace_op2(up, &cpu::SiluMul)?;
        return Ok(gate);
    }
    #[cfg(feature = "cuda")]
    if let Some(done) = cuda::silu_mul(&gate, up) {
        return done.map(|()| gate);
    }
    gate.silu()? * up
}

/// `x + y`, both of one shape.
pub fn add(x: Tensor, y: &Tensor) -> Result<Tensor> {
    if on_cpu(&x) {
        x.inplace_op2(y, &cpu::Add)?;
        return Ok(x);
    }
    x + y
}

/// `x + scale * (y + bias)`: the residual step of the vision tower. `x`, `y` `[rows, width]`,
/// `scale_bias` `[2, width]`: the scale, then the bias.
pub fn add_scaled(x: Tensor, y: &Tensor, scale_bias: &Tensor) -> Result<Tensor> {
    if on_cpu(&x) {
        x.inplace_op3(y, scale_bias, &cpu::AddScaled)?;
        return Ok(x);
    }
    #[cfg(feature = "cuda")]
    if let Some(done) = cuda::add_scaled(&x, y, scale_bias) {
        return done.map(|()| x);
    }
    let (scale, bias) = (scale_bias.get(0)?, scale_bias.get(1)?);
    x + y.broadcast_add(&bias)?.broadcast_mul(&scale)?
}

/// Rotary embedding of `x` `[batch, length, heads * 2 * half]` with tables `[length, half]` in
/// f32, which turn the pairs `(i, i + half)` of each head.
pub fn rotary(x: Tensor, cos: &Tensor, sin: &Tensor, dtype: DType) -> Result<Tensor> {
    if on_cpu(&x) {
        if dtype == DType::BF16 {
            return x.apply_op3_no_bwd(cos, sin, &cpu::RotaryRounded);
        }
        x.inplace_op3(cos, sin, &cpu::Rotary)?;
        return Ok(x);
    }
    let (batch, length, width) = x.dims3()?;
    #[cfg(feature = "cuda")]
    if let Some(done) = cuda::rotary(&x, width, cos, sin) {
        return done.map(|()| x);
    }
    let head = cos.dim(1)? * 2;
    // Positions past 256 are not exact in bf16, so the turn is made in f32.
    let x = x
        .reshape((batch, length, width / head, head))?
        .to_dtype(DType::F32)?;
    candle_nn::rotary_emb::rope_thd(&x, cos, sin)?
        .to_dtype(dtype)?
        .reshape((batch, length, width))
}

/// A norm over the last dimension, before each half of a block of the vision tower.
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    /// `[width]`.
    pub weight: &'a Tensor,
    /// `[width]`; without one it is an RMSNorm, else a LayerNorm.
    pub bias: Option<&'a Tensor>,
    /// Added to the variance.
    pub eps: f64,
}

impl Norm<'_> {
    /// Of `x` `[rows, width]`.
    pub fn forward(&self, x: &Tensor, dtype: DType) -> Result<Tensor> {
        match self.bias {
            Some(bias) => layer_norm(x, self.weight, bias, self.eps, dtype),
            None => rms_norm(x, self.weight, self.eps, dtype),
        }
    }
}

/// [`add_scaled`] and the norm of its result, in one pass on a GPU.
pub fn add_scaled_norm(
    x: Tensor,
    y: &Tensor,
    scale_bias: &Tensor,
    norm: Norm,
    dtype: DType,
) -> Result<(Tensor, Tensor)> {
    #[cfg(feature = "cuda")]
    if let Some(normed) = cuda::add_scaled_norm(&x, y, scale_bias, norm) {
        return normed.map(|normed| (x, normed));
    }
    let x = add_scaled(x, y, scale_bias)?;
    let normed = norm.forward(&x, dtype)?;
    Ok((x, normed))
}

/// `x wᵀ + bias`: `x` `[rows, input]`, `w` `[output, input]`, all of one type.
pub fn product(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(out) = cuda::product(x, w, bias) {
        return out;
    }
    let y = x.matmul(&w.t()?)?;
    match bias {
        Some(bias) => add_bias(y, bias),
        None => Ok(y),
    }
}

/// `x + y wᵀ`: `x` `[rows, output]`, which is overwritten, `y` `[rows, input]`, `w` `[output, input]`.
pub fn add_product(x: Tensor, y: &Tensor, w: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(done) = cuda::add_product(&x, y, w) {
        return done.map(|()| x);
    }
    add(x, &y.matmul(&w.t()?)?)
}

/// [`rotary`] of the first `width` numbers of each row of `x` `[batch, length, …]` alone, which holds
/// queries, keys and values next to each other, as one product of a GPU leaves them.
pub fn rotary_start(x: Tensor, width: usize, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(done) = cuda::rotary(&x, width, cos, sin) {
        return done.map(|()| x);
    }
    let dtype = x.dtype();
    let rest = x.dim(2)?.saturating_sub(width);
    let turned = rotary(x.narrow(2, 0, width)?.contiguous()?, cos, sin, dtype)?;
    Tensor::cat(&[&turned, &x.narrow(2, width, rest)?], 2)
}

fn on_cpu(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}
