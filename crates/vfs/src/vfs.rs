// SPDX-License-Identifier: Apache-2.0
//! The namespace as one thing: what its parts share, its settings, and the questions that need
//! no storage.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use parking_lot::{Mutex, RwLock};
use types::{ByteSize, Clock, Deadline, Error, ErrorKind, Freshness, ObjectRef, Result};
use worker::Worker;

use crate::attributes::{AttributeDefaults, Attributes};
use crate::bindings::Bindings;
use crate::dir::DirHandle;
use crate::errors::LastErrors;
use crate::handles::{FileHandle, Handles};
use crate::ino::Ino;
use crate::mounts::{MountIndex, MountSpec, MountTable};
use crate::namespace::{Namespace, Node};
use crate::promises::Promises;
use crate::reply::Reply;
use crate::stats::{Counters, FsStats, Stats};
use crate::unopened::Unopened;
use crate::virtual_files::{VirtualFiles, is_virtual, unchangeable};
use crate::write::Queue;

/// Changes of extended attributes of different inodes that seldom wait for each other.
const XATTR_TURNS: usize = 32;

/// How the namespace behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long an operation may take before it fails.
    pub deadline: Duration,
    /// The most that is fetched ahead of one reader; zero turns it off.
    pub read_ahead_max: ByteSize,
    /// Owner and modes of directories above all mounts.
    pub attributes: AttributeDefaults,
    /// How many inodes a kernel may know before [`Vfs::surplus`] names some.
    pub inodes_max: u32,
}

/// Inodes that a kernel may know unless the settings say otherwise: a few data sets of the size of
/// ImageNet. At about 480 bytes each, below 1 GiB.
pub const INODES_MAX_DEFAULT: u32 = 2_000_000;

impl Default for Settings {
    fn default() -> Self {
        Settings {
            deadline: Duration::from_secs(60),
            read_ahead_max: ByteSize(32 << 20),
            attributes: AttributeDefaults::default(),
            inodes_max: INODES_MAX_DEFAULT,
        }
    }
}

/// One tree of mounted storages.
#[derive(Debug)]
pub struct Vfs {
    pub(crate) settings: Settings,
    /// The table of now. Held for a pointer's copy, or for one change; above the namespace.
    pub(crate) mounts: RwLock<Arc<MountTable>>,
    pub(crate) namespace: Namespace,
    pub(crate) files: Handles<FileHandle>,
    pub(crate) unopened: Unopened,
    pub(crate) dirs: Handles<DirHandle>,
    pub(crate) errors: LastErrors,
    pub(crate) counters: Counters,
    pub(crate) promises: Promises,
    /// Names that are written or renamed here.
    pub(crate) bindings: Bindings,
    /// Staged files that wait to be stored.
    pub(crate) queue: Queue,
    /// Numbers that stand in for others, which the kernel reads by itself.
    pub(crate) renumbered: Mutex<HashMap<Ino, Ino>>,
    /// Files that are to be stored once their storage is mounted.
    pub(crate) aside: Mutex<Vec<worker::Staged>>,
    /// Whose turn it is to change extended attributes, by inode.
    pub(crate) xattr_turns: [tokio::sync::Mutex<()>; XATTR_TURNS],
    /// Numbers given to files that were made here.
    pub(crate) numbers: AtomicU64,
    /// What the daemon tells of itself, as files.
    pub(crate) virtual_files: VirtualFiles,
    pub(crate) worker: Arc<Worker>,
    pub(crate) clock: Arc<dyn Clock>,
    /// The time of directories that have none of their own.
    pub(crate) started_ns: i64,
}

