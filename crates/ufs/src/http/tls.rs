// SPDX-License-Identifier: Apache-2.0
//! The HTTP clients: pools, proxies, and whom we trust.
//!
//! Trust comes from the CA bundle of the options, else from the system. Plain HTTP needs neither.
//! Proxies of the environment (`HTTPS_PROXY`, `NO_PROXY`) are followed, but not to this machine
//! itself, nor to metadata services, which are next door.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use types::{Error, ErrorKind, Result};

/// A storage that takes longer to take a connection is down, or behind a firewall that drops.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Metadata services are one hop away, or absent.
const METADATA_PATIENCE: Duration = Duration::from_secs(1);
/// Below the minute after which common load balancers drop idle connections.
const IDLE: Duration = Duration::from_secs(50);

/// The client for the storage and token services, and the one for metadata services.
#[derive(Clone)]
pub(crate) struct Clients {
    pub(crate) storage: reqwest::Client,
    pub(crate) metadata: reqwest::Client,
}

impl Clients {
    /// Makes both, for a storage at `endpoint`.
    pub(crate) fn new(
        ca_bundle: Option<&Path>,
        endpoint: &str,
        connections: usize,
    ) -> Result<Self> {
        let tls = tls(ca_bundle, endpoint.starts_with("https:"))?;
        let build = |builder: reqwest::ClientBuilder| {
            builder
                .tls_backend_preconfigured(tls.clone())
                .http1_only()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .map_err(|error| Error::internal("make an HTTP client").with_source(error))
        };
        let storage = reqwest::Client::builder()
            .connect_timeout(CONNECT_PATIENCE)
            .pool_max_idle_per_host(connections)
            .pool_idle_timeout(IDLE)
            .tcp_keepalive(Duration::from_secs(15));
        let storage = if is_loopback(endpoint) {
            storage.no_proxy()
        } else {
            storage
        };
        let metadata = reqwest::Client::builder()
            .connect_timeout(METADATA_PATIENCE)
            .pool_max_idle_per_host(0)
            .no_proxy();
        Ok(Clients {
            storage: build(storage)?,
            metadata: build(metadata)?,
        })
    }
}

/// Returns whether an endpoint is on this machine.
fn is_loopback(endpoint: &str) -> bool {
    let url = reqwest::Url::parse(endpoint).ok();
    url.as_ref()
        .and_then(reqwest::Url::host_str)
        .is_some_and(|host| {
            let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
            host == "localhost" || address.is_ok_and(|address| address.is_loopback())
        })
}

fn tls(ca_bundle: Option<&Path>, secure: bool) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match ca_bundle {
        Some(path) => roots.add_parsable_certificates(read_bundle(path)?),
        None => roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    };
    if roots.is_empty() && secure {
        return Err(Error::new(
            ErrorKind::Invalid,
            "no certificate authorities found on this machine; install ca-certificates or set the \
             option 'ca_bundle'",
        ));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("set up TLS").with_source(error))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn read_bundle(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let what = || format!("read the CA bundle {}", path.display());
    let bytes = std::fs::read(path).map_err(|error| Error::io(what(), error))?;
    let certificates = CertificateDer::pem_slice_iter(&bytes)
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|error| Error::new(ErrorKind::Invalid, format!("{}: {error}", what())))?;
    match certificates.is_empty() {
        true => Err(Error::new(
            ErrorKind::Invalid,
            format!("{}: no certificate in it; it should be a PEM file", what()),
        )),
        false => Ok(certificates),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_stands_between_us_and_this_machine() {
        for here in [
            "http://127.0.0.1:9000",
            "https://localhost",
            "http://[::1]:1/",
        ] {
            assert!(is_loopback(here), "{here}");
        }
        for there in [
            "http://10.0.0.1",
            "https://localhost.example",
            "https://s3.example",
        ] {
            assert!(!is_loopback(there), "{there}");
        }
    }
}
