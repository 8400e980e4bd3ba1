use std::{fs, path::PathBuf};

use super::*;
use crate::{eval::counts::FrameCounts, media::MediaTime, profile::*, score::locate::SegmentSpan};

fn span(first: u64, frames: u64, run: u64) -> SegmentSpan {
    SegmentSpan {
        first_frame: first,
        last_frame: first + frames - 1,
        start: MediaTime::from_nanos(first as i64 * 40_000_000),
        end: MediaTime::from_nanos((first + frames) as i64 * 40_000_000),
        run,
    }
}

fn video(spans: Vec<SegmentSpan>) -> ScoredVideo {
    ScoredVideo {
        name: "a.b".into(),
        frames: spans.last().map_or(0, |s| s.last_frame + 1),
        anomalous: Vec::new(),
        class: None,
        p: vec![0.0; spans.len()],
        spans,
    }
}

#[test]
fn scores_lie_on_the_frames_of_their_segments() {
    let whole = video(vec![span(0, 4, 0), span(4, 4, 0), span(8, 2, 0)]);
    let line = lines_up(&whole, vec![0.1, 0.2, 0.3], SegmentRule::Frames(4)).unwrap();
    assert_eq!((line.stride, line.scores), (4, vec![0.1, 0.2, 0.3]));
    assert!((line.fps.unwrap() - 25.0).abs() < 1e-9);
    // By time, and where a gap cut a segment short, each frame has its own.
    for (video, rule) in [
        (whole.clone(), SegmentRule::Seconds(0.16)),
        (
            video(vec![span(0, 4, 0), span(4, 2, 0), span(6, 4, 1)]),
            SegmentRule::Frames(4),
        ),
    ] {
        let line = lines_up(&video, vec![0.1, 0.2, 0.3], rule).unwrap();
        assert_eq!((line.stride, line.scores.len()), (1, 10));
        for (span, p) in video.spans.iter().zip([0.1, 0.2, 0.3]) {
            for frame in span.first_frame..=span.last_frame {
                assert_eq!(line.scores[frame as usize], p);
            }
        }
    }
    let one = video(vec![span(0, 3, 0)]);
    let line = lines_up(&one, vec![0.5], SegmentRule::Frames(4)).unwrap();
    assert_eq!((line.stride, line.scores.len()), (4, 1));
    assert!(lines_up(&video(vec![]), vec![], SegmentRule::Frames(4)).is_err());
}

fn list(names: &[&str]) -> VideoList {
    let csv: String = names.iter().map(|n| format!("{n},normal\n")).collect();
    VideoList::of_manifest(&csv, &PathBuf::new()).unwrap()
}

fn profile() -> Profile {
    Profile {
        schema: SCHEMA,
        name: "p".into(),
        created_unix_s: 0,
        model: ModelBinding {
            name: "m".into(),
            fingerprint: "f".repeat(64),
            head_dim: 1,
            device: "cpu".into(),
            dtype: "f32".into(),
        },
        segment: SegmentRule::Frames(48),
        frames_per_segment: 16,
        heads: vec![[0, 0].into()],
        hunt_prompts: vec!["q".into()],
        scoring_prompts: vec!["q".into()],
        scorer: ScorerParams {
            weights: vec![1.0],
            intercept: 0.0,
        }
        .into(),
        locator: LocatorParams {
            sigma: 1.5,
            threshold: 0.65,
            edge: Edge::Renormalize,
            event_bridge_s: None,
        },
        notes: serde_json::Map::new(),
    }
}

fn meta(list: &VideoList, shard: Shard, profile: &Profile) -> Meta {
    let info = crate::engine::probe::ProbeInfo {
        name: "m".into(),
        device: "cpu".into(),
        dtype: "f32".into(),
        layers: 1,
        heads: 1,
        head_dim: 1,
        resident_layers: 1,
        image_side: 8,
        resizes: false,
    };
    Meta::new(profile, &info, list, shard).unwrap()
}

fn scores(video: &str, score: f64) -> VideoScores {
    VideoScores {
        video: video.into(),
        stride: 48,
        scores: vec![score, 1.0 / 3.0],
        fps: Some(29.97),
        line: 0,
    }
}

