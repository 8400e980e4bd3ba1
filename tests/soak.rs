//! Many cameras for minutes, half of them with faults at random, against the real server as a process
//! of its own: nothing may grow, nothing may be lost without a word, and cameras without faults must
//! not notice those with. Not part of `make test`: `make soak`, with SOAK_SECONDS and SOAK_CAMERAS.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

#[path = "soak/account.rs"]
mod account;
mod camera_support;
#[path = "cli_job/site.rs"]
#[allow(dead_code)]
mod site;
#[path = "soak/trouble.rs"]
mod trouble;

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use account::{Account, HEALS, TOLD, watch};
use camera_support::clips;
use headhunt::{
    limits::WORKER_SPARE_BOARDS,
    rpc::proto::{GetInfoRequest, detection_service_client::DetectionServiceClient},
};
use site::{Process, succeeds, text};
use tokio::task::JoinSet;
use trouble::{Rig, Simulator, break_it, watch_over};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Memory (KiB), threads and descriptors of the server.
#[derive(Clone, Copy, Debug)]
struct Use {
    rss_kib: f64,
    threads: usize,
    files: usize,
}

fn usage(pid: u32) -> Use {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| -> f64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    Use {
        rss_kib: field("VmRSS:"),
        threads: field("Threads:") as usize,
        files: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
    }
}

/// Slope of a least-squares line, units per minute.
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let mean = |f: fn(&(f64, f64)) -> f64| points.iter().map(f).sum::<f64>() / n;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let top: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    60.0 * top / points.iter().map(|p| (p.0 - x).powi(2)).sum::<f64>()
}

/// Of all cameras together, seconds of media time.
#[derive(Default)]
struct Totals {
    segments: u64,
    scored: f64,
    unscored: f64,
    /// By reason.
    gaps: BTreeMap<&'static str, f64>,
    reached: f64,
    /// Least share of a camera without faults that was scored.
    least: Option<f64>,
    /// Of cameras with faults, and the part of it that no fault excuses.
    faulty: f64,
    bare: f64,
    faults: usize,
}

impl Totals {
    /// Adds one camera, which must be in order: alive, without holes, and scored but for its faults.
    fn add(&mut self, name: &str, rig: &Rig, account: &Account, alive: bool, elapsed: Duration) {
        assert!(alive, "{name} ended: {:?}", account.ended);
        assert!(account.holes.is_empty(), "{name}: {:?}", account.holes);
        let untold = elapsed.as_secs_f64() - account.reached;
        assert!(
            untold < TOLD.as_secs_f64(),
            "{name} was told nothing of the last {untold:.1} s: {:?}",
            account.state
        );
        let windows = rig.windows.lock().unwrap();
        if rig.proxy.is_some() {
            self.bare += account.assert_explained(name, &windows);
            self.faulty += account.reached;
            self.faults += windows.len();
        } else if windows.is_empty() {
            let share = account.scored / account.reached;
            assert!(
                share >= 0.99,
                "{name}, without faults: {share:.4} scored, {account:?}"
            );
            self.least = Some(self.least.map_or(share, |least| least.min(share)));
        } else {
            // Its simulator hung; beyond that nothing is excused.
            account.assert_explained(name, &windows);
        }
        self.segments += account.segments;
        self.scored += account.scored;
        self.unscored += account.unscored();
        self.reached += account.reached;
        for gap in &account.gaps {
            *self.gaps.entry(gap.reason).or_default() += gap.to - gap.from;
        }
    }

