// SPDX-License-Identifier: Apache-2.0
//! The requests of Google Cloud Storage that change something.
//!
//! Conditions are generations, and zero is that of a name that is free. All requests carry them;
//! those but uploads are checked by a look as well, since emulators know them for uploads only.
//! Bytes go out with their CRC32C, which the storage checks. A resumable upload takes its condition
//! when it begins and its bytes in order, so parts are objects of their own, in a directory that no
//! listing shows, and are composed at the end: 32 at a time, without being sent again.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request};
use reqsign_core::hash::base64_encode;
use serde_json::{Map, Value, json};

use super::answer::{Rewritten, Told, parse_object, parse_page, parse_rewritten};
use super::{Gcs, OBJECT_BYTES_MAX, OBJECT_FIELDS, PAGE_BYTES_MAX, TOLD_FIELDS};
use crate::http::{
    Ask, Copying, Draft, Fault, GCSFUSE_LINK, KEPT_BYTES, KEPT_XATTRS, Kept, KeyWriter, Leeway,
    Outcome, Page, Part, Parted, Seen, Step, Stored, Unfinished, percent_encode,
};
use crate::{Abilities, Expect, FileAttributes};

/// Where parts lie until they are composed, below the mount's root.
pub(super) const PARTS_DIR: &str = ".forebay-uploads/";
/// What one request composes, of at most that many parts of parts.
const COMPOSED_AT_ONCE: usize = 32;
const PARTS_MAX: u32 = 1024;
/// Objects may be larger; what is sent at once is copied once in memory.
const PUT_MAX: u64 = 1 << 30;
/// Requests that tidy up behind an upload, at once.
const REMOVALS_AT_ONCE: usize = 8;
const ANYTHING: &str = "application/octet-stream";

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
impl KeyWriter for Gcs {
    fn abilities(&self) -> Abilities {
        Abilities {
            directories: false,
            rename: false,
            attributes: false,
            symlinks: true,
            xattrs_max: METADATA_MAX - KEPT_BYTES,
            conditions: true,
            put_max: PUT_MAX,
            parts_max: PARTS_MAX,
            part_min: 1,
            part_max: PUT_MAX,
            parallel_parts: true,
        }
    }

    fn metadata_max(&self) -> usize {
        METADATA_MAX
    }

    fn link_bytes(&self) -> Bytes {
        Bytes::new()
    }

    fn checks(&self, step: Step) -> bool {
        match step {
            Step::Put => true,
            Step::Complete | Step::Copy | Step::Delete => false,
        }
    }

    async fn look(&self, key: &str) -> Outcome<Option<Seen>> {
        let object = self.describe(Ask::Head, key).await?;
        Ok(object.map(|object| Seen {
            tag: object.tag,
            kept: object.kept,
            rest: HeaderMap::new(),
        }))
    }

    async fn put(&self, draft: &Draft, bytes: Bytes, expect: &Expect) -> Outcome<Stored> {
        self.upload(&draft.key, Some(draft), bytes, expect).await
    }

    async fn begin(&self, draft: &Draft) -> Outcome<String> {
        let mark = draft.kept.mark.clone();
        Ok(mark.unwrap_or_else(|| Kept::new(&draft.kept.attributes).mark.unwrap_or_default()))
    }

    async fn part(&self, upload: &Parted, number: u32, bytes: Bytes) -> Outcome<Part> {
        let len = bytes.len() as u64;
        let key = self.part_key(&upload.id, &format!("{number:05}"));
        let stored = self.upload(&key, None, bytes, &Expect::Anything).await?;
        Ok(Part {
            tag: format!("{key}\n{}", stored.etag.unwrap_or_default()),
            checksum: None,
            len,
        })
    }

    async fn complete(&self, upload: &Parted, parts: &[Part], expect: &Expect) -> Outcome<Stored> {
        let mut tags: Vec<String> = parts.iter().map(|part| part.tag.clone()).collect();
        if tags.len() > COMPOSED_AT_ONCE {
            let groups = tags.chunks(COMPOSED_AT_ONCE).enumerate();
            let composed = groups.map(|(number, tags)| async move {
                let key = self.part_key(&upload.id, &format!("g{number:04}"));
                let composed = self.compose(&key, None, tags, &Expect::Anything).await?;
                Ok::<_, Fault>(format!("{key}\n{}", composed.etag.unwrap_or_default()))
            });
            let composed = stream::iter(composed.collect::<Vec<_>>());
            tags = composed
                .buffered(REMOVALS_AT_ONCE)
                .try_collect::<Vec<_>>()
                .await?;
        }
        let (key, draft) = (&upload.draft.key, Some(&upload.draft));
        let stored = self.compose(key, draft, &tags, expect).await?;
        // It is done; what stays is removed with other uploads that did not end.
        if let Err(fault) = self.abort(key, &upload.id).await {
            tracing::debug!(%fault, "parts of an upload stay for a day");
        }
        Ok(stored)
    }

