// SPDX-License-Identifier: Apache-2.0
//! What tests need to change a storage over HTTP behind a driver's back.

use std::sync::Arc;

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
