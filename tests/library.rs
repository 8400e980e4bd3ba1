//! Kept features after crashes: whatever is torn or changed on disk, what is taken over is a prefix
//! of what was finished, number for number.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

use std::{fs, path::Path, sync::Arc};

use headhunt::{
    error::Kind,
    head::HeadFeatures,
    library::{FeatureKey, Label, Labelled, Library, LibraryLimits, Unit},
    media::MediaTime,
    score::locate::SegmentSpan,
    segment::SegmentRule,
};
use proptest::prelude::*;

const SHAPE: [usize; 3] = [2, 3, 4];
const PROMPTS: usize = 2;

fn library(dir: &Path, quota_bytes: u64) -> Arc<Library> {
    let limits = LibraryLimits {
        quota_bytes,
        clip_max_bytes: 1 << 20,
        import_roots: vec![],
    };
    Library::open(dir, limits).unwrap()
}

fn store(library: &Arc<Library>, bytes: &[u8]) -> String {
    let labelled = Labelled::new(Label::Normal, vec![]).unwrap();
    let mut upload = library.begin("clip".into(), labelled).unwrap();
    upload.write(bytes).unwrap();
    upload.finish().unwrap().clip.id
}

fn key(prompt: &str) -> FeatureKey {
    FeatureKey {
        fingerprint: "ab".repeat(32),
        dtype: "f32".into(),
        shape: SHAPE,
        prompts: vec![prompt.into(), "\"quoted\" \\ and ünïcode".into()],
        unit: Unit::Segments(SegmentRule::Seconds(1.6)),
        frames_per_sample: 16,
    }
}

fn sample(n: usize) -> (SegmentSpan, HeadFeatures) {
    let span = SegmentSpan {
        first_frame: n as u64 * 48,
        last_frame: n as u64 * 48 + 47,
        start: MediaTime::from_nanos(-5 + n as i64),
        end: MediaTime::from_nanos(n as i64 + 1),
        run: n as u64 / 3,
    };
    let [layers, heads, head_dim] = SHAPE;
    let features = HeadFeatures {
        prompts: PROMPTS,
        heads: layers * heads,
        head_dim,
        data: (0..PROMPTS * layers * heads * head_dim)
            .map(|i| (n * 1000 + i) as f32 * 0.37 - 5.0)
            .collect(),
    };
    (span, features)
}

/// Bytes that the files under a directory's clips and features have, without records and journals.
fn on_disk(dir: &Path) -> u64 {
    ["clips", "features"]
        .iter()
        .flat_map(|folder| fs::read_dir(dir.join(folder)).unwrap())
        .map(|entry| entry.unwrap())
        .filter(|entry| {
            let name = entry.file_name().into_string().unwrap();
            !name.ends_with(".json") && !name.ends_with(".journal")
        })
        .map(|entry| entry.metadata().unwrap().len())
        .sum()
}

#[test]
fn a_finished_set_reads_back_and_counts_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let kept = library(dir.path(), 1 << 20);
    let clip = store(&kept, b"clip");
    let key = key("a");
    assert!(kept.kept(&clip, &key).unwrap().is_none());
    let mut writer = kept.keep(&clip, &key).unwrap();
    for n in 0..5 {
        let (span, features) = sample(n);
        writer.push(span, &features).unwrap();
    }
    assert!(kept.kept(&clip, &key).unwrap().is_none(), "not whole yet");
    writer.finish(240).unwrap();
    assert_eq!(kept.bytes().0, on_disk(dir.path()));
    assert_eq!(kept.get(&clip).unwrap().1, 1);
    drop(kept);
    let kept = library(dir.path(), 1 << 20);
    assert_eq!(kept.bytes().0, on_disk(dir.path()));
    let set = kept.kept(&clip, &key).unwrap().unwrap();
    assert_eq!((set.frames, set.spans().len()), (240, 5));
    for n in 0..5 {
        let (span, features) = sample(n);
        assert_eq!(set.spans()[n], span);
        assert_eq!(set.features(n).unwrap(), features);
    }
    // Another model, other prompts, another rule: another set.
    for other in [
        FeatureKey {
            fingerprint: "cd".repeat(32),
            ..key.clone()
        },
        FeatureKey {
            dtype: "bf16".into(),
            ..key.clone()
        },
        FeatureKey {
            prompts: vec!["b".into()],
            ..key.clone()
        },
        FeatureKey {
            unit: Unit::WholeVideo,
            ..key.clone()
        },
    ] {
        assert!(kept.kept(&clip, &other).unwrap().is_none());
    }
    let within = kept.kept_where(&clip, &|k| k.prompts.contains(&"a".to_owned()));
    assert_eq!(within.unwrap().key(), &key);
    kept.delete(&clip).unwrap();
    assert_eq!((kept.bytes().0, on_disk(dir.path())), (0, 0));
}

