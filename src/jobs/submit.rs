//! What is asked of the jobs, checked before any long work.

use std::collections::HashSet;

use super::{Jobs, ProfileBook, Request, calibrate::units, record::Snapshot};
use crate::{
    error::{Error, Result},
    limits,
    profile::check_name,
};

impl Jobs {
    /// Takes a job; gives its id. An empty list of clips is every stored one (for an evaluation,
    /// every one whose frames are all known).
    ///
    /// Fails, before any long work, with the field where one is at fault: `InvalidArgument` for
    /// options and clips that cannot be used, `NotFound` for a clip or profile that is not there,
    /// `Aborted` where a job writes the same profile already, `FailedPrecondition` where the server
    /// cannot do it, `ResourceExhausted` where too many jobs wait.
    pub async fn submit(&self, mut request: Request, clip_ids: &[String]) -> Result<String> {
        let shared = &self.shared;
        let info = shared.engine.info();
        if info.resident_layers < info.layers {
            return Err(Error::precondition(format!(
                "only {} of {} layers are loaded, and jobs read all heads: start the server with \
                 admin.dir set",
                info.resident_layers, info.layers
            )));
        }
        if let Request::Calibrate(request) = &mut request {
            check_name(&request.profile).map_err(|e| e.with_field("profile"))?;
            let name = request.profile.clone();
            self.look(move |book| book.writable(&name)).await?;
            if request.include_feedback && !request.keep_heads {
                return Err(Error::invalid(
                    "feedback holds the features of the heads that were in use: set keep_heads too",
                )
                .with_field("include_feedback"));
            }
            if request.keep_heads {
                let (name, feedback) = (request.profile.clone(), request.include_feedback);
                let version = self.look(move |book| {
                    let (base, version) = book.get(&name, "")?;
                    if feedback {
                        book.feedback(&base)?;
                    }
                    Ok(version)
                });
                // So that the job stays with it, whatever is activated meanwhile.
                request.base_version = version.await?;
            }
        }
        if let Request::Evaluate { profile, version } = &mut request {
            let (name, at) = (profile.clone(), version.clone());
            let (found, which) = self.look(move |book| book.get(&name, &at)).await?;
            // So that the job stays with it, whatever is activated meanwhile.
            *profile = found.name.clone();
            *version = which;
        }
        let clips = self.clips(&request, clip_ids)?;
        self.check(&request, &clips)?;
        let fingerprint = shared.engine.fingerprint(info.layers).await?;
        // Writes to the disk.
        let shared = shared.clone();
        tokio::task::spawn_blocking(move || shared.enqueue(request, clips, fingerprint))
            .await
            .unwrap_or_else(|error| Err(Error::internal("a task failed").with_source(error)))
    }

    /// Asks the book, which may block.
    async fn look<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn ProfileBook) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || ask(shared.book.as_ref()))
            .await
            .unwrap_or_else(|error| Err(Error::internal("a task failed").with_source(error)))
    }

    fn clips(&self, request: &Request, ids: &[String]) -> Result<Vec<Snapshot>> {
        let library = &self.shared.library;
        let evaluates = matches!(request, Request::Evaluate { .. });
        if ids.is_empty() {
            let mut all = library.all();
            all.retain(|clip| !evaluates || clip.labelled().frames_known());
            if all.is_empty() {
                return Err(Error::precondition(if evaluates {
                    "no stored clip has labels of all of its frames: upload some, or give \
                     anomalous clips their intervals"
                } else {
                    "no clips are stored: upload some"
                }));
            }
            return Ok(all.iter().map(Snapshot::of).collect());
        }
        if ids.len() > limits::LIBRARY_CLIPS_MAX {
            return Err(Error::invalid(format!(
                "{} clips; at most {} are taken",
                ids.len(),
                limits::LIBRARY_CLIPS_MAX
            ))
            .with_field("clip_ids"));
        }
        let mut seen = HashSet::new();
        let mut clips = Vec::with_capacity(ids.len());
        for (number, id) in ids.iter().enumerate() {
            let field = format!("clip_ids[{number}]");
            let (clip, _) = library.get(id).map_err(|e| e.with_field(&field))?;
            if !seen.insert(id) {
                return Err(Error::invalid(format!("clip {id} is named twice")).with_field(field));
            }
            if evaluates && !clip.labelled().frames_known() {
                return Err(Error::invalid(format!(
                    "of clip {id} ({}) only the video's label is known, not that of each frame: \
                     relabel it with intervals, or leave it out",
                    clip.name
                ))
                .with_field(field));
            }
            clips.push(Snapshot::of(&clip));
        }
        Ok(clips)
    }

    /// What can be told to be wrong before any pass.
    fn check(&self, request: &Request, clips: &[Snapshot]) -> Result<()> {
        let mut videos: Vec<_> = clips
            .iter()
            .map(|clip| clip.video(self.shared.library.path(&clip.id)))
            .collect();
        let (options, calibrate) = match request {
            Request::Hunt { options } => (options, None),
            Request::Calibrate(calibrate) => (&calibrate.options, Some(calibrate)),
            Request::Evaluate { .. } => {
                if !videos.iter().any(|video| video.anomaly) {
                    return Err(Error::invalid(
                    "no clip is anomalous, so no AUC can be computed: label some with the frames \
                     where something happens",
                )
                .with_field("clip_ids"));
                }
                return Ok(());
            }
        };
        let inside = |error: Error| match error.field() {
            Some(field) => {
                let field = format!("options.{field}");
                error.with_field(field)
            }
            None => error.with_field("clip_ids"),
        };
        options.rule.validate().map_err(inside)?;
        let normal_only = calibrate.and_then(|calibrate| calibrate.normal_only);
        units(&mut videos, options.unit, normal_only.is_some()).map_err(inside)?;
        let info = self.shared.engine.info();
        if let Some(normal) = normal_only {
            return normal
                .options(options, "hunt")
                .check(info, &videos)
                .map_err(inside);
        }
        options
            .options("hunt")
            .check(info, &videos)
            .map_err(inside)?;
        if videos.iter().all(|video| !video.intervals_known) {
            for (anomaly, class) in [(true, "anomalous"), (false, "normal")] {
                let n = videos.iter().filter(|v| v.anomaly == anomaly).count();
                if n < 2 {
                    return Err(Error::invalid(format!(
                        "hunting needs at least 2 {class} samples, and there is {n}: add clips, or \
                         give the frames where something happens"
                    ))
                    .with_field("clip_ids"));
                }
            }
        }
        Ok(())
    }
}
