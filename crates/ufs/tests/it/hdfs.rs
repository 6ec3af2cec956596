// SPDX-License-Identifier: Apache-2.0
//! A real HDFS, over its native protocols.
//!
//! One server serves all tests of the process. Each test has a directory of its own; those that
//! change the servers themselves are alone while they do.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use testkit::rigs::{Hdfs, NameNodes, Relay};
use tokio::sync::RwLock;
use types::idmap::NOBODY_HERE;
use types::{ByteRange, Clock, ErrorKind, NodeKind, ObjectPath, SystemClock};
use ufs::conformance::{self, Fixture, list, read, stat};
use ufs::{UnderStorage, probe};

pub(crate) use crate::wire::open_at;

/// Read by those who use the servers, written by those who change them.
pub(crate) static SERVER: LazyLock<RwLock<Arc<Hdfs>>> =
    LazyLock::new(|| RwLock::new(Arc::new(Hdfs::start(NameNodes::One, &[]).unwrap())));

/// A directory of the server and its driver.
pub(crate) struct Directory {
    pub(crate) server: Arc<Hdfs>,
    /// With a slash at its start and none at its end.
    pub(crate) dir: String,
    pub(crate) storage: Arc<dyn UnderStorage>,
}

impl Directory {
    async fn new(server: &Arc<Hdfs>, dir: &str) -> Self {
        let uri = format!("hdfs://{}{dir}", server.name_nodes[0]);
        let storage = open_at(&uri, &[]).await.unwrap();
        Directory::with(server, dir, storage)
    }

    /// Makes the directory, for a driver of any kind.
    pub(crate) fn with(server: &Arc<Hdfs>, dir: &str, storage: Arc<dyn UnderStorage>) -> Self {
        server.tell(&[b"mkdirs", dir.as_bytes()]).unwrap();
        Directory {
            server: Arc::clone(server),
            dir: dir.into(),
            storage,
        }
    }

    /// Sends a command about a file, on a thread that may block.
    pub(crate) async fn tell(&self, command: &str, path: &[u8], more: &[&[u8]]) -> String {
        let path = [self.dir.as_bytes(), b"/", path].concat();
        let mut words = vec![command.as_bytes().to_vec(), path];
        words.extend(more.iter().map(|word| word.to_vec()));
        let server = Arc::clone(&self.server);
        let tell = move || {
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            server.tell(&words).unwrap()
        };
        tokio::task::spawn_blocking(tell).await.unwrap()
    }
}

pub(crate) fn bytes(len: u32) -> Vec<u8> {
    (0..len).map(|index| (index % 251) as u8).collect()
}

#[async_trait]
impl Fixture for Directory {
    fn storage(&self) -> Arc<dyn UnderStorage> {
        Arc::clone(&self.storage)
    }

    async fn put(&self, path: &[u8], content: &[u8]) {
        self.tell("put", path, &[content]).await;
    }

    async fn put_all(&self, paths: &[String]) {
        let names: Vec<_> = paths.iter().map(String::as_bytes).collect();
        self.tell("fill", b"", &names).await;
    }

    async fn remove(&self, path: &[u8]) {
        self.tell("delete", path, &[]).await;
    }

    fn odd_names(&self) -> Vec<Vec<u8>> {
        // HDFS has no names with a colon, and none that are not Unicode.
        let long = "x".repeat(255);
        let names = [
            " ",
            "a ",
            " a",
            "\na",
            "a\n",
            "\u{1}\u{7f}",
            "%2F",
            "%",
            "a+b",
            "?",
            "#",
            "...",
            "a\\b",
            "\u{e9}\u{1f600}",
            "e\u{301}",
            "-",
            "'\"",
            "!*()'",
            "&amp;",
            "<a>",
            "a=b&c;d",
            "~",
            "*",
            "{a,b}",
            &long,
        ];
        names.iter().map(|name| name.as_bytes().to_vec()).collect()
    }
}

#[tokio::test]
async fn an_hdfs_keeps_every_promise() {
    let server = SERVER.read().await;
    conformance::run(&Directory::new(&server, "/a place/of %20its own").await).await;
}

#[tokio::test]
async fn modes_owners_and_times_are_told() {
    let server = SERVER.read().await;
    let dir = Directory::new(&server, "/owners").await;
    dir.put(b"known", b"x").await;
    dir.put(b"alien", b"x").await;
    dir.tell("chmod", b"known", &[b"640"]).await;
    dir.tell("chown", b"known", &[b"daemon", b"daemon"]).await;
    dir.tell("chown", b"alien", &[b"no-such-user", b"no-such-group"])
        .await;
    dir.tell("touch", b"known", &[b"1234567890123"]).await;
    let meta = stat(&*dir.storage, b"known").await.unwrap();
    let owner = meta.owner.unwrap();
    assert_eq!((owner.mode, owner.uid, owner.gid), (0o640, 1, 1));
    assert_eq!(meta.tag.mtime_ns, 1_234_567_890_123_000_000);
    let alien = stat(&*dir.storage, b"alien").await.unwrap().owner.unwrap();
    assert_eq!((alien.uid, alien.gid), (NOBODY_HERE, NOBODY_HERE));
    let (entries, _) = list(&*dir.storage, b"").await.unwrap();
    assert_eq!(entries[1].meta, meta);
}

