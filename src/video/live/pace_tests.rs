//! Through the line that uses it.

use super::super::line::Line;
use super::*;

const DECLARED: u32 = 90_000;

fn line() -> Line {
    let mut line = Line::default();
    line.connect(DECLARED);
    line
}

/// Ticks and arrival in milliseconds of so many pictures, 25 a second, on a clock with so many ticks a second.
fn pictures(count: u64, ticks_per_second: f64) -> Vec<(i64, u64)> {
    (0..count)
        .map(|i| ((i as f64 * 0.04 * ticks_per_second) as i64, 40 * i))
        .collect()
}

/// Media times in milliseconds, and at which packets the clock jumped.
fn run(line: &mut Line, packets: &[(i64, u64)]) -> (Vec<i64>, Vec<usize>) {
    let mut jumps = Vec::new();
    let times = packets
        .iter()
        .enumerate()
        .map(|(i, &(ticks, arrived))| {
            let placed = line.place(ticks, Duration::from_millis(arrived));
            if placed.jumped {
                jumps.push(i);
            }
            placed.pts.as_nanos() / 1_000_000
        })
        .collect();
    (times, jumps)
}

#[test]
fn a_clock_that_counts_something_else_is_read_as_what_it_is() {
    for (ticks_per_second, jitter) in [
        (1000.0, 0),
        (25.0, 0),
        (8000.0, 30),
        (1_000_000.0, 30),
        // Slower than pictures come.
        (12.5, 0),
    ] {
        let mut line = line();
        // An hour.
        let packets: Vec<(i64, u64)> = pictures(90_000, ticks_per_second)
            .iter()
            .map(|&(ticks, arrived)| (ticks, arrived + arrived / 40 * 7 % (jitter + 1)))
            .collect();
        let (times, jumps) = run(&mut line, &packets);
        assert_eq!(jumps.len(), 1, "{ticks_per_second}: {jumps:?}");
        assert!(jumps[0] < 135, "{ticks_per_second}: {jumps:?}");
        // From then on media time goes as time does.
        let ahead = |i: usize| times[i] - packets[i].1 as i64;
        let (then, end) = (ahead(jumps[0]), ahead(packets.len() - 1));
        assert!((then - end).abs() < 250, "{ticks_per_second}: {then} {end}");
        let worst = (jumps[0]..packets.len())
            .map(|i| (ahead(i) - then).abs())
            .max();
        assert!(worst.unwrap() < 400, "{ticks_per_second}: {worst:?}");
        assert!(
            times
                .windows(2)
                .skip(jumps[0])
                .all(|pair| pair[0] <= pair[1])
        );
        // The next connection's clock begins elsewhere, and is known.
        let came = packets.len() as u64 * 40 + 3000;
        line.connect(DECLARED);
        let again: Vec<(i64, u64)> = pictures(500, ticks_per_second)
            .iter()
            .map(|&(ticks, arrived)| (ticks + 777, arrived + came))
            .collect();
        let (times, jumps) = run(&mut line, &again);
        assert!(jumps.is_empty(), "{ticks_per_second}: {jumps:?}");
        let took = times[499] - times[0];
        assert!((took - 499 * 40).abs() < 400, "{ticks_per_second}: {took}");
    }
}

#[test]
fn a_clock_that_is_right_again_is_believed_again() {
    let mut line = line();
    run(&mut line, &pictures(1000, 1000.0));
    line.connect(DECLARED);
    let right: Vec<(i64, u64)> = pictures(1000, f64::from(DECLARED))
        .iter()
        .map(|&(ticks, arrived)| (ticks, arrived + 50_000))
        .collect();
    let (times, jumps) = run(&mut line, &right);
    assert_eq!(jumps.len(), 1, "{jumps:?}");
    assert!(
        times
            .windows(2)
            .skip(200)
            .all(|pair| pair[1] - pair[0] == 40),
        "to the millisecond"
    );
}

#[test]
fn slow_networks_and_cameras_move_no_clock() {
    let real = |packets: &[(u64, u64)]| -> Vec<(i64, u64)> {
        let ticks = |ms: u64| (ms * u64::from(DECLARED) / 1000) as i64;
        packets
            .iter()
            .map(|&(ms, arrived)| (ticks(ms), arrived))
            .collect()
    };
    let kept = |ms: u64| (0..ms / 40).map(|i| (40 * i, 100 + i));
    let live =
        |from: u64, to: u64, late: u64| (from / 40..to / 40).map(move |i| (40 * i, 40 * i + late));
    let cases: [(&str, Vec<(u64, u64)>); 6] = [
        (
            "begins with ten seconds that it had kept",
            kept(10_000)
                .chain((250..1000).map(|i| (40 * i, 400 + 40 * (i - 250))))
                .collect(),
        ),
        (
            "is held back for twenty seconds, and all comes at once",
            live(0, 8000, 0)
                .chain((200..700).map(|i| (40 * i, 28_000 + i)))
                .chain(live(28_720, 60_000, 0))
                .collect(),
        ),
        (
            "comes through a link that is too narrow by a third",
            (0..2000).map(|i| (40 * i, 60 * i)).collect(),
        ),
        (
            "shows a picture every five seconds",
            (0..100).map(|i| (5000 * i, 5000 * i)).collect(),
        ),
        (
            "sends a second's pictures at a time",
            (0..3000).map(|i| (40 * i, (i / 25 + 1) * 1000)).collect(),
        ),
        (
            "sends each picture in many packets",
            (0..20_000).map(|i| (40 * (i / 20), 2 * i)).collect(),
        ),
    ];
    for (what, packets) in cases {
        let (times, jumps) = run(&mut line(), &real(&packets));
        assert!(jumps.is_empty(), "{what}: {jumps:?}");
        assert!(
            times
                .iter()
                .zip(&packets)
                .all(|(at, (ms, _))| *at == *ms as i64),
            "{what}"
        );
    }
    // A clock that pauses for less than five seconds and goes on where it stood.
    let paused: Vec<(u64, u64)> = live(0, 10_000, 0)
        .chain((0..110).map(|i| (9960, 10_000 + 40 * i)))
        .chain(live(10_000, 40_000, 4400))
        .collect();
    let (_, jumps) = run(&mut line(), &real(&paused));
    assert!(jumps.is_empty(), "{jumps:?}");
}
