//! The engine's promises: order, bounds, cancellation, deadlines, fairness, faults, shutdown.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests fail like tests

mod doubles;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use doubles::{FAIL, FINGERPRINT, FakeProbe, Log, PANIC, Turnstile, job};
use headhunt::{
    engine::{Engine, EngineConfig, EngineHandle, Health, Lane},
    error::Kind,
    head::{HeadId, HeadSelection},
    limits::PROBE_FAILURES_MAX,
    media::SharedImage,
    telemetry::{metrics::Stage, traces::Stages},
};

struct Bench {
    engine: Engine,
    handle: EngineHandle,
    turnstile: Arc<Turnstile>,
    log: Log,
    fingerprints: Arc<AtomicUsize>,
    room: Arc<AtomicUsize>,
}

/// An engine past its warm-up, with nothing in the log.
async fn bench(config: EngineConfig) -> Bench {
    bench_of(FakeProbe::new(), config).await
}

/// The same with all layers, and so many clips a pass at most.
async fn whole_bench(max_batch: usize) -> Bench {
    let mut probe = FakeProbe::new();
    probe.info.resident_layers = probe.info.layers;
    let mut config = config();
    config.max_batch = max_batch;
    bench_of(probe, config).await
}

async fn bench_of(probe: FakeProbe, config: EngineConfig) -> Bench {
    let (turnstile, log) = (probe.turnstile.clone(), probe.log.clone());
    let fingerprints = probe.fingerprints.clone();
    let room = probe.room.clone();
    let engine = Engine::start(Box::new(probe), config).unwrap();
    let handle = engine.handle();
    handle.ready().await.unwrap();
    log.lock().unwrap().clear();
    Bench {
        engine,
        handle,
        turnstile,
        log,
        fingerprints,
        room,
    }
}

fn config() -> EngineConfig {
    EngineConfig {
        queue_capacity: 16,
        max_queue_wait: Duration::from_secs(60),
        join_timeout: Duration::from_secs(10),
        ..EngineConfig::default()
    }
}

impl Bench {
    /// Puts a pass on a held turnstile, so that all later segments wait in the queue.
    async fn hold(&self) -> headhunt::engine::Ticket {
        self.turnstile.close();
        let ticket = self.handle.submit(job(1, Lane::Upload, 999)).await.unwrap();
        let turnstile = self.turnstile.clone();
        tokio::task::spawn_blocking(move || turnstile.wait_for_arrival())
            .await
            .unwrap();
        ticket
    }

