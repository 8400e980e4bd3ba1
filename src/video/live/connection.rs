//! The decoder of one connection: RTP packets in, pictures out.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use gstreamer as gst;
use gstreamer_app as gst_app;
use tokio::sync::Notify;

use super::{Decoded, Decoding, Pulled, line::Placed};
use crate::{
    error::{Error, Result},
    limits::{PENDING_MAX_FRAMES, UPLOAD_QUEUE_BYTES},
    rtsp::{Codec, Packet, Track},
    video::{
        VideoLimits,
        graph::{Fault, Graph},
        keys::{KeyGate, lacking},
        ledger::Loss,
        memory::PictureMemory,
        picture::{Formats, GstPicture},
    },
};

/// The decoder of one connection.
pub(crate) struct Connection {
    graph: Graph,
    limits: VideoLimits,
    keys: Arc<KeyGate>,
    formats: Formats,
    /// PTS and marker of the packet before.
    previous: Option<(i64, bool)>,
    /// When the first packet of a picture arrived, by its PTS.
    arrivals: BTreeMap<i64, Duration>,
    /// PTS at which the camera's clock jumped.
    jumps: VecDeque<i64>,
    pictures: u64,
    codec: Codec,
    /// Fires when a picture or the end is there.
    look: Arc<Notify>,
}

impl Connection {
    /// Starts it, with pictures in this memory where the decoder can.
    pub(crate) fn start(
        track: &Track,
        limits: &VideoLimits,
        memory: Option<&PictureMemory>,
    ) -> Result<Self> {
        let (depayloader, encoding, encoded) = match track.codec {
            Codec::H264 => ("rtph264depay", "H264", "video/x-h264"),
            Codec::H265 => ("rtph265depay", "H265", "video/x-h265"),
            Codec::Mjpeg => ("rtpjpegdepay", "JPEG", "image/jpeg"),
        };
        let keys = Arc::new(KeyGate::new());
        let rtp = caps(track, encoding);
        let graph = Graph::start_rtp(&rtp, depayloader, encoded, &keys, limits, memory)?;
        let look = Arc::new(Notify::new());
        let (picture, end) = (Arc::clone(&look), Arc::clone(&look));
        graph.sink.set_callbacks(
            gst_app::AppSinkCallbacks::builder()
                .new_sample(move |_| {
                    picture.notify_one();
                    Ok(gst::FlowSuccess::Ok)
                })
                .eos(move |_| end.notify_one())
                .build(),
        );
        Ok(Connection {
            graph,
            limits: limits.clone(),
            keys,
            formats: Formats::default(),
            previous: None,
            arrivals: BTreeMap::new(),
            jumps: VecDeque::new(),
            pictures: 0,
            codec: track.codec,
            look,
        })
    }

    /// Bytes of packets that the depayloader has not taken yet.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.graph
            .src
            .as_ref()
            .map_or(0, |src| src.current_level_bytes())
    }

    fn picture(&mut self, sample: &gst::Sample) -> Result<Decoded> {
        let (Some(buffer), Some(caps)) = (sample.buffer_owned(), sample.caps()) else {
            return Err(Error::internal(
                "the decoder gave a frame without a picture",
            ));
        };
        let format = self.formats.of(caps, &self.graph.shared, &self.limits)?;
        let pts = buffer
            .pts()
            .and_then(|pts| i64::try_from(pts.nseconds()).ok())
            .ok_or_else(|| Error::internal("the decoder gave a frame without a time"))?;
        let loss = {
            let mut state = self.graph.shared.state();
            state.ledger.picture(Some(pts))
        };
        let arrived = self.arrivals.range(..=pts).next_back().map(|(_, at)| *at);
        self.arrivals = self.arrivals.split_off(&pts);
        let mut jumped = false;
        while self.jumps.front().is_some_and(|at| *at <= pts) {
            self.jumps.pop_front();
            jumped = true;
        }
        self.pictures += 1;
        Ok(Decoded {
            pts,
            size: format.size(),
            picture: Arc::new(GstPicture::new(buffer, format)),
            arrived,
            // What precedes a connection's first key frame was never promised.
            loss: if self.pictures == 1 {
                Loss::default()
            } else {
                loss
            },
            jumped,
        })
    }
}

