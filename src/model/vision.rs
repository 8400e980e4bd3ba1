//! The vision tower (InternViT, 300M and 6B): pictures to one vector per patch.

use candle_core::{DType, Result as CandleResult, Tensor};

use super::{
    config::{Norm, VisionConfig},
    kernels::{self, Heads},
    linear::{Linear, Loader, failed},
};
use crate::error::Result;

/// The tower's weights.
pub struct VisionTower {
    config: VisionConfig,
    /// Of what goes into a product or into the attention.
    dtype: DType,
    /// `3 * patch * patch` to `hidden` numbers.
    patch: Linear,
    patch_bias: Tensor,
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
    proj: Linear,
    /// Layer scale and the bias of the projection before it, `[2, hidden]`.
    residual1: Tensor,
    norm2: BlockNorm,
    fc1: Linear,
    fc1_bias: Tensor,
    fc2: Linear,
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

    fn forward(&self, x: &Tensor, eps: f64, dtype: DType) -> CandleResult<Tensor> {
        match self {
            BlockNorm::Layer { weight, bias } => kernels::layer_norm(x, weight, bias, eps, dtype),
            BlockNorm::Rms { weight } => kernels::rms_norm(x, weight, eps, dtype),
        }
    }
}

impl VisionTower {
    pub(super) fn load(from: &Loader, config: &VisionConfig) -> Result<Self> {
        let h = config.hidden;
        let patch = [h, 3, config.patch, config.patch];
        Ok(VisionTower {
            dtype: from.dtype(),
            patch: from.weight("vision.patch.weight", &patch)?,
            patch_bias: from.tensor("vision.patch.bias", [h])?,
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
        let patches = self.patch.forward(&patches, self.cls.dtype())?;
        let patches = kernels::add_bias(patches, &self.patch_bias)?.reshape((
            pictures,
            c.patches(),
            c.hidden,
        ))?;
        let cls = self.cls.broadcast_as((pictures, 1, c.hidden))?;
        let tokens = c.patches() + 1;
        let mut x = Tensor::cat(&[&cls.contiguous()?, &patches], 1)?
            .broadcast_add(&self.position)?
            .reshape((pictures * tokens, c.hidden))?;
        for layer in &self.layers {
            x = layer.forward(x, c, pictures, self.dtype)?;
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
            proj: from.weight(at("attn.proj.weight"), &[h, h])?,
            norm2: BlockNorm::load(from, &at("norm2"), config)?,
            fc1: from.weight(at("mlp.fc1.weight"), &[config.mlp, h])?,
            fc1_bias: from.tensor(at("mlp.fc1.bias"), [config.mlp])?,
            residual2: residual("ls2", "mlp.fc2.bias")?,
            fc2: from.weight(at("mlp.fc2.weight"), &[h, config.mlp])?,
        })
    }

    /// `x` `[pictures * tokens, hidden]`, which is overwritten.
    fn forward(
        &self,
        x: Tensor,
        c: &VisionConfig,
        pictures: usize,
        dtype: DType,
    ) -> CandleResult<Tensor> {
        let (rows, width) = x.dims2()?;
        let normed = self.norm1.forward(&x, c.eps, dtype)?;
        // A norm reads the hidden states' type.
        let unnormed = if self.qk_norm.is_some() {
            x.dtype()
        } else {
            dtype
        };
        let mut q = self.q.forward(&normed, unnormed)?;
        let mut k = self.k.forward(&normed, unnormed)?;
        let v = self.v.forward(&normed, dtype)?;
        if let Some((q_norm, k_norm)) = &self.qk_norm {
            q = kernels::rms_norm(&q, q_norm, c.qk_norm_eps, dtype)?;
            k = kernels::rms_norm(&k, k_norm, c.qk_norm_eps, dtype)?;
        }
        drop(normed);
        let split = |x: Tensor| x.reshape((pictures, rows / pictures, width));
        let attended = kernels::attention(
            &split(q)?,
            &split(k)?,
            &split(v)?,
            &Heads::full(c.heads, c.head_dim()),
        )?
        .reshape((rows, width))?;
        let x = self.proj.add_scaled_to(x, &attended, &self.residual1)?;
        let normed = self.norm2.forward(&x, c.eps, dtype)?;
        let wide = self.fc1.gelu(&normed, &self.fc1_bias)?;
        self.fc2.add_scaled_to(x, &wide, &self.residual2)
    }
}
