// SPDX-License-Identifier: Apache-2.0
//! Listings of a local directory, a bounded number of names at a time.
//!
//! Names are read and then looked at, in two pieces of work, so that names that changed just now
//! can be looked at again without being read again.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Dir, OFlags};
use rustix::io::Errno;
use types::{Error, Name, ObjectPath, Result};

use super::version::{self, is_young, meta_of};
use super::{Inner, io_error};
use crate::counters::count;
use crate::temporary::{LEFT_BEHIND, is_draft, is_temporary};
use crate::{ListEntry, ListPage};

/// Names of one page.
const PAGE_NAMES: usize = 1024;

/// Returns the next page and, when there may be more, where to go on.
pub(super) async fn page(
    inner: &Arc<Inner>,
    path: &ObjectPath,
    dir: Option<Dir>,
) -> Result<(ListPage, Option<Dir>)> {
    let what = inner.name("list", path);
    let deadline = inner.clock.deadline(inner.request_timeout);
    count(&inner.counters.list);
    let directory = path.clone();
    let read = move |inner: &Inner| {
        let mut dir = match dir {
            Some(dir) => dir,
            None => {
                let opened = inner.open(&directory, OFlags::RDONLY | OFlags::DIRECTORY)?;
                Dir::new(opened).map_err(|errno| io_error("open", errno))?
            }
        };
        let (names, more) = read_names(&mut dir)?;
        Ok((dir, names, more))
    };
    let (dir, names, more) = inner.work(&what, deadline, read).await?;
    let names = Arc::new(names);
    let dir = Arc::new(Mutex::new(dir));
    let look = || {
        let (names, dir, now) = (Arc::clone(&names), Arc::clone(&dir), inner.clock.wall());
        inner.work(&what, deadline, move |inner| {
            let dir = dir.lock().unwrap_or_else(PoisonError::into_inner);
            stat_names(inner, &dir, &names, now)
        })
    };
    let (mut page, young) = look().await?;
    if young {
        tokio::time::sleep(version::GRAIN).await;
        page = look().await?.0;
    }
    let dir = Arc::into_inner(dir).and_then(|dir| dir.into_inner().ok());
    let dir = dir.ok_or_else(|| Error::internal("a page still being read").context(&what))?;
    Ok((page, more.then_some(dir)))
}

/// Reads up to a page of names; says whether there may be more.
fn read_names(dir: &mut Dir) -> Result<(Vec<Vec<u8>>, bool)> {
    let mut names = Vec::new();
    while names.len() < PAGE_NAMES {
        let Some(entry) = dir.read() else {
            return Ok((names, false));
        };
        let entry = entry.map_err(|errno| io_error("read", errno))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok((names, true))
}

/// Looks at each name; says whether one changed so recently that it must be looked at again.
fn stat_names(
    inner: &Inner,
    dir: &Dir,
    names: &[Vec<u8>],
    now: SystemTime,
) -> Result<(ListPage, bool)> {
    let fd = dir.fd().map_err(|errno| io_error("list", errno))?;
    let (mut page, mut young) = (ListPage::default(), false);
    for bytes in names {
        if is_temporary(bytes) {
            if is_draft(bytes) && inner.is_written.load(Ordering::Relaxed) {
                remove_left_behind(fd, bytes, now);
            }
            continue;
        }
        let Ok(name) = Name::new(bytes) else {
            page.unshowable += 1;
            continue;
        };
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let stat = match rustix::fs::statat(fd, OsStr::from_bytes(bytes), flags) {
            Ok(stat) => stat,
            // Removed since its name was read.
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(io_error("stat", errno).context(name.to_string())),
        };
        match meta_of(&stat, now) {
            Some(meta) => page.entries.push(ListEntry { name, meta }),
            None => page.unshowable += 1,
        }
        young |= is_young(&stat, now);
    }
    Ok((page, young))
}

/// Removes a file on its way that nobody has changed for so long that its writer is dead.
fn remove_left_behind(dir: BorrowedFd<'_>, name: &[u8], now: SystemTime) {
    let (shown, name) = (name.escape_ascii(), OsStr::from_bytes(name));
    let Ok(stat) = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else {
        return;
    };
    let changed = u64::try_from(stat.st_ctime).unwrap_or(0);
    let age = now.duration_since(UNIX_EPOCH + Duration::from_secs(changed));
    if age.is_ok_and(|age| age > LEFT_BEHIND) {
        let removed = rustix::fs::unlinkat(dir, name, AtFlags::empty());
        tracing::info!(name = %shown, ?removed, "removed what a dead writer left");
    }
}
