//! The forward pass against tensors of transformers in f32, in both checkpoint layouts, and its
//! short cuts against the long way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use headhunt::{
    engine::{
        Engine, EngineConfig, Job, Lane,
        probe::{Clip, HeadProbe, ProbeInfo},
    },
    error::{Kind, Result},
    head::{HeadFeatures, HeadId, HeadSelection},
    media::{RgbImage, SharedImage},
    model::{DeviceSpec, InternVl, LoadOptions, config::ModelConfig, internvl::OutputHead, pixels},
};

use tokio_util::sync::CancellationToken;

mod checkpoint;
mod golden_bf16;
use checkpoint::{Stored, edit_config, read_tensors, write_checkpoint};

/// Checkpoint directory below `tests/golden/checkpoints` and the reference's tensors for it.
const CASES: &[(&str, &str)] = &[
    ("tiny/hf", "model_tiny.safetensors"),
    ("tiny/orig", "model_tiny.safetensors"),
    // InternViT-6B style: RMSNorm, q/k norm, no qkv bias.
    ("tiny6b/hf", "model_tiny6b.safetensors"),
    ("tiny6b/orig", "model_tiny6b.safetensors"),
    // The names of newer files, tied embeddings, two shards.
    ("tinywide/hf", "model_tinywide.safetensors"),
    ("tinywide/orig", "model_tinywide.safetensors"),
];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn checkpoint_dir(name: &str) -> PathBuf {
    golden("checkpoints").join(name)
}

fn load(dir: &Path) -> InternVl {
    InternVl::load(dir, &cpu(None)).unwrap()
}

fn cpu(resident_layers: Option<usize>) -> LoadOptions {
    LoadOptions {
        device: DeviceSpec::Cpu,
        resident_layers,
        ..LoadOptions::default()
    }
}

/// The reference's tensors and its question.
struct Reference {
    tensors: Vec<Stored>,
    question: String,
}

impl Reference {
    fn read(name: &str) -> Self {
        let bytes = std::fs::read(golden(name)).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        Reference {
            tensors: read_tensors(&golden(name)),
            question: metadata.metadata().as_ref().unwrap()["question"].clone(),
        }
    }

    fn get(&self, name: &str) -> &Stored {
        self.tensors.iter().find(|t| t.name == name).unwrap()
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        self.get(name).f32()
    }

    fn ids(&self) -> Vec<u32> {
        self.get("input_ids")
            .bytes
            .chunks_exact(8)
            .map(|b| u32::try_from(i64::from_le_bytes(b.try_into().unwrap())).unwrap())
            .collect()
    }

    /// The reference's own frames, resized for the model.
    fn clip(&self, side: u32) -> Clip {
        let frames = self.get("frames");
        let [_, height, width, _] = frames.shape[..] else {
            panic!("frames are not [n, h, w, 3]")
        };
        Clip {
            frames: frames
                .bytes
                .chunks_exact(height * width * 3)
                .map(|data| {
                    let image = RgbImage {
                        width: width as u32,
                        height: height as u32,
                        data: data.to_vec(),
                    };
                    SharedImage::square(side, pixels::resize_bicubic(&image, side).unwrap())
                })
                .collect(),
        }
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| {
            let d = (a - b).abs();
            assert!(!d.is_nan());
            d
        })
        .fold(0.0, f32::max)
}

#[track_caller]
fn equal_to_reference(stage: &str, ours: &[f32], reference: &[f32]) {
    let (d, c) = (largest_difference(ours, reference), cosine(ours, reference));
    println!(
        "{stage}: largest difference {d:.2e}, 1 - cosine {:.2e}",
        1.0 - c
    );
    assert!(d <= 1e-4, "{stage}: largest difference {d}");
    assert!(c >= 0.999_999, "{stage}: cosine {c}");
}

#[track_caller]
fn equal_features(a: &[HeadFeatures], b: &[HeadFeatures]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert_eq!(
            (a.prompts, a.heads, a.head_dim),
            (b.prompts, b.heads, b.head_dim)
        );
        let d = largest_difference(&a.data, &b.data);
        assert!(d <= 1e-5, "largest difference {d}");
    }
}

