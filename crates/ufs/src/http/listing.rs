// SPDX-License-Identifier: Apache-2.0
//! Listings: one level of a directory, or all that is below it, page by page.
//!
//! A page holds objects and common prefixes, both sorted. A name may be both: object `a` comes
//! first, then perhaps a page later prefix `a/`, with names such as `a-b` between. The directory
//! wins, so an object whose name starts all that follows is held back until its prefix can no
//! longer come. What is held is a chain of names each starting the next: at most a kilobyte deep.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use types::{Error, ErrorKind, Name, NodeKind, ObjectMeta, ObjectPath, Result, VersionTag};

use super::Outcome;
use super::fault::Fault;
use super::links::Link;
use super::objects::{Found, ObjectStore};
use super::session::before;
use crate::retry::Retry;
use crate::{ListEntry, ListPage, ListStream, TreePage, TreeStream};

/// Looks at objects of a page that may be links, at once.
const LOOKS_AT_ONCE: usize = 16;

/// One page of a listing. Keys are decoded; `None` stands for one that is not UTF-8.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) objects: Vec<Object>,
    pub(crate) prefixes: Vec<Option<String>>,
    /// What to ask the next page with.
    pub(crate) next: Option<String>,
}

/// An object in a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) key: Option<String>,
    pub(crate) size: u64,
    pub(crate) etag: Option<String>,
    pub(crate) mtime_ns: i64,
    pub(crate) link: Link,
}

