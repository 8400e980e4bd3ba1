//! DetectionService: each handler admits, starts and answers.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{
    admission::Admission,
    deadline,
    feedback::Verdicts,
    proto::{self, detection_service_server::DetectionService},
    responses::{Responses, WatchResponses, responses},
    session::{Asked, Session, SessionId, Shared, Trace},
    status::{code, label, status},
};
use crate::{
    access::{Caller, Shares},
    config::StreamSettings,
    error::{Error, Kind, Result},
    telemetry::server::{RpcRunning, rpc_ended},
};

/// The service.
pub(super) struct DetectionHandler {
    pub admission: Admission,
    pub responses: StreamSettings,
    pub started: SystemTime,
    /// How many detections each token runs.
    pub shares: Shares,
    pub verdicts: Verdicts,
    pub shared: Arc<Shared>,
}

/// Counts a call that ended before a stream began, and makes its status.
fn refused(method: &'static str, id: &SessionId, error: &Error) -> Status {
    rpc_ended(method, label(code(error.kind())));
    status(error, id.as_str())
}

impl DetectionHandler {
    /// Admits a detection and starts it.
    fn begin(
        &self,
        method: &'static str,
        timeout: Option<Duration>,
        caller: Option<Arc<Caller>>,
        trace: Trace,
        asked: Asked,
    ) -> Result<Responses, Status> {
        let id = SessionId::random();
        if let Some(call) = &trace.call {
            call.session(id.as_str());
        }
        let share = caller.as_ref().map(|caller| self.shares.take(caller));
        let share = share
            .transpose()
            .map_err(|error| refused(method, &id, &error))?;
        let slot = self
            .admission
            .admit()
            .map_err(|error| refused(method, &id, &error))?;
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let gone = CancellationToken::new();
        let (responder, end, responses) = responses(
            self.responses.response_queue_messages,
            self.responses.slow_reader_timeout,
            gone.clone(),
        );
        let session = Session {
            id,
            shared: self.shared.clone(),
            asked,
            responder,
            end,
            gone,
            deadline,
            slot,
            caller,
            share,
            trace,
        };
        // The headers go out at once: some clients send nothing before they have them.
        tokio::spawn(session.run());
        Ok(responses)
    }
}

#[tonic::async_trait]
impl DetectionService for DetectionHandler {
    type DetectStream = Responses;

    async fn detect(
        &self,
        request: Request<Streaming<proto::DetectRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let timeout = deadline::timeout(request.metadata());
        let caller = request.extensions().get().cloned();
        let trace = Trace::of(request.extensions());
        let asked = Asked::Detect(request.into_inner());
        self.begin("Detect", timeout, caller, trace, asked)
            .map(Response::new)
    }

    type WatchStream = WatchResponses;

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<WatchResponses>, Status> {
        let timeout = deadline::timeout(request.metadata());
        let caller = request.extensions().get().cloned();
        let trace = Trace::of(request.extensions());
        let asked = Asked::Watch(request.into_inner());
        self.begin("Watch", timeout, caller, trace, asked)
            .map(|responses| Response::new(WatchResponses(responses)))
    }

    async fn report_feedback(
        &self,
        request: Request<proto::ReportFeedbackRequest>,
    ) -> Result<Response<proto::ReportFeedbackResponse>, Status> {
        let counted = RpcRunning::begin("ReportFeedback");
        match self.verdicts.take(request.into_inner()).await {
            Ok(response) => {
                counted.ended(label(Code::Ok));
                Ok(Response::new(response))
            }
            Err(error) => {
                let id = SessionId::random();
                if matches!(error.kind(), Kind::Internal | Kind::DataLoss) {
                    tracing::error!(session = %id, "feedback: {error:#}");
                }
                counted.ended(label(code(error.kind())));
                Err(status(&error, id.as_str()))
            }
        }
    }

    async fn get_info(
        &self,
        _: Request<proto::GetInfoRequest>,
    ) -> Result<Response<proto::GetInfoResponse>, Status> {
        let engine = &self.shared.engine;
        let active = self.shared.profiles.active();
        let info = engine.info();
        let load = engine.load();
        rpc_ended("GetInfo", label(Code::Ok));
        Ok(Response::new(proto::GetInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model: Some(proto::ModelInfo {
                name: info.name.clone(),
                fingerprint: active
                    .as_ref()
                    .map(|active| active.profile().model.fingerprint.clone())
                    .unwrap_or_default(),
                device: info.device.clone(),
                dtype: info.dtype.clone(),
                layers: count(info.layers),
                heads: count(info.heads),
                head_dim: count(info.head_dim),
                resident_layers: count(info.resident_layers),
            }),
            active_profile: active
                .as_ref()
                .map(|active| active.name().to_owned())
                .unwrap_or_default(),
            active_profile_version: active
                .map(|active| active.version().to_owned())
                .unwrap_or_default(),
            load: Some(proto::Load {
                streams: count(self.admission.running()),
                max_streams: count(self.admission.most()),
                queued_segments: count(load.queued),
                queue_capacity: count(load.capacity),
                segments_per_second: load.segments_per_second,
                live_segments_per_second: self.admission.claimed(),
                live_segments_per_second_max: load.segments_per_second
                    * self.shared.cameras.capacity_share,
            }),
            started_at: Some(self.started.into()),
        }))
    }
}

/// A small number on the wire.
fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
