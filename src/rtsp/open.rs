//! From a URL to a playing session: OPTIONS, DESCRIBE, SETUP, PLAY.

use std::time::Duration;

use rtsp_types::{HeaderName, Method, Response, StatusCode, headers};

use super::{
    Access, Client, Failure, FailureKind, Session, Transport, Url,
    auth::Authenticator,
    connection::Connection,
    dialogue::{Answer, Ask, Dialogue, Early, refusal},
    receiver::Receiver,
    sdp,
    session::{Keepalive, Media, Parts},
    transport::{self, Granted},
    udp::Ports,
};
use crate::{limits, net::strip};

impl Client {
    /// Connects to a camera and lets it play its first video track of a known codec. Each step is
    /// bounded by the client's timeouts; dropping the future closes what it opened.
    ///
    /// At most [`limits::RTSP_REDIRECTS_MAX`] redirects are followed, each under the same rules as
    /// the first address.
    pub async fn open(&self, url: &Url, access: &Access) -> Result<Session, Failure> {
        let mut url = url.clone();
        for _ in 0..=limits::RTSP_REDIRECTS_MAX {
            if url.is_tls() && access.transport == Transport::Udp {
                return Err(Failure::protocol(
                    "packets of an rtsps camera over UDP would need SRTP, which is not supported; \
                     use TCP",
                ));
            }
            match Attempt::begin(self, &url, access).await?.run().await? {
                Step::Done(session) => return Ok(*session),
                Step::Elsewhere(location) => {
                    let to = url
                        .redirected(&location)
                        .map_err(|e| Failure::protocol(e.message()))?;
                    tracing::debug!(from = %url, %to, "rtsp redirect");
                    url = to;
                }
            }
        }
        Err(Failure::protocol(format!(
            "the camera redirects more than {} times",
            limits::RTSP_REDIRECTS_MAX
        )))
    }
}

enum Step {
    Done(Box<Session>),
    Elsewhere(String),
}

/// The answer to a request, or a return with the redirect that it was.
macro_rules! answered {
    ($exchange:expr) => {
        match $exchange.await? {
            Answer::Response(response) => response,
            Answer::Redirect(to) => return Ok(Step::Elsewhere(to)),
        }
    };
}

struct Attempt<'a> {
    client: &'a Client,
    url: &'a Url,
    transport: Transport,
    /// Since TCP was refused.
    tried_udp: bool,
    dialogue: Dialogue,
    early: Early,
}

impl<'a> Attempt<'a> {
    async fn begin(client: &'a Client, url: &'a Url, access: &Access) -> Result<Self, Failure> {
        let dialed = client.dialer().dial(&url.target(), &access.trust).await?;
        let connection = Connection::new(dialed.stream, dialed.peer, dialed.local);
        let auth = Authenticator::new(url.credentials().cloned());
        Ok(Attempt {
            client,
            url,
            transport: access.transport,
            tried_udp: false,
            dialogue: Dialogue::new(connection, auth),
            early: Early::default(),
        })
    }

    async fn run(mut self) -> Result<Step, Failure> {
        let options = answered!(self.ask(Method::Options, self.url.request(), vec![]));
        // A camera that refuses may still know how to play.
        let knows_get_parameter = options
            .header(&headers::PUBLIC)
            .is_some_and(|public| names(public.as_str(), "GET_PARAMETER"));

        let accept = vec![(headers::ACCEPT, "application/sdp".to_owned())];
        let described = answered!(self.ask(Method::Describe, self.url.request(), accept));
        self.granted(&Method::Describe, &described)?;
        let chosen = sdp::choose(described.body(), self.url.is_tls())?;
        let base = base(self.url, &described);
        let aggregate = sdp::control_url(&base, chosen.session_control.as_deref())?;
        // As widespread clients read it: a session's URL of its own is what its tracks' are below.
        let below = match chosen.session_control.as_deref() {
            Some(control) if control.contains("://") => &aggregate,
            _ => &base,
        };
        let track_url = sdp::control_url(below, chosen.track_control.as_deref())?;

        let mut ports = match self.transport {
            Transport::Either | Transport::Tcp => None,
            Transport::Udp => Some(self.ports().await?),
        };
        let mut set_up = answered!(self.set_up(&track_url, ports.as_ref()));
        let refused = set_up.status() == StatusCode::UnsupportedTransport;
        if refused && self.transport == Transport::Either && !self.url.is_tls() {
            tracing::debug!(url = %self.url, "the camera does not send over TCP; trying UDP");
            ports = Some(self.ports().await?);
            self.tried_udp = true;
            set_up = answered!(self.set_up(&track_url, ports.as_ref()));
        }
        self.granted(&Method::Setup, &set_up)?;
        let granted = set_up.header(&headers::TRANSPORT).map(|h| h.as_str());
        let granted = match &ports {
            None => transport::granted_interleaved(granted),
            Some(_) => transport::granted_datagrams(granted, self.dialogue.connection.peer.ip()),
        };
        let (session, session_timeout) = session(&set_up);
        self.dialogue.session = session;
        if granted.is_err() {
            self.leave(&aggregate).await;
        }
        let granted = granted?;

        let mut receiver = Receiver::new(&chosen.track, ports.is_some(), rand::random());
        let now = self.client.clock.now();
        let media = match (granted, ports.take()) {
            (Granted::Datagrams(theirs), Some(mut ports)) => {
                ports.agreed(theirs);
                ports.punch(&receiver.report(now));
                Media::Datagrams(Box::new(ports))
            }
            (Granted::Interleaved(rtp, rtcp), _) => {
                self.early.channel = Some(rtp);
                Media::Interleaved { rtp, rtcp }
            }
            (Granted::Datagrams(_), None) => {
                return Err(Failure::protocol("the camera grants another transport"));
            }
        };

        let from_the_start = vec![(headers::RANGE, "npt=0.000-".to_owned())];
        let played = self.ask(Method::Play, &aggregate, from_the_start);
        let played = match played.await {
            Ok(Answer::Response(played)) => self.granted(&Method::Play, &played).map(|()| None),
            Ok(Answer::Redirect(to)) => Ok(Some(to)),
            Err(failure) => Err(failure),
        };
        if !matches!(played, Ok(None)) {
            self.leave(&aggregate).await;
        }
        if let Some(to) = played? {
            return Ok(Step::Elsewhere(to));
        }
        if let Media::Datagrams(ports) = &media {
            ports.punch(&receiver.report(self.client.clock.now()));
        }
        for (data, arrived) in self.early.packets.drain(..) {
            receiver.push(data, arrived);
        }
        Ok(Step::Done(Box::new(Session::new(
            self.client,
            Parts {
                url: self.url.clone(),
                aggregate,
                dialogue: self.dialogue,
                media,
                track: chosen.track,
                receiver,
                refuses_tcp: self.tried_udp,
                keepalive: Keepalive::new(session_timeout, knows_get_parameter),
            },
        ))))
    }

