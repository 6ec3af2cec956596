// SPDX-License-Identifier: Apache-2.0
//! What the URI, the options and the environment say about an Azure storage account.
//!
//! An option wins over the connection string, which wins over the environment. A key or a token of
//! the environment is used only for the account that the environment names, if it names one.

use std::collections::HashMap;
use std::path::PathBuf;

use types::Result;

use super::location::AzureLocation;
use crate::Settings;
use crate::http::{check_endpoint, first_set};
use crate::uri::invalid;

const OPTIONS: [&str; 11] = [
    "account_name",
    "account_key",
    "sas_token",
    "connection_string",
    "endpoint",
    "anonymous",
    "tenant_id",
    "client_id",
    "client_secret",
    "account",
    "ca_bundle",
];
const ACCOUNT: [&str; 2] = ["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"];
const KEY: [&str; 2] = ["AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"];
const SAS: [&str; 1] = ["AZURE_STORAGE_SAS_TOKEN"];
const CONNECTION: [&str; 1] = ["AZURE_STORAGE_CONNECTION_STRING"];
const ENDPOINT: [&str; 2] = ["AZURE_STORAGE_SERVICE_ENDPOINT", "AZURE_STORAGE_ENDPOINT"];
/// What every emulator of Azure knows; published, and no secret.
const EMULATOR: &str = "AccountName=devstoreaccount1;AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1";

/// How requests are addressed and signed. Has no `Debug`: it holds secrets.
pub(super) struct Config {
    /// The account's URL, without the container.
    pub(super) endpoint: String,
    pub(super) ca_bundle: Option<PathBuf>,
    pub(super) credentials: Credentials,
}

/// Who asks.
pub(super) enum Credentials {
    /// Requests are not signed.
    Anonymous,
    /// The key of the account.
    Key { account: String, key: String },
    /// A shared access signature.
    Sas(String),
    /// A service principal, workload identity, or the identity of this machine.
    Identity {
        tenant: Option<String>,
        client: Option<String>,
        secret: Option<String>,
    },
}

impl Credentials {
    /// Returns what must not show in any message.
    pub(super) fn secrets(&self) -> Vec<String> {
        match self {
            Credentials::Key { key, .. } => vec![key.clone()],
            Credentials::Sas(token) => {
                let signature = token.split('&').find_map(|pair| pair.strip_prefix("sig="));
                let parts = [Some(token.as_str()), signature];
                parts.into_iter().flatten().map(String::from).collect()
            }
            Credentials::Identity { secret, .. } => secret.iter().cloned().collect(),
            Credentials::Anonymous => Vec::new(),
        }
    }
}

impl Config {
    /// Reads options and environment; `env` looks a variable up.
    pub(super) fn new(
        location: &AzureLocation,
        settings: &Settings,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        settings.check_options("Azure", &OPTIONS)?;
        let given = |option: &str| settings.text(option).map(String::from);
        let named = [given("account_name"), given("account")]
            .into_iter()
            .flatten();
        let named = named.chain(location.account().map(String::from)).next();
        // The environment's connection string belongs to its own account.
        let string = match (given("connection_string"), &named) {
            (Some(string), _) => Some(string),
            (None, None) => CONNECTION.iter().find_map(|name| env(name)),
            (None, Some(_)) => None,
        };
        let string = parse_connection(string.as_deref().unwrap_or_default())?;
        let part = |name: &str| string.get(name).cloned();
        let of_env = |names: &[&str]| first_set(settings, &env, "", names);
        let account_of_env = of_env(&ACCOUNT);
        let foreign = matches!((&named, &account_of_env), (Some(a), Some(b)) if a != b);
        let secret_of_env = |names: &[&str]| match foreign || !string.is_empty() {
            true => None,
            false => of_env(names),
        };
        let account = named.or_else(|| part("accountname")).or(account_of_env);
        let endpoint = given("endpoint")
            .or_else(|| part("blobendpoint"))
            .or_else(|| location.endpoint())
            .or_else(|| of_env(&ENDPOINT))
            .or_else(|| default_endpoint(account.as_deref()?, &part));
        let endpoint = endpoint.ok_or_else(|| {
            invalid(
                "the storage account is not known; set the option 'account_name' or \
                 AZURE_STORAGE_ACCOUNT, or write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/",
            )
        })?;
        let key = given("account_key")
            .or_else(|| part("accountkey"))
            .or_else(|| secret_of_env(&KEY));
        let sas = given("sas_token")
            .or_else(|| part("sharedaccesssignature"))
            .or_else(|| secret_of_env(&SAS));
        let credentials = if settings.flag("anonymous")? == Some(true) {
            if given("account_key").or(given("sas_token")).is_some() {
                return Err(invalid("anonymous=true and keys exclude each other"));
            }
            Credentials::Anonymous
        } else {
            credentials(settings, account, key, sas)?
        };
        Ok(Config {
            endpoint: check_endpoint(&endpoint)?,
            ca_bundle: given("ca_bundle").map(PathBuf::from),
            credentials,
        })
    }
}

