//! Labelled videos and the samples they give: the offline path from video files to the features of
//! all heads.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use crate::{
    engine::probe::{Clip, HeadProbe},
    error::{Error, Result},
    head::{HeadFeatures, HeadSelection},
    pipeline::{
        offline::{OpenFile, each_segment, whole_video},
        prepare::{PrepareOptions, PreparedSegment},
        samples::Sample,
    },
    score::locate::SegmentSpan,
};

/// A video with what is known about it.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledVideo {
    /// Where it is.
    pub path: PathBuf,
    /// For messages and reports.
    pub name: String,
    /// Its video-level label.
    pub anomaly: bool,
    /// Anomalous frames, end exclusive.
    pub anomalous: Vec<(u64, u64)>,
    /// Whether `anomalous` is the whole truth; otherwise only the video-level label is known, and
    /// the video gives one whole-video sample.
    pub intervals_known: bool,
}

impl LabelledVideo {
    /// A segment is anomalous if at least half of it is.
    fn is_anomalous(&self, segment: &PreparedSegment) -> bool {
        let (Some(first), Some(last)) = (segment.frames.first(), segment.frames.last()) else {
            return false;
        };
        let anomalous: u64 = (first.index..=last.index)
            .filter(|i| self.anomalous.iter().any(|&(start, end)| (start..end).contains(i)))
            .count() as u64;
        2 * anomalous >= last.index - first.index + 1
    }
}

/// Where a video's frames stand in a segment's span.
pub fn span_of(segment: &PreparedSegment) -> Result<SegmentSpan> {
    match (segment.frames.first(), segment.frames.last()) {
        (Some(first), Some(last)) => Ok(SegmentSpan {
            first_frame: first.index,
            last_frame: last.index,
            start: first.pts,
            end: last.end(),
            run: segment.run,
        }),
        _ => Err(Error::internal("a segment without frames")),
    }
}

/// How far an extraction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extracted {
    /// Videos finished, and all of them.
    pub videos: (usize, usize),
    /// Samples so far.
    pub samples: usize,
}

/// Runs every sample of every video through the model and hands over its features, all heads under
/// every prompt, in the order of the videos.
///
/// Fails with the video's name before its error.
pub fn extract(
    probe: &dyn HeadProbe,
    open: OpenFile,
    videos: &[LabelledVideo],
    prepare: &PrepareOptions,
    prompts: &[String],
    cancel: &CancellationToken,
    progress: &dyn Fn(Extracted),
    sink: &mut dyn FnMut(Sample, HeadFeatures) -> Result<()>,
) -> Result<()> {
    let mut samples = 0;
    for (number, video) in videos.iter().enumerate() {
        let tell = |samples| progress(Extracted { videos: (number, videos.len()), samples });
        tell(samples);
        let mut keep = |segment: Option<&PreparedSegment>, clip: Clip| -> Result<()> {
            let sample = match segment {
                Some(segment) => Sample {
                    name: format!("{} from frame {}", video.name, first_frame(segment)),
                    video: number,
                    anomaly: video.is_anomalous(segment),
                    span: Some(span_of(segment)?),
                },
                None => Sample {
                    name: video.name.clone(),
                    video: number,
                    anomaly: video.anomaly,
                    span: None,
                },
            };
            let features = one(probe, clip, prompts)?;
            sink(sample, features)?;
            samples += 1;
            tell(samples);
            Ok(())
        };
        let done = if video.intervals_known {
            each_segment(open, &video.path, prepare, cancel, &mut |segment| {
                let clip = segment.clip.clone();
                keep(Some(&segment), clip)
            })
        } else {
            whole_video(open, &video.path, prepare, cancel)
                .and_then(|(clip, _)| keep(None, clip))
        };
        done.map_err(|e| e.context(&video.name))?;
    }
    progress(Extracted { videos: (videos.len(), videos.len()), samples });
    Ok(())
}

fn first_frame(segment: &PreparedSegment) -> u64 {
    segment.frames.first().map_or(0, |f| f.index)
}

/// All heads of one clip.
pub fn one(probe: &dyn HeadProbe, clip: Clip, prompts: &[String]) -> Result<HeadFeatures> {
    probe
        .probe(&[clip], prompts, &HeadSelection::All)?
        .pop()
        .ok_or_else(|| Error::internal("the model gave no features for a clip"))
}
