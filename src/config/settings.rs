//! The settings, typed, and their ranges. `config/default.toml` says what each one means.

use std::{fmt, net::SocketAddr, ops::RangeInclusive, path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de};

use super::exposure;
use crate::{
    error::{Error, Result},
    limits,
    net::Rule,
};

/// Everything that `headhunt serve` can be told.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Addresses.
    pub server: ServerSettings,
    /// The resident model.
    pub model: ModelSettings,
    /// Where profiles are.
    pub profiles: ProfileSettings,
    /// Labelled clips and jobs.
    pub admin: AdminSettings,
    /// The queue before the model.
    pub engine: EngineSettings,
    /// Limits on media.
    pub video: VideoSettings,
    /// Limits on detections.
    pub streams: StreamSettings,
    /// What a URI source may be.
    pub sources: SourceSettings,
    /// Live sources.
    pub cameras: CameraSettings,
    /// Verdicts of people.
    pub feedback: FeedbackSettings,
    /// The transport.
    pub http2: Http2Settings,
    /// Traces.
    pub traces: TraceSettings,
    /// The end.
    pub shutdown: ShutdownSettings,
    /// Logs.
    pub log: LogSettings,
}

/// Addresses.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    /// gRPC and gRPC-Web.
    #[serde(deserialize_with = "parsed")]
    pub listen: SocketAddr,
    /// Prometheus exporter.
    #[serde(deserialize_with = "optional")]
    pub metrics_listen: Option<SocketAddr>,
    /// Whether a listener beyond this machine may do without TLS and authentication.
    pub insecure: bool,
    /// Certificate and those above it, PEM; `None`: no TLS.
    #[serde(deserialize_with = "optional")]
    pub tls_cert_file: Option<PathBuf>,
    /// Its key, PEM.
    #[serde(deserialize_with = "optional")]
    pub tls_key_file: Option<PathBuf>,
    /// Authorities of the clients' certificates, PEM; `None`: clients need none.
    #[serde(deserialize_with = "optional")]
    pub tls_client_ca_file: Option<PathBuf>,
    /// Who may do what; `None`: everybody everything.
    #[serde(deserialize_with = "optional")]
    pub token_file: Option<PathBuf>,
    /// How often the files above are looked at.
    #[serde(rename = "reload_s", deserialize_with = "seconds")]
    pub reload: Duration,
}

/// The resident model.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSettings {
    /// Directory or hub id.
    #[serde(deserialize_with = "optional")]
    pub path: Option<String>,
    /// Where it runs.
    #[serde(deserialize_with = "parsed")]
    pub device: DeviceChoice,
    /// What it computes in.
    #[serde(deserialize_with = "parsed")]
    pub dtype: DtypeChoice,
    /// Threads of its CPU side; 0: what suits the machine.
    pub threads: usize,
    /// Pictures smaller than the model's are resized on the GPU.
    pub resize_on_device: bool,
}

/// The number type that a model computes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtypeChoice {
    /// f32 on a CPU, bf16 on a GPU.
    Auto,
    /// f32; on a CPU only.
    F32,
    /// bf16.
    Bf16,
}

impl FromStr for DtypeChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(DtypeChoice::Auto),
            "f32" => Ok(DtypeChoice::F32),
            "bf16" => Ok(DtypeChoice::Bf16),
            other => Err(format!(
                "`{other}` is no number type: use auto, f32 or bf16"
            )),
        }
    }
}

/// Where a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// CUDA where there is a device, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// This CUDA device.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            other => other
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(DeviceChoice::Cuda)
                .ok_or_else(|| format!("`{other}` is no device: use auto, cpu, cuda or cuda:N")),
        }
    }
}

/// Where profiles are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileSettings {
    /// Directory of `NAME.json`.
    #[serde(deserialize_with = "optional")]
    pub dir: Option<PathBuf>,
    /// Name of the active one.
    #[serde(deserialize_with = "optional")]
    pub active: Option<String>,
    /// The only one.
    #[serde(deserialize_with = "optional")]
    pub file: Option<PathBuf>,
}

