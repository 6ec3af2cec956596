// SPDX-License-Identifier: Apache-2.0
//! The S3 driver, over OpenDAL's S3 service.
//!
//! OpenDAL's public `Operator` trims names and merges slashes; its raw service does not, so that
//! one is used, with our transport below it (`http`), our listing beside it (`list`, `answer`),
//! and checked, resumable bodies above it (`read`). Keys are the mount's prefix and the path, byte
//! for byte.
//!
//! What S3 leaves open is decided so: a name that is an object and a prefix is a directory in
//! listings. A look at one name costs one HEAD if it is an object that is not empty, which then
//! answers for it, even if there are names below: only a second request could tell, each time.

mod answer;
mod config;
mod credentials;
mod fault;
mod http;
mod list;
mod profile;
mod read;
mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use opendal::raw::{OpStat, ServiceDyn};
use opendal::services::S3 as Service;
use opendal::{Builder, Executor, HttpTransporter, Metadata, OperationContext};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use types::{
    ByteRange, Clock, Deadline, Error, ErrorKind, NodeKind, ObjectMeta, ObjectPath, Result,
    VersionTag,
};

use self::answer::{clean_etag, whole_seconds_ns};
use self::config::Config;
use self::credentials::Signature;
use self::fault::{Fault, Place};
use self::http::{Http, Transport};
use self::tls::Clients;
use crate::retry::Retry;
use crate::uri::S3Location;
use crate::{ByteStream, Counters, ListStream, Settings, UnderStorage};

/// How often a check tries to connect: once more than a fluke takes.
const CONNECTS_OF_CHECK: u32 = 3;

/// Opens a bucket. Sends nothing.
pub(crate) fn open(
    location: S3Location,
    settings: &Settings,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn UnderStorage>> {
    let uri = location.uri();
    let config = Config::new(&location, settings, |name| std::env::var(name).ok())
        .map_err(|error| error.context(format!("open {uri}")))?;
    let inner = Inner::new(location, config, settings, clock)
        .map_err(|error| error.context(format!("open {uri}")))?;
    Ok(Arc::new(S3(Arc::new(inner))))
}

/// A bucket, or what lies below a prefix of one.
struct S3(Arc<Inner>);

/// What streams of bytes and of listings share with the storage they came from.
struct Inner {
    uri: String,
    identity: String,
    prefix: String,
    bucket_url: String,
    place: Place,
    service: Box<dyn ServiceDyn>,
    context: OperationContext,
    http: Arc<Http>,
    counters: Arc<Counters>,
    clock: Arc<dyn Clock>,
    request_timeout: Duration,
    /// As many requests as may run; a permit lives as long as the body of its answer.
    connections: Arc<Semaphore>,
}

impl Inner {
    fn new(
        location: S3Location,
        config: Config,
        settings: &Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let connections = settings.max_connections.max(1);
        let clients = Clients::new(config.ca_bundle.as_deref(), &config.endpoint, connections)?;
        let counters = Arc::new(Counters::default());
        let client = clients.storage.clone();
        let signed = Arc::clone(&counters);
        let http = Arc::new(Http {
            client,
            signature: Signature::new(config.credentials, &config.region, clients, signed),
            counters: Arc::clone(&counters),
            patience: settings.request_timeout,
        });
        // Signing is the transport's: OpenDAL is told to leave requests as they are.
        let builder = Service::default()
            .bucket(&location.bucket)
            .endpoint(&config.endpoint)
            .region(&config.region)
            .disable_config_load()
            .disable_ec2_metadata()
            .skip_signature();
        let builder = if config.path_style {
            builder
        } else {
            builder.enable_virtual_host_style()
        };
        let service = builder.build().map_err(|error| {
            Error::new(
                ErrorKind::Invalid,
                format!("set up the S3 service: {}", error.message()),
            )
        })?;
        let transport = HttpTransporter::new(Transport(Arc::clone(&http)));
        Ok(Inner {
            uri: location.uri(),
            identity: format!("{} at {}", location.uri(), config.endpoint),
            prefix: location.prefix,
            bucket_url: config.bucket_url,
            place: Place {
                endpoint: config.endpoint,
                bucket: location.bucket,
            },
            service: Box::new(service),
            context: OperationContext::from_parts(transport, Executor::default()),
            http,
            counters,
            clock,
            request_timeout: settings.request_timeout,
            connections: Arc::new(Semaphore::new(connections)),
        })
    }

    /// Returns the key of a path.
    fn key(&self, path: &ObjectPath) -> Result<String> {
        Ok(format!("{}{}", self.prefix, path.as_str()?))
    }

    /// Returns what all keys below a directory start with.
    fn prefix_of(&self, dir: &ObjectPath) -> Result<String> {
        let slash = if dir.is_root() { "" } else { "/" };
        Ok(format!("{}{slash}", self.key(dir)?))
    }

    /// Words an operation for messages: "read s3://bucket/key".
    fn name(&self, operation: &str, path: &ObjectPath) -> String {
        format!("{operation} {}{path}", self.uri)
    }

    /// Waits for one of the connections; it is given back when the permit is dropped.
    async fn connection(&self) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.connections).acquire_owned().await;
        permit.expect("the semaphore is never closed")
    }

    /// Sends until it succeeds, cannot succeed, or the deadline comes.
    async fn until_done<T>(
        &self,
        what: &str,
        retry: &mut Retry,
        request: impl Fn() -> BoxFuture<'static, std::result::Result<T, Fault>>,
    ) -> Result<T> {
        loop {
            let limited = async {
                let _connection = self.connection().await;
                request().await
            };
            let fault = match before(retry.deadline(), limited).await {
                Ok(done) => return Ok(done),
                Err(fault) => fault,
            };
            self.pause(what, retry, fault).await?;
        }
    }

    async fn pause(&self, what: &str, retry: &mut Retry, fault: Fault) -> Result<()> {
        let error = fault.into_error(what, &self.place);
        retry.pause(&*self.clock, &self.counters, error).await
    }

    /// Sends one HEAD; `None` when the storage says that there is no such object.
    async fn head(&self, key: &str) -> std::result::Result<Option<VersionTag>, Fault> {
        match self
            .service
            .stat_dyn(&self.context, key, OpStat::new())
            .await
        {
            Ok(answer) => Ok(Some(tag_of(&answer.into_metadata()))),
            Err(error) => match Fault::of(&error) {
                fault if fault.absent() => Ok(None),
                fault => Err(fault),
            },
        }
    }
}

