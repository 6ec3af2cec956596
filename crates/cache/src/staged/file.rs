// SPDX-License-Identifier: Apache-2.0
//! One staged file: what it is, how long it lives, and how it becomes durable.
//!
//! Here: making, syncing, closing, leaving. `write.rs` has what changes it, `read.rs` what looks at
//! it. Lock order: `writing`, held over every change of the file, then `shape`, `lent` or `file`, which
//! are leaves. The file on the disk is never shorter than the shape says, and its bytes are there before
//! the shape says so; readers need no lock over their reading.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use types::{ByteRange, Error, ErrorKind, Result, crash};

use super::disk;
use super::home::Home;
use super::ranges::Ranges;
use super::shape::Shape;
use super::write::Writing;
use super::{Outlives, StagedId};
use crate::Store;

/// A file that is being written. Removed from the disk when dropped, unless it has a note. All
/// methods may be called from many threads at once.
#[derive(Debug)]
pub struct StagedFile {
    pub(super) home: Arc<Home>,
    id: StagedId,
    pub(super) writing: Mutex<Writing>,
    pub(super) shape: Mutex<Shape>,
    /// What somebody has a copy of that is still true.
    pub(super) lent: Mutex<Ranges>,
    /// It may have holes besides its base.
    pub(super) sparse: AtomicBool,
    /// Counts what could make it differ from what was synced.
    pub(super) changes: AtomicU64,
    synced: Mutex<Synced>,
    file: Mutex<Option<Arc<File>>>,
    /// Why the disk did not take what was written: what is there is not known from then on.
    fault: Mutex<Option<String>>,
    /// Its name in the directory is on the disk.
    entry_synced: AtomicBool,
    /// It stays on the disk when it is dropped, or is there no longer.
    kept: AtomicBool,
}

/// What the last sync made durable.
#[derive(Debug)]
pub(super) struct Synced {
    changes: u64,
    shape: Option<Shape>,
}

impl StagedFile {
    /// Makes a new file.
    pub(super) fn create(home: &Arc<Home>, id: StagedId, base: u64) -> Result<Arc<StagedFile>> {
        let file = home.create(id).and_then(|file| {
            file.set_len(base)?;
            Ok(file)
        });
        let context = || format!("create {}", home.file_path(id).display());
        let file = file.map_err(|e| disk::fault(&context(), e))?;
        crash::point("staged.created");
        let staged = StagedFile::new(home, id, Shape::over(base));
        *staged.file.lock() = Some(Arc::new(file));
        Ok(StagedFile::entered(staged))
    }

    /// Takes up a file that has a note, with the shape that is noted. What the file has beyond that
    /// was written later and is cut off; if it is shorter, it was cut later, and nothing it lost
    /// comes back.
    pub(super) fn recover(
        home: &Arc<Home>,
        id: StagedId,
        mut shape: Shape,
        outlives: Outlives,
    ) -> Result<Arc<StagedFile>> {
        let context = || format!("recover {}", home.file_path(id).display());
        let found = home.open(id).and_then(|file| {
            let stat = rustix::fs::fstat(&file)?;
            let len = u64::try_from(stat.st_size).unwrap_or(0);
            // Not synced: the note stays as it is, and the next open would come to the same.
            if len < shape.len {
                shape.resize(len);
            } else if len > shape.len {
                file.set_len(shape.len)?;
            }
            super::write::allocated(&file)
        });
        let taken = found.map_err(|e| disk::fault(&context(), e))?;
        home.charge(taken);
        let mut staged = StagedFile::new(home, id, shape.clone());
        *staged.writing.get_mut() = Writing::holding(taken);
        *staged.sparse.get_mut() = true;
        if outlives == Outlives::PowerCut {
            *staged.synced.get_mut() = Synced {
                changes: staged.changes(),
                shape: Some(shape),
            };
            *staged.entry_synced.get_mut() = true;
        }
        Ok(StagedFile::entered(staged))
    }

