//! `depot package tree`: the files of a version.

use super::Selected;
use crate::{
    exit::Failure,
    output::{Out, table},
    transport::{Client, path, with_query},
    units,
};
use api::views::{EntryKind, EntryView, TreeView};
use clap::Args;

/// List the files of a version
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot package tree docs
  depot package tree docs@2 git
  depot package tree docs --recursive --json | jq -r '.[] | select(.type == \"file\") | .digest'

A byte that is not UTF-8, a control character or a backslash in a name is shown as \\xNN or \\\\.")]
pub struct TreeArgs {
    /// NAME, NAME@VERSION or NAME@CHANNEL
    #[arg(value_name = "NAME[@VERSION]")]
    package: Selected,
    /// A folder in it; else the top
    #[arg(value_name = "PATH")]
    path: Option<String>,
    /// All that lies below, not only what is right inside
    #[arg(long, short)]
    recursive: bool,
}

/// Lists.
pub async fn run(args: TreeArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let version = args.package.version_or_latest();
    let address = path(&["packages", &args.package.name, "versions", version, "tree"]);
    let recursive = args.recursive.then_some("true");
    let folder = args.path.as_deref().map(|path| path.trim_end_matches('/'));
    let query = [("path", folder), ("recursive", recursive)];
    let mut entries: Vec<EntryView> = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut query = query.to_vec();
        query.extend([("limit", Some("1000")), ("cursor", cursor.as_deref())]);
        let page: TreeView = client.get(&with_query(address.clone(), &query)).await?;
        entries.extend(page.items);
        let Some(next) = page.next else { break };
        cursor = Some(next);
    }
    let rows = entries.iter().map(|entry| {
        [
            mode_text(entry),
            entry.size.map(units::bytes).unwrap_or_default(),
            units::when(entry.mtime),
            entry.digest.map(|d| d.to_string()[..19].to_owned()).unwrap_or_default(),
            match &entry.target {
                Some(target) => format!("{} -> {target}", entry.path),
                None => entry.path.clone(),
            },
        ]
    });
    let columns = ["mode", ">size", "modified", "digest", "path"];
    out.show(&entries, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
}

/// Kind and permissions as `ls -l` writes them.
fn mode_text(entry: &EntryView) -> String {
    let kind = match entry.kind {
        EntryKind::Folder => 'd',
        EntryKind::Link => 'l',
        EntryKind::File => '-',
    };
    let bit = |at: u16, letter: char| if entry.mode >> at & 1 == 1 { letter } else { '-' };
    let mut text: String = std::iter::once(kind)
        .chain((0..9).rev().map(|at| bit(at, ['x', 'w', 'r'][usize::from(at % 3)])))
        .collect();
    for (special, at, with, without) in [(11, 3, "s", "S"), (10, 6, "s", "S"), (9, 9, "t", "T")] {
        if entry.mode >> special & 1 == 1 {
            let executable = &text[at..=at] == "x";
            text.replace_range(at..=at, if executable { with } else { without });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_reads_as_in_ls() {
        let entry = |kind, mode| EntryView {
            path: String::new(),
            kind,
            size: None,
            digest: None,
            recipe: None,
            target: None,
            mode,
            mtime: jiff::Timestamp::UNIX_EPOCH,
        };
        for (kind, mode, want) in [
            (EntryKind::File, 0o644, "-rw-r--r--"),
            (EntryKind::Folder, 0o1777, "drwxrwxrwt"),
            (EntryKind::File, 0o4755, "-rwsr-xr-x"),
            (EntryKind::File, 0o2640, "-rw-r-S---"),
            (EntryKind::Link, 0o777, "lrwxrwxrwx"),
        ] {
            assert_eq!(mode_text(&entry(kind, mode)), want);
        }
    }
}