    fn logged(&self) -> Vec<Vec<u8>> {
        self.log.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn a_warm_up_pass_runs_before_it_is_ready() {
    let probe = FakeProbe::new();
    let (turnstile, log) = (probe.turnstile.clone(), probe.log.clone());
    turnstile.close();
    let engine = Engine::start(Box::new(probe), config()).unwrap();
    let handle = engine.handle();
    assert_eq!(handle.health(), Health::WarmingUp);
    assert!(!*handle.warm().borrow());
    turnstile.open();
    handle.ready().await.unwrap();
    assert_eq!(log.lock().unwrap().len(), 3);
    assert_eq!(handle.health(), Health::Serving);
    assert!(handle.load().segments_per_second > 0.0);
}

#[tokio::test]
async fn a_cold_first_pass_does_not_measure_the_model() {
    let probe = FakeProbe::new();
    let turnstile = probe.turnstile.clone();
    turnstile.close();
    let engine = Engine::start(Box::new(probe), config()).unwrap();
    let handle = engine.handle();
    tokio::time::sleep(Duration::from_millis(500)).await;
    turnstile.open();
    handle.ready().await.unwrap();
    // The first pass alone would make 2.
    let measured = handle.load().segments_per_second;
    assert!(measured > 20.0, "{measured}");
}

#[tokio::test]
async fn a_failed_warm_up_is_told_to_everybody() {
    let mut probe = FakeProbe::new();
    // Frames without bytes: the double indexes into them and panics.
    probe.info.image_side = 0;
    let engine = Engine::start(Box::new(probe), config()).unwrap();
    let handle = engine.handle();
    let error = handle.ready().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
    assert!(error.message().contains("warm-up"), "{error}");
    assert!(matches!(handle.health(), Health::Stopped(_)));
    let error = handle.fingerprint(1).await.unwrap_err();
    assert!(error.message().contains("warm-up"), "{error}");
}

#[tokio::test]
async fn a_batch_equals_its_singles_and_only_equals_share_a_pass() {
    let mut config = config();
    config.max_batch = 4;
    let bench = bench(config).await;
    let mut singles = Vec::new();
    for grey in [10, 20, 30, 40, 50] {
        let ticket = bench.handle.submit(job(grey, Lane::Live, 0)).await.unwrap();
        singles.push(ticket.await.unwrap());
    }
    let held = bench.hold().await;
    bench.log.lock().unwrap().clear();
    let mut tickets = Vec::new();
    for (n, grey) in [10, 20, 30, 40, 50].into_iter().enumerate() {
        // The same words in another allocation still count as the same prompts.
        let job = job(grey, Lane::Live, n as u64);
        tickets.push(bench.handle.submit(job).await.unwrap());
    }
    let mut other = job(60, Lane::Live, 77);
    other.prompts = vec!["anything else?".to_owned()].into();
    let other = bench.handle.submit(other).await.unwrap();
    let mut longer = job(70, Lane::Live, 78);
    longer.clip.frames.push(longer.clip.frames[0].clone());
    let longer = bench.handle.submit(longer).await.unwrap();
    bench.turnstile.open();
    held.await.unwrap();
    for (ticket, single) in tickets.into_iter().zip(singles) {
        assert_eq!(ticket.await.unwrap(), single);
    }
    other.await.unwrap();
    longer.await.unwrap();
    let batches = bench.logged();
    assert_eq!(
        batches,
        [vec![1], vec![10, 20, 30, 40], vec![50], vec![60], vec![70]]
    );
}

fn only(heads: &[[usize; 2]]) -> HeadSelection {
    HeadSelection::Only(heads.iter().copied().map(HeadId::from).collect())
}

/// Segments of profiles that share prompts: other heads, other orders, shallow and deep.
fn selections() -> [HeadSelection; 4] {
    [
        only(&[[1, 0]]),
        only(&[[2, 1], [0, 0], [1, 1]]),
        only(&[[0, 0]]),
        only(&[[1, 1], [1, 0]]),
    ]
}

#[tokio::test]
async fn one_pass_serves_profiles_that_share_prompts() {
    let mut config = config();
    config.max_batch = 4;
    let bench = bench(config).await;
    let mut singles = Vec::new();
    for (grey, heads) in (10..).zip(selections()) {
        let mut job = job(grey, Lane::Live, 0);
        job.heads = heads;
        let ticket = bench.handle.submit(job).await.unwrap();
        singles.push(ticket.await.unwrap());
    }
    let held = bench.hold().await;
    bench.log.lock().unwrap().clear();
    let mut tickets = Vec::new();
    for (n, (grey, heads)) in (10..).zip(selections()).enumerate() {
        let mut job = job(grey, Lane::Live, n as u64);
        job.heads = heads;
        tickets.push(bench.handle.submit(job).await.unwrap());
    }
    bench.turnstile.open();
    held.await.unwrap();
    for (ticket, single) in tickets.into_iter().zip(singles) {
        assert_eq!(ticket.await.unwrap(), single);
    }
    assert_eq!(bench.logged(), [vec![1], vec![10, 11, 12, 13]]);
}

#[tokio::test]
async fn all_heads_and_a_few_share_a_pass() {
    let bench = whole_bench(2).await;
    let asked = [only(&[[3, 1], [0, 1]]), HeadSelection::All];
    let job_of = |n: usize| {
        let mut job = job(20, Lane::Offline, n as u64);
        job.heads = asked[n].clone();
        job
    };
    let mut singles = Vec::new();
    for n in 0..asked.len() {
        let ticket = bench.handle.submit(job_of(n)).await.unwrap();
        singles.push(ticket.await.unwrap());
    }
    let held = bench.hold().await;
    bench.log.lock().unwrap().clear();
    let mut tickets = Vec::new();
    for n in 0..asked.len() {
        tickets.push(bench.handle.submit(job_of(n)).await.unwrap());
    }
    bench.turnstile.open();
    held.await.unwrap();
    for (ticket, single) in tickets.into_iter().zip(singles) {
        assert_eq!(ticket.await.unwrap(), single);
    }
    assert_eq!(bench.logged(), [vec![1], vec![20, 20]]);
}

/// A hunt's segment needs all layers; a camera's that rode with it would wait for them.
#[tokio::test]
async fn jobs_do_not_ride_with_detections() {
    let bench = whole_bench(4).await;
    let held = bench.hold().await;
    bench.log.lock().unwrap().clear();
    let few = || only(&[[3, 1], [0, 1]]);
    let mut tickets = Vec::new();
    for (grey, lane, heads) in [
        (20, Lane::Live, few()),
        (21, Lane::Offline, HeadSelection::All),
        (22, Lane::Upload, few()),
        (23, Lane::Offline, HeadSelection::All),
    ] {
        let mut job = job(grey, lane, u64::from(grey));
        job.heads = heads;
        tickets.push(bench.handle.submit(job).await.unwrap());
    }
    bench.turnstile.open();
    held.await.unwrap();
    for ticket in tickets {
        ticket.await.unwrap();
    }
    assert_eq!(bench.logged(), [vec![1], vec![20, 22], vec![21, 23]]);
}

#[tokio::test]
async fn features_that_are_no_numbers_one_after_another_are_unhealthy() {
    let bench = bench(config()).await;
    for _ in 0..PROBE_FAILURES_MAX {
        assert_eq!(bench.handle.health(), Health::Serving);
        let ticket = bench.handle.submit(job(FAIL, Lane::Live, 0)).await.unwrap();
        assert_eq!(ticket.await.unwrap_err().kind(), Kind::DataLoss);
    }
    assert!(matches!(bench.handle.health(), Health::Unhealthy(why) if why.contains("failed")));
    let ticket = bench.handle.submit(job(3, Lane::Live, 0)).await.unwrap();
    ticket.await.unwrap();
    assert_eq!(bench.handle.health(), Health::Serving);
}

#[tokio::test]
async fn a_failed_union_is_run_again_with_each_ones_own_heads() {
    let mut config = config();
    config.max_batch = 4;
    let bench = bench(config).await;
    let held = bench.hold().await;
    let mut tickets = Vec::new();
    let greys = [10, FAIL, 30, PANIC];
    for (n, (grey, heads)) in greys.into_iter().zip(selections()).enumerate() {
        let mut job = job(grey, Lane::Live, n as u64);
        job.heads = heads;
        tickets.push(bench.handle.submit(job).await.unwrap());
    }
    bench.turnstile.open();
    held.await.unwrap();
    let mut results = Vec::new();
    for ticket in tickets {
        results.push(ticket.await.map_err(|error| error.kind()));
    }
    assert_eq!(results[1], Err(Kind::DataLoss));
    assert_eq!(results[3], Err(Kind::Internal));
    for n in [0, 2] {
        let mut job = job(greys[n], Lane::Live, 0);
        job.heads = selections()[n].clone();
        let single = bench.handle.submit(job).await.unwrap().await.unwrap();
        assert_eq!(results[n].as_ref(), Ok(&single));
    }
}

#[tokio::test]
async fn batch_wait_collects_late_comers() {
    let mut config = config();
    config.max_batch = 2;
    config.batch_wait = Duration::from_secs(20);
    let bench = bench(config).await;
    let first = bench.handle.submit(job(10, Lane::Live, 0)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let second = bench.handle.submit(job(20, Lane::Live, 1)).await.unwrap();
    let started = Instant::now();
    first.await.unwrap();
    second.await.unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "a full batch waits no longer"
    );
    assert_eq!(bench.logged(), [[10, 20]]);
}

#[tokio::test]
async fn lanes_are_bounded_apart_and_a_full_one_refuses_or_waits() {
    let bench = bench(config()).await;
    let held = bench.hold().await;
    // 16 segments: 8 live, 4 upload, 4 offline.
    let mut tickets = Vec::new();
    for n in 0..4 {
        tickets.push(
            bench
                .handle
                .try_submit(job(n, Lane::Upload, n.into()))
                .unwrap(),
        );
    }
    let error = bench
        .handle
        .try_submit(job(9, Lane::Upload, 9))
        .err()
        .unwrap();
    assert_eq!(error.kind(), Kind::ResourceExhausted);
    for n in 0..8 {
        let live = bench.handle.try_submit(job(100 + n, Lane::Live, n.into()));
        tickets.push(live.expect("uploads do not take the live lane's room"));
    }
    assert!(bench.handle.try_submit(job(9, Lane::Live, 9)).is_err());
    assert_eq!(bench.handle.load().queued, 12);
    assert_eq!(bench.handle.load().capacity, 16);
    // One that waits gets in when a pass takes one out.
    let handle = bench.handle.clone();
    let waits = tokio::spawn(async move { handle.submit(job(200, Lane::Upload, 9)).await?.await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waits.is_finished());
    assert_eq!(bench.handle.queued(Lane::Upload), 4);
    bench.turnstile.open();
    waits.await.unwrap().unwrap();
    held.await.unwrap();
    for ticket in tickets {
        ticket.await.unwrap();
    }
    assert_eq!(bench.handle.load().queued, 0);
}

#[tokio::test]
async fn no_room_in_time_is_resource_exhausted() {
    let mut config = config();
    config.max_queue_wait = Duration::from_millis(100);
    let bench = bench(config).await;
    let held = bench.hold().await;
    let waiting: Vec<_> = (0..4)
        .map(|n| bench.handle.try_submit(job(n, Lane::Offline, 0)).unwrap())
        .collect();
    let error = bench
        .handle
        .submit(job(5, Lane::Offline, 5))
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), Kind::ResourceExhausted);
    bench.turnstile.open();
    held.await.unwrap();
    for ticket in waiting {
        assert_eq!(ticket.await.unwrap_err().kind(), Kind::DeadlineExceeded);
    }
    assert_eq!(bench.logged(), [[1]]);
}

#[tokio::test]
async fn a_jobs_own_deadline_bounds_its_wait_for_room() {
    let bench = bench(config()).await;
    let held = bench.hold().await;
    let waiting: Vec<_> = (0..4)
        .map(|n| bench.handle.try_submit(job(n, Lane::Offline, 0)).unwrap())
        .collect();
    let mut urgent = job(5, Lane::Offline, 5);
    urgent.deadline = Some(Instant::now() + Duration::from_millis(30));
    let started = Instant::now();
    let error = bench.handle.submit(urgent).await.err().unwrap();
    assert_eq!(error.kind(), Kind::ResourceExhausted);
    // max_queue_wait is 60 s.
    assert!(started.elapsed() < Duration::from_secs(30));
    bench.turnstile.open();
    held.await.unwrap();
    for ticket in waiting {
        ticket.await.unwrap();
    }
}

#[tokio::test]
async fn a_deadline_is_told_to_its_own_job_alone() {
    let bench = bench(config()).await;
    let held = bench.hold().await;
    let mut late = job(10, Lane::Live, 0);
    late.deadline = Some(Instant::now() + Duration::from_millis(20));
    let late = bench.handle.submit(late).await.unwrap();
    let other = bench.handle.submit(job(20, Lane::Live, 0)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(60)).await;
    bench.turnstile.open();
    assert_eq!(late.await.unwrap_err().kind(), Kind::DeadlineExceeded);
    other.await.unwrap();
    held.await.unwrap();
    assert_eq!(bench.logged(), [[1], [20]]);
}

#[tokio::test]
async fn who_leaves_frees_the_queue_at_once() {
    let bench = bench(config()).await;
    let held = bench.hold().await;
    let mut tickets: Vec<_> = (0..4)
        .map(|n| bench.handle.try_submit(job(n, Lane::Upload, 0)).unwrap())
        .collect();
    assert!(bench.handle.try_submit(job(5, Lane::Upload, 0)).is_err());
    // A dropped ticket: during the pass, not after it.
    drop(tickets.pop());
    assert_eq!(bench.handle.queued(Lane::Upload), 3);
    let cancelled = job(6, Lane::Upload, 0);
    let token = cancelled.cancel.clone();
    let cancelled = bench.handle.try_submit(cancelled).unwrap();
    // A cancelled token: as soon as its room is wanted, and at the end of the pass anyway.
    token.cancel();
    let next = bench.handle.try_submit(job(7, Lane::Upload, 0)).unwrap();
    assert_eq!(cancelled.await.unwrap_err().kind(), Kind::Cancelled);
    // One that waits for room when its token fires.
    let waits = job(8, Lane::Upload, 0);
    let token = waits.cancel.clone();
    let handle = bench.handle.clone();
    let waits = tokio::spawn(async move { handle.submit(waits).await.map(|_| ()) });
    tokio::time::sleep(Duration::from_millis(20)).await;
    token.cancel();
    assert_eq!(waits.await.unwrap().unwrap_err().kind(), Kind::Cancelled);
    bench.turnstile.open();
    held.await.unwrap();
    next.await.unwrap();
    for ticket in tickets {
        ticket.await.unwrap();
    }
    assert_eq!(bench.logged(), [[1], [0], [1], [2], [7]]);
}

#[tokio::test]
async fn a_token_that_fires_in_the_queue_answers_after_the_pass() {
    let bench = bench(config()).await;
    let held = bench.hold().await;
    let job = job(6, Lane::Live, 0);
    let token = job.cancel.clone();
    let ticket = bench.handle.submit(job).await.unwrap();
    token.cancel();
    bench.turnstile.open();
    assert_eq!(ticket.await.unwrap_err().kind(), Kind::Cancelled);
    held.await.unwrap();
    assert_eq!(bench.logged(), [[1]]);
}

#[tokio::test]
async fn uploads_and_offline_work_get_on_under_constant_live_load() {
    let bench = bench(config()).await;
    let held = bench.hold().await;
    let mut tickets = Vec::new();
    for n in 0..4 {
        tickets.push(bench.handle.try_submit(job(100, Lane::Upload, n)).unwrap());
        tickets.push(bench.handle.try_submit(job(200, Lane::Offline, n)).unwrap());
    }
    // A live client that always has the next segment waiting.
    let handle = bench.handle.clone();
    let live = tokio::spawn(async move {
        for _ in 0..60 {
            let mut pair = Vec::new();
            for stream in 0..4 {
                pair.push(handle.submit(job(50, Lane::Live, stream)).await.unwrap());
            }
            drop(pair.pop().unwrap().await.unwrap());
            for ticket in pair {
                ticket.await.unwrap();
            }
        }
    });
    eventually_async("the live lane is filled", || {
        bench.handle.queued(Lane::Live) >= 4
    })
    .await;
    bench.turnstile.open();
    held.await.unwrap();
    live.await.unwrap();
    for ticket in tickets {
        ticket.await.unwrap();
    }
    let order: Vec<u8> = bench.logged().into_iter().flatten().collect();
    let nth = |grey: u8, n: usize| {
        order
            .iter()
            .enumerate()
            .filter(|(_, g)| **g == grey)
            .nth(n)
            .unwrap()
            .0
    };
    for n in 0..4 {
        assert!(
            nth(100, n) <= 10 * (n + 1),
            "upload {n} went as number {}",
            nth(100, n)
        );
        assert!(
            nth(200, n) <= 10 * (n + 1),
            "offline {n} went as number {}",
            nth(200, n)
        );
    }
}

async fn eventually_async(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("after 10 s still not: {what}");
}

#[tokio::test]
async fn a_panic_or_failure_spoils_its_own_segment_alone() {
    let mut config = config();
    config.max_batch = 4;
    let bench = bench(config).await;
    let held = bench.hold().await;
    let mut tickets = Vec::new();
    for (n, grey) in [10, PANIC, FAIL, 20].into_iter().enumerate() {
        let job = job(grey, Lane::Live, n as u64);
        tickets.push(bench.handle.submit(job).await.unwrap());
    }
    bench.turnstile.open();
    held.await.unwrap();
    let mut results = Vec::new();
    for ticket in tickets {
        results.push(ticket.await.map_err(|error| error.kind()));
    }
    assert!(results[0].is_ok());
    assert_eq!(results[1], Err(Kind::Internal));
    assert_eq!(results[2], Err(Kind::DataLoss));
    assert!(results[3].is_ok());
    assert_eq!(bench.handle.health(), Health::Serving);
}

#[tokio::test]
async fn stages_are_noted_down_for_those_who_ask() {
    let mut config = config();
    config.max_batch = 4;
    let bench = bench(config).await;
    let held = bench.hold().await;
    let mut waiting = Vec::new();
    for grey in [10, FAIL] {
        let mut job = job(grey, Lane::Live, u64::from(grey));
        let stages = Arc::new(Stages::default());
        job.stages = Some(stages.clone());
        let before = Instant::now();
        waiting.push((before, stages, bench.handle.submit(job).await.unwrap()));
    }
    bench.turnstile.open();
    held.await.unwrap();
    for (before, stages, ticket) in waiting {
        let _ = ticket.await;
        let times = stages.so_far();
        // Both failed together, and then each had a pass of its own.
        let seen: Vec<_> = times.iter().map(|time| (time.stage, time.clips)).collect();
        assert_eq!(
            seen,
            [(Stage::Queue, 1), (Stage::Pass, 2), (Stage::Pass, 1)]
        );
        let mut last = before;
        for time in times {
            assert!(last <= time.from && time.from <= time.to);
            last = time.to;
        }
    }
}

/// Grey levels of the clips of each pass after those of `held`, for eight segments in one go.
async fn eight_segments(bench: &Bench, lane: Lane) -> (Vec<Result<(), Kind>>, Vec<Vec<u8>>) {
    let held = bench.hold().await;
    let mut tickets = Vec::new();
    for grey in 10..18 {
        let job = job(grey, lane, u64::from(grey));
        tickets.push(bench.handle.submit(job).await.unwrap());
    }
    bench.turnstile.open();
    held.await.unwrap();
    let mut results = Vec::new();
    for ticket in tickets {
        results.push(ticket.await.map(|_| ()).map_err(|error| error.kind()));
    }
    let passes = bench.logged().split_off(1);
    bench.log.lock().unwrap().clear();
    (results, passes)
}

#[tokio::test]
async fn a_batch_that_finds_no_memory_is_halved_and_later_ones_fit() {
    let mut config = config();
    config.max_batch = 8;
    let bench = bench(config).await;
    bench.room.store(3, SeqCst);
    let (results, passes) = eight_segments(&bench, Lane::Live).await;
    assert_eq!(results, vec![Ok(()); 8]);
    let sizes = |passes: &[Vec<u8>]| passes.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(sizes(&passes), [8, 4, 2, 2, 4, 2, 2]);
    let scored: Vec<u8> = (passes
        .iter()
        .filter(|pass| pass.len() <= 3)
        .flatten()
        .copied())
    .collect();
    assert_eq!(scored, (10..18).collect::<Vec<u8>>());

    // What fitted is remembered.
    let (results, passes) = eight_segments(&bench, Lane::Live).await;
    assert_eq!(results, vec![Ok(()); 8]);
    assert_eq!(sizes(&passes), [2, 2, 2, 2]);

    // Where not even one fits, its stream is told.
    bench.room.store(0, SeqCst);
    let segment = bench.handle.submit(job(10, Lane::Live, 1)).await.unwrap();
    let error = segment.await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::ResourceExhausted);
    assert!(error.to_string().contains("memory"), "{error}");
    assert_eq!(bench.handle.health(), Health::Serving);
}

