// SPDX-License-Identifier: Apache-2.0
//! The mounts of a running daemon: those it started with, and changes while it serves.
//!
//! A change goes through the rooms in the order in which it can still be refused: what was asked
//! for, the place in the tree, the storage; then the worker and the tree take it, it is remembered,
//! and the kernel is told to ask again. One change at a time. What came with the command line or the
//! configuration file is changed until the daemon ends; what was added live is remembered.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gateway::wire;
use parking_lot::Mutex;
use types::{Clock, Error, ErrorKind, MountId, ObjectPath, Result};
use ufs::UnderStorage;
use vfs::{AttributeDefaults, MountSpec, Outdated, Vfs, WriteMode, WriteModes};
use worker::Worker;

use crate::config;
use crate::credentials::{Credentials, SECRET_OPTIONS};
use crate::first_look::first_look;
use crate::layout::Layout;
use crate::owners;
use crate::plan::{MountPlan, check_no_userinfo};
use crate::state::{self, Remembered};
use crate::storage::MountedStorage;
use crate::values;

/// Longest wait for the first answer of a storage: a user sits before it.
const CHECK_MAX: Duration = Duration::from_secs(10);

/// How often is looked whether a storage has all that was written.
const STORED_PAUSE: Duration = Duration::from_millis(50);

/// One storage in the tree.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) plan: MountPlan,
    pub(crate) storage: MountedStorage,
    /// Whether it was added to a running daemon, this one or one before.
    pub(crate) is_live: bool,
}

/// What a daemon begins with.
#[derive(Debug, Default)]
pub(crate) struct Beginning {
    pub(crate) mounts: Vec<Live>,
    /// Remembered, and not mounted because the configuration has another mount at the same place.
    pub(crate) shadowed: Vec<Remembered>,
    pub(crate) notices: Vec<String>,
}

/// How mounts are made and where they are remembered.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) request_timeout: Duration,
    pub(crate) state_file: Option<PathBuf>,
    /// Where no storage may lie.
    pub(crate) layout: Layout,
}

/// The rooms that a change goes through.
#[derive(Debug, Clone)]
pub(crate) struct Doors {
    pub(crate) worker: Arc<Worker>,
    pub(crate) vfs: Arc<Vfs>,
    pub(crate) session: Arc<fuse::Session>,
}

/// The mounts of a running daemon.
pub(crate) struct Mounts {
    settings: Settings,
    doors: Doors,
    clock: Arc<dyn Clock>,
    shadowed: Vec<Remembered>,
    /// In the order in which they came. A leaf lock, held for a copy or an assignment.
    live: Mutex<Vec<(MountId, Live)>>,
    /// Held for the whole of a change, also while a storage is asked.
    changing: tokio::sync::Mutex<()>,
}

/// Opens the storages that the plan has, and those that are remembered. The former must be right;
/// the latter may be away.
pub(crate) async fn begin(
    plan: &[MountPlan],
    settings: &Settings,
    clock: &Arc<dyn Clock>,
) -> Result<Beginning> {
    let timeout = settings.request_timeout;
    let opened = plan
        .iter()
        .map(|mount| MountedStorage::open(mount, clock, timeout));
    let opened = futures::future::try_join_all(opened).await?;
    let mut beginning = Beginning::default();
    for (mount, storage) in plan.iter().zip(opened) {
        beginning.mounts.push(Live {
            plan: mount.clone(),
            storage,
            is_live: false,
        });
    }
    let Some(path) = &settings.state_file else {
        return Ok(beginning);
    };
    let remembered = state::load(path).unwrap_or_else(|error| {
        state::put_aside(path);
        let notice = format!("mounts that were added live are not restored: {error:#}");
        beginning.notices.push(notice);
        Vec::new()
    });
    let mut restored = Vec::new();
    for one in remembered {
        let at = &one.mount.at;
        if beginning.mounts.iter().any(|mount| mount.plan.at == *at) {
            let uri = &one.mount.uri;
            beginning.notices.push(format!(
                "'/{at}': the configuration wins over '{uri}', which was added there live"
            ));
            beginning.shadowed.push(one);
            continue;
        }
        restored.push(one);
    }
    let opened = restored
        .iter()
        .map(|one| restore(one, &settings.layout, clock, timeout));
    let opened = futures::future::join_all(opened).await;
    for (one, (storage, refusal)) in restored.into_iter().zip(opened) {
        beginning.notices.extend(refusal);
        beginning.mounts.push(Live {
            plan: one.mount,
            storage,
            is_live: true,
        });
    }
    Ok(beginning)
}

