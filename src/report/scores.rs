//! Pictures of held-out scores: the choice of K, histograms, ROC and PR curves, reliability, and
//! the locator's grid.

use std::fmt::{self, Write};

use super::{
    Grid, HeldOut, TopK,
    svg::{self, Axis, Plot},
};

/// Side of a square plot, pixels.
const SQUARE: f64 = 300.0;

/// Average precision against k with its standard error.
pub(super) fn k_curve(out: &mut String, top_k: &TopK) -> fmt::Result {
    let low = top_k
        .curve
        .iter()
        .map(|(_, ap, se)| ap - se)
        .fold(1.0, f64::min)
        .max(0.0);
    let most = top_k.curve.len().max(1) as f64;
    let mut x = Axis::new(0.5, most + 0.5, "K, number of heads");
    x.whole = true;
    let plot = Plot {
        x,
        y: Axis::new((low - 0.02).max(0.0), 1.0, "held-out average precision"),
        width: (most * 24.0).clamp(240.0, 820.0),
        height: 220.0,
    };
    out.push_str("<div class=\"wide\">");
    plot.open(out, "Average precision against the number of heads", true)?;
    for (k, ap, se) in &top_k.curve {
        let x = plot.x(*k as f64);
        writeln!(
            out,
            "<line class=\"whisker\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
            plot.y(ap + se),
            plot.y(ap - se)
        )?;
    }
    plot.line(
        out,
        "line c0",
        top_k.curve.iter().map(|(k, ap, _)| (*k as f64, *ap)),
    )?;
    for (k, ap, se) in &top_k.curve {
        let class = if *k == top_k.k {
            "point chosen-point"
        } else {
            "dot"
        };
        let radius = if *k == top_k.k { 6.0 } else { 3.0 };
        writeln!(
            out,
            "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\"><title>K = {k}: {ap:.4} ± {se:.4}</title></circle>",
            plot.x(*k as f64),
            plot.y(*ap)
        )?;
    }
    out.push_str("</svg></div>\n");
    Ok(())
}

/// Samples by p, one class above the other.
pub(super) fn histograms(out: &mut String, held: &HeldOut) -> fmt::Result {
    out.push_str("<div class=\"wide\">");
    for (counts, class, name) in [
        (&held.histogram_normal, "c1", "normal samples"),
        (&held.histogram_anomalous, "c2", "anomalous samples"),
    ] {
        let total: usize = counts.iter().sum();
        if total == 0 {
            continue;
        }
        let most = counts.iter().copied().max().unwrap_or(1) as f64;
        let mut y = Axis::new(0.0, most, name);
        y.whole = true;
        let plot = Plot {
            x: Axis::unit("p"),
            y,
            width: 760.0,
            height: 120.0,
        };
        plot.open(out, &format!("Histogram of p of {name}"), true)?;
        let bins = counts.len().max(1) as f64;
        for (i, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let (from, to) = (i as f64 / bins, (i + 1) as f64 / bins);
            plot.rect(
                out,
                &format!("class=\"fill {class}\""),
                (from + 0.002, 0.0),
                (to - 0.002, *count as f64),
                &format!("p {from:.2} to {to:.2}: {count} of {total}"),
            )?;
        }
        out.push_str("</svg>\n");
    }
    out.push_str("</div>\n");
    Ok(())
}

/// ROC and precision-recall, side by side.
pub(super) fn curves(out: &mut String, held: &HeldOut) -> fmt::Result {
    out.push_str("<div class=\"row\">");
    let plot = square("false-positive rate", "true-positive rate");
    plot.open(out, "ROC curve", true)?;
    plot.line(out, "line faint", [(0.0, 0.0), (1.0, 1.0)])?;
    plot.line(out, "line c0", held.roc.iter().copied())?;
    if let Some(auc) = held.roc_auc {
        svg::text(
            out,
            plot.x(0.97),
            plot.y(0.05),
            "end",
            &format!("area {auc:.4}"),
        )?;
    }
    out.push_str("</svg>\n");
    let plot = square("recall", "precision");
    plot.open(out, "Precision against recall", true)?;
    let chance = held.anomalous as f64 / held.samples.max(1) as f64;
    plot.line(out, "line faint", [(0.0, chance), (1.0, chance)])?;
    let first = held
        .precision_recall
        .first()
        .map(|(_, precision)| (0.0, *precision));
    plot.line(
        out,
        "line c0",
        first
            .into_iter()
            .chain(held.precision_recall.iter().copied()),
    )?;
    if let Some(ap) = held.average_precision {
        svg::text(
            out,
            plot.x(0.03),
            plot.y(0.05),
            "start",
            &format!("average precision {ap:.4}"),
        )?;
    }
    out.push_str("</svg></div>\n");
    Ok(())
}