    async fn abort(&self, _key: &str, id: &str) -> Outcome<()> {
        let prefix = self.part_key(id, "");
        let mut token = None;
        loop {
            let page = self.parts(&prefix, token.as_deref()).await?;
            let keys = page.objects.into_iter().filter_map(|object| object.key);
            let removals =
                keys.map(|key| async move { self.remove(&key, &Expect::Anything).await });
            let removals = stream::iter(removals.collect::<Vec<_>>());
            removals
                .buffer_unordered(REMOVALS_AT_ONCE)
                .try_collect::<Vec<()>>()
                .await?;
            match page.next {
                Some(next) => token = Some(next),
                None => return Ok(()),
            }
        }
    }

    async fn delete(&self, key: &str, expect: &Expect) -> Outcome<()> {
        self.remove(key, expect).await
    }

    async fn copy(&self, copying: &Copying<'_>) -> Outcome<Stored> {
        if copying.changes_kept && copying.from == copying.to.key {
            return self.patch(copying).await;
        }
        let (from, to) = (self.url_of(copying.from), percent_encode(&copying.to.key));
        let mut url = format!(
            "{from}/rewriteTo/b/{}/o/{to}?fields=done,rewriteToken,resource({TOLD_FIELDS}){}",
            self.bucket,
            condition(copying.expect)
        );
        if let Some(generation) = &copying.tag.etag {
            let generation = percent_encode(generation);
            url.push_str(&format!("&ifSourceGenerationMatch={generation}"));
        }
        // What is not told is copied with the bytes.
        let body = match copying.changes_kept {
            true => Bytes::from(resource(copying.to).to_string()),
            false => Bytes::new(),
        };
        let mut token = None::<String>;
        loop {
            let url = match &token {
                Some(token) => format!("{url}&rewriteToken={}", percent_encode(token)),
                None => url.clone(),
            };
            let answer = self.order(Ask::Copy, Method::POST, &url, body.clone());
            match parse_rewritten(&answer.await?)? {
                Rewritten::Done(object) => return Ok(stored(object)),
                Rewritten::Begun { next } => token = Some(next),
            }
        }
    }

    async fn unfinished(
        &self,
        prefix: &str,
        token: Option<&str>,
    ) -> Outcome<(Vec<Unfinished>, Option<String>)> {
        let dir = format!("{prefix}{PARTS_DIR}");
        let page = self.parts(&dir, token).await?;
        let mut uploads: Vec<Unfinished> = Vec::new();
        for object in page.objects {
            let Some(key) = object.key else { continue };
            let id = key.strip_prefix(&dir).and_then(|rest| rest.split_once('/'));
            let Some((id, _)) = id else { continue };
            if uploads.last().is_none_or(|last| last.id != id) {
                uploads.push(Unfinished {
                    id: id.into(),
                    key,
                    begun_ns: object.mtime_ns,
                });
            }
        }
        Ok((uploads, page.next))
    }
}

impl Gcs {
    fn part_key(&self, id: &str, name: &str) -> String {
        format!("{}{PARTS_DIR}{id}/{name}", self.prefix)
    }

    /// Asks for a page of the objects below a directory, at any depth.
    async fn parts(&self, dir: &str, token: Option<&str>) -> Outcome<Page> {
        let mut url = format!(
            "{}?fields=kind,nextPageToken,items({OBJECT_FIELDS})&prefix={}",
            self.objects_url,
            percent_encode(dir)
        );
        if let Some(token) = token {
            url.push_str(&format!("&pageToken={}", percent_encode(token)));
        }
        let request = self.finish(Request::get(url), ())?;
        let transport = &self.session.transport;
        let listed = transport.send(Ask::List, request).await?;
        parse_page(&transport.body(listed, PAGE_BYTES_MAX).await?)
    }

    /// Sends an order with a body that is none of an object's; returns what was answered.
    async fn order(&self, ask: Ask, method: Method, url: &str, body: Bytes) -> Outcome<Vec<u8>> {
        let request = Request::builder().method(method).uri(url);
        let request = match body.is_empty() {
            true => request,
            false => request.header(CONTENT_TYPE, "application/json"),
        };
        let request = self.finish(request, body)?;
        let transport = &self.session.transport;
        let answer = transport.send_with(ask, request, SLOW).await?;
        transport.body(answer, OBJECT_BYTES_MAX).await
    }

