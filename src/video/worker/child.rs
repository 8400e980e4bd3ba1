//! The decoder process itself: `headhunt decode-worker`.

use std::{
    collections::HashMap,
    fmt,
    io::{BufReader, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio_util::sync::CancellationToken;

use super::{
    board::Board,
    confine, reach,
    source::STANDARD_INPUT,
    wire::{
        self, Answer, Begin, Checked, DecodedHead, Fault, FromWorker, Job, PacketHead, ToWorker,
    },
    words,
};
use crate::{
    error::{Error, Kind, Result, ResultExt as _},
    limits::{
        SPOOL_MAX_BYTES, UPLOAD_GATHER_BYTES, WORKER_ALIVE_PERIOD, WORKER_CPU_RENEWAL,
        WORKER_GATHER_MAX_BYTES, WORKER_GATHER_TIME, WORKER_HEADER_MAX_BYTES, WORKER_MEMORY_BYTES,
    },
    media::{ChunkEvent, ChunkSource, MediaEvent, MediaSource as _, MediaTime, Picture, Reduce},
    rtsp::{Packet, Track},
    video::{
        VideoLimits,
        decode::Decoder,
        live::{Connection, Decoded, Decoding as _, Placed, Pulled},
        upload::Feed,
    },
};

/// Largest body of a message from the server, bytes: an RTP packet.
const PACKET_MAX_BYTES: usize = 1 << 20;
/// Longest wait for a picture of a camera before packets are counted again.
const LOOK: Duration = Duration::from_millis(50);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The stream of the server that started this process.
#[derive(Debug)]
pub struct Stream {
    begin: Begin,
    reader: BufReader<UnixStream>,
    shared: Arc<Shared>,
}

/// Takes the stream, which comes over standard input and output, and gives up what decoding does not need
/// and what has to be given up before there is a second thread: privileges and files.
///
/// # Errors
/// `FailedPrecondition` where standard output is no socket of a server.
pub fn take() -> Result<Stream> {
    // What is run is a link, whose name would stand in lists of processes.
    let _ = rustix::thread::set_name(c"headhunt-decode");
    let socket = control()?;
    let cannot = || "a decoder process is started by a server, not by hand".to_owned();
    let board = Board::take(&socket).or_kind(Kind::FailedPrecondition, cannot)?;
    let mut reader = BufReader::new(
        socket
            .try_clone()
            .or_kind(Kind::FailedPrecondition, cannot)?,
    );
    let first = wire::read(&mut reader, WORKER_HEADER_MAX_BYTES, |_| 0);
    let Ok(Some((ToWorker::Begin(begin), _))) = first else {
        return Err(Error::precondition(cannot()));
    };
    let shared = Arc::new(Shared {
        socket: Mutex::new(socket),
        board,
        renewed: Mutex::new(Instant::now()),
        spoke: Mutex::new(Instant::now()),
        pictures: Mutex::default(),
        credit: Mutex::new(0),
        granted: Condvar::new(),
        camera: Mutex::default(),
        files_confined: AtomicBool::new(false),
    });
    if let Some(finest) = begin.log {
        let (told, lines) = (Arc::clone(&shared), Mutex::new(words::Lines::default()));
        words::forward(finest, move |level, text| {
            if locked(&lines).one(level) {
                told.send(&FromWorker::Log { level, text }, &[]);
            }
        });
    }
    let spool_dir = matches!(begin.job, Job::Upload).then_some(begin.limits.spool_dir.as_path());
    let restricted =
        reach::drop_privileges().and_then(|()| reach::restrict(spool_dir, &begin.environment));
    match restricted {
        Ok(confined) => shared.files_confined.store(confined, Ordering::Relaxed),
        Err(error) => {
            shared.send(&FromWorker::Failed(Fault::from(&error)), &[]);
            return Err(error);
        }
    }
    Ok(Stream {
        begin,
        reader,
        shared,
    })
}

impl Stream {
    /// Serves it; the server's hanging up ends the process. `reduce` makes of pictures what the server asks for.
    pub fn serve(self, reduce: Reduce) -> ! {
        let Stream {
            begin,
            reader,
            shared,
        } = self;
        let result = catch_unwind(AssertUnwindSafe(|| work(begin, reader, &shared, reduce)));
        let result =
            result.unwrap_or_else(|_| Err(Error::internal("the decoder process panicked")));
        if let Err(error) = result {
            shared.send(&FromWorker::Failed(Fault::from(&error)), &[]);
        }
        // Pictures are still asked for.
        loop {
            std::thread::park();
        }
    }
}

/// Confines this process, and says how well that worked. `spool_dir` is a folder that it could write before;
/// `environment` says where GStreamer lies, see [`Workers::environment`](super::Workers::environment).
///
/// # Errors
/// `FailedPrecondition` where the system does not have what it takes.
pub fn check_here(spool_dir: &Path, environment: &[(String, String)]) -> Result<Checked> {
    reach::drop_privileges()?;
    let files_confined = reach::restrict(None, environment)?;
    confine::limit(WORKER_MEMORY_BYTES, SPOOL_MAX_BYTES)?;
    crate::video::init()?;
    confine::forbid()?;
    confine::forbid_writing()?;
    Ok(checked(spool_dir, files_confined))
}

fn checked(spool_dir: &Path, files_confined: bool) -> Checked {
    let mut faults = confine::faults(spool_dir);
    if files_confined {
        faults.extend(reach::faults().iter().map(|what| format!("it can {what}")));
    }
    Checked {
        faults,
        files_confined,
    }
}

/// Standard output is the socket to the server; what libraries print must not go there.
fn control() -> Result<UnixStream> {
    let cannot = || "the decoder process cannot set up its standard output".to_owned();
    let socket: OwnedFd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)
        .or_kind(Kind::FailedPrecondition, cannot)?;
    rustix::stdio::dup2_stdout(rustix::stdio::stderr())
        .or_kind(Kind::FailedPrecondition, cannot)?;
    Ok(UnixStream::from(socket))
}

/// What the threads of the process share.
#[derive(Debug)]
struct Shared {
    socket: Mutex<UnixStream>,
    /// Where reduced pictures go.
    board: Board,
    /// When its CPU time was given anew.
    renewed: Mutex<Instant>,
    /// When the server last heard of it.
    spoke: Mutex<Instant>,
    pictures: Mutex<Pictures>,
    /// Frames that may be given.
    credit: Mutex<u32>,
    granted: Condvar,
    camera: Mutex<Option<Camera>>,
    /// Whether the kernel keeps it from files that it does not need.
    files_confined: AtomicBool,
}

/// Pictures that the server may ask for.
#[derive(Default)]
struct Pictures {
    next: u64,
    held: HashMap<u64, Arc<dyn Picture>>,
}

/// The decoder of a camera's packets.
struct Camera {
    connection: Connection,
    /// Bytes of packets that came.
    given: u64,
}

impl fmt::Debug for Pictures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pictures", self.held.len())
    }
}

