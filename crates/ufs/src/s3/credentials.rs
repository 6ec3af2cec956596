// SPDX-License-Identifier: Apache-2.0
//! Who asks: finds credentials and signs requests (AWS signature version 4).
//!
//! The chain is the usual one: environment, profile files, single sign-on, web identity, process,
//! container and instance metadata. Metadata services get a second to answer, so that a machine
//! without one learns it fast. What is found is kept until it expires, inside the signer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, header};
use reqsign_aws_v4::{
    Credential, DefaultCredentialProvider, RequestSigner, StaticCredentialProvider,
};
use reqsign_core::{Context, FileRead, HttpSend, OsEnv, Signer};

use super::config::Credentials;
use super::fault::Fault;
use super::tls::Clients;
use crate::Counters;
use crate::counters::count;

/// Metadata services are one hop away.
const METADATA_PATIENCE: Duration = Duration::from_secs(2);
/// Token services are on the other side of the internet.
const TOKEN_PATIENCE: Duration = Duration::from_secs(10);
/// Answers with credentials are a few kilobytes.
const CREDENTIAL_MAX: usize = 1 << 20;

/// Signs requests, or does not.
pub(super) struct Signature {
    signer: Option<Signer<Credential>>,
    secrets: Vec<String>,
}

impl Signature {
    /// Prepares to sign for a region; `clients` send the requests that credentials need.
    pub(super) fn new(
        credentials: Credentials,
        region: &str,
        clients: Clients,
        counters: Arc<Counters>,
    ) -> Self {
        let secrets = credentials.secrets();
        let context = Context::new()
            .with_env(OsEnv)
            .with_file_read(Files)
            .with_http_send(CredentialHttp { clients, counters });
        let request = RequestSigner::new("s3", region);
        let signer = match credentials {
            Credentials::Anonymous => None,
            Credentials::Keys { id, secret, token } => {
                let keys = StaticCredentialProvider::new(&id, &secret);
                let keys = match token {
                    Some(token) => keys.with_session_token(&token),
                    None => keys,
                };
                Some(Signer::new(context, keys, request))
            }
            Credentials::Chain { profile } => {
                let chain = DefaultCredentialProvider::builder();
                let chain = match profile {
                    Some(profile) => chain.with_profile(profile),
                    None => chain,
                };
                Some(Signer::new(context, chain.build(), request))
            }
        };
        Signature { signer, secrets }
    }

    /// Adds the headers that prove who asks.
    pub(super) async fn sign(&self, parts: &mut Parts) -> Result<(), Fault> {
        let Some(signer) = &self.signer else {
            return Ok(());
        };
        // The signer's own words may hold parts of what it read; they are not passed on.
        signer.sign(parts, None).await.map_err(|error| {
            tracing::debug!(kind = ?error.kind(), "no signature");
            Fault::Credentials(
                "no usable credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
                 AWS_PROFILE, or give keys as options, or set anonymous=true for a public bucket"
                    .into(),
            )
        })?;
        // The client sets it from the URL.
        parts.headers.remove(header::HOST);
        Ok(())
    }

    /// Takes given secrets out of a text, should a storage echo them.
    pub(super) fn hide_secrets(&self, text: String) -> String {
        self.secrets.iter().fold(text, |text, secret| {
            text.replace(secret.as_str(), "(hidden)")
        })
    }
}

/// Reads profile and token files.
#[derive(Debug)]
struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        let read = tokio::fs::read(path).await;
        read.map_err(|error| reqsign_core::Error::config_invalid(format!("read {path}: {error}")))
    }
}

/// Asks metadata and token services.
struct CredentialHttp {
    clients: Clients,
    counters: Arc<Counters>,
}

impl fmt::Debug for CredentialHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialHttp")
    }
}

impl HttpSend for CredentialHttp {
    async fn http_send(&self, request: Request<Bytes>) -> reqsign_core::Result<Response<Bytes>> {
        count(&self.counters.other);
        let (client, patience) = match request.uri().scheme_str() {
            Some("https") => (&self.clients.storage, TOKEN_PATIENCE),
            _ => (&self.clients.metadata, METADATA_PATIENCE),
        };
        let answer = tokio::time::timeout(patience, exchange(client, request)).await;
        let failed = |why: String| reqsign_core::Error::unexpected(why);
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(failed(format!("no answer for {patience:?}"))),
        }
    }
}

async fn exchange(
    client: &reqwest::Client,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, String> {
    let (parts, body) = request.into_parts();
    let url = reqwest::Url::parse(&parts.uri.to_string()).map_err(|error| error.to_string())?;
    let mut request = reqwest::Request::new(parts.method, url);
    *request.headers_mut() = parts.headers;
    *request.body_mut() = Some(body.into());
    let text = |error: reqwest::Error| error.without_url().to_string();
    let mut answer = client.execute(request).await.map_err(text)?;
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(text)? {
        body.extend_from_slice(&piece);
        if body.len() > CREDENTIAL_MAX {
            return Err("an answer too long for credentials".into());
        }
    }
    Ok(response.map(|_| body.into()))
}
