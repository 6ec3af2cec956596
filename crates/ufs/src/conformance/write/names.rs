// SPDX-License-Identifier: Apache-2.0
//! Directories, copies, renames and links, and what is kept beside the bytes.

use bytes::Bytes;
use types::meta::Owner;
use types::{ErrorKind, NodeKind, ObjectMeta};

use super::parts;
use super::place::{NOTHING, Place, content, fails};
use crate::conformance::{list, soon};
use crate::{Expect, FileAttributes, ListEntry};

pub(super) async fn makes_and_removes_directories(place: &Place<'_>) {
    if place.can().directories {
        let made = place.make_dir(b"dirs/below/nothing", &NOTHING).await;
        fails(made, ErrorKind::NotFound, "no parent");
    }
    let made = place.make_dir(b"dirs", &NOTHING).await;
    assert_eq!(made.expect("a directory").kind, NodeKind::Directory);
    let seen = place.stat(b"dirs").await;
    assert_eq!((seen.kind, seen.tag.size), (NodeKind::Directory, 0));
    assert!(place.names(b"dirs").await.is_empty());
    let taken = place.make_dir(b"dirs", &NOTHING).await;
    fails(taken, ErrorKind::AlreadyExists, "a directory");
    let inner = place.make_dir(b"dirs/inner", &NOTHING).await;
    inner.expect("a directory");
    assert_eq!(place.names(b"dirs").await, [b"inner"]);
    place.write(b"dirs/file", b"x").await;
    let taken = place.make_dir(b"dirs/file", &NOTHING).await;
    fails(taken, ErrorKind::AlreadyExists, "a file");
    let full = place.remove_dir(b"dirs").await;
    fails(full, ErrorKind::NotEmpty, "a directory with names");
    place.remove_dir(b"dirs/inner").await.expect("a removal");
    assert_eq!(place.names(b"dirs").await, [b"file"]);
    place.remove(b"dirs/file").await;
    assert_eq!(place.stat(b"dirs").await.kind, NodeKind::Directory);
    place.remove_dir(b"dirs").await.expect("a removal");
    place.is_absent(b"dirs").await;

    // One that was there only for what is in it.
    place.write(b"implied/file", b"x").await;
    let taken = place.make_dir(b"implied", &NOTHING).await;
    fails(taken, ErrorKind::AlreadyExists, "a directory");
    let full = place.remove_dir(b"implied").await;
    fails(full, ErrorKind::NotEmpty, "a directory with names");
    place.remove(b"implied/file").await;
    let removed = place.remove_dir(b"implied").await;
    removed.expect("a removal, or nothing to do");
    place.is_absent(b"implied").await;
}

fn attributes(mode: u32, mtime_ns: i64) -> FileAttributes {
    let owner = Owner {
        mode,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
    };
    FileAttributes {
        owner: Some(owner),
        mtime_ns: Some(mtime_ns),
        xattrs: None,
    }
}

/// Checks that the storage tells these attributes; times to the millisecond.
async fn tells(place: &Place<'_>, name: &[u8], wanted: &FileAttributes, answer: &ObjectMeta) {
    let seen = place.stat(name).await;
    for meta in [&seen, answer] {
        assert_eq!(meta.owner, wanted.owner);
        let wanted = wanted.mtime_ns.expect("a time is wanted");
        assert_eq!(meta.tag.mtime_ns / 1_000_000, wanted / 1_000_000);
    }
    assert_eq!(seen.tag.etag, answer.tag.etag);
}

pub(super) async fn keeps_attributes(place: &Place<'_>) {
    let name = b"attributes/file";
    let first = attributes(0o640, 1_500_000_000_123_000_000);
    let put = place
        .put_with(name, b"12345", &Expect::Absent, &first)
        .await;
    let put = put.expect("a file");
    tells(place, name, &first, &put).await;

    let second = attributes(0o755, 1_600_000_000_000_000_000);
    let changed = place.set(name, &put.tag, &second).await.expect("a change");
    tells(place, name, &second, &changed).await;
    assert_eq!(place.bytes(name).await, b"12345");
    // What is not named stays.
    let only_time = FileAttributes {
        owner: None,
        mtime_ns: first.mtime_ns,
        xattrs: None,
    };
    let changed = place.set(name, &changed.tag, &only_time).await;
    let changed = changed.expect("a change");
    let both = FileAttributes {
        owner: second.owner,
        ..first.clone()
    };
    tells(place, name, &both, &changed).await;
    place.fixture.put(name, b"others").await;
    let late = place.set(name, &changed.tag, &second).await;
    fails(late, ErrorKind::Stale, "what others changed");

    let (_, size) = parts(place);
    let name = b"attributes/parts";
    let upload = place.begin(name, size, &first).await;
    let part = upload.part(1, Bytes::from_static(b"abc"), soon());
    part.await.expect("a part");
    let made = upload.complete(&Expect::Absent, soon()).await;
    tells(place, name, &first, &made.expect("a file")).await;
}

