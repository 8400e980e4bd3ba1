//! The simulated camera as its clients see it: GStreamer's own, and a bare one that looks at bytes.

#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

mod camera_support;
#[path = "camera/faults.rs"]
mod faults;
#[path = "camera/play.rs"]
mod play;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::RwLock,
    thread,
    time::{Duration, Instant},
};

use camera_support::{
    FaultProxy,
    client::{PATIENCE, RawClient},
    clips,
    video_support::{Clip, write_file},
};
use headhunt::{
    error::Kind,
    video::camera::{
        Camera, CameraOptions, Cameras, FileOptions, Identity, Login, LoginMethod, PacketLoss,
        Protocols, ServerOptions,
    },
};
use play::{Watch, watch};

/// Held for reading by all tests but the one that counts the process's threads and files.
fn quiet() -> &'static RwLock<()> {
    static QUIET: RwLock<()> = RwLock::new(());
    &QUIET
}

fn camera(file: impl AsRef<Path>) -> Camera {
    Camera::start(CameraOptions::new(file.as_ref())).unwrap()
}

fn login(method: LoginMethod) -> Login {
    Login {
        user: "site".to_owned(),
        password: "let me in".to_owned(),
        method,
    }
}

#[test]
fn every_codec_plays_over_tcp_and_udp_and_begins_again() {
    let _calm = quiet().read();
    let kinds = [
        ("h264", clips::h264()),
        ("h265", clips::h265()),
        ("mjpeg", clips::mjpeg()),
    ];
    thread::scope(|scope| {
        for (codec, clip) in &kinds {
            for protocol in ["tcp", "udp"] {
                scope.spawn(move || {
                    let camera = camera(clip);
                    let seen = watch(&camera.url(), &Watch::new(codec, protocol, 14)).unwrap();
                    let what = format!("{codec} over {protocol}");
                    // Each picture in its order, over the seam of the one-second clip.
                    let first = seen[0].index;
                    for (n, picture) in seen.iter().enumerate() {
                        assert_eq!(picture.size, (160, 120), "{what}");
                        let expected = (first + n as u64) % 10;
                        assert_eq!(picture.index, expected, "{what}: {seen:?}");
                    }
                });
            }
        }
    });
}

#[test]
fn timestamps_go_on_over_the_seam_at_the_pace_of_the_clip() {
    let _calm = quiet().read();
    let camera = camera(clips::h264());
    let mut client = RawClient::connect(&camera.url()).unwrap();
    client.play().unwrap();
    let begun = Instant::now();
    let mut times: Vec<u32> = Vec::new();
    while times.len() < 26 {
        let packet = client.packets(1).remove(0);
        if times.last() != Some(&packet.timestamp) {
            times.push(packet.timestamp);
        }
    }
    for pair in times.windows(2) {
        assert_eq!(pair[1].wrapping_sub(pair[0]), 9000, "{times:?}");
    }
    let took = begun.elapsed().as_secs_f64();
    assert!((2.0..4.0).contains(&took), "25 frames of 0.1 s in {took} s");
}

#[test]
fn every_container_plays() {
    let _calm = quiet().read();
    let muxers = [
        "mpegtsmux",
        "matroskamux",
        "avimux",
        "mp4mux fragment-duration=300",
    ];
    let cameras = Cameras::start(ServerOptions::default()).unwrap();
    for (n, muxer) in muxers.into_iter().enumerate() {
        let clip = clips::h264_in(muxer);
        cameras
            .add(FileOptions::new(clip).at(format!("/n{n}")))
            .unwrap();
    }
    thread::scope(|scope| {
        for (n, muxer) in muxers.into_iter().enumerate() {
            let url = cameras.url(&format!("/n{n}"));
            scope.spawn(move || {
                let seen = watch(&url, &Watch::new("h264", "tcp", 13)).unwrap();
                let first = seen[0].index;
                for (n, picture) in seen.iter().enumerate() {
                    let expected = (first + n as u64) % 10;
                    assert_eq!(picture.index, expected, "{muxer}: {seen:?}");
                }
            });
        }
    });
}

