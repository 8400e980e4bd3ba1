//! Each fault of the proxy does what it says: bytes at its client, from a real camera behind it.

use std::{
    io,
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use headhunt::video::camera::{Camera, CameraOptions};

use super::{
    camera_support::{
        Fault, FaultProxy,
        client::{Nothing, PATIENCE, RawClient},
        clips,
        wire::Rtp,
    },
    quiet,
};

/// Far more than the time between two pictures.
const LONG: Duration = Duration::from_millis(600);
/// Ticks between two pictures.
const STEP: u32 = 9000;

fn camera() -> (Camera, FaultProxy) {
    let camera = Camera::start(CameraOptions::new(clips::h264())).unwrap();
    let proxy = FaultProxy::start(camera.address());
    (camera, proxy)
}

/// A client that plays.
fn player(proxy: &FaultProxy) -> RawClient {
    let mut client = RawClient::connect(&proxy.url("/camera")).unwrap();
    client.play().unwrap();
    client.packets(2);
    client
}

/// Sets the fault and reads until a packet satisfies `wanted`; the packet before it, and it.
fn until(
    client: &mut RawClient,
    set: impl FnOnce(),
    wanted: impl Fn(&Rtp, &Rtp) -> bool,
) -> (Rtp, Rtp) {
    let begun = Instant::now();
    let mut before = client.packets(1).remove(0);
    set();
    while begun.elapsed() < PATIENCE {
        let packet = client.packets(1).remove(0);
        if wanted(&before, &packet) {
            return (before, packet);
        }
        before = packet;
    }
    panic!("it does not come");
}

#[test]
fn without_a_fault_everything_goes_through() {
    let _calm = quiet().read();
    let (_camera, proxy) = camera();
    let mut client = RawClient::connect(&proxy.url("/camera")).unwrap();
    let description = client.play().unwrap();
    assert!(description.contains("H264/90000"), "{description}");
    let packets = client.packets(10);
    for pair in packets.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
    }
    assert!(proxy.passed() >= 10);
    assert_eq!((proxy.accepted(), proxy.open(), proxy.touched()), (1, 1, 0));
}

#[test]
fn refuse_reset_and_eos_end_connections_each_in_its_way() {
    let _calm = quiet().read();
    let (_camera, proxy) = camera();
    let mut client = player(&proxy);
    proxy.set(Fault::Refuse);
    let refused = RawClient::connect(&proxy.url("/camera")).err().unwrap();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(ended(&mut client), Nothing::Reset);
    proxy.clear();

    let mut client = player(&proxy);
    proxy.set(Fault::Reset);
    assert_eq!(ended(&mut client), Nothing::Reset);
    if let Ok(mut client) = RawClient::connect(&proxy.url("/camera")) {
        // Whether the reset is there before the request or after.
        let e = client.request("OPTIONS", "", &[]).unwrap_err().kind();
        let reset = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        assert!(reset.contains(&e), "{e}");
    }
    proxy.clear();

    let mut client = player(&proxy);
    proxy.set(Fault::Eos);
    assert_eq!(ended(&mut client), Nothing::End);
    let mut client = RawClient::connect(&proxy.url("/camera")).unwrap();
    let e = client.request("OPTIONS", "", &[]).unwrap_err().kind();
    assert_eq!(e, io::ErrorKind::UnexpectedEof);
    proxy.clear();

    // The same for those that are open, and nobody else.
    let mut client = player(&proxy);
    proxy.strike(Fault::Reset);
    assert_eq!(ended(&mut client), Nothing::Reset);
    let mut client = player(&proxy);
    proxy.strike(Fault::Eos);
    assert_eq!(ended(&mut client), Nothing::End);
    player(&proxy);
}

/// How the connection ends.
fn ended(client: &mut RawClient) -> Nothing {
    loop {
        if let Err(end) = client.rtp(PATIENCE) {
            return end;
        }
    }
}

#[test]
fn describe_is_answered_with_the_status_that_was_asked_for() {
    let _calm = quiet().read();
    let (_camera, proxy) = camera();
    for status in [401, 404, 503] {
        proxy.set(Fault::Answer(status));
        let mut client = RawClient::connect(&proxy.url("/camera")).unwrap();
        assert_eq!(client.request("OPTIONS", "", &[]).unwrap().status(), 200);
        let answer = client.request("DESCRIBE", "", &[]).unwrap();
        assert_eq!(answer.status(), status);
        let challenged = answer.header("www-authenticate").is_some();
        assert_eq!(challenged, status == 401);
    }
    proxy.clear();
    player(&proxy);
}

