// SPDX-License-Identifier: Apache-2.0
//! References to secrets: `env:NAME` and `file:/path`.
//!
//! A secret written out in a configuration file is refused: such files are copied, committed and
//! shown. What could not be resolved is named, what was resolved never is.

/// Where secrets come from; a test has its own.
pub(super) trait Resolve {
    /// Returns an environment variable.
    fn variable(&self, name: &str) -> Option<String>;
    /// Returns the contents of a file.
    fn file(&self, path: &str) -> std::io::Result<String>;
}

/// This process's environment and files.
pub(super) struct Environment;

impl Resolve for Environment {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &str) -> std::io::Result<String> {
        std::fs::read_to_string(path)
    }
}

/// Returns the secret behind a reference.
pub(super) fn resolve(reference: &str, from: &dyn Resolve) -> Result<String, String> {
    let secret = match reference.split_once(':') {
        Some(("env", name)) => from
            .variable(name)
            .ok_or_else(|| format!("environment variable {name} is not set"))?,
        Some(("file", path)) if path.starts_with('/') => from
            .file(path)
            .map_err(|error| format!("read '{path}': {error}"))?,
        _ => {
            return Err(
                "is a secret written out; put it into the environment or a file that only \
                        you can read, and write \"env:NAME\" or \"file:/path\""
                    .to_owned(),
            );
        }
    };
    match secret.trim() {
        "" => Err(format!("'{reference}' is empty")),
        secret => Ok(secret.to_owned()),
    }
}
