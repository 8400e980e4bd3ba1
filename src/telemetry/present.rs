//! Series that are there only while what they speak of is: a camera that is watched, a job that runs.
//! The recorder behind the `metrics` crate forgets no series, so these are kept here and written
//! behind its own at each scrape.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// What `# TYPE` says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only grows; from 0 again when its series is new.
    Counter,
}

/// A name with its meaning.
#[derive(Debug)]
pub(super) struct Family {
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Kind,
    /// Name of its one label.
    pub label: &'static str,
}

/// Value of a series and the number of its holders.
#[derive(Debug, Default)]
struct Held {
    /// Bits of an f64.
    value: Arc<AtomicU64>,
    holders: usize,
}

type Families = BTreeMap<&'static str, (&'static Family, BTreeMap<String, Held>)>;

static FAMILIES: Mutex<Families> = Mutex::new(BTreeMap::new());

/// No code under the lock can panic half-way.
fn families() -> MutexGuard<'static, Families> {
    FAMILIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One series, for as long as this is held. Holders of the same label value share it.
#[derive(Debug)]
pub(super) struct Series {
    family: &'static Family,
    label: String,
    value: Arc<AtomicU64>,
}

impl Series {
    /// The series of this label value; 0 where it is new.
    pub fn begin(family: &'static Family, label: &str) -> Series {
        let mut families = families();
        let (_, series) = families
            .entry(family.name)
            .or_insert_with(|| (family, BTreeMap::new()));
        let held = series.entry(label.to_owned()).or_default();
        held.holders += 1;
        Series {
            family,
            label: label.to_owned(),
            value: held.value.clone(),
        }
    }

    pub fn set(&self, value: f64) {
        self.value.store(value.to_bits(), Relaxed);
    }

    pub fn add(&self, more: f64) {
        let sum = |bits: u64| Some((f64::from_bits(bits) + more).to_bits());
        // Never refused: the closure always has an answer.
        let _ = self.value.fetch_update(Relaxed, Relaxed, sum);
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        let mut families = families();
        let Some((_, series)) = families.get_mut(self.family.name) else {
            return;
        };
        if let Some(held) = series.get_mut(&self.label) {
            held.holders -= 1;
            if held.holders == 0 {
                series.remove(&self.label);
            }
        }
    }
}

/// Writes every series that is there in Prometheus' text format.
pub(super) fn render(out: &mut String) {
    for (name, (family, series)) in families().iter() {
        if series.is_empty() {
            continue;
        }
        let kind = match family.kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        // Writing to a String cannot fail.
        let _ = write!(out, "# HELP {name} {}\n# TYPE {name} {kind}\n", family.help);
        for (label, held) in series {
            let value = f64::from_bits(held.value.load(Relaxed));
            let _ = writeln!(
                out,
                "{name}{{{}=\"{}\"}} {value}",
                family.label,
                escaped(label)
            );
        }
        out.push('\n');
    }
}

fn escaped(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    static DOORS: Family = Family {
        name: "headhunt_test_doors",
        help: "Doors",
        kind: Kind::Gauge,
        label: "door",
    };

    fn lines() -> Vec<String> {
        let mut text = String::new();
        render(&mut text);
        let ours = text.lines().filter(|line| line.contains(DOORS.name));
        ours.map(str::to_owned).collect()
    }

    #[test]
    fn a_series_is_there_while_one_of_its_holders_is() {
        assert!(lines().is_empty());
        let front = Series::begin(&DOORS, "front");
        let again = Series::begin(&DOORS, "front");
        let odd = Series::begin(&DOORS, "a\"b\\c\nd");
        front.add(2.0);
        again.add(0.5);
        odd.set(-1.0);
        assert_eq!(
            lines(),
            [
                "# HELP headhunt_test_doors Doors",
                "# TYPE headhunt_test_doors gauge",
                r#"headhunt_test_doors{door="a\"b\\c\nd"} -1"#,
                r#"headhunt_test_doors{door="front"} 2.5"#,
            ]
        );
        drop(front);
        drop(odd);
        assert_eq!(lines().len(), 3);
        drop(again);
        assert!(lines().is_empty(), "no series, no family");
        let new = Series::begin(&DOORS, "front");
        assert!(lines().contains(&r#"headhunt_test_doors{door="front"} 0"#.to_owned()));
        drop(new);
    }
}
