// SPDX-License-Identifier: Apache-2.0
//! The driver of the Hugging Face hub: data sets, models and spaces as read-only directories.
//!
//! A branch or tag is resolved to a commit at the first use and stays that commit, so that a job
//! sees one state; with `follow=true` it stays a name. The hub points from a file to the network
//! that holds its bytes; the address is kept for a few minutes, and never gets the token. The
//! version of a file is the hash of its content, which the hub tells in listings and on the way.

mod answer;
mod location;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::header::{ACCEPT_ENCODING, RANGE};
use http::{HeaderMap, HeaderName, Request};
use reqwest::Url;
use tokio::sync::OnceCell;
use types::{ByteRange, Clock, Deadline, Result, VersionTag};

pub(crate) use self::location::HfLocation;
use crate::http::{
    Arrived, Ask, Authorize, Bearer, Bucket, Clients, Fault, Found, Got, Leeway, ObjectStore,
    Outcome, Page, Session, Skew, Transport, Who, check_endpoint, check_version, clean_etag,
    first_set, follow, header_text, next_place, percent_encode, percent_encode_path, range_header,
    whole_length,
};
use crate::uri::invalid;
use crate::{Counters, Secrets, Settings, UnderStorage};

const OPTIONS: [&str; 6] = [
    "endpoint",
    "token",
    "token_path",
    "anonymous",
    "follow",
    "ca_bundle",
];
/// A page of 1,000 entries with paths of some kilobytes.
const PAGE_BYTES_MAX: usize = 16 << 20;
/// A file that comes whole although a part was asked is skipped through up to this length.
const WHOLE_MAX: u64 = 16 << 20;
/// Addresses of bytes are signed for an hour.
const PLACE_AGE_MAX: Duration = Duration::from_secs(300);
/// More files than are read at a time.
const PLACES_MAX: usize = 4096;

