// SPDX-License-Identifier: Apache-2.0
//! What is said of places: how long objects of a place stay, how much they may take together, and
//! who gives way first.
//!
//! A rule is of a place, and places lie in each other: an object follows the rule of the innermost
//! place that it lies in, and counts for the quotas of those around as well. What places are is the
//! caller's business; here a rule has a number, and each object the slot of its rule, two bytes of
//! its entry. Objects without a rule cost nothing, and neither does a hit of one with a rule.
//!
//! [`Ranks`] are the eviction policies of the three priorities; as long as nobody sets one, all
//! objects are in that of the middle, which then does what it would alone.
//!
//! Pure bookkeeping, no I/O. The locks here are leaves, but for that of the policies, under which the
//! index is asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::evict::{Item, Look, Policy, Tick};

/// Rules at the same time.
pub const RULES_MAX: usize = 1000;
/// Slots: those of the rules before are free only when their objects have others.
const SLOTS: usize = 2 * RULES_MAX + 1;

/// Which rule an object follows.
pub(crate) type Slot = u16;
/// The slot of objects that follow none.
pub(crate) const NO_RULE: Slot = 0;

/// Who gives way first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// Before all others.
    Low,
    /// As everything without a rule.
    #[default]
    Normal,
    /// After all others.
    High,
}

/// What is said of the objects of a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Tells it from others, also after a restart.
    pub id: u64,
    /// How long they stay after the first of their bytes came.
    pub ttl: Option<Duration>,
    /// The most that they take together, with those of places in this one.
    pub quota: Option<u64>,
    /// Who of them and others gives way first.
    pub priority: Priority,
    /// The rule of the place around this one.
    pub parent: Option<u64>,
}

/// A quota that an object counts for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quota {
    /// The slot of its rule.
    pub(crate) slot: Slot,
    pub(crate) limit: u64,
    /// The slots of all that counts for it, in order.
    pub(crate) covers: Arc<[Slot]>,
}

/// A rule that is in force, or whose objects are still about.
#[derive(Debug, Clone)]
struct Known {
    rule: Rule,
    is_live: bool,
    covers: Arc<[Slot]>,
    quotas: Vec<Quota>,
}

#[derive(Debug, Default)]
struct Table {
    slots: HashMap<u64, Slot>,
    known: HashMap<Slot, Known>,
}

/// All rules.
#[derive(Debug)]
pub(crate) struct Rules {
    table: RwLock<Table>,
    /// What the objects of each slot are charged.
    bytes: Box<[AtomicU64]>,
    priorities: Box<[AtomicU8]>,
    /// Who of the objects of a quota gives way.
    pub(crate) policies: Mutex<HashMap<Slot, Policy>>,
    /// One change of the rules at a time.
    pub(crate) changing: Mutex<()>,
}

/// What a change of the rules means for objects.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Slots whose rules are gone.
    pub(crate) gone: Vec<(u64, Slot)>,
    /// Slots of another priority than before.
    pub(crate) moved: Vec<Slot>,
    /// Quotas that are new or cover other rules.
    pub(crate) quotas: Vec<Quota>,
}

impl Rules {
    pub(crate) fn new() -> Self {
        Rules {
            table: RwLock::default(),
            bytes: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            priorities: (0..SLOTS)
                .map(|_| AtomicU8::new(rank(Priority::Normal)))
                .collect(),
            policies: Mutex::default(),
            changing: Mutex::default(),
        }
    }

    /// Returns the slot of a rule that is in force.
    pub(crate) fn slot(&self, id: u64) -> Option<Slot> {
        let table = self.table.read();
        let slot = *table.slots.get(&id)?;
        table.known.get(&slot)?.is_live.then_some(slot)
    }

    /// Returns the slot, if its rule is in force, or that of none.
    pub(crate) fn live(&self, slot: Slot) -> Slot {
        let table = self.table.read();
        match table.known.get(&slot) {
            Some(known) if known.is_live => slot,
            _ => NO_RULE,
        }
    }

