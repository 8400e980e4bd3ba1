//! The offline path from a video file to clips: detection's own preparation, one segment after
//! another, for extraction and calibration.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use crate::{
    engine::probe::Clip,
    error::{Error, Result},
    media::{MediaEvent, MediaSource},
    pipeline::prepare::{self, Preparation, PrepareOptions, Prepared, PreparedSegment},
};

/// Opens a video file as a source of frames that ends when the token fires.
pub type OpenFile = fn(&Path, CancellationToken) -> Result<Box<dyn MediaSource>>;

/// Calls `each` with every segment of the video, in order. Decoding runs ahead on its own thread.
pub fn each_segment(
    open: OpenFile,
    path: &Path,
    options: &PrepareOptions,
    cancel: &CancellationToken,
    each: &mut dyn FnMut(PreparedSegment) -> Result<()>,
) -> Result<()> {
    let token = cancel.child_token();
    let (file, source_token) = (path.to_owned(), token.clone());
    let mut preparation = Preparation::start(
        Box::new(move || open(&file, source_token)),
        options.clone(),
        token,
    )?;
    while let Some(item) = preparation.blocking_next() {
        match item? {
            Prepared::Segment(segment) => each(segment)?,
            Prepared::End(_) => return Ok(()),
            Prepared::Opened(_) | Prepared::Gap(_) | Prepared::Source(_) => {}
        }
    }
    Err(Error::internal(
        "the decoder ended without an end or an error",
    ))
}

/// The clip of a whole video and its frame count: counted by decoding once, sampled by decoding
/// again.
pub fn whole_video(
    open: OpenFile,
    path: &Path,
    options: &PrepareOptions,
    cancel: &CancellationToken,
) -> Result<(Clip, u64)> {
    let mut frames = 0;
    let mut source = open(path, cancel.child_token())?;
    while let Some(event) = source.next_event()? {
        if matches!(event, MediaEvent::Frame(_)) {
            frames += 1;
        }
    }
    drop(source);
    let mut source = open(path, cancel.child_token())?;
    let (clip, _) = prepare::whole_video(
        source.as_mut(),
        frames,
        options.frames_per_segment,
        options.image_side,
        &options.resize,
    )?;
    Ok((clip, frames))
}
