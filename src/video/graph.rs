//! The GStreamer pipeline: source, demuxer, and, once the demuxer shows the first video track,
//! parser and decoder. What its threads find out goes into [`Shared`], which the consumer polls.
//!
//! Other tracks are left unlinked; their data is dropped at the pad, so they can hold nothing up.

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
    ledger::Ledger,
    orient::Orientation,
    reservoir::Reservoir,
    sniff::Container,
};
use crate::{
    error::{Error, Kind, Result},
    limits::{CONTAINER_MAX_TRACKS, DECODED_QUEUE_FRAMES, UPLOAD_QUEUE_BYTES},
};

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
    others: Vec<String>,
    segment: Option<gst::FormattedSegment<gst::ClockTime>>,
}

impl State {
    /// A track has come this far.
    fn reach(&mut self, buffer: &gst::BufferRef) {
        if let Some(pts) = buffer.pts().or(buffer.dts()) {
            let end = pts + buffer.duration().unwrap_or(gst::ClockTime::ZERO);
            self.reached = self.reached.max(end.nseconds());
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

    fn moved(&self) {
        self.activity.fetch_add(1, Ordering::Relaxed);
    }

    fn fail(&self, fault: Fault) {
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
    ) -> Result<Self> {
        let pipeline = gst::Pipeline::new();
        let shared = Arc::new(Shared::default());
        let (demuxer, package) = container.demuxer();
        let demuxer = codec::make(demuxer, package)?;
        let (input, src) = make_source(source)?;
        let sink = make_sink()?;
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
            fragmented,
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
        watch_bus(&pipeline, &shared)?;

        let graph = Graph {
            pipeline,
            sink,
            src,
            shared,
            stuck: false,
        };
        // An error shows up in `Shared` with its reason; this one has none.
        if graph.pipeline.set_state(gst::State::Playing).is_err()
            && graph.shared.state().fault.is_none()
        {
            return Err(Error::internal("the decoding pipeline does not start"));
        }
        Ok(graph)
    }
}

impl Graph {
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

fn broken_build(e: gst::glib::BoolError) -> Error {
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

fn make_sink() -> Result<gst_app::AppSink> {
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
        // Rows may be padded: spares the decoder a copy of every picture.
        pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| {
            if let Some(query) = info.query_mut()
                && let gst::QueryViewMut::Allocation(allocation) = query.view_mut()
            {
                allocation.add_allocation_meta::<gst_video::VideoMeta>(None);
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

/// Links the first video track.
struct Builder {
    pipeline: gst::glib::WeakRef<gst::Pipeline>,
    sink: gst::glib::WeakRef<gst_app::AppSink>,
    shared: std::sync::Weak<Shared>,
    limits: VideoLimits,
    in_avi: bool,
    fragmented: bool,
}

impl Builder {
    fn on_pad(&self, pad: &gst::Pad) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let Some(structure) = caps.structure(0) else {
            return drop_data(pad, &shared);
        };
        let kind = structure.name();
        let is_video = kind.starts_with("video/") || kind.as_str() == "image/jpeg";
        let first = {
            let mut state = shared.state();
            if !is_video && state.others.len() < CONTAINER_MAX_TRACKS {
                state.others.push(kind.to_string());
            }
            is_video && state.codec.is_none()
        };
        if !first {
            return drop_data(pad, &shared);
        }
        if let Err(e) = self.link_video(pad, structure, &shared) {
            shared.fail(Fault::Refused(e));
            drop_data(pad, &shared);
        }
    }

    fn link_video(
        &self,
        pad: &gst::Pad,
        caps: &gst::StructureRef,
        shared: &Arc<Shared>,
    ) -> Result<()> {
        let (Some(pipeline), Some(sink)) = (self.pipeline.upgrade(), self.sink.upgrade()) else {
            return Ok(());
        };
        let codec = Codec::of(caps)?;
        // From here on there is a video track, even if it is refused.
        shared.state().codec = Some(codec);
        check_caps(caps, &self.limits)?;
        let parser = codec.make_parser()?;
        let (decoder, choice) = codec.make_decoder()?;
        shared.state().honest_colors = choice.honest_colors;

        let missing = || Error::internal("a parser or decoder without pads");
        let decoder_in = decoder.static_pad("sink").ok_or_else(missing)?;
        let decoder_out = decoder.static_pad("src").ok_or_else(missing)?;
        self.watch_track(pad, codec, shared);
        self.watch_input(&decoder_in, codec, shared);
        self.watch_output(&decoder_out, shared);

        pipeline.add(&decoder).map_err(broken_build)?;
        decoder.link(&sink).map_err(broken_build)?;
        let mut first = decoder_in;
        if let Some(parser) = &parser {
            pipeline.add(parser).map_err(broken_build)?;
            parser.link(&decoder).map_err(broken_build)?;
            first = parser.static_pad("sink").ok_or_else(missing)?;
        }
        // Downstream first: data flows as soon as the pad is linked.
        decoder.sync_state_with_parent().map_err(broken_build)?;
        if let Some(parser) = &parser {
            parser.sync_state_with_parent().map_err(broken_build)?;
        }
        pad.link(&first).map_err(|e| {
            Error::invalid(format!("the {} track cannot be decoded: {e}", codec.name))
                .with_source(e)
        })?;
        Ok(())
    }

    /// At the demuxer: orientation, and each encoded frame into the ledger.
    fn watch_track(&self, pad: &gst::Pad, codec: &'static Codec, shared: &Arc<Shared>) {
        let shared = Arc::clone(shared);
        let limits = self.limits.clone();
        // AVI has decoding times only.
        let retime = self.in_avi && codec.in_order;
        let fragmented = self.fragmented;
        let mask = gst::PadProbeType::BUFFER
            | gst::PadProbeType::BUFFER_LIST
            | gst::PadProbeType::EVENT_DOWNSTREAM;
        pad.add_probe(mask, move |_, info| {
            match &mut info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => {
                    if retime && buffer.pts().is_none() {
                        let dts = buffer.dts();
                        buffer.make_mut().set_pts(dts);
                    }
                    enter(buffer, &shared);
                }
                Some(gst::PadProbeData::BufferList(list)) => {
                    list.iter().for_each(|b| enter(b, &shared));
                }
                Some(gst::PadProbeData::Event(event)) => {
                    if fragmented && let Some(open) = without_stop(event) {
                        *event = open;
                    }
                    if let Some((plain, colors)) = without_colors(event) {
                        *event = plain;
                        shared.state().container_colors = Some(colors);
                    }
                    note_event(event, &shared);
                    if let Err(e) = check_event(event, &limits) {
                        return refuse(info, &shared, e);
                    }
                }
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// At the decoder's input: the size and colours that the parser or a header tells.
    fn watch_input(&self, pad: &gst::Pad, codec: &'static Codec, shared: &Arc<Shared>) {
        let shared = Arc::clone(shared);
        let limits = self.limits.clone();
        let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        pad.add_probe(mask, move |_, info| {
            let checked = match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => {
                    shared.moved();
                    check_header(buffer, codec, &limits)
                }
                Some(gst::PadProbeData::Event(event)) => {
                    if let gst::EventView::Caps(caps) = event.view() {
                        shared.state().input_colors = caps
                            .structure()
                            .and_then(|s| s.get::<String>("colorimetry").ok());
                    }
                    check_event(event, &limits)
                }
                _ => Ok(()),
            };
            match checked {
                Ok(()) => gst::PadProbeReturn::Ok,
                Err(e) => refuse(info, &shared, e),
            }
        });
    }

    /// At the decoder's output: the last look at the size.
    fn watch_output(&self, pad: &gst::Pad, shared: &Arc<Shared>) {
        let shared = Arc::clone(shared);
        let limits = self.limits.clone();
        let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        pad.add_probe(mask, move |_, info| {
            shared.moved();
            match info.event().map(|event| check_event(event, &limits)) {
                Some(Err(e)) => refuse(info, &shared, e),
                _ => gst::PadProbeReturn::Ok,
            }
        });
    }
}

/// Records the refusal and ends the flow: the streaming thread stops before it decodes more.
fn refuse(info: &mut gst::PadProbeInfo, shared: &Shared, e: Error) -> gst::PadProbeReturn {
    shared.fail(Fault::Refused(e));
    if info.mask.contains(gst::PadProbeType::BUFFER) {
        info.flow_res = Err(gst::FlowError::Error);
    }
    gst::PadProbeReturn::Handled
}

fn check_event(event: &gst::EventRef, limits: &VideoLimits) -> Result<()> {
    match event.view() {
        gst::EventView::Caps(caps) => caps
            .caps()
            .structure(0)
            .map_or(Ok(()), |s| check_caps(s, limits)),
        _ => Ok(()),
    }
}

fn check_caps(caps: &gst::StructureRef, limits: &VideoLimits) -> Result<()> {
    let side = |field| {
        caps.get::<i32>(field)
            .ok()
            .and_then(|v| u32::try_from(v).ok())
    };
    match (side("width"), side("height")) {
        (Some(width), Some(height)) => limits.check_size(width, height),
        _ => Ok(()),
    }
}

fn check_header(buffer: &gst::BufferRef, codec: &Codec, limits: &VideoLimits) -> Result<()> {
    let Some(size_of) = codec.header_size else {
        return Ok(());
    };
    let Ok(map) = buffer.map_readable() else {
        return Ok(());
    };
    size_of(&map).map_or(Ok(()), |(width, height)| limits.check_size(width, height))
}

/// A segment event without an end. A fragmented MP4 declares its duration without the delay that
/// reordering adds, or before the last fragments were written; its last frames would be cut off.
fn without_stop(event: &gst::EventRef) -> Option<gst::Event> {
    let gst::EventView::Segment(segment) = event.view() else {
        return None;
    };
    let mut open = segment.segment().downcast_ref::<gst::ClockTime>()?.clone();
    open.set_stop(gst::ClockTime::NONE);
    let open = gst::event::Segment::builder(&open).seqnum(event.seqnum());
    Some(open.build())
}

/// A caps event without the container's colours, and those. Parsers and decoders would let them
/// override what the bitstream says, and muxers are known to lose the range.
fn without_colors(event: &gst::EventRef) -> Option<(gst::Event, String)> {
    const FIELD: &str = "colorimetry";
    let gst::EventView::Caps(caps) = event.view() else {
        return None;
    };
    let mut caps = caps.caps_owned();
    let colors = caps.structure(0)?.get::<String>(FIELD).ok()?;
    caps.make_mut().structure_mut(0)?.remove_field(FIELD);
    let plain = gst::event::Caps::builder(&caps).seqnum(event.seqnum());
    Some((plain.build(), colors))
}

/// Drops all data of a track that is not decoded.
fn drop_data(pad: &gst::Pad, shared: &Arc<Shared>) {
    let weak = Arc::downgrade(shared);
    let mask = gst::PadProbeType::BUFFER
        | gst::PadProbeType::BUFFER_LIST
        | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(mask, move |_, info| {
        if let Some(shared) = weak.upgrade() {
            shared.moved();
            if let Some(buffer) = info.buffer() {
                shared.state().reach(buffer);
            }
            if info
                .event()
                .is_some_and(|e| e.type_() == gst::EventType::Eos)
            {
                shared.state().input_ended = true;
            }
        }
        gst::PadProbeReturn::Handled
    });
}

fn note_event(event: &gst::EventRef, shared: &Shared) {
    match event.view() {
        gst::EventView::Segment(segment) => {
            shared.state().segment = segment.segment().downcast_ref::<gst::ClockTime>().cloned();
        }
        gst::EventView::Tag(tags) => {
            if let Some(tag) = tags.tag().get::<gst::tags::ImageOrientation>() {
                if let Some(orientation) = Orientation::from_tag(tag.get()) {
                    shared.state().orientation = orientation;
                } else {
                    tracing::warn!(tag = tag.get(), "unknown orientation tag ignored");
                }
            }
        }
        _ => {}
    }
}

fn enter(buffer: &gst::BufferRef, shared: &Shared) {
    shared.moved();
    let mut state = shared.state();
    state.reach(buffer);
    let pts = match (buffer.pts(), &state.segment) {
        (Some(pts), Some(segment)) => {
            // Outside of the segment (an edit list): decoded for reference only.
            if segment
                .clip(
                    pts,
                    pts + buffer
                        .duration()
                        .unwrap_or(gst::ClockTime::from_nseconds(1)),
                )
                .is_none()
            {
                return;
            }
            running_time(segment, pts)
        }
        _ => None,
    };
    let discontinuity = buffer.flags().contains(gst::BufferFlags::DISCONT);
    state.ledger.enter(pts, discontinuity);
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
