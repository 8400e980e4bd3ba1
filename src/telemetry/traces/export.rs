//! The one task that hands spans to the collector.

use std::time::Duration;

use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    common::v1::InstrumentationScope,
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use tokio::{sync::mpsc, task::JoinHandle, time};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use super::{Headers, Options, SpanOutcome, Traces, context::TraceId, count, otlp::attribute};
use crate::{
    error::{Error, Kind, Result, ResultExt as _},
    limits::{TRACE_ATTEMPTS, TRACE_BATCH_SPANS, TRACE_BATCH_WAIT, TRACE_RETRY_WAIT},
};

/// How a certificate begins in PEM.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// The task's owner.
pub struct Exporter {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

/// Starts the task; inside a runtime. The collector need not be there yet.
///
/// Fails with `InvalidArgument` for an endpoint that is no address and for authorities that cannot be used.
pub fn start(options: Options) -> Result<(Traces, Exporter)> {
    let channel = endpoint(&options)?.connect_lazy();
    let (sender, queue) = mpsc::channel(options.queue_spans);
    let stop = CancellationToken::new();
    let sending = Sending {
        client: TraceServiceClient::new(channel),
        headers: options.headers,
        timeout: options.timeout,
        resource: resource(),
        stop: stop.clone(),
        is_failing: false,
    };
    let task = tokio::spawn(export(queue, sending));
    let traces = Traces::new(sender, options.sample_ratio);
    Ok((traces, Exporter { task, stop }))
}

/// Whether [`start`] would take these options. Fails as it does.
pub fn check(options: &Options) -> Result<()> {
    endpoint(options).map(drop)
}

fn endpoint(options: &Options) -> Result<Endpoint> {
    let wrong = || format!("traces.endpoint = {} is no address", options.endpoint);
    let endpoint = Endpoint::from_shared(options.endpoint.clone())
        .and_then(|endpoint| endpoint.user_agent(concat!("headhunt/", env!("CARGO_PKG_VERSION"))))
        .or_kind(Kind::InvalidArgument, wrong)
        .map_err(named)?
        .connect_timeout(options.timeout);
    match endpoint.uri().scheme_str() {
        Some("https") => {
            let tls = match &options.ca {
                // Of what is none, the client would make a list without anybody.
                Some(pem) if !String::from_utf8_lossy(pem).contains(CERTIFICATE) => {
                    return Err(
                        Error::invalid("traces.ca_file has no certificate: give PEM")
                            .with_field("traces.ca_file"),
                    );
                }
                Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                None => ClientTlsConfig::new().with_native_roots(),
            };
            endpoint
                .tls_config(tls)
                .or_kind(Kind::InvalidArgument, || {
                    "the authorities of the collector's certificate cannot be used: set traces.ca_file to a PEM file of them".into()
                })
                .map_err(|error| error.with_field("traces.ca_file"))
        }
        Some("http") => {
            if !options.headers.is_empty() {
                tracing::warn!(
                    endpoint = options.endpoint,
                    "traces.headers_file is sent in plain text: use https:// where others can listen"
                );
            }
            Ok(endpoint)
        }
        _ => Err(named(Error::invalid(wrong()))),
    }
}

fn named(error: Error) -> Error {
    error.with_field("traces.endpoint")
}

/// Who speaks.
fn resource() -> Resource {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Resource {
        attributes: vec![
            attribute("service.name", "headhunt".to_owned()),
            attribute("service.version", version),
            attribute("service.instance.id", TraceId::random().to_string()),
        ],
        ..Resource::default()
    }
}

impl Exporter {
    /// Sends what waits, for at most so long, and ends. Spans that come later are dropped.
    pub async fn flush(mut self, within: Duration) {
        self.stop.cancel();
        if time::timeout(within, &mut self.task).await.is_err() {
            tracing::warn!(
                ?within,
                "the collector did not take the last spans in time; they are left behind"
            );
            self.task.abort();
        }
    }
}

async fn export(mut queue: mpsc::Receiver<Span>, mut sending: Sending) {
    let stop = sending.stop.clone();
    let mut batch = Vec::new();
    loop {
        let received = tokio::select! {
            biased;
            () = stop.cancelled(), if !queue.is_closed() => {
                queue.close();
                continue;
            }
            received = queue.recv_many(&mut batch, TRACE_BATCH_SPANS) => received,
        };
        if received == 0 {
            return;
        }
        let full = time::sleep(TRACE_BATCH_WAIT);
        tokio::pin!(full);
        while batch.len() < TRACE_BATCH_SPANS {
            let room = TRACE_BATCH_SPANS - batch.len();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                received = queue.recv_many(&mut batch, room) => if received == 0 { break },
                () = &mut full => break,
            }
        }
        sending.send(std::mem::take(&mut batch)).await;
    }
}

struct Sending {
    client: TraceServiceClient<Channel>,
    headers: Headers,
    timeout: Duration,
    resource: Resource,
    /// The shutdown: no attempt is waited for then.
    stop: CancellationToken,
    /// The last batch was not taken.
    is_failing: bool,
}

impl Sending {
    /// Sends one batch, with some patience, and counts it.
    async fn send(&mut self, spans: Vec<Span>) {
        let sent = spans.len();
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(InstrumentationScope {
                        name: "headhunt".to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        ..InstrumentationScope::default()
                    }),
                    spans,
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        };
        let mut wait = TRACE_RETRY_WAIT;
        let mut attempt = 1;
        let failure = loop {
            match self.attempt(request.clone()).await {
                Ok(refused) => {
                    let refused = refused.min(sent);
                    count(SpanOutcome::Exported, sent - refused);
                    count(SpanOutcome::Failed, refused);
                    if refused == 0 && std::mem::take(&mut self.is_failing) {
                        tracing::info!("the collector takes spans again");
                    }
                    return;
                }
                Err(status) if attempt < TRACE_ATTEMPTS && may_pass(status.code()) => {
                    tokio::select! {
                        biased;
                        () = self.stop.cancelled() => break status,
                        () = time::sleep(wait) => {}
                    }
                    wait = wait.saturating_mul(2);
                    attempt += 1;
                }
                Err(status) => break status,
            }
        };
        count(SpanOutcome::Failed, sent);
        self.complain(failure.code(), failure.message());
    }

    /// Once, until it is well again: a collector may be away for days.
    fn complain(&mut self, code: Code, message: &str) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(
                ?code,
                "the collector at traces.endpoint takes no spans: {message}"
            );
        }
    }

    /// Spans that the collector refused of those it took.
    async fn attempt(&mut self, request: ExportTraceServiceRequest) -> Result<usize, Status> {
        let mut request = Request::new(request);
        self.headers.add_to(request.metadata_mut());
        let answer = time::timeout(self.timeout, self.client.export(request)).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(Status::deadline_exceeded(
                "no answer within traces.timeout_s",
            ))
        });
        let Some(partial) = answer?.into_inner().partial_success else {
            return Ok(0);
        };
        if partial.rejected_spans > 0 {
            self.complain(Code::Ok, &partial.error_message);
        }
        Ok(usize::try_from(partial.rejected_spans).unwrap_or(0))
    }
}

/// Whether the same batch may be taken later, by the rules of OTLP. Not after the time was up: the
/// collector may have it already, and the queue fills.
fn may_pass(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Aborted | Code::Cancelled)
}
