#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

use proptest::prelude::*;

use super::*;
use crate::{
    profile::{Edge, LocatorParams},
    score::locate::StreamingLocator,
};

const SEGMENT_S: f64 = 1.6;
const SEGMENT_NS: i64 = 1_600_000_000;

fn params(sigma: f64, threshold: f64) -> LocatorParams {
    LocatorParams {
        sigma,
        threshold,
        edge: Edge::Renormalize,
        event_bridge_s: None,
    }
}

/// The locator's outputs over segments of 1.6 s (p, and the gap before each in tenths of a segment),
/// each with the number of segments that were known when it came.
fn located(segments: &[(f64, u8)], params: &LocatorParams) -> Vec<(usize, LocatorOutput)> {
    let mut locator = StreamingLocator::new(params, SEGMENT_S).unwrap();
    let (mut now, mut run, mut outputs) = (0, 0, Vec::new());
    for (i, (p, gap_tenths)) in segments.iter().enumerate() {
        if i > 0 && *gap_tenths > 0 {
            run += 1;
            now += i64::from(*gap_tenths) * SEGMENT_NS / 10;
            outputs.extend(locator.end_run().into_iter().map(|output| (i, output)));
        }
        let span = SegmentSpan {
            first_frame: i as u64 * 48,
            last_frame: i as u64 * 48 + 47,
            start: MediaTime::from_nanos(now),
            end: MediaTime::from_nanos(now + SEGMENT_NS),
            run,
        };
        now += SEGMENT_NS;
        let pushed = locator.push(span, *p).unwrap();
        outputs.extend(pushed.into_iter().map(|output| (i + 1, output)));
    }
    let rest = locator.finish().into_iter();
    outputs.extend(rest.map(|output| (segments.len(), output)));
    outputs
}

/// What is told, each with the number of segments that were known then.
fn told(
    rules: AlertRules,
    outputs: &[(usize, LocatorOutput)],
    threshold: f64,
) -> Vec<(usize, Alert)> {
    let mut alerts = Alerts::new(rules, threshold);
    outputs
        .iter()
        .filter_map(|(known, output)| Some((*known, alerts.take(output)?)))
        .collect()
}

fn plain(p: &[f64]) -> Vec<(f64, u8)> {
    p.iter().map(|p| (*p, 0)).collect()
}

fn event(alert: &Alert) -> &Event {
    match alert {
        Alert::Started(event) | Alert::Updated(event) | Alert::Ended(event, _) => event,
    }
}

/// One word a line: what, id, provisional or not, start and end in segments, reason.
fn lines(told: &[(usize, Alert)]) -> Vec<String> {
    told.iter()
        .map(|(known, alert)| {
            let e = event(alert);
            let at = |t: MediaTime| t.as_nanos() / SEGMENT_NS;
            let (what, why) = match alert {
                Alert::Started(_) => ("start", String::new()),
                Alert::Updated(_) => ("update", String::new()),
                Alert::Ended(_, why) => ("end", format!(" {why:?}")),
            };
            let mark = if e.provisional { "?" } else { "" };
            format!(
                "{known}: {what} {}{mark} {}-{}{why}",
                e.id,
                at(e.start),
                at(e.end)
            )
        })
        .collect()
}

/// No smoothing to speak of, so that p decides: radius 1 still makes final values one segment late.
fn sharp() -> LocatorParams {
    params(0.1, 0.5)
}

fn rules(provisional: bool, min_s: f64, cooldown_s: f64) -> AlertRules {
    AlertRules {
        provisional,
        min_duration: Duration::from_secs_f64(min_s),
        cooldown: Duration::from_secs_f64(cooldown_s),
    }
}

#[test]
fn an_event_is_told_once_it_has_lasted_and_a_short_one_is_not() {
    let p = plain(&[0.1, 0.9, 0.9, 0.1, 0.9, 0.9, 0.9, 0.9, 0.1, 0.1]);
    let outputs = located(&p, &sharp());
    assert_eq!(
        lines(&told(rules(false, 4.8, 0.0), &outputs, 0.5)),
        [
            "8: start 0 4-7",
            "9: update 0 4-8",
            "10: end 0 4-8 BelowThreshold"
        ]
    );
    // PTS are rounded, so three segments are 4.8 s even where a nanosecond is missing.
    let longer = AlertRules {
        min_duration: Duration::from_nanos(4_800_500_000),
        ..AlertRules::default()
    };
    assert_eq!(told(longer, &outputs, 0.5).len(), 3);
    assert_eq!(told(rules(false, 6.5, 0.0), &outputs, 0.5), []);
}

