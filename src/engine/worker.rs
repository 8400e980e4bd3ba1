//! The thread that owns the model.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use tokio::sync::watch;

use crate::{
    error::{Error, Kind, Result},
    head::{HeadFeatures, HeadSelection},
    limits,
    media::SharedImage,
    telemetry::{
        metrics::{self, Outcome, Stage},
        traces::StageTime,
    },
};

use super::{
    EngineConfig, Lane,
    gate::{FingerprintRequest, Gate, Running, Work},
    probe::{Clip, HeadProbe, PassTimes},
    union,
};

pub(super) struct Worker {
    pub probe: Box<dyn HeadProbe>,
    pub gate: Arc<Gate>,
    pub config: EngineConfig,
    pub warm: watch::Sender<bool>,
    /// How many clips the device's memory held at last.
    pub rooms: Rooms,
    /// When an engine that fails was last given a pass to show that it works again.
    pub checked: Cell<Instant>,
}

/// Most clips of one pass, where memory ran out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    /// `None`: it never did, or not for long.
    clips: Option<usize>,
    /// Passes of that many that went well since.
    passes: u32,
}

impl Room {
    /// `wanted`, or as much as there was room for.
    fn of(self, wanted: usize) -> usize {
        self.clips.map_or(wanted, |clips| clips.min(wanted))
    }

    /// A pass of `clips` clips went well: after [`limits::ROOM_PASSES`] full ones one more is tried, since
    /// another process may have left.
    fn held(self, clips: usize) -> Self {
        match self.clips {
            Some(most) if clips >= most && self.passes + 1 >= limits::ROOM_PASSES => Room {
                clips: Some(most + 1),
                passes: 0,
            },
            Some(most) if clips >= most => Room {
                clips: Some(most),
                passes: self.passes + 1,
            },
            _ => self,
        }
    }

    /// Memory ran out with `clips` clips, of which half are tried next.
    fn lacked(clips: usize) -> Self {
        Room {
            clips: Some((clips / 2).max(1)),
            passes: 0,
        }
    }
}

/// Of detections and of jobs apart: a job's pass, with every head and prompt, needs more, and shares none with detections.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    detections: Cell<Room>,
    jobs: Cell<Room>,
}

impl Rooms {
    fn of(&self, lane: Lane) -> &Cell<Room> {
        match lane {
            Lane::Live | Lane::Upload => &self.detections,
            Lane::Offline => &self.jobs,
        }
    }
}

/// Refuses all waiting work when the thread ends, however it ends.
struct StopOnDrop(Arc<Gate>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop(None);
    }
}

impl Worker {
    pub fn run(self) {
        let _stop = StopOnDrop(self.gate.clone());
        if self.config.warm_up
            && let Err(error) = self.warm_up(limits::WARM_UP_PASSES)
        {
            tracing::error!(error = %format_args!("{error:#}"), "warm-up pass failed");
            let message = format!("the warm-up pass failed: {error:#}");
            self.gate.stop(Some((error.kind(), message)));
            return;
        }
        self.warm.send_replace(true);
        loop {
            // One that is not sent anything any more could not show it otherwise.
            let check = self.gate.pulse.fails().is_some();
            let check = check.then(|| self.checked.get() + self.config.check_every);
            match self.gate.next(
                |lane| self.rooms.of(lane).get().of(self.config.max_batch),
                self.config.batch_wait,
                check,
            ) {
                Work::Pass(batch) => self.pass(batch),
                Work::Check => {
                    if let Err(error) = self.warm_up(1) {
                        tracing::error!(error = %format_args!("{error:#}"), "the model still fails");
                    }
                    self.checked.set(Instant::now());
                }
                Work::Fingerprint(request) => self.fingerprint(request),
                Work::Stop => break,
            }
        }
        self.warm.send_replace(false);
    }

