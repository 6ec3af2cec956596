// SPDX-License-Identifier: Apache-2.0
//! The dashboard: a page for a browser on this machine, and the little of the admin API that it needs.
//!
//! A browser cannot talk to a Unix socket, so `forebay dashboard` listens on a loopback address and
//! passes questions on. Everybody on the machine can connect there, and so can pages of any origin in
//! the user's browser. What keeps them out:
//! - The page itself holds no secret. Its answers are given only to who sends the token, which is in
//!   the fragment of the address that the command prints: a browser sends a fragment to nobody, and
//!   the page takes it out of the address. It goes in a header, never in a cookie, so that no other
//!   page can have the browser send it.
//! - Only `GET` of a fixed list of addresses is passed on: whatever goes wrong, nothing is changed.
//! - A request whose `Host` is not a name of the loopback is refused, and so is one from another
//!   origin: a name that was made to lead here is of no use.
//! - The page may load nothing but its own files, and may not be framed.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use types::{Error, ErrorKind, Result};

use crate::client::Client;
use crate::errors;
use crate::token::Token;

/// What the page asks for, and nothing else is passed on.
const PASSED_ON: [&str; 5] = [
    "/v1/status",
    "/v1/history",
    "/v1/health",
    "/v1/jobs",
    "/v1/usage",
];

/// Where a page may load from, and what may be done with it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A status is answered from memory.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a tree holds is asked of its storages, name by name.
const USAGE_PATIENCE: Duration = Duration::from_secs(600);

/// The files of the page: address, type, bytes.
const FILES: [(&str, &str, &str); 4] = [
    (
        "/",
        "text/html; charset=utf-8",
        include_str!("../../../dashboard/index.html"),
    ),
    (
        "/dashboard.css",
        "text/css; charset=utf-8",
        include_str!("../../../dashboard/dashboard.css"),
    ),
    (
        "/dashboard.js",
        "text/javascript; charset=utf-8",
        include_str!("../../../dashboard/dashboard.js"),
    ),
    (
        "/icon.svg",
        "image/svg+xml",
        include_str!("../../../dashboard/icon.svg"),
    ),
];

#[derive(Debug)]
struct Door {
    client: Client,
    token: Token,
}

/// Serves the page of one daemon until `stop` resolves.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    client: Client,
    token: Token,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    axum::serve(listener, router(client, token))
        .with_graceful_shutdown(stop)
        .await
        .map_err(|source| Error::io("serve the dashboard", source))
}

fn router(client: Client, token: Token) -> Router {
    let files = FILES.into_iter().fold(Router::new(), |router, file| {
        let (address, kind, text) = file;
        router.route(
            address,
            get(move || async move { ([(header::CONTENT_TYPE, kind)], text) }),
        )
    });
    PASSED_ON
        .into_iter()
        .fold(files, |router, address| router.route(address, get(pass_on)))
        .fallback(|| async { refuse(ErrorKind::NotFound, "no such address") })
        .method_not_allowed_fallback(|| async {
            refuse(ErrorKind::Unsupported, "the dashboard changes nothing")
        })
        .layer(middleware::from_fn(guard))
        .with_state(Arc::new(Door { client, token }))
}

/// Refuses what no page of ours sends, and says what a browser may do with an answer.
async fn guard(request: Request, next: Next) -> Response {
    let is_get = [Method::GET, Method::HEAD].contains(request.method());
    let mut response = match () {
        () if !is_get => refuse(ErrorKind::Unsupported, "the dashboard changes nothing"),
        () if !is_from_here(request.headers()) => {
            refuse(ErrorKind::PermissionDenied, "asked for from somewhere else")
        }
        () => next.run(request).await,
    };
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    for name in ["cross-origin-opener-policy", "cross-origin-resource-policy"] {
        let value = HeaderValue::from_static("same-origin");
        response.headers_mut().insert(name, value);
    }
    response
}

/// Returns whether a request was sent to the loopback, and by nobody else's page.
fn is_from_here(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let Some(host) = text(header::HOST.as_str()) else {
        return false;
    };
    let origin = text(header::ORIGIN.as_str());
    let is_own = |origin: &str| origin.strip_prefix("http://") == Some(host);
    let site = text("sec-fetch-site");
    // A link to the page may be anywhere: what it leads to has no secret.
    let is_navigation = text("sec-fetch-mode") == Some("navigate");
    is_loopback(host)
        && origin.is_none_or(is_own)
        && site.is_none_or(|site| is_navigation || ["same-origin", "none"].contains(&site))
}

/// Any port will do: it may come through a tunnel of `ssh -L`.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    ["127.0.0.1", "localhost", "[::1]"].contains(&name)
}

async fn pass_on(State(door): State<Arc<Door>>, request: Request) -> Response {
    if !door.token.is_in(request.headers()) {
        let message = "the address of the dashboard has a token at its end: open that which 'forebay \
                       dashboard' printed";
        let (_, body) = errors::answer(&Error::new(ErrorKind::PermissionDenied, message));
        return (StatusCode::UNAUTHORIZED, axum::Json(body)).into_response();
    }
    let address = request.uri().path_and_query();
    let address = address.map_or("/", |address| address.as_str());
    let patience = match request.uri().path() {
        "/v1/usage" => USAGE_PATIENCE,
        _ => PATIENCE,
    };
    match door.client.pass_on(address, patience).await {
        Ok((status, body)) => {
            (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Err(error) => {
            let (status, body) = errors::answer(&error);
            (status, axum::Json(body)).into_response()
        }
    }
}

fn refuse(kind: ErrorKind, message: &str) -> Response {
    let (status, body) = errors::answer(&Error::new(kind, message));
    (status, axum::Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let all = all.iter();
        all.map(|(name, value)| {
            let name = header::HeaderName::from_static(name);
            (name, HeaderValue::from_str(value).unwrap())
        })
        .collect()
    }

    #[test]
    fn only_requests_to_the_loopback_and_from_the_page_itself_are_taken() {
        for good in ["127.0.0.1:8080", "localhost:1", "localhost", "[::1]:80"] {
            assert!(is_from_here(&headers(&[("host", good)])), "{good}");
        }
        for bad in [
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "",
            "[::1",
            "10.0.0.1:80",
        ] {
            assert!(!is_from_here(&headers(&[("host", bad)])), "{bad}");
        }
        assert!(!is_from_here(&headers(&[])));
        let host = ("host", "127.0.0.1:8080");
        for (name, value, is_good) in [
            ("origin", "http://127.0.0.1:8080", true),
            ("origin", "http://127.0.0.1:9090", false),
            ("origin", "https://evil.example", false),
            ("origin", "null", false),
            ("sec-fetch-site", "same-origin", true),
            ("sec-fetch-site", "none", true),
            ("sec-fetch-site", "cross-site", false),
            ("sec-fetch-site", "same-site", false),
        ] {
            let taken = is_from_here(&headers(&[host, (name, value)]));
            assert_eq!(taken, is_good, "{name}: {value}");
        }
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        for (address, _, text) in FILES {
            for word in [
                "http://",
                "https://",
                "//cdn",
                "@import",
                "<style",
                " style=",
                " onclick=",
            ] {
                let allowed = word == "http://" && text.contains("http://www.w3.org/2000/svg");
                assert!(allowed || !text.contains(word), "{address}: {word}");
            }
        }
    }
}
