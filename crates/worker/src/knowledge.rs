// SPDX-License-Identifier: Apache-2.0
//! What this node knows of names: a metadata map that outlives the process, and in front of it the
//! listings used last.
//!
//! It says what was learnt and when, never whether that is still fresh enough: `meta` decides. A
//! map that cannot be read or written is as if it were empty, and never proves an absence: that
//! takes a listing in memory, all rows of which were there when it was read back.
//!
//! What was asked for later counts: a name that was asked for alone while its directory was being
//! listed is newer than the listing, however long that takes to come in.

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cache::kv::Kv;
use parking_lot::Mutex;
use types::{MountId, Name, NodeKind, ObjectMeta, ObjectPath, Result};
use ufs::ListEntry;

use crate::ledger::Ledger;
use crate::meta::{Learnt, Listing};
use crate::neighbours::flat::Whole;
use crate::recent::{Recent, find};
use crate::records::{self, DirectoryRecord, EntryRecord, Moment};
use crate::single_flight::SingleFlight;
use crate::synced::Synced;

/// A directory of at most this many names is read back from the map on the spot, and listed again
/// as a whole when it is too old: one or two requests that answer for every name in it.
pub(crate) const SMALL_DIRECTORY: u64 = 2000;

/// How long a reading thread waits for what is on its way into the map.
const QUEUE_PATIENCE: Duration = Duration::from_millis(100);
/// How long a listing that is written down does.
const WRITER_PATIENCE: Duration = Duration::from_secs(10);

/// By how much the storage's clock may be ahead for what this node knows to hold of what is listed.
const SKEW_NS: i64 = 2_000_000_000;

pub(crate) type Place = (MountId, ObjectPath);

/// A question about a place, and the sync of it that an answer has to be younger than: who asks
/// after a sync does not join whoever asked before.
pub(crate) type Question = (Place, Moment);

/// When something was learnt, and what: `None` is absence.
pub(crate) type Found = (Moment, Option<ObjectMeta>);

/// What this node knows of names.
#[derive(Debug)]
pub(crate) struct Knowledge {
    ledger: Option<Ledger>,
    recent: Recent,
    /// By directory being listed: the names in it that were asked for alone meanwhile, or proved
    /// stale. Held while something is learnt, so that each change is in order with the listings.
    under_way: Arc<Mutex<AllUnderWay>>,
    pub(crate) synced: Synced,
    pub(crate) listings: SingleFlight<Question, Learnt<Listing>>,
    pub(crate) stats: SingleFlight<Question, Learnt<ObjectMeta>>,
    pub(crate) recalls: SingleFlight<Place, Option<(Moment, Listing)>>,
}

/// What became known of a name while its directory was being listed.
#[derive(Debug, Clone)]
enum Asked {
    Found(Moment, ObjectMeta),
    Absent,
    /// What was known proved wrong.
    InDoubt,
}

type News = BTreeMap<Name, Asked>;
type UnderWayMap = HashMap<Place, News>;

/// What is being listed.
#[derive(Debug, Default)]
struct AllUnderWay {
    dirs: UnderWayMap,
    /// Trees that are listed at once, and the directories in them of which something became known or
    /// changed since: of these the listing of the tree may tell what was before.
    trees: HashMap<Place, HashSet<ObjectPath>>,
}

impl AllUnderWay {
    /// Takes note that something becomes known of a name in a directory.
    fn changes(&mut self, dir: &Place) {
        for ((mount, root), changed) in &mut self.trees {
            if *mount == dir.0 && is_at_or_below(&dir.1, root) {
                changed.insert(dir.1.clone());
            }
        }
    }
}

fn is_at_or_below(path: &ObjectPath, dir: &ObjectPath) -> bool {
    let rest = path.as_bytes().strip_prefix(dir.as_bytes());
    dir.is_root() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// A listing under way or being written down; ends when dropped.
pub(crate) struct UnderWay {
    all: Arc<Mutex<AllUnderWay>>,
    place: Place,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.all.lock().dirs.remove(&self.place);
    }
}

/// A listing of a tree under way; ends when dropped.
pub(crate) struct TreeUnderWay {
    all: Arc<Mutex<AllUnderWay>>,
    root: Place,
}

impl Drop for TreeUnderWay {
    fn drop(&mut self) {
        self.all.lock().trees.remove(&self.root);
    }
}

