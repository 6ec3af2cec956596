// SPDX-License-Identifier: Apache-2.0
//! Loads that run in a daemon: begun, joined, watched, stopped, and gone on with after a restart.
//!
//! A load belongs to the daemon and not to who asked for it. Its path names it: who asks for the
//! same again joins it. Requests of loads that run are kept in a file beside the remembered mounts,
//! so that the next daemon at the mount point goes on with them; what is cached by then is not
//! fetched again. What is done with the bytes is the worker's (`worker::load`). Freeing and measuring
//! a path are here too, because they are of the same paths.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gateway::wire;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use types::{ByteSize, Clock, Error, ErrorKind, MountId, ObjectPath, ObjectRef, Result};
use vfs::{SubtreeAt, Vfs};
use worker::{CheckPlan, LoadEnd, LoadPlan, LoadProgress, LoadStep, Pick, Worker};

use crate::config;
use crate::globs::Globs;
use crate::mounts::Mounts;
use crate::state;

/// Loads at the same time; more would only share the same wire.
const RUNNING_MAX: usize = 8;

/// Loads that ended and are told of still.
const ENDED_MAX: usize = 16;

/// Walks of trees at the same time that free or measure.
const WALKS: usize = 4;

/// The rooms that loads go through.
pub(crate) struct Doors {
    pub(crate) worker: Arc<Worker>,
    pub(crate) vfs: Arc<Vfs>,
    pub(crate) mounts: Arc<Mounts>,
    pub(crate) runtime: Handle,
    pub(crate) clock: Arc<dyn Clock>,
}

/// The loads of a daemon.
pub(crate) struct Jobs {
    doors: Doors,
    /// Where the requests of those that run are kept.
    state_file: Option<PathBuf>,
    /// In the order in which they began. Taken before [`Job::ended`], which is a leaf lock but for
    /// that of the mounts.
    all: Mutex<Vec<Arc<Job>>>,
    next_id: AtomicU64,
    /// Whether the daemon ends: what runs then is gone on with by the next one.
    is_ending: AtomicBool,
    /// One write of the file at a time.
    remembering: tokio::sync::Mutex<()>,
    walks: Semaphore,
}

struct Job {
    id: u64,
    request: wire::Load,
    progress: Arc<LoadProgress>,
    began: Instant,
    stop: Notify,
    ended: Mutex<Option<Ended>>,
}

struct Ended {
    state: &'static str,
    elapsed: Duration,
    end: LoadEnd,
}

impl Jobs {
    /// Makes the jobs of a daemon; none runs yet.
    pub(crate) fn new(doors: Doors, state_file: Option<PathBuf>) -> Arc<Jobs> {
        Arc::new(Jobs {
            doors,
            state_file,
            all: Mutex::default(),
            next_id: AtomicU64::new(1),
            is_ending: AtomicBool::new(false),
            remembering: tokio::sync::Mutex::default(),
            walks: Semaphore::new(WALKS),
        })
    }

    /// Begins a load, or joins the one of the same path.
    pub(crate) async fn load(self: Arc<Self>, request: wire::Load) -> Result<wire::Job> {
        let request = checked(request)?;
        let running = same(&self.all.lock(), &request)?;
        if let Some(job) = running {
            return Ok(self.describe(&job, true));
        }
        let plan = self.plan(&request, true).await?;
        let (job, joined) = self.begin(request, plan)?;
        if !joined {
            self.remember().await;
        }
        Ok(self.describe(&job, joined))
    }

    /// Goes on with the loads that ran when a former daemon ended.
    pub(crate) async fn resume(self: Arc<Self>) {
        let Some(path) = self.state_file.clone() else {
            return;
        };
        // Nobody writes the file before all that it holds runs.
        let _one_at_a_time = self.remembering.lock().await;
        let loaded = tokio::task::spawn_blocking(move || {
            state::load_jobs(&path).inspect_err(|_| state::put_aside(&path))
        });
        let requests = match loaded.await {
            Ok(Ok(requests)) => requests,
            Ok(Err(error)) => {
                tracing::warn!("loads of a former run are not gone on with: {error:#}");
                return;
            }
            Err(error) => {
                tracing::warn!("loads of a former run are not gone on with: {error}");
                return;
            }
        };
        for request in requests {
            let path = request.path.clone();
            let begun = match self.plan(&request, false).await {
                Ok(plan) => self.begin(request, plan).map(|_| ()),
                Err(error) => Err(error),
            };
            match begun {
                Ok(()) => tracing::info!("goes on with the load of '{path}'"),
                Err(error) => tracing::warn!("the load of '{path}' does not go on: {error}"),
            }
        }
    }

