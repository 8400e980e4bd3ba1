//! The source of frames: pulls the pipeline, feeds it from an upload, and reports gaps.
//!
//! A hole in the media time is a gap of lost frames (`DecodeError`) where encoded frames went into
//! the decoder and did not come out, or where the demuxer lost its place; see the `ledger` module.
//! A fault that ends the media after its first frame is a gap at the end: what was decoded counts.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use gstreamer as gst;
use tokio_util::sync::CancellationToken;

use super::{
    VideoLimits,
    graph::{Fault, Graph, Source, running_time},
    ledger::Loss,
    level::Level,
    memory::PictureMemory,
    picture::{Formats, GstPicture, PictureFormat},
    pump::{Fed, POLL, Pump},
    reservoir::Reservoir,
    sniff::Container,
    spool::Spool,
    timeline::{Placed, Raw, Timeline},
    upload::{self, Feed, Origin},
};
use crate::{
    error::{Error, Result},
    limits::{DECODED_QUEUE_BYTES, DECODED_QUEUE_FRAMES, DECODED_QUEUE_FRAMES_MAX},
    media::{Frame, Gap, GapReason, MediaEvent, MediaInfo, MediaSource, MediaTime},
};

/// After its input has ended, a demuxer that has shown no video track by then has none.
const LAST_TRACKS: Duration = Duration::from_secs(1);
/// Media that ends this long before its declared end is not whole; less may be rounding.
const MISSING_END: Duration = Duration::from_secs(1);

/// A [`MediaSource`] over a GStreamer pipeline.
pub(crate) struct Decoder {
    // Declared before the spool: the pipeline stops before its file goes.
    graph: Graph,
    _spool: Option<Spool>,
    pump: Option<Pump>,
    container: Container,
    limits: VideoLimits,
    cancel: CancellationToken,
    timeline: Timeline,
    formats: Formats,
    /// Pictures that may wait, as the sink was last told; 0: it was not yet.
    room: u32,
    /// Where pictures are taken together.
    level: Option<Arc<Level>>,
    /// How long the container says that the media lasts.
    declared: Option<Duration>,
    /// Events that belong together; at most three.
    ready: VecDeque<MediaEvent>,
    end: Option<End>,
    /// Told of progress that is no event yet.
    pulse: Option<Box<dyn Fn() + Send>>,
}

enum End {
    Orderly,
    Failed(String),
}

impl Decoder {
    /// Starts decoding, into this memory where the decoder can.
    pub(crate) fn start(
        feed: Feed,
        limits: &VideoLimits,
        cancel: CancellationToken,
        memory: Option<&PictureMemory>,
    ) -> Result<Self> {
        let container = feed.container;
        let start =
            |source: Source<'_>| Graph::start(source, container, feed.fragmented, limits, memory);
        let (graph, spool, pump) = match feed.origin {
            Origin::File(path) => (start(Source::Path(&path))?, None, None),
            Origin::Spooled(spool) => (start(Source::Path(&spool.path()))?, Some(spool), None),
            Origin::Stream(stream) => (
                start(Source::Pushed)?,
                None,
                Some(Pump::new(stream, container, None)),
            ),
            Origin::Growing {
                spool,
                index_end,
                stream,
            } => {
                let reservoir = Reservoir::new(spool, index_end);
                let graph = start(Source::Growing(&reservoir))?;
                (
                    graph,
                    None,
                    Some(Pump::new(stream, container, Some(reservoir))),
                )
            }
        };
        Ok(Decoder {
            graph,
            _spool: spool,
            pump,
            container,
            limits: limits.clone(),
            cancel,
            timeline: Timeline::default(),
            formats: Formats::default(),
            room: 0,
            level: None,
            declared: None,
            ready: VecDeque::new(),
            end: None,
            pulse: None,
        })
    }

    /// Tells `pulse` of progress that is no event yet, often.
    pub(crate) fn with_pulse(self, pulse: impl Fn() + Send + 'static) -> Self {
        Decoder {
            pulse: Some(Box::new(pulse)),
            ..self
        }
    }

    /// For a consumer that takes pictures together, see [`wait_for_many`](Self::wait_for_many).
    pub(crate) fn together(self) -> Self {
        Decoder {
            level: Some(Level::of(&self.graph.sink)),
            ..self
        }
    }

