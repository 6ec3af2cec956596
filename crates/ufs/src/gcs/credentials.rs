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
use crate::http::{Authorize, Outcome, Signature};

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
    writes: Arc<AtomicBool>,
) -> Option<Box<dyn Authorize>> {
    let with = |scope| with_scope(credentials, context.clone(), Arc::clone(clock), scope);
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

    fn renew(&self) -> bool {
        self.current().renew()
    }
}

fn with_scope(
    credentials: &Credentials,
    context: Context,
    clock: Arc<dyn Clock>,
    scope: &'static str,
) -> Option<Box<dyn Authorize>> {
    let renewed = Some(clock);
    Some(match credentials.clone() {
        Credentials::Anonymous => return None,
        Credentials::Token(token) => signature(context, None, scope, move || {
            TokenCredentialProvider::new(&token)
        }),
        Credentials::Content(content) => signature(context, renewed, scope, move || {
            StaticCredentialProvider::new(&content).with_scope(scope)
        }),
        Credentials::File(path) => signature(context, renewed, scope, move || {
            FileCredentialProvider::new(&path).with_scope(scope)
        }),
        Credentials::Chain => signature(context, renewed, scope, move || {
            DefaultCredentialProvider::builder()
                .env(EnvCredentialProvider::new().with_scope(scope))
                .well_known(WellKnownCredentialProvider::new().with_scope(scope))
                .vm_metadata(VmMetadataCredentialProvider::new().with_scope(scope))
                .build()
        }),
    })
}

fn signature<P: ProvideCredential<Credential = Credential>>(
    context: Context,
    renewed_by: Option<Arc<dyn Clock>>,
    scope: &'static str,
    provider: impl Fn() -> P + Send + Sync + 'static,
) -> Box<dyn Authorize> {
    let make = move || {
        let request = RequestSigner::new("storage").with_scope(scope);
        Signer::new(context.clone(), provider(), request)
    };
    Box::new(Signature::new(make, renewed_by, ADVICE))
}
