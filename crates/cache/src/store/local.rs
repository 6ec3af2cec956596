// SPDX-License-Identifier: Apache-2.0
//! Whole objects as files of their own, for those who read files better than we do.
//!
//! Given out are only objects that are complete and checked, and whose files nobody touched since:
//! one look into the index and one `stat`. What the door makes of the file may be left here between
//! two uses, and is then found again without the file being opened.

use std::fs::File;
use std::sync::{Arc, Weak};

use types::VersionId;

use super::Inner;
use crate::files::{self, Stamp};
use crate::index::Entry;
use crate::keepsakes::Keepsake;
use crate::space::Lease;

/// Objects up to this size are checked while the caller waits: about a millisecond.
const CHECK_ON_THE_SPOT_MAX: u64 = 4 << 20;

/// A cached object as a file of its own: complete and checked. While a clone of it lives the object
/// is not evicted.
#[derive(Debug, Clone)]
pub struct LocalFile {
    store: Weak<Inner>,
    id: VersionId,
    birth: u64,
    stamp: Stamp,
    #[allow(dead_code, reason = "held for its drop")]
    lease: Arc<Lease>,
}

impl LocalFile {
    /// Opens the file, which must only be read. None when it was touched since.
    pub fn open(&self) -> Option<File> {
        let file = self.store.upgrade()?.files.open_read(self.id).ok()?;
        let stat = files::stat(&file).ok()?;
        (Stamp::of(&stat) == self.stamp).then_some(file)
    }

    /// Takes what was left with this file.
    pub fn take_keepsake(&self) -> Option<Keepsake> {
        let store = self.store.upgrade()?;
        let take = |entry: &mut Entry| entry.kept.as_mut()?.take(self.stamp);
        store.index.with_birth(self.id, self.birth, take)?
    }

    /// Leaves something with this file, to be found at its next use; dropped at once when the object
    /// is gone or too many others have something, and later when either comes true.
    pub fn leave_keepsake(&self, keepsake: Keepsake) {
        if let Some(store) = self.store.upgrade() {
            let file = (self.id, self.birth, self.stamp);
            let now = store.seconds();
            drop(store.keepsakes.leave(&store.index, file, now, keepsake));
        }
    }
}

impl Inner {
    pub(super) fn local_file(self: &Arc<Self>, id: VersionId) -> Option<LocalFile> {
        if self.is_out_of_service() {
            return None;
        }
        if let Some(found) = self.local_file_believed(id) {
            return Some(found);
        }
        let (whole, size) = self
            .index
            .with(id, |entry| (entry.is_whole(), entry.size))?;
        if !whole {
            return None;
        }
        if size > CHECK_ON_THE_SPOT_MAX {
            self.queue.ask_for_check(id);
            return None;
        }
        self.check_whole(id, || false);
        self.local_file_believed(id)
    }

    fn local_file_believed(self: &Arc<Self>, id: VersionId) -> Option<LocalFile> {
        let seen = self.look(id, Entry::is_whole, |entry| entry.unchecked.is_empty())?;
        if !seen.checked {
            return None;
        }
        // By its name, so that no file need be open: the stamp tells whether it is the same one.
        let stat = self.files.stat(id).ok()?;
        if Stamp::of(&stat) != seen.stamp || u64::try_from(stat.st_size) != Ok(seen.size) {
            return None;
        }
        let lease = self.index.with_birth(id, seen.birth, |entry| {
            entry.lease.upgrade().unwrap_or_else(|| {
                let lease = Lease::new(&self.space);
                entry.lease = Arc::downgrade(&lease);
                lease
            })
        })?;
        Some(LocalFile {
            store: Arc::downgrade(self),
            id,
            birth: seen.birth,
            stamp: seen.stamp,
            lease,
        })
    }
}
