// SPDX-License-Identifier: Apache-2.0
//! What is known of names, and for how long.
//!
//! A known name costs no request; in a directory not known yet the first name costs one listing,
//! which then answers for all others. In a large directory a name is asked for by itself while its
//! listing is still coming in. Knowledge (`knowledge`)
//! outlives the process; `ask` is how it is learnt.
//!
//! Only what the storage said is remembered: a failure never becomes "not found". When a storage
//! does not answer, a mount with a maximum age serves the names it knew before (counted) and lets the
//! storage rest for a few seconds; a mount that asks always passes the error on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use types::{
    Deadline, Error, ErrorKind, Freshness, MountId, Name, NodeKind, ObjectMeta, ObjectPath, Result,
    Xattrs,
};
use ufs::{ListEntry, Space};

use crate::knowledge::{Place, SMALL_DIRECTORY};
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

/// With old knowledge at hand, how long the storage has to confirm it.
const CONFIRM_WITHIN: Duration = Duration::from_secs(5);

pub(crate) fn absent(path: &ObjectPath) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("'{path}' does not exist in the storage"),
    )
}

fn unknown(path: &ObjectPath) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("the storage does not answer, and '{path}' was not known before"),
    )
}

pub(crate) fn is_outage(error: &Error) -> bool {
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
        let known = self.learnt(mount, path, freshness)?;
        let is_whole = |learnt: &Learnt<ObjectMeta>| !self.is_half_told(mount, &learnt.value);
        known.as_ref().map_or(true, is_whole).then_some(known)
    }

    /// Returns whether a listing told less of a name than the storage has: of a symbolic link on an
    /// object store neither its length nor where it points to.
    pub fn is_half_told(&self, mount: MountId, meta: &ObjectMeta) -> bool {
        meta.kind == NodeKind::Symlink
            && meta.extras.is_none()
            && (self.mount(mount)).is_ok_and(|mount| !mount.storage.lists_all())
    }

    /// Returns what was learnt of a path and is still fresh, if only by half.
    fn learnt(
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
        if self.veils.hides(mount, path) {
            return Some(Err(absent(path)));
        }
        if let Some(here) = self.here(mount, path) {
            return Some(here);
        }
        if freshness == Freshness::Always {
            return None;
        }
        let now = self.moment();
        let fresh = |learnt: Moment| freshness.left(learnt.age(now)).is_some();
        let (learnt, meta) = self.knowledge.entry(mount, &dir, &name, fresh)?;
        let age = self.usable(mount, freshness, learnt)?;
        let is_fresh = freshness.left(age).is_some();
        Some(meta.map(|value| Learnt { value, age }).ok_or_else(|| {
            // That there was none then does not mean that there is none now.
            if is_fresh {
                absent(path)
            } else {
                unknown(path)
            }
        }))
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
        let worker = Arc::clone(self);
        async move {
            loop {
                let turn = worker.turn();
                if let Some(here) = worker.here(mount, &path) {
                    return here;
                }
                let asked = match freshness {
                    Freshness::Always => worker.ask_now(mount, &path, deadline).await,
                    _ => {
                        let place = (&dir, &name, &path);
                        worker.ask_about(mount, place, freshness, deadline).await
                    }
                };
                // A rename that began or turned since would make it a mixture of before and after.
                if worker.turn() == turn {
                    return match worker.veils.hides(mount, &path) {
                        true => Err(absent(&path)),
                        false => asked,
                    };
                }
            }
        }
        .boxed()
    }

    async fn ask_about(
        self: &Arc<Self>,
        mount: MountId,
        (dir, name, path): (&ObjectPath, &Name, &ObjectPath),
        freshness: Freshness,
        deadline: Deadline,
    ) -> Result<Learnt<ObjectMeta>> {
        let large = self
            .knowledge
            .directory(mount, dir)
            .is_some_and(|record| record.entries > SMALL_DIRECTORY);
        let old = self.knowledge.entry(mount, dir, name, |_| false);
        let limit = self.confirm_deadline(freshness, old.is_some(), deadline);
        let is_listed = self.learnt(mount, path, freshness).is_some();
        let mut asked = match large || is_listed {
            true => self.ask_entry(mount, path, limit).await,
            false => {
                let asked = self.ask_directory_or_entry(mount, dir, path, freshness, limit);
                asked.await
            }
        };
        if let Ok(listed) = &asked
            && self.is_half_told(mount, &listed.value)
        {
            asked = self.ask_entry(mount, path, limit).await;
        }
        match (asked, old) {
            (Err(error), Some((learnt, meta))) if self.may_serve_old(mount, freshness, &error) => {
                // That there was none then does not mean that there is none now.
                let age = learnt.age(self.moment());
                meta.map(|value| Learnt { value, age }).ok_or(error)
            }
            (asked, _) => asked,
        }
    }

    /// Returns a directory's names when they are known, fresh and quickly at hand; makes no request.
    pub fn known_list(
        &self,
        mount: MountId,
        dir: &ObjectPath,
        freshness: Freshness,
    ) -> Option<Learnt<Listing>> {
        let turn = self.turn();
        if self.veils.hides(mount, dir) {
            return None;
        }
        if let Some(here) = self.listed_here(mount, dir) {
            return Some(here);
        }
        if freshness == Freshness::Always {
            return None;
        }
        let (learnt, value) = self.knowledge.small_listing(mount, dir)?;
        let age = self.usable(mount, freshness, learnt)?;
        let value = self.shown(mount, dir, value);
        // What the storage got between the two steps would be in neither.
        (self.turn() == turn).then_some(Learnt { value, age })
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
            self.listed(mount, &dir, freshness, None);
            return futures::future::ready(Ok(known)).boxed();
        }
        let worker = Arc::clone(self);
        async move {
            let listing = worker.list_unnoticed(mount, dir.clone(), freshness, deadline);
            worker.lists(mount, &dir, freshness, deadline);
            let listed = listing.await?;
            worker.listed(mount, &dir, freshness, Some(listed.value.len()));
            Ok(listed)
        }
        .boxed()
    }

    /// As [`Worker::list`], for who goes ahead of readers and walks.
    pub(crate) fn list_unnoticed(
        self: &Arc<Self>,
        mount: MountId,
        dir: ObjectPath,
        freshness: Freshness,
        deadline: Deadline,
    ) -> BoxFuture<'static, Result<Learnt<Listing>>> {
        if let Some(known) = self.known_list(mount, &dir, freshness) {
            return futures::future::ready(Ok(known)).boxed();
        }
        let worker = Arc::clone(self);
        async move {
            loop {
                let turn = worker.turn();
                if let Some(here) = worker.listed_here(mount, &dir) {
                    return Ok(here);
                }
                let listed = match freshness {
                    Freshness::Always => worker.list_now(mount, &dir).await,
                    _ => worker.list_about(mount, &dir, freshness, deadline).await,
                };
                let is_hidden = worker.veils.hides(mount, &dir);
                let shown = listed.map(|learnt| Learnt {
                    value: worker.shown(mount, &dir, learnt.value),
                    age: learnt.age,
                });
                // As for a name; and what the storage got before it was added here would be missing.
                if worker.turn() != turn {
                    continue;
                }
                return match is_hidden {
                    true => Err(absent(&dir)),
                    false => shown,
                };
            }
        }
        .boxed()
    }

    /// Returns a listing as this node shows it: without what a rename hides, and with what only this
    /// node has.
    fn shown(&self, mount: MountId, dir: &ObjectPath, listing: Listing) -> Listing {
        let seen = self.veils.thin(mount, dir, listing);
        self.makes.complete(&(mount, dir.clone()), seen)
    }

    /// Returns what changes when this node shows other names than before for the same answers of a
    /// storage.
    fn turn(&self) -> (u64, u64) {
        (self.veils.turn(), self.makes.turn())
    }

    async fn list_about(
        self: &Arc<Self>,
        mount: MountId,
        dir: &ObjectPath,
        freshness: Freshness,
        deadline: Deadline,
    ) -> Result<Learnt<Listing>> {
        let old = self.recall((mount, dir.clone()), deadline).await;
        if let Some((learnt, value)) = &old
            && let Some(age) = self.usable(mount, freshness, *learnt)
        {
            let value = Listing::clone(value);
            return Ok(Learnt { value, age });
        }
        // Somebody else may have listed it since.
        if let Some(known) = self.known_list(mount, dir, freshness) {
            return Ok(known);
        }
        let listing = self.ask_listing(mount, dir.clone());
        let asked = match self.confirm_deadline(freshness, old.is_some(), deadline) {
            // A listing has no deadline as a whole, unless old knowledge can stand in for it.
            limit if limit < deadline => timed(limit, listing).await,
            _ => listing.await,
        };
        match (asked, old) {
            (Err(error), Some((learnt, value))) if self.may_serve_old(mount, freshness, &error) => {
                Ok(Learnt {
                    value,
                    age: learnt.age(self.moment()),
                })
            }
            (asked, _) => asked,
        }
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

    /// Returns how much room a storage has, if it has bounds.
    ///
    /// # Errors
    /// What the storage said.
    pub fn space(
        self: &Arc<Self>,
        mount: MountId,
        deadline: Deadline,
    ) -> BoxFuture<'static, Result<Option<Space>>> {
        let worker = Arc::clone(self);
        async move { worker.mount(mount)?.storage.space(deadline).await }.boxed()
    }

    /// Returns the extended attributes that users gave a path.
    ///
    /// # Errors
    /// What the storage said; `Unsupported` where there are none.
    pub fn xattrs(
        self: &Arc<Self>,
        mount: MountId,
        path: ObjectPath,
        deadline: Deadline,
    ) -> BoxFuture<'static, Result<Arc<Xattrs>>> {
        let worker = Arc::clone(self);
        async move {
            if let Some(Ok(Learnt { value: meta, .. })) = worker.here(mount, &path) {
                let extras = meta.extras;
                return Ok(extras.map_or_else(Arc::default, |extras| Arc::clone(&extras.xattrs)));
            }
            let storage = Arc::clone(&worker.mount(mount)?.storage);
            if storage.lists_all() {
                return storage.xattrs(&path, deadline).await.map(Arc::new);
            }
            let learnt = worker.ask_entry(mount, &path, deadline).await?;
            let extras = learnt.value.extras;
            Ok(extras.map_or_else(Arc::default, |extras| Arc::clone(&extras.xattrs)))
        }
        .boxed()
    }

    /// Forgets what is known of a path that proved to be stale: the next look-up asks the storage.
    pub fn forget_path(&self, mount: MountId, path: &ObjectPath) {
        if let Some((dir, name)) = path.split() {
            self.knowledge.forget(mount, &dir, &name);
        }
    }

    /// Returns the time by which knowledge ages: that of the wall, which counts over restarts, but
    /// never less than has passed since the start, should somebody set the clock back.
    pub(crate) fn moment(&self) -> Moment {
        let (started, wall) = self.started;
        let passed = self.clock.now().saturating_duration_since(started);
        let moment = Moment::of(self.clock.wall().max(wall + passed));
        Moment(moment.0.saturating_add(self.ahead.load(Ordering::SeqCst)))
    }

    /// Lets a moment be past: what is learnt from now on is learnt later.
    pub(crate) fn pass(&self, moment: Moment) {
        let behind = (moment.0 + 1).saturating_sub(self.moment().0);
        self.ahead.fetch_add(behind, Ordering::SeqCst);
    }

    /// Returns the age of what was learnt then if it may be used: it is fresh, or the storage rests.
    fn usable(&self, mount: MountId, freshness: Freshness, learnt: Moment) -> Option<Duration> {
        let age = learnt.age(self.moment());
        if freshness.left(age).is_none() {
            if !self.rests(mount) {
                return None;
            }
            self.counters.stale_served.add(1);
        }
        Some(age)
    }

    /// Returns a directory's names as they were last known, however old; makes no request.
    pub(crate) async fn recall_listing(
        self: &Arc<Self>,
        mount: MountId,
        dir: &ObjectPath,
    ) -> Option<Listing> {
        let deadline = self.clock.deadline(CONFIRM_WITHIN);
        let recalled = self.recall((mount, dir.clone()), deadline).await;
        recalled.map(|(_, listing)| listing)
    }

    /// Returns what a name was when it was last known, however old that is; makes no request.
    pub(crate) fn known_before(&self, mount: MountId, path: &ObjectPath) -> Option<ObjectMeta> {
        let (dir, name) = path.split()?;
        let (_, meta) = self.knowledge.entry(mount, &dir, &name, |_| false)?;
        meta
    }

    /// Returns a directory's names as they were last known, if that does not take long.
    async fn recall(
        self: &Arc<Self>,
        place: Place,
        deadline: Deadline,
    ) -> Option<(Moment, Listing)> {
        let patience = deadline.min(self.clock.deadline(CONFIRM_WITHIN));
        let asked = place.clone();
        let recalled = self
            .knowledge
            .recalls
            .run(&self.runtime, place.clone(), || {
                let worker = Arc::clone(self);
                let read = tokio::task::spawn_blocking(move || worker.knowledge.listing(&place));
                async {
                    read.await
                        .map_err(|_| Error::internal("a look at the map was aborted"))
                }
            });
        let found = timed(patience, recalled).await.ok()?;
        // The look may have begun before the latest sync.
        self.knowledge.believed(&asked, found)
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

    /// A storage that answered, whatever it said, need not rest any longer.
    pub(crate) fn awake(&self, mount: &Mount, error: Option<&Error>) {
        if !error.is_some_and(is_outage) {
            *mount.rests_until.lock() = None;
        }
    }
}

/// Waits for work until a deadline.
pub(crate) async fn timed<T>(
    deadline: Deadline,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout_at(deadline.instant().into(), work).await {
        Ok(done) => done,
        Err(_) => Err(Error::new(
            ErrorKind::Timeout,
            "the storage did not answer in time",
        )),
    }
}
