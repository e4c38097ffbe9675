//! depot: content library, packages and distribution points in one command.
//!
//! This crate parses a command line, asks a site over REST and prints the answer. It decides
//! nothing about content: that is the business of the crates below. `cli.rs` is the tree of
//! commands, `transport.rs` the way to a site, `exit.rs` how everything ends.

mod agent;
mod audit;
mod backup;
mod boundary;
mod boundary_group;
mod cli;
mod client;
mod collection;
mod completions;
mod compliance;
mod config;
mod content;
mod content_status;
mod database;
mod deployment;
mod deployment_package;
mod distribute;
mod dp;
mod exit;
mod fetch;
mod fleet;
mod group;
mod job;
mod library;
mod lifecycle;
mod locate;
mod members;
mod output;
mod package;
mod prestage;
mod progress;
mod rule;
mod serve;
mod several;
mod site;
mod staging;
mod status_messages;
mod sup;
mod sync;
mod token;
mod transport;
mod units;
mod update;

use clap::Parser;
use cli::{Cli, Command, Shared};
use exit::{Failure, one_line};
use output::Out;
use site::SiteCommand;
use std::{
    future::Future,
    io::{IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};
use transport::Client;

/// Many threads allocate chunks and index values; glibc's allocator gives that memory back late
/// and contends. Built without huge pages: clearing one stalls a request for milliseconds, and a
/// quarter of what they take is never used.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match parse().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                // If stderr is gone there is nobody left to tell.
                let _ = writeln!(std::io::stderr(), "depot: {}", one_line(&failure.message));
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// Reads the command line. Help and version are answers, not errors.
fn parse() -> Result<Cli, Failure> {
    use clap::error::ErrorKind::{
        DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion,
    };
    Cli::try_parse().map_err(|error| match error.kind() {
        DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
        _ => {
            let args = std::env::args_os().skip(1);
            Failure::usage(cli::in_one_line(&error.render().to_string(), args))
        }
    })
}

fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { shared, command } = cli;
    let out = Out { json: shared.json, quiet: shared.quiet };
    match command {
        Command::Completions(args) => completions::run(&args),
        Command::Version => version(out),
        Command::Config(command) => config::run(command, out),
        // A server logs by its configuration; all other commands by `--verbose`.
        Command::Serve(args) => serve::run(args, &shared, out),
        Command::Site(SiteCommand::ClusterKey { file }) => site::make_cluster_key(&file, out),
        Command::Agent(command) => agent::run(command, &shared, out),
        Command::Dp(self::dp::DpCommand::Serve(args)) => self::dp::serve::run(args, &shared, out),
        command => {
            log_to_stderr(shared.verbose);
            on_one_thread(dispatch(command, shared, out))?
        }
    }
}

async fn dispatch(command: Command, shared: Shared, out: Out) -> Result<(), Failure> {
    if let Command::Fetch(args) = command {
        return fetch::run(args, &shared, out).await;
    }
    if let Command::Database(command) = command {
        return database::run(command, &shared, out).await;
    }
    if let Command::Backup(command) = command {
        return self::backup::run(command, &shared, out).await;
    }
    if let Command::Prestage(command) = command {
        return prestage::run(command, &shared, out).await;
    }
    let client = Client::open(&shared)?;
    let result = match command {
        Command::Package(command) => package::run(command, &client, out).await,
        Command::Content(command) => content::run(command, &client, out).await,
        Command::Library(command) => library::run(command, &client, out).await,
        Command::Job(command) => job::run(command, &client, out).await,
        Command::Site(command) => site::run(command, &client, out).await,
        Command::Dp(command) => self::dp::run(command, &client, out).await,
        Command::Distribute(args) => distribute::distribute(args, &client, out).await,
        Command::Undistribute(args) => distribute::undistribute(args, &client, out).await,
        Command::Redistribute(args) => self::dp::order::redistribute(args, &client, out).await,
        Command::ContentStatus(args) => content_status::run(&args, &client, out).await,
        Command::Boundary(command) => boundary::run(command, &client, out).await,
        Command::BoundaryGroup(command) => boundary_group::run(command, &client, out).await,
        Command::Locate(args) => locate::run(args, &client, out).await,
        Command::Sync(command) => sync::run(command, &client, out).await,
        Command::Update(command) => update::run(command, &client, out).await,
        Command::Lifecycle(command) => lifecycle::run(command, &client, out).await,
        Command::StatusMessages(command) => status_messages::run(command, &client, out).await,
        Command::Sup(command) => sup::run(command, &client, out).await,
        Command::Client(command) => self::client::run(command, &client, out).await,
        Command::Fleet(command) => fleet::run(command, &client, out).await,
        Command::Collection(command) => collection::run(command, &client, out).await,
        Command::Group(command) => group::run(command, &client, out).await,
        Command::Deploy(args) => self::deployment::deploy::run(*args, &client, out).await,
        Command::DeploymentPackage(command) => deployment_package::run(command, &client, out).await,
        Command::Deployment(command) => self::deployment::run(command, &client, out).await,
        Command::Rule(command) => rule::run(command, &client, out).await,
        Command::Staging(command) => staging::run(command, &client, out).await,
        Command::Compliance(command) => compliance::run(command, &client, out).await,
        Command::Token(command) => token::run(command, &client, out).await,
        Command::Audit(args) => audit::run(&args, &client, out).await,
        _ => unreachable!("handled above"),
    };
    let closed = client.close().await;
    result.and(closed)
}

/// Runs a command's requests on this thread: starting a pool of threads would cost a short command
/// more than its work. What blocks goes to a thread of its own.
fn on_one_thread<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    // A thread that is at the end of its work still closes a database, and one that does so while
    // the process ends brings it down. One that reads a slow disk must not hold it up for long.
    runtime.shutdown_timeout(Duration::from_secs(5));
    Ok(result)
}

fn version(out: Out) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    out.show(&serde_json::json!({ "name": "depot", "version": version }), |w| {
        writeln!(w, "depot {version}")
    })
}

/// Shows the log of this process on stderr; without `--verbose` there is none to show.
fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => "info",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}
