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

/// As [`OpenFile`], or something that remembers how files are opened.
pub trait Open:
    Fn(&Path, CancellationToken) -> Result<Box<dyn MediaSource>> + Clone + Send + 'static
{
}

impl<F> Open for F where
    F: Fn(&Path, CancellationToken) -> Result<Box<dyn MediaSource>> + Clone + Send + 'static
{
}

/// Calls `each` with every segment of the video, in order, and gives the video's count of frames.
/// Decoding runs ahead on its own thread.
pub fn each_segment(
    open: impl Open,
    path: &Path,
    options: &PrepareOptions,
    cancel: &CancellationToken,
    each: &mut dyn FnMut(PreparedSegment) -> Result<()>,
) -> Result<u64> {
    let token = cancel.child_token();
    let (file, source_token) = (path.to_owned(), token.clone());
    let mut preparation = Preparation::start(
        Box::new(move || open(&file, source_token)),
        options.clone(),
        token,
    )?;
    while let Some(item) = preparation.blocking_next() {
        match item? {
            // Of those that are ready none is begun any more.
            Prepared::Segment(_) if cancel.is_cancelled() => {
                return Err(Error::cancelled("the work was cancelled"));
            }
            Prepared::Segment(segment) => each(segment)?,
            Prepared::End(totals) => return Ok(totals.frames),
            // A set of samples without it would be another set.
            Prepared::Lost(gap) => return Err(Error::data_loss(gap.detail)),
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
    open: impl Open,
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
