//! Checkpoint directories: synthesized, inspected, fingerprinted and fetched from a hub.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use half::bf16;
use headhunt::{
    engine::probe::HeadProbe as _,
    error::Kind,
    head::HeadId,
    model::{
        DeviceSpec, InternVl, LoadOptions,
        config::ModelConfig,
        fingerprint::{fingerprint, fingerprint_cached},
        inspect::{InspectOptions, inspect, inspect_with},
        layout::all_tensors,
        synthesize::{Dtype, Layout, Preset, Synthesis, synthesize},
        weights::Checkpoint,
    },
};
use serde_json::Value;

fn tiny(dir: &Path, name: &str, seed: u64, layout: Layout, dtype: Dtype) -> PathBuf {
    let out = dir.join(name);
    synthesize(Preset::Tiny, seed, layout, dtype, &out).unwrap();
    out
}

/// Every logical tensor as f32 bits.
fn tensors(dir: &Path) -> BTreeMap<String, Vec<u32>> {
    let checkpoint = Checkpoint::open(dir).unwrap();
    all_tensors(checkpoint.config())
        .into_iter()
        .map(|spec| {
            let raw = checkpoint.finite(&spec).unwrap();
            let bits = match raw.dtype.size() {
                4 => raw
                    .bytes
                    .chunks_exact(4)
                    .map(|b| u32::from_le_bytes(b.try_into().unwrap()))
                    .collect(),
                _ => raw
                    .bytes
                    .chunks_exact(2)
                    .map(|b| {
                        bf16::from_le_bytes(b.try_into().unwrap())
                            .to_f32()
                            .to_bits()
                    })
                    .collect(),
            };
            (spec.name, bits)
        })
        .collect()
}

#[test]
fn both_layouts_hold_the_same_model_and_bf16_is_f32_rounded() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let hf = tensors(&tiny(d, "hf", 3, Layout::Hf, Dtype::F32));
    let original = tensors(&tiny(d, "original", 3, Layout::Original, Dtype::F32));
    assert!(hf == original, "the layouts differ");
    let rounded: BTreeMap<String, Vec<u32>> = hf
        .iter()
        .map(|(name, bits)| {
            let bits = bits
                .iter()
                .map(|b| bf16::from_f32(f32::from_bits(*b)).to_f32().to_bits())
                .collect();
            (name.clone(), bits)
        })
        .collect();
    for (name, layout) in [("hf16", Layout::Hf), ("original16", Layout::Original)] {
        let half = tensors(&tiny(d, name, 3, layout, Dtype::Bf16));
        assert!(half == rounded, "{name} is not the rounded f32 model");
    }
}

#[test]
fn a_seed_gives_the_same_files_again_and_another_seed_another_model() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let a = tiny(d, "a", 5, Layout::Hf, Dtype::F32);
    let b = tiny(d, "b", 5, Layout::Hf, Dtype::F32);
    let mut names: Vec<_> = fs::read_dir(&a)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    for name in &names {
        let (x, y) = (
            fs::read(a.join(name)).unwrap(),
            fs::read(b.join(name)).unwrap(),
        );
        assert!(x == y, "{} differs", name.display());
    }
    for needed in [
        "config.json",
        "tokenizer.json",
        "vocab.json",
        "merges.txt",
        "added_tokens.json",
        "model.safetensors",
    ] {
        assert!(names.iter().any(|n| n == needed), "{needed} is missing");
    }
    let c = tiny(d, "c", 6, Layout::Hf, Dtype::F32);
    let (a, c) = (tensors(&a), tensors(&c));
    // Everything but constants differs.
    assert!(a["text.embed.weight"] != c["text.embed.weight"]);
    assert!(a["vision.layers.2.mlp.fc2.bias"] != c["vision.layers.2.mlp.fc2.bias"]);
}

#[test]
fn sharded_and_single_checkpoints_are_the_same_model_with_the_same_fingerprint() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    for (layout, name) in [(Layout::Hf, "hf"), (Layout::Original, "original")] {
        let single = tiny(d, name, 1, layout, Dtype::F32);
        let sharded = d.join(format!("{name}-sharded"));
        Synthesis {
            preset: Preset::Tiny,
            seed: 1,
            layout,
            dtype: Dtype::F32,
            shard_max_bytes: 300_000,
            progress: &mut |_, _| {},
        }
        .write(&sharded)
        .unwrap();
        let files = Checkpoint::open(&sharded).unwrap().files().count();
        assert!((5..20).contains(&files), "{files} files");
        assert!(!sharded.join("model.safetensors").exists());
        assert!(tensors(&single) == tensors(&sharded));
        assert_eq!(
            fingerprint(&single, 4).unwrap(),
            fingerprint(&sharded, 4).unwrap()
        );
    }
}

