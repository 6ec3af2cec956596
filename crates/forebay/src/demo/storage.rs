// SPDX-License-Identifier: Apache-2.0
//! The storage of the demo: an S3 server on the loopback with the pace of a remote one.
//!
//! The protocol is s3s; behind it are files of one directory and an index of the data set, which
//! knows each ETag without reading the file. (The file-system back-end of s3s hashes a file at each
//! request, lists without ETags and ignores If-Match: none of that is how a storage behaves.) Every
//! request waits for the latency, and all bodies share one wire of the bandwidth.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, stream};
use hyper_util::rt::TokioIo;
use s3s::dto::{
    CommonPrefix, ETag, ETagCondition, GetObjectInput, GetObjectOutput, HeadObjectInput,
    HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output, Object, StreamingBlob, Timestamp,
};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::dataset::{BUCKET, Dataset, Item};

/// The unit in which bodies are sent.
const PIECE_BYTES: u64 = 128 * 1024;
/// A timer is no finer than a millisecond: sending this far ahead of the wire hides that.
const WIRE_LEAD: Duration = Duration::from_millis(2);

/// How fast the storage is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) latency: Duration,
    pub(super) bytes_per_second: u64,
}

/// What was asked of the storage so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) requests: u64,
    pub(super) bytes: u64,
}

/// A storage that runs as long as the runtime does.
pub(super) struct Storage {
    port: u16,
    folder: Arc<Folder>,
}

impl Storage {
    /// Starts to listen on a free port of the loopback.
    pub(super) fn start(
        data: Arc<Dataset>,
        root: PathBuf,
        pace: Pace,
        runtime: &Runtime,
    ) -> Result<Storage> {
        let folder = Arc::new(Folder::new(&data, root, pace));
        let service = S3ServiceBuilder::new(Door(Arc::clone(&folder))).build();
        let listener = runtime
            .block_on(TcpListener::bind(("127.0.0.1", 0)))
            .context("listen on the loopback")?;
        let port = listener
            .local_addr()
            .context("listen on the loopback")?
            .port();
        let (tasks, handle) = (TaskTracker::new(), runtime.handle().clone());
        runtime.spawn(accept(listener, service, tasks, handle));
        Ok(Storage { port, folder })
    }

    /// Returns the address for clients.
    pub(super) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns what was asked so far.
    pub(super) fn counts(&self) -> Counts {
        Counts {
            requests: self.folder.requests.load(Ordering::Relaxed),
            bytes: self.folder.bytes.load(Ordering::Relaxed),
        }
    }
}

async fn accept(
    listener: TcpListener,
    service: S3Service,
    tasks: TaskTracker,
    handle: tokio::runtime::Handle,
) {
    // Ends with the first fault: then the demo fails, with what the daemon says of it.
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).ok();
        let service = service.clone();
        tasks.spawn_on(
            async move {
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                // A client that goes away is no fault of the storage.
                connection.await.ok();
            },
            &handle,
        );
    }
}

/// One wire for all connections.
#[derive(Debug)]
struct Wire {
    bytes_per_second: u64,
    /// When the wire is free again.
    free_at: Mutex<Instant>,
}

impl Wire {
    /// Waits until so many bytes have gone through.
    async fn send(&self, bytes: u64) {
        let sent_at = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let took =
                Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / self.bytes_per_second);
            *free_at = (*free_at).max(Instant::now()) + took;
            *free_at
        };
        if sent_at > Instant::now() + WIRE_LEAD {
            tokio::time::sleep_until(sent_at - WIRE_LEAD).await;
        }
    }
}

