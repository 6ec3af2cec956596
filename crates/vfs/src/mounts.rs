// SPDX-License-Identifier: Apache-2.0
//! The mount table: what hangs where in the tree. One table never changes; a change makes another.
//!
//! Mount points and the directories that lead to them form a small tree of [`Point`]s. A walk from
//! the root that enters points before it asks a storage finds the longest matching mount by itself,
//! and a mount point hides whatever the storage around it has under the same name. A directory that
//! only leads to mount points exists whether or not a storage has it; inside a mount it also shows
//! what the storage has there.
//!
//! A mount keeps its index for the life of the process, also after it was removed: inodes and open
//! files name it. A place names its mount and its path, and not its point, so that it means the same
//! in every table. [`crate::remount`] changes the table of a live tree.

use std::collections::HashMap;

use types::{Error, ErrorKind, Freshness, MountId, Name, NodeKind, ObjectPath, Result, VersionTag};

use crate::attributes::AttributeDefaults;
use crate::ino::{Ino, InoHasher};
use crate::write::WriteModes;

/// One storage and where it hangs in the tree.
#[derive(Debug, Clone)]
pub struct MountSpec {
    /// Place in the tree; the root is allowed.
    pub at: ObjectPath,
    /// The storage, as the worker knows it.
    pub id: MountId,
    /// What people call the storage, without secrets.
    pub uri: String,
    /// How long what is known of its names stays true.
    pub freshness: Freshness,
    /// Owner and modes of what has none in the storage.
    pub attributes: AttributeDefaults,
    /// When what is written reaches the storage.
    pub writes: WriteModes,
}

/// Index of a mount in every table of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct MountIndex(usize);

#[cfg(test)]
impl MountIndex {
    /// Makes the index of a mount in no table.
    pub(crate) fn for_tests(index: usize) -> Self {
        MountIndex(index)
    }
}

/// Index of a [`Point`] in one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PointIndex(usize);

/// Where something is: what names a node, apart from its kind and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The mount it belongs to; none above all mounts.
    pub(crate) mount: Option<MountIndex>,
    /// The path below the mount, or in the tree where there is no mount.
    pub(crate) path: ObjectPath,
}

/// A mount point, or a directory on the way to one.
#[derive(Debug)]
struct Point {
    place: Place,
    parent: PointIndex,
    /// Sorted by name.
    children: Vec<(Name, PointIndex)>,
}

#[derive(Debug, Clone)]
struct Mount {
    spec: MountSpec,
    hasher: InoHasher,
    /// None once it is removed.
    point: Option<PointIndex>,
}

/// All mounts of a tree, at one time.
#[derive(Debug)]
pub(crate) struct MountTable {
    mounts: Vec<Mount>,
    points: Vec<Point>,
    /// The points by their paths, first those above all mounts, then those of each mount.
    by_path: Vec<HashMap<ObjectPath, PointIndex>>,
}

const ROOT: PointIndex = PointIndex(0);

impl MountTable {
    /// Builds the table. Refuses two mounts at one place.
    pub(crate) fn new(specs: Vec<MountSpec>) -> Result<Self> {
        let mut table = MountTable::of(Vec::new())?;
        for spec in specs {
            table = table.with(spec)?;
        }
        Ok(table)
    }

