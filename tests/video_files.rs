//! Files to frames: every container and codec, odd media, bad input.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod video_support;

use std::time::{Duration, Instant};

use headhunt::{
    error::Kind,
    media::{GapReason, MediaEvent},
    video::{Input, VideoLimits, count_frames, open},
};
use tokio_util::sync::CancellationToken;
use video_support::*;

const H265: &str = "x265enc speed-preset=ultrafast key-int-max=12 ! h265parse";
const MPEG4: &str = "avenc_mpeg4 bitrate=1500000 gop-size=12 ! identity name=stamp";
const MJPEG: &str = "jpegenc quality=90";
const VP8: &str = "vp8enc deadline=1 cpu-used=8 target-bitrate=1500000 keyframe-max-dist=12";
const VP9: &str = "vp9enc deadline=1 cpu-used=8 target-bitrate=1500000 keyframe-max-dist=12";
const AV1: &str = "av1enc cpu-used=8 usage-profile=realtime keyframe-max-dist=12 ! av1parse";

fn check_codec(codec: &str, encoder: &str, containers: &[(&str, &str)]) {
    for (container, muxer) in containers {
        let what = format!("{codec} in {container}");
        let clip = Clip::new(encoder, muxer);
        let decoded = decode(&clip.make()).unwrap_or_else(|e| panic!("{what}: {e:#}"));
        assert_whole(&what, &decoded, clip.frames);
        // Matroska rounds to milliseconds.
        assert_constant_rate(&what, &decoded, 25.0, 1.1);
        let info = decoded.info.unwrap();
        assert_eq!(info.container, *container, "{what}");
        assert_eq!(info.codec, codec, "{what}");
        assert_eq!((info.width, info.height), (160, 120), "{what}");
        // MPEG-4 part 2 in a transport stream has no rate: none is declared rather than a guess.
        let declared = info
            .declared_fps
            .or((*container == "mpegts").then_some(25.0));
        assert!(
            declared.is_some_and(|f| (f - 25.0).abs() < 0.01),
            "{what}: {:?}",
            info.declared_fps
        );
    }
}

#[test]
fn h264_in_every_container() {
    check_codec(
        "h264",
        H264,
        &[
            ("mp4", "mp4mux"),
            ("mp4", "mp4mux faststart=true"),
            ("mp4", "mp4mux fragment-duration=400"),
            ("mp4", "qtmux"),
            ("matroska", "matroskamux"),
            ("mpegts", "mpegtsmux"),
            ("mpegts", "mpegtsmux m2ts-mode=true"),
            ("avi", "avimux"),
        ],
    );
}

#[test]
fn h265_in_every_container() {
    if !installed(&["x265enc"]) {
        return;
    }
    let containers = [
        ("mp4", "mp4mux"),
        ("matroska", "matroskamux"),
        ("mpegts", "mpegtsmux"),
    ];
    check_codec("h265", H265, &containers);
}

#[test]
fn mpeg4_in_every_container() {
    let containers = [
        ("mp4", "mp4mux"),
        ("matroska", "matroskamux"),
        ("mpegts", "mpegtsmux"),
        ("avi", "avimux"),
    ];
    check_codec("mpeg4", MPEG4, &containers);
}

#[test]
fn mjpeg_in_every_container() {
    let containers = [
        ("mp4", "qtmux"),
        ("matroska", "matroskamux"),
        ("avi", "avimux"),
    ];
    check_codec("mjpeg", MJPEG, &containers);
}

#[test]
fn vp8_and_vp9() {
    check_codec(
        "vp8",
        VP8,
        &[("webm", "webmmux"), ("matroska", "matroskamux")],
    );
    check_codec(
        "vp9",
        VP9,
        &[("webm", "webmmux"), ("matroska", "matroskamux")],
    );
}

#[test]
fn av1() {
    if installed(&["av1enc"]) {
        check_codec(
            "av1",
            AV1,
            &[("mp4", "mp4mux"), ("matroska", "matroskamux")],
        );
    }
}

