//! Which tensors a model has, and what each checkpoint layout calls them.
//!
//! Each tensor has a canonical name, independent of the layout:
//!
//! ```text
//! vision.{cls,position} vision.patch.{weight,bias}
//! vision.layers.N.{norm1,norm2}.{weight,bias} .attn.{q,k,v,proj}.{weight,bias}
//!                .attn.{q_norm,k_norm}.weight .{ls1,ls2} .mlp.{fc1,fc2}.{weight,bias}
//! projector.{norm,linear1,linear2}.{weight,bias}
//! text.embed.weight
//! text.layers.N.{norm1,norm2}.weight .attn.{q,k,v}.{weight,bias} .attn.o.weight
//!              .mlp.{gate,up,down}.weight
//! text.norm.weight text.lm_head.weight
//! ```

use super::config::{Layout, ModelConfig, Norm, TextConfig, VisionConfig};

/// How a checkpoint names its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Naming {
    /// `language_model.model.…`, `vision_tower.…`, `multi_modal_projector.…`.
    Hf,
    /// The same under `model.`, with the language model's inner `model.` gone (newer files).
    HfNested,
    /// `language_model.model.…`, `vision_model.…`, `mlp1.…`; q, k and v of the tower in one tensor.
    Original,
}

impl Naming {
    /// The layout that this naming belongs to.
    pub fn layout(self) -> Layout {
        match self {
            Naming::Hf | Naming::HfNested => Layout::Hf,
            Naming::Original => Layout::Original,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Naming::Hf | Naming::Original => "language_model.model.",
            Naming::HfNested => "model.language_model.",
        }
    }

    fn vision(self) -> &'static str {
        match self {
            Naming::Hf => "vision_tower.",
            Naming::HfNested => "model.vision_tower.",
            Naming::Original => "vision_model.",
        }
    }

    fn projector(self) -> &'static str {
        match self {
            Naming::Hf => "multi_modal_projector.",
            Naming::HfNested => "model.multi_modal_projector.",
            Naming::Original => "mlp1.",
        }
    }

    fn lm_head(self) -> &'static str {
        match self {
            Naming::Hf | Naming::Original => "language_model.lm_head.weight",
            Naming::HfNested => "lm_head.weight",
        }
    }
}

/// A tensor of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Canonical name.
    pub name: String,
    /// Shape, outermost first.
    pub shape: Vec<usize>,
}

/// Where a layout stores a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSpec {
    /// Name in the file.
    pub name: String,
    /// Shape in the file.
    pub shape: Vec<usize>,
    /// First row of the tensor in the stored one, where it is a part of it.
    pub first_row: usize,
}

/// What the features of the first `layers` decoder layers depend on, in a fixed order: the vision
/// tower, the projector, the token embedding, all of the layers before the last of them, and of
/// that last one the input norm and the q, k and v projections.
pub fn needed_tensors(config: &ModelConfig, layers: usize) -> Vec<TensorSpec> {
    let mut list = Specs::default();
    vision_tensors(&mut list, &config.vision);
    let (input, hidden) = (config.projector_input(), config.text.hidden);
    list.affine("projector.norm", input);
    list.linear("projector.linear1", hidden, input);
    list.linear("projector.linear2", hidden, hidden);
    list.push("text.embed.weight", [config.text.vocab, hidden]);
    for layer in 0..layers {
        layer_input(&mut list, &config.text, layer);
        if layer + 1 < layers {
            layer_rest(&mut list, &config.text, layer);
        }
    }
    list.0
}

/// Every tensor of a complete checkpoint: [`needed_tensors`] of all layers, the rest of the last
/// layer, the final norm and the output head.
pub fn all_tensors(config: &ModelConfig) -> Vec<TensorSpec> {
    let mut list = Specs(needed_tensors(config, config.text.layers));
    if let Some(last) = config.text.layers.checked_sub(1) {
        layer_rest(&mut list, &config.text, last);
    }
    list.push("text.norm.weight", [config.text.hidden]);
    list.push(
        "text.lm_head.weight",
        [config.text.vocab, config.text.hidden],
    );
    list.0
}

