//! `depot agent`: this machine as a client of a site.
//!
//! `run` is the agent itself, until Ctrl-C or SIGTERM; `install` has the system run it; the others ask the agent that
//! runs, at the socket in its folder.

mod control;
mod deployments;
mod enrol;
mod filter;
mod home;
mod install;
mod link;
mod machine;
mod run;
mod status;

use crate::{
    cli::Shared,
    dp::serve::{parse_token, read_token},
    exit::{Exit, Failure, with_causes},
    output::{Out, facts, table, written},
    units,
};
use ::dp::field::JoinToken;
use clap::{Args, Subcommand, ValueEnum};
use client::{ledger::log::LogError, scan::Trigger};
use control::{Ask, Control, NoAnswer};
use home::{Home, HomeError};
use machine::Machine;
use run::{AgentError, Start};
use serde_json::Value;
use status::{Scanned, Status};
use std::{
    future::Future,
    io::{self, Write},
    path::{Path, PathBuf},
};
use tokio_util::sync::CancellationToken;

/// Where an agent lives, unless `--data` says otherwise.
const FOLDER: &str = "/var/lib/depot-agent";

/// Commands of the agent.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Be a client of a site, until Ctrl-C or SIGTERM
    Run(RunArgs),
    /// Have systemd run the agent on this machine
    Install(install::InstallArgs),
    /// Scan this machine for updates now, and say what was found
    Scan(ScanArgs),
    /// Say how the agent stands: policy, last scan, what waits to be told
    #[command(after_help = "\
Examples:
  depot agent status
  depot agent status --json | jq .last_scan.counts")]
    Status,
    /// Show what is deployed to this machine: when it is installed, and how far it is
    #[command(after_help = "\
Examples:
  depot agent deployments
  depot agent deployments --json | jq '.[].enforcement'")]
    Deployments,
    /// Install now what is available
    UserInstall(deployments::InstallArgs),
    /// Put off the restart that is announced
    Snooze(deployments::SnoozeArgs),
    /// Have the agent do now what it does by itself in time
    Trigger(TriggerArgs),
    /// Tell the site now what waits to be told
    #[command(after_help = "\
Examples:
  depot agent report")]
    Report,
    /// Say why an update is in its state on this machine
    #[command(after_help = "\
Examples:
  depot agent explain DSA-5545-1
  depot agent explain 'openssl 3.0.17-1' --json

Every condition of the update's rules is shown with what the machine has beside it; those that the state
follows from are marked.")]
    Explain {
        /// Its id, its name, or the name of an article of it
        update: String,
    },
}

/// What makes the token of a client.
pub const MADE_BY: &str = "`depot client join-token create`";

/// What the agent joins with.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// Where the site is, before the addresses that the token tells
    #[arg(long, value_name = "URL")]
    site: Option<String>,
    /// Token to join the site with, the first time. Others on this machine can read it in the list of
    /// processes: --join-file hides it
    #[arg(long, value_name = "TOKEN", conflicts_with = "join_file", value_parser = |text: &str| parse_token(text, MADE_BY))]
    join: Option<JoinToken>,
    /// File that holds the token
    #[arg(long, value_name = "FILE")]
    join_file: Option<PathBuf>,
}

impl JoinArgs {
    fn token(&self) -> Result<Option<JoinToken>, Failure> {
        match &self.join_file {
            None => Ok(self.join.clone()),
            Some(path) => read_token(path, MADE_BY).map(Some),
        }
    }

    fn site(&self) -> Result<Option<String>, Failure> {
        match &self.site {
            Some(site) if !site.starts_with("https://") => {
                let what = "--site: clients speak to a site by https:// alone";
                Err(Failure::usage(format!("{what}, not {site}")))
            }
            site => Ok(site.clone()),
        }
    }
}

/// Be a client of a site, until Ctrl-C or SIGTERM
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot agent run --join-file office.token --data /var/lib/depot-agent
  depot agent run --site https://site.example:8520 --join-file office.token
  depot agent run                                # joined before: no token needed