#[tokio::test]
async fn a_file_that_changes_during_a_read_is_stale_and_never_a_mixture() {
    let server = SERVER.read().await;
    let dir = Directory::new(&server, "/changes").await;
    let (old, len) = (bytes(9 << 20), 9 << 20);
    let other = vec![255; 9 << 20];
    for change in ["put", "truncate", "truncate and append", "delete", "rename"] {
        dir.put(b"file", &old).await;
        dir.put(b"other", &other).await;
        let tag = stat(&*dir.storage, b"file").await.unwrap().tag;
        let path = ObjectPath::parse(b"file").unwrap();
        let deadline = SystemClock.deadline(Duration::from_secs(30));
        let range = ByteRange::new(0, len);
        let mut stream = dir
            .storage
            .read(&path, &tag, range, deadline)
            .await
            .unwrap();
        let mut seen = stream.next().await.unwrap().unwrap().to_vec();
        match change {
            "put" => dir.put(b"file", &other).await,
            "truncate" => drop(dir.tell("truncate", b"file", &[b"8388608"]).await),
            "truncate and append" => {
                dir.tell("truncate", b"file", &[b"8388608"]).await;
                dir.tell("append", b"file", &[&other[..1 << 20]]).await;
            }
            "delete" => dir.remove(b"file").await,
            _ => drop(dir.tell("rename", b"other", &[b"/changes/file"]).await),
        }
        let end = loop {
            match stream.next().await {
                Some(Ok(bytes)) => seen.extend_from_slice(&bytes),
                Some(Err(error)) => break Some(error),
                None => break None,
            }
        };
        assert!(
            seen == old[..seen.len()],
            "{change}: bytes of another version"
        );
        let error = end.unwrap_or_else(|| panic!("{change}: no error"));
        assert_eq!(error.kind(), ErrorKind::Stale, "{change}: {error}");
        let error = read(&*dir.storage, b"file", &tag, ByteRange::new(0, 1))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stale, "{change}: {error}");
    }
}

#[tokio::test]
async fn a_change_of_the_same_size_right_after_a_look_is_seen() {
    let server = SERVER.read().await;
    sees_changes_of_the_same_size(&Directory::new(&server, "/same size").await).await;
}

/// Changes a file as soon as it was looked at, in the same millisecond if it can be.
pub(crate) async fn sees_changes_of_the_same_size(dir: &Directory) {
    for _ in 0..20 {
        dir.put(b"file", b"old").await;
        let looked = stat(&*dir.storage, b"file").await.unwrap().tag;
        let (listed, _) = list(&*dir.storage, b"").await.unwrap();
        dir.put(b"file", b"new").await;
        for tag in [&looked, &listed[0].meta.tag] {
            let error = read(&*dir.storage, b"file", tag, ByteRange::new(0, 3))
                .await
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
        }
    }
}

#[tokio::test]
async fn a_file_being_written_is_read_as_far_as_the_name_node_knows_it() {
    let server = SERVER.read().await;
    let dir = Directory::new(&server, "/written").await;
    // Two whole blocks, and the start of a third.
    let content = bytes((2 << 20) + 5);
    dir.tell("hold", b"file", &[&content]).await;
    let open = stat(&*dir.storage, b"file").await.unwrap();
    assert!(open.tag.size <= content.len() as u64);
    let known = ByteRange::new(0, open.tag.size);
    match read(&*dir.storage, b"file", &open.tag, known).await {
        Ok(bytes) => assert!(bytes == content[..bytes.len()]),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "{error}"),
    }
    dir.tell("close", b"file", &[]).await;
    let closed = stat(&*dir.storage, b"file").await.unwrap().tag;
    assert_eq!(closed.size, content.len() as u64);
    let error = read(&*dir.storage, b"file", &open.tag, ByteRange::new(0, 1))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
    let whole = ByteRange::new(0, closed.size);
    assert!(read(&*dir.storage, b"file", &closed, whole).await.unwrap() == content);
}

