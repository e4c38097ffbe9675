//! `depot package push`: a local folder becomes a package's next version; only what the site lacks
//! travels.
//!
//! The folder is read once. Its files are cut and hashed here (`read.rs`); the chunks' names are
//! offered, the missing ones sent (`send.rs`); then the recipes of contents that the site does not
//! have whole, and last the manifest, which makes the version. A push that is cut off leaves what
//! arrived at the site for a while, so that the next one does not send it again.

mod read;
mod send;

use super::update;
use crate::{
    exit::{Exit, Failure},
    output::Out,
    progress::shown,
    transport::{Client, Request, failure_of, parse, path},
    units,
};
use api::{
    jobs::JobProgress,
    routes::uploads::{Ids, MANIFEST_TYPE, RECIPES_TYPE, RecipesTaken, encode_recipes},
    views::{UpdateView, UploadView, VersionView},
};
use clap::Args;
use contentlib::{Digest, Progress, Recipe};
use http::Method;
use packager::{Manifest, ScanError, fetch_state, scan::snapshot};
use read::Cutter;
use send::{Sent, tried_again};
use serde::Serialize;
use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Send a local folder to a package as its next version; only missing chunks travel
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot package push tools ./folder
  depot --url http://depot.example:8520 --token-file ci.token package push tools ./target/dist

The package is made if there is none of that name. A push that was cut off is repeated with the
same command: what arrived is not sent again. FOLDER/.depot, what `depot fetch` keeps in a folder,
is left out; anything else of that name is refused. Without this command, any HTTP client can send a
tar to a package that is there:
  tar c -C folder . | curl -T - -H \"Authorization: Bearer TOKEN\" URL/api/v1/packages/tools/tar")]
pub struct PushArgs {
    /// Name of the package
    name: String,
    /// Folder to send
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Fail if there is no such package, instead of making it
    #[arg(long)]
    no_create: bool,
}

/// Chunks that wait to be put into a batch; each is at most 512 KiB.
const WAITING: usize = 32;
/// Contents that are offered at once.
const OFFERED: usize = 4000;
/// Recipes sent at once name so many bytes of content: the site reads and hashes each.
const RECIPE_BATCH: u64 = 256 << 20;

/// What a push came to.
#[derive(Serialize)]
struct Pushed {
    #[serde(flatten)]
    version: UpdateView,
    /// Chunks whose names were offered.
    offered_chunks: u64,
    /// Chunks that travelled.
    sent_chunks: u64,
    /// Bytes that travelled for them.
    sent_bytes: u64,
}

/// Pushes, and says what came of it.
pub async fn run(args: PushArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let begun = Instant::now();
    if !args.folder.is_dir() {
        let message = format!("{} is no folder", args.folder.display());
        return Err(Failure::new(Exit::NotFound, message));
    }
    if fetch_state::lies_in(&args.folder) {
        out.note(format!("{} is what `depot fetch` keeps, and is left out", fetch_state::FOLDER));
    }
    let upload = begin(&args, client, out).await?;
    let id = upload.id.to_string();
    let counters = Arc::new(Progress::default());
    let sent = Sent::default();
    let work = push(client, &id, args.folder, &counters, &sent);
    let (mut version, n_read) = match shown(out, &counters, work).await {
        Ok(done) => done,
        Err(failure) => {
            if failure.exit == Exit::Interrupted || failure.may_pass {
                let kept = upload.expires.duration_since(upload.created);
                let kept = units::duration(kept.unsigned_abs());
                out.note(format!(
                    "what arrived is kept for {kept}; the same command goes on from there"
                ));
            }
            return Err(failure);
        }
    };
    // The site counts from the begin of the upload by its own clock; people ask for their own.
    version.seconds = begun.elapsed().as_secs_f64();
    let pushed = Pushed {
        version,
        offered_chunks: sent.offered.load(Relaxed),
        sent_chunks: sent.chunks.load(Relaxed),
        sent_bytes: sent.bytes.load(Relaxed),
    };
    out.show(&pushed, |w| {
        let read = JobProgress { bytes: n_read, ..JobProgress::default() };
        update::people(w, &pushed.version, &read)?;
        writeln!(
            w,
            "  sent    {} of {}, {}{}",
            units::count(pushed.sent_chunks),
            units::counted(pushed.offered_chunks, "chunk", "chunks"),
            units::bytes(pushed.sent_bytes),
            units::speed(pushed.sent_bytes, Duration::from_secs_f64(pushed.version.seconds)),
        )
    })
}