    /// Ends what runs, for the next daemon to go on with.
    pub(crate) fn pause(&self) {
        self.is_ending.store(true, Ordering::SeqCst);
        for job in &*self.all.lock() {
            job.stop.notify_one();
        }
    }

    /// Returns the loads that run, and the latest that ended.
    pub(crate) fn list(&self) -> Vec<wire::Job> {
        let all = self.all.lock().clone();
        all.iter().map(|job| self.describe(job, false)).collect()
    }

    /// Returns the loads that run.
    pub(crate) fn running(&self) -> Vec<wire::Job> {
        let mut jobs = self.list();
        jobs.retain(|job| job.state == "running");
        jobs
    }

    /// Stops the load of a path; what it fetched stays.
    pub(crate) async fn stop(self: Arc<Self>, request: wire::StopJob) -> Result<wire::Job> {
        let path = tree_path(&request.path)?;
        let running = (self.all.lock().iter())
            .find(|job| job.is_running() && job.request.path == path)
            .cloned();
        let job = running.ok_or_else(|| {
            let message = format!("no load of '{path}' runs; 'forebay jobs' shows those that do");
            Error::new(ErrorKind::NotFound, message)
        })?;
        self.end(&job, "stopped", LoadEnd::default());
        job.stop.notify_one();
        self.remember().await;
        Ok(self.describe(&job, false))
    }

    /// Drops what is cached of a path.
    pub(crate) async fn free(self: Arc<Self>, request: wire::OfPath) -> Result<wire::Freed> {
        let path = tree_path(&request.path)?;
        let place = ObjectPath::parse(path.trim_matches('/').as_bytes())?;
        let overlaps = |job: &&Arc<Job>| {
            let other = ObjectPath::parse(job.request.path.trim_matches('/').as_bytes());
            let meets = |other: ObjectPath| {
                other == place || other.is_below(&place) || place.is_below(&other)
            };
            job.is_running() && other.is_ok_and(meets)
        };
        if let Some(job) = self.all.lock().iter().find(overlaps) {
            let at = &job.request.path;
            let message =
                format!("a load of '{at}' runs; stop it first with 'forebay load --stop'");
            return Err(Error::new(ErrorKind::Busy, message));
        }
        let _turn = self.turn().await?;
        let mut freed = wire::Freed {
            path,
            ..wire::Freed::default()
        };
        for subtree in self.subtrees(&place, true).await? {
            let one = self.doors.worker.free(subtree.subtree).await?;
            freed.files += one.files;
            freed.bytes += one.bytes;
            freed.pinned_bytes += one.pinned_bytes;
        }
        tracing::info!("freed {} of '{}'", ByteSize(freed.bytes), freed.path);
        Ok(freed)
    }

    /// Compares what is cached of a path with its storages.
    pub(crate) async fn check(self: Arc<Self>, request: wire::Check) -> Result<wire::Checked> {
        let path = tree_path(&request.path)?;
        let place = ObjectPath::parse(path.trim_matches('/').as_bytes())?;
        let plan = CheckPlan {
            bytes: request.bytes,
            drops: request.drop,
        };
        let _turn = self.turn().await?;
        let mut checked = wire::Checked {
            path,
            ..wire::Checked::default()
        };
        for subtree in self.subtrees(&place, false).await? {
            let one = self.doors.worker.check(subtree.subtree, plan).await?;
            self.add_checked(&mut checked, one);
        }
        Ok(checked)
    }

    fn add_checked(&self, sum: &mut wire::Checked, one: worker::Checked) {
        for (sum, one) in [
            (&mut sum.directories, one.directories),
            (&mut sum.files, one.files),
            (&mut sum.cached_files, one.cached_files),
            (&mut sum.cached_bytes, one.cached_bytes),
            (&mut sum.compared_bytes, one.compared_bytes),
            (&mut sum.stale_files, one.stale_files),
            (&mut sum.gone_files, one.gone_files),
            (&mut sum.different_files, one.different_files),
            (&mut sum.unknown, one.unknown),
            (&mut sum.dropped, one.dropped),
        ] {
            *sum += one;
        }
        let findings = one.findings.into_iter();
        sum.findings.extend(findings.map(|one| wire::MissingFile {
            path: self.shown(one.mount, &one.path),
            why: one.why,
        }));
    }

