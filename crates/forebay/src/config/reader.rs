// SPDX-License-Identifier: Apache-2.0
//! Reads TOML without stopping at the first fault.
//!
//! Each question for a key gives a value or takes note of a fault with its line, and goes on. What a
//! key means is not known here.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Fault;

/// A name further from every known one than this is no slip of the finger.
const DISTANCE_MAX: usize = 3;

/// Collects faults.
#[derive(Default)]
pub(super) struct Reader {
    faults: Vec<Fault>,
    /// Offsets of the first byte of each line.
    line_starts: Vec<usize>,
}

/// A table of the file, with its place.
pub(super) struct Section<'a> {
    table: &'a DeTable<'a>,
    pub(super) line: usize,
    lines: BTreeMap<String, usize>,
}

impl Section<'_> {
    /// Returns the line of a key, when the table has it.
    pub(super) fn line_of(&self, key: &str) -> Option<usize> {
        self.lines.get(key).copied()
    }
}

impl Reader {
    /// Parses a document and hands its root to `read`; none when it is no TOML at all.
    pub(super) fn document<T>(
        &mut self,
        text: &str,
        read: impl FnOnce(&mut Reader, &Section<'_>) -> T,
    ) -> Option<T> {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        self.line_starts = std::iter::once(0)
            .chain(ends.map(|(at, _)| at + 1))
            .collect();
        match DeTable::parse(text) {
            Ok(root) => {
                let root = self.section(root.get_ref(), 1);
                Some(read(self, &root))
            }
            Err(error) => {
                let line = error.span().map_or(0, |span| self.line(span.start));
                self.fault(line, error.message().to_owned());
                None
            }
        }
    }

    /// Takes note of a fault.
    pub(super) fn fault(&mut self, line: usize, message: String) {
        self.faults.push(Fault { line, message });
    }

    /// Takes note of a key that must be there; not when it is there and has a fault of its own.
    pub(super) fn missing(&mut self, section: &Section<'_>, key: &str, example: &str) {
        if section.line_of(key).is_none() {
            self.fault(
                section.line,
                format!("'{key}' is missing: give {key} = {example}"),
            );
        }
    }

    /// Returns all faults.
    pub(super) fn into_faults(self) -> Vec<Fault> {
        self.faults
    }

    /// Takes note of each key that is not known.
    pub(super) fn check_keys(&mut self, section: &Section<'_>, known: &[&str]) {
        for (key, line) in &section.lines {
            if known.contains(&key.as_str()) {
                continue;
            }
            let nearest = known.iter().min_by_key(|name| distance(key, name));
            let advice = match nearest {
                Some(name) if distance(key, name) <= DISTANCE_MAX => {
                    format!("did you mean '{name}'?")
                }
                _ => format!("known here: {}", known.join(", ")),
            };
            self.fault(*line, format!("unknown key '{key}'; {advice}"));
        }
    }

    /// Returns a text, as `parse` reads it.
    pub(super) fn parsed<T>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = section.table.get(key)?.get_ref();
        let Some(text) = value.as_str() else {
            self.wrong_type(section, key, "a text in quotes", value);
            return None;
        };
        match parse(text) {
            Ok(parsed) => Some(parsed),
            Err(message) => {
                self.fault(
                    section.line_of(key).unwrap_or(0),
                    format!("{key}: {message}"),
                );
                None
            }
        }
    }

    /// Returns whether a key is a text.
    pub(super) fn is_text(&self, section: &Section<'_>, key: &str) -> bool {
        let value = section.table.get(key);
        value.is_some_and(|value| value.get_ref().as_str().is_some())
    }

    /// Returns true or false.
    pub(super) fn boolean(&mut self, section: &Section<'_>, key: &str) -> Option<bool> {
        let value = section.table.get(key)?.get_ref();
        if value.as_bool().is_none() {
            self.wrong_type(section, key, "true or false", value);
        }
        value.as_bool()
    }

