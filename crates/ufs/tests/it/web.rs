// SPDX-License-Identifier: Apache-2.0
//! Real web servers: nginx, and Python's `http.server`, which knows no ranges.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use testkit::rigs::{Relay, WebServer};
use types::{ByteRange, Clock, ErrorKind, NodeKind, SystemClock};
use ufs::conformance::{self, Fixture, list, odd_names, read, stat};
use ufs::{Settings, UnderStorage, open, probe};

use crate::bad_way;

/// A server of a directory, a relay before it, and the driver behind that.
struct Site {
    relay: Relay,
    server: WebServer,
    storage: Arc<dyn UnderStorage>,
    _dir: TempDir,
}

impl Site {
    async fn new(start: fn(&std::path::Path) -> anyhow::Result<WebServer>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = start(dir.path()).unwrap();
        let relay = Relay::start(&server.endpoint).unwrap();
        let storage = open_site(relay.endpoint(), &[]).await.unwrap();
        Site {
            relay,
            server,
            storage,
            _dir: dir,
        }
    }

    fn file(&self, path: &[u8]) -> PathBuf {
        self.server.data_dir.join(OsStr::from_bytes(path))
    }
}

async fn open_site(url: &str, options: &[(&str, &str)]) -> types::Result<Arc<dyn UnderStorage>> {
    let settings = Settings {
        uri: url.into(),
        options: options
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect(),
        request_timeout: Duration::from_secs(30),
        max_connections: 8,
    };
    open(&settings, Arc::new(SystemClock)).await
}

#[async_trait]
impl Fixture for Site {
    fn storage(&self) -> Arc<dyn UnderStorage> {
        Arc::clone(&self.storage)
    }

    async fn put(&self, path: &[u8], content: &[u8]) {
        let file = self.file(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        // As those do who publish files: a reader sees one or the other.
        let fresh = self.server.data_dir.with_extension("fresh");
        let fresh = fresh.with_extension(format!("{:p}", content.as_ptr()));
        std::fs::write(&fresh, content).unwrap();
        std::fs::rename(&fresh, &file).unwrap();
    }

    async fn remove(&self, path: &[u8]) {
        std::fs::remove_file(self.file(path)).unwrap();
    }

    fn odd_names(&self) -> Vec<Vec<u8>> {
        // nginx does not list names that begin with a dot.
        let listed = |name: &Vec<u8>| !name.starts_with(b".");
        odd_names().into_iter().filter(listed).collect()
    }

    fn looks_per_listed_file(&self) -> u64 {
        1
    }
}

#[tokio::test]
async fn nginx_keeps_every_promise() {
    conformance::run(&Site::new(WebServer::nginx).await).await;
}

#[tokio::test]
async fn every_request_on_the_wire_is_counted() {
    let site = Site::new(WebServer::nginx).await;
    site.put(b"dir/object", b"0123456789").await;
    let storage = &*site.storage;
    let tag = stat(storage, b"dir/object").await.unwrap().tag;
    read(storage, b"dir/object", &tag, ByteRange::new(3, 4))
        .await
        .unwrap();
    list(storage, b"").await.unwrap();
    assert_eq!(
        stat(storage, b"dir").await.unwrap().kind,
        NodeKind::Directory
    );
    stat(storage, b"absent").await.unwrap_err();
    let counts = storage.counters().snapshot();
    assert_eq!(counts.requests(), site.relay.requests());
    assert_eq!(counts.errors, 0, "an absent name is no failure");
}

#[tokio::test]
async fn a_bad_way_is_withstood() {
    let site = Site::new(WebServer::nginx).await;
    bad_way::is_withstood(&site, &site.relay).await;
}

#[tokio::test]
async fn a_server_without_ranges_gives_small_files_and_refuses_large_ones() {
    let site = Site::new(WebServer::python).await;
    let content: Vec<u8> = (0..900_000u32).map(|index| (index % 251) as u8).collect();
    site.put(b"dir/small", &content).await;
    let large = std::fs::File::create(site.file(b"dir/large")).unwrap();
    large.set_len(17 << 20).unwrap();
    let storage = &*site.storage;
    let (entries, _) = list(storage, b"dir").await.unwrap();
    assert_eq!(entries.len(), 2);
    let tag = stat(storage, b"dir/small").await.unwrap().tag;
    assert_eq!(tag.etag, None, "versions by time and length");
    for (offset, len) in [(0, 900_000), (5, 1), (899_999, 1), (300_000, 400_000)] {
        let range = ByteRange::new(offset, len);
        let bytes = read(storage, b"dir/small", &tag, range).await.unwrap();
        let from = usize::try_from(offset).unwrap();
        assert!(bytes == content[from..from + usize::try_from(len).unwrap()]);
    }
    let tag = stat(storage, b"dir/large").await.unwrap().tag;
    let error = read(storage, b"dir/large", &tag, ByteRange::new(5, 1))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("ignored the range"), "{error}");
}

#[tokio::test]
async fn a_change_within_the_second_of_the_servers_clock_is_seen() {
    let site = Site::new(WebServer::python).await;
    let storage = &*site.storage;
    for round in 0..3 {
        site.put(b"file", format!("{round}a").as_bytes()).await;
        let tag = stat(storage, b"file").await.unwrap().tag;
        site.put(b"file", format!("{round}b").as_bytes()).await;
        let error = read(storage, b"file", &tag, ByteRange::new(0, 2))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
    }
}

#[tokio::test]
async fn a_manifest_stands_in_for_index_pages() {
    let site = Site::new(WebServer::nginx).await;
    site.put(b"a b/one", b"0123456789").await;
    site.put(b"two", b"01234").await;
    site.put(b"unlisted", b"0").await;
    let manifest = format!(
        "a%20b/one 10\n{{\"url\":\"{}/two\",\"size\":5,\"path\":\"deep/down/two\"}}\n",
        site.server.endpoint
    );
    site.put(b"manifest", manifest.as_bytes()).await;
    let options = [("manifest", "manifest")];
    let storage = open_site(site.relay.endpoint(), &options).await.unwrap();
    let names = async |dir: &[u8]| -> Vec<String> {
        let (entries, _) = list(&*storage, dir).await.unwrap();
        entries.iter().map(|entry| entry.name.to_string()).collect()
    };
    assert_eq!(names(b"").await, ["a b", "deep"]);
    assert_eq!(names(b"deep/down").await, ["two"]);
    let tag = stat(&*storage, b"deep/down/two").await.unwrap().tag;
    let bytes = read(&*storage, b"deep/down/two", &tag, ByteRange::new(1, 3)).await;
    assert_eq!(bytes.unwrap(), b"123");
    let error = stat(&*storage, b"unlisted").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    // A file of another length is not the one of the manifest.
    site.put(b"two", b"0123456").await;
    let error = read(&*storage, b"deep/down/two", &tag, ByteRange::new(1, 3))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
    // The manifest is asked for again.
    site.put(b"manifest", b"two 7 \n").await;
    assert_eq!(names(b"").await, ["two"]);
}

#[tokio::test]
async fn a_page_that_is_no_index_is_said_by_the_probe() {
    let site = Site::new(WebServer::python).await;
    site.put(b"index.html", b"<html><a href=\"x\">welcome</a></html>")
        .await;
    let deadline = SystemClock.deadline(Duration::from_secs(20));
    let error = probe(&*site.storage, deadline).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("'manifest'"), "{error}");
}
