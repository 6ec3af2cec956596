// SPDX-License-Identifier: Apache-2.0
//! Reads what an S3 storage answers: pages of listings, refusals, ranges, tags, times.
//!
//! Pure functions over bytes that may be hostile. Listings are read here rather than by OpenDAL,
//! because keys matter to the byte: it asks for no `encoding-type=url`, without which control
//! characters cannot pass through XML, and trims names.

use http::HeaderMap;
use http::header::{CONTENT_RANGE, RANGE};
use opendal::raw::{Timestamp, parse_content_range};
use quick_xml::Reader;
use quick_xml::events::Event;

use super::fault::{Fault, Refusal};

/// What is kept of a storage's own words.
const MESSAGE_MAX: usize = 300;
/// No answer of S3 nests deeper than five elements.
const DEPTH_MAX: usize = 32;

/// One page of ListObjectsV2. Keys are decoded; `None` stands for one that is not UTF-8.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) objects: Vec<Object>,
    pub(super) prefixes: Vec<Option<String>>,
    /// What to ask the next page with.
    pub(super) next: Option<String>,
}

/// An object in a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) key: Option<String>,
    pub(super) size: u64,
    pub(super) etag: Option<String>,
    pub(super) mtime_ns: i64,
}

/// Reads a page of a listing.
pub(super) fn parse_page(xml: &[u8]) -> Result<Page, Fault> {
    let mut page = Page::default();
    let (mut raw, mut object) = (Vec::new(), Object::default());
    let (mut encoded, mut truncated) = (false, false);
    let mut key = String::new();
    let root = walk(xml, |path, text| {
        match path {
            ["Contents", "Key"] => key = text.to_string(),
            ["Contents", "Size"] => {
                object.size = text.trim().parse().map_err(|_| format!("size '{text}'"))?;
            }
            ["Contents", "ETag"] => object.etag = clean_etag(text),
            ["Contents", "LastModified"] => object.mtime_ns = parse_time(text),
            ["Contents"] => raw.push((std::mem::take(&mut key), std::mem::take(&mut object))),
            ["CommonPrefixes", "Prefix"] => page.prefixes.push(Some(text.to_string())),
            ["EncodingType"] => encoded = text.trim() == "url",
            ["IsTruncated"] => truncated = text.trim() == "true",
            ["NextContinuationToken"] => page.next = Some(text.to_string()),
            _ => {}
        }
        Ok(())
    });
    let root = root.map_err(|why| Fault::WrongAnswer(format!("a listing with a fault: {why}")))?;
    if root != "ListBucketResult" {
        return Err(Fault::WrongAnswer(format!(
            "'{}' for a listing",
            root.escape_debug()
        )));
    }
    let decode = |text: String| {
        if encoded {
            decode_url(&text)
        } else {
            Some(text)
        }
    };
    page.objects = raw
        .into_iter()
        .map(|(key, o)| Object {
            key: decode(key),
            ..o
        })
        .collect();
    page.prefixes = page
        .prefixes
        .into_iter()
        .map(|prefix| prefix.and_then(decode))
        .collect();
    match (truncated, &page.next) {
        (true, None) => Err(Fault::WrongAnswer(
            "a part of a listing without the next".into(),
        )),
        (true, Some(_)) => Ok(page),
        (false, _) => Ok(Page { next: None, ..page }),
    }
}

/// Reads the body of a refusal, as far as it can be read.
pub(super) fn parse_refusal(status: u16, body: &[u8]) -> Refusal {
    let mut refusal = Refusal {
        status,
        ..Refusal::default()
    };
    // A body cut short still gives the fields before the cut.
    let _root = walk(body, |path, text| {
        match path {
            ["Code"] => refusal.code = printable(text),
            ["Message"] => refusal.message = printable(text),
            ["Region"] => refusal.region = Some(printable(text)),
            _ => {}
        }
        Ok(())
    });
    refusal
}

/// Calls `visit` at the end of each element below the root with its path and text; returns the
/// root's name. Fails unless the document is whole.
fn walk(
    xml: &[u8],
    mut visit: impl FnMut(&[&str], &str) -> Result<(), String>,
) -> Result<String, String> {
    let mut reader = Reader::from_reader(xml);
    let mut path: Vec<String> = Vec::new();
    let mut text = String::new();
    loop {
        match reader.read_event().map_err(|error| error.to_string())? {
            Event::Start(tag) => {
                path.push(tag.local_name().as_ref().to_string());
                text.clear();
                if path.len() > DEPTH_MAX {
                    return Err("elements nested too deep".into());
                }
            }
            Event::Empty(tag) => {
                path.push(tag.local_name().as_ref().to_string());
                visit(&below_root(&path), "")?;
                path.pop();
            }
            Event::Text(piece) => text.push_str(&piece),
            Event::CData(piece) => text.push_str(&piece),
            Event::GeneralRef(name) => text.push(reference(&name)?),
            Event::End(_) => {
                visit(&below_root(&path), &text)?;
                text.clear();
                let name = path.pop().ok_or("an end without a start")?;
                if path.is_empty() {
                    return Ok(name);
                }
            }
            Event::Eof => return Err("it ends early".into()),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
}

fn below_root(path: &[String]) -> Vec<&str> {
    path.iter().skip(1).map(String::as_str).collect()
}

/// Resolves what stands between `&` and `;`. Control characters are illegal in XML; storages write
/// them all the same.
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

/// Decodes what `encoding-type=url` encodes: percent signs, and plus for space.
fn decode_url(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (hex, tail) = tail.split_at_checked(2)?;
                let digits = std::str::from_utf8(hex).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = tail;
            }
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).ok()
}

