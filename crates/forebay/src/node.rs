// SPDX-License-Identifier: Apache-2.0
//! A running daemon as its operator sees it: the answers behind the admin API.
//!
//! Collects the counters of the rooms into the words of the wire, and carries an unmount out:
//! politely until the patience ends, or by force. Holds no logic of a room.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use cache::kv::Kv;
use gateway::history::{self, History};
use gateway::{Node, NodeFuture, wire};
use tokio::sync::watch;
use types::{Clock, Error, ErrorKind, Result};
use vfs::Vfs;
use worker::Worker;

use crate::jobs::Jobs;
use crate::logging::Log;
use crate::mounts::Mounts;
use crate::pins::Pins;
use crate::plan::Plan;
use crate::rules::Rules;
use crate::scrub::Scrubs;
use crate::sync::Syncs;

/// How long an end waits for the storages to take what was written.
pub(crate) const STORE_MAX: Duration = Duration::from_secs(10);

/// For how long traffic is counted after somebody asked.
const WATCHED: Duration = Duration::from_secs(5);

/// Pauses between two attempts to unmount a mount in use, from the first to the longest.
const ATTEMPT_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// The rooms of a daemon, in the order of a read.
pub(crate) struct Rooms {
    pub(crate) session: Arc<fuse::Session>,
    pub(crate) vfs: Arc<Vfs>,
    pub(crate) worker: Arc<Worker>,
    pub(crate) store: Arc<cache::Store>,
    pub(crate) metadata: Arc<Kv>,
    pub(crate) mounts: Arc<Mounts>,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) pins: Arc<Pins>,
    pub(crate) rules: Arc<Rules>,
}

/// A running daemon.
pub(crate) struct DaemonNode {
    plan: Plan,
    rooms: Rooms,
    syncs: Arc<Syncs>,
    scrubs: Arc<Scrubs>,
    log: Log,
    history: History,
    clock: Arc<dyn Clock>,
    started: Instant,
    /// Becomes true when the mount is gone, whoever unmounted it.
    ended: watch::Receiver<bool>,
    /// Whether the end has waited for the storages.
    has_rested: AtomicBool,
}

impl DaemonNode {
    /// Takes the rooms over and begins to watch the mount.
    pub(crate) fn new(
        plan: Plan,
        rooms: Rooms,
        log: Log,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<DaemonNode> {
        let (end, ended) = watch::channel(false);
        let session = Arc::clone(&rooms.session);
        let watch = move || {
            if let Err(error) = session.wait() {
                tracing::error!("serve the kernel: {error}");
            }
            end.send_replace(true);
        };
        std::thread::Builder::new()
            .name("forebay-watch".into())
            .spawn(watch)
            .context("start a thread")?;
        let started = clock.now();
        let syncs = Syncs::new(Arc::clone(&rooms.vfs), Arc::clone(&rooms.session));
        let scrubs = Scrubs::new(Arc::clone(&rooms.store), Arc::clone(&clock));
        Ok(DaemonNode {
            plan,
            syncs,
            scrubs,
            rooms,
            log,
            history: History::default(),
            clock,
            started,
            ended,
            has_rested: AtomicBool::new(false),
        })
    }

    /// Resolves when the mount is gone.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut ended = self.ended.clone();
        async move {
            // The sender is gone only when its thread is, and then the mount is too.
            ended.wait_for(|ended| *ended).await.ok();
        }
    }

