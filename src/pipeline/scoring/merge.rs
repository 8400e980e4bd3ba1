//! The parts of a list to one scores file.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use super::{Meta, meta::write_whole};
use crate::{
    error::{Error, Kind, Result, ResultExt},
    eval::scores::{self, VideoScores},
    limits::SCORING_SHARDS_MAX,
};

/// Merges `parts`, in any order, into `out`, in the order of the list. Returns the number of videos.
///
/// `InvalidArgument`, naming the part, where parts were made with different profiles, models or
/// lists, where a shard is missing or comes twice, and where a part lacks a video;
/// `FailedPrecondition` where `out` is there already; `DataLoss` where a part has another video than
/// its own, or one twice.
pub fn merge(parts: &[PathBuf], out: &Path) -> Result<usize> {
    // What says whose they are may lie there alone, of a merging that was cut short.
    if out.exists() {
        return Err(Error::precondition(format!(
            "{} is there already: give another file",
            out.display()
        )));
    }
    if parts.is_empty() || parts.len() > SCORING_SHARDS_MAX {
        return Err(Error::invalid(format!(
            "{} parts: give 1 to {SCORING_SHARDS_MAX}",
            parts.len()
        )));
    }
    let metas = parts
        .iter()
        .map(|part| Meta::read(part))
        .collect::<Result<Vec<_>>>()?;
    let Some(first) = metas.first() else {
        return Err(Error::invalid("no parts"));
    };
    let by_shard = by_shard(parts, &metas, first)?;
    let mut of_shard = by_shard
        .iter()
        .map(|&at| read_part(&parts[at], &metas[at]))
        .collect::<Result<Vec<_>>>()?;

    let named: usize = metas.iter().map(|meta| meta.videos().len()).sum();
    if named != first.list_videos() {
        return Err(Error::data_loss(format!(
            "{} says that the list has {} videos, and the parts together name {named}",
            Meta::path(&parts[0]).display(),
            first.list_videos()
        )));
    }
    // Shards take every n-th video of the list.
    let shards = by_shard.len();
    let mut names = Vec::with_capacity(first.list_videos());
    let mut lines = Vec::with_capacity(first.list_videos());
    for number in 0..first.list_videos() {
        let at = by_shard[number % shards];
        let name = metas[at].videos().get(number / shards).ok_or_else(|| {
            Error::data_loss(format!(
                "{} lists fewer videos than its shard has",
                Meta::path(&parts[at]).display()
            ))
        })?;
        let scores = of_shard[number % shards].remove(name).ok_or_else(|| {
            Error::invalid(format!(
                "{} has no scores of video {name}: go on with that part (--resume) first",
                parts[at].display()
            ))
        })?;
        names.push(name.clone());
        lines.push(scores);
    }
    let count = names.len();
    let texts = lines
        .iter()
        .map(VideoScores::to_line)
        .collect::<Result<Vec<_>>>()?;
    first.merged(names).write(out)?;
    write_whole(out, |file| {
        for text in &texts {
            writeln!(file, "{text}")?;
        }
        Ok(())
    })?;
    Ok(count)
}

/// Which part holds each shard.
fn by_shard(parts: &[PathBuf], metas: &[Meta], first: &Meta) -> Result<Vec<usize>> {
    let shards = first.shard().of;
    if shards == 0 || shards > SCORING_SHARDS_MAX {
        return Err(Error::data_loss(format!(
            "{} says that there are {shards} shards",
            Meta::path(&parts[0]).display()
        )));
    }
    let mut found: Vec<Option<usize>> = vec![None; shards];
    for (at, (path, meta)) in parts.iter().zip(metas).enumerate() {
        let shown = path.display();
        if let Some(difference) = meta.difference(first) {
            return Err(Error::invalid(format!(
                "{shown} does not belong to {}: {difference}",
                parts[0].display()
            )));
        }
        let shard = meta.shard();
        match found.get_mut(shard.index) {
            Some(place @ None) => *place = Some(at),
            Some(Some(other)) => {
                return Err(Error::invalid(format!(
                    "{shown} and {} are both shard {shard}",
                    parts[*other].display()
                )));
            }
            None => {
                return Err(Error::data_loss(format!(
                    "{shown} says it is shard {shard}"
                )));
            }
        }
    }
    found
        .into_iter()
        .enumerate()
        .map(|(shard, at)| {
            at.ok_or_else(|| {
                Error::invalid(format!(
                    "shard {shard}/{shards} is missing: give the parts of all shards"
                ))
            })
        })
        .collect()
}

fn read_part(path: &Path, meta: &Meta) -> Result<HashMap<String, VideoScores>> {
    let shown = path.display();
    let file = File::open(path).or_kind(Kind::NotFound, || format!("cannot open {shown}"))?;
    let own: HashSet<&String> = meta.videos().iter().collect();
    let mut videos = HashMap::new();
    for scores in scores::read(BufReader::new(file)) {
        let scores = scores.map_err(|e| e.context(&shown))?;
        let (name, line) = (scores.video.clone(), scores.line);
        if !own.contains(&name) {
            return Err(Error::data_loss(format!(
                "{shown}, line {line}: video {name} is not of its shard"
            )));
        }
        if videos.insert(name.clone(), scores).is_some() {
            return Err(Error::data_loss(format!(
                "{shown}, line {line}: video {name} comes twice"
            )));
        }
    }
    Ok(videos)
}
