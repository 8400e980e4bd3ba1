//! Ranks heads by what normal footage alone can tell.
//!
//! Without anomalies nobody can know which head answers to them. Two things can be known of a head that
//! is to be trusted with a distance from normality:
//! - **Steadiness**: whether it sees the same differences between samples whatever the question. It is
//!   the mean RV coefficient of its samples' Gram matrix under one prompt with that under each other
//!   prompt, 0 to 1. A head that rearranges the samples with the wording would call another footage
//!   abnormal with each wording. With one prompt it is not measured.
//! - **Structure**: how much better a Gaussian with Ledoit-Wolf covariance describes normal videos that it
//!   has not seen than one with a single variance does, in nats per number. Videos are divided into
//!   halves, and each half is described by the fit to the other. It is large where normal footage keeps
//!   to few directions, and keeps to the same ones in videos of other times: all other directions are
//!   then free to show what is not normal.
//!
//! Each is scaled to 0..1 over all heads under each prompt, and their mean is the head's saliency there;
//! mean − λ · standard deviation over prompts is the score, as in hunting. It says nothing of
//! anomalies, and where some are labelled, hunting with them is better.

use std::sync::atomic::{AtomicUsize, Ordering};

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{
    Features, HuntOptions,
    kl::covariance,
    linalg::{cholesky, dot, norm2, scatter, solve_forward},
    rank,
    simd::{self, Isa, Task, padded, stride},
    stopped,
};
use crate::{
    error::{Error, Result},
    head::HeadId,
    limits::NORMAL_RANKING_SAMPLES_MAX,
};

/// What a ranking by normal footage found. All numbers are finite.
#[derive(Clone, Debug, PartialEq)]
pub struct NormalHunt {
    /// Number of prompts.
    pub prompts: usize,
    /// Layers of the model.
    pub layers: usize,
    /// Heads per layer.
    pub heads: usize,
    /// The K best heads, best first.
    pub expert_heads: Vec<HeadId>,
    /// Mean RV coefficient with the other prompts, 0 to 1, `[prompts, layers, heads]`; empty with one
    /// prompt.
    pub steadiness: Vec<f64>,
    /// Held-out gain of the shrunk Gaussian, nats per number, `[prompts, layers, heads]`.
    pub structure: Vec<f64>,
    /// Mean of the scaled two, 0 to 1, `[prompts, layers, heads]`.
    pub saliency: Vec<f64>,
    /// mean − λ · std, `[layers, heads]`.
    pub rss: Vec<f64>,
    /// Mean saliency over prompts, `[layers, heads]`.
    pub mean: Vec<f64>,
    /// Standard deviation over prompts (ddof 0), `[layers, heads]`.
    pub std: Vec<f64>,
    /// What a reader should know about these numbers.
    pub notes: Vec<String>,
}

/// Ranks all heads on `rows`, all normal, of at least two videos (`groups`, of all samples); `seed`
/// divides the videos into halves. `progress` is told heads measured and in all.
///
/// # Errors
/// `InvalidArgument` for too few samples or videos, a K or λ that cannot be, or a feature that is not
/// finite; `Cancelled` once `stop` says so.
pub fn rank_heads(
    features: &Features,
    rows: &[usize],
    groups: &[usize],
    options: &HuntOptions,
    seed: u64,
    stop: &(dyn Fn() -> bool + Sync),
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<NormalHunt> {
    let heads = features.layers * features.heads;
    if options.top_k == 0 || options.top_k > heads {
        return Err(Error::invalid(format!(
            "top_k is {}; the features have {heads} heads, so give 1 to {heads}",
            options.top_k
        ))
        .with_field("top_k"));
    }
    let plan = Plan::new(features, rows, groups, seed)?;
    let done = AtomicUsize::new(0);
    let measured: Vec<Vec<Measured>> = (0..heads)
        .into_par_iter()
        .map(|head| {
            if stop() {
                return Err(stopped());
            }
            let found = simd::dispatch(MeasureHead {
                features,
                plan: &plan,
                head,
            })?;
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, heads);
            Ok(found)
        })
        .collect::<Result<_>>()?;
    // [heads][prompts] to [prompts, heads].
    let column = |f: fn(&Measured) -> f64| -> Vec<f64> {
        (0..features.prompts)
            .flat_map(|prompt| measured.iter().map(move |found| f(&found[prompt])))
            .collect()
    };
    let structure = column(|m| m.structure);
    let steadiness = if features.prompts > 1 {
        column(|m| m.steadiness)
    } else {
        Vec::new()
    };
    let mut notes = plan.notes.clone();
    if features.prompts == 1 {
        notes.push(
            "with one prompt it cannot be told how steady heads are over wordings: they are ranked by structure alone".into(),
        );
    }
    let parts: Vec<&Vec<f64>> = [&steadiness, &structure]
        .into_iter()
        .filter(|values| !values.is_empty())
        .collect();
    let mut saliency = vec![0.0; structure.len()];
    for values in &parts {
        for (at, prompt) in values.chunks_exact(heads).enumerate() {
            let mut scaled = prompt.to_vec();
            rank::min_max(&mut scaled);
            for (sum, x) in saliency[at * heads..].iter_mut().zip(scaled) {
                *sum += x / parts.len() as f64;
            }
        }
    }
    let rank::Robust { mean, std, rss } = rank::robust(&saliency, heads, options.lambda);
    if rss.iter().any(|x| !x.is_finite()) {
        return Err(Error::invalid(format!(
            "scores are not finite with lambda {}; give a smaller one",
            options.lambda
        ))
        .with_field("lambda"));
    }
    Ok(NormalHunt {
        prompts: features.prompts,
        layers: features.layers,
        heads: features.heads,
        expert_heads: rank::top(&rss, features.heads, options.top_k),
        steadiness,
        structure,
        saliency,
        rss,
        mean,
        std,
        notes,
    })
}

