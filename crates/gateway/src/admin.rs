// SPDX-License-Identifier: Apache-2.0
//! The admin API over a Unix socket: `GET /v1/status`, `POST /v1/unmount`, `GET` and `POST
//! /v1/mounts`, `POST /v1/mounts/update` and `/v1/mounts/remove`, `POST /v1/sync`, `GET /v1/staged`,
//! `POST /v1/staged/drop`, `POST /v1/load`, `GET /v1/jobs`, `POST /v1/jobs/stop`, `POST /v1/free`,
//! `GET` and `POST /v1/usage`, `GET /v1/history`, `GET /v1/health`, `GET /v1/openapi.json`, `POST
//! /v1/pin` and `/v1/unpin`, `GET /v1/rules`, `POST /v1/rules/set` and `/v1/rules/remove`, `GET
//! /v1/traffic`, `POST /v1/check`, `POST /v1/scrub`, and `GET /metrics` for Prometheus.
//!
//! The socket has mode 0600, and on top each request is answered only to the daemon's own user or
//! root, by what the kernel says of the peer (SO_PEERCRED). Every answer is JSON, failures too, but
//! for the metrics, which may be served over TCP besides, where somebody asks for that.
//! What the answers hold comes from a [`Node`]; this file only carries it.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Query, Request, State};
use axum::http::{Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use rustix::fs::Mode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, UnixListener};
use types::{Error, ErrorKind, Result};

use crate::errors;
use crate::health;
use crate::metrics;
use crate::openapi;
use crate::wire;

/// A request is a few words and options; this leaves room.
const BODY_MAX_BYTES: usize = 64 * 1024;

/// The request of a load may list the files that are meant: some hundred thousand.
const LOAD_BODY_MAX_BYTES: usize = 16 << 20;

/// The text format of Prometheus.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What an answer of a node may have to wait for.
pub type NodeFuture<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// The daemon, as its operator sees it.
pub trait Node: Send + Sync + 'static {
    /// Returns what is known now; does no I/O that can wait.
    fn status(&self) -> wire::Status;
    /// Unmounts and lets the daemon end. Resolves when the mount is gone, or with `Busy` when files
    /// were still open after the time that the request gives.
    fn unmount(&self, request: wire::Unmount) -> NodeFuture<wire::Unmounted>;
    /// Returns what is mounted where in the tree; does no I/O that can wait.
    fn mounts(&self) -> wire::MountList;
    /// Hangs one more storage into the tree.
    fn add_mount(&self, request: wire::AddMount) -> NodeFuture<wire::MountChanged>;
    /// Describes a mount in another way.
    fn update_mount(&self, request: wire::UpdateMount) -> NodeFuture<wire::MountChanged>;
    /// Takes a storage out of the tree.
    fn remove_mount(&self, request: wire::RemoveMount) -> NodeFuture<wire::MountChanged>;
    /// Looks at a path of the tree anew.
    fn sync(&self, request: wire::Sync) -> NodeFuture<wire::Synced>;
    /// Returns what waits to be stored; does no I/O that can wait.
    fn staged(&self) -> wire::StagedList;
    /// Gives up what a storage does not have of a file.
    fn drop_staged(&self, request: wire::DropStaged) -> NodeFuture<wire::DroppedStaged>;
    /// Begins to bring a path of the tree into the cache, or joins who does so already.
    fn load(&self, request: wire::Load) -> NodeFuture<wire::Job>;
    /// Returns the loads that run, and the latest that ended; does no I/O that can wait.
    fn jobs(&self) -> wire::JobList;
    /// Stops a load; what it fetched stays.
    fn stop_job(&self, request: wire::StopJob) -> NodeFuture<wire::Job>;
    /// Drops what is cached of a path of the tree.
    fn free(&self, request: wire::OfPath) -> NodeFuture<wire::Freed>;
    /// Returns what of a path of the tree is cached.
    fn usage(&self, request: wire::Measure) -> NodeFuture<wire::Usage>;
    /// Returns how the counters stood lately; does no I/O that can wait.
    fn history(&self) -> wire::History;
    /// Compares what is cached of a path of the tree with its storages.
    fn check(&self, request: wire::Check) -> NodeFuture<wire::Checked>;
    /// Compares all that is cached with its checksums.
    fn scrub(&self, request: wire::Scrub) -> NodeFuture<wire::Scrubbed>;
    /// Keeps what is cached of a path of the tree, now or later, from being evicted.
    fn pin(&self, request: wire::OfPath) -> NodeFuture<wire::Pinned>;
    /// Takes that back.
    fn unpin(&self, request: wire::OfPath) -> NodeFuture<wire::Unpinned>;
    /// Returns what is said of the cached bytes of paths; does no I/O that can wait.
    fn rules(&self) -> wire::RuleList;
    /// Returns who opens, reads and writes what since somebody began to ask, and counts on for a
    /// while; does no I/O that can wait.
    fn traffic(&self) -> wire::Traffic;
    /// Says something of the cached bytes of a path of the tree.
    fn set_rule(&self, request: wire::SetRule) -> NodeFuture<wire::Rule>;
    /// Takes that back.
    fn remove_rule(&self, request: wire::RemoveRule) -> NodeFuture<wire::Rule>;
}

