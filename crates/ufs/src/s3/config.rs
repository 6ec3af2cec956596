// SPDX-License-Identifier: Apache-2.0
//! What the options and the environment say about an S3 storage.
//!
//! Options win over the environment (`AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, `AWS_REGION`,
//! `AWS_DEFAULT_REGION`, `AWS_CA_BUNDLE`), which wins over the region of the profile. Credentials
//! without options come from the usual chain.

use std::path::PathBuf;

use types::{Error, ErrorKind, Result};

use super::profile;
use crate::Settings;
use crate::http::{check_endpoint, first_set};
use crate::uri::BucketLocation;

const OPTIONS: [&str; 9] = [
    "endpoint",
    "region",
    "profile",
    "anonymous",
    "path_style",
    "ca_bundle",
    "access_key_id",
    "secret_access_key",
    "session_token",
];

/// How requests are addressed and signed. Has no `Debug`: it holds secrets.
pub(super) struct Config {
    pub(super) address: Address,
    pub(super) region: String,
    pub(super) ca_bundle: Option<PathBuf>,
    pub(super) credentials: Credentials,
}

/// Where requests go.
pub(super) struct Address {
    /// Scheme, host and port, without the bucket.
    pub(super) endpoint: String,
    /// Whether buckets stand in the paths of requests, not in the names of hosts.
    pub(super) path_style: bool,
}

/// Who asks.
pub(super) enum Credentials {
    /// Requests are not signed.
    Anonymous,
    /// Keys that were given as options.
    Keys {
        id: String,
        secret: String,
        token: Option<String>,
    },
    /// Environment, profile files, web identity, container and instance metadata.
    Chain { profile: Option<String> },
}

impl Address {
    /// Returns what the paths of requests to a bucket are appended to.
    pub(super) fn bucket_url(&self, bucket: &str) -> String {
        // A bucket with dots does not fit the certificate of a virtual host.
        match self.path_style || bucket.contains('.') {
            true => format!("{}/{bucket}", self.endpoint),
            false => self.endpoint.replacen("://", &format!("://{bucket}."), 1),
        }
    }
}

