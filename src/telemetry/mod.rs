//! TELEMETRY: metrics, their exporter, traces, logging and shutdown.

pub mod cameras;
pub mod decoders;
pub mod exporter;
pub mod feedback;
pub mod http;
pub mod jobs;
pub mod logging;
pub mod metrics;
mod present;
pub mod process;
pub mod server;
pub mod shutdown;
pub mod traces;
