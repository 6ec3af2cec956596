// SPDX-License-Identifier: Apache-2.0
//! Who asks: finds credentials, keeps them while they are good, and signs requests.
//!
//! The signing itself is reqsign's, per storage; here is what all of them need. Metadata services
//! get little time to answer, so that a machine without one learns it fast. Credentials that a
//! storage refuses before their time are looked for again: files and variables change.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, Response, header};
use reqsign_core::{Context, FileRead, HttpSend, OsEnv, Signer, SigningCredential};
use types::{Clock, Deadline};

use super::Outcome;
use super::command::Commands;
use super::fault::Fault;
use super::skew::Skew;
use super::tls::Clients;
use crate::Counters;
use crate::counters::count;

/// Metadata services are one hop away.
const METADATA_PATIENCE: Duration = Duration::from_secs(2);
/// Token services are on the other side of the internet.
const TOKEN_PATIENCE: Duration = Duration::from_secs(10);
/// Answers with credentials are a few kilobytes.
const CREDENTIAL_MAX: usize = 1 << 20;
/// Credentials that stay wrong are not looked for with every request.
const RENEWAL_PAUSE: Duration = Duration::from_secs(10);

/// Says in a request who asks.
#[async_trait]
pub(crate) trait Authorize: Send + Sync {
    /// Adds what proves it.
    async fn sign(&self, parts: &mut Parts) -> Outcome<()>;

    /// Forgets the credentials of a round, which were refused; `false` when looking again is of no
    /// use. `true` also when another request did so meanwhile.
    fn renew(&self, _round: u64) -> bool {
        false
    }

    /// Returns how often other credentials took the place of those before.
    fn round(&self) -> u64 {
        0
    }

    /// Returns whether looking again costs so little that each denial is worth it, whatever the
    /// storage says of its reason.
    fn heeds_denials(&self) -> bool {
        false
    }

    /// Returns whether what is added holds the storage's time, so that it was refused for a time
    /// that was taken wrong.
    fn tells_time(&self) -> bool {
        false
    }
}

/// Signs with what a provider of reqsign finds.
pub(crate) struct Signature<C: SigningCredential> {
    make: Box<dyn Fn() -> Signer<C> + Send + Sync>,
    /// Locked for as long as it takes to clone a signer or to put a new one there.
    signer: RwLock<Signer<C>>,
    renewal: Option<Renewal>,
    advice: &'static str,
    skew: Arc<Skew>,
    tells_time: bool,
}

/// When credentials may be looked for again.
struct Renewal {
    clock: Arc<dyn Clock>,
    next: RwLock<Option<Deadline>>,
    /// How often they were.
    round: AtomicU64,
}

impl<C: SigningCredential> Signature<C> {
    /// Prepares to sign; `advice` is what a user without credentials is told. Credentials that come
    /// from elsewhere than the options are renewed when there is a clock.
    pub(crate) fn new(
        make: impl Fn() -> Signer<C> + Send + Sync + 'static,
        renewed_by: Option<Arc<dyn Clock>>,
        advice: &'static str,
        skew: Arc<Skew>,
    ) -> Self {
        Signature {
            signer: RwLock::new(make()),
            make: Box::new(make),
            renewal: renewed_by.map(|clock| Renewal {
                clock,
                next: RwLock::new(None),
                round: AtomicU64::new(0),
            }),
            advice,
            skew,
            tells_time: false,
        }
    }

    /// Says that the signatures hold the storage's time.
    pub(crate) fn telling_time(self) -> Self {
        Signature {
            tells_time: true,
            ..self
        }
    }
}

#[async_trait]
impl<C: SigningCredential> Authorize for Signature<C> {
    async fn sign(&self, parts: &mut Parts) -> Outcome<()> {
        let signer = self
            .signer
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        // The signer's own words may hold parts of what it read; they are not passed on.
        signer.sign(parts, None).await.map_err(|error| {
            tracing::debug!(kind = ?error.kind(), "no signature");
            Fault::Credentials(match self.skew.advice() {
                Some(clock) => format!("{}; {clock}", self.advice),
                None => self.advice.into(),
            })
        })?;
        // The client sets it from the URL.
        parts.headers.remove(header::HOST);
        Ok(())
    }

    fn renew(&self, round: u64) -> bool {
        let Some(renewal) = &self.renewal else {
            return false;
        };
        let mut next = renewal.next.write().unwrap_or_else(PoisonError::into_inner);
        if self.round() != round {
            return true;
        }
        let now = renewal.clock.now();
        if next.is_some_and(|next| !next.left(now).is_zero()) {
            return false;
        }
        *next = Some(renewal.clock.deadline(RENEWAL_PAUSE));
        *self.signer.write().unwrap_or_else(PoisonError::into_inner) = (self.make)();
        renewal.round.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn round(&self) -> u64 {
        let renewal = self.renewal.as_ref();
        renewal.map_or(0, |renewal| renewal.round.load(Ordering::Relaxed))
    }

    fn tells_time(&self) -> bool {
        self.tells_time
    }
}

/// Sends the same token with each request.
pub(crate) struct Bearer {
    /// Locked for as long as it takes to clone or replace it.
    value: RwLock<HeaderValue>,
    /// The file it came from.
    file: Option<PathBuf>,
    /// How often it was replaced.
    round: AtomicU64,
}

impl Bearer {
    /// Takes a token; `None` when it has characters that no token has.
    pub(crate) fn new(token: &str) -> Option<Self> {
        Self::of_header(&format!("Bearer {}", token.trim()))
    }

    /// Takes the whole value of the header `Authorization`.
    pub(crate) fn of_header(value: &str) -> Option<Self> {
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        Some(Bearer {
            value: RwLock::new(value),
            file: None,
            round: AtomicU64::new(0),
        })
    }

    /// Takes the token in a file, and another one when it is refused and the file has changed.
    pub(crate) fn of_file(file: PathBuf) -> Option<Self> {
        let bearer = Self::new(&std::fs::read_to_string(&file).ok()?)?;
        Some(Bearer {
            file: Some(file),
            ..bearer
        })
    }
}

#[async_trait]
impl Authorize for Bearer {
    async fn sign(&self, parts: &mut Parts) -> Outcome<()> {
        let value = self.value.read().unwrap_or_else(PoisonError::into_inner);
        parts.headers.insert(header::AUTHORIZATION, value.clone());
        Ok(())
    }

    fn renew(&self, round: u64) -> bool {
        let Some(Bearer { value: new, .. }) = self.file.clone().and_then(Self::of_file) else {
            return false;
        };
        let new = new.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut value = self.value.write().unwrap_or_else(PoisonError::into_inner);
        let changed = std::mem::replace(&mut *value, new.clone()) != new;
        self.round.fetch_add(u64::from(changed), Ordering::Relaxed);
        changed || self.round() != round
    }

    fn round(&self) -> u64 {
        self.round.load(Ordering::Relaxed)
    }
}

/// Returns the environment, files and network in which credentials are looked for.
pub(crate) fn signing_context(
    clients: &Clients,
    counters: Arc<Counters>,
    skew: Arc<Skew>,
) -> Context {
    Context::new()
        .with_env(OsEnv)
        .with_file_read(Files)
        .with_http_send(CredentialHttp {
            clients: clients.clone(),
            counters,
            skew,
        })
        .with_command_execute(Commands)
}

/// Reads profile and token files.
#[derive(Debug)]
pub(crate) struct Files;

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
    skew: Arc<Skew>,
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
            Ok(Ok(answer)) => {
                self.skew.learn(answer.headers());
                Ok(answer)
            }
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
