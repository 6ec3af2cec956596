// SPDX-License-Identifier: Apache-2.0
//! What the writing side asks for, over HTTP.
//!
//! Bytes go to a data node in two steps: the name node says to which one, and nothing was sent
//! before it did. The first piece of a file creates it, and its blocks are forced to disks; further
//! pieces are appended. An append whose answer was lost is told by the length of the file. HttpFS
//! renames without asking what may be replaced: see `gateway`.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request};
use types::{
    ByteRange, Clock, Deadline, Error, ErrorKind, NodeKind, ObjectPath, Result, VersionTag,
};

use super::answer::read_boolean;
use super::{STATUS_MAX, Web, data_node, gateway, read};
use crate::hdfs::{
    Change, Failure, HadoopFiles, HadoopLocation, HadoopSink, HadoopStep, Owners, Seen, Taken,
};
use crate::http::{Ask, Fault, Leeway, Outcome, percent_encode, percent_encode_path};
use crate::retry::Retry;
use crate::temporary::temporary_name;
use crate::{ByteStream, Counters};

/// How a server renames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renaming {
    /// It keeps to what may be replaced.
    InOneStep,
    /// It replaces nothing.
    InSteps,
}

impl Web {
    /// Sends an order that has no bytes; returns what was answered.
    pub(super) async fn order(
        &self,
        ask: Ask,
        method: Method,
        path: &str,
        operation: &str,
    ) -> Outcome<Vec<u8>> {
        let _connection = self.session.connection().await;
        let path = percent_encode_path(path);
        let answer = self.ask(ask, method, &path, operation).await?;
        self.session.transport.body(answer, STATUS_MAX).await
    }

    /// Sends bytes: first nothing, to the name node, then all, to the data node that it names.
    async fn order_bytes(
        &self,
        method: Method,
        path: &str,
        operation: &str,
        bytes: Bytes,
    ) -> Outcome<()> {
        let path = percent_encode_path(path);
        let transport = &self.session.transport;
        let answer = self
            .ask(Ask::Other, method.clone(), &path, operation)
            .await?;
        if !answer.status().is_redirection() {
            return Err(Fault::Unfit(
                "the server takes no bytes: it names no data node".into(),
            ));
        }
        let url = data_node(&answer, &path)?;
        let request = Request::builder()
            .method(method)
            .uri(url.as_str())
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(bytes);
        let request = request.map_err(|error| Fault::Unfit(error.to_string()))?;
        let sent = transport.send_unsigned(Ask::Put, request, Leeway::default());
        let answer = sent.await.map_err(|fault| match fault {
            Fault::Unreachable(why) => {
                let host = url.host_str().unwrap_or_default();
                Fault::Unreachable(format!("data node {host}: {why}"))
            }
            fault => fault,
        })?;
        transport.body(answer, STATUS_MAX).await.map(drop)
    }

    /// Makes one attempt of a step, and words its failure.
    pub(super) async fn attempt<T>(
        &self,
        step: &HadoopStep,
        request: impl Future<Output = Outcome<T>> + Send,
    ) -> Result<T> {
        let late = |_| Err(Fault::Slow("no answer before the deadline".into()));
        let done = tokio::time::timeout_at(step.deadline.instant().into(), request);
        let done = done.await.unwrap_or_else(late);
        done.map_err(|fault| fault.into_error(&step.what, &self.session.endpoint))
    }

    /// Finds out, once, whether the server keeps to what a rename may replace: one that does not says
    /// "false" of a name that is not there.
    async fn renaming(&self, step: &HadoopStep) -> Result<Renaming> {
        if let Some(known) = self.renaming.get() {
            return Ok(*known);
        }
        let directory = &self.place.location.path;
        let [from, to] = [(); 2].map(|()| format!("{directory}/{}", temporary_name()));
        let operation = format!(
            "RENAME&destination={}&renameoptions=NONE",
            percent_encode_path(&to)
        );
        let asked = self.order(Ask::Other, Method::PUT, &from, &operation);
        let renaming = match self.attempt(step, asked).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Renaming::InOneStep,
            Err(error) => return Err(error),
            Ok(_) => Renaming::InSteps,
        };
        Ok(*self.renaming.get_or_init(|| renaming))
    }
}

#[async_trait]
impl HadoopFiles for Web {
    fn location(&self) -> &HadoopLocation {
        &self.place.location
    }

    fn clock(&self) -> &dyn Clock {
        &*self.session.clock
    }

    fn counters(&self) -> &Counters {
        self.session.counters()
    }

    fn owners(&self) -> &Owners {
        &self.owners
    }

    async fn seen(&self, step: &HadoopStep, path: &str) -> Result<Seen> {
        let path = percent_encode_path(path);
        let look = async {
            let _connection = self.session.connection().await;
            self.status(Ask::Other, &path).await
        };
        let status = self.attempt(step, look).await?;
        let seen = Seen {
            kind: status.kind().unwrap_or(NodeKind::Symlink),
            tag: status.tag(),
            named: status.named(),
        };
        self.owners.learn([&seen.named].into_iter()).await?;
        Ok(seen)
    }

    async fn create(
        self: Arc<Self>,
        _step: &HadoopStep,
        path: &str,
        mode: Option<u32>,
    ) -> Result<Box<dyn HadoopSink>> {
        Ok(Box::new(WebSink {
            web: self,
            path: path.into(),
            mode,
            written: None,
        }))
    }