    /// Returns the path in the tree of a place in a storage.
    fn shown(&self, mount: MountId, path: &ObjectPath) -> String {
        let at = self.doors.mounts.path_of(mount, path);
        at.unwrap_or_else(|| path.to_string())
    }

    pub(crate) fn held(
        &self,
        tree: worker::Subtree,
    ) -> futures::future::BoxFuture<'static, Result<worker::HeldByName>> {
        self.doors.worker.held(tree)
    }

    pub(crate) async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>> {
        let closed = |source| Error::internal("wait for a turn").with_source(source);
        self.walks.acquire().await.map_err(closed)
    }

    /// Starts the task of a load, unless one of the same path began meanwhile.
    fn begin(self: &Arc<Self>, request: wire::Load, plan: LoadPlan) -> Result<(Arc<Job>, bool)> {
        let mut all = self.all.lock();
        if let Some(job) = same(&all, &request)? {
            return Ok((job, true));
        }
        if all.iter().filter(|job| job.is_running()).count() >= RUNNING_MAX {
            let message = format!("{RUNNING_MAX} loads run already: wait for one, or stop one");
            return Err(Error::new(ErrorKind::Busy, message));
        }
        let job = Arc::new(Job {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            request,
            progress: Arc::default(),
            began: self.doors.clock.now(),
            stop: Notify::new(),
            ended: Mutex::new(None),
        });
        all.retain(|old| old.is_running() || old.request.path != job.request.path);
        all.push(Arc::clone(&job));
        let ended = all.iter().filter(|job| !job.is_running()).count();
        if ended > ENDED_MAX
            && let Some(oldest) = all.iter().position(|job| !job.is_running())
        {
            all.remove(oldest);
        }
        drop(all);
        let (jobs, task) = (Arc::clone(self), Arc::clone(&job));
        self.doors.runtime.spawn(async move {
            jobs.run(&task, plan).await;
        });
        Ok((job, false))
    }

    async fn run(self: Arc<Self>, job: &Arc<Job>, plan: LoadPlan) {
        let load = self.doors.worker.load(plan, Arc::clone(&job.progress));
        let end = tokio::select! {
            end = load => end,
            () = job.stop.notified() => return,
        };
        if self.is_ending.load(Ordering::SeqCst) {
            return;
        }
        let (path, missing) = (&job.request.path, end.missing_count);
        match missing {
            0 => tracing::info!("loaded '{path}'"),
            _ => tracing::warn!("load '{path}': {missing} files or directories are missing"),
        }
        let state = if missing == 0 {
            "complete"
        } else {
            "incomplete"
        };
        self.end(job, state, end);
        self.remember().await;
    }

    fn end(&self, job: &Job, state: &'static str, end: LoadEnd) {
        let elapsed = self.doors.clock.now().saturating_duration_since(job.began);
        let ended = Ended {
            state,
            elapsed,
            end,
        };
        // Who stops one that has just ended comes too late.
        job.ended.lock().get_or_insert(ended);
    }

    /// Keeps the requests of the loads that run for the next daemon.
    async fn remember(&self) {
        let Some(path) = self.state_file.clone() else {
            return;
        };
        let _one_at_a_time = self.remembering.lock().await;
        if self.is_ending.load(Ordering::SeqCst) {
            return;
        }
        let running: Vec<_> = (self.all.lock().iter())
            .filter(|job| job.is_running())
            .map(|job| job.request.clone())
            .collect();
        let stored = tokio::task::spawn_blocking(move || state::store_jobs(&path, running));
        let error = match stored.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(error) => error.into(),
        };
        tracing::warn!("a load that runs now ends with this daemon: {error:#}");
    }

    async fn plan(&self, request: &wire::Load, checks: bool) -> Result<LoadPlan> {
        let path = ObjectPath::parse(request.path.trim_matches('/').as_bytes())?;
        let around = self.subtrees(&path, checks).await?;
        let trees = match &request.only {
            None => around,
            Some(only) => {
                let mut trees = Vec::new();
                for one in only {
                    let one = ObjectPath::parse(one.trim_matches('/').as_bytes())?;
                    trees.extend(self.doors.vfs.subtrees(&one)?);
                }
                trees
            }
        };
        let globs = Globs::parse(&request.include, &request.exclude);
        let globs = globs.map_err(|why| Error::new(ErrorKind::Invalid, why))?;
        Ok(LoadPlan {
            pick: pick(globs, &path, &trees),
            trees: trees.into_iter().map(|tree| tree.subtree).collect(),
            metadata_only: request.metadata_only,
            bandwidth: request.bandwidth_bytes.map(ByteSize),
            verify: request.verify,
        })
    }

    /// Returns what a path stands for. With `checks` a path where there is nothing is an error,
    /// unless mounts lie below it.
    pub(crate) async fn subtrees(&self, path: &ObjectPath, checks: bool) -> Result<Vec<SubtreeAt>> {
        let mut trees = self.doors.vfs.subtrees(path)?;
        let own = trees.first().filter(|tree| checks && tree.is_path).cloned();
        let Some(own) = own else {
            return Ok(trees);
        };
        match self.doors.worker.look_at(&own.subtree).await {
            Err(error) if error.kind() == ErrorKind::NotFound && trees.len() > 1 => {
                trees.remove(0);
            }
            Err(error) => return Err(error.context(format!("look at '/{path}'"))),
            Ok(_) => {}
        }
        Ok(trees)
    }

    fn describe(&self, job: &Job, joined: bool) -> wire::Job {
        let counts = job.progress.counts();
        let ended = job.ended.lock();
        let now = self.doors.clock.now();
        let elapsed = match &*ended {
            Some(ended) => ended.elapsed,
            None => now.saturating_duration_since(job.began),
        };
        let missing = ended.iter().flat_map(|ended| &ended.end.missing);
        let missing = missing.map(|one| wire::MissingFile {
            path: self.shown(one.mount, &one.path),
            why: one.why.clone(),
        });
        wire::Job {
            id: job.id,
            path: job.request.path.clone(),
            state: ended.as_ref().map_or("running", |ended| ended.state).into(),
            step: match counts.step {
                LoadStep::Fetching => "fetching",
                LoadStep::Counting => "counting",
                LoadStep::Verifying => "verifying",
            }
            .into(),
            metadata_only: job.request.metadata_only,
            verify: job.request.verify,
            joined,
            elapsed_seconds: elapsed.as_secs(),
            directories: counts.directories,
            found_files: counts.found_files,
            found_bytes: counts.found_bytes,
            is_listed: counts.is_listed,
            cached_files: counts.cached_files,
            cached_bytes: counts.cached_bytes,
            fetched_bytes: counts.fetched_bytes,
            failed_files: counts.failed_files,
            missing_count: ended.as_ref().map_or(0, |ended| ended.end.missing_count),
            missing: missing.collect(),
            halt: ended.as_ref().and_then(|ended| ended.end.halt.clone()),
        }
    }
}

