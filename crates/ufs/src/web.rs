// SPDX-License-Identifier: Apache-2.0
//! The driver of web servers: read-only directories over HTTP.
//!
//! Names come from index pages, as Apache, nginx and Python's `http.server` write them (`index`), or
//! from a manifest (`manifest`), which also tells sizes. An index page tells neither exact sizes nor
//! versions, so each file of a listing costs a HEAD.
//!
//! A version is the ETag, or else the time and length; where a server tells neither tag nor time,
//! the length alone. Times of the web are whole seconds, and common servers make ETags of them: a
//! file that changed just now is looked at again when its second is over. Reads carry `If-Match` or
//! `If-Unmodified-Since`, and the answer's headers are compared.

mod index;
mod location;
mod manifest;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use http::header::{
    ACCEPT_ENCODING, DATE, ETAG, IF_MATCH, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, Request};
use reqsign_core::time::Timestamp;
use reqwest::Url;
use types::{ByteRange, Clock, Result, VersionTag};

pub(crate) use self::location::WebLocation;
use self::manifest::Manifest;
use crate::http::{
    Arrived, Ask, Authorize, Bearer, Bucket, Clients, Fault, Found, Got, Leeway, Object,
    ObjectStore, Outcome, Page, Refusal, Session, Skew, Transport, Who, check_version, clean_etag,
    follow, header_text, http_time, if_match, next_place, percent_decode, percent_encode_path,
    range_header, whole_length,
};
use crate::retry::Retry;
use crate::uri::invalid;
use crate::{Counters, Secrets, Settings, UnderStorage};

const OPTIONS: [&str; 5] = ["manifest", "token", "username", "password", "ca_bundle"];
/// An index page of a hundred thousand names.
const INDEX_BYTES_MAX: usize = 64 << 20;
/// What a server that knows no ranges sends whole is skipped through up to this length.
const WHOLE_MAX: u64 = 16 << 20;
/// How many files of an index page make a page of a listing: as many HEADs, within the patience
/// for one page.
const PAGE_FILES: usize = 500;
/// How many HEADs run at once, if connections allow.
const HEADS_MAX: usize = 16;
/// A second of the server's clock, and one for rounding.
const GRAIN_NS: i64 = 2_000_000_000;

