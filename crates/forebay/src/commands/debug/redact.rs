// SPDX-License-Identifier: Apache-2.0
//! Takes secrets out of text, in two ways that do not rely on each other.
//!
//! What is known to be secret, because a variable or a file holds it that a mount refers to, or that
//! is named as secrets are, goes wherever it stands. And what looks like a secret goes although nobody
//! knows it: what is written behind such a name, users in URIs, what follows a question mark in them,
//! the tokens of the storages, and keys in PEM. References to secrets stay: they tell where one is,
//! and are no secret.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use regex::{Captures, Regex};

/// What stands in place of a secret.
const GONE: &str = "[redacted]";
/// Shorter texts occur by chance, and would take half of a file along.
const KNOWN_MIN: usize = 6;
/// Files that hold secrets are small.
const SECRET_FILE_MAX: u64 = 1 << 20;

/// Names of what is secret.
const NAMES: &str = "secret|token|passw|passphrase|access_?key|account_?key|api_?key|private_?key|\
                     credential|connection_?string|signature|authorization|sas_|cookie";

/// Takes secrets out of text.
pub(crate) struct Redactor {
    /// The longest first: one may be a part of another.
    known: Vec<String>,
    shapes: Vec<(Regex, &'static str)>,
    named: Regex,
}

impl Redactor {
    /// Makes one that knows these secrets.
    pub(crate) fn new(known: BTreeSet<String>) -> Result<Redactor> {
        let mut known: Vec<String> = known.into_iter().collect();
        known.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        let shapes = [
            // Keys and certificates.
            (
                r"(?s)-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\z)",
                GONE,
            ),
            // A user in a URI, and what may be signed in one.
            (
                r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s@\x22'<>]+@",
                "${1}[redacted]@",
            ),
            (r"(://[^\s?\x22'<>]*\?)[^\s\x22'<>]+", "${1}[redacted]"),
            // Who asks, in requests.
            (
                r"(?i)\b(bearer|basic|negotiate)\s+[A-Za-z0-9+/=._~-]{6,}",
                "${1} [redacted]",
            ),
            // Names and tokens of the storages.
            (r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}\b", GONE),
            (r"\bhf_[A-Za-z0-9]{8,}", GONE),
            (r"\bya29\.[A-Za-z0-9._-]{8,}", GONE),
            (
                r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.?[A-Za-z0-9_-]*",
                GONE,
            ),
            (r"\bsig=[A-Za-z0-9%+/=]{8,}", "sig=[redacted]"),
        ];
        let compiled = shapes.into_iter().map(|(shape, by)| {
            let shape = Regex::new(shape).with_context(|| format!("shape '{shape}'"))?;
            Ok((shape, by))
        });
        let named = format!(
            r#"(?i)(["']?[\w.-]*(?:{NAMES})[\w.-]*["']?\s*[:=]\s*)("[^"\n]*"|'[^'\n]*'|\[[^\]\n]*\]|\{{[^}}\n]*\}}|[^\s,;]+)"#
        );
        Ok(Redactor {
            known,
            shapes: compiled.collect::<Result<_>>()?,
            named: Regex::new(&named).context("names of secrets")?,
        })
    }

    /// Returns the text without secrets.
    pub(crate) fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.known {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), GONE);
            }
        }
        for (shape, by) in &self.shapes {
            if shape.is_match(&text) {
                text = shape.replace_all(&text, *by).into_owned();
            }
        }
        let named = |found: &Captures<'_>| {
            let (name, value) = (&found[1], &found[2]);
            match says_where(value) || is_harmless(value) {
                true => found[0].to_owned(),
                false => match value.chars().next().filter(|c| matches!(c, '"' | '\'')) {
                    Some(quote) => format!("{name}{quote}{GONE}{quote}"),
                    None => format!("{name}{GONE}"),
                },
            }
        };
        self.named.replace_all(&text, named).into_owned()
    }
}

/// Whether a value is a reference to a secret.
fn says_where(value: &str) -> bool {
    let bare = value.trim_matches(['"', '\'']);
    let reference = |word: &str| {
        ["env:", "file:/", "profile:"]
            .iter()
            .any(|it| word.starts_with(it))
    };
    if reference(bare) {
        return true;
    }
    // A table of references.
    let inner = bare
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'));
    inner.is_some_and(|inner| {
        let mut pairs = inner.split(',').filter(|pair| !pair.trim().is_empty());
        pairs.all(|pair| {
            let value = pair.split_once([':', '=']).map(|(_, value)| value.trim());
            value.is_some_and(|value| reference(value.trim_matches(['"', '\''])))
        })
    })
}

fn is_harmless(value: &str) -> bool {
    let bare = value.trim_matches(['"', '\'']);
    // A table that goes on in the lines below has lines of its own.
    matches!(
        bare,
        "" | "{" | "[" | "{}" | "[]" | "null" | "true" | "false" | GONE
    ) || bare.chars().all(|c| c.is_ascii_digit())
}

