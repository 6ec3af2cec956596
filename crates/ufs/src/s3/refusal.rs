// SPDX-License-Identifier: Apache-2.0
//! What S3 says when it refuses, what that means, and what to do about it.

use http::HeaderMap;
use types::ErrorKind;

use crate::http::{Refusal, header_text, printable, walk};

/// Reads a refusal, as far as it can be read; a HEAD's has no body.
pub(super) fn read(
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    endpoint: &str,
    bucket: &str,
) -> Refusal {
    let mut refusal = Refusal::of_status(status);
    let region = http::HeaderName::from_static("x-amz-bucket-region");
    let mut region = header_text(headers, region).map(printable);
    // A body cut short still gives the fields before the cut.
    let _root = walk(body, |element| {
        match element.path {
            ["Code"] => refusal.code = printable(element.text),
            ["Message"] => refusal.message = printable(element.text),
            ["Region"] => region = Some(printable(element.text)),
            _ => {}
        }
        Ok(())
    });
    judge(&mut refusal);
    refusal.advice = advice(&refusal, region.as_deref(), endpoint, bucket);
    refusal
}

/// Decides what the code means, which says more than the status.
fn judge(refusal: &mut Refusal) {
    // Some storages answer 404 for other reasons too, such as an unknown user; a HEAD's answer has
    // no body to tell.
    let of_name = matches!(refusal.code.as_str(), "" | "NoSuchKey" | "NotFound");
    refusal.absent = refusal.status == 404 && of_name;
    let kind = match refusal.code.as_str() {
        "SlowDown" | "TooManyRequests" | "RequestLimitExceeded" => {
            refusal.throttled = true;
            ErrorKind::Unavailable
        }
        _ if refusal.throttled => ErrorKind::Unavailable,
        "ExpiredToken"
        | "InvalidToken"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "RequestTimeTooSkewed"
        | "TokenRefreshRequired"
        | "XAdminUserNotFound" => ErrorKind::PermissionDenied,
        "NoSuchBucket" => ErrorKind::NotFound,
        "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => ErrorKind::Invalid,
        "RequestTimeout" | "InternalError" | "BadDigest" => ErrorKind::Unavailable,
        // Another write of the same name was under way.
        "ConditionalRequestConflict" | "OperationAborted" => ErrorKind::Unavailable,
        // What was sent is gone: begin again.
        "NoSuchUpload" | "InvalidPart" => ErrorKind::Busy,
        "QuotaExceeded"
        | "EntityTooLarge"
        | "XMinioStorageFull"
        | "XMinioAdminBucketQuotaExceeded" => ErrorKind::OutOfSpace,
        _ if refusal.status == 404 && !refusal.absent => ErrorKind::Invalid,
        _ => refusal.kind,
    };
    refusal.kind = kind;
    refusal.renewable = match refusal.code.as_str() {
        // The answer to a HEAD has no code: AWS says 400 and 403 then, also when a token has ended.
        "" => matches!(refusal.status, 400 | 401 | 403),
        "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "XAdminUserNotFound" => true,
        _ => refusal.status == 401,
    };
}

fn advice(refusal: &Refusal, region: Option<&str>, endpoint: &str, bucket: &str) -> Option<String> {
    let region = || match region {
        Some(region) => {
            format!("the bucket is in region '{region}': give --region, or the option 'region'")
        }
        None => "check the options 'region' and 'endpoint'".to_string(),
    };
    let advice = match refusal.code.as_str() {
        "NoSuchBucket" => format!(
            "bucket '{bucket}' does not exist at {endpoint}; check its name, the endpoint and the \
             region"
        ),
        "InvalidAccessKeyId" | "XAdminUserNotFound" => {
            "the storage does not know this access key; check it".into()
        }
        "SignatureDoesNotMatch" => "check the secret access key and the region".into(),
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
            "the session token has expired or is wrong; get new credentials".into()
        }
        // How far it is off is said where the answer tells a time.
        "RequestTimeTooSkewed" => "the clock of this machine or of the storage is wrong".into(),
        "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => region(),
        "QuotaExceeded" | "XMinioAdminBucketQuotaExceeded" => {
            "its quota is used up: free some room, or raise it".into()
        }
        "InvalidObjectName" | "KeyTooLongError" | "XMinioInvalidObjectName" => {
            "the storage takes no such name".into()
        }
        _ => match refusal.status {
            301 | 307 | 308 | 400 => region(),
            401 | 403 => format!(
                "check the credentials and that they may list and read bucket '{bucket}' at \
                 {endpoint}, and write to it if the mount is writable"
            ),
            501 => "the storage does not implement this".into(),
            _ => return None,
        },
    };
    Some(advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Fault;
    use types::Error;

    fn refusal(status: u16, body: &str) -> Refusal {
        read(
            status,
            &HeaderMap::new(),
            body.as_bytes(),
            "http://h:1",
            "b",
        )
    }

    fn error(status: u16, code: &str) -> Error {
        let body = format!("<Error><Code>{code}</Code><Message>m</Message></Error>");
        Fault::Refused(refusal(status, &body)).into_error("read s3://b/k", "http://h:1")
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
            (403, "QuotaExceeded", ErrorKind::OutOfSpace, false),
            (
                400,
                "XMinioAdminBucketQuotaExceeded",
                ErrorKind::OutOfSpace,
                false,
            ),
            (507, "XMinioStorageFull", ErrorKind::OutOfSpace, false),
            (507, "", ErrorKind::OutOfSpace, false),
        ];
        for (status, code, kind, retryable) in cases {
            let error = error(status, code);
            assert_eq!(
                (error.kind(), error.is_retryable()),
                (kind, retryable),
                "{status} {code}"
            );
        }
        assert!(!refusal(404, "<Error><Code>NoSuchBucket</Code></Error>").absent);
    }

    #[test]
    fn messages_name_what_was_tried_and_what_to_do() {
        let text = error(404, "NoSuchBucket").to_string();
        assert_eq!(
            text,
            "read s3://b/k: the storage answered 404 NoSuchBucket (m); bucket 'b' does not exist \
             at http://h:1; check its name, the endpoint and the region"
        );
        let text = error(403, "SignatureDoesNotMatch").to_string();
        assert!(text.contains("secret access key"), "{text}");
    }

    #[test]
    fn refusals_are_read_as_far_as_they_go() {
        let cut = refusal(
            403,
            "<Error><Code>AccessDenied</Code><Message>no\nway</Message><HostId>",
        );
        assert_eq!(
            (cut.code.as_str(), cut.message.as_str()),
            ("AccessDenied", "no way")
        );
        assert_eq!(refusal(502, "<html>Bad gateway").code, "");
    }
}
