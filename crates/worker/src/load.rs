// SPDX-License-Identifier: Apache-2.0
//! Loads trees into the cache: walks them, fetches what is missing, and counts what is there at last.
//!
//! A load takes what nobody else wants: its requests queue behind demand, readahead and neighbours,
//! it takes free memory only, and it evicts nothing but for objects of pinned places: where the cache
//! has no room left it stops fetching and says so. That it is complete is not concluded from what it did. When nothing is left
//! to fetch, the trees are walked once more, and each file that is listed then must be cached whole
//! in the version that is listed; what came or changed meanwhile is fetched in one more round. Where
//! that is asked for, it is read from the disk then and compared with its checksums, too.
//!
//! The future of a load may be dropped at any time: what was fetched stays, and whoever loads the
//! same trees again fetches only the rest. `part` carries out the fetching of one part of a file.

mod part;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use tokio::sync::mpsc::{self, Receiver};
use types::{ByteSize, Error, ErrorKind, MountId, ObjectPath, ObjectRef, Result};

use crate::walk::{FOUND_AHEAD, Found, Subtree};
use crate::worker::Worker;
use part::{File, Pace, Part, Parts};

/// Failures in a row after which nothing more is fetched: the storage is away, or refuses all.
const FAILURES_MAX: u32 = 64;

/// Rounds of fetching and counting: one, and one for what came or changed during the first.
const ROUNDS: u32 = 2;

/// Missing files that are told of one by one; all are counted.
const MISSING_TOLD_MAX: usize = 200;

/// Says which files of the trees are meant.
pub type Pick = Arc<dyn Fn(&ObjectRef) -> bool + Send + Sync>;

/// What a load is to do.
#[derive(Clone)]
pub struct LoadPlan {
    /// What to load.
    pub trees: Vec<Subtree>,
    /// Which of the files.
    pub pick: Pick,
    /// Whether names are enough, and no bytes are fetched.
    pub metadata_only: bool,
    /// The most bytes to fetch in a second, on average.
    pub bandwidth: Option<ByteSize>,
    /// Whether what is cached is read and compared with its checksums before it counts.
    pub verify: bool,
}

impl fmt::Debug for LoadPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LoadPlan { trees, .. } = self;
        f.debug_struct("LoadPlan")
            .field("trees", trees)
            .finish_non_exhaustive()
    }
}

/// What a load is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadStep {
    /// It walks the trees and fetches.
    #[default]
    Fetching,
    /// It walks them once more and counts what is cached.
    Counting,
    /// As it counts, it compares what is cached with its checksums.
    Verifying,
}

/// How far a load is. Files and bytes are those of this walk that were picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadCounts {
    /// What it is at.
    pub step: LoadStep,
    /// Directories listed.
    pub directories: u64,
    /// Files found.
    pub found_files: u64,
    /// Their bytes.
    pub found_bytes: u64,
    /// Whether all directories were listed, so that no more will be found.
    pub is_listed: bool,
    /// Files of them that are cached whole.
    pub cached_files: u64,
    /// Bytes of them that are cached, also of files that are not whole yet.
    pub cached_bytes: u64,
    /// Bytes that this load fetched, over all walks.
    pub fetched_bytes: u64,
    /// Files that could not be fetched.
    pub failed_files: u64,
}

/// A file or directory that is not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Its storage.
    pub mount: MountId,
    /// Its path there.
    pub path: ObjectPath,
    /// Why.
    pub why: String,
}

/// How a load ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadEnd {
    /// Files and directories that are not loaded; zero when the load is complete.
    pub missing_count: u64,
    /// The first of them, a few hundred at most.
    pub missing: Vec<Missing>,
    /// Why fetching stopped before everything was tried.
    pub halt: Option<String>,
}

impl LoadEnd {
    fn miss(&mut self, mount: MountId, path: ObjectPath, why: impl FnOnce() -> String) {
        self.missing_count += 1;
        if self.missing.len() < MISSING_TOLD_MAX {
            let why = why();
            self.missing.push(Missing { mount, path, why });
        }
    }
}

/// How far a load is, for who watches it.
#[derive(Debug, Default)]
pub struct LoadProgress(Mutex<LoadCounts>);

impl LoadProgress {
    /// Returns how far it is.
    pub fn counts(&self) -> LoadCounts {
        *self.0.lock()
    }

    fn count(&self, change: impl FnOnce(&mut LoadCounts)) {
        change(&mut self.0.lock());
    }

    /// Begins a walk: what was found on another one counts no more.
    fn begin(&self, step: LoadStep) {
        self.count(|counts| {
            *counts = LoadCounts {
                step,
                fetched_bytes: counts.fetched_bytes,
                ..LoadCounts::default()
            };
        });
    }

    fn found(&self, size: u64, is_cached: bool) {
        self.count(|counts| {
            counts.found_files += 1;
            counts.found_bytes += size;
            if is_cached {
                counts.cached_files += 1;
                counts.cached_bytes += size;
            }
        });
    }
}

