// SPDX-License-Identifier: Apache-2.0
//! All files of a tree, from what is known of names or from the storage.
//!
//! What loads, frees and measures a tree walks it with this, and what goes ahead of its readers. A directory that the storage does not
//! list is found too, with the reason, and so is one of which only old knowledge is left: who counts
//! against the storage must not take silence for emptiness. What other mounts hide is left out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc::Sender;
use types::{
    Error, ErrorKind, Freshness, MountId, NodeKind, ObjectMeta, ObjectPath, ObjectRef, Result,
};

use crate::meta::Listing;
use crate::worker::Worker;

/// Directories listed at a time for who loads, frees or measures a tree.
const LISTINGS: usize = 4;

/// Files known ahead of who takes them.
pub(crate) const FOUND_AHEAD: usize = 1024;

/// A file or a directory of a storage, with all below it that shows there in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subtree {
    /// The storage.
    pub mount: MountId,
    /// The path in it.
    pub path: ObjectPath,
    /// How old what is known of its names may be.
    pub freshness: Freshness,
    /// Paths of the same storage that do not show, because something else is mounted there.
    pub hidden: Vec<ObjectPath>,
}

impl Subtree {
    /// Returns a directory and all below it.
    pub(crate) fn all_below((mount, path): &(MountId, ObjectPath), freshness: Freshness) -> Self {
        Subtree {
            mount: *mount,
            path: path.clone(),
            freshness,
            hidden: Vec::new(),
        }
    }
}

/// Ages are told by the clock of the wall, and passed time by another one.
const CLOCKS_DIFFER: Duration = Duration::from_millis(500);

/// Something that a walk came upon.
#[derive(Debug)]
pub(crate) enum Found {
    File(ObjectRef),
    /// A directory that was listed.
    Directory,
    /// What could not be asked for, or is not there.
    Unknown(MountId, ObjectPath, Error),
}

impl Worker {
    /// Returns what a place is, as the storage says it or as it is freshly known.
    ///
    /// # Errors
    /// `NotFound` only if the storage said so; else what it said, or `Timeout`.
    pub async fn look_at(self: &Arc<Self>, tree: &Subtree) -> Result<ObjectMeta> {
        let began = self.clock.now();
        let deadline = self.clock.deadline(self.settings.background_deadline);
        let asked = self.stat(tree.mount, tree.path.clone(), tree.freshness, deadline);
        let learnt = asked.await?;
        self.check_age(tree, learnt.age, began)?;
        Ok(learnt.value)
    }

    /// Sends what is in a tree, until nobody takes it.
    pub(crate) async fn walk(self: &Arc<Self>, tree: &Subtree, sender: &Sender<Found>) {
        let root = match self.look_at(tree).await {
            Ok(meta) => meta,
            Err(error) => {
                // Whoever takes it has gone: there is nobody to tell.
                sender
                    .send(Found::Unknown(tree.mount, tree.path.clone(), error))
                    .await
                    .ok();
                return;
            }
        };
        if root.kind != NodeKind::Directory {
            if root.kind == NodeKind::File {
                let object = ObjectRef::new(tree.mount, tree.path.clone(), root.tag);
                sender.send(Found::File(object)).await.ok();
            }
            return;
        }
        self.walk_directory(tree, LISTINGS, sender).await;
    }

    /// Sends what is in a tree of which it is known that it is a directory, in the order of names as far
    /// as that goes with so many listings at a time.
    pub(crate) async fn walk_directory(
        self: &Arc<Self>,
        tree: &Subtree,
        width: usize,
        sender: &Sender<Found>,
    ) {
        let mut dirs = vec![tree.path.clone()];
        let mut listings = FuturesUnordered::new();
        loop {
            while listings.len() < width
                && let Some(dir) = dirs.pop()
            {
                listings.push(async move { (dir.clone(), self.list_of_tree(tree, dir).await) });
            }
            let Some((dir, listed)) = listings.next().await else {
                return;
            };
            let found = match listed {
                Ok(listing) => {
                    self.take_listing(tree, (&dir, &listing), &mut dirs, sender)
                        .await
                }
                Err(error) => sender
                    .send(Found::Unknown(tree.mount, dir, error))
                    .await
                    .is_ok(),
            };
            if !found {
                return;
            }
        }
    }

    /// Sends the files of a listing and keeps its directories; false when nobody takes them.
    async fn take_listing(
        &self,
        tree: &Subtree,
        (dir, listing): (&ObjectPath, &Listing),
        dirs: &mut Vec<ObjectPath>,
        sender: &Sender<Found>,
    ) -> bool {
        if sender.send(Found::Directory).await.is_err() {
            return false;
        }
        let dirs_before = dirs.len();
        for entry in listing.iter() {
            let path = dir.join(&entry.name);
            if tree.hidden.contains(&path) {
                continue;
            }
            match entry.meta.kind {
                NodeKind::Directory => dirs.push(path),
                NodeKind::File => {
                    let object = ObjectRef::new(tree.mount, path, entry.meta.tag.clone());
                    if sender.send(Found::File(object)).await.is_err() {
                        return false;
                    }
                }
                NodeKind::Symlink => {}
            }
        }
        // The last one is taken first.
        dirs[dirs_before..].reverse();
        true
    }

    async fn list_of_tree(self: &Arc<Self>, tree: &Subtree, dir: ObjectPath) -> Result<Listing> {
        let began = self.clock.now();
        let deadline = self.clock.deadline(self.settings.background_deadline);
        let listed = self.list_unnoticed(tree.mount, dir, tree.freshness, deadline);
        let learnt = listed.await?;
        self.check_age(tree, learnt.age, began)?;
        Ok(learnt.value)
    }

    /// Refuses old knowledge that stood in for a storage that does not answer. What was asked for
    /// since `began` is none, however long the answer took.
    fn check_age(&self, tree: &Subtree, age: Duration, began: Instant) -> Result<()> {
        let asked_for = self.clock.now().saturating_duration_since(began) + CLOCKS_DIFFER;
        if age <= asked_for || tree.freshness.left(age).is_some() {
            return Ok(());
        }
        let message = format!(
            "the storage does not answer, and what is known is {} s old",
            age.as_secs()
        );
        Err(Error::new(ErrorKind::Unavailable, message))
    }
}