impl Job {
    fn is_running(&self) -> bool {
        self.ended.lock().is_none()
    }
}

/// Returns the load of the same path that runs; refuses one that does something else there.
fn same(all: &[Arc<Job>], request: &wire::Load) -> Result<Option<Arc<Job>>> {
    let path = &request.path;
    let found = all
        .iter()
        .find(|job| job.is_running() && job.request.path == *path);
    match found {
        Some(job) if job.request != *request => {
            let message = format!(
                "a load of '{path}' with other options runs: wait for it, or stop it with 'forebay \
                 load --stop'"
            );
            Err(Error::new(ErrorKind::Busy, message))
        }
        found => Ok(found.cloned()),
    }
}

/// Checks a request and writes its paths in one way.
fn checked(request: wire::Load) -> Result<wire::Load> {
    let invalid = |why: String| Error::new(ErrorKind::Invalid, why);
    Globs::parse(&request.include, &request.exclude).map_err(invalid)?;
    if request.bandwidth_bytes == Some(0) {
        return Err(invalid("a bandwidth of 0 loads nothing".to_owned()));
    }
    if let Some(replicas @ (0 | 2..)) = request.replicas {
        return Err(invalid(format!(
            "{replicas} replicas are not to be had: more than one needs a cluster, which this version \
             does not have"
        )));
    }
    if request.verify && request.metadata_only {
        return Err(invalid("names have no bytes to verify".to_owned()));
    }
    let path = tree_path(&request.path)?;
    let only = request.only.map(|only| {
        let is_within = |one: &String| {
            let rest = one.strip_prefix(path.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let paths = only.iter().map(|one| match tree_path(one) {
            Ok(one) if is_within(&one) => Ok(one),
            Ok(one) => Err(invalid(format!("'{one}' is not below '{path}'"))),
            Err(error) => Err(error),
        });
        paths.collect::<Result<Vec<_>>>()
    });
    Ok(wire::Load {
        only: only.transpose()?,
        path,
        replicas: None,
        ..request
    })
}

/// Writes a path of the tree in one way.
pub(crate) fn tree_path(text: &str) -> Result<String> {
    let place = config::place(text).map_err(|why| Error::new(ErrorKind::Invalid, why))?;
    Ok(format!("/{place}"))
}

/// Returns which objects are meant by patterns of paths below `path`.
fn pick(globs: Globs, path: &ObjectPath, trees: &[SubtreeAt]) -> Pick {
    if globs == Globs::default() {
        return Arc::new(|_| true);
    }
    let by_mount = |tree: &SubtreeAt| (tree.subtree.mount, tree.mounted_at.clone());
    let mounted: HashMap<MountId, ObjectPath> = trees.iter().map(by_mount).collect();
    let path = path.clone();
    Arc::new(move |object: &ObjectRef| {
        let at = mounted.get(&object.mount).map(ObjectPath::to_string);
        let whole = [at.unwrap_or_default(), object.path.to_string()];
        let whole = whole.join("/");
        let whole = whole.trim_matches('/');
        let below = whole.strip_prefix(&path.to_string()).unwrap_or(whole);
        let below = below.trim_start_matches('/');
        // The path is a file itself.
        let name = whole.rsplit('/').next().unwrap_or(whole);
        globs.pick(if below.is_empty() { name } else { below })
    })
}

#[cfg(test)]
mod tests {
    use types::{Freshness, VersionTag};
    use worker::Subtree;

    use super::*;

    fn path(text: &str) -> ObjectPath {
        ObjectPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn patterns_are_of_paths_below_what_is_loaded_in_whatever_mount() {
        let tree = |mount, at: &str, below: &str| SubtreeAt {
            mounted_at: path(at),
            subtree: Subtree {
                mount: MountId(mount),
                path: path(below),
                freshness: Freshness::Immutable,
                hidden: Vec::new(),
            },
            is_path: at.is_empty(),
        };
        let trees = [tree(1, "", "sets"), tree(2, "sets/deep/in", "")];
        let globs = Globs::parse(&["deep/**".into(), "*.jpg".into()], &[]).unwrap();
        let pick = pick(globs, &path("sets"), &trees);
        let picks = |mount, below: &str| {
            let object = ObjectRef::new(MountId(mount), path(below), VersionTag::default());
            pick(&object)
        };
        assert!(picks(1, "sets/a/b.jpg"));
        assert!(picks(1, "sets/deep/b"));
        assert!(!picks(1, "sets/a/deep/b"));
        assert!(picks(2, "x/y"));
    }

    #[test]
    fn a_request_is_written_in_one_way_and_checked() {
        let request = |path: &str, only: &[&str]| wire::Load {
            path: path.into(),
            only: Some(only.iter().map(ToString::to_string).collect()),
            ..wire::Load::default()
        };
        let good = checked(request("/a/", &["/a/b/", "/a"])).unwrap();
        assert_eq!(good, request("/a", &["/a/b", "/a"]));
        assert!(checked(request("/", &["/x"])).is_ok());
        for bad in [request("a", &[]), request("/a", &["/ab"])] {
            assert_eq!(checked(bad).unwrap_err().kind(), ErrorKind::Invalid);
        }
        let none = wire::Load {
            bandwidth_bytes: Some(0),
            ..request("/", &[])
        };
        assert!(checked(none).is_err());
        for (replicas, is_good) in [(0, false), (1, true), (2, false)] {
            let request = wire::Load {
                replicas: Some(replicas),
                ..request("/", &[])
            };
            assert_eq!(checked(request).is_ok(), is_good, "{replicas}");
        }
    }
}
