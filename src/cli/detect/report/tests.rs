use super::*;
use crate::{
    media::{FrameStamp, GapReason, MediaInfo, MediaTime},
    pipeline::event::Summary,
    score::events::{self, EndReason},
};

fn stamps(first: u64, count: u64, every: Duration) -> Vec<FrameStamp> {
    (first..first + count)
        .map(|index| FrameStamp {
            index,
            pts: MediaTime::ZERO.saturating_add(every * u32::try_from(index).unwrap()),
            duration: every,
        })
        .collect()
}

fn scores(stage: Stage, segment: u64, frames: Vec<FrameStamp>) -> DetectEvent {
    DetectEvent::Scores(SegmentScores {
        stage,
        segment,
        frames,
        probability: 0.25,
        smoothed: 0.5,
        gated: false,
        received: None,
        lag: None,
    })
}

fn report(with_gap: bool) -> Report {
    let frame = Duration::from_nanos(33_333_333);
    let mut report = Report::new(Path::new("a b.mp4"));
    report.take(DetectEvent::Opened(MediaInfo {
        declared_fps: Some(25.0),
        ..MediaInfo::default()
    }));
    report.take(scores(Stage::Provisional, 0, stamps(0, 48, frame)));
    report.take(scores(Stage::Final, 0, stamps(0, 48, frame)));
    if with_gap {
        report.take(DetectEvent::Gap(crate::media::Gap {
            from: MediaTime::from_nanos(1_600_000_000),
            to: MediaTime::from_nanos(3_000_000_000),
            reason: GapReason::DecodeError,
            frames_lost: 42,
            detail: "bad slice".into(),
        }));
    }
    report.take(scores(Stage::Final, 1, stamps(48, 12, frame)));
    let event = events::Event {
        id: 0,
        start: MediaTime::ZERO,
        end: MediaTime::from_nanos(2_000_000_000),
        first_frame: 0,
        last_frame: 59,
        peak: 0.75,
        mean: 0.5,
        provisional: false,
    };
    report.take(DetectEvent::EventStarted(event.clone()));
    report.take(DetectEvent::EventUpdated(event.clone()));
    report.take(DetectEvent::EventEnded(event, EndReason::EndOfStream, None));
    report.take(DetectEvent::Summary(Summary {
        frames: 60,
        segments: 2,
        events: 1,
        gaps: u64::from(with_gap),
        duration: frame * 60,
        ..Summary::default()
    }));
    report
}

fn written(report: &Report, json: bool) -> String {
    let mut out = Vec::new();
    report.write(json, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn json_has_exactly_the_stable_keys_on_one_line() {
    let text = written(&report(false), true);
    assert_eq!(text.matches('\n').count(), 1);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let first_end = 48.0 * 0.033_333_333;
    assert_eq!(
        value,
        serde_json::json!({
            "video": "a b.mp4",
            "fps": 30.0,
            "frames": 60,
            "segments": [
                {"first_frame": 0, "frames": 48, "start_s": 0.0, "end_s": first_end,
                 "probability": 0.25, "smoothed": 0.5},
                {"first_frame": 48, "frames": 12, "start_s": first_end, "end_s": 60.0 * 0.033_333_333,
                 "probability": 0.25, "smoothed": 0.5},
            ],
            "events": [
                {"start_s": 0.0, "end_s": 2.0, "first_frame": 0, "last_frame": 59,
                 "peak": 0.75, "mean": 0.5},
            ],
        })
    );
}

#[test]
fn a_gap_is_told_in_both_forms() {
    let report = report(true);
    let value: serde_json::Value = serde_json::from_str(&written(&report, true)).unwrap();
    assert_eq!(
        value["gaps"],
        serde_json::json!([{"start_s": 1.6, "end_s": 3.0, "reason": "decode_error",
                            "frames_lost": 42, "detail": "bad slice"}])
    );
    let table = written(&report, false);
    assert!(table.contains("gap 1.600-3.000 s"), "{table}");
    assert!(table.contains("48-59"), "{table}");
}

#[test]
fn without_durations_the_declared_rate_stands() {
    let mut report = Report::new(Path::new("still"));
    report.take(DetectEvent::Opened(MediaInfo {
        declared_fps: Some(25.0),
        ..MediaInfo::default()
    }));
    report.take(scores(Stage::Final, 0, stamps(0, 1, Duration::ZERO)));
    report.take(DetectEvent::Summary(Summary {
        frames: 1,
        ..Summary::default()
    }));
    assert_eq!(report.fps, 25.0);
}