#[tokio::test]
async fn a_data_node_that_dies_during_a_read_is_said_in_time_and_the_storage_lives_on() {
    let server = SERVER.write().await;
    let dir = Directory::new(&server, "/data node").await;
    let content = bytes(9 << 20);
    dir.put(b"file", &content).await;
    let tag = stat(&*dir.storage, b"file").await.unwrap().tag;
    let path = ObjectPath::parse(b"file").unwrap();
    let started = SystemClock.now();
    let deadline = SystemClock.deadline(Duration::from_secs(5));
    let whole = ByteRange::new(0, tag.size);
    let mut stream = dir
        .storage
        .read(&path, &tag, whole, deadline)
        .await
        .unwrap();
    let first = stream.next().await.unwrap().unwrap();
    server.change("no data node").unwrap();
    let mut seen = first.to_vec();
    let error = loop {
        match stream.next().await {
            Some(Ok(bytes)) => seen.extend_from_slice(&bytes),
            Some(Err(error)) => break error,
            None => panic!("read to the end without a data node"),
        }
    };
    assert!(seen == content[..seen.len()]);
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("data node"), "{error}");
    assert!(SystemClock.now() - started < Duration::from_secs(10));
    // Names do not need it.
    assert_eq!(stat(&*dir.storage, b"file").await.unwrap().tag, tag);
    server.change("data node").unwrap();
    assert!(read(&*dir.storage, b"file", &tag, whole).await.unwrap() == content);
}

#[tokio::test]
async fn a_name_node_in_safe_mode_is_read_from() {
    let server = SERVER.write().await;
    let dir = Directory::new(&server, "/safe").await;
    dir.put(b"file", b"12345").await;
    server.change("safe mode").unwrap();
    let tag = stat(&*dir.storage, b"file").await.unwrap().tag;
    let bytes = read(&*dir.storage, b"file", &tag, ByteRange::new(1, 3))
        .await
        .unwrap();
    server.change("no safe mode").unwrap();
    assert_eq!(bytes, b"234");
}

#[tokio::test]
async fn what_is_wrong_with_a_mount_is_said_by_the_probe() {
    let server = SERVER.read().await;
    let dir = Directory::new(&server, "/probe").await;
    dir.put(b"secret/file", b"x").await;
    dir.tell("chmod", b"secret", &[b"700"]).await;
    dir.tell("chown", b"secret", &[b"alice", b"staff"]).await;
    let (rpc, web) = (&server.name_nodes[0], &server.web[0]);
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    type Options = &'static [(&'static str, &'static str)];
    let cases: [(String, Options, ErrorKind, &str); 7] = [
        (
            format!("{rpc}/probe"),
            &[("user", "bob")],
            ErrorKind::Internal,
            "",
        ),
        (
            format!("{rpc}/probe/secret"),
            &[("user", "alice")],
            ErrorKind::Internal,
            "",
        ),
        (
            format!("{rpc}/probe/secret"),
            &[("user", "mallory")],
            ErrorKind::PermissionDenied,
            "Permission denied: user=mallory",
        ),
        (
            format!("{rpc}/probe/absent"),
            &[],
            ErrorKind::NotFound,
            "no such file or directory",
        ),
        (
            format!("{rpc}/probe/secret/file"),
            &[],
            ErrorKind::NotADirectory,
            "it is a file",
        ),
        (
            format!("{free}/probe"),
            &[],
            ErrorKind::Unavailable,
            "is right and up",
        ),
        (
            format!("{web}/probe"),
            &[],
            ErrorKind::Unavailable,
            "RPC port",
        ),
    ];
    for (place, options, kind, advice) in cases {
        let probed = probed(&place, options).await;
        match probed {
            Ok(()) => assert_eq!(kind, ErrorKind::Internal, "{place} {options:?} passed"),
            Err(error) => {
                let text = error.to_string();
                assert_eq!(error.kind(), kind, "{text}");
                assert!(
                    text.starts_with(&format!("reach hdfs://{place}/")),
                    "{text}"
                );
                assert!(text.contains(advice), "{text}");
            }
        }
    }
}

/// Probes a place, which takes no long time.
async fn probed(place: &str, options: &[(&str, &str)]) -> types::Result<()> {
    let storage = open_at(&format!("hdfs://{place}"), options).await.unwrap();
    let started = SystemClock.now();
    let probed = probe(&*storage, SystemClock.deadline(Duration::from_secs(30))).await;
    assert!(
        SystemClock.now() - started < Duration::from_secs(10),
        "{place}"
    );
    probed
}

#[tokio::test]
async fn what_a_user_may_not_see_is_denied() {
    let server = SERVER.read().await;
    let dir = Directory::new(&server, "/denied").await;
    dir.put(b"secret/file", b"x").await;
    dir.tell("chmod", b"secret", &[b"700"]).await;
    let uri = format!("hdfs://{}/denied", server.name_nodes[0]);
    let storage = open_at(&uri, &[("user", "mallory")]).await.unwrap();
    let tag = stat(&*dir.storage, b"secret/file").await.unwrap().tag;
    for error in [
        stat(&*storage, b"secret/file").await.unwrap_err(),
        list(&*storage, b"secret").await.unwrap_err(),
        read(&*storage, b"secret/file", &tag, ByteRange::new(0, 1))
            .await
            .unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert!(error.to_string().contains("the option 'user'"), "{error}");
    }
}

