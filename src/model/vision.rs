//! The vision tower (InternViT, 300M and 6B): pictures to one vector per patch.

use candle_core::{Result as CandleResult, Tensor};

use super::{
    config::{Norm, VisionConfig},
    kernels::{self, Heads},
    linear::{Linear, Loader, failed},
};
use crate::error::Result;

/// The tower's weights.
pub struct VisionTower {
    config: VisionConfig,
    /// `[hidden, 3 * patch * patch]`.
    patch: Linear,
    cls: Tensor,
    position: Tensor,
    layers: Vec<Layer>,
}

struct Layer {
    norm1: BlockNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    /// Weights of the RMSNorms of queries and keys, over the full width.
    qk_norm: Option<(Tensor, Tensor)>,
    proj: Tensor,
    /// Layer scale and the bias of the projection before it, `[2, hidden]`.
    residual1: Tensor,
    norm2: BlockNorm,
    fc1: Tensor,
    fc1_bias: Tensor,
    fc2: Tensor,
    residual2: Tensor,
}

/// The norm before each half of a block.
enum BlockNorm {
    Layer { weight: Tensor, bias: Tensor },
    Rms { weight: Tensor },
}

impl BlockNorm {
    fn load(from: &Loader, name: &str, config: &VisionConfig) -> Result<Self> {
        let weight = from.tensor(format!("{name}.weight"), [config.hidden])?;
        Ok(match config.norm {
            Norm::LayerNorm => BlockNorm::Layer {
                weight,
                bias: from.tensor(format!("{name}.bias"), [config.hidden])?,
            },
            Norm::RmsNorm => BlockNorm::Rms { weight },
        })
    }

    fn forward(&self, x: &Tensor, eps: f64) -> CandleResult<Tensor> {
        match self {
            BlockNorm::Layer { weight, bias } => kernels::layer_norm(x, weight, bias, eps),
            BlockNorm::Rms { weight } => kernels::rms_norm(x, weight, eps),
        }
    }
}

impl VisionTower {
    pub(super) fn load(from: &Loader, config: &VisionConfig) -> Result<Self> {
        let h = config.hidden;
        let patch = from.tensor("vision.patch.weight", [h, 3, config.patch, config.patch])?;
        Ok(VisionTower {
            patch: Linear {
                weight: patch
                    .flatten_from(1)
                    .map_err(failed("loading the vision tower"))?,
                bias: Some(from.tensor("vision.patch.bias", [h])?),
            },
            cls: from.tensor("vision.cls", [1, 1, h])?,
            position: from.tensor("vision.position", [1, config.patches() + 1, h])?,
            layers: (0..config.layers)
                .map(|n| Layer::load(from, config, n))
                .collect::<Result<_>>()?,
            config: config.clone(),
        })
    }

    /// `pixels` f32 `[pictures, 3, image, image]`, normalised, to `[pictures, 1 + patches,
    /// hidden]`: the class token, then the patches row by row. There is no final norm.
    pub fn forward(&self, pixels: &Tensor) -> CandleResult<Tensor> {
        let (pictures, ..) = pixels.dims4()?;
        let c = &self.config;
        let (grid, side) = (c.grid(), c.patch);
        // A convolution whose stride is its size is a product with each patch as a row.
        let patches = pixels
            .to_dtype(self.cls.dtype())?
            .reshape(&[pictures, 3, grid, side, grid, side][..])?
            .permute(vec![0, 2, 4, 1, 3, 5])?
            .contiguous()?
            .reshape((pictures * c.patches(), 3 * side * side))?;
        let patches = self
            .patch
            .forward(&patches)?
            .reshape((pictures, c.patches(), c.hidden))?;
        let cls = self.cls.broadcast_as((pictures, 1, c.hidden))?;
        let tokens = c.patches() + 1;
        let mut x = Tensor::cat(&[&cls.contiguous()?, &patches], 1)?
            .broadcast_add(&self.position)?
            .reshape((pictures * tokens, c.hidden))?;
        for layer in &self.layers {
            x = layer.forward(x, c, pictures)?;
        }
        x.reshape((pictures, tokens, c.hidden))
    }
}

impl Layer {
    fn load(from: &Loader, config: &VisionConfig, number: usize) -> Result<Self> {
        let h = config.hidden;
        let at = |part: &str| format!("vision.layers.{number}.{part}");
        let projection = |part: &str| from.linear(&at(part), h, h, config.qkv_bias);
        let residual = |scale: &str, bias: &str| -> Result<Tensor> {
            let (scale, bias) = (from.tensor(at(scale), [h])?, from.tensor(at(bias), [h])?);
            Tensor::stack(&[scale, bias], 0).map_err(failed("loading the vision tower"))
        };
        Ok(Layer {
            norm1: BlockNorm::load(from, &at("norm1"), config)?,
            q: projection("attn.q")?,
            k: projection("attn.k")?,
            v: projection("attn.v")?,
            qk_norm: config
                .qk_norm
                .then(|| -> Result<_> {
                    Ok((
                        from.tensor(at("attn.q_norm.weight"), [h])?,
                        from.tensor(at("attn.k_norm.weight"), [h])?,
                    ))
                })
                .transpose()?,
            residual1: residual("ls1", "attn.proj.bias")?,
            proj: from.tensor(at("attn.proj.weight"), [h, h])?,
            norm2: BlockNorm::load(from, &at("norm2"), config)?,
            fc1: from.tensor(at("mlp.fc1.weight"), [config.mlp, h])?,
            fc1_bias: from.tensor(at("mlp.fc1.bias"), [config.mlp])?,
            residual2: residual("ls2", "mlp.fc2.bias")?,
            fc2: from.tensor(at("mlp.fc2.weight"), [h, config.mlp])?,
        })
    }

    /// `x` `[pictures * tokens, hidden]`, which is overwritten.
    fn forward(&self, x: Tensor, c: &VisionConfig, pictures: usize) -> CandleResult<Tensor> {
        let (rows, width) = x.dims2()?;
        let normed = self.norm1.forward(&x, c.eps)?;
        let mut q = self.q.forward(&normed)?;
        let mut k = self.k.forward(&normed)?;
        let v = self.v.forward(&normed)?;
        if let Some((q_norm, k_norm)) = &self.qk_norm {
            q = kernels::rms_norm(&q, q_norm, c.qk_norm_eps)?;
            k = kernels::rms_norm(&k, k_norm, c.qk_norm_eps)?;
        }
        let split = |x: Tensor| x.reshape((pictures, rows / pictures, width));
        let attended = kernels::attention(
            &split(q)?,
            &split(k)?,
            &split(v)?,
            &Heads::full(c.heads, c.head_dim()),
        )?
        .reshape((rows, width))?;
        let x = kernels::add_scaled(x, &attended.matmul(&self.proj.t()?)?, &self.residual1)?;
        let normed = self.norm2.forward(&x, c.eps)?;
        let wide = kernels::gelu_bias(normed.matmul(&self.fc1.t()?)?, &self.fc1_bias)?;
        kernels::add_scaled(x, &wide.matmul(&self.fc2.t()?)?, &self.residual2)
    }
}
