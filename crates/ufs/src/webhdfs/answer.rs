// SPDX-License-Identifier: Apache-2.0
//! What WebHDFS answers: statuses, listings and refusals, all in JSON.
//!
//! Pure functions over text that may be hostile. Fields that are not used are not read.

use serde::Deserialize;
use types::meta::Owner;
use types::{ErrorKind, NodeKind, ObjectMeta, VersionTag};

use crate::hdfs::{HadoopFault, Named, nanoseconds};
use crate::http::{Fault, Outcome, Refusal};

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    /// The name in its directory; empty in an answer about one path.
    #[serde(default)]
    pub(super) path_suffix: String,
    #[serde(rename = "type")]
    kind: Kind,
    length: u64,
    /// Milliseconds since 1970.
    pub(super) modification_time: u64,
    /// HttpFS of old does not tell it.
    file_id: Option<u64>,
    permission: String,
    owner: String,
    group: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Kind {
    File,
    Directory,
    Symlink,
}

impl Status {
    /// Returns what it is; `None` for links, which HDFS has but does not let anybody use.
    pub(super) fn kind(&self) -> Option<NodeKind> {
        match self.kind {
            Kind::File => Some(NodeKind::File),
            Kind::Directory => Some(NodeKind::Directory),
            Kind::Symlink => None,
        }
    }

    /// Returns the version: the file's number, time and length.
    pub(super) fn tag(&self) -> VersionTag {
        let file = self.kind == Kind::File;
        let etag = |id| format!("{id:x}-{:x}", self.modification_time);
        VersionTag {
            etag: self.file_id.filter(|id| file && *id > 0).map(etag),
            mtime_ns: nanoseconds(self.modification_time),
            size: if file { self.length } else { 0 },
        }
    }

    /// Returns this status with the name of another.
    pub(super) fn named_as(self, other: Status) -> Self {
        Status {
            path_suffix: other.path_suffix,
            ..self
        }
    }

    /// Returns whose it is.
    pub(super) fn named(&self) -> Named {
        Named {
            // Octal, as Hadoop writes it; the sticky bit makes a fourth digit.
            mode: u32::from_str_radix(&self.permission, 8).unwrap_or(0),
            owner: self.owner.clone(),
            group: self.group.clone(),
        }
    }

    /// Returns the description with a version and an owner.
    pub(super) fn meta(&self, tag: VersionTag, owner: Owner) -> Option<ObjectMeta> {
        Some(ObjectMeta {
            kind: self.kind()?,
            tag,
            owner: Some(owner),
            extras: None,
        })
    }
}

