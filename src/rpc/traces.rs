//! The traces that the settings ask for.

use crate::{
    access::read_file,
    config::TraceSettings,
    error::Result,
    telemetry::traces::{self, Exporter, Headers, Options, Traces},
};

/// Starts the exporter of traces; `None` where `traces.endpoint` is empty, and then no trace is begun. Inside
/// a runtime.
///
/// Fails with `InvalidArgument` or `NotFound` where the endpoint or a file that it needs cannot be used.
pub fn open_traces(settings: &TraceSettings) -> Result<(Traces, Option<Exporter>)> {
    let Some(options) = options(settings)? else {
        return Ok((Traces::default(), None));
    };
    let (traces, exporter) = traces::start(options)?;
    Ok((traces, Some(exporter)))
}

/// Whether [`open_traces`] would take these settings; outside a runtime too. Fails as it does.
pub fn check_traces(settings: &TraceSettings) -> Result<()> {
    match options(settings)? {
        Some(options) => traces::check(&options),
        None => Ok(()),
    }
}

fn options(settings: &TraceSettings) -> Result<Option<Options>> {
    let Some(endpoint) = settings.endpoint.clone() else {
        return Ok(None);
    };
    Ok(Some(Options {
        endpoint,
        ca: settings.ca_file.as_deref().map(read_file).transpose()?,
        sample_ratio: settings.sample_ratio,
        queue_spans: settings.queue_spans,
        timeout: settings.timeout,
        headers: match &settings.headers_file {
            Some(file) => Headers::parse(&read_file(file)?)?,
            None => Headers::default(),
        },
    }))
}
