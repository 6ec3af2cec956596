// SPDX-License-Identifier: Apache-2.0
//! What changes a staged file, and the room that it takes for that.
//!
//! Room is taken in steps that grow with the file, and what a write may allocate is counted against
//! it by an upper bound; the kernel is asked for the true number only when the bound meets the room.
//! Nothing that was there is written over before the disk has given all blocks that a write needs,
//! so that a full disk leaves the file as it was.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use types::{ByteRange, Error, ErrorKind, Result, crash};

use super::disk;
use super::file::StagedFile;

/// The usual allocation unit of file systems.
const BLOCK: u64 = 4096;
/// Room is taken as much as the file has already, within these bounds.
const STEP_MIN: u64 = 64 << 10;
const STEP_MAX: u64 = 8 << 20;
/// The largest file that the kernel knows.
const LEN_MAX: u64 = i64::MAX as u64;

/// The room of a file; held locked over every change of it.
#[derive(Debug, Default)]
pub(super) struct Writing {
    /// What is taken of the capacity.
    pub(super) taken: u64,
    /// What the file has allocated, at most.
    spent: u64,
}

/// What the modes of `fallocate` come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allocation {
    Reserve,
    Zero,
    Punch,
}

impl Writing {
    pub(super) fn holding(bytes: u64) -> Self {
        Writing {
            taken: bytes,
            spent: bytes,
        }
    }
}

/// Returns what a file takes on the disk.
pub(super) fn allocated(file: &File) -> io::Result<u64> {
    let stat = rustix::fs::fstat(file)?;
    Ok(u64::try_from(stat.st_blocks).unwrap_or(0) * 512)
}

impl StagedFile {
    /// Writes all bytes at `offset`. After an error none of them counts.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.write_locked(&mut self.writing.lock(), offset, bytes)
    }

    /// Writes all bytes at the end and returns where that was.
    pub fn append(&self, bytes: &[u8]) -> Result<u64> {
        let mut writing = self.writing.lock();
        let end = self.len();
        self.write_locked(&mut writing, end, bytes)?;
        Ok(end)
    }

    fn write_locked(&self, writing: &mut Writing, offset: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let range = checked(offset, bytes.len() as u64)?;
        let file = self.handle()?;
        let (len, over_base) = {
            let shape = self.shape.lock();
            (shape.len, !shape.base.has_none(range))
        };
        self.want(writing, &file, cost(range, len))?;
        self.changed();
        // What lies between the end and a write behind it becomes zeros, and was never lent.
        self.lent.lock().remove(range);
        if offset > len {
            self.sparse.store(true, Ordering::Relaxed);
        }
        // In place, over bytes that count, and into blocks that may be missing.
        if offset < len && (over_base || range.end() > len || self.sparse.load(Ordering::Relaxed)) {
            self.allocate_blocks(&file, range)?;
        }
        if let Err(error) = file.write_all_at(bytes, offset) {
            self.undo_growth(&file, len);
            return Err(self.fault("write", error));
        }
        crash::point("staged.written");
        self.shape.lock().written(range);
        Ok(())
    }

    /// Cuts the file, or makes it longer with a hole.
    pub fn truncate(&self, len: u64) -> Result<()> {
        let mut writing = self.writing.lock();
        checked(0, len)?;
        let file = self.handle()?;
        let before = self.shape.lock().clone();
        if len == before.len {
            return Ok(());
        }
        self.changed();
        self.lent.lock().cut(len);
        // A file is never shorter than its shape.
        if len < before.len {
            self.shape.lock().resize(len);
        }
        if let Err(error) = file.set_len(len) {
            *self.shape.lock() = before;
            return Err(self.fault("truncate", error));
        }
        if len > before.len {
            self.sparse.store(true, Ordering::Relaxed);
            self.shape.lock().resize(len);
        } else {
            self.give_back_locked(&mut writing, &file);
        }
        if len == 0 {
            self.forget_fault();
        }
        Ok(())
    }

    /// As `fallocate`: mode 0, KEEP_SIZE, PUNCH_HOLE and ZERO_RANGE; others are Unsupported.
    pub fn allocate(&self, mode: u32, range: ByteRange) -> Result<()> {
        let (what, keep_size) = allocation(mode)?;
        if range.len == 0 {
            return Err(Error::new(ErrorKind::Invalid, "fallocate of no bytes"));
        }
        let range = checked(range.offset, range.len)?;
        let mut writing = self.writing.lock();
        let file = self.handle()?;
        let len = self.len();
        if what != Allocation::Punch {
            self.want(&mut writing, &file, cost(range, 0))?;
        }
        self.changed();
        self.lent.lock().remove(range);
        self.sparse.store(true, Ordering::Relaxed);
        let new_len = match keep_size {
            true => len,
            false => len.max(range.end()),
        };
        if let Err(error) = allocate_on_disk(&file, what, range, new_len) {
            self.undo_growth(&file, len);
            return Err(match Errno::from_io_error(&error) {
                Some(Errno::OPNOTSUPP) => Error::new(
                    ErrorKind::Unsupported,
                    "the local file system has no fallocate",
                ),
                _ => self.fault("fallocate", error),
            });
        }
        {
            let mut shape = self.shape.lock();
            if what != Allocation::Reserve {
                shape.base.remove(range);
            }
            shape.len = new_len;
        }
        if what == Allocation::Punch {
            self.give_back_locked(&mut writing, &file);
        }
        Ok(())
    }

    /// Puts bytes of the older version where it still shows through; a write that was first stays.
    pub fn fill_base(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let range = checked(offset, bytes.len() as u64)?;
        let mut writing = self.writing.lock();
        let file = self.handle()?;
        let parts: Vec<ByteRange> = self.shape.lock().base.within(range).collect();
        if parts.is_empty() {
            return Ok(());
        }
        self.changed();
        for part in parts {
            self.want(&mut writing, &file, cost(part, 0))?;
            let from = types::in_memory(part.offset - offset);
            let part_bytes = &bytes[from..from + types::in_memory(part.len)];
            file.write_all_at(part_bytes, part.offset)
                .map_err(|e| self.fault("write", e))?;
            self.shape.lock().base.remove(part);
        }
        Ok(())
    }

    /// Takes the room for bytes that somebody puts into the file by another way.
    pub(super) fn reserve(&self, range: ByteRange) -> Result<()> {
        let mut writing = self.writing.lock();
        let file = self.handle()?;
        self.changed();
        self.sparse.store(true, Ordering::Relaxed);
        self.want(&mut writing, &file, cost(range, 0))
    }

    /// Notes that the file is no longer what was synced.
    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Sees to it that there is room for `cost` more bytes.
    fn want(&self, writing: &mut Writing, file: &File, cost: u64) -> Result<()> {
        if writing.spent + cost > writing.taken {
            writing.spent = allocated(file).map_err(|e| self.fault("look at", e))?;
        }
        let missing = (writing.spent + cost).saturating_sub(writing.taken);
        if missing > 0 {
            let step = missing.max(writing.taken.clamp(STEP_MIN, STEP_MAX));
            let got = match self.home.take(step) {
                Ok(()) => step,
                Err(_) if step > missing => self.home.take(missing).map(|()| missing)?,
                Err(error) => return Err(error),
            };
            writing.taken += got;
        }
        writing.spent += cost;
        Ok(())
    }

    /// Has the disk give all blocks of a range, where the file system can do that.
    fn allocate_blocks(&self, file: &File, range: ByteRange) -> Result<()> {
        match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, range.offset, range.len) {
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(self.fault("write", error.into())),
        }
    }

    /// Takes back what a failed write has appended.
    fn undo_growth(&self, file: &File, len: u64) {
        if let Err(error) = file.set_len(len) {
            let path = self.home.file_path(self.id());
            tracing::warn!("{} cannot be cut to {len} bytes: {error}", path.display());
        }
    }

    /// Gives back room that the file does not need for what it has.
    pub(super) fn give_back_spare(&self, file: &File) {
        self.give_back_locked(&mut self.writing.lock(), file);
    }

    fn give_back_locked(&self, writing: &mut Writing, file: &File) {
        let Ok(spent) = allocated(file) else {
            return;
        };
        let spare = writing.taken.saturating_sub(spent);
        writing.spent = spent;
        writing.taken -= spare;
        self.home.give_back(spare);
    }

    fn fault(&self, what: &str, error: io::Error) -> Error {
        let path = self.home.file_path(self.id());
        disk::fault(&format!("{what} {}", path.display()), error)
    }
}

