//! Moves an upload's bytes to the demuxer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use gstreamer as gst;
use gstreamer_app as gst_app;

use super::{mender::Mender, reservoir::Reservoir, sniff::Container, upload::Stream};
use crate::{
    error::Result,
    limits::{UPLOAD_GATHER_BYTES, UPLOAD_QUEUE_BYTES, VIDEO_POLL_MILLIS},
    media::{ChunkEvent, ChunkSource},
};

pub(crate) const POLL: Duration = Duration::from_millis(VIDEO_POLL_MILLIS);

/// Takes chunks of an upload and gathers small ones.
pub(crate) struct Pump {
    chunks: Box<dyn ChunkSource>,
    gathered: Vec<u8>,
    ended: bool,
    /// Leads around damage, if the container needs it.
    mender: Option<Mender>,
    /// Where the bytes are stored, if the demuxer needs random access.
    reservoir: Option<Arc<Reservoir>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fed {
    /// Nothing was there.
    Nothing,
    /// Something was, and no more for now.
    Waiting,
    /// Enough for now; more may be there.
    Full,
    /// All there ever was.
    Ended,
}

/// False if the pipeline takes no more; its fault or its end of stream says why.
fn push(src: &gst_app::AppSrc, bytes: Vec<u8>, after_damage: bool) -> bool {
    let mut buffer = gst::Buffer::from_slice(bytes);
    if after_damage && let Some(buffer) = buffer.get_mut() {
        // The demuxer drops what is half read and passes the mark on.
        buffer.set_flags(gst::BufferFlags::DISCONT);
    }
    src.push_buffer(buffer).is_ok()
}

impl Pump {
    /// `reservoir` is where the bytes are stored, if the demuxer needs random access.
    pub(crate) fn new(
        stream: Stream,
        container: Container,
        reservoir: Option<Arc<Reservoir>>,
    ) -> Self {
        Pump {
            chunks: stream.chunks,
            gathered: stream.head,
            ended: stream.ended,
            mender: matches!(container, Container::Matroska | Container::WebM)
                .then(Mender::default),
            reservoir,
        }
    }

    /// How long to wait for more bytes; `None` if the demuxer has enough.
    pub(crate) fn patience(&self, src: &gst_app::AppSrc) -> Option<Duration> {
        let level = match &self.reservoir {
            Some(reservoir) => reservoir.ahead(),
            None => src.current_level_bytes(),
        };
        match level {
            0 => Some(POLL),
            level => (level < UPLOAD_QUEUE_BYTES).then_some(Duration::ZERO),
        }
    }

    /// Hands over what was gathered; false if the pipeline takes no more.
    pub(crate) fn deliver(&mut self, src: &gst_app::AppSrc) -> Result<bool> {
        if self.gathered.is_empty() {
            return Ok(true);
        }
        let bytes = std::mem::take(&mut self.gathered);
        if let Some(reservoir) = &self.reservoir {
            return reservoir.append(src, &bytes).map(|()| true);
        }
        let Some(mender) = &mut self.mender else {
            return Ok(push(src, bytes, false));
        };
        let mut next = mender.push(&bytes);
        while let Some(piece) = next {
            if !push(src, piece.bytes, piece.after_damage) {
                return Ok(false);
            }
            next = mender.push(&[]);
        }
        Ok(true)
    }

    pub(crate) fn end(&mut self, src: &gst_app::AppSrc) {
        if let Some(piece) = self.mender.as_mut().and_then(Mender::finish) {
            push(src, piece.bytes, piece.after_damage);
        }
        match &self.reservoir {
            Some(reservoir) => reservoir.end(src),
            None => {
                if let Err(flow) = src.end_of_stream() {
                    tracing::debug!(?flow, "the pipeline ended before its input");
                }
            }
        }
    }

    /// Gathers what is there, waiting at most `patience` for the first of it.
    pub(crate) fn gather(&mut self, patience: Duration) -> Result<Fed> {
        let mut patience = patience;
        let start = Instant::now();
        loop {
            if self.ended {
                return Ok(Fed::Ended);
            }
            // Many tiny chunks must not keep decoded frames waiting.
            if self.gathered.len() >= UPLOAD_GATHER_BYTES || start.elapsed() > POLL {
                return Ok(Fed::Full);
            }
            match self.chunks.next_chunk(patience)? {
                ChunkEvent::Bytes(bytes) => {
                    self.gathered.extend_from_slice(&bytes);
                    patience = Duration::ZERO;
                }
                ChunkEvent::End => self.ended = true,
                ChunkEvent::Pending if self.gathered.is_empty() => return Ok(Fed::Nothing),
                ChunkEvent::Pending => return Ok(Fed::Waiting),
            }
        }
    }
}
