//! Compiles the protos with a pure-Rust protoc, so that a bare machine needs none installed.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    const PROTOS: [&str; 2] = ["headhunt/v1/detection.proto", "headhunt/v1/admin.proto"];
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // For server reflection.
    fs::write(
        out.join("headhunt_descriptor.bin"),
        prost::Message::encode_to_vec(&descriptors),
    )?;
    tonic_prost_build::configure()
        .bytes(".headhunt.v1.DetectRequest.chunk")
        .bytes(".headhunt.v1.UploadClipRequest.chunk")
        .compile_fds(descriptors)?;
    Ok(())
}
