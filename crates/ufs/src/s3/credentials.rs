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
        let context = Context::new()
            .with_env(OsEnv)
            .with_file_read(Files)
            .with_http_send(CredentialHttp { clients, counters });
        Signature::within(context, credentials, region)
    }

    /// As [`Signature::new`], with another environment, files and network.
    fn within(context: Context, credentials: Credentials, region: &str) -> Self {
        let secrets = credentials.secrets();
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use reqsign_core::StaticEnv;

    use super::*;

    const NO_METADATA: (&str, &str) = ("AWS_EC2_METADATA_DISABLED", "true");

    /// Signs a request with what the chain finds; returns the headers that say who asks.
    async fn sign(profile: Option<&str>, envs: &[(&str, &str)]) -> Result<[String; 2], Fault> {
        let envs = envs.iter().chain([&NO_METADATA]);
        let env = StaticEnv {
            home_dir: None,
            envs: HashMap::from_iter(envs.map(|(k, v)| ((*k).into(), (*v).into()))),
        };
        let context = Context::new().with_env(env).with_file_read(Files);
        let profile = profile.map(String::from);
        let signature = Signature::within(context, Credentials::Chain { profile }, "r-1");
        let request = Request::get("http://h/b/k").body(()).unwrap();
        let (mut parts, ()) = request.into_parts();
        signature.sign(&mut parts).await?;
        let header = |name| {
            let value = parts.headers.get(name).map(|value| value.to_str().unwrap());
            value.unwrap_or_default().to_owned()
        };
        Ok([header("authorization"), header("x-amz-security-token")])
    }

    #[tokio::test]
    async fn keys_of_the_environment_sign_with_their_token() {
        let envs = [
            ("AWS_ACCESS_KEY_ID", "ENVKEY"),
            ("AWS_SECRET_ACCESS_KEY", "hush"),
            ("AWS_SESSION_TOKEN", "passing"),
        ];
        let [who, token] = sign(None, &envs).await.unwrap();
        assert!(
            who.contains("Credential=ENVKEY/") && who.contains("/r-1/s3/"),
            "{who}"
        );
        assert_eq!(token, "passing");
    }

    #[tokio::test]
    async fn keys_of_a_profile_are_found_in_both_files() {
        let dir = tempfile::tempdir().unwrap();
        let credentials = dir.path().join("credentials");
        let keys = |id| format!("aws_access_key_id = {id}\naws_secret_access_key = hush\n");
        let text = format!("[default]\n{}[lab]\n{}", keys("DEFAULTKEY"), keys("LABKEY"));
        std::fs::write(&credentials, text).unwrap();
        let config = dir.path().join("config");
        std::fs::write(&config, format!("[profile old]\n{}", keys("OLDKEY"))).unwrap();
        let files = [
            ("AWS_SHARED_CREDENTIALS_FILE", credentials.to_str().unwrap()),
            ("AWS_CONFIG_FILE", config.to_str().unwrap()),
        ];
        let lab = [files[0], files[1], ("AWS_PROFILE", "lab")];
        for (profile, envs, id) in [
            (None, &files[..], "DEFAULTKEY"),
            (None, &lab, "LABKEY"),
            (Some("default"), &lab, "DEFAULTKEY"),
            (Some("old"), &files, "OLDKEY"),
        ] {
            let [who, _] = sign(profile, envs).await.unwrap();
            assert!(
                who.contains(&format!("Credential={id}/")),
                "{profile:?}: {who}"
            );
        }
    }

    #[tokio::test]
    async fn without_credentials_the_message_says_how_to_give_some() {
        let error = sign(None, &[]).await.unwrap_err().to_string();
        assert!(
            error.contains("AWS_ACCESS_KEY_ID") && error.contains("anonymous=true"),
            "{error}"
        );
    }
}
