//! The two forms of config.json, key by key.

use super::{ModelConfig, Norm, PROJECTOR_EPS, TextConfig, VisionConfig, fields::Fields};
use crate::error::{Error, Kind, Result, ResultExt};

pub fn parse_hf(root: &Fields) -> Result<ModelConfig> {
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
        text: parse_text(root, &root.object("text_config")?)?,
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

pub fn parse_original(root: &Fields) -> Result<ModelConfig> {
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
        text: parse_text(root, &root.object("llm_config")?)?,
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

fn parse_text(root: &Fields, text: &Fields) -> Result<TextConfig> {
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
        tied_embeddings: text.flag_or("tie_word_embeddings", false)?
            || root.flag_or("tie_word_embeddings", false)?,
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
