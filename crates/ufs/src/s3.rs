// SPDX-License-Identifier: Apache-2.0
//! The S3 driver: AWS and all storages that speak its protocol, Ceph's gateway among them.
//!
//! Here is what is S3's own: addresses (`config`), signatures (`credentials`, `profile`,
//! `signature`), pages
//! (`answer`), changes (`write`, `change`), and what its codes mean (`refusal`). The rest is that of
//! every object store (`http`). Reads carry `If-Match` with the ETag of the version.

mod answer;
mod change;
mod config;
mod credentials;
mod profile;
mod refusal;
mod signature;
mod write;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use http::header::{IF_MATCH, LAST_MODIFIED, RANGE};
use http::{HeaderMap, Request};
use types::{ByteRange, Clock, Result, VersionTag};

use self::answer::{parse_buckets, parse_page};
use self::config::{Address, Config};
use crate::http::{
    Ask, Bucket, Clients, Fault, Found, Got, KeyWriter, ObjectStore, Outcome, Page, Session, Skew,
    Transport, Who, check_version, clean_etag, header_text, http_time, if_match, percent_encode,
    percent_encode_path, range_header, signing_context, whole_length,
};
use crate::uri::BucketLocation;
use crate::{Counters, Secrets, Settings, UnderStorage};

/// A page of 1,000 keys of a kilobyte, each byte encoded as three, and as much again around them.
const PAGE_BYTES_MAX: usize = 16 << 20;

/// Opens a bucket. Sends nothing.
pub(crate) fn open(
    location: BucketLocation,
    settings: &Settings,
    secrets: Option<Secrets>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn UnderStorage>> {
    let uri = location.uri();
    let store = S3::new(&location, settings, secrets, clock)
        .map_err(|error| error.context(format!("open {uri}")))?;
    Ok(Arc::new(Bucket::new(uri, location.prefix, store)))
}

fn config_of(location: &BucketLocation, settings: &Settings) -> Result<Config> {
    Config::new(location, settings, |name| std::env::var(name).ok())
}

/// The requests of S3.
struct S3 {
    session: Arc<Session>,
    address: Address,
    /// None: all buckets, and a key is a bucket and what is in it.
    bucket: Option<String>,
    /// The latest answer to bytes repeated their checksum.
    repeats_checksums: AtomicBool,
    /// The storage compares the tag of a condition of a write with its own letter by letter.
    wants_bare_tags: AtomicBool,
}

impl S3 {
    fn new(
        location: &BucketLocation,
        settings: &Settings,
        secrets: Option<Secrets>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let config = config_of(location, settings)?;
        let connections = settings.max_connections.max(1);
        let clients = Clients::new(
            config.ca_bundle.as_deref(),
            &config.address.endpoint,
            connections,
        )?;
        let counters = Arc::new(Counters::default());
        let skew = Skew::new(Arc::clone(&clock));
        let (endpoint, bucket) = (config.address.endpoint.clone(), location.bucket.clone());
        let context = signing_context(&clients, Arc::clone(&counters), Arc::clone(&skew));
        let (place, ours, at) = (location.clone(), Arc::clone(&clock), Arc::clone(&skew));
        let who = Who::new(settings, secrets, move |settings| {
            let Config {
                credentials,
                region,
                ..
            } = config_of(&place, settings)?;
            let texts = credentials.secrets();
            let (context, clock, skew) = (context.clone(), Arc::clone(&ours), Arc::clone(&at));
            let authorize = credentials::authorize(credentials, &region, context, clock, skew);
            Ok((authorize, texts))
        })?;
        let transport = Transport {
            client: clients.storage,
            authorize: who.authorize,
            secrets: who.hidden,
            refusal: Box::new(move |status, headers, body| {
                refusal::read(status, headers, body, &endpoint, &bucket)
            }),
            counters,
            patience: settings.request_timeout,
            skew,
        };
        Ok(S3 {
            session: Arc::new(Session::new(
                config.address.endpoint.clone(),
                transport,
                settings,
                clock,
            )),
            address: config.address,
            bucket: (!location.is_all()).then(|| location.bucket.clone()),
            repeats_checksums: AtomicBool::new(false),
            wants_bare_tags: AtomicBool::new(false),
        })
    }

    /// Returns the bucket of a key, and the key in it. Without a bucket a key of no slash is one.
    fn split<'a>(&'a self, key: &'a str) -> (&'a str, &'a str) {
        match &self.bucket {
            Some(bucket) => (bucket, key),
            None => key.split_once('/').unwrap_or((key, "")),
        }
    }

    fn url_of(&self, key: &str) -> String {
        let (bucket, key) = self.split(key);
        let url = self.address.bucket_url(bucket);
        format!("{url}/{}", percent_encode_path(key))
    }

    /// Asks for all buckets, as a page of directories.
    async fn buckets(&self) -> Outcome<Page> {
        let request = Request::get(format!("{}/", self.address.endpoint)).body(());
        let request = request.map_err(|error| Fault::Unfit(error.to_string()))?;
        let transport = &self.session.transport;
        let answer = transport.send(Ask::List, request).await?;
        parse_buckets(&transport.body(answer, PAGE_BYTES_MAX).await?)
    }

    /// Asks for a page of keys.
    async fn listed(
        &self,
        delimiter: &str,
        prefix: &str,
        token: Option<&str>,
        limit: Option<u32>,
    ) -> Outcome<Page> {
        let (bucket, prefix) = self.split(prefix);
        let mut url = format!(
            "{}?list-type=2{delimiter}&encoding-type=url",
            self.address.bucket_url(bucket)
        );
        for (name, value) in [("prefix", Some(prefix)), ("continuation-token", token)] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                // A slash may stand in a query, but signers differ about it.
                url.push_str(&format!("&{name}={}", percent_encode(value)));
            }
        }
        if let Some(limit) = limit {
            url.push_str(&format!("&max-keys={limit}"));
        }
        let request = Request::get(url).body(());
        let request = request.map_err(|error| Fault::Unfit(error.to_string()))?;
        let transport = &self.session.transport;
        let answer = match transport.send(Ask::List, request).await {
            Ok(answer) => answer,
            // Among all buckets one that is not there is a name that is not there.
            Err(Fault::Refused(refusal))
                if self.bucket.is_none() && refusal.code == "NoSuchBucket" =>
            {
                return Ok(Page::default());
            }
            // Only a bucket can be missing here, and that has a code of its own.
            Err(fault) if fault.absent() => {
                return Err(Fault::Unfit(format!("{fault}; is this an S3 endpoint?")));
            }
            Err(fault) => return Err(fault),
        };
        let mut page = parse_page(&transport.body(answer, PAGE_BYTES_MAX).await?)?;
        if self.bucket.is_none() {
            let keys = page.objects.iter_mut().map(|object| &mut object.key);
            for key in keys.chain(&mut page.prefixes).flatten() {
                key.insert_str(0, &format!("{bucket}/"));
            }
        }
        Ok(page)
    }
}

