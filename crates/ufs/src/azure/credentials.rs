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
use crate::http::{Authorize, Signature, Skew};

/// What a user without credentials is told.
const ADVICE: &str = "no usable credentials; give account_key or sas_token as options, or set \
     AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_CLIENT_ID, AZURE_TENANT_ID and \
     AZURE_CLIENT_SECRET, or --anonymous for a public container";

/// Prepares to sign, within an environment, files and network.
pub(super) fn authorize(
    credentials: Credentials,
    context: Context,
    clock: Arc<dyn Clock>,
    skew: Arc<Skew>,
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
            return Some(Box::new(Signature::new(make, Some(clock), ADVICE, skew)));
        }
    };
    let make = move || Signer::new(context.clone(), fixed.clone(), RequestSigner::new());
    Some(Box::new(Signature::new(make, None, ADVICE, skew)))
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use types::SystemClock;

    use super::*;
    use crate::http::services::{Services, asked_as, environment};

    fn identity(envs: &[(&str, &str)], services: Services) -> Box<dyn Authorize> {
        let who = Credentials::Identity {
            tenant: None,
            client: None,
            secret: None,
        };
        let clock = Arc::new(SystemClock);
        let skew = Skew::new(Arc::clone(&clock) as _);
        authorize(who, environment(envs, services), clock, skew).unwrap()
    }

    /// Counts from 1.
    fn counter() -> impl Fn() -> usize + Send + Sync {
        let count = AtomicUsize::new(0);
        move || count.fetch_add(1, Ordering::Relaxed) + 1
    }

    #[tokio::test]
    async fn the_token_of_a_machine_is_renewed_before_it_ends_and_when_it_is_refused() {
        let next = counter();
        let services = Services::new(move |request| {
            if request.uri().path() != "/metadata/identity/oauth2/token"
                || request.headers().get("metadata").is_none()
            {
                return Err(404);
            }
            let (number, now) = (next(), reqsign_core::time::Timestamp::now());
            let end = now.as_second() + if number < 3 { 10 } else { 3600 };
            Ok(format!(
                "{{\"access_token\":\"t{number}\",\"expires_on\":\"{end}\"}}"
            ))
        });
        let signature = identity(&[], services);
        // One that is good for ten seconds is not good for a request.
        for _ in 0..2 {
            asked_as(&*signature).await.unwrap_err();
        }
        for _ in 0..2 {
            assert_eq!(asked_as(&*signature).await.unwrap(), "Bearer t3");
        }
        assert!(signature.renew(signature.round()), "the storage refused it");
        assert_eq!(asked_as(&*signature).await.unwrap(), "Bearer t4");
    }

    #[tokio::test]
    async fn a_workload_identity_is_exchanged_again_with_the_token_that_is_in_the_file_then() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let services = Services::new(|request| {
            let body = String::from_utf8_lossy(request.body()).into_owned();
            let mut pairs = body.split('&');
            let token = pairs.find_map(|pair| pair.strip_prefix("client_assertion="));
            let token = token.ok_or(400u16)?;
            Ok(format!(
                "{{\"access_token\":\"of-{token}\",\"expires_in\":3600}}"
            ))
        });
        let envs = [
            ("AZURE_FEDERATED_TOKEN_FILE", file.to_str().unwrap()),
            ("AZURE_TENANT_ID", "tenant"),
            ("AZURE_CLIENT_ID", "client"),
        ];
        let signature = identity(&envs, services);
        for (token, wanted) in [("one", "one"), ("two", "one")] {
            std::fs::write(&file, token).unwrap();
            let who = asked_as(&*signature).await.unwrap();
            assert_eq!(who, format!("Bearer of-{wanted}"));
        }
        assert!(signature.renew(signature.round()));
        assert_eq!(asked_as(&*signature).await.unwrap(), "Bearer of-two");
    }
}
