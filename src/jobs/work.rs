//! What a job does, on the jobs' thread.

use std::{path::Path, sync::Arc};

use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Progress, ReportFormat, Request,
    calibrate::units,
    extract::Extractor,
    progress::{Meter, Pace},
    queue::Shared,
    record::Record,
    request::HuntSettings,
};
use crate::{
    error::{Error, Kind, Result, ResultExt},
    head::HeadFeatures,
    hunt,
    limits::FRAMES_PER_SEGMENT,
    pipeline::{
        calibrate::{CalibrateStage, Hunted, NormalOptions, hunt_heads},
        enough::{enough_footage, enough_samples},
        evaluate::{ScoredVideo, evaluate_videos},
        labelled::LabelledVideo,
        report::Report,
        samples::{SampleSet, SampleSetBuilder},
    },
    profile::Profile,
    score::Scorer,
};

/// A job that runs.
pub(super) struct Work<'a> {
    pub shared: &'a Shared,
    pub record: &'a Record,
    pub progress: &'a watch::Sender<Progress>,
    pub cancel: &'a CancellationToken,
}

impl Work<'_> {
    /// Runs the job to its end; result and report are written when this returns.
    pub fn run(&self) -> Result<()> {
        self.same_model()?;
        match &self.record.request {
            Request::Hunt { options } => self.hunt(options),
            Request::Calibrate(request) => self.calibrate(request),
            Request::Evaluate { profile, version } => self.evaluate(profile, version),
        }
    }

    /// A job belongs to the model that it was taken for.
    fn same_model(&self) -> Result<()> {
        let engine = &self.shared.engine;
        let now = self
            .shared
            .runtime
            .block_on(engine.fingerprint(engine.info().layers))?;
        if now == self.record.fingerprint {
            return Ok(());
        }
        Err(Error::precondition(format!(
            "the job was taken for another model than the present {} (fingerprint {}, now {now}): \
             start it again",
            engine.info().name,
            self.record.fingerprint
        )))
    }

    pub(super) fn videos(&self) -> Vec<LabelledVideo> {
        let clips = self.record.clips.iter();
        clips
            .map(|clip| clip.video(self.shared.library.path(&clip.id)))
            .collect()
    }

    pub(super) fn extractor<'a>(
        &'a self,
        meter: &'a Meter<'a>,
        prompts: &'a [String],
        rule: crate::segment::SegmentRule,
        frames_per_sample: usize,
    ) -> Extractor<'a> {
        Extractor {
            engine: &self.shared.engine,
            runtime: &self.shared.runtime,
            library: &self.shared.library,
            open: &self.shared.open,
            cancel: self.cancel,
            meter,
            fingerprint: &self.record.fingerprint,
            prompts,
            rule,
            frames_per_sample,
        }
    }

    /// The samples of the job's clips.
    pub(super) fn samples(
        &self,
        settings: &HuntSettings,
        meter: &Meter,
        normal: Option<&NormalOptions>,
    ) -> Result<(SampleSet, Vec<LabelledVideo>)> {
        let mut videos = self.videos();
        units(&mut videos, settings.unit, normal.is_some())?;
        let open = {
            let open = self.shared.open.clone();
            move |path: &Path, cancel| open(path, cancel)
        };
        let enough = match normal {
            Some(normal) => enough_footage(&videos, open, normal, self.cancel),
            None => enough_samples(&videos, open, settings.rule, self.cancel),
        };
        enough.map_err(|e| {
            // Where the server keeps its clips is nobody's business.
            let mut shown = e.message().to_owned();
            for video in &videos {
                shown = shown.replace(&video.path.display().to_string(), "it");
            }
            Error::new(e.kind(), shown).with_source(e)
        })?;
        let mut builder = SampleSetBuilder::new(self.shared.engine.info(), settings.prompts.len());
        if normal.is_none() {
            builder = builder.for_a_hunt();
        }
        self.extractor(meter, &settings.prompts, settings.rule, FRAMES_PER_SEGMENT)
            .run(
                &self.record.clips,
                &videos,
                &mut |number, span, features| {
                    let video = videos
                        .get(number)
                        .ok_or_else(|| Error::internal("a sample of no clip"))?;
                    builder.push(video.sample(number, span), &features)
                },
            )?;
        Ok((builder.finish(), videos))
    }

    fn hunt(&self, settings: &HuntSettings) -> Result<()> {
        let meter = Meter::new(self.progress);
        let (set, videos) = self.samples(settings, &meter, None)?;
        let options = settings.options("hunt");
        let pace = Pace::begin();
        let Hunted { hunt, report, .. } = hunt_heads(
            &set,
            &videos,
            self.shared.engine.info(),
            &options,
            self.cancel,
            &|stage, done, total| tell(&meter, &pace, stage, done, total),
        )?;
        self.report(&report)?;
        // The very file that `headhunt hunt --out` writes. Last: a job with a result has succeeded.
        hunt::file::write_result(
            &self.shared.journal.result_path(&self.record.id),
            &hunt,
            &options.hunt,
        )
    }

    fn evaluate(&self, name: &str, version: &str) -> Result<()> {
        let meter = Meter::new(self.progress);
        let (profile, version) = self.shared.book.get(name, version)?;
        let mut videos = self.videos();
        for video in &mut videos {
            video.intervals_known = true;
        }
        let scored = self.score(&profile, &videos, &meter)?;
        meter.tell("evaluate", 0, 1, None);
        let evaluation = evaluate_videos(&scored, &profile.locator)?;
        let mut result = serde_json::to_value(&evaluation)
            .or_kind(Kind::Internal, || "cannot write the evaluation".to_owned())?;
        if let Value::Object(map) = &mut result {
            map.insert("profile".into(), name.into());
            map.insert("profile_version".into(), version.into());
        }
        let journal = &self.shared.journal;
        journal.write_report(&self.record.id, ReportFormat::Json, &result.to_string())?;
        let page = page("Evaluation", &result);
        journal.write_report(&self.record.id, ReportFormat::Html, &page)?;
        journal.write_result(&self.record.id, &result)
    }

    /// p of every segment of every video, as detection computes it.
    fn score(
        &self,
        profile: &Arc<Profile>,
        videos: &[LabelledVideo],
        meter: &Meter,
    ) -> Result<Vec<ScoredVideo>> {
        let scorer = Scorer::from(profile.as_ref());
        let heads_per_layer = self.shared.engine.info().heads;
        let mut scored: Vec<ScoredVideo> = videos
            .iter()
            .map(|video| ScoredVideo {
                name: video.name.clone(),
                frames: 0,
                anomalous: video.anomalous.clone(),
                class: None,
                spans: Vec::new(),
                p: Vec::new(),
            })
            .collect();
        let frames = self
            .extractor(
                meter,
                &profile.scoring_prompts,
                profile.segment,
                profile.frames_per_segment,
            )
            .run(&self.record.clips, videos, &mut |number, span, features| {
                let mut sum = 0.0;
                for prompt in 0..features.prompts {
                    let z = features_of(profile, heads_per_layer, &features, prompt)?;
                    sum += scorer.probability(&z)?;
                }
                if let (Some(video), Some(span)) = (scored.get_mut(number), span) {
                    video.spans.push(span);
                    video.p.push(sum / features.prompts as f64);
                }
                Ok(())
            })?;
        for (video, frames) in scored.iter_mut().zip(frames) {
            video.frames = frames;
            if let Some((first, end)) = video.anomalous.last().filter(|(_, end)| *end > frames) {
                return Err(Error::invalid(format!(
                    "clip {}: frames {first} to {end} are labelled, and it has {frames}: relabel it",
                    video.name
                )));
            }
        }
        Ok(scored)
    }

    pub(super) fn report(&self, report: &Report) -> Result<()> {
        let journal = &self.shared.journal;
        let id = &self.record.id;
        journal.write_report(id, ReportFormat::Html, &report.html()?)?;
        journal.write_report(id, ReportFormat::Json, &report.json()?)
    }
}