/// Which samples are looked at, the first half of the videos before the second.
struct Plan {
    rows: Vec<usize>,
    first_half: usize,
    notes: Vec<String>,
}

impl Plan {
    fn new(features: &Features, rows: &[usize], groups: &[usize], seed: u64) -> Result<Plan> {
        let mut notes = Vec::new();
        let mut rows = rows.to_vec();
        if rows.len() > NORMAL_RANKING_SAMPLES_MAX {
            notes.push(format!(
                "heads are ranked on {NORMAL_RANKING_SAMPLES_MAX} of {} normal samples, taken evenly",
                rows.len()
            ));
            let n = rows.len();
            rows = (0..NORMAL_RANKING_SAMPLES_MAX)
                .map(|i| rows[i * n / NORMAL_RANKING_SAMPLES_MAX])
                .collect();
        }
        let mut videos: Vec<usize> = rows.iter().map(|&i| groups[i]).collect();
        videos.sort_unstable();
        videos.dedup();
        if videos.len() < 2 {
            return Err(Error::invalid(format!(
                "normal samples of {} video: what is normal is checked on videos that a fit has not seen, so at least 2 are needed",
                videos.len()
            )));
        }
        videos.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let first = &videos[..videos.len() / 2];
        let (mut in_first, in_second): (Vec<usize>, Vec<usize>) =
            rows.iter().partition(|&&i| first.contains(&groups[i]));
        for half in [&in_first, &in_second] {
            if half.len() < 2 {
                return Err(Error::invalid(
                    "a half of the normal videos has fewer than 2 samples: use more or longer clips",
                ));
            }
        }
        for &row in &rows {
            for prompt in 0..features.prompts {
                let len = features.sample_len();
                let at = (prompt * features.samples + row) * len;
                let sample = features.data.get(at..at + len).ok_or_else(|| {
                    Error::internal(format!("there is no sample {row} to rank heads by"))
                })?;
                if let Some(at) = sample.iter().position(|v| !v.is_finite()) {
                    return Err(Error::invalid(format!(
                        "sample {row} has the feature {} at {at} under prompt {prompt}; extract it again or leave the sample out",
                        sample[at]
                    )));
                }
            }
        }
        if rows.len() < features.head_dim {
            notes.push(format!(
                "{} normal samples for {} numbers per head: the ranking can change with further ones",
                rows.len(),
                features.head_dim
            ));
        }
        let first_half = in_first.len();
        in_first.extend(in_second);
        Ok(Plan {
            rows: in_first,
            first_half,
            notes,
        })
    }
}

/// One head under one prompt.
#[derive(Clone, Copy, Default)]
struct Measured {
    steadiness: f64,
    structure: f64,
}

struct MeasureHead<'a> {
    features: &'a Features,
    plan: &'a Plan,
    head: usize,
}

