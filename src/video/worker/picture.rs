//! A picture in a decoder process.

use std::sync::Arc;

use super::{
    process::Process,
    wire::{FromWorker, ToWorker},
};
use crate::{
    error::{Error, Result},
    media::{Picture, Reduced, Reduction, RgbImage},
};

/// A picture that a decoder process holds until this is dropped.
pub(super) struct RemotePicture {
    process: Arc<Process>,
    id: u64,
    size_bytes: usize,
}

impl RemotePicture {
    pub(super) fn new(process: &Arc<Process>, id: u64, size_bytes: usize) -> Self {
        RemotePicture {
            process: Arc::clone(process),
            id,
            size_bytes,
        }
    }

    fn strange(&self, what: &str) -> Error {
        let error = self.process.broke_protocol(what);
        Error::data_loss(error.to_string())
    }
}

impl Picture for RemotePicture {
    fn to_rgb(&self) -> Result<RgbImage> {
        match self.process.ask(&ToWorker::Rgb(self.id))? {
            (FromWorker::Rgb { width, height }, data)
                if data.len() as u64 == u64::from(width) * u64::from(height) * 3 =>
            {
                Ok(RgbImage {
                    width,
                    height,
                    data,
                })
            }
            (FromWorker::NoPicture(fault), _) => Err(fault.into()),
            _ => Err(self.strange("it sent another picture than was asked for")),
        }
    }

    fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    fn reduced(&self, how: &Reduction) -> Option<Result<Reduced>> {
        let answer = match self.process.ask(&ToWorker::Reduce(self.id, how.clone())) {
            Ok(answer) => answer,
            Err(e) => return Some(Err(e)),
        };
        Some(match answer {
            (FromWorker::Reduced { upright, pixels }, body)
                if pixels <= body.len() && body.len() - pixels <= most_jpeg(how) =>
            {
                let (model, jpeg) = body.split_at(pixels);
                Ok(Reduced {
                    pixels: model.into(),
                    upright,
                    jpeg: (!jpeg.is_empty()).then(|| jpeg.into()),
                })
            }
            (FromWorker::NoPicture(fault), _) => Err(fault.into()),
            _ => Err(self.strange("it sent another picture than was asked for")),
        })
    }
}

fn most_jpeg(how: &Reduction) -> usize {
    how.snapshot.map_or(0, |rules| rules.max_bytes)
}

impl Drop for RemotePicture {
    fn drop(&mut self) {
        self.process.release(self.id);
    }
}
