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
    #[cfg(feature = "cuda")]
    kernels(&out)?;
    Ok(())
}

/// Compiles the CUDA kernels to PTX, which the driver turns into code for its GPU; needs nvcc, as candle's
/// own kernels do, and takes the compute capability from CUDA_COMPUTE_CAP or the GPU of this machine.
#[cfg(feature = "cuda")]
fn kernels(out: &std::path::Path) -> Result<(), Box<dyn Error>> {
    const SOURCES: [&str; 4] = [
        "src/model/kernels/cuda/attention.cu",
        "src/model/kernels/cuda/attention_hopper.cu",
        "src/model/kernels/cuda/pointwise.cu",
        "src/model/kernels/cuda/resize.cu",
    ];
    cudaforge::KernelBuilder::new()
        .source_files(SOURCES)
        .watch([
            "src/model/kernels/cuda/softmax.cuh",
            "src/model/kernels/cuda/wgmma.cuh",
        ])
        .arg("-std=c++17")
        .arg("-O3")
        .build_ptx()?
        .write(out.join("kernels.rs"))?;
    Ok(())
}
