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

/// How long a slow body makes one wait for each byte.
const TRICKLE: Duration = Duration::from_millis(40);

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// Path and query, as they came.
    pub target: String,
    /// The headers, their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Asked {
    /// Returns a header; empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Returns the first and the last byte asked for.
    ///
    /// # Panics
    /// When no range is asked for.
    pub fn range(&self) -> (usize, usize) {
        let range = self.header("range").strip_prefix("bytes=");
        let ends = range.and_then(|range| range.split_once('-'));
        let number = |text: &str| text.parse().expect("a number of a byte");
        ends.map(|(first, last)| (number(first), number(last)))
            .expect("a range is asked for")
    }
}

/// What to answer, and how it ends.
#[derive(Debug, Clone)]
pub struct Told {
    /// Head and body.
    pub bytes: Vec<u8>,
    /// How it ends.
    pub end: End,
}

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The connection is closed in order.
    Close,
    /// The connection is reset.
    Reset,
    /// Nothing more comes.
    Silence,
    /// The body comes a byte at a time, and the connection is closed in order.
    Trickle,
}

/// Makes an answer with a head of these lines.
pub fn told(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Told {
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

type Script = dyn Fn(usize, &Asked) -> Told + Send + Sync;

/// A running server; ends when dropped.
#[derive(Debug)]
pub struct Scripted {
    endpoint: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Scripted {
    /// Starts it; `script` gets the number of the request, from 0, and the request.
    ///
    /// # Panics
    /// Outside of a runtime, or when there is no port.
    pub async fn start(script: impl Fn(usize, &Asked) -> Told + Send + Sync + 'static) -> Self {
        Scripted::start_with(None, script).await
    }

    /// Starts it, with TLS when there is an acceptor.
    ///
    /// # Panics
    /// Outside of a runtime, or when there is no port.
    pub async fn start_with(
        tls: Option<TlsAcceptor>,
        script: impl Fn(usize, &Asked) -> Told + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let address = listener.local_addr().expect("an address");
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
        Scripted {
            endpoint: format!("{scheme}://{address}"),
            asked,
            task,
        }
    }

    /// Returns what was asked so far.
    ///
    /// # Panics
    /// When the script did.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no holder panics").clone()
    }

    /// Returns where it is, without a slash at its end.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Script>, record: Arc<Mutex<Vec<Asked>>>) {
    if answer(&mut stream, script, record).await == Some(End::Reset) {
        // What was sent must arrive before the reset overtakes it.
        let _more = tokio::time::timeout(Duration::from_millis(50), stream.read_u8()).await;
        // The connection ends in any case.
        let _reset = stream.set_zero_linger();
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
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let mut asked = Asked {
        method: first.next()?.into(),
        target: first.next()?.into(),
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
        let mut record = record.lock().expect("no holder panics");
        record.push(asked.clone());
        script(record.len() - 1, &asked)
    };
    let end_of_head = told.bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let (at_once, rest) = match (told.end, end_of_head) {
        (End::Trickle, Some(at)) => told.bytes.split_at(at + 4),
        _ => (&told.bytes[..], &b""[..]),
    };
    stream.write_all(at_once).await.ok()?;
    stream.flush().await.ok()?;
    for byte in rest {
        tokio::time::sleep(TRICKLE).await;
        stream.write_all(&[*byte]).await.ok()?;
        stream.flush().await.ok()?;
    }
    if told.end == End::Silence {
        // Ends when the other side gives up.
        let _more = stream.read_u8().await;
    }
    Some(told.end)
}
