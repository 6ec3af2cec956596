// SPDX-License-Identifier: Apache-2.0
//! A daemon from its first check to its last: the wiring of the rooms.
//!
//! The order of a start is the order in which a user can understand what is wrong: run directory,
//! mount point, URIs and options, cache directory, storages, and only then the mount. What a failed
//! start made is taken away again. The order of an end is the reverse: mount, admin socket, what is
//! on its way into the cache, the cache. Correctness never depends on a clean end; warmth of the
//! index does. This is the only file that knows how all rooms are made.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cache::kv::Kv;
use futures::future::{join_all, try_join_all};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use types::{ByteSize, Clock, ErrorKind, MountId, SystemClock};
use ufs::UnderStorage;
use vfs::{AttributeDefaults, Vfs};
use worker::Worker;

use crate::admin_door::AdminDoor;
use crate::cache_dir::CacheDir;
use crate::first_look::first_look;
use crate::history;
use crate::jobs::{self, Jobs};
use crate::layout::Layout;
use crate::logging::Log;
use crate::mounts::{self, Beginning, Doors, Live, Mounts};
use crate::node::{DaemonNode, Rooms, STORE_MAX};
use crate::pins::Pins;
use crate::places;
use crate::plan::{MountPlan, Plan};
use crate::records::{self, Record};
use crate::room::Room;
use crate::rules::{self, Rules};
use crate::service;
use crate::storage;
use crate::surplus;
use crate::traces::Traces;
use crate::usage;

/// Longest wait for the first answer of a storage: a user sits before it.
const PROBE_MAX: Duration = Duration::from_secs(10);
/// A request of the probe gives up sooner than the probe does, so that its reason is told and not
/// only that time ran out.
const PROBE_REQUEST_MAX: Duration = Duration::from_secs(8);
/// Longest wait for the kernel's first answer from the mount.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long one request may stay without a sign of life before it is sent again.
const REQUEST_TIMEOUT_MAX: Duration = Duration::from_secs(15);
/// Threads for what blocks: local storages read on them, and a disk gains nothing from more.
const BLOCKING_THREADS_MAX: usize = 32;
/// How long readers have to close their files after SIGTERM.
const SIGNAL_PATIENCE: Duration = Duration::from_secs(5);
/// How long the kernel door may take to end once the mount is gone.
const END_MAX: Duration = Duration::from_secs(5);
/// How long a start may go on with the renames of a former run; the next start does the rest.
const RENAMES_MAX: Duration = Duration::from_secs(60);
/// Cache of the metadata store; names are also held by the rooms above.
const METADATA_CACHE_BYTES: usize = 8 << 20;
/// The kernel asks for this much ahead of a sequential reader.
const KERNEL_READ_AHEAD: ByteSize = ByteSize(1 << 20);

/// An upload that was begun so long ago and has not ended will not end.
const UPLOAD_AGE: Duration = Duration::from_secs(24 * 3600);

/// A mount, as it is told.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct ToldMount {
    /// Path in the tree; empty for the mount point itself.
    pub(crate) at: String,
    pub(crate) uri: String,
    /// When what is written reaches the storage.
    pub(crate) write_mode: String,
    /// The same below paths of the mount where it is another.
    pub(crate) write_modes: BTreeMap<String, String>,
}

/// What there is to tell when the mount answers.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Ready {
    pub(crate) pid: u32,
    pub(crate) mount_point: PathBuf,
    pub(crate) mounts: Vec<ToldMount>,
    pub(crate) cache_dir: PathBuf,
    pub(crate) cache_bytes: u64,
    pub(crate) log: Option<PathBuf>,
    /// Things to know that are no faults.
    pub(crate) notices: Vec<String>,
}

