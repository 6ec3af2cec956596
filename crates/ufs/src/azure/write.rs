// SPDX-License-Identifier: Apache-2.0
//! The requests of Azure Blob that change something.
//!
//! All conditions go with their requests. Bytes go out with their MD5, which Azure checks. An upload
//! is a list of blocks whose numbers start with the name of the upload; blocks that no list names are
//! forgotten with the next write of the blob, or after a week, so there is nothing to give up. A blob
//! on accounts with a flat namespace marks a directory when its name ends with a slash.

use std::sync::PoisonError;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, Request, request};
use md5::{Digest, Md5};
use reqsign_core::hash::base64_encode;

use super::{API_VERSION, Azure, is_unheard_of, tag_of};
use crate::http::{
    Ask, Copying, Draft, Fault, KEPT_BYTES, KEPT_NAMES, Kept, KeyWriter, Leeway, Outcome, Part,
    Parted, Payload, Seen, Step, Stored, clean_etag, header_text, http_time, if_match,
    percent_encode,
};
use crate::{Abilities, Expect};

const META: &str = "x-ms-meta-";
const MD5: HeaderName = HeaderName::from_static("content-md5");
const COPY_STATUS: HeaderName = HeaderName::from_static("x-ms-copy-status");
const MIB: u64 = 1 << 20;
/// Most copies inside an account are done when they are answered; others are asked about.
const COPY_PAUSE: Duration = Duration::from_millis(500);

/// What the storage takes of metadata, names and values together.
const METADATA_MAX: usize = 8 << 10;

/// The answer to a long operation comes when the storage is done with it.
const SLOW: Leeway = Leeway {
    redirect: false,
    whole: false,
    unchanged: false,
    slow: true,
};

#[async_trait]
impl KeyWriter for Azure {
    fn abilities(&self) -> Abilities {
        Abilities {
            directories: false,
            rename: false,
            attributes: false,
            symlinks: true,
            xattrs_max: METADATA_MAX - KEPT_BYTES,
            conditions: true,
            put_max: 5_000 * MIB,
            parts_max: 50_000,
            part_min: 1,
            part_max: 4_000 * MIB,
            parallel_parts: true,
        }
    }

    fn metadata_max(&self) -> usize {
        METADATA_MAX
    }

    fn checks(&self, _step: Step) -> bool {
        true
    }

    async fn look(&self, key: &str) -> Outcome<Option<Seen>> {
        if is_unheard_of(key) {
            return Ok(None);
        }
        let request = order(Request::head(self.url_of(key)), None)?;
        match self.session.transport.send(Ask::Head, request).await {
            Ok(answer) => seen(answer.headers()).map(Some),
            Err(fault) if fault.absent() => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    async fn put(&self, draft: &Draft, bytes: Bytes, expect: &Expect) -> Outcome<Stored> {
        let request = Request::put(self.place(&draft.key)?).header("x-ms-blob-type", "BlockBlob");
        let request = conditions(with_metadata(request, draft), expect);
        self.change(Ask::Put, with_md5(request, &bytes), bytes)
            .await
    }

    async fn begin(&self, draft: &Draft) -> Outcome<String> {
        self.place(&draft.key)?;
        let mark = draft.kept.mark.clone();
        Ok(mark.unwrap_or_else(|| Kept::new(&draft.kept.attributes).mark.unwrap_or_default()))
    }

    async fn part(&self, upload: &Parted, number: u32, bytes: Bytes) -> Outcome<Part> {
        let len = bytes.len() as u64;
        // All of one blob must be of one length.
        let tag = base64_encode(format!("{}{number:06}", upload.id).as_bytes());
        if len > 0 {
            let place = self.place(&upload.draft.key)?;
            let url = format!("{place}?comp=block&blockid={}", percent_encode(&tag));
            let request = with_md5(Request::put(url), &bytes);
            self.change(Ask::Put, request, bytes).await?;
        }
        Ok(Part {
            tag,
            checksum: None,
            len,
        })
    }

    async fn complete(&self, upload: &Parted, parts: &[Part], expect: &Expect) -> Outcome<Stored> {
        let url = format!("{}?comp=blocklist", self.place(&upload.draft.key)?);
        let request = conditions(with_metadata(Request::put(url), &upload.draft), expect);
        // Of an empty part there is no block.
        let sent = parts.iter().filter(|part| part.len > 0);
        let blocks = sent.map(|part| format!("<Latest>{}</Latest>", part.tag));
        let list = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{}</BlockList>",
            blocks.collect::<String>()
        );
        let request = request.header(CONTENT_TYPE, "application/xml");
        self.change(Ask::Upload, request, list.into()).await
    }

    async fn abort(&self, _key: &str, _id: &str) -> Outcome<()> {
        Ok(())
    }

    async fn delete(&self, key: &str, expect: &Expect) -> Outcome<()> {
        let request = match expect {
            Expect::Anything | Expect::Absent => Request::delete(self.url_of(key)),
            Expect::Version(_) => conditions(Request::delete(self.url_of(key)), expect),
        };
        let transport = &self.session.transport;
        match transport.send(Ask::Delete, order(request, None)?).await {
            Err(fault) if fault.absent() => Ok(()),
            // A condition does not hold of a blob that is not there, either.
            Err(fault) => match self.look(key).await {
                Ok(None) => Ok(()),
                _ => Err(fault),
            },
            Ok(_) => Ok(()),
        }
    }

    async fn copy(&self, copying: &Copying<'_>) -> Outcome<Stored> {
        let place = self.place(&copying.to.key)?;
        if copying.changes_kept && copying.from == copying.to.key {
            let request = Request::put(format!("{place}?comp=metadata"));
            let version = Expect::Version(copying.tag.clone());
            let request = conditions(with_metadata(request, copying.to), &version);
            return self.change(Ask::Copy, request, Bytes::new()).await;
        }
        let source = self.url_of(copying.from);
        let request = Request::put(&place).header("x-ms-copy-source", self.signed_source(source));
        let request = match copying.tag.etag.as_deref().and_then(if_match) {
            Some(condition) => request.header("x-ms-source-if-match", condition),
            None => request,
        };
        // Without any metadata the copy has that of the source.
        let request = match copying.changes_kept {
            true => with_metadata(request, copying.to),
            false => request,
        };
        let request = order(conditions(request, copying.expect), Some(Bytes::new()))?;
        let transport = &self.session.transport;
        let answer = transport.send_with(Ask::Copy, request, SLOW).await?;
        self.copied(&copying.to.key, answer.headers().clone()).await
    }
}

impl Azure {
    /// Returns where a blob is written.
    fn place(&self, key: &str) -> Outcome<String> {
        match is_unheard_of(key) {
            true => Err(Fault::Unfit(
                "Azure takes a backslash for a slash; choose another name".into(),
            )),
            false => Ok(self.url_of(key)),
        }
    }

