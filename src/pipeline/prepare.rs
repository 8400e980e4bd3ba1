//! Frames to clips, on a thread of its own per source.
//!
//! ```text
//! MediaSource ─▶ Segmenter ─▶ sampled pictures ─▶ RGB ─▶ masks ─▶ resize ─▶ motion gate ─▶ bounded channel
//! ```
//!
//! The thread is held back by whoever reads the channel. What a source may keep in memory at once:
//! [`RAW_PICTURES_MAX_BYTES`] (and one picture) of the open segment, one segment's clip in the
//! making, [`PREPARED_SEGMENTS_MAX`] clips in the channel, and the last sampled frame.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    engine::probe::Clip,
    error::{Error, Kind, Result, ResultExt},
    limits::{
        DECODE_STOP_TIMEOUT, PREPARED_SEGMENTS_MAX, RAW_PICTURES_MAX_BYTES, WORKER_PICTURES_AHEAD,
        WORKER_PICTURES_AHEAD_BYTES, WORKER_PICTURES_AHEAD_MAX,
    },
    media::{
        Frame, FrameStamp, Gap, GapReason, MediaEvent, MediaInfo, MediaSource, RgbRows,
        SharedImage, SourceState,
    },
    segment::{SampledSegment, SegmentRule, Segmenter, motion::MotionGate, whole_video_indices},
    telemetry::{
        metrics::{self, Stage},
        traces::StageTime,
    },
};

use super::{options::PictureOptions, reduce::Reducer, sample::Sample, snapshot::Snapshot};

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
    /// A live source was interrupted (the run ends here) or is back.
    Source(SourceState),
    /// The orderly end.
    End(Totals),
}

/// What a source had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Decoded frames, at least 1.
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

/// The decode thread's state.
struct Preparer {
    reducer: Reducer,
    segmenter: Segmenter<Sample>,
    gate: Option<MotionGate>,
    rescore: Rescore,
    /// The last sampled frame of the segment before.
    previous: Option<SharedImage>,
    /// Held by raw pictures of the open segment.
    raw_bytes: usize,
    /// Of the open segment.
    received: Received,
    totals: Totals,
    opened: bool,
    /// Since the last segment was complete.
    decoding: Duration,
    /// When the decoding of the open segment began.
    decoding_since: Option<Instant>,
    sender: mpsc::Sender<Result<Prepared>>,
    cancel: CancellationToken,
}

impl Preparer {
    fn new(
        options: PrepareOptions,
        sender: mpsc::Sender<Result<Prepared>>,
        rescore: Rescore,
        cancel: CancellationToken,
    ) -> Result<Self> {
        Ok(Preparer {
            segmenter: Segmenter::new(options.rule, options.frames_per_segment)?,
            gate: match options.pictures.motion_gate {
                Some(threshold) => Some(MotionGate::new(threshold, options.image_side)?),
                None => None,
            },
            rescore,
            previous: None,
            reducer: Reducer::new(
                options.image_side,
                options.resize,
                options.pictures.masks,
                options.pictures.snapshots,
            )?
            .keeping_smaller(options.keep_smaller && options.pictures.motion_gate.is_none()),
            raw_bytes: 0,
            received: Received::default(),
            totals: Totals::default(),
            opened: false,
            decoding: Duration::ZERO,
            decoding_since: None,
            sender,
            cancel,
        })
    }

    fn run(mut self, open: OpenSource) -> Result<()> {
        let mut source = open()?;
        loop {
            if self.cancel.is_cancelled() {
                return Err(Error::cancelled("the detection was cancelled"));
            }
            let started = Instant::now();
            self.decoding_since.get_or_insert(started);
            let event = source.next_event()?;
            self.decoding += started.elapsed();
            match event {
                Some(MediaEvent::Opened(info)) => {
                    if self.opened {
                        // A source that had to reconnect; what it was opened as stays true.
                        tracing::debug!(?info, "the source opened again");
                    } else {
                        self.opened = true;
                        self.send(Prepared::Opened(info))?;
                    }
                }
                Some(MediaEvent::Frame(frame)) => self.frame(frame)?,
                Some(MediaEvent::Gap(gap)) => {
                    metrics::gap(&gap);
                    self.end_run()?;
                    self.send(Prepared::Gap(gap))?;
                    self.decoding_since = None;
                }
                Some(MediaEvent::Source(state)) => {
                    if matches!(state, SourceState::Interrupted { .. }) {
                        self.end_run()?;
                    }
                    self.send(Prepared::Source(state))?;
                    self.decoding_since = None;
                }
                None => break,
            }
        }
        if self.totals.frames == 0 {
            return Err(Error::invalid(
                "no frame could be decoded: the input has no video, or none that this service reads",
            ));
        }
        if let Some(segment) = self.segmenter.finish() {
            self.segment(segment)?;
        }
        // Before the end is told: files and decoders are free when a caller hears of it.
        drop(source);
        self.send(Prepared::End(self.totals))
    }

