//! Programs that are no decoder processes, or that were taken over: none is believed.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use headhunt::{
    error::{Error, Kind},
    limits::{WORKER_REDUCED_BYTES, WORKER_SHARED_BYTES},
    media::{MediaSource, Reduction},
    video::{Input, VideoLimits, open, worker::Workers},
};
use tokio_util::sync::CancellationToken;

use super::{Clip, NONE, PATIENCE, alone, drain, limits, mine};

/// A message as a decoder process sends it, for a shell's printf.
fn message(header: &str, body: &str) -> String {
    let length = |n: usize| -> String {
        (n as u32)
            .to_le_bytes()
            .iter()
            .map(|byte| format!("\\{byte:03o}"))
            .collect()
    };
    let header_text = header.replace('"', "\\\"");
    format!(
        "printf \"{}{}\"; printf '%s' \"{header_text}{body}\"\n",
        length(header.len()),
        length(body.len())
    )
}

/// What comes of a source whose decoder process is this script.
fn of(script: &str) -> Error {
    let dir = tempfile::tempdir().unwrap();
    let program: PathBuf = dir.path().join("liar");
    fs::write(&program, format!("#!/bin/sh\n{script}")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let limits = VideoLimits {
        stall_timeout: Duration::from_millis(300),
        workers: Some(Workers {
            program,
            ..Workers::of_this_program()
        }),
        ..limits()
    };
    let path = Clip::h264("mp4mux").frames(20).make();
    let begun = Instant::now();
    let error = open(Input::File(path), &limits, CancellationToken::new())
        .and_then(|mut source| drain(&mut *source as &mut dyn MediaSource))
        .err()
        .unwrap_or_else(|| panic!("it was believed: {script}"));
    assert!(begun.elapsed() < PATIENCE);
    assert_eq!(mine(), NONE, "{script}");
    error
}

/// What follows comes when it has been asked for.
const LATER: &str = "";
const STARTED: &str = "\"Started\"";
const OPENED: &str =
    r#"{"Opened":{"container":"mp4","codec":"h264","width":64,"height":48,"declared_fps":null}}"#;

const GAP: &str =
    r#"{"Gap":{"from":0,"to":1,"reason":"DecodeError","frames_lost":1,"detail":"damage"}}"#;

fn frame(index: u64, pts: i64) -> String {
    format!(
        r#"{{"Frame":{{"picture":{index},"stamp":{{"index":{index},"pts":{pts},"duration":{{"secs":0,"nanos":40000000}}}},"size_bytes":4608}}}}"#
    )
}

/// A frame whose picture of 64 × 48 pixels lies at a place, with rows of so many bytes; as the one before without those.
fn laid(index: u64, at: u64, stride: Option<u64>) -> String {
    let planes = stride.map_or_else(
        || "null".to_owned(),
        |stride| {
            format!(
                r#"{{"width":64,"height":48,"matrix":"Bt601","range":"Limited","planes":[{{"at":0,"stride":{stride}}},{{"at":3072,"stride":32}},{{"at":3840,"stride":32}}]}}"#
            )
        },
    );
    let frame = frame(index, 0);
    let without = frame.strip_suffix("}}").unwrap();
    format!(r#"{without},"laid":{{"at":{at},"planes":{planes}}}}}}}"#)
}

#[test]
fn a_picture_lies_where_there_is_room_for_it() {
    let _alone = alone();
    let (first, end) = (WORKER_REDUCED_BYTES, WORKER_SHARED_BYTES);
    let bytes = 64 * 48 * 3 / 2;
    let lost = "where there is no room";
    for (at, stride, expected) in [
        // Then it has to go on.
        (first, Some(64), "hung"),
        (end - bytes, Some(64), "hung"),
        (first, None, lost),
        (0, Some(64), lost),
        (first - 8, Some(64), lost),
        (first + 4, Some(64), lost),
        (end - bytes + 8, Some(64), lost),
        (end, Some(64), lost),
        (u64::MAX - 7, Some(64), lost),
        (first, Some(32), lost),
        (first, Some(0), lost),
        (first, Some(68), lost),
        (first, Some(1 << 15), lost),
        (first, Some(u64::MAX - 7), lost),
    ] {
        let all = [STARTED, OPENED, &laid(0, at, stride)].map(|header| message(header, ""));
        let text = of(&(all.concat() + "sleep 60\n")).to_string();
        assert!(text.contains(expected), "{at}, {stride:?}: {text}");
    }
    // How it lies is as for the one before; where it lies is not.
    let two = [
        STARTED,
        OPENED,
        &laid(0, first, Some(64)),
        &laid(1, end, None),
    ];
    let script = two.map(|header| message(header, "")).concat() + "sleep 60\n";
    assert!(of(&script).to_string().contains(lost));
}

#[test]
fn what_a_process_says_is_checked() {
    let _alone = alone();
    let told = |messages: &[(&str, &str)]| -> Error {
        let mut script: String = messages
            .iter()
            .map(|(header, body)| match *header {
                LATER => "sleep 0.5\n".to_owned(),
                header => message(header, body),
            })
            .collect();
        script.push_str("sleep 60\n");
        of(&script)
    };
    for (what, error, expected) in [
        ("ends at once", of("exit 7\n"), "exit code 7"),
        ("is silent", of("sleep 60\n"), "hung"),
        (
            "sends lengths beyond all bounds",
            of("printf '\\377\\377\\377\\377\\377\\377\\377\\377'; sleep 60\n"),
            "a message with a header",
        ),
        (
            "speaks another language",
            of("echo 'Hello, I am a decoder and glad to meet you'; sleep 60\n"),
            "stopped",
        ),
        (
            "sends an unknown message",
            told(&[("\"Hello\"", "")]),
            "stopped",
        ),
        (
            "gives frames of nothing",
            told(&[(OPENED, "")]),
            "frames of nothing",
        ),
        (
            "gives a frame before it is open",
            told(&[(STARTED, ""), (&frame(0, 0), "")]),
            "another order",
        ),
        (
            "leaves a frame out",
            told(&[(STARTED, ""), (OPENED, ""), (&frame(1, 0), "")]),
            "another order",
        ),
        (
            "goes back in time",
            told(&[
                (STARTED, ""),
                (OPENED, ""),
                (&frame(0, 40_000_000), ""),
                (LATER, ""),
                (
                    r#"{"Answer":{"ticket":0,"answer":{"Rgb":{"width":2,"height":1,"laid":false}}}}"#,
                    "RGBRGB",
                ),
                (&frame(1, 0), ""),
            ]),
            "another order",
        ),
        (
            "gives a picture of another size than it says",
            told(&[
                (STARTED, ""),
                (OPENED, ""),
                (&frame(0, 0), ""),
                (LATER, ""),
                (
                    r#"{"Answer":{"ticket":0,"answer":{"Rgb":{"width":9000,"height":9000,"laid":false}}}}"#,
                    "RGB",
                ),
            ]),
            "another picture",
        ),
        (
            "answers what nobody asked",
            told(&[
                (STARTED, ""),
                (
                    r#"{"Answer":{"ticket":5,"answer":{"Rgb":{"width":1,"height":1,"laid":false}}}}"#,
                    "",
                ),
            ]),
            "nobody asked",
        ),
        (
            "sends more than it was asked for",
            told(&[(STARTED, ""), (OPENED, "a body that nothing has")]),
            "a body of 23 bytes, of 0",
        ),
        (
            "tells of gaps without end",
            told(&[(STARTED, ""), (OPENED, ""), (GAP, ""), (GAP, ""), (GAP, "")]),
            "another order",
        ),
        (
            "tells of a camera",
            told(&[(STARTED, ""), (r#"{"Ended":null}"#, "")]),
            "another order",
        ),
    ] {
        let text = error.to_string();
        assert!(text.contains(expected), "a process that {what}: {text}");
    }
    // Words are kept to one line, and short.
    let long = format!(
        r#"{{"Failed":{{"kind":"InvalidArgument","message":"{}\n{{level","causes":null}}}}"#,
        "x".repeat(50)
    );
    let text = told(&[(STARTED, ""), (&long, "")]).to_string();
    assert!(text.contains("xx {level") && !text.contains('\n'), "{text}");
    // It talks without end.
    let flood = message(STARTED, "") + &message("\"Alive\"", "").repeat(3000) + "sleep 60\n";
    let text = of(&flood).to_string();
    assert!(text.contains("talks without end"), "{text}");
    // More than it was asked for, and than anybody takes.
    let flood = message(STARTED, "") + &message(OPENED, "").repeat(200) + "sleep 60\n";
    let text = of(&flood).to_string();
    assert!(text.contains("stopped"), "{text}");
}

#[test]
fn nobody_waits_for_one_that_listens_a_little_now_and_then() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let program: PathBuf = dir.path().join("trickle");
    let says: String = [STARTED, OPENED, &frame(0, 0)]
        .map(|header| message(header, ""))
        .concat();
    let listens = "while :; do dd bs=4096 count=1 <&1 >/dev/null 2>&1; sleep 0.2; done";
    fs::write(&program, format!("#!/bin/bash\n{says}{listens}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let limits = VideoLimits {
        workers: Some(Workers {
            program,
            ..Workers::of_this_program()
        }),
        ..limits()
    };
    let path = Clip::h264("mp4mux").frames(20).make();
    let cancel = CancellationToken::new();
    let mut source = open(Input::File(path), &limits, cancel.clone()).unwrap();
    let kept = super::frame(&mut *source);
    // Some 4 MB, of which it takes 20 KB a second.
    let how = Reduction {
        masks: vec![vec![(0.123_456_789, 0.987_654_321); 150_000]],
        side: 448,
        snapshot: None,
    };
    let begun = Instant::now();
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        cancel.cancel();
    });
    assert!(kept.picture.fetch(&how).unwrap().is_err());
    let waited = begun.elapsed();
    later.join().unwrap();
    assert!(waited > Duration::from_millis(400), "{waited:?}");
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    drop((kept, source));
    assert_eq!(mine(), NONE);
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let _alone = alone();
    let limits = VideoLimits {
        workers: Some(Workers {
            program: "/nowhere/headhunt".into(),
            ..Workers::of_this_program()
        }),
        ..limits()
    };
    let path = Clip::h264("mp4mux").frames(20).make();
    let error = open(Input::File(path), &limits, CancellationToken::new())
        .err()
        .unwrap();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.message().contains("decoder process"), "{error:#}");
    let error = limits.workers.as_ref().unwrap().check(&limits).unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
}