/// Opens a directory of a web server. Sends nothing.
pub(crate) fn open(
    location: WebLocation,
    settings: &Settings,
    secrets: Option<Secrets>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn UnderStorage>> {
    let uri = location.uri();
    let web = Web::new(location, settings, secrets, clock);
    let web = web.map_err(|error| error.context(format!("open {uri}")))?;
    Ok(Arc::new(Bucket::new(uri, String::new(), web)))
}

/// The requests to a web server.
struct Web {
    session: Arc<Session>,
    root: Url,
    manifest: Option<Manifest>,
    heads: usize,
}

impl Web {
    fn new(
        location: WebLocation,
        settings: &Settings,
        secrets: Option<Secrets>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        settings.check_options("a web server", &OPTIONS)?;
        let connections = settings.max_connections.max(1);
        let bundle = settings.text("ca_bundle").map(PathBuf::from);
        let clients = Clients::new(bundle.as_deref(), location.root.as_str(), connections)?;
        let who = Who::new(settings, secrets, |settings| {
            let texts = ["token", "password"].map(|name| settings.text(name).map(String::from));
            Ok((authorize(settings)?, texts.into_iter().flatten().collect()))
        })?;
        let transport = Transport {
            client: clients.storage,
            authorize: who.authorize,
            secrets: who.hidden,
            refusal: Box::new(|status, _, _| refusal(status)),
            counters: Arc::new(Counters::default()),
            patience: settings.request_timeout,
            skew: Skew::new(Arc::clone(&clock)),
        };
        let manifest = match settings.text("manifest") {
            Some(place) => Some(Manifest::new(&location.root, place)?),
            None => None,
        };
        let endpoint = location.root.to_string();
        Ok(Web {
            session: Arc::new(Session::new(endpoint, transport, settings, clock)),
            root: location.root,
            manifest,
            heads: connections.min(HEADS_MAX),
        })
    }

    fn url_of(&self, key: &str) -> Outcome<Url> {
        let url = format!("{}{}", self.root, percent_encode_path(key));
        Url::parse(&url).map_err(|error| Fault::Unfit(error.to_string()))
    }

    /// Asks for a file; waits out the second in which it changed.
    async fn look(&self, key: &str) -> Outcome<Option<Found>> {
        let url = self.url_of(key)?;
        let mut found = self.look_once(&url).await?;
        if let Some((Found::Object(_), young)) = &found
            && *young > Duration::ZERO
        {
            tokio::time::sleep(*young).await;
            found = self.look_once(&url).await?;
        }
        Ok(found.map(|(found, young)| match found {
            // It changes all the time: a version that no read will find.
            Found::Object(tag) if !young.is_zero() => Found::Object(VersionTag {
                etag: Some("W/changing".into()),
                ..tag
            }),
            found => found,
        }))
    }

    /// Asks once; tells also how long the file is too young to trust its version.
    async fn look_once(&self, url: &Url) -> Outcome<Option<(Found, Duration)>> {
        let (mut url, mut ask) = (url.clone(), Ask::Head);
        let start = url.clone();
        let leeway = Leeway {
            redirect: true,
            ..Leeway::default()
        };
        for _ in 0..5 {
            let request = plain(Request::head(url.as_str()))?;
            let transport = &self.session.transport;
            let answer = match url.origin() == self.root.origin() {
                true => transport.send_with(ask, request, leeway).await,
                false => transport.send_unsigned(ask, request, leeway).await,
            };
            let answer = match answer {
                Ok(answer) => answer,
                Err(fault) if fault.absent() => return Ok(None),
                Err(fault) => return Err(fault),
            };
            if answer.status().is_success() {
                let tag = tag_of(answer.headers())?;
                return Ok(Some((Found::Object(tag), young_for(answer.headers()))));
            }
            let place = next_place(&url, answer.headers())?;
            // The server may write the same name with other characters encoded.
            let with_slash = format!("{}/", start.path());
            if percent_decode(place.path()) == percent_decode(&with_slash) {
                return Ok(Some((Found::Directory, Duration::ZERO)));
            }
            (url, ask) = (place, Ask::Other);
        }
        Err(Fault::Unfit(
            "the server points from place to place without end".into(),
        ))
    }

    /// Asks for the names on an index page, sorted.
    async fn names(&self, prefix: &str) -> Outcome<Option<Vec<index::Link>>> {
        let transport = &self.session.transport;
        let make = |url: &Url| plain(Request::get(url.as_str()));
        let start = self.url_of(prefix)?;
        let arrived = follow(transport, Ask::List, start, Leeway::default(), make, |_| {
            Ok(())
        });
        let Arrived { url, answer } = match arrived.await {
            Ok(arrived) => arrived,
            Err(fault) if fault.absent() && !prefix.is_empty() => return Ok(None),
            Err(fault) => return Err(fault),
        };
        let body = transport.body(answer, INDEX_BYTES_MAX).await?;
        index::parse(&url, &body).map(Some).ok_or_else(|| {
            Fault::Unfit(
                "the page is no index of a directory; switch indexes on at the server, or give a \
                 list of files with the option 'manifest'"
                    .into(),
            )
        })
    }

    /// Asks for one file of an index page, again if need be: one failure must not cost the page.
    async fn look_in_page(&self, key: String) -> Outcome<Option<Object>> {
        let mut retry: Retry = self.session.retry_of_page();
        loop {
            let fault = match self.look(&key).await {
                Ok(Some(Found::Object(tag) | Found::Kept(tag, _))) => {
                    return Ok(Some(Object {
                        key: Some(key),
                        size: tag.size,
                        etag: tag.etag,
                        mtime_ns: tag.mtime_ns,
                        ..Object::default()
                    }));
                }
                // Gone in between.
                Ok(Some(Found::Directory) | None) => return Ok(None),
                Err(fault) => fault,
            };
            // A file that cannot be looked at cannot be shown; the others can.
            if matches!(&fault, Fault::Refused(refusal) if matches!(refusal.status, 401 | 403))
                || matches!(fault, Fault::Unfit(_))
            {
                return Ok(Some(Object::default()));
            }
            let again = self.session.pause("look", &mut retry, fault.clone()).await;
            again.map_err(|_| fault)?;
        }
    }
}

#[async_trait]
impl ObjectStore for Web {
    fn session(&self) -> &Arc<Session> {
        &self.session
    }

    async fn head(&self, key: &str) -> Outcome<Option<Found>> {
        match &self.manifest {
            Some(manifest) => {
                let files = manifest.files(&self.session.transport).await?;
                Ok(files.get(key).map(|file| Found::Object(file.tag.clone())))
            }
            None => self.look(key).await,
        }
    }

    async fn page(&self, prefix: &str, token: Option<&str>, limit: Option<u32>) -> Outcome<Page> {
        if let Some(manifest) = &self.manifest {
            let files = manifest.files(&self.session.transport).await?;
            return Ok(manifest::page(&files, prefix));
        }
        let Some(links) = self.names(prefix).await? else {
            return Ok(Page::default());
        };
        let (mut page, mut files) = (Page::default(), Vec::new());
        for link in links {
            match link {
                index::Link::Directory(name) if token.is_none() => {
                    page.prefixes
                        .push(name.map(|name| format!("{prefix}{name}/")));
                }
                index::Link::Directory(_) => {}
                index::Link::File(Some(name)) if token.is_none_or(|token| *name > *token) => {
                    files.push(name);
                }
                index::Link::File(None) if token.is_none() => page.prefixes.push(None),
                index::Link::File(_) => {}
            }
        }
        if limit.is_some() {
            // Whether there is any is all that is asked.
            let any = files.into_iter().take(1).map(|name| Object {
                key: Some(format!("{prefix}{name}")),
                ..Object::default()
            });
            page.objects = any.collect();
            return Ok(page);
        }
        if files.len() > PAGE_FILES {
            files.truncate(PAGE_FILES);
            page.next = files.last().cloned();
        }
        let looks = files
            .into_iter()
            .map(|name| self.look_in_page(format!("{prefix}{name}")));
        let mut looks = stream::iter(looks).buffered(self.heads);
        while let Some(found) = looks.next().await {
            page.objects.extend(found?);
        }
        Ok(page)
    }

    async fn get(&self, key: &str, tag: &VersionTag, range: ByteRange) -> Outcome<Got> {
        let url = match &self.manifest {
            Some(manifest) => manifest.url_of(&self.session.transport, key).await?,
            None => self.url_of(key)?,
        };
        let make = |url: &Url| {
            let mut request = Request::get(url.as_str()).header(RANGE, range_header(range));
            match tag.etag.as_deref().and_then(if_match) {
                Some(condition) => request = request.header(IF_MATCH, condition),
                None if tag.etag.is_none() && tag.mtime_ns > 0 => {
                    request = request.header(IF_UNMODIFIED_SINCE, http_date(tag.mtime_ns));
                }
                None => {}
            }
            plain(request)
        };
        let leeway = Leeway {
            whole: tag.size <= WHOLE_MAX,
            ..Leeway::default()
        };
        let transport = &self.session.transport;
        let arrived = follow(transport, Ask::Get, url, leeway, make, |_| Ok(())).await?;
        let answer = arrived.answer;
        let mut given = tag_of(answer.headers())?;
        if self.manifest.is_some() && tag.etag.is_none() {
            // The manifest tells the length only.
            given.etag = None;
            given.mtime_ns = tag.mtime_ns;
        }
        check_version(tag, &given)?;
        let whole = answer.status() != 206;
        Ok(Got {
            answer,
            lead: if whole { range.offset } else { 0 },
            more: whole && range.end() < tag.size,
        })
    }
}

fn plain(request: http::request::Builder) -> Outcome<Request<()>> {
    request
        .header(ACCEPT_ENCODING, "identity")
        .body(())
        .map_err(|error| Fault::Unfit(error.to_string()))
}

fn authorize(settings: &Settings) -> Result<Option<Box<dyn Authorize>>> {
    let given = ["token", "username", "password"].map(|name| settings.text(name));
    let bearer = match given {
        [None, None, None] => return Ok(None),
        [Some(token), None, None] => Bearer::new(token),
        [None, Some(user), Some(password)] => {
            let pair = reqsign_core::hash::base64_encode(format!("{user}:{password}").as_bytes());
            Bearer::of_header(&format!("Basic {pair}"))
        }
        [None, ..] => return Err(invalid("username and password go together; one is missing")),
        _ => return Err(invalid("a token and a password exclude each other")),
    };
    let bearer = bearer.ok_or_else(|| invalid("the token cannot be one"))?;
    Ok(Some(Box::new(bearer)))
}

fn refusal(status: u16) -> Refusal {
    let mut refusal = Refusal::of_status(status);
    // Gone is as good as never there.
    refusal.absent |= status == 410;
    refusal.advice = match status {
        401 => Some("give the option 'token', or 'username' and 'password'".into()),
        403 => Some("the server does not show this; check that it lists directories".into()),
        405 | 501 => Some("the server does not answer HEAD; give a manifest".into()),
        _ => None,
    };
    refusal
}

/// Returns the version that an answer's headers tell.
fn tag_of(headers: &HeaderMap) -> Outcome<VersionTag> {
    let size = whole_length(headers)
        .ok_or_else(|| Fault::Unfit("the server tells no length of the file".into()))?;
    Ok(VersionTag {
        etag: header_text(headers, ETAG).and_then(clean_etag),
        mtime_ns: header_text(headers, LAST_MODIFIED).map_or(0, http_time),
        size,
    })
}

/// Returns how long it takes until a change would show in the file's time.
fn young_for(headers: &HeaderMap) -> Duration {
    let time = |name| header_text(headers, name).map(http_time);
    let (Some(now), Some(changed)) = (time(DATE), time(LAST_MODIFIED)) else {
        return Duration::ZERO;
    };
    let left = changed.saturating_add(GRAIN_NS).saturating_sub(now);
    // A time far in the future is set by hand, and says nothing about now.
    match u64::try_from(left) {
        Ok(left) if left <= GRAIN_NS.unsigned_abs() => Duration::from_nanos(left),
        _ => Duration::ZERO,
    }
}

fn http_date(time_ns: i64) -> String {
    let time = Timestamp::from_second(time_ns / 1_000_000_000);
    time.map(Timestamp::format_http_date).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_young_for_two_seconds_of_the_servers_clock() {
        let young = |date: &'static str, changed: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(DATE, date.parse().unwrap());
            headers.insert(LAST_MODIFIED, changed.parse().unwrap());
            young_for(&headers).as_secs()
        };
        let noon = "Mon, 12 Oct 2009 12:00:00 GMT";
        assert_eq!(young(noon, noon), 2);
        assert_eq!(young(noon, "Mon, 12 Oct 2009 11:59:59 GMT"), 1);
        assert_eq!(young(noon, "Mon, 12 Oct 2009 11:59:58 GMT"), 0);
        assert_eq!(young(noon, "Tue, 13 Oct 2009 12:00:00 GMT"), 0);
        assert_eq!(young_for(&HeaderMap::new()), Duration::ZERO);
        assert_eq!(http_date(http_time(noon)), noon);
    }
}
