//! `headhunt serve`: plugs settings, model, engine and decoder into the server.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::TcpListener,
    runtime::{Handle, Runtime},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::SystemClock,
    config::{DeviceChoice, DtypeChoice, Environment, LogFormat, Overrides, Settings},
    engine::{Engine, EngineConfig, EngineHandle, probe::HeadProbe},
    error::{Error, Kind, Result, ResultExt as _},
    feedback::Feedback,
    limits, memory,
    model::{
        DeviceSpec, InternVl, LoadOptions, Precision,
        config::ModelConfig,
        hub::{self, HubOptions},
    },
    profile::{Profile, ProfileStore},
    rpc::{self, OpenMedia, Parts, Profiles, Security},
    telemetry::{exporter, logging, shutdown, traces::Traces},
};

/// Threads that do not end by themselves are left behind after this.
const RUNTIME_END: Duration = Duration::from_secs(5);

/// Serves detection over gRPC.
///
/// Every setting has a default; `config/default.toml` in the source lists and explains them. A
/// file, HEADHUNT__SECTION__KEY environment variables and these flags override them, in this order.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    #[command(flatten)]
    layers: Layers,

    /// Print the built-in settings with their documentation, and exit
    #[arg(long)]
    print_defaults: bool,
}

/// Where settings come from beside the defaults and the environment.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Layers {
    /// TOML file with the settings that differ from the defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Checkpoint: a directory, or a hub id such as OpenGVLab/InternVL3-8B-hf
    #[arg(long, value_name = "DIR|ID")]
    pub model: Option<String>,

    /// Profile to serve, instead of a profile directory
    #[arg(long, value_name = "FILE")]
    pub profile: Option<String>,

    /// Address of the gRPC service
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,

    /// Address of the Prometheus exporter
    #[arg(long, value_name = "IP:PORT")]
    pub metrics_listen: Option<SocketAddr>,

    /// auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,

    /// auto (f32 on a CPU, bf16 on a GPU), f32 or bf16
    #[arg(long, value_name = "TYPE")]
    pub dtype: Option<String>,
}

impl Layers {
    /// What the command line sets.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            listen: self.listen,
            metrics_listen: self.metrics_listen,
            model: self.model.clone(),
            device: self.device.clone(),
            dtype: self.dtype.clone(),
            profile: self.profile.clone(),
        }
    }
}

/// Serves until SIGTERM or SIGINT; a second signal ends the process at once.
///
/// Fails where a setting is refused, the model or the active profile cannot be used, or an address
/// is taken.
pub fn run(args: Args) -> Result<()> {
    if args.print_defaults {
        super::print::out(format_args!("{}", crate::config::DEFAULTS));
        return Ok(());
    }
    let environment = Environment::of_process();
    let settings = Settings::load_from(
        args.layers.config.as_deref(),
        &environment,
        &args.layers.overrides(),
    )?;
    logging::init(&settings.log.level, settings.log.format == LogFormat::Json)?;
    more_files();
    // Before there are threads.
    let _memory = memory::keep_small()?;
    let security = Security::open(&settings.server, SystemClock::shared())?;
    let runtime = Runtime::new().or_kind(Kind::Internal, || "cannot start the runtime".into())?;
    let (shutdown, loaded) = (CancellationToken::new(), CancellationToken::new());
    // From the start: the first process of a container ignores signals that it has no handler for.
    runtime.spawn(end_on_signal(shutdown.clone(), loaded.clone()));
    let media = decoder(&settings, &environment, runtime.handle())?;
    let found = Found::read(&settings)?;
    // Addresses first: that one is taken should not be learnt after minutes of loading.
    let listener = runtime.block_on(listen(&settings, &security))?;
    // After the exporter, which would not know what was counted before it.
    let feedback = rpc::open_feedback(&settings.feedback, SystemClock::shared())?;
    let (traces, sending) = runtime.block_on(async { rpc::open_traces(&settings.traces) })?;
    let probe = load(&settings, &environment, &found)?;
    let config = engine_config(&settings, &probe.info().device, &found);
    let engine = Engine::start(Box::new(probe), config)?;
    loaded.cancel();
    let doors = Doors {
        media,
        feedback,
        listener,
        security,
        traces,
    };
    let served = runtime.block_on(serve(&settings, engine.handle(), found, doors, shutdown));
    if let Some(sending) = sending {
        runtime.block_on(sending.flush(limits::TRACE_FLUSH));
    }
    let stopped = engine.shutdown();
    runtime.shutdown_timeout(RUNTIME_END);
    served.and(stopped)
}

