//! The HTTP side of the exporter: `GET /metrics`, `/health` and `/ready`, HTTP/1.1.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time,
};

use super::{exporter::Metrics, server};
use crate::{
    error::{Kind, Result, ResultExt as _},
    limits,
};

/// What Prometheus calls the format.
const TEXT_FORMAT: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

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

/// Answers for ever. One connection more than [`limits::METRICS_CONNECTIONS_MAX`] waits.
pub(super) async fn serve(listener: TcpListener, metrics: Metrics) {
    let places = Arc::new(Semaphore::new(limits::METRICS_CONNECTIONS_MAX));
    loop {
        // Never closed: an error cannot come.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((socket, _)) => {
                let metrics = metrics.clone();
                tokio::spawn(async move {
                    let talk =
                        time::timeout(limits::METRICS_CONNECTION_TIMEOUT, talk(socket, metrics));
                    if let Ok(Err(error)) = talk.await {
                        tracing::debug!("a scrape ended early: {error}");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection for metrics: {error}");
                time::sleep(limits::ACCEPT_RETRY).await;
            }
        }
    }
}

async fn talk(socket: TcpStream, metrics: Metrics) -> hyper::Result<()> {
    let answer = service_fn(move |request: Request<Incoming>| {
        let metrics = metrics.clone();
        async move { Ok::<_, Infallible>(answer(&request, &metrics)) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::FIRST_BYTE_TIMEOUT)
        .max_buf_size(limits::METRICS_REQUEST_MAX_BYTES)
        .serve_connection(TokioIo::new(socket), answer)
        .await
}

fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        refused
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/metrics" => {
            let mut response = Response::new(Full::from(metrics.render()));
            response.headers_mut().insert(CONTENT_TYPE, TEXT_FORMAT);
            response
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
