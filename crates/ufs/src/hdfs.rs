// SPDX-License-Identifier: Apache-2.0
//! The driver of HDFS, over the native protocols of name nodes and data nodes: no JVM is needed.
//!
//! `hdfs_native` speaks the protocols, finds the active one of several name nodes, and decodes
//! erasure-coded files. This driver adds what it lacks: a bound on every wait, versions (`version`),
//! reads that never mix two of them (`read`), retries by `crate::retry` alone, and errors that say
//! what to do (`fault`). The library does not tell the file id, so a version is time and length; a
//! file replaced by one of the same length and the same preserved time is not told from it.
//!
//! A file that is being written is shown with the length that the name node knows, which grows as
//! blocks are finished. Each length is a version of its own.

mod fault;
mod files;
mod list;
mod location;
mod owners;
mod place;
mod read;
mod rpc;
mod site;
mod spans;
mod steps;
mod upload;
mod version;
mod wire;
mod write;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hdfs_native::client::FileStatus;
use hdfs_native::{Client, HdfsError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument;
use types::{
    ByteRange, Clock, Deadline, Error, ErrorKind, ObjectMeta, ObjectPath, Result, VersionTag,
};

pub(crate) use self::fault::Fault as HadoopFault;
pub(crate) use self::files::{
    Change, Failure, HadoopFiles, Seen, Sink as HadoopSink, Step as HadoopStep, Taken,
};
pub(crate) use self::location::HadoopLocation;
pub(crate) use self::owners::{Named, Owners};
pub(crate) use self::site::Site;
pub(crate) use self::steps::{Left, sweep};
pub(crate) use self::version::{GRAIN, LOOKS, Latest, nanoseconds};

use self::fault::Fault;
use self::place::Place;
use self::rpc::HASTE_MIN;
use self::version::{meta_of, named, same, tag_of, unsettled};
use self::wire::Wire;
use crate::counters::count;
use crate::retry::Retry;
use crate::temporary::hide;
use crate::{ByteStream, Counters, ListStream, Settings, UnderStorage, UnderWriter};

/// A name node that takes no connection is asked this often by a check.
const CONNECTS_OF_CHECK: u32 = 2;

/// Opens a directory of an HDFS. Reads the site's configuration; sends nothing.
pub(crate) fn open(
    location: HadoopLocation,
    settings: &Settings,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn UnderStorage>> {
    let what = format!("open storage {}", location.uri());
    let place = Place::new(location, settings).map_err(|error| error.context(what))?;
    Ok(Arc::new(Hdfs(Arc::new(Inner {
        uri: place.location.uri(),
        identity: place.identity(),
        wire: Wire::new(place)?,
        counters: Counters::default(),
        owners: Owners::new(settings, Arc::clone(&clock))?,
        clock,
        request_timeout: settings.request_timeout,
        connections: Arc::new(Semaphore::new(settings.max_connections.max(1))),
        block_size: AtomicU64::new(0),
        haste_ms: AtomicU64::new(u64::try_from(HASTE_MIN.as_millis()).unwrap_or(u64::MAX)),
        writes: AtomicBool::new(false),
        latest: Latest::default(),
    }))))
}

/// A directory of an HDFS.
struct Hdfs(Arc<Inner>);

struct Inner {
    uri: String,
    identity: String,
    wire: Wire,
    counters: Counters,
    owners: Owners,
    clock: Arc<dyn Clock>,
    request_timeout: Duration,
    connections: Arc<Semaphore>,
    /// What the name node makes blocks of; zero until the first file was written.
    block_size: AtomicU64,
    /// How long the end of a block may take at least: more after each that took longer.
    haste_ms: AtomicU64,
    /// Whether a mount writes, so that what a dead writer left is removed.
    writes: AtomicBool,
    latest: Latest,
}

impl Inner {
    fn place(&self) -> &Place {
        self.wire.place()
    }

    /// Words an operation for messages: "read hdfs://host:port/dir/file".
    fn name(&self, operation: &str, path: &ObjectPath) -> String {
        format!("{operation} {}{path}", self.uri)
    }

    /// Waits for one of the connections; it is given back when the permit is dropped.
    async fn connection(&self, what: &str, deadline: Deadline) -> Result<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.connections).acquire_owned();
        match tokio::time::timeout_at(deadline.instant().into(), permit).await {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_) => {
                let why = "all connections stayed in use";
                Err(Error::new(ErrorKind::Timeout, why)
                    .retryable()
                    .context(what))
            }
        }
    }

    /// Makes one call to the name node, which may take as long as one request may.
    async fn call<T, F>(
        &self,
        deadline: Deadline,
        call: impl FnOnce(Client) -> F,
    ) -> std::result::Result<T, Fault>
    where
        T: Send + 'static,
        F: Future<Output = std::result::Result<T, HdfsError>> + Send + 'static,
    {
        self.call_within(deadline, Some(self.request_timeout), call)
            .await
    }

    /// Makes one call that takes at most `limit`, and counts its failure.
    async fn call_within<T, F>(
        &self,
        deadline: Deadline,
        limit: Option<Duration>,
        call: impl FnOnce(Client) -> F,
    ) -> std::result::Result<T, Fault>
    where
        T: Send + 'static,
        F: Future<Output = std::result::Result<T, HdfsError>> + Send + 'static,
    {
        let end = limit.map(|limit| self.clock.deadline(limit).min(deadline));
        let end = end.unwrap_or(deadline).instant().into();
        let span = spans::call();
        let done = self.wire.call(end, call).instrument(span.clone()).await;
        if let Err(fault) = &done {
            spans::failed(&span, fault);
            if fault.throttled {
                count(&self.counters.throttled);
            }
            if fault.kind != ErrorKind::NotFound {
                count(&self.counters.errors);
            }
        }
        done
    }

    /// Returns whether a change after this status was told could still share its time.
    fn is_young(&self, status: &FileStatus) -> bool {
        self.latest.learn(status.modification_time);
        let now = self.clock.wall();
        // A directory has no bytes.
        !status.isdir && self.latest.may_come_again(status.modification_time, now)
    }

    async fn pause(&self, what: &str, retry: &mut Retry, fault: Fault) -> Result<()> {
        let error = fault.into_error(what, self.place());
        retry.pause(&*self.clock, &self.counters, error).await
    }

    /// Asks for a status until there is an answer or the deadline comes.
    async fn status(
        &self,
        what: &str,
        full: &str,
        counter: &AtomicU64,
        deadline: Deadline,
    ) -> Result<FileStatus> {
        let mut retry = Retry::new(deadline);
        loop {
            count(counter);
            let full = full.to_string();
            let status = self.call(retry.deadline(), move |client| async move {
                client.get_file_info(&full).await
            });
            match status.await {
                Ok(status) => return Ok(status),
                Err(fault) => self.pause(what, &mut retry, fault).await?,
            }
        }
    }

    /// Looks at a young file again, a grain after its status was told, until it stays the same.
    /// Returns the version that can be trusted; `None` when the file went away.
    async fn settle(
        &self,
        mut status: FileStatus,
        deadline: Deadline,
    ) -> Result<Option<(VersionTag, FileStatus)>> {
        let counter = &self.counters.other;
        for _ in 0..LOOKS {
            let again = self.status("look again", &status.path, counter, deadline);
            let again = match again.await {
                Ok(again) => again,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            let settled = same(&status, &again);
            status = again;
            if settled {
                return Ok(Some((tag_of(&status), status)));
            }
            tokio::time::sleep(GRAIN).await;
        }
        Ok(Some((unsettled(&status), status)))
    }
}

