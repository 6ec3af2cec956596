// SPDX-License-Identifier: Apache-2.0
//! Places whose objects follow rules in the cache: a time to live, a quota, a priority.
//!
//! The cache knows rules by number and no places; here is known which rule is of which place. An
//! object follows the rule of the innermost place that it lies in from the moment the cache has the
//! first of it, by whatever way it came there.

use std::sync::Arc;

use cache::Rule;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use tokio::sync::mpsc;
use types::{Error, MountId, ObjectPath, ObjectRef, Result, VersionId};

use crate::held::file_of;
use crate::walk::{FOUND_AHEAD, Subtree};
use crate::worker::Worker;

/// Objects that are given another rule in one go, away from the runtime's threads.
const RULED_AT_ONCE: usize = 256;

/// What files under way may take in the cache beyond their bytes: blocks that are not full, and one
/// more for each.
const ROUNDING: u64 = 512 << 10;

/// A place that a rule is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuledPlace {
    /// The storage.
    pub mount: MountId,
    /// The path in it of a file or a directory.
    pub path: ObjectPath,
    /// The number of the rule.
    pub rule: u64,
}

/// The places, inner ones before those around them.
#[derive(Debug, Default)]
pub(crate) struct Rules(RwLock<Arc<[RuledPlace]>>);

impl Rules {
    /// Returns the rule that an object follows, if any.
    pub(crate) fn of(&self, mount: MountId, path: &ObjectPath) -> Option<u64> {
        let places = Arc::clone(&self.0.read());
        let covers = |place: &&RuledPlace| {
            place.mount == mount && (place.path == *path || path.is_below(&place.path))
        };
        places.iter().find(covers).map(|place| place.rule)
    }
}

impl Worker {
    /// Says which rules hold where from now on, in place of those before; `places` with inner ones
    /// before those around them. Objects of rules that are gone follow the one that `heir_of` names.
    /// Others that are cached follow their rule when [`Worker::rule_tree`] comes to them. Blocks.
    pub fn set_rules(
        &self,
        rules: &[Rule],
        places: Vec<RuledPlace>,
        heir_of: &dyn Fn(u64) -> Option<u64>,
    ) {
        *self.rules.0.write() = places.into();
        if let Some(cache) = &self.cache {
            cache.set_rules(rules, heir_of);
        }
    }

    /// Has what is cached of a tree follow the rules of its places. Returns how many files.
    ///
    /// # Errors
    /// What the storage said where a directory could not be listed, or the disk; what came before
    /// follows its rule.
    pub fn rule_tree(self: &Arc<Self>, tree: Subtree) -> BoxFuture<'static, Result<u64>> {
        let worker = Arc::clone(self);
        async move {
            let worker = &worker;
            let (sender, mut receiver) = mpsc::channel(FOUND_AHEAD);
            let walking = worker.walk_and_end(&tree, sender);
            let ruling = async move {
                let (mut done, mut batch) = (0, Vec::new());
                while let Some(found) = receiver.recv().await {
                    let Some(object) = file_of(found)? else {
                        continue;
                    };
                    if worker.cached_len(object.id) > 0 {
                        done += 1;
                        batch.push(object);
                    }
                    if batch.len() == RULED_AT_ONCE {
                        worker.rule_all(std::mem::take(&mut batch)).await?;
                    }
                }
                worker.rule_all(batch).await?;
                Ok(done)
            };
            futures::join!(walking, ruling).1
        }
        .boxed()
    }

    async fn rule_all(self: &Arc<Self>, objects: Vec<ObjectRef>) -> Result<()> {
        let worker = Arc::clone(self);
        let ruling = move || {
            let mut all = objects.iter();
            all.try_for_each(|object| worker.rule_now(object.mount, &object.path, object.id))
        };
        let ruled = self.runtime.spawn_blocking(ruling).await;
        ruled.map_err(|source| Error::internal("apply a rule").with_source(source))?
    }

    fn rule_now(&self, mount: MountId, path: &ObjectPath, id: VersionId) -> Result<()> {
        let Some(cache) = &self.cache else {
            return Ok(());
        };
        cache.set_rule(id, self.rules.of(mount, path)).map(|_| ())
    }

    /// As [`Worker::rule_now`], for what has just come into the cache: nobody waits for it.
    pub(crate) fn rule_cached(&self, mount: MountId, path: &ObjectPath, id: VersionId) {
        if let Err(error) = self.rule_now(mount, path, id) {
            tracing::debug!("apply the rule of '{path}': {error}");
        }
    }

    /// Returns whether so many bytes of an object may come into the cache without anything of its
    /// path making way for them.
    pub(crate) fn has_quota(&self, object: &ObjectRef, bytes: u64) -> bool {
        match (&self.cache, self.rules.of(object.mount, &object.path)) {
            (Some(cache), Some(rule)) => cache.quota_room(rule) >= bytes.saturating_add(ROUNDING),
            _ => true,
        }
    }

    /// Returns what objects of a rule take in the cache, with those of places within.
    pub fn rule_bytes(&self, rule: u64) -> u64 {
        self.cache
            .as_ref()
            .map_or(0, |cache| cache.rule_bytes(rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_that_an_object_lies_in_says_which_rule_it_follows() {
        let path = |text: &str| ObjectPath::parse(text.as_bytes()).unwrap();
        let rules = Rules::default();
        assert_eq!(rules.of(MountId(1), &path("a")), None);
        let place = |mount, at: &str, rule| RuledPlace {
            mount: MountId(mount),
            path: path(at),
            rule,
        };
        *rules.0.write() = [place(1, "a/b", 5), place(1, "a", 6), place(2, "", 7)].into();
        let of = |mount, at: &str| rules.of(MountId(mount), &path(at));
        assert_eq!(of(1, "a/b/c"), Some(5));
        assert_eq!(of(1, "a/bc"), Some(6));
        assert_eq!(of(1, "b"), None);
        assert_eq!(of(2, "a/b"), Some(7));
    }
}