    fn new(home: &Arc<Home>, id: StagedId, shape: Shape) -> StagedFile {
        StagedFile {
            home: Arc::clone(home),
            id,
            writing: Mutex::default(),
            shape: Mutex::new(shape),
            lent: Mutex::default(),
            sparse: AtomicBool::new(false),
            // What was made is not synced yet.
            changes: AtomicU64::new(1),
            synced: Mutex::new(Synced {
                changes: 0,
                shape: None,
            }),
            file: Mutex::default(),
            fault: Mutex::default(),
            entry_synced: AtomicBool::new(false),
            kept: AtomicBool::new(false),
        }
    }

    fn entered(staged: StagedFile) -> Arc<StagedFile> {
        let staged = Arc::new(staged);
        staged.home.enter(&staged);
        if staged.file.lock().is_some() {
            staged.home.note_open(staged.id);
        }
        staged
    }

    /// Returns the id, for its note.
    pub fn id(&self) -> StagedId {
        self.id
    }

    /// Returns the length.
    pub fn len(&self) -> u64 {
        self.shape.lock().len
    }

    /// Returns whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns up to where, at most, the older version still shows through.
    pub fn base(&self) -> u64 {
        self.shape.lock().base.end()
    }

    /// Returns whether nothing shows through any more.
    pub fn is_whole(&self) -> bool {
        self.shape.lock().base.is_empty()
    }

    /// Returns a number that changes before any of its bytes do: who read it first, and finds it the
    /// same after reading bytes, has bytes of one moment.
    pub fn version(&self) -> u64 {
        self.changes()
    }

    /// Takes note that somebody reads a range from now on, to keep a copy of it; false, and no note is
    /// taken, where not all of it is here.
    pub fn lend(&self, range: ByteRange) -> bool {
        let _writing = self.writing.lock();
        let shape = self.shape.lock();
        if range.end() > shape.len || !shape.base.has_none(range) {
            return false;
        }
        self.lent.lock().add(range);
        true
    }

    /// Returns whether a range was lent and has not changed since.
    pub fn is_lent(&self, range: ByteRange) -> bool {
        self.lent.lock().has_all(range)
    }

    /// Makes what was written durable: after a crash it is there, if the file has a note. After a
    /// failure every later sync fails as well, until the file is cut to nothing: what is on the disk
    /// is not known.
    pub fn sync(&self) -> Result<()> {
        self.check_fault()?;
        let Some(now) = self.unsynced() else {
            return Ok(());
        };
        let file = self.handle()?;
        if let Err(error) = file.sync_data() {
            return Err(self.note_fault(&error));
        }
        crash::point("staged.synced");
        self.was_synced(Some(now));
        self.give_back_spare(&file);
        Ok(())
    }

    /// Returns what a sync that begins now makes durable; none when nothing is left to sync.
    pub(super) fn unsynced(&self) -> Option<Synced> {
        let _writing = self.writing.lock();
        let changes = self.changes();
        if self.synced.lock().changes >= changes {
            return None;
        }
        let shape = Some(self.shape.lock().clone());
        Some(Synced { changes, shape })
    }

    /// Takes note of a sync of what [`StagedFile::unsynced`] told before it.
    pub(super) fn was_synced(&self, now: Option<Synced>) {
        let mut synced = self.synced.lock();
        if let Some(now) = now.filter(|now| synced.changes < now.changes) {
            *synced = now;
        }
    }

    /// Fails if the disk did not take what was written, as far as that is known.
    pub(super) fn check_fault(&self) -> Result<()> {
        let fault = self.fault.lock().clone();
        fault.map_or(Ok(()), |fault| Err(self.lost(&fault)))
    }

    /// Takes note that the disk did not take what was written.
    pub(super) fn note_fault(&self, error: &std::io::Error) -> Error {
        let mut fault = self.fault.lock();
        self.lost(fault.get_or_insert_with(|| error.to_string()))
    }

    /// Forgets what the disk did not take: the file has no bytes any more.
    pub(super) fn forget_fault(&self) {
        self.fault.lock().take();
    }

