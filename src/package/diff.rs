//! `depot package diff`: what differs between two versions.

use crate::{
    exit::{Exit, Failure},
    output::Out,
    transport::{Client, path, with_query},
    units,
};
use api::views::{ChangeView, DiffView, EntryView, HowView, VersionView};
use clap::Args;
use std::io::Write;

/// Show what differs between two versions
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot package diff docs            # the newest against the one before
  depot package diff docs 2          # the newest against version 2
  depot package diff docs 2 stable
  depot package diff docs --json | jq -r '.items[] | select(.how == \"added\") | .path'

Letters: A added, D removed, M other bytes, L link points elsewhere, P permissions only, T other
kind. Times are not compared.")]
pub struct DiffArgs {
    /// Name of the package
    name: String,
    /// The earlier version: a number or a channel [default: the one before the later]
    #[arg(value_name = "FROM")]
    from: Option<String>,
    /// The later version: a number or a channel [default: latest]
    #[arg(value_name = "TO")]
    to: Option<String>,
    /// Print the counts only
    #[arg(long)]
    summary: bool,
}

/// Compares.
pub async fn run(args: DiffArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let to = args.to.as_deref().unwrap_or("latest");
    let from = match args.from {
        Some(from) => from,
        None => version_before(client, &args.name).await?,
    };
    let address = path(&["packages", &args.name, "diff"]);
    let limit = if args.summary { "1" } else { "1000" };
    let mut cursor: Option<String> = None;
    let mut all: Option<DiffView> = None;
    loop {
        let query = [
            ("from", Some(from.as_str())),
            ("to", Some(to)),
            ("limit", Some(limit)),
            ("cursor", cursor.as_deref()),
        ];
        let page: DiffView = client.get(&with_query(address.clone(), &query)).await?;
        cursor = page.next.clone();
        match &mut all {
            Some(all) => all.items.extend(page.items),
            None => all = Some(page),
        }
        if cursor.is_none() || args.summary {
            break;
        }
    }
    let mut diff = all.expect("the loop runs once at least");
    diff.next = None;
    if args.summary {
        diff.items.clear();
    }
    out.show(&diff, |w| {
        diff.items.iter().try_for_each(|change| line(w, change))?;
        let c = &diff.counts;
        writeln!(
            w,
            "version {} to {}: {} added, {} removed, {} changed, {} other mode, {} other kind",
            diff.from,
            diff.to,
            units::count(c.added),
            units::count(c.removed),
            units::count(c.changed),
            units::count(c.mode),
            units::count(c.kind),
        )
    })
}

async fn version_before(client: &Client, name: &str) -> Result<String, Failure> {
    let address = path(&["packages", name, "versions"]);
    let versions: Vec<VersionView> = client.list(&address, &[], usize::MAX).await?;
    match versions.as_slice() {
        [.., before, _latest] => Ok(before.version.to_string()),
        _ => Err(Failure::new(
            Exit::NotFound,
            format!("package {name} has no version before its newest to compare with"),
        )),
    }
}

fn line(w: &mut dyn Write, change: &ChangeView) -> std::io::Result<()> {
    let size = |entry: &Option<EntryView>| {
        entry.as_ref().and_then(|e| e.size).map_or_else(|| "-".to_owned(), units::bytes)
    };
    let mode = |entry: &Option<EntryView>| {
        entry.as_ref().map_or_else(|| "-".to_owned(), |e| format!("{:04o}", e.mode))
    };
    let (letter, detail) = match change.how {
        HowView::Added => ('A', size(&change.after)),
        HowView::Removed => ('D', size(&change.before)),
        HowView::Content => ('M', format!("{} to {}", size(&change.before), size(&change.after))),
        HowView::Target => ('L', String::new()),
        HowView::Mode => ('P', format!("{} to {}", mode(&change.before), mode(&change.after))),
        HowView::Type => ('T', String::new()),
    };
    match detail.as_str() {
        "" | "-" => writeln!(w, "{letter}  {}", change.path),
        detail => writeln!(w, "{letter}  {}  ({detail})", change.path),
    }
}
