// SPDX-License-Identifier: Apache-2.0
//! What this node knows of names: a metadata map that outlives the process, and in front of it the
//! listings used last.
//!
//! It says what was learnt and when, never whether that is still fresh enough: `meta` decides. A
//! map that cannot be read or written is as if it were empty.

use std::collections::VecDeque;
use std::sync::Arc;

use cache::kv::Kv;
use parking_lot::Mutex;
use types::{MountId, Name, ObjectMeta, ObjectPath};
use ufs::ListEntry;

use crate::meta::{Learnt, Listing};
use crate::records::{self, DirectoryRecord, Moment};
use crate::single_flight::SingleFlight;

/// Names in listings kept in memory: at about 150 bytes each, 10 MiB.
const RECENT_NAMES_MAX: usize = 64 * 1024;

pub(crate) type Place = (MountId, ObjectPath);

/// What this node knows of names.
#[derive(Debug)]
pub(crate) struct Knowledge {
    map: Option<Arc<Kv>>,
    recent: Mutex<VecDeque<(Place, Moment, Listing)>>,
    pub(crate) listings: SingleFlight<Place, Learnt<Listing>>,
    pub(crate) stats: SingleFlight<Place, Learnt<ObjectMeta>>,
}

impl Knowledge {
    pub(crate) fn new(map: Option<Arc<Kv>>) -> Self {
        Knowledge {
            map,
            recent: Mutex::default(),
            listings: SingleFlight::default(),
            stats: SingleFlight::default(),
        }
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.map.as_ref()?.get(key).unwrap_or_else(|error| {
            tracing::debug!(%error, "the metadata map could not be read");
            None
        })
    }

    fn write(&self, batch: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
        let Some(map) = self.map.as_ref().filter(|_| !batch.is_empty()) else {
            return;
        };
        if let Err(error) = map.write(batch) {
            tracing::debug!(%error, "the metadata map could not be written");
        }
    }

    fn recent(&self, mount: MountId, dir: &ObjectPath) -> Option<(Moment, Listing)> {
        let recent = self.recent.lock();
        let found = recent
            .iter()
            .find(|(place, ..)| place.0 == mount && place.1 == *dir);
        found.map(|(_, learnt, listing)| (*learnt, Arc::clone(listing)))
    }

    fn keep_recent(&self, mount: MountId, dir: &ObjectPath, learnt: Moment, listing: &Listing) {
        let mut recent = self.recent.lock();
        recent.retain(|(place, ..)| place.0 != mount || place.1 != *dir);
        recent.push_back(((mount, dir.clone()), learnt, Arc::clone(listing)));
        let mut names: usize = recent.iter().map(|(.., listing)| listing.len() + 1).sum();
        while names > RECENT_NAMES_MAX
            && let Some((.., listing)) = recent.pop_front()
        {
            names -= listing.len() + 1;
        }
    }

    /// Returns what is known of a name, however old: found, or known to be absent. The own record
    /// of a name is only looked for when the listing in memory is not `fresh` enough.
    pub(crate) fn entry(
        &self,
        mount: MountId,
        dir: &ObjectPath,
        name: &Name,
        fresh: impl Fn(Moment) -> bool,
    ) -> Option<(Moment, Option<ObjectMeta>)> {
        let listing = self.recent(mount, dir).map(|(learnt, listing)| {
            let found = listing.binary_search_by(|entry| entry.name.cmp(name));
            (learnt, found.ok().map(|index| listing[index].meta.clone()))
        });
        if listing
            .as_ref()
            .is_some_and(|(learnt, meta)| meta.is_some() && fresh(*learnt))
        {
            return listing;
        }
        let own = self.get(&records::entry_key(mount, dir, name));
        let own = own.and_then(|bytes| records::read_entry(&bytes));
        let listed = match &listing {
            Some((learnt, _)) => Some(*learnt),
            None => self.directory(mount, dir).map(|record| record.learnt),
        };
        match own {
            Some(own) => Some((
                listed.map_or(own.learnt, |at| at.max(own.learnt)),
                Some(own.meta),
            )),
            None => listing.or(listed.map(|learnt| (learnt, None))),
        }
    }

    pub(crate) fn directory(&self, mount: MountId, dir: &ObjectPath) -> Option<DirectoryRecord> {
        records::read_directory(&self.get(&records::directory_key(mount, dir))?)
    }

    /// Returns a directory's names, however old.
    pub(crate) fn listing(&self, mount: MountId, dir: &ObjectPath) -> Option<(Moment, Listing)> {
        if let Some(found) = self.recent(mount, dir) {
            return Some(found);
        }
        let record = self.directory(mount, dir)?;
        let (from, to) = records::entry_keys(mount, dir);
        let rows = self.map.as_ref()?.scan(&from, &to).ok()?;
        let listing: Listing = rows
            .iter()
            .filter_map(|(key, value)| {
                let name = records::name_of_key(key, from.len())?;
                Some(ListEntry {
                    name,
                    meta: records::read_entry(value)?.meta,
                })
            })
            .collect();
        // Fewer rows than were listed: some could not be read, so the rest proves no absence.
        if (listing.len() as u64) < record.entries {
            return None;
        }
        self.keep_recent(mount, dir, record.learnt, &listing);
        Some((record.learnt, listing))
    }

    /// Writes a directory down: only the names that changed, and those that went.
    pub(crate) fn learn_listing(
        &self,
        mount: MountId,
        dir: &ObjectPath,
        learnt: Moment,
        listing: &Listing,
    ) {
        self.keep_recent(mount, dir, learnt, listing);
        let Some(map) = &self.map else { return };
        let (from, to) = records::entry_keys(mount, dir);
        let old = map.scan(&from, &to).unwrap_or_default();
        let mut old = old.into_iter().peekable();
        let mut batch = Vec::new();
        for entry in listing.iter() {
            let key = records::entry_key(mount, dir, &entry.name);
            while let Some((gone, _)) = old.next_if(|(found, _)| *found < key) {
                batch.push((gone, None));
            }
            let known = old.next_if(|(found, _)| *found == key);
            let known = known.and_then(|(_, value)| records::read_entry(&value));
            if known.is_none_or(|record| record.meta != entry.meta) {
                batch.push((key, Some(records::write_entry(learnt, &entry.meta))));
            }
        }
        batch.extend(old.map(|(gone, _)| (gone, None)));
        let record = DirectoryRecord {
            learnt,
            entries: listing.len() as u64,
        };
        batch.push((
            records::directory_key(mount, dir),
            Some(records::write_directory(record)),
        ));
        self.write(batch);
    }

    /// Writes one name down, or that it is gone.
    pub(crate) fn learn_entry(&self, place: &Place, learnt: Moment, meta: Option<&ObjectMeta>) {
        let Some((dir, name)) = place.1.split() else {
            return;
        };
        // A listing in memory that says otherwise is no longer true.
        self.recent.lock().retain(|((mount, listed), _, listing)| {
            *mount != place.0 || *listed != dir || {
                let found = listing.binary_search_by(|entry| entry.name.cmp(&name));
                found.ok().map(|index| &listing[index].meta) == meta
            }
        });
        let value = meta.map(|meta| records::write_entry(learnt, meta));
        self.write(vec![(records::entry_key(place.0, &dir, &name), value)]);
    }

    pub(crate) fn forget(&self, mount: MountId, dir: &ObjectPath, name: &Name) {
        self.recent
            .lock()
            .retain(|(place, ..)| place.0 != mount || place.1 != *dir);
        self.write(vec![
            (records::entry_key(mount, dir, name), None),
            (records::directory_key(mount, dir), None),
        ]);
    }
}
