// SPDX-License-Identifier: Apache-2.0
//! Manifests: lists of the files of a web directory, with their sizes.
//!
//! A line is `URL SIZE [ETAG]`, or a JSON object with `url`, `size` and perhaps `path` and `etag`.
//! URLs are relative to the mount's. A manifest is asked for again with every listing and look, and
//! costs no more than a "not modified" while it is the same; where the server cannot say so, it is
//! kept for a minute.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderName, HeaderValue, Request};
use reqwest::Url;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use types::{ObjectPath, Result, VersionTag};

use crate::http::{
    Ask, Fault, Leeway, Object, Outcome, Page, Transport, clean_etag, percent_decode,
};
use crate::uri::invalid;

/// A million lines of a hundred bytes.
const BYTES_MAX: usize = 256 << 20;
/// How long a manifest is kept whose server does not tell whether it changed.
const AGE_MAX: Duration = Duration::from_secs(60);

/// The files by their path.
pub(super) type Files = BTreeMap<String, File>;

/// A file of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) url: Url,
    pub(super) tag: VersionTag,
}

/// A manifest, and what was last read of it.
pub(super) struct Manifest {
    root: Url,
    url: Url,
    /// Held while it is asked for, so that all who wait share one answer.
    read: Mutex<Option<Read>>,
}

struct Read {
    files: Arc<Files>,
    /// The header that asks whether it is still the same.
    condition: Option<(HeaderName, HeaderValue)>,
    at: Instant,
}

impl Manifest {
    /// Takes the place of a manifest, relative to the mount's root.
    pub(super) fn new(root: &Url, place: &str) -> Result<Self> {
        let url = root
            .join(place)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or_else(|| invalid("the option 'manifest' is no URL of the web"))?;
        Ok(Manifest {
            root: root.clone(),
            url,
            read: Mutex::new(None),
        })
    }

    /// Returns the files as they are now.
    pub(super) async fn files(&self, transport: &Transport) -> Outcome<Arc<Files>> {
        let mut read = self.read.lock().await;
        let mut request = Request::get(self.url.as_str());
        if let Some(read) = &*read {
            match &read.condition {
                Some((name, value)) => request = request.header(name, value),
                None if read.at.elapsed() < AGE_MAX => return Ok(Arc::clone(&read.files)),
                None => {}
            }
        }
        let request = request
            .body(())
            .map_err(|error| Fault::Unfit(error.to_string()))?;
        let leeway = Leeway {
            unchanged: true,
            ..Leeway::default()
        };
        let answer = match self.url.origin() == self.root.origin() {
            true => transport.send_with(Ask::List, request, leeway).await,
            false => transport.send_unsigned(Ask::List, request, leeway).await,
        };
        let answer = answer.map_err(|fault| match fault {
            fault if fault.absent() => Fault::Unfit("there is no manifest at its URL".into()),
            fault => fault,
        })?;
        if let (304, Some(read)) = (answer.status().as_u16(), &*read) {
            return Ok(Arc::clone(&read.files));
        }
        let header = |name| answer.headers().get(name).cloned();
        let condition = header(ETAG).map(|tag| (IF_NONE_MATCH, tag));
        let condition =
            condition.or_else(|| header(LAST_MODIFIED).map(|time| (IF_MODIFIED_SINCE, time)));
        let body = transport.body(answer, BYTES_MAX).await?;
        let files = parse(&self.root, &body)
            .map_err(|why| Fault::Unfit(format!("the manifest has a fault: {why}")))?;
        let files = Arc::new(files);
        *read = Some(Read {
            files: Arc::clone(&files),
            condition,
            at: Instant::now(),
        });
        Ok(files)
    }

    /// Returns where a file is, as the manifest last told.
    pub(super) async fn url_of(&self, transport: &Transport, key: &str) -> Outcome<Url> {
        let known = self
            .read
            .lock()
            .await
            .as_ref()
            .map(|read| Arc::clone(&read.files));
        let files = match known {
            Some(files) => files,
            None => self.files(transport).await?,
        };
        let gone = || Fault::Stale("the file is no longer in the manifest".into());
        files.get(key).map(|file| file.url.clone()).ok_or_else(gone)
    }
}

#[derive(Deserialize)]
struct Line {
    url: String,
    size: u64,
    path: Option<String>,
    etag: Option<String>,
}

