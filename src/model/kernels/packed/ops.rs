//! The products as candle's operations.

use std::marker::PhantomData;

use candle_core::{CpuStorage, CustomOp1, DType, InplaceOp2, Layout, Result, Shape, Tensor};
use half::bf16;

use super::{
    Packed, PackedGate,
    finish::{Add, AddScaled, Affine, Finish, GATED, Gated, Gelu, Stored},
    isa::Isa,
    layout::Panels,
    run::{Rows, product},
};
use crate::model::kernels::cpu::{numbers, numbers_mut};

/// The numbers of a contiguous tensor of either type.
enum Numbers<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

fn either<'a>(storage: &'a CpuStorage, layout: &Layout, op: &str) -> Result<Numbers<'a>> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::BF16(v), Some((start, end))) => v
            .get(start..end)
            .map(Numbers::Bf16)
            .ok_or_else(|| candle_core::Error::msg(format!("{op}: layout past its storage"))),
        _ => numbers(storage, layout, op).map(Numbers::F32),
    }
}

/// A product of either type of rows.
fn run<F: Finish>(
    isa: Isa,
    (x, width): (Numbers<'_>, usize),
    weights: (&Panels, usize),
    out: (&mut [F::Out], usize),
    finish: &F,
) -> Result<()> {
    match x {
        Numbers::F32(x) => product(isa, Rows { x, width }, weights, out, finish),
        Numbers::Bf16(x) => product(isa, Rows { x, width }, weights, out, finish),
    }
}

/// Reads a row-shaped operand.
fn with_row<R>(row: &Tensor, run: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let (storage, layout) = row.storage_and_layout();
    match &*storage {
        candle_core::Storage::Cpu(storage) => run(numbers(storage, layout, "a row")?),
        _ => candle_core::bail!("weights in bf16 are for the CPU"),
    }
}

/// What follows the product.
enum Then<'a> {
    /// `+ bias`, in this type.
    Affine(Option<&'a Tensor>, DType),
    /// `gelu(· + bias)`.
    Gelu(&'a Tensor),
}

struct Project<'a> {
    weights: &'a Packed,
    then: Then<'a>,
}

impl Project<'_> {
    fn affine<T: Stored>(
        &self,
        x: Numbers<'_>,
        rows: usize,
        bias: Option<&[f32]>,
    ) -> Result<Vec<T>> {
        let Packed {
            panels,
            input,
            output,
            isa,
        } = self.weights;
        let mut out = vec![T::default(); rows * output];
        let finish = Affine {
            bias,
            width: *output,
            stored: PhantomData,
        };
        run(
            *isa,
            (x, *input),
            (panels, *output),
            (&mut out, *output),
            &finish,
        )?;
        Ok(out)
    }
}

impl CustomOp1 for Project<'_> {
    fn name(&self) -> &'static str {
        "packed product"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Packed {
            panels,
            input,
            output,
            isa,
        } = self.weights;
        let (rows, _) = layout.shape().dims2()?;
        let x = either(x, layout, self.name())?;
        let out = match self.then {
            Then::Affine(None, DType::BF16) => CpuStorage::BF16(self.affine(x, rows, None)?),
            Then::Affine(None, _) => CpuStorage::F32(self.affine(x, rows, None)?),
            Then::Affine(Some(bias), DType::BF16) => {
                CpuStorage::BF16(with_row(bias, |bias| self.affine(x, rows, Some(bias)))?)
            }
            Then::Affine(Some(bias), _) => {
                CpuStorage::F32(with_row(bias, |bias| self.affine(x, rows, Some(bias)))?)
            }
            Then::Gelu(bias) => CpuStorage::BF16(with_row(bias, |bias| {
                let mut out = vec![bf16::ZERO; rows * output];
                let into = (&mut out[..], *output);
                run(*isa, (x, *input), (panels, *output), into, &Gelu { bias })?;
                Ok(out)
            })?),
        };
        Ok((out, Shape::from((rows, *output))))
    }
}

/// `x + …` in place.
struct ProjectInto<'a> {
    weights: &'a Packed,
    /// `[2, width]`: scale, then bias.
    scale_bias: Option<&'a Tensor>,
}

impl InplaceOp2 for ProjectInto<'_> {
    fn name(&self) -> &'static str {
        "packed residual product"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> Result<()> {
        let Packed {
            panels,
            input,
            output,
            isa,
        } = self.weights;
        let x = (numbers_mut(x, x_layout, self.name())?, *output);
        let y = (either(y, y_layout, self.name())?, *input);
        let weights = (&**panels, *output);
        match self.scale_bias {
            None => run(*isa, y, weights, x, &Add { width: *output }),
            Some(both) => with_row(both, |both| {
                if both.len() != 2 * output {
                    candle_core::bail!("{} numbers are not scale and bias of {output}", both.len());
                }
                let (scale, bias) = both.split_at(*output);
                run(*isa, y, weights, x, &AddScaled { scale, bias })
            }),
        }
    }
}

struct ProjectGated<'a>(&'a PackedGate);

impl CustomOp1 for ProjectGated<'_> {
    fn name(&self) -> &'static str {
        "packed gate"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let PackedGate {
            panels,
            input,
            output,
            isa,
        } = self.0;
        let (rows, _) = layout.shape().dims2()?;
        let x = (either(x, layout, self.name())?, *input);
        let mut out = vec![bf16::ZERO; rows * output];
        // Both halves of every block, the last one's padding too.
        let columns = output.div_ceil(GATED) * 2 * GATED;
        let into = (&mut out[..], *output);
        run(*isa, x, (panels, columns), into, &Gated { width: *output })?;
        Ok((CpuStorage::BF16(out), Shape::from((rows, *output))))
    }
}

impl Packed {
    /// `x Wᵀ + bias` in `dtype` (f32 or bf16), `x` `[rows, input]` in either.
    pub fn affine(&self, x: &Tensor, bias: Option<&Tensor>, dtype: DType) -> Result<Tensor> {
        x.apply_op1_no_bwd(&Project {
            weights: self,
            then: Then::Affine(bias, dtype),
        })
    }

    /// `gelu(x Wᵀ + bias)` in bf16.
    pub fn gelu(&self, x: &Tensor, bias: &Tensor) -> Result<Tensor> {
        x.apply_op1_no_bwd(&Project {
            weights: self,
            then: Then::Gelu(bias),
        })
    }

    /// `x + y Wᵀ` into `x` f32 `[rows, output]`, which is overwritten.
    pub fn add_to(&self, x: Tensor, y: &Tensor) -> Result<Tensor> {
        self.into(x, y, None)
    }

    /// `x + scale * (y Wᵀ + bias)` into `x`, `scale_bias` f32 `[2, output]`.
    pub fn add_scaled_to(&self, x: Tensor, y: &Tensor, scale_bias: &Tensor) -> Result<Tensor> {
        self.into(x, y, Some(scale_bias))
    }

    fn into(&self, x: Tensor, y: &Tensor, scale_bias: Option<&Tensor>) -> Result<Tensor> {
        x.inplace_op2(
            y,
            &ProjectInto {
                weights: self,
                scale_bias,
            },
        )?;
        Ok(x)
    }
}

impl PackedGate {
    /// `silu(x gateᵀ) * (x upᵀ)` in bf16, `x` `[rows, input]` in f32 or bf16.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.apply_op1_no_bwd(&ProjectGated(self))
    }
}
