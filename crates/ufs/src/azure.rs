// SPDX-License-Identifier: Apache-2.0
//! The driver of Azure Blob storage, and of Data Lake gen 2 through its blob endpoint.
//!
//! Here is what is Azure's own: URIs (`location`), options (`config`), signatures (`credentials`),
//! pages and refusals (`answer`), changes (`write`). Reads carry `If-Match` with the ETag of the version. On accounts
//! with a hierarchical namespace an empty directory is an object with a mark, which is shown as the
//! directory that it is.

mod answer;
mod config;
mod credentials;
mod location;
mod write;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use http::header::{IF_MATCH, LAST_MODIFIED, RANGE};
use http::{HeaderMap, HeaderName, Request, request};
use types::{ByteRange, Clock, Result, VersionTag};

use self::config::{Config, Credentials};
pub(crate) use self::location::AzureLocation;
use crate::http::{
    Ask, Bucket, Clients, Fault, Found, Got, KeyWriter, ObjectStore, Outcome, Page, Session, Skew,
    Transport, Who, check_version, clean_etag, header_text, http_time, if_match, percent_encode,
    percent_encode_path, range_header, signing_context, whole_length,
};
use crate::{Counters, Secrets, Settings, UnderStorage};

/// The first with which names of control characters are encoded in listings is of 2021.
const API_VERSION: &str = "2023-11-03";
/// A page of 5,000 names of a kilobyte, each byte encoded as three, and as much again around them.
const PAGE_BYTES_MAX: usize = 48 << 20;

/// Opens a container. Sends nothing.
pub(crate) fn open(
    location: AzureLocation,
    settings: &Settings,
    secrets: Option<Secrets>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn UnderStorage>> {
    let uri = location.uri();
    let store = Azure::new(&location, settings, secrets, clock)
        .map_err(|error| error.context(format!("open {uri}")))?;
    Ok(Arc::new(Bucket::new(uri, location.prefix, store)))
}

/// The requests of Azure Blob.
struct Azure {
    session: Arc<Session>,
    container_url: String,
    /// What makes an address readable for Azure itself: a shared access signature.
    source_token: Arc<Mutex<Option<String>>>,
}

fn config_of(location: &AzureLocation, settings: &Settings) -> Result<Config> {
    Config::new(location, settings, |name| std::env::var(name).ok())
}

impl Azure {
    fn new(
        location: &AzureLocation,
        settings: &Settings,
        secrets: Option<Secrets>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let config = config_of(location, settings)?;
        let connections = settings.max_connections.max(1);
        let clients = Clients::new(config.ca_bundle.as_deref(), &config.endpoint, connections)?;
        let counters = Arc::new(Counters::default());
        let container = location.container.clone();
        let skew = Skew::new(Arc::clone(&clock));
        let context = signing_context(&clients, Arc::clone(&counters), Arc::clone(&skew));
        let source_token = Arc::new(Mutex::new(None));
        let (place, ours, at) = (location.clone(), Arc::clone(&clock), Arc::clone(&skew));
        let given_token = Arc::clone(&source_token);
        let who = Who::new(settings, secrets, move |settings| {
            let credentials = config_of(&place, settings)?.credentials;
            let texts = credentials.secrets();
            *given_token.lock().unwrap_or_else(PoisonError::into_inner) = match &credentials {
                Credentials::Sas(token) => Some(token.clone()),
                _ => None,
            };
            let (context, clock, skew) = (context.clone(), Arc::clone(&ours), Arc::clone(&at));
            let authorize = credentials::authorize(credentials, context, clock, skew);
            Ok((authorize, texts))
        })?;
        let transport = Transport {
            client: clients.storage,
            authorize: who.authorize,
            secrets: who.hidden,
            refusal: Box::new(move |status, headers, body| {
                answer::read_refusal(status, headers, body, &container)
            }),
            counters,
            patience: settings.request_timeout,
            skew,
        };
        let container_url = format!("{}/{}", config.endpoint, location.container);
        Ok(Azure {
            session: Arc::new(Session::new(config.endpoint, transport, settings, clock)),
            container_url,
            source_token,
        })
    }

    fn url_of(&self, key: &str) -> String {
        format!("{}/{}", self.container_url, percent_encode_path(key))
    }

    /// Asks for a page of blobs.
    async fn listed(
        &self,
        delimiter: &str,
        prefix: &str,
        token: Option<&str>,
        limit: Option<u32>,
    ) -> Outcome<Page> {
        if is_unheard_of(prefix) {
            return Ok(Page::default());
        }
        let mut url = format!(
            "{}?restype=container&comp=list{delimiter}",
            self.container_url
        );
        for (name, value) in [("prefix", Some(prefix)), ("marker", token)] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                url.push_str(&format!("&{name}={}", percent_encode(value)));
            }
        }
        if let Some(limit) = limit {
            url.push_str(&format!("&maxresults={limit}"));
        }
        let request = finish(Request::get(url))?;
        let transport = &self.session.transport;
        let listed = transport.send(Ask::List, request).await;
        let listed = listed.map_err(|fault| match fault {
            // A container that is missing has a code of its own.
            fault if fault.absent() => {
                Fault::Unfit(format!("{fault}; is this an Azure Blob endpoint?"))
            }
            fault => fault,
        })?;
        answer::parse_page(&transport.body(listed, PAGE_BYTES_MAX).await?)
    }
}