impl Knowledge {
    /// Starts with what `map` holds; keeps listings of up to `names_max` names in memory.
    pub(crate) fn new(map: Option<Arc<Kv>>, names_max: usize) -> Result<Self> {
        Ok(Knowledge {
            ledger: map.map(Ledger::start).transpose()?,
            recent: Recent::new(names_max),
            under_way: Arc::default(),
            synced: Synced::default(),
            listings: SingleFlight::default(),
            stats: SingleFlight::default(),
            recalls: SingleFlight::default(),
        })
    }

    /// Writes what is on its way into the map.
    pub(crate) fn close(&self) {
        if let Some(ledger) = &self.ledger {
            ledger.close();
        }
    }

    /// Returns what is known of a name since its last sync, however old: found, or known to be
    /// absent. The own record of a name is only looked for when the listing in memory is not `fresh`
    /// enough.
    pub(crate) fn entry(
        &self,
        mount: MountId,
        dir: &ObjectPath,
        name: &Name,
        fresh: impl Fn(Moment) -> bool,
    ) -> Option<Found> {
        let since = self.synced.since(mount, &dir.join(name));
        let found = self.found(mount, dir, name, |learnt| learnt > since && fresh(learnt));
        found.filter(|(learnt, _)| *learnt > since)
    }

    fn found(
        &self,
        mount: MountId,
        dir: &ObjectPath,
        name: &Name,
        fresh: impl Fn(Moment) -> bool,
    ) -> Option<Found> {
        let listing = self.recent.find(&(mount, dir.clone()), name);
        if listing
            .as_ref()
            .is_some_and(|(learnt, meta)| meta.is_some() && fresh(*learnt))
        {
            return listing;
        }
        // The directory before the name: a listing that is written down meanwhile must not make a
        // name that was looked for too early seem absent from it.
        let listed = match &listing {
            Some((learnt, _)) => Some(*learnt),
            None => self.directory(mount, dir).map(|record| record.learnt),
        };
        let Some(ledger) = &self.ledger else {
            return listing;
        };
        match ledger.get(&records::entry_key(mount, dir, name)) {
            Some(Some(bytes)) => {
                // A record that does not parse is one in doubt.
                let own = records::read_entry(&bytes)?;
                // The map may have missed what is in memory.
                if let Some(listing) = listing.filter(|(learnt, _)| *learnt >= own.learnt) {
                    return Some(listing);
                }
                let learnt = listed.map_or(own.learnt, |at| at.max(own.learnt));
                Some((learnt, Some(own.meta)))
            }
            Some(None) => listing.or_else(|| self.absence(mount, dir, name)),
            None => listing,
        }
    }

    /// Looks for a name in the listing of a small directory that has to be read back first.
    fn absence(&self, mount: MountId, dir: &ObjectPath, name: &Name) -> Option<Found> {
        let (learnt, listing) = self.small_listing(mount, dir)?;
        Some((learnt, find(&listing, name).cloned()))
    }

    /// Returns what is written down of a directory as a whole.
    pub(crate) fn directory(&self, mount: MountId, dir: &ObjectPath) -> Option<DirectoryRecord> {
        let ledger = self.ledger.as_ref()?;
        records::read_directory(&ledger.get(&records::directory_key(mount, dir))??)
    }

    /// Returns a directory's names as they were told since its last sync, however old, if that costs
    /// little.
    pub(crate) fn small_listing(
        &self,
        mount: MountId,
        dir: &ObjectPath,
    ) -> Option<(Moment, Listing)> {
        let place = (mount, dir.clone());
        let listing = self.recent.get(&place).or_else(|| {
            let record = self.directory(mount, dir)?;
            (record.entries <= SMALL_DIRECTORY).then(|| self.read_back(&place, record))?
        });
        self.believed(&place, listing)
    }

    /// Returns a directory's names as they were told since its last sync, however old. May take a
    /// while.
    pub(crate) fn listing(&self, place: &Place) -> Option<(Moment, Listing)> {
        let read_back = || self.read_back(place, self.directory(place.0, &place.1)?);
        self.believed(place, self.recent.get(place).or_else(read_back))
    }

    /// Returns a listing unless its directory was synced since.
    pub(crate) fn believed(
        &self,
        place: &Place,
        listing: Option<(Moment, Listing)>,
    ) -> Option<(Moment, Listing)> {
        let since = self.synced.since(place.0, &place.1);
        listing.filter(|(learnt, _)| *learnt > since)
    }

    /// Puts a question about a place.
    pub(crate) fn question(&self, place: &Place) -> Question {
        (place.clone(), self.synced.since(place.0, &place.1))
    }