#[test]
fn variable_frame_rate_is_kept() {
    // 20 ms steps with a pause of 500 ms after every tenth frame.
    let pts = |i: u64| i * 20 + i / 10 * 480;
    for muxer in ["mp4mux", "matroskamux", "mpegtsmux"] {
        let mut clip = Clip::h264(muxer);
        clip.encoder = "x264enc speed-preset=ultrafast tune=zerolatency ! h264parse".to_owned();
        clip.pts_ms = Some(pts);
        let decoded = decode(&clip.make()).unwrap();
        // Some versions of mp4mux end the edit list at the start of the last frame.
        let cut = u64::from(muxer == "mp4mux" && decoded.stamps.len() == 39);
        assert_whole(muxer, &decoded, clip.frames - cut);
        for stamp in &decoded.stamps {
            let off = stamp.pts.as_secs_f64() * 1000.0 - pts(stamp.index) as f64;
            assert!(
                off.abs() < 1.1,
                "{muxer}: frame {} is {off} ms off",
                stamp.index
            );
        }
    }
}

#[test]
fn a_jump_of_the_clock_is_a_gap() {
    let mut clip = Clip::h264("matroskamux");
    clip.encoder = "x264enc speed-preset=ultrafast tune=zerolatency ! h264parse".to_owned();
    // Half a minute is missing after the twentieth frame.
    clip.pts_ms = Some(|i| i * 40 + if i < 20 { 0 } else { 30_000 });
    clip.honest_durations = false;
    let decoded = decode(&clip.make()).unwrap();
    assert_eq!(decoded.carried, (0..40).collect::<Vec<u64>>());
    let [(at, gap)] = &decoded.gaps[..] else {
        panic!("{:?}", decoded.gaps);
    };
    assert_eq!(*at, 20);
    assert_eq!(gap.reason, GapReason::TimestampJump);
    assert_eq!(gap.frames_lost, 0);
    let (from, to) = (gap.from.as_secs_f64(), gap.to.as_secs_f64());
    assert!(
        (from - 0.8).abs() < 0.01 && (to - 30.8).abs() < 0.01,
        "{gap:?}"
    );
}

#[test]
fn odd_sizes_aspect_and_interlacing_shift_nothing() {
    for (width, height) in [(101, 67), (99, 120), (160, 91)] {
        // 4:4:4 is the only way H.264 codes an odd size.
        let mut clip = Clip::h264("mp4mux").sized(width, height);
        clip.format = "Y444";
        let decoded = decode(&clip.make()).unwrap();
        assert_whole("odd", &decoded, clip.frames);
        let info = decoded.info.unwrap();
        assert_eq!((info.width, info.height), (width, height));
        // These code odd sizes in 4:2:0.
        for (encoder, muxer) in [(VP8, "webmmux"), (MJPEG, "avimux")] {
            let clip = Clip::new(encoder, muxer).sized(width, height);
            let decoded = decode(&clip.make()).unwrap();
            assert_whole(encoder, &decoded, clip.frames);
            let info = decoded.info.unwrap();
            assert_eq!((info.width, info.height), (width, height), "{encoder}");
        }
    }
    let mut par = Clip::h264("mp4mux");
    par.caps = ",pixel-aspect-ratio=4/3";
    let decoded = decode(&par.make()).unwrap();
    assert_whole("aspect", &decoded, par.frames);
    assert_eq!(decoded.info.unwrap().width, 160);
    for muxer in ["mp4mux", "mpegtsmux"] {
        let mut fields = Clip::h264(muxer);
        fields.encoder = "x264enc interlaced=true key-int-max=12 ! h264parse".to_owned();
        fields.caps = ",interlace-mode=interleaved";
        let decoded = decode(&fields.make()).unwrap();
        assert_whole("interlaced", &decoded, fields.frames);
    }
}

#[test]
fn counting_equals_decoding() {
    let path = Clip::h264("mp4mux").frames(75).make();
    let n = count_frames(&path, &limits(), CancellationToken::new()).unwrap();
    assert_eq!(n, 75);
}

