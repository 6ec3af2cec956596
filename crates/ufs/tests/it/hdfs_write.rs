// SPDX-License-Identifier: Apache-2.0
//! Writing to a real HDFS, over its native protocols and over HTTP.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use testkit::rigs::Hdfs;
use types::meta::Owner;
use types::{ByteRange, Clock, Deadline, ErrorKind, NodeKind, ObjectPath, SystemClock};
use ufs::conformance::{self, Fixture, list, read, stat};
use ufs::{Expect, FileAttributes, UnderStorage};

use crate::hdfs::{Directory, SERVER, bytes, open_at};
use crate::wire::{WrongClock, open_by};

const KEPT: FileAttributes = FileAttributes {
    owner: None,
    mtime_ns: None,
    xattrs: None,
};

fn soon() -> Deadline {
    SystemClock.deadline(Duration::from_secs(30))
}

fn path(name: &[u8]) -> ObjectPath {
    ObjectPath::parse(name).unwrap()
}

/// A directory of a driver of each kind.
async fn both(server: &Arc<Hdfs>, dir: &str) -> [Directory; 2] {
    let rpc = format!("hdfs://{}{dir}/rpc", server.name_nodes[0]);
    let web = format!("webhdfs://{}{dir}/web", server.web[0]);
    let (rpc, web) = (open_at(&rpc, &[]).await, open_at(&web, &[]).await);
    [
        Directory::with(server, &format!("{dir}/rpc"), rpc.unwrap()),
        Directory::with(server, &format!("{dir}/web"), web.unwrap()),
    ]
}

/// Reads a whole file as it is now.
async fn content(storage: &dyn UnderStorage, name: &[u8]) -> Vec<u8> {
    let tag = stat(storage, name).await.unwrap().tag;
    let whole = ByteRange::new(0, tag.size);
    read(storage, name, &tag, whole).await.unwrap()
}

/// The names in a directory, those that are hidden too.
async fn all_names(dir: &Directory) -> Vec<String> {
    let names = dir.tell("names", b"", &[]).await;
    names.lines().map(String::from).collect()
}

#[tokio::test]
async fn blocks_are_written_whole_to_their_last_byte() {
    let server = SERVER.read().await;
    for dir in both(&server, "/blocks").await {
        let writer = dir.storage.writer().unwrap();
        // A block of the rig is a MiB.
        for len in [
            0,
            1,
            (1 << 20) - 1,
            1 << 20,
            (1 << 20) + 1,
            2 << 20,
            (3 << 20) + 7,
        ] {
            let written = bytes(len);
            let at = path(format!("new/f{len}").as_bytes());
            let put = writer
                .put(&at, written.clone().into(), &Expect::Absent, &KEPT, soon())
                .await
                .unwrap();
            assert_eq!(stat(&*dir.storage, at.as_bytes()).await.unwrap(), put);
            assert!(
                content(&*dir.storage, at.as_bytes()).await == written,
                "{len}"
            );
        }
        assert_eq!(all_names(&dir).await, ["new"]);
    }
}

#[tokio::test]
async fn parts_become_a_file_at_the_end_and_not_before() {
    let server = SERVER.read().await;
    for dir in both(&server, "/parts").await {
        let writer = dir.storage.writer().unwrap();
        let whole = bytes((2 << 20) + 77);
        let upload = writer
            .begin(&path(b"f"), 700_000, &KEPT, soon())
            .await
            .unwrap();
        for (number, part) in (1..).zip(whole.chunks(700_000)) {
            let part = Bytes::copy_from_slice(part);
            upload.part(number, part.clone(), soon()).await.unwrap();
            upload.part(number, part, soon()).await.unwrap();
            let error = stat(&*dir.storage, b"f").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
            assert!(list(&*dir.storage, b"").await.unwrap().0.is_empty());
        }
        let early = upload.part(1, Bytes::new(), soon()).await.unwrap_err();
        assert_eq!(early.kind(), ErrorKind::Unsupported, "{early}");
        let meta = upload.complete(&Expect::Absent, soon()).await.unwrap();
        assert_eq!(stat(&*dir.storage, b"f").await.unwrap(), meta);
        assert!(content(&*dir.storage, b"f").await == whole);

        let upload = writer.begin(&path(b"g"), 10, &KEPT, soon()).await.unwrap();
        upload
            .part(1, Bytes::from_static(b"x"), soon())
            .await
            .unwrap();
        assert_eq!(all_names(&dir).await.len(), 2);
        upload.abort(soon()).await.unwrap();
        assert_eq!(all_names(&dir).await, ["f"]);
    }
}

