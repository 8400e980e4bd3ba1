//! A camera's address: what may be asked for, and what of it may be shown.

use std::fmt;

use crate::{
    error::{Error, Result},
    limits,
};

/// An `rtsp` or `rtsps` URL, its user name and password kept apart. Whatever prints it sees neither
/// those nor the query, where cameras have passwords too.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// What requests name: without user name and password.
    request: url::Url,
    credentials: Option<Credentials>,
    host: String,
    port: u16,
}

/// What a camera wants to know before it talks.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub username: String,
    pub password: String,
}

impl Url {
    /// Takes `rtsp` and `rtsps` URLs of at most [`limits::URI_MAX_BYTES`] with a host; the default
    /// ports are 554 and 322. No message repeats the URL.
    ///
    /// Fails with `InvalidArgument`.
    pub fn parse(text: &str) -> Result<Url> {
        if text.len() > limits::URI_MAX_BYTES {
            return Err(Error::invalid(format!(
                "the camera's URL has {} bytes, more than {}",
                text.len(),
                limits::URI_MAX_BYTES
            )));
        }
        // The URL parser would quietly drop some of these.
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(Error::invalid(
                "the camera's URL holds a space or a control character; write it as %20, say",
            ));
        }
        let mut request = url::Url::parse(text)
            .map_err(|e| Error::invalid(format!("the camera's URL cannot be read: {e}")))?;
        let default_port = match request.scheme() {
            "rtsp" => 554,
            "rtsps" => 322,
            _ => {
                return Err(Error::invalid(
                    "the camera's URL begins with neither rtsp:// nor rtsps://",
                ));
            }
        };
        if request.fragment().is_some() {
            return Err(Error::invalid(
                "the camera's URL has a fragment; a # of a password is written %23",
            ));
        }
        let host = bare_host(&request)?;
        let port = request.port().unwrap_or(default_port);
        if port == 0 {
            return Err(Error::invalid("the camera's URL names port 0"));
        }
        let credentials = credentials(&request)?;
        strip(&mut request)?;
        Ok(Url {
            request,
            credentials,
            host,
            port,
        })
    }

    /// Whether RTSP goes through TLS.
    pub fn is_tls(&self) -> bool {
        self.request.scheme() == "rtsps"
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
    pub(super) fn request(&self) -> &url::Url {
        &self.request
    }

    pub(super) fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// Where a redirect leads. It keeps the credentials only on the same host, and never leads from
    /// TLS to plain text.
    ///
    /// Fails with `InvalidArgument`.
    pub(super) fn redirected(&self, location: &str) -> Result<Url> {
        let mut to = Url::parse(location.trim())
            .map_err(|e| e.context("the camera redirects to where nobody can go"))?;
        if self.is_tls() && !to.is_tls() {
            return Err(Error::invalid(format!(
                "the camera redirects from rtsps to {to}, which is not encrypted"
            )));
        }
        if to.credentials.is_none() && to.host.eq_ignore_ascii_case(&self.host) {
            to.credentials.clone_from(&self.credentials);
        }
        Ok(to)
    }
}

/// The host, of characters that names and addresses have. Others reach the resolver's own syntax
/// (percent signs, commas) or are meant for someone who does not look closely.
fn bare_host(url: &url::Url) -> Result<String> {
    let host = match url.host() {
        Some(url::Host::Domain(name)) => name.to_owned(),
        Some(url::Host::Ipv4(address)) => address.to_string(),
        Some(url::Host::Ipv6(address)) => return Ok(address.to_string()),
        None => String::new(),
    };
    if host.is_empty() {
        return Err(Error::invalid("the camera's URL names no host"));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if host.len() > 253 || !host.bytes().all(plain) {
        return Err(Error::invalid(
            "the host of the camera's URL is no name of letters, digits, - and . (write others in \
             punycode)",
        ));
    }
    Ok(host)
}

fn credentials(url: &url::Url) -> Result<Option<Credentials>> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(None);
    }
    let decoded = |text: &str| {
        percent_decoded(text)
            .filter(|t| !t.chars().any(char::is_control))
            .ok_or_else(|| {
                Error::invalid(
                    "the user name or password of the camera's URL is no UTF-8 text without \
                     control characters after its %-escapes are undone",
                )
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
pub(super) fn strip(url: &mut url::Url) -> Result<()> {
    let removed = url.set_password(None).and_then(|()| url.set_username(""));
    removed.map_err(|()| Error::invalid("the camera's URL has no place for a user name"))
}

/// What of a URL people may see: not the query, nor the path after its first `=`, since some
/// cameras want `/user=…&password=…` there.
pub(super) fn shown_path(url: &url::Url) -> &str {
    let path = url.path();
    path.split_once('=').map_or(path, |(before, _)| before)
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') {
            ("[", "]")
        } else {
            ("", "")
        };
        write!(
            f,
            "{}://{open}{}{close}:{}{}",
            self.request.scheme(),
            self.host,
            self.port,
            shown_path(&self.request)
        )
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