    /// Unmounts as soon as no file is open; `Busy`, with who holds it, when that takes longer than
    /// `patience`.
    pub(crate) fn unmount_within(
        &self,
        patience: Duration,
    ) -> impl Future<Output = Result<()>> + Send + 'static {
        let session = Arc::clone(&self.rooms.session);
        let clock = Arc::clone(&self.clock);
        let deadline = clock.deadline(patience);
        async move {
            let mut pause = ATTEMPT_PAUSES.0;
            loop {
                let attempt = Arc::clone(&session);
                match blocking(move || attempt.unmount(false)).await {
                    Err(error) if error.kind() == ErrorKind::Busy => {
                        let left = deadline.left(clock.now());
                        if left.is_zero() {
                            return Err(error);
                        }
                        tokio::time::sleep(pause.min(left)).await;
                        pause = (pause * 2).min(ATTEMPT_PAUSES.1);
                    }
                    other => return other,
                }
            }
        }
    }

    /// Unmounts whoever reads; nothing to do when the mount is gone.
    pub(crate) fn unmount_now(&self) -> impl Future<Output = Result<()>> + Send + 'static {
        let session = Arc::clone(&self.rooms.session);
        blocking(move || session.unmount(true))
    }

    /// Ends the loads that run, for the next daemon to go on with.
    pub(crate) fn pause_jobs(&self) {
        self.rooms.jobs.pause();
    }

    /// Finishes what is on its way into the cache and closes it. Blocks.
    pub(crate) fn close_rooms(&self) {
        self.rooms.worker.close();
        self.rooms.store.close();
        if let Err(error) = self.rooms.metadata.checkpoint() {
            tracing::warn!("close the metadata store: {error}");
        }
    }

    /// Shows in the root of the tree what this node tells of itself.
    pub(crate) fn show_virtual_files(self: &Arc<Self>) {
        let node = Arc::downgrade(self);
        let status = move || {
            let report = node
                .upgrade()
                .map(|node| crate::commands::status::of(node.status()));
            report.unwrap_or_default().into_bytes()
        };
        let owner = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        self.rooms.vfs.show_virtual_files(Box::new(status), owner);
    }

    /// Keeps the counters of a status for who looks later.
    pub(crate) fn keep_history(&self, status: &wire::Status) {
        self.history.keep(status, self.clock.wall());
    }

    fn memory(&self) -> wire::Memory {
        let worker = self.rooms.worker.stats();
        wire::Memory {
            used_bytes: resident_bytes().unwrap_or(0),
            budget_bytes: self.plan.memory_bytes,
            data_bytes: worker.memory_used,
            data_budget_bytes: worker.memory_total,
        }
    }

    fn trees_ahead(&self) -> Vec<wire::TreeAhead> {
        let trees = self.rooms.worker.trees_ahead().into_iter();
        let trees = trees.filter_map(|tree| {
            Some(wire::TreeAhead {
                path: self.rooms.mounts.path_of(tree.mount, &tree.dir)?,
                found_files: tree.found,
                cached_files: tree.cached,
            })
        });
        trees.collect()
    }

    fn staged_sum(&self) -> wire::Staged {
        let waiting = self.rooms.vfs.waiting();
        let oldest = waiting.iter().map(|file| file.age.as_secs()).max();
        let failing = waiting.iter().find_map(|file| {
            let error = file.error.as_ref()?;
            Some(format!("'{}': {error}", file.path))
        });
        wire::Staged {
            files: waiting.len() as u64,
            bytes: waiting.iter().map(|file| file.bytes).sum(),
            oldest_seconds: oldest.unwrap_or(0),
            failing,
        }
    }

    /// Waits a moment for the storages to take what was written, and then makes the rest durable
    /// here for the next start. Returns how many files that are.
    pub(crate) fn store_rest(&self) -> impl Future<Output = usize> + Send + 'static {
        let vfs = Arc::clone(&self.rooms.vfs);
        // Whoever asks again has waited already.
        let is_first = !self.has_rested.swap(true, Ordering::SeqCst);
        let patience = if is_first { STORE_MAX } else { Duration::ZERO };
        async move {
            if tokio::time::timeout(patience, vfs.all_stored())
                .await
                .is_ok()
            {
                return 0;
            }
            let left = vfs.seal_waiting().await;
            if is_first {
                tracing::warn!("{left} files are not stored yet: the next start stores them");
            }
            left
        }
    }

    /// Carries out a change of the mounts, and has what is pinned or has rules follow.
    fn then_pinned(
        &self,
        change: impl Future<Output = Result<wire::MountChanged>> + Send + 'static,
    ) -> NodeFuture<wire::MountChanged> {
        let pins = Arc::clone(&self.rooms.pins);
        let rules = Arc::clone(&self.rooms.rules);
        Box::pin(async move {
            let changed = change.await;
            pins.apply();
            let applied = tokio::task::spawn_blocking(move || rules.apply()).await;
            applied.map_err(|source| Error::internal("apply rules").with_source(source))?;
            changed
        })
    }

    fn names(&self) -> wire::Names {
        let worker = self.rooms.worker.stats();
        wire::Names {
            left_out: worker.names_unshowable,
            served_old: worker.stale_served,
        }
    }

    fn cache(&self) -> wire::Cache {
        let (cache, worker) = (self.rooms.store.stats(), self.rooms.worker.stats());
        let served = self.rooms.vfs.stats().served_bytes;
        let spared = served.saturating_sub(worker.fetched_bytes);
        #[allow(clippy::cast_precision_loss, reason = "a ratio for people")]
        let ratio = || spared as f64 / served as f64;
        wire::Cache {
            dir: self.plan.cache.dir.display().to_string(),
            capacity_bytes: cache.capacity,
            used_bytes: cache.used,
            free_bytes: self.rooms.store.free(),
            objects: cache.objects,
            pages: cache.pages,
            pinned_objects: cache.pinned_objects,
            pinned_bytes: cache.pinned_bytes,
            hits: worker.hits,
            misses: worker.misses,
            served_bytes: served,
            fetched_bytes: worker.fetched_bytes,
            hit_ratio: (served > 0).then(ratio),
            fills: cache.fills,
            evictions: cache.evictions,
            expired: cache.expired,
            corrupt_pages: cache.corrupt,
            retired: cache.retired,
        }
    }

    fn kernel(&self) -> wire::Kernel {
        let fuse = self.rooms.session.stats();
        let reason = match fuse.passthrough {
            fuse::Passthrough::On => None,
            fuse::Passthrough::Off { reason } => Some(reason),
        };
        let requests = fuse.requests.into_iter();
        let requests = requests.map(|(kind, count)| (kind.to_owned(), count));
        wire::Kernel {
            transport: match fuse.without_rings {
                Some(_) => "/dev/fuse".to_owned(),
                None => "io_uring".to_owned(),
            },
            without_rings: fuse.without_rings,
            passthrough: wire::Passthrough {
                available: reason.is_none(),
                reason,
            },
            open_files: wire::OpenFiles {
                passthrough: fuse.open_passthrough,
                cached: fuse.open_cached,
                direct: 0,
            },
            inodes: self.rooms.vfs.stats().inodes,
            requests: requests.collect(),
            waits: fuse.waits,
            waited_micros: u64::try_from(fuse.waited.as_micros()).unwrap_or(u64::MAX),
            denied: fuse.denied,
            slow: fuse.slow.into_iter().map(slow).collect(),
        }
    }
}

