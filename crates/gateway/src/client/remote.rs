// SPDX-License-Identifier: Apache-2.0
//! The way to a daemon over TCP: TLS to a server that proves who it is, and the token.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use types::{Error, ErrorKind, Result};

use crate::token::Token;

/// A daemon at an address.
#[derive(Clone)]
pub(super) struct Remote {
    /// Host and port, as in the URL.
    pub(super) authority: String,
    pub(super) token: Token,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl Remote {
    /// Reads what is needed to ask the daemon at `url`, which is `https://HOST:PORT`.
    pub(super) fn new(url: &str, token_file: &Path, ca: &Path) -> Result<Remote> {
        let wrong = |why: &str| {
            let message = format!("'{url}' {why}: give https://HOST:PORT");
            Error::new(ErrorKind::Invalid, message)
        };
        let authority = url
            .strip_prefix("https://")
            .ok_or_else(|| wrong("is not of TLS"))?
            .trim_end_matches('/');
        let (host, port) = authority
            .rsplit_once(':')
            .ok_or_else(|| wrong("has no port"))?;
        if port.parse::<u16>().is_err() {
            return Err(wrong("has no port"));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(|_| wrong("has no host"))?;
        Ok(Remote {
            authority: authority.to_owned(),
            token: Token::read(token_file)?,
            name,
            config: Arc::new(trusting(ca)?),
        })
    }

    pub(super) async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let fault = |source| Error::new(ErrorKind::Unavailable, "connect").with_source(source);
        let stream = TcpStream::connect(&self.authority).await.map_err(fault)?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        connector
            .connect(self.name.clone(), stream)
            .await
            .map_err(fault)
    }
}

/// Believes certificates that one of this file vouches for, or that are in it.
fn trusting(ca: &Path) -> Result<ClientConfig> {
    let wrong = |why: String| {
        let message = format!("no certificate in PEM in '{}': {why}", ca.display());
        Error::new(ErrorKind::Invalid, message)
    };
    let mut roots = RootCertStore::empty();
    let all = CertificateDer::pem_file_iter(ca).map_err(|source| wrong(source.to_string()))?;
    for one in all {
        let one = one.map_err(|source| wrong(source.to_string()))?;
        roots.add(one).map_err(|source| wrong(source.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("it has none".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| Error::internal("begin TLS").with_source(source))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
