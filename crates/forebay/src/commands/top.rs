// SPDX-License-Identifier: Apache-2.0
//! `forebay top`: which files, processes and mounts have how much traffic, second by second.
//!
//! `rows` makes rates of what a daemon counts, `view` draws them and knows which key does what, and
//! here is the loop: ask, draw, wait for a key, a signal or the next second. The terminal is as it was
//! afterwards, however this ends. The daemon counts files and processes only while somebody asks.

mod rows;
mod screen;
mod view;

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gateway::{Client, wire};
use types::{Clock, ErrorKind, SystemClock};

use super::mounts::block_on;
use super::waiting::one_daemon;
use crate::cli::TopArgs;
use crate::usage;
use rows::Rates;
use screen::{Event, Screen};
use view::{After, View};

/// What is known is answered from memory.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between two questions.
const SECOND: Duration = Duration::from_secs(1);

/// What a daemon said, and when.
pub(crate) struct Sample {
    at: Instant,
    status: wire::Status,
    traffic: wire::Traffic,
}

/// Shows traffic until a key ends it, or once.
pub(crate) fn run(args: &TopArgs, run_dir: Option<&Path>) -> Result<()> {
    let is_once = args.once || args.json;
    let is_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if !(is_once || is_terminal) {
        return Err(usage::wrong(
            "this is no terminal: give --once for one table, or --json for scripts",
        ));
    }
    let daemon = one_daemon(args.dir.as_deref(), run_dir)?;
    let client = Client::new(&daemon.socket);
    match is_once {
        true => once(&client, args),
        false => block_on(watch(&client))?,
    }
}

async fn sample(client: &Client) -> Result<Sample> {
    let ended = |error: types::Error| match error.kind() {
        ErrorKind::Unavailable => error.context("the daemon has ended"),
        _ => error,
    };
    let traffic = client.traffic(PATIENCE).await.map_err(ended)?;
    let status = client.status(PATIENCE).await.map_err(ended)?;
    Ok(Sample {
        at: SystemClock.now(),
        status,
        traffic,
    })
}

/// Prints what happened in one second.
fn once(client: &Client, args: &TopArgs) -> Result<()> {
    let rates = block_on(async {
        let before = sample(client).await?;
        tokio::time::sleep(SECOND).await;
        let after = sample(client).await?;
        anyhow::Ok(Rates::between(&before, &after))
    })??;
    match args.json {
        true => {
            let text = serde_json::to_string_pretty(&rates).context("write JSON")?;
            super::answer(text + "\n")
        }
        false => super::answer(view::plain(&rates)),
    }
}

async fn watch(client: &Client) -> Result<()> {
    // Before the terminal is changed: when there is nobody to ask, it is left alone.
    let mut before = sample(client).await?;
    let mut view = View::default();
    let mut rates = Rates::between(&before, &before);
    let mut screen = Screen::enter()?;
    loop {
        screen.draw(|frame| view.draw(frame, &rates))?;
        let next = before.at + SECOND;
        match screen.wait(next).await? {
            Event::End => return Ok(()),
            Event::Key(key) => {
                if view.press(key) == After::End {
                    return Ok(());
                }
            }
            Event::Resized => {}
            Event::Time => {
                let after = sample(client).await?;
                rates = Rates::between(&before, &after);
                before = after;
            }
        }
    }
}
