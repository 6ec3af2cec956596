// SPDX-License-Identifier: Apache-2.0
//! The worker over a storage that counts and can be held back, and a real cache.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "a test may panic, counts small things, and has no runtime handle of its own"
)]

mod hedging;
mod load;
mod names;
mod neighbours;
mod pages;
mod progress;
mod scripted;
mod sync;

use std::sync::Arc;
use std::time::Duration;

use scripted::ScriptedStorage;
use types::{ByteSize, Clock, Deadline, ManualClock, MountId, SystemClock};
use worker::{Settings, Worker};

/// A worker with one storage; the cache directory goes with it.
struct Rig {
    worker: Arc<Worker>,
    storage: Arc<ScriptedStorage>,
    mount: MountId,
    clock: Arc<ManualClock>,
    dir: tempfile::TempDir,
}

const MEMORY: u64 = 16 << 20;
const CAPACITY: u64 = 1 << 30;

impl Rig {
    fn new() -> Self {
        Rig::over(Arc::default(), tempfile::tempdir().unwrap(), true)
    }

    fn without_cache() -> Self {
        Rig::over(Arc::default(), tempfile::tempdir().unwrap(), false)
    }

    fn over(storage: Arc<ScriptedStorage>, dir: tempfile::TempDir, cached: bool) -> Self {
        Rig::with(
            storage,
            dir,
            cached.then_some(CAPACITY),
            Settings::default(),
        )
    }

    /// A rig with a cache of `capacity` bytes, and with settings of its own but for the memory.
    fn with(
        storage: Arc<ScriptedStorage>,
        dir: tempfile::TempDir,
        capacity: Option<u64>,
        settings: Settings,
    ) -> Self {
        let clock = Arc::new(ManualClock::default());
        let cache = capacity.map(|capacity| {
            let settings = cache::Settings {
                dir: dir.path().join("cache"),
                capacity: ByteSize(capacity),
            };
            cache::Store::open(&settings, Arc::clone(&clock) as Arc<dyn Clock>).unwrap()
        });
        let names = dir.path().join("names");
        let metadata = capacity.map(|_| cache::kv::Kv::open(&names, 1 << 20).unwrap());
        let settings = Settings {
            memory: ByteSize(MEMORY),
            ..settings
        };
        let runtime = tokio::runtime::Handle::current();
        let clock_seam = Arc::clone(&clock) as Arc<dyn Clock>;
        let worker = Worker::new(settings, cache, metadata, runtime, clock_seam).unwrap();
        let mount = worker.add_storage(Arc::clone(&storage) as Arc<dyn ufs::UnderStorage>);
        Rig {
            worker,
            storage,
            mount,
            clock,
            dir,
        }
    }

    /// Ends the worker and starts another one over the same storage and directory.
    fn restart(self) -> Self {
        let Rig {
            worker,
            storage,
            dir,
            ..
        } = self;
        worker.close();
        drop(worker);
        Rig::over(storage, dir, true)
    }
}

fn soon() -> Deadline {
    SystemClock.deadline(Duration::from_secs(20))
}

/// Waits for what happens behind the readers.
async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let give_up = soon().instant();
    while !is_true() {
        assert!(give_up.elapsed().is_zero(), "waited for: {what}");
        tokio::task::yield_now().await;
    }
}
