//! A playing session: packets in, signs of life and reports out.
//!
//! There is no task behind it: everything happens inside `next`, and nothing is left when the
//! session is dropped, but for what the camera keeps of one that was not closed.

use std::{fmt, sync::Arc, time::Duration};

use rtsp_types::{Method, Response};

use super::{
    Client, Failure, FailureKind, Packet, Track, Url,
    dialogue::{Ask, Dialogue, Wish, cseq},
    receiver::Receiver,
    rtp,
    udp::{Datagram, Ports},
    wire::Incoming,
};
use crate::{
    clock::{Clock, Sleep, timeout},
    limits,
};

/// How the packets come.
pub(super) enum Media {
    Interleaved { rtp: u8, rtcp: u8 },
    Datagrams(Box<Ports>),
}

/// What the set-up yields.
pub(super) struct Parts {
    pub url: Url,
    pub aggregate: url::Url,
    pub dialogue: Dialogue,
    pub media: Media,
    pub track: Track,
    pub receiver: Receiver,
    /// It was asked for packets over TCP first.
    pub refuses_tcp: bool,
    pub keepalive: Keepalive,
}

/// Signs of life.
pub(super) struct Keepalive {
    period: Duration,
    method: Method,
    at: Duration,
    /// The request whose answer is outstanding.
    asked: Option<u32>,
    /// Whether it was already repeated with fresh credentials.
    repeated: bool,
}

impl Keepalive {
    pub fn new(session_timeout: Duration, knows_get_parameter: bool) -> Self {
        Keepalive {
            period: (session_timeout / 2)
                .clamp(limits::RTSP_KEEPALIVE_MIN, limits::RTSP_KEEPALIVE_MAX),
            method: if knows_get_parameter {
                Method::GetParameter
            } else {
                Method::Options
            },
            at: Duration::ZERO,
            asked: None,
            repeated: false,
        }
    }
}

/// A camera that plays. Packets come while [`Session::next`] is awaited, and only then does the
/// camera hear from us.
pub struct Session {
    clock: Arc<dyn Clock>,
    silence_timeout: Duration,
    parts: Parts,
    report_at: Duration,
    silence_at: Duration,
    /// Whether the silence was looked at twice.
    suspected: bool,
    /// What came without a packet of the track among it.
    fruitless: u32,
    /// A wait that is at most as long as the next thing to do is away.
    alarm: Option<(Duration, Sleep)>,
    failed: Option<Failure>,
}

enum Event {
    Message(Option<Incoming>),
    Datagram(Datagram),
    Alarm,
}

impl Session {
    pub(super) fn new(client: &Client, mut parts: Parts) -> Self {
        let now = client.clock.now();
        parts.keepalive.at = now + parts.keepalive.period;
        Session {
            clock: client.clock.clone(),
            silence_timeout: client.silence_timeout,
            parts,
            report_at: now + limits::RTCP_REPORT_PERIOD,
            silence_at: now + client.silence_timeout,
            suspected: false,
            fruitless: 0,
            alarm: None,
            failed: None,
        }
    }

    /// What plays.
    pub fn track(&self) -> &Track {
        &self.parts.track
    }

    /// The next packet of the track. The wait may be dropped and begun again: nothing is lost.
    /// After a failure it gives what had arrived before, and then the failure every time.
    pub async fn next(&mut self) -> Result<Packet, Failure> {
        loop {
            let now = self.clock.now();
            if let Some(packet) = self.parts.receiver.pop(now) {
                return Ok(packet);
            }
            if let Some(failure) = &self.failed {
                return Err(failure.clone());
            }
            if let Err(failure) = self.step(now).await {
                tracing::debug!(url = %self.parts.url, %failure, "rtsp session over");
                self.parts.receiver.flush();
                self.failed = Some(failure);
            }
        }
    }