#[test]
fn the_published_shapes_are_those_of_the_hubs_configs() {
    let presets = ["1b", "2b", "8b", "14b", "38b"];
    for preset in Preset::ALL
        .into_iter()
        .filter(|p| presets.contains(&p.as_str()))
    {
        for (layout, file) in [(Layout::Hf, "hf"), (Layout::Original, "original")] {
            let path = format!("tests/golden/configs/{}/{file}.json", preset.as_str());
            let golden: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let ours = preset.config_json(layout, Dtype::Bf16);
            for (key, value) in golden.as_object().unwrap() {
                assert_eq!(&ours[key], value, "{path}: {key}");
            }
            let (theirs, _) = ModelConfig::parse(&golden.to_string()).unwrap();
            let (ours, _) = ModelConfig::parse(&ours.to_string()).unwrap();
            assert_eq!(ours, theirs, "{path}");
        }
    }
}

#[test]
fn the_tokenizer_encodes_the_prompt_in_both_forms_alike() {
    use tokenizers::{Tokenizer, models::bpe::BPE};
    let dir = tempfile::tempdir().unwrap();
    let out = tiny(dir.path(), "t", 0, Layout::Hf, Dtype::Bf16);
    let whole = Tokenizer::from_file(out.join("tokenizer.json")).unwrap();
    let text = "Frame1: 你好 \u{1f980}\nIdentify any abnormal events.";
    let ids = whole.encode(text, false).unwrap();
    assert_eq!(whole.decode(ids.get_ids(), false).unwrap(), text);
    // The other form has the same vocabulary and merges.
    let parts = BPE::from_file(
        out.join("vocab.json").to_str().unwrap(),
        out.join("merges.txt").to_str().unwrap(),
    )
    .build()
    .unwrap();
    assert_eq!(parts.get_vocab().len(), 481);
    let added: BTreeMap<String, u32> =
        serde_json::from_slice(&fs::read(out.join("added_tokens.json")).unwrap()).unwrap();
    assert_eq!(added.len(), 31);
    for (token, id) in added {
        assert_eq!(whole.token_to_id(&token), Some(id), "{token}");
    }
    let config: Value =
        serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
    let context = whole.token_to_id("<IMG_CONTEXT>").unwrap();
    assert_eq!(config["image_token_id"], context);
}

#[test]
fn an_out_folder_with_contents_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("notes.txt"), "mine").unwrap();
    let error = synthesize(Preset::Tiny, 0, Layout::Hf, Dtype::F32, &out).unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.message().contains("not empty"), "{error}");
    assert_eq!(fs::read_to_string(out.join("notes.txt")).unwrap(), "mine");
    let error = synthesize(
        Preset::Tiny,
        0,
        Layout::Hf,
        Dtype::F32,
        &out.join("notes.txt"),
    );
    assert_eq!(error.unwrap_err().kind(), Kind::InvalidArgument);
    // An empty folder is used, and nothing else is left beside it.
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    synthesize(Preset::Tiny, 0, Layout::Hf, Dtype::F32, &empty).unwrap();
    assert!(inspect(&empty).unwrap().refused.is_empty());
    let mut left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["empty", "out"]);
}

