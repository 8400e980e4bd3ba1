//! The server as an operator starts it, whose decoder processes are killed.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use headhunt::rpc::proto::{
    DetectOptions, DetectRequest, GapReason, Open, UploadSource, UriSource, WatchRequest,
    detect_request, detection_service_client::DetectionServiceClient, open, watch_response,
};
use tonic::{Code, transport::Channel};

use super::{
    alone, decoders, signal,
    site::{MODEL, Process, camera, clip, site, succeeds, text},
};

const PATIENCE: Duration = Duration::from_secs(60);

async fn start(profile: &Path) -> (Process, DetectionServiceClient<Channel>) {
    start_logging(profile, "error", Stdio::inherit()).await
}

async fn start_logging(
    profile: &Path,
    level: &str,
    log: Stdio,
) -> (Process, DetectionServiceClient<Channel>) {
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let child: Child = Command::new(super::BINARY)
        .args(["serve", "--device", "cpu", "--model", MODEL])
        .args(["--profile", text(profile), "--listen", &address])
        .env("HEADHUNT__SERVER__METRICS_LISTEN", "")
        .env("HEADHUNT__SOURCES__ALLOW", "127.0.0.0/8")
        .env("HEADHUNT__LOG__LEVEL", level)
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let process = Process(child);
    let begun = Instant::now();
    loop {
        let uri = format!("http://{address}");
        if let Ok(client) = DetectionServiceClient::connect(uri).await {
            return (process, client);
        }
        assert!(begun.elapsed() < PATIENCE, "the server does not listen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn watch(url: &str) -> WatchRequest {
    WatchRequest {
        source: Some(UriSource {
            uri: url.to_owned(),
            ..UriSource::default()
        }),
        options: Some(DetectOptions {
            provisional: true,
            ..DetectOptions::default()
        }),
        ..WatchRequest::default()
    }
}

#[test]
fn a_camera_goes_on_after_its_decoder_died_and_an_upload_ends_with_an_error() {
    let _alone = alone();
    tokio::runtime::Runtime::new().unwrap().block_on(watched());
}

/// A profile of the site in this folder.
fn calibrated(dir: &Path) -> PathBuf {
    let manifest = site(dir);
    let profile = dir.join("cam.json");
    succeeds(&[
        "calibrate",
        "--model",
        MODEL,
        "--manifest",
        text(&manifest),
        "--segment-seconds",
        "1.6",
        "--prompt",
        "Is this normal?",
        "--out",
        text(&profile),
    ]);
    profile
}

fn ask(message: detect_request::Message) -> DetectRequest {
    DetectRequest {
        message: Some(message),
    }
}

fn opening() -> DetectRequest {
    let source = open::Source::Upload(UploadSource {
        name: "clip".to_owned(),
    });
    ask(detect_request::Message::Open(Open {
        source: Some(source),
        ..Open::default()
    }))
}

#[test]
fn what_a_decoder_process_says_is_in_the_log_of_its_server() {
    let _alone = alone();
    tokio::runtime::Runtime::new().unwrap().block_on(logged());
}

async fn logged() {
    let dir = tempfile::tempdir().unwrap();
    let profile = calibrated(dir.path());
    let log = dir.path().join("log");
    let file = std::fs::File::create(&log).unwrap();
    let (server, mut client) = start_logging(&profile, "debug", file.into()).await;
    // What no demuxer can take apart.
    let mut broken = b"RIFF\0\x10\0\0AVI LIST".to_vec();
    broken.extend([0x55; 4096]);
    let messages = vec![
        opening(),
        ask(detect_request::Message::Chunk(broken.into())),
    ];
    let mut responses = client
        .detect(tokio_stream::iter(messages))
        .await
        .unwrap()
        .into_inner();
    while let Ok(Some(_)) = responses.message().await {}
    drop(server);
    let said = std::fs::read_to_string(&log).unwrap();
    let line = said
        .lines()
        .find(|line| line.contains("decoder process: pipeline"));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains("session="), "whose is it? {line}");
}

/// Whether a process is there; one that is dead and not waited for is not.
fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit_once(')')
            .unwrap()
            .1
            .trim_start()
            .starts_with('Z')
    })
}

