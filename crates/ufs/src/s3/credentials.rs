// SPDX-License-Identifier: Apache-2.0
//! Who asks: AWS signature version 4 with what the options give or the usual chain finds.
//!
//! The chain: environment, profile files, single sign-on, web identity, process, container and
//! instance metadata. What is found is kept until it expires or is refused.

use std::sync::Arc;

use reqsign_aws_v4::{DefaultCredentialProvider, StaticCredentialProvider};
use reqsign_core::{Context, Signer};
use types::Clock;

use super::config::Credentials;
use super::signature::{AtStorageTime, ByOurClock};
use crate::http::{Authorize, Signature, Skew};

/// What a user without credentials is told.
const ADVICE: &str = "no usable credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
     AWS_PROFILE, or give keys by reference (--credentials), or --anonymous for a public bucket";

/// Prepares to sign for a region, within an environment, files and network.
pub(super) fn authorize(
    credentials: Credentials,
    region: &str,
    context: Context,
    clock: Arc<dyn Clock>,
    skew: Arc<Skew>,
) -> Option<Box<dyn Authorize>> {
    let region = region.to_string();
    let signed_by = Arc::clone(&skew);
    let request = move || AtStorageTime {
        region: region.clone(),
        skew: Arc::clone(&signed_by),
    };
    match credentials {
        Credentials::Anonymous => None,
        Credentials::Keys { id, secret, token } => {
            let make = move || {
                let keys = StaticCredentialProvider::new(&id, &secret);
                let keys = match &token {
                    Some(token) => keys.with_session_token(token),
                    None => keys,
                };
                Signer::new(context.clone(), keys, request())
            };
            let signature = Signature::new(make, None, ADVICE, skew);
            Some(Box::new(signature.telling_time()))
        }
        Credentials::Chain { profile } => {
            let ends = Arc::clone(&skew);
            let make = move || {
                let chain = DefaultCredentialProvider::builder();
                let chain = match &profile {
                    // Who names a profile does not mean whoever the environment or the machine is.
                    Some(profile) => chain.with_profile(profile).no_env().no_imds(),
                    None => chain,
                };
                let chain = ByOurClock {
                    found_by: chain.build(),
                    skew: Arc::clone(&ends),
                };
                Signer::new(context.clone(), chain, request())
            };
            let signature = Signature::new(make, Some(clock), ADVICE, skew);
            Some(Box::new(signature.telling_time()))
        }
    }
}

#[cfg(test)]
mod tests;
