//! A hunt as one self-contained HTML page: expert heads, heat map of robust scores, and for the best
//! heads their four metrics and their spread over prompts.

use std::fmt::{self, Write};

use super::{HuntOptions, HuntResult, file::LabelledFeatures, rank};
use crate::head::HeadId;

/// Heads in the detailed charts.
const DETAILED: usize = 20;

/// Names and colours of the four metrics, apart in hue and lightness.
const METRICS: [(&str, &str); 4] = [
    ("LDA", "#1b6ca8"),
    ("KL", "#d98e04"),
    ("MMD²", "#2f9e6e"),
    ("NMI", "#a03a6b"),
];

/// Colours of the heat map from the lowest score to the highest.
const RAMP: [[f64; 3]; 5] = [
    [247.0, 250.0, 252.0],
    [200.0, 220.0, 238.0],
    [112.0, 173.0, 212.0],
    [36.0, 110.0, 176.0],
    [10.0, 48.0, 104.0],
];

const STYLE: &str = "
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2530; background: #fff; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
p { max-width: 50rem; } .lead { color: #55606e; }
table { border-collapse: collapse; } th, td { padding: .25rem .9rem; text-align: right; border-bottom: 1px solid #e2e8ee; font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: #55606e; } svg { max-width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: #55606e; }
svg .strong { fill: #1c2530; font-weight: 600; } .key span { display: inline-block; width: .8rem; height: .8rem; margin: 0 .3rem 0 1rem; vertical-align: -1px; }
.notes li { max-width: 50rem; }";

/// Renders the page. Needs no network and no script; texts from the input are escaped.
pub fn page(labelled: &LabelledFeatures, result: &HuntResult, options: &HuntOptions) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = render(&mut out, labelled, result, options);
    out
}

fn render(
    out: &mut String,
    labelled: &LabelledFeatures,
    result: &HuntResult,
    options: &HuntOptions,
) -> fmt::Result {
    let anomalous = labelled.labels.iter().filter(|&&l| l).count();
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>HeadHunt: expert heads</title><style>{STYLE}</style></head><body>\n<h1>Expert heads</h1>\n<p class=\"lead\">{} samples ({anomalous} anomalous, {} normal), {} prompts, {} layers of {} heads, {} numbers per head; K&nbsp;=&nbsp;{}, λ&nbsp;=&nbsp;{}.</p>\n",
        labelled.labels.len(),
        labelled.labels.len() - anomalous,
        result.prompts,
        result.layers,
        result.heads,
        labelled.features.head_dim,
        options.top_k,
        options.lambda,
    )?;
    expert_table(out, result)?;
    if !result.notes.is_empty() {
        out.push_str("<h2>Read this with the numbers</h2>\n<ul class=\"notes\">");
        for note in &result.notes {
            write!(out, "<li>{}</li>", Escaped(note))?;
        }
        out.push_str("</ul>\n");
    }
    out.push_str("<h2>Robust saliency score of every head</h2>\n<p>Mean saliency over prompts minus λ standard deviations; layers down, heads across. The expert heads are framed and numbered by rank.</p>\n");
    heat_map(out, result)?;
    let best = rank::top(&result.rss, result.heads, DETAILED);
    write!(
        out,
        "<h2>The four metrics of the best {} heads</h2>\n<p>Each scaled to 0–1 over all heads and averaged over prompts. Expert heads are in bold.</p>\n<p class=\"key\">",
        best.len()
    )?;
    for (name, colour) in METRICS {
        write!(out, "<span style=\"background:{colour}\"></span>{name}")?;
    }
    out.push_str("</p>\n");
    metric_bars(out, result, &best)?;
    write!(
        out,
        "<h2>Spread over prompts of the best {} heads</h2>\n<p>A dot per prompt at the head's saliency under it; the bar is mean ± standard deviation, the dark tick the robust score.</p>\n",
        best.len()
    )?;
    spread(out, result, &best)?;
    if let Some(prompts) = &labelled.prompts {
        out.push_str("<h2>Prompts</h2>\n<ol>");
        for prompt in prompts {
            write!(out, "<li>{}</li>", Escaped(prompt))?;
        }
        out.push_str("</ol>\n");
    }
    out.push_str("</body></html>\n");
    Ok(())
}

fn expert_table(out: &mut String, result: &HuntResult) -> fmt::Result {
    out.push_str("<table><tr><th>rank</th><th>layer</th><th>head</th><th>robust score</th><th>mean</th><th>std</th></tr>\n");
    for (rank, id) in result.expert_heads.iter().enumerate() {
        let at = index(result, id);
        writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.4}</td><td>{:.4}</td><td>{:.4}</td></tr>",
            rank + 1,
            id.layer,
            id.head,
            result.rss[at],
            result.mean[at],
            result.std[at]
        )?;
    }
    out.push_str("</table>\n");
    Ok(())
}

fn index(result: &HuntResult, id: &HeadId) -> usize {
    id.layer * result.heads + id.head
}

