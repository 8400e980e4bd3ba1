//! What stands before the services: TLS, tokens, and both read again when their files change.

use std::{io, sync::Arc, time::Duration};

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::{
    access::{Book, Caller, Refused, Reloaded, Role, Roles, Shares},
    clock::Clock,
    config::ServerSettings,
    error::Result,
    limits,
    net::{Clients, Identity, ServerStream, ServerTls},
    telemetry::{
        http::{Gate, Guest, Shaking, Unwelcome},
        server::credentials_refused,
    },
};

/// TLS and tokens by configuration. Clones share them.
#[derive(Clone)]
pub struct Security {
    tls: Option<Arc<Reloaded<Tls>>>,
    tokens: Option<Arc<Reloaded<Book>>>,
    /// Whether the exporter asks for a certificate: where there are no tokens to tell people apart.
    scrapers_certified: bool,
    shares: Shares,
    clock: Arc<dyn Clock>,
    period: Duration,
}

/// How the two listeners shake hands.
struct Tls {
    grpc: ServerTls,
    metrics: ServerTls,
}

impl Security {
    /// Reads the files that the settings name.
    ///
    /// Fails with `NotFound` and `InvalidArgument`, naming the file.
    pub fn open(settings: &ServerSettings, clock: Arc<dyn Clock>) -> Result<Security> {
        let tls = match (&settings.tls_cert_file, &settings.tls_key_file) {
            (Some(certificate), Some(key)) => {
                let mut files = vec![certificate.clone(), key.clone()];
                files.extend(settings.tls_client_ca_file.clone());
                Some(Arc::new(Reloaded::open("certificate", files, tls)?))
            }
            _ => None,
        };
        let tokens = match &settings.token_file {
            Some(file) => {
                let name = format!("server.token_file = {}", file.display());
                let book = move |contents: &[Vec<u8>]| {
                    let bytes = contents.first().map_or(&[][..], Vec::as_slice);
                    Book::parse(bytes).map_err(|e| e.context(&name).with_field("server.token_file"))
                };
                Some(Arc::new(Reloaded::open(
                    "tokens",
                    vec![file.clone()],
                    book,
                )?))
            }
            None => None,
        };
        Ok(Security {
            scrapers_certified: tokens.is_none() && settings.tls_client_ca_file.is_some(),
            tls,
            tokens,
            shares: Shares::default(),
            clock,
            period: settings.reload,
        })
    }

    /// Watches the files until `closing` fires. Call it inside a runtime.
    pub(super) fn keep(&self, closing: &CancellationToken) {
        if let Some(tls) = &self.tls {
            let keeper = tls.clone();
            tokio::spawn(keeper.keep(self.clock.clone(), self.period, closing.clone()));
        }
        if let Some(tokens) = &self.tokens {
            let keeper = tokens.clone();
            tokio::spawn(keeper.keep(self.clock.clone(), self.period, closing.clone()));
        }
    }

    /// Whether callers need tokens.
    pub fn asks_for_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// Whether connections are encrypted.
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// How many detections each token runs.
    pub(super) fn shares(&self) -> Shares {
        self.shares.clone()
    }

    /// Whose token these `authorization` headers have; `Ok(None)` where nobody needs one.
    pub(super) fn caller(&self, authorization: &[&[u8]]) -> Result<Option<Arc<Caller>>, NotKnown> {
        let Some(tokens) = &self.tokens else {
            return Ok(None);
        };
        let found = match bearer(authorization) {
            None => Err("missing"),
            Some(token) => match tokens.current().find(token, self.clock.wall()) {
                Ok(caller) => Ok(Some(caller)),
                Err(Refused::Unknown) => Err("unknown"),
                Err(Refused::Expired) => Err("expired"),
            },
        };
        found.map_err(|reason| {
            tracing::debug!(reason, "credentials refused");
            credentials_refused(reason);
            NotKnown
        })
    }

