//! Live sources: connection after connection, one line of frames and gaps.
//!
//! ```text
//! camera ─▶ task: rtsp session ─▶ bounded channel ─▶ decode thread: line ─▶ decoder ─▶ frames, gaps
//! ```
//!
//! The session is a task of the runtime; everything else runs on the thread that pulls the source.
//! Each connection has a decoder of its own, so nothing of a broken one reaches the next. What is
//! lost between two connections is one gap, whatever its cause; attempts that fail in between are
//! told as source states.

mod attempt;
mod connection;
mod line;
mod policy;

pub use attempt::{Camera, Dial, Packets, Pending};
pub(crate) use connection::Connection;
pub(crate) use line::Placed;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, sync::Notify};
use tokio_util::sync::CancellationToken;

use super::{
    VideoLimits,
    decode::gap_before,
    ledger::Loss,
    timeline::{Raw, Timeline},
    worker::RemoteConnection,
};
use crate::{
    clock::Clock,
    error::{Error, Kind, Result},
    limits::{LIVE_DRAIN_MILLIS, LIVE_HOLE_MILLIS, LIVE_POLL_MILLIS, LIVE_STEP_MILLIS},
    media::{
        Frame, Gap, GapReason, MediaEvent, MediaInfo, MediaSource, MediaTime, Picture, SourceState,
    },
    rtsp::{Codec, Failure, FailureKind, Packet},
};
use attempt::{Arrival, Attempt};
use line::Line;
use policy::{Decision, Policy, gap_reason};

/// What a live source runs with.
#[derive(Clone)]
pub struct LiveOptions {
    /// What one source may use.
    pub limits: VideoLimits,
    /// Waits for cameras run on it.
    pub clock: Arc<dyn Clock>,
    /// Packets that arrive for so long without any picture are a failure like silence.
    pub picture_timeout: Duration,
    /// Where connections run; a multi-threaded runtime.
    pub runtime: Handle,
}

/// Opens a live source; returns at once. It goes on until `stop` or `cancel` fires or a failure that
/// no other attempt can mend: `stop` lets it deliver what has arrived, `cancel` ends it as
/// `Cancelled`.
///
/// # Errors
/// `FailedPrecondition` if GStreamer cannot start. From [`MediaSource::next_event`]:
/// `FailedPrecondition` (credentials, certificate), `PermissionDenied` (address), `NotFound`,
/// `InvalidArgument` (codec, size of the picture), `Unavailable` (stopped before the first frame).
pub fn open(
    dial: Arc<dyn Dial>,
    options: LiveOptions,
    stop: CancellationToken,
    cancel: CancellationToken,
) -> Result<Box<dyn MediaSource>> {
    if options.limits.workers.is_none() {
        super::init()?;
    }
    let began = options.clock.now();
    Ok(Box::new(LiveSource {
        link: Link::Waiting(began),
        dial,
        options,
        stop,
        cancel,
        line: Line::default(),
        timeline: Timeline::new(None),
        policy: Policy::default(),
        connection: None,
        outage: None,
        progress: began,
        arrived: None,
        ready: VecDeque::new(),
        end: None,
    }))
}

/// The decoder of one connection: RTP packets in, pictures out; here or in another process.
pub(crate) trait Decoding: Send {
    /// Fires when a picture or the end is there.
    fn look(&self) -> Arc<Notify>;

    /// Whether it takes more packets now.
    fn wants(&self) -> bool;

    /// Pictures that came out.
    fn pictures(&self) -> u64;

    /// Of its track.
    fn codec(&self) -> Codec;

    /// Takes the next packet.
    fn push(&mut self, packet: &Packet, placed: Placed);

    /// No more packets will come.
    fn end(&mut self);

    /// The next picture, if one is there.
    fn pull(&mut self) -> Result<Pulled>;
}

/// A decoded picture.
pub(crate) struct Decoded {
    /// Where [`Line`] put its packets, nanoseconds.
    pub(crate) pts: i64,
    pub(crate) picture: Arc<dyn Picture>,
    /// Width and height of the upright picture, pixels.
    pub(crate) size: (u32, u32),
    /// When its packets arrived.
    pub(crate) arrived: Option<Duration>,
    /// What is missing before it.
    pub(crate) loss: Loss,
    /// The camera's clock jumped before it.
    pub(crate) jumped: bool,
}

/// What is at hand.
pub(crate) enum Pulled {
    Picture(Decoded),
    Nothing,
    /// All pictures are out; the fault that ended it, if one did.
    Ended(Option<String>),
}

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

/// Why there are no frames now.
struct Outage {
    reason: GapReason,
    detail: String,
}

