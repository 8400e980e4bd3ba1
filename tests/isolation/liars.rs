//! Programs that are no decoder processes, or that were taken over: none is believed.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use headhunt::{
    error::{Error, Kind},
    limits::{WORKER_REDUCED_BYTES, WORKER_SHARED_BYTES},
    media::{FrameStamp, Gap, GapReason, MediaEvent, MediaInfo, MediaSource, MediaTime, Reduction},
    video::{Input, VideoLimits, open, worker::Workers},
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{Clip, NONE, PATIENCE, alone, drain, limits, mine};

/// What a decoder process may say, in the order and with the fields of its `FromWorker`.
#[derive(Clone, Serialize)]
enum Said {
    Started,
    Alive,
    Opened(MediaInfo),
    Frame {
        picture: u64,
        stamp: FrameStamp,
        size_bytes: usize,
        laid: Option<Laid>,
    },
    Gap(Gap),
    #[expect(dead_code, reason = "its place counts")]
    End,
    Failed(Fault),
    #[expect(dead_code, reason = "its place counts")]
    Decoded,
    #[expect(dead_code, reason = "its place counts")]
    Taken(u64),
    Ended(Option<String>),
    Answer {
        ticket: u64,
        answer: Answer,
    },
    #[expect(dead_code, reason = "its place counts")]
    Checked,
    #[expect(dead_code, reason = "its place counts")]
    Log,
    /// There is no such message.
    Hello,
}

#[derive(Clone, Serialize)]
struct Laid {
    at: u64,
    planes: Option<Planes>,
}

#[derive(Clone, Serialize)]
struct Planes {
    width: u32,
    height: u32,
    matrix: Matrix,
    range: Range,
    planes: [Plane; 3],
}

#[derive(Clone, Serialize)]
enum Matrix {
    Bt601,
}

#[derive(Clone, Serialize)]
enum Range {
    Limited,
}

#[derive(Clone, Serialize)]
struct Plane {
    at: usize,
    stride: u64,
}

#[derive(Clone, Serialize)]
struct Fault {
    kind: Kind,
    message: String,
    causes: Option<String>,
}

#[derive(Clone, Serialize)]
enum Answer {
    #[expect(dead_code, reason = "its place counts")]
    Reduced,
    Rgb {
        width: u32,
        height: u32,
    },
}

/// A message as a decoder process sends it, for a shell's printf.
fn message(said: &Said, body: &str) -> String {
    let header = postcard::to_stdvec(said).unwrap();
    let length = |n: usize| (n as u32).to_le_bytes();
    let bytes = [
        &length(header.len()),
        &length(body.len()),
        &*header,
        body.as_bytes(),
    ]
    .concat();
    let octal: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
    format!("printf '{octal}'\n")
}

