// SPDX-License-Identifier: Apache-2.0
//! Open files and directories, by handle id.
//!
//! Ids are never used twice in the life of a process. The number of handles is bounded by what the
//! kernel lets its processes open.
//!
//! Locks: one leaf lock a shard, held for one map operation.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use types::{ObjectRef, Result};
use worker::LocalFile;

use crate::ino::Ino;
use crate::mounts::MountIndex;
use crate::readahead::ReadAhead;
use crate::written::Cell;

/// The id of an open file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HandleId(pub u64);

/// An open file: one object version from open to release, or a staged file.
#[derive(Debug)]
pub(crate) struct FileHandle {
    pub(crate) ino: Ino,
    pub(crate) mount: MountIndex,
    /// Has the staged file, once somebody writes.
    pub(crate) cell: Arc<Cell>,
    pub(crate) is_writer: bool,
    /// The version that was opened; none when the file was staged then.
    pub(crate) reading: Option<Reading>,
}

impl FileHandle {
    /// Returns the version that was opened.
    pub(crate) fn reading(&self) -> Result<&Reading> {
        let reading = self.reading.as_ref();
        reading.ok_or_else(|| types::Error::internal("a staged file that is not there"))
    }
}

/// An object version that is read.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) object: ObjectRef,
    /// Keeps the version in the cache while the file is open, when it is there whole.
    pub(crate) local_file: Option<LocalFile>,
    /// Guards the access pattern of this handle, for the few lines of one decision.
    pub(crate) read_ahead: Mutex<ReadAhead>,
}

/// Open handles of one sort.
#[derive(Debug)]
pub(crate) struct Handles<T> {
    next: AtomicU64,
    shards: Vec<RwLock<HashMap<u64, Arc<T>>>>,
}

/// Enough that the threads of a door seldom meet.
const SHARDS: u64 = 16;

impl<T> Handles<T> {
    pub(crate) fn new() -> Self {
        Handles {
            next: AtomicU64::new(1),
            shards: (0..SHARDS).map(|_| RwLock::new(HashMap::new())).collect(),
        }
    }

    fn shard(&self, id: HandleId) -> &RwLock<HashMap<u64, Arc<T>>> {
        &self.shards[(id.0 % SHARDS) as usize]
    }

    pub(crate) fn insert(&self, handle: T) -> HandleId {
        let id = HandleId(self.next.fetch_add(1, Ordering::Relaxed));
        self.shard(id).write().insert(id.0, Arc::new(handle));
        id
    }

    /// Returns an open handle; [`types::ErrorKind::Stale`] for one that is not.
    pub(crate) fn get(&self, id: HandleId) -> Result<Arc<T>> {
        self.shard(id)
            .read()
            .get(&id.0)
            .map(Arc::clone)
            .ok_or_else(|| {
                types::Error::new(
                    types::ErrorKind::Stale,
                    format!("handle {} is not open", id.0),
                )
            })
    }

    pub(crate) fn remove(&self, id: HandleId) -> Option<Arc<T>> {
        self.shard(id).write().remove(&id.0)
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_handle_is_stale_and_its_id_is_not_used_again() {
        let handles = Handles::new();
        let first = handles.insert("a");
        assert_eq!(*handles.get(first).unwrap(), "a");
        assert!(handles.remove(first).is_some());
        assert_eq!(
            handles.get(first).unwrap_err().kind(),
            types::ErrorKind::Stale
        );
        assert_ne!(handles.insert("b"), first);
        assert_eq!(handles.len(), 1);
    }
}
