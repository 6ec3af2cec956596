// SPDX-License-Identifier: Apache-2.0
//! A real Ceph: its object gateway through S3, its file system through a mount of `ceph-fuse`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqsign_aws_v4::{Credential, RequestSigner, StaticCredentialProvider};
use reqsign_core::{Context, Signer};
use testkit::rigs::{Ceph, CephFs};
use types::{ByteRange, Clock, ErrorKind, SystemClock};
use ufs::conformance::{self, Fixture, read, stat};
use ufs::{Settings, UnderStorage, open, probe};

use crate::wire::{encode_path, plain_client};

async fn open_at(uri: &str, options: &[(&str, &str)]) -> types::Result<Arc<dyn UnderStorage>> {
    let options = options
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()));
    let settings = Settings {
        uri: uri.into(),
        options: options.collect::<BTreeMap<_, _>>(),
        request_timeout: Duration::from_secs(10),
        max_connections: 8,
    };
    open(&settings, Arc::new(SystemClock)).await
}

/// A bucket of the gateway.
struct Gateway {
    signer: Signer<Credential>,
    client: reqwest::Client,
    /// The address of what is below the mount.
    url: String,
    storage: Arc<dyn UnderStorage>,
}

impl Gateway {
    async fn new(ceph: &Ceph, place: &str) -> Self {
        let keys = StaticCredentialProvider::new(&ceph.access_key, &ceph.secret_key);
        let options = [
            ("endpoint", ceph.endpoint.as_str()),
            ("region", "us-east-1"),
            ("access_key_id", &ceph.access_key),
            ("secret_access_key", &ceph.secret_key),
        ];
        let gateway = Gateway {
            signer: Signer::new(Context::new(), keys, RequestSigner::new("s3", "us-east-1")),
            client: plain_client(),
            url: format!("{}/{}", ceph.endpoint, encode_path(place)),
            storage: open_at(&format!("ceph://{place}"), &options).await.unwrap(),
        };
        let bucket = place.split('/').next().unwrap();
        let made = gateway
            .send("PUT", &format!("{}/{bucket}", ceph.endpoint), b"")
            .await;
        made.unwrap();
        gateway
    }

    async fn send(&self, method: &str, url: &str, content: &[u8]) -> Result<(), String> {
        let request = http::Request::builder()
            .method(method)
            .uri(url)
            .body(())
            .unwrap();
        let (mut parts, ()) = request.into_parts();
        self.signer.sign(&mut parts, None).await.unwrap();
        let request = self
            .client
            .request(parts.method, url)
            .headers(parts.headers)
            .header("content-length", content.len());
        let answer = request.body(content.to_vec()).send().await.unwrap();
        match answer.status().is_success() {
            true => Ok(()),
            false => Err(format!("{method} {url}: {}", answer.text().await.unwrap())),
        }
    }

    async fn change(&self, method: &str, path: &[u8], content: &[u8]) {
        let path = encode_path(std::str::from_utf8(path).unwrap());
        let url = format!("{}{path}", self.url);
        self.send(method, &url, content).await.unwrap();
    }
}

#[async_trait]
impl Fixture for Gateway {
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
        // The gateway keeps all of them.
        conformance::odd_names()
    }

    fn is_flat(&self) -> bool {
        true
    }
}

/// A directory of the mounted file system.
struct Files {
    root: PathBuf,
    storage: Arc<dyn UnderStorage>,
}

impl Files {
    fn at(&self, path: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(path))
    }
}

#[async_trait]
impl Fixture for Files {
    fn storage(&self) -> Arc<dyn UnderStorage> {
        Arc::clone(&self.storage)
    }

    async fn put(&self, path: &[u8], content: &[u8]) {
        let path = self.at(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    async fn remove(&self, path: &[u8]) {
        std::fs::remove_file(self.at(path)).unwrap();
    }

    fn odd_names(&self) -> Vec<Vec<u8>> {
        let long = [b'x'; 255];
        let names = [
            &b" "[..],
            b"a ",
            b" a",
            b"\na",
            b"a\n",
            b"\x01",
            b"%2F",
            b"a+b",
            b"?",
            b"#",
            b"...",
            b"\xff\xfe",
            "\u{e9}\u{1f600}".as_bytes(),
            b"a\\b",
            b"-",
            b"'\"",
            &long,
        ];
        names.iter().map(|name| name.to_vec()).collect()
    }
}

// One test for one cluster: it takes most of a minute to start and a gigabyte to run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_every_promise_through_its_gateway_and_as_files() {
    let dir = tempfile::tempdir().unwrap();
    let ceph = Ceph::start(dir.path()).unwrap();
    let gateway = Gateway::new(&ceph, "bucket/a prefix/of +it/").await;
    conformance::run(&gateway).await;
    wrong_keys_are_denied(&ceph).await;

    let mounted = ceph.mount(&dir.path().join("mounted")).unwrap();
    is_found_among_the_mounts(&mounted).await;
    let root = mounted.mounted_at.join("files");
    std::fs::create_dir(&root).unwrap();
    let at = mounted.mounted_at.to_str().unwrap();
    let storage = open_at("cephfs:///files", &[("mounted_at", at)])
        .await
        .unwrap();
    conformance::run(&Files { root, storage }).await;
}

async fn wrong_keys_are_denied(ceph: &Ceph) {
    let right = [ceph.access_key.as_str(), &ceph.secret_key];
    for ([access, secret], bucket, kind) in [
        ([right[0], "hunter2"], "bucket", ErrorKind::PermissionDenied),
        (["unknown", right[1]], "bucket", ErrorKind::PermissionDenied),
        (right, "absent", ErrorKind::NotFound),
    ] {
        let options = [
            ("endpoint", ceph.endpoint.as_str()),
            ("region", "us-east-1"),
            ("access_key_id", access),
            ("secret_access_key", secret),
        ];
        let storage = open_at(&format!("ceph://{bucket}/"), &options)
            .await
            .unwrap();
        let deadline = SystemClock.deadline(Duration::from_secs(10));
        let error = probe(&*storage, deadline).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

/// Without the option, the one mount of the machine is found.
async fn is_found_among_the_mounts(mounted: &CephFs) {
    std::fs::write(mounted.mounted_at.join("file"), "12345").unwrap();
    let storage = open_at("cephfs:///", &[]).await.unwrap();
    let tag = stat(&*storage, b"file").await.unwrap().tag;
    let bytes = read(&*storage, b"file", &tag, ByteRange::new(1, 3))
        .await
        .unwrap();
    assert_eq!(bytes, b"234");
    let error = open_at("cephfs:///absent", &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}