#[async_trait]
impl ObjectStore for S3 {
    fn session(&self) -> &Arc<Session> {
        &self.session
    }

    async fn head(&self, key: &str) -> Outcome<Option<Found>> {
        let request = Request::head(self.url_of(key)).body(());
        let request = request.map_err(|error| Fault::Unfit(error.to_string()))?;
        let is_bucket = self.bucket.is_none() && !key.contains('/');
        match self.session.transport.send(Ask::Head, request).await {
            Ok(_) if is_bucket => Ok(Some(Found::Directory)),
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
        if self.bucket.is_none() && prefix.is_empty() {
            return self.buckets().await;
        }
        self.listed("&delimiter=%2F", prefix, token, limit).await
    }

    fn lists_trees(&self) -> bool {
        // A directory bucket lists its keys in no order.
        self.bucket
            .as_deref()
            .is_some_and(|bucket| !bucket.ends_with("--x-s3"))
    }

    async fn keys(&self, prefix: &str, token: Option<&str>) -> Outcome<Page> {
        self.listed("", prefix, token, None).await
    }

    async fn get(&self, key: &str, tag: &VersionTag, range: ByteRange) -> Outcome<Got> {
        let mut request = Request::get(self.url_of(key)).header(RANGE, range_header(range));
        if let Some(condition) = tag.etag.as_deref().and_then(if_match) {
            request = request.header(IF_MATCH, condition);
        }
        let request = request
            .body(())
            .map_err(|error| Fault::Unfit(error.to_string()))?;
        let answer = self.session.transport.send(Ask::Get, request).await?;
        check_version(tag, &tag_of(answer.headers())?)?;
        Ok(Got::exactly(answer))
    }

    fn writer(&self) -> Option<&dyn KeyWriter> {
        Some(self)
    }
}

/// Returns the version that an answer's headers tell; its time is the one that is kept beside it,
/// where there is one.
fn tag_of(headers: &HeaderMap) -> Outcome<VersionTag> {
    let size = whole_length(headers)
        .ok_or_else(|| Fault::WrongAnswer("an object without its length".into()))?;
    Ok(VersionTag {
        etag: header_text(headers, http::header::ETAG).and_then(clean_etag),
        mtime_ns: write::kept(headers)
            .attributes
            .mtime_ns
            .unwrap_or_else(|| header_text(headers, LAST_MODIFIED).map_or(0, http_time)),
        size,
    })
}
