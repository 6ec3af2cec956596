// SPDX-License-Identifier: Apache-2.0
//! What is pinned stays, for as long as it is pinned and no longer.

use cache::{Pin, Store};
use types::ErrorKind;

use crate::support::*;

fn pin(place: u64) -> Pin {
    Pin {
        place,
        wish: place / 10,
    }
}

/// Fills more than the store can hold.
fn flood(store: &Store, from: u64) {
    for n in from..from + 150 {
        fill(store, n, MIB);
    }
}

#[test]
fn a_pinned_object_is_not_evicted_until_it_is_unpinned() {
    let dir = temp();
    let store = open(dir.path());
    for n in 0..20 {
        fill(&store, n, MIB);
        assert!(store.pin(id(n), pin(n)).unwrap());
    }
    // Filled on while it is pinned.
    fill_page(&store, 20, 3 * MIB, 0);
    assert!(store.pin(id(20), pin(20)).unwrap());
    fill(&store, 20, 3 * MIB);
    assert!(
        !store.pin(id(77), pin(77)).unwrap(),
        "nothing of it is here"
    );
    flood(&store, 100);
    assert!((0..20).all(|n| hits(&store, n, whole(MIB))));
    assert!(hits(&store, 20, whole(3 * MIB)));
    assert!(store.stats().evictions > 100);
    assert_eq!(store.stats().pinned_objects, 21);
    assert!((23 * MIB..24 * MIB).contains(&store.stats().pinned_bytes));
    assert!(store.stats().used <= 64 * MIB);

    assert_eq!(store.unpin_wishes(|wish| wish == 0).unwrap(), 10);
    store.unpin(id(20)).unwrap();
    flood(&store, 300);
    flood(&store, 500);
    assert!((0..10).all(|n| !store.is_pinned(id(n)) && !store.contains_whole(id(n))));
    assert!(!store.contains_whole(id(20)));
    assert!((10..20).all(|n| store.is_pinned(id(n)) && hits(&store, n, whole(MIB))));
}

#[test]
fn pins_outlive_a_clean_stop_and_an_unclean_one() {
    let dir = temp();
    let store = open(dir.path());
    for n in 0..5 {
        fill(&store, n, MIB);
        store.pin(id(n), pin(n)).unwrap();
    }
    store.unpin(id(4)).unwrap();
    store.close();
    drop(store);
    for end in ["clean", "unclean"] {
        let store = open(dir.path());
        assert_eq!(store.stats().pinned_objects, 4, "after a {end} end");
        flood(&store, 100);
        assert!((0..4).all(|n| hits(&store, n, whole(MIB))));
    }
    let store = open(dir.path());
    assert_eq!(store.unpin_wishes(|_| true).unwrap(), 4);
    assert!((0..4).all(|n| !store.is_pinned(id(n))));
    drop(store);
    assert_eq!(open(dir.path()).stats().pinned_objects, 0);
}

#[test]
fn of_a_place_one_version_is_pinned_and_what_goes_takes_its_pin_along() {
    let dir = temp();
    let store = open(dir.path());
    for n in 0..3 {
        fill(&store, n, MIB);
    }
    store.pin(id(0), pin(7)).unwrap();
    store.pin(id(1), pin(7)).unwrap();
    assert!(!store.is_pinned(id(0)) && store.is_pinned(id(1)));
    store.remove(id(1));
    assert_eq!(store.stats().pinned_objects, 0);
    fill(&store, 1, MIB);
    assert!(!store.is_pinned(id(1)));

    store.pin(id(2), pin(8)).unwrap();
    assert!(store.relabel(id(2), id(9)));
    assert!(!store.is_pinned(id(2)) && !store.is_pinned(id(9)));
    store.pin(id(9), pin(9)).unwrap();
    store.close();
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.stats().pinned_objects, 1);
    flood(&store, 100);
    assert!(store.is_pinned(id(9)) && store.contains_whole(id(9)));
}

#[test]
fn pins_leave_room_for_what_is_read_once_and_fit_into_a_smaller_cache() {
    let dir = temp();
    let store = open_with(dir.path(), 128 * MIB);
    let mut refused = None;
    for n in 0..120 {
        fill(&store, n, MIB);
        match store.pin(id(n), pin(n)) {
            Ok(_) => {}
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let refused = refused.unwrap();
    assert_eq!(refused.kind(), ErrorKind::OutOfSpace);
    assert!(refused.to_string().contains("unpin"), "{refused}");
    let pinned = store.stats().pinned_objects;
    assert!((80..110).contains(&pinned), "{pinned}");
    assert!(store.pin_room() < 2 * MIB);
    flood(&store, 200);
    assert!(hits(&store, 349, whole(MIB)), "fills go on");
    assert_eq!(store.stats().pinned_objects, pinned);
    store.close();
    drop(store);

    let store = open(dir.path());
    let stats = store.stats();
    assert!((30..60).contains(&stats.pinned_objects), "{stats:?}");
    assert!(stats.used <= 64 * MIB, "{stats:?}");
    flood(&store, 400);
    assert!(hits(&store, 549, whole(MIB)));
}
