use std::time::Duration;

use super::*;
use crate::config::{DeviceChoice, DtypeChoice, LogFormat, Scheme};

fn load(file: &str, variables: &[(&str, &str)], overrides: &Overrides) -> Result<Settings> {
    let environment = Environment::of(
        variables
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
    );
    Settings::from_layers(Some((file, "test.toml")), &environment, overrides)
}

fn refusal(file: &str, variables: &[(&str, &str)]) -> String {
    let error = load(file, variables, &Overrides::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument);
    error.to_string()
}

#[test]
fn defaults_stand_alone_and_agree_with_the_limits() {
    let settings = load("", &[], &Overrides::default()).unwrap();
    assert_eq!(settings.video.max_pixels, crate::limits::FRAME_MAX_PIXELS);
    assert_eq!(settings.video.max_side, crate::limits::FRAME_MAX_SIDE);
    assert_eq!(settings.model.path, None);
    assert_eq!(settings.model.device, DeviceChoice::Auto);
    assert_eq!(settings.model.dtype, DtypeChoice::Auto);
    assert_eq!(settings.model.threads, 0);
    assert!(settings.server.listen.ip().is_loopback());
    assert_eq!(settings.http2.keepalive_interval, Duration::from_secs(20));
    assert_eq!(settings.traces.endpoint, None);
    assert_eq!(
        settings.traces.queue_spans,
        crate::limits::TRACE_QUEUE_SPANS
    );
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let file = "[engine]\nmax_batch_segments = 2\nqueue_capacity_segments = 7\n[model]\npath = 'a'\n[log]\nformat = 'json'";
    let variables = [
        ("HEADHUNT__ENGINE__MAX_BATCH_SEGMENTS", "3"),
        ("HEADHUNT__ENGINE__BATCH_WAIT_S", "0.25"),
        ("HEADHUNT__MODEL__PATH", "123"),
        ("PATH", "/bin"),
    ];
    let overrides = Overrides {
        model: Some("c".into()),
        device: Some("cuda:1".into()),
        dtype: Some("bf16".into()),
        listen: Some("127.0.0.2:1".parse().unwrap()),
        ..Overrides::default()
    };
    let settings = load(file, &variables, &Overrides::default()).unwrap();
    assert_eq!(settings.engine.queue_capacity_segments, 7);
    assert_eq!(settings.engine.max_batch_segments, 3);
    assert_eq!(settings.engine.batch_wait, Duration::from_millis(250));
    assert_eq!(settings.model.path.as_deref(), Some("123"));
    assert_eq!(settings.log.format, LogFormat::Json);
    let settings = load(file, &variables, &overrides).unwrap();
    assert_eq!(settings.model.path.as_deref(), Some("c"));
    assert_eq!(settings.model.device, DeviceChoice::Cuda(1));
    assert_eq!(settings.model.dtype, DtypeChoice::Bf16);
    assert_eq!(settings.server.listen.port(), 1);
}

#[test]
fn a_profile_flag_replaces_the_directory() {
    let overrides = Overrides {
        profile: Some("p.json".into()),
        ..Overrides::default()
    };
    let file = "[profiles]\ndir = 'profiles'\nactive = 'cam'";
    let settings = load(file, &[], &overrides).unwrap();
    assert_eq!(settings.profiles.file.as_deref(), Some(Path::new("p.json")));
    assert_eq!(settings.profiles.dir, None);
}

#[test]
fn unknown_keys_are_refused_with_their_path_and_origin() {
    let message = refusal("[engine]\nmax_bach = 2", &[]);
    assert!(
        message.contains("`engine.max_bach`") && message.contains("test.toml"),
        "{message}"
    );
    let message = refusal("", &[("HEADHUNT__ENGINE__MAX_BACH", "2")]);
    assert!(
        message.contains("`engine.max_bach`") && message.contains("HEADHUNT__ENGINE__MAX_BACH"),
        "{message}"
    );
    let message = refusal("listen = '1'", &[]);
    assert!(message.contains("`listen`"), "{message}");
    let message = refusal("[egnine]", &[]);
    assert!(message.contains("egnine"), "{message}");
}

