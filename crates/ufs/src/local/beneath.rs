// SPDX-License-Identifier: Apache-2.0
//! Opens names below a root, never outside of it, never through a symbolic link.
//!
//! `openat2` does it in one call. Where a sandbox hides that call, each component is opened in
//! turn without following links. Paths hold no `..`, by the nature of [`ObjectPath`].

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use types::ObjectPath;

/// Opens `path` below `root` with `flags`; the last component is not followed either.
pub(super) fn open(
    root: BorrowedFd<'_>,
    path: &ObjectPath,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let name: &OsStr = if path.is_root() {
        ".".as_ref()
    } else {
        OsStr::from_bytes(path.as_bytes())
    };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(root, name, flags, Mode::empty(), resolve) {
            // A rename raced with the resolution, or a signal came.
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::NOSYS | Errno::PERM) => return open_each(root, path, flags),
            opened => return opened,
        }
    }
}

/// The same, component by component.
fn open_each(root: BorrowedFd<'_>, path: &ObjectPath, flags: OFlags) -> Result<OwnedFd, Errno> {
    if path.is_root() {
        return openat(root, ".", flags, Mode::empty());
    }
    let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut dir: Option<OwnedFd> = None;
    let mut components = path.as_bytes().split(|&byte| byte == b'/').peekable();
    loop {
        let Some(component) = components.next() else {
            return Err(Errno::NOENT);
        };
        let last = components.peek().is_none();
        let at = dir.as_ref().map_or(root, AsFd::as_fd);
        let flags = if last { flags } else { step };
        let opened = openat(at, OsStr::from_bytes(component), flags, Mode::empty())?;
        if last {
            return Ok(opened);
        }
        dir = Some(opened);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn both_ways_open_what_is_inside_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/c"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
        std::os::unix::fs::symlink("a/b/c", dir.path().join("link")).unwrap();
        let root = File::open(dir.path()).unwrap();
        for way in [open, open_each] {
            let try_open = |path: &str, flags| {
                let path = ObjectPath::parse(path.as_bytes()).unwrap();
                way(
                    root.as_fd(),
                    &path,
                    flags | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                )
                .err()
            };
            assert_eq!(try_open("a/b/c", OFlags::RDONLY), None);
            assert_eq!(try_open("", OFlags::RDONLY), None);
            assert_eq!(try_open("link", OFlags::PATH), None);
            assert_eq!(try_open("a/x", OFlags::RDONLY), Some(Errno::NOENT));
            assert_eq!(try_open("link", OFlags::RDONLY), Some(Errno::LOOP));
            let through = try_open("out/passwd", OFlags::RDONLY);
            assert!(
                matches!(through, Some(Errno::LOOP | Errno::NOTDIR)),
                "{through:?}"
            );
        }
    }
}
