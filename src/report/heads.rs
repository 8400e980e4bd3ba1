//! Pictures of a ranking: every head's score, and for the best ones their metrics and spread.

use std::{
    cmp::Ordering,
    fmt::{self, Write},
};

use super::{
    Ranking,
    svg::{self, Axis, Escaped, Plot},
};
use crate::{head::HeadId, limits::REPORT_TITLED_CELLS_MAX};

/// Heads in the detailed charts.
pub(super) const DETAILED: usize = 20;

/// Width of a head's column in them, pixels.
const COLUMN: f64 = 48.0;

/// The numbers of the expert heads, best first.
pub(super) fn table(out: &mut String, ranking: &Ranking) -> fmt::Result {
    out.push_str("<div class=\"wide\"><table><tr><th>rank</th><th>layer</th><th>head</th><th>robust score</th><th>mean</th><th>deviation</th></tr>\n");
    for (rank, id) in ranking.expert_heads.iter().enumerate() {
        let at = index(ranking, id);
        writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.4}</td><td>{:.4}</td><td>{:.4}</td></tr>",
            rank + 1,
            id.layer,
            id.head,
            at_or_nan(&ranking.rss, at),
            at_or_nan(&ranking.mean, at),
            at_or_nan(&ranking.std, at),
        )?;
    }
    out.push_str("</table></div>\n");
    Ok(())
}

fn index(ranking: &Ranking, id: &HeadId) -> usize {
    id.layer * ranking.heads + id.head
}

fn at_or_nan(values: &[f64], at: usize) -> f64 {
    values.get(at).copied().unwrap_or(f64::NAN)
}

/// The heads of the detailed charts, best first.
pub(super) fn best(ranking: &Ranking) -> Vec<HeadId> {
    let mut order: Vec<usize> = (0..ranking.rss.len()).collect();
    // A stable sort: a tie goes to the lower head.
    order.sort_by(|&a, &b| {
        ranking.rss[b]
            .partial_cmp(&ranking.rss[a])
            .unwrap_or(Ordering::Equal)
    });
    let heads = ranking.heads.max(1);
    order
        .into_iter()
        .take(DETAILED)
        .map(|i| HeadId {
            layer: i / heads,
            head: i % heads,
        })
        .collect()
}

