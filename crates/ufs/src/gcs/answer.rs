// SPDX-License-Identifier: Apache-2.0
//! Reads what Google Cloud Storage answers: objects, pages of listings, and refusals.
//!
//! Pure functions over bytes that may be hostile.

use std::collections::HashMap;

use serde::Deserialize;
use types::VersionTag;

use crate::http::{
    Fault, GCSFUSE_LINK, Kept, Link, Object, Outcome, Page, Refusal, iso_time, printable,
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawObject {
    name: Option<String>,
    /// A number as text, because JavaScript has no 64 bits.
    size: Option<String>,
    generation: Option<String>,
    time_created: Option<String>,
    #[serde(default)]
    metadata: HashMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRewritten {
    done: bool,
    rewrite_token: Option<String>,
    resource: Option<RawObject>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPage {
    kind: Option<String>,
    next_page_token: Option<String>,
    #[serde(default)]
    prefixes: Vec<String>,
    #[serde(default)]
    items: Vec<RawObject>,
}

#[derive(Deserialize)]
struct RawRefusal {
    error: RawError,
}

#[derive(Deserialize)]
struct RawError {
    #[serde(default)]
    message: String,
    #[serde(default)]
    errors: Vec<RawReason>,
}

#[derive(Deserialize)]
struct RawReason {
    #[serde(default)]
    reason: String,
}

/// What is told of one object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// The version; its time is the one that is kept beside it, where there is one.
    pub(super) tag: VersionTag,
    pub(super) kept: Kept,
    pub(super) created_ns: i64,
}

/// What came of a request to copy.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rewritten {
    /// The copy is whole.
    Done(Told),
    /// There is more to do, by a request with this.
    Begun { next: String },
}

/// Reads what is told of one object.
pub(super) fn parse_object(json: &[u8]) -> Outcome<Told> {
    told_of(parse(json, "an object")?)
}

fn told_of(mut raw: RawObject) -> Outcome<Told> {
    let metadata = std::mem::take(&mut raw.metadata);
    let kept = Kept::read(|name| metadata.get(name).map(String::as_str));
    let object = object_of(raw)?;
    let tag = VersionTag {
        etag: object.etag,
        mtime_ns: kept.attributes.mtime_ns.unwrap_or(object.mtime_ns),
        size: object.size,
    };
    Ok(Told {
        tag,
        kept,
        created_ns: object.mtime_ns,
    })
}

/// Reads how far a copy came.
pub(super) fn parse_rewritten(json: &[u8]) -> Outcome<Rewritten> {
    let raw: RawRewritten = parse(json, "a copy")?;
    match (raw.done, raw.resource, raw.rewrite_token) {
        (true, Some(resource), _) => told_of(resource).map(Rewritten::Done),
        (false, _, Some(next)) => Ok(Rewritten::Begun { next }),
        _ => Err(Fault::WrongAnswer("a copy of which nothing is told".into())),
    }
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8], what: &str) -> Outcome<T> {
    serde_json::from_slice(json)
        .map_err(|error| Fault::WrongAnswer(format!("{what} with a fault: {error}")))
}

fn object_of(raw: RawObject) -> Outcome<Object> {
    let size = raw.size.as_deref().and_then(|size| size.parse().ok());
    let size = size.ok_or_else(|| Fault::WrongAnswer("an object without its size".into()))?;
    if raw.generation.is_none() {
        return Err(Fault::Unfit("the storage tells no generation".into()));
    }
    Ok(Object {
        key: raw.name,
        size,
        etag: raw.generation,
        mtime_ns: raw.time_created.as_deref().map_or(0, iso_time),
        link: match raw.metadata.get(GCSFUSE_LINK) {
            Some(link) if !link.is_empty() => Link::Yes,
            _ => Link::No,
        },
    })
}

/// Reads a page of a listing.
pub(super) fn parse_page(json: &[u8]) -> Outcome<Page> {
    let raw: RawPage = parse(json, "a listing")?;
    if raw.kind.as_deref() != Some("storage#objects") {
        return Err(Fault::WrongAnswer("something else for a listing".into()));
    }
    Ok(Page {
        objects: raw
            .items
            .into_iter()
            .map(object_of)
            .collect::<Outcome<_>>()?,
        prefixes: raw.prefixes.into_iter().map(Some).collect(),
        next: raw.next_page_token.filter(|token| !token.is_empty()),
    })
}

