//! Damaged checkpoints and configurations that the code does not implement: each is refused with
//! a message that names the fault.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use headhunt::{
    error::{Error, Kind},
    model::{
        DeviceSpec, InternVl, LoadOptions,
        config::{Layout, ModelConfig},
        layout::{Naming, all_tensors, needed_tensors, stored, stored_tensors},
        weights::Checkpoint,
    },
};
use safetensors::Dtype;
use serde_json::{Value, json};

mod checkpoint;
use checkpoint::{Stored, edit_config, read_tensors, write_checkpoint, write_index};

fn tiny(layout: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/checkpoints/tiny")
        .join(layout)
}

fn load(dir: &Path, resident_layers: Option<usize>) -> Result<(), Error> {
    let options = LoadOptions {
        device: DeviceSpec::Cpu,
        resident_layers,
        ..LoadOptions::default()
    };
    InternVl::load(dir, &options).map(|_| ())
}

/// The error of loading `layout` with its tensors changed.
fn error_of(layout: &str, change: impl FnOnce(&mut Vec<Stored>)) -> Error {
    let dir = tiny(layout);
    let mut tensors = read_tensors(&dir.join("model.safetensors"));
    change(&mut tensors);
    let broken = write_checkpoint(&dir, &tensors, 1);
    load(broken.path(), None).unwrap_err()
}

fn named<'a>(tensors: &'a mut [Stored], name: &str) -> &'a mut Stored {
    tensors.iter_mut().find(|t| t.name == name).unwrap()
}

#[track_caller]
fn says(e: &Error, kind: Kind, words: &[&str]) {
    assert_eq!(e.kind(), kind, "{e:#}");
    for word in words {
        assert!(e.message().contains(word), "{word:?} is not in: {e:#}");
    }
}

const FC1: [(&str, &str); 2] = [
    ("hf", "vision_tower.encoder.layer.1.mlp.fc1.weight"),
    ("orig", "vision_model.encoder.layers.1.mlp.fc1.weight"),
];

#[test]
fn a_missing_tensor_is_named() {
    for (layout, name) in FC1 {
        let e = error_of(layout, |t| t.retain(|t| t.name != name));
        says(&e, Kind::DataLoss, &[name, "missing"]);
    }
}

#[test]
fn a_tensor_that_was_forgotten_reads_the_same_again() {
    for layout in ["hf", "orig"] {
        let checkpoint = Checkpoint::open(&tiny(layout)).unwrap();
        let layers = checkpoint.config().text.layers;
        let specs = checkpoint.needed(layers).unwrap();
        let read = || -> Vec<Vec<u8>> {
            let bytes = |spec| checkpoint.raw(spec).unwrap().bytes.to_vec();
            specs.iter().map(bytes).collect()
        };
        let before = read();
        specs.iter().for_each(|spec| checkpoint.forget(spec));
        assert!(before == read(), "{layout}");
    }
}

#[test]
fn every_needed_tensor_is_missed() {
    for layout in ["hf", "orig"] {
        let dir = tiny(layout);
        let checkpoint = Checkpoint::open(&dir).unwrap();
        let tensors = read_tensors(&dir.join("model.safetensors"));
        for spec in checkpoint.needed(2).unwrap() {
            let name = stored(&spec, checkpoint.naming()).name;
            let rest: Vec<Stored> = tensors.iter().filter(|t| t.name != name).cloned().collect();
            assert_eq!(rest.len() + 1, tensors.len(), "{name}");
            let broken = write_checkpoint(&dir, &rest, 1);
            let e = Checkpoint::open(broken.path())
                .and_then(|c| c.needed(2))
                .unwrap_err();
            says(&e, Kind::DataLoss, &[&name, "missing"]);
        }
    }
}

#[test]
fn layers_beyond_the_resident_ones_may_be_absent() {
    let dir = tiny("hf");
    let tensors: Vec<Stored> = read_tensors(&dir.join("model.safetensors"))
        .into_iter()
        .filter(|t| {
            !t.name.contains("layers.2.")
                && !t.name.contains("layers.3.")
                && !t.name.contains("language_model.model.layers.1.mlp")
                && !t.name.contains("lm_head")
        })
        .collect();
    let part = write_checkpoint(&dir, &tensors, 1);
    load(part.path(), Some(2)).unwrap();
    says(
        &load(part.path(), Some(3)).unwrap_err(),
        Kind::DataLoss,
        &["layers.1.", "missing"],
    );
}