pub(super) async fn keeps_attributes_of_directories(place: &Place<'_>) {
    let name = b"attributes/dir";
    let first = attributes(0o750, 1_500_000_000_123_000_000);
    let second = attributes(0o711, 1_600_000_000_000_000_000);
    place.write(b"attributes/beside", b"x").await;
    let made = place.make_dir(name, &first).await.expect("a directory");
    assert_eq!(made.owner, first.owner);
    assert_eq!(place.stat(name).await.owner, first.owner);
    let set = place.set(name, &made.tag, &second).await.expect("a change");
    for meta in [set, place.stat(name).await] {
        assert_eq!((meta.kind, meta.owner), (NodeKind::Directory, second.owner));
    }
}

pub(super) async fn copies(place: &Place<'_>) {
    let (from, to) = (b"copies/from", b"copies/dir/to");
    let original = content(200_003, 5);
    let kept = attributes(0o600, 1_400_000_000_000_000_000);
    let put = place.put_with(from, &original, &Expect::Anything, &kept);
    let source = put.await.expect("a file");
    let copy = |expect: Expect| {
        let tag = &source.tag;
        async move { place.copy(from, tag, to, &expect).await }
    };
    let copied = copy(Expect::Absent).await.expect("a copy");
    place.holds(to, &original, &copied).await;
    tells(place, to, &kept, &copied).await;
    let taken = copy(Expect::Absent).await;
    fails(taken, ErrorKind::AlreadyExists, "a name that is taken");
    let again = copy(Expect::Version(copied.tag.clone())).await;
    let again = again.expect("a copy");
    place.holds(to, &original, &again).await;
    place.fixture.put(to, b"theirs").await;
    let late = copy(Expect::Version(again.tag)).await;
    fails(late, ErrorKind::Stale, "what others changed");
    assert_eq!(place.bytes(to).await, b"theirs");
    place.fixture.put(from, b"changed").await;
    fails(
        copy(Expect::Anything).await,
        ErrorKind::Stale,
        "another source",
    );
    place.fixture.remove(from).await;
    fails(copy(Expect::Anything).await, ErrorKind::Stale, "no source");
    assert_eq!(place.bytes(to).await, b"theirs");
}

pub(super) async fn copies_and_removes_odd_names(place: &Place<'_>) {
    let mut names = place.fixture.odd_names();
    for name in &names {
        let shown = name.escape_ascii();
        let from = [b"odd from/", &name[..]].concat();
        let to = [b"odd to/", &name[..]].concat();
        let put = place.write(&from, name).await;
        let copied = place.copy(&from, &put.tag, &to, &Expect::Absent).await;
        let copied = copied.unwrap_or_else(|error| panic!("{shown}: {error}"));
        place.holds(&to, name, &copied).await;
        let removed = place.delete(&from, &Expect::Version(put.tag)).await;
        removed.unwrap_or_else(|error| panic!("{shown}: {error}"));
    }
    names.sort();
    assert!(place.names(b"odd from").await.is_empty());
    assert_eq!(place.names(b"odd to").await, names);
}

pub(super) async fn makes_directories_of_odd_names(place: &Place<'_>) {
    let mut names = place.fixture.odd_names();
    // Some storages add a few letters of their own to the name of a directory.
    names.retain(|name| name.len() <= 200);
    let above = place.make_dir(b"odd dirs made", &NOTHING).await;
    above.expect("a directory");
    for name in &names {
        let dir = [b"odd dirs made/", &name[..]].concat();
        let made = place.make_dir(&dir, &NOTHING).await;
        made.unwrap_or_else(|error| panic!("{}: {error}", name.escape_ascii()));
    }
    names.sort();
    assert_eq!(place.names(b"odd dirs made").await, names);
}