/// Labelled clips and jobs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminSettings {
    /// Directory of clips, kept features and jobs.
    #[serde(deserialize_with = "optional")]
    pub dir: Option<PathBuf>,
    /// Bytes of clips, features and uploads under way.
    pub quota_bytes: u64,
    /// Bytes of one clip.
    pub clip_max_bytes: u64,
    /// Folders below which manifests may be imported.
    #[serde(deserialize_with = "listed")]
    pub import_roots: Vec<PathBuf>,
    /// Ended jobs that are kept.
    pub jobs_kept: usize,
}

/// The queue before the model.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineSettings {
    /// Segments that may wait.
    pub queue_capacity_segments: usize,
    /// Segments in one forward pass; 0: what suits the device.
    pub max_batch_segments: usize,
    /// How long a batch waits to fill.
    #[serde(rename = "batch_wait_s", deserialize_with = "seconds")]
    pub batch_wait: Duration,
    /// Longest wait of a segment.
    #[serde(rename = "max_queue_wait_s", deserialize_with = "seconds")]
    pub max_queue_wait: Duration,
    /// Longest silence of the model thread before health says NOT_SERVING.
    #[serde(rename = "heartbeat_timeout_s", deserialize_with = "seconds")]
    pub heartbeat_timeout: Duration,
}

/// Limits on media.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VideoSettings {
    /// Where decoding happens.
    pub isolation: Isolation,
    /// Address space of a decoder process.
    pub decoder_memory_max_bytes: u64,
    /// Pixels of a frame.
    pub max_pixels: u64,
    /// Width or height of a frame, pixels.
    #[serde(rename = "max_side_pixels")]
    pub max_side: u32,
    /// Where uploads are spooled; by default the system's temporary directory.
    #[serde(deserialize_with = "optional")]
    pub spool_dir: Option<PathBuf>,
    /// Spooled bytes of one upload.
    pub spool_max_bytes: u64,
    /// An input without news for so long is given up.
    #[serde(rename = "stall_timeout_s", deserialize_with = "seconds")]
    pub stall_timeout: Duration,
}

/// Where decoding happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// In a confined process for each stream.
    Process,
    /// In the server.
    None,
}

/// Limits on detections.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamSettings {
    /// Detections at the same time.
    pub max_streams: usize,
    /// Wait for `open`.
    #[serde(rename = "open_timeout_s", deserialize_with = "seconds")]
    pub open_timeout: Duration,
    /// Upload bytes that wait for the decoder.
    pub upload_buffer_bytes: usize,
    /// Responses that wait for the client.
    pub response_queue_messages: usize,
    /// Longest wait for a client that does not read.
    #[serde(rename = "slow_reader_timeout_s", deserialize_with = "seconds")]
    pub slow_reader_timeout: Duration,
}

/// What a URI source may be.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSettings {
    /// Schemes that are taken.
    #[serde(deserialize_with = "listed")]
    pub schemes: Vec<Scheme>,
    /// Folders below which `file://` may read.
    #[serde(deserialize_with = "listed")]
    pub file_roots: Vec<PathBuf>,
    /// Whom connections may go to; empty: all that is not refused otherwise.
    #[serde(deserialize_with = "listed")]
    pub allow: Vec<Rule>,
    /// Whom they may not go to.
    #[serde(deserialize_with = "listed")]
    pub deny: Vec<Rule>,
    /// Whether a request may say that a camera's certificate is not checked.
    pub allow_insecure_tls: bool,
}

/// The scheme of a URI source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// RTSP in plain text.
    Rtsp,
    /// RTSP through TLS.
    Rtsps,
    /// A file of the server's.
    File,
    /// A file of a web server's, in plain text.
    Http,
    /// A file of a web server's, through TLS.
    Https,
}