fn square<'a>(x: &'a str, y: &'a str) -> Plot<'a> {
    Plot {
        x: Axis::unit(x),
        y: Axis::unit(y),
        width: SQUARE,
        height: SQUARE,
    }
}

/// Observed part of anomalous samples against mean p.
pub(super) fn reliability(out: &mut String, held: &HeldOut) -> fmt::Result {
    let plot = square("mean p of the bin", "part that is anomalous");
    plot.open(out, "Reliability of p", true)?;
    plot.line(out, "line faint", [(0.0, 0.0), (1.0, 1.0)])?;
    plot.line(
        out,
        "line c0",
        held.reliability.iter().map(|b| (b.mean, b.anomalous)),
    )?;
    for bin in &held.reliability {
        writeln!(
            out,
            "<circle class=\"dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{:.1}\"><title>mean p {:.3}, {:.3} anomalous, {} samples</title></circle>",
            plot.x(bin.mean),
            plot.y(bin.anomalous),
            // Area grows with the number of samples.
            3.0 + 7.0 * (bin.samples as f64 / held.samples.max(1) as f64).sqrt(),
            bin.mean,
            bin.anomalous,
            bin.samples
        )?;
    }
    out.push_str("</svg>\n");
    Ok(())
}

/// F1 over σ and τ.
pub(super) fn surface(out: &mut String, grid: &Grid) -> fmt::Result {
    let mut sigmas: Vec<f64> = grid.surface.iter().map(|(sigma, _, _)| *sigma).collect();
    sigmas.dedup();
    let taus: Vec<f64> = grid
        .surface
        .iter()
        .take_while(|(sigma, _, _)| Some(sigma) == sigmas.first())
        .map(|(_, tau, _)| *tau)
        .collect();
    let (Some(first), Some(last)) = (taus.first(), taus.last()) else {
        return Ok(());
    };
    let half = |values: &[f64]| match values {
        [a, b, ..] => (b - a) / 2.0,
        _ => 0.5,
    };
    let (wide, high) = (half(&taus), half(&sigmas));
    let (low_sigma, high_sigma) = (
        sigmas.first().copied().unwrap_or(0.0),
        sigmas.last().copied().unwrap_or(1.0),
    );
    let plot = Plot {
        x: Axis::new(first - wide, last + wide, "threshold τ"),
        y: Axis::new(low_sigma - high, high_sigma + high, "smoothing σ, segments"),
        width: 760.0,
        height: 24.0 * sigmas.len() as f64,
    };
    let best = grid
        .surface
        .iter()
        .map(|(_, _, f1)| *f1)
        .fold(0.0, f64::max);
    out.push_str("<div class=\"wide\">");
    plot.open(out, "Frame F1 by smoothing and threshold", true)?;
    for (sigma, tau, f1) in &grid.surface {
        let part = if best > 0.0 { f1 / best } else { 0.0 };
        plot.rect(
            out,
            // Squared, so that the ridge stands out.
            &format!(
                "class=\"heat\" fill-opacity=\"{:.3}\"",
                0.03 + 0.97 * part * part
            ),
            (tau - wide, sigma - high),
            (tau + wide, sigma + high),
            &format!("σ {sigma:.2}, τ {tau:.2}: F1 {f1:.4}"),
        )?;
    }
    writeln!(
        out,
        "<circle class=\"ring\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"7\"><title>chosen: σ {:.2}, τ {:.2}, F1 {:.4}</title></circle></svg></div>",
        plot.x(grid.threshold),
        plot.y(grid.sigma),
        grid.sigma,
        grid.threshold,
        grid.f1
    )
}
