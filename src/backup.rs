//! `depot backup …`: a site's backups, made while it is used, and put back.

use crate::{
    cli::Shared,
    exit::{Exit, Failure, with_causes},
    job::{self, Ended},
    output::{Out, facts, table},
    progress::shown,
    transport::{Client, Request, failure_of},
    units,
};
use ::backup::{self as files, PackFault, keys::Passphrase, parts};
use api::{
    Config, Options,
    backup::{self as backups, Lacking, Listed, create::Made, restore},
};
use clap::{Args, Subcommand};
use contentlib::Progress;
use http::Method;
use jiff::Timestamp;
use serde_json::json;
use std::{
    fmt::Display,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
};

/// Commands on backups.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Make a backup of the site, while it is used
    Create(CreateArgs),
    /// Show the backups in a folder
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Read a backup to its end, and say what is missing or damaged
    Verify(VerifyArgs),
    /// Put a backup back, into a new data folder
    Restore(RestoreArgs),
}

/// Make a backup of the site, while it is used
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot backup create /srv/backups --with-content --passphrase-file /etc/depot/backup.passphrase
  depot backup create /srv/backups --passphrase-file /etc/depot/backup.passphrase --keep 30
  depot --data ./depot-data backup create ./backups --without-keys

A backup shows one moment: the site database, whichever kind it is, the library's references, and the site's
keys, sealed by the passphrase in the first line of a file that nobody else can read. DIR gets a file for each,
mode 0600, and with --with-content the library's packs, each once for all backups that need it. Without it only
references are kept: the packs must be safe elsewhere, on an object store or by snapshots of the volume.
DIR and the passphrase's file are of the machine where the site runs. The configuration file is not in it.")]
pub struct CreateArgs {
    /// The folder of this site's backups, outside of its data folder; made if it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Keep the content too, so that the site can be restored from DIR alone
    #[arg(long)]
    with_content: bool,
    /// File whose first line, of 12 characters or more, seals the keys
    #[arg(long, value_name = "FILE", required_unless_present = "without_keys")]
    passphrase_file: Option<PathBuf>,
    /// Leave the keys out: they are kept elsewhere
    #[arg(long, conflicts_with = "passphrase_file")]
    without_keys: bool,
    /// Keep the newest N backups, and delete older ones once this one is whole [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// Print the job's id and leave it running
    #[arg(long)]
    detach: bool,
}

/// Show the backups in a folder
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot backup list /srv/backups
  depot backup list /srv/backups --json | jq -r '.[0].name'")]
