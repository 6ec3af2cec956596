// SPDX-License-Identifier: Apache-2.0
//! Real servers carry a change out, and their answer does not arrive: what comes of it is one change,
//! acknowledged, and not taken for one by somebody else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use testkit::rigs::{Fault, Relay};
use types::{ByteRange, Clock, Deadline, ErrorKind, ObjectMeta, ObjectPath, SystemClock};
use ufs::conformance::{Fixture, read, stat};
use ufs::{Expect, FileAttributes, UnderStorage, UnderWriter};

const NOTHING: FileAttributes = FileAttributes {
    owner: None,
    mtime_ns: None,
};

fn soon() -> Deadline {
    SystemClock.deadline(Duration::from_secs(20))
}

fn path(name: &str) -> ObjectPath {
    ObjectPath::parse(name.as_bytes()).unwrap()
}

/// Loses the answer to a change, from the `skipped`-th on.
fn lose_one(relay: &Relay, skipped: u64) {
    let passed = AtomicU64::new(0);
    relay.fail(1, Fault::LoseAnswer, move |head| {
        let is_change = !head.starts_with("get ") && !head.starts_with("head ");
        is_change && passed.fetch_add(1, Ordering::Relaxed) == skipped
    });
}

/// Checks what a name has.
async fn holds(storage: &dyn UnderStorage, name: &str, bytes: &[u8], told: &ObjectMeta) {
    let seen = stat(storage, name.as_bytes()).await.unwrap();
    assert_eq!(seen.tag.etag, told.tag.etag, "{name}");
    let whole = ByteRange::new(0, bytes.len() as u64);
    let found = read(storage, name.as_bytes(), &told.tag, whole).await;
    assert!(found.unwrap() == bytes, "{name}");
}

async fn send_parts(writer: &dyn UnderWriter, name: &str, parts: &[Bytes]) -> ObjectMeta {
    let size = parts[0].len() as u64;
    let upload = writer.begin(&path(name), size, &NOTHING, soon()).await;
    let upload = upload.unwrap();
    for (number, part) in (1..).zip(parts) {
        let sent = upload.part(number, part.clone(), soon()).await;
        sent.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let done = upload.complete(&Expect::Absent, soon()).await;
    done.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Loses one answer in each way to change something, for storages of flat names.
pub(crate) async fn are_no_second_change(fixture: &dyn Fixture, relay: &Relay) {
    let storage = &*fixture.storage();
    let writer = storage.writer().unwrap();
    let part = Bytes::from(vec![
        7;
        usize::try_from(writer.abilities().part_min.max(1000))
            .unwrap()
    ]);
    for skipped in 0..4 {
        lose_one(relay, skipped);
        let name = format!("lost/put-{skipped}");
        let put = async |bytes: &'static str, expect: &Expect| {
            let bytes = Bytes::from_static(bytes.as_bytes());
            let put = writer
                .put(&path(&name), bytes, expect, &NOTHING, soon())
                .await;
            put.unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        let first = put("first", &Expect::Absent).await;
        holds(storage, &name, b"first", &first).await;
        let second = put("second", &Expect::Version(first.tag)).await;
        holds(storage, &name, b"second", &second).await;

        let to = format!("lost/copy-{skipped}");
        let copied = writer.copy(
            &path(&name),
            &second.tag,
            &path(&to),
            &Expect::Absent,
            soon(),
        );
        let copied = copied.await.unwrap_or_else(|error| panic!("{to}: {error}"));
        holds(storage, &to, b"second", &copied).await;
        let removed = writer.delete(&path(&name), &Expect::Version(second.tag), soon());
        removed
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let gone = stat(storage, name.as_bytes()).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound, "{name}");
        relay.heal();
    }
    for skipped in 0..5 {
        let name = format!("lost/parts-{skipped}");
        lose_one(relay, skipped);
        let parts = [part.clone(), part.clone(), Bytes::from_static(b"the end")];
        let made = send_parts(writer, &name, &parts).await;
        holds(storage, &name, &parts.concat(), &made).await;
        relay.heal();
    }
    for skipped in 0..2 {
        let dir = format!("lost/dir-{skipped}");
        lose_one(relay, skipped);
        let made = writer.create_dir(&path(&dir), &NOTHING, soon()).await;
        made.unwrap_or_else(|error| panic!("{dir}: {error}"));
        let removed = writer.remove_dir(&path(&dir), soon()).await;
        removed.unwrap_or_else(|error| panic!("{dir}: {error}"));
        let gone = stat(storage, dir.as_bytes()).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound, "{dir}");
        relay.heal();
    }
    assert!(relay.failed() >= 10, "only {} were lost", relay.failed());
}