/// Raises the soft limit of open files, which protects programs that cannot do with large numbers of them.
fn more_files() {
    let now = getrlimit(Resource::Nofile);
    let most = now.maximum.unwrap_or(u64::MAX);
    let wanted = limits::OPEN_FILES.min(most);
    if now.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let more = Rlimit {
        current: Some(wanted),
        maximum: now.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, more) {
        tracing::warn!(%error, wanted, "cannot raise the limit of open files");
    }
}

async fn listen(settings: &Settings, security: &Security) -> Result<TcpListener> {
    if let Some(address) = settings.server.metrics_listen {
        let address = exporter::start_behind(address, Arc::new(security.clone()))?;
        tracing::info!(%address, "metrics at /metrics");
    }
    let address = settings.server.listen;
    let listener = TcpListener::bind(address)
        .await
        .or_kind(Kind::Unavailable, || {
            format!("cannot listen at server.listen = {address}")
        })?;
    let bound = listener.local_addr().unwrap_or(address);
    tracing::info!(address = %bound, tls = security.has_tls(), tokens = security.asks_for_tokens(), "listening; serving begins after the warm-up pass");
    if settings.server.insecure && !bound.ip().is_loopback() {
        tracing::warn!(address = %bound, "server.insecure = true: whoever reaches this address may use it");
    }
    Ok(listener)
}

/// What is ready before the model is.
struct Doors {
    media: Arc<dyn OpenMedia>,
    feedback: Option<Arc<Feedback>>,
    listener: TcpListener,
    security: Security,
    traces: Traces,
}

async fn serve(
    settings: &Settings,
    engine: EngineHandle,
    found: Found,
    doors: Doors,
    shutdown: CancellationToken,
) -> Result<()> {
    let profiles = tokio::select! {
        checked = found.check(&engine) => Arc::new(checked?),
        () = shutdown.cancelled() => return Ok(()),
    };
    let active = profiles.active();
    tracing::info!(
        profile = active.as_ref().map_or("none yet", |active| active.name()),
        version = active.as_ref().map(|active| active.version()),
        model = engine.info().name,
        device = engine.info().device,
        "ready"
    );
    let parts = Parts {
        engine,
        profiles,
        media: doors.media,
        feedback: doors.feedback,
        security: doors.security,
        traces: doors.traces,
    };
    rpc::serve(settings, parts, doors.listener, shutdown).await
}

/// Listens to the end: a shutdown may take its time. Before the model is `loaded` there is nothing to end in good order.
async fn end_on_signal(shutdown: CancellationToken, loaded: CancellationToken) {
    match shutdown::signalled().await {
        Ok(signal) if !loaded.is_cancelled() => {
            tracing::info!(signal, "ending before the model is loaded");
            std::process::exit(0);
        }
        Ok(signal) => tracing::info!(signal, "ending"),
        Err(error) => tracing::error!("signals cannot be waited for: {error:#}"),
    }
    shutdown.cancel();
    if let Ok(signal) = shutdown::signalled().await {
        tracing::warn!(signal, "ending at once");
        std::process::exit(130);
    }
}

/// Profiles as they lie on disk, before they are compared with the model.
enum Found {
    /// One, which is the active one.
    File(Arc<Profile>),
    /// A directory of them, which may be empty.
    Store(Box<ProfileStore>),
    /// None, and no directory for any.
    Nothing,
}