/// Runs a daemon until it is unmounted. `on_ready` is called once, when the mount answers; when it
/// fails, nobody waits for this daemon any more and it ends.
pub(crate) fn run(
    plan: &Plan,
    log: Log,
    on_ready: impl FnOnce(&Ready) -> Result<()>,
) -> Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    raise_open_files();
    let traces = log.traces.clone();
    let runtime = runtime(traces.as_ref())?;
    let mut signals = runtime.block_on(async { Signals::watch() })?;
    let run_dir = records::prepare(&plan.run_dir)?;
    let (claim, mut notices) = claim_mount_point(&plan.mount_point)?;
    let settings = mounts::Settings {
        request_timeout: plan.deadline.min(REQUEST_TIMEOUT_MAX),
        state_file: plan.state_file.clone(),
        layout: Layout::new(&plan.mount_point, &plan.cache.dir),
    };
    let begun = runtime.block_on(mounts::begin(&plan.mounts, &settings, &clock));
    let mut beginning = begun.map_err(usage::if_invalid)?;
    notices.append(&mut beginning.notices);
    notices.extend(memory_notice(plan.memory_bytes));
    let told = told_mounts(&beginning);
    let cache_dir = CacheDir::prepare(&plan.cache)?;
    let start = Start {
        plan,
        runtime: &runtime,
        settings,
        clock,
        log,
    };
    let cache = start.open_cache(&cache_dir).inspect_err(|error| {
        // While another daemon holds the directory it is not ours, whoever made it.
        if error.kind() != ErrorKind::Busy {
            cache_dir.undo();
        }
    })?;
    cache_dir.remember();
    let room = Room {
        store: Arc::clone(&cache.0),
        dir: cache_dir.path.clone(),
    };
    notices.extend(room.notice());
    let (daemon, found) = start
        .mount(cache, beginning, &mut signals)
        .inspect_err(|_| {
            Record::remove_own(&plan.run_dir, &plan.mount_point);
            cache_dir.undo();
        })?;
    notices.extend(found);
    runtime.spawn(room.watch());
    drop(claim);
    run_dir.keep();
    let ready = Ready {
        pid: std::process::id(),
        mount_point: plan.mount_point.clone(),
        mounts: told,
        cache_dir: cache_dir.path.clone(),
        cache_bytes: cache_dir.size_bytes,
        log: plan.log.file.clone(),
        notices,
    };
    tracing::info!(
        pid = ready.pid,
        "mounted at '{}'",
        ready.mount_point.display()
    );
    let outcome = match on_ready(&ready) {
        Ok(()) => {
            service::ready(&ready.mount_point, runtime.handle());
            runtime.block_on(daemon.until_unmounted(&mut signals))
        }
        Err(error) => Err(error.context("tell that the mount is ready")),
    };
    daemon.end(&runtime);
    shut_down(runtime, traces.as_deref());
    outcome
}

/// Ends what still runs, and the last traces on their way.
fn shut_down(runtime: Runtime, traces: Option<&Traces>) {
    if let Some(traces) = traces {
        runtime.block_on(traces.end());
    }
    runtime.shutdown_timeout(END_MAX);
    tracing::info!("ended");
}

/// Takes all open files that this process may have: the usual soft limit of 1,024 is for programs
/// that use `select`, and every file that the kernel reads itself costs one.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("raise the limit of open files: {error}");
    }
}

/// Starts the threads of what waits, and with them the sending of traces.
fn runtime(traces: Option<&Arc<Traces>>) -> Result<Runtime> {
    let threads = std::thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 4));
    let runtime = Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("forebay-io")
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
        .context("start the runtime")?;
    if let Some(traces) = traces {
        traces.start(runtime.handle());
    }
    Ok(runtime)
}

/// Checks that something can be mounted there and keeps others from it. Also returns what to tell
/// the user.
fn claim_mount_point(mount_point: &Path) -> Result<(fuse::Claim, Vec<String>)> {
    let mut notices = Vec::new();
    if fuse::clean_dead_mount(mount_point)? {
        let text = "took away the dead mount that a daemon left there when it was killed";
        notices.push(text.to_owned());
        tracing::warn!("mount point '{}': {text}", mount_point.display());
    }
    Ok((fuse::claim_mount_point(mount_point)?, notices))
}

/// Returns what to tell the user of the mounts.
fn told_mounts(beginning: &Beginning) -> Vec<ToldMount> {
    let told = |live: &Live| {
        let (write_mode, write_modes) = mounts::write_modes(live);
        ToldMount {
            at: live.plan.at.clone(),
            uri: live.storage.uri().to_owned(),
            write_mode,
            write_modes,
        }
    };
    beginning.mounts.iter().map(told).collect()
}

