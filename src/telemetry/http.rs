//! The HTTP side of the exporter: `GET /metrics`, `/health` and `/ready`, HTTP/1.1.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, pin::Pin, sync::Arc};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time,
};

use super::{exporter::Metrics, server};
use crate::{
    error::{Kind, Result, ResultExt as _},
    limits,
    places::Places,
};

/// What Prometheus calls the format.
const TEXT_FORMAT: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Who may scrape, and how a connection becomes private. `/health` and `/ready` are for everybody.
pub trait Gate: Send + Sync + 'static {
    /// Shakes hands where there is TLS.
    fn shake(&self, socket: TcpStream) -> Shaking;

    /// Whether a request with these `authorization` headers, over a connection whose client has shown
    /// a certificate or not, may read `/metrics`.
    fn may_scrape(&self, authorization: &[&[u8]], certified: bool) -> Result<(), Unwelcome>;
}

/// A handshake under way.
pub type Shaking = Pin<Box<dyn Future<Output = io::Result<Guest>> + Send>>;

/// A connection after its handshake.
pub struct Guest {
    /// Its bytes.
    pub stream: Box<dyn Duplex>,
    /// Whether the client has shown a certificate that is believed.
    pub certified: bool,
}

/// Bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// Why somebody may not scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwelcome {
    /// No valid credentials.
    Unknown,
    /// Valid ones without the right.
    Forbidden,
}

/// No TLS, and everybody may scrape.
#[derive(Debug)]
pub struct Open;

impl Gate for Open {
    fn shake(&self, socket: TcpStream) -> Shaking {
        let stream = Box::new(socket);
        let guest = Guest {
            stream,
            certified: false,
        };
        Box::pin(std::future::ready(Ok(guest)))
    }

    fn may_scrape(&self, _: &[&[u8]], _: bool) -> Result<(), Unwelcome> {
        Ok(())
    }
}

/// Listens; inside a runtime. Fails with `Unavailable`.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener> {
    let bound = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    bound.or_kind(Kind::Unavailable, || {
        format!("cannot export metrics at server.metrics_listen = {address}")
    })
}

/// Answers for ever. One connection more than [`limits::METRICS_CONNECTIONS_MAX`] waits; one more of the
/// same address than [`limits::METRICS_CONNECTIONS_PER_ADDRESS_MAX`] is closed.
pub(super) async fn serve(listener: TcpListener, metrics: Metrics, gate: Arc<dyn Gate>) {
    let places = Arc::new(Semaphore::new(limits::METRICS_CONNECTIONS_MAX));
    let peers = Places::new(limits::METRICS_CONNECTIONS_PER_ADDRESS_MAX);
    loop {
        // Never closed: an error cannot come.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((socket, peer)) => {
                let Some(of_peer) = peers.take(peer.ip()) else {
                    tracing::debug!(%peer, "has its connections for metrics already");
                    continue;
                };
                let (metrics, gate) = (metrics.clone(), gate.clone());
                tokio::spawn(async move {
                    let talk = talk(socket, metrics, gate);
                    let talk = time::timeout(limits::METRICS_CONNECTION_TIMEOUT, talk);
                    if let Ok(Err(error)) = talk.await {
                        tracing::debug!("a scrape ended early: {error}");
                    }
                    drop((place, of_peer));
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection for metrics: {error}");
                time::sleep(limits::ACCEPT_RETRY).await;
            }
        }
    }
}

async fn talk(
    socket: TcpStream,
    metrics: Metrics,
    gate: Arc<dyn Gate>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let shaken = time::timeout(limits::FIRST_BYTE_TIMEOUT, gate.shake(socket));
    let Guest { stream, certified } = shaken.await??;
    let answer = service_fn(move |request: Request<Incoming>| {
        let mut answer = answer(&request, &metrics, &*gate, certified);
        // A scraper comes again and keeps its connection; everybody else gives the place back.
        if answer.status() != StatusCode::OK || request.uri().path() != "/metrics" {
            answer
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        async move { Ok::<_, Infallible>(answer) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::FIRST_BYTE_TIMEOUT)
        .max_buf_size(limits::METRICS_REQUEST_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), answer)
        .await?;
    Ok(())
}

fn answer(
    request: &Request<Incoming>,
    metrics: &Metrics,
    gate: &dyn Gate,
    certified: bool,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        refused
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/metrics" => {
            let authorization = request.headers().get_all(AUTHORIZATION).into_iter();
            let authorization: Vec<&[u8]> = authorization.map(HeaderValue::as_bytes).collect();
            match gate.may_scrape(&authorization, certified) {
                Ok(()) => {
                    let mut response = Response::new(Full::from(metrics.render()));
                    response.headers_mut().insert(CONTENT_TYPE, TEXT_FORMAT);
                    response
                }
                Err(Unwelcome::Unknown) => {
                    let mut refused = plain(StatusCode::UNAUTHORIZED, "no valid credentials\n");
                    refused
                        .headers_mut()
                        .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                    refused
                }
                Err(Unwelcome::Forbidden) => {
                    plain(StatusCode::FORBIDDEN, "the token lacks the role observe\n")
                }
            }
        }
        "/health" => plain(StatusCode::OK, "running\n"),
        "/ready" if server::is_serving() => plain(StatusCode::OK, "serving\n"),
        "/ready" => plain(StatusCode::SERVICE_UNAVAILABLE, "not serving\n"),
        _ => plain(
            StatusCode::NOT_FOUND,
            "there are /metrics, /health and /ready\n",
        ),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, PLAIN);
    response
}
