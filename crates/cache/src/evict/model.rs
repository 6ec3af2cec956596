// SPDX-License-Identifier: Apache-2.0
//! The policy without a store: a cache of sizes, for simulations and for the policy's own tests.
//!
//! It does for each read what the store does, in the same order: a hit notes the use; a miss makes
//! room, then enters. What it leaves out are pages, files and locks.

use std::collections::{HashMap, HashSet};

use types::VersionId;

use super::{Item, Look, Policy, Tick, Uses};

/// A cache that holds no bytes and evicts as the store does.
#[derive(Debug)]
pub struct EvictionModel {
    pub(super) policy: Policy,
    pub(super) objects: HashMap<VersionId, Object>,
    /// What must not be evicted for now.
    pub(super) held: HashSet<VersionId>,
    capacity: u64,
    used: u64,
    now: Tick,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Object {
    size: u64,
    uses: Uses,
}

impl EvictionModel {
    /// Makes an empty cache of `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        EvictionModel {
            policy: Policy::new(capacity),
            objects: HashMap::new(),
            held: HashSet::new(),
            capacity,
            used: 0,
            now: 0,
        }
    }

    /// Reads all of an object; true when it was there. It is there afterwards if there is room.
    pub fn read(&mut self, id: VersionId, size: u64) -> bool {
        self.now = self.now.wrapping_add(1);
        if let Some(object) = self.objects.get_mut(&id) {
            object.uses.last = self.now;
            object.uses.count = object.uses.count.wrapping_add(1);
            return true;
        }
        if size > self.capacity {
            return false;
        }
        while self.used + size > self.capacity {
            if self.evict().is_none() {
                return false;
            }
        }
        let uses = Uses {
            last: self.now,
            count: 0,
        };
        self.objects.insert(id, Object { size, uses });
        self.used += size;
        let item = Item {
            id,
            birth: 0,
            weight: size,
            entered: self.now,
            spent: 0,
        };
        let (objects, held) = (&self.objects, &self.held);
        self.policy
            .insert(item, &mut |item| look(objects, held, item));
        false
    }

    pub(super) fn evict(&mut self) -> Option<VersionId> {
        let (objects, held) = (&self.objects, &self.held);
        let victim = self
            .policy
            .victim(self.now, &mut |item| look(objects, held, item))?;
        let object = self.objects.remove(&victim.id);
        self.used -= object.expect("a victim is in the cache").size;
        Some(victim.id)
    }
}

fn look(objects: &HashMap<VersionId, Object>, held: &HashSet<VersionId>, item: Item) -> Look {
    match objects.get(&item.id) {
        None => Look::Gone,
        Some(_) if held.contains(&item.id) => Look::Held,
        Some(object) => Look::Free(object.uses),
    }
}
