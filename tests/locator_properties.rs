//! The streaming locator against the batch locator, over random sequences with gaps.

// Helpers of tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use headhunt::{
    media::MediaTime,
    profile::{Edge, LocatorParams},
    score::{
        events::{EndReason, Event},
        locate::{LocatorOutput, SegmentSpan, StreamingLocator, locate},
        smooth::{radius, smooth},
    },
};
use proptest::prelude::*;

const SEGMENT_S: f64 = 1.6;
const SEGMENT_NS: i64 = 1_600_000_000;

/// A sequence: p of each segment and the gap before it, in tenths of a segment (0: none).
#[derive(Clone, Debug)]
struct Sequence {
    spans: Vec<SegmentSpan>,
    p: Vec<f64>,
}

fn sequence(segments: Vec<(f64, u8)>) -> Sequence {
    let (mut now, mut run, mut frame) = (0_i64, 0_u64, 0_u64);
    let (mut spans, mut p) = (Vec::new(), Vec::new());
    for (i, (score, gap_tenths)) in segments.into_iter().enumerate() {
        if i > 0 && gap_tenths > 0 {
            run += 1;
            now += i64::from(gap_tenths) * SEGMENT_NS / 10;
        }
        spans.push(SegmentSpan {
            first_frame: frame,
            last_frame: frame + 47,
            start: MediaTime::from_nanos(now),
            end: MediaTime::from_nanos(now + SEGMENT_NS),
            run,
        });
        p.push(score);
        now += SEGMENT_NS;
        frame += 48;
    }
    Sequence { spans, p }
}

fn sequences() -> impl Strategy<Value = Sequence> {
    let p = prop_oneof![
        4 => 0.0..=1.0_f64,
        2 => 0.8..=1.0_f64,
        1 => Just(0.0),
        1 => Just(1.0),
    ];
    // Mostly none, else short and long ones: 10 tenths is exactly the default bridge.
    let gap = prop_oneof![8 => Just(0_u8), 1 => 1..10_u8, 1 => Just(10_u8), 1 => 11..60_u8];
    prop::collection::vec((p, gap), 0..200).prop_map(sequence)
}

fn params() -> impl Strategy<Value = LocatorParams> {
    (
        0.3..3.5_f64,
        0.05..0.95_f64,
        prop_oneof![Just(Edge::Renormalize), Just(Edge::Zero)],
        prop_oneof![Just(None), Just(Some(0.0)), (0.0..8.0_f64).prop_map(Some)],
    )
        .prop_map(|(sigma, threshold, edge, event_bridge_s)| LocatorParams {
            sigma,
            threshold,
            edge,
            event_bridge_s,
        })
}

