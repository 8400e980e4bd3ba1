//! What is measured of live sources: over all of them, and of each camera by name up to a configured
//! number. A camera's series go when it is no longer watched.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use super::{
    metrics::{GAP_REASONS, Label as _},
    present::{Family, Kind, Series},
};
use crate::{limits, media::GapReason};

/// From the arrival of a segment's newest frame to its score.
pub const FRAME_LAG_SECONDS: &str = "headhunt_frame_lag_seconds";
/// Interruptions of cameras, by what their gap is reported as.
pub const INTERRUPTIONS: &str = "headhunt_source_interruptions_total";
/// Attempts to connect to a camera that failed, by reason.
pub const ATTEMPTS_FAILED: &str = "headhunt_source_attempts_failed_total";
/// Cameras that were connected to again.
pub const RECONNECTS: &str = "headhunt_source_reconnects_total";
/// Cameras that are watched and have no series of their own.
pub const UNNAMED: &str = "headhunt_cameras_unnamed";

static CONNECTED: Family = Family {
    name: "headhunt_camera_connected",
    help: "Whether frames of the camera are there: 1, or 0 while it is interrupted or not yet open",
    kind: Kind::Gauge,
    label: "camera",
};
static LAG: Family = Family {
    name: "headhunt_camera_frame_lag_seconds",
    help: "From the arrival of the newest frame of the camera's newest final segment to its score",
    kind: Kind::Gauge,
    label: "camera",
};
static SCORED: Family = Family {
    name: "headhunt_camera_last_score_timestamp_seconds",
    help: "When the camera's newest score became final, Unix time; 0: none yet",
    kind: Kind::Gauge,
    label: "camera",
};
static INTERRUPTED: Family = Family {
    name: "headhunt_camera_interruptions_total",
    help: "Interruptions of the camera since it is watched",
    kind: Kind::Counter,
    label: "camera",
};
static SKIPPED: Family = Family {
    name: "headhunt_camera_gap_seconds_total",
    help: "Media time of the camera that has no scores",
    kind: Kind::Counter,
    label: "camera",
};

/// Names what this file counts, for `/metrics`.
pub(super) fn describe() {
    describe_histogram!(
        FRAME_LAG_SECONDS,
        Unit::Seconds,
        "From the arrival of a live segment's newest frame to its score"
    );
    describe_counter!(
        INTERRUPTIONS,
        "Interruptions of cameras, by what their gap is reported as"
    );
    describe_counter!(
        ATTEMPTS_FAILED,
        "Attempts to connect to a camera that failed, by reason"
    );
    describe_counter!(RECONNECTS, "Cameras that were connected to again");
    describe_gauge!(
        UNNAMED,
        "Cameras that are watched and have no series of their own: cameras.series_max is reached"
    );
    gauge!(UNNAMED).set(0.0);
    // From 0 on, so that the first one is an increase.
    counter!(RECONNECTS).increment(0);
    for reason in GAP_REASONS {
        let label = [(GapReason::NAME, reason.value())];
        counter!(INTERRUPTIONS, &label).increment(0);
        counter!(ATTEMPTS_FAILED, &label).increment(0);
    }
}

/// A live segment was scored so long after its newest frame had arrived.
pub fn frame_lag(lag: Duration) {
    histogram!(FRAME_LAG_SECONDS).record(lag.as_secs_f64());
}

/// Names that have series, with the number of streams that watch each.
static NAMED: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

fn named() -> MutexGuard<'static, BTreeMap<String, usize>> {
    NAMED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Named {
    name: String,
    connected: Series,
    lag: Series,
    scored: Series,
    interrupted: Series,
    skipped: Series,
}

/// One stream of a live source. Streams of the same camera share its series.
#[derive(Debug)]
pub struct Camera {
    named: Option<Named>,
    /// Whether an interruption has been told that is not over.
    interrupted: bool,
}

