//! HUNT: saliency metrics, robust ranking, fitting and calibration; pure maths over
//! (features, labels).

pub mod calibrate;
pub mod folds;
