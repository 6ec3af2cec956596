// SPDX-License-Identifier: Apache-2.0
//! A server that answers what a test tells it to, right or wrong.
//!
//! It writes bytes as they are given, so that it can lie about lengths, break off and fall silent.
//! Every request is recorded. One answer a connection. With a certificate it speaks TLS.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use types::{SystemClock, VersionTag};
use ufs::{Settings, UnderStorage, open};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Returns the first and the last byte asked for.
    pub(crate) fn range(&self) -> (usize, usize) {
        let range = self.header("range").strip_prefix("bytes=").unwrap();
        let (first, last) = range.split_once('-').unwrap();
        (first.parse().unwrap(), last.parse().unwrap())
    }
}

/// What to answer, and how it ends.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) bytes: Vec<u8>,
    pub(crate) end: End,
}

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The connection is closed in order.
    Close,
    /// The connection is reset.
    Reset,
    /// Nothing more comes.
    Silence,
}

/// Makes an answer with a head of these lines.
pub(crate) fn told(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Told {
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !headers
        .iter()
        .any(|(name, _)| matches!(*name, "Content-Length" | "Transfer-Encoding"))
    {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    Told {
        bytes: [head.as_bytes(), b"\r\n", body].concat(),
        end: End::Close,
    }
}

/// Makes an answer of S3 that refuses.
pub(crate) fn refused(status: &str, code: &str, message: &str) -> Told {
    let body = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    told(status, &[], body.as_bytes())
}

/// Makes the right answer to a ranged GET of `content` with this ETag.
pub(crate) fn honest(asked: &Asked, content: &[u8], etag: &str) -> Told {
    let (first, last) = asked.range();
    let range = format!("bytes {first}-{last}/{}", content.len());
    let etag = format!("\"{etag}\"");
    let headers = [("Content-Range", range.as_str()), ("ETag", etag.as_str())];
    told("206 Partial Content", &headers, &content[first..=last])
}

type Script = dyn Fn(usize, &Asked) -> Told + Send + Sync;

/// A running server.
pub(crate) struct Liar {
    endpoint: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Liar {
    /// Starts it; `script` gets the number of the request, from 0, and the request.
    pub(crate) async fn start(
        script: impl Fn(usize, &Asked) -> Told + Send + Sync + 'static,
    ) -> Self {
        Liar::start_with(None, script).await
    }

    /// Starts it, with TLS when there is an acceptor.
    pub(crate) async fn start_with(
        tls: Option<TlsAcceptor>,
        script: impl Fn(usize, &Asked) -> Told + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let endpoint = format!("{scheme}://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (script, record): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&asked));
        let runtime = tokio::runtime::Handle::current();
        let task = runtime.clone().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, record) = (Arc::clone(&script), Arc::clone(&record));
                match tls.clone() {
                    None => runtime.spawn(serve(stream, script, record)),
                    Some(tls) => runtime.spawn(async move {
                        if let Ok(mut stream) = tls.accept(stream).await {
                            answer(&mut stream, script, record).await;
                            // The other side may be gone already.
                            let _closed = stream.shutdown().await;
                        }
                    }),
                };
            }
        });
        Liar {
            endpoint,
            asked,
            task,
        }
    }

    /// Returns what was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Opens bucket `b` there; a request waits 300 ms for a sign of life.
    pub(crate) async fn open(&self) -> Arc<dyn UnderStorage> {
        self.open_with(&[]).await.unwrap()
    }

    /// The same, with more options.
    pub(crate) async fn open_with(
        &self,
        more: &[(&str, &str)],
    ) -> types::Result<Arc<dyn UnderStorage>> {
        let options = [
            ("endpoint", self.endpoint.as_str()),
            ("access_key_id", "id"),
            ("secret_access_key", "hunter2"),
            ("session_token", "tok3n"),
        ];
        let options: Vec<_> = options.iter().chain(more).copied().collect();
        self.open_as("s3://b/", &options).await
    }

    /// Opens another storage with these options and no others.
    pub(crate) async fn open_as(
        &self,
        uri: &str,
        options: &[(&str, &str)],
    ) -> types::Result<Arc<dyn UnderStorage>> {
        let settings = Settings {
            uri: uri.into(),
            options: options
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
            request_timeout: Duration::from_millis(300),
            max_connections: 4,
        };
        open(&settings, Arc::new(SystemClock)).await
    }

    /// Returns where it is, without a slash at its end.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns the version of an object of `size` bytes with ETag `v1`.
pub(crate) fn v1(size: usize) -> VersionTag {
    VersionTag {
        etag: Some("v1".into()),
        mtime_ns: 0,
        size: size as u64,
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Script>, record: Arc<Mutex<Vec<Asked>>>) {
    if answer(&mut stream, script, record).await == Some(End::Reset) {
        // What was sent must arrive before the reset overtakes it.
        let _more = tokio::time::timeout(Duration::from_millis(50), stream.read_u8()).await;
        stream.set_zero_linger().unwrap();
    }
}

/// Answers one request; tells how it should end.
async fn answer(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    script: Arc<Script>,
    record: Arc<Mutex<Vec<Asked>>>,
) -> Option<End> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap().split(' ');
    let mut asked = Asked {
        method: first.next().unwrap().into(),
        target: first.next().unwrap().into(),
        headers: lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.into()))
            .collect(),
        body: Vec::new(),
    };
    let length = asked.header("content-length").parse().unwrap_or(0);
    asked.body.resize(length, 0);
    stream.read_exact(&mut asked.body).await.ok()?;
    let told = {
        let mut record = record.lock().unwrap();
        record.push(asked.clone());
        script(record.len() - 1, &asked)
    };
    stream.write_all(&told.bytes).await.ok()?;
    stream.flush().await.ok()?;
    if told.end == End::Silence {
        // Ends when the other side gives up.
        let _more = stream.read_u8().await;
    }
    Some(told.end)
}