#[test]
fn every_stage_equals_the_reference() {
    for (dir, tensors) in CASES {
        println!("{dir}");
        let (model, reference) = (load(&checkpoint_dir(dir)), Reference::read(tensors));
        let pixels = reference.f32("pixel_values");
        let stages = model.vision_stages(&pixels).unwrap();
        equal_to_reference("tower", &stages.tower, &reference.f32("vision_tower"));
        equal_to_reference(
            "unshuffled",
            &stages.unshuffled,
            &reference.f32("vision_shuffled"),
        );
        equal_to_reference(
            "projected",
            &stages.projected,
            &reference.f32("vision_embeds"),
        );
        let features = model
            .probe_tokens(&[&pixels], &[reference.ids()], &HeadSelection::All)
            .unwrap();
        let text = &model.config().text;
        let layer = text.heads * text.head_dim;
        let heads = reference.f32("heads");
        assert_eq!(features[0].data.len(), layer * text.layers);
        for (number, (ours, theirs)) in features[0]
            .data
            .chunks_exact(layer)
            .zip(heads.chunks_exact(layer))
            .enumerate()
        {
            equal_to_reference(&format!("heads of layer {number}"), ours, theirs);
        }
    }
}

#[test]
fn frames_and_a_question_give_the_reference_heads() {
    for (dir, tensors) in CASES {
        let (model, reference) = (load(&checkpoint_dir(dir)), Reference::read(tensors));
        let clip = reference.clip(model.info().image_side as u32);
        let features = model
            .probe(
                &[clip],
                std::slice::from_ref(&reference.question),
                &HeadSelection::All,
            )
            .unwrap();
        // The reference's own resize of pictures may differ by one level in a few values.
        equal_to_reference("heads", &features[0].data, &reference.f32("heads"));
    }
}

/// The heads of `selection` cut out of the features of all heads.
fn cut(all: &HeadFeatures, heads_per_layer: usize, selection: &[HeadId]) -> HeadFeatures {
    let d = all.head_dim;
    let data = (0..all.prompts)
        .flat_map(|prompt| {
            let row = all.prompt(prompt);
            selection.iter().flat_map(move |id| {
                let at = (id.layer * heads_per_layer + id.head) * d;
                row[at..at + d].to_vec()
            })
        })
        .collect();
    HeadFeatures {
        heads: selection.len(),
        data,
        ..all.clone()
    }
}

const QUESTIONS: [&str; 3] = [
    "Identify any abnormal events in this video.",
    "Identify any abnormal events or safety hazards in this video.",
    "Is anything unusual happening?",
];

/// Every token of a checkpoint's output head.
fn whole_vocabulary(model: &InternVl) -> OutputHead {
    let tokens: Vec<u32> = (0..model.config().text.vocab as u32).collect();
    model.output_head(&tokens).unwrap()
}

#[test]
fn hidden_states_and_logits_equal_the_reference() {
    for (dir, tensors) in CASES {
        let (model, reference) = (load(&checkpoint_dir(dir)), Reference::read(tensors));
        let clip = reference.clip(model.info().image_side as u32);
        let output = whole_vocabulary(&model);
        let whole = model
            .probe_whole(
                &output,
                &clip,
                std::slice::from_ref(&reference.question),
                None,
            )
            .unwrap();
        equal_to_reference("heads", &whole.heads.data, &reference.f32("heads"));
        let width = model.config().text.hidden;
        let layers = reference.f32("last_hidden");
        assert_eq!(whole.hidden.len(), width * model.info().layers);
        for (number, (ours, theirs)) in whole
            .hidden
            .chunks_exact(width)
            .zip(layers.chunks_exact(width))
            .enumerate()
        {
            equal_to_reference(&format!("hidden state after layer {number}"), ours, theirs);
        }
        equal_to_reference("logits", &whole.logits, &reference.f32("last_logits"));
        assert!(whole.answer.is_empty());
    }
}

#[test]
fn a_whole_pass_has_the_very_heads_of_a_partial_one_with_and_without_a_question() {
    for (dir, tensors) in CASES {
        let (model, reference) = (load(&checkpoint_dir(dir)), Reference::read(tensors));
        let clip = reference.clip(model.info().image_side as u32);
        let output = whole_vocabulary(&model);
        let asked = "Does anything unusual happen? Answer Yes or No.";
        for n in [1, 3] {
            let prompts = questions(n);
            let clips = [clip.clone()];
            let heads = model.probe(&clips, &prompts, &HeadSelection::All).unwrap();
            for question in [None, Some(asked)] {
                let whole = model
                    .probe_whole(&output, &clip, &prompts, question)
                    .unwrap();
                assert_eq!(whole.heads, heads[0], "{dir}");
                assert_eq!(whole.answer.is_empty(), question.is_none());
            }
            // The question after the shared part answers as it does alone.
            let shared = model
                .probe_whole(&output, &clip, &prompts, Some(asked))
                .unwrap();
            let alone = model
                .probe_whole(&output, &clip, &[asked.to_owned()], None)
                .unwrap();
            let d = largest_difference(&shared.answer, &alone.logits);
            assert!(d <= 1e-5, "{dir}: {d}");
        }
    }
}

