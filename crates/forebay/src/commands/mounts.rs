// SPDX-License-Identifier: Apache-2.0
//! `forebay mounts`: add, show, change and remove the storages of a running daemon's tree.
//!
//! Which daemon is meant follows from the place, when it is written as a path below a mount point,
//! or is the only one that runs. All is done by the daemon; here words become a request and its
//! answer becomes words.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use comfy_table::{Table, presets};
use futures::future::join_all;
use gateway::{Client, wire};
use serde::Serialize;
use vfs::WriteMode;

use crate::cli::{
    AddArgs, DaemonChoice, ListArgs, MountsCommand, RemoveArgs, ShowArgs, StorageArgs, UpdateArgs,
};
use crate::places;
use crate::plan;
use crate::records::{self, Record};
use crate::usage;
use crate::values;

/// What is known is answered from memory.
const PATIENCE: Duration = Duration::from_secs(5);
/// A change may have to ask two storages, each within its own limit.
const CHANGE_MAX: Duration = Duration::from_secs(90);

/// What is printed with `--json`.
#[derive(Serialize)]
struct Report {
    daemons: Vec<wire::MountList>,
}

/// Carries a command out.
pub(crate) fn run(command: &MountsCommand, run_dir: Option<&Path>) -> Result<()> {
    match command {
        MountsCommand::Add(args) => add(args, run_dir),
        MountsCommand::List(args) => list(args, run_dir),
        MountsCommand::Show(args) => show(args, run_dir),
        MountsCommand::Update(args) => update(args, run_dir),
        MountsCommand::Remove(args) => remove(args, run_dir),
        MountsCommand::Check(args) => super::check::run(args),
    }
}

fn add(args: &AddArgs, run_dir: Option<&Path>) -> Result<()> {
    let (daemon, at) = choose(&args.at, &args.daemon, run_dir)?;
    plan::check_no_userinfo(&args.uri)?;
    let request = wire::AddMount {
        at,
        uri: plan::absolute_uri(&args.uri)?,
        change: wire::MountChange {
            no_check: args.no_check,
            ..change(&args.storage)?
        },
    };
    let client = Client::new(&daemon.socket);
    let changed = block_on(client.add_mount(&request, CHANGE_MAX))?;
    let changed = changed.map_err(usage::if_invalid)?;
    let place = place(&daemon, &changed.mount);
    tell(
        &changed,
        format_args!("{} is mounted at {place}", changed.mount.uri),
    );
    Ok(())
}

fn update(args: &UpdateArgs, run_dir: Option<&Path>) -> Result<()> {
    let (daemon, at) = choose(&args.at, &args.daemon, run_dir)?;
    let mut change = change(&args.storage)?;
    change.no_check = args.no_check;
    if args.no_credentials {
        change.credentials = Some(Default::default());
    }
    let request = wire::UpdateMount { at, change };
    let client = Client::new(&daemon.socket);
    let changed = block_on(client.update_mount(&request, CHANGE_MAX))?;
    let changed = changed.map_err(usage::if_invalid)?;
    let place = place(&daemon, &changed.mount);
    tell(&changed, format_args!("the mount at {place} is changed"));
    Ok(())
}

fn remove(args: &RemoveArgs, run_dir: Option<&Path>) -> Result<()> {
    let (daemon, at) = choose(&args.at, &args.daemon, run_dir)?;
    let client = Client::new(&daemon.socket);
    let wait_seconds = args.wait.then_some(args.timeout.as_secs());
    let request = wire::RemoveMount {
        at,
        wait_seconds,
        force: args.force,
    };
    let patience = CHANGE_MAX + Duration::from_secs(wait_seconds.unwrap_or(0));
    let changed = block_on(client.remove_mount(&request, patience))??;
    let (uri, place) = (&changed.mount.uri, place(&daemon, &changed.mount));
    tell(
        &changed,
        format_args!("{uri} is no longer mounted at {place}"),
    );
    Ok(())
}

fn show(args: &ShowArgs, run_dir: Option<&Path>) -> Result<()> {
    let (daemon, at) = choose(&args.at, &args.daemon, run_dir)?;
    let list = block_on(Client::new(&daemon.socket).mounts(PATIENCE))??;
    let wanted = format!("/{}", at.trim_matches('/'));
    let Some(mount) = list.mounts.iter().find(|mount| mount.at == wanted) else {
        let places: Vec<_> = list.mounts.iter().map(|mount| mount.at.as_str()).collect();
        bail!(
            "nothing is mounted at '{wanted}'; the mounts are: {}",
            places.join(", ")
        );
    };
    match args.json {
        true => super::answer(json(mount)?),
        false => super::answer(details(mount)),
    }
}

