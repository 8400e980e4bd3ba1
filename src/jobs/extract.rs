//! The features of a job's clips: kept ones where there are, else through the engine, one sample
//! after another, each kept at once.

use std::{collections::VecDeque, path::Path, sync::Arc};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{OpenClip, counts::Counts, progress::Meter, record::Snapshot};
use crate::{
    engine::{EngineHandle, Job, Lane, Ticket, probe::Clip},
    error::{Error, Kind, Result},
    head::{HeadFeatures, HeadSelection},
    library::{FeatureKey, Kept, KeptWriter, Library, Unit},
    limits,
    media::MediaTime,
    model::pixels::resize_bicubic_into,
    pipeline::{labelled::LabelledVideo, options::PictureOptions, prepare::PrepareOptions},
    score::locate::SegmentSpan,
    segment::SegmentRule,
};

/// What all clips of a job have in common.
pub(super) struct Extractor<'a> {
    pub engine: &'a EngineHandle,
    pub runtime: &'a Handle,
    pub library: &'a Arc<Library>,
    pub open: &'a OpenClip,
    pub cancel: &'a CancellationToken,
    pub meter: &'a Meter<'a>,
    /// Of the whole model.
    pub fingerprint: &'a str,
    pub prompts: &'a [String],
    pub rule: SegmentRule,
    pub frames_per_sample: usize,
}

/// A sample's place (`None`: it is the whole clip) and its features under the wanted prompts.
pub(super) type Sink<'a> =
    &'a mut dyn FnMut(usize, Option<SegmentSpan>, HeadFeatures) -> Result<()>;

/// The span under which a whole-video sample is kept.
const WHOLE: SegmentSpan = SegmentSpan {
    first_frame: 0,
    last_frame: 0,
    start: MediaTime::ZERO,
    end: MediaTime::ZERO,
    run: 0,
};

impl Extractor<'_> {
    /// Hands over the features of every sample of every clip, in order, with the clip's number; gives
    /// each clip's count of frames.
    ///
    /// Fails with the clip's name before its error.
    pub fn run(
        &self,
        clips: &[Snapshot],
        videos: &[LabelledVideo],
        sink: Sink,
    ) -> Result<Vec<u64>> {
        let mut counts = Counts::new(self.library, self.rule, clips, videos);
        counts.tell(self.meter);
        let mut frames = Vec::with_capacity(clips.len());
        for (number, (clip, video)) in clips.iter().zip(videos).enumerate() {
            let found = self
                .clip(number, &clip.id, video, &mut counts, sink)
                .and_then(|frames| video.check_frames(frames).map(|()| frames))
                .map_err(|e| {
                    // Where the server keeps its clips is nobody's business.
                    let shown = e.message().replace(&video.path.display().to_string(), "it");
                    let error = Error::new(
                        e.kind(),
                        format!("clip {} ({}): {shown}", clip.name, clip.id),
                    );
                    error.with_source(e)
                })?;
            counts.clip_done(number);
            frames.push(found);
        }
        Ok(frames)
    }

    fn key(&self, video: &LabelledVideo) -> FeatureKey {
        let unit = if video.intervals_known {
            Unit::Segments(self.rule)
        } else {
            Unit::WholeVideo
        };
        FeatureKey::new(
            self.engine.info(),
            self.fingerprint.to_owned(),
            self.prompts.to_vec(),
            unit,
            self.frames_per_sample,
        )
    }

    fn kept(&self, id: &str, video: &LabelledVideo) -> Result<Option<Kept>> {
        let key = self.key(video);
        if let Some(kept) = self.library.kept(id, &key)? {
            return Ok(Some(kept));
        }
        // Features under more prompts hold those under these.
        Ok(self.library.kept_where(id, &|other| {
            let asked = |prompt| other.prompts.contains(prompt);
            let same = FeatureKey {
                prompts: other.prompts.clone(),
                ..key.clone()
            };
            same == *other && self.prompts.iter().all(asked)
        }))
    }

    fn clip(
        &self,
        number: usize,
        id: &str,
        video: &LabelledVideo,
        counts: &mut Counts,
        sink: Sink,
    ) -> Result<u64> {
        let place = |span: &SegmentSpan| video.intervals_known.then_some(*span);
        if let Some(kept) = self.kept(id, video)? {
            for (sample, span) in kept.spans().iter().enumerate() {
                self.still_wanted()?;
                let features = chosen(kept.features(sample)?, &kept.key().prompts, self.prompts)?;
                sink(number, place(span), features)?;
                counts.reused(number, self.meter);
            }
            self.library.set_frames(id, kept.frames)?;
            return Ok(kept.frames);
        }
        let prepare = PrepareOptions {
            rule: self.rule,
            frames_per_segment: self.frames_per_sample,
            image_side: self.engine.info().image_side,
            keep_smaller: false,
            resize: Arc::new(resize_bicubic_into),
            pictures: PictureOptions::default(),
        };
        let mut run = Run {
            extractor: self,
            number,
            segments: video.intervals_known,
            writer: self.library.keep(id, &self.key(video))?,
            prompts: self.prompts.into(),
            stream: self.engine.new_stream(),
            // One at a time on a CPU, which gains nothing from batches: then no crash costs a
            // finished pass.
            ahead: if self.engine.info().device == "cpu" {
                1
            } else {
                limits::JOB_SEGMENTS_AHEAD
            },
            waiting: VecDeque::new(),
            at: 0,
            counts,
            sink,
        };
        let open = {
            let open = self.open.clone();
            move |path: &Path, cancel| open(path, cancel)
        };
        let frames = video.each_clip(open, &prepare, self.cancel, &mut |span, clip| {
            run.take(span.unwrap_or(WHOLE), clip)
        })?;
        run.finish(frames)?;
        self.library.set_frames(id, frames)?;
        Ok(frames)
    }

    fn still_wanted(&self) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(Error::cancelled("the job was cancelled"));
        }
        Ok(())
    }
}

