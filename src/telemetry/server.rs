//! What the gRPC server counts.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use metrics::{
    Gauge, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use super::metrics::Label;
use crate::limits::PROFILE_SERIES_MAX;

/// RPCs that ended, by method and gRPC code.
pub const RPCS: &str = "headhunt_rpcs_total";
/// Detections that are running, by `state`.
pub const STREAMS: &str = "headhunt_streams";
/// Most detections that may run.
pub const STREAMS_LIMIT: &str = "headhunt_streams_limit";
/// Segments per second that the running cameras need.
pub const LIVE_SEGMENTS_PER_SECOND: &str = "headhunt_live_segments_per_second";
/// Whether grpc.health.v1 says SERVING.
pub const SERVING: &str = "headhunt_serving";
/// Bytes of uploads that were received.
pub const UPLOAD_BYTES: &str = "headhunt_upload_bytes_total";
/// Provisional responses that a slow reader did not get.
pub const RESPONSES_DROPPED: &str = "headhunt_responses_dropped_total";
/// Which version of which profile is active: 1 for that one, 0 for those before it.
pub const PROFILE_INFO: &str = "headhunt_profile_info";
/// How long detections lasted.
pub const STREAM_SECONDS: &str = "headhunt_stream_duration_seconds";

/// Files of certificates and tokens that were read again, by what they are and whether they could be used.
pub const RELOADS: &str = "headhunt_reloads_total";
/// Calls and scrapes without valid credentials, by reason.
pub const CREDENTIALS_REFUSED: &str = "headhunt_credentials_refused_total";
/// Connections that ended before their TLS handshake did.
pub const HANDSHAKES_FAILED: &str = "headhunt_tls_handshakes_failed_total";

/// Names what this file counts, for `/metrics`.
pub(super) fn describe() {
    describe_counter!(RPCS, "RPCs that ended, by method and gRPC code");
    describe_gauge!(
        STREAMS,
        "Detections by state: opening, scoring, interrupted (a camera that is away)"
    );
    describe_gauge!(STREAMS_LIMIT, "Most detections that may run");
    describe_gauge!(
        LIVE_SEGMENTS_PER_SECOND,
        "Segments per second that the running cameras need; compare headhunt_segments_per_second"
    );
    describe_gauge!(SERVING, "Whether grpc.health.v1 says SERVING: 1 or 0");
    for state in [
        StreamState::Opening,
        StreamState::Scoring,
        StreamState::Interrupted,
    ] {
        streams(state).set(0.0);
    }
    live_segments_per_second(0.0);
    serving(false);
    // From 0 on, so that the first one is an increase.
    counter!(UPLOAD_BYTES).increment(0);
    counter!(RESPONSES_DROPPED).increment(0);
    counter!(HANDSHAKES_FAILED).increment(0);
    for what in ["certificate", "tokens"] {
        for outcome in ["taken", "refused"] {
            counter!(RELOADS, "what" => what, "outcome" => outcome).increment(0);
        }
    }
    for reason in ["missing", "unknown", "expired"] {
        counter!(CREDENTIALS_REFUSED, "reason" => reason).increment(0);
    }
    describe_counter!(
        UPLOAD_BYTES,
        metrics::Unit::Bytes,
        "Bytes of uploads that were received"
    );
    describe_counter!(
        RESPONSES_DROPPED,
        "Provisional responses that a slow reader did not get"
    );
    describe_gauge!(
        PROFILE_INFO,
        "The active profile and version: 1 for that one, 0 for those before it"
    );
    describe_counter!(
        RELOADS,
        "Changed files of certificates and tokens, by whether they could be used"
    );
    describe_counter!(
        CREDENTIALS_REFUSED,
        "Calls and scrapes without valid credentials, by reason"
    );
    describe_counter!(
        HANDSHAKES_FAILED,
        "Connections that ended before their TLS handshake did"
    );
    describe_histogram!(
        STREAM_SECONDS,
        metrics::Unit::Seconds,
        "How long detections lasted"
    );
}

/// An RPC ended. `method` is one of the service's own names and `code` one of the 17 gRPC codes, so
/// the number of series is bounded.
pub fn rpc_ended(method: &'static str, code: &'static str) {
    counter!(RPCS, "method" => method, "code" => code).increment(1);
}

/// These RPCs can be called. What alerts look for begins at 0, so that the first one is an increase.
pub fn rpcs(methods: impl IntoIterator<Item = &'static str>) {
    for method in methods {
        for code in ["internal", "data_loss", "unknown", "resource_exhausted"] {
            counter!(RPCS, "method" => method, "code" => code).increment(0);
        }
    }
}

/// A response was left out.
pub fn response_dropped() {
    counter!(RESPONSES_DROPPED).increment(1);
}

/// Changed files were read again; `what` is `certificate` or `tokens`.
pub fn reloaded(what: &'static str, usable: bool) {
    let outcome = if usable { "taken" } else { "refused" };
    counter!(RELOADS, "what" => what, "outcome" => outcome).increment(1);
}

