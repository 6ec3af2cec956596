// SPDX-License-Identifier: Apache-2.0
//! The driver of WebHDFS and HttpFS: HDFS over HTTP, for clusters whose RPC ports are closed.
//!
//! A version is the file's number, its time and its length, so that a file renamed over another of
//! the same length and time is told from it, which the RPC driver cannot. Bytes are asked piece by
//! piece: a piece comes from the data node that the name node points to, and is handed out when the
//! name node says after it that the path is still the same version. As with RPC, a file that changed
//! just now is looked at again before its version is trusted.

mod answer;
mod gateway;
mod list;
mod place;
mod token;
mod write;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream;
use http::header::LOCATION;
use http::{Method, Request};
use types::{
    ByteRange, Clock, Deadline, Error, ErrorKind, NodeKind, ObjectMeta, ObjectPath, Result,
    VersionTag,
};

use self::answer::Status;
use self::place::Place;
use self::write::Renaming;
use crate::counters::count;
use crate::hdfs::{GRAIN, HadoopLocation, LOOKS, Latest, Owners};
use crate::http::{
    Ask, Clients, Fault, Leeway, Outcome, Session, Skew, Transport, percent_encode_path,
};
use crate::retry::Retry;
use crate::temporary::hide;
use crate::{ByteStream, Counters, ListStream, Secrets, Settings, UnderStorage, UnderWriter};

/// What one request for bytes asks for. Each takes three round trips.
const PIECE: u64 = 4 << 20;
/// What the paths of all URLs start with.
const ROOT: &str = "/webhdfs/v1";
const STATUS_MAX: usize = 64 << 10;

