//! Links the first video track as the demuxer shows it, and watches what passes: sizes against the
//! limits before a picture is decoded, orientation, colours, and each encoded frame.
//!
//! Other tracks are left unlinked; their data is dropped at the pad, so they can hold nothing up.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::{
    VideoLimits,
    codec::Codec,
    graph::{Fault, Shared, broken_build, running_time},
    keys::KeyGate,
    orient::Orientation,
};
use crate::{
    error::{Error, Result},
    limits::CONTAINER_MAX_TRACKS,
};

/// Links the first video track.
pub(crate) struct Builder {
    pub(crate) pipeline: gst::glib::WeakRef<gst::Pipeline>,
    pub(crate) sink: gst::glib::WeakRef<gst_app::AppSink>,
    pub(crate) shared: Weak<Shared>,
    pub(crate) limits: VideoLimits,
    pub(crate) in_avi: bool,
    /// Its edit list says when what is shown. Not of fragments, whose times may begin anywhere.
    pub(crate) in_mp4: bool,
    /// Its tables may change midway.
    pub(crate) in_ts: bool,
    pub(crate) fragmented: bool,
    /// Keeps pictures from the decoder that would be damaged.
    pub(crate) keys: Option<Arc<KeyGate>>,
}

impl Builder {
    pub(crate) fn on_pad(&self, pad: &gst::Pad) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let Some(structure) = caps.structure(0) else {
            drop_data(pad, &shared, self.in_mp4);
            return;
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
            let dropped = drop_data(pad, &shared, self.in_mp4);
            if is_video && self.in_ts {
                let heir = &mut shared.state().heir;
                // The first one of a program, as at the start.
                if heir.as_ref().is_none_or(|heir| heir.came) {
                    *heir = dropped.map(|probe| Heir {
                        pad: pad.downgrade(),
                        probe,
                        codec: Codec::of(structure).ok(),
                        came: false,
                    });
                }
            }
            return;
        }
        if let Err(e) = self.link_video(pad, structure, &shared) {
            shared.fail(Fault::Refused(e));
            drop_data(pad, &shared, self.in_mp4);
        }
    }

    pub(crate) fn link_video(
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
        if self.keys.is_some() && decoder.find_property("std-compliance").is_some() {
            // Live: pictures are not held back for a reordering that the stream does not declare.
            decoder.set_property_from_str("std-compliance", "normal");
        }
        shared.state().honest_colors = choice.honest_colors;

        let missing = || Error::internal("a parser or decoder without pads");
        let decoder_in = decoder.static_pad("sink").ok_or_else(missing)?;
        let decoder_out = decoder.static_pad("src").ok_or_else(missing)?;
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
        let watch = Watch {
            codec,
            limits: self.limits.clone(),
            // AVI has decoding times only.
            retime: self.in_avi && codec.in_order,
            fragmented: self.fragmented,
            edited: self.in_mp4,
            into: first.downgrade(),
        };
        watch.track(pad, shared);
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

    /// At the decoder's input: the size and colours that the parser or a header tells.
    fn watch_input(&self, pad: &gst::Pad, codec: &'static Codec, shared: &Arc<Shared>) {
        let shared = Arc::clone(shared);
        let limits = self.limits.clone();
        let keys = self.keys.clone();
        let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        pad.add_probe(mask, move |_, info| {
            if is_refused(info, &shared) {
                return gst::PadProbeReturn::Handled;
            }
            if let (Some(keys), Some(buffer)) = (&keys, info.buffer())
                && !keys.admits(buffer)
            {
                shared.moved();
                return gst::PadProbeReturn::Handled;
            }
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

/// How a track is watched at the demuxer.
#[derive(Clone)]
struct Watch {
    codec: &'static Codec,
    limits: VideoLimits,
    /// Its decoding times are those of its pictures.
    retime: bool,
    fragmented: bool,
    /// As [`Builder::in_mp4`].
    edited: bool,
    /// Where it goes.
    into: gst::glib::WeakRef<gst::Pad>,
}

/// A video track that MPEG-TS shows beside the first one: another program's, or the same program's from where its tables
/// change. Then the first one ends before anything of this comes.
pub(crate) struct Heir {
    pad: gst::glib::WeakRef<gst::Pad>,
    /// Drops what comes of it.
    probe: gst::PadProbeId,
    codec: Option<&'static Codec>,
    /// Something came of it.
    pub(crate) came: bool,
}

impl Watch {
    /// At the demuxer: orientation, and each encoded frame into the ledger.
    fn track(self, pad: &gst::Pad, shared: &Arc<Shared>) {
        let shared = Arc::clone(shared);
        let mask = gst::PadProbeType::BUFFER
            | gst::PadProbeType::BUFFER_LIST
            | gst::PadProbeType::EVENT_DOWNSTREAM;
        pad.add_probe(mask, move |pad, info| {
            if is_refused(info, &shared) {
                return gst::PadProbeReturn::Handled;
            }
            match &mut info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => {
                    if self.retime && buffer.pts().is_none() {
                        let dts = buffer.dts();
                        buffer.make_mut().set_pts(dts);
                    }
                    enter(buffer, &shared, self.edited);
                }
                Some(gst::PadProbeData::BufferList(list)) => {
                    list.iter().for_each(|b| enter(b, &shared, self.edited));
                }
                Some(gst::PadProbeData::Event(event)) => {
                    if event.type_() == gst::EventType::Eos && self.pass_on(pad, &shared) {
                        return gst::PadProbeReturn::Handled;
                    }
                    if self.fragmented
                        && let Some(open) = without_stop(event)
                    {
                        *event = open;
                    }
                    if let Some((plain, colors)) = without_colors(event) {
                        *event = plain;
                        shared.state().container_colors = Some(colors);
                    }
                    note_event(event, &shared);
                    if let Err(e) = check_event(event, &self.limits) {
                        return refuse(info, &shared, e);
                    }
                }
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Where the track goes on as another one, that takes its place; whether it does.
    fn pass_on(&self, ended: &gst::Pad, shared: &Arc<Shared>) -> bool {
        let heir = shared.state().heir.take().filter(|heir| !heir.came);
        let Some((heir, pad)) = heir.and_then(|heir| heir.pad.upgrade().map(|pad| (heir, pad)))
        else {
            return false;
        };
        let same = heir
            .codec
            .is_some_and(|codec| std::ptr::eq(codec, self.codec));
        let into = self.into.upgrade().filter(|_| same);
        let linked = into.is_some_and(|into| {
            // A parser keeps the last picture until something follows that it knows to be another one.
            into.send_event(gst::event::SegmentDone::new(gst::ClockTime::NONE));
            let _ = ended.unlink(&into);
            pad.remove_probe(heir.probe);
            self.clone().track(&pad, shared);
            pad.link(&into).is_ok()
        });
        if !linked {
            let what = "the video goes on in another codec, which is not read in one stream";
            // Told at the end: what came before is still to be decoded.
            shared.state().unread = Some(what.to_owned());
        }
        linked
    }
}

/// Whether these are data behind something that was refused: a decoder would take them for more of
/// what came before, and show pictures that never were. The flow ends here; an event cannot end it.
fn is_refused(info: &mut gst::PadProbeInfo, shared: &Shared) -> bool {
    let data = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    let refused =
        info.mask.intersects(data) && matches!(shared.state().fault, Some(Fault::Refused(_)));
    if refused {
        info.flow_res = Err(gst::FlowError::Error);
    }
    refused
}

/// Records the refusal and, of data, ends the flow: the streaming thread stops before it decodes more.
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
pub(super) fn without_stop(event: &gst::EventRef) -> Option<gst::Event> {
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
fn drop_data(pad: &gst::Pad, shared: &Arc<Shared>, edited: bool) -> Option<gst::PadProbeId> {
    let weak = Arc::downgrade(shared);
    let own = Mutex::new(None);
    let mask = gst::PadProbeType::BUFFER
        | gst::PadProbeType::BUFFER_LIST
        | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(mask, move |pad, info| {
        if let Some(shared) = weak.upgrade() {
            shared.moved();
            let mut own = own.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(gst::EventView::Segment(segment)) = info.event().map(|event| event.view()) {
                *own = segment.segment().downcast_ref::<gst::ClockTime>().cloned();
            }
            if let Some(buffer) = info.buffer() {
                let mut state = shared.state();
                state.reach(buffer, own.as_ref().filter(|_| edited));
                if let Some(heir) = &mut state.heir {
                    heir.came |= heir.pad.upgrade().is_some_and(|heir| heir == *pad);
                }
            }
            if info
                .event()
                .is_some_and(|e| e.type_() == gst::EventType::Eos)
            {
                shared.state().input_ended = true;
            }
        }
        gst::PadProbeReturn::Handled
    })
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

fn enter(buffer: &gst::BufferRef, shared: &Shared, edited: bool) {
    shared.moved();
    let mut state = shared.state();
    let segment = state.segment.clone();
    state.reach(buffer, segment.as_ref().filter(|_| edited));
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
