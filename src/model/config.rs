//! `config.json` of an InternVL3 checkpoint, in both layouts, as one struct.
//!
//! Every value comes from the file. What this code does not implement is refused by name, since a
//! model that runs with a wrong option still yields numbers.

use std::{fmt, fs::File, io::Read, path::Path};

use serde::Serialize;
use serde_json::{Map, Value};

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

fn parse_hf(root: &Fields) -> Result<ModelConfig> {
    root.only("architectures", "InternVLForConditionalGeneration")?;
    root.must_be_text("projector_hidden_act", "gelu")?;
    if root.value("vision_feature_layer")?.as_i64() != Some(-1) {
        return Err(root.refuse("vision_feature_layer", "a layer other than -1"));
    }
    root.must_be_text("vision_feature_select_strategy", "default")?;
    let vision = root.object("vision_config")?;
    vision.must_be_text("model_type", "internvl_vision")?;
    if vision.flag_or("use_mask_token", false)? {
        return Err(vision.refuse("use_mask_token", "mask tokens"));
    }
    if !vision.flag_or("use_absolute_position_embeddings", true)? {
        return Err(vision.refuse(
            "use_absolute_position_embeddings",
            "a tower without position embeddings",
        ));
    }
    if !vision.flag_or("use_mean_pooling", true)? {
        return Err(vision.refuse("use_mean_pooling", "a final norm of the vision tower"));
    }
    let config = ModelConfig {
        vision: VisionConfig {
            qk_norm: vision.flag("use_qk_norm")?,
            qkv_bias: vision.flag("attention_bias")?,
            // transformers builds these two norms with the default of its RMSNorm class.
            qk_norm_eps: 1e-6,
            ..vision_sizes(&vision)?
        },
        text: parse_text(&root.object("text_config")?)?,
        downsample: root.number("downsample_ratio")?,
        projector_eps: PROJECTOR_EPS,
        image_token_id: Some(
            u32::try_from(root.size("image_token_id")?).or_kind(Kind::InvalidArgument, || {
                "image_token_id is too large".into()
            })?,
        ),
    };
    config.validate()?;
    let tokens = config.tokens_per_frame();
    if let Some(length) = root.get("image_seq_length")
        && length.as_u64() != Some(tokens as u64)
    {
        return Err(Error::invalid(format!(
            "image_seq_length is {length}, but the picture and patch sizes make {tokens}"
        )));
    }
    Ok(config)
}

fn parse_original(root: &Fields) -> Result<ModelConfig> {
    root.only("architectures", "InternVLChatModel")?;
    root.must_be_text("ps_version", "v2")?;
    root.must_be_text("template", "internvl2_5")?;
    if root.value("select_layer")?.as_i64() != Some(-1) {
        return Err(root.refuse("select_layer", "a layer other than -1"));
    }
    if root.flag_or("pad2square", false)? {
        return Err(root.refuse("pad2square", "padding pictures to a square"));
    }
    for key in ["use_backbone_lora", "use_llm_lora"] {
        if root.get(key).is_some_and(|v| v.as_u64() != Some(0)) {
            return Err(root.refuse(key, "LoRA adapters"));
        }
    }
    let vision = root.object("vision_config")?;
    let vision_eps = vision.number("layer_norm_eps")?;
    vision.must_be_text("model_type", "intern_vit_6b")?;
    let config = ModelConfig {
        vision: VisionConfig {
            qk_norm: vision.flag("qk_normalization")?,
            qkv_bias: vision.flag("qkv_bias")?,
            qk_norm_eps: vision_eps,
            ..vision_sizes(&vision)?
        },
        text: parse_text(&root.object("llm_config")?)?,
        downsample: root.number("downsample_ratio")?,
        projector_eps: PROJECTOR_EPS,
        image_token_id: None,
    };
    if let Some(side) = root.get("force_image_size")
        && side.as_u64() != Some(config.vision.image as u64)
    {
        return Err(root.refuse(
            "force_image_size",
            "a picture size other than the vision tower's own",
        ));
    }
    Ok(config)
}

/// The keys that both layouts share; the others are filled in by the caller.
fn vision_sizes(vision: &Fields) -> Result<VisionConfig> {
    vision.must_be_text("hidden_act", "gelu")?;
    if vision.size("num_channels")? != 3 {
        return Err(vision.refuse("num_channels", "other than 3 channels"));
    }
    let norm = match vision.text("norm_type")? {
        "layer_norm" => Norm::LayerNorm,
        "rms_norm" => Norm::RmsNorm,
        other => {
            return Err(vision.refuse("norm_type", &format!("the norm {other:?}")));
        }
    };
    let eps = vision.number("layer_norm_eps")?;
    Ok(VisionConfig {
        layers: vision.size("num_hidden_layers")?,
        hidden: vision.size("hidden_size")?,
        heads: vision.size("num_attention_heads")?,
        mlp: vision.size("intermediate_size")?,
        patch: vision.side("patch_size")?,
        image: vision.side("image_size")?,
        norm,
        qk_norm: false,
        qkv_bias: false,
        eps,
        qk_norm_eps: eps,
    })
}

