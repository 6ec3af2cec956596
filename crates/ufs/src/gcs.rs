// SPDX-License-Identifier: Apache-2.0
//! The driver of Google Cloud Storage, over its JSON API.
//!
//! Here is what is Google's own: options (`config`), signatures (`credentials`), pages and refusals
//! (`answer`), changes (`write`). A version is a generation: reads carry `ifGenerationMatch`, and an answer of another
//! generation is not believed. Objects stored compressed are read as they are stored, because their
//! length is that of the stored bytes.

mod answer;
mod config;
mod credentials;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use http::header::{ACCEPT_ENCODING, RANGE};
use http::{HeaderMap, HeaderName, Request, request};
use types::{ByteRange, Clock, Result, VersionTag};

use self::answer::Told;
use self::config::Config;
use crate::http::{
    Ask, Bucket, Clients, Fault, Found, Got, KeyWriter, Object, ObjectStore, Outcome, Page,
    Session, Skew, Transport, Who, check_version, header_text, percent_encode, range_header,
    signing_context, whole_length,
};
use crate::uri::BucketLocation;
use crate::{Counters, Secrets, Settings, UnderStorage};

/// A page of 1,000 names of a kilobyte, each byte escaped as six, and as much again around them.
const PAGE_BYTES_MAX: usize = 16 << 20;
/// What is told of one object is some hundred bytes when only these fields are asked for.
const OBJECT_BYTES_MAX: usize = 64 << 10;
/// A link is known by its metadata.
const OBJECT_FIELDS: &str = "name,size,generation,timeCreated,metadata/gcsfuse_symlink_target";
/// What is told of one object; of many it would be too much.
const TOLD_FIELDS: &str = "name,size,generation,timeCreated,metadata";

