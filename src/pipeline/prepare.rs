//! Frames to clips, on a thread of its own per source.
//!
//! ```text
//! MediaSource ─▶ Segmenter ─▶ sampled pictures ─▶ RGB ─▶ masks ─▶ resize ─▶ motion gate ─▶ bounded channel
//! ```
//!
//! The thread is held back by whoever reads the channel. What a source may keep in memory at once:
//! [`RAW_PICTURES_MAX_BYTES`](crate::limits::RAW_PICTURES_MAX_BYTES) (and one picture) of the open segment, one segment's clip in the
//! making, [`PREPARED_SEGMENTS_MAX`] clips in the channel, and the last sampled frame.

mod preparer;
mod whole;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    engine::probe::Clip,
    error::{Error, Kind, Result, ResultExt},
    limits::{DECODE_STOP_TIMEOUT, PREPARED_SEGMENTS_MAX},
    media::{FrameStamp, Gap, MediaInfo, MediaSource, RgbRows, SourceState},
    segment::SegmentRule,
    telemetry::traces::StageTime,
};

use super::{options::PictureOptions, snapshot::Snapshot};
use preparer::Preparer;
pub use whole::whole_video;

/// Resizes a picture to a square of so many pixels: `side * side * 3` bytes, RGB, which it gets to fill.
pub type Resize = Arc<dyn Fn(&dyn RgbRows, u32, &mut [u8]) -> Result<()> + Send + Sync>;

/// Opens a source; called on the decode thread, since opening may block.
pub type OpenSource = Box<dyn FnOnce() -> Result<Box<dyn MediaSource>> + Send>;

/// How frames become clips.
#[derive(Clone)]
pub struct PrepareOptions {
    /// How the video is cut.
    pub rule: SegmentRule,
    /// Frames sampled per segment.
    pub frames_per_segment: usize,
    /// Width and height of a frame's picture for the model, pixels.
    pub image_side: usize,
    /// Leave pictures with fewer pixels than that as they are: the probe resizes them. Not with a motion
    /// gate, which compares pictures of the model's size.
    pub keep_smaller: bool,
    /// The resizer.
    pub resize: Resize,
    /// What else happens to the pictures.
    pub pictures: PictureOptions,
}

/// A segment that is ready for the model.
#[derive(Clone)]
pub struct PreparedSegment {
    /// Zero-based over the source.
    pub number: u64,
    /// Increments at each gap.
    pub run: u64,
    /// Every decoded frame of the segment, never empty.
    pub frames: Vec<FrameStamp>,
    /// The sampled frames; ones with the same pixels share them. None where `repeats` says so.
    pub clip: Clip,
    /// Nothing moved: its score is that of the segment with this number, an earlier one of the run
    /// that was to be scored.
    pub repeats: Option<u64>,
    /// Of its middle sampled frame, where asked for.
    pub snapshot: Option<Snapshot>,
    /// When its frames had been received; of live sources alone.
    pub received: Received,
    /// When it was decoded and preprocessed.
    pub stages: [StageTime; 2],
}

/// When the frames of a segment had been received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The first one.
    pub first: Option<SystemTime>,
    /// The last one.
    pub last: Option<SystemTime>,
}

impl Received {
    fn add(&mut self, frame: Option<SystemTime>) {
        self.first = self.first.or(frame);
        self.last = frame.or(self.last);
    }
}

/// What a source yields, in media order: `Opened`, then segments and gaps, then `End`.
pub enum Prepared {
    /// The first frame was decoded.
    Opened(MediaInfo),
    /// The next segment.
    Segment(PreparedSegment),
    /// Frames are missing here.
    Gap(Gap),
    /// A segment was decoded, and its pictures are gone.
    Lost(Gap),
    /// A live source was interrupted (the run ends here) or is back.
    Source(SourceState),
    /// The orderly end.
    End(Totals),
}

/// What a source had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Decoded frames, without those of segments that were lost.
    pub frames: u64,
    /// PTS + duration of the last frame.
    pub duration: Duration,
}

/// Asks the decode thread to have its next segment scored even where nothing moves: one before it
/// that was to be scored was not.
#[derive(Clone, Debug, Default)]
pub struct Rescore(Arc<AtomicBool>);

impl Rescore {
    /// Asks; once or often is the same.
    pub fn ask(&self) {
        // A hint on its own: it orders nothing else.
        self.0.store(true, Relaxed);
    }

    fn is_asked(&self) -> bool {
        self.0.swap(false, Relaxed)
    }
}

/// A source that is being prepared. Dropping it fires its cancellation token.
pub struct Preparation {
    items: mpsc::Receiver<Result<Prepared>>,
    rescore: Rescore,
    _cancel: DropGuard,
}

impl Preparation {
    /// Starts the thread. `cancel` must be this source's own: it fires when the preparation is
    /// dropped, so that a source that waits for input (and was opened with it) stops too.
    pub fn start(
        open: OpenSource,
        options: PrepareOptions,
        cancel: CancellationToken,
    ) -> Result<Preparation> {
        let (sender, items) = mpsc::channel(PREPARED_SEGMENTS_MAX);
        let guard = cancel.clone().drop_guard();
        let rescore = Rescore::default();
        let asked = rescore.clone();
        // What is logged there is of this detection too.
        let span = tracing::Span::current();
        std::thread::Builder::new()
            .name("decode".into())
            .spawn(move || {
                let _span = span.entered();
                // Consumed by the call, so the source and its files are gone before the channel
                // closes: whoever sees it closed can count on that.
                let result = catch_unwind(AssertUnwindSafe(|| {
                    Preparer::new(options, sender.clone(), asked, cancel)?.run(open)
                }))
                .unwrap_or_else(|panic| {
                    let what = crate::engine::panic_message(panic.as_ref());
                    tracing::error!(panic = what, "the decode thread panicked");
                    Err(Error::internal(format!("the decoder panicked: {what}")))
                });
                if let Err(error) = result {
                    // Nobody reads it where the receiver left; then nobody needs it.
                    let _ = sender.blocking_send(Err(error));
                }
            })
            .or_kind(Kind::ResourceExhausted, || {
                "cannot start a decode thread: the system has too many".into()
            })?;
        Ok(Preparation {
            items,
            rescore,
            _cancel: guard,
        })
    }

    /// For whoever finds that a segment got no score.
    pub fn rescore(&self) -> Rescore {
        self.rescore.clone()
    }

    /// The next item; `None` after `End` or an error.
    pub async fn next(&mut self) -> Option<Result<Prepared>> {
        self.items.recv().await
    }

    /// As [`next`](Self::next), for threads outside the runtime.
    pub fn blocking_next(&mut self) -> Option<Result<Prepared>> {
        self.items.blocking_recv()
    }

    /// Cancels, and waits (not forever) until the source is closed.
    pub async fn stop(mut self) {
        drop(std::mem::replace(
            &mut self._cancel,
            CancellationToken::new().drop_guard(),
        ));
        let closed = async { while self.items.recv().await.is_some() {} };
        if tokio::time::timeout(DECODE_STOP_TIMEOUT, closed)
            .await
            .is_err()
        {
            tracing::warn!(
                seconds = DECODE_STOP_TIMEOUT.as_secs(),
                "a decode thread goes on after its cancellation"
            );
        }
    }
}