    /// Waits until most of the pictures that may wait do, or the last one, so long at most.
    pub(crate) fn wait_for_many(&self, most: Duration) {
        if let Some(level) = &self.level {
            // The decoder is to go on meanwhile.
            level.wait_for(self.room / 4 * 3, most);
        }
    }

    fn pull(&self, wait: Duration) -> Option<gst::Sample> {
        let wait = gst::ClockTime::from_nseconds(wait.as_nanos() as u64);
        let sample = self.graph.sink.try_pull_sample(wait);
        if let Some(level) = &self.level {
            level.pulled(sample.is_some());
        }
        sample
    }

    /// The next event, if it is at hand or a frame is decoded within `wait`. None says nothing of an end.
    ///
    /// Fails as [`next_event`](MediaSource::next_event).
    pub(crate) fn within(&mut self, wait: Duration) -> Result<Option<MediaEvent>> {
        if self.ready.is_empty()
            && self.end.is_none()
            && let Some(sample) = self.pull(wait)
        {
            self.accept(&sample).inspect_err(|e| {
                self.end = Some(End::Failed(e.to_string()));
            })?;
        }
        Ok(self.ready.pop_front())
    }

    /// Whether no frame will come any more, and all have been taken.
    pub(crate) fn is_over(&self) -> bool {
        self.ready.is_empty() && (self.end.is_some() || self.graph.sink.is_eos())
    }

    /// Pulls until an event is ready or the media has ended.
    fn advance(&mut self) -> Result<Option<MediaEvent>> {
        let mut progress = Progress::new(self.graph.shared.activity());
        let mut wait = Duration::ZERO;
        while self.ready.is_empty() {
            if self.cancel.is_cancelled() {
                return Err(upload::cancelled());
            }
            // Asked before pulling: frames decoded before the fault are still in the queue.
            let faulty = self.graph.shared.state().fault.is_some();
            if let Some(sample) = self.pull(wait) {
                self.accept(&sample)?;
                continue;
            }
            if faulty {
                self.finish_broken()?;
                break;
            }
            if self.graph.sink.is_eos() {
                // The fault may have come just before the end of stream.
                if self.graph.shared.state().fault.is_some() {
                    self.finish_broken()?;
                } else {
                    self.finish()?;
                }
                break;
            }
            wait = POLL;
            if let Some(fed) = self.feed()? {
                progress.made();
                // More may be there at once.
                if fed {
                    wait = Duration::ZERO;
                }
            }
            self.check_progress(&mut progress)?;
        }
        let event = self.ready.pop_front();
        if event.is_none() {
            self.end = Some(End::Orderly);
        }
        Ok(event)
    }

    /// Moves bytes from the upload to the demuxer. `None` if nothing was moved; whether more may be
    /// at hand otherwise.
    fn feed(&mut self) -> Result<Option<bool>> {
        let (Some(pump), Some(src)) = (&mut self.pump, &self.graph.src) else {
            return Ok(None);
        };
        // A demuxer that still has bytes is not to wait for more.
        let Some(patience) = pump.patience(src) else {
            return Ok(None);
        };
        let fed = pump.gather(patience)?;
        if !pump.deliver(src)? || fed == Fed::Ended {
            pump.end(src);
            self.pump = None;
            return Ok(Some(false));
        }
        Ok(match fed {
            Fed::Nothing => None,
            Fed::Waiting => Some(false),
            Fed::Full | Fed::Ended => Some(true),
        })
    }

    fn check_progress(&mut self, progress: &mut Progress) -> Result<()> {
        if progress.observe(self.graph.shared.activity())
            && let Some(pulse) = &self.pulse
        {
            pulse();
        }
        let idle = progress.idle();
        {
            let state = self.graph.shared.state();
            if state.input_ended && state.codec.is_none() && idle > LAST_TRACKS {
                return Err(state.no_video());
            }
        }
        if idle <= self.limits.stall_timeout {
            return Ok(());
        }
        let starved = match (&self.pump, &self.graph.src) {
            (Some(pump), Some(src)) => pump.patience(src) == Some(POLL),
            _ => false,
        };
        if starved {
            return Err(upload::stalled(self.limits.stall_timeout));
        }
        self.graph.stuck = true;
        Err(Error::deadline(format!(
            "decoding the {} input made no progress for {:.0} s after {} frames: it is probably truncated or damaged",
            self.container.name(),
            self.limits.stall_timeout.as_secs_f64(),
            self.timeline.frames()
        )))
    }

