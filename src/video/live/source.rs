//! The source: attempts and sessions one after another, each with a decoder of its own.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    Decoded, Decoding, Dial, LiveOptions, Pulled,
    attempt::{Arrival, Attempt},
    codec_name,
    connection::Connection,
    line::Line,
    policy::{Decision, Policy, gap_reason},
    sequencer::{Came, Sequencer},
};
use crate::{
    clock::Clock,
    error::{Error, Kind, Result},
    limits::{LIVE_DRAIN_MILLIS, LIVE_POLL_MILLIS},
    media::{GapReason, MediaEvent, MediaSource, SourceState},
    rtsp::{Failure, FailureKind},
    video::worker::RemoteConnection,
};

/// How the source stands to the camera.
enum Link {
    /// The next attempt begins then.
    Waiting(Duration),
    /// An attempt, or the session that came of it.
    Up(Attempt),
    /// What has arrived is still decoded, until then at most.
    Draining(Instant, Next),
}

/// What follows when the last pictures are out.
enum Next {
    Interrupted(Failure, GapReason),
    Stop,
}

pub(super) struct LiveSource {
    dial: Arc<dyn Dial>,
    options: LiveOptions,
    stop: CancellationToken,
    cancel: CancellationToken,
    line: Line,
    sequencer: Sequencer,
    policy: Policy,
    link: Link,
    connection: Option<Box<dyn Decoding>>,
    /// When the present connection began or last showed a picture.
    progress: Duration,
    /// Events that belong together; at most four.
    ready: VecDeque<MediaEvent>,
    /// How the source ends once `ready` is empty.
    end: Option<Result<()>>,
}

/// What ended a wait.
enum Woken {
    Cancelled,
    Stop,
    Arrived(Arrival),
    Look,
}

impl LiveSource {
    pub fn new(
        dial: Arc<dyn Dial>,
        options: LiveOptions,
        stop: CancellationToken,
        cancel: CancellationToken,
    ) -> Self {
        let began = options.clock.now();
        LiveSource {
            link: Link::Waiting(began),
            dial,
            options,
            stop,
            cancel,
            line: Line::default(),
            sequencer: Sequencer::new(),
            policy: Policy::default(),
            connection: None,
            progress: began,
            ready: VecDeque::new(),
            end: None,
        }
    }

    fn advance(&mut self) -> Result<()> {
        if self.pull()? {
            return Ok(());
        }
        match self.wait() {
            Woken::Cancelled => Err(Error::cancelled("the detection was cancelled")),
            Woken::Stop => {
                self.drain(Next::Stop);
                Ok(())
            }
            Woken::Arrived(arrival) => self.arrived(arrival),
            Woken::Look => self.look(),
        }
    }

    /// Takes a decoded picture; whether something happened.
    fn pull(&mut self) -> Result<bool> {
        let Some(connection) = &mut self.connection else {
            return Ok(false);
        };
        let pulled = match connection.pull() {
            Ok(pulled) => pulled,
            // A camera that worked does not become another one: what arrived was damaged.
            Err(error) if self.policy.worked() && error.kind() == Kind::InvalidArgument => {
                Pulled::Ended(Some(error.to_string()))
            }
            Err(error) => return Err(error),
        };
        match pulled {
            Pulled::Picture(decoded) => {
                self.accept(decoded);
                Ok(true)
            }
            Pulled::Nothing => Ok(false),
            Pulled::Ended(fault) => {
                match std::mem::replace(&mut self.link, Link::Waiting(Duration::ZERO)) {
                    Link::Draining(_, next) => self.drained(next)?,
                    Link::Up(_) | Link::Waiting(_) => {
                        let message = format!(
                            "the camera's stream cannot be decoded further: {}",
                            fault.as_deref().unwrap_or("the decoder ended")
                        );
                        let failure = Failure {
                            kind: FailureKind::Protocol,
                            message,
                        };
                        self.drained(Next::Interrupted(failure, GapReason::DecodeError))?;
                    }
                }
                Ok(true)
            }
        }
    }

