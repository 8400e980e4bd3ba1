//! RPC: tonic services; a handler parses, calls `pipeline` and converts.
//!
//! A `Detect` call becomes a `session`: one task reads requests and hands chunks to the
//! decoder's thread (`upload`), another forwards what the detection finds (`responses`). Whatever
//! ends it (client gone, deadline, slow reader, bad message, shutdown) cancels one token, and the slot
//! is free once the decoder has let go.

mod admin;
mod admission;
mod choice;
mod connections;
mod convert;
mod deadline;
mod detection;
mod feedback;
mod guard;
mod health;
mod open;
mod options;
mod profiles;
mod responses;
mod security;
mod server;
mod session;
mod source;
mod status;
mod told;
mod traced;
mod traces;
mod upload;
mod uri;
#[cfg(feature = "video")]
mod web;

pub use feedback::open_feedback;
pub use profiles::{Listed, Profiles, Ready};
pub use security::Security;
pub use server::{Parts, serve};
pub use source::OpenMedia;
#[cfg(feature = "video")]
pub use source::{LiveMedia, VideoMedia, WebMedia};
pub use traces::{check_traces, open_traces};
pub use uri::UriSource;

/// Names under which grpc.health.v1 answers; the empty one is the server as a whole.
const SERVICES: [&str; 3] = [
    "",
    "headhunt.v1.DetectionService",
    "headhunt.v1.AdminService",
];

/// The generated messages and services of `headhunt.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic)] // generated code
pub mod proto {
    tonic::include_proto!("headhunt.v1");

    /// Encoded file descriptors, for server reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/headhunt_descriptor.bin"));
}