/// Opens a directory of an HDFS by way of its web service. Sends nothing.
pub(crate) fn open(
    location: HadoopLocation,
    settings: &Settings,
    secrets: Option<Secrets>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn UnderStorage>> {
    let what = format!("open storage {}", location.uri());
    let web = Web::new(location, settings, secrets, clock).map_err(|error| error.context(what))?;
    Ok(Arc::new(WebHdfs(Arc::new(web))))
}

/// A directory of an HDFS.
struct WebHdfs(Arc<Web>);

struct Web {
    uri: String,
    identity: String,
    place: Place,
    session: Session,
    owners: Owners,
    /// How the server renames, once that is known.
    renaming: OnceLock<Renaming>,
    /// Whether a mount writes, so that what a dead writer left is removed.
    writes: AtomicBool,
    latest: Latest,
}

impl Web {
    fn new(
        location: HadoopLocation,
        settings: &Settings,
        secrets: Option<Secrets>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let place = Place::new(location, settings, secrets)?;
        let bundle = settings.text("ca_bundle").map(PathBuf::from);
        let connections = settings.max_connections.max(1);
        let clients = Clients::new(bundle.as_deref(), &place.endpoints[0], connections)?;
        let transport = Transport {
            client: clients.storage,
            authorize: None,
            secrets: Arc::clone(place.hidden()),
            refusal: Box::new(|status, _, body| answer::read_refusal(status, body)),
            counters: Arc::default(),
            patience: settings.request_timeout,
            skew: Skew::new(Arc::clone(&clock)),
        };
        let endpoints = place.endpoints.join(", ");
        Ok(Web {
            uri: place.location.uri(),
            identity: place.identity(),
            place,
            owners: Owners::new(settings, Arc::clone(&clock))?,
            renaming: OnceLock::new(),
            writes: AtomicBool::new(false),
            latest: Latest::default(),
            session: Session::new(endpoints, transport, settings, clock),
        })
    }

    /// Words an operation for messages: "read webhdfs://host:port/dir/file".
    fn name(&self, operation: &str, path: &ObjectPath) -> String {
        format!("{operation} {}{path}", self.uri)
    }

    /// Returns the full path as it stands in a URL.
    fn encoded(&self, path: &ObjectPath) -> Result<String> {
        Ok(percent_encode_path(&self.place.location.full(path)?))
    }

    /// Asks a name node, again if there is another token than the one that was refused.
    async fn ask(
        &self,
        ask: Ask,
        method: Method,
        path: &str,
        operation: &str,
    ) -> Outcome<reqwest::Response> {
        let round = self.place.round();
        let answer = self.ask_once(ask, method.clone(), path, operation).await;
        match &answer {
            Err(Fault::Refused(refusal)) if refusal.is_denial() && self.place.renew(round) => {
                count(&self.session.counters().retries);
                self.ask_once(ask, method, path, operation).await
            }
            _ => answer,
        }
    }

    /// Asks a name node; turns to the next one when this one cannot help.
    async fn ask_once(
        &self,
        ask: Ask,
        method: Method,
        path: &str,
        operation: &str,
    ) -> Outcome<reqwest::Response> {
        let (url, index) = self.place.url(path, operation);
        let leeway = Leeway {
            // Those that move bytes are answered by a data node.
            redirect: ["OPEN", "CREATE", "APPEND"].contains(&name_of(operation)),
            ..Leeway::default()
        };
        let transport = &self.session.transport;
        let answer = match method {
            Method::GET => transport.send_with(ask, get(&url)?, leeway).await,
            method => {
                let request = Request::builder().method(method).uri(&url);
                // Without a length some servers wait for bytes.
                let request = request.body(Bytes::new());
                let request = request.map_err(|error| Fault::Unfit(error.to_string()))?;
                transport.send_with(ask, request, leeway).await
            }
        };
        answer.inspect_err(|fault| match fault {
            Fault::Unreachable(_) | Fault::Slow(_) => self.place.turn_from(index),
            Fault::Refused(refusal) if refusal.code == "StandbyException" => {
                self.place.turn_from(index);
            }
            _ => {}
        })
    }

    async fn status(&self, ask: Ask, path: &str) -> Outcome<Status> {
        let answer = self.ask(ask, Method::GET, path, "GETFILESTATUS").await?;
        answer::read_status(&self.session.transport.body(answer, STATUS_MAX).await?)
    }

    /// Returns whether a change after this status was told could still share its time.
    fn is_young(&self, status: &Status) -> bool {
        self.latest.learn(status.modification_time);
        let now = self.session.clock.wall();
        let may_come_again = || self.latest.may_come_again(status.modification_time, now);
        status.kind() == Some(NodeKind::File) && may_come_again()
    }

    /// Looks at a young file again, a grain after its status was told, until it stays the same.
    /// Returns its version, which no read finds if it never does; `None` when it went away.
    async fn settle(
        &self,
        path: &str,
        mut status: Status,
        deadline: Deadline,
    ) -> Result<Option<(VersionTag, Status)>> {
        for _ in 0..LOOKS {
            tokio::time::sleep(GRAIN).await;
            let mut retry = Retry::new(deadline);
            let look = || self.status(Ask::Other, path);
            let again = match self
                .session
                .until_done("look again", &mut retry, look)
                .await
            {
                Ok(again) => again,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            let settled = again.tag() == status.tag();
            // An answer about one path leaves the name out.
            status = again.named_as(status);
            if settled {
                return Ok(Some((status.tag(), status)));
            }
        }
        let tag = VersionTag {
            etag: Some("young".into()),
            ..status.tag()
        };
        Ok(Some((tag, status)))
    }

    /// Reads one piece of a version, all of it, and then checks that it still is that version.
    async fn piece(&self, path: &str, tag: &VersionTag, range: ByteRange) -> Outcome<Bytes> {
        let bytes = self.bytes(path, range).await;
        // Also after a failure: a file that changed is the reason for many.
        match self.status(Ask::Other, path).await {
            Ok(status) if status.kind() == Some(NodeKind::File) && status.tag() == *tag => bytes,
            Ok(_) => Err(Fault::Stale("the file changed".into())),
            Err(Fault::Refused(refusal)) if gone(refusal.kind) => {
                Err(Fault::Stale("the file is gone".into()))
            }
            Err(fault) => Err(bytes.err().unwrap_or(fault)),
        }
    }

    async fn bytes(&self, path: &str, range: ByteRange) -> Outcome<Bytes> {
        let operation = format!("OPEN&offset={}&length={}", range.offset, range.len);
        let transport = &self.session.transport;
        let mut answer = self.ask(Ask::Get, Method::GET, path, &operation).await?;
        if answer.status().is_redirection() {
            let url = data_node(&answer, path)?;
            // The name node put into it what the data node must know of who asks.
            let sent = transport.send_unsigned(Ask::Other, get(url.as_str())?, Leeway::default());
            answer = sent.await.map_err(|fault| match fault {
                Fault::Unreachable(why) => {
                    let host = url.host_str().unwrap_or_default();
                    Fault::Unreachable(format!("data node {host}: {why}"))
                }
                // The name node decides what is there, and is asked after this.
                fault if fault.absent() => Fault::Broken("a data node does not find it".into()),
                fault => fault,
            })?;
        }
        let wanted = usize::try_from(range.len).unwrap_or(usize::MAX);
        let body = transport.body(answer, wanted).await?;
        match body.len() == wanted {
            true => Ok(body.into()),
            false => Err(Fault::Broken(format!(
                "{} bytes are missing",
                wanted - body.len()
            ))),
        }
    }
}

#[async_trait]
impl UnderStorage for WebHdfs {
    fn uri(&self) -> &str {
        &self.0.uri
    }

    fn identity(&self) -> &str {
        &self.0.identity
    }

    async fn stat(&self, path: &ObjectPath, deadline: Deadline) -> Result<ObjectMeta> {
        let web = &self.0;
        let (what, mut retry) = (web.name("look at", path), Retry::new(deadline));
        let full = web.encoded(path)?;
        hide(path).map_err(|error| error.context(&what))?;
        let look = || web.status(Ask::Head, &full);
        let status = web.session.until_done(&what, &mut retry, look).await?;
        let absent = || Error::new(ErrorKind::NotFound, "no such file or directory").context(&what);
        let (tag, status) = match web.is_young(&status) {
            false => (status.tag(), status),
            true => {
                let settled = web.settle(&full, status, deadline).await;
                settled
                    .map_err(|error| error.context(&what))?
                    .ok_or_else(absent)?
            }
        };
        let named = status.named();
        web.owners.learn([&named].into_iter()).await?;
        status
            .meta(tag, web.owners.owner(&named))
            .ok_or_else(absent)
    }

    fn list(&self, dir: &ObjectPath) -> ListStream {
        list::list(Arc::clone(&self.0), dir.clone())
    }

    async fn read(
        &self,
        path: &ObjectPath,
        tag: &VersionTag,
        range: ByteRange,
        deadline: Deadline,
    ) -> Result<ByteStream> {
        read(Arc::clone(&self.0), path, tag, range, deadline)
    }

    fn writer(&self) -> Option<&dyn UnderWriter> {
        self.0.writes.store(true, Ordering::Relaxed);
        Some(&self.0)
    }

    async fn check(&self, deadline: Deadline) -> Result<()> {
        let web = &self.0;
        let root = ObjectPath::root();
        let (what, mut retry) = (web.name("list", &root), Retry::new(deadline));
        let full = web.encoded(&root)?;
        let list = || web.page(Ask::List, &full, "");
        let page = web.session.check(&what, &mut retry, list).await?;
        list::refuse_file(&page).map_err(|error| error.context(what))
    }

    fn clock_ahead(&self) -> i64 {
        self.0.session.transport.skew.ahead()
    }

    fn counters(&self) -> &Counters {
        self.0.session.counters()
    }
}

impl fmt::Debug for WebHdfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebHdfs")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// Reads a range of a version.
fn read(
    web: Arc<Web>,
    path: &ObjectPath,
    tag: &VersionTag,
    range: ByteRange,
    deadline: Deadline,
) -> Result<ByteStream> {
    let what = web.name("read", path);
    if range.end() > tag.size {
        return Err(Error::internal("the range is not inside the file").context(what));
    }
    let reading = Reading {
        path: web.encoded(path)?,
        web,
        what,
        tag: tag.clone(),
        rest: range,
        deadline,
    };
    Ok(Box::pin(stream::unfold(Some(reading), |reading| async {
        let mut reading = reading.filter(|reading| reading.rest.len > 0)?;
        match reading.piece().await {
            Ok(bytes) => Some((Ok(bytes), Some(reading))),
            Err(error) => Some((Err(error), None)),
        }
    })))
}

/// A read under way.
struct Reading {
    web: Arc<Web>,
    what: String,
    path: String,
    tag: VersionTag,
    /// What is still to be read.
    rest: ByteRange,
    deadline: Deadline,
}

impl Reading {
    async fn piece(&mut self) -> Result<Bytes> {
        let range = ByteRange::new(self.rest.offset, self.rest.len.min(PIECE));
        let session = &self.web.session;
        let mut retry = Retry::new(self.deadline);
        let read = || self.web.piece(&self.path, &self.tag, range);
        let bytes = session.until_done(&self.what, &mut retry, read).await?;
        session
            .counters()
            .bytes_read
            .fetch_add(range.len, Ordering::Relaxed);
        self.rest = ByteRange::new(range.end(), self.rest.len - range.len);
        self.deadline = self.deadline.renewed(session.clock.now());
        Ok(bytes)
    }
}

/// Returns where the name node points to: never from TLS to a place without. Java composes letters
/// and accents when it writes a URL, which makes it another name; the name asked for is put back.
fn data_node(answer: &reqwest::Response, path: &str) -> Outcome<reqwest::Url> {
    let place = answer
        .headers()
        .get(LOCATION)
        .and_then(|place| place.to_str().ok());
    let url = place.and_then(|place| answer.url().join(place).ok());
    let mut url =
        url.ok_or_else(|| Fault::WrongAnswer("a redirection that points nowhere".into()))?;
    if url.path().starts_with(ROOT) {
        url.set_path(&format!("{ROOT}{path}"));
    }
    match (answer.url().scheme(), url.scheme()) {
        (_, "https") | ("http", "http") => Ok(url),
        (_, scheme) => Err(Fault::Unfit(format!(
            "the name node points to a data node by '{scheme}', which is not safe"
        ))),
    }
}

/// Returns the name of an operation, without its parameters.
fn name_of(operation: &str) -> &str {
    operation
        .split_once('&')
        .map_or(operation, |(name, _)| name)
}

fn gone(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn get(url: &str) -> Outcome<Request<()>> {
    Request::get(url)
        .body(())
        .map_err(|error| Fault::Unfit(format!("the request has no legal URL: {error}")))
}