impl fmt::Debug for Camera {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a camera that gave {} bytes", self.given)
    }
}

impl Shared {
    fn send(&self, message: &FromWorker, body: &[u8]) {
        let mut bytes = Vec::with_capacity(256 + body.len());
        if wire::encode(message, body, &mut bytes).is_err() {
            gone();
        }
        self.write(&bytes);
    }

    /// Writes messages that were encoded before.
    fn write(&self, bytes: &[u8]) {
        if locked(&self.socket).write_all(bytes).is_err() {
            gone();
        }
        *locked(&self.spoke) = Instant::now();
    }

    /// A sign of life, if none was given lately.
    fn alive(&self) {
        if locked(&self.spoke).elapsed() >= WORKER_ALIVE_PERIOD {
            self.send(&FromWorker::Alive, &[]);
        }
    }

    fn keep(&self, picture: Arc<dyn Picture>) -> u64 {
        let mut pictures = locked(&self.pictures);
        let id = pictures.next;
        pictures.next += 1;
        pictures.held.insert(id, picture);
        id
    }

    /// Waits until a frame may be given; false if `wait` passes before.
    fn may_give(&self, wait: Duration) -> bool {
        let credit = locked(&self.credit);
        let (credit, _) = self
            .granted
            .wait_timeout_while(credit, wait, |credit| *credit == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *credit > 0
    }

    /// A frame is given.
    fn give(&self) {
        let mut credit = locked(&self.credit);
        *credit = credit.saturating_sub(1);
        drop(credit);
        let mut renewed = locked(&self.renewed);
        if renewed.elapsed() >= WORKER_CPU_RENEWAL {
            *renewed = Instant::now();
            confine::renew_cpu();
        }
    }
}

/// Nobody is there to hear of it any more. Nothing is to be put in order, and what other threads are in
/// the middle of must not be waited for.
fn gone() -> ! {
    std::process::abort()
}

/// Ends this process when the server has hung up, whatever its other threads are in the middle of.
fn end_with_server(shared: &Shared) -> Result<()> {
    let cannot = || "the decoder process cannot watch for its server's end".to_owned();
    let socket = locked(&shared.socket)
        .try_clone()
        .or_kind(Kind::ResourceExhausted, cannot)?;
    std::thread::Builder::new()
        .name("end".into())
        .spawn(move || {
            loop {
                // Hanging up is told without being asked for.
                let mut hung_up = [PollFd::new(&socket, PollFlags::empty())];
                match poll(&mut hung_up, None) {
                    Ok(1..) => gone(),
                    Ok(0) | Err(rustix::io::Errno::INTR) => {}
                    Err(_) => return,
                }
            }
        })
        .or_kind(Kind::ResourceExhausted, cannot)?;
    Ok(())
}

fn work(
    begin: Begin,
    reader: BufReader<UnixStream>,
    shared: &Arc<Shared>,
    reduce: Reduce,
) -> Result<()> {
    end_with_server(shared)?;
    let limits = VideoLimits::from(begin.limits);
    confine::limit(begin.memory_max_bytes, limits.spool_max_bytes)?;
    crate::video::init()?;
    confine::forbid()?;
    if let Job::Packets(track) = &begin.job {
        confine::forbid_writing()?;
        *locked(&shared.camera) = Some(Camera {
            connection: Connection::start(track, &limits)?,
            given: 0,
        });
    }
    let listening = Arc::clone(shared);
    std::thread::Builder::new()
        .name("control".into())
        .spawn(move || listen(reader, &listening, &reduce))
        .or_kind(Kind::ResourceExhausted, || {
            "the decoder process cannot start a thread".into()
        })?;
    match begin.job {
        Job::Check => {
            confine::forbid_writing()?;
            let confined = shared.files_confined.load(Ordering::Relaxed);
            shared.send(
                &FromWorker::Checked(checked(&limits.spool_dir, confined)),
                &[],
            );
            Ok(())
        }
        Job::File => media(Feed::from_file(Path::new(STANDARD_INPUT))?, &limits, shared),
        Job::Upload => {
            let chunks = Box::new(PipeChunks(Arc::clone(shared)));
            let feed = Feed::from_chunks(chunks, &limits, &CancellationToken::new())?;
            media(feed, &limits, shared)
        }
        Job::Packets(track) => packets(&track, shared),
    }
}

/// Gives the frames of a file or an upload.
fn media(feed: Feed, limits: &VideoLimits, shared: &Arc<Shared>) -> Result<()> {
    // What an upload is spooled to is open by now.
    confine::forbid_writing()?;
    let alive = Arc::clone(shared);
    let mut source =
        Decoder::start(feed, limits, CancellationToken::new())?.with_pulse(move || alive.alive());
    shared.send(&FromWorker::Started, &[]);
    let mut gathered = Gathered::default();
    loop {
        if !shared.may_give(Duration::ZERO) {
            gathered.give(shared);
            while !shared.may_give(WORKER_ALIVE_PERIOD) {}
        }
        let soon = match gathered.patience() {
            Some(patience) => source.within(patience),
            None => Ok(None),
        };
        let event = match soon {
            Ok(Some(event)) => Some(event),
            // Before the end by a fault too: what was decoded counts.
            Ok(None) | Err(_) => {
                gathered.give(shared);
                soon?;
                source.next_event()?
            }
        };
        let message = match event {
            Some(MediaEvent::Opened(info)) => FromWorker::Opened(info),
            Some(MediaEvent::Gap(gap)) => FromWorker::Gap(gap),
            Some(MediaEvent::Frame(frame)) => {
                shared.give();
                let size_bytes = frame.picture.size_bytes();
                FromWorker::Frame {
                    picture: shared.keep(frame.picture),
                    stamp: frame.stamp,
                    size_bytes,
                }
            }
            // Of live sources alone.
            Some(MediaEvent::Source(_)) => continue,
            None => break,
        };
        gathered.add(&message);
    }
    gathered.give(shared);
    shared.send(&FromWorker::End, &[]);
    Ok(())
}

/// Events that come one soon after another and go together: for a small picture, to wake the server up takes
/// as long as to decode it.
#[derive(Default)]
struct Gathered {
    messages: Vec<u8>,
    since: Option<Instant>,
}

impl Gathered {
    fn add(&mut self, message: &FromWorker) {
        if wire::encode(message, &[], &mut self.messages).is_err() {
            gone();
        }
        self.since.get_or_insert_with(Instant::now);
    }

