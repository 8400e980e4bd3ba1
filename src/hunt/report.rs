//! Temporary stand-in while the page is written.
use super::{HuntOptions, HuntResult, file::LabelledFeatures};
/// A page.
pub fn page(_: &LabelledFeatures, _: &HuntResult, _: &HuntOptions) -> String { String::new() }
