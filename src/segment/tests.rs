use std::time::Duration;

use super::*;
use crate::{
    error::Kind,
    media::{FrameStamp, MediaTime},
};

fn stamp(index: u64, pts_ns: i64, duration_ns: u64) -> FrameStamp {
    FrameStamp {
        index,
        pts: MediaTime::from_nanos(pts_ns),
        duration: Duration::from_nanos(duration_ns),
    }
}

/// `n` frames at 30 fps from frame `first` on, PTS rounded to ticks of `tick_ns`.
fn at_30_fps(first: u64, n: u64, tick_ns: i64) -> Vec<FrameStamp> {
    (first..first + n)
        .map(|i| {
            let exact = i as f64 * 1e9 / 30.0;
            let pts = (exact / tick_ns as f64).round() as i64 * tick_ns;
            stamp(i, pts, 33_333_333)
        })
        .collect()
}

fn cut(rule: SegmentRule, stamps: &[FrameStamp]) -> Vec<SampledSegment<u64>> {
    let mut segmenter = Segmenter::new(rule, 16).unwrap();
    let mut out = Vec::new();
    for s in stamps {
        out.extend(segmenter.push(*s, s.index).unwrap());
    }
    out.extend(segmenter.finish());
    assert_eq!(segmenter.pending(), 0);
    out
}

#[test]
fn the_frames_of_the_method() {
    let expected: Vec<u64> = (0..16).map(|i| 3 * i + 1).collect();
    assert_eq!(sample_indices(48, 16), expected);
    assert_eq!(sample_indices(1, 16), vec![0; 16]);
    assert_eq!(sample_indices(0, 16), Vec::<u64>::new());
    let huge = sample_indices(u64::MAX, 16);
    assert_eq!(huge[0], u64::MAX / 32);
    assert!(huge.windows(2).all(|w| w[0] < w[1]));
}

#[test]
fn at_a_constant_30_fps_seconds_cut_and_sample_like_frames() {
    // ns: gstreamer's MP4; 11,111 ns: the 90 kHz clock of TS and RTP.
    for tick in [1, 11_111] {
        for n in 1..=150 {
            for first in [0, 1, 2, 1000] {
                let stamps = at_30_fps(first, n, tick);
                let by_frames = cut(SegmentRule::Frames(48), &stamps);
                let by_seconds = cut(SegmentRule::Seconds(1.6), &stamps);
                assert_eq!(by_frames, by_seconds, "n {n}, first {first}, tick {tick}");
            }
        }
    }
}

#[test]
fn pts_rounded_to_milliseconds_cut_alike_and_move_at_most_one_sample_of_a_short_segment() {
    for n in 1..=150 {
        for first in [0, 1, 2, 1000] {
            let stamps = at_30_fps(first, n, 1_000_000);
            let by_frames = cut(SegmentRule::Frames(48), &stamps);
            let by_seconds = cut(SegmentRule::Seconds(1.6), &stamps);
            assert_eq!(by_frames.len(), by_seconds.len());
            for (f, s) in by_frames.iter().zip(&by_seconds) {
                assert_eq!(f.frames, s.frames);
                if f.frames.len() == 48 {
                    assert_eq!(f, s, "n {n}, first {first}");
                } else {
                    // Mid-points of a segment of odd length pass a frame by 1/32 of its duration,
                    // 1.04 ms, which rounding to 1 ms cannot tell from 1 ms.
                    let moved: Vec<_> = f
                        .sample_offsets
                        .iter()
                        .zip(&s.sample_offsets)
                        .filter(|(a, b)| a != b)
                        .collect();
                    assert!(moved.len() <= 1, "n {n}, first {first}: {moved:?}");
                    assert!(moved.iter().all(|(a, b)| a.abs_diff(**b) == 1));
                }
            }
        }
    }
}

#[test]
fn every_frame_is_in_exactly_one_segment_and_segments_count_up() {
    for rule in [SegmentRule::Frames(7), SegmentRule::Seconds(0.25)] {
        let mut segmenter = Segmenter::new(rule, 16).unwrap();
        let mut segments = Vec::new();
        let mut pts = 0;
        for i in 0..500_u64 {
            if i == 100 || i == 101 || i == 333 {
                segments.extend(segmenter.gap());
                pts += 5_000_000_000;
            }
            // A rate that varies between 10 and 100 fps.
            pts += 10_000_000 + (i as i64 * 7_919_000_003) % 90_000_000;
            segments.extend(segmenter.push(stamp(i, pts, 10_000_000), i).unwrap());
        }
        segments.extend(segmenter.finish());
        let indices: Vec<u64> = segments
            .iter()
            .flat_map(|s| s.frames.iter().map(|f| f.index))
            .collect();
        assert_eq!(indices, (0..500).collect::<Vec<_>>());
        for (i, s) in segments.iter().enumerate() {
            assert_eq!(s.number, i as u64);
            let run = match s.frames[0].index {
                0..100 => 0,
                100 => 1,
                101..333 => 2,
                _ => 3,
            };
            assert_eq!(s.run, run);
            assert_eq!(s.samples.len(), 16);
            for (payload, &at) in s.samples.iter().zip(&s.sample_offsets) {
                assert_eq!(*payload, s.frames[at].index);
            }
            assert!(s.sample_offsets.windows(2).all(|w| w[0] <= w[1]));
        }
    }
}