/// Binds the socket, with mode 0600. A socket file that a dead daemon left is replaced.
pub fn bind(socket: &Path) -> Result<UnixListener> {
    let fault = |source| Error::io(format!("listen on '{}'", socket.display()), source);
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(fault(error)),
        _ => {}
    }
    let listener = UnixListener::bind(socket).map_err(fault)?;
    rustix::fs::chmod(socket, Mode::RUSR | Mode::WUSR).map_err(|errno| fault(errno.into()))?;
    Ok(listener)
}

/// Answers requests until `stop` resolves, then lets those in progress finish.
pub async fn serve(
    listener: UnixListener,
    node: Arc<dyn Node>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let service = router(node).into_make_service_with_connect_info::<Peer>();
    axum::serve(listener, service)
        .with_graceful_shutdown(stop)
        .await
        .map_err(|source| Error::io("serve the admin API", source))
}

/// Answers `GET /metrics`, and nothing else, to whoever can reach a TCP address, until `stop`
/// resolves.
pub async fn serve_metrics(
    listener: TcpListener,
    node: Arc<dyn Node>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let service = Router::new()
        .route("/metrics", get(metrics))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(node);
    axum::serve(listener, service)
        .with_graceful_shutdown(stop)
        .await
        .map_err(|source| Error::io("serve the metrics", source))
}

/// The user at the other end; none when the kernel did not say.
#[derive(Debug, Clone, Copy)]
struct Peer(Option<u32>);

impl Peer {
    fn shown(self) -> String {
        let user = self.0.map(|uid| format!("user {uid}"));
        user.unwrap_or_else(|| "an unknown user".to_owned())
    }
}

impl axum::extract::connect_info::Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Peer(stream.io().peer_cred().ok().map(|peer| peer.uid()))
    }
}

fn router(node: Arc<dyn Node>) -> Router {
    routes(node).layer(middleware::from_fn(check_peer))
}

/// All addresses, answered to whoever asks: only what a door lets in may reach them.
pub(crate) fn routes(node: Arc<dyn Node>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/unmount", post(unmount))
        .route("/v1/mounts", get(mounts).post(add_mount))
        .route("/v1/mounts/update", post(update_mount))
        .route("/v1/mounts/remove", post(remove_mount))
        .route("/v1/sync", post(sync))
        .route("/v1/staged", get(staged))
        .route("/v1/staged/drop", post(drop_staged))
        .route(
            "/v1/load",
            post(load).layer(DefaultBodyLimit::max(LOAD_BODY_MAX_BYTES)),
        )
        .route("/v1/jobs", get(jobs))
        .route("/v1/jobs/stop", post(stop_job))
        .route("/v1/free", post(free))
        .route("/v1/usage", get(usage_asked).post(usage))
        .route("/v1/history", get(history))
        .route("/v1/health", get(health))
        .route("/v1/check", post(check))
        .route("/v1/scrub", post(scrub))
        .route("/v1/pin", post(pin))
        .route("/v1/unpin", post(unpin))
        .route("/v1/openapi.json", get(openapi))
        .route("/v1/traffic", get(traffic))
        .route("/v1/rules", get(rules))
        .route("/v1/rules/set", post(set_rule))
        .route("/v1/rules/remove", post(remove_rule))
        .route("/metrics", get(metrics))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .with_state(node)
}