/// Lists the keys that start with a prefix.
pub(super) fn stream<S: ObjectStore>(
    store: Arc<S>,
    what: String,
    prefix: Result<String>,
) -> ListStream {
    let start = prefix.map(|prefix| Listing::new(store, what, prefix, false));
    Box::pin(stream::unfold(Some(start), |listing| async move {
        let mut listing = match listing? {
            Ok(listing) => listing,
            Err(error) => return Some((Err(error), None)),
        };
        match listing.page().await {
            Ok((page, true)) => Some((Ok(page), Some(Ok(listing)))),
            Ok((page, false)) => Some((Ok(page), None)),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

/// Lists all keys that start with a prefix, of which `root` bytes are not part of paths.
pub(super) fn tree<S: ObjectStore>(
    store: Arc<S>,
    what: String,
    prefix: Result<String>,
    root: usize,
) -> TreeStream {
    let start = prefix.map(|prefix| Listing::new(store, what, prefix, true));
    Box::pin(stream::unfold(Some(start), move |listing| async move {
        let mut listing = match listing? {
            Ok(listing) => listing,
            Err(error) => return Some((Err(error), None)),
        };
        match listing.tree_page(root).await {
            Ok((page, true)) => Some((Ok(page), Some(Ok(listing)))),
            Ok((page, false)) => Some((Ok(page), None)),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

/// A listing under way.
struct Listing<S> {
    store: Arc<S>,
    what: String,
    prefix: String,
    /// Of all keys, and not up to the next slash.
    is_of_tree: bool,
    token: Option<String>,
    pages: u64,
    /// The token that came with the latest page whose number is a power of two.
    landmark: Option<String>,
    /// Objects of whose name a directory may still come.
    held: BTreeMap<Name, ObjectMeta>,
}

impl<S: ObjectStore> Listing<S> {
    fn new(store: Arc<S>, what: String, prefix: String, is_of_tree: bool) -> Self {
        Listing {
            store,
            what,
            prefix,
            is_of_tree,
            token: None,
            pages: 0,
            landmark: None,
            held: BTreeMap::new(),
        }
    }

    /// Returns the next page and whether there are more.
    async fn page(&mut self) -> Result<(ListPage, bool)> {
        let page = self.ask().await?;
        let more = self.token.is_some();
        let shown = arrange(page, &self.prefix, &mut self.held);
        Ok((shown.map_err(|fault| self.error(fault))?, more))
    }

    /// Returns the next page of a tree and whether there are more.
    async fn tree_page(&mut self, root: usize) -> Result<(TreePage, bool)> {
        let page = self.ask().await?;
        let more = self.token.is_some();
        let shown = lay_out(page, &self.prefix, root);
        Ok((shown.map_err(|fault| self.error(fault))?, more))
    }

    fn error(&self, fault: Fault) -> Error {
        fault.into_error(&self.what, &self.store.session().endpoint)
    }

    /// Asks for the next page.
    async fn ask(&mut self) -> Result<Page> {
        let session = Arc::clone(self.store.session());
        let mut retry = session.retry_of_page();
        let mut page = loop {
            let asked = async {
                let _connection = session.connection().await;
                let token = self.token.as_deref();
                match self.is_of_tree {
                    true => self.store.keys(&self.prefix, token).await,
                    false => self.store.page(&self.prefix, token, None).await,
                }
            };
            match before(retry.deadline(), retry.attempt(asked)).await {
                Ok(page) => break page,
                Err(fault) => session.pause(&self.what, &mut retry, fault).await?,
            }
        };
        if page.next.is_some() && (page.next == self.token || page.next == self.landmark) {
            let message = "the storage gave the same page of a listing again";
            return Err(Error::new(ErrorKind::Unavailable, message).context(&self.what));
        }
        self.token = page.next.clone();
        // However long a circle of pages is, a landmark lies in it at last (Brent's algorithm).
        self.pages += 1;
        if self.pages.is_power_of_two() {
            self.landmark = page.next.clone();
        }
        self.look_at_doubtful(&mut page.objects).await?;
        Ok(page)
    }

    /// Asks for what by its length may be a symbolic link.
    async fn look_at_doubtful(&self, objects: &mut [Object]) -> Result<()> {
        let doubtful = objects
            .iter_mut()
            .filter(|object| object.link == Link::Perhaps);
        let looks = doubtful.map(|object| async move {
            let Some(key) = &object.key else {
                return Ok(());
            };
            let session = self.store.session();
            let mut retry: Retry = session.retry_of_page();
            let head = || self.store.head(key);
            let found = session.until_done(&self.what, &mut retry, head).await?;
            object.link = match found {
                Some(Found::Kept(_, kept)) if kept.link.is_some() => Link::Yes,
                _ => Link::No,
            };
            Ok(())
        });
        let looks = stream::iter(looks.collect::<Vec<_>>());
        looks.buffer_unordered(LOOKS_AT_ONCE).try_collect().await
    }
}

/// Turns a page of keys into entries. `held` carries objects over from page to page; the last page
/// lets all of them go.
fn arrange(page: Page, prefix: &str, held: &mut BTreeMap<Name, ObjectMeta>) -> Outcome<ListPage> {
    let mut shown = ListPage::default();
    let mut names = std::mem::take(held);
    let mut last = None::<Vec<u8>>;
    for object in page.objects {
        let Some(key) = &object.key else {
            shown.unshowable += 1;
            continue;
        };
        let rest = below(key, prefix)?;
        if rest.is_empty() {
            // The marker of the directory itself.
            continue;
        }
        last = last.max(Some(rest.as_bytes().to_vec()));
        let Ok(name) = Name::new(rest.as_bytes()) else {
            shown.unshowable += 1;
            continue;
        };
        names.insert(name, listed(object));
    }
    for key in page.prefixes {
        let Some(key) = key else {
            shown.unshowable += 1;
            continue;
        };
        let rest = below(&key, prefix)?;
        last = last.max(Some(rest.as_bytes().to_vec()));
        let bare = rest.strip_suffix('/').unwrap_or(rest);
        let Ok(name) = Name::new(bare.as_bytes()) else {
            shown.unshowable += 1;
            continue;
        };
        if names
            .insert(name, ObjectMeta::implied_directory())
            .is_some_and(|old| is_object(&old))
        {
            shown.unshowable += 1;
        }
    }
    if let (Some(last), Some(_)) = (last, &page.next) {
        let open = |name: &Name, meta: &mut ObjectMeta| {
            is_object(meta) && last.starts_with(name.as_bytes())
        };
        *held = names.extract_if(.., open).collect();
    }
    shown.entries = names
        .into_iter()
        .map(|(name, meta)| ListEntry { name, meta })
        .collect();
    Ok(shown)
}

/// Turns a page of keys at any depth into paths. A key that a file system cannot show still makes
/// directories of the names before the one that it cannot.
fn lay_out(page: Page, prefix: &str, root: usize) -> Outcome<TreePage> {
    if !page.prefixes.is_empty() {
        let message = "a listing of a tree that names its directories, in no order";
        return Err(Fault::Unfit(message.into()));
    }
    let mut shown = TreePage::default();
    for object in page.objects {
        let Some(key) = &object.key else {
            shown.unshowable += 1;
            continue;
        };
        let rest = below(key, prefix)?;
        if rest.is_empty() {
            continue;
        }
        let path = &key[root..];
        let (path, is_marker) = match path.strip_suffix('/') {
            Some(dir) => (dir, true),
            None => (path, false),
        };
        match ObjectPath::parse(path.as_bytes()) {
            Ok(path) if is_marker => {
                shown.entries.push((path, ObjectMeta::implied_directory()));
            }
            Ok(path) => shown.entries.push((path, listed(object))),
            Err(_) => {
                shown.unshowable += 1;
                let above = showable(path).filter(|above| above.len() >= prefix.len() - root);
                let above = above.and_then(|above| ObjectPath::parse(above.as_bytes()).ok());
                let dir = above.map(|above| (above, ObjectMeta::implied_directory()));
                shown.entries.extend(dir);
            }
        }
    }
    Ok(shown)
}

/// Returns the part of a path before the first name that cannot be shown, if there is any.
fn showable(path: &str) -> Option<&str> {
    let mut end = 0;
    for name in path.split('/') {
        if Name::new(name.as_bytes()).is_err() {
            break;
        }
        end += name.len() + 1;
    }
    path.get(..end.checked_sub(1)?)
}

/// Returns what a listing told of an object.
fn listed(object: Object) -> ObjectMeta {
    ObjectMeta {
        kind: match object.link {
            Link::No | Link::Perhaps => NodeKind::File,
            Link::Yes => NodeKind::Symlink,
        },
        tag: VersionTag {
            etag: object.etag,
            mtime_ns: object.mtime_ns,
            size: object.size,
        },
        owner: None,
        extras: None,
    }
}

fn is_object(meta: &ObjectMeta) -> bool {
    meta.kind != NodeKind::Directory
}

/// Returns what follows the prefix; a storage that lists anything else is not believed.
fn below<'a>(key: &'a str, prefix: &str) -> Outcome<&'a str> {
    key.strip_prefix(prefix).ok_or_else(|| {
        Fault::WrongAnswer(format!(
            "a listing with a key outside of '{}'",
            prefix.escape_debug()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(objects: &[&str], prefixes: &[&str], next: bool) -> Page {
        let object = |key: &&str| Object {
            key: Some((*key).into()),
            size: 1,
            ..Object::default()
        };
        Page {
            objects: objects.iter().map(object).collect(),
            prefixes: prefixes
                .iter()
                .map(|prefix| Some((*prefix).into()))
                .collect(),
            next: next.then(|| "more".into()),
        }
    }

    fn shown(page: &ListPage) -> Vec<String> {
        let mark = |entry: &ListEntry| if is_object(&entry.meta) { "" } else { "/" };
        page.entries
            .iter()
            .map(|entry| format!("{}{}", entry.name, mark(entry)))
            .collect()
    }

    #[test]
    fn names_that_cannot_be_shown_are_counted_and_the_marker_is_not() {
        let mut held = BTreeMap::new();
        let long = format!("d/{}", "x".repeat(1025));
        let keys = ["d/", "d/a ", "d/.", "d/..", &long, "d/z\0"];
        let listed = arrange(page(&keys, &["d//", "d/sub/"], false), "d/", &mut held).unwrap();
        assert_eq!(shown(&listed), ["a ", "sub/"]);
        assert_eq!(listed.unshowable, 5);
    }

    #[test]
    fn a_directory_hides_the_object_of_its_name_even_pages_later() {
        let mut held = BTreeMap::new();
        let pages = [
            page(&["a", "a-", "a-b", "a-bc"], &[], true),
            page(&["a-bd", "a."], &[], true),
            page(&["b"], &["a/"], false),
        ];
        let [first, second, third] = pages.map(|page| arrange(page, "", &mut held).unwrap());
        assert_eq!(shown(&first), Vec::<String>::new());
        assert_eq!(shown(&second), ["a-", "a-b", "a-bc", "a-bd"]);
        assert_eq!(shown(&third), ["a/", "a.", "b"]);
        assert_eq!(
            (first.unshowable, second.unshowable, third.unshowable),
            (0, 0, 1)
        );
        assert!(held.is_empty());
    }

    #[test]
    fn keys_at_any_depth_become_paths_and_what_cannot_be_shown_leaves_its_directories() {
        let long = format!("p/d/e/{}/x", "x".repeat(1025));
        let keys = [
            "p/d/",
            "p/d/a",
            "p/d/b//c",
            "p/d/b/./d",
            "p/d/sub/",
            "p/d/sub/x/y",
            &long,
            "p/d//z",
            "p/d/w\0",
        ];
        let tree = lay_out(page(&keys, &[], false), "p/d/", 2).unwrap();
        let mark = |(path, meta): &(ObjectPath, ObjectMeta)| {
            format!("{path}{}", if is_object(meta) { "" } else { "/" })
        };
        let paths: Vec<_> = tree.entries.iter().map(mark).collect();
        let expected = ["d/a", "d/b/", "d/b/", "d/sub/", "d/sub/x/y", "d/e/"];
        assert_eq!(paths, expected);
        assert_eq!(tree.unshowable, 5);
        let outside = lay_out(page(&["p/e/x"], &[], false), "p/d/", 2);
        assert!(matches!(outside, Err(Fault::WrongAnswer(_))));
    }

    #[test]
    fn a_key_outside_of_the_directory_is_not_believed() {
        let listed = arrange(page(&["e/x"], &[], false), "d/", &mut BTreeMap::new());
        assert!(matches!(listed, Err(Fault::WrongAnswer(_))));
    }
}
