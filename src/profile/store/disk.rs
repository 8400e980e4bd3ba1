//! Files of a store: where they are, and writes that leave the old or the new.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::{
    error::{Error, Kind, Result, ResultExt as _},
    files::{self, NewFile, folder_of, sync_folder},
};

/// Names of files that are being written begin so. Only a writer that was killed leaves one.
const TEMPORARY: &str = ".store-";

/// Places below the directory of the store.
#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Refuses what is no directory: `NotFound`, `FailedPrecondition`.
    pub fn new(root: PathBuf) -> Result<Layout> {
        let metadata = fs::metadata(&root).or_kind(Kind::NotFound, || {
            format!("no profile directory {}", root.display())
        })?;
        if !metadata.is_dir() {
            return Err(Error::precondition(format!(
                "{} is not a directory",
                root.display()
            )));
        }
        Ok(Layout { root })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The copy of a profile's current version for people and for older servers.
    pub fn copy(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}.json"))
    }

    fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    pub fn state(&self) -> PathBuf {
        self.store().join("state.json")
    }

    fn lock(&self) -> PathBuf {
        self.store().join("lock")
    }

    pub fn versions(&self) -> PathBuf {
        self.store().join("versions")
    }

    pub fn versions_of(&self, name: &str) -> PathBuf {
        self.versions().join(name)
    }

    /// Makes the directories of the store that are missing.
    pub fn make(&self) -> Result<()> {
        make_directory(&self.store())?;
        make_directory(&self.versions())
    }

    /// Takes the store for this process alone, until the lock is dropped.
    ///
    /// Fails with `FailedPrecondition` where another process has it or this one may not write.
    pub fn take(&self) -> Result<Lock> {
        let path = self.lock();
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| failed(error, || format!("cannot open {}", path.display())))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            let message = format!(
                "the profiles in {} are being written by another process: stop it, or read them only",
                self.root.display()
            );
            Error::precondition(message).with_source(io::Error::from(error))
        })?;
        Ok(Lock { file })
    }

    /// Removes what a killed writer left. Only the owner of the lock may.
    pub fn sweep(&self) -> Result<()> {
        let mut directories = vec![self.root.clone(), self.store()];
        directories.extend(entries(&self.versions())?);
        for directory in directories {
            for path in entries(&directory)? {
                let name = path.file_name().and_then(|name| name.to_str());
                if name.is_some_and(|name| name.starts_with(TEMPORARY)) {
                    tracing::warn!(file = %path.display(), "removing what an interrupted write left");
                    remove(&path)?;
                }
            }
        }
        Ok(())
    }
}

/// Who holds this may write. The kernel takes it back when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Drop for Lock {
    /// Closing the file would not do: a child process that is just being started has a copy of it.
    fn drop(&mut self) {
        if let Err(error) = flock(&self.file, FlockOperation::Unlock) {
            tracing::warn!("the lock of the profiles could not be released: {error}");
        }
    }
}

/// Paths in a directory; none where there is no directory.
pub(super) fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let cannot = || format!("cannot list {}", directory.display());
    let listing = match fs::read_dir(directory) {
        Ok(listing) => listing,
        // A file among directories is nobody's business here.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed(error, cannot)),
    };
    let mut paths = Vec::new();
    for entry in listing {
        paths.push(entry.map_err(|error| failed(error, cannot))?.path());
    }
    paths.sort();
    Ok(paths)
}

/// The text of a file of at most so many bytes; `None` where there is none.
pub(super) fn read(path: &Path, most: u64) -> Result<Option<String>> {
    let cannot = || format!("cannot read {}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error, cannot)),
    };
    let mut bytes = Vec::new();
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(error, cannot))?;
    if bytes.len() as u64 > most {
        return Err(Error::data_loss(format!(
            "{} has more than {most} bytes",
            path.display()
        )));
    }
    let text = String::from_utf8(bytes)
        .or_kind(Kind::DataLoss, || format!("{} is no text", path.display()))?;
    Ok(Some(text))
}

/// Writes a file that is the old or the new one at every instant, and the new one for good when this
/// returns: beside it first, synced, renamed, and the rename synced with the directory.
pub(super) fn write(path: &Path, text: &str, access: Access) -> Result<()> {
    let new = NewFile {
        prefix: TEMPORARY,
        mode: access.mode(),
    };
    new.write(path, |out| out.write_all(text.as_bytes()))
        .map_err(|error| failed(error, || format!("cannot write {}", path.display())))
}

/// Removes a file, if it is there, for good.
pub(super) fn remove(path: &Path) -> Result<()> {
    let removed = match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_folder(folder_of(path)),
    };
    removed.map_err(|error| failed(error, || format!("cannot remove {}", path.display())))
}

/// Makes a directory, if it is not there, for good.
pub(super) fn make_directory(path: &Path) -> Result<()> {
    let made = match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_folder(folder_of(path)),
    };
    made.map_err(|error| failed(error, || format!("cannot make {}", path.display())))
}

/// Who may do what with a file; profiles are no secret.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access {
    /// Replaced by its owner.
    Replaced,
    /// Never written again.
    Immutable,
}

impl Access {
    const fn mode(self) -> u32 {
        match self {
            Access::Replaced => 0o644,
            Access::Immutable => 0o444,
        }
    }
}

fn failed(error: io::Error, what: impl FnOnce() -> String) -> Error {
    let kind = match error.kind() {
        _ if files::is_full(&error) => Kind::ResourceExhausted,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Kind::FailedPrecondition
        }
        _ => Kind::Internal,
    };
    Error::new(kind, what()).with_source(error)
}
