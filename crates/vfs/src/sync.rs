// SPDX-License-Identifier: Apache-2.0
//! Looking at the storages anew because somebody says that they have changed.
//!
//! A path of the tree stands for a place in a storage and for all mounts below it. Each storage is
//! asked for its own place (`worker`); what answers is then taken back from whoever believed it, as
//! when mounts change ([`crate::remount`]). Directories that are known to be what they were are left
//! alone, because programs may be in them.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use types::{Error, ErrorKind, NodeKind, ObjectPath, Result};
use worker::{Found, Listing, Synced};

use crate::mounts::{MountIndex, MountTable, Place, components};
use crate::remount::Outdated;
use crate::vfs::Vfs;

/// Storages that are asked at the same time.
const WIDTH: usize = 8;

/// What was synced, and what doors have to take back for it.
#[derive(Debug)]
pub struct SyncDone {
    /// The places in storages that the path stands for; at least one.
    pub places: Vec<SyncedPlace>,
    /// What a kernel may still believe.
    pub outdated: Vec<Outdated>,
}

/// A place in one storage that was synced, or could not be.
#[derive(Debug)]
pub struct SyncedPlace {
    /// Where it is in the tree.
    pub path: ObjectPath,
    /// Its storage.
    pub uri: String,
    /// What the storage said. After an error what was known is known still.
    pub outcome: Result<Synced>,
}

/// A place in one storage that a path of the tree stands for.
pub(crate) struct Target {
    pub(crate) place: Place,
    pub(crate) index: MountIndex,
    pub(crate) at: ObjectPath,
}

impl Vfs {
    /// Asks the storages for a path of the tree and forgets what was known of it and below. When this
    /// returns and the doors have taken back what is outdated, a change that was made before is
    /// seen, whatever the freshness of the mount. Open files stay what they were opened as.
    ///
    /// # Errors
    /// `NotFound` when nothing is mounted there, or there is nothing and never was as far as is
    /// known. What single storages said is in the answer.
    pub fn sync(self: &Arc<Self>, path: &ObjectPath) -> BoxFuture<'static, Result<SyncDone>> {
        let (vfs, path) = (Arc::clone(self), path.clone());
        async move { vfs.sync_now(&path).await }.boxed()
    }

    async fn sync_now(self: Arc<Self>, path: &ObjectPath) -> Result<SyncDone> {
        let table = self.mount_table();
        let targets = targets(&table, path)?;
        let leads_to_mounts = targets.len() > 1;
        let asked = targets.into_iter().map(|target| {
            let spec = table.spec(target.index);
            let place = target.place.path.clone();
            let asked = self.worker.sync(spec.id, place, self.deadline());
            asked.map(|outcome| (target, outcome))
        });
        let asked: Vec<_> = futures::stream::iter(asked).buffered(WIDTH).collect().await;
        self.promises.begin_age();
        let mut done = SyncDone {
            places: Vec::new(),
            outdated: Vec::new(),
        };
        for (target, outcome) in asked {
            let uri = table.spec(target.index).uri.clone();
            if let Ok(synced) = &outcome {
                done.outdated
                    .extend(self.outdated(&table, &target, &synced.found));
                if let Found::Absent { was_known: false } = synced.found {
                    if leads_to_mounts && target.place.path != ObjectPath::root() {
                        continue;
                    }
                    let message = format!("'{}' does not exist in '{uri}'", target.place.path);
                    return Err(Error::new(ErrorKind::NotFound, message));
                }
            }
            let path = target.at;
            done.places.push(SyncedPlace { path, uri, outcome });
        }
        Ok(done)
    }

    /// Returns what a kernel may believe of a place and below.
    fn outdated(&self, table: &MountTable, target: &Target, found: &Found) -> Vec<Outdated> {
        let (mount, dir) = (target.index, &target.place.path);
        let mut outdated = Vec::new();
        if let Found::Directory(meta, listing) = found {
            let number = self.number_of(table, &target.place);
            if let Some(ino) = number.filter(|_| !dir.is_root()) {
                self.namespace.renew(ino, meta);
            }
            outdated.extend(number.map(Outdated::Attributes));
            outdated.extend(self.renew_children(table, &target.place, listing));
        } else if let Some((parent, name)) = dir.split()
            && !table.is_implied(&target.place)
        {
            let parent = Place {
                mount: Some(mount),
                path: parent,
            };
            outdated.extend(self.name(table, &parent, name.as_bytes()));
        }
        let names = self.names_of(table, mount, |parent, name| {
            let is_within = parent == dir || parent.is_below(dir);
            is_within && !(parent == dir && is_directory(found, name))
        });
        outdated.extend(names);
        outdated.extend(self.take_absent(table, mount, dir));
        outdated
    }

    /// Tells the known directories in a directory that was just listed what they look like now.
    fn renew_children(&self, table: &MountTable, dir: &Place, listing: &Listing) -> Vec<Outdated> {
        let directories = listing
            .iter()
            .filter(|entry| entry.meta.kind == NodeKind::Directory);
        let known = directories.filter_map(|entry| {
            let child = Place {
                mount: dir.mount,
                path: dir.path.join(&entry.name),
            };
            let ino = self.number_of(table, &child)?;
            self.namespace.renew(ino, &entry.meta);
            Some(Outdated::Attributes(ino))
        });
        known.collect()
    }
}

/// Returns whether a name was just listed as a directory: its inode is the one that it was.
fn is_directory(found: &Found, name: &types::Name) -> bool {
    let Found::Directory(_, listing) = found else {
        return false;
    };
    let at = listing.binary_search_by(|entry| entry.name.cmp(name));
    at.is_ok_and(|at| listing[at].meta.kind == NodeKind::Directory)
}

/// Returns the places in storages that a path stands for, the one that it is itself first.
pub(crate) fn targets(table: &MountTable, path: &ObjectPath) -> Result<Vec<Target>> {
    let mut place = table.root().clone();
    for name in components(path)? {
        place = match table.enter(&place, name.as_bytes()) {
            Some(next) => next.clone(),
            None => Place {
                mount: place.mount,
                path: place.path.join(&name),
            },
        };
    }
    let own = place.mount.map(|index| Target {
        place: place.clone(),
        index,
        at: path.clone(),
    });
    let below = table.live_below(path).map(|(index, spec)| Target {
        place: Place {
            mount: Some(index),
            path: ObjectPath::root(),
        },
        index,
        at: spec.at.clone(),
    });
    let targets: Vec<_> = own.into_iter().chain(below).collect();
    if targets.is_empty() {
        let message = format!("nothing is mounted at, above or below '/{path}'");
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    Ok(targets)
}