    async fn rename(&self, step: &HadoopStep, from: &str, to: &str, taken: Taken) -> Result<()> {
        if self.renaming(step).await? == Renaming::InSteps {
            return gateway::rename(self, step, from, to, taken).await;
        }
        let option = match taken {
            Taken::Replace => "OVERWRITE",
            Taken::Refuse => "NONE",
        };
        let to = percent_encode_path(to);
        let operation = format!("RENAME&destination={to}&renameoptions={option}");
        let renamed = self.order(Ask::Copy, Method::PUT, from, &operation);
        self.attempt(step, renamed).await.map(drop)
    }

    async fn delete(&self, step: &HadoopStep, path: &str) -> Result<()> {
        let operation = "DELETE&recursive=false";
        let deleted = self.order(Ask::Delete, Method::DELETE, path, operation);
        match self.attempt(step, deleted).await {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    async fn make_dir(&self, step: &HadoopStep, path: &str, mode: Option<u32>) -> Result<()> {
        // The server would make the directories above it too.
        let above = path.rsplit_once('/').map_or("", |(above, _)| above);
        let above = self.seen(step, if above.is_empty() { "/" } else { above });
        if above.await?.kind != NodeKind::Directory {
            let why = "a file is where a directory should be";
            return Err(Error::new(ErrorKind::NotADirectory, why).context(step.what.to_string()));
        }
        let mode = mode.unwrap_or(0o755);
        let operation = format!("MKDIRS&permission={mode:o}");
        let made = async {
            let answer = self
                .order(Ask::Other, Method::PUT, path, &operation)
                .await?;
            match read_boolean(&answer)? {
                true => Ok(()),
                false => Err(Fault::Unfit("the directory was not made".into())),
            }
        };
        self.attempt(step, made).await
    }

    async fn change(&self, step: &HadoopStep, path: &str, change: Change) -> Result<()> {
        let operation = match change {
            Change::Mode(mode) => format!("SETPERMISSION&permission={mode:o}"),
            Change::Names(user, group) => {
                let named = |name: &str, value: Option<String>| {
                    let value = value.map(|value| format!("&{name}={}", percent_encode(&value)));
                    value.unwrap_or_default()
                };
                format!("SETOWNER{}{}", named("owner", user), named("group", group))
            }
            Change::Time(millis) => format!("SETTIMES&modificationtime={millis}&accesstime=-1"),
        };
        let changed = self.order(Ask::Other, Method::PUT, path, &operation);
        self.attempt(step, changed).await.map(drop)
    }

    async fn read_range(
        self: Arc<Self>,
        path: &ObjectPath,
        tag: &VersionTag,
        range: ByteRange,
        deadline: Deadline,
    ) -> Result<ByteStream> {
        read(self, path, tag, range, deadline)
    }
}

/// A file that is being written. Nothing is sent before the first bytes are known, so that a small
/// file takes one request.
struct WebSink {
    web: Arc<Web>,
    path: String,
    mode: Option<u32>,
    /// How many bytes went in; none when there is no file yet.
    written: Option<u64>,
}

impl WebSink {
    async fn create(&self, step: &HadoopStep, bytes: &Bytes) -> Result<()> {
        let mode = self.mode.unwrap_or(0o644);
        let operation = format!(
            "CREATE&overwrite=true&permission={mode:o}&createflag=CREATE,OVERWRITE,SYNC_BLOCK"
        );
        let create = || {
            let bytes = bytes.clone();
            self.web
                .order_bytes(Method::PUT, &self.path, &operation, bytes)
        };
        let mut retry = Retry::new(step.deadline);
        let session = &self.web.session;
        session.until_sent(&step.what, &mut retry, create).await
    }

    async fn append(&self, step: &HadoopStep, before: u64, bytes: &Bytes) -> Result<()> {
        let after = before + bytes.len() as u64;
        let append = || async {
            let path = percent_encode_path(&self.path);
            let len = self.web.status(Ask::Other, &path).await?.tag().size;
            match len {
                len if len == after && before != after => Ok(()),
                len if len == before => {
                    let bytes = bytes.clone();
                    self.web
                        .order_bytes(Method::POST, &self.path, "APPEND", bytes)
                        .await
                }
                len => Err(Fault::Unfit(format!(
                    "the temporary file has {len} bytes in place of {before}"
                ))),
            }
        };
        let mut retry = Retry::new(step.deadline);
        let session = &self.web.session;
        session.until_sent(&step.what, &mut retry, append).await
    }
}

#[async_trait]
impl HadoopSink for WebSink {
    async fn write(&mut self, step: &HadoopStep, bytes: Bytes) -> Result<()> {
        let before = self.written.unwrap_or(0);
        match self.written {
            None => self.create(step, &bytes).await?,
            Some(_) if bytes.is_empty() => {}
            Some(before) => self.append(step, before, &bytes).await?,
        }
        self.written = Some(before + bytes.len() as u64);
        Ok(())
    }

    async fn finish(&mut self, step: &HadoopStep, _failure: Failure) -> Result<()> {
        match self.written {
            None => self.create(step, &Bytes::new()).await,
            Some(_) => Ok(()),
        }
    }
}

impl fmt::Debug for WebSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSink").finish_non_exhaustive()
    }
}
