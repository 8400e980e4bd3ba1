//! Clips that lie on the server already, named by a manifest.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Label, Labelled, Library, Stored};
use crate::{
    error::{Error, Kind, Result, ResultExt},
    eval::manifest::{self, ManifestVideo},
    limits,
};

impl Library {
    /// Stores every clip of a manifest below the configured roots, under the name that the manifest
    /// gives it. Blocks for as long as copying takes.
    ///
    /// Nothing is stored before the manifest and all of its clips have been found below a root, with
    /// symbolic links followed. A failure after that leaves the clips before it stored; importing
    /// again goes on. `keep_on` is asked before each piece.
    ///
    /// Fails with `FailedPrecondition` where no root is configured, `PermissionDenied` for a path
    /// outside of them (whether or not there is such a file), `InvalidArgument` for a manifest that
    /// cannot be read, and as an upload.
    pub fn import(
        self: &Arc<Self>,
        path: &Path,
        keep_on: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<Stored>> {
        let field = |error: Error| error.with_field("manifest");
        let roots = self.roots().map_err(field)?;
        let real = below(&roots, path).map_err(field)?;
        let folder = real.parent().unwrap_or(Path::new("/")).to_owned();
        let videos = read(&real).map_err(field)?;
        let mut found = Vec::with_capacity(videos.len());
        for video in videos {
            let at = |error: Error| error.context(format!("manifest, line {}", video.line));
            let path = below(&roots, &folder.join(&video.video)).map_err(|e| field(at(e)))?;
            let label = if video.anomaly {
                Label::Anomaly
            } else {
                Label::Normal
            };
            let labelled =
                Labelled::new(label, video.intervals.clone()).map_err(|error| field(at(error)))?;
            found.push((video, path, labelled));
        }
        let mut stored = Vec::with_capacity(found.len());
        for (video, path, labelled) in found {
            let clip = self
                .copy(&path, video.name(), labelled, keep_on)
                .map_err(|e| e.context(format!("manifest, line {}", video.line)))?;
            stored.push(clip);
        }
        Ok(stored)
    }

    fn roots(&self) -> Result<Vec<PathBuf>> {
        if self.limits().import_roots.is_empty() {
            return Err(Error::precondition(
                "this server imports nothing: have the operator name folders in \
                 admin.import_roots, or upload the clips",
            ));
        }
        // A root that is not there holds nothing.
        Ok(self
            .limits()
            .import_roots
            .iter()
            .filter_map(|root| root.canonicalize().ok())
            .collect())
    }

    fn copy(
        self: &Arc<Self>,
        path: &Path,
        name: String,
        labelled: Labelled,
        keep_on: &dyn Fn() -> Result<()>,
    ) -> Result<Stored> {
        let unreadable = || "the clip cannot be read".to_owned();
        let mut file = File::open(path).or_kind(Kind::FailedPrecondition, unreadable)?;
        let mut upload = self.begin(name, labelled)?;
        let mut piece = vec![0; limits::CLIP_COPY_BYTES];
        loop {
            keep_on()?;
            let n = file
                .read(&mut piece)
                .or_kind(Kind::FailedPrecondition, unreadable)?;
            match piece.get(..n) {
                Some(bytes) if n > 0 => upload.write(bytes)?,
                _ => return upload.finish(),
            }
        }
    }
}

/// The file itself, its links followed, if it lies below one of these folders.
fn below(roots: &[PathBuf], path: &Path) -> Result<PathBuf> {
    let denied = || {
        Error::new(
            Kind::PermissionDenied,
            "no such file in a folder that this server imports from: see admin.import_roots",
        )
    };
    if !path.is_absolute() {
        return Err(Error::invalid(
            "give the manifest's absolute path on the server",
        ));
    }
    let real = path.canonicalize().map_err(|_| denied())?;
    let inside = roots.iter().any(|root| real.starts_with(root)) && real.is_file();
    if inside { Ok(real) } else { Err(denied()) }
}

fn read(path: &Path) -> Result<Vec<ManifestVideo>> {
    let unreadable = || "the manifest cannot be read as text".to_owned();
    let mut csv = String::new();
    File::open(path)
        .or_kind(Kind::FailedPrecondition, unreadable)?
        .take(limits::MANIFEST_MAX_BYTES + 1)
        .read_to_string(&mut csv)
        .or_kind(Kind::InvalidArgument, unreadable)?;
    if csv.len() as u64 > limits::MANIFEST_MAX_BYTES {
        return Err(Error::invalid(format!(
            "the manifest has more than {} bytes",
            limits::MANIFEST_MAX_BYTES
        )));
    }
    manifest::group(&manifest::parse(&csv)?)
}