#[test]
fn audio_and_later_video_tracks_are_ignored() {
    let audio = "audiotestsrc num-buffers=80 samplesperbuffer=1024 \
                 ! audio/x-raw,rate=32000 ! avenc_aac ! aacparse ! m.";
    for muxer in ["mp4mux", "matroskamux", "mpegtsmux"] {
        let path = run_pipeline(&format!(
            "{muxer} name=m ! filesink name=out \
             videotestsrc num-buffers=60 ! video/x-raw,width=160,height=120,framerate=25/1 \
             ! x264enc key-int-max=12 ! h264parse ! queue ! m. \
             videotestsrc num-buffers=90 ! video/x-raw,width=64,height=64,framerate=25/1 \
             ! x264enc key-int-max=12 ! h264parse ! queue ! m. {}",
            audio.replace("! m.", "! queue ! m.")
        ));
        let decoded = decode(&path).unwrap();
        assert!(decoded.gaps.is_empty());
        let info = decoded.info.unwrap();
        // Whichever the muxer put first; whole, and nothing of the other.
        let expected = if info.width == 160 { 60 } else { 90 };
        assert_eq!(decoded.stamps.len(), expected, "{muxer}");
    }
}

#[test]
fn what_is_not_a_video_is_refused_by_name() {
    let says = |bytes: &[u8]| {
        let e = refusal(decode(&write_file(bytes)));
        assert_eq!(e.kind(), Kind::InvalidArgument, "{e}");
        e.message().to_owned()
    };
    assert!(says(b"").contains("empty"));
    assert!(says(b"Dear camera, please find attached").contains("a text file"));
    assert!(says(&[0xde; 5000]).contains("de de de"));

    let missing = refusal(decode(std::path::Path::new("/nonexistent/a.mp4")));
    assert_eq!(missing.kind(), Kind::NotFound);
    assert!(missing.message().contains("/nonexistent/a.mp4"));
    let folder = refusal(decode(folder()));
    assert_eq!(folder.kind(), Kind::InvalidArgument);
    assert!(folder.message().contains("not a regular file"));
}

#[test]
fn audio_alone_is_no_video() {
    for muxer in ["mp4mux", "matroskamux", "mpegtsmux", "avimux"] {
        let path = run_pipeline(&format!(
            "audiotestsrc num-buffers=40 ! audio/x-raw,rate=44100 ! lamemp3enc ! mpegaudioparse \
             ! {muxer} ! filesink name=out"
        ));
        let start = Instant::now();
        let e = refusal(decode(&path));
        assert_eq!(e.kind(), Kind::InvalidArgument, "{muxer}: {e}");
        assert!(e.message().contains("no video track"), "{muxer}: {e}");
        assert!(e.message().contains("audio/mpeg"), "{muxer}: {e}");
        assert!(start.elapsed() < Duration::from_secs(5), "{muxer}");
    }
}

#[test]
fn an_unsupported_codec_is_named() {
    let path = run_pipeline(
        "videotestsrc num-buffers=10 ! video/x-raw,width=64,height=64,framerate=25/1 \
         ! avenc_wmv2 ! avimux ! filesink name=out",
    );
    let e = refusal(decode(&path));
    assert_eq!(e.kind(), Kind::InvalidArgument);
    assert!(e.message().contains("video/x-wmv version 2"), "{e}");
}

#[test]
fn a_truncated_mp4_is_an_error_not_a_hang() {
    let whole = std::fs::read(Clip::h264("mp4mux").make()).unwrap();
    let moov = whole.windows(4).position(|w| w == b"moov").unwrap();
    for cut in [whole.len() / 2, moov - 4, moov + 40, whole.len() - 10] {
        let e = refusal(decode(&write_file(&whole[..cut])));
        assert_eq!(e.kind(), Kind::InvalidArgument, "cut at {cut}: {e}");
        assert!(e.message().contains("truncated MP4"), "cut at {cut}: {e}");
    }
}

#[test]
fn a_recording_cut_in_its_media_gives_what_is_there() {
    for muxer in [
        "mp4mux faststart=true",
        "mp4mux fragment-duration=400",
        "matroskamux",
        "mpegtsmux",
        "avimux",
    ] {
        let whole = std::fs::read(Clip::h264(muxer).make()).unwrap();
        let decoded = decode(&write_file(&whole[..whole.len() * 2 / 3]))
            .unwrap_or_else(|e| panic!("{muxer}: {e:#}"));
        let n = decoded.carried.len() as u64;
        assert!((10..40).contains(&n), "{muxer}: {n} frames");
        // The last frames may be lost in the cut, but none in front of them.
        let whole_part: Vec<u64> = (0..n - 1).collect();
        assert_eq!(decoded.carried[..n as usize - 1], whole_part, "{muxer}");
    }
}

