//! What randomly drawn heads would have scored: the yardstick beside the hunted ones.

use rand::{SeedableRng, seq::index};
use rand_chacha::ChaCha8Rng;

use crate::{
    error::{Error, Result},
    eval::metrics::{average_precision, roc_auc},
    head::HeadId,
    pipeline::samples::SampleSet,
    profile::LocatorParams,
    score::{
        locate::smooth_runs,
        logistic::{FitOptions, Logistic},
    },
};

/// Frame-level truth and scores over several videos, one after another.
#[derive(Debug, Default)]
pub struct FrameScores {
    /// One score a frame.
    pub scores: Vec<f64>,
    /// Whether the frame is anomalous.
    pub positive: Vec<bool>,
}

impl FrameScores {
    /// ROC-AUC and average precision.
    pub fn figures(&self) -> Result<(f64, f64)> {
        Ok((
            roc_auc(&self.scores, &self.positive)?,
            average_precision(&self.scores, &self.positive)?,
        ))
    }
}

/// p of every unseen sample with these heads, the scorer fitted on the training samples.
pub fn probabilities(train: &SampleSet, unseen: &SampleSet, heads: &[HeadId]) -> Result<Vec<f64>> {
    let rows = train.gather(0, heads)?;
    let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
    let scorer = Logistic::fit(&rows, &train.labels(), &FitOptions::default())?;
    unseen
        .gather(0, heads)?
        .iter()
        .map(|z| scorer.probability(z))
        .collect()
}

/// Every frame of the unseen videos with its segment's p′.
pub fn frame_scores(
    unseen: &SampleSet,
    p: &[f64],
    truth: &[Vec<(u64, u64)>],
    locator: &LocatorParams,
) -> Result<FrameScores> {
    let mut frames = FrameScores::default();
    for (video, truth) in truth.iter().enumerate() {
        let (spans, p): (Vec<_>, Vec<_>) = unseen
            .samples
            .iter()
            .zip(p)
            .filter(|(sample, _)| sample.video == video)
            .filter_map(|(sample, &p)| Some((sample.span?, p)))
            .unzip();
        let smoothed = smooth_runs(&spans, &p, locator.sigma, locator.edge)?;
        for (span, smoothed) in spans.iter().zip(smoothed) {
            for frame in span.first_frame..=span.last_frame {
                frames.scores.push(smoothed);
                frames
                    .positive
                    .push(truth.iter().any(|&(a, b)| (a..b).contains(&frame)));
            }
        }
    }
    Ok(frames)
}

/// Mean AUC and AP of `draws` random sets of as many heads as the profile has.
pub fn random_heads(
    train: &SampleSet,
    unseen: &SampleSet,
    truth: &[Vec<(u64, u64)>],
    locator: &LocatorParams,
    count: usize,
    draws: u64,
) -> Result<(f64, f64)> {
    let (layers, heads) = (train.features.layers, train.features.heads);
    if count > layers * heads {
        return Err(Error::invalid("more heads than the model has"));
    }
    let (mut auc, mut ap) = (0.0, 0.0);
    for draw in 0..draws {
        let mut rng = ChaCha8Rng::seed_from_u64(draw);
        let chosen: Vec<HeadId> = index::sample(&mut rng, layers * heads, count)
            .into_iter()
            .map(|i| HeadId {
                layer: i / heads,
                head: i % heads,
            })
            .collect();
        let p = probabilities(train, unseen, &chosen)?;
        let figures = frame_scores(unseen, &p, truth, locator)?.figures()?;
        auc += figures.0;
        ap += figures.1;
    }
    Ok((auc / draws as f64, ap / draws as f64))
}