/// The bucket.
#[derive(Debug)]
struct Folder {
    root: PathBuf,
    index: BTreeMap<String, Item>,
    modified: Timestamp,
    latency: Duration,
    wire: Arc<Wire>,
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Folder {
    fn new(data: &Dataset, root: PathBuf, pace: Pace) -> Folder {
        let index = data
            .items()
            .map(|item| (item.key.clone(), item.clone()))
            .collect();
        let free_at = Mutex::new(Instant::now());
        Folder {
            root,
            index,
            modified: Timestamp::from(std::time::UNIX_EPOCH + Duration::from_secs(1_714_521_600)),
            latency: pace.latency,
            wire: Arc::new(Wire {
                bytes_per_second: pace.bytes_per_second,
                free_at,
            }),
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// What every request costs.
    async fn arrive(&self, bucket: &str) -> S3Result<()> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(self.latency).await;
        match bucket == BUCKET {
            true => Ok(()),
            false => Err(s3_error!(NoSuchBucket)),
        }
    }

    fn find(&self, key: &str, if_match: Option<&ETagCondition>) -> S3Result<&Item> {
        let item = self.index.get(key).ok_or_else(|| s3_error!(NoSuchKey))?;
        match if_match {
            Some(ETagCondition::ETag(etag)) if etag.value() != item.etag() => {
                Err(s3_error!(PreconditionFailed))
            }
            _ => Ok(item),
        }
    }

    /// Returns one page of a listing: objects, common prefixes, and where the next page begins.
    fn list(&self, prefix: &str, delimiter: Option<&str>, after: &str, max: usize) -> Page<'_> {
        let mut page = Page::default();
        let mut from = match after >= prefix {
            true => Bound::Excluded(after.to_owned()),
            false => Bound::Included(prefix.to_owned()),
        };
        while let Some((key, item)) = self
            .index
            .range::<String, _>((from, Bound::Unbounded))
            .next()
        {
            let Some(rest) = key.strip_prefix(prefix) else {
                break;
            };
            if page.objects.len() + page.prefixes.len() == max {
                page.next = page.last.take();
                break;
            }
            let group =
                delimiter.and_then(|delimiter| Some(rest.find(delimiter)? + delimiter.len()));
            let last = match group {
                Some(len) => {
                    let group = &key[..prefix.len() + len];
                    page.prefixes.push(group.to_owned());
                    // No key of the group is greater.
                    format!("{group}\u{10ffff}")
                }
                None => {
                    page.objects.push(item);
                    key.clone()
                }
            };
            page.last = Some(last.clone());
            from = Bound::Excluded(last);
        }
        page
    }
}

#[derive(Default)]
struct Page<'a> {
    objects: Vec<&'a Item>,
    prefixes: Vec<String>,
    last: Option<String>,
    next: Option<String>,
}

/// The S3 operations that a reader needs.
struct Door(Arc<Folder>);

#[async_trait]
impl S3 for Door {
    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        self.0.arrive(&input.bucket).await?;
        let after = input
            .continuation_token
            .as_deref()
            .or(input.start_after.as_deref());
        let max = input
            .max_keys
            .and_then(|max| usize::try_from(max).ok())
            .unwrap_or(1000)
            .min(1000);
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let page = self.0.list(
            prefix,
            input.delimiter.as_deref(),
            after.unwrap_or_default(),
            max,
        );
        let objects = page.objects.iter().map(|item| Object {
            key: Some(item.key.clone()),
            size: i64::try_from(item.size).ok(),
            e_tag: Some(ETag::Strong(item.etag())),
            last_modified: Some(self.0.modified.clone()),
            ..Object::default()
        });
        let prefixes = page.prefixes.iter().map(|prefix| CommonPrefix {
            prefix: Some(prefix.clone()),
        });
        Ok(S3Response::new(ListObjectsV2Output {
            contents: Some(objects.collect()),
            common_prefixes: Some(prefixes.collect()),
            key_count: i32::try_from(page.objects.len() + page.prefixes.len()).ok(),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next,
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            max_keys: input.max_keys,
            ..ListObjectsV2Output::default()
        }))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        self.0.arrive(&input.bucket).await?;
        let item = self.0.find(&input.key, input.if_match.as_ref())?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: i64::try_from(item.size).ok(),
            e_tag: Some(ETag::Strong(item.etag())),
            last_modified: Some(self.0.modified.clone()),
            ..HeadObjectOutput::default()
        }))
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        self.0.arrive(&input.bucket).await?;
        let item = self.0.find(&input.key, input.if_match.as_ref())?;
        let range = match input.range {
            Some(range) => range.check(item.size)?,
            None => 0..item.size,
        };
        let content_range = input
            .range
            .map(|_| format!("bytes {}-{}/{}", range.start, range.end - 1, item.size));
        let file = File::open(self.0.root.join(&item.key)).map_err(|_| s3_error!(InternalError))?;
        let length = i64::try_from(range.end - range.start).ok();
        Ok(S3Response::new(GetObjectOutput {
            body: Some(StreamingBlob::wrap(body(Arc::clone(&self.0), file, range))),
            content_length: length,
            content_range,
            e_tag: Some(ETag::Strong(item.etag())),
            last_modified: Some(self.0.modified.clone()),
            ..GetObjectOutput::default()
        }))
    }
}

