//! The test part: p of its segments to ranked frames, smoothed or not.

use super::Part;
use crate::{
    error::{Error, Result},
    eval::bootstrap::{Piece, Ranked},
    intervals::overlap,
    profile::Edge,
    score::locate::{SegmentSpan, smooth_runs},
};

/// A test video whose frames are all known.
struct Video {
    /// Which samples of the part, in media order.
    samples: Vec<usize>,
    spans: Vec<SegmentSpan>,
    truth: Vec<(u64, u64)>,
}

/// The segments that the rows are measured on.
pub(super) struct TestSet {
    videos: Vec<Video>,
    edge: Edge,
    /// Frames of all videos.
    pub frames: u64,
    /// Anomalous ones.
    pub positives: u64,
    /// Videos without known intervals, which tell nothing of their frames.
    pub left_out: Vec<String>,
}

impl TestSet {
    /// `InvalidArgument` where no video has known intervals, or all frames are of one class.
    pub fn new(part: &Part, edge: Edge) -> Result<TestSet> {
        let mut videos: Vec<Video> = part
            .videos
            .iter()
            .map(|video| Video {
                samples: Vec::new(),
                spans: Vec::new(),
                truth: crate::intervals::merge(video.anomalous.clone()),
            })
            .collect();
        for (number, sample) in part.set.samples.iter().enumerate() {
            if let (Some(span), Some(video)) = (sample.span, videos.get_mut(sample.video)) {
                video.samples.push(number);
                video.spans.push(span);
            }
        }
        let left_out = part
            .videos
            .iter()
            .zip(&videos)
            .filter(|(_, video)| video.spans.is_empty())
            .map(|(labelled, _)| labelled.name.clone())
            .collect();
        videos.retain(|video| !video.spans.is_empty());
        let (mut frames, mut positives) = (0, 0);
        for video in &videos {
            for (positive, negative) in video.counts() {
                frames += positive + negative;
                positives += positive;
            }
        }
        if positives == 0 || positives == frames {
            return Err(Error::invalid(format!(
                "the test videos with known intervals have {positives} anomalous frames of \
                 {frames}: the figures need both kinds, so give test clips with intervals"
            )));
        }
        Ok(TestSet {
            videos,
            edge,
            frames,
            positives,
            left_out,
        })
    }

    /// Videos that are measured.
    pub fn len(&self) -> usize {
        self.videos.len()
    }

    /// Frames ranked by p of each sample of the part, smoothed by `sigma` where there is one.
    pub fn rank(&self, p: &[f64], sigma: Option<f64>) -> Result<Ranked> {
        let mut pieces = Vec::new();
        for (number, video) in self.videos.iter().enumerate() {
            let of_video = video
                .samples
                .iter()
                .map(|&sample| {
                    p.get(sample)
                        .copied()
                        .ok_or_else(|| Error::internal("a test sample has no score"))
                })
                .collect::<Result<Vec<f64>>>()?;
            let scores = match sigma {
                Some(sigma) => smooth_runs(&video.spans, &of_video, sigma, self.edge)?,
                None => of_video,
            };
            for ((positive, negative), score) in video.counts().zip(scores) {
                pieces.push(Piece {
                    video: number,
                    score,
                    positive,
                    negative,
                });
            }
        }
        Ranked::new(pieces)
    }
}

impl Video {
    /// Anomalous and normal frames of each segment.
    fn counts(&self) -> impl Iterator<Item = (u64, u64)> {
        self.spans.iter().map(|span| {
            let end = span.last_frame.saturating_add(1);
            let positive = overlap(&self.truth, span.first_frame, end);
            (
                positive,
                end.saturating_sub(span.first_frame)
                    .saturating_sub(positive),
            )
        })
    }
}
