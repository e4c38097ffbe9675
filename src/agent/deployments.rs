//! `depot agent deployments`, `user-install` and `snooze`: what people at a machine see of deployments, and may do.

use super::asked;
use super::control::Ask;
use crate::{
    exit::Failure,
    output::{Out, table},
    units,
};
use clap::Args;
use client::enforce::report::{Listed, ListedUpdate};
use deployment::enforcement::{Compliance, Enforcement, Evaluation, Failure as Cause, Update};
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
        let now = Timestamp::now();
        let when = |at: Option<Timestamp>| at.map_or_else(|| "optional".to_owned(), units::when);
        let rows = listed.iter().map(|it| {
            [
                it.name.clone(),
                units::when(it.available),
                when(it.deadline),
                compliance(it.standing.compliance).to_owned(),
                next(it, now),
            ]
        });
        let columns = ["deployment", "available", "deadline", "complies", "state"];
        w.write_all(table(columns, rows.collect()).as_bytes())?;
        for it in listed.iter().filter(|it| !it.updates.is_empty()) {
            let rows = it.updates.iter().map(|update| {
                let why = update.failure.as_ref().map(first_line).unwrap_or_default();
                [update.name.clone(), state(update), why.to_owned()]
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
fn next(it: &Listed, now: Timestamp) -> String {
    let comes = it.enforced.filter(|at| *at > now).map(units::when);
    let said = match it.standing.enforcement {
        Enforcement::Unknown if it.standing.evaluation == Evaluation::Failed => {
            let why = it.failure.as_ref().map_or("nobody knows why", first_line);
            return format!("could not be evaluated: {why}");
        }
        Enforcement::Unknown if it.available > now => "not available yet",
        Enforcement::Unknown if it.standing.compliance == Compliance::Unknown => {
            "not evaluated yet"
        }
        Enforcement::Unknown if it.deadline.is_none() => "waits for `user-install`",
        Enforcement::Unknown => "waits",
        Enforcement::Installing => return "installing".into(),
        Enforcement::WaitingForRestart => {
            let when = comes.map_or_else(String::new, |at| format!(", {at} or later"));
            return format!("the machine will restart by itself{when}");
        }
        Enforcement::WaitingForAnother => "waits for another installation",
        Enforcement::Succeeded if it.updates.is_empty() => {
            return "nothing of it is required".into();
        }
        Enforcement::Succeeded => return "installed".into(),
        Enforcement::PendingRestart => return "somebody has to restart the machine".into(),
        Enforcement::Failed => "failed",
        Enforcement::Downloading => "downloading",
        Enforcement::Downloaded => "downloaded",
        Enforcement::DownloadFailed => "files could not be had",
        Enforcement::WaitingForWindow => "waits for a maintenance window",
        Enforcement::WaitingForTurn => "waits for its turn",
    };
    // Who wants it now waits for no deadline.
    match comes.filter(|_| !it.is_wanted) {
        Some(at) => format!("{said}; to be installed {at}"),
        None => said.to_owned(),
    }
}

/// How far an update is, in words.
fn state(it: &ListedUpdate) -> String {
    let again = match it.again_in {
        None => "tried again when deployments are evaluated".to_owned(),
        Some(0) => "tried again as soon as it may".to_owned(),
        Some(wait) => format!("tried again in {}", units::duration(Duration::from_secs(wait))),
    };
    let said = match it.state {
        Update::Unknown => "unknown",
        Update::Started => "about to be installed",
        Update::WaitingForContent => "waits for its files",
        Update::WaitingForAnother => "waits for another installation",
        Update::WaitingForWindow => "waits for a window",
        Update::RestartFirst => "needs a restart first",
        Update::GeneralFailure => "failed, by no fault of its own",
        Update::Pending => "waits",
        Update::Installing => "installing",
        Update::PendingRestart => "needs a restart",
        Update::Installed => "installed",
        Update::Failed => return format!("failed, {again}"),
        Update::Downloading => "downloading",
        Update::Downloaded => "downloaded",
        Update::DownloadFailed => return format!("files could not be had, {again}"),
    };
    said.to_owned()
}

/// What failed, in its first line: the cause.
fn first_line(failure: &Cause) -> &str {
    failure.detail.lines().next().unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use client::enforce::report::Standing;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-{text}:00Z").parse().unwrap()
    }

    /// One that is due on the 28th at noon.
    fn listed(enforcement: Enforcement) -> Listed {
        let deadline = Some(at("28T12:00"));
        Listed {
            id: deployment::policy::DeploymentId(uuid::Uuid::from_u128(1)),
            name: "November".into(),
            available: at("20T00:00"),
            deadline,
            enforced: deadline,
            is_wanted: false,
            standing: Standing {
                compliance: Compliance::NonCompliant,
                enforcement,
                evaluation: Evaluation::Succeeded,
            },
            failure: None,
            updates: Vec::new(),
        }
    }

    fn update(state: Update, again_in: Option<u64>) -> ListedUpdate {
        let id = sync::name::UpdateId(uuid::Uuid::from_u128(1));
        ListedUpdate { id, name: "tool 2.0-1".into(), state, failure: None, again_in }
    }

    #[test]
    fn what_is_installed_already_is_not_said_to_be_installed_at_the_deadline() {
        let (before, after) = (at("27T12:00"), at("29T12:00"));
        let noon = units::when(at("28T12:00"));
        let said = |enforcement, now| next(&listed(enforcement), now);
        let downloaded = format!("downloaded; to be installed {noon}");
        assert_eq!(said(Enforcement::Downloaded, before), downloaded);
        assert_eq!(said(Enforcement::Downloaded, after), "downloaded");
        let restarts = format!("the machine will restart by itself, {noon} or later");
        assert_eq!(said(Enforcement::WaitingForRestart, before), restarts);
        let somebody = "somebody has to restart the machine";
        assert_eq!(said(Enforcement::PendingRestart, before), somebody);
        assert_eq!(said(Enforcement::Succeeded, before), "nothing of it is required");
        let mut wanted = listed(Enforcement::Succeeded);
        wanted.updates.push(update(Update::Installed, None));
        assert_eq!(next(&wanted, before), "installed");
        wanted.standing.enforcement = Enforcement::Downloading;
        wanted.is_wanted = true;
        assert_eq!(next(&wanted, before), "downloading");
    }

    #[test]
    fn what_failed_says_why_and_when_it_is_tried_again() {
        let mut listed = listed(Enforcement::Unknown);
        listed.standing.evaluation = Evaluation::Failed;
        listed.failure = Some(Cause::new(-6, "nobody is there\nat all"));
        assert_eq!(next(&listed, at("27T12:00")), "could not be evaluated: nobody is there");
        assert_eq!(state(&update(Update::Failed, Some(90))), "failed, tried again in 1 min 30 s");
        let again = "failed, tried again when deployments are evaluated";
        assert_eq!(state(&update(Update::Failed, None)), again);
        assert_eq!(state(&update(Update::Installed, None)), "installed");
    }
}
