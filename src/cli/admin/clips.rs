//! `headhunt admin clips`.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{
    connection::{Connection, refused, seconds},
    upload::{Description, upload},
};
use crate::{
    error::{Error, Kind, Result, ResultExt},
    rpc::proto,
};

/// Labelled clips
#[derive(Debug, clap::Subcommand)]
pub enum Clips {
    /// Upload a clip
    Upload {
        /// The video file
        file: PathBuf,
        #[command(flatten)]
        label: LabelArgs,
        /// Its name for people; by default the file's
        #[arg(long)]
        name: Option<String>,
    },
    /// Store the clips of a manifest that lies on the server, below admin.import_roots
    Import {
        /// Absolute path on the server; CSV video,label,start_frame,end_frame
        manifest: String,
    },
    /// List all clips
    List,
    /// Show one clip
    Show {
        /// Its id
        id: String,
    },
    /// Replace label and intervals
    Relabel {
        /// Its id
        id: String,
        #[command(flatten)]
        label: LabelArgs,
    },
    /// Delete a clip and the features kept of it
    Delete {
        /// Its id
        id: String,
    },
}

/// What a clip shows.
#[derive(Debug, Clone, clap::Args)]
pub struct LabelArgs {
    /// What the clip shows
    #[arg(long, value_enum)]
    label: Label,
    /// Anomalous frames A to B, end exclusive; may be given several times. None with --label anomaly:
    /// only the label of the clip as a whole is known
    #[arg(long = "interval", value_name = "A:B", value_parser = interval)]
    intervals: Vec<(u64, u64)>,
}

/// A label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Label {
    /// Nothing anomalous in any frame
    Normal,
    /// Something anomalous
    Anomaly,
}

impl LabelArgs {
    fn wire(&self) -> (i32, Vec<proto::FrameInterval>) {
        let label = match self.label {
            Label::Normal => proto::ClipLabel::Normal,
            Label::Anomaly => proto::ClipLabel::Anomaly,
        };
        (label.into(), wire_intervals(&self.intervals))
    }
}

/// Intervals on the wire.
pub(super) fn wire_intervals(intervals: &[(u64, u64)]) -> Vec<proto::FrameInterval> {
    intervals
        .iter()
        .map(|&(first_frame, end_frame)| proto::FrameInterval {
            first_frame,
            end_frame,
        })
        .collect()
}

fn interval(text: &str) -> std::result::Result<(u64, u64), String> {
    text.split_once(':')
        .and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)))
        .filter(|(a, b)| a < b)
        .ok_or_else(|| format!("`{text}` is no interval A:B of frames with A below B"))
}

impl Clips {
    pub(super) async fn run(self, to: &mut Connection) -> Result<()> {
        let mut client = to.client();
        match self {
            Clips::Upload { file, label, name } => {
                let name = match name {
                    Some(name) => name,
                    None => file
                        .file_name()
                        .map(|name| name.to_string_lossy().into_owned())
                        .unwrap_or_default(),
                };
                let (label, anomalous) = label.wire();
                let described = Description {
                    name,
                    label,
                    anomalous,
                };
                let stored = upload(to, &file, described).await?;
                print_stored(to, stored.clip, stored.already_stored)
            }
            Clips::Import { manifest } => {
                let stored = client
                    .import_clips(proto::ImportClipsRequest { manifest })
                    .await
                    .map_err(refused)?
                    .into_inner();
                let clips: Vec<Value> = stored.clips.iter().map(value).collect();
                let n = stored.clips.len();
                to.print(
                    &json!({"clips": clips, "already_stored": stored.already_stored}),
                    || {
                        format!(
                            "{n} clips, {} of them were there before",
                            stored.already_stored
                        )
                    },
                );
                Ok(())
            }
            Clips::List => list(to).await,
            Clips::Show { id } => {
                let response = client.get_clip(proto::GetClipRequest { id }).await;
                print_clip(to, response.map_err(refused)?.into_inner().clip)
            }
            Clips::Relabel { id, label } => {
                let (label, anomalous) = label.wire();
                let request = proto::RelabelClipRequest {
                    id,
                    label,
                    anomalous,
                };
                let response = client.relabel_clip(request).await;
                print_clip(to, response.map_err(refused)?.into_inner().clip)
            }
            Clips::Delete { id } => {
                client
                    .delete_clip(proto::DeleteClipRequest { id: id.clone() })
                    .await
                    .map_err(refused)?;
                to.print(&json!({"deleted": id}), || format!("deleted {id}"));
                Ok(())
            }
        }
    }
}

