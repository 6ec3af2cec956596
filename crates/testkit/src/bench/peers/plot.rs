// SPDX-License-Identifier: Apache-2.0
//! The figures as a picture: for each piece of work a bar for each contestant, as SVG.

use std::fmt::Write;

use super::report::{Figure, Report, Row};

const WIDTH: u32 = 720;
const NAME_WIDTH: u32 = 110;
const BAR: u32 = 14;
const BAR_STEP: u32 = 18;
/// What a title takes, and the gap after a group.
const TITLE: u32 = 26;
const GAP: u32 = 12;
/// Room for the figure to the right of the longest bar.
const FIGURE_WIDTH: u32 = 130;

/// Draws a report.
pub fn svg(report: &Report) -> String {
    let mut body = String::new();
    let mut top = 10;
    for row in &report.rows {
        top = group(&mut body, report, row, top);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{top}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{top}\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

/// Draws one row below `top`, and returns where the next one starts.
fn group(body: &mut String, report: &Report, row: &Row, top: u32) -> u32 {
    let values = row.figures.values().filter_map(|figure| match figure {
        Figure::Value(value) => Some(*value),
        Figure::Failed(_) => None,
    });
    let most = values.fold(f64::MIN_POSITIVE, f64::max);
    let mut line = |text: String| body.push_str(&(text + "\n"));
    line(format!(
        "<text x=\"10\" y=\"{}\" font-weight=\"bold\">{} ({})</text>",
        top + 15,
        escaped(&row.work),
        row.unit.name()
    ));
    let mut at = top + TITLE;
    for contestant in &report.contestants {
        let Some(figure) = row.figures.get(&contestant.name) else {
            continue;
        };
        let base = at + BAR - 3;
        let name = escaped(&contestant.name);
        line(format!("<text x=\"10\" y=\"{base}\">{name}</text>"));
        let (length, text) = match figure {
            Figure::Value(value) => (value / most, format!("{value:.0}")),
            Figure::Failed(_) => (0.0, "failed".into()),
        };
        let length = length * f64::from(WIDTH - NAME_WIDTH - FIGURE_WIDTH);
        let fill = if contestant.name == "forebay" {
            "#1f6feb"
        } else {
            "#9aa4b2"
        };
        line(format!(
            "<rect x=\"{NAME_WIDTH}\" y=\"{at}\" width=\"{length:.1}\" height=\"{BAR}\" fill=\"{fill}\"/>"
        ));
        let end = f64::from(NAME_WIDTH) + length + 6.0;
        line(format!("<text x=\"{end:.1}\" y=\"{base}\">{text}</text>"));
        at += BAR_STEP;
    }
    at + GAP
}

fn escaped(text: &str) -> String {
    let mut safe = String::new();
    for letter in text.chars() {
        let written = match letter {
            '<' => write!(safe, "&lt;"),
            '>' => write!(safe, "&gt;"),
            '&' => write!(safe, "&amp;"),
            other => write!(safe, "{other}"),
        };
        written.expect("a string takes what is written to it");
    }
    safe
}
