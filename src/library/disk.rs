//! Files that appear whole or not at all, and what is said where the disk refuses.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::error::{Error, Kind, Result, ResultExt};

/// Beginning of the names of temporary files.
pub(super) const TEMPORARY: &str = ".tmp-";

/// An error of the disk, without a path of the server's.
pub(super) fn refused(what: &str, error: io::Error) -> Error {
    let (kind, why) = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            (
                Kind::ResourceExhausted,
                "the disk under admin.dir is full: delete clips, or have the operator make room",
            )
        }
        _ => (Kind::Internal, "the disk under admin.dir refused"),
    };
    Error::new(kind, format!("{what}: {why}")).with_source(error)
}

/// Writes a record as JSON: beside it first, synced, renamed, the folder synced.
pub(super) fn write_json(path: &Path, record: &impl Serialize, what: &str) -> Result<()> {
    let json = serde_json::to_vec(record).or_kind(Kind::Internal, || what.to_owned())?;
    let folder = folder_of(path);
    write_file(folder, path, &json).map_err(|e| refused(what, e))
}

fn write_file(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = temporary(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    sync_folder(folder)
}

/// A temporary file that is removed unless it is persisted.
pub(super) fn temporary(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new()
        .prefix(TEMPORARY)
        .tempfile_in(folder)
}

/// Without this a power cut may undo a rename.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
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

pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
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
