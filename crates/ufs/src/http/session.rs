// SPDX-License-Identifier: Apache-2.0
//! The limits of one storage: how many requests run at once, until when, and how often again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use types::{Clock, Deadline, Result};

use super::Outcome;
use super::fault::Fault;
use super::transport::Transport;
use crate::retry::Retry;
use crate::{Counters, Settings};

/// How often a check tries to connect: once more than a fluke takes.
const CONNECTS_OF_CHECK: u32 = 3;

/// What streams of bytes and of listings share with the storage they came from.
pub(crate) struct Session {
    /// Where requests go, for messages.
    pub(crate) endpoint: String,
    pub(crate) transport: Transport,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) request_timeout: Duration,
    /// As many requests as may run; a permit lives as long as the body of its answer.
    connections: Arc<Semaphore>,
}

impl Session {
    /// Starts one; sends nothing.
    pub(crate) fn new(
        endpoint: String,
        transport: Transport,
        settings: &Settings,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Session {
            endpoint,
            transport,
            clock,
            request_timeout: settings.request_timeout,
            connections: Arc::new(Semaphore::new(settings.max_connections.max(1))),
        }
    }

    /// Returns the counts of requests.
    pub(crate) fn counters(&self) -> &Counters {
        &self.transport.counters
    }

    /// Starts the tries of one request of a listing.
    pub(crate) fn retry_of_page(&self) -> Retry {
        Retry::new(self.clock.deadline(self.request_timeout))
    }

    /// Waits for one of the connections; it is given back when the permit is dropped.
    pub(crate) async fn connection(&self) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.connections).acquire_owned().await;
        permit.expect("the semaphore is never closed")
    }

    /// Sends until it succeeds, cannot succeed, or the deadline comes.
    pub(crate) async fn until_done<T, F>(
        &self,
        what: &str,
        retry: &mut Retry,
        request: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        F: Future<Output = Outcome<T>> + Send,
    {
        loop {
            let limited = async {
                let _connection = self.connection().await;
                request().await
            };
            match before(retry.deadline(), retry.attempt(limited)).await {
                Ok(done) => return Ok(done),
                Err(fault) => self.pause(what, retry, fault).await?,
            }
        }
    }

    /// Sends bytes as [`Session::until_done`]. No try is begun after the deadline; one that has begun may
    /// go on for as long as the line takes some: the transport's patience ends it otherwise.
    pub(crate) async fn until_sent<T, F>(
        &self,
        what: &str,
        retry: &mut Retry,
        request: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        F: Future<Output = Outcome<T>> + Send,
    {
        loop {
            let sent = async {
                let _connection = self.connection().await;
                request().await
            };
            match retry.attempt(sent).await {
                Ok(done) => return Ok(done),
                Err(fault) => self.pause(what, retry, fault).await?,
            }
        }
    }

    /// Sends as [`Session::until_done`], but does not wait for a place that takes no connection.
    pub(crate) async fn check<T, F>(
        &self,
        what: &str,
        retry: &mut Retry,
        request: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        F: Future<Output = Outcome<T>> + Send,
    {
        let mut refused = 0;
        loop {
            let fault = match before(retry.deadline(), request()).await {
                Ok(done) => return Ok(done),
                Err(fault) => fault,
            };
            refused += u32::from(matches!(fault, Fault::Unreachable(_)));
            if refused == CONNECTS_OF_CHECK {
                return Err(fault.into_error(what, &self.endpoint));
            }
            self.pause(what, retry, fault).await?;
        }
    }

    /// Waits before the next try, or gives the error back when there should be none.
    pub(crate) async fn pause(&self, what: &str, retry: &mut Retry, fault: Fault) -> Result<()> {
        retry.wait_for(fault.wait());
        let error = fault.into_error(what, &self.endpoint);
        retry.pause(&*self.clock, self.counters(), error).await
    }
}

/// Waits for a request, but not beyond the deadline.
pub(super) async fn before<T>(
    deadline: Deadline,
    request: impl Future<Output = Outcome<T>>,
) -> Outcome<T> {
    let late = |_| Err(Fault::Slow("no answer before the deadline".into()));
    tokio::time::timeout_at(deadline.instant().into(), request)
        .await
        .unwrap_or_else(late)
}
