// SPDX-License-Identifier: Apache-2.0
//! Reads what Azure Blob answers: pages of listings, and refusals.
//!
//! Pure functions over bytes that may be hostile. A name that XML cannot hold comes percent-encoded
//! and marked so.

use http::{HeaderMap, HeaderName};
use reqsign_core::hash::base64_decode;
use types::ErrorKind;

use crate::http::{
    Element, Fault, Link, Object, Outcome, Page, Refusal, clean_etag, header_text, http_time,
    percent_decode, printable, walk,
};

/// Reads a page of a listing.
pub(super) fn parse_page(xml: &[u8]) -> Outcome<Page> {
    let mut page = Page::default();
    let (mut object, mut directory, mut md5) = (Object::default(), false, None);
    // The document may begin with a byte order mark.
    let xml = xml.strip_prefix(b"\xef\xbb\xbf").unwrap_or(xml);
    let root = walk(xml, |element| {
        let text = element.text;
        match element.path {
            ["Blobs", "Blob", "Name"] => object.key = decoded(&element),
            ["Blobs", "Blob", "Properties", "Content-Length"] => {
                object.size = text.trim().parse().map_err(|_| format!("size '{text}'"))?;
            }
            ["Blobs", "Blob", "Properties", "Etag"] => object.etag = clean_etag(text),
            ["Blobs", "Blob", "Properties", "Last-Modified"] => object.mtime_ns = http_time(text),
            ["Blobs", "Blob", "Properties", "ResourceType"] => {
                directory = text.trim() == "directory";
            }
            ["Blobs", "Blob", "Properties", "Content-MD5"] => {
                md5 = base64_decode(text.trim())
                    .ok()
                    .and_then(|md5| md5.try_into().ok());
            }
            ["Blobs", "Blob"] => {
                object.link = Link::of(object.size, md5.take());
                let object = std::mem::take(&mut object);
                match std::mem::take(&mut directory) {
                    true => page.prefixes.push(object.key.map(|key| format!("{key}/"))),
                    false => page.objects.push(object),
                }
            }
            ["Blobs", "BlobPrefix", "Name"] => page.prefixes.push(decoded(&element)),
            ["NextMarker"] if !text.is_empty() => page.next = Some(text.to_string()),
            _ => {}
        }
        Ok(())
    });
    let root = root.map_err(|why| Fault::WrongAnswer(format!("a listing with a fault: {why}")))?;
    match root.as_str() {
        "EnumerationResults" => Ok(page),
        other => Err(Fault::WrongAnswer(format!(
            "'{}' for a listing",
            other.escape_debug()
        ))),
    }
}

fn decoded(element: &Element<'_>) -> Option<String> {
    match element.encoded {
        true => percent_decode(element.text),
        false => Some(element.text.to_string()),
    }
}

/// Reads a refusal, as far as it can be read; a HEAD's has only the header with the code.
pub(super) fn read_refusal(
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    container: &str,
) -> Refusal {
    let mut refusal = Refusal::of_status(status);
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    // A body cut short still gives the fields before the cut.
    let _root = walk(body, |element| {
        match element.path {
            ["Code"] => refusal.code = printable(element.text),
            // The first line; the others are the request's number and time.
            ["Message"] => {
                refusal.message = printable(element.text.lines().next().unwrap_or_default());
            }
            _ => {}
        }
        Ok(())
    });
    let code = header_text(headers, HeaderName::from_static("x-ms-error-code"));
    if let Some(code) = code {
        refusal.code = printable(code);
    }
    judge(&mut refusal);
    refusal.advice = advice(&refusal, container);
    refusal
}

/// Decides what the code means, which says more than the status.
fn judge(refusal: &mut Refusal) {
    let of_name = matches!(
        refusal.code.as_str(),
        "" | "BlobNotFound" | "PathNotFound" | "CannotVerifyCopySource"
    );
    refusal.absent = refusal.status == 404 && of_name;
    refusal.kind = match refusal.code.as_str() {
        "ServerBusy" => {
            refusal.throttled = true;
            ErrorKind::Unavailable
        }
        "PublicAccessNotPermitted" => ErrorKind::PermissionDenied,
        "ContainerBeingDeleted" => ErrorKind::NotFound,
        "OperationTimedOut" | "InternalError" => ErrorKind::Unavailable,
        // Blobs that are to be absent have a code of their own.
        "BlobAlreadyExists" => ErrorKind::Stale,
        // Another write of the blob came first, and blocks that it did not name are gone.
        "InvalidBlockList" | "PendingCopyOperation" => ErrorKind::Stale,
        "Md5Mismatch" => ErrorKind::Unavailable,
        "BlobImmutableDueToPolicy"
        | "BlobNotWritable"
        | "SnapshotsPresent"
        | "LeaseIdMissing"
        | "LeaseAlreadyPresent" => ErrorKind::PermissionDenied,
        "AccountIsDisabled" => ErrorKind::PermissionDenied,
        "DirectoryIsNotEmpty" => ErrorKind::NotEmpty,
        _ => refusal.kind,
    };
    refusal.renewable = refusal.status == 401
        || matches!(
            refusal.code.as_str(),
            "AuthenticationFailed" | "InvalidAuthenticationInfo"
        );
}

