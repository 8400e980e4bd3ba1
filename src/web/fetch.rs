//! GET, redirects, and the body as it comes.

use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, Response, StatusCode, Uri,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use tokio_util::task::AbortOnDropHandle;

use super::{Client, Url};
use crate::{
    clock::timeout,
    error::{Error, Kind, Result},
    limits,
    net::{Failure, FailureKind, Trust},
};

const AGENT: &str = concat!("headhunt/", env!("CARGO_PKG_VERSION"));

/// The body of an answer. Dropping it closes the connection.
pub struct Body {
    incoming: Incoming,
    client: Client,
    shown: String,
    /// Since when somebody waits for the next bytes, on the client's clock.
    waiting_since: Option<Duration>,
    _connection: AbortOnDropHandle<()>,
}

impl Client {
    /// Asks for the file at `url`; returns once the head of a 200 is there. At most
    /// [`limits::WEB_REDIRECTS_MAX`] redirects are followed, each under the same rules as the first
    /// address.
    ///
    /// Fails with `PermissionDenied` where the address may not be connected to, `NotFound` (404, 410),
    /// `FailedPrecondition` (401, 403, TLS), `InvalidArgument` for an answer that is no file, and
    /// `Unavailable` for all that may pass: no connection, no answer, 5xx.
    pub async fn get(&self, url: &Url, trust: &Trust) -> Result<Body> {
        let mut url = url.clone();
        for _ in 0..=limits::WEB_REDIRECTS_MAX {
            let (response, connection) = self.ask(&url, trust).await?;
            if let Some(to) = redirect(&url, &response)? {
                tracing::debug!(from = %url, %to, "http redirect");
                url = to;
                continue;
            }
            check(&url, &response)?;
            return Ok(Body {
                incoming: response.into_body(),
                client: self.clone(),
                shown: url.to_string(),
                waiting_since: None,
                _connection: connection,
            });
        }
        Err(Error::invalid(format!(
            "the source redirects more than {} times",
            limits::WEB_REDIRECTS_MAX
        )))
    }

    async fn ask(
        &self,
        url: &Url,
        trust: &Trust,
    ) -> Result<(Response<Incoming>, AbortOnDropHandle<()>)> {
        let dialed = self.dialer.dial(&url.target(), trust).await;
        let stream = dialed.map_err(|failure| unreached(&failure))?.stream;
        let broken = |e: hyper::Error| unavailable(url, format_args!("{e}"));
        // Heads are small; what is larger is no file server.
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(limits::WEB_HEAD_MAX_BYTES)
            .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            // Its errors reach the body too.
            let _ = connection.await;
        }));
        let answer = sender.send_request(request(url)?);
        match timeout(&*self.dialer.clock, self.response_timeout, answer).await {
            Some(Ok(response)) => Ok((response, connection)),
            Some(Err(error)) => Err(broken(error)),
            None => Err(unavailable(url, format_args!("no answer in time"))),
        }
    }
}

impl Body {
    /// The next bytes; `None` at the end of the file. May be dropped and called again without losing
    /// any.
    ///
    /// Fails with `Unavailable` where the connection breaks before the end that was announced, or
    /// nothing comes for too long.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let clock = self.client.dialer.clock.clone();
        let patience = self.client.silence_timeout;
        let since = *self.waiting_since.get_or_insert_with(|| clock.now());
        loop {
            let left = (since + patience).saturating_sub(clock.now());
            let Some(frame) = timeout(&*clock, left, self.incoming.frame()).await else {
                return Err(self.broke(format_args!(
                    "it sent nothing for {} s",
                    patience.as_secs_f64()
                )));
            };
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    // Trailers are of no use.
                    if let Ok(bytes) = frame.into_data()
                        && !bytes.is_empty()
                    {
                        self.waiting_since = None;
                        return Ok(Some(bytes));
                    }
                }
                Some(Err(error)) => return Err(self.broke(format_args!("{error}"))),
            }
        }
    }

    fn broke(&self, why: std::fmt::Arguments<'_>) -> Error {
        Error::unavailable(format!("{} broke off: {why}", self.shown))
    }
}

fn request(url: &Url) -> Result<Request<Empty<Bytes>>> {
    let unusable = |e: hyper::http::Error| {
        Error::invalid(format!("{url} cannot stand in a request")).with_source(e)
    };
    let asked = url.request();
    let path = match asked.query() {
        Some(query) => format!("{}?{query}", asked.path()),
        None => asked.path().to_owned(),
    };
    let uri: Uri = path
        .parse()
        .map_err(|e| unusable(hyper::http::Error::from(e)))?;
    let port = asked.port().map(|port| format!(":{port}"));
    let host = format!(
        "{}{}",
        asked.host_str().unwrap_or_default(),
        port.unwrap_or_default()
    );
    let mut request = Request::get(uri)
        .header(header::HOST, host)
        .header(header::USER_AGENT, AGENT)
        // The file as it is: video does not shrink, and offsets must be its own.
        .header(header::ACCEPT_ENCODING, "identity");
    if let Some(credentials) = url.credentials() {
        request = request.header(
            header::AUTHORIZATION,
            http_auth::basic::encode_credentials(&credentials.username, &credentials.password),
        );
    }
    request.body(Empty::new()).map_err(unusable)
}

fn redirect(url: &Url, response: &Response<Incoming>) -> Result<Option<Url>> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = response.headers().get(header::LOCATION);
    // Some write what lies beyond ASCII as it is.
    let location = location.and_then(|location| std::str::from_utf8(location.as_bytes()).ok());
    let location = location
        .ok_or_else(|| Error::invalid(format!("{url} redirects without saying where to")))?;
    url.redirected(location).map(Some)
}

fn check(url: &Url, response: &Response<Incoming>) -> Result<()> {
    let status = response.status();
    let encoding = response.headers().get(header::CONTENT_ENCODING);
    let as_it_is =
        |encoding: &&header::HeaderValue| encoding.as_bytes().eq_ignore_ascii_case(b"identity");
    if let Some(encoding) = encoding.filter(|encoding| !as_it_is(encoding))
        && status == StatusCode::OK
    {
        return Err(Error::invalid(format!(
            "{url} sends the file in the encoding {encoding:?}, not as it is"
        )));
    }
    let said = || format!("{url} answers {status}");
    match status {
        StatusCode::OK => Ok(()),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(Error::not_found(said())),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Error::precondition(format!(
            "{}: give a user name and password that it takes (http://user:password@host/path)",
            said()
        ))),
        status
            if status.is_server_error()
                || status == StatusCode::TOO_MANY_REQUESTS
                || status == StatusCode::REQUEST_TIMEOUT =>
        {
            Err(Error::unavailable(format!("{}: try again later", said())))
        }
        _ => Err(Error::invalid(said())),
    }
}

fn unreached(failure: &Failure) -> Error {
    let kind = match failure.kind {
        FailureKind::Forbidden => Kind::PermissionDenied,
        FailureKind::Tls => Kind::FailedPrecondition,
        _ => Kind::Unavailable,
    };
    Error::new(kind, failure.message.clone())
}

fn unavailable(url: &Url, why: std::fmt::Arguments<'_>) -> Error {
    Error::unavailable(format!("{url} does not give the file: {why}"))
}
