// SPDX-License-Identifier: Apache-2.0
//! A file that this node is writing: its staged bytes, and what the storage is to know of them.
//!
//! It lives from the first open for writing until its last handle is closed and the storage has
//! all of it. All handles of the inode read and write the same staged file meanwhile, also those
//! that were open before.
//!
//! Locks, in this order: `storing` is held by who stores the file, or takes it from its name, over all
//! requests of that. `gate` is shared by who changes bytes and taken alone for a look at all of them,
//! so that an object is never a mixture; nobody waits for a network with it. `sealing` is held while
//! the note on the local disk changes. `state` is a leaf, held for assignments.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::{MutexGuard, RwLock};
use types::meta::Owner;
use types::{ByteRange, NodeKind, ObjectRef, Xattrs};
use worker::{Attempts, Begun, Expect, FileAttributes, Lasts, LocalFile, Parts, StagedFile};

use crate::attributes::Attributes;
use crate::ino::Ino;

/// What the handles of one inode share, and the times that a storage does not keep: they are shown
/// for as long as the kernel knows the inode.
#[derive(Debug)]
pub(crate) struct Cell {
    written: OnceLock<Arc<Written>>,
    /// The cache file of an object that was removed while it was open.
    pub(crate) kept: OnceLock<LocalFile>,
    /// When this node last changed the names in a directory.
    touched_ns: AtomicI64,
    /// When this node last changed attributes or the name.
    changed_ns: AtomicI64,
    /// The time of the last access that a program set.
    accessed_ns: AtomicI64,
}

/// Earlier than any time of a file.
const NEVER: i64 = i64::MIN;

impl Default for Cell {
    fn default() -> Self {
        let never = || AtomicI64::new(NEVER);
        Cell {
            written: OnceLock::new(),
            kept: OnceLock::new(),
            touched_ns: never(),
            changed_ns: never(),
            accessed_ns: never(),
        }
    }
}

impl Cell {
    /// Returns the staged file, once there is one.
    pub(crate) fn written(&self) -> Option<&Arc<Written>> {
        self.written.get()
    }

    /// Sets the staged file unless there is one, and returns which it is.
    pub(crate) fn set(&self, written: Written) -> &Arc<Written> {
        self.written.get_or_init(|| Arc::new(written))
    }

    /// Returns what is left of a file that is stored.
    pub(crate) fn after(times: Times) -> Self {
        let cell = Cell::default();
        cell.change(times.changed, Some(times.accessed));
        cell
    }

    /// Takes note that the names in a directory changed.
    pub(crate) fn touch(&self, now_ns: i64) {
        self.touched_ns.store(now_ns, Ordering::Relaxed);
    }

    /// Takes note that the storage was told a time of the last modification.
    pub(crate) fn untouch(&self) {
        self.touched_ns.store(NEVER, Ordering::Relaxed);
    }

    /// Takes note that attributes or the name changed.
    pub(crate) fn change(&self, now_ns: i64, accessed_ns: Option<i64>) {
        self.changed_ns.store(now_ns, Ordering::Relaxed);
        if let Some(accessed_ns) = accessed_ns {
            self.accessed_ns.store(accessed_ns, Ordering::Relaxed);
        }
    }

    /// Whether it leads to bytes that are here only.
    pub(crate) fn has_bytes(&self) -> bool {
        self.written.get().is_some() || self.kept.get().is_some()
    }

    /// Puts the times that are known here in place of those that the storage tells.
    pub(crate) fn show(&self, shown: &mut Attributes) {
        shown.mtime_ns = shown.mtime_ns.max(self.touched_ns.load(Ordering::Relaxed));
        shown.ctime_ns = shown.mtime_ns.max(self.changed_ns.load(Ordering::Relaxed));
        match self.accessed_ns.load(Ordering::Relaxed) {
            NEVER => {}
            accessed_ns => shown.atime_ns = accessed_ns,
        }
    }
}

