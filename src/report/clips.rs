//! Held-out clips over time: p, p′, the truth shaded, τ drawn.

use std::fmt::{self, Write};

use super::{
    Clip,
    svg::{Axis, Escaped, Plot, shortened},
};
use crate::limits::REPORT_TEXT_MAX_CHARS;

/// One clip.
pub(super) fn clip(out: &mut String, clip: &Clip) -> fmt::Result {
    let end = clip.segments.last().map_or(1.0, |s| s[1]);
    let begin = clip.segments.first().map_or(0.0, |s| s[0]);
    write!(
        out,
        "<h3>{} <small>{}</small></h3>\n<div class=\"wide\">",
        Escaped(&shortened(&clip.name, REPORT_TEXT_MAX_CHARS)),
        if clip.anomaly { "anomalous" } else { "normal" }
    )?;
    let plot = Plot {
        x: Axis::new(begin, end, "time, s"),
        y: Axis::unit("p and p′"),
        width: 820.0,
        height: 110.0,
    };
    plot.open(out, "Probability over time", true)?;
    for &(from, to) in clip
        .truth
        .iter()
        .filter(|(from, to)| *from < end && *to > begin)
    {
        plot.rect(
            out,
            "class=\"truth\"",
            (from.max(begin), 0.0),
            (to.min(end), 1.0),
            &format!("labelled anomalous {from:.1} to {to:.1} s"),
        )?;
    }
    plot.line(
        out,
        "line threshold",
        [(begin, clip.threshold), (end, clip.threshold)],
    )?;
    // A segment's p holds for all of it: steps, not slopes.
    let steps = |at: usize| {
        clip.segments
            .iter()
            .flat_map(move |s| [(s[0], s[at]), (s[1], s[at])])
    };
    plot.line(out, "line raw", steps(2))?;
    plot.line(out, "line c0", steps(3))?;
    out.push_str("</svg></div>\n");
    if clip.segments_left_out > 0 {
        writeln!(
            out,
            "<p class=\"small\">The first {} segments; {} more are not drawn.</p>",
            clip.segments.len(),
            clip.segments_left_out
        )?;
    }
    Ok(())
}
