//! Segments to the model, and what came back to the locator.

use std::future::pending;

use tokio::time::Instant;

use super::{Item, Session, Submission, locator, stamps::Stamps};
use crate::{
    engine::{Job, Ticket},
    error::{Error, Kind, Result},
    head::HeadFeatures,
    pipeline::{
        backlog::{Came, Shed},
        follow::Ask,
        prepare::PreparedSegment,
    },
    score::locate::LocatorOutput,
    telemetry::{
        cameras,
        metrics::{self, Outcome, Stage as Timed},
        traces::StageTime,
    },
};

impl Session {
    pub(super) fn submit(&mut self, segment: PreparedSegment, came: Came) {
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

    pub(super) fn submitted(&mut self, ticket: Result<Ticket>) {
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
    pub(super) async fn features(&mut self, features: Result<HeadFeatures>) -> Result<()> {
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
        span.run = span.run.saturating_add(self.splits);
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
    pub(super) async fn repeat(&mut self, mut stamps: Stamps, of: u64) -> Result<()> {
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
}

/// The ticket of the segment that waits for room; never, where there is none.
pub(super) async fn submitted(submission: &mut Option<(Stamps, Submission)>) -> Result<Ticket> {
    match submission {
        Some((_, submission)) => submission.await,
        None => pending().await,
    }
}
