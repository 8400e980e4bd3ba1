//! Reading a model's parts from a checkpoint, and the affine maps that most of them are.

use candle_core::{DType, Device, Result as CandleResult, Tensor};

use super::{
    device::Place,
    kernels::{
        self, Norm,
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
    fn tensor(&self) -> Option<&Tensor> {
        match &self.weight {
            Weight::Tensor(weight) => Some(weight),
            Weight::Packed(_) => None,
        }
    }

    /// The map to `count` of the results alone, from `first`; a view of these weights.
    fn part(&self, first: usize, count: usize) -> CandleResult<Linear> {
        let Some(weight) = self.tensor() else {
            candle_core::bail!("packed weights have no parts");
        };
        Ok(Linear {
            weight: Weight::Tensor(weight.narrow(0, first, count)?),
            bias: (self.bias.as_ref())
                .map(|bias| bias.narrow(0, first, count))
                .transpose()?,
        })
    }

    /// The same map of inputs that have `zeros` more numbers, which count for nothing.
    pub fn filled_up(self, zeros: usize) -> CandleResult<Linear> {
        if zeros == 0 {
            return Ok(self);
        }
        let Some(weight) = self.tensor() else {
            candle_core::bail!("packed weights are not filled up");
        };
        Ok(Linear {
            weight: Weight::Tensor(weight.pad_with_zeros(1, 0, zeros)?),
            bias: self.bias,
        })
    }

    /// `x` `[rows, input]` to `[rows, output]` in `dtype`. What is not packed gives the type of `x`,
    /// which is then the only one there is.
    pub fn forward(&self, x: &Tensor, dtype: DType) -> CandleResult<Tensor> {
        let bias = self.bias.as_ref();
        match &self.weight {
            Weight::Packed(weight) => weight.affine(x, bias, dtype),
            Weight::Tensor(weight) => kernels::product(x, weight, bias),
        }
    }

    /// `gelu(x Wᵀ + bias)`, `bias` `[output]`, in the type of the activations.
    pub fn gelu(&self, x: &Tensor, bias: &Tensor) -> CandleResult<Tensor> {
        match &self.weight {
            Weight::Packed(weight) => weight.gelu(x, bias),
            Weight::Tensor(weight) => kernels::gelu_bias(kernels::product(x, weight, None)?, bias),
        }
    }

    /// `x + y Wᵀ`; `x` `[rows, output]` is overwritten.
    pub fn add_to(&self, x: Tensor, y: &Tensor) -> CandleResult<Tensor> {
        match &self.weight {
            Weight::Packed(weight) => weight.add_to(x, y),
            Weight::Tensor(weight) => kernels::add_product(x, y, weight),
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
            Weight::Tensor(weight) => {
                kernels::add_scaled(x, &kernels::product(y, weight, None)?, scale_bias)
            }
        }
    }

    /// [`add_scaled_to`](Self::add_scaled_to), and the norm of the result.
    pub fn add_scaled_norm_to(
        &self,
        x: Tensor,
        y: &Tensor,
        scale_bias: &Tensor,
        norm: Norm,
        dtype: DType,
    ) -> CandleResult<(Tensor, Tensor)> {
        match &self.weight {
            Weight::Packed(weight) => {
                let x = weight.add_scaled_to(x, y, scale_bias)?;
                let normed = norm.forward(&x, dtype)?;
                Ok((x, normed))
            }
            Weight::Tensor(weight) => {
                let y = kernels::product(y, weight, None)?;
                kernels::add_scaled_norm(x, &y, scale_bias, norm, dtype)
            }
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
                kernels::product(x, &pick(weight, 0)?, bias.as_ref())
            }
        }
    }
}

/// Queries, keys and values of an attention layer: three maps of one input.
pub struct Projections {
    pub q: Linear,
    pub k: Linear,
    pub v: Linear,
    /// On a GPU, where small products leave much of it idle.
    pub joined: Option<Joined>,
}

/// The same weights, several maps to a product; the maps of [`Projections`] are views of them.
pub struct Joined {
    /// Queries, keys and values next to each other.
    pub all: Linear,
    /// Keys and values.
    pub keys_values: Linear,
}

impl Projections {
    /// `name.q`, `name.k` and `name.v` to `queries`, `keys` and `keys` numbers, with a bias each or none.
    /// They are joined, where the device gains by it and `join` says so.
    pub fn load(
        from: &Loader,
        name: &str,
        (queries, keys): (usize, usize),
        input: usize,
        bias: bool,
        join: bool,
    ) -> Result<Self> {
        let part = |of: &str, output| from.linear(&format!("{name}.{of}"), output, input, bias);
        let (q, k, v) = (part("q", queries)?, part("k", keys)?, part("v", keys)?);
        let maps = Projections {
            q,
            k,
            v,
            joined: None,
        };
        if !join || from.device().is_cpu() {
            return Ok(maps);
        }
        maps.join(queries, keys).map_err(failed("loading weights"))
    }

    fn join(self, queries: usize, keys: usize) -> CandleResult<Self> {
        let parts = [&self.q, &self.k, &self.v];
        let weights: Option<Vec<&Tensor>> = parts.iter().map(|part| part.tensor()).collect();
        let Some(weights) = weights else {
            return Ok(self);
        };
        let biases: Option<Vec<&Tensor>> = parts.iter().map(|part| part.bias.as_ref()).collect();
        let all = Linear {
            weight: Weight::Tensor(Tensor::cat(&weights, 0)?),
            bias: biases.map(|biases| Tensor::cat(&biases, 0)).transpose()?,
        };
        Ok(Projections {
            q: all.part(0, queries)?,
            k: all.part(queries, keys)?,
            v: all.part(queries + keys, keys)?,
            joined: Some(Joined {
                keys_values: all.part(queries, 2 * keys)?,
                all,
            }),
        })
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
                let gate = kernels::product(x, gate, None)?;
                kernels::silu_mul(gate, &kernels::product(x, up, None)?)
            }
        }
    }
}

/// Without the addresses of functions that RUST_BACKTRACE adds to candle's errors: they would be most of a log's line.
pub fn bare(mut e: candle_core::Error) -> candle_core::Error {
    while let candle_core::Error::WithBacktrace { inner, .. } = e {
        e = *inner;
    }
    e
}

/// An error of candle while `what` ran: a lack of memory is told from a bug.
pub fn failed(what: &str) -> impl FnOnce(candle_core::Error) -> Error {
    let what = what.to_owned();
    move |e| {
        let e = bare(e);
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
