//! Scores against a data set.

use std::io::BufRead;

use serde::Serialize;

use super::{
    Dataset,
    accumulate::Accumulator,
    events::{EventMetrics, predicted},
    scores::{self, VideoScores},
};
use crate::error::{Error, Result};

/// Threshold on p′ without another one: the paper's τ.
pub const THRESHOLD: f64 = 0.65;

/// Frames a second of videos whose scores do not say: what both public sets have.
pub const FPS: f64 = 30.0;

/// What turns scores into events and frames into hours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvaluateOptions {
    /// A frame belongs to an event where its score is above this. Scores are taken as p′, as they
    /// are: nothing is smoothed again.
    pub threshold: f64,
    /// Frames a second of videos whose scores do not say.
    pub fps: f64,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        EvaluateOptions {
            threshold: THRESHOLD,
            fps: FPS,
        }
    }
}

/// Metrics over all videos of a data set, their frames concatenated.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
    /// Each class that the data set tells, by name.
    pub per_class: Vec<ClassEvaluation>,
    /// Events and false alarms.
    pub events: EventMetrics,
    /// Frames a second that videos were taken to have whose scores do not say; none where all said.
    pub assumed_fps: Option<f64>,
}

/// One class: its videos and all normal ones.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassEvaluation {
    /// As the data set calls it.
    pub class: String,
    /// Its videos; one with several classes is in each of them.
    pub videos: u64,
    /// Anomalous frames of its videos.
    pub positives: u64,
    /// Area under the ROC curve over the frames of its videos and of all normal ones; none where
    /// these are of one kind only.
    pub roc_auc: Option<f64>,
}

/// Collects the scores of a data set's videos, in any order.
#[derive(Clone, Debug)]
pub struct Evaluator<'a> {
    dataset: &'a Dataset,
    options: EvaluateOptions,
    /// Line at which each video's scores came.
    seen: Vec<Option<u64>>,
    accumulator: Accumulator,
    fps_assumed: bool,
}

impl<'a> Evaluator<'a> {
    /// Without scores so far, with the default options.
    pub fn new(dataset: &'a Dataset) -> Self {
        Evaluator {
            dataset,
            options: EvaluateOptions::default(),
            seen: vec![None; dataset.videos().len()],
            accumulator: Accumulator::default(),
            fps_assumed: false,
        }
    }

    /// With other options.
    ///
    /// `InvalidArgument`, naming the option, for a threshold that is not finite or an fps that is
    /// not above 0.
    pub fn with_options(mut self, options: EvaluateOptions) -> Result<Self> {
        if !options.threshold.is_finite() {
            return Err(Error::invalid(format!(
                "the threshold is {}: give a number",
                options.threshold
            ))
            .with_field("threshold"));
        }
        if !(options.fps.is_finite() && options.fps > 0.0) {
            return Err(Error::invalid(format!(
                "{} frames a second: give a number above 0",
                options.fps
            ))
            .with_field("fps"));
        }
        self.options = options;
        Ok(self)
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
        self.fps_assumed |= scores.fps.is_none();
        let events = predicted(
            &scores.scores,
            scores.stride,
            video.frames,
            self.options.threshold,
        );
        let mut end = 0_u64;
        let pieces = scores.scores.iter().map(|&score| {
            end = end.saturating_add(scores.stride).min(video.frames);
            (end, score)
        });
        self.accumulator
            .add(
                video,
                pieces,
                &events,
                scores.fps.unwrap_or(self.options.fps),
            )
            .map_err(|e| e.context(format!("scores, line {}", scores.line)))
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
        let assumed = self.fps_assumed.then_some(self.options.fps);
        self.accumulator.finish(self.options.threshold, assumed)
    }
}

/// Evaluates a scores file (see [`scores`]) with the default options; errors as there and in
/// [`Evaluator`].
pub fn evaluate(dataset: &Dataset, scores: impl BufRead) -> Result<Evaluation> {
    evaluate_with(dataset, &EvaluateOptions::default(), scores)
}

/// The same with other options.
pub fn evaluate_with(
    dataset: &Dataset,
    options: &EvaluateOptions,
    scores: impl BufRead,
) -> Result<Evaluation> {
    let mut evaluator = Evaluator::new(dataset).with_options(*options)?;
    for video in scores::read(scores) {
        evaluator.add(&video?)?;
    }
    evaluator.finish()
}
