// SPDX-License-Identifier: Apache-2.0
//! Reads the pages of listings that an S3 storage answers.
//!
//! Pure functions over bytes that may be hostile. Keys matter to the byte: they are asked with
//! `encoding-type=url`, without which control characters cannot pass through XML.

use crate::http::{Fault, Link, Object, Outcome, Page, clean_etag, iso_time, percent_decode, walk};

/// Reads a page of a listing.
pub(super) fn parse_page(xml: &[u8]) -> Outcome<Page> {
    let mut page = Page::default();
    let (mut raw, mut object) = (Vec::new(), Object::default());
    let (mut encoded, mut truncated) = (false, false);
    let mut key = String::new();
    let root = walk(xml, |element| {
        let text = element.text;
        match element.path {
            ["Contents", "Key"] => key = text.to_string(),
            ["Contents", "Size"] => {
                object.size = text.trim().parse().map_err(|_| format!("size '{text}'"))?;
            }
            ["Contents", "ETag"] => object.etag = clean_etag(text),
            ["Contents", "LastModified"] => object.mtime_ns = iso_time(text),
            ["Contents"] => {
                object.link = Link::of_etag(object.size, object.etag.as_deref());
                raw.push((std::mem::take(&mut key), std::mem::take(&mut object)));
            }
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

/// Reads the list of all buckets: each a directory.
pub(super) fn parse_buckets(xml: &[u8]) -> Outcome<Page> {
    let mut page = Page::default();
    let root = walk(xml, |element| {
        if let ["Buckets", "Bucket", "Name"] = element.path {
            page.prefixes.push(Some(format!("{}/", element.text)));
        }
        Ok(())
    });
    match root {
        Ok(root) if root == "ListAllMyBucketsResult" => Ok(page),
        Ok(root) => Err(Fault::WrongAnswer(format!(
            "'{}' for a list of buckets",
            root.escape_debug()
        ))),
        Err(why) => Err(Fault::WrongAnswer(format!(
            "a list of buckets with a fault: {why}"
        ))),
    }
}

/// Decodes what `encoding-type=url` encodes: percent signs, and plus for space.
fn decode_url(text: &str) -> Option<String> {
    percent_decode(&text.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(inside: &str) -> Outcome<Page> {
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
}
