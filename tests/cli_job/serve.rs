//! The server as an operator starts it: the real binary, model, decoder and profile.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use headhunt::rpc::proto::{
    DetectOptions, DetectRequest, DetectResponse, Open, ScoreStage, UploadSource, UriSource,
    WatchRequest, detect_request, detect_response,
    detection_service_client::DetectionServiceClient, open, watch_response,
};
use tokio_stream::StreamExt;
use tonic::{Code, Status, transport::Channel};

use super::site::{MODEL, camera, clip, site, succeeds, text};

/// Longest wait for a start or an end; far above what it takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// Files that it writes may have at most so many blocks of 512 bytes; 0: no limit.
    fn start(profile: &Path, blocks: u32) -> Server {
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string();
        // An ignored SIGXFSZ makes a write past the limit an error, as on a full disk.
        let limit = match blocks {
            0 => String::new(),
            _ => format!("trap \"\" XFSZ; ulimit -f {blocks}; "),
        };
        let child = Command::new("sh")
            .args(["-c", &format!("{limit}exec \"$@\""), "sh"])
            .arg(env!("CARGO_BIN_EXE_headhunt"))
            .args([
                "serve",
                "--device",
                "cpu",
                "--model",
                MODEL,
                "--profile",
                text(profile),
            ])
            .args(["--listen", &address])
            .env("HEADHUNT__SERVER__METRICS_LISTEN", "")
            // The cameras of these tests play on this machine.
            .env("HEADHUNT__SOURCES__ALLOW", "127.0.0.0/8")
            .env("HEADHUNT__LOG__LEVEL", "warn")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Server { child, address }
    }

    async fn client(&mut self) -> DetectionServiceClient<Channel> {
        let begun = Instant::now();
        loop {
            let uri = format!("http://{}", self.address);
            if let Ok(client) = DetectionServiceClient::connect(uri).await {
                return client;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "the server ended");
            assert!(begun.elapsed() < PATIENCE, "the server does not listen");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn end(mut self) -> ExitStatus {
        Command::new("kill")
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "the server does not end");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// p and p′ of every frame, in order.
async fn detect(
    client: &mut DetectionServiceClient<Channel>,
    path: &Path,
) -> Result<Vec<(f64, f64)>, Status> {
    let upload = Open {
        source: Some(open::Source::Upload(UploadSource {
            name: "clip".to_owned(),
        })),
        ..Open::default()
    };
    let mut messages = vec![detect_request::Message::Open(upload)];
    for chunk in std::fs::read(path).unwrap().chunks(1000) {
        messages.push(detect_request::Message::Chunk(chunk.to_vec().into()));
    }
    let requests = messages
        .into_iter()
        .map(|m| DetectRequest { message: Some(m) });
    let mut responses = client
        .detect(tokio_stream::iter(requests.collect::<Vec<_>>()))
        .await?
        .into_inner();
    let mut scores = Vec::new();
    let mut frames = None;
    while let Some(response) = responses.next().await {
        let DetectResponse { message, .. } = response?;
        match message.unwrap() {
            detect_response::Message::FrameScores(segment) => {
                assert_eq!(segment.stage(), ScoreStage::Final);
                for frame in segment.frames {
                    assert_eq!(frame.index, scores.len() as u64);
                    scores.push((frame.probability, frame.smoothed));
                }
            }
            detect_response::Message::Summary(summary) => frames = Some(summary.frames),
            _ => {}
        }
    }
    assert_eq!(frames, Some(scores.len() as u64));
    Ok(scores)
}

#[tokio::test]
async fn the_server_gives_what_the_command_line_gives_and_survives_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = site(dir.path());
    let profile = dir.path().join("site.json");
    succeeds(&[
        "calibrate",
        "--model",
        MODEL,
        "--manifest",
        text(&manifest),
        "--prompt",
        "Is this normal?",
        "--out",
        text(&profile),
    ]);
    let video = dir.path().join("a.mp4");
    let printed = succeeds(&[
        "detect",
        text(&video),
        "--model",
        MODEL,
        "--profile",
        text(&profile),
        "--json",
    ]);
    let printed: serde_json::Value = serde_json::from_str(printed.trim()).unwrap();
    let mut expected = Vec::new();
    for segment in printed["segments"].as_array().unwrap() {
        let number = |key: &str| segment[key].as_f64().unwrap();
        for _ in 0..segment["frames"].as_u64().unwrap() {
            expected.push((number("probability"), number("smoothed")));
        }
    }

    let mut server = Server::start(&profile, 0);
    let mut client = server.client().await;
    assert_eq!(detect(&mut client, &video).await.unwrap(), expected);
    drop(client);
    assert!(
        server.end().success(),
        "SIGTERM ends the server in an orderly way"
    );

    // 4 KiB: an MP4 of a few seconds does not fit, one of a few frames does.
    let small = dir.path().join("small.mp4");
    clip(&small, 3, (0, 0), 40);
    assert!(std::fs::metadata(&small).unwrap().len() < 4096);
    let mut server = Server::start(&profile, 8);
    let mut client = server.client().await;
    let status = detect(&mut client, &video).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(!status.message().contains("/tmp"), "{status:?}");
    assert_eq!(detect(&mut client, &small).await.unwrap().len(), 3);
    drop(client);
    assert!(server.end().success());
}

#[tokio::test]
async fn sigterm_ends_a_watched_camera_with_a_summary_and_draining_and_exit_code_0() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = site(dir.path());
    let profile = dir.path().join("cam.json");
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
    let (_camera, url) = camera(&dir.path().join("a.mp4"), 0);
    let mut server = Server::start(&profile, 0);
    let mut client = server.client().await;
    let request = WatchRequest {
        source: Some(UriSource {
            uri: url,
            ..UriSource::default()
        }),
        options: Some(DetectOptions {
            provisional: true,
            ..DetectOptions::default()
        }),
        ..WatchRequest::default()
    };
    let mut responses = client.watch(request).await.unwrap().into_inner();
    loop {
        let response = responses.message().await.unwrap().unwrap();
        if let Some(watch_response::Message::FrameScores(_)) = response.message {
            break;
        }
    }
    let ended = tokio::task::spawn_blocking(move || server.end());
    let mut summary = None;
    let status = loop {
        match responses.message().await {
            Ok(Some(response)) => {
                assert!(summary.is_none(), "nothing comes after the summary");
                if let Some(watch_response::Message::Summary(told)) = response.message {
                    summary = Some(told);
                }
            }
            Ok(None) => panic!("a drained camera ends with a status"),
            Err(status) => break status,
        }
    };
    assert!(summary.unwrap().frames > 0);
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("draining"), "{status:?}");
    assert_eq!(ended.await.unwrap().code(), Some(0));
}
