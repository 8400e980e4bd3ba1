#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

use std::time::Duration;

use super::*;
use crate::error::Kind;

const SIDE: usize = 448;
const SEGMENT: Duration = Duration::from_millis(1600);

fn grey(level: u8) -> SharedImage {
    square(vec![level; SIDE * SIDE * 3])
}

fn square(data: Vec<u8>) -> SharedImage {
    SharedImage::square(SIDE as u32, data)
}

/// Grey with a square of another grey in it.
fn with_square(level: u8, inner: u8, at: usize, side: usize) -> SharedImage {
    let mut data = vec![level; SIDE * SIDE * 3];
    for row in at..at + side {
        let start = (row * SIDE + at) * 3;
        data[start..start + side * 3].fill(inner);
    }
    square(data)
}

/// Segment after segment, each 1.6 s, in one run.
struct Stream {
    gate: MotionGate,
    number: u64,
    run: u64,
}

impl Stream {
    fn new(threshold: f64) -> Stream {
        Stream {
            gate: MotionGate::new(threshold, SIDE).unwrap(),
            number: 0,
            run: 0,
        }
    }

    fn push(&mut self, frames: &[SharedImage]) -> Option<u64> {
        let start = MediaTime::ZERO.saturating_add(SEGMENT * self.number as u32);
        let stamp = FrameStamp {
            index: self.number,
            pts: start,
            duration: SEGMENT,
        };
        let repeats = self.gate.repeats(self.number, self.run, &[stamp], frames);
        self.number += 1;
        repeats.unwrap()
    }

    fn still(&mut self, level: u8) -> Option<u64> {
        self.push(&[grey(level), grey(level)])
    }
}

#[test]
fn a_still_scene_is_scored_once_and_again_after_30_seconds() {
    let mut stream = Stream::new(0.02);
    let scored: Vec<u64> = (0..60).filter(|_| stream.still(90).is_none()).collect();
    // 18 segments of 1.6 s are 28.8 s, 19 would be 30.4.
    assert_eq!(scored, [0, 19, 38, 57]);
    assert_eq!(stream.still(90), Some(57));
}

#[test]
fn a_difference_at_the_threshold_counts_and_one_below_it_does_not() {
    // 5 of 255 levels are 0.0196; 6 are 0.0235.
    let mut stream = Stream::new(0.02);
    assert_eq!(stream.still(90), None);
    assert_eq!(stream.still(95), Some(0));
    assert_eq!(stream.still(96), None);
    assert_eq!(stream.still(91), Some(2));
    assert_eq!(stream.still(90), None);
    let mut exact = Stream::new(255.0 / 255.0);
    assert_eq!(exact.still(0), None);
    assert_eq!(exact.still(255), None, "the whole is not less than 1");
    assert_eq!(exact.still(1), Some(1));
}

#[test]
fn what_moves_within_a_segment_is_scored() {
    let mut stream = Stream::new(0.02);
    assert_eq!(stream.push(&[grey(50), grey(50), grey(50)]), None);
    assert_eq!(stream.push(&[grey(50), grey(50), grey(50)]), Some(0));
    let square = with_square(50, 200, 200, 56);
    assert_eq!(stream.push(&[grey(50), square.clone(), grey(50)]), None);
    // It is gone, and after the last scored segment that is a change.
    assert_eq!(stream.push(&[grey(50), grey(50), grey(50)]), None);
    assert_eq!(stream.push(&[grey(50), grey(50), grey(50)]), Some(3));
    // It came between two segments, and stays.
    let stays = [square.clone(), square.clone(), square];
    assert_eq!(stream.push(&stays), None);
    assert_eq!(stream.push(&stays), Some(5));
}

#[test]
fn something_small_is_not_lost_in_the_mean() {
    // A square of 24 × 24 pixels is 9 of 3,136 blocks: 9/49 of the worst ones.
    let square = with_square(50, 200, 208, 24);
    let expected = 9.0 / 49.0 * 150.0 / 255.0;
    for (threshold, repeats) in [(expected * 0.99, None), (expected * 1.01, Some(0))] {
        let mut stream = Stream::new(threshold);
        assert_eq!(stream.push(&[grey(50)]), None);
        assert_eq!(stream.push(std::slice::from_ref(&square)), repeats);
    }
}

#[test]
fn a_slowly_brightening_scene_adds_up_until_it_counts() {
    // One level a segment, far below the threshold of 5.1 levels: but every sixth is scored.
    let mut stream = Stream::new(0.02);
    let scored: Vec<u8> = (0..=24u8)
        .filter(|level| stream.still(100 + level).is_none())
        .collect();
    assert_eq!(scored, [0, 6, 12, 18, 24]);
}

#[test]
fn noise_of_a_camera_is_nothing() {
    let mut state = 1u32;
    let mut noisy = || {
        let levels = (0..SIDE * SIDE * 3).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            120 + (state >> 24) as u8 % 17 - 8
        });
        square(levels.collect())
    };
    let mut stream = Stream::new(0.02);
    assert_eq!(stream.push(&[noisy(), noisy()]), None);
    for _ in 0..5 {
        assert_eq!(stream.push(&[noisy(), noisy()]), Some(0));
    }
}

#[test]
fn a_new_run_is_scored() {
    let mut stream = Stream::new(0.02);
    assert_eq!(stream.still(90), None);
    assert_eq!(stream.still(90), Some(0));
    stream.run += 1;
    assert_eq!(stream.still(90), None);
    assert_eq!(stream.still(90), Some(2));
    stream.gate.forget();
    assert_eq!(stream.still(90), None);
    assert_eq!(stream.still(90), Some(4));
    // So is a segment of another number of samples: there is nothing to compare it with.
    assert_eq!(stream.push(&[grey(90)]), None);
}

#[test]
fn luma_is_weighed_and_blocks_at_the_edge_count_their_own_pixels() {
    for side in [1, 2, 8, 57, 100, 113] {
        let blocks = Blocks::new(side);
        let count = side.div_ceil(blocks.block);
        assert!(count <= MOTION_BLOCKS_PER_SIDE);
        let frame: Vec<u8> = [255, 0, 0].repeat(side * side);
        let grid = blocks.grid(&frame).unwrap();
        assert_eq!(grid.len(), count * count);
        assert!(grid.iter().all(|v| u64::from(*v) == 77 * FULL / 256));
        let white = blocks.grid(&vec![255; side * side * 3]).unwrap();
        assert!(white.iter().all(|v| u64::from(*v) == FULL));
        assert_eq!(difference(&white, &white), 0.0);
        assert_eq!(
            difference(&white, &blocks.grid(&vec![0; side * side * 3]).unwrap()),
            1.0
        );
    }
    assert_eq!(Blocks::new(448).block, 8);
}

#[test]
fn wrong_thresholds_and_frames_are_refused() {
    for threshold in [0.0, -0.1, 1.1, f64::NAN] {
        let error = MotionGate::new(threshold, SIDE).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        assert_eq!(error.field(), Some("motion_gate.threshold"));
    }
    let mut gate = MotionGate::new(0.02, SIDE).unwrap();
    let short = SharedImage::square(1, vec![0; 3]);
    assert!(gate.repeats(0, 0, &[], &[short]).is_err());
}