#[test]
fn nonsense_is_refused_with_the_key() {
    for (key, value) in [
        ("engine.queue_capacity_segments", "0"),
        ("engine.queue_capacity_segments", "'many'"),
        ("engine.queue_capacity_segments", "-1"),
        ("engine.max_batch_segments", "65"),
        ("engine.batch_wait_s", "-1.0"),
        ("engine.max_queue_wait_s", "nan"),
        ("engine.heartbeat_timeout_s", "inf"),
        ("server.listen", "'here'"),
        ("server.metrics_listen", "'9464'"),
        ("model.device", "'gpu'"),
        ("model.dtype", "'int8'"),
        ("model.threads", "513"),
        ("video.max_pixels", "67108865"),
        ("video.max_side_pixels", "8193"),
        ("video.spool_max_bytes", "1"),
        ("video.stall_timeout_s", "0"),
        ("admin.quota_bytes", "0"),
        ("admin.clip_max_bytes", "-1"),
        ("admin.jobs_kept", "1001"),
        ("streams.max_streams", "0"),
        ("streams.upload_buffer_bytes", "1"),
        ("streams.response_queue_messages", "0"),
        ("streams.slow_reader_timeout_s", "3601"),
        ("sources.schemes", "'gopher'"),
        ("sources.allow_insecure_tls", "'perhaps'"),
        ("sources.allow", "'10.0.0.1/8'"),
        ("sources.deny", "'http://cam'"),
        ("server.insecure", "'perhaps'"),
        ("server.reload_s", "0"),
        ("cameras.connect_timeout_s", "0"),
        ("cameras.silence_timeout_s", "0.1"),
        ("cameras.max_delay_s", "nan"),
        ("cameras.capacity_share", "-1.0"),
        ("feedback.ring_minutes", "121.0"),
        ("feedback.ring_minutes", "nan"),
        ("feedback.keep_after_end_s", "-1.0"),
        ("feedback.max_samples", "0"),
        ("http2.stream_window_bytes", "2147483648"),
        ("http2.keepalive_timeout_s", "0"),
        ("traces.endpoint", "'collector:4317'"),
        ("traces.endpoint", "'http://'"),
        ("traces.endpoint", "'https://ann:secret@collector:4317'"),
        ("traces.sample_ratio", "1.1"),
        ("traces.sample_ratio", "nan"),
        ("traces.queue_spans", "63"),
        ("traces.timeout_s", "0"),
        ("shutdown.grace_s", "'soon'"),
        ("log.format", "'xml'"),
    ] {
        let message = refusal(&format!("{key} = {value}"), &[]);
        assert!(message.contains(key), "{key} = {value}: {message}");
        let name = format!("HEADHUNT__{}", key.to_uppercase().replace('.', "__"));
        let message = refusal("", &[(&name, value.trim_matches('\''))]);
        assert!(message.contains(key), "{name}={value}: {message}");
    }
}

#[test]
fn only_a_gpu_may_be_told_to_resize() {
    let message = refusal("model.device = 'cpu'\nmodel.resize_on_device = true", &[]);
    assert!(message.contains("model.resize_on_device"), "{message}");
}

#[test]
fn lists_come_as_lists_or_with_commas() {
    let file = "sources.schemes = ['rtsps', 'file']\nsources.file_roots = ['/srv/a', '/srv/b']";
    let settings = load(file, &[], &Overrides::default()).unwrap();
    assert_eq!(settings.sources.schemes, [Scheme::Rtsps, Scheme::File]);
    let variables = [
        ("HEADHUNT__SOURCES__SCHEMES", "rtsp, file"),
        ("HEADHUNT__SOURCES__FILE_ROOTS", "/srv/clips"),
    ];
    let settings = load(file, &variables, &Overrides::default()).unwrap();
    assert_eq!(settings.sources.schemes, [Scheme::Rtsp, Scheme::File]);
    assert_eq!(
        settings.sources.file_roots,
        [std::path::Path::new("/srv/clips")]
    );
    assert!(refusal("sources.schemes = ['file']", &[]).contains("sources.file_roots"));
}

#[test]
fn a_profile_directory_needs_an_active_name_and_a_file_stands_alone() {
    assert!(refusal("profiles.dir = 'p'", &[]).contains("profiles.active"));
    assert!(refusal("profiles.dir = 'p'\nprofiles.file = 'f'", &[]).contains("profiles.file"));
}

#[test]
fn a_missing_file_and_broken_toml_are_named() {
    let error = Settings::load_from(
        Some(Path::new("/nowhere/headhunt.toml")),
        &Environment::default(),
        &Overrides::default(),
    )
    .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("/nowhere/headhunt.toml"));
    assert!(refusal("[engine\n", &[]).contains("test.toml"));
}

#[test]
fn every_key_of_the_defaults_is_explained() {
    // The default file is the documentation: a key without a comment above its group is none.
    let mut explained = false;
    for line in DEFAULTS.lines() {
        if line.starts_with('#') {
            explained = true;
        } else if line.is_empty() || line.starts_with('[') {
            explained = false;
        } else {
            assert!(explained, "no comment above `{line}`");
        }
    }
}

#[test]
fn a_server_that_calibrates_may_name_no_active_profile() {
    let message = refusal("profiles.dir = 'p'", &[]);
    assert!(message.contains("profiles.active"), "{message}");
    let file = "profiles.dir = 'p'\nadmin.dir = 'a'\nadmin.import_roots = ['/x', '/y']";
    let settings = load(file, &[], &Overrides::default()).unwrap();
    assert_eq!(settings.profiles.active, None);
    assert_eq!(settings.admin.dir.as_deref(), Some(Path::new("a")));
    assert_eq!(settings.admin.import_roots.len(), 2);
}
