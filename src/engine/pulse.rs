//! Signs of life: heartbeat, throughput, failures in a row.

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
    /// The same of passes as detections have them.
    seconds_per_detected: AtomicU64,
    panics_in_a_row: AtomicU32,
    /// Passes that the device or its memory failed, panics among them.
    failures_in_a_row: AtomicU32,
}

impl Pulse {
    pub fn new() -> Self {
        Pulse {
            epoch: Instant::now(),
            beat_micros: AtomicU64::new(0),
            seconds_per_segment: AtomicU64::new(0f64.to_bits()),
            seconds_per_detected: AtomicU64::new(0f64.to_bits()),
            panics_in_a_row: AtomicU32::new(0),
            failures_in_a_row: AtomicU32::new(0),
        }
    }

    pub fn beat(&self) {
        let micros = u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.beat_micros.store(micros, Relaxed);
    }

    pub fn last_beat(&self) -> Instant {
        self.epoch + Duration::from_micros(self.beat_micros.load(Relaxed))
    }

    /// A pass over `segments` went well. `detected`: it is one as detections have them; a hunt's, with every head
    /// and prompt, says nothing about how many cameras the model carries.
    pub fn passed(&self, segments: usize, took: Duration, detected: bool) {
        self.panics_in_a_row.store(0, Relaxed);
        self.failures_in_a_row.store(0, Relaxed);
        let now = took.as_secs_f64() / segments.max(1) as f64;
        let add = |to: &AtomicU64| {
            let before = f64::from_bits(to.load(Relaxed));
            let average = if before > 0.0 {
                before + NEWEST * (now - before)
            } else {
                now
            };
            to.store(average.to_bits(), Relaxed);
        };
        add(&self.seconds_per_segment);
        if detected {
            add(&self.seconds_per_detected);
            metrics::segments_per_second(self.segments_per_second());
        }
    }

    /// A segment takes so long, whatever was measured before; later passes are averaged with it.
    pub fn begin_with(&self, took: Duration) {
        for to in [&self.seconds_per_segment, &self.seconds_per_detected] {
            to.store(took.as_secs_f64().to_bits(), Relaxed);
        }
        metrics::segments_per_second(self.segments_per_second());
    }

    /// A pass over one segment failed, and not for that segment's sake.
    pub fn failed(&self) {
        self.failures_in_a_row.fetch_add(1, Relaxed);
    }

    pub fn panicked(&self) {
        self.panics_in_a_row.fetch_add(1, Relaxed);
        metrics::probe_panic();
    }

    fn seconds_per_segment(&self) -> f64 {
        f64::from_bits(self.seconds_per_segment.load(Relaxed))
    }

    /// Of detections; 0 before the first pass.
    pub fn segments_per_second(&self) -> f64 {
        let seconds = f64::from_bits(self.seconds_per_detected.load(Relaxed));
        if seconds > 0.0 { 1.0 / seconds } else { 0.0 }
    }

    /// How the model fails every pass, if it does.
    pub fn fails(&self) -> Option<String> {
        let panics = self.panics_in_a_row.load(Relaxed);
        if panics >= limits::PROBE_PANICS_MAX {
            return Some(format!("the model panicked in its last {panics} passes"));
        }
        let failures = self.failures_in_a_row.load(Relaxed);
        (failures >= limits::PROBE_FAILURES_MAX)
            .then(|| format!("the model failed in its last {failures} passes"))
    }

    /// Why the engine is unhealthy, if it is.
    pub fn ailment(&self, stall_after: Duration, max_batch: usize) -> Option<String> {
        if let Some(failures) = self.fails() {
            return Some(failures);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hunt_says_nothing_about_how_many_cameras_are_carried() {
        let pulse = Pulse::new();
        pulse.passed(1, Duration::from_millis(100), true);
        for _ in 0..100 {
            pulse.passed(1, Duration::from_secs(60), false);
        }
        assert!((pulse.segments_per_second() - 10.0).abs() < 1e-9);
        // But a pass of it may take that long before it counts as hung.
        assert!(pulse.seconds_per_segment() > 59.0);
    }
}
