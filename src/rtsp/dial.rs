//! A URL to a connection: the name is resolved once, each address is judged before anything is sent
//! to it, and the connection goes to exactly the address that was judged.

use std::net::SocketAddr;

use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use super::{
    Client, Failure, FailureKind, Trust, Url,
    connection::Connection,
    failure::{tls_error, unconnected},
    stream::Stream,
    tls,
};
use crate::{clock::timeout, limits};

/// Connects to one of the allowed addresses of `url`.
pub(super) async fn dial(client: &Client, url: &Url, trust: &Trust) -> Result<Connection, Failure> {
    let addresses = allowed(client, url, resolved(client, url).await?)?;
    let socket = first_that_answers(client, url, &addresses).await?;
    let both = socket
        .peer_addr()
        .and_then(|peer| Ok((peer, socket.local_addr()?)));
    let (peer, local) = both.map_err(|e| unconnected(&e, url))?;
    // Requests are small and wait for their answers.
    socket.set_nodelay(true).map_err(|e| unconnected(&e, url))?;
    let stream = if url.is_tls() {
        encrypted(client, url, trust, socket, peer).await?
    } else {
        Stream::Plain(socket)
    };
    Ok(Connection::new(stream, peer, local))
}

async fn resolved(client: &Client, url: &Url) -> Result<Vec<SocketAddr>, Failure> {
    let looked_up = timeout(
        &*client.clock,
        client.connect_timeout,
        lookup_host((url.host(), url.port())),
    );
    let dns = |what: String| Failure::new(FailureKind::Dns, what);
    let found = looked_up
        .await
        .ok_or_else(|| dns(format!("the resolver does not answer for {}", url.host())))?
        .map_err(|e| dns(format!("{} cannot be resolved: {e}", url.host())))?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses.truncate(limits::RTSP_ADDRESSES_MAX);
    if addresses.is_empty() {
        return Err(dns(format!("{} has no address", url.host())));
    }
    Ok(addresses)
}

fn allowed(
    client: &Client,
    url: &Url,
    addresses: Vec<SocketAddr>,
) -> Result<Vec<SocketAddr>, Failure> {
    let mut refusal = String::new();
    let mut allowed = Vec::new();
    for address in addresses {
        match client.vet.vet(url.host(), address) {
            Ok(()) => allowed.push(address),
            Err(why) => refusal = why,
        }
    }
    if allowed.is_empty() {
        return Err(Failure::new(
            FailureKind::Forbidden,
            format!("{url} may not be connected to: {refusal}"),
        ));
    }
    Ok(allowed)
}

/// All attempts together take at most one connection timeout: each may use its share of what is
/// left.
async fn first_that_answers(
    client: &Client,
    url: &Url,
    addresses: &[SocketAddr],
) -> Result<TcpStream, Failure> {
    let end = client.clock.now() + client.connect_timeout;
    let mut last = None;
    for (tried, address) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = end.saturating_sub(client.clock.now()) / left;
        let connected = timeout(&*client.clock, share, TcpStream::connect(address)).await;
        let failure = match connected {
            Some(Ok(socket)) => return Ok(socket),
            Some(Err(error)) => unconnected(&error, url),
            None => Failure::new(
                FailureKind::Timeout,
                format!("{url} does not answer: no TCP connection in time"),
            ),
        };
        tracing::debug!(%url, %address, %failure, "no connection");
        last = Some(failure);
    }
    Err(last.unwrap_or_else(|| Failure::new(FailureKind::Dns, "there is no address to try")))
}

async fn encrypted(
    client: &Client,
    url: &Url,
    trust: &Trust,
    socket: TcpStream,
    peer: SocketAddr,
) -> Result<Stream, Failure> {
    let connector = TlsConnector::from(tls::config(trust).await?);
    let name = tls::name(url.host(), peer.ip(), trust)?;
    let handshake = connector.connect(name, socket);
    match timeout(&*client.clock, client.connect_timeout, handshake).await {
        Some(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
        Some(Err(error)) => Err(unshaken(&error, url)),
        None => Err(Failure::new(
            FailureKind::Timeout,
            format!("{url} does not finish the TLS handshake in time"),
        )),
    }
}

fn unshaken(error: &std::io::Error, url: &Url) -> Failure {
    match tls_error(error) {
        Some(tls) => Failure::new(
            FailureKind::Tls,
            format!("the TLS handshake with {url} failed: {tls}"),
        ),
        None if error.kind() == std::io::ErrorKind::ConnectionReset => Failure::new(
            FailureKind::Reset,
            format!("{url} broke the connection during the TLS handshake"),
        ),
        None => Failure::new(
            FailureKind::Tls,
            format!("the TLS handshake with {url} failed: {error}"),
        ),
    }
}
