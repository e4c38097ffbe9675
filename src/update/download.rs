//! `depot update download`: the files of updates, brought into a package.

use crate::{
    exit::{Exit, Failure, one_line},
    job::{self, Ended},
    output::{Out, table},
    package::update,
    transport::{Client, Request},
    units,
};
use api::downloads::{DownloadView, FileOutcome, FileOutcomeView};
use api::routes::downloads::DownloadUpdates;
use clap::Args;
use http::Method;
use std::num::NonZeroU64;
use std::path::PathBuf;

/// Bring the files of updates into a package
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot update download DSA-5545-1 DSA-5546-1 --package november
  depot update download KB5031354 --package november --language en,de --rate 10MB/s
  depot update download KB5031354 --package november --from-folder /media/stick

The package is made if there is none; each download makes its next version, which `depot distribute`
sends to distribution points. A file that cannot be had is named, the others come; the exit code is 1
then, and the same command again brings what is left. Each file is checked against what its update says.")]
pub struct DownloadArgs {
    /// Updates, by id, name or article
    #[arg(value_name = "ID", required = true)]
    updates: Vec<String>,
    /// The package that gets the files
    #[arg(long, value_name = "NAME")]
    package: String,
    /// Of files that are for one language alone, those for these [default: all]
    #[arg(long, value_name = "LANGUAGE", value_delimiter = ',')]
    language: Vec<String>,
    /// Take the files from this folder of the machine that holds the library
    #[arg(long, value_name = "DIR")]
    from_folder: Option<PathBuf>,
    /// How much comes in a second at most: 20Mbit, 10MB/s
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<NonZeroU64>,
    /// Print the job's id and leave it running
    #[arg(long)]
    detach: bool,
}

/// A rate; `10MB` is one in a second.
pub fn rate(text: &str) -> Result<NonZeroU64, String> {
    let size = api::config::ByteSize::parse(text).map(|size| size.0);
    let rate = size.map_or_else(|| units::parse_rate(text), Ok)?;
    NonZeroU64::new(rate).ok_or_else(|| "must be more than nothing".to_owned())
}

/// Brings them, and says what became of each.
pub async fn run(args: DownloadArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let folder = args.from_folder;
    let folder = folder.map(|dir| update::source_text("--from-folder", dir, client)).transpose()?;
    let asked = DownloadUpdates {
        updates: args.updates,
        package: args.package,
        languages: args.language,
        from_folder: folder,
        rate: args.rate,
    };
    let request = Request::new(Method::POST, "/updates/download").json(&asked)?;
    bring(request, args.detach, client, out).await
}

/// Starts the job that brings files, and shows what became of each; without waiting for it, if `detach`.
pub async fn bring(
    request: Request,
    detach: bool,
    client: &Client,
    out: Out,
) -> Result<(), Failure> {
    match job::start::<DownloadView>(client, request, out, detach).await? {
        Ended::Detached => Ok(()),
        Ended::Done { result, progress } => {
            out.show(&result, |w| {
                w.write_all(outcomes_table(&result.outcomes).as_bytes())?;
                writeln!(w)?;
                update::people(w, &result.report, &progress)
            })?;
            failed_files(&result)
        }
    }
}

/// A failure, if a file could not be had.
fn failed_files(result: &DownloadView) -> Result<(), Failure> {
    let failed = |one: &&FileOutcomeView| one.outcome == FileOutcome::Failed;
    match result.outcomes.iter().find(failed) {
        None => Ok(()),
        Some(first) => {
            let why = first.detail.as_deref().unwrap_or_default();
            let count = units::counted(result.failed, "file", "files");
            let line = format!("{count} could not be had, the first {}: {why}", first.path);
            Err(Failure::new(Exit::Failed, one_line(&line)))
        }
    }
}

/// What became of each file.
fn outcomes_table(outcomes: &[FileOutcomeView]) -> String {
    let rows = outcomes.iter().map(|one| {
        let outcome = match one.outcome {
            FileOutcome::Brought => "brought",
            FileOutcome::Held => "held already",
            FileOutcome::Failed => "failed",
        };
        [
            one.update.clone(),
            one.path.clone(),
            units::bytes(one.size),
            outcome.to_owned(),
            one.detail.clone().unwrap_or_default(),
        ]
    });
    table(["update", "file", ">size", "outcome", "why"], rows.collect())
}
