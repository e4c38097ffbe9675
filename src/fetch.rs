//! `depot fetch`: a package version from a server into a folder, moving only what changed.

mod located;

use crate::{
    cli::Shared,
    exit::{Exit, Failure, with_causes},
    output::Out,
    package::Selected,
    progress::{Standing, until},
    transport::{Remote, path, trust_of, with_tls},
    units,
};
use clap::Args;
use dp::identity::Distrust;
use dp::remote::{BadAddress, FetchOptions, FetchReport, RemoteError};
use packager::PublicKey;
use rustls::ClientConfig;
use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// What to do where a server over HTTPS is not believed.
const BELIEVE: &str = "; --ca FILE names whom to believe";
/// What to do where a package's name stands for its address.
const BY_NAME: &str = "; a package by its name alone goes with --site URL";

/// Bring a package version from a server into a folder, moving only what changed
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot fetch http://127.0.0.1:8520/packages/docs/latest -o ./out
  depot fetch http://depot.example:8520/packages/tools/stable -o /opt/tools
  depot fetch http://depot.example:8520/packages/tools/7 -o /opt/tools --key 91aa…
  depot --ca site.pem fetch https://depot.example:8520/packages/tools/7 -o /opt/tools
  depot fetch http://branch-7:8520/packages/tools/7 http://depot.example:8520/packages/tools/7 -o tools
  depot fetch tools@stable --site http://depot.example:8520 -o /opt/tools

Every byte is checked against the version's signed manifest. The signing key of the first fetch is
kept in FOLDER/.depot, and later fetches into the folder take no other; --key states it from the
start (`depot package show NAME` prints it). A second run moves only what changed and removes what
left the package; a run that was cut off goes on where it stopped. No token is needed.")]
pub struct FetchArgs {
    /// http://SERVER/packages/NAME/VERSION, where VERSION is a number, `latest` or a channel; with
    /// --site NAME, NAME@VERSION or NAME@CHANNEL
    ///
    /// Several are servers of the same version: what one does not give, in the middle of a file or from
    /// the start, the next one does
    #[arg(value_name = "URL", required = true)]
    from: Vec<String>,
    /// Ask this site which servers are near and hold it now, and fetch from these, one after the other
    #[arg(long, value_name = "URL")]
    site: Option<String>,
    /// For how long this machine has been looking for a server, for example 30m: the site lets clients
    /// turn to farther ones after a while [default: it begins]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, requires = "site")]
    elapsed: Option<Duration>,
    /// Folder to write to; made if it is not there
    #[arg(long, short, value_name = "FOLDER")]
    output: PathBuf,
    /// The key that the version must be signed with, as 64 hex digits
    #[arg(long, value_name = "KEY")]
    key: Option<PublicKey>,
}

/// Fetches, and says what came of it.
pub async fn run(args: FetchArgs, shared: &Shared, out: Out) -> Result<(), Failure> {
    if shared.data.is_some() {
        return Err(Failure::usage(
            "fetch reads from a server; `depot --data DIR package restore` reads a data folder",
        ));
    }
    let options = options(args.key, trust_of(shared)?);
    let from = match &args.site {
        None => args.from,
        Some(site) => {
            let [package] = &args.from[..] else {
                return Err(Failure::usage("with --site, name one package: NAME or NAME@VERSION"));
            };
            let elapsed = args.elapsed.unwrap_or_default();
            located::addresses(site, package, elapsed, options.tls.as_ref(), out).await?
        }
    };
    fetch(&from, &args.output, options, out).await
}

/// The same for a package of the server that the other commands speak to.
pub async fn from_server(
    remote: &Remote,
    package: &Selected,
    dest: &Path,
    out: Out,
) -> Result<(), Failure> {
    let address = path(&["packages", &package.name, package.version_or_latest()]);
    let from = format!("{}{address}", remote.base());
    fetch(&[from], dest, options(None, remote.trust()), out).await
}

fn options(key: Option<PublicKey>, tls: Option<Arc<ClientConfig>>) -> FetchOptions {
    FetchOptions { key, tls, ..FetchOptions::default() }
}

async fn fetch(
    from: &[String],
    dest: &Path,
    options: FetchOptions,
    out: Out,
) -> Result<(), Failure> {
    with_tls();
    let progress = Arc::clone(&options.progress);
    // What is in place stays, so leaving at once loses nothing.
    let stopped = async { drop(tokio::signal::ctrl_c().await) };
    let work = async { dp::remote::fetch(from, dest, options).await.map_err(refused) };
    let report = until(out, || Standing::of(&progress), stopped, work).await;
    let report = report.inspect_err(|failure| {
        if failure.exit == Exit::Interrupted {
            out.note("what arrived is kept; the same command goes on from there");
        }
    })?;
    out.show(&report, |w| people(w, &report))
}

fn people(w: &mut dyn Write, report: &FetchReport) -> std::io::Result<()> {
    let took = Duration::from_secs_f64(report.seconds.clamp(0.0, 1e9));
    let tree = format!(
        "{} version {}: {}, {}",
        report.package,
        report.version,
        units::counted(report.files, "file", "files"),
        units::bytes(report.bytes),
    );
    if report.written == 0 && report.removed == 0 {
        writeln!(w, "{tree}; all in place; {}", units::duration(took))?;
    } else {
        writeln!(w, "{tree}")?;
        writeln!(
            w,
            "  written  {}, {}, verified",
            units::counted(report.written, "file or link", "files and links"),
            units::bytes(report.written_bytes)
        )?;
        writeln!(w, "  reused   {} of files that were here", units::bytes(report.reused_bytes))?;
        writeln!(w, "  moved    {}", units::bytes(report.moved_bytes))?;
        if report.removed > 0 {
            writeln!(w, "  removed  {}", units::counted(report.removed, "entry", "entries"))?;
        }
        writeln!(
            w,
            "  took     {}{}",
            units::duration(took),
            units::speed(report.written_bytes, took)
        )?;
    }
    for path in &report.kept {
        writeln!(w, "kept {path}: it left the package, but was changed here")?;
    }
    if report.trusted_on_first_use {
        writeln!(w, "signed with key {}, taken on trust this first time", report.key)?;
    }
    Ok(())
}

fn refused(error: RemoteError) -> Failure {
    let is_distrust = |error: &RemoteError| Distrust::of(error).is_some();
    let hint = match &error {
        RemoteError::AllFailed(errors) if errors.iter().any(is_distrust) => BELIEVE,
        error if is_distrust(error) => BELIEVE,
        RemoteError::Address(BadAddress::NotHttp(_)) => BY_NAME,
        _ => "",
    };
    Failure::new(exit_of(&error), with_causes(&error) + hint)
}

fn exit_of(error: &RemoteError) -> Exit {
    match error {
        // What all of them say.
        RemoteError::AllFailed(errors) => {
            let mut exits = errors.iter().map(exit_of);
            let first = exits.next().unwrap_or(Exit::Failed);
            if exits.all(|exit| exit == first) { first } else { Exit::Failed }
        }
        RemoteError::Address(_) => Exit::Usage,
        RemoteError::Refused { status: 404 | 410, .. } => Exit::NotFound,
        RemoteError::Refused { status: 503, .. }
        | RemoteError::Incomplete { .. }
        | RemoteError::WrongBytes { .. } => Exit::Damaged,
        RemoteError::OtherPackage { .. } | RemoteError::Busy(_) | RemoteError::InTheWay(_) => {
            Exit::Conflict
        }
        _ => Exit::Failed,
    }
}
