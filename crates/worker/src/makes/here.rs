// SPDX-License-Identifier: Apache-2.0
//! What is known of directories that their storages do not have yet.
//!
//! Asked with one load while there are none. One lock, a leaf.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use cache::staged::StagedId;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use types::meta::Extras;
use types::{Error, ErrorKind, Name, NodeKind, ObjectMeta, Result, VersionTag};
use ufs::{FileAttributes, ListEntry};

use super::{Unmade, WIDTH};
use crate::knowledge::Place;
use crate::meta::Listing;

/// The directories of all storages that are here and not there.
#[derive(Debug)]
pub(crate) struct Makes {
    count: AtomicUsize,
    /// How often what is here has changed.
    turns: AtomicU64,
    table: Mutex<Table>,
    /// How many wait until none is left.
    hurrying: watch::Sender<usize>,
    /// How many are left.
    left: watch::Sender<usize>,
    turn: Semaphore,
}

#[derive(Debug, Default)]
struct Table {
    /// By the directory above.
    dirs: HashMap<Place, BTreeMap<Name, Make>>,
    /// What is being renamed.
    held: Vec<Place>,
}

#[derive(Debug)]
struct Make {
    staged: StagedId,
    attributes: FileAttributes,
    /// How often they were changed.
    changes: u64,
    /// The storage was asked, and may have it.
    is_begun: bool,
    since_ns: i64,
    error: Option<String>,
    making: Arc<tokio::sync::Mutex<()>>,
}

/// Keeps directories from being put off at a place and below.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    makes: &'a Makes,
    place: Place,
}

impl Default for Makes {
    fn default() -> Self {
        Makes {
            count: AtomicUsize::new(0),
            turns: AtomicU64::new(0),
            table: Mutex::default(),
            hurrying: watch::Sender::new(0),
            left: watch::Sender::new(0),
            turn: Semaphore::new(WIDTH),
        }
    }
}

impl Makes {
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Returns a number that changes with what is here: an answer of the storage that was asked for
    /// before a change counts no more.
    pub(crate) fn turn(&self) -> u64 {
        self.turns.load(Ordering::SeqCst)
    }

    /// Takes note of a directory; false where it must not be put off.
    pub(super) fn begin(
        &self,
        place: &Place,
        staged: StagedId,
        attributes: &FileAttributes,
        since_ns: i64,
    ) -> Result<bool> {
        let Some((above, name)) = key(place) else {
            return Ok(false);
        };
        let mut table = self.table.lock();
        if table.held.iter().any(|held| is_within(place, held)) {
            return Ok(false);
        }
        let names = table.dirs.entry(above).or_default();
        if names.contains_key(&name) {
            let message = format!("'{}' exists", place.1);
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        let make = Make {
            staged,
            attributes: attributes.clone(),
            changes: 0,
            is_begun: false,
            since_ns,
            error: None,
            making: Arc::default(),
        };
        names.insert(name, make);
        self.changed(1);
        Ok(true)
    }

    /// Counts what came or went; the caller has the lock.
    fn changed(&self, by: isize) {
        let before = match by {
            1 => self.count.fetch_add(1, Ordering::Release) + 1,
            _ => self.count.fetch_sub(1, Ordering::Release) - 1,
        };
        self.turns.fetch_add(1, Ordering::SeqCst);
        self.left.send_replace(before);
    }

    fn with<T>(&self, place: &Place, of: impl FnOnce(&mut Make) -> T) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let (above, name) = key(place)?;
        let mut table = self.table.lock();
        table.dirs.get_mut(&above)?.get_mut(&name).map(of)
    }

    /// Takes a directory off if it is one of those that `may`.
    fn remove_if(&self, place: &Place, may: impl FnOnce(&Make) -> bool) -> Option<StagedId> {
        let (above, name) = key(place).filter(|_| !self.is_empty())?;
        let mut table = self.table.lock();
        let names = table.dirs.get_mut(&above)?;
        let staged = names.get(&name).filter(|make| may(make))?.staged;
        names.remove(&name);
        if names.is_empty() {
            table.dirs.remove(&above);
        }
        self.changed(-1);
        Some(staged)
    }

    pub(super) fn remove(&self, place: &Place) -> Option<StagedId> {
        self.remove_if(place, |_| true)
    }

    pub(super) fn remove_unbegun(&self, place: &Place) -> Option<StagedId> {
        self.remove_if(place, |make| !make.is_begun)
    }

    /// Returns the lock of who makes a directory that is to be made.
    pub(super) fn making(&self, place: &Place) -> Option<Arc<tokio::sync::Mutex<()>>> {
        self.with(place, |make| Arc::clone(&make.making))
    }

    /// Returns what a directory is to have; the storage is asked from here on.
    pub(super) fn wanted(&self, place: &Place) -> Option<(FileAttributes, u64)> {
        self.with(place, |make| {
            make.is_begun = true;
            (make.attributes.clone(), make.changes)
        })
    }

    /// Takes a directory off that is made as it was wanted then; returns what is wanted now if that is
    /// something else.
    pub(super) fn made(
        &self,
        place: &Place,
        changes: u64,
    ) -> std::result::Result<Option<StagedId>, (FileAttributes, u64)> {
        if let Some(staged) = self.remove_if(place, |make| make.changes == changes) {
            return Ok(Some(staged));
        }
        self.wanted(place).map_or(Ok(None), Err)
    }

