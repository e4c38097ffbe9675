//! `depot library …`: the content library as a whole.

mod volume;

use crate::{
    exit::{Exit, Failure},
    job::{self, Ended},
    output::{Out, facts},
    transport::{Client, Request},
    units,
};
use api::routes::library::LibraryView;
use clap::{Args, Subcommand};
use contentlib::Digest;
use http::Method;
use jiff::Timestamp;
use packager::refs::shown;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::io::{self, Write};
pub use volume::VolumeCommand;

/// Commands on the library.
#[derive(Debug, Subcommand)]
pub enum LibraryCommand {
    /// Show what is held and what it costs
    Stats(StatsArgs),
    /// Check stored bytes against their checksums and digests
    Verify(VerifyArgs),
    /// Free what nothing keeps any more
    Gc(GcArgs),
    /// Make the index again from the packs; works when the index folder is gone
    RebuildIndex(RebuildArgs),
    /// Bring damaged or missing contents back from another server
    Repair(RepairArgs),
    /// The disks that hold the library: list, add, drain, resume, remove
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot library volume list
  depot library volume add /mnt/disk2/depot --reserve 1GiB"
    )]
    Volume(VolumeCommand),
}

/// Show what is held and what it costs
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot library stats
  depot library stats --json | jq .stored_bytes")]
pub struct StatsArgs {}

/// Check stored bytes against their checksums and digests
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot library verify
  depot library verify --read-percent 10

Exit code 5 if anything is damaged; every pack, chunk and content that is hit is named. What is
damaged is not served until it is healed: by `depot library repair --from URL`, by `depot package
update NAME --read-all` where the source still has the files, or by anybody who sends them again.
The damaged bytes stay where they are, and are named with exit code 5, until `depot library gc`.")]
pub struct VerifyArgs {
    /// Read this share of the stored bytes
    #[arg(long, value_name = "PERCENT", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
    read_percent: u8,
    /// Print the job's id and leave it running
    #[arg(long)]
    detach: bool,
}

/// Free what nothing keeps any more
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot library gc --dry-run
  depot library gc

What no package version, upload or reader needs is condemned first and deleted after the grace
time (library.gc_grace, 24 hours by default), so that nobody loses what they are using.")]
pub struct GcArgs {
    /// Change nothing; say what would be freed
    #[arg(long)]
    dry_run: bool,
    /// Print the job's id and leave it running
    #[arg(long)]
    detach: bool,
}

/// Make the index again from the packs
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot --data ./depot-data library rebuild-index

Needs --data: no server may have the folder open. All contents, packages and versions come back,
for the packs hold everything; the index only makes it fast to find. What was known to be damaged is
not in the packs: `depot library verify` finds it again.")]
pub struct RebuildArgs {}

/// Bring damaged or missing contents back from another server
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot library repair --from http://depot2.example:8520

Asks for what `depot library verify`, the scrub or a reader found damaged; every byte is checked
against its digest before it counts. Where a package's source folder still has the files,
`depot package update NAME --read-all` heals too.")]
pub struct RepairArgs {
    /// A server that holds the same contents
    #[arg(long, value_name = "URL")]
    from: String,
    /// Print the job's id and leave it running
    #[arg(long)]
    detach: bool,
}

/// Runs a command on the library.
pub async fn run(command: LibraryCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        LibraryCommand::Stats(_) => stats(client, out).await,
        LibraryCommand::Verify(args) => verify(&args, client, out).await,
        LibraryCommand::Gc(args) => gc(&args, client, out).await,
        LibraryCommand::RebuildIndex(_) => rebuild(client, out).await,
        LibraryCommand::Repair(args) => repair(&args, client, out).await,
        LibraryCommand::Volume(command) => volume::run(command, client, out).await,
    }
}

