// SPDX-License-Identifier: Apache-2.0
//! What of a path of the tree is cached: in sum, by mount, and name by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway::wire;
use types::{ObjectPath, Result};
use worker::{Held, HeldByName};

use crate::jobs::{Jobs, tree_path};

/// Names that are told each for itself; the rest is told in sum. More than a person looks at.
const NAMES_MAX: usize = 200;

impl Jobs {
    /// Returns what of a path is cached.
    pub(crate) async fn usage(self: Arc<Self>, request: wire::Measure) -> Result<wire::Usage> {
        let path = tree_path(&request.path)?;
        let place = ObjectPath::parse(path.trim_matches('/').as_bytes())?;
        let _turn = self.turn().await?;
        let mut mounts: BTreeMap<String, Held> = BTreeMap::new();
        let mut names = HeldByName::default();
        for tree in self.subtrees(&place, true).await? {
            let held = self.held(tree.subtree).await?;
            let mounted_at = format!("/{}", tree.mounted_at);
            mounts.entry(mounted_at).or_default().add(held.sum());
            match first_name(&place, &tree.mounted_at).filter(|_| !tree.is_path) {
                Some(name) => names.add(name, true, held.sum()),
                None => names.join(held),
            }
        }
        let mut sum = Held::default();
        mounts.values().for_each(|one| sum.add(*one));
        let mut usage = wire::Usage {
            path,
            files: sum.files,
            bytes: sum.bytes,
            cached_files: sum.cached_files,
            cached_bytes: sum.cached_bytes,
            pinned_bytes: sum.pinned_bytes,
            ..wire::Usage::default()
        };
        if mounts.len() > 1 {
            let mounts = mounts.into_iter();
            usage.mounts = mounts.map(|(at, held)| of_name(at, true, held)).collect();
        }
        if request.names {
            (usage.names, usage.other_names) = largest(names);
        }
        Ok(usage)
    }
}

/// Returns the name in a directory that leads to what is mounted below it.
fn first_name<'a>(dir: &ObjectPath, mounted_at: &'a ObjectPath) -> Option<&'a [u8]> {
    let below = mounted_at.as_bytes().strip_prefix(dir.as_bytes())?;
    let below = below.strip_prefix(b"/").unwrap_or(below);
    below.split(|&byte| byte == b'/').next()
}

/// Returns the names with most bytes, and what the others have.
fn largest(names: HeldByName) -> (Vec<wire::UsageOfName>, wire::UsageOfName) {
    let mut rest = names.rest;
    let mut all: Vec<_> = names.names.into_iter().collect();
    all.sort_by_key(|(_, one)| std::cmp::Reverse((one.held.bytes, one.held.files)));
    let others = all.split_off(all.len().min(NAMES_MAX));
    others.iter().for_each(|(_, one)| rest.add(one.held));
    // A file that was measured by itself has no names in it.
    all.retain(|(name, _)| !name.is_empty());
    let shown = all.into_iter().map(|(name, one)| {
        let name = String::from_utf8_lossy(&name).into_owned();
        of_name(name, one.is_directory, one.held)
    });
    (shown.collect(), of_name(String::new(), false, rest))
}

fn of_name(name: String, is_directory: bool, held: Held) -> wire::UsageOfName {
    wire::UsageOfName {
        name,
        is_directory,
        files: held.files,
        bytes: held.bytes,
        cached_files: held.cached_files,
        cached_bytes: held.cached_bytes,
        pinned_bytes: held.pinned_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ObjectPath {
        ObjectPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_mount_below_counts_for_the_name_that_leads_to_it() {
        assert_eq!(first_name(&path(""), &path("a/b")), Some(&b"a"[..]));
        assert_eq!(first_name(&path("a"), &path("a/b/c")), Some(&b"b"[..]));
        assert_eq!(first_name(&path("x"), &path("a/b")), None);
    }

    #[test]
    fn the_largest_names_are_told_and_the_rest_in_sum() {
        let mut names = HeldByName::default();
        for number in 0..NAMES_MAX + 3 {
            let held = Held {
                files: 1,
                bytes: number as u64,
                ..Held::default()
            };
            names.add(number.to_string().as_bytes(), false, held);
        }
        let (shown, rest) = largest(names);
        assert_eq!(shown.len(), NAMES_MAX);
        assert_eq!(shown[0].name, (NAMES_MAX + 2).to_string());
        assert_eq!((rest.files, rest.bytes), (3, 3));
    }
}
