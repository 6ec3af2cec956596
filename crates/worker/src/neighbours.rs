// SPDX-License-Identifier: Apache-2.0
//! Sees that a job reads the small files of a tree one after the other, in whatever order.
//!
//! An epoch over an image folder opens each file once, at random: with a few readers it runs at
//! readers over latency, far below the wire. What it opens next cannot be guessed, but that it will
//! open the rest of the tree can. [`Neighbours`] is told of every open of a small file and says
//! which tree to fetch and how far; [`load`] does the fetching.
//!
//! A walk of a tree lists one directory after the other, each after a round trip to the storage: the
//! same sees that, of directories in place of files, and [`list`] lists the rest.
//!
//! Evidence is opens of different files that missed, all within [`WINDOW`], below one directory:
//! enough in the directory itself, or enough below several of its children ([`Evidence`]). The nearest
//! such directory counts, up to [`HEIGHT_MAX`] levels above the file. The evidence also bounds the
//! fetching: a tree gets so many files for each one that was opened, so a few reads in a huge bucket do
//! not pull it in, while an epoch never feels the bound.
//!
//! Plain data, no I/O: the clock is the caller's.

pub(crate) mod flat;
pub(crate) mod list;
pub(crate) mod load;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use types::{MountId, ObjectPath};

/// Opens further apart than this are no pass over a tree.
const WINDOW: Duration = Duration::from_secs(10);

/// Misses remembered: enough to see a tree of many small directories.
const RECENT_MAX: usize = 256;

/// What makes opens a pass over a tree, and how far that reaches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Evidence {
    /// Different files of one directory that make a pass over it.
    in_directory: usize,
    /// Different files below a directory, and of how many of its children.
    in_tree: usize,
    branches: usize,
    /// What may be fetched for each one that was opened.
    lead: u64,
}

/// Opened files. Four readers that wait 15 ms for each file open 250 a second, which allows 4,000: more
/// than most wires carry.
pub(crate) const FILES: Evidence = Evidence {
    in_directory: 8,
    in_tree: 16,
    branches: 3,
    lead: 16,
};

/// Listed directories. A walk that waits 15 ms for each lists 66 a second, which allows 2,000.
pub(crate) const DIRECTORIES: Evidence = Evidence {
    in_directory: 3,
    in_tree: 6,
    branches: 3,
    lead: 32,
};

/// Directories above a file that may be the root of what is read: class, split, and one to spare.
const HEIGHT_MAX: usize = 3;

/// Trees followed at a time, over all mounts.
const TREES_MAX: usize = 16;

/// A tree that was fetched, or could not be, is left alone for so long, however it is read.
const REST: Duration = Duration::from_secs(60);

/// A directory of a mount.
pub(crate) type Tree = (MountId, ObjectPath);

/// How far a tree has been fetched ahead of its readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeAhead {
    /// The mount.
    pub mount: MountId,
    /// The root of the tree.
    pub dir: ObjectPath,
    /// Small files found so far; all of them when listings have come in.
    pub found: u64,
    /// Those of them that are cached.
    pub cached: u64,
}

/// What is known of how the trees are read.
#[derive(Debug)]
pub(crate) struct Neighbours {
    evidence: Evidence,
    /// Files that were opened and missed, oldest first.
    recent: VecDeque<(Instant, MountId, ObjectPath)>,
    /// Trees being followed.
    trees: HashMap<Tree, Followed>,
}

#[derive(Debug)]
struct Followed {
    opens: u64,
    last_open: Instant,
    ended: Option<Instant>,
    found: u64,
    cached: u64,
}

impl Neighbours {
    pub(crate) fn new(evidence: Evidence) -> Self {
        Neighbours {
            evidence,
            recent: VecDeque::new(),
            trees: HashMap::new(),
        }
    }

    /// Takes note of an open; returns a tree when this open makes it worth fetching.
    pub(crate) fn on_open(
        &mut self,
        now: Instant,
        mount: MountId,
        path: &ObjectPath,
        missed: bool,
    ) -> Option<Tree> {
        let mut is_followed = false;
        for ((of, dir), followed) in &mut self.trees {
            if *of == mount && is_below(path, dir) {
                followed.opens += 1;
                followed.last_open = now;
                is_followed |= followed.ended.is_none();
            }
        }
        if !missed || !self.remember(now, mount, path) {
            return None;
        }
        let dir = self.tree_of(mount, path)?;
        if is_followed && self.lies_in_followed(mount, &dir) {
            return None;
        }
        let tree = (mount, dir);
        let opens = self.evidence.in_directory as u64;
        self.follow(now, &tree, opens).then_some(tree)
    }

    /// Takes note that the first thing in a tree is opened; says whether that makes the rest worth
    /// fetching.
    pub(crate) fn on_first(&mut self, now: Instant, tree: &Tree) -> bool {
        !self.lies_in_followed(tree.0, &tree.1) && self.follow(now, tree, 1)
    }

