// SPDX-License-Identifier: Apache-2.0
//! Listings of WebHDFS, page by page.
//!
//! A page is asked for after the last name of the one before. Files that changed just now are
//! looked at again before their versions are told, as everywhere in this driver.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::{StreamExt, TryStreamExt, stream};
use http::Method;
use types::{Deadline, Error, ErrorKind, Name, ObjectPath, Result, VersionTag};

use super::Web;
use super::answer::{self, Status, Statuses};
use crate::hdfs::{GRAIN, Left, nanoseconds, sweep};
use crate::http::{Ask, Fault, Outcome, percent_encode};
use crate::retry::Retry;
use crate::temporary::{is_left_behind, is_temporary, set_aside_of};
use crate::{ListEntry, ListPage, ListStream};

/// A page of 1,000 names of a kilobyte each, all escaped; a whole listing of HttpFS of old.
const LISTING_MAX: usize = 64 << 20;
/// How many young files are looked at at once; of more in a page the page is asked for again.
const LOOKS_AT_ONCE: usize = 8;

/// Lists a directory.
pub(super) fn list(web: Arc<Web>, dir: ObjectPath) -> ListStream {
    let listing = Listing {
        web,
        dir,
        after: String::new(),
        left: Vec::new(),
    };
    Box::pin(stream::unfold(Some(listing), |listing| async move {
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

impl Web {
    /// Asks for a page of names after `after`.
    pub(super) async fn page(&self, ask: Ask, path: &str, after: &str) -> Outcome<Statuses> {
        let operation = format!("LISTSTATUS_BATCH&startAfter={}", percent_encode(after));
        let answer = match self.ask(ask, Method::GET, path, &operation).await {
            // Of what came before Hadoop 2.9: it does not know the operation.
            Err(Fault::Refused(refusal)) if refusal.code == "IllegalArgumentException" => {
                let answer = self.ask(ask, Method::GET, path, "LISTSTATUS").await?;
                let body = self.session.transport.body(answer, LISTING_MAX).await?;
                return answer::read_listing(&body);
            }
            answer => answer?,
        };
        answer::read_batch(&self.session.transport.body(answer, LISTING_MAX).await?)
    }
}

/// A listing under way.
struct Listing {
    web: Arc<Web>,
    dir: ObjectPath,
    /// The last name that came.
    after: String,
    /// Files that writers that died have left.
    left: Vec<Left>,
}

impl Listing {
    /// Returns the next page and whether there are more.
    async fn page(&mut self) -> Result<(ListPage, bool)> {
        let web = &self.web;
        let what = web.name("list", &self.dir);
        let full = web.encoded(&self.dir)?;
        let mut retry = web.session.retry_of_page();
        let deadline = retry.deadline();
        let list = || web.page(Ask::List, &full, &self.after);
        let page = web.session.until_done(&what, &mut retry, list).await?;
        refuse_file(&page).map_err(|error| error.context(&what))?;
        let asked_after = self.after.clone();
        let more = page.remaining > 0;
        match page.statuses.last() {
            Some(last) if more && last.path_suffix <= self.after => {
                let why = "the storage gave the same page of a listing again";
                return Err(Error::new(ErrorKind::Unavailable, why).context(what));
            }
            Some(last) => self.after = last.path_suffix.clone(),
            None if more => {
                let why = "an empty page in the middle of a listing";
                return Err(Error::new(ErrorKind::Unavailable, why).context(what));
            }
            None => {}
        }
        let (statuses, left) = self.without_temporary(page.statuses)?;
        let entries = async {
            let settled = self.settle(statuses, &full, &asked_after, deadline).await?;
            self.entries(settled).await
        };
        let page = entries.await.map_err(|error| error.context(what))?;
        self.left = left;
        Ok((page, more))
    }

    /// Leaves out files on their way, and tells those that were left behind.
    fn without_temporary(&self, statuses: Vec<Status>) -> Result<(Vec<Status>, Vec<Left>)> {
        let directory = self.web.place.location.full(&self.dir)?;
        let is_ours = |status: &Status| is_temporary(status.path_suffix.as_bytes());
        let (ours, shown): (Vec<_>, Vec<_>) = statuses.into_iter().partition(is_ours);
        let now = self.web.session.clock.wall();
        let old = |status: &&Status| {
            set_aside_of(status.path_suffix.as_bytes()).is_some()
                || is_left_behind(nanoseconds(status.modification_time), now)
        };
        let left = |status: &Status| {
            let name = &status.path_suffix;
            Left {
                path: format!("{}/{name}", directory.trim_end_matches('/')),
                mtime_ns: nanoseconds(status.modification_time),
            }
        };
        Ok((shown, ours.iter().filter(old).map(left).collect()))
    }

    /// Removes what was left behind, on mounts that write.
    async fn sweep(&mut self) {
        let left = std::mem::take(&mut self.left);
        if self.web.writes.load(Ordering::Relaxed) && !left.is_empty() {
            sweep(&self.web, &self.web.name("sweep", &self.dir), &left).await;
        }
    }

    /// Looks at young files again: each, or when they are many all at once, by the same page once
    /// more.
    async fn settle(
        &self,
        statuses: Vec<Status>,
        full: &str,
        after: &str,
        deadline: Deadline,
    ) -> Result<Vec<(VersionTag, Status)>> {
        let web = &self.web;
        for status in &statuses {
            web.latest.learn(status.modification_time);
        }
        let is_young = |status: &Status| web.is_young(status);
        let mut seen_again = HashMap::new();
        if statuses.iter().filter(|status| is_young(status)).count() > LOOKS_AT_ONCE {
            tokio::time::sleep(GRAIN).await;
            let mut retry = Retry::new(deadline);
            let list = || web.page(Ask::Other, full, after);
            let again = web
                .session
                .until_done("list again", &mut retry, list)
                .await?;
            let named = |status: Status| (status.path_suffix.clone(), status.tag());
            seen_again = again.statuses.into_iter().map(named).collect();
        }
        let directory = full.trim_end_matches('/');
        // In order, so that a page stays as the name node sorted it.
        stream::iter(statuses)
            .map(async |status| {
                let tag = status.tag();
                if !is_young(&status) || seen_again.get(&status.path_suffix) == Some(&tag) {
                    return Ok(Some((tag, status)));
                }
                let path = format!("{directory}/{}", percent_encode(&status.path_suffix));
                web.settle(&path, status, deadline).await
            })
            .buffered(LOOKS_AT_ONCE)
            .try_filter_map(|settled| std::future::ready(Ok(settled)))
            .try_collect()
            .await
    }

    async fn entries(&self, settled: Vec<(VersionTag, Status)>) -> Result<ListPage> {
        let owners = &self.web.owners;
        let named: Vec<_> = settled.iter().map(|(_, status)| status.named()).collect();
        owners.learn(named.iter()).await?;
        let mut page = ListPage::default();
        for ((tag, status), named) in settled.into_iter().zip(&named) {
            let meta = status.meta(tag, owners.owner(named));
            match (Name::new(status.path_suffix.as_bytes()), meta) {
                (Ok(name), Some(meta)) => page.entries.push(ListEntry { name, meta }),
                _ => page.unshowable += 1,
            }
        }
        Ok(page)
    }
}

/// Refuses a listing of a file, which holds the file itself, without a name.
pub(super) fn refuse_file(page: &Statuses) -> Result<()> {
    match page.statuses.first() {
        Some(status) if status.path_suffix.is_empty() => Err(Error::new(
            ErrorKind::NotADirectory,
            "it is a file, not a directory",
        )),
        _ => Ok(()),
    }
}