#[test]
fn silence_stops_rtp_and_a_half_open_connection_everything() {
    let _calm = quiet().read();
    let (_camera, proxy) = camera();
    let mut client = player(&proxy);
    proxy.set(Fault::Silence);
    client.packets_for(Duration::from_millis(50));
    assert_eq!(client.rtp(LONG), Err(Nothing::Silence));
    assert_eq!(client.request("OPTIONS", "", &[]).unwrap().status(), 200);
    proxy.clear();
    client.packets(2);

    proxy.set(Fault::HalfOpen);
    client.packets_for(Duration::from_millis(50));
    assert_eq!(client.rtp(LONG), Err(Nothing::Silence));
    assert_eq!(proxy.open(), 1);
    let before = proxy.passed();
    proxy.clear();
    // Nothing was lost meanwhile.
    let packets = client.packets(8);
    for pair in packets.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
    }
    assert!(proxy.passed() > before);
}

#[test]
fn a_bye_ends_the_packets_and_leaves_the_connection() {
    let _calm = quiet().read();
    let (_camera, proxy) = camera();
    let mut client = player(&proxy);
    proxy.strike(Fault::Bye);
    let begun = Instant::now();
    let bye = loop {
        assert!(begun.elapsed() < PATIENCE);
        let (channel, data) = client.frame(PATIENCE).unwrap();
        if channel == 1 && data.get(9) == Some(&203) {
            break data;
        }
    };
    assert_eq!(bye.len(), 16);
    assert_eq!(client.frame(LONG), Err(Nothing::Silence));
    assert_eq!(client.request("OPTIONS", "", &[]).unwrap().status(), 200);
    player(&proxy);
}

#[test]
fn bytes_drip_at_the_rate_that_was_asked_for() {
    let _calm = quiet().read();
    let camera = Camera::start(CameraOptions::new(clips::heavy())).unwrap();
    let proxy = FaultProxy::start(camera.address());
    let mut client = player(&proxy);
    proxy.set(Fault::SlowDrip(20_000));
    // What was under way.
    client.packets_for(Duration::from_millis(100));
    let packets = client.packets_for(Duration::from_secs(1));
    let bytes: usize = packets.iter().map(|p| p.payload.len() + 16).sum();
    assert!((10_000..=25_000).contains(&bytes), "{bytes} bytes");
}

#[test]
fn packets_are_lost_turned_over_and_filled_with_garbage_as_often_as_asked() {
    let _calm = quiet().read();
    let camera = Camera::start(CameraOptions::new(clips::heavy())).unwrap();
    let straight = camera.url();
    let proxy = FaultProxy::start(camera.address());
    let mut client = player(&proxy);
    let mut witness = RawClient::connect(&straight).unwrap();
    witness.play().unwrap();
    /// Pairs of what the camera sent and what the client got.
    fn both(client: &mut RawClient, witness: &mut RawClient) -> Vec<(Rtp, Option<Rtp>)> {
        let (got, sent) = thread::scope(|scope| {
            let sent = scope.spawn(|| witness.packets_for(Duration::from_millis(600)));
            let got = client.packets_for(Duration::from_millis(400));
            (got, sent.join().unwrap())
        });
        let (first, last) = (got.first().unwrap().sequence, got.last().unwrap().sequence);
        let span = last.wrapping_sub(first);
        let inside = |p: &Rtp| p.sequence.wrapping_sub(first) <= span;
        let pair = |p: Rtp| {
            let found = got.iter().find(|g| g.sequence == p.sequence);
            (p, found.cloned())
        };
        sent.into_iter().filter(inside).map(pair).collect()
    }

    proxy.set(Fault::LoseInterleaved {
        probability: 0.3,
        seed: 1,
    });
    client.packets_for(Duration::from_millis(50));
    let pairs = both(&mut client, &mut witness);
    let lost = pairs.iter().filter(|p| p.1.is_none()).count() as f64 / pairs.len() as f64;
    assert!(pairs.len() > 200, "{} packets", pairs.len());
    assert!((0.2..0.4).contains(&lost), "{lost} of {}", pairs.len());

    proxy.set(Fault::BitFlip {
        probability: 0.5,
        seed: 2,
    });
    client.packets_for(Duration::from_millis(50));
    let pairs = both(&mut client, &mut witness);
    let mut flipped = 0;
    for (sent, got) in &pairs {
        let got = got.as_ref().unwrap();
        assert_eq!((sent.timestamp, sent.marker), (got.timestamp, got.marker));
        let bytes = sent.payload.iter().zip(&got.payload);
        let bits: u32 = bytes.map(|(a, b)| (a ^ b).count_ones()).sum();
        assert!(bits <= 1);
        flipped += bits;
    }
    let share = f64::from(flipped) / pairs.len() as f64;
    assert!((0.4..0.6).contains(&share), "{share} of {}", pairs.len());

    proxy.clear();
    client.packets_for(Duration::from_millis(50));
    let touched = proxy.touched();
    proxy.set(Fault::Garbage {
        packets: 7,
        seed: 3,
    });
    let pairs = both(&mut client, &mut witness);
    assert_eq!(proxy.touched() - touched, 7);
    let garbage = |(sent, got): &&(Rtp, Option<Rtp>)| {
        let got = got.as_ref().unwrap();
        // The JPEG header stays.
        assert_eq!(sent.payload[..8], got.payload[..8]);
        sent.payload != got.payload
    };
    assert_eq!(pairs.iter().filter(garbage).count(), 7);
}

