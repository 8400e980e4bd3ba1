//! Live sources over scripted sessions: real RTP packets of real encoders, no sockets, and a fast
//! clock. What a camera does is a list of steps; what comes of it is frames, gaps and states.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

mod video_support;

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use headhunt::{
    clock::{Clock, FastClock},
    error::{Error, Kind, Result},
    media::{FrameStamp, Gap, GapReason, MediaEvent, MediaInfo, MediaSource, SourceState},
    rtsp::{Codec, Failure, FailureKind, Packet, Track},
    video::live::{self, Dial, LiveOptions, Packets, Pending},
};
use prost::bytes::Bytes;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use video_support::{Clip, index_of, limits};

/// Seconds of the test's clock in one of the wall's.
const FASTER: u32 = 50;

const X264: &str =
    "x264enc speed-preset=ultrafast tune=zerolatency key-int-max=10 bitrate=800 ! h264parse";

/// The RTP packets of a clip: frames of 40 ms, every tenth a key frame.
struct Recording {
    track: Track,
    packets: Vec<Vec<u8>>,
}

fn recording(codec: Codec, frames: u64, width: u32, height: u32) -> Recording {
    let (encoder, demuxer, pay) = match codec {
        Codec::H264 => (
            X264,
            "matroskademux ! h264parse",
            "rtph264pay config-interval=-1",
        ),
        Codec::H265 => (
            "x265enc speed-preset=ultrafast tune=zerolatency key-int-max=10 bitrate=800 ! h265parse",
            "matroskademux ! h265parse",
            "rtph265pay config-interval=-1",
        ),
        Codec::Mjpeg => ("jpegenc", "matroskademux ! jpegparse", "rtpjpegpay"),
    };
    let clip = Clip::new(encoder, "matroskamux")
        .sized(width, height)
        .frames(frames);
    let path = clip.make();
    let pipeline = gst::parse::launch(&format!(
        "filesrc location={} ! {demuxer} ! {pay} mtu=400 seqnum-offset=65500 timestamp-offset=4294900000 ! appsink name=out sync=false",
        path.display()
    ))
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    let sink = pipeline.by_name("out").unwrap();
    let sink = sink.downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut packets = vec![];
    while let Ok(sample) = sink.pull_sample() {
        let mut take = |buffer: &gst::BufferRef| {
            packets.push(buffer.map_readable().unwrap().to_vec());
        };
        match (sample.buffer(), sample.buffer_list()) {
            (Some(buffer), _) => take(buffer),
            (None, Some(list)) => list.iter().for_each(take),
            (None, None) => panic!("an empty sample"),
        }
    }
    let caps = sink.static_pad("sink").unwrap().current_caps().unwrap();
    pipeline.set_state(gst::State::Null).unwrap();
    let caps = caps.structure(0).unwrap();
    let parameters = [
        "sprop-parameter-sets",
        "packetization-mode",
        "sprop-vps",
        "sprop-sps",
        "sprop-pps",
    ]
    .into_iter()
    .filter_map(|name| Some((name.to_owned(), caps.get::<String>(name).ok()?)))
    .collect();
    Recording {
        track: Track {
            codec,
            payload_type: packets[0][1] & 0x7f,
            clock_rate: 90_000,
            parameters,
        },
        packets,
    }
}

impl Recording {
    /// The packets of frames `from..to`, timestamps shifted by `shift` ticks.
    fn frames(&self, from: usize, to: usize, shift: i64) -> Vec<Step> {
        let mut frame = 0;
        let mut steps = vec![];
        let mut unwrapped: Option<(u32, i64)> = None;
        for packet in &self.packets {
            let raw = u32::from_be_bytes(packet[4..8].try_into().unwrap());
            let ticks = match unwrapped {
                None => i64::from(raw),
                Some((before, ticks)) => ticks + i64::from(raw.wrapping_sub(before) as i32),
            };
            unwrapped = Some((raw, ticks));
            if (from..to).contains(&frame) {
                steps.push(Step::Packet {
                    data: packet.clone(),
                    ticks: ticks + shift,
                    lost: 0,
                });
            }
            if packet[1] & 0x80 != 0 {
                frame += 1;
            }
        }
        assert!(frame >= to, "{frame} frames");
        steps
    }

