// SPDX-License-Identifier: Apache-2.0
//! URIs of storages: `s3://bucket/prefix/`, `file:///path`, or a bare absolute path.
//!
//! What follows the scheme is taken as it stands, without percent-decoding, as S3 tools do.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use types::{Error, ErrorKind, ObjectPath, Result};

use crate::hdfs::HadoopLocation;

/// Where a storage is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// A bucket and what all its keys start with.
    S3(S3Location),
    /// A directory of an HDFS, over its native protocols.
    Hdfs(HadoopLocation),
    /// A directory of this machine.
    Local(PathBuf),
}

/// A bucket and what all keys start with: empty, or ending with a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct S3Location {
    pub(crate) bucket: String,
    pub(crate) prefix: String,
}

impl S3Location {
    /// Returns the URI, without secrets by its nature.
    pub(crate) fn uri(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.prefix)
    }
}

impl Location {
    /// Reads a URI.
    pub(crate) fn parse(uri: &str) -> Result<Self> {
        if uri.contains('\0') {
            return Err(fault(uri, "it holds a NUL byte"));
        }
        if uri.starts_with('/') {
            return Ok(Location::Local(uri.into()));
        }
        let Some((scheme, rest)) = uri.split_once("://") else {
            return Err(fault(
                uri,
                "write s3://bucket/prefix/, file:///path or an absolute path",
            ));
        };
        match scheme {
            "s3" => parse_s3(uri, rest).map(Location::S3),
            "hdfs" => HadoopLocation::parse(scheme, rest).map(Location::Hdfs),
            "file" => parse_file(uri, rest).map(Location::Local),
            _ => Err(fault(
                uri,
                &format!("scheme '{scheme}' is not known; the known ones are s3, hdfs and file"),
            )),
        }
    }
}

fn parse_file(uri: &str, rest: &str) -> Result<PathBuf> {
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    match path.starts_with('/') {
        true => Ok(PathBuf::from(OsStr::from_bytes(path.as_bytes()))),
        false => Err(fault(
            uri,
            "a path on this machine has three slashes: file:///path",
        )),
    }
}

fn parse_s3(uri: &str, rest: &str) -> Result<S3Location> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(fault(
            uri,
            "the bucket is missing; write s3://bucket/prefix/",
        ));
    }
    if bucket.contains('@') {
        // Not echoed: what stands before the '@' may be a secret.
        return Err(Error::new(
            ErrorKind::Invalid,
            "an s3 URI takes no credentials; give them as options or by the environment",
        ));
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if !bucket.chars().all(legal) || bucket.starts_with('.') || bucket.len() > 255 {
        return Err(fault(
            uri,
            "a bucket's name has letters, digits, '-', '.' and '_' only",
        ));
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    ObjectPath::parse(prefix.as_bytes())
        .map_err(|error| fault(uri, &format!("the prefix cannot be a directory: {error}")))?;
    let prefix = if prefix.is_empty() {
        String::new()
    } else {
        format!("{prefix}/")
    };
    Ok(S3Location {
        bucket: bucket.into(),
        prefix,
    })
}

fn fault(uri: &str, why: &str) -> Error {
    Error::new(
        ErrorKind::Invalid,
        format!("storage '{}': {why}", uri.escape_debug()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(bucket: &str, prefix: &str) -> Location {
        Location::S3(S3Location {
            bucket: bucket.into(),
            prefix: prefix.into(),
        })
    }

    #[test]
    fn buckets_and_directories_are_read() {
        let parse = |uri| Location::parse(uri).unwrap();
        assert_eq!(parse("s3://b"), s3("b", ""));
        assert_eq!(parse("s3://b/"), s3("b", ""));
        assert_eq!(parse("s3://b/a b/c"), s3("b", "a b/c/"));
        assert_eq!(parse("s3://b/a%20/c/"), s3("b", "a%20/c/"));
        assert_eq!(parse("/data/x"), Location::Local("/data/x".into()));
        assert_eq!(parse("file:///data"), Location::Local("/data".into()));
        assert_eq!(
            parse("file://localhost/data"),
            Location::Local("/data".into())
        );
    }

    #[test]
    fn what_cannot_be_right_is_refused_with_what_would_be() {
        let cases = [
            ("", "write s3://bucket/prefix/"),
            ("data/x", "write s3://bucket/prefix/"),
            ("s3://", "the bucket is missing"),
            ("s3:///key", "the bucket is missing"),
            ("s3://b ucket/", "letters, digits"),
            ("s3://b//x", "the prefix cannot be a directory"),
            ("s3://b/../x", "the prefix cannot be a directory"),
            ("file://host/x", "three slashes"),
            ("gs://b/", "the known ones are s3, hdfs and file"),
            ("/a\0b", "NUL"),
        ];
        for (uri, why) in cases {
            let error = Location::parse(uri).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(why), "{uri}: {error}");
        }
        let secret = Location::parse("s3://key:hunter2@b/")
            .unwrap_err()
            .to_string();
        assert!(!secret.contains("hunter2"), "{secret}");
    }
}
