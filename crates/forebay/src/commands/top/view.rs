// SPDX-License-Identifier: Apache-2.0
//! What is shown, in which order, and what a key changes of it. Fits into 80 columns and 24 lines.

use ratatui::Frame;
use ratatui::crossterm::event::KeyCode;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row as TableRow, Table};
use types::ByteSize;

use super::rows::{Rates, Row};

/// What rows are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Of {
    #[default]
    Files,
    Processes,
    Mounts,
}

/// What rows are sorted by, the largest first; names by the alphabet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum By {
    #[default]
    Read,
    Written,
    Opens,
    Name,
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    GoOn,
    End,
}

/// What is shown, as keys have changed it.
#[derive(Debug, Default)]
pub(super) struct View {
    of: Of,
    by: By,
    is_turned: bool,
}

impl View {
    /// Does what a key stands for.
    pub(super) fn press(&mut self, key: KeyCode) -> After {
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return After::End,
            KeyCode::Char('f' | '1') => self.of = Of::Files,
            KeyCode::Char('p' | '2') => self.of = Of::Processes,
            KeyCode::Char('m' | '3') => self.of = Of::Mounts,
            KeyCode::Tab | KeyCode::Right => {
                self.of = match self.of {
                    Of::Files => Of::Processes,
                    Of::Processes => Of::Mounts,
                    Of::Mounts => Of::Files,
                }
            }
            KeyCode::Char('s') => {
                self.by = match self.by {
                    By::Read => By::Written,
                    By::Written => By::Opens,
                    By::Opens => By::Name,
                    By::Name => By::Read,
                }
            }
            KeyCode::Char('r') => self.is_turned = !self.is_turned,
            _ => {}
        }
        After::GoOn
    }

    /// Draws everything.
    pub(super) fn draw(&self, frame: &mut Frame<'_>, rates: &Rates) {
        let [head, table, note, keys] = Layout::vertical([
            Constraint::Length(3),
            Constraint::Min(2),
            Constraint::Length(1),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(Paragraph::new(self.head(rates)), head);
        self.table(frame, table, rates);
        let note_text = Span::styled(note_of(rates), Style::new().add_modifier(Modifier::DIM));
        frame.render_widget(note_text, note);
        let words = "f files  p processes  m mounts  s sort  r turn around  q quit";
        frame.render_widget(Span::styled(words, Style::new().reversed()), keys);
    }

    fn head(&self, rates: &Rates) -> Vec<Line<'static>> {
        let total = rates.total;
        let bytes = |count| ByteSize(rates.per_second(count));
        let ratio = total
            .hit_ratio
            .map(|ratio| format!("{:.1} %", ratio * 100.0));
        let tab = |of: Of, word: &'static str| match of == self.of {
            true => Span::styled(word, Style::new().reversed()),
            false => Span::raw(word),
        };
        let by = match self.by {
            By::Read => "bytes read",
            By::Written => "bytes written",
            By::Opens => "opens",
            By::Name => "name",
        };
        let turned = if self.is_turned { ", least first" } else { "" };
        vec![
            Line::from(format!(
                "forebay top  {}  memory {}  cache {}",
                rates.mount_point,
                ByteSize(total.memory_bytes),
                ByteSize(total.cache_bytes)
            ))
            .style(Style::new().add_modifier(Modifier::BOLD)),
            Line::from(format!(
                "read {}/s  fetched {}/s  storage {} req/s  hits {}",
                bytes(total.served_bytes),
                bytes(total.fetched_bytes),
                rates.per_second(total.storage_requests),
                ratio.as_deref().unwrap_or("-")
            )),
            Line::from(vec![
                tab(Of::Files, " files "),
                Span::raw(" "),
                tab(Of::Processes, " processes "),
                Span::raw(" "),
                tab(Of::Mounts, " mounts "),
                Span::raw(format!("  by {by}{turned}")),
            ]),
        ]
    }

    fn table(&self, frame: &mut Frame<'_>, area: Rect, rates: &Rates) {
        let rows = match self.of {
            Of::Files => &rates.files,
            Of::Processes => &rates.processes,
            Of::Mounts => &rates.mounts,
        };
        let rows = sorted(rows, self.by, self.is_turned);
        let first = match self.of {
            Of::Files => "FILE",
            Of::Processes => "PROCESS",
            Of::Mounts => "MOUNT",
        };
        let header = [first]
            .into_iter()
            .chain(COLUMNS.iter().map(|(name, _)| *name));
        let header = TableRow::new(header.map(Cell::from)).style(Style::new().underlined());
        let width = name_width(area.width);
        let shown = rows.iter().take(usize::from(area.height.saturating_sub(1)));
        let lines = shown.map(|row| {
            let mut cells = vec![fitted(&name_of(row), width)];
            cells.extend(cells_of(rates, row));
            TableRow::new(cells)
        });
        let mut widths = vec![Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX))];
        widths.extend(COLUMNS.iter().map(|(_, width)| Constraint::Length(*width)));
        frame.render_widget(Table::new(lines, widths).header(header), area);
    }
}

/// Columns behind the name, with their widths.
const COLUMNS: [(&str, u16); 5] = [
    ("READ/s", 9),
    ("WRITE/s", 9),
    ("OPENS/s", 7),
    ("KERNEL/s", 8),
    ("FETCH/s", 9),
];

/// Returns what the other columns leave to the name.
fn name_width(width: u16) -> usize {
    let others: u16 = COLUMNS.iter().map(|(_, width)| width + 1).sum();
    usize::from(width.saturating_sub(others).max(10))
}

fn name_of(row: &Row) -> String {
    match row.pid {
        Some(pid) => format!("{pid} {}", row.name),
        None => row.name.clone(),
    }
}

