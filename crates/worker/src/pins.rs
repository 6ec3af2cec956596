// SPDX-License-Identifier: Apache-2.0
//! Places whose objects must stay cached, now and when they are cached later.
//!
//! The cache pins object versions and knows no places; here is known which places are meant. An
//! object that is cached below one of them is pinned as soon as the cache has the first of it, by
//! whatever way it came there: a read, a load, a write, another name. What cannot be pinned, because
//! pins take no more than their part of the cache, is cached as everything else is.

use std::sync::Arc;

use cache::Pin;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use tokio::sync::mpsc;
use types::{ErrorKind, MountId, ObjectPath, ObjectRef, Result, VersionId, VersionTag};

use crate::held::file_of;
use crate::walk::{FOUND_AHEAD, Subtree};
use crate::worker::Worker;

/// A place whose objects must stay cached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedPlace {
    /// The storage.
    pub mount: MountId,
    /// The path in it of a file or a directory.
    pub path: ObjectPath,
    /// The wish that it follows from, which may be of several places.
    pub wish: u64,
}

/// What came of pinning a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PinnedTree {
    /// Files that the storage lists.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files of which anything is cached and pinned.
    pub pinned_files: u64,
    /// Bytes of them that are cached.
    pub pinned_bytes: u64,
    /// Files that are cached and not pinned, because pins take no more of the cache.
    pub refused_files: u64,
}

/// The places.
#[derive(Debug, Default)]
pub(crate) struct Pins(RwLock<Arc<[PinnedPlace]>>);

impl Pins {
    /// Returns why an object must stay, if it must.
    pub(crate) fn of(&self, mount: MountId, path: &ObjectPath) -> Option<Pin> {
        let places = Arc::clone(&self.0.read());
        let covers = |place: &&PinnedPlace| {
            place.mount == mount && (place.path == *path || path.is_below(&place.path))
        };
        let place = places.iter().find(covers)?;
        Some(Pin {
            place: hash(mount, path),
            wish: place.wish,
        })
    }
}

/// Returns what stands for a name.
#[allow(clippy::cast_possible_truncation, reason = "half of a hash is a hash")]
fn hash(mount: MountId, path: &ObjectPath) -> u64 {
    VersionId::of(mount, path, &VersionTag::default()).0 as u64
}

impl Worker {
    /// Says which places are pinned from now on, in place of those before. What is cached is not
    /// looked at: [`Worker::pin_tree`] does that.
    pub fn set_pins(&self, places: Vec<PinnedPlace>) {
        *self.pins.0.write() = places.into();
    }

    /// Pins what is cached of a tree that lies at or below a pinned place.
    ///
    /// # Errors
    /// What the storage said where a directory could not be listed, or the disk; what came before is
    /// pinned.
    pub fn pin_tree(self: &Arc<Self>, tree: Subtree) -> BoxFuture<'static, Result<PinnedTree>> {
        let worker = Arc::clone(self);
        async move {
            let worker = &worker;
            let (sender, mut receiver) = mpsc::channel(FOUND_AHEAD);
            let walking = worker.walk_and_end(&tree, sender);
            let pinning = async move {
                let mut done = PinnedTree::default();
                while let Some(found) = receiver.recv().await {
                    if let Some(object) = file_of(found)? {
                        worker.pin_found(object, &mut done).await?;
                    }
                }
                Ok(done)
            };
            futures::join!(walking, pinning).1
        }
        .boxed()
    }

    /// Lets go what is pinned by wishes that `pick` picks. Blocks while the disk takes note.
    ///
    /// # Errors
    /// What the disk said.
    pub fn unpin_wishes(&self, pick: impl Fn(u64) -> bool) -> Result<u64> {
        match &self.cache {
            Some(cache) => cache.unpin_wishes(pick),
            None => Ok(0),
        }
    }

    async fn pin_found(self: &Arc<Self>, object: ObjectRef, done: &mut PinnedTree) -> Result<()> {
        done.files += 1;
        done.bytes += object.size();
        let cached = self.cached_len(object.id);
        if cached == 0 {
            return Ok(());
        }
        let worker = Arc::clone(self);
        let pin = move || worker.pin_now(object.mount, &object.path, object.id);
        let pinned = self.runtime.spawn_blocking(pin).await;
        match pinned.map_err(|source| types::Error::internal("pin").with_source(source))? {
            Ok(true) => {
                done.pinned_files += 1;
                done.pinned_bytes += cached;
            }
            Ok(false) => {}
            Err(error) if error.kind() == ErrorKind::OutOfSpace => done.refused_files += 1,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Pins an object of a pinned place; false when it is of none or not cached.
    fn pin_now(&self, mount: MountId, path: &ObjectPath, id: VersionId) -> Result<bool> {
        match (&self.cache, self.pins.of(mount, path)) {
            (Some(cache), Some(pin)) => cache.pin(id, pin),
            _ => Ok(false),
        }
    }

    /// As [`Worker::pin_now`], for what has just come into the cache: nobody waits for it.
    pub(crate) fn pin_cached(&self, mount: MountId, path: &ObjectPath, id: VersionId) {
        if let Err(error) = self.pin_now(mount, path, id) {
            tracing::debug!("pin '{path}': {error}");
        }
    }

    /// Returns whether the cache may make room for so many bytes of an object, because it is of a
    /// pinned place.
    pub(crate) fn may_displace(&self, object: &ObjectRef, bytes: u64) -> bool {
        let Some(cache) = &self.cache else {
            return false;
        };
        self.pins.of(object.mount, &object.path).is_some()
            && (cache.is_pinned(object.id) || cache.pin_room() >= bytes.max(object.size()))
    }

    pub(crate) fn is_pinned(&self, id: VersionId) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.is_pinned(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_itself_and_all_below_it_in_its_own_storage() {
        let path = |text: &str| ObjectPath::parse(text.as_bytes()).unwrap();
        let pins = Pins::default();
        assert_eq!(pins.of(MountId(1), &path("a")), None);
        *pins.0.write() = [PinnedPlace {
            mount: MountId(1),
            path: path("a/b"),
            wish: 5,
        }]
        .into();
        let wish = |mount, at: &str| pins.of(MountId(mount), &path(at)).map(|pin| pin.wish);
        assert_eq!(wish(1, "a/b"), Some(5));
        assert_eq!(wish(1, "a/b/c/d"), Some(5));
        for (mount, at) in [(1, "a"), (1, "a/bc"), (2, "a/b")] {
            assert_eq!(wish(mount, at), None, "{mount} {at}");
        }
        let place = |at: &str| pins.of(MountId(1), &path(at)).map(|pin| pin.place);
        assert_ne!(place("a/b/c"), place("a/b/d"));
    }
}
