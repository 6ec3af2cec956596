// SPDX-License-Identifier: Apache-2.0
//! AWS signature version 4, at the storage's time.
//!
//! A storage refuses a signature whose time is a quarter of an hour off. reqsign's own signer knows
//! this machine's time only; the parts it is made of are used here with the time that the storage
//! tells. What is signed is the head; bytes have checksums of their own.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::HeaderValue;
use http::header::AUTHORIZATION;
use http::request::Parts;
use reqsign_aws_core::signing::{
    canonical_request_string, canonicalize_headers, canonicalize_query,
};
use reqsign_aws_v4::Credential;
use reqsign_core::hash::{hex_hmac_sha256, hex_sha256, hmac_sha256};
use reqsign_core::time::Timestamp;
use reqsign_core::{Context, Error, ProvideCredential, Result, SignRequest, SigningRequest};

use crate::http::Skew;

/// Credentials that end sooner are not good for a request that is about to be sent.
const HEADROOM: Duration = Duration::from_secs(10);

/// Signs requests to S3 in a region.
#[derive(Debug)]
pub(super) struct AtStorageTime {
    pub(super) region: String,
    pub(super) skew: Arc<Skew>,
}

impl SignRequest for AtStorageTime {
    type Credential = Credential;

    fn required_valid_until(&self, _: &Credential, _: Option<Duration>) -> Timestamp {
        Timestamp::now() + HEADROOM
    }

    async fn sign_request(
        &self,
        _: &Context,
        parts: &mut Parts,
        credential: Option<&Credential>,
        _: Option<Duration>,
    ) -> Result<()> {
        let Some(credential) = credential else {
            return Ok(());
        };
        let now = self.skew.now().duration_since(UNIX_EPOCH);
        let now = i64::try_from(now.unwrap_or_default().as_secs()).unwrap_or(i64::MAX);
        let now = Timestamp::from_second(now)?;
        let mut request = SigningRequest::build(parts)?;
        canonicalize_headers(&mut request, credential, None, now)?;
        let query = canonicalize_query(&request, &[]);
        let canonical = hex_sha256(canonical_request_string(&request, &query)?.as_bytes());
        let steps = [&now.format_date(), &self.region, "s3", "aws4_request"];
        let (scope, time) = (steps.join("/"), now.format_iso8601());
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{canonical}");
        let secret = format!("AWS4{}", credential.secret_access_key).into_bytes();
        let key = steps
            .iter()
            .fold(secret, |key, step| hmac_sha256(&key, step.as_bytes()));
        let value = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={}, Signature={}",
            credential.access_key_id,
            request.header_name_to_vec_sorted().join(";"),
            hex_hmac_sha256(&key, text.as_bytes())
        );
        let value = HeaderValue::from_str(&value);
        let mut value = value.map_err(|error| {
            Error::credential_invalid("the key cannot stand in a header").with_source(error)
        })?;
        value.set_sensitive(true);
        request.headers.insert(AUTHORIZATION, value);
        request.apply(parts)
    }
}

/// Finds credentials, and tells their end by our clock, which is the one they are compared with.
#[derive(Debug)]
pub(super) struct ByOurClock<P> {
    pub(super) found_by: P,
    pub(super) skew: Arc<Skew>,
}

impl<P: ProvideCredential<Credential = Credential>> ProvideCredential for ByOurClock<P> {
    type Credential = Credential;

    async fn provide_credential(&self, context: &Context) -> Result<Option<Credential>> {
        let found = self.found_by.provide_credential(context).await?;
        Ok(found.map(|mut credential| {
            let end = credential.expires_in;
            credential.expires_in = end.map(|end| self.by_ours(end));
            credential
        }))
    }
}

impl<P> ByOurClock<P> {
    fn by_ours(&self, end: Timestamp) -> Timestamp {
        let ours = self.skew.by_ours(end.as_system_time());
        let since = ours.duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        Timestamp::from_second(since).unwrap_or(end)
    }
}
