//! Many cameras for minutes, half of them with faults at random, against the real server as a process
//! of its own: nothing may grow, nothing may be lost without a word, and cameras without faults must
//! not notice those with. Not part of `make test`: `make soak`, with SOAK_SECONDS and SOAK_CAMERAS.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

mod camera_support;
#[path = "cli_job/site.rs"]
#[allow(dead_code)]
mod site;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use camera_support::{Fault, FaultProxy, clips};
use headhunt::rpc::proto::{
    DetectOptions, GapReason, GetInfoRequest, ScoreStage, SourceState, UriSource, WatchRequest,
    detection_service_client::DetectionServiceClient, watch_response::Message,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use site::{succeeds, text};
use tokio::task::JoinSet;
use tonic::transport::Channel;

/// A hole in the scores that no gap explains, seconds: more than a frame at 10 per second.
const HOLE: f64 = 0.35;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A camera in a process of its own: what a fault does to one simulator must not reach another.
fn camera(clip: &std::path::Path) -> (Server, SocketAddr) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_headhunt"))
        .args(["camera", text(clip), "--port", "0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line.trim().trim_start_matches("rtsp://");
    let address = address.split('/').next().unwrap().parse().unwrap();
    (Server(child), address)
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

/// What one stream was told, in seconds of its media time.
#[derive(Default, Debug)]
struct Account {
    segments: u64,
    scored: f64,
    /// By reason.
    gaps: BTreeMap<&'static str, f64>,
    /// Holes that nothing explains.
    holes: Vec<(f64, f64)>,
    /// End of what was told.
    reached: f64,
    ended: Option<String>,
    /// The newest.
    state: Option<SourceState>,
}

fn seconds(time: Option<prost_types::Duration>) -> f64 {
    time.map_or(0.0, |time| {
        time.seconds as f64 + f64::from(time.nanos) * 1e-9
    })
}

async fn watch(
    mut client: DetectionServiceClient<Channel>,
    uri: String,
    account: Arc<Mutex<Account>>,
) {
    let request = WatchRequest {
        source: Some(UriSource {
            uri,
            ..Default::default()
        }),
        profile: String::new(),
        options: Some(DetectOptions::default()),
        ..Default::default()
    };
    let mut responses = client.watch(request).await.unwrap().into_inner();
    loop {
        let message = match responses.message().await {
            Ok(Some(response)) => response.message.unwrap(),
            Ok(None) => return,
            Err(status) => {
                account.lock().unwrap().ended = Some(format!("{status:?}"));
                return;
            }
        };
        let mut account = account.lock().unwrap();
        match message {
            Message::FrameScores(scores) if scores.stage() == ScoreStage::Final => {
                let first = seconds(scores.frames[0].pts);
                // A frame lasts a tenth of a second.
                let end = seconds(scores.frames.last().unwrap().pts) + 0.1;
                if first - account.reached > HOLE {
                    let hole = (account.reached, first);
                    account.holes.push(hole);
                }
                account.segments += 1;
                account.scored += end - first;
                account.reached = end;
            }
            Message::Gap(gap) => {
                let (from, to) = (seconds(gap.from), seconds(gap.to));
                let reason = match gap.reason() {
                    GapReason::LoadShed => "shed",
                    GapReason::DecodeError => "decode",
                    GapReason::Stalled => "stalled",
                    GapReason::ConnectionLost => "lost",
                    GapReason::TimestampJump => "jump",
                    GapReason::Unspecified => panic!("a gap without a reason"),
                };
                *account.gaps.entry(reason).or_default() += to - from;
                account.reached = account.reached.max(to);
            }
            Message::SourceState(state) => account.state = Some(state),
            _ => {}
        }
    }
}

/// Faults at random until the end; the stream is given time to heal between them.
async fn break_it(proxy: Arc<FaultProxy>, seed: u64, until: Instant) {
    let mut rng = StdRng::seed_from_u64(seed);
    while Instant::now() < until {
        let calm = rng.random_range(5.0..20.0);
        tokio::time::sleep(Duration::from_secs_f64(calm)).await;
        let lasts = rng.random_range(0.5..8.0);
        let faults = [
            Fault::Refuse,
            Fault::HalfOpen,
            Fault::Silence,
            Fault::SlowDrip(500),
            Fault::Answer(503),
            Fault::TimestampStep(3600),
            Fault::TimestampStep(-3600),
            Fault::TimestampRestart,
            Fault::LoseInterleaved {
                probability: 0.1,
                seed,
            },
            Fault::BitFlip {
                probability: 0.1,
                seed,
            },
            Fault::Garbage { packets: 20, seed },
        ];
        match rng.random_range(0..faults.len() + 3) {
            n if n < faults.len() => proxy.set(faults[n].clone()),
            n if n == faults.len() => proxy.strike(Fault::Reset),
            n if n == faults.len() + 1 => proxy.strike(Fault::Eos),
            _ => proxy.strike(Fault::Bye),
        }
        tokio::time::sleep(Duration::from_secs_f64(lasts)).await;
        proxy.clear();
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
    let server = Server(child);
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
    let mut tasks = JoinSet::new();
    let mut rigs = vec![];
    let mut accounts = vec![];
    for i in 0..cameras {
        let camera = camera(&clip);
        let account = Arc::new(Mutex::new(Account::default()));
        // The odd ones are broken.
        let (url, proxy) = if i % 2 == 1 {
            let proxy = Arc::new(FaultProxy::start(camera.1));
            tasks.spawn(break_it(proxy.clone(), i as u64, until));
            (proxy.url("/camera"), Some(proxy))
        } else {
            (format!("rtsp://{}/camera", camera.1), None)
        };
        let began = Instant::now();
        let watching = tokio::spawn(watch(client.clone(), url, account.clone()));
        accounts.push((account, watching, began));
        rigs.push((camera, proxy));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let began = Instant::now();
    let mut memory = vec![];
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let now = usage(pid);
        memory.push((began.elapsed().as_secs_f64(), now.rss_kib));
        if memory.len() % 12 == 0 {
            println!("soak: {:.0} s: {now:?}", began.elapsed().as_secs_f64());
        }
    }
    while tasks.join_next().await.is_some() {}

    // Streams are cut by the client.
    let mut totals = Account::default();
    for (i, (account, watching, began)) in accounts.into_iter().enumerate() {
        let alive = !watching.is_finished();
        watching.abort();
        let account = account.lock().unwrap();
        assert!(alive, "camera {i} ended: {:?}", account.ended);
        assert!(account.holes.is_empty(), "camera {i}: {:?}", account.holes);
        let elapsed = began.elapsed().as_secs_f64();
        // Waiting for smoothing (8 s), the segment under way, and the outage of the moment.
        let untold = elapsed - account.reached;
        assert!(
            untold < 45.0,
            "camera {i} told nothing of the last {untold:.0} s: {:?}",
            account.state
        );
        if i % 2 == 0 {
            let share = account.scored / account.reached;
            assert!(
                share >= 0.99,
                "camera {i} without faults: {share:.4} scored, {account:?}"
            );
            assert!(untold < 15.0, "camera {i} lags by {untold:.1} s");
        }
        totals.segments += account.segments;
        totals.scored += account.scored;
        totals.reached += account.reached;
        for (reason, length) in &account.gaps {
            *totals.gaps.entry(reason).or_default() += length;
        }
    }
    let gaps: f64 = totals.gaps.values().sum();
    println!(
        "soak: {} segments; {:.1} s scored + {gaps:.1} s in gaps {:?} of {:.1} s",
        totals.segments, totals.scored, totals.gaps, totals.reached
    );
    let told = (totals.scored + gaps) / totals.reached;
    assert!(
        (0.98..1.02).contains(&told),
        "{told:.4} of the media time is accounted for"
    );

    drop(rigs);
    let slope_kib = slope(&memory[memory.len() / 2..]);
    println!(
        "soak: memory grew by {:.3} MiB/min in the second half",
        slope_kib / 1024.0
    );
    let mut after = usage(pid);
    for _ in 0..60 {
        if after.threads <= idle.threads + 2 && after.files <= idle.files + 4 {
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
    assert!(after.files <= idle.files + 4, "{idle:?} {after:?}");
}
