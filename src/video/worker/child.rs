//! The decoder process itself: `headhunt decode-worker`.

mod answer;
mod fork;
mod give;
mod reducers;

use std::{
    any::Any,
    collections::HashMap,
    fmt,
    io::{BufReader, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use memmap2::MmapRaw;
use rustix::{
    event::{PollFd, PollFlags, poll},
    net::sockopt::socket_peercred,
    process::{Pid, getppid},
};
use tokio_util::sync::CancellationToken;

use self::reducers::Reducers;
use super::{
    board::Canvas,
    confine, locked,
    reach::{self, Readable},
    source::STANDARD_INPUT,
    wire::{self, Begin, Checked, Fault, FromWorker, Job, Laid, ToWorker},
    words,
};
use crate::{
    error::{Error, Kind, Result, ResultExt as _},
    limits::{
        SPOOL_MAX_BYTES, WORKER_ALIVE_PERIOD, WORKER_CPU_RENEWAL, WORKER_HEADER_MAX_BYTES,
        WORKER_MEMORY_BYTES, WORKER_PICTURES_BYTES, WORKER_REDUCED_BYTES,
    },
    media::{Picture, Reduce},
    video::{
        VideoLimits, live::Connection, memory::PictureMemory, picture::GstPicture, planes::Planes,
        upload::Feed,
    },
};

pub use fork::{Turn, serve_forks};

/// The stream of the server that started this process.
#[derive(Debug)]
pub struct Stream {
    begin: Begin,
    reader: BufReader<UnixStream>,
    shared: Arc<Shared>,
    /// Where pictures are decoded, if there is such memory.
    pictures: Option<MmapRaw>,
    /// As in [`Ground`].
    confined: bool,
}

/// What is ready before a process knows what it is to do: in a fork server, for all of its processes.
#[derive(Debug)]
pub struct Ground {
    readable: Readable,
    /// Whether what neither needs has been taken away.
    confined: bool,
}

impl Ground {
    /// That of a process which was started from the program's file. `environment` is its own, as far as it says where
    /// GStreamer lies.
    pub fn find(environment: &[(String, String)]) -> Self {
        Ground {
            readable: Readable::find(environment),
            confined: false,
        }
    }
}

/// Takes the stream, which comes over standard input and output, and gives up what decoding does not need
/// and what has to be given up before there is a second thread: privileges and files.
///
/// # Errors
/// `FailedPrecondition` where standard output is no socket of a server.
pub fn take(ground: Ground) -> Result<Stream> {
    end_with_server_alone();
    // What is run is a link, whose name would stand in lists of processes.
    let _ = rustix::thread::set_name(c"headhunt-decode");
    let socket = control()?;
    let cannot = || "a decoder process is started by a server, not by hand".to_owned();
    let (canvas, pictures) = Canvas::take(&socket).or_kind(Kind::FailedPrecondition, cannot)?;
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
        canvas,
        planes: Mutex::default(),
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
    let Ground { readable, confined } = ground;
    let restricted = reach::drop_privileges().and_then(|()| reach::restrict(readable, spool_dir));
    match restricted {
        Ok(whether) => shared.files_confined.store(whether, Ordering::Relaxed),
        Err(error) => {
            shared.send(&FromWorker::Failed(Fault::from(&error)), &[]);
            return Err(error);
        }
    }
    Ok(Stream {
        begin,
        reader,
        shared,
        pictures,
        confined,
    })
}

impl Stream {
    /// Serves it; the server's hanging up ends the process. `reduce` makes of pictures what the server asks for.
    pub fn serve(self, reduce: Reduce) -> ! {
        let Stream {
            begin,
            reader,
            shared,
            pictures,
            confined,
        } = self;
        let result = catch_unwind(AssertUnwindSafe(|| {
            end_with_server(&shared)?;
            confine(&begin, confined)?;
            let memory = PictureMemory::new(pictures, WORKER_REDUCED_BYTES);
            work(begin, reader, &shared, &memory, reduce)
        }));
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
    let files_confined = reach::restrict(Readable::find(environment), None)?;
    confine::limit(WORKER_MEMORY_BYTES, SPOOL_MAX_BYTES)?;
    crate::video::init()?;
    confine::forbid_to_all()?;
    confine::forbid()?;
    confine::forbid_writing()?;
    Ok(checked(spool_dir, files_confined, None))
}

/// `server` is whose stream this is; the parent may be its fork server.
fn checked(spool_dir: &Path, files_confined: bool, server: Option<Pid>) -> Checked {
    let others: Vec<Pid> = server.into_iter().chain(getppid()).collect();
    let mut faults = confine::faults(spool_dir, &others);
    if files_confined {
        let read = others.iter().flat_map(|pid| reach::faults(*pid));
        faults.extend(read.map(|what| format!("it can {what}")));
    }
    Checked {
        faults: faults.join("; "),
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
    canvas: Canvas,
    /// How the last picture lies that was decoded into the shared memory.
    planes: Mutex<Option<Planes>>,
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

    /// Where the server sees a picture that was decoded there.
    fn laid(&self, picture: &dyn Picture) -> Option<Laid> {
        let picture = (picture as &dyn Any).downcast_ref::<GstPicture>()?;
        let (at, planes) = picture.laid()?;
        let mut last = locked(&self.planes);
        let news = *last != Some(planes);
        *last = Some(planes);
        Some(Laid {
            at,
            planes: news.then_some(planes),
        })
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

/// From here on the signals that ask a service's processes to end say nothing: it is the server that they
/// ask, which lets its streams end in good order, and this process ends when the server hangs up.
fn end_with_server_alone() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: to ignore a signal runs no code.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
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

/// Takes away what can be taken away before the job is begun.
fn confine(begin: &Begin, confined: bool) -> Result<()> {
    // What the server sees is mapped whole, and bounded by itself.
    let memory = begin.memory_max_bytes.saturating_add(WORKER_PICTURES_BYTES);
    confine::limit(memory, begin.limits.spool_max_bytes)?;
    crate::video::init()?;
    if !confined {
        confine::forbid_to_all()?;
    }
    confine::forbid()
}

fn work(
    begin: Begin,
    reader: BufReader<UnixStream>,
    shared: &Arc<Shared>,
    memory: &PictureMemory,
    reduce: Reduce,
) -> Result<()> {
    let limits = VideoLimits::from(begin.limits);
    if let Job::Packets(track) = &begin.job {
        confine::forbid_writing()?;
        *locked(&shared.camera) = Some(Camera {
            connection: Connection::start(track, &limits, Some(memory))?,
            given: 0,
        });
    }
    let listening = Arc::clone(shared);
    let reducers = Reducers::new(begin.reducers);
    std::thread::Builder::new()
        .name("control".into())
        .spawn(move || answer::listen(reader, &listening, reduce, reducers))
        .or_kind(Kind::ResourceExhausted, || {
            "the decoder process cannot start a thread".into()
        })?;
    match begin.job {
        Job::Check => {
            confine::forbid_writing()?;
            let confined = shared.files_confined.load(Ordering::Relaxed);
            // Who made the socket.
            let server = socket_peercred(&*locked(&shared.socket)).map(|peer| peer.pid);
            let checked = checked(&limits.spool_dir, confined, server.ok());
            shared.send(&FromWorker::Checked(checked), &[]);
            Ok(())
        }
        Job::File => {
            let feed = Feed::from_file(Path::new(STANDARD_INPUT))?;
            give::media(feed, &limits, shared, memory)
        }
        Job::Upload => {
            let chunks = Box::new(give::PipeChunks(Arc::clone(shared)));
            let feed = Feed::from_chunks(chunks, &limits, &CancellationToken::new())?;
            give::media(feed, &limits, shared, memory)
        }
        Job::Packets(_) => give::packets(shared),
    }
}
