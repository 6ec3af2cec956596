// SPDX-License-Identifier: Apache-2.0
//! The requests of S3 that change something.
//!
//! Conditions are `If-None-Match: *` and `If-Match`. All storages get them; that of a small object
//! is left to the storage, the others are checked by a look as well, since many storages know them
//! for PUT only. Ceph's gateway compares tags letter by letter: a condition that does not hold, but
//! by a look should, is sent once more with or without its quotes. Bytes go out with their CRC32C, which the answer must repeat; to a storage that
//! does not, with `Content-MD5`, which all of them check.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, DATE,
    EXPIRES, IF_MATCH, IF_NONE_MATCH,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, request};
use md5::{Digest, Md5};
use reqsign_core::hash::base64_encode;
use types::ByteRange;

use super::change::{Ended, UnfinishedPage, parse_begun, parse_ended, parse_unfinished};
use super::{S3, tag_of};
use crate::http::{
    Ask, Copying, Draft, Fault, KEPT_BYTES, KEPT_NAMES, Kept, KeyWriter, Leeway, Outcome, Part,
    Parted, Payload, Seen, Step, Stored, Unfinished, clean_etag, header_text, http_time, if_match,
    percent_encode, percent_encode_path,
};
use crate::{Abilities, Expect};

const META: &str = "x-amz-meta-";
const CRC: HeaderName = HeaderName::from_static("x-amz-checksum-crc32c");
const MD5: HeaderName = HeaderName::from_static("content-md5");
/// What s3fs and others give the marker of a directory.
const DIRECTORY_TYPE: HeaderValue = HeaderValue::from_static("application/x-directory");
/// What an object has besides its bytes that a copy with other metadata would lose.
const REST: [HeaderName; 8] = [
    CACHE_CONTROL,
    CONTENT_DISPOSITION,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_TYPE,
    EXPIRES,
    HeaderName::from_static("x-amz-storage-class"),
    HeaderName::from_static("x-amz-website-redirect-location"),
];
/// The end of an operation is a few hundred bytes, and blanks for as long as it takes.
const ENDED_BYTES_MAX: usize = 1 << 20;
/// A page of a thousand uploads, with keys of a kilobyte.
const UPLOADS_BYTES_MAX: usize = 16 << 20;
const GIB: u64 = 1 << 30;

/// What the storage takes of metadata, names and values together.
const METADATA_MAX: usize = 2 << 10;

/// The answer to a long operation comes when the storage is done with it.
const SLOW: Leeway = Leeway {
    redirect: false,
    whole: false,
    unchanged: false,
    slow: true,
};

#[async_trait]
impl KeyWriter for S3 {
    fn abilities(&self) -> Abilities {
        Abilities {
            directories: false,
            rename: false,
            attributes: false,
            symlinks: true,
            xattrs_max: METADATA_MAX - KEPT_BYTES,
            conditions: true,
            put_max: 5 * GIB,
            parts_max: 10_000,
            part_min: 5 << 20,
            part_max: 5 * GIB,
            parallel_parts: true,
        }
    }

    fn metadata_max(&self) -> usize {
        METADATA_MAX
    }

    fn checks(&self, step: Step) -> bool {
        match step {
            Step::Put => true,
            Step::Complete | Step::Copy | Step::Delete => false,
        }
    }

    fn takes(&self, key: &str) -> Outcome<()> {
        self.place(key).map(|_| ())
    }

