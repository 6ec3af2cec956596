// SPDX-License-Identifier: Apache-2.0
//! Inode numbers: a hash of what an inode is, the same after every restart.
//!
//! A directory's number comes from its mount and path; a file's also from its version, so that a
//! changed object is a new inode and nothing the kernel keeps of the old one is ever mixed with the
//! new. The hash (FNV-1a, then mixed) is only a place to start: the namespace compares identities
//! and moves to the next number on a collision, so no byte depends on it.
//! It is fed piece by piece: a listing hashes its directory once and then each name.

use types::{MountId, Name, NodeKind, ObjectPath, VersionTag};

/// The number of an inode. 1 is the root of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

impl Ino {
    /// The root of the tree.
    pub const ROOT: Ino = Ino(1);

    /// The numbers up to here are given out by hand.
    const RESERVED_MAX: u64 = 15;

    /// Returns a number that is neither zero nor the root's nor of a virtual file, and positive for
    /// signed users.
    pub(crate) fn from_hash(hash: u64) -> Self {
        Ino((hash & (u64::MAX >> 1)).max(Self::RESERVED_MAX + 1))
    }

    /// Returns where to look when this number is taken by something else.
    pub(crate) fn next_probe(self) -> Self {
        Ino::from_hash(self.0 + 1)
    }
}

/// The state of a hash over a mount and a path, to be continued or finished.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InoHasher(u64);

impl InoHasher {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;

    /// Starts below the mount that hangs at `at`. The place counts as well as the storage: one
    /// storage mounted twice shows directories that are not each other's.
    pub(crate) fn of_mount(at: &ObjectPath, id: MountId) -> Self {
        InoHasher(Self::BASIS)
            .write(b"m")
            .write(&id.0.to_le_bytes())
            .write(at.as_bytes())
            .write(&[0])
    }

    /// Starts in the directories that only lead to mount points.
    pub(crate) fn of_mount_table() -> Self {
        InoHasher(Self::BASIS).write(b"t")
    }

    /// Continues with a whole path below the start.
    pub(crate) fn path(self, path: &ObjectPath) -> Self {
        self.write(path.as_bytes())
    }

    /// Continues with a child of the directory `dir`, which this state stands for.
    pub(crate) fn child(self, dir: &ObjectPath, name: &Name) -> Self {
        let state = if dir.is_root() {
            self
        } else {
            self.write(b"/")
        };
        state.write(name.as_bytes())
    }

    /// Returns a number for something that was just made at the path: what it is not known by yet.
    pub(crate) fn fresh(self, count: u64, salt: i64) -> Ino {
        let state = self
            .write(b"\0n")
            .write(&count.to_le_bytes())
            .write(&salt.to_le_bytes());
        Ino::from_hash(mix(state.0))
    }

    /// Returns the number of the thing of this kind and version at the path.
    pub(crate) fn finish(self, kind: NodeKind, tag: &VersionTag) -> Ino {
        // A NUL ends the path, which cannot hold one.
        let state = match kind {
            NodeKind::Directory => self.write(b"\0d"),
            NodeKind::File => self.write(b"\0f").version(tag),
            NodeKind::Symlink => self.write(b"\0l").version(tag),
        };
        Ino::from_hash(mix(state.0))
    }

    fn version(self, tag: &VersionTag) -> Self {
        let state = self
            .write(&tag.size.to_le_bytes())
            .write(&shown_time(tag).to_le_bytes());
        match &tag.etag {
            Some(etag) => state.write(etag.as_bytes()),
            None => state,
        }
    }

    fn write(self, bytes: &[u8]) -> Self {
        InoHasher(bytes.iter().fold(self.0, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(Self::PRIME)
        }))
    }
}

/// Returns whether two tags make one inode: the same bytes with the same time.
pub(crate) fn same_inode(a: &VersionTag, b: &VersionTag) -> bool {
    a.size == b.size && a.etag == b.etag && shown_time(a) == shown_time(b)
}

/// The time that tells two inodes apart. Where there is an ETag, whole seconds: some storages tell
/// milliseconds in listings and seconds elsewhere, and that is no change of the object.
fn shown_time(tag: &VersionTag) -> i64 {
    match tag.etag {
        Some(_) => tag.mtime_ns.div_euclid(1_000_000_000),
        None => tag.mtime_ns,
    }
}

/// Spreads the hash over all bits (the finisher of MurmurHash3, public domain constants).
fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ObjectPath {
        ObjectPath::parse(text.as_bytes()).unwrap()
    }

    fn tag(etag: Option<&str>, mtime_ns: i64, size: u64) -> VersionTag {
        VersionTag {
            etag: etag.map(String::from),
            mtime_ns,
            size,
        }
    }

    #[test]
    fn a_file_changes_its_number_with_its_version_and_a_directory_does_not() {
        let at = InoHasher::of_mount(&path("data"), MountId(7)).path(&path("a/b"));
        let file = |tag: &VersionTag| at.finish(NodeKind::File, tag);
        assert_eq!(
            file(&tag(Some("x"), 5_000_000_000, 1)),
            file(&tag(Some("x"), 5_400_000_000, 1))
        );
        assert_ne!(
            file(&tag(Some("x"), 5_000_000_000, 1)),
            file(&tag(Some("x"), 6_000_000_000, 1))
        );
        assert_ne!(file(&tag(Some("x"), 5, 1)), file(&tag(Some("y"), 5, 1)));
        assert_ne!(file(&tag(None, 5, 1)), file(&tag(None, 6, 1)));
        let directory = |tag: &VersionTag| at.finish(NodeKind::Directory, tag);
        assert_eq!(directory(&tag(None, 5, 1)), directory(&tag(None, 6, 1)));
        assert_ne!(directory(&tag(None, 5, 1)), file(&tag(None, 5, 1)));
    }

    #[test]
    fn a_child_hashed_from_its_directory_equals_its_whole_path() {
        let at = InoHasher::of_mount(&ObjectPath::root(), MountId(7));
        let name = Name::new(b"b").unwrap();
        let none = VersionTag::default();
        for dir in ["", "a", "x/y"] {
            let dir = path(dir);
            let child = at
                .path(&dir)
                .child(&dir, &name)
                .finish(NodeKind::File, &none);
            assert_eq!(
                child,
                at.path(&dir.join(&name)).finish(NodeKind::File, &none)
            );
        }
    }

    #[test]
    fn one_storage_mounted_twice_shows_different_inodes() {
        let number = |at: &str| {
            let at = InoHasher::of_mount(&path(at), MountId(7)).path(&path("d"));
            at.finish(NodeKind::Directory, &VersionTag::default())
        };
        assert_ne!(number("a"), number("b"));
    }

    #[test]
    fn numbers_never_are_zero_or_the_root() {
        for hash in [0, 1, u64::MAX, 1 << 63, (1 << 63) | 1] {
            assert!(Ino::from_hash(hash).0 > Ino::RESERVED_MAX);
            assert!(Ino::from_hash(hash).next_probe().0 > Ino::RESERVED_MAX);
        }
    }
}
