// SPDX-License-Identifier: Apache-2.0
//! The policy against toy caches of equal objects.

use std::collections::HashMap;

use super::*;

/// A cache of `room` objects of one byte each.
struct Toy {
    policy: Policy,
    uses: HashMap<u128, u8>,
    held: HashSet<u128>,
    room: usize,
}

impl Toy {
    fn new(room: usize) -> Self {
        Toy {
            policy: Policy::default(),
            uses: HashMap::new(),
            held: HashSet::new(),
            room,
        }
    }

    fn item(id: u128) -> Item {
        Item {
            id: VersionId(id),
            birth: 0,
            bytes: 1,
        }
    }

    /// Reads an object; true when it was there.
    fn read(&mut self, id: u128) -> bool {
        if let Some(uses) = self.uses.get_mut(&id) {
            *uses = (*uses + 1).min(3);
            return true;
        }
        if self.uses.len() == self.room && self.evict().is_none() {
            return false;
        }
        self.uses.insert(id, 0);
        self.policy.insert(Self::item(id));
        false
    }

    fn evict(&mut self) -> Option<u128> {
        let (uses, held) = (&mut self.uses, &self.held);
        let victim = self
            .policy
            .victim(&mut |item| match uses.get_mut(&item.id.0) {
                None => Look::Gone,
                Some(_) if held.contains(&item.id.0) => Look::Held,
                Some(0) => Look::Idle,
                Some(uses) => {
                    *uses -= 1;
                    Look::Used
                }
            })?;
        self.uses
            .remove(&victim.id.0)
            .expect("a victim is in the cache");
        Some(victim.id.0)
    }
}

/// xorshift64*: the tests replay.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }

    fn shuffle(&mut self, items: &mut [u128]) {
        for i in (1..items.len()).rev() {
            let other = usize::try_from(self.below(i as u64 + 1)).unwrap();
            items.swap(i, other);
        }
    }
}

#[test]
fn a_scan_does_not_wash_out_what_is_used() {
    let mut toy = Toy::new(100);
    for _ in 0..3 {
        (0..50).for_each(|id| {
            toy.read(id);
        });
    }
    (1000..3000).for_each(|id| {
        toy.read(id);
    });
    let kept = (0..50).filter(|id| toy.uses.contains_key(id)).count();
    assert!(
        kept >= 45,
        "{kept} of 50 survive a scan of 20 times the cache"
    );
}

#[test]
fn what_is_held_stays_and_all_held_is_no_victim() {
    let mut toy = Toy::new(10);
    (0..10).for_each(|id| {
        toy.read(id);
    });
    toy.held = (0..9).collect();
    assert_eq!(toy.evict(), Some(9));
    assert_eq!(toy.evict(), None);
    toy.held.clear();
    assert!(toy.evict().is_some());
}

#[test]
fn what_comes_back_soon_goes_to_the_main_queue() {
    let mut toy = Toy::new(10);
    (0..11).for_each(|id| {
        toy.read(id);
    });
    assert!(
        !toy.uses.contains_key(&0),
        "the oldest unused object goes first"
    );
    toy.read(0);
    assert_eq!(toy.policy.main.items.back(), Some(&Toy::item(0)));
}

#[test]
fn what_was_removed_is_swept_out() {
    let mut policy = Policy::default();
    for id in 0..5000 {
        policy.insert(Toy::item(id));
        policy.sweep(10, &mut |item| item.id.0 % 500 == 0);
    }
    assert!(policy.small.items.len() <= 20 + SWEEP_SLACK + 1);
    assert_eq!(policy.small.bytes, policy.small.items.len() as u64);
}

#[test]
fn shuffled_epochs_beat_lru() {
    let (objects, epochs) = (2000_u64, 20);
    let mut toy = Toy::new(1000);
    let mut random = Random(42);
    let mut order: Vec<u128> = (0..u128::from(objects)).collect();
    let mut hits = 0;
    for epoch in 0..epochs {
        random.shuffle(&mut order);
        hits += order
            .iter()
            .filter(|id| toy.read(**id) && epoch > 4)
            .count();
    }
    let ratio = hits as f64 / (objects * (epochs - 5)) as f64;
    // LRU reaches 0.155, a fixed half of the objects 0.5.
    assert!(ratio > 0.16, "{ratio}");
}
