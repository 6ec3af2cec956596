// SPDX-License-Identifier: Apache-2.0
//! The directory that staged files lie in, and the room that they take.
//!
//! Room is taken before anything is written: of the capacity of the store, where cached objects
//! give way, and of the disk, of which a little is left so that notes can always be written. Files
//! that have nothing unsynced are closed when many are open, and opened again when they are used.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags};
use types::{Error, ErrorKind, Result};

use super::file::StagedFile;
use super::{Room, StagedId, Usage, disk};
use crate::{Store, dir};

/// What staged files leave free on the disk, for the notes.
const DISK_KEPT: u64 = 16 << 20;
/// Files kept open: few next to the usual limit of 1024. Those with unsynced bytes come on top.
const OPEN_FILES_MAX: usize = 256;
/// Digits of the name of a staged file.
const NAME_LEN: usize = 16;

/// The directory of a [`Staging`](super::Staging) and of its files.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) path: PathBuf,
    pub(super) dir: OwnedFd,
    pub(super) store: Option<Arc<Store>>,
    files: Mutex<HashMap<StagedId, Weak<StagedFile>>>,
    /// Files that are open, oldest first.
    open: Mutex<VecDeque<StagedId>>,
    /// What is taken for staged files.
    bytes: AtomicU64,
    /// The lock goes when it is closed.
    _lock: File,
}

