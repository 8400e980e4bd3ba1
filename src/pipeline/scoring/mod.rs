//! A scoring run: p′ of every video of a list into a scores file that `headhunt evaluate` reads.
//!
//! The list may be cut into shards, each scored by a process of its own into its own file. Each
//! finished video is one line, written and synced at once, so a run that was killed goes on after the
//! last finished video. Beside the file, `FILE.meta.json` says which profile, model and list it
//! belongs to.

mod file;
mod list;
mod merge;
mod meta;

pub use file::ScoreFile;
pub use list::{ListedVideo, Shard, VideoList};
pub use merge::merge;
pub use meta::Meta;

use std::{path::Path, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    engine::{
        EngineConfig,
        probe::{Clip, HeadProbe},
    },
    error::{Error, Kind, Result},
    eval::scores::VideoScores,
    head::HeadSelection,
    pipeline::{
        evaluate::ScoredVideo,
        labelled::span_of,
        offline::{OpenFile, each_segment},
        options::PictureOptions,
        prepare::{PrepareOptions, Resize},
    },
    profile::Profile,
    score::{Scorer, locate::smooth_runs},
    segment::SegmentRule,
};

/// How videos are scored.
pub struct Scoring<'a> {
    /// The model.
    pub probe: &'a dyn HeadProbe,
    /// Heads, prompts, scorer and smoothing.
    pub profile: &'a Profile,
    /// The decoder.
    pub open: OpenFile,
    /// The resizer.
    pub resize: Resize,
    /// Stops it between two segments.
    pub cancel: &'a CancellationToken,
}

/// How a run went.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Videos that were scored now.
    pub scored: usize,
    /// Videos that the file had already.
    pub kept: usize,
    /// Videos that could not be scored, each with its error.
    pub failed: Vec<(String, Error)>,
}

impl Outcome {
    /// An error that names the videos that failed, if any did.
    pub fn result(&self) -> Result<()> {
        let Some((_, first)) = self.failed.first() else {
            return Ok(());
        };
        let names: Vec<&str> = self
            .failed
            .iter()
            .map(|(name, _)| name.as_str())
            .take(NAMED_MAX)
            .collect();
        let more = match self.failed.len() - names.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Err(Error::new(
            first.kind(),
            format!(
                "{} of {} videos could not be scored: {}{more}; the others are in the file, and \
                 --resume tries these again",
                self.failed.len(),
                self.failed.len() + self.scored + self.kept,
                names.join(", ")
            ),
        ))
    }
}

/// Failed videos that a final message names.
const NAMED_MAX: usize = 10;