/// Begins an upload, and makes the package if there is none.
async fn begin(args: &PushArgs, client: &Client, out: Out) -> Result<UploadView, Failure> {
    let address = path(&["packages", &args.name, "uploads"]);
    let begin = || client.ask(Request::new(Method::POST, &address));
    match begin().await {
        Err(failure) if failure.exit == Exit::NotFound && !args.no_create => {
            let new = serde_json::json!({ "name": args.name });
            let made: VersionView = client.post("/packages", &new).await?;
            out.note(format!("package {} made", made.package));
            begin().await
        }
        begun => begun,
    }
}

/// Reads and sends at once, then commits. Answers what became of it, and the bytes read.
async fn push(
    client: &Client,
    id: &str,
    folder: PathBuf,
    counters: &Arc<Progress>,
    sent: &Sent,
) -> Result<(UpdateView, u64), Failure> {
    let (to, pieces) = mpsc::channel(WAITING);
    let cutter = Cutter::new(to);
    let reading = {
        let counters = Arc::clone(counters);
        tokio::task::spawn_blocking(move || {
            let manifest = snapshot(&folder, &cutter, &counters);
            (manifest, cutter.into_recipes())
        })
    };
    let (read, sending) = tokio::join!(reading, send::send(client, id, pieces, counters, sent));
    // Of the two the sender knows better: when it fails, the reader only finds it gone.
    sending?;
    let (manifest, recipes) = read?;
    let manifest = manifest.map_err(refused)?;
    let n_read = counters.bytes.load(Relaxed);
    send_recipes(client, id, &manifest, &recipes).await?;
    let body: bytes::Bytes = manifest.encode().into();
    let address = path(&["uploads", id, "commit"]);
    let request = Request::new(Method::POST, &address).bytes(body, MANIFEST_TYPE);
    Ok((client.ask(request).await?, n_read))
}

/// Says how the contents are put together that the site does not have whole.
async fn send_recipes(
    client: &Client,
    id: &str,
    manifest: &Manifest,
    recipes: &HashMap<Digest, Recipe>,
) -> Result<(), Failure> {
    let contents: HashSet<Digest> = manifest.digests().iter().copied().collect();
    let contents: Vec<Digest> = contents.into_iter().collect();
    for offered in contents.chunks(OFFERED) {
        let ids = Ids { chunks: Vec::new(), contents: offered.to_vec() };
        let missing = send::missing(client, id, &ids).await?.contents;
        let missing =
            missing.into_iter().filter_map(|digest| Some((digest, recipes.get(&digest)?)));
        let mut batch: Vec<(Digest, &Recipe)> = Vec::new();
        let mut named = 0;
        for (digest, recipe) in missing {
            if named + recipe.size() > RECIPE_BATCH && !batch.is_empty() {
                put_recipes(client, id, &std::mem::take(&mut batch)).await?;
                named = 0;
            }
            named += recipe.size();
            batch.push((digest, recipe));
        }
        if !batch.is_empty() {
            put_recipes(client, id, &batch).await?;
        }
    }
    Ok(())
}

async fn put_recipes(
    client: &Client,
    id: &str,
    batch: &[(Digest, &Recipe)],
) -> Result<(), Failure> {
    let body = bytes::Bytes::from(encode_recipes(batch.iter().copied()));
    let address = path(&["uploads", id, "recipes"]);
    let request = || Request::new(Method::PUT, &address).bytes(body.clone(), RECIPES_TYPE);
    let answer = tried_again(|| async { client.send(request()).await?.collect().await }).await?;
    let taken: RecipesTaken = parse(&answer)?;
    match taken.recipes.iter().find(|recipe| !recipe.missing_chunks.is_empty()) {
        None => Ok(()),
        // They were held when they were offered, and went with garbage collection since.
        Some(recipe) => Err(Failure::new(
            Exit::Conflict,
            format!("the site let go of chunks of {} meanwhile; push again", recipe.digest),
        )),
    }
}

/// A refusal has the exit code that `package update` has for the same folder.
fn refused(error: ScanError) -> Failure {
    match error {
        ScanError::Cancelled(_) => Failure::interrupted(),
        error => failure_of(&error.into()),
    }
}
