// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with a call to an HDFS, and what a user can do about it.
//!
//! A [`Fault`] is made of an error of the client library, or of the exception that a server told by
//! name; WebHDFS tells the same names. [`Fault::into_error`] words it.

use std::io;

use hdfs_native::HdfsError;
use types::{Error, ErrorKind};

use super::place::Place;

/// What is kept of a server's own words: the first line says it, a stack follows.
const MESSAGE_MAX: usize = 300;

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
    /// Whether the same call may succeed when it is sent again.
    pub(crate) again: bool,
    /// Whether a server asked us to slow down.
    pub(crate) throttled: bool,
    /// Whether no connection came about.
    pub(crate) unreachable: bool,
    /// Whether no data node gave a block.
    pub(crate) no_replica: bool,
}

impl Fault {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Fault {
            kind,
            message,
            again: false,
            throttled: false,
            unreachable: false,
            no_replica: false,
        }
    }

    /// Makes a fault after which the same call may succeed.
    pub(crate) fn passing(kind: ErrorKind, message: impl Into<String>) -> Self {
        Fault {
            again: true,
            ..Fault::new(kind, message)
        }
    }

    /// Sorts an error of the client library.
    pub(super) fn of(error: HdfsError) -> Self {
        match error {
            HdfsError::FileNotFound(_) => {
                Fault::new(ErrorKind::NotFound, "no such file or directory")
            }
            HdfsError::RPCError(class, message) | HdfsError::FatalRPCError(class, message) => {
                Fault::of_exception(&class, &message)
            }
            HdfsError::IOError(error) => of_io(&error),
            HdfsError::DataTransferError(message) => {
                // The library lists each node with all its fields.
                let message = match message.split_once(':') {
                    Some(("All DataNodes failed", _)) => "no data node that has the block gives it",
                    _ => first_line(&message),
                };
                Fault {
                    no_replica: true,
                    ..Fault::passing(ErrorKind::Unavailable, message)
                }
            }
            HdfsError::BlocksNotFound(_) => {
                Fault::passing(ErrorKind::Unavailable, "no data node has the block")
            }
            HdfsError::ChecksumError => Fault::passing(
                ErrorKind::Corrupt,
                "bytes of a block do not match their checksum",
            ),
            HdfsError::AlreadyExists(message) => {
                Fault::of_exception("FileAlreadyExistsException", &message)
            }
            HdfsError::IsADirectoryError(_) => {
                Fault::new(ErrorKind::IsADirectory, "it is a directory")
            }
            HdfsError::UnsupportedFeature(what)
            | HdfsError::UnsupportedErasureCodingPolicy(what) => {
                Fault::new(ErrorKind::Unsupported, first_line(&what))
            }
            HdfsError::GSSAPIError(..) => of_kerberos(&error.to_string()),
            HdfsError::SASLError(_) | HdfsError::NoSASLMechanism => Fault::new(
                ErrorKind::PermissionDenied,
                format!(
                    "{}; check that the cluster's 'authentication' is what is set here",
                    first_line(&error.to_string())
                ),
            ),
            HdfsError::OperationFailed(message) if message.contains("libgssapi") => Fault::new(
                ErrorKind::Unsupported,
                "Kerberos needs the library libgssapi_krb5.so.2: install libgssapi-krb5-2 (Debian, \
                 Ubuntu) or krb5-libs (Red Hat)",
            ),
            HdfsError::InvalidRPCResponse(_) => Fault::passing(
                ErrorKind::Unavailable,
                "the answer is not one of a name node; check the port",
            ),
            HdfsError::InvalidArgument(message) => {
                Fault::new(ErrorKind::Invalid, first_line(&message))
            }
            other => Fault::new(ErrorKind::Unavailable, first_line(&other.to_string())),
        }
    }

    /// Sorts an exception by its Java class.
    pub(crate) fn of_exception(class: &str, message: &str) -> Self {
        let message = first_line(message);
        let short = class.rsplit(['.', '$']).next().unwrap_or(class);
        let told = if message.is_empty() { short } else { message };
        if let Some(fault) = of_change(short, message, told) {
            return fault;
        }
        match short {
            "FileNotFoundException" | "InvalidPathException" => {
                Fault::new(ErrorKind::NotFound, "no such file or directory")
            }
            "ParentNotDirectoryException" => Fault::new(
                ErrorKind::NotADirectory,
                "a file is where a directory should be",
            ),
            // Older name nodes say so of a name below a file.
            "AccessControlException" if message.ends_with("(is not a directory)") => Fault::new(
                ErrorKind::NotADirectory,
                "a file is where a directory should be",
            ),
            "AccessControlException" | "AuthorizationException" | "SecurityException" => {
                Fault::new(ErrorKind::PermissionDenied, told)
            }
            "InvalidToken" => Fault::new(
                ErrorKind::PermissionDenied,
                format!("the delegation token is not valid: {told}"),
            ),
            "StandbyException" => Fault::passing(
                ErrorKind::Unavailable,
                "the name node is a standby; name all name nodes, or the name service",
            ),
            "SafeModeException" => {
                Fault::passing(ErrorKind::Unavailable, "the name node is in safe mode")
            }
            "CallQueueTooBigException"
            | "ServerTooBusyException"
            | "RejectedExecutionException" => Fault {
                throttled: true,
                ..Fault::passing(ErrorKind::Unavailable, "the name node is overloaded")
            },
            "RetriableException"
            | "ObserverRetryOnActiveException"
            | "ConnectException"
            | "SocketTimeoutException"
            | "NoRouteToHostException" => Fault::passing(ErrorKind::Unavailable, told),
            "UnresolvedPathException" => Fault::new(
                ErrorKind::Unsupported,
                "a symbolic link of HDFS is on the way",
            ),
            "UnsupportedOperationException"
            | "RpcNoSuchMethodException"
            | "RpcNoSuchProtocolException" => Fault::new(
                ErrorKind::Unsupported,
                format!("the server does not know that call: {told}"),
            ),
            _ => Fault::new(ErrorKind::Unavailable, format!("{short}: {told}")),
        }
    }

    /// Words the fault of a call of the RPC driver.
    pub(super) fn into_error(self, what: &str, place: &Place) -> Error {
        let nodes = place.name_nodes.join(", ");
        let advice = match self.kind {
            ErrorKind::Unavailable if self.unreachable => Some(format!(
                "check that {nodes} is right and up, and is the RPC port"
            )),
            ErrorKind::Unavailable if self.no_replica && place.kerberos => Some(
                "if they are up, check that 'data_transfer_protection' is what \
                 dfs.data.transfer.protection of the cluster is"
                    .into(),
            ),
            ErrorKind::PermissionDenied if !place.kerberos => {
                Some("the option 'user' or HADOOP_USER_NAME says as whom to ask".into())
            }
            _ => None,
        };
        self.worded(what, advice)
    }

    /// Words the fault, with what to do about it.
    pub(crate) fn worded(self, what: &str, advice: Option<String>) -> Error {
        let message = match advice {
            Some(advice) => format!("{}; {advice}", self.message),
            None => self.message,
        };
        let error = Error::new(self.kind, message).context(what);
        if self.again { error.retryable() } else { error }
    }
}

