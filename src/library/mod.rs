//! LIBRARY: labelled clips on disk, and the features kept of them.
//!
//! ```text
//! dir/lock                          held by the one server that uses the directory
//! dir/clips/SHA256                  a clip's bytes
//! dir/clips/SHA256.json             its name, label and intervals
//! dir/features/SHA256.KEY.…         features of all heads of its samples, see [`kept`]
//! ```
//!
//! A clip is there with both of its files or not at all: the bytes come first, then what is written
//! about them, each as a temporary file that is synced and renamed. What a crash leaves half done is
//! removed when the directory is opened. The index lives in memory; the files are its truth.

mod clip;
mod disk;
mod features;
mod import;
pub mod kept;
mod layout;
mod quota;
mod store;
mod upload;

pub use clip::{Clip, Label, Labelled};
pub use features::{FeatureKey, Unit};
pub use kept::{Kept, KeptWriter};
pub use store::{Library, LibraryLimits, Page, Pin};
pub use upload::{Stored, Upload};
