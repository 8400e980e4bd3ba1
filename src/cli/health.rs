//! `headhunt health`: asks a server whether it serves. The probe of containers, which have no shell.

use std::{
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tonic::{
    codegen::Service,
    transport::{Endpoint, Uri},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    clock::SystemClock,
    error::{Error, Kind, Result, ResultExt as _},
    net::{Anywhere, Dialer, Stream, SystemResolver, Target, Trust},
};

/// Ask a server whether it serves (grpc.health.v1): exit code 0 if it does, 1 if not or if it does not
/// answer
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address of the server; https:// where it speaks TLS
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50051")]
    addr: String,
    /// Service to ask for; by default the server as a whole
    #[arg(long, value_name = "NAME", default_value = "")]
    service: String,
    /// Longest wait, seconds
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    timeout_s: f64,
    /// PEM of the authority that signed the server's certificate, instead of the machine's
    #[arg(long, value_name = "FILE", conflicts_with = "any_certificate")]
    ca: Option<PathBuf>,
    /// Take any certificate: enough for a probe of the own machine
    #[arg(long)]
    any_certificate: bool,
}

/// Asks once.
pub fn run(args: Args) -> Result<()> {
    let timeout = Duration::try_from_secs_f64(args.timeout_s)
        .ok()
        .filter(|timeout| !timeout.is_zero())
        .ok_or_else(|| Error::invalid("--timeout-s must be above 0"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .or_kind(Kind::Internal, || "cannot start the runtime".into())?;
    let status = runtime.block_on(async {
        tokio::time::timeout(timeout, ask(&args, timeout))
            .await
            .unwrap_or_else(|_| {
                Err(Error::precondition(format!(
                    "{} does not answer within {} s",
                    args.addr, args.timeout_s
                )))
            })
    })?;
    match status {
        ServingStatus::Serving => {
            say!("serving");
            Ok(())
        }
        other => Err(Error::precondition(format!(
            "{} says {}",
            args.addr,
            other.as_str_name()
        ))),
    }
}

async fn ask(args: &Args, timeout: Duration) -> Result<ServingStatus> {
    let no_address = || {
        let example = "http://127.0.0.1:50051";
        Error::invalid(format!(
            "--addr {} is no address: give e.g. {example}",
            args.addr
        ))
    };
    let (tls, rest) = match args.addr.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        Some(_) => return Err(no_address()),
        None => (false, args.addr.as_str()),
    };
    let trust = match &args.ca {
        Some(file) => {
            let pem = std::fs::read(file).or_kind(Kind::InvalidArgument, || {
                format!("cannot read --ca {}", file.display())
            })?;
            Trust::Authorities(pem)
        }
        None if args.any_certificate => Trust::Insecure,
        None => Trust::System,
    };
    let through = Through(Arc::new(Way {
        tls,
        trust,
        dialer: Dialer {
            clock: SystemClock::shared(),
            resolver: Arc::new(SystemResolver),
            vet: Arc::new(Anywhere),
            connect_timeout: timeout,
        },
    }));
    // TLS is the connector's: to tonic the connection is plain.
    let endpoint = Endpoint::from_shared(format!("http://{rest}")).map_err(|_| no_address())?;
    // Every failure ends with code 1, so none is told as `Unavailable`.
    let channel = endpoint
        .connect_with_connector(through)
        .await
        .or_kind(Kind::FailedPrecondition, || {
            format!("no connection to {}", args.addr)
        })?;
    let request = HealthCheckRequest {
        service: args.service.clone(),
    };
    let answer = HealthClient::new(channel).check(request).await;
    let answer = answer.map_err(|status| {
        let code = status.code();
        Error::precondition(format!(
            "{} answers {code:?}: {}",
            args.addr,
            status.message()
        ))
    })?;
    Ok(answer.into_inner().status())
}

struct Way {
    tls: bool,
    trust: Trust,
    dialer: Dialer,
}

/// Connects for tonic.
#[derive(Clone)]
struct Through(Arc<Way>);

impl Service<Uri> for Through {
    type Response = TokioIo<Stream>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let way = self.0.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default();
            let port = uri.port_u16().unwrap_or(if way.tls { 443 } else { 80 });
            let target = Target {
                host: host.trim_start_matches('[').trim_end_matches(']'),
                port,
                tls: way.tls,
                shown: &uri,
            };
            let dialed = way.dialer.dial(&target, &way.trust).await;
            dialed
                .map(|dialed| TokioIo::new(dialed.stream))
                .map_err(|failure| Error::precondition(failure.to_string()))
        })
    }
}
