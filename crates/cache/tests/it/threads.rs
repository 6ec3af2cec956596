// SPDX-License-Identifier: Apache-2.0
//! Many threads on the same few objects, with less room than they need.

use std::sync::atomic::{AtomicU64, Ordering};

use types::{ByteRange, ErrorKind, page_count};

use crate::support::*;

const THREADS: u64 = 8;
const STEPS: u64 = 400;
const OBJECTS: u64 = 60;

fn size(n: u64) -> u64 {
    1 + mix(n) % (4 * MIB)
}

#[test]
fn threads_that_fill_read_lease_and_remove_the_same_objects_see_right_bytes_only() {
    let dir = temp();
    let store = open(dir.path());
    let served = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, served) = (&store, &served);
            scope.spawn(move || {
                let mut random = mix(thread);
                for _ in 0..STEPS {
                    random = mix(random);
                    let n = (random >> 8) % OBJECTS;
                    let offset = (random >> 20) % size(n);
                    match random % 8 {
                        0..4 => {
                            let range = ByteRange::new(offset, 1 << 18).clamp(size(n));
                            served.fetch_add(u64::from(hits(store, n, range)), Ordering::Relaxed);
                        }
                        4..6 => {
                            let result = store.fill(id(n), size(n), 0, &content(n, whole(size(n))));
                            // With all threads holding leases there may be no room.
                            assert!(result.is_ok_and_or(ErrorKind::OutOfSpace));
                        }
                        6 => {
                            if let Some(local) = store.local_file(id(n)) {
                                assert!(local.open().is_none_or(
                                    |file| bytes_of(&file) == content(n, whole(size(n)))
                                ));
                            }
                        }
                        _ if random % 64 == 7 => store.remove(id(n)),
                        _ => {
                            let at = (random >> 40) % page_count(size(n));
                            let bytes = content(n, page(size(n), at));
                            assert!(
                                store
                                    .fill(id(n), size(n), at, &bytes)
                                    .is_ok_and_or(ErrorKind::OutOfSpace)
                            );
                        }
                    }
                }
            });
        }
    });
    let stats = store.stats();
    assert!(served.load(Ordering::Relaxed) > 100, "{stats:?}");
    assert!(stats.evictions > 0, "{stats:?}");
    assert_eq!((stats.corrupt, stats.retired), (0, None));
    assert!(disk_usage(dir.path()) <= 64 * MIB);
    let pages = stats.pages;
    drop(store);
    let store = open(dir.path());
    assert_eq!(
        store.stats().pages,
        pages,
        "the counters and the records agree"
    );
    for n in 0..OBJECTS {
        store.remove(id(n));
    }
    let stats = store.stats();
    assert_eq!((stats.objects, stats.pages), (0, 0));
    store.close();
    assert!(disk_usage(&dir.path().join("data")) <= 2 * MIB);
}

trait IsOkAndOr {
    fn is_ok_and_or(&self, kind: ErrorKind) -> bool;
}

impl IsOkAndOr for types::Result<()> {
    fn is_ok_and_or(&self, kind: ErrorKind) -> bool {
        self.as_ref()
            .map_or_else(|error| error.kind() == kind, |()| true)
    }
}
