// SPDX-License-Identifier: Apache-2.0
//! The HTTP of the S3 driver: connections, signatures, counts, and a first look at each answer.
//!
//! Plugged under OpenDAL as its transport, so that what goes over the wire is ours: requests are
//! signed and counted here, refusals become [`Fault`]s, and a ranged answer that is not exactly
//! the asked range never reaches a reader. It retries nothing and follows no redirects: a signed
//! request is good for one address only.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use opendal::raw::Operation;
use opendal::{Buffer, HttpBody, HttpTransport};

use super::answer::{parse_refusal, range_asked, range_given};
use super::credentials::Signature;
use super::fault::{Fault, Refusal};
use crate::Counters;
use crate::counters::count;

/// Error bodies are short; more of one is not worth reading.
const REFUSAL_MAX: usize = 64 << 10;

/// Sends requests to one storage.
pub(super) struct Http {
    pub(super) client: reqwest::Client,
    pub(super) signature: Signature,
    pub(super) counters: Arc<Counters>,
    /// How long an answer, and then each piece of its body, may take to come.
    pub(super) patience: Duration,
}

impl Http {
    /// Signs and sends a request; returns the answer when it is a success.
    pub(super) async fn send(&self, request: Request<Bytes>) -> Result<reqwest::Response, Fault> {
        let (mut parts, body) = request.into_parts();
        self.signature
            .sign(&mut parts)
            .await
            .inspect_err(|_| count(&self.counters.errors))?;
        self.count(&parts);
        let sent = self.exchange(parts, body).await;
        if let Err(fault) = &sent {
            self.count_failure(fault);
        }
        sent
    }