/// Returns what to tell of a memory that this machine does not have.
fn memory_notice(bytes: u64) -> Option<String> {
    let info = rustix::system::sysinfo();
    let machine = info.totalram.saturating_mul(u64::from(info.mem_unit));
    (bytes > machine).then(|| {
        format!(
            "the daemon may use {} of memory, and this machine has {}: give less with --memory",
            ByteSize(bytes),
            ByteSize(machine)
        )
    })
}

/// Asks each storage of the plan, all at the same time, with connections that are not used again.
/// Returns what to tell the user of what they hold.
async fn probe_all(plan: &Plan, clock: &Arc<dyn Clock>) -> Result<Vec<String>> {
    let timeout = plan.deadline.min(PROBE_REQUEST_MAX);
    let deadline = clock.deadline(PROBE_MAX);
    let asked = plan.mounts.iter().map(|mount| async {
        let storage = storage::open(mount, clock, timeout).await;
        let storage = storage.map_err(usage::if_invalid)?;
        ufs::probe(&*storage, deadline).await?;
        let found = first_look(&*storage, mount, clock, timeout, deadline).await;
        found.map_err(usage::if_invalid)
    });
    let found = try_join_all(asked).await?;
    Ok(found.into_iter().flatten().collect())
}

/// Pages and names on the local disk.
type Maps = (Arc<cache::Store>, Arc<Kv>);

/// What a start is made from.
struct Start<'a> {
    plan: &'a Plan,
    runtime: &'a Runtime,
    settings: mounts::Settings,
    clock: Arc<dyn Clock>,
    log: Log,
}