pub(super) async fn renames(place: &Place<'_>) {
    place.write(b"renames/a", b"from a").await;
    let moved = place.rename(b"renames/a", b"renames/b").await;
    if !place.can().rename {
        fails(moved, ErrorKind::Unsupported, "rename");
        return;
    }
    let moved = moved.expect("a rename");
    place.is_absent(b"renames/a").await;
    place.holds(b"renames/b", b"from a", &moved).await;
    place.write(b"renames/c", b"from c").await;
    let moved = place.rename(b"renames/b", b"renames/c").await;
    let moved = moved.expect("a rename");
    place.holds(b"renames/c", b"from a", &moved).await;
    place.is_absent(b"renames/b").await;

    place.write(b"renames/dir/x/y", b"deep").await;
    place.write(b"renames/full/z", b"z").await;
    let empty = place.make_dir(b"renames/empty", &NOTHING).await;
    empty.expect("a directory");
    let full = place.rename(b"renames/dir", b"renames/full").await;
    fails(full, ErrorKind::NotEmpty, "a directory with names");
    let moved = place.rename(b"renames/dir", b"renames/empty").await;
    assert_eq!(moved.expect("a rename").kind, NodeKind::Directory);
    assert_eq!(place.bytes(b"renames/empty/x/y").await, b"deep");
    let names = place.names(b"renames").await;
    assert_eq!(names, [&b"c"[..], b"empty", b"full"]);
    let absent = place.rename(b"renames/dir", b"renames/else").await;
    fails(absent, ErrorKind::NotFound, "no such name");
}

pub(super) async fn renames_odd_names(place: &Place<'_>) {
    if !place.can().rename {
        return;
    }
    let mut names = place.fixture.odd_names();
    let to = place.make_dir(b"odd new", &NOTHING).await;
    to.expect("a directory");
    for name in &names {
        let from = [b"odd old/", &name[..]].concat();
        let to = [b"odd new/", &name[..]].concat();
        place.write(&from, name).await;
        let moved = place.rename(&from, &to).await;
        let moved = moved.unwrap_or_else(|error| panic!("{}: {error}", name.escape_ascii()));
        place.holds(&to, name, &moved).await;
    }
    names.sort();
    assert_eq!(place.names(b"odd new").await, names);
    assert!(place.names(b"odd old").await.is_empty());
}

pub(super) async fn links(place: &Place<'_>) {
    place.write(b"links/file", b"x").await;
    let target = b"../dir/\xc3\xa9 100%\xff no such \n";
    let made = place.link(b"links/link", target).await;
    if !place.can().symlinks {
        fails(made, ErrorKind::Unsupported, "a link");
        return;
    }
    let made = made.expect("a link");
    place.points_to(b"links/link", target, &made).await;
    let taken = place.link(b"links/link", b"x").await;
    fails(taken, ErrorKind::AlreadyExists, "a link");
    let taken = place.link(b"links/file", b"x").await;
    fails(taken, ErrorKind::AlreadyExists, "a file");
    let endless = place.link(b"links/long", &[b'x'; 9000]).await;
    fails(endless, ErrorKind::TooLong, "what it points to");
    let told = place.target(b"links/file").await;
    fails(told, ErrorKind::Invalid, "a file is no link");

    let time = FileAttributes {
        owner: None,
        mtime_ns: Some(1_500_000_000_000_000_000),
        xattrs: None,
    };
    let set = place.set(b"links/link", &made.tag, &time).await;
    let set = set.expect("a change");
    assert_eq!(Some(set.tag.mtime_ns), time.mtime_ns);
    place.points_to(b"links/link", target, &set).await;
    let moved = match place.can().rename {
        true => place.rename(b"links/link", b"links/moved").await,
        false => {
            let (from, to) = (b"links/link", b"links/moved");
            let copied = place.copy(from, &set.tag, to, &Expect::Absent).await;
            let expect = Expect::Version(set.tag.clone());
            place.delete(from, &expect).await.expect("a removal");
            copied
        }
    };
    let moved = moved.expect("another name");
    place.points_to(b"links/moved", target, &moved).await;
    // What others put in its place is none.
    place.fixture.remove(b"links/moved").await;
    place.fixture.put(b"links/moved", b"").await;
    assert_eq!(place.stat(b"links/moved").await.kind, NodeKind::File);
    place.remove(b"links/moved").await;
    assert_eq!(place.names(b"links").await, [b"file"]);
}

/// A directory of many links and empty files costs no look at each.
pub(super) async fn lists_links_without_looks(place: &Place<'_>) {
    if !place.can().symlinks {
        return;
    }
    for number in 0..5 {
        let file = format!("many links/{number}");
        place.write(file.as_bytes(), b"").await;
        let link = format!("many links/link-{number}");
        let made = place.link(link.as_bytes(), b"file").await;
        made.expect("a link");
    }
    let counters = place.storage.counters();
    let looks = || counters.snapshot().head;
    let before = looks();
    let (entries, _) = list(&*place.storage, b"many links").await.expect("names");
    assert_eq!(looks(), before);
    let is_link = |entry: &&ListEntry| entry.meta.kind == NodeKind::Symlink;
    let links = entries.iter().filter(is_link);
    let names: Vec<_> = links.map(|entry| entry.name.to_string()).collect();
    let wanted: Vec<_> = (0..5).map(|number| format!("link-{number}")).collect();
    assert_eq!(names, wanted);
}
