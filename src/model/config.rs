//! `config.json` of an InternVL3 checkpoint, in both layouts, as one struct.
//!
//! Every value comes from the file. What this code does not implement is refused by name, since a
//! model that runs with a wrong option still yields numbers.

mod fields;
mod parse;

use std::{fmt, fs::File, io::Read, path::Path};

use serde::Serialize;
use serde_json::Value;

use fields::Fields;
use parse::{parse_hf, parse_original};

use crate::{
    error::{Error, Kind, Result, ResultExt},
    limits::{
        MODEL_CONFIG_MAX_BYTES, MODEL_MAX_HEADS, MODEL_MAX_IMAGE_SIDE, MODEL_MAX_LAYERS,
        MODEL_MAX_POSITIONS, MODEL_MAX_VOCAB, MODEL_MAX_WIDTH,
    },
};

/// Which of the two published forms a checkpoint has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// The `-hf` form that transformers reads (`model_type` `internvl`).
    Hf,
    /// The authors' form (`model_type` `internvl_chat`).
    Original,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layout::Hf => "hf",
            Layout::Original => "original",
        })
    }
}

/// Normalisation of the vision tower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Norm {
    /// Mean and variance, with weight and bias (InternViT-300M).
    LayerNorm,
    /// Root mean square, with weight only (InternViT-6B).
    RmsNorm,
}

/// The vision tower (InternViT).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VisionConfig {
    /// Encoder layers.
    pub layers: usize,
    /// Width.
    pub hidden: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the MLP.
    pub mlp: usize,
    /// Side of a patch, pixels.
    pub patch: usize,
    /// Side of a picture, pixels.
    pub image: usize,
    /// Which normalisation the blocks use.
    pub norm: Norm,
    /// Whether queries and keys are RMS-normalised over the full width.
    pub qk_norm: bool,
    /// Whether the q, k and v projections have biases.
    pub qkv_bias: bool,
    /// Epsilon of the blocks' normalisation.
    pub eps: f64,
    /// Epsilon of the q/k normalisation.
    pub qk_norm_eps: f64,
}

impl VisionConfig {
    /// Patches per side.
    pub fn grid(&self) -> usize {
        self.image / self.patch
    }

    /// Patches per picture, without the class token.
    pub fn patches(&self) -> usize {
        self.grid() * self.grid()
    }

    /// Numbers per head.
    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }
}

/// The language model (Qwen2).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TextConfig {
    /// Decoder layers.
    pub layers: usize,
    /// Width.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// Width of the gated MLP.
    pub intermediate: usize,
    /// Epsilon of RMSNorm.
    pub rms_eps: f64,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Rows of the token embedding.
    pub vocab: usize,
    /// Longest sequence, tokens.
    pub max_positions: usize,
    /// Whether the token embedding is the output head too, where the files hold no other.
    #[serde(skip)]
    pub tied_embeddings: bool,
}

/// Everything that decides the shape of the computation; the same for both layouts of one model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelConfig {
    /// The vision tower.
    pub vision: VisionConfig,
    /// The language model.
    pub text: TextConfig,
    /// Side ratio of the pixel unshuffle between the two; always 0.5 so far.
    pub downsample: f64,
    /// Epsilon of the projector's LayerNorm (a constant of the architecture).
    pub projector_eps: f64,
    /// Id of `<IMG_CONTEXT>` where the file states it (`-hf` layout).
    pub image_token_id: Option<u32>,
}

/// Epsilon of `torch.nn.LayerNorm` by default, which the projector uses.
pub const PROJECTOR_EPS: f64 = 1e-5;

/// The only pixel-unshuffle ratio that is implemented.
pub const DOWNSAMPLE: f64 = 0.5;

impl ModelConfig {
    /// Reads `dir/config.json`.
    ///
    /// Fails with `NotFound` where there is none, `InvalidArgument` where it is not a consistent
    /// InternVL config, and `Unimplemented` where it names something that this code does not run.
    pub fn load(dir: &Path) -> Result<Self> {
        Ok(Self::load_with_layout(dir)?.0)
    }

    /// [`load`](Self::load), and which layout the file is in.
    pub fn load_with_layout(dir: &Path) -> Result<(Self, Layout)> {
        let path = dir.join("config.json");
        let text = read_bounded(&path, MODEL_CONFIG_MAX_BYTES)?;
        Self::parse(&text).map_err(|e| e.context(path.display()))
    }

    /// Parses the text of a config.json.
    pub fn parse(text: &str) -> Result<(Self, Layout)> {
        let root: Value =
            serde_json::from_str(text).or_kind(Kind::InvalidArgument, || "not JSON".into())?;
        let root = Fields::root(&root)?;
        if root.get("quantization_config").is_some() {
            return Err(root.refuse("quantization_config", "quantised checkpoints"));
        }
        let (config, layout) = match root.text("model_type")? {
            "internvl" => (parse_hf(&root)?, Layout::Hf),
            "internvl_chat" => (parse_original(&root)?, Layout::Original),
            other => {
                return Err(Error::unimplemented(format!(
                    "model_type {other:?} is not implemented; only InternVL3 checkpoints \
                     (\"internvl\", \"internvl_chat\") are"
                )));
            }
        };
        config.validate()?;
        Ok((config, layout))
    }

