//! A detection as it runs: what it takes next, from where, in media order.

mod model;
mod stamps;
mod tell;

use std::{
    collections::VecDeque,
    future::{Future, pending},
    pin::Pin,
    sync::Arc,
};

use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Detection, cancelled, left};
use crate::{
    engine::{EngineHandle, Ticket},
    error::{Error, Kind, Result},
    head::HeadFeatures,
    limits::OUTSTANDING_SEGMENTS_MAX,
    media::{Gap, MediaInfo, SourceState},
    pipeline::{
        backlog::{Backlog, Came, Shed, Waiting},
        event::{DetectEvent, Summary},
        follow::{Ask, Follow},
        people::People,
        prepare::{Preparation, Prepared, PreparedSegment, Rescore, Totals},
    },
    profile::Profile,
    score::{
        Scorer,
        events::EndReason,
        locate::{LocatorOutput, StreamingLocator},
    },
};

use model::submitted;
use stamps::Stamps;

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

type Submission = Pin<Box<dyn Future<Output = Result<Ticket>> + Send>>;

pub(super) struct Session {
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
    /// Dropped runs of segments and gaps so far: each splits the smoothing, also where the source counts no new run.
    splits: u64,
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
    pub fn new(
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
            splits: 0,
            scored: None,
            rescore: Rescore::default(),
            event_over: None,
            end: None,
            failure: None,
            summary: Summary::default(),
        }
    }

    pub async fn run(mut self, preparation: &mut Preparation) -> Result<Summary> {
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
            Some(Ok(Prepared::Gap(gap) | Prepared::Lost(gap))) => {
                self.backlog.push(Waiting::Gap(gap))
            }
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
}

fn locator(locator: &mut Option<StreamingLocator>) -> Result<&mut StreamingLocator> {
    locator
        .as_mut()
        .ok_or_else(|| Error::internal("the source gave frames before it was open"))
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
