// SPDX-License-Identifier: Apache-2.0
//! A scrub finds what is bad, wherever it is, and lets the rest alone.

use cache::{Scrub, ScrubCounts, Store};
use types::PAGE_SIZE;

use crate::support::*;

fn scrub(store: &Store, step: u64) -> ScrubCounts {
    let mut scrub = Scrub::default();
    while store.scrub_on(&mut scrub, step) {}
    scrub.counts()
}

#[test]
fn a_scrub_finds_bad_pages_and_lost_files_and_leaves_the_rest_as_it_was() {
    let dir = temp();
    let store = open(dir.path());
    let large = 20 * PAGE_SIZE + 5;
    for n in 0..10 {
        fill(&store, n, MIB);
    }
    fill(&store, 10, large);
    fill(&store, 11, 10);
    fill_page(&store, 12, large, 3);
    let bytes = 10 * MIB + large + 10 + PAGE_SIZE;
    for step in [1, MIB, u64::MAX] {
        let counts = scrub(&store, step);
        let expected = ScrubCounts {
            objects: 13,
            pages: 80 + 21 + 1 + 1,
            bytes,
            ..ScrubCounts::default()
        };
        assert_eq!(counts, expected, "in steps of {step}");
    }
    flip_in_page(dir.path(), 4, 2);
    flip_in_page(dir.path(), 10, 0);
    flip_in_page(dir.path(), 10, 19);
    std::fs::remove_file(file_of(dir.path(), 6)).unwrap();
    let counts = scrub(&store, MIB);
    assert_eq!(
        (counts.bad_pages, counts.bad_objects, counts.lost_objects),
        (3, 2, 1)
    );
    assert_eq!(store.stats().corrupt, 3);
    let readable = readable(&store, 4, MIB);
    assert_eq!(readable.iter().filter(|good| **good).count(), 7);
    assert!(!readable[2] && !store.contains_whole(id(6)));
    // What was mended is good again.
    fill(&store, 4, MIB);
    fill(&store, 10, large);
    let counts = scrub(&store, MIB);
    assert_eq!(
        (counts.objects, counts.bad_pages, counts.lost_objects),
        (12, 0, 0)
    );
    assert!(hits(&store, 10, whole(large)));
}

#[test]
fn what_is_in_doubt_after_a_crash_is_believed_after_a_scrub() {
    let dir = temp();
    let store = open(dir.path());
    fill(&store, 1, 8 * MIB);
    drop(store);
    let store = open(dir.path());
    assert!(store.local_file(id(1)).is_none(), "large, and in doubt");
    scrub(&store, MIB);
    assert!(store.local_file(id(1)).is_some());
    store.close();
    assert_eq!(scrub(&store, MIB), ScrubCounts::default(), "closed");
}
