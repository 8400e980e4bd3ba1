//! The CPU side of the kernels: candle ops that spread rows over the thread pool.

use candle_core::{
    CpuStorage, CustomOp2, CustomOp3, InplaceOp2, InplaceOp3, Layout, Result, Shape,
};
use rayon::prelude::*;

use super::math;

/// Numbers that one task works on: enough to outweigh its start.
const TASK_NUMBERS: usize = 16 << 10;

/// The numbers of a contiguous f32 tensor.
pub fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout, op: &str) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(v), Some((start, end))) => v
            .get(start..end)
            .ok_or_else(|| candle_core::Error::msg(format!("{op}: layout past its storage"))),
        _ => candle_core::bail!("{op}: a contiguous f32 tensor is needed"),
    }
}

fn numbers_mut<'a>(
    storage: &'a mut CpuStorage,
    layout: &Layout,
    op: &str,
) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(v), Some((start, end))) => v
            .get_mut(start..end)
            .ok_or_else(|| candle_core::Error::msg(format!("{op}: layout past its storage"))),
        _ => candle_core::bail!("{op}: a contiguous f32 tensor is needed"),
    }
}

/// Numbers of a task that works on whole rows of `width`.
fn task(width: usize) -> usize {
    (TASK_NUMBERS / width.max(1)).max(1) * width.max(1)
}

/// Checks that `total` numbers are whole rows of `width`.
fn whole_rows(total: usize, width: usize, op: &str) -> Result<()> {
    if width == 0 || !total.is_multiple_of(width) {
        candle_core::bail!("{op}: {total} numbers are not rows of {width}");
    }
    Ok(())
}

fn same(a: usize, b: usize, op: &str) -> Result<()> {
    if a != b {
        candle_core::bail!("{op}: {a} numbers against {b}");
    }
    Ok(())
}

/// See [`super::layer_norm`].
pub struct LayerNorm {
    pub eps: f32,
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let op = "layer_norm";
        let x = numbers(x, x_layout, op)?;
        let weight = numbers(weight, weight_layout, op)?;
        let bias = numbers(bias, bias_layout, op)?;
        whole_rows(x.len(), weight.len(), op)?;
        same(weight.len(), bias.len(), op)?;
        let mut out = vec![0.0; x.len()];
        let task = task(weight.len());
        out.par_chunks_mut(task)
            .zip(x.par_chunks(task))
            .for_each(|(out, x)| math::layer_norm(x, out, weight, bias, self.eps));
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
}

/// See [`super::rms_norm`].
pub struct RmsNorm {
    pub eps: f32,
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let op = "rms_norm";
        let x = numbers(x, x_layout, op)?;
        let weight = numbers(weight, weight_layout, op)?;
        whole_rows(x.len(), weight.len(), op)?;
        let mut out = vec![0.0; x.len()];
        let task = task(weight.len());
        out.par_chunks_mut(task)
            .zip(x.par_chunks(task))
            .for_each(|(out, x)| math::rms_norm(x, out, weight, self.eps));
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
}

/// An in-place op of a matrix and a row that is repeated over it.
macro_rules! row_op {
    ($(#[$meta:meta])* $name:ident, $text:literal, $function:path) => {
        $(#[$meta])*
        pub struct $name;

        impl InplaceOp2 for $name {
            fn name(&self) -> &'static str {
                $text
            }

            fn cpu_fwd(
                &self,
                x: &mut CpuStorage,
                x_layout: &Layout,
                row: &CpuStorage,
                row_layout: &Layout,
            ) -> Result<()> {
                let x = numbers_mut(x, x_layout, $text)?;
                let row = numbers(row, row_layout, $text)?;
                whole_rows(x.len(), row.len(), $text)?;
                x.par_chunks_mut(task(row.len()))
                    .for_each(|x| $function(x, row));
                Ok(())
            }
        }
    };
}

row_op!(
    /// See [`super::add_bias`].
    AddBias, "add_bias", math::add_bias
);
row_op!(
    /// See [`super::gelu_bias`].
    GeluBias, "gelu_bias", math::gelu_bias
);

/// An in-place op of two tensors of one shape.
macro_rules! pair_op {
    ($(#[$meta:meta])* $name:ident, $text:literal, $function:path) => {
        $(#[$meta])*
        pub struct $name;

        impl InplaceOp2 for $name {
            fn name(&self) -> &'static str {
                $text
            }

            fn cpu_fwd(
                &self,
                x: &mut CpuStorage,
                x_layout: &Layout,
                y: &CpuStorage,
                y_layout: &Layout,
            ) -> Result<()> {
                let x = numbers_mut(x, x_layout, $text)?;
                let y = numbers(y, y_layout, $text)?;
                same(x.len(), y.len(), $text)?;
                x.par_chunks_mut(TASK_NUMBERS)
                    .zip(y.par_chunks(TASK_NUMBERS))
                    .for_each(|(x, y)| $function(x, y));
                Ok(())
            }
        }
    };
}

pair_op!(
    /// See [`super::silu_mul`].
    SiluMul, "silu_mul", math::silu_mul
);
pair_op!(
    /// See [`super::add`].
    Add, "add", math::add
);

/// See [`super::add_scaled`].
pub struct AddScaled;

impl InplaceOp3 for AddScaled {
    fn name(&self) -> &'static str {
        "add_scaled"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
        scale_bias: &CpuStorage,
        scale_bias_layout: &Layout,
    ) -> Result<()> {
        let op = "add_scaled";
        let (two, width) = scale_bias_layout.shape().dims2()?;
        same(two, 2, op)?;
        let x = numbers_mut(x, x_layout, op)?;
        let y = numbers(y, y_layout, op)?;
        let (scale, bias) = numbers(scale_bias, scale_bias_layout, op)?.split_at(width);
        whole_rows(x.len(), width, op)?;
        same(x.len(), y.len(), op)?;
        let task = task(width);
        x.par_chunks_mut(task)
            .zip(y.par_chunks(task))
            .for_each(|(x, y)| math::add_scaled(x, y, scale, bias));
        Ok(())
    }
}

/// See [`super::rotary`].
pub struct Rotary;

impl InplaceOp3 for Rotary {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        x_layout: &Layout,
        cos: &CpuStorage,
        cos_layout: &Layout,
        sin: &CpuStorage,
        sin_layout: &Layout,
    ) -> Result<()> {
        let op = "rotary";
        let (_, length, width) = x_layout.shape().dims3()?;
        let (positions, half) = cos_layout.shape().dims2()?;
        let x = numbers_mut(x, x_layout, op)?;
        let cos = numbers(cos, cos_layout, op)?;
        let sin = numbers(sin, sin_layout, op)?;
        same(length, positions, op)?;
        same(cos.len(), sin.len(), op)?;
        whole_rows(width, 2 * half, op)?;
        x.par_chunks_mut(width).enumerate().for_each(|(row, x)| {
            let at = row % length * half;
            if let (Some(cos), Some(sin)) = (cos.get(at..at + half), sin.get(at..at + half)) {
                math::rotary(x, cos, sin);
            }
        });
        Ok(())
    }
}