/// Limits whose decoder process is this script, in a file of that folder.
fn lying(dir: &Path, script: &str) -> VideoLimits {
    let program = dir.join("liar");
    fs::write(&program, format!("#!/bin/bash\n{script}")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    VideoLimits {
        workers: Some(Workers {
            program,
            ..Workers::of_this_program()
        }),
        ..limits()
    }
}

/// What comes of a source whose decoder process is this script.
fn of(script: &str) -> Error {
    let dir = tempfile::tempdir().unwrap();
    let limits = VideoLimits {
        stall_timeout: Duration::from_millis(300),
        ..lying(dir.path(), script)
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

fn opened() -> Said {
    Said::Opened(MediaInfo {
        container: "mp4".into(),
        codec: "h264".into(),
        width: 64,
        height: 48,
        declared_fps: None,
    })
}

fn gap() -> Said {
    Said::Gap(Gap {
        from: MediaTime::from_nanos(0),
        to: MediaTime::from_nanos(1),
        reason: GapReason::DecodeError,
        frames_lost: 1,
        detail: "damage".into(),
    })
}

fn frame(index: u64, pts: i64) -> Said {
    laid(index, pts, None)
}

fn laid(index: u64, pts: i64, laid: Option<Laid>) -> Said {
    Said::Frame {
        picture: index,
        stamp: FrameStamp {
            index,
            pts: MediaTime::from_nanos(pts),
            duration: Duration::from_millis(40),
        },
        size_bytes: 4608,
        laid,
    }
}

/// A frame whose picture of 64 × 48 pixels lies at a place, with rows of so many bytes; as the one before without those.
fn at(index: u64, at: u64, stride: Option<u64>) -> Said {
    let plane = |at, stride| Plane { at, stride };
    let planes = stride.map(|stride| Planes {
        width: 64,
        height: 48,
        matrix: Matrix::Bt601,
        range: Range::Limited,
        planes: [plane(0, stride), plane(3072, 32), plane(3840, 32)],
    });
    laid(index, 0, Some(Laid { at, planes }))
}

fn rgb(ticket: u64, width: u32, height: u32) -> Said {
    let answer = Answer::Rgb { width, height };
    Said::Answer { ticket, answer }
}

#[test]
fn a_picture_lies_where_there_is_room_for_it() {
    let _alone = alone();
    let (first, end) = (WORKER_REDUCED_BYTES, WORKER_SHARED_BYTES);
    let bytes = 64 * 48 * 3 / 2;
    let lost = "where there is no room";
    for (place, stride, expected) in [
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
        let all = [Said::Started, opened(), at(0, place, stride)].map(|said| message(&said, ""));
        let text = of(&(all.concat() + "sleep 60\n")).to_string();
        assert!(text.contains(expected), "{place}, {stride:?}: {text}");
    }
    // How it lies is as for the one before; where it lies is not.
    let two = [
        Said::Started,
        opened(),
        at(0, first, Some(64)),
        at(1, end, None),
    ];
    let script = two.map(|said| message(&said, "")).concat() + "sleep 60\n";
    assert!(of(&script).to_string().contains(lost));
}

#[test]
fn what_a_process_says_is_checked() {
    let _alone = alone();
    // Nothing: what follows comes when it has been asked for.
    let told = |messages: &[(Option<Said>, &str)]| -> Error {
        let mut script: String = messages
            .iter()
            .map(|(said, body)| match said {
                None => "sleep 0.5\n".to_owned(),
                Some(said) => message(said, body),
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
            told(&[(Some(Said::Hello), "")]),
            "stopped",
        ),
        (
            "gives frames of nothing",
            told(&[(Some(opened()), "")]),
            "frames of nothing",
        ),
        (
            "gives a frame before it is open",
            told(&[(Some(Said::Started), ""), (Some(frame(0, 0)), "")]),
            "another order",
        ),
        (
            "leaves a frame out",
            told(&[
                (Some(Said::Started), ""),
                (Some(opened()), ""),
                (Some(frame(1, 0)), ""),
            ]),
            "another order",
        ),
        (
            "goes back in time",
            told(&[
                (Some(Said::Started), ""),
                (Some(opened()), ""),
                (Some(frame(0, 40_000_000)), ""),
                (None, ""),
                (Some(rgb(0, 2, 1)), "RGBRGB"),
                (Some(frame(1, 0)), ""),
            ]),
            "another order",
        ),
        (
            "gives a picture of another size than it says",
            told(&[
                (Some(Said::Started), ""),
                (Some(opened()), ""),
                (Some(frame(0, 0)), ""),
                (None, ""),
                (Some(rgb(0, 9000, 9000)), "RGB"),
            ]),
            "another picture",
        ),
        (
            "answers what nobody asked",
            told(&[(Some(Said::Started), ""), (Some(rgb(5, 1, 1)), "")]),
            "nobody asked",
        ),
        (
            "sends more than it was asked for",
            told(&[
                (Some(Said::Started), ""),
                (Some(opened()), "a body that nothing has"),
            ]),
            "a body of 23 bytes, of 0",
        ),
        (
            "tells of gaps without end",
            told(&[
                (Some(Said::Started), ""),
                (Some(opened()), ""),
                (Some(gap()), ""),
                (Some(gap()), ""),
                (Some(gap()), ""),
            ]),
            "another order",
        ),
        (
            "tells of a camera",
            told(&[(Some(Said::Started), ""), (Some(Said::Ended(None)), "")]),
            "another order",
        ),
    ] {
        let text = error.to_string();
        assert!(text.contains(expected), "a process that {what}: {text}");
    }
    // Words are kept to one line, and short.
    let long = Said::Failed(Fault {
        kind: Kind::InvalidArgument,
        message: "x".repeat(50) + "\n{level",
        causes: None,
    });
    let text = told(&[(Some(Said::Started), ""), (Some(long), "")]).to_string();
    assert!(text.contains("xx {level") && !text.contains('\n'), "{text}");
    // It talks without end.
    let flood =
        message(&Said::Started, "") + &message(&Said::Alive, "").repeat(3000) + "sleep 60\n";
    let text = of(&flood).to_string();
    assert!(text.contains("talks without end"), "{text}");
    // More than it was asked for, and than anybody takes.
    let flood = message(&Said::Started, "") + &message(&opened(), "").repeat(200) + "sleep 60\n";
    let text = of(&flood).to_string();
    assert!(text.contains("stopped"), "{text}");
}

#[test]
fn nobody_waits_for_one_that_listens_a_little_now_and_then() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let says: String = [Said::Started, opened(), frame(0, 0)]
        .map(|said| message(&said, ""))
        .concat();
    let listens = "while :; do dd bs=4096 count=1 <&1 >/dev/null 2>&1; sleep 0.2; done";
    let limits = lying(dir.path(), &format!("{says}{listens}\n"));
    let path = Clip::h264("mp4mux").frames(20).make();
    let cancel = CancellationToken::new();
    let mut source = open(Input::File(path), &limits, cancel.clone()).unwrap();
    let kept = super::frame(&mut *source);
    // Some 2 MB, of which it takes 20 KB a second.
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
fn a_frame_rate_that_is_no_number_is_none() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = Clip::h264("mp4mux").frames(20).make();
    for (told, expected) in [
        (25.0, Some(25.0)),
        (f64::NAN, None),
        (f64::INFINITY, None),
        (-1.0, None),
        (5e-324, None),
    ] {
        let Said::Opened(mut info) = opened() else {
            panic!("it opens");
        };
        info.declared_fps = Some(told);
        let says = [Said::Started, Said::Opened(info), frame(0, 0)].map(|said| message(&said, ""));
        let limits = lying(dir.path(), &(says.concat() + "sleep 60\n"));
        let mut source =
            open(Input::File(path.clone()), &limits, CancellationToken::new()).unwrap();
        let Some(MediaEvent::Opened(info)) = source.next_event().unwrap() else {
            panic!("it opens first");
        };
        assert_eq!(info.declared_fps, expected, "{told}");
    }
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