The site's administrator makes the token (`depot client join-token create`). The machine makes a key of its own and
gets a certificate for it, which it renews by itself; where an administrator has to approve it first, it asks again
until he did. From then on it takes its policy from the site, scans for updates, installs what is deployed when it is
time, and tells what it found and did. With --root it does so in the files below that folder, and restarts nothing but
by --restart-command. A folder that was copied to another machine is no use there: that one joins as a client of its own.")]
pub struct RunArgs {
    #[command(flatten)]
    join: JoinArgs,
    /// Look at the machine whose files are below this folder
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// What restarts the machine, in place of `systemctl reboot` or `shutdown -r now`
    #[arg(long, value_name = "COMMAND")]
    restart_command: Option<String>,
}

/// Scan this machine for updates now, and say what was found
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot agent scan                # asks the update point only if the catalogue here is a day old
  depot agent scan --force        # always asks it
  depot agent scan --offline      # never asks it: by what lies here")]
pub struct ScanArgs {
    /// Ask the update point for what is new, however young the catalogue is that lies here
    #[arg(long)]
    force: bool,
    /// Scan by the catalogue that lies here, and ask nobody
    #[arg(long, conflicts_with = "force")]
    offline: bool,
}

/// Have the agent do now what it does by itself in time
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot agent trigger policy                    # ask the site for the policy
  depot agent trigger scan                      # a scan that asks the update point
  depot agent trigger deployment-evaluation     # the same, and what failed to be installed may be tried anew
  depot agent trigger report                    # tell what waits")]
pub struct TriggerArgs {
    /// What
    what: What,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// Ask the site for the policy
    Policy,
    /// Scan, and ask the update point
    Scan,
    /// Evaluate deployments again, with a scan that asks the update point: what failed may be tried anew
    DeploymentEvaluation,
    /// Tell the site what waits
    Report,
}

/// Runs a command of the agent.
pub fn run(command: AgentCommand, shared: &Shared, out: Out) -> Result<(), Failure> {
    if shared.url.is_some() {
        return Err(Failure::usage("--url names a server to speak to; an agent is told --site"));
    }
    let folder = shared.data.clone().unwrap_or_else(|| PathBuf::from(FOLDER));
    match command {
        AgentCommand::Run(args) => serve(&args, &folder, shared, out),
        AgentCommand::Install(args) => install::install(&args, &folder, out),
        AgentCommand::Scan(args) => {
            let trigger = match (args.force, args.offline) {
                (true, _) => Trigger::UserAction,
                (_, true) => Trigger::AfterInstall,
                _ => Trigger::Schedule,
            };
            scan(&folder, &Ask::Scan { trigger, evaluates: false }, out)
        }
        AgentCommand::Status => status(&folder, &Ask::Status, out),
        AgentCommand::Report => status(&folder, &Ask::Report, out),
        AgentCommand::Trigger(TriggerArgs { what }) => match what {
            What::Policy => status(&folder, &Ask::Policy, out),
            What::Report => status(&folder, &Ask::Report, out),
            What::Scan | What::DeploymentEvaluation => {
                let evaluates = matches!(what, What::DeploymentEvaluation);
                scan(&folder, &Ask::Scan { trigger: Trigger::UserAction, evaluates }, out)
            }
        },
        AgentCommand::Deployments => deployments::list(&folder, out),
        AgentCommand::UserInstall(args) => deployments::install(&folder, args, out),
        AgentCommand::Snooze(args) => deployments::snooze(&folder, &args, out),
        AgentCommand::Explain { update } => explain(&folder, update, out),
    }
}