impl Scheme {
    /// As a URI has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Rtsp => "rtsp",
            Scheme::Rtsps => "rtsps",
            Scheme::File => "file",
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

impl FromStr for Scheme {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "rtsp" => Ok(Scheme::Rtsp),
            "rtsps" => Ok(Scheme::Rtsps),
            "file" => Ok(Scheme::File),
            "http" => Ok(Scheme::Http),
            "https" => Ok(Scheme::Https),
            other => Err(format!(
                "`{other}` is no scheme: use rtsp, rtsps, file, http or https"
            )),
        }
    }
}

/// Live sources.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraSettings {
    /// Name resolution, TCP connection, TLS handshake: each at most so long.
    #[serde(rename = "connect_timeout_s", deserialize_with = "seconds")]
    pub connect_timeout: Duration,
    /// Longest wait for the answer to an RTSP request.
    #[serde(rename = "response_timeout_s", deserialize_with = "seconds")]
    pub response_timeout: Duration,
    /// Longest time without an RTP packet.
    #[serde(rename = "silence_timeout_s", deserialize_with = "seconds")]
    pub silence_timeout: Duration,
    /// Longest time without a picture although packets arrive.
    #[serde(rename = "picture_timeout_s", deserialize_with = "seconds")]
    pub picture_timeout: Duration,
    /// How old a segment may be when its pass begins.
    #[serde(rename = "max_delay_s", deserialize_with = "seconds")]
    pub max_delay: Duration,
    /// Part of the measured throughput that live streams may need together.
    pub capacity_share: f64,
    /// Cameras that have metric series of their own.
    pub series_max: usize,
}

/// Verdicts of people.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedbackSettings {
    /// Directory of the verdicts; `None`: there is no feedback.
    #[serde(deserialize_with = "optional")]
    pub dir: Option<PathBuf>,
    /// Media time of a stream that a verdict can reach back, minutes; 0: there is no feedback.
    pub ring_minutes: f64,
    /// How long after its end a stream may still get verdicts.
    #[serde(rename = "keep_after_end_s", deserialize_with = "seconds")]
    pub keep_after_end: Duration,
    /// Samples that are stored.
    pub max_samples: usize,
}

/// The transport.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http2Settings {
    /// Silence before a ping.
    #[serde(rename = "keepalive_interval_s", deserialize_with = "seconds")]
    pub keepalive_interval: Duration,
    /// Wait for its answer.
    #[serde(rename = "keepalive_timeout_s", deserialize_with = "seconds")]
    pub keepalive_timeout: Duration,
    /// Flow-control window of a stream, bytes.
    pub stream_window_bytes: u32,
    /// Flow-control window of a connection, bytes.
    pub connection_window_bytes: u32,
    /// HTTP/2 streams of a connection.
    pub max_streams_per_connection: u32,
}

/// Traces.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceSettings {
    /// Address of the collector, OTLP/gRPC; `None`: no traces.
    #[serde(deserialize_with = "optional")]
    pub endpoint: Option<String>,
    /// Authorities of its certificate, PEM; `None`: those that the machine trusts.
    #[serde(deserialize_with = "optional")]
    pub ca_file: Option<PathBuf>,
    /// Part of the calls without a parent that are traced.
    pub sample_ratio: f64,
    /// Spans that may wait for the collector.
    pub queue_spans: usize,
    /// Longest wait for the collector.
    #[serde(rename = "timeout_s", deserialize_with = "seconds")]
    pub timeout: Duration,
    /// File with metadata of every export, such as a token.
    #[serde(deserialize_with = "optional")]
    pub headers_file: Option<PathBuf>,
}

/// The end.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShutdownSettings {
    /// How long running detections may go on.
    #[serde(rename = "grace_s", deserialize_with = "seconds")]
    pub grace: Duration,
}

