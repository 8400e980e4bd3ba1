//! Whether the listeners may be as open as the settings make them.

use std::net::SocketAddr;

use super::{ServerSettings, ranges::lasts};
use crate::error::{Error, Result};

/// Refuses half a TLS identity, and a listener beyond this machine that everybody may use.
pub(super) fn check(server: &ServerSettings) -> Result<()> {
    lasts("server.reload_s", server.reload, 0.1..=86_400.0)?;
    match (&server.tls_cert_file, &server.tls_key_file) {
        (Some(_), None) => return Err(half("server.tls_key_file", "server.tls_cert_file")),
        (None, Some(_)) => return Err(half("server.tls_cert_file", "server.tls_key_file")),
        (None, None) if server.tls_client_ca_file.is_some() => {
            return Err(half("server.tls_cert_file", "server.tls_client_ca_file"));
        }
        _ => {}
    }
    closed(server, "server.listen", Some(server.listen))?;
    closed(server, "server.metrics_listen", server.metrics_listen)
}

fn half(missing: &str, given: &str) -> Error {
    Error::invalid(format!("{given} is set and {missing} is not: set both")).with_field(missing)
}

fn closed(server: &ServerSettings, key: &str, address: Option<SocketAddr>) -> Result<()> {
    let Some(address) = address else {
        return Ok(());
    };
    let private = server.tls_cert_file.is_some();
    let known = server.token_file.is_some() || server.tls_client_ca_file.is_some();
    if address.ip().to_canonical().is_loopback() || server.insecure || (private && known) {
        return Ok(());
    }
    let lacks = match (private, known) {
        (false, false) => "TLS and authentication",
        (false, true) => "TLS, without which tokens travel in plain text",
        (true, _) => "authentication",
    };
    Err(Error::invalid(format!(
        "{key} = {address} can be reached from other machines and lacks {lacks}: set \
         server.tls_cert_file and server.tls_key_file, and server.token_file or \
         server.tls_client_ca_file; or listen at 127.0.0.1; or, where something before it does this, \
         set server.insecure = true"
    ))
    .with_field(key))
}
