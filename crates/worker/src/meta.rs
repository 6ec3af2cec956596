// SPDX-License-Identifier: Apache-2.0
//! What is known of names, for how long, and how it is learnt.
//!
//! A known name costs no request; in a directory not known yet the first name costs one listing,
//! which then answers for all others. In a large directory a name is asked for by itself while its
//! listing is still coming in. Knowledge (`knowledge`) outlives the process.
//!
//! Only what the storage said is remembered: a failure never becomes "not found". When a storage
//! does not answer, a mount with a maximum age serves what it knew before (counted) and lets the
//! storage rest for a few seconds; a mount that asks always passes the error on.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, Either};
use futures::{FutureExt, StreamExt};
use types::{Deadline, Error, ErrorKind, Freshness, MountId, ObjectMeta, ObjectPath, Result};
use ufs::ListEntry;

use crate::records::Moment;
use crate::settings::REST_AFTER_FAILURE;
use crate::worker::{Mount, Worker};

/// All names of a directory, sorted.
pub type Listing = Arc<[ListEntry]>;

/// Something the storage said, and how long ago.
#[derive(Debug, Clone)]
pub struct Learnt<T> {
    /// What it said.
    pub value: T,
    /// How long ago.
    pub age: Duration,
}

impl<T> Learnt<T> {
    fn map<U>(self, f: impl FnOnce(T) -> U) -> Learnt<U> {
        Learnt {
            value: f(self.value),
            age: self.age,
        }
    }
}

/// A directory of at most this many names is listed again as a whole when it is too old: one or
/// two requests that answer for every name in it.
const SMALL_DIRECTORY: u64 = 2000;

/// How long a look-up waits for the listing of its directory before it also asks by itself.
const LISTING_PATIENCE: Duration = Duration::from_millis(200);

/// With old knowledge at hand, how long the storage has to confirm it.
const CONFIRM_WITHIN: Duration = Duration::from_secs(5);

fn absent(path: &ObjectPath) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("'{path}' does not exist in the storage"),
    )
}

fn is_outage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout)
}

/// Freshness decides whether the storage must be asked; a mount's root needs no asking.
impl Worker {
    /// Returns what is known of a path and still fresh; makes no request. `NotFound` when a fresh
    /// listing of its directory lacks it, `None` when the storage must be asked.
    pub fn known(
        &self,
        mount: MountId,
        path: &ObjectPath,
        freshness: Freshness,
    ) -> Option<Result<Learnt<ObjectMeta>>> {
        let Some((dir, name)) = path.split() else {
            let value = ObjectMeta::implied_directory();
            return Some(Ok(Learnt {
                value,
                age: Duration::ZERO,
            }));
        };
        if freshness == Freshness::Always {
            return None;
        }
        let now = self.moment();
        let fresh = |learnt: Moment| freshness.left(learnt.age(now)).is_some();
        let (learnt, meta) = self.knowledge.entry(mount, &dir, &name, fresh)?;
        let age = learnt.age(now);
        if freshness.left(age).is_none() {
            if !self.rests(mount) {
                return None;
            }
            self.counters.stale_served.add(1);
        }
        Some(
            meta.map(|value| Learnt { value, age })
                .ok_or_else(|| absent(path)),
        )
    }

