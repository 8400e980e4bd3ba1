//! Fetching a checkpoint's files from a hub into the cache: one commit, every wait bounded, nothing half passes for whole.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use hf_hub::{
    Cache,
    api::{
        Progress, RepoInfo,
        sync::{Api, ApiBuilder, ApiError, ApiRepo},
    },
};

use super::{HubId, HubOptions, INDEX, SINGLE, is_name, shards};
use crate::{
    error::{Error, Kind, Result, ResultExt},
    limits::{HUB_FILES_MAX, HUB_REQUEST_TIMEOUT, HUB_STALL_TIMEOUT},
};

/// Files beside the weights that a checkpoint may have and that are used.
const SMALL_FILES: [&str; 10] = [
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
];
impl HubId {
    /// All files of the revision's present commit, and the reference that marks them as complete.
    pub(super) fn fetch(&self, cache: &Cache, options: &HubOptions) -> Result<PathBuf> {
        let mut builder = ApiBuilder::from_cache(cache.clone()).with_progress(false);
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
        }
        if options.token.is_some() {
            builder = builder.with_token(options.token.clone());
        }
        let api = builder
            .build()
            .map_err(|e| self.explain("cannot set up the hub client", e))?;

        // One commit for all files, even if the branch moves meanwhile.
        let repo = api.repo(self.at(&self.revision));
        let info: RepoInfo = within(HUB_REQUEST_TIMEOUT, move || repo.info())
            .ok_or_else(|| self.silent("the list of its files"))?
            .map_err(|e| self.explain("cannot list its files", e))?;
        if !is_name(&info.sha) || info.siblings.len() > HUB_FILES_MAX {
            return Err(Error::data_loss(format!(
                "hub model {self}: the hub's answer is not a list of files at one commit"
            )));
        }
        let has = |name: &str| info.siblings.iter().any(|s| s.rfilename == name);
        let session = Session {
            id: self,
            api,
            cache,
            commit: &info.sha,
            progress: options.progress,
        };
        if !has("config.json") {
            return Err(Error::not_found(format!(
                "hub model {self} has no config.json; is it a checkpoint?"
            )));
        }
        for name in SMALL_FILES.into_iter().filter(|name| has(name)) {
            session.file(name)?;
        }
        let weights = if has(SINGLE) {
            vec![SINGLE.to_owned()]
        } else if has(INDEX) {
            shards(&session.file(INDEX)?)?.unwrap_or_default()
        } else {
            return Err(Error::not_found(format!(
                "hub model {self} has no {INDEX} and no {SINGLE}; only safetensors are read"
            )));
        };
        for name in &weights {
            if !has(name) {
                return Err(Error::not_found(format!(
                    "hub model {self}: {INDEX} names {name}, which is not there"
                )));
            }
            session.file(name)?;
        }
        // Written last: the reference marks the snapshot as complete.
        cache
            .repo(self.at(&self.revision))
            .create_ref(&info.sha)
            .or_kind(Kind::Internal, || {
                format!("cannot write to the hub cache {}", cache.path().display())
            })?;
        Ok(cache.repo(self.at(&info.sha)).pointer_path(&info.sha))
    }

    fn silent(&self, what: &str) -> Error {
        Error::unavailable(format!(
            "hub model {self}: no answer about {what} within {} s; check the network and HF_ENDPOINT",
            HUB_REQUEST_TIMEOUT.as_secs()
        ))
    }

    fn explain(&self, what: &str, error: ApiError) -> Error {
        let text = error.to_string();
        // The client's own error type is not exported; its message has the status.
        let status = text
            .rsplit_once("http status: ")
            .and_then(|(_, code)| code.trim().parse::<u16>().ok());
        let (kind, hint) = match (status, &error) {
            (Some(404), _) => (
                Kind::NotFound,
                "no such model, revision or file on the hub (a private one needs a token)",
            ),
            (Some(401), _) => (Kind::Unauthenticated, "the hub wants a token (HF_TOKEN)"),
            (Some(403), _) => (
                Kind::PermissionDenied,
                "the token may not read it; ask for access on the hub",
            ),
            (_, ApiError::IoError(_)) => (Kind::Internal, "cannot write to the hub cache"),
            (_, ApiError::LockAcquisition(_)) => (
                Kind::Unavailable,
                "another process is downloading it; try again later",
            ),
            _ => (
                Kind::Unavailable,
                "the hub cannot be reached or answered nonsense; check the network and HF_ENDPOINT",
            ),
        };
        Error::new(kind, format!("hub model {self}: {what}: {hint} ({text})")).with_source(error)
    }
}

/// The downloads of one commit.
struct Session<'a> {
    id: &'a HubId,
    api: Api,
    cache: &'a Cache,
    commit: &'a str,
    progress: bool,
}