#[test]
fn the_longest_unused_sets_make_room_and_sets_in_use_do_not() {
    let dir = tempfile::tempdir().unwrap();
    // Head and one sample of 192 + 72 bytes: about 1.6 kB a set.
    let kept = library(dir.path(), 6000);
    let clip = store(&kept, b"clip");
    let make = |prompt: &str| {
        let mut writer = kept.keep(&clip, &key(prompt))?;
        let (span, features) = sample(0);
        writer.push(span, &features)?;
        writer.finish(48)
    };
    for prompt in ["a", "b", "c"] {
        make(prompt).unwrap();
    }
    let held = kept.kept(&clip, &key("a")).unwrap().unwrap();
    for prompt in ["d", "e", "f", "g"] {
        make(prompt).unwrap();
        assert!(kept.bytes().0 <= 6000);
        assert_eq!(kept.bytes().0, on_disk(dir.path()));
    }
    assert_eq!(held.features(0).unwrap(), sample(0).1);
    assert!(kept.kept(&clip, &key("a")).unwrap().is_some());
    assert!(kept.kept(&clip, &key("b")).unwrap().is_none());
    drop(kept.begin("big".into(), Labelled::new(Label::Normal, vec![]).unwrap()));
    let labelled = Labelled::new(Label::Normal, vec![]).unwrap();
    let mut upload = kept.begin("big".into(), labelled).unwrap();
    let error = upload.write(&[0; 5000]).unwrap_err();
    assert_eq!(error.kind(), Kind::ResourceExhausted);
    assert!(error.message().contains("admin.quota_bytes"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_taken_over_is_a_prefix_of_what_was_finished(
        samples in 1usize..6,
        cut_part in 0.0f64..1.2,
        cut_journal in 0.0f64..1.2,
        flip in proptest::option::of((any::<bool>(), 0.0f64..1.0)),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let kept = library(dir.path(), 1 << 20);
        let clip = store(&kept, b"clip");
        let key = key("a");
        let mut writer = kept.keep(&clip, &key).unwrap();
        for n in 0..samples {
            let (span, features) = sample(n);
            writer.push(span, &features).unwrap();
        }
        drop(writer);
        drop(kept);
        for (ending, cut) in [("part", cut_part), ("journal", cut_journal)] {
            let path = fs::read_dir(dir.path().join("features"))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .find(|path| path.extension().unwrap() == ending)
                .unwrap();
            let mut bytes = fs::read(&path).unwrap();
            bytes.truncate((bytes.len() as f64 * cut) as usize);
            if let Some((in_part, at)) = flip
                && in_part == (ending == "part")
                && !bytes.is_empty()
            {
                let at = (bytes.len() as f64 * at) as usize;
                bytes[at] ^= 0x40;
            }
            fs::write(&path, bytes).unwrap();
        }
        let kept = library(dir.path(), 1 << 20);
        let mut writer = kept.keep(&clip, &key).unwrap();
        let taken = writer.spans().len();
        prop_assert!(taken <= samples);
        if cut_part >= 1.0 && cut_journal >= 1.0 && flip.is_none() {
            prop_assert_eq!(taken, samples);
        }
        for n in 0..taken {
            let (span, features) = sample(n);
            prop_assert_eq!(writer.spans()[n], span);
            prop_assert_eq!(writer.features(n).unwrap(), features);
        }
        for n in taken..samples {
            let (span, features) = sample(n);
            writer.push(span, &features).unwrap();
        }
        writer.finish(7).unwrap();
        prop_assert_eq!(kept.bytes().0, on_disk(dir.path()));
        let set = kept.kept(&clip, &key).unwrap().unwrap();
        for n in 0..samples {
            prop_assert_eq!(set.features(n).unwrap(), sample(n).1);
        }
    }
}
