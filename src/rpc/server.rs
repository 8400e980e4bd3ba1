//! The server: services, transport and their end.

use std::{sync::Arc, time::SystemTime};

use tokio::{net::TcpListener, time};
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Server};
use tonic_health::{pb::health_server::HealthServer, server::HealthReporter};
use tonic_web::GrpcWebLayer;

use super::{
    admin::{Admin, AdminParts},
    admission::Admission,
    connections,
    detection::DetectionHandler,
    feedback::Verdicts,
    guard::GuardLayer,
    health,
    profiles::Profiles,
    proto::{
        self, admin_service_server::AdminServiceServer,
        detection_service_server::DetectionServiceServer,
    },
    security::Security,
    session::Shared,
    source::OpenMedia,
    traced::TraceLayer,
};
use crate::{
    access,
    config::Settings,
    engine::EngineHandle,
    error::{Kind, Result, ResultExt as _},
    feedback::Feedback,
    limits,
    telemetry::{server as telemetry, traces::Traces},
};

/// What a server serves with.
pub struct Parts {
    /// The resident model's queue.
    pub engine: EngineHandle,
    /// The profiles that a request may name, checked against the model. They may change.
    pub profiles: Arc<Profiles>,
    /// Turns uploads into frames.
    pub media: Arc<dyn OpenMedia>,
    /// Takes verdicts on events; see [`open_feedback`](super::open_feedback).
    pub feedback: Option<Arc<Feedback>>,
    /// TLS and tokens.
    pub security: Security,
    /// Makes calls spans; see [`open_traces`](super::open_traces).
    pub traces: Traces,
}

/// Serves until `shutdown` fires and the running detections have ended: by themselves within the
/// grace time, with UNAVAILABLE after it. From then on health says NOT_SERVING and new detections
/// and connections are refused.
///
/// Fails with `Internal` where the transport or a service cannot be set up.
pub async fn serve(
    settings: &Settings,
    parts: Parts,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<()> {
    let security = parts.security;
    let admin = AdminParts {
        settings: settings.admin.clone(),
        engine: parts.engine.clone(),
        profiles: parts.profiles.clone(),
        media: parts.media.clone(),
        feedback: parts.feedback.clone(),
        closing: shutdown.clone(),
    };
    let admin = Arc::new(Admin::open(admin).await?);
    let ours = |path: &'static str| path.strip_prefix("/headhunt.v1.")?.split_once('/');
    telemetry::rpcs(
        access::RPCS
            .iter()
            .filter_map(|(path, _)| Some(ours(path)?.1)),
    );
    let ending = CancellationToken::new();
    let _end_on_exit = ending.clone().drop_guard();
    // Also while running detections end by themselves: a token that is withdrawn then is withdrawn.
    security.keep(&ending);
    let reporter = HealthReporter::new();
    health::begin(&reporter).await;
    let health_service =
        tonic_health::server::HealthService::from_health_reporter(reporter.clone());
    let admission = Admission::new(settings.streams.max_streams, shutdown.clone());
    let handler = DetectionHandler {
        admission: admission.clone(),
        responses: settings.streams.clone(),
        started: SystemTime::now(),
        shares: security.shares(),
        verdicts: Verdicts::new(parts.feedback.clone(), &settings.feedback),
        shared: Arc::new(Shared {
            engine: parts.engine.clone(),
            profiles: parts.profiles,
            media: parts.media,
            feedback: parts.feedback,
            open_timeout: settings.streams.open_timeout,
            sources: settings.sources.clone(),
            cameras: settings.cameras.clone(),
            admission: admission.clone(),
            security: security.clone(),
            closing: shutdown.clone(),
            upload_buffer_bytes: settings.streams.upload_buffer_bytes,
            ending: ending.clone(),
        }),
    };
    let keeper = tokio::spawn(health::keep(reporter, parts.engine, shutdown.clone()));

    let mut routes = Routes::builder();
    routes
        .add_service(
            DetectionServiceServer::new(handler)
                .max_decoding_message_size(limits::MESSAGE_MAX_BYTES),
        )
        .add_service(
            AdminServiceServer::from_arc(admin.clone())
                .max_decoding_message_size(limits::MESSAGE_MAX_BYTES),
        )
        .add_service(
            HealthServer::new(health_service)
                .max_decoding_message_size(limits::PROBE_MESSAGE_MAX_BYTES),
        )
        .add_service(
            reflection()
                .build_v1()
                .or_kind(Kind::Internal, no_reflection)?
                .max_decoding_message_size(limits::PROBE_MESSAGE_MAX_BYTES),
        )
        .add_service(
            reflection()
                .build_v1alpha()
                .or_kind(Kind::Internal, no_reflection)?
                .max_decoding_message_size(limits::PROBE_MESSAGE_MAX_BYTES),
        );

    let http2 = &settings.http2;
    let server = Server::builder()
        .accept_http1(true) // gRPC-Web
        .http2_keepalive_interval(Some(http2.keepalive_interval))
        .http2_keepalive_timeout(Some(http2.keepalive_timeout))
        .initial_stream_window_size(http2.stream_window_bytes)
        .initial_connection_window_size(http2.connection_window_bytes)
        .max_concurrent_streams(http2.max_streams_per_connection)
        .http2_max_header_list_size(limits::HEADERS_MAX_BYTES)
        .layer(GrpcWebLayer::new())
        .layer(GuardLayer(security.clone()))
        .layer(TraceLayer(parts.traces));
    let connections = connections::accept(
        listener,
        security,
        connections::Most {
            all: limits::CONNECTIONS_MAX,
            of_peer: limits::CONNECTIONS_PER_ADDRESS_MAX,
        },
        limits::FIRST_BYTE_TIMEOUT,
        shutdown.clone(),
    );
    let serving = server.serve_with_incoming_shutdown(
        routes.routes(),
        connections,
        shutdown.clone().cancelled_owned(),
    );
    tokio::pin!(serving);

    let grace = settings.shutdown.grace;
    let end = async {
        shutdown.cancelled().await;
        admin.close();
        tracing::info!(
            ?grace,
            "shutting down: running detections may end by themselves"
        );
        // Beyond the detections only health watchers and idle connections can be left.
        let _ = time::timeout(grace, admission.idle()).await;
        ending.cancel();
        time::sleep(limits::DRAIN).await;
    };
    let served = tokio::select! {
        served = &mut serving => served.or_kind(Kind::Internal, || "the transport failed".into()),
        () = end => {
            tracing::warn!("some connections stayed open past the shutdown; leaving them behind");
            Ok(())
        }
    };
    keeper.abort();
    // It may have had no time to say so itself.
    let _ = keeper.await;
    telemetry::serving(false);
    admin.stop().await;
    served
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

fn no_reflection() -> String {
    "cannot set up server reflection".into()
}
