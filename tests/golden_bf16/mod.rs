//! The CPU's forward pass in bf16 against the one in f32, and its short cuts against the long way.

use headhunt::model::{
    Precision,
    synthesize::{Dtype, Layout, Preset, synthesize},
};

use super::*;

fn load_bf16(dir: &Path, resident_layers: Option<usize>) -> InternVl {
    let options = LoadOptions {
        precision: Precision::Bf16,
        threads: 2,
        ..cpu(resident_layers)
    };
    InternVl::load(dir, &options).unwrap()
}

/// Frames of smooth gradients with a square that moves: nearer to a video than noise.
fn moving_square(side: usize, frames: usize) -> Clip {
    let frame = |number: usize| {
        let inside = |at: usize, from: usize| (from..from + side / 4).contains(&at);
        let levels = (0..side * side).flat_map(|at| {
            let (x, y) = (at % side, at / side);
            let square = inside(x, number * side / 8) && inside(y, side / 3);
            let bright = if square { 90 } else { 0 };
            [x, y, x + y].map(|v| (v * 120 / side + bright) as u8)
        });
        SharedImage::square(side as u32, levels.collect::<Vec<u8>>())
    };
    Clip {
        frames: (0..frames).map(frame).collect(),
    }
}

fn features(model: &InternVl, clip: &Clip) -> HeadFeatures {
    let clips = std::slice::from_ref(clip);
    let every = HeadSelection::All;
    model.probe(clips, &questions(2), &every).unwrap().remove(0)
}

/// The cosine of each head's features between two passes.
fn cosines(a: &HeadFeatures, b: &HeadFeatures) -> Vec<f64> {
    // Rounded indeed, or this compares nothing.
    assert!(largest_difference(&a.data, &b.data) > 1e-6);
    let heads = a.data.chunks_exact(a.head_dim);
    heads
        .zip(b.data.chunks_exact(b.head_dim))
        .map(|(a, b)| cosine(a, b))
        .collect()
}

fn side_of(dir: &Path) -> usize {
    ModelConfig::load(dir).unwrap().vision.image
}

#[test]
fn every_head_in_bf16_points_where_it_does_in_f32() {
    for (dir, tensors) in CASES {
        let dir = checkpoint_dir(dir);
        let clip = Reference::read(tensors).clip(side_of(&dir) as u32);
        let (full, half) = (load(&dir), load_bf16(&dir, None));
        let types = (full.info().dtype.as_str(), half.info().dtype.as_str());
        assert_eq!(types, ("f32", "bf16"));
        // One model in two number types: a profile names both and is warned of, not refused.
        assert_eq!(full.fingerprint(1).unwrap(), half.fingerprint(1).unwrap());
        let cosines = cosines(&features(&full, &clip), &features(&half, &clip));
        let least = cosines.iter().copied().fold(f64::INFINITY, f64::min);
        println!("{}: least cosine {least:.6}", dir.display());
        assert!(least >= 0.995, "{}: {least}", dir.display());
    }
}

/// The demo's random heads pick single tokens out, so that a rounding anywhere grows by about three
/// with each layer: storing its weights in bf16 turns the deepest heads (cosines down to 0.6) although
/// the pass is in f32. A pass in bf16 must not turn them much further than that.
#[test]
fn the_demo_in_bf16_strays_as_far_as_its_weights_in_bf16_do() {
    let folder = tempfile::tempdir().unwrap();
    let demo = |dtype, name: &str| {
        let dir = folder.path().join(name);
        synthesize(Preset::Demo, 7, Layout::Hf, dtype, &dir).unwrap();
        dir
    };
    let (exact, stored) = (demo(Dtype::F32, "f32"), demo(Dtype::Bf16, "bf16"));
    let clip = moving_square(side_of(&exact), 8);
    let of_exact = features(&load(&exact), &clip);
    let of_stored = features(&load(&stored), &clip);
    let of_pass = features(&load_bf16(&stored, None), &clip);
    let (by_weights, by_pass) = (
        cosines(&of_exact, &of_stored),
        cosines(&of_stored, &of_pass),
    );
    let strays = |cosines: &[f64]| -> f64 {
        cosines.iter().map(|c| 1.0 - c).sum::<f64>() / cosines.len() as f64
    };
    let first_layer = &by_pass[..load(&stored).info().heads];
    println!(
        "mean of 1 - cosine: weights {:.2e}, pass {:.2e}; least cosine of the first layer {:.5}",
        strays(&by_weights),
        strays(&by_pass),
        first_layer.iter().copied().fold(f64::INFINITY, f64::min)
    );
    assert!(first_layer.iter().all(|&c| c >= 0.995), "{first_layer:?}");
    assert!(strays(&by_pass) <= 2.0 * strays(&by_weights));
}