impl Start<'_> {
    /// Builds the rooms and mounts; also returns what to tell the user. On failure what was started ends with its last owner.
    fn mount(
        self,
        (store, metadata): Maps,
        beginning: Beginning,
        signals: &mut Signals,
    ) -> Result<(Daemon, Vec<String>)> {
        let mut found = self.runtime.block_on(async {
            tokio::select! {
                probed = probe_all(self.plan, &self.clock) => probed,
                name = signals.next() => bail!("{name} came before the mount was ready"),
            }
        })?;
        let worker = self.worker(&store, &metadata)?;
        let vfs = self.vfs(&worker, &beginning)?;
        found.extend(self.stage(&store, &worker, &vfs, &beginning)?);
        let listener = {
            let _context = self.runtime.enter();
            let socket = records::socket_path(&self.plan.run_dir, &self.plan.mount_point);
            gateway::admin::bind(&socket)?
        };
        let handle = self.runtime.handle().clone();
        // Before anything is read: it is cached by the rule of its path.
        let rules = self.rules(&worker, &vfs, &store);
        let metrics = self.metrics_listener()?;
        if let Some((_, address)) = &metrics {
            found.push(format!("metrics are served at http://{address}/metrics"));
        }
        let admin = self.admin_door()?;
        found.extend(admin.iter().map(|door| door.notice.clone()));
        let session = Arc::new(fuse::mount(
            fuse_settings(self.plan),
            Arc::clone(&vfs),
            handle,
        )?);
        let uris = told_mounts(&beginning).into_iter().map(|told| told.uri);
        let uris = uris.collect();
        let doors = Doors {
            worker: Arc::clone(&worker),
            vfs: Arc::clone(&vfs),
            session: Arc::clone(&session),
        };
        let mounts = Mounts::new(
            self.settings.clone(),
            doors,
            Arc::clone(&self.clock),
            beginning,
        );
        let jobs = self.jobs(&worker, &vfs, &mounts);
        let pins = self.pins(&worker, &vfs, &jobs);
        self.look_after((&mounts, &rules, &jobs), &vfs, &session);
        let rooms = Rooms {
            session,
            vfs,
            worker,
            store,
            metadata,
            mounts,
            jobs,
            pins,
            rules,
        };
        let node = DaemonNode::new(self.plan.clone(), rooms, self.log, self.clock)?;
        let daemon = Daemon::new(self.plan, node, listener, self.runtime);
        let metrics = metrics.map(|(listener, _)| listener);
        open_doors((self.plan, self.runtime), &daemon.node, metrics, admin);
        let answered = self.runtime.block_on(answers(&self.plan.mount_point));
        match answered.and_then(|()| daemon.write_record(uris)) {
            Ok(()) => Ok((daemon, found)),
            Err(error) => {
                daemon.end(self.runtime);
                Err(error)
            }
        }
    }

    /// Starts what goes on for as long as the daemon lives.
    fn look_after(
        &self,
        (mounts, rules, jobs): (&Arc<Mounts>, &Arc<Rules>, &Arc<Jobs>),
        vfs: &Arc<Vfs>,
        session: &Arc<fuse::Session>,
    ) {
        let spare = surplus::look_after(Arc::clone(vfs), Arc::clone(session));
        self.runtime.spawn(Arc::clone(mounts).look_after_restored());
        self.runtime.spawn(spare);
        self.runtime.spawn(Arc::clone(rules).look_after());
        self.runtime.spawn(Arc::clone(jobs).resume());
    }

    fn open_cache(&self, dir: &CacheDir) -> types::Result<Maps> {
        let (dir, capacity) = (dir.path.clone(), ByteSize(dir.size_bytes));
        let settings = cache::Settings { dir, capacity };
        let store = cache::Store::open(&settings, Arc::clone(&self.clock))?;
        let names = store.open_map("names", METADATA_CACHE_BYTES)?;
        Ok((store, names))
    }

    fn worker(&self, store: &Arc<cache::Store>, names: &Arc<Kv>) -> Result<Arc<Worker>> {
        let settings = worker::Settings {
            // The other half is for the runtime, the index, names, and what the kernel asks.
            memory: ByteSize(self.plan.memory_bytes / 2),
            background_deadline: self.plan.deadline,
            change_deadline: self.plan.deadline,
            neighbours: self.plan.neighbours,
            width: self.plan.requests,
            hedging: self.plan.hedging,
            ..worker::Settings::default()
        };
        let (store, names) = (Some(Arc::clone(store)), Some(Arc::clone(names)));
        let handle = self.runtime.handle().clone();
        Ok(Worker::new(
            settings,
            store,
            names,
            handle,
            Arc::clone(&self.clock),
        )?)
    }

    /// Listens where metrics are to be served, and returns the address with its port.
    fn metrics_listener(&self) -> Result<Option<(TcpListener, SocketAddr)>> {
        let Some(address) = self.plan.metrics_listen else {
            return Ok(None);
        };
        let what = || format!("serve metrics at '{address}': give another --metrics-listen");
        let bound = self.runtime.block_on(TcpListener::bind(address));
        let listener = bound.with_context(what)?;
        let address = listener.local_addr().with_context(what)?;
        Ok(Some((listener, address)))
    }

    /// Listens where the admin API is to be served over TCP.
    fn admin_door(&self) -> Result<Option<AdminDoor>> {
        let plan = self.plan.admin.as_ref();
        let open = plan.map(|plan| self.runtime.block_on(AdminDoor::open(plan)));
        open.transpose()
    }

    fn jobs(&self, worker: &Arc<Worker>, vfs: &Arc<Vfs>, mounts: &Arc<Mounts>) -> Arc<Jobs> {
        let doors = jobs::Doors {
            worker: Arc::clone(worker),
            vfs: Arc::clone(vfs),
            mounts: Arc::clone(mounts),
            runtime: self.runtime.handle().clone(),
            clock: Arc::clone(&self.clock),
        };
        let state_file = self.plan.state_file.as_deref();
        Jobs::new(doors, state_file.map(places::jobs_file))
    }

    fn pins(&self, worker: &Arc<Worker>, vfs: &Arc<Vfs>, jobs: &Arc<Jobs>) -> Arc<Pins> {
        let doors = (Arc::clone(worker), Arc::clone(vfs), Arc::clone(jobs));
        Pins::new(
            doors,
            self.plan.state_file.as_deref().map(places::pins_file),
        )
    }

    fn rules(&self, worker: &Arc<Worker>, vfs: &Arc<Vfs>, store: &Arc<cache::Store>) -> Arc<Rules> {
        let doors = rules::Doors {
            worker: Arc::clone(worker),
            vfs: Arc::clone(vfs),
            store: Arc::clone(store),
        };
        let state_file = self.plan.state_file.as_deref();
        Rules::new(doors, state_file.map(places::rules_file))
    }

    /// Opens the directory of staged files and goes on with what a former run left there. Damage in
    /// it keeps nobody from reading: returns what to tell of it.
    fn stage(
        &self,
        store: &Arc<cache::Store>,
        worker: &Arc<Worker>,
        vfs: &Arc<Vfs>,
        beginning: &Beginning,
    ) -> Result<Vec<String>> {
        let (dir, clock) = (&self.plan.cache.dir, Arc::clone(&self.clock));
        let boot = cache::staged::BootId::current();
        let opened = cache::staged::Staging::open(dir, Some(Arc::clone(store)), boot, clock);
        let (staging, recovered) = match opened {
            Ok(opened) => opened,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::error!("{error}");
                let notice = format!("nothing can be written until this is mended: {error}");
                return Ok(vec![notice]);
            }
            Err(error) => return Err(error.into()),
        };
        let left = worker.stage_in(staging, recovered);
        for error in &left.unreadable {
            tracing::error!("left over from a former run: {error}");
        }
        worker.go_on_making(left.makes);
        // Before anybody sees the tree: it has the old names or the new ones.
        let moves = left.moves.iter();
        let finish = join_all(moves.map(|(id, work)| worker.carry_on(*id, work)));
        match self.runtime.block_on(within(RENAMES_MAX, finish)) {
            Some(finished) => {
                for error in finished.into_iter().filter_map(types::Result::err) {
                    tracing::error!("finish a rename of a former run: {error}");
                }
            }
            None => tracing::error!("finish renames of a former run: not done in {RENAMES_MAX:?}"),
        }
        let given_up = left.uploads.into_iter();
        for (id, note) in given_up {
            let worker = Arc::clone(worker);
            self.runtime.spawn(async move {
                if let Err(error) = worker.give_up_upload(id, &note).await {
                    tracing::warn!("give up an upload of a former run: {error}");
                }
            });
        }
        vfs.recover(left.files);
        self.runtime.spawn(Arc::clone(vfs).store_queued());
        self.clean_uploads(worker, beginning);
        Ok(Vec::new())
    }

    /// Gives up uploads that nobody ended, now and once a day, where that is wanted.
    fn clean_uploads(&self, worker: &Arc<Worker>, beginning: &Beginning) {
        let wanted = |live: &&Live| live.plan.clean_uploads && !live.plan.read_only;
        for live in beginning.mounts.iter().filter(wanted) {
            let (worker, uri) = (Arc::clone(worker), live.storage.uri().to_owned());
            let id = MountId::of(live.storage.identity());
            self.runtime.spawn(async move {
                loop {
                    match worker.clean_uploads(id, UPLOAD_AGE).await {
                        Ok(0) => {}
                        Ok(count) => tracing::info!("gave up {count} old uploads in {uri}"),
                        Err(error) => tracing::warn!("give up old uploads in {uri}: {error}"),
                    }
                    tokio::time::sleep(UPLOAD_AGE).await;
                }
            });
        }
    }

    fn vfs(&self, worker: &Arc<Worker>, beginning: &Beginning) -> Result<Arc<Vfs>> {
        let specs = beginning.mounts.iter();
        let specs = specs.map(|live| mounts::spec(live, worker));
        let specs = specs.collect::<types::Result<Vec<_>>>()?;
        let own = MountPlan::with_defaults(String::new(), String::new());
        let own = self.plan.mounts.first().unwrap_or(&own);
        let settings = vfs::Settings {
            deadline: self.plan.deadline,
            inodes_max: self.plan.max_inodes,
            attributes: AttributeDefaults {
                uid: own.uid,
                gid: own.gid,
                file_mode: own.file_mode,
                dir_mode: own.dir_mode,
                ..AttributeDefaults::default()
            },
            ..vfs::Settings::default()
        };
        let vfs = Vfs::new(settings, specs, Arc::clone(worker), Arc::clone(&self.clock));
        Ok(vfs?)
    }
}

