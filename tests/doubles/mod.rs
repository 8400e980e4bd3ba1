//! Test doubles: a model whose passes are let through by hand, and media made of plain colours.
#![allow(dead_code)] // each test binary uses its own part

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use headhunt::{
    engine::{
        Job, Lane,
        probe::{Clip, HeadProbe, ProbeInfo},
    },
    error::{Error, Kind, Result},
    head::{HeadFeatures, HeadId, HeadSelection},
    media::{
        Frame, FrameStamp, MediaEvent, MediaInfo, MediaSource, MediaTime, Picture, RgbImage,
        SharedImage, SourceState,
    },
    profile::{Edge, LocatorParams, ModelBinding, Profile, SCHEMA, ScorerParams},
    segment::SegmentRule,
};
use tokio_util::sync::CancellationToken;

pub const SIDE: usize = 2;
pub const HEAD_DIM: usize = 3;

/// Lets passes through: all, or so many.
#[derive(Default)]
pub struct Turnstile {
    /// `None`: open.
    left: Mutex<Option<usize>>,
    changed: Condvar,
    waiting: AtomicUsize,
}

impl Turnstile {
    pub fn close(&self) {
        *self.left.lock().unwrap() = Some(0);
    }

    pub fn open(&self) {
        *self.left.lock().unwrap() = None;
        self.changed.notify_all();
    }

    pub fn let_through(&self, n: usize) {
        if let Some(left) = self.left.lock().unwrap().as_mut() {
            *left += n;
        }
        self.changed.notify_all();
    }

    /// Blocks until a pass stands before the turnstile.
    pub fn wait_for_arrival(&self) {
        eventually("a pass arrives", || self.waiting.load(SeqCst) > 0);
    }

    fn enter(&self) {
        let mut left = self.left.lock().unwrap();
        self.waiting.fetch_add(1, SeqCst);
        while *left == Some(0) {
            left = self.changed.wait(left).unwrap();
        }
        if let Some(left) = left.as_mut() {
            *left -= 1;
        }
        self.waiting.fetch_sub(1, SeqCst);
    }
}

/// What the probe saw, batch by batch: the first byte of each clip.
pub type Log = Arc<Mutex<Vec<Vec<u8>>>>;

/// A model whose features are plain functions of the clip's bytes and the prompt's length.
/// A clip that starts with [`PANIC`] makes it panic, one with [`FAIL`] makes it fail.
pub struct FakeProbe {
    pub info: ProbeInfo,
    pub turnstile: Arc<Turnstile>,
    pub log: Log,
    pub fingerprints: Arc<AtomicUsize>,
    /// More clips than this in one pass, and its memory runs out.
    pub room: Arc<AtomicUsize>,
}

pub const PANIC: u8 = 250;
pub const FAIL: u8 = 251;
pub const FINGERPRINT: &str = "f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1";

impl FakeProbe {
    pub fn new() -> Self {
        FakeProbe {
            info: ProbeInfo {
                name: "fake".into(),
                device: "cpu".into(),
                dtype: "f32".into(),
                layers: 4,
                heads: 2,
                head_dim: HEAD_DIM,
                resident_layers: 3,
                image_side: SIDE,
                resizes: false,
            },
            turnstile: Arc::default(),
            log: Arc::default(),
            fingerprints: Arc::default(),
            room: Arc::new(AtomicUsize::new(usize::MAX)),
        }
    }
}

impl HeadProbe for FakeProbe {
    fn info(&self) -> &ProbeInfo {
        &self.info
    }

    fn probe(
        &self,
        clips: &[Clip],
        prompts: &[String],
        heads: &HeadSelection,
    ) -> Result<Vec<HeadFeatures>> {
        self.turnstile.enter();
        self.log
            .lock()
            .unwrap()
            .push(clips.iter().map(|clip| clip.frames[0].data[0]).collect());
        if clips.len() > self.room.load(SeqCst) {
            return Err(Error::new(
                Kind::ResourceExhausted,
                "no memory in the double",
            ));
        }
        clips
            .iter()
            .map(|clip| {
                match clip.frames[0].data[0] {
                    PANIC => panic!("the double was told to"),
                    FAIL => return Err(Error::data_loss("NaN in the double")),
                    _ => {}
                }
                Ok(features(&self.info, clip, prompts, heads))
            })
            .collect()
    }