/// Layers down, heads across.
fn heat_map(out: &mut String, result: &HuntResult) -> fmt::Result {
    let cell = (960.0 / result.heads as f64).clamp(6.0, 32.0);
    let (left, top) = (44.0, 22.0);
    let (width, height) = (result.heads as f64 * cell, result.layers as f64 * cell);
    let low = result.rss.iter().copied().fold(f64::INFINITY, f64::min);
    let high = result.rss.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let scaled = |x: f64| {
        if high > low {
            (x - low) / (high - low)
        } else {
            0.0
        }
    };
    open_svg(
        out,
        left + width + 12.0,
        top + height + 54.0,
        "Robust saliency score by layer and head",
    )?;
    // Every label has room for about 24 pixels.
    let every = (24.0 / cell).ceil() as usize;
    for head in (0..result.heads).step_by(every) {
        let x = left + (head as f64 + 0.5) * cell;
        write!(
            out,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{head}</text>",
            top - 6.0
        )?;
    }
    for layer in (0..result.layers).step_by((14.0 / cell).ceil() as usize) {
        let y = top + (layer as f64 + 0.5) * cell + 4.0;
        write!(
            out,
            "<text x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{layer}</text>",
            left - 6.0
        )?;
    }
    out.push('\n');
    for (i, &rss) in result.rss.iter().enumerate() {
        let (layer, head) = (i / result.heads, i % result.heads);
        writeln!(
            out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{cell:.1}\" height=\"{cell:.1}\" fill=\"{}\"><title>layer {layer}, head {head}: {rss:.4}</title></rect>",
            left + head as f64 * cell,
            top + layer as f64 * cell,
            colour(scaled(rss)),
        )?;
    }
    for (rank, id) in result.expert_heads.iter().enumerate() {
        let (x, y) = (left + id.head as f64 * cell, top + id.layer as f64 * cell);
        writeln!(
            out,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{cell:.1}\" height=\"{cell:.1}\" fill=\"none\" stroke=\"#e4572e\" stroke-width=\"2.5\"/>"
        )?;
        if cell >= 14.0 {
            let dark = scaled(result.rss[index(result, id)]) > 0.5;
            writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" style=\"font-weight:700;fill:{}\">{}</text>",
                x + cell / 2.0,
                y + cell / 2.0 + 4.0,
                if dark { "#fff" } else { "#1c2530" },
                rank + 1
            )?;
        }
    }
    // The scale.
    let y = top + height + 16.0;
    let steps = 40;
    for i in 0..steps {
        let part = f64::from(i) / f64::from(steps - 1);
        write!(
            out,
            "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"5.2\" height=\"12\" fill=\"{}\"/>",
            left + f64::from(i) * 5.0,
            colour(part)
        )?;
    }
    writeln!(
        out,
        "<text x=\"{left}\" y=\"{0:.1}\">{low:.3}</text><text x=\"{1:.1}\" y=\"{0:.1}\" text-anchor=\"end\">{high:.3}</text></svg>",
        y + 26.0,
        left + 200.0
    )
}

/// Mean over prompts of each metric scaled to 0..1 over all heads, `[metric][head]`.
fn scaled_metrics(result: &HuntResult) -> [Vec<f64>; 4] {
    let heads = result.layers * result.heads;
    [&result.lda, &result.kl, &result.mmd, &result.nmi].map(|raw| {
        let mut scaled = raw.clone();
        for prompt in scaled.chunks_exact_mut(heads) {
            rank::min_max(prompt);
        }
        rank::robust(&scaled, heads, 0.0).mean
    })
}

/// A group of four bars per head.
fn metric_bars(out: &mut String, result: &HuntResult, best: &[HeadId]) -> fmt::Result {
    let (group, bar) = (48.0, 9.0);
    let axis = Axis {
        low: 0.0,
        high: 1.0,
        height: 170.0,
        width: group * best.len() as f64,
    };
    open_svg(
        out,
        axis.full_width(),
        axis.full_height(),
        "Metrics of the best heads",
    )?;
    axis.grid(out)?;
    let metrics = scaled_metrics(result);
    for (i, id) in best.iter().enumerate() {
        for (m, (name, colour)) in METRICS.iter().enumerate() {
            let value = metrics[m][index(result, id)].clamp(0.0, 1.0);
            writeln!(
                out,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"><title>{name} of layer {}, head {}: {value:.4}</title></rect>",
                Axis::LEFT + i as f64 * group + 6.0 + m as f64 * bar,
                axis.y(value),
                bar - 1.0,
                value * axis.height,
                id.layer,
                id.head,
            )?;
        }
        axis.label(out, result, id, (i as f64 + 0.5) * group)?;
    }
    out.push_str("</svg>\n");
    Ok(())
}