#[test]
fn a_misshapen_tensor_is_named_with_both_shapes() {
    for (layout, name) in FC1 {
        let e = error_of(layout, |t| named(t, name).shape.reverse());
        says(&e, Kind::DataLoss, &[name, "[64, 160]", "[160, 64]"]);
    }
    // Same number of rows in sum, but not three times the width.
    let name = "vision_model.encoder.layers.0.attn.qkv.bias";
    let e = error_of("orig", |t| {
        let t = named(t, name);
        t.shape = vec![191];
        t.bytes.truncate(191 * 4);
    });
    says(&e, Kind::DataLoss, &[name, "[191]", "[192]"]);
}

#[test]
fn nan_and_infinity_are_named() {
    for (layout, name) in FC1 {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let e = error_of(layout, |t| {
                let bytes = &mut named(t, name).bytes;
                let end = bytes.len();
                bytes[end - 4..].copy_from_slice(&bad.to_le_bytes());
            });
            says(&e, Kind::DataLoss, &[name, "NaN"]);
        }
        for to_bf16 in [true, false] {
            let e = error_of(layout, |t| {
                let t = named(t, name);
                *t = t.to_half(to_bf16);
                t.bytes[10..12].copy_from_slice(&0x7fc0u16.to_le_bytes());
            });
            says(&e, Kind::DataLoss, &[name, "NaN"]);
        }
    }
    let embed = "language_model.model.embed_tokens.weight";
    let e = error_of("hf", |t| {
        named(t, embed).bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    says(&e, Kind::DataLoss, &[embed, "NaN"]);
}

#[test]
fn a_tensor_that_would_not_be_read_is_named() {
    for name in [
        "vision_tower.encoder.layer.0.attention.q_norm.weight",
        "vision_tower.encoder.layer.3.lambda_1",
        "language_model.model.layers.0.self_attn.o_proj.bias",
        "vision_tower.layernorm.weight",
    ] {
        let e = error_of("hf", |t| {
            let copy = named(t, "vision_tower.encoder.layer.0.lambda_1").clone();
            t.push(Stored {
                name: name.into(),
                ..copy
            });
        });
        says(&e, Kind::DataLoss, &[name, "no place"]);
    }
}

#[test]
fn a_number_type_that_is_not_implemented_is_named() {
    let e = error_of("hf", |t| {
        let t = named(t, FC1[0].1);
        t.dtype = Dtype::I32;
    });
    says(&e, Kind::Unimplemented, &[FC1[0].1, "I32"]);
}

#[test]
fn a_truncated_or_foreign_file_is_named() {
    let dir = tiny("hf");
    let copy = write_checkpoint(&dir, &read_tensors(&dir.join("model.safetensors")), 1);
    let file = copy.path().join("model.safetensors");
    let whole = fs::read(&file).unwrap();
    for bytes in [&whole[..whole.len() - 1], &whole[..40], b"", b"not a model"] {
        fs::write(&file, bytes).unwrap();
        let e = load(copy.path(), None).unwrap_err();
        says(&e, Kind::DataLoss, &["model.safetensors"]);
    }
    fs::remove_file(&file).unwrap();
    says(
        &load(copy.path(), None).unwrap_err(),
        Kind::NotFound,
        &["model.safetensors.index.json"],
    );
    says(
        &load(&copy.path().join("nowhere"), None).unwrap_err(),
        Kind::NotFound,
        &["config.json"],
    );
}

#[test]
fn a_damaged_index_is_named() {
    let dir = tiny("hf");
    let tensors = read_tensors(&dir.join("model.safetensors"));
    let copy = write_checkpoint(&dir, &tensors, 2);
    let index = copy.path().join("model.safetensors.index.json");
    let good: BTreeMap<String, String> = serde_json::from_value(
        serde_json::from_str::<Value>(&fs::read_to_string(&index).unwrap()).unwrap()["weight_map"]
            .take(),
    )
    .unwrap();
    let (tensor, file) = good.first_key_value().unwrap();
    let check = |tensor: &str, file: &str, kind, words: &[&str]| {
        let mut map = good.clone();
        map.insert(tensor.into(), file.into());
        write_index(copy.path(), &map);
        says(&load(copy.path(), None).unwrap_err(), kind, words);
    };
    for outside in [
        "../model.safetensors",
        "/etc/model.safetensors",
        "sub/model.safetensors",
        "..",
        "",
    ] {
        check(tensor, outside, Kind::DataLoss, &["same directory"]);
    }
    check(tensor, "absent.safetensors", Kind::NotFound, &["absent"]);
    check("no.such", file, Kind::DataLoss, &["no.such", file]);
    fs::write(&index, "{").unwrap();
    says(
        &load(copy.path(), None).unwrap_err(),
        Kind::DataLoss,
        &["index"],
    );
}

fn config_text(layout: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(tiny(layout).join("config.json")).unwrap()).unwrap()
}

