//! grpc.health.v1: serving after the warm-up pass, while the model's thread gives signs of life and
//! the shutdown has not begun.

use tokio::time;
use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::SERVICES;
use crate::{
    engine::{EngineHandle, Health},
    limits,
    telemetry::server,
};

/// Says NOT_SERVING under every name: what stands before the first look at the engine.
pub(super) async fn begin(reporter: &HealthReporter) {
    set(reporter, ServingStatus::NotServing).await;
}

/// Keeps the health of the server (name "") and of each service up to date; returns after it has
/// said NOT_SERVING because `closing` fired.
pub(super) async fn keep(
    reporter: HealthReporter,
    engine: EngineHandle,
    closing: CancellationToken,
) {
    let mut served = false;
    while !closing.is_cancelled() {
        let health = engine.health();
        let serves = health == Health::Serving;
        if serves != served {
            if serves {
                tracing::info!("serving");
                server::serving(true);
                set(&reporter, ServingStatus::Serving).await;
            } else {
                tracing::error!(?health, "not serving");
                server::serving(false);
                set(&reporter, ServingStatus::NotServing).await;
            }
            served = serves;
        }
        tokio::select! {
            () = closing.cancelled() => {}
            () = time::sleep(limits::HEALTH_PERIOD) => {}
        }
    }
    server::serving(false);
    set(&reporter, ServingStatus::NotServing).await;
}

async fn set(reporter: &HealthReporter, status: ServingStatus) {
    for name in SERVICES {
        reporter.set_service_status(name, status).await;
    }
}