fn credentials(
    settings: &Settings,
    account: Option<String>,
    key: Option<String>,
    sas: Option<String>,
) -> Result<Credentials> {
    let given = |option: &str| settings.text(option).map(String::from);
    if given("client_secret").is_some() {
        return Ok(Credentials::Identity {
            tenant: given("tenant_id"),
            client: given("client_id"),
            secret: given("client_secret"),
        });
    }
    match (key, sas, account) {
        // An explicit token says more narrowly what is meant.
        (_, Some(sas), _) => Ok(Credentials::Sas(sas.trim_start_matches('?').to_string())),
        (Some(key), None, Some(account)) => Ok(Credentials::Key { account, key }),
        (Some(_), None, None) => Err(invalid("an account_key needs the option account_name")),
        (None, None, _) => Ok(Credentials::Identity {
            tenant: given("tenant_id"),
            client: given("client_id"),
            secret: None,
        }),
    }
}

fn default_endpoint(account: &str, part: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let scheme = part("defaultendpointsprotocol").unwrap_or_else(|| "https".into());
    let suffix = part("endpointsuffix").unwrap_or_else(|| "core.windows.net".into());
    Some(format!("{scheme}://{account}.blob.{suffix}"))
}

/// Reads `Name=value;...`; the names come out in lower case.
fn parse_connection(text: &str) -> Result<HashMap<String, String>> {
    let pairs = text
        .split(';')
        .map(str::trim)
        .filter(|pair| !pair.is_empty());
    let mut parts = HashMap::new();
    for pair in pairs {
        // Not echoed: it holds the key.
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            invalid("the connection string is not a list of Name=value with ';' between")
        })?;
        parts.insert(name.to_ascii_lowercase(), value.to_string());
    }
    match parts.get("usedevelopmentstorage").map(String::as_str) {
        Some("true") => parse_connection(EMULATOR),
        _ => Ok(parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn config(rest: &str, options: &[(&str, &str)], env: &[(&str, &str)]) -> Result<Config> {
        let location = AzureLocation::parse("az", rest).unwrap();
        let settings = Settings {
            uri: String::new(),
            options: options
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
            request_timeout: Duration::from_secs(1),
            max_connections: 4,
        };
        let look = |name: &str| {
            let found = env.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).into())
        };
        Config::new(&location, &settings, look)
    }

    fn who(config: &Config) -> String {
        match &config.credentials {
            Credentials::Anonymous => "nobody".into(),
            Credentials::Key { account, key } => format!("key {account} {key}"),
            Credentials::Sas(token) => format!("sas {token}"),
            Credentials::Identity { .. } => "identity".into(),
        }
    }

    #[test]
    fn the_account_comes_from_options_uri_string_or_environment() {
        let cloud = "https://a.blob.core.windows.net";
        let check = |rest: &str, options: &[(&str, &str)], env: &[(&str, &str)], wanted| {
            let config = config(rest, options, env).unwrap();
            let who = who(&config);
            assert_eq!((config.endpoint.as_str(), who.as_str()), wanted, "{rest}");
        };
        let named = ("account_name", "a");
        let key = ("AZURE_STORAGE_KEY", "k");
        check("c", &[named, ("account_key", "k")], &[], (cloud, "key a k"));
        let sas = ("sas_token", "?sv=1&sig=s");
        let long = "c@a.dfs.core.windows.net";
        check(long, &[sas], &[], (cloud, "sas sv=1&sig=s"));
        let account = ("AZURE_STORAGE_ACCOUNT", "a");
        check("c", &[], &[account, key], (cloud, "key a k"));
        // The environment's key is another account's.
        let other = ("AZURE_STORAGE_ACCOUNT", "b");
        check("c", &[named], &[other, key], (cloud, "identity"));
        check("c", &[named, ("anonymous", "true")], &[], (cloud, "nobody"));
        let secret = ("client_secret", "s");
        check("c", &[named, secret], &[key], (cloud, "identity"));
    }

    #[test]
    fn a_connection_string_says_all() {
        let text = "AccountName=a;AccountKey=k==;EndpointSuffix=core.chinacloudapi.cn";
        let china = config("c", &[("connection_string", text)], &[]).unwrap();
        assert_eq!(china.endpoint, "https://a.blob.core.chinacloudapi.cn");
        assert_eq!(who(&china), "key a k==");
        let emulator = (CONNECTION[0], "UseDevelopmentStorage=true");
        let local = config("c", &[], &[emulator]).unwrap();
        assert_eq!(local.endpoint, "http://127.0.0.1:10000/devstoreaccount1");
        assert!(who(&local).starts_with("key devstoreaccount1 "));
    }

    #[test]
    fn what_cannot_be_right_is_refused_without_showing_secrets() {
        for (options, why) in [
            (&[][..], "account is not known"),
            (&[("connection_string", "hunter2")], "Name=value"),
            (&[("acount_name", "a")], "did you mean 'account_name'?"),
            (
                &[
                    ("account_name", "a"),
                    ("anonymous", "true"),
                    ("account_key", "hunter2"),
                ],
                "exclude each other",
            ),
            (
                &[("endpoint", "http://h"), ("account_key", "hunter2")],
                "needs the option account_name",
            ),
        ] {
            let error = config("c", options, &[]).err().unwrap().to_string();
            assert!(error.contains(why) && !error.contains("hunter2"), "{error}");
        }
    }
}
