// SPDX-License-Identifier: Apache-2.0
//! The one error of all rooms: a kind, a message, context and a source.
//!
//! The kind says what the caller can do. Each door maps kinds to its own language (errno, HTTP
//! status, exit code) in one tested table. Messages are lower case, have no full stop and say what
//! was tried; context is added on the way up and read first.

use std::fmt;

/// The result of every fallible call between rooms.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, as what the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The storage said that the name does not exist. Look elsewhere.
    NotFound,
    /// The name is taken. Choose another or remove it first.
    AlreadyExists,
    /// A directory was needed. Give another path.
    NotADirectory,
    /// A file was needed. Give another path.
    IsADirectory,
    /// The directory has entries. Remove them first.
    NotEmpty,
    /// Credentials or modes forbid it. Fix them; trying again does not help.
    PermissionDenied,
    /// The request itself is wrong. Correct it.
    Invalid,
    /// A name, or what a link points to, is longer than the storage keeps. Choose a shorter one.
    TooLong,
    /// This storage, kernel or build cannot do it. Use another way.
    Unsupported,
    /// The mount or the storage does not take writes.
    ReadOnly,
    /// The two names lie in different mounts. Copy instead.
    CrossMount,
    /// The object is no longer the version that was asked for. Look it up again.
    Stale,
    /// Somebody else holds it. Try again later.
    Busy,
    /// The storage or a peer does not answer or is overloaded. Try again later.
    Unavailable,
    /// No room left on the local disk or in the storage. Free some.
    OutOfSpace,
    /// Bytes failed a check. They were not used; fetch them again.
    Corrupt,
    /// The deadline passed first.
    Timeout,
    /// A fault of ours. Report it.
    Internal,
}

impl ErrorKind {
    /// Every kind, for the tables of the doors and their tests.
    pub const ALL: [ErrorKind; 18] = [
        ErrorKind::NotFound,
        ErrorKind::AlreadyExists,
        ErrorKind::NotADirectory,
        ErrorKind::IsADirectory,
        ErrorKind::NotEmpty,
        ErrorKind::PermissionDenied,
        ErrorKind::Invalid,
        ErrorKind::TooLong,
        ErrorKind::Unsupported,
        ErrorKind::ReadOnly,
        ErrorKind::CrossMount,
        ErrorKind::Stale,
        ErrorKind::Busy,
        ErrorKind::Unavailable,
        ErrorKind::OutOfSpace,
        ErrorKind::Corrupt,
        ErrorKind::Timeout,
        ErrorKind::Internal,
    ];
}

/// An error of any room. Cheap to move, cheap to clone: many callers may share one flight.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    context: Vec<String>,
    source: Option<std::sync::Arc<dyn std::error::Error + Send + Sync>>,
    retryable: bool,
}

impl Error {
    /// Makes an error that is not worth a retry.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            kind,
            message: message.into(),
            context: Vec::new(),
            source: None,
            retryable: false,
        }))
    }

    /// Makes an error of kind [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Internal, message)
    }

    /// Makes an error from one of the operating system, with the kind that fits its code.
    pub fn io(message: impl Into<String>, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match source.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::AlreadyExists => ErrorKind::AlreadyExists,
            Io::NotADirectory => ErrorKind::NotADirectory,
            Io::IsADirectory => ErrorKind::IsADirectory,
            Io::PermissionDenied => ErrorKind::PermissionDenied,
            Io::ReadOnlyFilesystem => ErrorKind::ReadOnly,
            Io::InvalidFilename => ErrorKind::TooLong,
            Io::StorageFull | Io::QuotaExceeded => ErrorKind::OutOfSpace,
            Io::TimedOut => ErrorKind::Timeout,
            _ => ErrorKind::Unavailable,
        };
        Error::new(kind, message).with_source(source)
    }

    /// Marks that the same request may succeed when it is sent again.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.0.retryable = true;
        self
    }

    /// Adds what was being done, outermost last: it is printed first.
    #[must_use]
    pub fn context(mut self, what: impl Into<String>) -> Self {
        self.0.context.push(what.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(std::sync::Arc::new(source));
        self
    }

    /// Returns what the caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns whether the same request may succeed when it is sent again.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for what in self.0.context.iter().rev() {
            write!(f, "{what}: ")?;
        }
        f.write_str(&self.0.message)?;
        match &self.0.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The source itself is part of the message already.
        self.0.source.as_ref().and_then(|source| source.source())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_from_the_outermost_context_to_the_cause() {
        let error = Error::io("open", std::io::Error::from_raw_os_error(13))
            .context("read page 3")
            .context("peer w3");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert_eq!(
            error.to_string(),
            "peer w3: read page 3: open: Permission denied (os error 13)"
        );
        assert!(std::error::Error::source(&error).is_none(), "told twice");
        assert!(!error.is_retryable());
        assert!(error.retryable().is_retryable());
    }
}
