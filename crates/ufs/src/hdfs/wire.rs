// SPDX-License-Identifier: Apache-2.0
//! Calls to the client library, each on a task of its own, so that it cannot harm its caller.
//!
//! The library holds one connection to a name node and puts no bound on an answer's time. A call
//! that got none in time may sit on a connection that is dead without knowing: the next call gets a
//! new client. Kerberos asks its KDC with blocking calls; with it, all calls run on two threads of
//! their own. A panic in the library is an error here.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use hdfs_native::{Client, HdfsError};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;
use types::{Error, ErrorKind, Result};

use super::fault::Fault;
use super::place::Place;

/// One blocks on a KDC, the other goes on with what needs no new ticket.
const THREADS_OF_KERBEROS: usize = 2;

/// The client, and where its calls run.
pub(super) struct Wire {
    place: Place,
    runtime: Handle,
    own: Option<Runtime>,
    /// The client in use. Held for the time of a clone only.
    client: Mutex<Client>,
}

impl Wire {
    pub(super) fn new(place: Place) -> Result<Self> {
        let own = match place.kerberos {
            true => Some(kerberos_runtime()?),
            false => None,
        };
        let runtime = own
            .as_ref()
            .map_or_else(Handle::current, |own| own.handle().clone());
        let client = Mutex::new(place.client(runtime.clone())?);
        Ok(Wire {
            place,
            runtime,
            own,
            client,
        })
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Makes one call, and waits for it until `end`. Dropping the future ends the call.
    pub(super) async fn call<T, F>(
        &self,
        end: tokio::time::Instant,
        call: impl FnOnce(Client) -> F,
    ) -> std::result::Result<T, Fault>
    where
        T: Send + 'static,
        F: Future<Output = std::result::Result<T, HdfsError>> + Send + 'static,
    {
        let client = self
            .client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut task = Task(self.runtime.spawn(call(client)));
        match tokio::time::timeout_at(end, &mut task.0).await {
            Ok(Ok(done)) => done.map_err(Fault::of),
            Ok(Err(error)) => Err(Fault::new(
                ErrorKind::Unavailable,
                format!("the HDFS client failed: {error}"),
            )),
            Err(_) => {
                self.renew();
                Err(Fault::passing(ErrorKind::Timeout, "no answer in time"))
            }
        }
    }

    /// Takes a new client, with a new connection, for the calls to come.
    fn renew(&self) {
        match self.place.client(self.runtime.clone()) {
            Ok(client) => *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client,
            Err(error) => tracing::debug!(%error, "the HDFS client was not renewed"),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(own) = self.own.take() {
            // It may be dropped on a runtime's thread, which must not wait.
            own.shutdown_background();
        }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

/// A task that ends with its owner.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn kerberos_runtime() -> Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(THREADS_OF_KERBEROS)
        .thread_name("hdfs-kerberos")
        .enable_all()
        .build()
        .map_err(|error| Error::io("start the threads of Kerberos", error))
}
