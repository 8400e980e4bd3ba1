//! A TCP proxy before a camera, which breaks things when it is told to.

use std::{
    future::pending,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    time::{sleep_until, timeout},
};

use super::{
    fault::Fault,
    tamper::Tamper,
    wire::{Piece, take},
};

/// Bytes that wait for one side of a connection; it is then not read for.
const WAITING_MAX: usize = 64 << 10;

/// Slow bytes come so many times per second.
const DRIPS: u32 = 20;

/// Longest wait for the proxy to do what it is told.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the proxy is to do.
#[derive(Clone, Default)]
struct Orders {
    fault: Option<Fault>,
    /// Counts changes of `fault`.
    round: u64,
    /// The last fault for open connections alone, and how many there were.
    strike: Option<Fault>,
    strikes: u64,
    end: bool,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicU64,
    open: AtomicU64,
    passed: AtomicU64,
    touched: AtomicU64,
    /// The round that the listener has come to.
    listener: AtomicU64,
}

/// The proxy; it runs on a thread of its own, so that it works whatever the test blocks. Dropping
/// it closes everything.
///
/// Clients of a camera with a login may be led through it: requests are not changed, so digests
/// stay right. Camera addresses in responses are replaced by the proxy's. TLS goes through unread,
/// and only the faults down to [`Fault::SwitchTo`] then work.
pub struct FaultProxy {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// Before the camera at `camera`, on a free port of 127.0.0.1, without a fault.
    pub fn start(camera: SocketAddr) -> FaultProxy {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (orders, told) = watch::channel(Orders::default());
        let counts = Arc::new(Counts::default());
        let (listener, reserved, address) = {
            let _context = runtime.enter();
            // Bound and never listening: keeps the port while nobody listens.
            let reserved = bind("127.0.0.1:0".parse().unwrap());
            let address = reserved.local_addr().unwrap();
            (bind(address).listen(64).unwrap(), reserved, address)
        };
        let own = Arc::clone(&counts);
        let thread = std::thread::Builder::new()
            .name("fault-proxy".to_owned())
            .spawn(move || {
                runtime.block_on(serve(listener, address, camera, told, own));
                drop(reserved);
            })
            .unwrap();
        FaultProxy {
            address,
            orders,
            counts,
            thread: Some(thread),
        }
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The camera's URL through the proxy.
    pub fn url(&self, path: &str) -> String {
        format!("rtsp://{}{path}", self.address)
    }

    /// From now on there is this fault, instead of any other.
    pub fn set(&self, fault: Fault) {
        self.order(Some(fault));
    }

    /// From now on there is no fault.
    pub fn clear(&self) {
        self.order(None);
    }

    /// This fault happens to the connections that are open now, once; for [`Fault::Reset`],
    /// [`Fault::Eos`] and [`Fault::Bye`].
    pub fn strike(&self, fault: Fault) {
        assert!(matches!(fault, Fault::Reset | Fault::Eos | Fault::Bye));
        self.orders.send_modify(|orders| {
            orders.strike = Some(fault);
            orders.strikes += 1;
        });
    }

    /// Connections made so far.
    pub fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    /// Connections that are open.
    pub fn open(&self) -> u64 {
        self.counts.open.load(Ordering::SeqCst)
    }

    /// RTP packets that went through, changed or not.
    pub fn passed(&self) -> u64 {
        self.counts.passed.load(Ordering::SeqCst)
    }

    /// RTP packets that were lost or changed by a fault.
    pub fn touched(&self) -> u64 {
        self.counts.touched.load(Ordering::SeqCst)
    }

    fn order(&self, fault: Option<Fault>) {
        let mut round = 0;
        self.orders.send_modify(|orders| {
            orders.fault = fault;
            orders.round += 1;
            round = orders.round;
        });
        let begun = Instant::now();
        while self.counts.listener.load(Ordering::SeqCst) < round {
            assert!(begun.elapsed() < PATIENCE, "the proxy does not listen");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.orders.send_modify(|orders| orders.end = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn bind(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    camera: SocketAddr,
    mut told: watch::Receiver<Orders>,
    counts: Arc<Counts>,
) {
    let mut listener = Some(listener);
    loop {
        let orders = told.borrow_and_update().clone();
        if orders.end {
            return;
        }
        if orders.fault == Some(Fault::Refuse) {
            listener = None;
        } else if listener.is_none() {
            listener = Some(bind(address).listen(64).unwrap());
        }
        counts.listener.store(orders.round, Ordering::SeqCst);
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => pending().await,
            }
        };
        tokio::select! {
            changed = told.changed() => if changed.is_err() { return },
            accepted = accepted => {
                let Ok((client, _)) = accepted else { continue };
                counts.accepted.fetch_add(1, Ordering::SeqCst);
                counts.open.fetch_add(1, Ordering::SeqCst);
                let to = match &orders.fault {
                    Some(Fault::SwitchTo(other)) => *other,
                    _ => camera,
                };
                let (told, counts) = (told.clone(), Arc::clone(&counts));
                tokio::spawn(async move {
                    // Its error is the connection's end.
                    let _ = Connection::run(client, to, address, told, &counts).await;
                    counts.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        }
    }
}

/// One side of a connection.
struct Side {
    stream: TcpStream,
    /// Read, not yet whole.
    read: Vec<u8>,
    /// To be written.
    waiting: Vec<u8>,
}

impl Side {
    fn new(stream: TcpStream) -> Side {
        Side {
            stream,
            read: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Reads what is there; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 16 << 10];
        match self.stream.try_read(&mut bytes) {
            Ok(0) => Ok(false),
            Ok(n) => {
                self.read.extend_from_slice(&bytes[..n]);
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// Writes what goes, `most` bytes at most; gives how many.
    fn flush(&mut self, most: usize) -> io::Result<usize> {
        let end = self.waiting.len().min(most);
        match self.stream.try_write(&self.waiting[..end]) {
            Ok(n) => {
                self.waiting.drain(..n);
                Ok(n)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(e) => Err(e),
        }
    }
}

struct Connection<'a> {
    client: Side,
    camera: Side,
    tamper: Tamper,
    /// Not RTSP: bytes go through as they are.
    opaque: bool,
    /// The status that DESCRIBE gets.
    answer: Option<u16>,
    counts: &'a Counts,
}

impl Connection<'_> {
    async fn run(
        mut client: TcpStream,
        to: SocketAddr,
        own: SocketAddr,
        mut told: watch::Receiver<Orders>,
        counts: &Counts,
    ) -> io::Result<()> {
        client.set_nodelay(true)?;
        let first = told.borrow_and_update().clone();
        match first.fault {
            Some(Fault::Reset | Fault::Refuse) => return client.set_zero_linger(),
            Some(Fault::Eos) => return end(&mut client).await,
            _ => {}
        }
        let camera = TcpStream::connect(to).await?;
        camera.set_nodelay(true)?;
        let mut connection = Connection {
            client: Side::new(client),
            camera: Side::new(camera),
            tamper: Tamper::new(to.to_string(), own.to_string()),
            opaque: false,
            answer: None,
            counts,
        };
        connection.pass(first, &mut told).await
    }

    async fn pass(&mut self, first: Orders, told: &mut watch::Receiver<Orders>) -> io::Result<()> {
        let (mut round, mut strikes) = (None, first.strikes);
        // Bytes that may still drip, and when there are more.
        let (mut budget, mut refill) = (0, Instant::now());
        loop {
            let orders = told.borrow_and_update().clone();
            if orders.end {
                return Ok(());
            }
            let mut deadly = None;
            if round != Some(orders.round) {
                round = Some(orders.round);
                self.tamper.begin(orders.fault.as_ref());
                self.answer = match orders.fault {
                    Some(Fault::Answer(status)) => Some(status),
                    _ => None,
                };
                deadly = orders.fault.clone();
            }
            if strikes != orders.strikes {
                strikes = orders.strikes;
                if orders.strike == Some(Fault::Bye) {
                    self.tamper.say_bye();
                } else {
                    deadly = orders.strike.clone();
                }
            }
            match deadly {
                Some(Fault::Reset | Fault::Refuse) => return self.client.stream.set_zero_linger(),
                Some(Fault::Eos) => return end(&mut self.client.stream).await,
                _ => {}
            }
            if orders.fault == Some(Fault::HalfOpen) {
                if told.changed().await.is_err() {
                    return Ok(());
                }
                continue;
            }
            let drip = match orders.fault {
                Some(Fault::SlowDrip(rate)) => Some((rate / DRIPS).max(1) as usize),
                _ => None,
            };
            let most = drip.map_or(usize::MAX, |_| budget);
            let down = !self.client.waiting.is_empty();
            tokio::select! {
                changed = told.changed() => if changed.is_err() { return Ok(()) },
                ready = self.client.stream.readable(), if self.camera.waiting.len() < WAITING_MAX => {
                    ready?;
                    if !self.client.fill()? {
                        return Ok(());
                    }
                    self.upwards()?;
                }
                ready = self.camera.stream.readable(), if self.client.waiting.len() < WAITING_MAX => {
                    ready?;
                    if !self.camera.fill()? {
                        self.client.stream.writable().await?;
                        self.client.flush(usize::MAX)?;
                        return end(&mut self.client.stream).await;
                    }
                    self.downwards()?;
                }
                ready = self.client.stream.writable(), if down && most > 0 => {
                    ready?;
                    let written = self.client.flush(most)?;
                    budget -= written.min(budget);
                }
                ready = self.camera.stream.writable(), if !self.camera.waiting.is_empty() => {
                    ready?;
                    self.camera.flush(usize::MAX)?;
                }
                () = sleep_until(refill.into()), if drip.is_some() && budget == 0 => {
                    budget = drip.unwrap_or(0);
                    refill = Instant::now() + Duration::from_secs(1) / DRIPS;
                }
            }
        }
    }

    /// What the client has sent.
    fn upwards(&mut self) -> io::Result<()> {
        // A TLS handshake begins so; RTSP with a letter.
        self.opaque |= self.client.read.first() == Some(&0x16);
        if self.opaque {
            self.camera.waiting.append(&mut self.client.read);
            return Ok(());
        }
        while let Some(piece) = take(&mut self.client.read).map_err(io::Error::other)? {
            match (piece, self.answer) {
                (Piece::Message(m), Some(status)) if m.method() == "DESCRIBE" => {
                    let cseq = m.header("cseq").unwrap_or("0");
                    let challenge = match status {
                        401 => "WWW-Authenticate: Basic realm=\"proxy\"\r\n",
                        _ => "",
                    };
                    let text = format!("RTSP/1.0 {status} No\r\nCSeq: {cseq}\r\n{challenge}\r\n");
                    self.client.waiting.extend_from_slice(text.as_bytes());
                }
                (Piece::Message(m), _) => self.camera.waiting.extend(m.bytes()),
                (Piece::Frame(channel, data), _) => {
                    let bytes = super::wire::frame(channel, &data);
                    self.camera.waiting.extend(bytes);
                }
            }
        }
        Ok(())
    }

    /// What the camera has sent.
    fn downwards(&mut self) -> io::Result<()> {
        if self.opaque {
            self.client.waiting.append(&mut self.camera.read);
            return Ok(());
        }
        let before = (self.tamper.passed, self.tamper.touched);
        while let Some(piece) = take(&mut self.camera.read).map_err(io::Error::other)? {
            match piece {
                Piece::Message(m) => self.client.waiting.extend(self.tamper.message(m)),
                Piece::Frame(channel, data) => {
                    if let Some(bytes) = self.tamper.packet(channel, data) {
                        self.client.waiting.extend(bytes);
                    }
                }
            }
        }
        let (passed, touched) = (self.tamper.passed, self.tamper.touched);
        let add = |counter: &AtomicU64, n| counter.fetch_add(n, Ordering::SeqCst);
        add(&self.counts.passed, passed - before.0);
        add(&self.counts.touched, touched - before.1);
        Ok(())
    }
}

/// Ends a connection in an orderly way: bytes that nobody has read would make it a reset.
async fn end(client: &mut TcpStream) -> io::Result<()> {
    client.shutdown().await?;
    let drain = async {
        let mut bytes = [0; 4096];
        loop {
            client.readable().await?;
            match client.try_read(&mut bytes) {
                Ok(0) => return Ok(()),
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
                _ => {}
            }
        }
    };
    timeout(PATIENCE, drain).await.unwrap_or(Ok(()))
}
