//! Intervals of frames, first and end exclusive: where a video is anomalous.

/// Sorted, without overlaps and without empty ones; touching intervals become one.
pub fn merge(mut intervals: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    intervals.retain(|(first, end)| first < end);
    intervals.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::with_capacity(intervals.len());
    for (first, end) in intervals {
        match merged.last_mut() {
            Some(last) if first <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((first, end)),
        }
    }
    merged
}

/// Frames of `[first, end)` that lie in `merged` (as [`merge`] gives it).
pub fn overlap(merged: &[(u64, u64)], first: u64, end: u64) -> u64 {
    let from = merged.partition_point(|(_, interval_end)| *interval_end <= first);
    merged[from..]
        .iter()
        .take_while(|(interval_first, _)| *interval_first < end)
        .map(|(a, b)| (*b).min(end).saturating_sub((*a).max(first)))
        .sum()
}

/// Whether the segment of the frames `[first, end)` counts as anomalous where it is a labelled
/// sample: at least half of it is.
pub fn is_anomalous(merged: &[(u64, u64)], first: u64, end: u64) -> bool {
    let frames = end.saturating_sub(first);
    frames > 0 && overlap(merged, first, end) >= frames.div_ceil(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_and_counts_like_a_frame_by_frame_mask() {
        let cases: [&[(u64, u64)]; 5] = [
            &[],
            &[(3, 7)],
            &[(5, 9), (1, 3), (8, 12), (12, 13), (20, 20), (40, 30)],
            &[(0, 100), (10, 20)],
            &[(0, 1), (2, 3), (4, 5), (30, 33)],
        ];
        for intervals in cases {
            let mask: Vec<bool> = (0..120)
                .map(|f| intervals.iter().any(|(a, b)| (*a..*b).contains(&f)))
                .collect();
            let merged = merge(intervals.to_vec());
            assert!(merged.windows(2).all(|w| w[0].1 < w[1].0));
            for first in 0..50_u64 {
                for end in first..60 {
                    let count = mask[first as usize..end as usize]
                        .iter()
                        .filter(|m| **m)
                        .count() as u64;
                    assert_eq!(overlap(&merged, first, end), count);
                    let anomalous = end > first && 2 * count >= end - first;
                    assert_eq!(is_anomalous(&merged, first, end), anomalous);
                }
            }
        }
    }
}
