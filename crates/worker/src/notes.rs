// SPDX-License-Identifier: Apache-2.0
//! What is noted durably of changes that the storage does not have yet.
//!
//! One note for each staged file whose writer was promised that it lasts, one for each rename
//! that takes more than one request, and one for each directory that is to be made. JSON, so that a person can read what a broken node left behind;
//! `format` is raised when the meaning of a field changes. A note that does not parse is kept and
//! reported, never dropped: it stands for bytes that somebody was promised.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use types::meta::Owner;
use types::{
    Error, ErrorKind, MountId, NodeKind, ObjectMeta, ObjectPath, ObjectRef, Result, VersionTag,
    Xattrs,
};
use ufs::{Expect, FileAttributes};

use crate::attempts::Attempt;
use crate::moves::Move;

const FORMAT: u32 = 1;

/// A staged file that is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileNote {
    /// The storage.
    pub mount: MountId,
    /// Where in it.
    pub path: ObjectPath,
    /// The version whose bytes show through.
    pub base: Option<ObjectRef>,
    /// What must be true of the path.
    pub expect: Expect,
    /// Permission bits, owner and group.
    pub owner: Owner,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Extended attributes, where they are to be told.
    pub xattrs: Option<Arc<Xattrs>>,
    /// Which bytes the file has, in the words of the staging directory.
    pub extents: Vec<u8>,
    /// What was sent of it and may be in the storage.
    pub attempts: Vec<Attempt>,
}

/// An upload that was begun: what was sent of it lies in the storage until it is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadNote {
    /// The storage.
    pub mount: MountId,
    /// Where in it the object was to be.
    pub path: ObjectPath,
    /// The storage's name of the upload.
    pub name: String,
}

/// A directory that is here and that the storage is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MakeNote {
    /// The storage.
    pub mount: MountId,
    /// Where in it.
    pub path: ObjectPath,
    /// What is kept with it.
    pub attributes: FileAttributes,
}

/// A note that was found at the start.
#[derive(Debug)]
pub(crate) enum Noted {
    File(FileNote),
    Make(MakeNote),
    Move(Move),
    Upload(UploadNote),
}