/// Reads a manifest.
fn parse(root: &Url, text: &[u8]) -> std::result::Result<Files, String> {
    let text = std::str::from_utf8(text).map_err(|_| "it is not UTF-8")?;
    let mut files = Files::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fault = |why: &str| format!("line {}: {why}", index + 1);
        let line = match line.starts_with('{') {
            true => serde_json::from_str(line).map_err(|error| fault(&error.to_string()))?,
            false => plain_line(line).ok_or_else(|| fault("it is not 'URL SIZE [ETAG]'"))?,
        };
        let (path, file) = file_of(root, line).map_err(|why| fault(&why))?;
        if files.insert(path, file).is_some() {
            return Err(fault("the same file a second time"));
        }
    }
    Ok(files)
}

fn plain_line(line: &str) -> Option<Line> {
    let mut words = line.split_ascii_whitespace();
    let line = Line {
        url: words.next()?.into(),
        size: words.next()?.parse().ok()?,
        path: None,
        etag: words.next().map(String::from),
    };
    words.next().is_none().then_some(line)
}

fn file_of(root: &Url, line: Line) -> std::result::Result<(String, File), String> {
    let url = root.join(&line.url).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("scheme '{}' is none of the web", url.scheme()));
    }
    let path = match line.path {
        Some(path) => path,
        None => {
            let below = (url.origin() == root.origin())
                .then(|| url.path().strip_prefix(root.path()))
                .flatten();
            let path = below.unwrap_or_else(|| url.path().trim_start_matches('/'));
            percent_decode(path).ok_or("the path is not UTF-8")?
        }
    };
    ObjectPath::parse(path.as_bytes()).map_err(|error| error.to_string())?;
    if path.is_empty() {
        return Err("the path is empty".into());
    }
    let tag = VersionTag {
        etag: line.etag.as_deref().and_then(clean_etag),
        mtime_ns: 0,
        size: line.size,
    };
    Ok((path, File { url, tag }))
}

/// Returns what lies directly below a prefix.
pub(super) fn page(files: &Files, prefix: &str) -> Page {
    let (mut page, mut prefixes) = (Page::default(), BTreeSet::new());
    let from = (Bound::Included(prefix.to_string()), Bound::Unbounded);
    for (path, file) in files.range::<String, _>(from) {
        let Some(rest) = path.strip_prefix(prefix) else {
            break;
        };
        match rest.split_once('/') {
            Some((name, _)) => drop(prefixes.insert(format!("{prefix}{name}/"))),
            None => page.objects.push(Object {
                key: Some(path.clone()),
                size: file.tag.size,
                etag: file.tag.etag.clone(),
                ..Object::default()
            }),
        }
    }
    page.prefixes = prefixes.into_iter().map(Some).collect();
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Url {
        Url::parse("https://h/data/").unwrap()
    }

    #[test]
    fn both_forms_are_read_and_make_a_tree() {
        let text = "# a comment\n\na%20b/x.tar 5 \"e1\"\nhttps://cdn/y/z.bin 7\n\
            {\"url\":\"https://cdn/1\",\"size\":9,\"path\":\"a b/one\",\"etag\":\"e2\"}\n";
        let files = parse(&root(), text.as_bytes()).unwrap();
        let paths: Vec<_> = files.keys().map(String::as_str).collect();
        assert_eq!(paths, ["a b/one", "a b/x.tar", "y/z.bin"]);
        assert_eq!(
            files["a b/x.tar"].url.as_str(),
            "https://h/data/a%20b/x.tar"
        );
        assert_eq!(files["a b/x.tar"].tag.etag.as_deref(), Some("e1"));
        let top = page(&files, "");
        assert_eq!(top.prefixes, [Some("a b/".to_string()), Some("y/".into())]);
        let below = page(&files, "a b/");
        assert_eq!((below.objects.len(), below.prefixes.len()), (2, 0));
        assert_eq!(page(&files, "b/"), Page::default());
    }

    #[test]
    fn a_fault_is_told_with_its_line() {
        for (text, why) in [
            ("a 1\nb", "line 2"),
            ("a one", "line 1"),
            ("a 1 e x", "line 1"),
            ("{\"url\":\"a\"}", "size"),
            ("a 1\na 2", "second time"),
            ("file:///etc/passwd 1", "none of the web"),
            ("{\"url\":\"a\",\"size\":1,\"path\":\"../x\"}", "path"),
        ] {
            let error = parse(&root(), text.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
