// SPDX-License-Identifier: Apache-2.0
//! Looking at storages anew on an operator's word: the daemon's side of `forebay sync`.
//!
//! The tree asks the storages and forgets, the kernel is told to ask again, and only then is the
//! sync answered: what was changed before it is seen after it.

use std::sync::Arc;
use std::time::Duration;

use gateway::wire;
use tokio::sync::Semaphore;
use types::{Error, ErrorKind, ObjectPath, Result};
use vfs::{SyncedPlace, Vfs};
use worker::Found;

use crate::config;

/// Syncs at the same time; each holds a listing in memory.
const AT_ONCE: usize = 4;

/// Carries syncs out.
pub(crate) struct Syncs {
    vfs: Arc<Vfs>,
    session: Arc<fuse::Session>,
    turns: Semaphore,
}

impl Syncs {
    /// Makes the syncs of a tree.
    pub(crate) fn new(vfs: Arc<Vfs>, session: Arc<fuse::Session>) -> Arc<Syncs> {
        Arc::new(Syncs {
            vfs,
            session,
            turns: Semaphore::new(AT_ONCE),
        })
    }

    /// Syncs a path of the tree. Fails when no storage could be asked; where some could, the answer
    /// tells which not.
    pub(crate) async fn sync(self: Arc<Self>, request: wire::Sync) -> Result<wire::Synced> {
        let path = config::place(&request.path);
        let path = path.map_err(|why| Error::new(ErrorKind::Invalid, why))?;
        let path = ObjectPath::parse(path.as_bytes())?;
        if let Some(seconds) = request.wait_seconds {
            self.wait_until_stored(Duration::from_secs(seconds)).await?;
        }
        let closed = |source| Error::internal("wait for a turn").with_source(source);
        let _turn = self.turns.acquire().await.map_err(closed)?;
        let done = self.vfs.sync(&path).await?;
        let failed = |place: &SyncedPlace| place.outcome.as_ref().err().cloned();
        if let Some(error) = done.places.iter().find_map(failed)
            && done.places.iter().all(|place| place.outcome.is_err())
        {
            return Err(error.context(format!("sync '/{path}'; what was known stays")));
        }
        let session = Arc::clone(&self.session);
        let told = tokio::task::spawn_blocking(move || session.invalidate(&done.outdated));
        told.await
            .map_err(|source| Error::internal("tell the kernel").with_source(source))??;
        tracing::info!("synced '/{path}'");
        Ok(answer(&done.places))
    }
}

impl Syncs {
    /// Gives up what a storage does not have of a file, and shows what it has.
    pub(crate) async fn drop_staged(
        self: Arc<Self>,
        request: wire::DropStaged,
    ) -> Result<wire::DroppedStaged> {
        let path = config::place(&request.path);
        let path = path.map_err(|why| Error::new(ErrorKind::Invalid, why))?;
        let bytes = self
            .vfs
            .drop_waiting(&ObjectPath::parse(path.as_bytes())?)
            .await?;
        let path = format!("/{path}");
        let mut notices = Vec::new();
        let anew = wire::Sync {
            path: path.clone(),
            wait_seconds: None,
        };
        if let Err(error) = Arc::clone(&self).sync(anew).await {
            notices.push(format!("programs may see it for a moment: {error}"));
        }
        Ok(wire::DroppedStaged {
            path,
            bytes,
            notices,
        })
    }

    async fn wait_until_stored(&self, patience: Duration) -> Result<()> {
        if tokio::time::timeout(patience, self.vfs.all_stored())
            .await
            .is_ok()
        {
            return Ok(());
        }
        let waiting = self.vfs.waiting();
        let failing = waiting.iter().find_map(|file| {
            let error = file.error.as_ref()?;
            Some(format!("'{}': {error}", file.path))
        });
        let why = failing.unwrap_or_else(|| "the storages are slow".to_owned());
        let message = format!(
            "{} files are not stored yet; they stay on the local disk and are tried again: {why}",
            waiting.len()
        );
        Err(Error::new(ErrorKind::Timeout, message))
    }
}

fn answer(places: &[SyncedPlace]) -> wire::Synced {
    let mut synced = wire::Synced::default();
    for place in places {
        let mut shown = wire::SyncedPlace {
            path: format!("/{}", place.path),
            uri: place.uri.clone(),
            ..wire::SyncedPlace::default()
        };
        match &place.outcome {
            Ok(outcome) => {
                let found = match &outcome.found {
                    Found::Directory(_, listing) => {
                        shown.names = Some(listing.len() as u64);
                        "directory"
                    }
                    Found::File => "file",
                    Found::Absent { .. } => "absent",
                };
                shown.found = Some(found.to_owned());
                if !outcome.is_remembered {
                    let why = "the cache directory could not be written";
                    let path = &shown.path;
                    let notice = format!("'{path}' is synced until the daemon ends: {why}");
                    tracing::warn!("{notice}");
                    synced.notices.push(notice);
                }
            }
            Err(error) => {
                tracing::warn!("sync '{}': {error}", shown.path);
                shown.error = Some(error.to_string());
            }
        }
        synced.places.push(shown);
    }
    synced
}
