//! Fixtures made with GStreamer's own encoders, each frame carrying its index in its pixels, and
//! helpers to decode them. Shared by the video tests and the video bench.
#![allow(dead_code)]

use std::{
    path::{Path, PathBuf},
    sync::{LazyLock, OnceLock},
    time::Duration,
};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use headhunt::{
    error::{Error, Result},
    media::{
        ChunkEvent, ChunkSource, FrameStamp, Gap, MediaEvent, MediaInfo, MediaSource, RgbImage,
    },
    video::{
        Input, VideoLimits,
        worker::{ForkServer, Workers},
    },
};
use prost::bytes::Bytes;
use tokio_util::sync::CancellationToken;

/// Bits of the index that a frame carries.
const BITS: u64 = 10;

/// A clip to make.
#[derive(Clone)]
pub struct Clip {
    pub width: u32,
    pub height: u32,
    pub frames: u64,
    pub fps: i32,
    /// Pixel format given to the encoder.
    pub format: &'static str,
    /// More caps fields for the encoder, e.g. `,pixel-aspect-ratio=4/3`.
    pub caps: &'static str,
    pub encoder: String,
    pub muxer: String,
    /// Whether the last frame before a pause is said to last that long; 40 ms otherwise.
    pub honest_durations: bool,
    /// Noise in the lower half, to make a large file.
    pub noise: bool,
    /// Presentation time of a frame, milliseconds; by the frame rate if `None`.
    pub pts_ms: Option<fn(u64) -> u64>,
}

pub const H264: &str = "x264enc speed-preset=ultrafast key-int-max=12 bframes=2 b-adapt=false bitrate=1500 ! h264parse";

impl Clip {
    pub fn new(encoder: &str, muxer: &str) -> Self {
        Clip {
            width: 160,
            height: 120,
            frames: 40,
            fps: 25,
            format: "I420",
            caps: "",
            encoder: encoder.to_owned(),
            muxer: muxer.to_owned(),
            honest_durations: true,
            noise: false,
            pts_ms: None,
        }
    }

    pub fn h264(muxer: &str) -> Self {
        Clip::new(H264, muxer)
    }

    pub fn sized(mut self, width: u32, height: u32) -> Self {
        (self.width, self.height) = (width, height);
        self
    }

    pub fn frames(mut self, frames: u64) -> Self {
        self.frames = frames;
        self
    }

    /// Encodes it into a file.
    pub fn make(&self) -> PathBuf {
        gst::init().unwrap();
        let path = fresh_path();
        let varying = if self.pts_ms.is_some() { 0 } else { self.fps };
        let pipeline = gst::parse::launch(&format!(
            "appsrc name=in format=time block=true max-bytes=4000000 \
             ! videoconvert ! video/x-raw,format={}{} \
             ! {} ! {} ! filesink name=out",
            self.format, self.caps, self.encoder, self.muxer
        ))
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
        let out = pipeline.by_name("out").unwrap();
        out.set_property("location", path.to_str().unwrap());
        let src = pipeline.by_name("in").unwrap();
        let src = src.downcast::<gst_app::AppSrc>().unwrap();
        let mut info =
            gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, self.width, self.height)
                .fps(gst::Fraction::new(varying, 1));
        // Interlacing and aspect are set before the converter, which would refuse to change them.
        if self.caps.contains("interleaved") {
            info = info.interlace_mode(gst_video::VideoInterlaceMode::Interleaved);
        }
        if self.caps.contains("pixel-aspect-ratio=4/3") {
            info = info.par(gst::Fraction::new(4, 3));
        }
        let info = info.build().unwrap();
        src.set_caps(Some(&info.to_caps().unwrap()));
        if let Some(stamp) = pipeline.by_name("stamp") {
            restamp(&stamp, self.fps as u64);
        }
        pipeline.set_state(gst::State::Playing).unwrap();
        let step = gst::ClockTime::SECOND / self.fps as u64;
        for index in 0..self.frames {
            let mut buffer = gst::Buffer::with_size(info.size()).unwrap();
            {
                let buffer = buffer.get_mut().unwrap();
                let pts = match self.pts_ms {
                    Some(f) => gst::ClockTime::from_mseconds(f(index)),
                    None => gst::ClockTime::SECOND * index / self.fps as u64,
                };
                let end = match self.pts_ms {
                    Some(_) if !self.honest_durations => pts + gst::ClockTime::from_mseconds(40),
                    Some(f) => gst::ClockTime::from_mseconds(f(index + 1)),
                    None => pts + step,
                };
                buffer.set_pts(pts);
                buffer.set_duration(end - pts);
                draw(buffer, &info, index, self.noise);
            }
            src.push_buffer(buffer).unwrap();
        }
        src.end_of_stream().unwrap();
        finish(&pipeline);
        path
    }
}

