//! The features of one clip's samples on disk.
//!
//! A finished set is a safetensors file: `features` f32 \[samples, prompts, layers, heads,
//! head_dim\], `spans` i64 \[samples, 5\] (first and last frame, start and end in nanoseconds of media
//! time, run; zeros for a whole-video sample), `digests` u8
//! \[samples, 32\] (SHA-256 of a sample's span and numbers) and, as metadata, the key and the clip's
//! count of frames.
//!
//! A set under way is the same file without its header's tensors (`.part`), which grows by one sample
//! after each pass, and a journal with the span and the digest of each. After a crash the samples
//! whose digests fit are taken over; nothing has to be synced in between. The end writes the header
//! in place, syncs and renames.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
};

use super::{
    FeatureKey, Library, disk,
    features::{JOURNAL, PART, WHOLE},
    layout::{
        ENTRY, Header, SPAN, Sha, WHAT, digest_of, head_features, read_sample, span_bytes, span_of,
    },
};
use crate::{
    error::{Error, Kind, Result, ResultExt},
    files,
    head::HeadFeatures,
    limits,
    score::locate::SegmentSpan,
};

/// The features of a clip's samples, checked. While it lives, they stay on disk.
#[derive(Debug)]
pub struct Kept {
    held: Held,
    key: FeatureKey,
    file: File,
    data_at: u64,
    spans: Vec<SegmentSpan>,
    /// Decoded frames of the clip.
    pub frames: u64,
}

/// Features of a clip's samples under way.
#[derive(Debug)]
pub struct KeptWriter {
    held: Held,
    clip: String,
    key: FeatureKey,
    part: File,
    journal: File,
    data_at: u64,
    spans: Vec<SegmentSpan>,
    digests: Vec<Sha>,
}

/// A set that is in use.
#[derive(Debug)]
struct Held {
    library: Arc<Library>,
    stem: String,
}

impl Held {
    fn new(library: &Arc<Library>, stem: &str) -> Held {
        library.with_features(|features| features.hold(stem));
        Held {
            library: library.clone(),
            stem: stem.to_owned(),
        }
    }

    fn path(&self, ending: &str) -> PathBuf {
        let folder = self
            .library
            .with_features(|features| features.folder().to_owned());
        folder.join(format!("{}{ending}", self.stem))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.library
            .with_features(|features| features.release(&self.stem));
    }
}

impl Library {
    /// The features kept of a clip's samples under this key; each of them is checked. A damaged
    /// file is removed, and logged.
    pub fn kept(self: &Arc<Self>, clip: &str, key: &FeatureKey) -> Result<Option<Kept>> {
        let stem = key.stem(clip)?;
        if !self.with_features(|features| features.stems(clip).any(|s| *s == stem)) {
            return Ok(None);
        }
        Ok(self.open_kept(&stem).filter(|kept| kept.key == *key))
    }

    /// The features of a clip's samples under a key that `fits`; as [`kept`](Self::kept).
    pub fn kept_where(
        self: &Arc<Self>,
        clip: &str,
        fits: &dyn Fn(&FeatureKey) -> bool,
    ) -> Option<Kept> {
        let stems: Vec<String> =
            self.with_features(|features| features.stems(clip).cloned().collect());
        stems.into_iter().find_map(|stem| {
            let header = {
                let held = Held::new(self, &stem);
                File::open(held.path(WHOLE))
                    .ok()
                    .and_then(|file| Header::read(&file).ok())
            };
            // A header that cannot be read is found out, and removed, by opening it.
            if header.is_some_and(|header| !fits(&header.key)) {
                return None;
            }
            self.open_kept(&stem).filter(|kept| fits(&kept.key))
        })
    }

    fn open_kept(self: &Arc<Self>, stem: &str) -> Option<Kept> {
        let held = Held::new(self, stem);
        match Kept::open(held) {
            Ok(kept) => Some(kept),
            Err(why) => {
                tracing::error!(set = stem, why, "kept features are damaged and removed");
                let freed = self.with_features(|features| features.drop_one(stem));
                self.quota().give_back(freed);
                None
            }
        }
    }

    /// Goes on with the features of a clip's samples where a former run left them, or begins.
    ///
    /// Fails with `ResourceExhausted` where quota or disk are full.
    pub fn keep(self: &Arc<Self>, clip: &str, key: &FeatureKey) -> Result<KeptWriter> {
        let stem = key.stem(clip)?;
        let freed = self.with_features(|features| features.bound(clip));
        self.quota().give_back(freed);
        KeptWriter::open(self, clip, key, &stem)
    }
}