    /// Waits until the caller's token is good for none of these roles any more: taken away, replaced or
    /// expired.
    pub(super) async fn lapsed(&self, caller: &Caller, roles: Roles) {
        let Some(tokens) = &self.tokens else {
            return std::future::pending().await;
        };
        loop {
            self.clock.sleep(self.period).await;
            let book = tokens.current();
            if !book.still_holds(caller, roles, self.clock.wall()) {
                return;
            }
        }
    }

    /// Shakes hands on the gRPC port.
    pub(super) async fn accept(&self, socket: TcpStream) -> io::Result<ServerStream> {
        match &self.tls {
            Some(tls) => {
                let tls = tls.current().grpc.clone();
                tls.accept(socket).await
            }
            None => Ok(ServerStream::Plain(socket)),
        }
    }
}

/// No valid credentials: why is nobody's business but the log's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotKnown;

fn tls(contents: &[Vec<u8>]) -> Result<Tls> {
    let file = |n: usize| contents.get(n).map(Vec::as_slice);
    let identity = Identity {
        certificates: file(0).unwrap_or_default(),
        key: file(1).unwrap_or_default(),
    };
    let (callers, scrapers) = match file(2) {
        None => (Clients::Anonymous, Clients::Anonymous),
        // Probes have no certificate, and `/health` is for them too.
        Some(authorities) => (Clients::Must(authorities), Clients::May(authorities)),
    };
    Ok(Tls {
        // gRPC-Web may come over HTTP/1.1.
        grpc: ServerTls::new(identity, callers, &[b"h2", b"http/1.1"])?,
        metrics: ServerTls::new(identity, scrapers, &[b"http/1.1"])?,
    })
}

/// The token of exactly one `authorization: Bearer TOKEN` header.
fn bearer<'a>(authorization: &[&'a [u8]]) -> Option<&'a str> {
    let [header] = authorization else {
        return None;
    };
    let (scheme, token) = std::str::from_utf8(header).ok()?.split_once(' ')?;
    let token = token.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer")
        && !token.is_empty()
        && token.len() <= limits::TOKEN_MAX_BYTES)
        .then_some(token)
}

impl Gate for Security {
    fn shake(&self, socket: TcpStream) -> Shaking {
        let tls = self.tls.as_ref().map(|tls| tls.current().metrics.clone());
        Box::pin(async move {
            let stream = match tls {
                Some(tls) => tls.accept(socket).await?,
                None => ServerStream::Plain(socket),
            };
            Ok(Guest {
                certified: stream.is_certified(),
                stream: Box::new(stream),
            })
        })
    }

    fn may_scrape(&self, authorization: &[&[u8]], certified: bool) -> Result<(), Unwelcome> {
        match self.caller(authorization) {
            Err(NotKnown) => Err(Unwelcome::Unknown),
            Ok(Some(caller)) if !caller.roles.meets(Roles::of(&[Role::Observe])) => {
                Err(Unwelcome::Forbidden)
            }
            Ok(None) if self.scrapers_certified && !certified => Err(Unwelcome::Unknown),
            Ok(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_from_one_proper_header_alone() {
        assert_eq!(bearer(&[b"Bearer hh_1"]), Some("hh_1"));
        assert_eq!(bearer(&[b"bearer  hh_1 "]), Some("hh_1"));
        let long = format!("Bearer {}", "a".repeat(limits::TOKEN_MAX_BYTES + 1));
        assert_eq!(bearer(&[]), None);
        assert_eq!(bearer(&[b"Bearer hh_1", b"Bearer hh_1"]), None);
        let wrong: [&[u8]; 6] = [
            b"hh_1",
            b"Basic hh_1",
            b"Bearer",
            b"Bearer  ",
            b"Bearer \xff",
            long.as_bytes(),
        ];
        for header in wrong {
            assert_eq!(bearer(&[header]), None, "{header:?}");
        }
    }
}
