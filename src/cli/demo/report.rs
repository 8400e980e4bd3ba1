//! The demo's HTML report: one self-contained page, the probability curve of every unseen clip over
//! time with the truth shaded and the events marked.

use std::fmt::Write;

/// One unseen clip, scored.
pub struct ClipCurve {
    /// File name.
    pub name: String,
    /// What the clip shows, e.g. `smoke` or `normal`.
    pub kind: String,
    /// Length, seconds.
    pub duration_s: f64,
    /// Per segment: start, end (seconds), p, p′.
    pub segments: Vec<[f64; 4]>,
    /// True anomalous intervals, seconds.
    pub truth: Vec<(f64, f64)>,
    /// Detected events: start, end (seconds), peak p′.
    pub events: Vec<[f64; 3]>,
}

/// The figures above the curves.
pub struct Figures {
    /// Frame ROC-AUC over all unseen clips.
    pub auc: f64,
    /// Frame average precision.
    pub ap: f64,
    /// Mean AUC and AP of the random draws, and how many there were.
    pub random: (f64, f64, usize),
    /// τ of the profile.
    pub threshold: f64,
    /// Expert heads as `(layer, head)`.
    pub heads: String,
}

const WIDTH: f64 = 880.0;
const HEIGHT: f64 = 120.0;
const LEFT: f64 = 34.0;
const BOTTOM: f64 = 20.0;

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;color:#1d2733;max-width:960px;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.5rem}h2{font-size:1rem;margin:1.6rem 0 .2rem}\
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .9rem;border-bottom:1px solid #d5dce3;text-align:right}\
td:first-child,th:first-child{text-align:left}.note{background:#fff6dc;border-left:4px solid #e0a800;padding:.6rem 1rem}\
.key span{display:inline-block;margin-right:1.4rem}.key i{display:inline-block;width:1.6em;height:.7em;margin-right:.4em;vertical-align:middle}\
svg{display:block;background:#fafbfc;border:1px solid #e3e8ee}text{font:11px system-ui,sans-serif;fill:#5a6876}";

/// The page.
pub fn html(figures: &Figures, clips: &[ClipCurve]) -> String {
    let mut page = String::new();
    let (random_auc, random_ap, draws) = figures.random;
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>HeadHunt demo</title>\
         <style>{STYLE}</style><h1>HeadHunt demo: {} unseen clips</h1>\
         <p class=\"note\">The model's weights are <b>random</b> and the clips are <b>synthetic</b>. \
         This page shows that the whole path works, from video over gRPC to events; it says nothing \
         about accuracy on real footage. With a real InternVL3 checkpoint the heads carry what the \
         model has learnt about the world.</p>\
         <table><tr><th>over all unseen frames<th>ROC-AUC<th>average precision\
         <tr><td>hunted heads {}<td>{:.3}<td>{:.3}\
         <tr><td>random heads, mean of {draws} draws<td>{random_auc:.3}<td>{random_ap:.3}</table>\
         <p class=\"key\"><span><i style=\"background:#f6c7c2\"></i>true anomaly</span>\
         <span><i style=\"background:#9db4cc\"></i>p of a segment</span>\
         <span><i style=\"background:#12508c\"></i>p′, smoothed</span>\
         <span><i style=\"background:#c0392b\"></i>detected event</span>\
         <span>dashes: threshold τ = {:.2}</span></p>",
        clips.len(),
        escape(&figures.heads),
        figures.auc,
        figures.ap,
        figures.threshold,
    );
    for clip in clips {
        curve(&mut page, clip, figures.threshold);
    }
    page.push_str("</html>\n");
    page
}

fn curve(page: &mut String, clip: &ClipCurve, threshold: f64) {
    let duration = clip.duration_s.max(1e-3);
    let x = |s: f64| LEFT + (WIDTH - LEFT - 8.0) * (s / duration).clamp(0.0, 1.0);
    let y = |p: f64| 6.0 + (HEIGHT - BOTTOM - 6.0) * (1.0 - p.clamp(0.0, 1.0));
    let _ = write!(
        page,
        "<h2>{} <small>({})</small></h2><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"anomaly probability over time\">",
        escape(&clip.name),
        escape(&clip.kind)
    );
    for &(start, end) in &clip.truth {
        let _ = write!(
            page,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#f6c7c2\"/>",
            x(start),
            y(1.0),
            x(end) - x(start),
            y(0.0) - y(1.0)
        );
    }
    for p in [0.0, 0.5, 1.0] {
        let _ = write!(
            page,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"#e3e8ee\"/>\
             <text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{p}</text>",
            WIDTH - 8.0,
            y(p),
            LEFT - 6.0,
            y(p) + 4.0
        );
    }
    let tick = [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0]
        .into_iter()
        .find(|step| duration / step <= 12.0)
        .unwrap_or(7200.0);
    for i in 0..=((duration / tick) as usize).min(100) {
        let s = i as f64 * tick;
        let _ = write!(
            page,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{s} s</text>",
            x(s).max(LEFT + 6.0),
            HEIGHT - 5.0
        );
    }
    for &[start, end, p, _] in &clip.segments {
        let _ = write!(
            page,
            "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{2:.1}\" y2=\"{2:.1}\" stroke=\"#9db4cc\" stroke-width=\"2\"/>",
            x(start),
            x(end),
            y(p)
        );
    }
    let points: Vec<String> = clip
        .segments
        .iter()
        .map(|&[start, end, _, smoothed]| {
            format!("{:.1},{:.1}", x((start + end) / 2.0), y(smoothed))
        })
        .collect();
    let _ = write!(
        page,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#12508c\" stroke-width=\"2\"/>\
         <line x1=\"{LEFT}\" x2=\"{}\" y1=\"{2:.1}\" y2=\"{2:.1}\" stroke=\"#5a6876\" stroke-dasharray=\"4 4\"/>",
        points.join(" "),
        WIDTH - 8.0,
        y(threshold)
    );
    for &[start, end, peak] in &clip.events {
        let _ = write!(
            page,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"5\" fill=\"#c0392b\">\
             <title>{start:.1} to {end:.1} s, peak {peak:.2}</title></rect>",
            x(start),
            y(0.0) - 5.0,
            (x(end) - x(start)).max(2.0)
        );
    }
    page.push_str("</svg>");
}

/// Text for HTML content and attributes.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_the_page() {
        let figures = Figures {
            auc: 0.9,
            ap: 0.8,
            random: (0.5, 0.2, 10),
            threshold: 0.6,
            heads: "(0,1)".into(),
        };
        let clip = ClipCurve {
            name: "<script>".into(),
            kind: "smoke".into(),
            duration_s: 3.2,
            segments: vec![[0.0, 1.6, 0.2, 0.3], [1.6, 3.2, 0.9, 0.8]],
            truth: vec![(1.6, 3.2)],
            events: vec![[1.6, 3.2, 0.8]],
        };
        let page = html(&figures, &[clip]);
        assert!(!page.contains("<script>"));
        assert!(page.contains("&lt;script&gt;") && page.contains("polyline"));
    }
}