/// Returns the range, if a file can have it.
fn checked(offset: u64, len: u64) -> Result<ByteRange> {
    match offset.checked_add(len) {
        Some(end) if end <= LEN_MAX => Ok(ByteRange::new(offset, len)),
        _ => Err(Error::new(
            ErrorKind::Invalid,
            format!("{len} bytes at {offset}: no file can be as long"),
        )),
    }
}

/// Returns what a write may allocate, at most. What is appended shares a block with what is there.
fn cost(range: ByteRange, len: u64) -> u64 {
    let start = match range.offset == len {
        true => range.offset.next_multiple_of(BLOCK),
        false => range.offset / BLOCK * BLOCK,
    };
    range.end().next_multiple_of(BLOCK).saturating_sub(start)
}

fn allocation(mode: u32) -> Result<(Allocation, bool)> {
    let flags = FallocateFlags::from_bits_retain(mode);
    let keep_size = flags.contains(FallocateFlags::KEEP_SIZE);
    let rest = flags.difference(FallocateFlags::KEEP_SIZE);
    let what = match rest {
        rest if rest.is_empty() => Some(Allocation::Reserve),
        FallocateFlags::ZERO_RANGE => Some(Allocation::Zero),
        FallocateFlags::PUNCH_HOLE if keep_size => Some(Allocation::Punch),
        _ => None,
    };
    let refused = || {
        Error::new(
            ErrorKind::Unsupported,
            format!("fallocate of mode {mode:#x}"),
        )
    };
    Ok((what.ok_or_else(refused)?, keep_size))
}

fn allocate_on_disk(file: &File, what: Allocation, range: ByteRange, len: u64) -> io::Result<()> {
    let keep = FallocateFlags::KEEP_SIZE;
    let punch = || {
        let mode = FallocateFlags::PUNCH_HOLE | keep;
        rustix::fs::fallocate(file, mode, range.offset, range.len)
    };
    match what {
        Allocation::Punch => punch()?,
        Allocation::Reserve => rustix::fs::fallocate(file, keep, range.offset, range.len)?,
        Allocation::Zero => {
            let mode = FallocateFlags::ZERO_RANGE | keep;
            match rustix::fs::fallocate(file, mode, range.offset, range.len) {
                // As a tmpfs.
                Err(Errno::OPNOTSUPP) => {
                    punch()?;
                    rustix::fs::fallocate(file, keep, range.offset, range.len)?;
                }
                other => other?,
            }
        }
    }
    let stat = rustix::fs::fstat(file)?;
    match u64::try_from(stat.st_size).is_ok_and(|now| now < len) {
        true => file.set_len(len),
        false => Ok(()),
    }
}