    fn all(&self) -> Vec<Step> {
        let frames = self.packets.iter().filter(|p| p[1] & 0x80 != 0).count();
        self.frames(0, frames, 0)
    }
}

#[derive(Clone)]
enum Step {
    Packet {
        data: Vec<u8>,
        ticks: i64,
        lost: u32,
    },
    /// On the test's clock.
    Wait(Duration),
    Fail(FailureKind),
    /// Nothing more, for ever.
    Hang,
}

/// One attempt: steps before and after it succeeds.
struct Session {
    track: Option<Track>,
    steps: VecDeque<Step>,
}

#[derive(Default)]
struct Script {
    sessions: Mutex<VecDeque<Session>>,
    dialled: Mutex<Vec<Duration>>,
    clock: Mutex<Option<Arc<dyn Clock>>>,
    farewells: Arc<AtomicUsize>,
}

fn failure(kind: FailureKind) -> Failure {
    Failure {
        kind,
        message: format!("scripted {kind:?}"),
    }
}

impl Dial for Script {
    fn dial(&self) -> Pending<'_, Box<dyn Packets>> {
        Box::pin(async {
            let clock = self.clock.lock().unwrap().clone().unwrap();
            self.dialled.lock().unwrap().push(clock.now());
            let session = self.sessions.lock().unwrap().pop_front();
            let Some(mut session) = session else {
                return Err(failure(FailureKind::Refused));
            };
            let Some(track) = session.track.take() else {
                match session.steps.pop_front() {
                    Some(Step::Fail(kind)) => return Err(failure(kind)),
                    _ => std::future::pending().await,
                }
            };
            Ok(Box::new(Playing {
                track,
                steps: session.steps,
                clock,
                farewells: Arc::clone(&self.farewells),
            }) as Box<dyn Packets>)
        })
    }
}

struct Playing {
    track: Track,
    steps: VecDeque<Step>,
    clock: Arc<dyn Clock>,
    farewells: Arc<AtomicUsize>,
}

impl Packets for Playing {
    fn track(&self) -> &Track {
        &self.track
    }

    fn next(&mut self) -> Pending<'_, Packet> {
        Box::pin(async {
            loop {
                match self.steps.pop_front() {
                    Some(Step::Packet { data, ticks, lost }) => {
                        return Ok(Packet {
                            data: Bytes::from(data),
                            ticks,
                            lost,
                            arrived: self.clock.now(),
                        });
                    }
                    Some(Step::Wait(span)) => self.clock.sleep(span).await,
                    Some(Step::Fail(kind)) => return Err(failure(kind)),
                    Some(Step::Hang) | None => std::future::pending().await,
                }
            }
        })
    }

    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            self.clock.sleep(Duration::from_millis(500)).await;
            self.farewells.fetch_add(1, Ordering::SeqCst);
        })
    }
}

/// What a source yielded.
#[derive(Default, Debug)]
struct Seen {
    info: Option<MediaInfo>,
    stamps: Vec<FrameStamp>,
    carried: Vec<u64>,
    sizes: Vec<(u32, u32)>,
    /// With the count of frames before it.
    gaps: Vec<(usize, Gap)>,
    states: Vec<(usize, SourceState)>,
}

struct Rig {
    runtime: Runtime,
    script: Arc<Script>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    cancel: CancellationToken,
}

impl Rig {
    fn new(sessions: Vec<(Option<Track>, Vec<Step>)>) -> Rig {
        Rig::at(FASTER, sessions)
    }

    fn at(faster: u32, sessions: Vec<(Option<Track>, Vec<Step>)>) -> Rig {
        let clock = FastClock::shared(faster);
        let script = Script::default();
        *script.clock.lock().unwrap() = Some(clock.clone());
        *script.sessions.lock().unwrap() = sessions
            .into_iter()
            .map(|(track, steps)| Session {
                track,
                steps: steps.into(),
            })
            .collect();
        Rig {
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
            script: Arc::new(script),
            clock,
            stop: CancellationToken::new(),
            cancel: CancellationToken::new(),
        }
    }

