//! What the commands share: the model they run, the videos they open, Ctrl-C and progress.

use std::{
    cell::Cell,
    io::IsTerminal,
    path::Path,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Environment,
    error::{Error, Kind, Result, ResultExt},
    files,
    media::MediaSource,
    model::{
        InternVl, LoadOptions,
        hub::{self, HubOptions},
    },
};

/// Which model, on what.
#[derive(Debug, Clone, clap::Args)]
pub struct ModelArgs {
    /// Checkpoint: a directory, or a hub id such as OpenGVLab/InternVL3-1B-hf
    #[arg(long, value_name = "DIR")]
    pub model: String,
    /// auto (CUDA where there is one), cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,
    /// Number type: auto (f32 on a CPU, bf16 on a GPU), f32 or bf16
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    pub dtype: String,
    /// Threads of the model on a CPU; 0: one per core, and from four cores on one less
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
}

impl ModelArgs {
    /// Loads the first `resident_layers` layers, or all; fetches the checkpoint first where `--model`
    /// is a hub id.
    pub fn load(&self, resident_layers: Option<usize>) -> Result<InternVl> {
        self.load_with(LoadOptions {
            resident_layers,
            ..LoadOptions::default()
        })
    }

    /// The same with these options, but for what the arguments say.
    pub fn load_with(&self, options: LoadOptions) -> Result<InternVl> {
        let device = self.device.parse()?;
        let precision = self.dtype.parse()?;
        let hub = Environment::of_process().hub()?;
        let directory = hub::resolve(
            &self.model,
            &HubOptions {
                endpoint: Some(hub.endpoint),
                cache_dir: hub.models_dir,
                token: hub.token,
                progress: std::io::stderr().is_terminal(),
                ..HubOptions::default()
            },
        )?;
        let options = LoadOptions {
            device,
            precision,
            threads: self.threads,
            ..options
        };
        Ok(InternVl::load(&directory, &options)?.with_fingerprint_cache(hub.cache_dir))
    }
}

/// Opens a video file with the built-in limits.
#[cfg(feature = "video")]
pub fn open_video(path: &Path, cancel: CancellationToken) -> Result<Box<dyn MediaSource>> {
    use crate::video;
    video::open(
        video::Input::File(path.to_owned()),
        &video::VideoLimits::default(),
        cancel,
    )
}

/// This build cannot decode.
#[cfg(not(feature = "video"))]
pub fn open_video(path: &Path, _: CancellationToken) -> Result<Box<dyn MediaSource>> {
    Err(Error::unimplemented(format!(
        "cannot open {}: this binary was built without the `video` feature",
        path.display()
    )))
}

/// A token that Ctrl-C (or SIGTERM) fires; a second one ends the process at once.
pub fn cancel_on_signal() -> Result<CancellationToken> {
    let cancel = CancellationToken::new();
    let fired = cancel.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .or_kind(Kind::Internal, || {
            "cannot start the signal handler".to_owned()
        })?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                let Ok(mut terminate) =
                    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
                else {
                    return;
                };
                for round in 0.. {
                    tokio::select! {
                        interrupt = tokio::signal::ctrl_c() => if interrupt.is_err() { return },
                        _ = terminate.recv() => {}
                    }
                    if round > 0 {
                        std::process::exit(130);
                    }
                    fired.cancel();
                    remark!("stopping; once more to stop at once");
                }
            });
        })
        .or_kind(Kind::Internal, || {
            "cannot start the signal handler".to_owned()
        })?;
    Ok(cancel)
}

/// Progress of long work: a bar on a terminal, a plain line now and then elsewhere. Goes to
/// standard error, so that output can be piped.
pub struct Progress {
    bar: Option<ProgressBar>,
    what: String,
    told: Cell<Instant>,
    begun: Instant,
}

/// Between plain lines.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

impl Progress {
    /// For work called `what`.
    pub fn new(what: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template(
                "{prefix} [{bar:30}] {pos}/{len} {msg} {elapsed_precise} (left {eta})",
            ) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(what.to_owned());
            bar
        });
        let now = Instant::now();
        Progress {
            bar,
            what: what.to_owned(),
            told: Cell::new(now),
            begun: now,
        }
    }

    /// `done` of `total`, with a remark.
    pub fn tell(&self, done: usize, total: usize, remark: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(total as u64);
                bar.set_position(done as u64);
                bar.set_message(remark.to_owned());
            }
            None if self.told.get().elapsed() >= PLAIN_INTERVAL => {
                self.told.set(Instant::now());
                let seconds = self.begun.elapsed().as_secs();
                remark!("{}: {done}/{total} {remark} after {seconds} s", self.what);
            }
            None => {}
        }
    }

    /// The work is over.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Refuses, before long work starts, a file that could not be written after it: a directory, one without a parent, one
/// in a folder where files cannot be made. `flag` is what names it.
pub fn check_output(flag: &str, path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(Error::invalid(format!(
            "{flag} {} is a directory",
            path.display()
        )));
    }
    // Renamed over it, the file would take a device's place.
    if path.metadata().is_ok_and(|there| !there.is_file()) {
        return Err(Error::invalid(format!(
            "{flag} {} is there and is no regular file",
            path.display()
        )));
    }
    let parent = files::folder_of(path);
    if !parent.is_dir() {
        return Err(Error::not_found(format!(
            "{flag} {}: there is no directory {}",
            path.display(),
            parent.display()
        )));
    }
    // As it will be written: beside its place, renamed, and synced with the folder.
    tempfile::NamedTempFile::new_in(parent)
        .and_then(|_| files::sync_folder(parent))
        .or_kind(Kind::FailedPrecondition, || {
            format!("{flag} {}: no file can be made there", path.display())
        })
}

/// The same for a page that goes beside `out`.
pub fn check_report(path: &Path, out: &Path) -> Result<()> {
    if path == out {
        return Err(Error::invalid(format!(
            "--out and --report are both {}: the page would replace the result",
            path.display()
        )));
    }
    check_output("--report", path)
}
