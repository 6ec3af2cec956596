// SPDX-License-Identifier: Apache-2.0
//! Where WebHDFS requests go and in whose name, from URI, options and the site's configuration.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use nix::unistd::{User, getuid};
use types::Result;

use super::ROOT;
use super::token::TokenFile;
use crate::hdfs::{HadoopLocation, Site};
use crate::http::{Hidden, percent_encode};
use crate::{Secrets, Settings};

pub(super) const OPTIONS: [&str; 7] = [
    "name_node",
    "user",
    "token",
    "token_path",
    "hadoop_conf_dir",
    "ca_bundle",
    "idmap",
];

/// The name nodes, or gateways, that answer, and the parameters that say who asks.
pub(super) struct Place {
    pub(super) location: HadoopLocation,
    /// `http://host:port`, or `https`.
    pub(super) endpoints: Vec<String>,
    /// The one that answered last.
    current: AtomicUsize,
    who: Who,
    /// How often another token took the place of the one before.
    round: AtomicU64,
    /// What must not show in any message.
    hidden: Arc<Hidden>,
}

/// Who asks: part of each query, which may hold a secret.
enum Who {
    Named(String),
    Token(GivenToken),
    TokenFile(TokenFile),
}

/// A token that is an option, and how it is asked for again.
struct GivenToken {
    /// Locked for as long as it takes to clone or replace it.
    current: RwLock<String>,
    secrets: Option<Secrets>,
}

impl Place {
    pub(super) fn new(
        location: HadoopLocation,
        settings: &Settings,
        secrets: Option<Secrets>,
    ) -> Result<Self> {
        settings.check_options(&location.scheme, &OPTIONS)?;
        let site = Site::read(settings.text("hadoop_conf_dir"))?;
        let secure = location.scheme == "swebhdfs";
        let (scheme, port) = if secure {
            ("https", 9871)
        } else {
            ("http", 9870)
        };
        let addresses = match settings.text("name_node") {
            Some(list) => list
                .split(',')
                .map(|address| address.trim().to_string())
                .collect(),
            None => of_service(&location, &site, secure)
                .unwrap_or_else(|| vec![location.authority.clone()]),
        };
        let has_port = |address: &str| {
            let port = address
                .rsplit_once(':')
                .map(|(_, port)| port.parse::<u16>());
            matches!(port, Some(Ok(_)))
        };
        let endpoint = |address: String| match has_port(&address) {
            true => format!("{scheme}://{address}"),
            false => format!("{scheme}://{address}:{port}"),
        };
        let endpoints: Vec<_> = addresses.into_iter().map(endpoint).collect();
        Ok(Place {
            who: who(settings, secrets, &location, &endpoints)?,
            endpoints,
            location,
            current: AtomicUsize::new(0),
            round: AtomicU64::new(0),
            hidden: Hidden::new(settings.text("token").map(String::from)),
        })
    }

    /// Returns the URL of an operation on a full path, and which of the endpoints it asks.
    pub(super) fn url(&self, encoded_path: &str, operation: &str) -> (String, usize) {
        let index = self.current.load(Ordering::Relaxed) % self.endpoints.len();
        let endpoint = &self.endpoints[index];
        let token = |token: &str| format!("&delegation={}", percent_encode(token));
        let who = match &self.who {
            Who::Named(user) => format!("&user.name={}", percent_encode(user)),
            Who::Token(given) => token(&given.current()),
            Who::TokenFile(file) => token(&file.current()),
        };
        let url = format!("{endpoint}{ROOT}{encoded_path}?op={operation}{who}");
        (url, index)
    }

    /// Returns how often another token took the place of the one before.
    pub(super) fn round(&self) -> u64 {
        self.round.load(Ordering::Relaxed)
    }

    /// Returns what must not show in any message.
    pub(super) fn hidden(&self) -> &Arc<Hidden> {
        &self.hidden
    }

    /// Looks for another token after the one of a round was refused; returns whether there is one,
    /// also when another request found it meanwhile.
    pub(super) fn renew(&self, round: u64) -> bool {
        let renewed = match &self.who {
            Who::TokenFile(file) => file.renew(),
            Who::Token(given) => given.renew(&self.hidden),
            Who::Named(_) => false,
        };
        self.round.fetch_add(u64::from(renewed), Ordering::Relaxed);
        renewed || self.round() != round
    }

