// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with a request to an S3 storage, and what a user can do about it.
//!
//! A [`Fault`] is made where a request fails and knows nothing of the operation it served. It
//! travels through OpenDAL as the source of its errors. [`Fault::into_error`] words it.

use types::{Error, ErrorKind};

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
    /// No credentials to sign with.
    #[error("{0}")]
    Credentials(String),
}

/// What a storage said when it refused. Only fields that hold no secrets are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// The storage's own code, such as `NoSuchKey`; empty when it sent none.
    pub(crate) code: String,
    pub(crate) message: String,
    /// The region in which the bucket is, when the storage told.
    pub(crate) region: Option<String>,
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

impl Refusal {
    /// Returns whether it says that the name does not exist. Some storages answer 404 for other
    /// reasons too, such as an unknown user; a HEAD's answer has no body to tell.
    pub(crate) fn absent(&self) -> bool {
        self.status == 404 && matches!(self.code.as_str(), "" | "NoSuchKey" | "NotFound")
    }

    /// Returns whether it asks us to slow down.
    pub(crate) fn throttled(&self) -> bool {
        matches!(self.status, 429 | 503)
            || matches!(
                self.code.as_str(),
                "SlowDown" | "TooManyRequests" | "RequestLimitExceeded"
            )
    }

    fn kind(&self) -> ErrorKind {
        if self.throttled() {
            return ErrorKind::Unavailable;
        }
        match self.code.as_str() {
            "ExpiredToken"
            | "InvalidToken"
            | "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "RequestTimeTooSkewed"
            | "TokenRefreshRequired"
            | "XAdminUserNotFound" => return ErrorKind::PermissionDenied,
            "NoSuchBucket" => return ErrorKind::NotFound,
            "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
                return ErrorKind::Invalid;
            }
            "RequestTimeout" | "InternalError" => return ErrorKind::Unavailable,
            _ => {}
        }
        match self.status {
            404 if self.absent() => ErrorKind::NotFound,
            401 | 403 | 407 => ErrorKind::PermissionDenied,
            412 | 416 => ErrorKind::Stale,
            408 | 425 | 500.. => ErrorKind::Unavailable,
            _ => ErrorKind::Invalid,
        }
    }

    /// Returns what to do about it.
    fn advice(&self, place: &Place) -> Option<String> {
        let region = match &self.region {
            Some(region) => format!("the bucket is in region '{region}': set the option 'region'"),
            None => "check the options 'region' and 'endpoint'".to_string(),
        };
        let advice = match self.code.as_str() {
            "NoSuchBucket" => format!(
                "bucket '{}' does not exist at {}; check its name, the endpoint and the region",
                place.bucket, place.endpoint
            ),
            "InvalidAccessKeyId" | "XAdminUserNotFound" => {
                "the storage does not know this access key; check it".into()
            }
            "SignatureDoesNotMatch" => "check the secret access key and the region".into(),
            "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
                "the session token has expired or is wrong; get new credentials".into()
            }
            "RequestTimeTooSkewed" => "the clock of this machine is wrong; set it".into(),
            "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => region,
            _ => match self.status {
                301 | 307 | 308 | 400 => region,
                401 | 403 => format!(
                    "check the credentials and that they may list and read bucket '{}' at {}",
                    place.bucket, place.endpoint
                ),
                501 => "the storage does not implement this".into(),
                _ => return None,
            },
        };
        Some(advice)
    }
}

/// Where requests go, for messages.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) endpoint: String,
    pub(crate) bucket: String,
}

impl Fault {
    /// Finds the fault inside an error of OpenDAL.
    pub(crate) fn of(error: &opendal::Error) -> Self {
        let source = std::error::Error::source(error);
        if let Some(fault) = source.and_then(|source| source.downcast_ref::<Fault>()) {
            return fault.clone();
        }
        // Not from our transport: an answer that OpenDAL could not read.
        Fault::WrongAnswer(format!("{}: {}", error.kind(), error.message()))
    }

