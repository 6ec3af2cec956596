// SPDX-License-Identifier: Apache-2.0
//! Rules of places: which one an object follows, what gives way within a quota, and what goes because
//! its time is over.
//!
//! Which rule an object follows is a record of its own beside those of the object, written when it
//! comes into the cache. What has to go for a quota is picked by a policy of that quota alone, which
//! knows the same objects as that of the whole cache. How old an object is, its file tells: when it
//! was made. So neither costs memory, and a sweep looks at the files of places that have a TTL only.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use types::{Error, ErrorKind, Result, VersionId};

use super::pin::item_of;
use super::{Inner, Store};
use crate::evict::{Item, Look, Uses};
use crate::kv::Change;
use crate::record;
use crate::rules::{NO_RULE, Quota, Rule, Slot};

/// What may be older than its TTL, in parts of that: a sweep looks at every file of the place.
const TTL_PARTS: u32 = 16;
/// The least and the most time between two sweeps.
const SWEEPS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// What went because its time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expired {
    /// Objects.
    pub objects: u64,
    /// Bytes of them that were here.
    pub bytes: u64,
}

impl Store {
    /// Puts these rules in force, in place of those before. Objects of rules that are gone follow the
    /// one that `heir_of` names, or none. What is more than a quota makes way. Blocks.
    pub fn set_rules(&self, rules: &[Rule], heir_of: &dyn Fn(u64) -> Option<u64>) {
        let inner = &self.inner;
        let _one_at_a_time = inner.rules.changing.lock();
        let change = inner.rules.replace(rules);
        for (id, slot) in change.gone {
            let heir = heir_of(id).and_then(|heir| inner.rules.slot(heir));
            inner.for_objects_of(slot, |id| inner.follow(id, heir.unwrap_or(NO_RULE)));
            inner.rules.forget(slot);
        }
        for slot in change.moved {
            inner.for_objects_of(slot, |id| {
                inner.requeue(id);
                Ok(())
            });
        }
        for quota in &change.quotas {
            for slot in &*quota.covers {
                inner.for_objects_of(*slot, |id| {
                    inner.queue_for_quotas(id, std::slice::from_ref(quota));
                    Ok(())
                });
            }
            inner.fit(quota, super::recover::NOBODY);
        }
    }

    /// Says which rule an object follows; false when nothing of it is here. What is more than a quota
    /// makes way, this object last.
    ///
    /// # Errors
    /// What the disk said.
    pub fn set_rule(&self, id: VersionId, rule: Option<u64>) -> Result<bool> {
        let inner = &self.inner;
        if inner.is_out_of_service() {
            return Ok(false);
        }
        let slot = rule.and_then(|rule| inner.rules.slot(rule));
        let slot = slot.unwrap_or(NO_RULE);
        match inner.index.with(id, |entry| entry.rule) {
            None => return Ok(false),
            Some(same) if same == slot => return Ok(true),
            Some(_) => {}
        }
        inner.follow(id, slot)?;
        for quota in inner.rules.quotas(slot) {
            if !inner.fit(&quota, id) && !self.is_pinned(id) {
                inner.remove(id);
            }
        }
        Ok(true)
    }

    /// Returns what the objects of a rule take, with those of rules of places within.
    pub fn rule_bytes(&self, rule: u64) -> u64 {
        self.inner.rules.used(rule)
    }

