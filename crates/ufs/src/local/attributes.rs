// SPDX-License-Identifier: Apache-2.0
//! Owners, modes and times of files, directories and links.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use types::Result;
use types::meta::Owner;

use super::draft::write_error;
use super::{io_error, xattrs};
use crate::FileAttributes;

/// What to do where the daemon may not give files to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chown {
    /// Fail.
    Always,
    /// Leave the file to the daemon; the answer tells.
    IfAllowed,
}

/// Sets what is given, of a file that is open.
pub(super) fn set_all(file: &OwnedFd, attributes: &FileAttributes, chown: Chown) -> Result<()> {
    if let Some(owner) = attributes.owner {
        set_owner(file.as_fd(), &owner, chown)?;
        // Afterwards, since a change of owner takes bits away.
        let mode = Mode::from_raw_mode(owner.mode & 0o7777);
        rustix::fs::fchmod(file, mode).map_err(|errno| write_error("change mode", errno))?;
    }
    if let Some(xattrs) = &attributes.xattrs {
        xattrs::write(file, xattrs)?;
    }
    if let Some(mtime_ns) = attributes.mtime_ns {
        let times = times(mtime_ns);
        rustix::fs::futimens(file, &times).map_err(|errno| write_error("change time", errno))?;
    }
    Ok(())
}

/// Sets what is given, of a file or directory that is only held, not open.
pub(super) fn set_by_handle(file: &OwnedFd, attributes: &FileAttributes) -> Result<()> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    if let Some(owner) = attributes.owner {
        set_owner(file.as_fd(), &owner, Chown::Always)?;
        let mode = Mode::from_raw_mode(owner.mode & 0o7777);
        rustix::fs::chmod(path.as_str(), mode)
            .map_err(|errno| write_error("change mode", errno))?;
    }
    if let Some(xattrs) = &attributes.xattrs {
        xattrs::write(file, xattrs)?;
    }
    if let Some(mtime_ns) = attributes.mtime_ns {
        let (times, flags) = (times(mtime_ns), AtFlags::empty());
        rustix::fs::utimensat(rustix::fs::CWD, path.as_str(), &times, flags)
            .map_err(|errno| write_error("change time", errno))?;
    }
    Ok(())
}

/// Sets what a symbolic link has: no mode.
pub(super) fn set_of_link(link: &OwnedFd, attributes: &FileAttributes, chown: Chown) -> Result<()> {
    if let Some(owner) = attributes.owner {
        set_owner(link.as_fd(), &owner, chown)?;
    }
    if let Some(mtime_ns) = attributes.mtime_ns {
        rustix::fs::utimensat(link, "", &times(mtime_ns), AtFlags::EMPTY_PATH)
            .map_err(|errno| write_error("change time", errno))?;
    }
    Ok(())
}

fn set_owner(file: BorrowedFd<'_>, owner: &Owner, chown: Chown) -> Result<()> {
    let stat = rustix::fs::fstat(file).map_err(|errno| io_error("stat", errno))?;
    if (stat.st_uid, stat.st_gid) == (owner.uid, owner.gid) {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    match rustix::fs::chownat(file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH) {
        Err(Errno::PERM) if chown == Chown::IfAllowed => Ok(()),
        changed => changed.map_err(|errno| write_error("change owner", errno)),
    }
}

fn times(mtime_ns: i64) -> Timestamps {
    const SECOND: i64 = 1_000_000_000;
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime_ns.div_euclid(SECOND),
            tv_nsec: mtime_ns.rem_euclid(SECOND),
        },
    }
}
