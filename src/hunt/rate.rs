//! Places a threshold by a rate of false alarms on held-out normal footage.
//!
//! How rare an event is can only be shown with enough footage: with none in T days the rate is at
//! most 3 / T a day at 95% confidence (the rule of three), so 3 / rate days are needed at least. With
//! more, as many events are allowed as keep the 95% upper bound of a Poisson rate at what was asked
//! for, and the threshold is the smallest from which on, upwards, no more than those occur.

use super::calibrate::CalibrationVideo;
use crate::{
    error::{Error, Result},
    limits::FALSE_ALARMS_PER_DAY_MAX,
    profile::Edge,
    score::locate::{SegmentSpan, smooth_runs},
};

/// Seconds of a day.
const DAY_SECONDS: f64 = 86_400.0;

/// Expected events of which none occurs with a chance of 5%: −ln 0.05, by custom 3.
const RULE_OF_THREE: f64 = 3.0;

/// No threshold below this: p of normal footage is uniform and p′ lies about 0.5, so a lower one
/// would be above it for most of the time, in few but endless events.
const THRESHOLD_LEAST: f64 = 0.5;

/// Times that differ by no more than this are equal, nanoseconds, as for the locator.
const TOLERANCE_NS: i128 = 1_000_000;

/// A threshold with what the footage shows of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateFit {
    /// τ.
    pub threshold: f64,
    /// Footage, days.
    pub days: f64,
    /// Events on it above τ.
    pub events: usize,
    /// Upper bound of the rate at 95% confidence, events per day.
    pub upper_bound_per_day: f64,
    /// Whether that is at most what was asked for.
    pub target_shown: bool,
}

/// Refuses a rate that is not above 0 and at most [`FALSE_ALARMS_PER_DAY_MAX`].
pub fn check_rate(per_day: f64) -> Result<()> {
    if per_day > 0.0 && per_day <= FALSE_ALARMS_PER_DAY_MAX {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "false_alarms_per_day is {per_day}: give more than 0, at most {FALSE_ALARMS_PER_DAY_MAX}"
    ))
    .with_field("normal_only.false_alarms_per_day"))
}

/// Length of footage, days.
pub fn days<'a>(spans: impl IntoIterator<Item = &'a SegmentSpan>) -> f64 {
    let ns: i128 = spans
        .into_iter()
        .map(|s| i128::from(s.end.as_nanos()) - i128::from(s.start.as_nanos()))
        .map(|ns| ns.max(0))
        .sum();
    ns as f64 / 1e9 / DAY_SECONDS
}

/// Whether so many days can show the rate. Without `accept_upper_bound` too few are refused.
///
/// # Errors
/// `InvalidArgument` as [`check_rate`]; `FailedPrecondition` for too little footage, saying how much
/// there is, how much is needed and what it would show.
pub fn check_footage(days: f64, per_day: f64, accept_upper_bound: bool) -> Result<bool> {
    check_rate(per_day)?;
    let needed = RULE_OF_THREE / per_day;
    if days >= needed {
        return Ok(true);
    }
    if accept_upper_bound && days > 0.0 {
        return Ok(false);
    }
    Err(Error::precondition(format!(
        "{:.2} hours of held-out normal footage cannot show {per_day} false alarms a day: that needs {:.1} hours (3 / rate). Add normal footage, or accept the upper bound that it does show, {:.0} a day",
        days * 24.0,
        needed * 24.0,
        RULE_OF_THREE / days.max(f64::MIN_POSITIVE)
    ))
    .with_field("normal_only.accept_upper_bound"))
}

