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
    help: "Whether frames of the camera are there: 1, or 0 while a stream of it is interrupted or not yet open",
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
    help: "When the camera's newest score became final, Unix time, of several streams the oldest; before the first score when the stream began",
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

/// Names that have series, with the streams that watch each by their numbers.
static NAMED: Mutex<BTreeMap<String, BTreeMap<u64, State>>> = Mutex::new(BTreeMap::new());

fn watched() -> MutexGuard<'static, BTreeMap<String, BTreeMap<u64, State>>> {
    NAMED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a stream is.
#[derive(Clone, Copy, Debug)]
struct State {
    connected: bool,
    /// When it last had a score, or began; Unix time, seconds.
    scored: f64,
}

fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |now| now.as_secs_f64())
}

#[derive(Debug)]
struct Named {
    name: String,
    /// Of the stream.
    number: u64,
    connected: Series,
    lag: Series,
    scored: Series,
    interrupted: Series,
    skipped: Series,
}

impl Named {
    /// Notes down how this stream is, and shows what is worst of those of its name: two cameras that differ only in
    /// what is not shown of their URLs have one, and none of them may hide that the other is lost.
    fn is(&self, change: impl FnOnce(&mut State)) {
        let mut watched = watched();
        let Some(streams) = watched.get_mut(&self.name) else {
            return;
        };
        if let Some(state) = streams.get_mut(&self.number) {
            change(state);
        }
        self.show(streams);
    }

    fn show(&self, streams: &BTreeMap<u64, State>) {
        let connected = streams.values().all(|state| state.connected);
        self.connected.set(f64::from(u8::from(connected)));
        let oldest = streams.values().map(|state| state.scored);
        self.scored.set(oldest.fold(f64::INFINITY, f64::min));
    }
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
        let mut watched = watched();
        let room = watched.contains_key(&name) || watched.len() < most;
        if !room {
            gauge!(UNNAMED).increment(1.0);
            return Camera {
                named: None,
                interrupted: false,
            };
        }
        let streams = watched.entry(name.clone()).or_default();
        let number = streams.keys().last().map_or(0, |last| last + 1);
        let state = State {
            connected: false,
            scored: now(),
        };
        streams.insert(number, state);
        let named = Named {
            connected: Series::begin(&CONNECTED, &name),
            lag: Series::begin(&LAG, &name),
            scored: Series::begin(&SCORED, &name),
            interrupted: Series::begin(&INTERRUPTED, &name),
            skipped: Series::begin(&SKIPPED, &name),
            name,
            number,
        };
        named.show(streams);
        Camera {
            named: Some(named),
            interrupted: false,
        }
    }

    /// Frames are there, at first or again.
    pub fn connected(&mut self) {
        if std::mem::take(&mut self.interrupted) {
            counter!(RECONNECTS).increment(1);
        }
        if let Some(named) = &self.named {
            named.is(|state| state.connected = true);
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
            named.is(|state| state.connected = false);
            named.interrupted.add(1.0);
        }
    }

    /// A segment's score is final; it came so long after its newest frame.
    pub fn scored(&self, lag: Option<Duration>) {
        let Some(named) = &self.named else { return };
        if let Some(lag) = lag {
            named.lag.set(lag.as_secs_f64());
        }
        named.is(|state| state.scored = now());
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
        let mut watched = watched();
        if let Some(streams) = watched.get_mut(&gone.name) {
            streams.remove(&gone.number);
            if streams.is_empty() {
                watched.remove(&gone.name);
            } else {
                gone.show(streams);
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
        let mut same = Camera::begin("rtsp://test/yard", 1);
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
        // One that is well does not hide one that is not.
        same.connected();
        has(r#"headhunt_camera_connected{camera="rtsp://test/yard"} 0"#);
        drop(yard);
        let series = of("rtsp://test/yard");
        assert_eq!(series.len(), 5, "another stream watches it");
        assert!(
            series
                .contains(&r#"headhunt_camera_connected{camera="rtsp://test/yard"} 1"#.to_owned()),
            "{series:?}"
        );
        // It had no score: since it began.
        let began = series.iter().find_map(|line| {
            line.strip_prefix(
                r#"headhunt_camera_last_score_timestamp_seconds{camera="rtsp://test/yard"} "#,
            )
        });
        let ago = now() - began.unwrap().parse::<f64>().unwrap();
        assert!((0.0..60.0).contains(&ago), "{ago}");
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
