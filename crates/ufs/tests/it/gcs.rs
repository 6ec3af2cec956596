// SPDX-License-Identifier: Apache-2.0
//! A real server of Google's JSON API: fake-gcs-server. It ignores the conditions of reads: that
//! an answer of another generation is not believed is what keeps versions apart here; that the
//! condition is sent is shown in `faults`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use testkit::rigs::{FakeGcs, Relay};
use types::{Clock, ErrorKind, SystemClock};
use ufs::conformance::{self, Fixture, Flat, list, odd_names};
use ufs::{Settings, UnderStorage, open, probe};

use crate::bad_way;
use crate::liar::{Liar, told};
use crate::wire::{counts_every_request, encode_whole, plain_client};

/// A server with a bucket, a relay before it, and the driver behind that.
struct Bucket {
    relay: Relay,
    server: FakeGcs,
    client: reqwest::Client,
    storage: Arc<dyn UnderStorage>,
    prefix: String,
    _dir: TempDir,
}

impl Bucket {
    async fn new(prefix: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = FakeGcs::start(dir.path()).unwrap();
        let relay = Relay::start(&server.endpoint).unwrap();
        let storage = open_bucket(relay.endpoint(), &format!("bucket/{prefix}")).await;
        let bucket = Bucket {
            relay,
            client: plain_client(),
            storage,
            prefix: prefix.into(),
            server,
            _dir: dir,
        };
        let url = format!("{}/storage/v1/b?project=rig", bucket.server.endpoint);
        let request = bucket.client.post(url).body("{\"name\":\"bucket\"}");
        bucket.send(request).await;
        bucket
    }

    async fn send(&self, request: reqwest::RequestBuilder) {
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{status} {text}");
    }

    fn name(&self, path: &[u8]) -> String {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        let path = std::str::from_utf8(path).unwrap();
        encode_whole(&format!("{}{slash}{path}", self.prefix))
    }
}

async fn open_bucket(endpoint: &str, place: &str) -> Arc<dyn UnderStorage> {
    let options = [("endpoint", endpoint), ("anonymous", "true")];
    let settings = Settings {
        uri: format!("gs://{place}"),
        options: options.map(|(k, v)| (k.into(), v.into())).into(),
        request_timeout: Duration::from_secs(20),
        max_connections: 8,
    };
    open(&settings, Arc::new(SystemClock)).await.unwrap()
}

#[async_trait]
impl Fixture for Bucket {
    fn storage(&self) -> Arc<dyn UnderStorage> {
        Arc::clone(&self.storage)
    }

    async fn put(&self, path: &[u8], content: &[u8]) {
        let (endpoint, name) = (&self.server.endpoint, self.name(path));
        let url = format!("{endpoint}/upload/storage/v1/b/bucket/o?uploadType=media&name={name}");
        self.send(self.client.post(url).body(content.to_vec()))
            .await;
    }

    async fn remove(&self, path: &[u8]) {
        let (endpoint, name) = (&self.server.endpoint, self.name(path));
        let url = format!("{endpoint}/storage/v1/b/bucket/o/{name}");
        self.send(self.client.delete(url)).await;
    }

    fn odd_names(&self) -> Vec<Vec<u8>> {
        odd_names()
    }

    fn many(&self) -> usize {
        // It takes a time for each object that grows with their number; a page has 1,000. Ten thousand
        // come from a server of ours below.
        2_500
    }

    fn longest(&self) -> usize {
        match self.prefix.len() {
            0 => 1024,
            len => 1024 - len - 1,
        }
    }

    fn flat_names(&self) -> &[Flat] {
        Flat::ALL
    }
}

#[tokio::test]
async fn a_bucket_keeps_every_promise_of_writing() {
    conformance::write::run(&Bucket::new("").await).await;
}

#[tokio::test]
async fn a_prefix_of_a_bucket_keeps_every_promise_of_writing() {
    conformance::write::run(&Bucket::new("a prefix/of +it").await).await;
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
async fn ten_thousand_names_come_in_pages_of_a_thousand() {
    let liar = Liar::start(|_, asked| {
        let token = asked
            .target
            .split('&')
            .find_map(|pair| pair.strip_prefix("pageToken="));
        let from: usize = token.map_or(0, |token| token.parse().unwrap());
        let to = from + 1000;
        let items = (from..to).map(|index| {
            format!("{{\"name\":\"many/n{index:05}\",\"size\":\"0\",\"generation\":\"{index}\"}}")
        });
        let items = items.collect::<Vec<_>>().join(",");
        let next = match to {
            10_000 => String::new(),
            to => format!(",\"nextPageToken\":\"{to}\""),
        };
        let page = format!("{{\"kind\":\"storage#objects\"{next},\"items\":[{items}]}}");
        told("200 OK", &[], page.as_bytes())
    });
    let liar = liar.await;
    let storage = open_bucket(liar.endpoint(), "bucket").await;
    let (entries, _) = list(&*storage, b"many").await.unwrap();
    let names = entries.iter().map(|entry| entry.name.to_string());
    let wanted = (0..10_000).map(|index| format!("n{index:05}"));
    assert!(names.eq(wanted));
    assert_eq!(liar.asked().len(), 10);
}

#[tokio::test]
async fn every_request_on_the_wire_is_counted() {
    let bucket = Bucket::new("").await;
    counts_every_request(&bucket, &bucket.relay).await;
}

#[tokio::test]
async fn a_bad_way_is_withstood() {
    let bucket = Bucket::new("").await;
    bad_way::is_withstood(&bucket, &bucket.relay).await;
}

#[tokio::test]
async fn a_missing_bucket_is_said_by_the_probe() {
    let bucket = Bucket::new("").await;
    let storage = open_bucket(&bucket.server.endpoint, "absent").await;
    let deadline = SystemClock.deadline(Duration::from_secs(20));
    let error = probe(&*storage, deadline).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let text = error.to_string();
    assert!(text.starts_with("reach gs://absent/"), "{text}");
    assert!(text.contains("check the name of the bucket"), "{text}");
}