impl Found {
    fn read(settings: &Settings) -> Result<Found> {
        let places = &settings.profiles;
        if let Some(file) = &places.file {
            return Profile::load(file).map(|profile| Found::File(Arc::new(profile)));
        }
        // A server that calibrates may begin without any.
        let may_be_none = settings.admin.dir.is_some();
        let (dir, choice) = match (&places.dir, places.active.as_deref()) {
            (Some(dir), choice) if choice.is_some() || may_be_none => (dir, choice),
            (None, _) if may_be_none => return Ok(Found::Nothing),
            _ => {
                return Err(no_profile());
            }
        };
        if may_be_none {
            fs::create_dir_all(dir).or_kind(Kind::FailedPrecondition, || {
                format!("cannot make profiles.dir = {}", dir.display())
            })?;
        }
        let store = ProfileStore::open_or_read(dir, choice)?;
        if let (Some(active), Some(choice)) = (store.active(), choice)
            && active != choice
        {
            tracing::info!(
                active,
                choice,
                "another profile than profiles.active has been activated since, and stays active"
            );
        }
        Ok(Found::Store(Box::new(store)))
    }

    async fn check(self, engine: &EngineHandle) -> Result<Profiles> {
        match self {
            Found::File(profile) => {
                let name = profile.name.clone();
                Profiles::check(&name, vec![(name.clone(), Ok(profile))], engine).await
            }
            Found::Store(store) => Profiles::open(*store, engine).await,
            Found::Nothing => Profiles::check("", Vec::new(), engine).await,
        }
    }

    /// Layers to load: down to the deepest head of any version that this model could have.
    fn layers(&self, of_model: usize) -> Option<usize> {
        let needed = match self {
            Found::Nothing => Vec::new(),
            Found::File(profile) => vec![profile.layers_needed()],
            Found::Store(store) => store
                .list()
                .iter()
                .filter_map(|entry| entry.profile.as_deref().ok())
                .map(Profile::layers_needed)
                .collect(),
        };
        needed
            .into_iter()
            .filter(|layers| *layers <= of_model)
            .max()
    }

    /// The active profile, where it can be read.
    fn active(&self) -> Option<Arc<Profile>> {
        match self {
            Found::File(profile) => Some(profile.clone()),
            Found::Nothing => None,
            Found::Store(store) => store.get("", "").ok().map(|(profile, _)| profile),
        }
    }
}

pub(super) fn no_model() -> Error {
    Error::invalid("no model: set model.path, or --model, to a directory or a hub id")
        .with_field("model.path")
}

pub(super) fn no_profile() -> Error {
    Error::invalid(
        "no profile: set profiles.file (or --profile), or profiles.dir and profiles.active; `headhunt calibrate` makes one",
    )
}

fn load(settings: &Settings, environment: &Environment, found: &Found) -> Result<InternVl> {
    let name = settings.model.path.as_deref().ok_or_else(no_model)?;
    let hub = environment.hub()?;
    let dir = hub::resolve(
        name,
        &HubOptions {
            endpoint: Some(hub.endpoint),
            cache_dir: hub.models_dir,
            token: hub.token,
            ..HubOptions::default()
        },
    )?;
    let resident_layers = if settings.admin.dir.is_some() {
        // Hunting reads the heads of every layer.
        None
    } else {
        found.layers(ModelConfig::load(&dir)?.text.layers)
    };
    let device = match settings.model.device {
        DeviceChoice::Auto => DeviceSpec::Auto,
        DeviceChoice::Cpu => DeviceSpec::Cpu,
        DeviceChoice::Cuda(n) => DeviceSpec::Cuda(n),
    };
    let precision = match settings.model.dtype {
        DtypeChoice::Auto => Precision::Auto,
        DtypeChoice::F32 => Precision::F32,
        DtypeChoice::Bf16 => Precision::Bf16,
    };
    tracing::info!(
        model = name,
        ?device,
        ?precision,
        ?resident_layers,
        "loading"
    );
    let began = std::time::Instant::now();
    let model = InternVl::load(
        &dir,
        &LoadOptions {
            device,
            precision,
            threads: settings.model.threads,
            resident_layers,
            resize_on_device: settings.model.resize_on_device,
        },
    )?
    .with_fingerprint_cache(hub.cache_dir);
    tracing::info!(
        took = ?began.elapsed(),
        device = model.info().device,
        dtype = model.info().dtype,
        "loaded"
    );
    Ok(model)
}