/// Gives frames in coding order without reordering their times anew: avenc_mpeg4 of some versions
/// makes them up.
pub fn restamp(element: &gst::Element, fps: u64) {
    let next = std::sync::atomic::AtomicU64::new(0);
    let pad = element.static_pad("src").unwrap();
    let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(mask, move |_, info| {
        if let Some(event) = info.event_mut() {
            if event.type_() == gst::EventType::Segment {
                *event = gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new());
            }
            return gst::PadProbeReturn::Ok;
        }
        let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let buffer = info.buffer_mut().unwrap().make_mut();
        let time = gst::ClockTime::SECOND * n / fps;
        buffer.set_pts(time);
        buffer.set_dts(time);
        gst::PadProbeReturn::Ok
    });
}

/// Waits for the end of stream and stops.
pub fn finish(pipeline: &gst::Pipeline) {
    let message = pipeline.bus().unwrap().timed_pop_filtered(
        gst::ClockTime::from_seconds(120),
        &[gst::MessageType::Eos, gst::MessageType::Error],
    );
    let message = message.expect("encoding a fixture takes too long");
    if let gst::MessageView::Error(e) = message.view() {
        panic!("fixture: {} {:?}", e.error(), e.debug());
    }
    pipeline.set_state(gst::State::Null).unwrap();
}

/// Runs a pipeline description whose last element is `filesink name=out`.
pub fn run_pipeline(description: &str) -> PathBuf {
    gst::init().unwrap();
    let path = fresh_path();
    let pipeline = gst::parse::launch(description)
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
    let out = pipeline.by_name("out").unwrap();
    out.set_property("location", path.to_str().unwrap());
    pipeline.set_state(gst::State::Playing).unwrap();
    finish(&pipeline);
    path
}

/// Whether all elements of a fixture are installed; prints what is skipped otherwise.
pub fn installed(elements: &[&str]) -> bool {
    gst::init().unwrap();
    let missing = elements
        .iter()
        .find(|e| gst::ElementFactory::find(e).is_none());
    if let Some(missing) = missing {
        println!("SKIPPED: the GStreamer element {missing} is not installed");
    }
    missing.is_none()
}

/// The folder of this process's fixtures, removed by the operating system's cleaner at worst.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| tempfile::tempdir().unwrap()).path()
}