impl Camera {
    /// A camera that is watched from now on; `most` cameras have series of their own. `name` must be
    /// free of secrets.
    pub fn begin(name: &str, most: usize) -> Camera {
        let name: String = name.chars().take(limits::CAMERA_LABEL_MAX_CHARS).collect();
        let mut taken = named();
        let room = taken.contains_key(&name) || taken.len() < most;
        if !room {
            gauge!(UNNAMED).increment(1.0);
            return Camera {
                named: None,
                interrupted: false,
            };
        }
        *taken.entry(name.clone()).or_default() += 1;
        Camera {
            named: Some(Named {
                connected: Series::begin(&CONNECTED, &name),
                lag: Series::begin(&LAG, &name),
                scored: Series::begin(&SCORED, &name),
                interrupted: Series::begin(&INTERRUPTED, &name),
                skipped: Series::begin(&SKIPPED, &name),
                name,
            }),
            interrupted: false,
        }
    }

    /// Frames are there, at first or again.
    pub fn connected(&mut self) {
        if std::mem::take(&mut self.interrupted) {
            counter!(RECONNECTS).increment(1);
        }
        if let Some(named) = &self.named {
            named.connected.set(1.0);
        }
    }

    /// The connection was lost, or an attempt to have it back failed.
    pub fn interrupted(&mut self, reason: GapReason) {
        let label = [(GapReason::NAME, reason.value())];
        if std::mem::replace(&mut self.interrupted, true) {
            counter!(ATTEMPTS_FAILED, &label).increment(1);
            return;
        }
        counter!(INTERRUPTIONS, &label).increment(1);
        if let Some(named) = &self.named {
            named.connected.set(0.0);
            named.interrupted.add(1.0);
        }
    }

    /// A segment's score is final; it came so long after its newest frame.
    pub fn scored(&self, lag: Option<Duration>) {
        let Some(named) = &self.named else { return };
        if let Some(lag) = lag {
            named.lag.set(lag.as_secs_f64());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        named.scored.set(now.map_or(0.0, |now| now.as_secs_f64()));
    }

    /// So much media time has no scores.
    pub fn skipped(&self, span: Duration) {
        if let Some(named) = &self.named {
            named.skipped.add(span.as_secs_f64());
        }
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        let Some(gone) = &self.named else {
            gauge!(UNNAMED).decrement(1.0);
            return;
        };
        let mut taken = named();
        if let Some(streams) = taken.get_mut(&gone.name) {
            *streams -= 1;
            if *streams == 0 {
                taken.remove(&gone.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::present, *};

    fn of(camera: &str) -> Vec<String> {
        let mut text = String::new();
        present::render(&mut text);
        let label = format!("camera=\"{camera}\"");
        let ours = text.lines().filter(|line| line.contains(&label));
        ours.map(str::to_owned).collect()
    }

    #[test]
    fn cameras_up_to_the_limit_have_series_while_they_are_watched() {
        let mut yard = Camera::begin("rtsp://test/yard", 1);
        let same = Camera::begin("rtsp://test/yard", 1);
        let beyond = Camera::begin("rtsp://test/gate", 1);
        assert!(of("rtsp://test/gate").is_empty());
        yard.connected();
        yard.interrupted(GapReason::ConnectionLost);
        yard.interrupted(GapReason::Stalled);
        yard.skipped(Duration::from_millis(2500));
        yard.scored(Some(Duration::from_millis(750)));
        let series = of("rtsp://test/yard");
        assert_eq!(series.len(), 5, "{series:?}");
        let has = |line: &str| assert!(series.contains(&line.to_owned()), "{series:?}");
        has(r#"headhunt_camera_connected{camera="rtsp://test/yard"} 0"#);
        has(r#"headhunt_camera_interruptions_total{camera="rtsp://test/yard"} 1"#);
        has(r#"headhunt_camera_gap_seconds_total{camera="rtsp://test/yard"} 2.5"#);
        has(r#"headhunt_camera_frame_lag_seconds{camera="rtsp://test/yard"} 0.75"#);
        drop(yard);
        assert_eq!(of("rtsp://test/yard").len(), 5, "another stream watches it");
        drop(same);
        assert!(of("rtsp://test/yard").is_empty());
        drop(beyond);
        let now_there_is_room = Camera::begin("rtsp://test/gate", 1);
        assert_eq!(of("rtsp://test/gate").len(), 5);
        drop(now_there_is_room);
        let off = Camera::begin("rtsp://test/gate", 0);
        assert!(of("rtsp://test/gate").is_empty());
        drop(off);
    }
}