/// Name and shape of every tensor in the files of a complete checkpoint, in the order of
/// [`all_tensors`], each once.
pub fn stored_tensors(config: &ModelConfig, naming: Naming) -> Vec<(String, Vec<usize>)> {
    let mut list: Vec<(String, Vec<usize>)> = Vec::new();
    for spec in all_tensors(config) {
        let stored = stored(&spec, naming);
        // The parts of a combined tensor follow each other within one block of a layer.
        if !list
            .iter()
            .rev()
            .take(8)
            .any(|(name, _)| *name == stored.name)
        {
            list.push((stored.name, stored.shape));
        }
    }
    list
}

/// Where `naming` stores the tensor `spec`.
pub fn stored(spec: &TensorSpec, naming: Naming) -> StoredSpec {
    let whole = |name: String| StoredSpec {
        name,
        shape: spec.shape.clone(),
        first_row: 0,
    };
    let name = spec.name.as_str();
    if let Some(rest) = name.strip_prefix("text.layers.") {
        let (layer, part) = rest.split_once('.').unwrap_or((rest, ""));
        return whole(format!(
            "{}layers.{layer}.{}",
            naming.text(),
            text_part(part)
        ));
    }
    if let Some(rest) = name.strip_prefix("vision.layers.") {
        let (layer, part) = rest.split_once('.').unwrap_or((rest, ""));
        if naming == Naming::Original
            && let Some((place, kind)) = combined_qkv(part)
        {
            let rows = spec.shape.first().copied().unwrap_or(0);
            let mut shape = spec.shape.clone();
            if let Some(first) = shape.first_mut() {
                *first = rows * 3;
            }
            return StoredSpec {
                name: format!("{}encoder.layers.{layer}.attn.qkv.{kind}", naming.vision()),
                shape,
                first_row: rows * place,
            };
        }
        return whole(match naming {
            Naming::Original => {
                format!("{}encoder.layers.{layer}.{part}", naming.vision())
            }
            Naming::Hf | Naming::HfNested => format!(
                "{}encoder.layer.{layer}.{}",
                naming.vision(),
                hf_vision_part(part)
            ),
        });
    }
    let original = naming == Naming::Original;
    whole(match name {
        "text.embed.weight" => format!("{}embed_tokens.weight", naming.text()),
        "text.norm.weight" => format!("{}norm.weight", naming.text()),
        "text.lm_head.weight" => naming.lm_head().to_owned(),
        _ => {
            let (room, part) = name.split_once('.').unwrap_or(("", name));
            let (prefix, part) = match (room, original) {
                ("projector", true) => (
                    naming.projector(),
                    part.replace("norm.", "0.")
                        .replace("linear1.", "1.")
                        .replace("linear2.", "3."),
                ),
                ("projector", false) => (
                    naming.projector(),
                    part.replace("norm.", "layer_norm.")
                        .replace("linear1.", "linear_1.")
                        .replace("linear2.", "linear_2."),
                ),
                (_, true) => (
                    naming.vision(),
                    match part {
                        "cls" => "embeddings.class_embedding".to_owned(),
                        "position" => "embeddings.position_embedding".to_owned(),
                        _ => part.replace("patch.", "embeddings.patch_embedding."),
                    },
                ),
                (_, false) => (
                    naming.vision(),
                    match part {
                        "cls" => "embeddings.cls_token".to_owned(),
                        "position" => "embeddings.position_embeddings".to_owned(),
                        _ => part.replace("patch.", "embeddings.patch_embeddings.projection."),
                    },
                ),
            };
            format!("{prefix}{part}")
        }
    })
}

/// Place of q, k or v among the rows of the combined tensor, and `weight` or `bias`.
fn combined_qkv(part: &str) -> Option<(usize, &str)> {
    let (which, kind) = part.strip_prefix("attn.")?.split_once('.')?;
    let place = match which {
        "q" => 0,
        "k" => 1,
        "v" => 2,
        _ => return None,
    };
    Some((place, kind))
}

fn text_part(part: &str) -> String {
    match part.split_once('.') {
        Some(("norm1", kind)) => format!("input_layernorm.{kind}"),
        Some(("norm2", kind)) => format!("post_attention_layernorm.{kind}"),
        Some(("attn", rest)) => format!("self_attn.{}", rest.replacen('.', "_proj.", 1)),
        Some(("mlp", rest)) => format!("mlp.{}", rest.replacen('.', "_proj.", 1)),
        _ => part.to_owned(),
    }
}

