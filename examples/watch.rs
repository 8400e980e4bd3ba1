//! Watches a camera with the client that this crate generates, and goes on after the stream was lost:
//!
//! ```text
//! cargo run --example watch -- http://127.0.0.1:50051 rtsp://127.0.0.1:8554/camera
//! ```

use std::{error::Error, time::Duration};

use headhunt::rpc::proto::{
    UriSource, WatchRequest, detection_service_client::DetectionServiceClient,
    watch_response::Message,
};
use tonic::{Code, Status, transport::Endpoint};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(server), Some(camera)) = (args.next(), args.next()) else {
        return Err("usage: watch http://HOST:PORT rtsp://HOST/PATH".into());
    };
    let endpoint = Endpoint::from_shared(server)?
        .connect_timeout(Duration::from_secs(5))
        // A server that vanishes without a word is found out.
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_while_idle(true);
    let mut wait = Duration::ZERO;
    loop {
        tokio::time::sleep(wait).await;
        let lost = match watch(&endpoint, &camera, &mut wait).await {
            // The media itself has ended: it was a file.
            Ok(()) => return Ok(()),
            Err(status) => status,
        };
        // Asking again would give the same answer.
        if matches!(
            lost.code(),
            Code::InvalidArgument
                | Code::NotFound
                | Code::FailedPrecondition
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::Unimplemented
        ) {
            return Err(lost.into());
        }
        wait = (wait * 2).clamp(Duration::from_millis(500), Duration::from_secs(30));
        eprintln!(
            "lost ({:?}: {}); again in {wait:?}",
            lost.code(),
            lost.message()
        );
    }
}

/// One stream; `wait` is zero again once it has brought a score.
async fn watch(endpoint: &Endpoint, camera: &str, wait: &mut Duration) -> Result<(), Status> {
    let channel = endpoint
        .connect()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let request = WatchRequest {
        source: Some(UriSource {
            uri: camera.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut responses = DetectionServiceClient::new(channel)
        .watch(request)
        .await?
        .into_inner();
    while let Some(response) = responses.message().await? {
        match response.message {
            Some(Message::Opened(opened)) => println!("session {}", opened.session_id),
            Some(Message::FrameScores(scores)) => {
                *wait = Duration::ZERO;
                if let (Some(first), Some(last)) = (scores.frames.first(), scores.frames.last()) {
                    println!(
                        "frames {}..{}  p={:.3}  p'={:.3}",
                        first.index, last.index, first.probability, first.smoothed
                    );
                }
            }
            Some(Message::EventStarted(started)) => println!("began: {:?}", started.event),
            Some(Message::EventEnded(ended)) => println!("ended: {:?}", ended.event),
            Some(Message::Gap(gap)) => println!("no scores: {}", gap.detail),
            Some(Message::SourceState(state)) => println!("camera: {}", state.detail),
            Some(Message::Summary(summary)) => println!("{} frames in all", summary.frames),
            Some(Message::EventUpdated(_) | Message::ProfileChanged(_)) | None => {}
        }
    }
    Ok(())
}
