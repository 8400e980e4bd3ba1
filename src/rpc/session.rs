//! One detection: from the first message to the last response.

use std::{fmt, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Streaming};
use tracing::Instrument as _;

use super::{
    admission::Slot,
    convert::{self, Context},
    open::{self, Opening},
    profiles::Profiles,
    proto::DetectRequest,
    responses::{End, Responder},
    source::OpenMedia,
    status::{label, status},
    upload,
};
use crate::{
    engine::{EngineHandle, Lane},
    error::{Error, Kind, Result},
    limits,
    pipeline::{
        detect::{self, Detection},
        event::{DetectEvent, Summary},
    },
    telemetry::server,
};

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
    pub profiles: Profiles,
    pub media: Arc<dyn OpenMedia>,
    pub open_timeout: Duration,
    pub upload_buffer_bytes: usize,
    /// Fires when the shutdown's grace is over.
    pub ending: CancellationToken,
}

/// A detection that was admitted.
pub(super) struct Session {
    pub id: SessionId,
    pub shared: Arc<Shared>,
    pub requests: Streaming<DetectRequest>,
    pub responder: Responder,
    pub end: End,
    /// Fires when the response stream is dropped: the client left or its connection died.
    pub gone: CancellationToken,
    pub deadline: Option<Instant>,
    pub slot: Slot,
}

impl Session {
    /// Runs to the end and says it to client, log and metrics. The slot is free when this returns.
    pub async fn run(self) {
        let span = tracing::info_span!("detect", session = %self.id);
        self.run_inside().instrument(span).await;
    }

    async fn run_inside(self) {
        let Session {
            id,
            shared,
            requests,
            responder,
            end,
            gone,
            deadline,
            slot,
        } = self;
        let cancel = CancellationToken::new();
        // Cancels the work on every way out, a panic included.
        let cancel_on_exit = cancel.clone().drop_guard();
        let mut work = Work {
            job: None,
            cancel: cancel.clone(),
        };
        let outcome = tokio::select! {
            biased;
            () = gone.cancelled() => Err(Error::cancelled("the client left")),
            () = shared.ending.cancelled() => {
                Err(Error::unavailable("the server is shutting down; start again elsewhere or later"))
            }
            () = passed(deadline) => Err(Error::deadline("the client's deadline passed")),
            outcome = work.detect(&id, &shared, requests, &responder) => outcome,
        };
        drop(cancel_on_exit);
        let ended = outcome
            .as_ref()
            .map_or_else(|error| super::status::code(error.kind()), |_| Code::Ok);
        report(&outcome);
        server::rpc_ended("Detect", label(ended));
        drop(responder);
        // A client that has left needs no status.
        let _ = end.send(
            outcome
                .map(drop)
                .map_err(|error| status(&error, id.as_str())),
        );
        work.wind_down().await;
        drop(slot);
    }
}

/// The part of a detection that runs beside the connection.
struct Work {
    job: Option<tokio::task::JoinHandle<Result<Summary>>>,
    cancel: CancellationToken,
}

impl Work {
    async fn detect(
        &mut self,
        id: &SessionId,
        shared: &Shared,
        mut requests: Streaming<DetectRequest>,
        responder: &Responder,
    ) -> Result<Summary> {
        let opening = open::opening(&mut requests, shared.open_timeout).await?;
        let Opening {
            name,
            profile,
            options,
        } = opening;
        let profile = shared.profiles.get(&profile)?;
        tracing::info!(upload = ?name, profile = profile.name(), provisional = options.provisional, "opened");
        let context = Context {
            session_id: id.to_string(),
            profile: profile.name().to_owned(),
            profile_version: profile.version().to_owned(),
        };
        let (sender, chunks) = upload::upload(shared.upload_buffer_bytes);
        let media = shared.media.clone();
        let token = self.cancel.clone();
        let source = Box::new(move || media.open_upload(Box::new(chunks), token));
        let detection = Detection {
            profile: profile.profile(),
            options,
            lane: Lane::Upload,
            max_delay: None,
        };
        let (events, received) = mpsc::channel(limits::EVENT_QUEUE);
        let job = detect::run(
            source,
            detection,
            shared.engine.clone(),
            events,
            self.cancel.clone(),
        );
        let job = self.job.insert(tokio::spawn(job.in_current_span()));
        let results = async {
            // The events end before the job does.
            forward(&context, received, responder).await?;
            let summary = joined(job.await)?;
            responder.flush().await?;
            Ok(summary)
        };
        tokio::select! {
            biased;
            error = feed(requests, sender) => Err(error),
            outcome = results => outcome,
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

/// Hands the upload's chunks over. Returns only with an error: after the upload's end it waits for
/// the detection's.
async fn feed(mut requests: Streaming<DetectRequest>, upload: upload::UploadSender) -> Error {
    loop {
        let request = match requests.message().await {
            Ok(Some(request)) => request,
            Ok(None) => break,
            Err(status) => return open::read_failed(&status),
        };
        let bytes = match open::chunk(request) {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        server::upload_received(bytes.len());
        if !upload.send(bytes).await {
            // The decoder is through, well or not; the job knows which.
            return std::future::pending().await;
        }
    }
    upload.finish().await;
    std::future::pending().await
}

async fn forward(
    context: &Context,
    mut events: mpsc::Receiver<DetectEvent>,
    responder: &Responder,
) -> Result<()> {
    while let Some(event) = events.recv().await {
        responder.send(convert::response(context, event)).await?;
    }
    Ok(())
}

fn joined(job: std::result::Result<Result<Summary>, tokio::task::JoinError>) -> Result<Summary> {
    job.unwrap_or_else(|error| {
        Err(Error::internal("the detection's task failed").with_source(error))
    })
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