#[test]
fn both_layouts_give_one_config() {
    let parse = |layout| ModelConfig::parse(&config_text(layout).to_string()).unwrap();
    let (mut hf, hf_layout) = parse("hf");
    let (original, original_layout) = parse("orig");
    assert_eq!((hf_layout, original_layout), (Layout::Hf, Layout::Original));
    assert_eq!(hf.image_token_id.take(), Some(505));
    assert_eq!(hf, original);
    assert_eq!(hf.tokens_per_frame(), 4);
}

#[test]
fn the_tiny_files_hold_exactly_the_listed_tensors() {
    for layout in ["hf", "orig"] {
        let checkpoint = Checkpoint::open(&tiny(layout)).unwrap();
        let mut listed = stored_tensors(checkpoint.config(), checkpoint.naming());
        listed.sort();
        let stored: Vec<_> = read_tensors(&tiny(layout).join("model.safetensors"))
            .into_iter()
            .map(|t| (t.name, t.shape))
            .collect();
        assert_eq!(listed, stored);
        let config = checkpoint.config();
        assert!(needed_tensors(config, 4).len() < all_tensors(config).len());
    }
}

/// The bytes of q, k and v come out of the combined tensor as the other layout stores them.
#[test]
fn both_layouts_give_the_same_bytes() {
    let (hf, original) = (
        Checkpoint::open(&tiny("hf")).unwrap(),
        Checkpoint::open(&tiny("orig")).unwrap(),
    );
    assert_eq!(hf.naming(), Naming::Hf);
    let specs = hf.needed(4).unwrap();
    assert_eq!(specs, original.needed(4).unwrap());
    for spec in specs {
        assert_eq!(
            hf.raw(&spec).unwrap().bytes,
            original.raw(&spec).unwrap().bytes,
            "{}",
            spec.name
        );
    }
}

#[test]
fn what_is_not_implemented_is_refused_by_name() {
    let cases: &[(&str, &[&str], Value, &str)] = &[
        ("hf", &["model_type"], json!("llava"), "llava"),
        ("hf", &["architectures"], json!(["Other"]), "Other"),
        ("hf", &["projector_hidden_act"], json!("relu"), "relu"),
        ("hf", &["vision_feature_layer"], json!(-2), "-2"),
        (
            "hf",
            &["vision_feature_select_strategy"],
            json!("full"),
            "full",
        ),
        ("hf", &["downsample_ratio"], json!(0.25), "0.25"),
        (
            "hf",
            &["quantization_config"],
            json!({"bits": 4}),
            "quantised",
        ),
        (
            "hf",
            &["text_config", "model_type"],
            json!("internlm3"),
            "internlm3",
        ),
        ("hf", &["text_config", "hidden_act"], json!("gelu"), "gelu"),
        (
            "hf",
            &["text_config", "layer_types", "2"],
            json!("sliding_attention"),
            "layer_types",
        ),
        (
            "hf",
            &["text_config", "rope_scaling", "rope_type"],
            json!("yarn"),
            "yarn",
        ),
        (
            "hf",
            &["vision_config", "norm_type"],
            json!("batch_norm"),
            "batch_norm",
        ),
        (
            "hf",
            &["vision_config", "hidden_act"],
            json!("quick_gelu"),
            "quick_gelu",
        ),
        (
            "hf",
            &["vision_config", "use_mask_token"],
            json!(true),
            "mask token",
        ),
        (
            "hf",
            &["vision_config", "use_mean_pooling"],
            json!(false),
            "final norm",
        ),
        (
            "hf",
            &["vision_config", "use_absolute_position_embeddings"],
            json!(false),
            "position",
        ),
        (
            "hf",
            &["vision_config", "num_channels"],
            json!(1),
            "num_channels",
        ),
        (
            "hf",
            &["vision_config", "image_size"],
            json!([56, 28]),
            "square",
        ),
        (
            "orig",
            &["llm_config", "model_type"],
            json!("internlm3"),
            "internlm3",
        ),
        ("orig", &["ps_version"], json!("v1"), "ps_version"),
        ("orig", &["template"], json!("internvl_zh"), "internvl_zh"),
        ("orig", &["select_layer"], json!(-4), "select_layer"),
        ("orig", &["pad2square"], json!(true), "pad2square"),
        ("orig", &["use_llm_lora"], json!(16), "LoRA"),
        (
            "orig",
            &["force_image_size"],
            json!(112),
            "force_image_size",
        ),
        (
            "orig",
            &["llm_config", "rope_scaling", "type"],
            json!("linear"),
            "",
        ),
    ];
    for (layout, path, value, word) in cases {
        let mut config = config_text(layout);
        if word.is_empty() {
            // The older key counts where the newer one is absent.
            config["llm_config"]["rope_scaling"]
                .as_object_mut()
                .unwrap()
                .remove("rope_type");
        }
        let mut place = &mut config;
        for key in *path {
            place = match key.parse::<usize>() {
                Ok(i) => &mut place[i],
                Err(_) => &mut place[*key],
            };
        }
        *place = value.clone();
        let e = ModelConfig::parse(&config.to_string()).unwrap_err();
        says(&e, Kind::Unimplemented, &[word, "not implemented"]);
    }
}

