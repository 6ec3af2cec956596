// SPDX-License-Identifier: Apache-2.0
//! What is said of paths of a daemon's tree: how long what is cached of them stays, how much it may
//! take, and what gives way first.
//!
//! The paths are kept in a file beside the remembered mounts; which rule each cached object follows
//! is kept by the cache itself. Paths may lie in each other: a TTL and a priority hold until an inner
//! path says otherwise, and each quota bounds all that lies in its path. What mounts come and go
//! below a path follows its rule from then on.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gateway::wire;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use types::{Error, ErrorKind, ObjectPath, Result};
use vfs::Vfs;
use worker::{Priority, RULES_MAX, Rule, RuledPlace, Worker};

use crate::jobs::{Jobs, tree_path};
use crate::pins::{is_below, wish};
use crate::state;

/// What is said of one path.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PathRule {
    pub(crate) path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ttl_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quota_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<String>,
}

/// The rooms that rules go through.
pub(crate) struct Doors {
    pub(crate) worker: Arc<Worker>,
    pub(crate) vfs: Arc<Vfs>,
    pub(crate) store: Arc<cache::Store>,
}

/// The rules of a daemon.
pub(crate) struct Rules {
    doors: Doors,
    /// Where the rules are kept.
    state_file: Option<PathBuf>,
    rules: Mutex<Vec<PathRule>>,
    /// Paths of rules that are or were in force, by their numbers.
    known: Mutex<HashMap<u64, String>>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
    /// Wakes who looks for what is over.
    changed: Notify,
}

impl Rules {
    /// Takes up what was said to a former daemon. Blocks.
    pub(crate) fn new(doors: Doors, state_file: Option<PathBuf>) -> Arc<Rules> {
        let rules = match state_file.as_deref().map(state::load_rules) {
            Some(Ok(rules)) => rules,
            Some(Err(error)) => {
                tracing::warn!("TTLs, quotas and priorities of paths are lost: {error:#}");
                if let Some(path) = &state_file {
                    state::put_aside(path);
                }
                Vec::new()
            }
            None => Vec::new(),
        };
        let rules = Rules {
            doors,
            state_file,
            rules: Mutex::new(rules),
            known: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            changed: Notify::new(),
        };
        rules.apply();
        Arc::new(rules)
    }

    /// Returns the rules, and what is cached of each path.
    pub(crate) fn list(&self) -> Vec<wire::Rule> {
        let rules = self.rules.lock().clone();
        rules.into_iter().map(|rule| self.described(rule)).collect()
    }

    /// Returns what holds at a path.
    pub(crate) fn at(&self, path: &str) -> Option<wire::RuleInForce> {
        let rules = self.rules.lock();
        let around = sorted(&rules)
            .into_iter()
            .filter(|rule| rule.path == path || is_below(path, &rule.path))
            .collect::<Vec<_>>();
        if around.is_empty() {
            return None;
        }
        let limited = around.iter().find(|rule| rule.quota_bytes.is_some());
        Some(wire::RuleInForce {
            ttl_seconds: around.iter().find_map(|rule| rule.ttl_seconds),
            quota_bytes: limited.and_then(|rule| rule.quota_bytes),
            quota_path: limited.map(|rule| rule.path.clone()),
            priority: around.iter().find_map(|rule| rule.priority.clone()),
        })
    }

    /// Puts the rules in force at the places in storages that their paths stand for now: mounts may
    /// have come or gone. Blocks.
    pub(crate) fn apply(&self) {
        let rules = self.rules.lock().clone();
        let rules = sorted(&rules);
        let mut places = Vec::new();
        for rule in &rules {
            // Where nothing is mounted now there is nothing to rule.
            let subtrees = parsed(&rule.path).and_then(|place| self.doors.vfs.subtrees(&place));
            places.extend(
                subtrees
                    .unwrap_or_default()
                    .into_iter()
                    .map(|tree| RuledPlace {
                        mount: tree.subtree.mount,
                        path: tree.subtree.path,
                        rule: wish(&rule.path),
                    }),
            );
        }
        let mut known = self.known.lock().clone();
        let heir_of = |gone: u64| {
            let path = known.get(&gone)?;
            let around = rules.iter().find(|rule| is_below(path, &rule.path))?;
            Some(wish(&around.path))
        };
        self.doors
            .worker
            .set_rules(&resolved(&rules), places, &heir_of);
        known.clear();
        known.extend(
            rules
                .iter()
                .map(|rule| (wish(&rule.path), rule.path.clone())),
        );
        *self.known.lock() = known;
        self.changed.notify_one();
    }