    fn open(&self) -> Box<dyn MediaSource> {
        let options = LiveOptions {
            limits: limits(),
            clock: self.clock.clone(),
            picture_timeout: Duration::from_secs(60),
            runtime: self.runtime.handle().clone(),
        };
        let dial: Arc<dyn Dial> = self.script.clone();
        live::open(dial, options, self.stop.clone(), self.cancel.clone()).unwrap()
    }

    /// Pulls until `enough`, then stops the source and pulls the rest.
    fn run(&self, enough: impl Fn(&Seen) -> bool) -> (Seen, Result<()>) {
        let mut source = self.open();
        let mut seen = Seen::default();
        loop {
            if enough(&seen) {
                self.stop.cancel();
            }
            match source.next_event() {
                Ok(Some(event)) => seen.take(event),
                Ok(None) => return (seen, Ok(())),
                Err(error) => return (seen, Err(error)),
            }
        }
    }
}

impl Seen {
    fn take(&mut self, event: MediaEvent) {
        match event {
            MediaEvent::Opened(info) => {
                assert!(self.info.is_none());
                self.info = Some(info);
            }
            MediaEvent::Frame(frame) => {
                assert!(self.info.is_some());
                assert_eq!(frame.stamp.index, self.stamps.len() as u64);
                assert!(
                    self.stamps
                        .last()
                        .is_none_or(|last| last.pts <= frame.stamp.pts)
                );
                assert!(frame.received.is_some());
                let image = frame.picture.to_rgb().unwrap();
                self.stamps.push(frame.stamp);
                self.carried.push(index_of(&image));
                self.sizes.push((image.width, image.height));
            }
            MediaEvent::Gap(gap) => {
                assert!(gap.from <= gap.to);
                self.gaps.push((self.stamps.len(), gap));
            }
            MediaEvent::Source(state) => self.states.push((self.stamps.len(), state)),
        }
    }

    fn ms(&self, frame: usize) -> i64 {
        self.stamps[frame].pts.as_nanos() / 1_000_000
    }

    fn reasons(&self) -> Vec<(usize, GapReason)> {
        self.gaps
            .iter()
            .map(|(at, gap)| (*at, gap.reason))
            .collect()
    }
}

fn frames(n: usize) -> impl Fn(&Seen) -> bool {
    move |seen| seen.stamps.len() >= n
}

/// Tolerates what the 90 kHz clock and Matroska's milliseconds round.
fn near(a: i64, b: i64) -> bool {
    (a - b).abs() <= 1
}

#[test]
fn every_codec_plays_and_wraps_are_nothing() {
    for (codec, name) in [
        (Codec::H264, "h264"),
        (Codec::H265, "h265"),
        (Codec::Mjpeg, "mjpeg"),
    ] {
        // Sequence numbers and timestamps wrap within the first second.
        let clip = recording(codec, 40, 160, 120);
        let rig = Rig::new(vec![(Some(clip.track.clone()), clip.all())]);
        let (seen, end) = rig.run(frames(40));
        end.unwrap();
        assert_eq!(seen.carried, (0..40).collect::<Vec<_>>(), "{name}");
        for i in 0..40 {
            assert!(
                near(seen.ms(i), 40 * i as i64),
                "{name}: frame {i} at {} ms",
                seen.ms(i)
            );
        }
        let info = seen.info.unwrap();
        assert_eq!(
            (info.container.as_str(), info.codec.as_str()),
            ("rtsp", name)
        );
        assert_eq!(
            (info.width, info.height, info.declared_fps),
            (160, 120, None)
        );
        assert!(seen.gaps.is_empty(), "{name}: {:?}", seen.gaps);
        assert_eq!(seen.states, [(0, SourceState::Connected)]);
    }
}