    /// Follows a tree of which so much was opened; false when it is followed, or was, or too many are.
    fn follow(&mut self, now: Instant, tree: &Tree, opens: u64) -> bool {
        self.trees
            .retain(|_, tree| tree.is_live(now) || tree.rests(now));
        if self.trees.contains_key(tree) || self.trees.len() >= TREES_MAX {
            return false;
        }
        let followed = Followed {
            opens,
            last_open: now,
            ended: None,
            found: 0,
            cached: 0,
        };
        self.trees.insert(tree.clone(), followed);
        true
    }

    /// Returns whether this was opened lately, and missed.
    pub(crate) fn missed_lately(&self, now: Instant, mount: MountId, path: &ObjectPath) -> bool {
        let is_this = |(at, of, seen): &(Instant, MountId, ObjectPath)| {
            *of == mount && seen == path && now.saturating_duration_since(*at) <= WINDOW
        };
        self.recent.iter().any(is_this)
    }

    /// Returns how many files of a tree may have been fetched by now; `None` when nobody has
    /// opened any of it for a while.
    pub(crate) fn allowance(&self, now: Instant, tree: &Tree) -> Option<u64> {
        let followed = self.trees.get(tree)?;
        (followed.is_live(now)).then_some(followed.opens * self.evidence.lead)
    }

    /// Takes note of files of a tree that were found, and of those that are cached by now.
    pub(crate) fn progress(&mut self, tree: &Tree, found: u64, cached: u64) {
        if let Some(followed) = self.trees.get_mut(tree) {
            followed.found += found;
            followed.cached += cached;
        }
    }

    /// Stops following a tree: it was fetched, its readers have gone, or it cannot be fetched.
    pub(crate) fn end(&mut self, now: Instant, tree: &Tree) {
        if let Some(followed) = self.trees.get_mut(tree) {
            followed.ended = Some(now);
        }
    }

    /// Returns the trees that are being fetched.
    pub(crate) fn trees(&self) -> Vec<TreeAhead> {
        let live = self.trees.iter().filter(|(_, tree)| tree.ended.is_none());
        let trees = live.map(|((mount, dir), tree)| TreeAhead {
            mount: *mount,
            dir: dir.clone(),
            found: tree.found,
            cached: tree.cached,
        });
        trees.collect()
    }

    /// Adds a miss to the recent ones; false when this file is among them already.
    fn remember(&mut self, now: Instant, mount: MountId, path: &ObjectPath) -> bool {
        let is_old = |at: &Instant| now.saturating_duration_since(*at) > WINDOW;
        while self.recent.front().is_some_and(|(at, ..)| is_old(at)) {
            self.recent.pop_front();
        }
        let is_this = |(_, of, seen): &(Instant, MountId, ObjectPath)| *of == mount && seen == path;
        if self.recent.iter().any(is_this) {
            return false;
        }
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((now, mount, path.clone()));
        true
    }

    fn lies_in_followed(&self, mount: MountId, dir: &ObjectPath) -> bool {
        let mut live = self.trees.iter().filter(|(_, tree)| tree.ended.is_none());
        live.any(|((of, above), _)| *of == mount && (above == dir || is_below(dir, above)))
    }

    /// Returns the nearest directory above `path` that the recent misses make a pass over.
    fn tree_of(&self, mount: MountId, path: &ObjectPath) -> Option<ObjectPath> {
        let mut dir = path.split()?.0;
        for height in 0..HEIGHT_MAX {
            let below = self.recent.iter().filter(|(_, of, _)| *of == mount);
            let below = below.filter_map(|(.., seen)| rest_below(seen, &dir));
            let enough = if height == 0 {
                below.filter(|rest| !rest.contains(&b'/')).count() >= self.evidence.in_directory
            } else {
                let children = below.map(|rest| rest.split(|byte| *byte == b'/').next());
                let children: Vec<_> = children.collect();
                let branches: HashSet<_> = children.iter().collect();
                children.len() >= self.evidence.in_tree && branches.len() >= self.evidence.branches
            };
            if enough {
                return Some(dir);
            }
            dir = dir.split()?.0;
        }
        None
    }
}

impl Followed {
    fn is_live(&self, now: Instant) -> bool {
        self.ended.is_none() && now.saturating_duration_since(self.last_open) <= WINDOW
    }

    fn rests(&self, now: Instant) -> bool {
        self.ended
            .is_some_and(|ended| now.saturating_duration_since(ended) <= REST)
    }
}

fn is_below(path: &ObjectPath, dir: &ObjectPath) -> bool {
    rest_below(path, dir).is_some()
}

/// Returns what of `path` comes after the directory `dir` and a slash, if it lies below it.
fn rest_below<'a>(path: &'a ObjectPath, dir: &ObjectPath) -> Option<&'a [u8]> {
    let path = path.as_bytes();
    match dir.is_root() {
        true => Some(path),
        false => path.strip_prefix(dir.as_bytes())?.strip_prefix(b"/"),
    }
}

#[cfg(test)]
mod tests {
    use types::{Clock, ManualClock};

    use super::*;

