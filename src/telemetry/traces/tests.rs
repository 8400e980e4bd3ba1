use metrics_exporter_prometheus::PrometheusBuilder;

use super::*;
use crate::{error::Error, limits::TRACE_STAGES_MAX, telemetry::metrics::Stage};

const METHOD: &str = "headhunt.v1.DetectionService/Detect";

fn traces(queue_spans: usize, ratio: f64) -> (Traces, mpsc::Receiver<Span>) {
    let (sender, queue) = mpsc::channel(queue_spans);
    (Traces::new(sender, ratio), queue)
}

fn begin(traces: &Traces) -> RunningCall {
    traces.begin(METHOD, None).unwrap()
}

fn stages(names: &[Stage]) -> Vec<StageTime> {
    let mut at = Instant::now();
    let mut times = Vec::new();
    for stage in names {
        let to = Instant::now();
        times.push(StageTime::new(*stage, at, to));
        at = to;
    }
    times
}

fn drain(queue: &mut mpsc::Receiver<Span>) -> Vec<Span> {
    std::iter::from_fn(|| queue.try_recv().ok()).collect()
}

fn parent(sampled: bool) -> Option<Parent> {
    let header = format!(
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0{}",
        u8::from(sampled)
    );
    Parent::of(&[header.as_bytes()], &[])
}

#[test]
fn a_parent_decides_for_its_trace_and_the_ratio_for_the_others() {
    let (none, _queue) = traces(8, 0.0);
    assert!(none.begin(METHOD, None).is_none());
    assert!(none.begin(METHOD, parent(true)).is_some());
    let (all, _queue) = traces(8, 1.0);
    assert!(all.begin(METHOD, parent(false)).is_none());
    assert!((0..1000).all(|_| all.begin(METHOD, None).is_some()));
    assert!(Traces::default().begin(METHOD, parent(true)).is_none());
}

#[test]
fn the_same_trace_is_chosen_by_every_service_of_the_same_ratio() {
    let id = |low: u64| {
        let header = format!(
            "00-{:032x}-b7ad6b7169203331-00",
            (1u128 << 64) | u128::from(low)
        );
        Parent::of(&[header.as_bytes()], &[]).unwrap().trace
    };
    // The bound lies at a quarter of all numbers of 63 bits; the lowest bit does not count.
    assert!(is_sampled(0.25, None, id(0)));
    assert!(is_sampled(0.25, None, id(u64::MAX / 4 - 1024)));
    assert!(!is_sampled(0.25, None, id(u64::MAX / 4 + 1024)));
    assert!(!is_sampled(0.0, None, id(0)));
    assert!(is_sampled(1.0, None, id(u64::MAX)));
}

#[test]
fn a_full_queue_drops_the_spans_of_a_segment_together_and_counts_them() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        let (traces, mut queue) = traces(4, 1.0);
        let running = begin(&traces);
        let times = stages(&[Stage::Decode, Stage::Preprocess]);
        let segment = |number| running.call().segment(number, 0, None, &times);
        segment(0).scored(0.5);
        // Three of four places are taken.
        segment(1).scored(0.5);
        running.end("OK", None);
        begin(&traces).end("OK", None);
        let names: Vec<String> = drain(&mut queue).into_iter().map(|s| s.name).collect();
        assert_eq!(names, ["segment", "decode", "preprocess", METHOD]);
        drop(queue);
        begin(&traces).end("OK", None);
    });
    let text = handle.render();
    assert!(
        text.contains(r#"headhunt_spans_total{outcome="dropped"} 5"#),
        "{text}"
    );
}

#[test]
fn spans_hang_together_and_lie_in_one_another() {
    let (traces, mut queue) = traces(64, 1.0);
    let running = traces.begin(METHOD, parent(true)).unwrap();
    running.call().session("5e55");
    let times = stages(&[Stage::Decode, Stage::Preprocess]);
    let segment = running.call().segment(7, 1, None, &times);
    let score = stages(&[Stage::Score]);
    segment.stages().add(score[0]);
    segment.scored(0.25);
    running.end("INTERNAL", Some("broken"));
    let spans = drain(&mut queue);
    let [segment, children @ .., root] = spans.as_slice() else {
        panic!("{spans:?}");
    };
    assert_eq!(children.len(), 3);
    assert_eq!(root.parent_span_id, 0xb7ad_6b71_6920_3331u64.to_be_bytes());
    assert_eq!(root.status.as_ref().unwrap().message, "broken");
    assert_eq!(segment.parent_span_id, root.span_id);
    for child in children {
        assert_eq!(child.parent_span_id, segment.span_id);
        assert!(segment.start_time_unix_nano <= child.start_time_unix_nano);
        assert!(child.start_time_unix_nano <= child.end_time_unix_nano);
        assert!(child.end_time_unix_nano <= segment.end_time_unix_nano);
    }
    assert!(spans.iter().all(|span| span.trace_id == root.trace_id));
    assert_eq!((root.flags, segment.flags), (0x301, 0x101));
    for span in [root, segment] {
        let session = (span.attributes.iter()).any(|a| a.key == "headhunt.session.id");
        assert!(session, "{span:?}");
    }
}

#[test]
fn what_is_dropped_without_a_word_is_told_as_that() {
    let (traces, mut queue) = traces(64, 1.0);
    let running = begin(&traces);
    drop(running.call().segment(0, 0, None, &[]));
    let left = Error::cancelled("the client left");
    running.call().segment(1, 0, None, &[]).failed(&left);
    running.call().segment(2, 0, None, &[]).shed();
    let long = Error::internal("é".repeat(2000));
    running.call().segment(3, 0, None, &[]).failed(&long);
    drop(running);
    let spans = drain(&mut queue);
    let said: Vec<String> = spans
        .iter()
        .flat_map(|span| &span.attributes)
        .filter(|a| a.key.ends_with("outcome") || a.key.ends_with("status_code"))
        .map(|a| format!("{:?}", a.value.as_ref().unwrap().value))
        .collect();
    for (found, expected) in
        said.iter()
            .zip(["abandoned", "abandoned", "shed", "error", "CANCELLED"])
    {
        assert!(found.contains(expected), "{said:?}");
    }
    let status = spans[3].status.as_ref().unwrap();
    assert_eq!((status.code, status.message.len()), (2, 1024));
}

#[test]
fn stages_are_bounded() {
    let noted = Stages::default();
    for _ in 0..2 * TRACE_STAGES_MAX {
        noted.add(stages(&[Stage::Pass])[0]);
    }
    assert_eq!(noted.so_far().len(), TRACE_STAGES_MAX);
}

#[test]
fn the_clock_follows_a_machine_whose_time_was_set() {
    let clock = WallClock::new();
    let moment = Instant::now();
    let later = moment + Duration::from_micros(3);
    assert_eq!(clock.nanos(later) - clock.nanos(moment), 3000);
    // An hour ago the machine slept for an hour.
    *clock.lock() = (moment, SystemTime::now() - Duration::from_secs(3600));
    clock.follow();
    let off = (SystemTime::now().duration_since(clock.wall(Instant::now())))
        .unwrap_or_else(|e| e.duration());
    assert!(off < Duration::from_secs(60), "{off:?}");
}