#[test]
fn within_the_cooldown_nothing_is_told_and_what_still_runs_is_told_after_it() {
    let p = plain(&[0.9, 0.1, 0.9, 0.1, 0.9, 0.9, 0.9, 0.9, 0.1, 0.9]);
    let outputs = located(&p, &sharp());
    // The first event ends at 1; 5 segments of cooldown pass at 6: the second is left out, the
    // third is told when its sixth segment is known, with its own start.
    assert_eq!(
        lines(&told(rules(false, 0.0, 8.0), &outputs, 0.5)),
        [
            "2: start 0 0-1",
            "3: end 0 0-1 BelowThreshold",
            "7: start 1 4-6",
            "8: update 1 4-7",
            "9: update 1 4-8",
            "10: end 1 4-8 BelowThreshold",
        ]
    );
}

#[test]
fn a_provisional_event_is_told_at_once_and_confirmed_under_its_id() {
    let outputs = located(&plain(&[0.1, 0.1, 0.9, 0.9, 0.1, 0.1]), &sharp());
    assert_eq!(
        lines(&told(rules(true, 0.0, 0.0), &outputs, 0.5)),
        [
            "3: start 0? 2-3",
            "4: update 0 2-3",
            "5: update 0 2-4",
            "6: end 0 2-4 BelowThreshold"
        ]
    );
}

#[test]
fn a_provisional_event_that_smoothing_takes_back_is_not_confirmed() {
    // At the end of what is known it is over the threshold, with zeros after it it is not.
    let outputs = located(
        &plain(&[0.2, 0.2, 0.2, 0.7, 0.0, 0.0, 0.0, 0.0]),
        &params(0.7, 0.5),
    );
    assert_eq!(
        lines(&told(rules(true, 0.0, 60.0), &outputs, 0.5)),
        ["4: start 0? 3-4", "6: end 0? 3-4 NotConfirmed"]
    );
    // No cooldown follows what was no event.
    let mut p = plain(&[0.2, 0.2, 0.2, 0.7, 0.0, 0.0, 0.0, 0.0]);
    p.extend(plain(&[1.0; 6]));
    let outputs = located(&p, &params(0.7, 0.5));
    let told = lines(&told(rules(true, 0.0, 60.0), &outputs, 0.5));
    assert!(told.contains(&"9: start 1? 8-9".to_owned()), "{told:?}");
}

#[test]
fn a_provisional_event_is_confirmed_once_it_has_lasted_and_else_not() {
    let p = plain(&[0.1, 0.9, 0.9, 0.9, 0.1, 0.9, 0.9, 0.1, 0.1]);
    let outputs = located(&p, &sharp());
    assert_eq!(
        lines(&told(rules(true, 4.8, 0.0), &outputs, 0.5)),
        [
            "2: start 0? 1-2",
            "3: update 0? 1-2",
            "4: update 0? 1-3",
            "5: update 0 1-4",
            "6: end 0 1-4 BelowThreshold",
            "6: start 1? 5-6",
            "7: update 1? 5-6",
            "8: update 1? 5-7",
            "9: end 1? 5-7 NotConfirmed",
        ]
    );
}

#[test]
fn within_the_cooldown_no_provisional_event_starts() {
    let p = plain(&[0.9, 0.1, 0.9, 0.1, 0.1, 0.1, 0.9, 0.1, 0.1]);
    let outputs = located(&p, &sharp());
    let told = lines(&told(rules(true, 0.0, 8.0), &outputs, 0.5));
    let starts: Vec<_> = told.iter().filter(|line| line.contains("start")).collect();
    assert_eq!(starts, ["1: start 0? 0-1", "7: start 1? 6-7"]);
}

fn sequences() -> impl Strategy<Value = Vec<(f64, u8)>> {
    let p = prop_oneof![
        3 => 0.0..=1.0_f64,
        2 => 0.7..=1.0_f64,
        2 => 0.0..=0.3_f64,
    ];
    let gap = prop_oneof![9 => Just(0_u8), 1 => 1..10_u8, 1 => 10..60_u8];
    prop::collection::vec((p, gap), 0..120)
}

