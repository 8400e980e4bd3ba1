//! Of calls, their clients and the pages for people.

use std::time::Duration;

// --- rpc

/// What RESOURCE_EXHAUSTED and UNAVAILABLE advise a client to wait: about one segment on a GPU, and
/// long enough that 4096 refused clients do not load the server.
pub const RETRY_DELAY: Duration = Duration::from_secs(2);

/// Chunks of an upload that wait for the decoder, at most: bounds the bookkeeping of 1-byte chunks,
/// whose bytes the buffer limit would hardly count.
pub const UPLOAD_QUEUE_CHUNKS: usize = 1024;

/// Small chunks are handed to the decoder together up to this size, bytes: a wake-up per byte would
/// dominate the decoding.
pub const UPLOAD_COALESCE_BYTES: usize = 64 << 10;

/// Events between a detection and its response queue: the response queue is the bound that an
/// operator sets, this one only decouples two tasks.
pub const EVENT_QUEUE: usize = 4;

/// Label of an upload, bytes: a file name (255) and a little more.
pub const UPLOAD_NAME_MAX_BYTES: usize = 256;

/// Name of a profile in a request, bytes.
pub const PROFILE_NAME_MAX_BYTES: usize = 64;

/// URI of a source in a request, bytes.
pub const URI_MAX_BYTES: usize = 2048;

/// How long an ended detection's decoder and pending forward pass may take to notice; then its slot
/// is freed regardless. A forward pass that runs is not interrupted: it belongs to the engine.
pub const WIND_DOWN: Duration = Duration::from_secs(10);

/// How often the engine's sign of life is looked at for grpc.health.v1.
pub const HEALTH_PERIOD: Duration = Duration::from_millis(250);

/// After the shutdown's grace: how long connections may take to deliver the final statuses.
pub const DRAIN: Duration = Duration::from_secs(5);

/// TCP connections at the same time; one more waits in the kernel's backlog.
pub const CONNECTIONS_MAX: usize = 4096;

/// Of these, connections from one address (IPv6: one /64): whoever opens more is cut off, so that a peer
/// without credentials cannot keep the others out. Behind a balancer one connection carries many calls.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 1024;

/// Open files that the server asks the system for, if it may have so many: the connections above, and for
/// a stream its source, its decoder and their memory. The usual soft limit of 1,024 is less.
pub const OPEN_FILES: u64 = 16_384;

/// How long a new connection may say nothing: its place is one of those above. A client speaks at
/// once; HTTP/2 pings and HTTP/1 header timeouts take over from its first byte.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(20);

/// HTTP header block of a request, bytes: gRPC metadata is small.
pub const HEADERS_MAX_BYTES: u32 = 16 << 10;

// --- rpc: live

/// PEM certificates of a request's own authorities for a camera, bytes.
pub const TLS_AUTHORITIES_MAX_BYTES: usize = 64 << 10;

// --- web

/// Redirects that are followed for one file: a shortener, a balancer, a mirror.
pub const WEB_REDIRECTS_MAX: usize = 5;

/// Head of an answer, bytes, and with it what hyper reads ahead of the decoder.
pub const WEB_HEAD_MAX_BYTES: usize = 256 << 10;

// --- access

/// A file with a certificate, a key, authorities or tokens, bytes: a token takes some 200.
pub const SECRET_FILE_MAX_BYTES: u64 = 1 << 20;

/// Tokens in a file: each request is compared with all of them.
pub const TOKENS_MAX: usize = 1024;

/// Name of a token, bytes.
pub const TOKEN_NAME_MAX_BYTES: usize = 64;

/// A bearer token in a request, bytes; ours have 67.
pub const TOKEN_MAX_BYTES: usize = 512;

/// Longest message to the health and reflection services, bytes. Anybody may send the first, and a message is held in memory
/// before it has been looked at.
pub const PROBE_MESSAGE_MAX_BYTES: usize = 4 << 10;