    /// Returns the number of the rule of a slot.
    pub(crate) fn id(&self, slot: Slot) -> Option<u64> {
        let table = self.table.read();
        table.known.get(&slot).map(|known| known.rule.id)
    }

    /// Takes note of a rule that objects on the disk follow: what it says is not known yet. None when
    /// there are too many.
    pub(crate) fn meet(&self, id: u64) -> Option<Slot> {
        let mut table = self.table.write();
        let rule = Rule {
            id,
            ttl: None,
            quota: None,
            priority: Priority::Normal,
            parent: None,
        };
        table.take_slot(rule)
    }

    /// Puts other rules in force. Those that are gone stay known until [`Rules::forget`].
    pub(crate) fn replace(&self, rules: &[Rule]) -> Change {
        let mut table = self.table.write();
        let mut change = Change::default();
        for known in table.known.values_mut() {
            known.is_live = false;
        }
        let old_quotas: Vec<Quota> = (table.known.values())
            .flat_map(|known| known.quotas.iter().cloned())
            .collect();
        for rule in rules.iter().take(RULES_MAX) {
            let Some(slot) = table.take_slot(rule.clone()) else {
                continue;
            };
            let priority = &self.priorities[usize::from(slot)];
            if priority.swap(rank(rule.priority), Ordering::Relaxed) != rank(rule.priority) {
                change.moved.push(slot);
            }
        }
        table.resolve();
        let live = table.known.iter().filter(|(_, known)| known.is_live);
        for quota in live.flat_map(|(_, known)| &known.quotas) {
            if !old_quotas.contains(quota) && !change.quotas.contains(quota) {
                change.quotas.push(quota.clone());
            }
        }
        let gone = table.known.iter().filter(|(_, known)| !known.is_live);
        change.gone = gone.map(|(slot, known)| (known.rule.id, *slot)).collect();
        let limits: Vec<Slot> = table.limits();
        drop(table);
        let mut policies = self.policies.lock();
        policies.retain(|slot, _| limits.contains(slot));
        for quota in &change.quotas {
            policies.insert(quota.slot, Policy::new(quota.limit));
        }
        change
    }

    /// Frees the slot of a rule that is gone, whose objects have another one.
    pub(crate) fn forget(&self, slot: Slot) {
        let mut table = self.table.write();
        if let Some(known) = table.known.get(&slot)
            && !known.is_live
        {
            let id = known.rule.id;
            table.slots.remove(&id);
            table.known.remove(&slot);
            self.bytes[usize::from(slot)].store(0, Ordering::Relaxed);
            self.priorities[usize::from(slot)].store(rank(Priority::Normal), Ordering::Relaxed);
        }
    }

    /// Returns the quotas that objects of a slot count for, the innermost first.
    pub(crate) fn quotas(&self, slot: Slot) -> Vec<Quota> {
        if slot == NO_RULE {
            return Vec::new();
        }
        let table = self.table.read();
        let known = table.known.get(&slot);
        known.map_or_else(Vec::new, |known| known.quotas.clone())
    }

    /// Returns the slots whose objects go after a time.
    pub(crate) fn ttls(&self) -> HashMap<Slot, Duration> {
        let table = self.table.read();
        let known = table.known.iter().filter(|(_, known)| known.is_live);
        known
            .filter_map(|(slot, known)| Some((*slot, known.rule.ttl?)))
            .collect()
    }

    /// Returns what all objects of a rule and of those within it are charged.
    pub(crate) fn used(&self, id: u64) -> u64 {
        let table = self.table.read();
        let known = table.slots.get(&id).and_then(|slot| table.known.get(slot));
        known.map_or(0, |known| self.sum(&known.covers))
    }

    /// Returns what the objects of some slots are charged.
    pub(crate) fn sum(&self, slots: &[Slot]) -> u64 {
        let of = |slot: &Slot| self.bytes[usize::from(*slot)].load(Ordering::Relaxed);
        slots.iter().map(of).sum()
    }

    pub(crate) fn charge(&self, slot: Slot, bytes: u64) {
        if slot != NO_RULE {
            self.bytes[usize::from(slot)].fetch_add(bytes, Ordering::Relaxed);
        }
    }

