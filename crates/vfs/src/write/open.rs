// SPDX-License-Identifier: Apache-2.0
//! Creating files, opening them for writing, and the end of a staged file.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use types::meta::Owner;
use types::{
    Error, ErrorKind, Freshness, NodeKind, ObjectMeta, ObjectRef, Result, VersionTag, Xattrs,
};
use worker::Expect;
use worker::settings::WHOLE_MAX;

use super::{Creator, Target, WriteMode};
use crate::attributes::Attributes;
use crate::bindings::Bound;
use crate::handles::{FileHandle, Reading};
use crate::ino::Ino;
use crate::lookup::Entry;
use crate::namespace::Node;
use crate::open::Opened;
use crate::readahead::ReadAhead;
use crate::reply::Reply;
use crate::vfs::{Vfs, unknown};
use crate::written::{Cell, Times, Written};

/// Tries of an open that finds a name, and then not its file, because somebody removes it meanwhile.
const TRIES: usize = 3;

/// Tries of an open that finds another version each time, because writers of this node close it.
const VERSIONS_TRIED: usize = 16;

/// A staged file that does not end while this lives.
pub(crate) struct Held {
    vfs: Arc<Vfs>,
    pub(super) node: Arc<Node>,
    pub(crate) written: Arc<Written>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.vfs.let_go(self.node.ino);
    }
}

impl Vfs {
    /// Makes a file, or opens it for writing when there is one and it need not be new. Success
    /// counts one reference of the kernel.
    ///
    /// # Errors
    /// `AlreadyExists`, `ReadOnly`, `OutOfSpace`; else what the storage said.
    pub fn create(
        self: &Arc<Self>,
        parent: Ino,
        name: &[u8],
        creator: Creator,
        is_exclusive: bool,
    ) -> Reply<(Entry, Opened)> {
        let target = match self.target(parent, name) {
            Ok(target) => target,
            Err(error) => return Reply::Ready(Err(error)),
        };
        let vfs = Arc::clone(self);
        Reply::Pending(
            async move {
                for _ in 0..TRIES {
                    match vfs.resolve(&target).await? {
                        None => return vfs.create_new(&target, creator, is_exclusive).await,
                        Some(_) if is_exclusive => {
                            return Err(already_exists(&target));
                        }
                        Some(found) if found.meta.kind == NodeKind::Directory => {
                            return Err(Error::new(ErrorKind::IsADirectory, "create a file"));
                        }
                        Some(_) => {}
                    }
                    let name = target.place.path.split().map(|(_, name)| name);
                    let name = name.ok_or_else(|| Error::internal("a root was created"))?;
                    let entry = vfs.lookup(target.dir.ino, name.as_bytes()).wait().await?;
                    match vfs.open_write(entry.ino, false).wait().await {
                        Ok(opened) => return Ok((entry, opened)),
                        Err(error) => {
                            vfs.forget(entry.ino, 1);
                            if error.kind() != ErrorKind::Stale {
                                return Err(error);
                            }
                        }
                    }
                }
                Err(Error::new(ErrorKind::Stale, "the file changes too often"))
            }
            .boxed(),
        )
    }

    async fn create_new(
        self: &Arc<Self>,
        target: &Target,
        creator: Creator,
        is_exclusive: bool,
    ) -> Result<(Entry, Opened)> {
        let now_ns = self.now_ns();
        let storage = self.storage_of(target.mount).0;
        self.worker.check_place(storage, &target.place.path)?;
        let file = self.worker.stage(0)?;
        let mut meta = ObjectMeta {
            kind: NodeKind::File,
            tag: VersionTag {
                etag: None,
                mtime_ns: now_ns,
                size: 0,
            },
            owner: Some(self.owner_in_storage(target.mount, creator.owner(), None)),
            extras: None,
        };
        let mut expect = Expect::Absent;
        let id = self.storage_of(target.mount).0;
        let claims = is_exclusive && target.mode == WriteMode::Through;
        if claims && self.worker.abilities(id)?.conditions {
            // Between nodes the storage decides who was first.
            let attributes = self.new_attributes(target.mount, creator);
            let claimed = self.worker.claim_name(id, &target.place.path, &attributes);
            meta = claimed.await.map_err(|error| match error.kind() {
                ErrorKind::AlreadyExists => {
                    self.worker.forget_path(id, &target.place.path);
                    already_exists(target)
                }
                _ => error,
            })?;
            expect = Expect::Version(meta.tag.clone());
        }
        let owner = creator.owner();
        let is_stored = expect != Expect::Absent;
        let written = Written::new(file, None, owner, Times::all(now_ns), expect);
        if !is_stored {
            written.change(|state| state.changes = 1);
        }
        let number = self.new_number(&target.place);
        let node = self.namespace.insert(number, target.place.clone(), meta);
        node.cell.set(written);
        let held = self.hold_written(node.ino);
        let held = held.ok_or_else(|| unknown(node.ino))?;
        self.begin_staged(&node);
        self.touch_dir(&target.dir);
        let opened = self.opened_written(&held, true)?;
        let ttl = self.own_ttl(&target.place);
        Ok((self.entry(&node, ttl, Duration::ZERO), opened))
    }