    async fn ask(
        &mut self,
        method: Method,
        url: &url::Url,
        headers: Vec<(HeaderName, String)>,
    ) -> Result<Answer, Failure> {
        let ask = Ask {
            method,
            url: url.clone(),
            headers,
        };
        self.dialogue
            .exchange(self.client, &ask, &mut self.early)
            .await
    }

    async fn ports(&self) -> Result<Ports, Failure> {
        let connection = &self.dialogue.connection;
        Ports::bind(connection.local, connection.peer).await
    }

    /// Asks for datagrams to these ports, or without any for packets on this connection.
    async fn set_up(&mut self, track: &url::Url, ports: Option<&Ports>) -> Result<Answer, Failure> {
        let wanted = match ports {
            None => transport::INTERLEAVED.to_owned(),
            Some(ports) => {
                let (rtp, rtcp) = ports.numbers().map_err(|e| {
                    Failure::new(FailureKind::Refused, format!("the UDP ports broke: {e}"))
                })?;
                transport::datagrams(rtp, rtcp)
            }
        };
        let wanted = vec![(headers::TRANSPORT, wanted)];
        self.ask(Method::Setup, track, wanted).await
    }

    fn granted(&self, method: &Method, response: &Response<Vec<u8>>) -> Result<(), Failure> {
        if response.status().is_success() {
            return Ok(());
        }
        let unsupported = match self.transport {
            _ if self.url.is_tls() => "does not send packets over TCP",
            Transport::Either if self.tried_udp => "sends packets neither over TCP nor over UDP",
            Transport::Either | Transport::Tcp => "does not send packets over TCP; try UDP",
            Transport::Udp => "does not send packets over UDP; try TCP",
        };
        Err(refusal(method, response.status(), unsupported))
    }

    /// Gives a session back that will not be used; cameras have few. It is not waited for.
    async fn leave(&mut self, aggregate: &url::Url) {
        let teardown = Ask {
            method: Method::Teardown,
            url: aggregate.clone(),
            headers: vec![],
        };
        if self.dialogue.send(&teardown).is_ok() {
            self.dialogue.connection.send_now().await;
        }
    }
}

/// What the URLs of the description are relative to.
fn base(url: &Url, described: &Response<Vec<u8>>) -> url::Url {
    let said = [headers::CONTENT_BASE, headers::CONTENT_LOCATION]
        .iter()
        .filter_map(|name| described.header(name))
        .filter(|value| value.as_str().len() <= limits::RTSP_CONTROL_MAX_BYTES)
        .find_map(|value| {
            let mut base = url::Url::parse(value.as_str().trim_matches('"')).ok()?;
            base.set_fragment(None);
            strip(&mut base).ok()?;
            (matches!(base.scheme(), "rtsp" | "rtsps") && base.has_host()).then_some(base)
        });
    said.unwrap_or_else(|| url.request().clone())
}

/// The session's identifier and when the camera forgets it.
fn session(set_up: &Response<Vec<u8>>) -> (Option<String>, Duration) {
    let header = set_up.header(&headers::SESSION).map_or("", |h| h.as_str());
    let mut parts = header.split([';', ',']).map(str::trim);
    let identifier = parts.next().filter(|id| !id.is_empty()).map(str::to_owned);
    let timeout = parts
        .filter_map(|p| p.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"))
        .and_then(|(_, seconds)| seconds.trim().parse().ok())
        .filter(|seconds| *seconds > 0)
        .map_or(limits::RTSP_SESSION_TIMEOUT, Duration::from_secs);
    (identifier, timeout)
}

/// Whether a list of methods names this one.
fn names(list: &str, method: &str) -> bool {
    list.split([',', ' '])
        .any(|m| m.trim().eq_ignore_ascii_case(method))
}
