//! The binary: settings that are looked at, listeners that are refused, tokens that are made, and the
//! command line against a server with TLS and tokens.

use std::{
    fs,
    process::{Command, Output},
};

use headhunt::{
    access::{Book, Role},
    config::DEFAULTS,
};

use super::site::{Site, held, token};
use crate::common::server::TestServer;

fn headhunt() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headhunt"));
    for (name, _) in std::env::vars() {
        if name.starts_with("HEADHUNT__") {
            command.env_remove(name);
        }
    }
    command
}

fn text(output: &Output) -> (bool, String, String) {
    let utf8 = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.success(),
        utf8(&output.stdout),
        utf8(&output.stderr),
    )
}

fn check(toml: &str) -> (bool, String, String) {
    check_with(toml, &[])
}

fn check_with(toml: &str, more: &[&str]) -> (bool, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("site.toml");
    fs::write(&file, toml).unwrap();
    let mut command = headhunt();
    command.args(["config", "check", "--config"]).arg(&file);
    command.args(more);
    text(&command.output().unwrap())
}

#[test]
fn config_check_says_yes_or_names_the_key() {
    let (good, out, err) = check("[engine]\nmax_batch_segments = 2");
    assert!(good && out == "the settings can be used\n", "{out}{err}");
    // They are in order, but a server would not start with them here.
    assert!(err.contains("no model: set model.path"), "{err}");
    assert!(err.contains("no profile: set profiles.file"), "{err}");
    for (toml, missing) in [
        ("[model]\npath = '/nowhere/model'", "/nowhere/model"),
        (
            "[profiles]\nfile = '/nowhere/cam.json'",
            "/nowhere/cam.json",
        ),
        ("[profiles]\ndir = '/nowhere'\nactive = 'cam'", "/nowhere"),
        ("[video]\nspool_dir = '/nowhere'", "video.spool_dir"),
    ] {
        let (good, _, err) = check(toml);
        assert!(good && err.contains(missing), "{toml}: {err}");
        let (good, out, err) = check_with(toml, &["--strict"]);
        assert!(
            !good && out.is_empty() && err.contains(missing),
            "{toml}: {err}"
        );
    }
    let calibrates =
        "[model]\npath = 'a/b'\n[profiles]\ndir = '/nowhere'\n[admin]\ndir = '/nowhere'";
    let (good, out, err) = check_with(calibrates, &["--strict"]);
    assert!(
        good && out == "the settings can be used\n" && err.is_empty(),
        "{out}{err}"
    );
    for (toml, key) in [
        ("[engine]\nmax_bach = 2", "`engine.max_bach`"),
        (
            "[engine]\nmax_batch_segments = 65",
            "engine.max_batch_segments",
        ),
        ("[log]\nlevel = 'headhunt=loud'", "log.level"),
        ("[sources]\nallow = ['10.0.0.1/8']", "10.0.0.0/8"),
        (
            "[server]\ntoken_file = '/nowhere/tokens.toml'",
            "/nowhere/tokens.toml",
        ),
        (
            "[server]\ntls_cert_file = '/nowhere/cert.pem'",
            "server.tls_key_file",
        ),
        ("[server", "site.toml"),
    ] {
        let (good, out, err) = check(toml);
        assert!(
            !good && out.is_empty() && err.contains(key),
            "{toml}: {err}"
        );
    }
}

#[test]
fn every_section_refuses_unknown_keys_and_every_key_another_type() {
    use headhunt::config::{Environment, Overrides, Settings};
    let refusal = |toml: &str| {
        let file = Some((toml, "site.toml"));
        let environment = Environment::default();
        let loaded = Settings::from_layers(file, &environment, &Overrides::default());
        loaded.expect_err(toml).to_string()
    };
    let mut section = "";
    let mut keys = 0;
    for line in DEFAULTS.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
            let message = refusal(&format!("[{section}]\nno_such_key = 1"));
            assert!(
                message.contains(&format!("`{section}.no_such_key`")),
                "{message}"
            );
        } else if let Some((key, default)) = line.split_once(" = ") {
            keys += 1;
            let other = match default.as_bytes()[0] {
                b'"' => "['a', 'b']",
                b'[' => "[[1], [2]]",
                _ => "'perhaps'",
            };
            let message = refusal(&format!("[{section}]\n{key} = {other}"));
            assert!(message.contains(&format!("{section}.{key}")), "{message}");
        }
    }
    assert!(keys > 50, "{keys}");
}

#[test]
fn config_print_gives_the_effective_settings_and_their_origins() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("site.toml");
    fs::write(
        &file,
        "[engine]\nbatch_wait_s = 0.5\n[model]\npath = 'https://ann:pw@hub/m'",
    )
    .unwrap();
    let mut command = headhunt();
    command
        .args(["config", "print", "--device", "cpu", "--config"])
        .arg(&file)
        .env("HEADHUNT__STREAMS__MAX_STREAMS", "9");
    let (good, out, err) = text(&command.output().unwrap());
    assert!(good, "{err}");
    for line in [
        format!("batch_wait_s = 0.5  # {}", file.display()),
        "max_streams = 9  # HEADHUNT__STREAMS__MAX_STREAMS".into(),
        "device = \"cpu\"  # command line".into(),
    ] {
        assert!(out.lines().any(|l| l == line), "{line}\n{out}");
    }
    assert!(!out.contains("ann:pw"), "{out}");
    fs::write(&file, &out).unwrap();
    assert!(check(&out).0);
}

