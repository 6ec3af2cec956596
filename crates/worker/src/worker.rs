// SPDX-License-Identifier: Apache-2.0
//! The worker itself: what its parts share, the storages it serves, its start and end.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use types::{ByteSize, Clock, Deadline, Error, ErrorKind, MountId, Result, in_memory};
use ufs::UnderStorage;

use crate::fill::Fill;
use crate::flights::Flights;
use crate::knowledge::Knowledge;
use crate::makes::Makes;
use crate::memory::Budget;
use crate::neighbours::{self, Neighbours};
use crate::pins::Pins;
use crate::rules::Rules;
use crate::schedule::{Requests, Schedule};
use crate::settings::Settings;
use crate::stats::{Counters, Stats};
use crate::veils::Veils;

/// Listings kept in memory may hold one name for each so many bytes of the memory for data: at about
/// 170 bytes a name they then take a third as much.
const BYTES_PER_KEPT_NAME: u64 = 512;

/// Requests for what nobody waits for that are begun, however few are sent at a time.
const GUESSES_MIN: usize = 48;

/// Serves the pages and the names of this node.
#[derive(Debug)]
pub struct Worker {
    pub(crate) settings: Settings,
    pub(crate) cache: Option<Arc<cache::Store>>,
    pub(crate) budget: Arc<Budget>,
    /// What of it uploads may take.
    pub(crate) sending: Budget,
    pub(crate) flights: Arc<Flights>,
    pub(crate) fill: Option<Fill>,
    pub(crate) knowledge: Knowledge,
    pub(crate) veils: Veils,
    pub(crate) makes: Makes,
    pub(crate) pins: Pins,
    pub(crate) rules: Rules,
    pub(crate) neighbours: Mutex<Neighbours>,
    /// The same of directories that are listed.
    pub(crate) walks: Mutex<Neighbours>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) runtime: Handle,
    pub(crate) clock: Arc<dyn Clock>,
    /// The same moment by both clocks.
    pub(crate) started: (Instant, SystemTime),
    /// Nanoseconds by which knowledge ages ahead of both clocks, so that no moment comes twice
    /// that a sync told apart.
    pub(crate) ahead: AtomicU64,
    pub(crate) staging: OnceLock<Arc<cache::staged::Staging>>,
    mounts: RwLock<HashMap<MountId, Arc<Mount>>>,
}

/// One storage, and the state of the way to it.
#[derive(Debug)]
pub(crate) struct Mount {
    pub(crate) storage: Arc<dyn UnderStorage>,
    pub(crate) schedule: Arc<Schedule>,
    /// Until when the storage is left alone where old knowledge can be served instead.
    pub(crate) rests_until: Mutex<Option<Deadline>>,
}