fn advice(refusal: &Refusal, container: &str) -> Option<String> {
    let advice = match refusal.code.as_str() {
        "ContainerNotFound" => {
            format!("container '{container}' does not exist; check its name and the account")
        }
        "ResourceNotFound" => format!(
            "container '{container}' does not exist or is not public; give credentials or check \
             its name"
        ),
        "ContainerBeingDeleted" => format!("container '{container}' is being deleted"),
        "AuthenticationFailed" | "InvalidAuthenticationInfo" => {
            "check the account key or token, whether it has expired, and the clock of this machine"
                .into()
        }
        "AuthorizationPermissionMismatch" => format!(
            "give this identity the role Storage Blob Data Reader, or Contributor to write, on \
             container '{container}'"
        ),
        "BlobImmutableDueToPolicy" => "a policy or a legal hold keeps the blob as it is".into(),
        "SnapshotsPresent" => "the blob has snapshots; remove them first".into(),
        "LeaseIdMissing" | "LeaseAlreadyPresent" => "somebody holds a lease of the blob".into(),
        "AuthorizationFailure" => format!(
            "check the credentials, that they may list and read container '{container}', and the \
             account's network rules"
        ),
        "PublicAccessNotPermitted" => {
            "the account allows no anonymous access; give credentials".into()
        }
        _ => match refusal.status {
            401 | 403 => format!(
                "check the credentials and that they may list and read container '{container}'"
            ),
            400 => "check the option 'endpoint' and the container's name".into(),
            _ => return None,
        },
    };
    Some(advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults \
         ServiceEndpoint=\"http://h/\" ContainerName=\"c\"><Prefix>d/</Prefix><Blobs><Blob><Name>d/a \
         &amp; b</Name><Properties><Last-Modified>Mon, 12 Oct 2009 17:50:30 GMT</Last-Modified>\
         <Etag>0x8D1</Etag><Content-Length>5</Content-Length></Properties></Blob><Blob><Name \
         Encoded=\"true\">d/%01</Name><Properties><Content-Length>6</Content-Length></Properties>\
         </Blob><Blob><Name>d/dir</Name><Properties><ResourceType>directory</ResourceType>\
         <Content-Length>0</Content-Length></Properties></Blob><BlobPrefix><Name>d/sub/</Name>\
         </BlobPrefix></Blobs><NextMarker>n=</NextMarker></EnumerationResults>";

    #[test]
    fn a_page_is_read_to_the_byte() {
        let page = parse_page(PAGE.as_bytes()).unwrap();
        let keys: Vec<_> = page
            .objects
            .iter()
            .map(|o| o.key.as_deref().unwrap())
            .collect();
        assert_eq!(keys, ["d/a & b", "d/\u{1}"]);
        assert_eq!(page.objects[0].etag.as_deref(), Some("0x8D1"));
        assert_eq!(page.objects[0].mtime_ns, 1_255_369_830_000_000_000);
        let prefixes: Vec<_> = page.prefixes.iter().flatten().collect();
        assert_eq!(prefixes, ["d/dir/", "d/sub/"]);
        assert_eq!(page.next.as_deref(), Some("n="));
    }

    #[test]
    fn a_page_that_is_cut_or_another_document_is_refused() {
        for cut in 3..PAGE.len() {
            assert!(parse_page(&PAGE.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
        assert!(parse_page(b"<html></html>").is_err());
    }

    #[test]
    fn codes_say_what_the_caller_can_do() {
        let refusal = |status, code: &str| {
            let mut headers = HeaderMap::new();
            if !code.is_empty() {
                headers.insert("x-ms-error-code", code.parse().unwrap());
            }
            read_refusal(
                status,
                &headers,
                b"<Error><Message>m\nRequestId:1</Message>",
                "c",
            )
        };
        for (status, code, kind, absent) in [
            (404, "BlobNotFound", ErrorKind::NotFound, true),
            (404, "", ErrorKind::NotFound, true),
            (404, "ContainerNotFound", ErrorKind::NotFound, false),
            (404, "ResourceNotFound", ErrorKind::NotFound, false),
            (
                403,
                "AuthenticationFailed",
                ErrorKind::PermissionDenied,
                false,
            ),
            (
                409,
                "PublicAccessNotPermitted",
                ErrorKind::PermissionDenied,
                false,
            ),
            (412, "ConditionNotMet", ErrorKind::Stale, false),
            (416, "InvalidRange", ErrorKind::Stale, false),
            (409, "BlobAlreadyExists", ErrorKind::Stale, false),
            (400, "InvalidBlockList", ErrorKind::Stale, false),
            (400, "Md5Mismatch", ErrorKind::Unavailable, false),
            (409, "LeaseIdMissing", ErrorKind::PermissionDenied, false),
            (503, "ServerBusy", ErrorKind::Unavailable, false),
            (500, "OperationTimedOut", ErrorKind::Unavailable, false),
        ] {
            let told = refusal(status, code);
            assert_eq!((told.kind, told.absent), (kind, absent), "{status} {code}");
        }
        assert_eq!(refusal(403, "").message, "m");
        assert!(
            refusal(404, "ContainerNotFound")
                .advice
                .unwrap()
                .contains("container 'c'")
        );
    }
}
