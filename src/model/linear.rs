//! Reading a model's parts from a checkpoint, and the affine maps that most of them are.

use candle_core::{DType, Device, Result as CandleResult, Tensor};

use super::{
    device::Place,
    kernels::{
        self,
        packed::{Packed, PackedGate},
    },
    layout::TensorSpec,
    weights::Checkpoint,
};
use crate::error::{Error, Kind, Result};

/// A checkpoint and where its tensors go.
pub struct Loader<'a> {
    pub checkpoint: &'a Checkpoint,
    pub place: &'a Place,
}

impl Loader<'_> {
    /// The device.
    pub fn device(&self) -> &Device {
        &self.place.device
    }

    /// The type of what goes into a product or into the attention.
    pub fn dtype(&self) -> DType {
        self.place.dtype
    }

    /// The tensor of a canonical name; see [`super::layout`].
    pub fn tensor(&self, name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Result<Tensor> {
        let spec = TensorSpec {
            name: name.into(),
            shape: shape.into(),
        };
        let tensor = self.checkpoint.tensor(&spec, self.device())?;
        self.checkpoint.forget(&spec);
        Ok(tensor)
    }

    /// Whether the weights of products are packed.
    fn packs(&self) -> bool {
        self.device().is_cpu() && self.dtype() == DType::BF16
    }

    /// The weights `name` of an affine map without a bias, of `shape` `[output, input, …]`: what
    /// follows the first dimension is one.
    pub fn weight(&self, name: impl Into<String>, shape: &[usize]) -> Result<Linear> {
        let name = name.into();
        let (output, input) = match shape.split_first() {
            Some((&output, rest)) => (output, rest.iter().product::<usize>()),
            None => return Err(Error::internal(format!("{name} is no matrix"))),
        };
        let weight = if self.packs() {
            let spec = TensorSpec {
                name,
                shape: shape.to_vec(),
            };
            let packed = Packed::new(self.checkpoint.finite(&spec)?, output, input)?;
            self.checkpoint.forget(&spec);
            Weight::Packed(packed)
        } else {
            let weight = self.tensor(name, shape)?;
            Weight::Tensor(weight.flatten_from(1).map_err(failed("loading weights"))?)
        };
        Ok(Linear { weight, bias: None })
    }

    /// `name.weight` `[output, input]`, and `name.bias` where there is one.
    pub fn linear(&self, name: &str, output: usize, input: usize, bias: bool) -> Result<Linear> {
        Ok(Linear {
            bias: bias
                .then(|| self.tensor(format!("{name}.bias"), [output]))
                .transpose()?,
            ..self.weight(format!("{name}.weight"), &[output, input])?
        })
    }

    /// The first half of a gated MLP: `gate` and `up`, `[output, input]` each.
    pub fn gate(&self, gate: String, up: String, output: usize, input: usize) -> Result<Gate> {
        if !self.packs() {
            return Ok(Gate::Tensors(
                self.tensor(gate, [output, input])?,
                self.tensor(up, [output, input])?,
            ));
        }
        let [gate, up] = [gate, up].map(|name| TensorSpec {
            name,
            shape: vec![output, input],
        });
        let packed = PackedGate::new(
            self.checkpoint.finite(&gate)?,
            self.checkpoint.finite(&up)?,
            output,
            input,
        )?;
        self.checkpoint.forget(&gate);
        self.checkpoint.forget(&up);
        Ok(Gate::Packed(packed))
    }
}

/// `x Wᵀ + b`.
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
}

/// `[output, input]`.
enum Weight {
    /// In the type of the activations.
    Tensor(Tensor),
    /// bf16 on the CPU.
    Packed(Packed),
}

impl Linear {
    /// `x` `[rows, input]` to `[rows, output]` in `dtype`. What is not packed gives the type of `x`,
    /// which is then the only one there is.
    pub fn forward(&self, x: &Tensor, dtype: DType) -> CandleResult<Tensor> {
        let bias = self.bias.as_ref();
        match &self.weight {
            Weight::Packed(weight) => weight.affine(x, bias, dtype),
            Weight::Tensor(weight) => affine(x, weight, bias),
        }
    }

