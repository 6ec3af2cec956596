// SPDX-License-Identifier: Apache-2.0
//! What the options and the environment say about Google Cloud Storage.

use std::path::PathBuf;

use types::Result;

use crate::Settings;
use crate::http::{check_endpoint, first_set};
use crate::uri::invalid;

const OPTIONS: [&str; 7] = [
    "credential",
    "credential_path",
    "token",
    "endpoint",
    "anonymous",
    "user_project",
    "ca_bundle",
];
const EMULATOR: &str = "STORAGE_EMULATOR_HOST";

/// How requests are addressed and signed. Has no `Debug`: it holds secrets.
pub(super) struct Config {
    pub(super) endpoint: String,
    pub(super) ca_bundle: Option<PathBuf>,
    /// Who pays, for buckets whose owner does not.
    pub(super) user_project: Option<String>,
    pub(super) credentials: Credentials,
}

/// Who asks.
#[derive(Clone)]
pub(super) enum Credentials {
    /// Requests are not signed.
    Anonymous,
    /// The content of a credential file.
    Content(String),
    /// A credential file.
    File(String),
    /// An access token.
    Token(String),
    /// `GOOGLE_APPLICATION_CREDENTIALS`, the login of `gcloud`, the metadata server.
    Chain,
}

impl Credentials {
    /// Returns what must not show in any message.
    pub(super) fn secrets(&self) -> Vec<String> {
        match self {
            Credentials::Content(secret) | Credentials::Token(secret) => vec![secret.clone()],
            Credentials::Anonymous | Credentials::File(_) | Credentials::Chain => Vec::new(),
        }
    }
}

impl Config {
    /// Reads options and environment; `env` looks a variable up.
    pub(super) fn new(settings: &Settings, env: impl Fn(&str) -> Option<String>) -> Result<Self> {
        settings.check_options("Google Cloud Storage", &OPTIONS)?;
        let given = |option: &str| settings.text(option).map(String::from);
        let emulator =
            first_set(settings, &env, "", &[EMULATOR]).map(|host| match host.contains("://") {
                true => host,
                false => format!("http://{host}"),
            });
        let anonymous = settings.flag("anonymous")?;
        let ways = ["credential", "credential_path", "token"];
        let given_ways: Vec<_> = ways
            .into_iter()
            .filter(|way| given(way).is_some())
            .collect();
        if given_ways.len() + usize::from(anonymous == Some(true)) > 1 {
            return Err(invalid(
                "credential, credential_path, token and anonymous=true exclude each other",
            ));
        }
        let emulated = given("endpoint").is_none() && emulator.is_some();
        let credentials = match (
            given("credential"),
            given("credential_path"),
            given("token"),
        ) {
            (Some(content), ..) => Credentials::Content(content),
            (_, Some(path), _) => Credentials::File(path),
            (.., Some(token)) => Credentials::Token(token),
            // An emulator knows nobody.
            _ if anonymous.unwrap_or(emulated) => Credentials::Anonymous,
            _ => Credentials::Chain,
        };
        let endpoint = given("endpoint").or(emulator);
        let endpoint = endpoint.unwrap_or_else(|| "https://storage.googleapis.com".into());
        Ok(Config {
            endpoint: check_endpoint(&endpoint)?,
            ca_bundle: given("ca_bundle").map(PathBuf::from),
            user_project: given("user_project"),
            credentials,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn config(options: &[(&str, &str)], emulator: Option<&str>) -> Result<Config> {
        let settings = Settings {
            uri: String::new(),
            options: options
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
            request_timeout: Duration::from_secs(1),
            max_connections: 4,
        };
        Config::new(&settings, |name| {
            emulator.filter(|_| name == EMULATOR).map(String::from)
        })
    }

    #[test]
    fn an_emulator_of_the_environment_is_asked_by_nobody() {
        let plain = config(&[], None).unwrap();
        assert_eq!(plain.endpoint, "https://storage.googleapis.com");
        assert!(matches!(plain.credentials, Credentials::Chain));
        let emulated = config(&[], Some("localhost:4443")).unwrap();
        assert_eq!(emulated.endpoint, "http://localhost:4443");
        assert!(matches!(emulated.credentials, Credentials::Anonymous));
        let given = config(&[("endpoint", "http://h"), ("token", "t")], Some("x")).unwrap();
        assert_eq!(given.endpoint, "http://h");
        assert!(matches!(given.credentials, Credentials::Token(_)));
    }

    #[test]
    fn two_ways_to_say_who_asks_are_refused_without_showing_secrets() {
        let both = [("credential", "hunter2"), ("anonymous", "true")];
        let error = config(&both, None).err().unwrap().to_string();
        assert!(
            error.contains("exclude each other") && !error.contains("hunter2"),
            "{error}"
        );
    }
}