#[test]
fn an_output_head_needs_all_layers_its_tensor_and_tokens_that_exist() {
    let dir = checkpoint_dir("tiny/hf");
    let model = load(&dir);
    let [yes, no] = model.answer_tokens("Yes", "No").unwrap();
    assert_ne!(yes, no);
    assert_eq!(model.output_head(&[yes, no]).unwrap().tokens(), [yes, no]);
    let kind = |result: headhunt::error::Result<OutputHead>| result.err().unwrap().kind();
    assert_eq!(
        model.answer_tokens("Yes", "Yes").unwrap_err().kind(),
        Kind::FailedPrecondition
    );
    assert_eq!(kind(model.output_head(&[])), Kind::InvalidArgument);
    assert_eq!(kind(model.output_head(&[1 << 20])), Kind::InvalidArgument);
    let partial = InternVl::load(&dir, &cpu(Some(2))).unwrap();
    assert_eq!(kind(partial.output_head(&[1])), Kind::FailedPrecondition);
    // Not tied, and not there.
    let mut tensors = read_tensors(&dir.join("model.safetensors"));
    tensors.retain(|t| !t.name.contains("lm_head"));
    let copy = write_checkpoint(&dir, &tensors, 1);
    let error = load(copy.path()).output_head(&[1]).err().unwrap();
    assert_eq!(error.kind(), Kind::DataLoss);
    assert!(error.to_string().contains("lm_head"), "{error}");
}

fn questions(n: usize) -> Vec<String> {
    QUESTIONS[..n].iter().map(|q| (*q).to_owned()).collect()
}

#[test]
fn partial_passes_equal_the_whole_pass() {
    for (dir, tensors) in CASES {
        let path = checkpoint_dir(dir);
        let (model, reference) = (load(&path), Reference::read(tensors));
        let clip = reference.clip(model.info().image_side as u32);
        let (layers, heads) = (model.info().layers, model.info().heads);
        let id = |layer, head| HeadId { layer, head };
        for selection in [
            vec![id(0, 0)],
            vec![id(1, heads - 1), id(0, 1), id(1, 0), id(1, 0)],
            vec![id(layers - 1, heads / 2), id(0, 1), id(layers - 1, 0)],
            vec![id(layers - 2, 1)],
        ] {
            let deepest = selection.iter().map(|h| h.layer).max().unwrap();
            for prompts in [questions(1), questions(3)] {
                let clips = [clip.clone()];
                let all = model.probe(&clips, &prompts, &HeadSelection::All).unwrap();
                let expected = [cut(&all[0], heads, &selection)];
                let only = HeadSelection::Only(selection.clone());
                let partial = InternVl::load(&path, &cpu(Some(deepest + 1))).unwrap();
                for model in [&model, &partial] {
                    equal_features(&model.probe(&clips, &prompts, &only).unwrap(), &expected);
                }
            }
        }
    }
}

#[test]
fn prompts_on_a_shared_prefix_equal_separate_passes() {
    for (dir, tensors) in CASES {
        let (model, reference) = (load(&checkpoint_dir(dir)), Reference::read(tensors));
        let clips = [reference.clip(model.info().image_side as u32)];
        let together = model
            .probe(&clips, &questions(3), &HeadSelection::All)
            .unwrap();
        for (i, question) in questions(3).into_iter().enumerate() {
            let alone = model
                .probe(&clips, &[question], &HeadSelection::All)
                .unwrap();
            let d = largest_difference(together[0].prompt(i), alone[0].prompt(0));
            assert!(d <= 1e-5, "prompt {i}: {d}");
        }
        // Prompts that are equal, or one the start of the other, still run their last token.
        let ids = reference.ids();
        let pixels = reference.f32("pixel_values");
        let shorter = ids[..ids.len() - 3].to_vec();
        let prompts = [ids.clone(), ids.clone(), shorter.clone()];
        let together = model
            .probe_tokens(&[&pixels], &prompts, &HeadSelection::All)
            .unwrap();
        for (i, prompt) in prompts.into_iter().enumerate() {
            let alone = model
                .probe_tokens(&[&pixels], &[prompt], &HeadSelection::All)
                .unwrap();
            assert!(largest_difference(together[0].prompt(i), &alone[0].data) <= 1e-5);
        }
    }
}