/// Sends a part of a file at the pace of the wire.
fn body(
    folder: Arc<Folder>,
    file: File,
    range: std::ops::Range<u64>,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
    let state = (folder, Arc::new(file), range);
    stream::try_unfold(state, |(folder, file, mut range)| async move {
        let len = (range.end - range.start).min(PIECE_BYTES);
        if len == 0 {
            return Ok(None);
        }
        let (source, at) = (Arc::clone(&file), range.start);
        let piece = tokio::task::spawn_blocking(move || {
            #[allow(clippy::cast_possible_truncation, reason = "at most PIECE_BYTES")]
            let mut piece = vec![0; len as usize];
            source.read_exact_at(&mut piece, at).map(|()| piece)
        });
        let piece = piece.await.map_err(std::io::Error::other)??;
        folder.wire.send(len).await;
        folder.bytes.fetch_add(len, Ordering::Relaxed);
        range.start += len;
        Ok(Some((Bytes::from(piece), (folder, file, range))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(keys: &[&str]) -> Folder {
        let item = |key: &&str| Item {
            key: (*key).to_owned(),
            size: 1,
            checksum: 7,
        };
        let data = Dataset {
            images: keys.iter().map(item).collect(),
            shards: Vec::new(),
        };
        Folder::new(
            &data,
            PathBuf::new(),
            Pace {
                latency: Duration::ZERO,
                bytes_per_second: 1 << 30,
            },
        )
    }

    #[test]
    fn listings_group_by_the_delimiter_and_go_on_where_they_stopped() {
        let folder = folder(&["a/1", "a/2", "b", "c/x/1", "c/x/2", "c/y"]);
        let mut seen = Vec::new();
        let mut after = String::new();
        loop {
            let page = folder.list("", Some("/"), &after, 1);
            seen.extend(page.prefixes);
            seen.extend(page.objects.iter().map(|item| item.key.clone()));
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        assert_eq!(seen, ["a/", "b", "c/"]);
        let page = folder.list("c/", Some("/"), "", 1000);
        assert_eq!(page.prefixes, ["c/x/"]);
        assert_eq!(page.objects.len(), 1);
        assert_eq!(folder.list("c/", None, "", 1000).objects.len(), 3);
        assert!(folder.list("nothing", None, "", 1000).objects.is_empty());
    }

    #[test]
    fn another_version_is_refused() {
        let folder = folder(&["a"]);
        let condition = |etag: &str| Some(ETagCondition::ETag(ETag::Strong(etag.to_owned())));
        assert!(
            folder
                .find("a", condition("0000000000000007").as_ref())
                .is_ok()
        );
        assert!(
            folder
                .find("a", condition("0000000000000008").as_ref())
                .is_err()
        );
        assert!(folder.find("b", None).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn all_connections_share_one_wire() {
        let wire = Wire {
            bytes_per_second: 1_000_000,
            free_at: Mutex::new(Instant::now()),
        };
        let started = Instant::now();
        let send = || async {
            for _ in 0..10 {
                wire.send(50_000).await;
            }
        };
        tokio::join!(send(), send());
        let took = started.elapsed();
        assert!(
            (Duration::from_millis(995)..Duration::from_millis(1_010)).contains(&took),
            "{took:?}"
        );
    }
}