    fn accept(&mut self, sample: &gst::Sample) -> Result<()> {
        let (Some(buffer), Some(caps)) = (sample.buffer_owned(), sample.caps()) else {
            return Err(Error::internal(
                "the decoder gave a frame without a picture",
            ));
        };
        let format = self.formats.of(caps, &self.graph.shared, &self.limits)?;
        self.room_for(buffer.maxsize());
        let segment = sample.segment().and_then(|s| s.downcast_ref());
        let pts = match (buffer.pts(), segment) {
            (Some(pts), Some(segment)) => running_time(segment, pts),
            _ => None,
        };
        let duration = buffer.duration().map(Duration::from);
        if self.timeline.frames() == 0 {
            self.timeline = Timeline::new(format.fps());
            // MPEG-TS declares none; what is answered is guessed from clocks and bytes.
            self.declared = match self.container {
                Container::MpegTs => None,
                _ => self.graph.declared_duration().map(Duration::from),
            };
            self.ready.push_back(MediaEvent::Opened(self.info(&format)));
        }
        let before = self.timeline.last_duration();
        // Lost packets take frames with them that the ledger never saw.
        let lossy_demuxer = self.container == Container::MpegTs;
        let placed = self.timeline.push(Raw { pts, duration });
        let gap = {
            let mut state = self.graph.shared.state();
            let loss = state.ledger.picture(pts);
            let gap = gap_before(&placed, loss, before, lossy_demuxer);
            if gap.is_some() {
                state.ledger.reported();
            }
            gap
        };
        self.ready.extend(gap.map(MediaEvent::Gap));
        self.ready.push_back(MediaEvent::Frame(Frame {
            stamp: placed.stamp,
            picture: Arc::new(GstPicture::new(buffer, format)),
            received: None,
        }));
        Ok(())
    }

    /// Lets as many pictures of so many bytes wait as take little memory.
    fn room_for(&mut self, bytes: usize) {
        let fit = u32::try_from(DECODED_QUEUE_BYTES / bytes.max(1)).unwrap_or(u32::MAX);
        let frames = fit.clamp(DECODED_QUEUE_FRAMES, DECODED_QUEUE_FRAMES_MAX);
        if std::mem::replace(&mut self.room, frames) != frames {
            self.graph.sink.set_max_buffers(frames);
        }
    }

    fn info(&self, format: &PictureFormat) -> MediaInfo {
        let (width, height) = format.size();
        let codec = self.graph.shared.state().codec.map_or("", |c| c.name);
        MediaInfo {
            container: self.container.name().to_owned(),
            codec: codec.to_owned(),
            width,
            height,
            declared_fps: format.fps(),
        }
    }

    /// The media has ended in an orderly way.
    fn finish(&mut self) -> Result<()> {
        let mut state = self.graph.shared.state();
        if state.codec.is_none() {
            return Err(state.no_video());
        }
        let unread = state.unread.take();
        if self.timeline.frames() == 0 {
            return Err(no_frames(state.ledger.entered()));
        }
        drop(state);
        self.report_missing_end(unread);
        Ok(())
    }

    /// Reports what is missing between the last frame and the end of the media.
    fn report_missing_end(&mut self, fault: Option<String>) {
        let (open, reached) = {
            let state = self.graph.shared.state();
            let end = self.timeline.end_on_clock().unwrap_or(i64::MAX);
            (state.ledger.rest(end), Duration::from_nanos(state.reached))
        };
        let declared = self.declared.unwrap_or(Duration::ZERO);
        let missing = declared.saturating_sub(reached);
        let frame = self.timeline.last_duration();
        let mut lost = open;
        let mut detail = fault;
        if missing > MISSING_END {
            let frames = missing.as_nanos() / frame.as_nanos().max(1);
            lost = lost.saturating_add(u64::try_from(frames).unwrap_or(u64::MAX));
            detail.get_or_insert_with(|| {
                format!(
                    "the media ends {:.3} s before its declared end: it is truncated or damaged",
                    missing.as_secs_f64()
                )
            });
        } else if open > 0 {
            detail.get_or_insert_with(|| "the last frames could not be decoded".to_owned());
        }
        if let Some(detail) = detail {
            let from = self.timeline.end();
            let span = frame.saturating_mul(u32::try_from(lost).unwrap_or(u32::MAX));
            self.ready.push_back(MediaEvent::Gap(Gap {
                from,
                to: from.saturating_add(span),
                reason: GapReason::DecodeError,
                frames_lost: lost,
                detail,
            }));
        }
        self.end = Some(End::Orderly);
    }

