// SPDX-License-Identifier: Apache-2.0
//! TLS: whom the driver trusts, and what it says when it does not.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;
use types::{Clock, ErrorKind, SystemClock};
use ufs::conformance::list;
use ufs::probe;

use crate::liar::{Liar, told};

/// Returns a server's TLS and its certificate as PEM.
fn self_signed() -> (TlsAcceptor, String) {
    valid_from_to(1975, 4096)
}

/// The same, with a certificate for the time between two years.
fn valid_from_to(first: i32, last: i32) -> (TlsAcceptor, String) {
    let mut certificate = CertificateParams::new(["127.0.0.1".to_string()]).unwrap();
    certificate.not_before = date_time_ymd(first, 1, 1);
    certificate.not_after = date_time_ymd(last, 1, 1);
    let signing_key = KeyPair::generate().unwrap();
    let cert = certificate.self_signed(&signing_key).unwrap();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), cert.pem())
}

#[tokio::test]
async fn a_storage_with_a_certificate_of_its_own_needs_the_ca_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let (tls, pem) = self_signed();
    let bundle = dir.path().join("ca.pem");
    std::fs::write(&bundle, pem).unwrap();
    let page = "<ListBucketResult><Contents><Key>a</Key><Size>1</Size></Contents>\
                </ListBucketResult>";
    let liar = Liar::start_with(tls, |_, _| told("200 OK", &[], page.as_bytes())).await;

    let bundle = bundle.to_str().unwrap();
    let trusting = liar.open_with(&[("ca_bundle", bundle)]).await.unwrap();
    assert_eq!(list(&*trusting, b"").await.unwrap().0.len(), 1);

    let (_, other) = self_signed();
    let wrong = dir.path().join("other.pem");
    std::fs::write(&wrong, other).unwrap();
    let distrusting = liar
        .open_with(&[("ca_bundle", wrong.to_str().unwrap())])
        .await
        .unwrap();
    let deadline = SystemClock.deadline(Duration::from_secs(20));
    let error = probe(&*distrusting, deadline).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert!(error.to_string().contains("ca_bundle"), "{error}");
    assert_eq!(
        distrusting.counters().snapshot().requests(),
        1,
        "not sent again"
    );
}

#[tokio::test]
async fn a_certificate_out_of_its_time_is_said_with_the_clock() {
    for (first, last) in [(1975, 1999), (3000, 4096)] {
        let dir = tempfile::tempdir().unwrap();
        let (tls, pem) = valid_from_to(first, last);
        let bundle = dir.path().join("ca.pem");
        std::fs::write(&bundle, pem).unwrap();
        let liar = Liar::start_with(tls, |_, _| told("200 OK", &[], b"")).await;
        let bundle = ("ca_bundle", bundle.to_str().unwrap());
        let storage = liar.open_with(&[bundle]).await.unwrap();
        let deadline = SystemClock.deadline(Duration::from_secs(20));
        let error = probe(&*storage, deadline).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        let text = error.to_string();
        assert!(text.contains("check the clock of this machine"), "{text}");
    }
}

#[tokio::test]
async fn a_ca_bundle_that_cannot_be_used_is_said_when_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("bundle.pem");
    let liar = Liar::start(|_, _| told("200 OK", &[], b"")).await;
    let path = bundle.to_str().unwrap();
    let absent = liar.open_with(&[("ca_bundle", path)]).await.err().unwrap();
    assert_eq!(absent.kind(), ErrorKind::NotFound);
    assert!(absent.to_string().contains(path), "{absent}");
    std::fs::write(&bundle, "no certificate").unwrap();
    let empty = liar.open_with(&[("ca_bundle", path)]).await.err().unwrap();
    assert_eq!(empty.kind(), ErrorKind::Invalid);
    assert!(
        empty.to_string().contains("no certificate in it"),
        "{empty}"
    );
}