    const MOUNT: MountId = MountId(1);

    fn path(text: &str) -> ObjectPath {
        ObjectPath::parse(text.as_bytes()).unwrap()
    }

    fn classes(count: usize) -> Vec<String> {
        (0..count)
            .map(|index| format!("train/{}/{index}", index % 20))
            .collect()
    }

    /// Opens files that miss, and returns the trees that this made worth fetching.
    fn trees(neighbours: &mut Neighbours, now: Instant, files: &[String]) -> Vec<String> {
        let opens = files
            .iter()
            .map(|file| neighbours.on_open(now, MOUNT, &path(file), true));
        opens.flatten().map(|(_, dir)| dir.to_string()).collect()
    }

    #[test]
    fn the_files_of_one_directory_are_a_pass_over_it() {
        let mut neighbours = Neighbours::new(FILES);
        let now = ManualClock::default().now();
        let files: Vec<_> = (0..20).map(|index| format!("a/b/{index}")).collect();
        assert!(trees(&mut neighbours, now, &files[..7]).is_empty());
        assert_eq!(trees(&mut neighbours, now, &files[7..]), ["a/b"]);
    }

    #[test]
    fn files_of_many_classes_are_a_pass_over_what_holds_the_classes() {
        let mut neighbours = Neighbours::new(FILES);
        let now = ManualClock::default().now();
        assert_eq!(trees(&mut neighbours, now, &classes(40)), ["train"]);
    }

    #[test]
    fn the_root_of_a_mount_can_be_a_tree() {
        let mut neighbours = Neighbours::new(FILES);
        let now = ManualClock::default().now();
        let files: Vec<_> = (0..8).map(|index| index.to_string()).collect();
        assert_eq!(trees(&mut neighbours, now, &files), [""]);
    }

    #[test]
    fn directories_that_are_listed_are_a_walk_of_what_holds_them() {
        let mut walks = Neighbours::new(DIRECTORIES);
        let now = ManualClock::default().now();
        let flat: Vec<_> = (0..9).map(|index| format!("train/{index}")).collect();
        assert!(trees(&mut walks, now, &flat[..2]).is_empty());
        assert_eq!(trees(&mut walks, now, &flat[2..]), ["train"]);
        let deep: Vec<_> = (0..9).map(|index| format!("logs/{index}/a")).collect();
        assert_eq!(trees(&mut walks, now, &deep), ["logs"]);
    }

    #[test]
    fn the_same_files_again_and_files_far_apart_in_time_are_no_pass() {
        let mut neighbours = Neighbours::new(FILES);
        let clock = ManualClock::default();
        let same = vec![String::from("a/b/1"); 50];
        assert!(trees(&mut neighbours, clock.now(), &same).is_empty());
        for index in 0..50 {
            clock.advance(Duration::from_secs(3));
            let file = [format!("a/c/{index}")];
            assert!(trees(&mut neighbours, clock.now(), &file).is_empty());
        }
    }

    #[test]
    fn a_directory_inside_a_followed_tree_starts_nothing_new() {
        let mut neighbours = Neighbours::new(FILES);
        let now = ManualClock::default().now();
        trees(&mut neighbours, now, &classes(40));
        let files: Vec<_> = (0..40).map(|index| format!("train/3/x{index}")).collect();
        assert!(trees(&mut neighbours, now, &files).is_empty());
    }

    #[test]
    fn fetching_is_bounded_by_opens_and_ends_when_they_do() {
        let mut neighbours = Neighbours::new(FILES);
        let clock = ManualClock::default();
        let files: Vec<_> = (0..8).map(|index| format!("a/{index}")).collect();
        trees(&mut neighbours, clock.now(), &files);
        let tree = (MOUNT, path("a"));
        let first = neighbours.allowance(clock.now(), &tree).unwrap();
        neighbours.on_open(clock.now(), MOUNT, &path("a/99"), false);
        assert_eq!(
            neighbours.allowance(clock.now(), &tree),
            Some(first + FILES.lead)
        );
        clock.advance(WINDOW + Duration::from_secs(1));
        assert_eq!(neighbours.allowance(clock.now(), &tree), None);
    }

    #[test]
    fn a_tree_that_ended_rests_and_then_may_be_fetched_again() {
        let mut neighbours = Neighbours::new(FILES);
        let clock = ManualClock::default();
        trees(&mut neighbours, clock.now(), &classes(40));
        neighbours.progress(&(MOUNT, path("train")), 10, 4);
        let ahead = TreeAhead {
            mount: MOUNT,
            dir: path("train"),
            found: 10,
            cached: 4,
        };
        assert_eq!(neighbours.trees(), [ahead]);
        neighbours.end(clock.now(), &(MOUNT, path("train")));
        assert!(neighbours.trees().is_empty());
        clock.advance(Duration::from_secs(11));
        assert!(trees(&mut neighbours, clock.now(), &classes(80)).is_empty());
        clock.advance(REST);
        assert_eq!(trees(&mut neighbours, clock.now(), &classes(40)), ["train"]);
    }
}
