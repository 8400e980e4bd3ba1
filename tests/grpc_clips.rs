//! Labelled clips through the wire: what is stored, what is refused, what a client that leaves and a
//! server that stops leave behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may

mod common;

use std::{fs, io, path::Path};

use common::{
    admin::{Admin, chunk, open, send, start, upload, wire},
    eventually,
    media::video,
};
use headhunt::rpc::proto::{self, ClipLabel, UploadClipRequest};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

fn field(status: &Status) -> Option<String> {
    let details = status.get_error_details();
    let violation = details.bad_request()?.field_violations.first()?;
    Some(violation.field.clone())
}

fn refused(status: Status, code: Code, with_field: &str) -> String {
    assert_eq!(status.code(), code, "{status:?}");
    assert_eq!(field(&status).as_deref(), Some(with_field), "{status:?}");
    status.message().to_owned()
}

/// Names of the stored files; none before the folder is made.
fn files(dir: &Path) -> Vec<String> {
    let entries = match fs::read_dir(dir.join("admin/clips")) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(e) => panic!("{e}"),
    };
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

async fn list(client: &mut Admin, page_size: u32, page_token: &str) -> proto::ListClipsResponse {
    let request = proto::ListClipsRequest {
        page_size,
        page_token: page_token.into(),
    };
    client.list_clips(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clip_is_stored_once_and_relabelled_and_deleted_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = start(dir.path(), "").await;
    let bytes = video(&[7; 1000]);
    let id = upload(
        &mut client,
        "yard",
        ClipLabel::Anomaly,
        &[(50, 60), (0, 10), (5, 20)],
        &bytes,
    )
    .await;
    let digest: String = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(id, digest);
    assert_eq!(
        fs::read(dir.path().join("admin/clips").join(&id)).unwrap(),
        bytes
    );

    // The same bytes again: the stored clip, whatever the name; another label is a conflict.
    let again =
        |label, intervals: &[(u64, u64)]| vec![open("other name", label, intervals), chunk(&bytes)];
    let stored = send(&mut client, again(ClipLabel::Anomaly, &[(0, 20), (50, 60)]))
        .await
        .unwrap();
    assert!(stored.already_stored);
    let clip = stored.clip.unwrap();
    assert_eq!((clip.name.as_str(), clip.size_bytes), ("yard", 1004));
    assert_eq!(clip.anomalous, wire(&[(0, 20), (50, 60)]), "sorted, merged");
    for (label, intervals) in [
        (ClipLabel::Anomaly, &[(0, 21)][..]),
        (ClipLabel::Normal, &[]),
    ] {
        let status = send(&mut client, again(label, intervals))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::AlreadyExists, "{status:?}");
    }
    assert_eq!(files(dir.path()), [id.clone(), format!("{id}.json")]);
    let listed = list(&mut client, 0, "").await;
    assert_eq!((listed.clips.len(), listed.stored_bytes), (1, 1004));

    let relabelled = client
        .relabel_clip(proto::RelabelClipRequest {
            id: id.clone(),
            label: ClipLabel::Normal.into(),
            anomalous: vec![],
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(relabelled.clip.unwrap().label(), ClipLabel::Normal);
    server.stop().await;

    // What a crash may leave: an upload under way, bytes without a record.
    let clips = dir.path().join("admin/clips");
    fs::write(clips.join(".tmp-left"), b"half").unwrap();
    fs::write(clips.join("ab".repeat(32)), b"orphan").unwrap();
    let (server, mut client) = start(dir.path(), "").await;
    let listed = list(&mut client, 0, "").await;
    assert_eq!((listed.clips.len(), listed.stored_bytes), (1, 1004));
    assert_eq!(files(dir.path()), [id.clone(), format!("{id}.json")]);
    let got = client
        .get_clip(proto::GetClipRequest { id: id.clone() })
        .await
        .unwrap()
        .into_inner()
        .clip
        .unwrap();
    assert_eq!(got.label(), ClipLabel::Normal);
    assert_eq!(got.anomalous, []);

    client
        .delete_clip(proto::DeleteClipRequest { id: id.clone() })
        .await
        .unwrap();
    assert_eq!(files(dir.path()), Vec::<String>::new());
    assert_eq!(list(&mut client, 0, "").await.stored_bytes, 0);
    for status in [
        client
            .get_clip(proto::GetClipRequest { id: id.clone() })
            .await
            .unwrap_err(),
        client
            .delete_clip(proto::DeleteClipRequest { id: id.clone() })
            .await
            .unwrap_err(),
        client
            .relabel_clip(proto::RelabelClipRequest {
                id: "../../etc/passwd".into(),
                label: ClipLabel::Normal.into(),
                anomalous: vec![],
            })
            .await
            .unwrap_err(),
    ] {
        refused(status, Code::NotFound, "id");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_the_order_of_storing() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = start(dir.path(), "").await;
    let mut ids = Vec::new();
    for n in 0..5u8 {
        let name = format!("clip {n}");
        ids.push(upload(&mut client, &name, ClipLabel::Normal, &[], &video(&[n; 10])).await);
    }
    let mut seen = Vec::new();
    let mut token = String::new();
    for size in [2, 2, 1] {
        let page = list(&mut client, 2, &token).await;
        assert_eq!(page.clips.len(), size);
        seen.extend(page.clips.into_iter().map(|clip| clip.id));
        token = page.next_page_token;
    }
    assert_eq!((seen, token.as_str()), (ids.clone(), ""));
    // A clip that is gone does not disturb the page after it.
    let page = list(&mut client, 2, "").await;
    client
        .delete_clip(proto::DeleteClipRequest { id: ids[1].clone() })
        .await
        .unwrap();
    let next = list(&mut client, 2, &page.next_page_token).await;
    assert_eq!(next.clips[0].id, ids[2]);
    for (page_size, page_token, name) in [(1001, "", "page_size"), (1, "nonsense", "page_token")] {
        let status = client
            .list_clips(proto::ListClipsRequest {
                page_size,
                page_token: page_token.into(),
            })
            .await
            .unwrap_err();
        refused(status, Code::InvalidArgument, name);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_uploads_are_refused_by_field_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = start(
        dir.path(),
        "admin.clip_max_bytes = 100\nadmin.quota_bytes = 150",
    )
    .await;
    let good = || open("a", ClipLabel::Normal, &[]);
    let cases: Vec<(Vec<UploadClipRequest>, Code, &str)> = vec![
        (vec![], Code::InvalidArgument, "open"),
        (vec![chunk(b"x")], Code::InvalidArgument, "open"),
        (
            vec![UploadClipRequest::default()],
            Code::InvalidArgument,
            "open",
        ),
        (vec![good(), good()], Code::InvalidArgument, "open"),
        (
            vec![good(), UploadClipRequest::default()],
            Code::InvalidArgument,
            "chunk",
        ),
        (vec![good()], Code::InvalidArgument, "chunk"),
        (
            vec![open(&"n".repeat(257), ClipLabel::Normal, &[])],
            Code::InvalidArgument,
            "open.name",
        ),
        (
            vec![open("a", ClipLabel::Unspecified, &[])],
            Code::InvalidArgument,
            "open.label",
        ),
        (
            vec![open("a", ClipLabel::Normal, &[(0, 1)])],
            Code::InvalidArgument,
            "open.anomalous",
        ),
        (
            vec![open("a", ClipLabel::Anomaly, &[(5, 5)])],
            Code::InvalidArgument,
            "open.anomalous",
        ),
        (
            vec![good(), chunk(&vec![0; (4 << 20) + 1])],
            Code::InvalidArgument,
            "chunk",
        ),
    ];
    for (requests, code, name) in cases {
        let status = send(&mut client, requests).await.unwrap_err();
        refused(status, code, name);
    }
    let status = send(&mut client, vec![good(), chunk(&[0; 101])])
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("admin.clip_max_bytes = 100"));
    send(&mut client, vec![good(), chunk(&[1; 90])])
        .await
        .unwrap();
    let status = send(&mut client, vec![good(), chunk(&[2; 30]), chunk(&[2; 31])])
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("admin.quota_bytes = 150"));
    // What was refused gave its bytes back.
    send(&mut client, vec![good(), chunk(&[3; 60])])
        .await
        .unwrap();
    let listed = list(&mut client, 0, "").await;
    assert_eq!((listed.stored_bytes, listed.quota_bytes), (150, 150));
    assert_eq!(files(dir.path()).len(), 4);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = start(dir.path(), "").await;
    // On a runtime of its own, so that all of the client can vanish at once.
    let elsewhere = tokio::runtime::Runtime::new().unwrap();
    let endpoint = server.endpoint();
    elsewhere.spawn(async move {
        let (requests, received) = mpsc::channel(4);
        for request in [open("a", ClipLabel::Normal, &[]), chunk(&[1; 1000])] {
            requests.send(request).await.unwrap();
        }
        let mut client = Admin::new(endpoint.connect().await.unwrap());
        let _ = client.upload_clip(ReceiverStream::new(received)).await;
        drop(requests);
    });
    eventually("a temporary file", || async {
        files(dir.path()).len() == 1
    })
    .await;
    elsewhere.shutdown_background();
    eventually("no file", || async { files(dir.path()).is_empty() }).await;
    let mut client = client;
    eventually("no bytes", || {
        let mut client = client.clone();
        async move { list(&mut client, 0, "").await.stored_bytes == 0 }
    })
    .await;
    upload(&mut client, "a", ClipLabel::Normal, &[], &[1; 1000]).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_imported_below_the_roots_alone() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("footage");
    let outside = dir.path().join("private");
    for folder in [&root, &outside] {
        fs::create_dir_all(folder.join("sub")).unwrap();
    }
    fs::write(root.join("sub/a.raw"), video(&[9; 20])).unwrap();
    fs::write(root.join("b.raw"), video(&[8; 20])).unwrap();
    fs::write(outside.join("c.raw"), video(&[7; 20])).unwrap();
    std::os::unix::fs::symlink(outside.join("c.raw"), root.join("link.raw")).unwrap();
    let write = |folder: &Path, rows: &str| {
        let path = folder.join("clips.csv");
        fs::write(&path, format!("video,label,start_frame,end_frame\n{rows}")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (server, mut client) = start(
        dir.path(),
        &format!("admin.import_roots = ['{}']", root.display()),
    )
    .await;
    let manifest = write(
        &root,
        "sub/a.raw,anomaly,2,5\nb.raw,normal,,\nsub/a.raw,anomaly,9,12\n",
    );
    for already in [0, 2] {
        let request = proto::ImportClipsRequest {
            manifest: manifest.clone(),
        };
        let stored = client.import_clips(request).await.unwrap().into_inner();
        assert_eq!(stored.already_stored, already);
        let names: Vec<&str> = stored.clips.iter().map(|clip| clip.name.as_str()).collect();
        assert_eq!(names, ["sub/a.raw", "b.raw"]);
        assert_eq!(stored.clips[0].anomalous, wire(&[(2, 5), (9, 12)]));
        assert_eq!(stored.clips[1].label(), ClipLabel::Normal);
    }
    assert_eq!(files(dir.path()).len(), 4);

    let mut import = async |manifest: String| {
        let request = proto::ImportClipsRequest { manifest };
        client.import_clips(request).await.unwrap_err()
    };
    for (folder, rows, code) in [
        (&outside, "c.raw,normal\n", Code::PermissionDenied),
        (
            &root,
            "b.raw,normal\nlink.raw,normal\n",
            Code::PermissionDenied,
        ),
        (&root, "../private/c.raw,normal\n", Code::PermissionDenied),
        (&root, "none.raw,normal\n", Code::PermissionDenied),
        (&root, "b.raw,perhaps\n", Code::InvalidArgument),
    ] {
        let manifest = write(folder, rows);
        let message = refused(import(manifest).await, code, "manifest");
        assert!(!message.contains("private"), "{message}");
    }
    for (manifest, code) in [
        (
            format!("{}/../private/clips.csv", root.display()),
            Code::PermissionDenied,
        ),
        ("clips.csv".to_owned(), Code::InvalidArgument),
    ] {
        refused(import(manifest).await, code, "manifest");
    }
    assert_eq!(files(dir.path()).len(), 4, "nothing more was stored");
    server.stop().await;

    let other = tempfile::tempdir().unwrap();
    let (server, mut client) = start(other.path(), "").await;
    let request = proto::ImportClipsRequest { manifest };
    let status = client.import_clips(request).await.unwrap_err();
    let message = refused(status, Code::FailedPrecondition, "manifest");
    assert!(message.contains("admin.import_roots"));
    server.stop().await;
}
