//! The rings of running detections, and of those that ended a while ago.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    clock::Clock,
    error::{Error, Result},
    limits,
    media::MediaTime,
    profile::Profile,
    score::{events::Event, locate::SegmentSpan},
};

use super::{
    Binding, Statement,
    ring::{Entry, Ring},
};

/// Every detection that a verdict may be about, by its session's id.
pub(super) struct Sessions {
    ring: Duration,
    keep_after_end: Duration,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    by_id: HashMap<String, Kept>,
    /// Those that ended, oldest first: when, and what they hold in bytes.
    ended: VecDeque<(Duration, String, usize)>,
    ended_bytes: usize,
}

struct Kept {
    source: Option<String>,
    ring: Arc<Mutex<Ring>>,
}

/// What a verdict speaks of: at least one segment, oldest first.
pub(super) struct Judged {
    pub source: Option<String>,
    pub entries: Vec<Entry>,
}

/// Where one detection writes what it scored; dropped when the detection ends.
pub struct Recorder {
    session: String,
    sessions: Arc<Sessions>,
    ring: Arc<Mutex<Ring>>,
    /// Of the profile that scored last.
    binding: Mutex<Option<(Arc<Profile>, Arc<Binding>)>>,
}

/// No code that runs under these locks can panic half-way, so a poisoned one is still sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sessions {
    pub fn new(ring: Duration, keep_after_end: Duration, clock: Arc<dyn Clock>) -> Sessions {
        Sessions {
            ring,
            keep_after_end,
            clock,
            state: Mutex::default(),
        }
    }

    pub fn begin(self: &Arc<Self>, session: &str, source: Option<String>) -> Arc<Recorder> {
        let ring = Arc::new(Mutex::new(Ring::new(
            self.ring,
            limits::FEEDBACK_RING_MAX_BYTES,
        )));
        let kept = Kept {
            source,
            ring: ring.clone(),
        };
        let mut state = lock(&self.state);
        self.forget(&mut state);
        state.by_id.insert(session.to_owned(), kept);
        drop(state);
        Arc::new(Recorder {
            session: session.to_owned(),
            sessions: self.clone(),
            ring,
            binding: Mutex::new(None),
        })
    }

    /// The segments that a statement speaks of.
    pub fn judged(&self, session: &str, statement: Statement) -> Result<Judged> {
        let mut state = lock(&self.state);
        self.forget(&mut state);
        let Some(kept) = state.by_id.get(session) else {
            return Err(Error::not_found(format!(
                "no detection `{}`: it never ran here, or ended longer than {} s ago",
                session.escape_debug(),
                self.keep_after_end.as_secs_f64()
            ))
            .with_field("session_id"));
        };
        let (source, ring) = (kept.source.clone(), kept.ring.clone());
        // A verdict waits for no other detection than its own.
        drop(state);
        let ring = lock(&ring);
        let entries = match statement {
            Statement::Confirmed(id) | Statement::FalseAlarm(id) => ring
                .of_event(id)
                .filter(|entries| !entries.is_empty())
                .ok_or_else(|| {
                    Error::not_found(format!(
                        "no event `{id}` of this detection: it was not told, or so long ago that nothing is left of it"
                    ))
                    .with_field("event_id")
                })?,
            Statement::Missed { start, end } => {
                let entries = ring.within(start, end);
                if entries.is_empty() {
                    return Err(nothing_scored(start, end, &ring));
                }
                entries
            }
        };
        Ok(Judged { source, entries })
    }

    fn end(&self, session: &str) {
        let mut state = lock(&self.state);
        let Some(kept) = state.by_id.get(session) else {
            return;
        };
        let (bytes, is_empty) = {
            let ring = lock(&kept.ring);
            (ring.bytes(), ring.is_empty())
        };
        if is_empty {
            // It shall not take the place of one that a verdict can be about.
            state.by_id.remove(session);
        } else {
            let now = self.clock.now();
            state.ended.push_back((now, session.to_owned(), bytes));
            state.ended_bytes += bytes;
        }
        self.forget(&mut state);
    }

    /// Lets go of what ended too long ago, or is too much.
    fn forget(&self, state: &mut State) {
        let now = self.clock.now();
        while let Some((when, ..)) = state.ended.front() {
            let is_over = now.saturating_sub(*when) >= self.keep_after_end
                || state.ended.len() > limits::FEEDBACK_ENDED_MAX
                || state.ended_bytes > limits::FEEDBACK_ENDED_MAX_BYTES;
            if !is_over {
                break;
            }
            if let Some((_, session, bytes)) = state.ended.pop_front() {
                state.by_id.remove(&session);
                state.ended_bytes -= bytes;
            }
        }
    }
}

fn nothing_scored(start: MediaTime, end: MediaTime, ring: &Ring) -> Error {
    let known = match ring.extent() {
        Some((from, to)) => format!("those remembered lie within {from} to {to}"),
        None => "none has been scored yet".to_owned(),
    };
    Error::invalid(format!("no segment overlaps {start} to {end}; {known}")).with_field("start")
}

impl Recorder {
    /// A segment was scored with `profile`. `z` is what it was scored from, f32 `[prompts, heads,
    /// head_dim]`; `None` where nothing moved and the score repeats another's.
    pub fn segment(
        &self,
        profile: &Arc<Profile>,
        segment: u64,
        span: SegmentSpan,
        p: f64,
        z: Option<&[f32]>,
    ) {
        let binding = match self.binding(profile) {
            Ok(binding) => binding,
            Err(error) => {
                // Detection goes on: it is worth more than its memory.
                tracing::error!("a segment is not kept for feedback: {error:#}");
                return;
            }
        };
        lock(&self.ring).push(Entry {
            segment,
            span,
            p,
            binding,
            z: z.map(Arc::from),
        });
    }

    /// An event was told: it began, grew or ended.
    pub fn event(&self, event: &Event) {
        lock(&self.ring).event(event.id, event.first_frame, event.last_frame);
    }

    /// What the profile's features belong to; worked out anew only when the profile changes.
    fn binding(&self, profile: &Arc<Profile>) -> Result<Arc<Binding>> {
        let mut known = lock(&self.binding);
        if let Some((of, binding)) = &*known
            && Arc::ptr_eq(of, profile)
        {
            return Ok(binding.clone());
        }
        let binding = Arc::new(Binding::of(profile)?);
        *known = Some((profile.clone(), binding.clone()));
        Ok(binding)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.sessions.end(&self.session);
    }
}

#[cfg(test)]
mod tests;