/// Whether a variable is named as those are that hold secrets.
pub(crate) fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let words = [
        "secret",
        "token",
        "passw",
        "access_key",
        "account_key",
        "api_key",
        "private_key",
        "credential",
        "connection_string",
        "sas",
        "auth",
        "cookie",
        "key_id",
    ];
    words.iter().any(|word| name.contains(word))
}

/// Adds a secret, and the parts of it that are secrets themselves: lines, and what stands behind a
/// name.
pub(crate) fn add_secret(known: &mut BTreeSet<String>, text: &str) {
    let mut add = |text: &str| {
        let text = text.trim().trim_matches(['"', '\'', ',']);
        // A path or a plain word is where a secret is, or none.
        let is_place =
            text.starts_with('/') || text.starts_with("file:") || text.starts_with("env:");
        let is_word = text.len() < 12 && text.chars().all(|c| c.is_ascii_lowercase());
        if text.len() >= KNOWN_MIN && !is_place && !(is_word && text.len() < 8) {
            known.insert(text.to_owned());
        }
    };
    add(text);
    for line in text.lines() {
        add(line);
        if let Some((_, value)) = line.split_once('=') {
            add(value);
        }
        line.split([':', ';']).for_each(|part| {
            add(part);
            if let Some((_, value)) = part.split_once('=') {
                add(value);
            }
        });
    }
}

/// Adds what a file of secrets holds; one that cannot be read holds none that could be shown.
pub(crate) fn add_file(known: &mut BTreeSet<String>, path: &Path) {
    let is_small =
        std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= SECRET_FILE_MAX);
    if is_small && let Ok(text) = std::fs::read_to_string(path) {
        add_secret(known, &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(text: &str) -> String {
        Redactor::new(BTreeSet::new()).unwrap().redact(text)
    }

    #[test]
    fn what_is_known_goes_wherever_it_stands() {
        let mut known = BTreeSet::new();
        add_secret(
            &mut known,
            "aws_access_key_id = IDENTITY1\naws_secret_access_key = hu/sh=+now\n",
        );
        add_secret(&mut known, "PAIRID77:pairsecret:pair-token");
        let redactor = Redactor::new(known).unwrap();
        let text = redactor.redact("x IDENTITY1 y(hu/sh=+now) PAIRID77 'pairsecret' pair-token z");
        for secret in ["IDENTITY1", "hu/sh", "PAIRID77", "pairsecret", "pair-token"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        assert!(text.starts_with("x ") && text.ends_with(" z"), "{text}");
    }

    #[test]
    fn what_looks_like_a_secret_goes_although_nobody_knows_it() {
        for (text, secret) in [
            ("secret_access_key = \"hunter2\"", "hunter2"),
            ("  \"sas_token\": \"sv=2&sig=abc\",", "abc"),
            ("AccountKey=Zm9vYmFy;Endpoint=x", "Zm9v"),
            ("FOREBAY_PASSWORD='hush now'", "hush"),
            ("open http://user:pass@host/a failed", "pass"),
            ("GET https://h/b?X-Amz-Signature=00ff&x=1 failed", "00ff"),
            ("Authorization: AWS4-HMAC-SHA256", "AWS4"),
            ("header Bearer abcdef123456", "abcdef"),
            ("key AKIAIOSFODNN7EXAMPLE used", "IOSFODNN"),
            ("got hf_abcdefghijkl", "abcdefgh"),
            ("jwt eyJhbGciOiJI.eyJzdWIiOiIx.c2ln", "c2ln"),
            (
                "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----",
                "MIIE",
            ),
            ("-----BEGIN EC PRIVATE KEY-----\nMIIE", "MIIE"),
        ] {
            let said = redacted(text);
            assert!(!said.contains(secret), "{secret} in {said}");
            assert!(said.contains(GONE), "{said}");
        }
    }

    #[test]
    fn references_and_what_a_reader_needs_stay() {
        for text in [
            "secret_access_key = \"env:NAME\"",
            "credentials = { token = \"file:/run/secrets/t\", password = \"env:P\" }",
            "\"credentials\": {",
            "\"credentials\": {}",
            "s3://bucket/prefix",
            "token_renewals: 3",
            "mounted s3://b/ at /mnt/data?",
            "the storage refused the credentials",
        ] {
            assert_eq!(redacted(text), text);
        }
    }

    #[test]
    fn names_of_secrets_are_known() {
        for name in [
            "AWS_SECRET_ACCESS_KEY",
            "HF_TOKEN",
            "AZURE_STORAGE_CONNECTION_STRING",
            "PGPASSWORD",
        ] {
            assert!(names_a_secret(name), "{name}");
        }
        assert!(!names_a_secret("HOME") && !names_a_secret("FOREBAY_CACHE_DIR"));
    }
}
