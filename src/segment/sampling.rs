//! Which frames of a segment the model sees.

use crate::media::FrameStamp;

/// Times that differ by no more than this are equal: containers round PTS to 1 ms (Matroska) or
/// 11 µs (TS).
pub(super) const TOLERANCE_NS: i128 = 1_000_000;

/// Offsets of the `frames` sampled frames of a segment of `n` frames: `⌊(i + 0.5) · n / frames⌋`.
///
/// Ascending, below `n`; they repeat where `n < frames`. Empty for `n = 0`.
pub fn sample_indices(n: u64, frames: usize) -> Vec<u64> {
    if n == 0 {
        return Vec::new();
    }
    let parts = 2 * frames as u128;
    (0..frames as u128)
        .map(|i| {
            // Below n, so it fits.
            u64::try_from((2 * i + 1) * u128::from(n) / parts).unwrap_or(n - 1)
        })
        .collect()
}

/// Indices of the sampled frames where a whole video of `n` frames is one sample: the same rule.
/// Count the frames by decoding first; containers lie.
pub fn whole_video_indices(n: u64, frames: usize) -> Vec<u64> {
    sample_indices(n, frames)
}

/// Offsets into `stamps` (ascending PTS, not empty) of the last frames that are on screen at the
/// `samples` mid-points of `[start_ns, start_ns + length_ns)`; the first frame where none is yet.
pub(super) fn offsets_at_mid_points(
    stamps: &[FrameStamp],
    start_ns: i128,
    length_ns: i128,
    samples: usize,
) -> Vec<usize> {
    let parts = 2 * samples as i128;
    (0..samples as i128)
        .map(|i| {
            stamps
                .partition_point(|stamp| {
                    let at = i128::from(stamp.pts.as_nanos()) - start_ns - TOLERANCE_NS;
                    // pts ≤ start + (i + 0.5) · length / samples + tolerance, without rounding
                    at * parts <= (2 * i + 1) * length_ns
                })
                .saturating_sub(1)
        })
        .collect()
}
