// SPDX-License-Identifier: Apache-2.0
//! Fetches the small files of a tree ahead of the job that reads it.
//!
//! One task a tree lists it, from what is known or from the storage, and keeps as many files
//! under way as the storage's schedule gives to guesses, behind demand and readahead: at the schedule, and in memory, where it takes
//! only what is free. It never evicts anything: it ends when the cache has no room left, when the
//! readers have gone, and when the storage fails. A failure is nobody's but its own: a reader that
//! needs the file asks again.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc::{self, Receiver};
use types::{ErrorKind, Freshness, ObjectRef, Result};

use super::{Tree, TreeAhead};
use crate::schedule::Class;
use crate::settings::WHOLE_MAX;
use crate::walk::{FOUND_AHEAD, Found, Subtree};
use crate::worker::Worker;

/// Directories listed at a time.
const LISTINGS: usize = 4;

/// How often a tree that may not go on looks whether it may by now.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Room in the cache that is left to what readers ask for themselves: one part in so many.
const ROOM_FOR_DEMAND: u64 = 32;

/// Failures after which a tree is given up.
const FAILURES_MAX: u32 = 8;

impl Worker {
    /// Takes note of an open: of whether it was answered from the cache or had to wait for the
    /// storage, and of what it says about the file's neighbours.
    pub fn opened(self: &Arc<Self>, object: &ObjectRef, from_cache: bool, freshness: Freshness) {
        let counters = &self.counters;
        if from_cache {
            &counters.hits
        } else {
            &counters.misses
        }
        .add(1);
        if !self.settings.neighbours || self.cache.is_none() {
            return;
        }
        let now = self.clock.now();
        let missed = !from_cache;
        let tree = self
            .neighbours
            .lock()
            .on_open(now, object.mount, &object.path, missed);
        let Some(tree) = tree else { return };
        let worker = Arc::clone(self);
        self.runtime.spawn(async move {
            tracing::debug!(dir = %tree.1, "fetching a tree ahead of its readers");
            let subtree = Subtree::all_below(&tree, freshness);
            let (sender, receiver) = mpsc::channel(FOUND_AHEAD);
            let finding = async {
                worker.walk_directory(&subtree, LISTINGS, &sender).await;
                drop(sender);
            };
            let fetching = worker.fetch_files(&tree, receiver);
            futures::join!(finding, fetching);
            worker.neighbours.lock().end(worker.clock.now(), &tree);
        });
    }

    /// Returns the trees that are being fetched ahead of their readers.
    pub fn trees_ahead(&self) -> Vec<TreeAhead> {
        self.neighbours.lock().trees()
    }

    /// Returns the object of what was found in a tree if it is a small file that is not cached.
    fn is_missing(&self, tree: &Tree, found: Found) -> Option<ObjectRef> {
        let object = match found {
            Found::File(object) if (1..=WHOLE_MAX).contains(&object.size()) => object,
            Found::File(_) | Found::Directory => return None,
            Found::Unknown(_, dir, error) => {
                tracing::debug!(%dir, %error, "a directory is left out of a tree");
                return None;
            }
        };
        let cache = self.cache.as_ref();
        let is_cached = cache.is_some_and(|cache| cache.contains_whole(object.id));
        self.neighbours
            .lock()
            .progress(tree, 1, u64::from(is_cached));
        (!is_cached).then_some(object)
    }

    async fn fetch_files(self: &Arc<Self>, tree: &Tree, mut receiver: Receiver<Found>) {
        let mut under_way = FuturesUnordered::new();
        let (mut bytes_under_way, mut fetched, mut failures) = (0, 0, 0);
        loop {
            let width = self.guesses_at_once(tree.0);
            let (size, done) = tokio::select! {
                found = receiver.recv(), if under_way.len() < width => match found {
                    Some(found) => {
                        let Some(object) = self.is_missing(tree, found) else {
                            continue;
                        };
                        let size = object.size();
                        if !self.has_quota(&object, bytes_under_way + size) {
                            continue;
                        }
                        if !self.has_room(bytes_under_way + size)
                            || !self.may_fetch(tree, fetched).await
                        {
                            return;
                        }
                        fetched += 1;
                        bytes_under_way += size;
                        let fetch = Arc::clone(self).fetch_neighbour(object);
                        under_way.push(fetch.map(move |done| (size, done)).boxed());
                        continue;
                    }
                    None => match under_way.next().await {
                        Some(done) => done,
                        None => return,
                    },
                },
                Some(done) = under_way.next() => done,
            };
            bytes_under_way -= size;
            match done {
                Ok(()) => self.neighbours.lock().progress(tree, 0, 1),
                Err(error) => {
                    failures += 1;
                    if failures == FAILURES_MAX {
                        tracing::debug!(dir = %tree.1, %error, "a tree is given up");
                        return;
                    }
                }
            }
        }
    }

    /// Returns whether the cache can take so many bytes and evict nothing.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        self.cache.as_ref().is_some_and(|cache| {
            let room_for_demand = cache.stats().capacity / ROOM_FOR_DEMAND;
            cache.free() >= bytes + room_for_demand
        })
    }

    /// Waits until one more file of a tree may be fetched; false when its readers have gone.
    async fn may_fetch(&self, tree: &Tree, fetched: u64) -> bool {
        loop {
            let allowance = self.neighbours.lock().allowance(self.clock.now(), tree);
            match allowance {
                None => return false,
                Some(allowance) if fetched < allowance => return true,
                Some(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Fetches one file whole, in memory that nobody else wants.
    async fn fetch_neighbour(self: Arc<Self>, object: ObjectRef) -> Result<()> {
        let pages = types::ByteRange::new(0, object.size()).pages();
        let is_cached = |pages| self.present(&object, pages);
        let missing = self.flights.missing(object.id, pages, is_cached);
        if missing == 0 {
            return Ok(());
        }
        let deadline = self.clock.deadline(self.settings.background_deadline);
        let mut share = loop {
            match self.take_ahead(missing) {
                Some(share) => break share,
                None if self.clock.now() >= deadline.instant() => return Ok(()),
                None => tokio::time::sleep(LOOK_AGAIN).await,
            }
        };
        let pieces = self
            .flights
            .claim(object.id, pages, pages.first, missing, is_cached);
        self.counters.neighbours.add(u64::from(!pieces.is_empty()));
        self.launch(
            &object,
            pieces.clone(),
            &mut share,
            Class::Neighbour,
            deadline,
        );
        drop(share);
        for piece in pieces {
            if let Err(error) = piece.wait_landed(deadline).await {
                if error.kind() == ErrorKind::Stale {
                    self.forget_path(object.mount, &object.path);
                }
                return Err(error);
            }
            piece.wait_settled(deadline).await?;
        }
        Ok(())
    }
}
