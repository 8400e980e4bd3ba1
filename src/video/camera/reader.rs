//! One pass over a file: its encoded pictures, one by one.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::seam::Times;
use crate::{
    error::{Error, Result},
    limits::{
        CAMERA_QUEUE_PICTURES, CAMERA_READ_STALL_SECONDS, CONTAINER_MAX_TRACKS, VIDEO_POLL_MILLIS,
    },
    video::{
        codec::{self, Codec},
        graph::{broken_build, running_time},
        sniff::Container,
        track::without_stop,
        upload::Feed,
    },
};

/// How long a picture lasts where nothing says so.
const USUAL_DURATION: gst::ClockTime = gst::ClockTime::from_mseconds(40);

/// A file that can be read, and again.
#[derive(Clone, Debug)]
pub(super) struct Clip {
    pub(super) path: PathBuf,
    container: Container,
    /// A fragmented MP4.
    fragmented: bool,
}

impl Clip {
    /// Looks at the first bytes and, of an MP4, at the index.
    ///
    /// # Errors
    /// As [`crate::video::open`] of a file.
    pub(super) fn open(path: &Path) -> Result<Clip> {
        let feed = Feed::from_file(path)?;
        Ok(Clip {
            path: path.to_path_buf(),
            container: feed.container,
            fragmented: feed.fragmented,
        })
    }
}

/// How a codec travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    H264,
    H265,
    Mjpeg,
}

impl Payload {
    fn of(codec: &Codec) -> Result<Payload> {
        match codec.name {
            "h264" => Ok(Payload::H264),
            "h265" => Ok(Payload::H265),
            "mjpeg" => Ok(Payload::Mjpeg),
            other => Err(Error::invalid(format!(
                "a camera cannot send {other}; encode the file as H.264, H.265 or MJPEG"
            ))),
        }
    }

    /// What its payloader takes.
    fn caps(self) -> gst::Caps {
        let stream = |name| {
            gst::Caps::builder(name)
                .field("stream-format", "byte-stream")
                .field("alignment", "au")
                .build()
        };
        match self {
            Payload::H264 => stream("video/x-h264"),
            Payload::H265 => stream("video/x-h265"),
            Payload::Mjpeg => gst::Caps::new_empty_simple("image/jpeg"),
        }
    }

    /// The element that cuts it into packets, with its settings: parameter sets before every key
    /// frame, so that a client may join at any time.
    pub(super) fn payloader(self) -> &'static str {
        match self {
            Payload::H264 => "rtph264pay config-interval=-1 pt=96",
            Payload::H265 => "rtph265pay config-interval=-1 pt=96",
            Payload::Mjpeg => "rtpjpegpay pt=26",
        }
    }
}

/// An encoded picture.
pub(super) struct Unit {
    pub(super) buffer: gst::Buffer,
    pub(super) caps: gst::Caps,
    pub(super) times: Times,
    /// Nanoseconds.
    pub(super) duration: i64,
}

/// What the demuxer's thread found out.
#[derive(Default)]
struct Found {
    fault: Option<Error>,
    payload: Option<Payload>,
    /// Kinds of the tracks that are not sent.
    others: Vec<String>,
}

type Shared = Arc<Mutex<Found>>;

fn lock(shared: &Shared) -> MutexGuard<'_, Found> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a file once. Stopped when dropped.
pub(super) struct Reader {
    pipeline: gst::Pipeline,
    sink: gst_app::AppSink,
    found: Shared,
    /// Where the last picture ended.
    end: i64,
}

