// SPDX-License-Identifier: Apache-2.0
//! A bucket of a real S3 server of any make: as a fixture of the suite, and what all such servers
//! must come to with our driver, whatever stands between.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqsign_aws_v4::{Credential, RequestSigner, StaticCredentialProvider};
use reqsign_core::{Context, Signer};
use tempfile::TempDir;
use testkit::rigs::{Ceph, Minio, Relay, VersityGw};
use types::{ByteRange, Clock, ErrorKind, ObjectPath, SystemClock};
use ufs::conformance::{Fixture, Flat, list, read, stat};
use ufs::{Expect, FileAttributes, UnderStorage, probe};

use crate::wire::{WrongClock, encode_path, is_mended_by_other_secrets, open_by, plain_client};

/// Where a server is, and its root account.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) endpoint: String,
    region: String,
    access_key: String,
    secret_key: String,
}

impl From<&VersityGw> for Account {
    fn from(server: &VersityGw) -> Self {
        Account::new(&server.endpoint, &server.access_key, &server.secret_key)
    }
}

impl From<&Minio> for Account {
    fn from(server: &Minio) -> Self {
        Account::new(&server.endpoint, &server.access_key, &server.secret_key)
    }
}

impl From<&Ceph> for Account {
    fn from(server: &Ceph) -> Self {
        Account::new(&server.endpoint, &server.access_key, &server.secret_key)
    }
}

impl Account {
    fn new(endpoint: &str, access_key: &str, secret_key: &str) -> Self {
        Account {
            endpoint: endpoint.into(),
            region: "us-east-1".into(),
            access_key: access_key.into(),
            secret_key: secret_key.into(),
        }
    }

    /// Opens a place such as `s3://bucket/prefix` with these keys, or with others.
    pub(crate) async fn open(
        &self,
        uri: &str,
        changes: &[(&str, &str)],
    ) -> types::Result<Arc<dyn UnderStorage>> {
        self.open_by(Arc::new(SystemClock), uri, changes).await
    }

    /// The same, by another clock.
    async fn open_by(
        &self,
        clock: Arc<dyn Clock>,
        uri: &str,
        changes: &[(&str, &str)],
    ) -> types::Result<Arc<dyn UnderStorage>> {
        let mut options = BTreeMap::from([
            ("endpoint", self.endpoint.as_str()),
            ("region", &self.region),
            ("access_key_id", &self.access_key),
            ("secret_access_key", &self.secret_key),
        ]);
        options.extend(changes.iter().copied());
        let options: Vec<_> = options.into_iter().collect();
        open_by(clock, uri, &options).await
    }
}

/// What a server keeps of what the suite would like to write.
pub(crate) struct Keeps {
    pub(crate) odd_names: Vec<Vec<u8>>,
    pub(crate) flat_names: &'static [Flat],
    /// Ten thousand are enough once for each server.
    pub(crate) many: usize,
}

impl Keeps {
    /// Returns how many names a place has: at the root of a bucket as many as the suite wants.
    pub(crate) fn many_at(prefix: &str) -> usize {
        if prefix.is_empty() { 10_000 } else { 2_500 }
    }
}

/// A bucket, a relay before its server, and the driver behind that.
pub(crate) struct Bucket {
    pub(crate) account: Account,
    pub(crate) relay: Relay,
    pub(crate) storage: Arc<dyn UnderStorage>,
    /// The bucket and what is before all names of the driver.
    place: String,
    keeps: Keeps,
    signer: Signer<Credential>,
    client: reqwest::Client,
    // Last and in this order, so that the server is gone before its directory.
    _server: Option<Box<dyn Debug + Send + Sync>>,
    _dir: Option<TempDir>,
}

