//! RTSP: a camera's address to the RTP packets of its video track. Sockets and text, no decoding.
//!
//! The client is our own because of what has to be known and decided here: which address a name led
//! to before anything is sent to it (also after a redirect), whose certificate is believed, and how
//! exactly a camera failed. Messages, session descriptions, digests and TLS come from libraries.

mod address;
mod auth;
mod connection;
mod dial;
mod dialogue;
mod failure;
mod open;
mod receiver;
mod rtcp;
mod rtp;
mod sdp;
mod sequence;
mod session;
mod stream;
mod tls;
mod transport;
mod udp;
mod wire;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use crate::clock::Clock;

pub use self::{address::Url, session::Session};

/// How RTP packets travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Interleaved with RTSP on its TCP connection.
    #[default]
    Tcp,
    /// UDP datagrams from the camera to a port of ours.
    Udp,
}

/// Which certificates of an `rtsps` camera are believed.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those that the machine's authorities have signed for the camera's name.
    #[default]
    System,
    /// Those that these authorities have signed for the camera's name; PEM.
    Authorities(Vec<u8>),
    /// The one with this SHA-256 of its DER form, whatever it says.
    Fingerprint([u8; 32]),
    /// Any: who answers is not checked.
    Insecure,
}

/// How a camera is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// How packets travel.
    pub transport: Transport,
    /// Which certificates are believed; for `rtsps` alone.
    pub trust: Trust,
}

/// Says whether an address may be connected to. It is asked for the very address that the
/// connection then uses, after every name resolution and every redirect.
pub trait Vet: Send + Sync + 'static {
    /// `host` is as the URL has it. The error says why not, for people.
    fn vet(&self, host: &str, address: SocketAddr) -> Result<(), String>;
}

/// Lets everything pass.
#[derive(Debug)]
pub struct Anywhere;

impl Vet for Anywhere {
    fn vet(&self, _: &str, _: SocketAddr) -> Result<(), String> {
        Ok(())
    }
}

/// What all sessions have in common.
#[derive(Clone)]
pub struct Client {
    /// Waits run on it.
    pub clock: Arc<dyn Clock>,
    /// Where connections may go.
    pub vet: Arc<dyn Vet>,
    /// Longest wait for name resolution, for the TCP connection and for the TLS handshake, each.
    pub connect_timeout: Duration,
    /// Longest wait for the answer to a request.
    pub response_timeout: Duration,
    /// Longest time without an RTP packet.
    pub silence_timeout: Duration,
}

/// A codec whose packets can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// RFC 6184.
    H264,
    /// RFC 7798.
    H265,
    /// RFC 2435.
    Mjpeg,
}

/// The video track of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// Why a session could not begin or did not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The name has no address, or the resolver does not answer.
    Dns,
    /// The connection was refused, or there is no route.
    Refused,
    /// [`Vet`] said no.
    Forbidden,
    /// TLS failed: handshake, certificate, name.
    Tls,
    /// 401 or 403 with the credentials that were given, or without any.
    Unauthorized,
    /// 404 or 410, or no such stream.
    NotFound,
    /// No video track of a codec that can be taken.
    UnsupportedCodec,
    /// The connection or an answer took too long.
    Timeout,
    /// The connection broke.
    Reset,
    /// No packet for too long.
    Silence,
    /// The camera ended the session in an orderly way: BYE, TEARDOWN, end of the connection.
    Ended,
    /// 5xx, 453, 503: the camera cannot now.
    Busy,
    /// What it said is no RTSP, SDP or RTP that we understand.
    Protocol,
}

/// Why a session could not begin or did not go on. Names no credentials and no query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What sort.
    pub kind: FailureKind,
    /// For people.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Trust::System => "System",
            Trust::Authorities(_) => "Authorities",
            Trust::Fingerprint(_) => "Fingerprint",
            Trust::Insecure => "Insecure",
        })
    }
}
