// SPDX-License-Identifier: Apache-2.0
//! The admin API over TCP, for who asks for that: with TLS and a token, or not at all.
//!
//! Handshakes are done beside each other, and there is a bound of connections: somebody who connects
//! and says nothing keeps nobody out who comes later, and takes no more of the daemon than that.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::{IncomingStream, Listener};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use types::{Clock, Error, ErrorKind, Result, SystemClock};

use crate::admin::{self, Node};
use crate::errors;
use crate::token::{Token, write_secret};

/// Connections at a time. An operator and a few programs that watch need less.
const CONNECTIONS_MAX: usize = 64;

/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// A refusal is logged once in so many seconds: whoever knocks does not fill the log.
const QUIET_SECONDS: u64 = 60;

/// A certificate and its key, as files in PEM.
#[derive(Debug, Clone, Copy)]
pub struct Files<'a> {
    /// The certificate, with those that lead to one that clients trust.
    pub certificate: &'a Path,
    /// Its key.
    pub key: &'a Path,
}

/// What a daemon shows to prove who it is.
#[derive(Debug, Clone)]
pub struct Identity {
    config: Arc<ServerConfig>,
    /// SHA-256 of the certificate, for people to compare.
    pub fingerprint: String,
}

impl Identity {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    /// Which file is missing or does not hold what it should.
    pub fn read(files: Files<'_>) -> Result<Identity> {
        let wrong = |file: &Path, what: &str, source: &dyn std::error::Error| {
            let message = format!("no {what} in '{}': {source}", file.display());
            Error::new(ErrorKind::Invalid, message)
        };
        let no_certificate = |source| wrong(files.certificate, "certificate in PEM", &source);
        let chain = CertificateDer::pem_file_iter(files.certificate)
            .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
            .map_err(no_certificate)?;
        let Some(first) = chain.first() else {
            let nothing = rustls::pki_types::pem::Error::NoItemsFound;
            return Err(no_certificate(nothing));
        };
        let fingerprint = fingerprint(first);
        let key = PrivateKeyDer::from_pem_file(files.key)
            .map_err(|source| wrong(files.key, "private key in PEM", &source))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map(|builder| builder.with_no_client_auth())
            .and_then(|builder| builder.with_single_cert(chain, key))
            .map_err(|source| wrong(files.key, "key of that certificate", &source))?;
        Ok(Identity {
            config: Arc::new(config),
            fingerprint,
        })
    }

    /// Reads a certificate and its key, and makes both when the first is not there: one that is signed
    /// by itself, for these names and addresses of the machine.
    ///
    /// # Errors
    /// Those of [`Identity::read`], and why the files could not be made.
    pub fn read_or_make(files: Files<'_>, names: Vec<String>) -> Result<Identity> {
        let is_there = |file: &Path| {
            let fault = |source| Error::io(format!("look for '{}'", file.display()), source);
            file.try_exists().map_err(fault)
        };
        if !is_there(files.certificate)? {
            let fault = |source| Error::internal("make a certificate").with_source(source);
            let made = rcgen::generate_simple_self_signed(names).map_err(fault)?;
            // A key that a former attempt left is of no use without its certificate.
            if is_there(files.key)? {
                std::fs::remove_file(files.key).map_err(|source| {
                    Error::io(format!("replace '{}'", files.key.display()), source)
                })?;
            }
            write_secret(files.key, &made.signing_key.serialize_pem())?;
            write_secret(files.certificate, &made.cert.pem())?;
        }
        Identity::read(files)
    }
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    let bytes = digest.as_ref().iter().map(|byte| format!("{byte:02X}"));
    bytes.collect::<Vec<_>>().join(":")
}

/// Who may ask, and when a refusal was last logged.
#[derive(Debug)]
struct Guard {
    token: Token,
    logged_at: AtomicU64,
}

/// Answers requests that bring the token until `stop` resolves, then lets those in progress finish.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    identity: Identity,
    token: Token,
    node: Arc<dyn Node>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let local = listener
        .local_addr()
        .map_err(|source| Error::io("listen for the admin API", source))?;
    let (sender, ready) = mpsc::channel(1);
    let guard = Arc::new(Guard {
        token,
        logged_at: AtomicU64::new(0),
    });
    let router = admin::routes(node).layer(middleware::from_fn_with_state(guard, check_token));
    let service = router.into_make_service_with_connect_info::<Peer>();
    let served = axum::serve(Handshaken { ready, local }, service).with_graceful_shutdown(stop);
    tokio::select! {
        served = served => served.map_err(|source| Error::io("serve the admin API", source)),
        () = accept(listener, identity, sender) => Ok(()),
    }
}

/// Takes connections and shakes hands, as many at a time as there may be connections.
async fn accept(
    listener: TcpListener,
    identity: Identity,
    ready: mpsc::Sender<(Connection, SocketAddr)>,
) {
    let acceptor = TlsAcceptor::from(identity.config);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut handshakes = JoinSet::new();
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        // What has ended makes no room by itself.
        while handshakes.try_join_next().is_some() {}
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!("admin API over TCP: {error}");
                // Out of files, or somebody who left at once.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        handshakes.spawn(async move {
            let shaken = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await;
            if let Ok(Ok(stream)) = shaken {
                let connection = Connection {
                    stream,
                    _permit: permit,
                };
                ready.send((connection, from)).await.ok();
            }
        });
    }
}

/// A connection that has shaken hands.
#[derive(Debug)]
struct Connection {
    stream: TlsStream<TcpStream>,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Connections that have shaken hands.
struct Handshaken {
    ready: mpsc::Receiver<(Connection, SocketAddr)>,
    local: SocketAddr,
}

impl Listener for Handshaken {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.ready.recv().await {
            Some(ready) => ready,
            // Whoever accepts has ended, and all of this with it.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
struct Peer(SocketAddr);

impl axum::extract::connect_info::Connected<IncomingStream<'_, Handshaken>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Handshaken>) -> Self {
        Peer(*stream.remote_addr())
    }
}

async fn check_token(
    State(guard): State<Arc<Guard>>,
    ConnectInfo(Peer(from)): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if !guard.token.is_in(request.headers()) {
        if guard.may_log() {
            tracing::warn!("admin API: refused {from}, who did not bring the token");
        }
        let message = "bring the token: 'Authorization: Bearer ...' with what is in the file of the \
                       daemon's --admin-token-file";
        let (_, body) = errors::answer(&Error::new(ErrorKind::PermissionDenied, message));
        let challenge = [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))];
        return (StatusCode::UNAUTHORIZED, challenge, axum::Json(body)).into_response();
    }
    match *request.method() {
        Method::GET => next.run(request).await,
        _ => admin::audited(from.to_string(), request, next).await,
    }
}

impl Guard {
    fn may_log(&self) -> bool {
        let now = SystemClock.wall().duration_since(std::time::UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs());
        let logged = self.logged_at.load(Ordering::Relaxed);
        let is_due = now >= logged + QUIET_SECONDS;
        is_due
            && self
                .logged_at
                .compare_exchange(logged, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}
