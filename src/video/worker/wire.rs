//! What a server and its decoder process say to each other.
//!
//! A message is two lengths (4 bytes each, little-endian), a header of the first (postcard) and a body of
//! the second: a packet, a picture. Both ends are the same binary, so there are no versions. The
//! process may have been taken over by what it decodes: every length is checked before it is
//! believed.

use std::{
    io::{self, Read},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::words;
use crate::{
    error::{Error, Kind},
    media::{FrameStamp, Gap, MediaInfo, Reduction},
    rtsp::Track,
    video::{VideoLimits, planes::Planes},
};

/// The two lengths before each message, bytes.
const PREFIX_BYTES: usize = 8;

/// To the process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToWorker {
    /// First, and once.
    Begin(Begin),
    /// So many more frames may be given.
    More(u32),
    /// Nobody will ask for these pictures any more.
    Release(Vec<u64>),
    /// Answer with a reduced picture.
    Reduce {
        ticket: u64,
        picture: u64,
        how: Reduction,
        /// Where in the shared memory the pixels go, bytes; into the answer otherwise.
        place: Option<u64>,
    },
    /// Answer with a picture in RGB.
    Rgb { ticket: u64, picture: u64 },
    /// A packet of a camera; its bytes are the body.
    Packet(PacketHead),
    /// No more packets will come.
    NoMorePackets,
}

/// What the process is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Begin {
    pub job: Job,
    pub limits: Limits,
    /// Address space, bytes.
    pub memory_max_bytes: u64,
    /// Threads that may make pictures at a time.
    pub reducers: u32,
    /// The finest level of log lines that the server would write.
    pub log: Option<Level>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Job {
    /// Standard input is a file.
    File,
    /// Standard input is a pipe through which an upload comes.
    Upload,
    /// Packets come as messages.
    Packets(Track),
    /// Nothing: say how well the process is confined.
    Check,
}

/// As [`VideoLimits`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Limits {
    pub max_pixels: u64,
    pub max_side: u32,
    pub spool_dir: PathBuf,
    pub spool_max_bytes: u64,
    pub stall_timeout: Duration,
}

impl From<&VideoLimits> for Limits {
    fn from(limits: &VideoLimits) -> Self {
        Limits {
            max_pixels: limits.max_pixels,
            max_side: limits.max_side,
            spool_dir: limits.spool_dir.clone(),
            spool_max_bytes: limits.spool_max_bytes,
            stall_timeout: limits.stall_timeout,
        }
    }
}

impl From<Limits> for VideoLimits {
    fn from(limits: Limits) -> Self {
        VideoLimits {
            max_pixels: limits.max_pixels,
            max_side: limits.max_side,
            spool_dir: limits.spool_dir,
            spool_max_bytes: limits.spool_max_bytes,
            stall_timeout: limits.stall_timeout,
            workers: None,
        }
    }
}

/// A packet without its bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PacketHead {
    /// Where it was placed, nanoseconds.
    pub pts: i64,
    pub jumped: bool,
    pub lost: u32,
    pub arrived: Duration,
}

/// From the process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromWorker {
    /// The source is open; frames follow.
    Started,
    /// It waits for input.
    Alive,
    Opened(MediaInfo),
    Frame {
        picture: u64,
        stamp: FrameStamp,
        size_bytes: usize,
        laid: Option<Laid>,
    },
    Gap(Gap),
    /// The orderly end of the media.
    End,
    /// The end by a fault.
    Failed(Fault),
    /// A picture of a camera.
    Decoded(DecodedHead),
    /// So many bytes of packets have been taken by the decoder, all in all.
    Taken(u64),
    /// No more pictures of this connection will come; the fault that ended it, if one did.
    Ended(Option<String>),
    /// To a question, by its ticket.
    Answer {
        ticket: u64,
        answer: Answer,
    },
    /// To `Job::Check`.
    Checked(Checked),
    /// A line for the server's log.
    Log {
        level: Level,
        text: String,
    },
}

/// How well a process is confined.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// What it was not to be able to do and can; empty: nothing. One text, since many empty ones would take 24 times the
    /// memory of the message that a process sends.
    pub faults: String,
    /// Whether it can read the files alone that it needs; this kernel has no such limit otherwise.
    pub files_confined: bool,
}

/// Of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// What a question is answered with.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The model's picture of so many bytes: in the shared memory where it is `laid` down there, else in
    /// the body; then the JPEG.
    Reduced {
        upright: (u32, u32),
        pixels: usize,
        laid: bool,
    },
    /// The picture as it is, in the body.
    Rgb {
        width: u32,
        height: u32,
    },
    NoPicture(Fault),
}

/// Where a picture lies that was decoded into the shared memory.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Laid {
    /// Its first byte, bytes.
    pub at: u64,
    /// How, where it is not as the one before.
    pub planes: Option<Planes>,
}

/// A camera's picture without its pixels.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DecodedHead {
    pub picture: u64,
    pub size_bytes: usize,
    pub laid: Option<Laid>,
    /// Upright, pixels.
    pub size: (u32, u32),
    pub pts: i64,
    pub arrived: Option<Duration>,
    pub lost_frames: u64,
    pub lost_untimed: bool,
    pub discontinuity: bool,
    pub jumped: bool,
}

/// An [`Error`] that travels.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Fault {
    kind: Kind,
    message: String,
    causes: Option<String>,
}