async fn watched() {
    let dir = tempfile::tempdir().unwrap();
    let profile = calibrated(dir.path());
    let (_camera, url) = camera(&dir.path().join("a.mp4"), 0);
    let (server, mut client) = start(&profile).await;
    let pid = server.0.id();
    assert!(decoders(pid).is_empty());
    let mut responses = client.watch(watch(&url)).await.unwrap().into_inner();

    let mut scored = 0;
    let mut killed: Option<Vec<u32>> = None;
    let mut gap = None;
    let begun = Instant::now();
    // Two segments, then the process dies; then a gap, and two more.
    while scored < 4 {
        assert!(begun.elapsed() < PATIENCE, "{scored} segments");
        match responses.message().await.unwrap().unwrap().message {
            Some(watch_response::Message::FrameScores(_)) => {
                if gap.is_some() || scored < 2 {
                    scored += 1;
                }
                if scored == 2 && killed.is_none() {
                    let running = decoders(pid);
                    assert_eq!(running.len(), 1, "{running:?}");
                    let name = format!("/proc/{}/comm", running[0]);
                    let name = std::fs::read_to_string(name).unwrap();
                    assert_eq!(name.trim(), "headhunt-decode");
                    signal("SEGV", running[0]);
                    killed = Some(running);
                }
            }
            Some(watch_response::Message::Gap(told)) => gap = Some(told),
            _ => {}
        }
    }
    let gap = gap.unwrap();
    assert_eq!(gap.reason(), GapReason::DecodeError, "{gap:?}");
    assert!(gap.detail.contains("SIGSEGV"), "{gap:?}");
    let running = decoders(pid);
    assert_eq!(running.len(), 1, "one process for the camera: {running:?}");
    assert_ne!(Some(running), killed);

    // An upload beside it, which waits for more when its process dies.
    let (requests, received) = tokio::sync::mpsc::channel(4);
    requests.send(opening()).await.unwrap();
    let video = dir.path().join("long.mp4");
    clip(&video, 200, (0, 0), 40);
    let bytes = std::fs::read(&video).unwrap();
    let half = bytes[..bytes.len() / 2].to_vec();
    requests
        .send(ask(detect_request::Message::Chunk(half.into())))
        .await
        .unwrap();
    let watched = decoders(pid);
    let mut upload = client
        .detect(tokio_stream::wrappers::ReceiverStream::new(received))
        .await
        .unwrap()
        .into_inner();
    let of_upload = loop {
        assert!(begun.elapsed() < PATIENCE, "no process for the upload");
        if let Some(new) = decoders(pid).into_iter().find(|p| !watched.contains(p)) {
            break new;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    signal("KILL", of_upload);
    let status = loop {
        match upload.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended well"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Aborted, "{status:?}");
    assert!(status.message().contains("SIGKILL"), "{status:?}");

    // The camera did not notice.
    let more = loop {
        match responses.message().await.unwrap().unwrap().message {
            Some(watch_response::Message::FrameScores(scores)) => break scores,
            Some(watch_response::Message::Gap(gap)) => panic!("{gap:?}"),
            _ => {}
        }
    };
    assert!(!more.frames.is_empty());
    drop((responses, upload, requests));
    let begun = Instant::now();
    while !decoders(pid).is_empty() {
        assert!(begun.elapsed() < PATIENCE, "processes stay behind");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // A server that is killed takes its processes along.
    let mut responses = client.watch(watch(&url)).await.unwrap().into_inner();
    let begun = Instant::now();
    let running = loop {
        responses.message().await.unwrap().unwrap();
        let running = decoders(pid);
        if !running.is_empty() {
            break running;
        }
        assert!(begun.elapsed() < PATIENCE, "no process for the camera");
    };
    signal("KILL", pid);
    let begun = Instant::now();
    while running.iter().any(|decoder| lives(*decoder)) {
        assert!(begun.elapsed() < PATIENCE, "{running:?} live on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