/// Opens a remembered storage, unless it lies by now where the mount or the cache does. Then it is a
/// mount that answers with the reason, which is returned too.
async fn restore(
    one: &Remembered,
    layout: &Layout,
    clock: &Arc<dyn Clock>,
    timeout: Duration,
) -> (MountedStorage, Option<String>) {
    let (mount, identity) = (&one.mount, one.identity.as_str());
    let checked = check_source(layout, mount);
    // One on a file server that is away cannot be looked at, and does not lie here.
    let Ok(Err(error)) = tokio::time::timeout(timeout, checked).await else {
        let opened = MountedStorage::open_some_time(mount, clock, timeout, Some(identity)).await;
        return (opened, None);
    };
    let why = error.to_string();
    let storage = MountedStorage::refused(mount, clock, timeout, identity, &why);
    let advice = format!("'forebay mounts remove /{}' forgets it", mount.at);
    let notice = format!("'/{}' is not restored: {why}; {advice}", mount.at);
    tracing::warn!("{notice}");
    (storage, Some(notice))
}

/// Refuses a directory of this machine that lies where the mount or the cache does.
async fn check_source(layout: &Layout, plan: &MountPlan) -> Result<()> {
    let (layout, uri) = (layout.clone(), plan.uri.clone());
    let checked = tokio::task::spawn_blocking(move || layout.check_source(&uri)).await;
    let checked = checked.map_err(|source| Error::internal("check").with_source(source))?;
    checked.map_err(|why| Error::new(ErrorKind::Invalid, why))
}

/// Gives a storage to the worker and describes its mount for the tree.
pub(crate) fn spec(live: &Live, worker: &Worker) -> Result<MountSpec> {
    let plan = &live.plan;
    let id = worker.add_storage(Arc::new(live.storage.clone()));
    worker.set_bandwidth(id, plan.bandwidth);
    Ok(MountSpec {
        at: ObjectPath::parse(plan.at.as_bytes())?,
        id,
        uri: live.storage.uri().to_owned(),
        freshness: plan.freshness,
        attributes: AttributeDefaults {
            uid: plan.uid,
            gid: plan.gid,
            file_mode: plan.file_mode,
            dir_mode: plan.dir_mode,
            owners: owners::for_tree(&plan.uri, &plan.idmap),
        },
        writes: writes(live)?,
    })
}

/// Returns when what is written reaches the storage: never where it takes no writes.
pub(crate) fn writes(live: &Live) -> Result<WriteModes> {
    match live.storage.is_read_only() {
        true => Ok(WriteModes::default()),
        false => live.plan.writes(),
    }
}

/// Returns it in words: what holds where no path says otherwise, and the paths.
pub(crate) fn write_modes(live: &Live) -> (String, BTreeMap<String, String>) {
    if live.storage.is_read_only() || live.plan.read_only {
        return (WriteMode::ReadOnly.name().to_owned(), BTreeMap::new());
    }
    let paths = live.plan.write_modes.iter();
    let paths = paths.map(|(path, mode)| (format!("/{path}"), mode.name().to_owned()));
    (live.plan.write_mode.name().to_owned(), paths.collect())
}

impl Mounts {
    /// Takes over the mounts with which the rooms were made.
    pub(crate) fn new(
        settings: Settings,
        doors: Doors,
        clock: Arc<dyn Clock>,
        beginning: Beginning,
    ) -> Arc<Mounts> {
        let id = |live: Live| (MountId::of(live.storage.identity()), live);
        Arc::new(Mounts {
            settings,
            doors,
            clock,
            shadowed: beginning.shadowed,
            live: Mutex::new(beginning.mounts.into_iter().map(id).collect()),
            changing: tokio::sync::Mutex::new(()),
        })
    }

    /// Asks the remembered storages once, so that it shows which are away.
    pub(crate) async fn look_after_restored(self: Arc<Self>) {
        let live = self.live.lock().clone();
        let restored = live.iter().filter(|(_, live)| live.is_live);
        let asked = restored.map(|(_, live)| async {
            let deadline = self.clock.deadline(CHECK_MAX);
            if let Err(error) = ufs::probe(&live.storage, deadline).await {
                tracing::warn!("the mount at '/{}' does not answer: {error}", live.plan.at);
            }
        });
        futures::future::join_all(asked).await;
    }