    /// Makes an empty file. Success counts one reference of the kernel.
    ///
    /// # Errors
    /// As [`Vfs::create`].
    pub fn make_file(self: &Arc<Self>, parent: Ino, name: &[u8], creator: Creator) -> Reply<Entry> {
        let created = self.create(parent, name, creator, true);
        let vfs = Arc::clone(self);
        Reply::Pending(
            async move {
                let (entry, opened) = created.wait().await?;
                let kept = vfs.flush(opened.handle).wait().await;
                vfs.release(opened.handle);
                kept.inspect_err(|_| vfs.forget(entry.ino, 1))?;
                Ok(entry)
            }
            .boxed(),
        )
    }

    /// Opens a file for writing.
    ///
    /// # Errors
    /// `IsADirectory`, `ReadOnly`, `OutOfSpace`, `Stale` when the file is another one now (its name
    /// has to be looked up again); else what the storage said.
    pub fn open_write(self: &Arc<Self>, ino: Ino, truncates: bool) -> Reply<Opened> {
        let vfs = Arc::clone(self);
        Reply::Pending(
            async move {
                let held = vfs.hold_staged(ino, truncates).await?;
                let opened = vfs.opened_written(&held, true)?;
                if truncates {
                    let cut = async {
                        let _shared = held.written.gate.read().await;
                        vfs.cut(&held.written, 0)
                    };
                    if let Err(error) = cut.await {
                        vfs.release(opened.handle);
                        return Err(error);
                    }
                }
                Ok(opened)
            }
            .boxed(),
        )
    }

    /// Holds the staged file of an inode, if it has one.
    pub(crate) fn hold_written(self: &Arc<Self>, ino: Ino) -> Option<Held> {
        let node = self.namespace.hold(ino)?;
        let Some(written) = node.cell.written().map(Arc::clone) else {
            self.let_go(ino);
            return None;
        };
        let vfs = Arc::clone(self);
        Some(Held { vfs, node, written })
    }

    /// Holds the staged file of an inode, which gets one if it has none.
    pub(super) async fn hold_staged(self: &Arc<Self>, ino: Ino, is_cut: bool) -> Result<Held> {
        for _ in 0..VERSIONS_TRIED {
            let node = self.node(ino)?;
            match node.meta.kind {
                NodeKind::File => {}
                NodeKind::Directory => {
                    return Err(Error::new(ErrorKind::IsADirectory, "write to a directory"));
                }
                NodeKind::Symlink => return Err(Error::new(ErrorKind::Invalid, "write to a link")),
            }
            self.write_mode(&node)?;
            if let Some(held) = self.hold_written(ino) {
                return Ok(held);
            }
            let object = self.object(&node)?;
            let staged = match self.stage_version(&node, &object, is_cut).await {
                // Another writer of this node made a new version of it meanwhile.
                Err(error) if worker::is_gone(&error) && self.is_changed_here(ino, &object) => {
                    continue;
                }
                staged => staged?,
            };
            if let Some(held) = self.hold_as(ino, &object, staged)? {
                return Ok(held);
            }
        }
        Err(Error::new(ErrorKind::Stale, "the file changes too often"))
    }

    /// Makes a staged file over a version, which must be that of now.
    async fn stage_version(
        self: &Arc<Self>,
        node: &Node,
        object: &ObjectRef,
        is_cut: bool,
    ) -> Result<Written> {
        let xattrs = self.check_unchanged(object).await?;
        let base = if is_cut { 0 } else { object.size() };
        let file = self.worker.stage(base)?;
        if base > 0 && base <= WHOLE_MAX {
            // It is needed when the file is stored, and may be gone by then.
            self.worker.fill_whole(&file, object).await?;
        }
        let shown = self.attributes_of(node);
        let owner = Owner {
            mode: shown.mode,
            uid: shown.uid,
            gid: shown.gid,
        };
        let times = times_of(&shown);
        let expect = Expect::Version(object.tag.clone());
        let base = (base > 0).then(|| object.clone());
        let written = Written::new(file, base, owner, times, expect);
        written.change(|state| state.xattrs = xattrs);
        Ok(written)
    }

