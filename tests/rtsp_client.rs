//! The RTSP client against a camera that follows a script: what it says, what it takes, and how it
//! tells one failure from another.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

#[path = "rtsp_client/auth.rs"]
mod auth;
#[path = "rtsp_client/failures.rs"]
mod failures;
#[path = "rtsp_client/leaks.rs"]
mod leaks;
#[path = "rtsp_client/redirects.rs"]
mod redirects;
mod rtsp_support;
#[path = "rtsp_client/secrets.rs"]
mod secrets;
#[path = "rtsp_client/tcp.rs"]
mod tcp;
#[path = "rtsp_client/tls.rs"]
mod tls;
#[path = "rtsp_client/udp.rs"]
mod udp;
