// SPDX-License-Identifier: Apache-2.0
//! The driver of Google Cloud Storage, over its JSON API.
//!
//! Here is what is Google's own: options (`config`), signatures (`credentials`), pages and refusals
//! (`answer`). A version is a generation: reads carry `ifGenerationMatch`, and an answer of another
//! generation is not believed. Objects stored compressed are read as they are stored, because their
//! length is that of the stored bytes.

mod answer;
mod config;
mod credentials;

use std::sync::Arc;

use async_trait::async_trait;
use http::header::{ACCEPT_ENCODING, RANGE};
use http::{HeaderMap, HeaderName, Request, request};
use types::{ByteRange, Clock, Result, VersionTag};

use self::config::Config;
use crate::http::{
    Ask, Bucket, Clients, Fault, Found, Got, ObjectStore, Outcome, Page, Session, Transport,
    check_version, header_text, percent_encode, range_header, signing_context, whole_length,
};
use crate::uri::BucketLocation;
use crate::{Counters, Settings, UnderStorage};

/// A page of 1,000 names of a kilobyte, each byte escaped as six, and as much again around them.
const PAGE_BYTES_MAX: usize = 16 << 20;
/// What is told of one object is some hundred bytes when only these fields are asked for.
const OBJECT_BYTES_MAX: usize = 64 << 10;
const OBJECT_FIELDS: &str = "name,size,generation,timeCreated";

/// Opens a bucket. Sends nothing.
pub(crate) fn open(
    location: BucketLocation,
    settings: &Settings,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn UnderStorage>> {
    let uri = location.uri();
    let store = Config::new(settings, |name| std::env::var(name).ok())
        .and_then(|config| Gcs::new(&location, config, settings, clock))
        .map_err(|error| error.context(format!("open {uri}")))?;
    Ok(Arc::new(Bucket::new(uri, location.prefix, store)))
}

/// The requests of Google Cloud Storage.
struct Gcs {
    session: Arc<Session>,
    objects_url: String,
    user_project: Option<String>,
}

impl Gcs {
    fn new(
        location: &BucketLocation,
        config: Config,
        settings: &Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let connections = settings.max_connections.max(1);
        let clients = Clients::new(config.ca_bundle.as_deref(), &config.endpoint, connections)?;
        let counters = Arc::new(Counters::default());
        let bucket = location.bucket.clone();
        let context = signing_context(&clients, Arc::clone(&counters));
        let transport = Transport {
            client: clients.storage,
            secrets: config.credentials.secrets(),
            authorize: credentials::authorize(config.credentials, context, Arc::clone(&clock)),
            refusal: Box::new(move |status, _, body| answer::read_refusal(status, body, &bucket)),
            counters,
            patience: settings.request_timeout,
        };
        let objects_url = format!("{}/storage/v1/b/{}/o", config.endpoint, location.bucket);
        Ok(Gcs {
            session: Arc::new(Session::new(config.endpoint, transport, settings, clock)),
            objects_url,
            user_project: config.user_project,
        })
    }

    fn url_of(&self, key: &str) -> String {
        format!("{}/{}", self.objects_url, percent_encode(key))
    }

    fn finish(&self, request: request::Builder) -> Outcome<Request<()>> {
        let request = match &self.user_project {
            Some(project) => request.header("x-goog-user-project", project),
            None => request,
        };
        request
            .body(())
            .map_err(|error| Fault::Unfit(error.to_string()))
    }
}

#[async_trait]
impl ObjectStore for Gcs {
    fn session(&self) -> &Arc<Session> {
        &self.session
    }

    async fn head(&self, key: &str) -> Outcome<Option<Found>> {
        let url = format!("{}?fields={OBJECT_FIELDS}", self.url_of(key));
        let request = self.finish(Request::get(url))?;
        let transport = &self.session.transport;
        match transport.send(Ask::Head, request).await {
            Ok(found) => {
                let object = answer::parse_object(&transport.body(found, OBJECT_BYTES_MAX).await?)?;
                Ok(Some(Found::Object(VersionTag {
                    etag: object.etag,
                    mtime_ns: object.mtime_ns,
                    size: object.size,
                })))
            }
            Err(fault) if fault.absent() => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    async fn page(&self, prefix: &str, token: Option<&str>, limit: Option<u32>) -> Outcome<Page> {
        let mut url = format!(
            "{}?delimiter=%2F&fields=kind,nextPageToken,prefixes,items({OBJECT_FIELDS})",
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
        let request = self.finish(Request::get(url))?;
        let transport = &self.session.transport;
        let listed = transport.send(Ask::List, request).await;
        let listed = listed.map_err(answer::missing_bucket)?;
        answer::parse_page(&transport.body(listed, PAGE_BYTES_MAX).await?)
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
        let request = self.finish(request)?;
        let answer = self.session.transport.send(Ask::Get, request).await?;
        check_version(tag, &tag_of(answer.headers())?)?;
        Ok(Got::exactly(answer))
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
