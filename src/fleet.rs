//! `depot fleet …`: a fleet that is not there, to see what a site bears.
//!
//! In the order to read: what is true of the machines ([`world`]); one machine, what it sends and what it makes of
//! an answer ([`machine`]); its way to the site ([`mod@line`]); all of them, in time ([`drive`]); and whether the site
//! has the truth at the end ([`check`]).

mod check;
mod drive;
mod line;
mod machine;
mod world;

use crate::{
    agent::MADE_BY,
    dp::serve::parse_token,
    exit::Failure,
    output::{Out, facts},
    transport::Client,
    units,
};
use clap::{Args, Subcommand};
use drive::{Course, Figures, Spread};
use serde::Serialize;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// Commands on fleets.
#[derive(Debug, Subcommand)]
pub enum FleetCommand {
    /// Simulate machines: they join, report over HTTPS, and the site is compared with what is true of them
    Simulate(SimulateArgs),
}

/// What is simulated.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot client join-token create --name load --uses 100000 --output load.token
  depot --token-file reader.token fleet simulate --clients 100000 --duration 15m --join-file load.token
  depot fleet simulate --clients 500 --duration 1m --join-file load.token --outage --harm 10

Each machine has a key and a certificate of its own and a connection for each report, as an agent does. They
report at an agent's pace, as if --duration were the quarter of an hour between two reports. At the end the
site's states are read and compared with the truth, state by state; if they differ, it fails. The machines stay
clients of the site: simulate at a site that is made for it.")]
pub struct SimulateArgs {
    /// How many machines
    #[arg(long, value_name = "N", default_value_t = 100)]
    clients: u32,
    /// In which time all of them report once
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = units::parse_duration)]
    duration: Duration,
    /// How often each reports
    #[arg(long, value_name = "N", default_value_t = 1)]
    rounds: u32,
    /// File with a join token for as many machines
    #[arg(long, value_name = "FILE")]
    join_file: PathBuf,
    /// Where the site is: https://HOST:PORT [default: where the token says]
    #[arg(long, value_name = "URL")]
    site: Option<String>,
    /// How many updates each machine assesses
    #[arg(long, value_name = "N", default_value_t = 500)]
    updates: u32,
    /// Afterwards the site is away for a day: all come back with what changed in 24 scans
    #[arg(long)]
    outage: bool,
    /// Of 100 batches so many are lost, sent twice, sent too early, or damaged
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=90))]
    harm: u8,
    /// At most so many connections at a time
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=4096))]
    connections: u16,
    /// Which machines, states and chances: the same number is the same fleet
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The site's process on this machine, whose memory is looked at
    #[arg(long, value_name = "PID")]
    site_pid: Option<u32>,
}

/// What came of it.
#[derive(Serialize)]
struct Outcome {
    clients: u32,
    updates: u32,
    joined_in_seconds: f64,
    reported_in_seconds: f64,
    figures: Figures,
    answers: BTreeMap<String, u64>,
    /// Clients whose states the site has exactly, and those whose it has not.
    equal: u32,
    different: u32,
    /// The memory of the site's process at the end and at most, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    site_rss: Option<[u64; 2]>,
}

/// Runs a command on fleets.
pub async fn run(command: FleetCommand, client: &Client, out: Out) -> Result<(), Failure> {
    let FleetCommand::Simulate(args) = command;
    let text = std::fs::read_to_string(&args.join_file)
        .map_err(|error| Failure::input(&args.join_file, error))?;
    let token = parse_token(&text, MADE_BY);
    let token = token.map_err(|error| Failure::input(&args.join_file, error))?;
    if args.clients == 0 || args.updates == 0 || args.rounds == 0 || args.duration.is_zero() {
        return Err(Failure::usage("clients, updates, rounds and duration must be above 0"));
    }
    let world = world::World { seed: args.seed, updates: args.updates };
    let site = args.site.clone().or_else(|| token.sites.first().cloned()).unwrap_or_default();
    let course = Course {
        world,
        clients: args.clients,
        rounds: args.rounds,
        round: args.duration,
        outage: args.outage,
        harm: args.harm,
        connections: args.connections.into(),
    };
    let mut drive = drive::Drive::new(course, site, token);
    let joined = drive.join().await?;
    out.note(format!(
        "{} machines joined in {}",
        units::count(args.clients.into()),
        units::duration(joined)
    ));
    let reported = drive.report(&out).await?;
    out.note(format!("all have reported in {}", units::duration(reported)));
    let compared = check::compare(client, &world, &drive.scans()).await?;
    let outcome = Outcome {
        clients: args.clients,
        updates: args.updates,
        joined_in_seconds: joined.as_secs_f64(),
        reported_in_seconds: reported.as_secs_f64(),
        figures: drive.figures(),
        answers: drive.answers(),
        equal: compared.equal,
        different: compared.different,
        site_rss: args.site_pid.and_then(memory_of),
    };
    out.show(&outcome, |w| w.write_all(shown(&outcome).as_bytes()))?;
    match compared.different {
        0 => Ok(()),
        n => {
            let clients = units::counted(n.into(), "client", "clients");
            let first = compared.first.unwrap_or_default();
            Err(Failure::failed(format!("the site has other states of {clients}: {first}")))
        }
    }
}

fn shown(outcome: &Outcome) -> String {
    let spread = |spread: &Spread| {
        format!(
            "p50 {:.1} ms, p99 {:.1} ms, at most {:.1} ms, of {}",
            spread.p50_ms,
            spread.p99_ms,
            spread.most_ms,
            units::count(spread.count)
        )
    };
    let answers: Vec<String> =
        outcome.answers.iter().map(|(what, n)| format!("{what} {}", units::count(*n))).collect();
    let figures = &outcome.figures;
    let mut rows = vec![
        ("machines", units::count(outcome.clients.into())),
        ("joined in", units::duration(Duration::from_secs_f64(outcome.joined_in_seconds))),
        ("join", spread(&figures.join)),
        ("reported in", units::duration(Duration::from_secs_f64(outcome.reported_in_seconds))),
        ("policy, with connecting", spread(&figures.policy)),
        ("report", spread(&figures.report)),
        ("sent", units::bytes(figures.sent_bytes)),
        ("answers", answers.join(", ")),
        ("states equal", units::count(outcome.equal.into())),
        ("states different", units::count(outcome.different.into())),
    ];
    if let Some([now, most]) = outcome.site_rss {
        rows.push((
            "memory of the site",
            format!("{}, at most {}", units::bytes(now), units::bytes(most)),
        ));
    }
    facts(&rows)
}

/// The memory of a process, now and at most, in bytes (proc_pid_status(5)).
fn memory_of(pid: u32) -> Option<[u64; 2]> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    };
    Some([of("VmRSS:")?, of("VmHWM:")?])
}
