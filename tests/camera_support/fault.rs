//! What can go wrong between a camera and its client.

use std::net::SocketAddr;

/// A fault of a [`super::FaultProxy`]. All but the first eight act on RTP packets that are
/// interleaved with RTSP: over UDP packets go past the proxy, and TLS it cannot read.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Nobody listens: connections are refused, open ones are reset.
    Refuse,
    /// Connections are reset: open ones now, new ones as soon as they are made.
    Reset,
    /// Connections end in an orderly way: open ones now, new ones as soon as they are made.
    Eos,
    /// Nothing is read or written; sockets stay. After `clear` everything goes on.
    HalfOpen,
    /// The camera's bytes come at so many per second.
    SlowDrip(u32),
    /// New connections lead to another camera.
    SwitchTo(SocketAddr),
    /// DESCRIBE gets this status; everything else goes through.
    Answer(u16),
    /// No RTP packet goes through; RTSP and RTCP do.
    Silence,
    /// The next RTP packet is replaced by an RTCP BYE and nothing interleaved follows, even after
    /// `clear`; the connection stays.
    Bye,
    /// Each RTP packet is lost with this probability.
    LoseInterleaved { probability: f64, seed: u64 },
    /// In each RTP payload one bit is turned over with this probability.
    BitFlip { probability: f64, seed: u64 },
    /// So many RTP packets of a connection have random bytes behind the codec's own payload header.
    Garbage { packets: u32, seed: u64 },
    /// RTP timestamps step by so many seconds, once. A connection keeps it after `clear`.
    TimestampStep(i32),
    /// RTP timestamps go on from 0. A connection keeps it after `clear`.
    TimestampRestart,
    /// RTP timestamps go on from half a second before their wrap. A connection keeps it after
    /// `clear`.
    TimestampNearWrap,
}
