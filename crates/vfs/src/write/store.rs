// SPDX-License-Identifier: Apache-2.0
//! From the staged file to the storage.
//!
//! `flush` (each close) and `fsync` keep the promise of the mount's mode. What is left is stored in
//! the background ([`Vfs::store_queued`], which the daemon runs): all of `back`, and what a failed
//! close left in `through`. A file is stored by one at a time, so its versions arrive in order;
//! files are stored independently of each other.
//!
//! A failure keeps the bytes and is tried again after a pause that doubles, for as long as the
//! daemon lives; in `back` also after its next start.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use types::{Error, ErrorKind, Name, NodeKind, ObjectMeta, Result, VersionTag};
use worker::{Expect, FileNote, Persist, Staged, StagedId};

use super::WriteMode;
use crate::handles::HandleId;
use crate::ino::Ino;
use crate::mounts::Place;
use crate::namespace::Node;
use crate::reply::Reply;
use crate::vfs::Vfs;
use crate::written::{Times, Written};

/// Files stored in the background at a time.
const WIDTH: usize = 8;

/// Pauses before another attempt, from the first to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A file that the storage does not have yet.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Its path in the tree.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// For how long nobody stored it.
    pub age: Duration,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

/// Files that wait to be stored.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Line>,
    pushed: Notify,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Line {
    order: VecDeque<Ino>,
    /// Everything that waits or is under way, with its failures.
    all: HashMap<Ino, Option<Failure>>,
}

#[derive(Debug, Clone)]
struct Failure {
    message: String,
    pause: Duration,
}

impl Queue {
    /// Adds a file unless it waits already.
    pub(crate) fn push(&self, ino: Ino) {
        let mut line = self.waiting.lock();
        let line = &mut *line;
        if let Entry::Vacant(slot) = line.all.entry(ino) {
            slot.insert(None);
            line.order.push_back(ino);
            self.pushed.notify_one();
        }
    }

    fn pop(&self) -> Option<Ino> {
        self.waiting.lock().order.pop_front()
    }

    /// Takes a file off, or notes why it has to wait on and says for how long.
    fn done(&self, ino: Ino, result: &Result<()>) -> Option<Duration> {
        let mut line = self.waiting.lock();
        let Err(error) = result else {
            line.all.remove(&ino);
            if line.all.is_empty() {
                self.emptied.notify_waiters();
            }
            return None;
        };
        let before = line.all.get(&ino).cloned().flatten();
        let pause = before.map_or(PAUSES.0, |failure| (failure.pause * 2).min(PAUSES.1));
        let message = error.to_string();
        line.all.insert(ino, Some(Failure { message, pause }));
        Some(pause)
    }

    fn again(&self, ino: Ino) {
        self.waiting.lock().order.push_back(ino);
        self.pushed.notify_one();
    }

    fn list(&self) -> Vec<(Ino, Option<String>)> {
        let line = self.waiting.lock();
        let all = line.all.iter();
        all.map(|(ino, failure)| (*ino, failure.as_ref().map(|f| f.message.clone())))
            .collect()
    }
}

impl Vfs {
    /// Keeps the promise of a close: see [`super`].
    ///
    /// # Errors
    /// What kept the file from being stored; its bytes are kept. `Stale` when somebody else changed
    /// the object, with the name under which the bytes were stored instead.
    pub fn flush(self: &Arc<Self>, handle: HandleId) -> Reply<()> {
        match self.files.get(handle) {
            Ok(file) if file.is_writer => self.promise(file.ino),
            Ok(_) => Reply::Ready(Ok(())),
            Err(error) => Reply::Ready(Err(error)),
        }
    }

    /// Keeps the promise of an `fsync`, also through a handle that only reads.
    ///
    /// # Errors
    /// As [`Vfs::flush`].
    pub fn fsync(self: &Arc<Self>, handle: HandleId) -> Reply<()> {
        match self.files.get(handle) {
            Ok(file) => self.promise(file.ino),
            Err(error) => Reply::Ready(Err(error)),
        }
    }

