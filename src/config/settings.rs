//! The settings, typed. `config/default.toml` says what each one means.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use serde::Deserialize;

use super::values::{listed, optional, parsed, seconds};
use crate::net::Rule;

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
