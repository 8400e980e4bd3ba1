//! TELEMETRY: metrics, their exporter, logging and shutdown.

pub mod exporter;
pub mod feedback;
pub mod logging;
pub mod metrics;
pub mod server;
pub mod shutdown;