    fn frame(&mut self, frame: Frame) -> Result<()> {
        let Frame {
            stamp,
            picture,
            received,
        } = frame;
        if !self.opened {
            return Err(Error::internal(
                "the source gave a frame before it was open",
            ));
        }
        if stamp.index != self.totals.frames {
            return Err(Error::internal(format!(
                "the source gave frame {} as its frame {}",
                stamp.index, self.totals.frames
            )));
        }
        self.totals.frames += 1;
        self.totals.duration = stamp.end().saturating_since(crate::media::MediaTime::ZERO);
        let size = picture.size_bytes();
        let complete = self.segmenter.push(stamp, Sample::Raw(picture))?;
        // The `seconds` rule completes a segment before this frame, the `frames` rule with it.
        let is_next = complete.is_some() && self.segmenter.pending() > 0;
        if is_next {
            self.raw_bytes = 0;
        } else {
            self.received.add(received);
        }
        self.raw_bytes = self.raw_bytes.saturating_add(size);
        if let Some(segment) = complete {
            self.segment(segment)?;
        }
        if is_next {
            self.received.add(received);
        }
        if self.segmenter.pending() == 0 {
            self.raw_bytes = 0;
        }
        if self.raw_bytes > RAW_PICTURES_MAX_BYTES {
            let started = Instant::now();
            let reducer = &self.reducer;
            self.segmenter
                .map_pending(|sample| sample.reduced(reducer))?;
            self.raw_bytes = 0;
            metrics::stage(Stage::Preprocess, started.elapsed());
        }
        Ok(())
    }

    /// Frames are missing here: what was complete before them is the run's last segment.
    fn end_run(&mut self) -> Result<()> {
        if let Some(segment) = self.segmenter.gap() {
            self.segment(segment)?;
        }
        self.raw_bytes = 0;
        Ok(())
    }

    fn segment(&mut self, segment: SampledSegment<Sample>) -> Result<()> {
        metrics::stage(Stage::Decode, std::mem::take(&mut self.decoding));
        metrics::frames(segment.frames.len() as u64);
        let started = Instant::now();
        let since = self.decoding_since.take().unwrap_or(started);
        let (mut clip, snapshot) = match self.pictures(&segment) {
            Ok(pictures) => pictures,
            // They went with the decoder's process; whether the media goes on is for the source to say.
            Err(e) if e.kind() == Kind::DataLoss => return self.lost(&segment, &e),
            Err(e) => return Err(e),
        };
        let SampledSegment {
            number,
            run,
            frames: stamps,
            ..
        } = segment;
        let repeats = match &mut self.gate {
            Some(gate) => {
                if self.rescore.is_asked() {
                    gate.forget();
                }
                gate.repeats(number, run, &stamps, &clip.frames)?
            }
            None => None,
        };
        if repeats.is_some() {
            clip.frames.clear();
        }
        let prepared = Instant::now();
        metrics::stage(Stage::Preprocess, prepared.duration_since(started));
        let received = std::mem::take(&mut self.received);
        self.send(Prepared::Segment(PreparedSegment {
            number,
            run,
            frames: stamps,
            clip,
            repeats,
            snapshot,
            received,
            stages: [
                StageTime::new(Stage::Decode, since, started),
                StageTime::new(Stage::Preprocess, started, prepared),
            ],
        }))
    }

    /// Reports a segment whose pictures are gone.
    fn lost(&mut self, segment: &SampledSegment<Sample>, error: &Error) -> Result<()> {
        self.received = Received::default();
        let (Some(first), Some(last)) = (segment.frames.first(), segment.frames.last()) else {
            return Ok(());
        };
        let gap = Gap {
            from: first.pts,
            to: last.end(),
            reason: GapReason::DecodeError,
            frames_lost: segment.frames.len() as u64,
            detail: error.to_string(),
        };
        metrics::gap(&gap);
        self.send(Prepared::Gap(gap))
    }