impl Node for DaemonNode {
    fn status(&self) -> wire::Status {
        let uptime = self.clock.now().saturating_duration_since(self.started);
        wire::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: uptime.as_secs(),
            mount_point: self.plan.mount_point.display().to_string(),
            log: self
                .plan
                .log
                .file
                .as_ref()
                .map(|file| file.display().to_string()),
            mounts: self.rooms.mounts.list(),
            names: self.names(),
            staged: self.staged_sum(),
            trees_ahead: self.trees_ahead(),
            pins: self.rooms.pins.list(),
            rules: self.rooms.rules.list(),
            scrub: self.scrubs.progress(),
            loads: self.rooms.jobs.running(),
            cache: self.cache(),
            memory: self.memory(),
            kernel: self.kernel(),
            traces: self.log.traces.as_ref().map(|traces| traces.status()),
            last_errors: self.log.faults.latest(),
        }
    }

    fn mounts(&self) -> wire::MountList {
        wire::MountList {
            mount_point: self.plan.mount_point.display().to_string(),
            mounts: self.rooms.mounts.list(),
        }
    }

    fn add_mount(&self, request: wire::AddMount) -> NodeFuture<wire::MountChanged> {
        self.then_pinned(Arc::clone(&self.rooms.mounts).add(request))
    }

    fn update_mount(&self, request: wire::UpdateMount) -> NodeFuture<wire::MountChanged> {
        self.then_pinned(Arc::clone(&self.rooms.mounts).update(request))
    }

    fn remove_mount(&self, request: wire::RemoveMount) -> NodeFuture<wire::MountChanged> {
        self.then_pinned(Arc::clone(&self.rooms.mounts).remove(request))
    }

    fn sync(&self, request: wire::Sync) -> NodeFuture<wire::Synced> {
        Box::pin(Arc::clone(&self.syncs).sync(request))
    }

    fn staged(&self) -> wire::StagedList {
        let waiting = self.rooms.vfs.waiting().into_iter();
        wire::StagedList {
            mount_point: self.plan.mount_point.display().to_string(),
            files: waiting
                .map(|file| wire::StagedFile {
                    path: file.path,
                    bytes: file.bytes,
                    age_seconds: file.age.as_secs(),
                    error: file.error,
                })
                .collect(),
        }
    }

    fn drop_staged(&self, request: wire::DropStaged) -> NodeFuture<wire::DroppedStaged> {
        Box::pin(Arc::clone(&self.syncs).drop_staged(request))
    }

    fn load(&self, request: wire::Load) -> NodeFuture<wire::Job> {
        Box::pin(Arc::clone(&self.rooms.jobs).load(request))
    }

    fn jobs(&self) -> wire::JobList {
        wire::JobList {
            mount_point: self.plan.mount_point.display().to_string(),
            jobs: self.rooms.jobs.list(),
        }
    }

    fn stop_job(&self, request: wire::StopJob) -> NodeFuture<wire::Job> {
        Box::pin(Arc::clone(&self.rooms.jobs).stop(request))
    }

    fn free(&self, request: wire::OfPath) -> NodeFuture<wire::Freed> {
        Box::pin(Arc::clone(&self.rooms.jobs).free(request))
    }

    fn usage(&self, request: wire::Measure) -> NodeFuture<wire::Usage> {
        let rules = Arc::clone(&self.rooms.rules);
        let measured = Arc::clone(&self.rooms.jobs).usage(request);
        Box::pin(async move {
            let usage = measured.await?;
            let rule = rules.at(&usage.path);
            Ok(wire::Usage { rule, ..usage })
        })
    }

    fn history(&self) -> wire::History {
        self.history.with_now(&self.status(), self.clock.wall())
    }

    fn check(&self, request: wire::Check) -> NodeFuture<wire::Checked> {
        Box::pin(Arc::clone(&self.rooms.jobs).check(request))
    }

    fn scrub(&self, request: wire::Scrub) -> NodeFuture<wire::Scrubbed> {
        Box::pin(Arc::clone(&self.scrubs).scrub(request))
    }

    fn pin(&self, request: wire::OfPath) -> NodeFuture<wire::Pinned> {
        Box::pin(Arc::clone(&self.rooms.pins).pin(request))
    }

    fn unpin(&self, request: wire::OfPath) -> NodeFuture<wire::Unpinned> {
        Box::pin(Arc::clone(&self.rooms.pins).unpin(request))
    }

    fn traffic(&self) -> wire::Traffic {
        traffic(self.rooms.session.watch(WATCHED))
    }

    fn rules(&self) -> wire::RuleList {
        wire::RuleList {
            mount_point: self.plan.mount_point.display().to_string(),
            rules: self.rooms.rules.list(),
        }
    }

    fn set_rule(&self, request: wire::SetRule) -> NodeFuture<wire::Rule> {
        let jobs = Arc::clone(&self.rooms.jobs);
        Box::pin(Arc::clone(&self.rooms.rules).set(jobs, request))
    }

    fn remove_rule(&self, request: wire::RemoveRule) -> NodeFuture<wire::Rule> {
        Box::pin(Arc::clone(&self.rooms.rules).remove(request))
    }

    fn unmount(&self, request: wire::Unmount) -> NodeFuture<wire::Unmounted> {
        tracing::info!(?request, "asked to unmount");
        let politely = self.unmount_within(Duration::from_secs(request.timeout_seconds));
        let now = self.unmount_now();
        let store_rest = self.store_rest();
        Box::pin(async move {
            match request.force {
                true => now.await?,
                false => politely.await?,
            }
            Ok(wire::Unmounted {
                pid: std::process::id(),
                waiting_files: store_rest.await as u64,
            })
        })
    }
}

