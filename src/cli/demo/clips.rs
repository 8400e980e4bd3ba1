//! Clips as MP4 files with their truth beside them.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{ClipKind, FPS, HEIGHT, Scene, WIDTH};
use crate::{
    error::{Kind, Result, ResultExt},
    video::encode::Mp4Writer,
};

/// A clip on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clip {
    /// File name within the folder of the set.
    pub file: String,
    /// What it shows.
    pub kind: ClipKind,
    /// Seed of everything in it.
    pub seed: u64,
    /// Frames in it.
    pub frames: u64,
    /// Anomalous frames, ends exclusive, in order; empty for a normal clip.
    pub intervals: Vec<(u64, u64)>,
}

/// Renders the clip of `seed` and `kind` to `path` as MP4 (H.264, 320×240, 30 fps, 10 to 20 s) and
/// returns its anomalous frames, ends exclusive.
pub fn render(seed: u64, kind: ClipKind, path: &Path) -> Result<Vec<(u64, u64)>> {
    let scene = Scene::new(seed, kind);
    let mut writer = Mp4Writer::create(path, WIDTH as u32, HEIGHT as u32, FPS)?;
    for index in 0..scene.frames() {
        writer.push(scene.frame(index))?;
    }
    writer.finish()?;
    Ok(scene.intervals())
}

/// Two folders of clips with a manifest each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClipSets {
    /// `train.csv`: what heads are hunted and everything is calibrated on.
    pub train_manifest: PathBuf,
    /// `unseen.csv`: what nothing is tuned on.
    pub unseen_manifest: PathBuf,
    /// Clips of the training manifest, in its order.
    pub train: Vec<Clip>,
    /// Clips of the unseen manifest, in its order.
    pub unseen: Vec<Clip>,
}

/// Renders `train` + `unseen` clips below `dir` and writes `train.csv` and `unseen.csv` there
/// (`video,label,start_frame,end_frame`, ends exclusive, paths relative to `dir`).
///
/// A fifth of each set is normal, the rest divided among the anomalies. No seed is in both sets.
pub fn render_sets(dir: &Path, seed: u64, train: usize, unseen: usize) -> Result<ClipSets> {
    let render_set = |name: &str, first: u64, count: usize| -> Result<(PathBuf, Vec<Clip>)> {
        let folder = dir.join(name);
        std::fs::create_dir_all(&folder).or_kind(Kind::InvalidArgument, || {
            format!("cannot create {}", folder.display())
        })?;
        let clips = (0..count)
            .into_par_iter()
            .map(|i| {
                let kind = KINDS[i % KINDS.len()];
                let seed = clip_seed(seed, first + i as u64);
                let file = format!("{name}/{i:02}-{}.mp4", kind.as_str());
                let intervals = render(seed, kind, &dir.join(&file))?;
                Ok(Clip {
                    file,
                    kind,
                    seed,
                    frames: Scene::new(seed, kind).frames(),
                    intervals,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let manifest = dir.join(format!("{name}.csv"));
        write_manifest(&manifest, &clips)?;
        Ok((manifest, clips))
    };
    // Far apart, so that no number of clips makes the sets meet.
    let (train_manifest, train) = render_set("train", 0, train)?;
    let (unseen_manifest, unseen) = render_set("unseen", 500_000, unseen)?;
    Ok(ClipSets {
        train_manifest,
        unseen_manifest,
        train,
        unseen,
    })
}

/// Seed of clip `number` of the sets of `seed`.
fn clip_seed(seed: u64, number: u64) -> u64 {
    seed.wrapping_mul(1_000_003).wrapping_add(number)
}

const KINDS: [ClipKind; 5] = [
    ClipKind::Flash,
    ClipKind::Smoke,
    ClipKind::Normal,
    ClipKind::FastMover,
    ClipKind::WrongWay,
];

fn write_manifest(path: &Path, clips: &[Clip]) -> Result<()> {
    let named = || format!("cannot write {}", path.display());
    let mut csv = csv::Writer::from_path(path).or_kind(Kind::Internal, named)?;
    csv.write_record(["video", "label", "start_frame", "end_frame"])
        .or_kind(Kind::Internal, named)?;
    for clip in clips {
        if clip.intervals.is_empty() {
            csv.write_record([clip.file.as_str(), "normal", "", ""])
                .or_kind(Kind::Internal, named)?;
        }
        for (start, end) in &clip.intervals {
            csv.write_record([&clip.file, "anomaly", &start.to_string(), &end.to_string()])
                .or_kind(Kind::Internal, named)?;
        }
    }
    csv.flush().or_kind(Kind::Internal, named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_rendered_with_their_truth_and_share_no_seed() {
        let dir = tempfile::tempdir().unwrap();
        let sets = render_sets(dir.path(), 3, 2, 1).unwrap();
        assert_eq!((sets.train.len(), sets.unseen.len()), (2, 1));
        assert_ne!(sets.train[0].seed, sets.unseen[0].seed);
        let text = std::fs::read_to_string(&sets.train_manifest).unwrap();
        let (start, end) = sets.train[0].intervals[0];
        assert_eq!(
            text.lines().nth(1).unwrap(),
            format!("train/00-flash.mp4,anomaly,{start},{end}")
        );
        for clip in sets.train.iter().chain(&sets.unseen) {
            assert!(
                std::fs::metadata(dir.path().join(&clip.file))
                    .unwrap()
                    .len()
                    > 50_000
            );
        }
    }
}
