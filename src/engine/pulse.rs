//! Signs of life: heartbeat, throughput, panics in a row.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::{limits, telemetry::metrics};

/// Weight of the newest pass in the moving average of seconds per segment: about the last ten
/// passes count.
const NEWEST: f64 = 0.2;

/// How the engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// The warm-up pass runs.
    WarmingUp,
    /// It answers.
    Serving,
    /// It does not answer, or only with failures; why.
    Unhealthy(String),
    /// It will not answer again; why.
    Stopped(String),
}

pub(super) struct Pulse {
    epoch: Instant,
    beat_micros: AtomicU64,
    /// Bits of an f64; 0 before the first pass.
    seconds_per_segment: AtomicU64,
    panics_in_a_row: AtomicU32,
}

impl Pulse {
    pub fn new() -> Self {
        Pulse {
            epoch: Instant::now(),
            beat_micros: AtomicU64::new(0),
            seconds_per_segment: AtomicU64::new(0f64.to_bits()),
            panics_in_a_row: AtomicU32::new(0),
        }
    }

    pub fn beat(&self) {
        let micros = u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.beat_micros.store(micros, Relaxed);
    }

    pub fn last_beat(&self) -> Instant {
        self.epoch + Duration::from_micros(self.beat_micros.load(Relaxed))
    }

    /// A pass over `segments` went well.
    pub fn passed(&self, segments: usize, took: Duration) {
        self.panics_in_a_row.store(0, Relaxed);
        let now = took.as_secs_f64() / segments.max(1) as f64;
        let before = self.seconds_per_segment();
        let average = if before > 0.0 {
            before + NEWEST * (now - before)
        } else {
            now
        };
        self.seconds_per_segment.store(average.to_bits(), Relaxed);
        metrics::segments_per_second(self.segments_per_second());
    }

    pub fn panicked(&self) {
        self.panics_in_a_row.fetch_add(1, Relaxed);
        metrics::probe_panic();
    }

    pub fn seconds_per_segment(&self) -> f64 {
        f64::from_bits(self.seconds_per_segment.load(Relaxed))
    }

    /// 0 before the first pass.
    pub fn segments_per_second(&self) -> f64 {
        let seconds = self.seconds_per_segment();
        if seconds > 0.0 { 1.0 / seconds } else { 0.0 }
    }

    /// Why the engine is unhealthy, if it is.
    pub fn ailment(&self, stall_after: Duration, max_batch: usize) -> Option<String> {
        let panics = self.panics_in_a_row.load(Relaxed);
        if panics >= limits::PROBE_PANICS_MAX {
            return Some(format!("the model panicked in its last {panics} passes"));
        }
        let ten_passes =
            Duration::try_from_secs_f64(10.0 * self.seconds_per_segment() * max_batch as f64)
                .unwrap_or(Duration::MAX);
        let silent = self.last_beat().elapsed();
        (silent > stall_after.max(ten_passes)).then(|| {
            format!(
                "no heartbeat from the model's thread for {} s",
                silent.as_secs()
            )
        })
    }
}
