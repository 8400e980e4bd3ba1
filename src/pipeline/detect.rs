//! Detection: a source and a profile in, scores and events out, in media order.
//!
//! ```text
//! decode thread ─▶ Preparation ─▶ engine (a few segments at once, in order) ─▶ scorer ─▶ locator ─▶ out
//! ```
//!
//! Each arrow is bounded, so a receiver that stops reading holds back scoring and decoding. A live
//! stream cannot be held back: what is not scored in time is dropped, oldest first, and told as a gap.

use std::{
    collections::VecDeque,
    future::{Future, pending},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::{EngineHandle, Job, Lane, Ticket},
    error::{Error, Kind, Result},
    feedback::Recorder,
    head::HeadFeatures,
    limits::OUTSTANDING_SEGMENTS_MAX,
    media::{FrameStamp, Gap, MediaInfo, SourceState},
    model::pixels::resize_bicubic_into,
    profile::Profile,
    score::{
        Scorer,
        events::EndReason,
        locate::{LocatorOutput, SegmentSpan, StreamingLocator},
    },
    telemetry::{
        cameras,
        metrics::{self, Outcome, Stage as Timed},
        traces::{Call, StageTime, TracedSegment},
    },
};

pub use super::options::DetectOptions;
use super::{
    backlog::{Backlog, Came, Shed, Waiting},
    event::{DetectEvent, SegmentScores, Stage, Summary},
    follow::{Ask, Follow},
    people::{People, Seen},
    prepare::{
        OpenSource, Preparation, PrepareOptions, Prepared, PreparedSegment, Received, Rescore,
        Totals,
    },
    snapshot::Snapshot,
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
    /// For a live source: how old a segment may be when its pass begins; it is dropped then, as it is
    /// when too many wait, and told as a gap. `None`: segments wait, and hold the source back.
    pub max_delay: Option<Duration>,
    /// Versions of the profile to move to, as they are activated: from the next segment on that is
    /// submitted to the model. They must fit it. One that cuts video otherwise is left out, with a
    /// warning in the log. `None`: the profile stays.
    pub follow: Option<watch::Receiver<Arc<Profile>>>,
    /// Keeps what segments were scored from, for verdicts on them.
    pub recorder: Option<Arc<Recorder>>,
    /// The call that it belongs to, where that is traced: its segments become spans.
    pub trace: Option<Call>,
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
        keep_smaller: engine.info().resizes,
        resize: Arc::new(resize_bicubic_into),
        pictures: detection.options.pictures.clone(),
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
    /// A segment in which nothing moved, and the number of the one whose score it repeats.
    Repeat(Stamps, u64),
    Gap(Gap),
    Source(SourceState),
    Shed(Shed),
    /// What was submitted after it is scored with this profile.
    Profile(Arc<Profile>),
}

/// A segment without its pixels.
struct Stamps {
    /// By the decode thread.
    number: u64,
    run: u64,
    frames: Vec<FrameStamp>,
    /// It repeats a score.
    gated: bool,
    snapshot: Option<Snapshot>,
    received: Received,
    /// From the arrival of its last frame to its p, of a live source.
    lag: Option<Duration>,
    /// Where it is traced; until its p is known.
    span: Option<TracedSegment>,
}

type Submission = Pin<Box<dyn Future<Output = Result<Ticket>> + Send>>;

