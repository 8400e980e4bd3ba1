//! From a camera's RTP clock to media time. Pure.
//!
//! A camera's clock begins anywhere, is set by NTP while it runs, restarts with the camera and is
//! sometimes simply wrong; the time at which packets arrive is jittery but goes on. So media time
//! follows the camera's clock from packet to packet, and is led over its jumps by arrival times:
//!
//! - A new connection begins where the old one's newest packet stood, plus the time since it arrived.
//! - A step forward that arrival times contradict by more than five seconds is a jump, and so is
//!   one back by more than a second (less is a reordered picture), and so is a clock that stands still
//!   for more than five seconds while packets arrive (not while none do: the rest of a picture that a
//!   connection stalled in comes later, and belongs where its beginning does). The clock is then laid
//!   anew so that media time goes on as arrival times say.
//! - A clock that goes at quite another rate than it declares is a jump too, and is then read at the rate that it has
//!   (see `pace`).

use std::time::Duration;

use super::pace::{Mark, Pace, Rate, Verdict};
use crate::{
    limits::{LIVE_CLOCK_AHEAD_MILLIS, TIMESTAMP_DISORDER_MILLIS},
    media::MediaTime,
};

const NANOS: i128 = 1_000_000_000;
const AHEAD: i128 = LIVE_CLOCK_AHEAD_MILLIS as i128 * 1_000_000;
/// Longest time between two packets that counts as time in which packets arrive.
const GOES_ON: i128 = NANOS;
const DISORDER: i128 = TIMESTAMP_DISORDER_MILLIS as i128 * 1_000_000;

/// Where a packet's picture stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Media time; for pictures out of order it may lie before that of the packet before.
    pub(crate) pts: MediaTime,
    /// The camera's clock jumped here.
    pub(crate) jumped: bool,
}

/// The camera's clock on the line of media time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    /// Of this connection's clock.
    rate: Rate,
    pace: Pace,
    /// Media time of tick 0, nanoseconds; none before the connection's first packet.
    zero: Option<i128>,
    /// The latest media time so far, and when its first packet arrived.
    newest: Option<(i128, Duration)>,
    /// The last step of the newest media time, at most a second: about a frame.
    step: i128,
    /// When the last packet of this connection arrived.
    last: Option<Duration>,
    /// How long packets have arrived without a newer media time, nanoseconds.
    standing: i128,
}

impl Line {
    /// A new connection, whose clock has so many ticks per second.
    pub(crate) fn connect(&mut self, clock_rate: u32) {
        if let Some(rate) = self.pace.connect(Rate::declared(clock_rate)) {
            self.rate = rate;
        }
        self.zero = None;
        self.last = None;
        self.standing = 0;
    }

    /// Where media time stands if nothing has come since the newest packet.
    pub(crate) fn reached(&self, now: Duration) -> MediaTime {
        to_time(self.expected(now))
    }

    /// Places a packet with this many ticks that arrived then.
    pub(crate) fn place(&mut self, ticks: i64, arrived: Duration) -> Placed {
        let since_zero = self.rate.nanos(ticks);
        let expected = self.expected(arrived);
        let mut jumped = false;
        let last = self.last.replace(arrived).unwrap_or(arrived);
        let passed = (arrived.saturating_sub(last).as_nanos() as i128).min(GOES_ON);
        self.standing += passed;
        self.pace.flows(passed);
        let mut at = match (self.zero, self.newest) {
            (Some(zero), Some((newest, _))) => {
                let at = zero + since_zero;
                let stuck = at <= newest && self.standing > AHEAD;
                if at > expected + AHEAD || at < newest - DISORDER || stuck {
                    jumped = true;
                    expected.max(newest + self.step)
                } else {
                    at
                }
            }
            _ => expected,
        };
        if jumped || self.zero.is_none() {
            self.zero = Some(at - since_zero);
            self.pace.anew();
        }
        if self.newest.is_none_or(|(newest, _)| at > newest) {
            let mark = Mark {
                ticks,
                media: at,
                arrived,
            };
            let verdict = self.pace.see(mark);
            if let Some(Verdict::Wrong(_, right)) = verdict {
                jumped = true;
                at = right;
            }
            if let Some(Verdict::Wrong(rate, _) | Verdict::Refined(rate)) = verdict {
                self.rate = rate;
                self.zero = Some(at - rate.nanos(ticks));
            }
            if let (false, Some((newest, _))) = (jumped, self.newest) {
                self.step = (at - newest).min(DISORDER);
            }
            self.newest = Some((at, arrived));
            self.standing = 0;
        }
        Placed {
            pts: to_time(at),
            jumped,
        }
    }

    fn expected(&self, now: Duration) -> i128 {
        self.newest.map_or(0, |(newest, arrived)| {
            newest + now.saturating_sub(arrived).as_nanos() as i128
        })
    }
}

