//! Labelled videos and the samples they give: the offline path from video files to the features of
//! all heads.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::probe::{Clip, HeadProbe},
    error::{Error, Result},
    head::{HeadFeatures, HeadSelection},
    intervals,
    pipeline::{
        offline::{Open, OpenFile, each_segment, whole_video},
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
    /// The sample of this video at this place (`None`: all of it), by the labels as they are now.
    /// `number` is the video's among those that are labelled.
    pub fn sample(&self, number: usize, span: Option<SegmentSpan>) -> Sample {
        let Some(span) = span else {
            return Sample {
                name: self.name.clone(),
                video: number,
                anomaly: self.anomaly,
                span: None,
            };
        };
        Sample {
            name: format!("{} from frame {}", self.name, span.first_frame),
            video: number,
            anomaly: intervals::is_anomalous(
                &self.anomalous,
                span.first_frame,
                span.last_frame.saturating_add(1),
            ),
            span: Some(span),
        }
    }

    /// Calls `each` with the clip of every sample, in order, and where it stands; `None`: it is the
    /// whole video. Gives the video's count of frames.
    ///
    /// Fails with `InvalidArgument` where labelled frames begin behind the video's end, besides the decoder's and
    /// `each`'s errors.
    pub fn each_clip(
        &self,
        open: impl Open,
        prepare: &PrepareOptions,
        cancel: &CancellationToken,
        each: &mut dyn FnMut(Option<SegmentSpan>, Clip) -> Result<()>,
    ) -> Result<u64> {
        if !self.intervals_known {
            let (clip, frames) = whole_video(open, &self.path, prepare, cancel)?;
            each(None, clip)?;
            return Ok(frames);
        }
        let frames = each_segment(open, &self.path, prepare, cancel, &mut |segment| {
            let span = span_of(&segment)?;
            each(Some(span), segment.clip)
        })?;
        self.check_frames(frames)?;
        Ok(frames)
    }

    /// Refuses labels behind the end of a video of so many frames: they would be learnt as normal. An end past the
    /// last frame is cut off.
    ///
    /// # Errors
    /// `InvalidArgument` with the labelled frames.
    pub fn check_frames(&self, frames: u64) -> Result<()> {
        let behind = |(start, _): &&(u64, u64)| *start >= frames;
        match self.anomalous.iter().find(behind) {
            Some((start, end)) if self.intervals_known => Err(Error::invalid(format!(
                "frames {start} to {end} are labelled anomalous, and the video has {frames}: correct the label"
            ))),
            _ => Ok(()),
        }
    }
}

/// What one sample is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplingUnit {
    /// Segments where the frames of any video are known, else whole videos.
    #[default]
    Auto,
    /// Segments; refused where an anomalous video's frames are not known.
    Segment,
    /// Whole videos.
    WholeVideo,
}

/// Decides what one sample of each video is. `intervals_known` must say what the labels say: whether
/// the video's rows give intervals.
///
/// What one sample is must be the same for both classes, or heads would be ranked by how far apart
/// their frames are: a normal video without intervals is cut into segments, all normal, where the
/// frames of any anomalous video are known, and is one whole-video sample where those of none are. Intervals of normal
/// videos say nothing.
///
/// Fails with `InvalidArgument` where segments are asked for and no anomalous video has intervals, or one has none.
pub fn assign_units(videos: &mut [LabelledVideo], unit: SamplingUnit) -> Result<()> {
    let any = videos
        .iter()
        .any(|video| video.anomaly && video.intervals_known);
    if unit == SamplingUnit::Segment && !any {
        return Err(Error::invalid(
            "no clip has intervals: say in which frames something happens, or sample whole videos",
        )
        .with_field("sampling_unit"));
    }
    let without = |video: &&LabelledVideo| video.anomaly && !video.intervals_known;
    if unit == SamplingUnit::Segment
        && let Some(video) = videos.iter().find(without)
    {
        return Err(Error::invalid(format!(
            "{} is anomalous without intervals, so it has no anomalous segments: say in which frames something happens, or let sampling be auto or whole-video",
            video.name
        ))
        .with_field("sampling_unit"));
    }
    let segments = any && unit != SamplingUnit::WholeVideo;
    for video in videos {
        video.intervals_known = segments && (video.intervals_known || !video.anomaly);
    }
    Ok(())
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

/// How labelled videos become features.
pub struct Extraction<'a> {
    /// The model.
    pub probe: &'a dyn HeadProbe,
    /// The decoder.
    pub open: OpenFile,
    /// How videos become clips.
    pub prepare: &'a PrepareOptions,
    /// What every sample is asked.
    pub prompts: &'a [String],
    /// Stops it between two segments.
    pub cancel: &'a CancellationToken,
}

impl Extraction<'_> {
    /// Runs every sample of every video through the model and hands over its features, all heads
    /// under every prompt, in the order of the videos.
    ///
    /// Fails with the video's name before its error.
    pub fn run(
        &self,
        videos: &[LabelledVideo],
        progress: &dyn Fn(Extracted),
        sink: &mut dyn FnMut(Sample, HeadFeatures) -> Result<()>,
    ) -> Result<()> {
        let mut samples = 0;
        for (number, video) in videos.iter().enumerate() {
            let mut keep = |span, clip| -> Result<()> {
                sink(
                    video.sample(number, span),
                    one(self.probe, clip, self.prompts)?,
                )?;
                samples += 1;
                progress(Extracted {
                    videos: (number, videos.len()),
                    samples,
                });
                Ok(())
            };
            video
                .each_clip(self.open, self.prepare, self.cancel, &mut keep)
                .map_err(|e| e.context(&video.name))?;
        }
        progress(Extracted {
            videos: (videos.len(), videos.len()),
            samples,
        });
        Ok(())
    }
}

/// All heads of one clip.
pub fn one(probe: &dyn HeadProbe, clip: Clip, prompts: &[String]) -> Result<HeadFeatures> {
    probe
        .probe(&[clip], prompts, &HeadSelection::All)?
        .pop()
        .ok_or_else(|| Error::internal("the model gave no features for a clip"))
}
