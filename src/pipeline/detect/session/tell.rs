//! What is told, in media order: scores, events, gaps, states of the source, the end.

use tokio::time::Instant;

use super::{Session, locator, model::submitted, stamps::scores};
use crate::{
    error::{Error, Result},
    media::{Gap, SourceState},
    pipeline::{
        backlog::Shed,
        detect::{cancelled, left},
        event::{DetectEvent, Stage, Summary},
        people::Seen,
        prepare::Totals,
    },
    score::{events::EndReason, locate::LocatorOutput},
    telemetry::metrics,
};

impl Session {
    pub(super) async fn gap(&mut self, gap: Gap) -> Result<()> {
        self.end_run(&gap).await?;
        self.splits += 1;
        self.summary.gaps += 1;
        self.emit(DetectEvent::Gap(gap)).await
    }

    /// What was scored before a gap is final. Where gap follows gap no segment may come for long that could end a
    /// camera's event; media that ends tells of its end by itself.
    async fn end_run(&mut self, gap: &Gap) -> Result<()> {
        let live = self.detection.max_delay.is_some();
        let locator = locator(&mut self.locator)?;
        let outputs = if live {
            locator.gap_to(gap.to)
        } else {
            locator.end_run()
        };
        self.deliver(outputs).await
    }

    /// A live source was interrupted: what is known of the run is all there will be. Or it is back.
    pub(super) async fn source(&mut self, state: SourceState) -> Result<()> {
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
    pub(super) async fn event_is_over(&mut self) -> Result<()> {
        self.event_over = None;
        let outputs = locator(&mut self.locator)?.end_event();
        self.deliver(outputs).await
    }

    /// Segments were dropped here.
    pub(super) async fn shed(&mut self, shed: Shed) -> Result<()> {
        let gap = shed.gap();
        self.end_run(&gap).await?;
        // What the motion gate compares with may be among them.
        self.rescore.ask();
        self.splits += 1;
        self.summary.segments_shed += shed.segments;
        self.summary.frames_shed += shed.frames;
        metrics::gap(&gap);
        self.summary.gaps += 1;
        self.emit(DetectEvent::Gap(gap)).await
    }

    pub(super) async fn finish(mut self) -> Result<Summary> {
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

    pub(super) async fn deliver(&mut self, outputs: Vec<LocatorOutput>) -> Result<()> {
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
    pub(super) async fn emit(&mut self, event: DetectEvent) -> Result<()> {
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

fn out_of_order() -> Error {
    Error::internal("a segment was scored out of order")
}
