//! The vision side: pictures to tokens of the language model.

use std::{collections::HashMap, sync::atomic::Ordering::Relaxed};

use candle_core::{DType, Tensor};

use super::InternVl;
#[cfg(feature = "cuda")]
use crate::model::kernels;
use crate::{
    engine::probe::Clip,
    error::{Error, Result},
    limits::{VISION_FRAMES_PER_PASS, VISION_FRAMES_PER_PASS_GPU},
    media::SharedImage,
    model::{linear::failed, pixels, projector::unshuffle},
};

/// What the vision side yields for some pictures, stage by stage, row-major f32.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionStages {
    /// `[pictures, 1 + patches, vision hidden]`, the class token first.
    pub tower: Vec<f32>,
    /// `[pictures, tokens, 4 * vision hidden]`.
    pub unshuffled: Vec<f32>,
    /// `[pictures, tokens, text hidden]`.
    pub projected: Vec<f32>,
}

impl InternVl {
    /// The vision side alone, for normalised pixels `[pictures, 3, side, side]`: for comparison
    /// with a reference.
    pub fn vision_stages(&self, pixels: &[f32]) -> Result<VisionStages> {
        let host = |t: &Tensor| {
            t.flatten_all()
                .and_then(|t| t.to_dtype(DType::F32)?.to_vec1())
                .map_err(failed("reading a vision stage"))
        };
        let (tower, unshuffled, projected) = self.pool.run(|| self.encode(pixels))?;
        Ok(VisionStages {
            tower: host(&tower)?,
            unshuffled: host(&unshuffled)?,
            projected: host(&projected)?,
        })
    }

    /// Tower, unshuffled and projected tokens of pictures in one pass.
    pub(super) fn encode(&self, pixels: &[f32]) -> Result<(Tensor, Tensor, Tensor)> {
        let side = self.config.vision.image;
        let one = 3 * side * side;
        if pixels.is_empty() || !pixels.len().is_multiple_of(one) {
            return Err(Error::invalid(format!(
                "{} numbers are not pictures of 3 x {side} x {side}",
                pixels.len()
            )));
        }
        let pictures = pixels.len() / one;
        let pixels = Tensor::from_slice(pixels, (pictures, 3, side, side), &self.place.device);
        pixels
            .and_then(|pixels| self.project(self.vision.forward(&pixels)?))
            .map_err(failed("encoding pictures"))
    }

    /// Projected tokens `[frames, tokens, hidden]` of frames, in one pass.
    fn encode_frames(&self, frames: &[&SharedImage]) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if self.place.device.is_cuda() {
            let vision = &self.config.vision;
            return kernels::cuda::patches(
                &self.place.device,
                frames,
                (vision.grid(), vision.patch),
            )
            .and_then(|patches| self.project(self.vision.forward_patches(&patches)?))
            .map(|(.., projected)| projected)
            .map_err(failed("encoding pictures"));
        }
        let mut values = Vec::new();
        for frame in frames {
            values.extend(pixels::normalize(&frame.data)?);
        }
        Ok(self.encode(&values)?.2)
    }

    /// From the tower to the projected tokens; all three.
    fn project(&self, tower: Tensor) -> candle_core::Result<(Tensor, Tensor, Tensor)> {
        let unshuffled = unshuffle(&tower, self.config.vision.grid())?;
        let projected = self.projector.forward(&unshuffled)?;
        Ok((tower, unshuffled, projected))
    }

    /// Vision tokens `[frames, tokens, hidden]` of each clip. Frames that share one allocation
    /// are encoded once, whichever clip they are in.
    pub(super) fn encode_clips(&self, clips: &[Clip]) -> Result<Vec<Tensor>> {
        let mut numbers: HashMap<*const u8, usize> = HashMap::new();
        let mut distinct: Vec<&SharedImage> = Vec::new();
        let places: Vec<Vec<usize>> = clips
            .iter()
            .map(|clip| {
                clip.frames
                    .iter()
                    .map(|frame| {
                        *numbers.entry(frame.data.as_ptr()).or_insert_with(|| {
                            distinct.push(frame);
                            distinct.len() - 1
                        })
                    })
                    .collect()
            })
            .collect();
        self.frames_encoded
            .fetch_add(distinct.len() as u64, Relaxed);
        let mut encoded: Vec<Tensor> = Vec::with_capacity(distinct.len());
        let at_once = match self.place.device.is_cpu() {
            true => VISION_FRAMES_PER_PASS,
            false => VISION_FRAMES_PER_PASS_GPU,
        };
        for frames in distinct.chunks(at_once) {
            let projected = self.encode_frames(frames)?;
            for i in 0..frames.len() {
                encoded.push(projected.get(i).map_err(failed("encoding pictures"))?);
            }
        }
        places
            .iter()
            .map(|places| {
                let frames: Vec<&Tensor> = places.iter().filter_map(|&i| encoded.get(i)).collect();
                Tensor::stack(&frames, 0).map_err(failed("gathering pictures"))
            })
            .collect()
    }
}
