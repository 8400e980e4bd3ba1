//! From vision patches to the language model's tokens: pixel unshuffle and a two-layer MLP.

use candle_core::{DType, Result as CandleResult, Tensor};

use super::{
    config::ModelConfig,
    kernels,
    linear::{Linear, Loader},
};
use crate::error::Result;

/// The projector's weights.
pub struct Projector {
    norm: (Tensor, Tensor),
    eps: f64,
    /// Of what goes into a product.
    dtype: DType,
    linear1: Linear,
    linear1_bias: Tensor,
    linear2: Linear,
}

/// Joins each 2 × 2 square of patches into one token: `tower` `[pictures, 1 + grid², hidden]` with
/// the class token first, to `[pictures, grid² / 4, 4 * hidden]`. The channels of the patches
/// (row, column) (0,0), (0,1), (1,0), (1,1) follow each other.
pub fn unshuffle(tower: &Tensor, grid: usize) -> CandleResult<Tensor> {
    let (pictures, _, hidden) = tower.dims3()?;
    let half = grid / 2;
    tower
        .narrow(1, 1, grid * grid)?
        .contiguous()?
        .reshape(&[pictures, half, 2, half, 2, hidden][..])?
        .permute(vec![0, 1, 3, 2, 4, 5])?
        .contiguous()?
        .reshape((pictures, half * half, 4 * hidden))
}

impl Projector {
    pub(super) fn load(from: &Loader, config: &ModelConfig) -> Result<Self> {
        let (input, hidden) = (config.projector_input(), config.text.hidden);
        Ok(Projector {
            norm: (
                from.tensor("projector.norm.weight", [input])?,
                from.tensor("projector.norm.bias", [input])?,
            ),
            eps: config.projector_eps,
            dtype: from.dtype(),
            linear1: from.weight("projector.linear1.weight", &[hidden, input])?,
            linear1_bias: from.tensor("projector.linear1.bias", [hidden])?,
            linear2: from.linear("projector.linear2", hidden, hidden, true)?,
        })
    }

    /// `[pictures, tokens, 4 * vision hidden]` to `[pictures, tokens, text hidden]`.
    pub fn forward(&self, x: &Tensor) -> CandleResult<Tensor> {
        let (pictures, tokens, width) = x.dims3()?;
        let x = x.reshape((pictures * tokens, width))?;
        let hidden = x.dtype();
        let x = kernels::layer_norm(&x, &self.norm.0, &self.norm.1, self.eps, self.dtype)?;
        let x = self.linear1.gelu(&x, &self.linear1_bias)?;
        self.linear2
            .forward(&x, hidden)?
            .reshape((pictures, tokens, ()))
    }
}
