//! Which random numbers a preset's tensors get.

use serde_json::Value;

use super::{
    fill::Init,
    preset::Preset,
    write::{Part, TensorPlan},
};
use crate::{
    error::Result,
    model::{
        config::{Layout, ModelConfig},
        layout::{Naming, TensorSpec, all_tensors, stored},
    },
};

/// What the tokenizer's merges are trained on: the text around the pictures, and words that
/// prompts about surveillance use.
pub(super) const CORPUS: &str = include_str!("corpus.txt");

/// Every tensor of the checkpoint that `config` (the JSON to be written) describes, in the order
/// in which it is written.
pub(super) fn plan(config: &Value, preset: Preset) -> Result<Vec<TensorPlan>> {
    let (config, layout) = ModelConfig::parse(&config.to_string())?;
    let naming = match layout {
        Layout::Hf => Naming::Hf,
        Layout::Original => Naming::Original,
    };
    let mut plans: Vec<TensorPlan> = vec![];
    for spec in all_tensors(&config) {
        let place = stored(&spec, naming);
        let part = Part {
            values: spec.shape.iter().product(),
            init: recipe(preset, &spec),
            name: spec.name,
        };
        // The parts of a combined tensor follow each other, first row first.
        match plans.last_mut().filter(|plan| plan.name == place.name) {
            Some(plan) => plan.parts.push(part),
            None => plans.push(TensorPlan {
                name: place.name,
                shape: place.shape,
                parts: vec![part],
            }),
        }
    }
    Ok(plans)
}

fn normal(std: f32) -> Init {
    Init::Normal { mean: 0.0, std }
}

fn around(mean: f32, std: f32) -> Init {
    Init::Normal { mean, std }
}

fn recipe(preset: Preset, spec: &TensorSpec) -> Init {
    match preset {
        Preset::Tiny => tiny(spec),
        Preset::Demo => demo(spec),
        _ => published_shape(spec),
    }
}

/// What follows `vision.layers.N.` or `text.layers.N.`, or the whole name.
fn part(spec: &TensorSpec) -> (&str, &str) {
    let (room, rest) = spec.name.split_once('.').unwrap_or(("", &spec.name));
    match rest.strip_prefix("layers.").and_then(|r| r.split_once('.')) {
        Some((_, part)) => (room, part),
        None => (room, rest),
    }
}

/// 1 / sqrt(inputs): an output of the size of its inputs.
fn unit_gain(spec: &TensorSpec) -> f32 {
    let inputs: usize = spec.shape.iter().skip(1).product();
    1.0 / (inputs.max(1) as f32).sqrt()
}

fn is_norm(part: &str) -> bool {
    part.split('.')
        .any(|name| matches!(name, "norm" | "norm1" | "norm2" | "q_norm" | "k_norm"))
}

/// As transformers initialises: 0.02 everywhere, norms at 1 and 0, layer scale at 0.1.
fn published_shape(spec: &TensorSpec) -> Init {
    match part(spec) {
        (_, "ls1" | "ls2") => around(0.1, 0.02),
        (_, part) if is_norm(part) => {
            Init::Constant(if part.ends_with("bias") { 0.0 } else { 1.0 })
        }
        _ => normal(0.02),
    }
}

/// Large enough everywhere that a wrong bias, scale or norm shows in the results.
fn tiny(spec: &TensorSpec) -> Init {
    match part(spec) {
        (_, "ls1" | "ls2") => around(0.35, 0.1),
        (_, part) if is_norm(part) && part.ends_with("weight") => around(1.0, 0.15),
        ("text", "attn.q.bias" | "attn.k.bias") => normal(0.45),
        (_, part) if part.ends_with("bias") => normal(0.1),
        (_, "cls" | "position") => normal(0.3),
        ("text", "embed.weight") => normal(0.5),
        (_, "attn.q.weight" | "attn.k.weight") => normal(1.6 * unit_gain(spec)),
        _ => normal(unit_gain(spec)),
    }
}

/// Scales chosen so that some random heads still tell what they look at.
fn demo(spec: &TensorSpec) -> Init {
    let gain = |g: f32| normal(g * unit_gain(spec));
    match part(spec) {
        (_, part) if is_norm(part) => {
            Init::Constant(if part.ends_with("bias") { 0.0 } else { 1.0 })
        }
        ("vision", "ls1" | "ls2") => around(0.5, 0.05),
        ("vision", "cls" | "position") => normal(0.3),
        // Attention scores with a standard deviation of about 6 in the language model: a head picks
        // out a few tokens, and heads differ in what they pick, as trained ones do. With scores of
        // about 1 every head averages the whole picture, and the background drowns a small event.
        ("vision", "attn.q.weight" | "attn.k.weight") => gain(1.6),
        (_, "attn.q.weight" | "attn.k.weight") => gain(2.5),
        ("text", "embed.weight") => normal(1.0),
        // Not normalised after it: the feature itself. Large, so that the scorer's penalty is small.
        ("text", "attn.v.weight") => gain(2.0),
        // Takes the factor back and keeps the residual stream from growing.
        ("text", "attn.o.weight") => gain(0.35),
        ("text", "mlp.down.weight") => gain(0.7),
        (_, part) if part.ends_with("bias") => normal(0.05),
        _ => gain(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Dtype, preset};
    use super::*;

    #[test]
    fn both_layouts_hold_the_same_logical_tensors_once() {
        for preset in Preset::ALL {
            let mut seen = vec![];
            for layout in [Layout::Hf, Layout::Original] {
                let config = preset::config_json(&preset.shape(), layout, Dtype::F32);
                let plans = plan(&config, preset).unwrap();
                let mut names: Vec<String> = vec![];
                for plan in &plans {
                    let values: usize = plan.parts.iter().map(|p| p.values).sum();
                    assert_eq!(values, plan.values(), "{}", plan.name);
                    names.extend(plan.parts.iter().map(|p| p.name.clone()));
                }
                names.sort();
                let count = names.len();
                names.dedup();
                assert_eq!(names.len(), count);
                seen.push(names);
            }
            assert_eq!(seen[0], seen[1]);
        }
    }
}
