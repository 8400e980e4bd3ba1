//! The capped temporary file of an upload that cannot be decoded as it arrives. It never has a
//! name, so nothing is left behind, however the process ends.

use std::{
    fs::File,
    io::Write as _,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Result},
    files,
};

/// A temporary file that is being filled.
#[derive(Debug)]
pub(crate) struct Spool {
    file: File,
    dir: PathBuf,
    written: u64,
    max_bytes: u64,
}

impl Spool {
    /// An empty file in `dir`.
    pub(crate) fn create(dir: &Path, max_bytes: u64) -> Result<Self> {
        let file = tempfile::tempfile_in(dir).map_err(|e| match e {
            e if files::is_full(&e) => no_space(dir, 0, e),
            e => {
                // Whoever uploads is told what, the operator also where.
                tracing::error!(folder = %dir.display(), "the spool folder cannot be used: {e}");
                Error::precondition(format!(
                    "cannot create a temporary file in the spool folder: {e}"
                ))
                .with_source(e)
            }
        })?;
        Ok(Self::with_file(file, dir, max_bytes))
    }

    fn with_file(file: File, dir: &Path, max_bytes: u64) -> Self {
        Spool {
            file,
            dir: dir.to_path_buf(),
            written: 0,
            max_bytes,
        }
    }

    /// Appends.
    ///
    /// # Errors
    /// `ResourceExhausted` past the limit or when the disk does not take it.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let after = self.written.saturating_add(bytes.len() as u64);
        if after > self.max_bytes {
            return Err(Error::exhausted(format!(
                "the upload must be stored before it can be decoded and is larger than the limit of {} bytes: send MKV, WebM or MPEG-TS, which are not stored, or raise spool_max_bytes",
                self.max_bytes
            ))
            .for_good());
        }
        self.file
            .write_all(bytes)
            .map_err(|e| no_space(&self.dir, self.written, e))?;
        self.written = after;
        Ok(())
    }

    /// Bytes written.
    pub(crate) fn len(&self) -> u64 {
        self.written
    }

    /// Reads back `length` written bytes from `offset` on.
    pub(crate) fn read(&self, offset: u64, length: u64) -> std::io::Result<Vec<u8>> {
        let length = usize::try_from(length).map_err(std::io::Error::other)?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// The file, to be read back.
    pub(crate) fn file_mut(&mut self) -> &mut File {
        &mut self.file
    }

    /// A path that opens this file again while it is held.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

fn no_space(dir: &Path, written: u64, e: std::io::Error) -> Error {
    tracing::error!(folder = %dir.display(), written, "the spool folder is full: {e}");
    Error::exhausted(format!(
        "no space to store the upload in the spool folder after {written} bytes: {e}"
    ))
    .with_source(e)
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_full_disk_is_named() {
        // Every write to /dev/full fails with ENOSPC, with any privileges.
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut spool = Spool::with_file(full, Path::new("/spool"), u64::MAX);
        let e = spool.write(b"abc").unwrap_err();
        assert_eq!(e.kind(), Kind::ResourceExhausted);
        assert!(e.message().contains("no space"), "{e}");
        assert!(
            !e.message().contains("/spool"),
            "an uploader is not told where: {e}"
        );
    }

    #[test]
    fn the_limit_is_exact_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(dir.path(), 10).unwrap();
        spool.write(&[0; 6]).unwrap();
        spool.write(&[0; 4]).unwrap();
        let e = spool.write(&[0; 1]).unwrap_err();
        assert_eq!(e.kind(), Kind::ResourceExhausted);
        assert!(e.message().contains("10 bytes"), "{e}");
    }

    #[test]
    fn the_file_has_no_name_and_opens_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(dir.path(), 10).unwrap();
        spool.write(b"hello").unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(std::fs::read(spool.path()).unwrap(), b"hello");
    }

    #[test]
    fn a_missing_folder_is_a_precondition() {
        let e = Spool::create(Path::new("/nonexistent/spool"), 10).unwrap_err();
        assert_eq!(e.kind(), Kind::FailedPrecondition);
        assert!(e.message().contains("spool folder"), "{e}");
        assert!(
            !e.message().contains("/nonexistent"),
            "an uploader is not told where: {e}"
        );
    }
}