    pub(crate) fn give_back(&self, slot: Slot, bytes: u64) {
        if slot != NO_RULE {
            let counter = &self.bytes[usize::from(slot)];
            // The slot may have been freed meanwhile.
            counter
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |sum| {
                    Some(sum.saturating_sub(bytes))
                })
                .ok();
        }
    }

    pub(crate) fn priority(&self, slot: Slot) -> Priority {
        match self.priorities[usize::from(slot)].load(Ordering::Relaxed) {
            0 => Priority::Low,
            1 => Priority::Normal,
            _ => Priority::High,
        }
    }
}

fn rank(priority: Priority) -> u8 {
    match priority {
        Priority::Low => 0,
        Priority::Normal => 1,
        Priority::High => 2,
    }
}

impl Table {
    /// Puts a rule in force; none when there are too many.
    fn take_slot(&mut self, rule: Rule) -> Option<Slot> {
        let slot = match self.slots.get(&rule.id) {
            Some(slot) => *slot,
            None => (1..SLOTS)
                .filter_map(|slot| Slot::try_from(slot).ok())
                .find(|slot| !self.known.contains_key(slot))?,
        };
        self.slots.insert(rule.id, slot);
        let known = Known {
            rule,
            is_live: true,
            covers: Arc::new([slot]),
            quotas: Vec::new(),
        };
        self.known.insert(slot, known);
        Some(slot)
    }

    /// Returns the slot of a rule and of those around it.
    fn chain(&self, slot: Slot) -> Vec<Slot> {
        let mut chain = vec![slot];
        while let Some(parent) = chain
            .last()
            .and_then(|slot| self.known.get(slot)?.rule.parent)
            .and_then(|id| self.slots.get(&id))
            // Whoever says that places lie in each other in a ring is not followed.
            .filter(|slot| !chain.contains(slot))
        {
            chain.push(*parent);
        }
        chain
    }

    /// Works out which rules lie in which.
    fn resolve(&mut self) {
        let slots: Vec<Slot> = (self.known.iter())
            .filter(|(_, known)| known.is_live)
            .map(|(slot, _)| *slot)
            .collect();
        let mut covers: HashMap<Slot, Vec<Slot>> = HashMap::new();
        let mut chains = Vec::new();
        for slot in slots {
            let chain = self.chain(slot);
            for around in &chain {
                covers.entry(*around).or_default().push(slot);
            }
            chains.push((slot, chain));
        }
        for (slot, mut covers) in covers {
            covers.sort_unstable();
            if let Some(known) = self.known.get_mut(&slot) {
                known.covers = covers.into();
            }
        }
        for (slot, chain) in chains {
            let quota = |around: &Slot| {
                let known = self.known.get(around)?;
                Some(Quota {
                    slot: *around,
                    limit: known.rule.quota?,
                    covers: Arc::clone(&known.covers),
                })
            };
            let quotas = chain.iter().filter_map(quota).collect();
            if let Some(known) = self.known.get_mut(&slot) {
                known.quotas = quotas;
            }
        }
    }

    /// Returns the slots that have a quota.
    fn limits(&self) -> Vec<Slot> {
        let live = self.known.iter().filter(|(_, known)| known.is_live);
        let limited = live.filter(|(_, known)| known.rule.quota.is_some());
        limited.map(|(slot, _)| *slot).collect()
    }
}

/// The eviction policies of the priorities.
#[derive(Debug)]
pub(crate) struct Ranks([Policy; 3]);

/// Asks the index for what it knows of a candidate that is in the queues of a priority.
pub(crate) type LookAtRank<'a> = &'a mut dyn FnMut(Priority, Item) -> Look;

impl Ranks {
    /// Makes the policies of a cache of `capacity` bytes.
    pub(crate) fn new(capacity: u64) -> Self {
        Ranks([(); 3].map(|()| Policy::new(capacity)))
    }

    fn of(&mut self, priority: Priority) -> &mut Policy {
        &mut self.0[usize::from(rank(priority))]
    }

