// SPDX-License-Identifier: Apache-2.0
//! Where an HDFS is: what stands in a URI, before any configuration is read.

use types::{Error, ErrorKind, ObjectPath, Result};

/// A name node or a name service, and a directory on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HadoopLocation {
    /// `hdfs`, `webhdfs` or `swebhdfs`.
    pub(crate) scheme: String,
    /// `host:port`, a host, or a name service; empty for the one of `fs.defaultFS`.
    pub(crate) authority: String,
    /// The directory, which starts with a slash and ends with none; empty for the root.
    pub(crate) path: String,
}

impl HadoopLocation {
    /// Reads what follows the scheme. Nothing is percent-decoded, as Hadoop's tools do not.
    pub(crate) fn parse(scheme: &str, rest: &str) -> Result<Self> {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            // Not echoed: what stands before the '@' may be a secret.
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("an {scheme} URI takes no user; set the option 'user'"),
            ));
        }
        let fault = |why: &str| {
            let shown = rest.escape_debug();
            Error::new(
                ErrorKind::Invalid,
                format!("storage '{scheme}://{shown}': {why}"),
            )
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        if !authority.chars().all(legal) {
            return Err(fault("write a host, a host:port or a name service"));
        }
        if authority.is_empty() && scheme != "hdfs" {
            return Err(fault("the host is missing; write host:port"));
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        ObjectPath::parse(path.as_bytes())
            .map_err(|error| fault(&format!("that cannot be a directory: {error}")))?;
        Ok(HadoopLocation {
            scheme: scheme.into(),
            authority: authority.into(),
            path: match path {
                "" => String::new(),
                path => format!("/{path}"),
            },
        })
    }

    /// Returns the URI, without secrets by its nature.
    pub(crate) fn uri(&self) -> String {
        format!("{}://{}{}/", self.scheme, self.authority, self.path)
    }

    /// Returns the port, when the authority has one.
    pub(crate) fn port(&self) -> Option<u16> {
        let (_, port) = self.authority.rsplit_once(':')?;
        port.parse().ok()
    }

    /// Returns the full path of a name below this place.
    pub(crate) fn full(&self, path: &ObjectPath) -> Result<String> {
        if path.is_root() {
            return Ok(if self.path.is_empty() {
                "/".into()
            } else {
                self.path.clone()
            });
        }
        Ok(format!("{}/{}", self.path, path.as_str()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        let read = |rest| HadoopLocation::parse("hdfs", rest).unwrap();
        let whole = read("nn.example:8020/data/a b%20/");
        assert_eq!(whole.uri(), "hdfs://nn.example:8020/data/a b%20/");
        assert_eq!(whole.port(), Some(8020));
        let below = ObjectPath::parse(b"x/y").unwrap();
        assert_eq!(whole.full(&below).unwrap(), "/data/a b%20/x/y");
        assert_eq!(whole.full(&ObjectPath::root()).unwrap(), "/data/a b%20");
        let root = read("service");
        assert_eq!(
            (root.uri().as_str(), root.port()),
            ("hdfs://service/", None)
        );
        assert_eq!(root.full(&ObjectPath::root()).unwrap(), "/");
        assert_eq!(root.full(&below).unwrap(), "/x/y");
        assert_eq!(read("/data").authority, "");
        assert_eq!(read("[::1]:8020/").port(), Some(8020));
    }

    #[test]
    fn what_cannot_be_a_place_is_refused() {
        for (scheme, rest, why) in [
            ("hdfs", "a b/", "write a host"),
            ("hdfs", "h/../x", "cannot be a directory"),
            ("webhdfs", "/x", "the host is missing"),
            ("hdfs", "hunter2@h/x", "set the option 'user'"),
        ] {
            let error = HadoopLocation::parse(scheme, rest).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
