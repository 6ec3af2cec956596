// SPDX-License-Identifier: Apache-2.0
//! `forebay dashboard`: a page that shows a daemon, for a browser on this machine, until ctrl-C.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use gateway::Client;
use gateway::dashboard;
use gateway::token::Token;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::mounts::block_on;
use super::waiting::one_client;
use crate::cli::DashboardArgs;

/// A status is answered from memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves the page of one daemon.
pub(crate) fn run(args: &DashboardArgs, run_dir: Option<&Path>) -> Result<()> {
    let client = one_client(args.dir.as_deref(), &args.remote, run_dir)?;
    block_on(serve(client, args.port))?
}

async fn serve(client: Client, port: u16) -> Result<()> {
    let mount_point = client.status(PATIENCE).await?.mount_point;
    // Never another address: what a network may see is for --admin-listen, with TLS.
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    let what = || format!("listen on 127.0.0.1:{port}: give another --port, or none");
    let listener = bound.with_context(what)?;
    let port = listener.local_addr().with_context(what)?.port();
    let token = Token::random()?;
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    super::answer(format_args!(
        "http://127.0.0.1:{port}/#token={}\n",
        token.text()
    ))?;
    super::complain(format_args!(
        "That is the dashboard of {}, for whoever has the whole address; ctrl-C ends it.\n\
         From another machine, first run there: ssh -L {port}:127.0.0.1:{port} THIS-HOST",
        mount_point
    ));
    let stop = async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    };
    // A browser keeps its connections open: they are not waited for.
    tokio::select! {
        served = dashboard::serve(listener, client, token, std::future::pending()) => Ok(served?),
        () = stop => Ok(()),
    }
}
