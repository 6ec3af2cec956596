// SPDX-License-Identifier: Apache-2.0
//! The terminal: taken over for as long as the screen lives, and given back as it was.
//!
//! It is given back when the screen is dropped, which an error and a signal lead to as well, and by
//! the panic hook. Keys are read by a thread of their own, which ends with the process: a read of a
//! terminal cannot be called off.

use std::io::Stdout;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::{Frame, Terminal};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Keys that wait to be seen to.
const KEYS_MAX: usize = 64;
/// How often the thread of the keys sees whether it is still wanted.
const LOOK: Duration = Duration::from_millis(200);

/// What a screen waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Key(KeyCode),
    Resized,
    /// It is time for the next look.
    Time,
    /// Somebody wants an end: ctrl-C or a signal, or the terminal is gone.
    End,
}

/// The terminal of this process.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    events: mpsc::Receiver<Event>,
    ends: [Signal; 3],
}

impl Screen {
    /// Takes the terminal over. Needs a runtime.
    pub(super) fn enter() -> Result<Screen> {
        let watch = |kind| signal(kind).context("watch for signals");
        let ends = [
            watch(SignalKind::terminate())?,
            watch(SignalKind::interrupt())?,
            watch(SignalKind::hangup())?,
        ];
        let (sender, events) = mpsc::channel(KEYS_MAX);
        // Sets the hook that gives the terminal back when something panics.
        let terminal = ratatui::try_init().context("take the terminal over")?;
        let screen = Screen {
            terminal,
            events,
            ends,
        };
        std::thread::Builder::new()
            .name("keys".into())
            .spawn(move || read_keys(&sender))
            .context("start a thread")?;
        Ok(screen)
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> Result<()> {
        self.terminal.draw(draw).context("draw on the terminal")?;
        Ok(())
    }

    /// Waits until something happens, or it is `next`.
    pub(super) async fn wait(&mut self, next: Instant) -> Result<Event> {
        let [terminate, interrupt, hang_up] = &mut self.ends;
        Ok(tokio::select! {
            event = self.events.recv() => event.unwrap_or(Event::End),
            _ = terminate.recv() => Event::End,
            _ = interrupt.recv() => Event::End,
            _ = hang_up.recv() => Event::End,
            () = tokio::time::sleep_until(next.into()) => Event::Time,
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Where that fails the terminal is gone.
        ratatui::try_restore().ok();
    }
}

fn read_keys(sender: &mpsc::Sender<Event>) {
    while !sender.is_closed() {
        match event::poll(LOOK) {
            Ok(false) => continue,
            Ok(true) => {}
            Err(_) => return,
        }
        let Ok(read) = event::read() else { return };
        let event = match read {
            event::Event::Key(key) if key.kind == KeyEventKind::Press => {
                let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
                match key.code {
                    KeyCode::Char('c' | 'd') if is_control => Event::End,
                    code => Event::Key(code),
                }
            }
            event::Event::Resize(..) => Event::Resized,
            _ => continue,
        };
        if sender.blocking_send(event).is_err() {
            return;
        }
    }
}
