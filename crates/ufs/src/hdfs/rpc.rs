// SPDX-License-Identifier: Apache-2.0
//! What the writing side asks for, over the native protocols.
//!
//! Each block is forced to the disks of its data nodes before the next one begins, and the last one
//! before the file is closed: without that an acknowledged file is in their memory only. The size of
//! blocks is learnt from the first file, and asked for by its number from then on.
//!
//! A name node closes a file when a data node has reported its last block, some milliseconds after
//! the bytes were acknowledged. `hdfs_native` asks, then waits for half a second. So its wait is cut
//! short, where a failure only means to write once more, and it is told to ask again. That is safe:
//! it asks without naming the last block, which a name node that was never told of the block's end
//! does not close.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use hdfs_native::file::FileWriter;
use hdfs_native::{Client, HdfsError, WriteOptions};
use types::{ByteRange, Clock, Deadline, ErrorKind, NodeKind, ObjectPath, Result, VersionTag};

use super::fault::Fault;
use super::files::{Change, Failure, HadoopFiles, Seen, Sink, Step, Taken};
use super::location::HadoopLocation;
use super::owners::Owners;
use super::version::{named, tag_of};
use super::{Inner, read};
use crate::counters::count;
use crate::{ByteStream, Counters};

/// What is written between two looks at the clock.
const PIECE: usize = 1 << 20;
/// What of a time means that it stays as it is.
const UNCHANGED: u64 = u64::MAX;
/// To end a block takes about as long as to force it to disks, which was done just before.
const SYNCS_OF_CLOSE: u32 = 4;
/// More than a name node and a data node take for a round trip each.
pub(super) const HASTE_MIN: Duration = Duration::from_millis(40);
/// Data nodes report a block at once; after this something is wrong.
const HASTE_MAX: Duration = Duration::from_secs(1);
/// What a name node says of a file that nobody writes.
const NOT_OPEN: &str = "LeaseExpiredException";
/// What `hdfs_native` says of files whose blocks are stripes.
const NO_SYNC: &str = "not supported for erasure-coded files";

impl Inner {
    /// Makes one call for a step, and words its failure.
    async fn call_for<T, F>(
        &self,
        step: &Step,
        counter: &AtomicU64,
        call: impl FnOnce(Client) -> F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = std::result::Result<T, HdfsError>> + Send + 'static,
    {
        let _connection = self.connection(&step.what, step.deadline).await?;
        count(counter);
        let done = self.call(step.deadline, call).await;
        done.map_err(|fault| fault.into_error(&step.what, self.place()))
    }
}

#[async_trait]
impl HadoopFiles for Inner {
    fn location(&self) -> &HadoopLocation {
        &self.place().location
    }

    fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn owners(&self) -> &Owners {
        &self.owners
    }

    async fn seen(&self, step: &Step, path: &str) -> Result<Seen> {
        let path = path.to_string();
        let look = |client: Client| async move { client.get_file_info(&path).await };
        let status = self.call_for(step, &self.counters.other, look).await?;
        let seen = Seen {
            kind: match status.isdir {
                true => NodeKind::Directory,
                false => NodeKind::File,
            },
            tag: tag_of(&status),
            named: named(&status),
        };
        self.owners.learn([&seen.named].into_iter()).await?;
        Ok(seen)
    }

    async fn create(
        self: Arc<Self>,
        step: &Step,
        path: &str,
        mode: Option<u32>,
    ) -> Result<Box<dyn Sink>> {
        let mut options = WriteOptions::default().overwrite(true);
        if let Some(mode) = mode {
            options = options.permission(mode);
        }
        let known = self.block_size.load(Ordering::Relaxed);
        if known > 0 {
            options = options.block_size(known);
        }
        let path = path.to_string();
        let create = |client: Client| async move {
            let writer = client.create(&path, options).await?;
            let size = match known {
                0 => client.get_file_info(&path).await?.blocksize,
                known => Some(known),
            };
            Ok((writer, size.unwrap_or(0)))
        };
        let (writer, block) = self.call_for(step, &self.counters.upload, create).await?;
        self.block_size.store(block, Ordering::Relaxed);
        Ok(Box::new(RpcSink {
            inner: self,
            open: Some(Open {
                writer,
                block: usize::try_from(block).unwrap_or(usize::MAX).max(1),
                in_block: 0,
                synced: true,
                close_within: None,
            }),
        }))
    }