#[test]
fn an_interrupted_synthesis_leaves_nothing_that_loads() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let interrupted = std::panic::catch_unwind(|| {
        Synthesis {
            preset: Preset::Tiny,
            seed: 0,
            layout: Layout::Hf,
            dtype: Dtype::F32,
            shard_max_bytes: 300_000,
            progress: &mut |written, total| {
                assert!(written < total / 2, "stop here");
            },
        }
        .write(&dir.path().join("out"))
    });
    assert!(interrupted.is_err());
    assert!(!out.exists());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn inspection_tells_shapes_memory_and_fingerprint() {
    let dir = tempfile::tempdir().unwrap();
    let out = tiny(dir.path(), "m", 0, Layout::Original, Dtype::Bf16);
    let options = InspectOptions {
        heads: vec![HeadId { layer: 1, head: 5 }],
        verify: true,
        fingerprint: true,
        cache: None,
    };
    let found = inspect_with(&out, &options).unwrap();
    assert_eq!(found.refused, Vec::<String>::new());
    let text = found.text.as_ref().unwrap();
    assert_eq!((text.layers, text.heads, text.head_dim), (4, 6, 16));
    assert_eq!(found.tokens_per_frame, Some(4));
    let weights = found.weights.as_ref().unwrap();
    assert_eq!(
        weights.bytes,
        fs::metadata(out.join("model.safetensors")).unwrap().len()
    );
    assert_eq!(weights.parameters.keys().collect::<Vec<_>>(), ["bf16"]);
    assert_eq!(found.memory.len(), 2);
    assert_eq!(found.memory[1].layers, 2);
    assert!(found.memory[1].f32_bytes < found.memory[0].f32_bytes);
    assert_eq!(found.memory[0].f32_bytes, 2 * found.memory[0].bf16_bytes);
    assert_eq!(found.fingerprint.as_ref().unwrap().len(), 64);
    let shown = found.to_string();
    for part in [
        "InternVLChatModel",
        "4 layers x 6 heads x 16",
        "heads 1:5: 2 layers",
        "runs here     yes",
    ] {
        assert!(shown.contains(part), "{part} not in\n{shown}");
    }
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["text"]["kv_heads"], 2);

    let missing = inspect(&dir.path().join("nowhere")).unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    let beyond = InspectOptions {
        heads: vec![HeadId { layer: 4, head: 0 }],
        ..InspectOptions::default()
    };
    assert_eq!(
        inspect_with(&out, &beyond).unwrap_err().kind(),
        Kind::InvalidArgument
    );
}

#[test]
fn inspection_names_what_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("m");
    Synthesis {
        preset: Preset::Tiny,
        seed: 0,
        layout: Layout::Hf,
        dtype: Dtype::F32,
        shard_max_bytes: 300_000,
        progress: &mut |_, _| {},
    }
    .write(&out)
    .unwrap();
    let index = out.join("model.safetensors.index.json");
    let whole = fs::read(&index).unwrap();

    fs::write(&index, &whole[..whole.len() / 2]).unwrap();
    let found = inspect(&out).unwrap();
    assert_eq!(found.refused.len(), 1);
    assert!(found.refused[0].contains("index"), "{:?}", found.refused);
    assert!(found.text.is_some() && found.fingerprint.is_none());

    let mut map: Value = serde_json::from_slice(&whole).unwrap();
    map["weight_map"]["language_model.model.norm.weight"] =
        "model-99999-of-99999.safetensors".into();
    fs::write(&index, map.to_string()).unwrap();
    let found = inspect(&out).unwrap();
    assert!(
        found.refused[0].contains("model-99999-of-99999"),
        "{:?}",
        found.refused
    );

    fs::write(&index, &whole).unwrap();
    let shard = second_shard(&out);
    let bytes = fs::read(&shard).unwrap();
    fs::write(&shard, &bytes[..bytes.len() - 8]).unwrap();
    let found = inspect(&out).unwrap();
    assert!(
        found.refused[0].contains("safetensors"),
        "{:?}",
        found.refused
    );

    let mut damaged = bytes.clone();
    let end = damaged.len();
    damaged[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&shard, damaged).unwrap();
    let verify = InspectOptions {
        verify: true,
        ..InspectOptions::default()
    };
    let found = inspect_with(&out, &verify).unwrap();
    assert!(found.refused[0].contains("NaN"), "{:?}", found.refused);

    fs::write(&shard, bytes).unwrap();
    fs::remove_file(out.join("tokenizer.json")).unwrap();
    assert!(inspect(&out).unwrap().refused.is_empty());
    fs::remove_file(out.join("vocab.json")).unwrap();
    let found = inspect(&out).unwrap();
    assert!(
        found.refused[0].contains("vocab.json"),
        "{:?}",
        found.refused
    );
}

fn second_shard(dir: &Path) -> PathBuf {
    let mut shards: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    shards.sort();
    shards[1].clone()
}

