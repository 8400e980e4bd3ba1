//! The page: its sections in order, and what each picture means in plain words.

use std::fmt::{self, Write};

use super::{
    FalseAlarms, Report, clips, heads, scores,
    svg::{Escaped, shortened},
};
use crate::limits::{REPORT_TEXT_MAX_CHARS, REPORT_WARNINGS_MAX};

const STYLE: &str = "
:root { color-scheme: light dark; --bg: #fbfcfd; --card: #ffffff; --ink: #1b2733; --soft: #5b6875; --line: #e3e8ed; --heat: #14508c; --c0: #1f6fb2; --c1: #4d8f6b; --c2: #c8553d; --mark: #d9622b; --m1: #c58a17; --m2: #3a9272; --m3: #96477a; --band: #bcd3e8; --truth: #f3c9bd; --note: #fff7e3; --note-edge: #d9a521; --on-dark: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --bg: #14191f; --card: #1a2028; --ink: #dfe6ec; --soft: #93a1af; --line: #2c3641; --heat: #7cc0ff; --c0: #6db3ee; --c1: #79bd96; --c2: #ec8a73; --mark: #ff9a5c; --m1: #e3b04b; --m2: #6cc7a4; --m3: #cf86b5; --band: #33506b; --truth: #5b332b; --note: #2c2718; --note-edge: #b98c24; --on-dark: #10151b; } }
* { box-sizing: border-box; }
body { font: 15px/1.55 system-ui, -apple-system, 'Segoe UI', sans-serif; color: var(--ink); background: var(--bg); max-width: 1080px; margin: 0 auto; padding: 2.2rem 1.2rem 4rem; }
h1 { font-size: 1.65rem; margin: 0 0 .3rem; font-weight: 650; } h2 { font-size: 1.15rem; margin: 2.6rem 0 .3rem; font-weight: 650; } h3 { font-size: .95rem; margin: 1.2rem 0 .1rem; font-weight: 600; overflow-wrap: anywhere; }
h3 small, .lead, .small { color: var(--soft); font-weight: 400; } .small { font-size: .85rem; margin: .1rem 0; }
p { max-width: 52rem; margin: .3rem 0 .7rem; } .wide { overflow-x: auto; } .row { display: flex; flex-wrap: wrap; gap: 1rem; }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; } .cards div { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .6rem 1rem; min-width: 8.5rem; } .cards b { display: block; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; } .cards span { color: var(--soft); font-size: .82rem; }
.notes { background: var(--note); border-left: 4px solid var(--note-edge); border-radius: 4px; padding: .7rem 1rem .7rem 2rem; max-width: 54rem; overflow-wrap: anywhere; } .notes li { margin: .2rem 0; }
table { border-collapse: collapse; margin: .4rem 0; } th, td { padding: .28rem .9rem; text-align: right; border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; } th { font-weight: 600; color: var(--soft); } .left td, .left th { text-align: left; overflow-wrap: anywhere; }
svg { display: block; max-width: none; } svg text { font: 11px system-ui, sans-serif; fill: var(--soft); } svg .axis { font-size: 12px; } svg .strong { fill: var(--ink); font-weight: 700; } svg .rank { font-weight: 700; } svg .on-dark { fill: var(--on-dark); } svg .on-light { fill: var(--ink); }
.grid { stroke: var(--line); } .heat { fill: var(--heat); } .chosen, .ring { fill: none; stroke: var(--mark); stroke-width: 2.5; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; } .line.c0 { stroke: var(--c0); } .faint { stroke: var(--soft); stroke-dasharray: 4 4; stroke-width: 1; } .raw { stroke: var(--soft); stroke-width: 1; opacity: .75; } .threshold { stroke: var(--mark); stroke-dasharray: 6 4; stroke-width: 1.2; }
.whisker { stroke: var(--c0); stroke-width: 1; opacity: .5; } .dot { fill: var(--c0); fill-opacity: .85; } .chosen-point { fill: var(--mark); } .tick { fill: var(--ink); } .band { fill: var(--band); } .truth { fill: var(--truth); }
.fill.c1 { fill: var(--c1); } .fill.c2 { fill: var(--c2); } .m0 { fill: var(--c0); background: var(--c0); } .m1 { fill: var(--m1); background: var(--m1); } .m2 { fill: var(--m2); background: var(--m2); } .m3 { fill: var(--m3); background: var(--m3); }
.key span { display: inline-block; margin-right: 1.3rem; color: var(--soft); } .key i { display: inline-block; width: .85rem; height: .85rem; border-radius: 2px; margin-right: .4rem; vertical-align: -1px; }";

/// Renders the page.
pub(super) fn page(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = render(&mut out, report);
    out
}

fn render(out: &mut String, report: &Report) -> fmt::Result {
    let title = shortened(&report.title, REPORT_TEXT_MAX_CHARS);
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>{0}</title><style>{STYLE}</style></head><body>\n<h1>{0}</h1>\n",
        Escaped(&title)
    )?;
    lead(out, report)?;
    cards(out, report)?;
    warnings(out, report)?;
    comparison(out, report)?;
    if let Some(alarms) = &report.false_alarms {
        false_alarms(out, alarms)?;
    }
    ranking(out, report)?;
    held_out(out, report)?;
    over_time(out, report)?;
    asked(out, report)?;
    out.push_str("</body></html>\n");
    Ok(())
}

