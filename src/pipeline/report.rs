//! What a hunt or a calibration found, for people: a page, and the numbers behind it.

use serde_json::Value;

use crate::{
    error::{Error, Kind, Result, ResultExt},
    hunt::{HuntOptions, HuntResult, file, file::LabelledFeatures, report},
    pipeline::samples::SampleSet,
};

/// A report.
#[derive(Clone, Debug)]
pub struct Report {
    html: String,
    json: Value,
}

impl Report {
    /// Of a hunt.
    pub fn of_hunt(
        set: &SampleSet,
        prompts: &[String],
        result: &HuntResult,
        options: &HuntOptions,
    ) -> Result<Report> {
        let labelled = LabelledFeatures {
            features: crate::hunt::Features {
                data: Vec::new(),
                ..set.features
            },
            labels: set.labels(),
            sample_names: Some(set.names()),
            prompts: Some(prompts.to_vec()),
        };
        let folder = tempfile::tempdir()
            .or_kind(Kind::ResourceExhausted, || "no temporary folder".to_owned())?;
        let path = folder.path().join("hunt.json");
        file::write_result(&path, result, options)?;
        let text = std::fs::read(&path)
            .or_kind(Kind::Internal, || "the hunt's result is gone".to_owned())?;
        Ok(Report {
            html: report::page(&labelled, result, options),
            json: serde_json::from_slice(&text)
                .or_kind(Kind::Internal, || "the hunt's result is no JSON".to_owned())?,
        })
    }

    /// The numbers.
    pub fn json(&self) -> Result<String> {
        serde_json::to_string(&self.json)
            .map_err(|e| Error::internal("the report cannot be written").with_source(e))
    }

    /// A self-contained page.
    pub fn html(&self) -> Result<String> {
        Ok(self.html.clone())
    }
}
