//! Frames of videos, added one video after another, to the metrics of all of them.

use super::{
    ClassEvaluation, Evaluation, VideoTruth,
    events::{EventCounts, PredictedEvent},
    metrics::{Curves, auc, pairs},
};
use crate::{
    error::{Error, Result},
    intervals::overlap,
};

/// A video's frames that share a score.
#[derive(Clone, Copy, Debug)]
struct Piece {
    score: f64,
    positive: u32,
    negative: u32,
    video: u32,
}

/// The running counts of metrics, video by video.
#[derive(Clone, Debug, Default)]
pub struct Accumulator {
    pieces: Vec<Piece>,
    /// Index into `classes`, per video; `None`: a normal video.
    classes_of: Vec<Option<Vec<usize>>>,
    classes: Vec<String>,
    events: EventCounts,
    frames: u64,
    positives: u64,
}

impl Accumulator {
    /// Adds a video: the end (exclusive) and score of each of its pieces in order, which cover all
    /// of its frames, its predicted events, and how many frames make a second.
    ///
    /// `InvalidArgument`, naming the video: pieces that do not cover the video, a score that is not
    /// finite, an `fps` that is not above 0.
    pub fn add(
        &mut self,
        video: &VideoTruth,
        pieces: impl IntoIterator<Item = (u64, f64)>,
        events: &[PredictedEvent],
        fps: f64,
    ) -> Result<()> {
        let number = u32::try_from(self.classes_of.len())
            .map_err(|_| Error::exhausted("more than 2^32 videos"))?;
        let mut first = 0_u64;
        for (end, score) in pieces {
            let positive = overlap(&video.positive, first, end);
            let negative = end.saturating_sub(first).saturating_sub(positive);
            let (Ok(positive), Ok(negative), true) = (
                u32::try_from(positive),
                u32::try_from(negative),
                end > first,
            ) else {
                return Err(Error::invalid(format!(
                    "video {}: a score of the frames {first} to {end}",
                    video.name
                )));
            };
            if !score.is_finite() {
                return Err(Error::invalid(format!(
                    "video {}: the score of the frames {first} to {end} is not a finite number",
                    video.name
                )));
            }
            self.pieces.push(Piece {
                // −0 and 0 are one score.
                score: score + 0.0,
                positive,
                negative,
                video: number,
            });
            first = end;
        }
        if first != video.frames {
            return Err(Error::invalid(format!(
                "video {}: scores of {first} of its {} frames",
                video.name, video.frames
            )));
        }
        let positives = video.positives();
        self.events
            .add(&video.positive, events, video.frames - positives, fps)
            .map_err(|e| e.context(format!("video {}", video.name)))?;
        self.frames += video.frames;
        self.positives += positives;
        let classes = video
            .classes
            .iter()
            .map(|class| self.class(class))
            .collect();
        self.classes_of
            .push((!video.is_normal()).then_some(classes));
        Ok(())
    }

    fn class(&mut self, name: &str) -> usize {
        let known = self.classes.iter().position(|class| class == name);
        known.unwrap_or_else(|| {
            self.classes.push(name.to_owned());
            self.classes.len() - 1
        })
    }

