//! Traces by OTLP: a span per call, per segment and per stage of a segment.
//!
//! ```text
//! call, segment, stages ─▶ bounded queue of spans ─▶ one task ─▶ batches ─▶ collector (OTLP/gRPC)
//! ```
//!
//! Whoever has spans never waits: what finds no room in the queue is counted and gone, and the collector
//! may be slow, wrong or away. A segment's spans go together or not at all. Where a call is not traced there
//! is no [`Call`], so nothing is noted down for it.

mod call;
mod context;
mod export;
mod headers;
mod otlp;
mod stages;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use metrics::{counter, describe_counter};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::sync::mpsc;

pub use call::{Call, RunningCall, TracedSegment};
pub use context::{Parent, SpanId, TraceId};
pub use export::{Exporter, check, start};
pub use headers::Headers;
pub use stages::{StageTime, Stages};

use super::metrics::Label;

/// Spans by what became of them.
pub const SPANS: &str = "headhunt_spans_total";

/// What became of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpanOutcome {
    /// The collector took it.
    Exported,
    /// There was no room in the queue.
    Dropped,
    /// The collector could not be reached or refused it.
    Failed,
}

impl Label for SpanOutcome {
    const NAME: &'static str = "outcome";
    fn value(self) -> &'static str {
        match self {
            SpanOutcome::Exported => "exported",
            SpanOutcome::Dropped => "dropped",
            SpanOutcome::Failed => "failed",
        }
    }
}

fn count(outcome: SpanOutcome, spans: usize) {
    counter!(SPANS, SpanOutcome::NAME => outcome.value()).increment(spans as u64);
}

/// Names what this room counts, for `/metrics`.
pub(super) fn describe() {
    describe_counter!(
        SPANS,
        "Spans of traces, by what became of them: exported, dropped (no room in the queue), failed"
    );
    // From 0 on, so that the first one is an increase.
    for outcome in [
        SpanOutcome::Exported,
        SpanOutcome::Dropped,
        SpanOutcome::Failed,
    ] {
        count(outcome, 0);
    }
}

/// Where spans go and which are made.
pub struct Options {
    /// The collector: `http://…` or `https://…`, OTLP/gRPC.
    pub endpoint: String,
    /// Authorities of its certificate, PEM; `None`: those that the machine trusts.
    pub ca: Option<Vec<u8>>,
    /// Part of the calls without a parent that are traced, 0 to 1. A parent decides for its own.
    pub sample_ratio: f64,
    /// Spans that may wait.
    pub queue_spans: usize,
    /// Longest wait for a connection, and for the collector's answer.
    pub timeout: Duration,
    /// Metadata of every export.
    pub headers: Headers,
}

/// The way to begin a trace; cheap to clone. By default none is begun.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Shared>>);

struct Shared {
    queue: mpsc::Sender<Span>,
    sample_ratio: f64,
    clock: WallClock,
}

impl Traces {
    fn new(queue: mpsc::Sender<Span>, sample_ratio: f64) -> Traces {
        Traces(Some(Arc::new(Shared {
            queue,
            sample_ratio,
            clock: WallClock::new(),
        })))
    }

    /// A call of `method` (`package.Service/Method`) that begins now. `None` where it is not to be traced.
    pub fn begin(&self, method: &'static str, parent: Option<Parent>) -> Option<RunningCall> {
        let shared = self.0.as_ref()?;
        let trace = parent
            .as_ref()
            .map_or_else(TraceId::random, |parent| parent.trace);
        is_sampled(shared.sample_ratio, parent.as_ref(), trace)
            .then(|| RunningCall::begin(shared.clone(), method, trace, parent))
    }
}

/// As OpenTelemetry's `ParentBased(TraceIdRatioBased)`, so that services which see the same trace without
/// a parent choose alike.
fn is_sampled(ratio: f64, parent: Option<&Parent>, trace: TraceId) -> bool {
    const ALL: f64 = (1u64 << 63) as f64;
    match parent {
        Some(parent) => parent.sampled,
        // A number of 63 bits is no f64: the largest would round up to the bound.
        None => ratio >= 1.0 || (trace.low() >> 1) < (ratio * ALL) as u64,
    }
}

impl Shared {
    /// Queues these spans, all or none.
    fn give(&self, spans: Vec<Span>) {
        match self.queue.try_reserve_many(spans.len()) {
            Ok(places) => {
                for (place, span) in places.zip(spans) {
                    place.send(span);
                }
            }
            // Full, or ended by the shutdown.
            Err(_) => count(SpanOutcome::Dropped, spans.len()),
        }
    }
}

/// The time of day of moments on the monotone clock, so that spans lie in one another as their moments do
/// although somebody corrects the machine's time.
struct WallClock(Mutex<(Instant, SystemTime)>);

impl WallClock {
    /// Further than this from the machine's time, its time was set.
    const SET: Duration = Duration::from_millis(100);

    fn new() -> WallClock {
        WallClock(Mutex::new((Instant::now(), SystemTime::now())))
    }

    /// Follows the machine's time where that was set.
    fn follow(&self) {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let ours = self.wall(now);
        let off = ours.duration_since(wall).unwrap_or_else(|e| e.duration());
        if off > Self::SET {
            *self.lock() = (now, wall);
        }
    }

    /// Nanoseconds since 1970.
    fn nanos(&self, at: Instant) -> u64 {
        let since = self.wall(at).duration_since(UNIX_EPOCH);
        since.map_or(0, |since| {
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        })
    }

    fn wall(&self, at: Instant) -> SystemTime {
        let (moment, wall) = *self.lock();
        let moved = match at.checked_duration_since(moment) {
            Some(later) => wall.checked_add(later),
            None => wall.checked_sub(moment.duration_since(at)),
        };
        moved.unwrap_or(wall)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Instant, SystemTime)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
