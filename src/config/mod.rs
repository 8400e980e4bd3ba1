//! CONFIG: file and environment to typed settings; the only reader of the environment.
//!
//! `config/default.toml` holds every key with its meaning, range and default. A file, then
//! `HEADHUNT__SECTION__KEY` variables, then flags override it. Whatever is unknown, of the wrong type
//! or out of range is refused with the key's full name.

mod environment;
mod exposure;
mod load;
mod print;
mod ranges;
mod settings;
mod values;

pub use environment::{Environment, HubSettings};
pub use load::{DEFAULTS, Overrides};
pub use settings::{
    AdminSettings, CameraSettings, DeviceChoice, DtypeChoice, EngineSettings, FeedbackSettings,
    Http2Settings, Isolation, LogFormat, LogSettings, ModelSettings, ProfileSettings, Scheme,
    ServerSettings, Settings, ShutdownSettings, SourceSettings, StreamSettings, TraceSettings,
    VideoSettings,
};