async fn check_peer(
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    match admits(peer.0, rustix::process::geteuid().as_raw()) {
        true if request.method() == Method::GET => next.run(request).await,
        true => audited(peer.shown(), request, next).await,
        false => {
            let who = peer.shown();
            tracing::warn!("admin API: refused {who}: {}", request.uri().path());
            refuse(
                ErrorKind::PermissionDenied,
                format!("{who} does not own this daemon"),
            )
        }
    }
}

/// Has a change carried out, and logs who asked for it, for which place of the tree, and what came of
/// it. Nothing else of the request is written down.
pub(crate) async fn audited(who: String, request: Request, next: Next) -> Response {
    let what = request.uri().path().to_owned();
    let (head, body) = request.into_parts();
    let (body, place) = match axum::body::to_bytes(body, LOAD_BODY_MAX_BYTES).await {
        Ok(body) => {
            let place = place_of(&body);
            (axum::body::Body::from(body), place)
        }
        Err(error) => return refuse(ErrorKind::Invalid, format!("request body: {error}")),
    };
    let response = next.run(Request::from_parts(head, body)).await;
    tracing::info!(
        "admin API: {who}: {what}{place}: {}",
        response.status().as_u16()
    );
    response
}

/// Returns which place of the tree a request is about.
fn place_of(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Place {
        #[serde(alias = "at")]
        path: String,
    }
    let place = serde_json::from_slice::<Place>(body).ok();
    place.map_or_else(String::new, |place| {
        format!(" of '{}'", place.path.escape_debug())
    })
}

/// Decides whether a peer may ask.
fn admits(peer: Option<u32>, own: u32) -> bool {
    peer.is_some_and(|uid| uid == own || uid == 0)
}

async fn status(State(node): State<Arc<dyn Node>>) -> Response {
    Json(node.status()).into_response()
}

/// A body as it came, or why it did not.
type Body = std::result::Result<Bytes, BytesRejection>;

async fn unmount(State(node): State<Arc<dyn Node>>, body: Body) -> Response {
    act(body, |request| node.unmount(request)).await
}

async fn mounts(State(node): State<Arc<dyn Node>>) -> Response {
    Json(node.mounts()).into_response()
}

async fn add_mount(State(node): State<Arc<dyn Node>>, body: Body) -> Response {
    act(body, |request| node.add_mount(request)).await
}

async fn update_mount(State(node): State<Arc<dyn Node>>, body: Body) -> Response {
    act(body, |request| node.update_mount(request)).await
}

async fn remove_mount(State(node): State<Arc<dyn Node>>, body: Body) -> Response {
    act(body, |request| node.remove_mount(request)).await
}

async fn sync(State(node): State<Arc<dyn Node>>, body: Body) -> Response {
    act(body, |request| node.sync(request)).await
}

async fn staged(State(node): State<Arc<dyn Node>>) -> Response {
    Json(node.staged()).into_response()
}

async fn drop_staged(State(node): State<Arc<dyn Node>>, body: Body) -> Response {
    act(body, |request| node.drop_staged(request)).await
}

async fn load(State(node): State<Arc<dyn Node>>, body: Body) -> Response {
    act(body, |request| node.load(request)).await
}

async fn jobs(State(node): State<Arc<dyn Node>>) -> Response {
    Json(node.jobs()).into_response()
}

async fn stop_job(State(node): State<Arc<dyn Node>>, body: Body) -> Response {
    act(body, |request| node.stop_job(request)).await
}

async fn free(State(node): State<Arc<dyn Node>>, body: Body) -> Response {
    act(body, |request| node.free(request)).await
}

