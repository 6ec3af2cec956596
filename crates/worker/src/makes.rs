// SPDX-License-Identifier: Apache-2.0
//! Directories that are here and that their storage is to have.
//!
//! Where changes are stored in the background, a new directory is noted on the local disk. From then
//! on everybody on this node sees it, whatever the storage says, and nothing below it is asked for:
//! the storage has nothing there. It is made in the storage a moment later, or at once when
//! somebody needs it there: nothing is stored below a directory that is not made yet. One that is removed
//! before costs no request.
//!
//! A failure is tried again after a pause that doubles, also by the next start.
//!
//! `here` is what is known of them. Locks: that of one directory (`making`), held while the storage is
//! asked, and below it the lock of the table, a leaf.

mod here;

use std::sync::Arc;
use std::time::Duration;

use cache::staged::{Outlives, StagedId};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use types::{Error, ErrorKind, MountId, NodeKind, ObjectMeta, ObjectPath, Result};
use ufs::FileAttributes;

use crate::knowledge::Place;
use crate::meta::{Learnt, Listing};
use crate::notes::{self, MakeNote};
use crate::worker::Worker;
use crate::write::writer;
pub(crate) use here::{Held, Makes};

/// How long a directory is left alone before it is made: many go again at once.
const QUIET: Duration = Duration::from_secs(1);

/// Pauses before another attempt, from the first to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Directories that are made for one caller at a time.
const WIDTH: usize = 8;

/// A directory that its storage does not have yet.
#[derive(Debug, Clone)]
pub struct Unmade {
    /// The storage.
    pub mount: MountId,
    /// Where in it.
    pub path: ObjectPath,
    /// Since when, in nanoseconds since 1970.
    pub since_ns: i64,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

impl Worker {
    /// Makes a directory here, for the storage to have soon. It outlives a kill when this returns, and
    /// a power cut after [`Worker::harden`]. Where that cannot be, the storage makes it at once.
    ///
    /// # Errors
    /// `AlreadyExists`, `OutOfSpace`; `Unsupported`, `ReadOnly` when it can never be there.
    pub async fn create_dir_later(
        self: &Arc<Self>,
        id: MountId,
        path: &ObjectPath,
        attributes: &FileAttributes,
    ) -> Result<ObjectMeta> {
        writer(&*self.mount(id)?)?.check_place(path)?;
        let (Some(staging), Some(_)) = (self.staging(), path.split()) else {
            return self.create_dir(id, path, attributes).await;
        };
        let (place, staged) = ((id, path.clone()), staging.next_id());
        self.note_make(&place, staged, attributes).await?;
        types::crash::point("make.noted");
        let since_ns = self.wall_ns();
        match self.makes.begin(&place, staged, attributes, since_ns) {
            Ok(true) => {
                self.make_in_background(place);
                Ok(here::meta_of(attributes, since_ns))
            }
            Ok(false) => {
                // Something above it is being renamed.
                self.unnote_make(staged);
                self.create_dir(id, path, attributes).await
            }
            Err(error) => {
                self.unnote_make(staged);
                Err(error)
            }
        }
    }

    /// Goes on with directories that a former run was to make.
    pub fn go_on_making(self: &Arc<Self>, left: Vec<(StagedId, MakeNote)>) {
        for (staged, note) in left {
            let place = (note.mount, note.path);
            let since_ns = note.attributes.mtime_ns.unwrap_or_else(|| self.wall_ns());
            let begun = self.makes.begin(&place, staged, &note.attributes, since_ns);
            match begun {
                Ok(true) => self.make_in_background(place),
                Ok(false) | Err(_) => self.unnote_make(staged),
            }
        }
    }

    /// Returns the directories that their storages do not have yet.
    pub fn unmade(&self) -> Vec<Unmade> {
        self.makes.all()
    }

    /// Resolves when the storages have all directories; until then nothing is put off.
    pub async fn all_made(&self) {
        self.makes.emptied().await;
    }

    /// Gives up a directory that its storage does not have. Returns whether there was such a one.
    ///
    /// # Errors
    /// `NotEmpty` when it has directories that are not made either.
    pub async fn drop_make(&self, id: MountId, path: &ObjectPath) -> Result<bool> {
        let place = (id, path.clone());
        let Some(making) = self.makes.making(&place) else {
            return Ok(false);
        };
        let _alone = making.lock().await;
        self.check_all_made_in(id, path)?;
        let gone = self.makes.remove(&place);
        if let Some(staged) = gone {
            self.unnote_make(staged);
        }
        Ok(gone.is_some())
    }

