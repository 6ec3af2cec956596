// SPDX-License-Identifier: Apache-2.0
//! URIs of the hub: `hf://datasets/OWNER/NAME@REVISION/path`, as its own Python library writes them.

use types::Result;

use crate::http::percent_decode;
use crate::uri::{directory_prefix, invalid};

const EXAMPLE: &str = "write hf://datasets/OWNER/NAME[@REVISION][/path], hf://OWNER/NAME for a model \
     or hf://spaces/OWNER/NAME";

/// A repository and a place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HfLocation {
    kind: Kind,
    owner: String,
    name: String,
    /// A branch, tag or commit.
    pub(super) revision: String,
    /// Empty, or ends with a slash.
    pub(super) prefix: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Dataset,
    Space,
}

impl HfLocation {
    /// Reads what follows the scheme.
    pub(crate) fn parse(rest: &str) -> Result<Self> {
        let (kind, rest) = match rest.split_once('/') {
            Some(("datasets", rest)) => (Kind::Dataset, rest),
            Some(("spaces", rest)) => (Kind::Space, rest),
            Some(("models", rest)) => (Kind::Model, rest),
            _ => (Kind::Model, rest),
        };
        let (owner, rest) = rest.split_once('/').ok_or_else(|| invalid(EXAMPLE))?;
        let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (name, revision) = match name.split_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (name, None),
        };
        let (revision, path) = match revision {
            Some("refs") => long_revision(path)?,
            Some(revision) => {
                let decoded = percent_decode(revision).filter(|text| is_revision(text));
                (
                    decoded.ok_or_else(|| invalid("the revision cannot be one"))?,
                    path,
                )
            }
            None => ("main".into(), path),
        };
        if !is_name(owner) || !is_name(name) {
            return Err(invalid(EXAMPLE));
        }
        Ok(HfLocation {
            kind,
            owner: owner.into(),
            name: name.into(),
            revision,
            prefix: directory_prefix(path)?,
        })
    }

    /// Returns the URI, without secrets by its nature.
    pub(crate) fn uri(&self) -> String {
        let revision = self.revision.replace('/', "%2F");
        format!("hf://{}@{revision}/{}", self.web_path(), self.prefix)
    }

    /// Returns the repository for messages.
    pub(super) fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// Returns the repository as it stands in addresses of files.
    pub(super) fn web_path(&self) -> String {
        let kind = match self.kind {
            Kind::Model => "",
            Kind::Dataset => "datasets/",
            Kind::Space => "spaces/",
        };
        format!("{kind}{}", self.repository())
    }

    /// Returns the repository as it stands in addresses of the API.
    pub(super) fn repository_path(&self) -> String {
        match self.kind {
            Kind::Model => format!("models/{}", self.repository()),
            Kind::Dataset | Kind::Space => self.web_path(),
        }
    }
}

/// Reads the revisions with slashes that the hub makes itself: `refs/pr/7`, `refs/convert/parquet`.
fn long_revision(path: &str) -> Result<(String, &str)> {
    let mut parts = path.splitn(3, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(kind @ ("pr" | "convert")), Some(name), rest) if is_revision(name) => {
            Ok((format!("refs/{kind}/{name}"), rest.unwrap_or_default()))
        }
        _ => Err(invalid("the revision cannot be one; write refs/pr/NUMBER")),
    }
}

fn is_name(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && !text.starts_with('.') && text.chars().all(legal)
}

fn is_revision(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+');
    !text.is_empty() && text.chars().all(legal) && !text.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_revisions_and_paths_are_read() {
        let cases = [
            ("o/n", "hf://o/n@main/", "models/o/n"),
            ("models/o/n", "hf://o/n@main/", "models/o/n"),
            (
                "datasets/o/n@v1/a b/",
                "hf://datasets/o/n@v1/a b/",
                "datasets/o/n",
            ),
            ("spaces/o/n", "hf://spaces/o/n@main/", "spaces/o/n"),
            (
                "datasets/o/n@refs/pr/7/x",
                "hf://datasets/o/n@refs%2Fpr%2F7/x/",
                "datasets/o/n",
            ),
            (
                "datasets/o/n@refs%2Fpr%2F7",
                "hf://datasets/o/n@refs%2Fpr%2F7/",
                "datasets/o/n",
            ),
        ];
        for (rest, uri, api) in cases {
            let location = HfLocation::parse(rest).unwrap();
            assert_eq!(
                (location.uri(), location.repository_path()),
                (uri.into(), api.into())
            );
            assert_eq!(HfLocation::parse(&uri["hf://".len()..]).unwrap(), location);
        }
    }

    #[test]
    fn what_cannot_be_right_is_refused() {
        for rest in [
            "",
            "o",
            "datasets/o",
            "o/",
            "/n",
            "o/n@",
            "o/n@a..b",
            "o/n@refs/x",
            "o/../x",
        ] {
            assert!(HfLocation::parse(rest).is_err(), "{rest}");
        }
    }
}
