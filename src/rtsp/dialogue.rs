//! Requests and answers on one connection: numbers, authentication, redirects, and what the camera
//! itself asks meanwhile.

use std::{collections::VecDeque, time::Duration};

use prost::bytes::Bytes;
use rtsp_types::{
    Empty, HeaderName, Message, Method, Request, Response, StatusCode, Version, headers,
};

use super::{
    Client, Failure, FailureKind, auth::Authenticator, connection::Connection, wire::Incoming,
};
use crate::{clock::timeout, limits, net::shown_path};

const AGENT: &str = concat!("headhunt/", env!("CARGO_PKG_VERSION"));

/// One request, before it has a number and an authorization.
#[derive(Clone)]
pub(super) struct Ask {
    pub method: Method,
    pub url: url::Url,
    pub headers: Vec<(HeaderName, String)>,
}

/// The end of an exchange.
pub(super) enum Answer {
    Response(Response<Vec<u8>>),
    /// Where to go instead.
    Redirect(String),
}

/// What the camera's own request means for us.
pub(super) enum Wish {
    Nothing,
    Redirect(String),
    Teardown,
}

/// Packets that arrive while an answer is awaited, and on which channel they are expected.
#[derive(Default)]
pub(super) struct Early {
    pub channel: Option<u8>,
    pub packets: VecDeque<(Bytes, Duration)>,
    bytes: usize,
}

impl Early {
    /// Keeps a packet; the oldest go where there are too many.
    fn keep(&mut self, channel: u8, data: Bytes, now: Duration) {
        if self.channel != Some(channel) {
            return;
        }
        self.bytes += data.len();
        self.packets.push_back((data, now));
        while self.packets.len() > limits::RTSP_EARLY_PACKETS
            || self.bytes > limits::RTSP_EARLY_BYTES
        {
            let Some((gone, _)) = self.packets.pop_front() else {
                return;
            };
            self.bytes -= gone.len();
        }
    }
}

pub(super) struct Dialogue {
    pub connection: Connection,
    auth: Authenticator,
    sequence: u32,
    /// The session's identifier, once SETUP gave one.
    pub session: Option<String>,
}

impl Dialogue {
    pub fn new(connection: Connection, auth: Authenticator) -> Self {
        Dialogue {
            connection,
            auth,
            sequence: 0,
            session: None,
        }
    }

    /// Lays a request out to be sent. Gives its number and whether it carries an authorization.
    pub fn send(&mut self, ask: &Ask) -> Result<(u32, bool), Failure> {
        self.sequence += 1;
        let method: &str = (&ask.method).into();
        let mut request = Request::builder(ask.method.clone(), Version::V1_0)
            .request_uri(ask.url.clone())
            .header(headers::CSEQ, self.sequence.to_string())
            .header(headers::USER_AGENT, AGENT);
        if let Some(session) = &self.session {
            request = request.header(headers::SESSION, session.as_str());
        }
        for (name, value) in &ask.headers {
            request = request.header(name.clone(), value.as_str());
        }
        let authorization = self.auth.header(method, ask.url.as_str())?;
        let authorized = authorization.is_some();
        if let Some(authorization) = authorization {
            request = request.header(headers::AUTHORIZATION, authorization);
        }
        tracing::debug!(
            method,
            path = shown_path(&ask.url),
            cseq = self.sequence,
            authorized,
            "rtsp request"
        );
        self.put(&Message::Request(request.empty()), method)?;
        Ok((self.sequence, authorized))
    }