#[test]
fn a_lost_connection_is_one_gap_whatever_attempts_fail_and_time_goes_on() {
    let clip = recording(Codec::H264, 60, 160, 120);
    let mut first = clip.frames(0, 20, 0);
    first.push(Step::Fail(FailureKind::Reset));
    let sessions = vec![
        (Some(clip.track.clone()), first),
        (None, vec![Step::Fail(FailureKind::Refused)]),
        (None, vec![Step::Fail(FailureKind::Dns)]),
        (None, vec![Step::Fail(FailureKind::Timeout)]),
        // Another clock, and in the middle of a group of pictures.
        (Some(clip.track.clone()), clip.frames(25, 60, -1_234_567)),
    ];
    let rig = Rig::new(sessions);
    let (seen, end) = rig.run(frames(50));
    end.unwrap();
    // 25..30 precede the first key frame of the second connection.
    let expected: Vec<u64> = (0..20).chain(30..60).collect();
    assert_eq!(seen.carried, expected);
    assert_eq!(seen.reasons(), [(20, GapReason::ConnectionLost)]);
    let gap = &seen.gaps[0].1;
    assert!(gap.detail.contains("Reset"), "{}", gap.detail);
    assert_eq!(gap.from.as_nanos(), seen.stamps[19].end().as_nanos());
    assert_eq!(gap.to, seen.stamps[20].pts);
    // Media time stood still for no longer than the wall's: the frames came all at once.
    let dialled = rig.script.dialled.lock().unwrap().clone();
    let outage = (dialled[4] - dialled[0]).as_millis() as i64;
    assert!(seen.ms(20) >= outage - 100, "{} {outage}", seen.ms(20));
    let lost = (seen.ms(20) - seen.ms(19) - 40 + 20) / 40;
    assert!((gap.frames_lost as i64 - lost).abs() <= 1);
    let attempts: Vec<u32> = seen
        .states
        .iter()
        .filter_map(|(_, state)| match state {
            SourceState::Interrupted { attempts, .. } => Some(*attempts),
            SourceState::Connected => None,
        })
        .collect();
    assert_eq!(attempts, [1, 2, 3, 4]);
    assert_eq!(seen.states.last().unwrap(), &(20, SourceState::Connected));
}

#[test]
fn end_error_and_silence_are_treated_alike_and_told_apart_by_reason() {
    for (kind, reason) in [
        (FailureKind::Ended, GapReason::ConnectionLost),
        (FailureKind::Reset, GapReason::ConnectionLost),
        (FailureKind::Protocol, GapReason::ConnectionLost),
        (FailureKind::Silence, GapReason::Stalled),
    ] {
        let clip = recording(Codec::H264, 20, 160, 120);
        let mut first = clip.all();
        first.push(Step::Fail(kind));
        let sessions = vec![
            (Some(clip.track.clone()), first),
            (Some(clip.track.clone()), clip.all()),
        ];
        let (seen, end) = Rig::new(sessions).run(frames(40));
        end.unwrap();
        assert_eq!(
            seen.carried,
            (0..20).chain(0..20).collect::<Vec<_>>(),
            "{kind:?}"
        );
        assert_eq!(seen.reasons(), [(20, reason)]);
    }
}

#[test]
fn clock_steps_and_restarts_are_jumps_of_no_length() {
    let hour = 3600 * 90_000;
    for shift in [hour, -hour, -4_294_900_000] {
        let clip = recording(Codec::H264, 40, 160, 120);
        let mut steps = clip.frames(0, 20, 0);
        steps.extend(clip.frames(20, 40, shift));
        let rig = Rig::new(vec![(Some(clip.track.clone()), steps)]);
        let (seen, end) = rig.run(frames(40));
        end.unwrap();
        assert_eq!(seen.carried, (0..40).collect::<Vec<_>>());
        assert_eq!(seen.reasons(), [(20, GapReason::TimestampJump)], "{shift}");
        // The packets came all at once, so the media stands nearly still for a moment.
        assert!((seen.ms(20) - seen.ms(19)).abs() < 1000, "{}", seen.ms(20));
        assert!(near(seen.ms(39) - seen.ms(20), 19 * 40));
    }
}

