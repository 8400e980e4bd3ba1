//! How many pictures wait in a sink, for a consumer that takes them together: to be woken up for each of them takes, for
//! a small picture, as long as a tenth of its decoding.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gstreamer as gst;
use gstreamer_app as gst_app;

/// The level of a sink.
#[derive(Default)]
pub(super) struct Level {
    now: Mutex<Now>,
    risen: Condvar,
}

#[derive(Default)]
struct Now {
    waiting: u32,
    /// From so many on whoever waits is woken up.
    enough: u32,
    ended: bool,
}

impl Level {
    /// Counts what comes into a sink from now on.
    pub fn of(sink: &gst_app::AppSink) -> Arc<Self> {
        let level = Arc::new(Level::default());
        let (come, ended) = (Arc::clone(&level), Arc::clone(&level));
        sink.set_callbacks(
            gst_app::AppSinkCallbacks::builder()
                .new_sample(move |_| {
                    come.risen(|now| now.waiting = now.waiting.saturating_add(1));
                    Ok(gst::FlowSuccess::Ok)
                })
                .eos(move |_| ended.risen(|now| now.ended = true))
                .build(),
        );
        level
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn risen(&self, change: impl FnOnce(&mut Now)) {
        let mut now = self.now();
        change(&mut now);
        let enough = now.enough > 0 && (now.waiting >= now.enough || now.ended);
        drop(now);
        if enough {
            self.risen.notify_one();
        }
    }

    /// A picture was taken, or there was none: then it is counted anew, since some came before they were counted, and one
    /// may be taken before it is.
    pub fn pulled(&self, any: bool) {
        let mut now = self.now();
        now.waiting = if any {
            now.waiting.saturating_sub(1)
        } else {
            0
        };
    }

    /// Waits until so many are there or the last one is, so long at most.
    pub fn wait_for(&self, enough: u32, most: Duration) {
        let mut now = self.now();
        now.enough = enough.max(1);
        let low = |now: &mut Now| now.waiting < now.enough && !now.ended;
        let waited = self.risen.wait_timeout_while(now, most, low);
        let (mut now, _) = waited.unwrap_or_else(PoisonError::into_inner);
        now.enough = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn whoever_waits_goes_on_when_there_are_enough_at_the_end_and_after_a_while() {
        let level = Arc::new(Level::default());
        let add = |level: &Level| level.risen(|now| now.waiting += 1);
        let long = Duration::from_secs(60);
        let begun = Instant::now();
        level.wait_for(1, Duration::from_millis(5));
        assert!(begun.elapsed() >= Duration::from_millis(5));
        let other = Arc::clone(&level);
        let adds = std::thread::spawn(move || (0..3).for_each(|_| add(&other)));
        level.wait_for(3, long);
        adds.join().unwrap();
        level.wait_for(2, long);
        (0..5).for_each(|_| level.pulled(true));
        // It was counted after it had been taken.
        add(&level);
        assert_eq!(level.now().waiting, 1);
        level.pulled(false);
        let begun_again = Instant::now();
        level.wait_for(1, Duration::from_millis(5));
        assert!(
            begun_again.elapsed() >= Duration::from_millis(5),
            "it does not wait"
        );
        let other = Arc::clone(&level);
        let ends = std::thread::spawn(move || other.risen(|now| now.ended = true));
        level.wait_for(100, long);
        ends.join().unwrap();
        level.wait_for(100, long);
        assert!(begun.elapsed() < long);
    }
}