#[async_trait]
impl UnderStorage for Hdfs {
    fn uri(&self) -> &str {
        &self.0.uri
    }

    fn identity(&self) -> &str {
        &self.0.identity
    }

    async fn stat(&self, path: &ObjectPath, deadline: Deadline) -> Result<ObjectMeta> {
        let inner = &self.0;
        let what = inner.name("look at", path);
        let full = inner.place().location.full(path)?;
        hide(path).map_err(|error| error.context(&what))?;
        let _connection = inner.connection(&what, deadline).await?;
        let counter = &inner.counters.head;
        let status = inner.status(&what, &full, counter, deadline).await?;
        let settled = match inner.is_young(&status) {
            false => Some((tag_of(&status), status)),
            true => {
                tokio::time::sleep(GRAIN).await;
                let settled = inner.settle(status, deadline).await;
                settled.map_err(|error| error.context(&what))?
            }
        };
        let Some((tag, status)) = settled else {
            return Err(Error::new(ErrorKind::NotFound, "no such file or directory").context(what));
        };
        inner.owners.learn([&named(&status)].into_iter()).await?;
        Ok(meta_of(&status, tag, &inner.owners))
    }

    fn list(&self, dir: &ObjectPath) -> ListStream {
        list::stream(Arc::clone(&self.0), dir.clone())
    }

    async fn read(
        &self,
        path: &ObjectPath,
        tag: &VersionTag,
        range: ByteRange,
        deadline: Deadline,
    ) -> Result<ByteStream> {
        read::stream(Arc::clone(&self.0), path, tag, range, deadline).await
    }

    fn writer(&self) -> Option<&dyn UnderWriter> {
        self.0.writes.store(true, Ordering::Relaxed);
        Some(&self.0)
    }

    async fn check(&self, deadline: Deadline) -> Result<()> {
        let inner = &self.0;
        let root = ObjectPath::root();
        let (what, mut retry) = (inner.name("list", &root), Retry::new(deadline));
        let full = inner.place().location.full(&root)?;
        let mut refused = 0;
        loop {
            count(&inner.counters.list);
            let full = full.clone();
            let first = inner.call(retry.deadline(), move |client| async move {
                client
                    .list_status_iter(&full, false)
                    .next()
                    .await
                    .transpose()
            });
            let fault = match first.await {
                Ok(Some(status)) if !status.isdir && status.path == inner.place().location.path => {
                    let why = "it is a file; a mount is of a directory";
                    return Err(Error::new(ErrorKind::NotADirectory, why).context(what));
                }
                Ok(_) => return Ok(()),
                Err(fault) => fault,
            };
            refused += u32::from(fault.unreachable);
            if refused == CONNECTS_OF_CHECK {
                return Err(fault.into_error(&what, inner.place()));
            }
            inner.pause(&what, &mut retry, fault).await?;
        }
    }

    fn counters(&self) -> &Counters {
        &self.0.counters
    }
}

impl fmt::Debug for Hdfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hdfs")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
