// SPDX-License-Identifier: Apache-2.0
//! Hits, misses, parts of objects, files handed out.

use types::{ByteRange, ErrorKind, PAGE_SIZE, PageRange};

use crate::support::*;

const SIZE: u64 = 3 * PAGE_SIZE + 1000;

#[test]
fn what_was_filled_is_read_and_nothing_else() {
    let dir = temp();
    let store = open(dir.path());
    assert!(!hits(&store, 1, whole(SIZE)));
    fill(&store, 1, SIZE);
    assert!(hits(&store, 1, whole(SIZE)));
    for range in [
        (0, 1),
        (PAGE_SIZE - 1, 2),
        (SIZE - 1, 1),
        (5000, 2 * PAGE_SIZE),
        (SIZE, 0),
    ] {
        assert!(
            hits(&store, 1, ByteRange::new(range.0, range.1)),
            "{range:?}"
        );
    }
    assert!(!hits(&store, 2, whole(10)));
    let stats = store.stats();
    assert_eq!((stats.objects, stats.pages, stats.fills), (1, 4, 4));
    assert_eq!((stats.hits, stats.misses), (6, 2));
}

#[test]
fn a_range_past_the_end_is_a_miss() {
    let dir = temp();
    let store = open(dir.path());
    fill(&store, 1, SIZE);
    let mut buf = Vec::new();
    assert!(!store.read(id(1), ByteRange::new(SIZE - 1, 2), &mut buf));
    assert!(!store.read(id(1), ByteRange::new(u64::MAX - 1, 1), &mut buf));
    assert!(buf.is_empty());
}

#[test]
fn pages_are_present_one_by_one() {
    let dir = temp();
    let store = open(dir.path());
    fill_page(&store, 1, SIZE, 3);
    fill_page(&store, 1, SIZE, 1);
    let all = PageRange { first: 0, end: 4 };
    assert_eq!(store.present(id(1), all), [false, true, false, true]);
    assert_eq!(store.present(id(2), all), [false; 4]);
    assert_eq!(readable(&store, 1, SIZE), [false, true, false, true]);
    assert!(!hits(&store, 1, ByteRange::new(PAGE_SIZE - 1, 2)));
    assert!(!store.contains_whole(id(1)));
    assert!(store.local_file(id(1)).is_none());
    fill(&store, 1, SIZE);
    assert!(store.contains_whole(id(1)));
    assert_eq!(readable(&store, 1, SIZE), [true; 4]);
    assert_eq!(
        store.stats().fills,
        4,
        "pages that were there are not written again"
    );
}

#[test]
fn a_whole_object_is_handed_out_as_a_file() {
    let dir = temp();
    let store = open(dir.path());
    fill(&store, 1, SIZE);
    let local = store.local_file(id(1)).unwrap();
    assert_eq!(bytes_of(&local.open().unwrap()), content(1, whole(SIZE)));
    assert!(store.local_file(id(2)).is_none());
}

#[test]
fn an_empty_object_can_be_cached() {
    let dir = temp();
    let store = open(dir.path());
    assert!(!store.contains_whole(id(1)));
    fill(&store, 1, 0);
    assert!(store.contains_whole(id(1)));
    assert!(hits(&store, 1, whole(0)));
    assert_eq!(
        bytes_of(&store.local_file(id(1)).unwrap().open().unwrap()),
        []
    );
    store.close();
    drop(store);
    assert!(open(dir.path()).contains_whole(id(1)));
}

#[test]
fn an_object_of_many_chunks_keeps_each_page() {
    let dir = temp();
    let size = 700 * PAGE_SIZE + 1;
    let pages = [0, 255, 256, 511, 699, 700];
    let store = open(dir.path());
    for at in pages {
        fill_page(&store, 1, size, at);
    }
    let across = content(
        1,
        PageRange {
            first: 510,
            end: 514,
        }
        .bytes(size),
    );
    store.fill(id(1), size, 510, &across).unwrap();
    drop(store);
    let store = open(dir.path());
    for at in pages.into_iter().chain(510..514) {
        assert!(hits(&store, 1, page(size, at)), "{at}");
    }
    assert!(!hits(&store, 1, page(size, 254)));
    assert_eq!(store.stats().pages, 9);
}

#[test]
fn fills_that_are_not_whole_pages_are_refused() {
    let dir = temp();
    let store = open(dir.path());
    let refused = |size, first, len: usize| {
        let error = store.fill(id(1), size, first, &vec![0; len]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    };
    refused(SIZE, 0, 1000);
    refused(SIZE, 0, 0);
    refused(SIZE, 3, 1001);
    refused(SIZE, 4, 1);
    refused(SIZE, u64::MAX, 1);
    refused(0, 0, 1);
    assert_eq!(store.stats().objects, 0);
    fill(&store, 1, SIZE);
    let error = store
        .fill(id(1), SIZE + PAGE_SIZE, 4, &[1; 1000])
        .unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Invalid,
        "another length is another object: {error}"
    );
    assert!(hits(&store, 1, whole(SIZE)));
}

#[test]
fn what_is_removed_is_gone_also_after_a_reopen() {
    let dir = temp();
    let store = open(dir.path());
    fill(&store, 1, SIZE);
    fill(&store, 2, SIZE);
    store.remove(id(1));
    store.remove(id(3));
    assert!(!hits(&store, 1, whole(SIZE)));
    assert!(!file_of(dir.path(), 1).try_exists().unwrap());
    drop(store);
    let store = open(dir.path());
    assert!(!hits(&store, 1, whole(SIZE)));
    assert!(hits(&store, 2, whole(SIZE)));
    fill(&store, 1, SIZE);
    assert!(hits(&store, 1, whole(SIZE)));
}

#[test]
fn after_a_close_reads_miss_and_fills_are_refused() {
    let dir = temp();
    let store = open(dir.path());
    fill(&store, 1, SIZE);
    store.close();
    store.close();
    assert!(!hits(&store, 1, whole(SIZE)));
    assert!(store.local_file(id(1)).is_none());
    assert!(!store.contains_whole(id(1)));
    assert_eq!(
        store.present(id(1), PageRange { first: 0, end: 1 }),
        [false]
    );
    let error = store.fill(id(2), 1, 0, &[1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[test]
fn the_bytes_of_an_object_that_are_here_are_told() {
    let dir = temp();
    let store = open(dir.path());
    assert_eq!(store.cached_len(id(1)), 0);
    fill_page(&store, 1, SIZE, 3);
    assert_eq!(store.cached_len(id(1)), 1000);
    fill_page(&store, 1, SIZE, 0);
    assert_eq!(store.cached_len(id(1)), PAGE_SIZE + 1000);
    fill(&store, 1, SIZE);
    assert_eq!(store.cached_len(id(1)), SIZE);
}