/// Returns the daemons that are meant: all, where none is named.
pub(super) fn daemons(choice: &DaemonChoice, run_dir: Option<&Path>) -> Result<Vec<Record>> {
    let mut found = records::scan(&places::run_dirs(run_dir))?.live;
    let wanted = choice.mount_point.as_deref();
    let wanted = wanted.map(places::mount_point).transpose()?;
    found.retain(|daemon| {
        let point = wanted.as_ref();
        point.is_none_or(|point| daemon.mount_point == *point)
    });
    match found.is_empty() {
        true => bail!("{}", none_runs(wanted.as_deref())),
        false => Ok(found),
    }
}

fn list(args: &ListArgs, run_dir: Option<&Path>) -> Result<()> {
    let daemons = daemons(&args.daemon, run_dir)?;
    let asked = daemons.iter().map(|daemon| async move {
        let client = Client::new(&daemon.socket);
        client.mounts(PATIENCE).await
    });
    let lists = block_on(join_all(asked))?;
    let report = Report {
        daemons: lists.into_iter().collect::<types::Result<_>>()?,
    };
    match args.json {
        true => super::answer(json(&report)?),
        false => super::answer(table(&report)),
    }
}

/// Returns the daemon that is meant, and the place in its tree.
fn choose(at: &str, choice: &DaemonChoice, run_dir: Option<&Path>) -> Result<(Record, String)> {
    let live = records::scan(&places::run_dirs(run_dir))?.live;
    let wanted = choice.mount_point.as_deref();
    let wanted = wanted.map(places::mount_point).transpose()?;
    choose_among(live, at, wanted.as_deref())
}

fn choose_among(live: Vec<Record>, at: &str, wanted: Option<&Path>) -> Result<(Record, String)> {
    if !at.starts_with('/') {
        let why = format!("'{at}' must begin with '/', as in /datasets/imagenet");
        return Err(usage::wrong(why));
    }
    let candidates: Vec<_> = live
        .into_iter()
        .filter(|daemon| wanted.is_none_or(|point| daemon.mount_point == *point))
        .collect();
    if candidates.is_empty() {
        bail!("{}", none_runs(wanted));
    }
    // The longest: one mount point may lie in another's tree.
    let within = candidates
        .iter()
        .filter(|daemon| Path::new(at).starts_with(&daemon.mount_point))
        .max_by_key(|daemon| daemon.mount_point.as_os_str().len());
    if let Some(daemon) = within {
        let below = Path::new(at).strip_prefix(&daemon.mount_point);
        let below = below.context("a path below itself")?.to_string_lossy();
        return Ok((daemon.clone(), format!("/{below}")));
    }
    match &candidates[..] {
        [only] => Ok((only.clone(), at.to_owned())),
        several => {
            let points = several
                .iter()
                .map(|one| one.mount_point.display().to_string());
            let points: Vec<_> = points.collect();
            bail!(
                "several daemons run: say which with --mount-point, one of {}",
                points.join(", ")
            )
        }
    }
}

fn none_runs(wanted: Option<&Path>) -> String {
    match wanted {
        Some(point) => format!("no daemon of this user serves '{}'", point.display()),
        None => "no daemon of this user runs; start one with 'forebay mount URI DIR' or 'forebay \
                 serve'"
            .to_owned(),
    }
}

/// Makes a request of flags; only what was given is in it.
fn change(flags: &StorageArgs) -> Result<wire::MountChange> {
    let credentials = plan::credentials_of(flags)?;
    Ok(wire::MountChange {
        options: plan::options_of(flags)?,
        credentials: (!credentials.is_empty()).then(|| credentials.references().clone()),
        freshness: flags.freshness.map(values::show_freshness),
        read_only: flags.read_only.then_some(true),
        write_mode: flags.write_mode.map(|mode| mode.name().to_owned()),
        write_modes: (flags.write_mode_for.iter())
            .map(|(path, mode)| {
                let mode = mode.map(WriteMode::name).unwrap_or_default();
                (format!("/{path}"), mode.to_owned())
            })
            .collect(),
        bandwidth_bytes: flags.bandwidth.map(|rate| rate.0),
        uid: flags.uid,
        gid: flags.gid,
        file_mode: flags.file_mode,
        dir_mode: flags.dir_mode,
        idmap: flags.idmap.as_ref().map(ToString::to_string),
        no_check: false,
    })
}

pub(super) fn block_on<F: Future>(future: F) -> Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    Ok(runtime.block_on(future))
}

fn place(daemon: &Record, mount: &wire::Mount) -> String {
    let below = mount.at.trim_start_matches('/');
    daemon.mount_point.join(below).display().to_string()
}

fn tell(changed: &wire::MountChanged, done: std::fmt::Arguments<'_>) {
    super::tell(format_args!("{done}\n"));
    for notice in &changed.notices {
        super::tell(format_args!("  note: {notice}\n"));
    }
}

fn json(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(value).context("write JSON")? + "\n")
}

