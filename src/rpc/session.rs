//! One detection: from the first message to the last response.

mod input;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::mpsc,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Extensions, Streaming};
use tracing::{Instrument as _, field};

use super::{
    admission::{Admission, Claim, Slot},
    convert::{self, Context},
    open::{self, Input, Opening},
    profiles::Profiles,
    proto::{DetectRequest, WatchRequest},
    responses::{End, Responder},
    security::Security,
    source::OpenMedia,
    status::{label, status},
    told::Told,
};
use crate::{
    access::{Caller, Role, Roles, Share},
    config::{CameraSettings, SourceSettings},
    engine::EngineHandle,
    error::{Error, Kind, Result},
    feedback::Feedback,
    limits,
    pipeline::{
        detect::{self, Detection},
        event::{DetectEvent, Stage, Summary},
    },
    telemetry::{
        server::{self, StreamRunning},
        traces::{Call, TraceId},
    },
};
use input::Source;

/// Name of a detection in logs and responses: 128 random bits in hex, so that it cannot be guessed.
#[derive(Clone, Debug)]
pub(super) struct SessionId(String);

impl SessionId {
    pub fn random() -> Self {
        SessionId(format!("{:032x}", rand::random::<u128>()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What all detections share.
pub(super) struct Shared {
    pub engine: EngineHandle,
    pub profiles: Arc<Profiles>,
    pub media: Arc<dyn OpenMedia>,
    pub feedback: Option<Arc<Feedback>>,
    pub open_timeout: Duration,
    pub upload_buffer_bytes: usize,
    pub sources: SourceSettings,
    pub cameras: CameraSettings,
    pub admission: Admission,
    pub security: Security,
    /// Fires when the shutdown begins: live streams end now, uploads within its grace.
    pub closing: CancellationToken,
    /// Fires when the shutdown's grace is over.
    pub ending: CancellationToken,
}

/// How a detection was asked for.
pub(super) enum Asked {
    Detect(Streaming<DetectRequest>),
    Watch(WatchRequest),
}

impl Asked {
    const fn method(&self) -> &'static str {
        match self {
            Asked::Detect(_) => "Detect",
            Asked::Watch(_) => "Watch",
        }
    }
}

/// The trace that a call belongs to.
#[derive(Default)]
pub(super) struct Trace {
    /// For logs; its caller may record it where we do not.
    pub id: Option<TraceId>,
    /// Where it is recorded.
    pub call: Option<Call>,
}

impl Trace {
    /// What the layer before the services found.
    pub fn of(extensions: &Extensions) -> Trace {
        Trace {
            id: extensions.get().copied(),
            call: extensions.get().cloned(),
        }
    }
}

/// A detection that was admitted.
pub(super) struct Session {
    pub id: SessionId,
    pub shared: Arc<Shared>,
    pub asked: Asked,
    pub responder: Responder,
    pub end: End,
    /// Fires when the response stream is dropped: the client left or its connection died.
    pub gone: CancellationToken,
    pub deadline: Option<Instant>,
    pub slot: Slot,
    /// Where callers have tokens.
    pub caller: Option<Arc<Caller>>,
    pub share: Option<Share>,
    pub trace: Trace,
}

impl Session {
    /// Runs to the end and says it to client, log and metrics. The slot is free when this returns.
    pub async fn run(self) {
        let span = tracing::info_span!("detect", session = %self.id, trace_id = field::Empty);
        if let Some(trace) = self.trace.id {
            span.record("trace_id", field::display(trace));
        }
        self.run_inside().instrument(span).await;
    }

    async fn run_inside(self) {
        let Session {
            id,
            shared,
            asked,
            responder,
            end,
            gone,
            deadline,
            slot,
            caller,
            share,
            trace,
        } = self;
        let cancel = CancellationToken::new();
        // Cancels the work on every way out, a panic included.
        let cancel_on_exit = cancel.clone().drop_guard();
        let counted = server::RpcRunning::begin(asked.method());
        let mut work = Work {
            job: None,
            cancel: cancel.clone(),
            stop: CancellationToken::new(),
            claim: None,
            caller: caller.clone(),
            trace: trace.call,
        };
        let outcome = tokio::select! {
            biased;
            () = gone.cancelled() => Err(Error::cancelled("the client left")),
            () = shared.ending.cancelled() => {
                Err(Error::unavailable("the server is shutting down; start again elsewhere or later"))
            }
            () = passed(deadline) => Err(Error::deadline("the client's deadline passed")),
            () = lapsed(&shared.security, caller.as_deref()) => Err(Error::new(
                Kind::Unauthenticated,
                "the token that this call began with has expired or was taken away",
            )),
            outcome = work.detect(&id, &shared, asked, &responder, &slot.running) => outcome,
        };
        drop(cancel_on_exit);
        let ended = outcome
            .as_ref()
            .map_or_else(|error| super::status::code(error.kind()), |_| Code::Ok);
        report(&outcome);
        counted.ended(label(ended));
        drop(responder);
        // A client that has left needs no status.
        let _ = end.send(
            outcome
                .map(drop)
                .map_err(|error| status(&error, id.as_str())),
        );
        work.wind_down().await;
        drop((slot, share));
    }
}

/// The part of a detection that runs beside the connection.
struct Work {
    job: Option<tokio::task::JoinHandle<Result<Summary>>>,
    cancel: CancellationToken,
    /// Ends a URI source in an orderly way.
    stop: CancellationToken,
    claim: Option<Claim>,
    caller: Option<Arc<Caller>>,
    trace: Option<Call>,
}

impl Work {
    async fn detect(
        &mut self,
        id: &SessionId,
        shared: &Shared,
        asked: Asked,
        responder: &Responder,
        running: &StreamRunning,
    ) -> Result<Summary> {
        let (opening, requests) = match asked {
            Asked::Detect(mut requests) => {
                let opening =
                    open::opening(&mut requests, shared.open_timeout, &shared.sources).await?;
                (opening, Some(requests))
            }
            Asked::Watch(request) => (open::watch(request, &shared.sources)?, None),
        };
        let field = match requests {
            Some(_) => "open.uri.uri",
            None => "source.uri",
        };
        let Opening {
            input,
            profile,
            options,
        } = opening;
        let input = match (input, &self.caller) {
            (Input::Uri(source), Some(caller)) => {
                Input::Uri(Box::new(source.confined(field, caller)?))
            }
            (input, _) => input,
        };
        let (profile, follow) = profile.find(&shared.profiles).await?;
        let context = Context {
            session_id: id.to_string(),
            profile: profile.name().to_owned(),
            profile_version: profile.version().to_owned(),
        };
        let camera = match &input {
            Input::Uri(source) => Some(source.shown()),
            Input::Upload(_) => None,
        };
        if let Some(call) = &self.trace {
            call.profile(profile.name(), profile.version());
            if let Some(source) = &camera {
                call.source(source);
            }
        }
        let source = Source::of(self, shared, input, &profile, requests)?;
        let recorder = shared.feedback.as_ref();
        let live = source.max_delay.is_some();
        let watched = camera.as_deref().filter(|_| live);
        let mut told = Told::begin(running, watched, shared.cameras.series_max);
        let detection = Detection {
            profile: profile.profile(),
            options,
            lane: source.lane,
            max_delay: source.max_delay,
            follow,
            recorder: recorder.map(|feedback| feedback.recorder(id.as_str(), camera)),
            trace: self.trace.clone(),
        };
        let (events, received) = mpsc::channel(limits::EVENT_QUEUE);
        let job = detect::run(
            source.open,
            detection,
            shared.engine.clone(),
            events,
            self.cancel.clone(),
        );
        let job = self.job.insert(tokio::spawn(job.in_current_span()));
        let results = async {
            // The events end before the job does.
            forward(&context, live, received, responder, &mut told).await?;
            let summary = joined(job.await)?;
            responder.flush().await?;
            if live && shared.closing.is_cancelled() {
                return Err(Error::unavailable(
                    "draining: the server shuts down; watch the camera elsewhere or later",
                ));
            }
            Ok(summary)
        };
        let drained = async {
            if live {
                shared.closing.cancelled().await;
                self.stop.cancel();
            }
            std::future::pending().await
        };
        tokio::select! {
            biased;
            error = input::listen(source.control, &self.stop) => Err(error),
            outcome = results => outcome,
            () = drained => Err(Error::internal("a wait without an end ended")),
        }
    }

    /// Waits until decoder and queue have let go of a detection that ended.
    async fn wind_down(self) {
        self.cancel.cancel();
        let Some(mut job) = self.job else { return };
        if job.is_finished() {
            return;
        }
        if time::timeout(limits::WIND_DOWN, &mut job).await.is_err() {
            tracing::warn!("the decoder did not stop within {:?}", limits::WIND_DOWN);
            job.abort();
        }
    }
}

async fn forward(
    context: &Context,
    live: bool,
    mut events: mpsc::Receiver<DetectEvent>,
    responder: &Responder,
    told: &mut Told<'_>,
) -> Result<()> {
    let mut received = None;
    while let Some(event) = events.recv().await {
        told.see(&event);
        match &event {
            DetectEvent::Scores(scores) => received = scores.received,
            DetectEvent::Gap(_) | DetectEvent::Source(_) => received = Some(SystemTime::now()),
            // Events speak of the segment whose scores came before them.
            _ => {}
        }
        // A camera goes on while its reader is slow: what will be said again is left out first.
        let optional = live
            && matches!(&event, DetectEvent::Scores(scores) if scores.stage == Stage::Provisional);
        let mut response = convert::response(context, event);
        response.received_at = received.filter(|_| live).map(Into::into);
        if optional {
            responder.offer(response)?;
        } else {
            responder.send(response).await?;
        }
    }
    Ok(())
}

fn joined(job: std::result::Result<Result<Summary>, tokio::task::JoinError>) -> Result<Summary> {
    job.unwrap_or_else(|error| {
        Err(Error::internal("the detection's task failed").with_source(error))
    })
}

/// A camera may be watched for months: longer than whoever watches it may be welcome.
async fn lapsed(security: &Security, caller: Option<&Caller>) {
    match caller {
        Some(caller) => security.lapsed(caller, Roles::of(&[Role::Detect])).await,
        None => std::future::pending().await,
    }
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn report(outcome: &Result<Summary>) {
    match outcome {
        Ok(summary) => tracing::info!(
            frames = summary.frames,
            segments = summary.segments,
            events = summary.events,
            gaps = summary.gaps,
            "ended"
        ),
        Err(error) if matches!(error.kind(), Kind::Internal | Kind::DataLoss) => {
            tracing::error!(kind = error.kind().as_str(), "ended: {error:#}");
        }
        Err(error) => tracing::info!(kind = error.kind().as_str(), "ended: {error:#}"),
    }
}
