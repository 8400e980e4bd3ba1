//! Scores against a data set.

use std::io::BufRead;

use serde::Serialize;

use super::{
    Dataset,
    metrics::{Tally, areas},
    scores::{self, VideoScores},
};
use crate::{
    error::{Error, Result},
    intervals::overlap,
};

/// Frame-level metrics over all videos of a data set, concatenated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Videos.
    pub videos: u64,
    /// Frames.
    pub frames: u64,
    /// Anomalous frames.
    pub positives: u64,
    /// See [`Areas`](super::metrics::Areas), also for the others.
    pub roc_auc: f64,
    /// scikit-learn's step definition.
    pub average_precision: f64,
    /// Trapezoid rule.
    pub pr_auc_trapezoid: f64,
}

/// Collects the scores of a data set's videos, in any order.
#[derive(Clone, Debug)]
pub struct Evaluator<'a> {
    dataset: &'a Dataset,
    /// Line at which each video's scores came.
    seen: Vec<Option<u64>>,
    tallies: Vec<Tally>,
}

impl<'a> Evaluator<'a> {
    /// Without scores so far.
    pub fn new(dataset: &'a Dataset) -> Self {
        Evaluator {
            dataset,
            seen: vec![None; dataset.videos().len()],
            tallies: Vec::new(),
        }
    }

    /// Takes one video's scores.
    ///
    /// `InvalidArgument`, naming video and line: not a video of the data set, one that had its
    /// scores already, other than ⌈frames / stride⌉ scores, a score that is not finite.
    pub fn add(&mut self, scores: &VideoScores) -> Result<()> {
        let place = format!("scores, line {}: video {}", scores.line, scores.video);
        let Some(at) = self.dataset.position(&scores.video) else {
            return Err(Error::invalid(format!("{place} is not in the data set")));
        };
        let (Some(video), Some(seen)) = (self.dataset.videos().get(at), self.seen.get_mut(at))
        else {
            return Err(Error::internal(format!("{place} is out of reach")));
        };
        if let Some(line) = seen {
            return Err(Error::invalid(format!(
                "{place} has its scores in line {line} already"
            )));
        }
        if scores.stride == 0 {
            return Err(Error::invalid(format!("{place} has stride 0")));
        }
        let expected = video.frames.div_ceil(scores.stride);
        if scores.scores.len() as u64 != expected {
            return Err(Error::invalid(format!(
                "{place} has {} scores; {} frames at {} a score take {expected}",
                scores.scores.len(),
                video.frames,
                scores.stride
            )));
        }
        if let Some(score) = scores.scores.iter().position(|s| !s.is_finite()) {
            return Err(Error::invalid(format!(
                "{place}: score {score} is not a finite number"
            )));
        }
        *seen = Some(scores.line);
        let mut first = 0_u64;
        self.tallies.extend(scores.scores.iter().map(|&score| {
            let end = first.saturating_add(scores.stride).min(video.frames);
            let positive = overlap(&video.positive, first, end);
            let negative = end - first - positive;
            first = end;
            Tally {
                score,
                positive,
                negative,
            }
        }));
        Ok(())
    }

    /// The metrics.
    ///
    /// `InvalidArgument` where videos have no scores, or all frames are of one class.
    pub fn finish(self) -> Result<Evaluation> {
        let videos = self.dataset.videos();
        let missing: Vec<&str> = videos
            .iter()
            .zip(&self.seen)
            .filter(|(_, seen)| seen.is_none())
            .map(|(video, _)| video.name.as_str())
            .collect();
        if let Some(first) = missing.first() {
            return Err(Error::invalid(format!(
                "{} of {} videos have no scores, the first of them {first}",
                missing.len(),
                videos.len()
            )));
        }
        let areas = areas(self.tallies)?;
        Ok(Evaluation {
            videos: videos.len() as u64,
            frames: self.dataset.frames(),
            positives: self.dataset.positives(),
            roc_auc: areas.roc_auc,
            average_precision: areas.average_precision,
            pr_auc_trapezoid: areas.pr_auc_trapezoid,
        })
    }
}

/// Evaluates a scores file (see [`scores`]); errors as there and in [`Evaluator`].
pub fn evaluate(dataset: &Dataset, scores: impl BufRead) -> Result<Evaluation> {
    let mut evaluator = Evaluator::new(dataset);
    for video in scores::read(scores) {
        evaluator.add(&video?)?;
    }
    evaluator.finish()
}