    /// Returns a whole number within limits.
    pub(super) fn integer(
        &mut self,
        section: &Section<'_>,
        key: &str,
        limits: RangeInclusive<i64>,
    ) -> Option<i64> {
        let value = section.table.get(key)?.get_ref();
        let number = value
            .as_integer()
            .and_then(|number| i64::from_str_radix(number.as_str(), number.radix()).ok());
        if number.is_none_or(|number| !limits.contains(&number)) {
            let expected = format!("a number from {} to {}", limits.start(), limits.end());
            self.wrong_type(section, key, &expected, value);
            return None;
        }
        number
    }

    /// Returns a table.
    pub(super) fn table<'a>(&mut self, section: &Section<'a>, key: &str) -> Option<Section<'a>> {
        let value = section.table.get(key)?.get_ref();
        let line = section.line_of(key).unwrap_or(0);
        match value.as_table() {
            Some(table) => Some(self.section(table, line)),
            None => {
                self.wrong_type(section, key, "a table", value);
                None
            }
        }
    }

    /// Returns the tables of an array of tables, each with the line of its first key.
    pub(super) fn tables<'a>(&mut self, section: &Section<'a>, key: &str) -> Vec<Section<'a>> {
        let Some(value) = section.table.get(key) else {
            return Vec::new();
        };
        let line = section.line_of(key).unwrap_or(0);
        let Some(array) = value.get_ref().as_array() else {
            self.fault(line, format!("'{key}' is a list: write [[{key}]]"));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in array.iter() {
            match item.get_ref().as_table() {
                Some(table) => {
                    let section = self.section(table, self.line(item.span().start));
                    sections.push(section);
                }
                None => self.fault(
                    line,
                    format!("'{key}' is a list of tables: write [[{key}]]"),
                ),
            }
        }
        sections
    }

    /// Returns all texts, numbers and truth values of a table as text.
    pub(super) fn scalars(&mut self, section: &Section<'_>) -> BTreeMap<String, String> {
        let mut scalars = BTreeMap::new();
        for (key, value) in section.table {
            let text = match value.get_ref() {
                DeValue::String(text) => text.to_string(),
                DeValue::Boolean(on) => on.to_string(),
                DeValue::Integer(number) => number.as_str().to_owned(),
                other => {
                    self.wrong_type(
                        section,
                        key.get_ref(),
                        "a text, a number, or true or false",
                        other,
                    );
                    continue;
                }
            };
            scalars.insert(key.get_ref().to_string(), text);
        }
        scalars
    }

    fn wrong_type(
        &mut self,
        section: &Section<'_>,
        key: &str,
        expected: &str,
        found: &DeValue<'_>,
    ) {
        let line = section.line_of(key).unwrap_or(0);
        let found = match found {
            DeValue::Integer(number) => number.as_str().to_owned(),
            other => format!("this {}", other.type_str()),
        };
        self.fault(line, format!("'{key}' is {expected}, not {found}"));
    }

    fn section<'a>(&self, table: &'a DeTable<'a>, line: usize) -> Section<'a> {
        let place = |key: &Spanned<_>| self.line(key.span().start);
        let lines = table
            .keys()
            .map(|key| (key.get_ref().to_string(), place(key)))
            .collect();
        Section { table, line, lines }
    }

    fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }
}

/// Counts the letters to add, drop or change to make one word of another.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (row, left) in a.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, right) in b.iter().enumerate() {
            let changed = above[column] + usize::from(left != *right);
            current.push(changed.min(above[column + 1] + 1).min(current[column] + 1));
        }
        above = current;
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_of_words_counts_letters() {
        assert_eq!(distance("size", "size"), 0);
        assert_eq!(distance("siez", "size"), 2);
        assert_eq!(distance("mount_pont", "mount_point"), 1);
        assert_eq!(distance("", "abc"), 3);
    }
}
