// SPDX-License-Identifier: Apache-2.0
//! References to secrets: what may be written down, stored and shown in place of a secret.
//!
//! A mount has either references for single options (`secret_access_key = "env:NAME"`) or one for
//! all: `env:NAME`, `file:/path` or `profile:NAME`. They are resolved by the daemon that mounts, when
//! it opens the storage and again when the storage refuses what they were, so that a secret that was
//! replaced in its file is found. A secret written out is refused: files and command lines are copied, committed and shown. What could not
//! be resolved is named, what was resolved never is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
pub(crate) use ufs::SECRET_OPTIONS;

/// The name under which one reference for all options is kept.
const WHOLE: &str = "*";

/// Where secrets come from; a test has its own.
pub(crate) trait Resolve {
    /// Returns an environment variable.
    fn variable(&self, name: &str) -> Option<String>;
    /// Returns the contents of a file.
    fn file(&self, path: &str) -> std::io::Result<String>;
}

/// This process's environment and files.
pub(crate) struct Environment;

impl Resolve for Environment {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &str) -> std::io::Result<String> {
        std::fs::read_to_string(path)
    }
}

/// The references of a mount, by option. Holds no secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Credentials(BTreeMap<String, String>);

impl Credentials {
    /// Reads what `--credentials` was given: `REF`, or `OPTION=REF` several times.
    pub(crate) fn parse(words: &[String]) -> Result<Credentials, String> {
        let mut credentials = Credentials::default();
        for word in words {
            match word.split_once('=') {
                Some((option, reference)) if !is_reference(word) => {
                    credentials.set(option.trim(), reference.trim())?;
                }
                _ => credentials.set_whole(word)?,
            }
        }
        Ok(credentials)
    }

    /// Takes references as the admin API and the state file carry them.
    pub(crate) fn of(references: BTreeMap<String, String>) -> Result<Credentials, String> {
        let mut credentials = Credentials::default();
        for (option, reference) in references {
            match option.as_str() {
                WHOLE => credentials.set_whole(&reference)?,
                option => credentials.set(option, &reference)?,
            }
        }
        Ok(credentials)
    }

    /// Sets the reference of one option.
    pub(crate) fn set(&mut self, option: &str, reference: &str) -> Result<(), String> {
        if !SECRET_OPTIONS.contains(&option) {
            let known = SECRET_OPTIONS.join(", ");
            return Err(format!("'{option}' is no secret of a storage: {known}"));
        }
        if !is_reference(reference) || reference.starts_with("profile:") {
            return Err(written_out());
        }
        self.0.insert(option.to_owned(), reference.to_owned());
        Ok(())
    }

    /// Sets one reference for all that the storage asks for.
    pub(crate) fn set_whole(&mut self, reference: &str) -> Result<(), String> {
        if !is_reference(reference) {
            return Err(written_out());
        }
        self.0.insert(WHOLE.to_owned(), reference.to_owned());
        Ok(())
    }

    /// Returns the references by option, `*` for all options: nothing of it is secret.
    pub(crate) fn references(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Returns whether the storage's own chain is asked.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the options that the references stand for. The answer is secret.
    pub(crate) fn resolve(&self, from: &dyn Resolve) -> Result<BTreeMap<String, String>, String> {
        let mut options = BTreeMap::new();
        if let Some(whole) = self.0.get(WHOLE) {
            options = match whole.strip_prefix("profile:") {
                Some(name) => BTreeMap::from([("profile".to_owned(), name.to_owned())]),
                None => document(whole, &resolve(whole, from)?)?,
            };
        }
        for (option, reference) in self.0.iter().filter(|(option, _)| *option != WHOLE) {
            let secret = resolve(reference, from).map_err(|why| format!("{option}: {why}"))?;
            options.insert(option.clone(), secret);
        }
        let has = |option| options.contains_key(option);
        if has("access_key_id") != has("secret_access_key") {
            let why = "access_key_id and secret_access_key belong together: give both or none";
            return Err(why.to_owned());
        }
        Ok(options)
    }
}

/// Returns the secret behind a reference.
fn resolve(reference: &str, from: &dyn Resolve) -> Result<String, String> {
    let secret = match reference.split_once(':') {
        Some(("env", name)) => from
            .variable(name)
            .ok_or_else(|| format!("environment variable {name} is not set"))?,
        Some(("file", path)) if path.starts_with('/') => from
            .file(path)
            .map_err(|error| format!("read '{path}': {error}"))?,
        _ => return Err(written_out()),
    };
    match secret.trim() {
        "" => Err(format!("'{reference}' is empty")),
        secret => Ok(secret.to_owned()),
    }
}

/// Reads several secrets in one text: `option = value` lines, as credentials files have them, or
/// `ACCESS_KEY_ID:SECRET_ACCESS_KEY`, with `:SESSION_TOKEN` behind it if there is one.
fn document(reference: &str, text: &str) -> Result<BTreeMap<String, String>, String> {
    let fault = |why: &str| {
        format!(
            "'{reference}' {why}; write lines such as 'access_key_id = ...', or \
             ACCESS_KEY_ID:SECRET_ACCESS_KEY"
        )
    };
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    if let (Some(line), None) = (lines.next(), lines.next())
        && let [id, secret, token @ ..] = &line.splitn(3, ':').collect::<Vec<_>>()[..]
        && !id.contains('=')
    {
        let names = ["access_key_id", "secret_access_key", "session_token"];
        let values = [id, secret].into_iter().chain(token);
        let pairs = names.into_iter().zip(values);
        return Ok(pairs
            .map(|(k, v)| (k.to_owned(), (*v).to_owned()))
            .collect());
    }
    let mut options = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';', '[']) {
            continue;
        }
        let Some((option, value)) = line.split_once('=') else {
            return Err(fault("has a line without '='"));
        };
        let option = option.trim().to_ascii_lowercase();
        let option = option.strip_prefix("aws_").unwrap_or(&option).to_owned();
        if !SECRET_OPTIONS.contains(&option.as_str()) {
            continue; // A region, an output format: nothing of ours.
        }
        options.insert(option, value.trim().to_owned());
    }
    match options.is_empty() {
        true => Err(fault("holds no credentials")),
        false => Ok(options),
    }
}

