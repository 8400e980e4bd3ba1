//! From the timestamps of a decoder to those of frames. Pure.
//!
//! Time counts from the first frame. The rules, in this order:
//!
//! 1. A frame without a timestamp stands at the end of the one before it.
//! 2. A step back of more than one second is a reset clock (a wrapped counter, joined recordings):
//!    the frame stands at the end of the one before it, later frames are moved by as much, and
//!    a jump is reported.
//! 3. A smaller step back, or an equal timestamp, is a disorder: the frame takes the time of the
//!    one before it. Nothing is moved, so the clock is right again as soon as the media is.
//! 4. A hole of more than ten seconds between the end of a frame and the next is reported as a
//!    jump; the timestamp is kept. Smaller holes are a variable frame rate.
//!
//! A duration is the media's own where it says one; otherwise that of the declared frame rate;
//! otherwise the last step between two frames; otherwise 40 ms.

use std::time::Duration;

use crate::{
    limits::{
        FRAME_DURATION_MAX_MILLIS, FRAME_DURATION_MIN_MICROS, TIMESTAMP_DISORDER_MILLIS,
        TIMESTAMP_JUMP_MILLIS,
    },
    media::{FrameStamp, MediaTime},
};

const JUMP: Duration = Duration::from_millis(TIMESTAMP_JUMP_MILLIS);
const DISORDER_NANOS: i64 = TIMESTAMP_DISORDER_MILLIS as i64 * 1_000_000;
const DURATION_MAX: Duration = Duration::from_millis(FRAME_DURATION_MAX_MILLIS);
const DURATION_MIN: Duration = Duration::from_micros(FRAME_DURATION_MIN_MICROS);
const DURATION_UNKNOWN: Duration = Duration::from_millis(40);

/// What the media says about a decoded frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw {
    /// Presentation time on any clock, nanoseconds.
    pub pts: Option<i64>,
    /// Duration.
    pub duration: Option<Duration>,
}

/// A frame with its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Index, time and duration.
    pub stamp: FrameStamp,
    /// Where the frame before it ended.
    pub previous_end: Option<MediaTime>,
    /// Time between that and this frame.
    pub hole: Duration,
    /// The clock jumped here.
    pub jumped: bool,
}

/// Gives decoded frames their indices and times.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    frame_duration: Option<Duration>,
    /// What is subtracted from the media's clock, nanoseconds.
    origin: Option<i64>,
    last: Option<FrameStamp>,
    step: Option<Duration>,
}

impl Timeline {
    /// A new one; `declared_fps` in frames per second.
    pub fn new(declared_fps: Option<f64>) -> Self {
        Timeline {
            frame_duration: declared_fps
                .and_then(|fps| Duration::try_from_secs_f64(1.0 / fps).ok())
                .filter(|d| believable(*d)),
            ..Timeline::default()
        }
    }

    /// Places the first frame after a break that the caller knows of: the time between says nothing
    /// about how long frames are shown, and is no jump.
    pub fn push_after_break(&mut self, raw: Raw) -> Placed {
        let step = self.step;
        let mut placed = self.push(raw);
        self.step = step;
        placed.jumped = false;
        placed.stamp.duration = self.duration(raw.duration);
        self.last = Some(placed.stamp);
        placed
    }