/// z of a profile's heads under a prompt, from the features of all heads.
pub(super) fn features_of(
    profile: &Profile,
    heads_per_layer: usize,
    features: &HeadFeatures,
    prompt: usize,
) -> Result<Vec<f32>> {
    let all = features.prompt(prompt);
    let mut z = Vec::with_capacity(profile.heads.len() * features.head_dim);
    for id in &profile.heads {
        let at = (id.layer * heads_per_layer + id.head) * features.head_dim;
        let slice = all.get(at..at + features.head_dim);
        z.extend_from_slice(
            slice.ok_or_else(|| Error::internal("the model has fewer heads than the profile"))?,
        );
    }
    Ok(z)
}

pub(super) fn tell(meter: &Meter, pace: &Pace, stage: CalibrateStage, done: usize, total: usize) {
    let (done, total) = (done as u64, total as u64);
    let remaining = (stage == CalibrateStage::Hunt)
        .then(|| pace.remaining_of(done, total))
        .flatten();
    meter.tell(stage.as_str(), done, total, remaining);
}

/// A result's plain numbers as a page.
fn page(title: &str, result: &Value) -> String {
    let escape = |text: &str| {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
    };
    let rows: String = result
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| {
            let value = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            format!(
                "<tr><th>{}</th><td>{}</td></tr>\n",
                escape(name),
                escape(&value)
            )
        })
        .collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>HeadHunt: {title}\
         </title></head><body><h1>{title}</h1>\n<table>\n{rows}</table></body></html>\n"
    )
}