#[tokio::test]
async fn what_is_not_expected_is_not_overwritten_and_leaves_nothing_behind() {
    let server = SERVER.read().await;
    for dir in both(&server, "/expected").await {
        let writer = dir.storage.writer().unwrap();
        dir.put(b"f", b"old").await;
        dir.put(b"d/x", b"").await;
        let old = stat(&*dir.storage, b"f").await.unwrap().tag;
        dir.put(b"f", b"other").await;
        let new = Bytes::from_static(b"new");
        let was = Expect::Version(old);
        for (name, expect, kind) in [
            ("f", &was, ErrorKind::Stale),
            ("absent", &was, ErrorKind::Stale),
            ("f", &Expect::Absent, ErrorKind::AlreadyExists),
            ("d", &Expect::Absent, ErrorKind::AlreadyExists),
            ("d", &Expect::Anything, ErrorKind::IsADirectory),
            ("f/below", &Expect::Anything, ErrorKind::NotADirectory),
        ] {
            let at = path(name.as_bytes());
            let put = writer.put(&at, new.clone(), expect, &KEPT, soon());
            let error = put.await.unwrap_err();
            assert_eq!(error.kind(), kind, "{name} {expect:?}: {error}");
            assert!(
                error
                    .to_string()
                    .contains(&format!("{}{name}", dir.storage.uri())),
                "{error}"
            );
        }
        assert_eq!(content(&*dir.storage, b"f").await, b"other");
        assert_eq!(all_names(&dir).await, ["d", "f"]);
        let is = Expect::Version(stat(&*dir.storage, b"f").await.unwrap().tag);
        writer
            .put(&path(b"f"), new, &is, &KEPT, soon())
            .await
            .unwrap();
        assert_eq!(content(&*dir.storage, b"f").await, b"new");
        let kept = path(b".forebay-0123456789abcdef0123456789abcdef.part");
        let put = writer.put(&kept, Bytes::new(), &Expect::Anything, &KEPT, soon());
        assert_eq!(put.await.unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn directories_are_made_once_and_removed_when_empty() {
    let server = SERVER.read().await;
    for dir in both(&server, "/directories").await {
        let writer = dir.storage.writer().unwrap();
        let owner = Owner {
            mode: 0o1750,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
        };
        let wanted = FileAttributes {
            owner: Some(owner),
            mtime_ns: None,
            xattrs: None,
        };
        let made = writer
            .create_dir(&path(b"d"), &wanted, soon())
            .await
            .unwrap();
        assert_eq!(made, stat(&*dir.storage, b"d").await.unwrap());
        assert_eq!(
            (made.kind, made.owner.unwrap().mode),
            (NodeKind::Directory, 0o1750)
        );
        dir.put(b"f", b"").await;
        dir.put(b"d/x", b"").await;
        for (name, kind) in [
            (&b"d"[..], ErrorKind::AlreadyExists),
            (b"f", ErrorKind::AlreadyExists),
            (b"absent/d", ErrorKind::NotFound),
            (b"f/d", ErrorKind::NotADirectory),
        ] {
            let error = writer
                .create_dir(&path(name), &KEPT, soon())
                .await
                .unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
        }
        for (name, kind) in [
            (&b"d"[..], ErrorKind::NotEmpty),
            (b"f", ErrorKind::NotADirectory),
        ] {
            let error = writer.remove_dir(&path(name), soon()).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
        }
        let error = writer
            .delete(&path(b"d"), &Expect::Anything, soon())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IsADirectory, "{error}");
        for name in [&b"d/x"[..], b"f", b"f"] {
            writer
                .delete(&path(name), &Expect::Anything, soon())
                .await
                .unwrap();
        }
        writer.remove_dir(&path(b"d"), soon()).await.unwrap();
        assert!(all_names(&dir).await.is_empty());
    }
}

#[tokio::test]
async fn names_change_in_one_step_and_replace_what_may_be_replaced() {
    let server = SERVER.read().await;
    for dir in both(&server, "/names").await {
        let writer = dir.storage.writer().unwrap();
        for name in [&b"f"[..], b"g", b"d/x", b"e/y"] {
            dir.put(name, name).await;
        }
        dir.tell("mkdirs", b"empty", &[]).await;
        let rename =
            async |from: &[u8], to: &[u8]| writer.rename(&path(from), &path(to), soon()).await;
        let before = stat(&*dir.storage, b"f").await.unwrap();
        assert_eq!(rename(b"f", b"g").await.unwrap(), before);
        assert_eq!(content(&*dir.storage, b"g").await, b"f");
        for (from, to, kind) in [
            (&b"f"[..], &b"h"[..], ErrorKind::NotFound),
            (b"g", b"no/g", ErrorKind::NotFound),
            (b"g", b"d", ErrorKind::IsADirectory),
            (b"d", b"g", ErrorKind::NotADirectory),
            (b"d", b"e", ErrorKind::NotEmpty),
            (b"d", b"d/in", ErrorKind::Invalid),
        ] {
            let error = rename(from, to).await.unwrap_err();
            let shown = (from.escape_ascii(), to.escape_ascii());
            assert_eq!(error.kind(), kind, "{} to {}: {error}", shown.0, shown.1);
        }
        assert_eq!(
            rename(b"d", b"empty").await.unwrap().kind,
            NodeKind::Directory
        );
        assert_eq!(content(&*dir.storage, b"empty/x").await, b"d/x");
        rename(b"g", b"g").await.unwrap();
        assert_eq!(all_names(&dir).await, ["e", "empty", "g"]);
    }
}

#[tokio::test]
async fn modes_owners_and_times_are_set_and_copies_have_them_too() {
    let server = SERVER.read().await;
    for dir in both(&server, "/attributes").await {
        let writer = dir.storage.writer().unwrap();
        let (uid, gid) = (
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        );
        let wanted = |mode, uid, gid, mtime_ns| FileAttributes {
            owner: Some(Owner { mode, uid, gid }),
            mtime_ns: Some(mtime_ns),
            xattrs: None,
        };
        let first = wanted(0o640, uid, gid, 1_234_567_890_123_456_789);
        let put = writer
            .put(
                &path(b"f"),
                Bytes::from_static(b"x"),
                &Expect::Absent,
                &first,
                soon(),
            )
            .await
            .unwrap();
        assert_eq!(put, stat(&*dir.storage, b"f").await.unwrap());
        assert_eq!(put.tag.mtime_ns, 1_234_567_890_123_000_000);
        assert_eq!(put.owner, first.owner);
        let copy = writer
            .copy(&path(b"f"), &put.tag, &path(b"g"), &Expect::Absent, soon())
            .await
            .unwrap();
        let beside = (copy.tag.size, copy.tag.mtime_ns, copy.owner);
        assert_eq!(beside, (1, put.tag.mtime_ns, first.owner));
        // The rig's user is a superuser, who may give files away.
        let next = wanted(0o604, 1, 1, 5_000_000);
        let changed = writer
            .set_attributes(&path(b"f"), &put.tag, &next, soon())
            .await
            .unwrap();
        assert_eq!(changed, stat(&*dir.storage, b"f").await.unwrap());
        assert_eq!(
            (changed.owner, changed.tag.mtime_ns),
            (next.owner, 5_000_000)
        );
        let stale = writer
            .set_attributes(&path(b"f"), &put.tag, &first, soon())
            .await;
        assert_eq!(stale.unwrap_err().kind(), ErrorKind::Stale);
        let stale = writer
            .copy(&path(b"f"), &put.tag, &path(b"h"), &Expect::Absent, soon())
            .await;
        assert_eq!(stale.unwrap_err().kind(), ErrorKind::Stale);
        let nobody = wanted(0o604, 4_000_000_000, 1, 5_000_000);
        let error = writer
            .set_attributes(&path(b"f"), &changed.tag, &nobody, soon())
            .await;
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("no user of this machine")
        );
    }
}

#[tokio::test]
async fn what_a_dead_writer_left_is_hidden_and_removed_when_it_is_a_day_old() {
    let server = SERVER.read().await;
    for dir in both(&server, "/left").await {
        let [old, new] = [
            b".forebay-0123456789abcdef0123456789abcdef.part",
            b".forebay-123456789abcdef0123456789abcdef0.part",
        ];
        dir.put(old, b"x").await;
        dir.put(new, b"x").await;
        dir.tell("touch", old, &[b"1234567890123"]).await;
        assert!(list(&*dir.storage, b"").await.unwrap().0.is_empty());
        assert_eq!(
            all_names(&dir).await.len(),
            2,
            "a mount that only reads removes nothing"
        );
        assert_eq!(
            stat(&*dir.storage, new).await.unwrap_err().kind(),
            ErrorKind::NotFound
        );
        let _writer = dir.storage.writer().unwrap();
        assert!(list(&*dir.storage, b"").await.unwrap().0.is_empty());
        assert_eq!(all_names(&dir).await, [std::str::from_utf8(new).unwrap()]);
    }
}

#[tokio::test]
async fn a_clock_that_is_days_ahead_takes_no_file_from_a_writer_that_lives() {
    let server = SERVER.read().await;
    for dir in both(&server, "/days ahead").await {
        let ahead = Arc::new(WrongClock { ahead: 3 * 86_400 });
        let storage = open_by(ahead, dir.storage.uri(), &[]).await.unwrap();
        let dir = Directory { storage, ..dir };
        let [dead, living] = [
            b".forebay-0123456789abcdef0123456789abcdef.part",
            b".forebay-123456789abcdef0123456789abcdef0.part",
        ];
        dir.put(dead, b"x").await;
        dir.put(living, b"x").await;
        dir.tell("touch", dead, &[b"1234567890123"]).await;
        let _writer = dir.storage.writer().unwrap();
        assert!(list(&*dir.storage, b"").await.unwrap().0.is_empty());
        let left = all_names(&dir).await;
        assert_eq!(left, [std::str::from_utf8(living).unwrap()]);
    }
}

#[tokio::test]
async fn who_may_not_write_and_what_is_full_is_said() {
    let server = SERVER.read().await;
    for dir in both(&server, "/refused").await {
        dir.tell("mkdirs", b"closed", &[]).await;
        let mallory = open_at(dir.storage.uri(), &[("user", "mallory")])
            .await
            .unwrap();
        let put = async |storage: &Arc<dyn UnderStorage>, name: &[u8], len| {
            let writer = storage.writer().unwrap();
            let (at, content) = (path(name), bytes(len).into());
            let put = writer.put(&at, content, &Expect::Anything, &KEPT, soon());
            put.await.unwrap_err()
        };
        let error = put(&mallory, b"closed/f", 1).await;
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert!(error.to_string().contains("'user'"), "{error}");
        for (name, names, space) in [("names", "2", "9000000"), ("space", "9", "1048576")] {
            dir.tell("mkdirs", name.as_bytes(), &[]).await;
            dir.tell(
                "quota",
                name.as_bytes(),
                &[names.as_bytes(), space.as_bytes()],
            )
            .await;
            if name == "names" {
                dir.put(b"names/first", b"").await;
            }
            let error = put(&dir.storage, format!("{name}/f").as_bytes(), 2 << 20).await;
            assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{error}");
            assert!(error.to_string().contains("quota of HDFS"), "{error}");
        }
        assert_eq!(list(&*dir.storage, b"names").await.unwrap().0.len(), 1);
        assert!(dir.tell("names", b"space", &[]).await.is_empty());
    }
}

#[tokio::test]
async fn a_name_node_in_safe_mode_takes_no_writes_and_says_so() {
    let server = SERVER.write().await;
    for dir in both(&server, "/safe write").await {
        let writer = dir.storage.writer().unwrap();
        // The first answer of a web service takes long.
        assert!(all_names(&dir).await.is_empty());
        assert!(list(&*dir.storage, b"").await.unwrap().0.is_empty());
        server.change("safe mode").unwrap();
        let deadline = SystemClock.deadline(Duration::from_secs(5));
        let at = path(b"f");
        let put = writer.put(&at, Bytes::new(), &Expect::Anything, &KEPT, deadline);
        let error = put.await.unwrap_err();
        server.change("no safe mode").unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("safe mode"), "{error}");
    }
}

