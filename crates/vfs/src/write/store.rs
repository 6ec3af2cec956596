// SPDX-License-Identifier: Apache-2.0
//! From the staged file to the storage.
//!
//! `flush` (each close) and `fsync` keep the promise of the mount's mode; in `back` a close promises that
//! the file outlives a kill, and a sync that it outlives a power cut, which what was closed does a moment
//! later. What is left is stored in
//! the background ([`Vfs::store_queued`], which the daemon runs): all of `back`, and what a failed
//! close left in `through`. A file is stored by one at a time, so its versions arrive in order;
//! files are stored independently of each other.
//!
//! What a close promised is stored after a moment ([`QUIET`]): a file that is renamed, written on or
//! removed until then, as temporary files are, is sent once or not at all. Who waits for the storage
//! ([`Vfs::all_stored`]) does not wait for that.
//!
//! A failure keeps the bytes and is tried again after a pause that doubles, for as long as the
//! daemon lives; in `back` also after its next start.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use types::{Error, ErrorKind, Name, ObjectMeta, Result};
use worker::{Expect, FileNote, Lasts, Persist, StagedId};

use super::WriteMode;
use crate::handles::HandleId;
use crate::ino::Ino;
use crate::namespace::Node;
use crate::reply::Reply;
use crate::vfs::Vfs;
use crate::written::Written;

/// Files stored in the background at a time.
const WIDTH: usize = 8;

/// Pauses before another attempt, from the first to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How long a file is left alone before it is stored, after the first promise.
const QUIET: Duration = Duration::from_secs(1);