fn hf_vision_part(part: &str) -> String {
    match part.split_once('.') {
        None if part == "ls1" => "lambda_1".to_owned(),
        None if part == "ls2" => "lambda_2".to_owned(),
        Some(("norm1", kind)) => format!("layernorm_before.{kind}"),
        Some(("norm2", kind)) => format!("layernorm_after.{kind}"),
        Some(("attn", rest)) => match rest.split_once('.') {
            Some(("proj", kind)) => format!("attention.projection_layer.{kind}"),
            Some((norm @ ("q_norm" | "k_norm"), kind)) => format!("attention.{norm}.{kind}"),
            _ => format!("attention.{}", rest.replacen('.', "_proj.", 1)),
        },
        _ => part.to_owned(),
    }
}

#[derive(Default)]
struct Specs(Vec<TensorSpec>);

impl Specs {
    fn push(&mut self, name: impl Into<String>, shape: impl Into<Vec<usize>>) {
        self.0.push(TensorSpec {
            name: name.into(),
            shape: shape.into(),
        });
    }

    /// Weight `[out, in]` and bias.
    fn linear(&mut self, name: &str, out: usize, input: usize) {
        self.push(format!("{name}.weight"), [out, input]);
        self.push(format!("{name}.bias"), [out]);
    }

    /// Weight and bias of one width.
    fn affine(&mut self, name: &str, width: usize) {
        self.push(format!("{name}.weight"), [width]);
        self.push(format!("{name}.bias"), [width]);
    }
}

fn vision_tensors(list: &mut Specs, v: &VisionConfig) {
    let h = v.hidden;
    list.push("vision.cls", [1, 1, h]);
    list.push("vision.position", [1, v.patches() + 1, h]);
    list.push("vision.patch.weight", [h, 3, v.patch, v.patch]);
    list.push("vision.patch.bias", [h]);
    for layer in 0..v.layers {
        let at = |part: &str| format!("vision.layers.{layer}.{part}");
        for part in ["norm1", "norm2"] {
            list.push(at(&format!("{part}.weight")), [h]);
            if v.norm == Norm::LayerNorm {
                list.push(at(&format!("{part}.bias")), [h]);
            }
        }
        for part in ["q", "k", "v"] {
            list.push(at(&format!("attn.{part}.weight")), [h, h]);
        }
        if v.qkv_bias {
            for part in ["q", "k", "v"] {
                list.push(at(&format!("attn.{part}.bias")), [h]);
            }
        }
        if v.qk_norm {
            list.push(at("attn.q_norm.weight"), [h]);
            list.push(at("attn.k_norm.weight"), [h]);
        }
        list.linear(&at("attn.proj"), h, h);
        list.push(at("ls1"), [h]);
        list.push(at("ls2"), [h]);
        list.linear(&at("mlp.fc1"), v.mlp, h);
        list.linear(&at("mlp.fc2"), h, v.mlp);
    }
}

fn layer_input(list: &mut Specs, t: &TextConfig, layer: usize) {
    let at = |part: &str| format!("text.layers.{layer}.{part}");
    list.push(at("norm1.weight"), [t.hidden]);
    list.linear(&at("attn.q"), t.heads * t.head_dim, t.hidden);
    list.linear(&at("attn.k"), t.kv_heads * t.head_dim, t.hidden);
    list.linear(&at("attn.v"), t.kv_heads * t.head_dim, t.hidden);
}

fn layer_rest(list: &mut Specs, t: &TextConfig, layer: usize) {
    let at = |part: &str| format!("text.layers.{layer}.{part}");
    list.push(at("attn.o.weight"), [t.hidden, t.heads * t.head_dim]);
    list.push(at("norm2.weight"), [t.hidden]);
    list.push(at("mlp.gate.weight"), [t.intermediate, t.hidden]);
    list.push(at("mlp.up.weight"), [t.intermediate, t.hidden]);
    list.push(at("mlp.down.weight"), [t.hidden, t.intermediate]);
}
