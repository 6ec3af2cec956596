// SPDX-License-Identifier: Apache-2.0
//! Who asks: service accounts, users, workload identity, the metadata server.
//!
//! Every way ends in an access token, which is got before it is needed and again before it expires.
//! The token may read storage and nothing else.

use std::sync::Arc;

use reqsign_core::{Context, ProvideCredential, Signer};
use reqsign_google::{
    Credential, DefaultCredentialProvider, EnvCredentialProvider, FileCredentialProvider,
    RequestSigner, StaticCredentialProvider, TokenCredentialProvider, VmMetadataCredentialProvider,
    WellKnownCredentialProvider,
};
use types::Clock;

use super::config::Credentials;
use crate::http::{Authorize, Signature};

const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_only";
/// What a user without credentials is told.
const ADVICE: &str = "no usable credentials; set GOOGLE_APPLICATION_CREDENTIALS to a credential \
     file, or give credential_path or credential as options, or run where a metadata server is, or \
     give --anonymous for a public bucket";

/// Prepares to sign, within an environment, files and network.
pub(super) fn authorize(
    credentials: Credentials,
    context: Context,
    clock: Arc<dyn Clock>,
) -> Option<Box<dyn Authorize>> {
    let renewed = Some(clock);
    Some(match credentials {
        Credentials::Anonymous => return None,
        Credentials::Token(token) => {
            signature(context, None, move || TokenCredentialProvider::new(&token))
        }
        Credentials::Content(content) => signature(context, renewed, move || {
            StaticCredentialProvider::new(&content).with_scope(SCOPE)
        }),
        Credentials::File(path) => signature(context, renewed, move || {
            FileCredentialProvider::new(&path).with_scope(SCOPE)
        }),
        Credentials::Chain => signature(context, renewed, || {
            DefaultCredentialProvider::builder()
                .env(EnvCredentialProvider::new().with_scope(SCOPE))
                .well_known(WellKnownCredentialProvider::new().with_scope(SCOPE))
                .vm_metadata(VmMetadataCredentialProvider::new().with_scope(SCOPE))
                .build()
        }),
    })
}

fn signature<P: ProvideCredential<Credential = Credential>>(
    context: Context,
    renewed_by: Option<Arc<dyn Clock>>,
    provider: impl Fn() -> P + Send + Sync + 'static,
) -> Box<dyn Authorize> {
    let make = move || {
        let request = RequestSigner::new("storage").with_scope(SCOPE);
        Signer::new(context.clone(), provider(), request)
    };
    Box::new(Signature::new(make, renewed_by, ADVICE))
}
