// SPDX-License-Identifier: Apache-2.0
//! Walks the XML that storages answer: listings and refusals.
//!
//! The bytes may be hostile; names matter to the byte, so nothing is trimmed, and control
//! characters, which are illegal in XML, are taken as they are written.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// No answer of a storage nests deeper than six elements.
const DEPTH_MAX: usize = 32;

/// An element that has ended.
pub(crate) struct Element<'a> {
    /// The names from below the root down to it.
    pub(crate) path: &'a [&'a str],
    /// The text in it, after its last child.
    pub(crate) text: &'a str,
    /// It carries the attribute `Encoded="true"`.
    pub(crate) encoded: bool,
}

/// Calls `visit` at the end of each element below the root; returns the root's name. Fails unless
/// the document is whole.
pub(crate) fn walk(
    xml: &[u8],
    mut visit: impl FnMut(Element<'_>) -> Result<(), String>,
) -> Result<String, String> {
    let mut reader = Reader::from_reader(xml);
    let mut path: Vec<(String, bool)> = Vec::new();
    let mut text = String::new();
    let mut end = |path: &[(String, bool)], text: &str| {
        let encoded = path.last().is_some_and(|(_, encoded)| *encoded);
        let names: Vec<&str> = path.iter().skip(1).map(|(name, _)| name.as_str()).collect();
        visit(Element {
            path: &names,
            text,
            encoded,
        })
    };
    loop {
        match reader.read_event().map_err(|error| error.to_string())? {
            Event::Start(tag) => {
                path.push((tag.local_name().as_ref().to_string(), is_encoded(&tag)));
                text.clear();
                if path.len() > DEPTH_MAX {
                    return Err("elements nested too deep".into());
                }
            }
            Event::Empty(tag) => {
                path.push((tag.local_name().as_ref().to_string(), false));
                end(&path, "")?;
                path.pop();
            }
            Event::Text(piece) => text.push_str(&piece),
            Event::CData(piece) => text.push_str(&piece),
            Event::GeneralRef(name) => text.push(reference(&name)?),
            Event::End(_) => {
                end(&path, &text)?;
                text.clear();
                let (name, _) = path.pop().ok_or("an end without a start")?;
                if path.is_empty() {
                    return Ok(name);
                }
            }
            Event::Eof => return Err("it ends early".into()),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
}

fn is_encoded(tag: &BytesStart<'_>) -> bool {
    tag.try_get_attribute("Encoded")
        .ok()
        .flatten()
        .is_some_and(|attribute| &*attribute.value == "true")
}

/// Resolves what stands between `&` and `;`.
fn reference(name: &str) -> Result<char, String> {
    let named = match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "apos" => Some('\''),
        "quot" => Some('"'),
        _ => None,
    };
    let numbered = || {
        let number = name.strip_prefix('#')?;
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok()?,
            None => number.parse().ok()?,
        };
        char::from_u32(code)
    };
    named
        .or_else(numbered)
        .ok_or_else(|| format!("reference '&{};'", name.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(xml: &str) -> Result<Vec<String>, String> {
        let mut seen = Vec::new();
        walk(xml.as_bytes(), |element| {
            let mark = if element.encoded { "%" } else { "" };
            seen.push(format!(
                "{}={}{mark}",
                element.path.join("/"),
                element.text.escape_debug()
            ));
            Ok(())
        })?;
        Ok(seen)
    }

    #[test]
    fn elements_come_with_their_path_and_text_to_the_byte() {
        let xml = "<r><a x=\"1\"> b&#1;&lt;</a><c><d Encoded=\"true\">%2F</d><e/></c></r>";
        assert_eq!(
            seen(xml).unwrap(),
            ["a= b\\u{1}<", "c/d=%2F%", "c/e=", "c=", "="]
        );
    }

    #[test]
    fn a_document_that_is_cut_or_too_deep_is_refused() {
        let whole = "<r><a>1</a><b>2</b></r>";
        for cut in 0..whole.len() {
            assert!(seen(&whole[..cut]).is_err(), "cut at {cut}");
        }
        assert!(seen(&"<a>".repeat(1000)).is_err());
    }
}