fn lead(out: &mut String, report: &Report) -> fmt::Result {
    let counts = report.samples;
    write!(
        out,
        "<p class=\"lead\">{} samples, {} anomalous and {} normal",
        counts.samples,
        counts.anomalous,
        counts.samples - counts.anomalous.min(counts.samples)
    )?;
    if counts.videos > 0 {
        write!(out, ", of {} videos", counts.videos)?;
    }
    if counts.validation > 0 {
        write!(out, "; {} of them kept for validation", counts.validation)?;
    }
    if counts.feedback > 0 {
        write!(out, "; {} of them from feedback", counts.feedback)?;
    }
    if let Some(ranking) = &report.ranking {
        write!(
            out,
            "; {} layers of {} heads under {} prompts",
            ranking.layers, ranking.heads, ranking.prompts
        )?;
    }
    out.push_str(".</p>\n");
    Ok(())
}

fn cards(out: &mut String, report: &Report) -> fmt::Result {
    let mut cards: Vec<(String, &str)> = Vec::new();
    if let Some(ranking) = &report.ranking {
        cards.push((ranking.expert_heads.len().to_string(), "expert heads"));
    }
    if let Some(held) = &report.held_out {
        if let Some(auc) = held.roc_auc {
            cards.push((format!("{auc:.3}"), "ROC-AUC, held-out samples"));
        }
        if let Some(ap) = held.average_precision {
            cards.push((format!("{ap:.3}"), "average precision, held-out"));
        }
    }
    if let Some(grid) = &report.locator {
        cards.push((format!("{:.3}", grid.f1), "frame F1 of the locator"));
        cards.push((format!("{:.2}", grid.sigma), "smoothing σ, segments"));
        cards.push((format!("{:.2}", grid.threshold), "threshold τ"));
    }
    if let Some(alarms) = &report.false_alarms {
        cards.push((format!("{:.3}", alarms.threshold), "threshold τ"));
        cards.push((
            format!("≤ {:.1}", alarms.upper_bound_per_day),
            "false alarms a day, 95% bound",
        ));
    }
    if cards.is_empty() {
        return Ok(());
    }
    out.push_str("<div class=\"cards\">");
    for (value, what) in cards {
        write!(out, "<div><b>{value}</b><span>{what}</span></div>")?;
    }
    out.push_str("</div>\n");
    Ok(())
}

fn warnings(out: &mut String, report: &Report) -> fmt::Result {
    if report.warnings.is_empty() {
        return Ok(());
    }
    out.push_str("<h2>Read this with the numbers</h2>\n<ul class=\"notes\">");
    for warning in report.warnings.iter().take(REPORT_WARNINGS_MAX) {
        write!(
            out,
            "<li>{}</li>",
            Escaped(&shortened(warning, REPORT_TEXT_MAX_CHARS))
        )?;
    }
    let more = report.warnings.len().saturating_sub(REPORT_WARNINGS_MAX);
    if more > 0 {
        write!(out, "<li>{more} more are in the report as JSON.</li>")?;
    }
    out.push_str("</ul>\n");
    Ok(())
}

fn comparison(out: &mut String, report: &Report) -> fmt::Result {
    if report.comparison.is_empty() {
        return Ok(());
    }
    out.push_str("<h2>Two ways of scoring, side by side</h2>\n<p>Both score the same held-out samples. The few-shot scorer was fitted to labelled samples of both classes; the other has seen normal footage alone, for ranking its heads too. The distance between them is what the anomalous labels are worth here.</p>\n<div class=\"wide\"><table class=\"left\"><tr><th>scorer</th><th>fitted on</th><th>ROC-AUC</th><th>average precision</th></tr>\n");
    for row in &report.comparison {
        writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{:.4}</td><td>{:.4}</td></tr>",
            Escaped(&row.name),
            Escaped(&row.fitted_on),
            row.roc_auc,
            row.average_precision
        )?;
    }
    out.push_str("</table></div>\n");
    Ok(())
}

fn false_alarms(out: &mut String, alarms: &FalseAlarms) -> fmt::Result {
    out.push_str("<h2>False alarms on normal footage</h2>\n<p>Events are counted on held-out normal footage as detection counts them: runs of segments above the threshold. The upper bound is what this much footage can show at 95% confidence; with no event at all in T days it is 3/T a day.</p>\n");
    writeln!(
        out,
        "<div class=\"wide\"><table><tr><th>asked for, a day</th><th>footage, hours</th><th>events on it</th><th>observed, a day</th><th>upper bound, a day</th><th>threshold</th></tr>\n<tr><td>{}</td><td>{:.2}</td><td>{}</td><td>{:.2}</td><td>{:.2}</td><td>{:.4}</td></tr></table></div>",
        alarms.target_per_day,
        alarms.footage_days * 24.0,
        alarms.events,
        alarms.observed_per_day,
        alarms.upper_bound_per_day,
        alarms.threshold
    )?;
    if !alarms.target_shown {
        out.push_str("<p>This footage is too short to show the rate that was asked for: the bound above is all that can be said.</p>\n");
    }
    Ok(())
}

