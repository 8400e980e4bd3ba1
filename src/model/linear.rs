//! Reading a model's parts from a checkpoint, and the affine map that most of them are.

use candle_core::{Device, Result as CandleResult, Tensor};

use super::{kernels, layout::TensorSpec, weights::Checkpoint};
use crate::error::{Error, Kind, Result};

/// A checkpoint and the device that its tensors go to.
pub struct Loader<'a> {
    pub checkpoint: &'a Checkpoint,
    pub device: &'a Device,
}

impl Loader<'_> {
    /// The tensor of a canonical name; see [`super::layout`].
    pub fn tensor(&self, name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Result<Tensor> {
        let spec = TensorSpec {
            name: name.into(),
            shape: shape.into(),
        };
        self.checkpoint.tensor(&spec, self.device)
    }

    /// `name.weight` `[output, input]`, and `name.bias` where there is one.
    pub fn linear(&self, name: &str, output: usize, input: usize, bias: bool) -> Result<Linear> {
        Ok(Linear {
            weight: self.tensor(format!("{name}.weight"), [output, input])?,
            bias: bias
                .then(|| self.tensor(format!("{name}.bias"), [output]))
                .transpose()?,
        })
    }
}

/// `x Wᵀ + b`.
pub struct Linear {
    pub weight: Tensor,
    pub bias: Option<Tensor>,
}

impl Linear {
    /// `x` `[rows, input]` to `[rows, output]`.
    pub fn forward(&self, x: &Tensor) -> CandleResult<Tensor> {
        let y = self.product(x)?;
        match &self.bias {
            Some(bias) => kernels::add_bias(y, bias),
            None => Ok(y),
        }
    }

    /// [`forward`](Self::forward) without the bias, for a kernel that adds it with its own work.
    pub fn product(&self, x: &Tensor) -> CandleResult<Tensor> {
        x.matmul(&self.weight.t()?)
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
