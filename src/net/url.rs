//! Addresses of sources: what may be asked for, and what of it may be shown.

use std::{fmt, marker::PhantomData};

use super::Target;
use crate::{
    error::{Error, Result},
    limits,
};

/// Which schemes a URL may have.
pub trait Schemes: 'static {
    /// Whose URL it is, for messages.
    const OWNER: &'static str;
    /// The plain scheme and the one through TLS, each with its default port.
    const PLAIN_AND_TLS: [(&'static str, u16); 2];
    /// Whether a redirect may be relative to the URL that it comes from.
    const RELATIVE_REDIRECTS: bool;
    /// Whether all ports of a host are one device, which may have the user name and password that another of them was
    /// given.
    const ONE_DEVICE: bool;
}

/// A URL of one of two schemes, its user name and password kept apart. Whatever prints it sees neither
/// those nor the query, where cameras have passwords too.
pub struct Url<S> {
    /// What requests name: without user name and password.
    request: url::Url,
    credentials: Option<Credentials>,
    host: String,
    port: u16,
    schemes: PhantomData<fn() -> S>,
}

/// What a server wants to know before it talks.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub username: String,
    pub password: String,
}

impl<S: Schemes> Url<S> {
    /// Takes URLs of the two schemes of at most [`limits::URI_MAX_BYTES`] with a host. No message
    /// repeats the URL.
    ///
    /// Fails with `InvalidArgument`.
    pub fn parse(text: &str) -> Result<Self> {
        let owner = S::OWNER;
        if text.len() > limits::URI_MAX_BYTES {
            return Err(Error::invalid(format!(
                "the {owner}'s URL has {} bytes, more than {}",
                text.len(),
                limits::URI_MAX_BYTES
            )));
        }
        // The URL parser would quietly drop or turn some of these.
        if text
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || c == '\\')
        {
            return Err(Error::invalid(format!(
                "the {owner}'s URL holds a space, a backslash or a control character; write it as %20, say"
            )));
        }
        // It would also take `http:cam`, and `http:rtsp://ann:secret@cam` with all that as a path, which is
        // shown.
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        if !scheme.is_some_and(|s| s.bytes().all(|b| b.is_ascii_alphanumeric())) {
            return Err(Error::invalid(format!(
                "the {owner}'s URL does not begin with a scheme and ://"
            )));
        }
        let request = url::Url::parse(text)
            .map_err(|e| Error::invalid(format!("the {owner}'s URL cannot be read: {e}")))?;
        Self::of(request)
    }

    fn of(mut request: url::Url) -> Result<Self> {
        let owner = S::OWNER;
        let [plain, tls] = S::PLAIN_AND_TLS;
        let known = [plain, tls];
        let default_port = known.iter().find(|(name, _)| *name == request.scheme());
        let Some((_, default_port)) = default_port else {
            return Err(Error::invalid(format!(
                "the {owner}'s URL begins with neither {}:// nor {}://",
                plain.0, tls.0
            )));
        };
        if request.fragment().is_some() {
            return Err(Error::invalid(format!(
                "the {owner}'s URL has a fragment; a # of a password is written %23"
            )));
        }
        let host = bare_host(&request, owner)?;
        let port = request.port().unwrap_or(*default_port);
        if port == 0 {
            return Err(Error::invalid(format!("the {owner}'s URL names port 0")));
        }
        let credentials = credentials(&request, owner)?;
        strip(&mut request)?;
        Ok(Url {
            request,
            credentials,
            host,
            port,
            schemes: PhantomData,
        })
    }

    /// Whether it is spoken to through TLS.
    pub fn is_tls(&self) -> bool {
        self.request.scheme() == S::PLAIN_AND_TLS[1].0
    }

    /// The host as it was written; an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What requests name.
    pub(crate) fn request(&self) -> &url::Url {
        &self.request
    }

    pub(crate) fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// Whom to connect to.
    pub(crate) fn target(&self) -> Target<'_> {
        Target {
            host: self.host(),
            port: self.port(),
            tls: self.is_tls(),
            shown: self,
        }
    }

    /// Where a redirect leads. It keeps the credentials only on the same host, and where that may be shared only on the
    /// same port or from the plain scheme's own to that of TLS; it never leads from TLS to plain text.
    ///
    /// Fails with `InvalidArgument`.
    pub(crate) fn redirected(&self, location: &str) -> Result<Self> {
        let location = location.trim();
        let lost = |e: Error| {
            e.context(format_args!(
                "the {} redirects to where nobody can go",
                S::OWNER
            ))
        };
        // Where a part of a page is meant, the page is.
        let location = match location.split_once('#') {
            Some((before, _)) if S::RELATIVE_REDIRECTS => before,
            _ => location,
        };
        let is_scheme = |text: &str| {
            text.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        };
        let absolute = location
            .split_once("://")
            .is_some_and(|(scheme, _)| is_scheme(scheme));
        let mut to = if S::RELATIVE_REDIRECTS && !absolute {
            let joined = self.request.join(location);
            let joined = joined.map_err(|_| lost(Error::invalid("not a URL")))?;
            Self::of(joined).map_err(lost)?
        } else {
            Self::parse(location).map_err(lost)?
        };
        if self.is_tls() && !to.is_tls() {
            return Err(Error::invalid(format!(
                "the {} redirects from {} to {to}, which is not encrypted",
                S::OWNER,
                self.request.scheme()
            )));
        }
        let ports = (self.port, to.port);
        let [(_, plain), (_, tls)] = S::PLAIN_AND_TLS;
        let secured = to.is_tls() && ports == (plain, tls);
        let same = S::ONE_DEVICE || ports.0 == ports.1 || secured;
        if to.credentials.is_none() && same && to.host.eq_ignore_ascii_case(&self.host) {
            to.credentials.clone_from(&self.credentials);
        }
        Ok(to)
    }
}