#[test]
fn a_stream_may_change_its_resolution() {
    let _calm = quiet().read();
    let camera = camera(clips::resolution_change());
    let seen = watch(&camera.url(), &Watch::new("h264", "tcp", 25)).unwrap();
    let sizes: Vec<_> = seen.iter().map(|p| p.size).collect();
    let mut changes = sizes.clone();
    changes.dedup();
    assert_eq!(changes, [(160, 120), (320, 240), (160, 120)]);
    let indices: Vec<u64> = seen.iter().map(|p| p.index).collect();
    let expected: Vec<u64> = (0..25).map(|n| n % 10).collect();
    assert_eq!(indices, expected);
}

#[test]
fn three_clients_watch_one_stream_and_a_late_one_joins() {
    let _calm = quiet().read();
    let camera = camera(clips::h264());
    let join = || {
        let mut client = RawClient::connect(&camera.url()).unwrap();
        client.play().unwrap();
        client
    };
    let mut early = join();
    let mut all = early.packets(6);
    // By another port, as through a proxy: still the same stream.
    let proxy = FaultProxy::start(camera.address());
    let mut far = RawClient::connect(&proxy.url("/camera")).unwrap();
    far.play().unwrap();
    let mut others = [join(), far];
    all.extend(early.packets_for(Duration::from_millis(1300)));
    for other in &mut others {
        let seen = other.packets_for(Duration::from_millis(50));
        // A late client finds a key frame within the clip's second.
        assert!(seen.iter().any(|p| p.payload[0] & 31 == 7), "no SPS");
        let same = seen.iter().filter(|p| all.contains(p)).count();
        assert!(same >= 10, "{same} of {}", seen.len());
    }
}

#[test]
fn clients_must_log_in_where_that_is_asked() {
    let _calm = quiet().read();
    for method in [LoginMethod::Digest, LoginMethod::Basic] {
        let mut options = CameraOptions::new(clips::h264());
        options.server.login = Some(login(method));
        let camera = Camera::start(options).unwrap();
        assert!(!camera.url().contains('@'));
        let mut client = RawClient::connect(&camera.url()).unwrap();
        let answer = client.request("DESCRIBE", "", &[]).unwrap();
        assert_eq!(answer.status(), 401);
        let challenge = answer.header("www-authenticate").unwrap();
        let scheme = match method {
            LoginMethod::Digest => "Digest ",
            LoginMethod::Basic => "Basic ",
        };
        assert!(challenge.starts_with(scheme), "{challenge}");

        let mut with = Watch::new("h264", "tcp", 2);
        let error = watch(&camera.url(), &with).unwrap_err();
        assert!(error.contains("nauthorized"), "{error}");
        with.login = Some(("site", "let me in"));
        watch(&camera.url(), &with).unwrap();
        with.login = Some(("site", "let me out"));
        let error = watch(&camera.url(), &with).unwrap_err();
        assert!(error.contains("nauthorized"), "{error}");
    }
}

#[test]
fn packets_may_be_encrypted() {
    let _calm = quiet().read();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let identity = Identity {
        certificate: made.cert.pem().into_bytes(),
        key: made.signing_key.serialize_pem().into_bytes(),
    };
    for login in [None, Some(login(LoginMethod::Digest))] {
        let mut options = CameraOptions::new(clips::h264());
        options.server.tls = Some(identity.clone());
        options.server.login = login;
        let camera = Camera::start(options.clone()).unwrap();
        assert!(camera.url().starts_with("rtsps://127.0.0.1:"));
        let mut with = Watch::new("h264", "tcp+tls", 2);
        with.login = options.server.login.as_ref().map(|_| ("site", "let me in"));
        watch(&camera.url(), &with).unwrap();
        let plain = camera.url().replace("rtsps", "rtsp");
        let mut client = RawClient::connect(&plain).unwrap();
        assert!(client.request("OPTIONS", "", &[]).is_err());
    }
    let mut options = CameraOptions::new(clips::h264());
    options.server.tls = Some(Identity {
        key: b"no key".to_vec(),
        ..identity
    });
    let error = Camera::start(options).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument);
    assert!(error.message().contains("certificate and key"), "{error}");
}

