//! The loop over videos, with a model of one number and media of plain colour.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::*;
use crate::{
    engine::probe::{Clip, HeadProbe, ProbeInfo},
    head::{HeadFeatures, HeadId, HeadSelection},
    media::{Frame, FrameStamp, MediaEvent, MediaInfo, MediaTime, Picture, RgbImage},
    profile::{Edge, LocatorParams, ModelBinding, SCHEMA, ScorerParams},
    segment::SegmentRule,
};

const FINGERPRINT: &str = "abababababababababababababababababababababababababababababababab";

struct OneNumber(ProbeInfo);

impl HeadProbe for OneNumber {
    fn info(&self) -> &ProbeInfo {
        &self.0
    }

    fn probe(&self, clips: &[Clip], _: &[String], _: &HeadSelection) -> Result<Vec<HeadFeatures>> {
        let one = |clip: &Clip| HeadFeatures {
            prompts: 1,
            heads: 1,
            head_dim: 1,
            data: vec![f32::from(clip.frames[0].data[0]) / 255.0],
        };
        Ok(clips.iter().map(one).collect())
    }

    fn fingerprint(&self, _: usize) -> Result<String> {
        Ok(FINGERPRINT.into())
    }
}

struct White;

impl Picture for White {
    fn to_rgb(&self) -> Result<RgbImage> {
        Ok(RgbImage {
            width: 8,
            height: 8,
            data: vec![255; 192],
        })
    }

    fn size_bytes(&self) -> usize {
        192
    }
}

struct Media {
    next: u64,
    frames: u64,
    cancel: CancellationToken,
}

impl MediaSource for Media {
    fn next_event(&mut self) -> Result<Option<MediaEvent>> {
        let n = self.next;
        self.next += 1;
        if n == 0 {
            return Ok(Some(MediaEvent::Opened(MediaInfo::default())));
        }
        if n > self.frames {
            return Ok(None);
        }
        if n == 1000 {
            // The signal, in the middle of a long video.
            STOP.store(true, SeqCst);
            while !self.cancel.is_cancelled() {
                std::thread::yield_now();
            }
            return Err(Error::cancelled("stopped"));
        }
        let duration = Duration::from_millis(40);
        Ok(Some(MediaEvent::Frame(Frame {
            stamp: FrameStamp {
                index: n - 1,
                pts: MediaTime::ZERO.saturating_add(duration * (n as u32 - 1)),
                duration,
            },
            picture: Arc::new(White),
            received: None,
        })))
    }
}

static STOP: AtomicBool = AtomicBool::new(false);

/// `N.mp4` has N frames; others cannot be opened.
fn open(path: &Path, cancel: CancellationToken) -> Result<Box<dyn MediaSource>> {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    let frames = stem
        .and_then(|stem| stem.parse().ok())
        .ok_or_else(|| Error::invalid("it looks like a text file"))?;
    Ok(Box::new(Media {
        next: 0,
        frames,
        cancel,
    }))
}

fn profile() -> Profile {
    Profile {
        schema: SCHEMA,
        name: "one".into(),
        created_unix_s: 0,
        model: ModelBinding {
            name: "one".into(),
            fingerprint: FINGERPRINT.into(),
            head_dim: 1,
            device: "cpu".into(),
            dtype: "f32".into(),
        },
        segment: SegmentRule::Frames(10),
        frames_per_segment: 2,
        heads: vec![HeadId { layer: 0, head: 0 }],
        hunt_prompts: Vec::new(),
        scoring_prompts: vec!["odd?".into()],
        scorer: ScorerParams {
            weights: vec![2.0],
            intercept: 0.0,
        }
        .into(),
        locator: LocatorParams {
            sigma: 1.0,
            threshold: 0.5,
            edge: Edge::Renormalize,
            event_bridge_s: None,
        },
        notes: serde_json::Map::new(),
    }
}

async fn detect(
    videos: &[&str],
    profile: Profile,
    cancel: &CancellationToken,
) -> (String, Result<()>) {
    let info = ProbeInfo {
        name: "one".into(),
        device: "cpu".into(),
        dtype: "f32".into(),
        layers: 1,
        heads: 1,
        head_dim: 1,
        resident_layers: 1,
        image_side: 4,
        resizes: false,
    };
    let config = EngineConfig {
        warm_up: false,
        ..EngineConfig::default()
    };
    let engine = Engine::start(Box::new(OneNumber(info)), config).unwrap();
    let videos: Vec<PathBuf> = videos.iter().map(PathBuf::from).collect();
    let mut out = Vec::new();
    let result = detect_videos(
        &videos,
        &Arc::new(profile),
        &engine.handle(),
        open,
        true,
        &mut out,
        cancel,
    )
    .await;
    (String::from_utf8(out).unwrap(), result)
}

#[tokio::test]
async fn every_video_gets_its_line_and_one_that_fails_makes_the_whole_fail() {
    let cancel = CancellationToken::new();
    let (out, result) = detect(&["25.mp4", "10.mp4"], profile(), &cancel).await;
    result.unwrap();
    let lines: Vec<serde_json::Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["frames"], 25);
    assert_eq!(lines[0]["fps"], 25.0);
    assert_eq!(lines[0]["segments"][2]["frames"], 5);
    let p = 1.0 / (1.0 + (-2.0f64).exp());
    assert!((lines[0]["segments"][0]["probability"].as_f64().unwrap() - p).abs() < 1e-12);
    assert_eq!(lines[0]["events"][0]["last_frame"], 24);
    assert!(
        !cancel.is_cancelled(),
        "the end of one video must not stop the next"
    );

    let (out, result) = detect(&["notes.txt", "10.mp4", "0.mp4"], profile(), &cancel).await;
    let error = result.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument);
    assert!(error.message().contains("2 of 3"), "{error}");
    assert_eq!(out.lines().count(), 1);
}

#[tokio::test]
async fn a_wrong_profile_is_told_once_and_nothing_is_opened() {
    let mut wrong = profile();
    wrong.model.fingerprint = "0".repeat(64);
    let (out, result) = detect(&["10.mp4"], wrong, &CancellationToken::new()).await;
    assert_eq!(result.unwrap_err().kind(), Kind::FailedPrecondition);
    assert!(out.is_empty());
}

#[tokio::test]
async fn a_signal_stops_at_once_with_what_was_whole() {
    let cancel = CancellationToken::new();
    let signal = cancel.clone();
    let watch = tokio::task::spawn_blocking(move || {
        while !STOP.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(2));
        }
        signal.cancel();
    });
    let (out, result) = detect(&["10.mp4", "2000.mp4", "10.mp4"], profile(), &cancel).await;
    watch.await.unwrap();
    assert_eq!(result.unwrap_err().kind(), Kind::Cancelled);
    assert_eq!(out.lines().count(), 1);
}
