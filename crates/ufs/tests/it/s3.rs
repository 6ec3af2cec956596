// SPDX-License-Identifier: Apache-2.0
//! A real S3 server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqsign_aws_v4::{Credential, RequestSigner, StaticCredentialProvider};
use reqsign_core::{Context, Signer};
use tempfile::TempDir;
use testkit::rigs::{Relay, VersityGw};
use types::{ByteRange, Clock, ErrorKind, SystemClock};
use ufs::conformance::{self, Fixture, list, read, stat};
use ufs::{Settings, UnderStorage, open, probe};

use crate::wire::{encode_path, plain_client};

/// A server with a bucket, a relay before it, and the driver behind that.
struct Bucket {
    relay: Relay,
    server: VersityGw,
    signer: Signer<Credential>,
    client: reqwest::Client,
    storage: Arc<dyn UnderStorage>,
    // Last, so that the server is gone before its directory.
    _dir: TempDir,
}

impl Bucket {
    async fn new(prefix: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = VersityGw::start(dir.path()).unwrap();
        server.create_bucket("bucket").unwrap();
        let relay = Relay::start(&server.endpoint).unwrap();
        let place = format!("bucket/{prefix}");
        let storage = open_bucket(&server, relay.endpoint(), &place, &[])
            .await
            .unwrap();
        let keys = StaticCredentialProvider::new(&server.access_key, &server.secret_key);
        let signer = Signer::new(
            Context::new(),
            keys,
            RequestSigner::new("s3", &server.region),
        );
        let client = plain_client();
        Bucket {
            relay,
            server,
            signer,
            client,
            storage,
            _dir: dir,
        }
    }

    async fn send(&self, method: &str, path: &[u8], content: &[u8]) {
        let base = self.storage.uri().strip_prefix("s3://").unwrap();
        let key = format!("{base}{}", std::str::from_utf8(path).unwrap());
        let url = format!("{}/{}", self.server.endpoint, encode_path(&key));
        let request = http::Request::builder()
            .method(method)
            .uri(&url)
            .body(())
            .unwrap();
        let (mut parts, ()) = request.into_parts();
        self.signer.sign(&mut parts, None).await.unwrap();
        let request = self
            .client
            .request(parts.method, &url)
            .headers(parts.headers);
        let answer = request.body(content.to_vec()).send().await.unwrap();
        assert!(
            answer.status().is_success(),
            "{method} {key}: {}",
            answer.text().await.unwrap()
        );
    }
}

async fn open_bucket(
    server: &VersityGw,
    endpoint: &str,
    place: &str,
    changes: &[(&str, &str)],
) -> types::Result<Arc<dyn UnderStorage>> {
    let mut options = BTreeMap::from([
        ("endpoint".to_string(), endpoint.to_string()),
        ("region".into(), server.region.clone()),
        ("access_key_id".into(), server.access_key.clone()),
        ("secret_access_key".into(), server.secret_key.clone()),
    ]);
    options.extend(
        changes
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into())),
    );
    let settings = Settings {
        uri: format!("s3://{place}"),
        options,
        request_timeout: Duration::from_secs(10),
        max_connections: 8,
    };
    open(&settings, Arc::new(SystemClock)).await
}

#[async_trait]
impl Fixture for Bucket {
    fn storage(&self) -> Arc<dyn UnderStorage> {
        Arc::clone(&self.storage)
    }

    async fn put(&self, path: &[u8], content: &[u8]) {
        self.send("PUT", path, content).await;
    }

    async fn remove(&self, path: &[u8]) {
        self.send("DELETE", path, b"").await;
    }

    fn odd_names(&self) -> Vec<Vec<u8>> {
        // Control characters are tested against the lying server: this one writes them wrongly.
        let names = [
            " ",
            "a ",
            " a",
            "%2F",
            "%",
            "a+b",
            "?",
            "#",
            "...",
            "\u{e9}\u{1f600}",
            "a\\b",
            "-",
            "'\"",
            "!*()'",
            "&amp;",
            "<a>",
            "a=b&c",
            "~",
        ];
        names.iter().map(|name| name.as_bytes().to_vec()).collect()
    }
}

