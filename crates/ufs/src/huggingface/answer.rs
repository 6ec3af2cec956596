// SPDX-License-Identifier: Apache-2.0
//! Reads what the hub answers: revisions, pages of trees, and refusals.
//!
//! Pure functions over bytes that may be hostile.

use http::header::LINK;
use http::{HeaderMap, HeaderName};
use reqwest::Url;
use serde::Deserialize;
use types::ErrorKind;

use crate::http::{Fault, Object, Outcome, Page, Refusal, header_text, iso_time, printable};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Revision {
    sha: String,
    last_modified: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    oid: Option<String>,
    #[serde(default)]
    size: u64,
    path: String,
    lfs: Option<Pointer>,
}

#[derive(Deserialize)]
struct Pointer {
    oid: String,
    size: u64,
}

/// Reads the commit of a revision, and its time.
pub(super) fn parse_revision(json: &[u8]) -> Outcome<(String, i64)> {
    let revision: Revision = serde_json::from_slice(json)
        .map_err(|error| Fault::WrongAnswer(format!("a revision with a fault: {error}")))?;
    let hex = revision.sha.bytes().all(|byte| byte.is_ascii_hexdigit());
    if revision.sha.is_empty() || !hex {
        return Err(Fault::WrongAnswer("a revision that is no commit".into()));
    }
    let time = revision.last_modified.as_deref().map_or(0, iso_time);
    Ok((revision.sha, time))
}

/// Reads a page of a tree; all files have the time of the commit.
pub(super) fn parse_page(json: &[u8], mtime_ns: i64) -> Outcome<Page> {
    let entries: Vec<Entry> = serde_json::from_slice(json)
        .map_err(|error| Fault::WrongAnswer(format!("a listing with a fault: {error}")))?;
    let mut page = Page::default();
    for entry in entries {
        match entry.kind.as_str() {
            "directory" => page.prefixes.push(Some(format!("{}/", entry.path))),
            "file" => {
                let (etag, size) = match entry.lfs {
                    Some(pointer) => (Some(pointer.oid), pointer.size),
                    None => (entry.oid, entry.size),
                };
                page.objects.push(Object {
                    key: Some(entry.path),
                    size,
                    // The API writes the kind of hash in front, the headers do not.
                    etag: etag.map(|tag| tag.trim_start_matches("sha256:").to_string()),
                    mtime_ns,
                    ..Object::default()
                });
            }
            // A submodule: nothing that can be shown.
            _ => page.prefixes.push(None),
        }
    }
    Ok(page)
}

/// Returns the path and query of the next page. The host is not taken: the token goes there.
pub(super) fn next_page(headers: &HeaderMap) -> Option<String> {
    let links = headers.get(LINK)?.to_str().ok()?;
    let next = links
        .split(',')
        .find(|link| link.contains("rel=\"next\""))?;
    let url = next.split_once('<')?.1.split_once('>')?.0;
    let url = Url::parse(url).ok()?;
    let query = url.query().map(|query| format!("?{query}"));
    Some(format!("{}{}", url.path(), query.unwrap_or_default()))
}

/// Reads a refusal, as far as it can be read.
pub(super) fn read_refusal(
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    repository: &str,
) -> Refusal {
    #[derive(Deserialize)]
    struct Told {
        error: String,
    }
    let mut refusal = Refusal::of_status(status);
    let header = |name| header_text(headers, HeaderName::from_static(name)).map(printable);
    refusal.code = header("x-error-code").unwrap_or_default();
    let told = serde_json::from_slice::<Told>(body).ok();
    let told = told.map(|told| printable(&told.error));
    refusal.message = header("x-error-message").or(told).unwrap_or_default();
    refusal.absent = status == 404 && matches!(refusal.code.as_str(), "" | "EntryNotFound");
    refusal.advice = match refusal.code.as_str() {
        // The hub answers 401 for what does not exist, so as not to tell what does.
        "RepoNotFound" => {
            refusal.kind = if status == 404 {
                ErrorKind::NotFound
            } else {
                refusal.kind
            };
            Some(format!(
                "'{repository}' does not exist or is private; check its name, and set HF_TOKEN"
            ))
        }
        "RevisionNotFound" => Some(format!("'{repository}' has no such revision")),
        "GatedRepo" => Some(format!(
            "ask for access to '{repository}' on its page, and set HF_TOKEN"
        )),
        _ => match status {
            401 => Some(format!(
                "check the token: set HF_TOKEN to one that may read '{repository}'"
            )),
            403 => Some(format!("the token may not read '{repository}'")),
            429 => Some("the hub's limit of requests is reached; a token raises it".into()),
            _ => None,
        },
    };
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_the_hash_of_their_content() {
        let json = br#"[{"type":"directory","oid":"1","size":0,"path":"d/sub"},
            {"type":"file","oid":"2","size":5,"path":"d/a"},
            {"type":"file","oid":"3","size":130,"path":"d/b","lfs":{"oid":"f00","size":9,"pointerSize":130}}]"#;
        let page = parse_page(json, 7).unwrap();
        assert_eq!(page.prefixes, [Some("d/sub/".to_string())]);
        let files: Vec<_> = page
            .objects
            .iter()
            .map(|o| {
                (
                    o.key.as_deref().unwrap(),
                    o.etag.as_deref().unwrap(),
                    o.size,
                )
            })
            .collect();
        assert_eq!(files, [("d/a", "2", 5), ("d/b", "f00", 9)]);
        for wrong in [
            &b"{}"[..],
            b"<html>",
            b"[{\"type\":\"file\"}]",
            b"[{\"type\":\"file\"",
        ] {
            assert!(parse_page(wrong, 0).is_err());
        }
    }

    #[test]
    fn the_next_page_is_asked_from_the_same_host() {
        let mut headers = HeaderMap::new();
        assert_eq!(next_page(&headers), None);
        let link = "<https://evil/api/datasets/o/n/tree/s/d?cursor=x>; rel=\"next\"";
        headers.insert(LINK, link.parse().unwrap());
        let next = next_page(&headers);
        assert_eq!(next.as_deref(), Some("/api/datasets/o/n/tree/s/d?cursor=x"));
    }

    #[test]
    fn only_a_missing_entry_is_an_absent_name() {
        let refusal = |status, code: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-error-code", code.parse().unwrap());
            read_refusal(status, &headers, b"", "o/n")
        };
        assert!(refusal(404, "EntryNotFound").absent);
        for (status, code) in [
            (404, "RepoNotFound"),
            (404, "RevisionNotFound"),
            (401, "RepoNotFound"),
            (403, "GatedRepo"),
        ] {
            let refusal = refusal(status, code);
            assert!(!refusal.absent && refusal.advice.is_some(), "{code}");
        }
    }

    #[test]
    fn a_revision_is_a_commit() {
        let json = br#"{"sha":"0af1","lastModified":"2009-10-12T17:50:30.000Z"}"#;
        let (sha, time) = parse_revision(json).unwrap();
        assert_eq!((sha.as_str(), time), ("0af1", 1_255_369_830_000_000_000));
        assert!(parse_revision(b"{\"sha\":\"../x\"}").is_err());
    }
}
