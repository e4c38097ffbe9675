//! `depot package restore`: a version's files, written to a folder of this machine.
//!
//! With `--data` the files come straight out of the library; from a server they are fetched. Both
//! check every byte and put each file in place whole.

use super::Selected;
use crate::{
    exit::{Exit, Failure, with_causes},
    fetch,
    output::Out,
    progress::shown,
    transport::{Client, InProcess, failure_of},
    units,
};
use clap::Args;
use contentlib::Progress;
use packager::{Extra, RestoreError, RestoreReport};
use std::{io::Write, path::PathBuf, sync::Arc, time::Duration};

/// Write a version's files into a folder
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot package restore docs ./out
  depot package restore docs@3 ./out
  depot package restore tools@stable /opt/tools --prune

Every byte is checked against the version's manifest. Modes, times, symbolic links and empty
folders come back; each file appears whole or not at all; what is there already and right is left
alone. Files that the version does not have stay, unless --prune is given. From a server this is
`depot fetch`, which keeps its notes in DEST/.depot.")]
pub struct RestoreArgs {
    /// NAME, NAME@VERSION or NAME@CHANNEL
    #[arg(value_name = "NAME[@VERSION]")]
    package: Selected,
    /// Folder to write to; made if it is not there
    #[arg(value_name = "DEST")]
    dest: PathBuf,
    /// Remove what the folder has and the version has not
    #[arg(long)]
    prune: bool,
}

/// Restores, and says what was written.
pub async fn run(args: RestoreArgs, client: &Client, out: Out) -> Result<(), Failure> {
    match client {
        Client::InProcess(site) => from_library(args, site, out).await,
        Client::Remote(remote) => {
            if args.prune {
                return Err(Failure::usage(
                    "--prune works with --data; from a server, what left the package since the \
                     last restore into the folder is removed by itself",
                ));
            }
            fetch::from_server(remote, &args.package, &args.dest, out).await
        }
    }
}

async fn from_library(args: RestoreArgs, site: &InProcess, out: Out) -> Result<(), Failure> {
    let name = args.package.name.parse().map_err(bad_value)?;
    let version = args.package.version_or_latest().parse().map_err(bad_value)?;
    let extra = if args.prune { Extra::Remove } else { Extra::Keep };
    let site = site.site().clone();
    let counters = Arc::new(Progress::default());
    let counted = Arc::clone(&counters);
    let work = tokio::task::spawn_blocking(move || {
        let content = site.content().map_err(|problem| failure_of(&problem))?;
        content.packages.restore(&name, &version, &args.dest, extra, &counted).map_err(refused)
    });
    let report = shown(out, &counters, async { work.await? }).await?;
    out.show(&report, |w| people(w, &report))
}

fn people(w: &mut dyn Write, report: &RestoreReport) -> std::io::Result<()> {
    let took = Duration::from_secs_f64(report.seconds.max(0.0));
    writeln!(
        w,
        "{} version {}: {}, {}; wrote {}, {}; {}{}",
        report.package,
        report.version,
        units::counted(report.files, "file", "files"),
        units::bytes(report.bytes),
        units::counted(report.written, "file or link", "files and links"),
        units::bytes(report.written_bytes),
        units::duration(took),
        units::speed(report.written_bytes, took),
    )?;
    match report.removed {
        0 => Ok(()),
        n => writeln!(w, "removed {}", units::counted(n, "entry", "entries")),
    }
}

fn bad_value(error: packager::BadName) -> Failure {
    Failure::usage(with_causes(&error))
}

/// A refusal has the exit code that the same refusal of a server has.
fn refused(error: RestoreError) -> Failure {
    let text = with_causes(&error);
    let exit = match error {
        RestoreError::Package(error) => return failure_of(&error.into()),
        RestoreError::Content { source, .. } => failure_of(&source.into()).exit,
        RestoreError::NotTheContent { .. } => Exit::Damaged,
        RestoreError::FolderInTheWay { .. } => Exit::Conflict,
        RestoreError::DestHoldsSite { .. } => Exit::Usage,
        RestoreError::Cancelled(_) => return Failure::interrupted(),
        _ => Exit::Failed,
    };
    Failure::new(exit, text)
}
