//! What comes from a decoder process, sorted and bounded, for whoever waits for it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io::{self, BufReader},
    os::unix::net::UnixStream,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{
    locked,
    wire::{self, Answer, FromWorker},
    words::{self, LastWords, Lines, Rate},
};
use crate::limits::{
    WORKER_ANSWER_MAX_BYTES, WORKER_EVENTS_PER_FRAME, WORKER_FRAMES_AHEAD_MAX, WORKER_IDLE_TALK,
    WORKER_PICTURES_AHEAD, WORKER_REDUCED_BYTES,
};

/// Events that may lie in the inbox; the process is held to it by the frames it may give ahead.
const INBOX_MAX: usize = (WORKER_FRAMES_AHEAD_MAX * WORKER_EVENTS_PER_FRAME) as usize + 16;

/// What came from the process.
pub(super) struct Inbox {
    pub(super) held: Mutex<Held>,
    pub(super) changed: Condvar,
    /// Fires with `changed`, for tasks.
    pub(super) look: Arc<Notify>,
}

/// What came and was not taken yet.
pub(super) struct Held {
    pub(super) events: VecDeque<FromWorker>,
    /// Questions that have no answer yet, and how long the body of the answer may be, bytes.
    open: HashMap<u64, usize>,
    /// Questions that nobody waits for and that have no answer yet.
    pub(super) abandoned: HashSet<u64>,
    pub(super) answers: HashMap<u64, (Answer, Vec<u8>)>,
    next_ticket: u64,
    /// Whether each place of the shared memory is in use, by the ticket that uses it.
    pub(super) places: [Option<u64>; WORKER_PICTURES_AHEAD],
    pub(super) heard: Instant,
    /// Nothing more will come; why, where that is known already.
    pub(super) closed: Option<Option<String>>,
}

impl Held {
    /// A new ticket for an answer with a body of at most so many bytes.
    pub(super) fn ticket(&mut self, body_max_bytes: usize) -> Ticket {
        let id = self.next_ticket;
        self.next_ticket += 1;
        self.open.insert(id, body_max_bytes);
        Ticket { id, place: None }
    }

    /// A free place for so many bytes.
    pub(super) fn free_place(&self, bytes: usize) -> Option<usize> {
        let free = self.places.iter().position(Option::is_none)?;
        let end = (free as u64 + 1).checked_mul(place_bytes(bytes))?;
        (end <= WORKER_REDUCED_BYTES).then_some(free)
    }

    /// Gives a ticket that place.
    pub(super) fn take_place(&mut self, ticket: &mut Ticket, free: usize, bytes: usize) {
        if let Some(place) = self.places.get_mut(free) {
            *place = Some(ticket.id);
            ticket.place = Some(free as u64 * place_bytes(bytes));
        }
    }

    /// A ticket's place may be used again.
    pub(super) fn free(&mut self, ticket: u64) {
        for place in &mut self.places {
            if *place == Some(ticket) {
                *place = None;
            }
        }
    }
}

/// Of the place of a picture of so many bytes: whole pages.
fn place_bytes(bytes: usize) -> u64 {
    (bytes as u64).saturating_add(4095) & !4095
}

/// A question that is not answered yet.
pub(super) struct Ticket {
    pub(super) id: u64,
    /// Where in the shared memory the answer's pixels come, bytes.
    pub(super) place: Option<u64>,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Inbox {
            held: Mutex::new(Held {
                events: VecDeque::new(),
                open: HashMap::new(),
                abandoned: HashSet::new(),
                answers: HashMap::new(),
                next_ticket: 0,
                places: Default::default(),
                heard: Instant::now(),
                closed: None,
            }),
            changed: Condvar::new(),
            look: Arc::new(Notify::new()),
        }
    }

    /// Sorts what comes, to the end.
    pub(super) fn listen(&self, stream: UnixStream, printed: &LastWords) {
        let mut from = BufReader::with_capacity(64 << 10, stream);
        let mut idle = Rate::new(WORKER_IDLE_TALK, Duration::from_secs(1));
        let mut lines = Lines::default();
        let mut news = false;
        let why = loop {
            let body_max = |message: &FromWorker| self.body_max(message);
            let next = wire::read::<FromWorker>(&mut from, WORKER_ANSWER_MAX_BYTES, body_max);
            let (message, body) = match next {
                Ok(Some(message)) => message,
                Ok(None) => break None,
                Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                    break Some(stopped(&format!("it sent {e}")));
                }
                Err(_) => break None,
            };
            let idles = matches!(message, FromWorker::Alive | FromWorker::Log { .. });
            if idles && !idle.one() {
                break Some(stopped("it talks without end"));
            }
            if let FromWorker::Log { level, text } = &message
                && lines.one(*level)
            {
                words::log(*level, text);
            }
            if let Err(how) = self.sort(message, body) {
                break Some(stopped(how));
            }
            // Who waits is woken up once for what came together.
            news |= !idles;
            if news && !wire::is_whole(from.buffer()) {
                news = false;
                printed.listen();
                self.changed.notify_all();
                self.look.notify_one();
            }
        };
        self.close(why);
    }

    /// How long the body of a message may be, bytes: answers alone have one.
    fn body_max(&self, message: &FromWorker) -> usize {
        match message {
            FromWorker::Answer { ticket, .. } => {
                let held = locked(&self.held);
                held.open.get(ticket).copied().unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// Puts a message where it is waited for, or says what is wrong with it.
    fn sort(&self, message: FromWorker, body: Vec<u8>) -> std::result::Result<(), &'static str> {
        let mut held = locked(&self.held);
        held.heard = Instant::now();
        match message {
            FromWorker::Alive | FromWorker::Log { .. } => {}
            FromWorker::Answer { ticket, answer } => {
                if held.open.remove(&ticket).is_none() {
                    return Err("it answered what nobody asked");
                }
                if held.abandoned.remove(&ticket) {
                    held.free(ticket);
                } else {
                    held.answers.insert(ticket, (answer, body));
                }
            }
            // The latest says it all.
            FromWorker::Taken(_) if matches!(held.events.back(), Some(FromWorker::Taken(_))) => {
                held.events.pop_back();
                held.events.push_back(message);
            }
            event if held.events.len() < INBOX_MAX => held.events.push_back(event),
            _ => return Err("it gave more than it was asked for"),
        }
        Ok(())
    }

    /// Waits until something has come, so long at most.
    pub(super) fn wait<'a>(
        &self,
        held: MutexGuard<'a, Held>,
        most: Duration,
    ) -> MutexGuard<'a, Held> {
        let waited = self.changed.wait_timeout(held, most);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Nothing more will come, or be believed. The first reason holds.
    pub(super) fn close(&self, why: Option<String>) {
        locked(&self.held).closed.get_or_insert(why);
        self.changed.notify_all();
        self.look.notify_one();
    }
}

/// Why a process is ended that did what none does.
pub(super) fn stopped(how: &str) -> String {
    format!("the decoder process was stopped: {how}")
}