    /// Removes a directory that was never asked to be made. Returns whether that was it.
    ///
    /// # Errors
    /// `NotEmpty` when it has directories that are not made either.
    pub(crate) fn unmake(&self, id: MountId, path: &ObjectPath) -> Result<bool> {
        self.check_all_made_in(id, path)?;
        let gone = self.makes.remove_unbegun(&(id, path.clone()));
        if let Some(staged) = gone {
            self.unnote_make(staged);
        }
        Ok(gone.is_some())
    }

    /// Fails if a directory has some that its storage does not have yet.
    pub(crate) fn check_all_made_in(&self, id: MountId, dir: &ObjectPath) -> Result<()> {
        if !self.makes.has_below(&(id, dir.clone())) {
            return Ok(());
        }
        let message = format!("the directory '{dir}' is not empty");
        Err(Error::new(ErrorKind::NotEmpty, message))
    }

    /// Changes what is to be kept with a directory that is not made yet; none if there is no such one.
    pub(crate) async fn amend_make(
        &self,
        id: MountId,
        path: &ObjectPath,
        attributes: &FileAttributes,
    ) -> Result<Option<ObjectMeta>> {
        let place = (id, path.clone());
        let Some((staged, attributes)) = self.makes.amend(&place, attributes) else {
            return Ok(None);
        };
        self.note_make(&place, staged, &attributes).await?;
        if !self.makes.is_noted(&place, staged) {
            // It was made meanwhile, with these attributes.
            self.unnote_make(staged);
        }
        Ok(Some(here::meta_of(&attributes, self.wall_ns())))
    }

    /// Returns what a path stands for if that is true whatever the storage says.
    pub(crate) fn here(
        &self,
        id: MountId,
        path: &ObjectPath,
    ) -> Option<Result<Learnt<ObjectMeta>>> {
        let found = self.makes.answer(&(id, path.clone()))?;
        Some(match found {
            Some(value) => Ok(Learnt {
                value,
                age: Duration::ZERO,
            }),
            None => Err(crate::meta::absent(path)),
        })
    }

    /// Returns the names in a directory that the storage does not have yet.
    pub(crate) fn listed_here(&self, id: MountId, dir: &ObjectPath) -> Option<Learnt<Listing>> {
        let value = self.makes.listing(&(id, dir.clone()))?;
        Some(Learnt {
            value,
            age: Duration::ZERO,
        })
    }

    /// Sees to it that the storage has all directories above a path.
    ///
    /// # Errors
    /// What the storage said.
    pub(crate) fn settle_above(
        self: &Arc<Self>,
        id: MountId,
        path: &ObjectPath,
    ) -> BoxFuture<'static, Result<()>> {
        let above = || std::iter::successors(path.split(), |(dir, _)| dir.split());
        let nearest = match self.makes.is_empty() {
            true => None,
            false => above().find(|(dir, _)| self.makes.making(&(id, dir.clone())).is_some()),
        };
        match nearest {
            None => futures::future::ready(Ok(())).boxed(),
            Some((dir, _)) => {
                let worker = Arc::clone(self);
                async move { worker.make_now((id, dir)).await }.boxed()
            }
        }
    }

    /// Sees to it that the storage has a directory, if it is to have it.
    pub(crate) async fn settle(self: &Arc<Self>, id: MountId, path: &ObjectPath) -> Result<()> {
        match self.makes.is_empty() {
            true => Ok(()),
            false => self.make_now((id, path.clone())).await,
        }
    }

