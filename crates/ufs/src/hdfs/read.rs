// SPDX-License-Identifier: Apache-2.0
//! Reads of a range of one version, checked before the bytes are handed out.
//!
//! The name node is asked once where the blocks are; data nodes then send exactly those blocks, with
//! checksums. A block's bytes change only when its file is truncated and appended to. So after each
//! piece, before it is handed out, the name node is asked whether the path is still the version that
//! was asked for: whatever happened before, also while the blocks were looked up, shows there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use hdfs_native::HdfsError;
use tokio::sync::OwnedSemaphorePermit;
use types::{ByteRange, Deadline, Error, ErrorKind, ObjectPath, Result, VersionTag};

use super::Inner;
use super::fault::Fault;
use super::list::gone;
use super::version::tag_of;
use crate::ByteStream;
use crate::counters::count;
use crate::retry::Retry;

/// How much is read between two questions to the name node, which everybody shares: 250 questions
/// a second at 1 GB/s.
const PIECE: u64 = 4 << 20;

/// Opens the stream; the blocks have been found when this returns.
pub(super) async fn stream(
    inner: Arc<Inner>,
    path: &ObjectPath,
    tag: &VersionTag,
    range: ByteRange,
    deadline: Deadline,
) -> Result<ByteStream> {
    let what = inner.name("read", path);
    if range.end() > tag.size {
        return Err(Error::internal("the range is not inside the file").context(what));
    }
    if range.len == 0 {
        return Ok(Box::pin(stream::empty()));
    }
    let mut reading = Reading {
        path: inner.place().location.full(path)?.into(),
        connection: inner.connection(&what, deadline).await?,
        inner,
        what,
        tag: tag.clone(),
        at: range.offset,
        end: range.end(),
        retry: Retry::new(deadline),
        blocks: None,
        ready: VecDeque::new(),
    };
    reading.ensure_open().await?;
    Ok(Box::pin(stream::unfold(Some(reading), |reading| async {
        let mut reading = reading?;
        match reading.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(reading))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })))
}

type Blocks = BoxStream<'static, std::result::Result<Bytes, HdfsError>>;

/// A read under way.
struct Reading {
    inner: Arc<Inner>,
    what: String,
    path: Arc<str>,
    tag: VersionTag,
    /// The next byte to ask for.
    at: u64,
    end: u64,
    retry: Retry,
    blocks: Option<Blocks>,
    /// Bytes that were checked and wait to be handed out.
    ready: VecDeque<Bytes>,
    #[allow(dead_code, reason = "held to the end of the read, which gives it back")]
    connection: OwnedSemaphorePermit,
}

impl Reading {
    /// Returns the next bytes; `None` when all have been handed out.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Ok(Some(bytes));
            }
            if self.at == self.end {
                return Ok(None);
            }
            self.ensure_open().await?;
            match self.piece().await {
                Ok(()) => {
                    let came = self.ready.iter().map(|bytes| bytes.len() as u64).sum();
                    self.retry.progressed(came, self.inner.clock.now());
                }
                Err(fault) => {
                    self.blocks = None;
                    self.inner.pause(&self.what, &mut self.retry, fault).await?;
                }
            }
        }
    }

    async fn ensure_open(&mut self) -> Result<()> {
        while self.blocks.is_none() {
            match self.find().await {
                Ok(blocks) => self.blocks = Some(blocks),
                Err(fault) => self.inner.pause(&self.what, &mut self.retry, fault).await?,
            }
        }
        Ok(())
    }

    /// Asks where the blocks are that hold what is missing.
    async fn find(&mut self) -> std::result::Result<Blocks, Fault> {
        let (inner, path) = (Arc::clone(&self.inner), Arc::clone(&self.path));
        let size = self.tag.size;
        let range = as_usize(self.at).zip(as_usize(self.end - self.at));
        let Some((offset, len)) = range else {
            return Err(Fault::new(
                ErrorKind::Unsupported,
                "a file too large for this machine",
            ));
        };
        count(&inner.counters.get);
        let found = inner.call(self.retry.deadline(), move |client| async move {
            let file = client.read(&path).await?;
            // The library panics when asked for what lies beyond the end.
            Ok(match file.file_length() as u64 == size {
                true => Some(file.read_range_stream(offset, len).boxed()),
                false => None,
            })
        });
        match found.await {
            Ok(Some(blocks)) => Ok(blocks),
            Ok(None) => {
                self.check().await?;
                Err(Fault::new(
                    ErrorKind::Busy,
                    "the file is being written: its last block cannot be read yet",
                ))
            }
            Err(fault) if gone(&fault) => Err(stale("the file is gone")),
            Err(fault) => Err(fault),
        }
    }

    /// Reads the next piece and then checks that the file is still the same version.
    async fn piece(&mut self) -> std::result::Result<(), Fault> {
        let Some(mut blocks) = self.blocks.take() else {
            return Err(Fault::passing(ErrorKind::Unavailable, "no data node"));
        };
        let wanted = (self.end - self.at).min(PIECE);
        let inner = Arc::clone(&self.inner);
        let patience = inner.request_timeout;
        let read = inner.call_within(self.retry.deadline(), None, move |_| async move {
            let (mut pieces, mut len) = (VecDeque::new(), 0);
            while len < wanted {
                let late = |_| HdfsError::IOError(std::io::ErrorKind::TimedOut.into());
                let next = tokio::time::timeout(patience, blocks.next())
                    .await
                    .map_err(late)?;
                let Some(bytes) = next.transpose()? else {
                    break;
                };
                len += bytes.len() as u64;
                pieces.push_back(bytes);
            }
            Ok((blocks, pieces, len))
        });
        let (blocks, pieces, len) = match read.await {
            Ok(read) => read,
            Err(fault) => {
                // Blocks of a file that was replaced are deleted soon: then that is the cause.
                self.check().await?;
                return Err(fault);
            }
        };
        self.check().await?;
        if len < wanted || len > self.end - self.at {
            count(&inner.counters.errors);
            let missing = self.end - self.at;
            return Err(Fault::passing(
                ErrorKind::Unavailable,
                format!("data nodes sent {len} bytes where {missing} were missing"),
            ));
        }
        inner.counters.bytes_read.fetch_add(len, Ordering::Relaxed);
        self.at += len;
        self.ready = pieces;
        self.blocks = Some(blocks);
        Ok(())
    }

    /// Checks that the path is the asked version now.
    async fn check(&mut self) -> std::result::Result<(), Fault> {
        let path = Arc::clone(&self.path);
        count(&self.inner.counters.other);
        let status = self
            .inner
            .call(self.retry.deadline(), move |client| async move {
                client.get_file_info(&path).await
            });
        match status.await {
            Ok(status) if !status.isdir && tag_of(&status) == self.tag => Ok(()),
            Ok(_) => Err(stale("the file changed")),
            Err(fault) if gone(&fault) => Err(stale("the file is gone")),
            Err(fault) => Err(fault),
        }
    }
}

fn stale(why: &str) -> Fault {
    Fault::new(ErrorKind::Stale, why)
}

fn as_usize(number: u64) -> Option<usize> {
    usize::try_from(number).ok()
}