/// Credentials were refused: `missing`, `unknown` or `expired`.
pub fn credentials_refused(reason: &'static str) {
    counter!(CREDENTIALS_REFUSED, "reason" => reason).increment(1);
}

/// A TLS handshake failed.
pub fn handshake_failed() {
    counter!(HANDSHAKES_FAILED).increment(1);
}

/// Upload bytes arrived.
pub fn upload_received(bytes: usize) {
    counter!(UPLOAD_BYTES).increment(bytes as u64);
}

/// This version of this profile is the active one now. The first [`PROFILE_SERIES_MAX`] versions that
/// a process tells of have series of their own, later ones share one, so their number is bounded.
pub fn active_profile(profile: &str, version: &str) {
    static TOLD: Mutex<BTreeMap<[String; 2], Gauge>> = Mutex::new(BTreeMap::new());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let mut labels = [profile.to_owned(), version.to_owned()];
    if !told.contains_key(&labels) && told.len() >= PROFILE_SERIES_MAX {
        labels = ["other".to_owned(), "other".to_owned()];
    }
    for earlier in told.values() {
        earlier.set(0.0);
    }
    let [profile, version] = labels.clone();
    let now = gauge!(PROFILE_INFO, "profile" => profile, "version" => version);
    now.set(1.0);
    told.insert(labels, now);
}

/// What a detection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// Its first frame is not decoded yet.
    Opening,
    /// Frames come.
    Scoring,
    /// Its camera is away.
    Interrupted,
}

impl Label for StreamState {
    const NAME: &'static str = "state";
    fn value(self) -> &'static str {
        match self {
            StreamState::Opening => "opening",
            StreamState::Scoring => "scoring",
            StreamState::Interrupted => "interrupted",
        }
    }
}

fn streams(state: StreamState) -> Gauge {
    gauge!(STREAMS, StreamState::NAME => state.value())
}

/// At most so many detections may run.
pub fn streams_limit(most: usize) {
    gauge!(STREAMS_LIMIT).set(most as f64);
}

/// The running cameras need so many segments per second.
pub fn live_segments_per_second(rate: f64) {
    gauge!(LIVE_SEGMENTS_PER_SECOND).set(rate);
}

static IS_SERVING: AtomicBool = AtomicBool::new(false);

/// grpc.health.v1 says SERVING, or not, from now on.
pub fn serving(serves: bool) {
    IS_SERVING.store(serves, Relaxed);
    gauge!(SERVING).set(if serves { 1.0 } else { 0.0 });
}

/// What [`serving`] was told last.
pub(super) fn is_serving() -> bool {
    IS_SERVING.load(Relaxed)
}

/// Counts a detection as running until dropped.
#[derive(Debug)]
pub struct StreamRunning {
    began: Instant,
    state: Mutex<StreamState>,
}

impl StreamRunning {
    /// One more, which is opening.
    pub fn begin() -> Self {
        streams(StreamState::Opening).increment(1.0);
        StreamRunning {
            began: Instant::now(),
            state: Mutex::new(StreamState::Opening),
        }
    }

    /// It does something else now.
    pub fn becomes(&self, state: StreamState) {
        let mut now = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *now, state);
        if before != state {
            streams(before).decrement(1.0);
            streams(state).increment(1.0);
        }
    }
}

impl Drop for StreamRunning {
    fn drop(&mut self) {
        let state = *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        streams(state).decrement(1.0);
        histogram!(STREAM_SECONDS).record(self.began.elapsed().as_secs_f64());
    }
}

/// Counts an RPC once, however it ends.
#[must_use = "an RPC that is dropped counts as cancelled"]
#[derive(Debug)]
pub struct RpcRunning {
    method: &'static str,
    ended: bool,
}

impl RpcRunning {
    /// One that begins; `method` as in [`rpc_ended`].
    pub fn begin(method: &'static str) -> Self {
        RpcRunning {
            method,
            ended: false,
        }
    }

    /// Of this RPC.
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// It ended with this code.
    pub fn ended(mut self, code: &'static str) {
        self.ended = true;
        rpc_ended(self.method, code);
    }
}

impl Drop for RpcRunning {
    /// Without a word: its client left, or its task panicked.
    fn drop(&mut self) {
        if !self.ended {
            let panicked = std::thread::panicking();
            rpc_ended(self.method, if panicked { "internal" } else { "cancelled" });
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn an_rpc_counts_once_however_it_ends() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            RpcRunning::begin("Detect").ended("ok");
            drop(RpcRunning::begin("Detect"));
            let panicked = std::panic::catch_unwind(|| {
                let _running = RpcRunning::begin("Detect");
                panic!("the test told it to");
            });
            assert!(panicked.is_err());
        });
        let text = handle.render();
        let mut series: Vec<&str> = text.lines().filter(|line| line.starts_with(RPCS)).collect();
        series.sort_unstable();
        assert_eq!(
            series,
            [
                r#"headhunt_rpcs_total{method="Detect",code="cancelled"} 1"#,
                r#"headhunt_rpcs_total{method="Detect",code="internal"} 1"#,
                r#"headhunt_rpcs_total{method="Detect",code="ok"} 1"#,
            ]
        );
    }
}
