//! What the caller of a detection may ask for; everything is off by default.

use std::sync::Arc;

use crate::{error::Result, score::alerts::AlertRules, segment::mask::Masks};

use super::snapshot::SnapshotRules;

/// What the caller of a detection may ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DetectOptions {
    /// Also send each segment's scores at once, before smoothing is final.
    pub provisional: bool,
    /// Which events are told, and when.
    pub alerts: AlertRules,
    /// What happens to the pictures.
    pub pictures: PictureOptions,
}

/// What happens to the pictures of a source on their way to the model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PictureOptions {
    /// Blacked out before anything else sees a picture.
    pub masks: Arc<Masks>,
    /// Pictures of events, where asked for.
    pub snapshots: Option<SnapshotRules>,
    /// Skip the model while frames differ by less than this, in parts of full brightness.
    pub motion_gate: Option<f64>,
}

impl PictureOptions {
    /// Blacks out these polygons, in parts of the upright picture's width and height.
    ///
    /// `InvalidArgument` with the field, as [`Masks::new`].
    pub fn mask(&mut self, polygons: Vec<Vec<(f64, f64)>>) -> Result<()> {
        self.masks = Arc::new(Masks::new(polygons)?);
        Ok(())
    }
}
