//! The Prometheus exporter: metrics with real histograms, in Prometheus' text format.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::{
    cameras, decoders, feedback, http, jobs, metrics as recorded, present, process, server, traces,
};
use crate::error::{Kind, Result, ResultExt as _};

/// Waits of a segment for the model, seconds: from an idle GPU to a loaded CPU.
pub const WAIT_BUCKETS_S: [f64; 14] = [
    0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0,
];

/// Stages of a segment, seconds: scoring takes microseconds, a pass of a large model on a CPU
/// minutes.
pub const STAGE_BUCKETS_S: [f64; 14] = [
    0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0,
];

/// Clips in a pass.
pub const BATCH_BUCKETS_CLIPS: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// From a frame's arrival to its score, seconds: at best a pass, and by default at most 16 s
/// (`cameras.max_delay_s`) and a pass.
pub const LAG_BUCKETS_S: [f64; 14] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 1.6, 2.5, 4.0, 8.0, 16.0, 32.0, 60.0, 300.0, 3600.0,
];

/// Alerts, seconds: at best a segment of 1.6 s and a pass; by default five more segments until p′ is
/// final, and up to a minimum duration of an hour.
pub const ALERT_BUCKETS_S: [f64; 12] = [
    1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 15.0, 30.0, 60.0, 300.0, 3600.0,
];

/// Detections, seconds: from a refused file to a day of a camera.
pub const STREAM_BUCKETS_S: [f64; 9] = [0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 86_400.0];

/// Every histogram with its buckets.
const HISTOGRAMS: [(&str, &[f64]); 6] = [
    (recorded::QUEUE_WAIT_SECONDS, &WAIT_BUCKETS_S),
    (recorded::STAGE_SECONDS, &STAGE_BUCKETS_S),
    (recorded::BATCH_CLIPS, &BATCH_BUCKETS_CLIPS),
    (recorded::ALERT_DELAY_SECONDS, &ALERT_BUCKETS_S),
    (cameras::FRAME_LAG_SECONDS, &LAG_BUCKETS_S),
    (server::STREAM_SECONDS, &STREAM_BUCKETS_S),
];

/// How often samples of histograms are put into their buckets where nobody scrapes: they take memory
/// until then.
const UPKEEP: Duration = Duration::from_secs(5);

/// The process's metrics, to be written out.
#[derive(Clone)]
pub struct Metrics {
    recorded: PrometheusHandle,
}

impl Metrics {
    /// Installs the process's recorder. Nothing is counted before it.
    ///
    /// Fails with `Internal` where there is a recorder already.
    pub fn install() -> Result<Metrics> {
        let mut builder = PrometheusBuilder::new();
        for (name, buckets) in HISTOGRAMS {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets)
                .or_kind(Kind::Internal, || format!("buckets of {name}"))?;
        }
        let recorder = builder.build_recorder();
        let recorded = recorder.handle();
        metrics::set_global_recorder(recorder).or_kind(Kind::Internal, || {
            "cannot count: the process has a metrics recorder already".into()
        })?;
        recorded::describe();
        server::describe();
        cameras::describe();
        decoders::describe();
        feedback::describe();
        jobs::describe();
        process::describe();
        traces::describe();
        Ok(Metrics { recorded })
    }

    /// Everything that is counted now, in Prometheus' text format.
    pub fn render(&self) -> String {
        process::refresh();
        let mut text = self.recorded.render();
        present::render(&mut text);
        text
    }
}

/// As [`start_behind`], for everybody and without TLS.
pub fn start(listen: SocketAddr) -> Result<()> {
    start_behind(listen, Arc::new(http::Open)).map(drop)
}

/// Installs the process's metrics recorder and serves it at `listen` (`/metrics`, `/health`,
/// `/ready`) to those whom the gate lets in; returns the address that was bound. Call it once, inside a runtime and before
/// anything is recorded.
///
/// Fails with `Unavailable` where the address cannot be listened at, and with `Internal` where a
/// recorder is installed already.
pub fn start_behind(listen: SocketAddr, gate: Arc<dyn http::Gate>) -> Result<SocketAddr> {
    let listener = http::bind(listen)?;
    let bound = listener.local_addr().unwrap_or(listen);
    let metrics = Metrics::install()?;
    let upkeep = metrics.recorded.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            upkeep.run_upkeep();
        }
    });
    tokio::spawn(http::serve(listener, metrics, gate));
    Ok(bound)
}
