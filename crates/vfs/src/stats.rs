// SPDX-License-Identifier: Apache-2.0
//! What the namespace counts, and what `statfs` shows.

use std::sync::atomic::{AtomicU64, Ordering};

use worker::{Room, Space};

/// A snapshot of what is in use and what was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Inodes that the kernel or a handle knows, the root among them.
    pub inodes: u64,
    /// Open files.
    pub files_open: u64,
    /// Open directories.
    pub dirs_open: u64,
    /// Opens of files.
    pub opens: u64,
    /// Lookups.
    pub lookups: u64,
    /// Lookups that had to ask the storage.
    pub lookups_pending: u64,
    /// Reads answered at once.
    pub read_hits: u64,
    /// Reads that had to ask the storage.
    pub read_misses: u64,
    /// Bytes given to readers; a file that is handed over whole counts at its open.
    pub served_bytes: u64,
    /// Bytes asked for ahead of the readers.
    pub read_ahead_bytes: u64,
    /// Opens and reads that found their object version gone.
    pub stale: u64,
    /// Inodes that the kernel forgot.
    pub forgotten: u64,
}

/// What `statfs` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsStats {
    /// Size of a block in bytes.
    pub block_size: u32,
    /// Blocks of the file system.
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// Inodes of the file system.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// Longest name in bytes.
    pub name_max: u32,
}

/// The longest name that can be made, in bytes: what any file system takes. Longer ones that a
/// storage has are shown all the same.
pub const NEW_NAME_MAX: u32 = 255;

impl FsStats {
    /// Tells the room of a storage that has bounds. What is written must also fit where it is staged
    /// (`room`; none where nothing is written), so no more than that is free. Where nothing has
    /// bounds, an exbibyte, all of it free, keeps programs content that look for room, and disk
    /// alarms quiet.
    pub(crate) fn of(room: Option<Room>, space: Option<Space>) -> Self {
        const BLOCK: u32 = 4096;
        const FILES: u64 = 1 << 40;
        const BOUNDLESS: u64 = 1 << 60;
        let staged = room.map_or(BOUNDLESS, |room| room.free);
        let (total, free) = match (space, room) {
            (Some(space), _) => (space.total, space.free.min(staged)),
            (None, Some(room)) => (room.total, room.free),
            (None, None) => (BOUNDLESS, BOUNDLESS),
        };
        let (files, files_free) = match space.filter(|space| space.files > 0) {
            Some(space) => (space.files, space.files_free),
            None => (FILES, FILES),
        };
        let name_max = match room {
            Some(_) => NEW_NAME_MAX,
            None => u32::try_from(types::name::NAME_MAX).unwrap_or(u32::MAX),
        };
        FsStats {
            block_size: BLOCK,
            blocks: total / u64::from(BLOCK),
            blocks_free: free / u64::from(BLOCK),
            files,
            files_free,
            name_max,
        }
    }
}

/// Counts what is done. Relaxed: nothing is decided by these.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The running counts behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) opens: Counter,
    pub(crate) lookups: Counter,
    pub(crate) lookups_pending: Counter,
    pub(crate) read_hits: Counter,
    pub(crate) read_misses: Counter,
    pub(crate) served_bytes: Counter,
    pub(crate) read_ahead_bytes: Counter,
    pub(crate) stale: Counter,
    pub(crate) forgotten: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_fits_the_storage_and_where_it_is_staged() {
        let space = Space {
            total: 100 << 20,
            free: 50 << 20,
            files: 10,
            files_free: 7,
        };
        let room = |free| {
            Some(Room {
                total: 1 << 30,
                free,
            })
        };
        let of = |room, space| {
            let stats = FsStats::of(room, space);
            (stats.blocks >> 8, stats.blocks_free >> 8)
        };
        assert_eq!(of(None, Some(space)), (100, 50));
        assert_eq!(of(room(20 << 20), Some(space)), (100, 20));
        assert_eq!(of(room(80 << 20), Some(space)), (100, 50));
        assert_eq!(of(room(80 << 20), None), (1024, 80));
        assert_eq!(FsStats::of(None, Some(space)).files_free, 7);
        assert_eq!(FsStats::of(None, None).blocks_free, (1 << 60) / 4096);
    }
}
