//! `depot library volume …`: the disks that hold the library.

use super::PackProblem;
use crate::{
    exit::{Exit, Failure},
    job::{self, Ended},
    output::{Out, facts, table},
    transport::{Client, Request, path, with_query},
    units,
};
use api::config::ByteSize;
use api::routes::volumes::{AddVolume, VolumeStateView, VolumeView};
use clap::{Args, Subcommand};
use http::Method;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Commands on volumes.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// List the volumes, with what they hold and have free
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  depot library volume list
  depot library volume list --json | jq -r '.[] | select(.free_bytes < 1e9) | .name'"
    )]
    List,
    /// Let the library use an empty folder on another disk
    Add(AddArgs),
    /// Move everything off a volume, while the library is used
    Drain(DrainArgs),
    /// Let a volume that was drained take new content again
    #[command(after_help = "\
Examples:
  depot library volume resume disk2

What a drain moved away stays where it is; a drain that runs ends.")]
    Resume {
        /// Its name or id
        name: String,
    },
    /// Take an empty volume out of the library
    Remove(RemoveArgs),
}

/// Let the library use an empty folder on another disk
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot library volume add /mnt/disk2/depot
  depot library volume add /mnt/disk3 --name big --reserve 20GiB

New content goes to the volume with the most room above its reserve; a volume that reaches its
reserve gets no more. The folder is of the machine that holds the library: with --url that is the
server. From then on the library does not open while the folder's disk is not mounted.")]
pub struct AddArgs {
    /// An empty folder
    path: PathBuf,
    /// What to call it: up to 64 of a-z, 0-9, `.`, `_`, `-` [default: as its folder]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Keep this much of the disk free [default: library.reserve]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    reserve: Option<u64>,
}

/// Move everything off a volume, while the library is used
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot library volume drain disk2
  depot library volume drain home --detach       # the folder in the data folder may be emptied too

The volume takes no new content from the beginning on. Its packs move to the other volumes one by
one, each compared before the original goes. Stopped by Ctrl-C, a failure or a crash, it goes on
when it is asked for again. Exit code 5 if packs had to stay because the disk cannot read them.")]
pub struct DrainArgs {
    /// Its name or id
    name: String,
    /// Print the job's id and leave it running
    #[arg(long)]
    detach: bool,
}

/// Take an empty volume out of the library
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot library volume remove disk2              # after `depot library volume drain disk2`
  depot --data ./depot-data library volume remove disk2 --lost

--lost gives up a volume whose disk is gone, with all that it held; it needs --data: no server may
have the folder open. `depot library verify` then names what is hit, and `depot library repair
--from URL` or `depot package update NAME --read-all` brings it back.")]
pub struct RemoveArgs {
    /// Its name or id
    name: String,
    /// Its disk is gone: give up what it held
    #[arg(long)]
    lost: bool,
}

fn size(text: &str) -> Result<u64, String> {
    let size = ByteSize::parse(text).map(|size| size.0);
    size.ok_or_else(|| "want a size such as 500MiB or 20GiB".to_owned())
}

/// Runs a command on volumes.
pub async fn run(command: VolumeCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        VolumeCommand::List => list(client, out).await,
        VolumeCommand::Add(args) => add(args, client, out).await,
        VolumeCommand::Drain(args) => drain(&args, client, out).await,
        VolumeCommand::Resume { name } => {
            let path = path(&["library", "volumes", &name, "resume"]);
            let volume: VolumeView = client.ask(Request::new(Method::POST, &path)).await?;
            out.show(&volume, |w| writeln!(w, "volume {} takes new content again", volume.name))
        }
        VolumeCommand::Remove(args) => remove(&args, client, out).await,
    }
}

async fn list(client: &Client, out: Out) -> Result<(), Failure> {
    let volumes: Vec<VolumeView> = client.list("/library/volumes", &[], usize::MAX).await?;
    let columns = ["name", "state", ">packs", ">stored", ">free", ">reserve", "path"];
    let row = |volume: &VolumeView| {
        [
            volume.name.clone(),
            state(volume.state).to_owned(),
            units::count(volume.packs),
            units::bytes(volume.stored_bytes),
            volume.free_bytes.map_or("-".to_owned(), units::bytes),
            units::bytes(volume.reserve_bytes),
            volume.path.clone(),
        ]
    };
    let rows = volumes.iter().map(row).collect();
    out.show(&volumes, |w| w.write_all(table(columns, rows).as_bytes()))
}

fn state(state: VolumeStateView) -> &'static str {
    match state {
        VolumeStateView::Active => "active",
        VolumeStateView::Draining => "draining",
    }
}

async fn add(args: AddArgs, client: &Client, out: Out) -> Result<(), Failure> {
    if args.path.is_relative() && !client.is_on_this_machine() {
        return Err(Failure::usage(format!(
            "{} is relative: give the absolute path of a folder on the server",
            args.path.display()
        )));
    }
    let path = std::path::absolute(args.path)?;
    let Some(path) = path.to_str() else {
        return Err(Failure::usage(format!("{} is not UTF-8", path.display())));
    };
    let (name, reserve_bytes) = (args.name, args.reserve);
    let new = AddVolume { path: path.to_owned(), name, reserve_bytes };
    let added: VolumeView = client.post("/library/volumes", &new).await?;
    out.show(&added, |w| {
        writeln!(w, "volume {} added", added.name)?;
        let mut rows = vec![("path", added.path.clone())];
        rows.extend(added.free_bytes.map(|free| ("free", units::bytes(free))));
        rows.push(("reserve", units::bytes(added.reserve_bytes)));
        w.write_all(facts(&rows).as_bytes())
    })
}

#[derive(Deserialize, Serialize)]
struct Drained {
    volume: String,
    packs: u64,
    bytes: u64,
    left: Vec<PackProblem>,
}

async fn drain(args: &DrainArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let path = path(&["library", "volumes", &args.name, "drain"]);
    let request = Request::new(Method::POST, &path);
    let done: Drained = match job::start(client, request, out, args.detach).await? {
        Ended::Done { result, .. } => result,
        Ended::Detached => return Ok(()),
    };
    out.show(&done, |w| {
        for PackProblem { pack, error } in &done.left {
            writeln!(w, "pack {pack} stays: {error}")?;
        }
        let moved = units::counted(done.packs, "pack", "packs");
        writeln!(w, "moved {moved}, {} off volume {}", units::bytes(done.bytes), done.volume)
    })?;
    match done.left.len() as u64 {
        0 => Ok(()),
        n => Err(Failure::new(
            Exit::Damaged,
            format!(
                "{} had to stay: run `depot library verify`, `depot library repair --from URL`, \
                 then `depot library gc`, and drain again",
                units::counted(n, "pack", "packs")
            ),
        )),
    }
}

async fn remove(args: &RemoveArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let path = path(&["library", "volumes", &args.name]);
    let path = with_query(path, &[("lost", args.lost.then_some("true"))]);
    client.send(Request::new(Method::DELETE, &path)).await?;
    let removed = serde_json::json!({ "removed": args.name });
    out.show(&removed, |w| writeln!(w, "volume {} removed", args.name))?;
    if args.lost {
        out.note("what it held is lost here: `depot library verify` names it");
    }
    Ok(())
}
