//! A decoder process as the server sees it: started, talked to, listened to, ended.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{SendFlags, send},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::{
    Workers,
    board::Board,
    inbox::{Inbox, Ticket, stopped},
    locked,
    running::Running,
    wire::{self, Answer, Begin, FromWorker, Job, Level, Limits, ToWorker},
    words::LastWords,
};
use crate::{
    error::{Error, Kind, Result, ResultExt as _},
    limits::{WORKER_GRACE, WORKER_PICTURE_WAIT, WORKER_WRITE_MAX, WORKER_WRITE_TIMEOUT},
    media::Reduction,
    telemetry::decoders,
    video::{VideoLimits, pump::POLL, upload},
};

/// A decoder process. Dropping it ends the process.
pub(super) struct Process {
    running: Mutex<Running>,
    writer: Mutex<UnixStream>,
    inbox: Arc<Inbox>,
    /// Where pictures come; there until this is dropped.
    board: Option<Board>,
    /// Pictures that nobody holds any more; told with the next message.
    released: Mutex<Vec<u64>>,
    /// Asked ahead and not written yet; each has a place, so they are few.
    questions: Mutex<Vec<u8>>,
    /// Without a sign of life for so long it is taken for hung.
    patience: Duration,
    /// The largest picture in RGB, bytes.
    rgb_max_bytes: usize,
    /// Nobody waits for its stream any more.
    cancel: CancellationToken,
    /// What it prints.
    words: Arc<LastWords>,
    /// Its end before its time was told.
    mourned: AtomicBool,
    _counted: decoders::Running,
}