    /// Waits for whatever comes first.
    fn wait(&mut self) -> Woken {
        let clock = &self.options.clock;
        let look = self.connection.as_ref().map(|c| c.look());
        let wants = self.connection.as_ref().is_none_or(|c| c.wants());
        let stopping = matches!(self.link, Link::Draining(_, Next::Stop));
        let (cancel, stop) = (&self.cancel, &self.stop);
        let (attempt, rest) = match &mut self.link {
            Link::Waiting(until) => (None, Some(until.saturating_sub(clock.now()))),
            Link::Up(attempt) => (Some(attempt).filter(|_| wants), None),
            Link::Draining(..) => (None, None),
        };
        self.options.runtime.block_on(async {
            tokio::select! {
                biased;
                () = cancel.cancelled() => Woken::Cancelled,
                () = stop.cancelled(), if !stopping => Woken::Stop,
                arrival = next_arrival(attempt) => Woken::Arrived(arrival),
                () = notified(look) => Woken::Look,
                () = slept(clock.as_ref(), rest) => Woken::Look,
                () = tokio::time::sleep(Duration::from_millis(LIVE_POLL_MILLIS)) => Woken::Look,
            }
        })
    }

    /// Time has passed.
    fn look(&mut self) -> Result<()> {
        let now = self.options.clock.now();
        match &self.link {
            Link::Waiting(until) if *until <= now => {
                let attempt = Attempt::start(&self.dial, &self.options.runtime);
                self.link = Link::Up(attempt);
                self.progress = now;
            }
            Link::Draining(until, _) if *until <= Instant::now() => {
                if let Link::Draining(_, next) =
                    std::mem::replace(&mut self.link, Link::Waiting(now))
                {
                    self.drained(next)?;
                }
            }
            Link::Waiting(_) | Link::Up(_) | Link::Draining(..) => self.look_for_pictures(now),
        }
        Ok(())
    }

    /// Ends a session whose packets give no picture.
    fn look_for_pictures(&mut self, now: Duration) {
        if self.connection.is_none()
            || !matches!(self.link, Link::Up(_))
            || now.saturating_sub(self.progress) <= self.options.picture_timeout
        {
            return;
        }
        let message = format!(
            "packets arrive, but no picture came of them for {:.0} s",
            self.options.picture_timeout.as_secs_f64()
        );
        let failure = Failure {
            kind: FailureKind::Silence,
            message,
        };
        self.drain(Next::Interrupted(failure, GapReason::DecodeError));
    }

    /// Takes what the session's task sent, and what else is there at once.
    fn arrived(&mut self, first: Arrival) -> Result<()> {
        let mut next = Some(first);
        while let Some(arrival) = next {
            match arrival {
                Arrival::Track(track) => {
                    self.line.connect(track.clock_rate);
                    let limits = &self.options.limits;
                    self.connection = Some(match &limits.workers {
                        Some(workers) => Box::new(RemoteConnection::start(
                            workers,
                            &track,
                            limits,
                            self.cancel.clone(),
                        )),
                        None => Box::new(Connection::start(&track, limits, None)?),
                    });
                    self.progress = self.options.clock.now();
                    tracing::debug!(codec = codec_name(track.codec), "connected to the camera");
                }
                Arrival::Packet(packet) => {
                    if let Some(connection) = &mut self.connection {
                        let placed = self.line.place(packet.ticks, packet.arrived);
                        connection.push(&packet, placed);
                    }
                }
                Arrival::Failed(failure) => {
                    let reason = gap_reason(failure.kind);
                    self.drain(Next::Interrupted(failure, reason));
                    return Ok(());
                }
            }
            next = match (&mut self.link, &self.connection) {
                (Link::Up(attempt), Some(connection)) if connection.wants() => attempt.at_hand(),
                _ => None,
            };
        }
        // Where packets never stop, nothing else wakes this up.
        self.look_for_pictures(self.options.clock.now());
        Ok(())
    }

