//! TELEMETRY: metrics, their exporter, logging and shutdown.