    fn fingerprint(&self, layers: usize) -> Result<String> {
        self.fingerprints.fetch_add(1, SeqCst);
        if layers > self.info.resident_layers {
            return Err(Error::precondition("too many layers"));
        }
        Ok(FINGERPRINT.into())
    }
}

fn features(
    info: &ProbeInfo,
    clip: &Clip,
    prompts: &[String],
    heads: &HeadSelection,
) -> HeadFeatures {
    let heads = heads.resolve(info.layers, info.heads);
    let sum: u32 = clip
        .frames
        .iter()
        .flat_map(|frame| frame.data.iter())
        .map(|byte| u32::from(*byte))
        .sum();
    let mean = sum as f32 / (clip.frames.len() * SIDE * SIDE * 3) as f32;
    let mut data = Vec::new();
    for prompt in prompts {
        for id in &heads {
            for d in 0..info.head_dim {
                let scale = (1 + id.layer * 10 + id.head + d) as f32;
                data.push(mean / 32.0 - 2.0 + scale * 0.01 + prompt.len() as f32 * 0.02);
            }
        }
    }
    HeadFeatures {
        prompts: prompts.len(),
        heads: heads.len(),
        head_dim: info.head_dim,
        data,
    }
}

/// A clip of two frames of one grey.
pub fn clip(grey: u8) -> Clip {
    let frame = SharedImage::square(SIDE as u32, vec![grey; SIDE * SIDE * 3]);
    Clip {
        frames: vec![frame.clone(), frame],
    }
}

pub fn job(grey: u8, lane: Lane, stream: u64) -> Job {
    Job {
        clip: clip(grey),
        prompts: vec!["anything odd?".to_owned()].into(),
        heads: HeadSelection::Only(vec![HeadId { layer: 1, head: 0 }]),
        lane,
        stream,
        deadline: None,
        cancel: CancellationToken::new(),
        stages: None,
    }
}

/// Waits for something that other threads bring about.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("after 10 s still not: {what}");
}

/// A picture of one grey that counts how many of its kind are alive and were converted.
pub struct Grey {
    grey: u8,
    size: usize,
    counters: Arc<Counters>,
}

#[derive(Default)]
pub struct Counters {
    pub alive: AtomicUsize,
    pub most_alive: AtomicUsize,
    pub converted: AtomicUsize,
    pub decoded: AtomicUsize,
}

/// A picture of this grey is gone with the process that held it.
pub const GONE: u8 = 253;

impl Picture for Grey {
    fn to_rgb(&self) -> Result<RgbImage> {
        if self.grey == GONE {
            return Err(Error::data_loss(
                "a picture is gone: the double was told to",
            ));
        }
        self.counters.converted.fetch_add(1, SeqCst);
        Ok(RgbImage {
            width: SIDE as u32,
            height: SIDE as u32,
            data: vec![self.grey; SIDE * SIDE * 3],
        })
    }

    fn size_bytes(&self) -> usize {
        self.size
    }
}

impl Drop for Grey {
    fn drop(&mut self) {
        self.counters.alive.fetch_sub(1, SeqCst);
    }
}

/// A step of a [`FakeSource`].
pub enum Step {
    /// A frame of this grey, shown for so long.
    Frame(u8, Duration),
    /// A gap of so long.
    Gap(headhunt::media::GapReason, Duration),
    /// A live source's state.
    State(SourceState),
    Fail(Error),
    Panic,
    /// Waits for the cancellation.
    Stall,
}

