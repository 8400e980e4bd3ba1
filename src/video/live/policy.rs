//! When to try a camera again, and when not. Pure: time and chance are given.
//!
//! A camera that worked is missed: for five minutes after it was lost attempts are at most 3 s
//! apart. Later, or for a camera that never answered, the wait grows to 30 s. Waits double from half
//! a second and are shortened by up to a half at random, so that a switch that comes back is not met
//! by all cameras' clients at once.
//!
//! Trying again is pointless, and ends the source, where the camera refuses the credentials (an account
//! may be locked), where its address may not be connected to, where it has no stream that can be decoded,
//! and where before it ever worked its certificate is not believed, or the stream is not found for ten
//! minutes and ten attempts (a camera that restarts may say so for a while). Of a camera that has worked
//! a gateway says that there is no such stream for as long as the camera is away.

use std::time::Duration;

use crate::{
    error::{Error, Kind},
    limits::{
        LIVE_NOT_FOUND_ATTEMPTS, LIVE_NOT_FOUND_FOR, LIVE_RETRY_CAP, LIVE_RETRY_CAP_AT_FIRST,
        LIVE_RETRY_FIRST, LIVE_RETRY_OFTEN_FOR, LIVE_STEADY_AFTER,
    },
    media::GapReason,
    rtsp::{Failure, FailureKind},
};

/// What follows a failure.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Try again after this wait.
    Retry(Duration),
    /// The source ends.
    Fatal(Error),
}

/// The history that decides.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    /// When the camera that worked was lost.
    lost: Option<Duration>,
    /// When the present connection showed its first picture.
    since: Option<Duration>,
    worked: bool,
    failures: u32,
    not_found: Option<(Duration, u32)>,
}

impl Policy {
    /// The present connection showed a picture.
    pub(crate) fn works(&mut self, now: Duration) {
        self.worked = true;
        self.not_found = None;
        let since = *self.since.get_or_insert(now);
        // Not at once: a camera that dies after its first picture is not to be hammered.
        if now.saturating_sub(since) >= LIVE_STEADY_AFTER {
            self.failures = 0;
        }
    }

    /// Whether the camera ever showed a picture.
    pub(crate) fn worked(&self) -> bool {
        self.worked
    }

    /// Failed attempts and lost connections since the camera last worked for a while.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// The attempt, or the connection, failed; `chance` is 0 to 1.
    pub(crate) fn failed(&mut self, failure: &Failure, now: Duration, chance: f64) -> Decision {
        if self.since.take().is_some() {
            self.lost = Some(now);
        }
        self.failures = self.failures.saturating_add(1);
        if failure.kind == FailureKind::NotFound && !self.worked {
            let (first, attempts) = self.not_found.get_or_insert((now, 0));
            *attempts += 1;
            if *attempts >= LIVE_NOT_FOUND_ATTEMPTS
                && now.saturating_sub(*first) >= LIVE_NOT_FOUND_FOR
            {
                return Decision::Fatal(Error::not_found(failure.message.clone()));
            }
        } else {
            self.not_found = None;
        }
        if let Some(kind) = self.fatal(failure.kind) {
            return Decision::Fatal(Error::new(kind, failure.message.clone()));
        }
        let often = self
            .lost
            .is_some_and(|lost| now.saturating_sub(lost) < LIVE_RETRY_OFTEN_FOR);
        let cap = if often {
            LIVE_RETRY_CAP_AT_FIRST
        } else {
            LIVE_RETRY_CAP
        };
        // 2^16 half seconds are far beyond the cap.
        let doubled = LIVE_RETRY_FIRST.saturating_mul(1 << (self.failures - 1).min(16));
        Decision::Retry(doubled.min(cap).mul_f64(1.0 - 0.5 * chance.clamp(0.0, 1.0)))
    }

    fn fatal(&self, kind: FailureKind) -> Option<Kind> {
        match kind {
            FailureKind::Unauthorized => Some(Kind::FailedPrecondition),
            FailureKind::Forbidden => Some(Kind::PermissionDenied),
            FailureKind::UnsupportedCodec => Some(Kind::InvalidArgument),
            FailureKind::Tls if !self.worked => Some(Kind::FailedPrecondition),
            FailureKind::Tls
            | FailureKind::Dns
            | FailureKind::Refused
            | FailureKind::NotFound
            | FailureKind::Timeout
            | FailureKind::Reset
            | FailureKind::Silence
            | FailureKind::Ended
            | FailureKind::Busy
            | FailureKind::Protocol => None,
        }
    }
}