/// A page of a listing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statuses {
    pub(super) statuses: Vec<Status>,
    /// How many come after these.
    pub(super) remaining: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct One {
    file_status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Many {
    file_statuses: Rows,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Rows {
    file_status: Vec<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Batch {
    directory_listing: DirectoryListing,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DirectoryListing {
    partial_listing: Many,
    remaining_entries: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Refused {
    remote_exception: RemoteException,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RemoteException {
    exception: String,
    #[serde(default)]
    message: String,
}

/// Reads the answer to a question about one path.
pub(super) fn read_status(body: &[u8]) -> Outcome<Status> {
    parse::<One>(body).map(|one| one.file_status)
}

/// Reads whether something was done.
pub(super) fn read_boolean(body: &[u8]) -> Outcome<bool> {
    #[derive(Deserialize)]
    struct Done {
        boolean: bool,
    }
    parse::<Done>(body).map(|done| done.boolean)
}

/// Reads a page of a listing.
pub(super) fn read_batch(body: &[u8]) -> Outcome<Statuses> {
    parse::<Batch>(body).map(|batch| Statuses {
        statuses: batch
            .directory_listing
            .partial_listing
            .file_statuses
            .file_status,
        remaining: batch.directory_listing.remaining_entries,
    })
}

/// Reads a whole listing.
pub(super) fn read_listing(body: &[u8]) -> Outcome<Statuses> {
    parse::<Many>(body).map(|many| Statuses {
        statuses: many.file_statuses.file_status,
        remaining: 0,
    })
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Outcome<T> {
    serde_json::from_slice(body)
        .map_err(|error| Fault::WrongAnswer(format!("no JSON of WebHDFS: {error}")))
}

/// Reads a refusal. Only the server's own exception makes a name absent: a proxy or another
/// service may answer 404 to anything.
pub(super) fn read_refusal(status: u16, body: &[u8]) -> Refusal {
    let of_status = Refusal::of_status(status);
    let Ok(Refused { remote_exception }) = serde_json::from_slice(body) else {
        let kind = match status {
            404 => ErrorKind::Invalid,
            _ => of_status.kind,
        };
        let advice = match status {
            401 => Some(
                "the cluster asks for Kerberos: give a delegation token with the option 'token' or 'token_path'",
            ),
            404 => {
                Some("nothing there speaks WebHDFS; check host and port, and dfs.webhdfs.enabled")
            }
            _ => None,
        };
        return Refusal {
            kind,
            absent: false,
            renewable: false,
            advice: advice.map(String::from),
            ..of_status
        };
    };
    let fault = HadoopFault::of_exception(&remote_exception.exception, &remote_exception.message);
    let advice = match fault.kind {
        ErrorKind::PermissionDenied => Some("the options 'user' and 'token' say who asks".into()),
        _ => None,
    };
    Refusal {
        code: remote_exception.exception,
        absent: fault.kind == ErrorKind::NotFound,
        kind: fault.kind,
        message: fault.message,
        throttled: fault.throttled,
        renewable: false,
        advice,
        ..of_status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"accessTime":1,"blockSize":1,"fileId":255,"group":"g","length":5,"modificationTime":16,
        "owner":"o","pathSuffix":"a b","permission":"1644","replication":1,"storagePolicy":0,"type":"FILE"}"#;

    #[test]
    fn a_version_is_number_time_and_length() {
        let status = read_status(format!(r#"{{"FileStatus":{FILE}}}"#).as_bytes()).unwrap();
        let tag = status.tag();
        assert_eq!(
            (tag.etag.as_deref(), tag.mtime_ns, tag.size),
            (Some("ff-10"), 16_000_000, 5)
        );
        assert_eq!(
            (status.named().mode, status.path_suffix.as_str()),
            (0o1644, "a b")
        );
        let unnumbered = FILE.replace("\"fileId\":255,", "");
        let status = read_status(format!(r#"{{"FileStatus":{unnumbered}}}"#).as_bytes()).unwrap();
        assert_eq!(status.tag().etag, None);
    }

    #[test]
    fn both_kinds_of_listing_are_read() {
        let many = format!(r#"{{"FileStatuses":{{"FileStatus":[{FILE}]}}}}"#);
        assert_eq!(read_listing(many.as_bytes()).unwrap().statuses.len(), 1);
        let batch =
            format!(r#"{{"DirectoryListing":{{"partialListing":{many},"remainingEntries":7}}}}"#);
        let page = read_batch(batch.as_bytes()).unwrap();
        assert_eq!((page.statuses.len(), page.remaining), (1, 7));
        for wrong in ["", "{}", "<html>", r#"{"FileStatus":[]}"#] {
            assert!(matches!(
                read_listing(wrong.as_bytes()),
                Err(Fault::WrongAnswer(_))
            ));
        }
    }

    #[test]
    fn only_an_exception_of_hadoop_makes_a_name_absent() {
        let told = br#"{"RemoteException":{"exception":"FileNotFoundException","javaClassName":"java.io.FileNotFoundException","message":"File does not exist: /x"}}"#;
        let refusal = read_refusal(404, told);
        assert!(refusal.absent && refusal.kind == ErrorKind::NotFound);
        let refusal = read_refusal(404, b"<html>");
        assert!(!refusal.absent && refusal.kind == ErrorKind::Invalid);
        let standby = br#"{"RemoteException":{"exception":"StandbyException","message":"m"}}"#;
        assert_eq!(read_refusal(403, standby).kind, ErrorKind::Unavailable);
        let denied = br#"{"RemoteException":{"exception":"AccessControlException","message":"m"}}"#;
        assert_eq!(read_refusal(403, denied).kind, ErrorKind::PermissionDenied);
    }
}
