// SPDX-License-Identifier: Apache-2.0
//! Numbers for the names of owners and groups, as this machine knows them.
//!
//! HDFS tells owners by name. The node's user data base (files, LDAP, whatever it uses) gives the
//! numbers. A name unknown here belongs to whom this process runs as. Answers are kept for some
//! minutes, because a data base may be on the network.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::unistd::{Group, User};
use types::meta::Owner;
use types::{Clock, Error, Result};

/// How long a number is kept: a user who was added is seen after this time.
const KEPT: Duration = Duration::from_secs(300);
/// More names than clusters have users that own data; beyond, all are asked for anew.
const NAMES_MAX: usize = 16_384;

/// A name of a user or of a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Known {
    User(String),
    Group(String),
}

/// Whose a file is, as the storage tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) mode: u32,
    pub(crate) owner: String,
    pub(crate) group: String,
}

/// The numbers that are known.
#[derive(Debug)]
pub(crate) struct Owners {
    clock: Arc<dyn Clock>,
    /// Held for look-ups in memory only.
    numbers: Mutex<HashMap<Known, (u32, Instant)>>,
}

impl Owners {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Owners {
            clock,
            numbers: Mutex::default(),
        }
    }

    /// Makes sure that the numbers of all these are known; asks the data base for those that are
    /// not, on a thread that may block.
    pub(crate) async fn learn(&self, named: impl Iterator<Item = &Named>) -> Result<()> {
        let now = self.clock.now();
        let mut unknown = Vec::new();
        {
            let numbers = self.lock();
            let fresh = |name: &Known| {
                let number = numbers.get(name);
                number.is_some_and(|(_, learnt)| now.saturating_duration_since(*learnt) < KEPT)
            };
            for name in named.flat_map(Named::names) {
                if !fresh(&name) && !unknown.contains(&name) {
                    unknown.push(name);
                }
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let ask = move || {
            unknown
                .into_iter()
                .map(|name| (number(&name), name))
                .collect::<Vec<_>>()
        };
        let found = tokio::task::spawn_blocking(ask).await;
        let found = found.map_err(|error| Error::internal(error.to_string()))?;
        let mut numbers = self.lock();
        if numbers.len() + found.len() > NAMES_MAX {
            numbers.clear();
        }
        numbers.extend(
            found
                .into_iter()
                .map(|(number, name)| (name, (number, now))),
        );
        Ok(())
    }

    /// Returns the numbers; those of names not learnt are this process's.
    pub(crate) fn owner(&self, named: &Named) -> Owner {
        let [user, group] = named.names();
        let numbers = self.lock();
        let known = |name| numbers.get(&name).map(|(number, _)| *number);
        Owner {
            mode: named.mode & 0o7777,
            uid: known(user).unwrap_or_else(own_uid),
            gid: known(group).unwrap_or_else(own_gid),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Known, (u32, Instant)>> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Named {
    fn names(&self) -> [Known; 2] {
        [
            Known::User(self.owner.clone()),
            Known::Group(self.group.clone()),
        ]
    }
}

/// Asks the data base. One that fails is one that does not know the name.
fn number(name: &Known) -> u32 {
    match name {
        Known::User(name) => {
            let user = User::from_name(name).ok().flatten();
            user.map_or_else(own_uid, |user| user.uid.as_raw())
        }
        Known::Group(name) => {
            let group = Group::from_name(name).ok().flatten();
            group.map_or_else(own_gid, |group| group.gid.as_raw())
        }
    }
}

fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

fn own_gid() -> u32 {
    rustix::process::getgid().as_raw()
}

#[cfg(test)]
mod tests {
    use types::ManualClock;

    use super::*;

    #[tokio::test]
    async fn names_of_this_machine_get_their_numbers_and_others_our_own() {
        let owners = Owners::new(Arc::new(ManualClock::default()));
        let named = |owner: &str, group: &str| Named {
            mode: 0o100_640,
            owner: owner.into(),
            group: group.into(),
        };
        let (root, alien) = (
            named("root", "root"),
            named("no such user", "no such group"),
        );
        owners.learn([&root, &alien].into_iter()).await.unwrap();
        let ids = |named| {
            let owner = owners.owner(named);
            (owner.mode, owner.uid, owner.gid)
        };
        assert_eq!(ids(&root), (0o640, 0, 0));
        assert_eq!(ids(&alien), (0o640, own_uid(), own_gid()));
    }
}
