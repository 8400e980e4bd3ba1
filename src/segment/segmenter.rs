//! Cuts a stream of frames into segments.

use crate::{
    error::{Error, Result},
    limits::{FRAMES_PER_SEGMENT_MAX, SEGMENT_MAX_FRAMES},
    media::FrameStamp,
};

use super::{
    SegmentRule,
    sampling::{TOLERANCE_NS, offsets_at_mid_points, sample_indices},
};

/// A segment with the payloads of its sampled frames.
#[derive(Clone, Debug, PartialEq)]
pub struct SampledSegment<P> {
    /// Zero-based over the whole detection.
    pub number: u64,
    /// Increments at each gap: smoothing never crosses it.
    pub run: u64,
    /// Every decoded frame of the segment, never empty.
    pub frames: Vec<FrameStamp>,
    /// `frames_per_segment` payloads, in media order; the same frame may come repeatedly.
    pub samples: Vec<P>,
    /// For each sample, the offset of its frame in `frames`.
    pub sample_offsets: Vec<usize>,
}

/// Cuts frames into segments and keeps the payloads of the segment that is still open.
///
/// Under the `frames` rule a segment is complete with its last frame. Under the `seconds` rule time
/// is a grid of windows that starts at the first frame of each run; a frame belongs to the window
/// that its PTS falls in (a PTS within 1 ms before a window counts as the window's), and a
/// segment is complete when a frame of a later window arrives.
///
/// A window in which no frame starts (a picture held for long, as in slide shows or variable frame
/// rate recordings) yields no segment: there is nothing decoded in it to carry a score. The grid
/// stays where it is: windows are whole multiples of the length after the run's first frame, so
/// that a dropped frame cannot move the cuts of everything behind it. A hold is not a gap: the
/// segments on either side of it are neighbours of one run. Where a hold is so long that it should
/// be one, the source says so.
///
/// A last, shorter segment (at the end or before a gap) samples over the time it has: up to the
/// last frame's PTS + duration.
#[derive(Debug)]
pub struct Segmenter<P> {
    rule: Rule,
    samples: usize,
    /// Of the segment that is open now.
    number: u64,
    run: u64,
    /// PTS of the first frame of the run, ns.
    anchor_ns: Option<i64>,
    /// Window of the open segment, counted from the anchor (`seconds` rule).
    window: i128,
    frames: Vec<FrameStamp>,
    /// One per frame.
    payloads: Vec<P>,
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    Frames(usize),
    WindowNs(i128),
}

impl<P: Clone> Segmenter<P> {
    /// A segmenter that samples `frames_per_segment` frames of each segment.
    ///
    /// `InvalidArgument` for a rule or a number of samples outside the limits.
    pub fn new(rule: SegmentRule, frames_per_segment: usize) -> Result<Self> {
        rule.validate()?;
        if !(1..=FRAMES_PER_SEGMENT_MAX).contains(&frames_per_segment) {
            return Err(Error::invalid(format!(
                "{frames_per_segment} sampled frames per segment: give 1 to \
                 {FRAMES_PER_SEGMENT_MAX} (16 is the method's)"
            ))
            .with_field("frames_per_segment"));
        }
        Ok(Segmenter {
            rule: match rule {
                SegmentRule::Frames(n) => Rule::Frames(n as usize),
                // Validated: positive and far below 2^63 ns.
                SegmentRule::Seconds(s) => Rule::WindowNs((s * 1e9).round() as i128),
            },
            samples: frames_per_segment,
            number: 0,
            run: 0,
            anchor_ns: None,
            window: 0,
            frames: Vec::new(),
            payloads: Vec::new(),
        })
    }

