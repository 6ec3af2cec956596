// SPDX-License-Identifier: Apache-2.0
//! What of a tree is cached, and dropping it.
//!
//! The cache knows object versions and no paths, so the tree is walked, and the versions that are
//! listed are looked up. An older version that is cached still is nobody's: it is neither counted
//! nor dropped here, and goes when room is wanted. What is written and not stored yet is not of the
//! cache, and stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use types::{Error, ObjectPath, ObjectRef, Result, VersionId};

use crate::walk::{FOUND_AHEAD, Found, Subtree};
use crate::worker::Worker;

/// Files dropped in one go, away from the runtime's threads.
const DROPPED_AT_ONCE: usize = 256;

/// Names in one directory that are counted each for itself; more are counted together. A directory of
/// millions of files then takes a megabyte or two.
const CHILDREN_MAX: usize = 10_000;

/// What of a tree is cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// Files that the storage lists.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files of them that are cached whole.
    pub cached_files: u64,
    /// Bytes of them that are cached.
    pub cached_bytes: u64,
    /// Those of them that are pinned.
    pub pinned_bytes: u64,
}

/// What of a tree is cached, name by name of its topmost directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeldByName {
    /// What lies at a name or below it.
    pub names: BTreeMap<Vec<u8>, HeldName>,
    /// What lies at names that were too many to count each.
    pub rest: Held,
}

/// What of a name is cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeldName {
    /// Whether it is a directory.
    pub is_directory: bool,
    /// What lies there.
    pub held: Held,
}

impl Held {
    /// Adds what another tree has.
    pub fn add(&mut self, other: Held) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.cached_files += other.cached_files;
        self.cached_bytes += other.cached_bytes;
        self.pinned_bytes += other.pinned_bytes;
    }
}

impl HeldByName {
    /// Adds what lies at a name.
    pub fn add(&mut self, name: &[u8], is_directory: bool, held: Held) {
        if let Some(known) = self.names.get_mut(name) {
            known.is_directory |= is_directory;
            known.held.add(held);
        } else if self.names.len() < CHILDREN_MAX {
            let first = HeldName { is_directory, held };
            self.names.insert(name.to_vec(), first);
        } else {
            self.rest.add(held);
        }
    }

    /// Adds what another tree has at the same names.
    pub fn join(&mut self, other: HeldByName) {
        for (name, one) in other.names {
            self.add(&name, one.is_directory, one.held);
        }
        self.rest.add(other.rest);
    }

    /// Returns what all names have together.
    pub fn sum(&self) -> Held {
        let mut sum = self.rest;
        self.names.values().for_each(|name| sum.add(name.held));
        sum
    }
}

/// What was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freed {
    /// Files of which anything was cached.
    pub files: u64,
    /// Bytes that were.
    pub bytes: u64,
    /// Bytes that are pinned, and stay.
    pub pinned_bytes: u64,
}

