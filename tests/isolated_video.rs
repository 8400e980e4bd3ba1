//! The tests of files, uploads and cameras once more, decoded in processes: nobody is to notice.
#![cfg(feature = "video")]
#![allow(clippy::duplicate_mod, missing_docs)]

#[path = "video_files.rs"]
mod video_files;
#[path = "video_live.rs"]
mod video_live;
#[path = "video_upload.rs"]
mod video_upload;