/// All outputs, each with the number of segments pushed when it came; runs are ended early where
/// `announce_gaps` says so.
fn stream(
    s: &Sequence,
    params: &LocatorParams,
    announce_gaps: bool,
) -> Vec<(usize, LocatorOutput)> {
    let mut locator = StreamingLocator::new(params, SEGMENT_S).unwrap();
    let mut out = Vec::new();
    for (i, (span, p)) in s.spans.iter().zip(&s.p).enumerate() {
        if announce_gaps && i > 0 && s.spans[i - 1].run != span.run {
            out.extend(locator.end_run().into_iter().map(|o| (i, o)));
        }
        out.extend(
            locator
                .push(*span, *p)
                .unwrap()
                .into_iter()
                .map(|o| (i + 1, o)),
        );
    }
    out.extend(locator.finish().into_iter().map(|o| (s.p.len(), o)));
    out
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn event_bits(e: &Event) -> (u64, i64, i64, u64, u64, u64, u64) {
    (
        e.id,
        e.start.as_nanos(),
        e.end.as_nanos(),
        e.first_frame,
        e.last_frame,
        e.peak.to_bits(),
        e.mean.to_bits(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn streaming_equals_batch_to_the_last_bit(
        s in sequences(), params in params(), announce_gaps: bool,
    ) {
        let batch = locate(&s.spans, &s.p, &params, SEGMENT_S).unwrap();
        let outputs = stream(&s, &params, announce_gaps);

        let mut finals = Vec::new();
        let mut provisional = 0;
        let mut ended = Vec::new();
        let mut open: Option<Event> = None;
        for (pushed, output) in &outputs {
            match output {
                LocatorOutput::Final { segment, p, smoothed } => {
                    // In order, once each, and never for a segment that was not provisional.
                    prop_assert_eq!(*segment as usize, finals.len());
                    prop_assert!(*segment < *pushed as u64);
                    prop_assert_eq!(p.to_bits(), s.p[*segment as usize].to_bits());
                    prop_assert!((0.0..=1.0).contains(smoothed));
                    finals.push(*smoothed);
                }
                LocatorOutput::Provisional { segment, p, smoothed, span } => {
                    prop_assert_eq!(*span, s.spans[*segment as usize]);
                    prop_assert_eq!(*segment as usize, provisional);
                    prop_assert_eq!(*segment as usize + 1, *pushed);
                    prop_assert!(finals.len() <= provisional);
                    prop_assert_eq!(p.to_bits(), s.p[provisional].to_bits());
                    provisional += 1;
                    // As if the media ended here.
                    let known = locate(&s.spans[..*pushed], &s.p[..*pushed], &params, SEGMENT_S)
                        .unwrap();
                    prop_assert_eq!(smoothed.to_bits(), known.smoothed[*pushed - 1].to_bits());
                }
                LocatorOutput::Started(event) => {
                    prop_assert!(open.is_none());
                    prop_assert_eq!(event.id as usize, ended.len());
                    open = Some(event.clone());
                }
                LocatorOutput::Updated(event) => {
                    let before = open.replace(event.clone()).unwrap();
                    prop_assert_eq!((event.id, event.start, event.first_frame),
                        (before.id, before.start, before.first_frame));
                    prop_assert!(event.last_frame > before.last_frame && event.end > before.end);
                    prop_assert!(event.peak >= before.peak);
                }
                LocatorOutput::Ended(event, reason) => {
                    let before = open.take().unwrap();
                    prop_assert_eq!(event_bits(event), event_bits(&before));
                    ended.push((event.clone(), *reason));
                }
            }
        }
        prop_assert!(open.is_none());
        prop_assert_eq!(provisional, s.p.len());
        prop_assert_eq!(bits(&finals), bits(&batch.smoothed));
        prop_assert_eq!(ended.len(), batch.events.len());
        for ((a, why), (b, why_batch)) in ended.iter().zip(&batch.events) {
            prop_assert_eq!(event_bits(a), event_bits(b));
            prop_assert_eq!(why, why_batch);
        }
    }

    #[test]
    fn finals_wait_for_a_radius_of_later_segments_and_no_longer(s in sequences(), params in params()) {
        let radius = radius(params.sigma);
        for (pushed, output) in stream(&s, &params, true) {
            if let LocatorOutput::Final { segment, .. } = output {
                let segment = segment as usize;
                let run = s.spans[segment].run;
                let run_end = s.spans.iter().rposition(|span| span.run == run).unwrap() + 1;
                prop_assert_eq!(pushed, (segment + radius + 1).min(run_end));
            }
        }
    }

    /// Against a second, plain statement of the method.
    #[test]
    fn batch_is_the_method(s in sequences(), params in params()) {
        let located = locate(&s.spans, &s.p, &params, SEGMENT_S).unwrap();
        let r = radius(params.sigma) as i64;
        for i in 0..s.p.len() as i64 {
            let (mut sum, mut inside, mut all) = (0.0, 0.0, 0.0);
            for x in -r..=r {
                let tap = (-((x * x) as f64) / (2.0 * params.sigma * params.sigma)).exp();
                all += tap;
                let at = i + x;
                if at >= 0 && at < s.p.len() as i64
                    && s.spans[at as usize].run == s.spans[i as usize].run {
                    sum += tap * s.p[at as usize];
                    inside += tap;
                }
            }
            let expected = sum / if params.edge == Edge::Zero { all } else { inside };
            prop_assert!((located.smoothed[i as usize] - expected).abs() < 1e-12);
        }
        // Every anomalous segment lies in exactly one event, no other does; neighbours in an event
        // are at most a bridge apart.
        let bridge = params.event_bridge_s.unwrap_or(SEGMENT_S);
        let mut segments_in_events = 0;
        for (event, reason) in &located.events {
            let inside: Vec<usize> = (0..s.p.len())
                .filter(|i| (event.first_frame..=event.last_frame).contains(&s.spans[*i].first_frame))
                .collect();
            segments_in_events += inside.len();
            let p: Vec<f64> = inside.iter().map(|i| located.smoothed[*i]).collect();
            prop_assert!(p.iter().all(|p| *p > params.threshold));
            prop_assert_eq!(event.peak, p.iter().copied().fold(0.0, f64::max));
            prop_assert!((event.mean - p.iter().sum::<f64>() / p.len() as f64).abs() < 1e-12);
            for pair in inside.windows(2) {
                let gap = s.spans[pair[1]].start.saturating_since(s.spans[pair[0]].end);
                prop_assert!(gap.as_secs_f64() <= bridge + 0.001);
            }
            let last = *inside.last().unwrap();
            let after = s.spans.get(last + 1);
            let expected = match after {
                None => EndReason::EndOfStream,
                Some(next) if next.start.saturating_since(s.spans[last].end).as_secs_f64()
                    > bridge + 0.001 => EndReason::Gap,
                Some(_) => EndReason::BelowThreshold,
            };
            prop_assert_eq!(*reason, expected);
        }
        let anomalous = located.smoothed.iter().filter(|p| **p > params.threshold).count();
        prop_assert_eq!(segments_in_events, anomalous);
    }
}

fn plain(sigma: f64, threshold: f64) -> LocatorParams {
    LocatorParams {
        sigma,
        threshold,
        edge: Edge::Renormalize,
        event_bridge_s: None,
    }
}

#[test]
fn a_gap_of_one_segment_keeps_an_event_and_a_longer_one_ends_it() {
    for (gap_tenths, events, reason) in
        [(10, 1, EndReason::BelowThreshold), (11, 2, EndReason::Gap)]
    {
        let mut segments = vec![(0.9, 0); 6];
        segments[3].1 = gap_tenths;
        segments.extend([(0.0, 0); 12]);
        let s = sequence(segments);
        let located = locate(&s.spans, &s.p, &plain(1.5, 0.65), SEGMENT_S).unwrap();
        assert_eq!(located.events.len(), events, "gap of {gap_tenths} tenths");
        assert_eq!(located.events[0].1, reason);
    }
}

#[test]
fn a_short_gap_before_a_normal_segment_is_not_inside_the_event() {
    let mut segments = vec![(0.9, 0); 3];
    segments.push((0.1, 5));
    segments.push((0.1, 0));
    let s = sequence(segments);
    let located = locate(&s.spans, &s.p, &plain(0.5, 0.65), SEGMENT_S).unwrap();
    assert_eq!(located.events.len(), 1);
    let (event, reason) = &located.events[0];
    assert_eq!(event.last_frame, 3 * 48 - 1);
    assert_eq!(*reason, EndReason::BelowThreshold);
}

#[test]
fn time_that_runs_backwards_over_a_gap_ends_an_event() {
    let mut s = sequence(vec![(0.9, 0), (0.9, 0), (0.9, 1), (0.9, 0)]);
    for (i, span) in s.spans.iter_mut().enumerate().skip(2) {
        span.start = MediaTime::from_nanos((i as i64 - 20) * SEGMENT_NS);
        span.end = MediaTime::from_nanos((i as i64 - 19) * SEGMENT_NS);
    }
    let located = locate(&s.spans, &s.p, &plain(1.5, 0.65), SEGMENT_S).unwrap();
    let reasons: Vec<EndReason> = located.events.iter().map(|e| e.1).collect();
    assert_eq!(reasons, [EndReason::Gap, EndReason::EndOfStream]);
}

#[test]
fn what_cannot_be_is_refused() {
    for params in [
        plain(0.0, 0.5),
        plain(f64::NAN, 0.5),
        plain(1000.0, 0.5),
        plain(1.5, 1.5),
    ] {
        assert!(StreamingLocator::new(&params, SEGMENT_S).is_err());
    }
    assert!(StreamingLocator::new(&plain(1.5, 0.65), f64::NAN).is_err());
    let s = sequence(vec![(0.5, 0); 2]);
    assert!(locate(&s.spans, &[0.5], &plain(1.5, 0.65), SEGMENT_S).is_err());
    assert!(locate(&s.spans, &[0.5, f64::NAN], &plain(1.5, 0.65), SEGMENT_S).is_err());
    let mut locator = StreamingLocator::new(&plain(1.5, 0.65), SEGMENT_S).unwrap();
    assert!(locator.push(s.spans[0], 1.01).is_err());
    assert_eq!(locator.push(s.spans[0], 1.0).unwrap().len(), 1);
    locator.end_run();
    assert!(locator.push(s.spans[1], 0.5).is_err());
    assert_eq!(smooth(&[], 1.5, Edge::Zero), Vec::<f64>::new());
}