    /// Returns an address for Azure to read from. It goes by the requests' own credentials, but for
    /// those that are part of addresses.
    fn signed_source(&self, url: String) -> String {
        let token = self.source_token.lock();
        match &*token.unwrap_or_else(PoisonError::into_inner) {
            Some(token) => format!("{url}?{token}"),
            None => url,
        }
    }

    /// Sends a change; returns what is stored now.
    async fn change(&self, ask: Ask, request: request::Builder, body: Bytes) -> Outcome<Stored> {
        let request = order(request, Some(body))?;
        let answer = self.session.transport.send(ask, request).await?;
        Ok(stored(answer.headers()))
    }

    /// Waits for the end of a copy.
    async fn copied(&self, key: &str, begun: HeaderMap) -> Outcome<Stored> {
        let mut told = begun;
        loop {
            match header_text(&told, COPY_STATUS) {
                Some("pending") => {}
                Some("success") | None => return Ok(stored(&told)),
                Some(other) => {
                    return Err(Fault::Broken(format!("the copy ended as '{other}'")));
                }
            }
            tokio::time::sleep(COPY_PAUSE).await;
            let request = order(Request::head(self.url_of(key)), None)?;
            let answer = self.session.transport.send(Ask::Other, request).await?;
            told = answer.headers().clone();
        }
    }
}

/// Returns the version and the rest that an answer's headers tell.
fn seen(headers: &HeaderMap) -> Outcome<Seen> {
    let mut rest = HeaderMap::new();
    for (name, value) in headers {
        let other = |name: &str| !KEPT_NAMES.iter().any(|kept| legal(kept) == name);
        if name.as_str().strip_prefix(META).is_some_and(other) {
            rest.append(name.clone(), value.clone());
        }
    }
    Ok(Seen {
        tag: tag_of(headers)?,
        kept: kept(headers),
        rest,
    })
}

/// Reads what is kept beside a blob.
pub(super) fn kept(headers: &HeaderMap) -> Kept {
    Kept::read(|name| headers.get(format!("{META}{}", legal(name)))?.to_str().ok())
}

/// Returns a name that metadata of Azure may have: one of C#.
fn legal(name: &str) -> String {
    name.replace('-', "_")
}

fn stored(headers: &HeaderMap) -> Stored {
    Stored {
        etag: header_text(headers, ETAG).and_then(clean_etag),
        mtime_ns: header_text(headers, LAST_MODIFIED).map(http_time),
    }
}

/// Says all that a blob is to have besides its bytes.
fn with_metadata(request: request::Builder, draft: &Draft) -> request::Builder {
    let mut request = request;
    for (name, value) in &draft.rest {
        request = request.header(name, value);
    }
    let told = draft.kept.written(draft.is_directory);
    told.into_iter().fold(request, |request, (name, value)| {
        request.header(format!("{META}{}", legal(name)), value)
    })
}

fn with_md5(request: request::Builder, bytes: &Bytes) -> request::Builder {
    request.header(MD5, base64_encode(&Md5::digest(bytes)))
}

/// Says what must be so.
fn conditions(request: request::Builder, expect: &Expect) -> request::Builder {
    match expect {
        Expect::Anything => request,
        Expect::Absent => request.header(IF_NONE_MATCH, "*"),
        Expect::Version(tag) => match tag.etag.as_deref().and_then(if_match) {
            Some(condition) => request.header(IF_MATCH, condition),
            None => request,
        },
    }
}

/// Ends a request; the length of its body is signed, too.
fn order(request: request::Builder, body: Option<Bytes>) -> Outcome<Request<Payload>> {
    let request = request.header("x-ms-version", API_VERSION);
    let request = match &body {
        Some(bytes) => request.header(CONTENT_LENGTH, bytes.len()),
        None => request,
    };
    let body = body.map_or_else(|| ().into(), Into::into);
    request
        .body(body)
        .map_err(|error| Fault::Unfit(error.to_string()))
}
