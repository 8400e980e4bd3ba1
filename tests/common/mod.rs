//! What the gRPC tests share: a real server on port 0 with a model and a decoder that the test holds
//! in its hand.
#![allow(dead_code)] // each test binary uses its part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod admin;
#[cfg(feature = "video")]
pub mod clips;
pub mod detect;
pub mod media;
pub mod probe;
pub mod server;

use std::{future::Future, time::Duration};

/// Far more than anything here takes on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The future's output, or a failed test.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// Asks again until the answer is yes.
pub async fn eventually<F, A>(what: &str, mut ask: F)
where
    F: FnMut() -> A,
    A: Future<Output = bool>,
{
    within(what, async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
