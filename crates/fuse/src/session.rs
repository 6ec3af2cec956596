// SPDX-License-Identifier: Apache-2.0
//! Mounting, and the life of a mount until somebody unmounts it.
//!
//! [`mount`] returns when the kernel and we have agreed on terms (INIT), so the first request of a
//! program is answered at once. One thread waits for the threads that read `/dev/fuse`; they end
//! when the kernel has let go of the mount, whoever unmounted it, and then [`Session::wait`] returns.
//! A session that is dropped takes its mount with it.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use fuser::{Config, Depth, INodeNo, Notifier, SessionACL};
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use types::{ByteSize, Error, ErrorKind, Result, SystemClock};
use vfs::{Outdated, Vfs};

use crate::door::Door;
use crate::mount_point::{self, DEVICE, check_device, check_mount_point};
use crate::mount_table::{self, Mounted};
use crate::mounting::{self, Terms};
use crate::ops::Ops;
use crate::stats::Stats;
use crate::unmount;
use crate::watch::Traffic;

/// How long the threads may take to end once the kernel has let go: they only have to wake up.
const END_MAX: Duration = Duration::from_secs(3);

/// Requests that each CPU can have with us over io_uring, those that wait for a storage included;
/// more wait in the kernel. Each has a buffer of the largest request, whose memory is used when a
/// large answer is, and given back beyond a few of them.
const DEPTH: Depth = Depth(64);

/// How a mount is made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// An empty directory.
    pub mount_point: PathBuf,
    /// Threads that read requests and answer hits.
    pub threads: usize,
    /// Whether the kernel may read complete cache files itself.
    pub passthrough: bool,
    /// How requests come in.
    pub transport: Transport,
    /// Whether other users of this machine see the mount, by owner and mode.
    pub allow_other: bool,
    /// Whether the kernel refuses all writes by itself.
    pub read_only: bool,
    /// Whether the kernel is to ask for bytes without opening files first; only where it refuses all
    /// writes.
    pub spare_opens: bool,
    /// How far the kernel reads ahead of programs.
    pub read_ahead: ByteSize,
    /// What `df` and `mount` show as the source.
    pub fs_name: String,
}

/// How the kernel hands requests over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// Over io_uring where the kernel offers it, else by reading `/dev/fuse`.
    #[default]
    Auto,
    /// By reading `/dev/fuse`.
    Dev,
    /// Over io_uring, or not at all.
    Uring,
}

/// A mount that is being served.
#[derive(Debug)]
pub struct Session {
    door: Arc<Door>,
    mount_point: PathBuf,
    mounted: Mounted,
    read_ahead: Option<ByteSize>,
    without_rings: Option<String>,
    notifier: Notifier,
    end: Arc<End>,
}

/// What answers the kernel.
struct Served {
    mounted: Mounted,
    notifier: Notifier,
    end: Arc<End>,
    /// Why requests come from `/dev/fuse`; nothing when they come over io_uring.
    without_rings: Option<String>,
}

/// How the session ended, once it has.
#[derive(Debug, Default)]
struct End {
    result: Mutex<Option<Result<()>>>,
    changed: Condvar,
}

/// Mounts `vfs` and serves it until it is unmounted. What takes long runs on `runtime`.
///
/// # Errors
/// One message with cause and remedy for a mount point that will not do, a missing device, a missing
/// privilege or helper, and for io_uring where nothing else will do.
pub fn mount(settings: Settings, vfs: Arc<Vfs>, runtime: Handle) -> Result<Session> {
    check_device(Path::new(DEVICE))?;
    check_mount_point(&settings.mount_point)?;
    let mount_point = mount_point::resolve(&settings.mount_point)?;
    let door = Arc::new(Door::new(vfs, runtime, Arc::new(SystemClock)));
    let served = match settings.transport {
        Transport::Dev => served(&mount_point, &settings, &door, None),
        Transport::Uring => served(&mount_point, &settings, &door, Some(DEPTH)),
        Transport::Auto => match served(&mount_point, &settings, &door, Some(DEPTH)) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                tracing::warn!("{error}; going on with /dev/fuse");
                let served = served(&mount_point, &settings, &door, None);
                served.map(|served| Served {
                    without_rings: Some(error.to_string()),
                    ..served
                })
            }
            served => served,
        },
    };
    let Served {
        mounted,
        notifier,
        end,
        without_rings,
    } = served?;
    let read_ahead = set_read_ahead(&mounted, settings.read_ahead);
    door.tell_denials();
    Ok(Session {
        door,
        mount_point,
        mounted,
        read_ahead,
        without_rings,
        notifier,
        end,
    })
}

