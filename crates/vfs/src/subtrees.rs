// SPDX-License-Identifier: Apache-2.0
//! What a path of the tree stands for in the storages: what loads, frees and measures it.
//!
//! A path is a place in the storage around it and all mounts below it. What a mount covers of the
//! storage around it does not show in the tree, so it is not part of the path either.

use types::{ObjectPath, Result};
use worker::Subtree;

use crate::mounts::MountTable;
use crate::sync::targets;
use crate::vfs::Vfs;

/// A subtree of a storage, and where it is in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubtreeAt {
    /// Where its storage is mounted.
    pub mounted_at: ObjectPath,
    /// The subtree.
    pub subtree: Subtree,
    /// Whether it is the path itself, and not a mount below it.
    pub is_path: bool,
}

impl Vfs {
    /// Returns what a path of the tree stands for, the place that it is itself first. Asks no
    /// storage: there may be nothing at that place.
    ///
    /// # Errors
    /// `NotFound` when nothing is mounted at, above or below the path.
    pub fn subtrees(&self, path: &ObjectPath) -> Result<Vec<SubtreeAt>> {
        let table = self.mount_table();
        let targets = targets(&table, path)?.into_iter();
        let subtrees = targets.map(|target| {
            let spec = table.spec(target.index);
            SubtreeAt {
                mounted_at: spec.at.clone(),
                subtree: Subtree {
                    mount: spec.id,
                    path: target.place.path,
                    freshness: spec.freshness,
                    hidden: hidden(&table, &spec.at),
                },
                is_path: target.at == *path,
            }
        });
        Ok(subtrees.collect())
    }
}

/// Returns the paths of a storage mounted at `at` that other mounts cover.
fn hidden(table: &MountTable, at: &ObjectPath) -> Vec<ObjectPath> {
    let below = table.live_below(at);
    let paths = below.filter_map(|(_, spec)| {
        let rest = spec.at.as_bytes().strip_prefix(at.as_bytes())?;
        let rest = rest.strip_prefix(b"/").unwrap_or(rest);
        ObjectPath::parse(rest).ok()
    });
    paths.collect()
}
