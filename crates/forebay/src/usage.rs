// SPDX-License-Identifier: Apache-2.0
//! Wrong usage: what was asked for cannot be right, whatever the state of the machine.
//!
//! Kept apart from all other failures because scripts tell the two by the exit code.

use std::fmt;

use types::{Error, ErrorKind};

/// The command line or the configuration is wrong.
#[derive(Debug)]
pub(crate) struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Makes an error of wrong usage.
pub(crate) fn wrong(message: impl Into<String>) -> anyhow::Error {
    Usage(message.into()).into()
}

/// Takes an error of a room for wrong usage when it says that the request itself was wrong.
pub(crate) fn if_invalid(error: Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::Invalid => wrong(error.to_string()),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn wrong_usage_is_known_below_any_context_and_a_failure_is_none() {
        let of = |kind| if_invalid(Error::new(kind, "x"));
        let outcome: anyhow::Result<()> = Err(of(ErrorKind::Invalid));
        let error = outcome.context("above").unwrap_err();
        assert!(error.is::<Usage>(), "{error:?}");
        assert_eq!(format!("{error:#}"), "above: x");
        assert!(!of(ErrorKind::Unavailable).is::<Usage>());
    }
}
