// SPDX-License-Identifier: Apache-2.0
//! A real Azure Blob server: Azurite.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqsign_azure_storage::{Credential, RequestSigner, StaticCredentialProvider};
use reqsign_core::{Context, Signer};
use tempfile::TempDir;
use testkit::rigs::{Azurite, Relay};
use types::{Clock, ErrorKind, SystemClock};
use ufs::conformance::{self, Fixture, Flat, list, odd_names, stat};
use ufs::{Settings, UnderStorage, open, probe};

use crate::bad_way;
use crate::wire::{counts_every_request, encode_path, is_mended_by_other_secrets, plain_client};

/// A server with a container, a relay before it, and the driver behind that.
struct Container {
    relay: Relay,
    server: Azurite,
    signer: Signer<Credential>,
    client: reqwest::Client,
    storage: Arc<dyn UnderStorage>,
    prefix: String,
    _dir: TempDir,
}

impl Container {
    async fn new(prefix: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Azurite::start(dir.path()).unwrap();
        let host = server.endpoint.strip_suffix("/devstoreaccount1").unwrap();
        let relay = Relay::start(host).unwrap();
        let endpoint = format!("{}/{}", relay.endpoint(), server.account);
        let place = format!("container/{prefix}");
        let keys = [
            ("endpoint", endpoint.as_str()),
            ("account_name", &server.account),
            ("account_key", &server.key),
        ];
        let storage = open_container(&place, &keys).await.unwrap();
        let keys = StaticCredentialProvider::new_shared_key(&server.account, &server.key);
        let container = Container {
            signer: Signer::new(Context::new(), keys, RequestSigner::new()),
            relay,
            server,
            client: plain_client(),
            storage,
            prefix: prefix.into(),
            _dir: dir,
        };
        container
            .send("PUT", "container?restype=container", b"")
            .await;
        container
    }

    async fn send(&self, method: &str, rest: &str, content: &[u8]) {
        let url = format!("{}/{rest}", self.server.endpoint);
        let request = http::Request::builder()
            .method(method)
            .uri(&url)
            .header("x-ms-version", "2023-11-03")
            .header("x-ms-blob-type", "BlockBlob")
            .header("content-length", content.len())
            .body(())
            .unwrap();
        let (mut parts, ()) = request.into_parts();
        self.signer.sign(&mut parts, None).await.unwrap();
        parts.headers.remove("host");
        let request = self.client.request(parts.method, &url);
        let request = request.headers(parts.headers).body(content.to_vec());
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{method} {rest}: {status} {text}");
    }

    fn blob(&self, path: &[u8]) -> String {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        let path = std::str::from_utf8(path).unwrap();
        encode_path(&format!("container/{}{slash}{path}", self.prefix))
    }
}

async fn open_container(
    place: &str,
    options: &[(&str, &str)],
) -> types::Result<Arc<dyn UnderStorage>> {
    let settings = Settings {
        uri: format!("az://{place}"),
        options: options
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect(),
        request_timeout: Duration::from_secs(20),
        max_connections: 8,
    };
    open(&settings, Arc::new(SystemClock)).await
}

#[async_trait]
impl Fixture for Container {
    fn storage(&self) -> Arc<dyn UnderStorage> {
        Arc::clone(&self.storage)
    }

    async fn put(&self, path: &[u8], content: &[u8]) {
        self.send("PUT", &self.blob(path), content).await;
    }

    async fn remove(&self, path: &[u8]) {
        self.send("DELETE", &self.blob(path), b"").await;
    }

    fn odd_names(&self) -> Vec<Vec<u8>> {
        // Azurite cannot list control characters, which Azure encodes: see the driver's unit tests.
        // A backslash is a slash to both.
        let kept = |byte: &u8| !byte.is_ascii_control() && *byte != b'\\';
        let listed = |name: &Vec<u8>| name.iter().all(kept);
        odd_names().into_iter().filter(listed).collect()
    }

