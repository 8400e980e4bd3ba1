//! The offline path from a video file to clips: the same cutting and the same pixels as detection,
//! one segment after another, on the caller's thread.

use std::{collections::HashMap, path::Path, sync::Arc};

use tokio_util::sync::CancellationToken;

use crate::{
    engine::probe::Clip,
    error::{Error, Result},
    limits::RAW_PICTURES_MAX_BYTES,
    media::{FrameStamp, MediaEvent, MediaSource, Picture, RgbImage},
    segment::{SampledSegment, SegmentRule, Segmenter, sample_indices},
};

/// Opens a video file as a source of frames.
pub type Open<'a> = dyn Fn(&Path, CancellationToken) -> Result<Box<dyn MediaSource>> + 'a;

/// How a video becomes clips.
pub struct Cutting<'a> {
    /// How it is cut.
    pub rule: SegmentRule,
    /// Frames sampled per segment, or of the whole video.
    pub frames_per_segment: usize,
    /// A picture to the model's size: `side * side * 3` bytes.
    pub resize: &'a (dyn Fn(&RgbImage) -> Result<Vec<u8>> + Sync),
}

/// A segment without its pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct OfflineSegment {
    /// Increments at each gap.
    pub run: u64,
    /// Every decoded frame, never empty.
    pub frames: Vec<FrameStamp>,
}

/// A picture that waits for its segment.
#[derive(Clone)]
enum Waiting {
    Raw(Arc<dyn Picture>),
    Resized(Arc<[u8]>),
}

impl Waiting {
    fn resized(&self, cutting: &Cutting) -> Result<Arc<[u8]>> {
        match self {
            Waiting::Raw(picture) => Ok((cutting.resize)(&picture.to_rgb()?)?.into()),
            Waiting::Resized(pixels) => Ok(pixels.clone()),
        }
    }
}

/// Calls `each` with every segment of the video, in order, and its clip.
pub fn each_segment(
    open: &Open,
    path: &Path,
    cutting: &Cutting,
    cancel: &CancellationToken,
    each: &mut dyn FnMut(OfflineSegment, Clip) -> Result<()>,
) -> Result<()> {
    let mut source = open(path, cancel.clone())?;
    let mut segmenter = Segmenter::new(cutting.rule, cutting.frames_per_segment)?;
    let mut raw_bytes = 0;
    let mut frames = 0u64;
    while let Some(event) = source.next_event()? {
        let complete = match event {
            MediaEvent::Opened(_) => None,
            MediaEvent::Gap(_) => segmenter.gap(),
            MediaEvent::Frame(frame) => {
                frames += 1;
                raw_bytes += frame.picture.size_bytes();
                let complete = segmenter.push(frame.stamp, Waiting::Raw(frame.picture))?;
                if raw_bytes > RAW_PICTURES_MAX_BYTES {
                    segmenter.map_pending(|w| Ok(Waiting::Resized(w.resized(cutting)?)))?;
                    raw_bytes = 0;
                }
                complete
            }
        };
        if let Some(segment) = complete {
            raw_bytes = 0;
            hand_over(segment, cutting, each)?;
        }
    }
    if let Some(segment) = segmenter.finish() {
        hand_over(segment, cutting, each)?;
    }
    if frames == 0 {
        return Err(Error::invalid("the video has no frames"));
    }
    Ok(())
}

fn hand_over(
    segment: SampledSegment<Waiting>,
    cutting: &Cutting,
    each: &mut dyn FnMut(OfflineSegment, Clip) -> Result<()>,
) -> Result<()> {
    let mut seen: HashMap<usize, Arc<[u8]>> = HashMap::new();
    let mut pictures = Vec::with_capacity(segment.samples.len());
    for (offset, waiting) in segment.sample_offsets.iter().zip(&segment.samples) {
        let picture = match seen.get(offset) {
            Some(picture) => picture.clone(),
            None => waiting.resized(cutting)?,
        };
        seen.insert(*offset, picture.clone());
        pictures.push(picture);
    }
    each(OfflineSegment { run: segment.run, frames: segment.frames }, Clip { frames: pictures })
}

/// The clip of a whole video and its frame count: counted by decoding once, sampled by decoding
/// again.
pub fn whole_video(
    open: &Open,
    path: &Path,
    cutting: &Cutting,
    cancel: &CancellationToken,
) -> Result<(Clip, u64)> {
    let frames = count(open, path, cancel)?;
    let wanted = sample_indices(frames, cutting.frames_per_segment);
    let mut pictures = Vec::with_capacity(wanted.len());
    let mut source = open(path, cancel.clone())?;
    while pictures.len() < wanted.len() {
        let Some(event) = source.next_event()? else {
            return Err(Error::data_loss(format!(
                "the second decoding of the video gave fewer than its first {frames} frames"
            )));
        };
        if let MediaEvent::Frame(frame) = event {
            let mut resized: Option<Arc<[u8]>> = None;
            while wanted.get(pictures.len()) == Some(&frame.stamp.index) {
                let picture = match resized.take() {
                    Some(picture) => picture,
                    None => (cutting.resize)(&frame.picture.to_rgb()?)?.into(),
                };
                pictures.push(picture.clone());
                resized = Some(picture);
            }
        }
    }
    Ok((Clip { frames: pictures }, frames))
}

/// Decodes the whole video and counts.
fn count(open: &Open, path: &Path, cancel: &CancellationToken) -> Result<u64> {
    let mut source = open(path, cancel.clone())?;
    let mut frames = 0;
    while let Some(event) = source.next_event()? {
        if matches!(event, MediaEvent::Frame(_)) {
            frames += 1;
        }
    }
    if frames == 0 {
        return Err(Error::invalid("the video has no frames"));
    }
    Ok(frames)
}
