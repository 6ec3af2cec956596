// SPDX-License-Identifier: Apache-2.0
//! The suite that every driver passes that takes writes.
//!
//! It works through the writer and looks through the reading side, which the other suite proves;
//! what others change comes through the fixture. Each part works in a directory of its own. What a
//! driver cannot do, by its [`Abilities`](crate::Abilities), is not asked for, except that it says
//! so. Here are bytes and conditions; in `names` are directories, copies, renames and attributes,
//! in `xattrs` those of users.

mod names;
mod place;
mod xattrs;

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use types::{ByteRange, ErrorKind, NodeKind, VersionTag};

use self::place::{NOTHING, Place, content, fails};
use super::{Fixture, read, soon};
use crate::Expect;

/// Where parts may have any size, they have this one.
const PART_SIZE: u64 = 100_000;

/// Checks every promise of [`UnderWriter`](crate::UnderWriter).
///
/// # Panics
/// When one is broken.
pub async fn run(fixture: &dyn Fixture) {
    let place = &Place {
        fixture,
        storage: fixture.storage(),
    };
    writes_whole_objects(place).await;
    keeps_what_others_wrote(place).await;
    lets_one_of_many_win(place).await;
    sends_parts(place).await;
    ends_uploads_only_as_expected(place).await;
    removes(place).await;
    names::makes_and_removes_directories(place).await;
    names::keeps_attributes(place).await;
    names::keeps_attributes_of_directories(place).await;
    names::copies(place).await;
    names::copies_and_removes_odd_names(place).await;
    names::makes_directories_of_odd_names(place).await;
    names::renames(place).await;
    names::renames_odd_names(place).await;
    names::links(place).await;
    names::lists_links_without_looks(place).await;
    xattrs::keeps_xattrs(place).await;
    leaves_nothing_torn(place).await;
    counts_what_it_writes(place).await;
}

async fn writes_whole_objects(place: &Place<'_>) {
    for len in [0, 1, 100_003, 3_000_017] {
        let name = format!("whole/made/above/of-{len}");
        let name = name.as_bytes();
        let (old, new) = (content(len, 1), content(len + 1, 2));
        let first = place.put(name, &old, &Expect::Absent).await;
        let first = first.expect("a new object");
        assert_eq!(first.kind, NodeKind::File);
        place.holds(name, &old, &first).await;
        let expect = Expect::Version(first.tag.clone());
        let second = place.put(name, &new, &expect).await;
        let second = second.expect("the next version");
        assert_ne!(second.tag, first.tag);
        place.holds(name, &new, &second).await;
        if len > 0 {
            let whole = ByteRange::new(0, len);
            let gone = read(&*place.storage, name, &first.tag, whole).await;
            fails(gone, ErrorKind::Stale, "the version before");
        }
        let third = place.write(name, &old).await;
        place.holds(name, &old, &third).await;
    }
    assert_eq!(place.names(b"whole/made/above").await.len(), 4);
    let root = place.put(b"", b"x", &Expect::Anything).await;
    fails(root, ErrorKind::IsADirectory, "a root");
}

async fn keeps_what_others_wrote(place: &Place<'_>) {
    let name = b"others/object";
    let mine = place.write(name, b"mine").await;
    let taken = place.put(name, b"again", &Expect::Absent).await;
    fails(taken, ErrorKind::AlreadyExists, "a name that is taken");
    assert_eq!(place.bytes(name).await, b"mine");
    let expect = Expect::Version(mine.tag);
    for theirs in [&b"them"[..], b"another length"] {
        place.fixture.put(name, theirs).await;
        let put = place.put(name, b"late", &expect).await;
        fails(put, ErrorKind::Stale, "what others changed");
        let deleted = place.delete(name, &expect).await;
        fails(deleted, ErrorKind::Stale, "what others changed");
        assert_eq!(place.bytes(name).await, theirs);
    }
    let expect = Expect::Version(place.stat(name).await.tag);
    place.fixture.remove(name).await;
    let put = place.put(name, b"late", &expect).await;
    fails(put, ErrorKind::Stale, "what others removed");
    place.is_absent(name).await;
}

