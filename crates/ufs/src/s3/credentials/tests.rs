// SPDX-License-Identifier: Apache-2.0
//! Whose keys sign, and when they are looked for again.

use std::collections::HashMap;

use http::Request;
use reqsign_core::StaticEnv;
use types::{ManualClock, SystemClock};

use super::*;
use crate::http::services::{Services, asked_as, environment};
use crate::http::{Fault, Files};

const NO_METADATA: (&str, &str) = ("AWS_EC2_METADATA_DISABLED", "true");

fn authorize_by(
    credentials: Credentials,
    context: Context,
    clock: Arc<dyn Clock>,
) -> Box<dyn Authorize> {
    let skew = Skew::new(Arc::clone(&clock));
    authorize(credentials, "r-1", context, clock, skew).unwrap()
}

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
    let signature = authorize_by(chain, context, Arc::new(SystemClock));
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
    let signature = authorize_by(chain, context, Arc::clone(&clock) as _);
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
    assert!(signature.renew(signature.round()));
    assert!(signs_as("NEW").await);
    assert!(!signature.renew(signature.round()), "too soon");
    clock.advance(std::time::Duration::from_secs(11));
    assert!(signature.renew(signature.round()));
}

#[tokio::test]
async fn without_credentials_the_message_says_how_to_give_some() {
    let error = sign(None, &[]).await.unwrap_err().to_string();
    assert!(
        error.contains("AWS_ACCESS_KEY_ID") && error.contains("--anonymous"),
        "{error}"
    );
}

/// Prepares to sign with what the chain finds in an environment, at services of a test.
fn chain_in(envs: &[(&str, &str)], services: Services) -> Box<dyn Authorize> {
    let chain = Credentials::Chain { profile: None };
    authorize_by(chain, environment(envs, services), Arc::new(SystemClock))
}

/// Returns the key that a request is signed with.
async fn signed_with(signature: &dyn Authorize) -> String {
    let who = asked_as(signature).await.unwrap();
    let key = who.strip_prefix("AWS4-HMAC-SHA256 Credential=").unwrap();
    key.split('/').next().unwrap().to_owned()
}

fn end_in(seconds: i64) -> String {
    let now = reqsign_core::time::Timestamp::now().as_second();
    let end = reqsign_core::time::Timestamp::from_second(now + seconds);
    end.unwrap().format_rfc3339_zulu()
}

/// Keys of the instance metadata and of containers, number by number.
fn keys(number: usize, seconds: i64) -> String {
    format!(
        "{{\"Code\":\"Success\",\"AccessKeyId\":\"ID{number}\",\"SecretAccessKey\":\"hush\",\
         \"Token\":\"passing\",\"Expiration\":\"{}\"}}",
        end_in(seconds)
    )
}

/// Answers as the second version of the instance metadata service, which wants a token.
fn instance(end: impl Fn(usize) -> i64 + Send + Sync + 'static) -> Services {
    let given = std::sync::atomic::AtomicUsize::new(0);
    Services::new(move |request| {
        let token = request.headers().get("x-aws-ec2-metadata-token");
        let place = "/latest/meta-data/iam/security-credentials/";
        match (request.method().as_str(), request.uri().path(), token) {
            ("PUT", "/latest/api/token", None) => Ok("t0ken".into()),
            ("GET", path, Some(token)) if token == "t0ken" => match path.strip_prefix(place) {
                Some("") => Ok("role".into()),
                Some("role") => {
                    let number = given.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
                    Ok(keys(number, end(number)))
                }
                _ => Err(404),
            },
            _ => Err(401),
        }
    })
}

#[tokio::test]
async fn keys_of_an_instance_are_renewed_before_they_end_and_when_they_are_refused() {
    // The first two end within a minute; the third is good for an hour.
    let signature = chain_in(&[], instance(|number| if number < 3 { 60 } else { 3600 }));
    for wanted in ["ID1", "ID2", "ID3", "ID3"] {
        assert_eq!(signed_with(&*signature).await, wanted);
    }
    assert!(
        signature.renew(signature.round()),
        "the storage refused them"
    );
    assert_eq!(signed_with(&*signature).await, "ID4");
}

