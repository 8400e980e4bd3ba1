//! Jobs on disk: `ID.json` is the job, `ID.result.json` what it gave, `ID.report.html` and
//! `ID.report.json` its report.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::record::{Record, SCHEMA};
use crate::{
    error::{Error, Kind, Result, ResultExt},
    files::{OUTPUT, write_output},
    limits,
};

/// How a report is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportFormat {
    /// One self-contained page.
    Html,
    /// The numbers behind it.
    Json,
}

impl ReportFormat {
    const fn ending(self) -> &'static str {
        match self {
            ReportFormat::Html => "report.html",
            ReportFormat::Json => "report.json",
        }
    }
}

const RESULT: &str = "result.json";

/// The folder of jobs.
#[derive(Debug)]
pub(super) struct Journal {
    folder: PathBuf,
}

impl Journal {
    /// Opens a folder, which is made where there is none, and reads its jobs, oldest first. A record
    /// that cannot be read is put aside, and logged.
    pub fn open(folder: PathBuf) -> Result<(Journal, Vec<Record>)> {
        let unusable = || "the jobs' folder under admin.dir cannot be used".to_owned();
        fs::create_dir_all(&folder).or_kind(Kind::FailedPrecondition, unusable)?;
        let mut records = Vec::new();
        for entry in fs::read_dir(&folder).or_kind(Kind::FailedPrecondition, unusable)? {
            let path = entry.or_kind(Kind::FailedPrecondition, unusable)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            if name.starts_with(OUTPUT.prefix) {
                // Of a write that did not end.
                let _ = fs::remove_file(&path);
            } else if let Some(id) = name.strip_suffix(".json").filter(|id| is_id(id)) {
                match read_record(&path, id) {
                    Some(record) => records.push(record),
                    None => {
                        tracing::error!(job = id, "a job's record is damaged and put aside");
                        let _ = fs::rename(&path, path.with_extension("damaged"));
                    }
                }
            }
        }
        records.sort_by(|a, b| (a.created_unix_ns, &a.id).cmp(&(b.created_unix_ns, &b.id)));
        Ok((Journal { folder }, records))
    }

    fn path(&self, id: &str, ending: &str) -> PathBuf {
        self.folder.join(format!("{id}.{ending}"))
    }

    /// Replaces a job's record.
    pub fn write(&self, record: &Record) -> Result<()> {
        self.put(&record.id, "json", |out| {
            serde_json::to_writer(out, record).map_err(io::Error::from)
        })
    }

    /// Where a job's result goes.
    pub fn result_path(&self, id: &str) -> PathBuf {
        self.path(id, RESULT)
    }

    /// Whether a job has written its result, which it does last.
    pub fn has_result(&self, id: &str) -> bool {
        self.result_path(id).is_file()
    }

    /// Writes a job's result.
    pub fn write_result(&self, id: &str, json: &Value) -> Result<()> {
        self.put(id, RESULT, |out| {
            serde_json::to_writer(out, json).map_err(io::Error::from)
        })
    }

    /// Writes a job's report.
    pub fn write_report(&self, id: &str, format: ReportFormat, text: &str) -> Result<()> {
        if text.len() as u64 > limits::JOB_REPORT_MAX_BYTES {
            return Err(Error::exhausted(format!(
                "the report has more than {} bytes: hunt with fewer clips or prompts",
                limits::JOB_REPORT_MAX_BYTES
            ))
            .for_good());
        }
        self.put(id, format.ending(), |out| out.write_all(text.as_bytes()))
    }

    fn put(
        &self,
        id: &str,
        ending: &str,
        write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
    ) -> Result<()> {
        write_output(&self.path(id, ending), write).map_err(|error| {
            let message = match error.kind() {
                Kind::ResourceExhausted => {
                    "the job could not be written down: the disk under admin.dir is full or refused"
                }
                _ => "the job could not be written down: admin.dir is gone",
            };
            Error::new(error.kind(), message).with_source(error)
        })
    }

    /// A job's result as JSON, short enough for one message.
    ///
    /// Fails with `DataLoss` where it is not there.
    pub fn result(&self, id: &str) -> Result<String> {
        let lost = || "the job's result is gone from admin.dir".to_owned();
        let mut text = String::new();
        File::open(self.result_path(id))
            .or_kind(Kind::DataLoss, lost)?
            .take(limits::JOB_REPORT_MAX_BYTES)
            .read_to_string(&mut text)
            .or_kind(Kind::DataLoss, lost)?;
        let text = text.trim_end().to_owned();
        if text.len() <= limits::JOB_RESULT_MAX_BYTES {
            return Ok(text);
        }
        let mut value: Value = serde_json::from_str(&text).or_kind(Kind::DataLoss, lost)?;
        if let Value::Object(map) = &mut value {
            map.retain(|key, value| key == "heads" || key == "notes" || !value.is_array());
            map.insert("arrays_left_out".into(), true.into());
        }
        Ok(value.to_string())
    }

    /// A job's report.
    ///
    /// Fails with `DataLoss` where it is not there.
    pub fn report(&self, id: &str, format: ReportFormat) -> Result<File> {
        File::open(self.path(id, format.ending()))
            .or_kind(Kind::DataLoss, || "the job's report is gone".to_owned())
    }

    /// Forgets a job.
    pub fn remove(&self, id: &str) {
        for ending in [
            "json",
            RESULT,
            ReportFormat::Html.ending(),
            ReportFormat::Json.ending(),
        ] {
            let path = self.path(id, ending);
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(job = id, %error, "a file of an old job could not be removed");
            }
        }
    }
}

pub(super) fn is_id(text: &str) -> bool {
    text.len() == 32
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn read_record(path: &Path, id: &str) -> Option<Record> {
    let mut text = Vec::new();
    File::open(path)
        .ok()?
        .take(limits::JOB_RECORD_MAX_BYTES)
        .read_to_end(&mut text)
        .ok()?;
    let record: Record = serde_json::from_slice(&text).ok()?;
    (record.schema == SCHEMA && record.id == id).then_some(record)
}
