//! VIDEO: bytes to frames; the only room that imports GStreamer.
//!
//! [`open`] takes a file or an upload and gives a [`MediaSource`] that is pulled for frames and
//! gaps. One pass over the bytes, bounded memory, no free choice of plugins: the container is told
//! by its magic bytes, and the demuxer, parser and decoder come from an allow-list.
//!
//! - `sniff`, `boxes`: which container, and whether it can be decoded while it arrives.
//! - `spool`, `reservoir`: the capped temporary file for those that need random access, read
//!   when it is whole or while it grows.
//! - [`encode`]: the other way, RGB to H.264, for the demo's clips.
//! - [`camera`]: a file served over RTSP for ever, for tests and trials.
//! - `codec`: which parser and decoder.
//! - `graph`, `track`: the GStreamer pipeline; `pump`: what feeds it; `decode`: the source that
//!   pulls it.
//! - [`live`]: cameras: connection after connection, one line of frames and gaps; `keys`: which
//!   pictures are whole.
//! - [`timeline`], `ledger`: PTS rules and the count of lost frames; pure.
//! - `mender`: leads a Matroska stream around its damage; pure.
//! - [`convert`], `orient`, `picture`: planes to upright RGB; `planes`: the same behind a way on which bytes are dear.
//! - [`worker`]: the same in a process of its own for each source.

mod boxes;
pub mod camera;
mod codec;
pub mod convert;
mod decode;
pub mod encode;
mod graph;
mod keys;
mod ledger;
mod level;
pub mod live;
mod memory;
mod mender;
mod orient;
mod picture;
mod planes;
mod pump;
mod reservoir;
mod sniff;
mod spool;
pub mod timeline;
mod track;
mod upload;
pub mod worker;

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::{
    error::{Error, Kind, Result, ResultExt as _},
    limits,
    media::{ChunkSource, MediaEvent, MediaSource},
};

/// Where the encoded bytes come from.
pub enum Input {
    /// A regular file.
    File(PathBuf),
    /// Chunks that arrive.
    Upload(Box<dyn ChunkSource>),
}

/// What one source may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoLimits {
    /// Most pixels in a frame.
    pub max_pixels: u64,
    /// Largest width or height of a frame, pixels.
    pub max_side: u32,
    /// Folder of the temporary file of an upload that cannot be decoded as it arrives.
    pub spool_dir: PathBuf,
    /// Largest such file, bytes.
    pub spool_max_bytes: u64,
    /// Longest wait without any progress.
    pub stall_timeout: Duration,
    /// Decodes in a process for each source; `None`: in this one.
    pub workers: Option<worker::Workers>,
}

impl Default for VideoLimits {
    fn default() -> Self {
        VideoLimits {
            max_pixels: limits::FRAME_MAX_PIXELS,
            max_side: limits::FRAME_MAX_SIDE,
            spool_dir: std::env::temp_dir(),
            spool_max_bytes: limits::SPOOL_MAX_BYTES,
            stall_timeout: Duration::from_secs(limits::VIDEO_STALL_SECONDS),
            workers: None,
        }
    }
}

impl VideoLimits {
    /// Refuses a frame of this size, naming the limit.
    pub(crate) fn check_size(&self, width: u32, height: u32) -> Result<()> {
        if width == 0 || height == 0 {
            return Err(Error::invalid(format!(
                "the video declares frames of {width}x{height}"
            )));
        }
        if width > self.max_side || height > self.max_side {
            return Err(Error::invalid(format!(
                "frames of {width}x{height} are too large: the limit is {} pixels a side",
                self.max_side
            )));
        }
        let pixels = u64::from(width) * u64::from(height);
        if pixels > self.max_pixels {
            return Err(Error::invalid(format!(
                "frames of {width}x{height} are too large: {pixels} pixels, the limit is {}",
                self.max_pixels
            )));
        }
        Ok(())
    }
}

/// Opens a source of frames. Blocks until the container is known; an upload that has to be spooled
/// is read to its end.
///
/// # Errors
/// `InvalidArgument` for what is not a video this room decodes (text, audio only, a truncated MP4,
/// frames over the limit); `FailedPrecondition` if a GStreamer plugin is missing;
/// `ResourceExhausted` if the spool's limit or the disk is full; `DeadlineExceeded` if an upload
/// stalls; `Aborted` if the decoder's process ends or hangs; `Cancelled`; and whatever the [`ChunkSource`] reports. What only decoding shows comes
/// from [`MediaSource::next_event`].
pub fn open(
    input: Input,
    limits: &VideoLimits,
    cancel: CancellationToken,
) -> Result<Box<dyn MediaSource>> {
    if let Some(workers) = &limits.workers {
        return Ok(Box::new(match input {
            Input::File(path) => worker::RemoteSource::file(workers, &path, limits, cancel)?,
            Input::Upload(chunks) => worker::RemoteSource::upload(workers, chunks, limits, cancel)?,
        }));
    }
    init()?;
    let feed = match input {
        Input::File(path) => upload::Feed::from_file(&path)?,
        Input::Upload(chunks) => upload::Feed::from_chunks(chunks, limits, &cancel)?,
    };
    Ok(Box::new(decode::Decoder::start(
        feed, limits, cancel, None,
    )?))
}

/// Counts the frames that decoding `path` yields. Pictures are not converted.
///
/// # Errors
/// As [`open`] and [`MediaSource::next_event`].
pub fn count_frames(path: &Path, limits: &VideoLimits, cancel: CancellationToken) -> Result<u64> {
    let mut source = open(Input::File(path.to_path_buf()), limits, cancel)?;
    let mut frames = 0;
    while let Some(event) = source.next_event()? {
        if let MediaEvent::Frame(frame) = event {
            frames = frame.stamp.index + 1;
        }
    }
    Ok(frames)
}

/// Opens a regular file for reading.
fn open_file(path: &Path) -> Result<File> {
    let shown = path.display();
    let file = File::open(path).map_err(|e| {
        let kind = match e.kind() {
            std::io::ErrorKind::NotFound => Kind::NotFound,
            std::io::ErrorKind::PermissionDenied => Kind::PermissionDenied,
            _ => Kind::InvalidArgument,
        };
        Error::new(kind, format!("cannot open the video {shown}: {e}")).with_source(e)
    })?;
    let meta = file.metadata().or_kind(Kind::InvalidArgument, || {
        format!("cannot examine the video {shown}")
    })?;
    if !meta.is_file() {
        return Err(Error::invalid(format!("{shown} is not a regular file")));
    }
    Ok(file)
}

/// Starts GStreamer, loads the libraries that most streams need and makes each of their elements once, so that a process
/// which is forked has the libraries and the elements' classes. What is not installed is told by whoever needs it.
fn preload() -> Result<()> {
    init()?;
    graph::rehearse();
    Ok(())
}

/// Starts GStreamer, once per process.
fn init() -> Result<()> {
    gstreamer::init().or_kind(Kind::FailedPrecondition, || {
        "GStreamer cannot start: check its installation (Debian: libgstreamer1.0-0)".to_owned()
    })
}
