// SPDX-License-Identifier: Apache-2.0
//! How what is known of names is written down: keys and values of the metadata map.
//!
//! Three kinds of record, so that one name costs one small look-up and a directory one scan:
//!
//! ```text
//! 'd' mount(8, big endian) directory 0x00          -> format(1) learnt(8) entries(8)
//! 'e' mount(8, big endian) directory 0x00 name     -> format(1) learnt(8) kind(1) size(8) mtime(8)
//!                                                     owner?(1) [mode uid gid (4 each)]
//!                                                     flags(1) [extras] [etag]
//! 's' mount(8, big endian) path                    -> format(1) synced(8)
//! ```
//! Numbers are little endian but for the mount, times are nanoseconds since 1970. Neither paths
//! nor names hold a NUL. A name whose record does not parse, is of another format, or is empty, is one
//! in doubt: it is there, but what it is must be asked for. A record of the one byte 0xff is of a name
//! that is just being made: it may be there.

mod extras;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use types::meta::Owner;
use types::{MountId, Name, NodeKind, ObjectMeta, ObjectPath, VersionTag};

/// Raised whenever the layout of a value changes.
const FORMAT: u8 = 1;

/// What follows the owner of an entry.
const ETAG_BIT: u8 = 1;
/// See [`ETAG_BIT`].
const EXTRAS_BIT: u8 = 2;

/// A moment, as nanoseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) u64);

impl Moment {
    pub(crate) fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Moment(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Returns how long ago this was; a moment in the future is endlessly old, since the clock
    /// that wrote it cannot be compared with ours.
    pub(crate) fn age(self, now: Moment) -> Duration {
        now.0
            .checked_sub(self.0)
            .map_or(Duration::MAX, Duration::from_nanos)
    }
}

/// A directory whose names are all known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DirectoryRecord {
    pub(crate) learnt: Moment,
    pub(crate) entries: u64,
}

/// A name, and what was learnt of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntryRecord {
    pub(crate) learnt: Moment,
    pub(crate) meta: ObjectMeta,
}

fn key(kind: u8, mount: MountId, dir: &ObjectPath, name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(10 + dir.as_bytes().len() + name.len());
    key.push(kind);
    key.extend_from_slice(&mount.0.to_be_bytes());
    key.extend_from_slice(dir.as_bytes());
    key.push(0);
    key.extend_from_slice(name);
    key
}

pub(crate) fn directory_key(mount: MountId, dir: &ObjectPath) -> Vec<u8> {
    key(b'd', mount, dir, b"")
}

pub(crate) fn entry_key(mount: MountId, dir: &ObjectPath, name: &Name) -> Vec<u8> {
    key(b'e', mount, dir, name.as_bytes())
}

/// Returns the range of keys of a directory's entries: from the first, to before the second.
pub(crate) fn entry_keys(mount: MountId, dir: &ObjectPath) -> (Vec<u8>, Vec<u8>) {
    let from = key(b'e', mount, dir, b"");
    let mut to = from.clone();
    if let Some(last) = to.last_mut() {
        *last = 1;
    }
    (from, to)
}

/// Length of the kind and the mount at the start of each key.
const HEAD_LEN: usize = 9;

/// Returns the key of the last sync of a path.
pub(crate) fn sync_key(mount: MountId, path: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(HEAD_LEN + path.len());
    key.push(b's');
    key.extend_from_slice(&mount.0.to_be_bytes());
    key.extend_from_slice(path);
    key
}

/// Returns the range of keys of a mount's syncs: from the first, to before the second.
pub(crate) fn sync_keys(mount: MountId) -> (Vec<u8>, Vec<u8>) {
    let next = mount.0.checked_add(1);
    let to = next.map_or_else(|| vec![b's' + 1], |next| sync_key(MountId(next), b""));
    (sync_key(mount, b""), to)
}

/// Returns the path at the end of a sync's key.
pub(crate) fn path_of_sync_key(key: &[u8]) -> &[u8] {
    key.get(HEAD_LEN..).unwrap_or_default()
}

pub(crate) fn write_sync(at: Moment) -> Vec<u8> {
    let mut out = vec![FORMAT];
    out.extend_from_slice(&at.0.to_le_bytes());
    out
}

pub(crate) fn read_sync(bytes: &[u8]) -> Option<Moment> {
    let mut input = Input(bytes);
    (input.u8()? == FORMAT).then_some(())?;
    Some(Moment(input.u64()?))
}

/// Returns the name at the end of an entry's key.
pub(crate) fn name_of_key(key: &[u8], prefix_len: usize) -> Option<Name> {
    Name::new(key.get(prefix_len..)?).ok()
}

pub(crate) fn write_directory(record: DirectoryRecord) -> Vec<u8> {
    let mut out = vec![FORMAT];
    out.extend_from_slice(&record.learnt.0.to_le_bytes());
    out.extend_from_slice(&record.entries.to_le_bytes());
    out
}

pub(crate) fn read_directory(bytes: &[u8]) -> Option<DirectoryRecord> {
    let mut input = Input(bytes);
    (input.u8()? == FORMAT).then_some(())?;
    Some(DirectoryRecord {
        learnt: Moment(input.u64()?),
        entries: input.u64()?,
    })
}

