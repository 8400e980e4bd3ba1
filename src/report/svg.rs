//! Drawing: escaped text, an SVG element, a plot with two linear axes.
//!
//! Colours are CSS classes and variables of the page, so that a picture follows its light or dark
//! setting.

use std::fmt::{self, Write};

/// Text that cannot end an element or an attribute.
pub(super) struct Escaped<'a>(pub &'a str);

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

/// At most `most` characters of a text, with an ellipsis where it is longer.
pub(super) fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// Opens a picture of this size with a description for those who cannot see it.
pub(super) fn open(out: &mut String, width: f64, height: f64, label: &str) -> fmt::Result {
    writeln!(
        out,
        "<svg role=\"img\" aria-label=\"{}\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\">",
        Escaped(label)
    )
}

/// A text at a place; `anchor` is `start`, `middle` or `end`.
pub(super) fn text(out: &mut String, x: f64, y: f64, anchor: &str, text: &str) -> fmt::Result {
    write!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
        Escaped(text)
    )
}

/// One linear axis.
#[derive(Clone, Copy)]
pub(super) struct Axis<'a> {
    pub low: f64,
    pub high: f64,
    /// What it shows, with its unit.
    pub title: &'a str,
    /// Whether ticks stand at whole numbers only.
    pub whole: bool,
}

impl<'a> Axis<'a> {
    /// 0 to 1.
    pub fn unit(title: &'a str) -> Self {
        Axis::new(0.0, 1.0, title)
    }

    /// `low` to `high`; a span of nothing becomes one of 1.
    pub fn new(low: f64, high: f64, title: &'a str) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        Axis {
            low,
            high,
            title,
            whole: false,
        }
    }

    fn part(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// Round values inside, at most about `count`, and the decimals they need.
    fn ticks(&self, count: usize) -> (Vec<f64>, usize) {
        let least = (self.high - self.low) / count.max(1) as f64;
        let decade = 10_f64.powf(least.log10().floor());
        let mut step = [1.0, 2.0, 5.0, 10.0]
            .map(|m| m * decade)
            .into_iter()
            .find(|s| *s >= least * (1.0 - 1e-9))
            .unwrap_or(least);
        if self.whole {
            step = step.max(1.0).round();
        }
        let decimals = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
        let first = (self.low / step - 1e-9).ceil();
        let ticks = (0..=count + 1)
            // Adding 0 turns −0 into 0.
            .map(|i| (first + i as f64) * step + 0.0)
            .take_while(|value| *value <= self.high + step * 1e-9)
            .collect();
        (ticks, decimals)
    }
}

/// A plot with two axes; its area lies inside margins for their labels.
pub(super) struct Plot<'a> {
    pub x: Axis<'a>,
    pub y: Axis<'a>,
    /// Size of the area, pixels.
    pub width: f64,
    pub height: f64,
}

impl Plot<'_> {
    pub const LEFT: f64 = 58.0;
    pub const TOP: f64 = 12.0;
    pub const BOTTOM: f64 = 44.0;
    const RIGHT: f64 = 14.0;

    pub fn x(&self, value: f64) -> f64 {
        Self::LEFT + self.width * self.x.part(value)
    }

    pub fn y(&self, value: f64) -> f64 {
        Self::TOP + self.height * (1.0 - self.y.part(value))
    }

    /// Opens the picture and draws grid, tick labels and axis titles; `numbers` false leaves out the
    /// labels along x, for a chart of columns.
    pub fn open(&self, out: &mut String, label: &str, numbers: bool) -> fmt::Result {
        let full_height = Self::TOP + self.height + Self::BOTTOM;
        open(
            out,
            Self::LEFT + self.width + Self::RIGHT,
            full_height,
            label,
        )?;
        let (ticks, decimals) = self.y.ticks(5);
        for value in ticks {
            let y = self.y(value);
            write!(
                out,
                "<line class=\"grid\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
                Self::LEFT,
                Self::LEFT + self.width
            )?;
            text(
                out,
                Self::LEFT - 7.0,
                y + 4.0,
                "end",
                &format!("{value:.decimals$}"),
            )?;
        }
        if numbers {
            let (ticks, decimals) = self.x.ticks((self.width / 70.0).max(2.0) as usize);
            for value in ticks {
                let x = self.x(value);
                write!(
                    out,
                    "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
                    Self::TOP,
                    Self::TOP + self.height
                )?;
                let below = Self::TOP + self.height + 16.0;
                text(out, x, below, "middle", &format!("{value:.decimals$}"))?;
            }
        }
        let middle = Self::LEFT + self.width / 2.0;
        write!(
            out,
            "<text class=\"axis\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            full_height - 8.0,
            Escaped(self.x.title)
        )?;
        let centre = Self::TOP + self.height / 2.0;
        writeln!(
            out,
            "<text class=\"axis\" x=\"14\" y=\"{centre:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 14 {centre:.1})\">{}</text>",
            Escaped(self.y.title)
        )
    }

    /// A line through points, with a class for its colour.
    pub fn line(
        &self,
        out: &mut String,
        class: &str,
        points: impl IntoIterator<Item = (f64, f64)>,
    ) -> fmt::Result {
        write!(out, "<polyline class=\"{class}\" points=\"")?;
        for (x, y) in points {
            write!(out, "{:.1},{:.1} ", self.x(x), self.y(y))?;
        }
        out.push_str("\"/>\n");
        Ok(())
    }

    /// A rectangle between two corners, with a title where there is one.
    pub fn rect(
        &self,
        out: &mut String,
        attributes: &str,
        from: (f64, f64),
        to: (f64, f64),
        title: &str,
    ) -> fmt::Result {
        let (x1, x2) = (self.x(from.0), self.x(to.0));
        let (y1, y2) = (self.y(from.1.max(to.1)), self.y(from.1.min(to.1)));
        write!(
            out,
            "<rect {attributes} x=\"{x1:.1}\" y=\"{y1:.1}\" width=\"{:.1}\" height=\"{:.1}\"",
            (x2 - x1).max(0.0),
            y2 - y1
        )?;
        if title.is_empty() {
            out.push_str("/>\n");
            return Ok(());
        }
        writeln!(out, "><title>{}</title></rect>", Escaped(title))
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
        assert_eq!(
            (shortened("añb", 2), shortened("añ", 2)),
            ("añ…".into(), "añ".into())
        );
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let ticks = |low, high, count| Axis::new(low, high, "").ticks(count);
        let (at, decimals) = ticks(0.0, 1.0, 5);
        assert_eq!((at.len(), decimals), (6, 1));
        assert!((at[1] - 0.2).abs() < 1e-12 && (at[5] - 1.0).abs() < 1e-12);
        assert_eq!(ticks(-0.013, 0.094, 5).1, 2);
        let mut whole = Axis::new(1.0, 4.0, "");
        whole.whole = true;
        assert_eq!(whole.ticks(9), (vec![1.0, 2.0, 3.0, 4.0], 0));
        assert!(ticks(3.0, 3.0, 5).0.len() > 1);
    }
}