#[test]
fn a_listener_beyond_this_machine_needs_tls_and_authentication_or_the_word_insecure() {
    let site = Site::new();
    site.write_tokens(&held("a", &[Role::Detect], false));
    let there = |toml: &str| check(&format!("{toml}\n[server]\nlisten = '0.0.0.0:50051'"));
    let (good, _, err) = there("");
    assert!(
        !good && err.contains("server.listen") && err.contains("server.insecure"),
        "{err}"
    );
    let inside = |flags: (bool, bool, bool)| {
        let toml = site.toml(flags.0, flags.1, flags.2);
        check(&format!(
            "{toml}server.listen = '[::]:50051'\nserver.metrics_listen = '10.0.0.1:1'"
        ))
    };
    for (flags, good) in [
        ((true, true, false), true),
        ((true, false, true), true),
        ((true, true, true), true),
        ((true, false, false), false),
        ((false, true, false), false),
        ((false, false, false), false),
    ] {
        let (passed, _, err) = inside(flags);
        assert_eq!(passed, good, "{flags:?}: {err}");
    }
    assert!(check("server.listen = '0.0.0.0:1'\nserver.insecure = true").0);
    let (good, _, err) = check("server.metrics_listen = '0.0.0.0:1'");
    assert!(!good && err.contains("server.metrics_listen"), "{err}");
    for here in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert!(check(&format!("server.listen = '{here}'")).0, "{here}");
    }
    // It is `serve` that matters.
    let (good, _, err) = text(
        &headhunt()
            .args(["serve", "--listen", "0.0.0.0:0"])
            .output()
            .unwrap(),
    );
    assert!(!good && err.contains("server.insecure"), "{err}");
}

#[test]
fn a_token_is_printed_once_and_its_entry_has_its_digest_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens.toml");
    let new = |name: &str, more: &[&str]| {
        let mut command = headhunt();
        command.args(["token", "new", "--name", name]).args(more);
        text(&command.output().unwrap())
    };
    let append = file.to_str().unwrap();
    let (good, first, err) = new("gateway", &["--roles", "detect", "--append", append]);
    assert!(good, "{err}");
    let more = [
        "--roles",
        "admin,observe",
        "--expires",
        "2099-01-01T00:00:00Z",
    ];
    let (good, second, entry) = new("ann", &more);
    assert!(good, "{entry}");
    let all = fs::read_to_string(&file).unwrap() + &entry;
    let book = Book::parse(all.as_bytes()).unwrap();
    let now = std::time::SystemTime::now();
    for (out, name) in [(&first, "gateway"), (&second, "ann")] {
        let token = out.trim_end();
        assert!(!all.contains(token));
        assert_eq!(book.find(token, now).unwrap().name, name);
    }
    for (name, more) in [
        ("a b", &["--roles", "detect"][..]),
        ("a", &["--roles", "root"]),
        ("a", &["--roles", "detect", "--expires", "soon"]),
    ] {
        assert!(!new(name, more).0, "{name} {more:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_speaks_tls_with_a_token_and_a_certificate() {
    let site = Site::new();
    site.write_tokens(&held("ann", &[Role::Admin], false));
    fs::write(site.path("token"), token("ann") + "\n").unwrap();
    let (certificate, key) = site.authority.sign(false);
    fs::write(site.path("client.pem"), certificate).unwrap();
    fs::write(site.path("client.key"), key).unwrap();
    let server = TestServer::start(&site.toml(true, true, true)).await;
    let url = format!("https://localhost:{}", server.address.port());
    let path = |name: &str| site.path(name).display().to_string();
    let all = [
        ("--ca", path("ca.pem")),
        ("--token-file", path("token")),
        ("--cert", path("client.pem")),
        ("--key", path("client.key")),
    ];
    let list = |url: &str, without: &[&str]| {
        let mut command = headhunt();
        command.args(["admin", "--server", url]);
        for (flag, value) in all.iter().filter(|(flag, _)| !without.contains(flag)) {
            command.args([flag, value.as_str()]);
        }
        command.args(["profiles", "list"]);
        tokio::task::spawn_blocking(move || text(&command.output().unwrap()))
    };
    let (good, out, err) = list(&url, &[]).await.unwrap();
    assert!(good && out.contains("cam"), "{out}{err}");
    for (without, word) in [
        (&["--token-file"][..], "credentials"),
        (&["--ca"], ""),
        (&["--cert", "--key"], ""),
    ] {
        let (good, out, err) = list(&url, without).await.unwrap();
        assert!(!good && err.contains(word), "{without:?}: {out}{err}");
    }
    let all_but_token = &["--ca", "--cert", "--key"];
    let (good, _, err) = list("http://10.0.0.9:50051", all_but_token).await.unwrap();
    assert!(!good && err.contains("plain text"), "{err}");
    server.stop().await;
}
