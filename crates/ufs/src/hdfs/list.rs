// SPDX-License-Identifier: Apache-2.0
//! Listings of an HDFS directory, a page at a time.
//!
//! Name nodes list in the order of the names' bytes. A listing that broke off is begun again, and
//! what was handed out already is passed over. Names of a page whose version is young are looked at
//! once more, a few at a time (`version`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::{StreamExt, TryStreamExt, stream};
use hdfs_native::client::{FileStatus, ListStatusIterator};
use types::{Deadline, Error, ErrorKind, Name, ObjectPath, Result};

use super::Inner;
use super::fault::Fault;
use super::steps::{Left, sweep};
use super::version::{self, meta_of, named, nanoseconds, tag_of};
use crate::counters::count;
use crate::retry::Retry;
use crate::temporary::{is_left_behind, is_temporary, set_aside_of};
use crate::{ListEntry, ListPage, ListStream};

/// What a name node tells at once, unless it is set to tell less.
const PAGE_NAMES: usize = 1000;
/// How many young files are looked at at once.
const LOOKS_AT_ONCE: usize = 8;

/// Lists one level.
pub(super) fn stream(inner: Arc<Inner>, dir: ObjectPath) -> ListStream {
    let start = Listing {
        inner,
        dir,
        last: None,
        iterator: None,
        left: Vec::new(),
    };
    Box::pin(stream::unfold(Some(start), |listing| async move {
        let mut listing = listing?;
        let page = listing.page().await;
        listing.sweep().await;
        match page {
            Ok((page, true)) => Some((Ok(page), Some(listing))),
            Ok((page, false)) => Some((Ok(page), None)),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

/// A listing under way.
struct Listing {
    inner: Arc<Inner>,
    dir: ObjectPath,
    /// The last name handed out.
    last: Option<String>,
    iterator: Option<Arc<ListStatusIterator>>,
    /// Files that writers that died have left.
    left: Vec<Left>,
}

impl Listing {
    /// Returns the next page and whether there may be more.
    async fn page(&mut self) -> Result<(ListPage, bool)> {
        let inner = Arc::clone(&self.inner);
        let what = inner.name("list", &self.dir);
        let deadline = inner.clock.deadline(inner.request_timeout);
        let _connection = inner.connection(&what, deadline).await?;
        let mut retry = Retry::new(deadline);
        let full = inner.place().location.full(&self.dir)?;
        loop {
            count(&inner.counters.list);
            let iterator = self.iterator.take();
            let (base, last) = (full.clone(), self.last.clone());
            let next = inner.call(retry.deadline(), move |client| async move {
                let iterator =
                    iterator.unwrap_or_else(|| Arc::new(client.list_status_iter(&base, false)));
                let (names, more) = names(&iterator, &base, last.as_deref()).await?;
                Ok((iterator, names, more))
            });
            match next.await {
                Ok((iterator, names, more)) => {
                    self.iterator = Some(iterator);
                    if names.iter().any(|status| status.path == full) {
                        let why = "it is a file, not a directory";
                        return Err(Error::new(ErrorKind::NotADirectory, why).context(what));
                    }
                    if let Some(status) = names.last() {
                        self.last = Some(status.path.clone());
                    }
                    return self
                        .entries(names, &full, deadline)
                        .await
                        .map(|page| (page, more));
                }
                Err(fault) => inner.pause(&what, &mut retry, fault).await?,
            }
        }
    }

    async fn entries(
        &mut self,
        statuses: Vec<FileStatus>,
        full: &str,
        deadline: Deadline,
    ) -> Result<ListPage> {
        let inner = Arc::clone(&self.inner);
        let inner = &inner;
        for status in &statuses {
            inner.latest.learn(status.modification_time);
        }
        let statuses = self.without_temporary(statuses, full);
        if statuses.iter().any(|status| inner.is_young(status)) {
            tokio::time::sleep(version::GRAIN).await;
        }
        // In order, so that a page stays as the name node sorted it.
        let settled: Vec<_> = stream::iter(statuses)
            .map(|status| async move {
                match inner.is_young(&status) {
                    true => inner.settle(status, deadline).await,
                    false => Ok(Some((tag_of(&status), status))),
                }
            })
            .buffered(LOOKS_AT_ONCE)
            .try_filter_map(|settled| std::future::ready(Ok(settled)))
            .try_collect()
            .await
            .map_err(|error: Error| error.context(inner.name("list", &self.dir)))?;
        let owners: Vec<_> = settled.iter().map(|(_, status)| named(status)).collect();
        inner.owners.learn(owners.iter()).await?;
        let mut page = ListPage::default();
        for (tag, status) in settled {
            match Name::new(name_in(full, &status).as_bytes()) {
                Ok(name) => page.entries.push(ListEntry {
                    name,
                    meta: meta_of(&status, tag, &inner.owners),
                }),
                Err(_) => page.unshowable += 1,
            }
        }
        Ok(page)
    }
}

impl Listing {
    /// Leaves out files on their way, and remembers those that were left behind.
    fn without_temporary(&mut self, statuses: Vec<FileStatus>, full: &str) -> Vec<FileStatus> {
        let is_ours = |status: &FileStatus| is_temporary(name_in(full, status).as_bytes());
        let (ours, shown): (Vec<_>, Vec<_>) = statuses.into_iter().partition(is_ours);
        let now = self.inner.clock.wall();
        let old = |status: &FileStatus| {
            set_aside_of(name_in(full, status).as_bytes()).is_some()
                || is_left_behind(nanoseconds(status.modification_time), now)
        };
        let left = ours.into_iter().filter(old).map(|status| Left {
            mtime_ns: nanoseconds(status.modification_time),
            path: status.path,
        });
        self.left.extend(left);
        shown
    }

    /// Removes what was left behind, on mounts that write.
    async fn sweep(&mut self) {
        let left = std::mem::take(&mut self.left);
        if self.inner.writes.load(Ordering::Relaxed) && !left.is_empty() {
            let what = self.inner.name("sweep", &self.dir);
            sweep(&self.inner, &what, &left).await;
        }
    }
}

/// Returns the name of a status in its directory.
fn name_in<'a>(full: &str, status: &'a FileStatus) -> &'a str {
    let name = status.path.strip_prefix(full).unwrap_or(&status.path);
    name.trim_start_matches('/')
}

/// Returns the next names after `last`, and whether there may be more.
async fn names(
    iterator: &ListStatusIterator,
    base: &str,
    last: Option<&str>,
) -> std::result::Result<(Vec<FileStatus>, bool), hdfs_native::HdfsError> {
    let mut names = Vec::new();
    while names.len() < PAGE_NAMES {
        let Some(status) = iterator.next().await else {
            return Ok((names, false));
        };
        let status = status?;
        let seen = last.is_some_and(|last| status.path.as_str() <= last);
        if !seen || status.path == base {
            names.push(status);
        }
    }
    Ok((names, true))
}

/// What a name that went away since it was listed means.
pub(super) fn gone(fault: &Fault) -> bool {
    matches!(fault.kind, ErrorKind::NotFound | ErrorKind::NotADirectory)
}