impl Reader {
    /// Begins at the start of the file.
    pub(super) fn open(clip: &Clip) -> Result<Reader> {
        let pipeline = gst::Pipeline::new();
        let input = codec::make("filesrc", "libgstreamer1.0-0")?;
        let location = clip.path.to_str().ok_or_else(|| {
            let shown = clip.path.display();
            Error::invalid(format!("the path {shown} is not valid UTF-8"))
        })?;
        input.set_property("location", location);
        let (demuxer, package) = clip.container.demuxer();
        let demuxer = codec::make(demuxer, package)?;
        let sink = make_sink()?;
        pipeline
            .add_many([&input, &demuxer, sink.upcast_ref()])
            .and_then(|()| input.link(&demuxer))
            .map_err(broken_build)?;
        let found = Shared::default();
        watch(&pipeline, &demuxer, &sink, clip.fragmented, &found)?;
        let reader = Reader {
            pipeline,
            sink,
            found,
            end: 0,
        };
        // The sink first, and by itself; `video::graph` says why.
        reader.sink.set_locked_state(true);
        if reader.sink.set_state(gst::State::Playing).is_err() {
            return Err(Error::internal(
                "the reading pipeline's sink does not start",
            ));
        }
        // An error shows up in `Found` with its reason; this one has none.
        if reader.pipeline.set_state(gst::State::Playing).is_err()
            && lock(&reader.found).fault.is_none()
        {
            return Err(Error::internal("the reading pipeline does not start"));
        }
        Ok(reader)
    }

    /// How the file's video travels; known once [`Self::next`] has given a picture.
    pub(super) fn payload(&self) -> Option<Payload> {
        lock(&self.found).payload
    }

    /// The next picture, or `None` at the end of the file and when `stopped` says so.
    ///
    /// # Errors
    /// `InvalidArgument` for a file without a video track that can be sent, `DataLoss` for one that
    /// is damaged from here on, `DeadlineExceeded` for one that cannot be read.
    pub(super) fn next(&mut self, stopped: impl Fn() -> bool) -> Result<Option<Unit>> {
        let begun = Instant::now();
        loop {
            let poll = gst::ClockTime::from_mseconds(VIDEO_POLL_MILLIS);
            if let Some(sample) = self.sink.try_pull_sample(poll) {
                if let Some(unit) = self.unit(&sample) {
                    return Ok(Some(unit));
                }
                continue;
            }
            if let Some(fault) = lock(&self.found).fault.take() {
                return Err(fault);
            }
            if self.sink.is_eos() || stopped() {
                return Ok(None);
            }
            if begun.elapsed() > Duration::from_secs(CAMERA_READ_STALL_SECONDS) {
                return Err(Error::deadline(format!(
                    "nothing could be read from the file for {CAMERA_READ_STALL_SECONDS} s"
                )));
            }
        }
    }

