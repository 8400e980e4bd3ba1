//! Everything that cameras and networks do, to a real server with real cameras: sixteen broken ones
//! at once, each of which must report its fault and recover, and a clean one beside them, whose
//! scores must be those of a run without any of it.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

mod camera_support;
mod common;

use std::{future::Future, sync::Arc, time::Duration};

use camera_support::{Fault, FaultProxy, clips};
use common::{
    detect::{Call, ask},
    eventually,
    server::TestServer,
};
use headhunt::{
    clock::SystemClock,
    rpc::{
        LiveMedia, VideoMedia,
        proto::{
            self, GapReason, ScoreStage, SourceStatus, detect_request::Message as Ask,
            detect_response::Message as Told, open::Source,
        },
    },
    rtsp,
    video::{
        VideoLimits,
        camera::{Camera, CameraOptions, Identity, Login, LoginMethod, PacketLoss, Protocols},
        worker::{ForkServer, Workers},
    },
};
use tokio::{runtime::Handle, task::JoinSet, time::timeout};
use tonic::{Code, Status};

/// Longest wait for anything that a case waits for.
const PATIENCE: Duration = Duration::from_secs(40);

async fn server() -> Arc<TestServer> {
    let client = rtsp::Client {
        clock: SystemClock::shared(),
        resolver: Arc::new(rtsp::SystemResolver),
        vet: Arc::new(rtsp::Anywhere),
        connect_timeout: Duration::from_secs(2),
        response_timeout: Duration::from_secs(2),
        silence_timeout: Duration::from_secs(2),
    };
    let media = VideoMedia {
        web: None,
        // As a server does by default.
        limits: VideoLimits {
            workers: Some(Workers {
                program: env!("CARGO_BIN_EXE_headhunt").into(),
                forks: Some(ForkServer::default()),
                ..Workers::of_this_program()
            }),
            ..VideoLimits::default()
        },
        live: Some(LiveMedia {
            client,
            picture_timeout: Duration::from_secs(5),
            runtime: Handle::current(),
        }),
    };
    // Shedding off: what is compared are scores.
    let toml = "cameras.max_delay_s = 600\nsources.allow_insecure_tls = true\nstreams.slow_reader_timeout_s = 60";
    Arc::new(TestServer::with(toml, Arc::new(media)).await)
}

/// A stream and what was seen of it.
struct Watched {
    call: Call,
    /// Frames with a final score.
    frames: u64,
    last_pts: Option<(i64, i32)>,
    /// p of each segment that has one.
    scores: Vec<f64>,
    /// Media time of the newest scored segment's first frame, seconds.
    newest: f64,
    gaps: Vec<proto::Gap>,
    states: Vec<proto::SourceState>,
    opened: Option<proto::Opened>,
}

fn seconds(time: Option<&prost_types::Duration>) -> f64 {
    time.map_or(0.0, |time| {
        time.seconds as f64 + f64::from(time.nanos) * 1e-9
    })
}

impl Watched {
    async fn open(server: &TestServer, source: proto::UriSource) -> Watched {
        let mut client = server.client().await;
        let call = Call::begin(&mut client).await.unwrap();
        call.send(ask(Ask::Open(proto::Open {
            source: Some(Source::Uri(source)),
            profile: "live".into(),
            options: Some(proto::DetectOptions {
                provisional: true,
                ..Default::default()
            }),
            ..Default::default()
        })))
        .await;
        Watched {
            call,
            frames: 0,
            last_pts: None,
            scores: vec![],
            newest: -1.0,
            gaps: vec![],
            states: vec![],
            opened: None,
        }
    }

    async fn uri(server: &TestServer, uri: String) -> Watched {
        let source = proto::UriSource {
            uri,
            ..Default::default()
        };
        Watched::open(server, source).await
    }