#[test]
fn a_track_without_frames_is_an_error() {
    for muxer in ["mp4mux", "matroskamux", "mpegtsmux", "avimux"] {
        let clip = Clip::h264(muxer);
        let path = clip.make();
        let whole = std::fs::read(&path).unwrap();
        // Only the head of the file, or a header without media.
        let cut = if muxer == "mp4mux" {
            empty_mp4()
        } else {
            whole[..whole.len().min(1300)].to_vec()
        };
        let e = refusal(decode(&write_file(&cut)));
        assert_eq!(e.kind(), Kind::InvalidArgument, "{muxer}: {e}");
    }
}

/// CRC of MPEG-TS tables.
fn table_crc(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            let next = crc << 1;
            if crc & 1 << 31 == 0 {
                next
            } else {
                next ^ 0x04c1_1db7
            }
        })
    })
}

/// Its video under another packet identifier, which its table says in another version.
fn under_another_pid(mut ts: Vec<u8>) -> Vec<u8> {
    for packet in ts.as_chunks_mut::<188>().0 {
        assert_eq!(packet[0], 0x47);
        match u16::from_be_bytes([packet[1], packet[2]]) & 0x1fff {
            0x41 => packet[2] = 0x51,
            0x20 => {
                let filling = match packet[3] & 0x20 {
                    0 => 0,
                    _ => 1 + usize::from(packet[4]),
                };
                let table = &mut packet[4 + filling..];
                assert_eq!(table[0], 0, "from its start");
                let table = &mut table[1..];
                assert_eq!(table[0], 2);
                let end = 3 + usize::from(u16::from_be_bytes([table[1], table[2]]) & 0xfff) - 4;
                table[5] ^= 0x02;
                for at in 8..end - 1 {
                    if table[at] & 0x1f == 0 && table[at + 1] == 0x41 {
                        table[at + 1] = 0x51;
                    }
                }
                let crc = table_crc(&table[..end]).to_be_bytes();
                table[end..end + 4].copy_from_slice(&crc);
            }
            _ => {}
        }
    }
    ts
}

#[test]
fn a_stream_whose_tables_change_midway_goes_on() {
    let part = |codec: Clip| std::fs::read(codec.frames(50).make()).unwrap();
    let h264 = || part(Clip::h264("mpegtsmux"));
    let joined = [h264(), under_another_pid(h264()), h264()].concat();
    let expected: Vec<u64> = (0..3).flat_map(|_| 0..50).collect();
    let decoded = decode(&write_file(&joined)).unwrap();
    assert_eq!(decoded.carried, expected);
    let decoded = decode_upload(Chunks::new(joined, 1000)).unwrap();
    assert_eq!(decoded.carried, expected);
    // What cannot go on as the same track is not lost without a word.
    let mut other = Clip::h264("mpegtsmux");
    other.encoder = "x265enc speed-preset=ultrafast ! h265parse".to_owned();
    let joined = [h264(), under_another_pid(part(other))].concat();
    let decoded = decode(&write_file(&joined)).unwrap();
    assert_eq!(decoded.carried, (0..50).collect::<Vec<u64>>());
    let (_, gap) = decoded.gaps.last().unwrap();
    assert!(gap.detail.contains("another codec"), "{gap:?}");
}

/// Its video is shown from three seconds on, as where a recording's sound begins first.
fn shown_later(mut mp4: Vec<u8>) -> Vec<u8> {
    let at = |mp4: &[u8], name: &[u8; 4]| mp4.windows(4).rposition(|w| w == name).unwrap();
    let read = |mp4: &[u8], at: usize| u32::from_be_bytes(mp4[at..at + 4].try_into().unwrap());
    let write =
        |mp4: &mut [u8], at: usize, n: u32| mp4[at..at + 4].copy_from_slice(&n.to_be_bytes());
    let header = at(&mp4, b"mvhd");
    assert_eq!(mp4[header + 4], 0, "version");
    let (scale, duration) = (read(&mp4, header + 16), read(&mp4, header + 20));
    write(&mut mp4, header + 20, duration + 3 * scale);
    // One entry there, and an empty one before it. The index stands behind the media, so nothing else moves.
    let list = at(&mp4, b"elst");
    assert_eq!((mp4[list + 4], read(&mp4, list + 8)), (0, 1));
    write(&mut mp4, list + 8, 2);
    let empty = [3 * scale, u32::MAX, 1 << 16]
        .map(u32::to_be_bytes)
        .concat();
    mp4.splice(list + 12..list + 12, empty);
    for name in [b"moov", b"trak", b"edts", b"elst"] {
        let size = at(&mp4, name) - 4;
        let grown = read(&mp4, size) + 12;
        write(&mut mp4, size, grown);
    }
    mp4
}

