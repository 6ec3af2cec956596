// SPDX-License-Identifier: Apache-2.0
//! Metadata and token services of a test, and an environment to find them in.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use reqsign_core::{Context, HttpSend, StaticEnv};

use super::command::Commands;
use super::{Authorize, Files, Outcome};

type Answer = dyn Fn(&Request<Bytes>) -> Result<String, u16> + Send + Sync;

/// Answers every request with what a test says: a body, or a status.
#[derive(Clone)]
pub(crate) struct Services(Arc<Answer>);

impl Services {
    pub(crate) fn new(
        answer: impl Fn(&Request<Bytes>) -> Result<String, u16> + Send + Sync + 'static,
    ) -> Self {
        Services(Arc::new(answer))
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Services")
    }
}

impl HttpSend for Services {
    async fn http_send(&self, request: Request<Bytes>) -> reqsign_core::Result<Response<Bytes>> {
        let (status, body) = match (self.0)(&request) {
            Ok(body) => (200, body),
            Err(status) => (status, String::new()),
        };
        let answer = Response::builder().status(status).body(body.into());
        Ok(answer.unwrap())
    }
}

/// Returns where credentials are looked for: these variables, all files, these services.
pub(crate) fn environment(envs: &[(&str, &str)], services: Services) -> Context {
    let env = StaticEnv {
        home_dir: None,
        envs: HashMap::from_iter(envs.iter().map(|(k, v)| ((*k).into(), (*v).into()))),
    };
    Context::new()
        .with_env(env)
        .with_file_read(Files)
        .with_http_send(services)
        .with_command_execute(Commands)
}

/// Signs a request; returns what says in it who asks.
pub(crate) async fn asked_as(authorize: &dyn Authorize) -> Outcome<String> {
    let request = Request::get("http://h/b/k").body(()).unwrap();
    let (mut parts, ()) = request.into_parts();
    authorize.sign(&mut parts).await?;
    Ok(parts.headers["authorization"].to_str().unwrap().to_owned())
}