    /// Ends the session; the pictures that have arrived are still decoded.
    fn drain(&mut self, next: Next) {
        if let Some(connection) = &mut self.connection {
            connection.end();
        }
        let patience = match self.connection {
            Some(_) => Duration::from_millis(LIVE_DRAIN_MILLIS),
            None => Duration::ZERO,
        };
        // Dropping an attempt says goodbye and closes its sockets.
        self.link = Link::Draining(Instant::now() + patience, next);
    }

    /// The last pictures of a connection are out.
    fn drained(&mut self, next: Next) -> Result<()> {
        self.connection = None;
        let now = self.options.clock.now();
        match next {
            Next::Stop => {
                self.close_outage(now);
                self.end = Some(if self.sequencer.has_shown() {
                    Ok(())
                } else {
                    Err(Error::unavailable(
                        "the camera showed no picture before it was to stop",
                    ))
                });
            }
            Next::Interrupted(failure, reason) => {
                self.sequencer.interrupted(reason, &failure.message);
                match self.policy.failed(&failure, now, rand::random()) {
                    Decision::Retry(retry_in) => {
                        tracing::info!(
                            attempts = self.policy.failures(),
                            ?retry_in,
                            "camera interrupted: {failure}"
                        );
                        self.ready
                            .push_back(MediaEvent::Source(SourceState::Interrupted {
                                reason,
                                detail: failure.message,
                                attempts: self.policy.failures(),
                                retry_in,
                            }));
                        self.link = Link::Waiting(now.saturating_add(retry_in));
                    }
                    Decision::Fatal(error) => {
                        self.close_outage(now);
                        self.end = Some(Err(error));
                    }
                }
            }
        }
        Ok(())
    }

    /// Reports an outage that nothing follows.
    fn close_outage(&mut self, now: Duration) {
        self.ready
            .extend(self.sequencer.close(self.line.reached(now)));
    }

    fn accept(&mut self, decoded: Decoded) {
        let clock = &self.options.clock;
        let now = clock.now();
        self.progress = now;
        self.policy.works(now);
        let Some(connection) = &self.connection else {
            return;
        };
        let received = decoded.arrived.and_then(|arrived| {
            let ago = now.saturating_sub(arrived);
            clock.wall().checked_sub(ago)
        });
        let came = Came {
            codec: connection.codec(),
            first: connection.pictures() == 1,
            received,
        };
        self.sequencer.picture(decoded, &came, &mut self.ready);
    }
}

impl MediaSource for LiveSource {
    fn next_event(&mut self) -> Result<Option<MediaEvent>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            match self.end.take() {
                Some(Ok(())) => {
                    self.end = Some(Ok(()));
                    return Ok(None);
                }
                Some(Err(error)) => {
                    self.end = Some(Err(Error::precondition(format!(
                        "this source has failed before: {error}"
                    ))));
                    return Err(error);
                }
                None => {}
            }
            if let Err(error) = self.advance() {
                // What is known of an outage is told before the end.
                let now = self.options.clock.now();
                self.close_outage(now);
                self.connection = None;
                self.link = Link::Waiting(now);
                self.end = Some(Err(error));
            }
        }
    }
}

async fn next_arrival(attempt: Option<&mut Attempt>) -> Arrival {
    match attempt {
        Some(attempt) => attempt.next().await,
        None => std::future::pending().await,
    }
}

async fn notified(look: Option<Arc<Notify>>) {
    match look {
        Some(look) => look.notified().await,
        None => std::future::pending().await,
    }
}

async fn slept(clock: &dyn Clock, rest: Option<Duration>) {
    match rest {
        Some(rest) => clock.sleep(rest).await,
        None => std::future::pending().await,
    }
}