#[tokio::test]
async fn keys_that_our_clock_takes_for_ended_are_good_where_the_service_tells_its_time() {
    // The service is two hours behind, and so are the ends of its keys.
    let services = instance(|_| 3600 - 7200);
    let late = chain_in(&[], services.clone());
    assert!(asked_as(&*late).await.is_err());
    let (clock, chain) = (Arc::new(SystemClock), Credentials::Chain { profile: None });
    let skew = Skew::new(Arc::clone(&clock) as _);
    let told = reqsign_core::time::Timestamp::now() - std::time::Duration::from_secs(7200);
    let told = told.format_http_date().parse().unwrap();
    skew.learn(&http::HeaderMap::from_iter([(http::header::DATE, told)]));
    let signature = authorize(chain, "r-1", environment(&[], services), clock, skew).unwrap();
    for _ in 0..2 {
        assert_eq!(signed_with(&*signature).await, "ID2", "kept");
    }
}

#[tokio::test]
async fn a_web_identity_is_exchanged_again_with_the_token_that_is_in_the_file_then() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let services = Services::new(|request| {
        let body = String::from_utf8_lossy(request.body()).into_owned();
        let word = |name: &str| {
            let pair = body.split('&').find_map(|pair| pair.strip_prefix(name));
            pair.unwrap_or_default().to_owned()
        };
        if request.uri().host() != Some("sts.amazonaws.com") || word("RoleArn=").is_empty() {
            return Err(403);
        }
        Ok(format!(
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
             <AccessKeyId>OF-{}</AccessKeyId><SecretAccessKey>hush</SecretAccessKey><SessionToken>\
             passing</SessionToken><Expiration>{}</Expiration></Credentials>\
             </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
            word("WebIdentityToken="),
            end_in(60)
        ))
    });
    let envs = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().unwrap()),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
        NO_METADATA,
    ];
    let signature = chain_in(&envs, services);
    for token in ["first", "second"] {
        std::fs::write(&file, token).unwrap();
        assert_eq!(signed_with(&*signature).await, format!("OF-{token}"));
    }
}

#[tokio::test]
async fn a_process_is_asked_again_before_its_keys_end() {
    let dir = tempfile::tempdir().unwrap();
    let (config, script) = (dir.path().join("config"), dir.path().join("script"));
    let config_text = format!("[default]\ncredential_process = sh {}\n", script.display());
    std::fs::write(&config, config_text).unwrap();
    let envs = [("AWS_CONFIG_FILE", config.to_str().unwrap()), NO_METADATA];
    let signature = chain_in(&envs, Services::new(|_| Err(404)));
    for (id, seconds) in [("SOON", 60), ("LONG", 3600), ("LATER", 3600)] {
        let end = end_in(seconds);
        let text = format!(
            "echo '{{\"Version\":1,\"AccessKeyId\":\"{id}\",\"SecretAccessKey\":\"hush\",\
             \"Expiration\":\"{end}\"}}'\n"
        );
        std::fs::write(&script, text).unwrap();
        let wanted = if id == "LATER" { "LONG" } else { id };
        assert_eq!(signed_with(&*signature).await, wanted);
    }
    assert!(signature.renew(signature.round()));
    assert_eq!(signed_with(&*signature).await, "LATER");
}

#[tokio::test]
async fn keys_of_a_container_are_renewed_with_the_token_that_is_in_the_file_then() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let services = Services::new(|request| {
        let token = request.headers().get("authorization");
        let number = token.and_then(|token| token.to_str().ok()?.parse().ok());
        number.map(|number| keys(number, 60)).ok_or(403)
    });
    let envs = [
        (
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "http://127.0.0.1:1/keys",
        ),
        (
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            file.to_str().unwrap(),
        ),
        NO_METADATA,
    ];
    let signature = chain_in(&envs, services);
    for number in ["1", "2"] {
        std::fs::write(&file, number).unwrap();
        assert_eq!(signed_with(&*signature).await, format!("ID{number}"));
    }
}
