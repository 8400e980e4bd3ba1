//! HUNT: saliency metrics, robust ranking, fitting and calibration; pure maths over
//! (features, labels).
//!
//! Per prompt and head four metrics tell how well the head separates anomalous from normal samples:
//! Fisher's criterion (LDA), the symmetric divergence of shrunk Gaussians (KL), the maximum mean
//! discrepancy (MMD²) and the agreement of two clusters with the labels (NMI). Each is scaled to 0..1
//! over all heads; their mean is the head's saliency. Over prompts the robust score is
//! mean − λ · standard deviation, and the K best are the expert heads (HeadHunt-VAD, §3.2).

pub mod calibrate;
pub mod choose_k;
mod eigen;
mod features;
pub mod file;
pub mod folds;
mod kl;
mod kmeans;
mod lda;
mod linalg;
mod mmd;
mod nmi;
pub mod normal;
pub mod normality;
pub mod random;
mod rank;
pub mod rate;
mod samples;
mod simd;
mod spectrum;
pub mod split;
#[cfg(test)]
mod tests;

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use rayon::prelude::*;

pub use features::Features;

use crate::{
    error::{Error, Result},
    head::HeadId,
};
use samples::{Layout, Scratch};
use simd::{Isa, Task};

/// Heads that a worker measures between two calls of the progress function.
const HEADS_PER_STEP: usize = 8;

/// What a hunt may be asked.
#[derive(Clone, Debug, PartialEq)]
pub struct HuntOptions {
    /// How many expert heads to choose (K).
    pub top_k: usize,
    /// Weight of the standard deviation over prompts (λ ≥ 0).
    pub lambda: f64,
}

impl Default for HuntOptions {
    fn default() -> Self {
        HuntOptions {
            top_k: 5,
            lambda: 0.5,
        }
    }
}

/// What a hunt found. All numbers are finite.
#[derive(Clone, Debug, PartialEq)]
pub struct HuntResult {
    /// Number of prompts.
    pub prompts: usize,
    /// Layers of the model.
    pub layers: usize,
    /// Heads per layer.
    pub heads: usize,
    /// The K best heads, best first.
    pub expert_heads: Vec<HeadId>,
    /// Fisher's criterion, `[prompts, layers, heads]`.
    pub lda: Vec<f64>,
    /// Symmetric Gaussian divergence, nats, 0 to 1e6, `[prompts, layers, heads]`.
    pub kl: Vec<f64>,
    /// Squared maximum mean discrepancy, `[prompts, layers, heads]`.
    pub mmd: Vec<f64>,
    /// Normalised mutual information of clusters and labels, 0 to 1, `[prompts, layers, heads]`.
    pub nmi: Vec<f64>,
    /// Mean of the four scaled metrics, 0 to 1, `[prompts, layers, heads]`.
    pub saliency: Vec<f64>,
    /// mean − λ · std, `[layers, heads]`.
    pub rss: Vec<f64>,
    /// Mean saliency over prompts, `[layers, heads]`.
    pub mean: Vec<f64>,
    /// Standard deviation of the saliency over prompts (ddof 0), `[layers, heads]`.
    pub std: Vec<f64>,
    /// What a reader should know about these numbers, in plain sentences.
    pub notes: Vec<String>,
}

/// The four metrics of one head under one prompt.
#[derive(Clone, Copy, Default)]
struct Metrics {
    lda: f64,
    kl: f64,
    mmd: f64,
    nmi: f64,
    lda_truncated: bool,
    kl_singular: bool,
}

/// Measures all heads and chooses the expert heads.
///
/// `labels` are true for anomalous samples; `sample_names` are used in messages. `progress` is told
/// (heads measured so far, heads in all), each head counted once per prompt; it is called from
/// several threads, and calls may overtake each other. The result does not depend on how many
/// threads there are.
///
/// # Errors
/// `InvalidArgument` if the shape, the labels, the features or the options cannot be used; the
/// message names the sample.
pub fn hunt(
    features: &Features,
    labels: &[bool],
    sample_names: Option<&[String]>,
    options: &HuntOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<HuntResult> {
    let samples = Samples {
        features,
        labels,
        names: sample_names,
        rows: None,
    };
    hunt_samples(&samples, options, &|| false, progress)
}

/// Labelled samples, or some of them.
#[derive(Clone, Copy)]
pub struct Samples<'a> {
    /// Of all samples.
    pub features: &'a Features,
    /// Of all samples, true for anomalous ones.
    pub labels: &'a [bool],
    /// Of all samples, for messages.
    pub names: Option<&'a [String]>,
    /// Which samples are looked at, ascending; `None`: all.
    pub rows: Option<&'a [usize]>,
}