    async fn look(&self, key: &str) -> Outcome<Option<Seen>> {
        let request = body(Request::head(self.url_of(key)), ())?;
        match self.session.transport.send(Ask::Head, request).await {
            Ok(answer) => seen(answer.headers()).map(Some),
            Err(fault) if fault.absent() => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    async fn put(&self, draft: &Draft, bytes: Bytes, expect: &Expect) -> Outcome<Stored> {
        let fault = match self.put_once(draft, bytes.clone(), expect).await {
            Err(Fault::Refused(refusal)) if refusal.status == 412 => Fault::Refused(refusal),
            put => return put,
        };
        let Expect::Version(tag) = expect else {
            return Err(fault);
        };
        match self.look(&draft.key).await? {
            Some(seen) if seen.tag.etag == tag.etag => {}
            Some(_) | None => return Err(fault),
        }
        self.wants_bare_tags.fetch_xor(true, Ordering::Relaxed);
        self.put_once(draft, bytes, expect).await
    }

    async fn begin(&self, draft: &Draft) -> Outcome<String> {
        let request = Request::post(format!("{}?uploads=", self.place(&draft.key)?));
        // Parts with a checksum are refused by AWS in an upload that was not begun with one.
        let request = request.header("x-amz-checksum-algorithm", "CRC32C");
        let request = body(with_metadata(request, draft), Bytes::new())?;
        let transport = &self.session.transport;
        let answer = transport.send(Ask::Upload, request).await?;
        parse_begun(&transport.body(answer, ENDED_BYTES_MAX).await?)
    }

    async fn part(&self, upload: &Parted, number: u32, bytes: Bytes) -> Outcome<Part> {
        let len = bytes.len() as u64;
        let request = Request::put(self.part_url(upload, number)?);
        let (answer, checksum) = self.send_bytes(request, bytes).await?;
        let etag = header_text(&answer, http::header::ETAG).and_then(clean_etag);
        let untagged = || Fault::Unfit("the storage took a part and gave no tag of it".into());
        Ok(Part {
            tag: etag.ok_or_else(untagged)?,
            checksum,
            len,
        })
    }

    async fn complete(&self, upload: &Parted, parts: &[Part], expect: &Expect) -> Outcome<Stored> {
        let url = self.upload_url(&upload.draft.key, &upload.id)?;
        let list = Bytes::from(list_of(parts));
        let request = self.conditions(Request::post(url), expect);
        let request = request.header(CONTENT_TYPE, "application/xml");
        let request = body(request, list)?;
        let root = "CompleteMultipartUploadResult";
        self.send_long(Ask::Upload, request, root).await
    }

    async fn abort(&self, key: &str, id: &str) -> Outcome<()> {
        let request = body(Request::delete(self.upload_url(key, id)?), ())?;
        match self.session.transport.send(Ask::Upload, request).await {
            Ok(_) => Ok(()),
            Err(Fault::Refused(refusal)) if refusal.status == 404 => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    async fn delete(&self, key: &str, expect: &Expect) -> Outcome<()> {
        let request = match expect {
            Expect::Anything | Expect::Absent => Request::delete(self.place(key)?),
            Expect::Version(_) => self.conditions(Request::delete(self.place(key)?), expect),
        };
        match self
            .session
            .transport
            .send(Ask::Delete, body(request, ())?)
            .await
        {
            Ok(_) => Ok(()),
            Err(fault) if fault.absent() => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    async fn copy(&self, copying: &Copying<'_>) -> Outcome<Stored> {
        let request = Request::put(self.place(&copying.to.key)?);
        let request = self.conditions(self.with_source(request, copying), copying.expect);
        let request = match copying.changes_kept {
            true => {
                with_metadata(request, copying.to).header("x-amz-metadata-directive", "REPLACE")
            }
            // The class would be the standard one else.
            false => class_of(request, copying.to),
        };
        let request = body(request, Bytes::new())?;
        self.send_long(Ask::Copy, request, "CopyObjectResult").await
    }

    fn copy_max(&self) -> u64 {
        5 * GIB
    }

    async fn copy_part(
        &self,
        copying: &Copying<'_>,
        upload: &Parted,
        number: u32,
        range: ByteRange,
    ) -> Outcome<Part> {
        let request = Request::put(self.part_url(upload, number)?);
        let last = range.end().saturating_sub(1);
        let request = self.with_source(request, copying).header(
            "x-amz-copy-source-range",
            format!("bytes={}-{last}", range.offset),
        );
        let request = body(request, Bytes::new())?;
        let copied = self.send_long(Ask::Copy, request, "CopyPartResult").await?;
        let untagged = || Fault::Unfit("the storage copied a part and gave no tag of it".into());
        Ok(Part {
            tag: copied.etag.ok_or_else(untagged)?,
            checksum: None,
            len: range.len,
        })
    }

    async fn unfinished(
        &self,
        prefix: &str,
        token: Option<&str>,
    ) -> Outcome<(Vec<Unfinished>, Option<String>)> {
        let Some(bucket) = &self.bucket else {
            return Ok((Vec::new(), None));
        };
        let url = self.address.bucket_url(bucket);
        let mut url = format!("{url}?uploads=&prefix={}", percent_encode(prefix));
        // A key holds no newline that is not encoded, since the token is made here.
        if let Some((key, id)) = token.and_then(|token| token.split_once('\n')) {
            url.push_str(&format!("&key-marker={key}&upload-id-marker={id}"));
        }
        let transport = &self.session.transport;
        let answer = transport
            .send(Ask::List, body(Request::get(url), ())?)
            .await?;
        let answer = transport.body(answer, UPLOADS_BYTES_MAX).await?;
        let UnfinishedPage { uploads, next } = parse_unfinished(&answer)?;
        let next =
            next.map(|(key, id)| format!("{}\n{}", percent_encode(&key), percent_encode(&id)));
        Ok((uploads, next))
    }
}

impl S3 {
    /// Returns where an object is written.
    fn place(&self, key: &str) -> Outcome<String> {
        match self.split(key) {
            (_, "") => Err(Fault::Unfit(
                "a bucket is not made, written or removed through a mount".into(),
            )),
            _ => Ok(self.url_of(key)),
        }
    }

    fn upload_url(&self, key: &str, id: &str) -> Outcome<String> {
        Ok(format!(
            "{}?uploadId={}",
            self.place(key)?,
            percent_encode(id)
        ))
    }

    fn part_url(&self, upload: &Parted, number: u32) -> Outcome<String> {
        let id = percent_encode(&upload.id);
        let url = self.place(&upload.draft.key)?;
        Ok(format!("{url}?partNumber={number}&uploadId={id}"))
    }

    /// Says what is copied, and that it must be this version.
    fn with_source(&self, request: request::Builder, copying: &Copying<'_>) -> request::Builder {
        let (bucket, key) = self.split(copying.from);
        let source = format!("/{bucket}/{}", percent_encode_path(key));
        let request = request.header("x-amz-copy-source", source);
        match copying.tag.etag.as_deref().and_then(if_match) {
            Some(condition) => request.header("x-amz-copy-source-if-match", condition),
            None => request,
        }
    }

    async fn put_once(&self, draft: &Draft, bytes: Bytes, expect: &Expect) -> Outcome<Stored> {
        let request = Request::put(self.place(&draft.key)?);
        let request = self.conditions(with_metadata(request, draft), expect);
        let (answer, _) = self.send_bytes(request, bytes).await?;
        Ok(Stored {
            etag: header_text(&answer, http::header::ETAG).and_then(clean_etag),
            mtime_ns: header_text(&answer, DATE).map(http_time),
        })
    }

    /// Says what must be so.
    fn conditions(&self, request: request::Builder, expect: &Expect) -> request::Builder {
        let tag = match expect {
            Expect::Anything => return request,
            Expect::Absent => return request.header(IF_NONE_MATCH, "*"),
            Expect::Version(tag) => tag,
        };
        match (tag.etag.as_deref().and_then(if_match), &tag.etag) {
            (Some(_), Some(bare)) if self.wants_bare_tags.load(Ordering::Relaxed) => {
                request.header(IF_MATCH, bare)
            }
            (Some(quoted), _) => request.header(IF_MATCH, quoted),
            (None, _) => request,
        }
    }

    /// Sends bytes with what proves that they arrived; returns the answer's headers, and the
    /// checksum if the storage knows it.
    async fn send_bytes(
        &self,
        request: request::Builder,
        bytes: Bytes,
    ) -> Outcome<(HeaderMap, Option<String>)> {
        let checksum = base64_encode(&crc_fast::crc32_iscsi(&bytes).to_be_bytes());
        let mut request = request.header(CRC, &checksum);
        if !self.repeats_checksums.load(Ordering::Relaxed) {
            request = request.header(MD5, base64_encode(&Md5::digest(&bytes)));
        }
        let transport = &self.session.transport;
        let answer = transport.send(Ask::Put, body(request, bytes)?).await?;
        let told = header_text(answer.headers(), CRC);
        self.repeats_checksums
            .store(told.is_some(), Ordering::Relaxed);
        match told {
            Some(told) if told != checksum => Err(Fault::WrongAnswer(format!(
                "it took bytes with checksum {told} when those sent have {checksum}"
            ))),
            told => Ok((answer.headers().clone(), told.map(String::from))),
        }
    }

    /// Sends what may take long, and whose answer tells only at its end how it went.
    async fn send_long(&self, ask: Ask, request: Request<Bytes>, root: &str) -> Outcome<Stored> {
        let transport = &self.session.transport;
        let answer = transport.send_with(ask, request, SLOW).await?;
        let (headers, status) = (answer.headers().clone(), answer.status());
        let xml = transport.body(answer, ENDED_BYTES_MAX).await?;
        match parse_ended(&xml, root)? {
            Ended::Done(stored) => Ok(Stored {
                mtime_ns: stored
                    .mtime_ns
                    .or_else(|| header_text(&headers, DATE).map(http_time)),
                ..stored
            }),
            Ended::Failed { code } => {
                tracing::debug!(%status, code, "an error inside of a success");
                let status = match code.as_str() {
                    "PreconditionFailed" => 412,
                    "NoSuchKey" | "NoSuchUpload" => 404,
                    "SlowDown" => 503,
                    // AWS sends this one, and asks to send the request again.
                    _ => 500,
                };
                Err(Fault::Refused(transport.refused(status, &headers, &xml)))
            }
        }
    }
}

/// Returns the version and the rest that an answer's headers tell.
fn seen(headers: &HeaderMap) -> Outcome<Seen> {
    let mut rest = HeaderMap::new();
    for (name, value) in headers {
        let is_kept = || {
            let name = name.as_str().strip_prefix(META);
            name.is_some_and(|name| KEPT_NAMES.contains(&name))
        };
        if REST.contains(name) || (name.as_str().starts_with(META) && !is_kept()) {
            rest.append(name.clone(), value.clone());
        }
    }
    Ok(Seen {
        tag: tag_of(headers)?,
        kept: kept(headers),
        rest,
    })
}

/// Reads what is kept beside an object.
pub(super) fn kept(headers: &HeaderMap) -> Kept {
    Kept::read(|name| headers.get(format!("{META}{name}"))?.to_str().ok())
}

/// Says all that an object is to have besides its bytes.
fn with_metadata(request: request::Builder, draft: &Draft) -> request::Builder {
    let mut request = request;
    for (name, value) in &draft.rest {
        request = request.header(name, value);
    }
    if draft.is_directory && !draft.rest.contains_key(CONTENT_TYPE) {
        request = request.header(CONTENT_TYPE, DIRECTORY_TYPE);
    }
    let told = draft.kept.written(draft.is_directory);
    told.into_iter().fold(request, |request, (name, value)| {
        request.header(format!("{META}{name}"), value)
    })
}

/// Says only of which class an object is to be.
fn class_of(request: request::Builder, draft: &Draft) -> request::Builder {
    match draft.rest.get("x-amz-storage-class") {
        Some(class) => request.header("x-amz-storage-class", class),
        None => request,
    }
}

/// Writes the list of the parts of an upload.
fn list_of(parts: &[Part]) -> String {
    let mut list = String::from("<CompleteMultipartUpload>");
    for (number, part) in (1..).zip(parts) {
        let tag = quick_xml::escape::escape(&part.tag);
        list.push_str(&format!(
            "<Part><PartNumber>{number}</PartNumber><ETag>&quot;{tag}&quot;</ETag>"
        ));
        if let Some(checksum) = &part.checksum {
            list.push_str(&format!("<ChecksumCRC32C>{checksum}</ChecksumCRC32C>"));
        }
        list.push_str("</Part>");
    }
    list.push_str("</CompleteMultipartUpload>");
    list
}

fn body<T: Into<Payload>>(request: request::Builder, body: T) -> Outcome<Request<T>> {
    let request = request.body(body);
    request.map_err(|error| Fault::Unfit(error.to_string()))
}
