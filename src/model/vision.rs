//! The vision tower (InternViT, 300M and 6B): pictures to one vector per patch.

use candle_core::{DType, Result as CandleResult, Tensor};

use super::{
    config::{Norm, VisionConfig},
    kernels::{self, Heads, Norm as Normed},
    linear::{Linear, Loader, Projections, failed},
};
use crate::error::Result;

/// Numbers that a row of patches is filled up to a multiple of, on a GPU: products with rows of 588 numbers
/// ran at a third of the speed of 592 (168 and 501 TFLOP/s on an H200).
pub(super) const PATCH_ALIGNMENT: usize = 16;

/// The tower's weights.
pub struct VisionTower {
    config: VisionConfig,
    /// Of what goes into a product or into the attention.
    dtype: DType,
    /// `3 * patch * patch` to `hidden` numbers.
    patch: Linear,
    /// Numbers of a row of patches: `3 * patch * patch`, or more where the device gains by it.
    patch_width: usize,
    patch_bias: Tensor,
    cls: Tensor,
    position: Tensor,
    layers: Vec<Layer>,
}

struct Layer {
    norm1: BlockNorm,
    maps: Projections,
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

    fn of(&self, eps: f64) -> Normed<'_> {
        let (weight, bias) = match self {
            BlockNorm::Layer { weight, bias } => (weight, Some(bias)),
            BlockNorm::Rms { weight } => (weight, None),
        };
        Normed { weight, bias, eps }
    }
}

impl VisionTower {
    pub(super) fn load(from: &Loader, config: &VisionConfig) -> Result<Self> {
        let h = config.hidden;
        let patch = [h, 3, config.patch, config.patch];
        let input = 3 * config.patch * config.patch;
        let alignment = if from.device().is_cpu() {
            1
        } else {
            PATCH_ALIGNMENT
        };
        let patch_width = input.next_multiple_of(alignment);
        Ok(VisionTower {
            dtype: from.dtype(),
            patch: (from.weight("vision.patch.weight", &patch)?)
                .filled_up(patch_width - input)
                .map_err(failed("loading the vision tower"))?,
            patch_width,
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
        let patches = pixels
            .to_dtype(self.cls.dtype())?
            .reshape(&[pictures, 3, grid, side, grid, side][..])?
            .permute(vec![0, 2, 4, 1, 3, 5])?
            .contiguous()?
            .reshape((pictures * c.patches(), 3 * side * side))?;
        let filled = patches.pad_with_zeros(1, 0, self.patch_width - 3 * side * side)?;
        self.forward_patches(&filled)
    }

    /// The same for patches, `[pictures * patches, width]`: each a row in the order (channel, y, x), filled
    /// up with zeros to the width that the device takes.
    pub(super) fn forward_patches(&self, patches: &Tensor) -> CandleResult<Tensor> {
        let c = &self.config;
        let pictures = patches.dim(0)? / c.patches();
        // A convolution whose stride is its size is a product with each patch as a row.
        let patches = self.patch.forward(patches, self.cls.dtype())?;
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
        let norms = self.layers.iter().map(|layer| layer.norm1.of(c.eps));
        let mut following = norms.clone().skip(1).map(Some).chain([None]);
        let mut normed = match norms.clone().next() {
            Some(norm) => norm.forward(&x, self.dtype)?,
            None => x.clone(),
        };
        for (layer, next) in self.layers.iter().zip(&mut following) {
            (x, normed) = layer.forward((x, normed), c, pictures, next, self.dtype)?;
        }
        x.reshape((pictures, tokens, c.hidden))
    }
}

impl Layer {
    fn load(from: &Loader, config: &VisionConfig, number: usize) -> Result<Self> {
        let h = config.hidden;
        let at = |part: &str| format!("vision.layers.{number}.{part}");
        let residual = |scale: &str, bias: &str| -> Result<Tensor> {
            let (scale, bias) = (from.tensor(at(scale), [h])?, from.tensor(at(bias), [h])?);
            Tensor::stack(&[scale, bias], 0).map_err(failed("loading the vision tower"))
        };
        Ok(Layer {
            norm1: BlockNorm::load(from, &at("norm1"), config)?,
            maps: Projections::load(
                from,
                &at("attn"),
                (h, h),
                h,
                config.qkv_bias,
                // Norms of queries and keys take whole tensors.
                !config.qk_norm,
            )?,
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

    /// `x` `[pictures * tokens, hidden]`, which is overwritten, and its first norm; yields the next layer's.
    fn forward(
        &self,
        (x, normed): (Tensor, Tensor),
        c: &VisionConfig,
        pictures: usize,
        next: Option<Normed>,
        dtype: DType,
    ) -> CandleResult<(Tensor, Tensor)> {
        let (rows, width) = x.dims2()?;
        let split = |x: Tensor| x.reshape((pictures, rows / pictures, ()));
        let (q, k, v) = if let Some(joined) = &self.maps.joined {
            let all = split(joined.all.forward(&normed, dtype)?)?;
            let part = |number: usize| all.narrow(2, number * width, width);
            (part(0)?, part(1)?, part(2)?)
        } else {
            // A norm reads the hidden states' type.
            let unnormed = if self.qk_norm.is_some() {
                x.dtype()
            } else {
                dtype
            };
            let mut q = self.maps.q.forward(&normed, unnormed)?;
            let mut k = self.maps.k.forward(&normed, unnormed)?;
            let v = self.maps.v.forward(&normed, dtype)?;
            if let Some((q_norm, k_norm)) = &self.qk_norm {
                q = kernels::rms_norm(&q, q_norm, c.qk_norm_eps, dtype)?;
                k = kernels::rms_norm(&k, k_norm, c.qk_norm_eps, dtype)?;
            }
            (split(q)?, split(k)?, split(v)?)
        };
        drop(normed);
        let heads = Heads::full(c.heads, c.head_dim());
        let attended = kernels::attention(&q, &k, &v, &heads)?.reshape((rows, width))?;
        drop((q, k, v));
        let (x, normed) = self.proj.add_scaled_norm_to(
            x,
            &attended,
            &self.residual1,
            self.norm2.of(c.eps),
            dtype,
        )?;
        drop(attended);
        let wide = self.fc1.gelu(&normed, &self.fc1_bias)?;
        match next {
            Some(next) => {
                drop(normed);
                (self.fc2).add_scaled_norm_to(x, &wide, &self.residual2, next, dtype)
            }
            None => {
                let x = self.fc2.add_scaled_to(x, &wide, &self.residual2)?;
                Ok((x, normed))
            }
        }
    }
}