    /// Says something of a path: of what of it is cached, and what will be.
    pub(crate) async fn set(
        self: Arc<Self>,
        jobs: Arc<Jobs>,
        request: wire::SetRule,
    ) -> Result<wire::Rule> {
        let path = tree_path(&request.path)?;
        let place = parsed(&path)?;
        let said = checked(request)?;
        let _one_at_a_time = self.changing.lock().await;
        let mut rules = self.rules.lock().clone();
        let trees = jobs.subtrees(&place, true).await?;
        let known = rules.iter().position(|rule| rule.path == path);
        let at = known.unwrap_or_else(|| {
            rules.push(PathRule {
                path: path.clone(),
                ..PathRule::default()
            });
            rules.len() - 1
        });
        if rules.len() > RULES_MAX {
            let message =
                format!("{RULES_MAX} paths have rules already: give one around them a rule");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let rule = &mut rules[at];
        rule.ttl_seconds = said.ttl_seconds.or(rule.ttl_seconds);
        rule.quota_bytes = said.quota_bytes.or(rule.quota_bytes);
        rule.priority = said.priority.or(rule.priority.take());
        let rule = rule.clone();
        self.keep(rules).await?;
        let _turn = jobs.turn().await?;
        for tree in trees {
            let ruled = self.doors.worker.rule_tree(tree.subtree).await;
            ruled.map_err(|error| {
                error.context(
                    "the rule holds for what is cached from now on; say it again for what was cached \
                     before",
                )
            })?;
        }
        // What is over may be among what was there before.
        self.changed.notify_one();
        tracing::info!("rules of '{path}' changed");
        Ok(self.described(rule))
    }

    /// Takes back what was said of a path; what is cached of it stays.
    pub(crate) async fn remove(self: Arc<Self>, request: wire::RemoveRule) -> Result<wire::Rule> {
        let path = tree_path(&request.path)?;
        let _one_at_a_time = self.changing.lock().await;
        let mut rules = self.rules.lock().clone();
        let Some(at) = rules.iter().position(|rule| rule.path == path) else {
            return Err(no_rule(&path, &rules));
        };
        let rule = &mut rules[at];
        let all = !(request.ttl || request.quota || request.priority);
        for (taken, is_there, name) in [
            (request.ttl, rule.ttl_seconds.is_some(), "TTL"),
            (request.quota, rule.quota_bytes.is_some(), "quota"),
            (request.priority, rule.priority.is_some(), "priority"),
        ] {
            if taken && !is_there {
                let message = format!("'{path}' has no {name} of its own");
                return Err(Error::new(ErrorKind::NotFound, message));
            }
        }
        if all || request.ttl {
            rule.ttl_seconds = None;
        }
        if all || request.quota {
            rule.quota_bytes = None;
        }
        if all || request.priority {
            rule.priority = None;
        }
        let rule = rule.clone();
        if rule.says_nothing() {
            rules.remove(at);
        }
        self.keep(rules).await?;
        tracing::info!("rules of '{path}' changed");
        Ok(self.described(rule))
    }

    /// Drops what is over, for as long as it is polled.
    pub(crate) async fn look_after(self: Arc<Self>) {
        loop {
            let pause = self.doors.store.sweep_pause();
            let slept = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = slept => {}
                () = self.changed.notified() => {}
            }
            let store = Arc::clone(&self.doors.store);
            match tokio::task::spawn_blocking(move || store.expire()).await {
                Ok(expired) if expired.objects > 0 => {
                    tracing::debug!(expired.objects, expired.bytes, "dropped what was over");
                }
                Ok(_) => {}
                Err(error) => tracing::warn!("drop what is over: {error}"),
            }
        }
    }

    /// Remembers the rules, and puts them in force.
    async fn keep(self: &Arc<Self>, rules: Vec<PathRule>) -> Result<()> {
        let this = Arc::clone(self);
        let kept = tokio::task::spawn_blocking(move || {
            if let Some(file) = &this.state_file {
                state::store_rules(file, rules.clone())?;
            }
            *this.rules.lock() = rules;
            this.apply();
            anyhow::Ok(())
        });
        let failed = |why: String| Error::new(ErrorKind::Unavailable, why);
        match kept.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failed(format!("keep the rules of paths: {error:#}"))),
            Err(error) => Err(failed(format!("keep the rules of paths: {error}"))),
        }
    }

    fn described(&self, rule: PathRule) -> wire::Rule {
        wire::Rule {
            cached_bytes: self.doors.worker.rule_bytes(wish(&rule.path)),
            path: rule.path,
            ttl_seconds: rule.ttl_seconds,
            quota_bytes: rule.quota_bytes,
            priority: rule.priority,
        }
    }
}

impl PathRule {
    fn says_nothing(&self) -> bool {
        self.ttl_seconds.is_none() && self.quota_bytes.is_none() && self.priority.is_none()
    }
}

