//! Files that are read again when they change, without a restart. What cannot be used does not take
//! the place of what can.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    error::{Error, Kind, Result, ResultExt as _},
    limits,
    telemetry::server::reloaded,
};

/// Makes something of the files' bytes.
type Load<T> = Box<dyn Fn(&[Vec<u8>]) -> Result<T> + Send + Sync>;

/// What is made of files, as they are now.
pub struct Reloaded<T> {
    /// For logs and metrics: `certificate`, `tokens`.
    what: &'static str,
    files: Vec<PathBuf>,
    load: Load<T>,
    current: RwLock<Arc<T>>,
    /// Digest of what was looked at last, usable or not.
    seen: Mutex<Option<[u8; 32]>>,
}

/// What a look at the files brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// As at the last look.
    Unchanged,
    /// The new content holds from now on.
    Taken,
    /// The new content cannot be used: the old one goes on to hold.
    Refused,
}

impl<T: Send + Sync + 'static> Reloaded<T> {
    /// Reads the files and makes the first value; `load` gets their bytes in order.
    ///
    /// Fails with `InvalidArgument` or `NotFound` where that is not possible.
    pub fn open(
        what: &'static str,
        files: Vec<PathBuf>,
        load: impl Fn(&[Vec<u8>]) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Self> {
        let contents = read_all(&files)?;
        let first = load(&contents)?;
        Ok(Reloaded {
            what,
            files,
            load: Box::new(load),
            current: RwLock::new(Arc::new(first)),
            seen: Mutex::new(Some(digest(&contents))),
        })
    }

    /// The value that holds now.
    pub fn current(&self) -> Arc<T> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    /// Reads the files and takes them over if they have changed and can be used. Content is compared,
    /// not its time: whoever replaces two files one after the other has both taken in the end. Blocks
    /// on the disk.
    pub fn look(&self) -> Look {
        let contents = read_all(&self.files);
        let found = contents.as_ref().ok().map(|contents| digest(contents));
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == found {
                return Look::Unchanged;
            }
            *seen = found;
        }
        match contents.and_then(|contents| (self.load)(&contents)) {
            Ok(value) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
                tracing::info!(what = self.what, "read again: the new files hold");
                reloaded(self.what, true);
                Look::Taken
            }
            Err(error) => {
                tracing::error!(
                    what = self.what,
                    "the new files cannot be used, the old ones go on to hold: {error:#}"
                );
                reloaded(self.what, false);
                Look::Refused
            }
        }
    }

    /// Looks every `period` until `closing` fires.
    pub async fn keep(
        self: Arc<Self>,
        clock: Arc<dyn Clock>,
        period: Duration,
        closing: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                () = clock.sleep(period) => {}
            }
            let this = self.clone();
            // A panic in there is told by its own message.
            let _ = tokio::task::spawn_blocking(move || this.look()).await;
        }
    }
}

fn read_all(files: &[PathBuf]) -> Result<Vec<Vec<u8>>> {
    files.iter().map(|file| read_file(file)).collect()
}

/// A small file's bytes.
///
/// Fails with `NotFound` where it cannot be read and with `InvalidArgument` where it has more than
/// [`limits::SECRET_FILE_MAX_BYTES`].
pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    let name = path.display();
    let cannot = || format!("cannot read {name}");
    let file = File::open(path).or_kind(Kind::NotFound, cannot)?;
    let mut bytes = Vec::new();
    file.take(limits::SECRET_FILE_MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .or_kind(Kind::NotFound, cannot)?;
    if bytes.len() as u64 > limits::SECRET_FILE_MAX_BYTES {
        return Err(Error::invalid(format!(
            "{name} has more than {} bytes",
            limits::SECRET_FILE_MAX_BYTES
        )));
    }
    Ok(bytes)
}

fn digest(contents: &[Vec<u8>]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for content in contents {
        hasher.update((content.len() as u64).to_le_bytes());
        hasher.update(content);
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::clock::FastClock;

    /// A number that must be even, from a file.
    fn even(file: &Path) -> Result<Reloaded<u32>> {
        Reloaded::open("tokens", vec![file.to_owned()], |contents| {
            let text = std::str::from_utf8(&contents[0]).unwrap_or_default();
            text.trim()
                .parse()
                .ok()
                .filter(|n: &u32| n.is_multiple_of(2))
                .ok_or_else(|| Error::invalid("odd"))
        })
    }

    #[test]
    fn a_change_is_taken_once_and_a_bad_one_keeps_the_old() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("n");
        assert_eq!(even(&file).err().unwrap().kind(), Kind::NotFound);
        fs::write(&file, "3").unwrap();
        assert!(even(&file).is_err());
        fs::write(&file, "4").unwrap();
        let n = even(&file).unwrap();
        assert_eq!((n.look(), *n.current()), (Look::Unchanged, 4));
        fs::write(&file, "6").unwrap();
        assert_eq!((n.look(), *n.current()), (Look::Taken, 6));
        fs::write(&file, "7").unwrap();
        assert_eq!((n.look(), *n.current()), (Look::Refused, 6));
        assert_eq!(n.look(), Look::Unchanged);
        fs::remove_file(&file).unwrap();
        assert_eq!((n.look(), *n.current()), (Look::Refused, 6));
        assert_eq!(n.look(), Look::Unchanged);
        fs::write(&file, "6").unwrap();
        assert_eq!((n.look(), *n.current()), (Look::Taken, 6));
        fs::write(&file, vec![b' '; 2 << 20]).unwrap();
        assert_eq!((n.look(), *n.current()), (Look::Refused, 6));
    }

    #[tokio::test]
    async fn the_keeper_looks_by_its_clock_and_ends() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("n");
        fs::write(&file, "4").unwrap();
        let n = Arc::new(even(&file).unwrap());
        let closing = CancellationToken::new();
        let clock = FastClock::shared(1000);
        let keeper = n
            .clone()
            .keep(clock, Duration::from_secs(10), closing.clone());
        let keeper = tokio::spawn(keeper);
        fs::write(&file, "8").unwrap();
        while *n.current() != 8 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        closing.cancel();
        keeper.await.unwrap();
    }
}
