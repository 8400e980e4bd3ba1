//! Whether a camera's clock goes at the rate that it declares. Pure.
//!
//! Some count milliseconds, or pictures, and say that these are 1/90,000 s: media time would hardly move, and a segment
//! never end. What packets say is compared with when they arrive, over windows of 2.5 s in which they do: one that is four
//! times too slow or too fast is suspicious, and two of them in a row that agree are believed. A network that held packets
//! back and a camera that begins with what it had kept make one such window, not two.

use std::time::Duration;

use crate::limits::{LIVE_PACE_FACTOR, LIVE_PACE_WINDOW_MILLIS};

const WINDOW: i128 = LIVE_PACE_WINDOW_MILLIS as i128 * 1_000_000;
const FACTOR: i128 = LIVE_PACE_FACTOR as i128;

/// So many ticks in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    ticks: i128,
    nanos: i128,
}

impl Rate {
    /// Ticks per second.
    pub fn declared(clock_rate: u32) -> Self {
        Rate {
            ticks: i128::from(clock_rate.max(1)),
            nanos: 1_000_000_000,
        }
    }

    /// How long so many ticks are, nanoseconds.
    pub fn nanos(self, ticks: i64) -> i128 {
        i128::from(ticks) * self.nanos / self.ticks
    }

    /// Within a fiftieth: less is jitter.
    fn is_about(self, other: Rate) -> bool {
        let (a, b) = (self.ticks * other.nanos, other.ticks * self.nanos);
        (a - b).abs() <= a.min(b) / 50
    }
}

impl Default for Rate {
    fn default() -> Self {
        Rate::declared(1)
    }
}

/// A packet that brought media time on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub ticks: i64,
    /// Media time, nanoseconds.
    pub media: i128,
    pub arrived: Duration,
}

impl Mark {
    /// Nanoseconds of arrival since another one.
    fn after(&self, before: &Mark) -> i128 {
        self.arrived.saturating_sub(before.arrived).as_nanos() as i128
    }
}

/// What a window said that was not believed yet.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    begun: Mark,
    slow: bool,
    media: i128,
    arrival: i128,
}

/// What to do with the clock.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its rate is another one, and media time has been wrong: here it is now, nanoseconds.
    Wrong(Rate, i128),
    /// As found before, only better known.
    Refined(Rate),
}

/// The watch over one clock.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    declared: Rate,
    /// The declared rate is not the clock's.
    measured: bool,
    /// Where measuring began.
    base: Option<Mark>,
    /// Where the window began.
    begun: Option<Mark>,
    /// How long packets have arrived in it, nanoseconds.
    flow: i128,
    suspicion: Option<Suspicion>,
}

impl Pace {
    /// A new connection, with a clock that declares this rate; the one to believe, where the camera had declared the same
    /// before.
    pub fn connect(&mut self, declared: Rate) -> Option<Rate> {
        let known = self.measured && self.declared == declared;
        self.declared = declared;
        self.measured = known;
        self.anew();
        (!known).then_some(declared)
    }

    /// The clock was laid anew.
    pub fn anew(&mut self) {
        self.base = None;
        self.begun = None;
        self.flow = 0;
        self.suspicion = None;
    }

    /// Packets have arrived for so long, nanoseconds.
    pub fn flows(&mut self, nanos: i128) {
        self.flow += nanos;
    }

    /// Media time has come on.
    pub fn see(&mut self, now: Mark) -> Option<Verdict> {
        let Some(begun) = self.begun else {
            self.begun = Some(now);
            self.flow = 0;
            return None;
        };
        if self.flow < WINDOW {
            return None;
        }
        let flow = std::mem::take(&mut self.flow);
        self.begun = Some(now);
        let base = *self.base.get_or_insert(begun);
        let (media, arrival) = (now.media - begun.media, now.after(&begun));
        let slow = media * FACTOR < flow;
        let window = Suspicion {
            begun,
            slow,
            media,
            arrival,
        };
        if !slow && media <= arrival * FACTOR {
            self.suspicion = None;
            return self.measured.then(|| self.rate(&base, &now)).flatten();
        }
        let agrees = |before: &Suspicion| {
            let (a, b) = (before.media * arrival, media * before.arrival);
            before.slow == slow && a <= 2 * b && b <= 2 * a
        };
        let before = self.suspicion.replace(window).filter(agrees)?;
        let (ticks, nanos) = (
            now.ticks.checked_sub(before.begun.ticks)?,
            now.after(&before.begun),
        );
        let rate = Rate {
            ticks: i128::from(ticks),
            nanos,
        };
        if ticks <= 0 || nanos <= 0 {
            return None;
        }
        let media = now.media.max(before.begun.media + nanos);
        self.anew();
        self.base = Some(before.begun);
        self.begun = Some(Mark { media, ..now });
        Some(Verdict::Wrong(self.settle(rate), media))
    }

    /// Over all that was measured.
    fn rate(&mut self, base: &Mark, now: &Mark) -> Option<Verdict> {
        let ticks = i128::from(now.ticks.checked_sub(base.ticks)?);
        let nanos = now.after(base);
        let rate = Rate { ticks, nanos };
        (ticks > 0 && nanos > 0).then(|| Verdict::Refined(self.settle(rate)))
    }

    /// The declared rate, if it is that after all.
    fn settle(&mut self, rate: Rate) -> Rate {
        self.measured = !rate.is_about(self.declared);
        if self.measured { rate } else { self.declared }
    }
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