    /// Places the next decoded frame.
    pub fn push(&mut self, raw: Raw) -> Placed {
        let duration = self.duration(raw.duration);
        let Some(last) = self.last else {
            self.origin = raw.pts;
            let stamp = FrameStamp {
                index: 0,
                pts: MediaTime::ZERO,
                duration,
            };
            self.last = Some(stamp);
            return Placed {
                stamp,
                previous_end: None,
                hole: Duration::ZERO,
                jumped: false,
            };
        };
        let end = last.end();
        let mut jumped = false;
        let pts = match raw.pts {
            None => end,
            Some(clock) => {
                // The first frame had no timestamp: the clock starts here, at the end of the last.
                let origin = *self
                    .origin
                    .get_or_insert_with(|| clock.saturating_sub(end.as_nanos()));
                let pts = MediaTime::from_nanos(clock.saturating_sub(origin));
                if last.pts.as_nanos().saturating_sub(pts.as_nanos()) > DISORDER_NANOS {
                    self.origin = Some(clock.saturating_sub(end.as_nanos()));
                    jumped = true;
                    end
                } else {
                    pts.max(last.pts)
                }
            }
        };
        let hole = pts.saturating_since(end);
        let step = pts.saturating_since(last.pts);
        if !step.is_zero() && !jumped {
            self.step = Some(step.min(DURATION_MAX));
        }
        let stamp = FrameStamp {
            index: last.index + 1,
            pts,
            // The step to here is a better guess than none.
            duration: if raw.duration.is_none() && self.frame_duration.is_none() {
                self.duration(None)
            } else {
                duration
            },
        };
        self.last = Some(stamp);
        Placed {
            stamp,
            previous_end: Some(end),
            hole,
            jumped: jumped || hole > JUMP,
        }
    }

    /// Frames placed so far.
    pub fn frames(&self) -> u64 {
        self.last.map_or(0, |l| l.index + 1)
    }

    /// End of the last frame.
    pub fn end(&self) -> MediaTime {
        self.last.map_or(MediaTime::ZERO, |l| l.end())
    }

    /// End of the last frame on the media's own clock, nanoseconds; `None` without a clock.
    pub fn end_on_clock(&self) -> Option<i64> {
        Some(self.origin?.saturating_add(self.end().as_nanos()))
    }

    /// Duration of the last frame.
    pub fn last_duration(&self) -> Duration {
        self.last.map_or(DURATION_UNKNOWN, |l| l.duration)
    }

    fn duration(&self, declared: Option<Duration>) -> Duration {
        declared
            .filter(|d| believable(*d))
            .or(self.frame_duration)
            .or(self.step)
            .unwrap_or(DURATION_UNKNOWN)
    }
}