    /// How long they may still wait for more; none where there is nothing that waits, or enough.
    fn patience(&self) -> Option<Duration> {
        let waited = self.since?.elapsed();
        if self.messages.len() > WORKER_GATHER_MAX_BYTES {
            return None;
        }
        WORKER_GATHER_TIME.checked_sub(waited)
    }

    fn give(&mut self, shared: &Shared) {
        if self.since.take().is_some() {
            shared.write(&self.messages);
            self.messages.clear();
        }
    }
}

/// Gives the pictures of a camera's connection.
fn packets(_: &Track, shared: &Shared) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .or_kind(Kind::ResourceExhausted, || {
            "the decoder process cannot start its timer".into()
        })?;
    let look = match &*locked(&shared.camera) {
        Some(camera) => camera.connection.look(),
        None => return Err(Error::internal("a camera without a connection")),
    };
    shared.send(&FromWorker::Started, &[]);
    let mut told = 0;
    loop {
        shared.alive();
        if !shared.may_give(LOOK) {
            continue;
        }
        let (pulled, taken) = {
            let mut camera = locked(&shared.camera);
            let Some(camera) = camera.as_mut() else {
                return Err(Error::internal("a camera without a connection"));
            };
            let pulled = camera.connection.pull()?;
            let waiting = camera.connection.waiting_bytes();
            (pulled, camera.given.saturating_sub(waiting))
        };
        if taken > told {
            told = taken;
            shared.send(&FromWorker::Taken(taken), &[]);
        }
        match pulled {
            Pulled::Picture(decoded) => {
                shared.give();
                let head = head(decoded, shared);
                shared.send(&FromWorker::Decoded(head), &[]);
            }
            Pulled::Nothing => {
                // Also when the time is over.
                let _ =
                    runtime.block_on(async { tokio::time::timeout(LOOK, look.notified()).await });
            }
            Pulled::Ended(fault) => {
                shared.send(&FromWorker::Ended(fault), &[]);
                return Ok(());
            }
        }
    }
}