/// The clip with its colours turned: other pictures of the same size.
fn inverted(clip: &Clip) -> Clip {
    Clip {
        frames: clip
            .frames
            .iter()
            .map(|f| SharedImage {
                data: f.data.iter().map(|v| 255 - v).collect(),
                ..*f
            })
            .collect(),
    }
}

#[test]
fn a_batch_equals_its_singles() {
    for (dir, tensors) in CASES {
        let (model, reference) = (load(&checkpoint_dir(dir)), Reference::read(tensors));
        let clip = reference.clip(model.info().image_side as u32);
        // A frame that repeats, within a clip and across clips, and a clip of another length.
        let mut repeated = clip.clone();
        *repeated.frames.last_mut().unwrap() = clip.frames[0].clone();
        let mut short = inverted(&clip);
        short.frames.truncate(1);
        let clips = [clip.clone(), short, inverted(&clip), repeated, clip];
        for prompts in [questions(1), questions(2)] {
            let together = model.probe(&clips, &prompts, &HeadSelection::All).unwrap();
            for (clip, features) in clips.iter().zip(&together) {
                // Copies, so that no two frames share an allocation.
                let copy = Clip {
                    frames: inverted(&inverted(clip)).frames,
                };
                let alone = model.probe(&[copy], &prompts, &HeadSelection::All).unwrap();
                equal_features(&alone, std::slice::from_ref(features));
            }
            assert!(largest_difference(&together[0].data, &together[2].data) > 1e-3);
        }
    }
}

/// A pass: of how many clips, which heads, and how many frames went through the vision tower.
type Pass = (usize, HeadSelection, u64);

/// Writes down what each pass does.
struct Watched {
    model: InternVl,
    passes: Arc<Mutex<Vec<Pass>>>,
}

impl HeadProbe for Watched {
    fn info(&self) -> &ProbeInfo {
        self.model.info()
    }

    fn probe(
        &self,
        clips: &[Clip],
        prompts: &[String],
        heads: &HeadSelection,
    ) -> Result<Vec<HeadFeatures>> {
        let before = self.model.frames_encoded();
        let features = self.model.probe(clips, prompts, heads);
        let encoded = self.model.frames_encoded() - before;
        let pass = (clips.len(), heads.clone(), encoded);
        self.passes.lock().unwrap().push(pass);
        features
    }

    fn fingerprint(&self, layers: usize) -> Result<String> {
        self.model.fingerprint(layers)
    }
}

#[tokio::test]
async fn a_pass_of_several_profiles_equals_separate_passes() {
    for (dir, tensors) in CASES {
        let (model, reference) = (load(&checkpoint_dir(dir)), Reference::read(tensors));
        let clip = reference.clip(model.info().image_side as u32);
        let (layers, heads) = (model.info().layers, model.info().heads);
        let id = |layer, head| HeadId { layer, head };
        let selections = [
            vec![id(0, 1)],
            vec![id(layers - 1, heads - 1), id(0, 1), id(1, 0)],
            vec![id(1, 1), id(0, 0)],
        ];
        let prompts = questions(2);
        let clips = [clip.clone(), inverted(&clip), clip];
        let separate: Vec<HeadFeatures> = clips
            .iter()
            .zip(&selections)
            .map(|(clip, heads)| {
                let only = HeadSelection::Only(heads.clone());
                let clips = std::slice::from_ref(clip);
                model.probe(clips, &prompts, &only).unwrap().remove(0)
            })
            .collect();
        let passes = Arc::new(Mutex::new(Vec::new()));
        let engine = Engine::start(
            Box::new(Watched {
                model,
                passes: passes.clone(),
            }),
            EngineConfig {
                warm_up: false,
                max_batch: clips.len(),
                // A full batch waits no longer.
                batch_wait: Duration::from_secs(60),
                ..EngineConfig::default()
            },
        )
        .unwrap();
        let handle = engine.handle();
        let mut tickets = Vec::new();
        for (clip, heads) in clips.iter().zip(&selections) {
            let job = Job {
                clip: clip.clone(),
                prompts: prompts.clone().into(),
                heads: HeadSelection::Only(heads.clone()),
                lane: Lane::Live,
                stream: handle.new_stream(),
                deadline: None,
                cancel: CancellationToken::new(),
                stages: None,
            };
            tickets.push(handle.submit(job).await.unwrap());
        }
        let mut together = Vec::new();
        for ticket in tickets {
            together.push(ticket.await.unwrap());
        }
        equal_features(&together, &separate);
        let mut union = selections.concat();
        union.sort_unstable();
        union.dedup();
        // The first and the last of the waiting segments share their frames.
        let frames = (clips[0].frames.len() + clips[1].frames.len()) as u64;
        let expected = [(clips.len(), HeadSelection::Only(union), frames)];
        assert_eq!(*passes.lock().unwrap(), expected);
    }
}

