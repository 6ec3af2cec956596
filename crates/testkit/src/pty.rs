// SPDX-License-Identifier: Apache-2.0
//! A terminal for a program under test: what it shows is read as a person would read it.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::wait;

/// Columns of the terminal.
const COLUMNS: NonZero<u16> = NonZero::new(80).expect("some");
/// Lines of the terminal.
const LINES: NonZero<u16> = NonZero::new(24).expect("some");

/// A program in a terminal of 80 columns and 24 lines.
pub struct Pty {
    child: Child,
    master: File,
    /// Keeps the terminal alive after the program, so that its state can be looked at.
    slave: OwnedFd,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Pty {
    /// Starts a program.
    ///
    /// # Panics
    /// When there is no terminal for it, or it cannot be started.
    pub fn start(mut command: Command) -> Pty {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("a terminal of ours");
        unlockpt(&master).expect("an open terminal");
        let name = ptsname(&master, Vec::new()).expect("the name of a terminal");
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let slave = rustix::fs::open(name, flags, Mode::empty()).expect("the other end");
        let size = Winsize {
            ws_row: LINES.get(),
            ws_col: COLUMNS.get(),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, size).expect("the size of a terminal");
        let end = || Stdio::from(slave.try_clone().expect("the other end"));
        command.env("TERM", "xterm-256color");
        command.stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().expect("the program");
        let screen = Arc::new(Mutex::new(vt100::Parser::new(LINES, COLUMNS, 0)));
        let master = File::from(master);
        let (mut reader, shown) = (
            master.try_clone().expect("the terminal"),
            Arc::clone(&screen),
        );
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = reader.read(&mut bytes) {
                let mut screen = shown.lock().unwrap_or_else(PoisonError::into_inner);
                screen.process(&bytes[..count]);
            }
        });
        Pty {
            child,
            master,
            slave,
            screen,
        }
    }

    /// Returns what the screen shows.
    pub fn text(&self) -> String {
        let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        screen.screen().contents()
    }

    /// Waits until the screen shows something.
    ///
    /// # Panics
    /// When it does not in time.
    #[track_caller]
    pub fn shows(&self, text: &str) {
        wait::until(&format!("'{text}' is shown"), || self.text().contains(text));
    }

    /// Types.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("a key");
    }

    /// Returns whether the terminal is as a shell wants it: lines are edited and shown by it, the
    /// cursor is there, and so is what was on the screen before.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn is_as_before(&self) -> bool {
        let modes = tcgetattr(&self.slave).expect("modes of the terminal");
        let is_cooked = modes
            .local_modes
            .contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
        let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        let screen = screen.screen();
        is_cooked && !screen.hide_cursor() && !screen.alternate_screen()
    }

    /// Returns whether the terminal comes to be as before: what a program said last may be on its way.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn is_given_back(&self) -> bool {
        wait::holds_within(wait::PATIENCE, || self.is_as_before())
    }

    /// Returns the process.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Waits for the end of the program.
    ///
    /// # Panics
    /// When it does not end in time.
    #[track_caller]
    pub fn end(&mut self) -> ExitStatus {
        let mut status = None;
        wait::until("the program has ended", || {
            status = self.child.try_wait().expect("its end");
            status.is_some()
        });
        status.expect("an end that was seen")
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}