pub struct ListArgs {
    /// The folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Read a backup to its end, and say what is missing or damaged
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot backup verify /srv/backups                              # the newest
  depot backup verify /srv/backups --at 2026-11-28T12:00:00Z
  depot backup verify /srv/backups/2026-11-28T12-00-00Z-1042.depot-backup --passphrase-file p
  depot --data ./depot-data backup verify ./backups --against-library

Every byte has a checksum, and every record is decoded; packs that are kept beside it are read, too. It needs
no site, and changes nothing. With --passphrase-file it is tried whether the keys open, with --against-library
whether the library of a site holds what the backup names. Exit code 5 if anything is damaged or missing.")]
pub struct VerifyArgs {
    #[command(flatten)]
    which: Which,
    /// Ask the site whether its library holds what the backup names
    #[arg(long)]
    against_library: bool,
}

/// Which backup is read, and what opens its keys.
#[derive(Debug, Args)]
struct Which {
    /// A backup, or a folder of them
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Of a folder, the newest backup that shows nothing later than this [default: the newest]
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// File whose first line the keys were sealed by
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl Which {
    fn file(&self) -> Result<PathBuf, Failure> {
        if self.at.is_some() && self.path.is_file() {
            return Err(Failure::usage(format!(
                "--at picks one of a folder's backups, and {} is a single one: name the folder, or leave \
                 --at out",
                self.path.display()
            )));
        }
        backups::find(&self.path, self.at).map_err(|problem| failure_of(&problem))
    }

    fn passphrase(&self) -> Result<Option<Passphrase>, Failure> {
        let read = self.passphrase_file.as_deref().map(backups::read_passphrase);
        read.transpose().map_err(|problem| failure_of(&problem))
    }
}

/// Put a backup back, into a new data folder
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot backup restore /srv/backups --data /var/lib/depot --passphrase-file /etc/depot/backup.passphrase
  depot backup restore /srv/backups --at 2026-11-28T12:00:00Z --data ./depot-data --passphrase-file p
  depot backup restore /srv/backups --data ./new --passphrase-file p --database postgres://depot@db.example/new
  depot backup restore /srv/backups --data ./new --passphrase-file p --library s3://bucket/depot

The data folder must be new or empty, as must be the database; the library may be there already. Stopped by
Ctrl-C, a failure or a crash, it goes on when it is asked for again; half of a site is not served. Whichever
kind of database the site had, it may have either now. Content that is missing is named (exit code 5): the site can
be served all the same, and `depot library repair --from URL` brings it from a server that has it.
Version numbers go on 1000 later, so that none that was given out after the backup means something else.
Stop the old site first: two with the same keys confuse whoever knows them.")]
pub struct RestoreArgs {
    #[command(flatten)]
    which: Which,
    /// Leave sealed keys where they are: they are put into the data folder by hand
    #[arg(long, conflicts_with = "passphrase_file")]
    without_keys: bool,
    /// Put the site database on this PostgreSQL server: postgres://USER@HOST/DATABASE [default: in the data
    /// folder]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Object store that holds the content, or is to: s3://BUCKET/PREFIX [default: the data folder]
    #[arg(long, value_name = "URL")]
    library: Option<String>,
    /// Configuration file [default: depot.toml here or in /etc/depot, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs a command on backups.
pub async fn run(command: BackupCommand, shared: &Shared, out: Out) -> Result<(), Failure> {
    match command {
        BackupCommand::Create(args) => {
            let client = Client::open(shared)?;
            let result = create(args, &client, out).await;
            let closed = client.close().await;
            result.and(closed)
        }
        BackupCommand::List(args) => list(&args, out),
        BackupCommand::Verify(args) => verify(&args, shared, out).await,
        BackupCommand::Restore(args) => put_back(args, shared, out).await,
    }
}

async fn create(args: CreateArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let absolute = |path: &Path| std::path::absolute(path);
    let body = json!({
        "folder": absolute(&args.folder)?,
        "with_content": args.with_content,
        "passphrase_file": args.passphrase_file.as_deref().map(absolute).transpose()?,
        "without_keys": args.without_keys,
        "keep": args.keep,
    });
    let request = Request::new(Method::POST, "/backups").json(&body)?;
    let made: Made = match job::start(client, request, out, args.detach).await? {
        Ended::Done { result, .. } => result,
        Ended::Detached => return Ok(()),
    };
    out.show(&made, |w| {
        writeln!(w, "{}", made.path.display())?;
        let packs = match args.with_content {
            true => format!(
                "{}, {}; {} copied now",
                units::counted(made.packs, "pack", "packs"),
                units::bytes(made.pack_bytes),
                units::count(made.copied_packs)
            ),
            false => format!("{}, kept elsewhere", units::counted(made.packs, "pack", "packs")),
        };
        let keys = match args.without_keys {
            true => "left out".to_owned(),
            false => format!("{}, sealed", units::counted(made.keys, "file", "files")),
        };
        let mut rows = vec![
            ("as of", units::when(made.taken)),
            ("file", units::bytes(made.bytes)),
            ("records", units::count(made.records)),
            ("references", units::count(made.references)),
            ("content", packs),
            ("keys", keys),
        ];
        if !made.removed.is_empty() {
            let n = made.removed.len() as u64;
            rows.push(("deleted", units::counted(n, "older backup", "older backups")));
        }
        w.write_all(facts(&rows).as_bytes())
    })?;
    if let Some(why) = &made.not_cleaned {
        out.note(format!("packs that no backup needs stay for now: {why}"));
    }
    match made.lost_packs.len() as u64 {
        0 => Ok(()),
        n => Err(Failure::new(
            Exit::Damaged,
            format!(
                "the backup is made, but the library lacks {}, which are not in it: run `depot library \
                 verify`",
                units::counted(n, "pack", "packs")
            ),
        )),
    }
}

fn list(args: &ListArgs, out: Out) -> Result<(), Failure> {
    if !args.folder.is_dir() {
        let folder = args.folder.display();
        return Err(Failure::new(Exit::NotFound, format!("there is no folder {folder}")));
    }
    let all = backups::list(&args.folder).map_err(|problem| failure_of(&problem))?;
    let columns = ["as of", ">size", "content", "keys", "name"];
    let row = |it: &Listed| {
        let content = match (it.content, &it.error) {
            (_, Some(error)) => error.as_str(),
            (Some(parts::Content::Packs), _) => "packs",
            _ => "references",
        };
        let keys = it.keys.map_or("", |keys| match keys {
            parts::Keys::Sealed => "sealed",
            parts::Keys::Absent => "left out",
        });
        let (taken, bytes) = (units::when(it.taken), units::bytes(it.bytes));
        [taken, bytes, content.to_owned(), keys.to_owned(), it.name.clone()]
    };
    out.show(&all, |w| w.write_all(table(columns, all.iter().map(row).collect()).as_bytes()))
}

async fn verify(args: &VerifyArgs, shared: &Shared, out: Out) -> Result<(), Failure> {
    let (file, passphrase) = (args.which.file()?, args.which.passphrase()?);
    let progress = Arc::new(Progress::default());
    let (of, watched) = (file.clone(), Arc::clone(&progress));
    let work = blocking(move || {
        let watch = |n| {
            watched.bytes.fetch_add(n, Relaxed);
            watched.check().map_err(io::Error::other)
        };
        files::verify(&of, passphrase.as_ref(), watch).map_err(|error| {
            let exit = if error.is_damage() { Exit::Damaged } else { Exit::Failed };
            Failure::new(exit, with_causes(&error))
        })
    });
    let found = shown(out, &progress, work).await.map_err(|f| f.context(file.display()))?;
    let lacking: Option<Lacking> = match args.against_library {
        false => None,
        true => {
            let client = Client::open(shared)?;
            let lacking = check(&file, &client, out).await;
            let closed = client.close().await;
            let lacking = lacking?;
            closed?;
            Some(lacking)
        }
    };
    let bad = |of: PackFault| {
        let its = found.bad_packs.iter().filter(move |(_, fault)| *fault == of);
        its.map(|(pack, _)| format!("{:032x}", pack.id)).collect::<Vec<_>>()
    };
    let (missing, damaged) = (bad(PackFault::Missing), bad(PackFault::Damaged));
    let json = json!({
        "path": file, "taken": found.head.taken, "content": found.head.content, "keys": found.head.keys,
        "keys_opened": found.keys, "totals": found.totals, "missing_packs": missing,
        "damaged_packs": damaged, "library": lacking,
    });
    out.show(&json, |w| {
        missing.iter().try_for_each(|pack| writeln!(w, "pack {pack}: is not there"))?;
        damaged.iter().try_for_each(|pack| writeln!(w, "pack {pack}: damaged"))?;
        lacking.iter().try_for_each(|lacking| show_lacking(w, lacking))?;
        let keys = match (found.head.keys, found.keys) {
            (parts::Keys::Absent, _) => "left out".to_owned(),
            (_, None) => "sealed; not tried without a passphrase".to_owned(),
            (_, Some(n)) => format!("{}, opened", units::counted(n as u64, "file", "files")),
        };
        let totals = &found.totals;
        let content = match found.head.content {
            parts::Content::Packs => units::bytes(totals.pack_bytes),
            parts::Content::References => "kept elsewhere".to_owned(),
        };
        let rows = [
            ("as of", units::when(found.head.taken)),
            ("records", units::count(totals.records)),
            ("references", units::count(totals.references)),
            ("packs", format!("{}, {content}", units::count(totals.packs))),
            ("keys", keys),
        ];
        writeln!(w, "{}", file.display())?;
        w.write_all(facts(&rows).as_bytes())
    })?;
    let n_packs = found.bad_packs.len() as u64;
    let n_missing = lacking.as_ref().map_or(0, |lacking| lacking.n_missing);
    if n_packs + n_missing == 0 {
        out.note("nothing is damaged");
        return Ok(());
    }
    let packs = units::counted(n_packs, "pack", "packs");
    let mut said = format!("missing or damaged: {packs} of the backup");
    if lacking.is_some() {
        let contents = units::counted(n_missing, "content", "contents");
        said = format!("{said}, {contents} of the library");
    }
    Err(Failure::new(Exit::Damaged, said))
}

async fn check(file: &Path, client: &Client, out: Out) -> Result<Lacking, Failure> {
    let body = json!({ "path": std::path::absolute(file)? });
    let request = Request::new(Method::POST, "/backups/check").json(&body)?;
    match job::start(client, request, out, false).await? {
        Ended::Done { result, .. } => Ok(result),
        Ended::Detached => Ok(Lacking::default()),
    }
}

fn show_lacking(w: &mut dyn Write, lacking: &Lacking) -> io::Result<()> {
    for missing in &lacking.missing {
        writeln!(w, "content {}: not in the library; of {}", missing.digest, missing.reference)?;
    }
    match lacking.n_missing - (lacking.missing.len() as u64).min(lacking.n_missing) {
        0 => Ok(()),
        more => writeln!(w, "and {} more", units::count(more)),
    }
}

async fn put_back(args: RestoreArgs, shared: &Shared, out: Out) -> Result<(), Failure> {
    let Some(data) = shared.data.clone() else {
        return Err(Failure::usage("say into which folder: --data DIR, a new or an empty one"));
    };
    let (file, passphrase) = (args.which.file()?, args.which.passphrase()?);
    if passphrase.is_none() && !args.without_keys {
        let head = files::series::outline(&file).map(|(head, _)| head);
        if head.is_ok_and(|head| head.keys == parts::Keys::Sealed) {
            return Err(Failure::usage(
                "the keys in the backup are sealed: --passphrase-file FILE opens them, --without-keys \
                 leaves them where they are",
            ));
        }
    }
    let set = args.library.map(|url| ("library.url".to_owned(), url)).into_iter().collect();
    let database = args.database;
    let options = Options { config: args.config, data: Some(data), database, set, listen: None };
    let config = Config::load(&options, std::env::vars_os())
        .map_err(|error| Failure::usage(with_causes(&error)))?;
    let progress = Arc::new(Progress::default());
    let watched = Arc::clone(&progress);
    let work = blocking(move || {
        let restored = restore::restore(&config, &file, passphrase.as_ref(), &watched);
        restored.map_err(|problem| failure_of(&problem))
    });
    let done = shown(out, &progress, work).await?;
    out.show(&done, |w| {
        done.lost_packs.iter().try_for_each(|pack| writeln!(w, "pack {pack}: lost"))?;
        show_lacking(w, &done.library)?;
        writeln!(w, "{} is the site as of {}", done.data.display(), units::when(done.taken))?;
        let rows = [
            ("from", done.backup.display().to_string()),
            ("database", done.database.clone()),
            ("records", units::count(done.records)),
            (
                "references",
                format!(
                    "{}, {} of them set anew",
                    units::count(done.references),
                    units::count(done.references_set)
                ),
            ),
            ("packs", format!("{} put back", units::count(done.packs))),
            ("keys", units::counted(done.keys, "file", "files")),
        ];
        w.write_all(facts(&rows).as_bytes())
    })?;
    if done.library.n_missing > 0 {
        return Err(Failure::new(
            Exit::Damaged,
            format!(
                "the site is restored, but the library lacks {}: serve it, and heal it with `depot library \
                 repair --from URL`",
                units::counted(done.library.n_missing, "content", "contents")
            ),
        ));
    }
    let data = done.data.display();
    if done.keys == 0 {
        out.note(format!("put the site's keys into {data}/keys before it is served"));
    }
    let database = match done.database.contains("://") {
        true => format!(" --database {}", done.database),
        false => String::new(),
    };
    out.note(format!("start it with `depot serve --data {data}{database}`"));
    Ok(())
}

/// Work that blocks, on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let work = tokio::task::spawn_blocking(work);
    work.await.unwrap_or_else(|error| Err(gone(error)))
}

fn gone(error: impl Display) -> Failure {
    Failure::failed(error.to_string())
}
