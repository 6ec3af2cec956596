// SPDX-License-Identifier: Apache-2.0
//! Who asks: account key, shared access signature, or an identity of Entra.
//!
//! Identities are looked for in the usual order: service principal with a certificate or a secret,
//! workload identity (a token file), and the managed identity of this machine. The command-line
//! tool's login is not used: a daemon must not depend on a person's session.

use std::sync::Arc;

use reqsign_azure_storage::{
    ClientSecretCredentialProvider, DefaultCredentialProvider, RequestSigner,
    StaticCredentialProvider, WorkloadIdentityCredentialProvider,
};
use reqsign_core::{Context, Signer};
use types::Clock;

use super::config::Credentials;
use crate::http::{Authorize, Signature};

/// What a user without credentials is told.
const ADVICE: &str = "no usable credentials; give account_key or sas_token as options, or set \
     AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_CLIENT_ID, AZURE_TENANT_ID and \
     AZURE_CLIENT_SECRET, or --anonymous for a public container";

/// Prepares to sign, within an environment, files and network.
pub(super) fn authorize(
    credentials: Credentials,
    context: Context,
    clock: Arc<dyn Clock>,
) -> Option<Box<dyn Authorize>> {
    let fixed = match credentials {
        Credentials::Anonymous => return None,
        Credentials::Key { account, key } => {
            StaticCredentialProvider::new_shared_key(&account, &key)
        }
        Credentials::Sas(token) => StaticCredentialProvider::new_sas_token(&token),
        Credentials::Identity {
            tenant,
            client,
            secret,
        } => {
            let make = move || {
                let chain = chain(tenant.as_deref(), client.as_deref(), secret.as_deref());
                Signer::new(context.clone(), chain, RequestSigner::new())
            };
            return Some(Box::new(Signature::new(make, Some(clock), ADVICE)));
        }
    };
    let make = move || Signer::new(context.clone(), fixed.clone(), RequestSigner::new());
    Some(Box::new(Signature::new(make, None, ADVICE)))
}

fn chain(
    tenant: Option<&str>,
    client: Option<&str>,
    secret: Option<&str>,
) -> DefaultCredentialProvider {
    let mut principal = ClientSecretCredentialProvider::new();
    let mut workload = WorkloadIdentityCredentialProvider::new();
    if let Some(tenant) = tenant {
        principal = principal.with_tenant_id(tenant);
        workload = workload.with_tenant_id(tenant);
    }
    if let Some(client) = client {
        principal = principal.with_client_id(client);
        workload = workload.with_client_id(client);
    }
    if let Some(secret) = secret {
        principal = principal.with_client_secret(secret);
    }
    DefaultCredentialProvider::builder()
        .no_env()
        .no_azure_cli()
        .no_azure_pipelines()
        .client_secret(principal)
        .workload_identity(workload)
        .build()
}