impl Bucket {
    /// Starts a server for one bucket.
    pub(crate) async fn start<S: Debug + Send + Sync + 'static>(
        start: fn(&Path) -> anyhow::Result<S>,
        place: &str,
        keeps: Keeps,
    ) -> Self
    where
        Account: for<'a> From<&'a S>,
    {
        let dir = tempfile::tempdir().unwrap();
        let server = start(dir.path()).unwrap();
        let bucket = Bucket::new((&server).into(), &format!("s3://{place}"), keeps).await;
        Bucket {
            _server: Some(Box::new(server)),
            _dir: Some(dir),
            ..bucket
        }
    }

    /// Makes a bucket on a server that runs.
    pub(crate) async fn new(account: Account, uri: &str, keeps: Keeps) -> Self {
        let relay = Relay::start(&account.endpoint).unwrap();
        let behind = [("endpoint", relay.endpoint())];
        let storage = account.open(uri, &behind).await.unwrap();
        let keys = StaticCredentialProvider::new(&account.access_key, &account.secret_key);
        let signer = RequestSigner::new("s3", &account.region);
        let bucket = Bucket {
            signer: Signer::new(Context::new(), keys, signer),
            client: plain_client(),
            place: storage.uri().split_once("://").unwrap().1.into(),
            account,
            relay,
            storage,
            keeps,
            _server: None,
            _dir: None,
        };
        let name = bucket.place.split('/').next().unwrap();
        bucket.make(name).await;
        bucket
    }

    /// Makes another bucket.
    pub(crate) async fn make(&self, name: &str) {
        self.send("PUT", name, b"").await;
    }

    async fn change(&self, method: &str, path: &[u8], content: &[u8]) {
        let key = format!("{}{}", self.place, std::str::from_utf8(path).unwrap());
        self.send(method, &key, content).await;
    }

    async fn send(&self, method: &str, key: &str, content: &[u8]) {
        let url = format!("{}/{}", self.account.endpoint, encode_path(key));
        let request = http::Request::builder().method(method).uri(&url).body(());
        let (mut parts, ()) = request.unwrap().into_parts();
        self.signer.sign(&mut parts, None).await.unwrap();
        let request = self.client.request(parts.method, &url);
        let request = request.headers(parts.headers);
        let request = request.header("content-length", content.len());
        let answer = request.body(content.to_vec()).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{method} {key}: {text}");
    }
}

#[async_trait]
impl Fixture for Bucket {
    fn storage(&self) -> Arc<dyn UnderStorage> {
        Arc::clone(&self.storage)
    }

    async fn put(&self, path: &[u8], content: &[u8]) {
        self.change("PUT", path, content).await;
    }

    async fn remove(&self, path: &[u8]) {
        self.change("DELETE", path, b"").await;
    }

    fn odd_names(&self) -> Vec<Vec<u8>> {
        self.keeps.odd_names.clone()
    }

    fn many(&self) -> usize {
        self.keeps.many
    }

    fn longest(&self) -> usize {
        let (_, prefix) = self.place.split_once('/').unwrap();
        1024 - prefix.len()
    }

    fn flat_names(&self) -> &[Flat] {
        self.keeps.flat_names
    }
}

pub(crate) async fn gives_up_old_uploads(bucket: &Bucket) {
    let writer = bucket.storage.writer().unwrap();
    let deadline = || SystemClock.deadline(Duration::from_secs(30));
    let path = ObjectPath::parse(b"left/behind").unwrap();
    let (size, nothing) = (writer.abilities().part_min, FileAttributes::default());
    // What other tests left here.
    writer.clean(Duration::ZERO, deadline()).await.unwrap();
    for _ in 0..2 {
        let upload = writer.begin(&path, size, &nothing, deadline()).await;
        let part = Bytes::from_static(b"part");
        upload.unwrap().part(1, part, deadline()).await.unwrap();
    }
    let day = Duration::from_secs(86_400);
    let young = writer.clean(day, deadline()).await.unwrap();
    assert_eq!(young, 0);
    // A storage tells only the second in which an upload was begun.
    let all = async {
        let mut given_up = 0;
        while given_up < 2 {
            given_up += writer.clean(Duration::ZERO, deadline()).await.unwrap();
        }
    };
    let patience = Duration::from_secs(10);
    tokio::time::timeout(patience, all).await.unwrap();
    let again = writer.clean(Duration::ZERO, deadline()).await.unwrap();
    assert_eq!(again, 0);
}

