use proptest::prelude::*;

use super::*;
use crate::feedback::doubles::{NUMBERS, SEGMENT, profile, span, z};

fn binding() -> Arc<Binding> {
    Arc::new(Binding::of(&profile("cam")).unwrap())
}

fn entry(n: u64, binding: &Arc<Binding>, z: Option<Vec<f32>>) -> Entry {
    Entry {
        segment: n,
        span: span(n),
        p: 0.5,
        binding: binding.clone(),
        z: z.map(Arc::from),
    }
}

/// Segments that a lookup found, with whether their features are there.
fn seen(entries: &[Entry]) -> Vec<(u64, bool)> {
    entries.iter().map(|e| (e.segment, e.z.is_some())).collect()
}

fn at(segments: f64) -> MediaTime {
    MediaTime::from_nanos((SEGMENT.as_nanos() as f64 * segments) as i64)
}

#[test]
fn old_features_go_and_their_places_stay() {
    let binding = binding();
    let mut ring = Ring::new(SEGMENT * 3, usize::MAX);
    for n in 0..6 {
        ring.push(entry(n, &binding, Some(z(n))));
    }
    // The newest ends at 6; the one that ends at 3 is as old as may be.
    let all = ring.within(at(0.0), at(6.0));
    assert_eq!(
        seen(&all),
        [
            (0, false),
            (1, false),
            (2, true),
            (3, true),
            (4, true),
            (5, true)
        ]
    );
    assert_eq!(all[3].z.as_deref(), Some(&z(3)[..]));
    assert_eq!(ring.extent(), Some((at(0.0), at(6.0))));
}

#[test]
fn an_interval_finds_what_it_overlaps_and_not_what_it_touches() {
    let binding = binding();
    let mut ring = Ring::new(SEGMENT * 100, usize::MAX);
    for n in 0..6 {
        ring.push(entry(n, &binding, Some(z(n))));
    }
    assert_eq!(seen(&ring.within(at(2.0), at(3.0))), [(2, true)]);
    assert_eq!(
        seen(&ring.within(at(1.9), at(3.1))),
        [(1, true), (2, true), (3, true)]
    );
    assert!(ring.within(at(6.0), at(9.0)).is_empty());
    assert_eq!(seen(&ring.within(at(5.9), at(9.0))), [(5, true)]);
}

#[test]
fn an_event_has_the_segments_of_its_latest_telling() {
    let binding = binding();
    let mut ring = Ring::new(SEGMENT * 100, usize::MAX);
    for n in 0..6 {
        ring.push(entry(n, &binding, Some(z(n))));
    }
    ring.event(0, 48, 95);
    assert_eq!(seen(&ring.of_event(0).unwrap()), [(1, true)]);
    ring.event(0, 48, 48 * 3 - 1);
    ring.event(1, 48 * 5, 48 * 6 - 1);
    assert_eq!(seen(&ring.of_event(0).unwrap()), [(1, true), (2, true)]);
    assert_eq!(seen(&ring.of_event(1).unwrap()), [(5, true)]);
    assert!(ring.of_event(2).is_none());
}

#[test]
fn a_segment_that_repeats_a_score_has_a_place_and_no_features() {
    let binding = binding();
    let mut ring = Ring::new(SEGMENT * 100, usize::MAX);
    ring.push(entry(0, &binding, Some(z(0))));
    ring.push(entry(1, &binding, None));
    ring.push(entry(2, &binding, Some(z(2))));
    assert_eq!(
        seen(&ring.within(at(0.0), at(3.0))),
        [(0, true), (1, false), (2, true)]
    );
}

#[test]
fn places_and_events_are_bounded_and_the_oldest_go() {
    let binding = binding();
    let mut ring = Ring::new(SEGMENT, usize::MAX);
    let n = limits::FEEDBACK_SEGMENTS_MAX as u64 + 10;
    for n in 0..n {
        ring.push(entry(n, &binding, Some(z(n))));
        ring.event(n, n * 48, n * 48 + 47);
    }
    assert_eq!(ring.entries.len(), limits::FEEDBACK_SEGMENTS_MAX);
    assert_eq!(ring.events.len(), limits::FEEDBACK_EVENTS_MAX);
    assert!(ring.of_event(0).is_none());
    assert_eq!(seen(&ring.of_event(n - 1).unwrap()), [(n - 1, true)]);
    assert_eq!(ring.extent().unwrap().0, at(10.0));
}

proptest! {
    /// Whatever comes: the bytes are counted right and bounded, only the oldest features go, and those
    /// that stay are no older than allowed.
    #[test]
    fn features_are_bounded_in_bytes_and_time(
        keep in 1u32..20,
        max_numbers in 0usize..200,
        segments in prop::collection::vec((1u64..4, 0usize..40, any::<bool>()), 1..80),
    ) {
        let binding = binding();
        let max_bytes = max_numbers * 4;
        let mut ring = Ring::new(SEGMENT * keep, max_bytes);
        let mut n = 0;
        for (step, numbers, gated) in segments {
            n += step; // gaps between segments
            let z = (!gated).then(|| vec![1.0; numbers]);
            ring.push(entry(n, &binding, z));
            let held: Vec<&Entry> = ring.entries.iter().filter(|e| e.z.is_some()).collect();
            let bytes: usize = held.iter().map(|e| bytes_of(e.z.as_ref())).sum();
            prop_assert_eq!(bytes, ring.feature_bytes);
            prop_assert!(bytes <= max_bytes);
            prop_assert!(held.iter().all(|e| span(n).end.saturating_since(e.span.end) <= SEGMENT * keep));
            // What was dropped is older than what was kept.
            let oldest = held.first().map_or(u64::MAX, |e| e.segment);
            prop_assert!(ring.entries.iter().skip(ring.held_from).all(|e| e.segment >= oldest || e.z.is_none()));
            prop_assert!(ring.entries.iter().take(ring.held_from).all(|e| e.z.is_none()));
        }
        prop_assert!(ring.bytes() >= ring.feature_bytes);
    }
}

#[test]
fn what_does_not_fit_by_itself_is_not_kept() {
    let binding = binding();
    let mut ring = Ring::new(SEGMENT * 100, NUMBERS * 4 - 1);
    ring.push(entry(0, &binding, Some(z(0))));
    assert_eq!(seen(&ring.within(at(0.0), at(1.0))), [(0, false)]);
}
