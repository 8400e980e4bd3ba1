//! The vocabulary of media: time, frames, gaps, and the seam between a source of frames and its
//! users. Nothing here knows how bytes become frames.

pub(crate) mod spare;

use std::{
    any::Any,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Media time in nanoseconds since the first frame of the media.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct MediaTime(i64);

impl MediaTime {
    /// The start of the media.
    pub const ZERO: MediaTime = MediaTime(0);

    /// From nanoseconds.
    pub const fn from_nanos(nanos: i64) -> Self {
        MediaTime(nanos)
    }

    /// In nanoseconds.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// In seconds; exact to about 0.1 µs over a year.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// Later by `span`, saturating.
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        MediaTime(
            self.0
                .saturating_add(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)),
        )
    }

    /// Time from `earlier` to here; zero if `earlier` is later.
    pub fn saturating_since(self, earlier: MediaTime) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for MediaTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}s", self.as_secs_f64())
    }
}

/// Bytes of an RGB picture of this width and height.
pub fn rgb_bytes((width, height): (u32, u32)) -> usize {
    (width as usize)
        .saturating_mul(height as usize)
        .saturating_mul(3)
}

/// An RGB picture, u8, rows of `width * 3` bytes without padding.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbImage {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `height * width * 3` bytes, row-major, R G B.
    pub data: Vec<u8>,
}

impl fmt::Debug for RgbImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RgbImage({}x{})", self.width, self.height)
    }
}

/// An RGB picture that many may hold. Two of the same pixels are equal, wherever they lie.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedImage {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `height * width * 3` bytes, row-major, R G B.
    pub data: Arc<[u8]>,
}

impl SharedImage {
    /// A square picture.
    pub fn square(side: u32, data: impl Into<Arc<[u8]>>) -> Self {
        SharedImage {
            width: side,
            height: side,
            data: data.into(),
        }
    }

    /// Width and height, pixels.
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Whether it has the bytes of its size, and not none.
    pub fn is_whole(&self) -> bool {
        !self.data.is_empty() && self.data.len() == rgb_bytes(self.size())
    }
}

/// The memory is for the next picture.
impl Drop for SharedImage {
    fn drop(&mut self) {
        spare::give_back(std::mem::take(&mut self.data));
    }
}

impl From<RgbImage> for SharedImage {
    fn from(image: RgbImage) -> Self {
        SharedImage {
            width: image.width,
            height: image.height,
            data: image.data.into(),
        }
    }
}

impl fmt::Debug for SharedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedImage({}x{})", self.width, self.height)
    }
}

/// A picture whose RGB rows come one after another: who needs each of them once has them while they are in
/// the nearest cache.
pub trait RgbRows {
    /// Width and height, pixels.
    fn size(&self) -> (u32, u32);

    /// Gives all rows, from the top, some at a time: each time whole rows of `width * 3` bytes.
    ///
    /// Fails as [`Picture::to_rgb`], and then has given fewer.
    fn rows(&self, give: &mut dyn FnMut(&[u8])) -> Result<()>;
}

impl RgbRows for RgbImage {
    fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    fn rows(&self, give: &mut dyn FnMut(&[u8])) -> Result<()> {
        give(&self.data);
        Ok(())
    }
}

/// A decoded picture that is converted to RGB only when it is sampled.
pub trait Picture: Any + Send + Sync {
    /// The picture in RGB (full range), with its own colorimetry and range, upright.
    ///
    /// `DataLoss` where it is gone with the process that held it.
    fn to_rgb(&self) -> Result<RgbImage>;

    /// The same by rows; `None` where all of it has to be there before the first row is.
    fn as_rows(&self) -> Option<&dyn RgbRows> {
        None
    }

    /// Memory it holds, bytes.
    fn size_bytes(&self) -> usize;

    /// Says that [`fetch`](Self::fetch) will be asked for the same soon; others may be asked between.
    fn will_reduce(&self, how: &Reduction) {
        let _ = how;
    }

    /// What another process made of a picture that it alone can read; `None` where it can be read here.
    ///
    /// Fails as [`to_rgb`](Self::to_rgb).
    fn fetch(&self, how: &Reduction) -> Option<Result<Reduced>> {
        let _ = how;
        None
    }
}

/// What is wanted of a picture, in this order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reduction {
    /// Blacked out: polygons in parts of the upright picture's width and height.
    pub masks: Vec<Vec<(f64, f64)>>,
    /// Width and height of the model's picture, pixels.
    pub side: u32,
    /// A JPEG for people.
    pub snapshot: Option<SnapshotRules>,
}

impl Reduction {
    /// Of the model's picture.
    pub fn bytes(&self) -> usize {
        rgb_bytes((self.side, self.side))
    }
}