/// Logs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// A level, or tracing directives.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Settings {
    /// Refuses values out of their documented range, by their key.
    pub(super) fn check(&self) -> Result<()> {
        exposure::check(&self.server)?;
        let e = &self.engine;
        within(
            "engine.queue_capacity_segments",
            e.queue_capacity_segments,
            3..=limits::QUEUE_CAPACITY_MAX_SEGMENTS,
        )?;
        within(
            "model.threads",
            self.model.threads,
            0..=limits::MODEL_THREADS_MAX,
        )?;
        within(
            "engine.max_batch_segments",
            e.max_batch_segments,
            0..=limits::BATCH_CLIPS_MAX,
        )?;
        lasts("engine.batch_wait_s", e.batch_wait, 0.0..=10.0)?;
        lasts("engine.max_queue_wait_s", e.max_queue_wait, 1.0..=86_400.0)?;
        lasts(
            "engine.heartbeat_timeout_s",
            e.heartbeat_timeout,
            0.1..=86_400.0,
        )?;
        let v = &self.video;
        let most = u64::from(limits::FRAME_MAX_SIDE).pow(2);
        within("video.max_pixels", v.max_pixels, 1..=most)?;
        within(
            "video.max_side_pixels",
            v.max_side,
            1..=limits::FRAME_MAX_SIDE,
        )?;
        within(
            "video.decoder_memory_max_bytes",
            v.decoder_memory_max_bytes,
            limits::WORKER_MEMORY_MIN_BYTES..=1 << 40,
        )?;
        within(
            "video.spool_max_bytes",
            v.spool_max_bytes,
            1 << 20..=1 << 40,
        )?;
        lasts("video.stall_timeout_s", v.stall_timeout, 0.1..=3600.0)?;
        let s = &self.streams;
        within("streams.max_streams", s.max_streams, 1..=4096)?;
        lasts("streams.open_timeout_s", s.open_timeout, 0.1..=3600.0)?;
        within(
            "streams.upload_buffer_bytes",
            s.upload_buffer_bytes,
            64 << 10..=256 << 20,
        )?;
        within(
            "streams.response_queue_messages",
            s.response_queue_messages,
            1..=1024,
        )?;
        lasts(
            "streams.slow_reader_timeout_s",
            s.slow_reader_timeout,
            0.1..=3600.0,
        )?;
        let c = &self.cameras;
        lasts("cameras.connect_timeout_s", c.connect_timeout, 0.1..=300.0)?;
        lasts(
            "cameras.response_timeout_s",
            c.response_timeout,
            0.1..=300.0,
        )?;
        lasts("cameras.silence_timeout_s", c.silence_timeout, 0.5..=3600.0)?;
        lasts("cameras.picture_timeout_s", c.picture_timeout, 0.5..=3600.0)?;
        lasts("cameras.max_delay_s", c.max_delay, 0.1..=3600.0)?;
        within("cameras.capacity_share", c.capacity_share, 0.0..=1000.0)?;
        within("cameras.series_max", c.series_max, 0..=10_000)?;
        if self.sources.schemes.contains(&Scheme::File) && self.sources.file_roots.is_empty() {
            return Err(Error::invalid(
                "sources.schemes has \"file\", but sources.file_roots names no folder below which files may be read",
            )
            .with_field("sources.file_roots"));
        }
        let f = &self.feedback;
        within(
            "feedback.ring_minutes",
            f.ring_minutes,
            0.0..=limits::FEEDBACK_RING_MAX_MINUTES,
        )?;
        lasts(
            "feedback.keep_after_end_s",
            f.keep_after_end,
            0.0..=limits::FEEDBACK_KEEP_MAX_SECONDS,
        )?;
        within(
            "feedback.max_samples",
            f.max_samples,
            1..=limits::FEEDBACK_SAMPLES_MAX,
        )?;
        let h = &self.http2;
        lasts(
            "http2.keepalive_interval_s",
            h.keepalive_interval,
            0.1..=7200.0,
        )?;
        lasts(
            "http2.keepalive_timeout_s",
            h.keepalive_timeout,
            0.1..=7200.0,
        )?;
        let window = 65_535..=i32::MAX as u32;
        within(
            "http2.stream_window_bytes",
            h.stream_window_bytes,
            window.clone(),
        )?;
        within(
            "http2.connection_window_bytes",
            h.connection_window_bytes,
            window,
        )?;
        within(
            "http2.max_streams_per_connection",
            h.max_streams_per_connection,
            1..=65_536,
        )?;
        let t = &self.traces;
        collector(t.endpoint.as_deref())?;
        within("traces.sample_ratio", t.sample_ratio, 0.0..=1.0)?;
        within(
            "traces.queue_spans",
            t.queue_spans,
            limits::TRACE_QUEUE_MIN_SPANS..=limits::TRACE_QUEUE_MAX_SPANS,
        )?;
        lasts("traces.timeout_s", t.timeout, 0.1..=300.0)?;
        lasts("shutdown.grace_s", self.shutdown.grace, 0.0..=86_400.0)?;
        let p = &self.profiles;
        if p.file.is_some() && (p.dir.is_some() || p.active.is_some()) {
            return Err(Error::invalid(
                "profiles.file stands alone: leave profiles.dir and profiles.active empty, or it",
            )
            .with_field("profiles.file"));
        }
        let a = &self.admin;
        within("admin.quota_bytes", a.quota_bytes, 1..=1 << 50)?;
        within("admin.clip_max_bytes", a.clip_max_bytes, 1..=1 << 50)?;
        within("admin.jobs_kept", a.jobs_kept, 1..=limits::JOBS_KEPT_MAX)?;
        // A server that makes its first profile itself has none to name yet.
        if p.dir.is_some() && p.active.is_none() && a.dir.is_none() {
            return Err(Error::invalid(
                "profiles.dir needs profiles.active: name the profile that an empty request field selects",
            )
            .with_field("profiles.active"));
        }
        Ok(())
    }
}