fn serve(args: &RunArgs, folder: &Path, shared: &Shared, out: Out) -> Result<(), Failure> {
    crate::log_to_stderr(shared.verbose.saturating_add(1));
    crate::transport::with_tls();
    // Also for programs that want the whole path, as rpm does.
    let root = std::fs::canonicalize(&args.root).map_err(|error| {
        Failure::usage(format!("{} is no root of a machine: {error}", args.root.display()))
    })?;
    let home = Home::open(folder).map_err(home_failure)?;
    let (site, token) = (args.join.site()?, args.join.token()?);
    let machine = Machine::at(&root).restarted_by(args.restart_command.as_deref());
    let start = Start { home: home.into(), machine, site, token };
    let started = |status: &Status| {
        // A closed stdout stops nobody.
        let _ = announce(status, folder, out);
    };
    crate::on_one_thread(serving(start, folder, started))?
}

async fn serving(
    start: Start,
    folder: &Path,
    started: impl FnOnce(&Status),
) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    let signals = told_to_stop()?;
    let (to, asked) = tokio::sync::mpsc::channel(16);
    let control = Control::bind(folder)
        .map_err(|error| Failure::failed(format!("the control socket cannot be made: {error}")))?;
    let control = tokio::spawn(control.serve(to));
    let stopping = stop.clone();
    let signalled = tokio::spawn(async move {
        signals.await;
        stopping.cancel();
    });
    let ran = run::run(start, asked, started, stop).await;
    signalled.abort();
    // The other end is gone: it ends, and takes the socket away.
    let _ = control.await;
    ran.map_err(|error| match error {
        AgentError::Home(error) => home_failure(error),
        AgentError::NotJoined(_) => Failure::usage(with_causes(&error)),
        AgentError::Ledger(LogError::NotALedger { .. }) => {
            Failure::new(Exit::Damaged, with_causes(&error))
        }
        _ => Failure::failed(with_causes(&error)),
    })
}

/// Ends when the process is told to.
fn told_to_stop() -> Result<impl Future<Output = ()>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn home_failure(error: HomeError) -> Failure {
    let exit = match error {
        HomeError::InUse(_) => Exit::Conflict,
        HomeError::NotAHome(_) => Exit::Usage,
        HomeError::Malformed { .. } => Exit::Damaged,
        _ => Exit::Failed,
    };
    Failure::new(exit, with_causes(&error))
}

fn announce(status: &Status, folder: &Path, out: Out) -> Result<(), Failure> {
    let data = std::path::absolute(folder)?;
    if out.json {
        return out.json_line(&serde_json::json!({
            "id": status.id, "name": status.name, "sites": status.sites, "data": data,
        }));
    }
    written(|w| {
        writeln!(w, "depot agent {}", env!("CARGO_PKG_VERSION"))?;
        writeln!(w, "  client  {} ({})", status.name, status.id)?;
        writeln!(w, "  site    {}", status.sites.join(", "))?;
        writeln!(w, "  data    {}", data.display())?;
        writeln!(w)
    })
}

/// What the agent that runs in a folder says.
fn asked(folder: &Path, ask: &Ask) -> Result<Value, Failure> {
    control::ask(folder, ask).map_err(|error| {
        let exit = match error {
            NoAnswer::NotRunning(_) => Exit::NotFound,
            NoAnswer::Said { exit, .. } => exit,
            _ => Exit::Failed,
        };
        Failure::new(exit, with_causes(&error))
    })
}

fn scan(folder: &Path, ask: &Ask, out: Out) -> Result<(), Failure> {
    let scanned: Scanned = serde_json::from_value(asked(folder, ask)?)?;
    out.show(&scanned, |w| w.write_all(scan_facts(&scanned).as_bytes()))
}