#[test]
fn the_fingerprint_depends_on_what_features_depend_on_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let out = tiny(d, "m", 0, Layout::Hf, Dtype::F32);
    let (two, four) = (fingerprint(&out, 2).unwrap(), fingerprint(&out, 4).unwrap());
    assert_ne!(two, four);
    assert_ne!(
        four,
        fingerprint(&tiny(d, "other", 1, Layout::Hf, Dtype::F32), 4).unwrap()
    );
    assert_eq!(
        fingerprint(&out, 5).unwrap_err().kind(),
        Kind::InvalidArgument
    );

    // The deepest layer's o_proj matters for all four layers, not for the first two.
    let path = out.join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    let flip = |name: &str| {
        let mut bytes = whole.clone();
        let (start, _) = place(&whole, name);
        bytes[start] ^= 1;
        fs::write(&path, bytes).unwrap();
        (fingerprint(&out, 2).unwrap(), fingerprint(&out, 4).unwrap())
    };
    let text = "language_model.model.layers";
    assert_eq!(flip(&format!("{text}.1.self_attn.o_proj.weight")).0, two);
    assert_ne!(flip(&format!("{text}.1.self_attn.o_proj.weight")).1, four);
    assert_eq!(flip(&format!("{text}.3.mlp.up_proj.weight")).1, four);
    assert_ne!(flip(&format!("{text}.1.self_attn.v_proj.bias")).0, two);
    assert_eq!(
        flip("language_model.lm_head.weight"),
        (two.clone(), four.clone())
    );
    let both = flip("vision_tower.encoder.layer.2.lambda_2");
    assert!(both.0 != two && both.1 != four);
    fs::write(&path, &whole).unwrap();
    assert_eq!(fingerprint(&out, 4).unwrap(), four);

    let tokenizer = out.join("tokenizer.json");
    let mut text = fs::read(&tokenizer).unwrap();
    text.push(b'\n');
    fs::write(&tokenizer, text).unwrap();
    assert_ne!(fingerprint(&out, 4).unwrap(), four);
}

/// Byte range of a tensor within its file.
fn place(file: &[u8], name: &str) -> (usize, usize) {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    let offset = |i: usize| header[name]["data_offsets"][i].as_u64().unwrap() as usize;
    (8 + length + offset(0), 8 + length + offset(1))
}

#[test]
fn a_model_whose_files_are_replaced_has_no_fingerprint_of_the_new_ones() {
    let dir = tempfile::tempdir().unwrap();
    let [one, other] =
        [1, 2].map(|seed| tiny(dir.path(), &seed.to_string(), seed, Layout::Hf, Dtype::F32));
    let link = dir.path().join("current");
    std::os::unix::fs::symlink(&one, &link).unwrap();
    let options = LoadOptions {
        device: DeviceSpec::Cpu,
        ..LoadOptions::default()
    };
    let model = InternVl::load(&link, &options).unwrap();
    let truth = fingerprint(&one, 2).unwrap();
    assert_eq!(model.fingerprint(2).unwrap(), truth);
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&other, &link).unwrap();
    let error = model.fingerprint(3).unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(
        error.message().contains("has changed since it was loaded"),
        "{error}"
    );
}

#[test]
fn a_remembered_fingerprint_holds_until_a_file_changes() {
    let dir = tempfile::tempdir().unwrap();
    let out = tiny(dir.path(), "m", 0, Layout::Hf, Dtype::F32);
    let cache = dir.path().join("cache");
    let entries = || fs::read_dir(&cache).map_or(0, Iterator::count);
    let truth = fingerprint(&out, 4).unwrap();
    // Files written just now are not trusted yet.
    assert_eq!(fingerprint_cached(&out, 4, Some(&cache)).unwrap(), truth);
    assert_eq!(entries(), 0);
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    for entry in fs::read_dir(&out).unwrap() {
        let file = fs::File::options()
            .append(true)
            .open(entry.unwrap().path())
            .unwrap();
        file.set_modified(old).unwrap();
    }
    assert_eq!(fingerprint_cached(&out, 4, Some(&cache)).unwrap(), truth);
    assert_eq!(entries(), 1);
    // It is read, not computed: a marked entry comes back as it is.
    let entry = fs::read_dir(&cache)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let text = fs::read_to_string(&entry).unwrap();
    let marked = "0".repeat(64);
    fs::write(&entry, text.replace(&truth, &marked)).unwrap();
    assert_eq!(fingerprint_cached(&out, 4, Some(&cache)).unwrap(), marked);
    // A damaged entry is ignored, a changed file is noticed.
    fs::write(&entry, "{").unwrap();
    assert_eq!(fingerprint_cached(&out, 4, Some(&cache)).unwrap(), truth);
    fs::write(
        &entry,
        fs::read_to_string(&entry).unwrap().replace(&truth, &marked),
    )
    .unwrap();
    let file = fs::File::options()
        .append(true)
        .open(out.join("config.json"))
        .unwrap();
    file.set_modified(old + std::time::Duration::from_secs(1))
        .unwrap();
    assert_eq!(fingerprint_cached(&out, 4, Some(&cache)).unwrap(), truth);
    assert_ne!(fingerprint_cached(&out, 3, Some(&cache)).unwrap(), truth);
    assert_eq!(entries(), 2);
}