fn slow(one: fuse::SlowRecord) -> wire::SlowRequest {
    wire::SlowRequest {
        unix_milliseconds: history::unix_milliseconds(one.at),
        operation: one.operation.to_owned(),
        path: one.path,
        milliseconds: u64::try_from(one.waited.as_millis()).unwrap_or(u64::MAX),
        error: one.error,
    }
}

/// Writes what a mount counted in the words of the admin API.
fn traffic(seen: fuse::Traffic) -> wire::Traffic {
    let counts = |counts: fuse::Counts| wire::Counts {
        opens: counts.opens,
        kernel_opens: counts.kernel_opens,
        reads: counts.reads,
        read_bytes: counts.read_bytes,
        writes: counts.writes,
        written_bytes: counts.written_bytes,
    };
    let files = seen.files.into_iter();
    let processes = seen.processes.into_iter();
    wire::Traffic {
        watched_milliseconds: u64::try_from(seen.watched.as_millis()).unwrap_or(u64::MAX),
        files: files
            .map(|(path, counted)| wire::FileTraffic {
                path,
                counts: counts(counted),
            })
            .collect(),
        processes: processes
            .map(|(pid, command, counted)| wire::ProcessTraffic {
                pid,
                command,
                counts: counts(counted),
            })
            .collect(),
    }
}

/// Runs what waits for the kernel or a helper program away from the runtime's own threads.
async fn blocking(work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|source| Error::internal("unmount").with_source(source))?
}

/// Returns the resident memory of this process.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        let bytes = resident_bytes().unwrap();
        assert!((1 << 20..1 << 40).contains(&bytes), "{bytes}");
    }
}
