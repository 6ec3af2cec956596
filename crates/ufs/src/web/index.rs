// SPDX-License-Identifier: Apache-2.0
//! Reads index pages: the links to what lies directly below the page.
//!
//! A pure function over bytes that may be hostile. It reads as much HTML as links need; sizes and
//! times of such pages are rounded and are not read.

use std::collections::BTreeSet;

use reqwest::Url;

use crate::http::percent_decode;

/// A name on an index page; `None` stands for one that is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Link {
    /// A name that ends with a slash.
    Directory(Option<String>),
    /// Any other name.
    File(Option<String>),
}

/// Returns what the page at `url` links to, directories first, each sorted; `None` when it does not
/// look like an index.
pub(super) fn parse(url: &Url, page: &[u8]) -> Option<Vec<Link>> {
    let text = String::from_utf8_lossy(page);
    let mut links = BTreeSet::new();
    let mut unreadable = Vec::new();
    let mut has_parent = false;
    let parent = url.join("../").ok();
    for reference in references(&text) {
        let Ok(mut target) = url.join(&reference) else {
            continue;
        };
        if target.query().is_some() && target.path() == url.path() {
            // A way to sort the page.
            continue;
        }
        target.set_query(None);
        target.set_fragment(None);
        has_parent |= parent.as_ref() == Some(&target);
        if target.origin() != url.origin() {
            continue;
        }
        let Some(rest) = target.path().strip_prefix(url.path()) else {
            continue;
        };
        let bare = rest.strip_suffix('/');
        let name = bare.unwrap_or(rest);
        if name.is_empty() || name.contains('/') {
            continue;
        }
        let name = percent_decode(name);
        let link = match bare {
            Some(_) => Link::Directory(name),
            None => Link::File(name),
        };
        match &link {
            Link::Directory(None) | Link::File(None) => unreadable.push(link),
            _ => drop(links.insert(link)),
        }
    }
    let head = text
        .get(..text.len().min(4096))
        .unwrap_or(&text)
        .to_ascii_lowercase();
    let titled = head.contains("index of") || head.contains("directory listing");
    (titled || has_parent).then(|| links.into_iter().chain(unreadable).collect())
}

/// Returns the values of `href` of all `a` elements.
fn references(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        if let Some(comment) = rest.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, rest)| rest);
            continue;
        }
        let is_link = rest
            .strip_prefix(['a', 'A'])
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_whitespace()));
        let (attributes, after) = tag_end(rest);
        rest = after;
        if is_link && let Some(value) = href(&attributes[1..]) {
            found.push(unescape(value));
        }
    }
    found
}

/// Splits behind the `>` that ends a tag, which is not inside quotes.
fn tag_end(text: &str) -> (&str, &str) {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '>') => return (&text[..at], &text[at + 1..]),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    (text, "")
}

/// Returns the value of the attribute `href`.
fn href(attributes: &str) -> Option<&str> {
    let mut rest = attributes.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_ascii_whitespace());
        let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
        let after = after.trim_start();
        let Some(value) = after.strip_prefix('=') else {
            if name.is_empty() {
                return None;
            }
            rest = after;
            continue;
        };
        let value = value.trim_start();
        let (value, after) = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => value[1..].split_once(quote)?,
            _ => value
                .split_once(|c: char| c.is_ascii_whitespace())
                .unwrap_or((value, "")),
        };
        if name.eq_ignore_ascii_case("href") {
            return Some(value);
        }
        rest = after.trim_start();
    }
    None
}

/// Resolves the character references that index pages use.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        plain.push_str(before);
        let known = after.split_once(';').and_then(|(name, after)| {
            let c = match name {
                "amp" => '&',
                "lt" => '<',
                "gt" => '>',
                "quot" => '"',
                "apos" => '\'',
                _ => {
                    let number = name.strip_prefix('#')?;
                    let code = match number.strip_prefix(['x', 'X']) {
                        Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                        None => number.parse().ok()?,
                    };
                    char::from_u32(code)?
                }
            };
            Some((c, after))
        });
        rest = match known {
            Some((c, after)) => {
                plain.push(c);
                after
            }
            None => {
                plain.push('&');
                after
            }
        };
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(page: &str) -> Option<Vec<String>> {
        let url = Url::parse("http://h/data/d/").unwrap();
        let links = parse(&url, page.as_bytes())?;
        let shown = links.into_iter().map(|link| match link {
            Link::Directory(name) => format!("{}/", name.unwrap_or_else(|| "?".into())),
            Link::File(name) => name.unwrap_or_else(|| "?".into()),
        });
        Some(shown.collect())
    }

    #[test]
    fn the_pages_of_three_servers_are_read() {
        let apache = "<title>Index of /data/d</title><th><a href=\"?C=N;O=D\">Name</a></th>\
            <a href=\"/data/\">Parent Directory</a><a href=\"a%20b.tar\">a b.tar</a>\
            <a href=\"sub/\">sub/</a>";
        assert_eq!(names(apache).unwrap(), ["sub/", "a b.tar"]);
        let nginx = "<html><head><title>Index of /data/d/</title></head><pre><a href=\"../\">../\
            </a>\n<a href=\"sub/\">sub/</a> 01-Jan-2024 00:00 -\n<a href=\"%D0%B0%3F\">x</a> 5</pre>";
        assert_eq!(names(nginx).unwrap(), ["sub/", "\u{430}?"]);
        let python = "<h1>Directory listing for /data/d/</h1><ul><li><a href=\"a%26b\">a&amp;b</a>\
            </li><li><a href=\"sub/\">sub/</a></li></ul>";
        assert_eq!(names(python).unwrap(), ["sub/", "a&b"]);
    }

    #[test]
    fn only_links_to_what_lies_directly_below_count() {
        let page = "<title>Index of x</title><!-- <a href=hidden> --><a href='q?v=1'>1</a>\
            <A class=\"x>y\" HREF=plain>2</A><a href=\"http://other/data/d/x\">3</a>\
            <a href=\"/data/d/abs\">4</a><a href=\"deep/er\">5</a><a href=\"/etc\">6</a>\
            <a href=\"..%2F\">7</a><a href=\"plain\">8</a><a name=\"n\">9</a><link href=\"no\">\
            <a href=\"%FF\">10</a><a href=\"e&#39;&amp;&lt;\">11</a><a href=\"javascript:x\">";
        // Of these the first is a name with a slash, which the listing leaves out and counts.
        assert_eq!(
            names(page).unwrap(),
            ["../", "abs", "e'&<", "plain", "q", "?"]
        );
    }

    #[test]
    fn a_page_that_is_no_index_is_not_taken_for_one() {
        assert_eq!(
            names("<html><body><a href=\"about\">about us</a></body></html>"),
            None
        );
        assert_eq!(names("{}"), None);
        for cut in [
            "<a href=\"x",
            "<a ",
            "<",
            "<!--",
            "<a href",
            "<a href=",
            "<a =\"\">",
        ] {
            assert_eq!(
                names(&format!("<title>Index of</title>{cut}")).map(|names| names.len() <= 1),
                Some(true)
            );
        }
    }
}