#[test]
fn a_track_that_begins_later_is_whole() {
    let clip = Clip::h264("mp4mux").frames(100);
    let mp4 = shown_later(std::fs::read(clip.make()).unwrap());
    let decoded = decode(&write_file(&mp4)).unwrap();
    assert_eq!(decoded.carried, (0..100).collect::<Vec<u64>>());
    assert!(decoded.gaps.is_empty(), "{:?}", decoded.gaps);
    // And one that lacks its end is not.
    let mut cut = mp4.clone();
    let media = cut.windows(4).position(|w| w == b"mdat").unwrap();
    let index = cut.windows(4).rposition(|w| w == b"moov").unwrap() - 4;
    cut[media + (index - media) / 2..index].fill(0);
    let decoded = decode(&write_file(&cut)).unwrap();
    assert!(!decoded.gaps.is_empty());
}

/// ftyp and a moov whose only track has no samples.
fn empty_mp4() -> Vec<u8> {
    let fragmented = std::fs::read(Clip::h264("mp4mux fragment-duration=400").make()).unwrap();
    let moof = fragmented.windows(4).position(|w| w == b"moof").unwrap();
    fragmented[..moof - 4].to_vec()
}

#[test]
fn damage_in_the_middle_is_a_gap_and_decoding_goes_on() {
    for muxer in [
        "mp4mux",
        "mp4mux faststart=true",
        "matroskamux",
        "mpegtsmux",
        "avimux",
    ] {
        for (kind, junk) in [("zeros", 0u8), ("ones", 0xff), ("noise", 1)] {
            let clip = Clip::h264(muxer).frames(100);
            let mut bytes = std::fs::read(clip.make()).unwrap();
            let (from, to) = (bytes.len() * 45 / 100, bytes.len() * 55 / 100);
            let mut noise = 12345u32;
            for b in &mut bytes[from..to] {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *b = if junk == 1 { (noise >> 24) as u8 } else { junk };
            }
            let what = format!("{kind} in {muxer}");
            let decoded = decode(&write_file(&bytes)).unwrap_or_else(|e| panic!("{what}: {e:#}"));
            let gaps: Vec<_> = decoded
                .gaps
                .iter()
                .map(|(at, g)| {
                    (
                        *at,
                        g.reason,
                        g.frames_lost,
                        g.from.to_string(),
                        g.to.to_string(),
                    )
                })
                .collect();
            assert!(!gaps.is_empty(), "{what}: no gap reported");
            assert!(
                decoded
                    .gaps
                    .iter()
                    .all(|(_, g)| g.reason == GapReason::DecodeError && g.from <= g.to),
                "{what}: {gaps:?}"
            );
            let (at, _) = decoded.gaps[0];
            assert!((35..60).contains(&at), "{what}: {gaps:?}");
            // Before the damage nothing is missing.
            assert_eq!(
                decoded.carried[..35],
                (0..35).collect::<Vec<u64>>(),
                "{what}"
            );
            // It went on to the end, with the right clock.
            assert_eq!(decoded.carried.last(), Some(&99), "{what}");
            let last = decoded.stamps.last().unwrap();
            let off = last.pts.as_secs_f64() * 1000.0 - 99.0 * 40.0;
            assert!(off.abs() < 2.0, "{what}: the last frame is {off} ms off");
        }
    }
}

