// SPDX-License-Identifier: Apache-2.0
//! Whether a directory can be mounted on, and what to do when it cannot.
//!
//! Each fault becomes one message with its cause and its remedy. A mount whose daemon has died stays
//! in the kernel's table and answers "Transport endpoint is not connected" to everything;
//! [`clean_dead_mount`] takes such a one away, if it is ours and really dead.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::FlockOperation;
use types::{Error, ErrorKind, Result};

use crate::mount_table::{self, Mounted};
use crate::unmount;

/// Where the kernel's FUSE driver is found.
pub(crate) const DEVICE: &str = "/dev/fuse";

/// A living daemon answers `statfs` from memory; one that takes longer is not dead, but stuck.
const PROBE_MAX: Duration = Duration::from_secs(5);

/// A killed process was seen to be dying for some tens of milliseconds.
const DYING_TRIES: u32 = 50;
const DYING_PAUSE: Duration = Duration::from_millis(20);

/// Checks that something can be mounted at `mount_point`: an empty directory on which nothing is
/// mounted yet. The error says what is wrong and what to do.
pub fn check_mount_point(mount_point: &Path) -> Result<()> {
    let shown = mount_point.display();
    let path = resolve(mount_point)?;
    if let Some(mounted) = mount_table::at(&path)? {
        return Err(taken(&path, &mounted));
    }
    let failed = |e| {
        let fix = "give a directory that this user may read, or run as another user";
        Error::io(format!("mount point {shown} cannot be used: {fix}"), e)
    };
    if !std::fs::metadata(&path).map_err(failed)?.is_dir() {
        let message = format!("mount point {shown} is not a directory; give an empty directory");
        return Err(Error::new(ErrorKind::NotADirectory, message));
    }
    match std::fs::read_dir(&path).map_err(failed)?.next() {
        None => Ok(()),
        Some(Err(e)) => Err(failed(e)),
        Some(Ok(_)) => {
            let message = format!(
                "mount point {shown} is not empty, and the mount would hide what is in it; \
                 give an empty directory"
            );
            Err(Error::new(ErrorKind::NotEmpty, message))
        }
    }
}

/// As long as one lives, no other process that claims the same mount point gets it.
#[derive(Debug)]
pub struct Claim(
    #[allow(dead_code, reason = "the lock goes when it is closed")] Option<std::fs::File>,
);

/// As [`check_mount_point`], and keeps the place for this process while it prepares its mount.
pub fn claim_mount_point(mount_point: &Path) -> Result<Claim> {
    check_mount_point(mount_point)?;
    // Of the directory that the mount will cover, so that nothing is left behind.
    let dir = std::fs::File::open(mount_point)
        .map_err(|e| Error::io(format!("open {}", mount_point.display()), e))?;
    let claim = match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Claim(Some(dir)),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let shown = mount_point.display();
            let message = format!(
                "something is being mounted at {shown} just now; wait for it, or give another \
                 directory"
            );
            return Err(Error::new(ErrorKind::Busy, message));
        }
        // A file system without locks: there only the second of two starts at once may fail late.
        Err(_) => Claim(None),
    };
    // The one before us may have finished since the first look.
    check_mount_point(mount_point)?;
    Ok(claim)
}

/// Takes away what a dead daemon of ours left mounted at `mount_point`. Returns whether there was
/// such a thing. Mounts that still answer, and mounts of others, are left alone.
pub fn clean_dead_mount(mount_point: &Path) -> Result<bool> {
    let Ok(path) = resolve(mount_point) else {
        return Ok(false);
    };
    match mount_table::at(&path)? {
        Some(mounted) if mounted.is_ours() && is_dead(&path) => {
            unmount::detach(&path, &mounted)?;
            Ok(true)
        }
        Some(_) | None => Ok(false),
    }
}

/// Checks that this process can talk to the kernel's FUSE driver.
pub(crate) fn check_device(device: &Path) -> Result<()> {
    let shown = device.display();
    let Err(fault) = OpenOptions::new().read(true).write(true).open(device) else {
        return Ok(());
    };
    let (kind, fix) = match fault.kind() {
        io::ErrorKind::NotFound => (
            ErrorKind::Unsupported,
            "load the kernel module with 'modprobe fuse'; in a container, start it with \
             '--device /dev/fuse --cap-add SYS_ADMIN'",
        ),
        io::ErrorKind::PermissionDenied => (
            ErrorKind::PermissionDenied,
            "run as root, or let this user read and write it ('chmod 666 /dev/fuse' is usual)",
        ),
        _ => (
            ErrorKind::Unavailable,
            "load the kernel module with 'modprobe fuse'",
        ),
    };
    Err(Error::new(
        kind,
        format!("{shown} cannot be opened ({fault}): {fix}"),
    ))
}

/// Puts the fault of a mount that the kernel or `fusermount3` refused into words.
pub(crate) fn refused(mount_point: &Path, fault: &io::Error) -> Error {
    let text = fault.to_string();
    let (kind, fix) = if text.contains("user_allow_other") {
        let fix = "write 'user_allow_other' into /etc/fuse.conf, or mount without allow_other";
        (ErrorKind::PermissionDenied, fix)
    } else if fault.kind() == io::ErrorKind::NotFound {
        let fix = "install fusermount3 (package fuse3), or run as root";
        (ErrorKind::Unsupported, fix)
    } else if fault.kind() == io::ErrorKind::PermissionDenied || text.contains("not permitted") {
        let fix = "run as root, or as the owner of the mount point with fusermount3 installed; \
             in a container, start it with '--device /dev/fuse --cap-add SYS_ADMIN'";
        (ErrorKind::PermissionDenied, fix)
    } else {
        (ErrorKind::Unavailable, "see the kernel's log ('dmesg')")
    };
    let shown = mount_point.display();
    Error::new(
        kind,
        format!("mount at {shown} was refused ({}): {fix}", text.trim()),
    )
}

