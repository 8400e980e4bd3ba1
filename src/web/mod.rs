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