impl Decoding for Connection {
    fn look(&self) -> Arc<Notify> {
        Arc::clone(&self.look)
    }

    fn wants(&self) -> bool {
        self.graph.src.is_some() && self.waiting_bytes() < UPLOAD_QUEUE_BYTES
    }

    fn pictures(&self) -> u64 {
        self.pictures
    }

    fn codec(&self) -> Codec {
        self.codec
    }

    fn push(&mut self, packet: &Packet, placed: Placed) {
        // The line begins at 0; a picture before its first one has no place of its own.
        let pts = placed.pts.as_nanos().max(0);
        if placed.jumped && self.jumps.len() < PENDING_MAX_FRAMES {
            self.jumps.push_back(pts);
        }
        if packet.lost > 0
            && let Some((before, whole)) = self.previous
        {
            let (from, to) = lacking(before, whole, pts);
            self.keys.lost(from, to);
        }
        self.arrivals.entry(pts).or_insert(packet.arrived);
        while self.arrivals.len() > PENDING_MAX_FRAMES {
            self.arrivals.pop_first();
        }
        let marker = packet.data.get(1).is_some_and(|byte| byte & 0x80 != 0);
        self.previous = Some((pts, marker));
        let mut buffer = gst::Buffer::from_slice(packet.data.clone());
        if let Some(fresh) = buffer.get_mut() {
            fresh.set_pts(gst::ClockTime::from_nseconds(pts.unsigned_abs()));
        }
        if let Some(src) = &self.graph.src {
            // A pipeline that takes no more says why through its fault.
            let _ = src.push_buffer(buffer);
        }
    }

    fn end(&mut self) {
        if let Some(src) = &self.graph.src {
            let _ = src.end_of_stream();
        }
    }

    fn pull(&mut self) -> Result<Pulled> {
        // Asked before pulling: pictures decoded before the fault are still in the queue.
        let faulty = self.graph.shared.state().fault.is_some();
        if let Some(sample) = self.graph.sink.try_pull_sample(gst::ClockTime::ZERO) {
            return self.picture(&sample).map(Pulled::Picture);
        }
        if faulty {
            return match self.graph.shared.state().fault.take() {
                Some(Fault::Refused(error)) => Err(error),
                Some(Fault::Broken(text)) => Ok(Pulled::Ended(Some(text))),
                None => Ok(Pulled::Ended(None)),
            };
        }
        Ok(if self.graph.sink.is_eos() {
            Pulled::Ended(None)
        } else {
            Pulled::Nothing
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The callbacks hold the notifier alone, so nothing here refers to itself.
        self.graph
            .sink
            .set_callbacks(gst_app::AppSinkCallbacks::builder().build());
    }
}

/// What the depayloader has to know of a track.
fn caps(track: &Track, encoding: &str) -> gst::Caps {
    let mut caps = gst::Caps::builder("application/x-rtp")
        .field("media", "video")
        .field("payload", i32::from(track.payload_type))
        .field(
            "clock-rate",
            i32::try_from(track.clock_rate).unwrap_or(i32::MAX),
        )
        .field("encoding-name", encoding);
    for (name, value) in &track.parameters {
        // Of all that cameras write here these alone mean something to a depayloader.
        if matches!(
            name.as_str(),
            "packetization-mode"
                | "profile-level-id"
                | "sprop-parameter-sets"
                | "sprop-vps"
                | "sprop-sps"
                | "sprop-pps"
                | "sprop-max-don-diff"
                | "x-dimensions"
        ) {
            caps = caps.field(name.as_str(), value.as_str());
        }
    }
    caps.build()
}