fn scan_facts(scanned: &Scanned) -> String {
    let mut rows = vec![("scanned", units::when(scanned.at)), ("started by", scanned.started_by())];
    if let Some(counts) = scanned.counts {
        let count = |n: u64| units::count(n);
        rows.push(("required", count(counts.required)));
        if counts.awaits_restart > 0 {
            rows.push(("of these await a restart", count(counts.awaits_restart)));
        }
        rows.push(("installed", count(counts.installed)));
        rows.push(("not required", count(counts.not_required)));
        rows.push(("unknown", count(counts.unknown)));
        if counts.unreadable > 0 {
            rows.push(("not understood", count(counts.unreadable)));
        }
        rows.push(("changed", count(scanned.changed as u64)));
    }
    match (&scanned.update_point, &scanned.refreshed) {
        (Some(point), Some(refreshed)) => {
            let brought = format!("{point}, {} brought", units::bytes(refreshed.bytes));
            rows.push(("update point", brought));
        }
        (Some(point), None) => rows.push(("update point", point.clone())),
        _ => rows.push(("update point", "not asked".into())),
    }
    if let Some(failed) = &scanned.failed {
        rows.push(("failed", failed.why.clone()));
    }
    facts(&rows)
}

fn status(folder: &Path, ask: &Ask, out: Out) -> Result<(), Failure> {
    let value = asked(folder, ask)?;
    if value.is_null() {
        return out.show(&value, |w| writeln!(w, "asked"));
    }
    let status: Status = serde_json::from_value(value)?;
    out.show(&status, |w| {
        let within = |seconds: Option<u64>| match seconds {
            None => "nothing is awaited".to_owned(),
            Some(seconds) => {
                format!("in {}", units::duration(std::time::Duration::from_secs(seconds)))
            }
        };
        let mut rows = vec![
            ("client", format!("{} ({})", status.name, status.id)),
            ("site", status.sites.join(", ")),
            ("standing", status.standing.clone()),
            ("policy", status.policy.clone().unwrap_or_else(|| "none yet".into())),
            ("updates", if status.updates_enabled { "enabled" } else { "not scanned for" }.into()),
            ("update point", status.update_point.clone().unwrap_or_else(|| "none".into())),
            ("catalogue", status.catalogue.map_or("none yet".into(), |seq| format!("at {seq}"))),
            ("next look for a scan", within(status.next_scan)),
            ("waits to be told", units::count(status.waiting as u64)),
            ("next report", within(status.next_report)),
        ];
        if let Some(until) = status.certificate_until {
            rows.push(("certificate until", units::when(until)));
        }
        for (name, trouble) in
            [("policy trouble", &status.policy_trouble), ("report trouble", &status.report_trouble)]
        {
            if let Some(trouble) = trouble {
                rows.push((name, trouble.clone()));
            }
        }
        if let Some(working) = &status.working {
            rows.push(("now", working.clone()));
        }
        if let Some(wait) = status.restart_in {
            rows.push(("restart", within(Some(wait))));
        }
        let words = |value: &Value| value.as_str().unwrap_or_default().replace('-', " ");
        for it in &status.deployments {
            let enforcement = serde_json::to_value(it.standing.enforcement)?;
            rows.push(("deployment", format!("{}: {}", it.name, words(&enforcement))));
        }
        w.write_all(facts(&rows).as_bytes())?;
        match &status.last_scan {
            None => Ok(()),
            Some(scanned) => write!(w, "\nLast scan\n{}", scan_facts(scanned)),
        }
    })
}

fn explain(folder: &Path, update: String, out: Out) -> Result<(), Failure> {
    let found = asked(folder, &Ask::Explain { update })?;
    out.show(&found, |w| {
        for one in found.as_array().into_iter().flatten() {
            writeln!(w, "{}", one["text"].as_str().unwrap_or_default().trim_end())?;
        }
        Ok(())
    })
}

/// What was done, or would be, line by line.
fn steps<'a>(
    said: &'a str,
    rows: &'a [(String, String)],
) -> impl FnOnce(&mut dyn Write) -> io::Result<()> + 'a {
    move |w| {
        let rows = rows.iter().map(|(what, where_)| [what.clone(), where_.clone()]).collect();
        w.write_all(table([said, "what"], rows).as_bytes())
    }
}