#[tokio::test]
async fn a_bucket_keeps_every_promise() {
    conformance::run(&Bucket::new("").await).await;
}

#[tokio::test]
async fn a_prefix_of_a_bucket_keeps_every_promise() {
    conformance::run(&Bucket::new("a prefix/of +it").await).await;
}

#[tokio::test]
async fn every_request_on_the_wire_is_counted() {
    let bucket = Bucket::new("").await;
    bucket.put(b"dir/object", b"0123456789").await;
    let tag = stat(&*bucket.storage, b"dir/object").await.unwrap().tag;
    read(&*bucket.storage, b"dir/object", &tag, ByteRange::new(3, 4))
        .await
        .unwrap();
    list(&*bucket.storage, b"").await.unwrap();
    stat(&*bucket.storage, b"dir").await.unwrap();
    stat(&*bucket.storage, b"absent").await.unwrap_err();
    let counts = bucket.storage.counters().snapshot();
    assert_eq!((counts.head, counts.get, counts.list), (3, 1, 3));
    assert_eq!(counts.requests(), bucket.relay.requests());
    assert_eq!(counts.errors, 0, "an absent name is no failure");
}

#[tokio::test]
async fn what_is_wrong_with_a_mount_is_said_by_the_probe() {
    let bucket = Bucket::new("").await;
    let server = &bucket.server;
    type Case = (&'static str, Changes, ErrorKind, &'static str);
    type Changes = &'static [(&'static str, &'static str)];
    let cases: [Case; 4] = [
        (
            "absent",
            &[],
            ErrorKind::NotFound,
            "bucket 'absent' does not exist at http://127",
        ),
        (
            "bucket",
            &[("secret_access_key", "hunter2")],
            ErrorKind::PermissionDenied,
            "secret",
        ),
        (
            "bucket",
            &[("access_key_id", "unknown")],
            ErrorKind::PermissionDenied,
            "access key",
        ),
        (
            "bucket",
            &[("region", "eu-west-9")],
            ErrorKind::Invalid,
            "region",
        ),
    ];
    for (place, changes, kind, advice) in cases {
        let storage = open_bucket(server, &server.endpoint, place, changes)
            .await
            .unwrap();
        let deadline = SystemClock.deadline(Duration::from_secs(10));
        let error = probe(&*storage, deadline).await.unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), kind, "{text}");
        assert!(text.starts_with(&format!("reach s3://{place}/")), "{text}");
        assert!(text.contains(advice), "{text}");
        assert!(
            !text.contains("hunter2") && !format!("{storage:?}").contains("hunter2"),
            "{text}"
        );
        assert_eq!(
            storage.counters().snapshot().requests(),
            1,
            "not sent again"
        );
    }
}

