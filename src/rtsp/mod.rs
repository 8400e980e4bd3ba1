//! RTSP: a camera's address to the RTP packets of its video track. Sockets and text, no decoding.
//!
//! The client is our own because of what has to be known and decided here: which address a name led
//! to before anything is sent to it (also after a redirect; see [`net`]) and how exactly a
//! camera failed. Messages, session descriptions, digests and TLS come from libraries.

mod auth;
mod connection;
mod dialogue;
mod open;
mod receiver;
mod rtcp;
mod rtp;
mod sdp;
mod sequence;
mod session;
mod transport;
mod udp;
mod wire;

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    clock::Clock,
    net::{self, Dialer, Schemes},
};

pub use self::session::Session;
pub use crate::net::{Anywhere, Failure, FailureKind, SystemResolver, Trust, Vet};

/// How RTP packets travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// [`Transport::Tcp`], or [`Transport::Udp`] where an `rtsp` camera says that it does not do that (461).
    #[default]
    Either,
    /// Interleaved with RTSP on its TCP connection.
    Tcp,
    /// UDP datagrams from the camera to a port of ours.
    Udp,
}

/// How a camera is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// How packets travel.
    pub transport: Transport,
    /// Which certificates are believed; for `rtsps` alone.
    pub trust: Trust,
}

/// What all sessions have in common.
#[derive(Clone)]
pub struct Client {
    /// Waits run on it.
    pub clock: Arc<dyn Clock>,
    /// Turns names into addresses.
    pub resolver: Arc<dyn net::Resolve>,
    /// Where connections may go.
    pub vet: Arc<dyn Vet>,
    /// Longest wait for name resolution, for the TCP connection and for the TLS handshake, each.
    pub connect_timeout: Duration,
    /// Longest wait for the answer to a request.
    pub response_timeout: Duration,
    /// Longest time without an RTP packet.
    pub silence_timeout: Duration,
}

impl Client {
    fn dialer(&self) -> Dialer {
        Dialer {
            clock: self.clock.clone(),
            resolver: self.resolver.clone(),
            vet: self.vet.clone(),
            connect_timeout: self.connect_timeout,
        }
    }
}

/// The schemes `rtsp` and `rtsps`.
#[derive(Debug)]
pub enum Rtsp {}

impl Schemes for Rtsp {
    const OWNER: &'static str = "camera";
    const PLAIN_AND_TLS: [(&'static str, u16); 2] = [("rtsp", 554), ("rtsps", 322)];
    const RELATIVE_REDIRECTS: bool = false;
    // A recorder sends its viewers from one of its ports to another. It only hears the password where it asks for it.
    const ONE_DEVICE: bool = true;
}

/// A camera's address; the default ports are 554 and 322.
pub type Url = net::Url<Rtsp>;

/// A codec whose packets can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Codec {
    /// RFC 6184.
    H264,
    /// RFC 7798.
    H265,
    /// RFC 2435.
    Mjpeg,
}

/// The video track of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Track {
    /// Its codec.
    pub codec: Codec,
    /// RTP payload type.
    pub payload_type: u8,
    /// Ticks of an RTP timestamp per second, at least 1.
    pub clock_rate: u32,
    /// Format parameters of the session description (`a=fmtp`), names in lower case.
    pub parameters: Vec<(String, String)>,
}

/// An RTP packet of the track, in the order of sequence numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The whole packet, header included.
    pub data: prost::bytes::Bytes,
    /// RTP timestamp without its wraps: ticks on a line that begins at the first packet's own value.
    pub ticks: i64,
    /// Packets that are missing before this one.
    pub lost: u32,
    /// When it arrived, on the client's clock.
    pub arrived: Duration,
}

#[cfg(test)]
mod url_tests;
