// SPDX-License-Identifier: Apache-2.0
//! The other end of the admin API, for the command line.
//!
//! One connection per call, each bounded by the time the caller gives. A daemon that is gone is
//! [`ErrorKind::Unavailable`], one that does not answer [`ErrorKind::Timeout`].

mod remote;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use types::{Error, ErrorKind, Result};

use crate::errors;
use crate::wire;
use remote::Remote;

/// A status with a thousand mounts is 300 KB; more than this is not an answer of ours.
const ANSWER_MAX_BYTES: usize = 4 << 20;

/// Talks to one daemon.
#[derive(Debug, Clone)]
pub struct Client {
    way: Way,
}

/// Where the daemon is.
#[derive(Clone)]
enum Way {
    Socket(PathBuf),
    Remote(Box<Remote>),
}

impl fmt::Debug for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.shown())
    }
}

impl Way {
    fn shown(&self) -> String {
        match self {
            Way::Socket(socket) => format!("behind '{}'", socket.display()),
            Way::Remote(remote) => format!("at 'https://{}'", remote.authority),
        }
    }
}

impl Client {
    /// Makes a client of the daemon behind `socket`. Connects at each call, not here.
    pub fn new(socket: &Path) -> Self {
        Client {
            way: Way::Socket(socket.to_owned()),
        }
    }

    /// Makes a client of the daemon at `url`, `https://HOST:PORT`, with the token in a file and the
    /// certificate that it or its issuer has.
    ///
    /// # Errors
    /// What is wrong with one of the three.
    pub fn remote(url: &str, token_file: &Path, ca: &Path) -> Result<Self> {
        let remote = Remote::new(url, token_file, ca)?;
        Ok(Client {
            way: Way::Remote(Box::new(remote)),
        })
    }

    /// Asks for the status.
    pub async fn status(&self, patience: Duration) -> Result<wire::Status> {
        self.call(Method::GET, "/v1/status", Bytes::new(), patience)
            .await
    }

    /// Asks the daemon to unmount and end. `patience` must be longer than the request's own time.
    pub async fn unmount(
        &self,
        request: wire::Unmount,
        patience: Duration,
    ) -> Result<wire::Unmounted> {
        self.send("/v1/unmount", &request, patience).await
    }

    /// Asks what is mounted where in the tree.
    pub async fn mounts(&self, patience: Duration) -> Result<wire::MountList> {
        self.call(Method::GET, "/v1/mounts", Bytes::new(), patience)
            .await
    }

    /// Asks the daemon to hang one more storage into its tree.
    pub async fn add_mount(
        &self,
        request: &wire::AddMount,
        patience: Duration,
    ) -> Result<wire::MountChanged> {
        self.send("/v1/mounts", request, patience).await
    }

    /// Asks the daemon to describe a mount in another way.
    pub async fn update_mount(
        &self,
        request: &wire::UpdateMount,
        patience: Duration,
    ) -> Result<wire::MountChanged> {
        self.send("/v1/mounts/update", request, patience).await
    }

    /// Asks the daemon to take a storage out of its tree.
    pub async fn remove_mount(
        &self,
        request: &wire::RemoveMount,
        patience: Duration,
    ) -> Result<wire::MountChanged> {
        self.send("/v1/mounts/remove", request, patience).await
    }

    /// Asks the daemon to look at a path of its tree anew.
    pub async fn sync(&self, request: &wire::Sync, patience: Duration) -> Result<wire::Synced> {
        self.send("/v1/sync", request, patience).await
    }

    /// Asks what waits to be stored.
    pub async fn staged(&self, patience: Duration) -> Result<wire::StagedList> {
        self.call(Method::GET, "/v1/staged", Bytes::new(), patience)
            .await
    }

    /// Asks the daemon to give up what a storage does not have of a file.
    pub async fn drop_staged(
        &self,
        request: &wire::DropStaged,
        patience: Duration,
    ) -> Result<wire::DroppedStaged> {
        self.send("/v1/staged/drop", request, patience).await
    }

    /// Asks the daemon to bring a path of its tree into the cache; it answers when that has begun.
    pub async fn load(&self, request: &wire::Load, patience: Duration) -> Result<wire::Job> {
        self.send("/v1/load", request, patience).await
    }

    /// Asks for the loads that run, and the latest that ended.
    pub async fn jobs(&self, patience: Duration) -> Result<wire::JobList> {
        self.call(Method::GET, "/v1/jobs", Bytes::new(), patience)
            .await
    }

    /// Asks the daemon to stop a load.
    pub async fn stop_job(&self, request: &wire::StopJob, patience: Duration) -> Result<wire::Job> {
        self.send("/v1/jobs/stop", request, patience).await
    }

    /// Asks the daemon to drop what is cached of a path of its tree.
    pub async fn free(&self, request: &wire::OfPath, patience: Duration) -> Result<wire::Freed> {
        self.send("/v1/free", request, patience).await
    }

    /// Asks what of a path of the tree is cached.
    pub async fn usage(&self, request: &wire::Measure, patience: Duration) -> Result<wire::Usage> {
        self.send("/v1/usage", request, patience).await
    }

    /// Asks the daemon to compare what is cached of a path with its storages. It ends when this is
    /// dropped.
    pub async fn check(&self, request: &wire::Check, patience: Duration) -> Result<wire::Checked> {
        self.send("/v1/check", request, patience).await
    }

