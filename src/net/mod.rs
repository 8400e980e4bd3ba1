//! NET: a host and a port to a connection, with or without TLS. Which address a name led to is known
//! and judged before anything is sent to it, and the connection goes to exactly that one.

mod dial;
mod failure;
mod reach;
mod resolve;
mod rule;
mod server;
mod special;
mod stream;
mod tls;
mod url;

use std::{fmt, net::SocketAddr};

pub use self::url::{Schemes, Url};
pub use dial::{Dialed, Dialer, Target};
pub use reach::{Reach, Within};
pub use resolve::{Resolve, Resolving, SystemResolver};
pub use rule::Rule;
pub use server::{Clients, Identity, ServerStream, ServerTls};
pub use stream::Stream;
pub(crate) use {
    self::url::{Credentials, shown_path, strip},
    failure::broken,
};

/// Which certificates are believed.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those that the machine's authorities have signed for the host's name.
    #[default]
    System,
    /// Those that these authorities have signed for the host's name; PEM.
    Authorities(Vec<u8>),
    /// The one with this SHA-256 of its DER form, whatever it says.
    Fingerprint([u8; 32]),
    /// Any: who answers is not checked.
    Insecure,
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
