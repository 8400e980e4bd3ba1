//! How many frames each video of a data set has: a CSV file `video,frames`.

use std::collections::HashMap;

use super::video_name;
use crate::error::{Error, Result};

/// Most frames a video may have: a year at 30 fps is below 2^30.
const FRAMES_MAX: u64 = 1 << 32;

/// Frame counts by video name (without a trailing `.mp4`), in the file's order.
#[derive(Clone, Debug, Default)]
pub struct FrameCounts {
    videos: Vec<(String, u64)>,
    by_name: HashMap<String, usize>,
}

impl FrameCounts {
    /// Reads `video,frames` rows; a first line of exactly these words is the header.
    ///
    /// `InvalidArgument`, naming the line: a row of other than two fields, a count that is not a
    /// whole number from 1 on, a video that comes twice.
    pub fn parse(csv: &str) -> Result<FrameCounts> {
        let mut counts = FrameCounts::default();
        for record in records(csv, &["video", "frames"]) {
            let (line, fields) = record.map_err(|e| e.context("frame counts"))?;
            let [video, frames] = fields.as_slice() else {
                return Err(Error::invalid(format!(
                    "frame counts, line {line}: {} fields where video,frames are expected",
                    fields.len()
                )));
            };
            let name = video_name(video);
            let frames = frames
                .parse::<u64>()
                .ok()
                .filter(|n| (1..=FRAMES_MAX).contains(n))
                .ok_or_else(|| {
                    Error::invalid(format!(
                        "frame counts, line {line}: {frames:?} frames of {name} is not a whole \
                         number from 1 to {FRAMES_MAX}"
                    ))
                })?;
            if name.is_empty() {
                return Err(Error::invalid(format!(
                    "frame counts, line {line}: no video name"
                )));
            }
            if counts
                .by_name
                .insert(name.to_owned(), counts.videos.len())
                .is_some()
            {
                return Err(Error::invalid(format!(
                    "frame counts, line {line}: video {name} comes twice"
                )));
            }
            counts.videos.push((name.to_owned(), frames));
        }
        Ok(counts)
    }

    /// All videos with their counts, in the file's order.
    pub fn videos(&self) -> &[(String, u64)] {
        &self.videos
    }

    /// Frames of a video, its name with or without a trailing `.mp4`.
    pub fn get(&self, name: &str) -> Option<u64> {
        let at = *self.by_name.get(video_name(name))?;
        self.videos.get(at).map(|(_, frames)| *frames)
    }

    /// The same, or an error that names the video and what asked for it.
    pub(super) fn require(&self, name: &str, wanted_by: impl std::fmt::Display) -> Result<u64> {
        self.get(name).ok_or_else(|| {
            Error::invalid(format!(
                "{wanted_by}: video {} is not in the frame counts",
                video_name(name)
            ))
        })
    }
}

/// Rows of a CSV text with their line numbers, without an optional `header` (at least the first two
/// of its names) in front. Fields are trimmed; empty lines are skipped; there are no comments (names contain `#`).
pub(super) fn records(
    csv: &str,
    header: &'static [&'static str],
) -> impl Iterator<Item = Result<(u64, Vec<String>)>> {
    // A byte order mark would become part of the first name.
    let csv = csv.strip_prefix('\u{feff}').unwrap_or(csv);
    csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(csv.as_bytes())
        .into_records()
        .enumerate()
        .filter_map(move |(row, record)| {
            let record = match record {
                Ok(record) => record,
                Err(e) => return Some(Err(Error::invalid("not a CSV file").with_source(e))),
            };
            let is_header = record.len() >= 2 && record.iter().zip(header).all(|(a, b)| a == *b);
            if row == 0 && is_header {
                return None;
            }
            let line = record
                .position()
                .map_or(row as u64 + 1, csv::Position::line);
            Some(Ok((line, record.iter().map(str::to_owned).collect())))
        })
}