/// Reads a refusal, as far as it can be read.
pub(super) fn read_refusal(status: u16, body: &[u8], bucket: &str) -> Refusal {
    let mut refusal = Refusal::of_status(status);
    if let Ok(RawRefusal { error }) = serde_json::from_slice(body) {
        refusal.message = printable(&error.message);
        let reason = error.errors.into_iter().next().map(|error| error.reason);
        refusal.code = printable(&reason.unwrap_or_default());
    } else if let Ok(text) = std::str::from_utf8(body) {
        // Answers with bytes are refused in plain words.
        refusal.message = printable(text);
    }
    // The code is the same for an object and for its bucket; only the words differ.
    let of_bucket = refusal.message.contains("bucket does not exist");
    refusal.absent = status == 404 && !of_bucket;
    refusal.throttled |= matches!(
        refusal.code.as_str(),
        "rateLimitExceeded" | "userRateLimitExceeded"
    );
    if refusal.throttled {
        refusal.kind = types::ErrorKind::Unavailable;
    }
    refusal.advice = match status {
        404 if of_bucket => Some(format!("check the name of bucket '{bucket}'")),
        400 if refusal.code == "required" || refusal.message.contains("requester pays") => Some(
            "the bucket's owner does not pay for requests; set the option 'user_project'".into(),
        ),
        401 => Some("check the credentials and whether they have expired".into()),
        403 => Some(format!(
            "give this account the role Storage Object Viewer, or User to write, on bucket \
             '{bucket}'"
        )),
        _ => None,
    };
    refusal
}

/// Says of a listing that was not found what is missing: the bucket.
pub(super) fn missing_bucket(fault: Fault) -> Fault {
    match fault {
        Fault::Refused(mut refusal) if refusal.absent => {
            refusal.absent = false;
            refusal.advice = Some("check the name of the bucket and the endpoint".into());
            Fault::Refused(refusal)
        }
        fault => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::ErrorKind;

    #[test]
    fn a_page_is_read_to_the_byte() {
        let page = parse_page(
            br#"{"kind":"storage#objects","nextPageToken":"t","prefixes":["d/ x/"],"items":[
               {"name":"d/\u0001","size":"5","generation":"17","timeCreated":"2009-10-12T17:50:30.750Z"}]}"#,
        );
        let object = Object {
            key: Some("d/\u{1}".into()),
            size: 5,
            etag: Some("17".into()),
            mtime_ns: 1_255_369_830_000_000_000,
            link: Link::No,
        };
        let wanted = Page {
            objects: vec![object],
            prefixes: vec![Some("d/ x/".into())],
            next: Some("t".into()),
        };
        assert_eq!(page.unwrap(), wanted);
    }

    #[test]
    fn a_copy_is_done_or_goes_on() {
        let next = parse_rewritten(br#"{"done":false,"rewriteToken":"t"}"#).unwrap();
        assert_eq!(next, Rewritten::Begun { next: "t".into() });
        let object = r#"{"name":"k","size":"1","generation":"7","timeCreated":"2009-10-12T17:50:30Z",
            "metadata":{"mtime":"5.5","other":"x"}}"#;
        let done = format!(r#"{{"done":true,"resource":{object}}}"#);
        let Rewritten::Done(told) = parse_rewritten(done.as_bytes()).unwrap() else {
            panic!("it is done");
        };
        assert_eq!(told, parse_object(object.as_bytes()).unwrap());
        assert_eq!(
            (told.tag.mtime_ns, told.tag.etag.as_deref()),
            (5_500_000_000, Some("7"))
        );
        assert_eq!(told.created_ns, 1_255_369_830_000_000_000);
        for wrong in [&b"{}"[..], b"{\"done\":true}", b"{\"done\":false}"] {
            assert!(parse_rewritten(wrong).is_err(), "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_listing_is_refused() {
        for wrong in [
            &b"{}"[..],
            b"[]",
            b"<html>",
            b"{\"kind\":\"storage#objects\"",
            b"{\"kind\":\"storage#objects\",\"items\":[{\"name\":\"a\",\"size\":\"-1\"}]}",
            b"{\"kind\":\"storage#objects\",\"items\":[{\"name\":\"a\",\"size\":\"1\"}]}",
        ] {
            assert!(parse_page(wrong).is_err(), "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn a_missing_bucket_makes_no_name_absent() {
        let json = |message: &str, reason: &str| {
            format!(
                "{{\"error\":{{\"message\":\"{message}\",\"errors\":[{{\"reason\":\"{reason}\"}}]}}}}"
            )
        };
        let refusal = |status, message: &str, reason: &str| {
            read_refusal(status, json(message, reason).as_bytes(), "b")
        };
        assert!(refusal(404, "No such object: b/k", "notFound").absent);
        assert!(read_refusal(404, b"No such object: b/k", "b").absent);
        let bucket = refusal(404, "The specified bucket does not exist.", "notFound");
        assert_eq!((bucket.kind, bucket.absent), (ErrorKind::NotFound, false));
        let busy = refusal(403, "slow down", "rateLimitExceeded");
        assert_eq!((busy.kind, busy.throttled), (ErrorKind::Unavailable, true));
        assert_eq!(refusal(412, "", "conditionNotMet").kind, ErrorKind::Stale);
    }
}
