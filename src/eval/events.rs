//! Events: runs of frames whose score is above a threshold, compared with the annotated ones.
//!
//! At each least overlap (IoU, intersection over union in frames) predicted and annotated events are
//! paired one to one: predicted events in the order of their highest score, at equal scores those
//! that start earlier, each take the annotated event of their video that they overlap most and that
//! is not taken yet, if its IoU is at least that large (at equal IoU the earlier one).
//! F1 = 2 · pairs / (predicted + annotated).
//!
//! A predicted event that shares no frame with an annotated one is a false alarm.

use serde::Serialize;

use crate::{
    error::{Error, Result},
    intervals::overlap,
};

/// The least overlaps, in per cent so that comparing them is exact.
const IOU_PERCENT: [u64; 3] = [10, 30, 50];

/// A run of frames above the threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PredictedEvent {
    /// First frame.
    pub first: u64,
    /// End, exclusive.
    pub end: u64,
    /// Its highest score.
    pub peak: f64,
}

/// Events at one least overlap.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EventScore {
    /// Least intersection over union of a pair.
    pub iou: f64,
    /// Pairs of a predicted and an annotated event.
    pub matched: u64,
    /// Pairs per predicted event; 0 where there are none.
    pub precision: f64,
    /// Pairs per annotated event; 0 where there are none.
    pub recall: f64,
    /// 2 · pairs / (predicted + annotated); 0 where there are neither.
    pub f1: f64,
}

/// Predicted events against annotated ones, over all videos.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EventMetrics {
    /// A frame belongs to an event where its score is above this.
    pub threshold: f64,
    /// Annotated events; those that overlap or touch count as one.
    pub annotated: u64,
    /// Predicted events.
    pub predicted: u64,
    /// At IoU 0.1, 0.3 and 0.5.
    pub scores: Vec<EventScore>,
    /// Predicted events that share no frame with an annotated one.
    pub false_alarms: u64,
    /// Time of the frames that are annotated as normal, hours.
    pub normal_hours: f64,
    /// False alarms per hour of normal frames; none where there are no normal frames.
    pub false_alarms_per_hour: Option<f64>,
}

/// The events of scores of `stride` frames each, in a video of `frames` frames.
pub fn predicted(scores: &[f64], stride: u64, frames: u64, threshold: f64) -> Vec<PredictedEvent> {
    let mut first = 0_u64;
    let mut events = Vec::new();
    for run in scores.chunk_by(|a, b| (*a > threshold) == (*b > threshold)) {
        let end = (run.len() as u64)
            .saturating_mul(stride)
            .saturating_add(first)
            .min(frames);
        let peak = run.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if peak > threshold && end > first {
            events.push(PredictedEvent { first, end, peak });
        }
        first = end;
    }
    events
}

/// Counts events video by video.
#[derive(Clone, Debug, Default)]
pub struct EventCounts {
    annotated: u64,
    predicted: u64,
    matched: [u64; IOU_PERCENT.len()],
    false_alarms: u64,
    normal_seconds: f64,
}

impl EventCounts {
    /// Adds a video: its annotated events (sorted, without overlaps), the predicted ones in any
    /// order, its normal frames and how many frames make a second.
    ///
    /// `InvalidArgument` where `fps` is not a finite number above 0.
    pub fn add(
        &mut self,
        annotated: &[(u64, u64)],
        predicted: &[PredictedEvent],
        normal_frames: u64,
        fps: f64,
    ) -> Result<()> {
        if !(fps.is_finite() && fps > 0.0) {
            return Err(Error::invalid(format!(
                "{fps} frames a second: give a number above 0"
            )));
        }
        let mut order: Vec<&PredictedEvent> = predicted.iter().collect();
        order.sort_by(|a, b| b.peak.total_cmp(&a.peak).then(a.first.cmp(&b.first)));
        for (matched, percent) in self.matched.iter_mut().zip(IOU_PERCENT) {
            *matched += pair(annotated, &order, percent);
        }
        self.annotated += annotated.len() as u64;
        self.predicted += predicted.len() as u64;
        self.false_alarms += predicted
            .iter()
            .filter(|event| overlap(annotated, event.first, event.end) == 0)
            .count() as u64;
        self.normal_seconds += normal_frames as f64 / fps;
        Ok(())
    }

    /// The metrics of all videos so far.
    pub fn metrics(&self, threshold: f64) -> EventMetrics {
        let share = |part: u64, of: u64| {
            if of == 0 {
                0.0
            } else {
                part as f64 / of as f64
            }
        };
        let normal_hours = self.normal_seconds / 3600.0;
        EventMetrics {
            threshold,
            annotated: self.annotated,
            predicted: self.predicted,
            scores: self
                .matched
                .iter()
                .zip(IOU_PERCENT)
                .map(|(&matched, percent)| EventScore {
                    iou: percent as f64 / 100.0,
                    matched,
                    precision: share(matched, self.predicted),
                    recall: share(matched, self.annotated),
                    f1: share(2 * matched, self.predicted + self.annotated),
                })
                .collect(),
            false_alarms: self.false_alarms,
            normal_hours,
            false_alarms_per_hour: (normal_hours > 0.0)
                .then(|| self.false_alarms as f64 / normal_hours),
        }
    }
}

