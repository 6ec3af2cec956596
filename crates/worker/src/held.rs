// SPDX-License-Identifier: Apache-2.0
//! What of a tree is cached, and dropping it.
//!
//! The cache knows object versions and no paths, so the tree is walked, and the versions that are
//! listed are looked up. An older version that is cached still is nobody's: it is neither counted
//! nor dropped here, and goes when room is wanted. What is written and not stored yet is not of the
//! cache, and stays.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use types::{Error, ObjectRef, Result, VersionId};

use crate::walk::{FOUND_AHEAD, Found, Subtree};
use crate::worker::Worker;

/// Files dropped in one go, away from the runtime's threads.
const DROPPED_AT_ONCE: usize = 256;

/// What of a tree is cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// Files that the storage lists.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files of them that are cached whole.
    pub cached_files: u64,
    /// Bytes of them that are cached.
    pub cached_bytes: u64,
    /// Those of them that are pinned.
    pub pinned_bytes: u64,
}

/// What was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freed {
    /// Files of which anything was cached.
    pub files: u64,
    /// Bytes that were.
    pub bytes: u64,
    /// Bytes that are pinned, and stay.
    pub pinned_bytes: u64,
}

impl Worker {
    /// Returns what of a tree is cached.
    ///
    /// # Errors
    /// What the storage said where a directory could not be listed.
    pub fn held(self: &Arc<Self>, tree: Subtree) -> BoxFuture<'static, Result<Held>> {
        let worker = Arc::clone(self);
        async move {
            let worker = &worker;
            let (sender, mut receiver) = mpsc::channel(FOUND_AHEAD);
            let walking = worker.walk_and_end(&tree, sender);
            // It takes the receiver along: when it fails, the walk ends.
            let counting = async move {
                let mut held = Held::default();
                while let Some(found) = receiver.recv().await {
                    let Some(object) = file_of(found)? else {
                        continue;
                    };
                    held.files += 1;
                    held.bytes += object.size();
                    held.cached_files += u64::from(worker.is_cached_whole(&object));
                    let cached = worker.cached_len(object.id);
                    held.cached_bytes += cached;
                    if worker.is_pinned(object.id) {
                        held.pinned_bytes += cached;
                    }
                }
                Ok(held)
            };
            futures::join!(walking, counting).1
        }
        .boxed()
    }

    /// Drops what is cached of a tree and not pinned. Nothing changes in the storage; files that are open are read
    /// on, from there where they must.
    ///
    /// # Errors
    /// What the storage said where a directory could not be listed; what came before is dropped.
    pub fn free(self: &Arc<Self>, tree: Subtree) -> BoxFuture<'static, Result<Freed>> {
        let worker = Arc::clone(self);
        async move {
            let worker = &worker;
            let (sender, mut receiver) = mpsc::channel(FOUND_AHEAD);
            let walking = worker.walk_and_end(&tree, sender);
            let dropping = async move {
                let mut freed = Freed::default();
                let mut batch = Vec::new();
                while let Some(found) = receiver.recv().await {
                    let Some(object) = file_of(found)? else {
                        continue;
                    };
                    let bytes = worker.cached_len(object.id);
                    if worker.is_pinned(object.id) {
                        freed.pinned_bytes += bytes;
                    } else if bytes > 0 {
                        freed.files += 1;
                        freed.bytes += bytes;
                        batch.push(object.id);
                    }
                    if batch.len() == DROPPED_AT_ONCE {
                        worker.drop_all(std::mem::take(&mut batch)).await?;
                    }
                }
                worker.drop_all(batch).await?;
                Ok(freed)
            };
            futures::join!(walking, dropping).1
        }
        .boxed()
    }

    /// The channel ends with the walk.
    pub(crate) async fn walk_and_end(
        self: &Arc<Self>,
        tree: &Subtree,
        sender: mpsc::Sender<Found>,
    ) {
        self.walk(tree, &sender).await;
    }

    pub(crate) fn cached_len(&self, id: VersionId) -> u64 {
        self.cache.as_ref().map_or(0, |cache| cache.cached_len(id))
    }

    pub(crate) async fn drop_all(self: &Arc<Self>, ids: Vec<VersionId>) -> Result<()> {
        let Some(cache) = self.cache.clone() else {
            return Ok(());
        };
        let dropping = move || ids.into_iter().for_each(|id| cache.remove(id));
        let dropped = self.runtime.spawn_blocking(dropping).await;
        dropped.map_err(|source| Error::internal("drop cached files").with_source(source))
    }
}

/// Returns the file that was found, if it is one.
pub(crate) fn file_of(found: Found) -> Result<Option<ObjectRef>> {
    match found {
        Found::File(object) => Ok(Some(object)),
        Found::Directory => Ok(None),
        Found::Unknown(_, path, error) => Err(error.context(format!("look at '{path}'"))),
    }
}
