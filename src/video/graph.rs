//! The GStreamer pipeline: source, demuxer, and, once the demuxer shows the first video track,
//! parser and decoder. What its threads find out goes into [`Shared`], which the consumer polls.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;

use super::{
    VideoLimits,
    codec::{self, Codec},
    keys::KeyGate,
    ledger::Ledger,
    memory::PictureMemory,
    orient::Orientation,
    reservoir::Reservoir,
    sniff::Container,
    track::{Builder, Heir},
};
use crate::{
    error::{Error, Kind, Result},
    limits::{DECODED_QUEUE_FRAMES, UPLOAD_QUEUE_BYTES},
};

/// An element of each plugin that most streams need.
pub(super) const COMMON: &[&str] = &[
    "filesrc",
    "appsrc",
    "qtdemux",
    "matroskademux",
    "tsdemux",
    "avidemux",
    "rtph264depay",
    "h264parse",
    "avdec_h264",
];

/// Makes what most pipelines are made of, and drops it. None of it runs, so no thread is started.
pub(super) fn rehearse() {
    let pipeline = gst::Pipeline::new();
    let _bus = pipeline.bus();
    for name in COMMON {
        if let Ok(element) = gst::ElementFactory::make(name).build() {
            let _ = pipeline.add(&element);
        }
    }
    if let Ok(sink) = make_sink(None) {
        let _ = pipeline.add(&sink);
    }
}

/// Why a pipeline stopped.
pub(crate) enum Fault {
    /// The input must not be decoded, or cannot be read: always an error.
    Refused(Error),
    /// The media is damaged here: an error if nothing was decoded before it.
    Broken(String),
}

/// What the pipeline's threads found out.
#[derive(Default)]
pub(crate) struct State {
    /// The first fault.
    pub(crate) fault: Option<Fault>,
    pub(crate) codec: Option<&'static Codec>,
    /// The decoder's output names the stream's colours and only them.
    pub(crate) honest_colors: bool,
    /// Colours that the parser found in the bitstream.
    pub(crate) input_colors: Option<String>,
    /// Colours that the container declares.
    pub(crate) container_colors: Option<String>,
    pub(crate) orientation: Orientation,
    pub(crate) ledger: Ledger,
    /// The demuxer has read all of its input.
    pub(crate) input_ended: bool,
    /// The latest time that any track has reached, nanoseconds of media time.
    pub(crate) reached: u64,
    /// Kinds of the tracks that are not decoded.
    pub(crate) others: Vec<String>,
    pub(crate) segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    /// What the video track may go on as.
    pub(crate) heir: Option<Heir>,
    /// Why what follows the end is not read, if something does.
    pub(crate) unread: Option<String>,
}

impl State {
    /// A track has come this far. With its `segment` an edit list counts, as it does in what the container declares.
    pub(crate) fn reach(
        &mut self,
        buffer: &gst::BufferRef,
        segment: Option<&gst::FormattedSegment<gst::ClockTime>>,
    ) {
        if let Some(pts) = buffer.pts().or(buffer.dts()) {
            // A damaged file has times at the very end of the range.
            let end = pts.saturating_add(buffer.duration().unwrap_or(gst::ClockTime::ZERO));
            let end = match segment {
                Some(segment) => running_time(segment, end).unwrap_or(0),
                None => i64::try_from(end.nseconds()).unwrap_or(i64::MAX),
            };
            self.reached = self.reached.max(end.max(0).unsigned_abs());
        }
    }

    /// The error for an input without a video track.
    pub(crate) fn no_video(&self) -> Error {
        let found = if self.others.is_empty() {
            "no track at all".to_owned()
        } else {
            self.others.join(", ")
        };
        Error::invalid(format!("the input has no video track (found: {found})"))
    }
}

/// State and progress of one pipeline.
#[derive(Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Counts buffers that moved.
    activity: AtomicU64,
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes whenever the pipeline makes progress.
    pub(crate) fn activity(&self) -> u64 {
        self.activity.load(Ordering::Relaxed)
    }

    pub(crate) fn moved(&self) {
        self.activity.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn fail(&self, fault: Fault) {
        self.state().fault.get_or_insert(fault);
    }
}

