//! Pointwise and attention kernels: fused and vectorised on the CPU, candle's own on a GPU.
//!
//! A function that takes its first tensor by value may overwrite it: its caller must hold the only
//! handle of that storage.
//!
//! On the CPU the hidden states are always f32. Where a function takes the `dtype` of its result, that
//! is the type of what goes into a product or into the attention: f32, or bf16 for [`packed`]
//! weights. On a GPU every tensor has the one type of the model, and `dtype` is that one.

mod attention;
mod cpu;
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
    candle_nn::ops::layer_norm(x, weight, bias, eps as f32)
}

/// RMSNorm over the last dimension: `x` `[rows, width]`, `weight` `[width]`.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64, dtype: DType) -> Result<Tensor> {
    if on_cpu(x) {
        let eps = eps as f32;
        return x.apply_op2_no_bwd(weight, &cpu::RmsNorm { eps, dtype });
    }
    candle_nn::ops::rms_norm(x, weight, eps as f32)
}

/// `x + bias`, `x` `[rows, width]`.
pub fn add_bias(x: Tensor, bias: &Tensor) -> Result<Tensor> {
    if on_cpu(&x) {
        x.inplace_op2(bias, &cpu::AddBias)?;
        return Ok(x);
    }
    x.broadcast_add(bias)
}

/// `gelu(x + bias)` with the exact (erf) GELU, `x` `[rows, width]`.
pub fn gelu_bias(x: Tensor, bias: &Tensor) -> Result<Tensor> {
    if on_cpu(&x) {
        x.inplace_op2(bias, &cpu::GeluBias)?;
        return Ok(x);
    }
    x.broadcast_add(bias)?.gelu_erf()
}

/// `silu(gate) * up`, both of one shape.
pub fn silu_mul(gate: Tensor, up: &Tensor) -> Result<Tensor> {
    if on_cpu(&gate) {
        gate.inplace_op2(up, &cpu::SiluMul)?;
        return Ok(gate);
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
    let head = cos.dim(1)? * 2;
    // Positions past 256 are not exact in bf16, so the turn is made in f32.
    let x = x
        .reshape((batch, length, width / head, head))?
        .to_dtype(DType::F32)?;
    candle_nn::rotary_emb::rope_thd(&x, cos, sin)?
        .to_dtype(dtype)?
        .reshape((batch, length, width))
}

fn on_cpu(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}
