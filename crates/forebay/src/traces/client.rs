// SPDX-License-Identifier: Apache-2.0
//! The way to a collector: the HTTP client that storages are asked with, with the same TLS.
//!
//! Certificates are those that the system trusts. Headers, such as a token, come from the environment
//! (`OTEL_EXPORTER_OTLP_HEADERS`), where the exporter finds them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore};

/// A collector has little to say; more of it is not worth reading.
const ANSWER_MAX_BYTES: usize = 64 << 10;

/// Words of a collector that refuses that are kept.
const WORDS_MAX: usize = 200;

/// Sends batches.
#[derive(Debug, Clone)]
pub(super) struct Client {
    client: reqwest::Client,
    /// Why the latest batch was not taken, which the exporter does not pass on.
    cause: Arc<Mutex<Option<String>>>,
}

impl Client {
    /// Makes a client for a collector; an answer may take so long.
    pub(super) fn new(collector: &str, patience: Duration) -> Result<Client> {
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(collector)?)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(patience)
            .pool_max_idle_per_host(1);
        let url = reqwest::Url::parse(collector).context("address of a collector")?;
        let is_here = url.host_str().is_some_and(|host| {
            let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
            host == "localhost" || address.is_ok_and(|address| address.is_loopback())
        });
        let builder = if is_here { builder.no_proxy() } else { builder };
        Ok(Client {
            client: builder.build().context("make an HTTP client")?,
            cause: Arc::default(),
        })
    }

    /// Returns why the latest batch was not taken.
    pub(super) fn cause(&self) -> Option<String> {
        self.cause.lock().clone()
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>> {
        let mut answer = self.client.execute(request.try_into()?).await?;
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = answer.status();
        *response.headers_mut() = std::mem::take(answer.headers_mut());
        let mut body = Vec::new();
        while body.len() < ANSWER_MAX_BYTES
            && let Some(piece) = answer.chunk().await?
        {
            body.extend_from_slice(&piece);
        }
        *response.body_mut() = body.into();
        Ok(response)
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let exchanged = self.exchange(request).await;
        *self.cause.lock() = match &exchanged {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => {
                let words = String::from_utf8_lossy(response.body());
                let is_plain = |c: &char| !c.is_control();
                let words: String = words.chars().filter(is_plain).take(WORDS_MAX).collect();
                Some(format!("it answers {}: {words}", response.status()))
            }
            Err(error) => Some(format!("{error:#}")),
        };
        exchanged.map_err(Into::into)
    }
}

fn tls(collector: &str) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if collector.starts_with("https:") {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        anyhow::ensure!(
            !roots.is_empty(),
            "no certificate authorities found on this machine; install ca-certificates"
        );
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("set up TLS")?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