#[test]
fn packets_are_lost_as_often_as_asked_and_the_same_ones_again() {
    let _calm = quiet().read();
    let lost = |probability| {
        let mut options = CameraOptions::new(clips::heavy());
        options.media.loss = Some(PacketLoss {
            probability,
            seed: 5,
        });
        let camera = Camera::start(options).unwrap();
        let mut client = RawClient::connect(&camera.url()).unwrap();
        client.play().unwrap();
        let mut steps = Vec::new();
        for pair in client.packets(400).windows(2) {
            steps.push(pair[1].sequence.wrapping_sub(pair[0].sequence));
        }
        steps
    };
    for probability in [0.05, 0.4] {
        let steps = lost(probability);
        let sent: u32 = steps.iter().copied().map(u32::from).sum();
        let share = 1.0 - steps.len() as f64 / f64::from(sent);
        let error = (share - probability).abs();
        assert!(error < 0.04 + probability / 8.0, "{share}, {probability}");
        assert_eq!(lost(probability), steps);
    }
}

#[test]
fn what_a_camera_allows_and_claims_is_in_its_answers() {
    let _calm = quiet().read();
    let tcp = ("Transport", "RTP/AVP/TCP;unicast;interleaved=0-1");
    let udp = ("Transport", "RTP/AVP;unicast;client_port=40000-40001");
    for (protocols, expected) in [(Protocols::Tcp, [200, 461]), (Protocols::Udp, [461, 200])] {
        let mut options = CameraOptions::new(clips::h264());
        options.media.protocols = protocols;
        options.media.frame_rate_claim = Some(49.5);
        let camera = Camera::start(options).unwrap();
        for (transport, expected) in [tcp, udp].into_iter().zip(expected) {
            let mut client = RawClient::connect(&camera.url()).unwrap();
            let described = client.request("DESCRIBE", "", &[]).unwrap();
            let description = String::from_utf8(described.body).unwrap();
            assert!(description.contains("a=framerate:49.5"), "{description}");
            let answer = client.request("SETUP", "/stream=0", &[transport]).unwrap();
            assert_eq!(answer.status(), expected, "{protocols:?} {transport:?}");
        }
    }
    let honest = camera(clips::h264());
    let mut client = RawClient::connect(&honest.url()).unwrap();
    let description = client.play().unwrap();
    assert!(description.contains("a=framerate:10\r"), "{description}");
}

#[test]
fn what_cannot_be_played_is_named() {
    let _calm = quiet().read();
    let refused = |options| Camera::start(options).unwrap_err();
    let of = |file: &Path| refused(CameraOptions::new(file));
    let missing = of(Path::new("/nowhere/clip.mp4"));
    assert_eq!(missing.kind(), Kind::NotFound);
    let text = of(&write_file(b"a letter, and not a short one"));
    assert!(text.message().contains("text file"), "{text}");
    let vp8 = Clip::new("vp8enc deadline=1", "webmmux").frames(3).make();
    let vp8 = of(&vp8);
    assert_eq!(vp8.kind(), Kind::InvalidArgument);
    assert!(vp8.to_string().contains("cannot send vp8"), "{vp8}");
    let mp4 = std::fs::read(clips::h264()).unwrap();
    assert_eq!(
        of(&write_file(&mp4[..mp4.len() / 2])).kind(),
        Kind::InvalidArgument
    );

    let good = || CameraOptions::new(clips::h264());
    for path in ["", "/", "camera", "/ä", "/a b", "/a?b"] {
        let mut options = good();
        options.media.path = path.to_owned();
        assert!(refused(options).message().contains("path"), "`{path}`");
    }
    let mut options = good();
    options.media.loss = Some(PacketLoss {
        probability: 1.5,
        seed: 0,
    });
    assert!(refused(options).message().contains("1.5"));
    let mut options = good();
    options.media.frame_rate_claim = Some(f64::NAN);
    assert!(refused(options).message().contains("NaN"));
    let mut options = good();
    options.server.login = Some(Login {
        user: "a:b".to_owned(),
        ..login(LoginMethod::Basic)
    });
    assert!(refused(options).message().contains("colon"));

    let present = camera(clips::h264());
    let mut options = good();
    options.server.port = present.address().port();
    let taken = refused(options);
    assert_eq!(taken.kind(), Kind::Unavailable);
    let address = present.address().to_string();
    assert!(format!("{taken:#}").contains(&address), "{taken:#}");
    assert!(format!("{taken:#}").contains("in use"), "{taken:#}");

    let cameras = Cameras::start(ServerOptions::default()).unwrap();
    let one = || FileOptions::new(clips::h264()).at("/one");
    cameras.add(one()).unwrap();
    assert!(cameras.add(one()).unwrap_err().message().contains("/one"));
}

