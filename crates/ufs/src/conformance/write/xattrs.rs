// SPDX-License-Identifier: Apache-2.0
//! Extended attributes of users: kept with what they belong to, all or nothing.

use std::sync::Arc;

use bytes::Bytes;
use types::{ErrorKind, ObjectMeta, Result, Xattrs};

use super::parts;
use super::place::{Place, fails};
use crate::conformance::soon;
use crate::{Expect, FileAttributes};

fn some(pairs: &[(&str, &[u8])]) -> Xattrs {
    let owned = |(name, value): &(&str, &[u8])| (format!("user.{name}"), value.to_vec());
    pairs.iter().map(owned).collect()
}

fn with(xattrs: &Xattrs) -> FileAttributes {
    FileAttributes {
        xattrs: Some(Arc::new(xattrs.clone())),
        ..FileAttributes::default()
    }
}

async fn put(
    place: &Place<'_>,
    name: &[u8],
    content: &[u8],
    xattrs: &Xattrs,
) -> Result<ObjectMeta> {
    let (anything, attributes) = (Expect::Anything, with(xattrs));
    place.put_with(name, content, &anything, &attributes).await
}

pub(super) async fn keeps_xattrs(place: &Place<'_>) {
    if place.can().xattrs_max == 0 {
        return;
    }
    let name = b"xattrs/file";
    let (first, second) = (
        some(&[("a", b"1\0\xff"), ("b c", b"")]),
        some(&[("a", b"2")]),
    );
    put(place, name, b"x", &first).await.expect("a file");
    assert_eq!(place.xattrs(name).await, first);
    let made = put(place, name, b"xy", &second).await.expect("a file");
    assert_eq!(place.xattrs(name).await, second);
    let set = place.set(name, &made.tag, &with(&first)).await;
    let set = set.expect("a change");
    assert_eq!(place.xattrs(name).await, first);
    // What is not named stays.
    let time = FileAttributes {
        mtime_ns: Some(1_500_000_000_000_000_000),
        ..FileAttributes::default()
    };
    let set = place.set(name, &set.tag, &time).await.expect("a change");
    assert_eq!(place.xattrs(name).await, first);
    let full = some(&[("full", &[7; 70_000])]);
    let set_full = place.set(name, &set.tag, &with(&full)).await;
    fails(
        set_full,
        ErrorKind::OutOfSpace,
        "more than there is room for",
    );
    let full = put(place, name, b"z", &full).await;
    fails(full, ErrorKind::OutOfSpace, "more than there is room for");
    assert_eq!(place.bytes(name).await, b"xy");

    let seen = place.stat(name).await;
    let copied = place
        .copy(name, &seen.tag, b"xattrs/copy", &Expect::Absent)
        .await;
    copied.expect("a copy");
    assert_eq!(place.xattrs(b"xattrs/copy").await, first);
    if place.can().rename {
        let moved = place.rename(b"xattrs/copy", b"xattrs/moved").await;
        moved.expect("a rename");
        assert_eq!(place.xattrs(b"xattrs/moved").await, first);
    }
    let cleared = place.set(name, &seen.tag, &with(&Xattrs::new())).await;
    cleared.expect("a change");
    assert_eq!(place.xattrs(name).await, Xattrs::new());

    let (_, size) = parts(place);
    let upload = place.begin(b"xattrs/parts", size, &with(&first)).await;
    let part = upload.part(1, Bytes::from_static(b"abc"), soon());
    part.await.expect("a part");
    let made = upload.complete(&Expect::Absent, soon()).await;
    made.expect("a file");
    assert_eq!(place.xattrs(b"xattrs/parts").await, first);

    let made = place
        .make_dir(b"xattrs/dir", &FileAttributes::default())
        .await;
    let made = made.expect("a directory");
    assert_eq!(place.xattrs(b"xattrs/dir").await, Xattrs::new());
    let set = place.set(b"xattrs/dir", &made.tag, &with(&second)).await;
    set.expect("a change");
    assert_eq!(place.xattrs(b"xattrs/dir").await, second);
}