    pub(super) fn amend(
        &self,
        place: &Place,
        attributes: &FileAttributes,
    ) -> Option<(StagedId, FileAttributes)> {
        self.with(place, |make| {
            let now = &mut make.attributes;
            now.owner = attributes.owner.or(now.owner);
            now.mtime_ns = attributes.mtime_ns.or(now.mtime_ns);
            now.xattrs = attributes.xattrs.clone().or_else(|| now.xattrs.take());
            make.changes += 1;
            (make.staged, make.attributes.clone())
        })
    }

    /// Returns whether a directory is noted under an id.
    pub(super) fn is_noted(&self, place: &Place, staged: StagedId) -> bool {
        self.with(place, |make| make.staged == staged)
            .unwrap_or(false)
    }

    pub(super) fn failed(&self, place: &Place, error: &Error) {
        self.with(place, |make| make.error = Some(error.to_string()));
    }

    /// Returns what a place is: a directory, or nothing because it lies in one that its storage does
    /// not have. None where the storage decides.
    pub(super) fn answer(&self, place: &Place) -> Option<Option<ObjectMeta>> {
        if let Some(meta) = self.with(place, |make| meta_of(&make.attributes, make.since_ns)) {
            return Some(Some(meta));
        }
        let (above, _) = key(place).filter(|_| !self.is_empty())?;
        self.with(&above, |_| None)
    }

    /// Returns the names in a directory that its storage does not have.
    pub(super) fn listing(&self, dir: &Place) -> Option<Listing> {
        self.with(dir, |_| ())?;
        Some(self.complete(dir, Listing::from([])))
    }

    /// Adds to a listing what its storage does not have.
    pub(crate) fn complete(&self, dir: &Place, listing: Listing) -> Listing {
        if self.is_empty() {
            return listing;
        }
        let table = self.table.lock();
        let Some(names) = table.dirs.get(dir) else {
            return listing;
        };
        let mut all: BTreeMap<&Name, ListEntry> = BTreeMap::new();
        for (name, make) in names {
            let meta = meta_of(&make.attributes, make.since_ns);
            let entry = ListEntry {
                name: name.clone(),
                meta,
            };
            all.insert(name, entry);
        }
        let theirs = listing
            .iter()
            .filter(|entry| !names.contains_key(&entry.name));
        all.extend(theirs.map(|entry| (&entry.name, entry.clone())));
        all.into_values().collect()
    }

    pub(super) fn has_below(&self, dir: &Place) -> bool {
        !self.is_empty() && self.table.lock().dirs.contains_key(dir)
    }

    /// Returns what is at a place and below it.
    pub(super) fn below(&self, place: &Place) -> Vec<Place> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut all = self.places();
        all.retain(|found| is_within(found, place));
        all
    }

    fn places(&self) -> Vec<Place> {
        let table = self.table.lock();
        let all = table.dirs.iter().flat_map(|((id, above), names)| {
            let place = |name| (*id, above.join(name));
            names.keys().map(place)
        });
        all.collect()
    }

    pub(super) fn all(&self) -> Vec<Unmade> {
        if self.is_empty() {
            return Vec::new();
        }
        let table = self.table.lock();
        let all = table.dirs.iter().flat_map(|((mount, above), names)| {
            names.iter().map(|(name, make)| Unmade {
                mount: *mount,
                path: above.join(name),
                since_ns: make.since_ns,
                error: make.error.clone(),
            })
        });
        all.collect()
    }

    pub(super) fn hold(&self, place: &Place) -> Held<'_> {
        self.table.lock().held.push(place.clone());
        Held {
            makes: self,
            place: place.clone(),
        }
    }

    /// Waits for one of the turns of the background.
    pub(super) async fn turn_to_make(&self) -> Option<SemaphorePermit<'_>> {
        self.turn.acquire().await.ok()
    }

    pub(super) fn hurried(&self) -> watch::Receiver<usize> {
        self.hurrying.subscribe()
    }

    /// Resolves when there are none; until then none is put off.
    pub(super) async fn emptied(&self) {
        self.hurrying.send_modify(|hurrying| *hurrying += 1);
        let _ends = Hurry(&self.hurrying);
        let mut left = self.left.subscribe();
        // The sender is here: it does not go away.
        left.wait_for(|left| *left == 0).await.ok();
    }
}

/// Somebody waits until nothing is left to make.
struct Hurry<'a>(&'a watch::Sender<usize>);

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|hurrying| *hurrying -= 1);
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut table = self.makes.table.lock();
        if let Some(at) = table.held.iter().position(|held| *held == self.place) {
            table.held.swap_remove(at);
        }
    }
}

/// Waits for a while, or until somebody is in a hurry.
pub(super) async fn rest(mut hurried: watch::Receiver<usize>, pause: Duration) {
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        _ = hurried.wait_for(|hurrying| *hurrying > 0) => {}
    }
}

/// Describes a directory as its storage will.
pub(super) fn meta_of(attributes: &FileAttributes, since_ns: i64) -> ObjectMeta {
    let extras = |xattrs: &Arc<types::Xattrs>| {
        let xattrs = Arc::clone(xattrs);
        Arc::new(Extras { link: None, xattrs })
    };
    ObjectMeta {
        kind: NodeKind::Directory,
        tag: VersionTag {
            etag: None,
            mtime_ns: attributes.mtime_ns.unwrap_or(since_ns),
            size: 0,
        },
        owner: attributes.owner,
        extras: attributes.xattrs.as_ref().map(extras),
    }
}

fn key(place: &Place) -> Option<(Place, Name)> {
    let (above, name) = place.1.split()?;
    Some(((place.0, above), name))
}

/// Returns whether a place is another or lies below it.
fn is_within(place: &Place, other: &Place) -> bool {
    place.0 == other.0 && (place.1 == other.1 || place.1.is_below(&other.1))
}