#[tokio::test]
async fn jobs_that_find_no_memory_leave_the_batches_of_detections_as_they_are() {
    let mut config = config();
    config.max_batch = 8;
    // A quarter of it is for jobs.
    config.queue_capacity = 32;
    let bench = bench(config).await;
    bench.room.store(3, SeqCst);
    let (results, passes) = eight_segments(&bench, Lane::Offline).await;
    assert_eq!(results, vec![Ok(()); 8]);
    assert_eq!(passes.iter().map(Vec::len).max(), Some(8));
    bench.room.store(usize::MAX, SeqCst);
    let (_, passes) = eight_segments(&bench, Lane::Live).await;
    assert_eq!(passes.iter().map(Vec::len).collect::<Vec<_>>(), [8]);
    // Theirs are remembered.
    let (_, passes) = eight_segments(&bench, Lane::Offline).await;
    assert_eq!(passes.iter().map(Vec::len).max(), Some(2));
}

#[tokio::test]
async fn panics_in_a_row_are_unhealthy_until_a_pass_goes_well() {
    let bench = bench(config()).await;
    for _ in 0..3 {
        let ticket = bench
            .handle
            .submit(job(PANIC, Lane::Live, 0))
            .await
            .unwrap();
        let error = ticket.await.unwrap_err();
        assert_eq!(error.kind(), Kind::Internal);
        assert!(
            error.message().contains("the double was told to"),
            "{error}"
        );
    }
    assert!(matches!(bench.handle.health(), Health::Unhealthy(why) if why.contains("panicked")));
    let ticket = bench.handle.submit(job(3, Lane::Live, 0)).await.unwrap();
    ticket.await.unwrap();
    assert_eq!(bench.handle.health(), Health::Serving);
}

