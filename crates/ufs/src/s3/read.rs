// SPDX-License-Identifier: Apache-2.0
//! Reads of a range of one version, checked as the bytes come.
//!
//! Each GET carries `If-Match`; its answer must be the asked range (`http`) of the asked version
//! (here). A body that breaks off is resumed with a GET of what is missing, under the same
//! conditions. The last piece is held until the body's end is seen, so that a body too long is an
//! error before its reader has all it wanted.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use opendal::options::ReadOptions;
use opendal::raw::OpRead;
use opendal::raw::oio::{ReadDyn, ReadStreamDyn};
use opendal::{BytesRange, Metadata};
use tokio::sync::OwnedSemaphorePermit;
use types::{ByteRange, Deadline, Error, ObjectPath, Result, VersionTag};

use super::answer::if_match;
use super::fault::Fault;
use super::{Inner, before, tag_of};
use crate::ByteStream;
use crate::counters::count;
use crate::retry::Retry;

/// Opens the stream; the first answer has come when this returns.
pub(super) async fn stream(
    inner: Arc<Inner>,
    path: &ObjectPath,
    tag: &VersionTag,
    range: ByteRange,
    deadline: Deadline,
) -> Result<ByteStream> {
    let what = inner.name("read", path);
    if range.end() > tag.size {
        return Err(Error::internal("the range is not inside the object").context(what));
    }
    if range.len == 0 {
        return Ok(Box::pin(stream::empty()));
    }
    let (key, retry) = (inner.key(path)?, Retry::new(deadline));
    let (at, tag) = (range.offset, tag.clone());
    let mut body = Body {
        inner,
        what,
        key,
        tag,
        at,
        end: range.end(),
        retry,
        open: None,
    };
    body.ensure_open().await?;
    Ok(Box::pin(stream::unfold(Some(body), |body| async {
        let mut body = body?;
        match body.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(body))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })))
}

/// A read under way.
struct Body {
    inner: Arc<Inner>,
    what: String,
    key: String,
    tag: VersionTag,
    /// The next byte to hand out.
    at: u64,
    end: u64,
    retry: Retry,
    open: Option<Open>,
}

/// An answer whose body is being read, with its connection.
struct Open {
    body: Box<dyn ReadStreamDyn>,
    _connection: OwnedSemaphorePermit,
}

impl Body {
    /// Returns the next bytes; `None` when all have been handed out.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.at < self.end {
            self.ensure_open().await?;
            match self.piece().await {
                Ok(bytes) => {
                    self.retry.progressed();
                    self.at += bytes.len() as u64;
                    let read = &self.inner.counters.bytes_read;
                    read.fetch_add(bytes.len() as u64, std::sync::atomic::Ordering::Relaxed);
                    return Ok(Some(bytes));
                }
                Err(fault) => {
                    self.open = None;
                    self.inner.pause(&self.what, &mut self.retry, fault).await?;
                }
            }
        }
        self.open = None;
        Ok(None)
    }

    async fn ensure_open(&mut self) -> Result<()> {
        while self.open.is_none() {
            match before(self.retry.deadline(), self.request()).await {
                Ok(open) => self.open = Some(open),
                Err(fault) => self.inner.pause(&self.what, &mut self.retry, fault).await?,
            }
        }
        Ok(())
    }

    /// Asks for what is missing.
    async fn request(&self) -> std::result::Result<Open, Fault> {
        let connection = self.inner.connection().await;
        let options = ReadOptions {
            range: BytesRange::new(self.at, Some(self.end - self.at)),
            if_match: self.tag.etag.as_deref().and_then(if_match),
            ..ReadOptions::default()
        };
        let (range, arguments, _): (BytesRange, OpRead, _) = options.into();
        let failed = |error| gone(Fault::of(&error));
        let reader = self
            .inner
            .service
            .read_dyn(&self.inner.context, &self.key, arguments)
            .map_err(failed)?;
        let (answer, body) = reader.open_dyn(range).await.map_err(failed)?;
        let meta = answer.into_metadata();
        let meta = meta.ok_or_else(|| Fault::Unfit("the storage tells no version".into()))?;
        check_version(&self.tag, &meta)?;
        Ok(Open {
            body,
            _connection: connection,
        })
    }

    /// Returns the next piece of the open body, which is within what is missing.
    async fn piece(&mut self) -> std::result::Result<Bytes, Fault> {
        let (missing, deadline) = (self.end - self.at, self.retry.deadline());
        let open = self
            .open
            .as_mut()
            .ok_or_else(|| Fault::Broken("no body".into()))?;
        let mut next = async || -> std::result::Result<Bytes, Fault> {
            let piece = before(deadline, async {
                open.body
                    .read_dyn()
                    .await
                    .map_err(|error| Fault::of(&error))
            });
            piece.await.map(|buffer| buffer.to_bytes())
        };
        let piece = next().await?;
        let fault = match piece.len() as u64 {
            0 => Fault::Broken(format!("{missing} bytes are missing")),
            len if len < missing => return Ok(piece),
            len if len == missing && next().await?.is_empty() => return Ok(piece),
            _ => Fault::WrongAnswer("more bytes than were asked".into()),
        };
        count(&self.inner.counters.errors);
        Err(fault)
    }
}

/// What a refusal means to one who reads a version that was there.
fn gone(fault: Fault) -> Fault {
    match fault {
        fault if fault.absent() => Fault::Stale("the object is gone".into()),
        fault => fault,
    }
}

/// Checks that an answer belongs to the asked version.
fn check_version(asked: &VersionTag, answer: &Metadata) -> std::result::Result<(), Fault> {
    let given = tag_of(answer);
    match (&asked.etag, &given.etag) {
        (Some(asked), Some(given)) if asked != given => {
            return Err(Fault::Stale(format!(
                "the object changed: its ETag is '{given}' now"
            )));
        }
        (Some(_), None) => {
            return Err(Fault::Unfit(
                "the storage sent bytes without their ETag".into(),
            ));
        }
        (None, _) if asked.mtime_ns != given.mtime_ns => {
            return Err(Fault::Stale(
                "the object changed: it has another time now".into(),
            ));
        }
        _ => {}
    }
    match asked.size == given.size {
        true => Ok(()),
        false => Err(Fault::Stale(format!(
            "the object changed: it has {} bytes now",
            given.size
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opendal::MetadataBuilder;

    #[test]
    fn an_answer_of_another_version_is_stale() {
        let answer = |etag: Option<&str>, size| {
            let mut meta = MetadataBuilder::file(size);
            if let Some(etag) = etag {
                meta.etag(etag);
            }
            meta.build()
        };
        let asked = VersionTag {
            etag: Some("a".into()),
            mtime_ns: 5,
            size: 10,
        };
        let check = |etag, size| check_version(&asked, &answer(etag, size));
        assert_eq!(check(Some("\"a\""), 10), Ok(()));
        assert!(matches!(check(Some("\"b\""), 10), Err(Fault::Stale(_))));
        assert!(matches!(check(Some("\"a\""), 11), Err(Fault::Stale(_))));
        assert!(matches!(check(None, 10), Err(Fault::Unfit(_))));
        let untagged = VersionTag {
            etag: None,
            ..asked
        };
        assert!(matches!(
            check_version(&untagged, &answer(None, 10)),
            Err(Fault::Stale(_))
        ));
    }
}
