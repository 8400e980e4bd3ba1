//! A host to a connection: the name is resolved once, each address is judged before anything is sent
//! to it, and the connection goes to exactly the address that was judged.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{
    Failure, FailureKind, Resolve, Stream, Trust, Vet,
    failure::{tls_error, unconnected},
    tls,
};
use crate::{
    clock::{Clock, timeout},
    limits,
};

/// What connections have in common.
#[derive(Clone)]
pub struct Dialer {
    /// Waits run on it.
    pub clock: Arc<dyn Clock>,
    /// Turns names into addresses.
    pub resolver: Arc<dyn Resolve>,
    /// Where connections may go.
    pub vet: Arc<dyn Vet>,
    /// Longest wait for name resolution, for the TCP connection and for the TLS handshake, each.
    pub connect_timeout: Duration,
}

/// Whom to connect to.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// Name or address; an IPv6 address without its brackets.
    pub host: &'a str,
    /// TCP port.
    pub port: u16,
    /// Whether TLS comes on top.
    pub tls: bool,
    /// What messages call it: nothing secret.
    pub shown: &'a (dyn fmt::Display + Sync),
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shown.fmt(f)
    }
}

/// A connection.
pub struct Dialed {
    /// Its bytes.
    pub stream: Stream,
    /// The address that was judged and connected to.
    pub peer: SocketAddr,
    /// Ours.
    pub local: SocketAddr,
}

impl Dialer {
    /// Connects to one of the allowed addresses of `target`.
    pub async fn dial(&self, target: &Target<'_>, trust: &Trust) -> Result<Dialed, Failure> {
        let addresses = allowed(self, target, resolved(self, target).await?)?;
        let socket = first_that_answers(self, target, &addresses).await?;
        let both = socket
            .peer_addr()
            .and_then(|peer| Ok((peer, socket.local_addr()?)));
        let (peer, local) = both.map_err(|e| unconnected(&e, target))?;
        // Requests are small and wait for their answers.
        socket
            .set_nodelay(true)
            .map_err(|e| unconnected(&e, target))?;
        let stream = if target.tls {
            encrypted(self, target, trust, socket, peer).await?
        } else {
            Stream::Plain(socket)
        };
        Ok(Dialed {
            stream,
            peer,
            local,
        })
    }
}

async fn resolved(dialer: &Dialer, target: &Target<'_>) -> Result<Vec<SocketAddr>, Failure> {
    let looked_up = timeout(
        &*dialer.clock,
        dialer.connect_timeout,
        dialer.resolver.resolve(target.host, target.port),
    );
    let dns = |what: String| Failure::new(FailureKind::Dns, what);
    let found = looked_up
        .await
        .ok_or_else(|| dns(format!("the resolver does not answer for {}", target.host)))?
        .map_err(|e| dns(format!("{} cannot be resolved: {e}", target.host)))?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses.truncate(limits::ADDRESSES_MAX);
    if addresses.is_empty() {
        return Err(dns(format!("{} has no address", target.host)));
    }
    Ok(addresses)
}

fn allowed(
    dialer: &Dialer,
    target: &Target<'_>,
    addresses: Vec<SocketAddr>,
) -> Result<Vec<SocketAddr>, Failure> {
    let mut refusal = String::new();
    let mut allowed = Vec::new();
    for address in addresses {
        match dialer.vet.vet(target.host, address) {
            Ok(()) => allowed.push(address),
            Err(why) => refusal = why,
        }
    }
    if allowed.is_empty() {
        return Err(Failure::new(
            FailureKind::Forbidden,
            format!("{target} may not be connected to: {refusal}"),
        ));
    }
    Ok(allowed)
}

/// All attempts together take at most one connection timeout: each may use its share of what is
/// left.
async fn first_that_answers(
    dialer: &Dialer,
    target: &Target<'_>,
    addresses: &[SocketAddr],
) -> Result<TcpStream, Failure> {
    let end = dialer.clock.now() + dialer.connect_timeout;
    let mut last = None;
    for (tried, address) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = end.saturating_sub(dialer.clock.now()) / left;
        let connected = timeout(&*dialer.clock, share, TcpStream::connect(address)).await;
        let failure = match connected {
            Some(Ok(socket)) => return Ok(socket),
            Some(Err(error)) => unconnected(&error, target),
            None => Failure::new(
                FailureKind::Timeout,
                format!("{target} does not answer: no TCP connection in time"),
            ),
        };
        tracing::debug!(%target, %address, %failure, "no connection");
        last = Some(failure);
    }
    Err(last.unwrap_or_else(|| Failure::new(FailureKind::Dns, "there is no address to try")))
}

async fn encrypted(
    dialer: &Dialer,
    target: &Target<'_>,
    trust: &Trust,
    socket: TcpStream,
    peer: SocketAddr,
) -> Result<Stream, Failure> {
    let connector = TlsConnector::from(tls::config(trust).await?);
    let name = tls::name(target.host, peer.ip(), trust)?;
    let handshake = connector.connect(name, socket);
    match timeout(&*dialer.clock, dialer.connect_timeout, handshake).await {
        Some(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
        Some(Err(error)) => Err(unshaken(&error, target)),
        None => Err(Failure::new(
            FailureKind::Timeout,
            format!("{target} does not finish the TLS handshake in time"),
        )),
    }
}

fn unshaken(error: &std::io::Error, target: &Target<'_>) -> Failure {
    match tls_error(error) {
        Some(tls) => Failure::new(
            FailureKind::Tls,
            format!("the TLS handshake with {target} failed: {tls}"),
        ),
        // Nothing was said of certificates: one that restarts or has no room for another breaks off.
        None => Failure::new(
            FailureKind::Reset,
            format!("{target} broke the connection during the TLS handshake: {error}"),
        ),
    }
}