#[test]
fn timestamps_step_and_begin_anew_and_wrap() {
    let _calm = quiet().read();
    let (_camera, proxy) = camera();
    let mut client = player(&proxy);
    for (seconds, back) in [(3600, false), (-3600, true)] {
        let hour = 3600 * 90_000;
        let moved = |a: &Rtp, b: &Rtp| b.timestamp.wrapping_sub(a.timestamp) > STEP;
        let (before, after) = until(
            &mut client,
            || proxy.set(Fault::TimestampStep(seconds)),
            moved,
        );
        let step = after.timestamp.wrapping_sub(before.timestamp);
        let expected = match back {
            false => hour,
            true => 0u32.wrapping_sub(hour),
        };
        // It may be set between two packets of one picture.
        let further = step.wrapping_sub(expected);
        assert!(further == STEP || further == 0, "{step}");
        proxy.clear();
        // The clock that was set stays set.
        let packets = client.packets(4);
        assert!(packets[3].timestamp.wrapping_sub(after.timestamp) < 10 * STEP);
    }
    let restart = || proxy.set(Fault::TimestampRestart);
    until(&mut client, restart, |_, b| b.timestamp == 0);
    let later = client.packets(4).remove(3);
    assert_eq!(later.timestamp % STEP, 0);
    assert!(later.timestamp <= 4 * STEP);

    proxy.set(Fault::TimestampNearWrap);
    let mut client = RawClient::connect(&proxy.url("/camera")).unwrap();
    client.play().unwrap();
    let begun = Instant::now();
    let first = client.packets(1).remove(0);
    assert!(first.timestamp >= 0u32.wrapping_sub(45_000));
    let (_, after) = until(&mut client, || (), |a, b| b.timestamp < a.timestamp);
    assert!(after.timestamp < STEP);
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[test]
fn the_next_connection_leads_to_another_camera() {
    let _calm = quiet().read();
    let (_camera, proxy) = camera();
    let other = Camera::start(CameraOptions::new(clips::mjpeg())).unwrap();
    let mut client = player(&proxy);
    proxy.set(Fault::SwitchTo(other.address()));
    client.packets(3);
    let mut second = RawClient::connect(&proxy.url("/camera")).unwrap();
    assert!(second.play().unwrap().contains("JPEG/90000"));
    proxy.clear();
    let mut third = RawClient::connect(&proxy.url("/camera")).unwrap();
    assert!(third.play().unwrap().contains("H264/90000"));
}

#[test]
fn addresses_of_the_camera_become_the_proxys() {
    use std::io::{Read, Write};

    let _calm = quiet().read();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // A camera that names itself everywhere.
    let camera = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let n = stream.read(&mut request).unwrap();
        let body = format!("v=0\r\na=control:rtsp://{address}/x\r\n");
        let head = format!(
            "RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Base: rtsp://{address}/\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        String::from_utf8(request[..n].to_vec()).unwrap()
    });
    let proxy = FaultProxy::start(address);
    let mut client = RawClient::connect(&proxy.url("/x")).unwrap();
    let answer = client.request("DESCRIBE", "", &[]).unwrap();
    let own = format!("rtsp://{}", proxy.address());
    assert_eq!(answer.header("content-base"), Some(&*format!("{own}/")));
    let body = String::from_utf8(answer.body).unwrap();
    assert_eq!(body, format!("v=0\r\na=control:{own}/x\r\n"));
    // Digests are made over the request's URL, so that stays.
    assert!(
        camera
            .join()
            .unwrap()
            .contains(&format!("DESCRIBE {own}/x"))
    );
}