#[test]
fn a_held_picture_leaves_empty_windows_without_segments_and_the_grid_stays() {
    let s = 1_000_000_000;
    let ms = 1_000_000;
    let stamps = [
        stamp(0, 0, 100),
        stamp(1, 100 * ms, 100),
        // Held for 10 s; 10.1 s lies in window 6, [9.6, 11.2).
        stamp(2, 10 * s + 100 * ms, 100),
        stamp(3, 11 * s, 100),
        // Window 7 starts at 11.2: 0.9 ms before it counts as its start, 1.1 ms does not.
        stamp(4, 11 * s + 198 * ms + 900_000, 100),
        stamp(5, 11 * s + 199 * ms + 100_000, 100),
        stamp(6, 11 * s + 300 * ms, 100),
    ];
    let segments = cut(SegmentRule::Seconds(1.6), &stamps);
    let indices: Vec<Vec<u64>> = segments
        .iter()
        .map(|s| s.frames.iter().map(|f| f.index).collect())
        .collect();
    assert_eq!(indices, [vec![0, 1], vec![2, 3, 4], vec![5, 6]]);
    assert!(segments.iter().all(|s| s.run == 0));
    // Window 6's mid-points before 10.1 s show its first frame, not one of an earlier window.
    assert_eq!(segments[1].samples[0], 2);
    // 9.6 + 13.5 * 0.1 = 10.95 is before frame 3, 11.05 after it, 11.15 before frame 4.
    assert_eq!(segments[1].samples[13..], [2, 3, 3]);
}

#[test]
fn a_segment_before_a_gap_samples_over_the_time_it_has() {
    let mut segmenter = Segmenter::new(SegmentRule::Seconds(1.6), 16).unwrap();
    for s in at_30_fps(0, 20, 1) {
        assert!(segmenter.push(s, s.index).unwrap().is_none());
    }
    let short = segmenter.gap().unwrap();
    assert_eq!(short.samples, sample_indices(20, 16));
    assert!(segmenter.gap().is_none());
    // The new run's grid starts at its own first frame, whatever its PTS.
    for s in at_30_fps(7, 48, 1) {
        assert!(segmenter.push(s, s.index).unwrap().is_none());
    }
    let full = segmenter.finish().unwrap();
    assert_eq!((full.number, full.run), (1, 2));
    assert_eq!(full.samples[0], 8);
    assert!(segmenter.finish().is_none());
}

#[test]
fn payloads_can_be_replaced_while_a_segment_is_open() {
    let mut segmenter = Segmenter::new(SegmentRule::Frames(4), 2).unwrap();
    for i in 0..3 {
        segmenter.push(stamp(i, 0, 0), i as i64).unwrap();
    }
    assert_eq!(segmenter.pending(), 3);
    segmenter.map_pending(|p| Ok(-p)).unwrap();
    let full = segmenter.push(stamp(3, 0, 0), 3).unwrap().unwrap();
    assert_eq!(full.samples, [-1, 3]);
    assert_eq!(segmenter.pending(), 0);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    for rule in [
        SegmentRule::Frames(0),
        SegmentRule::Frames(SEGMENT_MAX_FRAMES as u32 + 1),
        SegmentRule::Seconds(0.0),
        SegmentRule::Seconds(-1.0),
        SegmentRule::Seconds(f64::NAN),
        SegmentRule::Seconds(f64::INFINITY),
    ] {
        let error = Segmenter::<()>::new(rule, 16).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        assert!(error.field().is_some_and(|f| f.starts_with("segment.")));
    }
    assert!(Segmenter::<()>::new(SegmentRule::Frames(48), 0).is_err());

    let mut segmenter = Segmenter::new(SegmentRule::Seconds(1.6), 16).unwrap();
    for i in 0..SEGMENT_MAX_FRAMES as u64 {
        segmenter.push(stamp(i, i as i64, 1), ()).unwrap();
    }
    let error = segmenter.push(stamp(5000, 5000, 1), ()).unwrap_err();
    assert_eq!(error.kind(), Kind::ResourceExhausted);

    let mut segmenter = Segmenter::new(SegmentRule::Seconds(1.6), 16).unwrap();
    segmenter.push(stamp(0, 50, 1), ()).unwrap();
    let error = segmenter.push(stamp(1, 49, 1), ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
}