    /// Says goodbye, so that the camera need not wait for the session's timeout; at most
    /// [`limits::RTSP_CLOSE_TIMEOUT`].
    pub async fn close(mut self) {
        let teardown = self.ask(Method::Teardown);
        let dialogue = &mut self.parts.dialogue;
        // Where the connection is not to blame, the camera may still believe in the session.
        let broken =
            |failure: &Failure| matches!(failure.kind, FailureKind::Reset | FailureKind::Timeout);
        if self.failed.as_ref().is_some_and(broken) {
            return;
        }
        let Ok((number, _)) = dialogue.send(&teardown) else {
            return;
        };
        let end = self.clock.now() + limits::RTSP_CLOSE_TIMEOUT;
        let clock = &*self.clock;
        let farewell = async {
            while let Ok(Some(incoming)) = dialogue.connection.receive().await {
                let answered = matches!(&incoming, Incoming::Response(response, _)
                    if cseq(response).is_none_or(|n| n == number));
                if answered || clock.now() >= end {
                    return;
                }
            }
        };
        timeout(clock, limits::RTSP_CLOSE_TIMEOUT, farewell).await;
    }

    fn ask(&self, method: Method) -> Ask {
        Ask {
            method,
            url: self.parts.aggregate.clone(),
            headers: vec![],
        }
    }

    /// Does what is due, then waits for one event and takes it in.
    async fn step(&mut self, now: Duration) -> Result<(), Failure> {
        self.speak(now)?;
        // Whoever never stops sending may keep the alarm from being looked at.
        if now >= self.silence_at && self.fruitless > limits::RTSP_FRUITLESS_MAX {
            return Err(self.silence());
        }
        let now = match self.event(now).await? {
            Event::Alarm => return self.look_at_the_time(),
            Event::Message(message) => {
                let now = self.clock.now();
                self.message(message, now)?;
                now
            }
            Event::Datagram(datagram) => {
                let now = self.clock.now();
                match datagram {
                    Datagram::Rtp(data) => self.packet(data, now)?,
                    Datagram::Rtcp(data) => self.control(&data, now)?,
                    Datagram::Foreign => {}
                }
                now
            }
        };
        if now < self.silence_at {
            self.fruitless = 0;
        } else {
            self.fruitless = self.fruitless.saturating_add(1);
        }
        Ok(())
    }

    /// Sends the sign of life and the report where they are due.
    fn speak(&mut self, now: Duration) -> Result<(), Failure> {
        if now >= self.parts.keepalive.at {
            let ask = self.ask(self.parts.keepalive.method.clone());
            let (number, _) = self.parts.dialogue.send(&ask)?;
            let keepalive = &mut self.parts.keepalive;
            keepalive.asked = Some(number);
            keepalive.repeated = false;
            keepalive.at = now + keepalive.period;
        }
        if now >= self.report_at {
            self.report_at = now + limits::RTCP_REPORT_PERIOD;
            let report = self.parts.receiver.report(now);
            match &self.parts.media {
                Media::Datagrams(ports) => ports.report(&report),
                Media::Interleaved { rtcp, .. } => {
                    let length = u16::try_from(report.len()).unwrap_or(0).to_be_bytes();
                    let head = [b'$', *rtcp, length[0], length[1]];
                    // One that does not fit is left out.
                    self.parts
                        .dialogue
                        .connection
                        .send(&[&head, &report[..]].concat());
                }
            }
        }
        Ok(())
    }

    async fn event(&mut self, now: Duration) -> Result<Event, Failure> {
        let due = [self.silence_at, self.report_at, self.parts.keepalive.at];
        let due = due.into_iter().chain(self.parts.receiver.due()).min();
        let due = due.unwrap_or(now);
        // An earlier alarm is left alone: it costs one more look, a new timer for every packet
        // costs more.
        if self.alarm.as_ref().is_none_or(|(at, _)| *at > due) {
            let sleep = self.clock.sleep(due.saturating_sub(now));
            self.alarm = Some((due, sleep));
        }
        let Parts {
            dialogue, media, ..
        } = &mut self.parts;
        let datagram = async {
            match media {
                Media::Datagrams(ports) => ports.receive().await,
                Media::Interleaved { .. } => std::future::pending().await,
            }
        };
        let alarm = async {
            if let Some((_, sleep)) = &mut self.alarm {
                sleep.await;
            }
        };
        let event = tokio::select! {
            message = dialogue.connection.receive() => Event::Message(message?),
            datagram = datagram => Event::Datagram(datagram?),
            () = alarm => Event::Alarm,
        };
        if matches!(event, Event::Alarm) {
            self.alarm = None;
        }
        Ok(event)
    }

