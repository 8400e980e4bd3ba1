//! The options of a request, checked.

use std::time::Duration;

use super::proto;
use crate::{
    error::{Error, Result},
    limits::{
        EVENT_COOLDOWN_MAX, EVENT_MIN_DURATION_MAX, MOTION_THRESHOLD, SNAPSHOT_BYTES,
        SNAPSHOT_BYTES_MAX, SNAPSHOT_SIDE, SNAPSHOT_SIDE_MAX,
    },
    pipeline::{
        options::{DetectOptions, PictureOptions},
        snapshot::SnapshotRules,
    },
    score::alerts::AlertRules,
};

/// The options in the request's field `field`; the defaults where there are none.
///
/// `InvalidArgument`, naming the field from `field` on, for what is outside its limits.
pub(super) fn parse(field: &str, options: Option<proto::DetectOptions>) -> Result<DetectOptions> {
    let options = options.unwrap_or_default();
    let named = |name: &str| format!("{field}.{name}");
    let mut pictures = PictureOptions {
        snapshots: match options.snapshots {
            Some(snapshots) => Some(snapshot_rules(&named("snapshots"), &snapshots)?),
            None => None,
        },
        motion_gate: match options.motion_gate {
            Some(gate) => Some(threshold(&named("motion_gate.threshold"), gate.threshold)?),
            None => None,
        },
        ..PictureOptions::default()
    };
    let polygons = options.masks.into_iter().map(|polygon| {
        let points = polygon.points.into_iter();
        points.map(|point| (point.x, point.y)).collect()
    });
    pictures.mask(polygons.collect()).map_err(|error| {
        let field = named(error.field().unwrap_or("masks"));
        error.with_field(field)
    })?;
    Ok(DetectOptions {
        provisional: options.provisional,
        alerts: AlertRules {
            provisional: options.provisional_events,
            min_duration: duration(
                &named("min_event_duration"),
                options.min_event_duration,
                EVENT_MIN_DURATION_MAX,
            )?,
            cooldown: duration(
                &named("event_cooldown"),
                options.event_cooldown,
                EVENT_COOLDOWN_MAX,
            )?,
        },
        pictures,
    })
}

fn snapshot_rules(field: &str, snapshots: &proto::Snapshots) -> Result<SnapshotRules> {
    let proto::Snapshots {
        max_side,
        max_bytes,
    } = *snapshots;
    if max_side > SNAPSHOT_SIDE_MAX {
        return Err(Error::invalid(format!(
            "a snapshot of {max_side} pixels: at most {SNAPSHOT_SIDE_MAX} are possible"
        ))
        .with_field(format!("{field}.max_side")));
    }
    let bytes = max_bytes as usize;
    if bytes > SNAPSHOT_BYTES_MAX {
        return Err(Error::invalid(format!(
            "a snapshot of {max_bytes} bytes: at most {SNAPSHOT_BYTES_MAX} are possible"
        ))
        .with_field(format!("{field}.max_bytes")));
    }
    Ok(SnapshotRules {
        max_side: if max_side == 0 {
            SNAPSHOT_SIDE
        } else {
            max_side
        },
        max_bytes: if bytes == 0 { SNAPSHOT_BYTES } else { bytes },
    })
}

fn threshold(field: &str, threshold: f64) -> Result<f64> {
    // Written so that NaN is refused too.
    if !(0.0..=1.0).contains(&threshold) {
        return Err(Error::invalid(format!(
            "the motion gate's threshold is {threshold}: give 0 to 1, a part of full brightness"
        ))
        .with_field(field));
    }
    Ok(if threshold == 0.0 {
        MOTION_THRESHOLD
    } else {
        threshold
    })
}