fn head(decoded: Decoded, shared: &Shared) -> DecodedHead {
    DecodedHead {
        size_bytes: decoded.picture.size_bytes(),
        picture: shared.keep(decoded.picture),
        size: decoded.size,
        pts: decoded.pts,
        arrived: decoded.arrived,
        lost_frames: decoded.loss.frames,
        lost_untimed: decoded.loss.untimed,
        discontinuity: decoded.loss.discontinuity,
        jumped: decoded.jumped,
    }
}

/// Does what the server asks for, until it hangs up.
fn listen(mut from: BufReader<UnixStream>, shared: &Shared, reduce: &Reduce) {
    loop {
        let Ok(Some((message, body))) =
            wire::read::<ToWorker>(&mut from, WORKER_HEADER_MAX_BYTES, |_| PACKET_MAX_BYTES)
        else {
            gone();
        };
        match message {
            ToWorker::Begin(_) => gone(),
            ToWorker::More(frames) => {
                let mut credit = locked(&shared.credit);
                *credit = credit.saturating_add(frames);
                drop(credit);
                shared.granted.notify_all();
            }
            ToWorker::Release(ids) => {
                let mut pictures = locked(&shared.pictures);
                let released: Vec<_> = ids
                    .iter()
                    .filter_map(|id| pictures.held.remove(id))
                    .collect();
                // What a picture's memory goes back to has locks of its own.
                drop(pictures);
                drop(released);
            }
            ToWorker::Rgb { ticket, picture } => answer(shared, ticket, || {
                let rgb = find(shared, picture)?.to_rgb()?;
                let (width, height) = (rgb.width, rgb.height);
                Ok((Answer::Rgb { width, height }, rgb.data))
            }),
            ToWorker::Reduce {
                ticket,
                picture,
                how,
                place,
            } => answer(shared, ticket, || {
                let reduced = reduce(find(shared, picture)?.as_ref(), &how)?;
                let jpeg = reduced.jpeg.as_deref().unwrap_or_default();
                // Where files may not grow, shared memory may not either.
                let laid =
                    place.is_some_and(|place| shared.board.write(&reduced.pixels, place).is_ok());
                let told = Answer::Reduced {
                    upright: reduced.upright,
                    pixels: reduced.pixels.len(),
                    laid,
                };
                let body = if laid {
                    jpeg.to_vec()
                } else {
                    [reduced.pixels.as_slice(), jpeg].concat()
                };
                Ok((told, body))
            }),
            ToWorker::Packet(head) => packet(shared, &head, body),
            ToWorker::NoMorePackets => {
                if let Some(camera) = &mut *locked(&shared.camera) {
                    camera.connection.end();
                }
            }
        }
    }
}

