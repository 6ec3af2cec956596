// SPDX-License-Identifier: Apache-2.0
//! TTL, quota and priority: what gives way, what goes, and what must not.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cache::{Pin, Priority, Rule, Settings, Store};
use types::{ByteSize, ErrorKind, ManualClock};

use crate::support::*;

/// What an object of 1 MiB takes: its pages, an inode, and a block that says where they lie.
const CHARGE: u64 = MIB + 512 + 4096;

fn rule(id: u64) -> Rule {
    Rule {
        id,
        ttl: None,
        quota: None,
        priority: Priority::Normal,
        parent: None,
    }
}

fn limited(id: u64, quota: u64) -> Rule {
    Rule {
        quota: Some(quota),
        ..rule(id)
    }
}

fn nobody(_: u64) -> Option<u64> {
    None
}

fn fill_under(store: &Store, rule: u64, n: u64, size: u64) {
    let bytes = content(n, whole(size));
    store
        .fill_under(Some(rule), (id(n), size), 0, &bytes)
        .unwrap();
}

fn count(store: &Store, objects: std::ops::Range<u64>) -> usize {
    objects.filter(|n| store.contains_whole(id(*n))).count()
}

#[test]
fn what_is_over_a_quota_makes_way_within_it_and_nothing_else_does() {
    let dir = temp();
    let store = open(dir.path());
    store.set_rules(&[limited(1, 10 * MIB)], &nobody);
    for n in 0..5 {
        fill(&store, n, MIB);
    }
    for n in 100..140 {
        fill_under(&store, 1, n, MIB);
        assert!(store.rule_bytes(1) <= 10 * MIB, "{}", store.rule_bytes(1));
        // What came last is there.
        assert!(store.contains_whole(id(n)));
    }
    assert_eq!(count(&store, 0..5), 5);
    assert_eq!(count(&store, 100..140), 9);
    assert!(store.quota_room(1) < 2 * MIB);
    // What is larger than the quota is not cached, and costs nobody anything.
    let large = content(200, whole(11 * MIB));
    let refused = store.fill_under(Some(1), (id(200), 11 * MIB), 0, &large);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::OutOfSpace);
    // A part of it that was written first counts too.
    assert!(store.rule_bytes(1) <= 10 * MIB);
    assert_eq!(count(&store, 0..5), 5);
}

#[test]
fn pinned_objects_do_not_make_way_for_a_quota_nor_go_when_their_time_is_over() {
    let dir = temp();
    let clock = Arc::new(ManualClock::default());
    let store = open_at(dir.path(), &clock);
    let rules = [Rule {
        ttl: Some(Duration::from_secs(60)),
        ..limited(1, 4 * MIB)
    }];
    store.set_rules(&rules, &nobody);
    for n in 0..3 {
        fill_under(&store, 1, n, MIB);
        let pin = Pin { place: n, wish: 1 };
        assert!(store.pin(id(n), pin).unwrap());
    }
    let bytes = content(9, whole(2 * MIB));
    let refused = store.fill_under(Some(1), (id(9), 2 * MIB), 0, &bytes);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::OutOfSpace);
    clock.advance(Duration::from_secs(600));
    store.expire();
    assert_eq!(count(&store, 0..3), 3);
    store.unpin(id(1)).unwrap();
    assert!(store.expire().objects >= 1);
    assert!(!store.contains_whole(id(1)) && store.contains_whole(id(0)));
}

#[test]
fn what_lies_within_counts_for_the_quota_around_it() {
    let dir = temp();
    let store = open(dir.path());
    let inner = Rule {
        parent: Some(1),
        ..limited(2, 4 * MIB)
    };
    store.set_rules(&[limited(1, 10 * MIB), inner], &nobody);
    for n in 0..20 {
        fill_under(&store, 2, n, MIB);
    }
    assert_eq!(count(&store, 0..20), 3);
    for n in 20..40 {
        fill_under(&store, 1, n, MIB);
        assert!(store.rule_bytes(1) <= 10 * MIB);
    }
    assert_eq!(count(&store, 0..40), 9);
    assert!(store.rule_bytes(2) <= 4 * MIB);
}

#[test]
fn objects_go_when_they_are_older_than_their_ttl_and_others_stay() {
    let dir = temp();
    let clock = Arc::new(ManualClock::default());
    let store = open_at(dir.path(), &clock);
    let hour = Duration::from_secs(3600);
    assert_eq!(store.sweep_pause(), None);
    let rules = [
        Rule {
            ttl: Some(hour),
            ..rule(1)
        },
        rule(2),
    ];
    store.set_rules(&rules, &nobody);
    assert_eq!(store.sweep_pause(), Some(hour / 16));
    for n in 0..4 {
        fill_under(&store, 1, n, MIB);
        fill_under(&store, 2, 10 + n, MIB);
        fill(&store, 20 + n, MIB);
    }
    assert_eq!(store.expire().objects, 0);
    // Files are made by the clock of the machine, which has gone on since.
    clock.advance(2 * hour);
    let expired = store.expire();
    assert_eq!((expired.objects, expired.bytes), (4, 4 * MIB));
    assert_eq!(count(&store, 0..4), 0);
    assert_eq!(count(&store, 10..14) + count(&store, 20..24), 8);
    assert_eq!(store.stats().expired, 4);
    assert_eq!(store.rule_bytes(1), 0);
}