    /// Takes the next message; `false` at the end.
    async fn take(&mut self) -> Result<bool, Status> {
        let Some(told) = self.call.next().await? else {
            return Ok(false);
        };
        match told {
            Told::Opened(opened) => self.opened = Some(opened),
            Told::FrameScores(scores) if scores.stage() == ScoreStage::Provisional => {
                self.scores.push(scores.frames[0].probability);
                self.newest = seconds(scores.frames[0].pts.as_ref());
            }
            Told::FrameScores(scores) => {
                for frame in scores.frames {
                    assert_eq!(
                        frame.index, self.frames,
                        "one final score a frame, in order"
                    );
                    let pts = frame.pts.unwrap();
                    let pts = Some((pts.seconds, pts.nanos));
                    assert!(self.last_pts <= pts, "time runs backwards");
                    self.last_pts = pts;
                    self.frames += 1;
                }
            }
            Told::Gap(gap) => {
                assert!(seconds(gap.from.as_ref()) <= seconds(gap.to.as_ref()));
                self.gaps.push(gap);
            }
            Told::SourceState(state) => self.states.push(state),
            Told::Summary(summary) => {
                assert_eq!(summary.frames, self.frames);
                assert_eq!(summary.gaps, self.gaps.len() as u64);
                assert_eq!(summary.segments, self.scores.len() as u64);
            }
            _ => {}
        }
        Ok(true)
    }

    async fn until(&mut self, what: &str, enough: impl Fn(&Watched) -> bool) {
        let all = timeout(PATIENCE, async {
            while !enough(self) {
                assert!(self.take().await.unwrap(), "it ended before {what}");
            }
        })
        .await;
        assert!(
            all.is_ok(),
            "not within {PATIENCE:?}: {what}; gaps {:?}, states {:?}, {} scores",
            self.gaps,
            self.states,
            self.scores.len()
        );
    }

    /// Two more segments are scored.
    async fn goes_on(&mut self) {
        let n = self.scores.len() + 2;
        self.until("scores go on", |seen| seen.scores.len() >= n)
            .await;
    }

    async fn gap(&mut self, reason: GapReason) {
        self.until(&format!("a gap of {reason:?}"), |seen| {
            seen.gaps.iter().any(|gap| gap.reason() == reason)
        })
        .await;
    }

    async fn stop(mut self) {
        self.call.send(ask(Ask::Stop(proto::Stop {}))).await;
        timeout(PATIENCE, async { while self.take().await.unwrap() {} })
            .await
            .expect("stop ends it");
        assert!(self.frames > 0);
    }
}

fn camera(file: std::path::PathBuf) -> Camera {
    Camera::start(CameraOptions::new(file)).unwrap()
}

/// A stream through a proxy that breaks it, from when it is known to be scored.
struct Case {
    server: Arc<TestServer>,
    _camera: Camera,
    proxy: FaultProxy,
    seen: Watched,
}

impl Case {
    async fn new(server: &Arc<TestServer>) -> Case {
        let camera = camera(clips::h264());
        let proxy = FaultProxy::start(camera.address());
        let mut seen = Watched::uri(server, proxy.url("/camera")).await;
        seen.until("a first score", |seen| !seen.scores.is_empty())
            .await;
        Case {
            server: server.clone(),
            _camera: camera,
            proxy,
            seen,
        }
    }

    /// The fault lasts so long; then the stream has a gap of this reason and goes on.
    async fn breaks(mut self, fault: Fault, lasts: f64, reason: GapReason) {
        self.proxy.set(fault);
        tokio::time::sleep(Duration::from_secs_f64(lasts)).await;
        self.proxy.clear();
        self.seen.gap(reason).await;
        self.seen.goes_on().await;
        assert_eq!(
            self.seen.states.last().unwrap().status(),
            SourceStatus::Connected
        );
        self.seen.stop().await;
    }

    /// It happens once; then the stream has a gap of this reason and goes on.
    async fn strikes(mut self, fault: Fault, reason: GapReason) {
        self.proxy.strike(fault);
        self.seen.gap(reason).await;
        self.seen.goes_on().await;
        self.seen.stop().await;
    }