/// A file that is being written.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) file: Arc<StagedFile>,
    /// The version whose bytes show through, where it lies now.
    base: Mutex<Option<ObjectRef>>,
    pub(crate) gate: Arc<RwLock<()>>,
    pub(crate) storing: tokio::sync::Mutex<()>,
    pub(crate) attempts: Arc<Attempts>,
    /// Held while the note on the local disk is changed, so that it says what is.
    pub(crate) sealing: tokio::sync::Mutex<()>,
    /// How many handles may write.
    writers: AtomicUsize,
    flow: Mutex<Flow>,
    state: Mutex<State>,
}

/// How the file is being written.
#[derive(Default)]
struct Flow {
    /// Where the last write ended.
    end: u64,
    /// How much was written in a row up to there.
    row: u64,
    /// What is sent of it meanwhile.
    sending: Option<Begun>,
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow")
            .field("row", &self.row)
            .finish_non_exhaustive()
    }
}

/// What is to be stored, and what is.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) owner: Owner,
    pub(crate) times: Times,
    /// Extended attributes, where the storage has to be told them with the bytes.
    pub(crate) xattrs: Option<Arc<Xattrs>>,
    /// Counts changes of bytes and attributes.
    pub(crate) changes: u64,
    /// How many of them the storage has.
    pub(crate) stored: u64,
    /// How many of them are noted on the local disk: they outlive a kill.
    pub(crate) noted: u64,
    /// How many of them were made to outlive a power cut, at least.
    pub(crate) sealed: u64,
    /// What the storage must have at the path when it is next stored there.
    pub(crate) expect: Expect,
    /// Whether a name leads here; not after it was removed.
    pub(crate) is_named: bool,
    /// A program set the modification time after the last write.
    pub(crate) is_mtime_set: bool,
    /// Somebody else changed the object: what is written from here on has no place.
    pub(crate) is_lost: bool,
}

/// Times in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) modified: i64,
    pub(crate) changed: i64,
    pub(crate) accessed: i64,
}

impl Times {
    pub(crate) fn all(now_ns: i64) -> Self {
        Times {
            modified: now_ns,
            changed: now_ns,
            accessed: now_ns,
        }
    }
}

impl Written {
    pub(crate) fn new(
        file: Arc<StagedFile>,
        base: Option<ObjectRef>,
        owner: Owner,
        times: Times,
        expect: Expect,
    ) -> Self {
        Written {
            file,
            base: Mutex::new(base),
            gate: Arc::default(),
            storing: tokio::sync::Mutex::default(),
            attempts: Arc::default(),
            sealing: tokio::sync::Mutex::default(),
            writers: AtomicUsize::new(0),
            flow: Mutex::default(),
            state: Mutex::new(State {
                owner,
                times,
                xattrs: None,
                changes: 0,
                stored: 0,
                noted: 0,
                sealed: 0,
                expect,
                is_named: true,
                is_mtime_set: false,
                is_lost: false,
            }),
        }
    }

    /// Returns the version whose bytes show through.
    pub(crate) fn base(&self) -> Option<ObjectRef> {
        self.base.lock().clone()
    }

    /// Takes note that what the storage has of the file lies elsewhere now, as another version maybe.
    pub(crate) fn moved(&self, object: Option<ObjectRef>) {
        let Some(object) = object else { return };
        let mut state = self.state.lock();
        if !matches!(state.expect, Expect::Version(_)) {
            return;
        }
        state.expect = Expect::Version(object.tag.clone());
        drop(state);
        if let Some(base) = &mut *self.base.lock() {
            *base = object;
        }
    }