async fn stats(client: &Client, out: Out) -> Result<(), Failure> {
    let stats: LibraryView = client.get("/library").await?;
    let mut rows = vec![
        ("chunks", units::count(stats.chunks)),
        ("recipes", units::count(stats.recipes)),
        ("plain", units::bytes(stats.plain_bytes)),
        ("stored", units::bytes(stats.stored_bytes)),
        ("compression", units::ratio(stats.plain_bytes, stats.stored_bytes)),
        ("packs", units::count(stats.packs)),
        (
            "condemned",
            match (stats.condemned, stats.kept) {
                (n, 0) => units::counted(n, "entry", "entries"),
                (n, kept) => format!(
                    "{}, of them {} kept for what was imported or is on its way",
                    units::counted(n, "entry", "entries"),
                    units::count(kept)
                ),
            },
        ),
        ("damaged", units::counted(stats.suspects, "entry", "entries")),
    ];
    if let Some(free) = stats.free_bytes {
        let place = if stats.volumes.len() > 1 { "free on volumes" } else { "free on volume" };
        rows.push((place, units::bytes(free)));
    }
    out.show(&stats, |w| w.write_all(facts(&rows).as_bytes()))
}

#[derive(Deserialize, Serialize)]
struct Verified {
    packs: u64,
    records: u64,
    bytes: u64,
    bad_packs: Vec<PackProblem>,
    bad_chunks: Vec<Digest>,
    bad_contents: Vec<BadContent>,
}

/// A pack that a result names, and why.
#[derive(Deserialize, Serialize)]
struct PackProblem {
    pack: String,
    error: String,
}

#[derive(Deserialize, Serialize)]
struct BadContent {
    digest: Digest,
    holders: Vec<Holder>,
}

#[derive(Deserialize, Serialize)]
struct Holder {
    name: String,
    label: String,
}

async fn verify(args: &VerifyArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let body = json!({ "read_percent": args.read_percent });
    let request = Request::new(Method::POST, "/library/verify").json(&body)?;
    let found: Verified = match job::start(client, request, out, args.detach).await? {
        Ended::Done { result, .. } => result,
        Ended::Detached => return Ok(()),
    };
    out.show(&found, |w| {
        for PackProblem { pack, error } in &found.bad_packs {
            writeln!(w, "pack {pack}: {error}")?;
        }
        for chunk in &found.bad_chunks {
            writeln!(w, "chunk {chunk}: damaged")?;
        }
        for content in &found.bad_contents {
            write!(w, "content {}: cannot be read whole", content.digest)?;
            let held = content.holders.iter().map(|h| format!("{} {}", shown(&h.name), h.label));
            match held.collect::<Vec<_>>().join(", ") {
                held if held.is_empty() => writeln!(w)?,
                held => writeln!(w, "; held by {held}")?,
            }
        }
        writeln!(
            w,
            "checked {}, {}, {}",
            units::counted(found.packs, "pack", "packs"),
            units::counted(found.records, "record", "records"),
            units::bytes(found.bytes),
        )
    })?;
    let n_bad = found.bad_packs.len() + found.bad_chunks.len() + found.bad_contents.len();
    if n_bad == 0 {
        out.note("nothing is damaged");
        return Ok(());
    }
    // What uses a damaged chunk is a content that cannot be read whole.
    let advice = if found.bad_contents.is_empty() {
        "nothing that is used is damaged: `depot library gc` removes what is left"
    } else {
        "heal with `depot library repair --from URL`"
    };
    Err(Failure::new(
        Exit::Damaged,
        format!(
            "damaged: {}, {}, {}; {advice}",
            units::counted(found.bad_packs.len() as u64, "pack", "packs"),
            units::counted(found.bad_chunks.len() as u64, "chunk", "chunks"),
            units::counted(found.bad_contents.len() as u64, "content", "contents"),
        ),
    ))
}

#[derive(Deserialize, Serialize)]
struct Collected {
    live: u64,
    condemned: u64,
    condemned_bytes: u64,
    purged: u64,
    repacked: u64,
    deleted_packs: u64,
    freed_bytes: u64,
    waiting_bytes: u64,
    reclaimable_at: Option<u64>,
    kept_bytes: u64,
    kept_until: Option<u64>,
}

async fn gc(args: &GcArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let body = json!({ "dry_run": args.dry_run });
    let request = Request::new(Method::POST, "/library/gc").json(&body)?;
    let done: Collected = match job::start(client, request, out, args.detach).await? {
        Ended::Done { result, .. } => result,
        Ended::Detached => return Ok(()),
    };
    out.show(&done, |w| collected(w, &done, args.dry_run))
}