/// Sorts what only a change is refused with.
fn of_change(short: &str, message: &str, told: &str) -> Option<Fault> {
    let fault = match short {
        "FileAlreadyExistsException" => Fault::new(ErrorKind::AlreadyExists, "the name is taken"),
        "PathIsNotEmptyDirectoryException" => {
            Fault::new(ErrorKind::NotEmpty, "the directory is not empty")
        }
        // Of a rename, which has no exceptions of their own for these.
        "IOException" if message.contains("directory is not empty") => {
            Fault::new(ErrorKind::NotEmpty, "the directory is not empty")
        }
        "IOException" if message.contains("must both be directories") => Fault::new(
            ErrorKind::Invalid,
            "a directory has one of the names, a file the other",
        ),
        "IOException" if message.contains("under source") => {
            Fault::new(ErrorKind::Invalid, "a directory cannot be put into itself")
        }
        "DSQuotaExceededException"
        | "NSQuotaExceededException"
        | "QuotaByStorageTypeExceededException"
        | "QuotaExceededException"
        | "FSLimitException$MaxDirectoryItemsExceededException"
        | "MaxDirectoryItemsExceededException" => {
            Fault::new(ErrorKind::OutOfSpace, format!("a quota of HDFS: {told}"))
        }
        "PathComponentTooLongException" | "IllegalArgumentException" => {
            Fault::new(ErrorKind::Invalid, told)
        }
        _ if message.contains("could only be written to 0 of") => return Some(of_full(message)),
        _ => return None,
    };
    Some(fault)
}