    /// Returns what is mounted where, in the order in which it came.
    pub(crate) fn list(&self) -> Vec<wire::Mount> {
        self.live
            .lock()
            .iter()
            .map(|(id, live)| wire::Mount {
                flow: flow(self.doors.worker.requests(*id)),
                ..describe(live)
            })
            .collect()
    }

    /// Returns the path in the tree of something in a storage; none when it is not mounted any more.
    pub(crate) fn path_of(&self, mount: MountId, path: &ObjectPath) -> Option<String> {
        let live = self.live.lock();
        let (_, live) = live.iter().find(|(id, _)| *id == mount)?;
        let parts = [live.plan.at.clone(), path.to_string()];
        let parts = parts.iter().filter(|part| !part.is_empty());
        Some(parts.fold(String::new(), |all, part| format!("{all}/{part}")))
    }

    /// Hangs one more storage into the tree.
    pub(crate) async fn add(
        self: Arc<Self>,
        request: wire::AddMount,
    ) -> Result<wire::MountChanged> {
        let _one_at_a_time = self.changing.lock().await;
        let invalid = |why| Error::new(ErrorKind::Invalid, why);
        let place = config::place(&request.at).map_err(invalid)?;
        let uri = config::uri(&request.uri).map_err(invalid)?;
        let mut plan = MountPlan::with_defaults(place, uri);
        apply(&mut plan, &request.change)?;
        let at = ObjectPath::parse(plan.at.as_bytes())?;
        self.doors.vfs.check_place(&at).await?;
        check_source(&self.settings.layout, &plan).await?;
        let storage = self.open(&plan, request.change.no_check, None).await?;
        let found = match request.change.no_check {
            true => None,
            false => self.look(&storage, &plan).await?,
        };
        let live = Live {
            plan,
            storage,
            is_live: true,
        };
        let spec = spec(&live, &self.doors.worker)?;
        let id = spec.id;
        let outdated = self.doors.vfs.add_mount(spec)?;
        self.doors.vfs.recover_mounted();
        let mount = describe(&live);
        tracing::info!("mounted '{}' at '{}'", mount.uri, mount.at);
        self.live.lock().push((id, live));
        let mut notices = self.settle(outdated, true).await;
        notices.extend(found);
        Ok(wire::MountChanged { mount, notices })
    }

    /// Looks whether there is anything in a storage.
    async fn look(&self, storage: &MountedStorage, plan: &MountPlan) -> Result<Option<String>> {
        let timeout = self.settings.request_timeout;
        let deadline = self.clock.deadline(CHECK_MAX);
        first_look(storage, plan, &self.clock, timeout, deadline).await
    }

    /// Describes a mount in another way.
    pub(crate) async fn update(
        self: Arc<Self>,
        request: wire::UpdateMount,
    ) -> Result<wire::MountChanged> {
        let _one_at_a_time = self.changing.lock().await;
        let (index, (_, mut live)) = self.find(&request.at)?;
        let before = live.plan.clone();
        apply(&mut live.plan, &request.change)?;
        let plan = &live.plan;
        // The same reference again asks for the secret that is behind it by now.
        let is_another = (&plan.options, &plan.idmap) != (&before.options, &before.idmap);
        if is_another || request.change.credentials.is_some() {
            check_source(&self.settings.layout, plan).await?;
            let unchanged = Live {
                plan: before,
                ..live.clone()
            };
            let opened = self.open(plan, request.change.no_check, Some(&unchanged));
            live.storage = opened.await?;
        }
        let spec = spec(&live, &self.doors.worker)?;
        let id = spec.id;
        let outdated = self.doors.vfs.update_mount(spec)?;
        let (mount, is_live) = (describe(&live), live.is_live);
        tracing::info!("changed the mount of '{}' at '{}'", mount.uri, mount.at);
        self.live.lock()[index] = (id, live);
        let notices = self.settle(outdated, is_live).await;
        Ok(wire::MountChanged { mount, notices })
    }

    /// Takes a storage out of the tree.
    pub(crate) async fn remove(
        self: Arc<Self>,
        request: wire::RemoveMount,
    ) -> Result<wire::MountChanged> {
        let _one_at_a_time = self.changing.lock().await;
        let (index, (id, live)) = self.find(&request.at)?;
        let at = ObjectPath::parse(live.plan.at.as_bytes())?;
        self.check_stored(&at, &request).await?;
        self.doors.vfs.put_aside(&at).await;
        let outdated = self.doors.vfs.remove_mount(&at)?;
        let is_elsewhere = {
            let mut all = self.live.lock();
            all.remove(index);
            all.iter().any(|(other, _)| *other == id)
        };
        if !is_elsewhere {
            self.doors.worker.remove_storage(id);
        }
        let mount = describe(&live);
        tracing::info!("removed the mount of '{}' at '{}'", mount.uri, mount.at);
        let notices = self.settle(outdated, live.is_live).await;
        Ok(wire::MountChanged { mount, notices })
    }

