//! Live sources: connection after connection, one line of frames and gaps.
//!
//! ```text
//! camera ─▶ task: rtsp session ─▶ bounded channel ─▶ decode thread: line ─▶ decoder ─▶ frames, gaps
//! ```
//!
//! The session is a task of the runtime; everything else runs on the thread that pulls the source.
//! Each connection has a decoder of its own, so nothing of a broken one reaches the next. What is
//! lost between two connections is one gap, whatever its cause; attempts that fail in between are
//! told as source states.

mod attempt;
mod connection;
mod line;
mod pace;
mod policy;
mod sequencer;
mod source;

pub use attempt::{Camera, Dial, Packets, Pending};
pub(crate) use connection::Connection;
pub(crate) use line::Placed;

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, sync::Notify};
use tokio_util::sync::CancellationToken;

use super::{VideoLimits, ledger::Loss};
use crate::{
    clock::Clock,
    error::Result,
    media::{MediaSource, Picture},
    rtsp::{Codec, Packet},
};
use source::LiveSource;

/// What a live source runs with.
#[derive(Clone)]
pub struct LiveOptions {
    /// What one source may use.
    pub limits: VideoLimits,
    /// Waits for cameras run on it.
    pub clock: Arc<dyn Clock>,
    /// Packets that arrive for so long without any picture are a failure like silence.
    pub picture_timeout: Duration,
    /// Where connections run; a multi-threaded runtime.
    pub runtime: Handle,
}

/// Opens a live source; returns at once. It goes on until `stop` or `cancel` fires or a failure that
/// no other attempt can mend: `stop` lets it deliver what has arrived, `cancel` ends it as
/// `Cancelled`.
///
/// # Errors
/// `FailedPrecondition` if GStreamer cannot start. From [`MediaSource::next_event`]:
/// `FailedPrecondition` (credentials, certificate), `PermissionDenied` (address), `NotFound`,
/// `InvalidArgument` (codec, size of the picture), `Unavailable` (stopped before the first frame).
pub fn open(
    dial: Arc<dyn Dial>,
    options: LiveOptions,
    stop: CancellationToken,
    cancel: CancellationToken,
) -> Result<Box<dyn MediaSource>> {
    if options.limits.workers.is_none() {
        super::init()?;
    }
    Ok(Box::new(LiveSource::new(dial, options, stop, cancel)))
}

/// The decoder of one connection: RTP packets in, pictures out; here or in another process.
pub(crate) trait Decoding: Send {
    /// Fires when a picture or the end is there.
    fn look(&self) -> Arc<Notify>;

    /// Whether it takes more packets now.
    fn wants(&self) -> bool;

    /// Pictures that came out.
    fn pictures(&self) -> u64;

    /// Of its track.
    fn codec(&self) -> Codec;

    /// Takes the next packet.
    fn push(&mut self, packet: &Packet, placed: Placed);

    /// No more packets will come.
    fn end(&mut self);

    /// The next picture, if one is there.
    fn pull(&mut self) -> Result<Pulled>;
}

/// A decoded picture.
pub(crate) struct Decoded {
    /// Where [`Line`] put its packets, nanoseconds.
    pub(crate) pts: i64,
    pub(crate) picture: Arc<dyn Picture>,
    /// Width and height of the upright picture, pixels.
    pub(crate) size: (u32, u32),
    /// When its packets arrived.
    pub(crate) arrived: Option<Duration>,
    /// What is missing before it.
    pub(crate) loss: Loss,
    /// The camera's clock jumped before it.
    pub(crate) jumped: bool,
}

/// What is at hand.
pub(crate) enum Pulled {
    Picture(Decoded),
    Nothing,
    /// All pictures are out; the fault that ended it, if one did.
    Ended(Option<String>),
}

fn codec_name(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "h264",
        Codec::H265 => "h265",
        Codec::Mjpeg => "mjpeg",
    }
}