/// What becomes of a round of fetching.
struct Round<'a> {
    plan: &'a LoadPlan,
    progress: &'a LoadProgress,
    pace: &'a mut Pace,
    /// Why files could not be fetched, of as many as can be told one by one.
    failures: HashMap<(MountId, ObjectPath), String>,
    failures_in_a_row: u32,
    halt: Option<String>,
}

impl Worker {
    /// Loads trees into the cache. Resolves when it is known what of them is cached. `progress` tells
    /// how far it is. Dropping the future is safe and ends the load; what is under way arrives.
    pub fn load(
        self: &Arc<Self>,
        plan: LoadPlan,
        progress: Arc<LoadProgress>,
    ) -> BoxFuture<'static, LoadEnd> {
        let worker = Arc::clone(self);
        async move {
            let mut pace = Pace::new(plan.bandwidth);
            let mut rounds = 1;
            loop {
                let mut round = Round {
                    plan: &plan,
                    progress: &progress,
                    pace: &mut pace,
                    failures: HashMap::new(),
                    failures_in_a_row: 0,
                    halt: None,
                };
                if !plan.metadata_only {
                    worker.fetch_trees(&mut round).await;
                }
                let end = worker.count_trees(&round).await;
                let is_final = end.missing_count == 0 || end.halt.is_some();
                if is_final || !round.failures.is_empty() || rounds == ROUNDS {
                    return end;
                }
                rounds += 1;
            }
        }
        .boxed()
    }

    /// Walks the trees of a plan into a channel; false when nobody took all of it.
    async fn walk_all(self: &Arc<Self>, plan: &LoadPlan, found: mpsc::Sender<Found>) -> bool {
        for tree in &plan.trees {
            self.walk(tree, &found).await;
        }
        !found.is_closed()
    }

    async fn fetch_trees(self: &Arc<Self>, round: &mut Round<'_>) {
        if let Some(halt) = self.no_cache() {
            round.halt = Some(halt);
            return;
        }
        let (plan, progress) = (round.plan, round.progress);
        progress.begin(LoadStep::Fetching);
        let (sender, receiver) = mpsc::channel(FOUND_AHEAD);
        let walking = async {
            let is_listed = self.walk_all(plan, sender).await;
            progress.count(|counts| counts.is_listed = is_listed);
        };
        futures::join!(walking, self.fetch_found(round, receiver));
    }

    /// Says why nothing can be cached, if so.
    fn no_cache(&self) -> Option<String> {
        match &self.cache {
            None => Some("there is no cache".to_owned()),
            Some(cache) => {
                let retired = cache.stats().retired?;
                Some(format!("the cache directory is out of use: {retired}"))
            }
        }
    }

    async fn fetch_found(self: &Arc<Self>, round: &mut Round<'_>, mut found: Receiver<Found>) {
        let (_, memory) = self.budget.usage();
        let mut parts = Parts::new(memory);
        let mut under_way = FuturesUnordered::new();
        let (mut bytes_under_way, mut all_found) = (0, false);
        let mut width = 1;
        loop {
            if let Some(object) = parts.object() {
                width = self.guesses_at_once(object.mount);
            }
            while round.halt.is_none()
                && under_way.len() < width
                && bytes_under_way < memory
                && let Some(len) = parts.next_len()
            {
                let wanted = bytes_under_way + len;
                let displaces = parts
                    .object()
                    .is_some_and(|object| self.may_displace(object, wanted));
                // What is under way may be in the cache by now, and counted twice.
                let is_alone = under_way.is_empty();
                let file = parts.object().cloned();
                if let Some(file) = file.filter(|file| !self.has_quota(file, wanted)) {
                    if is_alone {
                        parts.give_up();
                        self.leave_out(round, &file);
                    }
                    break;
                }
                if !displaces && !self.has_room(wanted) {
                    if is_alone {
                        round.halt = Some(self.full());
                    }
                    break;
                }
                let Some(part) = parts.next() else { break };
                bytes_under_way += len;
                let start = round.pace.start(self.clock.now(), len);
                let fetch = Arc::clone(self).load_part(part, start);
                under_way.push(fetch.boxed());
            }
            let has_turn = under_way.len() < width && parts.next_len().is_none();
            tokio::select! {
                next = found.recv(), if has_turn && !all_found && round.halt.is_none() => match next {
                    Some(found) => parts.begin(self.take_found(round, found)),
                    None => all_found = true,
                },
                Some((part, outcome)) = under_way.next(), if !under_way.is_empty() => {
                    bytes_under_way -= part.len();
                    self.take_part(round, &part, outcome);
                },
                else => return,
            }
        }
    }

    /// Leaves a file out whose path has no quota left: other paths may.
    fn leave_out(&self, round: &mut Round<'_>, object: &ObjectRef) {
        let why =
            "the quota of its path is full: give it more with 'forebay rules set PATH --quota'";
        self.miss_file(round, object, why.to_owned());
    }

    fn full(&self) -> String {
        let capacity = self
            .cache
            .as_ref()
            .map_or(0, |cache| cache.stats().capacity);
        format!(
            "the cache of {} is full, and a load evicts nothing but for what is pinned: free what is \
             not needed with 'forebay free PATH', pin what must be there with 'forebay pin PATH', or \
             mount with a larger --cache-size",
            ByteSize(capacity)
        )
    }

    /// Takes note of what a walk came upon; returns a file that is to be fetched.
    fn take_found(&self, round: &Round<'_>, found: Found) -> Option<Arc<File>> {
        let object = match found {
            Found::File(object) if (round.plan.pick)(&object) => object,
            Found::Directory => {
                round.progress.count(|counts| counts.directories += 1);
                return None;
            }
            // What cannot be listed is told by the count.
            Found::File(_) | Found::Unknown(..) => return None,
        };
        let is_cached = self.is_cached_whole(&object);
        round.progress.found(object.size(), is_cached);
        (!is_cached).then(|| Arc::new(File::new(object)))
    }

    fn take_part(&self, round: &mut Round<'_>, part: &Part, outcome: Result<u64>) {
        let object = &part.file.object;
        match outcome {
            Ok(fetched) => {
                round.failures_in_a_row = 0;
                let is_whole = part.file.arrived(part.len());
                round.progress.count(|counts| {
                    counts.fetched_bytes += fetched;
                    counts.cached_bytes += part.len();
                    counts.cached_files += u64::from(is_whole);
                });
            }
            // The count sees the new version, and the next round fetches it.
            Err(error) if error.kind() == ErrorKind::Stale => {
                self.forget_path(object.mount, &object.path);
            }
            Err(error) => self.take_failure(round, object, &error),
        }
    }

    fn take_failure(&self, round: &mut Round<'_>, object: &ObjectRef, error: &Error) {
        round.failures_in_a_row += 1;
        if round.failures_in_a_row == FAILURES_MAX {
            round.halt = Some(format!("{FAILURES_MAX} requests failed in a row: {error}"));
        }
        self.miss_file(round, object, error.to_string());
    }

    fn miss_file(&self, round: &mut Round<'_>, object: &ObjectRef, why: String) {
        let file = (object.mount, object.path.clone());
        if round.failures.len() < MISSING_TOLD_MAX && !round.failures.contains_key(&file) {
            round.failures.insert(file, why);
            round.progress.count(|counts| counts.failed_files += 1);
        }
    }

    /// Walks the trees and counts what is cached of them.
    async fn count_trees(self: &Arc<Self>, round: &Round<'_>) -> LoadEnd {
        let (plan, progress) = (round.plan, round.progress);
        progress.begin(match plan.verify {
            true => LoadStep::Verifying,
            false => LoadStep::Counting,
        });
        let (sender, mut receiver) = mpsc::channel(FOUND_AHEAD);
        let walking = self.walk_all(plan, sender);
        let counting = async {
            let mut end = LoadEnd {
                halt: round.halt.clone(),
                ..LoadEnd::default()
            };
            while let Some(found) = receiver.recv().await {
                match found {
                    Found::Directory => progress.count(|counts| counts.directories += 1),
                    Found::Unknown(tree, path, error) => {
                        end.miss(tree, path, || error.to_string());
                    }
                    Found::File(object) if (plan.pick)(&object) => {
                        let is_cached = match plan.metadata_only {
                            true => true,
                            false if plan.verify => self.is_cached_well(&object).await,
                            false => self.is_cached_whole(&object),
                        };
                        progress.found(object.size(), is_cached);
                        if !is_cached {
                            let key = (object.mount, object.path);
                            let why = || why_missing(round, &key);
                            end.miss(key.0, key.1.clone(), why);
                        }
                    }
                    Found::File(_) => {}
                }
            }
            progress.count(|counts| counts.is_listed = true);
            end
        };
        futures::join!(walking, counting).1
    }

    /// As [`Worker::is_cached_whole`], having compared its bytes with their checksums. What is bad is
    /// dropped.
    async fn is_cached_well(self: &Arc<Self>, object: &ObjectRef) -> bool {
        let Some(cache) = self.cache.clone() else {
            return false;
        };
        if object.size() == 0 {
            return true;
        }
        let id = object.id;
        let compared = self.runtime.spawn_blocking(move || cache.verify(id));
        compared.await.unwrap_or(false)
    }

    /// An empty file has nothing that could be missing.
    pub(crate) fn is_cached_whole(&self, object: &ObjectRef) -> bool {
        let cache = self.cache.as_ref();
        object.size() == 0 || cache.is_some_and(|cache| cache.contains_whole(object.id))
    }
}

fn why_missing(round: &Round<'_>, file: &(MountId, ObjectPath)) -> String {
    let failure = round.failures.get(file).or(round.halt.as_ref());
    failure.cloned().unwrap_or_else(|| {
        "it came or changed while the load ran, or made way for something else: load again".into()
    })
}