async fn lets_one_of_many_win(place: &Place<'_>) {
    if !place.can().conditions {
        return;
    }
    let contents: Vec<_> = (0..8).map(|seed| content(50_000, seed)).collect();
    for round in 0..3 {
        let name = format!("race/{round}");
        let first = race(place, name.as_bytes(), &contents, &Expect::Absent).await;
        // The next version is won by one as well.
        let (expect, others) = (Expect::Version(first), content(70_000, 9));
        let contents: Vec<_> = (0..8).map(|cut| others[cut..].to_vec()).collect();
        race(place, name.as_bytes(), &contents, &expect).await;
    }
}

/// Writes all contents at once, of which one wins; returns its version.
async fn race(place: &Place<'_>, name: &[u8], contents: &[Vec<u8>], expect: &Expect) -> VersionTag {
    let puts = contents.iter().map(|bytes| place.put(name, bytes, expect));
    let lost = match expect {
        Expect::Absent => ErrorKind::AlreadyExists,
        Expect::Anything | Expect::Version(_) => ErrorKind::Stale,
    };
    let mut won = Vec::new();
    for (index, put) in join_all(puts).await.into_iter().enumerate() {
        match put {
            Ok(meta) => won.push((index, meta)),
            Err(error) => assert_eq!(error.kind(), lost, "{error}"),
        }
    }
    assert_eq!(won.len(), 1, "one wins");
    let (index, meta) = won.remove(0);
    place.holds(name, &contents[index], &meta).await;
    meta.tag
}

/// Returns the bytes of parts of which the last is odd, and the size of the others.
fn parts(place: &Place<'_>) -> (Vec<Vec<u8>>, u64) {
    let size = place.can().part_min.max(PART_SIZE);
    let parts = [content(size, 3), content(size, 7), content(4321, 11)];
    (parts.to_vec(), size)
}

async fn sends_parts(place: &Place<'_>) {
    let (parts, size) = parts(place);
    let name = b"parts/dir/object";
    let upload = place.begin(name, size, &NOTHING).await;
    let send = async |number: u32, bytes: &[u8]| {
        let sent = upload.part(number, Bytes::copy_from_slice(bytes), soon());
        sent.await.expect("a part");
    };
    if place.can().parallel_parts {
        send(3, &parts[2]).await;
        send(1, &parts[1]).await;
        // Sent again, it replaces what was sent.
        futures::join!(send(1, &parts[0]), send(2, &parts[1]));
    } else {
        for (number, part) in (1..).zip(&parts) {
            send(number, part).await;
        }
    }
    place.is_absent(name).await;
    assert!(place.names(b"parts/dir").await.is_empty(), "nothing shows");
    let made = upload.complete(&Expect::Absent, soon()).await;
    let made = made.expect("an object");
    place.holds(name, &parts.concat(), &made).await;

    let upload = place.begin(name, size, &NOTHING).await;
    let one = upload.part(1, Bytes::from_static(b"one odd part"), soon());
    one.await.expect("a part");
    let expect = Expect::Version(made.tag);
    let made = upload.complete(&expect, soon()).await.expect("an object");
    place.holds(name, b"one odd part", &made).await;

    let upload = place.begin(name, size, &NOTHING).await;
    let empty = upload.complete(&Expect::Anything, soon()).await;
    let empty = empty.expect("an object of no bytes");
    place.holds(name, b"", &empty).await;
}

