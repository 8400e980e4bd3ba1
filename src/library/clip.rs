//! What is known of a clip.

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    intervals, limits,
};

/// Form of the record that this version writes.
const SCHEMA: u32 = 1;

/// What a clip shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// Nothing anomalous in any frame.
    Normal,
    /// Something anomalous: in the intervals, or somewhere where there are none.
    Anomaly,
}

/// A label with its intervals, checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labelled {
    /// What the clip shows.
    pub label: Label,
    /// Anomalous frames, end exclusive, sorted, without overlaps; none of a normal clip.
    pub anomalous: Vec<(u64, u64)>,
}

impl Labelled {
    /// Checks and sorts.
    ///
    /// Fails with `InvalidArgument` and the field `anomalous` for intervals of a normal clip, an
    /// empty interval, or more than 1,000.
    pub fn new(label: Label, anomalous: Vec<(u64, u64)>) -> Result<Labelled> {
        let wrong = |message: String| Err(Error::invalid(message).with_field("anomalous"));
        if label == Label::Normal && !anomalous.is_empty() {
            return wrong(
                "a normal clip has no anomalous intervals: leave them out, or label it an anomaly"
                    .into(),
            );
        }
        if anomalous.len() > limits::CLIP_INTERVALS_MAX {
            return wrong(format!(
                "{} intervals; at most {} are taken",
                anomalous.len(),
                limits::CLIP_INTERVALS_MAX
            ));
        }
        if let Some((first, end)) = anomalous.iter().find(|(first, end)| first >= end) {
            return wrong(format!(
                "frames {first} to {end}: end_frame is exclusive, so it must be larger than \
                 first_frame"
            ));
        }
        Ok(Labelled {
            label,
            anomalous: intervals::merge(anomalous),
        })
    }

    /// Whether the label of every frame is known.
    pub fn frames_known(&self) -> bool {
        self.label == Label::Normal || !self.anomalous.is_empty()
    }
}

/// A stored clip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clip {
    schema: u32,
    /// SHA-256 of the bytes, 64 hex digits.
    pub id: String,
    /// For people.
    pub name: String,
    /// What it shows.
    pub label: Label,
    /// Anomalous frames, as in [`Labelled`].
    pub anomalous: Vec<(u64, u64)>,
    /// Bytes.
    pub size_bytes: u64,
    /// Nanoseconds since 1970 when it was stored; no two clips of a library have the same.
    pub created_unix_ns: u64,
    /// Decoded frames; 0 until a job has read it.
    pub frames: u64,
    /// Deleted, and kept until the job that reads it ends.
    #[serde(default)]
    pub deleted: bool,
}

impl Clip {
    pub(super) fn new(
        id: String,
        name: String,
        labelled: Labelled,
        size_bytes: u64,
        created_unix_ns: u64,
    ) -> Clip {
        Clip {
            schema: SCHEMA,
            id,
            name,
            label: labelled.label,
            anomalous: labelled.anomalous,
            size_bytes,
            created_unix_ns,
            frames: 0,
            deleted: false,
        }
    }

    /// What it shows.
    pub fn labelled(&self) -> Labelled {
        Labelled {
            label: self.label,
            anomalous: self.anomalous.clone(),
        }
    }

    pub(super) fn relabel(&mut self, labelled: Labelled) {
        self.label = labelled.label;
        self.anomalous = labelled.anomalous;
    }

    /// Whether a record read from disk can be used.
    pub(super) fn is_sound(&self, id: &str) -> bool {
        self.schema == SCHEMA
            && self.id == id
            && Labelled::new(self.label, self.anomalous.clone())
                .is_ok_and(|sorted| sorted.anomalous == self.anomalous)
    }
}

/// Whether this can be a clip's id.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Refuses a name that is too long, or would break a line of a log.
pub(super) fn check_name(name: &str) -> Result<()> {
    if name.len() > limits::CLIP_NAME_MAX_BYTES {
        return Err(Error::invalid(format!(
            "the clip's name has {} bytes; at most {} are taken",
            name.len(),
            limits::CLIP_NAME_MAX_BYTES
        ))
        .with_field("name"));
    }
    if name.contains(char::is_control) {
        return Err(Error::invalid("the clip's name has control characters").with_field("name"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_checked_and_sorted() {
        let sorted = Labelled::new(Label::Anomaly, vec![(50, 60), (0, 10), (5, 20)]).unwrap();
        assert_eq!(sorted.anomalous, [(0, 20), (50, 60)]);
        assert!(sorted.frames_known());
        assert!(
            !Labelled::new(Label::Anomaly, vec![])
                .unwrap()
                .frames_known()
        );
        for (label, intervals) in [
            (Label::Normal, vec![(0, 1)]),
            (Label::Anomaly, vec![(3, 3)]),
            (Label::Anomaly, vec![(4, 3)]),
            (
                Label::Anomaly,
                (0..1001).map(|i| (2 * i, 2 * i + 1)).collect(),
            ),
        ] {
            let error = Labelled::new(label, intervals).unwrap_err();
            assert_eq!(error.field(), Some("anomalous"));
        }
    }

    #[test]
    fn a_record_reads_back_and_a_changed_one_is_not_sound() {
        let id = "ab".repeat(32);
        let labelled = Labelled::new(Label::Anomaly, vec![(1, 9)]).unwrap();
        let clip = Clip::new(id.clone(), "a.mp4".into(), labelled, 7, 1);
        let json = serde_json::to_string(&clip).unwrap();
        let read: Clip = serde_json::from_str(&json).unwrap();
        assert_eq!(read, clip);
        assert!(read.is_sound(&id));
        let changed = json.replace("[1,9]", "[9,1]");
        assert!(
            !serde_json::from_str::<Clip>(&changed)
                .unwrap()
                .is_sound(&id)
        );
        assert!(!read.is_sound(&"cd".repeat(32)));
    }
}
