// SPDX-License-Identifier: Apache-2.0
//! Asking for a place anew because somebody says that it has changed.
//!
//! The storage is asked for the place itself, and only when it has answered is forgotten what was
//! known of the place and of all below it: a storage that is away costs no knowledge. What lies
//! deeper is asked for when it is looked at, so a sync of a tree of any size costs one listing.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use types::{Deadline, Error, ErrorKind, MountId, NodeKind, ObjectMeta, ObjectPath, Result};

use crate::knowledge::Place;
use crate::meta::Listing;
use crate::worker::Worker;

/// The outcome of a sync.
#[derive(Debug, Clone)]
pub struct Synced {
    /// What the storage said.
    pub found: Found,
    /// Whether what was forgotten stays so when the process ends; not when the disk took no note.
    pub is_remembered: bool,
}

/// What the storage said of a place that was synced.
#[derive(Debug, Clone)]
pub enum Found {
    /// A directory, with its names.
    Directory(ObjectMeta, Listing),
    /// A file or a symbolic link.
    File,
    /// There is nothing.
    Absent {
        /// Whether there was something as far as was known.
        was_known: bool,
    },
}

impl Worker {
    /// Asks the storage for a path. When this returns, whatever was learnt before of the path and of
    /// all below it is not used any more, whatever the freshness of the mount. Dropping the future is
    /// safe, and then nothing is forgotten, or all of it.
    ///
    /// # Errors
    /// What the storage said, or `Timeout`; nothing is forgotten then. Each page of a listing has the
    /// storage's own time.
    pub fn sync(
        self: &Arc<Self>,
        mount: MountId,
        path: ObjectPath,
        deadline: Deadline,
    ) -> BoxFuture<'static, Result<Synced>> {
        let worker = Arc::clone(self);
        async move { worker.sync_now((mount, path), deadline).await }.boxed()
    }

    async fn sync_now(self: Arc<Self>, place: Place, deadline: Deadline) -> Result<Synced> {
        // What is here only would be told as absent.
        self.settle_above(place.0, &place.1).await?;
        self.settle(place.0, &place.1).await?;
        let at = self.moment();
        // All that is asked from here on is younger.
        self.pass(at);
        let was_known = self.is_known(&place);
        let meta = match place.1.is_root() {
            true => Ok(ObjectMeta::implied_directory()),
            false => {
                let asked = self.ask_and_learn(&place, deadline).await;
                asked.map(|learnt| learnt.value)
            }
        };
        let found = match meta {
            Ok(meta) if meta.kind == NodeKind::Directory => {
                let listed = self.list_and_learn(place.clone()).await?;
                Found::Directory(meta, listed.value)
            }
            Ok(_) => Found::File,
            Err(error) if error.kind() == ErrorKind::NotFound => Found::Absent { was_known },
            Err(error) => return Err(error),
        };
        let worker = Arc::clone(&self);
        let forget = move || worker.knowledge.forget_until(&place, at);
        let forgotten = self.runtime.spawn_blocking(forget).await;
        let is_remembered = forgotten
            .map_err(|source| Error::internal("forget what was known").with_source(source))?;
        Ok(Synced {
            found,
            is_remembered,
        })
    }

    fn is_known(&self, place: &Place) -> bool {
        let found = place.1.split().and_then(|(dir, name)| {
            let (_, meta) = self.knowledge.entry(place.0, &dir, &name, |_| true)?;
            meta
        });
        found.is_some()
    }
}