/// Refuses what is no address of a collector, and one with a password in it.
fn collector(endpoint: Option<&str>) -> Result<()> {
    let Some(endpoint) = endpoint else {
        return Ok(());
    };
    let refused = |why: &str| {
        let message = format!("traces.endpoint {why}: give e.g. \"http://127.0.0.1:4317\"");
        Err(Error::invalid(message).with_field("traces.endpoint"))
    };
    let rest = (endpoint.strip_prefix("http://")).or_else(|| endpoint.strip_prefix("https://"));
    match rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default()) {
        None => refused("must begin with http:// or https://"),
        Some("") => refused("names no host"),
        Some(host) if host.contains('@') => {
            refused("must not have a user name or password, which belong into traces.headers_file")
        }
        Some(_) => Ok(()),
    }
}

fn within<T: PartialOrd + fmt::Display + Copy>(
    key: &str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let (low, high) = (range.start(), range.end());
    Err(Error::invalid(format!("{key} is {value}; it must be {low} to {high}")).with_field(key))
}

pub(super) fn lasts(key: &str, value: Duration, range: RangeInclusive<f64>) -> Result<()> {
    within(key, value.as_secs_f64(), range)
}

/// Seconds as a number; the range is checked later, with the key's name.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| de::Error::custom(format!("{seconds} is no length of time in seconds")))
}

fn parsed<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|e| de::Error::custom(format!("`{text}`: {e}")))
}

/// Like [`parsed`], with an empty string for none.
fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|e| de::Error::custom(format!("`{text}`: {e}")))
}

/// A list, or (as an environment variable gives it) its entries with commas between them.
fn listed<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        List(Vec<String>),
        Commas(String),
    }
    let entries = match Given::deserialize(deserializer)? {
        Given::List(entries) => entries,
        Given::Commas(text) => text.split(',').map(str::to_owned).collect(),
    };
    entries
        .iter()
        .map(|entry| entry.trim())
        .filter(|entry| !entry.is_empty())
        .map(|entry| {
            entry
                .parse()
                .map_err(|e| de::Error::custom(format!("`{entry}`: {e}")))
        })
        .collect()
}