#[tokio::test]
async fn the_heart_beats_when_idle_and_a_stuck_pass_is_unhealthy() {
    let mut config = config();
    config.stall_after = Duration::from_millis(100);
    let bench = bench(config).await;
    let first = bench.handle.heartbeat();
    eventually_async("the next beat", || bench.handle.heartbeat() > first).await;
    let held = bench.hold().await;
    eventually_async("the stall is seen", || {
        matches!(bench.handle.health(), Health::Unhealthy(_))
    })
    .await;
    bench.turnstile.open();
    held.await.unwrap();
    eventually_async("it recovers", || bench.handle.health() == Health::Serving).await;
}

#[tokio::test]
async fn what_the_model_cannot_run_is_refused_before_it_waits() {
    let bench = bench(config()).await;
    let refused = |job| bench.handle.try_submit(job).err().unwrap();
    let mut empty = job(1, Lane::Live, 0);
    empty.clip.frames.clear();
    assert_eq!(refused(empty).kind(), Kind::InvalidArgument);
    let mut small = job(1, Lane::Live, 0);
    // Only a model that resizes takes them.
    small.clip.frames[1] = SharedImage::square(1, vec![0; 3]);
    assert_eq!(refused(small).kind(), Kind::InvalidArgument);
    let mut cut = job(1, Lane::Live, 0);
    cut.clip.frames[1].data = vec![0; 5].into();
    assert_eq!(refused(cut).kind(), Kind::InvalidArgument);
    let mut mute = job(1, Lane::Live, 0);
    mute.prompts = Vec::new().into();
    assert_eq!(refused(mute).kind(), Kind::InvalidArgument);
    let mut blank = job(1, Lane::Live, 0);
    blank.prompts = vec!["  ".to_owned()].into();
    assert_eq!(refused(blank).kind(), Kind::InvalidArgument);
    let mut none = job(1, Lane::Live, 0);
    none.heads = HeadSelection::Only(Vec::new());
    assert_eq!(refused(none).kind(), Kind::InvalidArgument);
    let mut deep = job(1, Lane::Live, 0);
    deep.heads = HeadSelection::Only(vec![HeadId { layer: 3, head: 0 }]);
    assert_eq!(refused(deep).kind(), Kind::FailedPrecondition);
    let mut wide = job(1, Lane::Live, 0);
    wide.heads = HeadSelection::Only(vec![HeadId { layer: 0, head: 2 }]);
    assert_eq!(refused(wide).kind(), Kind::FailedPrecondition);
    let mut all = job(1, Lane::Live, 0);
    all.heads = HeadSelection::All;
    assert_eq!(refused(all).kind(), Kind::FailedPrecondition);
    assert!(bench.logged().is_empty());
}

