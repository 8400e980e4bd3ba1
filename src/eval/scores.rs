//! Scores files: one JSON object a line,
//! `{"video": name, "stride": frames per score, "scores": […]}`, and optionally `"fps"`: frames a
//! second, for figures per hour.

use std::io::{BufRead, Read};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Kind, Result, ResultExt},
    limits::SCORES_LINE_MAX_BYTES,
};

/// One video's scores.
#[derive(Clone, Debug, PartialEq)]
pub struct VideoScores {
    /// Its name, as written.
    pub video: String,
    /// Consecutive frames that share a score; not 0.
    pub stride: u64,
    /// Finite; the i-th is that of the frames `i * stride..(i + 1) * stride`.
    pub scores: Vec<f64>,
    /// Frames a second, where the file says so; finite and above 0.
    pub fps: Option<f64>,
    /// Line in the file, from 1.
    pub line: u64,
}

impl VideoScores {
    /// Its line in a file, without the newline; reads back equal.
    ///
    /// `InvalidArgument` for a stride of 0 or a number that is not finite; `ResourceExhausted` where
    /// it would be longer than [`SCORES_LINE_MAX_BYTES`].
    pub fn to_line(&self) -> Result<String> {
        let fits = |fps: &f64| fps.is_finite() && *fps > 0.0;
        if self.stride == 0
            || self.scores.iter().any(|s| !s.is_finite())
            || !self.fps.iter().all(fits)
        {
            return Err(Error::invalid(format!(
                "video {}: stride, fps and scores must be finite numbers, the first two above 0",
                self.video
            )));
        }
        #[derive(Serialize)]
        struct Written<'a> {
            video: &'a str,
            stride: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            fps: Option<f64>,
            scores: &'a [f64],
        }
        let line = serde_json::to_string(&Written {
            video: &self.video,
            stride: self.stride,
            fps: self.fps,
            scores: &self.scores,
        })
        .or_kind(Kind::Internal, || "cannot write scores as JSON".into())?;
        if line.len() as u64 >= SCORES_LINE_MAX_BYTES {
            return Err(Error::exhausted(format!(
                "video {}: its scores take {} bytes, and {SCORES_LINE_MAX_BYTES} are possible",
                self.video,
                line.len()
            )));
        }
        Ok(line)
    }
}

#[derive(Deserialize)]
struct Line {
    video: String,
    stride: u64,
    // Some writers say null for NaN.
    scores: Vec<Option<f64>>,
    fps: Option<f64>,
}

/// Reads a scores file line by line; empty lines are skipped. After an error it yields nothing more.
///
/// `InvalidArgument`, naming the line and, where it can be read, the video: not such an object, a
/// stride of 0, a score that is NaN, infinite or null, an fps that is not above 0. `ResourceExhausted`: a line longer than
/// [`SCORES_LINE_MAX_BYTES`].
pub fn read<R: BufRead>(reader: R) -> impl Iterator<Item = Result<VideoScores>> {
    let mut reader = Some((reader, 0_u64));
    let mut buffer = Vec::new();
    std::iter::from_fn(move || {
        let (source, line) = reader.as_mut()?;
        let next = next_line(source, line, &mut buffer);
        if !matches!(next, Ok(Some(_))) {
            reader = None;
        }
        next.transpose()
    })
}

fn next_line<R: BufRead>(
    reader: &mut R,
    line: &mut u64,
    buffer: &mut Vec<u8>,
) -> Result<Option<VideoScores>> {
    loop {
        buffer.clear();
        *line += 1;
        let read = reader
            .by_ref()
            .take(SCORES_LINE_MAX_BYTES + 1)
            .read_until(b'\n', buffer)
            .or_kind(Kind::InvalidArgument, || {
                format!("cannot read line {line} of the scores")
            })?;
        if read == 0 {
            return Ok(None);
        }
        if buffer.len() as u64 > SCORES_LINE_MAX_BYTES {
            return Err(Error::exhausted(format!(
                "scores, line {line}: longer than {SCORES_LINE_MAX_BYTES} bytes; use a larger stride"
            )));
        }
        if !buffer.trim_ascii().is_empty() {
            return parse(buffer, *line).map(Some);
        }
    }
}

fn parse(text: &[u8], line: u64) -> Result<VideoScores> {
    let parsed: Line = match serde_json::from_slice(text) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Python writes NaN and Infinity, which are not JSON: say whose they are.
            return match serde_json::from_slice(&without_bare_words(text)) {
                Ok(parsed) => match finite(parsed, line)? {
                    VideoScores {
                        video, fps: None, ..
                    } if holds_fps(text) => Err(Error::invalid(format!(
                        "scores, line {line}: the frames a second of video {video} are not a finite number"
                    ))),
                    scores => Ok(scores),
                },
                Err(_) => Err(Error::invalid(format!(
                    "scores, line {line}: not an object with video, stride and scores ({error})"
                ))),
            };
        }
    };
    finite(parsed, line)
}

/// Whether the object has the key `fps`, with a bare word for its value.
fn holds_fps(text: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Only {
        #[serde(default, deserialize_with = "present")]
        fps: bool,
    }
    fn present<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<bool, D::Error> {
        serde::de::IgnoredAny::deserialize(from).map(|_| true)
    }
    serde_json::from_slice::<Only>(&without_bare_words(text)).is_ok_and(|only| only.fps)
}

fn finite(parsed: Line, line: u64) -> Result<VideoScores> {
    let Line {
        video,
        stride,
        scores,
        fps,
    } = parsed;
    if stride == 0 {
        return Err(Error::invalid(format!(
            "scores, line {line}: video {video} has stride 0"
        )));
    }
    if let Some(fps) = fps.filter(|fps| !(fps.is_finite() && *fps > 0.0)) {
        return Err(Error::invalid(format!(
            "scores, line {line}: video {video} has {fps} frames a second; give a number above 0"
        )));
    }
    let scores = scores
        .into_iter()
        .enumerate()
        .map(|(at, score)| {
            score.filter(|s| s.is_finite()).ok_or_else(|| {
                Error::invalid(format!(
                    "scores, line {line}: score {at} of video {video} is not a finite number"
                ))
            })
        })
        .collect::<Result<Vec<f64>>>()?;
    Ok(VideoScores {
        video,
        stride,
        scores,
        fps,
        line,
    })
}

/// The text with NaN, Infinity and -Infinity outside of strings replaced by null.
fn without_bare_words(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let (mut rest, mut in_string) = (text, false);
    while let Some((&byte, tail)) = rest.split_first() {
        if !in_string {
            let word = [&b"NaN"[..], b"-NaN", b"Infinity", b"-Infinity"]
                .into_iter()
                .find(|word| rest.starts_with(word));
            if let Some(word) = word {
                out.extend_from_slice(b"null");
                rest = &rest[word.len()..];
                continue;
            }
        }
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                if let Some((&escaped, after)) = tail.split_first() {
                    out.extend_from_slice(&[byte, escaped]);
                    rest = after;
                    continue;
                }
            }
            _ => {}
        }
        out.push(byte);
        rest = tail;
    }
    out
}
