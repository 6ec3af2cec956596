// SPDX-License-Identifier: Apache-2.0
//! Requests over the wire: signatures, counts, and a first look at each answer.
//!
//! Refusals become [`Fault`]s, and a ranged answer that is not exactly the asked range never
//! reaches a reader. It retries nothing, with one exception: a refusal that newer credentials may
//! mend is sent once more after they were looked for again. It follows no redirects: a signed
//! request is good for one address only.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode};

use super::Outcome;
use super::credentials::Authorize;
use super::fault::{Fault, Refusal};
use super::range::{check_range, range_asked};
use crate::Counters;
use crate::counters::count;

/// Error bodies are short; more of one is not worth reading.
const REFUSAL_MAX: usize = 64 << 10;

/// What a request is for, to count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A page of a listing.
    List,
    /// A question about one object.
    Head,
    /// Bytes.
    Get,
    /// Anything else.
    Other,
}

/// Which answers are taken besides a success that is exactly what was asked.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Leeway {
    /// An answer that points elsewhere.
    pub(crate) redirect: bool,
    /// The whole object when a range was asked.
    pub(crate) whole: bool,
    /// That nothing changed.
    pub(crate) unchanged: bool,
}

/// Reads what a storage says when it refuses.
pub(crate) type ReadRefusal = dyn Fn(u16, &HeaderMap, &[u8]) -> Refusal + Send + Sync;

/// Sends requests to one storage.
pub(crate) struct Transport {
    pub(crate) client: reqwest::Client,
    /// Who asks; nobody when there is none.
    pub(crate) authorize: Option<Box<dyn Authorize>>,
    /// What must not show in any message.
    pub(crate) secrets: Vec<String>,
    pub(crate) refusal: Box<ReadRefusal>,
    pub(crate) counters: Arc<Counters>,
    /// How long an answer, and then each piece of its body, may take to come.
    pub(crate) patience: Duration,
}

impl Transport {
    /// Signs and sends a request; returns the answer when it is a success.
    pub(crate) async fn send(&self, ask: Ask, request: Request<()>) -> Outcome<reqwest::Response> {
        self.send_with(ask, request, Leeway::default()).await
    }

    /// The same, for answers with a leeway.
    pub(crate) async fn send_with(
        &self,
        ask: Ask,
        request: Request<()>,
        leeway: Leeway,
    ) -> Outcome<reqwest::Response> {
        let answer = self.send_signed(ask, request.clone(), leeway).await;
        match (&answer, &self.authorize) {
            (Err(Fault::Refused(refusal)), Some(authorize))
                if refusal.renewable && authorize.renew() =>
            {
                count(&self.counters.retries);
                self.send_signed(ask, request, leeway).await
            }
            _ => answer,
        }
    }

    async fn send_signed(
        &self,
        ask: Ask,
        request: Request<()>,
        leeway: Leeway,
    ) -> Outcome<reqwest::Response> {
        let (mut parts, ()) = request.into_parts();
        if let Some(authorize) = &self.authorize {
            authorize
                .sign(&mut parts)
                .await
                .inspect_err(|_| count(&self.counters.errors))?;
        }
        self.send_as_is(ask, parts, leeway).await
    }

    /// Sends a request without saying who asks: to a place that must not learn it.
    pub(crate) async fn send_unsigned(
        &self,
        ask: Ask,
        request: Request<()>,
        leeway: Leeway,
    ) -> Outcome<reqwest::Response> {
        self.send_as_is(ask, request.into_parts().0, leeway).await
    }

    async fn send_as_is(
        &self,
        ask: Ask,
        parts: Parts,
        leeway: Leeway,
    ) -> Outcome<reqwest::Response> {
        count(match ask {
            Ask::List => &self.counters.list,
            Ask::Head => &self.counters.head,
            Ask::Get => &self.counters.get,
            Ask::Other => &self.counters.other,
        });
        let sent = self.exchange(parts, leeway).await;
        if let Err(fault) = &sent {
            self.count_failure(fault);
        }
        sent
    }

    /// Reads a whole body of at most `max` bytes.
    pub(crate) async fn body(&self, mut answer: reqwest::Response, max: usize) -> Outcome<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece(&mut answer).await? {
            if body.len() + piece.len() > max {
                return Err(Fault::WrongAnswer(format!(
                    "a body of more than {max} bytes"
                )));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// Returns the next piece of a body; counts a failure.
    pub(super) async fn piece(&self, answer: &mut reqwest::Response) -> Outcome<Option<Bytes>> {
        let piece = match tokio::time::timeout(self.patience, answer.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => Err(Fault::Broken(causes(error))),
            Err(_) => Err(Fault::Slow(format!(
                "no bytes came for {:?}",
                self.patience
            ))),
        };
        piece.inspect_err(|_| count(&self.counters.errors))
    }

    async fn exchange(&self, parts: Parts, leeway: Leeway) -> Outcome<reqwest::Response> {
        let asked = (parts.method.clone(), range_asked(&parts.headers));
        let url = reqwest::Url::parse(&parts.uri.to_string())
            .map_err(|error| Fault::Unfit(format!("the request has no legal URL: {error}")))?;
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        let answer = match tokio::time::timeout(self.patience, self.client.execute(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(unreachable(error)),
            Err(_) => {
                return Err(Fault::Slow(format!(
                    "no answer came for {:?}",
                    self.patience
                )));
            }
        };
        let status = answer.status();
        if (leeway.unchanged && status == StatusCode::NOT_MODIFIED)
            || (leeway.redirect && is_redirect(status))
        {
            return Ok(answer);
        }
        if !status.is_success() {
            return Err(Fault::Refused(self.refusal(answer).await));
        }
        match asked {
            (Method::GET, Some(range)) => {
                check_range(range, status, answer.headers(), leeway.whole)?;
            }
            (Method::GET, None) if status == StatusCode::PARTIAL_CONTENT => {
                return Err(Fault::WrongAnswer(
                    "a part of what was asked as a whole".into(),
                ));
            }
            _ => {}
        }
        Ok(answer)
    }

    /// Reads what the storage says about its refusal.
    async fn refusal(&self, mut answer: reqwest::Response) -> Refusal {
        let status = answer.status().as_u16();
        let headers = std::mem::take(answer.headers_mut());
        let mut body = Vec::new();
        while body.len() < REFUSAL_MAX {
            match tokio::time::timeout(self.patience, answer.chunk()).await {
                Ok(Ok(Some(piece))) => body.extend_from_slice(&piece),
                // The status alone says enough when the rest does not come.
                Ok(Ok(None) | Err(_)) | Err(_) => break,
            }
        }
        let mut refusal = (self.refusal)(status, &headers, &body);
        refusal.message = self.hide_secrets(refusal.message);
        refusal
    }

    /// Takes given secrets out of a text, should a storage echo them.
    fn hide_secrets(&self, text: String) -> String {
        self.secrets.iter().fold(text, |text, secret| {
            text.replace(secret.as_str(), "(hidden)")
        })
    }

    fn count_failure(&self, fault: &Fault) {
        if fault.absent() {
            return;
        }
        count(&self.counters.errors);
        if matches!(fault, Fault::Refused(refusal) if refusal.throttled) {
            count(&self.counters.throttled);
        }
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn unreachable(error: reqwest::Error) -> Fault {
    let causes = causes(error);
    // How rustls begins what it says of certificates; the type is lost on the way here.
    match causes.split_once("invalid peer certificate: ") {
        Some((_, why)) => Fault::Untrusted(why.into()),
        None => Fault::Unreachable(causes),
    }
}

/// Returns the error with its causes, without the URL: the caller names the object.
fn causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