impl Task for MeasureHead<'_> {
    type Output = Result<Vec<Measured>>;

    #[inline(always)]
    fn run<T: Isa>(self) -> Result<Vec<Measured>> {
        let MeasureHead {
            features,
            plan,
            head,
        } = self;
        let (n, d, prompts) = (plan.rows.len(), features.head_dim, features.prompts);
        let mut found = vec![Measured::default(); prompts];
        let mut grams: Vec<Vec<f64>> = Vec::with_capacity(prompts);
        for (prompt, found) in found.iter_mut().enumerate() {
            let x = samples(features, plan, prompt, head);
            let (first, second) = x.split_at(plan.first_half * d);
            let gain = gain::<T>(first, second, d) + gain::<T>(second, first, d);
            if !gain.is_finite() {
                return Err(Error::internal(format!(
                    "head {head} has no finite likelihood under prompt {prompt}"
                )));
            }
            found.structure = gain / (n * d) as f64;
            if prompts > 1 {
                grams.push(gram::<T>(&x, n, d));
            }
        }
        // Upper triangles, the diagonal halved beforehand: half of each inner product.
        for a in 0..grams.len() {
            for b in 0..a {
                let scale = (norm2::<T>(&grams[a]) * norm2::<T>(&grams[b])).sqrt();
                let rv = if scale > 0.0 {
                    dot::<T>(&grams[a], &grams[b]) / scale
                } else {
                    0.0
                };
                for at in [a, b] {
                    found[at].steadiness += rv / (prompts - 1) as f64;
                }
            }
        }
        Ok(found)
    }
}

/// A head's samples in the plan's order, `[rows, head_dim]`.
fn samples(features: &Features, plan: &Plan, prompt: usize, head: usize) -> Vec<f64> {
    let d = features.head_dim;
    plan.rows
        .iter()
        .flat_map(|&row| {
            let at = (prompt * features.samples + row) * features.sample_len() + head * d;
            features.data[at..at + d].iter().map(|v| f64::from(*v))
        })
        .collect()
}

fn mean(rows: &[f64], d: usize) -> Vec<f64> {
    let mut mean = vec![0.0; d];
    for row in rows.chunks_exact(d) {
        for (sum, x) in mean.iter_mut().zip(row) {
            *sum += x;
        }
    }
    let n = (rows.len() / d) as f64;
    mean.iter_mut().for_each(|m| *m /= n);
    mean
}

/// Upper triangle of the Gram matrix of the centred samples, packed; the diagonal by √½, so that
/// products of two packed triangles are half of those of the whole matrices.
#[inline(always)]
fn gram<T: Isa>(x: &[f64], n: usize, d: usize) -> Vec<f64> {
    let (mean, st) = (mean(x, d), stride(n));
    // [d][stride(n)]: a scatter over numbers is the product of all pairs of samples.
    let mut columns = vec![0.0; d * st];
    for (i, row) in x.chunks_exact(d).enumerate() {
        for (j, (x, m)) in row.iter().zip(&mean).enumerate() {
            columns[j * st + i] = x - m;
        }
    }
    let mut whole = vec![0.0; padded(n) * st];
    scatter::<T>(&mut whole, &columns, padded(n), st, d);
    let mut packed = Vec::with_capacity(n * (n + 1) / 2);
    for i in 0..n {
        packed.push(whole[i * st + i] * std::f64::consts::FRAC_1_SQRT_2);
        packed.extend_from_slice(&whole[i * st + i + 1..i * st + n]);
    }
    packed
}

/// Log-likelihood of `unseen` under the shrunk Gaussian fitted to `seen`, minus that under the one of a
/// single variance; nats. 0 where the seen samples do not differ.
#[inline(always)]
fn gain<T: Isa>(seen: &[f64], unseen: &[f64], d: usize) -> f64 {
    let (mean, n, st) = (mean(seen, d), padded(d), stride(d));
    let count = seen.len() / d;
    let mut centred = vec![0.0; count * st];
    for (row, x) in centred.chunks_exact_mut(st).zip(seen.chunks_exact(d)) {
        for (to, (x, m)) in row.iter_mut().zip(x.iter().zip(&mean)) {
            *to = x - m;
        }
    }
    let norms: Vec<f64> = centred
        .chunks_exact(st)
        .map(|row| norm2::<T>(row))
        .collect();
    let variance = norms.iter().sum::<f64>() / (count * d) as f64;
    if variance <= 0.0 {
        return 0.0;
    }
    let mut factor = vec![0.0; n * st];
    scatter::<T>(&mut factor, &centred, n, st, count);
    covariance::<T>(&mut factor, &norms, d);
    if cholesky::<T>(&mut factor, n, st).is_none() {
        return 0.0;
    }
    let log_det: f64 = (0..d).map(|i| 2.0 * factor[i * st + i].ln()).sum();
    let flat_log_det = d as f64 * variance.ln();
    let mut sum = 0.0;
    let mut y = vec![0.0; n];
    for row in unseen.chunks_exact(d) {
        y.fill(0.0);
        for (to, (x, m)) in y.iter_mut().zip(row.iter().zip(&mean)) {
            *to = x - m;
        }
        let flat = norm2::<T>(&y) / variance;
        solve_forward::<T>(&factor, &mut y, n, st);
        sum += 0.5 * (flat + flat_log_det - norm2::<T>(&y) - log_det);
    }
    sum
}

#[cfg(test)]
mod tests;