fn believable(duration: Duration) -> bool {
    (DURATION_MIN..=DURATION_MAX).contains(&duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn run(fps: Option<f64>, input: &[(Option<i64>, Option<u64>)]) -> Vec<Placed> {
        let mut timeline = Timeline::new(fps);
        input
            .iter()
            .map(|&(pts, duration)| {
                timeline.push(Raw {
                    pts: pts.map(|p| p * MS),
                    duration: duration.map(Duration::from_millis),
                })
            })
            .collect()
    }

    fn pts(placed: &[Placed]) -> Vec<i64> {
        placed.iter().map(|p| p.stamp.pts.as_nanos() / MS).collect()
    }

    fn at(ms: &[i64]) -> Vec<(Option<i64>, Option<u64>)> {
        ms.iter().map(|&t| (Some(t), None)).collect()
    }

    #[test]
    fn time_counts_from_the_first_frame_and_variable_rates_are_kept() {
        let placed = run(None, &at(&[1000, 1040, 1100, 4000]));
        assert_eq!(pts(&placed), [0, 40, 100, 3000]);
        assert!(placed.iter().all(|p| !p.jumped));
        let index: Vec<u64> = placed.iter().map(|p| p.stamp.index).collect();
        assert_eq!(index, [0, 1, 2, 3]);
        // Negative clocks are clocks.
        assert_eq!(pts(&run(None, &at(&[-80, -40, 0]))), [0, 40, 80]);
    }

    #[test]
    fn missing_timestamps_follow_from_durations() {
        let placed = run(Some(25.0), &[(None, None), (None, None), (Some(7), None)]);
        assert_eq!(pts(&placed), [0, 40, 80]);
        let placed = run(
            Some(25.0),
            &[
                (Some(0), None),
                (None, None),
                (None, None),
                (Some(120), None),
            ],
        );
        assert_eq!(pts(&placed), [0, 40, 80, 120]);
    }

    #[test]
    fn equal_and_slightly_earlier_timestamps_do_not_shift_later_ones() {
        let placed = run(Some(25.0), &at(&[0, 40, 40, 30, 120, 160]));
        assert_eq!(pts(&placed), [0, 40, 40, 40, 120, 160]);
        assert!(placed.iter().all(|p| !p.jumped));
    }

    #[test]
    fn the_time_of_a_break_is_no_duration_of_a_frame() {
        let mut timeline = Timeline::new(None);
        let raw = |ms: i64| Raw {
            pts: Some(ms * MS),
            duration: None,
        };
        timeline.push(raw(0));
        timeline.push(raw(100));
        let placed = timeline.push_after_break(raw(60_000));
        assert!(!placed.jumped);
        assert_eq!(placed.stamp.pts.as_nanos(), 60_000 * MS);
        assert_eq!(placed.stamp.duration.as_millis(), 100);
        let next = timeline.push(raw(60_050));
        assert_eq!(next.previous_end, Some(MediaTime::from_nanos(60_100 * MS)));
        assert_eq!(next.stamp.duration.as_millis(), 50);
    }

    #[test]
    fn a_reset_clock_is_a_jump_and_time_goes_on() {
        let placed = run(Some(25.0), &at(&[5000, 5040, 0, 40, 80]));
        assert_eq!(pts(&placed), [0, 40, 80, 120, 160]);
        let jumps: Vec<bool> = placed.iter().map(|p| p.jumped).collect();
        assert_eq!(jumps, [false, false, true, false, false]);
        assert!(placed[2].hole.is_zero());
    }

    #[test]
    fn a_long_hole_is_a_jump_and_its_length_is_kept() {
        let placed = run(Some(25.0), &at(&[0, 40, 10_080, 20_121]));
        assert_eq!(pts(&placed), [0, 40, 10_080, 20_121]);
        let jumps: Vec<bool> = placed.iter().map(|p| p.jumped).collect();
        assert_eq!(jumps, [false, false, false, true]);
        assert_eq!(
            placed[3].previous_end,
            Some(MediaTime::from_nanos(10_120 * MS))
        );
        // A frame that the media says is shown for that long leaves no hole.
        let placed = run(Some(25.0), &[(Some(0), Some(20_000)), (Some(20_000), None)]);
        assert!(!placed[1].jumped);
    }

    #[test]
    fn durations_come_from_the_media_then_the_rate_then_the_last_step() {
        let ms = |p: &[Placed]| -> Vec<u128> {
            p.iter().map(|p| p.stamp.duration.as_millis()).collect()
        };
        assert_eq!(
            ms(&run(Some(25.0), &[(Some(0), Some(10)), (Some(10), None)])),
            [10, 40]
        );
        assert_eq!(ms(&run(None, &at(&[0, 100, 150]))), [40, 100, 50]);
        // Nonsense is not believed.
        let odd = [(Some(0), Some(0)), (Some(20), Some(4_000_000))];
        assert_eq!(ms(&run(Some(50.0), &odd)), [20, 20]);
        assert_eq!(ms(&run(Some(0.0), &at(&[0]))), [40]);
        assert_eq!(ms(&run(Some(1e9), &at(&[0, 20]))), [40, 20]);
        assert_eq!(ms(&run(Some(f64::NAN), &at(&[0]))), [40]);
    }

    proptest::proptest! {
        #[test]
        fn any_input_gives_counted_monotone_frames(
            input in proptest::collection::vec(
                (proptest::option::of(proptest::num::i64::ANY), proptest::option::of(proptest::num::u64::ANY)),
                0..50,
            ),
        ) {
            let mut timeline = Timeline::new(None);
            let mut last = None;
            for (i, (pts, duration)) in input.into_iter().enumerate() {
                let placed = timeline.push(Raw { pts, duration: duration.map(Duration::from_nanos) });
                proptest::prop_assert_eq!(placed.stamp.index, i as u64);
                proptest::prop_assert!(last.is_none_or(|l| l <= placed.stamp.pts));
                last = Some(placed.stamp.pts);
            }
        }
    }
}
