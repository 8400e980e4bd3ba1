//! Who may start a detection: a limit on their number, and none while the server closes.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Error, Result},
    telemetry::server::StreamRunning,
};

/// Hands out slots.
#[derive(Clone)]
pub(super) struct Admission {
    slots: Arc<Semaphore>,
    most: usize,
    closing: CancellationToken,
}

/// One running detection; freed when dropped.
pub(super) struct Slot {
    _permit: OwnedSemaphorePermit,
    _running: StreamRunning,
}

impl Admission {
    /// `most` slots until `closing` fires.
    pub fn new(most: usize, closing: CancellationToken) -> Self {
        Admission {
            slots: Arc::new(Semaphore::new(most)),
            most,
            closing,
        }
    }

    /// A slot, or `Unavailable` while the server closes, or `ResourceExhausted`.
    pub fn admit(&self) -> Result<Slot> {
        if self.closing.is_cancelled() {
            return Err(Error::unavailable("the server is shutting down"));
        }
        let permit = self.slots.clone().try_acquire_owned().map_err(|_| {
            Error::exhausted(format!(
                "{} detections are running, the most this server takes; try again later",
                self.most
            ))
        })?;
        Ok(Slot {
            _permit: permit,
            _running: StreamRunning::begin(),
        })
    }

    /// Waits until no detection runs. Call it once `closing` has fired: a slot that is asked for
    /// meanwhile would wait behind it.
    pub async fn idle(&self) {
        let all = u32::try_from(self.most).unwrap_or(u32::MAX);
        // Never closed: an error cannot come.
        let _ = self.slots.acquire_many(all).await;
    }

    /// Running detections.
    pub fn running(&self) -> usize {
        self.most.saturating_sub(self.slots.available_permits())
    }

    /// Most that may run.
    pub fn most(&self) -> usize {
        self.most
    }
}