pub fn fresh_path() -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    folder().join(format!("clip{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

pub fn write_file(bytes: &[u8]) -> PathBuf {
    let path = fresh_path();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A moving gradient, and over the top half ten bars that are the bits of the index.
fn draw(buffer: &mut gst::BufferRef, info: &gst_video::VideoInfo, index: u64, noise: bool) {
    let mut frame = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, info).unwrap();
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let stride = frame.plane_stride()[0] as usize;
    let luma = frame.plane_data_mut(0).unwrap();
    let mut state = index as u32;
    for y in 0..height {
        for x in 0..width {
            luma[y * stride + x] = if y < height / 2 {
                let bit = x as u64 * BITS / width as u64;
                if index >> bit & 1 == 1 { 220 } else { 30 }
            } else if noise {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            } else {
                (60 + (x + y + 3 * index as usize) % 128) as u8
            };
        }
    }
    for plane in 1..3 {
        frame.plane_data_mut(plane).unwrap().fill(128);
    }
}

/// The index that a decoded frame carries.
pub fn index_of(image: &RgbImage) -> u64 {
    let (width, height) = (image.width as usize, image.height as usize);
    assert_eq!(image.data.len(), width * height * 3);
    let y = height / 4;
    (0..BITS)
        .filter(|bit| {
            let x = ((2 * bit + 1) * image.width as u64 / (2 * BITS)) as usize;
            image.data[(y * width + x) * 3 + 1] > 125
        })
        .map(|bit| 1 << bit)
        .sum()
}

/// All that a source yields.
#[derive(Default)]
pub struct Decoded {
    pub info: Option<MediaInfo>,
    pub stamps: Vec<FrameStamp>,
    /// What each frame carries.
    pub carried: Vec<u64>,
    /// Each gap with the count of frames before it.
    pub gaps: Vec<(usize, Gap)>,
    /// The first and the last picture.
    pub first: Option<RgbImage>,
    pub last: Option<RgbImage>,
}

/// Pulls a source dry.
pub fn drain(source: &mut dyn MediaSource) -> Result<Decoded> {
    let mut out = Decoded::default();
    while let Some(event) = source.next_event()? {
        match event {
            MediaEvent::Opened(info) => {
                assert!(out.info.is_none() && out.stamps.is_empty());
                out.info = Some(info);
            }
            MediaEvent::Frame(frame) => {
                assert!(out.info.is_some());
                assert_eq!(frame.stamp.index, out.stamps.len() as u64);
                assert!(frame.picture.size_bytes() > 0);
                let image = frame.picture.to_rgb()?;
                if let Some(rows) = frame.picture.as_rows() {
                    let mut by_rows = Vec::new();
                    rows.rows(&mut |rows| by_rows.extend_from_slice(rows))?;
                    assert_eq!(rows.size(), (image.width, image.height));
                    assert!(by_rows == image.data, "its rows are another picture");
                }
                out.stamps.push(frame.stamp);
                out.carried.push(index_of(&image));
                out.first.get_or_insert_with(|| image.clone());
                out.last = Some(image);
            }
            MediaEvent::Gap(gap) => out.gaps.push((out.stamps.len(), gap)),
            MediaEvent::Source(_) => {}
        }
    }
    // It stays ended.
    assert!(source.next_event()?.is_none());
    Ok(out)
}

/// Limits with a short stall time, so that a hang fails soon.
pub fn limits() -> VideoLimits {
    VideoLimits {
        stall_timeout: Duration::from_secs(10),
        spool_dir: folder().to_path_buf(),
        workers: workers(),
        ..VideoLimits::default()
    }
}

/// Decoder processes where the same tests run a second time; see `isolated_video.rs`.
pub fn workers() -> Option<Workers> {
    static FORKS: LazyLock<ForkServer> = LazyLock::new(ForkServer::default);
    env!("CARGO_CRATE_NAME")
        .starts_with("isolated")
        .then(|| Workers {
            program: env!("CARGO_BIN_EXE_headhunt").into(),
            forks: Some(FORKS.clone()),
            ..Workers::of_this_program()
        })
}

pub fn open_input(input: Input) -> Result<Box<dyn MediaSource>> {
    headhunt::video::open(input, &limits(), CancellationToken::new())
}

pub fn decode(path: &Path) -> Result<Decoded> {
    drain(&mut *open_input(Input::File(path.to_path_buf()))?)
}

pub fn decode_upload(chunks: Chunks) -> Result<Decoded> {
    drain(&mut *open_input(Input::Upload(Box::new(chunks)))?)
}

/// The error of a decoding that must fail.
pub fn refusal(decoded: Result<Decoded>) -> Error {
    match decoded {
        Ok(d) => panic!("{} frames where none should be", d.stamps.len()),
        Err(e) => e,
    }
}

/// Asserts that all of `frames` came, in order, without a gap.
pub fn assert_whole(what: &str, decoded: &Decoded, frames: u64) {
    let expected: Vec<u64> = (0..frames).collect();
    assert_eq!(decoded.carried, expected, "{what}");
    assert!(decoded.gaps.is_empty(), "{what}: {:?}", decoded.gaps);
}

/// Asserts a constant frame rate: media time is index / fps within `tolerance_ms`.
pub fn assert_constant_rate(what: &str, decoded: &Decoded, fps: f64, tolerance_ms: f64) {
    for stamp in &decoded.stamps {
        let expected = stamp.index as f64 * 1000.0 / fps;
        let pts = stamp.pts.as_secs_f64() * 1000.0;
        assert!(
            (pts - expected).abs() <= tolerance_ms,
            "{what}: frame {} at {pts} ms, expected {expected}",
            stamp.index
        );
        let duration = stamp.duration.as_secs_f64() * 1000.0;
        assert!(
            (duration - 1000.0 / fps).abs() <= tolerance_ms,
            "{what}: frame {} lasts {duration} ms",
            stamp.index
        );
    }
}

/// An upload from memory.
pub struct Chunks {
    bytes: Vec<u8>,
    size: usize,
    at: usize,
    /// What comes after the bytes.
    pub then: Then,
    /// Says `Pending` before every chunk.
    pub hesitate: bool,
    /// Told how many bytes were taken so far.
    pub taken: Option<std::sync::Arc<std::sync::atomic::AtomicUsize>>,
    hesitated: bool,
}

pub enum Then {
    End,
    Stall,
    Fail(&'static str),
}

impl Chunks {
    pub fn new(bytes: Vec<u8>, size: usize) -> Self {
        Chunks {
            bytes,
            size,
            at: 0,
            then: Then::End,
            hesitate: false,
            taken: None,
            hesitated: false,
        }
    }

    pub fn then(mut self, then: Then) -> Self {
        self.then = then;
        self
    }
}

impl ChunkSource for Chunks {
    fn next_chunk(&mut self, timeout: Duration) -> Result<ChunkEvent> {
        if self.at == self.bytes.len() {
            return match self.then {
                Then::End => Ok(ChunkEvent::End),
                Then::Fail(why) => Err(Error::cancelled(why)),
                Then::Stall => {
                    std::thread::sleep(timeout);
                    Ok(ChunkEvent::Pending)
                }
            };
        }
        if self.hesitate && !self.hesitated {
            self.hesitated = true;
            return Ok(ChunkEvent::Pending);
        }
        self.hesitated = false;
        let end = self.bytes.len().min(self.at + self.size);
        let chunk = Bytes::copy_from_slice(&self.bytes[self.at..end]);
        self.at = end;
        if let Some(taken) = &self.taken {
            taken.store(end, std::sync::atomic::Ordering::SeqCst);
        }
        Ok(ChunkEvent::Bytes(chunk))
    }
}