/// What the gap after such a failure is reported as.
pub(crate) fn gap_reason(kind: FailureKind) -> GapReason {
    match kind {
        FailureKind::Silence => GapReason::Stalled,
        _ => GapReason::ConnectionLost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(kind: FailureKind) -> Failure {
        Failure {
            kind,
            message: "it failed".into(),
        }
    }

    fn retry(decision: Decision) -> Duration {
        match decision {
            Decision::Retry(wait) => wait,
            Decision::Fatal(error) => panic!("{error}"),
        }
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Simulates attempts that fail at once; their times until `until`.
    fn attempts(
        policy: &mut Policy,
        kind: FailureKind,
        from: Duration,
        until: Duration,
    ) -> Vec<Duration> {
        let mut now = from;
        let mut times = vec![];
        while now < until {
            times.push(now);
            now += retry(policy.failed(&failure(kind), now, 0.0));
        }
        times
    }

    #[test]
    fn a_lost_camera_is_tried_every_three_seconds_for_five_minutes_then_every_thirty() {
        let mut policy = Policy::default();
        policy.works(s(0));
        policy.works(s(100));
        let times = attempts(&mut policy, FailureKind::Refused, s(100), s(1000));
        for pair in times.windows(2) {
            let apart = pair[1] - pair[0];
            let cap = if pair[0] < s(400) { s(3) } else { s(30) };
            assert!(apart <= cap, "{apart:?} at {:?}", pair[0]);
        }
        assert!(times.windows(2).any(|p| p[1] - p[0] == s(30)));
        assert!(times[1] - times[0] < s(1), "the first attempt comes soon");
    }

    #[test]
    fn a_camera_that_never_answered_is_tried_for_ever_and_ever_more_rarely() {
        let mut policy = Policy::default();
        let times = attempts(&mut policy, FailureKind::Timeout, s(0), s(86_400));
        assert!(times.len() > 2800, "{}", times.len());
        assert!(times.windows(2).all(|p| p[1] - p[0] <= s(30)));
    }

    #[test]
    fn chance_shortens_a_wait_by_at_most_a_half() {
        for chance in [0.0, 0.3, 1.0, 7.0, f64::NAN] {
            let wait = retry(Policy::default().failed(
                &failure(FailureKind::Reset),
                s(0),
                chance.max(0.0),
            ));
            assert!((Duration::from_millis(250)..=Duration::from_millis(500)).contains(&wait));
        }
    }

    #[test]
    fn a_camera_that_dies_after_each_first_picture_is_not_hammered() {
        let mut policy = Policy::default();
        let mut now = s(0);
        for _ in 0..10 {
            policy.works(now);
            now += retry(policy.failed(&failure(FailureKind::Reset), now, 0.0));
        }
        policy.works(now);
        assert_eq!(
            retry(policy.failed(&failure(FailureKind::Reset), now, 0.0)),
            s(3)
        );
        policy.works(now);
        policy.works(now + s(10));
        let wait = retry(policy.failed(&failure(FailureKind::Reset), now + s(11), 0.0));
        assert_eq!(wait, Duration::from_millis(500));
    }

    #[test]
    fn fatal_failures_end_the_source_with_their_kind() {
        for (kind, expected) in [
            (FailureKind::Unauthorized, Kind::FailedPrecondition),
            (FailureKind::Forbidden, Kind::PermissionDenied),
            (FailureKind::UnsupportedCodec, Kind::InvalidArgument),
            (FailureKind::Tls, Kind::FailedPrecondition),
        ] {
            match Policy::default().failed(&failure(kind), s(0), 0.5) {
                Decision::Fatal(error) => assert_eq!(error.kind(), expected),
                Decision::Retry(_) => panic!("{kind:?} was retried"),
            }
        }
    }

    #[test]
    fn a_camera_that_worked_is_in_the_middle_of_something() {
        for kind in [FailureKind::Tls, FailureKind::NotFound] {
            let mut policy = Policy::default();
            policy.works(s(0));
            let times = attempts(&mut policy, kind, s(1), s(86_400));
            assert!(times.len() > 2800, "{kind:?}: {}", times.len());
        }
    }

    #[test]
    fn not_found_is_fatal_after_ten_minutes_and_ten_attempts() {
        let not_found = failure(FailureKind::NotFound);
        let mut policy = Policy::default();
        for attempt in 0..20 {
            retry(policy.failed(&not_found, s(attempt * 29), 0.0));
        }
        let Decision::Fatal(error) = policy.failed(&not_found, s(600), 0.0) else {
            panic!("retried");
        };
        assert_eq!(error.kind(), Kind::NotFound);
        // Nine attempts are too few, and another failure between starts the count anew.
        let mut policy = Policy::default();
        for attempt in 0..9 {
            retry(policy.failed(&not_found, s(attempt * 100), 0.0));
        }
        retry(policy.failed(&failure(FailureKind::Refused), s(900), 0.0));
        retry(policy.failed(&not_found, s(1000), 0.0));
    }
}