    /// Refuses to remove a mount whose storage does not have all that was written.
    async fn check_stored(&self, at: &ObjectPath, request: &wire::RemoveMount) -> Result<()> {
        let deadline = self
            .clock
            .deadline(Duration::from_secs(request.wait_seconds.unwrap_or(0)));
        loop {
            let count = self.doors.vfs.unstored_of(at);
            if count == 0 || request.force {
                return Ok(());
            }
            if deadline.left(self.clock.now()).is_zero() {
                let message = format!(
                    "{count} files of '/{at}' are not stored yet: --wait waits for that, --force \
                     keeps them on the local disk until it is mounted again; 'forebay staged list' \
                     shows them"
                );
                return Err(Error::new(ErrorKind::Busy, message));
            }
            tokio::time::sleep(STORED_PAUSE).await;
        }
    }

    fn find(&self, at: &str) -> Result<(usize, (MountId, Live))> {
        let place = config::place(at).map_err(|why| Error::new(ErrorKind::Invalid, why))?;
        let live = self.live.lock();
        let found = live.iter().position(|(_, live)| live.plan.at == place);
        found
            .map(|index| (index, live[index].clone()))
            .ok_or_else(|| {
                let places = live.iter().map(|(_, live)| format!("'/{}'", live.plan.at));
                let places: Vec<_> = places.collect();
                let advice = match places.is_empty() {
                    true => "nothing is mounted anywhere".to_owned(),
                    false => format!("the mounts are at {}", places.join(", ")),
                };
                let message = format!("nothing is mounted at '/{place}'; {advice}");
                Error::new(ErrorKind::NotFound, message)
            })
    }

    /// Opens the storage of a mount and asks it once. A new mount of the same place in the same way
    /// as another shares its storage.
    async fn open(
        &self,
        plan: &MountPlan,
        no_check: bool,
        before: Option<&Live>,
    ) -> Result<MountedStorage> {
        let is_same = |other: &&(MountId, Live)| {
            let other = &other.1.plan;
            (&other.uri, &other.options, &other.idmap) == (&plan.uri, &plan.options, &plan.idmap)
                && other.credentials == plan.credentials
        };
        let shared = match before {
            Some(_) => None,
            None => self.live.lock().iter().find(is_same).cloned(),
        };
        let timeout = self.settings.request_timeout;
        let storage = match shared {
            Some((_, live)) => live.storage,
            None if no_check => {
                // What was learnt with other credentials or elsewhere is not this mount's.
                let before = before.filter(|before| {
                    let before = &before.plan;
                    (&before.options, &before.credentials) == (&plan.options, &plan.credentials)
                        && before.idmap == plan.idmap
                });
                let identity = before.map(|before| before.storage.identity());
                MountedStorage::open_some_time(plan, &self.clock, timeout, identity).await
            }
            None => MountedStorage::open(plan, &self.clock, timeout).await?,
        };
        if !no_check {
            let deadline = self.clock.deadline(CHECK_MAX);
            let advice = "nothing was changed; --no-check mounts it all the same";
            let probed = ufs::probe(&storage, deadline).await;
            probed.map_err(|error| Error::new(error.kind(), format!("{error}; {advice}")))?;
        }
        Ok(storage)
    }

    /// Remembers the mounts as they are and lets the kernel ask again. The change is done: what
    /// fails here is told and undoes nothing.
    async fn settle(&self, outdated: Vec<Outdated>, is_live: bool) -> Vec<String> {
        let mut notices = Vec::new();
        if !is_live {
            let until = "it came with the command line or the configuration file";
            notices.push(format!("this holds until the daemon ends: {until}"));
        }
        let remembered = self.remembered();
        let session = Arc::clone(&self.doors.session);
        let path = self.settings.state_file.clone();
        let work = move || {
            let stored = match (is_live, path) {
                (false, _) => Ok(()),
                (true, Some(path)) => state::store(&path, remembered),
                (true, None) => Err(anyhow::anyhow!("no place for it: give --state-dir")),
            };
            (stored, session.invalidate(&outdated))
        };
        match tokio::task::spawn_blocking(work).await {
            Ok((stored, told)) => {
                if let Err(error) = stored {
                    notices.push(format!("this holds until the daemon ends: {error:#}"));
                }
                if let Err(error) = told {
                    notices.push(format!("programs may not see it at once: {error}"));
                }
            }
            Err(error) => notices.push(format!("this may not last: {error}")),
        }
        for notice in &notices {
            tracing::warn!("{notice}");
        }
        notices
    }