fn collected(w: &mut dyn Write, done: &Collected, dry_run: bool) -> io::Result<()> {
    if dry_run {
        writeln!(w, "dry run: nothing was changed")?;
    }
    let rows = [
        ("live", units::counted(done.live, "entry", "entries")),
        (
            "condemned now",
            format!(
                "{}, {}",
                units::counted(done.condemned, "entry", "entries"),
                units::bytes(done.condemned_bytes)
            ),
        ),
        ("gone for good", units::counted(done.purged, "entry", "entries")),
        ("packs", format!("{} deleted, {} repacked", done.deleted_packs, done.repacked)),
        ("freed", units::bytes(done.freed_bytes)),
    ];
    w.write_all(facts(&rows).as_bytes())?;
    let time = |s: Option<u64>| s.and_then(|s| Timestamp::from_second(s.try_into().ok()?).ok());
    if let Some(at) = time(done.reclaimable_at).filter(|_| done.waiting_bytes > 0) {
        writeln!(
            w,
            "{} more will be free at {}",
            units::bytes(done.waiting_bytes),
            units::when(at)
        )?;
    }
    if done.kept_bytes > 0 {
        let kept = units::bytes(done.kept_bytes);
        match time(done.kept_until) {
            Some(until) => writeln!(
                w,
                "{kept} that nothing uses yet are kept: for what was imported or is on its way, until {} \
                 at the latest",
                units::when(until)
            )?,
            None => {
                writeln!(w, "{kept} that nothing uses yet are kept for work that is under way")?
            }
        }
    }
    Ok(())
}

#[derive(Deserialize, Serialize)]
struct Rebuilt {
    sealed_packs: u64,
    scanned_packs: u64,
    bad_packs: Vec<PackProblem>,
    chunks: u64,
    recipes: u64,
    refs: u64,
}

async fn rebuild(client: &Client, out: Out) -> Result<(), Failure> {
    let request = Request::new(Method::POST, "/library/rebuild-index");
    let Ended::Done { result, progress: _ } =
        job::start::<Rebuilt>(client, request, out, false).await?
    else {
        return Ok(());
    };
    out.show(&result, |w| {
        for PackProblem { pack, error } in &result.bad_packs {
            writeln!(w, "pack {pack}: {error}")?;
        }
        writeln!(
            w,
            "index made again from {}: {}, {}, {}",
            units::counted(result.sealed_packs + result.scanned_packs, "pack", "packs"),
            units::counted(result.chunks, "chunk", "chunks"),
            units::counted(result.recipes, "recipe", "recipes"),
            units::counted(result.refs, "reference", "references"),
        )?;
        if result.scanned_packs > 0 {
            // What came after the cut is in no index any more: `verify` alone cannot miss it.
            writeln!(
                w,
                "{} without an end, as a crash or damage leaves it: see whether versions are missing \
                 (`depot package list`) or damaged (`depot library verify`)",
                units::counted(result.scanned_packs, "pack", "packs")
            )?;
        }
        Ok(())
    })?;
    match result.bad_packs.len() as u64 {
        0 => Ok(()),
        n => Err(Failure::new(
            Exit::Damaged,
            format!(
                "{} could not be read; run `depot library verify`",
                units::counted(n, "pack", "packs")
            ),
        )),
    }
}

async fn repair(args: &RepairArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let body = json!({ "from": args.from });
    let request = Request::new(Method::POST, "/library/repair").json(&body)?;
    let report: Repaired = match job::start(client, request, out, args.detach).await? {
        Ended::Done { result, .. } => result,
        Ended::Detached => return Ok(()),
    };
    out.show(&report, |w| {
        report
            .lost
            .iter()
            .try_for_each(|lost| writeln!(w, "{lost}: {} has no good copy", args.from))?;
        match report.wanted {
            0 => writeln!(
                w,
                "nothing that is used is known to be damaged; `depot library verify` looks closer"
            ),
            wanted => writeln!(
                w,
                "healed {} of {}",
                report.healed,
                units::counted(wanted, "chunk or recipe", "chunks and recipes")
            ),
        }
    })?;
    match report.lost.len() as u64 {
        0 => Ok(()),
        n => Err(Failure::new(
            Exit::Damaged,
            format!(
                "{} could not be healed; try another server, or `depot package update NAME --read-all`",
                units::counted(n, "chunk or recipe", "chunks and recipes")
            ),
        )),
    }
}

#[derive(Deserialize, Serialize)]
struct Repaired {
    wanted: u64,
    healed: u64,
    lost: Vec<Digest>,
}
