// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with a request to a storage, and what a user can do about it.
//!
//! A [`Fault`] is made where a request fails and knows nothing of the operation it served;
//! [`Fault::into_error`] words it. What a refusal means is told by the driver, which knows the
//! codes of its storage, when it makes the [`Refusal`].

use std::time::Duration;

use types::{Error, ErrorKind};

use crate::Expect;

/// A failed request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// The storage answered with a status that is not success.
    #[error("{0}")]
    Refused(Refusal),
    /// No connection, or it broke before an answer.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// The other side could not prove who it is.
    #[error("the storage's certificate is not trusted: {0}")]
    Untrusted(String),
    /// The body ended early or its connection broke.
    #[error("the answer broke off: {0}")]
    Broken(String),
    /// No sign of life in time.
    #[error("{0}")]
    Slow(String),
    /// The answer is not one to the request. It may be a stray one: sent again.
    #[error("the storage answered something else: {0}")]
    WrongAnswer(String),
    /// The storage cannot do what we need.
    #[error("{0}")]
    Unfit(String),
    /// The object is no longer the version asked for.
    #[error("{0}")]
    Stale(String),
    /// Nothing was to be there, and something is.
    #[error("there is something of this name")]
    Taken,
    /// No credentials to sign with.
    #[error("{0}")]
    Credentials(String),
}

/// What a storage said when it refused, and what it means. Holds no secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// The storage's own code, such as `NoSuchKey`; empty when it sent none.
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) kind: ErrorKind,
    /// It says that the name does not exist, and nothing else is missing.
    pub(crate) absent: bool,
    /// It asks us to slow down.
    pub(crate) throttled: bool,
    /// How long it asks us to wait.
    pub(crate) wait: Option<Duration>,
    /// Newer credentials may be what is missing.
    pub(crate) renewable: bool,
    /// What to do about it.
    pub(crate) advice: Option<String>,
}

impl Refusal {
    /// Makes what a status says without words.
    pub(crate) fn of_status(status: u16) -> Self {
        let throttled = matches!(status, 429 | 503);
        let kind = match status {
            404 => ErrorKind::NotFound,
            401 | 403 | 407 => ErrorKind::PermissionDenied,
            412 | 416 => ErrorKind::Stale,
            507 => ErrorKind::OutOfSpace,
            408 | 425 | 429 | 500.. => ErrorKind::Unavailable,
            _ => ErrorKind::Invalid,
        };
        Refusal {
            status,
            code: String::new(),
            message: String::new(),
            kind,
            absent: status == 404,
            throttled,
            wait: None,
            renewable: status == 401,
            advice: None,
        }
    }
}

impl Refusal {
    /// Returns whether it may be about who asks, and when.
    pub(crate) fn is_denial(&self) -> bool {
        matches!(self.status, 400 | 401 | 403)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the storage answered {}", self.status)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if !self.message.is_empty() {
            write!(f, " ({})", self.message)?;
        }
        Ok(())
    }
}

impl Fault {
    /// Returns the name in traces.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Fault::Refused(_) => "refused",
            Fault::Unreachable(_) => "unreachable",
            Fault::Untrusted(_) => "untrusted",
            Fault::Broken(_) => "broken",
            Fault::Slow(_) => "slow",
            Fault::WrongAnswer(_) => "wrong answer",
            Fault::Unfit(_) => "unfit",
            Fault::Stale(_) => "stale",
            Fault::Taken => "taken",
            Fault::Credentials(_) => "credentials",
        }
    }

    /// Returns whether the storage said that the name does not exist.
    pub(crate) fn absent(&self) -> bool {
        matches!(self, Fault::Refused(refusal) if refusal.absent)
    }

    /// Returns how long the storage asked us to wait.
    pub(crate) fn wait(&self) -> Option<Duration> {
        match self {
            Fault::Refused(refusal) => refusal.wait,
            _ => None,
        }
    }

    /// Returns what it means to one who reads a version that was there.
    pub(crate) fn while_reading(self) -> Self {
        match self {
            fault if fault.absent() => Fault::Stale("the object is gone".into()),
            fault => fault,
        }
    }

    /// Returns what it means to one who writes what is expected to be so.
    pub(super) fn while_writing(self, expect: &Expect) -> Self {
        match expect {
            Expect::Absent if self.is_stale() => Fault::Taken,
            Expect::Version(_) if self.absent() => Fault::Stale("the object is gone".into()),
            _ => self,
        }
    }

    /// Returns whether it says that something is not the version it should be.
    pub(super) fn is_stale(&self) -> bool {
        self.kind() == ErrorKind::Stale
    }

    /// Returns whether sending the request again is of no use.
    pub(super) fn is_final(&self) -> bool {
        !matches!(self.kind(), ErrorKind::Unavailable | ErrorKind::Timeout)
    }

    /// Returns whether the request may have been done all the same.
    pub(super) fn leaves_doubt(&self) -> bool {
        match self {
            Fault::Refused(refusal) => refusal.status >= 500 || refusal.status == 408,
            Fault::Unreachable(_) | Fault::Broken(_) | Fault::Slow(_) | Fault::WrongAnswer(_) => {
                true
            }
            Fault::Untrusted(_)
            | Fault::Unfit(_)
            | Fault::Stale(_)
            | Fault::Taken
            | Fault::Credentials(_) => false,
        }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Fault::Refused(refusal) => refusal.kind,
            Fault::Unreachable(_) | Fault::Broken(_) | Fault::WrongAnswer(_) => {
                ErrorKind::Unavailable
            }
            Fault::Slow(_) => ErrorKind::Timeout,
            Fault::Unfit(_) => ErrorKind::Unsupported,
            Fault::Stale(_) => ErrorKind::Stale,
            Fault::Taken => ErrorKind::AlreadyExists,
            Fault::Credentials(_) | Fault::Untrusted(_) => ErrorKind::PermissionDenied,
        }
    }

    /// Words the fault: what was tried on which object, what came, what to do.
    pub(crate) fn into_error(self, what: &str, endpoint: &str) -> Error {
        let kind = self.kind();
        let advice = match &self {
            Fault::Refused(refusal) => refusal.advice.clone(),
            Fault::Unreachable(_) | Fault::Slow(_) => {
                Some(format!("check that {endpoint} is right and up"))
            }
            // How rustls says that it is not the time of a certificate.
            Fault::Untrusted(why) if why.contains("expired") || why.contains("not valid yet") => {
                Some("check the clock of this machine, and renew the certificate".into())
            }
            Fault::Untrusted(_) => {
                Some("give its certificate authority with the option 'ca_bundle'".into())
            }
            _ => None,
        };
        let message = match advice {
            Some(advice) => format!("{self}; {advice}"),
            None => self.to_string(),
        };
        let error = Error::new(kind, message).context(what);
        match kind {
            ErrorKind::Unavailable | ErrorKind::Timeout => error.retryable(),
            _ => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_alone_tells_what_the_caller_can_do() {
        for (status, kind, retryable) in [
            (404, ErrorKind::NotFound, false),
            (403, ErrorKind::PermissionDenied, false),
            (412, ErrorKind::Stale, false),
            (416, ErrorKind::Stale, false),
            (302, ErrorKind::Invalid, false),
            (429, ErrorKind::Unavailable, true),
            (500, ErrorKind::Unavailable, true),
            (503, ErrorKind::Unavailable, true),
        ] {
            let error = Fault::Refused(Refusal::of_status(status)).into_error("read k", "http://h");
            assert_eq!(
                (error.kind(), error.is_retryable()),
                (kind, retryable),
                "{status}"
            );
        }
    }
}