/// Every moment up to the last frame lies in a frame or in a gap.
fn assert_told_in_full(seen: &Seen) {
    for (i, pair) in seen.stamps.windows(2).enumerate() {
        let (end, next) = (pair[0].end(), pair[1].pts);
        let gap = seen.gaps.iter().find(|(at, _)| *at == i + 1);
        let told = gap.map_or(end, |(_, gap)| {
            assert_eq!(gap.from, end);
            gap.to
        });
        let hole = next.saturating_since(told);
        assert!(
            hole < Duration::from_millis(100),
            "{hole:?} before frame {}",
            i + 1
        );
        assert!(
            pair[1].duration < Duration::from_millis(100),
            "{:?}",
            pair[1]
        );
    }
}

#[test]
fn a_timestamp_with_a_flipped_bit_is_a_jump_and_leaves_no_hole() {
    // 2^18 ticks are 2.9 s: too little for arrival times to contradict them by 5 s.
    for bit in [16, 17, 18] {
        let clip = recording(Codec::H264, 40, 160, 120);
        let mut steps = clip.frames(0, 20, 0);
        steps.extend(clip.frames(20, 21, 1 << bit));
        steps.extend(clip.frames(21, 40, 0));
        // The clock of the wall, since a busy machine is soon seconds late on a faster one.
        let rig = Rig::at(1, vec![(Some(clip.track.clone()), steps)]);
        let (seen, end) = rig.run(frames(40));
        end.unwrap();
        assert_eq!(seen.carried, (0..40).collect::<Vec<_>>());
        assert_eq!(seen.gaps[0].0, 20);
        // Less than a second back is a disorder, so that the pictures behind it seem lost before it.
        if bit > 16 {
            assert_eq!(seen.gaps[0].1.reason, GapReason::TimestampJump, "{bit}");
        }
        let length = seen.gaps[0].1.to.saturating_since(seen.gaps[0].1.from);
        assert!(
            near(length.as_millis() as i64, (1000 << bit) / 90_000),
            "{length:?}"
        );
        assert_told_in_full(&seen);
    }
}

#[test]
fn a_camera_that_sends_no_pictures_for_seconds_has_stalled_and_a_slow_one_has_not() {
    let clip = recording(Codec::H264, 40, 160, 120);
    let mut steps = clip.frames(0, 20, 0);
    steps.push(Step::Wait(Duration::from_secs(4)));
    steps.extend(clip.frames(20, 40, 4 * 90_000));
    let rig = Rig::new(vec![(Some(clip.track.clone()), steps)]);
    let (seen, end) = rig.run(frames(40));
    end.unwrap();
    assert_eq!(seen.reasons(), [(20, GapReason::Stalled)]);
    assert_eq!(seen.gaps[0].1.frames_lost, 100);
    assert_told_in_full(&seen);

    // A picture a second, from a camera that had 25.
    let mut steps = clip.frames(0, 20, 0);
    for frame in 20..30 {
        steps.push(Step::Wait(Duration::from_millis(960)));
        steps.extend(clip.frames(frame, frame + 1, (frame as i64 - 19) * 86_400));
    }
    let rig = Rig::new(vec![(Some(clip.track.clone()), steps)]);
    let (seen, end) = rig.run(frames(30));
    end.unwrap();
    assert!(near(seen.ms(29) - seen.ms(19), 10_000), "{:?}", seen.stamps);
    assert_eq!(seen.reasons(), []);
}

#[test]
fn lost_packets_cost_the_pictures_up_to_the_next_key_frame() {
    let clip = recording(Codec::H264, 40, 160, 120);
    let mut steps = clip.frames(0, 14, 0);
    // Frame 14 lacks all but its first packet... and 15 comes whole, but refers to it.
    let mut rest = clip.frames(14, 40, 0);
    let last_of_14 = rest
        .iter()
        .position(|step| matches!(step, Step::Packet { data, .. } if data[1] & 0x80 != 0))
        .unwrap();
    rest.drain(..=last_of_14);
    if let Step::Packet { lost, .. } = &mut rest[0] {
        *lost = (last_of_14 + 1) as u32;
    }
    steps.extend(rest);
    let rig = Rig::new(vec![(Some(clip.track.clone()), steps)]);
    let (seen, end) = rig.run(frames(34));
    end.unwrap();
    assert_eq!(seen.carried, (0..14).chain(20..40).collect::<Vec<_>>());
    assert_eq!(seen.reasons(), [(14, GapReason::DecodeError)]);
    assert_eq!(seen.gaps[0].1.frames_lost, 6);
    assert!(near(seen.ms(14), 20 * 40));
}

