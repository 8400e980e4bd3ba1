//! The shapes that can be synthesized, and their config.json in both layouts.
//!
//! The big presets carry the published InternVL3 numbers (1B to 38B); `tiny` and `demo` are the
//! same architecture with every number made small.

use std::str::FromStr;

use serde_json::{Map, Value, json};

use super::{Dtype, vocabulary::ADDED_TOKENS};
use crate::{error::Error, model::config::Layout};

/// Which InternVL3 shape to synthesize.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Preset {
    /// A few hundred kilobytes of vision and language, for tests.
    Tiny,
    /// Small, with weights scaled so that heads carry what the pictures show.
    Demo,
    /// InternVL3-1B: Qwen2.5-0.5B with InternViT-300M.
    B1,
    /// InternVL3-2B: Qwen2.5-1.5B with InternViT-300M.
    B2,
    /// InternVL3-8B: Qwen2.5-7B with InternViT-300M.
    B8,
    /// InternVL3-14B: Qwen2.5-14B with InternViT-300M.
    B14,
    /// InternVL3-38B: Qwen2.5-32B with InternViT-6B.
    B38,
}

/// Every number that a preset fixes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shape {
    pub vision_layers: usize,
    pub vision_hidden: usize,
    pub vision_heads: usize,
    pub vision_mlp: usize,
    /// InternViT-6B: RMSNorm, q/k norm over the full width, no qkv bias.
    pub vision_6b: bool,
    pub image: usize,
    pub text_layers: usize,
    pub text_hidden: usize,
    pub text_heads: usize,
    pub text_kv_heads: usize,
    pub text_mlp: usize,
    pub vocab: usize,
}

pub(super) const PATCH: usize = 14;
const MAX_POSITIONS: usize = 32_768;
const DOWNSAMPLE: f64 = 0.5;

impl Shape {
    pub fn tokens_per_frame(&self) -> usize {
        (self.image / PATCH / 2).pow(2)
    }

    /// Size of the byte-level vocabulary below the added tokens.
    pub fn base_vocab(&self) -> usize {
        self.vocab - ADDED_TOKENS.len()
    }

    fn token(&self, content: &str) -> usize {
        let at = ADDED_TOKENS.iter().position(|t| t.content == content);
        self.base_vocab() + at.unwrap_or_default()
    }
}

impl Preset {
    /// The name used on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Preset::Tiny => "tiny",
            Preset::Demo => "demo",
            Preset::B1 => "1b",
            Preset::B2 => "2b",
            Preset::B8 => "8b",
            Preset::B14 => "14b",
            Preset::B38 => "38b",
        }
    }

    /// All of them, small to large.
    pub const ALL: [Preset; 7] = [
        Preset::Tiny,
        Preset::Demo,
        Preset::B1,
        Preset::B2,
        Preset::B8,
        Preset::B14,
        Preset::B38,
    ];

    /// The config.json that a checkpoint of this preset gets.
    pub fn config_json(self, layout: Layout, dtype: Dtype) -> Value {
        config_json(&self.shape(), layout, dtype)
    }

    pub(super) fn shape(self) -> Shape {
        let vit_300m = Shape {
            vision_layers: 24,
            vision_hidden: 1024,
            vision_heads: 16,
            vision_mlp: 4096,
            vision_6b: false,
            image: 448,
            text_layers: 0,
            text_hidden: 0,
            text_heads: 0,
            text_kv_heads: 0,
            text_mlp: 0,
            vocab: 151_674,
        };
        let text = |vision: Shape, layers, hidden, heads, kv_heads, mlp| Shape {
            text_layers: layers,
            text_hidden: hidden,
            text_heads: heads,
            text_kv_heads: kv_heads,
            text_mlp: mlp,
            ..vision
        };
        match self {
            Preset::Tiny => Shape {
                vision_layers: 3,
                vision_hidden: 64,
                vision_heads: 4,
                vision_mlp: 160,
                image: 56,
                vocab: 512,
                ..text(vit_300m, 4, 96, 6, 2, 160)
            },
            Preset::Demo => Shape {
                vision_layers: 4,
                vision_hidden: 128,
                vision_heads: 4,
                vision_mlp: 256,
                image: 112,
                vocab: 512,
                ..text(vit_300m, 6, 256, 8, 4, 512)
            },
            Preset::B1 => text(vit_300m, 24, 896, 14, 2, 4864),
            Preset::B2 => text(vit_300m, 28, 1536, 12, 2, 8960),
            Preset::B8 => text(vit_300m, 28, 3584, 28, 4, 18_944),
            Preset::B14 => text(vit_300m, 48, 5120, 40, 8, 13_824),
            Preset::B38 => Shape {
                vision_layers: 45,
                vision_hidden: 3200,
                vision_heads: 25,
                vision_mlp: 12_800,
                vision_6b: true,
                ..text(vit_300m, 64, 5120, 40, 8, 27_648)
            },
        }
    }
}

