//! Detection: a source and a profile in, scores and events out, in media order.
//!
//! ```text
//! decode thread ─▶ Preparation ─▶ engine (a few segments at once, in order) ─▶ scorer ─▶ locator ─▶ out
//! ```
//!
//! Each arrow is bounded, so a receiver that stops reading holds back scoring and decoding.

use std::{
    collections::VecDeque,
    future::{Future, pending},
    pin::Pin,
    sync::Arc,
    time::Instant,
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    engine::{EngineHandle, Job, Lane, Ticket},
    error::{Error, Kind, Result},
    head::{HeadFeatures, HeadSelection},
    limits::OUTSTANDING_SEGMENTS_MAX,
    media::{FrameStamp, Gap, MediaInfo, SourceState},
    model::pixels::resize_bicubic,
    profile::Profile,
    score::{
        locate::{LocatorOutput, SegmentSpan, StreamingLocator},
        logistic::Logistic,
    },
    telemetry::metrics::{self, Stage as Timed},
};

use super::{
    event::{DetectEvent, SegmentScores, Stage, Summary},
    prepare::{OpenSource, Preparation, PrepareOptions, Prepared, PreparedSegment, Totals},
};

/// What a detection runs with.
#[derive(Clone)]
pub struct Detection {
    /// Heads, prompts, scorer and locator.
    pub profile: Arc<Profile>,
    /// What the caller asked for.
    pub options: DetectOptions,
    /// Who waits.
    pub lane: Lane,
}

/// What the caller of a detection may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DetectOptions {
    /// Also send each segment's scores at once, before smoothing is final.
    pub provisional: bool,
}

/// Runs a detection to its end and returns what its last event, the summary, says.
///
/// Events go to `out` in media order: `Opened`; then scores, events and gaps; then `Summary`. Each
/// decoded frame is in exactly one final score. An input that fails on its way (or a segment that
/// cannot be scored) ends the detection with that error: the segments before it are delivered with
/// final scores first, as if the media had ended there, without a summary.
///
/// `cancel` must be this detection's own, the one that `source` opens its media with: it is fired
/// when the detection ends, however it ends, so that a source that waits for input stops too.
///
/// Fails with `FailedPrecondition` where the profile does not fit the model, `Cancelled` with the
/// token or when nobody receives from `out` any more, and with the source's and engine's errors.
pub async fn run(
    source: OpenSource,
    detection: Detection,
    engine: EngineHandle,
    out: mpsc::Sender<DetectEvent>,
    cancel: CancellationToken,
) -> Result<Summary> {
    let _cancel = cancel.clone().drop_guard();
    check_profile(&detection.profile, &engine, &cancel).await?;
    let options = PrepareOptions {
        rule: detection.profile.segment,
        frames_per_segment: detection.profile.frames_per_segment,
        image_side: engine.info().image_side,
        resize: Arc::new(resize_bicubic),
    };
    let mut preparation = Preparation::start(source, options, cancel.clone())?;
    let result = Session::new(detection, engine, out, cancel)
        .run(&mut preparation)
        .await;
    preparation.stop().await;
    result
}

/// Whether a profile fits the engine's model; [`run`] asks this first. Differences that may shift
/// scores a little are logged as warnings.
///
/// Fails with `FailedPrecondition` where it does not fit, `Cancelled` with the token, and as
/// [`EngineHandle::fingerprint`].
pub async fn check_profile(
    profile: &Profile,
    engine: &EngineHandle,
    cancel: &CancellationToken,
) -> Result<()> {
    profile.check_shape(engine.info())?;
    let fingerprint = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(cancelled()),
        fingerprint = engine.fingerprint(profile.layers_needed()) => fingerprint?,
    };
    for warning in profile.check_model(engine.info(), &fingerprint)? {
        tracing::warn!(profile = profile.name, "{warning}");
    }
    Ok(())
}

fn cancelled() -> Error {
    Error::cancelled("the detection was cancelled")
}

fn left() -> Error {
    Error::cancelled("nobody receives the results any more")
}

/// What is between the decode thread and the locator, in media order.
enum Item {
    Segment(Stamps, Ticket),
    Gap(Gap),
    Source(SourceState),
}

/// A segment without its pixels.
struct Stamps {
    number: u64,
    run: u64,
    frames: Vec<FrameStamp>,
}

type Submission = Pin<Box<dyn Future<Output = Result<Ticket>> + Send>>;

struct Session {
    detection: Detection,
    scorer: Logistic,
    prompts: Arc<[String]>,
    heads: HeadSelection,
    stream: u64,
    engine: EngineHandle,
    out: mpsc::Sender<DetectEvent>,
    cancel: CancellationToken,
    /// From `Opened` on.
    locator: Option<StreamingLocator>,
    /// The newest segment, while it waits for room in the queue.
    submission: Option<(Stamps, Submission)>,
    /// Submitted segments, and gaps among them.
    items: VecDeque<Item>,
    /// Segments that the locator has seen and not made final.
    unfinal: VecDeque<Stamps>,
    /// The orderly end of the source.
    end: Option<Totals>,
    /// What ends the detection once the segments before it are delivered.
    failure: Option<Error>,
    summary: Summary,
}

