// SPDX-License-Identifier: Apache-2.0
//! Requests over the wire: signatures, counts, and a first look at each answer.
//!
//! Refusals become [`Fault`]s, and a ranged answer that is not exactly the asked range never
//! reaches a reader. It retries nothing, with one exception: a refusal that newer credentials or the
//! right time may mend is sent once more, with those. It follows no redirects: a signed
//! request is good for one address only. A body goes out in pieces, so that a slow line that still
//! takes some is told from a dead one.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use tokio::time::Instant;
use tracing::Instrument;

use super::Outcome;
use super::credentials::Authorize;
use super::fault::{Fault, Refusal};
use super::range::{check_range, range_asked};
use super::references::Hidden;
use super::skew::Skew;
use super::spans;
use super::text::retry_after;
use crate::Counters;
use crate::counters::count;

/// Error bodies are short; more of one is not worth reading.
const REFUSAL_MAX: usize = 64 << 10;
/// A body is handed to the connection so many bytes at a time. A line that takes less than one such
/// piece within the patience is dead.
const SENT_PIECE: usize = 64 << 10;

/// How long, in terms of what the rest took, the last bytes of a body may lie in buffers.
const BUFFERED: u32 = 3;

/// What a request is for, to count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A page of a listing.
    List,
    /// A question about one object.
    Head,
    /// Bytes.
    Get,
    /// Bytes of an object or of a part of one, sent.
    Put,
    /// A copy inside the storage, of an object or of a part of one.
    Copy,
    /// The end of an object.
    Delete,
    /// The beginning or the end of an upload in parts.
    Upload,
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
    /// One that takes as long as the operation: nothing but its deadline ends the wait.
    pub(crate) slow: bool,
}

/// What a request carries: nothing, or bytes with their length told.
#[derive(Debug, Clone)]
pub(crate) struct Payload(Option<Bytes>);

impl From<()> for Payload {
    fn from((): ()) -> Self {
        Payload(None)
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Payload(Some(bytes))
    }
}

/// Reads what a storage says when it refuses.
pub(crate) type ReadRefusal = dyn Fn(u16, &HeaderMap, &[u8]) -> Refusal + Send + Sync;

/// Sends requests to one storage.
pub(crate) struct Transport {
    pub(crate) client: reqwest::Client,
    /// Who asks; nobody when there is none.
    pub(crate) authorize: Option<Box<dyn Authorize>>,
    /// What must not show in any message.
    pub(crate) secrets: Arc<Hidden>,
    pub(crate) refusal: Box<ReadRefusal>,
    pub(crate) counters: Arc<Counters>,
    /// How long an answer, and then each piece of its body, may take to come.
    pub(crate) patience: Duration,
    /// What answers tell of the storage's clock.
    pub(crate) skew: Arc<Skew>,
}

impl Transport {
    /// Signs and sends a request; returns the answer when it is a success.
    pub(crate) async fn send(
        &self,
        ask: Ask,
        request: Request<impl Into<Payload>>,
    ) -> Outcome<reqwest::Response> {
        self.send_with(ask, request, Leeway::default()).await
    }

