// SPDX-License-Identifier: Apache-2.0
//! A real HDFS, over its web service.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use testkit::rigs::{Hdfs, NameNodes, Relay, Tls};
use types::{ByteRange, Clock, ErrorKind, ObjectPath, SystemClock};
use ufs::conformance::{self, Fixture, list, read, stat};
use ufs::probe;

use crate::bad_way;
use crate::hdfs::{
    Directory, SERVER, bytes, fails_in_time_and_is_used_again, sees_changes_of_the_same_size,
};
use crate::wire::open_at;

async fn directory(server: &Arc<Hdfs>, dir: &str) -> Directory {
    let uri = format!("webhdfs://{}{dir}", server.web[0]);
    Directory::with(server, dir, open_at(&uri, &[]).await.unwrap())
}

#[tokio::test]
async fn a_web_service_keeps_every_promise() {
    let server = SERVER.read().await;
    conformance::run(&directory(&server, "/web place/of %20its +own").await).await;
}

#[tokio::test]
async fn a_gateway_keeps_every_promise() {
    let server = SERVER.read().await;
    let gateway = server.start_gateway().unwrap();
    let place = "/gateway place/of %20its +own";
    let uri = format!("webhdfs://{gateway}{place}");
    let storage = open_at(&uri, &[]).await.unwrap();
    conformance::run(&Directory::with(&server, place, storage)).await;
}

#[tokio::test]
async fn rpc_and_web_tell_the_same_of_a_file() {
    let server = SERVER.read().await;
    let web = directory(&server, "/both").await;
    web.put(b"file", b"x").await;
    web.tell("chmod", b"file", &[b"640"]).await;
    web.tell("chown", b"file", &[b"daemon", b"daemon"]).await;
    web.tell("touch", b"file", &[b"1234567890123"]).await;
    let rpc = open_at(&format!("hdfs://{}/both", server.name_nodes[0]), &[])
        .await
        .unwrap();
    let (one, other) = (
        stat(&*web.storage, b"file").await.unwrap(),
        stat(&*rpc, b"file").await.unwrap(),
    );
    assert_eq!((one.kind, one.owner), (other.kind, other.owner));
    assert_eq!(
        (one.tag.mtime_ns, one.tag.size),
        (other.tag.mtime_ns, other.tag.size)
    );
}

#[tokio::test]
async fn a_file_renamed_over_another_of_the_same_time_and_length_is_another() {
    let server = SERVER.read().await;
    let dir = directory(&server, "/renamed").await;
    for (name, content) in [(b"a", b"old"), (b"b", b"new")] {
        dir.put(name, content).await;
        dir.tell("touch", name, &[b"1234567890123"]).await;
    }
    let tag = stat(&*dir.storage, b"a").await.unwrap().tag;
    dir.tell("rename", b"b", &[b"/renamed/a"]).await;
    let error = read(&*dir.storage, b"a", &tag, ByteRange::new(0, 3))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
}

#[tokio::test]
async fn a_change_of_the_same_size_right_after_a_look_is_seen() {
    let server = SERVER.read().await;
    sees_changes_of_the_same_size(&directory(&server, "/web same size").await).await;
}