    fn print(&self, hung: u32) {
        println!(
            "soak: {} segments; {:.1} s scored + {:.1} s in gaps {:.1?} of {:.1} s",
            self.segments, self.scored, self.unscored, self.gaps, self.reached
        );
        println!(
            "soak: without faults at least {:.4} scored; {} faults, none unscored outside them and \
             {} s of healing ({:.0} of {:.0} s); {hung} simulators hung and were started anew",
            self.least.unwrap_or(1.0),
            self.faults,
            HEALS.as_secs(),
            self.bare,
            self.faulty
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: make soak"]
async fn many_cameras_with_faults_for_minutes() {
    let lasts = Duration::from_secs(setting("SOAK_SECONDS", 600));
    let wanted = setting("SOAK_CAMERAS", 64) as usize;
    let dir = tempfile::tempdir().unwrap();
    let (model, profile) = (dir.path().join("model"), dir.path().join("cam.json"));
    succeeds(&[
        "model",
        "synthesize",
        "--preset",
        "demo",
        "--seed",
        "2",
        "--layout",
        "hf",
        "--dtype",
        "f32",
        "--out",
        text(&model),
    ]);
    let manifest = site::site(dir.path());
    succeeds(&[
        "calibrate",
        "--model",
        text(&model),
        "--manifest",
        text(&manifest),
        "--segment-seconds",
        "1.6",
        "--out",
        text(&profile),
    ]);
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_headhunt"))
        .args([
            "serve",
            "--device",
            "cpu",
            "--model",
            text(&model),
            "--profile",
            text(&profile),
        ])
        .args(["--listen", &address.to_string()])
        .env("HEADHUNT__SERVER__METRICS_LISTEN", "")
        .env("HEADHUNT__SOURCES__ALLOW", "127.0.0.0/8")
        .env("HEADHUNT__LOG__LEVEL", "error")
        .env("HEADHUNT__STREAMS__MAX_STREAMS", "128")
        .env("HEADHUNT__CAMERAS__SILENCE_TIMEOUT_S", "4")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let server = Process(child);
    let pid = server.0.id();
    let channel = loop {
        let endpoint =
            tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
        match endpoint.connect().await {
            Ok(channel) => break channel,
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    };
    let mut client = DetectionServiceClient::new(channel);
    let load = client
        .get_info(GetInfoRequest {})
        .await
        .unwrap()
        .into_inner();
    let load = load.load.unwrap();
    let most = (load.live_segments_per_second_max * 1.6 / 2.0) as usize;
    let cameras = wanted.min(most.max(2));
    println!(
        "soak: the model scores {:.1} segments/s; {cameras} of {wanted} cameras for {lasts:?}",
        load.segments_per_second
    );
    let idle = usage(pid);

    let clip = clips::h264();
    let until = Instant::now() + lasts;
    let mut breaking = JoinSet::new();
    let mut guards = JoinSet::new();
    let hung = Arc::new(Mutex::new(0));
    let mut rigs = vec![];
    for i in 0..cameras {
        let name = format!("camera {i}");
        let simulator = Simulator::start(&clip);
        let account = Arc::new(Mutex::new(Account::default()));
        // The odd ones are broken.
        let rig = Rig::new(simulator, i % 2 == 1);
        if rig.proxy.is_some() {
            breaking.spawn(break_it(rig.clone(), i as u64, until));
        }
        guards.spawn(watch_over(rig.clone(), name.clone(), hung.clone()));
        let url = rig.url();
        let began = Instant::now();
        let watching = tokio::spawn(watch(client.clone(), url, account.clone()));
        rigs.push((name, rig, account, watching, began));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let began = Instant::now();
    let mut memory = vec![];
    while Instant::now() < until {
        // Often: what is in use changes with each segment, and that must not look like a slope.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = usage(pid);
        memory.push((began.elapsed().as_secs_f64(), now.rss_kib));
        if memory.len() % 60 == 0 {
            println!("soak: {:.0} s: {now:?}", began.elapsed().as_secs_f64());
        }
    }
    while let Some(broke) = breaking.join_next().await {
        broke.unwrap();
    }
    // The last faults heal, and what was scored since is told.
    tokio::time::sleep(HEALS + TOLD).await;
    assert!(guards.try_join_next().is_none(), "a watchdog ended");
    guards.shutdown().await;

    // Streams are cut by the client.
    let mut totals = Totals::default();
    for (name, rig, account, watching, began) in &rigs {
        let alive = !watching.is_finished();
        watching.abort();
        let account = account.lock().unwrap();
        totals.add(name, rig, &account, alive, began.elapsed());
    }
    totals.print(*hung.lock().unwrap());
    let told = (totals.scored + totals.unscored) / totals.reached;
    assert!(
        (0.98..1.02).contains(&told),
        "{told:.4} of the media time is accounted for"
    );
    assert!(
        totals.least.is_some(),
        "no camera went through without faults"
    );
    assert!(
        totals.bare >= 0.2 * totals.faulty,
        "faults excuse nearly everything: this shows little"
    );

    drop(rigs);
    let slope_kib = slope(&memory[memory.len() / 2..]);
    println!(
        "soak: memory grew by {:.3} MiB/min in the second half",
        slope_kib / 1024.0
    );
    let mut after = usage(pid);
    // The memory of decoder processes that have ended is kept, some of it, for the next ones.
    let files = idle.files + 4 + WORKER_SPARE_BOARDS;
    for _ in 0..60 {
        if after.threads <= idle.threads + 2 && after.files <= files {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        after = usage(pid);
    }
    println!("soak: before {idle:?}, after {after:?}");
    assert!(
        slope_kib <= 1024.0,
        "memory grows by {slope_kib:.0} KiB/min"
    );
    assert!(after.threads <= idle.threads + 2, "{idle:?} {after:?}");
    assert!(after.files <= files, "{idle:?} {after:?}");
}
