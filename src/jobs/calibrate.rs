//! The ways of making a profile: a hunt and a fit, a fit of heads that are there, normal footage.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{
    NormalOnly,
    progress::{Meter, Pace},
    request::{CalibrateRequest, HuntSettings},
    work::{Work, features_of, tell},
};
use crate::{
    error::{Error, Result},
    hunt::calibrate::LocatorFit,
    pipeline::{
        calibrate::{
            NormalOptions, RefitSample, calibrate, calibrate_normal, cut_normal_clips, refit,
        },
        labelled::{LabelledVideo, SamplingUnit, assign_units},
        report::Report,
    },
    profile::Profile,
};

/// A profile before it is stored.
struct Made {
    profile: Profile,
    locator: Option<LocatorFit>,
    report: Report,
    samples: usize,
    anomalous: usize,
    warnings: Vec<String>,
    /// What else the result says.
    more: Value,
}

/// What one sample of each clip is, as the command line decides it.
pub(super) fn units(
    videos: &mut [LabelledVideo],
    unit: SamplingUnit,
    normal_only: bool,
) -> Result<()> {
    assign_units(videos, unit)?;
    if normal_only && unit != SamplingUnit::WholeVideo {
        cut_normal_clips(videos);
    }
    Ok(())
}

impl NormalOnly {
    /// For the pipeline.
    pub(super) fn options(self, settings: &HuntSettings, name: &str) -> NormalOptions {
        NormalOptions {
            calibrate: settings.options(name),
            false_alarms_per_day: self.false_alarms_per_day,
            accept_upper_bound: self.accept_upper_bound,
        }
    }
}

impl Work<'_> {
    pub(super) fn calibrate(&self, request: &CalibrateRequest) -> Result<()> {
        let made = match (request.keep_heads, request.normal_only) {
            (true, _) => self.refitted(request)?,
            (false, Some(normal)) => self.normal(request, normal)?,
            (false, None) => self.hunted(request)?,
        };
        let mut profile = made.profile;
        // The job's time, so that a job that is run again after a crash between here and its end
        // writes the same version again.
        profile.created_unix_s = self.record.created_unix_ns / 1_000_000_000;
        let mut result = json!({
            "profile": request.profile,
            "activated": request.activate,
            "heads": profile.heads,
            "sigma": profile.locator.sigma,
            "threshold": profile.locator.threshold,
            "frame_f1": made.locator.map(|locator| locator.f1),
            "samples": made.samples,
            "anomalous_samples": made.anomalous,
            "warnings": made.warnings,
        });
        self.report(&made.report)?;
        let version = self.shared.book.add(profile, request.activate)?;
        if let (Value::Object(map), Value::Object(more)) = (&mut result, made.more) {
            map.extend(more);
            map.insert("version".into(), version.into());
        }
        self.shared.journal.write_result(&self.record.id, &result)
    }

    fn hunted(&self, request: &CalibrateRequest) -> Result<Made> {
        let meter = Meter::new(self.progress);
        let (set, videos) = self.samples(&request.options, &meter, None)?;
        let engine = &self.shared.engine;
        let pace = Pace::begin();
        let made = calibrate(
            &set,
            &videos,
            engine.info(),
            |layers| self.shared.runtime.block_on(engine.fingerprint(layers)),
            &request.options.options(&request.profile),
            self.cancel,
            &|stage, done, total| tell(&meter, &pace, stage, done, total),
        )?;
        Ok(Made {
            profile: made.profile,
            locator: made.locator,
            report: made.report,
            samples: set.samples.len(),
            anomalous: set.samples.iter().filter(|sample| sample.anomaly).count(),
            warnings: made.warnings,
            more: json!({}),
        })
    }

    fn normal(&self, request: &CalibrateRequest, normal: NormalOnly) -> Result<Made> {
        let meter = Meter::new(self.progress);
        let options = normal.options(&request.options, &request.profile);
        let (set, videos) = self.samples(&request.options, &meter, Some(&options))?;
        let engine = &self.shared.engine;
        let pace = Pace::begin();
        let made = calibrate_normal(
            &set,
            &videos,
            engine.info(),
            |layers| self.shared.runtime.block_on(engine.fingerprint(layers)),
            &options,
            self.cancel,
            &|stage, done, total| tell(&meter, &pace, stage, done, total),
        )?;
        Ok(Made {
            profile: made.profile,
            locator: made.locator,
            report: made.report,
            samples: set.samples.len(),
            anomalous: set.samples.iter().filter(|sample| sample.anomaly).count(),
            warnings: made.warnings,
            more: json!({"normal_only": true}),
        })
    }

    /// Fits scorer and locator of the heads that are in use; where the clips' features are kept, and
    /// for feedback always, without a pass.
    fn refitted(&self, request: &CalibrateRequest) -> Result<Made> {
        let meter = Meter::new(self.progress);
        let book = &self.shared.book;
        let (base, _) = book.get(&request.profile, &request.base_version)?;
        let mut videos = self.videos();
        units(&mut videos, request.options.unit, false)?;
        let prompt = base.scoring_prompts.first().ok_or_else(|| {
            Error::internal(format!("the profile {} has no scoring prompt", base.name))
        })?;
        // The features that its hunt left behind hold the scoring prompt's first.
        let prompts = match base.hunt_prompts.first() {
            Some(first) if first == prompt => &base.hunt_prompts,
            _ => std::slice::from_ref(prompt),
        };
        let mut samples = Vec::new();
        self.extractor(&meter, prompts, base.segment, base.frames_per_segment)
            .run(
                &self.record.clips,
                &videos,
                &mut |number, span, features| {
                    let video = videos
                        .get(number)
                        .ok_or_else(|| Error::internal("a sample of no clip"))?;
                    let sample = video.sample(number, span);
                    samples.push(RefitSample {
                        name: sample.name,
                        z: features_of(&base, self.shared.engine.info().heads, &features, 0)?,
                        anomaly: sample.anomaly,
                        group: number,
                        span: sample.span,
                    });
                    Ok(())
                },
            )?;
        let mut more = json!({});
        if request.include_feedback {
            let feedback = book.feedback(&base)?;
            more = json!({
                "feedback_samples": feedback.usable.len(),
                "feedback_unusable": feedback.unusable,
            });
            let mut groups = HashMap::new();
            for sample in feedback.usable {
                let next = videos.len() + groups.len();
                samples.push(RefitSample {
                    name: format!("feedback {}", sample.id),
                    z: sample.z,
                    anomaly: sample.anomaly,
                    group: *groups.entry(sample.group).or_insert(next),
                    span: None,
                });
            }
        }
        let pace = Pace::begin();
        let made = refit(
            &base,
            &samples,
            &videos,
            &request.options.options(&request.profile),
            self.cancel,
            &|stage, done, total| tell(&meter, &pace, stage, done, total),
        )?;
        Ok(Made {
            profile: made.profile,
            locator: Some(made.locator),
            report: made.report,
            samples: samples.len(),
            anomalous: samples.iter().filter(|sample| sample.anomaly).count(),
            warnings: made.warnings,
            more,
        })
    }
}