    /// Returns how much may come into the place of a rule before something of it has to go.
    pub fn quota_room(&self, rule: u64) -> u64 {
        let rules = &self.inner.rules;
        let slot = rules.slot(rule).unwrap_or(NO_RULE);
        let room = |quota: &Quota| quota.limit.saturating_sub(rules.sum(&quota.covers));
        rules
            .quotas(slot)
            .iter()
            .map(room)
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Returns how long to wait between two calls of [`Store::expire`]; none when no rule has a TTL.
    pub fn sweep_pause(&self) -> Option<Duration> {
        let shortest = self.inner.rules.ttls().into_values().min()?;
        Some((shortest / TTL_PARTS).clamp(SWEEPS.0, SWEEPS.1))
    }

    /// Drops what is older than the TTL of its rule, and not pinned. Blocks.
    pub fn expire(&self) -> Expired {
        let inner = &self.inner;
        let ttls = inner.rules.ttls();
        let mut expired = Expired::default();
        if ttls.is_empty() {
            return expired;
        }
        let now = inner.clock.wall();
        for prefix in 0..=u8::MAX {
            let due = inner.index.ids(prefix, |entry| {
                !entry.pinned && ttls.contains_key(&entry.rule)
            });
            for id in due {
                if inner.is_out_of_service() {
                    return expired;
                }
                let _files = inner.index.lock_files(id);
                let found = inner.index.with(id, |entry| {
                    let ttl = ttls.get(&entry.rule).filter(|_| !entry.pinned);
                    ttl.map(|ttl| (entry.birth, entry.len(), *ttl))
                });
                let Some((birth, len, ttl)) = found.flatten() else {
                    continue;
                };
                if inner.is_over(id, now, ttl) {
                    inner.drop_object(id, birth);
                    expired.objects += 1;
                    expired.bytes += len;
                }
            }
        }
        let counter = &inner.counters.expired;
        counter.fetch_add(expired.objects, Ordering::Relaxed);
        expired
    }
}

/// Room within quotas that was taken and goes back unless it is kept.
pub(super) struct Way<'a> {
    inner: &'a Inner,
    pub(super) slot: Slot,
    bytes: u64,
}

impl Way<'_> {
    /// Keeps `bytes` of it for good, for an object of this slot.
    pub(super) fn keep(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Drop for Way<'_> {
    fn drop(&mut self) {
        self.inner.rules.give_back(self.slot, self.bytes);
    }
}

impl Inner {
    /// Whether the file of an object is older than its time. One that cannot be looked at, or comes
    /// from the future, is not.
    fn is_over(&self, id: VersionId, now: SystemTime, ttl: Duration) -> bool {
        let made = self.files.made(id).ok();
        let age = made.and_then(|made| now.duration_since(made).ok());
        age.is_some_and(|age| age >= ttl)
    }

    /// Does something with each object of a slot. Those that come meanwhile are not of it any more,
    /// when its rule is gone.
    fn for_objects_of(&self, slot: Slot, work: impl Fn(VersionId) -> Result<()>) {
        for prefix in 0..=u8::MAX {
            // Whoever is filling has looked at the rules before the change.
            drop(self.index.lock_files(VersionId(u128::from(prefix) << 120)));
            for id in self.index.ids(prefix, |entry| entry.rule == slot) {
                if let Err(error) = work(id) {
                    tracing::debug!("change the rule of {id}: {error}");
                }
            }
        }
    }

    /// Has an object follow a rule, and notes that.
    pub(super) fn follow(&self, id: VersionId, slot: Slot) -> Result<()> {
        let _files = self.index.lock_files(id);
        self.follow_locked(id, slot)
    }

    /// As [`Inner::follow`], with the lock of its files held.
    fn follow_locked(&self, id: VersionId, slot: Slot) -> Result<()> {
        let slot = self.rules.live(slot);
        let moved = self.index.with(id, |entry| {
            let from = std::mem::replace(&mut entry.rule, slot);
            if from == slot {
                return None;
            }
            self.rules.give_back(from, entry.charge());
            self.rules.charge(slot, entry.charge());
            Some(self.rules.priority(from) != self.rules.priority(slot))
        });
        let Some(has_moved) = moved.flatten() else {
            return Ok(());
        };
        if has_moved {
            self.requeue(id);
        }
        self.queue_for_quotas(id, &self.rules.quotas(slot));
        self.kv.write(vec![self.rule_record(id, slot)])
    }

