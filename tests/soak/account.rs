//! What one stream was told, and whether the camera's faults explain what it was not given.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use headhunt::rpc::proto::{
    DetectOptions, GapReason, ScoreStage, SourceState, UriSource, WatchRequest,
    detection_service_client::DetectionServiceClient, watch_response::Message,
};
use tonic::transport::Channel;

use crate::trouble::Window;

/// A hole in the scores that no gap explains, seconds: more than a frame at 10 per second.
const HOLE: f64 = 0.35;

/// A camera whose fault is over is scored again after so long: 4 s until silence counts, two waits
/// before attempts (3 s at most each; the first attempt may have begun during the fault), the
/// dialogue, and 1 s to the next key frame.
pub const HEALS: Duration = Duration::from_secs(12);

/// Most of what a healthy stream is not told yet: smoothing needs five segments (8 s) behind the one
/// that is told and one is under way; the rest is for queue, pass and the time it took to connect.
pub const TOLD: Duration = Duration::from_secs(15);

/// How far media time may be from the clock of this process before a fault, seconds: a segment cut
/// short by the fault, and the time until the first picture.
const SKEW: f64 = 2.5;

/// A part of the media without scores, seconds of media time.
#[derive(Clone)]
pub struct Gap {
    pub from: f64,
    pub to: f64,
    pub reason: &'static str,
    detail: String,
}

impl fmt::Debug for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Gap { from, to, .. } = self;
        write!(f, "{from:.1}–{to:.1} {}: {}", self.reason, self.detail)
    }
}

/// All that it was told.
#[derive(Default, Debug)]
pub struct Account {
    pub segments: u64,
    /// Seconds of media time.
    pub scored: f64,
    pub gaps: Vec<Gap>,
    /// Holes that nothing explains.
    pub holes: Vec<(f64, f64)>,
    /// End of what was told, seconds of media time.
    pub reached: f64,
    pub ended: Option<String>,
    /// The newest.
    pub state: Option<SourceState>,
    /// When the first picture was there: media time 0 on the clock of this process.
    zero: Option<Instant>,
}

impl Account {
    /// Seconds without scores.
    pub fn unscored(&self) -> f64 {
        self.gaps.iter().map(|gap| gap.to - gap.from).sum()
    }

    /// Each gap lies within a fault and the time that healing takes; gives the seconds of media
    /// time in which no fault excused anything.
    pub fn assert_explained(&self, name: &str, windows: &[Window]) -> f64 {
        let zero = self.zero.expect("the camera never showed a picture");
        let place = |at: Instant| match at.checked_duration_since(zero) {
            Some(since) => since.as_secs_f64(),
            None => -zero.duration_since(at).as_secs_f64(),
        };
        let mut excused: Vec<(f64, f64)> = windows
            .iter()
            .map(|w| (place(w.from) - SKEW, place(w.to + HEALS)))
            .collect();
        excused.sort_by(|a, b| a.0.total_cmp(&b.0));
        // What of a stretch no window covers, seconds.
        let bare = |from: f64, to: f64| {
            let mut at = from;
            let mut left = 0.0;
            for &(begin, end) in &excused {
                left += (begin.min(to) - at).max(0.0);
                at = at.max(end.min(to));
            }
            left + (to - at).max(0.0)
        };
        for gap in &self.gaps {
            // A tenth is a frame.
            assert!(
                bare(gap.from, gap.to) < 0.1,
                "{name}: no fault explains the gap {gap:?}; faults with healing: {excused:.1?}; all gaps: {:#?}",
                self.gaps
            );
        }
        bare(0.0, self.reached)
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::FrameScores(scores) if scores.stage() == ScoreStage::Final => {
                let first = seconds(scores.frames[0].pts);
                // A frame lasts a tenth of a second.
                let end = seconds(scores.frames.last().unwrap().pts) + 0.1;
                if first - self.reached > HOLE {
                    self.holes.push((self.reached, first));
                }
                self.segments += 1;
                self.scored += end - first;
                self.reached = end;
            }
            Message::Gap(gap) => {
                let reason = match gap.reason() {
                    GapReason::LoadShed => "shed",
                    GapReason::DecodeError => "decode",
                    GapReason::Stalled => "stalled",
                    GapReason::ConnectionLost => "lost",
                    GapReason::TimestampJump => "jump",
                    GapReason::Unspecified => panic!("a gap without a reason"),
                };
                let (from, to) = (seconds(gap.from), seconds(gap.to));
                self.reached = self.reached.max(to);
                self.gaps.push(Gap {
                    from,
                    to,
                    reason,
                    detail: gap.detail,
                });
            }
            Message::SourceState(state) => self.state = Some(state),
            Message::Opened(_) => self.zero = Some(Instant::now()),
            _ => {}
        }
    }
}

fn seconds(time: Option<prost_types::Duration>) -> f64 {
    time.map_or(0.0, |time| {
        time.seconds as f64 + f64::from(time.nanos) * 1e-9
    })
}

/// Watches until the stream ends or the task is aborted.
pub async fn watch(
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
        account.lock().unwrap().take(message);
    }
}