    /// Keeps directories from being put off at a place or below it, for as long as what is returned
    /// lives, and sees to it that the storage has those that were.
    pub(crate) async fn settle_below(
        self: &Arc<Self>,
        id: MountId,
        path: &ObjectPath,
    ) -> Result<Held<'_>> {
        let place = (id, path.clone());
        let held = self.makes.hold(&place);
        let below = futures::stream::iter(self.makes.below(&place));
        let made = below.map(|place| self.make_now(place));
        made.buffer_unordered(WIDTH).try_collect::<()>().await?;
        Ok(held)
    }

    fn make_in_background(self: &Arc<Self>, place: Place) {
        let worker = Arc::downgrade(self);
        let hurried = self.makes.hurried();
        self.runtime.spawn(async move {
            here::rest(hurried, QUIET).await;
            let mut pause = PAUSES.0;
            while let Some(worker) = worker.upgrade() {
                let turn = worker.makes.turn_to_make().await;
                let Err(error) = worker.make_now(place.clone()).await else {
                    return;
                };
                drop(turn);
                worker.makes.failed(&place, &error);
                tracing::warn!("make directory '{}': {error}; again in {pause:?}", place.1);
                drop(worker);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        });
    }

    /// Makes a directory in the storage, if that is still to be done; one at a time does.
    async fn make_now(self: &Arc<Self>, place: Place) -> Result<()> {
        let Some(making) = self.makes.making(&place) else {
            return Ok(());
        };
        let _alone = making.lock().await;
        self.settle_above(place.0, &place.1).await?;
        let Some((mut attributes, mut changes)) = self.makes.wanted(&place) else {
            return Ok(());
        };
        let mut made = self.make_or_find(&place, &attributes).await?;
        loop {
            match self.makes.made(&place, changes) {
                Ok(staged) => {
                    types::crash::point("make.done");
                    if let Some(staged) = staged {
                        self.unnote_make(staged);
                    }
                    return Ok(());
                }
                Err(wanted) => (attributes, changes) = wanted,
            }
            let (id, path) = &place;
            if let Some(meta) = &made {
                let told = self.set_attributes_stored(*id, path, meta, &attributes);
                made = Some(told.await?);
            }
        }
    }

    /// Makes a directory, or gives the one that is there these attributes. None where somebody else
    /// has made something else of its name.
    async fn make_or_find(
        self: &Arc<Self>,
        place: &Place,
        attributes: &FileAttributes,
    ) -> Result<Option<ObjectMeta>> {
        let (id, path) = place;
        let mut made = self.create_dir(*id, path, attributes).await;
        if made
            .as_ref()
            .is_err_and(|e| e.kind() == ErrorKind::NotFound)
        {
            // Somebody else removed what is above.
            self.make_all_above(*id, path).await?;
            made = self.create_dir(*id, path, attributes).await;
        }
        match made {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return made.map(Some),
        }
        let storage = Arc::clone(&self.mount(*id)?.storage);
        let found = storage.stat(path, self.request_deadline()).await?;
        match found.kind {
            NodeKind::Directory => {
                let told = self.set_attributes_stored(*id, path, &found, attributes);
                told.await.map(Some)
            }
            NodeKind::File | NodeKind::Symlink => {
                tracing::warn!("'{path}' was made here as a directory and is a file by now");
                self.forget_path(*id, path);
                Ok(None)
            }
        }
    }

    async fn make_all_above(self: &Arc<Self>, id: MountId, path: &ObjectPath) -> Result<()> {
        let above = std::iter::successors(path.split(), |(dir, _)| dir.split());
        let mut above: Vec<_> = above
            .map(|(dir, _)| dir)
            .filter(|dir| !dir.is_root())
            .collect();
        while let Some(dir) = above.pop() {
            let made = self.create_dir(id, &dir, &FileAttributes::default()).await;
            made.map(drop).or_else(|error| match error.kind() {
                ErrorKind::AlreadyExists => Ok(()),
                _ => Err(error),
            })?;
        }
        Ok(())
    }

    async fn note_make(
        &self,
        place: &Place,
        staged: StagedId,
        attributes: &FileAttributes,
    ) -> Result<()> {
        let Some(staging) = self.staging().map(Arc::clone) else {
            return Ok(());
        };
        let note = notes::of_make(&MakeNote {
            mount: place.0,
            path: place.1.clone(),
            attributes: attributes.clone(),
        });
        let write = move || staging.note_over(staged, Some(&note), Outlives::Kill, None);
        let noted = self.runtime.spawn_blocking(write).await;
        noted.map_err(|_| Error::internal("a directory could not be noted"))?
    }

    fn unnote_make(&self, staged: StagedId) {
        if let Some(staging) = self.staging()
            && let Err(error) = staging.note(staged, None)
        {
            tracing::warn!("a directory that is made is made again at the next start: {error}");
        }
    }

    fn wall_ns(&self) -> i64 {
        let since = self.clock.wall().duration_since(std::time::UNIX_EPOCH);
        i64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(i64::MAX)
    }
}