/// Layers down, heads across.
pub(super) fn heat_map(out: &mut String, ranking: &Ranking) -> fmt::Result {
    let cell = (960.0 / ranking.heads.max(1) as f64).clamp(6.0, 30.0);
    let (left, top) = (62.0, 40.0);
    let (width, height) = (ranking.heads as f64 * cell, ranking.layers as f64 * cell);
    let (low, high) = span(&ranking.rss);
    let part = |x: f64| {
        if high > low {
            (x - low) / (high - low)
        } else {
            0.0
        }
    };
    let full = (left + width + 16.0).max(left + 230.0);
    svg::open(
        out,
        full,
        top + height + 58.0,
        "Robust score by layer and head",
    )?;
    write!(
        out,
        "<text class=\"axis\" x=\"{:.1}\" y=\"14\" text-anchor=\"middle\">head</text><text class=\"axis\" x=\"14\" y=\"{1:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 14 {1:.1})\">layer</text>",
        left + width / 2.0,
        top + height / 2.0
    )?;
    // Every label has room for about 24 pixels across and 14 down.
    for head in (0..ranking.heads).step_by((24.0 / cell).ceil() as usize) {
        let x = left + (head as f64 + 0.5) * cell;
        svg::text(out, x, top - 7.0, "middle", &head.to_string())?;
    }
    for layer in (0..ranking.layers).step_by((14.0 / cell).ceil() as usize) {
        let y = top + (layer as f64 + 0.5) * cell + 4.0;
        svg::text(out, left - 7.0, y, "end", &layer.to_string())?;
    }
    out.push('\n');
    let titled = ranking.rss.len() <= REPORT_TITLED_CELLS_MAX;
    for (i, &rss) in ranking.rss.iter().enumerate() {
        let (layer, head) = (i / ranking.heads, i % ranking.heads);
        write!(
            out,
            "<rect class=\"heat\" x=\"{:.1}\" y=\"{:.1}\" width=\"{cell:.1}\" height=\"{cell:.1}\" fill-opacity=\"{:.3}\"",
            left + head as f64 * cell,
            top + layer as f64 * cell,
            0.04 + 0.96 * part(rss),
        )?;
        if titled {
            writeln!(
                out,
                "><title>layer {layer}, head {head}: {rss:.4}</title></rect>"
            )?;
        } else {
            out.push_str("/>\n");
        }
    }
    for (rank, id) in ranking.expert_heads.iter().enumerate() {
        let (x, y) = (left + id.head as f64 * cell, top + id.layer as f64 * cell);
        writeln!(
            out,
            "<rect class=\"chosen\" x=\"{:.1}\" y=\"{:.1}\" width=\"{2:.1}\" height=\"{2:.1}\" rx=\"2\"/>",
            x - 1.0,
            y - 1.0,
            cell + 2.0
        )?;
        if cell >= 14.0 {
            let on = if part(at_or_nan(&ranking.rss, index(ranking, id))) > 0.5 {
                "on-dark"
            } else {
                "on-light"
            };
            writeln!(
                out,
                "<text class=\"rank {on}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                x + cell / 2.0,
                y + cell / 2.0 + 4.0,
                rank + 1
            )?;
        }
    }
    let y = top + height + 16.0;
    for i in 0..40 {
        write!(
            out,
            "<rect class=\"heat\" x=\"{:.1}\" y=\"{y:.1}\" width=\"5\" height=\"12\" fill-opacity=\"{:.3}\"/>",
            left + f64::from(i) * 5.0,
            0.04 + 0.96 * f64::from(i) / 39.0
        )?;
    }
    svg::text(out, left, y + 28.0, "start", &format!("{low:.3}"))?;
    svg::text(out, left + 200.0, y + 28.0, "end", &format!("{high:.3}"))?;
    out.push_str("</svg>\n");
    Ok(())
}

fn span(values: &[f64]) -> (f64, f64) {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if low.is_finite() {
        (low, high)
    } else {
        (0.0, 0.0)
    }
}

/// Mean over prompts of a metric scaled to 0..1 over all heads under each prompt; what is constant
/// under a prompt counts as 0 there, as in the ranking.
fn scaled(values: &[f64], heads: usize) -> Vec<f64> {
    let mut mean = vec![0.0; heads];
    let prompts = (values.len() / heads.max(1)).max(1) as f64;
    for prompt in values.chunks_exact(heads.max(1)) {
        let (low, high) = span(prompt);
        if high - low > 10.0 * f64::EPSILON {
            for (mean, v) in mean.iter_mut().zip(prompt) {
                *mean += (v - low) / (high - low) / prompts;
            }
        }
    }
    mean
}

/// A group of bars per head, one a metric.
pub(super) fn metric_bars(out: &mut String, ranking: &Ranking, best: &[HeadId]) -> fmt::Result {
    let plot = Plot {
        x: Axis::new(0.0, best.len() as f64, "layer·head, best first"),
        y: Axis::unit("scaled metric"),
        width: COLUMN * best.len() as f64,
        height: 170.0,
    };
    out.push_str("<p class=\"key\">");
    for (m, metric) in ranking.metrics.iter().enumerate() {
        write!(
            out,
            "<span><i class=\"m{m}\"></i>{}: {}</span>",
            Escaped(metric.name),
            Escaped(metric.meaning)
        )?;
    }
    out.push_str("</p>\n<div class=\"wide\">");
    plot.open(out, "Metrics of the best heads", false)?;
    let bar = 0.8 / ranking.metrics.len().max(1) as f64;
    for (m, metric) in ranking.metrics.iter().enumerate() {
        let scaled = scaled(&metric.values, ranking.layers * ranking.heads);
        for (i, id) in best.iter().enumerate() {
            let value = at_or_nan(&scaled, index(ranking, id)).clamp(0.0, 1.0);
            let from = i as f64 + 0.1 + m as f64 * bar;
            plot.rect(
                out,
                &format!("class=\"m{m}\""),
                (from, 0.0),
                (from + bar * 0.9, value),
                &format!(
                    "{} of layer {}, head {}: {value:.4}",
                    metric.name, id.layer, id.head
                ),
            )?;
        }
    }
    labels(out, &plot, ranking, best)?;
    out.push_str("</svg></div>\n");
    Ok(())
}