    /// `gelu(x Wᵀ + bias)`, `bias` `[output]`, in the type of the activations.
    pub fn gelu(&self, x: &Tensor, bias: &Tensor) -> CandleResult<Tensor> {
        match &self.weight {
            Weight::Packed(weight) => weight.gelu(x, bias),
            Weight::Tensor(weight) => kernels::gelu_bias(x.matmul(&weight.t()?)?, bias),
        }
    }

    /// `x + y Wᵀ`; `x` `[rows, output]` is overwritten.
    pub fn add_to(&self, x: Tensor, y: &Tensor) -> CandleResult<Tensor> {
        match &self.weight {
            Weight::Packed(weight) => weight.add_to(x, y),
            Weight::Tensor(weight) => kernels::add(x, &y.matmul(&weight.t()?)?),
        }
    }

    /// `x + scale * (y Wᵀ + bias)`, `scale_bias` `[2, output]`; `x` `[rows, output]` is overwritten.
    pub fn add_scaled_to(
        &self,
        x: Tensor,
        y: &Tensor,
        scale_bias: &Tensor,
    ) -> CandleResult<Tensor> {
        match &self.weight {
            Weight::Packed(weight) => weight.add_scaled_to(x, y, scale_bias),
            Weight::Tensor(weight) => kernels::add_scaled(x, &y.matmul(&weight.t()?)?, scale_bias),
        }
    }

    /// [`forward`](Self::forward) of some results alone: those of the slices of `size` numbers with
    /// these numbers, in their order.
    pub fn forward_slices(
        &self,
        x: &Tensor,
        (slices, size): (&[usize], usize),
        dtype: DType,
    ) -> CandleResult<Tensor> {
        let pick = |of: &Tensor, dim: usize| {
            let parts: Vec<Tensor> = slices
                .iter()
                .map(|slice| of.narrow(dim, slice * size, size))
                .collect::<CandleResult<_>>()?;
            Tensor::cat(&parts, dim)
        };
        match &self.weight {
            // All of them: the weights lie in another order, and the rows are few.
            Weight::Packed(weight) => pick(&weight.affine(x, self.bias.as_ref(), dtype)?, 1),
            Weight::Tensor(weight) => {
                let bias = self.bias.as_ref().map(|bias| pick(bias, 0)).transpose()?;
                affine(x, &pick(weight, 0)?, bias.as_ref())
            }
        }
    }
}

fn affine(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> CandleResult<Tensor> {
    let y = x.matmul(&weight.t()?)?;
    match bias {
        Some(bias) => kernels::add_bias(y, bias),
        None => Ok(y),
    }
}

/// `silu(x gateᵀ) * (x upᵀ)`.
pub enum Gate {
    /// In the type of the activations.
    Tensors(Tensor, Tensor),
    /// bf16 on the CPU.
    Packed(PackedGate),
}

impl Gate {
    /// `x` `[rows, input]` to `[rows, output]` in the type of the activations.
    pub fn forward(&self, x: &Tensor) -> CandleResult<Tensor> {
        match self {
            Gate::Packed(gate) => gate.forward(x),
            Gate::Tensors(gate, up) => {
                let gate = x.matmul(&gate.t()?)?;
                kernels::silu_mul(gate, &x.matmul(&up.t()?)?)
            }
        }
    }
}

/// An error of candle while `what` ran: a lack of memory is told from a bug.
pub fn failed(what: &str) -> impl FnOnce(candle_core::Error) -> Error {
    let what = what.to_owned();
    move |e| {
        let text = e.to_string().to_ascii_lowercase();
        if text.contains("out of memory") || text.contains("out_of_memory") {
            return Error::new(
                Kind::ResourceExhausted,
                format!("not enough device memory while {what}"),
            )
            .with_source(e);
        }
        Error::internal(format!("the model failed while {what}")).with_source(e)
    }
}