#[tokio::test]
async fn an_hdfs_keeps_every_promise_of_writing() {
    let server = SERVER.read().await;
    for dir in both(&server, "/a place/of %20its own").await {
        conformance::write::run(&dir).await;
    }
}

/// A directory behind HttpFS.
async fn behind_a_gateway(server: &Arc<Hdfs>, dir: &str) -> Directory {
    let gateway = server.start_gateway().unwrap();
    let storage = open_at(&format!("webhdfs://{gateway}{dir}"), &[]).await;
    Directory::with(server, dir, storage.unwrap())
}

/// HttpFS takes no new name that ends with a space or a control character.
struct Gateway(Directory);

#[async_trait]
impl Fixture for Gateway {
    fn storage(&self) -> Arc<dyn UnderStorage> {
        self.0.storage()
    }

    async fn put(&self, path: &[u8], content: &[u8]) {
        self.0.put(path, content).await;
    }

    async fn remove(&self, path: &[u8]) {
        self.0.remove(path).await;
    }

    fn odd_names(&self) -> Vec<Vec<u8>> {
        let mut names = self.0.odd_names();
        names.retain(|name| name.last().is_some_and(|last| *last > b' '));
        names
    }
}

#[tokio::test]
async fn a_gateway_keeps_every_promise_of_writing() {
    let server = SERVER.read().await;
    let dir = behind_a_gateway(&server, "/gateway/of its +own").await;
    conformance::write::run(&Gateway(dir)).await;
}