fn duration(
    field: &str,
    duration: Option<prost_types::Duration>,
    most: Duration,
) -> Result<Duration> {
    let Some(wanted) = duration else {
        return Ok(Duration::ZERO);
    };
    let refused = |problem: &str| {
        Err(Error::invalid(format!(
            "{field} of {} s and {} ns {problem}: give 0 to {} s",
            wanted.seconds,
            wanted.nanos,
            most.as_secs()
        ))
        .with_field(field))
    };
    let (Ok(seconds), Ok(nanos @ 0..1_000_000_000)) =
        (u64::try_from(wanted.seconds), u32::try_from(wanted.nanos))
    else {
        return refused("is no time of 0 or more");
    };
    let span = Duration::new(seconds, nanos);
    if span > most {
        return refused("is too long");
    }
    Ok(span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn seconds(seconds: i64, nanos: i32) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos })
    }

    fn triangle() -> proto::Polygon {
        proto::Polygon {
            points: [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)]
                .map(|(x, y)| proto::Point { x, y })
                .to_vec(),
        }
    }

    #[test]
    fn nothing_asked_is_everything_off() {
        let none = parse("options", None).unwrap();
        assert_eq!(none, DetectOptions::default());
        assert_eq!(none, parse("options", Some(Default::default())).unwrap());
    }

    #[test]
    fn zeros_are_the_defaults_and_limits_can_be_reached() {
        let options = parse(
            "options",
            Some(proto::DetectOptions {
                provisional_events: true,
                snapshots: Some(proto::Snapshots::default()),
                motion_gate: Some(proto::MotionGate { threshold: 0.0 }),
                min_event_duration: seconds(3600, 0),
                event_cooldown: seconds(24 * 3600, 0),
                masks: vec![triangle(); 32],
                ..Default::default()
            }),
        )
        .unwrap();
        assert_eq!(
            options.alerts,
            AlertRules {
                provisional: true,
                min_duration: EVENT_MIN_DURATION_MAX,
                cooldown: EVENT_COOLDOWN_MAX
            }
        );
        assert_eq!(
            options.pictures.snapshots,
            Some(SnapshotRules {
                max_side: 640,
                max_bytes: 65_536
            })
        );
        assert_eq!(options.pictures.motion_gate, Some(0.02));
        let most = proto::Snapshots {
            max_side: 1920,
            max_bytes: 524_288,
        };
        let rules = snapshot_rules("s", &most).unwrap();
        assert_eq!((rules.max_side, rules.max_bytes), (1920, 524_288));
        assert_eq!(threshold("t", 1.0).unwrap(), 1.0);
    }

    #[test]
    fn what_is_outside_its_limits_is_named() {
        type Change = fn(&mut proto::DetectOptions);
        let wrong: [(&str, Change); 13] = [
            ("snapshots.max_side", |o| {
                o.snapshots = Some(proto::Snapshots {
                    max_side: 1921,
                    max_bytes: 0,
                });
            }),
            ("snapshots.max_bytes", |o| {
                o.snapshots = Some(proto::Snapshots {
                    max_side: 0,
                    max_bytes: 524_289,
                });
            }),
            ("motion_gate.threshold", |o| {
                o.motion_gate = Some(proto::MotionGate { threshold: 1.1 });
            }),
            ("motion_gate.threshold", |o| {
                o.motion_gate = Some(proto::MotionGate { threshold: -0.1 });
            }),
            ("motion_gate.threshold", |o| {
                o.motion_gate = Some(proto::MotionGate {
                    threshold: f64::NAN,
                });
            }),
            ("min_event_duration", |o| {
                o.min_event_duration = seconds(3600, 1)
            }),
            ("min_event_duration", |o| {
                o.min_event_duration = seconds(-1, 0)
            }),
            ("event_cooldown", |o| o.event_cooldown = seconds(86_401, 0)),
            ("event_cooldown", |o| o.event_cooldown = seconds(0, -1)),
            ("event_cooldown", |o| {
                o.event_cooldown = seconds(0, 1_000_000_000)
            }),
            ("masks", |o| o.masks = vec![triangle(); 33]),
            ("masks[1].points", |o| {
                o.masks = vec![triangle(), proto::Polygon::default()];
            }),
            ("masks[0].points[2].y", |o| {
                let mut polygon = triangle();
                polygon.points[2].y = f64::NAN;
                o.masks = vec![polygon];
            }),
        ];
        for (field, change) in wrong {
            let mut options = proto::DetectOptions::default();
            change(&mut options);
            let error = parse("open.options", Some(options)).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument);
            assert_eq!(
                error.field(),
                Some(format!("open.options.{field}").as_str())
            );
        }
    }
}
