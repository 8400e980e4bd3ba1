//! The demo's gRPC client: streams a file through `Detect`, as any other client would.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    error::{Error, Kind, Result, ResultExt},
    rpc::proto::{
        DetectRequest, Event, Open, ScoreStage, Summary, UploadSource, detect_request,
        detect_response, detection_service_client::DetectionServiceClient, open,
    },
};

/// Bytes per chunk.
const CHUNK_BYTES: usize = 256 << 10;

/// Requests that wait to be sent; with the chunk size 1 MiB in memory.
const WAITING_CHUNKS: usize = 4;

/// What the server said of one video.
#[derive(Debug, Default)]
pub struct Detection {
    /// p and p′ of every frame, by index.
    pub frames: Vec<(f64, f64)>,
    /// Per segment: start, end (seconds), p, p′.
    pub segments: Vec<[f64; 4]>,
    /// Events that ended.
    pub events: Vec<Event>,
    /// The last message.
    pub summary: Summary,
}

/// Waits until the server's health service says SERVING.
pub async fn wait_until_serving(address: &str, most: Duration) -> Result<Channel> {
    let until = tokio::time::Instant::now() + most;
    let endpoint = Channel::from_shared(format!("http://{address}"))
        .or_kind(Kind::Internal, || format!("the address {address}"))?
        .connect_timeout(Duration::from_secs(2));
    loop {
        if let Ok(channel) = endpoint.connect().await {
            let answer = HealthClient::new(channel.clone())
                .check(HealthCheckRequest {
                    service: String::new(),
                })
                .await;
            if answer.is_ok_and(|a| a.into_inner().status() == ServingStatus::Serving) {
                return Ok(channel);
            }
        }
        if tokio::time::Instant::now() >= until {
            return Err(Error::deadline(format!(
                "the server at {address} was not serving within {} s",
                most.as_secs()
            )));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Streams the file and checks that every frame got exactly one final score.
pub async fn detect(channel: Channel, path: &Path) -> Result<Detection> {
    let name = path.display().to_string();
    let (send, receive) = tokio::sync::mpsc::channel(WAITING_CHUNKS);
    let upload = tokio::spawn(upload(path.to_owned(), send));
    let mut responses = DetectionServiceClient::new(channel)
        .detect(tokio_stream::wrappers::ReceiverStream::new(receive))
        .await
        .map_err(|status| failed(&name, status))?
        .into_inner();
    let mut found = Detection::default();
    while let Some(response) = responses.next().await {
        use detect_response::Message as M;
        match response.map_err(|status| failed(&name, status))?.message {
            Some(M::FrameScores(scores)) if scores.stage() == ScoreStage::Final => {
                let mut end = 0.0;
                for frame in &scores.frames {
                    if frame.index != found.frames.len() as u64 {
                        return Err(Error::internal(format!(
                            "{name}: a final score of frame {} where {} was due",
                            frame.index,
                            found.frames.len()
                        )));
                    }
                    found.frames.push((frame.probability, frame.smoothed));
                    end = seconds(frame.pts);
                }
                if let Some(first) = scores.frames.first() {
                    let start = seconds(first.pts);
                    let each = (end - start) / (scores.frames.len().max(2) - 1) as f64;
                    found
                        .segments
                        .push([start, end + each, first.probability, first.smoothed]);
                }
            }
            Some(M::EventEnded(ended)) => found.events.extend(ended.event),
            Some(M::Summary(summary)) => found.summary = summary,
            _ => {}
        }
    }
    upload
        .await
        .or_kind(Kind::Internal, || format!("{name}: the upload failed"))??;
    if found.summary.frames != found.frames.len() as u64 {
        return Err(Error::internal(format!(
            "{name}: {} frames were decoded and {} scored",
            found.summary.frames,
            found.frames.len()
        )));
    }
    Ok(found)
}

async fn upload(path: PathBuf, to: tokio::sync::mpsc::Sender<DetectRequest>) -> Result<()> {
    use tokio::io::AsyncReadExt;
    let unreadable = || format!("cannot read {}", path.display());
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let opening = Open {
        source: Some(open::Source::Upload(UploadSource { name })),
        ..Open::default()
    };
    let mut next = detect_request::Message::Open(opening);
    let mut file = tokio::fs::File::open(&path)
        .await
        .or_kind(Kind::NotFound, unreadable)?;
    // A closed channel means that the server ended the call: its status tells why.
    while to
        .send(DetectRequest {
            message: Some(next),
        })
        .await
        .is_ok()
    {
        let mut chunk = vec![0; CHUNK_BYTES];
        let read = file
            .read(&mut chunk)
            .await
            .or_kind(Kind::Internal, unreadable)?;
        if read == 0 {
            break;
        }
        chunk.truncate(read);
        next = detect_request::Message::Chunk(chunk.into());
    }
    Ok(())
}

fn seconds(duration: Option<prost_types::Duration>) -> f64 {
    duration.map_or(0.0, |d| d.seconds as f64 + f64::from(d.nanos) / 1e9)
}

fn failed(name: &str, status: tonic::Status) -> Error {
    Error::internal(format!("{name}: {:?}: {}", status.code(), status.message()))
}