    fn look_at_the_time(&mut self) -> Result<(), Failure> {
        let now = self.clock.now();
        if now < self.silence_at {
            return Ok(());
        }
        if self.suspected {
            return Err(self.silence());
        }
        // Nobody may have asked for packets for a while.
        self.suspected = true;
        self.silence_at = now + limits::RTSP_SILENCE_RECHECK;
        Ok(())
    }

    fn silence(&self) -> Failure {
        let hint = match self.parts.media {
            Media::Datagrams(_) if self.parts.refuses_tcp => {
                "; it does not send over TCP, so a firewall must let its UDP through"
            }
            Media::Datagrams(_) => "; where a firewall holds UDP back, use TCP",
            Media::Interleaved { .. } => "",
        };
        Failure::new(
            FailureKind::Silence,
            format!(
                "no packet from the camera for {} s{hint}",
                self.silence_timeout.as_secs_f64()
            ),
        )
    }

    fn message(&mut self, message: Option<Incoming>, now: Duration) -> Result<(), Failure> {
        match message {
            None => Err(ended("the camera closed the connection")),
            Some(Incoming::Frame(channel, data)) => match self.parts.media {
                Media::Interleaved { rtp, .. } if channel == rtp => self.packet(data, now),
                Media::Interleaved { rtcp, .. } if channel == rtcp => self.control(&data, now),
                _ => Ok(()),
            },
            Some(Incoming::Response(response, challenges)) => self.response(&response, &challenges),
            Some(Incoming::Request(request)) => match self.parts.dialogue.heed(&request) {
                Wish::Nothing => Ok(()),
                Wish::Teardown => Err(ended("the camera ended the session")),
                Wish::Redirect(_) => Err(ended("the camera sends its viewers elsewhere")),
            },
        }
    }

    fn packet(&mut self, data: prost::bytes::Bytes, now: Duration) -> Result<(), Failure> {
        let own = data.get(1).map(|b| b & 0x7f) == Some(self.parts.track.payload_type);
        if !own && rtp::is_control(&data) {
            return self.control(&data, now);
        }
        if self.parts.receiver.push(data, now) {
            self.silence_at = now + self.silence_timeout;
            self.suspected = false;
        }
        Ok(())
    }

    fn control(&mut self, data: &[u8], now: Duration) -> Result<(), Failure> {
        if self.parts.receiver.control(data, now) {
            return Err(ended("the camera ended the stream"));
        }
        Ok(())
    }

    /// Takes the answer to a sign of life; others are late ones.
    fn response(
        &mut self,
        response: &Response<Vec<u8>>,
        challenges: &[String],
    ) -> Result<(), Failure> {
        let status = u16::from(response.status());
        let asked = self.parts.keepalive.asked;
        if status < 200 || asked.is_none() || cseq(response).is_some_and(|n| Some(n) != asked) {
            return Ok(());
        }
        self.parts.keepalive.asked = None;
        match status {
            401 if !self.parts.keepalive.repeated
                && self.parts.dialogue.challenged(challenges).is_ok() =>
            {
                let ask = self.ask(self.parts.keepalive.method.clone());
                let (number, _) = self.parts.dialogue.send(&ask)?;
                self.parts.keepalive.asked = Some(number);
                self.parts.keepalive.repeated = true;
            }
            454 => return Err(ended("the camera does not know the session any more")),
            // It plays, whatever it thinks of this request. If it counts on another one, it ends the session, and the
            // next DESCRIBE tells what is wrong.
            400.. => self.parts.keepalive.method = Method::Options,
            _ => {}
        }
        Ok(())
    }
}

fn ended(what: &str) -> Failure {
    Failure::new(FailureKind::Ended, what)
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("url", &self.parts.url)
            .field("track", &self.parts.track)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}