/// Answers whoever may look at the node, by the ways that were asked for.
fn open_doors(
    (plan, runtime): (&Plan, &Runtime),
    node: &Arc<DaemonNode>,
    metrics: Option<TcpListener>,
    admin: Option<AdminDoor>,
) {
    if let Some(listener) = metrics {
        let door = gateway::serve_metrics(listener, Arc::clone(node) as _, node.ended());
        runtime.spawn(door);
    }
    if let Some(door) = admin {
        let door = door.serve(Arc::clone(node) as _, node.ended());
        runtime.spawn(door);
    }
    if plan.virtual_files {
        node.show_virtual_files();
    }
    runtime.spawn(history::keep(Arc::clone(node)));
}

fn fuse_settings(plan: &Plan) -> fuse::Settings {
    fuse::Settings {
        mount_point: plan.mount_point.clone(),
        threads: plan.threads,
        passthrough: plan.passthrough,
        spare_opens: plan.spare_opens,
        transport: plan.transport,
        allow_other: plan.allow_other,
        read_only: plan.is_read_only(),
        read_ahead: KERNEL_READ_AHEAD,
        fs_name: match &plan.mounts[..] {
            [one] => one.uri.clone(),
            _ => "forebay".to_owned(),
        },
    }
}

/// Resolves when the kernel gets an answer from the mount.
async fn answers(mount_point: &Path) -> Result<()> {
    let path = mount_point.to_owned();
    let answer = tokio::task::spawn_blocking(move || std::fs::metadata(&path));
    let what = || format!("ask the new mount '{}'", mount_point.display());
    tokio::time::timeout(ANSWER_MAX, answer)
        .await
        .with_context(|| format!("{}: no answer in {ANSWER_MAX:?}", what()))?
        .with_context(what)?
        .with_context(what)?;
    Ok(())
}