/// Saliency under each prompt, mean ± standard deviation, and the robust score.
fn spread(out: &mut String, result: &HuntResult, best: &[HeadId]) -> fmt::Result {
    let group = 48.0;
    let heads = result.layers * result.heads;
    let values = best.iter().flat_map(|id| {
        let at = index(result, id);
        let saliency = result.saliency.iter().skip(at).step_by(heads);
        saliency.copied().chain([
            result.rss[at],
            result.mean[at] - result.std[at],
            result.mean[at] + result.std[at],
        ])
    });
    let (low, high) = values.fold((0.0_f64, 0.0_f64), |(low, high), x| {
        (low.min(x), high.max(x))
    });
    let axis = Axis {
        low,
        high: if high > low { high } else { low + 1.0 },
        height: 200.0,
        width: group * best.len() as f64,
    };
    open_svg(
        out,
        axis.full_width(),
        axis.full_height(),
        "Saliency per prompt of the best heads",
    )?;
    axis.grid(out)?;
    for (i, id) in best.iter().enumerate() {
        let at = index(result, id);
        let centre = (i as f64 + 0.5) * group;
        let x = Axis::LEFT + centre;
        let (mean, std, rss) = (result.mean[at], result.std[at], result.rss[at]);
        writeln!(
            out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"14\" height=\"{:.1}\" fill=\"#c8dcee\"><title>mean {mean:.4} ± {std:.4}</title></rect>",
            x - 7.0,
            axis.y(mean + std),
            axis.y(mean - std) - axis.y(mean + std),
        )?;
        for (prompt, value) in result.saliency.iter().skip(at).step_by(heads).enumerate() {
            writeln!(
                out,
                "<circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"#1b6ca8\" fill-opacity=\".8\"><title>prompt {}: {value:.4}</title></circle>",
                axis.y(*value),
                prompt + 1,
            )?;
        }
        writeln!(
            out,
            "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{2:.1}\" y2=\"{2:.1}\" stroke=\"#1c2530\" stroke-width=\"2\"><title>robust score {rss:.4}</title></line>",
            x - 12.0,
            x + 12.0,
            axis.y(rss),
        )?;
        axis.label(out, result, id, centre)?;
    }
    out.push_str("</svg>\n");
    Ok(())
}

/// The vertical axis of a chart with one column per head.
struct Axis {
    low: f64,
    high: f64,
    height: f64,
    width: f64,
}

impl Axis {
    const LEFT: f64 = 44.0;
    const TOP: f64 = 10.0;

    fn full_width(&self) -> f64 {
        Self::LEFT + self.width + 8.0
    }

    fn full_height(&self) -> f64 {
        Self::TOP + self.height + 24.0
    }

    fn y(&self, value: f64) -> f64 {
        Self::TOP + self.height * (self.high - value) / (self.high - self.low)
    }

    fn grid(&self, out: &mut String) -> fmt::Result {
        // The smallest of 1, 2, 5 · 10ⁿ that leaves at most five steps.
        let least = (self.high - self.low) / 5.0;
        let decade = 10_f64.powf(least.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|m| m * decade)
            .into_iter()
            .find(|s| *s >= least)
            .unwrap_or(least);
        let decimals = if step < 0.1 { 2 } else { 1 };
        let first = (self.low / step).ceil();
        for i in 0..=5 {
            // Adding 0 turns −0 into 0.
            let value = (first + f64::from(i)) * step + 0.0;
            if value > self.high + step * 1e-9 {
                break;
            }
            let y = self.y(value);
            write!(
                out,
                "<line x1=\"{0}\" x2=\"{1:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#e2e8ee\"/><text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{value:.decimals$}</text>",
                Self::LEFT,
                Self::LEFT + self.width,
                Self::LEFT - 6.0,
                y + 4.0,
            )?;
        }
        out.push('\n');
        Ok(())
    }

    /// "layer·head" under a column, bold for expert heads.
    fn label(
        &self,
        out: &mut String,
        result: &HuntResult,
        id: &HeadId,
        centre: f64,
    ) -> fmt::Result {
        let class = if result.expert_heads.contains(id) {
            " class=\"strong\""
        } else {
            ""
        };
        writeln!(
            out,
            "<text{class} x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}·{}</text>",
            Self::LEFT + centre,
            Self::TOP + self.height + 16.0,
            id.layer,
            id.head
        )
    }
}

fn open_svg(out: &mut String, width: f64, height: f64, title: &str) -> fmt::Result {
    writeln!(
        out,
        "<svg role=\"img\" aria-label=\"{0}\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\">",
        Escaped(title)
    )
}

/// A colour of the ramp for `part` in 0..1.
fn colour(part: f64) -> String {
    let last = RAMP.len() - 1;
    let at = part.clamp(0.0, 1.0) * last as f64;
    let i = (at as usize).min(last - 1);
    let rest = at - i as f64;
    let [r, g, b] =
        std::array::from_fn(|c| (RAMP[i][c] + (RAMP[i + 1][c] - RAMP[i][c]) * rest).round() as u8);
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Text that cannot end an element or an attribute.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_break_out_of_its_element() {
        let hostile = "<script>alert('x' && \"y\")</script>";
        assert_eq!(
            Escaped(hostile).to_string(),
            "&lt;script&gt;alert(&#39;x&#39; &amp;&amp; &quot;y&quot;)&lt;/script&gt;"
        );
    }

    #[test]
    fn ramp_runs_from_its_first_to_its_last_colour() {
        assert_eq!(colour(0.0), "#f7fafc");
        assert_eq!(colour(1.0), "#0a3068");
        assert_eq!(colour(0.5), "#70add4");
        assert_eq!(colour(7.0), colour(1.0));
    }
}