impl FromStr for Preset {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Preset::ALL
            .into_iter()
            .find(|preset| preset.as_str() == name)
            .ok_or_else(|| {
                Error::invalid(format!(
                    "no preset {name:?}; there are {}",
                    Preset::ALL.map(Preset::as_str).join(", ")
                ))
            })
    }
}

/// config.json in the form that checkpoints of this layout have.
pub(super) fn config_json(shape: &Shape, layout: Layout, dtype: Dtype) -> Value {
    match layout {
        Layout::Hf => hf_config(shape, dtype),
        Layout::Original => original_config(shape, dtype),
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The language model's keys that both layouts share.
fn text_common(shape: &Shape, bos: usize, eos: usize) -> Map<String, Value> {
    object(json!({
        "attention_dropout": 0.0,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "hidden_act": "silu",
        "hidden_size": shape.text_hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.text_mlp,
        "max_position_embeddings": MAX_POSITIONS,
        "max_window_layers": 70,
        "model_type": "qwen2",
        "num_attention_heads": shape.text_heads,
        "num_hidden_layers": shape.text_layers,
        "num_key_value_heads": shape.text_kv_heads,
        "rms_norm_eps": 1e-6,
        "rope_scaling": { "factor": 2.0, "rope_type": "dynamic", "type": "dynamic" },
        "rope_theta": 1_000_000.0,
        "sliding_window": null,
        "use_sliding_window": false,
        "vocab_size": shape.vocab,
    }))
}

/// The vision model's keys that both layouts share.
fn vision_common(shape: &Shape) -> Map<String, Value> {
    object(json!({
        "attention_dropout": 0.0,
        "hidden_act": "gelu",
        "hidden_size": shape.vision_hidden,
        "intermediate_size": shape.vision_mlp,
        "layer_norm_eps": 1e-6,
        "norm_type": if shape.vision_6b { "rms_norm" } else { "layer_norm" },
        "num_attention_heads": shape.vision_heads,
        "num_channels": 3,
        "num_hidden_layers": shape.vision_layers,
    }))
}

fn hf_config(shape: &Shape, dtype: Dtype) -> Value {
    let mut text = text_common(shape, shape.base_vocab(), shape.token("<|im_end|>"));
    text.insert("use_cache".into(), json!(true));
    text.insert(
        "layer_types".into(),
        json!(vec!["full_attention"; shape.text_layers]),
    );
    let mut vision = vision_common(shape);
    vision.extend(object(json!({
        "attention_bias": !shape.vision_6b,
        "hidden_dropout_prob": 0.0,
        "image_size": [shape.image, shape.image],
        "initializer_range": 0.02,
        "layer_scale_init_value": 0.1,
        "model_type": "internvl_vision",
        "patch_size": [PATCH, PATCH],
        "projection_dropout": 0.0,
        "use_absolute_position_embeddings": true,
        "use_mask_token": false,
        "use_mean_pooling": true,
        "use_qk_norm": shape.vision_6b,
    })));
    json!({
        "architectures": ["InternVLForConditionalGeneration"],
        "downsample_ratio": DOWNSAMPLE,
        "dtype": dtype.torch_name(),
        "image_seq_length": shape.tokens_per_frame(),
        "image_token_id": shape.token("<IMG_CONTEXT>"),
        "model_type": "internvl",
        "projector_hidden_act": "gelu",
        "text_config": text,
        "tie_word_embeddings": false,
        "torch_dtype": dtype.torch_name(),
        "transformers_version": "4.57.6",
        "vision_config": vision,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
    })
}

fn original_config(shape: &Shape, dtype: Dtype) -> Value {
    let bf16 = dtype == Dtype::Bf16;
    let mut llm = text_common(shape, shape.base_vocab(), shape.base_vocab());
    llm.extend(object(json!({
        "architectures": ["Qwen2ForCausalLM"],
        "moe_config": null,
        "tie_word_embeddings": false,
        "torch_dtype": dtype.torch_name(),
        "use_bfloat16": bf16,
        "use_cache": false,
    })));
    let mut vision = vision_common(shape);
    vision.extend(object(json!({
        "architectures": ["InternVisionModel"],
        "drop_path_rate": 0.1,
        "dropout": 0.0,
        "image_size": shape.image,
        "initializer_factor": 0.1,
        "initializer_range": 1e-10,
        "model_type": "intern_vit_6b",
        "output_attentions": false,
        "output_hidden_states": false,
        "patch_size": PATCH,
        "qk_normalization": shape.vision_6b,
        "qkv_bias": !shape.vision_6b,
        "return_dict": true,
        "torch_dtype": dtype.torch_name(),
        "use_bfloat16": bf16,
        "use_flash_attn": false,
    })));
    json!({
        "_commit_hash": null,
        "architectures": ["InternVLChatModel"],
        "auto_map": {
            "AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
            "AutoModel": "modeling_internvl_chat.InternVLChatModel",
            "AutoModelForCausalLM": "modeling_internvl_chat.InternVLChatModel",
        },
        "downsample_ratio": DOWNSAMPLE,
        "dynamic_image_size": true,
        "force_image_size": shape.image,
        "hidden_size": shape.text_hidden,
        "image_fold": null,
        "llm_config": llm,
        "max_dynamic_patch": 12,
        "min_dynamic_patch": 1,
        "model_type": "internvl_chat",
        "output_attentions": false,
        "pad2square": false,
        "ps_version": "v2",
        "select_layer": -1,
        "system_message": null,
        "template": "internvl2_5",
        "tie_word_embeddings": false,
        "torch_dtype": dtype.torch_name(),
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "use_thumbnail": true,
        "vision_config": vision,
    })
}

/// preprocessor_config.json: pictures of the preset's side, ImageNet mean and deviation, bicubic.
pub(super) fn preprocessor_json(shape: &Shape, layout: Layout) -> Value {
    let mean = [0.485, 0.456, 0.406];
    let std = [0.229, 0.224, 0.225];
    match layout {
        Layout::Hf => json!({
            "crop_to_patches": false,
            "do_convert_rgb": true,
            "do_normalize": true,
            "do_rescale": true,
            "do_resize": true,
            "image_mean": mean,
            "image_processor_type": "GotOcr2ImageProcessorFast",
            "image_std": std,
            "max_patches": 12,
            "min_patches": 1,
            "processor_class": "InternVLProcessor",
            "resample": 3,
            "rescale_factor": 1.0 / 255.0,
            "size": { "height": shape.image, "width": shape.image },
        }),
        Layout::Original => json!({
            "crop_size": shape.image,
            "do_center_crop": true,
            "do_normalize": true,
            "do_resize": true,
            "feature_extractor_type": "CLIPFeatureExtractor",
            "image_mean": mean,
            "image_std": std,
            "resample": 3,
            "size": shape.image,
        }),
    }
}

/// processor_config.json of the hf layout.
pub(super) fn processor_json(shape: &Shape) -> Value {
    json!({
        "image_seq_length": shape.tokens_per_frame(),
        "processor_class": "InternVLProcessor",
    })
}

/// generation_config.json.
pub(super) fn generation_json(shape: &Shape) -> Value {
    json!({
        "_from_model_config": true,
        "eos_token_id": [shape.token("<|im_end|>"), shape.token("<|endoftext|>")],
    })
}