/// [`hunt`] on some of the samples; `stop` is asked between heads.
///
/// # Errors
/// As [`hunt`], and `Cancelled` once `stop` says so.
pub fn hunt_samples(
    samples: &Samples<'_>,
    options: &HuntOptions,
    stop: &(dyn Fn() -> bool + Sync),
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<HuntResult> {
    let features = samples.features;
    let layout = features::check(features, samples.labels, samples.names, samples.rows)?;
    let heads = features.layers * features.heads;
    if options.top_k == 0 || options.top_k > heads {
        return Err(Error::invalid(format!(
            "top_k is {}; the features have {heads} heads, so give 1 to {heads}",
            options.top_k
        ))
        .with_field("top_k"));
    }
    if !(options.lambda >= 0.0 && options.lambda.is_finite()) {
        return Err(Error::invalid(format!(
            "lambda is {}; give a number of at least 0",
            options.lambda
        ))
        .with_field("lambda"));
    }
    let metrics = measure_all(features, &layout, stop, progress)?;
    let column = |f: fn(&Metrics) -> f64| -> Vec<f64> { metrics.iter().map(f).collect() };
    let raw = [
        ("lda", column(|m| m.lda)),
        ("kl", column(|m| m.kl)),
        ("mmd", column(|m| m.mmd)),
        ("nmi", column(|m| m.nmi)),
    ];
    let mut notes = notes(features, &layout, &metrics);
    let mut saliency = vec![0.0; metrics.len()];
    for prompt in 0..features.prompts {
        let range = prompt * heads..(prompt + 1) * heads;
        for (name, values) in &raw {
            let mut scaled = values[range.clone()].to_vec();
            if !rank::min_max(&mut scaled) && heads > 1 {
                notes.push(format!(
                    "{name} is the same for all heads under prompt {prompt}, so it counts as 0 there"
                ));
            }
            for (sum, x) in saliency[range.clone()].iter_mut().zip(scaled) {
                *sum += x;
            }
        }
    }
    for x in &mut saliency {
        *x /= raw.len() as f64;
    }
    let rank::Robust { mean, std, rss } = rank::robust(&saliency, heads, options.lambda);
    if rss.iter().any(|x| !x.is_finite()) {
        return Err(Error::invalid(format!(
            "scores overflow with lambda {}; give a smaller one",
            options.lambda
        ))
        .with_field("lambda"));
    }
    let [lda, kl, mmd, nmi] = raw.map(|(_, values)| values);
    Ok(HuntResult {
        prompts: features.prompts,
        layers: features.layers,
        heads: features.heads,
        expert_heads: rank::top(&rss, features.heads, options.top_k),
        lda,
        kl,
        mmd,
        nmi,
        saliency,
        rss,
        mean,
        std,
        notes,
    })
}

/// Metrics of every head, `[prompts, layers, heads]`.
fn measure_all(
    features: &Features,
    layout: &Layout,
    stop: &(dyn Fn() -> bool + Sync),
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Vec<Metrics>> {
    let heads = features.layers * features.heads;
    let total = features.prompts * heads;
    let done = AtomicUsize::new(0);
    // As many as there are workers; a head allocates nothing.
    let pool: Mutex<Vec<Scratch>> = Mutex::new(Vec::new());
    let lock = || pool.lock().unwrap_or_else(PoisonError::into_inner);
    let mut metrics = vec![Metrics::default(); total];
    metrics
        .par_chunks_mut(HEADS_PER_STEP)
        .enumerate()
        .try_for_each(|(step, chunk)| {
            if stop() {
                return Err(stopped());
            }
            let idle = lock().pop();
            let mut scratch = idle.unwrap_or_else(|| Scratch::new(layout));
            for (i, metrics) in chunk.iter_mut().enumerate() {
                let index = step * HEADS_PER_STEP + i;
                *metrics = simd::dispatch(Measure {
                    source: Source::new(features, index / heads, index % heads),
                    layout,
                    scratch: &mut scratch,
                })
                .map_err(|e| e.context(describe(features, index)))?;
            }
            lock().push(scratch);
            progress(
                done.fetch_add(chunk.len(), Ordering::Relaxed) + chunk.len(),
                total,
            );
            Ok(())
        })?;
    Ok(metrics)
}

/// What work that was asked to stop ends with.
pub fn stopped() -> Error {
    Error::cancelled("hunting was asked to stop")
}

/// How messages call a head under a prompt.
fn describe(features: &Features, index: usize) -> String {
    let head = index % (features.layers * features.heads);
    format!(
        "layer {}, head {} under prompt {}",
        head / features.heads,
        head % features.heads,
        index / (features.layers * features.heads)
    )
}

/// Where one head's samples lie.
#[derive(Clone, Copy)]
struct Source<'a> {
    /// Begins with the head's first sample.
    data: &'a [f32],
    /// From one sample to the next.
    step: usize,
}

impl<'a> Source<'a> {
    fn new(features: &'a Features, prompt: usize, head: usize) -> Self {
        let step = features.sample_len();
        Source {
            data: &features.data[prompt * features.samples * step + head * features.head_dim..],
            step,
        }
    }
}

/// One head under one prompt.
struct Measure<'a> {
    source: Source<'a>,
    layout: &'a Layout,
    scratch: &'a mut Scratch,
}

