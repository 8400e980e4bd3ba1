//! What the process gives by itself: the frames of a file or an upload, the pictures of a camera.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio_util::sync::CancellationToken;

use super::{Shared, gone, locked};
use crate::{
    error::{Error, Kind, Result, ResultExt as _},
    limits::{
        UPLOAD_GATHER_BYTES, WORKER_ALIVE_PERIOD, WORKER_GATHER_MAX_BYTES, WORKER_GATHER_TIME,
    },
    media::{ChunkEvent, ChunkSource, MediaEvent, MediaSource as _},
    video::{
        VideoLimits,
        decode::Decoder,
        live::{Decoded, Decoding as _, Pulled},
        memory::PictureMemory,
        upload::Feed,
        worker::{
            confine,
            wire::{self, DecodedHead, FromWorker},
        },
    },
};

/// Longest wait for a picture of a camera before packets are counted again.
const LOOK: Duration = Duration::from_millis(50);

/// Gives the frames of a file or an upload.
pub(super) fn media(
    feed: Feed,
    limits: &VideoLimits,
    shared: &Arc<Shared>,
    memory: &PictureMemory,
) -> Result<()> {
    // What an upload is spooled to is open by now.
    confine::forbid_writing()?;
    let alive = Arc::clone(shared);
    let mut source = Decoder::start(feed, limits, CancellationToken::new(), Some(memory))?
        .with_pulse(move || alive.alive())
        .together();
    shared.send(&FromWorker::Started, &[]);
    let mut gathered = Gathered::default();
    loop {
        if !shared.may_give(Duration::ZERO) {
            gathered.give(shared);
            while !shared.may_give(WORKER_ALIVE_PERIOD) {}
        }
        // Not woken up for each of them.
        let soon = loop {
            match (source.within(Duration::ZERO), gathered.patience()) {
                (Ok(None), Some(patience)) if !source.is_over() => {
                    source.wait_for_many(patience);
                }
                (soon, _) => break soon,
            }
        };
        let event = match soon {
            Ok(Some(event)) => Some(event),
            // Before the end by a fault too: what was decoded counts.
            Ok(None) | Err(_) => {
                gathered.give(shared);
                soon?;
                source.next_event()?
            }
        };
        let message = match event {
            Some(MediaEvent::Opened(info)) => FromWorker::Opened(info),
            Some(MediaEvent::Gap(gap)) => FromWorker::Gap(gap),
            Some(MediaEvent::Frame(frame)) => {
                shared.give();
                let size_bytes = frame.picture.size_bytes();
                FromWorker::Frame {
                    laid: shared.laid(&*frame.picture),
                    picture: shared.keep(frame.picture),
                    stamp: frame.stamp,
                    size_bytes,
                }
            }
            // Of live sources alone.
            Some(MediaEvent::Source(_)) => continue,
            None => break,
        };
        gathered.add(&message, &[]);
    }
    gathered.give(shared);
    shared.send(&FromWorker::End, &[]);
    Ok(())
}

/// Messages that come one soon after another and go together: for a small picture, to wake the server up takes
/// as long as to decode it.
#[derive(Default)]
pub(super) struct Gathered {
    messages: Vec<u8>,
    since: Option<Instant>,
}

impl Gathered {
    pub(super) fn add(&mut self, message: &FromWorker, body: &[u8]) {
        if wire::encode(message, body, &mut self.messages).is_err() {
            gone();
        }
        self.since.get_or_insert_with(Instant::now);
    }

    /// How long they may still wait for more; none where there is nothing that waits, or enough.
    pub(super) fn patience(&self) -> Option<Duration> {
        let waited = self.since?.elapsed();
        if self.messages.len() > WORKER_GATHER_MAX_BYTES {
            return None;
        }
        WORKER_GATHER_TIME.checked_sub(waited)
    }

    pub(super) fn give(&mut self, shared: &Shared) {
        if self.since.take().is_some() {
            shared.write(&self.messages);
            self.messages.clear();
            // After a large picture.
            self.messages.shrink_to(2 * WORKER_GATHER_MAX_BYTES);
        }
    }
}

/// Gives the pictures of a camera's connection.
pub(super) fn packets(shared: &Shared) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .or_kind(Kind::ResourceExhausted, || {
            "the decoder process cannot start its timer".into()
        })?;
    let look = match &*locked(&shared.camera) {
        Some(camera) => camera.connection.look(),
        None => return Err(Error::internal("a camera without a connection")),
    };
    shared.send(&FromWorker::Started, &[]);
    let mut told = 0;
    loop {
        shared.alive();
        if !shared.may_give(LOOK) {
            continue;
        }
        let (pulled, taken) = {
            let mut camera = locked(&shared.camera);
            let Some(camera) = camera.as_mut() else {
                return Err(Error::internal("a camera without a connection"));
            };
            let pulled = camera.connection.pull()?;
            let waiting = camera.connection.waiting_bytes();
            (pulled, camera.given.saturating_sub(waiting))
        };
        if taken > told {
            told = taken;
            shared.send(&FromWorker::Taken(taken), &[]);
        }
        match pulled {
            Pulled::Picture(decoded) => {
                shared.give();
                let head = head(decoded, shared);
                shared.send(&FromWorker::Decoded(head), &[]);
            }
            Pulled::Nothing => {
                // Also when the time is over.
                let _ =
                    runtime.block_on(async { tokio::time::timeout(LOOK, look.notified()).await });
            }
            Pulled::Ended(fault) => {
                shared.send(&FromWorker::Ended(fault), &[]);
                return Ok(());
            }
        }
    }
}

fn head(decoded: Decoded, shared: &Shared) -> DecodedHead {
    DecodedHead {
        size_bytes: decoded.picture.size_bytes(),
        laid: shared.laid(&*decoded.picture),
        picture: shared.keep(decoded.picture),
        size: decoded.size,
        pts: decoded.pts,
        arrived: decoded.arrived,
        lost_frames: decoded.loss.frames,
        lost_untimed: decoded.loss.untimed,
        discontinuity: decoded.loss.discontinuity,
        jumped: decoded.jumped,
    }
}

/// An upload that comes through standard input.
pub(super) struct PipeChunks(pub(super) Arc<Shared>);

impl ChunkSource for PipeChunks {
    fn next_chunk(&mut self, timeout: Duration) -> Result<ChunkEvent> {
        self.0.alive();
        let unreadable = || "the decoder process cannot read its input".to_owned();
        let input = rustix::stdio::stdin();
        let timeout = Timespec::try_from(timeout).or_kind(Kind::Internal, unreadable)?;
        let mut ready = [PollFd::new(&input, PollFlags::IN)];
        match poll(&mut ready, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(ChunkEvent::Pending),
            Ok(_) => {}
            Err(e) => return Err(Error::internal(unreadable()).with_source(e)),
        }
        let mut bytes = vec![0; UPLOAD_GATHER_BYTES];
        let n = rustix::io::read(input, &mut bytes).or_kind(Kind::Internal, unreadable)?;
        if n == 0 {
            return Ok(ChunkEvent::End);
        }
        bytes.truncate(n);
        Ok(ChunkEvent::Bytes(bytes.into()))
    }
}
