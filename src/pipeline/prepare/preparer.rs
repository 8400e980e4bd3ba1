//! What the decode thread does with what its source yields.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{OpenSource, PrepareOptions, Prepared, PreparedSegment, Received, Rescore, Totals};
use crate::{
    engine::probe::Clip,
    error::{Error, Kind, Result},
    limits::{RAW_PICTURES_MAX_BYTES, WORKER_PICTURES_AHEAD},
    media::{Frame, Gap, GapReason, MediaEvent, SharedImage, SourceState},
    pipeline::{reduce::Reducer, sample::Sample, snapshot::Snapshot},
    segment::{SampledSegment, Segmenter, motion::MotionGate},
    telemetry::{
        metrics::{self, Stage},
        traces::StageTime,
    },
};

/// The decode thread's state.
pub(super) struct Preparer {
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
    /// All decoded frames, those below among them.
    totals: Totals,
    /// Of segments whose pictures are gone.
    lost_frames: u64,
    opened: bool,
    /// Since the last segment was complete.
    decoding: Duration,
    /// When the decoding of the open segment began.
    decoding_since: Option<Instant>,
    sender: mpsc::Sender<Result<Prepared>>,
    cancel: CancellationToken,
}

impl Preparer {
    pub fn new(
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
            lost_frames: 0,
            opened: false,
            decoding: Duration::ZERO,
            decoding_since: None,
            sender,
            cancel,
        })
    }

    pub fn run(mut self, open: OpenSource) -> Result<()> {
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
        self.send(Prepared::End(Totals {
            frames: self.totals.frames.saturating_sub(self.lost_frames),
            ..self.totals
        }))
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
            // As in `pictures`.
            let raw = |sample: &&Sample| matches!(sample, Sample::Raw(_));
            let ahead: Vec<Sample> = self
                .segmenter
                .payloads()
                .iter()
                .filter(raw)
                .cloned()
                .collect();
            let mut ahead = ahead.into_iter();
            let ask = |sample: Sample| sample.ahead(reducer, false);
            ahead.by_ref().take(WORKER_PICTURES_AHEAD).for_each(ask);
            self.segmenter.map_pending(|sample| {
                let reduced = sample.reduced(reducer);
                if raw(&sample) {
                    ahead.next().into_iter().for_each(ask);
                }
                reduced
            })?;
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
        self.lost_frames += gap.frames_lost;
        self.send(Prepared::Lost(gap))
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
        let mut ahead = segment.samples.iter().zip(&segment.sample_offsets);
        let ask = |(sample, offset): (&Sample, &usize)| {
            sample.ahead(&self.reducer, middle == Some(*offset));
        };
        ahead.by_ref().take(WORKER_PICTURES_AHEAD).for_each(ask);
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
