//! How far an extraction is, and how much there is of it.

use super::{
    progress::{Meter, Pace},
    record::Snapshot,
};
use crate::{library::Library, pipeline::labelled::LabelledVideo, segment::SegmentRule};

/// How many samples there are, as far as that is known.
pub(super) struct Counts {
    clips: Vec<ClipCount>,
    done: u64,
    pace: Pace,
}

struct ClipCount {
    bytes: u64,
    /// Samples, where they are known.
    known: Option<u64>,
    /// Samples so far.
    done: u64,
}

impl Counts {
    pub fn new(
        library: &Library,
        rule: SegmentRule,
        clips: &[Snapshot],
        videos: &[LabelledVideo],
    ) -> Counts {
        let mut counts = Vec::with_capacity(clips.len());
        for (clip, video) in clips.iter().zip(videos) {
            let frames = library.get(&clip.id).map_or(0, |(clip, _)| clip.frames);
            let known = match rule {
                _ if !video.intervals_known => Some(1),
                SegmentRule::Frames(n) if frames > 0 => Some(frames.div_ceil(u64::from(n.max(1)))),
                _ => None,
            };
            counts.push(ClipCount {
                bytes: clip.size_bytes,
                known,
                done: 0,
            });
        }
        Counts {
            clips: counts,
            done: 0,
            pace: Pace::begin(),
        }
    }

    /// Samples of all clips; those of clips that were not counted yet by their bytes, at the rate of
    /// those that were. 0: not known.
    fn total(&self) -> u64 {
        let (mut samples, mut bytes, mut unknown) = (0, 0, 0);
        for clip in &self.clips {
            match clip.known {
                Some(known) => {
                    samples += known.max(clip.done);
                    bytes += clip.bytes;
                }
                None => unknown += clip.bytes,
            }
        }
        if unknown == 0 {
            return samples.max(self.done);
        }
        if bytes == 0 {
            return 0;
        }
        let more = samples as f64 * unknown as f64 / bytes as f64;
        (samples + more.ceil() as u64).max(self.done)
    }

    pub fn tell(&self, meter: &Meter) {
        let total = self.total();
        let remaining = self.pace.remaining(total.saturating_sub(self.done));
        meter.tell("extract", self.done, total, remaining.filter(|_| total > 0));
    }

    fn one(&mut self, number: usize) {
        self.done += 1;
        if let Some(clip) = self.clips.get_mut(number) {
            clip.done += 1;
        }
    }

    pub fn reused(&mut self, number: usize, meter: &Meter) {
        self.one(number);
        meter.reused();
        self.tell(meter);
    }

    pub fn passed(&mut self, number: usize, meter: &Meter) {
        self.one(number);
        self.pace.step();
        self.tell(meter);
    }

    pub fn clip_done(&mut self, number: usize) {
        if let Some(clip) = self.clips.get_mut(number) {
            clip.known = Some(clip.done);
        }
    }
}
