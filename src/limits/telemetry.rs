//! Of metrics, traces and memory.

use std::time::Duration;

// --- metrics

/// Longest name of a camera in metrics, characters; what is longer is cut.
pub const CAMERA_LABEL_MAX_CHARS: usize = 256;

/// Connections to the exporter at the same time: a few scrapers and probes.
pub const METRICS_CONNECTIONS_MAX: usize = 32;

/// Of these, connections from one address (IPv6: one /64), so that nobody keeps scrapers and the
/// system's probes out alone.
pub const METRICS_CONNECTIONS_PER_ADDRESS_MAX: usize = 8;

/// How long a connection to the exporter may last: Prometheus keeps one for its scrapes, and opens
/// another where it was closed.
pub const METRICS_CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);

/// Head of a request to the exporter, bytes.
pub const METRICS_REQUEST_MAX_BYTES: usize = 16 << 10;

/// Pause after a connection to the exporter could not be accepted: too many open files pass.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);

// --- memory

/// Arenas that the allocator may have. Two cost no time that can be measured, since few threads allocate
/// at the same time, and memory that one thread freed is used again by the next.
pub const ALLOCATOR_ARENAS: i32 = 2;

/// Blocks up to this size, bytes, and as much at the end of an arena, are kept by a decoder process for the
/// next picture: the most that glibc takes.
pub const ALLOCATOR_REUSED_BYTES: i32 = 32 << 20;

/// Time between two searches for free pages that go back to the system.
pub const MEMORY_TRIM_PERIOD: Duration = Duration::from_secs(30);

// --- traces

/// Default for the spans that may wait for the collector: 7 a segment, so a minute of twenty busy cameras.
/// Some 700 bytes each.
pub const TRACE_QUEUE_SPANS: usize = 8192;

/// Fewest and most that an operator may set for the above: the spans of one segment fit into the one, the
/// other takes some 200 MB.
pub const TRACE_QUEUE_MIN_SPANS: usize = 64;
/// See [`TRACE_QUEUE_MIN_SPANS`].
pub const TRACE_QUEUE_MAX_SPANS: usize = 1 << 18;

/// Spans of one export: some 300 KB on the wire, where collectors take 4 MiB.
pub const TRACE_BATCH_SPANS: usize = 512;

/// Longest wait of a span for a batch to fill.
pub const TRACE_BATCH_WAIT: Duration = Duration::from_secs(1);

/// How often a batch is sent before it is given up.
pub const TRACE_ATTEMPTS: u32 = 3;

/// Wait before the second attempt; it doubles with each. The queue takes what comes meanwhile.
pub const TRACE_RETRY_WAIT: Duration = Duration::from_secs(1);

/// Longest wait at the shutdown for the collector to take what still waits.
pub const TRACE_FLUSH: Duration = Duration::from_secs(3);

/// Stages that are kept of one segment: a batch of 64 that fails is halved six times and then taken apart.
pub const TRACE_STAGES_MAX: usize = 16;

/// `tracestate` of a caller, bytes: what the standard says must be passed on at least.
pub const TRACE_STATE_MAX_BYTES: usize = 512;

/// Error message in a span, bytes.
pub const TRACE_MESSAGE_MAX_BYTES: usize = 1024;

/// Metadata lines in `traces.headers_file`.
pub const TRACE_HEADERS_MAX: usize = 32;