/// Saturates after 292 years.
fn to_time(nanos: i128) -> MediaTime {
    MediaTime::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: i64 = 90_000;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Packets (ticks in milliseconds of the camera's clock, arrival in milliseconds).
    fn run(line: &mut Line, packets: &[(i64, u64)]) -> Vec<(i64, bool)> {
        packets
            .iter()
            .map(|&(clock, arrived)| {
                let placed = line.place(clock * RATE / 1000, ms(arrived));
                (placed.pts.as_nanos() / 1_000_000, placed.jumped)
            })
            .collect()
    }

    fn fresh() -> Line {
        let mut line = Line::default();
        line.connect(RATE as u32);
        line
    }

    #[test]
    fn time_begins_at_zero_and_jitter_does_not_move_it() {
        let placed = run(
            &mut fresh(),
            &[(7000, 10), (7100, 500), (7200, 501), (7300, 1900)],
        );
        assert_eq!(
            placed,
            [(0, false), (100, false), (200, false), (300, false)]
        );
    }

    #[test]
    fn reordered_pictures_keep_their_places() {
        let placed = run(&mut fresh(), &[(0, 0), (120, 10), (40, 20), (80, 30)]);
        assert_eq!(placed, [(0, false), (120, false), (40, false), (80, false)]);
    }

    #[test]
    fn clock_steps_in_both_directions_are_led_over_by_arrival_times() {
        for hour in [3_600_000, -3_600_000] {
            let mut line = fresh();
            let placed = run(
                &mut line,
                &[
                    (5000, 0),
                    (5100, 100),
                    (5200 + hour, 200),
                    (5300 + hour, 300),
                    (5250 + hour, 310),
                ],
            );
            assert_eq!(
                placed,
                [
                    (0, false),
                    (100, false),
                    (200, true),
                    (300, false),
                    (250, false)
                ],
                "{hour}"
            );
        }
    }

    #[test]
    fn a_clock_that_restarts_at_zero_goes_on() {
        let placed = run(
            &mut fresh(),
            &[(50_000, 0), (50_100, 100), (0, 200), (100, 300)],
        );
        assert_eq!(
            placed,
            [(0, false), (100, false), (200, true), (300, false)]
        );
    }

    #[test]
    fn a_slow_camera_is_no_jump_and_neither_is_a_burst_after_a_stall() {
        let placed = run(&mut fresh(), &[(0, 0), (30_000, 30_000), (60_000, 60_010)]);
        assert!(placed.iter().all(|p| !p.1));
        let mut line = fresh();
        let burst: Vec<(i64, u64)> = (0..80).map(|i| (100 * i, 8000 + i as u64)).collect();
        run(&mut line, &[(-100, 0)]);
        assert!(run(&mut line, &burst).iter().all(|p| !p.1));
    }

    #[test]
    fn a_clock_that_stands_still_is_pushed_on() {
        let packets: Vec<(i64, u64)> = (0..200).map(|i| (700, 100 * i)).collect();
        let placed = run(&mut fresh(), &packets);
        assert_eq!(placed.iter().filter(|p| p.1).count(), 3);
        let (last, _) = placed[199];
        assert!((14_000..20_000).contains(&last), "{last}");
    }

    #[test]
    fn a_connection_that_stalls_in_a_picture_moves_no_clock() {
        // The rest of the picture comes after seven seconds, then what the camera kept, all at once.
        let stalled: Vec<(i64, u64)> = [(0, 0), (40, 40), (80, 80), (80, 7080)]
            .into_iter()
            .chain((3..175).map(|i| (40 * i, 7080)))
            .chain((175..200).map(|i| (40 * i, 40 * i as u64 + 80)))
            .collect();
        let placed = run(&mut fresh(), &stalled);
        for ((clock, _), (at, jumped)) in stalled.iter().zip(placed) {
            assert_eq!((at, jumped), (*clock, false));
        }
        // A picture that is shown earlier may be the one that is late.
        let placed = run(&mut fresh(), &[(0, 0), (80, 40), (40, 7040), (120, 7080)]);
        assert!(placed.iter().all(|(_, jumped)| !jumped), "{placed:?}");
    }

    #[test]
    fn a_new_connection_goes_on_where_time_stands() {
        let mut line = fresh();
        run(&mut line, &[(0, 0), (1000, 1000)]);
        assert_eq!(line.reached(ms(5000)).as_nanos(), 5_000_000_000);
        line.connect(RATE as u32);
        assert_eq!(
            run(&mut line, &[(777_000, 61_000), (777_100, 61_100)]),
            [(61_000, false), (61_100, false)]
        );
    }

    proptest::proptest! {
        #[test]
        fn the_newest_time_never_goes_back(
            packets in proptest::collection::vec((proptest::num::i64::ANY, 0u64..100_000), 1..60),
        ) {
            let mut line = fresh();
            let (mut newest, mut arrived) = (i64::MIN, 0);
            for (ticks, gap) in packets {
                arrived += gap;
                let placed = line.place(ticks, ms(arrived));
                // At most the disorder that is levelled out later.
                proptest::prop_assert!(placed.pts.as_nanos() >= newest.saturating_sub(1_000_000_000));
                newest = newest.max(placed.pts.as_nanos());
                proptest::prop_assert_eq!(line.reached(ms(arrived)).as_nanos(), newest.max(line.reached(ms(arrived)).as_nanos()));
            }
        }
    }
}
