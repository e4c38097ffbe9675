//! `depot agent deployments`, `user-install` and `snooze`: what people at a machine see of deployments, and may do.

use super::asked;
use super::control::Ask;
use crate::{
    exit::Failure,
    output::{Out, table},
    units,
};
use clap::Args;
use client::enforce::report::Listed;
use deployment::enforcement::{Compliance, Enforcement, Update};
use jiff::Timestamp;
use std::{path::Path, time::Duration};

/// Install now what is available
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot agent user-install 'November patches'
  depot agent user-install --all

Updates of an optional deployment wait for this; those of a required one need not wait for their deadline then, nor
for a maintenance window. A restart that they need comes at the deadline, unless somebody restarts the machine
before; of an optional deployment none comes by itself.")]
pub struct InstallArgs {
    /// The deployment, by its name or id
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    deployment: Option<String>,
    /// All that are available
    #[arg(long)]
    all: bool,
}

/// Put off the restart that is announced
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot agent snooze
  depot agent snooze --for 30m

It can be put off as long as the settings of clients (restart_snooze) and the maintenance window allow.")]
pub struct SnoozeArgs {
    /// For how long
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = units::parse_duration)]
    by: Duration,
}

/// Shows what is deployed.
pub fn list(folder: &Path, out: Out) -> Result<(), Failure> {
    show(serde_json::from_value(asked(folder, &Ask::Deployments)?)?, out)
}

/// Has deployments installed.
pub fn install(folder: &Path, args: InstallArgs, out: Out) -> Result<(), Failure> {
    let ask = Ask::Install { deployment: args.deployment.filter(|_| !args.all) };
    show(serde_json::from_value(asked(folder, &ask)?)?, out)
}

/// Puts the restart off.
pub fn snooze(folder: &Path, args: &SnoozeArgs, out: Out) -> Result<(), Failure> {
    let said = asked(folder, &Ask::Snooze { seconds: args.by.as_secs() })?;
    let wait = Duration::from_secs(said["restart_in"].as_u64().unwrap_or_default());
    out.show(&said, |w| writeln!(w, "the machine restarts in {}", units::duration(wait)))
}

fn show(listed: Vec<Listed>, out: Out) -> Result<(), Failure> {
    out.show(&listed, |w| {
        if listed.is_empty() {
            return writeln!(w, "nothing is deployed to this machine");
        }
        let when = |at: Option<Timestamp>| at.map_or_else(|| "optional".to_owned(), units::when);
        let rows = listed.iter().map(|it| {
            [
                it.name.clone(),
                units::when(it.available),
                when(it.deadline),
                compliance(it.standing.compliance).to_owned(),
                next(it),
            ]
        });
        let columns = ["deployment", "available", "deadline", "complies", "state"];
        w.write_all(table(columns, rows.collect()).as_bytes())?;
        for it in listed.iter().filter(|it| !it.updates.is_empty()) {
            let rows = it.updates.iter().map(|update| {
                let why =
                    update.failure.as_ref().map(|it| it.detail.lines().next().unwrap_or_default());
                [
                    update.name.clone(),
                    state(update.state).to_owned(),
                    why.unwrap_or_default().to_owned(),
                ]
            });
            writeln!(w, "\n{}", it.name)?;
            w.write_all(table(["update", "state", "why"], rows.collect()).as_bytes())?;
        }
        Ok(())
    })
}

/// Whether a machine complies, in a word.
fn compliance(it: Compliance) -> &'static str {
    match it {
        Compliance::Unknown => "unknown",
        Compliance::Compliant => "yes",
        Compliance::NonCompliant => "no",
    }
}

/// How far a deployment is, and what comes next.
fn next(it: &Listed) -> String {
    let said = match it.standing.enforcement {
        Enforcement::Unknown if it.available > Timestamp::now() => "not available yet",
        Enforcement::Unknown if it.standing.compliance == Compliance::Unknown => {
            "not evaluated yet"
        }
        Enforcement::Unknown if it.deadline.is_none() => "waits for `user-install`",
        Enforcement::Unknown => "waits",
        Enforcement::Installing => "installing",
        Enforcement::WaitingForRestart => "waits for a restart, which comes by itself",
        Enforcement::WaitingForAnother => "waits for another installation",
        Enforcement::Succeeded => "installed",
        Enforcement::PendingRestart => "waits for somebody to restart the machine",
        Enforcement::Failed => "failed",
        Enforcement::Downloading => "downloading",
        Enforcement::Downloaded => "downloaded",
        Enforcement::DownloadFailed => "files could not be had",
        Enforcement::WaitingForWindow => "waits for a maintenance window",
        Enforcement::WaitingForTurn => "waits for its turn",
    };
    match it.enforced {
        Some(at) if at > Timestamp::now() && it.standing.enforcement != Enforcement::Succeeded => {
            format!("{said}; to be installed {}", units::when(at))
        }
        _ => said.to_owned(),
    }
}

/// How far an update is, in words.
fn state(it: Update) -> &'static str {
    match it {
        Update::Unknown => "unknown",
        Update::Started => "about to be installed",
        Update::WaitingForContent => "waits for its files",
        Update::WaitingForAnother => "waits for another installation",
        Update::WaitingForWindow => "waits for a window",
        Update::RestartFirst => "needs a restart first",
        Update::GeneralFailure => "failed, by no fault of its own",
        Update::Pending => "pending",
        Update::Installing => "installing",
        Update::PendingRestart => "needs a restart",
        Update::Installed => "installed",
        Update::Failed => "failed",
        Update::Downloading => "downloading",
        Update::Downloaded => "downloaded",
        Update::DownloadFailed => "files could not be had",
    }
}