#[test]
fn low_priority_gives_way_first_and_high_last() {
    let dir = temp();
    let store = open(dir.path());
    let of = |id, priority| Rule {
        priority,
        ..rule(id)
    };
    store.set_rules(&[of(1, Priority::Low), of(2, Priority::High)], &nobody);
    for n in 0..10 {
        fill_under(&store, 1, n, MIB);
        fill_under(&store, 2, 10 + n, MIB);
        fill(&store, 20 + n, MIB);
    }
    // As much as needs the room of those of low priority and of some without a rule.
    for n in 100..143 {
        fill(&store, n, MIB);
    }
    assert_eq!(count(&store, 0..10), 0);
    assert_eq!(count(&store, 10..20), 10);
    for n in 200..300 {
        fill(&store, n, MIB);
    }
    assert_eq!(count(&store, 10..20), 10);
    // When nothing else is there, it gives way too.
    for n in 300..400 {
        fill_under(&store, 2, n, MIB);
    }
    assert!(count(&store, 10..20) < 10);
    assert!(store.stats().used <= 64 * MIB);
    // Without the rule they are as all others.
    store.set_rules(&[], &nobody);
    let before = count(&store, 300..400);
    for n in 400..600 {
        fill(&store, n, MIB);
    }
    assert!(count(&store, 300..400) < before);
}

#[test]
fn a_rule_that_is_said_later_holds_for_what_is_cached_already() {
    let dir = temp();
    let store = open(dir.path());
    for n in 0..20 {
        fill(&store, n, MIB);
    }
    store.set_rules(&[limited(1, 5 * MIB)], &nobody);
    for n in 0..20 {
        store.set_rule(id(n), Some(1)).unwrap();
    }
    assert_eq!(count(&store, 0..20), 4);
    assert!(
        !store.set_rule(id(77), Some(1)).unwrap(),
        "nothing of it is here"
    );
    // A smaller quota makes way at once; the heir of a rule takes over what it had.
    store.set_rules(&[limited(1, 3 * MIB)], &nobody);
    assert_eq!(count(&store, 0..20), 2);
    store.set_rules(&[limited(3, 9 * MIB)], &|gone| (gone == 1).then_some(3));
    assert_eq!(store.rule_bytes(3), 2 * CHARGE);
    store.set_rules(&[], &nobody);
    assert_eq!(store.rule_bytes(3), 0);
    assert_eq!(count(&store, 0..20), 2);
}

#[test]
fn rules_of_objects_outlive_a_clean_stop_and_an_unclean_one() {
    let dir = temp();
    let rules = [limited(1, 10 * MIB), limited(2, 20 * MIB)];
    let store = open(dir.path());
    store.set_rules(&rules, &nobody);
    for n in 0..4 {
        fill_under(&store, 1, n, MIB);
        fill_under(&store, 2, 10 + n, MIB);
    }
    store.close();
    drop(store);
    let store = open(dir.path());
    store.set_rules(&rules, &nobody);
    assert_eq!(store.rule_bytes(1), 4 * CHARGE);
    fill_under(&store, 1, 4, MIB);
    drop(store);
    let store = open(dir.path());
    store.set_rules(&rules, &nobody);
    assert_eq!(store.rule_bytes(1), 5 * CHARGE);
    assert_eq!(store.rule_bytes(2), 4 * CHARGE);
    for n in 20..60 {
        fill_under(&store, 1, n, MIB);
    }
    assert_eq!(count(&store, 0..5) + count(&store, 20..60), 9);
    assert_eq!(count(&store, 10..14), 4);
    // Whose rule nobody knows any more follows none.
    drop(store);
    let store = open(dir.path());
    store.set_rules(&rules[1..], &nobody);
    assert_eq!(store.rule_bytes(1), 0);
    assert_eq!(store.rule_bytes(2), 4 * CHARGE);
}

fn open_at(dir: &Path, clock: &Arc<ManualClock>) -> Arc<Store> {
    let settings = Settings {
        dir: dir.to_path_buf(),
        capacity: ByteSize(64 * MIB),
    };
    Store::open(&settings, Arc::clone(clock) as _).unwrap()
}
