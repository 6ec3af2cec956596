// SPDX-License-Identifier: Apache-2.0
//! The storage of a mount: opened when it can be, known by who asks, and watched.
//!
//! Three things that no driver knows. A storage that cannot be opened yet (a directory that is away,
//! a secret that is missing) is still a mount: it answers with the reason, and is tried again. What
//! one mount learnt with its credentials must not answer another that has other credentials: they
//! are part of the identity under which names and bytes are kept. And the last failure is kept for
//! `status` until the storage answers again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use types::{
    ByteRange, Clock, Deadline, Error, ErrorKind, ObjectMeta, ObjectPath, Result, VersionTag,
    Xattrs,
};
use ufs::{ByteStream, Counters, ListStream, Space, TreeStream, UnderStorage, UnderWriter};

use crate::credentials::Environment;
use crate::owners;
use crate::plan::MountPlan;

/// A storage that could not be opened is left alone for so long.
const OPEN_PAUSE: Duration = Duration::from_secs(1);

/// Requests under way at a time, for each storage: all for data that there may be, and some for names,
/// which must not wait behind data.
const CONNECTIONS_MAX: usize = worker::settings::WIDTH.most + 64;

/// The storage of a mount.
#[derive(Clone)]
pub(crate) struct MountedStorage(Arc<Inner>);

struct Inner {
    mount: MountPlan,
    uri: String,
    identity: String,
    clock: Arc<dyn Clock>,
    request_timeout: Duration,
    opened: OnceCell<Arc<dyn UnderStorage>>,
    /// Counts of a storage that is not open: none.
    nothing: Counters,
    state: Mutex<State>,
}

/// Its lock is a leaf, held for a few assignments.
#[derive(Default)]
struct State {
    /// Why the storage last failed, unless it has answered since.
    fault: Option<String>,
    /// Why it could not be opened, and until when nobody tries; for ever without an end.
    closed: Option<(Error, Option<Deadline>)>,
}

/// Reads the URI, the options and the secrets of a mount; sends nothing.
pub(crate) async fn open(
    mount: &MountPlan,
    clock: &Arc<dyn Clock>,
    request_timeout: Duration,
) -> Result<Arc<dyn UnderStorage>> {
    let secrets = mount.credentials.resolve(&Environment);
    let secrets = secrets.map_err(|why| {
        Error::new(
            ErrorKind::Invalid,
            format!("credentials of the mount: {why}"),
        )
    })?;
    let mut options = mount.options.clone();
    let idmap = owners::for_driver(&mount.uri, &mount.idmap);
    options.extend(idmap.map(|idmap| (owners::OPTION.to_owned(), idmap)));
    options.extend(secrets);
    let settings = ufs::Settings {
        uri: mount.uri.clone(),
        options,
        request_timeout,
        max_connections: CONNECTIONS_MAX,
    };
    // What references stand for may be replaced while the storage is in use.
    let references = mount.credentials.clone();
    let again: ufs::Secrets = Arc::new(move || references.resolve(&Environment));
    let again = (!mount.credentials.is_empty()).then_some(again);
    // A directory on a file server that is away may hang.
    let opened = ufs::open_with(&settings, again, Arc::clone(clock));
    match tokio::time::timeout(request_timeout, opened).await {
        Ok(opened) => opened,
        Err(_) => Err(Error::new(
            ErrorKind::Timeout,
            format!("open '{}': no answer in {request_timeout:?}", mount.uri),
        )),
    }
}

impl MountedStorage {
    /// Opens the storage of a mount.
    ///
    /// # Errors
    /// What keeps it from being opened.
    pub(crate) async fn open(
        mount: &MountPlan,
        clock: &Arc<dyn Clock>,
        request_timeout: Duration,
    ) -> Result<MountedStorage> {
        let opened = open(mount, clock, request_timeout).await?;
        let identity = identity(opened.identity(), mount);
        let storage = MountedStorage::closed(mount, identity, clock, request_timeout);
        let inner = Inner {
            uri: opened.uri().to_owned(),
            opened: OnceCell::new_with(Some(opened)),
            ..storage
        };
        Ok(MountedStorage(Arc::new(inner)))
    }

    /// Opens the storage of a mount if it can be; otherwise it is tried again when it is used.
    /// `identity` is what it had when it was last open.
    pub(crate) async fn open_some_time(
        mount: &MountPlan,
        clock: &Arc<dyn Clock>,
        request_timeout: Duration,
        identity_then: Option<&str>,
    ) -> MountedStorage {
        match MountedStorage::open(mount, clock, request_timeout).await {
            Ok(storage) => storage,
            Err(error) => {
                // What the driver would say is not known: all options may be part of it.
                let unknown = || {
                    let place = format!("{} with {:?}", mount.uri, mount.options);
                    identity(&place, mount)
                };
                let identity = identity_then.map_or_else(unknown, str::to_owned);
                let inner = MountedStorage::closed(mount, identity, clock, request_timeout);
                inner.state.lock().fault = Some(error.to_string());
                MountedStorage(Arc::new(inner))
            }
        }
    }