impl Worker {
    /// Returns what of a tree is cached, by the names in its topmost directory; a file is under the
    /// empty name.
    ///
    /// # Errors
    /// What the storage said where a directory could not be listed.
    pub fn held(self: &Arc<Self>, tree: Subtree) -> BoxFuture<'static, Result<HeldByName>> {
        let worker = Arc::clone(self);
        async move {
            let worker = &worker;
            let (sender, mut receiver) = mpsc::channel(FOUND_AHEAD);
            let walking = worker.walk_and_end(&tree, sender);
            let top = &tree.path;
            // It takes the receiver along: when it fails, the walk ends.
            let counting = async move {
                let mut held = HeldByName::default();
                while let Some(found) = receiver.recv().await {
                    if let Some(object) = file_of(found)? {
                        let (name, is_directory) = name_below(top, &object.path);
                        held.add(name, is_directory, worker.held_of(&object));
                    }
                }
                Ok(held)
            };
            futures::join!(walking, counting).1
        }
        .boxed()
    }

    fn held_of(&self, object: &ObjectRef) -> Held {
        let cached_bytes = self.cached_len(object.id);
        Held {
            files: 1,
            bytes: object.size(),
            cached_files: u64::from(self.is_cached_whole(object)),
            cached_bytes,
            pinned_bytes: match self.is_pinned(object.id) {
                true => cached_bytes,
                false => 0,
            },
        }
    }

    /// Drops what is cached of a tree and not pinned. Nothing changes in the storage; files that are open are read
    /// on, from there where they must.
    ///
    /// # Errors
    /// What the storage said where a directory could not be listed; what came before is dropped.
    pub fn free(self: &Arc<Self>, tree: Subtree) -> BoxFuture<'static, Result<Freed>> {
        let worker = Arc::clone(self);
        async move {
            let worker = &worker;
            let (sender, mut receiver) = mpsc::channel(FOUND_AHEAD);
            let walking = worker.walk_and_end(&tree, sender);
            let dropping = async move {
                let mut freed = Freed::default();
                let mut batch = Vec::new();
                while let Some(found) = receiver.recv().await {
                    let Some(object) = file_of(found)? else {
                        continue;
                    };
                    let bytes = worker.cached_len(object.id);
                    if worker.is_pinned(object.id) {
                        freed.pinned_bytes += bytes;
                    } else if bytes > 0 {
                        freed.files += 1;
                        freed.bytes += bytes;
                        batch.push(object.id);
                    }
                    if batch.len() == DROPPED_AT_ONCE {
                        worker.drop_all(std::mem::take(&mut batch)).await?;
                    }
                }
                worker.drop_all(batch).await?;
                Ok(freed)
            };
            futures::join!(walking, dropping).1
        }
        .boxed()
    }

    /// The channel ends with the walk.
    pub(crate) async fn walk_and_end(
        self: &Arc<Self>,
        tree: &Subtree,
        sender: mpsc::Sender<Found>,
    ) {
        self.walk(tree, &sender).await;
    }

    pub(crate) fn cached_len(&self, id: VersionId) -> u64 {
        self.cache.as_ref().map_or(0, |cache| cache.cached_len(id))
    }

    pub(crate) async fn drop_all(self: &Arc<Self>, ids: Vec<VersionId>) -> Result<()> {
        let Some(cache) = self.cache.clone() else {
            return Ok(());
        };
        let dropping = move || ids.into_iter().for_each(|id| cache.remove(id));
        let dropped = self.runtime.spawn_blocking(dropping).await;
        dropped.map_err(|source| Error::internal("drop cached files").with_source(source))
    }
}

/// Returns the name in a directory that a path lies at or below, and whether it lies below.
fn name_below<'a>(top: &ObjectPath, path: &'a ObjectPath) -> (&'a [u8], bool) {
    let below = path.as_bytes().strip_prefix(top.as_bytes());
    let below = below.unwrap_or(path.as_bytes());
    let below = below.strip_prefix(b"/").unwrap_or(below);
    match below.iter().position(|&byte| byte == b'/') {
        Some(at) => (&below[..at], true),
        None => (below, false),
    }
}

/// Returns the file that was found, if it is one.
pub(crate) fn file_of(found: Found) -> Result<Option<ObjectRef>> {
    match found {
        Found::File(object) => Ok(Some(object)),
        Found::Directory => Ok(None),
        Found::Unknown(_, path, error) => Err(error.context(format!("look at '{path}'"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ObjectPath {
        ObjectPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_path_counts_for_the_name_that_leads_to_it() {
        for (top, below, name) in [
            ("", "a", ("a", false)),
            ("", "a/b/c", ("a", true)),
            ("a", "a/b/c", ("b", true)),
            ("a/b", "a/b/c", ("c", false)),
            ("a/b", "a/b", ("", false)),
        ] {
            let (top, below) = (path(top), path(below));
            assert_eq!(name_below(&top, &below), (name.0.as_bytes(), name.1));
        }
    }

    #[test]
    fn names_beyond_the_bound_are_counted_together() {
        let mut all = HeldByName::default();
        let one = Held {
            files: 1,
            bytes: 2,
            ..Held::default()
        };
        for number in 0..CHILDREN_MAX + 5 {
            all.add(number.to_string().as_bytes(), false, one);
        }
        all.add(b"7", true, one);
        assert_eq!(all.names.len(), CHILDREN_MAX);
        assert_eq!((all.rest.files, all.names[&b"7"[..]].held.bytes), (5, 4));
        assert_eq!(all.sum().files, CHILDREN_MAX as u64 + 6);
    }
}
