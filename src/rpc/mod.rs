//! RPC: tonic services; a handler parses, calls `pipeline` and converts.

/// The generated messages and services of `headhunt.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic)] // generated code
pub mod proto {
    tonic::include_proto!("headhunt.v1");

    /// Encoded file descriptors, for server reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/headhunt_descriptor.bin"));
}
