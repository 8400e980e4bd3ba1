//! XD-Violence's annotations of the 500 violent ones of its 800 test videos (`annotations.txt`).
//!
//! A line names a video, then the first and last frame of each of its events (up to 22; last frames
//! belong to their event). Names contain dots; some carry a trailing `.mp4`. The other videos are
//! normal, and say so: their names end in `label_A`.
//!
//! A violent video's name ends in up to three codes of what it shows, `label_B2-0-0` or
//! `label_G-B2-B6`; 0 fills up. A video with several counts in each of its classes.

use std::collections::HashMap;

use super::{Dataset, VideoTruth, counts::FrameCounts, ucf_crime::inclusive, video_name};
use crate::error::{Error, Result};

/// How the name of a normal video ends.
const NORMAL_SUFFIX: &str = "label_A";

/// What stands before the codes of a name.
const LABEL: &str = "label_";

/// Codes and the classes that they mean.
const CLASSES: [(&str, &str); 6] = [
    ("B1", "B1 fighting"),
    ("B2", "B2 shooting"),
    ("B4", "B4 riot"),
    ("B5", "B5 abuse"),
    ("B6", "B6 car accident"),
    ("G", "G explosion"),
];

/// The classes that a violent video's name tells.
fn classes(name: &str) -> Result<Vec<String>> {
    let codes = name.rsplit_once(LABEL).map_or("", |(_, codes)| codes);
    let classes = codes
        .split('-')
        .filter(|code| *code != "0")
        .map(|code| {
            let known = CLASSES.iter().find(|(known, _)| *known == code);
            known.map(|(_, class)| (*class).to_owned()).ok_or_else(|| {
                Error::invalid(format!(
                    "XD-Violence: {name} must end in {LABEL} and codes such as B1-0-0; {code:?} \
                     is none of B1, B2, B4, B5, B6, G, 0"
                ))
            })
        })
        .collect::<Result<Vec<_>>>()?;
    if classes.is_empty() {
        return Err(Error::invalid(format!(
            "XD-Violence: {name} has events but its name has no code of a class"
        )));
    }
    Ok(classes)
}

/// Reads the annotations; the videos are those of the frame counts.
///
/// `InvalidArgument`, naming the line or video, for anything else than the above, so that a
/// shortened annotation file does not turn violence into normal frames.
pub fn parse(annotations: &str, counts: &FrameCounts) -> Result<Dataset> {
    let mut events: HashMap<&str, Vec<(u64, u64)>> = HashMap::new();
    for (i, line) in annotations.lines().enumerate() {
        let place = format!("XD-Violence annotations, line {}", i + 1);
        let mut fields = line.split_whitespace();
        let Some(video) = fields.next() else {
            continue;
        };
        let name = video_name(video);
        let frames = counts.require(name, &place)?;
        let numbers: Vec<&str> = fields.collect();
        let pairs = numbers.chunks_exact(2);
        if numbers.is_empty() || !pairs.remainder().is_empty() {
            return Err(Error::invalid(format!(
                "{place}: {} numbers after the name where first and last frames of events are \
                 expected",
                numbers.len()
            )));
        }
        let intervals = pairs
            .map(|pair| inclusive(pair[0], pair[1], frames))
            .collect::<Result<Vec<_>>>()
            .map_err(|e| e.context(&place))?;
        if name.ends_with(NORMAL_SUFFIX) {
            return Err(Error::invalid(format!(
                "{place}: {name} has events but its name says {NORMAL_SUFFIX} (normal)"
            )));
        }
        if events.insert(name, intervals).is_some() {
            return Err(Error::invalid(format!("{place}: {name} comes twice")));
        }
    }
    let videos = counts
        .videos()
        .iter()
        .map(|(name, frames)| {
            let intervals = match events.remove(name.as_str()) {
                Some(intervals) => intervals,
                None if name.ends_with(NORMAL_SUFFIX) => Vec::new(),
                None => {
                    return Err(Error::invalid(format!(
                        "XD-Violence annotations: {name} is not normal by its name (which would \
                         end in {NORMAL_SUFFIX}), but has no events"
                    )));
                }
            };
            let classes = if intervals.is_empty() {
                Vec::new()
            } else {
                classes(name)?
            };
            Ok(VideoTruth::new(name, *frames, intervals).with_classes(classes))
        })
        .collect::<Result<Vec<_>>>()?;
    Dataset::new(videos)
}
