// SPDX-License-Identifier: Apache-2.0
//! The driver of CephFS: the driver of local directories, where the file system is mounted.
//!
//! The kernel's client and `ceph-fuse` keep their caches coherent with the cluster and know its
//! credentials; a second client inside this process would only add copies. What is here finds the
//! mount: by the option `mounted_at`, or among this machine's mounts.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use types::{Clock, Error, ErrorKind, ObjectPath, Result};

use crate::{Settings, UnderStorage, local};

const MOUNTS: &str = "/proc/self/mounts";

/// A directory of a Ceph file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CephFsLocation {
    /// The name of the file system; empty for the only one.
    name: String,
    path: ObjectPath,
}

impl CephFsLocation {
    /// Reads what follows the scheme: `NAME/path` or `/path`.
    pub(crate) fn parse(rest: &str) -> Result<Self> {
        let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
        let legal = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if !name.chars().all(legal) {
            let why = "write cephfs:///path or cephfs://NAME/path, with the file system's name; monitors \
                       are found by the mount";
            return Err(Error::new(ErrorKind::Invalid, why));
        }
        let path = ObjectPath::parse(path.trim_end_matches('/').as_bytes())?;
        Ok(CephFsLocation {
            name: name.into(),
            path,
        })
    }
}

/// Opens a directory where the file system is mounted.
pub(crate) async fn open(
    location: CephFsLocation,
    settings: &Settings,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn UnderStorage>> {
    let what = format!("open storage cephfs://{}/{}", location.name, location.path);
    settings
        .check_options("cephfs", &["mounted_at"])
        .map_err(|error| error.context(&what))?;
    let found = match settings.text("mounted_at") {
        Some(mounted) => Ok(under(Path::new(mounted), &location.path)),
        None => std::fs::read(MOUNTS)
            .map_err(|error| Error::io(format!("read {MOUNTS}"), error))
            .and_then(|mounts| find(&mounts, &location)),
    };
    let path = found.map_err(|error| error.context(&what))?;
    let mut settings = settings.clone();
    settings.options.clear();
    let opened = local::open(path, settings, clock).await;
    opened.map_err(|error| error.context(what))
}

/// Finds the place of a location among mounts.
fn find(mounts: &[u8], location: &CephFsLocation) -> Result<PathBuf> {
    let mounts = mounts.split(|&byte| byte == b'\n').filter_map(Mount::read);
    let fitting = mounts.filter(|mount| mount.may_be(&location.name));
    let places: Vec<_> = fitting
        .filter_map(|mount| mount.place_of(&location.path))
        .collect();
    let invalid = |why: &str| Err(Error::new(ErrorKind::Invalid, why));
    match places.as_slice() {
        [place] => Ok(place.clone()),
        [] => invalid(
            "no such Ceph file system is mounted here; mount it with mount.ceph or ceph-fuse, or say \
             where it is with the option 'mounted_at'",
        ),
        _ => invalid("several mounts have it; say which one with the option 'mounted_at'"),
    }
}

/// A mount of a Ceph file system.
struct Mount {
    at: PathBuf,
    /// The directory of the file system that is mounted, without a slash at its start.
    root: String,
    /// The file system's name, where the mount tells it.
    name: Option<String>,
}

impl Mount {
    /// Reads a line of the mount table; `None` when it is not Ceph's.
    fn read(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|&byte| byte == b' ');
        let (source, at, kind) = (fields.next()?, fields.next()?, fields.next()?);
        let options = std::str::from_utf8(fields.next()?).ok()?;
        let at = PathBuf::from(OsStr::from_bytes(&unescape(at)));
        let source = String::from_utf8(unescape(source)).ok()?;
        let mut mount = Mount {
            at,
            root: String::new(),
            name: None,
        };
        match kind {
            b"fuse.ceph-fuse" => {}
            b"ceph" => {
                let named = |option: &str| {
                    let value = option
                        .strip_prefix("mds_namespace=")
                        .or(option.strip_prefix("fs="));
                    value.map(String::from)
                };
                mount.name = options.split(',').find_map(named);
                // `user@fsid.name=/root` now, `monitors:/root` before.
                let root = match source.rsplit_once('=') {
                    Some((cluster, root)) => {
                        let name = cluster.rsplit_once('.').map(|(_, name)| name.to_string());
                        mount.name = mount.name.or(name);
                        root
                    }
                    None => source.rsplit_once(":/").map_or("", |(_, root)| root),
                };
                mount.root = root.trim_matches('/').into();
            }
            _ => return None,
        }
        Some(mount)
    }

    fn may_be(&self, name: &str) -> bool {
        name.is_empty() || self.name.as_ref().is_none_or(|own| own == name)
    }

    /// Returns where a path of the file system is; `None` when this mount does not have it.
    fn place_of(&self, path: &ObjectPath) -> Option<PathBuf> {
        let rest = path.as_bytes().strip_prefix(self.root.as_bytes())?;
        if !self.root.is_empty() && !rest.is_empty() && !rest.starts_with(b"/") {
            return None;
        }
        let rest = rest.strip_prefix(b"/").unwrap_or(rest);
        Some(under(&self.at, &ObjectPath::parse(rest).ok()?))
    }
}

fn under(place: &Path, path: &ObjectPath) -> PathBuf {
    match path.is_root() {
        true => place.into(),
        false => place.join(OsStr::from_bytes(path.as_bytes())),
    }
}

/// Takes back how the kernel writes spaces, tabs, newlines and backslashes: `\040` and the like.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let digits = tail
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"proc /proc proc rw 0 0
admin@07fe3187-00d9-42a3-814b-72a4d5e7d5be.data=/ /mnt/my\\040ceph ceph rw,name=admin 0 0
10.0.0.1:6789,10.0.0.2:6789:/sets/images /images ceph rw,mds_namespace=old 0 0
";

    fn found(mounts: &[u8], rest: &str) -> Result<PathBuf> {
        find(mounts, &CephFsLocation::parse(rest).unwrap())
    }

    #[test]
    fn a_mount_is_found_by_name_and_by_what_it_shows() {
        assert_eq!(
            found(MOUNTS, "data/a/b").unwrap(),
            Path::new("/mnt/my ceph/a/b")
        );
        assert_eq!(found(MOUNTS, "data").unwrap(), Path::new("/mnt/my ceph"));
        assert_eq!(
            found(MOUNTS, "old/sets/images/x/").unwrap(),
            Path::new("/images/x")
        );
        assert_eq!(
            found(MOUNTS, "old/sets/images").unwrap(),
            Path::new("/images")
        );
        assert_eq!(found(MOUNTS, "/a").unwrap(), Path::new("/mnt/my ceph/a"));
        let fuse = b"ceph-fuse /fuse fuse.ceph-fuse rw 0 0";
        assert_eq!(found(fuse, "any/a").unwrap(), Path::new("/fuse/a"));
    }

    #[test]
    fn what_is_not_mounted_or_mounted_twice_is_refused_with_what_to_do() {
        for (rest, why) in [
            ("old/sets/imagesX", "no such Ceph"),
            ("absent/a", "no such Ceph"),
            ("/sets/images", "several mounts"),
        ] {
            let error = found(MOUNTS, rest).unwrap_err().to_string();
            assert!(
                error.contains(why) && error.contains("'mounted_at'"),
                "{rest}: {error}"
            );
        }
        assert!(CephFsLocation::parse("10.0.0.1:6789/x").is_err());
        assert!(CephFsLocation::parse("/../x").is_err());
    }
}
