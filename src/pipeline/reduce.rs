//! A decoded picture to what is wanted of it: masked, at the model's size, and a JPEG for people.
//!
//! It happens where the picture lies: in this process, or in the decoder's, which gets
//! [`for_decoder`] for it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    error::{Error, Result},
    media::{
        Picture, Reduce, Reduced, Reduction, RgbImage, RgbRows as _, SharedImage, rgb_bytes, spare,
    },
    model::pixels::resize_bicubic_into,
    segment::mask::Masks,
};

use super::{prepare::Resize, snapshot};

/// What a source's pictures become.
pub(super) struct Reducer {
    resize: Resize,
    masks: Arc<Masks>,
    /// For the model alone.
    plain: Reduction,
    /// For people too, where asked for.
    shown: Reduction,
    /// Whether pictures with fewer pixels than the model's stay as they are.
    keeps_smaller: bool,
}

impl Reducer {
    /// `side` is the width and height of the model's picture, pixels.
    pub fn new(
        side: usize,
        resize: Resize,
        masks: Arc<Masks>,
        snapshots: Option<snapshot::SnapshotRules>,
    ) -> Result<Self> {
        let side = u32::try_from(side)
            .map_err(|_| Error::internal(format!("a picture side of {side} pixels")))?;
        let plain = Reduction {
            masks: masks.polygons().to_vec(),
            side,
            snapshot: None,
        };
        Ok(Reducer {
            resize,
            masks,
            shown: Reduction {
                snapshot: snapshots,
                ..plain.clone()
            },
            plain,
            keeps_smaller: false,
        })
    }

    /// Leaves pictures with fewer pixels than the model's as they are, but for the masks.
    pub fn keeping_smaller(mut self, keeps: bool) -> Self {
        self.keeps_smaller = keeps;
        self
    }

    /// Says that [`of`](Self::of) will be asked for the same soon.
    pub fn ahead(&self, picture: &dyn Picture, shown: bool) {
        picture.will_reduce(if shown { &self.shown } else { &self.plain });
    }

    /// The picture for the model and, if `shown` and asked for, for people.
    pub fn of(&self, picture: &dyn Picture, shown: bool) -> Result<Reduced<SharedImage>> {
        let how = if shown { &self.shown } else { &self.plain };
        let reduced = match picture.fetch(how).transpose()? {
            Some(reduced) => Reduced {
                pixels: SharedImage::square(how.side, reduced.pixels),
                upright: reduced.upright,
                jpeg: reduced.jpeg,
            },
            None => self.here(picture, how)?,
        };
        if !reduced.pixels.is_whole() {
            return Err(Error::internal(format!(
                "a picture was reduced to {} bytes, not {}",
                reduced.pixels.data.len(),
                how.bytes()
            )));
        }
        Ok(reduced)
    }

    fn here(&self, picture: &dyn Picture, how: &Reduction) -> Result<Reduced<SharedImage>> {
        let bytes = picture.as_rows().map(|rows| rgb_bytes(rows.size()));
        if self.keeps_smaller && bytes.is_some_and(|bytes| bytes < how.bytes()) {
            let rgb = upright(picture, &self.masks)?;
            return Ok(Reduced {
                upright: rgb.size(),
                jpeg: jpeg(&rgb, how)?,
                pixels: rgb.into(),
            });
        }
        let mut pixels = spare::take(how.bytes());
        // Nobody else has it yet; the resizer fills it.
        let place = Arc::get_mut(&mut pixels).unwrap_or_default();
        let reduced = reduce(picture, how, &self.masks, &self.resize, place)?;
        Ok(Reduced {
            pixels: SharedImage::square(how.side, pixels),
            upright: reduced.upright,
            jpeg: reduced.jpeg,
        })
    }

    /// A JPEG of a picture that was reduced before it was known that it would be shown.
    pub fn late_jpeg(&self, reduced: &Reduced<SharedImage>) -> Result<Option<Arc<[u8]>>> {
        let Some(rules) = &self.shown.snapshot else {
            return Ok(None);
        };
        let rgb = RgbImage {
            width: reduced.pixels.width,
            height: reduced.pixels.height,
            data: reduced.pixels.data.to_vec(),
        };
        snapshot::jpeg(&rgb, reduced.upright, rules)
    }
}

fn reduce(
    picture: &dyn Picture,
    how: &Reduction,
    masks: &Masks,
    resize: &Resize,
    pixels: &mut [u8],
) -> Result<Reduced<()>> {
    // For the model alone, the whole picture in RGB need never be.
    if let Some(rows) = picture.as_rows()
        && masks.is_empty()
        && how.snapshot.is_none()
    {
        resize(rows, how.side, pixels)?;
        return Ok(Reduced {
            pixels: (),
            upright: rows.size(),
            jpeg: None,
        });
    }
    let rgb = upright(picture, masks)?;
    resize(&rgb, how.side, pixels)?;
    Ok(Reduced {
        pixels: (),
        upright: rgb.size(),
        jpeg: jpeg(&rgb, how)?,
    })
}

/// The whole picture in RGB, masked.
fn upright(picture: &dyn Picture, masks: &Masks) -> Result<RgbImage> {
    let mut rgb = picture.to_rgb()?;
    if !masks.is_empty() {
        masks.apply(&mut rgb)?;
    }
    Ok(rgb)
}

/// For people, where asked for.
fn jpeg(rgb: &RgbImage, how: &Reduction) -> Result<Option<Arc<[u8]>>> {
    match &how.snapshot {
        Some(rules) => snapshot::jpeg(rgb, rgb.size(), rules),
        None => Ok(None),
    }
}

/// What a decoder process reduces its pictures with: the same, with the resizer of [`detect`](super::detect).
pub fn for_decoder() -> Reduce {
    let resize: Resize = Arc::new(resize_bicubic_into);
    // Which pixels they are is worked out once for a picture size, so they are kept.
    let last = Mutex::new(Arc::new(Masks::default()));
    Box::new(move |picture, how, pixels| {
        let masks = {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.polygons() != how.masks {
                *last = Arc::new(Masks::new(how.masks.clone())?);
            }
            Arc::clone(&last)
        };
        reduce(picture, how, &masks, &resize, pixels)
    })
}