/// Returns the absolute path without links that the kernel's table has. Does not touch what is
/// mounted there.
pub(crate) fn resolve(mount_point: &Path) -> Result<PathBuf> {
    let shown = mount_point.display();
    match std::fs::canonicalize(mount_point) {
        Ok(path) => Ok(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let message =
                format!("mount point {shown} is missing; make it with 'mkdir -p {shown}'");
            Err(Error::new(ErrorKind::NotFound, message))
        }
        // Perhaps of a dead daemon; which error that is depends on how far it has died.
        Err(e) => {
            let absolute = std::path::absolute(mount_point);
            let name = mount_point.file_name();
            match (absolute.as_deref().ok().and_then(Path::parent), name) {
                (Some(parent), Some(name)) => std::fs::canonicalize(parent)
                    .map(|parent| parent.join(name))
                    .map_err(|e| Error::io(format!("find mount point {shown}"), e)),
                _ => Err(Error::io(format!("find mount point {shown}"), e)),
            }
        }
    }
}

fn taken(path: &Path, mounted: &Mounted) -> Error {
    let (shown, source) = (path.display(), &mounted.source);
    if !mounted.is_ours() {
        let message = format!(
            "{source} ({}) is mounted at {shown} already; give another directory, \
             or unmount it with 'umount {shown}'",
            mounted.fs_type
        );
        return Error::new(ErrorKind::Busy, message);
    }
    let state = match is_dead(path) {
        true => "the daemon of this mount has died, and left it",
        false => "it is in use already",
    };
    let message = format!(
        "{source} is mounted at {shown}: {state}; unmount it with 'forebay umount {shown}', \
         or give another directory"
    );
    Error::new(ErrorKind::Busy, message)
}

/// Asks a mount of ours whether its daemon is gone. A live one answers this question without error,
/// and a dead one with ENOTCONN: any other error is of one that is just dying.
fn is_gone(path: &Path) -> bool {
    for _ in 0..DYING_TRIES {
        match rustix::fs::statfs(path) {
            Ok(_) => return false,
            Err(rustix::io::Errno::NOTCONN) => return true,
            Err(_) => {}
        }
        #[allow(
            clippy::disallowed_methods,
            reason = "nobody tells when a process has died for good"
        )]
        thread::sleep(DYING_PAUSE);
    }
    false
}

/// Returns whether no daemon answers for this mount any more.
fn is_dead(path: &Path) -> bool {
    let (answer, answered) = mpsc::sync_channel(1);
    let path = path.to_owned();
    // On a thread of its own: a stuck daemon must not hang us. The thread ends with the daemon.
    let probe = thread::Builder::new()
        .name("mount-probe".into())
        .spawn(move || {
            let dead = is_gone(&path);
            // Nobody listens any more when the time was up.
            answer.send(dead).ok();
        });
    probe.is_ok() && answered.recv_timeout(PROBE_MAX).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_directory_will_do() {
        let dir = tempfile::tempdir().unwrap();
        check_mount_point(dir.path()).unwrap();
        assert!(
            !clean_dead_mount(dir.path()).unwrap(),
            "there is nothing to clean"
        );
    }

    #[test]
    fn a_mount_point_is_claimed_by_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = claim_mount_point(dir.path()).unwrap();
        let error = claim_mount_point(dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        assert!(error.to_string().contains("just now"), "{error}");
        drop(first);
        claim_mount_point(dir.path()).unwrap();
    }

    #[test]
    fn each_unfit_mount_point_is_named_with_its_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"x").unwrap();
        let cases = [
            (dir.path().join("absent"), ErrorKind::NotFound, "mkdir -p"),
            (file, ErrorKind::NotADirectory, "give an empty directory"),
            (dir.path().to_owned(), ErrorKind::NotEmpty, "would hide"),
            (
                PathBuf::from("/proc"),
                ErrorKind::Busy,
                "mounted at /proc already",
            ),
        ];
        for (path, kind, remedy) in cases {
            let error = check_mount_point(&path).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            let text = error.to_string();
            assert!(
                text.contains(remedy) && text.contains(&*path.to_string_lossy()),
                "{text}"
            );
        }
    }

    #[test]
    fn a_missing_device_is_named_with_its_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let error = check_device(&dir.path().join("fuse")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("modprobe fuse"), "{error}");
    }

    #[test]
    fn refusals_of_the_kernel_and_of_fusermount_are_explained() {
        let cases = [
            (
                io::Error::from_raw_os_error(libc::ENOENT),
                ErrorKind::Unsupported,
                "package fuse3",
            ),
            (
                io::Error::other("fusermount3: mount failed: Operation not permitted"),
                ErrorKind::PermissionDenied,
                "SYS_ADMIN",
            ),
            (
                io::Error::other("option allow_other only allowed if 'user_allow_other' is set"),
                ErrorKind::PermissionDenied,
                "/etc/fuse.conf",
            ),
            (io::Error::other("EINVAL"), ErrorKind::Unavailable, "dmesg"),
        ];
        for (fault, kind, remedy) in cases {
            let error = refused(Path::new("/mnt/x"), &fault);
            assert_eq!(error.kind(), kind, "{error}");
            let text = error.to_string();
            assert!(text.contains(remedy) && text.contains("/mnt/x"), "{text}");
        }
    }
}