#[test]
fn a_frame_that_repeats_is_encoded_once_a_batch() {
    let model = load(&checkpoint_dir("tiny/hf"));
    let clip = Reference::read("model_tiny.safetensors").clip(model.info().image_side as u32);
    let frames = clip.frames.len() as u64;
    let run = |clips: &[Clip]| {
        let before = model.frames_encoded();
        model
            .probe(clips, &questions(2), &HeadSelection::All)
            .unwrap();
        model.frames_encoded() - before
    };
    assert_eq!(run(std::slice::from_ref(&clip)), frames);
    assert_eq!(run(&[clip.clone(), clip.clone()]), frames);
    // The last frame of one segment is the first one of the next.
    let mut next = inverted(&clip);
    next.frames[0] = clip.frames.last().unwrap().clone();
    assert_eq!(run(&[clip.clone(), next]), 2 * frames - 1);
    let mut still = clip.clone();
    still.frames.fill(clip.frames[0].clone());
    assert_eq!(run(&[still]), 1);
    // The same pixels in another place are not told apart from others: who makes clips shares them.
    assert_eq!(run(&[clip.clone(), inverted(&inverted(&clip))]), 2 * frames);
}

#[test]
fn sharded_and_renamed_files_load_like_the_single_one() {
    let dir = checkpoint_dir("tiny/hf");
    let reference = Reference::read("model_tiny.safetensors");
    let pixels = reference.f32("pixel_values");
    let run = |dir: &Path| {
        load(dir)
            .probe_tokens(&[&pixels], &[reference.ids()], &HeadSelection::All)
            .unwrap()
    };
    let expected = run(&dir);
    let tensors = read_tensors(&dir.join("model.safetensors"));

    let sharded = write_checkpoint(&dir, &tensors, 3);
    assert!(!sharded.path().join("model.safetensors").exists());
    assert_eq!(run(sharded.path()), expected);

    // The names of newer files.
    let renamed: Vec<Stored> = tensors
        .iter()
        .cloned()
        .map(|t| Stored {
            name: match t.name.strip_prefix("language_model.") {
                Some(rest) => match rest.strip_prefix("model.") {
                    Some(rest) => format!("model.language_model.{rest}"),
                    None => rest.to_owned(),
                },
                None => format!("model.{}", t.name),
            },
            ..t
        })
        .collect();
    assert!(renamed.iter().any(|t| t.name == "lm_head.weight"));
    let renamed = write_checkpoint(&dir, &renamed, 1);
    assert_eq!(run(renamed.path()), expected);
}

#[test]
fn half_precision_files_load() {
    let dir = checkpoint_dir("tiny/orig");
    let reference = Reference::read("model_tiny.safetensors");
    let pixels = reference.f32("pixel_values");
    for bf16 in [true, false] {
        let tensors: Vec<Stored> = read_tensors(&dir.join("model.safetensors"))
            .iter()
            .map(|t| t.to_half(bf16))
            .collect();
        let half = write_checkpoint(&dir, &tensors, 1);
        let features = load(half.path())
            .probe_tokens(&[&pixels], &[reference.ids()], &HeadSelection::All)
            .unwrap();
        let c = cosine(&features[0].data, &reference.f32("heads"));
        assert!(c > 0.999, "bf16 {bf16}: cosine {c}");
    }
}

