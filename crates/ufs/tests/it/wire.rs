// SPDX-License-Identifier: Apache-2.0
//! What tests of many drivers need: to open a storage, to change one over HTTP behind a driver's
//! back, and to compare what a driver counts with what went over the wire.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use testkit::rigs::Relay;
use types::{ByteRange, Clock, ErrorKind, SystemClock};
use ufs::conformance::{Fixture, list, read, stat};
use ufs::{Secrets, Settings, UnderStorage, open, open_with};

/// A clock that shows the wrong time of day, and goes as fast as others.
#[derive(Debug)]
pub(crate) struct WrongClock {
    /// How many seconds it is ahead.
    pub(crate) ahead: i64,
}

impl Clock for WrongClock {
    fn now(&self) -> Instant {
        SystemClock.now()
    }

    fn wall(&self) -> SystemTime {
        let by = Duration::from_secs(self.ahead.unsigned_abs());
        match self.ahead < 0 {
            true => SystemClock.wall() - by,
            false => SystemClock.wall() + by,
        }
    }
}

/// Opens a storage with these options; a request waits ten seconds for a sign of life.
pub(crate) async fn open_at(
    uri: &str,
    options: &[(&str, &str)],
) -> types::Result<Arc<dyn UnderStorage>> {
    open_by(Arc::new(SystemClock), uri, options).await
}

/// The same, by another clock.
pub(crate) async fn open_by(
    clock: Arc<dyn Clock>,
    uri: &str,
    options: &[(&str, &str)],
) -> types::Result<Arc<dyn UnderStorage>> {
    let owned = |(name, value): &(&str, &str)| ((*name).into(), (*value).into());
    let settings = Settings {
        uri: uri.into(),
        options: options.iter().map(owned).collect(),
        request_timeout: Duration::from_secs(10),
        max_connections: 8,
    };
    open(&settings, clock).await
}

/// Opens a storage with secrets that it does not know, and replaces them by those that it does: the
/// next request is answered.
pub(crate) async fn is_mended_by_other_secrets(
    uri: &str,
    options: &[(&str, &str)],
    wrong: &[(&str, &str)],
    right: &[(&str, &str)],
) {
    let owned = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        let owned = |(name, value): &(&str, &str)| ((*name).into(), (*value).into());
        pairs.iter().map(owned).collect()
    };
    let in_file = Arc::new(Mutex::new(owned(wrong)));
    let file = Arc::clone(&in_file);
    let settings = Settings {
        uri: uri.into(),
        options: owned(&[options, wrong].concat()),
        request_timeout: Duration::from_secs(10),
        max_connections: 8,
    };
    let secrets: Secrets = Arc::new(move || Ok(file.lock().unwrap().clone()));
    let opened = open_with(&settings, Some(secrets), Arc::new(SystemClock));
    let storage = &*opened.await.unwrap();
    let denied = ErrorKind::PermissionDenied;
    assert_eq!(list(storage, b"").await.unwrap_err().kind(), denied);
    assert_eq!(stat(storage, b"absent").await.unwrap_err().kind(), denied);
    *in_file.lock().unwrap() = owned(right);
    let absent = stat(storage, b"absent").await.unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound, "{absent}");
    list(storage, b"").await.unwrap();
    assert_eq!(storage.counters().snapshot().retries, 1);
}

/// Compares the counts of a driver of flat names with the requests that its relay saw.
pub(crate) async fn counts_every_request(fixture: &dyn Fixture, relay: &Relay) {
    fixture.put(b"dir/object", b"0123456789").await;
    let storage = &*fixture.storage();
    let tag = stat(storage, b"dir/object").await.unwrap().tag;
    read(storage, b"dir/object", &tag, ByteRange::new(3, 4))
        .await
        .unwrap();
    list(storage, b"").await.unwrap();
    stat(storage, b"dir").await.unwrap();
    stat(storage, b"absent").await.unwrap_err();
    let counts = storage.counters().snapshot();
    assert_eq!((counts.head, counts.get, counts.list), (3, 1, 3));
    assert_eq!(counts.requests(), relay.requests());
    assert_eq!(counts.errors, 0, "an absent name is no failure");
}

/// Encodes all bytes of a path but letters, digits, `-._~` and slashes.
pub(crate) fn encode_path(path: &str) -> String {
    let mut text = String::new();
    for byte in path.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' | b'/' => text.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// The same, slashes too.
pub(crate) fn encode_whole(name: &str) -> String {
    encode_path(name).replace('/', "%2F")
}

/// Returns a client for plain HTTP on this machine.
pub(crate) fn plain_client() -> reqwest::Client {
    reqwest::Client::builder()
        .tls_backend_preconfigured(no_tls())
        .no_proxy()
        .build()
        .unwrap()
}

/// This build has no other TLS to default to.
fn no_tls() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}
