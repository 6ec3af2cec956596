// SPDX-License-Identifier: Apache-2.0
//! Who asks: AWS signature version 4 with what the options give or the usual chain finds.
//!
//! The chain: environment, profile files, single sign-on, web identity, process, container and
//! instance metadata. What is found is kept until it expires or is refused.

use std::sync::Arc;

use reqsign_aws_v4::{DefaultCredentialProvider, RequestSigner, StaticCredentialProvider};
use reqsign_core::{Context, Signer};
use types::Clock;

use super::config::Credentials;
use crate::http::{Authorize, Signature};

/// What a user without credentials is told.
const ADVICE: &str = "no usable credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
     AWS_PROFILE, or give keys by reference (--credentials), or --anonymous for a public bucket";

/// Prepares to sign for a region, within an environment, files and network.
pub(super) fn authorize(
    credentials: Credentials,
    region: &str,
    context: Context,
    clock: Arc<dyn Clock>,
) -> Option<Box<dyn Authorize>> {
    let region = region.to_string();
    match credentials {
        Credentials::Anonymous => None,
        Credentials::Keys { id, secret, token } => {
            let make = move || {
                let keys = StaticCredentialProvider::new(&id, &secret);
                let keys = match &token {
                    Some(token) => keys.with_session_token(token),
                    None => keys,
                };
                let request = RequestSigner::new("s3", &region);
                Signer::new(context.clone(), keys, request)
            };
            Some(Box::new(Signature::new(make, None, ADVICE)))
        }
        Credentials::Chain { profile } => {
            let make = move || {
                let chain = DefaultCredentialProvider::builder();
                let chain = match &profile {
                    // Who names a profile does not mean whoever the environment or the machine is.
                    Some(profile) => chain.with_profile(profile).no_env().no_imds(),
                    None => chain,
                };
                let request = RequestSigner::new("s3", &region);
                Signer::new(context.clone(), chain.build(), request)
            };
            Some(Box::new(Signature::new(make, Some(clock), ADVICE)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use http::Request;
    use reqsign_core::StaticEnv;
    use types::{ManualClock, SystemClock};

    use super::*;
    use crate::http::{Fault, Files};

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
        let chain = Credentials::Chain { profile };
        let signature = authorize(chain, "r-1", context, Arc::new(SystemClock)).unwrap();
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
        let env_keys = [
            files[0],
            files[1],
            ("AWS_ACCESS_KEY_ID", "ENVKEY"),
            ("AWS_SECRET_ACCESS_KEY", "hush"),
        ];
        assert!(sign(Some("nobody"), &env_keys).await.is_err());
        for (profile, envs, id) in [
            (None, &env_keys[..], "ENVKEY"),
            (Some("old"), &env_keys, "OLDKEY"),
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
    async fn credentials_that_were_refused_are_looked_for_again_but_not_all_the_time() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials");
        let write = |id: &str| {
            let keys = format!("aws_access_key_id = {id}\naws_secret_access_key = hush\n");
            std::fs::write(&file, format!("[default]\n{keys}")).unwrap();
        };
        let envs = [
            ("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap()),
            NO_METADATA,
        ];
        let env = StaticEnv {
            home_dir: None,
            envs: HashMap::from(envs.map(|(k, v)| (k.into(), v.into()))),
        };
        let context = Context::new().with_env(env).with_file_read(Files);
        let clock = Arc::new(ManualClock::default());
        let chain = Credentials::Chain { profile: None };
        let signature = authorize(chain, "r-1", context, Arc::clone(&clock) as _).unwrap();
        let signs_as = async |id: &str| {
            let request = Request::get("http://h/b/k").body(()).unwrap();
            let (mut parts, ()) = request.into_parts();
            signature.sign(&mut parts).await.unwrap();
            let who = parts.headers["authorization"].to_str().unwrap();
            who.contains(&format!("Credential={id}/"))
        };
        write("OLD");
        assert!(signs_as("OLD").await);
        write("NEW");
        assert!(signs_as("OLD").await, "kept while it is good");
        assert!(signature.renew());
        assert!(signs_as("NEW").await);
        assert!(!signature.renew(), "too soon");
        clock.advance(std::time::Duration::from_secs(11));
        assert!(signature.renew());
    }

    #[tokio::test]
    async fn without_credentials_the_message_says_how_to_give_some() {
        let error = sign(None, &[]).await.unwrap_err().to_string();
        assert!(
            error.contains("AWS_ACCESS_KEY_ID") && error.contains("--anonymous"),
            "{error}"
        );
    }
}
