// SPDX-License-Identifier: Apache-2.0
//! A file system in memory: what the mount must show, and what a crash may leave of it.
//!
//! Beside the tree of now it keeps, for each path, what may be there after the daemon died: one
//! content when that was acknowledged, several while it is being written. Names are durable at once,
//! but for those of files that nobody closed or synced yet.

use std::collections::BTreeMap;

use rustix::io::Errno;
use testkit::trees::Tree;

use crate::steps::{Open, SLOTS};

type Id = usize;

#[derive(Debug)]
enum Node {
    Dir(BTreeMap<String, Id>),
    File(Vec<u8>),
}

/// An open file.
#[derive(Debug)]
pub(crate) struct Handle {
    node: Id,
    pub(crate) how: Open,
    /// A reader from before the file had a writer may keep the version that it opened.
    pinned: Option<Vec<u8>>,
    was_clean: bool,
    /// Somebody else replaced the object: its bytes, or none.
    pub(crate) is_detached: bool,
}

/// What may be at a path after a crash.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    may_be_absent: bool,
    contents: Vec<Vec<u8>>,
}

impl Outcome {
    fn exactly(bytes: &[u8]) -> Self {
        Outcome {
            may_be_absent: false,
            contents: vec![bytes.to_vec()],
        }
    }

    /// Says why something is not what may be there. A file that was changed in place is as a power
    /// cut leaves it on a local disk, where `blends`: of each byte an old one or a new one.
    fn check(&self, found: Option<&Vec<u8>>, blends: bool) -> Result<(), String> {
        match found {
            None if self.may_be_absent || self.contents.is_empty() => Ok(()),
            None => Err("is missing".into()),
            Some(bytes) if self.contents.contains(bytes) => Ok(()),
            Some(bytes) if blends && self.contents.len() > 1 && self.is_blend(bytes) => Ok(()),
            Some(bytes) => {
                let lens: Vec<_> = self.contents.iter().map(Vec::len).collect();
                let first = self.contents.last().and_then(|last| {
                    let pairs = last.iter().zip(bytes);
                    pairs.into_iter().position(|(a, b)| a != b)
                });
                Err(format!(
                    "has {} bytes, first wrong at {first:?}; may have {lens:?}",
                    bytes.len()
                ))
            }
        }
    }

    fn is_blend(&self, found: &[u8]) -> bool {
        let longest = self.contents.iter().map(Vec::len).max().unwrap_or(0);
        let is_known = |at: usize, byte: &u8| {
            *byte == 0 || self.contents.iter().any(|one| one.get(at) == Some(byte))
        };
        found.len() <= longest
            && found
                .iter()
                .enumerate()
                .all(|(at, byte)| is_known(at, byte))
    }
}

/// The file system.
#[derive(Debug)]
pub(crate) struct Toy {
    nodes: Vec<Node>,
    pub(crate) handles: [Option<Handle>; SLOTS],
    /// What may be at each path of a file after a crash. Other paths are absent.
    durable: BTreeMap<String, Outcome>,
}

const ROOT: Id = 0;

/// What a call comes to.
pub(crate) type Answer<T> = Result<T, Errno>;

/// What reading may give.
pub(crate) struct Readings {
    pub(crate) any_of: Vec<Vec<u8>>,
    pub(crate) may_be_stale: bool,
}

impl Toy {
    /// Starts with a tree that is durable.
    pub(crate) fn of(tree: &Tree) -> Self {
        let mut toy = Toy {
            nodes: vec![Node::Dir(BTreeMap::new())],
            handles: Default::default(),
            durable: BTreeMap::new(),
        };
        for (path, bytes) in tree {
            let node = match path.ends_with('/') {
                true => Node::Dir(BTreeMap::new()),
                false => Node::File(bytes.clone()),
            };
            let path = path.trim_end_matches('/');
            toy.nodes.push(node);
            let id = toy.nodes.len() - 1;
            let (dir, name) = toy.parent(path).expect("trees are in order");
            toy.names_mut(dir).insert(name, id);
            if let Node::File(bytes) = &toy.nodes[id] {
                toy.durable.insert(path.to_owned(), Outcome::exactly(bytes));
            }
        }
        toy
    }