    fn promise(self: &Arc<Self>, ino: Ino) -> Reply<()> {
        let dirty = self.node(ino).ok().and_then(|node| {
            let written = Arc::clone(node.cell.written()?);
            let mode = self.write_mode(&node).map(|(_, mode)| mode);
            written.is_dirty().then_some((written, mode))
        });
        match dirty {
            None | Some((_, Ok(WriteMode::Local))) => Reply::Ready(Ok(())),
            Some((written, Ok(WriteMode::Back))) if !written.is_unsealed() => Reply::Ready(Ok(())),
            Some((written, Ok(WriteMode::Back))) => {
                let vfs = Arc::clone(self);
                Reply::Pending(async move { vfs.seal(ino, &written).await }.boxed())
            }
            Some((_, Ok(_))) => {
                let vfs = Arc::clone(self);
                Reply::Pending(async move { vfs.store(ino).await }.boxed())
            }
            Some((_, Err(error))) => Reply::Ready(Err(error)),
        }
    }

    /// Makes a staged file durable on the local disk, to be stored in the background.
    pub(super) async fn seal(self: &Arc<Self>, ino: Ino, written: &Arc<Written>) -> Result<()> {
        let alone = written.sealing.lock().await;
        let node = self.node(ino)?;
        // It may have been stored or removed meanwhile.
        if written.is_unsealed() {
            let sealed = self.seal_held(&node, written, None).await;
            sealed.inspect_err(|error| self.errors.note(ino, error))?;
        }
        drop(alone);
        self.queue.push(ino);
        Ok(())
    }

    /// Does so for a caller who holds `sealing`. The note of `displaced` goes in the same moment.
    pub(super) async fn seal_held(
        &self,
        node: &Node,
        written: &Written,
        displaced: Option<StagedId>,
    ) -> Result<()> {
        let changes = written.state().changes;
        let note = self.note_of(node, written)?;
        let file = Arc::clone(&written.file);
        self.worker.seal(file, note, displaced).await?;
        written.change(|state| state.sealed = state.sealed.max(changes));
        Ok(())
    }

    /// Describes a staged file so that a later start can store it.
    fn note_of(&self, node: &Node, written: &Written) -> Result<FileNote> {
        let mount = node.place.mount;
        let mount = mount.ok_or_else(|| Error::internal("a file outside all mounts"))?;
        let state = written.state();
        Ok(FileNote {
            mount: self.storage_of(mount).0,
            path: node.place.path.clone(),
            base: written.base.clone(),
            expect: state.expect,
            owner: state.owner,
            mtime_ns: state.times.modified,
            extents: written.file.extents(),
        })
    }

    /// Stores the staged file of an inode, if the storage lacks some of it.
    pub(super) async fn store(self: &Arc<Self>, ino: Ino) -> Result<()> {
        let Some(written) = self.node(ino)?.cell.written().map(Arc::clone) else {
            return Ok(());
        };
        let _alone = written.gate.write().await;
        self.store_held(ino, &written).await
    }

    /// Does so for a caller who holds the gate.
    pub(super) async fn store_held(
        self: &Arc<Self>,
        ino: Ino,
        written: &Arc<Written>,
    ) -> Result<()> {
        if written.state().is_lost {
            let message = "what is written here has no place: somebody else changed the file";
            return Err(Error::new(ErrorKind::Stale, message));
        }
        if !written.is_dirty() {
            return Ok(());
        }
        // Looked up with the gate held: a rename takes it too.
        let node = self.node(ino)?;
        let (mount, _) = self.write_mode(&node)?;
        let state = written.state();
        let work = Persist {
            mount: self.storage_of(mount).0,
            path: node.place.path.clone(),
            file: Arc::clone(&written.file),
            base: written.base.clone(),
            expect: state.expect,
            attributes: written.file_attributes(),
        };
        let stored = match self.fill_held(&node, written).await {
            Ok(()) => self.persist(&work).await,
            Err(error) => Err(error),
        };
        match stored {
            Ok(meta) => {
                self.stored(&node, written, state.changes, meta).await;
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::Stale | ErrorKind::AlreadyExists) => {
                let error = self.keep_copy(&node, written, work, error).await;
                self.errors.note(ino, &error);
                Err(error)
            }
            Err(error) => {
                self.errors.note(ino, &error);
                Err(error)
            }
        }
    }