    /// Checks that the values fit each other and lie within the bounds of `limits`.
    pub fn validate(&self) -> Result<()> {
        let (v, t) = (&self.vision, &self.text);
        let size = |name: &str, value: usize, max: usize| {
            if value == 0 || value > max {
                return Err(Error::invalid(format!(
                    "{name} is {value}; it must lie in 1..={max}"
                )));
            }
            Ok(())
        };
        size("vision layers", v.layers, MODEL_MAX_LAYERS)?;
        size("vision hidden size", v.hidden, MODEL_MAX_WIDTH)?;
        size("vision heads", v.heads, MODEL_MAX_HEADS)?;
        size("vision MLP size", v.mlp, MODEL_MAX_WIDTH)?;
        size("image size", v.image, MODEL_MAX_IMAGE_SIDE)?;
        size("patch size", v.patch, v.image)?;
        size("text layers", t.layers, MODEL_MAX_LAYERS)?;
        size("text hidden size", t.hidden, MODEL_MAX_WIDTH)?;
        size("text heads", t.heads, MODEL_MAX_HEADS)?;
        size("text key/value heads", t.kv_heads, t.heads)?;
        size("text head_dim", t.head_dim, MODEL_MAX_WIDTH)?;
        size("text intermediate size", t.intermediate, MODEL_MAX_WIDTH)?;
        size("vocabulary size", t.vocab, MODEL_MAX_VOCAB)?;
        size(
            "max_position_embeddings",
            t.max_positions,
            MODEL_MAX_POSITIONS,
        )?;
        let fits = |ok: bool, what: String| {
            if ok {
                Ok(())
            } else {
                Err(Error::invalid(what))
            }
        };
        fits(
            v.hidden.is_multiple_of(v.heads),
            format!(
                "vision hidden size {} is not a multiple of its {} heads",
                v.hidden, v.heads
            ),
        )?;
        fits(
            v.image.is_multiple_of(v.patch) && v.grid().is_multiple_of(2),
            format!(
                "image size {} is not an even number of patches of {}",
                v.image, v.patch
            ),
        )?;
        fits(
            t.heads.is_multiple_of(t.kv_heads),
            format!(
                "{} query heads are not a multiple of {} key/value heads",
                t.heads, t.kv_heads
            ),
        )?;
        fits(
            t.heads * t.head_dim <= MODEL_MAX_WIDTH && t.head_dim.is_multiple_of(2),
            format!(
                "text head_dim {} is odd or too large for {} heads",
                t.head_dim, t.heads
            ),
        )?;
        for (name, eps) in [
            ("vision layer_norm_eps", v.eps),
            ("vision q/k norm eps", v.qk_norm_eps),
            ("text rms_norm_eps", t.rms_eps),
            ("projector eps", self.projector_eps),
        ] {
            fits(
                eps > 0.0 && eps <= 0.1,
                format!("{name} is {eps}; it must lie in (0, 0.1]"),
            )?;
        }
        fits(
            t.rope_theta >= 1.0 && t.rope_theta <= 1e12,
            format!("rope_theta is {}; it must lie in 1..=1e12", t.rope_theta),
        )?;
        if self.downsample != DOWNSAMPLE {
            return Err(Error::unimplemented(format!(
                "downsample_ratio {} is not implemented; only {DOWNSAMPLE} is",
                self.downsample
            )));
        }
        if let Some(id) = self.image_token_id {
            fits(
                (id as usize) < t.vocab,
                format!(
                    "image_token_id {id} lies outside the vocabulary of {}",
                    t.vocab
                ),
            )?;
        }
        Ok(())
    }

    /// Width of the unshuffled vision tokens that enter the projector.
    pub fn projector_input(&self) -> usize {
        self.vision.hidden * 4
    }

    /// `<IMG_CONTEXT>` tokens per frame.
    pub fn tokens_per_frame(&self) -> usize {
        self.vision.patches() / 4
    }
}

/// The text of a small file of at most `max` bytes.
pub(super) fn read_bounded(path: &Path, max: u64) -> Result<String> {
    let file = File::open(path).map_err(|e| {
        let kind = match e.kind() {
            std::io::ErrorKind::NotFound => Kind::NotFound,
            std::io::ErrorKind::PermissionDenied => Kind::PermissionDenied,
            _ => Kind::Internal,
        };
        Error::new(kind, format!("cannot open {}", path.display())).with_source(e)
    })?;
    let mut text = String::new();
    file.take(max + 1)
        .read_to_string(&mut text)
        .or_kind(Kind::InvalidArgument, || {
            format!("cannot read {}", path.display())
        })?;
    if text.len() as u64 > max {
        return Err(Error::invalid(format!(
            "{} is larger than {max} bytes",
            path.display()
        )));
    }
    Ok(text)
}