    /// Makes the storage of a mount that must not be opened: it answers with the reason, and never
    /// with what is in it. `identity` is what it had when it was last open.
    pub(crate) fn refused(
        mount: &MountPlan,
        clock: &Arc<dyn Clock>,
        request_timeout: Duration,
        identity: &str,
        why: &str,
    ) -> MountedStorage {
        let inner = MountedStorage::closed(mount, identity.to_owned(), clock, request_timeout);
        let message = format!("the mount at '/{}' is not restored: {why}", mount.at);
        *inner.state.lock() = State {
            fault: Some(message.clone()),
            closed: Some((Error::new(ErrorKind::Unavailable, message), None)),
        };
        MountedStorage(Arc::new(inner))
    }

    fn closed(
        mount: &MountPlan,
        identity: String,
        clock: &Arc<dyn Clock>,
        request_timeout: Duration,
    ) -> Inner {
        Inner {
            mount: mount.clone(),
            uri: mount.uri.clone(),
            identity,
            clock: Arc::clone(clock),
            request_timeout,
            opened: OnceCell::new(),
            nothing: Counters::default(),
            state: Mutex::default(),
        }
    }

    /// Returns whether the storage takes no writes; not known before it is open.
    pub(crate) fn is_read_only(&self) -> bool {
        let opened = self.0.opened.get();
        opened.is_some_and(|storage| storage.writer().is_none())
    }

    /// Returns why the storage last failed, unless it has answered since.
    pub(crate) fn fault(&self) -> Option<String> {
        self.0.state.lock().fault.clone()
    }
}

impl Inner {
    async fn storage(&self, deadline: Deadline) -> Result<&Arc<dyn UnderStorage>> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let opened = tokio::time::timeout_at(deadline.instant().into(), self.open_now()).await;
        let opened = opened.unwrap_or_else(|_| {
            let message = format!("the storage of '/{}' was not opened in time", self.mount.at);
            Err(Error::new(ErrorKind::Timeout, message))
        });
        opened.inspect_err(|error| self.note(Some(error)))
    }

    async fn open_now(&self) -> Result<&Arc<dyn UnderStorage>> {
        let opened = self.opened.get_or_try_init(|| async {
            if let Some((error, until)) = &self.state.lock().closed
                && until.is_none_or(|until| until.instant() > self.clock.now())
            {
                return Err(error.clone());
            }
            let opened = open(&self.mount, &self.clock, self.request_timeout).await;
            opened.map_err(|error| {
                // Whatever it is, the name that was asked for may exist.
                let message = format!("the storage of '/{}' cannot be opened", self.mount.at);
                let error = Error::new(ErrorKind::Unavailable, message).with_source(error);
                let until = self.clock.deadline(OPEN_PAUSE);
                self.state.lock().closed = Some((error.clone(), Some(until)));
                error
            })
        });
        opened.await
    }

    fn answered<T>(&self, answer: Result<T>) -> Result<T> {
        self.note(answer.as_ref().err());
        answer
    }

    fn note(&self, error: Option<&Error>) {
        use ErrorKind::{PermissionDenied, Timeout, Unavailable};
        let is_fault =
            |error: &&Error| matches!(error.kind(), Unavailable | Timeout | PermissionDenied);
        let fault = error.filter(is_fault).map(ToString::to_string);
        let mut state = self.state.lock();
        if state.fault != fault {
            state.fault = fault;
        }
    }
}

/// Returns what names and bytes are kept under: the place, and who looked at it in which way.
fn identity(place: &str, mount: &MountPlan) -> String {
    let mut identity = place.to_owned();
    for option in ["profile", "anonymous"] {
        if let Some(value) = mount.options.get(option) {
            identity.push_str(&format!(" {option}={value}"));
        }
    }
    for (option, reference) in mount.credentials.references() {
        identity.push_str(&format!(" {option}={reference}"));
    }
    if let Some(idmap) = owners::for_driver(&mount.uri, &mount.idmap) {
        identity.push_str(&format!(" idmap={idmap}"));
    }
    identity
}