    /// Passes over grey frames: the first pages the weights in and loads kernels, those after it measure, at most so
    /// many in all and none that would end too late.
    fn warm_up(&self, passes: u32) -> Result<()> {
        let info = self.probe.info();
        let heads = self.config.warm_up_selection(info);
        let pixels = info.image_side * info.image_side * 3;
        let side = u32::try_from(info.image_side).unwrap_or(u32::MAX);
        // Apart in memory, so that the probe cannot take them for one repeated frame.
        let frames = (0..limits::FRAMES_PER_SEGMENT)
            .map(|_| SharedImage::square(side, vec![128u8; pixels]))
            .collect();
        let clip = [Clip { frames }];
        let started = Instant::now();
        let pass = || {
            let started = Instant::now();
            self.gate.pulse.beat();
            let passed = self.probe_all(&clip, &self.config.warm_up_prompts, &heads, true);
            self.gate.pulse.beat();
            passed.map(|(features, _)| (features, started.elapsed()))
        };
        let (features, first) = pass()?;
        let mut fastest = first;
        for _ in 1..passes {
            if started.elapsed() + fastest > limits::WARM_UP_TIME {
                break;
            }
            match pass() {
                Ok((_, took)) => fastest = fastest.min(took),
                // It works: a pass has shown it. One that fails every pass is found out by those of streams.
                Err(error) => {
                    tracing::warn!(error = %format_args!("{error:#}"), "a further warm-up pass failed");
                    break;
                }
            }
        }
        if fastest < first {
            // A cold pass says nothing about those to come: on an H100 it took 0.27 s, and the next 0.11.
            self.gate.pulse.begin_with(fastest);
        }
        tracing::info!(
            model = info.name,
            device = info.device,
            seconds = first.as_secs_f64(),
            seconds_warm = fastest.as_secs_f64(),
            features = features.iter().map(|f| f.data.len()).sum::<usize>(),
            "warm-up passes done"
        );
        Ok(())
    }

    /// Runs a batch; if it fails, each of it alone, so that one bad segment spoils no other. Where memory
    /// ran out, its halves, and so on.
    fn pass(&self, mut batch: Vec<Running>) {
        let Some(first) = batch.first() else {
            return;
        };
        let room = self.rooms.of(first.job.lane);
        match self.probe_jobs(&batch) {
            Ok(features) => {
                room.set(room.get().held(batch.len()));
                for (running, features) in batch.into_iter().zip(features) {
                    answer(running, Ok(features));
                }
            }
            Err(error) if batch.len() == 1 => {
                if let Some(running) = batch.pop() {
                    let error = self.failed(running.job.lane, error);
                    answer(running, Err(error));
                }
            }
            Err(error) if error.kind() == Kind::ResourceExhausted => {
                room.set(Room::lacked(batch.len()));
                tracing::warn!(
                    error = %format_args!("{error:#}"),
                    clips = batch.len(),
                    "memory ran out in a batch; running its halves"
                );
                let rest = batch.split_off(batch.len() / 2);
                self.pass(batch);
                self.pass(rest);
            }
            Err(error) => {
                tracing::warn!(
                    error = %format_args!("{error:#}"),
                    clips = batch.len(),
                    "a batch failed; running its segments one by one"
                );
                for running in batch {
                    if running.is_abandoned() {
                        answer(running, Err(Error::cancelled("the caller left")));
                        continue;
                    }
                    let features = self
                        .probe_jobs(std::slice::from_ref(&running))
                        .map(|mut features| features.swap_remove(0))
                        .map_err(|error| self.failed(running.job.lane, error));
                    answer(running, features);
                }
            }
        }
    }

    /// A segment's pass failed, though it was alone. One of a job, with every head and prompt, may lack memory
    /// where those of detections do not: that says nothing about how the engine is.
    fn failed(&self, lane: Lane, error: Error) -> Error {
        // Features that are no numbers may be for one segment's sake; those of all segments are not.
        if matches!(
            error.kind(),
            Kind::Internal | Kind::ResourceExhausted | Kind::DataLoss
        ) {
            if lane != Lane::Offline || error.kind() != Kind::ResourceExhausted {
                self.gate.pulse.failed();
            }
            tracing::error!(error = %format_args!("{error:#}"), "a pass failed");
        }
        error.context("model")
    }