#[test]
fn shards_are_disjoint_complete_and_named_plainly() {
    let all = list(&["a", "b", "c", "d", "e"]);
    let names = |text: &str| -> Vec<String> {
        let shard = all.shard(text.parse().unwrap());
        shard.into_iter().map(|v| v.name).collect()
    };
    assert_eq!(names("0/2"), ["a", "c", "e"]);
    assert_eq!(names("1/2"), ["b", "d"]);
    assert!(names("6/7").is_empty());
    for bad in ["2/2", "1", "-1/2", "0/0", "1/x", "0/20000", ""] {
        let error = bad.parse::<Shard>().unwrap_err().to_string();
        assert!(error.contains("write i/n"), "{bad}: {error}");
    }
    assert_eq!(Shard { index: 3, of: 8 }.to_string(), "3/8");
    assert_ne!(all.digest(), list(&["a", "b", "c", "e", "d"]).digest());
    let twice = VideoList::of_manifest("a,normal\na.mp4,normal\n", &PathBuf::new());
    assert!(
        twice
            .unwrap_err()
            .to_string()
            .contains("video a comes twice")
    );
}

#[test]
fn videos_are_found_by_name_below_their_folder() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("Abuse");
    fs::create_dir(&inner).unwrap();
    for file in ["x.1.mp4", "x.1.json", "y.mkv", "z.mkv", "z.avi"] {
        fs::write(inner.join(file), "").unwrap();
    }
    let counts = |text: &str| FrameCounts::parse(text).unwrap();
    let found = VideoList::of_counts(&counts("x.1,10\ny,20\nnone,30\n"), dir.path()).unwrap();
    let shard = found.shard(Shard::WHOLE);
    assert_eq!(shard[0].path, Some(inner.join("x.1.mp4")));
    assert_eq!(shard[1].path, Some(inner.join("y.mkv")));
    assert_eq!((&shard[2].path, shard[2].frames), (&None, Some(30)));
    let error = VideoList::of_counts(&counts("z,10\n"), dir.path()).unwrap_err();
    assert!(error.to_string().contains("video z is both"), "{error}");
    let error = VideoList::of_counts(&counts("z,10\n"), &dir.path().join("no")).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[test]
fn a_file_is_resumed_after_its_last_whole_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.jsonl");
    let meta = meta(&list(&["a", "b", "c"]), Shard::WHOLE, &profile());
    let mut file = ScoreFile::open(&path, &meta, false).unwrap();
    file.append(&scores("a", 0.1)).unwrap();
    file.append(&scores("b", 0.2)).unwrap();
    // One writer at a time.
    let error = ScoreFile::open(&path, &meta, true).unwrap_err();
    assert!(
        error.to_string().contains("another process writes"),
        "{error}"
    );
    drop(file);
    let whole = fs::read(&path).unwrap();
    let first = whole.iter().position(|b| *b == b'\n').unwrap() + 1;
    // Killed at any byte of the second line: the first stays, the second is done again.
    for cut in first..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let mut file = ScoreFile::open(&path, &meta, true).unwrap();
        assert!(file.has("a") && !file.has("b"), "{cut}");
        file.append(&scores("b", 0.2)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
    // Killed before the first line was whole, or before any.
    for cut in [0, 1, first - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        let file = ScoreFile::open(&path, &meta, true).unwrap();
        assert!(!file.has("a"));
        assert_eq!(fs::read(&path).unwrap(), b"");
    }
    let error = ScoreFile::open(&path, &meta, false).unwrap_err();
    assert!(error.to_string().contains("give --resume"), "{error}");
    // What is read back is what was written.
    fs::write(&path, &whole).unwrap();
    let read: Vec<VideoScores> = crate::eval::scores::read(&whole[..])
        .map(|s| VideoScores {
            line: 0,
            ..s.unwrap()
        })
        .collect();
    assert_eq!(read, [scores("a", 0.1), scores("b", 0.2)]);
}