#[tokio::test]
async fn an_endpoint_that_takes_no_connection_is_said_at_once() {
    let bucket = Bucket::new("").await;
    bucket.relay.switch_off();
    for endpoint in [bucket.relay.endpoint(), "http://no-such-host.invalid"] {
        let storage = open_bucket(&bucket.server, endpoint, "bucket", &[])
            .await
            .unwrap();
        let started = SystemClock.now();
        let deadline = SystemClock.deadline(Duration::from_secs(60));
        let error = probe(&*storage, deadline).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(
            error
                .to_string()
                .contains(&format!("check that {endpoint} is right and up"))
        );
        assert!(
            SystemClock.now() - started < Duration::from_secs(30),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_storage_that_is_off_or_silent_fails_in_time_and_is_used_again_after() {
    let bucket = Bucket::new("").await;
    bucket.put(b"object", b"0123456789").await;
    let tag = stat(&*bucket.storage, b"object").await.unwrap().tag;
    let range = ByteRange::new(0, 10);
    let path = types::ObjectPath::parse(b"object").unwrap();
    for kind in [ErrorKind::Unavailable, ErrorKind::Timeout] {
        match kind {
            ErrorKind::Timeout => bucket.relay.black_hole(),
            _ => bucket.relay.switch_off(),
        }
        let started = SystemClock.now();
        let deadline = SystemClock.deadline(Duration::from_millis(600));
        let read_now = bucket.storage.read(&path, &tag, range, deadline).await;
        let error = read_now.err().unwrap();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(SystemClock.now() - started < Duration::from_secs(3));
        bucket.relay.switch_on();
        assert_eq!(
            read(&*bucket.storage, b"object", &tag, range)
                .await
                .unwrap(),
            b"0123456789"
        );
    }
    assert!(bucket.storage.counters().snapshot().retries > 0);
}

#[tokio::test]
async fn an_answer_that_is_cut_is_resumed_where_it_broke() {
    let bucket = Bucket::new("").await;
    let content: Vec<u8> = (0..3_000_000u32).map(|index| (index % 253) as u8).collect();
    bucket.put(b"object", &content).await;
    let tag = stat(&*bucket.storage, b"object").await.unwrap().tag;
    bucket.relay.cut_after(Some(700_000));
    let whole = ByteRange::new(0, tag.size);
    let bytes = read(&*bucket.storage, b"object", &tag, whole)
        .await
        .unwrap();
    assert!(bytes == content);
    let counts = bucket.storage.counters().snapshot();
    assert!(counts.retries >= 4, "{counts:?}");
    assert_eq!(counts.get, counts.retries + 1);
    assert_eq!(counts.bytes_read, 3_000_000);
}

#[tokio::test]
async fn latency_and_bandwidth_of_the_relay_are_what_was_set() {
    let bucket = Bucket::new("").await;
    bucket.put(b"object", &vec![7; 8_000_000]).await;
    let tag = stat(&*bucket.storage, b"object").await.unwrap().tag;
    bucket.relay.set_latency(Duration::from_millis(40));
    let started = SystemClock.now();
    for _ in 0..5 {
        stat(&*bucket.storage, b"object").await.unwrap();
    }
    let each = (SystemClock.now() - started) / 5;
    assert!(
        each >= Duration::from_millis(40) && each < Duration::from_millis(80),
        "{each:?}"
    );
    bucket.relay.set_bandwidth(Some(20_000_000));
    let started = SystemClock.now();
    let half = ByteRange::new(0, 4_000_000);
    let rest = ByteRange::new(4_000_000, 4_000_000);
    let (one, other) = futures::join!(
        read(&*bucket.storage, b"object", &tag, half),
        read(&*bucket.storage, b"object", &tag, rest)
    );
    assert_eq!(
        (one.unwrap().len(), other.unwrap().len()),
        (4_000_000, 4_000_000)
    );
    let took = (SystemClock.now() - started).as_secs_f64();
    assert!((0.4..0.8).contains(&took), "8 MB at 20 MB/s took {took} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_buckets_are_directories() {
    let bucket = Bucket::new("").await;
    bucket.server.create_bucket("other.with-dots").unwrap();
    bucket.put(b"dir/file", b"12345").await;
    let all = open_bucket(&bucket.server, bucket.relay.endpoint(), "*", &[]);
    let all = all.await.unwrap();
    let deadline = SystemClock.deadline(Duration::from_secs(10));
    probe(&*all, deadline).await.unwrap();
    let names = async |dir: &[u8]| {
        let (entries, _) = list(&*all, dir).await.unwrap();
        let names = entries.iter().map(|entry| entry.name.to_string());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(b"").await, ["bucket", "other.with-dots"]);
    assert_eq!(names(b"bucket").await, ["dir"]);
    assert_eq!(names(b"bucket/dir").await, ["file"]);
    assert!(names(b"other.with-dots").await.is_empty());
    for dir in [&b"bucket"[..], b"other.with-dots", b"bucket/dir"] {
        let meta = stat(&*all, dir).await.unwrap();
        assert_eq!(meta.kind, types::NodeKind::Directory, "{dir:?}");
    }
    let file = stat(&*all, b"bucket/dir/file").await.unwrap();
    let range = ByteRange::new(1, 3);
    let bytes = read(&*all, b"bucket/dir/file", &file.tag, range).await;
    assert_eq!(bytes.unwrap(), b"234");
    for absent in [&b"nobody"[..], b"nobody/file", b"bucket/none"] {
        let error = stat(&*all, absent).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
}