impl Process {
    /// Starts a process whose standard input is `input`. Waits for its pictures end when `cancel` fires.
    ///
    /// `ResourceExhausted` where the system has no room for it, `FailedPrecondition` where the program
    /// cannot be run.
    pub(super) fn start(
        workers: &Workers,
        job: Job,
        input: OwnedFd,
        limits: &VideoLimits,
        cancel: CancellationToken,
    ) -> Result<Process> {
        let cannot = |e: io::Error| {
            let kind = match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                    Kind::FailedPrecondition
                }
                _ => Kind::ResourceExhausted,
            };
            Error::new(kind, "cannot start a decoder process").with_source(e)
        };
        let (running, line) = launch(workers, input).map_err(cannot)?;
        let Line {
            ours,
            reader,
            board,
            words,
        } = line;
        let words = Arc::new(words);
        let inbox = Arc::new(Inbox::new());
        let process = Process {
            running: Mutex::new(running),
            writer: Mutex::new(ours),
            inbox: Arc::clone(&inbox),
            board: Some(board),
            released: Mutex::default(),
            questions: Mutex::default(),
            patience: limits.stall_timeout + WORKER_GRACE,
            rgb_max_bytes: usize::try_from(limits.max_pixels.saturating_mul(3))
                .unwrap_or(usize::MAX),
            cancel,
            words: Arc::clone(&words),
            mourned: AtomicBool::new(false),
            _counted: decoders::Running::begin(),
        };
        let span = Span::current();
        std::thread::Builder::new()
            .name("decoder".into())
            .spawn(move || span.in_scope(|| inbox.listen(reader, &words)))
            .map_err(cannot)?;
        process.send(
            &ToWorker::Begin(Begin {
                job,
                limits: Limits::from(limits),
                memory_max_bytes: workers.memory_max_bytes,
                reducers: workers.reducers,
                log: Level::finest(),
            }),
            &[],
        );
        Ok(process)
    }

    /// Fires when something has come.
    pub(super) fn look(&self) -> Arc<Notify> {
        Arc::clone(&self.inbox.look)
    }

    /// Tells the process something. One that does not listen shows by its silence.
    pub(super) fn send(&self, message: &ToWorker, body: &[u8]) {
        let mut bytes = std::mem::take(&mut *locked(&self.questions));
        bytes.reserve(128 + body.len());
        let released = std::mem::take(&mut *locked(&self.released));
        if !released.is_empty() {
            let _ = wire::encode(&ToWorker::Release(released), &[], &mut bytes);
        }
        let _ = wire::encode(message, body, &mut bytes);
        self.write(&bytes);
    }

    /// Writes messages that were encoded before.
    pub(super) fn write(&self, bytes: &[u8]) {
        if let Err(e) = self.write_all(bytes) {
            // Half a message may be out: nothing that follows would be understood.
            let why = (e.kind() == io::ErrorKind::TimedOut).then(|| hung(WORKER_WRITE_TIMEOUT));
            self.inbox.close(why);
        }
    }

    /// One that reads a little now and then is in the end as good as one that does not; and nobody waits for
    /// either when the stream has been cancelled.
    fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        let to = locked(&self.writer);
        let step = Timespec::try_from(POLL).map_err(io::Error::other)?;
        let (began, mut taken) = (Instant::now(), Instant::now());
        while !bytes.is_empty() {
            match send(&*to, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(n) => {
                    bytes = bytes.get(n..).unwrap_or_default();
                    taken = Instant::now();
                }
                Err(Errno::AGAIN)
                    if taken.elapsed() > WORKER_WRITE_TIMEOUT
                        || began.elapsed() > WORKER_WRITE_MAX =>
                {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(Errno::AGAIN) if self.cancel.is_cancelled() => {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                Err(Errno::AGAIN) => {
                    match poll(&mut [PollFd::new(&*to, PollFlags::OUT)], Some(&step)) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(e) => return Err(e.into()),
                    }
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// The next event, if one is at hand or comes within `wait`.
    ///
    /// `Aborted` when the process has ended or hangs.
    pub(super) fn event(&self, wait: Duration) -> Result<Option<FromWorker>> {
        let mut held = locked(&self.inbox.held);
        if held.events.is_empty() && held.closed.is_none() && !wait.is_zero() {
            held = self.inbox.wait(held, wait);
        }
        if let Some(event) = held.events.pop_front() {
            return Ok(Some(event));
        }
        if held.closed.is_some() {
            drop(held);
            return Err(self.dead());
        }
        if held.heard.elapsed() <= self.patience {
            return Ok(None);
        }
        // Where this server stood still, signs of life lie unread.
        held = self.inbox.wait(held, POLL);
        if !held.events.is_empty() || held.closed.is_some() || held.heard.elapsed() <= self.patience
        {
            return Ok(None);
        }
        drop(held);
        self.inbox.close(Some(hung(self.patience)));
        Err(self.dead())
    }

    /// Silence counts from now on.
    pub(super) fn expect_news(&self) {
        locked(&self.inbox.held).heard = Instant::now();
    }

    /// Asks for a picture in RGB.
    pub(super) fn ask_rgb(&self, picture: u64) -> Ticket {
        let ticket = locked(&self.inbox.held).ticket(self.rgb_max_bytes);
        self.send(
            &ToWorker::Rgb {
                ticket: ticket.id,
                picture,
            },
            &[],
        );
        ticket
    }

    /// Asks for a reduced picture. `ahead`: not at once but with the next message or the next wait for an answer,
    /// and not if no place is free.
    pub(super) fn ask_reduced(&self, picture: u64, how: &Reduction, ahead: bool) -> Option<Ticket> {
        let bytes = how.bytes();
        let jpeg = how.snapshot.map_or(0, |rules| rules.max_bytes);
        let body_max = bytes.saturating_add(jpeg);
        let ticket = {
            let mut held = locked(&self.inbox.held);
            // Nobody would wait for the answer, so there must be no ticket either.
            let place = held.free_place(bytes);
            if ahead && place.is_none() {
                return None;
            }
            let mut ticket = held.ticket(body_max);
            if let Some(place) = place {
                held.take_place(&mut ticket, place, bytes);
            }
            ticket
        };
        let question = ToWorker::Reduce {
            ticket: ticket.id,
            picture,
            how: how.clone(),
            place: ticket.place,
        };
        if ahead {
            let _ = wire::encode(&question, &[], &mut locked(&self.questions));
        } else {
            self.send(&question, &[]);
        }
        Some(ticket)
    }

    /// Waits for the answer to a question. The picture's place stays in use until [`done`](Self::done).
    ///
    /// `DataLoss` when the process has ended or hangs: what was asked for is gone with it. `Cancelled` when
    /// nobody waits for the stream any more.
    pub(super) fn answer(&self, ticket: &Ticket) -> Result<(Answer, Vec<u8>)> {
        let questions = std::mem::take(&mut *locked(&self.questions));
        if !questions.is_empty() {
            self.write(&questions);
        }
        let asked = Instant::now();
        let patience = self.patience.min(WORKER_PICTURE_WAIT);
        let mut overdue = false;
        let mut held = locked(&self.inbox.held);
        loop {
            if let Some(answer) = held.answers.remove(&ticket.id) {
                return Ok(answer);
            }
            // One that comes at once is given all the same: a picture may outlive its source.
            if self.cancel.is_cancelled() && asked.elapsed() > WORKER_GRACE {
                return Err(upload::cancelled());
            }
            if overdue && held.closed.is_none() {
                drop(held);
                self.inbox.close(Some(hung(patience)));
                held = locked(&self.inbox.held);
            }
            // Then it is waited for once more: where this server stood still, the answer lies unread.
            overdue = asked.elapsed() > patience;
            if held.closed.is_some() {
                drop(held);
                let why = self.dead();
                return Err(Error::data_loss(format!("a picture is gone: {why}")));
            }
            held = self.inbox.wait(held, POLL);
        }
    }

    /// The pixels at a ticket's place.
    pub(super) fn pixels(&self, place: u64, bytes: usize) -> Result<Arc<[u8]>> {
        self.laid(self.board()?.read(bytes, place))
    }

    /// Whether a decoded picture of so many bytes can lie there.
    pub(super) fn has_room(&self, at: u64, bytes: usize) -> bool {
        self.board().is_ok_and(|board| board.has_room(at, bytes))
    }

    /// A piece of what lies in the shared memory.
    pub(super) fn piece(&self, at: u64, to: &mut [u8]) -> Result<()> {
        self.laid(self.board()?.read_into(at, to))
    }

    fn board(&self) -> Result<&Board> {
        let gone = || Error::internal("the memory of a decoder process is gone");
        self.board.as_ref().ok_or_else(gone)
    }

    fn laid<T>(&self, read: io::Result<T>) -> Result<T> {
        read.map_err(|e| self.broke_protocol(&format!("it laid down no picture: {e}")))
            .map_err(|e| Error::data_loss(e.to_string()))
    }

    /// Nobody waits for the answer, or it has been dealt with.
    pub(super) fn done(&self, ticket: &Ticket, answered: bool) {
        let mut held = locked(&self.inbox.held);
        if answered || held.answers.remove(&ticket.id).is_some() {
            held.free(ticket.id);
        } else {
            held.abandoned.insert(ticket.id);
        }
    }

    /// Nobody will ask for this picture any more.
    pub(super) fn release(&self, picture: u64) {
        locked(&self.released).push(picture);
    }

    /// Ends the process at once; what it held is gone. Whether it is known to have ended.
    pub(super) fn end(&self) -> bool {
        self.mourned.store(true, Ordering::Relaxed);
        self.inbox.close(Some(
            "the decoder process was ended with its stream".to_owned(),
        ));
        let ended = locked(&self.running).end();
        if let Some(said) = self.words.take() {
            tracing::debug!("a decoder process printed: {said}");
        }
        ended
    }

    /// What it did is not what a decoder does.
    pub(super) fn broke_protocol(&self, how: &str) -> Error {
        self.inbox.close(Some(stopped(how)));
        self.dead()
    }

    /// Why nothing more will come.
    fn dead(&self) -> Error {
        let known = locked(&self.inbox.held).closed.clone().flatten();
        let why = {
            let mut running = locked(&self.running);
            if let Some(why) = known {
                running.end();
                why
            } else {
                running.ended()
            }
        };
        if !self.mourned.swap(true, Ordering::Relaxed) {
            decoders::lost();
            match self.words.take() {
                Some(said) => tracing::warn!("{why}; it printed: {said}"),
                None => tracing::warn!("{why}"),
            }
            locked(&self.inbox.held).closed = Some(Some(why.clone()));
        }
        Error::aborted(why)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Where it may still draw, nobody else must.
        if self.end()
            && let Some(board) = self.board.take()
        {
            board.keep();
        }
    }
}

/// What a server has of the way to a process.
struct Line {
    ours: UnixStream,
    /// The same, to read.
    reader: UnixStream,
    board: Board,
    words: LastWords,
}

impl Line {
    /// And the process's standard output and error.
    fn new() -> io::Result<(Self, OwnedFd, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        let board = Board::new()?;
        board.give(&ours)?;
        let (words, printed) = LastWords::new()?;
        let line = Line {
            reader: ours.try_clone()?,
            ours,
            board,
            words,
        };
        Ok((line, theirs.into(), printed))
    }
}

fn launch(workers: &Workers, input: OwnedFd) -> io::Result<(Running, Line)> {
    if let Some(forks) = &workers.forks {
        let (line, theirs, printed) = Line::new()?;
        let files = [input.as_fd(), theirs.as_fd(), printed.as_fd()];
        if let Some(forked) = forks.fork(workers, files) {
            return Ok((Running::Forked(forked), line));
        }
    }
    // A line of its own: who was forked after all, and nobody heard of, has the other one, and ends with it.
    let (line, theirs, printed) = Line::new()?;
    let child = Command::new(&workers.program)
        .arg0("headhunt")
        .arg("decode-worker")
        .env_clear()
        .envs(workers.environment.iter().cloned())
        .stdin(input)
        .stdout(theirs)
        .stderr(printed)
        // Ctrl-C in a terminal is for the server, which has its streams end in good order.
        .process_group(0)
        .spawn()?;
    Ok((Running::Started(child), line))
}

/// The input of a process that gets what it decodes another way.
pub(super) fn no_input() -> Result<OwnedFd> {
    let file = File::open("/dev/null").or_kind(Kind::ResourceExhausted, || {
        "cannot open /dev/null for a decoder process".to_owned()
    })?;
    Ok(file.into())
}

fn hung(patience: Duration) -> String {
    format!(
        "the decoder process hung and was stopped: no sign of life for {:.0} s",
        patience.as_secs_f64()
    )
}