    /// Fetches what still shows through of the old version, which is gone when the file is stored.
    async fn fill_held(&self, node: &Node, written: &Written) -> Result<()> {
        let Some(base) = written.base.as_ref().filter(|_| !written.file.is_whole()) else {
            return Ok(());
        };
        self.worker.fill_whole(&written.file, base).await?;
        let _alone = written.sealing.lock().await;
        match written.state().sealed {
            0 => Ok(()),
            // A start that finds the file stored must not need the old version either.
            _ => self.seal_held(node, written, None).await,
        }
    }

    /// Stores a file, or finds that it is: a process that dies when the storage has answered
    /// leaves a note of what is done, and an answer may get lost.
    async fn persist(&self, work: &Persist) -> Result<ObjectMeta> {
        match self.worker.persist(work).await {
            Err(error) if matches!(error.kind(), ErrorKind::Stale | ErrorKind::AlreadyExists) => {
                let found = self.worker.find_stored(work).await;
                found.ok().flatten().ok_or(error)
            }
            stored => stored,
        }
    }

    async fn stored(&self, node: &Node, written: &Written, changes: u64, meta: ObjectMeta) {
        let _alone = written.sealing.lock().await;
        let is_sealed_since = written.change(|state| {
            state.stored = changes;
            state.expect = Expect::Version(meta.tag.clone());
            state.sealed > changes
        });
        self.namespace.change(node.ino, |node| node.meta = meta);
        if !is_sealed_since {
            return self.unnote(written);
        }
        // The newer promise is one over what is stored now.
        if let Err(error) = self.seal_held(node, written, None).await {
            self.errors.note(node.ino, &error);
        }
    }

    /// Forgets the note of a file that is stored or removed.
    pub(super) fn unnote(&self, written: &Written) {
        if written.change(|state| std::mem::take(&mut state.sealed)) == 0 {
            return;
        }
        if let Err(error) = self.worker.unnote(written.file.id()) {
            tracing::warn!("a stored file is stored again at the next start: {error}");
        }
    }

    /// Stores what was written under another name: the object is not what was opened any more.
    async fn keep_copy(
        self: &Arc<Self>,
        node: &Node,
        written: &Arc<Written>,
        mut work: Persist,
        error: Error,
    ) -> Error {
        let Some((dir, name)) = node.place.path.split() else {
            return error;
        };
        let name = conflict_name(&name, node.ino, self.now_ns());
        work.path = dir.join(&name);
        work.expect = Expect::Absent;
        match self.worker.persist(&work).await {
            Ok(_) => {
                self.worker.forget_path(work.mount, &node.place.path);
                self.bindings.remove(&node.place, node.ino);
                written.change(|state| {
                    state.stored = state.changes;
                    state.is_lost = true;
                    state.is_named = false;
                });
                self.unnote(written);
                let message = format!(
                    "'{}' was changed by somebody else since it was opened: what was written here is in '{}'",
                    node.place.path, work.path
                );
                Error::new(ErrorKind::Stale, message).with_source(error)
            }
            Err(failed) => error.context(format!("keep a copy as '{}': {failed}", work.path)),
        }
    }

    /// Stores what waits, for ever. The caller runs it beside the doors.
    pub async fn store_queued(self: Arc<Self>) {
        let turns = Arc::new(Semaphore::new(WIDTH));
        let mut running = FuturesUnordered::new();
        loop {
            while let Some(ino) = self.queue.pop() {
                let (vfs, turns) = (Arc::clone(&self), Arc::clone(&turns));
                running.push(async move { vfs.store_waiting(ino, &turns).await }.boxed());
            }
            tokio::select! {
                () = self.queue.pushed.notified() => {}
                Some(()) = running.next() => {}
            }
        }
    }

    async fn store_waiting(self: Arc<Self>, ino: Ino, turns: &Semaphore) {
        let turn = turns.acquire().await;
        let stored = match self.store(ino).await {
            // Its bytes lie in the copy; nothing is left to do.
            Err(error) if error.kind() == ErrorKind::Stale && !self.is_dirty(ino) => {
                tracing::warn!("{error}");
                Ok(())
            }
            Err(error) if self.node(ino).is_err() => {
                tracing::warn!("store a file that is gone: {error}");
                Ok(())
            }
            other => other,
        };
        // Who pauses lets others go on.
        drop(turn);
        match self.queue.done(ino, &stored) {
            None => self.settle(ino),
            Some(pause) => {
                tracing::warn!("store inode {}: {:?}; again in {pause:?}", ino.0, stored);
                tokio::time::sleep(pause).await;
                self.queue.again(ino);
            }
        }
    }

