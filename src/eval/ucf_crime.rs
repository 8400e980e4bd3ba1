//! UCF-Crime's annotations of its 290 test videos
//! (`Temporal_Anomaly_Annotation_for_Testing_Videos.txt`).
//!
//! A line names a file, its class, and the first and last frame of up to two events, −1 for none.
//! Frames count from 0 and last frames belong to their event. Seven events end at or past their
//! video's last frame: they are cut off there.

use super::{Dataset, VideoTruth, counts::FrameCounts};
use crate::error::{Error, Result};

/// The class of videos in which nothing happens.
const NORMAL: &str = "Normal";

/// Reads the annotations; every annotated video needs its frame count.
///
/// `InvalidArgument`, naming the line, for anything else than the above.
pub fn parse(annotations: &str, counts: &FrameCounts) -> Result<Dataset> {
    let mut videos = Vec::new();
    for (i, line) in annotations.lines().enumerate() {
        let place = format!("UCF-Crime annotations, line {}", i + 1);
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields.is_empty() {
            continue;
        }
        let [video, class, numbers @ ..] = fields.as_slice() else {
            return Err(Error::invalid(format!("{place}: {line:?} is not complete")));
        };
        let [a, b, c, d] = numbers else {
            return Err(Error::invalid(format!(
                "{place}: {} numbers after video and class where 4 are expected",
                numbers.len()
            )));
        };
        let frames = counts.require(video, &place)?;
        let mut events = Vec::new();
        for (first, last) in [(a, b), (c, d)] {
            if (*first, *last) == ("-1", "-1") {
                continue;
            }
            events.push(inclusive(first, last, frames).map_err(|e| e.context(&place))?);
        }
        if (*class == NORMAL) != events.is_empty() {
            return Err(Error::invalid(format!(
                "{place}: class {class} with {} events",
                events.len()
            )));
        }
        let class = (*class != NORMAL).then(|| (*class).to_owned());
        videos.push(VideoTruth::new(video, frames, events).with_classes(class));
    }
    Dataset::new(videos)
}

/// First and last frame of an event as an interval with the end exclusive.
pub(super) fn inclusive(first: &str, last: &str, frames: u64) -> Result<(u64, u64)> {
    let number = |text: &str| {
        text.parse::<u64>()
            .ok()
            .filter(|n| *n < u64::MAX)
            .ok_or_else(|| Error::invalid(format!("{text:?} is not a frame number")))
    };
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(Error::invalid(format!(
            "an event starts at frame {first} and ends before it, at {last}"
        )));
    }
    if first >= frames {
        return Err(Error::invalid(format!(
            "an event starts at frame {first} of a video of {frames} frames"
        )));
    }
    Ok((first, last + 1))
}