    async fn rename(&self, step: &Step, from: &str, to: &str, taken: Taken) -> Result<()> {
        let (from, to) = (from.to_string(), to.to_string());
        let replace = taken == Taken::Replace;
        let rename = |client: Client| async move { client.rename(&from, &to, replace).await };
        self.call_for(step, &self.counters.copy, rename).await
    }

    async fn delete(&self, step: &Step, path: &str) -> Result<()> {
        let path = path.to_string();
        let delete = |client: Client| async move { client.delete(&path, false).await };
        let deleted = self.call_for(step, &self.counters.delete, delete).await;
        match deleted {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    async fn make_dir(&self, step: &Step, path: &str, mode: Option<u32>) -> Result<()> {
        let (path, mode) = (path.to_string(), mode.unwrap_or(0o755));
        let make = |client: Client| async move { client.mkdirs(&path, mode, false).await };
        self.call_for(step, &self.counters.other, make).await
    }

    async fn change(&self, step: &Step, path: &str, change: Change) -> Result<()> {
        let path = path.to_string();
        let change = |client: Client| async move {
            match change {
                Change::Mode(mode) => client.set_permission(&path, mode).await,
                Change::Names(user, group) => {
                    client
                        .set_owner(&path, user.as_deref(), group.as_deref())
                        .await
                }
                Change::Time(millis) => client.set_times(&path, millis, UNCHANGED).await,
            }
        };
        self.call_for(step, &self.counters.other, change).await
    }

    async fn read_range(
        self: Arc<Self>,
        path: &ObjectPath,
        tag: &VersionTag,
        range: ByteRange,
        deadline: Deadline,
    ) -> Result<ByteStream> {
        read::stream(self, path, tag, range, deadline).await
    }
}

/// A file that is being written. What is open is taken out while it is used, so that a future that
/// was dropped leaves nothing half done behind.
struct RpcSink {
    inner: Arc<Inner>,
    open: Option<Open>,
}

struct Open {
    writer: FileWriter,
    block: usize,
    in_block: usize,
    /// Whether all that was written is on disks.
    synced: bool,
    /// How long the first question to close the file may take, as far as is known.
    close_within: Option<Duration>,
}

impl Open {
    async fn write(&mut self, mut bytes: Bytes, patience: Patience) -> Outcome<()> {
        while !bytes.is_empty() {
            if self.in_block == self.block {
                self.sync(patience).await?;
                self.in_block = 0;
            }
            let piece = bytes.split_to(bytes.len().min(PIECE).min(self.block - self.in_block));
            self.in_block += piece.len();
            self.synced = false;
            patience
                .wait(self.writer.write_bytes(piece).boxed())
                .await?;
        }
        Ok(())
    }

    async fn sync(&mut self, patience: Patience) -> Outcome<()> {
        if self.synced {
            return Ok(());
        }
        match patience.wait(self.writer.hsync().boxed()).await {
            // Stripes are on as many nodes as it takes to lose some.
            Err(HdfsError::OperationFailed(why)) if why.contains(NO_SYNC) => {}
            synced => synced?,
        }
        self.synced = true;
        Ok(())
    }
}

impl Open {
    /// Closes the file, whose bytes are all on disks.
    async fn close(&mut self, clock: &dyn Clock, patience: Patience) -> Outcome<()> {
        let Some(mut within) = self.close_within else {
            return patience.wait(self.writer.close().boxed()).await;
        };
        let (start, mut asked) = (clock.now(), false);
        while clock.now().saturating_duration_since(start) < HASTE_MAX {
            let closed = tokio::time::timeout(within, self.writer.close().boxed()).await;
            match closed {
                // The question before this one was cut short, and did it; the length is looked at.
                Ok(Err(HdfsError::RPCError(class, _))) if asked && class.ends_with(NOT_OPEN) => {
                    return Ok(());
                }
                Ok(closed) => return closed,
                Err(_) => asked = true,
            }
            // The block has ended: what is left is one question.
            within = HASTE_MIN;
        }
        Err(HdfsError::IOError(std::io::ErrorKind::TimedOut.into()))
    }
}

type Outcome<T> = std::result::Result<T, HdfsError>;

/// How long one step of a write may take.
#[derive(Clone, Copy)]
struct Patience(Duration);

impl Patience {
    async fn wait<T>(self, step: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        let late = |_| HdfsError::IOError(std::io::ErrorKind::TimedOut.into());
        tokio::time::timeout(self.0, step).await.map_err(late)?
    }
}

impl RpcSink {
    async fn with_open<F>(
        &mut self,
        step: &Step,
        until: Deadline,
        counter: &AtomicU64,
        use_it: impl FnOnce(Open, Patience) -> F,
    ) -> Result<()>
    where
        F: Future<Output = Outcome<Open>> + Send + 'static,
    {
        let inner = &self.inner;
        let open = self.open.take();
        let ended = || Fault::new(ErrorKind::Unavailable, "the file was given up");
        let worded = |fault: Fault| fault.into_error(&step.what, inner.place());
        let open = open.ok_or_else(ended).map_err(worded)?;
        let _connection = inner.connection(&step.what, step.deadline).await?;
        count(counter);
        let used = use_it(open, Patience(inner.request_timeout));
        let used = inner.call_within(until, None, |_| used).await;
        self.open = Some(used.map_err(worded)?);
        Ok(())
    }
}

#[async_trait]
impl Sink for RpcSink {
    async fn write(&mut self, step: &Step, bytes: Bytes) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        let len = bytes.len() as u64;
        // However long a slow line takes: each piece has its own time.
        let until = inner.clock.deadline(Duration::MAX);
        self.with_open(
            step,
            until,
            &inner.counters.put,
            |mut open, patience| async move {
                open.write(bytes, patience).await?;
                Ok(open)
            },
        )
        .await?;
        inner
            .counters
            .bytes_written
            .fetch_add(len, Ordering::Relaxed);
        Ok(())
    }

    async fn finish(&mut self, step: &Step, failure: Failure) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        let haste = Duration::from_millis(inner.haste_ms.load(Ordering::Relaxed));
        let clock = Arc::clone(&inner.clock);
        let may_hurry = failure == Failure::Mended;
        let closed = self.with_open(
            step,
            step.deadline,
            &inner.counters.upload,
            |mut open, patience| async move {
                let start = clock.now();
                if !open.synced {
                    open.sync(patience).await?;
                    let took = clock.now().saturating_duration_since(start);
                    let within = (took * SYNCS_OF_CLOSE).max(haste);
                    open.close_within = (may_hurry && within < HASTE_MAX).then_some(within);
                }
                open.close(&*clock, patience).await?;
                Ok(open)
            },
        );
        let closed = closed.await;
        if closed.is_err() && may_hurry {
            // Perhaps it was cut short before the data nodes had the end of the block.
            let doubled = haste
                .as_millis()
                .saturating_mul(2)
                .min(HASTE_MAX.as_millis());
            let doubled = u64::try_from(doubled).unwrap_or(u64::MAX);
            inner.haste_ms.store(doubled, Ordering::Relaxed);
        }
        closed
    }
}

impl fmt::Debug for RpcSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcSink").finish_non_exhaustive()
    }
}
