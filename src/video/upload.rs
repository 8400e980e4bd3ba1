//! What feeds a pipeline: a file, an upload decoded as it arrives, or an upload that was spooled.

use std::{
    fs::File,
    io::{Read as _, Seek as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{
    VideoLimits,
    boxes::{self, Layout},
    sniff::{self, Container},
    spool::Spool,
};
use crate::{
    error::{Error, Result},
    limits::{SNIFF_MAX_BYTES, UPLOAD_GATHER_BYTES, VIDEO_POLL_MILLIS},
    media::{ChunkEvent, ChunkSource},
};

const POLL: Duration = Duration::from_millis(VIDEO_POLL_MILLIS);

/// A source of encoded bytes whose container is known.
pub(crate) struct Feed {
    pub(crate) container: Container,
    /// A fragmented MP4.
    pub(crate) fragmented: bool,
    pub(crate) origin: Origin,
}

pub(crate) enum Origin {
    /// Random access.
    File(PathBuf),
    /// Random access to a file that lives as long as this.
    Spooled(Spool),
    /// As it arrives.
    Stream(Stream),
    /// As it arrives, with random access to what has: it is stored here.
    Growing {
        spool: Spool,
        /// Where the MP4's index ends, bytes.
        index_end: u64,
        stream: Stream,
    },
}

/// An upload of which the first bytes have been read.
pub(crate) struct Stream {
    pub(crate) chunks: Box<dyn ChunkSource>,
    /// Read already and not yet decoded.
    pub(crate) head: Vec<u8>,
    /// Nothing follows `head`.
    pub(crate) ended: bool,
}

impl Feed {
    /// A regular file.
    pub(crate) fn from_file(path: &Path) -> Result<Self> {
        let mut file = super::open_file(path)?;
        let unreadable = |e: std::io::Error| {
            Error::data_loss(format!("cannot read {}: {e}", path.display())).with_source(e)
        };
        let mut head = Vec::new();
        file.by_ref()
            .take(4096)
            .read_to_end(&mut head)
            .map_err(unreadable)?;
        let container = known(sniff::sniff(&head, true)?)?;
        let fragmented = container == Container::Mp4 && boxes::require_index(&mut file)?;
        let origin = if matches!(container, Container::Matroska | Container::WebM) {
            // As a stream, so that it passes the mender.
            file.rewind().map_err(unreadable)?;
            Origin::Stream(Stream {
                chunks: Box::new(FileChunks(file)),
                head: Vec::new(),
                ended: false,
            })
        } else {
            Origin::File(path.to_path_buf())
        };
        Ok(Feed {
            container,
            fragmented,
            origin,
        })
    }

    /// An upload. Reads until the container is known, and to the end if it has to be spooled.
    pub(crate) fn from_chunks(
        chunks: Box<dyn ChunkSource>,
        limits: &VideoLimits,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        let mut intake = Intake {
            chunks,
            limits,
            cancel,
        };
        let mut head = Vec::new();
        let mut ended = false;
        let container = loop {
            if let Some(container) = sniff::sniff(&head, ended)? {
                break container;
            }
            ended = !intake.append(&mut head)?;
        };
        if container == Container::Avi {
            // Its demuxer is reliable with random access only.
            return Ok(Feed {
                container,
                fragmented: false,
                origin: Origin::Spooled(intake.spool(&head, ended)?),
            });
        }
        if container != Container::Mp4 {
            return Ok(intake.stream(container, head, ended));
        }
        let mut layout = boxes::layout(&head);
        while layout.is_none() && !ended && head.len() < SNIFF_MAX_BYTES {
            ended = !intake.append(&mut head)?;
            layout = boxes::layout(&head);
        }
        match layout {
            Some(Layout::IndexFirst { fragmented }) => {
                intake.growing(container, fragmented, head, ended)
            }
            // An index too large to be seen whole has sample tables, so there are no fragments.
            None if !ended && boxes::index_end(&head).is_some() => {
                intake.growing(container, false, head, ended)
            }
            Some(Layout::IndexLast) | None => {
                let mut spool = intake.spool(&head, ended)?;
                Ok(Feed {
                    container,
                    fragmented: boxes::require_index(spool.file_mut())?,
                    origin: Origin::Spooled(spool),
                })
            }
        }
    }
}

/// A file as if it were uploaded.
struct FileChunks(File);

impl ChunkSource for FileChunks {
    fn next_chunk(&mut self, _: Duration) -> Result<ChunkEvent> {
        let mut bytes = Vec::with_capacity(UPLOAD_GATHER_BYTES);
        (&self.0)
            .take(UPLOAD_GATHER_BYTES as u64)
            .read_to_end(&mut bytes)
            .map_err(|e| Error::data_loss(format!("cannot read the video: {e}")).with_source(e))?;
        Ok(if bytes.is_empty() {
            ChunkEvent::End
        } else {
            ChunkEvent::Bytes(bytes.into())
        })
    }
}

fn known(container: Option<Container>) -> Result<Container> {
    container.ok_or_else(|| Error::internal("a whole input was not told from its beginning"))
}

struct Intake<'a> {
    chunks: Box<dyn ChunkSource>,
    limits: &'a VideoLimits,
    cancel: &'a CancellationToken,
}

impl Intake<'_> {
    /// The next bytes, or `None` at the end.
    fn next(&mut self) -> Result<Option<prost::bytes::Bytes>> {
        let start = Instant::now();
        loop {
            if self.cancel.is_cancelled() {
                return Err(cancelled());
            }
            match self.chunks.next_chunk(POLL)? {
                ChunkEvent::Bytes(bytes) if bytes.is_empty() => {}
                ChunkEvent::Bytes(bytes) => return Ok(Some(bytes)),
                ChunkEvent::End => return Ok(None),
                ChunkEvent::Pending => {}
            }
            if start.elapsed() > self.limits.stall_timeout {
                return Err(stalled(self.limits.stall_timeout));
            }
        }
    }

    /// Appends the next bytes; false at the end.
    fn append(&mut self, head: &mut Vec<u8>) -> Result<bool> {
        Ok(match self.next()? {
            Some(bytes) => {
                head.extend_from_slice(&bytes);
                true
            }
            None => false,
        })
    }

    fn stream(self, container: Container, head: Vec<u8>, ended: bool) -> Feed {
        Feed {
            container,
            fragmented: false,
            origin: Origin::Stream(Stream {
                chunks: self.chunks,
                head,
                ended,
            }),
        }
    }

    fn growing(
        self,
        container: Container,
        fragmented: bool,
        head: Vec<u8>,
        ended: bool,
    ) -> Result<Feed> {
        let index_end = boxes::index_end(&head).unwrap_or(u64::MAX);
        let spool = Spool::create(&self.limits.spool_dir, self.limits.spool_max_bytes)?;
        Ok(Feed {
            container,
            fragmented,
            origin: Origin::Growing {
                spool,
                index_end,
                stream: Stream {
                    chunks: self.chunks,
                    head,
                    ended,
                },
            },
        })
    }

    /// Stores `head` and all that follows.
    fn spool(&mut self, head: &[u8], ended: bool) -> Result<Spool> {
        let mut spool = Spool::create(&self.limits.spool_dir, self.limits.spool_max_bytes)?;
        spool.write(head)?;
        if !ended {
            while let Some(bytes) = self.next()? {
                spool.write(&bytes)?;
            }
        }
        Ok(spool)
    }
}

pub(crate) fn cancelled() -> Error {
    Error::cancelled("decoding was cancelled")
}

pub(crate) fn stalled(after: Duration) -> Error {
    Error::deadline(format!(
        "the upload sent nothing for {:.0} s",
        after.as_secs_f64()
    ))
}
