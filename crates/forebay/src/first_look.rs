// SPDX-License-Identifier: Apache-2.0
//! A first look at a storage: is there anything where it is to be mounted?
//!
//! An object store knows no directories, so a prefix with a slip in it looks like an empty one, and
//! so does the name of an object. One listing tells; only when it is empty, one question more.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use types::{Clock, Deadline, Error, ErrorKind, NodeKind, ObjectPath, Result};
use ufs::UnderStorage;

use crate::plan::MountPlan;
use crate::storage;

/// Schemes whose places are the prefixes of names.
const OF_PREFIXES: [&str; 8] = ["s3", "ceph", "gs", "az", "abfs", "abfss", "wasb", "wasbs"];

/// Looks once. Returns what to tell the user when there is nothing; what cannot be found out is left
/// to whoever reads.
///
/// # Errors
/// `Invalid` when the URI names an object.
pub(crate) async fn first_look(
    storage: &dyn UnderStorage,
    mount: &MountPlan,
    clock: &Arc<dyn Clock>,
    request_timeout: Duration,
    deadline: Deadline,
) -> Result<Option<String>> {
    let looked = tokio::time::timeout_at(deadline.instant().into(), is_empty(storage)).await;
    if !looked.unwrap_or(false) {
        return Ok(None);
    }
    let uri = storage.uri();
    if let Some((parent, name)) = split(&mount.uri)
        && let Ok(name) = ObjectPath::parse(name.as_bytes())
    {
        let above = MountPlan {
            uri: parent.clone(),
            ..mount.clone()
        };
        if let Ok(above) = storage::open(&above, clock, request_timeout).await
            && let Ok(found) = above.stat(&name, deadline).await
            && found.kind != NodeKind::Directory
        {
            let uri = mount.uri.trim_end_matches('/');
            let message = format!("'{uri}' is an object and no directory: mount '{parent}'");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
    }
    Ok(Some(format!("nothing is below {uri} now")))
}

async fn is_empty(storage: &dyn UnderStorage) -> bool {
    let mut pages = storage.list(&ObjectPath::root());
    while let Some(page) = pages.next().await {
        match page {
            Ok(page) if page.entries.is_empty() && page.unshowable == 0 => {}
            _ => return false,
        }
    }
    true
}

/// Splits the URI of a prefix into what is above it, and its last name.
fn split(uri: &str) -> Option<(String, &str)> {
    let (scheme, place) = uri.split_once("://")?;
    let (above, name) = place.trim_end_matches('/').rsplit_once('/')?;
    OF_PREFIXES
        .contains(&scheme)
        .then(|| (format!("{scheme}://{above}/"), name))
}

#[cfg(test)]
mod tests {
    use types::SystemClock;

    use super::*;

    #[test]
    fn only_a_prefix_has_something_above_it() {
        let above = |uri| split(uri).map(|(above, name)| format!("{above} {name}"));
        assert_eq!(above("s3://b/x/y.tar").as_deref(), Some("s3://b/x/ y.tar"));
        assert_eq!(above("gs://b/x/").as_deref(), Some("gs://b/ x"));
        for uri in ["s3://b", "s3://b/", "/a/b", "file:///a/b", "hf://a/b/c"] {
            assert_eq!(above(uri), None, "{uri}");
        }
    }

    #[tokio::test]
    async fn an_empty_place_is_told_and_a_full_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let timeout = Duration::from_secs(5);
        let mount = MountPlan::with_defaults(String::new(), dir.path().display().to_string());
        let storage = storage::open(&mount, &clock, timeout).await.unwrap();
        let look = || first_look(&*storage, &mount, &clock, timeout, clock.deadline(timeout));
        let said = look().await.unwrap().unwrap();
        assert!(said.contains("nothing is below"), "{said}");
        std::fs::write(dir.path().join("file"), b"x").unwrap();
        assert_eq!(look().await.unwrap(), None);
    }
}