/// Mounts and answers the kernel; leaves no mount behind when that fails.
fn served(
    mount_point: &Path,
    settings: &Settings,
    door: &Arc<Door>,
    rings: Option<Depth>,
) -> Result<Served> {
    let terms = Terms {
        fs_name: &settings.fs_name,
        allow_other: settings.allow_other,
        read_only: settings.read_only,
    };
    let connection = mounting::connect(mount_point, terms)?;
    // From here on there is a mount, and every way out takes it away.
    started(mount_point, connection, settings, door, rings).inspect_err(|_| {
        if let Err(e) = unmount::abandon(mount_point) {
            tracing::warn!("leave {}: {e}", mount_point.display());
        }
    })
}

/// Agrees on terms with the kernel and starts the threads that answer it.
fn started(
    mount_point: &Path,
    connection: OwnedFd,
    settings: &Settings,
    door: &Arc<Door>,
    rings: Option<Depth>,
) -> Result<Served> {
    let Some(mounted) = mount_table::at(mount_point)?.filter(Mounted::is_ours) else {
        let message = format!("{} was unmounted as soon as mounted", mount_point.display());
        return Err(Error::new(ErrorKind::Unavailable, message));
    };
    let ops = Ops {
        door: Arc::clone(door),
        passthrough: settings.passthrough,
        spare_opens: settings.spare_opens && settings.read_only,
    };
    let mut config = Config::default();
    config.n_threads = Some(settings.threads.max(1));
    config.clone_fd = false;
    config.rings = rings;
    // Who may come in is checked by the kernel, which knows the terms of the mount.
    config.acl = SessionACL::All;
    let session = fuser::Session::from_fd(ops, connection, SessionACL::All, config)
        .map_err(|e| Error::io("agree with the kernel on a FUSE session", e))?;
    let without_rings = match session.without_rings() {
        Some(why) if settings.transport == Transport::Uring => {
            let message = format!("requests over io_uring: {why}; or use --transport auto");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        why => why.map(String::from),
    };
    let has_rings = session.has_rings();
    let asked_not = || String::from("it was switched off");
    let without_rings = without_rings.or_else(|| (!has_rings).then(asked_not));
    let session = session.spawn().map_err(|e| match has_rings {
        // The kernel was promised what it then did not take: only another mount can do without.
        true => Error::new(
            ErrorKind::Unsupported,
            format!("requests over io_uring: {e}"),
        ),
        false => Error::io("start to serve the kernel", e),
    })?;
    let (end, notifier) = (Arc::new(End::default()), session.notifier());
    let waiter = {
        let (end, door) = (Arc::clone(&end), Arc::clone(door));
        move || {
            let result = session.join();
            door.end();
            end.set(result.map_err(|e| Error::io("serve the mount", e)));
        }
    };
    thread::Builder::new()
        .name("fuse-wait".into())
        .spawn(waiter)
        .map_err(|e| Error::io("start a thread for the mount", e))?;
    Ok(Served {
        mounted,
        notifier,
        end,
        without_rings,
    })
}

impl Session {
    /// Waits until the mount has gone, whoever unmounted it.
    pub fn wait(&self) -> Result<()> {
        let mut result = self.end.result.lock();
        loop {
            match &*result {
                Some(result) => return result.clone(),
                None => self.end.changed.wait(&mut result),
            }
        }
    }

    /// Returns whether the mount has gone.
    pub fn has_ended(&self) -> bool {
        self.end.result.lock().is_some()
    }

    /// Unmounts, and returns when nothing is served any more.
    ///
    /// Without `force`, fails with [`ErrorKind::Busy`] while the mount is in use, and says by whom.
    /// With it, always succeeds: what is being read fails.
    pub fn unmount(&self, force: bool) -> Result<()> {
        if self.has_ended() {
            return Ok(());
        }
        let (shown, ours) = (self.mount_point.display(), self.mounted.id);
        match mount_table::at(&self.mount_point)? {
            Some(top) if top.id == ours && force => unmount::detach(&self.mount_point, &top)?,
            Some(top) if top.id == ours => unmount::leave(&self.mount_point)?,
            Some(top) if mount_table::read()?.iter().any(|other| other.id == ours) => {
                let message = format!("{} is mounted over {shown}; unmount it first", top.source);
                return Err(Error::new(ErrorKind::Busy, message));
            }
            // Somebody else took it out of the tree; it ends with its last open file.
            Some(_) | None => {}
        }
        let mut result = self.end.result.lock();
        if result.is_none() {
            self.end.changed.wait_for(&mut result, END_MAX);
        }
        match &*result {
            Some(_) => Ok(()),
            // Nobody can come in any more. An ordinary user cannot cut off what is open where the
            // kernel's control file system is not mounted; it ends with this process.
            None if force => {
                *result = Some(Ok(()));
                self.end.changed.notify_all();
                Ok(())
            }
            None => {
                let message = format!("{shown} left the tree, but files in it are still open");
                Err(Error::new(ErrorKind::Busy, message))
            }
        }
    }

    /// Returns where it is mounted, without links.
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// Lets the kernel ask again for what it may hold on to and is not true any more.
    ///
    /// Never call it on a thread that answers the kernel: the kernel first waits for the requests
    /// that are under way in the same directories.
    ///
    /// # Errors
    /// `Unavailable` when the kernel does not take it; it goes on believing what it knew.
    pub fn invalidate(&self, outdated: &[Outdated]) -> Result<()> {
        for one in outdated {
            let told = match one {
                Outdated::Name { dir, name } => {
                    let name = OsStr::from_bytes(name);
                    self.notifier.inval_entry(INodeNo(dir.0), name)
                }
                // An offset below zero: attributes only, never pages.
                Outdated::Attributes(ino) => self.notifier.inval_inode(INodeNo(ino.0), -1, 0),
            };
            // After the end nobody believes anything.
            if let Err(source) = told
                && !self.has_ended()
            {
                let message = "tell the kernel that the mounts have changed";
                return Err(Error::new(ErrorKind::Unavailable, message).with_source(source));
            }
        }
        Ok(())
    }

    /// Counts from now on, for `patience`, who opens, reads and writes what, and returns what was
    /// counted since somebody began to ask.
    pub fn watch(&self, patience: Duration) -> Traffic {
        self.door.watch.look(patience)
    }

    /// Returns what has been served so far.
    pub fn stats(&self) -> Stats {
        let (open_passthrough, open_cached) = self.door.modes.opens();
        let (errors, recent_errors) = self.door.errors.snapshot();
        let (waits, waited) = self.door.waits.get();
        Stats {
            requests: self.door.requests.snapshot(),
            waits,
            waited,
            slow: self.door.accesses.slow(),
            denied: self.door.accesses.denials.count(),
            open_passthrough,
            open_cached,
            handed: self.door.handed.load(Relaxed),
            passthrough: self.door.modes.passthrough(),
            without_rings: self.without_rings.clone(),
            read_ahead: self.read_ahead,
            errors,
            recent_errors,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Err(e) = self.unmount(true) {
            tracing::warn!("leave {}: {e}", self.mount_point.display());
        }
    }
}

impl End {
    fn set(&self, result: Result<()>) {
        *self.result.lock() = Some(result);
        self.changed.notify_all();
    }
}

/// Raises the kernel's read-ahead over the 128 KiB that it offers, and returns what it is then.
/// Only root may; without it, large sequential reads are slower, and nothing else changes.
fn set_read_ahead(mounted: &Mounted, wanted: ByteSize) -> Option<ByteSize> {
    let (major, minor) = mounted.device;
    let file = PathBuf::from(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"));
    if let Err(e) = fs::write(&file, (wanted.0 / 1024).to_string()) {
        tracing::debug!("raise the read-ahead through {}: {e}", file.display());
    }
    let kib: u64 = fs::read_to_string(&file).ok()?.trim().parse().ok()?;
    Some(ByteSize(kib * 1024))
}
