// SPDX-License-Identifier: Apache-2.0
//! The driver of the Hugging Face hub, against a hub of ours that speaks the same endpoints.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use testkit::rigs::{Hub, Relay};
use types::{ByteRange, Clock, ErrorKind, SystemClock};
use ufs::conformance::{self, Fixture, list, odd_names, read, stat};
use ufs::{Settings, UnderStorage, open, probe};

use crate::bad_way;

/// A hub, and a driver that follows its branch.
struct Repository {
    hub: Hub,
    storage: Arc<dyn UnderStorage>,
    prefix: &'static str,
}

impl Repository {
    async fn new(prefix: &'static str) -> Self {
        let hub = Hub::start().await;
        let uri = format!("hf://datasets/owner/name/{prefix}");
        let storage = open_at(&hub, &uri, &[("follow", "true")]).await;
        Repository {
            hub,
            storage,
            prefix,
        }
    }

    fn path(&self, path: &[u8]) -> String {
        format!("{}{}", self.prefix, std::str::from_utf8(path).unwrap())
    }
}

async fn open_at(hub: &Hub, uri: &str, more: &[(&str, &str)]) -> Arc<dyn UnderStorage> {
    open_as(hub, uri, &[("token", Hub::TOKEN)], more).await
}

async fn open_as(
    hub: &Hub,
    uri: &str,
    who: &[(&str, &str)],
    more: &[(&str, &str)],
) -> Arc<dyn UnderStorage> {
    let options = [("endpoint", hub.door.endpoint())];
    let settings = Settings {
        uri: uri.into(),
        options: options
            .iter()
            .chain(who)
            .chain(more)
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect(),
        request_timeout: Duration::from_secs(10),
        max_connections: 8,
    };
    open(&settings, Arc::new(SystemClock)).await.unwrap()
}

#[async_trait]
impl Fixture for Repository {
    fn storage(&self) -> Arc<dyn UnderStorage> {
        Arc::clone(&self.storage)
    }

    async fn put(&self, path: &[u8], content: &[u8]) {
        self.hub.put(&self.path(path), content);
    }

    async fn remove(&self, path: &[u8]) {
        self.hub.remove(&self.path(path));
    }

    fn odd_names(&self) -> Vec<Vec<u8>> {
        odd_names()
    }
}

#[tokio::test]
async fn a_repository_keeps_every_promise() {
    conformance::run(&Repository::new("").await).await;
}

#[tokio::test]
async fn a_directory_of_a_repository_keeps_every_promise() {
    conformance::run(&Repository::new("a prefix/of +it/").await).await;
}

#[tokio::test]
async fn a_bad_way_is_withstood() {
    let mut repository = Repository::new("").await;
    let relay = Relay::start(repository.hub.door.endpoint()).unwrap();
    let more = [("endpoint", relay.endpoint()), ("follow", "true")];
    repository.storage = open_at(&repository.hub, "hf://datasets/owner/name", &more).await;
    // The bytes of larger files come by another way.
    bad_way::of_an_object_is_withstood(&repository, &relay, 900).await;
}

#[tokio::test]
async fn a_mount_stays_at_the_commit_that_it_first_saw() {
    let hub = Hub::start().await;
    hub.put("file", b"old");
    let storage = open_at(&hub, "hf://datasets/owner/name@main", &[]).await;
    let old = stat(&*storage, b"file").await.unwrap();
    assert_eq!(
        old.tag.mtime_ns, 1_714_979_289_000_000_000,
        "the time of the commit"
    );
    hub.put("file", b"newer");
    hub.put("other", b"x");
    assert_eq!(stat(&*storage, b"file").await.unwrap(), old);
    let bytes = read(&*storage, b"file", &old.tag, ByteRange::new(0, 3)).await;
    assert_eq!(bytes.unwrap(), b"old");
    let (entries, _) = list(&*storage, b"").await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(
        storage.counters().snapshot().other,
        1,
        "the revision is asked for once"
    );
    // A mount that is made now sees what is there now.
    let storage = open_at(&hub, "hf://datasets/owner/name", &[]).await;
    assert_eq!(list(&*storage, b"").await.unwrap().0.len(), 2);
}

#[tokio::test]
async fn the_token_stays_with_the_hub_and_addresses_are_used_again() {
    let hub = Hub::start().await;
    let content = vec![7; 100_000];
    hub.put("large", &content);
    let storage = open_at(&hub, "hf://datasets/owner/name", &[]).await;
    let tag = stat(&*storage, b"large").await.unwrap().tag;
    let asked = hub.door.asked().len();
    for offset in [0, 50_000, 99_999] {
        let range = ByteRange::new(offset, 1);
        assert_eq!(read(&*storage, b"large", &tag, range).await.unwrap(), [7]);
    }
    assert_eq!(
        hub.door.asked().len(),
        asked + 1,
        "the way is asked for once"
    );
    assert_eq!(hub.network.asked().len(), 3);
    let network = hub.network.asked();
    assert!(
        network
            .iter()
            .all(|asked| asked.header("authorization").is_empty())
    );
    assert!(
        hub.door
            .asked()
            .iter()
            .all(|asked| !asked.header("authorization").is_empty())
    );
}

#[tokio::test]
async fn an_address_that_is_no_longer_good_is_asked_for_again() {
    let hub = Hub::start().await;
    hub.limit_addresses(2);
    let content = vec![7; 100_000];
    hub.put("large", &content);
    let storage = open_at(&hub, "hf://datasets/owner/name", &[]).await;
    let tag = stat(&*storage, b"large").await.unwrap().tag;
    for offset in 0..7 {
        let range = ByteRange::new(offset, 1);
        assert_eq!(read(&*storage, b"large", &tag, range).await.unwrap(), [7]);
    }
}

#[tokio::test]
async fn a_token_that_was_changed_is_found_without_a_new_mount() {
    let hub = Hub::start().await;
    hub.put("file", b"x");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, format!("{}\n", Hub::TOKEN)).unwrap();
    let who = [("token_path", file.to_str().unwrap())];
    let storage = open_as(&hub, "hf://datasets/owner/name", &who, &[]).await;
    list(&*storage, b"").await.unwrap();
    hub.change_token("hf_n3w");
    let error = list(&*storage, b"").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    std::fs::write(&file, "hf_n3w").unwrap();
    let asked = hub.door.asked().len();
    list(&*storage, b"").await.unwrap();
    assert_eq!(
        hub.door.asked().len(),
        asked + 2,
        "refused, and again with the new one"
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_mount_is_said_by_the_probe() {
    let hub = Hub::start().await;
    hub.put("file", b"x");
    let wrong = ("token", "hunter2");
    type Options<'a> = &'a [(&'a str, &'a str)];
    let cases: [(&str, Options<'_>, ErrorKind, &str); 3] = [
        (
            "hf://datasets/owner/name",
            &[wrong],
            ErrorKind::PermissionDenied,
            "set HF_TOKEN",
        ),
        (
            "hf://datasets/owner/other",
            &[],
            ErrorKind::NotFound,
            "'owner/other' does not exist or is private",
        ),
        (
            "hf://datasets/owner/name@v9",
            &[],
            ErrorKind::NotFound,
            "no such revision",
        ),
    ];
    for (uri, options, kind, advice) in cases {
        let storage = open_at(&hub, uri, options).await;
        let deadline = SystemClock.deadline(Duration::from_secs(10));
        let error = probe(&*storage, deadline).await.unwrap_err();
        let text = format!("{error} {storage:?}");
        assert_eq!(error.kind(), kind, "{text}");
        assert!(text.contains(advice) && !text.contains("hunter2"), "{text}");
    }
}
