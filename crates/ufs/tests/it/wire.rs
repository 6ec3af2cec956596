// SPDX-License-Identifier: Apache-2.0
//! What tests of many drivers need: to open a storage, to change one over HTTP behind a driver's
//! back, and to compare what a driver counts with what went over the wire.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use testkit::rigs::Relay;
use types::{ByteRange, Clock, SystemClock};
use ufs::conformance::{Fixture, list, read, stat};
use ufs::{Settings, UnderStorage, open};

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