#[test]
fn only_a_gpu_resizes() {
    let options = LoadOptions {
        resize_on_device: true,
        ..cpu(None)
    };
    let e = InternVl::load(&checkpoint_dir("tiny/hf"), &options)
        .err()
        .unwrap();
    assert_eq!(e.kind(), Kind::FailedPrecondition);
    assert!(e.message().contains("GPU"), "{e}");
}

#[test]
fn bad_requests_are_named() {
    let dir = checkpoint_dir("tiny/hf");
    let model = InternVl::load(&dir, &cpu(Some(2))).unwrap();
    let side = model.info().image_side;
    let clip = |bytes: usize, frames: usize| Clip {
        frames: vec![
            SharedImage {
                width: side as u32,
                height: side as u32,
                data: vec![7u8; bytes].into(),
            };
            frames
        ],
    };
    let good = clip(3 * side * side, 2);
    let only = |layer, head| HeadSelection::Only(vec![HeadId { layer, head }]);
    let probe = |clip: &Clip, prompts: &[String], heads: &HeadSelection| {
        model
            .probe(std::slice::from_ref(clip), prompts, heads)
            .map(|_| ())
    };
    let one = questions(1);
    probe(&good, &one, &only(1, 5)).unwrap();
    for (result, kind, words) in [
        (
            probe(&good, &one, &only(2, 0)),
            Kind::FailedPrecondition,
            "resident",
        ),
        (
            probe(&good, &one, &HeadSelection::All),
            Kind::FailedPrecondition,
            "resident",
        ),
        (
            probe(&good, &one, &only(0, 6)),
            Kind::InvalidArgument,
            "(0, 6)",
        ),
        (
            probe(&good, &one, &HeadSelection::Only(vec![])),
            Kind::InvalidArgument,
            "no heads",
        ),
        (
            probe(&clip(12, 2), &one, &only(0, 0)),
            Kind::InvalidArgument,
            "12 bytes",
        ),
        (
            probe(&clip(3 * side * side, 0), &one, &only(0, 0)),
            Kind::InvalidArgument,
            "no frames",
        ),
        (
            probe(&good, &[], &only(0, 0)),
            Kind::InvalidArgument,
            "0 prompts",
        ),
    ] {
        let e = result.unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
        assert!(e.message().contains(words), "{e}");
    }
    for layers in [0, 5] {
        let e = InternVl::load(&dir, &cpu(Some(layers))).err().unwrap();
        assert_eq!(e.kind(), Kind::InvalidArgument, "{e}");
    }
}

#[test]
fn a_prompt_longer_than_the_model_takes_is_refused() {
    let dir = checkpoint_dir("tiny/hf");
    let tensors = read_tensors(&dir.join("model.safetensors"));
    let small = write_checkpoint(&dir, &tensors, 1);
    edit_config(small.path(), |c| {
        c["text_config"]["max_position_embeddings"] = 80.into();
    });
    let model = load(small.path());
    let side = model.info().image_side;
    let clip = |frames| Clip {
        frames: vec![SharedImage::square(side as u32, vec![7u8; 3 * side * side]); frames],
    };
    let heads = HeadSelection::All;
    model.probe(&[clip(1)], &questions(1), &heads).unwrap();
    let e = model.probe(&[clip(4)], &questions(1), &heads).unwrap_err();
    assert_eq!(e.kind(), Kind::InvalidArgument);
    assert!(e.message().contains("80"), "{e}");
}

#[test]
fn features_that_overflow_are_an_error() {
    let dir = checkpoint_dir("tiny/hf");
    let mut tensors = read_tensors(&dir.join("model.safetensors"));
    let name = "language_model.model.layers.1.self_attn.v_proj.weight";
    let tensor = tensors.iter_mut().find(|t| t.name == name).unwrap();
    let huge: Vec<f32> = tensor.f32().iter().map(|v| v.signum() * 3e38).collect();
    tensor.bytes = huge.iter().flat_map(|v| v.to_le_bytes()).collect();
    let broken = write_checkpoint(&dir, &tensors, 1);
    let reference = Reference::read("model_tiny.safetensors");
    let e = load(broken.path())
        .probe_tokens(
            &[&reference.f32("pixel_values")],
            &[reference.ids()],
            &HeadSelection::All,
        )
        .unwrap_err();
    assert_eq!(e.kind(), Kind::DataLoss);
    assert!(e.message().contains("head (1, "), "{e}");
}