impl Config {
    /// Reads options and environment; `env` looks a variable up.
    pub(super) fn new(
        location: &BucketLocation,
        settings: &Settings,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        settings.check_options("s3", &OPTIONS)?;
        let first = |option: &str, names: &[&str]| first_set(settings, &env, option, names);
        let custom = first("endpoint", &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
            .map(|endpoint| endpoint_of(&endpoint, &location.bucket))
            .transpose()?;
        if location.scheme == "ceph" && custom.is_none() {
            return Err(invalid(
                "a ceph:// URI needs the endpoint of the object gateway; give --endpoint, or the option 'endpoint'",
            ));
        }
        let region = first("region", &["AWS_REGION", "AWS_DEFAULT_REGION"])
            .or_else(|| profile::region(settings.text("profile"), &env))
            .or_else(|| custom.as_ref().map(|_| "us-east-1".into()))
            .ok_or_else(|| {
                invalid("the region is not known; give --region, AWS_REGION or the region of a profile, or an --endpoint")
            })?;
        if !region
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        {
            return Err(invalid(format!(
                "region '{}' cannot be one",
                region.escape_debug()
            )));
        }
        // A bucket with dots does not fit the certificate of a virtual host.
        let path_style = settings
            .flag("path_style")?
            .unwrap_or(custom.is_some() || location.bucket.contains('.'));
        if !path_style && location.bucket.contains('.') {
            return Err(invalid(
                "a bucket with dots in its name needs path_style=true",
            ));
        }
        let endpoint = custom.unwrap_or_else(|| aws_endpoint(&region));
        let ca_bundle = first("ca_bundle", &["AWS_CA_BUNDLE"]).map(PathBuf::from);
        let credentials = credentials(settings)?;
        Ok(Config {
            address: Address {
                endpoint,
                path_style,
            },
            region,
            ca_bundle,
            credentials,
        })
    }
}

impl Credentials {
    /// Returns what must not show in any message.
    pub(super) fn secrets(&self) -> Vec<String> {
        match self {
            Credentials::Keys { secret, token, .. } => [Some(secret), token.as_ref()]
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            Credentials::Anonymous | Credentials::Chain { .. } => Vec::new(),
        }
    }
}

fn credentials(settings: &Settings) -> Result<Credentials> {
    let text = |name| settings.text(name).map(String::from);
    let keys = (text("access_key_id"), text("secret_access_key"));
    if settings.flag("anonymous")? == Some(true) {
        return match keys {
            (None, None) => Ok(Credentials::Anonymous),
            _ => Err(invalid("anonymous=true and access keys exclude each other")),
        };
    }
    match keys {
        (Some(id), Some(secret)) => Ok(Credentials::Keys {
            id,
            secret,
            token: text("session_token"),
        }),
        (None, None) if text("session_token").is_some() => Err(invalid(
            "a session_token needs access_key_id and secret_access_key",
        )),
        (None, None) => Ok(Credentials::Chain {
            profile: text("profile"),
        }),
        _ => Err(invalid(
            "access_key_id and secret_access_key go together; one is missing",
        )),
    }
}

fn aws_endpoint(region: &str) -> String {
    let suffix = if region.starts_with("cn-") {
        "amazonaws.com.cn"
    } else {
        "amazonaws.com"
    };
    format!("https://s3.{region}.{suffix}")
}

/// Checks an endpoint; some consoles show endpoints with the bucket in front.
fn endpoint_of(given: &str, bucket: &str) -> Result<String> {
    Ok(check_endpoint(given)?.replacen(&format!("//{bucket}."), "//", 1))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn config(options: &[(&str, &str)], env: &[(&str, &str)]) -> Result<Config> {
        let location = BucketLocation {
            scheme: "s3",
            bucket: "b".into(),
            prefix: String::new(),
        };
        let settings = Settings {
            uri: "s3://b/".into(),
            options: options
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
            request_timeout: Duration::from_secs(1),
            max_connections: 4,
        };
        let look = |name: &str| {
            env.iter()
                .find(|(k, _)| *k == name)
                .map(|(_, v)| (*v).into())
        };
        Config::new(&location, &settings, look)
    }

    #[test]
    fn the_style_follows_the_endpoint() {
        let url = |options, env| config(options, env).unwrap().address.bucket_url("b");
        assert_eq!(url(&[("endpoint", "http://h:9/")], &[]), "http://h:9/b");
        assert_eq!(
            url(&[], &[("AWS_ENDPOINT_URL", "http://h:9")]),
            "http://h:9/b"
        );
        assert_eq!(
            url(&[("endpoint", "b.h.example")], &[]),
            "https://h.example/b"
        );
        assert_eq!(
            url(&[("endpoint", "http://h:9"), ("path_style", "false")], &[]),
            "http://b.h:9"
        );
        assert_eq!(
            url(&[], &[("AWS_REGION", "eu-west-3")]),
            "https://b.s3.eu-west-3.amazonaws.com"
        );
        assert_eq!(
            url(&[("region", "cn-north-1"), ("path_style", "true")], &[]),
            "https://s3.cn-north-1.amazonaws.com.cn/b"
        );
    }

    #[test]
    fn options_win_over_the_environment_and_regions_have_a_default() {
        let both = config(
            &[("endpoint", "http://o"), ("region", "r-1")],
            &[("AWS_ENDPOINT_URL", "http://e"), ("AWS_REGION", "r-2")],
        );
        let both = both.unwrap();
        assert_eq!(
            (both.address.endpoint.as_str(), both.region.as_str()),
            ("http://o", "r-1")
        );
        assert_eq!(
            config(&[("endpoint", "http://o")], &[]).unwrap().region,
            "us-east-1"
        );
    }

    #[test]
    fn what_cannot_be_right_is_refused_without_showing_secrets() {
        let cases = [
            (&[][..], "the region is not known"),
            (&[("endpoint", "ftp://h")], "neither http:// nor https://"),
            (
                &[("endpoint", "http://u:hunter2@h")],
                "takes no credentials",
            ),
            (
                &[("endpoint", "http://h"), ("secret_access_key", "hunter2")],
                "go together",
            ),
            (
                &[("endpoint", "http://h"), ("session_token", "hunter2")],
                "needs access_key_id",
            ),
            (
                &[("endpoint", "http://h"), ("anonymous", "maybe")],
                "true or false",
            ),
            (&[("endpiont", "http://h")], "did you mean 'endpoint'?"),
        ];
        for (options, why) in cases {
            let error = config(options, &[]).err().unwrap().to_string();
            assert!(error.contains(why) && !error.contains("hunter2"), "{error}");
        }
    }
}