    fn unit(&mut self, sample: &gst::Sample) -> Option<Unit> {
        let buffer = sample.buffer_owned()?;
        let caps = sample.caps_owned()?;
        let segment = sample
            .segment()
            .and_then(|s| s.downcast_ref::<gst::ClockTime>());
        let running = |time: Option<gst::ClockTime>| running_time(segment?, time?);
        let dts = running(buffer.dts());
        // AVI has decoding times only.
        let pts = running(buffer.pts()).or(dts).unwrap_or(self.end);
        let duration = buffer
            .duration()
            .filter(|d| !d.is_zero())
            .or_else(|| of_rate(&caps))
            .unwrap_or(USUAL_DURATION);
        let duration = i64::try_from(duration.nseconds()).ok()?;
        self.end = self.end.max(pts.saturating_add(duration));
        Some(Unit {
            buffer,
            caps,
            times: Times { pts, dts },
            duration,
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.sink.set_locked_state(false);
        if let Err(e) = self.pipeline.set_state(gst::State::Null) {
            tracing::error!(error = %e, "a reading pipeline does not stop");
        }
    }
}

/// A picture's duration by the frame rate.
fn of_rate(caps: &gst::Caps) -> Option<gst::ClockTime> {
    let rate = caps.structure(0)?.get::<gst::Fraction>("framerate").ok()?;
    let (frames, seconds) = (
        u64::try_from(rate.numer()).ok()?,
        u64::try_from(rate.denom()).ok()?,
    );
    gst::ClockTime::SECOND.mul_div_floor(seconds, frames)
}

fn make_sink() -> Result<gst_app::AppSink> {
    let sink = codec::make("appsink", "gstreamer1.0-plugins-base")?
        .downcast::<gst_app::AppSink>()
        .map_err(|_| Error::internal("appsink is not an AppSink"))?;
    sink.set_max_buffers(CAMERA_QUEUE_PICTURES);
    sink.set_drop(false);
    sink.set_wait_on_eos(false);
    sink.set_property("sync", false);
    sink.set_property("async", false);
    sink.set_property("qos", false);
    sink.set_property("enable-last-sample", false);
    Ok(sink)
}

/// Links the first video track when it shows, and keeps the first error.
fn watch(
    pipeline: &gst::Pipeline,
    demuxer: &gst::Element,
    sink: &gst_app::AppSink,
    fragmented: bool,
    found: &Shared,
) -> Result<()> {
    let (weak_pipeline, weak_sink) = (pipeline.downgrade(), sink.downgrade());
    let weak = Arc::downgrade(found);
    demuxer.connect_pad_added(move |_, pad| {
        let (Some(pipeline), Some(sink), Some(found)) =
            (weak_pipeline.upgrade(), weak_sink.upgrade(), weak.upgrade())
        else {
            return;
        };
        match link(&pipeline, &sink, pad, fragmented, &found) {
            Ok(true) => {}
            Ok(false) => drop_data(pad),
            Err(e) => {
                lock(&found).fault.get_or_insert(e);
                drop_data(pad);
            }
        }
    });
    let weak = Arc::downgrade(found);
    demuxer.connect_no_more_pads(move |_| {
        let Some(found) = weak.upgrade() else { return };
        let mut found = lock(&found);
        if found.payload.is_none() {
            let others = match found.others.is_empty() {
                true => "no track at all".to_owned(),
                false => found.others.join(", "),
            };
            let error = Error::invalid(format!("the file has no video track (found: {others})"));
            found.fault.get_or_insert(error);
        }
    });
    let bus = pipeline
        .bus()
        .ok_or_else(|| Error::internal("a pipeline without a bus"))?;
    let weak = Arc::downgrade(found);
    bus.set_sync_handler(move |_, message| {
        if let (gst::MessageView::Error(e), Some(found)) = (message.view(), weak.upgrade()) {
            let error = Error::data_loss(format!("the file cannot be read: {}", e.error()));
            lock(&found).fault.get_or_insert(error);
        }
        gst::BusSyncReply::Drop
    });
    Ok(())
}

/// Links a track if it is the first video track; false if it is not.
fn link(
    pipeline: &gst::Pipeline,
    sink: &gst_app::AppSink,
    pad: &gst::Pad,
    fragmented: bool,
    found: &Shared,
) -> Result<bool> {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    let Some(structure) = caps.structure(0) else {
        return Ok(false);
    };
    let kind = structure.name();
    if !kind.starts_with("video/") && kind.as_str() != "image/jpeg" {
        let mut found = lock(found);
        if found.others.len() < CONTAINER_MAX_TRACKS {
            found.others.push(kind.to_string());
        }
        return Ok(false);
    }
    if lock(found).payload.is_some() {
        return Ok(false);
    }
    let codec = Codec::of(structure)?;
    let payload = Payload::of(codec)?;
    lock(found).payload = Some(payload);
    sink.set_caps(Some(&payload.caps()));
    if fragmented {
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| {
            if let Some(event) = info.event_mut()
                && let Some(open) = without_stop(event)
            {
                *event = open;
            }
            gst::PadProbeReturn::Ok
        });
    }
    let mut first: gst::Element = sink.clone().upcast();
    if let Some(parser) = codec.make_parser()? {
        pipeline.add(&parser).map_err(broken_build)?;
        parser.link(sink).map_err(broken_build)?;
        parser.sync_state_with_parent().map_err(broken_build)?;
        first = parser;
    }
    let missing = || Error::internal("a parser or sink without pads");
    let input = first.static_pad("sink").ok_or_else(missing)?;
    pad.link(&input).map_err(|e| {
        Error::invalid(format!("the {} track cannot be read: {e}", codec.name)).with_source(e)
    })?;
    Ok(true)
}

/// Drops all data of a track that is not sent, so that it holds nothing up.
fn drop_data(pad: &gst::Pad) {
    let mask = gst::PadProbeType::BUFFER
        | gst::PadProbeType::BUFFER_LIST
        | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(mask, |_, _| gst::PadProbeReturn::Handled);
}