/// Threads and open files of this process.
fn resources() -> (usize, usize) {
    let count = |path| std::fs::read_dir(path).unwrap().count();
    (count("/proc/self/task"), count("/proc/self/fd"))
}

#[test]
fn nothing_is_left_of_a_camera_that_was_dropped() {
    let _alone = quiet().write();
    let round = || {
        let cameras: Vec<Camera> = (0..6).map(|_| camera(clips::h264())).collect();
        let mut clients = Vec::new();
        for camera in &cameras {
            let mut client = RawClient::connect(&camera.url()).unwrap();
            client.play().unwrap();
            client.packets(1);
            clients.push(client);
        }
        let during = resources();
        drop(cameras);
        for client in &mut clients {
            while client.rtp(PATIENCE).is_ok() {}
        }
        during
    };
    // The libraries' pools keep a few threads for a while; what is not theirs must not add up.
    round();
    let settled = |most: (usize, usize)| {
        let begun = Instant::now();
        loop {
            let now = resources();
            if now.0 <= most.0 && now.1 <= most.1 {
                return now;
            }
            assert!(begun.elapsed() < PATIENCE, "{now:?}, before {most:?}");
            thread::sleep(Duration::from_millis(20));
        }
    };
    thread::sleep(Duration::from_millis(200));
    let before = resources();
    for _ in 0..3 {
        let during = round();
        println!("six cameras: {during:?}, none: {before:?}");
        assert!(during.0 > before.0 && during.1 > before.1);
        settled(before);
    }
    let named = |name: &str| {
        std::fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok())
            .filter(|comm| comm.trim() == name)
            .count()
    };
    assert_eq!(named("cameras"), 0);
}

#[test]
fn the_command_prints_its_url_and_plays_until_it_is_interrupted() {
    let _calm = quiet().read();
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headhunt"));
        command.arg("camera").args(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let clip = clips::h264();
    let clip = clip.to_str().unwrap();
    let mut child = run(&[clip, "--port", "0", "--path", "/door"]);
    let mut url = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut url).unwrap();
    assert!(url.starts_with("rtsp://127.0.0.1:") && url.ends_with("/door\n"));
    let mut client = RawClient::connect(url.trim()).unwrap();
    client.play().unwrap();
    client.packets(3);
    let interrupt = ["-INT".to_owned(), child.id().to_string()];
    assert!(
        Command::new("kill")
            .args(interrupt)
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(child.wait().unwrap().code(), Some(0));

    for (args, code, named) in [
        (&["/nowhere.mp4", "--port", "0"][..], 1, "/nowhere.mp4"),
        (&[clip, "--port", "0", "--path", "x"], 1, "path"),
        (&[clip, "--user", "u"], 2, "--password"),
        (&[clip, "--listen", "here"], 2, "--listen"),
    ] {
        let output = run(args).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains(named), "{args:?}: {errors}");
    }
}