#[test]
fn a_file_of_another_run_is_refused_with_the_difference() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.jsonl");
    let (three, half) = (list(&["a", "b", "c"]), Shard { index: 0, of: 2 });
    let own = meta(&three, half, &profile());
    ScoreFile::open(&path, &own, false).unwrap();
    let refused = |meta: &Meta| {
        let error = ScoreFile::open(&path, meta, true).unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        error.to_string()
    };
    let mut other = profile();
    other.locator.sigma = 2.0;
    assert!(refused(&meta(&three, half, &other)).contains("its profile is p "));
    let mut other = profile();
    other.model.fingerprint = "e".repeat(64);
    // The profile holds the fingerprint, so it is another one too.
    assert!(refused(&meta(&three, half, &other)).contains("its profile is"));
    assert!(refused(&meta(&list(&["a", "b"]), half, &profile())).contains("list of videos"));
    let second = Shard { index: 1, of: 2 };
    assert!(refused(&meta(&three, second, &profile())).contains("it is shard 0/2, not 1/2"));
    // Damaged ones too.
    let damaged = |text: &str| {
        fs::write(&path, text).unwrap();
        let error = ScoreFile::open(&path, &own, true).unwrap_err();
        assert_eq!(error.kind(), Kind::DataLoss);
        error.to_string()
    };
    let line = |video: &str| format!("{}\n", scores(video, 0.5).to_line().unwrap());
    assert!(damaged("hello\n").contains("line 1: not an object"));
    assert!(damaged(&line("b")).contains("video b is not of this run"));
    assert!(damaged(&(line("a") + &line("a"))).contains("video a comes twice"));
    fs::remove_file(Meta::path(&path)).unwrap();
    let error = ScoreFile::open(&path, &own, true).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[test]
fn parts_merge_in_the_lists_order_or_say_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["a", "b", "c", "d", "e"];
    let all = list(&names);
    let part = |index: usize| dir.path().join(format!("part-{index}.jsonl"));
    for index in 0..3 {
        let shard = Shard { index, of: 3 };
        let mut file =
            ScoreFile::open(&part(index), &meta(&all, shard, &profile()), false).unwrap();
        // Finished in another order than the list's, as after a failure and a resumption.
        for video in all.shard(shard).iter().rev() {
            file.append(&scores(&video.name, index as f64)).unwrap();
        }
    }
    let out = dir.path().join("all.jsonl");
    assert_eq!(merge(&[part(2), part(0), part(1)], &out).unwrap(), 5);
    let text = fs::read(&out).unwrap();
    let merged: Vec<(String, f64)> = crate::eval::scores::read(&text[..])
        .map(|s| s.map(|s| (s.video, s.scores[0])).unwrap())
        .collect();
    let expected: Vec<(String, f64)> = names
        .iter()
        .enumerate()
        .map(|(i, n)| ((*n).to_owned(), (i % 3) as f64))
        .collect();
    assert_eq!(merged, expected);
    let whole = Meta::read(&out).unwrap();
    assert_eq!(whole.shard(), Shard::WHOLE);
    assert_eq!(whole.videos(), names);

    let refused = |parts: &[PathBuf]| {
        merge(parts, &dir.path().join("no"))
            .unwrap_err()
            .to_string()
    };
    assert!(refused(&[part(0), part(2)]).contains("shard 1/3 is missing"));
    assert!(refused(&[part(0), part(0), part(1)]).contains("are both shard 0/3"));
    let mut other = profile();
    other.locator.threshold = 0.5;
    let stranger = dir.path().join("stranger.jsonl");
    let shard = Shard { index: 2, of: 3 };
    ScoreFile::open(&stranger, &meta(&all, shard, &other), false).unwrap();
    assert!(refused(&[part(0), part(1), stranger]).contains("its profile is"));
    let text = fs::read_to_string(part(1)).unwrap();
    fs::write(part(1), text.lines().next().unwrap()).unwrap();
    let message = refused(&[part(0), part(1), part(2)]);
    assert!(
        message.contains("part-1.jsonl has no scores of video b"),
        "{message}"
    );
    assert!(!dir.path().join("no").exists());
    let error = merge(&[part(0)], &out).unwrap_err();
    assert!(error.to_string().contains("is there already"), "{error}");
}

#[test]
fn an_outcome_names_what_failed() {
    let mut outcome = Outcome {
        scored: 3,
        kept: 2,
        failed: Vec::new(),
    };
    assert!(outcome.result().is_ok());
    for i in 0..12 {
        let error = Error::data_loss("broken");
        outcome.failed.push((format!("v{i}"), error));
    }
    let error = outcome.result().unwrap_err();
    assert_eq!(error.kind(), Kind::DataLoss);
    let message = error.to_string();
    assert!(
        message.starts_with("12 of 17 videos could not be scored: v0, v1,"),
        "{message}"
    );
    assert!(message.contains("v9 and 2 more"), "{message}");
}
