//! The RTSP connection: bytes out, messages and packets in. Every wait here may be dropped and begun
//! again without losing a byte.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use prost::bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::{
    Failure,
    wire::{Framer, Incoming},
};
use crate::{
    limits,
    net::{Stream, broken},
};

pub(super) struct Connection {
    stream: Stream,
    framer: Framer,
    unsent: BytesMut,
    unflushed: bool,
    /// Why nothing more can be sent. What the peer sent before may still be read.
    unsendable: Option<io::Error>,
    scratch: Box<[u8]>,
    /// Whom we are connected to.
    pub peer: SocketAddr,
    /// Our own end.
    pub local: SocketAddr,
}

impl Connection {
    pub fn new(stream: Stream, peer: SocketAddr, local: SocketAddr) -> Self {
        Connection {
            stream,
            framer: Framer::default(),
            unsent: BytesMut::new(),
            unflushed: false,
            unsendable: None,
            scratch: vec![0; limits::RTSP_READ_BYTES].into_boxed_slice(),
            peer,
            local,
        }
    }

    /// Lays bytes out to be sent by the next `receive`. `false` where too many lie there already.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        let fits = self.unsent.len() + bytes.len() <= limits::RTSP_UNSENT_MAX_BYTES;
        if fits {
            self.unsent.extend_from_slice(bytes);
        }
        fits
    }

    /// The next thing that the peer sent; `None` at its orderly end. Sends on the way.
    pub async fn receive(&mut self) -> Result<Option<Incoming>, Failure> {
        loop {
            if let Some(incoming) = self.framer.take()? {
                return Ok(Some(incoming));
            }
            if poll_fn(|cx| self.poll(cx)).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Sends what can be sent without waiting.
    pub async fn send_now(&mut self) {
        poll_fn(|cx| {
            if let Err(error) = self.poll_send(cx) {
                self.unsendable = Some(error);
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Ready with the number of bytes that were read.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Failure>> {
        if self.unsendable.is_none()
            && let Err(error) = self.poll_send(cx)
        {
            // The peer's last words may explain it: read on.
            self.unsendable = Some(error);
        }
        let mut buffer = ReadBuf::new(&mut self.scratch);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) => {
                self.framer.buffer.extend_from_slice(buffer.filled());
                Poll::Ready(Ok(buffer.filled().len()))
            }
            // Cameras end TLS connections without saying so in TLS.
            Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(0)),
            Poll::Ready(Err(e)) => Poll::Ready(Err(broken(&e))),
            Poll::Pending => match &self.unsendable {
                Some(error) => Poll::Ready(Err(broken(error))),
                None => Poll::Pending,
            },
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.poll_send_all(cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    fn poll_send_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unsent))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.advance(sent);
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}