    fn is_dirty(&self, ino: Ino) -> bool {
        let node = self.node(ino);
        node.is_ok_and(|node| {
            node.cell
                .written()
                .is_some_and(|written| written.is_dirty())
        })
    }

    /// Takes over what a former run promised to store. Returns what cannot be stored now.
    pub fn recover(self: &Arc<Self>, files: Vec<Staged>) -> Vec<Error> {
        let failed = files.into_iter().map(|staged| self.recover_one(staged));
        failed.filter_map(Result::err).collect()
    }

    fn recover_one(self: &Arc<Self>, staged: Staged) -> Result<()> {
        let Staged { note, file } = staged;
        let mount = self.mount_table().with_id(note.mount).ok_or_else(|| {
            // Its note stays: kept from removing the file when it is dropped.
            let message = format!(
                "'{}' is not stored yet and its storage is not mounted: mount it again",
                note.path
            );
            Error::new(ErrorKind::Unavailable, message)
        })?;
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
        };
        let times = Times::all(note.mtime_ns);
        let written = Written::new(file, note.base, note.owner, times, note.expect);
        written.change(|state| (state.changes, state.sealed) = (1, 1));
        let node = self.namespace.insert(self.new_number(&place), place, meta);
        node.cell.set(written);
        self.begin_staged(&node);
        self.queue.push(node.ino);
        self.unbind(self.namespace.forget(node.ino, 1));
        Ok(())
    }

    /// Returns what the storages do not have yet.
    pub fn waiting(&self) -> Vec<Waiting> {
        let now_ns = self.now_ns();
        let listed = self.queue.list().into_iter();
        let waiting = listed.filter_map(|(ino, error)| {
            let node = self.node(ino).ok()?;
            let written = node.cell.written()?;
            let since = now_ns.saturating_sub(written.state().times.changed);
            Some(Waiting {
                path: self.tree_path(&node.place),
                bytes: written.file.len(),
                age: Duration::from_nanos(since.max(0).unsigned_abs()),
                error,
            })
        });
        waiting.collect()
    }

    /// Makes durable on the local disk what the storages do not have yet, for the next start to
    /// store. Returns how many files wait.
    pub async fn seal_waiting(self: &Arc<Self>) -> usize {
        let waiting = self.queue.list();
        for (ino, _) in &waiting {
            let Some(written) = self
                .node(*ino)
                .ok()
                .and_then(|node| node.cell.written().cloned())
            else {
                continue;
            };
            if written.is_unsealed()
                && let Err(error) = self.seal(*ino, &written).await
            {
                tracing::error!("keep what is not stored yet: {error}");
            }
        }
        waiting.len()
    }

    /// Resolves when the storages have all that was closed or synced before.
    pub async fn all_stored(&self) {
        loop {
            let emptied = self.queue.emptied.notified();
            if self.queue.waiting.lock().all.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    fn tree_path(&self, place: &Place) -> String {
        let at = place
            .mount
            .map(|mount| self.mount_table().spec(mount).at.clone());
        match at {
            Some(at) if !at.is_root() => format!("/{at}/{}", place.path),
            _ => format!("/{}", place.path),
        }
    }
}

/// Makes a name for bytes that lost their place: the old one, and what makes it new.
fn conflict_name(name: &Name, ino: Ino, now_ns: i64) -> Name {
    let suffix = format!(
        ".forebay-conflict-{}-{:x}",
        now_ns / 1_000_000_000,
        ino.0 & 0xffff
    );
    let keep = name.as_bytes().len().min(255 - suffix.len());
    let mut bytes = name.as_bytes()[..keep].to_vec();
    bytes.extend_from_slice(suffix.as_bytes());
    Name::new(&bytes).unwrap_or_else(|_| name.clone())
}
