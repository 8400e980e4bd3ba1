//! Labelled videos from a manifest, for `extract` and `calibrate`.

use std::{collections::HashMap, io::Read, path::Path};

use crate::{
    error::{Error, Kind, Result, ResultExt},
    eval::manifest,
    pipeline::labelled::{LabelledVideo, SamplingUnit, assign_units},
};

/// Largest manifest, bytes: some hundred thousand rows.
const MANIFEST_MAX_BYTES: u64 = 16 << 20;

/// Reads a manifest; relative paths are relative to its folder. Every video must be there.
pub fn read_manifest(path: &Path, unit: SamplingUnit) -> Result<Vec<LabelledVideo>> {
    let shown = path.display();
    let mut csv = String::new();
    let file = std::fs::File::open(path).or_kind(Kind::NotFound, || {
        format!("cannot open the manifest {shown}")
    })?;
    file.take(MANIFEST_MAX_BYTES + 1)
        .read_to_string(&mut csv)
        .or_kind(Kind::InvalidArgument, || {
            format!("cannot read the manifest {shown} as text")
        })?;
    if csv.len() as u64 > MANIFEST_MAX_BYTES {
        return Err(Error::invalid(format!(
            "the manifest {shown} is larger than 16 MiB"
        )));
    }
    let videos = manifest::group(&manifest::parse(&csv)?)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut videos = videos
        .into_iter()
        .map(|video| {
            let found = folder.join(&video.video);
            if !found.is_file() {
                return Err(Error::not_found(format!(
                    "{shown}, line {}: there is no file {}",
                    video.line,
                    found.display()
                )));
            }
            Ok(LabelledVideo {
                // However it is written: what is one video must not count as two.
                path: found.canonicalize().or_kind(Kind::NotFound, || {
                    format!("cannot read {}", found.display())
                })?,
                name: video.name(),
                anomaly: video.anomaly,
                intervals_known: video.has_intervals,
                anomalous: video.intervals,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let mut known: HashMap<&Path, &str> = HashMap::new();
    for video in &videos {
        if let Some(other) = known.insert(&video.path, &video.name) {
            return Err(Error::invalid(format!(
                "{shown}: {other} and {} are one file, {}: write it the same way in each row",
                video.name,
                video.path.display()
            )));
        }
    }
    assign_units(&mut videos, unit)?;
    Ok(videos)
}

/// How many samples there are of each class, for people.
pub fn samples_note(labels: &[bool]) -> String {
    let anomalous = labels.iter().filter(|&&l| l).count();
    format!(
        "{} samples, {anomalous} anomalous, {} normal",
        labels.len(),
        labels.len() - anomalous
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn one_video_under_two_names_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.mp4"), "video").unwrap();
        std::fs::write(dir.path().join("b.mp4"), "video").unwrap();
        let manifest = dir.path().join("m.csv");
        let read = |rows: &str| {
            let csv = format!("video,label,start_frame,end_frame\n{rows}");
            std::fs::write(&manifest, csv).unwrap();
            read_manifest(&manifest, SamplingUnit::Auto)
        };
        let videos = read("a.mp4,anomaly,0,5\n./b.mp4,normal,,\n").unwrap();
        assert_eq!(
            videos[1].path,
            dir.path().join("b.mp4").canonicalize().unwrap()
        );
        let error = read("a.mp4,anomaly,0,5\n./a.mp4,normal,,\n").unwrap_err();
        assert!(error.message().contains("are one file"), "{error}");
    }
}