    /// Takes the next frame; gives the segment that is complete with it (`frames` rule) or before
    /// it (`seconds` rule).
    ///
    /// `ResourceExhausted` where a segment would hold more than [`SEGMENT_MAX_FRAMES`] frames,
    /// `Internal` where PTS runs backwards within a run under the `seconds` rule.
    pub fn push(&mut self, stamp: FrameStamp, payload: P) -> Result<Option<SampledSegment<P>>> {
        match self.rule {
            Rule::Frames(n) => {
                self.keep(stamp, payload)?;
                Ok(if self.frames.len() >= n {
                    self.close(None)
                } else {
                    None
                })
            }
            Rule::WindowNs(length) => {
                if let Some(last) = self.frames.last()
                    && stamp.pts < last.pts
                {
                    return Err(Error::internal(format!(
                        "frame {} at {} comes after frame {} at {}: a source must yield frames in \
                         the order of their PTS",
                        stamp.index, stamp.pts, last.index, last.pts
                    )));
                }
                let pts = stamp.pts.as_nanos();
                let anchor = *self.anchor_ns.get_or_insert(pts);
                let since = i128::from(pts) - i128::from(anchor);
                let window = (since + TOLERANCE_NS).div_euclid(length);
                let complete = if window > self.window {
                    self.close(Some(length))
                } else {
                    None
                };
                self.window = self.window.max(window);
                self.keep(stamp, payload)?;
                Ok(complete)
            }
        }
    }

    /// Frames are missing here: closes the open segment; the next frame starts a new run.
    pub fn gap(&mut self) -> Option<SampledSegment<P>> {
        let last = self.finish();
        self.run = self.run.saturating_add(1);
        self.anchor_ns = None;
        self.window = 0;
        last
    }

    /// The media ended: the last, usually shorter segment.
    pub fn finish(&mut self) -> Option<SampledSegment<P>> {
        match self.rule {
            Rule::Frames(_) => self.close(None),
            Rule::WindowNs(length) => {
                let end = i128::from(self.frames.last()?.end().as_nanos());
                let own = (end - self.window_start_ns()).clamp(0, length);
                self.close(Some(own))
            }
        }
    }

    /// Replaces every payload kept so far, e.g. by a smaller one. On an error those already
    /// replaced stay replaced.
    pub fn map_pending(&mut self, mut f: impl FnMut(&P) -> Result<P>) -> Result<()> {
        for payload in &mut self.payloads {
            *payload = f(payload)?;
        }
        Ok(())
    }

    /// Payloads kept so far.
    pub fn payloads(&self) -> &[P] {
        &self.payloads
    }

    /// Frames, and payloads, of the open segment.
    pub fn pending(&self) -> usize {
        self.payloads.len()
    }

    fn keep(&mut self, stamp: FrameStamp, payload: P) -> Result<()> {
        if self.frames.len() >= SEGMENT_MAX_FRAMES {
            return Err(Error::exhausted(format!(
                "segment {} holds {SEGMENT_MAX_FRAMES} frames at {} and is not complete: the \
                 source has more frames per second than this service takes",
                self.number, stamp.pts
            ))
            .for_good());
        }
        self.frames.push(stamp);
        self.payloads.push(payload);
        Ok(())
    }

    fn window_start_ns(&self) -> i128 {
        match self.rule {
            Rule::Frames(_) => 0,
            Rule::WindowNs(length) => {
                i128::from(self.anchor_ns.unwrap_or_default()) + self.window * length
            }
        }
    }

    /// Ends the open segment, if it has frames; `length_ns` is the time to sample over under the
    /// `seconds` rule.
    fn close(&mut self, length_ns: Option<i128>) -> Option<SampledSegment<P>> {
        if self.frames.is_empty() {
            return None;
        }
        let start = self.window_start_ns();
        let frames = std::mem::take(&mut self.frames);
        let payloads = std::mem::take(&mut self.payloads);
        let sample_offsets = match length_ns {
            Some(length) => offsets_at_mid_points(&frames, start, length, self.samples),
            None => sample_indices(frames.len() as u64, self.samples)
                .into_iter()
                // At most SEGMENT_MAX_FRAMES.
                .map(|i| i as usize)
                .collect(),
        };
        let samples = sample_offsets
            .iter()
            .filter_map(|&at| payloads.get(at).cloned())
            .collect();
        let number = self.number;
        self.number = number.saturating_add(1);
        Some(SampledSegment {
            number,
            run: self.run,
            frames,
            samples,
            sample_offsets,
        })
    }
}