    fn remembered(&self) -> Vec<Remembered> {
        let live = self.live.lock();
        let live = live.iter().filter(|(_, live)| live.is_live);
        let live = live.map(|(_, live)| Remembered {
            mount: live.plan.clone(),
            identity: live.storage.identity().to_owned(),
        });
        let taken: Vec<_> = live.collect();
        let shadowed = self.shadowed.iter();
        let hidden = shadowed.filter(|one| taken.iter().all(|t| t.mount.at != one.mount.at));
        let hidden: Vec<_> = hidden.cloned().collect();
        taken.into_iter().chain(hidden).collect()
    }
}

/// Changes a plan as was asked for.
fn apply(plan: &mut MountPlan, change: &wire::MountChange) -> Result<()> {
    let invalid = |why: String| Error::new(ErrorKind::Invalid, why);
    for (option, value) in &change.options {
        if option == owners::OPTION {
            let why = "'idmap' is no option of a storage: give it as the mount's own";
            return Err(invalid(why.to_owned()));
        }
        if SECRET_OPTIONS.contains(&option.as_str()) {
            let why = format!("'{option}' is a secret and no option: give a reference to it");
            return Err(invalid(why));
        }
        match value.is_empty() {
            true => plan.options.remove(option),
            false => plan.options.insert(option.clone(), value.clone()),
        };
    }
    if let Some(endpoint) = plan.options.get("endpoint") {
        check_no_userinfo(endpoint).map_err(|error| invalid(error.to_string()))?;
    }
    if let Some(references) = &change.credentials {
        let credentials = Credentials::of(references.clone());
        plan.credentials = credentials.map_err(|why| invalid(format!("credentials: {why}")))?;
    }
    if let Some(freshness) = &change.freshness {
        plan.freshness = values::freshness(freshness).map_err(invalid)?;
    }
    for mode in [change.file_mode, change.dir_mode].into_iter().flatten() {
        if mode > 0o777 {
            return Err(invalid(format!("{mode:o} is not a mode in octal digits")));
        }
    }
    plan.read_only = change.read_only.unwrap_or(plan.read_only);
    if let Some(text) = &change.write_mode {
        plan.write_mode = values::write_mode(text).map_err(invalid)?;
        plan.read_only = false;
    }
    for (path, mode) in &change.write_modes {
        let path = values::write_mode_path(path).map_err(invalid)?;
        match mode.is_empty() {
            true => plan.write_modes.remove(&path),
            false => {
                let mode = values::write_mode(mode).map_err(invalid)?;
                plan.read_only = false;
                plan.write_modes.insert(path, mode)
            }
        };
    }
    match change.bandwidth_bytes {
        Some(0) => plan.bandwidth = None,
        Some(rate) => plan.bandwidth = Some(rate),
        None => {}
    }
    plan.uid = change.uid.unwrap_or(plan.uid);
    plan.gid = change.gid.unwrap_or(plan.gid);
    plan.file_mode = change.file_mode.unwrap_or(plan.file_mode);
    plan.dir_mode = change.dir_mode.unwrap_or(plan.dir_mode);
    if let Some(idmap) = &change.idmap {
        plan.idmap = idmap
            .parse()
            .map_err(|why| invalid(format!("idmap: {why}")))?;
    }
    owners::check(&plan.uri, &plan.idmap).map_err(invalid)
}

fn describe(live: &Live) -> wire::Mount {
    let (plan, storage) = (&live.plan, &live.storage);
    let (write_mode, write_modes) = write_modes(live);
    wire::Mount {
        at: format!("/{}", plan.at),
        uri: storage.uri().to_owned(),
        freshness: values::show_freshness(plan.freshness),
        read_only: writes(live).is_ok_and(|modes| modes.is_read_only()),
        write_mode,
        write_modes,
        requests: requests(storage),
        flow: wire::Flow::default(),
        bandwidth_bytes: plan.bandwidth,
        options: plan.options.clone(),
        credentials: plan.credentials.references().clone(),
        uid: plan.uid,
        gid: plan.gid,
        idmap: plan.idmap.to_string(),
        file_mode: format!("{:04o}", plan.file_mode),
        dir_mode: format!("{:04o}", plan.dir_mode),
        source: if live.is_live { "live" } else { "start" }.to_owned(),
        fault: storage.fault(),
    }
}