#[test]
fn sliding_windows_are_refused_only_where_they_take_effect() {
    let parse = |use_it: bool, window: Value, from: usize| {
        let mut config = config_text("hf");
        let text = &mut config["text_config"];
        text["use_sliding_window"] = json!(use_it);
        text["sliding_window"] = window;
        text["max_window_layers"] = json!(from);
        ModelConfig::parse(&config.to_string())
    };
    parse(false, json!(1024), 0).unwrap();
    parse(true, Value::Null, 0).unwrap();
    parse(true, json!(1024), 4).unwrap();
    let e = parse(true, json!(1024), 3).unwrap_err();
    says(&e, Kind::Unimplemented, &["sliding"]);
}

#[test]
fn rotary_base_is_read_from_old_and_new_keys() {
    let mut config = config_text("hf");
    let text = config["text_config"].as_object_mut().unwrap();
    text.remove("rope_theta");
    text.remove("rope_scaling");
    let e = ModelConfig::parse(&config.to_string()).unwrap_err();
    says(
        &e,
        Kind::InvalidArgument,
        &["text_config.rope_theta", "missing"],
    );
    config["text_config"]["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 5e5});
    let (parsed, _) = ModelConfig::parse(&config.to_string()).unwrap();
    assert_eq!(parsed.text.rope_theta, 5e5);
}

#[test]
fn inconsistent_and_absurd_sizes_are_refused() {
    let cases: &[(&[&str], Value, &str)] = &[
        (&["vision_config", "num_attention_heads"], json!(5), "heads"),
        (&["vision_config", "num_attention_heads"], json!(0), "heads"),
        (&["vision_config", "patch_size"], json!(15), "patches"),
        (
            &["vision_config", "image_size"],
            json!(1 << 30),
            "image size",
        ),
        (
            &["vision_config", "num_hidden_layers"],
            json!(1e9 as u64),
            "layers",
        ),
        (
            &["text_config", "num_key_value_heads"],
            json!(4),
            "key/value",
        ),
        (&["text_config", "num_attention_heads"], json!(7), "heads"),
        (&["text_config", "num_attention_heads"], json!(0), "heads"),
        (&["text_config", "hidden_size"], json!(u64::MAX), "hidden"),
        (&["text_config", "head_dim"], json!(15), "head_dim"),
        (&["text_config", "vocab_size"], json!(0), "vocabulary"),
        (&["text_config", "vocab_size"], json!("512"), "vocab_size"),
        (&["text_config", "rms_norm_eps"], json!(-1.0), "eps"),
        (&["text_config", "rope_theta"], json!(0.0), "rope_theta"),
        (
            &["text_config", "max_position_embeddings"],
            json!(1u64 << 40),
            "positions",
        ),
        (&["image_seq_length"], json!(5), "image_seq_length"),
        (&["image_token_id"], json!(512), "image_token_id"),
        (&["vision_config"], json!(3), "vision_config"),
        (
            &["vision_config", "use_qk_norm"],
            Value::Null,
            "use_qk_norm",
        ),
    ];
    for (path, value, word) in cases {
        let mut config = config_text("hf");
        let mut place = &mut config;
        for key in *path {
            place = &mut place[*key];
        }
        *place = value.clone();
        let e = ModelConfig::parse(&config.to_string()).unwrap_err();
        assert_eq!(e.kind(), Kind::InvalidArgument, "{path:?}: {e}");
        let said = e.message().replace("max_position_embeddings", "positions");
        assert!(said.contains(word), "{path:?}: {e}");
    }
    for text in ["", "[]", "{}", "nonsense"] {
        let e = ModelConfig::parse(text).unwrap_err();
        assert_eq!(e.kind(), Kind::InvalidArgument, "{text:?}: {e}");
    }
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let dir = tiny("hf");
    let tensors = read_tensors(&dir.join("model.safetensors"));
    let copy = write_checkpoint(&dir, &tensors, 1);
    edit_config(copy.path(), |c| c["image_token_id"] = json!(504));
    says(
        &load(copy.path(), None).unwrap_err(),
        Kind::DataLoss,
        &["504", "505"],
    );
}