    /// Returns the tree of now.
    pub(crate) fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        self.walk(ROOT, "", &mut |path, node| {
            match node {
                Node::Dir(_) => tree.insert(format!("{path}/"), Vec::new()),
                Node::File(bytes) => tree.insert(path.to_owned(), bytes.clone()),
            };
        });
        tree
    }

    /// Returns the paths of files and of directories.
    pub(crate) fn paths(&self) -> (Vec<String>, Vec<String>) {
        let (mut files, mut dirs) = (Vec::new(), Vec::new());
        self.walk(ROOT, "", &mut |path, node| match node {
            Node::Dir(_) => dirs.push(path.to_owned()),
            Node::File(_) => files.push(path.to_owned()),
        });
        (files, dirs)
    }

    fn walk(&self, dir: Id, prefix: &str, tell: &mut dyn FnMut(&str, &Node)) {
        for (name, id) in self.names(dir) {
            let path = format!("{prefix}{name}");
            let node = &self.nodes[*id];
            tell(&path, node);
            if matches!(node, Node::Dir(_)) {
                self.walk(*id, &format!("{path}/"), tell);
            }
        }
    }

    fn names(&self, dir: Id) -> &BTreeMap<String, Id> {
        match &self.nodes[dir] {
            Node::Dir(names) => names,
            Node::File(_) => panic!("a file has no names"),
        }
    }

    fn names_mut(&mut self, dir: Id) -> &mut BTreeMap<String, Id> {
        match &mut self.nodes[dir] {
            Node::Dir(names) => names,
            Node::File(_) => panic!("a file has no names"),
        }
    }

    fn bytes(&self, file: Id) -> &Vec<u8> {
        match &self.nodes[file] {
            Node::File(bytes) => bytes,
            Node::Dir(_) => panic!("a directory has no bytes"),
        }
    }

    pub(crate) fn is_dir(&self, path: &str) -> bool {
        self.find(path)
            .is_ok_and(|id| matches!(self.nodes[id], Node::Dir(_)))
    }

    /// Returns whether a path could be made: its directory is there.
    pub(crate) fn has_parent(&self, path: &str) -> bool {
        self.parent(path).is_ok()
    }

    pub(crate) fn content(&self, path: &str) -> Option<&Vec<u8>> {
        match &self.nodes[self.find(path).ok()?] {
            Node::File(bytes) => Some(bytes),
            Node::Dir(_) => None,
        }
    }

    fn parent(&self, path: &str) -> Answer<(Id, String)> {
        let (dirs, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut at = ROOT;
        for part in dirs.split('/').filter(|part| !part.is_empty()) {
            at = *self.names(at).get(part).ok_or(Errno::NOENT)?;
            if !matches!(self.nodes[at], Node::Dir(_)) {
                return Err(Errno::NOTDIR);
            }
        }
        Ok((at, name.to_owned()))
    }

    fn find(&self, path: &str) -> Answer<Id> {
        if path.is_empty() {
            return Ok(ROOT);
        }
        let (dir, name) = self.parent(path)?;
        self.names(dir).get(&name).copied().ok_or(Errno::NOENT)
    }

    /// Returns the path that leads to a node.
    fn path_of(&self, wanted: Id) -> Option<String> {
        let (files, _) = self.paths();
        files.into_iter().find(|path| self.find(path) == Ok(wanted))
    }

    pub(crate) fn path_of_handle(&self, slot: usize) -> Option<String> {
        self.path_of(self.handles[slot].as_ref()?.node)
    }

    fn handles_on(&self, node: Id) -> impl Iterator<Item = &Handle> {
        let open = self.handles.iter().flatten();
        open.filter(move |handle| handle.node == node)
    }

    /// Returns whether somebody here has a file open for writing.
    pub(crate) fn is_written(&self, path: &str) -> bool {
        let node = self.find(path);
        node.is_ok_and(|node| self.handles_on(node).any(|handle| handle.how.write))
    }

    pub(crate) fn is_open(&self, path: &str) -> bool {
        self.find(path)
            .is_ok_and(|node| self.handles_on(node).next().is_some())
    }

    pub(crate) fn slots_of(&self, path: &str) -> Vec<usize> {
        let node = self.find(path).ok();
        let on_it = |slot: &usize| {
            let handle = self.handles[*slot].as_ref();
            handle.is_some_and(|handle| Some(handle.node) == node)
        };
        (0..SLOTS).filter(on_it).collect()
    }

    /// Opens a file.
    pub(crate) fn open(&mut self, slot: usize, path: &str, how: Open) -> Answer<()> {
        let (dir, name) = self.parent(path)?;
        let found = self.names(dir).get(&name).copied();
        let node = match found {
            Some(_) if how.exclusive && how.create => return Err(Errno::EXIST),
            Some(id) if matches!(self.nodes[id], Node::Dir(_)) => return Err(Errno::ISDIR),
            Some(id) => id,
            None if !how.create => return Err(Errno::NOENT),
            None => {
                self.nodes.push(Node::File(Vec::new()));
                let id = self.nodes.len() - 1;
                self.names_mut(dir).insert(name, id);
                let outcome = self.durable.entry(path.to_owned()).or_default();
                outcome.may_be_absent = true;
                outcome.contents.push(Vec::new());
                id
            }
        };
        let was_clean = !self.handles_on(node).any(|handle| handle.how.write);
        self.handles[slot] = Some(Handle {
            node,
            how,
            pinned: None,
            was_clean,
            is_detached: false,
        });
        if how.truncate && found.is_some() {
            self.set(node, Vec::new());
        }
        Ok(())
    }

    /// Gives a file other bytes, which nobody was promised yet.
    fn set(&mut self, node: Id, bytes: Vec<u8>) {
        let before = self.bytes(node).clone();
        if before == bytes {
            return;
        }
        for handle in self.handles.iter_mut().flatten() {
            if handle.node == node && !handle.how.write && handle.was_clean {
                handle.pinned.get_or_insert_with(|| before.clone());
            }
        }
        if let Some(path) = self.path_of(node) {
            let outcome = self.durable.entry(path).or_default();
            outcome.contents.push(bytes.clone());
        }
        self.nodes[node] = Node::File(bytes);
    }

    fn writer(&self, slot: usize) -> Answer<Option<(Id, Open)>> {
        match &self.handles[slot] {
            None => Ok(None),
            Some(handle) if !handle.how.write => Err(Errno::BADF),
            Some(handle) => Ok(Some((handle.node, handle.how))),
        }
    }

    pub(crate) fn is_writer(&self, slot: usize) -> bool {
        matches!(self.writer(slot), Ok(Some(_)))
    }

    /// Changes the bytes of a file through a handle; `change` is told the handle and the bytes.
    /// Nothing happens without a handle.
    pub(crate) fn change(
        &mut self,
        slot: usize,
        change: impl FnOnce(Open, &mut Vec<u8>),
    ) -> Answer<()> {
        if let Some((node, how)) = self.writer(slot)? {
            let mut bytes = self.bytes(node).clone();
            change(how, &mut bytes);
            self.set(node, bytes);
        }
        Ok(())
    }

    /// Returns what a handle may read as the whole file.
    pub(crate) fn read(&self, slot: usize) -> Answer<Option<Readings>> {
        let Some(handle) = &self.handles[slot] else {
            return Ok(None);
        };
        if !handle.how.read {
            return Err(Errno::BADF);
        }
        let now = self.bytes(handle.node).clone();
        let any_of = [Some(now), handle.pinned.clone()];
        Ok(Some(Readings {
            any_of: any_of.into_iter().flatten().collect(),
            may_be_stale: handle.is_detached,
        }))
    }

    /// Takes note that a file was synced or closed by a writer: what it has is acknowledged.
    pub(crate) fn acknowledge(&mut self, slot: usize) {
        let Some(handle) = &self.handles[slot] else {
            return;
        };
        if handle.how.write
            && let Some(path) = self.path_of(handle.node)
        {
            self.acknowledge_path(&path);
        }
    }

    pub(crate) fn acknowledge_path(&mut self, path: &str) {
        if let Some(bytes) = self.content(path).cloned() {
            self.durable
                .insert(path.to_owned(), Outcome::exactly(&bytes));
        }
    }

    /// Takes note that all that nobody has open is stored.
    pub(crate) fn acknowledge_closed(&mut self) {
        for path in self.paths().0 {
            if !self.is_open(&path) {
                self.acknowledge_path(&path);
            }
        }
    }

    /// Returns whether a crash may leave a file in several ways.
    pub(crate) fn may_differ(&self, path: &str) -> bool {
        let outcome = self.durable.get(path);
        outcome.is_some_and(|outcome| outcome.contents.len() > 1)
    }

    pub(crate) fn cut_path(&mut self, path: &str, len: usize) -> Answer<()> {
        let node = self.find(path)?;
        let Node::File(bytes) = &self.nodes[node] else {
            return Err(Errno::ISDIR);
        };
        let mut bytes = bytes.clone();
        bytes.resize(len, 0);
        // Nothing is promised without an fsync.
        self.set(node, bytes);
        Ok(())
    }

    /// Whether a path is there, and then as what.
    pub(crate) fn check_there(&self, path: &str) -> Answer<()> {
        self.find(path).map(drop)
    }

    pub(crate) fn list(&self, path: &str) -> Answer<Vec<String>> {
        let node = self.find(path)?;
        match &self.nodes[node] {
            Node::Dir(names) => Ok(names.keys().cloned().collect()),
            Node::File(_) => Err(Errno::NOTDIR),
        }
    }

    pub(crate) fn make_dir(&mut self, path: &str) -> Answer<()> {
        let (dir, name) = self.parent(path)?;
        if self.names(dir).contains_key(&name) {
            return Err(Errno::EXIST);
        }
        self.nodes.push(Node::Dir(BTreeMap::new()));
        let id = self.nodes.len() - 1;
        self.names_mut(dir).insert(name, id);
        Ok(())
    }

    pub(crate) fn remove_dir(&mut self, path: &str) -> Answer<()> {
        let node = self.find(path)?;
        match &self.nodes[node] {
            Node::File(_) => return Err(Errno::NOTDIR),
            Node::Dir(names) if !names.is_empty() => return Err(Errno::NOTEMPTY),
            Node::Dir(_) => {}
        }
        self.take(path);
        Ok(())
    }

    pub(crate) fn unlink(&mut self, path: &str) -> Answer<()> {
        let node = self.find(path)?;
        if matches!(self.nodes[node], Node::Dir(_)) {
            return Err(Errno::ISDIR);
        }
        self.take(path);
        self.durable.remove(path);
        Ok(())
    }

    fn take(&mut self, path: &str) -> Option<Id> {
        let (dir, name) = self.parent(path).ok()?;
        self.names_mut(dir).remove(&name)
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str) -> Answer<()> {
        let (from_dir, to_dir) = (self.parent(from)?, self.parent(to)?);
        let moved = *self
            .names(from_dir.0)
            .get(&from_dir.1)
            .ok_or(Errno::NOENT)?;
        if to.starts_with(&format!("{from}/")) {
            return Err(Errno::INVAL);
        }
        if from.starts_with(&format!("{to}/")) {
            return Err(Errno::NOTEMPTY);
        }
        let other = self.names(to_dir.0).get(&to_dir.1).copied();
        if other == Some(moved) {
            return Ok(());
        }
        let is_dir = |id: Id| matches!(self.nodes[id], Node::Dir(_));
        match other {
            Some(other) if is_dir(moved) && !is_dir(other) => return Err(Errno::NOTDIR),
            Some(other) if !is_dir(moved) && is_dir(other) => return Err(Errno::ISDIR),
            Some(other) if is_dir(other) && !self.names(other).is_empty() => {
                return Err(Errno::NOTEMPTY);
            }
            _ => {}
        }
        let was_dir = is_dir(moved);
        self.take(from);
        self.names_mut(to_dir.0).insert(to_dir.1, moved);
        match was_dir {
            true => self.move_below(from, to),
            false => self.move_durable(from, to, moved),
        }
        Ok(())
    }

    fn move_below(&mut self, from: &str, to: &str) {
        let below = format!("{from}/");
        let paths: Vec<_> = self.durable.keys().cloned().collect();
        for path in paths.iter().filter(|path| path.starts_with(&below)) {
            if let Some(outcome) = self.durable.remove(path) {
                let path = format!("{to}/{}", &path[below.len()..]);
                self.durable.insert(path, outcome);
            }
        }
    }

    fn move_durable(&mut self, from: &str, to: &str, moved: Id) {
        let mut outcome = self.durable.remove(from).unwrap_or_default();
        let now = self.bytes(moved).clone();
        let is_clean = !outcome.may_be_absent && outcome.contents == [now];
        if !is_clean {
            // As after a rename without an fsync: what had the name, or any of what was written.
            let left = Outcome {
                may_be_absent: true,
                ..outcome.clone()
            };
            self.durable.insert(from.to_owned(), left);
            if let Some(before) = self.durable.get(to) {
                outcome.contents.extend(before.contents.iter().cloned());
                outcome.may_be_absent &= before.may_be_absent;
            }
        }
        self.durable.insert(to.to_owned(), outcome);
    }

    /// Somebody else puts an object, or removes it. Who reads the old one keeps it, or is told.
    pub(crate) fn replace(&mut self, path: &str, bytes: Option<Vec<u8>>) {
        let old = self.take(path);
        for handle in self.handles.iter_mut().flatten() {
            handle.is_detached |= Some(handle.node) == old;
        }
        self.durable.remove(path);
        if let Some(bytes) = bytes {
            self.durable
                .insert(path.to_owned(), Outcome::exactly(&bytes));
            self.nodes.push(Node::File(bytes));
            let id = self.nodes.len() - 1;
            if let Ok((dir, name)) = self.parent(path) {
                self.names_mut(dir).insert(name, id);
            }
        }
    }

    /// Checks the files of a tree against what may be there after a crash.
    pub(crate) fn check_durable(&self, found: &Tree, blends: bool) -> Result<(), String> {
        let mut faults = Vec::new();
        let files = found.keys().filter(|path| !path.ends_with('/'));
        let mut paths: Vec<&String> = files.chain(self.durable.keys()).collect();
        paths.sort();
        paths.dedup();
        for path in paths {
            let checked = match self.durable.get(path) {
                Some(outcome) => outcome.check(found.get(path), blends),
                None => Err("should not be there".into()),
            };
            faults.extend(checked.err().map(|why| format!("'{path}' {why}")));
        }
        match faults.is_empty() {
            true => Ok(()),
            false => Err(faults.join("; ")),
        }
    }
}