    /// Gives an inode its staged file and holds it, or the one that it got meanwhile; none when the
    /// inode stands for another version now.
    fn hold_as(
        self: &Arc<Self>,
        ino: Ino,
        object: &ObjectRef,
        written: Written,
    ) -> Result<Option<Held>> {
        // Held before it is looked at, so that no last release ends it in between.
        let node = self.namespace.hold(ino).ok_or_else(|| unknown(ino))?;
        if node.cell.written().is_none() && !self.stands_for(&node, object) {
            self.let_go(ino);
            return Ok(None);
        }
        let mine = Arc::as_ptr(&written.file);
        let written = Arc::clone(node.cell.set(written));
        if Arc::as_ptr(&written.file) == mine {
            self.begin_staged(&node);
        }
        let vfs = Arc::clone(self);
        Ok(Some(Held { vfs, node, written }))
    }

    fn stands_for(&self, node: &Node, object: &ObjectRef) -> bool {
        node.place.path == object.path && node.meta.tag == object.tag
    }

    /// Returns whether this node writes an inode, or made another version of it than this one.
    pub(crate) fn is_changed_here(&self, ino: Ino, object: &ObjectRef) -> bool {
        let node = self.namespace.get(ino);
        node.is_some_and(|node| node.cell.written().is_some() || !self.stands_for(&node, object))
    }

