// SPDX-License-Identifier: Apache-2.0
//! What is known of an object: its kind, size, times and version, and how long that stays true.
//!
//! An object version is (mount, path, ETag, or else mtime and size), hashed to 128 bits. Cached
//! bytes are keyed by it, so stale and fresh bytes never mix.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::{ObjectPath, PAGE_SIZE};

/// A mount's identity, the same across restarts: a hash of what it points to, not of where it
/// hangs in the namespace, so that a storage mounted again elsewhere is warm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MountId(pub u64);

impl MountId {
    /// Returns the id of the storage location `identity` (normalised URI and endpoint).
    pub fn of(identity: &str) -> Self {
        let hash = blake3::hash(identity.as_bytes());
        MountId(u64::from_le_bytes(
            hash.as_bytes()[..8].try_into().expect("eight bytes of 32"),
        ))
    }
}

/// What kind of thing a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// A directory, real or implied by the objects below it.
    Directory,
    /// An object with bytes.
    File,
    /// A symbolic link, on storages that have them.
    Symlink,
}

/// What tells one version of an object from the next.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct VersionTag {
    /// The storage's own tag, with its quotes stripped; none where the storage has no such thing.
    pub etag: Option<String>,
    /// Modification time in nanoseconds since 1970; zero when the storage does not tell.
    pub mtime_ns: i64,
    /// Length in bytes.
    pub size: u64,
}

/// A version of an object of a mount, as 128 bits: the key of cached bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionId(pub u128);

impl VersionId {
    /// Hashes the identity of a version. The ETag alone decides where there is one.
    pub fn of(mount: MountId, path: &ObjectPath, tag: &VersionTag) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&mount.0.to_le_bytes());
        hasher.update(&(path.as_bytes().len() as u64).to_le_bytes());
        hasher.update(path.as_bytes());
        hasher.update(&tag.size.to_le_bytes());
        match &tag.etag {
            Some(etag) => hasher.update(b"e").update(etag.as_bytes()),
            None => hasher.update(b"m").update(&tag.mtime_ns.to_le_bytes()),
        };
        let hash = hasher.finalize();
        VersionId(u128::from_le_bytes(
            hash.as_bytes()[..16].try_into().expect("16 bytes of 32"),
        ))
    }
}

impl std::fmt::Display for VersionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What a storage tells of an object or a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Directory, file or symbolic link.
    pub kind: NodeKind,
    /// Version, with length and modification time. Directories have length zero.
    pub tag: VersionTag,
    /// Permission bits, owner and group, on storages that have them.
    pub owner: Option<Owner>,
    /// What object stores keep beside the bytes; `None` until somebody looked at the object itself,
    /// and on storages that have such things by themselves.
    pub extras: Option<Arc<Extras>>,
}

/// Extended attributes by name.
pub type Xattrs = BTreeMap<String, Vec<u8>>;

/// What an object store keeps beside the bytes and tells of one object at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extras {
    /// Where a symbolic link points to.
    pub link: Option<Vec<u8>>,
    /// Extended attributes that users gave.
    pub xattrs: Arc<Xattrs>,
}

/// Permission bits, owner and group of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The lower twelve mode bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl ObjectMeta {
    /// Returns the description of a directory that only the names below it imply.
    pub fn implied_directory() -> Self {
        ObjectMeta {
            kind: NodeKind::Directory,
            tag: VersionTag::default(),
            owner: None,
            extras: None,
        }
    }

    /// Returns where a symbolic link points to, if that was told with it.
    pub fn link(&self) -> Option<&[u8]> {
        self.extras.as_ref()?.link.as_deref()
    }
}

/// One version of one object: what a handle holds on to from open to release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectRef {
    /// The mount it belongs to.
    pub mount: MountId,
    /// Its path below the mount.
    pub path: ObjectPath,
    /// What the storage must still answer for this to be the same version.
    pub tag: VersionTag,
    /// The key of its cached bytes.
    pub id: VersionId,
}

impl ObjectRef {
    /// Makes the reference, with its id.
    pub fn new(mount: MountId, path: ObjectPath, tag: VersionTag) -> Self {
        let id = VersionId::of(mount, &path, &tag);
        ObjectRef {
            mount,
            path,
            tag,
            id,
        }
    }

    /// Returns the length in bytes.
    pub fn size(&self) -> u64 {
        self.tag.size
    }

    /// Returns how many pages the object has.
    pub fn pages(&self) -> u64 {
        self.tag.size.div_ceil(PAGE_SIZE)
    }
}

/// How long what is known of a mount's names stays true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// What was seen first stays.
    Immutable,
    /// A change is seen within this time.
    MaxAge(Duration),
    /// Every open asks the storage (close-to-open).
    Always,
}

impl Freshness {
    /// Returns how much longer something learnt `age` ago may be used; `None` when it may not.
    pub fn left(self, age: Duration) -> Option<Duration> {
        /// The kernel takes this for "for ever"; a year is long enough.
        const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);
        match self {
            Freshness::Immutable => Some(FOR_EVER),
            Freshness::MaxAge(max) => max.checked_sub(age).filter(|left| !left.is_zero()),
            Freshness::Always => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_told_by_its_etag_or_else_by_time_and_size() {
        let (mount, path) = (MountId::of("s3://b"), ObjectPath::parse(b"a/b").unwrap());
        let id = |etag: Option<&str>, mtime_ns, size| {
            let tag = VersionTag {
                etag: etag.map(String::from),
                mtime_ns,
                size,
            };
            VersionId::of(mount, &path, &tag)
        };
        assert_eq!(id(Some("x"), 1, 5), id(Some("x"), 2, 5));
        assert_ne!(id(Some("x"), 1, 5), id(Some("y"), 1, 5));
        assert_ne!(id(Some("x"), 1, 5), id(Some("x"), 1, 6));
        assert_ne!(id(None, 1, 5), id(None, 2, 5));
        assert_ne!(id(None, 1, 5), id(None, 1, 6));
    }

    #[test]
    fn freshness_runs_out() {
        let minute = Freshness::MaxAge(Duration::from_secs(60));
        assert_eq!(
            minute.left(Duration::from_secs(20)),
            Some(Duration::from_secs(40))
        );
        assert_eq!(minute.left(Duration::from_secs(60)), None);
        assert_eq!(Freshness::Always.left(Duration::ZERO), None);
        assert!(
            Freshness::Immutable
                .left(Duration::from_secs(1 << 40))
                .is_some()
        );
    }
}
