//! One frame of a segment that is still open, and what becomes of it.

use std::sync::Arc;

use crate::{
    error::{Error, Kind, Result},
    media::{Picture, Reduced, SharedImage},
};

use super::reduce::Reducer;

/// A frame of the open segment.
#[derive(Clone)]
pub(super) enum Sample {
    /// As decoded.
    Raw(Arc<dyn Picture>),
    /// Already masked and as it goes to the model.
    Reduced(Arc<Reduced<SharedImage>>),
    /// Gone with the process that held it; why.
    Lost(Arc<str>),
}

/// A sampled frame.
pub(super) struct Prepared {
    /// For the model.
    pub image: SharedImage,
    /// For people, where asked for and where it could be made small enough.
    pub jpeg: Option<Arc<[u8]>>,
}

impl Sample {
    /// The frame at the model's size, which takes less memory.
    pub fn reduced(&self, reducer: &Reducer) -> Result<Sample> {
        let Sample::Raw(picture) = self else {
            return Ok(self.clone());
        };
        match reducer.of(picture.as_ref(), false) {
            Ok(reduced) => Ok(Sample::Reduced(Arc::new(reduced))),
            // Whether it would have been sampled is not known yet.
            Err(e) if e.kind() == Kind::DataLoss => Ok(Sample::Lost(e.to_string().into())),
            Err(e) => Err(e),
        }
    }

    /// Says that [`prepare`](Self::prepare) will be asked for the same soon.
    pub fn ahead(&self, reducer: &Reducer, snapshot: bool) {
        if let Sample::Raw(picture) = self {
            reducer.ahead(picture.as_ref(), snapshot);
        }
    }

    /// The frame for the model and, if `snapshot` and asked for, for people. A frame that had to be
    /// reduced early makes a snapshot no larger than the model's picture.
    ///
    /// `DataLoss` where it is gone with the process that held it.
    pub fn prepare(&self, reducer: &Reducer, snapshot: bool) -> Result<Prepared> {
        match self {
            Sample::Raw(picture) => {
                let reduced = reducer.of(picture.as_ref(), snapshot)?;
                Ok(Prepared {
                    image: reduced.pixels,
                    jpeg: reduced.jpeg,
                })
            }
            Sample::Reduced(reduced) => Ok(Prepared {
                image: reduced.pixels.clone(),
                jpeg: if snapshot {
                    reducer.late_jpeg(reduced)?
                } else {
                    None
                },
            }),
            Sample::Lost(why) => Err(Error::data_loss(why.as_ref())),
        }
    }
}