impl Session {
    fn new(
        detection: Detection,
        engine: EngineHandle,
        out: mpsc::Sender<DetectEvent>,
        cancel: CancellationToken,
    ) -> Self {
        let profile = &detection.profile;
        Session {
            scorer: Logistic::from(&profile.scorer),
            prompts: profile.scoring_prompts.as_slice().into(),
            heads: HeadSelection::Only(profile.heads.clone()),
            stream: engine.new_stream(),
            detection,
            engine,
            out,
            cancel,
            locator: None,
            submission: None,
            items: VecDeque::new(),
            unfinal: VecDeque::new(),
            end: None,
            failure: None,
            summary: Summary::default(),
        }
    }

    async fn run(mut self, preparation: &mut Preparation) -> Result<Summary> {
        loop {
            match self.items.pop_front() {
                Some(Item::Gap(gap)) => {
                    self.gap(gap).await?;
                    continue;
                }
                Some(Item::Source(state)) => {
                    self.source(state).await?;
                    continue;
                }
                Some(segment) => self.items.push_front(segment),
                None => {}
            }
            let ended = self.end.is_some() || self.failure.is_some();
            if ended && self.items.is_empty() && self.submission.is_none() {
                break;
            }
            let has_room =
                !ended && self.submission.is_none() && self.items.len() < OUTSTANDING_SEGMENTS_MAX;
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(cancelled()),
                () = self.out.closed() => return Err(left()),
                features = first_ticket(&mut self.items) => self.features(features).await?,
                ticket = submitted(&mut self.submission) => self.submitted(ticket),
                item = preparation.next(), if has_room => self.prepared(item).await?,
            }
        }
        self.finish().await
    }

    /// Takes the next item of the decode thread.
    async fn prepared(&mut self, item: Option<Result<Prepared>>) -> Result<()> {
        match item {
            Some(Ok(Prepared::Opened(info))) => self.opened(info).await?,
            Some(Ok(Prepared::Segment(segment))) => self.submit(segment),
            Some(Ok(Prepared::Gap(gap))) => self.items.push_back(Item::Gap(gap)),
            Some(Ok(Prepared::Source(state))) => self.items.push_back(Item::Source(state)),
            Some(Ok(Prepared::End(totals))) => self.end = Some(totals),
            Some(Err(error)) if error.kind() == Kind::Cancelled => return Err(error),
            Some(Err(error)) => self.failure = Some(error),
            None => {
                self.failure = Some(Error::internal("the decode thread ended without a word"));
            }
        }
        Ok(())
    }

    async fn opened(&mut self, info: MediaInfo) -> Result<()> {
        let profile = &self.detection.profile;
        self.locator = Some(StreamingLocator::new(
            &profile.locator,
            profile.segment.seconds(info.declared_fps),
        )?);
        self.emit(DetectEvent::Opened(info)).await
    }

    fn submit(&mut self, segment: PreparedSegment) {
        let PreparedSegment {
            number,
            run,
            frames,
            clip,
        } = segment;
        let job = Job {
            clip,
            prompts: self.prompts.clone(),
            heads: self.heads.clone(),
            lane: self.detection.lane,
            stream: self.stream,
            deadline: None,
            cancel: self.cancel.clone(),
        };
        let engine = self.engine.clone();
        let stamps = Stamps {
            number,
            run,
            frames,
        };
        self.submission = Some((stamps, Box::pin(async move { engine.submit(job).await })));
    }

    fn submitted(&mut self, ticket: Result<Ticket>) {
        let Some((stamps, _)) = self.submission.take() else {
            return;
        };
        match ticket {
            Ok(ticket) => self.items.push_back(Item::Segment(stamps, ticket)),
            Err(error) => self.failure = Some(error),
        }
    }

    /// Takes the features of the first segment under way.
    async fn features(&mut self, features: Result<HeadFeatures>) -> Result<()> {
        let Some(Item::Segment(stamps, _)) = self.items.pop_front() else {
            return Ok(());
        };
        let scored = features.and_then(|features| self.score(stamps, &features));
        match scored {
            Ok(outputs) => self.deliver(outputs).await,
            Err(error) => {
                // Nothing behind it can be delivered: the order would have a hole.
                self.items.clear();
                self.submission = None;
                self.failure = Some(error);
                Ok(())
            }
        }
    }

    /// p of a segment: the mean over the scoring prompts; then what the locator makes of it.
    fn score(&mut self, stamps: Stamps, features: &HeadFeatures) -> Result<Vec<LocatorOutput>> {
        let started = Instant::now();
        let mut sum = 0.0;
        for prompt in 0..features.prompts {
            sum += self.scorer.probability(features.prompt(prompt))?;
        }
        let p = sum / features.prompts as f64;
        let outputs = locator(&mut self.locator)?.push(stamps.span()?, p)?;
        self.summary.segments += 1;
        self.unfinal.push_back(stamps);
        metrics::stage(Timed::Score, started.elapsed());
        Ok(outputs)
    }

    async fn gap(&mut self, gap: Gap) -> Result<()> {
        let outputs = locator(&mut self.locator)?.end_run();
        self.deliver(outputs).await?;
        self.summary.gaps += 1;
        self.emit(DetectEvent::Gap(gap)).await
    }

    /// A live source was interrupted: what is known of the run is all there will be. Or it is back.
    async fn source(&mut self, state: SourceState) -> Result<()> {
        if let (SourceState::Interrupted { .. }, Some(locator)) = (&state, &mut self.locator) {
            let outputs = locator.end_run();
            self.deliver(outputs).await?;
        }
        self.emit(DetectEvent::Source(state)).await
    }

    async fn finish(mut self) -> Result<Summary> {
        if let Some(locator) = &mut self.locator {
            let outputs = locator.finish();
            self.deliver(outputs).await?;
        }
        if let Some(error) = self.failure {
            return Err(error);
        }
        let Totals { frames, duration } = self.end.unwrap_or_default();
        if self.summary.frames != frames {
            return Err(Error::internal(format!(
                "{} of {frames} decoded frames got a final score",
                self.summary.frames
            )));
        }
        self.summary.duration = duration;
        self.emit(DetectEvent::Summary(self.summary)).await?;
        Ok(self.summary)
    }

    async fn deliver(&mut self, outputs: Vec<LocatorOutput>) -> Result<()> {
        for output in outputs {
            let event = match output {
                LocatorOutput::Provisional { .. } if !self.detection.options.provisional => {
                    continue;
                }
                LocatorOutput::Provisional {
                    segment,
                    p,
                    smoothed,
                    ..
                } => {
                    let frames = self.unfinal.back().map(|stamps| stamps.frames.clone());
                    scores(Stage::Provisional, segment, frames, p, smoothed)?
                }
                LocatorOutput::Final {
                    segment,
                    p,
                    smoothed,
                } => {
                    let stamps = self.unfinal.pop_front();
                    let frames = stamps
                        .filter(|stamps| stamps.number == segment)
                        .map(|stamps| stamps.frames);
                    let event = scores(Stage::Final, segment, frames, p, smoothed)?;
                    if let DetectEvent::Scores(scores) = &event {
                        self.summary.frames += scores.frames.len() as u64;
                    }
                    event
                }
                LocatorOutput::Started(event) => {
                    metrics::event_started();
                    self.summary.events += 1;
                    DetectEvent::EventStarted(event)
                }
                LocatorOutput::Updated(event) => DetectEvent::EventUpdated(event),
                LocatorOutput::Ended(event, reason) => DetectEvent::EventEnded(event, reason),
            };
            self.emit(event).await?;
        }
        Ok(())
    }

    /// Sends one event; waits while the receiver is slow. Meanwhile a segment that finds room in
    /// the queue takes it: room that is granted and not taken would be kept from other streams.
    async fn emit(&mut self, event: DetectEvent) -> Result<()> {
        loop {
            let ticket = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(cancelled()),
                permit = self.out.reserve() => {
                    permit.map_err(|_| left())?.send(event);
                    return Ok(());
                }
                ticket = submitted(&mut self.submission) => ticket,
            };
            self.submitted(ticket);
        }
    }
}