    /// Forgets what was learnt of a place and all below it until a moment. Says whether that will
    /// outlive the process; takes as long as the disk does.
    pub(crate) fn forget_until(&self, place: &Place, at: Moment) -> bool {
        let change = self.synced.mark(place.0, &place.1, at);
        let Some(ledger) = &self.ledger else {
            return true;
        };
        let gone = change.gone.iter().map(|gone| (gone, None));
        let marked = (&change.marked, Some(records::write_sync(at)));
        let rows = gone.chain([marked]);
        ledger.write_all(rows.map(|(path, value)| (records::sync_key(place.0, path), value)))
    }

    /// Takes over which places of a mount were synced before this process. Returns the latest moment
    /// of that.
    pub(crate) fn restore_syncs(&self, mount: MountId, now: Moment) -> Moment {
        let Some(ledger) = self.ledger.as_ref().filter(|_| !self.synced.knows(mount)) else {
            return Moment::default();
        };
        let (from, to) = records::sync_keys(mount);
        let marks = match ledger.scan((&from, &to), QUEUE_PATIENCE) {
            Some(rows) => {
                let marks = rows.iter().map(|(key, value)| {
                    // A mark that does not parse is one of any time.
                    let at = records::read_sync(value).unwrap_or(now);
                    (records::path_of_sync_key(key).to_vec(), at)
                });
                marks.collect()
            }
            // What cannot be read may be anything.
            None => vec![(Vec::new(), now)],
        };
        self.synced.restore(mount, marks)
    }

    fn read_back(&self, place: &Place, record: DirectoryRecord) -> Option<(Moment, Listing)> {
        let (from, to) = records::entry_keys(place.0, &place.1);
        let ledger = self.ledger.as_ref()?;
        let rows = ledger.scan((&from, &to), QUEUE_PATIENCE)?;
        let entries = rows.iter().map(|(key, value)| {
            let name = records::name_of_key(key, from.len())?;
            let meta = records::read_entry(value)?.meta;
            Some(ListEntry { name, meta })
        });
        let listing: Listing = entries.collect::<Option<_>>()?;
        // Others than were listed: some could not be read, so the rest proves no absence.
        if listing.len() as u64 != record.entries {
            return None;
        }
        let under_way = self.under_way.lock();
        if self.directory(place.0, &place.1) != Some(record) {
            return None;
        }
        self.recent.keep(place, record.learnt, &listing);
        drop(under_way);
        Some((record.learnt, listing))
    }

    /// Tells that a directory is about to be listed, until what is returned is dropped; `None`
    /// while an earlier listing of it is still being written down.
    pub(crate) fn list_begins(&self, place: &Place) -> Option<UnderWay> {
        match self.under_way.lock().dirs.entry(place.clone()) {
            Slot::Occupied(_) => None,
            Slot::Vacant(slot) => {
                slot.insert(News::new());
                Some(UnderWay {
                    all: Arc::clone(&self.under_way),
                    place: place.clone(),
                })
            }
        }
    }

    /// Tells that a tree is about to be listed at once, until what is returned is dropped.
    pub(crate) fn tree_begins(&self, root: &Place) -> Arc<TreeUnderWay> {
        self.under_way
            .lock()
            .trees
            .insert(root.clone(), HashSet::new());
        Arc::new(TreeUnderWay {
            all: Arc::clone(&self.under_way),
            root: root.clone(),
        })
    }

    /// Keeps a directory that a listing of a tree told of, and writes it down, unless more is known of
    /// it: it was or is being listed by itself, or something became known of it or changed since the
    /// listing began. Takes as long as the disk does.
    pub(crate) fn keep_listing_of_tree(&self, tree: &TreeUnderWay, whole: Whole, is_silent: bool) {
        let place = (tree.root.0, whole.dir);
        let listing = match is_silent {
            true => self.with_what_was_told(&place, whole.listing),
            false => whole.listing,
        };
        let under_way = {
            let mut all = self.under_way.lock();
            let changed = all.trees.get(&tree.root);
            if changed.is_none_or(|changed| changed.contains(&place.1)) {
                return;
            }
            let listed = self.recent.learnt(&place);
            let listed = listed.max(self.directory(place.0, &place.1).map(|dir| dir.learnt));
            if listed.is_some_and(|listed| listed >= whole.learnt) {
                return;
            }
            let Slot::Vacant(slot) = all.dirs.entry(place.clone()) else {
                return;
            };
            slot.insert(News::new());
            self.recent.keep(&place, whole.learnt, &listing);
            UnderWay {
                all: Arc::clone(&self.under_way),
                place: place.clone(),
            }
        };
        self.write_listing(&place, whole.learnt, &listing);
        drop(under_way);
    }