struct LiveSource {
    dial: Arc<dyn Dial>,
    options: LiveOptions,
    stop: CancellationToken,
    cancel: CancellationToken,
    line: Line,
    timeline: Timeline,
    policy: Policy,
    link: Link,
    connection: Option<Box<dyn Decoding>>,
    outage: Option<Outage>,
    /// When the present connection began or last showed a picture.
    progress: Duration,
    /// When the packets of the last picture arrived.
    arrived: Option<Duration>,
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
            Link::Up(_)
                if self.connection.is_some()
                    && now.saturating_sub(self.progress) > self.options.picture_timeout =>
            {
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
            Link::Waiting(_) | Link::Up(_) | Link::Draining(..) => {}
        }
        Ok(())
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
        // Dropping an attempt closes its sockets.
        self.link = Link::Draining(Instant::now() + patience, next);
    }

    /// The last pictures of a connection are out.
    fn drained(&mut self, next: Next) -> Result<()> {
        self.connection = None;
        let now = self.options.clock.now();
        match next {
            Next::Stop => {
                self.close_outage(now);
                self.end = Some(if self.timeline.frames() == 0 {
                    Err(Error::unavailable(
                        "the camera showed no picture before it was to stop",
                    ))
                } else {
                    Ok(())
                });
            }
            Next::Interrupted(failure, reason) => {
                if self.outage.is_none() && self.timeline.frames() > 0 {
                    self.outage = Some(Outage {
                        reason,
                        detail: failure.message.clone(),
                    });
                }
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
        let Some(outage) = self.outage.take() else {
            return;
        };
        let from = self.timeline.end();
        // From the camera's clock to that of the frames, which begins with the first one.
        let shift = self
            .timeline
            .end_on_clock()
            .map_or(0, |end| end.saturating_sub(from.as_nanos()));
        let reached = self.line.reached(now).as_nanos().saturating_sub(shift);
        let to = MediaTime::from_nanos(reached).max(from);
        let frame = self.timeline.last_duration();
        let gap = gap(from, to, frame, outage.reason, outage.detail);
        self.ready.push_back(gap);
    }

    /// Why there were no pictures for long before this one, if so. Nothing was lost on the way and the
    /// clock goes on believably, yet whoever adds up scores and gaps must not find a hole.
    fn hole(&self, decoded: &Decoded, before: Duration) -> Option<(GapReason, &'static str)> {
        let end = self.timeline.end_on_clock()?;
        let hole = Duration::from_nanos(u64::try_from(decoded.pts.saturating_sub(end)).ok()?);
        if hole <= before.saturating_mul(3) {
            return None;
        }
        let passed = match (self.arrived, decoded.arrived) {
            (Some(last), Some(this)) => this.saturating_sub(last),
            _ => hole,
        };
        if passed < hole / 2 && hole > Duration::from_millis(LIVE_STEP_MILLIS) {
            let detail = "the camera's clock stepped ahead of its pictures, or it left some out";
            return Some((GapReason::TimestampJump, detail));
        }
        (hole > Duration::from_millis(LIVE_HOLE_MILLIS))
            .then_some((GapReason::Stalled, "the camera sent no picture"))
    }

    fn accept(&mut self, decoded: Decoded) {
        let now = self.options.clock.now();
        self.progress = now;
        self.policy.works(now);
        if self.timeline.frames() == 0 {
            let (width, height) = decoded.size;
            self.ready.push_back(MediaEvent::Opened(MediaInfo {
                container: "rtsp".to_owned(),
                codec: self
                    .connection
                    .as_ref()
                    .map_or("", |connection| codec_name(connection.codec()))
                    .to_owned(),
                width,
                height,
                // What cameras declare is not believed.
                declared_fps: None,
            }));
        }
        let before = self.timeline.last_duration();
        let hole = self.hole(&decoded, before);
        self.arrived = decoded.arrived.or(self.arrived);
        let raw = Raw {
            pts: Some(decoded.pts),
            duration: None,
        };
        let placed = if self.outage.is_some() || decoded.jumped || hole.is_some() {
            self.timeline.push_after_break(raw)
        } else {
            self.timeline.push(raw)
        };
        let (from, to) = (placed.previous_end, placed.stamp.pts);
        let first_of_connection = self
            .connection
            .as_ref()
            .is_some_and(|connection| connection.pictures() == 1);
        if first_of_connection {
            self.ready
                .push_back(MediaEvent::Source(SourceState::Connected));
        }
        if let Some(from) = from {
            let gap = if let Some(outage) = self.outage.take() {
                Some(gap(from, to, before, outage.reason, outage.detail))
            } else if decoded.jumped {
                let detail = "the camera's clock jumped".to_owned();
                Some(gap(from, to, before, GapReason::TimestampJump, detail))
            } else if let Some(gap) = gap_before(&placed, decoded.loss, before, true) {
                Some(MediaEvent::Gap(gap))
            } else {
                hole.map(|(reason, detail)| gap(from, to, before, reason, detail.to_owned()))
            };
            self.ready.extend(gap);
        }
        let received = decoded.arrived.and_then(|arrived| {
            let ago = now.saturating_sub(arrived);
            self.options.clock.wall().checked_sub(ago)
        });
        self.ready.push_back(MediaEvent::Frame(Frame {
            stamp: placed.stamp,
            picture: decoded.picture,
            received,
        }));
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
                self.connection = None;
                self.link = Link::Waiting(self.options.clock.now());
                self.end = Some(Err(error));
            }
        }
    }
}

/// A gap between two frames, the one before it shown for so long.
fn gap(
    from: MediaTime,
    to: MediaTime,
    frame: Duration,
    reason: GapReason,
    detail: String,
) -> MediaEvent {
    let to = to.max(from);
    let frame = frame.as_nanos().max(1);
    let lost = (to.saturating_since(from).as_nanos() + frame / 2) / frame;
    MediaEvent::Gap(Gap {
        from,
        to,
        reason,
        frames_lost: u64::try_from(lost).unwrap_or(u64::MAX),
        detail,
    })
}

fn codec_name(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "h264",
        Codec::H265 => "h265",
        Codec::Mjpeg => "mjpeg",
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