    /// The bytes that show through, and what must not be overwritten, are those of now. Returns the
    /// extended attributes, where the next version has to be told them.
    async fn check_unchanged(&self, object: &ObjectRef) -> Result<Option<Arc<Xattrs>>> {
        let (mount, path) = (object.mount, object.path.clone());
        let asked = self
            .worker
            .stat(mount, path, Freshness::Always, self.deadline());
        match asked.await {
            Ok(learnt) if same_bytes(&learnt.value.tag, &object.tag) => {
                let extras = learnt.value.extras;
                return Ok(extras.map(|extras| Arc::clone(&extras.xattrs)));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.worker.forget_path(mount, &object.path);
        let message = format!("'{}' was changed by somebody else", object.path);
        Err(Error::new(ErrorKind::Stale, message))
    }

    /// Binds the name of a file that just became staged, and keeps its node for as long.
    pub(super) fn begin_staged(&self, node: &Node) {
        self.namespace.hold(node.ino);
        let (ino, is_here) = (node.ino, true);
        self.bindings.set(&node.place, Bound { ino, is_here });
    }

    /// Adds a handle on a staged file.
    pub(crate) fn opened_written(&self, held: &Held, is_writer: bool) -> Result<Opened> {
        let ino = held.node.ino;
        let mount = held.node.place.mount;
        let mount = mount.ok_or_else(|| Error::internal("a file outside all mounts"))?;
        let node = self.namespace.hold(ino).ok_or_else(|| unknown(ino))?;
        if is_writer {
            held.written.writer_opened();
        }
        let handle = self.files.insert(FileHandle {
            ino,
            mount,
            cell: Arc::clone(&node.cell),
            is_writer,
            reading: None,
        });
        self.counters.opens.add(1);
        Ok(Opened {
            handle,
            keep_cache: true,
            local_file: None,
        })
    }

    /// Ends a handle on a file.
    pub fn release(self: &Arc<Self>, handle: crate::HandleId) {
        let Some(file) = self.files.remove(handle) else {
            return;
        };
        let ino = file.ino;
        let is_staged = file.cell.written().is_some_and(|written| {
            if file.is_writer {
                written.writer_released();
            }
            true
        });
        // Whoever holds the staged file last can give it to the cache without a copy.
        drop(file);
        match is_staged {
            true => self.let_go(ino),
            // Nothing is staged that could end with it.
            false => self.let_go_unstaged(ino),
        }
    }

    /// Takes away what held an inode, and ends what nobody needs any more.
    pub(crate) fn let_go(self: &Arc<Self>, ino: Ino) {
        self.let_go_unstaged(ino);
        self.settle(ino);
    }

    fn let_go_unstaged(&self, ino: Ino) {
        self.unbind(self.namespace.let_go(ino));
        self.settle_renumbered(ino);
    }

    /// Ends the staged file of an inode, if nobody needs it any more; if the storage lacks some of
    /// it, it is stored in the background.
    pub(super) fn settle(self: &Arc<Self>, ino: Ino) {
        let Ok(node) = self.node(ino) else { return };
        let Some(written) = node.cell.written().map(Arc::clone) else {
            return;
        };
        let mode = self.write_mode(&node).map(|(_, mode)| mode);
        // Whoever holds the file last can give it to the cache without a copy.
        drop(node);
        let is_scratch = matches!(mode, Ok(WriteMode::Local)) && written.state().is_named;
        if is_scratch {
            return;
        }
        if written.is_dirty() {
            if !written.has_writer() {
                self.queue.push(ino);
            }
            return;
        }
        let is_done = |node: &Node| {
            let same = node.cell.written().map(|now| Arc::ptr_eq(now, &written));
            same == Some(true) && !written.is_dirty()
        };
        let state = written.state();
        let ended = self.namespace.change_last(ino, is_done, |node| {
            // What lost its name to somebody else is never opened again.
            if !state.is_lost {
                node.cell = Arc::new(Cell::after(state.times));
            }
        });
        let Some(node) = ended else { return };
        if !state.is_named {
            self.unnote(&written);
            return;
        }
        let is_here = false;
        match self.namespace.get(ino) {
            Some(_) => self.bindings.set(&node.place, Bound { ino, is_here }),
            None => self.bindings.remove(&node.place, ino),
        }
        let file = Arc::clone(&written.file);
        drop(written);
        if let Ok(object) = self.object(&node)
            && state.changes > 0
            && file.is_whole()
            && object.size() == file.len()
        {
            self.worker.adopt(object, file);
        }
    }

    /// Frees the name of a node that nobody knows any more.
    pub(crate) fn unbind(&self, forgotten: Option<Arc<Node>>) {
        if let Some(node) = forgotten {
            self.bindings.remove(&node.place, node.ino);
        }
    }

    /// Gives the name of a file another inode number, under which it can be written while the kernel
    /// itself reads the old one: who has that open keeps the version that was opened. The number
    /// holds for as long, also when the kernel forgets it in between.
    pub fn renumber(&self, ino: Ino) {
        let Ok(node) = self.node(ino) else { return };
        let number = self.new_number(&node.place);
        let made = self
            .namespace
            .insert(number, node.place.clone(), node.meta.clone());
        let (number, is_here) = (made.ino, false);
        let bound = Bound {
            ino: number,
            is_here,
        };
        if !self.bindings.rebind(&node.place, ino, bound) {
            // The name leads to a newer version already.
            self.namespace.forget(number, 1);
            return;
        }
        let before = self.renumbered.lock().insert(ino, number);
        self.end_renumbered(before);
        // The last reader may have left meanwhile.
        self.settle_renumbered(ino);
    }

    /// Returns whether an inode stands in for another that the kernel reads itself: somebody is about
    /// to write to it.
    pub(crate) fn stands_in(&self, ino: Ino) -> bool {
        !self.bindings.is_empty() && self.renumbered.lock().values().any(|number| *number == ino)
    }

    /// Lets a number go that stood in for another, once nobody has that open.
    fn settle_renumbered(&self, ino: Ino) {
        let mut renumbered = self.renumbered.lock();
        let is_done = !renumbered.is_empty() && self.namespace.handles(ino) == 0;
        let ended = is_done.then(|| renumbered.remove(&ino)).flatten();
        drop(renumbered);
        self.end_renumbered(ended);
    }

    fn end_renumbered(&self, number: Option<Ino>) {
        if let Some(number) = number {
            self.unbind(self.namespace.forget(number, 1));
        }
    }

    /// Returns a number that hardly anything has.
    pub(super) fn new_number(&self, place: &crate::mounts::Place) -> Ino {
        let count = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.mount_table()
            .hasher(place)
            .fresh(count, self.started_ns)
    }

    /// Makes the handle of an object that is only read.
    pub(crate) fn reading(
        &self,
        object: ObjectRef,
        local_file: Option<worker::LocalFile>,
    ) -> Reading {
        let read_ahead = ReadAhead::new(object.size(), self.settings.read_ahead_max.0);
        Reading {
            object,
            local_file,
            read_ahead: Mutex::new(read_ahead),
        }
    }
}

fn times_of(shown: &Attributes) -> Times {
    Times {
        modified: shown.mtime_ns,
        changed: shown.ctime_ns,
        accessed: shown.atime_ns,
    }
}

/// Returns whether two tags name the same bytes, whatever a storage says of the time.
pub(crate) fn same_bytes(a: &VersionTag, b: &VersionTag) -> bool {
    let times = a.etag.is_some() || a.mtime_ns == b.mtime_ns;
    a.size == b.size && a.etag == b.etag && times
}

fn already_exists(target: &Target) -> Error {
    let message = format!("'{}' exists", target.place.path);
    Error::new(ErrorKind::AlreadyExists, message)
}
