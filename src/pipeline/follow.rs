//! Following the versions of a profile while a detection runs.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{head::HeadSelection, profile::Profile};

/// What the engine is asked for with a profile.
#[derive(Clone)]
pub(super) struct Ask {
    pub prompts: Arc<[String]>,
    pub heads: HeadSelection,
}

impl Ask {
    pub fn of(profile: &Profile) -> Ask {
        Ask {
            prompts: profile.scoring_prompts.as_slice().into(),
            heads: HeadSelection::Only(profile.heads.clone()),
        }
    }
}

/// Versions to move to, as they are activated.
pub(super) struct Follow {
    versions: Option<watch::Receiver<Arc<Profile>>>,
    /// The newest of them, until a segment is submitted with it.
    next: Option<Arc<Profile>>,
    /// How the video is cut: what cuts it otherwise is not moved to.
    now: Arc<Profile>,
    /// At the version that was the newest then, once: an operator is told of one that is not moved to, not with each
    /// segment.
    looked: bool,
}

impl Follow {
    /// From the profile that a detection starts with.
    pub fn new(now: Arc<Profile>, versions: Option<watch::Receiver<Arc<Profile>>>) -> Follow {
        Follow {
            versions,
            next: None,
            now,
            looked: false,
        }
    }

    /// Waits until another version is there to move to; never, where none is followed.
    pub async fn changed(&mut self) {
        loop {
            let Some(versions) = &mut self.versions else {
                return std::future::pending().await;
            };
            if versions.changed().await.is_err() {
                // Nobody activates any more.
                self.versions = None;
                continue;
            }
            self.looked = false;
            if self.look() {
                return;
            }
        }
    }

    /// The version to submit the next segment with, if it is another one than before.
    pub fn take(&mut self) -> Option<Arc<Profile>> {
        self.look();
        let next = self.next.take()?;
        self.now = next.clone();
        Some(next)
    }

    /// Whether the newest version is one to move to.
    fn look(&mut self) -> bool {
        let Some(versions) = &mut self.versions else {
            return self.next.is_some();
        };
        // It was looked at, and what came of it is in `next`.
        if self.looked && !versions.has_changed().unwrap_or(true) {
            return self.next.is_some();
        }
        self.looked = true;
        let newest = versions.borrow_and_update().clone();
        let (now, new) = (&self.now, &newest);
        self.next = if now.segment != new.segment
            || now.frames_per_segment != new.frames_per_segment
        {
            tracing::warn!(
                profile = new.name,
                "a version was activated that cuts video otherwise: this detection stays with its own"
            );
            None
        } else {
            (now != new).then_some(newest)
        };
        self.next.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;

    use super::*;
    use crate::{
        head::HeadId,
        profile::{Edge, LocatorParams, ModelBinding, SCHEMA, ScorerParams},
        segment::SegmentRule,
    };

    fn profile(threshold: f64) -> Arc<Profile> {
        Arc::new(Profile {
            schema: SCHEMA,
            name: "cam".into(),
            created_unix_s: 0,
            model: ModelBinding {
                name: "m".into(),
                fingerprint: "0".repeat(64),
                head_dim: 1,
                device: "cpu".into(),
                dtype: "f32".into(),
            },
            segment: SegmentRule::Frames(4),
            frames_per_segment: 2,
            heads: vec![HeadId { layer: 0, head: 0 }],
            hunt_prompts: vec![],
            scoring_prompts: vec!["?".into()],
            scorer: ScorerParams {
                weights: vec![1.0],
                intercept: 0.0,
            }
            .into(),
            locator: LocatorParams {
                sigma: 1.0,
                threshold,
                edge: Edge::Renormalize,
                event_bridge_s: None,
            },
            notes: serde_json::Map::new(),
        })
    }

    fn is_ready(follow: &mut Follow) -> bool {
        let mut changed = std::pin::pin!(follow.changed());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        changed.as_mut().poll(&mut context).is_ready()
    }

    #[test]
    fn the_newest_version_is_taken_once_and_the_same_one_never() {
        let (sender, receiver) = watch::channel(profile(0.1));
        let mut follow = Follow::new(profile(0.1), Some(receiver));
        assert!(follow.take().is_none());
        assert!(!is_ready(&mut follow));
        sender.send_replace(profile(0.2));
        sender.send_replace(profile(0.3));
        assert!(is_ready(&mut follow));
        assert_eq!(follow.take(), Some(profile(0.3)));
        assert!(follow.take().is_none());
        // There and back before a segment came: nothing to move to.
        sender.send_replace(profile(0.4));
        assert!(is_ready(&mut follow));
        sender.send_replace(profile(0.3));
        assert!(follow.take().is_none());
        drop(sender);
        assert!(!is_ready(&mut follow));
    }

    #[test]
    fn what_cuts_video_otherwise_is_not_moved_to() {
        let mut other = (*profile(0.2)).clone();
        other.frames_per_segment = 3;
        let (sender, receiver) = watch::channel(profile(0.1));
        let mut follow = Follow::new(profile(0.1), Some(receiver));
        sender.send_replace(Arc::new(other));
        assert!(!is_ready(&mut follow));
        assert!(follow.take().is_none());
        sender.send_replace(profile(0.5));
        assert_eq!(follow.take(), Some(profile(0.5)));
    }

    #[test]
    fn without_versions_nothing_changes() {
        let mut follow = Follow::new(profile(0.1), None);
        assert!(!is_ready(&mut follow));
        assert!(follow.take().is_none());
    }
}
