// SPDX-License-Identifier: Apache-2.0
//! Who asks: service accounts, users, workload identity, the metadata server.
//!
//! Every way ends in an access token, which is got before it is needed and again before it expires.
//! The token may read storage and nothing else, or also write it for a mount that does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use http::request::Parts;
use reqsign_core::{Context, ProvideCredential, Signer};
use reqsign_google::{
    Credential, DefaultCredentialProvider, EnvCredentialProvider, FileCredentialProvider,
    RequestSigner, StaticCredentialProvider, TokenCredentialProvider, VmMetadataCredentialProvider,
    WellKnownCredentialProvider,
};
use types::Clock;

use super::config::Credentials;
use crate::http::{Authorize, Outcome, Signature, Skew};

const READING: &str = "https://www.googleapis.com/auth/devstorage.read_only";
const WRITING: &str = "https://www.googleapis.com/auth/devstorage.read_write";
/// What a user without credentials is told.
const ADVICE: &str = "no usable credentials; set GOOGLE_APPLICATION_CREDENTIALS to a credential \
     file, or give credential_path or credential as options, or run where a metadata server is, or \
     give --anonymous for a public bucket";

/// Prepares to sign, within an environment, files and network. Tokens are good for reading only until
/// `writes` says that the mount writes.
pub(super) fn authorize(
    credentials: &Credentials,
    context: &Context,
    clock: &Arc<dyn Clock>,
    skew: &Arc<Skew>,
    writes: Arc<AtomicBool>,
) -> Option<Box<dyn Authorize>> {
    let with = |scope| {
        let who = Asking {
            context: context.clone(),
            clock: Arc::clone(clock),
            skew: Arc::clone(skew),
            scope,
        };
        with_scope(credentials, who)
    };
    Some(Box::new(Scoped {
        writes,
        reading: with(READING)?,
        writing: with(WRITING)?,
    }))
}

/// Asks for no more than the mount needs.
struct Scoped {
    writes: Arc<AtomicBool>,
    reading: Box<dyn Authorize>,
    writing: Box<dyn Authorize>,
}

impl Scoped {
    fn current(&self) -> &dyn Authorize {
        match self.writes.load(Ordering::Relaxed) {
            true => &*self.writing,
            false => &*self.reading,
        }
    }
}

#[async_trait]
impl Authorize for Scoped {
    async fn sign(&self, parts: &mut Parts) -> Outcome<()> {
        self.current().sign(parts).await
    }

    fn renew(&self, round: u64) -> bool {
        let other = match self.writes.load(Ordering::Relaxed) {
            true => &self.reading,
            false => &self.writing,
        };
        self.current().renew(round.saturating_sub(other.round()))
    }

    fn round(&self) -> u64 {
        self.reading.round() + self.writing.round()
    }
}

/// Where a token is asked for, and for what.
struct Asking {
    context: Context,
    clock: Arc<dyn Clock>,
    skew: Arc<Skew>,
    scope: &'static str,
}

fn with_scope(credentials: &Credentials, who: Asking) -> Option<Box<dyn Authorize>> {
    let scope = who.scope;
    Some(match credentials.clone() {
        Credentials::Anonymous => return None,
        Credentials::Token(token) => {
            signature(who, false, move || TokenCredentialProvider::new(&token))
        }
        Credentials::Content(content) => signature(who, true, move || {
            StaticCredentialProvider::new(&content).with_scope(scope)
        }),
        Credentials::File(path) => signature(who, true, move || {
            FileCredentialProvider::new(&path).with_scope(scope)
        }),
        Credentials::Chain => signature(who, true, move || {
            DefaultCredentialProvider::builder()
                .env(EnvCredentialProvider::new().with_scope(scope))
                .well_known(WellKnownCredentialProvider::new().with_scope(scope))
                .vm_metadata(VmMetadataCredentialProvider::new().with_scope(scope))
                .build()
        }),
    })
}

fn signature<P: ProvideCredential<Credential = Credential>>(
    who: Asking,
    renews: bool,
    provider: impl Fn() -> P + Send + Sync + 'static,
) -> Box<dyn Authorize> {
    let Asking {
        context,
        clock,
        skew,
        scope,
    } = who;
    let make = move || {
        let request = RequestSigner::new("storage").with_scope(scope);
        Signer::new(context.clone(), provider(), request)
    };
    Box::new(Signature::new(make, renews.then_some(clock), ADVICE, skew))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use types::SystemClock;

    use super::*;
    use crate::http::services::{Services, asked_as, environment};

    fn reader(credentials: &Credentials, services: Services) -> Box<dyn Authorize> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let skew = Skew::new(Arc::clone(&clock));
        let context = environment(&[], services);
        authorize(credentials, &context, &clock, &skew, Arc::default()).unwrap()
    }

    #[tokio::test]
    async fn the_token_of_a_machine_is_renewed_before_it_ends_and_when_it_is_refused() {
        let given = AtomicUsize::new(0);
        let services = Services::new(move |request| {
            let place = "/computeMetadata/v1/instance/service-accounts/default/token";
            let asks = request.uri().query().unwrap_or_default();
            if request.uri().path() != place
                || request.headers().get("metadata-flavor").is_none()
                || !asks.contains("devstorage.read_only")
            {
                return Err(404);
            }
            let number = given.fetch_add(1, Ordering::Relaxed) + 1;
            let seconds = if number < 3 { 60 } else { 3600 };
            Ok(format!(
                "{{\"access_token\":\"t{number}\",\"expires_in\":{seconds}}}"
            ))
        });
        let signature = reader(&Credentials::Chain, services);
        for wanted in ["t1", "t2", "t3", "t3"] {
            let who = asked_as(&*signature).await.unwrap();
            assert_eq!(who, format!("Bearer {wanted}"));
        }
        assert!(signature.renew(signature.round()), "the storage refused it");
        assert_eq!(asked_as(&*signature).await.unwrap(), "Bearer t4");
    }

    #[tokio::test]
    async fn a_credential_file_is_read_again_when_its_token_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials.json");
        let services = Services::new(|request| {
            let body: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
            let token = body["refresh_token"].as_str().ok_or(400u16)?.to_owned();
            Ok(format!(
                "{{\"access_token\":\"of-{token}\",\"expires_in\":3600}}"
            ))
        });
        let path = file.to_str().unwrap().to_owned();
        let signature = reader(&Credentials::File(path), services);
        for (token, wanted) in [("one", "one"), ("two", "one")] {
            let text = format!(
                "{{\"type\":\"authorized_user\",\"client_id\":\"c\",\"client_secret\":\"hush\",\
                 \"refresh_token\":\"{token}\"}}"
            );
            std::fs::write(&file, text).unwrap();
            let who = asked_as(&*signature).await.unwrap();
            assert_eq!(who, format!("Bearer of-{wanted}"));
        }
        assert!(signature.renew(signature.round()));
        assert_eq!(asked_as(&*signature).await.unwrap(), "Bearer of-two");
    }
}
