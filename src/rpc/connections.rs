//! Connections, with TLS where it is configured, at most so many at a time.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepidle};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{self, Sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::security::Security;
use crate::{
    net::ServerStream,
    places::{Place, Places},
    telemetry::server::handshake_failed,
};

/// Pause after a failed accept: out of file descriptors, accepting again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Silence on a connection after which the system asks whether the peer is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Bytes of the line that an HTTP/2 connection begins with; no request of HTTP/1.1 is shorter that names a host.
const HTTP2_PREFACE_BYTES: usize = 24;

/// A connection that counts until it is dropped.
pub(super) struct Connection {
    stream: ServerStream,
    /// Until so many bytes have come that HTTP has its own times for what follows.
    silence: Option<Pin<Box<Sleep>>>,
    /// Bytes that came meanwhile.
    came: usize,
    _places: (OwnedSemaphorePermit, Place),
}

/// How many connections there may be.
#[derive(Clone, Copy)]
pub(super) struct Most {
    pub all: usize,
    /// From one address.
    pub of_peer: usize,
}

/// Accepts until `closing` fires, then closes the listener. One connection more than `most.all` waits in
/// the kernel's backlog, one more of an address than `most.of_peer` is closed; one that says nothing or next
/// to nothing, or does not finish its handshake, for
/// `first_byte` fails.
pub(super) fn accept(
    listener: TcpListener,
    security: Security,
    most: Most,
    first_byte: Duration,
    closing: CancellationToken,
) -> ReceiverStream<io::Result<Connection>> {
    let (accepted, connections) = mpsc::channel(1);
    let permits = Arc::new(Semaphore::new(most.all));
    let peers = Places::new(most.of_peer);
    tokio::spawn(async move {
        let accept_all = async {
            while let Ok(permit) = permits.clone().acquire_owned().await {
                let (stream, peer) = match listener.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let Some(of_peer) = peers.take(peer.ip()) else {
                    tracing::debug!(%peer, most.of_peer, "has its connections already");
                    continue;
                };
                // Scores are small and wanted at once.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot set TCP_NODELAY");
                }
                // A peer that has vanished holds its place no longer than the system looks for it.
                if let Err(error) = set_socket_keepalive(&stream, true)
                    .and_then(|()| set_tcp_keepidle(&stream, KEEPALIVE_IDLE))
                {
                    tracing::debug!(%error, "cannot set SO_KEEPALIVE");
                }
                if accepted.is_closed() {
                    return;
                }
                // Whoever shakes hands slowly holds nobody up.
                let (security, accepted) = (security.clone(), accepted.clone());
                tokio::spawn(async move {
                    let stream = shaken(&security, stream, first_byte).await?;
                    let connection = Connection {
                        stream,
                        silence: Some(Box::pin(time::sleep(first_byte))),
                        came: 0,
                        _places: (permit, of_peer),
                    };
                    accepted.send(Ok(connection)).await.ok()
                });
            }
        };
        tokio::select! {
            () = closing.cancelled() => {}
            () = accept_all => {}
        }
    });
    ReceiverStream::new(connections)
}

async fn shaken(security: &Security, socket: TcpStream, most: Duration) -> Option<ServerStream> {
    match time::timeout(most, security.accept(socket)).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => tracing::debug!(%error, "no TLS handshake"),
        Err(_) => tracing::debug!("no TLS handshake in time"),
    }
    handshake_failed();
    None
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.tcp().connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            // A part of HTTP/2's first line is waited for without any time.
            self.came += buf.filled().len().saturating_sub(before);
            if self.came >= HTTP2_PREFACE_BYTES {
                self.silence = None;
            }
        } else if let Some(silence) = &mut self.silence
            && silence.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_stream::StreamExt as _;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn most(all: usize) -> Most {
        Most { all, of_peer: all }
    }

    async fn listener() -> (TcpListener, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// Neither TLS nor tokens.
    fn open() -> Security {
        let environment = crate::config::Environment::default();
        let overrides = crate::config::Overrides::default();
        let settings = crate::config::Settings::from_layers(None, &environment, &overrides);
        Security::open(
            &settings.unwrap().server,
            crate::clock::SystemClock::shared(),
        )
        .unwrap()
    }

    #[tokio::test]
    async fn a_silent_connection_fails_and_one_that_spoke_may_be_silent() {
        let (listener, address) = listener().await;
        let silence = Duration::from_millis(100);
        let mut accepted = accept(listener, open(), most(2), silence, CancellationToken::new());
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut connection = accepted.next().await.unwrap().unwrap();
        let error = connection.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        // A part of HTTP/2's first line is nothing; for what comes after it HTTP has its own times.
        for (said, waits) in [
            ("P", false),
            ("PRI * HTTP/2.0", false),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", true),
        ] {
            let mut client = TcpStream::connect(address).await.unwrap();
            let mut connection = accepted.next().await.unwrap().unwrap();
            client.write_all(said.as_bytes()).await.unwrap();
            let mut heard = vec![0; said.len()];
            connection.read_exact(&mut heard).await.unwrap();
            let quiet = time::timeout(silence * 3, connection.read_u8()).await;
            assert_eq!(quiet.is_err(), waits, "{said:?}: {quiet:?}");
        }
    }

    #[tokio::test]
    async fn one_address_does_not_take_all_places() {
        let (listener, address) = listener().await;
        let most = Most { all: 3, of_peer: 2 };
        let mut accepted = accept(listener, open(), most, PATIENCE, CancellationToken::new());
        let mut of = async |from: &str| {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(from.parse().unwrap()).unwrap();
            let client = socket.connect(address).await.unwrap();
            let next = time::timeout(Duration::from_secs(1), accepted.next()).await;
            (client, next.ok().flatten())
        };
        let (_first, one) = of("127.0.0.1:0").await;
        let (_second, two) = of("127.0.0.1:0").await;
        assert!(one.is_some() && two.is_some());
        let (mut third, refused) = of("127.0.0.1:0").await;
        assert!(refused.is_none());
        assert_eq!(third.read(&mut [0]).await.unwrap_or(0), 0, "it is closed");
        assert!(of("127.0.0.2:0").await.1.is_some(), "others come in");
        drop(one);
        assert!(of("127.0.0.1:0").await.1.is_some(), "a place is free again");
    }

    #[tokio::test]
    async fn connections_are_counted_and_closing_closes_the_listener() {
        let (listener, address) = listener().await;
        let closing = CancellationToken::new();
        let mut accepted = accept(listener, open(), most(1), PATIENCE, closing.clone());
        let _first = TcpStream::connect(address).await.unwrap();
        let connection = accepted.next().await.unwrap().unwrap();
        let _second = TcpStream::connect(address).await.unwrap(); // in the backlog
        let waits = time::timeout(Duration::from_millis(100), accepted.next()).await;
        assert!(waits.is_err());
        drop(connection);
        let connection = time::timeout(PATIENCE, accepted.next()).await.unwrap();
        assert!(connection.unwrap().is_ok());
        closing.cancel();
        assert!(
            time::timeout(PATIENCE, accepted.next())
                .await
                .unwrap()
                .is_none()
        );
        assert!(TcpStream::connect(address).await.is_err());
    }
}