fn ranking(out: &mut String, report: &Report) -> fmt::Result {
    let Some(ranking) = &report.ranking else {
        return Ok(());
    };
    out.push_str("<h2>Expert heads</h2>\n");
    heads::table(out, ranking)?;
    out.push_str("<h2>Robust score of every head</h2>\n<p>Mean saliency over prompts minus λ standard deviations: the stronger the colour, the better and the steadier over wordings. Hover a cell for its number. The chosen heads are framed and numbered by rank.</p>\n<div class=\"wide\">");
    heads::heat_map(out, ranking)?;
    out.push_str("</div>\n");
    let best = heads::best(ranking);
    write!(
        out,
        "<h2>What the best {} heads scored by</h2>\n<p>Each metric is scaled to 0–1 over all heads and averaged over prompts, so 1 is the best head of the model by that metric. Chosen heads are in bold.</p>\n",
        best.len()
    )?;
    heads::metric_bars(out, ranking, &best)?;
    write!(
        out,
        "<h2>Spread over prompts of the best {} heads</h2>\n<p>A dot is the head's saliency under one prompt, the bar mean ± standard deviation, the wide tick the robust score. A long bar is a head that depends on how it is asked.</p>\n",
        best.len()
    )?;
    heads::spread(out, ranking, &best)?;
    if let Some(top_k) = &report.top_k {
        write!(
            out,
            "<h2>How many heads</h2>\n<p>Average precision on held-out videos for each number of heads, with its standard error over {} folds{}. Heads were ranked anew in each fold, without its videos. The smallest K within one standard error of the best is chosen: K = {}.</p>\n",
            top_k.folds,
            if top_k.pooled {
                " (probabilities of all folds together, because some folds hold one class only; the error is the jackknife's)"
            } else {
                ""
            },
            top_k.k
        )?;
        scores::k_curve(out, top_k)?;
    }
    Ok(())
}

fn held_out(out: &mut String, report: &Report) -> fmt::Result {
    if let Some(held) = &report.held_out {
        write!(
            out,
            "<h2>Scores of held-out samples</h2>\n<p>{} samples, {} anomalous; {}. Well-told-apart classes stand at opposite ends.</p>\n",
            held.samples,
            held.anomalous,
            Escaped(&held.how)
        )?;
        scores::histograms(out, held)?;
        if !held.roc.is_empty() {
            out.push_str("<h2>ROC and precision–recall</h2>\n<p>Per sample, before smoothing. Left: how many anomalous samples are found for how many normal ones taken with them; the dashed line is chance. Right: how many of the samples above a threshold are anomalous; the dashed line is their share.</p>\n");
            scores::curves(out, held)?;
        }
        if !held.reliability.is_empty() {
            out.push_str("<h2>Is p a probability</h2>\n<p>Samples are grouped by p; a point on the dashed line means that of the samples scored p that very part is anomalous. Larger points hold more samples.</p>\n");
            scores::reliability(out, held)?;
        }
    }
    if let Some(grid) = &report.locator {
        out.push_str("<h2>Smoothing and threshold</h2>\n<p>Frame-level F1 of the held-out clips for every pair of the grid; the stronger the colour the better, the ring is the chosen pair. A broad ridge means that the choice is not delicate.</p>\n");
        scores::surface(out, grid)?;
    }
    Ok(())
}

fn over_time(out: &mut String, report: &Report) -> fmt::Result {
    if report.clips.is_empty() {
        return Ok(());
    }
    out.push_str("<h2>Held-out clips over time</h2>\n<p>Thin: p of each segment. Blue: p′ after smoothing. Dashed: the threshold τ; what lies above it is an event. Shaded: labelled anomalous. Each clip was scored by a fit that had not seen it.</p>\n");
    for clip in &report.clips {
        clips::clip(out, clip)?;
    }
    if report.clips_left_out > 0 {
        writeln!(
            out,
            "<p class=\"small\">{} more clips are not drawn.</p>",
            report.clips_left_out
        )?;
    }
    Ok(())
}

fn asked(out: &mut String, report: &Report) -> fmt::Result {
    if !report.options.is_empty() {
        out.push_str("<h2>Options</h2>\n<div class=\"wide\"><table class=\"left\">");
        for (name, value) in &report.options {
            let value = match value {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            write!(
                out,
                "<tr><th>{}</th><td>{}</td></tr>",
                Escaped(name),
                Escaped(&shortened(&value, REPORT_TEXT_MAX_CHARS))
            )?;
        }
        out.push_str("</table></div>\n");
    }
    if !report.prompts.is_empty() {
        out.push_str("<h2>Prompts</h2>\n<ol>");
        for prompt in &report.prompts {
            write!(
                out,
                "<li>{}</li>",
                Escaped(&shortened(prompt, REPORT_TEXT_MAX_CHARS))
            )?;
        }
        out.push_str("</ol>\n");
    }
    Ok(())
}
