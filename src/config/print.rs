//! The effective settings as a TOML document.

use std::collections::HashMap;

use config::{Value, ValueKind};

use super::DEFAULTS;

/// Every key of [`DEFAULTS`] in its order with its value of `root`, as the type that it has there, so
/// that what an environment variable gave as text reads like a file's.
pub(super) fn document(root: &Value, origins: &HashMap<String, String>) -> String {
    let mut out = String::new();
    let mut section = String::new();
    for line in DEFAULTS.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            if !section.is_empty() {
                out.push('\n');
            }
            name.clone_into(&mut section);
            out += line;
            out.push('\n');
            continue;
        }
        let Some((key, default)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let path = format!("{section}.{key}");
        let value = value_at(root, &section, key).map_or_else(String::new, |v| shown(v, default));
        out += &format!("{key} = {value}");
        if let Some(origin) = origins.get(&path) {
            out += &format!("  # {}", origin.replace(char::is_control, " "));
        }
        out.push('\n');
    }
    out
}

fn value_at<'a>(root: &'a Value, section: &str, key: &str) -> Option<&'a Value> {
    let ValueKind::Table(sections) = &root.kind else {
        return None;
    };
    let ValueKind::Table(keys) = &sections.get(section)?.kind else {
        return None;
    };
    keys.get(key)
}

/// A value in TOML, of the type of this default.
fn shown(value: &Value, default: &str) -> String {
    match &value.kind {
        ValueKind::Array(entries) => list(entries.iter().map(plain)),
        _ if default.starts_with('[') => {
            let text = plain(value);
            let entries = text.split(',').map(str::trim).filter(|e| !e.is_empty());
            list(entries.map(str::to_owned))
        }
        _ if default.starts_with('"') => quoted(&plain(value)),
        _ if matches!(default, "true" | "false") => {
            let truth = value.clone().into_bool();
            truth.map_or_else(|_| plain(value), |truth| truth.to_string())
        }
        // A variable's `.5` is a number to us, but not to TOML.
        ValueKind::String(text) => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(number), _) => number.to_string(),
            (_, Ok(number)) => format!("{number:?}"),
            _ => quoted(text),
        },
        _ => plain(value),
    }
}

fn list(entries: impl Iterator<Item = String>) -> String {
    let entries: Vec<String> = entries.map(|entry| quoted(&entry)).collect();
    format!("[{}]", entries.join(", "))
}

fn plain(value: &Value) -> String {
    match &value.kind {
        ValueKind::Float(number) => format!("{number:?}"),
        _ => value.to_string(),
    }
}

/// A TOML string without what may be a password.
fn quoted(text: &str) -> String {
    // A string of JSON is one of TOML too.
    serde_json::Value::from(without_credentials(text)).to_string()
}

/// The text with the user name and password of an address replaced.
fn without_credentials(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let authority = rest.find('/').map_or(rest, |end| &rest[..end]);
    match authority.rfind('@') {
        Some(at) => format!("{scheme}://…{}", &rest[at..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Environment, Overrides, Settings, load::layered};
    use super::*;

    fn printed(
        file: &str,
        variables: &[(&str, &str)],
        overrides: &Overrides,
    ) -> (Settings, String) {
        let environment = Environment::of(
            variables
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
        );
        let layered = layered(Some((file, "site.toml")), &environment, overrides).unwrap();
        let text = document(&layered.root, &layered.origins);
        (layered.settings, text)
    }

    fn again(text: &str) -> Settings {
        let origin = Some((text, "printed"));
        Settings::from_layers(origin, &Environment::default(), &Overrides::default()).unwrap()
    }

    #[test]
    fn what_is_printed_loads_to_the_same_settings_and_says_where_values_came_from() {
        let file = "[sources]\nschemes = ['rtsp', 'file']\nfile_roots = ['/srv/a b', '/srv/\"q\"']\n\
                    [engine]\nbatch_wait_s = 0.1\n[shutdown]\ngrace_s = 5";
        let variables = [
            ("HEADHUNT__ENGINE__QUEUE_CAPACITY_SEGMENTS", "7"),
            ("HEADHUNT__ADMIN__IMPORT_ROOTS", "/x, /y"),
            ("HEADHUNT__SOURCES__ALLOW_INSECURE_TLS", "yes"),
            ("HEADHUNT__CAMERAS__MAX_DELAY_S", "9"),
            ("HEADHUNT__CAMERAS__CAPACITY_SHARE", ".5"),
            ("HEADHUNT__MODEL__PATH", "12"),
        ];
        let overrides = Overrides {
            device: Some("cpu".into()),
            ..Overrides::default()
        };
        let (settings, text) = printed(file, &variables, &overrides);
        assert_eq!(again(&text), settings, "{text}");
        for line in [
            "queue_capacity_segments = 7  # HEADHUNT__ENGINE__QUEUE_CAPACITY_SEGMENTS",
            "import_roots = [\"/x\", \"/y\"]  # HEADHUNT__ADMIN__IMPORT_ROOTS",
            "device = \"cpu\"  # command line",
            "batch_wait_s = 0.1  # site.toml",
            "path = \"12\"  # HEADHUNT__MODEL__PATH",
            "max_batch_segments = 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }

    #[test]
    fn every_key_of_the_defaults_is_printed() {
        let (settings, text) = printed("", &[], &Overrides::default());
        assert_eq!(again(&text), settings);
        let keys = |text: &str| -> Vec<String> {
            let lines = text
                .lines()
                .filter(|l| !l.is_empty() && !l.starts_with('#'));
            lines.map(str::to_owned).collect()
        };
        assert_eq!(keys(&text), keys(DEFAULTS));
    }

    #[test]
    fn passwords_in_addresses_are_not_printed() {
        let (_, text) = printed(
            "model.path = 'https://ann:secret@hub.example/a@b'",
            &[],
            &Overrides::default(),
        );
        assert!(!text.contains("secret") && !text.contains("ann"), "{text}");
        assert!(text.contains("https://…@hub.example/a@b"), "{text}");
    }
}
