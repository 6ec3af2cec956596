// SPDX-License-Identifier: Apache-2.0
//! Lists a tree of many small directories in one listing, where the storage has such a thing.
//!
//! A thousand directories of a few files each are a thousand requests to list, and one or a few pages
//! of a listing of all keys below them. [`Builder`] makes listings of directories out of such pages:
//! what is below a directory comes in a row, so a directory is whole when something else begins. It is
//! then known as if it had been listed by itself when the page was asked for in which it began, unless
//! something became known of it meanwhile ([`crate::knowledge::Knowledge::keep_listing_of_tree`]).
//!
//! A directory that turns out large is not worth it: then what is left is listed one by one.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use types::{Error, ErrorKind, Name, NodeKind, ObjectMeta, ObjectPath, Result};
use ufs::{ListEntry, TreePage};

use super::Tree;
use super::list::SMALL;
use crate::meta::Listing;
use crate::records::Moment;
use crate::worker::Worker;
use crate::write::writer;

/// Names of an open directory, nearly all of them directories, that are too much to hold.
const NAMES_MAX: usize = 200_000;

/// A directory and its names as a listing of a tree told them.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) dir: ObjectPath,
    pub(crate) listing: Listing,
    /// When the page was asked for in which it began.
    pub(crate) learnt: Moment,
}

/// Makes directories out of pages.
#[derive(Debug)]
struct Builder {
    root: ObjectPath,
    /// The directories that are not whole yet, each in the one before it.
    open: Vec<Open>,
    whole: Vec<Whole>,
}

#[derive(Debug)]
struct Open {
    dir: ObjectPath,
    names: BTreeMap<Name, ObjectMeta>,
    files: usize,
    learnt: Moment,
}

impl Open {
    fn new(dir: ObjectPath, learnt: Moment) -> Self {
        Open {
            dir,
            names: BTreeMap::new(),
            files: 0,
            learnt,
        }
    }
}

impl Builder {
    fn new(root: &ObjectPath, learnt: Moment) -> Self {
        Builder {
            root: root.clone(),
            open: vec![Open::new(root.clone(), learnt)],
            whole: Vec::new(),
        }
    }

    /// Takes in a page that was asked for at a moment.
    fn take(&mut self, page: TreePage, learnt: Moment) -> Result<()> {
        for (path, meta) in page.entries {
            if meta.kind == NodeKind::Directory {
                self.enter(&path, learnt)?;
                continue;
            }
            let Some((dir, name)) = path.split() else {
                continue;
            };
            self.enter(&dir, learnt)?;
            let Some(open) = self.open.last_mut() else {
                continue;
            };
            // Of an object and a directory of one name the directory is shown.
            open.names.entry(name).or_insert(meta);
            open.files += 1;
            if open.files > SMALL {
                return Err(too_many());
            }
        }
        Ok(())
    }

    /// Goes to a directory at or below the root: what is not above it is whole.
    fn enter(&mut self, dir: &ObjectPath, learnt: Moment) -> Result<()> {
        while self.open.len() > 1
            && let Some(open) = self.open.pop_if(|open| !is_at_or_below(dir, &open.dir))
        {
            self.whole.push(open.whole());
        }
        let (Some(above), true) = (self.open.last(), is_at_or_below(dir, &self.root)) else {
            return Err(unordered());
        };
        let skipped = above.dir.as_bytes().len();
        let rest = dir.as_bytes()[skipped..].split(|byte| *byte == b'/');
        for part in rest.filter(|part| !part.is_empty()) {
            let name = Name::new(part).map_err(|_| unordered())?;
            let Some(above) = self.open.last_mut() else {
                return Err(unordered());
            };
            let below = above.dir.join(&name);
            let directory = ObjectMeta::implied_directory();
            let before = above.names.insert(name, directory);
            if before.is_some_and(|before| before.kind == NodeKind::Directory) {
                return Err(unordered());
            }
            if above.names.len() > NAMES_MAX {
                return Err(too_many());
            }
            self.open.push(Open::new(below, learnt));
        }
        Ok(())
    }

    /// Takes what is whole so far; the rest too when the listing has ended.
    fn take_whole(&mut self, has_ended: bool) -> Vec<Whole> {
        let mut whole = std::mem::take(&mut self.whole);
        if has_ended {
            whole.extend(self.open.drain(..).rev().map(Open::whole));
        }
        whole
    }
}

