//! What a camera says, from a camera that follows a script. The input's parts, between lines of `%%`, answer
//! the client's requests one after another: OPTIONS, DESCRIBE, SETUP, PLAY (more where it asks again with
//! credentials or is redirected). An empty part is an ordinary answer; in others `{cseq}`, `{uri}` and
//! `{camera}` stand for the request's number and address and for the camera's host and port. After the answer to
//! PLAY all that is left comes at once, and then the camera hangs up.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use headhunt::{
    clock::FastClock,
    net::{Resolve, Resolving},
    rtsp::{Access, Client, Transport, Trust, Url, Vet},
};
use tokio::runtime::Runtime;

#[allow(dead_code)] // made for the client's own tests
#[path = "../rtsp_support/mod.rs"]
mod rtsp_support;

use rtsp_support::{Act, Camera, Seen};

/// Most packets that are taken of one camera.
const PACKETS_MAX: usize = 4096;

pub fn run(bytes: &[u8]) -> Result<(), String> {
    let runtime = runtime();
    runtime.block_on(async {
        let mut parts = parts(bytes);
        let camera = Camera::new(move |seen| Some(answer(seen, &mut parts))).await;
        let url = format!("rtsp://ann:hunter2@{}/live?channel=1", camera.address);
        let client = Client {
            // Waits of ten seconds take a tenth of one.
            clock: FastClock::shared(100),
            resolver: Arc::new(NoNames),
            vet: Arc::new(Only(camera.address)),
            connect_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(10),
            silence_timeout: Duration::from_secs(10),
        };
        let access = Access {
            transport: Transport::Tcp,
            trust: Trust::System,
        };
        let opened = client.open(&Url::parse(&url).unwrap(), &access).await;
        let mut session = opened.map_err(|failure| told(&failure.message))?;
        let mut packets = 0;
        let failure = loop {
            match session.next().await {
                Ok(packet) => {
                    assert!(packet.data.len() >= 12, "no header: {packet:?}");
                    packets += 1;
                    if packets == PACKETS_MAX {
                        break None;
                    }
                }
                Err(failure) => break Some(failure),
            }
        };
        session.close().await;
        match failure {
            Some(failure) if packets == 0 => Err(told(&failure.message)),
            _ => Ok(()),
        }
    })
}

/// Nothing that a camera says makes a message tell the password.
fn told(message: &str) -> String {
    assert!(!message.contains("hunter2"), "{message}");
    message.to_owned()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// The input's parts, in order.
fn parts(bytes: &[u8]) -> std::vec::IntoIter<Vec<u8>> {
    const BETWEEN: &[u8] = b"%%\n";
    let mut parts = vec![Vec::new()];
    let mut rest = bytes;
    while let Some((first, others)) = rest.split_first() {
        let is_between = rest.starts_with(BETWEEN);
        if let (true, Some(others)) = (is_between, rest.get(BETWEEN.len()..)) {
            parts.push(Vec::new());
            rest = others;
        } else {
            parts.last_mut().unwrap().push(*first);
            rest = others;
        }
    }
    parts.into_iter()
}

fn answer(seen: &Seen, parts: &mut std::vec::IntoIter<Vec<u8>>) -> Vec<Act> {
    let Some(part) = parts.next() else {
        return vec![Act::Close];
    };
    let mut acts = vec![Act::Send(if part.is_empty() {
        seen.ordinary()
    } else {
        filled(seen, part)
    })];
    if seen.method == "PLAY" {
        acts.extend(parts.map(Act::Send));
    }
    if parts.len() == 0 {
        acts.push(Act::Pause(Duration::from_millis(1)));
        acts.push(Act::Close);
    }
    acts
}

/// A part with what only this request knows.
fn filled(seen: &Seen, part: Vec<u8>) -> Vec<u8> {
    let authority = seen.uri.split('/').nth(2).unwrap_or_default();
    let cseq = seen.header("cseq").unwrap_or_default();
    let mut filled = part;
    for (name, value) in [
        ("{cseq}", cseq),
        ("{uri}", &seen.uri),
        ("{camera}", authority),
    ] {
        let mut out = Vec::new();
        let mut rest = &filled[..];
        while let Some(at) = rest.windows(name.len()).position(|w| w == name.as_bytes()) {
            out.extend_from_slice(&rest[..at]);
            out.extend_from_slice(value.as_bytes());
            rest = &rest[at + name.len()..];
        }
        out.extend_from_slice(rest);
        filled = out;
    }
    filled
}

/// This camera and nobody else, wherever it redirects to.
struct Only(SocketAddr);

impl Vet for Only {
    fn vet(&self, _: &str, address: SocketAddr) -> Result<(), String> {
        if address == self.0 {
            Ok(())
        } else {
            Err("not this camera".into())
        }
    }
}

/// Addresses are addresses, and there are no names: nobody out there is asked.
#[derive(Debug)]
struct NoNames;

impl Resolve for NoNames {
    fn resolve(&self, host: &str, port: u16) -> Resolving {
        let address = host.parse::<IpAddr>();
        Box::pin(async move {
            let address = address.map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
            Ok(vec![SocketAddr::new(address, port)])
        })
    }
}
