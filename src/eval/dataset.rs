//! The truth about a set of videos.

use std::collections::HashMap;

use super::video_name;
use crate::{
    error::{Error, Result},
    intervals::{merge, overlap},
};

/// What is known of one video.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoTruth {
    /// Its name, without a trailing `.mp4`.
    pub name: String,
    /// Frames; not 0.
    pub frames: u64,
    /// Anomalous frames: end exclusive, within the video, sorted, without overlaps. Each interval is
    /// one event: annotations that overlap or touch have been joined.
    pub positive: Vec<(u64, u64)>,
    /// What happens in it, as the data set calls it; empty where it is normal or not known.
    pub classes: Vec<String>,
}

impl VideoTruth {
    /// A video of `frames` frames of which those in `positive` (end exclusive, any order) are
    /// anomalous; what lies past the last frame is cut off.
    pub fn new(name: &str, frames: u64, positive: Vec<(u64, u64)>) -> VideoTruth {
        let clamped = positive
            .into_iter()
            .map(|(first, end)| (first, end.min(frames)))
            .collect();
        VideoTruth {
            name: video_name(name).to_owned(),
            frames,
            positive: merge(clamped),
            classes: Vec::new(),
        }
    }

    /// The same video with its classes, each once.
    #[must_use]
    pub fn with_classes(mut self, classes: impl IntoIterator<Item = String>) -> VideoTruth {
        for class in classes {
            if !self.classes.contains(&class) {
                self.classes.push(class);
            }
        }
        self
    }

    /// Whether nothing happens in it.
    pub fn is_normal(&self) -> bool {
        self.positive.is_empty() && self.classes.is_empty()
    }

    /// Number of anomalous frames.
    pub fn positives(&self) -> u64 {
        overlap(&self.positive, 0, self.frames)
    }
}

/// Videos with their truth; no name twice, at least one video.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    videos: Vec<VideoTruth>,
    by_name: HashMap<String, usize>,
}

impl Dataset {
    /// `InvalidArgument` for a name that comes twice, a video without frames, or no videos.
    pub fn new(videos: Vec<VideoTruth>) -> Result<Dataset> {
        if videos.is_empty() {
            return Err(Error::invalid("the data set has no videos"));
        }
        let mut by_name = HashMap::with_capacity(videos.len());
        for (at, video) in videos.iter().enumerate() {
            if video.frames == 0 {
                return Err(Error::invalid(format!(
                    "video {} has no frames",
                    video.name
                )));
            }
            if by_name.insert(video.name.clone(), at).is_some() {
                return Err(Error::invalid(format!(
                    "video {} comes twice in the data set",
                    video.name
                )));
            }
        }
        Ok(Dataset { videos, by_name })
    }

    /// The videos, in the annotations' order.
    pub fn videos(&self) -> &[VideoTruth] {
        &self.videos
    }

    /// Position in [`videos`](Self::videos) of a name, with or without a trailing `.mp4`.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.by_name.get(video_name(name)).copied()
    }

    /// Frames of all videos.
    pub fn frames(&self) -> u64 {
        self.videos.iter().map(|v| v.frames).sum()
    }

    /// Anomalous frames of all videos.
    pub fn positives(&self) -> u64 {
        self.videos.iter().map(VideoTruth::positives).sum()
    }
}
