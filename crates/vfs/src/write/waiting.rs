// SPDX-License-Identifier: Apache-2.0
//! What waits to be stored, as its operator sees it: what it is, what a former run left, what is given
//! up, and what is put aside because its storage leaves the tree.

use std::sync::Arc;
use std::time::Duration;

use types::{Error, ErrorKind, NodeKind, ObjectMeta, ObjectPath, Result, VersionTag};
use worker::{Lasts, Staged};

use super::WriteMode;
use crate::ino::Ino;
use crate::mounts::{MountIndex, Place};
use crate::vfs::Vfs;
use crate::written::{Times, Written};

/// A file that the storage does not have yet.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Its path in the tree; that in the storage where that is not mounted.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// For how long nobody stored it.
    pub age: Duration,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

impl Vfs {
    /// Takes over what a former run promised to store. What has no storage in the tree waits until
    /// that is mounted.
    pub fn recover(self: &Arc<Self>, files: Vec<Staged>) {
        for staged in files {
            self.recover_one(staged);
        }
    }

    /// Takes over what waited for its storage to be mounted.
    pub fn recover_mounted(self: &Arc<Self>) {
        let waiting = std::mem::take(&mut *self.aside.lock());
        self.recover(waiting);
    }

    fn recover_one(self: &Arc<Self>, staged: Staged) {
        let Some(mount) = self.mount_table().with_id(staged.note.mount) else {
            tracing::error!(
                "'{}' is not stored yet and its storage is not mounted: mount it again",
                staged.note.path
            );
            self.aside.lock().push(staged);
            return;
        };
        let Staged { note, file } = staged;
        let place = Place {
            mount: Some(mount),
            path: note.path,
        };
        let tag = VersionTag {
            etag: None,
            mtime_ns: note.mtime_ns,
            size: file.len(),
        };
        let meta = ObjectMeta {
            kind: NodeKind::File,
            tag,
            owner: Some(note.owner),
            extras: None,
        };
        let times = Times::all(note.mtime_ns);
        let written = Written::new(file, note.base, note.owner, times, note.expect);
        written.attempts.begun_before(note.attempts);
        written.change(|state| {
            (state.changes, state.noted) = (1, 1);
            state.xattrs = note.xattrs;
        });
        let node = self.namespace.insert(self.new_number(&place), place, meta);
        node.cell.set(written);
        self.begin_staged(&node);
        self.queue.push(node.ino);
        self.unbind(self.namespace.forget(node.ino, 1));
    }

    /// Returns what the storages do not have yet.
    pub fn waiting(&self) -> Vec<Waiting> {
        let listed = self.queue.list().into_iter();
        let waiting = listed.filter_map(|(ino, error)| {
            let node = self.node(ino).ok()?;
            let written = node.cell.written()?;
            Some(Waiting {
                path: self.tree_path(&node.place),
                bytes: written.file.len(),
                age: self.age(written.state().times.changed),
                error,
            })
        });
        let aside = self.aside.lock();
        let aside = aside.iter().map(|staged| Waiting {
            path: staged.note.path.to_string(),
            bytes: staged.file.len(),
            age: self.age(staged.note.mtime_ns),
            error: Some("its storage is not mounted: mount it again".to_owned()),
        });
        waiting.chain(self.waiting_dirs()).chain(aside).collect()
    }

    /// Returns the directories that the storages do not have yet.
    fn waiting_dirs(&self) -> Vec<Waiting> {
        let waiting = self.worker.unmade().into_iter().map(|unmade| {
            let mount = self.mount_table().with_id(unmade.mount);
            let path = match mount {
                Some(_) => self.tree_path(&Place {
                    mount,
                    path: unmade.path,
                }),
                None => unmade.path.to_string(),
            };
            let not_mounted = || "its storage is not mounted: mount it again".to_owned();
            Waiting {
                path: path + "/",
                bytes: 0,
                age: self.age(unmade.since_ns),
                error: unmade
                    .error
                    .filter(|_| mount.is_some())
                    .or_else(|| mount.is_none().then(not_mounted)),
            }
        });
        waiting.collect()
    }

    /// Sees to it that what was scratch until now is stored, where that is wanted now.
    pub(crate) fn queue_what_waits(&self, mount: MountIndex) {
        for ino in self.bindings.here_below(mount, &ObjectPath::root()) {
            let Ok(node) = self.node(ino) else { continue };
            let mode = self.write_mode(&node).map(|(_, mode)| mode);
            let is_wanted = matches!(mode, Ok(WriteMode::Through | WriteMode::Back));
            let is_left = |written: &Arc<Written>| written.is_dirty() && !written.has_writer();
            // Who has it open closes it.
            if is_wanted && node.cell.written().is_some_and(is_left) {
                self.queue.push(ino);
            }
        }
    }

    fn age(&self, since_ns: i64) -> Duration {
        let age_ns = self.now_ns().saturating_sub(since_ns);
        Duration::from_nanos(age_ns.max(0).unsigned_abs())
    }

    /// Makes durable on the local disk what the storages do not have yet, for the next start to
    /// store. Returns how many files wait.
    pub async fn seal_waiting(self: &Arc<Self>) -> usize {
        let waiting = self.queue.list();
        for (ino, _) in &waiting {
            self.seal_if_waiting(*ino).await;
        }
        self.harden_waiting().await;
        waiting.len() + self.worker.unmade().len()
    }