    /// Wraps the fault for the way through OpenDAL.
    pub(crate) fn into_opendal(self) -> opendal::Error {
        opendal::Error::new(opendal::ErrorKind::Unexpected, "request failed").set_source(self)
    }

    /// Returns whether the storage said that the name does not exist.
    pub(crate) fn absent(&self) -> bool {
        matches!(self, Fault::Refused(refusal) if refusal.absent())
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Fault::Refused(refusal) => refusal.kind(),
            Fault::Unreachable(_) | Fault::Broken(_) | Fault::WrongAnswer(_) => {
                ErrorKind::Unavailable
            }
            Fault::Slow(_) => ErrorKind::Timeout,
            Fault::Unfit(_) => ErrorKind::Unsupported,
            Fault::Stale(_) => ErrorKind::Stale,
            Fault::Credentials(_) | Fault::Untrusted(_) => ErrorKind::PermissionDenied,
        }
    }

    /// Words the fault: what was tried on which object, what came, what to do.
    pub(crate) fn into_error(self, what: &str, place: &Place) -> Error {
        let kind = self.kind();
        let advice = match &self {
            Fault::Refused(refusal) => refusal.advice(place),
            Fault::Unreachable(_) | Fault::Slow(_) => {
                Some(format!("check that {} is right and up", place.endpoint))
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

    fn error(status: u16, code: &str) -> Error {
        let refusal = Refusal {
            status,
            code: code.into(),
            message: "m".into(),
            region: None,
        };
        let place = Place {
            endpoint: "http://h:1".into(),
            bucket: "b".into(),
        };
        Fault::Refused(refusal).into_error("read s3://b/k", &place)
    }

    #[test]
    fn statuses_and_codes_map_to_what_the_caller_can_do() {
        let cases = [
            (404, "NoSuchKey", ErrorKind::NotFound, false),
            (404, "", ErrorKind::NotFound, false),
            (404, "NoSuchBucket", ErrorKind::NotFound, false),
            (
                404,
                "XAdminUserNotFound",
                ErrorKind::PermissionDenied,
                false,
            ),
            (404, "NoSuchSomethingElse", ErrorKind::Invalid, false),
            (403, "AccessDenied", ErrorKind::PermissionDenied, false),
            (401, "", ErrorKind::PermissionDenied, false),
            (400, "ExpiredToken", ErrorKind::PermissionDenied, false),
            (400, "InvalidRequest", ErrorKind::Invalid, false),
            (301, "PermanentRedirect", ErrorKind::Invalid, false),
            (412, "PreconditionFailed", ErrorKind::Stale, false),
            (416, "InvalidRange", ErrorKind::Stale, false),
            (429, "", ErrorKind::Unavailable, true),
            (503, "SlowDown", ErrorKind::Unavailable, true),
            (500, "InternalError", ErrorKind::Unavailable, true),
            (502, "", ErrorKind::Unavailable, true),
            (400, "RequestTimeout", ErrorKind::Unavailable, true),
        ];
        for (status, code, kind, retryable) in cases {
            let error = error(status, code);
            assert_eq!(
                (error.kind(), error.is_retryable()),
                (kind, retryable),
                "{status} {code}"
            );
        }
    }

    #[test]
    fn messages_name_what_was_tried_and_what_to_do() {
        let text = error(404, "NoSuchBucket").to_string();
        assert_eq!(
            text,
            "read s3://b/k: the storage answered 404 NoSuchBucket (m); bucket 'b' does not exist \
             at http://h:1; check its name, the endpoint and the region"
        );
        assert!(
            error(403, "SignatureDoesNotMatch")
                .to_string()
                .contains("secret access key")
        );
    }

    #[test]
    fn a_fault_survives_the_way_through_opendal() {
        let fault = Fault::Broken("reset".into());
        assert_eq!(Fault::of(&fault.clone().into_opendal()), fault);
        let foreign = opendal::Error::new(opendal::ErrorKind::Unexpected, "no length");
        assert!(matches!(Fault::of(&foreign), Fault::WrongAnswer(_)));
    }
}
