// SPDX-License-Identifier: Apache-2.0
//! URIs of storages: `SCHEME://...`, or a bare absolute path.
//!
//! What follows the scheme is taken as it stands, without percent-decoding, as the tools of the
//! storages do; only `http` and `https` URIs are URLs. Drivers with more than a bucket in their URIs
//! read them themselves.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use types::{Error, ErrorKind, ObjectPath, Result};

use crate::azure::AzureLocation;
use crate::cephfs::CephFsLocation;
use crate::hdfs::HadoopLocation;
use crate::huggingface::HfLocation;
use crate::web::WebLocation;

/// All schemes, for messages.
const SCHEMES: &[&str] = &[
    "s3", "ceph", "az", "abfs", "abfss", "wasb", "wasbs", "gs", "hf", "hdfs", "webhdfs",
    "swebhdfs", "cephfs", "http", "https", "file",
];

/// Where a storage is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// A bucket of S3.
    S3(BucketLocation),
    /// A container of Azure Blob.
    Azure(AzureLocation),
    /// A bucket of Google Cloud Storage.
    Gcs(BucketLocation),
    /// A repository of the Hugging Face hub.
    Hf(HfLocation),
    /// A directory of a web server.
    Web(WebLocation),
    /// A directory of an HDFS, over its native protocols.
    Hdfs(HadoopLocation),
    /// A directory of an HDFS, over HTTP.
    WebHdfs(HadoopLocation),
    /// A directory of a Ceph file system that is mounted on this machine.
    CephFs(CephFsLocation),
    /// A directory of this machine.
    Local(PathBuf),
}

/// A bucket and what all keys start with: empty, or ending with a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BucketLocation {
    pub(crate) scheme: &'static str,
    pub(crate) bucket: String,
    pub(crate) prefix: String,
}

/// In place of a bucket: all that one may list, each a directory.
const ALL: &str = "*";

impl BucketLocation {
    /// Returns the place of all buckets.
    fn all(scheme: &'static str) -> Self {
        BucketLocation {
            scheme,
            bucket: ALL.into(),
            prefix: String::new(),
        }
    }

    pub(crate) fn is_all(&self) -> bool {
        self.bucket == ALL
    }

    /// Returns the URI, without secrets by its nature.
    pub(crate) fn uri(&self) -> String {
        format!("{}://{}/{}", self.scheme, self.bucket, self.prefix)
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
        let parsed = match scheme {
            "s3" if matches!(rest, "*" | "*/") => Ok(Location::S3(BucketLocation::all("s3"))),
            "s3" => parse_bucket("s3", rest).map(Location::S3),
            // Ceph's object gateway speaks S3.
            "ceph" => parse_bucket("ceph", rest).map(Location::S3),
            "gs" => parse_bucket("gs", rest).map(Location::Gcs),
            "az" | "abfs" | "abfss" | "wasb" | "wasbs" => {
                AzureLocation::parse(scheme, rest).map(Location::Azure)
            }
            "hf" => HfLocation::parse(rest).map(Location::Hf),
            "hdfs" => HadoopLocation::parse(scheme, rest).map(Location::Hdfs),
            "webhdfs" | "swebhdfs" => HadoopLocation::parse(scheme, rest).map(Location::WebHdfs),
            "cephfs" => CephFsLocation::parse(rest).map(Location::CephFs),
            "http" | "https" => WebLocation::parse(uri).map(Location::Web),
            "file" => return parse_file(uri, rest).map(Location::Local),
            _ => {
                let known = SCHEMES.join(", ");
                let why = format!("scheme '{scheme}' is not known; the known ones are {known}");
                return Err(fault(uri, &why));
            }
        };
        // The URI is not echoed: before an '@' there may be a secret.
        parsed.map_err(|error| error.context(format!("storage {scheme}://...")))
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

fn parse_bucket(scheme: &'static str, rest: &str) -> Result<BucketLocation> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(invalid(format!(
            "the bucket is missing; write {scheme}://bucket/prefix/"
        )));
    }
    if bucket.contains('@') {
        return Err(invalid(
            "the URI takes no credentials; give them as options or by the environment",
        ));
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if !bucket.chars().all(legal) || bucket.starts_with('.') || bucket.len() > 255 {
        return Err(invalid(format!(
            "'{}' is no bucket; its name has letters, digits, '-', '.' and '_' only",
            bucket.escape_debug()
        )));
    }
    Ok(BucketLocation {
        scheme,
        bucket: bucket.into(),
        prefix: directory_prefix(prefix)?,
    })
}

/// Returns a path in a storage as what all keys below it start with: empty, or ending with a slash.
pub(crate) fn directory_prefix(path: &str) -> Result<String> {
    let path = path.strip_suffix('/').unwrap_or(path);
    ObjectPath::parse(path.as_bytes())
        .map_err(|error| invalid(format!("the prefix cannot be a directory: {error}")))?;
    Ok(match path {
        "" => String::new(),
        path => format!("{path}/"),
    })
}

/// Makes an error about something that a user wrote.
pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
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
        Location::S3(BucketLocation {
            scheme: "s3",
            bucket: bucket.into(),
            prefix: prefix.into(),
        })
    }

    #[test]
    fn buckets_and_directories_are_read() {
        let parse = |uri| Location::parse(uri).unwrap();
        assert_eq!(parse("s3://b"), s3("b", ""));
        assert_eq!(parse("s3://b/"), s3("b", ""));
        assert_eq!(parse("s3://*"), s3("*", ""));
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
            ("s3://*/x", "letters, digits"),
            ("s3://b//x", "the prefix cannot be a directory"),
            ("s3://b/../x", "the prefix cannot be a directory"),
            ("file://host/x", "three slashes"),
            ("gopher://b/", "the known ones are s3, ceph, az,"),
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
