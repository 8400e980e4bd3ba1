//! Scored videos with known intervals to metrics: what a profile finds on them.

use crate::{
    error::{Error, Result},
    eval::{Accumulator, Evaluation, VideoTruth, events::PredictedEvent},
    profile::LocatorParams,
    score::locate::{SegmentSpan, locate},
};

/// A video whose every frame is known and scored.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredVideo {
    /// For messages.
    pub name: String,
    /// Decoded frames.
    pub frames: u64,
    /// Anomalous frames, end exclusive.
    pub anomalous: Vec<(u64, u64)>,
    /// What happens in it, for the areas per class; `None` where it is normal or not known.
    pub class: Option<String>,
    /// Its segments in media order; together they cover every frame.
    pub spans: Vec<SegmentSpan>,
    /// p of each segment, not smoothed.
    pub p: Vec<f64>,
}

/// What a profile's scores are worth on some videos; areas are those of p′, and events those that
/// detection would report.
pub type ProfileEvaluation = Evaluation;

/// Smooths each video's p, locates its events and evaluates both over the frames of all videos.
/// Frames a second are each video's own, by the time its frames are shown.
///
/// `InvalidArgument`, naming the video: p outside 0..1, as many p as segments, a frame without a
/// segment, no duration; and where all frames are of one class.
pub fn evaluate_videos(
    videos: &[ScoredVideo],
    locator: &LocatorParams,
) -> Result<ProfileEvaluation> {
    let mut accumulator = Accumulator::default();
    for video in videos {
        add(&mut accumulator, video, locator)
            .map_err(|e| e.context(format_args!("video {}", video.name)))?;
    }
    accumulator.finish(locator.threshold, None)
}

fn add(accumulator: &mut Accumulator, video: &ScoredVideo, locator: &LocatorParams) -> Result<()> {
    check_cover(video)?;
    let seconds = |span: &SegmentSpan| {
        (span.end.as_nanos().saturating_sub(span.start.as_nanos())) as f64 / 1e9
    };
    // A full segment's length, which bridges gaps: only the last one may be shorter.
    let longest = video.spans.iter().map(seconds).fold(0.0, f64::max);
    let located = locate(&video.spans, &video.p, locator, longest)?;
    let events: Vec<PredictedEvent> = located
        .events
        .iter()
        .map(|(event, _)| PredictedEvent {
            first: event.first_frame,
            end: event.last_frame + 1,
            peak: event.peak,
        })
        .collect();
    let mut truth = VideoTruth::new("", video.frames, video.anomalous.clone())
        .with_classes(video.class.clone());
    // The name as it is: a clip may well be called a.mp4.
    truth.name.clone_from(&video.name);
    let ends = video.spans.iter().map(|span| span.last_frame + 1);
    let shown: f64 = video.spans.iter().map(seconds).sum();
    accumulator.add(
        &truth,
        ends.zip(located.smoothed.iter().copied()),
        &events,
        video.frames as f64 / shown,
    )
}

/// A frame without a score would count as neither class: it is an error, not a skip.
fn check_cover(video: &ScoredVideo) -> Result<()> {
    let mut next = 0_u64;
    for span in &video.spans {
        if span.first_frame != next || span.last_frame < span.first_frame {
            return Err(Error::invalid(format!(
                "a segment of the frames {} to {} where frame {next} comes next: every frame needs \
                 a score, in order",
                span.first_frame, span.last_frame
            )));
        }
        next = span.last_frame + 1;
    }
    if next != video.frames || next == 0 {
        return Err(Error::invalid(format!(
            "the segments cover {next} of {} frames",
            video.frames
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{media::MediaTime, profile::Edge};

    fn video(name: &str, p: Vec<f64>, anomalous: Vec<(u64, u64)>) -> ScoredVideo {
        let spans = (0..p.len() as u64)
            .map(|i| SegmentSpan {
                first_frame: 40 * i,
                last_frame: 40 * i + 39,
                start: MediaTime::from_nanos(i as i64 * 1_600_000_000),
                end: MediaTime::from_nanos((i as i64 + 1) * 1_600_000_000),
                run: 0,
            })
            .collect();
        ScoredVideo {
            name: name.into(),
            frames: 40 * p.len() as u64,
            class: (!anomalous.is_empty()).then(|| "fall".to_owned()),
            anomalous,
            spans,
            p,
        }
    }

    fn locator(threshold: f64) -> LocatorParams {
        LocatorParams {
            sigma: 1e-3,
            threshold,
            edge: Edge::Renormalize,
            event_bridge_s: None,
        }
    }

    #[test]
    fn frames_events_and_hours_are_those_of_the_segments() {
        // So narrow a filter changes nothing.
        let videos = [
            video("a.mp4", vec![0.1, 0.9, 0.8, 0.2], vec![(40, 120)]),
            video("b.mp4", vec![0.3, 0.7, 0.1], vec![]),
        ];
        let e = evaluate_videos(&videos, &locator(0.5)).unwrap();
        assert_eq!((e.videos, e.frames, e.positives), (2, 280, 80));
        assert_eq!((e.roc_auc, e.average_precision), (1.0, 1.0));
        assert_eq!((e.events.predicted, e.events.annotated), (2, 1));
        assert_eq!(e.events.scores[2].f1, 2.0 / 3.0);
        assert_eq!(e.events.false_alarms, 1);
        // 200 normal frames at 25 a second.
        assert!((e.events.normal_hours - 8.0 / 3600.0).abs() < 1e-12);
        assert_eq!((e.per_class.len(), e.per_class[0].roc_auc), (1, Some(1.0)));
        assert_eq!(e.assumed_fps, None);
        // Smoothing is the locator's.
        let wide = LocatorParams {
            sigma: 3.0,
            ..locator(0.5)
        };
        let smoothed = evaluate_videos(&videos, &wide).unwrap();
        assert_ne!(smoothed.roc_auc, e.roc_auc);
    }

    #[test]
    fn what_cannot_be_evaluated_is_named() {
        let refused = |change: fn(&mut ScoredVideo)| {
            let mut videos = [
                video("a.mp4", vec![0.1, 0.9], vec![(40, 80)]),
                video("b.mp4", vec![0.3], vec![]),
            ];
            change(&mut videos[1]);
            evaluate_videos(&videos, &locator(0.5))
                .unwrap_err()
                .to_string()
        };
        assert!(refused(|v| v.p[0] = 1.5).starts_with("video b.mp4: the probability"));
        assert!(refused(|v| v.frames = 41).contains("the segments cover 40 of 41 frames"));
        assert!(refused(|v| v.spans[0].first_frame = 1).contains("where frame 0 comes next"));
        assert!(refused(|v| v.p.push(0.1)).contains("1 segments but 2"));
        assert!(refused(|v| v.spans[0].end = v.spans[0].start).contains("frames a second"));
        let normal = [video("b", vec![0.2, 0.3], vec![])];
        let error = evaluate_videos(&normal, &locator(0.5)).unwrap_err();
        assert!(error.to_string().contains("the curves need both"));
    }
}