fn flow(requests: Option<worker::Requests>) -> wire::Flow {
    let worker::Requests {
        width,
        under_way,
        waiting:
            [
                waiting_demand,
                waiting_ahead,
                waiting_neighbours,
                waiting_loads,
            ],
        changes,
        hedges,
        held_back,
    } = requests.unwrap_or_default();
    wire::Flow {
        width,
        under_way,
        waiting_demand,
        waiting_ahead,
        waiting_neighbours,
        waiting_loads,
        grown: changes.grown,
        taken_back: changes.taken_back,
        halved: changes.halved,
        shrunk: changes.shrunk,
        hedged: hedges.sent,
        hedges_won: hedges.won,
        hedges_refused: hedges.refused,
        held_back_microseconds: u64::try_from(held_back.as_micros()).unwrap_or(u64::MAX),
    }
}

fn requests(storage: &dyn UnderStorage) -> wire::Requests {
    let counts = storage.counters().snapshot();
    wire::Requests {
        list: counts.list,
        head: counts.head,
        get: counts.get,
        put: counts.put,
        copy: counts.copy,
        delete: counts.delete,
        upload: counts.upload,
        other: counts.other,
        errors: counts.errors,
        retries: counts.retries,
        throttled: counts.throttled,
        unanswered: counts.unanswered,
        bytes_read: counts.bytes_read,
        bytes_written: counts.bytes_written,
    }
}

#[cfg(test)]
mod tests {
    use types::SystemClock;

    use super::*;

    fn settings(dir: &std::path::Path) -> Settings {
        Settings {
            request_timeout: Duration::from_secs(5),
            state_file: Some(dir.join("data.mounts.json")),
            layout: Layout::new(&dir.join("mnt"), &dir.join("cache")),
        }
    }

    #[test]
    fn a_change_leaves_alone_what_it_does_not_name_and_takes_no_secret() {
        let mut plan = MountPlan::with_defaults("x".into(), "s3://b".into());
        plan.options.insert("region".into(), "eu-1".into());
        let change = wire::MountChange {
            options: [("path_style", "true"), ("region", "")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            credentials: Some([("*".to_owned(), "profile:lab".to_owned())].into()),
            freshness: Some("5s".into()),
            dir_mode: Some(0o700),
            ..wire::MountChange::default()
        };
        let before = plan.clone();
        apply(&mut plan, &change).unwrap();
        assert_eq!(plan.options.keys().collect::<Vec<_>>(), ["path_style"]);
        assert_eq!(values::show_freshness(plan.freshness), "5s");
        assert_eq!((plan.dir_mode, plan.file_mode), (0o700, before.file_mode));
        assert_eq!(plan.credentials.references()["*"], "profile:lab");
        for (option, value) in [("token", "hunter2"), ("endpoint", "http://me:hunter2@h")] {
            let options = [(option.to_owned(), value.to_owned())].into();
            let change = wire::MountChange {
                options,
                ..wire::MountChange::default()
            };
            let error = apply(&mut plan.clone(), &change).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[tokio::test]
    async fn the_configuration_wins_over_what_is_remembered_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let settings = settings(dir.path());
        let uri = format!("file://{}", dir.path().display());
        let remembered = |at: &str, uri: &str| Remembered {
            mount: MountPlan::with_defaults(at.into(), uri.into()),
            identity: uri.to_owned(),
        };
        let away = format!("{uri}/away");
        let all = vec![remembered("x", &uri), remembered("y", &away)];
        state::store(settings.state_file.as_ref().unwrap(), all).unwrap();
        let plan = [MountPlan::with_defaults("x".into(), uri.clone())];
        let beginning = begin(&plan, &settings, &clock).await.unwrap();
        let found = beginning
            .mounts
            .iter()
            .map(|live| (&*live.plan.at, live.is_live));
        assert_eq!(found.collect::<Vec<_>>(), [("x", false), ("y", true)]);
        assert_eq!(beginning.shadowed.len(), 1);
        assert!(
            beginning.notices[0].contains("'/x'"),
            "{:?}",
            beginning.notices
        );
        assert!(
            beginning.mounts[1].storage.fault().is_some(),
            "its directory is away"
        );
        let plan = [MountPlan::with_defaults("z".into(), away)];
        assert!(
            begin(&plan, &settings, &clock).await.is_err(),
            "the plan must be right"
        );
    }
}