    /// Asks the daemon to compare all that is cached with its checksums. It ends when this is dropped.
    pub async fn scrub(&self, request: &wire::Scrub, patience: Duration) -> Result<wire::Scrubbed> {
        self.send("/v1/scrub", request, patience).await
    }

    /// Asks the daemon to keep what is cached of a path of its tree.
    pub async fn pin(&self, request: &wire::OfPath, patience: Duration) -> Result<wire::Pinned> {
        self.send("/v1/pin", request, patience).await
    }

    /// Asks the daemon to take that back.
    pub async fn unpin(
        &self,
        request: &wire::OfPath,
        patience: Duration,
    ) -> Result<wire::Unpinned> {
        self.send("/v1/unpin", request, patience).await
    }

    /// Passes a question on and returns the answer as it came, refusals too: an address of the admin
    /// API, and a query where it takes one.
    pub async fn pass_on(&self, address: &str, patience: Duration) -> Result<(StatusCode, Bytes)> {
        self.ask(Method::GET, address, Bytes::new(), patience).await
    }

    /// Asks which paths have rules.
    pub async fn rules(&self, patience: Duration) -> Result<wire::RuleList> {
        self.call(Method::GET, "/v1/rules", Bytes::new(), patience)
            .await
    }

    /// Says something of the cached bytes of a path.
    pub async fn set_rule(
        &self,
        request: &wire::SetRule,
        patience: Duration,
    ) -> Result<wire::Rule> {
        self.send("/v1/rules/set", request, patience).await
    }

    /// Takes that back.
    pub async fn remove_rule(
        &self,
        request: &wire::RemoveRule,
        patience: Duration,
    ) -> Result<wire::Rule> {
        self.send("/v1/rules/remove", request, patience).await
    }

    /// Asks who opens, reads and writes what, and has it counted for five seconds more.
    pub async fn traffic(&self, patience: Duration) -> Result<wire::Traffic> {
        self.call(Method::GET, "/v1/traffic", Bytes::new(), patience)
            .await
    }

    /// Asks for the metrics, in the text format of Prometheus.
    pub async fn metrics(&self, patience: Duration) -> Result<String> {
        let answer = self.ask(Method::GET, "/metrics", Bytes::new(), patience);
        let (status, bytes) = answer.await?;
        if !status.is_success() {
            return Err(failure(status, &bytes));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn send<T: DeserializeOwned>(
        &self,
        path: &str,
        request: &impl Serialize,
        patience: Duration,
    ) -> Result<T> {
        let body = serde_json::to_vec(request)
            .map_err(|source| Error::internal("write the request").with_source(source))?;
        self.call(Method::POST, path, body.into(), patience).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<T> {
        let (status, bytes) = self.ask(method, path, body, patience).await?;
        read(status, &bytes).map_err(|error| match status.is_success() {
            true => error.context(self.what()),
            false => error,
        })
    }

    fn what(&self) -> String {
        format!("ask the daemon {}", self.way.shown())
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<(StatusCode, Bytes)> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json");
        request = match &self.way {
            Way::Socket(_) => request.header(header::HOST, "forebay"),
            Way::Remote(remote) => request.header(header::HOST, &remote.authority).header(
                header::AUTHORIZATION,
                format!("Bearer {}", remote.token.text()),
            ),
        };
        let request = request
            .body(Full::new(body))
            .map_err(|source| Error::internal(self.what()).with_source(source))?;
        tokio::time::timeout(patience, self.exchange(request))
            .await
            .map_err(|_| Error::new(ErrorKind::Timeout, format!("no answer in {patience:?}")))
            .and_then(|answer| answer)
            .map_err(|error| error.context(self.what()))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes)> {
        let gone = |source| Error::new(ErrorKind::Unavailable, "connect").with_source(source);
        match &self.way {
            Way::Socket(socket) => {
                let stream = UnixStream::connect(socket).await.map_err(gone)?;
                Self::exchange_over(stream, request).await
            }
            Way::Remote(remote) => Self::exchange_over(remote.connect().await?, request).await,
        }
    }

    /// Sends one request and drives its connection until the whole answer is here.
    async fn exchange_over(
        stream: impl AsyncRead + AsyncWrite + Unpin,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes)> {
        let broken = |source| Error::new(ErrorKind::Unavailable, "connection").with_source(source);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX_BYTES)
                .collect()
                .await;
            let body = body.map_err(|source| {
                Error::new(ErrorKind::Unavailable, format!("read the answer: {source}"))
            })?;
            Ok((status, body.to_bytes()))
        };
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            // The connection may end as soon as the answer is complete: it is asked for once more.
            _ = connection => answer.await,
        }
    }
}

/// Makes a value or an error of an answer.
fn read<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T> {
    if status.is_success() {
        return serde_json::from_slice(body).map_err(|source| {
            Error::new(ErrorKind::Unsupported, "an answer of another version").with_source(source)
        });
    }
    Err(failure(status, body))
}

fn failure(status: StatusCode, body: &[u8]) -> Error {
    match serde_json::from_slice::<wire::Failure>(body) {
        Ok(failure) => Error::new(errors::kind_of(&failure.error.kind), failure.error.message),
        Err(_) => Error::new(ErrorKind::Internal, format!("answered {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_come_back_as_the_kind_they_were() {
        let body = br#"{"error": {"kind": "busy", "message": "3 files are open"}}"#;
        let error = read::<wire::Unmounted>(StatusCode::CONFLICT, body).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert_eq!(error.to_string(), "3 files are open");
        let error = read::<wire::Unmounted>(StatusCode::BAD_GATEWAY, b"<html>").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}