    fn put(&mut self, message: &Message<Empty>, what: &str) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        let written = message.write(&mut bytes);
        if written.is_err() || !self.connection.send(&bytes) {
            return Err(Failure::new(
                FailureKind::Timeout,
                format!("{what} cannot be sent: the camera takes nothing more"),
            ));
        }
        Ok(())
    }

    /// Asks and waits for the final answer, with the credentials where they are asked for.
    pub async fn exchange(
        &mut self,
        client: &Client,
        ask: &Ask,
        early: &mut Early,
    ) -> Result<Answer, Failure> {
        let method: &str = (&ask.method).into();
        let mut challenged = false;
        let mut renewed = false;
        loop {
            let (number, authorized) = self.send(ask)?;
            let end = client.clock.now() + client.response_timeout;
            let late = || {
                Failure::new(
                    FailureKind::Timeout,
                    format!("the camera does not answer {method} in time"),
                )
            };
            let waited = self.answer(client, number, end, early);
            let answered = timeout(&*client.clock, client.response_timeout, waited).await;
            let (response, challenges) = match answered.ok_or_else(late)?? {
                Reply::Response(response, challenges) => (response, challenges),
                Reply::Redirect(to) => return Ok(Answer::Redirect(to)),
                Reply::Late => return Err(late()),
            };
            tracing::debug!(method, cseq = number, status = %u16::from(response.status()), "rtsp answer");
            if response.status() != StatusCode::Unauthorized {
                return Ok(redirect(&response).map_or(Answer::Response(response), Answer::Redirect));
            }
            // Some do not ask again whom they have asked.
            if authorized && challenges.is_empty() {
                return Err(wrong_credentials());
            }
            let stale = self.auth.challenged(&challenges)?;
            // Once without an authorization or with one of an earlier exchange, and once more where
            // the camera says that only its nonce was too old.
            let again = if challenged { stale && !renewed } else { true };
            if !again {
                return Err(wrong_credentials());
            }
            renewed = challenged || authorized;
            challenged = true;
        }
    }

    /// Waits for the answer to the request of this number. It looks at the time itself too: a peer
    /// that never stops sending may keep the timer from being looked at.
    async fn answer(
        &mut self,
        client: &Client,
        number: u32,
        end: Duration,
        early: &mut Early,
    ) -> Result<Reply, Failure> {
        loop {
            let incoming = self.connection.receive().await?;
            let now = client.clock.now();
            match incoming {
                None => {
                    return Err(Failure::new(
                        FailureKind::Reset,
                        "the camera closed the connection during the set-up",
                    ));
                }
                Some(Incoming::Frame(channel, data)) => early.keep(channel, data, now),
                Some(Incoming::Request(request)) => match self.heed(&request) {
                    Wish::Nothing => {}
                    Wish::Redirect(to) => return Ok(Reply::Redirect(to)),
                    Wish::Teardown => {
                        return Err(Failure::new(
                            FailureKind::Ended,
                            "the camera ended the session during the set-up",
                        ));
                    }
                },
                Some(Incoming::Response(response, challenges)) => {
                    let provisional = u16::from(response.status()) < 200;
                    // Some cameras leave the number out.
                    if !provisional && cseq(&response).is_none_or(|n| n == number) {
                        return Ok(Reply::Response(response, challenges));
                    }
                }
            }
            if now >= end {
                return Ok(Reply::Late);
            }
        }
    }

    /// Answers a request of the camera.
    pub fn heed(&mut self, request: &Request<Vec<u8>>) -> Wish {
        let (status, wish) = match request.method() {
            Method::Options
            | Method::GetParameter
            | Method::SetParameter
            | Method::Announce
            | Method::PlayNotify => (StatusCode::Ok, Wish::Nothing),
            Method::Teardown => (StatusCode::Ok, Wish::Teardown),
            Method::Redirect => match request.header(&headers::LOCATION) {
                Some(to) => (StatusCode::Ok, Wish::Redirect(to.as_str().to_owned())),
                None => (StatusCode::BadRequest, Wish::Nothing),
            },
            _ => (StatusCode::NotImplemented, Wish::Nothing),
        };
        let mut response = Response::builder(Version::V1_0, status);
        if let Some(number) = request.header(&headers::CSEQ) {
            response = response.header(headers::CSEQ, number.as_str());
        }
        // Whoever asks without reading our answers does not get all of them.
        let _ = self.put(&Message::Response(response.empty()), "an answer");
        wish
    }

    /// Takes a challenge to a request that nobody waits for.
    pub fn challenged(&mut self, challenges: &[String]) -> Result<bool, Failure> {
        self.auth.challenged(challenges)
    }
}

enum Reply {
    Response(Response<Vec<u8>>, Vec<String>),
    Redirect(String),
    Late,
}

/// The number that a response answers.
pub(super) fn cseq(response: &Response<Vec<u8>>) -> Option<u32> {
    let header = response.header(&headers::CSEQ)?.as_str();
    header.split(',').next()?.trim().parse().ok()
}

fn redirect(response: &Response<Vec<u8>>) -> Option<String> {
    let moved = matches!(u16::from(response.status()), 301 | 302 | 303 | 305 | 307);
    let location = response.header(&headers::LOCATION).filter(|_| moved)?;
    Some(location.as_str().to_owned())
}

fn wrong_credentials() -> Failure {
    Failure::new(
        FailureKind::Unauthorized,
        "the camera does not accept the user name and password of its URL",
    )
}

/// What a refusal means; `unsupported` says it of a transport.
pub(super) fn refusal(method: &Method, status: StatusCode, unsupported: &str) -> Failure {
    let method: &str = method.into();
    let code = u16::from(status);
    let (kind, what) = match code {
        401 | 403 | 407 => (
            FailureKind::Unauthorized,
            "these credentials, or having none, do not suffice",
        ),
        404 | 410 => (FailureKind::NotFound, "there is no such stream"),
        454 => (FailureKind::Ended, "it does not know the session any more"),
        461 => {
            return Failure::protocol(format!(
                "the camera answers {code} to {method}: it {unsupported}"
            ));
        }
        453 | 500..=599 => (FailureKind::Busy, "it cannot now"),
        _ => (FailureKind::Protocol, "it does not do what is needed"),
    };
    Failure::new(
        kind,
        format!("the camera answers {code} to {method}: {what}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_packets_are_bounded_and_the_oldest_go() {
        let mut early = Early {
            channel: Some(2),
            ..Early::default()
        };
        let small = |n: usize| Bytes::from(n.to_be_bytes().to_vec());
        for n in 0..limits::RTSP_EARLY_PACKETS + 5 {
            early.keep(2, small(n), Duration::ZERO);
            early.keep(3, small(n), Duration::ZERO);
        }
        assert_eq!(early.packets.len(), limits::RTSP_EARLY_PACKETS);
        assert_eq!(early.packets[0].0, small(5));
        for _ in 0..200 {
            early.keep(2, Bytes::from(vec![0; 65_535]), Duration::ZERO);
        }
        let bytes: usize = early.packets.iter().map(|(p, _)| p.len()).sum();
        assert!(bytes <= limits::RTSP_EARLY_BYTES && bytes == early.bytes);
    }

    #[test]
    fn refusals_have_their_kinds() {
        for (code, kind) in [
            (401, FailureKind::Unauthorized),
            (403, FailureKind::Unauthorized),
            (404, FailureKind::NotFound),
            (410, FailureKind::NotFound),
            (453, FailureKind::Busy),
            (454, FailureKind::Ended),
            (455, FailureKind::Protocol),
            (461, FailureKind::Protocol),
            (500, FailureKind::Busy),
            (503, FailureKind::Busy),
        ] {
            let failure = refusal(&Method::Setup, StatusCode::from(code), "sends no UDP");
            assert_eq!(failure.kind, kind, "{code}");
            assert!(failure.message.contains(&code.to_string()));
            assert_eq!(failure.message.contains("UDP"), code == 461);
        }
    }
}