#[tokio::test]
async fn what_was_set_aside_behind_a_gateway_comes_back_or_makes_way() {
    let server = SERVER.read().await;
    let gateway = behind_a_gateway(&server, "/set aside").await;
    let others = both(&server, "/set aside").await;
    for dir in [&gateway, &others[0], &others[1]] {
        let aside = |digit: char, name: &str| {
            let digits = digit.to_string().repeat(32);
            format!(".forebay-{digits}.of-{name}").into_bytes()
        };
        dir.put(&aside('1', "lost"), b"the only one").await;
        dir.put(&aside('2', "replaced"), b"old").await;
        dir.put(b"replaced", b"new").await;
        let (shown, _) = list(&*dir.storage, b"").await.unwrap();
        assert!(shown.iter().all(|entry| entry.name.as_bytes() != b"lost"));
        let _writer = dir.storage.writer().unwrap();
        list(&*dir.storage, b"").await.unwrap();
        assert_eq!(content(&*dir.storage, b"lost").await, b"the only one");
        assert_eq!(content(&*dir.storage, b"replaced").await, b"new");
        let mut names = all_names(dir).await;
        names.retain(|name| name != "rpc" && name != "web");
        assert_eq!(names, ["lost", "replaced"]);
    }
}

#[tokio::test]
async fn a_file_is_replaced_behind_a_gateway_and_a_directory_in_its_way_is_not() {
    let server = SERVER.read().await;
    let dir = behind_a_gateway(&server, "/replaced behind a gateway").await;
    dir.put(b"f", b"old").await;
    dir.tell("mkdirs", b"d", &[]).await;
    let writer = dir.storage.writer().unwrap();
    let put = async |name: &[u8], bytes: &'static [u8], expect: &Expect| {
        let bytes = Bytes::from_static(bytes);
        writer.put(&path(name), bytes, expect, &KEPT, soon()).await
    };
    let tag = stat(&*dir.storage, b"f").await.unwrap().tag;
    let version = Expect::Version(tag);
    let meta = put(b"f", b"new", &version).await.unwrap();
    assert_eq!(stat(&*dir.storage, b"f").await.unwrap(), meta);
    assert_eq!(content(&*dir.storage, b"f").await, b"new");
    let error = put(b"f", b"late", &version).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
    let error = put(b"f", b"late", &Expect::Absent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    let error = put(b"d", b"x", &Expect::Anything).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IsADirectory, "{error}");
    let error = put(b"a ", b"x", &Expect::Anything).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let long = "x".repeat(255).into_bytes();
    put(&long, b"first", &Expect::Anything).await.unwrap();
    let error = put(&long, b"second", &Expect::Anything).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert_eq!(content(&*dir.storage, &long).await, b"first");
    assert_eq!(all_names(&dir).await.len(), 3, "nothing is left behind");
}