fn table(report: &Report) -> String {
    let mut text = String::new();
    for daemon in &report.daemons {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_header([
            daemon.mount_point.as_str(),
            "storage",
            "freshness",
            "added",
            "state",
        ]);
        for mount in &daemon.mounts {
            let state = mount.fault.as_deref().unwrap_or("answers");
            let added = if mount.source == "live" {
                "live"
            } else {
                "at start"
            };
            table.add_row([&mount.at, &mount.uri, &mount.freshness, added, state]);
        }
        if daemon.mounts.is_empty() {
            table.add_row(["nothing is mounted; 'forebay mounts add AT URI' does it"]);
        }
        writeln!(text, "{table}").expect("a String takes all that is written to it");
    }
    text
}

fn details(mount: &wire::Mount) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        writeln!(text, "{name:<12} {value}").expect("a String takes all that is written to it");
    };
    line("at", &mount.at);
    line("storage", &mount.uri);
    line("state", mount.fault.as_deref().unwrap_or("answers"));
    line("freshness", &mount.freshness);
    line(
        "writes",
        &super::write_modes(&mount.write_mode, &mount.write_modes),
    );
    line("owner", &format!("{}:{}", mount.uid, mount.gid));
    if !mount.idmap.is_empty() {
        line("idmap", &mount.idmap);
    }
    line(
        "modes",
        &format!("files {}, directories {}", mount.file_mode, mount.dir_mode),
    );
    for (option, value) in &mount.options {
        line("option", &format!("{option}={value}"));
    }
    for (option, reference) in &mount.credentials {
        match option.as_str() {
            "*" => line("credentials", reference),
            option => line("credentials", &format!("{option}={reference}")),
        }
    }
    let added = match mount.source.as_str() {
        "live" => "to the running daemon; restored at its start",
        _ => "by the command line or the configuration file",
    };
    line("added", added);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(points: &[&str]) -> Vec<Record> {
        let record = |point: &&str| {
            Record::of_self(Path::new("/run/x"), Path::new(point), Vec::new(), None).unwrap()
        };
        points.iter().map(record).collect()
    }

    #[test]
    fn the_daemon_follows_from_the_place_the_flag_or_from_being_alone() {
        let chosen = |points: &[&str], at: &str, wanted: Option<&str>| {
            choose_among(records(points), at, wanted.map(Path::new))
                .map(|(daemon, at)| (daemon.mount_point.display().to_string(), at))
                .map_err(|error| error.to_string())
        };
        let is = |point: &str, at: &str| Ok((point.to_owned(), at.to_owned()));
        assert_eq!(
            chosen(&["/mnt/a"], "/sets/x", None),
            is("/mnt/a", "/sets/x")
        );
        assert_eq!(
            chosen(&["/mnt/a"], "/mnt/a/sets/x", None),
            is("/mnt/a", "/sets/x")
        );
        assert_eq!(
            chosen(&["/mnt/a", "/mnt/b"], "/mnt/b/x", None),
            is("/mnt/b", "/x")
        );
        assert_eq!(chosen(&["/m", "/m/in"], "/m/in/x", None), is("/m/in", "/x"));
        assert_eq!(chosen(&["/m", "/n"], "/x", Some("/n")), is("/n", "/x"));
        assert_eq!(chosen(&["/m"], "/m", None), is("/m", "/"));
        let several = chosen(&["/m", "/n"], "/mx", None).unwrap_err();
        assert!(
            several.contains("--mount-point") && several.contains("/n"),
            "{several}"
        );
        assert!(
            chosen(&[], "/x", None)
                .unwrap_err()
                .contains("forebay mount")
        );
        assert!(
            chosen(&["/m"], "x", None)
                .unwrap_err()
                .contains("begin with")
        );
        assert!(
            chosen(&["/m"], "/x", Some("/o"))
                .unwrap_err()
                .contains("'/o'")
        );
    }

    #[test]
    fn a_table_tells_what_is_where_and_what_does_not_answer() {
        let mount = |at: &str, fault: Option<&str>| wire::Mount {
            at: at.into(),
            uri: "s3://b/".into(),
            source: "live".into(),
            fault: fault.map(str::to_owned),
            credentials: [("*".to_owned(), "env:NAME".to_owned())].into(),
            ..wire::Mount::default()
        };
        let mounts = vec![mount("/x", None), mount("/y", Some("connection refused"))];
        let mount_point = "/mnt/data".to_owned();
        let report = Report {
            daemons: vec![wire::MountList {
                mount_point,
                mounts,
            }],
        };
        let text = table(&report);
        for part in [
            "/mnt/data",
            "/x",
            "s3://b/",
            "answers",
            "connection refused",
            "live",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let text = details(&report.daemons[0].mounts[1]);
        assert!(
            text.contains("env:NAME") && text.contains("refused"),
            "{text}"
        );
    }
}
