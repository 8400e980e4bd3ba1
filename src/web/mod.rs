//! WEB: an http(s) URL to the bytes of the file there. Sockets and headers, no decoding.
//!
//! HTTP itself is hyper's. What is decided here is where a request may go: the connection is made by
//! [`net`], which judges the very address that it connects to, again after each redirect,
//! and a redirect never leads from TLS to plain text. A failure says what failed and names neither
//! credentials nor the query.

mod fetch;

use std::time::Duration;

pub use fetch::Body;

use crate::net::{self, Dialer, Schemes};

/// The schemes `http` and `https`.
#[derive(Debug)]
pub enum Http {}

impl Schemes for Http {
    const OWNER: &'static str = "source";
    const PLAIN_AND_TLS: [(&'static str, u16); 2] = [("http", 80), ("https", 443)];
    const RELATIVE_REDIRECTS: bool = true;
    // Basic authentication goes out unasked, and behind another port may be somebody else's server.
    const ONE_DEVICE: bool = false;
}

/// A file's address; the default ports are 80 and 443. A user name and password in it become basic
/// authentication.
pub type Url = net::Url<Http>;

/// What all requests have in common.
#[derive(Clone)]
pub struct Client {
    /// How connections come about.
    pub dialer: Dialer,
    /// Longest wait for the head of an answer.
    pub response_timeout: Duration,
    /// Longest time without a byte of the body while somebody waits for one.
    pub silence_timeout: Duration,
}

#[cfg(test)]
mod tests {
    use super::Url;

    #[test]
    fn redirects_keep_credentials_on_the_same_server_alone() {
        let keeps = |from: &str, to: &str| {
            let to = Url::parse(from).unwrap().redirected(to).unwrap();
            to.credentials().is_some()
        };
        for (from, to) in [
            ("http://u:p@host/a", "/b"),
            ("http://u:p@host/a", "http://HOST:80/b"),
            ("http://u:p@host/a", "https://host/a"),
            ("https://u:p@host:8443/a", "https://host:8443/b"),
            // Its own.
            ("http://u:p@host/a", "http://v:q@other:8080/a"),
        ] {
            assert!(keeps(from, to), "{from} to {to}");
        }
        for (from, to) in [
            ("http://u:p@host/a", "http://other/a"),
            ("http://u:p@host/a", "http://host:8080/a"),
            ("http://u:p@host:8080/a", "https://host/a"),
            ("http://u:p@host/a", "http://host:443/a"),
            ("https://u:p@host/a", "https://host:8443/a"),
        ] {
            assert!(!keeps(from, to), "{from} to {to}");
        }
    }
}