#[derive(Serialize, Deserialize)]
struct Written {
    format: u32,
    note: Body,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Body {
    File {
        mount: u64,
        path: Vec<u8>,
        base: Option<Version>,
        expect: Expected,
        mode: u32,
        uid: u32,
        gid: u32,
        mtime_ns: i64,
        #[serde(default)]
        xattrs: Option<Xattrs>,
        extents: Vec<u8>,
        #[serde(default)]
        attempts: Vec<Attempt>,
    },
    Move {
        mount: u64,
        from: Vec<u8>,
        to: Vec<u8>,
        kind: Kind,
        tag: Tag,
        owner: Option<(u32, u32, u32)>,
        /// What makes way at the new path.
        #[serde(default)]
        replaces: Option<(Kind, Tag)>,
    },
    Make {
        mount: u64,
        path: Vec<u8>,
        owner: Option<(u32, u32, u32)>,
        mtime_ns: Option<i64>,
        xattrs: Option<Xattrs>,
    },
    Upload {
        mount: u64,
        path: Vec<u8>,
        name: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Version {
    path: Vec<u8>,
    tag: Tag,
}

#[derive(Serialize, Deserialize)]
struct Tag {
    etag: Option<String>,
    mtime_ns: i64,
    size: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Expected {
    Anything,
    Absent,
    Version(Tag),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Directory,
    File,
    Symlink,
}

/// Writes the note of a staged file.
pub(crate) fn of_file(note: &FileNote) -> Vec<u8> {
    write(Body::File {
        mount: note.mount.0,
        path: note.path.as_bytes().to_vec(),
        base: note.base.as_ref().map(|base| Version {
            path: base.path.as_bytes().to_vec(),
            tag: tag_of(&base.tag),
        }),
        expect: match &note.expect {
            Expect::Anything => Expected::Anything,
            Expect::Absent => Expected::Absent,
            Expect::Version(tag) => Expected::Version(tag_of(tag)),
        },
        mode: note.owner.mode,
        uid: note.owner.uid,
        gid: note.owner.gid,
        mtime_ns: note.mtime_ns,
        xattrs: note.xattrs.as_deref().cloned(),
        extents: note.extents.clone(),
        attempts: note.attempts.clone(),
    })
}

/// Writes the note of a rename.
pub(crate) fn of_move(work: &Move) -> Vec<u8> {
    write(Body::Move {
        mount: work.mount.0,
        from: work.from.as_bytes().to_vec(),
        to: work.to.as_bytes().to_vec(),
        kind: kind_of(work.meta.kind),
        tag: tag_of(&work.meta.tag),
        owner: work.meta.owner.map(parts_of),
        replaces: work
            .replaces
            .as_ref()
            .map(|meta| (kind_of(meta.kind), tag_of(&meta.tag))),
    })
}

/// Writes the note of a directory that is to be made.
pub(crate) fn of_make(note: &MakeNote) -> Vec<u8> {
    write(Body::Make {
        mount: note.mount.0,
        path: note.path.as_bytes().to_vec(),
        owner: note.attributes.owner.map(parts_of),
        mtime_ns: note.attributes.mtime_ns,
        xattrs: note.attributes.xattrs.as_deref().cloned(),
    })
}

/// Writes the note of an upload.
pub(crate) fn of_upload(note: &UploadNote) -> Vec<u8> {
    write(Body::Upload {
        mount: note.mount.0,
        path: note.path.as_bytes().to_vec(),
        name: note.name.clone(),
    })
}

fn kind_of(kind: NodeKind) -> Kind {
    match kind {
        NodeKind::Directory => Kind::Directory,
        NodeKind::File => Kind::File,
        NodeKind::Symlink => Kind::Symlink,
    }
}

/// Reads a note.
pub(crate) fn read(bytes: &[u8]) -> Result<Noted> {
    match body_of(bytes)? {
        Body::File {
            mount,
            path,
            base,
            expect,
            mode,
            uid,
            gid,
            mtime_ns,
            xattrs,
            extents,
            attempts,
        } => {
            let mount = MountId(mount);
            let base =
                base.map(|base| Ok(ObjectRef::new(mount, parse(&base.path)?, base.tag.into())));
            Ok(Noted::File(FileNote {
                mount,
                path: parse(&path)?,
                base: base.transpose()?,
                expect: expect.into(),
                owner: Owner { mode, uid, gid },
                mtime_ns,
                xattrs: xattrs.map(Arc::new),
                extents,
                attempts,
            }))
        }
        Body::Move {
            mount,
            from,
            to,
            kind,
            tag,
            owner,
            replaces,
        } => Ok(Noted::Move(Move {
            mount: MountId(mount),
            from: parse(&from)?,
            to: parse(&to)?,
            meta: ObjectMeta {
                owner: owner.map(owner_of),
                ..meta_of(kind, tag)
            },
            replaces: replaces.map(|(kind, tag)| meta_of(kind, tag)),
        })),
        Body::Make {
            mount,
            path,
            owner,
            mtime_ns,
            xattrs,
        } => Ok(Noted::Make(MakeNote {
            mount: MountId(mount),
            path: parse(&path)?,
            attributes: FileAttributes {
                owner: owner.map(owner_of),
                mtime_ns,
                xattrs: xattrs.map(Arc::new),
            },
        })),
        Body::Upload { mount, path, name } => Ok(Noted::Upload(UploadNote {
            mount: MountId(mount),
            path: parse(&path)?,
            name,
        })),
    }
}

fn body_of(bytes: &[u8]) -> Result<Body> {
    let written: Written = serde_json::from_slice(bytes)
        .map_err(|e| Error::new(ErrorKind::Corrupt, "a note of a change").with_source(e))?;
    if written.format != FORMAT {
        let message = format!(
            "a note of format {} is of a newer release: start that release once to store it",
            written.format
        );
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    Ok(written.note)
}

fn parts_of(owner: Owner) -> (u32, u32, u32) {
    (owner.mode, owner.uid, owner.gid)
}

fn owner_of((mode, uid, gid): (u32, u32, u32)) -> Owner {
    Owner { mode, uid, gid }
}

fn meta_of(kind: Kind, tag: Tag) -> ObjectMeta {
    ObjectMeta {
        kind: kind.into(),
        tag: tag.into(),
        owner: None,
        extras: None,
    }
}

fn parse(path: &[u8]) -> Result<ObjectPath> {
    ObjectPath::parse(path)
        .map_err(|e| Error::new(ErrorKind::Corrupt, "a path in a note").with_source(e))
}

fn write(note: Body) -> Vec<u8> {
    let format = FORMAT;
    serde_json::to_vec(&Written { format, note }).expect("plain data has a JSON form")
}

fn tag_of(tag: &VersionTag) -> Tag {
    Tag {
        etag: tag.etag.clone(),
        mtime_ns: tag.mtime_ns,
        size: tag.size,
    }
}

impl From<Expected> for Expect {
    fn from(expected: Expected) -> Self {
        match expected {
            Expected::Anything => Expect::Anything,
            Expected::Absent => Expect::Absent,
            Expected::Version(tag) => Expect::Version(tag.into()),
        }
    }
}

impl From<Kind> for NodeKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Directory => NodeKind::Directory,
            Kind::File => NodeKind::File,
            Kind::Symlink => NodeKind::Symlink,
        }
    }
}

impl From<Tag> for VersionTag {
    fn from(tag: Tag) -> Self {
        VersionTag {
            etag: tag.etag,
            mtime_ns: tag.mtime_ns,
            size: tag.size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(bytes: &[u8]) -> ObjectPath {
        ObjectPath::parse(bytes).unwrap()
    }

    fn tag() -> VersionTag {
        VersionTag {
            etag: Some("abc".into()),
            mtime_ns: -5,
            size: u64::MAX,
        }
    }

    #[test]
    fn notes_come_back_as_they_were_written() {
        let mount = MountId(u64::MAX);
        for expect in [
            Expect::Anything,
            Expect::Absent,
            Expect::Version(VersionTag::default()),
        ] {
            let note = FileNote {
                mount,
                path: path(b"a/\xff\x01"),
                base: Some(ObjectRef::new(mount, path(b"old"), tag())),
                expect,
                owner: Owner {
                    mode: 0o4755,
                    uid: 1,
                    gid: u32::MAX,
                },
                mtime_ns: i64::MIN,
                xattrs: Some(Arc::new([("user.a".into(), vec![0, 255])].into())),
                extents: vec![0, 255],
                attempts: vec![Attempt::whole(&bytes::Bytes::from_static(b"sent"))],
            };
            let Noted::File(read) = read(&of_file(&note)).unwrap() else {
                panic!("a file became a rename");
            };
            assert_eq!(read, note);
        }
        let work = Move {
            mount,
            from: path(b"a"),
            to: path(b"b/c"),
            meta: ObjectMeta {
                kind: NodeKind::Symlink,
                tag: tag(),
                owner: None,
                extras: None,
            },
            replaces: Some(ObjectMeta {
                kind: NodeKind::File,
                tag: tag(),
                owner: None,
                extras: None,
            }),
        };
        let Noted::Move(read) = read(&of_move(&work)).unwrap() else {
            panic!("a rename became a file");
        };
        assert_eq!(format!("{read:?}"), format!("{work:?}"));
        let upload = UploadNote {
            mount,
            path: path(b"a/\xff"),
            name: "x y".into(),
        };
        let Noted::Upload(read) = super::read(&of_upload(&upload)).unwrap() else {
            panic!("an upload became something else");
        };
        assert_eq!(read, upload);
    }

    #[test]
    fn the_note_of_a_directory_comes_back_as_it_was_written() {
        let make = MakeNote {
            mount: MountId(3),
            path: path(b"a/\xff"),
            attributes: FileAttributes {
                owner: Some(owner_of((0o1700, 1, 2))),
                mtime_ns: Some(-1),
                xattrs: Some(Arc::new([("user.a".into(), vec![0])].into())),
            },
        };
        let Noted::Make(read) = read(&of_make(&make)).unwrap() else {
            panic!("a directory became something else");
        };
        assert_eq!(read, make);
    }

    #[test]
    fn what_cannot_be_read_says_so() {
        assert_eq!(read(b"{").unwrap_err().kind(), ErrorKind::Corrupt);
        let newer = br#"{"format":2,"note":{"move":{"mount":1,"from":[97],"to":[98],"kind":"file","tag":{"etag":null,"mtime_ns":0,"size":0},"owner":null}}}"#;
        assert_eq!(read(newer).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
