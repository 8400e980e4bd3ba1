//! The scores file while a run appends to it.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io::{BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::Meta;
use crate::{
    error::{Error, Kind, Result, ResultExt},
    eval::scores::{self, VideoScores},
};

/// An open scores file that no other process writes.
#[derive(Debug)]
pub struct ScoreFile {
    path: PathBuf,
    file: File,
    finished: HashSet<String>,
}

impl ScoreFile {
    /// Opens a file for a run that is what `meta` says. With `resume` its finished videos stay, and a
    /// last line that was cut off by a crash is removed; a file that is not there yet is begun.
    ///
    /// `FailedPrecondition` where the file has scores and `resume` is not set, where another process
    /// writes it, or where it was made with another profile, model, list or shard, naming the
    /// difference; `DataLoss` where a whole line is not a score of one of the run's videos.
    pub fn open(path: &Path, meta: &Meta, resume: bool) -> Result<ScoreFile> {
        let shown = path.display();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .or_kind(Kind::FailedPrecondition, || format!("cannot open {shown}"))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .or_kind(Kind::FailedPrecondition, || {
                format!("another process writes {shown}: wait for it, or give another file")
            })?;
        let mut this = ScoreFile {
            path: path.to_owned(),
            file,
            finished: HashSet::new(),
        };
        let length = this.length()?;
        let begun = length > 0 || Meta::path(path).exists();
        if begun && !resume {
            return Err(Error::precondition(format!(
                "{shown} is there already: give --resume to go on with it, or another file"
            )));
        }
        if begun {
            let found = Meta::read(path)?;
            let other = if found.shard() == meta.shard() {
                found.difference(meta)
            } else {
                Some(format!(
                    "it is shard {}, not {}",
                    found.shard(),
                    meta.shard()
                ))
            };
            if let Some(difference) = other {
                return Err(Error::precondition(format!(
                    "{shown} was made by another run: {difference}; give another file"
                )));
            }
            this.cut_torn_line(length)?;
            this.read_finished(meta)?;
        } else {
            // Before the first score: a file with scores always has it.
            meta.write(path)?;
        }
        Ok(this)
    }

    fn failed(&self, what: &str) -> impl FnOnce() -> String {
        let message = format!("cannot {what} {}", self.path.display());
        move || message
    }

    fn length(&self) -> Result<u64> {
        let length = self.file.metadata().map(|m| m.len());
        length.or_kind(Kind::FailedPrecondition, self.failed("read the size of"))
    }

    /// Removes what follows the last newline.
    fn cut_torn_line(&mut self, length: u64) -> Result<()> {
        const STEP: u64 = 64 << 10;
        let mut end = length;
        let mut whole = 0;
        while end > 0 {
            let start = end.saturating_sub(STEP);
            let mut part = Vec::new();
            self.file
                .seek(SeekFrom::Start(start))
                .and_then(|_| (&self.file).take(end - start).read_to_end(&mut part))
                .or_kind(Kind::FailedPrecondition, self.failed("read"))?;
            if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
                whole = start + at as u64 + 1;
                break;
            }
            end = start;
        }
        self.file
            .set_len(whole)
            .or_kind(Kind::FailedPrecondition, self.failed("cut a torn line off"))
    }

    fn read_finished(&mut self, meta: &Meta) -> Result<()> {
        self.file
            .seek(SeekFrom::Start(0))
            .or_kind(Kind::FailedPrecondition, self.failed("read"))?;
        let wanted: HashSet<&str> = meta.videos().iter().map(String::as_str).collect();
        for scores in scores::read(BufReader::new(&self.file)) {
            let damaged = |what: &str| {
                Error::data_loss(format!(
                    "{}: {what}; remove that line, or score anew into another file",
                    self.path.display()
                ))
            };
            let scores = scores.map_err(|e| damaged(e.message()))?;
            let (video, line) = (scores.video, scores.line);
            if !wanted.contains(video.as_str()) {
                return Err(damaged(&format!(
                    "line {line}: video {video} is not of this run"
                )));
            }
            if !self.finished.insert(video.clone()) {
                return Err(damaged(&format!("line {line}: video {video} comes twice")));
            }
        }
        Ok(())
    }

    /// Whether a video is finished.
    pub fn has(&self, video: &str) -> bool {
        self.finished.contains(video)
    }

    /// Appends a finished video and syncs the file: after a crash it is there whole, or its line is
    /// torn and cut off by the next [`open`](Self::open).
    pub fn append(&mut self, scores: &VideoScores) -> Result<()> {
        let mut line = scores.to_line()?;
        line.push('\n');
        self.file
            .seek(SeekFrom::End(0))
            .and_then(|_| self.file.write_all(line.as_bytes()))
            .and_then(|()| self.file.sync_data())
            .or_kind(Kind::FailedPrecondition, self.failed("write"))?;
        self.finished.insert(scores.video.clone());
        Ok(())
    }
}
