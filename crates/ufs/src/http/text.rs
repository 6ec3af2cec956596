// SPDX-License-Identifier: Apache-2.0
//! Small texts of HTTP: percent signs, tags, times, words of a storage.
//!
//! Pure functions over text that may be hostile.

use std::time::Duration;

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue};
use reqsign_core::time::Timestamp;
use types::ByteRange;

/// What is kept of a storage's own words.
const MESSAGE_MAX: usize = 300;

/// Encodes all bytes but letters, digits and `-._~`.
pub(crate) fn percent_encode(text: &str) -> String {
    encode(text.as_bytes(), b"")
}

/// Encodes a path: as [`percent_encode`], and slashes stay.
pub(crate) fn percent_encode_path(path: &str) -> String {
    percent_encode_bytes(path.as_bytes())
}

/// Encodes a path that need not be text.
pub(crate) fn percent_encode_bytes(path: &[u8]) -> String {
    encode(path, b"/")
}

fn encode(bytes: &[u8], kept: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// Decodes percent signs; `None` when they are wrong or what comes out is not UTF-8.
pub(crate) fn percent_decode(text: &str) -> Option<String> {
    String::from_utf8(percent_decode_bytes(text)?).ok()
}

/// Decodes percent signs; `None` when they are wrong.
pub(crate) fn percent_decode_bytes(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let (hex, tail) = tail.split_at_checked(2)?;
            let digits = std::str::from_utf8(hex).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = tail;
        } else {
            bytes.push(*first);
        }
    }
    Some(bytes)
}

/// Returns the tag without its quotes; `None` when there is none. A weak tag is kept whole.
pub(crate) fn clean_etag(text: &str) -> Option<String> {
    let text = text.trim();
    let bare = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or(text);
    (!bare.is_empty()).then(|| bare.to_string())
}

/// Returns how long a storage asks us to wait; a date is taken by its own clock.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = header_text(headers, RETRY_AFTER)?;
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let now = header_text(headers, DATE).map(http_time)?;
    let wait = http_time(text).checked_sub(now).filter(|_| now > 0)?;
    u64::try_from(wait).ok().map(Duration::from_nanos)
}

/// Returns the header that asks for exactly this version, where the tag is strong enough for one.
pub(crate) fn if_match(etag: &str) -> Option<HeaderValue> {
    if etag.starts_with("W/") {
        return None;
    }
    HeaderValue::from_str(&format!("\"{etag}\"")).ok()
}

/// Returns the header that asks for these bytes; the range is not empty.
pub(crate) fn range_header(range: ByteRange) -> String {
    format!("bytes={}-{}", range.offset, range.end().saturating_sub(1))
}

/// Returns a header that is text and not empty.
pub(crate) fn header_text(headers: &HeaderMap, name: impl Into<HeaderName>) -> Option<&str> {
    let value = headers.get(name.into())?.to_str().ok()?.trim();
    (!value.is_empty()).then_some(value)
}

/// Reads a time of a header as nanoseconds since 1970; zero when it cannot be read.
pub(crate) fn http_time(text: &str) -> i64 {
    Timestamp::parse_rfc2822(text.trim()).map_or(0, whole_seconds_ns)
}

/// Reads a time of a listing, to the second: headers are no finer, and one object must not have
/// two times. Zero when it cannot be read.
pub(crate) fn iso_time(text: &str) -> i64 {
    text.trim().parse::<Timestamp>().map_or(0, whole_seconds_ns)
}

fn whole_seconds_ns(time: Timestamp) -> i64 {
    time.as_second().saturating_mul(1_000_000_000)
}

/// Cuts a storage's words to a length, on one line.
pub(crate) fn printable(text: &str) -> String {
    let clean = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    clean.take(MESSAGE_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_to_the_byte() {
        let text = "a b/%2F+?#\u{1}\u{e9}~";
        assert_eq!(percent_encode_path(text), "a%20b/%252F%2B%3F%23%01%C3%A9~");
        assert_eq!(percent_encode("a/b"), "a%2Fb");
        assert_eq!(percent_decode(&percent_encode(text)).as_deref(), Some(text));
        for wrong in ["%", "%4", "%zz", "%FF"] {
            assert_eq!(percent_decode(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn tags_lose_their_quotes_and_weak_ones_are_no_condition() {
        assert_eq!(clean_etag("\"x\"").as_deref(), Some("x"));
        assert_eq!(clean_etag("0x8D").as_deref(), Some("0x8D"));
        assert_eq!(clean_etag("\"\""), None);
        assert_eq!(clean_etag("W/\"x\"").as_deref(), Some("W/\"x\""));
        assert_eq!(if_match("x").unwrap(), "\"x\"");
        assert!(if_match("W/\"x\"").is_none() && if_match("a\nb").is_none());
    }

    #[test]
    fn both_ways_to_write_a_time_give_whole_seconds() {
        let second = 1_255_369_830_000_000_000;
        assert_eq!(iso_time("2009-10-12T17:50:30.750Z"), second);
        assert_eq!(http_time("Mon, 12 Oct 2009 17:50:30 GMT"), second);
        assert_eq!((http_time("soon"), iso_time("")), (0, 0));
    }

    #[test]
    fn a_wait_is_told_in_seconds_or_by_a_date() {
        let told = |after: &'static str, date: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(after));
            headers.insert(DATE, HeaderValue::from_static(date));
            retry_after(&headers).map(|wait| wait.as_secs())
        };
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(told("120", date), Some(120));
        assert_eq!(told("Sun, 06 Nov 1994 08:50:07 GMT", date), Some(30));
        for (after, date) in [
            ("Sun, 06 Nov 1994 08:49:07 GMT", date),
            ("Sun, 06 Nov 1994 08:50:07 GMT", "now"),
            ("soon", date),
            ("-1", date),
        ] {
            assert_eq!(told(after, date), None, "{after} {date}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