impl Vfs {
    /// Makes the tree of these mounts.
    ///
    /// # Errors
    /// `AlreadyExists` for two mounts at one place.
    pub fn new(
        settings: Settings,
        mounts: Vec<MountSpec>,
        worker: Arc<Worker>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Vfs>> {
        let mounts = MountTable::new(mounts)?;
        let started = clock
            .wall()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Ok(Arc::new(Vfs {
            settings,
            namespace: Namespace::new(mounts.root().clone()),
            mounts: RwLock::new(Arc::new(mounts)),
            files: Handles::new(),
            unopened: Unopened::default(),
            dirs: Handles::new(),
            errors: LastErrors::default(),
            counters: Counters::default(),
            promises: Promises::default(),
            bindings: Bindings::default(),
            queue: Queue::default(),
            renumbered: Mutex::default(),
            aside: Mutex::default(),
            xattr_turns: Default::default(),
            numbers: AtomicU64::new(0),
            virtual_files: VirtualFiles::default(),
            worker,
            clock,
            started_ns: i64::try_from(started.as_nanos()).unwrap_or(i64::MAX),
        }))
    }

    /// Returns the attributes of an inode that the kernel knows.
    ///
    /// # Errors
    /// `Stale` for any other number.
    pub fn attributes(&self, ino: Ino) -> Result<Attributes> {
        match self.virtual_attributes(ino) {
            Some(attributes) => Ok(attributes),
            None => Ok(self.attributes_of(&*self.node(ino)?)),
        }
    }

    /// Returns how long the attributes of an inode stay true. A file's never change: when its
    /// object does, its name leads to another inode.
    pub fn attributes_ttl(&self, ino: Ino) -> Duration {
        match self.node(ino) {
            Ok(node) => self.attributes_ttl_of(&node, Duration::ZERO),
            Err(_) => Duration::ZERO,
        }
    }

    /// Returns how long a name that was not found in `parent` need not be asked for again. The age
    /// of that knowledge is not told, so only mounts that never change promise anything, and only of
    /// names that the promise can be taken back of.
    pub fn negative_ttl(&self, parent: Ino) -> Duration {
        let Ok(node) = self.node(parent) else {
            return Duration::ZERO;
        };
        match node.place.mount.map(|mount| self.freshness(Some(mount))) {
            Some(Freshness::Immutable) if self.promises.can_promise_absence() => for_ever(),
            // Above all mounts a name costs nothing and may be mounted any time.
            Some(_) | None => Duration::ZERO,
        }
    }

    /// Returns what `statfs` shows at a path: the room of its storage where that tells it, and no
    /// more than what is written has on its way there.
    ///
    /// # Errors
    /// `Stale` when the inode is not known; else what the storage said.
    pub fn stat_fs(self: &Arc<Self>, ino: Ino) -> Reply<FsStats> {
        let node = match self.node(ino) {
            Ok(node) => node,
            Err(error) => return Reply::Ready(Err(error)),
        };
        let table = self.mount_table();
        let Some(mount) = node.place.mount else {
            let takes_writes = table.live().any(|spec| !spec.writes.is_read_only());
            let room = self.worker.room().filter(|_| takes_writes);
            return Reply::Ready(Ok(FsStats::of(room, None)));
        };
        let spec = match table.live_spec(mount, ErrorKind::Stale) {
            Ok(spec) => spec,
            Err(error) => return Reply::Ready(Err(error)),
        };
        let room = self.worker.room().filter(|_| !spec.writes.is_read_only());
        let asked = self.worker.space(spec.id, self.deadline());
        Reply::Pending(async move { Ok(FsStats::of(room, asked.await?)) }.boxed())
    }

    /// Returns a snapshot of what is in use and what was done.
    pub fn stats(&self) -> Stats {
        let counters = &self.counters;
        Stats {
            inodes: self.namespace.len() as u64,
            files_open: self.files.len() as u64,
            dirs_open: self.dirs.len() as u64,
            opens: counters.opens.get(),
            lookups: counters.lookups.get(),
            lookups_pending: counters.lookups_pending.get(),
            read_hits: counters.read_hits.get(),
            read_misses: counters.read_misses.get(),
            served_bytes: counters.served_bytes.get(),
            read_ahead_bytes: counters.read_ahead_bytes.get(),
            stale: counters.stale.get(),
            forgotten: counters.forgotten.get(),
        }
    }

    /// Returns the path in the tree of an inode that the kernel knows; what cannot be shown of a name
    /// stands as a mark.
    pub fn path_of(&self, ino: Ino) -> Option<String> {
        let place = self.namespace.get(ino)?.place.clone();
        let mounts = self.mounts.read();
        let at = place.mount.map(|mount| mounts.spec(mount).at.to_string());
        let parts = [at.unwrap_or_default(), place.path.to_string()];
        let parts = parts.iter().filter(|part| !part.is_empty());
        let path = parts.fold(String::new(), |all, part| format!("{all}/{part}"));
        Some(if path.is_empty() {
            "/".to_owned()
        } else {
            path
        })
    }

    pub(crate) fn xattr_turn(&self, ino: Ino) -> &tokio::sync::Mutex<()> {
        // A number's low bits are spread as all are.
        &self.xattr_turns[usize::try_from(ino.0).unwrap_or_default() % XATTR_TURNS]
    }

    pub(crate) fn node(&self, ino: Ino) -> Result<Arc<Node>> {
        self.namespace
            .get(ino)
            .ok_or_else(|| match is_virtual(ino) {
                true => unchangeable(),
                false => unknown(ino),
            })
    }

    pub(crate) fn deadline(&self) -> Deadline {
        self.clock.deadline(self.settings.deadline)
    }

    /// Returns the mount table of now; what follows from it must follow from one.
    pub(crate) fn mount_table(&self) -> Arc<MountTable> {
        Arc::clone(&self.mounts.read())
    }

    /// Directories above all mounts change only with the mount table, and then the door is told.
    pub(crate) fn freshness(&self, mount: Option<MountIndex>) -> Freshness {
        mount.map_or(Freshness::Immutable, |mount| {
            self.mounts.read().spec(mount).freshness
        })
    }

    pub(crate) fn attributes_of(&self, node: &Node) -> Attributes {
        if let Some(written) = node.cell.written() {
            return written.attributes(node.ino);
        }
        let of = |defaults| Attributes::new(node.ino, &node.meta, defaults, self.started_ns);
        let mut shown = match node.place.mount {
            Some(mount) => of(&self.mounts.read().spec(mount).attributes),
            None => of(&self.settings.attributes),
        };
        node.cell.show(&mut shown);
        if node.cell.kept.get().is_some() {
            // Open still, and without a name.
            shown.nlink = 0;
        }
        shown
    }

    /// `age` is that of the knowledge behind a directory's attributes.
    pub(crate) fn attributes_ttl_of(&self, node: &Node, age: Duration) -> Duration {
        match node.meta.kind {
            types::NodeKind::File | types::NodeKind::Symlink => for_ever(),
            types::NodeKind::Directory => self
                .freshness(node.place.mount)
                .left(age)
                .unwrap_or_default(),
        }
    }

    /// Returns the object version that a node of a mount stands for.
    pub(crate) fn object(&self, node: &Node) -> Result<ObjectRef> {
        let mount = node.place.mount.ok_or_else(|| {
            Error::internal(format!(
                "'/{}' is a file outside all mounts",
                node.place.path
            ))
        })?;
        let table = self.mount_table();
        let spec = table.live_spec(mount, ErrorKind::Stale)?;
        Ok(ObjectRef::new(
            spec.id,
            node.place.path.clone(),
            node.meta.tag.clone(),
        ))
    }

    /// Keeps the reason of a failure; a version that is gone is forgotten, so that the next
    /// lookup of its name asks the storage.
    pub(crate) fn note_failure(&self, ino: Ino, object: &ObjectRef, error: &Error) {
        self.errors.note(ino, error);
        if error.kind() == ErrorKind::Stale {
            self.counters.stale.add(1);
            self.worker.forget_path(object.mount, &object.path);
        }
    }
}

/// Returns the longest time that a promise is made for.
pub(crate) fn for_ever() -> Duration {
    Freshness::Immutable
        .left(Duration::ZERO)
        .unwrap_or(Duration::MAX)
}

pub(crate) fn unknown(ino: Ino) -> Error {
    Error::new(
        ErrorKind::Stale,
        format!("inode {} is not known any more: look it up again", ino.0),
    )
}
