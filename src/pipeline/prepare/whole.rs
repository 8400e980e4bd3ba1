//! A whole video as one sample.

use std::sync::Arc;

use super::Resize;
use crate::{
    engine::probe::Clip,
    error::{Error, Result},
    media::{FrameStamp, MediaEvent, MediaSource},
    pipeline::reduce::Reducer,
    segment::whole_video_indices,
};

/// A whole video as one sample: the clip and the stamps of its sampled frames, one a sample.
/// `frames` is the video's number of frames, counted by decoding it before.
///
/// Fails with `InvalidArgument` where the video has no frames or fewer than counted, and with the
/// source's errors.
pub fn whole_video(
    source: &mut dyn MediaSource,
    frames: u64,
    frames_per_sample: usize,
    image_side: usize,
    resize: &Resize,
) -> Result<(Clip, Vec<FrameStamp>)> {
    let indices = whole_video_indices(frames, frames_per_sample);
    let mut wanted = indices.iter().copied().peekable();
    if wanted.peek().is_none() {
        return Err(Error::invalid("a video of 0 frames cannot be a sample"));
    }
    let reducer = Reducer::new(image_side, resize.clone(), Arc::default(), None)?;
    let (mut clip, mut stamps) = (Vec::with_capacity(indices.len()), Vec::new());
    let mut decoded = 0u64;
    while let Some(&index) = wanted.peek() {
        let frame = match source.next_event()? {
            Some(MediaEvent::Frame(frame)) => frame,
            Some(MediaEvent::Opened(_) | MediaEvent::Gap(_) | MediaEvent::Source(_)) => continue,
            None => {
                return Err(Error::invalid(format!(
                    "the video ended after {decoded} frames, and {frames} were counted: it changed, or it decodes differently each time"
                )));
            }
        };
        decoded += 1;
        if frame.stamp.index < index {
            continue;
        }
        let pixels = reducer.of(frame.picture.as_ref(), false)?.pixels;
        while wanted
            .next_if(|wanted| *wanted <= frame.stamp.index)
            .is_some()
        {
            clip.push(pixels.clone());
            stamps.push(frame.stamp);
        }
    }
    Ok((Clip { frames: clip }, stamps))
}