impl Stamps {
    fn span(&self) -> Result<SegmentSpan> {
        match (self.frames.first(), self.frames.last()) {
            (Some(first), Some(last)) => Ok(SegmentSpan {
                first_frame: first.index,
                last_frame: last.index,
                start: first.pts,
                end: last.end(),
                run: self.run,
            }),
            _ => Err(Error::internal(format!(
                "segment {} has no frames",
                self.number
            ))),
        }
    }
}

fn locator(locator: &mut Option<StreamingLocator>) -> Result<&mut StreamingLocator> {
    locator
        .as_mut()
        .ok_or_else(|| Error::internal("the source gave frames before it was open"))
}

fn scores(
    stage: Stage,
    segment: u64,
    frames: Option<Vec<FrameStamp>>,
    probability: f64,
    smoothed: f64,
) -> Result<DetectEvent> {
    let frames = frames
        .ok_or_else(|| Error::internal(format!("segment {segment} was scored out of order")))?;
    Ok(DetectEvent::Scores(SegmentScores {
        stage,
        segment,
        frames,
        probability,
        smoothed,
    }))
}

/// The features of the first item; never, where it is none.
async fn first_ticket(items: &mut VecDeque<Item>) -> Result<HeadFeatures> {
    match items.front_mut() {
        Some(Item::Segment(_, ticket)) => ticket.await,
        _ => pending().await,
    }
}

/// The ticket of the segment that waits for room; never, where there is none.
async fn submitted(submission: &mut Option<(Stamps, Submission)>) -> Result<Ticket> {
    match submission {
        Some((_, submission)) => submission.await,
        None => pending().await,
    }
}