    /// As [`Policy::insert`].
    pub(crate) fn insert(&mut self, priority: Priority, item: Item, look: LookAtRank<'_>) {
        self.of(priority)
            .insert(item, &mut |item| look(priority, item));
    }

    /// As [`Policy::put_back`].
    pub(crate) fn put_back(&mut self, priority: Priority, item: Item) {
        self.of(priority).put_back(item);
    }

    /// As [`Policy::victim`], of the lowest priority that has one.
    pub(crate) fn victim(&mut self, now: Tick, look: LookAtRank<'_>) -> Option<(Priority, Item)> {
        [Priority::Low, Priority::Normal, Priority::High]
            .into_iter()
            .find_map(|priority| {
                let policy = self.of(priority);
                if policy.is_empty() {
                    return None;
                }
                let victim = policy.victim(now, &mut |item| look(priority, item));
                victim.map(|item| (priority, item))
            })
    }

    /// As [`Policy::sweep`].
    pub(crate) fn sweep(&mut self, objects: u64, alive: &mut dyn FnMut(Priority, Item) -> bool) {
        for priority in [Priority::Low, Priority::Normal, Priority::High] {
            self.of(priority)
                .sweep(objects, &mut |item| alive(priority, item));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(id: u64, parent: Option<u64>, quota: Option<u64>) -> Rule {
        Rule {
            id,
            ttl: None,
            quota,
            priority: Priority::Normal,
            parent,
        }
    }

    #[test]
    fn what_lies_in_a_place_counts_for_the_quotas_around_it() {
        let rules = Rules::new();
        rules.replace(&[
            rule(1, None, Some(100)),
            rule(2, Some(1), None),
            rule(3, Some(2), Some(10)),
            rule(4, None, None),
        ]);
        let slot = |id| rules.slot(id).unwrap();
        rules.charge(slot(1), 1);
        rules.charge(slot(2), 20);
        rules.charge(slot(3), 300);
        rules.charge(slot(4), 4000);
        assert_eq!([1, 2, 3, 4].map(|id| rules.used(id)), [321, 320, 300, 4000]);
        let limits = |id| -> Vec<u64> { rules.quotas(slot(id)).iter().map(|q| q.limit).collect() };
        assert_eq!(limits(3), [10, 100]);
        assert_eq!(limits(2), [100]);
        assert!(limits(4).is_empty());
        // A ring ends.
        rules.replace(&[rule(1, Some(2), Some(5)), rule(2, Some(1), Some(6))]);
        assert_eq!(limits(1), [5, 6]);
    }

    #[test]
    fn a_slot_is_free_again_when_its_rule_is_gone_and_its_objects_too() {
        let rules = Rules::new();
        rules.replace(&[rule(7, None, Some(1))]);
        let slot = rules.slot(7).unwrap();
        let change = rules.replace(&[]);
        assert_eq!(change.gone, [(7, slot)]);
        assert_eq!((rules.slot(7), rules.live(slot)), (None, NO_RULE));
        assert_eq!(rules.id(slot), Some(7));
        rules.forget(slot);
        assert_eq!(rules.id(slot), None);
        for round in 0..4 {
            let many: Vec<_> = (0..RULES_MAX as u64)
                .map(|id| rule(round * 10_000 + id, None, None))
                .collect();
            let change = rules.replace(&many);
            assert!(rules.slot(round * 10_000 + 999).is_some(), "{round}");
            for (_, slot) in change.gone {
                rules.forget(slot);
            }
        }
    }

    #[test]
    fn only_what_changed_is_told() {
        let rules = Rules::new();
        let one = [rule(1, None, Some(9)), rule(2, None, None)];
        assert_eq!(rules.replace(&one).quotas.len(), 1);
        assert_eq!(rules.replace(&one), Change::default());
        let mut other = one.clone();
        other[1].priority = Priority::High;
        let change = rules.replace(&other);
        assert_eq!(change.moved, [rules.slot(2).unwrap()]);
        assert!(change.quotas.is_empty() && change.gone.is_empty());
        // A rule that comes into a place with a quota counts for it.
        other[1].parent = Some(1);
        assert_eq!(rules.replace(&other).quotas.len(), 1);
    }
}