fn find(shared: &Shared, id: u64) -> Result<Arc<dyn Picture>> {
    let pictures = locked(&shared.pictures);
    let found = pictures.held.get(&id).cloned();
    found.ok_or_else(|| Error::internal(format!("the decoder process has no picture {id}")))
}

fn answer(shared: &Shared, ticket: u64, make: impl FnOnce() -> Result<(Answer, Vec<u8>)>) {
    let made = catch_unwind(AssertUnwindSafe(make))
        .unwrap_or_else(|_| Err(Error::internal("the decoder process panicked on a picture")));
    let (answer, body) =
        made.unwrap_or_else(|error| (Answer::NoPicture(Fault::from(&error)), Vec::new()));
    shared.send(&FromWorker::Answer { ticket, answer }, &body);
}

fn packet(shared: &Shared, head: &PacketHead, data: Vec<u8>) {
    if let Some(camera) = &mut *locked(&shared.camera) {
        camera.given += data.len() as u64;
        let placed = Placed {
            pts: MediaTime::from_nanos(head.pts),
            jumped: head.jumped,
        };
        let packet = Packet {
            data: data.into(),
            // The server has placed it already.
            ticks: 0,
            lost: head.lost,
            arrived: head.arrived,
        };
        camera.connection.push(&packet, placed);
    }
}

/// An upload that comes through standard input.
struct PipeChunks(Arc<Shared>);

impl ChunkSource for PipeChunks {
    fn next_chunk(&mut self, timeout: Duration) -> Result<ChunkEvent> {
        self.0.alive();
        let unreadable = || "the decoder process cannot read its input".to_owned();
        let input = rustix::stdio::stdin();
        let timeout = Timespec::try_from(timeout).or_kind(Kind::Internal, unreadable)?;
        let mut ready = [PollFd::new(&input, PollFlags::IN)];
        match poll(&mut ready, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(ChunkEvent::Pending),
            Ok(_) => {}
            Err(e) => return Err(Error::internal(unreadable()).with_source(e)),
        }
        let mut bytes = vec![0; UPLOAD_GATHER_BYTES];
        let n = rustix::io::read(input, &mut bytes).or_kind(Kind::Internal, unreadable)?;
        if n == 0 {
            return Ok(ChunkEvent::End);
        }
        bytes.truncate(n);
        Ok(ChunkEvent::Bytes(bytes.into()))
    }
}
