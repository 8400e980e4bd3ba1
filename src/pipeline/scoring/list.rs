//! Which videos a run scores, and its share of them.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Kind, Result, ResultExt},
    eval::{counts::FrameCounts, manifest, video_name},
    limits::{SCORING_SHARDS_MAX, VIDEO_FOLDER_DEPTH, VIDEO_FOLDER_ENTRIES_MAX},
};

/// A video to score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedVideo {
    /// Its name in the scores file.
    pub name: String,
    /// Where it is; `None`: it was not found.
    pub path: Option<PathBuf>,
    /// Frames that it must have, where they are known.
    pub frames: Option<u64>,
}

/// All videos of a run over all shards, in the order of the merged file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoList {
    videos: Vec<ListedVideo>,
}

impl VideoList {
    /// The videos of frame counts, each looked for in `folder` and the folders in it by its name,
    /// with or without the file's extension.
    ///
    /// `NotFound` where the folder cannot be read; `InvalidArgument` where two files have the name of
    /// one listed video. A video that is not found fails when its turn comes.
    pub fn of_counts(counts: &FrameCounts, folder: &Path) -> Result<VideoList> {
        let mut files: HashMap<String, Vec<PathBuf>> = HashMap::new();
        let mut entries = 0;
        walk(folder, 0, &mut entries, &mut files)?;
        let videos = counts
            .videos()
            .iter()
            .map(|(name, frames)| {
                let found = files.get(name).map_or(&[][..], Vec::as_slice);
                // Notes and features lie beside videos under the same name.
                let plain = [name.clone(), format!("{name}.mp4")];
                let is_plain = |path: &&PathBuf| {
                    let file = path.file_name().and_then(|file| file.to_str());
                    plain.iter().any(|plain| file == Some(plain))
                };
                let videos: Vec<&PathBuf> = found.iter().filter(is_plain).collect();
                let found = match videos[..] {
                    [video] => std::slice::from_ref(video),
                    _ => found,
                };
                let path = match found {
                    [] => None,
                    [one] => Some(one.clone()),
                    [first, second, ..] => {
                        return Err(Error::invalid(format!(
                            "video {name} is both {} and {}: keep one of them",
                            first.display(),
                            second.display()
                        )));
                    }
                };
                Ok(ListedVideo {
                    name: name.clone(),
                    path,
                    frames: Some(*frames),
                })
            })
            .collect::<Result<_>>()?;
        VideoList { videos }.checked()
    }

    /// The videos of a manifest, relative to `folder`. Frame counts are not known then.
    ///
    /// `InvalidArgument` as [`manifest::parse`] and [`manifest::group`].
    pub fn of_manifest(csv: &str, folder: &Path) -> Result<VideoList> {
        let videos = manifest::group(&manifest::parse(csv)?)?
            .into_iter()
            .map(|video| {
                let path = folder.join(&video.video);
                ListedVideo {
                    name: video_name(&video.name()).to_owned(),
                    path: path.is_file().then_some(path),
                    frames: None,
                }
            })
            .collect();
        VideoList { videos }.checked()
    }

    fn checked(self) -> Result<VideoList> {
        if self.videos.is_empty() {
            return Err(Error::invalid("the list has no videos"));
        }
        let mut seen = HashSet::new();
        for video in &self.videos {
            if !seen.insert(video.name.as_str()) {
                return Err(Error::invalid(format!(
                    "video {} comes twice in the list",
                    video.name
                )));
            }
        }
        Ok(self)
    }

    /// Videos of all shards.
    pub fn len(&self) -> usize {
        self.videos.len()
    }

    /// Whether there are none; there always are some.
    pub fn is_empty(&self) -> bool {
        self.videos.is_empty()
    }

    /// A shard's videos: every n-th, so that shards have about as many, whatever the list's order.
    pub fn shard(&self, shard: Shard) -> Vec<ListedVideo> {
        self.videos
            .iter()
            .skip(shard.index)
            .step_by(shard.of)
            .cloned()
            .collect()
    }

    /// SHA-256, hex, of all names and frame counts in order: the same list on another machine has
    /// the same.
    pub fn digest(&self) -> String {
        let mut digest = Sha256::new();
        for video in &self.videos {
            let frames = video.frames.map_or(String::new(), |n| n.to_string());
            // Lengths keep two names from reading like one.
            digest.update(format!("{}:{}{frames}\n", video.name.len(), video.name));
        }
        digest
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// Files by name: as written, without `.mp4`, and without whatever extension.
fn walk(
    folder: &Path,
    depth: usize,
    entries: &mut usize,
    files: &mut HashMap<String, Vec<PathBuf>>,
) -> Result<()> {
    let unreadable = || format!("cannot read the folder {}", folder.display());
    for entry in fs::read_dir(folder).or_kind(Kind::NotFound, unreadable)? {
        *entries += 1;
        if *entries > VIDEO_FOLDER_ENTRIES_MAX {
            return Err(Error::exhausted(format!(
                "{} and the folders in it have more than {VIDEO_FOLDER_ENTRIES_MAX} entries: name \
                 the folder of the videos",
                folder.display()
            )));
        }
        let path = entry.or_kind(Kind::NotFound, unreadable)?.path();
        if path.is_dir() {
            if depth < VIDEO_FOLDER_DEPTH {
                walk(&path, depth + 1, entries, files)?;
            }
            continue;
        }
        let name = path.file_name().and_then(|name| name.to_str());
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        if let (Some(name), Some(stem)) = (name, stem) {
            for known in [name, stem] {
                let paths = files.entry(known.to_owned()).or_default();
                if paths.last() != Some(&path) {
                    paths.push(path.clone());
                }
            }
        }
    }
    Ok(())
}

/// One of several parts of a list: `i/n`, counting from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which, below `of`.
    pub index: usize,
    /// Of how many; at least 1.
    pub of: usize,
}

impl Shard {
    /// The whole list.
    pub const WHOLE: Shard = Shard { index: 0, of: 1 };
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Shard> {
        let parts = text.split_once('/');
        let numbers = parts.and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((index, of)) if index < of && of <= SCORING_SHARDS_MAX => Ok(Shard { index, of }),
            _ => Err(Error::invalid(format!(
                "shard {text:?}: write i/n with i from 0 to n - 1, for instance 0/4; n is at most \
                 {SCORING_SHARDS_MAX}"
            ))),
        }
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}
