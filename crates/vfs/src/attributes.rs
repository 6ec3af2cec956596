// SPDX-License-Identifier: Apache-2.0
//! What `stat` shows: built from what the storage tells, and defaults of the mount for the rest.

use types::idmap::{IdMap, NOBODY_HERE};
use types::meta::Owner;
use types::{NodeKind, ObjectMeta};

use crate::ino::Ino;

/// Owner and modes of what has none in the storage, and who its owners are here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeDefaults {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits of files.
    pub file_mode: u32,
    /// Permission bits of directories.
    pub dir_mode: u32,
    /// Who the owners that the storage tells are here.
    pub owners: IdMap,
}

impl Default for AttributeDefaults {
    fn default() -> Self {
        AttributeDefaults {
            uid: 0,
            gid: 0,
            file_mode: 0o644,
            dir_mode: 0o755,
            owners: IdMap::default(),
        }
    }
}

impl AttributeDefaults {
    fn shown_uid(&self, told: u32) -> u32 {
        match self.owners.users.of_number(told) {
            NOBODY_HERE => self.uid,
            number => number,
        }
    }

    fn shown_gid(&self, told: u32) -> u32 {
        match self.owners.groups.of_number(told) {
            NOBODY_HERE => self.gid,
            number => number,
        }
    }

    /// Returns what the storage is told of an owner who is shown so. What `now` shows the same stays
    /// what it is; a number that no owner of the storage is shown as goes as it is.
    pub(crate) fn in_storage(&self, shown: Owner, now: Option<Owner>) -> Owner {
        let uid_now = now.filter(|now| self.shown_uid(now.uid) == shown.uid);
        let gid_now = now.filter(|now| self.shown_gid(now.gid) == shown.gid);
        let uid = || self.owners.users.of_shown(shown.uid).unwrap_or(shown.uid);
        let gid = || self.owners.groups.of_shown(shown.gid).unwrap_or(shown.gid);
        Owner {
            mode: shown.mode,
            uid: uid_now.map_or_else(uid, |now| now.uid),
            gid: gid_now.map_or_else(gid, |now| now.gid),
        }
    }
}

/// The attributes of an inode. Those of a file never change: a changed object is a new inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Inode number.
    pub ino: Ino,
    /// Directory, file or symbolic link.
    pub kind: NodeKind,
    /// Length in bytes; zero for directories.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Time of the last change of anything, in nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Time of the last access, as far as it is kept.
    pub atime_ns: i64,
    /// The lower twelve mode bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of links: always 1 for files and 2 for directories, whatever they hold.
    pub nlink: u32,
}

impl Attributes {
    /// Builds the attributes of what `meta` describes. A directory without a time gets `started_ns`.
    pub(crate) fn new(
        ino: Ino,
        meta: &ObjectMeta,
        defaults: &AttributeDefaults,
        started_ns: i64,
    ) -> Self {
        let (mode, nlink) = match meta.kind {
            NodeKind::Directory => (defaults.dir_mode, 2),
            NodeKind::File => (defaults.file_mode, 1),
            NodeKind::Symlink => (0o777, 1),
        };
        let (mode, uid, gid) = match meta.owner {
            Some(owner) => (
                owner.mode,
                defaults.shown_uid(owner.uid),
                defaults.shown_gid(owner.gid),
            ),
            None => (mode, defaults.uid, defaults.gid),
        };
        let is_directory = meta.kind == NodeKind::Directory;
        let time_ns = match meta.tag.mtime_ns {
            0 if is_directory => started_ns,
            time => time,
        };
        Attributes {
            ino,
            kind: meta.kind,
            size: if is_directory { 0 } else { meta.tag.size },
            mtime_ns: time_ns,
            ctime_ns: time_ns,
            atime_ns: time_ns,
            mode: mode & 0o7777,
            uid,
            gid,
            nlink,
        }
    }
}

#[cfg(test)]
mod tests {
    use types::VersionTag;

    use super::*;

    #[test]
    fn the_storage_decides_where_it_tells_and_the_mount_elsewhere() {
        let defaults = AttributeDefaults {
            uid: 7,
            gid: 8,
            file_mode: 0o640,
            dir_mode: 0o750,
            owners: "uid:1=100,gid:*=200".parse().unwrap(),
        };
        let tag = VersionTag {
            etag: None,
            mtime_ns: 5,
            size: 9,
        };
        let mut meta = ObjectMeta {
            kind: NodeKind::File,
            tag,
            owner: None,
            extras: None,
        };
        let shown = Attributes::new(Ino(3), &meta, &defaults, 1);
        assert_eq!(
            (shown.mode, shown.uid, shown.gid, shown.nlink),
            (0o640, 7, 8, 1)
        );
        assert_eq!((shown.size, shown.mtime_ns), (9, 5));
        meta.owner = Some(Owner {
            mode: 0o100_600,
            uid: 1,
            gid: 2,
        });
        let shown = Attributes::new(Ino(3), &meta, &defaults, 1);
        assert_eq!((shown.mode, shown.uid, shown.gid), (0o600, 100, 200));
        meta.owner = Some(Owner {
            mode: 0o600,
            uid: NOBODY_HERE,
            gid: 2,
        });
        let shown = Attributes::new(
            Ino(3),
            &meta,
            &AttributeDefaults {
                owners: IdMap::default(),
                ..defaults
            },
            1,
        );
        assert_eq!(
            (shown.uid, shown.gid),
            (7, 2),
            "nobody here is who the mount says"
        );
    }

    #[test]
    fn owners_go_back_to_the_storage_as_it_knows_them() {
        let mut defaults = AttributeDefaults {
            uid: 7,
            gid: 8,
            owners: "uid:1000=0,uid:2000-2999=5000,gid:*=100".parse().unwrap(),
            ..AttributeDefaults::default()
        };
        let owner = |uid, gid| Owner {
            mode: 0o600,
            uid,
            gid,
        };
        let told = |shown, now| {
            let told = defaults.in_storage(shown, now);
            (told.uid, told.gid)
        };
        assert_eq!(told(owner(0, 100), None), (1000, 100));
        assert_eq!(told(owner(5999, 55), None), (2999, 55));
        assert_eq!(told(owner(6000, 1), None), (6000, 1));
        // Of several the one that is there stays, and so does one who is nobody here.
        assert_eq!(told(owner(0, 100), Some(owner(0, 3))), (0, 3));
        assert_eq!(told(owner(5001, 100), Some(owner(0, 3))), (2001, 3));
        defaults.owners = IdMap::default();
        let nobody = owner(NOBODY_HERE, NOBODY_HERE);
        let told = defaults.in_storage(owner(7, 9), Some(nobody));
        assert_eq!((told.uid, told.gid), (NOBODY_HERE, 9));
    }

    #[test]
    fn an_implied_directory_has_the_time_of_the_start() {
        let meta = ObjectMeta::implied_directory();
        let shown = Attributes::new(Ino(3), &meta, &AttributeDefaults::default(), 77);
        assert_eq!(
            (shown.mtime_ns, shown.mode, shown.nlink, shown.size),
            (77, 0o755, 2, 0)
        );
    }
}