    /// Adds to a listing of a storage that tells owners and times of one object at a time what was told
    /// before of the same version. What was written again since, with the same bytes, is not that.
    pub(crate) fn with_what_was_told(&self, place: &Place, listing: Listing) -> Listing {
        let Some(ledger) = &self.ledger else {
            return listing;
        };
        let (from, to) = records::entry_keys(place.0, &place.1);
        let Some(rows) = ledger.scan((&from, &to), WRITER_PATIENCE) else {
            return listing;
        };
        let told = rows.iter().filter_map(|(key, value)| {
            let name = records::name_of_key(key, from.len())?;
            let record = records::read_entry(value)?;
            let since = self.synced.since(place.0, &place.1.join(&name));
            let is_told = record.meta.owner.is_some() || record.meta.extras.is_some();
            (is_told && record.learnt > since).then_some((name, record))
        });
        let told: BTreeMap<Name, EntryRecord> = told.collect();
        if told.is_empty() {
            return listing;
        }
        let entries = listing.iter().map(|entry| {
            let told = told.get(&entry.name);
            let told = told.filter(|told| is_still_told(&entry.meta, told));
            let meta = told.map_or(&entry.meta, |told| &told.meta).clone();
            let name = entry.name.clone();
            ListEntry { name, meta }
        });
        entries.collect()
    }

    /// Keeps a listing in memory; returns it with what became known since it began.
    pub(crate) fn keep_listing(&self, place: &Place, learnt: Moment, listing: Listing) -> Listing {
        let under_way = self.under_way.lock();
        let Some(news) = under_way.dirs.get(place).filter(|news| !news.is_empty()) else {
            self.recent.keep(place, learnt, &listing);
            return listing;
        };
        let listing = with_news(&listing, news);
        if news.values().any(|asked| matches!(asked, Asked::InDoubt)) {
            self.recent.drop_listing(place);
        } else {
            self.recent.keep(place, learnt, &listing);
        }
        listing
    }

    /// Writes a kept listing down: only the names that changed, and those that went. Takes as long
    /// as the disk does.
    pub(crate) fn write_listing(&self, place: &Place, learnt: Moment, listing: &Listing) {
        let Some(ledger) = &self.ledger else { return };
        if !write_rows(ledger, place, learnt, listing) {
            return;
        }
        let mut under_way = self.under_way.lock();
        let news = under_way.dirs.get_mut(place).map(std::mem::take);
        let mut entries = listing.len() as u64;
        for (name, asked) in news.unwrap_or_default() {
            let row = row_of(&asked);
            match (find(listing, &name).is_some(), row.is_some()) {
                (true, false) => entries -= 1,
                (false, true) => entries += 1,
                _ => {}
            }
            ledger.put([(records::entry_key(place.0, &place.1, &name), row)]);
        }
        let record = records::write_directory(DirectoryRecord { learnt, entries });
        ledger.put([(records::directory_key(place.0, &place.1), Some(record))]);
    }

    /// Takes note of a directory that was just made.
    pub(crate) fn learn_empty(&self, place: &Place, learnt: Moment) {
        if let Some(_under_way) = self.list_begins(place) {
            let listing = self.keep_listing(place, learnt, Arc::from([]));
            self.write_listing(place, learnt, &listing);
        }
    }

    /// Writes one name down, or that it is gone.
    pub(crate) fn learn_entry(&self, place: &Place, learnt: Moment, meta: Option<&ObjectMeta>) {
        let Some((dir, name)) = place.1.split() else {
            return;
        };
        let dir = (place.0, dir);
        let mut under_way = self.under_way.lock();
        under_way.changes(&dir);
        let record = self.directory(dir.0, &dir.1);
        let listed = self.recent.find(&dir, &name).map(|(learnt, _)| learnt);
        let listed = listed.max(record.map(|record| record.learnt));
        if listed.is_some_and(|at| at > learnt) || self.was_told_after(&dir, &name, learnt) {
            return;
        }
        if let Some(news) = under_way.dirs.get_mut(&dir) {
            let asked = meta.map_or(Asked::Absent, |meta| Asked::Found(learnt, meta.clone()));
            news.insert(name.clone(), asked);
        }
        self.recent.change(&dir, &name, meta);
        let Some(ledger) = &self.ledger else { return };
        let key = records::entry_key(dir.0, &dir.1, &name);
        // The rows of a directory are counted, so that a lost one is missed.
        let was_there = ledger
            .get(&key)
            .is_some_and(|value| records::is_counted(value.as_deref()));
        if let Some(mut record) = record.filter(|_| was_there != meta.is_some()) {
            record.entries = match was_there {
                true => record.entries.saturating_sub(1),
                false => record.entries + 1,
            };
            let counted = records::write_directory(record);
            ledger.put([(records::directory_key(dir.0, &dir.1), Some(counted))]);
        }
        ledger.put([(key, meta.map(|meta| records::write_entry(learnt, meta)))]);
    }