fn cells_of(rates: &Rates, row: &Row) -> [String; 5] {
    let bytes = |count| match count {
        0 => "-".to_owned(),
        count => ByteSize(rates.per_second(count))
            .to_string()
            .replace("iB", ""),
    };
    let number = |count| match count {
        0 => "-".to_owned(),
        count => rates.per_second(count).max(1).to_string(),
    };
    [
        bytes(row.counts.read_bytes),
        bytes(row.counts.written_bytes),
        number(row.counts.opens),
        number(row.counts.kernel_opens),
        row.fetched_bytes.map_or_else(String::new, bytes),
    ]
}

/// Shortens a name in its middle: its end tells most. What a terminal would take for a command, or
/// cannot show, is escaped.
fn fitted(name: &str, width: usize) -> String {
    let plain = |c: char| if c.is_control() { '?' } else { c };
    let letters: Vec<char> = name.chars().map(plain).collect();
    if letters.len() <= width {
        return letters.into_iter().collect();
    }
    let tail = &letters[letters.len() - width.saturating_sub(1)..];
    std::iter::once('…').chain(tail.iter().copied()).collect()
}

fn sorted(rows: &[Row], by: By, is_turned: bool) -> Vec<&Row> {
    let mut rows: Vec<&Row> = rows.iter().collect();
    // Of equals the same is always first, or the lines would dance.
    rows.sort_by_key(|row| name_of(row));
    let most_first = |of: fn(&Row) -> (u64, u64)| move |row: &&Row| std::cmp::Reverse(of(row));
    match by {
        By::Read => rows.sort_by_key(most_first(|row| (row.counts.read_bytes, row.counts.opens))),
        By::Written => {
            rows.sort_by_key(most_first(|row| {
                (row.counts.written_bytes, row.counts.opens)
            }));
        }
        By::Opens => {
            rows.sort_by_key(most_first(|row| (row.counts.opens, row.counts.read_bytes)));
        }
        By::Name => {}
    }
    if is_turned {
        rows.reverse();
    }
    rows
}

/// Says what the figures do not hold.
fn note_of(rates: &Rates) -> &'static str {
    match rates.passthrough {
        true => {
            "KERNEL: opens after which the kernel reads the file itself; its bytes show nowhere"
        }
        false => "every read is copied through the daemon, and shows here",
    }
}

/// Returns one table of each sort, for a terminal that is none.
pub(super) fn plain(rates: &Rates) -> String {
    const NAME: usize = 50;
    let mut text = String::new();
    for (of, rows) in [
        ("FILE", &rates.files),
        ("PROCESS", &rates.processes),
        ("MOUNT", &rates.mounts),
    ] {
        text.push_str(&format!("{of:<NAME$}"));
        for (name, width) in COLUMNS {
            text.push_str(&format!(" {name:>0$}", usize::from(width)));
        }
        text.push('\n');
        for row in sorted(rows, By::Read, false) {
            text.push_str(&format!("{:<NAME$}", fitted(&name_of(row), NAME)));
            for (cell, (_, width)) in cells_of(rates, row).iter().zip(COLUMNS) {
                text.push_str(&format!(" {cell:>0$}", usize::from(width)));
            }
            text.push('\n');
        }
        text.push('\n');
    }
    text.push_str(note_of(rates));
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::rows::tests::rates;
    use super::*;

    fn drawn(view: &View, rates: &Rates, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view.draw(frame, rates)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line = |y| {
            (0..width)
                .map(|x| buffer[(x, y)].symbol().to_owned())
                .collect()
        };
        (0..height).map(line).collect()
    }

    #[test]
    fn all_of_it_fits_into_eighty_columns_and_twenty_four_lines() {
        let mut view = View::default();
        let rates = rates();
        let lines = drawn(&view, &rates, 80, 24);
        let text = lines.join("\n");
        for part in [
            "/mnt/data",
            "hits 75.0 %",
            "FETCH/s",
            "KERNEL: opens",
            "q quit",
            "by bytes read",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let at = |text: &str| lines.iter().position(|line| line.starts_with(text));
        assert!(at("/a/1") < at("/c") && at("/a/1").is_some(), "{text}");
        assert_eq!(view.press(KeyCode::Char('p')), After::GoOn);
        let text = drawn(&view, &rates, 80, 24).join("\n");
        assert!(
            text.contains("7 python") && text.contains("PROCESS"),
            "{text}"
        );
        view.press(KeyCode::Tab);
        let text = drawn(&view, &rates, 80, 24).join("\n");
        assert!(text.contains("MOUNT") && text.contains("2 M"), "{text}");
        // A terminal of a few letters is no reason to panic.
        drawn(&view, &rates, 12, 3);
        assert_eq!(view.press(KeyCode::Char('q')), After::End);
    }

    #[test]
    fn keys_change_the_order() {
        let mut view = View::default();
        let rates = rates();
        let first = |view: &View| drawn(view, &rates, 80, 24)[4].clone();
        assert!(first(&view).starts_with("/a/1"), "{}", first(&view));
        view.press(KeyCode::Char('r'));
        assert!(first(&view).starts_with("/c"));
        for _ in 0..3 {
            view.press(KeyCode::Char('s'));
        }
        assert!(first(&view).starts_with("/c"));
        view.press(KeyCode::Char('r'));
        assert!(first(&view).starts_with("/a/1"));
    }

    #[test]
    fn a_long_name_keeps_its_end_and_a_hostile_one_is_harmless() {
        assert_eq!(fitted("/a/long/name.jpg", 9), "…name.jpg");
        assert_eq!(fitted("/a\u{1b}[2J", 20), "/a?[2J");
        let text = plain(&rates());
        assert!(text.contains("/a/1") && text.contains("PROCESS"), "{text}");
    }
}
