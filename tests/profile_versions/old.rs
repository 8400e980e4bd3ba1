//! What the release before versions reads, frozen: `DIR/NAME.json` of schema 1, with its checksum.

use std::{fmt::Write as _, fs, path::Path};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The names that it lists.
pub fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "json"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// The checksum of the profile that it loads by a name, or why it does not.
pub fn read(directory: &Path, name: &str) -> Result<String, String> {
    let path = directory.join(format!("{name}.json"));
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let value: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let mut keys: Vec<&String> = value.as_object().ok_or("no object")?.keys().collect();
    keys.sort();
    if keys != ["checksum", "profile"] {
        return Err(format!("keys {keys:?}"));
    }
    let profile = &value["profile"];
    if profile["schema"] != 1 {
        return Err(format!("schema {}", profile["schema"]));
    }
    let mut keys: Vec<&String> = profile.as_object().ok_or("no profile")?.keys().collect();
    keys.sort();
    let known = [
        "created_unix_s",
        "frames_per_segment",
        "heads",
        "hunt_prompts",
        "locator",
        "model",
        "name",
        "notes",
        "schema",
        "scorer",
        "scoring_prompts",
        "segment",
    ];
    if keys != known {
        return Err(format!("keys {keys:?}"));
    }
    if profile["name"] != name {
        return Err(format!("is named {}", profile["name"]));
    }
    let mut canonical = String::new();
    write(profile, &mut canonical);
    let digest = Sha256::digest(canonical.as_bytes());
    let checksum = digest.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    if value["checksum"] != format!("sha256:{checksum}") {
        return Err("checksum".into());
    }
    Ok(checksum)
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (number, (key, value)) in entries.into_iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                let _ = write!(out, "{}:", Value::from(key.as_str()));
                write(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        scalar => {
            let _ = write!(out, "{scalar}");
        }
    }
}