impl fmt::Debug for MountedStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MountedStorage")
            .field("identity", &self.0.identity)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl UnderStorage for MountedStorage {
    fn uri(&self) -> &str {
        &self.0.uri
    }

    fn identity(&self) -> &str {
        &self.0.identity
    }

    async fn stat(&self, path: &ObjectPath, deadline: Deadline) -> Result<ObjectMeta> {
        let storage = self.0.storage(deadline).await?;
        self.0.answered(storage.stat(path, deadline).await)
    }

    fn list(&self, dir: &ObjectPath) -> ListStream {
        let (inner, dir) = (Arc::clone(&self.0), dir.clone());
        let listing = async move {
            let deadline = inner.clock.deadline(inner.request_timeout);
            match inner.storage(deadline).await {
                Ok(storage) => {
                    let pages = storage.list(&dir);
                    let inner = Arc::clone(&inner);
                    pages.map(move |page| inner.answered(page)).boxed()
                }
                Err(error) => futures::stream::iter([Err(error)]).boxed(),
            }
        };
        futures::stream::once(listing).flatten().boxed()
    }

    async fn read(
        &self,
        path: &ObjectPath,
        tag: &VersionTag,
        range: ByteRange,
        deadline: Deadline,
    ) -> Result<ByteStream> {
        let storage = self.0.storage(deadline).await?;
        self.0
            .answered(storage.read(path, tag, range, deadline).await)
    }

    fn list_tree(&self, dir: &ObjectPath) -> Option<TreeStream> {
        self.0.opened.get()?.list_tree(dir)
    }

    async fn read_link(&self, path: &ObjectPath, deadline: Deadline) -> Result<Vec<u8>> {
        let storage = self.0.storage(deadline).await?;
        self.0.answered(storage.read_link(path, deadline).await)
    }

    async fn space(&self, deadline: Deadline) -> Result<Option<Space>> {
        let storage = self.0.storage(deadline).await?;
        self.0.answered(storage.space(deadline).await)
    }

    async fn xattrs(&self, path: &ObjectPath, deadline: Deadline) -> Result<Xattrs> {
        let storage = self.0.storage(deadline).await?;
        self.0.answered(storage.xattrs(path, deadline).await)
    }

    fn lists_all(&self) -> bool {
        let opened = self.0.opened.get();
        opened.is_none_or(|storage| storage.lists_all())
    }

    fn writer(&self) -> Option<&dyn UnderWriter> {
        self.0.opened.get()?.writer()
    }

    async fn check(&self, deadline: Deadline) -> Result<()> {
        let storage = self.0.storage(deadline).await?;
        self.0.answered(storage.check(deadline).await)
    }

    fn counters(&self) -> &Counters {
        let opened = self.0.opened.get();
        opened.map_or(&self.0.nothing, |storage| storage.counters())
    }
}

#[cfg(test)]
mod tests {
    use types::ManualClock;

    use super::*;
    use crate::credentials::Credentials;

    #[test]
    fn mounts_share_what_they_know_only_with_the_same_credentials() {
        let of = |words: &[&str], profile: Option<&str>| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            let options = profile.map(|name| ("profile".to_owned(), name.to_owned()));
            let mut mount = MountPlan::with_defaults("x".into(), "s3://b/".into());
            mount.options = options.into_iter().collect();
            mount.credentials = Credentials::parse(&words).unwrap();
            identity("s3://b/", &mount)
        };
        assert_eq!(of(&[], None), "s3://b/");
        assert_eq!(of(&["env:A"], None), of(&["env:A"], None));
        let all = [
            of(&[], None),
            of(&["env:A"], None),
            of(&["env:B"], None),
            of(&[], Some("A")),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(all[index + 1..].iter().all(|other| other != one), "{one}");
        }
    }

    #[tokio::test]
    async fn a_storage_that_is_away_answers_with_the_reason_until_it_comes() {
        let manual = Arc::new(ManualClock::default());
        let clock = Arc::clone(&manual) as Arc<dyn Clock>;
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("away");
        let uri = format!("file://{}", root.display());
        let mount = MountPlan::with_defaults("x".into(), uri);
        let timeout = Duration::from_secs(5);
        assert!(MountedStorage::open(&mount, &clock, timeout).await.is_err());
        let storage =
            MountedStorage::open_some_time(&mount, &clock, timeout, Some("as it was")).await;
        assert_eq!(storage.identity(), "as it was");
        assert!(storage.fault().unwrap().contains("away"));
        let root_of_it = ObjectPath::root();
        let page = storage.list(&root_of_it).next().await.unwrap();
        assert_eq!(
            page.unwrap_err().kind(),
            ErrorKind::Unavailable,
            "and not 'not found'"
        );
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("file"), b"x").unwrap();
        let file = ObjectPath::parse(b"file").unwrap();
        let deadline = clock.deadline(timeout);
        assert!(
            storage.stat(&file, deadline).await.is_err(),
            "not asked again at once"
        );
        manual.advance(OPEN_PAUSE);
        assert_eq!(storage.stat(&file, deadline).await.unwrap().tag.size, 1);
        assert_eq!(storage.fault(), None);
        assert_eq!(storage.identity(), "as it was");
    }
}
