// SPDX-License-Identifier: Apache-2.0
//! URIs of web directories: URLs.

use reqwest::Url;
use types::Result;

use crate::uri::invalid;

/// A directory of a web server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WebLocation {
    /// Ends with a slash.
    pub(super) root: Url,
}

impl WebLocation {
    /// Reads a URL.
    pub(crate) fn parse(uri: &str) -> Result<Self> {
        let mut root = Url::parse(uri).map_err(|error| invalid(format!("no URL: {error}")))?;
        if !root.username().is_empty() || root.password().is_some() {
            return Err(invalid(
                "the URL takes no credentials; give the options username and password",
            ));
        }
        if root.query().is_some() || root.fragment().is_some() {
            return Err(invalid("the URL of a directory has no '?' and no '#'"));
        }
        if !root.path().ends_with('/') {
            let path = format!("{}/", root.path());
            root.set_path(&path);
        }
        Ok(WebLocation { root })
    }

    /// Returns the URI, without secrets by its nature.
    pub(super) fn uri(&self) -> String {
        self.root.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_end_with_a_slash_and_hold_no_secrets() {
        let uri = |text| WebLocation::parse(text).map(|location| location.uri());
        assert_eq!(uri("http://h:8/a%20b").unwrap(), "http://h:8/a%20b/");
        assert_eq!(uri("https://h").unwrap(), "https://h/");
        for wrong in ["http://", "http://u:hunter2@h/", "http://h/?sig=hunter2"] {
            let error = uri(wrong).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