fn parse_text(text: &Fields) -> Result<TextConfig> {
    match text.text("model_type")? {
        "qwen2" => {}
        other => {
            return Err(text.refuse(
                "model_type",
                &format!("the language model {other:?} (only \"qwen2\" is)"),
            ));
        }
    }
    text.must_be_text("hidden_act", "silu")?;
    let layers = text.size("num_hidden_layers")?;
    let sliding = text.flag_or("use_sliding_window", false)?
        && text.get("sliding_window").is_some()
        && text.size_or("max_window_layers", 0)? < layers;
    if sliding {
        return Err(text.refuse("use_sliding_window", "sliding-window attention"));
    }
    if let Some(types) = text.get("layer_types") {
        let full = types
            .as_array()
            .is_some_and(|a| a.iter().all(|t| t.as_str() == Some("full_attention")));
        if !full {
            return Err(text.refuse("layer_types", "a layer type other than \"full_attention\""));
        }
    }
    let hidden = text.size("hidden_size")?;
    let heads = text.size("num_attention_heads")?;
    let head_dim = match text.get("head_dim") {
        Some(_) => text.size("head_dim")?,
        None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            return Err(Error::invalid(format!(
                "text hidden size {hidden} is not a multiple of its {heads} heads"
            )));
        }
    };
    Ok(TextConfig {
        layers,
        hidden,
        heads,
        kv_heads: text.size("num_key_value_heads")?,
        head_dim,
        intermediate: text.size("intermediate_size")?,
        rms_eps: text.number("rms_norm_eps")?,
        rope_theta: rope_theta(text)?,
        vocab: text.size("vocab_size")?,
        max_positions: text.size("max_position_embeddings")?,
    })
}

/// The rotary base; older files have `rope_theta` beside `rope_scaling`, newer ones one object
/// `rope_parameters`.
fn rope_theta(text: &Fields) -> Result<f64> {
    let mut theta = None;
    for key in ["rope_scaling", "rope_parameters"] {
        if text.get(key).is_none() {
            continue;
        }
        let rope = text.object(key)?;
        let kind = match rope.get("rope_type") {
            Some(_) => rope.text("rope_type")?,
            None => rope.text("type")?,
        };
        // "dynamic" changes the base only past max_position_embeddings, and a longer prompt is
        // refused.
        if !matches!(kind, "default" | "dynamic") {
            return Err(rope.refuse("rope_type", &format!("rotary scaling {kind:?}")));
        }
        if rope
            .get("partial_rotary_factor")
            .is_some_and(|f| f.as_f64() != Some(1.0))
        {
            return Err(rope.refuse("partial_rotary_factor", "partial rotary embedding"));
        }
        if rope.get("rope_theta").is_some() {
            theta = Some(rope.number("rope_theta")?);
        }
    }
    match theta {
        Some(theta) => Ok(theta),
        None => text.number("rope_theta"),
    }
}

/// An object of the file with its path, so that every error names the key.
struct Fields<'a> {
    path: String,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn root(value: &'a Value) -> Result<Self> {
        let map = value
            .as_object()
            .ok_or_else(|| Error::invalid("the file is not a JSON object"))?;
        Ok(Fields {
            path: String::new(),
            map,
        })
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    /// The value, unless it is absent or null.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    fn value(&self, key: &str) -> Result<&'a Value> {
        self.get(key)
            .ok_or_else(|| Error::invalid(format!("{} is missing", self.key(key))))
    }

    fn wrong(&self, key: &str, expected: &str) -> Error {
        Error::invalid(format!("{} is not {expected}", self.key(key)))
    }

    fn refuse(&self, key: &str, what: &str) -> Error {
        let value = self.map.get(key).unwrap_or(&Value::Null).to_string();
        let shown: String = value.chars().take(60).collect();
        Error::unimplemented(format!(
            "{what} ({} = {shown}) is not implemented",
            self.key(key)
        ))
    }

    fn object(&self, key: &str) -> Result<Fields<'a>> {
        let map = self
            .value(key)?
            .as_object()
            .ok_or_else(|| self.wrong(key, "an object"))?;
        Ok(Fields {
            path: format!("{}{key}.", self.path),
            map,
        })
    }

    fn text(&self, key: &str) -> Result<&'a str> {
        self.value(key)?
            .as_str()
            .ok_or_else(|| self.wrong(key, "a text"))
    }

    fn size(&self, key: &str) -> Result<usize> {
        self.value(key)?
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| self.wrong(key, "a whole number"))
    }

    fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        self.get(key).map_or(Ok(default), |_| self.size(key))
    }

    /// A side in pixels: one number, or two equal ones.
    fn side(&self, key: &str) -> Result<usize> {
        match self.value(key)? {
            Value::Array(sides) => match sides.as_slice() {
                [a, b] if a == b => a
                    .as_u64()
                    .and_then(|n| usize::try_from(n).ok())
                    .ok_or_else(|| self.wrong(key, "a pair of whole numbers")),
                _ => Err(self.refuse(key, "a shape that is not square")),
            },
            _ => self.size(key),
        }
    }

    fn number(&self, key: &str) -> Result<f64> {
        self.value(key)?
            .as_f64()
            .ok_or_else(|| self.wrong(key, "a number"))
    }

    fn flag(&self, key: &str) -> Result<bool> {
        self.value(key)?
            .as_bool()
            .ok_or_else(|| self.wrong(key, "true or false"))
    }

    fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        self.get(key).map_or(Ok(default), |_| self.flag(key))
    }

    fn must_be_text(&self, key: &str, expected: &str) -> Result<()> {
        if self.text(key)? == expected {
            return Ok(());
        }
        Err(self.refuse(key, &format!("anything but {expected:?}")))
    }

    /// Refuses a list of names that is there and is not exactly `[expected]`.
    fn only(&self, key: &str, expected: &str) -> Result<()> {
        let Some(names) = self.get(key) else {
            return Ok(());
        };
        match names.as_array().map(Vec::as_slice) {
            Some([one]) if one.as_str() == Some(expected) => Ok(()),
            _ => Err(self.refuse(key, &format!("anything but {expected:?}"))),
        }
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
