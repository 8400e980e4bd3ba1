//! Failed attempts leave nothing behind. The counting is done in a process of its own, since the
//! other tests open sockets too.

use std::process::Command;

use headhunt::rtsp::{FailureKind, Url};
use tokio::{net::TcpListener, runtime::Handle};

use crate::rtsp_support::{Act, Camera, client, end, tcp, udp, until, within};

#[test]
fn a_thousand_failed_attempts_leave_nothing_behind() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "leaks::a_thousand_attempts",
            "--ignored",
            "--test-threads=1",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("1 passed"), "{text}");
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test]
#[ignore = "run by a_thousand_failed_attempts_leave_nothing_behind"]
async fn a_thousand_attempts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = format!("rtsp://{}/live", listener.local_addr().unwrap());
    let closed = Url::parse(&closed).unwrap();
    drop(listener);
    let refusing = |method: &'static str, status: &'static str| {
        Camera::new(move |seen| (seen.method == method).then(|| seen.says(status, ""))?)
    };
    let not_found = refusing("DESCRIBE", "404 Not Found").await;
    let unsupported = refusing("SETUP", "461 Unsupported Transport").await;
    let garbage = Camera::new(|_| Some(vec![Act::Send(b"\0\0\0".to_vec())])).await;
    let mute = Camera::new(|seen| (seen.method == "PLAY").then(Vec::new)).await;
    let resets = Camera::new(|seen| (seen.method == "SETUP").then(|| vec![Act::Reset])).await;
    let ordinary = Camera::ordinary().await;
    let cameras = [
        &not_found,
        &unsupported,
        &garbage,
        &mute,
        &resets,
        &ordinary,
    ];

    // Timeouts of 10 ms, long ones where something is to succeed first.
    let (fast, slow) = (client(1000), client(1));
    let (mut descriptors_before, mut tasks_before) = (0, 0);
    for attempt in 0..1008 {
        if attempt == 8 {
            // Whatever is opened once is open now: the runtime's own, each camera's listener.
            until("quiet", || {
                cameras
                    .iter()
                    .all(|c| c.open.load(std::sync::atomic::Ordering::SeqCst) == 0)
            })
            .await;
            descriptors_before = descriptors();
            tasks_before = Handle::current().metrics().num_alive_tasks();
        }
        let access = if attempt % 16 < 8 { tcp() } else { udp() };
        let open = async |camera: &Camera, kind| {
            let failure = within(slow.open(&camera.url("/live"), &access))
                .await
                .unwrap_err();
            assert_eq!(failure.kind, kind, "{failure}");
        };
        match attempt % 8 {
            0 => {
                let failure = within(slow.open(&closed, &access)).await.unwrap_err();
                assert_eq!(failure.kind, FailureKind::Refused);
            }
            1 => open(&not_found, FailureKind::NotFound).await,
            2 => open(&unsupported, FailureKind::Protocol).await,
            3 => open(&garbage, FailureKind::Protocol).await,
            4 => {
                let failure = within(fast.open(&mute.url("/live"), &access))
                    .await
                    .unwrap_err();
                assert_eq!(failure.kind, FailureKind::Timeout);
            }
            5 => open(&resets, FailureKind::Reset).await,
            6 => {
                let mut session = within(slow.open(&ordinary.url("/live"), &access))
                    .await
                    .unwrap();
                ordinary.act(Act::Close);
                end(&mut session).await;
            }
            // Given up in the middle.
            _ => {
                let url = mute.url("/live");
                tokio::select! {
                    _ = slow.open(&url, &access) => panic!("nobody answers"),
                    () = tokio::time::sleep(std::time::Duration::from_millis(1)) => {}
                }
            }
        }
    }
    until("quiet", || {
        cameras
            .iter()
            .all(|c| c.open.load(std::sync::atomic::Ordering::SeqCst) == 0)
    })
    .await;
    assert_eq!(descriptors(), descriptors_before);
    assert_eq!(Handle::current().metrics().num_alive_tasks(), tasks_before);
}