    /// Runs these in one pass; their clips and prompts fit together.
    fn probe_jobs(&self, jobs: &[Running]) -> Result<Vec<HeadFeatures>> {
        let Some(first) = jobs.first() else {
            return Ok(Vec::new());
        };
        let clips: Vec<Clip> = jobs
            .iter()
            .map(|running| running.job.clip.clone())
            .collect();
        let prompts = &first.job.prompts;
        let selections = || jobs.iter().map(|running| &running.job.heads);
        let union = if selections().all(|heads| *heads == first.job.heads) {
            first.job.heads.clone()
        } else {
            union::union(selections())
        };
        let began = Instant::now();
        // All or none: see `Job::fits`.
        let detected = jobs.iter().any(|running| running.job.lane != Lane::Offline);
        let passed = self.probe_all(&clips, prompts, &union, detected);
        let times = passed.as_ref().ok().and_then(|(_, times)| *times);
        note(jobs, began, Instant::now(), times);
        passed?
            .0
            .into_iter()
            .zip(selections())
            .map(|(features, own)| union::gather(features, &union, own, self.probe.info()))
            .collect()
    }

    fn probe_all(
        &self,
        clips: &[Clip],
        prompts: &[String],
        heads: &HeadSelection,
        detected: bool,
    ) -> Result<(Vec<HeadFeatures>, Option<PassTimes>)> {
        metrics::batch_size(clips.len());
        let started = Instant::now();
        self.gate.pulse.beat();
        let (features, times) = self.guarded(|| self.probe.probe_timed(clips, prompts, heads))?;
        let took = started.elapsed();
        self.check_shape(&features, clips.len(), prompts.len(), heads)?;
        metrics::stage(Stage::Pass, took);
        self.gate.pulse.passed(clips.len(), took, detected);
        Ok((features, times))
    }

    /// Users index by these shapes, so a probe that breaks them must not get past this point.
    fn check_shape(
        &self,
        features: &[HeadFeatures],
        clips: usize,
        prompts: usize,
        heads: &HeadSelection,
    ) -> Result<()> {
        let info = self.probe.info();
        let heads = match heads {
            HeadSelection::All => info.layers * info.heads,
            HeadSelection::Only(ids) => ids.len(),
        };
        let as_promised = features.len() == clips
            && features.iter().all(|f| {
                (f.prompts, f.heads, f.head_dim) == (prompts, heads, info.head_dim)
                    && f.data.len() == prompts * heads * info.head_dim
            });
        if as_promised {
            Ok(())
        } else {
            Err(Error::internal(format!(
                "the model returned {} results of {:?} for {clips} clips of {:?}",
                features.len(),
                features.first().map(|f| (f.prompts, f.heads, f.head_dim)),
                (prompts, heads, info.head_dim)
            )))
        }
    }

    fn fingerprint(&self, request: FingerprintRequest) {
        let result = self.guarded(|| self.probe.fingerprint(request.layers));
        if let Ok(fingerprint) = &result {
            self.gate.keep_fingerprint(request.layers, fingerprint);
        }
        let _ = request.answer.send(result);
    }

    /// Turns a panic of the model into an error. The model is used again after it: a pass keeps no
    /// state in it, and one that panics again and again is reported by the health check.
    fn guarded<T>(&self, call: impl FnOnce() -> Result<T>) -> Result<T> {
        catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
            self.gate.pulse.panicked();
            let what = panic_message(panic.as_ref());
            tracing::error!(panic = what, "the model panicked");
            Err(Error::new(Kind::Internal, format!("it panicked: {what}")))
        })
    }
}

/// Notes down for each job of a pass when its stages were; the pass as a whole where the model does not say
/// or failed. What stands before the first stage (tokens of the prompts) belongs to none.
fn note(jobs: &[Running], began: Instant, ended: Instant, times: Option<PassTimes>) {
    for stages in jobs
        .iter()
        .filter_map(|running| running.job.stages.as_ref())
    {
        let add = |stage, from, to| {
            stages.add(StageTime {
                clips: jobs.len(),
                ..StageTime::new(stage, from, to)
            });
        };
        match times {
            Some(PassTimes { vision, language }) => {
                let before =
                    |at: Instant, took| at.checked_sub(took).map_or(began, |at| at.max(began));
                let between = before(ended, language);
                add(Stage::Vision, before(between, vision), between);
                add(Stage::Language, between, ended);
            }
            None => add(Stage::Pass, began, ended),
        }
    }
}

fn answer(running: Running, result: Result<HeadFeatures>) {
    metrics::segment(match &result {
        Ok(_) => Outcome::Scored,
        Err(error) if error.kind() == Kind::Cancelled => Outcome::Cancelled,
        Err(_) => Outcome::Failed,
    });
    // The caller may have left during the pass.
    let _ = running.answer.send(result);
}

/// What a caught panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}