    /// Returns a table with one more mount.
    pub(crate) fn with(&self, spec: MountSpec) -> Result<Self> {
        if let Some(found) = self.at(&spec.at) {
            let (at, uri) = (&spec.at, &self.spec(found).uri);
            let message = format!("two storages at '/{at}': '{uri}' is mounted there already");
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        let mut mounts = self.mounts.clone();
        mounts.push(Mount {
            hasher: InoHasher::of_mount(&spec.at, spec.id),
            point: Some(ROOT),
            spec,
        });
        MountTable::of(mounts)
    }

    /// Returns a table in which a mount is described in another way, at the same place.
    pub(crate) fn changed(&self, mount: MountIndex, spec: MountSpec) -> Result<Self> {
        let mut mounts = self.mounts.clone();
        mounts[mount.0].hasher = InoHasher::of_mount(&spec.at, spec.id);
        mounts[mount.0].spec = spec;
        MountTable::of(mounts)
    }

    /// Returns a table without a mount. Refuses one that has others below it.
    pub(crate) fn without(&self, mount: MountIndex) -> Result<Self> {
        let at = &self.spec(mount).at;
        let below = self.live().filter(|spec| spec.at.is_below(at));
        let below: Vec<_> = below.map(|spec| format!("'/{}'", spec.at)).collect();
        // What is below the root stays where it is: it is above all mounts then.
        if !below.is_empty() && !at.is_root() {
            let message = format!(
                "'/{at}' has mounts below it: remove {} first",
                below.join(", ")
            );
            return Err(Error::new(ErrorKind::NotEmpty, message));
        }
        let mut mounts = self.mounts.clone();
        mounts[mount.0].point = None;
        MountTable::of(mounts)
    }

    fn of(mounts: Vec<Mount>) -> Result<Self> {
        let mut by_path = vec![HashMap::new(); mounts.len() + 1];
        let place = Place {
            mount: None,
            path: ObjectPath::root(),
        };
        by_path[0].insert(ObjectPath::root(), ROOT);
        let root = Point {
            place,
            parent: ROOT,
            children: Vec::new(),
        };
        let mut table = MountTable {
            mounts,
            points: vec![root],
            by_path,
        };
        // Outer mounts first, so that a point inside one finds it already in place.
        let live = |&index: &usize| table.mounts[index].point.is_some();
        let mut order: Vec<usize> = (0..table.mounts.len()).filter(live).collect();
        order.sort_by(|a, b| table.mounts[*a].spec.at.cmp(&table.mounts[*b].spec.at));
        for index in order {
            table.hang(MountIndex(index))?;
        }
        Ok(table)
    }

    fn hang(&mut self, mount: MountIndex) -> Result<()> {
        let mut point = ROOT;
        for name in components(&self.spec(mount).at)? {
            point = self.child_or_new(point, name);
        }
        let covered = self.points[point.0].place.clone();
        self.by_path[slot(covered.mount)].remove(&covered.path);
        self.by_path[slot(Some(mount))].insert(ObjectPath::root(), point);
        self.points[point.0].place = Place {
            mount: Some(mount),
            path: ObjectPath::root(),
        };
        self.mounts[mount.0].point = Some(point);
        Ok(())
    }

    fn child_or_new(&mut self, parent: PointIndex, name: Name) -> PointIndex {
        let children = &self.points[parent.0].children;
        match children.binary_search_by(|(other, _)| other.cmp(&name)) {
            Ok(at) => children[at].1,
            Err(at) => {
                let point = PointIndex(self.points.len());
                let around = &self.points[parent.0].place;
                let place = Place {
                    mount: around.mount,
                    path: around.path.join(&name),
                };
                self.by_path[slot(place.mount)].insert(place.path.clone(), point);
                self.points.push(Point {
                    place,
                    parent,
                    children: Vec::new(),
                });
                self.points[parent.0].children.insert(at, (name, point));
                point
            }
        }
    }

    /// Returns the mounts that are not removed, in the order in which they came.
    pub(crate) fn live(&self) -> impl Iterator<Item = &MountSpec> {
        let live = self.mounts.iter().filter(|mount| mount.point.is_some());
        live.map(|mount| &mount.spec)
    }

    /// Returns the mounts below a place of the tree that are not removed.
    pub(crate) fn live_below(
        &self,
        at: &ObjectPath,
    ) -> impl Iterator<Item = (MountIndex, &MountSpec)> {
        let mounts = self.mounts.iter().enumerate();
        let live =
            mounts.filter(move |(_, mount)| mount.point.is_some() && mount.spec.at.is_below(at));
        live.map(|(index, mount)| (MountIndex(index), &mount.spec))
    }

    /// Returns whether a mount is not removed.
    pub(crate) fn is_live(&self, mount: MountIndex) -> bool {
        self.mounts[mount.0].point.is_some()
    }

    /// Returns the mount that hangs at a place of the tree.
    pub(crate) fn at(&self, at: &ObjectPath) -> Option<MountIndex> {
        let hangs = |mount: &Mount| mount.point.is_some() && mount.spec.at == *at;
        self.mounts.iter().position(hangs).map(MountIndex)
    }

    /// Returns a mount of a storage.
    pub(crate) fn with_id(&self, id: MountId) -> Option<MountIndex> {
        let is_of = |mount: &Mount| mount.point.is_some() && mount.spec.id == id;
        self.mounts.iter().position(is_of).map(MountIndex)
    }

    /// Returns the root of the tree.
    pub(crate) fn root(&self) -> &Place {
        &self.points[ROOT.0].place
    }

    /// Returns the point that a place is, if it is one.
    fn point(&self, place: &Place) -> Option<PointIndex> {
        // A node may be of a mount that this table does not know yet.
        let points = self.by_path.get(slot(place.mount))?;
        points.get(&place.path).copied()
    }

    /// Returns the mount point, or the directory that leads to one, called `name` in `dir`.
    pub(crate) fn enter(&self, dir: &Place, name: &[u8]) -> Option<&Place> {
        let children = self.children(dir);
        let at = children
            .binary_search_by(|(other, _)| other.as_bytes().cmp(name))
            .ok()?;
        Some(self.place(children[at].1))
    }

    /// Returns the points directly in `dir`, sorted by name.
    pub(crate) fn children(&self, dir: &Place) -> &[(Name, PointIndex)] {
        self.point(dir)
            .map_or(&[], |point| &self.points[point.0].children)
    }

    /// Returns where a point is.
    pub(crate) fn place(&self, point: PointIndex) -> &Place {
        &self.points[point.0].place
    }

    /// Returns whether `dir` exists only because it leads to a mount point, as far as is known
    /// here: the storage around it may or may not have it.
    pub(crate) fn is_implied(&self, dir: &Place) -> bool {
        self.point(dir).is_some() && (dir.mount.is_none() || !dir.path.is_root())
    }

    /// Returns the description of a mount, also of a removed one.
    pub(crate) fn spec(&self, mount: MountIndex) -> &MountSpec {
        &self.mounts[mount.0].spec
    }

    /// Returns the description of a mount that has to be there still.
    pub(crate) fn live_spec(&self, mount: MountIndex, kind: ErrorKind) -> Result<&MountSpec> {
        let spec = self.spec(mount);
        match self.is_live(mount) {
            true => Ok(spec),
            false => Err(Error::new(
                kind,
                format!("the mount of '{}' at '/{}' was removed", spec.uri, spec.at),
            )),
        }
    }

    /// Returns the state from which the inode numbers in `dir` are hashed.
    pub(crate) fn hasher(&self, dir: &Place) -> InoHasher {
        let start = match dir.mount {
            Some(mount) => self.mounts[mount.0].hasher,
            None => InoHasher::of_mount_table(),
        };
        start.path(&dir.path)
    }

    /// Returns the inode number of a directory.
    pub(crate) fn directory_ino(&self, dir: &Place) -> Ino {
        if self.point(dir) == Some(ROOT) {
            return Ino::ROOT;
        }
        self.hasher(dir)
            .finish(NodeKind::Directory, &VersionTag::default())
    }

    /// Returns the inode number of the directory above `dir`, the root's own for the root.
    pub(crate) fn parent_ino(&self, dir: &Place) -> Ino {
        if let Some(point) = self.point(dir) {
            return self.directory_ino(self.place(self.points[point.0].parent));
        }
        match (dir.mount, dir.path.split()) {
            (Some(mount), Some((path, _))) if path.is_root() => self.mounts[mount.0]
                .point
                .map_or(Ino::ROOT, |point| self.directory_ino(self.place(point))),
            (mount, Some((path, _))) => self.directory_ino(&Place { mount, path }),
            (_, None) => Ino::ROOT,
        }
    }
}

/// Returns where in [`MountTable::by_path`] the points of a mount are.
fn slot(mount: Option<MountIndex>) -> usize {
    mount.map_or(0, |mount| mount.0 + 1)
}

/// Returns the names on the way to a mount point.
pub(crate) fn components(at: &ObjectPath) -> Result<Vec<Name>> {
    let parts = at.as_bytes().split(|&b| b == b'/');
    let named = |part: &[u8]| {
        Name::new(part).map_err(|fault| {
            Error::new(ErrorKind::Invalid, format!("mount point '/{at}'")).with_source(fault)
        })
    };
    parts.filter(|part| !part.is_empty()).map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ObjectPath {
        ObjectPath::parse(text.as_bytes()).unwrap()
    }

    fn spec(at: &str, id: u64) -> MountSpec {
        MountSpec {
            at: path(at),
            id: MountId(id),
            uri: format!("mem://{id}"),
            freshness: Freshness::Immutable,
            attributes: AttributeDefaults::default(),
            writes: WriteModes::default(),
        }
    }

    fn walk<'a>(table: &'a MountTable, names: &[&str]) -> Option<&'a Place> {
        names.iter().try_fold(table.root(), |place, name| {
            table.enter(place, name.as_bytes())
        })
    }

    fn mounted(table: &MountTable, names: &[&str]) -> Option<u64> {
        let mount = walk(table, names)?.mount?;
        Some(table.spec(mount).id.0)
    }

    #[test]
    fn the_innermost_mount_wins_whatever_the_order() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let all = [("", 1), ("a/b", 2), ("a/b/c/d", 3)];
            let table = MountTable::new(order.map(|i| spec(all[i].0, all[i].1)).into()).unwrap();
            assert_eq!(mounted(&table, &[]), Some(1));
            assert_eq!(mounted(&table, &["a"]), Some(1));
            assert_eq!(walk(&table, &["a"]).unwrap().path, path("a"));
            assert_eq!(mounted(&table, &["a", "b"]), Some(2));
            assert_eq!(walk(&table, &["a", "b", "c"]).unwrap().path, path("c"));
            assert_eq!(mounted(&table, &["a", "b", "c", "d"]), Some(3));
            assert_eq!(walk(&table, &["a", "x"]), None);
        }
    }

    #[test]
    fn directories_above_all_mounts_have_none() {
        let table = MountTable::new(vec![spec("x/y", 1), spec("x/z", 2)]).unwrap();
        assert_eq!(mounted(&table, &["x"]), None);
        let x = walk(&table, &["x"]).unwrap();
        assert!(table.is_implied(x) && table.is_implied(table.root()));
        let names: Vec<_> = table
            .children(x)
            .iter()
            .map(|(name, _)| name.to_string())
            .collect();
        assert_eq!(names, ["y", "z"]);
        let y = table.enter(x, b"y").unwrap();
        assert!(!table.is_implied(y));
        assert_eq!(table.parent_ino(y), table.directory_ino(x));
        assert_eq!(table.parent_ino(x), Ino::ROOT);
    }

    #[test]
    fn the_directory_above_is_found_across_mount_points() {
        let table = MountTable::new(vec![spec("", 1), spec("a/b", 2)]).unwrap();
        let deep = |mount, text| Place {
            mount: Some(MountIndex(mount)),
            path: path(text),
        };
        assert_eq!(table.parent_ino(&deep(0, "d")), Ino::ROOT);
        assert_eq!(
            table.parent_ino(&deep(1, "d")),
            table.directory_ino(walk(&table, &["a", "b"]).unwrap())
        );
        assert_eq!(
            table.parent_ino(&deep(0, "a/x")),
            table.directory_ino(walk(&table, &["a"]).unwrap())
        );
        assert_eq!(table.parent_ino(table.root()), Ino::ROOT);
    }

    #[test]
    fn two_mounts_at_one_place_are_refused_and_none_at_all_is_an_empty_tree() {
        let error = MountTable::new(vec![spec("a", 1), spec("b", 3), spec("a", 2)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(error.to_string().contains("'/a'"), "{error}");
        let empty = MountTable::new(Vec::new()).unwrap();
        assert!(empty.children(empty.root()).is_empty());
        assert_eq!(empty.directory_ino(empty.root()), Ino::ROOT);
    }

    #[test]
    fn a_removed_mount_keeps_its_index_and_shows_what_it_hid() {
        let table = MountTable::new(vec![spec("", 1), spec("a/b", 2), spec("c", 3)]).unwrap();
        let index = table.at(&path("a/b")).unwrap();
        let less = table.without(index).unwrap();
        assert!(!less.is_live(index) && less.spec(index).id == MountId(2));
        assert_eq!(walk(&less, &["a"]), None, "it led to that mount only");
        assert_eq!(mounted(&less, &["c"]), Some(3));
        let again = less.with(spec("a/b", 2)).unwrap();
        assert_ne!(again.at(&path("a/b")), Some(index));
        assert_eq!(mounted(&again, &["a", "b"]), Some(2));
        let place = table.place(table.point(walk(&table, &["a", "b"]).unwrap()).unwrap());
        assert!(again.children(place).is_empty() && !again.is_implied(place));
    }

    #[test]
    fn a_mount_with_mounts_below_it_stays_and_says_which() {
        let specs = vec![spec("", 0), spec("a", 1), spec("a/b/c", 2), spec("ab", 3)];
        let table = MountTable::new(specs).unwrap();
        let outer = table.at(&path("a")).unwrap();
        let error = table.without(outer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotEmpty);
        let text = error.to_string();
        assert!(
            text.contains("'/a/b/c'") && !text.contains("'/ab'"),
            "{text}"
        );
        let root = table.at(&path("")).unwrap();
        let less = table.without(root).unwrap();
        assert_eq!(mounted(&less, &["a"]), Some(1));
        assert_eq!(less.root().mount, None);
    }
}