/// Opens a bucket. Sends nothing.
pub(crate) fn open(
    location: BucketLocation,
    settings: &Settings,
    secrets: Option<Secrets>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn UnderStorage>> {
    let uri = location.uri();
    let store = Gcs::new(&location, settings, secrets, clock)
        .map_err(|error| error.context(format!("open {uri}")))?;
    Ok(Arc::new(Bucket::new(uri, location.prefix, store)))
}

fn config_of(settings: &Settings) -> Result<Config> {
    Config::new(settings, |name| std::env::var(name).ok())
}

/// The requests of Google Cloud Storage.
struct Gcs {
    session: Arc<Session>,
    bucket: String,
    /// What all keys start with.
    prefix: String,
    objects_url: String,
    upload_url: String,
    user_project: Option<String>,
    /// Whether the mount writes.
    writes: Arc<AtomicBool>,
}

impl Gcs {
    fn new(
        location: &BucketLocation,
        settings: &Settings,
        secrets: Option<Secrets>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let config = config_of(settings)?;
        let connections = settings.max_connections.max(1);
        let clients = Clients::new(config.ca_bundle.as_deref(), &config.endpoint, connections)?;
        let counters = Arc::new(Counters::default());
        let bucket = location.bucket.clone();
        let writes = Arc::new(AtomicBool::new(false));
        let skew = Skew::new(Arc::clone(&clock));
        let context = signing_context(&clients, Arc::clone(&counters), Arc::clone(&skew));
        let (ours, at, writing) = (Arc::clone(&clock), Arc::clone(&skew), Arc::clone(&writes));
        let who = Who::new(settings, secrets, move |settings| {
            let credentials = config_of(settings)?.credentials;
            let writing = Arc::clone(&writing);
            let authorize = credentials::authorize(&credentials, &context, &ours, &at, writing);
            Ok((authorize, credentials.secrets()))
        })?;
        let transport = Transport {
            client: clients.storage,
            authorize: who.authorize,
            secrets: who.hidden,
            refusal: Box::new(move |status, _, body| answer::read_refusal(status, body, &bucket)),
            counters,
            patience: settings.request_timeout,
            skew,
        };
        let upload_url = format!(
            "{}/upload/storage/v1/b/{}/o",
            config.endpoint, location.bucket
        );
        let objects_url = format!("{}/storage/v1/b/{}/o", config.endpoint, location.bucket);
        Ok(Gcs {
            session: Arc::new(Session::new(config.endpoint, transport, settings, clock)),
            bucket: location.bucket.clone(),
            prefix: location.prefix.clone(),
            objects_url,
            upload_url,
            user_project: config.user_project,
            writes,
        })
    }

    fn url_of(&self, key: &str) -> String {
        format!("{}/{}", self.objects_url, percent_encode(key))
    }

    fn finish<T>(&self, request: request::Builder, body: T) -> Outcome<Request<T>> {
        let request = match &self.user_project {
            Some(project) => request.header("x-goog-user-project", project),
            None => request,
        };
        request
            .body(body)
            .map_err(|error| Fault::Unfit(error.to_string()))
    }

    /// Asks what is told of an object; `None` when there is none.
    async fn describe(&self, ask: Ask, key: &str) -> Outcome<Option<Told>> {
        let url = format!("{}?fields={TOLD_FIELDS}", self.url_of(key));
        let request = self.finish(Request::get(url), ())?;
        let transport = &self.session.transport;
        match transport.send(ask, request).await {
            Ok(found) => {
                let told = transport.body(found, OBJECT_BYTES_MAX).await?;
                answer::parse_object(&told).map(Some)
            }
            Err(fault) if fault.absent() => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Asks for a page of objects.
    async fn listed(
        &self,
        delimiter: &str,
        prefix: &str,
        token: Option<&str>,
        limit: Option<u32>,
    ) -> Outcome<Page> {
        let mut url = format!(
            "{}?{delimiter}fields=kind,nextPageToken,prefixes,items({OBJECT_FIELDS})",
            self.objects_url
        );
        for (name, value) in [("prefix", Some(prefix)), ("pageToken", token)] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                url.push_str(&format!("&{name}={}", percent_encode(value)));
            }
        }
        if let Some(limit) = limit {
            url.push_str(&format!("&maxResults={limit}"));
        }
        let request = self.finish(Request::get(url), ())?;
        let transport = &self.session.transport;
        let listed = transport.send(Ask::List, request).await;
        let listed = listed.map_err(answer::missing_bucket)?;
        let mut page = answer::parse_page(&transport.body(listed, PAGE_BYTES_MAX).await?)?;
        if prefix == self.prefix {
            let parts = format!("{prefix}{}", write::PARTS_DIR);
            page.prefixes.retain(|dir| dir.as_ref() != Some(&parts));
            let is_part = |object: &Object| {
                let key = object.key.as_ref();
                key.is_some_and(|key| key.starts_with(&parts))
            };
            page.objects.retain(|object| !is_part(object));
        }
        Ok(page)
    }
}

#[async_trait]
impl ObjectStore for Gcs {
    fn session(&self) -> &Arc<Session> {
        &self.session
    }

    async fn head(&self, key: &str) -> Outcome<Option<Found>> {
        let told = self.describe(Ask::Head, key).await?;
        Ok(told.map(|told| Found::Kept(told.tag, Box::new(told.kept))))
    }

    async fn page(&self, prefix: &str, token: Option<&str>, limit: Option<u32>) -> Outcome<Page> {
        self.listed("delimiter=%2F&", prefix, token, limit).await
    }

    fn lists_trees(&self) -> bool {
        true
    }

    async fn keys(&self, prefix: &str, token: Option<&str>) -> Outcome<Page> {
        self.listed("", prefix, token, None).await
    }

    async fn get(&self, key: &str, tag: &VersionTag, range: ByteRange) -> Outcome<Got> {
        let mut url = format!("{}?alt=media", self.url_of(key));
        if let Some(generation) = &tag.etag {
            url.push_str(&format!(
                "&ifGenerationMatch={}",
                percent_encode(generation)
            ));
        }
        // Otherwise what is stored compressed would come in another length than was told.
        let request = Request::get(url)
            .header(RANGE, range_header(range))
            .header(ACCEPT_ENCODING, "gzip");
        let request = self.finish(request, ())?;
        let answer = self.session.transport.send(Ask::Get, request).await?;
        check_version(tag, &tag_of(answer.headers())?)?;
        Ok(Got::exactly(answer))
    }

    fn writer(&self) -> Option<&dyn KeyWriter> {
        self.writes.store(true, Ordering::Relaxed);
        Some(self)
    }
}

/// Returns the version that the headers of an answer with bytes tell.
fn tag_of(headers: &HeaderMap) -> Outcome<VersionTag> {
    let size = whole_length(headers)
        .ok_or_else(|| Fault::WrongAnswer("an object without its length".into()))?;
    let generation = HeaderName::from_static("x-goog-generation");
    Ok(VersionTag {
        etag: header_text(headers, generation).map(String::from),
        mtime_ns: 0,
        size,
    })
}