impl From<&Error> for Fault {
    fn from(error: &Error) -> Self {
        let message = error.to_string();
        let whole = format!("{error:#}");
        let causes = whole.strip_prefix(&message).unwrap_or_default();
        Fault {
            kind: error.kind(),
            causes: causes.strip_prefix(": ").map(str::to_owned),
            message,
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        // Nobody cancels anything there.
        let kind = match fault.kind {
            Kind::Cancelled => Kind::Internal,
            kind => kind,
        };
        let error = Error::new(kind, words::plain(&fault.message));
        match fault.causes {
            Some(causes) => error.with_source(words::plain(&causes)),
            None => error,
        }
    }
}

/// Appends a message to what is to be written.
pub(super) fn encode(header: &impl Serialize, body: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let begin = out.len();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    postcard::to_io(header, &mut *out).map_err(io::Error::other)?;
    let header = length(out.len() - begin - PREFIX_BYTES)?;
    let lengths = [header, length(body.len())?].concat();
    if let Some(place) = out.get_mut(begin..begin + PREFIX_BYTES) {
        place.copy_from_slice(&lengths);
    }
    out.extend_from_slice(body);
    Ok(())
}

fn length(n: usize) -> io::Result<[u8; 4]> {
    u32::try_from(n)
        .map(u32::to_le_bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a message over 4 GiB"))
}

/// Reads the next message, its header and body at most so long; `None` at the end. How long the body may
/// be is asked once the header is known.
pub(super) fn read<T: DeserializeOwned>(
    from: &mut impl Read,
    header_max_bytes: usize,
    body_max_bytes: impl FnOnce(&T) -> usize,
) -> io::Result<Option<(T, Vec<u8>)>> {
    let mut prefix = [0; PREFIX_BYTES];
    match from.read_exact(&mut prefix) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    }
    let (header, body) = lengths(prefix);
    if header > header_max_bytes {
        return Err(invalid(format!(
            "a message with a header of {header} bytes"
        )));
    }
    let mut text = vec![0; header];
    from.read_exact(&mut text)?;
    let header = match postcard::take_from_bytes(&text) {
        Ok((header, [])) => header,
        Ok((_, rest)) => {
            return Err(invalid(format!(
                "a header that is {} bytes too long",
                rest.len()
            )));
        }
        Err(e) => return Err(invalid(format!("a header that cannot be read: {e}"))),
    };
    let most = body_max_bytes(&header);
    if body > most {
        return Err(invalid(format!(
            "a message with a body of {body} bytes, of {most}"
        )));
    }
    let mut bytes = vec![0; body];
    from.read_exact(&mut bytes)?;
    Ok(Some((header, bytes)))
}

/// Whether a whole message lies here.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    bytes.split_first_chunk().is_some_and(|(prefix, rest)| {
        let (header, body) = lengths(*prefix);
        rest.len() >= header.saturating_add(body)
    })
}

fn lengths(prefix: [u8; PREFIX_BYTES]) -> (usize, usize) {
    let [a, b, c, d, e, f, g, h] = prefix;
    (
        u32::from_le_bytes([a, b, c, d]) as usize,
        u32::from_le_bytes([e, f, g, h]) as usize,
    )
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_as_they_went_in_and_one_after_another() {
        let mut bytes = Vec::new();
        encode(&ToWorker::More(3), b"", &mut bytes).unwrap();
        let rgb = ToWorker::Rgb {
            ticket: 1,
            picture: 7,
        };
        encode(&rgb, b"body", &mut bytes).unwrap();
        let mut from = bytes.as_slice();
        let (first, body) = read::<ToWorker>(&mut from, 100, |_| 4).unwrap().unwrap();
        assert!(matches!(first, ToWorker::More(3)) && body.is_empty());
        let (second, body) = read::<ToWorker>(&mut from, 100, |_| 4).unwrap().unwrap();
        assert!(matches!(second, ToWorker::Rgb { picture: 7, .. }) && body == b"body");
        assert!(read::<ToWorker>(&mut from, 100, |_| 4).unwrap().is_none());
    }

    #[test]
    fn lengths_are_checked_before_they_are_believed() {
        let read = |mut bytes: &[u8], header, body| {
            read::<ToWorker>(&mut bytes, header, |_| body).map(|message| message.is_some())
        };
        let mut bytes = Vec::new();
        encode(&ToWorker::More(7), b"12345", &mut bytes).unwrap();
        assert!(read(&bytes, 100, 5).unwrap());
        assert!(read(&bytes, 100, 4).is_err());
        assert!(read(&bytes, 1, 5).is_err());
        assert!(read(&[0xff; 16], 1 << 20, usize::MAX).is_err());
        assert!(is_whole(&bytes));
        let cut = &bytes[..bytes.len() - 1];
        assert!(read(cut, 100, 5).is_err());
        assert!(!is_whole(cut) && !is_whole(&bytes[..7]) && !is_whole(b""));
        // A header longer than what it says.
        let mut padded = Vec::new();
        encode(&(ToWorker::More(7), 0u8), b"", &mut padded).unwrap();
        assert!(read(&padded, 100, 0).is_err());
        let mut garbage = Vec::new();
        encode(&"nothing that is known", b"", &mut garbage).unwrap();
        assert!(read(&garbage, 100, 5).is_err());
    }

    #[test]
    fn errors_keep_kind_message_and_causes() {
        let error = Error::exhausted("the spool is full").with_source("No space left on device");
        let mut bytes = Vec::new();
        encode(&Fault::from(&error), b"", &mut bytes).unwrap();
        let (fault, _) = read::<Fault>(&mut bytes.as_slice(), 1000, |_| 0)
            .unwrap()
            .unwrap();
        let back = Error::from(fault);
        assert_eq!(back.kind(), Kind::ResourceExhausted);
        assert_eq!(format!("{back:#}"), format!("{error:#}"));
        assert_eq!(back.to_string(), "the spool is full");
    }
}
