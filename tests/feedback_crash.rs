//! A process that stores verdicts and is killed at any moment: the store is whole, and what was
//! acknowledged is there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests fail like tests

mod doubles;

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use doubles::{FINGERPRINT, HEAD_DIM, profile};
use headhunt::{
    clock::SystemClock,
    feedback::{Feedback, FeedbackOptions, FeedbackStore, Statement},
    media::MediaTime,
    score::locate::SegmentSpan,
};

/// Tells the child where to write, and what its detection is called.
const DIR: &str = "HEADHUNT_TEST_FEEDBACK_DIR";
const SESSION: &str = "HEADHUNT_TEST_FEEDBACK_SESSION";

/// Fewer than are written, so that files are removed as well.
const MAX_SAMPLES: usize = 24;

fn at(segment: u64) -> MediaTime {
    MediaTime::from_nanos(segment as i64 * 1_600_000_000)
}

/// The child: stores verdicts without end, and says each that is acknowledged.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn a_process_that_stores_verdicts() {
    let (Ok(dir), Ok(session)) = (std::env::var(DIR), std::env::var(SESSION)) else {
        return;
    };
    let options = FeedbackOptions {
        dir: dir.into(),
        ring: Duration::from_secs(3600),
        keep_after_end: Duration::ZERO,
        max_samples: MAX_SAMPLES,
    };
    let feedback = Feedback::open(options, SystemClock::shared()).unwrap();
    let recorder = feedback.recorder(&session, None);
    let profile = Arc::new(profile());
    let z = vec![0.5; profile.heads.len() * HEAD_DIM * profile.scoring_prompts.len()];
    for segment in 0.. {
        let span = SegmentSpan {
            first_frame: segment * 48,
            last_frame: segment * 48 + 47,
            start: at(segment),
            end: at(segment + 1),
            run: 0,
        };
        recorder.segment(&profile, segment, span, 0.5, Some(&z));
        let missed = Statement::Missed {
            start: span.start,
            end: span.end,
        };
        feedback.report(&session, missed).unwrap();
        println!("stored {session}/{segment}");
        std::io::stdout().flush().unwrap();
    }
}

/// Kills a child once it has said so many; gives what it had said until then.
fn killed(dir: &Path, session: &str, after: usize) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_that_stores_verdicts"])
        .args(["--ignored", "--nocapture"])
        .env(DIR, dir)
        .env(SESSION, session)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some((_, id)) = line.split_once("stored ") else {
            continue;
        };
        said.push(id.to_owned());
        if said.len() == after {
            // SIGKILL, somewhere in the writing of the next ones; what it says until then counts too.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    said
}

#[test]
fn a_kill_at_any_moment_leaves_a_whole_store_with_all_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let profile = profile();
    let mut acknowledged = Vec::new();
    for (round, after) in [1, 7, 30, 2, 19, 11, 5, 40].into_iter().enumerate() {
        let said = killed(dir.path(), &format!("round-{round}"), after);
        assert!(said.len() >= after, "the child ended by itself: {said:?}");
        acknowledged.extend(said);
        let store = FeedbackStore::open(dir.path(), MAX_SAMPLES).unwrap();
        // Fails where any file is damaged.
        let found = store
            .samples_for(
                FINGERPRINT,
                &profile.heads,
                &profile.scoring_prompts[0],
                profile.frames_per_segment,
            )
            .unwrap();
        assert_eq!((found.usable.len(), found.unusable), (store.len(), 0));
        assert!(store.len() <= MAX_SAMPLES);
        let found: BTreeSet<String> = found.usable.into_iter().map(|s| s.id).collect();
        // One that was written and not acknowledged may have taken the place of the oldest.
        for id in acknowledged.iter().rev().take(MAX_SAMPLES - 1) {
            assert!(found.contains(id), "{id} is lost: {found:?}");
        }
        let files = std::fs::read_dir(dir.path()).unwrap();
        let names: Vec<_> = files.map(|f| f.unwrap().file_name()).collect();
        // The lock and one file a sample: nothing half-written, nothing left out as damaged.
        assert_eq!(names.len(), store.len() + 1, "{names:?}");
    }
}