    /// Makes what is noted outlive power cuts, all at once.
    async fn harden_waiting(&self) {
        if let Err(error) = self.worker.harden().await {
            tracing::error!("keep what is not stored yet over a power cut: {error}");
        }
    }

    async fn seal_if_waiting(self: &Arc<Self>, ino: Ino) -> Option<Arc<Written>> {
        let written = Arc::clone(self.node(ino).ok()?.cell.written()?);
        let lasts = Lasts::OverKills;
        if written.lacks(lasts)
            && let Err(error) = self.seal(ino, &written, lasts).await
        {
            tracing::error!("keep what is not stored yet: {error}");
        }
        Some(written)
    }

    /// Resolves when the storages have all that was closed or synced before.
    pub async fn all_stored(&self) {
        futures::join!(self.queue.empty(), self.worker.all_made());
    }

    /// Gives up what a storage does not have of a file: what it has shows again. Who has the file
    /// open keeps what was written. Returns how many bytes the file had.
    ///
    /// # Errors
    /// `NotFound` when no such file waits.
    pub async fn drop_waiting(self: &Arc<Self>, path: &ObjectPath) -> Result<u64> {
        let wanted = format!("/{path}");
        for unmade in self.worker.unmade() {
            let mount = self.mount_table().with_id(unmade.mount);
            let path = unmade.path.clone();
            if mount.is_some() && self.tree_path(&Place { mount, path }) == wanted {
                let place = (unmade.mount, &unmade.path);
                self.worker.drop_make(place.0, place.1).await?;
                tracing::warn!("gave up making directory '{wanted}', as asked for");
                return Ok(0);
            }
        }
        let is_it = |ino: &Ino| {
            let node = self.node(*ino);
            node.is_ok_and(|node| self.tree_path(&node.place) == wanted)
        };
        let waiting = self.queue.list().into_iter().map(|(ino, _)| ino);
        let mut found = waiting.filter_map(|ino| {
            let written = self.node(ino).ok()?.cell.written().map(Arc::clone)?;
            is_it(&ino).then_some((ino, written))
        });
        let Some((ino, written)) = found.next() else {
            let message = format!("'{wanted}' does not wait to be stored");
            return Err(Error::new(ErrorKind::NotFound, message));
        };
        let _alone = written.alone().await;
        let node = self.node(ino)?;
        let _sealing = written.sealing.lock().await;
        written.change(|state| (state.is_named, state.stored) = (false, state.changes));
        self.unnote(&written);
        self.let_go_of(ino, &node.place);
        tracing::warn!("gave up what was not stored of '{wanted}', as asked for");
        Ok(written.file.len())
    }

    fn let_go_of(self: &Arc<Self>, ino: Ino, place: &Place) {
        if let Some(mount) = place.mount {
            self.worker
                .forget_path(self.storage_of(mount).0, &place.path);
        }
        self.bindings.remove(place, ino);
        self.queue.give_up(ino);
        self.settle(ino);
    }

    /// Returns the files of a mount that its storage does not have yet, also those that are being
    /// written.
    fn unstored(&self, mount: MountIndex) -> Vec<Ino> {
        let mut unstored = self.bindings.here_below(mount, &ObjectPath::root());
        unstored.retain(|ino| {
            let node = self.node(*ino);
            node.is_ok_and(|node| {
                let written = node.cell.written();
                let is_stored_ever = !matches!(self.write_mode(&node), Ok((_, WriteMode::Local)));
                is_stored_ever && written.is_some_and(|written| written.is_dirty())
            })
        });
        unstored
    }

    /// Returns how many files of a mount its storage does not have yet.
    pub fn unstored_of(&self, at: &ObjectPath) -> usize {
        let Some(mount) = self.mount_table().at(at) else {
            return 0;
        };
        let id = self.mount_table().spec(mount).id;
        let unmade = self.worker.unmade().into_iter();
        self.unstored(mount).len() + unmade.filter(|unmade| unmade.mount == id).count()
    }

    /// Makes durable on the local disk what a storage does not have yet, for when it is mounted
    /// again, and takes it out of the tree.
    pub async fn put_aside(self: &Arc<Self>, at: &ObjectPath) {
        let Some(mount) = self.mount_table().at(at) else {
            return;
        };
        for ino in self.unstored(mount) {
            let Some(written) = self.seal_if_waiting(ino).await else {
                continue;
            };
            let _alone = written.alone().await;
            let _sealing = written.sealing.lock().await;
            let Ok(node) = self.node(ino) else { continue };
            let Ok(note) = self.note_of(&node, &written) else {
                continue;
            };
            written.change(|state| (state.is_named, state.stored) = (false, state.changes));
            if written.is_promised_no_more() {
                let file = Arc::clone(&written.file);
                self.aside.lock().push(Staged { note, file });
            }
            self.let_go_of(ino, &node.place);
        }
        self.harden_waiting().await;
    }

    pub(crate) fn tree_path(&self, place: &Place) -> String {
        let at = place
            .mount
            .map(|mount| self.mount_table().spec(mount).at.clone());
        match at {
            Some(at) if !at.is_root() => format!("/{at}/{}", place.path),
            _ => format!("/{}", place.path),
        }
    }
}
