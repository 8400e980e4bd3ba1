//! A clip on its way in: hashed while it is written to a temporary file.

use std::{
    fmt::Write as _,
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::{Clip, Labelled, Library, clip::check_name, disk, quota::Reserved};
use crate::{
    error::{Error, Result},
    limits,
};

const WHAT: &str = "the clip could not be stored";

/// An upload. Dropped before [`finish`](Self::finish), it leaves nothing.
#[derive(Debug)]
pub struct Upload {
    library: Arc<Library>,
    file: NamedTempFile,
    hash: Sha256,
    reserved: Reserved,
    name: String,
    labelled: Labelled,
    _place: Place,
}

/// What became of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The clip.
    pub clip: Clip,
    /// Its bytes were there before.
    pub already_stored: bool,
}

/// One of the uploads that may run at the same time.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Upload {
    pub(super) fn begin(
        library: Arc<Library>,
        running: Arc<AtomicUsize>,
        name: String,
        labelled: Labelled,
    ) -> Result<Upload> {
        check_name(&name)?;
        let before = running.fetch_add(1, SeqCst);
        let place = Place(running);
        if before >= limits::CLIP_UPLOADS_MAX {
            return Err(Error::exhausted(format!(
                "{} clips are being uploaded: wait for one to end",
                limits::CLIP_UPLOADS_MAX
            )));
        }
        let file = disk::NEW
            .within(&library.clips_dir())
            .map_err(|e| disk::refused(WHAT, e))?;
        Ok(Upload {
            reserved: Reserved {
                quota: library.quota().clone(),
                bytes: 0,
            },
            library,
            file,
            hash: Sha256::new(),
            name,
            labelled,
            _place: place,
        })
    }

    /// Appends bytes. Blocks.
    ///
    /// Fails with `ResourceExhausted` past `admin.clip_max_bytes` or `admin.quota_bytes`, and where
    /// the disk is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let more = bytes.len() as u64;
        let most = self.library.limits().clip_max_bytes;
        if self.reserved.bytes.saturating_add(more) > most {
            return Err(Error::exhausted(format!(
                "the clip has more than admin.clip_max_bytes = {most}: cut it, or have the \
                 operator raise it"
            ))
            .for_good());
        }
        self.library.make_room(more)?;
        self.reserved.bytes += more;
        self.file
            .write_all(bytes)
            .map_err(|e| disk::refused(WHAT, e))?;
        self.hash.update(bytes);
        Ok(())
    }

    /// Stores the clip. Blocks.
    ///
    /// Fails with `InvalidArgument` for no bytes, and with `AlreadyExists` where the same bytes are
    /// stored with another label or other intervals.
    pub fn finish(self) -> Result<Stored> {
        if self.reserved.bytes == 0 {
            return Err(Error::invalid("the clip has no bytes").with_field("chunk"));
        }
        self.file
            .as_file()
            .sync_all()
            .map_err(|e| disk::refused(WHAT, e))?;
        let Upload {
            library,
            file,
            hash,
            reserved,
            name,
            labelled,
            _place,
        } = self;
        let digest = hash.finalize();
        let id = digest.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        let (stored, new) = library.store(id, name, labelled, reserved.bytes, |path| {
            file.persist(path)
                .map(drop)
                .map_err(|e| disk::refused(WHAT, e.error))
        })?;
        if new {
            reserved.keep();
        }
        Ok(stored)
    }
}
