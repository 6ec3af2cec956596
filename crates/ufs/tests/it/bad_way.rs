// SPDX-License-Identifier: Apache-2.0
//! Real servers behind a bad way: a relay that throttles, fails, cuts, loses answers, is slow, and
//! falls silent. The outcome is the right bytes, or an error within the deadline. What servers could
//! lie about is in `faults`, with servers of ours.

use std::time::Duration;

use testkit::rigs::{Fault, Relay};
use types::{ByteRange, Clock, ErrorKind, ObjectPath, SystemClock, VersionTag};
use ufs::UnderStorage;
use ufs::conformance::{Fixture, list, read, stat};

/// Longer than what is on its way at once.
const LEN: u32 = 1_500_000;

/// What goes wrong before an answer comes.
const BURSTS: [&[Fault]; 3] = [
    &[
        Fault::Refuse(503, "SlowDown"),
        Fault::Refuse(429, "TooManyRequests"),
        Fault::Refuse(500, "InternalError"),
        Fault::Refuse(502, "BadGateway"),
    ],
    &[Fault::Cut, Fault::Cut, Fault::Cut],
    &[Fault::LoseAnswer, Fault::LoseAnswer],
];

/// What is asked of a storage.
#[derive(Debug, Clone, Copy)]
enum Operation {
    Look,
    List,
    Read,
}

async fn is_right(
    storage: &dyn UnderStorage,
    tag: &VersionTag,
    operation: Operation,
    content: &[u8],
) {
    let len = content.len() as u64;
    match operation {
        Operation::Look => {
            let found = stat(storage, b"way/object").await.unwrap();
            assert_eq!(found.tag.size, len);
        }
        Operation::List => {
            let (entries, _) = list(storage, b"way").await.unwrap();
            assert_eq!((entries.len(), entries[0].meta.tag.size), (1, len));
        }
        Operation::Read => {
            let bytes = read(storage, b"way/object", tag, ByteRange::new(0, len)).await;
            assert!(bytes.unwrap() == content, "not the right bytes");
        }
    }
}

/// Puts an object and asks for it by a way that gets worse and worse.
pub(crate) async fn is_withstood(fixture: &dyn Fixture, relay: &Relay) {
    of_an_object_is_withstood(fixture, relay, LEN).await;
}

/// The same, with an object of so many bytes.
pub(crate) async fn of_an_object_is_withstood(fixture: &dyn Fixture, relay: &Relay, len: u32) {
    let content: Vec<u8> = (0..len).map(|index| (index % 253) as u8).collect();
    fixture.put(b"way/object", &content).await;
    let storage = &*fixture.storage();
    let tag = stat(storage, b"way/object").await.unwrap().tag;
    for burst in BURSTS {
        for operation in [Operation::Look, Operation::List, Operation::Read] {
            let (failed, before) = (relay.failed(), storage.counters().snapshot());
            for fault in burst {
                relay.fail(1, *fault, |_| true);
            }
            is_right(storage, &tag, operation, &content).await;
            let met = relay.failed() - failed;
            assert_eq!(met, burst.len() as u64, "{operation:?} {burst:?}");
            let after = storage.counters().snapshot();
            // One try of WebHDFS is several requests.
            assert!(after.retries > before.retries, "{operation:?} {burst:?}");
            if burst.contains(&BURSTS[0][0]) {
                assert_eq!(after.throttled - before.throttled, 2, "{operation:?}");
            }
        }
    }
    relay.set_bandwidth(Some(1_000_000));
    is_right(storage, &tag, Operation::Read, &content).await;
    relay.set_bandwidth(None);
    ends_in_time_and_is_used_again(storage, relay, &content).await;
}

async fn ends_in_time_and_is_used_again(storage: &dyn UnderStorage, relay: &Relay, content: &[u8]) {
    let tag = stat(storage, b"way/object").await.unwrap().tag;
    let path = ObjectPath::parse(b"way/object").unwrap();
    for kind in [ErrorKind::Unavailable, ErrorKind::Timeout] {
        match kind {
            ErrorKind::Timeout => relay.black_hole(),
            _ => relay.switch_off(),
        }
        let started = SystemClock.now();
        let deadline = || SystemClock.deadline(Duration::from_millis(600));
        let looked = storage.stat(&path, deadline()).await.unwrap_err();
        assert_eq!(looked.kind(), kind, "{looked}");
        let whole = ByteRange::new(0, tag.size);
        let end = async {
            let mut bytes = storage.read(&path, &tag, whole, deadline()).await?;
            while let Some(piece) = futures::StreamExt::next(&mut bytes).await {
                piece?;
            }
            types::Result::Ok(())
        };
        let error = end.await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(SystemClock.now() - started < Duration::from_secs(4));
        relay.switch_on();
        is_right(storage, &tag, Operation::Read, content).await;
    }
}
