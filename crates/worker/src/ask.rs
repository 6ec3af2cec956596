// SPDX-License-Identifier: Apache-2.0
//! Asking the storage for names, and taking note of what it says.
//!
//! Callers who ask the same at the same time share one question, except where each answer must be
//! younger than its question: there an answer that is already under way is too old.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, Either};
use futures::{FutureExt, StreamExt};
use tokio::sync::oneshot;
use types::{Deadline, Error, ErrorKind, Freshness, MountId, ObjectMeta, ObjectPath, Result};
use ufs::ListEntry;

use crate::knowledge::{Place, UnderWay};
use crate::meta::{Learnt, Listing, absent, is_outage};
use crate::records::Moment;
use crate::spans;
use crate::worker::{Mount, Worker};
use crate::write::writer;

/// How long a look-up waits for the listing of its directory before it also asks by itself.
const LISTING_PATIENCE: Duration = Duration::from_millis(200);

/// How long the answer to a listing waits for it to be written down.
const WRITE_PATIENCE: Duration = Duration::from_secs(1);

impl Worker {
    /// Lists the directory; when that takes long, asks for the entry alone meanwhile.
    pub(crate) async fn ask_directory_or_entry(
        self: &Arc<Self>,
        mount: MountId,
        dir: &ObjectPath,
        path: &ObjectPath,
        freshness: Freshness,
        deadline: Deadline,
    ) -> Result<Learnt<ObjectMeta>> {
        let mut listing = self.ask_listing(mount, dir.clone());
        let patience = self.clock.deadline(LISTING_PATIENCE).min(deadline);
        let listed = match tokio::time::timeout_at(patience.instant().into(), &mut listing).await {
            Ok(listed) => listed,
            Err(_) => match futures::future::select(listing, self.ask_entry(mount, path, deadline))
                .await
            {
                Either::Left((listed, _)) => listed,
                Either::Right((entry, _)) => return entry,
            },
        };
        match listed {
            Ok(listed) => find(&listed, path),
            // The parent may be an object, or be readable but not listable: ask for the entry.
            Err(error) if is_outage(&error) => Err(error),
            Err(_) => match self.known(mount, path, freshness) {
                Some(known) => known,
                None => self.ask_entry(mount, path, deadline).await,
            },
        }
    }

