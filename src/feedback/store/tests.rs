use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    feedback::{
        Feedback, FeedbackOptions, Recorder, Reported, Statement,
        doubles::{HandClock, SEGMENT, event, profile, span, z},
    },
    profile::{Profile, ScorerParams},
};

fn open(dir: &Path, max_samples: usize) -> Feedback {
    let options = FeedbackOptions {
        dir: dir.to_owned(),
        ring: SEGMENT * 100,
        keep_after_end: SEGMENT * 100,
        max_samples,
    };
    Feedback::open(options, Arc::new(HandClock::default())).unwrap()
}

/// A detection of eight segments with events in 1..=2 and 4..=6.
fn detection(feedback: &Feedback, session: &str, profile: &Arc<Profile>) -> Arc<Recorder> {
    let recorder = feedback.recorder(session, None);
    for n in 0..8 {
        recorder.segment(profile, n, span(n), 0.5, Some(&z(n)));
    }
    recorder.event(&event(0, 1, 2));
    recorder.event(&event(1, 4, 6));
    recorder
}

fn missed(from: u64, to: u64) -> Statement {
    Statement::Missed {
        start: span(from).start,
        end: span(to).end,
    }
}

/// Samples under the second prompt: id and label of each.
fn labels(store: &FeedbackStore) -> Vec<(String, bool)> {
    let profile = profile("cam");
    let found = store
        .samples_for(&profile.model.fingerprint, &profile.heads, "two", 16)
        .unwrap();
    for sample in &found.usable {
        let n: u64 = sample.id.rsplit('/').next().unwrap().parse().unwrap();
        assert_eq!(sample.z, z(n)[6..]);
    }
    assert_eq!(found.unusable, 0);
    let samples = found.usable.into_iter();
    samples.map(|sample| (sample.id, sample.anomaly)).collect()
}

fn is(labels: &[(String, bool)], expected: &[(&str, bool)]) {
    let found: Vec<_> = labels.iter().map(|(id, l)| (id.as_str(), *l)).collect();
    assert_eq!(found, expected);
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == EXTENSION))
        .collect();
    files.sort();
    files
}

#[test]
fn verdicts_become_samples_that_a_restart_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let feedback = open(dir.path(), 100);
    let recorder = detection(&feedback, "a", &profile("cam"));
    let reported = feedback.report("a", Statement::FalseAlarm(0)).unwrap();
    assert_eq!(
        reported,
        Reported {
            stored: 2,
            missing: 0
        }
    );
    feedback.report("a", missed(7, 7)).unwrap();
    let expected = [("a/1", false), ("a/2", false), ("a/7", true)];
    is(&labels(&feedback.store()), &expected);
    drop((recorder, feedback));
    // What a crash may leave beside the files goes, and nothing else.
    let unfinished = dir.path().join(".feedback-abc");
    fs::write(&unfinished, "half").unwrap();
    let stranger = dir.path().join("notes.txt");
    fs::write(&stranger, "mine").unwrap();
    let feedback = open(dir.path(), 100);
    is(&labels(&feedback.store()), &expected);
    assert_eq!(feedback.store().len(), 3);
    assert!(!unfinished.exists() && stranger.exists());
    // The detection itself is gone with the process.
    let error = feedback.report("a", Statement::Confirmed(0)).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[test]
fn a_later_verdict_replaces_the_earlier_one() {
    let dir = tempfile::tempdir().unwrap();
    let feedback = open(dir.path(), 100);
    let _recorder = detection(&feedback, "a", &profile("cam"));
    feedback.report("a", Statement::FalseAlarm(0)).unwrap();
    feedback.report("a", Statement::Confirmed(1)).unwrap();
    feedback.report("a", Statement::Confirmed(0)).unwrap();
    assert_eq!(feedback.store().len(), 5);
    assert_eq!(files(dir.path()).len(), 2);
    is(
        &labels(&feedback.store()),
        &[
            ("a/4", true),
            ("a/5", true),
            ("a/6", true),
            ("a/1", true),
            ("a/2", true),
        ],
    );
    // The same interval again, and one that overlaps an event: the latest label of a segment holds.
    feedback.report("a", missed(4, 4)).unwrap();
    feedback.report("a", missed(4, 4)).unwrap();
    feedback.report("a", Statement::FalseAlarm(1)).unwrap();
    assert_eq!(files(dir.path()).len(), 3);
    let found = labels(&feedback.store());
    assert_eq!(found.len(), 5);
    assert!(found.contains(&("a/4".into(), false)));
}