    /// The metrics, at the threshold that the events were predicted with.
    ///
    /// `InvalidArgument` where all frames are of one class.
    pub fn finish(mut self, threshold: f64, assumed_fps: Option<f64>) -> Result<Evaluation> {
        let (positives, negatives) = (self.positives, self.frames - self.positives);
        if positives == 0 || negatives == 0 {
            return Err(Error::invalid(format!(
                "{positives} anomalous and {negatives} normal frames: the curves need both"
            )));
        }
        // One sort serves the curves of all frames and of every class.
        self.pieces
            .sort_unstable_by(|a, b| b.score.total_cmp(&a.score));
        let mut curves = Curves::new(positives, negatives);
        let mut classes = ClassCurves::new(&self);
        for tied in self.pieces.chunk_by(|a, b| a.score == b.score) {
            curves.pass(
                tied.iter().map(|p| u64::from(p.positive)).sum(),
                tied.iter().map(|p| u64::from(p.negative)).sum(),
            );
            classes.pass(tied, &self.classes_of);
        }
        let areas = curves.areas();
        Ok(Evaluation {
            videos: self.classes_of.len() as u64,
            frames: self.frames,
            positives,
            roc_auc: areas.roc_auc,
            average_precision: areas.average_precision,
            pr_auc_trapezoid: areas.pr_auc_trapezoid,
            per_class: classes.finish(&self),
            events: self.events.metrics(threshold),
            assumed_fps,
        })
    }
}

/// Frames of one class, or of the normal videos, while the scores are walked down.
#[derive(Clone, Copy, Debug, Default)]
struct ClassCurve {
    positives: u64,
    negatives: u64,
    /// Normal frames passed.
    passed: u64,
    /// Of the tied group.
    hits: u64,
    alarms: u64,
    pairs: u128,
}

/// The ROC curves of all classes at once.
struct ClassCurves {
    normal: ClassCurve,
    classes: Vec<ClassCurve>,
}

impl ClassCurves {
    fn new(all: &Accumulator) -> ClassCurves {
        let mut curves = ClassCurves {
            normal: ClassCurve::default(),
            classes: vec![ClassCurve::default(); all.classes.len()],
        };
        for piece in &all.pieces {
            curves.each(piece, &all.classes_of, |curve| {
                curve.positives += u64::from(piece.positive);
                curve.negatives += u64::from(piece.negative);
            });
        }
        curves
    }

    /// The curves that a piece's video belongs to.
    fn each(
        &mut self,
        piece: &Piece,
        classes_of: &[Option<Vec<usize>>],
        mut apply: impl FnMut(&mut ClassCurve),
    ) {
        match classes_of.get(piece.video as usize) {
            Some(Some(classes)) => {
                for &class in classes {
                    if let Some(curve) = self.classes.get_mut(class) {
                        apply(curve);
                    }
                }
            }
            _ => apply(&mut self.normal),
        }
    }

    /// Passes the pieces of the next lower score.
    fn pass(&mut self, tied: &[Piece], classes_of: &[Option<Vec<usize>>]) {
        if self.classes.is_empty() {
            return;
        }
        for piece in tied {
            self.each(piece, classes_of, |curve| {
                curve.hits += u64::from(piece.positive);
                curve.alarms += u64::from(piece.negative);
            });
        }
        let normal = &mut self.normal;
        normal.passed += normal.alarms;
        for curve in &mut self.classes {
            curve.passed += curve.alarms;
            if curve.hits > 0 {
                let below = curve.negatives + normal.negatives - curve.passed - normal.passed;
                curve.pairs += pairs(curve.hits, curve.alarms + normal.alarms, below);
            }
            (curve.hits, curve.alarms) = (0, 0);
        }
        (normal.hits, normal.alarms) = (0, 0);
    }

    fn finish(self, all: &Accumulator) -> Vec<ClassEvaluation> {
        let mut classes: Vec<ClassEvaluation> = self
            .classes
            .iter()
            .zip(&all.classes)
            .enumerate()
            .map(|(number, (curve, class))| {
                let negatives = curve.negatives + self.normal.negatives;
                ClassEvaluation {
                    class: class.clone(),
                    videos: all
                        .classes_of
                        .iter()
                        .flatten()
                        .filter(|classes| classes.contains(&number))
                        .count() as u64,
                    positives: curve.positives,
                    roc_auc: (curve.positives > 0 && negatives > 0)
                        .then(|| auc(curve.pairs, curve.positives, negatives)),
                }
            })
            .collect();
        classes.sort_by(|a, b| a.class.cmp(&b.class));
        classes
    }
}