pub(crate) fn write_entry(learnt: Moment, meta: &ObjectMeta) -> Vec<u8> {
    let mut out = vec![FORMAT];
    out.extend_from_slice(&learnt.0.to_le_bytes());
    out.push(match meta.kind {
        NodeKind::Directory => 0,
        NodeKind::File => 1,
        NodeKind::Symlink => 2,
    });
    out.extend_from_slice(&meta.tag.size.to_le_bytes());
    out.extend_from_slice(&meta.tag.mtime_ns.to_le_bytes());
    out.push(u8::from(meta.owner.is_some()));
    if let Some(owner) = meta.owner {
        for number in [owner.mode, owner.uid, owner.gid] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
    let extras = match &meta.extras {
        Some(_) => EXTRAS_BIT,
        None => 0,
    };
    out.push(u8::from(meta.tag.etag.is_some()) | extras);
    if let Some(told) = &meta.extras {
        extras::write(&mut out, told);
    }
    out.extend_from_slice(meta.tag.etag.as_deref().unwrap_or_default().as_bytes());
    out
}

/// Returns the value of a name of which only is known that it must be asked for.
pub(crate) fn in_doubt() -> Vec<u8> {
    Vec::new()
}

/// What no format is: a name that is in doubt because it is just being changed, and that its
/// directory did not have before.
const UNCOUNTED: u8 = 0xff;

/// Returns the value of a name that is in doubt and is not one of those that its directory counts.
pub(crate) fn in_doubt_uncounted() -> Vec<u8> {
    vec![UNCOUNTED]
}

/// Returns whether the directory of a name counts it among its own.
pub(crate) fn is_counted(value: Option<&[u8]>) -> bool {
    value.is_some_and(|value| value != [UNCOUNTED])
}

pub(crate) fn read_entry(bytes: &[u8]) -> Option<EntryRecord> {
    let mut input = Input(bytes);
    (input.u8()? == FORMAT).then_some(())?;
    let learnt = Moment(input.u64()?);
    let kind = match input.u8()? {
        0 => NodeKind::Directory,
        1 => NodeKind::File,
        2 => NodeKind::Symlink,
        _ => return None,
    };
    let (size, mtime_ns) = (input.u64()?, i64::from_le_bytes(input.array()?));
    let owner = match input.u8()? {
        0 => None,
        _ => Some(Owner {
            mode: input.u32()?,
            uid: input.u32()?,
            gid: input.u32()?,
        }),
    };
    let flags = input.u8()?;
    let extras = match flags & EXTRAS_BIT {
        0 => None,
        _ => Some(Arc::new(extras::read(&mut input)?)),
    };
    let etag = match flags & ETAG_BIT {
        0 => None,
        _ => Some(String::from_utf8(input.0.to_vec()).ok()?),
    };
    Some(EntryRecord {
        learnt,
        meta: ObjectMeta {
            kind,
            tag: VersionTag {
                etag,
                mtime_ns,
                size,
            },
            owner,
            extras,
        },
    })
}

/// What is left to read of a value.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    /// Returns bytes whose length comes first.
    fn bytes(&mut self) -> Option<&[u8]> {
        let len = usize::try_from(self.u32()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use types::Extras;

    use super::*;

    #[test]
    fn records_come_back_as_written_and_torn_ones_do_not() {
        let meta = ObjectMeta {
            kind: NodeKind::File,
            tag: VersionTag {
                etag: Some("x\"y".into()),
                mtime_ns: -5,
                size: u64::MAX,
            },
            owner: Some(Owner {
                mode: 0o644,
                uid: 1,
                gid: 2,
            }),
            extras: None,
        };
        let told = Extras {
            link: Some(b"../a".to_vec()),
            xattrs: Arc::new([("user.a".into(), vec![0]), ("user.b".into(), vec![])].into()),
        };
        let bytes = write_entry(Moment(9), &meta);
        for extras in [None, Some(Arc::default()), Some(Arc::new(told))] {
            let meta = ObjectMeta {
                extras,
                ..meta.clone()
            };
            let record = read_entry(&write_entry(Moment(9), &meta));
            let learnt = Moment(9);
            assert_eq!(record, Some(EntryRecord { learnt, meta }));
        }
        for len in 0..bytes.len() - 3 {
            assert_eq!(read_entry(&bytes[..len]), None, "{len}");
        }
        let record = DirectoryRecord {
            learnt: Moment(3),
            entries: 4,
        };
        assert_eq!(read_directory(&write_directory(record)), Some(record));
        assert_eq!(read_directory(&[2; 17]), None);
    }

    #[test]
    fn a_name_in_doubt_has_no_record() {
        for value in [in_doubt(), in_doubt_uncounted()] {
            assert_eq!(read_entry(&value), None);
        }
        assert!(is_counted(Some(&in_doubt())) && !is_counted(Some(&in_doubt_uncounted())));
    }

    #[test]
    fn the_keys_of_a_directory_hold_its_names_and_no_others() {
        let (mount, dir) = (MountId(1), ObjectPath::parse(b"a").unwrap());
        let (from, to) = entry_keys(mount, &dir);
        let inside = |dir: &[u8], name: &[u8]| {
            let dir = ObjectPath::parse(dir).unwrap();
            let key = entry_key(mount, &dir, &Name::new(name).unwrap());
            from <= key && key < to
        };
        assert!(inside(b"a", b"\x01") && inside(b"a", b"\xff\xff"));
        assert!(!inside(b"", b"x") && !inside(b"a/b", b"x") && !inside(b"ab", b"x"));
    }

    #[test]
    fn a_moment_in_the_future_is_endlessly_old() {
        assert_eq!(Moment(5).age(Moment(4)), Duration::MAX);
        assert_eq!(Moment(5).age(Moment(9)), Duration::from_nanos(4));
    }
}