async fn list(to: &Connection) -> Result<()> {
    let mut client = to.client();
    let mut token = String::new();
    let mut clips = 0;
    let bytes = loop {
        let request = proto::ListClipsRequest {
            page_size: 1000,
            page_token: token,
        };
        let page = client.list_clips(request).await.map_err(refused)?;
        let page = page.into_inner();
        for clip in &page.clips {
            clips += 1;
            to.print(&value(clip), || line(clip));
        }
        if page.next_page_token.is_empty() {
            break (page.stored_bytes, page.quota_bytes);
        }
        token = page.next_page_token;
    };
    if !to.json {
        to.print(&Value::Null, || {
            format!("{clips} clips; {} of {} bytes", bytes.0, bytes.1)
        });
    }
    Ok(())
}

fn print_stored(to: &Connection, clip: Option<proto::Clip>, already: bool) -> Result<()> {
    let clip = clip.ok_or_else(no_clip)?;
    let mut json = value(&clip);
    if let Value::Object(map) = &mut json {
        map.insert("already_stored".into(), already.into());
    }
    to.print(&json, || {
        let note = if already { " (was there before)" } else { "" };
        format!("{}{note}", line(&clip))
    });
    Ok(())
}

fn print_clip(to: &Connection, clip: Option<proto::Clip>) -> Result<()> {
    let clip = clip.ok_or_else(no_clip)?;
    to.print(&value(&clip), || {
        let intervals: Vec<String> = clip
            .anomalous
            .iter()
            .map(|i| format!("{}:{}", i.first_frame, i.end_frame))
            .collect();
        format!("{}\nanomalous  {}", line(&clip), intervals.join(" "))
    });
    Ok(())
}

fn no_clip() -> Error {
    Error::internal("the server answered without a clip")
}

/// A clip as JSON.
pub(super) fn value(clip: &proto::Clip) -> Value {
    let intervals: Vec<[u64; 2]> = clip
        .anomalous
        .iter()
        .map(|i| [i.first_frame, i.end_frame])
        .collect();
    json!({
        "id": clip.id,
        "name": clip.name,
        "label": label_name(clip),
        "anomalous": intervals,
        "size_bytes": clip.size_bytes,
        "created_unix_s": seconds(clip.created_at),
        "frames": clip.frames,
        "kept_features": clip.kept_features,
    })
}

fn label_name(clip: &proto::Clip) -> &'static str {
    match clip.label() {
        proto::ClipLabel::Normal => "normal",
        proto::ClipLabel::Anomaly => "anomaly",
        proto::ClipLabel::Unspecified => "unknown",
    }
}

fn line(clip: &proto::Clip) -> String {
    format!(
        "{}  {:7} {:>3} intervals {:>12} bytes  {}",
        clip.id,
        label_name(clip),
        clip.anomalous.len(),
        clip.size_bytes,
        clip.name
    )
}

/// Reads a file of text that may be this long.
pub(super) fn text(path: &std::path::Path, most: u64) -> Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)
        .or_kind(Kind::NotFound, || format!("cannot open {}", path.display()))?
        .take(most + 1)
        .read_to_string(&mut text)
        .or_kind(Kind::InvalidArgument, || {
            format!("cannot read {} as text", path.display())
        })?;
    if text.len() as u64 > most {
        return Err(Error::invalid(format!(
            "{} has more than {most} bytes",
            path.display()
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_two_numbers_in_order() {
        assert_eq!(interval("3:9"), Ok((3, 9)));
        for wrong in ["", "3", "9:3", "3:3", "a:b", "-1:2"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
