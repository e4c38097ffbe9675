//! `depot compliance …`: which updates clients need, on which clients, and where that is not known.

use crate::{
    exit::Failure,
    output::{Out, table, written},
    transport::{Client, path, with_query},
    units,
};
use api::routes::fleet::{
    ClientUpdateView, DayView, DeviceView, HeldView, SummaryView, UnknownTotalsView, UnknownView,
};
use clap::{Args, Subcommand, builder::NonEmptyStringValueParser};

/// Commands on compliance.
#[derive(Debug, Subcommand)]
pub enum ComplianceCommand {
    /// On how many clients updates are required, installed, unknown
    #[command(after_help = "\
Examples:
  depot compliance summary
  depot compliance summary --update DSA-5545-1
  depot compliance summary --collection web
  depot compliance summary --limit 1000 --json | jq -r '.[] | select(.unknown > 0) | .name'

Those that most clients require come first.")]
    Summary {
        /// Only this update, by id or name
        #[arg(long, value_name = "UPDATE")]
        update: Option<String>,
        /// Only on the clients of this collection
        #[arg(long, value_name = "COLLECTION")]
        collection: Option<String>,
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// The clients on which an update has a state
    Devices(DevicesArgs),
    /// How many clients are unknown, and why
    Unknown(UnknownArgs),
    /// The updates that have a state on a client
    #[command(after_help = "\
Examples:
  depot compliance client pc-17
  depot compliance client pc-17 --state installed --json | jq -r '.[].name'

States: required, not-required, installed. Of other updates nothing is known: depot compliance unknown --why")]
    Client {
        /// Its id, or its name if no other has it
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        client: String,
        /// The state that they have on it
        #[arg(long, default_value = "required")]
        state: String,
        /// At most this many [default: all]
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// How an update's counts went from day to day
    #[command(after_help = "\
Examples:
  depot compliance trend DSA-5545-1 --days 14")]
    Trend {
        /// Its id or name
        update: String,
        /// How many days up to today
        #[arg(long, value_name = "N", default_value_t = 30)]
        days: u32,
    },
    /// Batches of clients that could not be read, the newest first
    #[command(after_help = "\
Examples:
  depot compliance quarantine

Their clients are asked for their full state, and are unknown until it comes.")]
    Quarantine {
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
}

/// Which clients are listed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot compliance devices DSA-5545-1
  depot compliance devices DSA-5545-1 --collection web
  depot compliance devices DSA-5545-1 --state installed --csv > installed.csv
  depot compliance devices DSA-5545-1 --state unknown --json | jq -r '.[].client'

States: required, not-required, installed, unknown.")]
pub struct DevicesArgs {
    /// The update's id or name
    update: String,
    /// The state that it has on them
    #[arg(long, default_value = "required")]
    state: String,
    /// Only clients of this collection
    #[arg(long, value_name = "COLLECTION")]
    collection: Option<String>,
    /// Print comma-separated values (RFC 4180), with a head
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// At most this many [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// What is told of unknown clients.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot compliance unknown
  depot compliance unknown --collection web
  depot compliance unknown --why                       # of which clients nothing is known
  depot compliance unknown --update DSA-5545-1
  depot compliance unknown --update DSA-5545-1 --why

Causes: never-scanned, scan-failed (the code is told), backlog (changes wait at the client), silent (not
heard for a week), not-received (a child site was not heard), corrupt (a batch could not be read),
not-enrolled (waits for approval), blocked, not-assessed (its catalogue does not have the update). Where a
machine said by itself why it cannot join, scan or report, that stands with the detail.")]
pub struct UnknownArgs {
    /// Of this update, by id or name; without it, clients of which nothing is known
    #[arg(long, value_name = "UPDATE")]
    update: Option<String>,
    /// Only clients of this collection
    #[arg(long, value_name = "COLLECTION")]
    collection: Option<String>,
    /// Name each client, with its cause and since when
    #[arg(long)]
    why: bool,
    /// At most this many clients with --why
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
}

/// Runs a command on compliance.
pub async fn run(command: ComplianceCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        ComplianceCommand::Summary { update, collection, limit } => {
            let query = [("update", update.as_deref()), ("collection", collection.as_deref())];
            let rows: Vec<SummaryView> = client.list("/compliance/summary", &query, limit).await?;
            out.show(&rows, |w| w.write_all(summary(&rows).as_bytes()))
        }
        ComplianceCommand::Devices(args) => devices(args, client, out).await,
        ComplianceCommand::Unknown(args) => unknown(args, client, out).await,
        ComplianceCommand::Client { client: which, state, limit } => {
            let at = path(&["clients", &which, "updates"]);
            let limit = limit.unwrap_or(usize::MAX);
            let mut found: Vec<ClientUpdateView> =
                client.list(&at, &[("state", Some(state.as_str()))], limit).await?;
            found.sort_by(|a, b| (&a.name, &a.update).cmp(&(&b.name, &b.update)));
            let rows = found.iter().map(|it| {
                let name = it.name.clone().unwrap_or_else(|| it.update.clone());
                [name, it.state.clone(), it.title.clone().unwrap_or_default()]
            });
            let columns = ["update", "state", "title"];
            out.show(&found, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
        }
        ComplianceCommand::Trend { update, days } => {
            let at = path(&["compliance", "updates", &update, "trend"]);
            let days = days.to_string();
            let trend: Vec<DayView> =
                client.get(&with_query(at, &[("days", Some(days.as_str()))])).await?;
            let rows = trend.iter().map(|day| {
                let counts = &day.counts;
                let numbers =
                    [counts.required, counts.installed, counts.not_required, counts.unknown];
                let [required, installed, not_required, unknown] = numbers.map(units::count);
                [day.day.to_string(), required, installed, not_required, unknown]
            });
            let columns = ["day", ">required", ">installed", ">not required", ">unknown"];
            out.show(&trend, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
        }
        ComplianceCommand::Quarantine { limit } => {
            let held: Vec<HeldView> = client.list("/compliance/quarantine", &[], limit).await?;
            let rows = held.iter().map(|held| {
                [
                    held.number.to_string(),
                    held.client.clone(),
                    units::when(held.at),
                    units::bytes(held.size),
                    held.reason.clone(),
                ]
            });
            let columns = [">number", "client", "at", ">size", "reason"];
            out.show(&held, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
        }
    }
}

fn summary(rows: &[SummaryView]) -> String {
    let rows = rows.iter().map(|row| {
        let counts = &row.counts;
        let numbers = [counts.required, counts.installed, counts.not_required, counts.unknown];
        let [required, installed, not_required, unknown] = numbers.map(units::count);
        let name = row.name.clone().unwrap_or_else(|| row.update.clone());
        let title = row.title.clone().unwrap_or_default();
        [name, required, installed, not_required, unknown, title]
    });
    let columns = ["update", ">required", ">installed", ">not required", ">unknown", "title"];
    table(columns, rows.collect())
}

async fn devices(args: DevicesArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let at = path(&["compliance", "updates", &args.update, "devices"]);
    let query = [("state", Some(args.state.as_str())), ("collection", args.collection.as_deref())];
    let limit = args.limit.unwrap_or(usize::MAX);
    let found: Vec<DeviceView> = client.list(&at, &query, limit).await?;
    if args.csv {
        return written(|w| {
            write!(w, "client,name\r\n")?;
            found.iter().try_for_each(|it| write!(w, "{},{}\r\n", it.client, quoted(&it.name)))
        });
    }
    let rows = found.iter().map(|it| [it.name.clone(), it.client.clone()]);
    out.show(&found, |w| w.write_all(table(["name", "client"], rows.collect()).as_bytes()))
}

/// A field of comma-separated values.
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

async fn unknown(args: UnknownArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let collection = ("collection", args.collection.as_deref());
    let query = [("update", args.update.as_deref()), collection];
    let at = with_query(path(&["compliance", "unknown"]), &query);
    if !args.why {
        let totals: UnknownTotalsView = client.get(&at).await?;
        return out.show(&totals, |w| w.write_all(causes(&totals).as_bytes()));
    }
    let listed = match &args.update {
        Some(update) => path(&["compliance", "updates", update, "unknown"]),
        None => path(&["compliance", "unknown", "clients"]),
    };
    let found: Vec<UnknownView> = client.list(&listed, &[collection], args.limit).await?;
    if out.json {
        return out.show(&found, |_| Ok(()));
    }
    let (totals, now): (UnknownTotalsView, _) = (client.get(&at).await?, jiff::Timestamp::now());
    let rows = found.iter().map(|it| {
        let details = [&it.detail, &it.said].into_iter().flatten();
        let detail = details.cloned().collect::<Vec<_>>().join("; ");
        let (since, age) = (units::when(it.since), units::since(it.since, now));
        [it.name.clone(), it.cause.clone(), since, age, it.client.clone(), detail]
    });
    let columns = ["name", "cause", "since", "age", "client", "detail"];
    written(|w| {
        w.write_all(table(columns, rows.collect()).as_bytes())?;
        writeln!(w)?;
        w.write_all(causes(&totals).as_bytes())
    })
}

/// How many clients have each cause.
fn causes(totals: &UnknownTotalsView) -> String {
    let rows = totals.unknown.iter().map(|(cause, n)| [cause.clone(), units::count(*n)]);
    let mut text = table(["cause", ">clients"], rows.collect());
    let unknown = units::count(totals.unknown.values().sum());
    text.push_str(&format!("{unknown} of {} clients are unknown\n", units::count(totals.clients)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_comma_stays_one_field() {
        assert_eq!(quoted("pc-17"), "pc-17");
        assert_eq!(quoted("Anna's, \"old\" one"), "\"Anna's, \"\"old\"\" one\"");
    }
}