#[async_trait]
impl ObjectStore for Azure {
    fn session(&self) -> &Arc<Session> {
        &self.session
    }

    async fn head(&self, key: &str) -> Outcome<Option<Found>> {
        if is_unheard_of(key) {
            return Ok(None);
        }
        let request = finish(Request::head(self.url_of(key)))?;
        match self.session.transport.send(Ask::Head, request).await {
            Ok(answer) if is_directory(answer.headers()) => Ok(Some(Found::Directory)),
            Ok(answer) => {
                let tag = tag_of(answer.headers())?;
                let kept = Box::new(write::kept(answer.headers()));
                Ok(Some(Found::Kept(tag, kept)))
            }
            Err(fault) if fault.absent() => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    async fn page(&self, prefix: &str, token: Option<&str>, limit: Option<u32>) -> Outcome<Page> {
        self.listed("&delimiter=%2F", prefix, token, limit).await
    }

    fn lists_trees(&self) -> bool {
        true
    }

    async fn keys(&self, prefix: &str, token: Option<&str>) -> Outcome<Page> {
        self.listed("", prefix, token, None).await
    }

    async fn get(&self, key: &str, tag: &VersionTag, range: ByteRange) -> Outcome<Got> {
        let mut request = Request::get(self.url_of(key)).header(RANGE, range_header(range));
        if let Some(condition) = tag.etag.as_deref().and_then(if_match) {
            request = request.header(IF_MATCH, condition);
        }
        let request = finish(request)?;
        let answer = self.session.transport.send(Ask::Get, request).await?;
        check_version(tag, &tag_of(answer.headers())?)?;
        Ok(Got::exactly(answer))
    }

    fn writer(&self) -> Option<&dyn KeyWriter> {
        Some(self)
    }
}

/// Returns whether no blob has such a name: Azure takes a backslash for a slash, so that one object
/// would have two names.
fn is_unheard_of(key: &str) -> bool {
    key.contains('\\')
}

fn finish(request: request::Builder) -> Outcome<Request<()>> {
    request
        .header("x-ms-version", API_VERSION)
        .body(())
        .map_err(|error| Fault::Unfit(error.to_string()))
}

/// Returns the version that an answer's headers tell; its time is the one that is kept beside it,
/// where there is one.
fn tag_of(headers: &HeaderMap) -> Outcome<VersionTag> {
    let size = whole_length(headers)
        .ok_or_else(|| Fault::WrongAnswer("a blob without its length".into()))?;
    Ok(VersionTag {
        etag: header_text(headers, http::header::ETAG).and_then(clean_etag),
        mtime_ns: write::kept(headers)
            .attributes
            .mtime_ns
            .unwrap_or_else(|| header_text(headers, LAST_MODIFIED).map_or(0, http_time)),
        size,
    })
}

/// Returns whether a blob stands for a directory of a hierarchical namespace.
fn is_directory(headers: &HeaderMap) -> bool {
    let says = |name, value: &str| {
        header_text(headers, HeaderName::from_static(name))
            .is_some_and(|text| text.eq_ignore_ascii_case(value))
    };
    says("x-ms-meta-hdi_isfolder", "true") || says("x-ms-resource-type", "directory")
}
