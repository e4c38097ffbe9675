//! `depot content-status`: how far what is distributed is, on each distribution point.

use crate::{
    distribute::priority_name,
    exit::Failure,
    output::{Out, table, written},
    transport::Client,
    units,
};
use api::routes::points::{ContentStateView, ContentStatusView};
use clap::Args;
use std::{
    io::{self, IsTerminal},
    time::Duration,
};

/// How often what is watched is asked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How far what is distributed is, on each distribution point
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot content-status                              # everything, everywhere
  depot content-status docs --watch
  depot content-status --dp branch-7 --json | jq -c '.[] | select(.state == \"failed\")'

What is shown is what each distribution point last reported; AGE says how long ago that was.
States: held, waiting, fetching, failed (it tries again by itself), repairing (it was held, part of it
was found damaged, and that is fetched again by itself), leaving (held, and no longer distributed),
unknown (nothing was reported yet), unavailable (gone from the site).")]
pub struct ContentStatusArgs {
    /// Only this package
    #[arg(value_name = "PKG")]
    package: Option<String>,
    /// Only this distribution point, by name or id
    #[arg(long, value_name = "NAME")]
    dp: Option<String>,
    /// Show it again whenever it changes, until Ctrl-C; with --json a line for each change
    #[arg(long)]
    watch: bool,
}

/// Prints the table, once or again and again.
pub async fn run(args: &ContentStatusArgs, client: &Client, out: Out) -> Result<(), Failure> {
    if !args.watch {
        let rows = ask(args, client).await?;
        return out.show(&rows, |w| w.write_all(text(&rows).as_bytes()));
    }
    tokio::select! {
        watched = watch(args, client, out) => watched,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    }
}

async fn ask(args: &ContentStatusArgs, client: &Client) -> Result<Vec<ContentStatusView>, Failure> {
    let query = [("package", args.package.as_deref()), ("point", args.dp.as_deref())];
    client.list("/content-status", &query, usize::MAX).await
}

async fn watch(args: &ContentStatusArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let in_place = io::stdout().is_terminal() && !out.json;
    let mut shown = None;
    loop {
        match ask(args, client).await {
            Ok(rows) => {
                let now: Vec<_> = rows.iter().cloned().map(without_age).collect();
                // Where it is drawn in place, the age is worth it by itself.
                if in_place {
                    written(|w| write!(w, "\x1b[H\x1b[2J{}", text(&rows)))?;
                } else if shown.as_ref() != Some(&now) {
                    if shown.is_some() && !out.json {
                        written(|w| writeln!(w))?;
                    }
                    out.show(&rows, |w| w.write_all(text(&rows).as_bytes()))?;
                }
                shown = Some(now);
            }
            // A site that restarts must not end the watching.
            Err(failure) if failure.may_pass && shown.is_some() => out.note(&failure.message),
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What must differ for a row to be shown again.
fn without_age(row: ContentStatusView) -> ContentStatusView {
    ContentStatusView { reported: None, age: None, ..row }
}

fn text(rows: &[ContentStatusView]) -> String {
    let rows = rows.iter().map(|row| {
        let number = |n: Option<u64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
        [
            row.point.clone(),
            row.package.clone(),
            number(row.version),
            wished(row),
            row.priority.map(priority_name).unwrap_or_default().to_owned(),
            number(row.held_version),
            state_name(row.state).to_owned(),
            format!("{}%", row.percent),
            units::bytes(row.bytes_left),
            row.age.map_or_else(|| "-".to_owned(), |age| units::duration(Duration::from_secs(age))),
            row.cause.clone().unwrap_or_default(),
        ]
    });
    let columns = [
        "dp", "package", ">version", "wished", "priority", ">holds", "state", ">done", ">left",
        ">age", "cause",
    ];
    table(columns, rows.collect())
}

/// `latest stable`, or `7 (on demand)`.
fn wished(row: &ContentStatusView) -> String {
    let words = row.wished.join(" ");
    if row.on_demand { format!("{words} (on demand)") } else { words }
}

fn state_name(state: ContentStateView) -> &'static str {
    match state {
        ContentStateView::Held => "held",
        ContentStateView::Waiting => "waiting",
        ContentStateView::Fetching => "fetching",
        ContentStateView::Failed => "failed",
        ContentStateView::Repairing => "repairing",
        ContentStateView::Leaving => "leaving",
        ContentStateView::Unknown => "unknown",
        ContentStateView::Unavailable => "unavailable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row() -> ContentStatusView {
        let row = json!({
            "point": "branch-7", "package": "docs", "version": 3, "wished": ["latest"],
            "priority": "high", "held_version": 2, "percent": 62, "bytes": 4096,
            "bytes_left": 1024, "state": "failed", "cause": "the disk is full",
            "since": null, "reported": "2026-11-22T12:00:00Z", "age": 65
        });
        serde_json::from_value(row).expect("a row as the site gives it")
    }

    #[test]
    fn a_row_tells_what_is_wished_held_and_wrong() {
        let unheard = ContentStatusView {
            version: None,
            held_version: None,
            priority: None,
            age: None,
            cause: None,
            state: ContentStateView::Unavailable,
            ..row()
        };
        let demanded = ContentStatusView { on_demand: true, ..row() };
        assert!(text(&[demanded]).contains("latest (on demand)"));
        assert_eq!(
            text(&[row(), unheard]),
            "DP        PACKAGE  VERSION  WISHED  PRIORITY  HOLDS  STATE        DONE      LEFT        AGE  CAUSE\n\
             branch-7  docs           3  latest  high          2  failed        62%  1.00 KiB  1 min 5 s  the disk is full\n\
             branch-7  docs           -  latest                -  unavailable   62%  1.00 KiB          -\n"
        );
    }

    #[test]
    fn a_report_that_says_the_same_changes_nothing() {
        let later = ContentStatusView { age: Some(9), ..row() };
        assert_eq!(without_age(later), without_age(row()));
        let other = ContentStatusView { percent: 63, ..row() };
        assert_ne!(without_age(other), without_age(row()));
    }
}