impl Kept {
    fn open(held: Held) -> Result<Kept, &'static str> {
        let unreadable = |_| "it cannot be read";
        let file = File::open(held.path(WHOLE)).map_err(unreadable)?;
        let header = Header::read(&file)?;
        let floats = (header.samples * header.key.numbers() * 4) as u64;
        let spans_at = header.data_at + floats;
        let digests_at = spans_at + (header.samples * SPAN * 8) as u64;
        let end = digests_at + (header.samples * 32) as u64;
        if file.metadata().map_err(unreadable)?.len() != end {
            return Err("it has another length than its head says");
        }
        let mut spans = Vec::with_capacity(header.samples);
        let mut digests = Vec::with_capacity(header.samples);
        for sample in 0..header.samples {
            let mut span = [0; SPAN * 8];
            let mut digest = [0; 32];
            file.read_exact_at(&mut span, spans_at + (sample * SPAN * 8) as u64)
                .map_err(unreadable)?;
            file.read_exact_at(&mut digest, digests_at + (sample * 32) as u64)
                .map_err(unreadable)?;
            spans.push(span_of(&span));
            digests.push(digest);
        }
        let kept = Kept {
            held,
            key: header.key,
            file,
            data_at: header.data_at,
            spans,
            frames: header.frames,
        };
        for (sample, digest) in digests.iter().enumerate() {
            let numbers = kept.bytes(sample).map_err(unreadable)?;
            let span = kept.spans.get(sample).map(span_bytes);
            if span.map(|span| digest_of(&span, &numbers)) != Some(*digest) {
                return Err("a sample's digest does not fit");
            }
        }
        Ok(kept)
    }

    /// What the features depend on.
    pub fn key(&self) -> &FeatureKey {
        &self.key
    }

    /// Where each sample stands in the clip.
    pub fn spans(&self) -> &[SegmentSpan] {
        &self.spans
    }

    /// A sample's features of all heads under every prompt.
    pub fn features(&self, sample: usize) -> Result<HeadFeatures> {
        let bytes = self.bytes(sample).or_kind(Kind::DataLoss, || {
            format!("kept features {} cannot be read", self.held.stem)
        })?;
        Ok(head_features(&self.key, &bytes))
    }

    fn bytes(&self, sample: usize) -> io::Result<Vec<u8>> {
        read_sample(&self.file, self.data_at, &self.key, sample)
    }
}