struct Session {
    /// Its profile is the one that scores what comes back from the engine.
    detection: Detection,
    scorer: Scorer,
    /// Of the profile that segments are submitted with: the newer one while it changes.
    ask: Ask,
    follow: Follow,
    /// Of the source, frames per second.
    declared_fps: Option<f64>,
    stream: u64,
    engine: EngineHandle,
    out: mpsc::Sender<DetectEvent>,
    cancel: CancellationToken,
    /// From `Opened` on.
    locator: Option<StreamingLocator>,
    people: People,
    /// What came before it was its turn.
    backlog: Backlog,
    /// The newest segment, while it waits for room in the queue.
    submission: Option<(Stamps, Submission)>,
    /// Submitted segments, and gaps among them.
    items: VecDeque<Item>,
    /// Segments that this locator has been given.
    located: u64,
    /// Segments that the locator has seen and not made final, with its own count of them.
    unfinal: VecDeque<(u64, Stamps)>,
    /// Dropped runs of segments so far: each splits the smoothing as a gap of the source does.
    shed_runs: u64,
    /// The last segment that the model scored: its number and p.
    scored: Option<(u64, f64)>,
    rescore: Rescore,
    /// When an event that an interruption broke off is over.
    event_over: Option<Instant>,
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
            scorer: Scorer::from(profile.as_ref()),
            ask: Ask::of(profile),
            follow: Follow::new(profile.clone(), detection.follow.clone()),
            declared_fps: None,
            stream: engine.new_stream(),
            people: People::new(&detection.options, profile),
            detection,
            engine,
            out,
            cancel,
            locator: None,
            backlog: Backlog::default(),
            submission: None,
            items: VecDeque::new(),
            located: 0,
            unfinal: VecDeque::new(),
            shed_runs: 0,
            scored: None,
            rescore: Rescore::default(),
            event_over: None,
            end: None,
            failure: None,
            summary: Summary::default(),
        }
    }

    async fn run(mut self, preparation: &mut Preparation) -> Result<Summary> {
        self.rescore = preparation.rescore();
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
                Some(Item::Repeat(stamps, of)) => {
                    self.repeat(stamps, of).await?;
                    continue;
                }
                Some(Item::Shed(shed)) => {
                    self.shed(shed).await?;
                    continue;
                }
                Some(Item::Profile(profile)) => {
                    self.move_to(profile).await?;
                    continue;
                }
                Some(segment) => self.items.push_front(segment),
                None => {}
            }
            if self.submission.is_none()
                && self.items.len() < OUTSTANDING_SEGMENTS_MAX
                && let Some(next) = self.backlog.pop()
            {
                self.next(next);
                continue;
            }
            let ended = self.end.is_some() || self.failure.is_some();
            if ended && self.items.is_empty() && self.submission.is_none() {
                break;
            }
            // A live source is taken from at once: it must not be held back.
            let has_room = !ended
                && if self.detection.max_delay.is_some() {
                    self.backlog.has_room()
                } else {
                    self.backlog.is_empty()
                };
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(cancelled()),
                () = self.out.closed() => return Err(left()),
                // Where nothing moves, the change waits for a segment for the model: it is asked for.
                () = self.follow.changed() => self.rescore.ask(),
                features = first_ticket(&mut self.items) => self.features(features).await?,
                ticket = submitted(&mut self.submission) => self.submitted(ticket),
                item = preparation.next(), if has_room => self.prepared(item).await?,
                () = passed(self.event_over) => self.event_is_over().await?,
            }
        }
        self.finish().await
    }

    /// Takes the next item of the decode thread.
    async fn prepared(&mut self, item: Option<Result<Prepared>>) -> Result<()> {
        match item {
            Some(Ok(Prepared::Opened(info))) => self.opened(info).await?,
            Some(Ok(Prepared::Segment(segment))) => {
                let came = self.came(&segment);
                self.backlog.push(Waiting::Segment(Box::new(segment), came));
                if self.detection.max_delay.is_some() {
                    self.backlog.shed();
                }
            }
            Some(Ok(Prepared::Gap(gap))) => self.backlog.push(Waiting::Gap(gap)),
            Some(Ok(Prepared::Source(state))) => self.backlog.push(Waiting::Source(state)),
            Some(Ok(Prepared::End(totals))) => self.end = Some(totals),
            Some(Err(error)) if error.kind() == Kind::Cancelled => return Err(error),
            Some(Err(error)) => self.failure = Some(error),
            None => {
                self.failure = Some(Error::internal("the decode thread ended without a word"));
            }
        }
        Ok(())
    }

    fn came(&self, segment: &PreparedSegment) -> Came {
        let frames = segment.frames.first().zip(segment.frames.last());
        let frames = frames.map(|(first, last)| (*first, *last));
        Came {
            at: Instant::now(),
            span: self
                .detection
                .trace
                .as_ref()
                .map(|call| call.segment(segment.number, segment.run, frames, &segment.stages)),
        }
    }

    async fn opened(&mut self, info: MediaInfo) -> Result<()> {
        self.declared_fps = info.declared_fps;
        self.locator = Some(self.new_locator()?);
        self.emit(DetectEvent::Opened(info)).await
    }

    fn new_locator(&self) -> Result<StreamingLocator> {
        let profile = &self.detection.profile;
        StreamingLocator::new(&profile.locator, profile.segment.seconds(self.declared_fps))
    }

    /// Every segment that was submitted with the old profile has been scored: its scores become
    /// final and its event ends, and the new one begins as at the start of the media.
    async fn move_to(&mut self, profile: Arc<Profile>) -> Result<()> {
        let mut outputs = locator(&mut self.locator)?.finish();
        for output in &mut outputs {
            if let LocatorOutput::Ended(_, reason @ EndReason::EndOfStream) = output {
                *reason = EndReason::ProfileChanged;
            }
        }
        self.deliver(outputs).await?;
        self.scorer = Scorer::from(profile.as_ref());
        self.people.restart(&profile);
        self.detection.profile = profile.clone();
        self.locator = Some(self.new_locator()?);
        self.located = 0;
        self.scored = None;
        self.event_over = None;
        let version = profile.checksum()?;
        tracing::info!(profile = profile.name, version, "moved to another version");
        self.emit(DetectEvent::ProfileChanged {
            profile: profile.name.clone(),
            version,
        })
        .await
    }

    /// Takes what waited longest.
    fn next(&mut self, next: Waiting) {
        match next {
            Waiting::Segment(segment, came) => self.submit(*segment, came),
            Waiting::Shed(shed) => self.items.push_back(Item::Shed(shed)),
            Waiting::Gap(gap) => self.items.push_back(Item::Gap(gap)),
            Waiting::Source(state) => self.items.push_back(Item::Source(state)),
        }
    }

    fn submit(&mut self, segment: PreparedSegment, came: Came) {
        let PreparedSegment {
            number,
            run,
            frames,
            clip,
            repeats,
            snapshot,
            received,
            ..
        } = segment;
        let stages = came.span.as_ref().map(|span| span.stages().clone());
        let stamps = Stamps {
            number,
            run,
            frames,
            gated: repeats.is_some(),
            snapshot,
            received,
            lag: None,
            span: came.span,
        };
        if let Some(of) = repeats {
            self.items.push_back(Item::Repeat(stamps, of));
            return;
        }
        if let Some(profile) = self.follow.take() {
            self.ask = Ask::of(&profile);
            self.items.push_back(Item::Profile(profile));
        }
        let job = Job {
            clip,
            prompts: self.ask.prompts.clone(),
            heads: self.ask.heads.clone(),
            lane: self.detection.lane,
            stream: self.stream,
            deadline: self
                .detection
                .max_delay
                .and_then(|delay| came.at.checked_add(delay))
                .map(Instant::into_std),
            cancel: self.cancel.clone(),
            stages,
        };
        let engine = self.engine.clone();
        self.submission = Some((stamps, Box::pin(async move { engine.submit(job).await })));
    }

    fn submitted(&mut self, ticket: Result<Ticket>) {
        let Some((mut stamps, _)) = self.submission.take() else {
            return;
        };
        match ticket {
            Ok(ticket) => self.items.push_back(Item::Segment(stamps, ticket)),
            Err(error) if self.sheds(&error) => {
                if let Some(span) = stamps.span.take() {
                    span.shed();
                }
                self.items.extend(Shed::of(&stamps.frames).map(Item::Shed));
            }
            Err(error) => {
                if let Some(span) = stamps.span.take() {
                    span.failed(&error);
                }
                self.backlog.clear();
                self.failure = Some(error);
            }
        }
    }

    /// Takes the features of the first segment under way.
    async fn features(&mut self, features: Result<HeadFeatures>) -> Result<()> {
        let Some(Item::Segment(mut stamps, _)) = self.items.pop_front() else {
            return Ok(());
        };
        let span = stamps.span.take();
        if let Err(error) = &features
            && self.sheds(error)
        {
            if let Some(span) = span {
                span.shed();
            }
            return match Shed::of(&stamps.frames) {
                Some(shed) => self.shed(shed).await,
                None => Ok(()),
            };
        }
        let started = Instant::now();
        let scored = features.and_then(|features| self.score(stamps, &features));
        match scored {
            Ok(outputs) => {
                if let (Some(span), Some((_, p))) = (span, self.scored) {
                    let (from, to) = (started.into_std(), Instant::now().into_std());
                    span.stages().add(StageTime::new(Timed::Score, from, to));
                    span.scored(p);
                }
                self.deliver(outputs).await
            }
            Err(error) => {
                if let Some(span) = span {
                    span.failed(&error);
                }
                // Nothing behind it can be delivered: the order would have a hole.
                self.items.clear();
                self.backlog.clear();
                self.submission = None;
                self.failure = Some(error);
                Ok(())
            }
        }
    }

    /// Whether this is what a live segment that comes too late is answered with.
    fn sheds(&self, error: &Error) -> bool {
        self.detection.max_delay.is_some()
            && matches!(
                error.kind(),
                Kind::DeadlineExceeded | Kind::ResourceExhausted
            )
    }

    /// p of a segment: the mean over the scoring prompts; then what the locator makes of it.
    fn score(&mut self, stamps: Stamps, features: &HeadFeatures) -> Result<Vec<LocatorOutput>> {
        let started = Instant::now();
        let mut sum = 0.0;
        for prompt in 0..features.prompts {
            sum += self.scorer.probability(features.prompt(prompt))?;
        }
        let p = sum / features.prompts as f64;
        self.scored = Some((stamps.number, p));
        let outputs = self.locate(stamps, p, Some(features))?;
        metrics::stage(Timed::Score, started.elapsed());
        Ok(outputs)
    }

    /// What the locator makes of a segment's p; without `features` it repeats another's.
    fn locate(
        &mut self,
        mut stamps: Stamps,
        p: f64,
        features: Option<&HeadFeatures>,
    ) -> Result<Vec<LocatorOutput>> {
        // A clock that was set back in between leaves nothing to tell.
        stamps.lag = stamps.received.last.and_then(|last| last.elapsed().ok());
        if let Some(lag) = stamps.lag {
            cameras::frame_lag(lag);
        }
        let mut span = stamps.span()?;
        span.run = span.run.saturating_add(self.shed_runs);
        let outputs = locator(&mut self.locator)?.push(span, p)?;
        if let Some(recorder) = &self.detection.recorder {
            let z = features.map(|features| features.data.as_slice());
            recorder.segment(&self.detection.profile, stamps.number, span, p, z);
        }
        self.unfinal.push_back((self.located, stamps));
        self.located += 1;
        self.summary.segments += 1;
        Ok(outputs)
    }

    /// A segment in which nothing moved. The one that it repeats has been dealt with; if that one
    /// was dropped, there is no score for this one either.
    async fn repeat(&mut self, mut stamps: Stamps, of: u64) -> Result<()> {
        let span = stamps.span.take();
        match self.scored {
            Some((number, p)) if number == of => {
                metrics::segment(Outcome::Gated);
                self.summary.segments_gated += 1;
                let outputs = self.locate(stamps, p, None)?;
                if let Some(span) = span {
                    span.gated(p, of);
                }
                self.deliver(outputs).await
            }
            _ => {
                if let Some(span) = span {
                    span.shed();
                }
                match Shed::of(&stamps.frames) {
                    Some(shed) => self.shed(shed).await,
                    None => Ok(()),
                }
            }
        }
    }

    async fn gap(&mut self, gap: Gap) -> Result<()> {
        let outputs = locator(&mut self.locator)?.end_run();
        self.deliver(outputs).await?;
        self.summary.gaps += 1;
        self.emit(DetectEvent::Gap(gap)).await
    }

    /// A live source was interrupted: what is known of the run is all there will be. Or it is back.
    async fn source(&mut self, state: SourceState) -> Result<()> {
        match (&state, &mut self.locator) {
            (SourceState::Interrupted { .. }, Some(locator)) => {
                let outputs = locator.end_run();
                let bridge = locator.bridge();
                self.deliver(outputs).await?;
                if self.event_over.is_none() {
                    self.event_over = Instant::now().checked_add(bridge);
                }
            }
            (SourceState::Connected, _) => self.event_over = None,
            (SourceState::Interrupted { .. }, None) => {}
        }
        self.emit(DetectEvent::Source(state)).await
    }

    /// The source is interrupted for longer than an event may be: nobody is to wait for its end until
    /// the camera is back.
    async fn event_is_over(&mut self) -> Result<()> {
        self.event_over = None;
        let outputs = locator(&mut self.locator)?.end_event();
        self.deliver(outputs).await
    }

    /// Segments were dropped here.
    async fn shed(&mut self, shed: Shed) -> Result<()> {
        let outputs = locator(&mut self.locator)?.end_run();
        self.deliver(outputs).await?;
        // What the motion gate compares with may be among them.
        self.rescore.ask();
        self.shed_runs += 1;
        self.summary.segments_shed += shed.segments;
        self.summary.frames_shed += shed.frames;
        let gap = shed.gap();
        metrics::gap(&gap);
        self.summary.gaps += 1;
        self.emit(DetectEvent::Gap(gap)).await
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
        if self.summary.frames + self.summary.frames_shed != frames {
            return Err(Error::internal(format!(
                "{} of {frames} decoded frames got a final score, {} were dropped",
                self.summary.frames, self.summary.frames_shed
            )));
        }
        self.summary.duration = duration;
        self.emit(DetectEvent::Summary(self.summary)).await?;
        Ok(self.summary)
    }

    async fn deliver(&mut self, outputs: Vec<LocatorOutput>) -> Result<()> {
        for output in outputs {
            let newest = self.unfinal.back().and_then(|(_, s)| s.received.first);
            match output {
                LocatorOutput::Provisional {
                    segment,
                    p,
                    smoothed,
                    ..
                } if self.detection.options.provisional => {
                    let stamps = self.unfinal.back().filter(|(count, _)| *count == segment);
                    let (_, stamps) = stamps.ok_or_else(out_of_order)?;
                    let frames = stamps.frames.clone();
                    let event = scores(Stage::Provisional, stamps, frames, p, smoothed);
                    self.emit(event).await?;
                }
                LocatorOutput::Final {
                    segment,
                    p,
                    smoothed,
                } => {
                    let stamps = self.unfinal.pop_front();
                    let stamps = stamps.filter(|(count, _)| *count == segment);
                    let (_, mut stamps) = stamps.ok_or_else(out_of_order)?;
                    let frames = std::mem::take(&mut stamps.frames);
                    self.summary.frames += frames.len() as u64;
                    let event = scores(Stage::Final, &stamps, frames, p, smoothed);
                    self.people.see(Seen {
                        smoothed,
                        snapshot: stamps.snapshot,
                        received: stamps.received.first,
                    });
                    self.emit(event).await?;
                }
                _ => {}
            }
            if let Some(event) = self.people.take(&output, newest) {
                self.tell(event).await?;
            }
        }
        Ok(())
    }

    /// Tells people of an event.
    async fn tell(&mut self, event: DetectEvent) -> Result<()> {
        let starts = matches!(event, DetectEvent::EventStarted(_));
        if let (Some(recorder), Some(told)) = (&self.detection.recorder, event.told()) {
            recorder.event(told);
        }
        match &event {
            DetectEvent::EventStarted(_) => metrics::event_started(),
            DetectEvent::EventEnded(_, reason, _) if *reason != EndReason::NotConfirmed => {
                self.summary.events += 1;
            }
            _ => {}
        }
        self.emit(event).await?;
        if starts && let Some(began) = self.people.began() {
            metrics::alert_delay(began);
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

fn out_of_order() -> Error {
    Error::internal("a segment was scored out of order")
}

fn scores(
    stage: Stage,
    stamps: &Stamps,
    frames: Vec<FrameStamp>,
    probability: f64,
    smoothed: f64,
) -> DetectEvent {
    DetectEvent::Scores(SegmentScores {
        stage,
        segment: stamps.number,
        frames,
        probability,
        smoothed,
        gated: stamps.gated,
        received: stamps.received.last,
        lag: stamps.lag,
    })
}

async fn passed(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
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