/// What was made of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reduced<P = Arc<[u8]>> {
    /// The model's picture: `side * side * 3` bytes, RGB; nothing where they were put where they are wanted.
    pub pixels: P,
    /// Width and height of the upright picture, pixels.
    pub upright: (u32, u32),
    /// For people, where asked for and where it could be made small enough.
    pub jpeg: Option<Arc<[u8]>>,
}

/// Reduces a picture that lies here; the pixels go into the slice, which is `side * side * 3` bytes.
pub type Reduce =
    Box<dyn Fn(&dyn Picture, &Reduction, &mut [u8]) -> Result<Reduced<()>> + Send + Sync>;

/// What pictures for people keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRules {
    /// Largest width or height, pixels.
    pub max_side: u32,
    /// Largest picture, bytes.
    pub max_bytes: usize,
}

/// Where and when a frame stands in the media.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameStamp {
    /// Zero-based count of decoded frames.
    pub index: u64,
    /// Presentation time; never before the frame decoded before it.
    pub pts: MediaTime,
    /// How long it is shown; estimated where the media does not say.
    pub duration: Duration,
}

impl FrameStamp {
    /// PTS + duration.
    pub fn end(&self) -> MediaTime {
        self.pts.saturating_add(self.duration)
    }
}

/// A decoded frame.
#[derive(Clone)]
pub struct Frame {
    /// Where and when.
    pub stamp: FrameStamp,
    /// What it shows.
    pub picture: Arc<dyn Picture>,
    /// When the last byte of it had arrived; of live sources alone.
    pub received: Option<SystemTime>,
}

/// Facts about a source, known when its first frame is decoded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MediaInfo {
    /// Container, e.g. `mp4`, `matroska`, `mpegts`, `avi`.
    pub container: String,
    /// Codec, e.g. `h264`.
    pub codec: String,
    /// Width of an upright frame, pixels.
    pub width: u32,
    /// Height of an upright frame, pixels.
    pub height: u32,
    /// Declared frames per second; `None` where the file does not say or it varies.
    pub declared_fps: Option<f64>,
}

/// Why a part of the media has no scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GapReason {
    /// The decoder could not decode part of the media.
    DecodeError,
    /// Media time jumped.
    TimestampJump,
    /// The connection to the source was lost.
    ConnectionLost,
    /// The source sent nothing for longer than the stall time.
    Stalled,
    /// The segment could not be scored in time and was dropped.
    LoadShed,
}

impl GapReason {
    /// Stable name for logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            GapReason::DecodeError => "decode_error",
            GapReason::TimestampJump => "timestamp_jump",
            GapReason::ConnectionLost => "connection_lost",
            GapReason::Stalled => "stalled",
            GapReason::LoadShed => "load_shed",
        }
    }
}

/// A part of the media that has no scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// End of the last good frame.
    pub from: MediaTime,
    /// Start of the next good frame.
    pub to: MediaTime,
    /// Why.
    pub reason: GapReason,
    /// Frames lost, as far as it can be known.
    pub frames_lost: u64,
    /// What happened, for people.
    pub detail: String,
}

/// How a live source is; for people who watch it. Frames and gaps say what that means for the media.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceState {
    /// The connection is up and a key frame has been decoded.
    Connected,
    /// There is no connection, or nothing comes over it.
    Interrupted {
        /// What the gap will be reported as.
        reason: GapReason,
        /// What happened; without credentials.
        detail: String,
        /// Failed attempts in a row, this one included.
        attempts: u32,
        /// When the next attempt begins, from now.
        retry_in: Duration,
    },
}

/// What a source yields, in media order: one `Opened`, then frames and gaps.
#[derive(Clone)]
pub enum MediaEvent {
    /// Before the first frame.
    Opened(MediaInfo),
    /// The next frame.
    Frame(Frame),
    /// Frames are missing here; the next frame starts a new run.
    Gap(Gap),
    /// A live source was interrupted or is back. An interruption ends the run at once; its gap comes
    /// when the source is back or ends, since only then its length is known.
    Source(SourceState),
}

/// A source of decoded frames. It is pulled: a consumer that does not ask holds the decoder back.
pub trait MediaSource: Send {
    /// The next event, or `None` at the orderly end of the media. Blocks; returns
    /// [`Kind::Cancelled`](crate::error::Kind::Cancelled) soon after its cancellation token fires.
    fn next_event(&mut self) -> Result<Option<MediaEvent>>;
}

/// Encoded bytes as they arrive, e.g. from an upload. It is pulled like [`MediaSource`].
pub trait ChunkSource: Send {
    /// Waits at most `timeout` for more bytes.
    fn next_chunk(&mut self, timeout: Duration) -> Result<ChunkEvent>;
}

/// What [`ChunkSource::next_chunk`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChunkEvent {
    /// More bytes; may be empty.
    Bytes(prost::bytes::Bytes),
    /// Nothing within the timeout; ask again.
    Pending,
    /// The input ended in an orderly way.
    End,
}
