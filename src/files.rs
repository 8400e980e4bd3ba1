//! Files that are the old or the new one at every instant, and the new one for good once that is said: written beside
//! their place, synced, renamed, and the rename synced with the folder.

use std::{
    fs::{File, Permissions},
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use tempfile::NamedTempFile;

use crate::error::{Error, Kind, Result, ResultExt as _};

/// A file of which there is nothing yet.
#[derive(Clone, Copy, Debug)]
pub struct NewFile {
    /// Beginning of its name until it is whole, by which what a crash left is known.
    pub prefix: &'static str,
    /// Who may do what with it, as far as the umask lets them.
    pub mode: u32,
}

/// For its owner alone.
pub const PRIVATE: u32 = 0o600;

/// For whoever the umask lets.
pub const SHARED: u32 = 0o666;

/// What a user asked for by name.
pub const OUTPUT: NewFile = NewFile {
    prefix: ".headhunt-",
    mode: SHARED,
};

impl NewFile {
    /// Begins it beside its place. It is removed where it is not [`put`] there.
    pub fn beside(self, place: &Path) -> io::Result<NamedTempFile> {
        self.within(folder_of(place))
    }

    /// The same where its place is not known yet but for the folder.
    pub fn within(self, folder: &Path) -> io::Result<NamedTempFile> {
        tempfile::Builder::new()
            .prefix(self.prefix)
            .permissions(Permissions::from_mode(self.mode))
            .tempfile_in(folder)
    }

    /// Writes all of it.
    pub fn write(
        self,
        place: &Path,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut file = self.beside(place)?;
        let mut out = BufWriter::new(file.as_file_mut());
        write(&mut out).and_then(|()| out.flush())?;
        drop(out);
        put(file, place)
    }
}

/// Puts a whole file in its place, which lies in its folder.
pub fn put(file: NamedTempFile, place: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(place).map_err(|error| error.error)?;
    sync_folder(folder_of(place))
}

/// Without this a power cut may undo what happened in a folder.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Where a path's last name lies.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Whether there is no room, on the disk or by a quota or limit.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Begins a file that a user asked for by name.
///
/// # Errors
/// `NotFound` if the folder does not exist; `ResourceExhausted` if it cannot be written in.
pub fn begin_output(path: &Path) -> Result<NamedTempFile> {
    let folder = folder_of(path);
    if !folder.is_dir() {
        return Err(Error::not_found(format!(
            "cannot write {}: there is no folder {}",
            path.display(),
            folder.display()
        )));
    }
    OUTPUT
        .beside(path)
        .or_kind(Kind::ResourceExhausted, || cannot_write(path))
}

/// Puts what [`begin_output`] began in its place.
///
/// # Errors
/// `ResourceExhausted` if that fails.
pub fn put_output(file: NamedTempFile, path: &Path) -> Result<()> {
    put(file, path).or_kind(Kind::ResourceExhausted, || cannot_write(path))
}

/// Writes a file that a user asked for by name.
///
/// # Errors
/// `NotFound` if its folder does not exist; `ResourceExhausted` if writing fails.
pub fn write_output(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let mut file = begin_output(path)?;
    let mut out = BufWriter::new(file.as_file_mut());
    write(&mut out)
        .and_then(|()| out.flush())
        .or_kind(Kind::ResourceExhausted, || cannot_write(path))?;
    drop(out);
    put_output(file, path)
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const RECORD: NewFile = NewFile {
        prefix: ".record-",
        mode: 0o640,
    };

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_the_old_one_until_it_is_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a");
        RECORD.write(&place, |out| out.write_all(b"old")).unwrap();
        RECORD
            .write(&place, |out| {
                out.write_all(b"new")?;
                out.flush()?;
                assert_eq!(fs::read(&place)?, b"old");
                let names = names(dir.path());
                assert_eq!(names.len(), 2);
                assert!(names[0].starts_with(".record-"), "{names:?}");
                Ok(())
            })
            .unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"new");
        let failed = RECORD.write(&place, |out| {
            out.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert!(is_full(&failed.unwrap_err()));
        assert_eq!(fs::read(&place).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["a"]);
        let mode = fs::metadata(&place).unwrap().permissions().mode();
        assert_eq!(mode & 0o777 & !0o040, 0o600, "the umask may take more");
    }

    #[test]
    fn an_output_says_what_is_wrong_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let error = write_output(&dir.path().join("no/a"), |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.to_string().contains("there is no folder"), "{error}");
        // A folder is no place for a file.
        let error = write_output(dir.path(), |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), Kind::ResourceExhausted);
        assert!(error.to_string().contains("cannot write"), "{error}");
        assert!(names(dir.path()).is_empty());
        assert_eq!(folder_of(Path::new("a")), Path::new("."));
        assert_eq!(folder_of(Path::new("b/a")), Path::new("b"));
    }
}