/// Where the pipeline reads.
pub(crate) enum Source<'a> {
    /// Random access to a file.
    Path(&'a Path),
    /// Bytes that are pushed.
    Pushed,
    /// Random access to bytes that arrive.
    Growing(&'a Arc<Reservoir>),
}

/// A running pipeline. Stopped when dropped.
pub(crate) struct Graph {
    pipeline: gst::Pipeline,
    pub(crate) sink: gst_app::AppSink,
    pub(crate) src: Option<gst_app::AppSrc>,
    pub(crate) shared: Arc<Shared>,
    /// Its threads do not answer: it must not be waited for.
    pub(crate) stuck: bool,
}

impl Graph {
    /// Builds and starts it.
    pub(crate) fn start(
        source: Source<'_>,
        container: Container,
        fragmented: bool,
        limits: &VideoLimits,
        memory: Option<&PictureMemory>,
    ) -> Result<Self> {
        let pipeline = gst::Pipeline::new();
        let shared = Arc::new(Shared::default());
        let (demuxer, package) = container.demuxer();
        let demuxer = codec::make(demuxer, package)?;
        let (input, src) = make_source(source)?;
        let sink = make_sink(memory)?;
        pipeline
            .add_many([&input, &demuxer, sink.upcast_ref()])
            .and_then(|()| input.link(&demuxer))
            .map_err(broken_build)?;

        let builder = Builder {
            pipeline: pipeline.downgrade(),
            sink: sink.downgrade(),
            shared: Arc::downgrade(&shared),
            limits: limits.clone(),
            in_avi: container == Container::Avi,
            in_mp4: container == Container::Mp4 && !fragmented,
            in_ts: container == Container::MpegTs,
            fragmented,
            keys: None,
        };
        demuxer.connect_pad_added(move |_, pad| builder.on_pad(pad));
        let weak = Arc::downgrade(&shared);
        demuxer.connect_no_more_pads(move |_| {
            if let Some(shared) = weak.upgrade() {
                let mut state = shared.state();
                if state.codec.is_none() {
                    let error = state.no_video();
                    state.fault.get_or_insert(Fault::Refused(error));
                }
            }
        });
        if let Some(pad) = demuxer.static_pad("sink") {
            let weak = Arc::downgrade(&shared);
            pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
                if let (Some(event), Some(shared)) = (info.event(), weak.upgrade())
                    && event.type_() == gst::EventType::Eos
                {
                    shared.state().input_ended = true;
                }
                gst::PadProbeReturn::Ok
            });
        }
        Graph {
            pipeline,
            sink,
            src,
            shared,
            stuck: false,
        }
        .playing()
    }
}

impl Graph {
    /// Builds and starts one for the RTP packets of a track; they are pushed into `src`, with the
    /// time of their picture as PTS.
    pub(crate) fn start_rtp(
        rtp: &gst::Caps,
        depayloader: &str,
        encoded: &str,
        keys: &Arc<KeyGate>,
        limits: &VideoLimits,
        memory: Option<&PictureMemory>,
    ) -> Result<Self> {
        let pipeline = gst::Pipeline::new();
        let shared = Arc::new(Shared::default());
        let depayloader = codec::make(depayloader, "gstreamer1.0-plugins-good")?;
        let (input, src) = make_source(Source::Pushed)?;
        if let Some(src) = &src {
            src.set_format(gst::Format::Time);
            src.set_is_live(true);
            src.set_caps(Some(rtp));
        }
        let sink = make_sink(memory)?;
        pipeline
            .add_many([&input, &depayloader, sink.upcast_ref()])
            .and_then(|()| input.link(&depayloader))
            .map_err(broken_build)?;
        let builder = Builder {
            pipeline: pipeline.downgrade(),
            sink: sink.downgrade(),
            shared: Arc::downgrade(&shared),
            limits: limits.clone(),
            in_avi: false,
            in_mp4: false,
            in_ts: false,
            fragmented: false,
            keys: Some(Arc::clone(keys)),
        };
        let out = depayloader
            .static_pad("src")
            .ok_or_else(|| Error::internal("a depayloader without a pad"))?;
        builder.link_video(&out, &gst::Structure::new_empty(encoded), &shared)?;
        Graph {
            pipeline,
            sink,
            src,
            shared,
            stuck: false,
        }
        .playing()
    }

    fn playing(self) -> Result<Self> {
        watch_bus(&self.pipeline, &self.shared)?;
        // The sink first, and by itself. Were it to go to Playing with the others, frames could fill its queue
        // while it does: the decoder's thread would wait for room there, holding a lock that the change of
        // state waits for, and nobody pulls yet.
        self.sink.set_locked_state(true);
        if self.sink.set_state(gst::State::Playing).is_err() {
            return Err(Error::internal(
                "the decoding pipeline's sink does not start",
            ));
        }
        // An error shows up in `Shared` with its reason; this one has none.
        if self.pipeline.set_state(gst::State::Playing).is_err()
            && self.shared.state().fault.is_none()
        {
            return Err(Error::internal("the decoding pipeline does not start"));
        }
        Ok(self)
    }

    /// How long the container says that the media lasts.
    pub(crate) fn declared_duration(&self) -> Option<gst::ClockTime> {
        self.pipeline.query_duration::<gst::ClockTime>()
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if let Some(bus) = self.pipeline.bus() {
            bus.set_flushing(true);
        }
        self.sink.set_locked_state(false);
        if self.stuck {
            // Waiting for its threads could take for ever; the caller must not.
            let pipeline = self.pipeline.clone();
            let stop = std::thread::Builder::new()
                .name("video-stop".to_owned())
                .spawn(move || pipeline.set_state(gst::State::Null));
            if let Err(e) = stop {
                tracing::error!(error = %e, "a stuck decoding pipeline stays behind");
            }
        } else if let Err(e) = self.pipeline.set_state(gst::State::Null) {
            tracing::error!(error = %e, "a decoding pipeline does not stop");
        }
    }
}

pub(crate) fn broken_build(e: gst::glib::BoolError) -> Error {
    Error::internal("the decoding pipeline cannot be built").with_source(e)
}