    /// Returns what a path stands for, from knowledge or from the storage. One flight for all who
    /// ask at once. Dropping the future is safe.
    ///
    /// # Errors
    /// `NotFound` only if the storage said so; else what it said, or `Timeout`.
    pub fn stat(
        self: &Arc<Self>,
        mount: MountId,
        path: ObjectPath,
        freshness: Freshness,
        deadline: Deadline,
    ) -> BoxFuture<'static, Result<Learnt<ObjectMeta>>> {
        if let Some(known) = self.known(mount, &path, freshness) {
            return futures::future::ready(known).boxed();
        }
        let Some((dir, name)) = path.split() else {
            return futures::future::ready(Err(Error::internal("a root is always known"))).boxed();
        };
        let large = self
            .knowledge
            .directory(mount, &dir)
            .is_some_and(|record| record.entries > SMALL_DIRECTORY);
        let old = self.knowledge.entry(mount, &dir, &name, |_| false);
        let worker = Arc::clone(self);
        async move {
            let limit = worker.confirm_deadline(freshness, old.is_some(), deadline);
            let asked = if freshness == Freshness::Always || large {
                worker.ask_entry(mount, &path, limit).await
            } else {
                worker
                    .ask_directory_or_entry(mount, &dir, &path, freshness, limit)
                    .await
            };
            match (asked, old) {
                (Err(error), Some((learnt, meta)))
                    if worker.may_serve_old(mount, freshness, &error) =>
                {
                    let age = learnt.age(worker.moment());
                    meta.map(|value| Learnt { value, age })
                        .ok_or_else(|| absent(&path))
                }
                (asked, _) => asked,
            }
        }
        .boxed()
    }

    /// Returns a directory's names when they are known and fresh; makes no request.
    pub fn known_list(
        &self,
        mount: MountId,
        dir: &ObjectPath,
        freshness: Freshness,
    ) -> Option<Learnt<Listing>> {
        if freshness == Freshness::Always {
            return None;
        }
        let (learnt, value) = self.knowledge.listing(mount, dir)?;
        let age = learnt.age(self.moment());
        if freshness.left(age).is_none() {
            if !self.rests(mount) {
                return None;
            }
            self.counters.stale_served.add(1);
        }
        Some(Learnt { value, age })
    }

    /// Returns a directory's names, from knowledge or from the storage. One flight for all who
    /// ask at once; each page of a listing must come within the mount's request time, so a
    /// directory of any size can be listed.
    ///
    /// # Errors
    /// What the storage said, `NotFound` when it knows no such directory, or `Timeout`.
    pub fn list(
        self: &Arc<Self>,
        mount: MountId,
        dir: ObjectPath,
        freshness: Freshness,
        deadline: Deadline,
    ) -> BoxFuture<'static, Result<Learnt<Listing>>> {
        if let Some(known) = self.known_list(mount, &dir, freshness) {
            return futures::future::ready(Ok(known)).boxed();
        }
        let old = self.knowledge.listing(mount, &dir);
        let worker = Arc::clone(self);
        async move {
            let asked = match worker.confirm_deadline(freshness, old.is_some(), deadline) {
                // A listing has no deadline as a whole, unless old knowledge can stand in for it.
                limit if limit < deadline => timed(limit, worker.ask_listing(mount, dir)).await,
                _ => worker.ask_listing(mount, dir).await,
            };
            match (asked, old) {
                (Err(error), Some((learnt, value)))
                    if worker.may_serve_old(mount, freshness, &error) =>
                {
                    Ok(Learnt {
                        value,
                        age: learnt.age(worker.moment()),
                    })
                }
                (asked, _) => asked,
            }
        }
        .boxed()
    }

    /// Returns where a symbolic link points to.
    ///
    /// # Errors
    /// What the storage said; `Unsupported` where there are no links.
    pub fn read_link(
        self: &Arc<Self>,
        mount: MountId,
        path: ObjectPath,
        deadline: Deadline,
    ) -> BoxFuture<'static, Result<Vec<u8>>> {
        let worker = Arc::clone(self);
        async move {
            worker
                .mount(mount)?
                .storage
                .read_link(&path, deadline)
                .await
        }
        .boxed()
    }

    /// Forgets what is known of a path that proved to be stale: the next look-up asks the storage.
    pub fn forget_path(&self, mount: MountId, path: &ObjectPath) {
        if let Some((dir, name)) = path.split() {
            self.knowledge.forget(mount, &dir, &name);
        }
    }

    fn moment(&self) -> Moment {
        Moment::of(self.clock.wall())
    }

    fn rests(&self, mount: MountId) -> bool {
        let now = self.clock.now();
        self.mount(mount).is_ok_and(|mount| {
            mount
                .rests_until
                .lock()
                .is_some_and(|until| until.instant() > now)
        })
    }

    fn confirm_deadline(
        &self,
        freshness: Freshness,
        has_old: bool,
        deadline: Deadline,
    ) -> Deadline {
        match freshness {
            Freshness::MaxAge(_) if has_old => deadline.min(self.clock.deadline(CONFIRM_WITHIN)),
            _ => deadline,
        }
    }

    /// Says whether old knowledge may stand in for an answer; from then on the storage rests.
    fn may_serve_old(&self, mount: MountId, freshness: Freshness, error: &Error) -> bool {
        if !matches!(freshness, Freshness::MaxAge(_)) || !is_outage(error) {
            return false;
        }
        if let Ok(mount) = self.mount(mount) {
            tracing::warn!(%error, storage = mount.storage.uri(), "serving old knowledge of names");
            *mount.rests_until.lock() = Some(self.clock.deadline(REST_AFTER_FAILURE));
        }
        self.counters.stale_served.add(1);
        true
    }

    /// Lists the directory; when that takes long, asks for the entry alone meanwhile.
    async fn ask_directory_or_entry(
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

    fn ask_entry(
        self: &Arc<Self>,
        mount: MountId,
        path: &ObjectPath,
        deadline: Deadline,
    ) -> BoxFuture<'static, Result<Learnt<ObjectMeta>>> {
        let place = (mount, path.clone());
        self.knowledge.stats.run(&self.runtime, place.clone(), || {
            let worker = Arc::clone(self);
            async move {
                let mount = worker.mount(place.0)?;
                let learnt = worker.moment();
                let answer = mount.storage.stat(&place.1, deadline).await;
                worker.awake(&mount, answer.as_ref().err());
                match &answer {
                    Ok(meta) => worker.knowledge.learn_entry(&place, learnt, Some(meta)),
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        worker.knowledge.learn_entry(&place, learnt, None);
                    }
                    Err(_) => {}
                }
                answer.map(|value| Learnt {
                    value,
                    age: learnt.age(worker.moment()),
                })
            }
        })
    }

    fn ask_listing(
        self: &Arc<Self>,
        mount: MountId,
        dir: ObjectPath,
    ) -> BoxFuture<'static, Result<Learnt<Listing>>> {
        let place = (mount, dir);
        self.knowledge
            .listings
            .run(&self.runtime, place.clone(), || {
                let worker = Arc::clone(self);
                async move {
                    let mount = worker.mount(place.0)?;
                    let learnt = worker.moment();
                    let listed = collect(&mount, &place.1).await;
                    worker.awake(&mount, listed.as_ref().err());
                    let value = listed?;
                    let keeper = (Arc::clone(&worker), place, Arc::clone(&value));
                    let kept = worker.runtime.spawn_blocking(move || {
                        let (worker, (mount, dir), value) = keeper;
                        worker.knowledge.learn_listing(mount, &dir, learnt, &value);
                    });
                    kept.await
                        .map_err(|_| Error::internal("a listing could not be kept"))?;
                    Ok(Learnt {
                        value,
                        age: learnt.age(worker.moment()),
                    })
                }
            })
    }

    /// A storage that answered, whatever it said, need not rest any longer.
    fn awake(&self, mount: &Mount, error: Option<&Error>) {
        if !error.is_some_and(is_outage) {
            *mount.rests_until.lock() = None;
        }
    }
}

async fn timed<T>(deadline: Deadline, work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout_at(deadline.instant().into(), work).await {
        Ok(done) => done,
        Err(_) => Err(Error::new(
            ErrorKind::Timeout,
            "the storage did not answer in time",
        )),
    }
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
        Some(meta) => Ok(listed.clone().map(|_| meta)),
        None => Err(absent(path)),
    }
}

/// Takes in all pages of a listing, sorted. Of an object and a directory of one name the
/// directory is shown, since only so can what lies below be reached.
async fn collect(mount: &Mount, dir: &ObjectPath) -> Result<Listing> {
    let mut pages = mount.storage.list(dir);
    let mut entries: Vec<ListEntry> = Vec::new();
    while let Some(page) = pages.next().await {
        entries.extend(page?.entries);
    }
    entries.sort_by(|a, b| {
        let is_file = |entry: &ListEntry| entry.meta.kind != types::NodeKind::Directory;
        a.name.cmp(&b.name).then(is_file(a).cmp(&is_file(b)))
    });
    entries.dedup_by(|next, kept| next.name == kept.name);
    Ok(entries.into())
}