    /// Waits until nobody stores the file, and keeps others from beginning. An upload that is under
    /// way ends early where it can.
    pub(crate) async fn alone(&self) -> MutexGuard<'_, ()> {
        let _halt = self.attempts.halt();
        self.storing.lock().await
    }

    /// Takes note of a write. Returns whether it is one of so many in a row that what is there should be
    /// sent while the rest is written: then the caller says so once, to [`Written::sends`].
    pub(crate) fn wrote(&self, range: ByteRange) -> bool {
        let mut flow = self.flow.lock();
        let is_next = flow.end == range.offset;
        flow.row = range.len + if is_next { flow.row } else { 0 };
        flow.end = range.end();
        if let Some(begun) = &flow.sending {
            if let Some(parts) = begun.get() {
                parts.advance(&self.file);
            }
            return false;
        }
        let is_due = flow.row > worker::PUT_MAX;
        if is_due {
            // Asked again after as much.
            flow.row = 0;
        }
        is_due
    }

    /// Takes note that the file is sent while it is written.
    pub(crate) fn sends(&self, begun: Begun) {
        self.flow.lock().sending.get_or_insert(begun);
    }

    /// Returns what was sent while the file was written, if something was; no more of it is sent so.
    pub(crate) fn sent_meanwhile(&self) -> Option<Arc<Parts>> {
        let mut flow = self.flow.lock();
        flow.row = 0;
        let begun = flow.sending.take();
        drop(flow);
        // One that has not begun yet is given up when it has.
        begun.and_then(|begun| begun.get().map(Arc::clone))
    }

    /// Takes note of a handle that may write.
    pub(crate) fn writer_opened(&self) {
        self.writers.fetch_add(1, Ordering::AcqRel);
    }

    /// Takes note that such a handle was released.
    pub(crate) fn writer_released(&self) {
        self.writers.fetch_sub(1, Ordering::AcqRel);
    }

    /// Returns whether somebody may still write, and closes the file then.
    pub(crate) fn has_writer(&self) -> bool {
        self.writers.load(Ordering::Acquire) > 0
    }

    /// Returns whether attributes go to the storage with the bytes, and not by themselves.
    pub(crate) fn takes_attributes(&self) -> bool {
        self.is_dirty() || self.has_writer() || !self.state().is_named
    }

    /// Looks at the state.
    pub(crate) fn state(&self) -> State {
        self.state.lock().clone()
    }

    /// Changes the state.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock())
    }

    /// Takes note that bytes changed.
    pub(crate) fn touch(&self, now_ns: i64) {
        let mut state = self.state.lock();
        state.changes += 1;
        state.times.modified = now_ns;
        state.times.changed = now_ns;
        state.is_mtime_set = false;
    }

    /// Returns whether the storage lacks something.
    pub(crate) fn is_dirty(&self) -> bool {
        let state = self.state.lock();
        (state.is_named || state.is_lost) && state.changes != state.stored
    }

    /// Returns whether something of the file was promised less than that.
    pub(crate) fn lacks(&self, lasts: Lasts) -> bool {
        let state = self.state.lock();
        let promised = match lasts {
            Lasts::OverPowerCuts => state.sealed,
            Lasts::OverKills | Lasts::AsBefore => state.noted,
        };
        state.is_named && state.changes != promised && state.changes != state.stored
    }

    /// Takes note of a promise of the first so many changes.
    pub(crate) fn promised(&self, changes: u64, is_durable: bool) {
        let mut state = self.state.lock();
        state.noted = state.noted.max(changes);
        if is_durable {
            state.sealed = state.sealed.max(changes);
        }
    }

    /// Ends the promise; returns whether there was one.
    pub(crate) fn is_promised_no_more(&self) -> bool {
        let mut state = self.state.lock();
        state.sealed = 0;
        std::mem::take(&mut state.noted) > 0
    }

    /// Returns what is kept beside the bytes.
    pub(crate) fn file_attributes(&self) -> FileAttributes {
        let state = self.state.lock();
        FileAttributes {
            owner: Some(state.owner),
            mtime_ns: Some(state.times.modified),
            xattrs: state.xattrs.clone(),
        }
    }

    /// Returns what `stat` shows.
    pub(crate) fn attributes(&self, ino: Ino) -> Attributes {
        let state = self.state.lock();
        Attributes {
            ino,
            kind: NodeKind::File,
            size: self.file.len(),
            mtime_ns: state.times.modified,
            ctime_ns: state.times.changed,
            atime_ns: state.times.accessed,
            mode: state.owner.mode & 0o7777,
            uid: state.owner.uid,
            gid: state.owner.gid,
            nlink: u32::from(state.is_named),
        }
    }
}