/// Opens a repository. Sends nothing.
pub(crate) fn open(
    location: HfLocation,
    settings: &Settings,
    secrets: Option<Secrets>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn UnderStorage>> {
    let (uri, prefix) = (location.uri(), location.prefix.clone());
    let hub = Hub::new(location, settings, secrets, clock);
    let hub = hub.map_err(|error| error.context(format!("open {uri}")))?;
    Ok(Arc::new(Bucket::new(uri, prefix, hub)))
}

/// The requests of the hub.
struct Hub {
    session: Arc<Session>,
    location: HfLocation,
    /// Follow the branch rather than stay at its commit.
    follow: bool,
    pinned: OnceCell<Pinned>,
    /// Where the bytes of files are. Locked for a look-up or a change.
    places: Mutex<HashMap<String, Place>>,
}

/// The state of the repository that is shown.
#[derive(Debug, Clone)]
struct Pinned {
    /// A commit, or a name when it is followed.
    revision: String,
    /// The time of the commit, which is that of all files.
    mtime_ns: i64,
}

/// Where the bytes of a version are.
#[derive(Debug, Clone)]
struct Place {
    url: Url,
    etag: String,
    until: Deadline,
}

impl Hub {
    fn new(
        location: HfLocation,
        settings: &Settings,
        secrets: Option<Secrets>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let env = |name: &str| std::env::var(name).ok();
        settings.check_options("Hugging Face", &OPTIONS)?;
        let endpoint = first_set(settings, &env, "endpoint", &["HF_ENDPOINT"]);
        let endpoint = check_endpoint(endpoint.as_deref().unwrap_or("https://huggingface.co"))?;
        let bundle = settings.text("ca_bundle").map(PathBuf::from);
        let clients = Clients::new(
            bundle.as_deref(),
            &endpoint,
            settings.max_connections.max(1),
        )?;
        let repository = location.repository();
        let who = Who::new(settings, secrets, move |settings| {
            let token = settings.text("token").map(String::from);
            Ok((authorize(settings, &env)?, token.into_iter().collect()))
        })?;
        let transport = Transport {
            client: clients.storage,
            authorize: who.authorize,
            secrets: who.hidden,
            refusal: Box::new(move |status, headers, body| {
                answer::read_refusal(status, headers, body, &repository)
            }),
            counters: Arc::new(Counters::default()),
            patience: settings.request_timeout,
            skew: Skew::new(Arc::clone(&clock)),
        };
        Ok(Hub {
            follow: settings.flag("follow")?.unwrap_or(false),
            session: Arc::new(Session::new(endpoint, transport, settings, clock)),
            location,
            pinned: OnceCell::new(),
            places: Mutex::new(HashMap::new()),
        })
    }

    /// Returns the state that is shown; asks for it once.
    async fn pinned(&self) -> Outcome<&Pinned> {
        let find = async || {
            let name = &self.location.revision;
            if self.follow {
                return Ok(Pinned {
                    revision: name.clone(),
                    mtime_ns: 0,
                });
            }
            let name = percent_encode(name);
            let url = self.api(&format!("revision/{name}"));
            let transport = &self.session.transport;
            let answer = transport.send(Ask::Other, get(&url)?).await?;
            let body = transport.body(answer, PAGE_BYTES_MAX).await?;
            let (revision, mtime_ns) = answer::parse_revision(&body)?;
            Ok(Pinned { revision, mtime_ns })
        };
        // A missing branch makes no name absent.
        self.pinned.get_or_try_init(find).await.map_err(not_absent)
    }

    fn api(&self, rest: &str) -> String {
        let repository = self.location.repository_path();
        format!("{}/api/{repository}/{rest}", self.session.endpoint)
    }

    fn file_url(&self, revision: &str, key: &str) -> Outcome<Url> {
        let url = format!(
            "{}/{}/resolve/{}/{}",
            self.session.endpoint,
            self.location.web_path(),
            percent_encode(revision),
            percent_encode_path(key)
        );
        Url::parse(&url).map_err(|error| Fault::Unfit(error.to_string()))
    }

    fn place(&self, key: &str, tag: &VersionTag) -> Option<Url> {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.get(key)?;
        let good = tag.etag.as_ref() == Some(&place.etag)
            && !place.until.left(self.session.clock.now()).is_zero();
        good.then(|| place.url.clone())
    }

    fn keep_place(&self, key: &str, url: Option<Url>, tag: &VersionTag) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        match (url, &tag.etag) {
            (Some(url), Some(etag)) => {
                if places.len() >= PLACES_MAX {
                    places.clear();
                }
                let until = self.session.clock.deadline(PLACE_AGE_MAX);
                let etag = etag.clone();
                places.insert(key.into(), Place { url, etag, until });
            }
            _ => drop(places.remove(key)),
        }
    }

    /// Reads from where the bytes were found before.
    async fn get_there(&self, url: &Url, tag: &VersionTag, range: ByteRange) -> Outcome<Got> {
        let request = ranged(url, range)?;
        let transport = &self.session.transport;
        let answer = transport
            .send_unsigned(Ask::Get, request, leeway(tag))
            .await?;
        got(answer, tag, range)
    }

    /// Reads by the way that the hub points.
    async fn get_through_hub(&self, key: &str, tag: &VersionTag, range: ByteRange) -> Outcome<Got> {
        let start = self.file_url(&self.pinned().await?.revision, key)?;
        let (host, mut known) = (start.origin(), None);
        let transport = &self.session.transport;
        let look = |headers: &HeaderMap| {
            // Only the hub's own word counts: the network behind it has tags of its own.
            known = known.take().or_else(|| tag_of(headers));
            Ok(())
        };
        let make = |url: &Url| ranged(url, range);
        let arrived = follow(transport, Ask::Get, start, leeway(tag), make, look).await?;
        let given = VersionTag {
            etag: known,
            mtime_ns: 0,
            size: tag.size,
        };
        check_version(tag, &given)?;
        let Arrived { url, answer } = arrived;
        if url.origin() != host {
            self.keep_place(key, Some(url), tag);
        }
        got(answer, tag, range)
    }
}

#[async_trait]
impl ObjectStore for Hub {
    fn session(&self) -> &Arc<Session> {
        &self.session
    }

    async fn head(&self, key: &str) -> Outcome<Option<Found>> {
        let pinned = self.pinned().await?;
        let mut url = self.file_url(&pinned.revision, key)?;
        let transport = &self.session.transport;
        let leeway = Leeway {
            redirect: true,
            ..Leeway::default()
        };
        let mut ask = Ask::Head;
        // A repository that was renamed points to its new name first.
        for _ in 0..3 {
            let request = Request::head(url.as_str())
                .header(ACCEPT_ENCODING, "identity")
                .body(())
                .map_err(|error| Fault::Unfit(error.to_string()))?;
            let answer = match transport.send_with(ask, request, leeway).await {
                Ok(answer) => answer,
                Err(fault) if fault.absent() => return Ok(None),
                Err(fault) => return Err(fault),
            };
            let headers = answer.headers();
            let size = header_text(headers, HeaderName::from_static("x-linked-size"));
            let size = size.and_then(|size| size.parse().ok());
            let size = size.or_else(|| whole_length(headers).filter(|_| is_end(&answer)));
            if let (Some(etag), Some(size)) = (tag_of(headers), size) {
                return Ok(Some(Found::Object(VersionTag {
                    etag: Some(etag),
                    mtime_ns: pinned.mtime_ns,
                    size,
                })));
            }
            let place = next_place(&url, headers)?;
            if is_end(&answer) || place.origin() != url.origin() {
                break;
            }
            (url, ask) = (place, Ask::Other);
        }
        Err(Fault::Unfit("the hub tells no version of the file".into()))
    }