#[test]
fn too_large_frames_are_refused_before_a_picture_is_decoded() {
    let small = VideoLimits {
        max_side: 128,
        ..limits()
    };
    let few = VideoLimits {
        max_pixels: 10_000,
        ..limits()
    };
    let clips = [
        Clip::h264("mp4mux"),
        Clip::h264("mpegtsmux"),
        Clip::new(VP8, "webmmux"),
        Clip::new(MJPEG, "avimux"),
        Clip::new(MPEG4, "mpegtsmux"),
    ];
    for clip in clips {
        let path = clip.make();
        for (limits, named) in [(&small, "128 pixels a side"), (&few, "the limit is 10000")] {
            let mut source =
                open(Input::File(path.clone()), limits, CancellationToken::new()).unwrap();
            let Err(e) = source.next_event() else {
                panic!("{} in {}: not refused", clip.encoder, clip.muxer);
            };
            assert_eq!(e.kind(), Kind::InvalidArgument, "{e}");
            assert!(e.message().contains("160x120"), "{e}");
            assert!(e.message().contains(named), "{e}");
            // It stays failed.
            assert!(source.next_event().is_err());
        }
    }
    // The product's own limit, with a real stream past it.
    let long = Clip::new("jpegenc", "matroskamux")
        .sized(8200, 64)
        .frames(2);
    let e = refusal(decode(&long.make()));
    assert!(e.message().contains("8200x64"), "{e}");
    assert!(e.message().contains("8192"), "{e}");
}

#[test]
fn a_declared_size_that_hides_a_larger_one_is_refused() {
    // The header says 160x120, the VP8 key frames say 16383 pixels wide.
    let mut bytes = std::fs::read(Clip::new(VP8, "webmmux").make()).unwrap();
    let starts: Vec<usize> = (0..bytes.len() - 10)
        .filter(|&i| bytes[i..i + 3] == [0x9d, 0x01, 0x2a])
        .collect();
    assert!(!starts.is_empty());
    for at in starts {
        bytes[at + 3..at + 5].copy_from_slice(&[0xff, 0x3f]);
    }
    let e = refusal(decode(&write_file(&bytes)));
    assert_eq!(e.kind(), Kind::InvalidArgument);
    assert!(e.message().contains("16383x120"), "{e}");
}

#[test]
fn a_size_that_changes_midway_is_followed_and_checked() {
    let pass = |w, h| std::fs::read(Clip::h264("mpegtsmux").sized(w, h).make()).unwrap();
    let joined = write_file(&[pass(160, 120), pass(320, 240)].concat());
    let mut source = open(
        Input::File(joined.clone()),
        &limits(),
        CancellationToken::new(),
    )
    .unwrap();
    let mut sizes = vec![];
    let mut gaps = vec![];
    while let Some(event) = source.next_event().unwrap() {
        match event {
            MediaEvent::Frame(f) => {
                let image = f.picture.to_rgb().unwrap();
                sizes.push((image.width, image.height));
            }
            MediaEvent::Gap(gap) => gaps.push(gap),
            MediaEvent::Source(_) => {}
            MediaEvent::Opened(_) => {}
        }
    }
    // The demuxer joins the two clocks.
    assert!(gaps.is_empty(), "{gaps:?}");
    assert_eq!(sizes.iter().filter(|s| **s == (160, 120)).count(), 40);
    assert_eq!(sizes.iter().filter(|s| **s == (320, 240)).count(), 40);
    let small = VideoLimits {
        max_side: 200,
        ..limits()
    };
    let mut source = open(Input::File(joined), &small, CancellationToken::new()).unwrap();
    let e = loop {
        match source.next_event() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("not refused"),
            Err(e) => break e,
        }
    };
    assert!(e.message().contains("320x240"), "{e}");
}

#[test]
fn cancellation_is_seen_at_once_and_dropping_midway_is_clean() {
    let path = Clip::h264("mp4mux").frames(200).make();
    let cancel = CancellationToken::new();
    let mut source = open(Input::File(path.clone()), &limits(), cancel.clone()).unwrap();
    assert!(matches!(
        source.next_event(),
        Ok(Some(MediaEvent::Opened(_)))
    ));
    let Ok(Some(MediaEvent::Frame(kept))) = source.next_event() else {
        panic!("no frame");
    };
    cancel.cancel();
    // At most the events that were ready, then the cancellation.
    let e = (0..4).find_map(|_| source.next_event().err()).unwrap();
    assert_eq!(e.kind(), Kind::Cancelled);
    drop(source);
    // A picture outlives its source.
    assert_eq!(index_of(&kept.picture.to_rgb().unwrap()), 0);
    for _ in 0..20 {
        let mut source = open_input(Input::File(path.clone())).unwrap();
        source.next_event().unwrap();
    }
}