/// Pairs of one video at a least overlap of `percent`.
fn pair(annotated: &[(u64, u64)], order: &[&PredictedEvent], percent: u64) -> u64 {
    let mut taken = vec![false; annotated.len()];
    let mut pairs = 0;
    for event in order {
        let from = annotated.partition_point(|(_, end)| *end <= event.first);
        let mut best: Option<(usize, u128, u128)> = None;
        for (at, &(first, end)) in annotated.iter().enumerate().skip(from) {
            if first >= event.end {
                break;
            }
            let common = u128::from(end.min(event.end) - first.max(event.first));
            let all = u128::from(end.max(event.end) - first.min(event.first));
            let enough = common * 100 >= u128::from(percent) * all;
            let better = best.is_none_or(|(_, c, a)| common * a > c * all);
            if !taken[at] && enough && better {
                best = Some((at, common, all));
            }
        }
        if let Some((at, ..)) = best {
            taken[at] = true;
            pairs += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(first: u64, end: u64, peak: f64) -> PredictedEvent {
        PredictedEvent { first, end, peak }
    }

    fn count(annotated: &[(u64, u64)], predicted: &[PredictedEvent]) -> EventMetrics {
        let mut counts = EventCounts::default();
        counts.add(annotated, predicted, 90_000, 25.0).unwrap();
        counts.metrics(0.5)
    }

    fn matched(metrics: &EventMetrics) -> Vec<u64> {
        metrics.scores.iter().map(|s| s.matched).collect()
    }

    #[test]
    fn runs_above_the_threshold_are_events() {
        let scores = [0.5, 0.6, 0.9, 0.5, 0.1, 0.7];
        assert_eq!(
            predicted(&scores, 10, 53, 0.5),
            [event(10, 30, 0.9), event(50, 53, 0.7)]
        );
        assert!(predicted(&scores, 10, 53, 0.9).is_empty());
        assert_eq!(predicted(&[1.0], u64::MAX, 7, 0.5), [event(0, 7, 1.0)]);
        assert!(predicted(&[], 1, 7, 0.5).is_empty());
    }

    #[test]
    fn by_hand_at_each_overlap() {
        // IoU 60/140 = 0.43; 10/100 = 0.1 exactly; none.
        let metrics = count(
            &[(100, 200), (300, 310), (1000, 1100)],
            &[
                event(140, 240, 0.9),
                event(300, 400, 0.8),
                event(500, 510, 0.7),
            ],
        );
        assert_eq!(matched(&metrics), [2, 1, 0]);
        let at = &metrics.scores[0];
        assert_eq!((at.iou, at.f1), (0.1, 4.0 / 6.0));
        assert_eq!((at.precision, at.recall), (2.0 / 3.0, 2.0 / 3.0));
        assert_eq!((metrics.predicted, metrics.annotated), (3, 3));
        // One hour of normal frames.
        assert_eq!(metrics.false_alarms, 1);
        assert_eq!(metrics.false_alarms_per_hour, Some(1.0));
    }

    #[test]
    fn each_event_is_taken_once_and_the_higher_score_chooses_first() {
        // Both predictions overlap the first event most; the lower one is left with the second, of
        // which it overlaps 20 of 120.
        let annotated = [(0, 100), (100 + 1, 160)];
        let high = event(0, 121, 0.9);
        let low = event(40, 121, 0.8);
        assert_eq!(matched(&count(&annotated, &[low, high])), [2, 1, 1]);
        // Equal scores: the earlier one chooses first, whatever their order.
        let same = [event(0, 100, 0.8), event(10, 100, 0.8)];
        let swapped = [same[1], same[0]];
        assert_eq!(count(&[(0, 100)], &same), count(&[(0, 100)], &swapped));
        assert_eq!(matched(&count(&[(0, 100)], &same)), [1, 1, 1]);
        // One long prediction over two events pairs with one of them, and is no false alarm.
        let metrics = count(&[(0, 100), (150, 250)], &[event(0, 250, 0.6)]);
        assert_eq!(
            (matched(&metrics), metrics.false_alarms),
            (vec![1, 1, 0], 0)
        );
    }

    #[test]
    fn nothing_predicted_and_nothing_annotated_are_zeros_and_no_rate_without_normal_frames() {
        let none = count(&[], &[]);
        assert!(none.scores.iter().all(|s| s.f1 == 0.0 && s.recall == 0.0));
        let mut counts = EventCounts::default();
        counts.add(&[(0, 10)], &[], 0, 30.0).unwrap();
        assert_eq!(counts.metrics(0.5).false_alarms_per_hour, None);
        assert!(counts.add(&[], &[], 1, 0.0).is_err());
        assert!(counts.add(&[], &[], 1, f64::NAN).is_err());
    }
}
