//! The layer before all services: no RPC is reached without what [`need`] says. gRPC-Web has been
//! turned into gRPC before it.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{
    Code, Status,
    body::Body,
    codegen::{
        Service,
        http::{HeaderValue, Request, Response, header},
    },
};
use tower::Layer;

use super::{security::Security, status::label};
use crate::{
    access::{Caller, Need, need},
    telemetry::server::rpc_ended,
};

/// Puts a [`Guard`] before a service.
#[derive(Clone)]
pub(super) struct GuardLayer(pub Security);

/// Passes on what may be passed on, with its [`Caller`] among the request's extensions.
#[derive(Clone)]
pub(super) struct Guard<S> {
    inner: S,
    security: Security,
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard {
            inner,
            security: self.0.clone(),
        }
    }
}

impl<S, B> Service<Request<B>> for Guard<S>
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
        match self.judge(&request) {
            Ok(caller) => {
                if let Some(caller) = caller {
                    request.extensions_mut().insert(caller);
                }
                Box::pin(self.inner.call(request))
            }
            Err(refused) => Box::pin(std::future::ready(Ok(*refused))),
        }
    }
}

impl<S> Guard<S> {
    /// Whose request it is; `None` where nobody needs to be known.
    fn judge<B>(&self, request: &Request<B>) -> Result<Option<Arc<Caller>>, Box<Response<Body>>> {
        if !self.security.asks_for_tokens() {
            return Ok(None);
        }
        let path = request.uri().path();
        let needed = need(path);
        // The table's own name, so that callers cannot make up labels.
        let method = needed
            .and_then(|(path, _)| path.rsplit('/').next())
            .unwrap_or("unknown");
        if matches!(needed, Some((_, Need::Nothing))) {
            return Ok(None);
        }
        let headers = request.headers().get_all(header::AUTHORIZATION);
        let headers: Vec<&[u8]> = headers.iter().map(HeaderValue::as_bytes).collect();
        let Ok(Some(caller)) = self.security.caller(&headers) else {
            let status = Status::unauthenticated(
                "no valid credentials: send the metadata `authorization: Bearer TOKEN` with a token of this server",
            );
            let mut refused = refused(method, status);
            let scheme = HeaderValue::from_static("Bearer");
            refused
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
            return Err(refused);
        };
        match needed {
            Some((_, Need::OneOf(roles))) if caller.roles.meets(roles) => Ok(Some(caller)),
            Some((_, Need::OneOf(roles))) => {
                tracing::debug!(token = caller.name, method, "role missing");
                let message = format!("{method} needs a token with the role {roles}");
                Err(refused(method, Status::permission_denied(message)))
            }
            // Never without a rule of its own.
            Some((_, Need::Nothing)) | None => Err(refused(
                method,
                Status::permission_denied("this server has no such RPC, or no rule for it"),
            )),
        }
    }
}

fn refused(method: &'static str, status: Status) -> Box<Response<Body>> {
    let code: Code = status.code();
    rpc_ended(method, label(code));
    Box::new(status.into_http())
}