async fn ends_uploads_only_as_expected(place: &Place<'_>) {
    let (parts, size) = parts(place);
    let name = b"ends/object";
    let begin = async || {
        let upload = place.begin(name, size, &NOTHING).await;
        let part = Bytes::from(parts[0].clone());
        upload.part(1, part, soon()).await.expect("a part");
        upload
    };
    begin().await.abort(soon()).await.expect("an end");
    place.is_absent(name).await;
    assert!(place.names(b"ends").await.is_empty(), "nothing is left");

    let old = place.write(name, b"old").await;
    let upload = begin().await;
    let end = upload.complete(&Expect::Absent, soon()).await;
    fails(end, ErrorKind::AlreadyExists, "a name that is taken");
    // What failed may be given up by its caller.
    upload.abort(soon()).await.expect("an end");
    let upload = begin().await;
    place.fixture.put(name, b"theirs").await;
    let end = upload.complete(&Expect::Version(old.tag), soon()).await;
    fails(end, ErrorKind::Stale, "what others changed");
    upload.abort(soon()).await.expect("an end");
    assert_eq!(place.bytes(name).await, b"theirs");
    assert_eq!(place.names(b"ends").await, [b"object"]);
}

async fn removes(place: &Place<'_>) {
    for absent in [&b"removes/absent"[..], b"removes/no/such/dir"] {
        place.remove(absent).await;
    }
    place.write(b"removes/kept", b"k").await;
    let gone = place.write(b"removes/gone", b"g").await;
    for what in ["a removal", "nothing to do"] {
        let expect = Expect::Version(gone.tag.clone());
        let removed = place.delete(b"removes/gone", &expect).await;
        removed.unwrap_or_else(|error| panic!("{what}: {error}"));
        place.is_absent(b"removes/gone").await;
    }
    place.write(b"removes/gone", b"again").await;
    place.remove(b"removes/gone").await;
    assert_eq!(place.names(b"removes").await, [b"kept"]);
}

async fn leaves_nothing_torn(place: &Place<'_>) {
    let name = b"torn/object";
    let (old, new) = (content(1_000_000, 1), content(6_000_000, 2));
    place.write(name, &old).await;
    for patience_us in [0, 100, 300, 1_000, 3_000, 10_000, 30_000] {
        let put = place.put(name, &new, &Expect::Anything);
        // It is done in time or dropped on its way: either is well.
        let _in_time = tokio::time::timeout(Duration::from_micros(patience_us), put).await;
        let seen = place.bytes(name).await;
        assert!(seen == old || seen == new, "{} bytes", seen.len());
    }
    let (parts, size) = parts(place);
    for patience_us in [0, 300, 3_000] {
        let upload = place.begin(b"torn/parts", size, &NOTHING).await;
        let sent = upload.part(1, Bytes::from(parts[0].clone()), soon());
        let _in_time = tokio::time::timeout(Duration::from_micros(patience_us), sent).await;
        drop(upload);
    }
    assert_eq!(
        place.names(b"torn").await,
        [b"object"],
        "what did not end shows"
    );
}

/// Writes that [`leaves_nothing_torn`] drops, and one.
const DROPPED_MAX: usize = 11;

async fn counts_what_it_writes(place: &Place<'_>) {
    let counters = place.storage.counters();
    place.write(b"counts written/first", b"").await;
    let (mut before, mut written) = (counters.snapshot(), counters.snapshot());
    let mut counted = (0, 0);
    // What was dropped on its way before may end only now, and count.
    for _ in 0..DROPPED_MAX {
        before = counters.snapshot();
        place.write(b"counts written/object", &[1; 1000]).await;
        written = counters.snapshot();
        let bytes = written.bytes_written - before.bytes_written;
        counted = (written.put - before.put, bytes);
        if counted == (1, 1000) {
            break;
        }
    }
    assert_eq!(counted, (1, 1000), "one request, and its bytes");
    place.remove(b"counts written/object").await;
    let removed = counters.snapshot();
    assert_eq!(removed.delete - written.delete, 1, "one request");
    assert_eq!(
        (removed.errors, removed.retries),
        (before.errors, before.retries)
    );
}