#[tokio::test]
async fn a_file_that_changes_during_a_read_is_stale_and_never_a_mixture() {
    let server = SERVER.read().await;
    let dir = directory(&server, "/web changes").await;
    let (old, len) = (bytes(9 << 20), 9 << 20);
    for change in ["put", "truncate", "delete"] {
        dir.put(b"file", &old).await;
        let tag = stat(&*dir.storage, b"file").await.unwrap().tag;
        let path = ObjectPath::parse(b"file").unwrap();
        let deadline = SystemClock.deadline(Duration::from_secs(30));
        let range = ByteRange::new(0, len);
        let mut stream = dir
            .storage
            .read(&path, &tag, range, deadline)
            .await
            .unwrap();
        let first = stream.next().await.unwrap().unwrap();
        assert!(first == old[..first.len()], "{change}");
        match change {
            "put" => dir.put(b"file", &vec![255; 9 << 20]).await,
            "truncate" => drop(dir.tell("truncate", b"file", &[b"1048576"]).await),
            _ => dir.remove(b"file").await,
        }
        let error = stream.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stale, "{change}: {error}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_mount_is_said_by_the_probe() {
    let server = SERVER.read().await;
    let dir = directory(&server, "/web probe").await;
    dir.put(b"secret/file", b"x").await;
    dir.tell("chmod", b"secret", &[b"700"]).await;
    let (web, rpc) = (&server.web[0], &server.name_nodes[0]);
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    type Options = &'static [(&'static str, &'static str)];
    let cases: [(String, Options, ErrorKind, &str); 5] = [
        (
            format!("webhdfs://{web}/web probe/secret"),
            &[("user", "mallory")],
            ErrorKind::PermissionDenied,
            "user=mallory",
        ),
        (
            format!("webhdfs://{web}/absent"),
            &[],
            ErrorKind::NotFound,
            "no such file or directory",
        ),
        (
            format!("webhdfs://{web}/web probe/secret/file"),
            &[],
            ErrorKind::NotADirectory,
            "it is a file",
        ),
        (
            format!("webhdfs://{free}/"),
            &[],
            ErrorKind::Unavailable,
            "is right and up",
        ),
        (
            format!("webhdfs://{rpc}/"),
            &[],
            ErrorKind::Invalid,
            "speaks WebHDFS",
        ),
    ];
    for (uri, options, kind, advice) in cases {
        let storage = open_at(&uri, options).await.unwrap();
        let started = SystemClock.now();
        let deadline = SystemClock.deadline(Duration::from_secs(30));
        let error = probe(&*storage, deadline).await.unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), kind, "{text}");
        assert!(text.contains(advice), "{text}");
        assert!(
            SystemClock.now() - started < Duration::from_secs(10),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_user_reads_what_others_wrote() {
    let server = SERVER.read().await;
    let dir = directory(&server, "/web user").await;
    dir.put(b"file", b"12345").await;
    let uri = format!("webhdfs://{}/web user", server.web[0]);
    let storage = open_at(&uri, &[("user", "alice")]).await.unwrap();
    let tag = stat(&*storage, b"file").await.unwrap().tag;
    assert_eq!(
        read(&*storage, b"file", &tag, ByteRange::new(1, 3))
            .await
            .unwrap(),
        b"234"
    );
}

#[tokio::test]
async fn a_data_node_that_is_away_is_said_in_time_and_the_storage_lives_on() {
    let server = SERVER.write().await;
    let dir = directory(&server, "/web data node").await;
    let content = bytes(9 << 20);
    dir.put(b"file", &content).await;
    let tag = stat(&*dir.storage, b"file").await.unwrap().tag;
    let path = ObjectPath::parse(b"file").unwrap();
    let started = SystemClock.now();
    let whole = ByteRange::new(0, tag.size);
    let deadline = SystemClock.deadline(Duration::from_secs(3));
    let mut stream = dir
        .storage
        .read(&path, &tag, whole, deadline)
        .await
        .unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    server.change("no data node").unwrap();
    let error = stream.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(SystemClock.now() - started < Duration::from_secs(6));
    assert_eq!(list(&*dir.storage, b"").await.unwrap().0.len(), 1);
    server.change("data node").unwrap();
    assert!(read(&*dir.storage, b"file", &tag, whole).await.unwrap() == content);
}

#[tokio::test]
async fn a_service_that_is_off_or_silent_fails_in_time_and_is_used_again_after() {
    let server = SERVER.read().await;
    let relay = Relay::start(&format!("http://{}", server.web[0])).unwrap();
    let address = relay.endpoint().strip_prefix("http://").unwrap();
    let storage = open_at(&format!("webhdfs://{address}/web silent"), &[])
        .await
        .unwrap();
    let dir = Directory::with(&server, "/web silent", storage);
    fails_in_time_and_is_used_again(&dir, &relay).await;
}

#[tokio::test]
async fn a_bad_way_is_withstood() {
    let server = SERVER.read().await;
    let relay = Relay::start(&format!("http://{}", server.web[0])).unwrap();
    let address = relay.endpoint().strip_prefix("http://").unwrap();
    let storage = open_at(&format!("webhdfs://{address}/web bad way"), &[]).await;
    let dir = Directory::with(&server, "/web bad way", storage.unwrap());
    bad_way::is_withstood(&dir, &relay).await;
}

#[tokio::test]
async fn the_active_one_of_a_pair_is_found() {
    let server = Arc::new(Hdfs::start(NameNodes::Pair, &[]).unwrap());
    let both = server.web.join(",");
    let storage = open_at("webhdfs://rig/pair", &[("name_node", &both)])
        .await
        .unwrap();
    let dir = Directory::with(&server, "/pair", storage);
    dir.put(b"file", b"12345").await;
    let tag = stat(&*dir.storage, b"file").await.unwrap().tag;
    for _ in 0..2 {
        server.change("other name node").unwrap();
        let bytes = read(&*dir.storage, b"file", &tag, ByteRange::new(0, 5))
            .await
            .unwrap();
        assert_eq!(bytes, b"12345");
    }
}

#[tokio::test]
async fn a_web_service_with_tls_is_read_when_its_certificate_is_trusted() {
    let keys = tempfile::tempdir().unwrap();
    let tls = Tls::new(keys.path()).unwrap();
    let server = Arc::new(Hdfs::start(NameNodes::One, &tls.properties()).unwrap());
    let uri = format!("swebhdfs://{}/tls", server.web[0]);
    let bundle = tls.certificate.to_str().unwrap();
    let storage = open_at(&uri, &[("ca_bundle", bundle)]).await.unwrap();
    let dir = Directory::with(&server, "/tls", storage);
    let content = bytes(5 << 20);
    dir.put(b"file", &content).await;
    let tag = stat(&*dir.storage, b"file").await.unwrap().tag;
    let whole = ByteRange::new(0, tag.size);
    assert!(read(&*dir.storage, b"file", &tag, whole).await.unwrap() == content);
    assert_eq!(list(&*dir.storage, b"").await.unwrap().0.len(), 1);
    let plain = uri.replace("swebhdfs:", "webhdfs:");
    for (uri, kind, advice) in [
        (uri, ErrorKind::PermissionDenied, "'ca_bundle'"),
        (plain, ErrorKind::Unavailable, "is right and up"),
    ] {
        let storage = open_at(&uri, &[]).await.unwrap();
        let deadline = SystemClock.deadline(Duration::from_secs(10));
        let error = probe(&*storage, deadline).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(advice), "{error}");
    }
}
