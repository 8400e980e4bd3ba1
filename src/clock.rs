//! Injectable time. Whatever waits for seconds or minutes (a camera that is silent, a reconnection)
//! waits on a [`Clock`], so that a test can have these waits pass quickly.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// A wait; it needs a tokio runtime.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A source of time.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Monotone time since some moment before the clock's first use.
    fn now(&self) -> Duration;

    /// The time of day.
    fn wall(&self) -> SystemTime;

    /// Waits for so long on this clock.
    fn sleep(&self, span: Duration) -> Sleep;
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock that starts now.
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(SystemClock {
            start: Instant::now(),
        })
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep(&self, span: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(span))
    }
}

/// The machine's clock, so many times faster: for tests and simulations, where ten minutes of
/// waiting for a camera must take seconds. Media that arrives in real time arrives slowly on it.
#[derive(Debug)]
pub struct FastClock {
    start: Instant,
    start_wall: SystemTime,
    factor: u32,
}

impl FastClock {
    /// A clock that starts now and runs `factor` times as fast; at least 1.
    pub fn shared(factor: u32) -> Arc<dyn Clock> {
        Arc::new(FastClock {
            start: Instant::now(),
            start_wall: SystemTime::now(),
            factor: factor.max(1),
        })
    }
}

impl Clock for FastClock {
    fn now(&self) -> Duration {
        self.start.elapsed().saturating_mul(self.factor)
    }

    fn wall(&self) -> SystemTime {
        self.start_wall
            .checked_add(self.now())
            .unwrap_or(self.start_wall)
    }

    fn sleep(&self, span: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(span / self.factor))
    }
}

/// Waits for `future`, at most so long on this clock; `None` if it took longer.
pub async fn timeout<F: Future>(clock: &dyn Clock, span: Duration, future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = clock.sleep(span) => None,
    }
}