    /// Returns the record that notes which rule an object follows.
    pub(super) fn rule_record(&self, id: VersionId, slot: Slot) -> Change {
        let rule = self.rules.id(slot);
        (record::rule_key(id), rule.map(record::encode_rule))
    }

    /// Has the policy of the priority of an object know it; that of the one before forgets it when it
    /// comes upon it.
    fn requeue(&self, id: VersionId) {
        let found = self.index.with(id, |entry| {
            // Who unpins it has it queued then.
            entry.queued = !entry.pinned;
            let item = (!entry.pinned).then(|| item_of(id, entry));
            item.map(|item| (item, self.rules.priority(entry.rule)))
        });
        if let Some((item, priority)) = found.flatten() {
            let mut policy = self.policy.lock();
            policy.insert(priority, item, &mut |rank, item| {
                self.look_at(rank, item, id)
            });
        }
    }

    /// Has the policies of quotas know an object.
    pub(super) fn queue_for_quotas(&self, id: VersionId, quotas: &[Quota]) {
        if quotas.is_empty() {
            return;
        }
        let Some(item) = self.index.with(id, |entry| item_of(id, entry)) else {
            return;
        };
        let objects = self.counters.objects.load(Ordering::Relaxed);
        let mut policies = self.rules.policies.lock();
        for quota in quotas {
            if let Some(policy) = policies.get_mut(&quota.slot) {
                policy.insert(item, &mut |item| self.look_in(quota, item, id));
                policy.sweep(objects, &mut |item| {
                    self.look_in(quota, item, id) != Look::Gone
                });
            }
        }
    }

    fn look_in(&self, quota: &Quota, item: Item, keep: VersionId) -> Look {
        let look = self.index.with_birth(item.id, item.birth, |entry| {
            if quota.covers.binary_search(&entry.rule).is_err() {
                return Look::Gone;
            }
            if entry.pinned || entry.is_leased() || item.id == keep {
                return Look::Held;
            }
            Look::Free(Uses {
                last: entry.last_use,
                count: entry.uses,
            })
        });
        look.unwrap_or(Look::Gone)
    }

    /// Takes room for `bytes` of an object within the quotas of its rule; others of the same place
    /// make way.
    pub(super) fn make_way(&self, slot: Slot, bytes: u64, keep: VersionId) -> Result<Way<'_>> {
        let way = Way {
            inner: self,
            slot,
            bytes,
        };
        self.rules.charge(slot, bytes);
        for quota in self.rules.quotas(slot) {
            if bytes > quota.limit || !self.fit(&quota, keep) {
                let message = "the quota of its path is full of what is in use or pinned";
                return Err(Error::new(ErrorKind::OutOfSpace, message));
            }
        }
        Ok(way)
    }

    /// Evicts objects of a quota until it is kept; false when what is left must stay.
    fn fit(&self, quota: &Quota, keep: VersionId) -> bool {
        while self.rules.sum(&quota.covers) > quota.limit {
            if self.is_out_of_service() || !self.evict_within(quota, keep) {
                return false;
            }
        }
        true
    }

    /// Evicts one object of a quota; false when all are in use or pinned.
    fn evict_within(&self, quota: &Quota, keep: VersionId) -> bool {
        // As in `evict_one`.
        for _ in 0..64 {
            let now = self.ticks.load(Ordering::Relaxed);
            let victim = self
                .rules
                .policies
                .lock()
                .get_mut(&quota.slot)
                .and_then(|policy| policy.victim(now, &mut |item| self.look_in(quota, item, keep)));
            let Some(victim) = victim else {
                return false;
            };
            let files = self.index.try_lock_files(victim.id);
            if files.is_some() && self.drop_unless_leased(victim) {
                self.counters.evictions.fetch_add(1, Ordering::Relaxed);
                return true;
            }
            drop(files);
            if let Some(policy) = self.rules.policies.lock().get_mut(&quota.slot) {
                policy.put_back(victim);
            }
        }
        false
    }
}