    /// Reads a whole body of at most `max` bytes.
    pub(super) async fn body(
        &self,
        mut answer: reqwest::Response,
        max: usize,
    ) -> Result<Vec<u8>, Fault> {
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
    async fn piece(&self, answer: &mut reqwest::Response) -> Result<Option<Bytes>, Fault> {
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

    async fn exchange(&self, parts: Parts, body: Bytes) -> Result<reqwest::Response, Fault> {
        let asked = (parts.method.clone(), range_asked(&parts.headers));
        let url = reqwest::Url::parse(&parts.uri.to_string())
            .map_err(|error| Fault::Unfit(format!("the request has no legal URL: {error}")))?;
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        if !body.is_empty() {
            *request.body_mut() = Some(body.into());
        }
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
        if !answer.status().is_success() {
            return Err(Fault::Refused(self.refusal(answer).await));
        }
        match asked {
            (Method::GET, Some(range)) => check_range(range, answer.status(), answer.headers())?,
            (Method::GET, None) if answer.status() == StatusCode::PARTIAL_CONTENT => {
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
        let region = answer.headers().get("x-amz-bucket-region");
        let region = region
            .and_then(|value| value.to_str().ok())
            .map(String::from);
        let mut body = Vec::new();
        while body.len() < REFUSAL_MAX {
            match tokio::time::timeout(self.patience, answer.chunk()).await {
                Ok(Ok(Some(piece))) => body.extend_from_slice(&piece),
                // The status alone says enough when the rest does not come.
                Ok(Ok(None) | Err(_)) | Err(_) => break,
            }
        }
        let mut refusal = parse_refusal(status, &body);
        refusal.region = refusal.region.or(region);
        refusal.message = self.signature.hide_secrets(refusal.message);
        refusal
    }

    fn count(&self, parts: &Parts) {
        count(match parts.extensions.get::<Operation>() {
            Some(Operation::List) => &self.counters.list,
            Some(Operation::Stat) => &self.counters.head,
            Some(Operation::Read) => &self.counters.get,
            _ => &self.counters.other,
        });
    }

    fn count_failure(&self, fault: &Fault) {
        if fault.absent() {
            return;
        }
        count(&self.counters.errors);
        if matches!(fault, Fault::Refused(refusal) if refusal.throttled()) {
            count(&self.counters.throttled);
        }
    }
}

/// Checks that an answer to a ranged GET holds exactly the asked bytes. A storage that does not
/// know ranges may answer with the whole object, which is fine if that is what was asked for.
fn check_range(asked: (u64, u64), status: StatusCode, headers: &HeaderMap) -> Result<(), Fault> {
    let (first, last) = asked;
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let wanted = last - first + 1;
    if status == StatusCode::PARTIAL_CONTENT {
        let given = range_given(headers).ok_or_else(|| {
            let text = format!("{:?}", headers.get(CONTENT_RANGE));
            Fault::WrongAnswer(format!("a part without a readable Content-Range: {text}"))
        })?;
        if given != asked {
            let (from, to) = given;
            return Err(Fault::WrongAnswer(format!(
                "bytes {from} to {to} when {first} to {last} were asked"
            )));
        }
    } else if first != 0 || length.is_some_and(|length: u64| length != wanted) {
        return Err(Fault::Unfit(format!(
            "the storage ignored the range: it answered {status} to bytes {first} to {last}"
        )));
    }
    match length {
        Some(length) if length != wanted => Err(Fault::WrongAnswer(format!(
            "{length} bytes when {wanted} were asked"
        ))),
        _ => Ok(()),
    }
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

/// The transport that OpenDAL sends through.
pub(super) struct Transport(pub(super) Arc<Http>);

impl HttpTransport for Transport {
    async fn fetch(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        let answer = self.0.send(request.map(|body| body.to_bytes())).await;
        let answer = answer.map_err(Fault::into_opendal)?;
        let mut response = Response::builder().status(answer.status());
        if let Some(headers) = response.headers_mut() {
            *headers = answer.headers().clone();
        }
        // A HEAD's length is the object's, not the body's.
        let body = HttpBody::new(pieces(Arc::clone(&self.0), answer), None);
        response
            .body(body)
            .map_err(|error| Fault::WrongAnswer(error.to_string()).into_opendal())
    }
}

fn pieces(http: Arc<Http>, answer: reqwest::Response) -> Pieces {
    let inner = stream::unfold((http, answer), |(http, mut answer)| async {
        match http.piece(&mut answer).await {
            Ok(Some(bytes)) => Some((Ok(Buffer::from(bytes)), (http, answer))),
            Ok(None) => None,
            Err(fault) => Some((Err(fault.into_opendal()), (http, answer))),
        }
    });
    Pieces(Mutex::new(Box::pin(inner)))
}

/// A body as OpenDAL wants it: `Sync`, which the lock gives without ever being taken.
struct Pieces(Mutex<Pin<Box<dyn Stream<Item = opendal::Result<Buffer>> + Send>>>);

impl Stream for Pieces {
    type Item = opendal::Result<Buffer>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let inner = self
            .0
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        inner.as_mut().poll_next(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(range: Option<&str>, length: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(range) = range {
            headers.insert(CONTENT_RANGE, range.parse().unwrap());
        }
        if let Some(length) = length {
            headers.insert(CONTENT_LENGTH, length.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_exactly_the_asked_range_passes() {
        let check = |status: u16, range, length| {
            check_range(
                (10, 19),
                StatusCode::from_u16(status).unwrap(),
                &headers(range, length),
            )
        };
        assert_eq!(check(206, Some("bytes 10-19/100"), Some("10")), Ok(()));
        assert_eq!(check(206, Some("bytes 10-19/100"), None), Ok(()));
        for (range, length) in [
            (Some("bytes 10-18/100"), Some("9")),
            (Some("bytes 11-20/100"), Some("10")),
            (Some("bytes 10-19/100"), Some("11")),
            (Some("bytes 10-19/*"), Some("10")),
            (Some("lines 10-19/100"), Some("10")),
            (None, Some("10")),
        ] {
            let answer = check(206, range, length);
            assert!(
                matches!(answer, Err(Fault::WrongAnswer(_))),
                "{range:?} {length:?}"
            );
        }
        assert!(matches!(
            check(200, None, Some("100")),
            Err(Fault::Unfit(_))
        ));
        assert!(matches!(check(200, None, Some("10")), Err(Fault::Unfit(_))));
    }

    #[test]
    fn a_whole_object_may_come_without_a_range() {
        let check = |length| check_range((0, 9), StatusCode::OK, &headers(None, Some(length)));
        assert_eq!(check("10"), Ok(()));
        assert!(matches!(check("100"), Err(Fault::Unfit(_))));
    }
}
