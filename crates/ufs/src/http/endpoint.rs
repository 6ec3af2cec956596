// SPDX-License-Identifier: Apache-2.0
//! Addresses that users give, and options with an environment behind them.

use types::{Error, ErrorKind, Result};

use crate::Settings;

/// Returns an option, or else the first of the variables that is set and not empty.
pub(crate) fn first_set(
    settings: &Settings,
    env: &dyn Fn(&str) -> Option<String>,
    option: &str,
    names: &[&str],
) -> Option<String> {
    let given = settings.text(option).map(String::from);
    given.or_else(|| {
        names
            .iter()
            .find_map(|name| env(name).filter(|value| !value.is_empty()))
    })
}

/// Checks an endpoint and returns it without a slash at its end.
pub(crate) fn check_endpoint(endpoint: &str) -> Result<String> {
    let text = match endpoint.contains("://") {
        true => endpoint.to_string(),
        false => format!("https://{endpoint}"),
    };
    // The value is not echoed before it is known to hold no password.
    let url = reqwest::Url::parse(&text)
        .map_err(|error| invalid(format!("the endpoint is not a URL: {error}")))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid(
            "the endpoint takes no credentials; give them as options",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid(
            "the endpoint has a query; write scheme, host and port",
        ));
    }
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(invalid(format!(
            "endpoint '{url}' is neither http:// nor https://"
        )));
    }
    Ok(url.as_str().trim_end_matches('/').to_string())
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}
