//! One frame of a segment that is still open, and what becomes of it.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    media::{Picture, RgbImage},
};

use super::{
    prepare::{PrepareOptions, Resize},
    snapshot,
};

/// A frame of the open segment.
#[derive(Clone)]
pub(super) enum Sample {
    /// As decoded.
    Raw(Arc<dyn Picture>),
    /// Already masked and at the model's size.
    Reduced {
        pixels: Arc<[u8]>,
        /// Size of the upright frame, pixels.
        upright: (u32, u32),
    },
}

/// A sampled frame.
pub(super) struct Prepared {
    /// For the model.
    pub pixels: Arc<[u8]>,
    /// For people, where asked for and where it could be made small enough.
    pub jpeg: Option<Arc<[u8]>>,
}

impl Sample {
    /// The frame at the model's size, which takes less memory.
    pub fn reduced(&self, options: &PrepareOptions) -> Result<Sample> {
        let Sample::Raw(picture) = self else {
            return Ok(self.clone());
        };
        let rgb = masked(picture.as_ref(), options)?;
        Ok(Sample::Reduced {
            pixels: resized(&rgb, &options.resize, options.image_side)?,
            upright: (rgb.width, rgb.height),
        })
    }

    /// The frame for the model and, if `snapshot` and asked for, for people. A frame that had to be
    /// reduced early makes a snapshot no larger than the model's picture.
    pub fn prepare(&self, options: &PrepareOptions, snapshot: bool) -> Result<Prepared> {
        let rules = options.pictures.snapshots.filter(|_| snapshot);
        match self {
            Sample::Raw(picture) => {
                let rgb = masked(picture.as_ref(), options)?;
                Ok(Prepared {
                    pixels: resized(&rgb, &options.resize, options.image_side)?,
                    jpeg: match rules {
                        Some(rules) => snapshot::jpeg(&rgb, (rgb.width, rgb.height), &rules)?,
                        None => None,
                    },
                })
            }
            Sample::Reduced { pixels, upright } => Ok(Prepared {
                pixels: pixels.clone(),
                jpeg: match rules {
                    Some(rules) => {
                        let side = model_side(options.image_side)?;
                        let square = RgbImage {
                            width: side,
                            height: side,
                            data: pixels.to_vec(),
                        };
                        snapshot::jpeg(&square, *upright, &rules)?
                    }
                    None => None,
                },
            }),
        }
    }
}

fn masked(picture: &dyn Picture, options: &PrepareOptions) -> Result<RgbImage> {
    let mut rgb = picture.to_rgb()?;
    let masks = &options.pictures.masks;
    if !masks.is_empty() {
        masks.apply(&mut rgb)?;
    }
    Ok(rgb)
}

/// A picture at the model's size.
pub(super) fn resized(rgb: &RgbImage, resize: &Resize, side: usize) -> Result<Arc<[u8]>> {
    let pixels = resize(rgb, model_side(side)?)?;
    let expected = side * side * 3;
    if pixels.len() != expected {
        return Err(Error::internal(format!(
            "the resizer made {} bytes of a picture, not {expected}",
            pixels.len()
        )));
    }
    Ok(pixels.into())
}

fn model_side(side: usize) -> Result<u32> {
    u32::try_from(side).map_err(|_| Error::internal(format!("a picture side of {side} pixels")))
}