    async fn page(&self, prefix: &str, token: Option<&str>, limit: Option<u32>) -> Outcome<Page> {
        let pinned = self.pinned().await?;
        let url = match token {
            Some(token) => format!("{}{token}", self.session.endpoint),
            None => {
                let dir = percent_encode_path(prefix.trim_end_matches('/'));
                let limit = limit.map(|limit| format!("&limit={limit}"));
                self.api(&format!(
                    "tree/{}{}{dir}?recursive=false&expand=false{}",
                    percent_encode(&pinned.revision),
                    if dir.is_empty() { "" } else { "/" },
                    limit.unwrap_or_default()
                ))
            }
        };
        let transport = &self.session.transport;
        let listed = match transport.send(Ask::List, get(&url)?).await {
            Ok(listed) => listed,
            // A directory that is not there is empty; the root of a repository is always there.
            Err(fault) if fault.absent() && !prefix.is_empty() => return Ok(Page::default()),
            Err(fault) => return Err(not_absent(fault)),
        };
        let next = answer::next_page(listed.headers());
        let body = transport.body(listed, PAGE_BYTES_MAX).await?;
        let mut page = answer::parse_page(&body, pinned.mtime_ns)?;
        page.next = next;
        Ok(page)
    }

    async fn get(&self, key: &str, tag: &VersionTag, range: ByteRange) -> Outcome<Got> {
        if let Some(url) = self.place(key, tag) {
            match self.get_there(&url, tag, range).await {
                // The signature in the address is no longer good: ask the hub for another.
                Err(Fault::Refused(refusal)) if matches!(refusal.status, 400..=499) => {
                    self.keep_place(key, None, tag);
                }
                answer => return answer,
            }
        }
        self.get_through_hub(key, tag, range).await
    }
}

/// Finds the token: an option, the environment, or the file that `hf auth login` writes.
fn authorize(
    settings: &Settings,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Box<dyn Authorize>>> {
    if settings.flag("anonymous")? == Some(true) {
        return match settings.text("token") {
            None => Ok(None),
            Some(_) => Err(invalid("anonymous=true and a token exclude each other")),
        };
    }
    if let Some(file) = settings.text("token_path") {
        // Named by the user, so it must be there.
        let bearer = Bearer::of_file(file.into())
            .ok_or_else(|| invalid(format!("there is no token in the file '{file}'")))?;
        return Ok(Some(Box::new(bearer)));
    }
    let names = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];
    if let Some(token) = first_set(settings, env, "token", &names) {
        let bearer = Bearer::new(&token).ok_or_else(|| invalid("the token cannot be one"))?;
        return Ok(Some(Box::new(bearer)));
    }
    let set = |name: &str| {
        env(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let file = set("HF_TOKEN_PATH")
        .or_else(|| Some(set("HF_HOME")?.join("token")))
        .or_else(|| Some(set("HOME")?.join(".cache/huggingface/token")));
    let bearer = file.and_then(Bearer::of_file);
    Ok(bearer.map(|bearer| -> Box<dyn Authorize> { Box::new(bearer) }))
}

fn get(url: &str) -> Outcome<Request<()>> {
    Request::get(url)
        .body(())
        .map_err(|error| Fault::Unfit(error.to_string()))
}

fn ranged(url: &Url, range: ByteRange) -> Outcome<Request<()>> {
    Request::get(url.as_str())
        .header(RANGE, range_header(range))
        .header(ACCEPT_ENCODING, "identity")
        .body(())
        .map_err(|error| Fault::Unfit(error.to_string()))
}

fn leeway(tag: &VersionTag) -> Leeway {
    Leeway {
        whole: tag.size <= WHOLE_MAX,
        ..Leeway::default()
    }
}

/// Takes an answer with bytes, if the whole object has the right length.
fn got(answer: reqwest::Response, tag: &VersionTag, range: ByteRange) -> Outcome<Got> {
    let whole = answer.status() != 206;
    match whole_length(answer.headers()) {
        Some(size) if size != tag.size => {
            return Err(Fault::Stale(format!(
                "the object changed: it has {size} bytes now"
            )));
        }
        None => return Err(Fault::WrongAnswer("a file without its length".into())),
        Some(_) => {}
    }
    Ok(Got {
        answer,
        lead: if whole { range.offset } else { 0 },
        more: whole && range.end() < tag.size,
    })
}

/// Returns the hash of the content that the hub tells.
fn tag_of(headers: &HeaderMap) -> Option<String> {
    let linked = header_text(headers, HeaderName::from_static("x-linked-etag"));
    let etag = linked.or_else(|| header_text(headers, http::header::ETAG))?;
    // Weak or not, it is a hash of the content.
    clean_etag(etag.trim_start_matches("W/"))
}

fn is_end(answer: &reqwest::Response) -> bool {
    answer.status().is_success()
}

fn not_absent(fault: Fault) -> Fault {
    match fault {
        Fault::Refused(mut refusal) => {
            refusal.absent = false;
            Fault::Refused(refusal)
        }
        fault => fault,
    }
}
