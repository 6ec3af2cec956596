// SPDX-License-Identifier: Apache-2.0
//! Lists the directories of a tree ahead of who walks it.
//!
//! Who walks asks for one directory after the other. Once a few were asked for, the rest is listed: all
//! at once where the storage can (`flat`), else in the same order, several at a time. The walk then
//! finds them known, or on their way. Only trees of small directories are listed so: names take memory.
//!
//! Who lists a directory and then the first one in it walks, most likely: its siblings are asked for at
//! the same time.

use std::sync::Arc;

use tokio::sync::mpsc;
use types::{Deadline, Freshness, MountId, NodeKind, ObjectPath};
use ufs::ListEntry;

use super::Tree;
use super::load::LOOK_AGAIN;
use crate::walk::{Found, Subtree};
use crate::worker::Worker;

/// Directories listed at a time for one walk.
const LISTINGS: usize = 16;

/// Names of a directory that make it a small one.
pub(super) const SMALL: usize = 5000;

/// Names of a directory that make it a tiny one. A tree of such is listed at once: pages come one after
/// the other, so where directories are larger several listings at a time are faster.
const TINY: usize = 64;

impl Worker {
    /// Takes note of a listing that somebody asked for, of `names` where the storage had to be asked,
    /// and of what it says about the rest of the tree.
    pub fn listed(
        self: &Arc<Self>,
        mount: MountId,
        dir: &ObjectPath,
        freshness: Freshness,
        names: Option<usize>,
    ) {
        let is_worth_it =
            freshness != Freshness::Always && names.is_none_or(|names| names <= SMALL);
        if !self.settings.neighbours || !is_worth_it {
            return;
        }
        let now = self.clock.now();
        let tree = (self.walks.lock()).on_open(now, mount, dir, names.is_some());
        let Some(tree) = tree else { return };
        let worker = Arc::clone(self);
        self.runtime
            .spawn(async move { worker.list_ahead(&tree, freshness, names).await });
    }

    /// Takes note of a listing that somebody asks for and that the storage has to be asked for.
    pub(crate) fn lists(
        self: &Arc<Self>,
        mount: MountId,
        dir: &ObjectPath,
        freshness: Freshness,
        deadline: Deadline,
    ) {
        if !self.settings.neighbours || freshness == Freshness::Always {
            return;
        }
        let Some((above, _)) = dir.split() else {
            return;
        };
        let now = self.clock.now();
        if !self.walks.lock().missed_lately(now, mount, &above) {
            return;
        }
        let Some((_, listing)) = self.knowledge.small_listing(mount, &above) else {
            return;
        };
        let is_directory = |entry: &&ListEntry| entry.meta.kind == NodeKind::Directory;
        let dirs = listing.iter().filter(is_directory);
        let dirs: Vec<_> = dirs.take(LISTINGS).map(|e| above.join(&e.name)).collect();
        let tree = (mount, above);
        if dirs.first() != Some(dir) || !self.walks.lock().on_first(now, &tree) {
            return;
        }
        let list = |dir| self.list_unnoticed(mount, dir, freshness, deadline);
        let mut begun = dirs.into_iter().map(list);
        let first = begun.next();
        for listing in begun {
            self.runtime.spawn(listing);
        }
        let worker = Arc::clone(self);
        self.runtime.spawn(async move {
            let first = match first {
                Some(first) => first.await.ok(),
                None => None,
            };
            let names = first.map(|listed| listed.value.len());
            worker.list_ahead(&tree, freshness, names).await;
        });
    }

    /// Lists a tree of which one directory has so many names, where that is known.
    async fn list_ahead(self: &Arc<Self>, tree: &Tree, freshness: Freshness, names: Option<usize>) {
        tracing::debug!(dir = %tree.1, "listing a tree ahead of who walks it");
        let is_small = names.is_none_or(|names| names <= SMALL);
        let is_tiny = names.is_some_and(|names| names <= TINY);
        if is_small && (!is_tiny || !self.list_flat(tree).await) {
            self.list_tree(tree, freshness).await;
        }
        self.walks.lock().end(self.clock.now(), tree);
    }

    async fn list_tree(self: &Arc<Self>, tree: &Tree, freshness: Freshness) {
        let subtree = Subtree::all_below(tree, freshness);
        // Nothing is found far ahead of what may be listed.
        let (sender, mut receiver) = mpsc::channel(LISTINGS);
        let finding = async {
            self.walk_directory(&subtree, LISTINGS, &sender).await;
            drop(sender);
        };
        let following = async move {
            let mut listed = 0;
            while let Some(found) = receiver.recv().await {
                match found {
                    Found::File(_) => {}
                    Found::Directory => {
                        listed += 1;
                        if !self.may_list(tree, listed).await {
                            return;
                        }
                    }
                    Found::Unknown(_, dir, error) => {
                        tracing::debug!(%dir, %error, "a tree is not listed any further");
                        return;
                    }
                }
            }
        };
        futures::join!(finding, following);
    }

    /// Waits until one more directory may be listed; false when nobody walks the tree any more.
    pub(super) async fn may_list(&self, tree: &Tree, listed: u64) -> bool {
        loop {
            let allowance = self.walks.lock().allowance(self.clock.now(), tree);
            match allowance {
                None => return false,
                Some(allowance) if listed < allowance => return true,
                Some(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }
}
