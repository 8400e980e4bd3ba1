//! What queue and RPC add to a segment of a camera, with a model that costs nothing: from the arrival
//! of a segment's last frame to its provisional score at the client, for 1, 16 and 64 cameras that run
//! in real time. Prints percentiles; not a criterion bench, since what is measured is a wait.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use common::{media::RawMedia, server::TestServer};
use headhunt::{
    error::{Error, Result},
    media::{
        ChunkSource, Frame, FrameStamp, MediaEvent, MediaInfo, MediaSource, MediaTime, Picture,
        RgbImage,
    },
    rpc::{
        OpenMedia, UriSource,
        proto::{
            DetectOptions, ScoreStage, UriSource as Uri, WatchRequest, watch_response::Message,
        },
    },
};
use tokio_util::sync::CancellationToken;

/// Frames of a segment: 1.6 s at 25 per second.
const FRAMES: u64 = 40;
const FRAME: Duration = Duration::from_millis(40);
/// How long each number of cameras is watched.
const LASTS: Duration = Duration::from_secs(20);

struct Cameras;

impl OpenMedia for Cameras {
    fn open_upload(
        &self,
        chunks: Box<dyn ChunkSource>,
        cancel: CancellationToken,
    ) -> Result<Box<dyn MediaSource>> {
        RawMedia.open_upload(chunks, cancel)
    }

    fn open_uri(
        &self,
        _: UriSource,
        _: CancellationToken,
        cancel: CancellationToken,
    ) -> Result<Box<dyn MediaSource>> {
        // Cameras do not begin all at once.
        let phase = Duration::from_millis(rand::random_range(0..1600));
        Ok(Box::new(Camera {
            cancel,
            start: Instant::now() + phase,
            index: 0,
            opened: false,
        }))
    }
}

/// A whole segment and the first frame of the next arrive together, every 1.6 s: no waiting for a
/// frame is in the figures.
struct Camera {
    cancel: CancellationToken,
    start: Instant,
    index: u64,
    opened: bool,
}

impl MediaSource for Camera {
    fn next_event(&mut self) -> Result<Option<MediaEvent>> {
        if !self.opened {
            self.opened = true;
            return Ok(Some(MediaEvent::Opened(MediaInfo::default())));
        }
        if self.index % FRAMES == 1 {
            let due = self.start + FRAME * self.index as u32;
            while Instant::now() < due {
                if self.cancel.is_cancelled() {
                    return Err(Error::cancelled("cancelled"));
                }
                std::thread::sleep(due.saturating_duration_since(Instant::now()).min(FRAME));
            }
        }
        let stamp = FrameStamp {
            index: self.index,
            pts: MediaTime::ZERO.saturating_add(FRAME * self.index as u32),
            duration: FRAME,
        };
        self.index += 1;
        Ok(Some(MediaEvent::Frame(Frame {
            stamp,
            picture: Arc::new(Grey),
            received: Some(SystemTime::now()),
        })))
    }
}

struct Grey;

impl Picture for Grey {
    fn to_rgb(&self) -> Result<RgbImage> {
        Ok(RgbImage {
            width: 16,
            height: 16,
            data: vec![90; 16 * 16 * 3],
        })
    }

    fn size_bytes(&self) -> usize {
        768
    }
}

async fn watch(server: Arc<TestServer>) -> Vec<f64> {
    let request = WatchRequest {
        source: Some(Uri {
            uri: "rtsp://camera/1".into(),
            ..Default::default()
        }),
        profile: "live".into(),
        options: Some(DetectOptions {
            provisional: true,
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut client = server.client().await;
    let mut responses = client.watch(request).await.unwrap().into_inner();
    let until = Instant::now() + LASTS;
    let mut waits = vec![];
    while Instant::now() < until {
        let response = responses.message().await.unwrap().unwrap();
        let Some(Message::FrameScores(scores)) = response.message else {
            continue;
        };
        if scores.stage() == ScoreStage::Provisional {
            let received = SystemTime::try_from(response.received_at.unwrap()).unwrap();
            waits.push(received.elapsed().unwrap_or_default().as_secs_f64() * 1e3);
        }
    }
    waits
}

#[tokio::main]
async fn main() {
    for cameras in [1, 16, 64] {
        let server =
            Arc::new(TestServer::with("cameras.capacity_share = 1000.0", Arc::new(Cameras)).await);
        let watching: Vec<_> = (0..cameras)
            .map(|_| tokio::spawn(watch(server.clone())))
            .collect();
        let mut waits = vec![];
        for one in watching {
            waits.extend(one.await.unwrap());
        }
        waits.sort_by(f64::total_cmp);
        let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
        println!(
            "{cameras:3} cameras: {} segments, p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms",
            waits.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}
