//! `depot package revoke`: one content, forbidden everywhere at once.

use crate::{
    exit::Failure,
    output::{Out, confirm, table},
    transport::{Client, Request, path},
    units,
};
use api::{routes::library::RevokedView, views::RevocationView};
use clap::Args;
use http::Method;

/// Forbid a digest in every package
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot package revoke blake3:1f0c… --reason \"CVE-2026-1234\"
  depot package revoke --list
  depot package revoke blake3:1f0c… --undo")]
pub struct RevokeArgs {
    /// What to forbid
    #[arg(value_name = "DIGEST", required_unless_present = "list")]
    digest: Option<contentlib::Name>,
    /// Why, for whoever meets the refusal
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// List what is revoked
    #[arg(long, conflicts_with_all = ["digest", "undo"])]
    list: bool,
    /// Allow it again
    #[arg(long)]
    undo: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Revokes, takes back or lists.
pub async fn run(args: RevokeArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let Some(digest) = args.digest else { return list(client, out).await };
    let address = path(&["revocations", &digest.to_string()]);
    if args.undo {
        client.send(Request::new(Method::DELETE, &address)).await?;
        let done = serde_json::json!({ "digest": digest.to_string(), "revoked": false });
        return out.show(&done, |w| writeln!(w, "{digest} is no longer revoked"));
    }
    let Some(reason) = args.reason else {
        return Err(Failure::usage("say why with --reason, for whoever meets the refusal"));
    };
    confirm(&format!("this takes {digest} out of every package"), args.yes)?;
    let body = serde_json::json!({ "reason": reason });
    let revoked: RevocationView = client.put(&address, &body).await?;
    out.show(&revoked, |w| {
        writeln!(w, "{} is revoked: neither served nor taken in again", revoked.digest)?;
        for place in &revoked.places {
            writeln!(w, "  {}@{}  {}", place.package, place.version, place.path)?;
        }
        match revoked.total - revoked.places.len() as u64 {
            0 => {}
            more => writeln!(w, "  and {} more", units::counted(more, "place", "places"))?,
        }
        revoked.unknown.iter().try_for_each(|version| {
            writeln!(w, "  {version} has a damaged manifest; whether it has it is not known")
        })
    })
}

async fn list(client: &Client, out: Out) -> Result<(), Failure> {
    let revoked: Vec<RevokedView> = client.list("/revocations", &[], usize::MAX).await?;
    let rows = revoked.iter().map(|r| [r.digest.to_string(), r.reason.clone()]).collect();
    out.show(&revoked, |w| w.write_all(table(["digest", "reason"], rows).as_bytes()))
}
