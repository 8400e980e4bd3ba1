//! What hunting reads: head features of labelled samples, and the checks they must pass.

use rayon::prelude::*;

use super::samples::Layout;
use crate::error::{Error, Result};
use crate::head::HeadId;
use crate::limits;

/// Head features of samples under one or more prompts.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// Number of prompts.
    pub prompts: usize,
    /// Number of samples.
    pub samples: usize,
    /// Layers of the model.
    pub layers: usize,
    /// Heads per layer.
    pub heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// Row-major `[prompts, samples, layers, heads, head_dim]`.
    pub data: Vec<f32>,
}

impl Features {
    /// Numbers in one sample under one prompt.
    pub(super) fn sample_len(&self) -> usize {
        self.layers * self.heads * self.head_dim
    }

    /// The features of `heads` of one sample under one prompt, appended to `z`:
    /// `heads.len() * head_dim` numbers.
    ///
    /// # Errors
    /// `Internal` for a prompt, sample or head that is not there.
    pub fn gather(
        &self,
        prompt: usize,
        sample: usize,
        heads: &[HeadId],
        z: &mut Vec<f32>,
    ) -> Result<()> {
        let row = prompt * self.samples + sample;
        let inside = prompt < self.prompts && sample < self.samples;
        for id in heads {
            let at = ((row * self.layers + id.layer) * self.heads + id.head) * self.head_dim;
            let inside = inside && id.layer < self.layers && id.head < self.heads;
            let slice = self.data.get(at..at + self.head_dim).filter(|_| inside);
            z.extend_from_slice(slice.ok_or_else(|| {
                Error::internal(format!(
                    "no features of head ({}, {}) under prompt {prompt}",
                    id.layer, id.head
                ))
            })?);
        }
        Ok(())
    }

    /// The dimensions in the order of the data.
    pub fn shape(&self) -> [usize; 5] {
        [
            self.prompts,
            self.samples,
            self.layers,
            self.heads,
            self.head_dim,
        ]
    }
}

/// Refuses a shape with an empty, excessive or overflowing dimension; returns the count of numbers.
///
/// # Errors
/// `InvalidArgument` that names the dimension and its bound.
pub(super) fn check_shape(shape: [usize; 5]) -> Result<usize> {
    const NAMES: [&str; 5] = ["prompts", "samples", "layers", "heads", "head_dim"];
    const MOST: [usize; 5] = [
        limits::PROMPTS_MAX,
        limits::HUNT_SAMPLES_MAX,
        limits::HUNT_LAYERS_MAX,
        limits::HUNT_HEADS_MAX,
        limits::HUNT_HEAD_DIM_MAX,
    ];
    for ((name, most), size) in NAMES.into_iter().zip(MOST).zip(shape) {
        if size == 0 || size > most {
            return Err(Error::invalid(format!(
                "features have {size} {name} in shape {shape:?}; hunting takes 1 to {most}"
            )));
        }
    }
    shape
        .iter()
        .try_fold(1_usize, |product, &size| product.checked_mul(size))
        .filter(|&n| n <= limits::HUNT_FEATURES_MAX)
        .ok_or_else(|| {
            Error::invalid(format!(
                "features of shape {shape:?} hold more than {} numbers; hunt with fewer samples",
                limits::HUNT_FEATURES_MAX
            ))
        })
}

/// Checks everything that hunting relies on and puts the anomalous samples of `rows` (`None`: of all)
/// before the normal ones.
///
/// # Errors
/// `InvalidArgument` for a wrong shape or count, fewer than two samples of a class, or a number that
/// is not finite; it names the sample.
pub(super) fn check(
    features: &Features,
    labels: &[bool],
    names: Option<&[String]>,
    rows: Option<&[usize]>,
) -> Result<Layout> {
    let shape = features.shape();
    let len = check_shape(shape)?;
    if features.data.len() != len {
        return Err(Error::invalid(format!(
            "features of shape {shape:?} need {len} numbers and have {}",
            features.data.len()
        )));
    }
    for (what, count) in [
        ("labels", Some(labels.len())),
        ("sample names", names.map(<[_]>::len)),
    ] {
        if let Some(count) = count.filter(|&c| c != features.samples) {
            return Err(Error::invalid(format!(
                "there are {count} {what} for {} samples; give one per sample",
                features.samples
            )));
        }
    }
    let all: Vec<usize>;
    let rows = match rows {
        Some(rows) => rows,
        None => {
            all = (0..labels.len()).collect();
            &all
        }
    };
    if let Some(row) = rows.iter().find(|row| **row >= labels.len()) {
        return Err(Error::internal(format!(
            "sample {row} of {} is to be hunted on",
            labels.len()
        )));
    }
    let of_class = |class: bool| -> Vec<usize> {
        rows.iter()
            .copied()
            .filter(|&i| labels[i] == class)
            .collect()
    };
    let (anomalous, normal) = (of_class(true), of_class(false));
    for (class, of_class) in [("anomalous", &anomalous), ("normal", &normal)] {
        let found = match of_class.as_slice() {
            [] => "there is none".to_owned(),
            [only] => format!("there is only {}", sample_name(names, *only)),
            _ => continue,
        };
        return Err(Error::invalid(format!(
            "hunting needs at least 2 {class} samples, {found}; label more"
        )));
    }
    finite(features, names)?;
    Ok(Layout {
        anomalous: anomalous.len(),
        order: anomalous.into_iter().chain(normal).collect(),
        dim: features.head_dim,
    })
}

/// Refuses NaN and infinity.
fn finite(features: &Features, names: Option<&[String]>) -> Result<()> {
    let len = features.sample_len();
    let bad = features
        .data
        .par_chunks(len)
        .enumerate()
        .find_first(|(_, sample)| {
            // A sum without branches: any NaN or infinity times zero is NaN.
            let zero: f32 = sample.iter().map(|x| x * 0.0).sum();
            zero != 0.0
        });
    let Some((row, sample)) = bad else {
        return Ok(());
    };
    let at = sample.iter().position(|x| !x.is_finite()).unwrap_or(0);
    let (head, component) = (at / features.head_dim, at % features.head_dim);
    Err(Error::invalid(format!(
        "{} has the feature {} in component {component} of layer {}, head {} under prompt {}; extract it again or leave the sample out",
        sample_name(names, row % features.samples),
        sample[at],
        head / features.heads,
        head % features.heads,
        row / features.samples,
    )))
}

/// How messages call a sample.
fn sample_name(names: Option<&[String]>, sample: usize) -> String {
    match names.and_then(|names| names.get(sample)) {
        Some(name) => format!("sample {sample} ({name})"),
        None => format!("sample {sample}"),
    }
}