/// How long a file that was closed and not synced may be lost to a power cut.
const HARDENED_AFTER: Duration = Duration::from_secs(1);

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
    /// What is stored at a time to come, in the order of these.
    later: VecDeque<(Instant, Ino)>,
    /// How many wait until nothing does.
    hurrying: usize,
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
        if line.add(ino) {
            line.order.push_back(ino);
            self.pushed.notify_one();
        }
    }

    /// Adds a file that is to be stored from `due` on, unless it waits already.
    fn push_later(&self, ino: Ino, due: Instant) {
        let mut line = self.waiting.lock();
        if line.add(ino) {
            line.put_later(ino, due);
            self.pushed.notify_one();
        }
    }

    /// Takes the next file that is due.
    fn pop(&self, now: Instant) -> Option<Ino> {
        let mut line = self.waiting.lock();
        line.ripen(now);
        line.order.pop_front()
    }

    /// Returns how long it is until a file is due.
    fn rest(&self, now: Instant) -> Duration {
        let line = self.waiting.lock();
        let next = line.later.front();
        next.map_or(Duration::MAX, |(due, _)| due.saturating_duration_since(now))
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

    fn again_later(&self, ino: Ino, due: Instant) {
        self.waiting.lock().put_later(ino, due);
        self.pushed.notify_one();
    }

    /// Takes a file off that nobody wants to be stored any more.
    pub(super) fn give_up(&self, ino: Ino) {
        let mut line = self.waiting.lock();
        line.all.remove(&ino);
        line.order.retain(|waiting| *waiting != ino);
        line.later.retain(|(_, waiting)| *waiting != ino);
        if line.all.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Resolves when nothing waits; until then nothing is put off.
    pub(super) async fn empty(&self) {
        let _hurry = Hurry::begin(self);
        loop {
            let emptied = self.emptied.notified();
            if self.waiting.lock().all.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Returns what waits, with why the last attempt failed.
    pub(super) fn list(&self) -> Vec<(Ino, Option<String>)> {
        let line = self.waiting.lock();
        let all = line.all.iter();
        all.map(|(ino, failure)| (*ino, failure.as_ref().map(|f| f.message.clone())))
            .collect()
    }
}

impl Line {
    /// Takes note of a file; false when it waits already.
    fn add(&mut self, ino: Ino) -> bool {
        match self.all.entry(ino) {
            Entry::Vacant(slot) => {
                slot.insert(None);
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    fn put_later(&mut self, ino: Ino, due: Instant) {
        match self.hurrying {
            0 => self.later.push_back((due, ino)),
            _ => self.order.push_back(ino),
        }
    }

    /// Puts in line what is due.
    fn ripen(&mut self, now: Instant) {
        while let Some((due, ino)) = self.later.front().copied()
            && due <= now
        {
            self.later.pop_front();
            self.order.push_back(ino);
        }
    }
}

/// Somebody waits until nothing is left to store.
struct Hurry<'a>(&'a Queue);

impl<'a> Hurry<'a> {
    fn begin(queue: &'a Queue) -> Self {
        let mut line = queue.waiting.lock();
        line.hurrying += 1;
        let later = std::mem::take(&mut line.later);
        line.order.extend(later.into_iter().map(|(_, ino)| ino));
        queue.pushed.notify_one();
        Hurry(queue)
    }
}

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.waiting.lock().hurrying -= 1;
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
            Ok(file) if file.is_writer => self.promise(file.ino, Lasts::OverKills),
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
            Ok(file) => self.promise(file.ino, Lasts::OverPowerCuts),
            Err(error) => Reply::Ready(Err(error)),
        }
    }

    /// Makes the names in a directory outlive power cuts: those that its storage does not have yet are
    /// in notes.
    ///
    /// # Errors
    /// What the local disk said.
    pub fn fsync_dir(&self) -> Reply<()> {
        Reply::Pending(self.worker.harden())
    }

    fn promise(self: &Arc<Self>, ino: Ino, lasts: Lasts) -> Reply<()> {
        let dirty = self.node(ino).ok().and_then(|node| {
            let written = Arc::clone(node.cell.written()?);
            let mode = self.write_mode(&node).map(|(_, mode)| mode);
            written.is_dirty().then_some((written, mode))
        });
        match dirty {
            None | Some((_, Ok(WriteMode::Local))) => Reply::Ready(Ok(())),
            Some((written, Ok(WriteMode::Back))) if !written.lacks(lasts) => Reply::Ready(Ok(())),
            Some((written, Ok(WriteMode::Back))) => {
                let vfs = Arc::clone(self);
                Reply::Pending(async move { vfs.seal(ino, &written, lasts).await }.boxed())
            }
            Some((_, Ok(_))) => {
                let vfs = Arc::clone(self);
                Reply::Pending(async move { vfs.store(ino).await }.boxed())
            }
            Some((_, Err(error))) => Reply::Ready(Err(error)),
        }
    }

    /// Keeps a staged file on the local disk, to be stored in the background.
    pub(super) async fn seal(
        self: &Arc<Self>,
        ino: Ino,
        written: &Arc<Written>,
        lasts: Lasts,
    ) -> Result<()> {
        let alone = written.sealing.lock().await;
        let node = self.node(ino)?;
        // It may have been stored or removed meanwhile.
        if written.lacks(lasts) {
            let sealed = self.seal_held(&node, written, lasts, None).await;
            sealed.inspect_err(|error| self.errors.note(ino, error))?;
        }
        drop(alone);
        self.queue.push_later(ino, self.clock.now() + QUIET);
        Ok(())
    }

    /// Does so for a caller who holds `sealing`. The note of `displaced` goes in the same moment.
    pub(super) async fn seal_held(
        &self,
        node: &Node,
        written: &Written,
        lasts: Lasts,
        displaced: Option<StagedId>,
    ) -> Result<()> {
        let changes = written.state().changes;
        let note = self.note_of(node, written)?;
        let file = Arc::clone(&written.file);
        let is_durable = self.worker.seal(file, note, lasts, displaced).await?;
        written.promised(changes, is_durable);
        Ok(())
    }

    /// Describes a staged file so that a later start can store it.
    pub(super) fn note_of(&self, node: &Node, written: &Written) -> Result<FileNote> {
        let mount = node.place.mount;
        let mount = mount.ok_or_else(|| Error::internal("a file outside all mounts"))?;
        let state = written.state();
        Ok(FileNote {
            mount: self.storage_of(mount).0,
            path: node.place.path.clone(),
            base: written.base(),
            expect: state.expect,
            owner: state.owner,
            mtime_ns: state.times.modified,
            xattrs: state.xattrs,
            extents: written.file.extents(),
            attempts: written.attempts.open(),
        })
    }

    /// Stores the staged file of an inode, if the storage lacks some of it.
    pub(super) async fn store(self: &Arc<Self>, ino: Ino) -> Result<()> {
        loop {
            let Some(written) = self.node(ino)?.cell.written().map(Arc::clone) else {
                return Ok(());
            };
            let halts = written.attempts.halts();
            let alone = written.storing.lock().await;
            match self.store_held(ino, &written).await {
                // Who wants to rename or remove it is first; then what is left of it is stored.
                Err(error)
                    if error.kind() == ErrorKind::Busy && written.attempts.halts() != halts =>
                {
                    drop(alone);
                }
                done => return done,
            }
        }
    }

    /// Does so for a caller who keeps others from storing it.
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
        // A rename keeps others from storing it, too.
        let node = self.node(ino)?;
        let stored = self.store_now(&node, written).await;
        let Err(error) = stored else { return Ok(()) };
        self.errors.note(ino, &error);
        let lasts = Lasts::OverPowerCuts;
        if written.lacks(lasts) && error.kind() != ErrorKind::Busy {
            // Who was told that it failed may still count on its being tried again.
            let _sealing = written.sealing.lock().await;
            if let Err(error) = self.seal_held(&node, written, lasts, None).await {
                tracing::warn!("note what could not be stored: {error}");
            }
        }
        Err(error)
    }

    async fn store_now(self: &Arc<Self>, node: &Node, written: &Arc<Written>) -> Result<()> {
        if let Err(error) = self.fill_held(node, written).await {
            return Err(match worker::is_gone(&error) {
                true => self.keep_what_is_left(node, written, error).await,
                false => error,
            });
        }
        let (mut work, mut changes) = {
            let _look = written.gate.write().await;
            (self.work_of(node, written)?, written.state().changes)
        };
        work.parts = written.sent_meanwhile();
        match self.persist(written, &mut work, &mut changes).await {
            Ok(meta) => {
                self.stored(node, written, changes, meta).await;
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::Stale | ErrorKind::AlreadyExists) => {
                let error = self.keep_copy(node, written, (work, changes), error).await;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Begins to send a file that is written in a row, where its close will wait for the storage.
    pub(super) fn send_meanwhile(&self, ino: Ino, written: &Arc<Written>) {
        let Ok(node) = self.node(ino) else { return };
        let is_wanted = matches!(self.write_mode(&node), Ok((_, WriteMode::Through)));
        let state = written.state();
        if !is_wanted || !state.is_named || state.is_lost {
            return;
        }
        let Ok(work) = self.work_of(&node, written) else {
            return;
        };
        let Ok(abilities) = self.worker.abilities(work.mount) else {
            return;
        };
        let mut attributes = work.attributes;
        if !work.is_mtime_set && !abilities.attributes {
            // It goes on: the storage's own time is nearer.
            attributes.mtime_ns = None;
        }
        let file = Arc::clone(&written.file);
        let begun = self
            .worker
            .begin_meanwhile(work.mount, work.path, attributes, file);
        written.sends(begun);
    }

    /// Describes what is to be stored of a file.
    pub(super) fn work_of(&self, node: &Node, written: &Written) -> Result<Persist> {
        let (mount, _) = self.write_mode(node)?;
        let mut attributes = written.file_attributes();
        let owner = written.state().owner;
        attributes.owner = Some(self.owner_in_storage(mount, owner, node.meta.owner));
        Ok(Persist {
            mount: self.storage_of(mount).0,
            path: node.place.path.clone(),
            file: Arc::clone(&written.file),
            version: written.file.version(),
            attempts: Arc::clone(&written.attempts),
            expect: written.state().expect,
            attributes,
            is_mtime_set: written.state().is_mtime_set,
            parts: None,
        })
    }

    /// Fetches what still shows through of the old version, which is gone when the file is stored.
    async fn fill_held(&self, node: &Node, written: &Written) -> Result<()> {
        let Some(base) = written.base().filter(|_| !written.file.is_whole()) else {
            return Ok(());
        };
        self.worker.fill_whole(&written.file, &base).await?;
        let _alone = written.sealing.lock().await;
        match written.state().noted {
            0 => Ok(()),
            // A start that finds the file stored must not need the old version either.
            _ => self.seal_held(node, written, Lasts::AsBefore, None).await,
        }
    }

    /// Stores a file, or finds that it is: a process that dies when the storage has answered
    /// leaves a note of what is done, and an answer may get lost. `work` and `changes` become what
    /// was sent last.
    async fn persist(
        self: &Arc<Self>,
        written: &Written,
        work: &mut Persist,
        changes: &mut u64,
    ) -> Result<ObjectMeta> {
        let mut is_first = true;
        loop {
            let error = match self.persist_state(written, work, changes).await {
                Ok(meta) => return Ok(meta),
                Err(error) => error,
            };
            if !is_first || !matches!(error.kind(), ErrorKind::Stale | ErrorKind::AlreadyExists) {
                return Err(error);
            }
            is_first = false;
            match self.worker.find_own(work, false).await? {
                None => return Err(error),
                Some((meta, is_now)) => {
                    work.attempts.close();
                    if is_now {
                        return Ok(meta);
                    }
                    // An earlier state, whose answer was lost.
                    work.expect = Expect::Version(meta.tag);
                }
            }
        }
    }

    /// Sends the bytes of one moment: of now, or of the copy that is made when they change too soon.
    async fn persist_state(
        self: &Arc<Self>,
        written: &Written,
        work: &mut Persist,
        changes: &mut u64,
    ) -> Result<ObjectMeta> {
        let sent = self.worker.persist(work).await;
        let has_changed = || work.file.version() != work.version;
        if !sent.as_ref().is_err_and(|e| e.kind() == ErrorKind::Busy) || !has_changed() {
            return sent;
        }
        let look = written.gate.write().await;
        *changes = written.state().changes;
        work.attributes = written.file_attributes();
        let copied = self.worker.copy_staged(Arc::clone(&written.file)).await;
        let _look = match copied {
            Ok(copy) => {
                drop(look);
                work.file = copy;
                None
            }
            // Then its writers have to wait.
            Err(error) if error.kind() == ErrorKind::OutOfSpace => Some(look),
            Err(error) => return Err(error),
        };
        work.version = work.file.version();
        self.worker.persist(work).await
    }

    async fn stored(&self, node: &Node, written: &Written, changes: u64, meta: ObjectMeta) {
        let _alone = written.sealing.lock().await;
        let tag = meta.tag.clone();
        self.namespace.change(node.ino, |node| node.meta = meta);
        let is_promised_since = written.change(|state| {
            state.stored = changes;
            state.expect = Expect::Version(tag);
            state.noted > changes
        });
        if !is_promised_since {
            return self.unnote(written);
        }
        // The newer promise is one over what is stored now.
        let sealed = self.seal_held(node, written, Lasts::AsBefore, None).await;
        if let Err(error) = sealed {
            self.errors.note(node.ino, &error);
        }
    }

    /// Forgets the note of a file that is stored or removed.
    pub(super) fn unnote(&self, written: &Written) {
        if !written.is_promised_no_more() {
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
        (mut work, mut changes): (Persist, u64),
        error: Error,
    ) -> Error {
        let Some((dir, name)) = node.place.path.split() else {
            return error;
        };
        let name = conflict_name(&name, node.ino, self.now_ns());
        work.path = dir.join(&name);
        work.expect = Expect::Absent;
        match self.persist_state(written, &mut work, &mut changes).await {
            Ok(_) => {
                self.worker.forget_path(work.mount, &node.place.path);
                self.bindings.remove(&node.place, node.ino);
                written.change(|state| {
                    state.stored = changes;
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

    /// Stores under another name what is left of a file whose older version is gone from the storage
    /// before all of it was fetched: what was written, and what the cache has.
    async fn keep_what_is_left(
        self: &Arc<Self>,
        node: &Node,
        written: &Arc<Written>,
        error: Error,
    ) -> Error {
        let Some(base) = written.base() else {
            return error;
        };
        let kept = async {
            let missing = self.worker.fill_what_is_left(&written.file, &base)?;
            let _look = written.gate.write().await;
            let (mut work, changes) = (self.work_of(node, written)?, written.state().changes);
            // In the file itself the missing bytes go on being an error.
            work.file = self.worker.copy_staged(Arc::clone(&written.file)).await?;
            work.version = work.file.version();
            Ok(((work, changes), missing))
        };
        match kept.await {
            Ok((kept, missing)) => {
                let message = format!(
                    "{missing} bytes of the version of '{}' that was opened are gone from the storage: they are zeros in the copy",
                    node.place.path
                );
                let error = Error::new(ErrorKind::Stale, message).with_source(error);
                self.keep_copy(node, written, kept, error).await
            }
            Err(failed) => {
                let failed: Error = failed;
                error.context(format!("keep what is left: {failed}"))
            }
        }
    }

    /// Stores what waits, for ever. The caller runs it beside the doors.
    pub async fn store_queued(self: Arc<Self>) {
        futures::join!(self.harden_queued(), self.store_in_turn());
    }

    /// Makes what a close promised outlive a power cut, too.
    async fn harden_queued(&self) {
        let mut is_failing = false;
        loop {
            tokio::time::sleep(HARDENED_AFTER).await;
            let hardened = self.worker.harden().await;
            if let Err(error) = &hardened
                && !is_failing
            {
                tracing::warn!("what was closed would not outlive a power cut: {error}");
            }
            is_failing = hardened.is_err();
        }
    }

    async fn store_in_turn(self: &Arc<Self>) {
        let turns = Arc::new(Semaphore::new(WIDTH));
        let mut running = FuturesUnordered::new();
        loop {
            while let Some(ino) = self.queue.pop(self.clock.now()) {
                let (vfs, turns) = (Arc::clone(self), Arc::clone(&turns));
                running.push(async move { vfs.store_waiting(ino, &turns).await }.boxed());
            }
            tokio::select! {
                () = self.queue.pushed.notified() => {}
                () = tokio::time::sleep(self.queue.rest(self.clock.now())) => {}
                Some(()) = running.next() => {}
            }
        }
    }

    async fn store_waiting(self: Arc<Self>, ino: Ino, turns: &Semaphore) {
        if self.node(ino).is_err() {
            // It was removed before anything was sent.
            self.queue.done(ino, &Ok(()));
            return;
        }
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
        if stored.is_ok() && self.is_promised_since(ino) {
            return self.queue.again_later(ino, self.clock.now() + QUIET);
        }
        match self.queue.done(ino, &stored) {
            None => self.settle(ino),
            Some(pause) => {
                tracing::warn!("store inode {}: {:?}; again in {pause:?}", ino.0, stored);
                tokio::time::sleep(pause).await;
                self.queue.again(ino);
            }
        }
    }

    /// Returns whether more of a file was promised while it was being stored.
    fn is_promised_since(&self, ino: Ino) -> bool {
        let node = self.node(ino);
        node.is_ok_and(|node| {
            node.cell.written().is_some_and(|written| {
                let state = written.state();
                state.is_named && state.noted > state.stored
            })
        })
    }

    pub(super) fn is_dirty(&self, ino: Ino) -> bool {
        let node = self.node(ino);
        node.is_ok_and(|node| {
            node.cell
                .written()
                .is_some_and(|written| written.is_dirty())
        })
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

#[cfg(test)]
mod tests {
    use types::{Clock, ManualClock};

    use super::*;

    #[tokio::test]
    async fn files_are_left_alone_for_a_moment_unless_somebody_waits_for_them() {
        let (queue, clock) = (Queue::default(), ManualClock::default());
        let in_a_second = |clock: &ManualClock| clock.now() + Duration::from_secs(1);
        queue.push_later(Ino(1), in_a_second(&clock));
        queue.push(Ino(2));
        queue.push_later(Ino(2), in_a_second(&clock));
        assert_eq!(queue.pop(clock.now()), Some(Ino(2)));
        assert_eq!(queue.pop(clock.now()), None);
        assert_eq!(queue.rest(clock.now()), Duration::from_secs(1));
        clock.advance(Duration::from_secs(1));
        assert_eq!(queue.pop(clock.now()), Some(Ino(1)));
        assert_eq!(queue.rest(clock.now()), Duration::MAX);
        queue.again_later(Ino(1), in_a_second(&clock));
        queue.push_later(Ino(3), in_a_second(&clock));
        queue.give_up(Ino(3));
        let empty = queue.empty();
        let storing = async {
            queue.push_later(Ino(4), in_a_second(&clock));
            for ino in [Ino(1), Ino(4)] {
                assert_eq!(queue.pop(clock.now()), Some(ino));
                queue.done(ino, &Ok(()));
            }
            queue.done(Ino(2), &Ok(()));
        };
        futures::join!(empty, storing);
        queue.push_later(Ino(5), in_a_second(&clock));
        assert_eq!(queue.pop(clock.now()), None, "nobody waits any more");
    }
}
