use super::*;
use crate::{
    error::Kind,
    feedback::doubles::{HandClock, SEGMENT, event, profile, span, z},
    profile::ScorerParams,
};

const KEEP: Duration = Duration::from_secs(600);

fn sessions() -> (Arc<Sessions>, Arc<HandClock>) {
    let clock = Arc::new(HandClock::default());
    let sessions = Sessions::new(SEGMENT * 100, KEEP, clock.clone());
    (Arc::new(sessions), clock)
}

/// A detection of three segments with an event in the last two.
fn detection(sessions: &Arc<Sessions>, session: &str) -> Arc<Recorder> {
    let recorder = Sessions::begin(sessions, session, None);
    let profile = profile("cam");
    for n in 0..3 {
        recorder.segment(&profile, n, span(n), 0.5, Some(&z(n)));
    }
    recorder.event(&event(0, 1, 2));
    recorder
}

#[track_caller]
fn refused(sessions: &Sessions, session: &str, statement: Statement, field: &str) {
    let error = sessions.judged(session, statement).err().unwrap();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    assert_eq!(error.field(), Some(field), "{error}");
}

#[test]
fn a_running_detection_and_one_that_ended_are_found_until_the_time_is_over() {
    let (sessions, clock) = sessions();
    let recorder = detection(&sessions, "a");
    let found = |sessions: &Sessions| {
        let judged = sessions.judged("a", Statement::Confirmed(0))?;
        Ok::<_, Error>(judged.entries.iter().map(|e| e.segment).collect::<Vec<_>>())
    };
    clock.advance(KEEP * 10);
    assert_eq!(found(&sessions).unwrap(), [1, 2]);
    drop(recorder);
    clock.advance(KEEP - SEGMENT);
    assert_eq!(found(&sessions).unwrap(), [1, 2]);
    clock.advance(SEGMENT);
    refused(&sessions, "a", Statement::Confirmed(0), "session_id");
    assert!(lock(&sessions.state).by_id.is_empty());
}

#[test]
fn what_nobody_can_judge_takes_no_place() {
    let (sessions, _) = sessions();
    drop(Sessions::begin(&sessions, "empty", None));
    let state = lock(&sessions.state);
    assert!(state.by_id.is_empty() && state.ended.is_empty());
}

#[test]
fn ended_detections_are_bounded_and_the_oldest_go() {
    let (sessions, _) = sessions();
    let running = detection(&sessions, "running");
    for n in 0..limits::FEEDBACK_ENDED_MAX + 5 {
        drop(detection(&sessions, &n.to_string()));
    }
    let state = lock(&sessions.state);
    assert_eq!(state.ended.len(), limits::FEEDBACK_ENDED_MAX);
    assert_eq!(state.by_id.len(), limits::FEEDBACK_ENDED_MAX + 1);
    let held: usize = state.ended.iter().map(|(.., bytes)| bytes).sum();
    assert_eq!(state.ended_bytes, held);
    drop(state);
    refused(&sessions, "4", Statement::Confirmed(0), "session_id");
    sessions.judged("5", Statement::Confirmed(0)).unwrap();
    sessions.judged("running", Statement::Confirmed(0)).unwrap();
    drop(running);
}

#[test]
fn unknown_events_and_empty_intervals_are_refused_by_name() {
    let (sessions, _) = sessions();
    let recorder = detection(&sessions, "a");
    refused(&sessions, "b", Statement::Confirmed(0), "session_id");
    refused(&sessions, "a", Statement::FalseAlarm(1), "event_id");
    let missed = Statement::Missed {
        start: span(7).start,
        end: span(8).start,
    };
    let error = sessions.judged("a", missed).err().unwrap();
    assert_eq!(error.kind(), Kind::InvalidArgument);
    assert_eq!(error.field(), Some("start"));
    assert!(error.message().contains("0.000s to 4.800s"), "{error}");
    drop(recorder);
}

#[test]
fn features_belong_to_the_version_that_they_were_taken_with() {
    let (sessions, _) = sessions();
    let recorder = Sessions::begin(&sessions, "a", Some("rtsp://camera/1".into()));
    let old = profile("cam");
    let mut new = (*old).clone();
    new.scorer = ScorerParams {
        weights: vec![0.5; 6],
        intercept: 1.0,
    }
    .into();
    let new = Arc::new(new);
    recorder.segment(&old, 0, span(0), 0.5, Some(&z(0)));
    recorder.segment(&new, 1, span(1), 0.5, Some(&z(1)));
    recorder.segment(&old, 2, span(2), 0.5, None);
    let missed = Statement::Missed {
        start: span(0).start,
        end: span(2).end,
    };
    let judged = sessions.judged("a", missed).unwrap();
    assert_eq!(judged.source.as_deref(), Some("rtsp://camera/1"));
    let versions: Vec<&str> = judged
        .entries
        .iter()
        .map(|e| e.binding.version.as_str())
        .collect();
    let (old, new) = (old.checksum().unwrap(), new.checksum().unwrap());
    assert_eq!(versions, [&old, &new, &old]);
    assert!(judged.entries[2].z.is_none());
}
