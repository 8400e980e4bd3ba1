//! TELEMETRY: metrics, their exporter, logging and shutdown.

pub mod exporter;
pub mod feedback;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod server;
pub mod shutdown;