#[test]
fn short_cuts_in_bf16_equal_the_long_way() {
    for (dir, tensors) in CASES {
        let path = checkpoint_dir(dir);
        let (model, reference) = (load_bf16(&path, None), Reference::read(tensors));
        let clip = reference.clip(model.info().image_side as u32);
        let (layers, heads) = (model.info().layers, model.info().heads);
        let id = |layer, head| HeadId { layer, head };
        let every = HeadSelection::All;

        // Fewer heads and layers.
        let selection = vec![id(layers - 2, heads - 1), id(0, 1), id(layers - 2, 0)];
        let only = HeadSelection::Only(selection.clone());
        let partial = load_bf16(&path, Some(layers - 1));
        let clips = [clip.clone(), inverted(&clip)];
        let all = model.probe(&clips, &questions(3), &every).unwrap();
        let some = partial.probe(&clips, &questions(3), &only).unwrap();
        let expected: Vec<HeadFeatures> =
            all.iter().map(|all| cut(all, heads, &selection)).collect();
        equal_features(&some, &expected);

        // A batch against its clips alone, several prompts against each alone.
        for (clip, together) in clips.iter().zip(&all) {
            let clip = std::slice::from_ref(clip);
            for (number, question) in questions(3).into_iter().enumerate() {
                let alone = model.probe(clip, &[question], &every).unwrap();
                let d = largest_difference(together.prompt(number), alone[0].prompt(0));
                assert!(d <= 1e-5, "{dir}, prompt {number}: {d}");
            }
        }

        // Everything at the last token, with the very heads, and logits near those in f32.
        let output = whole_vocabulary(&model);
        let asked = questions(1);
        let whole = model.probe_whole(&output, &clip, &asked, None).unwrap();
        let heads_alone = model
            .probe(std::slice::from_ref(&clip), &asked, &every)
            .unwrap();
        assert_eq!(whole.heads, heads_alone[0], "{dir}");
        let full = load(&path);
        let full = full
            .probe_whole(&whole_vocabulary(&full), &clip, &asked, None)
            .unwrap();
        let c = cosine(&whole.logits, &full.logits);
        assert!(c >= 0.999, "{dir}: logits {c}");
    }
}

#[test]
fn a_model_in_bf16_names_numbers_that_are_not_finite() {
    let dir = checkpoint_dir("tiny/hf");
    let mut tensors = read_tensors(&dir.join("model.safetensors"));
    let name = "language_model.model.layers.1.self_attn.v_proj.weight";
    let tensor = tensors.iter_mut().find(|t| t.name == name).unwrap();
    let huge: Vec<f32> = tensor.f32().iter().map(|v| v.signum() * 3e38).collect();
    tensor.bytes = huge.iter().flat_map(|v| v.to_le_bytes()).collect();
    let broken = write_checkpoint(&dir, &tensors, 1);
    let model = load_bf16(broken.path(), None);
    let clip = moving_square(model.info().image_side, 2);
    let e = model
        .probe(&[clip], &questions(1), &HeadSelection::All)
        .unwrap_err();
    assert_eq!(e.kind(), Kind::DataLoss);
    assert!(e.message().contains("head (1, "), "{e}");
    assert!(e.message().contains("bf16"), "{e}");
}