    /// The fault lasts so long and may or may not be seen; the stream goes on.
    async fn survives(mut self, fault: Fault, lasts: f64) {
        self.proxy.set(fault);
        tokio::time::sleep(Duration::from_secs_f64(lasts)).await;
        self.proxy.clear();
        self.seen.goes_on().await;
        self.seen.goes_on().await;
        assert!(self.proxy.touched() > 0, "the fault did nothing");
        self.seen.stop().await;
    }
}

/// p of the first segments of the clean camera.
async fn clean(server: &TestServer, segments: usize) -> Vec<f64> {
    let camera = camera(clips::h264_long());
    let mut seen = Watched::uri(server, camera.url()).await;
    seen.until("the clean camera's scores", |seen| {
        seen.scores.len() >= segments
    })
    .await;
    assert!(seen.gaps.is_empty(), "{:?}", seen.gaps);
    let mut scores = seen.scores.clone();
    scores.truncate(segments);
    seen.stop().await;
    scores
}

type Cases = JoinSet<&'static str>;

fn add(cases: &mut Cases, name: &'static str, case: impl Future<Output = ()> + Send + 'static) {
    cases.spawn(async move {
        case.await;
        name
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_told_and_healed_and_touches_nobody_else() {
    let server = server().await;
    let expected = clean(&server, 3).await;
    let mut cases = Cases::new();
    let add = |cases: &mut Cases, name, run: fn(Case) -> futures::Run| {
        let server = server.clone();
        add(
            cases,
            name,
            async move { run(Case::new(&server).await).await },
        );
    };
    add(&mut cases, "refused", |case| {
        Box::pin(case.breaks(Fault::Refuse, 3.0, GapReason::ConnectionLost))
    });
    add(&mut cases, "reset", |case| {
        Box::pin(case.strikes(Fault::Reset, GapReason::ConnectionLost))
    });
    add(&mut cases, "end of the connection", |case| {
        Box::pin(case.strikes(Fault::Eos, GapReason::ConnectionLost))
    });
    add(&mut cases, "BYE", |case| {
        Box::pin(case.strikes(Fault::Bye, GapReason::ConnectionLost))
    });
    add(&mut cases, "half-open", |case| {
        Box::pin(case.breaks(Fault::HalfOpen, 4.0, GapReason::Stalled))
    });
    add(&mut cases, "silence", |case| {
        Box::pin(case.breaks(Fault::Silence, 4.0, GapReason::Stalled))
    });
    add(&mut cases, "slow drip", |case| {
        Box::pin(async {
            let mut case = case;
            case.proxy.set(Fault::SlowDrip(40));
            case.seen
                .until("it is told", |seen| {
                    seen.states
                        .iter()
                        .any(|state| state.status() == SourceStatus::Interrupted)
                })
                .await;
            case.proxy.clear();
            case.seen.goes_on().await;
            assert!(!case.seen.gaps.is_empty());
            case.seen.stop().await;
        })
    });
    add(&mut cases, "503 after a reset", |case| {
        Box::pin(async {
            let mut case = case;
            case.proxy.set(Fault::Answer(503));
            case.proxy.strike(Fault::Reset);
            tokio::time::sleep(Duration::from_secs(3)).await;
            case.proxy.clear();
            case.seen.gap(GapReason::ConnectionLost).await;
            case.seen.goes_on().await;
            let told = |state: &proto::SourceState| state.detail.contains("503");
            assert!(case.seen.states.iter().any(told), "{:?}", case.seen.states);
            case.seen.stop().await;
        })
    });
    add(&mut cases, "401 after a reset", |case| {
        Box::pin(async {
            let mut case = case;
            case.proxy.set(Fault::Answer(401));
            case.proxy.strike(Fault::Reset);
            let status = loop {
                match timeout(PATIENCE, case.seen.take()).await.unwrap() {
                    Ok(true) => {}
                    Ok(false) => panic!("it ended well"),
                    Err(status) => break status,
                }
            };
            assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
            assert!(
                !case.seen.gaps.is_empty(),
                "the outage is told before the end"
            );
            assert!(case.server.load().await.streams > 0);
        })
    });
    for (name, fault) in [
        ("clock + 1 h", Fault::TimestampStep(3600)),
        ("clock - 1 h", Fault::TimestampStep(-3600)),
        ("timestamps restart", Fault::TimestampRestart),
        ("timestamps wrap", Fault::TimestampNearWrap),
    ] {
        let server = server.clone();
        self::add(&mut cases, name, async move {
            let case = Case::new(&server).await;
            case.breaks(fault, 3.0, GapReason::TimestampJump).await;
        });
    }
    add(&mut cases, "packets lost on TCP", |case| {
        let lost = Fault::LoseInterleaved {
            probability: 0.3,
            seed: 1,
        };
        Box::pin(case.breaks(lost, 4.0, GapReason::DecodeError))
    });
    add(&mut cases, "garbage", |case| {
        let garbage = Fault::Garbage {
            packets: 30,
            seed: 2,
        };
        Box::pin(case.survives(garbage, 4.0))
    });
    add(&mut cases, "bits turned over", |case| {
        let flip = Fault::BitFlip {
            probability: 0.5,
            seed: 3,
        };
        Box::pin(case.survives(flip, 4.0))
    });
    add(&mut cases, "another camera behind the address", |case| {
        Box::pin(async {
            let mut case = case;
            let other = camera(clips::mjpeg());
            case.proxy.set(Fault::SwitchTo(other.address()));
            case.proxy.strike(Fault::Reset);
            case.seen.gap(GapReason::ConnectionLost).await;
            case.seen.goes_on().await;
            case.seen.stop().await;
        })
    });
    let beside = clean(&server, 3);
    let (beside, ()) = tokio::join!(beside, async {
        while let Some(done) = cases.join_next().await {
            eprintln!("case done: {}", done.unwrap());
        }
    });
    for (i, (a, b)) in expected.iter().zip(&beside).enumerate() {
        assert!(
            (a - b).abs() <= 1e-5,
            "segment {i}: {a} alone, {b} beside faults"
        );
    }
    eventually("idle server", || server.is_idle()).await;
    Arc::into_inner(server).unwrap().stop().await;
}

mod futures {
    pub type Run = std::pin::Pin<Box<dyn std::future::Future<Output = ()> + Send>>;
}

#[tokio::test(flavor = "multi_thread")]
async fn cameras_of_every_kind_are_scored() {
    let server = server().await;
    let mut cases = Cases::new();
    let udp = |uri: String| proto::UriSource {
        uri,
        transport: proto::RtspTransport::Udp.into(),
        trust: None,
    };
    for (name, file) in [
        ("H.265", clips::h265()),
        ("MJPEG", clips::mjpeg()),
        (
            "a size that changes in mid-stream",
            clips::resolution_change(),
        ),
    ] {
        let server = server.clone();
        add(&mut cases, name, async move {
            let camera = camera(file);
            let mut seen = Watched::uri(&server, camera.url()).await;
            seen.goes_on().await;
            seen.goes_on().await;
            seen.stop().await;
        });
    }
    for (name, lost) in [
        ("UDP", 0.0),
        ("UDP, 5% lost", 0.05),
        ("UDP, 20% lost", 0.2),
        ("UDP, 40% lost", 0.4),
    ] {
        let server = server.clone();
        add(&mut cases, name, async move {
            let mut options = CameraOptions::new(clips::h264());
            options.media.loss = (lost > 0.0).then_some(PacketLoss {
                probability: lost,
                seed: 4,
            });
            let camera = Camera::start(options).unwrap();
            let mut seen = Watched::open(&server, udp(camera.url())).await;
            if lost < 0.2 {
                seen.goes_on().await;
                seen.stop().await;
                return;
            }
            // Hardly a key frame arrives whole: it is told, and tried again.
            seen.until("the damage is told", |seen| {
                let gap = |gap: &proto::Gap| gap.reason() == GapReason::DecodeError;
                let state = |state: &proto::SourceState| state.reason() == GapReason::DecodeError;
                seen.gaps.iter().any(gap) || seen.states.iter().any(state)
            })
            .await;
        });
    }
    {
        let server = server.clone();
        add(
            &mut cases,
            "UDP alone, and nothing said of it",
            async move {
                let mut options = CameraOptions::new(clips::h264());
                options.media.protocols = Protocols::Udp;
                let camera = Camera::start(options).unwrap();
                let mut seen = Watched::uri(&server, camera.url()).await;
                seen.goes_on().await;
                seen.stop().await;
            },
        );
    }
    {
        let server = server.clone();
        add(&mut cases, "a false frame rate", async move {
            let mut options = CameraOptions::new(clips::h264());
            options.media.frame_rate_claim = Some(50.0);
            let camera = Camera::start(options).unwrap();
            let mut seen = Watched::uri(&server, camera.url()).await;
            seen.until("three final segments", |seen| seen.frames >= 48)
                .await;
            // 1.6 s of 10 frames per second, whatever is claimed.
            let pts = seen.last_pts.unwrap();
            let last = pts.0 as f64 + f64::from(pts.1) * 1e-9;
            assert!(
                (last - 0.1 * (seen.frames - 1) as f64).abs() < 0.01,
                "{last}"
            );
            seen.stop().await;
        });
    }
    for (name, method) in [
        ("digest", LoginMethod::Digest),
        ("basic", LoginMethod::Basic),
    ] {
        let server = server.clone();
        add(&mut cases, name, async move {
            let mut options = CameraOptions::new(clips::h264());
            options.server.login = Some(Login {
                user: "ann".into(),
                password: "p:w/%".into(),
                method,
            });
            let camera = Camera::start(options).unwrap();
            let with = |user: &str| camera.url().replace("rtsp://", &format!("rtsp://{user}@"));
            let mut seen = Watched::uri(&server, with("ann:p%3Aw%2F%25")).await;
            seen.goes_on().await;
            seen.stop().await;
            let mut wrong = Watched::uri(&server, with("ann:nosuchsecret")).await;
            let status = loop {
                match timeout(PATIENCE, wrong.take()).await.unwrap() {
                    Ok(true) => {}
                    Ok(false) => panic!("it ended well"),
                    Err(status) => break status,
                }
            };
            assert_eq!(status.code(), Code::FailedPrecondition);
            assert!(!format!("{status:?}").contains("nosuchsecret"));
        });
    }
    {
        let server = server.clone();
        add(&mut cases, "rtsps", async move {
            let key = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
            let mut options = CameraOptions::new(clips::h264());
            options.server.tls = Some(Identity {
                certificate: key.cert.pem().into_bytes(),
                key: key.signing_key.serialize_pem().into_bytes(),
            });
            let camera = match Camera::start(options) {
                Ok(camera) => camera,
                Err(error) if error.message().contains("glib-networking") => {
                    eprintln!("rtsps: skipped, the simulator lacks glib-networking: {error}");
                    return;
                }
                Err(error) => panic!("{error}"),
            };
            let trusting = |trust| proto::UriSource {
                uri: camera.url(),
                transport: 0,
                trust,
            };
            let insecure = proto::TlsTrust {
                trust: Some(proto::tls_trust::Trust::Insecure(true)),
            };
            let mut seen = Watched::open(&server, trusting(Some(insecure))).await;
            seen.goes_on().await;
            seen.stop().await;
            let mut wary = Watched::open(&server, trusting(None)).await;
            let status = timeout(PATIENCE, async {
                loop {
                    if let Err(status) = wary.take().await {
                        break status;
                    }
                }
            })
            .await
            .unwrap();
            assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        });
    }
    while let Some(done) = cases.join_next().await {
        eprintln!("case done: {}", done.unwrap());
    }
    eventually("idle server", || server.is_idle()).await;
    Arc::into_inner(server).unwrap().stop().await;
}
