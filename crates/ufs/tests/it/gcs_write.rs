// SPDX-License-Identifier: Apache-2.0
//! What fake-gcs-server does not check when Google Cloud Storage is written: the conditions that go
//! with each request.

use std::time::Duration;

use bytes::Bytes;
use types::{Clock, ErrorKind, ObjectPath, SystemClock, VersionTag};
use ufs::{Expect, FileAttributes};

use crate::liar::{Asked, Liar, Told, told};

const KEPT: FileAttributes = FileAttributes {
    owner: None,
    mtime_ns: Some(5_000_000_000),
    xattrs: None,
};
const OBJECT: &str = "{\"name\":\"k\",\"size\":\"1\",\"generation\":\"7\",\
    \"timeCreated\":\"2009-10-12T17:50:30Z\"}";

/// Answers as a bucket that holds one object of generation 7.
fn bucket(asked: &Asked) -> Told {
    let rewritten = format!("{{\"done\":true,\"resource\":{OBJECT}}}");
    let nothing = "{\"kind\":\"storage#objects\"}";
    let json = match asked.method.as_str() {
        "DELETE" => "",
        "GET" if asked.target.contains("&prefix=") => nothing,
        _ if asked.target.contains("/rewriteTo/") => &rewritten,
        _ => OBJECT,
    };
    told("200 OK", &[], json.as_bytes())
}

#[tokio::test]
async fn conditions_go_with_every_request_that_changes_something() {
    let liar = Liar::start(|_, asked| bucket(asked)).await;
    let options = [("endpoint", liar.endpoint()), ("anonymous", "true")];
    let storage = liar.open_as("gs://bucket/", &options).await.unwrap();
    let writer = storage.writer().unwrap();
    let deadline = SystemClock.deadline(Duration::from_secs(10));
    let (k, other) = (
        ObjectPath::parse(b"k").unwrap(),
        ObjectPath::parse(b"o").unwrap(),
    );
    let tag = VersionTag {
        etag: Some("7".into()),
        mtime_ns: 0,
        size: 1,
    };
    let (one, is) = (Bytes::from_static(b"x"), Expect::Version(tag.clone()));
    for expect in [&Expect::Absent, &is] {
        let put = writer.put(&k, one.clone(), expect, &KEPT, deadline);
        put.await.unwrap();
    }
    writer.delete(&k, &is, deadline).await.unwrap();
    let copied = writer.copy(&k, &tag, &other, &is, deadline);
    copied.await.unwrap();
    let set = writer.set_attributes(&k, &tag, &KEPT, deadline);
    assert_eq!(set.await.unwrap().tag.etag, tag.etag, "the same version");
    let upload = writer.begin(&k, 1, &KEPT, deadline).await.unwrap();
    upload.part(1, one, deadline).await.unwrap();
    upload.complete(&is, deadline).await.unwrap();

    let asked: Vec<_> = liar.asked();
    let sent = |method: &str, part: &str| -> Vec<String> {
        let fits = |asked: &&Asked| asked.method == method && asked.target.contains(part);
        asked
            .iter()
            .filter(fits)
            .map(|asked| asked.target.clone())
            .collect()
    };
    let uploads = sent("POST", "uploadType=multipart");
    assert!(uploads[0].contains("ifGenerationMatch=0"), "{uploads:?}");
    assert!(uploads[1].contains("ifGenerationMatch=7"), "{uploads:?}");
    for (method, part) in [("DELETE", "/o/k"), ("PATCH", "/o/k"), ("POST", "/compose")] {
        let sent = sent(method, part);
        assert!(sent[0].contains("ifGenerationMatch=7"), "{method} {sent:?}");
    }
    let copies = sent("POST", "/rewriteTo/");
    assert!(
        copies[0].contains("ifSourceGenerationMatch=7"),
        "{copies:?}"
    );
    assert!(copies[0].contains("&ifGenerationMatch=7"), "{copies:?}");
}

#[tokio::test]
async fn a_condition_that_does_not_hold_is_a_change_by_others() {
    let liar = Liar::start(|_, asked| match asked.method.as_str() {
        "GET" => bucket(asked),
        _ => told(
            "412 Precondition Failed",
            &[],
            b"{\"error\":{\"message\":\"m\"}}",
        ),
    });
    let liar = liar.await;
    let options = [("endpoint", liar.endpoint()), ("anonymous", "true")];
    let storage = liar.open_as("gs://bucket/", &options).await.unwrap();
    let writer = storage.writer().unwrap();
    let deadline = SystemClock.deadline(Duration::from_secs(10));
    let k = ObjectPath::parse(b"k").unwrap();
    let tag = VersionTag {
        etag: Some("7".into()),
        mtime_ns: 0,
        size: 1,
    };
    for (expect, kind) in [
        (Expect::Absent, ErrorKind::AlreadyExists),
        (Expect::Version(tag), ErrorKind::Stale),
    ] {
        let put = writer.put(&k, Bytes::new(), &expect, &KEPT, deadline);
        assert_eq!(put.await.unwrap_err().kind(), kind, "{expect:?}");
    }
}