/// Returns the tag without its quotes; `None` when there is none. A weak tag is kept whole.
pub(super) fn clean_etag(text: &str) -> Option<String> {
    let text = text.trim();
    let bare = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or(text);
    (!bare.is_empty()).then(|| bare.to_string())
}

/// Returns the header that asks for exactly this version, where the tag is strong enough for one.
pub(super) fn if_match(etag: &str) -> Option<String> {
    (!etag.starts_with("W/")).then(|| format!("\"{etag}\""))
}

/// Reads a time of a listing, to the second: headers are no finer, and one object must not have
/// two times. Zero when it cannot be read.
fn parse_time(text: &str) -> i64 {
    text.trim().parse::<Timestamp>().map_or(0, whole_seconds_ns)
}

/// Returns a time as nanoseconds since 1970, cut to the second.
pub(super) fn whole_seconds_ns(time: Timestamp) -> i64 {
    time.into_inner().as_second().saturating_mul(1_000_000_000)
}

/// Returns the first and last byte that a request asks for.
pub(super) fn range_asked(headers: &HeaderMap) -> Option<(u64, u64)> {
    let (first, last) = headers
        .get(RANGE)?
        .to_str()
        .ok()?
        .strip_prefix("bytes=")?
        .split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

/// Returns the first and last byte that an answer holds, if it tells the whole length too.
pub(super) fn range_given(headers: &HeaderMap) -> Option<(u64, u64)> {
    headers.get(CONTENT_RANGE)?;
    let given = parse_content_range(headers).ok()??;
    let range = given.range()?;
    given.size()?;
    Some((range.start, range.end.checked_sub(1)?))
}

/// Cuts a storage's words to a length, on one line.
fn printable(text: &str) -> String {
    let clean = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    clean.take(MESSAGE_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(inside: &str) -> Result<Page, Fault> {
        let xml = format!(
            "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"http://s3\">{inside}</ListBucketResult>"
        );
        parse_page(xml.as_bytes())
    }

    fn keys(page: Page) -> Vec<String> {
        page.objects
            .into_iter()
            .map(|object| object.key.unwrap())
            .collect()
    }

    #[test]
    fn keys_are_kept_to_the_byte() {
        let inside = "<Contents><Key> a &amp;b&#x1;&#10; </Key><Size>5</Size></Contents>\
                      <Contents><Key>%20+</Key><Size>6</Size></Contents>";
        assert_eq!(keys(page(inside).unwrap()), [" a &b\u{1}\n ", "%20+"]);
    }

    #[test]
    fn encoded_keys_are_decoded_and_others_not() {
        let inside = "<EncodingType>url</EncodingType><Contents><Key>a+b%2Bc%0A/%C3%A9</Key>\
                      <Size>1</Size></Contents><CommonPrefixes><Prefix>x%FF/</Prefix>\
                      </CommonPrefixes>";
        let page = page(inside).unwrap();
        assert_eq!(page.prefixes, [None]);
        assert_eq!(keys(page), ["a b+c\n/é"]);
    }

    #[test]
    fn tags_lose_their_quotes_and_times_their_fractions() {
        let inside = "<Contents><Key>k</Key><LastModified>2009-10-12T17:50:30.750Z</LastModified>\
                      <ETag>&quot;abc&quot;</ETag><Size>434234</Size></Contents>";
        let object = page(inside).unwrap().objects.remove(0);
        assert_eq!(
            (object.size, object.etag.as_deref()),
            (434_234, Some("abc"))
        );
        assert_eq!(object.mtime_ns, 1_255_369_830_000_000_000);
        assert_eq!(clean_etag("\"\""), None);
        assert_eq!(clean_etag("W/\"x\"").as_deref(), Some("W/\"x\""));
    }

    #[test]
    fn a_listing_that_is_cut_or_another_document_is_refused() {
        let whole = "<ListBucketResult><Contents><Key>k</Key><Size>1</Size></Contents>\
                     </ListBucketResult>";
        assert!(parse_page(whole.as_bytes()).is_ok());
        for cut in 0..whole.len() {
            assert!(
                parse_page(&whole.as_bytes()[..cut]).is_err(),
                "cut at {cut}"
            );
        }
        assert!(parse_page(b"<html><body>hello</body></html>").is_err());
        assert!(page("<Contents><Key>k</Key><Size>-1</Size></Contents>").is_err());
        assert!(page("<IsTruncated>true</IsTruncated>").is_err());
        let deep = "<a>".repeat(1000);
        assert!(parse_page(deep.as_bytes()).is_err());
    }

    #[test]
    fn the_next_page_is_asked_only_when_there_is_one() {
        let token = "<NextContinuationToken>t=</NextContinuationToken>";
        let next = |flag| {
            page(&format!("<IsTruncated>{flag}</IsTruncated>{token}"))
                .unwrap()
                .next
        };
        assert_eq!(next("true").as_deref(), Some("t="));
        assert_eq!(next("false"), None);
    }

    #[test]
    fn refusals_are_read_as_far_as_they_go() {
        let body = b"<Error><Code>AccessDenied</Code><Message>no\nway</Message><HostId>";
        let refusal = parse_refusal(403, body);
        assert_eq!(
            (refusal.code.as_str(), refusal.message.as_str()),
            ("AccessDenied", "no way")
        );
        assert_eq!(parse_refusal(502, b"<html>Bad gateway").code, "");
    }
}