fn is_reference(text: &str) -> bool {
    match text.split_once(':') {
        Some(("env", name)) | Some(("profile", name)) => !name.is_empty(),
        Some(("file", path)) => path.starts_with('/'),
        _ => false,
    }
}

fn written_out() -> String {
    "is a secret written out; put it into the environment or a file that only you can read, and \
     write \"env:NAME\" or \"file:/path\""
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Toy;

    impl Resolve for Toy {
        fn variable(&self, name: &str) -> Option<String> {
            match name {
                "PAIR" => Some("ID:hush/+x\n".into()),
                "TRIPLE" => Some("ID:hush:tok:en".into()),
                "KEY" => Some("single".into()),
                "ODD" => Some("nothing here".into()),
                _ => None,
            }
        }

        fn file(&self, path: &str) -> std::io::Result<String> {
            match path {
                "/aws" => Ok("[default]\n# mine\naws_access_key_id = ID\n\
                              aws_secret_access_key = hu=sh\nregion = eu-1\n"
                    .into()),
                _ => Err(std::io::ErrorKind::NotFound.into()),
            }
        }
    }

    fn resolved(words: &[&str]) -> Result<BTreeMap<String, String>, String> {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        Credentials::parse(&words)?.resolve(&Toy)
    }

    #[test]
    fn one_reference_stands_for_all_options_or_each_has_its_own() {
        let pair = resolved(&["env:PAIR"]).unwrap();
        assert_eq!(
            (&*pair["access_key_id"], &*pair["secret_access_key"]),
            ("ID", "hush/+x")
        );
        assert_eq!(
            resolved(&["env:TRIPLE"]).unwrap()["session_token"],
            "tok:en"
        );
        let file = resolved(&["file:/aws"]).unwrap();
        assert_eq!((file.len(), &*file["secret_access_key"]), (2, "hu=sh"));
        assert_eq!(resolved(&["profile:lab"]).unwrap()["profile"], "lab");
        let both = resolved(&["access_key_id=env:KEY", "secret_access_key=env:KEY"]).unwrap();
        assert_eq!(both["secret_access_key"], "single");
        assert_eq!(resolved(&["token=env:KEY"]).unwrap()["token"], "single");
        assert!(resolved(&[]).unwrap().is_empty());
    }

    #[test]
    fn secrets_written_out_and_references_to_nothing_are_refused_and_not_shown() {
        for (words, why) in [
            (&["hunter2"][..], "written out"),
            (&["secret_access_key=hunter2"], "written out"),
            (&["region=env:KEY"], "no secret"),
            (&["env:UNSET"], "UNSET is not set"),
            (&["file:/absent"], "/absent"),
            (&["env:ODD"], "without '='"),
            (&["access_key_id=env:KEY"], "belong together"),
        ] {
            let error = resolved(words).unwrap_err();
            assert!(error.contains(why), "{words:?}: {error}");
            assert!(
                !error.contains("hunter2") && !error.contains("nothing here"),
                "{error}"
            );
        }
    }
}