impl<S> Clone for Url<S> {
    fn clone(&self) -> Self {
        Url {
            request: self.request.clone(),
            credentials: self.credentials.clone(),
            host: self.host.clone(),
            port: self.port,
            schemes: PhantomData,
        }
    }
}

impl<S> PartialEq for Url<S> {
    fn eq(&self, other: &Self) -> bool {
        (&self.request, &self.credentials) == (&other.request, &other.credentials)
    }
}

impl<S> Eq for Url<S> {}

/// The host, of characters that names and addresses have. Others reach the resolver's own syntax
/// (percent signs, commas) or are meant for someone who does not look closely.
fn bare_host(url: &url::Url, owner: &str) -> Result<String> {
    let host = match url.host() {
        Some(url::Host::Domain(name)) => name.to_owned(),
        Some(url::Host::Ipv4(address)) => address.to_string(),
        Some(url::Host::Ipv6(address)) => return Ok(address.to_string()),
        None => String::new(),
    };
    if host.is_empty() {
        return Err(Error::invalid(format!("the {owner}'s URL names no host")));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if host.len() > 253 || !host.bytes().all(plain) {
        return Err(Error::invalid(format!(
            "the host of the {owner}'s URL is no name of letters, digits, - and . (write others in \
             punycode)"
        )));
    }
    Ok(host)
}

fn credentials(url: &url::Url, owner: &str) -> Result<Option<Credentials>> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(None);
    }
    let decoded = |text: &str| {
        percent_decoded(text)
            .filter(|t| !t.chars().any(char::is_control))
            .ok_or_else(|| {
                Error::invalid(format!(
                    "the user name or password of the {owner}'s URL is no UTF-8 text without \
                     control characters after its %-escapes are undone"
                ))
            })
    };
    Ok(Some(Credentials {
        username: decoded(url.username())?,
        password: decoded(url.password().unwrap_or(""))?,
    }))
}

/// Undoes `%41`; a percent sign without two hexadecimal digits stays. `None` if it is no UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let hex = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = (byte == b'%')
            .then(|| Some((hex(*bytes.get(at + 1)?)?, hex(*bytes.get(at + 2)?)?)))
            .flatten();
        if let Some((high, low)) = escape {
            out.push(high << 4 | low);
            at += 3;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    String::from_utf8(out).ok()
}

/// Removes user name and password.
pub(crate) fn strip(url: &mut url::Url) -> Result<()> {
    let removed = url.set_password(None).and_then(|()| url.set_username(""));
    removed.map_err(|()| Error::invalid("the URL has no place for a user name"))
}

/// What of a URL people may see: not the query, nor the path after its first `=`, since some
/// cameras want `/user=…&password=…` there.
pub(crate) fn shown_path(url: &url::Url) -> &str {
    let path = url.path();
    path.split_once('=').map_or(path, |(before, _)| before)
}

/// Parameters that tell the channels of a recorder and the streams of a camera apart. Their short numbers are no secrets,
/// and without them all channels would have one name.
const SHOWN: [&str; 12] = [
    "cam",
    "camera",
    "ch",
    "channel",
    "channelid",
    "channelno",
    "chn",
    "inst",
    "profile",
    "stream",
    "streamtype",
    "subtype",
];

/// Of a URL's query, or of what stands in the place of one after the first `=` of its path, what people may see: with
/// a `?` before it, and empty where there is nothing.
fn shown_query(url: &url::Url) -> String {
    let in_path = url.path().rsplit('/').next().unwrap_or_default();
    let pairs = [Some(in_path), url.query()].into_iter().flatten();
    let shown: Vec<&str> = pairs
        .flat_map(|pairs| pairs.split('&'))
        .filter(|pair| {
            pair.split_once('=').is_some_and(|(name, value)| {
                let short = (1..=4).contains(&value.len());
                short
                    && value.bytes().all(|byte| byte.is_ascii_digit())
                    && SHOWN.contains(&name.to_ascii_lowercase().as_str())
            })
        })
        .collect();
    if shown.is_empty() {
        String::new()
    } else {
        format!("?{}", shown.join("&"))
    }
}

impl<S> fmt::Display for Url<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') {
            ("[", "]")
        } else {
            ("", "")
        };
        write!(
            f,
            "{}://{open}{}{close}:{}{}{}",
            self.request.scheme(),
            self.host,
            self.port,
            shown_path(&self.request),
            shown_query(&self.request)
        )
    }
}

impl<S> fmt::Debug for Url<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_have_names_of_their_own_and_secrets_none() {
        for (text, shown) in [
            (
                "rtsp://nvr/cam/realmonitor?channel=5&subtype=0",
                "?channel=5&subtype=0",
            ),
            (
                "rtsp://cam/user=ann&password=1234&channel=2&stream=0.sdp?",
                "?channel=2",
            ),
            ("rtsp://cam/1?token=77&Profile=3&pin=1234", "?Profile=3"),
            ("rtsp://cam/1?channel=12345&channel=&channel=s3cr", ""),
            ("rtsp://cam/channel=1/live", ""),
            ("rtsp://cam/live", ""),
        ] {
            let url = url::Url::parse(text).unwrap();
            assert_eq!(shown_query(&url), shown, "{text}");
        }
    }
}