fn locators() -> impl Strategy<Value = LocatorParams> {
    (0.3..2.5_f64, 0.1..0.9_f64, prop::option::of(0.0..8.0_f64)).prop_map(
        |(sigma, threshold, event_bridge_s)| LocatorParams {
            event_bridge_s,
            ..params(sigma, threshold)
        },
    )
}

fn any_rules() -> impl Strategy<Value = AlertRules> {
    let span = |most: f64| prop_oneof![2 => Just(0.0), 3 => 0.0..most];
    (any::<bool>(), span(12.0), span(40.0)).prop_map(|(p, min, cool)| rules(p, min, cool))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn off_everything_passes_as_it_is(segments in sequences(), params in locators()) {
        let outputs = located(&segments, &params);
        let expected: Vec<Alert> = outputs
            .iter()
            .filter_map(|(_, output)| match output {
                LocatorOutput::Started(e) => Some(Alert::Started(e.clone())),
                LocatorOutput::Updated(e) => Some(Alert::Updated(e.clone())),
                LocatorOutput::Ended(e, why) => Some(Alert::Ended(e.clone(), *why)),
                _ => None,
            })
            .collect();
        let told: Vec<Alert> = told(AlertRules::default(), &outputs, params.threshold)
            .into_iter()
            .map(|(_, alert)| alert)
            .collect();
        prop_assert_eq!(told, expected);
    }

    #[test]
    fn every_start_has_one_end_and_the_rules_hold(
        segments in sequences(), params in locators(), rules in any_rules(),
    ) {
        let outputs = located(&segments, &params);
        let found: Vec<(Event, EndReason)> = outputs
            .iter()
            .filter_map(|(_, output)| match output {
                LocatorOutput::Ended(e, why) => Some((e.clone(), *why)),
                _ => None,
            })
            .collect();
        let mut open: Option<Event> = None;
        let mut next_id = 0;
        let mut last: Option<Event> = None;
        let mut cooling: Option<MediaTime> = None;
        let mut confirmed = Vec::new();
        for (_, alert) in told(rules, &outputs, params.threshold) {
            let e = event(&alert).clone();
            match alert {
                Alert::Started(_) => {
                    prop_assert!(open.is_none());
                    prop_assert_eq!(e.id, next_id);
                    next_id += 1;
                    prop_assert!(!e.provisional || rules.provisional);
                    prop_assert!(e.provisional || at_least(e.start, e.end, rules.min_duration));
                    if let Some(end) = cooling {
                        prop_assert!(at_least(end, e.end, rules.cooldown));
                    }
                    open = Some(e);
                }
                Alert::Updated(_) => {
                    let before = open.replace(e.clone()).unwrap();
                    prop_assert_eq!(e.id, before.id);
                    // Once confirmed it stays so, and grows from a start that does not move.
                    prop_assert!(before.provisional || !e.provisional);
                    prop_assert!(e.provisional || at_least(e.start, e.end, rules.min_duration));
                    if !before.provisional {
                        prop_assert!(e.start == before.start && e.end > before.end);
                    }
                }
                Alert::Ended(_, why) => {
                    let before = open.take().unwrap();
                    prop_assert_eq!(&e, &before);
                    prop_assert_eq!(e.provisional, why == EndReason::NotConfirmed);
                    if let Some(last) = &last {
                        prop_assert!(e.first_frame > last.last_frame, "{:?} {:?}", last, e);
                    }
                    if !e.provisional {
                        cooling = Some(e.end);
                        confirmed.push((Event { id: 0, ..e.clone() }, why));
                    }
                    last = Some(e);
                }
            }
        }
        prop_assert!(open.is_none());
        // What is told as an event is one of the locator's, whole.
        let expected: Vec<_> = {
            let mut end: Option<MediaTime> = None;
            found
                .into_iter()
                .map(|(e, why)| (Event { id: 0, ..e }, why))
                .filter(|(e, _)| {
                    let tell = at_least(e.start, e.end, rules.min_duration)
                        && end.is_none_or(|end| at_least(end, e.end, rules.cooldown));
                    if tell {
                        end = Some(e.end);
                    }
                    tell
                })
                .collect()
        };
        prop_assert_eq!(confirmed, expected);
    }
}