#[test]
fn features_of_another_model_heads_prompt_or_sampling_are_counted_and_never_given() {
    let dir = tempfile::tempdir().unwrap();
    let feedback = open(dir.path(), 100);
    let cam = profile("cam");
    let _recorder = detection(&feedback, "a", &cam);
    feedback.report("a", Statement::Confirmed(1)).unwrap();
    let store = feedback.store();
    let model = cam.model.fingerprint.as_str();
    let other_order = [cam.heads[1], cam.heads[0]];
    for (model, heads, prompt, frames, usable) in [
        (model, &cam.heads[..], "one", 16, 3),
        (model, &cam.heads, "two", 16, 3),
        (model, &cam.heads, "three", 16, 0),
        (model, &cam.heads, "one", 8, 0),
        (model, &cam.heads[..1], "one", 16, 0),
        (model, &other_order, "one", 16, 0),
        ("00", &cam.heads, "one", 16, 0),
    ] {
        let found = store.samples_for(model, heads, prompt, frames).unwrap();
        assert_eq!((found.usable.len(), found.unusable), (usable, 3 - usable));
    }
    // One detection that changed its profile on the way: each segment has its own.
    let mut hunted = (*cam).clone();
    hunted.heads.swap(0, 1);
    let hunted = Arc::new(hunted);
    let recorder = feedback.recorder("b", Some("rtsp://camera/1".into()));
    for n in 0..4 {
        let by = if n < 2 { &cam } else { &hunted };
        recorder.segment(by, n, span(n), 0.5, Some(&z(n)));
    }
    feedback.report("b", missed(1, 2)).unwrap();
    let found = store.samples_for(model, &cam.heads, "one", 16).unwrap();
    assert_eq!((found.usable.len(), found.unusable), (4, 1));
    assert_eq!(found.usable[3].id, "b/1");
    assert_eq!(found.usable[3].group, "rtsp://camera/1");
    assert_eq!(found.usable[0].group, "a");
    let found = store.samples_for(model, &other_order, "one", 16).unwrap();
    assert_eq!((found.usable.len(), found.unusable), (1, 4));
    assert_eq!(found.usable[0].z, z(2)[..6]);
}

#[test]
fn the_oldest_samples_give_way() {
    let dir = tempfile::tempdir().unwrap();
    let feedback = open(dir.path(), 5);
    let cam = profile("cam");
    let _a = detection(&feedback, "a", &cam);
    let _b = detection(&feedback, "b", &cam);
    feedback.report("a", Statement::Confirmed(0)).unwrap();
    feedback.report("a", Statement::Confirmed(1)).unwrap();
    assert_eq!(feedback.store().len(), 5);
    feedback.report("b", Statement::FalseAlarm(0)).unwrap();
    assert_eq!(feedback.store().len(), 5);
    assert!(!labels(&feedback.store()).iter().any(|(id, _)| id == "a/1"));
    // A report that is larger than all that may be is cut to its newest segments.
    let reported = feedback.report("b", missed(0, 7)).unwrap();
    assert_eq!((reported.stored, reported.missing), (5, 3));
    is(
        &labels(&feedback.store()),
        &[
            ("b/3", true),
            ("b/4", true),
            ("b/5", true),
            ("b/6", true),
            ("b/7", true),
        ],
    );
    assert_eq!(files(dir.path()).len(), 1);
}

#[test]
fn a_smaller_limit_holds_from_the_next_start_on() {
    let dir = tempfile::tempdir().unwrap();
    let feedback = open(dir.path(), 100);
    let _a = detection(&feedback, "a", &profile("cam"));
    for n in 0..8 {
        feedback.report("a", missed(n, n)).unwrap();
    }
    drop((_a, feedback));
    let feedback = open(dir.path(), 3);
    is(
        &labels(&feedback.store()),
        &[("a/5", true), ("a/6", true), ("a/7", true)],
    );
    assert_eq!(files(dir.path()).len(), 3);
}

#[test]
fn damage_is_told_and_never_read_as_samples() {
    let dir = tempfile::tempdir().unwrap();
    let feedback = open(dir.path(), 100);
    let _a = detection(&feedback, "a", &profile("cam"));
    for n in 0..3 {
        feedback.report("a", missed(n, n)).unwrap();
    }
    // While it runs: an error that names the file.
    let all = files(dir.path());
    let mut bytes = fs::read(&all[0]).unwrap();
    let at = bytes.len() - 5;
    bytes[at] ^= 1;
    fs::write(&all[0], &bytes).unwrap();
    let cam = profile("cam");
    let error = feedback
        .store()
        .samples_for(&cam.model.fingerprint, &cam.heads, "one", 16)
        .unwrap_err();
    assert_eq!(error.kind(), Kind::DataLoss);
    let name = all[0].file_name().unwrap().to_str().unwrap();
    assert!(error.message().contains(name), "{error}");
    drop((_a, feedback));
    // At a start: left alone and left out, as is one that was cut short or renamed.
    let bytes = fs::read(&all[1]).unwrap();
    fs::write(&all[1], &bytes[..bytes.len() / 2]).unwrap();
    fs::copy(&all[2], dir.path().join("copy.safetensors")).unwrap();
    let feedback = open(dir.path(), 100);
    assert_eq!(feedback.store().len(), 1);
    assert_eq!(labels(&feedback.store()).len(), 1);
    assert_eq!(files(dir.path()).len(), 4);
}

