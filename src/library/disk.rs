//! Files that appear whole or not at all, and what is said where the disk refuses.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::{Error, Kind, Result, ResultExt},
    files::{self, NewFile},
};

/// What is written here.
pub(super) const NEW: NewFile = NewFile {
    prefix: ".tmp-",
    mode: files::PRIVATE,
};

/// An error of the disk, without a path of the server's.
pub(super) fn refused(what: &str, error: io::Error) -> Error {
    let (kind, why) = if files::is_full(&error) {
        (
            Kind::ResourceExhausted,
            "the disk under admin.dir is full: delete clips, or have the operator make room",
        )
    } else {
        (Kind::Internal, "the disk under admin.dir refused")
    };
    Error::new(kind, format!("{what}: {why}")).with_source(error)
}

/// Writes a record as JSON: beside it first, synced, renamed, the folder synced.
pub(super) fn write_json(path: &Path, record: &impl Serialize, what: &str) -> Result<()> {
    let json = serde_json::to_vec(record).or_kind(Kind::Internal, || what.to_owned())?;
    let written = NEW.write(path, |out| out.write_all(&json));
    written.map_err(|e| refused(what, e))
}

/// Reads a record of at most so many bytes; `None` where it is not one.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path, most: u64) -> Option<T> {
    let mut text = Vec::new();
    File::open(path)
        .ok()?
        .take(most + 1)
        .read_to_end(&mut text)
        .ok()?;
    if text.len() as u64 > most {
        return None;
    }
    serde_json::from_slice(&text).ok()
}

/// Removes a file; that it is gone already is fine, anything else is logged.
pub(super) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a file could not be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_without_a_path() {
        let error = refused(
            "the clip",
            io::Error::new(io::ErrorKind::StorageFull, "/srv/x"),
        );
        assert_eq!(error.kind(), Kind::ResourceExhausted);
        assert!(error.message().contains("admin.dir") && !error.message().contains("/srv"));
        let error = refused("the clip", io::Error::other("/srv/x"));
        assert_eq!(error.kind(), Kind::Internal);
    }

    #[test]
    fn a_record_is_bounded_when_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_json(&path, &vec![1, 2, 3], "numbers").unwrap();
        assert_eq!(read_json::<Vec<u8>>(&path, 7), Some(vec![1, 2, 3]));
        assert_eq!(read_json::<Vec<u8>>(&path, 6), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