    fn many(&self) -> usize {
        // Ten thousand are enough once for each server.
        if self.prefix.is_empty() {
            10_000
        } else {
            2_500
        }
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
async fn a_container_keeps_every_promise() {
    conformance::run(&Container::new("").await).await;
}

#[tokio::test]
async fn a_container_keeps_every_promise_of_writing() {
    conformance::write::run(&Container::new("").await).await;
}

#[tokio::test]
async fn a_prefix_of_a_container_keeps_every_promise_of_writing() {
    conformance::write::run(&Container::new("a prefix/of +it").await).await;
}

#[tokio::test]
async fn a_prefix_of_a_container_keeps_every_promise() {
    conformance::run(&Container::new("a prefix/of +it").await).await;
}

#[tokio::test]
async fn every_request_on_the_wire_is_counted() {
    let container = Container::new("").await;
    counts_every_request(&container, &container.relay).await;
}

#[tokio::test]
async fn a_bad_way_is_withstood() {
    let container = Container::new("").await;
    bad_way::is_withstood(&container, &container.relay).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_mount_is_said_by_the_probe() {
    let container = Container::new("").await;
    let server = &container.server;
    let wrong_key = "aHVudGVyMg==";
    let endpoint = ("endpoint", server.endpoint.as_str());
    let account = ("account_name", server.account.as_str());
    type Options<'a> = &'a [(&'a str, &'a str)];
    let cases: [(&str, Options<'_>, ErrorKind, &str); 4] = [
        (
            "absent",
            &[endpoint, account, ("account_key", &server.key)],
            ErrorKind::NotFound,
            "container 'absent' does not exist",
        ),
        (
            "container",
            &[endpoint, account, ("account_key", wrong_key)],
            ErrorKind::PermissionDenied,
            "check the credentials",
        ),
        (
            "container",
            &[endpoint, ("anonymous", "true")],
            ErrorKind::PermissionDenied,
            "check the credentials",
        ),
        (
            "container",
            &[
                endpoint,
                ("sas_token", "sv=2022-11-02&sp=r&sig=aHVudGVyMg%3D%3D"),
            ],
            ErrorKind::PermissionDenied,
            "read container 'container'",
        ),
    ];
    for (place, options, kind, advice) in cases {
        let storage = open_container(place, options).await.unwrap();
        let deadline = SystemClock.deadline(Duration::from_secs(20));
        let error = probe(&*storage, deadline).await.unwrap_err();
        let text = format!("{error} {storage:?}");
        assert_eq!(error.kind(), kind, "{text}");
        assert!(text.starts_with(&format!("reach az://{place}/")), "{text}");
        assert!(text.contains(advice), "{text}");
        assert!(!text.contains("aHVudGVyMg"), "{text}");
    }
}

#[tokio::test]
async fn secrets_that_replaced_wrong_ones_are_used() {
    let container = Container::new("").await;
    let server = &container.server;
    let options = [
        ("endpoint", server.endpoint.as_str()),
        ("account_name", &server.account),
    ];
    let wrong_key = ("account_key", "aHVudGVyMg==");
    let wrong_token = ("sas_token", "sv=2022-11-02&sp=rl&sig=aHVudGVyMg%3D%3D");
    let key = [("account_key", server.key.as_str())];
    is_mended_by_other_secrets("az://container/", &options, &[wrong_key], &key).await;
    let token = [("sas_token", testkit::stores::AZURITE_TOKEN)];
    is_mended_by_other_secrets("az://container/", &options, &[wrong_token], &token).await;
}

#[tokio::test]
async fn a_name_with_a_backslash_is_no_other_name_of_a_blob() {
    let container = Container::new("").await;
    container.put(b"a/b", b"x").await;
    let error = stat(&*container.storage, b"a\\b").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn a_connection_string_is_all_that_is_needed() {
    let container = Container::new("").await;
    container.put(b"object", b"0123456789").await;
    let Azurite {
        endpoint,
        account,
        key,
        ..
    } = &container.server;
    let string = format!("AccountName={account};AccountKey={key};BlobEndpoint={endpoint};");
    let options = [("connection_string", string.as_str())];
    let storage = open_container("container", &options).await.unwrap();
    let (entries, _) = list(&*storage, b"").await.unwrap();
    assert_eq!(entries.len(), 1);
}