impl KeptWriter {
    fn open(library: &Arc<Library>, clip: &str, key: &FeatureKey, stem: &str) -> Result<Self> {
        let refused = |e| disk::refused(WHAT, e);
        let header = Header::bytes(key, None)?;
        let held = Held::new(library, stem);
        let open = |ending| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(held.path(ending))
                .map_err(refused)
        };
        let (part, mut journal) = (open(PART)?, open(JOURNAL)?);
        let mut entries = Vec::new();
        (&mut journal)
            .take((limits::KEPT_SAMPLES_MAX * ENTRY) as u64)
            .read_to_end(&mut entries)
            .map_err(refused)?;
        let mut writer = KeptWriter {
            clip: clip.to_owned(),
            key: key.clone(),
            part,
            journal,
            data_at: header.len() as u64,
            spans: Vec::new(),
            digests: Vec::new(),
            held,
        };
        let mut begun = vec![0; 8];
        let same = writer.part.read_exact_at(&mut begun, 0).is_ok()
            && header.get(..8) == Some(begun.as_slice());
        if same {
            for entry in entries.chunks_exact(ENTRY) {
                let (span, digest) = entry.split_at(SPAN * 8);
                let numbers = read_sample(&writer.part, writer.data_at, key, writer.spans.len());
                let (Ok(numbers), Ok(span)) = (numbers, <[u8; SPAN * 8]>::try_from(span)) else {
                    break;
                };
                let found = digest_of(&span, &numbers);
                if found != digest {
                    break;
                }
                writer.spans.push(span_of(&span));
                writer.digests.push(found);
            }
        }
        writer.truncate(writer.spans.len())?;
        writer
            .part
            .write_all_at(&header, 0)
            .map_err(|e| disk::refused(WHAT, e))?;
        Ok(writer)
    }

    /// Takes the quota for `more` samples beyond those that are there, or gives back what is too
    /// much.
    fn note(&mut self, more: usize) -> Result<()> {
        let library = &self.held.library;
        let wanted = self.end(self.spans.len() + more);
        let counted = library.with_features(|features| features.bytes_of(&self.held.stem));
        if wanted > counted {
            library.make_room(wanted - counted)?;
        } else {
            library.quota().give_back(counted - wanted);
        }
        library.with_features(|features| {
            features.note(&self.clip, &self.held.stem, wanted, false);
        });
        Ok(())
    }

    fn end(&self, samples: usize) -> u64 {
        self.data_at + (samples * self.key.numbers() * 4) as u64
    }

    /// Where the samples that are there stand in the clip.
    pub fn spans(&self) -> &[SegmentSpan] {
        &self.spans
    }

    /// Features of a sample that is there.
    pub fn features(&self, sample: usize) -> Result<HeadFeatures> {
        let bytes = read_sample(&self.part, self.data_at, &self.key, sample)
            .map_err(|e| disk::refused("kept features could not be read", e))?;
        Ok(head_features(&self.key, &bytes))
    }

    /// Forgets the samples from this one on.
    pub fn truncate(&mut self, samples: usize) -> Result<()> {
        let refused = |e| disk::refused(WHAT, e);
        self.spans.truncate(samples);
        self.digests.truncate(samples);
        self.part
            .set_len(self.end(self.spans.len()))
            .map_err(refused)?;
        self.journal
            .set_len((self.spans.len() * ENTRY) as u64)
            .map_err(refused)?;
        self.note(0)
    }

    /// Appends a sample.
    ///
    /// Fails with `ResourceExhausted` where the quota or the disk is full, or past
    /// [`limits::KEPT_SAMPLES_MAX`] samples.
    pub fn push(&mut self, span: SegmentSpan, features: &HeadFeatures) -> Result<()> {
        let refused = |e| disk::refused(WHAT, e);
        let at = self.spans.len();
        if at >= limits::KEPT_SAMPLES_MAX {
            return Err(Error::exhausted(format!(
                "the clip has more than {} samples: cut it into shorter ones",
                limits::KEPT_SAMPLES_MAX
            ))
            .for_good());
        }
        if features.data.len() != self.key.numbers() {
            return Err(Error::internal(format!(
                "a sample has {} numbers instead of {}",
                features.data.len(),
                self.key.numbers()
            )));
        }
        self.note(1)?;
        let numbers: Vec<u8> = features
            .data
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        let span_now = span_bytes(&span);
        let digest = digest_of(&span_now, &numbers);
        let written = self
            .part
            .write_all_at(&numbers, self.end(at))
            .and_then(|()| {
                let entry = [&span_now[..], &digest].concat();
                self.journal.write_all_at(&entry, (at * ENTRY) as u64)
            });
        if let Err(error) = written {
            self.truncate(at)?;
            return Err(refused(error));
        }
        self.spans.push(span);
        self.digests.push(digest);
        Ok(())
    }

    /// The clip has no more samples: makes the set whole.
    pub fn finish(self, frames: u64) -> Result<()> {
        let refused = |e| disk::refused(WHAT, e);
        let samples = self.spans.len();
        if samples == 0 {
            return Err(Error::internal("features of no sample cannot be kept"));
        }
        let spans: Vec<u8> = self.spans.iter().flat_map(span_bytes).collect();
        let tail = [spans, self.digests.concat()].concat();
        let end = self.end(samples) + tail.len() as u64;
        self.held.library.make_room(tail.len() as u64)?;
        self.held.library.with_features(|features| {
            features.note(&self.clip, &self.held.stem, end, false);
        });
        self.part
            .write_all_at(&tail, self.end(samples))
            .map_err(refused)?;
        let header = Header::bytes(&self.key, Some((samples, frames)))?;
        self.part.write_all_at(&header, 0).map_err(refused)?;
        self.part.sync_all().map_err(refused)?;
        let whole = self.held.path(WHOLE);
        fs::rename(self.held.path(PART), &whole).map_err(refused)?;
        files::sync_folder(files::folder_of(&whole)).map_err(refused)?;
        disk::remove(&self.held.path(JOURNAL));
        self.held.library.with_features(|features| {
            features.note(&self.clip, &self.held.stem, end, true);
        });
        Ok(())
    }
}