/// One clip on its way through the engine.
struct Run<'a, 'b> {
    extractor: &'a Extractor<'a>,
    number: usize,
    segments: bool,
    writer: KeptWriter,
    prompts: Arc<[String]>,
    stream: u64,
    /// Most samples in the engine.
    ahead: usize,
    waiting: VecDeque<Waiting>,
    /// The number of the next sample.
    at: usize,
    counts: &'b mut Counts,
    sink: Sink<'b>,
}

/// A sample in the engine.
struct Waiting {
    span: SegmentSpan,
    /// For another try.
    clip: Clip,
    ticket: Ticket,
}

impl Run<'_, '_> {
    /// The next sample as it was decoded: taken over where a former run finished it, else run.
    fn take(&mut self, span: SegmentSpan, clip: Clip) -> Result<()> {
        let sample = self.at;
        self.at += 1;
        match self.writer.spans().get(sample) {
            Some(kept) if *kept == span => {
                let features = self.writer.features(sample)?;
                self.give(span, features)?;
                self.counts.reused(self.number, self.extractor.meter);
                return Ok(());
            }
            Some(_) => {
                tracing::warn!(
                    sample,
                    "the clip decodes differently than before; its features are made anew"
                );
                self.writer.truncate(sample)?;
            }
            None => {}
        }
        while self.waiting.len() >= self.ahead {
            self.settle()?;
        }
        let ticket = self.submit(&clip)?;
        self.waiting.push_back(Waiting { span, clip, ticket });
        Ok(())
    }

    fn finish(mut self, frames: u64) -> Result<()> {
        while !self.waiting.is_empty() {
            self.settle()?;
        }
        if self.at < self.writer.spans().len() {
            self.writer.truncate(self.at)?;
        }
        self.writer.finish(frames)
    }

    fn give(&mut self, span: SegmentSpan, features: HeadFeatures) -> Result<()> {
        (self.sink)(self.number, self.segments.then_some(span), features)
    }

    /// Waits for the oldest sample in the engine, and keeps it.
    fn settle(&mut self) -> Result<()> {
        let Some(Waiting { span, clip, ticket }) = self.waiting.pop_front() else {
            return Ok(());
        };
        let mut ticket = ticket;
        let mut attempts = 1;
        let features = loop {
            match self.answer(ticket) {
                // It was given up only because it waited long, and a job has time. A lack of memory would come again.
                Err(error)
                    if error.kind() == Kind::DeadlineExceeded
                        && attempts < limits::JOB_PASS_ATTEMPTS =>
                {
                    attempts += 1;
                    tracing::info!(attempts, "the engine was busy: {error:#}");
                    ticket = self.submit(&clip)?;
                }
                answer => break answer?,
            }
        };
        self.writer.push(span, &features)?;
        self.give(span, features)?;
        self.counts.passed(self.number, self.extractor.meter);
        Ok(())
    }

    fn answer(&self, ticket: Ticket) -> Result<HeadFeatures> {
        let cancel = self.extractor.cancel;
        self.extractor.runtime.block_on(async {
            tokio::select! {
                biased;
                () = cancel.cancelled() => Err(Error::cancelled("the job was cancelled")),
                answer = ticket => answer,
            }
        })
    }

    /// Puts a sample into the engine's queue, behind live streams and uploads.
    fn submit(&self, clip: &Clip) -> Result<Ticket> {
        let mut attempts = 1;
        loop {
            let job = Job {
                clip: clip.clone(),
                prompts: self.prompts.clone(),
                heads: HeadSelection::All,
                lane: Lane::Offline,
                stream: self.stream,
                deadline: None,
                cancel: self.extractor.cancel.clone(),
                stages: None,
            };
            let submitted = self
                .extractor
                .runtime
                .block_on(self.extractor.engine.submit(job));
            match submitted {
                // No room came in time.
                Err(error)
                    if error.kind() == Kind::ResourceExhausted
                        && attempts < limits::JOB_PASS_ATTEMPTS =>
                {
                    attempts += 1;
                    tracing::info!(attempts, "the engine was busy: {error:#}");
                }
                submitted => return submitted,
            }
        }
    }
}

/// The features under some of the prompts that they were made with.
fn chosen(features: HeadFeatures, has: &[String], wanted: &[String]) -> Result<HeadFeatures> {
    if has == wanted {
        return Ok(features);
    }
    let mut data = Vec::with_capacity(wanted.len() * features.heads * features.head_dim);
    for prompt in wanted {
        let at = has.iter().position(|known| known == prompt);
        let at = at.ok_or_else(|| Error::internal("kept features lack a prompt"))?;
        data.extend_from_slice(features.prompt(at));
    }
    Ok(HeadFeatures {
        prompts: wanted.len(),
        data,
        ..features
    })
}