/// Saliency under each prompt, mean ± standard deviation, and the robust score.
pub(super) fn spread(out: &mut String, ranking: &Ranking, best: &[HeadId]) -> fmt::Result {
    let heads = (ranking.layers * ranking.heads).max(1);
    let (mut low, mut high) = (0.0_f64, 0.0_f64);
    for id in best {
        let at = index(ranking, id);
        let (mean, std) = (at_or_nan(&ranking.mean, at), at_or_nan(&ranking.std, at));
        let saliency = ranking.saliency.iter().skip(at).step_by(heads).copied();
        for x in saliency.chain([at_or_nan(&ranking.rss, at), mean - std, mean + std]) {
            (low, high) = (low.min(x), high.max(x));
        }
    }
    let plot = Plot {
        x: Axis::new(0.0, best.len() as f64, "layer·head, best first"),
        y: Axis::new(low, high, "saliency"),
        width: COLUMN * best.len() as f64,
        height: 200.0,
    };
    out.push_str("<div class=\"wide\">");
    plot.open(out, "Saliency per prompt of the best heads", false)?;
    for (i, id) in best.iter().enumerate() {
        let at = index(ranking, id);
        let centre = i as f64 + 0.5;
        let (mean, std) = (at_or_nan(&ranking.mean, at), at_or_nan(&ranking.std, at));
        let rss = at_or_nan(&ranking.rss, at);
        plot.rect(
            out,
            "class=\"band\"",
            (centre - 0.15, mean - std),
            (centre + 0.15, mean + std),
            &format!("mean {mean:.4} ± {std:.4}"),
        )?;
        for (prompt, value) in ranking.saliency.iter().skip(at).step_by(heads).enumerate() {
            writeln!(
                out,
                "<circle class=\"dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"><title>prompt {}: {value:.4}</title></circle>",
                plot.x(centre),
                plot.y(*value),
                prompt + 1,
            )?;
        }
        plot.rect(
            out,
            "class=\"tick\"",
            (centre - 0.25, rss),
            (centre + 0.25, rss + (plot.y.high - plot.y.low) * 0.008),
            &format!("robust score {rss:.4}"),
        )?;
    }
    labels(out, &plot, ranking, best)?;
    out.push_str("</svg></div>\n");
    Ok(())
}

/// "layer·head" under each column, strong for expert heads.
fn labels(out: &mut String, plot: &Plot<'_>, ranking: &Ranking, best: &[HeadId]) -> fmt::Result {
    for (i, id) in best.iter().enumerate() {
        let class = if ranking.expert_heads.contains(id) {
            " class=\"strong\""
        } else {
            ""
        };
        write!(
            out,
            "<text{class} x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}·{}</text>",
            plot.x(i as f64 + 0.5),
            Plot::TOP + plot.height + 16.0,
            id.layer,
            id.head
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_scaled_under_each_prompt_and_a_constant_one_counts_as_nothing() {
        let values = [0.0, 5.0, 10.0, 7.0, 7.0, 7.0, 4.0, 2.0, 0.0];
        let third = 1.0 / 3.0;
        let want = [third, 0.5 * third + 0.5 * third, third];
        for (got, want) in scaled(&values, 3).iter().zip(want) {
            assert!((got - want).abs() < 1e-12);
        }
    }
}