#[test]
fn one_process_owns_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path(), 100);
    let error = FeedbackStore::open(dir.path(), 100).err().unwrap();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.message().contains("another process"), "{error}");
    drop(first);
    FeedbackStore::open(dir.path(), 100).unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = FeedbackStore::open(&file, 100).err().unwrap();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.message().contains("feedback.dir"), "{error}");
}

#[test]
fn precision_is_that_of_the_version_judged_last() {
    let dir = tempfile::tempdir().unwrap();
    let feedback = open(dir.path(), 100);
    let old = profile("cam");
    let mut new = (*old).clone();
    new.scorer = ScorerParams {
        weights: vec![0.5; 6],
        intercept: 1.0,
    }
    .into();
    let recorders = [
        detection(&feedback, "a", &old),
        detection(&feedback, "b", &Arc::new(new)),
        detection(&feedback, "c", &profile("other")),
    ];
    let store = feedback.store();
    let precision = |profile: &str| store.lock().precision(profile);
    assert_eq!(precision("cam"), None);
    feedback.report("a", missed(7, 7)).unwrap();
    assert_eq!(precision("cam"), None);
    feedback.report("a", Statement::FalseAlarm(0)).unwrap();
    feedback.report("a", Statement::FalseAlarm(1)).unwrap();
    assert_eq!(precision("cam"), Some(0.0));
    feedback.report("a", Statement::Confirmed(1)).unwrap();
    assert_eq!(precision("cam"), Some(0.5));
    feedback.report("b", Statement::Confirmed(0)).unwrap();
    assert_eq!(precision("cam"), Some(1.0));
    feedback.report("c", Statement::FalseAlarm(0)).unwrap();
    assert_eq!(
        (precision("cam"), precision("other")),
        (Some(1.0), Some(0.0))
    );
    drop((recorders, store, feedback));
    let feedback = open(dir.path(), 100);
    assert_eq!(feedback.store().lock().precision("cam"), Some(1.0));
}

#[test]
fn a_verdict_without_features_is_a_verdict_still() {
    let dir = tempfile::tempdir().unwrap();
    let feedback = open(dir.path(), 2);
    let recorder = feedback.recorder("a", None);
    let cam = profile("cam");
    for n in 0..4 {
        recorder.segment(&cam, n, span(n), 0.5, None);
        recorder.event(&event(n, n, n));
    }
    for n in 0..4 {
        let reported = feedback.report("a", Statement::Confirmed(n)).unwrap();
        assert_eq!((reported.stored, reported.missing), (0, 1));
    }
    assert!(feedback.store().is_empty());
    assert_eq!(feedback.store().lock().precision("cam"), Some(1.0));
    // They are bounded too.
    assert_eq!(files(dir.path()).len(), 2);
}

#[derive(Clone, Debug)]
enum Step {
    Event(u8, bool, u64),
    Missed(u8, u64, u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..3, any::<bool>(), 0u64..2).prop_map(|(s, c, e)| Step::Event(s, c, e)),
        4 => (0u8..3, 0u64..8, 0u64..8).prop_map(|(s, a, b)| Step::Missed(s, a.min(b), a.max(b))),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is said in whatever order, with restarts: never more samples than may be, the index is
    /// what the disk says, and each segment has the label of its latest verdict that is still kept.
    #[test]
    fn the_store_is_bounded_and_its_index_is_the_disk(
        max_samples in 1usize..12,
        steps in prop::collection::vec(step(), 1..12),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let cam = profile("cam");
        let start = || {
            let feedback = open(dir.path(), max_samples);
            let recorders = ["0", "1", "2"].map(|s| detection(&feedback, s, &cam));
            (feedback, recorders)
        };
        let mut running = start();
        for step in steps {
            match step {
                Step::Event(s, confirmed, id) => {
                    let statement = if confirmed {
                        Statement::Confirmed(id)
                    } else {
                        Statement::FalseAlarm(id)
                    };
                    running.0.report(&s.to_string(), statement).unwrap();
                }
                Step::Missed(s, from, to) => {
                    running.0.report(&s.to_string(), missed(from, to)).unwrap();
                }
                Step::Restart => {
                    drop(running);
                    running = start();
                }
            }
            let store = running.0.store();
            prop_assert!(store.len() <= max_samples);
            let mut on_disk: Vec<Stored> =
                files(dir.path()).iter().map(|path| file::read(path).unwrap()).collect();
            on_disk.sort_by_key(|stored| stored.report.sequence);
            let samples: usize = on_disk.iter().map(|stored| stored.report.samples.len()).sum();
            prop_assert_eq!(samples, store.len());
            let mut latest = BTreeMap::new();
            for Stored { report, .. } in &on_disk {
                for sample in &report.samples {
                    let id = format!("{}/{}", report.session, sample.segment);
                    latest.insert(id, report.verdict.is_anomaly());
                }
            }
            let found: BTreeMap<String, bool> = labels(&store).into_iter().collect();
            prop_assert_eq!(found, latest);
        }
    }
}
