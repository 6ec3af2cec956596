// SPDX-License-Identifier: Apache-2.0
//! Numbers for the names of owners and groups, as this machine knows them.
//!
//! HDFS tells owners by name. The node's user data base (files, LDAP, whatever it uses) gives the
//! numbers, and the mount's map of owners (option `idmap`) changes them. A name that neither knows
//! belongs to nobody here: whom that shows is the mount's. Answers are kept for some minutes, because
//! a data base may be on the network.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Group, Uid, User};
use types::idmap::{IdMap, NOBODY_HERE};
use types::meta::Owner;
use types::{Clock, Error, ErrorKind, Result};

use crate::Settings;

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
    map: Arc<IdMap>,
    /// Held for look-ups in memory only.
    numbers: Mutex<HashMap<Known, (u32, Instant)>>,
}

impl Owners {
    /// Takes the mount's map of owners from its options.
    pub(crate) fn new(settings: &Settings, clock: Arc<dyn Clock>) -> Result<Self> {
        let map = settings.text("idmap").unwrap_or_default().parse();
        let fault = |why| Error::new(ErrorKind::Invalid, format!("option 'idmap': {why}"));
        Ok(Owners {
            clock,
            map: Arc::new(map.map_err(fault)?),
            numbers: Mutex::default(),
        })
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
        let map = Arc::clone(&self.map);
        let ask = move || {
            unknown
                .into_iter()
                .map(|name| (number(&name, &map), name))
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

    /// Returns the numbers; those of names not learnt are nobody's here.
    pub(crate) fn owner(&self, named: &Named) -> Owner {
        let [user, group] = named.names();
        let numbers = self.lock();
        let known = |name| numbers.get(&name).map(|(number, _)| *number);
        Owner {
            mode: named.mode & 0o7777,
            uid: known(user).unwrap_or(NOBODY_HERE),
            gid: known(group).unwrap_or(NOBODY_HERE),
        }
    }

    /// Returns the names of a user and of a group where they are not those that a file has;
    /// `NOBODY_HERE` leaves one as it is.
    ///
    /// # Errors
    /// `Invalid` when there is no name that is shown as such a number.
    pub(crate) async fn names_that_differ(
        &self,
        named: &Named,
        wanted: Owner,
    ) -> Result<(Option<String>, Option<String>)> {
        let now = self.owner(named);
        let differs =
            |now: u32, wanted: u32| (wanted != NOBODY_HERE && wanted != now).then_some(wanted);
        let user = differs(now.uid, wanted.uid);
        let group = differs(now.gid, wanted.gid);
        if user.is_none() && group.is_none() {
            return Ok((None, None));
        }
        let map = Arc::clone(&self.map);
        let ask = move || {
            let user = user.map(|uid| {
                if let Some(name) = map.users.name_of_shown(uid) {
                    return Ok(name.to_owned());
                }
                let known = User::from_uid(Uid::from_raw(uid)).ok().flatten();
                let shown = |name: &String| map.users.of_name(name, Some(uid)) == uid;
                let name = known.map(|user| user.name).filter(shown);
                name.ok_or(("user", uid))
            });
            let group = group.map(|gid| {
                if let Some(name) = map.groups.name_of_shown(gid) {
                    return Ok(name.to_owned());
                }
                let known = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
                let shown = |name: &String| map.groups.of_name(name, Some(gid)) == gid;
                let name = known.map(|group| group.name).filter(shown);
                name.ok_or(("group", gid))
            });
            Ok((user.transpose()?, group.transpose()?))
        };
        let names = tokio::task::spawn_blocking(ask).await;
        let names = names.map_err(|error| Error::internal(error.to_string()))?;
        names.map_err(|(kind, number): (&str, u32)| {
            let why =
                format!("HDFS takes names, and no {kind} of this machine is shown as {number}");
            Error::new(ErrorKind::Invalid, why)
        })
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
fn number(name: &Known, map: &IdMap) -> u32 {
    match name {
        Known::User(name) => {
            let user = User::from_name(name).ok().flatten();
            map.users.of_name(name, user.map(|user| user.uid.as_raw()))
        }
        Known::Group(name) => {
            let group = Group::from_name(name).ok().flatten();
            map.groups
                .of_name(name, group.map(|group| group.gid.as_raw()))
        }
    }
}

#[cfg(test)]
mod tests {
    use types::ManualClock;

    use super::*;

    #[tokio::test]
    async fn names_get_the_numbers_of_this_machine_unless_the_map_says_others() {
        let named = |owner: &str, group: &str| Named {
            mode: 0o100_640,
            owner: owner.into(),
            group: group.into(),
        };
        let (root, alien) = (
            named("root", "root"),
            named("no such user", "no such group"),
        );
        for (map, of_root, of_alien) in [
            ("", (0, 0), (NOBODY_HERE, NOBODY_HERE)),
            ("uid:root=5,gid:0=6", (5, 6), (NOBODY_HERE, NOBODY_HERE)),
            ("uid:no such user=7,gid:*=8", (0, 8), (7, 8)),
        ] {
            let options = [("idmap".to_owned(), map.to_owned())].into();
            let settings = Settings {
                uri: String::new(),
                options,
                request_timeout: Duration::ZERO,
                max_connections: 1,
            };
            let owners = Owners::new(&settings, Arc::new(ManualClock::default())).unwrap();
            owners.learn([&root, &alien].into_iter()).await.unwrap();
            let ids = |named| {
                let owner = owners.owner(named);
                assert_eq!(owner.mode, 0o640);
                (owner.uid, owner.gid)
            };
            assert_eq!((ids(&root), ids(&alien)), (of_root, of_alien), "{map}");
            let (uid, gid) = of_root;
            let differ = async |named, uid, gid| {
                let wanted = Owner { mode: 0, uid, gid };
                owners.names_that_differ(named, wanted).await
            };
            assert_eq!(differ(&root, uid, gid).await.unwrap(), (None, None));
            assert_eq!(differ(&root, NOBODY_HERE, gid).await.unwrap(), (None, None));
            let error = differ(&root, 4_000_000_000, gid).await.unwrap_err();
            assert!(error.to_string().contains("shown as 4000000000"), "{error}");
            if map.contains("no such user=7") {
                let (user, group) = differ(&root, 7, 8).await.unwrap();
                assert_eq!((user.as_deref(), group), (Some("no such user"), None));
            }
            if map.is_empty() {
                let (user, group) = differ(&root, 1, 0).await.unwrap();
                assert!(user.is_some() && group.is_none());
            }
        }
    }
}