#[test]
fn another_size_in_mid_stream_and_another_codec_after_a_break_are_followed() {
    let small = recording(Codec::H264, 20, 160, 120);
    let large = recording(Codec::H264, 20, 320, 240);
    let other = recording(Codec::Mjpeg, 20, 160, 120);
    let mut first = small.all();
    first.extend(large.frames(0, 20, 20 * 3600));
    first.push(Step::Fail(FailureKind::Ended));
    // Sequence numbers go back in the middle; the depayloader must take that.
    let rig = Rig::new(vec![
        (Some(small.track.clone()), first),
        (Some(other.track.clone()), other.all()),
    ]);
    let (seen, end) = rig.run(frames(60));
    end.unwrap();
    let sizes: Vec<_> = [(160, 120), (320, 240), (160, 120)]
        .into_iter()
        .flat_map(|size| vec![size; 20])
        .collect();
    assert_eq!(seen.sizes, sizes);
    assert_eq!(
        seen.reasons().last(),
        Some(&(40, GapReason::ConnectionLost))
    );
}

#[test]
fn fatal_failures_end_the_source_after_what_was_decoded() {
    let clip = recording(Codec::H264, 20, 160, 120);
    let mut first = clip.all();
    first.push(Step::Fail(FailureKind::Reset));
    let rig = Rig::new(vec![
        (Some(clip.track.clone()), first),
        (None, vec![Step::Fail(FailureKind::Unauthorized)]),
    ]);
    let (seen, end) = rig.run(|_| false);
    let error = end.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.message().contains("Unauthorized"), "{error}");
    assert_eq!(seen.carried.len(), 20);
    // The outage that nothing follows is told too.
    assert_eq!(seen.reasons(), [(20, GapReason::ConnectionLost)]);
    for (kind, expected) in [
        (FailureKind::UnsupportedCodec, Kind::InvalidArgument),
        (FailureKind::Forbidden, Kind::PermissionDenied),
    ] {
        let rig = Rig::new(vec![(None, vec![Step::Fail(kind)])]);
        let (_, end) = rig.run(|_| false);
        assert_eq!(end.unwrap_err().kind(), expected);
    }
}

