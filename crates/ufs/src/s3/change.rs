// SPDX-License-Identifier: Apache-2.0
//! Reads what an S3 storage answers to requests that change something.
//!
//! Pure functions over bytes that may be hostile. An answer of status 200 may hold an error: the
//! status is sent before a long copy, or the end of a long upload, is done.

use crate::http::{Fault, Outcome, Stored, Unfinished, clean_etag, iso_time, walk};

/// What a long operation came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Done(Stored),
    /// It failed after all; the code says why.
    Failed {
        code: String,
    },
}

/// Reads the end of a copy or of an upload; `root` is the name of the document.
pub(super) fn parse_ended(xml: &[u8], root: &str) -> Outcome<Ended> {
    let (mut stored, mut code) = (Stored::default(), String::new());
    let name = walk(trim(xml), |element| {
        match element.path {
            ["ETag"] => stored.etag = clean_etag(element.text),
            ["LastModified"] => stored.mtime_ns = Some(iso_time(element.text)),
            ["Code"] => code = element.text.to_string(),
            _ => {}
        }
        Ok(())
    });
    match name.as_deref() {
        Ok("Error") => Ok(Ended::Failed { code }),
        Ok(name) if name == root => Ok(Ended::Done(stored)),
        Ok(name) => Err(wrong(name, root)),
        // The storage may still be at it: what came is no answer.
        Err(why) => Err(Fault::Broken(format!("'{root}' with a fault: {why}"))),
    }
}

/// Reads the name of an upload that was begun.
pub(super) fn parse_begun(xml: &[u8]) -> Outcome<String> {
    const ROOT: &str = "InitiateMultipartUploadResult";
    let mut id = String::new();
    let name = walk(trim(xml), |element| {
        if let ["UploadId"] = element.path {
            id = element.text.to_string();
        }
        Ok(())
    });
    match name.as_deref() {
        Ok(ROOT) if !id.is_empty() => Ok(id),
        Ok(name) => Err(wrong(name, ROOT)),
        Err(why) => Err(Fault::WrongAnswer(format!("an upload's beginning: {why}"))),
    }
}

/// A page of the uploads that did not end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnfinishedPage {
    pub(super) uploads: Vec<Unfinished>,
    /// What to ask the next page with: the key and the upload.
    pub(super) next: Option<(String, String)>,
}

/// Reads a page of the uploads that did not end.
pub(super) fn parse_unfinished(xml: &[u8]) -> Outcome<UnfinishedPage> {
    const ROOT: &str = "ListMultipartUploadsResult";
    let mut uploads = Vec::new();
    let (mut key, mut id, mut begun_ns) = (String::new(), String::new(), 0);
    let (mut next, mut truncated) = ((String::new(), String::new()), false);
    let name = walk(trim(xml), |element| {
        let text = element.text;
        match element.path {
            ["Upload", "Key"] => key = text.to_string(),
            ["Upload", "UploadId"] => id = text.to_string(),
            ["Upload", "Initiated"] => begun_ns = iso_time(text),
            ["Upload"] => uploads.push(Unfinished {
                key: std::mem::take(&mut key),
                id: std::mem::take(&mut id),
                begun_ns: std::mem::take(&mut begun_ns),
            }),
            ["NextKeyMarker"] => next.0 = text.to_string(),
            ["NextUploadIdMarker"] => next.1 = text.to_string(),
            ["IsTruncated"] => truncated = text.trim() == "true",
            _ => {}
        }
        Ok(())
    });
    match name.as_deref() {
        Ok(ROOT) => Ok(UnfinishedPage {
            uploads,
            next: truncated.then_some(next),
        }),
        Ok(name) => Err(wrong(name, ROOT)),
        Err(why) => Err(Fault::WrongAnswer(format!("a list of uploads: {why}"))),
    }
}

fn wrong(name: &str, root: &str) -> Fault {
    Fault::WrongAnswer(format!("'{}' for '{root}'", name.escape_debug()))
}

/// Takes off the blanks with which a storage keeps a connection alive before its answer.
fn trim(xml: &[u8]) -> &[u8] {
    xml.trim_ascii_start()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPLETE: &str = "CompleteMultipartUploadResult";

    #[test]
    fn an_error_inside_of_a_success_is_an_error() {
        let error = b"  \n<?xml version=\"1.0\"?><Error><Code>InternalError</Code></Error>";
        let code = "InternalError".to_string();
        assert_eq!(parse_ended(error, COMPLETE), Ok(Ended::Failed { code }));
        let done = b"\n\n<CompleteMultipartUploadResult><ETag>&quot;a-2&quot;</ETag>\
                     </CompleteMultipartUploadResult>";
        let stored = Stored {
            etag: Some("a-2".into()),
            mtime_ns: None,
        };
        assert_eq!(parse_ended(done, COMPLETE), Ok(Ended::Done(stored)));
        for cut in 0..done.len() {
            let answer = parse_ended(&done[..cut], COMPLETE);
            assert!(matches!(answer, Err(Fault::Broken(_))), "cut at {cut}");
        }
        assert!(matches!(
            parse_ended(done, "CopyObjectResult"),
            Err(Fault::WrongAnswer(_))
        ));
    }

    #[test]
    fn an_upload_without_a_name_was_not_begun() {
        let begun = |inside: &str| {
            let root = "InitiateMultipartUploadResult";
            parse_begun(format!("<{root}>{inside}</{root}>").as_bytes())
        };
        assert_eq!(
            begun("<Key>k</Key><UploadId>u&amp;1</UploadId>").unwrap(),
            "u&1"
        );
        assert!(begun("<Key>k</Key>").is_err());
    }

    #[test]
    fn unfinished_uploads_come_with_their_age() {
        let xml = b"<ListMultipartUploadsResult><Upload><Key>a/b</Key><UploadId>u</UploadId>\
                    <Initiated>2009-10-12T17:50:30.000Z</Initiated></Upload>\
                    <NextKeyMarker>a/b</NextKeyMarker><NextUploadIdMarker>u</NextUploadIdMarker>\
                    <IsTruncated>true</IsTruncated></ListMultipartUploadsResult>";
        let UnfinishedPage { uploads, next } = parse_unfinished(xml).unwrap();
        assert_eq!(uploads[0].begun_ns, 1_255_369_830_000_000_000);
        assert_eq!(next, Some(("a/b".into(), "u".into())));
    }
}
