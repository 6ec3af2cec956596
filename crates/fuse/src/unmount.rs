// SPDX-License-Identifier: Apache-2.0
//! Taking a mount away, politely or not.
//!
//! Politely: the kernel refuses while a file is open or a process stands inside, and the error says
//! who. By force: the connection is aborted, so that every waiting request fails at once, and the
//! mount leaves the tree. Root does both by system call, others through `fusermount3`, which checks
//! that the mount is theirs. Nothing here reads anything below the mount point.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use types::{Error, ErrorKind, Result};

use crate::mount_point::resolve;
use crate::mount_table::{self, Mounted};

/// How many processes a message names.
const HOLDERS_MAX: usize = 5;

/// Unmounts what this product mounted at `mount_point`, whoever's process serves it.
///
/// Without `force`, fails with [`ErrorKind::Busy`] while the mount is in use, and names who uses it.
/// With it, always ends the mount: what is being read fails.
pub fn unmount(mount_point: &Path, force: bool) -> Result<()> {
    let path = resolve(mount_point)?;
    let shown = path.display();
    let Some(mounted) = mount_table::at(&path)? else {
        let message = format!("nothing is mounted at {shown}; 'forebay status' lists the mounts");
        return Err(Error::new(ErrorKind::NotFound, message));
    };
    if !mounted.is_ours() {
        let (source, fs_type) = (&mounted.source, &mounted.fs_type);
        let message = format!("{source} at {shown} is a mount of {fs_type}, not of forebay");
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    match force {
        true => detach(&path, &mounted),
        false => leave(&path),
    }
}

/// Unmounts when nobody uses it.
pub(crate) fn leave(path: &Path) -> Result<()> {
    let done = match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW) {
        Ok(()) => return Ok(()),
        Err(Errno::PERM) => fusermount(path, &["-u"]),
        Err(e) => Err(fault(path, e)),
    };
    done.map_err(|e| match e.kind() {
        ErrorKind::Busy => in_use(path),
        _ => e,
    })
}

/// Aborts the connection and takes the mount out of the tree, used or not.
pub(crate) fn detach(path: &Path, mounted: &Mounted) -> Result<()> {
    // Root's unmount aborts by itself; others need the kernel's control file, where there is one.
    let abort = format!("/sys/fs/fuse/connections/{}/abort", mounted.device.1);
    if let Err(e) = fs::write(&abort, "1") {
        tracing::debug!("abort through {abort}: {e}");
    }
    abandon(path)
}

/// Takes a mount out of the tree, whatever becomes of it.
pub(crate) fn abandon(path: &Path) -> Result<()> {
    let flags = UnmountFlags::FORCE | UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    match rustix::mount::unmount(path, flags) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => fusermount(path, &["-u", "-z"]),
        Err(e) => Err(fault(path, e)),
    }
}

fn fault(path: &Path, errno: Errno) -> Error {
    let error = Error::io(format!("unmount {}", path.display()), errno.into());
    match errno {
        Errno::BUSY => Error::new(ErrorKind::Busy, error.to_string()),
        _ => error,
    }
}

/// Asks the helper that ordinary users unmount with.
fn fusermount(path: &Path, options: &[&str]) -> Result<()> {
    let shown = path.display();
    let output = Command::new("fusermount3")
        .args(options)
        .arg("--")
        .arg(path)
        .output();
    let output = output.map_err(|e| {
        let fix = "install the package fuse3, or run as root";
        Error::io(format!("unmount {shown} with fusermount3: {fix}"), e)
    })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let kind = match text.contains("busy") {
        true => ErrorKind::Busy,
        false => ErrorKind::PermissionDenied,
    };
    Err(Error::new(kind, format!("unmount {shown}: {text}")))
}

fn in_use(path: &Path) -> Error {
    let shown = path.display();
    let who = match holders(path).join(", ") {
        none if none.is_empty() => String::from("by a process that this user may not see"),
        some => format!("by {some}"),
    };
    let message = format!(
        "{shown} is in use {who}; end that and try again, or use --force, which fails its reads"
    );
    Error::new(ErrorKind::Busy, message)
}

/// Returns the names and numbers of processes that have something open below `path`, a few.
fn holders(path: &Path) -> Vec<String> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let is_number = |name: &str| name.bytes().all(|b| b.is_ascii_digit());
    let names = processes
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let holding =
        names.filter(|name| is_number(name) && holds(&Path::new("/proc").join(name), path));
    let shown = holding.map(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("{} (pid {pid})", name.trim())
    });
    shown.take(HOLDERS_MAX).collect()
}

/// Returns whether a process stands in, has open, or maps something below `path`.
fn holds(process: &Path, path: &Path) -> bool {
    let below = |link: &Path| fs::read_link(link).is_ok_and(|target| target.starts_with(path));
    if below(&process.join("cwd")) || below(&process.join("root")) {
        return true;
    }
    let files = fs::read_dir(process.join("fd"));
    if files.is_ok_and(|files| files.flatten().any(|file| below(&file.path()))) {
        return true;
    }
    let maps = fs::read(process.join("maps")).unwrap_or_default();
    maps.split(|&b| b == b'\n').any(|line| {
        let start = line.iter().position(|&b| b == b'/').unwrap_or(line.len());
        String::from_utf8(line[start..].to_vec())
            .is_ok_and(|mapped| Path::new(&mapped).starts_with(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_mounts_are_unmounted() {
        let dir = tempfile::tempdir().unwrap();
        for force in [false, true] {
            let error = unmount(dir.path(), force).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            let error = unmount(Path::new("/proc"), force).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        }
    }

    #[test]
    fn a_process_that_has_a_file_open_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        assert!(holders(&path).is_empty());
        let _open = fs::File::create(path.join("file")).unwrap();
        let me = format!("(pid {})", std::process::id());
        assert!(holders(&path).iter().any(|holder| holder.ends_with(&me)));
        assert!(
            holders(&path.join("fi")).is_empty(),
            "names are compared whole"
        );
    }
}
