//! The layer that makes a call the span of a trace: whose it is stands in the W3C headers of the request,
//! how it ended in the trailers of the response. It stands behind the guard, so that nobody who may not
//! call fills the queue of spans.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http_body_util::BodyExt as _;
use tonic::{
    Code, Status,
    body::Body,
    codegen::{
        Service,
        http::{HeaderMap, HeaderValue, Request, Response},
    },
};
use tower::Layer;

use super::status::label;
use crate::{
    access::need,
    telemetry::traces::{Parent, RunningCall, Traces},
};

/// Services of these are traced; probes and reflection are not.
const OURS: &str = "headhunt.v1.";

/// Puts a [`Traced`] before a service.
#[derive(Clone)]
pub(super) struct TraceLayer(pub Traces);

/// Adds the [`TraceId`](crate::telemetry::traces::TraceId) of a call's trace to the request's extensions
/// where there is one, and the [`Call`](crate::telemetry::traces::Call) where it is recorded.
#[derive(Clone)]
pub(super) struct Traced<S> {
    inner: S,
    traces: Traces,
}

impl<S> Layer<S> for TraceLayer {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced {
            inner,
            traces: self.0.clone(),
        }
    }
}

impl<S, B> Service<Request<B>> for Traced<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Some(method) = method(request.uri().path()) else {
            return Box::pin(self.inner.call(request));
        };
        let parent = parent(request.headers());
        let caller = parent.as_ref().map(|parent| parent.trace);
        let running = self.traces.begin(method, parent);
        let recorded = running.as_ref().map(RunningCall::call).cloned();
        let extensions = request.extensions_mut();
        // For logs: a trace that others record is worth a word there too.
        if let Some(trace) = recorded.as_ref().map(|call| call.trace()).or(caller) {
            extensions.insert(trace);
        }
        if let Some(call) = recorded {
            extensions.insert(call);
        }
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await?;
            Ok(match running {
                Some(running) => until_its_end(response, running),
                None => response,
            })
        })
    }
}

/// `package.Service/Method`, as the table has it: callers cannot make up names.
fn method(path: &str) -> Option<&'static str> {
    let (path, _) = need(path)?;
    path.strip_prefix('/')
        .filter(|method| method.starts_with(OURS))
}

fn parent(headers: &HeaderMap) -> Option<Parent> {
    let all = |name: &str| -> Vec<&[u8]> {
        let values = headers.get_all(name).into_iter();
        values.map(HeaderValue::as_bytes).collect()
    };
    let traceparent = all("traceparent");
    if traceparent.is_empty() {
        return None;
    }
    Parent::of(&traceparent, &all("tracestate"))
}

/// The response; the call ends with its trailers, or when it is dropped because the client left.
fn until_its_end(response: Response<Body>, running: RunningCall) -> Response<Body> {
    if let Some(status) = Status::from_header_map(response.headers()) {
        end(running, &status);
        return response;
    }
    let mut running = Some(running);
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let status = frame.trailers_ref().and_then(Status::from_header_map);
            if let Some(status) = status
                && let Some(running) = running.take()
            {
                end(running, &status);
            }
            frame
        }))
    })
}

fn end(running: RunningCall, status: &Status) {
    let code = status.code();
    let name = label(code).to_ascii_uppercase();
    running.end(&name, is_ours(code).then(|| status.message()));
}

/// Whether a code says that the server is at fault, by OpenTelemetry's conventions for gRPC servers.
fn is_ours(code: Code) -> bool {
    match code {
        Code::Unknown
        | Code::DeadlineExceeded
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::Ok
        | Code::Cancelled
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unauthenticated => false,
    }
}