    /// The same, for answers with a leeway.
    pub(crate) async fn send_with(
        &self,
        ask: Ask,
        request: Request<impl Into<Payload>>,
        leeway: Leeway,
    ) -> Outcome<reqwest::Response> {
        let request = request.map(Into::into);
        let ahead = self.skew.ahead();
        let round = self.authorize.as_ref().map_or(0, |who| who.round());
        let answer = self.send_signed(ask, request.clone(), leeway).await;
        let may_renew = |refusal: &Refusal, who: &dyn Authorize| {
            refusal.renewable || (refusal.is_denial() && who.heeds_denials())
        };
        match (&answer, &self.authorize) {
            (Err(Fault::Refused(refusal)), Some(authorize))
                if (refusal.is_denial()
                    && authorize.tells_time()
                    && self.skew.differs_from(ahead))
                    || (may_renew(refusal, &**authorize) && authorize.renew(round)) =>
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
        request: Request<Payload>,
        leeway: Leeway,
    ) -> Outcome<reqwest::Response> {
        let (mut parts, payload) = request.into_parts();
        if let Some(authorize) = &self.authorize {
            authorize
                .sign(&mut parts)
                .await
                .inspect_err(|_| count(&self.counters.errors))?;
        }
        let request = Request::from_parts(parts, payload);
        let answer = self.send_unsigned(ask, request, leeway).await?;
        self.skew.learn(answer.headers());
        Ok(answer)
    }

    /// Sends a request as it is, without saying who asks: to a place that must not learn it.
    pub(crate) async fn send_unsigned(
        &self,
        ask: Ask,
        request: Request<impl Into<Payload>>,
        leeway: Leeway,
    ) -> Outcome<reqwest::Response> {
        count(match ask {
            Ask::List => &self.counters.list,
            Ask::Head => &self.counters.head,
            Ask::Get => &self.counters.get,
            Ask::Put => &self.counters.put,
            Ask::Copy => &self.counters.copy,
            Ask::Delete => &self.counters.delete,
            Ask::Upload => &self.counters.upload,
            Ask::Other => &self.counters.other,
        });
        let (parts, payload) = request.into_parts();
        let Payload(bytes) = payload.into();
        let len = bytes.as_ref().map_or(0, Bytes::len) as u64;
        let span = spans::request(&parts, len);
        let exchanged = self.exchange(parts, bytes, leeway).instrument(span.clone());
        let mut sent = exchanged.await;
        match &mut sent {
            Ok(answer) => spans::answered(span, answer),
            Err(fault) => spans::failed(&span, fault),
        }
        match &sent {
            Ok(_) if ask == Ask::Put => {
                let written = &self.counters.bytes_written;
                written.fetch_add(len, Ordering::Relaxed);
            }
            Ok(_) => {}
            Err(fault) => self.count_failure(fault),
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
        match &piece {
            Ok(bytes) => spans::came(answer, bytes.as_ref().map_or(0, Bytes::len)),
            Err(fault) => spans::broke(answer, fault),
        }
        piece.inspect_err(|fault| self.count_failure(fault))
    }

    async fn exchange(
        &self,
        parts: Parts,
        bytes: Option<Bytes>,
        leeway: Leeway,
    ) -> Outcome<reqwest::Response> {
        let asked = (parts.method.clone(), range_asked(&parts.headers));
        let url = reqwest::Url::parse(&parts.uri.to_string())
            .map_err(|error| Fault::Unfit(format!("the request has no legal URL: {error}")))?;
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        let taken = Arc::new(Taken::start());
        if let Some(bytes) = bytes {
            let length = HeaderValue::from(bytes.len());
            request.headers_mut().insert(CONTENT_LENGTH, length);
            if !bytes.is_empty() {
                *request.body_mut() = Some(in_pieces(bytes, Arc::clone(&taken)));
            }
        }
        let answer = self.answer(request, &taken, leeway).await?;
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

    /// Waits for the answer for as long as the patience since the connection took the last bytes. These
    /// may lie in buffers of a slow line: they may take longer, as the rest did.
    async fn answer(
        &self,
        request: reqwest::Request,
        taken: &Taken,
        leeway: Leeway,
    ) -> Outcome<reqwest::Response> {
        let mut answer = pin!(self.client.execute(request));
        if leeway.slow {
            return answer.await.map_err(unreachable);
        }
        loop {
            let last = taken.last();
            let patience = self.patience.max(last * BUFFERED);
            match tokio::time::timeout_at(taken.start + last + patience, &mut answer).await {
                Ok(answer) => return answer.map_err(unreachable),
                Err(_) if taken.last() > last => {}
                Err(_) => return Err(Fault::Slow(format!("no answer came for {patience:?}"))),
            }
        }
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
        self.refused(status, &headers, &body)
    }

    /// Reads a refusal that came with a status, or inside of an answer that looked like a success.
    pub(crate) fn refused(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Refusal {
        self.skew.learn(headers);
        let mut refusal = (self.refusal)(status, headers, body);
        refusal.wait = retry_after(headers);
        if let Some(clock) = self.skew.advice().filter(|_| refusal.is_denial()) {
            let more = refusal.advice.map(|advice| format!("; {advice}"));
            refusal.advice = Some(clock + &more.unwrap_or_default());
        }
        refusal.message = self.secrets.hide(refusal.message);
        refusal
    }

    fn count_failure(&self, fault: &Fault) {
        if fault.absent() {
            return;
        }
        count(&self.counters.errors);
        match fault {
            Fault::Refused(refusal) if refusal.throttled => count(&self.counters.throttled),
            Fault::Slow(_) => count(&self.counters.unanswered),
            _ => {}
        }
    }
}

/// When the connection took bytes of a body.
struct Taken {
    start: Instant,
    /// Nanoseconds from the start to the last time.
    last: AtomicU64,
}

impl Taken {
    fn start() -> Self {
        Taken {
            start: Instant::now(),
            last: AtomicU64::new(0),
        }
    }

    fn note(&self) {
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    fn last(&self) -> Duration {
        Duration::from_nanos(self.last.load(Ordering::Relaxed))
    }
}

/// Makes a body that notes when the connection takes of it.
fn in_pieces(bytes: Bytes, taken: Arc<Taken>) -> reqwest::Body {
    reqwest::Body::wrap_stream(stream::unfold(bytes, move |mut rest| {
        let piece = rest.split_to(rest.len().min(SENT_PIECE));
        taken.note();
        let piece = (!piece.is_empty()).then_some((Ok::<_, Infallible>(piece), rest));
        std::future::ready(piece)
    }))
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