impl Home {
    /// Makes the directory if need be and takes hold of it.
    pub(super) fn hold(path: PathBuf, store: Option<Arc<Store>>) -> Result<Home> {
        let context = || format!("directory of staged files {}", path.display());
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path);
        made.map_err(|e| Error::io("cannot be made", e).context(context()))?;
        let lock = dir::lock(&path)?;
        let private = std::fs::Permissions::from_mode(0o700);
        let opened = std::fs::set_permissions(&path, private).and_then(|()| {
            if let Some(parent) = path.parent() {
                File::open(parent)?.sync_all()?;
            }
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            Ok(rustix::fs::open(&path, flags, Mode::empty())?)
        });
        Ok(Home {
            dir: opened.map_err(|e| Error::io("cannot be used", e).context(context()))?,
            path,
            store,
            files: Mutex::default(),
            open: Mutex::default(),
            bytes: AtomicU64::new(0),
            _lock: lock,
        })
    }

    /// Takes room for `bytes`, which must not be there yet.
    pub(super) fn take(&self, bytes: u64) -> Result<()> {
        if let Some(store) = &self.store {
            store.reserve(bytes)?;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let short = match self.disk_free() {
            Ok((free, _)) if free >= bytes.saturating_add(DISK_KEPT) => return Ok(()),
            Ok(_) => Error::new(
                ErrorKind::OutOfSpace,
                format!(
                    "the disk of {} is full: free some space on it",
                    self.path.display()
                ),
            ),
            Err(error) => error,
        };
        self.give_back(bytes);
        Err(short)
    }

    /// Takes room for what is on the disk already.
    pub(super) fn charge(&self, bytes: u64) {
        if let Some(store) = &self.store {
            store.charge_staged(bytes);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, bytes: u64) {
        if let Some(store) = &self.store {
            store.give_back_staged(bytes);
        }
        self.leave_room(bytes);
    }

    /// Leaves room to somebody else who is charged for it in the store.
    pub(super) fn leave_room(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            files: self.files.lock().len() as u64,
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    pub(super) fn room(&self) -> Result<Room> {
        let (free, size) = self.disk_free()?;
        let free = free.saturating_sub(DISK_KEPT);
        let disk = Room { total: size, free };
        let staged = self.bytes.load(Ordering::Relaxed);
        Ok(match &self.store {
            Some(store) => store.room_for_staged(staged, disk),
            None => disk,
        })
    }

    /// Returns the bytes that are free on the disk, and its size.
    fn disk_free(&self) -> Result<(u64, u64)> {
        let stat = rustix::fs::fstatvfs(&self.dir)
            .map_err(|e| Error::io("ask for free space", e.into()))?;
        Ok((stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
    }

    /// Remembers a file by its id, until it is dropped.
    pub(super) fn enter(&self, file: &Arc<StagedFile>) {
        self.files.lock().insert(file.id(), Arc::downgrade(file));
    }

    pub(super) fn forget(&self, id: StagedId) {
        self.files.lock().remove(&id);
    }

    /// Returns the file of an id, if it is alive.
    pub(super) fn file(&self, id: StagedId) -> Option<Arc<StagedFile>> {
        self.files.lock().get(&id).and_then(Weak::upgrade)
    }

    /// Makes the file of an id.
    pub(super) fn create(&self, id: StagedId) -> std::io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        self.open_file(id, flags)
    }

    /// Opens the file of an id.
    pub(super) fn open(&self, id: StagedId) -> std::io::Result<File> {
        self.open_file(id, OFlags::RDWR)
    }

    fn open_file(&self, id: StagedId, flags: OFlags) -> std::io::Result<File> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(File::from(rustix::fs::openat(
            &self.dir,
            name(id),
            flags,
            mode,
        )?))
    }

    /// Counts an open file, and closes another one when there are many.
    pub(super) fn note_open(&self, id: StagedId) {
        let mut open = self.open.lock();
        open.push_back(id);
        if open.len() <= OPEN_FILES_MAX {
            return;
        }
        let oldest = open.pop_front();
        drop(open);
        if let Some(oldest) = oldest.and_then(|id| self.file(id))
            && !oldest.close_if_synced()
        {
            self.open.lock().push_back(oldest.id());
        }
    }

    /// Removes the file of an id from the disk.
    pub(super) fn unlink(&self, id: StagedId) -> std::io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.dir, name(id), AtFlags::empty())?)
    }

    /// Moves the file of an id away, under a name in another directory of the same file system.
    pub(super) fn move_to(
        &self,
        id: StagedId,
        to: &OwnedFd,
        new_name: &str,
    ) -> std::io::Result<()> {
        Ok(rustix::fs::renameat(&self.dir, name(id), to, new_name)?)
    }

    /// Returns the ids of all files in the directory.
    pub(super) fn list(&self) -> Result<Vec<StagedId>> {
        let listed = rustix::fs::Dir::read_from(&self.dir).and_then(|entries| {
            let mut ids = Vec::new();
            for entry in entries {
                ids.extend(parse_name(entry?.file_name().to_bytes()));
            }
            Ok(ids)
        });
        listed.map_err(|e| disk::fault("list staged files", e.into()))
    }

    /// Puts the file of an id where it is kept for a person to look at, and returns where that is.
    pub(super) fn set_aside(&self, id: StagedId) -> Result<PathBuf> {
        let moved = match rustix::fs::mkdirat(&self.dir, super::LOST, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {
                let to = format!("{}/{}", super::LOST, name(id));
                rustix::fs::renameat(&self.dir, name(id), &self.dir, to)
            }
            Err(error) => Err(error),
        };
        moved.map_err(|e| {
            let path = self.file_path(id);
            Error::io(
                format!("move {} to {}", path.display(), super::LOST),
                e.into(),
            )
        })?;
        Ok(self.path.join(super::LOST).join(name(id)))
    }

    /// Returns the path of the file of an id, for messages.
    pub(super) fn file_path(&self, id: StagedId) -> PathBuf {
        self.path.join(name(id))
    }
}

/// Returns the directory of staged files below `dir`.
pub(super) fn path_below(dir: &Path) -> PathBuf {
    dir.join("staged")
}

fn name(id: StagedId) -> String {
    format!("{:0NAME_LEN$x}", id.0)
}

fn parse_name(name: &[u8]) -> Option<StagedId> {
    let text = std::str::from_utf8(name)
        .ok()
        .filter(|text| text.len() == NAME_LEN)?;
    let id = StagedId(u64::from_str_radix(text, 16).ok()?);
    (self::name(id).as_bytes() == name).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_we_give_are_ours() {
        let id = StagedId(3 << 40 | 0xab);
        assert_eq!(name(id), "00000300000000ab");
        assert_eq!(parse_name(name(id).as_bytes()), Some(id));
        for other in [
            "",
            "LOCK",
            "notes",
            "..",
            "+0000300000000ab",
            "00000300000000AB",
        ] {
            assert_eq!(parse_name(other.as_bytes()), None, "{other}");
        }
    }
}