    fn lost(&self, fault: &str) -> Error {
        let path = self.home.file_path(self.id);
        let message = format!(
            "the disk did not take what was written to {}: {fault}",
            path.display()
        );
        Error::new(ErrorKind::Unavailable, message)
    }

    /// Returns what a note says of the shape of the file: as it was when it was last synced.
    /// [`Staging::note`](super::Staging::note) stores it along, so that callers need not.
    pub fn extents(&self) -> Vec<u8> {
        let synced = self.synced.lock();
        let never = || Shape::over(0).encode();
        synced.shape.as_ref().map_or_else(never, Shape::encode)
    }

    /// As [`StagedFile::extents`], as it is now, synced or not.
    pub(super) fn extents_now(&self) -> Vec<u8> {
        let _writing = self.writing.lock();
        self.shape.lock().encode()
    }

    /// As [`StagedFile::extents`], of a file that was synced at least once.
    pub(super) fn extents_synced(&self) -> Result<Vec<u8>> {
        if self.synced.lock().shape.is_none() {
            self.sync()?;
        }
        Ok(self.extents())
    }

    pub(super) fn entry_synced(&self) -> bool {
        self.entry_synced.load(Ordering::Acquire)
    }

    pub(super) fn note_entry_synced(&self) {
        self.entry_synced.store(true, Ordering::Release);
    }

    /// Leaves the file on the disk when it is dropped.
    pub(super) fn keep(&self) {
        self.kept.store(true, Ordering::Release);
    }

    /// Returns the open file, opening it if it was closed.
    pub(super) fn handle(&self) -> Result<Arc<File>> {
        let mut slot = self.file.lock();
        if let Some(file) = &*slot {
            return Ok(Arc::clone(file));
        }
        let context = || format!("open {}", self.home.file_path(self.id).display());
        let opened = self
            .home
            .open(self.id)
            .map_err(|e| disk::fault(&context(), e))?;
        let file = Arc::new(opened);
        *slot = Some(Arc::clone(&file));
        drop(slot);
        self.home.note_open(self.id);
        Ok(file)
    }

    /// Closes the file; false when it is being written, or has bytes that were not synced: an error
    /// of the disk would then be told to nobody.
    pub(super) fn close_if_synced(&self) -> bool {
        // Not waited for: the caller may hold the lock of another file.
        let Some(_writing) = self.writing.try_lock() else {
            return false;
        };
        let synced = self.synced.lock().changes >= self.changes();
        if synced {
            drop(self.file.lock().take());
        }
        synced
    }

    /// Counts the changes so far.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Returns whether its room is part of the capacity of this store.
    pub(crate) fn counts_in(&self, store: &Store) -> bool {
        let shared = self.home.store.as_ref();
        shared.is_some_and(|shared| std::ptr::eq(Arc::as_ptr(shared), store))
    }

    /// Returns what is taken of the capacity for it.
    pub(crate) fn taken(&self) -> u64 {
        self.writing.lock().taken
    }

    /// Cuts off what is allocated behind the end and returns the file.
    pub(crate) fn trimmed(&self) -> Result<Arc<File>> {
        let file = self.handle()?;
        let context = || format!("truncate {}", self.home.file_path(self.id).display());
        file.set_len(self.len())
            .map_err(|e| disk::fault(&context(), e))?;
        Ok(file)
    }

    /// Moves the file into another directory; it is then no longer a staged one, and the caller
    /// takes over what is charged for it.
    pub(crate) fn move_to(&self, to: &OwnedFd, name: &str) -> std::io::Result<()> {
        self.home.move_to(self.id, to, name)?;
        self.keep();
        self.home.leave_room(self.taken());
        Ok(())
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        self.home.forget(self.id);
        if *self.kept.get_mut() {
            return;
        }
        if let Err(error) = self.home.unlink(self.id) {
            let path = self.home.file_path(self.id);
            tracing::warn!("{} cannot be removed: {error}", path.display());
            // It stays charged, for it is still there.
            return;
        }
        crash::point("staged.removed");
        self.home.give_back(self.writing.get_mut().taken);
    }
}