    /// Sends an object: what is told of it and its bytes, in one body.
    async fn upload(
        &self,
        key: &str,
        draft: Option<&Draft>,
        bytes: Bytes,
        expect: &Expect,
    ) -> Outcome<Stored> {
        let mut told = draft.map_or_else(|| json!({}), resource);
        let checksum = crc_fast::crc32_iscsi(&bytes).to_be_bytes();
        told["name"] = key.into();
        told["crc32c"] = base64_encode(&checksum).into();
        // Nobody can guess it, so that it does not stand in the bytes.
        let boundary = Kept::new(&FileAttributes::default()).mark;
        let boundary = boundary.unwrap_or_default();
        let head = format!(
            "--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{told}\r\n\
             --{boundary}\r\nContent-Type: {ANYTHING}\r\n\r\n"
        );
        let tail = format!("\r\n--{boundary}--\r\n");
        let envelope = (head.len() + tail.len()) as u64;
        // One copy in memory, for one request in place of two.
        let mut body = BytesMut::with_capacity(head.len() + bytes.len() + tail.len());
        body.put(head.as_bytes());
        body.put(bytes);
        body.put(tail.as_bytes());
        let url = format!(
            "{}?uploadType=multipart&fields={TOLD_FIELDS}{}",
            self.upload_url,
            condition(expect)
        );
        let kind = format!("multipart/related; boundary={boundary}");
        let request = Request::post(url).header(CONTENT_TYPE, kind);
        let request = self.finish(request, body.freeze())?;
        let transport = &self.session.transport;
        let answer = transport.send(Ask::Put, request).await?;
        // What is around the bytes is none of the object's.
        let written = &transport.counters.bytes_written;
        written.fetch_sub(envelope, Ordering::Relaxed);
        let object = parse_object(&transport.body(answer, OBJECT_BYTES_MAX).await?)?;
        Ok(stored(object))
    }

    /// Makes one object of others, which are told by key and generation.
    async fn compose(
        &self,
        key: &str,
        draft: Option<&Draft>,
        tags: &[String],
        expect: &Expect,
    ) -> Outcome<Stored> {
        let url = format!(
            "{}/compose?fields={TOLD_FIELDS}{}",
            self.url_of(key),
            condition(expect)
        );
        let sources = tags.iter().filter_map(|tag| tag.rsplit_once('\n'));
        let sources: Vec<Value> = sources
            .map(|(name, generation)| {
                json!({"name": name, "objectPreconditions": {"ifGenerationMatch": generation}})
            })
            .collect();
        let mut destination = draft.map_or_else(|| json!({}), resource);
        destination["contentType"] = ANYTHING.into();
        let body = json!({"sourceObjects": sources, "destination": destination});
        let body = Bytes::from(body.to_string());
        let answer = self.order(Ask::Upload, Method::POST, &url, body).await?;
        parse_object(&answer).map(stored)
    }

    async fn remove(&self, key: &str, expect: &Expect) -> Outcome<()> {
        let conditions = match expect {
            Expect::Anything | Expect::Absent => String::new(),
            Expect::Version(_) => condition(expect),
        };
        let url = match conditions.strip_prefix('&') {
            Some(conditions) => format!("{}?{conditions}", self.url_of(key)),
            None => self.url_of(key),
        };
        let request = self.finish(Request::delete(url), ())?;
        match self.session.transport.send(Ask::Delete, request).await {
            Err(fault) if !fault.absent() => Err(fault),
            _ => Ok(()),
        }
    }

    /// Changes what is kept beside a version, which stays the version that it is.
    async fn patch(&self, copying: &Copying<'_>) -> Outcome<Stored> {
        let version = Expect::Version(copying.tag.clone());
        let url = format!(
            "{}?fields={TOLD_FIELDS}{}",
            self.url_of(&copying.to.key),
            condition(&version)
        );
        let mut told = resource(copying.to);
        if copying.to.kept.has_lost_xattrs() {
            // What is not told would stay.
            told["metadata"][KEPT_XATTRS] = Value::Null;
        }
        let body = Bytes::from(told.to_string());
        let answer = self.order(Ask::Copy, Method::PATCH, &url, body).await?;
        parse_object(&answer).map(stored)
    }
}

/// Returns what is told of an object besides its bytes.
fn resource(draft: &Draft) -> Value {
    let told = draft.kept.written(draft.is_directory).into_iter();
    let mut told: Map<String, Value> = told
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    if let Some(link) = &draft.kept.link {
        // By this one listings tell, and others know, what the object is.
        let link = String::from_utf8_lossy(link);
        told.insert(GCSFUSE_LINK.into(), link.into());
    }
    json!({ "metadata": told })
}

/// Says what must be so, to be put behind other parameters.
fn condition(expect: &Expect) -> String {
    let generation = match expect {
        Expect::Anything => return String::new(),
        Expect::Absent => "0",
        Expect::Version(tag) => match &tag.etag {
            Some(generation) => generation,
            None => return String::new(),
        },
    };
    format!("&ifGenerationMatch={}", percent_encode(generation))
}

fn stored(told: Told) -> Stored {
    Stored {
        etag: told.tag.etag,
        mtime_ns: Some(told.created_ns),
    }
}
