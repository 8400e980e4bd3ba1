//! Who may speak to the server, how, and where it may be led: through real servers and the binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

#[path = "secure/binary.rs"]
mod binary;
mod common;
#[path = "secure/matrix.rs"]
mod matrix;
#[cfg(feature = "video")]
#[path = "secure/reach.rs"]
mod reach;
#[path = "secure/site.rs"]
mod site;
#[path = "secure/tls.rs"]
mod tls;
#[path = "secure/tokens.rs"]
mod tokens;
