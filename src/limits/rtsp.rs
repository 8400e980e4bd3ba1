//! Of RTSP and RTP.

use std::time::Duration;

use super::URI_MAX_BYTES;

/// What the system is asked to keep of a camera's UDP packets until they are read, bytes: two seconds of
/// 16 Mbit/s. It may give less (net.core.rmem_max).
pub const RTP_UDP_BUFFER_BYTES: usize = 4 << 20;

/// Largest head of an RTSP message, bytes: real ones have under 2 kB.
pub const RTSP_HEAD_MAX_BYTES: usize = 16 << 10;

/// Largest body of an RTSP message, bytes. A session description has some kB.
pub const RTSP_BODY_MAX_BYTES: usize = 256 << 10;

/// Room for one read from a camera's connection, bytes: some twenty packets of video.
pub const RTSP_READ_BYTES: usize = 32 << 10;

/// Requests and reports that a camera has not taken yet, bytes. Past it reports are left out and
/// requests fail: who reads nothing of 64 kB does not listen.
pub const RTSP_UNSENT_MAX_BYTES: usize = 64 << 10;

/// Redirects that are followed for one session.
pub const RTSP_REDIRECTS_MAX: usize = 3;

/// Addresses of one name that are tried.
pub const ADDRESSES_MAX: usize = 8;

/// When a camera forgets a session without a sign of life, unless it says otherwise (RFC 2326,
/// 12.37).
pub const RTSP_SESSION_TIMEOUT: Duration = Duration::from_secs(60);

/// Shortest and longest time between signs of life. The lower one keeps a camera that claims a
/// timeout of one second from being asked all the time.
pub const RTSP_KEEPALIVE_MIN: Duration = Duration::from_secs(1);
/// See [`RTSP_KEEPALIVE_MIN`].
pub const RTSP_KEEPALIVE_MAX: Duration = Duration::from_secs(600);

/// Longest wait for a camera's farewell.
pub const RTSP_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Packets that may arrive before the answer to PLAY: half a second of a 4K camera.
pub const RTSP_EARLY_PACKETS: usize = 1024;

/// The same in bytes.
pub const RTSP_EARLY_BYTES: usize = 4 << 20;

/// What may arrive after the silence timeout without a packet of the track among it, messages or
/// datagrams. It ends a session whose peer keeps talking, just not about the video.
pub const RTSP_FRUITLESS_MAX: u32 = 4096;

/// Second look before a camera counts as silent: packets may wait in the kernel because nobody
/// asked for them.
pub const RTSP_SILENCE_RECHECK: Duration = Duration::from_millis(50);

/// Control attributes of a session description, bytes each: URIs, or their last parts.
pub const RTSP_CONTROL_MAX_BYTES: usize = URI_MAX_BYTES;

/// Largest UDP datagram, bytes, and with it the largest RTP packet.
pub const RTP_PACKET_MAX_BYTES: usize = 65_535;

/// Packets that wait for an earlier one that is missing. Networks reorder by a handful; this is
/// the burst of one picture.
pub const RTP_REORDER_PACKETS: usize = 64;

/// Longest that a packet waits for an earlier one.
pub const RTP_REORDER_WAIT: Duration = Duration::from_millis(200);

/// A step of the sequence number beyond this is a new beginning, not a loss (RFC 3550, A.1).
pub const RTP_SEQUENCE_JUMP: i64 = 3000;

/// How far two packets may lie apart that together confirm a new beginning over UDP.
pub const RTP_RESTART_SPREAD: u16 = 16;

/// Time between receiver reports: RFC 3550's minimum.
pub const RTCP_REPORT_PERIOD: Duration = Duration::from_secs(5);

/// Attempts to find two free neighbouring UDP ports.
pub const UDP_PAIR_TRIES: usize = 64;