async fn usage(State(node): State<Arc<dyn Node>>, body: Body) -> Response {
    act(body, |request| node.usage(request)).await
}

async fn usage_asked(
    State(node): State<Arc<dyn Node>>,
    query: std::result::Result<Query<wire::Measure>, QueryRejection>,
) -> Response {
    match query {
        Ok(Query(request)) => answered(node.usage(request).await),
        Err(error) => refuse(ErrorKind::Invalid, format!("query: {}", error.body_text())),
    }
}

async fn history(State(node): State<Arc<dyn Node>>) -> Response {
    Json(node.history()).into_response()
}

async fn health(State(node): State<Arc<dyn Node>>) -> Response {
    Json(health::of(&node.status())).into_response()
}

async fn check(State(node): State<Arc<dyn Node>>, body: Body) -> Response {
    act(body, |request| node.check(request)).await
}

async fn scrub(State(node): State<Arc<dyn Node>>, body: Body) -> Response {
    act(body, |request| node.scrub(request)).await
}

async fn pin(State(node): State<Arc<dyn Node>>, body: Body) -> Response {
    act(body, |request| node.pin(request)).await
}

async fn unpin(State(node): State<Arc<dyn Node>>, body: Body) -> Response {
    act(body, |request| node.unpin(request)).await
}

async fn traffic(State(node): State<Arc<dyn Node>>) -> Response {
    Json(node.traffic()).into_response()
}

async fn rules(State(node): State<Arc<dyn Node>>) -> Response {
    Json(node.rules()).into_response()
}

async fn set_rule(State(node): State<Arc<dyn Node>>, body: Body) -> Response {
    act(body, |request| node.set_rule(request)).await
}

async fn remove_rule(State(node): State<Arc<dyn Node>>, body: Body) -> Response {
    act(body, |request| node.remove_rule(request)).await
}

async fn metrics(State(node): State<Arc<dyn Node>>) -> Response {
    let text = metrics::text(&node.status());
    ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response()
}

async fn openapi() -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        openapi::text(),
    )
        .into_response()
}

/// Reads a request, has it carried out and answers with the outcome.
async fn act<Q: DeserializeOwned, A: Serialize>(
    body: Body,
    carry_out: impl FnOnce(Q) -> NodeFuture<A>,
) -> Response {
    let body = match body {
        Ok(body) if body.is_empty() => Bytes::from_static(b"{}"),
        Ok(body) => body,
        Err(error) => return refuse(ErrorKind::Invalid, format!("request body: {error}")),
    };
    let request = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return refuse(ErrorKind::Invalid, format!("request body: {error}")),
    };
    answered(carry_out(request).await)
}

fn answered<A: Serialize>(outcome: Result<A>) -> Response {
    match outcome {
        Ok(done) => Json(done).into_response(),
        Err(error) => answer(&error),
    }
}

async fn unknown_route(request: Request) -> Response {
    refuse(
        ErrorKind::NotFound,
        format!("no such address: {}", request.uri().path()),
    )
}

async fn wrong_method(request: Request) -> Response {
    let text = format!("{} is not for {}", request.uri().path(), request.method());
    refuse(ErrorKind::Unsupported, text)
}

fn refuse(kind: ErrorKind, message: String) -> Response {
    answer(&Error::new(kind, message))
}

fn answer(error: &Error) -> Response {
    let (status, body) = errors::answer(error);
    (status, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_request_the_place_is_written_down_and_nothing_else() {
        assert_eq!(
            place_of(br#"{"at": "/a\nb", "options": {"k": "v"}}"#),
            " of '/a\\nb'"
        );
        assert_eq!(place_of(br#"{"path": "/a", "force": true}"#), " of '/a'");
        assert_eq!(place_of(b"hush"), "");
    }

    #[test]
    fn only_the_owner_and_root_are_admitted() {
        assert!(admits(Some(1000), 1000));
        assert!(admits(Some(0), 1000));
        assert!(!admits(Some(1001), 1000));
        assert!(!admits(Some(1000), 0));
        assert!(!admits(None, 0));
    }
}