/// A daemon whose mount is up.
struct Daemon {
    plan: Plan,
    node: Arc<DaemonNode>,
    gateway: tokio::task::JoinHandle<types::Result<()>>,
}

impl Daemon {
    fn new(
        plan: &Plan,
        node: DaemonNode,
        listener: tokio::net::UnixListener,
        runtime: &Runtime,
    ) -> Daemon {
        let node = Arc::new(node);
        let door = gateway::serve(listener, Arc::clone(&node) as _, node.ended());
        Daemon {
            plan: plan.clone(),
            node,
            gateway: runtime.spawn(door),
        }
    }

    fn write_record(&self, uris: Vec<String>) -> Result<()> {
        let (run_dir, log) = (&self.plan.run_dir, self.plan.log.file.clone());
        Record::of_self(run_dir, &self.plan.mount_point, uris, log)?.write(run_dir)
    }

    /// Resolves when the mount is gone: by the admin API, by `umount`, or after a signal.
    async fn until_unmounted(&self, signals: &mut Signals) -> Result<()> {
        let name = tokio::select! {
            () = self.node.ended() => return Ok(()),
            name = signals.next() => name,
        };
        tracing::info!("ends: {name} came");
        service::stopping();
        match self.node.unmount_within(SIGNAL_PATIENCE).await {
            Err(error) if error.kind() == ErrorKind::Busy => {
                tracing::warn!("{error}; detaches it");
                Ok(self.node.unmount_now().await?)
            }
            other => Ok(other?),
        }
    }

    /// Takes everything down, whatever state it is in. Faults are logged: there is nobody to tell.
    fn end(mut self, runtime: &Runtime) {
        service::stopping();
        self.node.pause_jobs();
        runtime.block_on(async {
            match within(END_MAX, self.node.unmount_now()).await {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::warn!("unmount: {error}"),
                None => tracing::warn!("unmount: the kernel did not answer in {END_MAX:?}"),
            }
            self.node.store_rest().await;
            // The socket closes with the mount; this lets the last answer out.
            if within(STORE_MAX + END_MAX, &mut self.gateway)
                .await
                .is_none()
            {
                self.gateway.abort();
            }
        });
        self.node.close_rooms();
        Record::remove_own(&self.plan.run_dir, &self.plan.mount_point);
    }
}

async fn within<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(time, future).await.ok()
}

/// The signals that ask a process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// From here on these signals no longer end the process at once. Needs a runtime.
    fn watch() -> Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate()).context("watch for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("watch for SIGINT")?,
            hang_up: signal(SignalKind::hangup()).context("watch for SIGHUP")?,
        })
    }

    /// Resolves to the name of the next one.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hang_up.recv() => "SIGHUP",
        }
    }
}
