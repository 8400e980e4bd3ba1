//! The CPU side of the kernels: candle ops that spread rows over the thread pool.

use candle_core::{
    CpuStorage, CustomOp2, CustomOp3, DType, InplaceOp2, InplaceOp3, Layout, Result, Shape,
};
use half::bf16;
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

/// The same to overwrite.
pub fn numbers_mut<'a>(
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

/// Runs `row_task` over tasks of whole rows of `x`, and rounds what it writes where `dtype` is bf16.
/// Each call gets the number of the task's first row, its rows of `x` and room for as many.
fn rows_to(
    dtype: DType,
    x: &[f32],
    width: usize,
    row_task: impl Fn(usize, &[f32], &mut [f32]) + Sync,
) -> Result<CpuStorage> {
    let task = task(width);
    let first = |number: usize| number * (task / width);
    match dtype {
        DType::F32 => {
            let mut out = vec![0.0; x.len()];
            out.par_chunks_mut(task)
                .zip(x.par_chunks(task))
                .enumerate()
                .for_each(|(number, (out, x))| row_task(first(number), x, out));
            Ok(CpuStorage::F32(out))
        }
        DType::BF16 => {
            let mut out = vec![bf16::ZERO; x.len()];
            out.par_chunks_mut(task)
                .zip(x.par_chunks(task))
                .enumerate()
                .for_each_init(Vec::new, |exact, (number, (out, x))| {
                    exact.resize(x.len(), 0.0);
                    row_task(first(number), x, exact);
                    math::round(exact, out);
                });
            Ok(CpuStorage::BF16(out))
        }
        other => candle_core::bail!("a kernel on the CPU gives f32 or bf16, not {other:?}"),
    }
}

/// See [`super::layer_norm`].
pub struct LayerNorm {
    pub eps: f32,
    /// Of the result.
    pub dtype: DType,
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
        let out = rows_to(self.dtype, x, weight.len(), |_, x, out| {
            math::layer_norm(x, out, weight, bias, self.eps);
        })?;
        Ok((out, x_layout.shape().clone()))
    }
}

/// See [`super::rms_norm`].
pub struct RmsNorm {
    pub eps: f32,
    /// Of the result.
    pub dtype: DType,
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
        let out = rows_to(self.dtype, x, weight.len(), |_, x, out| {
            math::rms_norm(x, out, weight, self.eps);
        })?;
        Ok((out, x_layout.shape().clone()))
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

/// The tables of a rotary embedding of `x` `[batch, length, width]`.
struct Turns<'a> {
    length: usize,
    width: usize,
    half: usize,
    cos: &'a [f32],
    sin: &'a [f32],
}

impl<'a> Turns<'a> {
    fn of(
        x: &Layout,
        (cos, cos_layout): (&'a CpuStorage, &Layout),
        (sin, sin_layout): (&'a CpuStorage, &Layout),
    ) -> Result<Self> {
        let op = "rotary";
        let (_, length, width) = x.shape().dims3()?;
        let (positions, half) = cos_layout.shape().dims2()?;
        let cos = numbers(cos, cos_layout, op)?;
        let sin = numbers(sin, sin_layout, op)?;
        same(length, positions, op)?;
        same(cos.len(), sin.len(), op)?;
        whole_rows(width, 2 * half, op)?;
        Ok(Turns {
            length,
            width,
            half,
            cos,
            sin,
        })
    }

    /// Turns row number `row`.
    fn turn(&self, row: usize, x: &mut [f32]) {
        let at = row % self.length * self.half;
        let range = at..at + self.half;
        if let (Some(cos), Some(sin)) = (self.cos.get(range.clone()), self.sin.get(range)) {
            math::rotary(x, cos, sin);
        }
    }
}

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
        let turns = Turns::of(x_layout, (cos, cos_layout), (sin, sin_layout))?;
        let x = numbers_mut(x, x_layout, self.name())?;
        x.par_chunks_mut(turns.width)
            .enumerate()
            .for_each(|(row, x)| turns.turn(row, x));
        Ok(())
    }
}

/// The same, rounded to bf16.
pub struct RotaryRounded;

impl CustomOp3 for RotaryRounded {
    fn name(&self) -> &'static str {
        "rotary to bf16"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        cos: &CpuStorage,
        cos_layout: &Layout,
        sin: &CpuStorage,
        sin_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let turns = Turns::of(x_layout, (cos, cos_layout), (sin, sin_layout))?;
        let x = numbers(x, x_layout, self.name())?;
        let out = rows_to(DType::BF16, x, turns.width, |first, x, out| {
            out.copy_from_slice(x);
            for (row, out) in out.chunks_exact_mut(turns.width).enumerate() {
                turns.turn(first + row, out);
            }
        })?;
        Ok((out, x_layout.shape().clone()))
    }
}
