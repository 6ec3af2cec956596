// SPDX-License-Identifier: Apache-2.0
//! URIs of Azure: `az://container/prefix`, and `abfss://container@account.dfs.core.windows.net/path`
//! as Hadoop writes them.

use types::Result;

use crate::uri::{directory_prefix, invalid};

/// A container and what all names start with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AzureLocation {
    pub(crate) scheme: String,
    pub(crate) container: String,
    /// The host of the account, where the URI names one.
    pub(crate) host: Option<String>,
    /// Empty, or ends with a slash.
    pub(crate) prefix: String,
}

impl AzureLocation {
    /// Reads what follows the scheme.
    pub(crate) fn parse(scheme: &str, rest: &str) -> Result<Self> {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (container, host) = match authority.split_once('@') {
            Some((container, host)) => (container, Some(host)),
            None => (authority, None),
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let bare = container.strip_prefix('$').unwrap_or(container);
        if bare.is_empty() || !bare.chars().all(legal) || container.len() > 63 {
            // Not echoed: what stands before the '@' may be a secret.
            return Err(invalid(
                "a container's name has letters, digits and '-' only; write az://CONTAINER/prefix/ \
                 or abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/prefix/",
            ));
        }
        if let Some(host) = host {
            let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
            if !host.contains('.') || !host.chars().all(legal) {
                return Err(invalid(
                    "after the '@' comes the account's host, ACCOUNT.dfs.core.windows.net",
                ));
            }
        }
        Ok(AzureLocation {
            scheme: scheme.into(),
            container: container.into(),
            host: host.map(String::from),
            prefix: directory_prefix(path)?,
        })
    }

    /// Returns the URI, without secrets by its nature.
    pub(crate) fn uri(&self) -> String {
        let host = self.host.as_ref().map(|host| format!("@{host}"));
        format!(
            "{}://{}{}/{}",
            self.scheme,
            self.container,
            host.unwrap_or_default(),
            self.prefix
        )
    }

    /// Returns the account that the URI names.
    pub(super) fn account(&self) -> Option<&str> {
        Some(self.host.as_ref()?.split_once('.')?.0)
    }

    /// Returns the blob endpoint of the account that the URI names.
    pub(super) fn endpoint(&self) -> Option<String> {
        let host = self.host.as_ref()?;
        // The same account answers both; only the blob endpoint lists by pages of keys.
        Some(format!("https://{}", host.replacen(".dfs.", ".blob.", 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_name_a_container_are_read() {
        let short = AzureLocation::parse("az", "data/a b").unwrap();
        assert_eq!(short.uri(), "az://data/a b/");
        assert_eq!((short.account(), short.endpoint()), (None, None));
        let long = AzureLocation::parse("abfss", "data@acc.dfs.core.windows.net/x/").unwrap();
        assert_eq!(long.uri(), "abfss://data@acc.dfs.core.windows.net/x/");
        assert_eq!(long.account(), Some("acc"));
        assert_eq!(
            long.endpoint().unwrap(),
            "https://acc.blob.core.windows.net"
        );
        assert!(AzureLocation::parse("az", "$web").is_ok());
    }

    #[test]
    fn what_cannot_be_right_is_refused_without_an_echo() {
        for rest in [
            "",
            "/x",
            "hunter2_x@acc.dfs.core.windows.net",
            "c@host",
            "c/../x",
        ] {
            let error = AzureLocation::parse("az", rest).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