fn engine_config(settings: &Settings, device: &str, found: &Found) -> EngineConfig {
    let set = &settings.engine;
    let suited = EngineConfig::for_device(device);
    let active = found.active();
    EngineConfig {
        queue_capacity: set.queue_capacity_segments,
        max_batch: match set.max_batch_segments {
            0 => suited.max_batch,
            n => n,
        },
        batch_wait: set.batch_wait,
        max_queue_wait: set.max_queue_wait,
        stall_after: set.heartbeat_timeout,
        warm_up_prompts: active.map_or_else(
            || suited.warm_up_prompts.clone(),
            |profile| profile.scoring_prompts.clone(),
        ),
        ..suited
    }
}

/// What decoding keeps to; refused where it cannot be had here.
#[cfg(feature = "video")]
pub(super) fn video_limits(
    settings: &Settings,
    environment: &Environment,
) -> Result<crate::video::VideoLimits> {
    use crate::{
        config::Isolation,
        video::{
            VideoLimits,
            worker::{ForkServer, Workers},
        },
    };
    let set = &settings.video;
    let defaults = VideoLimits::default();
    let spool_dir = set.spool_dir.clone().unwrap_or(defaults.spool_dir);
    if !spool_dir.is_dir() {
        return Err(Error::not_found(format!(
            "video.spool_dir = {} is no directory",
            spool_dir.display()
        ))
        .with_field("video.spool_dir"));
    }
    let limits = VideoLimits {
        max_pixels: set.max_pixels,
        max_side: set.max_side,
        spool_dir,
        spool_max_bytes: set.spool_max_bytes,
        stall_timeout: set.stall_timeout,
        workers: (set.isolation == Isolation::Process).then(|| Workers {
            memory_max_bytes: set.decoder_memory_max_bytes,
            environment: environment.for_decoders(),
            forks: Some(ForkServer::default()),
            ..Workers::of_this_program()
        }),
    };
    match &limits.workers {
        Some(workers) => workers.check(&limits).map_err(|e| {
            e.context("video.isolation = \"process\"")
                .with_field("video.isolation")
        })?,
        None => tracing::warn!(
            "video.isolation = \"none\": a decoder that crashes ends the server with all of its streams"
        ),
    }
    Ok(limits)
}

#[cfg(feature = "video")]
fn decoder(
    settings: &Settings,
    environment: &Environment,
    runtime: &Handle,
) -> Result<Arc<dyn OpenMedia>> {
    use crate::{net, rtsp, web};
    let set = &settings.video;
    let cameras = &settings.cameras;
    let limits = video_limits(settings, environment)?;
    let dialer = net::Dialer {
        clock: SystemClock::shared(),
        resolver: Arc::new(net::SystemResolver),
        vet: Arc::new(net::Reach {
            allow: settings.sources.allow.clone(),
            deny: settings.sources.deny.clone(),
        }),
        connect_timeout: cameras.connect_timeout,
    };
    Ok(Arc::new(rpc::VideoMedia {
        limits,
        live: Some(rpc::LiveMedia {
            client: rtsp::Client {
                clock: dialer.clock.clone(),
                resolver: dialer.resolver.clone(),
                vet: dialer.vet.clone(),
                connect_timeout: cameras.connect_timeout,
                response_timeout: cameras.response_timeout,
                silence_timeout: cameras.silence_timeout,
            },
            picture_timeout: cameras.picture_timeout,
            runtime: runtime.clone(),
        }),
        web: Some(rpc::WebMedia {
            client: web::Client {
                dialer,
                response_timeout: cameras.response_timeout,
                silence_timeout: set.stall_timeout,
            },
            runtime: runtime.clone(),
        }),
    }))
}

/// This build cannot decode.
#[cfg(not(feature = "video"))]
fn decoder(_: &Settings, _: &Environment, _: &Handle) -> Result<Arc<dyn OpenMedia>> {
    Err(Error::unimplemented(
        "this binary was built without the `video` feature and cannot serve uploads",
    ))
}