#[tokio::test]
async fn a_name_node_that_is_off_or_silent_fails_in_time_and_is_used_again_after() {
    let server = SERVER.read().await;
    let relay = Relay::start(&format!("http://{}", server.name_nodes[0])).unwrap();
    let address = relay.endpoint().strip_prefix("http://").unwrap();
    let storage = open_at(&format!("hdfs://{address}/silent"), &[])
        .await
        .unwrap();
    let dir = Directory::with(&server, "/silent", storage);
    fails_in_time_and_is_used_again(&dir, &relay).await;
    assert!(dir.storage.counters().snapshot().errors > 0);
}

#[tokio::test]
async fn a_read_that_is_dropped_gives_its_connection_back() {
    let server = SERVER.read().await;
    let dir = Directory::new(&server, "/dropped").await;
    dir.put(b"file", &bytes(5 << 20)).await;
    let tag = stat(&*dir.storage, b"file").await.unwrap().tag;
    let path = ObjectPath::parse(b"file").unwrap();
    // More reads than connections.
    for _ in 0..12 {
        let deadline = SystemClock.deadline(Duration::from_secs(10));
        let range = ByteRange::new(0, tag.size);
        let mut stream = dir
            .storage
            .read(&path, &tag, range, deadline)
            .await
            .unwrap();
        assert!(stream.next().await.unwrap().is_ok());
    }
    assert_eq!(
        stat(&*dir.storage, b"").await.unwrap().kind,
        NodeKind::Directory
    );
}

#[tokio::test]
async fn the_other_name_node_of_a_pair_is_found() {
    let server = Arc::new(Hdfs::start(NameNodes::Pair, &[]).unwrap());
    let conf = tempfile::tempdir().unwrap();
    let property = |name: &str, value: &str| {
        format!("<property><name>{name}</name><value>{value}</value></property>")
    };
    let site = [
        property("fs.defaultFS", "hdfs://rig"),
        property("dfs.ha.namenodes.rig", "nn1, nn2"),
        property("dfs.namenode.rpc-address.rig.nn1", &server.name_nodes[0]),
        property("dfs.namenode.rpc-address.rig.nn2", &server.name_nodes[1]),
    ];
    let site = format!("<configuration>{}</configuration>", site.concat());
    std::fs::write(conf.path().join("hdfs-site.xml"), site).unwrap();
    let conf = conf.path().to_str().unwrap();
    let both = server.name_nodes.join(",");
    let storage = open_at("hdfs:///pair", &[("hadoop_conf_dir", conf)])
        .await
        .unwrap();
    let named = open_at("hdfs://other/pair", &[("name_node", &both)])
        .await
        .unwrap();
    assert_eq!(storage.uri(), "hdfs://rig/pair/");
    let dir = Directory::with(&server, "/pair", storage);
    let content = bytes(3_000_000);
    dir.put(b"file", &content).await;
    let tag = stat(&*dir.storage, b"file").await.unwrap().tag;
    for _ in 0..2 {
        server.change("other name node").unwrap();
        for storage in [&dir.storage, &named] {
            assert_eq!(stat(&**storage, b"file").await.unwrap().tag, tag);
            let whole = ByteRange::new(0, tag.size);
            assert!(read(&**storage, b"file", &tag, whole).await.unwrap() == content);
        }
    }
    // One that is a standby and alone is not waited for longer than the deadline.
    let standby = open_at(&format!("hdfs://{}/pair", server.name_nodes[1]), &[])
        .await
        .unwrap();
    let deadline = SystemClock.deadline(Duration::from_secs(1));
    let error = standby
        .stat(&ObjectPath::root(), deadline)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("standby"), "{error}");
}

/// Switches the way to a name node off, and makes it silent.
pub(crate) async fn fails_in_time_and_is_used_again(dir: &Directory, relay: &Relay) {
    dir.put(b"file", b"0123456789").await;
    let tag = stat(&*dir.storage, b"file").await.unwrap().tag;
    let path = ObjectPath::parse(b"file").unwrap();
    for kind in [ErrorKind::Unavailable, ErrorKind::Timeout] {
        match kind {
            ErrorKind::Timeout => relay.black_hole(),
            _ => relay.switch_off(),
        }
        let started = SystemClock.now();
        let deadline = SystemClock.deadline(Duration::from_millis(600));
        let error = dir.storage.stat(&path, deadline).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(SystemClock.now() - started < Duration::from_secs(3));
        relay.switch_on();
        let bytes = read(&*dir.storage, b"file", &tag, ByteRange::new(0, 10))
            .await
            .unwrap();
        assert_eq!(bytes, b"0123456789");
    }
}