    /// Says whether a name was asked for alone after that moment: a sync does not wait for answers to
    /// earlier questions.
    fn was_told_after(&self, dir: &Place, name: &Name, learnt: Moment) -> bool {
        let own = self.ledger.as_ref().and_then(|ledger| {
            records::read_entry(&ledger.get(&records::entry_key(dir.0, &dir.1, name))??)
        });
        own.is_some_and(|own| own.learnt > learnt)
    }

    /// Puts a name in doubt on the disk: it is about to be changed, and a process that dies before it
    /// takes note of the outcome must not leave what was. Waits a moment for that.
    pub(crate) fn foresee(&self, place: &Place) {
        let (Some(ledger), Some((dir, name))) = (&self.ledger, place.1.split()) else {
            return;
        };
        let key = records::entry_key(place.0, &dir, &name);
        {
            let mut in_order = self.under_way.lock();
            in_order.changes(&(place.0, dir.clone()));
            let before = ledger.get(&key).flatten();
            let row = match records::is_counted(before.as_deref()) {
                true => records::in_doubt(),
                false => records::in_doubt_uncounted(),
            };
            ledger.put([(key, Some(row))]);
        }
        ledger.arrived(QUEUE_PATIENCE);
    }

    /// Puts a name in doubt: what is known of it proved wrong.
    pub(crate) fn forget(&self, mount: MountId, dir: &ObjectPath, name: &Name) {
        let place = (mount, dir.clone());
        let mut under_way = self.under_way.lock();
        under_way.changes(&place);
        if let Some(news) = under_way.dirs.get_mut(&place) {
            news.insert(name.clone(), Asked::InDoubt);
        }
        self.recent.drop_listing(&place);
        if let Some(ledger) = &self.ledger {
            let key = records::entry_key(mount, dir, name);
            ledger.put([(key, row_of(&Asked::InDoubt))]);
        }
    }
}

/// Returns whether what was told of an object holds of what is listed now.
fn is_still_told(listed: &ObjectMeta, told: &EntryRecord) -> bool {
    let is_open = listed.owner.is_none() && listed.extras.is_none();
    let is_same = match (listed.kind, told.meta.kind) {
        (NodeKind::Directory, NodeKind::Directory) => true,
        (NodeKind::File, NodeKind::File) => {
            let (now, then) = (&listed.tag, &told.meta.tag);
            now.etag.is_some() && now.etag == then.etag && now.size == then.size
        }
        _ => false,
    };
    let learnt = i64::try_from(told.learnt.0).unwrap_or(i64::MAX);
    is_open && is_same && listed.tag.mtime_ns <= learnt.saturating_add(SKEW_NS)
}

/// Brings the rows of a directory in line with its listing; says whether they are.
fn write_rows(ledger: &Ledger, place: &Place, learnt: Moment, listing: &Listing) -> bool {
    let (mount, dir) = (place.0, &place.1);
    let (from, to) = records::entry_keys(mount, dir);
    let Some(old) = ledger.scan((&from, &to), WRITER_PATIENCE) else {
        return false;
    };
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
    ledger.write_all(batch)
}

fn row_of(asked: &Asked) -> Option<Vec<u8>> {
    match asked {
        Asked::Found(learnt, meta) => Some(records::write_entry(*learnt, meta)),
        Asked::Absent => None,
        Asked::InDoubt => Some(records::in_doubt()),
    }
}

/// Lays what became known since a listing began over it. A name in doubt stays as listed.
fn with_news(listing: &Listing, news: &News) -> Listing {
    let mut entries: BTreeMap<Name, ObjectMeta> = listing
        .iter()
        .map(|entry| (entry.name.clone(), entry.meta.clone()))
        .collect();
    for (name, asked) in news {
        match asked {
            Asked::Found(_, meta) => {
                entries.insert(name.clone(), meta.clone());
            }
            Asked::Absent => {
                entries.remove(name);
            }
            Asked::InDoubt => {}
        }
    }
    entries
        .into_iter()
        .map(|(name, meta)| ListEntry { name, meta })
        .collect()
}