#[test]
fn pictures_over_the_limit_end_the_source() {
    let clip = recording(Codec::H264, 20, 640, 480);
    let rig = Rig::new(vec![(Some(clip.track.clone()), clip.all())]);
    let options = LiveOptions {
        limits: headhunt::video::VideoLimits {
            max_pixels: 320 * 240,
            ..limits()
        },
        clock: rig.clock.clone(),
        picture_timeout: Duration::from_secs(60),
        runtime: rig.runtime.handle().clone(),
    };
    let dial: Arc<dyn Dial> = rig.script.clone();
    let mut source = live::open(dial, options, rig.stop.clone(), rig.cancel.clone()).unwrap();
    let error = loop {
        match source.next_event() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended well"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), Kind::InvalidArgument);
    assert!(error.message().contains("640x480"), "{error}");
}

#[test]
fn damage_that_looks_like_pictures_over_the_limit_is_an_outage() {
    let good = recording(Codec::H264, 20, 160, 120);
    let huge = recording(Codec::H264, 20, 640, 480);
    let mut first = good.all();
    first.extend(huge.frames(0, 20, 20 * 3600));
    let rig = Rig::new(vec![
        (Some(good.track.clone()), first),
        (Some(good.track.clone()), good.all()),
    ]);
    let options = LiveOptions {
        limits: headhunt::video::VideoLimits {
            max_pixels: 320 * 240,
            ..limits()
        },
        clock: rig.clock.clone(),
        picture_timeout: Duration::from_secs(60),
        runtime: rig.runtime.handle().clone(),
    };
    let dial: Arc<dyn Dial> = rig.script.clone();
    let mut source = live::open(dial, options, rig.stop.clone(), rig.cancel.clone()).unwrap();
    let mut seen = Seen::default();
    while seen.stamps.len() < 40 {
        seen.take(source.next_event().unwrap().unwrap());
    }
    // What precedes the first header of the other size may decode to something, or be lost too.
    let told = |gap: &Gap| gap.reason == GapReason::DecodeError && gap.detail.contains("640x480");
    assert!(seen.gaps.iter().any(|(_, gap)| told(gap)), "{seen:?}");
}

#[test]
fn packets_without_any_picture_are_a_failure_that_is_retried() {
    let clip = recording(Codec::H264, 20, 160, 120);
    // No key frame ever: frames 1..9 again and again, without a pause that anything could look around in.
    let mut steps = vec![];
    for round in 0..600 {
        steps.extend(clip.frames(1, 10, round * 9 * 100));
        steps.push(Step::Wait(Duration::from_secs(2)));
    }
    let rig = Rig::new(vec![
        (Some(clip.track.clone()), steps),
        (Some(clip.track.clone()), clip.all()),
    ]);
    let (seen, end) = rig.run(frames(20));
    end.unwrap();
    let dialled = rig.script.dialled.lock().unwrap().clone();
    assert!(dialled[1] < Duration::from_secs(200), "{dialled:?}");
    assert!(
        seen.states.iter().any(|(_, state)| matches!(
            state,
            SourceState::Interrupted {
                reason: GapReason::DecodeError,
                ..
            }
        )),
        "{:?}",
        seen.states
    );
}

#[test]
fn stop_delivers_what_arrived_and_cancel_does_not_wait() {
    let clip = recording(Codec::H264, 20, 160, 120);
    let mut steps = clip.all();
    steps.push(Step::Hang);
    let rig = Rig::new(vec![(Some(clip.track.clone()), steps.clone())]);
    let (seen, end) = rig.run(frames(1));
    end.unwrap();
    assert!(!seen.carried.is_empty());

    let rig = Rig::new(vec![(Some(clip.track.clone()), steps)]);
    let cancel = rig.cancel.clone();
    let (_, end) = rig.run(move |seen| {
        if seen.stamps.len() == 20 {
            let cancel = cancel.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                cancel.cancel();
            });
        }
        false
    });
    assert_eq!(end.unwrap_err().kind(), Kind::Cancelled);

    // Nothing was ever shown.
    let rig = Rig::new(vec![(None, vec![Step::Hang])]);
    rig.stop.cancel();
    let (_, end) = rig.run(|_| false);
    let error: Error = end.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
}

#[test]
fn each_session_is_told_goodbye_however_it_ends() {
    let clip = recording(Codec::H264, 20, 160, 120);
    let with = |last: Step| {
        let mut steps = clip.all();
        steps.push(last);
        (Some(clip.track.clone()), steps)
    };
    let rig = Rig::new(vec![
        with(Step::Fail(FailureKind::Silence)),
        with(Step::Fail(FailureKind::Reset)),
        with(Step::Hang),
    ]);
    let (_, end) = rig.run(frames(50));
    end.unwrap();
    let begun = std::time::Instant::now();
    while rig.script.farewells.load(Ordering::SeqCst) < 3 {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn attempts_wait_longer_and_longer_and_leave_nothing_behind() {
    fn threads() -> usize {
        std::fs::read_dir("/proc/self/task").unwrap().count()
    }
    // Every attempt is refused.
    let rig = Rig::new(vec![]);
    let mut source = rig.open();
    let mut waits = vec![];
    let before = threads();
    while waits.len() < 12 {
        match source.next_event().unwrap() {
            Some(MediaEvent::Source(SourceState::Interrupted { retry_in, .. })) => {
                waits.push(retry_in);
            }
            _ => panic!("something came of it"),
        }
    }
    assert!(waits[0] <= Duration::from_millis(500));
    assert!(waits[11] >= Duration::from_secs(15), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(30)));
    assert!(threads() <= before + 1);
}