    /// Turns from an endpoint that cannot help to the next one, unless somebody did so already.
    pub(super) fn turn_from(&self, index: usize) {
        let next = (index + 1) % self.endpoints.len();
        let current = &self.current;
        // Whoever was first is right; the others find the next one too.
        let _turned = current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Returns what tells this file system from others.
    pub(super) fn identity(&self) -> String {
        let mut endpoints = self.endpoints.clone();
        endpoints.sort();
        format!("{} at {}", self.location.uri(), endpoints.join(","))
    }
}

impl GivenToken {
    fn current(&self) -> String {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    fn renew(&self, hidden: &Hidden) -> bool {
        let Some(secrets) = &self.secrets else {
            return false;
        };
        let read = secrets().unwrap_or_else(|why| {
            tracing::warn!(why, "the token of a mount cannot be read again");
            BTreeMap::new()
        });
        let Some(new) = read.get("token").filter(|token| !token.is_empty()) else {
            return false;
        };
        hidden.add([new.clone()]);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, new.clone()) != *new
    }
}

/// Returns the web addresses of a name service of the site.
fn of_service(location: &HadoopLocation, site: &Site, secure: bool) -> Option<Vec<String>> {
    let service = &location.authority;
    let kind = if secure { "https" } else { "http" };
    let ids = site.get(&format!("dfs.ha.namenodes.{service}"))?;
    let address = |id: &str| {
        site.get(&format!(
            "dfs.namenode.{kind}-address.{service}.{}",
            id.trim()
        ))
    };
    let addresses: Vec<_> = ids.split(',').filter_map(address).collect();
    (!addresses.is_empty()).then_some(addresses)
}

/// Returns who asks: a token that is given, or that is where Hadoop's tools look for one, or a name.
fn who(
    settings: &Settings,
    secrets: Option<Secrets>,
    location: &HadoopLocation,
    endpoints: &[String],
) -> Result<Who> {
    if let Some(token) = settings.text("token") {
        return Ok(Who::Token(GivenToken {
            current: RwLock::new(token.into()),
            secrets,
        }));
    }
    let environment = || match settings.text("user") {
        Some(_) => None,
        None => std::env::var("HADOOP_TOKEN_FILE_LOCATION").ok(),
    };
    let path = settings.text("token_path").map(String::from);
    let path = path.or_else(environment).filter(|path| !path.is_empty());
    let Some(path) = path else {
        return Ok(Who::Named(user(settings)));
    };
    let host = |endpoint: &String| {
        let (_, host) = endpoint.split_once("://")?;
        Some(host.to_owned())
    };
    let mut services: Vec<_> = endpoints.iter().filter_map(host).collect();
    services.push(format!("ha-hdfs:{}", location.authority));
    TokenFile::read(path.into(), services).map(Who::TokenFile)
}

/// Returns as whom to ask, as Hadoop's tools find it.
fn user(settings: &Settings) -> String {
    let given = settings.text("user").map(String::from);
    let given = given.or_else(|| std::env::var("HADOOP_USER_NAME").ok());
    let own = || {
        User::from_uid(getuid())
            .ok()
            .flatten()
            .map(|user| user.name)
    };
    given
        .filter(|name| !name.is_empty())
        .or_else(own)
        .unwrap_or_else(|| "nobody".into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn place(scheme: &str, authority: &str, options: &[(&str, &str)]) -> Place {
        let settings = Settings {
            uri: String::new(),
            options: options
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            request_timeout: Duration::from_secs(10),
            max_connections: 4,
        };
        let location = HadoopLocation::parse(scheme, authority).unwrap();
        Place::new(location, &settings, None).unwrap()
    }

    #[test]
    fn ports_and_users_are_filled_in() {
        let plain = place("webhdfs", "h/d", &[("user", "a b")]);
        assert_eq!(
            plain.url("/d/x", "OPEN").0,
            "http://h:9870/webhdfs/v1/d/x?op=OPEN&user.name=a%20b"
        );
        let secure = place("swebhdfs", "h:1", &[("token", "a+b")]);
        assert_eq!(
            secure.url("/", "X").0,
            "https://h:1/webhdfs/v1/?op=X&delegation=a%2Bb"
        );
    }

    #[test]
    fn an_endpoint_that_cannot_help_is_left_once() {
        let place = place("webhdfs", "s", &[("name_node", "a:1, b")]);
        assert_eq!(place.endpoints, ["http://a:1", "http://b:9870"]);
        for _ in 0..2 {
            place.turn_from(0);
            assert_eq!(place.url("/", "X").1, 1);
        }
        place.turn_from(1);
        assert_eq!(place.url("/", "X").1, 0);
    }
}
