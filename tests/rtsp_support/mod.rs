//! A camera that follows a script, in nothing but sockets: RTSP over TCP and TLS; UDP is the
//! tests' own.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use headhunt::{
    clock::{Clock, FastClock},
    rtsp::{
        Access, Anywhere, Client, Failure, Packet, Session, SystemResolver, Transport, Trust, Url,
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::AbortHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Longest that anything may take here, in real time: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const SSRC: u32 = 0x1234_5678;

/// What the camera does.
#[derive(Clone, Debug)]
pub enum Act {
    Send(Vec<u8>),
    /// One byte in each segment, as far as the network stack lets it.
    Bytewise(Vec<u8>),
    /// Real time.
    Pause(Duration),
    Close,
    Reset,
}

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub uri: String,
    pub headers: Vec<(String, String)>,
    /// All of it.
    pub text: String,
}

impl Seen {
    fn parse(text: &str) -> Seen {
        let mut lines = text.lines();
        let mut first = lines.next().unwrap().split(' ');
        Seen {
            method: first.next().unwrap().to_owned(),
            uri: first.next().unwrap().to_owned(),
            headers: lines
                .filter_map(|l| l.split_once(':'))
                .map(|(n, v)| (n.trim().to_lowercase(), v.trim().to_owned()))
                .collect(),
            text: text.to_owned(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name)?;
        Some(&found.1)
    }

    /// An answer to this request.
    pub fn answer(&self, status: &str, headers: &str, body: &str) -> Vec<u8> {
        let cseq = self.header("cseq").unwrap();
        let length = if body.is_empty() {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        format!("RTSP/1.0 {status}\r\nCSeq: {cseq}\r\n{headers}{length}\r\n{body}").into_bytes()
    }

    /// The same as what the camera does.
    pub fn says(&self, status: &str, headers: &str) -> Option<Vec<Act>> {
        Some(vec![Act::Send(self.answer(status, headers, ""))])
    }

    /// What an ordinary camera answers.
    pub fn ordinary(&self) -> Vec<u8> {
        let session = "Session: 4711;timeout=60\r\n";
        match self.method.as_str() {
            "OPTIONS" => self.answer(
                "200 OK",
                "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER\r\n",
                "",
            ),
            "DESCRIBE" => {
                let base = format!("Content-Base: {}/\r\n", self.uri.trim_end_matches('/'));
                self.answer("200 OK", &base, SDP)
            }
            "SETUP" => {
                let transport = self.header("transport").unwrap();
                let headers = format!("{session}Transport: {transport}\r\n");
                self.answer("200 OK", &headers, "")
            }
            _ => self.answer("200 OK", session, ""),
        }
    }
}

/// An audio track and a video track.
pub const SDP: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=Camera\r\nt=0 0\r\na=control:*\r\n\
    m=audio 0 RTP/AVP 0\r\na=control:audio\r\n\
    m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
    a=fmtp:96 packetization-mode=1;Sprop-Parameter-Sets=Z2QAKK0=,aO48sA==\r\na=control:video\r\n";

type Script = Box<dyn FnMut(&Seen) -> Option<Vec<Act>> + Send>;

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    /// Interleaved data from the client.
    frames: Vec<(u8, Vec<u8>)>,
    /// To the latest connection.
    acts: Option<UnboundedSender<Act>>,
}

pub struct Camera {
    pub address: SocketAddr,
    scheme: &'static str,
    state: Arc<Mutex<State>>,
    /// Connections that are open at the moment.
    pub open: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Camera {
    /// A camera whose script may answer a request; what it leaves is answered as usual.
    pub async fn new(script: impl FnMut(&Seen) -> Option<Vec<Act>> + Send + 'static) -> Camera {
        Camera::start(Box::new(script), None).await
    }

    pub async fn ordinary() -> Camera {
        Camera::new(|_| None).await
    }

    /// The same behind TLS.
    pub async fn tls(
        config: rustls::ServerConfig,
        script: impl FnMut(&Seen) -> Option<Vec<Act>> + Send + 'static,
    ) -> Camera {
        Camera::start(Box::new(script), Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start(script: Script, tls: Option<TlsAcceptor>) -> Camera {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "rtsps" } else { "rtsp" };
        let state = Arc::new(Mutex::new(State::default()));
        let open = Arc::new(AtomicUsize::new(0));
        let script = Arc::new(Mutex::new(script));
        let (shared, count) = (state.clone(), open.clone());
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                socket.set_nodelay(true).unwrap();
                let (sender, acts) = unbounded_channel();
                shared.lock().unwrap().acts = Some(sender);
                count.fetch_add(1, Ordering::SeqCst);
                let connection = Connection {
                    state: shared.clone(),
                    script: script.clone(),
                    acts,
                };
                let (tls, count) = (tls.clone(), count.clone());
                connections.spawn(async move {
                    match tls {
                        None => connection.run(socket).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(socket).await {
                                connection.run(stream).await;
                            }
                        }
                    }
                    count.fetch_sub(1, Ordering::SeqCst);
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Camera {
            address,
            scheme,
            state,
            open,
            task: task.abort_handle(),
        }
    }

    /// Its URL with a path, and with a user name where that begins with `user@`.
    pub fn url(&self, path: &str) -> Url {
        Url::parse(&self.text(path)).unwrap()
    }

    pub fn text(&self, path: &str) -> String {
        let (user, path) = path.split_once("@/").map_or(("", path), |(u, p)| (u, p));
        let at = if user.is_empty() { "" } else { "@" };
        format!(
            "{}://{user}{at}{}/{}",
            self.scheme,
            self.address,
            path.trim_start_matches('/')
        )
    }

    /// Does something on the latest connection.
    pub fn act(&self, act: Act) {
        let state = self.state.lock().unwrap();
        state.acts.as_ref().unwrap().send(act).unwrap();
    }

    pub fn send(&self, bytes: impl Into<Vec<u8>>) {
        self.act(Act::Send(bytes.into()));
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    pub fn methods(&self) -> Vec<String> {
        self.seen().into_iter().map(|s| s.method).collect()
    }

    pub fn frames(&self) -> Vec<(u8, Vec<u8>)> {
        self.state.lock().unwrap().frames.clone()
    }

    /// The ports that the client asked to be sent to.
    pub fn client_ports(&self) -> (u16, u16) {
        let seen = self.seen();
        let set_up = seen.iter().rev().find(|s| s.method == "SETUP").unwrap();
        let transport = set_up.header("transport").unwrap();
        let (_, ports) = transport.split_once("client_port=").unwrap();
        let (rtp, rtcp) = ports.split_once('-').unwrap();
        (rtp.parse().unwrap(), rtcp.parse().unwrap())
    }
}

trait Io: AsyncRead + AsyncWrite + Unpin {
    fn reset(self);
}

impl Io for TcpStream {
    fn reset(self) {
        self.set_zero_linger().unwrap();
    }
}

impl Io for TlsStream<TcpStream> {
    fn reset(self) {
        self.get_ref().0.set_zero_linger().unwrap();
    }
}

struct Connection {
    state: Arc<Mutex<State>>,
    script: Arc<Mutex<Script>>,
    acts: UnboundedReceiver<Act>,
}

impl Connection {
    async fn run(mut self, mut stream: impl Io) {
        let mut buffer = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let acts = tokio::select! {
                read = stream.read(&mut chunk) => match read {
                    Ok(n) if n > 0 => {
                        buffer.extend_from_slice(&chunk[..n]);
                        self.requests(&mut buffer)
                    }
                    _ => return,
                },
                Some(act) = self.acts.recv() => vec![act],
            };
            for act in acts {
                let done = match act {
                    Act::Send(bytes) => stream.write_all(&bytes).await,
                    Act::Bytewise(bytes) => bytewise(&mut stream, &bytes).await,
                    Act::Pause(span) => {
                        tokio::time::sleep(span).await;
                        Ok(())
                    }
                    Act::Close => return,
                    Act::Reset => return stream.reset(),
                };
                if done.is_err() {
                    return;
                }
            }
        }
    }

    /// What to do for the requests that are complete.
    fn requests(&mut self, buffer: &mut Vec<u8>) -> Vec<Act> {
        let mut acts = Vec::new();
        loop {
            if let [b'$', channel, high, low, rest @ ..] = &buffer[..] {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if rest.len() < length {
                    return acts;
                }
                let frame = (*channel, rest[..length].to_vec());
                self.state.lock().unwrap().frames.push(frame);
                buffer.drain(..4 + length);
                continue;
            }
            let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") else {
                return acts;
            };
            let text = String::from_utf8(buffer.drain(..end + 4).collect()).unwrap();
            let seen = Seen::parse(&text);
            self.state.lock().unwrap().seen.push(seen.clone());
            if seen.method.starts_with("RTSP/") {
                continue;
            }
            let scripted = (self.script.lock().unwrap())(&seen);
            acts.extend(scripted.unwrap_or_else(|| vec![Act::Send(seen.ordinary())]));
        }
    }
}

async fn bytewise(stream: &mut impl Io, bytes: &[u8]) -> io::Result<()> {
    for byte in bytes {
        stream.write_all(&[*byte]).await?;
        stream.flush().await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// An RTP packet of payload type 96.
pub fn rtp(sequence: u16, timestamp: u32) -> Vec<u8> {
    rtp_of(SSRC, sequence, timestamp)
}

pub fn rtp_of(ssrc: u32, sequence: u16, timestamp: u32) -> Vec<u8> {
    let mut bytes = vec![0x80, 96];
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes.extend_from_slice(&timestamp.to_be_bytes());
    bytes.extend_from_slice(&ssrc.to_be_bytes());
    bytes.extend_from_slice(&[0x41; 30]);
    bytes
}

/// Data on a channel.
pub fn frame(channel: u8, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap().to_be_bytes();
    let mut bytes = vec![b'$', channel, length[0], length[1]];
    bytes.extend_from_slice(data);
    bytes
}

/// The sender of the track leaves.
pub fn bye() -> Vec<u8> {
    let mut bytes = vec![0x81, 203, 0, 1];
    bytes.extend_from_slice(&SSRC.to_be_bytes());
    bytes
}

/// A client whose clock runs so many times as fast. Its timeouts are 10 s on it.
pub fn client(factor: u32) -> Client {
    Client {
        clock: FastClock::shared(factor),
        resolver: Arc::new(SystemResolver),
        vet: Arc::new(Anywhere),
        connect_timeout: Duration::from_secs(10),
        response_timeout: Duration::from_secs(10),
        silence_timeout: Duration::from_secs(10),
    }
}

/// A client whose waits are not meant to end.
pub fn patient() -> Client {
    client(1)
}

pub fn tcp() -> Access {
    Access {
        transport: Transport::Tcp,
        trust: Trust::System,
    }
}

pub fn udp() -> Access {
    Access {
        transport: Transport::Udp,
        trust: Trust::System,
    }
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it took too long")
}

/// Waits until it is so.
pub async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + PATIENCE;
    while !is() {
        assert!(std::time::Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A session of an ordinary camera.
pub async fn playing(camera: &Camera, client: &Client, access: &Access) -> Session {
    within(client.open(&camera.url("/live"), access))
        .await
        .unwrap()
}

/// Why no session came about.
pub async fn failure(camera: &Camera, client: &Client, access: &Access) -> Failure {
    within(client.open(&camera.url("/live"), access))
        .await
        .expect_err("it plays")
}

/// The next packet as sequence number, ticks and loss.
pub async fn packet(session: &mut Session) -> (u16, i64, u32) {
    told(&within(session.next()).await.unwrap())
}

pub fn told(packet: &Packet) -> (u16, i64, u32) {
    let sequence = u16::from_be_bytes([packet.data[2], packet.data[3]]);
    (sequence, packet.ticks, packet.lost)
}

/// The failure that ends a session.
pub async fn end(session: &mut Session) -> Failure {
    loop {
        if let Err(failure) = within(session.next()).await {
            return failure;
        }
    }
}

/// The time on a client's clock, seconds.
pub fn now(clock: &dyn Clock) -> f64 {
    clock.now().as_secs_f64()
}