impl Session<'_> {
    fn repo(&self) -> ApiRepo {
        self.api.repo(self.id.at(self.commit))
    }

    /// The file in the cache, downloaded if it is not there.
    fn file(&self, name: &str) -> Result<PathBuf> {
        let snapshot = self
            .cache
            .repo(self.id.at(self.commit))
            .pointer_path(self.commit);
        let there = snapshot.join(name);
        if bytes_of(&there).is_some_and(|bytes| bytes > 0) {
            return Ok(there);
        }
        let api = self.api.clone();
        let url = self.repo().url(name);
        let facts = within(HUB_REQUEST_TIMEOUT, move || api.metadata(&url))
            .ok_or_else(|| self.id.silent(name))?
            .map_err(|e| self.id.explain(&format!("cannot fetch {name}"), e))?;
        // Both become names in the cache folder.
        if !is_name(facts.etag()) || facts.commit_hash() != self.commit {
            return Err(Error::data_loss(format!(
                "hub model {}: {name} came with an unusable etag or from another commit",
                self.id
            )));
        }
        let expected = facts.size() as u64;
        let blob = self
            .cache
            .repo(self.id.at(self.commit))
            .blob_path(facts.etag());
        // The same file as of an earlier commit.
        if bytes_of(&blob) == Some(expected) {
            link(&blob, &there).or_kind(Kind::Internal, || {
                format!(
                    "cannot write to the hub cache {}",
                    self.cache.path().display()
                )
            })?;
            return Ok(there);
        }
        // One that was whole, or longer, when its process ended cannot be gone on with.
        let part = blob.with_extension("part");
        if bytes_of(&part).is_some_and(|bytes| bytes >= expected) {
            let _ = std::fs::remove_file(&part);
        }
        let path = self.download(name)?;
        let size = bytes_of(&path).unwrap_or(0);
        if size != expected {
            // Neither the pointer nor the blob may pass for the file next time.
            if let Ok(blob) = std::fs::canonicalize(&path) {
                let _ = std::fs::remove_file(blob);
            }
            let _ = std::fs::remove_file(&path);
            return Err(Error::data_loss(format!(
                "hub model {}: {name} is {size} bytes after the download, the hub says {}; try again",
                self.id,
                facts.size()
            )));
        }
        // The next start believes what lies here: it must not be less after a loss of power.
        keep(&path).or_kind(Kind::Internal, || {
            format!("cannot write {}", path.display())
        })?;
        Ok(path)
    }

    /// Downloads on a thread of its own, since the client has no timeouts: if no byte arrives for
    /// the stall time the call fails, and the thread dies with its connection.
    fn download(&self, name: &str) -> Result<PathBuf> {
        let beat = Arc::new(Beat::default());
        let (send, receive) = mpsc::sync_channel(1);
        let watch = Watched {
            beat: beat.clone(),
            bar: self.progress.then(indicatif::ProgressBar::no_length),
        };
        let repo = self.repo();
        let file = name.to_owned();
        std::thread::Builder::new()
            .name("hub-download".into())
            .spawn(move || {
                let _ = send.send(repo.download_with_progress(&file, watch));
            })
            .or_kind(Kind::Internal, || "cannot start a thread".into())?;
        let mut last = (0, Instant::now());
        loop {
            match receive.recv_timeout(Duration::from_millis(200)) {
                Ok(Ok(path)) => return Ok(path),
                Ok(Err(error)) => {
                    return Err(self.id.explain(&format!("cannot fetch {name}"), error));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let bytes = beat.bytes.load(Ordering::Relaxed);
                    if bytes != last.0 {
                        last = (bytes, Instant::now());
                    } else if last.1.elapsed() > HUB_STALL_TIMEOUT {
                        beat.abandoned.store(true, Ordering::Relaxed);
                        return Err(Error::unavailable(format!(
                            "hub model {}: the download of {name} made no progress for {} s; try again, it goes on where it stopped",
                            self.id,
                            HUB_STALL_TIMEOUT.as_secs()
                        )));
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(Error::data_loss(format!(
                        "hub model {}: the download of {name} broke on a malformed answer",
                        self.id
                    )));
                }
            }
        }
    }
}

#[derive(Default)]
struct Beat {
    bytes: AtomicU64,
    abandoned: AtomicBool,
}

/// Tells the waiting side that bytes arrive, and draws the bar.
struct Watched {
    beat: Arc<Beat>,
    bar: Option<indicatif::ProgressBar>,
}

impl Progress for Watched {
    fn init(&mut self, size: usize, filename: &str) {
        if let Some(bar) = &mut self.bar {
            Progress::init(bar, size, filename);
            bar.set_position(0);
        }
    }

    fn update(&mut self, size: usize) {
        self.beat.bytes.fetch_add(size as u64, Ordering::Relaxed);
        if let Some(bar) = self
            .bar
            .as_ref()
            .filter(|_| !self.beat.abandoned.load(Ordering::Relaxed))
        {
            bar.inc(size as u64);
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Runs `work` on a thread of its own; `None` if it is not done within `limit` or breaks.
fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (send, receive) = mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("hub-request".into())
        .spawn(move || {
            let _ = send.send(work());
        })
        .ok()?;
    receive.recv_timeout(limit).ok()
}

/// Length of a file, behind links; `None` where there is none.
fn bytes_of(path: &Path) -> Option<u64> {
    let meta = std::fs::metadata(path).ok()?;
    meta.is_file().then_some(meta.len())
}

/// Makes a blob a file of a snapshot, as the hub's own tools do.
fn link(blob: &Path, there: &Path) -> io::Result<()> {
    let (Some(folder), Some(blobs)) = (there.parent(), blob.parent()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    std::fs::create_dir_all(folder)?;
    // Up to the folder of the model, which holds both.
    let model = blobs.parent().unwrap_or(blobs);
    let up = folder.strip_prefix(model).map_err(io::Error::other)?;
    let mut target: PathBuf = up.components().map(|_| "..").collect();
    target.push(blob.strip_prefix(model).map_err(io::Error::other)?);
    // Renamed over one that points nowhere or elsewhere: a replica that shares the cache may link or read it now, and
    // has the same process number in its container.
    let beside = folder.join(format!(".link-{:016x}", rand::random::<u64>()));
    std::os::unix::fs::symlink(target, &beside)?;
    std::fs::rename(&beside, there).inspect_err(|_| {
        let _ = std::fs::remove_file(&beside);
    })
}

/// Has a file reach the disk, and its name.
fn keep(path: &Path) -> io::Result<()> {
    let file = std::fs::canonicalize(path)?;
    for kept in [Some(file.as_path()), file.parent(), path.parent()] {
        kept.map_or(Ok(()), |path| File::open(path)?.sync_all())?;
    }
    Ok(())
}