fn make_source(source: Source<'_>) -> Result<(gst::Element, Option<gst_app::AppSrc>)> {
    const CORE: &str = "libgstreamer1.0-0";
    const BASE: &str = "gstreamer1.0-plugins-base";
    match source {
        Source::Path(path) => {
            let element = codec::make("filesrc", CORE)?;
            let location = path.to_str().ok_or_else(|| {
                Error::invalid(format!("the path {} is not valid UTF-8", path.display()))
            })?;
            element.set_property("location", location);
            Ok((element, None))
        }
        Source::Pushed | Source::Growing(_) => {
            let element = codec::make("appsrc", BASE)?;
            let src = element
                .clone()
                .downcast::<gst_app::AppSrc>()
                .map_err(|_| Error::internal("appsrc is not an AppSrc"))?;
            src.set_format(gst::Format::Bytes);
            src.set_stream_type(gst_app::AppStreamType::Stream);
            src.set_max_bytes(UPLOAD_QUEUE_BYTES);
            src.set_block(false);
            if let Source::Growing(reservoir) = source {
                reservoir.serve(&src);
            }
            Ok((element, Some(src)))
        }
    }
}

/// `memory` is what a decoder is to draw in, if it does not insist on its own.
fn make_sink(memory: Option<&PictureMemory>) -> Result<gst_app::AppSink> {
    let sink = codec::make("appsink", "gstreamer1.0-plugins-base")?
        .downcast::<gst_app::AppSink>()
        .map_err(|_| Error::internal("appsink is not an AppSink"))?;
    sink.set_caps(Some(&gst::Caps::new_empty_simple("video/x-raw")));
    sink.set_max_buffers(DECODED_QUEUE_FRAMES);
    sink.set_drop(false);
    sink.set_wait_on_eos(false);
    sink.set_property("sync", false);
    sink.set_property("async", false);
    sink.set_property("qos", false);
    sink.set_property("enable-last-sample", false);
    if let Some(pad) = sink.static_pad("sink") {
        let memory = memory.cloned();
        // Rows may be padded: spares the decoder a copy of every picture.
        pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, move |_, info| {
            if let Some(query) = info.query_mut()
                && let gst::QueryViewMut::Allocation(allocation) = query.view_mut()
            {
                allocation.add_allocation_meta::<gst_video::VideoMeta>(None);
                if let Some(memory) = &memory {
                    memory.offer(allocation);
                }
                return gst::PadProbeReturn::Handled;
            }
            gst::PadProbeReturn::Ok
        });
    }
    Ok(sink)
}

/// Takes errors off the bus as they are posted; nothing queues up there.
fn watch_bus(pipeline: &gst::Pipeline, shared: &Arc<Shared>) -> Result<()> {
    let bus = pipeline
        .bus()
        .ok_or_else(|| Error::internal("a pipeline without a bus"))?;
    let weak = Arc::downgrade(shared);
    bus.set_sync_handler(move |_, message| {
        if let Some(shared) = weak.upgrade() {
            match message.view() {
                gst::MessageView::Error(e) => {
                    tracing::debug!(error = %e.error(), debug = ?e.debug(), "pipeline error");
                    shared.fail(fault(e));
                }
                gst::MessageView::Warning(w) => {
                    tracing::debug!(warning = %w.error(), debug = ?w.debug(), "pipeline warning");
                }
                _ => {}
            }
        }
        gst::BusSyncReply::Drop
    });
    Ok(())
}

fn fault(message: &gst::message::Error) -> Fault {
    let error = message.error();
    let element = message
        .src()
        .and_then(|s| s.downcast_ref::<gst::Element>())
        .and_then(|e| e.factory())
        .map_or_else(|| "pipeline".to_owned(), |f| f.name().to_string());
    // The last line of the debug text says what happened; those before it, where in the library.
    let detail = message
        .debug()
        .and_then(|d| d.lines().last().map(str::to_owned))
        .filter(|d| !d.is_empty())
        .map(|d| format!(" ({d})"))
        .unwrap_or_default();
    let text = format!("{element}: {error}{detail}");
    match error.kind::<gst::ResourceError>() {
        Some(gst::ResourceError::NotFound) => {
            Fault::Refused(Error::not_found(format!("cannot read the input: {text}")))
        }
        Some(gst::ResourceError::NoSpaceLeft) => Fault::Refused(Error::exhausted(text)),
        Some(_) => Fault::Refused(Error::data_loss(format!("cannot read the input: {text}"))),
        None if error.matches(gst::CoreError::MissingPlugin) => {
            Fault::Refused(Error::new(Kind::FailedPrecondition, text))
        }
        None => Fault::Broken(text),
    }
}

/// Time since the start of playback, nanoseconds.
pub(crate) fn running_time(
    segment: &gst::FormattedSegment<gst::ClockTime>,
    pts: gst::ClockTime,
) -> Option<i64> {
    match segment.to_running_time_full(pts)? {
        gst::Signed::Positive(t) => i64::try_from(t.nseconds()).ok(),
        gst::Signed::Negative(t) => i64::try_from(t.nseconds()).ok().map(|t| -t),
    }
}