/// Media made of steps.
pub struct FakeSource {
    steps: VecDeque<Step>,
    opened: bool,
    index: u64,
    now: MediaTime,
    picture_bytes: usize,
    counters: Arc<Counters>,
    cancel: CancellationToken,
}

impl FakeSource {
    pub fn new(steps: impl IntoIterator<Item = Step>, cancel: CancellationToken) -> Self {
        FakeSource {
            steps: steps.into_iter().collect(),
            opened: false,
            index: 0,
            now: MediaTime::ZERO,
            picture_bytes: 100,
            counters: Arc::default(),
            cancel,
        }
    }

    pub fn picture_bytes(mut self, bytes: usize) -> Self {
        self.picture_bytes = bytes;
        self
    }

    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }
}

pub fn info() -> MediaInfo {
    MediaInfo {
        container: "double".into(),
        codec: "grey".into(),
        width: SIDE as u32,
        height: SIDE as u32,
        declared_fps: Some(25.0),
    }
}

impl MediaSource for FakeSource {
    fn next_event(&mut self) -> Result<Option<MediaEvent>> {
        if self.cancel.is_cancelled() {
            return Err(Error::cancelled("double cancelled"));
        }
        if !self.opened {
            self.opened = true;
            return Ok(Some(MediaEvent::Opened(info())));
        }
        match self.steps.pop_front() {
            None => Ok(None),
            Some(Step::Frame(grey, duration)) => {
                let stamp = FrameStamp {
                    index: self.index,
                    pts: self.now,
                    duration,
                };
                self.index += 1;
                self.now = self.now.saturating_add(duration);
                self.counters.decoded.fetch_add(1, SeqCst);
                let alive = self.counters.alive.fetch_add(1, SeqCst) + 1;
                self.counters.most_alive.fetch_max(alive, SeqCst);
                Ok(Some(MediaEvent::Frame(Frame {
                    stamp,
                    picture: Arc::new(Grey {
                        grey,
                        size: self.picture_bytes,
                        counters: self.counters.clone(),
                    }),
                    received: None,
                })))
            }
            Some(Step::Gap(reason, length)) => {
                let from = self.now;
                self.now = self.now.saturating_add(length);
                Ok(Some(MediaEvent::Gap(headhunt::media::Gap {
                    from,
                    to: self.now,
                    reason,
                    frames_lost: 1,
                    detail: "double".into(),
                })))
            }
            Some(Step::State(state)) => Ok(Some(MediaEvent::Source(state))),
            Some(Step::Fail(error)) => Err(error),
            Some(Step::Panic) => panic!("the source double was told to"),
            Some(Step::Stall) => {
                while !self.cancel.is_cancelled() {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(Error::cancelled("double cancelled"))
            }
        }
    }
}

/// A profile that fits [`FakeProbe`]: segments of 4 frames, 2 of them sampled. Bright segments
/// score high.
pub fn profile() -> Profile {
    Profile {
        schema: SCHEMA,
        name: "double".into(),
        created_unix_s: 1_700_000_000,
        model: ModelBinding {
            name: "fake".into(),
            fingerprint: FINGERPRINT.into(),
            head_dim: HEAD_DIM,
            device: "cpu".into(),
            dtype: "f32".into(),
        },
        segment: SegmentRule::Frames(4),
        frames_per_segment: 2,
        heads: vec![HeadId { layer: 2, head: 1 }, HeadId { layer: 0, head: 0 }],
        hunt_prompts: vec!["is it odd?".into()],
        scoring_prompts: vec!["is it odd?".into(), "is anything at all odd here?".into()],
        scorer: ScorerParams {
            weights: vec![0.5, 0.25, 0.125, 0.3, 0.2, 0.1],
            intercept: -2.0,
        }
        .into(),
        locator: LocatorParams {
            sigma: 0.8,
            threshold: 0.5,
            edge: Edge::Renormalize,
            event_bridge_s: None,
        },
        notes: serde_json::Map::new(),
    }
}