#[async_trait]
impl UnderStorage for S3 {
    fn uri(&self) -> &str {
        &self.0.uri
    }

    fn identity(&self) -> &str {
        &self.0.identity
    }

    async fn stat(&self, path: &ObjectPath, deadline: Deadline) -> Result<ObjectMeta> {
        if path.is_root() {
            return Ok(ObjectMeta::implied_directory());
        }
        let inner = &self.0;
        let (what, mut retry) = (inner.name("look at", path), Retry::new(deadline));
        let key: Arc<str> = inner.key(path)?.into();
        let head = || -> BoxFuture<'static, _> {
            let (inner, key) = (Arc::clone(inner), Arc::clone(&key));
            Box::pin(async move { inner.head(&key).await })
        };
        let file = inner.until_done(&what, &mut retry, head).await?;
        let file = file.map(|tag| ObjectMeta {
            kind: NodeKind::File,
            tag,
            owner: None,
        });
        // An empty object may be one that tools put where a directory is.
        if let Some(file) = file.as_ref().filter(|file| file.tag.size > 0) {
            return Ok(file.clone());
        }
        let dir: Arc<str> = inner.prefix_of(path)?.into();
        let any = || -> BoxFuture<'static, _> {
            let (inner, dir) = (Arc::clone(inner), Arc::clone(&dir));
            Box::pin(async move { inner.any_below(&dir).await })
        };
        match inner.until_done(&what, &mut retry, any).await? {
            true => Ok(ObjectMeta::implied_directory()),
            false => file.ok_or_else(|| {
                Error::new(ErrorKind::NotFound, "no such object or directory").context(what)
            }),
        }
    }

    async fn check(&self, deadline: Deadline) -> Result<()> {
        let inner = &self.0;
        let (what, mut retry) = (
            inner.name("list", &ObjectPath::root()),
            Retry::new(deadline),
        );
        let mut refused = 0;
        loop {
            let fault = match before(retry.deadline(), inner.any_below(&inner.prefix)).await {
                Ok(_) => return Ok(()),
                Err(fault) => fault,
            };
            refused += u32::from(matches!(fault, Fault::Unreachable(_)));
            if refused == CONNECTS_OF_CHECK {
                return Err(fault.into_error(&what, &inner.place));
            }
            inner.pause(&what, &mut retry, fault).await?;
        }
    }

    fn list(&self, dir: &ObjectPath) -> ListStream {
        list::stream(Arc::clone(&self.0), dir.clone())
    }

    async fn read(
        &self,
        path: &ObjectPath,
        tag: &VersionTag,
        range: ByteRange,
        deadline: Deadline,
    ) -> Result<ByteStream> {
        read::stream(Arc::clone(&self.0), path, tag, range, deadline).await
    }

    fn counters(&self) -> &Counters {
        &self.0.counters
    }
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3")
            .field("identity", &self.0.identity)
            .finish_non_exhaustive()
    }
}

/// Returns the version that an answer's headers tell.
fn tag_of(meta: &Metadata) -> VersionTag {
    VersionTag {
        etag: meta.etag().and_then(clean_etag),
        mtime_ns: meta.last_modified().map_or(0, whole_seconds_ns),
        size: meta.content_length(),
    }
}

/// Waits for a request, but not beyond the deadline.
async fn before<T>(
    deadline: Deadline,
    request: impl Future<Output = std::result::Result<T, Fault>>,
) -> std::result::Result<T, Fault> {
    let late = |_| Err(Fault::Slow("no answer before the deadline".into()));
    tokio::time::timeout_at(deadline.instant().into(), request)
        .await
        .unwrap_or_else(late)
}
