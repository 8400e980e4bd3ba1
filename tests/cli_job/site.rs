//! Labelled clips made here, and the binary that they are given to.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use headhunt::video::encode::Mp4Writer;

/// The tiny checkpoint.
pub const MODEL: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/golden/checkpoints/tiny/hf"
);
/// Another one.
pub const OTHER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/golden/checkpoints/tinywide/hf"
);

/// Runs the binary.
pub fn headhunt(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_headhunt"))
        .args(args)
        .output()
        .unwrap()
}

/// What it prints where it succeeds.
pub fn succeeds(args: &[&str]) -> String {
    let output = headhunt(args);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// What the command said on standard error; its exit code must be 1.
pub fn fails(args: &[&str]) -> String {
    let output = headhunt(args);
    assert_eq!(output.status.code(), Some(1), "{args:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A grey clip whose frames in `bright` flash white and red.
pub fn clip(path: &Path, frames: u64, bright: (u64, u64), shade: u8) {
    let mut writer = Mp4Writer::create(path, 64, 48, 30).unwrap();
    for i in 0..frames {
        let wave = (i % 7) as u8;
        let pixel = |k: usize| match (bright.0..bright.1).contains(&i) {
            true => [255, (k % 64) as u8 * 3, 10 * wave],
            false => [shade + wave, shade + (k % 48) as u8, shade],
        };
        writer.push((0..64 * 48).flat_map(pixel).collect()).unwrap();
    }
    writer.finish().unwrap();
}

/// Four labelled clips and their manifest.
pub fn site(dir: &Path) -> PathBuf {
    clip(&dir.join("a.mp4"), 200, (48, 144), 40);
    clip(&dir.join("b.mp4"), 170, (60, 130), 60);
    clip(&dir.join("c.mp4"), 150, (0, 0), 50);
    clip(&dir.join("d.mp4"), 100, (0, 0), 70);
    let manifest = dir.join("clips.csv");
    fs::write(
        &manifest,
        "video,label,start_frame,end_frame\na.mp4,anomaly,48,144\nb.mp4,anomaly,60,130\n\
         c.mp4,normal,,\nd.mp4,normal,,\n",
    )
    .unwrap();
    manifest
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A process that ends with the value.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `headhunt camera` with this file on a port, or a free one for 0, and the URL that it prints.
pub fn camera(file: &Path, port: u16) -> (Process, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_headhunt"))
        .args(["camera", text(file), "--port", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    (Process(child), line.trim().to_owned())
}