    /// The sampled frames for the model, and the middle one of them for people where asked for. A
    /// frame with the same pixels as the sampled one before it (of the segment before, too) shares
    /// them, so that the model encodes them once a pass.
    fn pictures(&mut self, segment: &SampledSegment<Sample>) -> Result<(Clip, Option<Snapshot>)> {
        let middle = segment.sample_offsets.len() / 2;
        let middle = segment.sample_offsets.get(middle).copied();
        let mut frames: Vec<SharedImage> = Vec::with_capacity(segment.samples.len());
        let mut snapshot = None;
        let mut last = None;
        let first = segment.samples.first();
        let together = first.map_or(0, |sample| {
            let fit = WORKER_PICTURES_AHEAD_BYTES / sample.raw_bytes().max(1);
            fit.clamp(WORKER_PICTURES_AHEAD, WORKER_PICTURES_AHEAD_MAX)
        });
        let mut ahead = segment.samples.iter().zip(&segment.sample_offsets);
        let ask = |(sample, offset): (&Sample, &usize)| {
            sample.ahead(&self.reducer, middle == Some(*offset));
        };
        ahead.by_ref().take(together).for_each(ask);
        for (sample, offset) in segment.samples.iter().zip(&segment.sample_offsets) {
            if last == Some(*offset) {
                frames.extend(frames.last().cloned());
                continue;
            }
            last = Some(*offset);
            let prepared = sample.prepare(&self.reducer, middle == Some(*offset))?;
            ahead.next().into_iter().for_each(ask);
            if let (Some(jpeg), Some(frame)) = (prepared.jpeg, segment.frames.get(*offset)) {
                snapshot = Some(Snapshot {
                    jpeg,
                    frame: *frame,
                });
            }
            let image = match &self.previous {
                Some(previous) if *previous == prepared.image => previous.clone(),
                _ => prepared.image,
            };
            self.previous = Some(image.clone());
            frames.push(image);
        }
        Ok((Clip { frames }, snapshot))
    }

    /// Waits while the channel is full; an error where nobody reads it any more.
    fn send(&self, item: Prepared) -> Result<()> {
        self.sender
            .blocking_send(Ok(item))
            .map_err(|_| Error::cancelled("nobody reads the prepared segments any more"))
    }
}

/// A whole video as one sample: the clip and the stamps of its sampled frames, one a sample.
/// `frames` is the video's number of frames, counted by decoding it before.
///
/// Fails with `InvalidArgument` where the video has no frames or fewer than counted, and with the
/// source's errors.
pub fn whole_video(
    source: &mut dyn MediaSource,
    frames: u64,
    frames_per_sample: usize,
    image_side: usize,
    resize: &Resize,
) -> Result<(Clip, Vec<FrameStamp>)> {
    let indices = whole_video_indices(frames, frames_per_sample);
    let mut wanted = indices.iter().copied().peekable();
    if wanted.peek().is_none() {
        return Err(Error::invalid("a video of 0 frames cannot be a sample"));
    }
    let reducer = Reducer::new(image_side, resize.clone(), Arc::default(), None)?;
    let (mut clip, mut stamps) = (Vec::with_capacity(indices.len()), Vec::new());
    let mut decoded = 0u64;
    while let Some(&index) = wanted.peek() {
        let frame = match source.next_event()? {
            Some(MediaEvent::Frame(frame)) => frame,
            Some(MediaEvent::Opened(_) | MediaEvent::Gap(_) | MediaEvent::Source(_)) => continue,
            None => {
                return Err(Error::invalid(format!(
                    "the video ended after {decoded} frames, and {frames} were counted: it changed, or it decodes differently each time"
                )));
            }
        };
        decoded += 1;
        if frame.stamp.index < index {
            continue;
        }
        let pixels = reducer.of(frame.picture.as_ref(), false)?.pixels;
        while wanted
            .next_if(|wanted| *wanted <= frame.stamp.index)
            .is_some()
        {
            clip.push(pixels.clone());
            stamps.push(frame.stamp);
        }
    }
    Ok((Clip { frames: clip }, stamps))
}
