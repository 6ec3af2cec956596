// SPDX-License-Identifier: Apache-2.0
//! Programs that tell credentials, such as the `credential_process` of a profile.
//!
//! One gets little time and may say little. It runs in a process group of its own, which is ended
//! with it when nobody waits any more. What it says on its standard error is not shown: it may be
//! secret.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqsign_core::{CommandExecute, CommandOutput, Error, Result};
use rustix::process::{Pid, Signal, kill_process_group};

/// Such programs ask services on the other side of the internet.
const PATIENCE: Duration = Duration::from_secs(20);
/// Answers with credentials are a few kilobytes.
const OUTPUT_MAX: u64 = 1 << 20;

/// Runs them.
#[derive(Debug)]
pub(super) struct Commands;

impl CommandExecute for Commands {
    async fn command_execute(&self, program: &str, args: &[&str]) -> Result<CommandOutput> {
        let failed = |why: &dyn std::fmt::Display| {
            Error::unexpected(format!("the program for credentials: {why}"))
        };
        let child = Command::new(program)
            .args(args)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| failed(&error))?;
        let mut group = Group(Some(Pid::from_child(&child)));
        let ended = tokio::task::spawn_blocking(move || wait(child));
        let output = tokio::time::timeout(PATIENCE, ended)
            .await
            .map_err(|_| failed(&format!("it did not end in {PATIENCE:?}")))?
            .map_err(|error| failed(&error))?
            .map_err(|error| failed(&error))?;
        group.0 = None;
        Ok(output)
    }
}

/// The processes of one program; ended when dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // An error means that they have ended already.
            let _killed = kill_process_group(leader, Signal::KILL);
        }
    }
}

fn wait(mut child: Child) -> std::io::Result<CommandOutput> {
    let mut stdout = Vec::new();
    if let Some(pipe) = child.stdout.take() {
        // Who says more breaks off at the closed pipe, and fails.
        pipe.take(OUTPUT_MAX).read_to_end(&mut stdout)?;
    }
    let status = child.wait()?;
    Ok(CommandOutput {
        status: status.code().unwrap_or(-1),
        stdout,
        stderr: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    #[tokio::test]
    async fn a_program_tells_what_it_prints_and_how_it_ended() {
        let run = async |script: &str| Commands.command_execute("sh", &["-c", script]).await;
        let output = run("echo told; echo hidden >&2").await.unwrap();
        assert_eq!((output.status, &output.stdout[..]), (0, &b"told\n"[..]));
        assert!(output.stderr.is_empty());
        assert_eq!(run("exit 3").await.unwrap().status, 3);
        let absent = Commands.command_execute("/nowhere/at/all", &[]).await;
        assert!(absent.is_err());
        let endless = run("yes").await.unwrap();
        assert!(!endless.success() && endless.stdout.len() == 1 << 20);
    }

    #[tokio::test]
    async fn a_program_that_nobody_waits_for_is_ended_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let script = format!(
            "mkfifo {0}; (exec 3<>{0}; exec sleep 600) & wait",
            pipe.display()
        );
        let args = ["-c", script.as_str()];
        let run = Commands.command_execute("sh", &args);
        let mut write = std::fs::OpenOptions::new();
        let at_once = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
        write.write(true).custom_flags(at_once);
        let made = async {
            // It can be opened for writing as long as somebody has the other end open.
            while write.open(&pipe).is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = run => panic!("it does not end"),
            () = made => {}
        }
        while write.open(&pipe).is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
