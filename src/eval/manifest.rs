//! Labelled clips of one's own: a CSV file `video,label,start_frame,end_frame`.
//!
//! The label is `anomaly` or `1`, `normal` or `0`. `start_frame` counts from 0, `end_frame` is
//! exclusive; both empty (or left out): the label is the whole video's. A video may have several
//! rows, one per interval; frames outside a video's anomalous intervals are normal.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use super::{
    Dataset, VideoTruth,
    counts::{FrameCounts, records},
};
use crate::{
    error::{Error, Result},
    intervals::{merge, overlap},
};

/// A row of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestRow {
    /// The video, as written.
    pub video: PathBuf,
    /// Its label.
    pub anomaly: bool,
    /// The frames labelled, end exclusive and not empty; `None`: the whole video.
    pub interval: Option<(u64, u64)>,
    /// Line in the file, from 1.
    pub line: u64,
}

/// A video of a manifest: all of its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestVideo {
    /// As written.
    pub video: PathBuf,
    /// Whether any of it is anomalous.
    pub anomaly: bool,
    /// Anomalous frames: end exclusive, sorted, without overlaps. Empty where the label is the whole
    /// video's, or normal.
    pub intervals: Vec<(u64, u64)>,
    /// Whether the rows give intervals, so that the label of every frame is known; if not, the
    /// video is one whole-video sample.
    pub has_intervals: bool,
    /// Line of its first row.
    pub line: u64,
}

impl ManifestVideo {
    /// Its name in messages and in frame counts and scores files: as written.
    pub fn name(&self) -> String {
        self.video.to_string_lossy().into_owned()
    }
}

/// Reads the rows, in order.
///
/// `InvalidArgument`, naming the line: neither two nor four fields, no video, an unknown label, one
/// of the frames without the other, a number that is not one, an interval that is empty.
pub fn parse(csv: &str) -> Result<Vec<ManifestRow>> {
    records(csv, &["video", "label", "start_frame", "end_frame"])
        .map(|record| {
            let (line, fields) = record.map_err(|e| e.context("manifest"))?;
            row(line, &fields).map_err(|e| e.context(format!("manifest, line {line}")))
        })
        .collect()
}

fn row(line: u64, fields: &[String]) -> Result<ManifestRow> {
    let (video, label, start, end) = match fields {
        [video, label] => (video, label, "", ""),
        [video, label, start, end] => (video, label, start.as_str(), end.as_str()),
        _ => {
            return Err(Error::invalid(format!(
                "{} fields where video,label,start_frame,end_frame are expected",
                fields.len()
            )));
        }
    };
    if video.is_empty() {
        return Err(Error::invalid("no video"));
    }
    let anomaly = match label.to_ascii_lowercase().as_str() {
        "anomaly" | "1" => true,
        "normal" | "0" => false,
        _ => {
            return Err(Error::invalid(format!(
                "label {label:?} of {video}: write anomaly, normal, 1 or 0"
            )));
        }
    };
    let frame = |what: &str, text: &str| {
        text.parse::<u64>().map_err(|_| {
            Error::invalid(format!("{what} {text:?} of {video} is not a frame number"))
        })
    };
    let interval = match (start, end) {
        ("", "") => None,
        ("", _) | (_, "") => {
            return Err(Error::invalid(format!(
                "{video} has only one of start_frame and end_frame: give both, or neither for the \
                 whole video"
            )));
        }
        (start, end) => {
            let (start, end) = (frame("start_frame", start)?, frame("end_frame", end)?);
            if start >= end {
                return Err(Error::invalid(format!(
                    "frames {start} to {end} of {video}: end_frame is exclusive, so it must be \
                     larger than start_frame"
                )));
            }
            Some((start, end))
        }
    };
    Ok(ManifestRow {
        video: PathBuf::from(video),
        anomaly,
        interval,
        line,
    })
}

/// Joins the rows of each video, in the order of their first rows.
///
/// `InvalidArgument`, naming the line: a row for the whole video beside any other, a frame that is
/// labelled anomalous and normal, no rows at all.
pub fn group(rows: &[ManifestRow]) -> Result<Vec<ManifestVideo>> {
    if rows.is_empty() {
        return Err(Error::invalid("manifest: no rows"));
    }
    let mut order: Vec<&Path> = Vec::new();
    let mut of_video: HashMap<&Path, Vec<&ManifestRow>> = HashMap::new();
    for row in rows {
        let rows = of_video.entry(&row.video).or_default();
        if rows.is_empty() {
            order.push(&row.video);
        }
        rows.push(row);
    }
    order
        .into_iter()
        .map(|video| join(video, of_video.get(video).map_or(&[], Vec::as_slice)))
        .collect()
}

fn join(video: &Path, rows: &[&ManifestRow]) -> Result<ManifestVideo> {
    let line = rows.first().map_or(0, |row| row.line);
    let whole = rows.iter().find(|row| row.interval.is_none());
    if let (Some(whole), true) = (whole, rows.len() > 1) {
        return Err(Error::invalid(format!(
            "manifest, line {}: a label for the whole of {}, which has {} rows: give it one such \
             row or intervals, not both",
            whole.line,
            video.display(),
            rows.len()
        )));
    }
    let anomalous: Vec<(u64, u64)> = rows
        .iter()
        .filter(|row| row.anomaly)
        .filter_map(|row| row.interval)
        .collect();
    let intervals = merge(anomalous);
    for row in rows.iter().filter(|row| !row.anomaly) {
        if let Some((start, end)) = row.interval
            && overlap(&intervals, start, end) > 0
        {
            return Err(Error::invalid(format!(
                "manifest, line {}: frames {start} to {end} of {} are normal here and partly \
                 anomalous in another row",
                row.line,
                video.display()
            )));
        }
    }
    Ok(ManifestVideo {
        video: video.to_owned(),
        anomaly: rows.iter().any(|row| row.anomaly),
        intervals,
        has_intervals: whole.is_none(),
        line,
    })
}

/// The manifest's videos with the truth of each frame. Frame counts name the videos as the manifest
/// does (up to a trailing `.mp4`).
///
/// `InvalidArgument`, naming the line: as [`parse`] and [`group`], a video without frame count, an
/// interval that goes past the last frame.
pub fn dataset(csv: &str, counts: &FrameCounts) -> Result<Dataset> {
    let rows = parse(csv)?;
    for row in &rows {
        let place = format!("manifest, line {}", row.line);
        let name = row.video.to_string_lossy();
        let frames = counts.require(&name, &place)?;
        if let Some((start, end)) = row.interval
            && end > frames
        {
            return Err(Error::invalid(format!(
                "{place}: frames {start} to {end} of {name}, which has {frames}"
            )));
        }
    }
    let videos = group(&rows)?
        .into_iter()
        .map(|video| {
            let name = video.name();
            let frames = counts.require(&name, format!("manifest, line {}", video.line))?;
            let positive = if video.anomaly && !video.has_intervals {
                vec![(0, frames)]
            } else {
                video.intervals
            };
            Ok(VideoTruth::new(&name, frames, positive))
        })
        .collect::<Result<Vec<_>>>()?;
    Dataset::new(videos)
}