impl Worker {
    /// Makes a worker. Without a cache everything is served from memory and the storage; without
    /// `metadata` names are known for this run only.
    ///
    /// # Errors
    /// `Unavailable` when no thread can be started.
    pub fn new(
        settings: Settings,
        cache: Option<Arc<cache::Store>>,
        metadata: Option<Arc<cache::kv::Kv>>,
        runtime: Handle,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Worker>> {
        let budget = Arc::new(Budget::new(settings.memory));
        let sending = Budget::new(ByteSize(settings.memory.0 / 2));
        let flights = Arc::new(Flights::default());
        let counters = Arc::new(Counters::default());
        let fill = match &cache {
            Some(cache) => Some(Fill::start(
                Arc::clone(cache),
                Arc::clone(&flights),
                Arc::clone(&budget),
                Arc::clone(&counters),
            )?),
            None => None,
        };
        let names_max = in_memory(settings.memory.0 / BYTES_PER_KEPT_NAME);
        Ok(Arc::new(Worker {
            settings,
            cache,
            budget,
            sending,
            flights,
            fill,
            knowledge: Knowledge::new(metadata, names_max)?,
            veils: Veils::default(),
            makes: Makes::default(),
            pins: Pins::default(),
            rules: Rules::default(),
            neighbours: Mutex::new(Neighbours::new(neighbours::FILES)),
            walks: Mutex::new(Neighbours::new(neighbours::DIRECTORIES)),
            counters,
            runtime,
            started: (clock.now(), clock.wall()),
            clock,
            ahead: AtomicU64::new(0),
            staging: OnceLock::new(),
            mounts: RwLock::default(),
        }))
    }

    /// Adds a storage and returns its id, which is the same whenever the same location is added.
    pub fn add_storage(&self, storage: Arc<dyn UnderStorage>) -> MountId {
        let id = MountId::of(storage.identity());
        let of_trouble = Arc::clone(&storage);
        let trouble = move || {
            let counts = of_trouble.counters().snapshot();
            counts.throttled + counts.unanswered
        };
        let schedule = Schedule::new(self.settings.width, Box::new(trouble));
        let mount = Mount {
            storage,
            schedule,
            rests_until: Mutex::new(None),
        };
        // The clock may have been set back since.
        self.pass(self.knowledge.restore_syncs(id, self.moment()));
        self.mounts.write().insert(id, Arc::new(mount));
        id
    }

    /// Caps the bytes of data a second from a storage; none takes the cap off.
    pub fn set_bandwidth(&self, mount: MountId, bytes_per_second: Option<u64>) {
        if let Ok(mount) = self.mount(mount) {
            mount.schedule.set_bandwidth(bytes_per_second);
        }
    }

    /// Returns how many requests for what nobody waits for may be begun: a part of all that may be under
    /// way, so that a reader finds a turn, or some that wait behind readers for theirs.
    pub(crate) fn guesses_at_once(&self, mount: MountId) -> usize {
        let width = self.mount(mount).map_or(1, |mount| mount.schedule.width());
        (width * 3 / 4).max(GUESSES_MIN)
    }

    /// Returns how the requests for data of a storage stand.
    pub fn requests(&self, mount: MountId) -> Option<Requests> {
        let mounts = self.mounts.read();
        mounts.get(&mount).map(|mount| mount.schedule.requests())
    }

    /// Forgets a storage, with its client and its credentials, once what is under way has ended.
    pub fn remove_storage(&self, mount: MountId) {
        self.mounts.write().remove(&mount);
    }

    /// Returns the storage of a mount.
    pub fn storage(&self, mount: MountId) -> Option<Arc<dyn UnderStorage>> {
        self.mounts
            .read()
            .get(&mount)
            .map(|mount| Arc::clone(&mount.storage))
    }

    pub(crate) fn mount(&self, id: MountId) -> Result<Arc<Mount>> {
        let mounts = self.mounts.read();
        mounts
            .get(&id)
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::Stale, "its storage was taken away"))
    }

    /// Returns a snapshot of what was counted.
    pub fn stats(&self) -> Stats {
        let counters = &self.counters;
        let (memory_used, memory_total) = self.budget.usage();
        Stats {
            hits: counters.hits.get(),
            hit_bytes: counters.hit_bytes.get(),
            misses: counters.misses.get(),
            miss_bytes: counters.miss_bytes.get(),
            memory_hits: counters.memory_hits.get(),
            fetched_bytes: counters.fetched_bytes.get(),
            fills_dropped: counters.fills_dropped.get(),
            fills_late: counters.fills_late.get(),
            stale_served: counters.stale_served.get(),
            neighbours: counters.neighbours.get(),
            names_unshowable: counters.names_unshowable.get(),
            memory_used,
            memory_total,
        }
    }

    /// Finishes what is on its way into the cache and into the map of names. Reads go on to work;
    /// nothing more is cached.
    /// Blocks for as long as the queue's bytes take to be written.
    pub fn close(&self) {
        if let Some(fill) = &self.fill {
            fill.close();
        }
        self.knowledge.close();
    }
}