impl Task for Measure<'_> {
    type Output = Result<Metrics>;

    #[inline(always)]
    fn run<T: Isa>(self) -> Result<Metrics> {
        let Measure {
            source,
            layout,
            scratch,
        } = self;
        scratch.fill::<T>(layout, source.data, source.step);
        let mmd = mmd::mmd::<T>(layout, scratch);
        kmeans::kmeans::<T>(layout, scratch);
        let nmi = nmi::nmi(&scratch.labels, layout.anomalous);
        class_scatters::<T>(layout, scratch);
        let lda = lda::lda::<T>(layout, scratch)?;
        let kl = kl::kl::<T>(layout, scratch);
        let metrics = Metrics {
            lda: lda.value,
            kl: kl.value,
            mmd,
            nmi,
            lda_truncated: lda.truncated,
            kl_singular: kl.singular,
        };
        if [lda.value, kl.value, mmd, nmi]
            .iter()
            .any(|x| !x.is_finite())
        {
            return Err(Error::internal(format!(
                "metrics are not finite: lda {}, kl {}, mmd {mmd}, nmi {nmi}",
                lda.value, kl.value
            )));
        }
        Ok(metrics)
    }
}

/// Scatter of each class about its mean, into the first two matrices (upper triangles).
#[inline(always)]
fn class_scatters<T: Isa>(layout: &Layout, scratch: &mut Scratch) {
    let (n, st) = (simd::padded(layout.dim), simd::stride(layout.dim));
    let (anomalous, normal) = scratch.within.split_at(layout.anomalous * st);
    let [a, b, _] = &mut scratch.matrices;
    linalg::scatter::<T>(a, anomalous, n, st, layout.anomalous);
    linalg::scatter::<T>(b, normal, n, st, layout.samples() - layout.anomalous);
}

/// What the reader of a result should know.
fn notes(features: &Features, layout: &Layout, metrics: &[Metrics]) -> Vec<String> {
    let mut notes = Vec::new();
    if features.head_dim >= layout.samples() {
        notes.push(format!(
            "{} samples for {} numbers per head: LDA then grows with the scale of a head's features, so heads with large features rank higher in it; more samples than numbers remove this",
            layout.samples(),
            features.head_dim
        ));
    }
    for (class, n) in [
        ("anomalous", layout.anomalous),
        ("normal", layout.samples() - layout.anomalous),
    ] {
        if n < 10 {
            notes.push(format!(
                "only {n} {class} samples: the ranking can change with each further one"
            ));
        }
    }
    let truncated = metrics.iter().filter(|m| m.lda_truncated).count();
    if truncated > 0 {
        notes.push(format!(
            "LDA of {truncated} of {} heads leaves out directions in which the samples of a class do not differ, because the features are too large for its ridge of 1e-6",
            metrics.len()
        ));
    }
    let singular = metrics.iter().filter(|m| m.kl_singular).count();
    if singular > 0 {
        notes.push(format!(
            "KL of {singular} of {} heads is set to its bound of 1e6, because the covariance of a class is singular to working precision",
            metrics.len()
        ));
    }
    notes
}

/// How k-means divides the samples of one head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clusters {
    /// Sample numbers in the order that the other fields use: anomalous first, then normal.
    pub order: Vec<usize>,
    /// Positions in `order` of the two samples that the centres started from.
    pub start: [usize; 2],
    /// Cluster (0 or 1) of each sample, in that order.
    pub labels: Vec<u8>,
}

/// The clusters behind the NMI of one head under one prompt.
///
/// # Errors
/// As [`hunt`]; a head or prompt that the features lack is `InvalidArgument`.
pub fn clusters(
    features: &Features,
    labels: &[bool],
    prompt: usize,
    head: HeadId,
) -> Result<Clusters> {
    struct Cluster<'a>(Measure<'a>);
    impl Task for Cluster<'_> {
        type Output = [usize; 2];
        #[inline(always)]
        fn run<T: Isa>(self) -> [usize; 2] {
            let Measure {
                source,
                layout,
                scratch,
            } = self.0;
            scratch.fill::<T>(layout, source.data, source.step);
            kmeans::kmeans::<T>(layout, scratch)
        }
    }
    let layout = features::check(features, labels, None, None)?;
    if prompt >= features.prompts || head.layer >= features.layers || head.head >= features.heads {
        return Err(Error::invalid(format!(
            "no layer {}, head {} under prompt {prompt} in features of shape {:?}",
            head.layer,
            head.head,
            features.shape()
        )));
    }
    let mut scratch = Scratch::new(&layout);
    let start = simd::dispatch(Cluster(Measure {
        source: Source::new(features, prompt, head.layer * features.heads + head.head),
        layout: &layout,
        scratch: &mut scratch,
    }));
    Ok(Clusters {
        order: layout.order,
        start,
        labels: scratch.labels,
    })
}