#[tokio::test]
async fn fingerprints_are_computed_once_on_the_thread_and_kept() {
    let bench = bench(config()).await;
    let held = bench.hold().await;
    // Both wait for the same one.
    let two = [2, 2].map(|layers| {
        let handle = bench.handle.clone();
        tokio::spawn(async move { handle.fingerprint(layers).await })
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    bench.turnstile.open();
    held.await.unwrap();
    for one in two {
        assert_eq!(one.await.unwrap().unwrap(), FINGERPRINT);
    }
    assert_eq!(bench.fingerprints.load(SeqCst), 1);
    let error = bench.handle.fingerprint(4).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    // Known: no need for the thread, which is busy.
    let held = bench.hold().await;
    assert_eq!(bench.handle.fingerprint(2).await.unwrap(), FINGERPRINT);
    bench.turnstile.open();
    held.await.unwrap();
}

#[tokio::test]
async fn shutdown_refuses_what_waits_and_joins() {
    let bench = bench(config()).await;
    let held = bench.hold().await;
    let waiting = bench.handle.submit(job(10, Lane::Upload, 0)).await.unwrap();
    let Bench {
        engine,
        handle,
        turnstile,
        ..
    } = bench;
    let stop = tokio::task::spawn_blocking(move || engine.shutdown());
    eventually_async("it closes", || {
        matches!(handle.health(), Health::Stopped(_))
    })
    .await;
    let late = handle.submit(job(11, Lane::Upload, 0)).await.err().unwrap();
    assert_eq!(late.kind(), Kind::Unavailable);
    turnstile.open();
    stop.await.unwrap().unwrap();
    held.await.expect("the pass in progress is finished");
    assert_eq!(waiting.await.unwrap_err().kind(), Kind::Unavailable);
    let late = handle.try_submit(job(11, Lane::Upload, 0)).err().unwrap();
    assert_eq!(late.kind(), Kind::Unavailable);
    assert_eq!(handle.load().queued, 0);
}

#[tokio::test]
async fn shutdown_drains_where_it_has_time() {
    let mut config = config();
    config.drain = Duration::from_secs(10);
    let bench = bench(config).await;
    let held = bench.hold().await;
    let waiting = bench.handle.submit(job(10, Lane::Upload, 0)).await.unwrap();
    let Bench {
        engine, turnstile, ..
    } = bench;
    let stop = tokio::task::spawn_blocking(move || engine.shutdown());
    turnstile.open();
    stop.await.unwrap().unwrap();
    held.await.unwrap();
    waiting.await.unwrap();
}

#[tokio::test]
async fn a_stuck_pass_cannot_hold_shutdown_for_ever() {
    let mut config = config();
    config.join_timeout = Duration::from_millis(50);
    let bench = bench(config).await;
    let _held = bench.hold().await;
    let Bench {
        engine, turnstile, ..
    } = bench;
    let stop = tokio::task::spawn_blocking(move || engine.shutdown());
    let error = stop.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::DeadlineExceeded);
    turnstile.open();
}

#[test]
fn nonsense_configuration_is_refused_by_key() {
    for (config, key) in [
        (
            EngineConfig {
                queue_capacity: 2,
                ..config()
            },
            "queue_capacity",
        ),
        (
            EngineConfig {
                queue_capacity: 1 << 20,
                ..config()
            },
            "queue_capacity",
        ),
        (
            EngineConfig {
                max_batch: 0,
                ..config()
            },
            "max_batch",
        ),
        (
            EngineConfig {
                max_queue_wait: Duration::ZERO,
                ..config()
            },
            "max_queue_wait",
        ),
    ] {
        let error = Engine::start(Box::new(FakeProbe::new()), config)
            .err()
            .unwrap();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        assert!(error.message().contains(key), "{error}");
    }
    let lanes = |capacity| {
        let config = EngineConfig {
            queue_capacity: capacity,
            ..config()
        };
        Lane::ALL.map(|lane| config.lane_capacity(lane))
    };
    assert_eq!(lanes(3), [1, 1, 1]);
    assert_eq!(lanes(32), [16, 8, 8]);
    assert_eq!(lanes(7), [5, 1, 1]);
}

#[tokio::test]
async fn a_device_that_fails_every_pass_is_told() {
    let bench = bench(config()).await;
    bench.room.store(0, SeqCst);
    for n in 0..10 {
        assert_eq!(bench.handle.health(), Health::Serving, "after {n}");
        let error = bench.handle.submit(job(1, Lane::Live, 0)).await.unwrap();
        assert_eq!(error.await.unwrap_err().kind(), Kind::ResourceExhausted);
    }
    let Health::Unhealthy(why) = bench.handle.health() else {
        panic!("it is said to serve")
    };
    assert!(why.contains("failed in its last 10 passes"), "{why}");
    // One that works says that it has come back.
    bench.room.store(usize::MAX, SeqCst);
    let ticket = bench.handle.submit(job(1, Lane::Live, 0)).await.unwrap();
    ticket.await.unwrap();
    assert_eq!(bench.handle.health(), Health::Serving);
}

#[tokio::test]
async fn one_that_is_not_asked_any_more_shows_by_itself_that_it_works_again() {
    let bench = bench(EngineConfig {
        check_every: Duration::from_millis(20),
        ..config()
    })
    .await;
    bench.room.store(0, SeqCst);
    for _ in 0..10 {
        let error = bench.handle.submit(job(1, Lane::Live, 0)).await.unwrap();
        error.await.unwrap_err();
    }
    assert!(matches!(bench.handle.health(), Health::Unhealthy(_)));
    bench.room.store(usize::MAX, SeqCst);
    for _ in 0..500 {
        if bench.handle.health() == Health::Serving {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{:?}", bench.handle.health());
}

#[tokio::test]
async fn the_passes_of_jobs_that_lack_memory_take_no_engine_out_of_service() {
    let bench = bench(config()).await;
    bench.room.store(0, SeqCst);
    for _ in 0..20 {
        let error = bench.handle.submit(job(1, Lane::Offline, 0)).await.unwrap();
        assert_eq!(error.await.unwrap_err().kind(), Kind::ResourceExhausted);
    }
    assert_eq!(bench.handle.health(), Health::Serving);
}
