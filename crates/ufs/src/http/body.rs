// SPDX-License-Identifier: Apache-2.0
//! Reads of a range of one version, checked as the bytes come.
//!
//! Each answer must be the asked range (`range`) of the asked version ([`check_version`]). A body
//! that breaks off is resumed with a request for what is missing, under the same conditions. The
//! last piece is held until the body's end is seen, so that a body too long is an error before its
//! reader has all it wanted.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream;
use tokio::sync::OwnedSemaphorePermit;
use types::{ByteRange, Deadline, Error, Result, VersionTag};

use super::Outcome;
use super::fault::Fault;
use super::session::{Session, before};
use crate::ByteStream;
use crate::counters::count;
use crate::retry::Retry;

/// A way to ask for bytes.
#[async_trait]
pub(super) trait Source: Send + Sync {
    /// Asks for a range, which is not empty, of a version; checks that the answer is of it.
    async fn get(&self, key: &str, tag: &VersionTag, range: ByteRange) -> Outcome<Got>;
}

/// An answer with the bytes that were asked.
pub(crate) struct Got {
    pub(crate) answer: reqwest::Response,
    /// How many bytes of the body come before the asked ones.
    pub(crate) lead: u64,
    /// The body may go on after them.
    pub(crate) more: bool,
}

impl Got {
    /// Takes an answer whose body is the range.
    pub(crate) fn exactly(answer: reqwest::Response) -> Self {
        Got {
            answer,
            lead: 0,
            more: false,
        }
    }
}

/// What is read: which bytes of which version of which object, until when if nothing comes.
pub(super) struct Wanted {
    /// The operation, for messages.
    pub(super) what: String,
    pub(super) key: String,
    pub(super) tag: VersionTag,
    pub(super) range: ByteRange,
    pub(super) deadline: Deadline,
}

/// Opens the stream; the first answer has come when this returns.
pub(super) async fn stream(
    session: Arc<Session>,
    source: Arc<dyn Source>,
    wanted: Wanted,
) -> Result<ByteStream> {
    let range = wanted.range;
    if range.end() > wanted.tag.size {
        return Err(Error::internal("the range is not inside the object").context(wanted.what));
    }
    if range.len == 0 {
        return Ok(Box::pin(stream::empty()));
    }
    let mut body = Body {
        session,
        source,
        at: range.offset,
        end: range.end(),
        retry: Retry::new(wanted.deadline),
        wanted,
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
    session: Arc<Session>,
    source: Arc<dyn Source>,
    wanted: Wanted,
    /// The next byte to hand out.
    at: u64,
    end: u64,
    retry: Retry,
    open: Option<Open>,
}

/// An answer whose body is being read, with its connection.
struct Open {
    got: Got,
    _connection: OwnedSemaphorePermit,
}

impl Body {
    /// Returns the next bytes; `None` when all have been handed out.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.at < self.end {
            self.ensure_open().await?;
            match self.piece().await {
                Ok(bytes) => {
                    let len = bytes.len() as u64;
                    self.retry.progressed(len, self.session.clock.now());
                    self.at += len;
                    let read = &self.session.counters().bytes_read;
                    read.fetch_add(len, Ordering::Relaxed);
                    return Ok(Some(bytes));
                }
                Err(fault) => self.failed(fault).await?,
            }
        }
        self.open = None;
        Ok(None)
    }

    async fn ensure_open(&mut self) -> Result<()> {
        while self.open.is_none() {
            let request = self.retry.attempt(self.request());
            match before(self.retry.deadline(), request).await {
                Ok(open) => self.open = Some(open),
                Err(fault) => self.failed(fault).await?,
            }
        }
        Ok(())
    }

    async fn failed(&mut self, fault: Fault) -> Result<()> {
        self.open = None;
        let fault = fault.while_reading();
        self.session
            .pause(&self.wanted.what, &mut self.retry, fault)
            .await
    }

    /// Asks for what is missing.
    async fn request(&self) -> Outcome<Open> {
        let connection = self.session.connection().await;
        let missing = ByteRange::new(self.at, self.end - self.at);
        let Wanted { key, tag, .. } = &self.wanted;
        Ok(Open {
            got: self.source.get(key, tag, missing).await?,
            _connection: connection,
        })
    }

    /// Returns the next piece of the open body, which is within what is missing.
    async fn piece(&mut self) -> Outcome<Bytes> {
        let (missing, deadline) = (self.end - self.at, self.retry.deadline());
        let transport = &self.session.transport;
        let no_body = || Fault::Broken("no body".into());
        let Got { answer, lead, more } = &mut self.open.as_mut().ok_or_else(no_body)?.got;
        let fault = loop {
            let Some(mut piece) = before(deadline, transport.piece(answer)).await? else {
                break Fault::Broken(format!("{missing} bytes are missing"));
            };
            let before_it = usize::try_from(*lead)
                .unwrap_or(usize::MAX)
                .min(piece.len());
            *lead -= before_it as u64;
            let mut bytes = piece.split_off(before_it);
            let len = bytes.len() as u64;
            if len == 0 {
                continue;
            }
            if len < missing {
                return Ok(bytes);
            }
            if *more {
                bytes.truncate(usize::try_from(missing).unwrap_or(usize::MAX));
                return Ok(bytes);
            }
            if len == missing && before(deadline, ended(transport, answer)).await? {
                return Ok(bytes);
            }
            break Fault::WrongAnswer("more bytes than were asked".into());
        };
        count(&self.session.counters().errors);
        Err(fault)
    }
}

/// Returns whether nothing more comes.
async fn ended(transport: &super::Transport, answer: &mut reqwest::Response) -> Outcome<bool> {
    while let Some(piece) = transport.piece(answer).await? {
        if !piece.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Checks that an answer belongs to the asked version.
pub(crate) fn check_version(asked: &VersionTag, given: &VersionTag) -> Outcome<()> {
    match (&asked.etag, &given.etag) {
        (Some(asked), Some(given)) if asked != given => {
            return Err(Fault::Stale(format!(
                "the object changed: its tag is '{given}' now"
            )));
        }
        (Some(_), None) => {
            return Err(Fault::Unfit(
                "the storage sent bytes without the tag of their version".into(),
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

    #[test]
    fn an_answer_of_another_version_is_stale() {
        let tag = |etag: Option<&str>, mtime_ns, size| VersionTag {
            etag: etag.map(String::from),
            mtime_ns,
            size,
        };
        let check = |given| check_version(&tag(Some("a"), 5, 10), &given);
        assert_eq!(check(tag(Some("a"), 6, 10)), Ok(()));
        assert!(matches!(check(tag(Some("b"), 5, 10)), Err(Fault::Stale(_))));
        assert!(matches!(check(tag(Some("a"), 5, 11)), Err(Fault::Stale(_))));
        assert!(matches!(check(tag(None, 5, 10)), Err(Fault::Unfit(_))));
        let untagged = |given| check_version(&tag(None, 5, 10), &given);
        assert!(matches!(untagged(tag(None, 6, 10)), Err(Fault::Stale(_))));
        assert_eq!(untagged(tag(None, 5, 10)), Ok(()));
    }
}