    /// Asks what a path is, once for all who ask at once. A question that was put by somebody with
    /// less time left and ended with it is put again.
    pub(crate) fn ask_entry(
        self: &Arc<Self>,
        mount: MountId,
        path: &ObjectPath,
        deadline: Deadline,
    ) -> BoxFuture<'static, Result<Learnt<ObjectMeta>>> {
        let (worker, place) = (Arc::clone(self), (mount, path.clone()));
        async move {
            match worker.put_question(place.clone(), deadline).await {
                Err(error)
                    if error.kind() == ErrorKind::Timeout
                        && worker.clock.now() < deadline.instant() =>
                {
                    worker.put_question(place, deadline).await
                }
                answer => answer,
            }
        }
        .boxed()
    }

    fn put_question(
        self: &Arc<Self>,
        place: Place,
        deadline: Deadline,
    ) -> BoxFuture<'static, Result<Learnt<ObjectMeta>>> {
        let question = self.knowledge.question(&place);
        self.knowledge.stats.run(&self.runtime, question, || {
            let worker = Arc::clone(self);
            async move { worker.ask_and_learn(&place, deadline).await }
        })
    }

    /// Asks what a path is, whoever else asks, and takes note of the answer.
    pub(crate) async fn ask_and_learn(
        &self,
        place: &Place,
        deadline: Deadline,
    ) -> Result<Learnt<ObjectMeta>> {
        let mount = self.mount(place.0)?;
        let learnt = self.moment();
        let asked = mount.storage.stat(&place.1, deadline);
        let answer = spans::within(spans::at("look", &place.1), asked).await;
        self.awake(&mount, answer.as_ref().err());
        match &answer {
            Ok(meta) => self.knowledge.learn_entry(place, learnt, Some(meta)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.knowledge.learn_entry(place, learnt, None);
            }
            Err(_) => {}
        }
        answer.map(|value| Learnt {
            value,
            age: learnt.age(self.moment()),
        })
    }

    /// Asks what a path is, whoever else asks; nothing is kept of the answer.
    pub(crate) async fn ask_now(
        &self,
        mount: MountId,
        path: &ObjectPath,
        deadline: Deadline,
    ) -> Result<Learnt<ObjectMeta>> {
        let mount = self.mount(mount)?;
        let asked = mount.storage.stat(path, deadline);
        let value = spans::within(spans::at("look", path), asked).await?;
        let age = Duration::ZERO;
        Ok(Learnt { value, age })
    }

    /// Lists a directory, whoever else does; nothing is kept of the answer.
    pub(crate) async fn list_now(
        &self,
        mount: MountId,
        dir: &ObjectPath,
    ) -> Result<Learnt<Listing>> {
        let value = self.collect_pages(&*self.mount(mount)?, dir).await?;
        let age = Duration::ZERO;
        Ok(Learnt { value, age })
    }

    /// Fails unless a directory is empty now.
    pub(crate) async fn check_empty(&self, mount: MountId, dir: &ObjectPath) -> Result<()> {
        let mut pages = self.mount(mount)?.storage.list(dir);
        while let Some(page) = pages.next().await {
            let page = page?;
            if !page.entries.is_empty() || page.unshowable > 0 {
                let message = format!("the directory '{dir}' is not empty");
                return Err(Error::new(ErrorKind::NotEmpty, message));
            }
        }
        Ok(())
    }

    /// Lists a directory, once for all who ask at once. The answer does not wait for a disk that
    /// cannot follow.
    pub(crate) fn ask_listing(
        self: &Arc<Self>,
        mount: MountId,
        dir: ObjectPath,
    ) -> BoxFuture<'static, Result<Learnt<Listing>>> {
        let place = (mount, dir);
        let question = self.knowledge.question(&place);
        self.knowledge.listings.run(&self.runtime, question, || {
            let worker = Arc::clone(self);
            async move { worker.list_and_learn(place).await }
        })
    }

    /// Lists a directory, whoever else does, and keeps the answer unless another is being kept.
    pub(crate) async fn list_and_learn(self: &Arc<Self>, place: Place) -> Result<Learnt<Listing>> {
        let mount = self.mount(place.0)?;
        let under_way = self.knowledge.list_begins(&place);
        let learnt = self.moment();
        let listed = self.collect_pages(&mount, &place.1).await;
        self.awake(&mount, listed.as_ref().err());
        let mut value = listed?;
        if let Some(under_way) = under_way {
            // Where attributes are kept beside the bytes.
            let is_silent = writer(&mount).is_ok_and(|writer| !writer.abilities().attributes);
            value = self
                .keep(under_way, place, learnt, (value, is_silent))
                .await?;
        }
        let age = learnt.age(self.moment());
        Ok(Learnt { value, age })
    }

    async fn keep(
        self: &Arc<Self>,
        under_way: UnderWay,
        place: Place,
        learnt: Moment,
        (listing, is_silent): (Listing, bool),
    ) -> Result<Listing> {
        let (give, given) = oneshot::channel();
        let worker = Arc::clone(self);
        let written = self.runtime.spawn_blocking(move || {
            let listing = match is_silent {
                true => worker.knowledge.with_what_was_told(&place, listing),
                false => listing,
            };
            let listing = worker.knowledge.keep_listing(&place, learnt, listing);
            give.send(Listing::clone(&listing)).ok();
            worker.knowledge.write_listing(&place, learnt, &listing);
            drop(under_way);
        });
        let aborted = |_| Error::internal("a listing could not be kept");
        let listing = given.await.map_err(aborted)?;
        tokio::time::timeout(WRITE_PATIENCE, written).await.ok();
        Ok(listing)
    }

    /// Takes in all pages of a listing, sorted. Of an object and a directory of one name the
    /// directory is shown, since only so can what lies below be reached.
    async fn collect_pages(&self, mount: &Mount, dir: &ObjectPath) -> Result<Listing> {
        let span = spans::at("list", dir);
        let listing = spans::within(span.clone(), self.take_in_pages(mount, dir)).await?;
        span.record("names", (listing.len() as u64).cast_signed());
        Ok(listing)
    }

    async fn take_in_pages(&self, mount: &Mount, dir: &ObjectPath) -> Result<Listing> {
        let mut pages = mount.storage.list(dir);
        let mut entries: Vec<ListEntry> = Vec::new();
        let mut unshowable = 0;
        let mut bytes = 0;
        while let Some(page) = pages.next().await {
            let page = page?;
            bytes += page.entries.iter().map(bytes_of).sum::<u64>();
            if bytes > self.settings.listing.0 {
                return Err(too_large(mount.storage.uri(), dir, entries.len()));
            }
            entries.extend(page.entries);
            unshowable += page.unshowable;
        }
        if unshowable > 0 {
            self.counters.names_unshowable.add(unshowable);
            let uri = mount.storage.uri();
            tracing::warn!(
                "list '{uri}{dir}': {unshowable} names cannot be shown and are left out"
            );
        }
        entries.sort_by(|a, b| {
            let is_file = |entry: &ListEntry| entry.meta.kind != types::NodeKind::Directory;
            a.name.cmp(&b.name).then(is_file(a).cmp(&is_file(b)))
        });
        entries.dedup_by(|next, kept| next.name == kept.name);
        Ok(entries.into())
    }
}

/// Returns about how much memory an entry of a listing takes.
fn bytes_of(entry: &ListEntry) -> u64 {
    let etag = entry.meta.tag.etag.as_ref().map_or(0, String::len);
    (size_of::<ListEntry>() + entry.name.as_bytes().len() + etag) as u64
}

fn too_large(uri: &str, dir: &ObjectPath, names: usize) -> Error {
    let place = format!("{}/{dir}", uri.trim_end_matches('/'));
    let advice = "open its files by name, or spread them over several directories";
    Error::new(
        ErrorKind::Unsupported,
        format!("list '{place}': more than {names} names do not fit into memory: {advice}"),
    )
}

fn find(listed: &Learnt<Listing>, path: &ObjectPath) -> Result<Learnt<ObjectMeta>> {
    let found = path.split().and_then(|(_, name)| {
        let index = listed
            .value
            .binary_search_by(|entry| entry.name.cmp(&name))
            .ok()?;
        Some(listed.value[index].meta.clone())
    });
    match found {
        Some(value) => Ok(Learnt {
            value,
            age: listed.age,
        }),
        None => Err(absent(path)),
    }
}
