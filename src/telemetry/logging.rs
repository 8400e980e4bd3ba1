//! Log lines on standard error.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::error::{Error, Kind, Result, ResultExt as _};

/// Installs the process's log subscriber: `filter` in `tracing` directives (`info`,
/// `info,headhunt=debug`), lines for people or one JSON object a line.
///
/// Fails with `InvalidArgument` for a filter that cannot be read, and with `Internal` where a
/// subscriber is installed already.
pub fn init(filter: &str, json: bool) -> Result<()> {
    let filter = parse(filter)?;
    let registry = tracing_subscriber::registry().with(filter);
    let done = if json {
        registry
            .with(fmt::layer().json().with_writer(io::stderr))
            .try_init()
    } else {
        let lines = fmt::layer()
            .with_ansi(io::stderr().is_terminal())
            .with_writer(io::stderr);
        registry.with(lines).try_init()
    };
    done.or_kind(Kind::Internal, || {
        "cannot install the log subscriber: there is one already".into()
    })
}

/// Whether [`init`] would take this filter.
///
/// Fails with `InvalidArgument`.
pub fn check(filter: &str) -> Result<()> {
    parse(filter).map(drop)
}

fn parse(filter: &str) -> Result<EnvFilter> {
    EnvFilter::builder().parse(filter).map_err(|e| {
        Error::invalid(format!(
            "log.level `{filter}` cannot be read ({e}); use a level or directives such as info,headhunt=debug"
        ))
        .with_field("log.level")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_levels_or_directives_and_nonsense_is_refused() {
        assert!(parse("info").is_ok());
        assert!(parse("warn,headhunt=debug").is_ok());
        let error = parse("headhunt=loud").unwrap_err();
        assert_eq!(error.field(), Some("log.level"));
        assert!(error.message().contains("headhunt=loud"));
    }
}