impl Open {
    fn whole(self) -> Whole {
        let names = self.names.into_iter();
        Whole {
            dir: self.dir,
            listing: names.map(|(name, meta)| ListEntry { name, meta }).collect(),
            learnt: self.learnt,
        }
    }
}

fn is_at_or_below(path: &ObjectPath, dir: &ObjectPath) -> bool {
    dir.is_root() || path == dir || super::is_below(path, dir)
}

fn too_many() -> Error {
    Error::new(ErrorKind::Unsupported, "a directory of too many names")
}

fn unordered() -> Error {
    let message = "a listing of a tree in which a directory comes twice";
    Error::new(ErrorKind::Unsupported, message)
}

impl Worker {
    /// Lists all directories of a tree at once and takes note of them. Says whether nothing is left to
    /// be listed.
    pub(super) async fn list_flat(self: &Arc<Self>, tree: &Tree) -> bool {
        let Ok(mount) = self.mount(tree.0) else {
            return true;
        };
        let Some(mut pages) = mount.storage.list_tree(&tree.1) else {
            return false;
        };
        // Where attributes are kept beside the bytes.
        let is_silent = writer(&mount).is_ok_and(|writer| !writer.abilities().attributes);
        let under_way = self.knowledge.tree_begins(tree);
        let mut builder = Builder::new(&tree.1, self.moment());
        let mut listed = 0;
        loop {
            if !self.may_list(tree, listed).await {
                return true;
            }
            let (learnt, turn) = (self.moment(), self.veils.turn());
            let (page, has_ended) = match pages.next().await {
                Some(Ok(page)) => (page, false),
                None => (TreePage::default(), true),
                Some(Err(error)) => {
                    tracing::debug!(dir = %tree.1, %error, "a tree is not listed at once");
                    return false;
                }
            };
            self.counters.names_unshowable.add(page.unshowable);
            let taken = builder.take(page, learnt);
            let whole = builder.take_whole(has_ended && taken.is_ok());
            listed += whole.len() as u64;
            // A rename that began or turned since would make it a mixture of before and after.
            if self.veils.turn() != turn {
                return false;
            }
            let (worker, of_tree) = (Arc::clone(self), Arc::clone(&under_way));
            let kept = self.runtime.spawn_blocking(move || {
                for whole in whole {
                    worker
                        .knowledge
                        .keep_listing_of_tree(&of_tree, whole, is_silent);
                }
            });
            if kept.await.is_err() {
                return true;
            }
            if let Err(error) = taken {
                tracing::debug!(dir = %tree.1, %error, "the rest of a tree is listed one by one");
                return false;
            }
            if has_ended {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use types::MountId;

    use super::*;
    use crate::knowledge::Knowledge;

    fn path(text: &str) -> ObjectPath {
        ObjectPath::parse(text.as_bytes()).unwrap()
    }

    /// A page of these keys; one that ends with a slash is the marker of a directory.
    fn page(keys: &[&str]) -> TreePage {
        let entry = |key: &&str| match key.strip_suffix('/') {
            Some(dir) => (path(dir), ObjectMeta::implied_directory()),
            None => {
                let kind = NodeKind::File;
                let meta = ObjectMeta::implied_directory();
                (path(key), ObjectMeta { kind, ..meta })
            }
        };
        TreePage {
            entries: keys.iter().map(entry).collect(),
            unshowable: 0,
        }
    }

    fn shown(whole: &[Whole]) -> Vec<String> {
        let names = |whole: &Whole| {
            let mark = |entry: &ListEntry| match entry.meta.kind {
                NodeKind::Directory => format!("{}/", entry.name),
                _ => entry.name.to_string(),
            };
            let names: Vec<_> = whole.listing.iter().map(mark).collect();
            format!("{}@{}: {}", whole.dir, whole.learnt.0, names.join(" "))
        };
        whole.iter().map(names).collect()
    }

    #[test]
    fn a_directory_is_whole_when_something_else_begins() {
        let mut builder = Builder::new(&path("t"), Moment(1));
        let first = page(&["t/a/1", "t/a/2", "t/a/deep/er/3", "t/b", "t/b/x"]);
        builder.take(first, Moment(2)).unwrap();
        assert_eq!(
            shown(&builder.take_whole(false)),
            ["t/a/deep/er@2: 3", "t/a/deep@2: er/", "t/a@2: 1 2 deep/"]
        );
        let second = page(&["t/b/y", "t/c/", "t/d/", "t/d/z", "t/e"]);
        builder.take(second, Moment(3)).unwrap();
        assert_eq!(
            shown(&builder.take_whole(true)),
            ["t/b@2: x y", "t/c@3: ", "t/d@3: z", "t@1: a/ b/ c/ d/ e"]
        );
    }

    #[test]
    fn the_root_of_a_mount_is_a_tree_too() {
        let mut builder = Builder::new(&path(""), Moment(1));
        builder.take(page(&["a", "b/c"]), Moment(2)).unwrap();
        assert_eq!(shown(&builder.take_whole(true)), ["b@2: c", "@1: a b/"]);
    }

    #[test]
    fn an_object_and_a_directory_of_one_name_show_the_directory() {
        let mut builder = Builder::new(&path("t"), Moment(1));
        let keys = ["t/a", "t/a-b", "t/a/x", "t/b/y", "t/b"];
        builder.take(page(&keys), Moment(2)).unwrap();
        assert_eq!(
            shown(&builder.take_whole(true)),
            ["t/a@2: x", "t/b@2: y", "t@1: a/ a-b b/"]
        );
    }

    #[test]
    fn a_tree_tells_nothing_of_a_directory_of_which_something_newer_is_known() {
        let knowledge = Knowledge::new(None, 1000).unwrap();
        let place = |text: &str| (MountId(1), path(text));
        let tree = knowledge.tree_begins(&place("t"));
        let mut builder = Builder::new(&path("t"), Moment(3));
        let keys = [
            "t/asked/1",
            "t/forgot/1",
            "t/listed/1",
            "t/lists/1",
            "t/plain/1",
        ];
        builder.take(page(&keys), Moment(3)).unwrap();
        let found = ObjectMeta::implied_directory();
        knowledge.learn_entry(&place("t/asked/new"), Moment(4), Some(&found));
        knowledge.learn_entry(&place("elsewhere/new"), Moment(4), Some(&found));
        knowledge.forget(MountId(1), &path("t/forgot"), &Name::new(b"1").unwrap());
        knowledge.keep_listing(&place("t/listed"), Moment(5), Listing::from([]));
        let lists = knowledge.list_begins(&place("t/lists"));
        assert!(lists.is_some());
        for whole in builder.take_whole(true) {
            knowledge.keep_listing_of_tree(&tree, whole, false);
        }
        let names = |dir: &str| {
            let known = knowledge.small_listing(MountId(1), &path(dir));
            known.map(|(learnt, listing)| (learnt.0, listing.len()))
        };
        assert_eq!(names("t/plain"), Some((3, 1)));
        assert_eq!(names("t/listed"), Some((5, 0)));
        assert_eq!(
            (names("t/asked"), names("t/forgot"), names("t/lists")),
            (None, None, None)
        );
        drop(tree);
        let after = knowledge.tree_begins(&place("t"));
        let mut builder = Builder::new(&path("t"), Moment(6));
        builder.take(page(&keys), Moment(6)).unwrap();
        for whole in builder.take_whole(true) {
            knowledge.keep_listing_of_tree(&after, whole, false);
        }
        assert_eq!(
            (names("t/asked"), names("t/listed")),
            (Some((6, 1)), Some((6, 1)))
        );
    }

    #[test]
    fn a_listing_in_no_order_and_a_large_directory_are_given_up() {
        let mut builder = Builder::new(&path("t"), Moment(1));
        assert!(
            builder
                .take(page(&["t/a/1", "t/b/1", "t/a/2"]), Moment(2))
                .is_err()
        );
        let mut builder = Builder::new(&path("t"), Moment(1));
        assert!(builder.take(page(&["u/a"]), Moment(2)).is_err());
        let mut builder = Builder::new(&path("t"), Moment(1));
        let names: Vec<_> = (0..=SMALL).map(|index| format!("t/a/{index}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        assert!(builder.take(page(&names), Moment(2)).is_err());
    }
}