    /// The pipeline has stopped with a fault.
    fn finish_broken(&mut self) -> Result<()> {
        let mut state = self.graph.shared.state();
        match state.fault.take() {
            Some(Fault::Refused(e)) => return Err(e),
            Some(Fault::Broken(text)) if self.timeline.frames() == 0 => {
                let entered = state.ledger.entered();
                return Err(if state.codec.is_none() {
                    Error::invalid(format!(
                        "the {} input cannot be taken apart: {text}",
                        self.container.name()
                    ))
                } else {
                    no_frames(entered).context(text)
                });
            }
            Some(Fault::Broken(text)) => {
                drop(state);
                self.report_missing_end(Some(format!("the media ends in damage: {text}")));
            }
            None => {}
        }
        Ok(())
    }
}

impl MediaSource for Decoder {
    fn next_event(&mut self) -> Result<Option<MediaEvent>> {
        if let Some(event) = self.ready.pop_front() {
            return Ok(Some(event));
        }
        match &self.end {
            Some(End::Orderly) => return Ok(None),
            Some(End::Failed(why)) => {
                return Err(Error::precondition(format!(
                    "this source has failed before: {why}"
                )));
            }
            None => {}
        }
        self.advance().inspect_err(|e| {
            self.end = Some(End::Failed(e.to_string()));
        })
    }
}

/// The gap before a frame, if there is one. `before` is the duration of the frame before it;
/// `lossy_demuxer` says that the length of the hole tells more than the frames that went in.
pub(crate) fn gap_before(
    placed: &Placed,
    loss: Loss,
    before: Duration,
    lossy_demuxer: bool,
) -> Option<Gap> {
    let to = placed.stamp.pts;
    let Some(from) = placed.previous_end else {
        // Frames before the first that decodes, e.g. of a recording cut in the middle.
        return (loss.frames > 0).then(|| Gap {
            from: MediaTime::ZERO,
            to,
            reason: GapReason::DecodeError,
            frames_lost: loss.frames,
            detail: format!("the first {} frames could not be decoded", loss.frames),
        });
    };
    // A quarter of a frame leaves room for rounded timestamps.
    if loss.any() && placed.hole > before / 4 {
        let frames = before.as_nanos().max(1);
        let missing = (placed.hole.as_nanos() + frames / 2) / frames;
        let missing = u64::try_from(missing).unwrap_or(u64::MAX);
        let frames_lost = if lossy_demuxer || loss.discontinuity || loss.untimed {
            loss.frames.max(missing)
        } else {
            loss.frames
        };
        return Some(Gap {
            from,
            to,
            reason: GapReason::DecodeError,
            frames_lost,
            detail: format!("{frames_lost} frames could not be decoded"),
        });
    }
    placed.jumped.then(|| Gap {
        from,
        to,
        reason: GapReason::TimestampJump,
        // Nothing says that there were any.
        frames_lost: 0,
        detail: format!(
            "the media time jumps after {from}: {}",
            if placed.hole.is_zero() {
                "its clock was set back".to_owned()
            } else {
                format!("no frames for {:.3} s", placed.hole.as_secs_f64())
            }
        ),
    })
}

fn no_frames(entered: u64) -> Error {
    Error::invalid(if entered == 0 {
        "the video track has no frames".to_owned()
    } else {
        format!("none of the {entered} encoded frames of the video track can be decoded")
    })
}

/// How long nothing has happened within one wait for an event.
struct Progress {
    seen: u64,
    since: Instant,
}

impl Progress {
    fn new(activity: u64) -> Self {
        Progress {
            seen: activity,
            since: Instant::now(),
        }
    }

    /// Whether there was any.
    fn observe(&mut self, activity: u64) -> bool {
        let moved = activity != self.seen;
        if moved {
            self.seen = activity;
            self.made();
        }
        moved
    }

    fn made(&mut self) {
        self.since = Instant::now();
    }

    fn idle(&self) -> Duration {
        self.since.elapsed()
    }
}
