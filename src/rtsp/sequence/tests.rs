use proptest::prelude::*;

use super::*;

const WAIT: Duration = Duration::from_millis(200);

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn all<T>(order: &mut Order<T>, now: Duration) -> Vec<(T, u32)> {
    std::iter::from_fn(|| order.pop(now)).collect()
}

/// Pushes numbers as their own items; gives what came out at once.
fn pushed(order: &mut Order<u16>, numbers: &[u16], now: Duration) -> Vec<(u16, u32)> {
    for n in numbers {
        order.push(*n, *n, now);
    }
    all(order, now)
}

#[test]
fn ticks_begin_at_the_first_value_and_pass_the_wrap() {
    let mut ticks = Ticks::default();
    assert_eq!(ticks.unwrap(u32::MAX - 1), i64::from(u32::MAX) - 1);
    assert_eq!(ticks.unwrap(1), i64::from(u32::MAX) + 2);
    assert_eq!(
        ticks.unwrap(u32::MAX),
        i64::from(u32::MAX),
        "back over the wrap"
    );
    assert_eq!(ticks.unwrap(0), 1 << 32);
}

#[test]
fn a_step_back_is_kept_and_more_than_half_the_circle_is_a_wrap() {
    let mut ticks = Ticks::default();
    assert_eq!(ticks.unwrap(3_000_000_000), 3_000_000_000);
    assert_eq!(ticks.unwrap(2_000_000_000), 2_000_000_000);
    let mut ticks = Ticks::default();
    ticks.unwrap(3_000_000_000);
    assert_eq!(ticks.unwrap(500_000_000), 500_000_000 + (1 << 32));
}

#[test]
fn a_wrap_of_the_sequence_loses_nothing() {
    let mut order = Order::new(0, WAIT);
    assert_eq!(
        pushed(&mut order, &[65_534, 65_535, 0, 1], at(0)),
        [(65_534, 0), (65_535, 0), (0, 0), (1, 0)]
    );
    assert_eq!(pushed(&mut order, &[5], at(0)), [(5, 3)]);
}

#[test]
fn without_room_gaps_are_given_at_once_and_duplicates_dropped() {
    let mut order = Order::new(0, WAIT);
    assert_eq!(
        pushed(&mut order, &[10, 11, 11, 14, 13, 15], at(0)),
        [(10, 0), (11, 0), (14, 2), (15, 0)]
    );
    assert_eq!(order.due(), None);
}

#[test]
fn with_room_late_packets_find_their_place() {
    let mut order = Order::new(64, WAIT);
    assert_eq!(pushed(&mut order, &[1, 3, 4], at(0)), [(1, 0)]);
    assert_eq!(order.due(), Some(at(200)));
    assert_eq!(
        pushed(&mut order, &[3, 2, 5], at(100)),
        [(2, 0), (3, 0), (4, 0), (5, 0)]
    );
    assert_eq!(order.due(), None);
}

#[test]
fn patience_ends_by_time() {
    let mut order = Order::new(64, WAIT);
    assert_eq!(pushed(&mut order, &[1, 4, 5], at(0)), [(1, 0)]);
    assert_eq!(pushed(&mut order, &[8], at(100)), []);
    assert_eq!(all(&mut order, at(199)), []);
    assert_eq!(all(&mut order, at(200)), [(4, 2), (5, 0)]);
    assert_eq!(pushed(&mut order, &[2, 3], at(201)), [], "too late now");
    assert_eq!(all(&mut order, at(300)), [(8, 2)]);
}

#[test]
fn patience_ends_by_count() {
    let mut order = Order::new(2, WAIT);
    assert_eq!(pushed(&mut order, &[1, 3, 5], at(0)), [(1, 0)]);
    assert_eq!(pushed(&mut order, &[7], at(0)), [(3, 1)]);
    order.flush();
    assert_eq!(all(&mut order, at(0)), [(5, 1), (7, 1)]);
}

#[test]
fn far_jumps_restart_at_once_where_the_transport_keeps_order() {
    let mut order = Order::new(0, WAIT);
    assert_eq!(
        pushed(&mut order, &[10, 3010], at(0)),
        [(10, 0), (3010, 2999)]
    );
    assert_eq!(pushed(&mut order, &[6011], at(0)), [(6011, 1)]);
    assert_eq!(
        pushed(&mut order, &[6012, 5900], at(0)),
        [(6012, 0), (5900, 1)]
    );
    assert_eq!(pushed(&mut order, &[5902], at(0)), [(5902, 1)]);
}

#[test]
fn far_jumps_are_confirmed_where_it_does_not() {
    let mut order = Order::new(64, WAIT);
    assert_eq!(
        pushed(&mut order, &[10, 11, 40_000, 12], at(0)),
        [(10, 0), (11, 0), (12, 0)]
    );
    assert_eq!(
        pushed(&mut order, &[14, 40_001, 40_000], at(0)),
        [(14, 1), (40_000, 1), (40_001, 0)],
        "what waits is given before the new line begins"
    );
    // A very old packet alone changes nothing.
    assert_eq!(pushed(&mut order, &[39_000, 40_002], at(0)), [(40_002, 0)]);
}

#[test]
fn numbers_count_on_over_wraps() {
    let mut order = Order::new(0, WAIT);
    assert_eq!(order.push(65_535, (), at(0)), Pushed::Restarted(65_535));
    assert_eq!(order.push(0, (), at(0)), Pushed::Taken(65_536));
    assert_eq!(order.push(0, (), at(0)), Pushed::Refused);
}

proptest! {
    /// Any order, loss and repetition: what comes out is sorted, without repetition, and what is
    /// missing plus what came is everything from the first to the last.
    #[test]
    fn nothing_is_lost_uncounted(
        start in any::<u16>(),
        numbers in prop::collection::vec(0_u16..50, 1..200),
        room in 0_usize..70,
    ) {
        let mut order = Order::new(room, WAIT);
        let mut out = Vec::new();
        for n in &numbers {
            order.push(start.wrapping_add(*n), *n, at(0));
            out.extend(all(&mut order, at(0)));
        }
        order.flush();
        out.extend(all(&mut order, at(0)));
        prop_assert_eq!(out[0], (numbers[0], 0));
        for pair in out.windows(2) {
            prop_assert!(pair[0].0 < pair[1].0);
            prop_assert_eq!(u32::from(pair[1].0 - pair[0].0), pair[1].1 + 1);
        }
        if room >= 50 {
            let wanted: std::collections::BTreeSet<_> =
                numbers.iter().filter(|n| **n >= numbers[0]).collect();
            prop_assert_eq!(out.len(), wanted.len());
        }
    }

    /// Bounded whatever arrives.
    #[test]
    fn held_items_are_bounded(numbers in prop::collection::vec(any::<u16>(), 0..500), room in 0_usize..70) {
        let mut order = Order::new(room, WAIT);
        for n in numbers {
            order.push(n, (), at(0));
            prop_assert!(order.held.len() <= room);
            all(&mut order, at(0));
        }
    }

    #[test]
    fn ticks_follow_every_small_step(start in any::<u32>(), steps in prop::collection::vec(i32::MIN + 1..i32::MAX, 0..50)) {
        let mut ticks = Ticks::default();
        let mut line = ticks.unwrap(start);
        let mut value = start;
        for step in steps {
            value = value.wrapping_add_signed(step);
            line += i64::from(step);
            prop_assert_eq!(ticks.unwrap(value), line);
        }
    }
}
