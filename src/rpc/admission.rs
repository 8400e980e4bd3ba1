//! Who may start a detection: a limit on their number, and none while the server closes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Error, Result},
    telemetry::server::{self, StreamRunning},
};

/// Hands out slots.
#[derive(Clone)]
pub(super) struct Admission {
    slots: Arc<Semaphore>,
    most: usize,
    closing: CancellationToken,
    /// Segments per second that the running live streams need.
    live: Arc<Mutex<f64>>,
}

/// A live stream's part of the model's throughput; given back when dropped.
pub(super) struct Claim {
    live: Arc<Mutex<f64>>,
    segments_per_second: f64,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut live = lock(&self.live);
        *live = (*live - self.segments_per_second).max(0.0);
        server::live_segments_per_second(*live);
    }
}

/// No code under the lock can panic half-way.
fn lock(live: &Mutex<f64>) -> MutexGuard<'_, f64> {
    live.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One running detection; freed when dropped.
pub(super) struct Slot {
    _permit: OwnedSemaphorePermit,
    /// For metrics.
    pub running: StreamRunning,
}

impl Admission {
    /// `most` slots until `closing` fires.
    pub fn new(most: usize, closing: CancellationToken) -> Self {
        server::streams_limit(most);
        Admission {
            slots: Arc::new(Semaphore::new(most)),
            most,
            closing,
            live: Arc::default(),
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
            running: StreamRunning::begin(),
        })
    }

    /// Room for a live stream that needs so many segments per second, where all of them together may
    /// need `most`. The running ones go on whatever `most` has become. The first is always taken: what was measured may have
    /// been a slow moment, and it is measured anew by passes alone.
    ///
    /// Fails with `ResourceExhausted`.
    pub fn claim(&self, segments_per_second: f64, most: f64) -> Result<Claim> {
        let mut live = lock(&self.live);
        // Sums of what came and went are not exact.
        let first = *live < 1e-6 && most > 0.0;
        if !first && *live + segments_per_second > most {
            return Err(Error::exhausted(format!(
                "the model scores {most:.2} segments per second for cameras, those running need {:.2} and this one {segments_per_second:.2} more: end one, give each less to do, or raise cameras.capacity_share",
                *live
            )));
        }
        *live += segments_per_second;
        server::live_segments_per_second(*live);
        Ok(Claim {
            live: Arc::clone(&self.live),
            segments_per_second,
        })
    }

    /// Segments per second that the running live streams need.
    pub fn claimed(&self) -> f64 {
        *lock(&self.live)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn the_stream_that_would_exceed_the_capacity_is_refused_and_a_place_is_given_back() {
        let admission = Admission::new(8, CancellationToken::new());
        let first = admission.claim(0.625, 1.3).unwrap();
        let second = admission.claim(0.625, 1.3).unwrap();
        let refused = admission.claim(0.625, 1.3).err().unwrap();
        assert_eq!(refused.kind(), Kind::ResourceExhausted);
        // A model that has become slower ends nobody.
        assert!(admission.claim(0.1, 0.5).is_err());
        assert!((admission.claimed() - 1.25).abs() < 1e-9);
        drop(first);
        let third = admission.claim(0.625, 1.3).unwrap();
        drop(second);
        assert!((admission.claimed() - 0.625).abs() < 1e-9);
        drop(third);
        let slow = admission.claim(0.625, 0.3).unwrap();
        assert!(admission.claim(0.625, 0.3).is_err());
        drop(slow);
    }
}