impl Scoring<'_> {
    /// Scores the videos that `file` lacks, in order, and appends each as it is finished. A video
    /// that fails is told to `failed` and counted; the next one is taken.
    ///
    /// Fails where the file cannot be written, and with `Cancelled` where the token fires.
    pub fn run(
        &self,
        videos: &[ListedVideo],
        file: &mut ScoreFile,
        progress: &dyn Fn(usize, &str),
        failed: &dyn Fn(&str, &Error),
    ) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        for (number, video) in videos.iter().enumerate() {
            if file.has(&video.name) {
                outcome.kept += 1;
                continue;
            }
            progress(number, &video.name);
            match self.scores(video) {
                Ok(scores) => {
                    file.append(&scores)?;
                    outcome.scored += 1;
                }
                Err(error) if error.kind() == Kind::Cancelled || self.cancel.is_cancelled() => {
                    return Err(Error::cancelled(format!(
                        "stopped at video {}; --resume goes on there",
                        video.name
                    )));
                }
                Err(error) => {
                    failed(&video.name, &error);
                    outcome.failed.push((video.name.clone(), error));
                }
            }
        }
        Ok(outcome)
    }

    fn scores(&self, video: &ListedVideo) -> Result<VideoScores> {
        let path = video.path.as_deref().ok_or_else(|| {
            Error::not_found("there is no file of this name in the folder of the videos")
        })?;
        let scored = self.video(&video.name, path)?;
        if let Some(frames) = video.frames
            && frames != scored.frames
        {
            return Err(Error::invalid(format!(
                "{} frames were decoded, and the frame counts say {frames}: scores would not lie on \
                 the annotated frames",
                scored.frames
            )));
        }
        let locator = &self.profile.locator;
        let smoothed = smooth_runs(&scored.spans, &scored.p, locator.sigma, locator.edge)?;
        lines_up(&scored, smoothed, self.profile.segment)
    }

    /// p of each segment of a video. What is known of its frames is left empty.
    pub fn video(&self, name: &str, path: &Path) -> Result<ScoredVideo> {
        let profile = self.profile;
        let options = PrepareOptions {
            rule: profile.segment,
            frames_per_segment: profile.frames_per_segment,
            image_side: self.probe.info().image_side,
            keep_smaller: false,
            resize: Arc::clone(&self.resize),
            pictures: PictureOptions::default(),
        };
        let batch = EngineConfig::for_device(&self.probe.info().device).max_batch;
        let mut scored = ScoredVideo {
            name: name.to_owned(),
            frames: 0,
            anomalous: Vec::new(),
            class: None,
            spans: Vec::new(),
            p: Vec::new(),
        };
        let mut waiting: Vec<Clip> = Vec::with_capacity(batch);
        each_segment(self.open, path, &options, self.cancel, &mut |segment| {
            let span = span_of(&segment)?;
            scored.frames = span.last_frame + 1;
            scored.spans.push(span);
            waiting.push(segment.clip);
            if waiting.len() >= batch {
                self.pass(&mut waiting, &mut scored.p)?;
            }
            Ok(())
        })?;
        self.pass(&mut waiting, &mut scored.p)?;
        Ok(scored)
    }

    /// Runs the waiting clips and appends their p, averaged over the profile's prompts.
    fn pass(&self, waiting: &mut Vec<Clip>, p: &mut Vec<f64>) -> Result<()> {
        if waiting.is_empty() {
            return Ok(());
        }
        let profile = self.profile;
        let heads = HeadSelection::Only(profile.heads.clone());
        let scorer = Scorer::from(profile);
        let clips = std::mem::take(waiting);
        for features in self.probe.probe(&clips, &profile.scoring_prompts, &heads)? {
            let mut sum = 0.0;
            for prompt in 0..features.prompts {
                sum += scorer.probability(features.prompt(prompt))?;
            }
            p.push(sum / features.prompts as f64);
        }
        Ok(())
    }
}

/// A video's p′ as a line of the file: one score a segment where all segments have the profile's
/// frames (the last may have fewer), else one a frame.
fn lines_up(video: &ScoredVideo, smoothed: Vec<f64>, rule: SegmentRule) -> Result<VideoScores> {
    let frames_of = |at: usize| {
        video
            .spans
            .get(at)
            .map_or(0, |span| span.last_frame + 1 - span.first_frame)
    };
    let whole = video.spans.len().saturating_sub(1);
    let stride = match rule {
        // A gap ends a segment early; then segments and strides part ways.
        SegmentRule::Frames(n) if (0..whole).all(|at| frames_of(at) == u64::from(n)) => {
            u64::from(n)
        }
        SegmentRule::Frames(_) | SegmentRule::Seconds(_) => 1,
    };
    let scores = if stride == 1 {
        smoothed
            .iter()
            .enumerate()
            .flat_map(|(at, p)| (0..frames_of(at)).map(move |_| *p))
            .collect()
    } else {
        smoothed
    };
    if scores.len() as u64 != video.frames.div_ceil(stride) || scores.is_empty() {
        return Err(Error::internal(format!(
            "{} scores of {} frames at {stride} a score",
            scores.len(),
            video.frames
        )));
    }
    let shown: Duration = video
        .spans
        .iter()
        .map(|span| span.end.saturating_since(span.start))
        .sum();
    let fps = video.frames as f64 / shown.as_secs_f64();
    Ok(VideoScores {
        video: video.name.clone(),
        stride,
        scores,
        fps: (fps.is_finite() && fps > 0.0).then_some(fps),
        line: 0,
    })
}

#[cfg(test)]
mod tests;