/// Returns the rules with those of inner paths before those of paths around them.
fn sorted(rules: &[PathRule]) -> Vec<PathRule> {
    let mut rules = rules.to_vec();
    rules.sort_by_key(|rule| std::cmp::Reverse(rule.path.trim_end_matches('/').len()));
    rules
}

/// Works out what each of these rules means, with what it has from those around it.
fn resolved(sorted: &[PathRule]) -> Vec<Rule> {
    let all = sorted.iter().map(|rule| {
        let around: Vec<_> = (sorted.iter())
            .filter(|other| is_below(&rule.path, &other.path))
            .collect();
        let chain = || std::iter::once(rule).chain(around.iter().copied());
        Rule {
            id: wish(&rule.path),
            ttl: chain()
                .find_map(|rule| rule.ttl_seconds)
                .map(Duration::from_secs),
            quota: rule.quota_bytes,
            priority: chain()
                .find_map(|rule| rule.priority.as_deref().and_then(priority))
                .unwrap_or_default(),
            parent: around.first().map(|around| wish(&around.path)),
        }
    });
    all.collect()
}

fn priority(word: &str) -> Option<Priority> {
    match word {
        "low" => Some(Priority::Low),
        "normal" => Some(Priority::Normal),
        "high" => Some(Priority::High),
        _ => None,
    }
}

/// Checks what is to be said of a path.
fn checked(request: wire::SetRule) -> Result<wire::SetRule> {
    let invalid = |why: &str| Err(Error::new(ErrorKind::Invalid, why.to_owned()));
    if request.ttl_seconds == Some(0) {
        return invalid("a TTL of 0 keeps nothing: give 1s or more, or a quota of 0");
    }
    if let Some(word) = &request.priority
        && priority(word).is_none()
    {
        return invalid(&format!("'{word}' is not low, normal or high"));
    }
    match (request.ttl_seconds, request.quota_bytes, &request.priority) {
        (None, None, None) => {
            invalid("nothing is said of the path: give a TTL, a quota or a priority")
        }
        _ => Ok(request),
    }
}

fn parsed(path: &str) -> Result<ObjectPath> {
    ObjectPath::parse(path.trim_matches('/').as_bytes())
}

fn no_rule(path: &str, rules: &[PathRule]) -> Error {
    let all = sorted(rules);
    let message = match all.iter().find(|rule| is_below(path, &rule.path)) {
        Some(around) => format!(
            "'{path}' has no rule of its own; that of '{}', in which it lies, holds",
            around.path
        ),
        None => format!("'{path}' has no rule; 'forebay rules list' shows those there are"),
    };
    Error::new(ErrorKind::NotFound, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(path: &str, ttl: Option<u64>, quota: Option<u64>, priority: Option<&str>) -> PathRule {
        PathRule {
            path: path.into(),
            ttl_seconds: ttl,
            quota_bytes: quota,
            priority: priority.map(str::to_owned),
        }
    }

    #[test]
    fn a_path_has_from_those_around_it_what_it_does_not_say_itself() {
        let rules = sorted(&[
            rule("/", Some(60), None, None),
            rule("/a/b", None, Some(7), None),
            rule("/a", None, Some(9), Some("low")),
            rule("/ab", None, None, Some("high")),
        ]);
        assert_eq!(rules[0].path, "/a/b");
        assert_eq!(rules[3].path, "/");
        let resolved = resolved(&rules);
        let of = |path: &str| {
            let found = resolved.iter().find(|rule| rule.id == wish(path));
            found.unwrap().clone()
        };
        let minute = Some(Duration::from_secs(60));
        assert_eq!(
            of("/a/b"),
            Rule {
                id: wish("/a/b"),
                ttl: minute,
                quota: Some(7),
                priority: Priority::Low,
                parent: Some(wish("/a")),
            }
        );
        assert_eq!((of("/ab").parent, of("/ab").quota), (Some(wish("/")), None));
        assert_eq!(of("/ab").priority, Priority::High);
        assert_eq!((of("/").parent, of("/").ttl), (None, minute));
    }

    #[test]
    fn what_says_nothing_or_nonsense_is_refused() {
        let said = |ttl_seconds, priority: Option<&str>| {
            checked(wire::SetRule {
                path: "/a".into(),
                ttl_seconds,
                quota_bytes: None,
                priority: priority.map(str::to_owned),
            })
        };
        assert!(said(Some(1), None).is_ok());
        for (bad, word) in [
            (said(None, None), "quota"),
            (said(Some(0), None), "TTL of 0"),
            (said(None, Some("urgent")), "urgent"),
        ] {
            let error = bad.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