/// Upper bound of a Poisson mean at 95% confidence when `events` occurred: the mean with which that
/// few occur with a chance of 5%; 3 for none.
fn upper_bound(events: usize) -> f64 {
    if events == 0 {
        return RULE_OF_THREE;
    }
    // The chance of at most so many falls as the mean grows: bisection.
    let chance = |mean: f64| {
        let (mut term, mut sum) = ((-mean).exp(), 0.0);
        for k in 0..=events {
            sum += term;
            term *= mean / (k + 1) as f64;
        }
        sum
    };
    let n = events as f64;
    let (mut low, mut high) = (n, n + 4.0 * n.sqrt() + 8.0);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if chance(middle) > 0.05 {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// Most events whose upper bound is at most `mean`; their exponentials must not underflow, so at most
/// 500 are ever allowed.
fn allowed(mean: f64) -> usize {
    (0..=500)
        .take_while(|&events| upper_bound(events) <= mean)
        .last()
        .unwrap_or(0)
}

/// Places τ on held-out p of normal videos, smoothed with `sigma`. `bridge_s` is the longest gap
/// inside an event, seconds. With too little footage for `per_day` no event is allowed at all.
///
/// # Errors
/// As [`check_footage`]; `InvalidArgument`, naming the video, where spans and p do not match.
pub fn place(
    videos: &[CalibrationVideo],
    sigma: f64,
    edge: Edge,
    bridge_s: f64,
    per_day: f64,
    accept_upper_bound: bool,
) -> Result<RateFit> {
    let days = days(videos.iter().flat_map(|video| &video.spans));
    let target_shown = check_footage(days, per_day, accept_upper_bound)?;
    let most = if target_shown {
        allowed(per_day * days)
    } else {
        0
    };
    // All videos in a row: p′ of each segment, and whether it continues the event of the one before.
    let (mut smoothed, mut continues) = (Vec::new(), Vec::new());
    for video in videos {
        let p = smooth_runs(&video.spans, &video.p, sigma, edge)
            .map_err(|e| e.context(format!("video {}", video.name)))?;
        smoothed.extend(p);
        continues.extend(
            (0..video.spans.len())
                .map(|i| i > 0 && within_event(&video.spans[i - 1], &video.spans[i], bridge_s)),
        );
    }
    let (threshold, events) = lowest(&smoothed, &continues, most);
    Ok(RateFit {
        threshold,
        days,
        events,
        upper_bound_per_day: upper_bound(events) / days,
        target_shown,
    })
}

/// Whether two anomalous segments in succession are of one event, as the locator sees it.
fn within_event(before: &SegmentSpan, after: &SegmentSpan, bridge_s: f64) -> bool {
    let gap = i128::from(after.start.as_nanos()) - i128::from(before.end.as_nanos());
    before.run == after.run || gap.abs() <= (bridge_s * 1e9).round() as i128 + TOLERANCE_NS
}

/// The lowest threshold of at least [`THRESHOLD_LEAST`] from which on, upwards, at most `most` events
/// occur, and how many do at it. Segments enter from the highest p′ down; one more begins an event,
/// joins one, or joins two into one.
fn lowest(smoothed: &[f64], continues: &[bool], most: usize) -> (f64, usize) {
    let mut order: Vec<usize> = (0..smoothed.len())
        .filter(|&i| smoothed[i] > THRESHOLD_LEAST)
        .collect();
    order.sort_by(|&a, &b| smoothed[b].total_cmp(&smoothed[a]));
    let mut above = vec![false; smoothed.len()];
    let mut events = 0_usize;
    for tied in order.chunk_by(|&a, &b| smoothed[a] == smoothed[b]) {
        let before = events;
        for &i in tied {
            let left = continues[i] && above[i - 1];
            let right = continues.get(i + 1) == Some(&true) && above[i + 1];
            above[i] = true;
            events = (events + 1) - usize::from(left) - usize::from(right);
        }
        if events > most {
            // p′ > τ leaves these out.
            return (smoothed[tied[0]], before);
        }
    }
    (THRESHOLD_LEAST, events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{media::MediaTime, profile::LocatorParams, score::locate::locate};

    fn video(p: Vec<f64>, gap_at: usize, gap_s: f64) -> CalibrationVideo {
        let spans = (0..p.len())
            .map(|i| {
                let shift = if i >= gap_at { gap_s } else { 0.0 };
                let at = |i: f64| MediaTime::from_nanos(((1.6 * i + shift) * 1e9) as i64);
                SegmentSpan {
                    first_frame: 48 * i as u64,
                    last_frame: 48 * i as u64 + 47,
                    start: at(i as f64),
                    end: at(i as f64 + 1.0),
                    run: u64::from(i >= gap_at),
                }
            })
            .collect();
        CalibrationVideo {
            name: "normal".into(),
            spans,
            p,
            truth: Vec::new(),
            has_intervals: true,
        }
    }

    fn noise(n: usize, seed: usize) -> Vec<f64> {
        (0..n)
            .map(|i| {
                (((i * 7 + seed) as f64 * 12.9898).sin() * 43_758.545_3)
                    .fract()
                    .abs()
            })
            .collect()
    }

    #[test]
    fn bounds_are_those_of_the_tables() {
        for (events, bound) in [(0, 3.0), (1, 4.744), (2, 6.296), (5, 10.513), (10, 16.962)] {
            assert!((upper_bound(events) - bound).abs() < 1e-3, "{events}");
        }
        assert_eq!(
            (allowed(3.0), allowed(4.7), allowed(4.75), allowed(17.0)),
            (0, 0, 1, 10)
        );
    }

    #[test]
    fn events_are_counted_as_the_locator_counts_them() {
        for seed in 0..20 {
            let videos = [
                video(noise(60, seed), 25, 1.0),
                video(noise(50, seed + 99), 30, 60.0),
            ];
            for per_day in [2000.0, 4000.0, 9000.0] {
                let fit = place(&videos, 0.5, Edge::Renormalize, 1.6, per_day, true).unwrap();
                let params = |threshold| LocatorParams {
                    sigma: 0.5,
                    threshold,
                    edge: Edge::Renormalize,
                    event_bridge_s: None,
                };
                let count = |threshold| -> usize {
                    videos
                        .iter()
                        .map(|v| {
                            locate(&v.spans, &v.p, &params(threshold), 1.6)
                                .unwrap()
                                .events
                                .len()
                        })
                        .sum()
                };
                assert_eq!(count(fit.threshold), fit.events, "{seed} {per_day}");
                let most = allowed(per_day * fit.days);
                assert!(fit.events <= most);
                for step in 0..25 {
                    let above = fit.threshold + f64::from(step) * 0.02;
                    assert!(
                        above > 1.0 || count(above) <= most,
                        "{seed} {per_day} {above}"
                    );
                }
                assert!(fit.threshold == 0.5 || count(fit.threshold - 1e-9) > most);
            }
        }
    }

    #[test]
    fn too_little_footage_is_refused_or_bounded() {
        // 160 s of footage: 0.00185 days, which shows 1620 a day at best.
        let videos = [video(noise(100, 3), 200, 0.0)];
        let run = |rate, accept| place(&videos, 1.5, Edge::Renormalize, 1.6, rate, accept);
        let error = run(1.0, false).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::FailedPrecondition);
        assert!(error.message().contains("needs 72.0 hours"), "{error}");
        let bounded = run(1.0, true).unwrap();
        assert_eq!((bounded.events, bounded.target_shown), (0, false));
        assert!((bounded.upper_bound_per_day - 1620.0).abs() < 1e-6);
        let shown = run(1700.0, false).unwrap();
        assert!(shown.target_shown && shown.upper_bound_per_day <= 1700.0);
        for rate in [0.0, -1.0, f64::NAN, 1e9] {
            assert!(run(rate, true).is_err());
        }
    }
}
