//! TELEMETRY: metrics, their exporter, logging and shutdown.

pub mod metrics;
