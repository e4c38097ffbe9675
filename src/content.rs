//! `depot content …`: single contents by digest.

mod get;

use crate::{
    exit::{Exit, Failure},
    job::{self, Ended},
    output::{Out, facts, table},
    transport::{Client, Request, path},
    units,
};
use api::routes::content::{ContentView, WhyView};
use clap::{Args, Subcommand};
use contentlib::Name;
use http::Method;
use packager::refs::shown;

/// Commands on contents.
#[derive(Debug, Subcommand)]
pub enum ContentCommand {
    /// Show size, chunks and state of a content
    Show(ShowArgs),
    /// Write a content's bytes to a file or to stdout, verified
    Get(get::GetArgs),
    /// Read a content's stored bytes again and check them against their names
    Verify(VerifyArgs),
    /// Say what keeps a content: package versions, uploads, other contents
    Why(WhyArgs),
}

/// Show size, chunks and state of a content
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot content show blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262
  depot content show sha256:… --json")]
pub struct ShowArgs {
    /// blake3:HEX, or an alias sha256:HEX or sha1:HEX that the library knows
    digest: Name,
}

/// Read a content's stored bytes again and check them against their names
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot content verify blake3:…

Exit code 5 if a stored byte is wrong; the library then answers 503 for it until it is healed.")]
pub struct VerifyArgs {
    /// blake3:HEX, or an alias sha256:HEX or sha1:HEX that the library knows
    digest: Name,
    /// Print the job's id and leave it running
    #[arg(long)]
    detach: bool,
}

/// Say what keeps a content
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot content why blake3:…
  depot content why blake3:… --json | jq -r '.holders[].name'")]
pub struct WhyArgs {
    /// blake3:HEX of a content or a chunk, or an alias that the library knows
    digest: Name,
}

/// Runs a command on contents.
pub async fn run(command: ContentCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        ContentCommand::Show(args) => show(args.digest, client, out).await,
        ContentCommand::Get(args) => get::run(args, client, out).await,
        ContentCommand::Verify(args) => verify(&args, client, out).await,
        ContentCommand::Why(args) => why(args.digest, client, out).await,
    }
}

async fn show(name: Name, client: &Client, out: Out) -> Result<(), Failure> {
    let content: ContentView = client.get(&path(&["content", &name.to_string()])).await?;
    let rows = [
        ("digest", content.digest.to_string()),
        ("size", format!("{} ({} bytes)", units::bytes(content.size), units::count(content.size))),
        ("chunks", units::count(content.chunks)),
        ("state", if content.suspect { "damaged" } else { "good" }.to_owned()),
    ];
    out.show(&content, |w| w.write_all(facts(&rows).as_bytes()))?;
    if content.suspect {
        let message =
            format!("{} is damaged here; `depot library repair` heals it", content.digest);
        return Err(Failure::new(Exit::Damaged, message));
    }
    Ok(())
}

async fn verify(args: &VerifyArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let address = path(&["content", &args.digest.to_string(), "verify"]);
    let request = Request::new(Method::POST, &address);
    match job::start::<serde_json::Value>(client, request, out, args.detach).await? {
        Ended::Detached => Ok(()),
        Ended::Done { result, progress } => out.show(&result, |w| {
            writeln!(w, "{} is good: {} read", args.digest, units::bytes(progress.bytes))
        }),
    }
}

async fn why(name: Name, client: &Client, out: Out) -> Result<(), Failure> {
    let why: WhyView = client.get(&path(&["content", &name.to_string(), "why"])).await?;
    let kept = !why.holders.is_empty() || !why.chunk_of.is_empty();
    if !why.held && !kept {
        return Err(Failure::new(Exit::NotFound, format!("there is no content {}", why.digest)));
    }
    out.show(&why, |w| {
        writeln!(w, "{} is {}", why.digest, if why.held { &why.state } else { "missing" })?;
        if why.holders.is_empty() && why.chunk_of.is_empty() {
            return writeln!(
                w,
                "nothing keeps it; garbage collection frees it after the grace time"
            );
        }
        if !why.holders.is_empty() {
            let rows = why.holders.iter().map(|h| [shown(&h.name), h.label.clone()]).collect();
            w.write_all(table(["kept by", "as"], rows).as_bytes())?;
        }
        why.chunk_of.iter().try_for_each(|content| writeln!(w, "chunk of {content}"))
    })?;
    if !why.held {
        let message = format!("{} is kept by what is listed, but its bytes are gone", why.digest);
        return Err(Failure::new(Exit::Damaged, message));
    }
    Ok(())
}