/// A clock that is days off: requests are signed at the storage's time, and uploads that others have
/// just begun are not taken for old ones.
pub(crate) async fn is_used_by_a_machine_whose_clock_is_wrong(bucket: &Bucket) {
    let content = b"0123456789";
    let day = 86_400;
    for ahead in [3 * day, -3 * day, 7200] {
        bucket.put(b"dir/object", content).await;
        let uri = bucket.storage.uri().to_owned();
        let clock = Arc::new(WrongClock { ahead });
        let storage = bucket.account.open_by(clock, &uri, &[]).await.unwrap();
        let tag = stat(&*storage, b"dir/object").await.unwrap().tag;
        let whole = ByteRange::new(0, tag.size);
        let bytes = read(&*storage, b"dir/object", &tag, whole).await.unwrap();
        assert_eq!(bytes, content, "{ahead}");
        assert_eq!(list(&*storage, b"dir").await.unwrap().0.len(), 1);
        let counts = storage.counters().snapshot();
        assert_eq!((counts.errors, counts.retries), (1, 1), "{ahead}");

        let writer = storage.writer().unwrap();
        let deadline = || SystemClock.deadline(Duration::from_secs(30));
        let path = ObjectPath::parse(b"dir/written").unwrap();
        let (size, nothing) = (writer.abilities().part_min, FileAttributes::default());
        let upload = writer.begin(&path, size, &nothing, deadline()).await;
        let upload = upload.unwrap();
        let part = Bytes::from_static(content);
        upload.part(1, part, deadline()).await.unwrap();
        let other = Arc::new(WrongClock { ahead });
        let other = bucket.account.open_by(other, &uri, &[]).await.unwrap();
        let day = Duration::from_secs(day.unsigned_abs());
        let given_up = other.writer().unwrap().clean(day, deadline()).await;
        assert_eq!(given_up.unwrap(), 0, "{ahead}");
        upload
            .complete(&Expect::Anything, deadline())
            .await
            .unwrap();
        assert_eq!(stat(&*storage, b"dir/written").await.unwrap().tag.size, 10);
        bucket.remove(b"dir/written").await;
    }
}

pub(crate) async fn says_what_is_wrong_with_a_mount(bucket: &Bucket) {
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
        let uri = format!("s3://{place}");
        let storage = bucket.account.open(&uri, changes).await.unwrap();
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

pub(crate) async fn fails_in_time_and_is_used_again(bucket: &Bucket) {
    bucket.put(b"object", b"0123456789").await;
    let tag = stat(&*bucket.storage, b"object").await.unwrap().tag;
    let range = ByteRange::new(0, 10);
    let path = ObjectPath::parse(b"object").unwrap();
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

pub(crate) async fn resumes_where_an_answer_was_cut(bucket: &Bucket) {
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

/// Keys that the server does not know, and a secret that does not fit its key.
pub(crate) async fn uses_keys_that_replaced_wrong_ones(bucket: &Bucket) {
    let account = &bucket.account;
    let options = [
        ("endpoint", account.endpoint.as_str()),
        ("region", &account.region),
    ];
    let known = account.access_key.as_str();
    let right = [
        ("access_key_id", known),
        ("secret_access_key", &account.secret_key),
    ];
    let uri = format!("s3://{}", bucket.place);
    for id in ["unknown", known] {
        let wrong = [("access_key_id", id), ("secret_access_key", "hunter2")];
        is_mended_by_other_secrets(&uri, &options, &wrong, &right).await;
    }
}

pub(crate) async fn shows_all_buckets(bucket: &Bucket) {
    bucket.make("other.with-dots").await;
    bucket.put(b"dir/file", b"12345").await;
    let all = bucket.account.open("s3://*", &[]).await.unwrap();
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
    // A bucket that is to be made is no name that is missing.
    let bucket = ObjectPath::parse(b"nobody").unwrap();
    let attributes = FileAttributes::default();
    let made = all.writer().unwrap();
    let made = made.create_dir(&bucket, &attributes, deadline).await;
    let error = made.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(
        error.to_string().contains("a bucket is not made"),
        "{error}"
    );
}
