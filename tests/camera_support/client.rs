//! A bare RTSP client over TCP: it shows what is on the wire and judges nothing.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use super::wire::{Message, Piece, Rtp, take};

/// Longest wait for an answer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// One connection.
pub struct RawClient {
    stream: TcpStream,
    url: String,
    read: Vec<u8>,
    cseq: u32,
    /// Frames that came before an answer.
    frames: VecDeque<(u8, Vec<u8>)>,
}

/// What came instead of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nothing {
    /// Nothing in time.
    Silence,
    /// The connection ended in an orderly way.
    End,
    /// It was reset.
    Reset,
}

impl RawClient {
    /// Connects to the host of `url`, `rtsp://IP:PORT/PATH`.
    pub fn connect(url: &str) -> io::Result<RawClient> {
        let address = url.strip_prefix("rtsp://").unwrap();
        let address: SocketAddr = address.split('/').next().unwrap().parse().unwrap();
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        Ok(RawClient {
            stream,
            url: url.to_owned(),
            read: Vec::new(),
            cseq: 0,
            frames: VecDeque::new(),
        })
    }

    /// Sends a request for the URL followed by `suffix`, and waits for its answer.
    pub fn request(
        &mut self,
        method: &str,
        suffix: &str,
        headers: &[(&str, &str)],
    ) -> io::Result<Message> {
        self.cseq += 1;
        let mut text = format!(
            "{method} {}{suffix} RTSP/1.0\r\nCSeq: {}\r\n",
            self.url, self.cseq
        );
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        self.stream.write_all((text + "\r\n").as_bytes())?;
        let begun = Instant::now();
        loop {
            match self.piece(PATIENCE.saturating_sub(begun.elapsed()))? {
                Some(Piece::Message(message)) => return Ok(message),
                Some(Piece::Frame(channel, data)) => self.frames.push_back((channel, data)),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// Describes, sets up channels 0 and 1 and plays; gives the description.
    pub fn play(&mut self) -> io::Result<String> {
        let fine = |message: Message| match message.status() {
            200 => Ok(message),
            status => Err(io::Error::other(status.to_string())),
        };
        fine(self.request("OPTIONS", "", &[])?)?;
        let described = fine(self.request("DESCRIBE", "", &[("Accept", "application/sdp")])?)?;
        let transport = ("Transport", "RTP/AVP/TCP;unicast;interleaved=0-1");
        let set_up = fine(self.request("SETUP", "/stream=0", &[transport])?)?;
        let session = set_up.header("session").unwrap();
        let session = session.split(';').next().unwrap().to_owned();
        fine(self.request("PLAY", "", &[("Session", &session)])?)?;
        Ok(String::from_utf8(described.body).unwrap())
    }

    /// The next interleaved frame with its channel.
    pub fn frame(&mut self, patience: Duration) -> Result<(u8, Vec<u8>), Nothing> {
        if let Some(frame) = self.frames.pop_front() {
            return Ok(frame);
        }
        let begun = Instant::now();
        loop {
            match self.piece(patience.saturating_sub(begun.elapsed())) {
                Ok(Some(Piece::Frame(channel, data))) => return Ok((channel, data)),
                Ok(Some(Piece::Message(_))) => {}
                Ok(None) => return Err(Nothing::End),
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Err(Nothing::Reset),
                Err(e) if e.kind() == io::ErrorKind::TimedOut => return Err(Nothing::Silence),
                Err(e) => panic!("{e}"),
            }
        }
    }

    /// The next RTP packet, RTCP left out.
    pub fn rtp(&mut self, patience: Duration) -> Result<Rtp, Nothing> {
        let begun = Instant::now();
        loop {
            let (channel, data) = self.frame(patience.saturating_sub(begun.elapsed()))?;
            if channel == 0 {
                return Ok(Rtp::parse(&data).expect("an RTP packet"));
            }
        }
    }

    /// The next `n` RTP packets.
    pub fn packets(&mut self, n: usize) -> Vec<Rtp> {
        let packet = |_| self.rtp(PATIENCE).unwrap();
        (0..n).map(packet).collect()
    }

    /// All RTP packets of so long a time.
    pub fn packets_for(&mut self, span: Duration) -> Vec<Rtp> {
        let begun = Instant::now();
        let mut packets = Vec::new();
        while let Ok(packet) = self.rtp(span.saturating_sub(begun.elapsed())) {
            packets.push(packet);
        }
        packets
    }

    /// The next piece; `None` at the end of the connection, `TimedOut` if none came.
    fn piece(&mut self, patience: Duration) -> io::Result<Option<Piece>> {
        let begun = Instant::now();
        loop {
            if let Some(piece) = take(&mut self.read).map_err(io::Error::other)? {
                return Ok(Some(piece));
            }
            let left = patience.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut bytes = [0; 16 << 10];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(None),
                Ok(n) => self.read.extend_from_slice(&bytes[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }
}
