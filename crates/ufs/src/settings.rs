// SPDX-License-Identifier: Apache-2.0
//! How a storage is reached: its URI, its options, its limits.
//!
//! Options are text, as they stand in a configuration file. Secrets among them are resolved by the
//! caller; they are never printed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use types::{Error, ErrorKind, Result};

/// The options whose values are secrets: given by reference, never printed. Those of all drivers.
pub const SECRET_OPTIONS: [&str; 10] = [
    "access_key_id",
    "secret_access_key",
    "session_token",
    "account_key",
    "sas_token",
    "connection_string",
    "client_secret",
    "credential",
    "token",
    "password",
];

/// Reads the secrets among the options again: by option, or why they cannot be read.
pub type Secrets =
    Arc<dyn Fn() -> std::result::Result<BTreeMap<String, String>, String> + Send + Sync>;

/// Where a storage is and how it is reached.
#[derive(Clone)]
pub struct Settings {
    /// `s3://bucket/prefix/`, `file:///path`, a bare absolute path: see `docs/storages`.
    pub uri: String,
    /// Options of the driver, by name.
    pub options: BTreeMap<String, String>,
    /// How long one request may stay without a sign of life.
    pub request_timeout: Duration,
    /// How many requests run at once.
    pub max_connections: usize,
}

impl Settings {
    /// Refuses options that no driver of `scheme` knows.
    pub(crate) fn check_options(&self, scheme: &str, known: &[&str]) -> Result<()> {
        let Some(unknown) = self
            .options
            .keys()
            .find(|name| !known.contains(&name.as_str()))
        else {
            return Ok(());
        };
        let nearest = known.iter().min_by_key(|name| distance(unknown, name));
        let message = match nearest {
            Some(nearest) if distance(unknown, nearest) <= 4 => {
                format!("unknown option '{unknown}'; did you mean '{nearest}'?")
            }
            Some(_) => format!(
                "unknown option '{unknown}'; {scheme} knows {}",
                known.join(", ")
            ),
            None => format!("unknown option '{unknown}'; {scheme} takes none"),
        };
        Err(Error::new(ErrorKind::Invalid, message))
    }

    /// Returns an option that is set and not empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.options
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Returns an option that is `true` or `false`.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>> {
        match self.text(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => Err(Error::new(
                ErrorKind::Invalid,
                format!("option '{name}' is '{other}'; write true or false"),
            )),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.options.iter().map(|(name, value)| {
            let secret = SECRET_OPTIONS.contains(&name.as_str());
            (name, if secret { "(hidden)" } else { value.as_str() })
        });
        f.debug_struct("Settings")
            .field("uri", &self.uri)
            .field("options", &shown.collect::<BTreeMap<_, _>>())
            .field("request_timeout", &self.request_timeout)
            .field("max_connections", &self.max_connections)
            .finish()
    }
}

/// Returns how many letters must be added, dropped or changed to make one word the other.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in right.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(options: &[(&str, &str)]) -> Settings {
        Settings {
            uri: "s3://b/".into(),
            options: options
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
            request_timeout: Duration::from_secs(1),
            max_connections: 4,
        }
    }

    #[test]
    fn an_unknown_option_names_the_nearest_known_one() {
        let known = ["endpoint", "region", "path_style"];
        let message = |name| {
            settings(&[(name, "x")])
                .check_options("s3", &known)
                .unwrap_err()
        };
        assert_eq!(
            message("endpiont").to_string(),
            "unknown option 'endpiont'; did you mean 'endpoint'?"
        );
        assert!(
            message("completely_else")
                .to_string()
                .ends_with("endpoint, region, path_style")
        );
        assert!(
            settings(&[("region", "x")])
                .check_options("s3", &known)
                .is_ok()
        );
    }

    #[test]
    fn flags_are_true_or_false_and_nothing_else() {
        assert_eq!(settings(&[("a", "true")]).flag("a").unwrap(), Some(true));
        assert_eq!(settings(&[]).flag("a").unwrap(), None);
        assert!(settings(&[("a", "yes")]).flag("a").is_err());
    }

    #[test]
    fn secrets_are_not_printed() {
        let secrets = settings(&[("secret_access_key", "hunter2"), ("session_token", "tok3n")]);
        let shown = format!("{secrets:?}");
        assert!(shown.contains("secret_access_key"));
        assert!(
            !shown.contains("hunter2") && !shown.contains("tok3n"),
            "{shown}"
        );
    }
}