/// What a name node says that finds no data node for a block.
fn of_full(message: &str) -> Fault {
    match message.contains("There are 0 datanode(s) running") {
        true => Fault::passing(ErrorKind::Unavailable, "no data node is up"),
        false => Fault::new(
            ErrorKind::OutOfSpace,
            "no data node takes a block: they are full, or failed just now",
        ),
    }
}

fn of_io(error: &io::Error) -> Fault {
    if error.kind() == io::ErrorKind::TimedOut {
        return Fault::passing(ErrorKind::Timeout, "no sign of life in time");
    }
    let message = match error.kind() {
        io::ErrorKind::ConnectionRefused => "the connection was refused".to_string(),
        // So end connections of clients that should have used Kerberos, too.
        io::ErrorKind::ConnectionAborted | io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            "the connection was closed; if the cluster uses Kerberos, set 'authentication' to kerberos".into()
        }
        _ => error.to_string(),
    };
    Fault {
        unreachable: true,
        ..Fault::passing(ErrorKind::Unavailable, message)
    }
}

fn of_kerberos(text: &str) -> Fault {
    if text.contains("Cannot contact any KDC") {
        return Fault::passing(
            ErrorKind::Unavailable,
            "Kerberos: no KDC of the realm answers",
        );
    }
    let cause = first_line(text);
    Fault::new(
        ErrorKind::PermissionDenied,
        format!(
            "no valid Kerberos ticket ({cause}): run kinit and set KRB5CCNAME where it put the ticket, \
             or set the options 'principal' and 'keytab'"
        ),
    )
}

/// Returns the first line, cut to a bearable length.
pub(crate) fn first_line(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default().trim();
    match line.char_indices().nth(MESSAGE_MAX) {
        Some((end, _)) => &line[..end],
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_sorted_by_what_can_be_done() {
        let sort = |class, message| {
            let fault = Fault::of_exception(class, message);
            (fault.kind, fault.again)
        };
        for (class, kind, again) in [
            ("java.io.FileNotFoundException", ErrorKind::NotFound, false),
            (
                "org.apache.hadoop.security.AccessControlException",
                ErrorKind::PermissionDenied,
                false,
            ),
            (
                "org.apache.hadoop.security.token.SecretManager$InvalidToken",
                ErrorKind::PermissionDenied,
                false,
            ),
            (
                "org.apache.hadoop.ipc.StandbyException",
                ErrorKind::Unavailable,
                true,
            ),
            (
                "org.apache.hadoop.ipc.RetriableException",
                ErrorKind::Unavailable,
                true,
            ),
            (
                "org.apache.hadoop.hdfs.server.namenode.SafeModeException",
                ErrorKind::Unavailable,
                true,
            ),
            (
                "org.apache.hadoop.fs.ParentNotDirectoryException",
                ErrorKind::NotADirectory,
                false,
            ),
            (
                "java.lang.NullPointerException",
                ErrorKind::Unavailable,
                false,
            ),
        ] {
            assert_eq!(sort(class, "why\n\tat a.b"), (kind, again), "{class}");
        }
        let below_a_file = "/a/b (is not a directory)";
        assert_eq!(
            sort(
                "org.apache.hadoop.security.AccessControlException",
                below_a_file
            ),
            (ErrorKind::NotADirectory, false)
        );
    }

    #[test]
    fn a_missing_library_is_named_with_the_package_that_has_it() {
        let fault = Fault::of(HdfsError::OperationFailed(
            "Failed to load libgssapi_krb".into(),
        ));
        assert_eq!(fault.kind, ErrorKind::Unsupported);
        assert!(
            fault.message.contains("install libgssapi-krb5-2"),
            "{}",
            fault.message
        );
    }

    #[test]
    fn only_the_first_line_of_a_stack_is_told() {
        let fault = Fault::of_exception("a.B", "why\n\tat a.b.c");
        assert_eq!(fault.message, "B: why");
        assert_eq!(
            first_line(&"\u{e9}".repeat(1000)).chars().count(),
            MESSAGE_MAX
        );
    }
}
