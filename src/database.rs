//! `depot database …`: where the site database is.

use crate::{
    cli::Shared,
    exit::{Exit, Failure, with_causes},
    output::{Out, facts},
    progress::{self, Standing},
    units,
};
use api::{
    Config, Options,
    database::{MigrateError, Place, migrate},
};
use clap::{Args, Subcommand};
use parking_lot::Mutex;
use std::{
    ops::ControlFlow,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// Commands on the site database.
#[derive(Debug, Subcommand)]
pub enum DatabaseCommand {
    /// Move the site database from the data folder to a PostgreSQL server, or back
    Migrate(MigrateArgs),
}

/// Move the site database from the data folder to a PostgreSQL server, or back
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot --data ./depot-data database migrate --to postgres://depot@db.example/site
  depot --data ./depot-data database migrate --to ./depot-data/site     # back into the folder
  depot database migrate --from ./old/site --to postgres://depot@db.example/site

No server may use either side meanwhile. Records are copied in order, then both sides are read through and
compared; only then the data folder says that the new database is its own. Stopped by Ctrl-C, a failure or a
crash, it goes on when it is asked for again. The target must be empty, or hold a part of this very copy. What
was in the data folder stays there as site.moved, to be deleted by hand. Passwords come as for `depot serve`:
from database.password_file, PGPASSFILE or ~/.pgpass.")]
pub struct MigrateArgs {
    /// Where it is: a folder or postgres://USER@HOST/DATABASE [default: where that of the data folder is]
    #[arg(long, value_name = "PLACE")]
    from: Option<String>,
    /// Where it is to be: an empty folder, DIR/site for the site's own, or postgres://USER@HOST/DATABASE
    #[arg(long, value_name = "PLACE")]
    to: String,
    /// Configuration file [default: depot.toml here or in /etc/depot, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs a command on the site database.
pub async fn run(command: DatabaseCommand, shared: &Shared, out: Out) -> Result<(), Failure> {
    let DatabaseCommand::Migrate(MigrateArgs { from, to, config }) = command;
    if shared.url.is_some() {
        return Err(Failure::usage(
            "--url names a server to speak to; this works on the data folder: --data",
        ));
    }
    let options = Options { config, data: shared.data.clone(), ..Options::default() };
    let config = Config::load(&options, std::env::vars_os())
        .map_err(|error| Failure::usage(with_causes(&error)))?;
    let place = |flag: &str, text: String| {
        text.parse::<Place>().map_err(|error| Failure::usage(format!("{flag}: {error}")))
    };
    let from = from.map(|text| place("--from", text)).transpose()?;
    let to = place("--to", to)?;

    let standing = Arc::new(Mutex::new(Standing { unit: Some("records"), ..Standing::default() }));
    let ends = Arc::new(AtomicBool::new(false));
    let (now, asked) = (Arc::clone(&standing), Arc::clone(&ends));
    let work = tokio::task::spawn_blocking(move || {
        migrate(&config, from, to, |stage, records, bytes| {
            let mut now = now.lock();
            (now.stage, now.files, now.bytes) = (stage.to_owned(), records, bytes);
            match asked.load(Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })
    });
    let stopped = async {
        let _ = tokio::signal::ctrl_c().await;
        // It ends after the part that is under way.
        ends.store(true, Relaxed);
        let _ = tokio::signal::ctrl_c().await;
    };
    let done = progress::until(out, || standing.lock().clone(), stopped, work).await?;
    let moved = done.map_err(failure)?;
    out.show(&moved, |w| {
        writeln!(w, "{} are at {}", units::counted(moved.entries, "record", "records"), moved.to)?;
        let mut rows = vec![
            ("from", moved.from.clone()),
            ("bytes", units::bytes(moved.bytes)),
            ("digest", format!("{}, on both sides", moved.digest)),
        ];
        rows.extend(moved.data.as_ref().map(|data| ("used by", data.display().to_string())));
        rows.extend(moved.kept.as_ref().map(|kept| ("old one", kept.display().to_string())));
        w.write_all(facts(&rows).as_bytes())
    })?;
    if moved.data.is_some() && moved.to.contains("://") {
        out.note(format!("start the site with `depot serve --database {}`", moved.to));
    }
    Ok(())
}

fn failure(error: MigrateError) -> Failure {
    let exit = match &error {
        MigrateError::Site(api::SiteError::InUse { .. }) => Exit::Conflict,
        MigrateError::NotThere(_) => Exit::NotFound,
        error if error.is_interrupted() => return Failure::interrupted(),
        error if error.is_conflict() => Exit::Conflict,
        _ => Exit::Failed,
    };
    Failure::new(exit, with_causes(&error))
}
