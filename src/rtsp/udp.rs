//! A pair of UDP ports for one track.

use std::{
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    task::{Context, Poll},
};

use prost::bytes::Bytes;
use rustix::net::sockopt::set_socket_recv_buffer_size;
use tokio::{io::ReadBuf, net::UdpSocket};

use super::{Failure, FailureKind};
use crate::limits;

/// What arrived.
pub(super) enum Datagram {
    Rtp(Bytes),
    Rtcp(Bytes),
    /// From someone else.
    Foreign,
}

/// Sockets on an even port for RTP and the next one for RTCP, and the camera at the other end.
pub(super) struct Ports {
    rtp: UdpSocket,
    rtcp: UdpSocket,
    /// The address that was judged and connected to.
    camera: SocketAddr,
    /// The camera's ports where it told them.
    theirs: Option<(u16, u16)>,
    /// Where a control packet came from, for cameras that did not tell.
    heard_control: Option<u16>,
    scratch: Box<[u8]>,
}

impl Ports {
    /// Binds on the address that the camera is reached from, so that nobody on another network can
    /// send here.
    pub async fn bind(local: SocketAddr, camera: SocketAddr) -> Result<Ports, Failure> {
        let mut last = None;
        for _ in 0..limits::UDP_PAIR_TRIES {
            match pair(local).await {
                Ok(Some((rtp, rtcp))) => {
                    return Ok(Ports {
                        rtp,
                        rtcp,
                        camera,
                        theirs: None,
                        heard_control: None,
                        scratch: vec![0; limits::RTP_PACKET_MAX_BYTES].into_boxed_slice(),
                    });
                }
                Ok(None) => {}
                Err(error) => last = Some(error),
            }
        }
        let why = last.map_or_else(|| "none is free".to_owned(), |e| e.to_string());
        Err(Failure::new(
            FailureKind::Refused,
            format!("this machine has no pair of UDP ports: {why}"),
        ))
    }

    /// The numbers of our ports.
    pub fn numbers(&self) -> io::Result<(u16, u16)> {
        Ok((
            self.rtp.local_addr()?.port(),
            self.rtcp.local_addr()?.port(),
        ))
    }

    /// Sets the camera's ports.
    pub fn agreed(&mut self, theirs: Option<(u16, u16)>) {
        self.theirs = theirs;
    }

    /// Sends something small to the camera's ports, so that a firewall between lets their packets
    /// through: an RTP header without payload, and a report. What cannot be sent is left out.
    pub fn punch(&self, report: &[u8]) {
        let Some((rtp, _)) = self.theirs else {
            return;
        };
        let nothing = [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let _ = self.rtp.try_send_to(&nothing, self.at(rtp));
        self.report(report);
    }

    /// Sends a report, or leaves it out where that is not possible now.
    pub fn report(&self, report: &[u8]) {
        if let Some(port) = self.theirs.map(|(_, rtcp)| rtcp).or(self.heard_control) {
            let _ = self.rtcp.try_send_to(report, self.at(port));
        }
    }

    fn at(&self, port: u16) -> SocketAddr {
        let mut address = self.camera;
        address.set_port(port);
        address
    }

    /// The next datagram. The wait may be dropped and begun again.
    pub async fn receive(&mut self) -> Result<Datagram, Failure> {
        poll_fn(|cx| self.poll(cx))
            .await
            .map_err(|e| Failure::new(FailureKind::Reset, format!("the UDP ports broke: {e}")))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Datagram>> {
        for control in [true, false] {
            let socket = if control { &self.rtcp } else { &self.rtp };
            let mut buffer = ReadBuf::new(&mut self.scratch);
            match socket.poll_recv_from(cx, &mut buffer) {
                Poll::Pending => {}
                Poll::Ready(Ok(from)) => {
                    let port = self
                        .theirs
                        .map(|(rtp, rtcp)| if control { rtcp } else { rtp });
                    if !same(from.ip(), self.camera.ip()) || port.is_some_and(|p| p != from.port())
                    {
                        return Poll::Ready(Ok(Datagram::Foreign));
                    }
                    let data = Bytes::copy_from_slice(buffer.filled());
                    return Poll::Ready(Ok(if control {
                        self.heard_control = Some(from.port());
                        Datagram::Rtcp(data)
                    } else {
                        Datagram::Rtp(data)
                    }));
                }
                // A port of the camera was closed when our packet came: its matter.
                Poll::Ready(Err(e))
                    if matches!(
                        e.kind(),
                        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
                    ) =>
                {
                    return Poll::Ready(Ok(Datagram::Foreign));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Pending
    }
}

fn same(a: IpAddr, b: IpAddr) -> bool {
    a.to_canonical() == b.to_canonical()
}

/// One attempt at an even port and its odd neighbour; `None` where the neighbour is taken.
async fn pair(local: SocketAddr) -> io::Result<Option<(UdpSocket, UdpSocket)>> {
    let on = async |port: u16| {
        let mut address = local;
        address.set_port(port);
        let socket = UdpSocket::bind(address).await?;
        // A key picture of 4K is some hundred packets at once; as much of it as the system allows.
        let _ = set_socket_recv_buffer_size(&socket, limits::RTP_UDP_BUFFER_BYTES);
        Ok::<_, io::Error>(socket)
    };
    let first = on(0).await?;
    let port = first.local_addr()?.port();
    let second = match on(port ^ 1).await {
        Ok(socket) => socket,
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        Err(e) => return Err(e),
    };
    Ok(Some(if port.is_multiple_of(2) {
        (first, second)
    } else {
        (second, first)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ports_are_an_even_one_and_the_next_in_the_family_of_the_camera() {
        for text in ["127.0.0.1:554", "[::1]:554"] {
            let address: SocketAddr = text.parse().unwrap();
            let Ok(ports) = Ports::bind(address, address).await else {
                assert!(address.is_ipv6(), "this machine may have no IPv6");
                continue;
            };
            let (rtp, rtcp) = ports.numbers().unwrap();
            assert_eq!((rtp % 2, rtcp), (0, rtp + 1));
            assert_eq!(ports.rtp.local_addr().unwrap().ip(), address.ip());
        }
    }
}
