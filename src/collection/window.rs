//! `depot collection window …`: when the clients of a collection may be worked on.

use super::{change_to, shown};
use crate::{
    exit::Failure,
    output::{Out, table},
    transport::{Client, path, with_query},
    units,
};
use api::routes::fleet::{CollectionChange, CollectionView, MaintenanceWindowView, TimeView};
use clap::{Args, Subcommand};

/// Commands on maintenance windows.
#[derive(Debug, Subcommand)]
pub enum WindowCommand {
    /// Add a maintenance window to a collection, or change one
    Add(AddArgs),
    /// List the maintenance windows of a collection
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  depot collection window list web"
    )]
    List {
        /// The collection
        collection: String,
    },
    /// Take a maintenance window away from a collection
    #[command(after_help = "\
Examples:
  depot collection window remove web nights")]
    Remove {
        /// The collection
        collection: String,
        /// What the window is called
        name: String,
    },
    /// Say when the next times are, where windows overlap as one
    #[command(after_help = "\
Examples:
  depot collection window preview web
  depot collection window preview web --zone Europe/Paris --from 2026-10-20T00:00Z --count 5")]
    Preview {
        /// The collection
        collection: String,
        /// The time zone of a client
        #[arg(long, value_name = "ZONE", default_value = "UTC")]
        zone: String,
        /// From when on [default: now]
        #[arg(long, value_name = "TIME")]
        from: Option<jiff::Timestamp>,
        /// How many
        #[arg(long, value_name = "N", default_value_t = 10)]
        count: usize,
    },
}

/// A maintenance window.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot collection window add web nights --start 2026-11-28T01:00 --length 3h --every 'weekly sat,sun'
  depot collection window add web patch --start 2026-12-01T22:00 --length 4h --every 'monthly 2nd tue +5'
  depot collection window add tills once --start 2026-12-24T03:00 --length 90m --every once --utc

Every: once; daily; weekly mon,thu; monthly 15 (in a shorter month, its last day); monthly last; monthly 2nd tue;
monthly last fri +1 (the day after); /N behind the first word for every N-th, as weekly/2 sat.
A window opens when the clock first shows its time, and stays open for its length, whatever the clock does.")]
pub struct AddArgs {
    /// The collection
    collection: String,
    /// What it is called
    name: String,
    /// The first day on which it may open, and the time at which it does, without a zone
    #[arg(long, value_name = "TIME")]
    start: String,
    /// How long it stays open, from 5m to 24h
    #[arg(long, value_name = "LENGTH", value_parser = units::parse_duration)]
    length: std::time::Duration,
    /// When it opens again
    #[arg(long, value_name = "WHEN")]
    every: String,
    /// By the clock of UTC; without it, by that of each client
    #[arg(long)]
    utc: bool,
}

/// Runs a command on maintenance windows.
pub async fn run(command: WindowCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        WindowCommand::Add(args) => {
            let seconds = args.length.as_secs();
            let minutes = u16::try_from(seconds / 60).ok().filter(|_| seconds % 60 == 0);
            let Some(minutes) = minutes else {
                return Err(Failure::usage("--length is one of whole minutes, from 5m to 24h"));
            };
            let clock = if args.utc { "utc" } else { "local" };
            let window = MaintenanceWindowView {
                start: args.start,
                minutes,
                clock: clock.into(),
                recurrence: args.every,
            };
            change(&args.collection, args.name, Some(window), client, out).await
        }
        WindowCommand::Remove { collection, name } => {
            change(&collection, name, None, client, out).await
        }
        WindowCommand::List { collection } => {
            let it: CollectionView = client.get(&path(&["collections", &collection])).await?;
            let rows = it.windows.iter().map(|(name, it)| {
                let length = std::time::Duration::from_secs(u64::from(it.minutes) * 60);
                let length = units::duration(length);
                [name.clone(), it.start.clone(), length, it.recurrence.clone(), it.clock.clone()]
            });
            let columns = ["name", "start", ">length", "every", "clock"];
            out.show(&it.windows, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
        }
        WindowCommand::Preview { collection, zone, from, count } => {
            let (from, count) = (from.map(|it| it.to_string()), count.to_string());
            let query = [
                ("zone", Some(zone.as_str())),
                ("from", from.as_deref()),
                ("count", Some(count.as_str())),
            ];
            let at = with_query(path(&["collections", &collection, "windows"]), &query);
            let times: Vec<TimeView> = client.get(&at).await?;
            let zone = jiff::tz::TimeZone::get(&zone)
                .map_err(|_| Failure::usage(format!("{zone:?} is no time zone")))?;
            let clock = |at: jiff::Timestamp| {
                at.to_zoned(zone.clone()).strftime("%a %Y-%m-%d %H:%M %Z").to_string()
            };
            let rows = times.iter().map(|it| [clock(it.from), clock(it.until)]);
            out.show(&times, |w| w.write_all(table(["from", "until"], rows.collect()).as_bytes()))
        }
    }
}

async fn change(
    collection: &str,
    name: String,
    window: Option<MaintenanceWindowView>,
    client: &Client,
    out: Out,
) -> Result<(), Failure> {
    let windows = [(name, window)].into();
    let change = CollectionChange { windows, ..CollectionChange::default() };
    let now = change_to(collection, &change, client).await?;
    out.show(&now, |w| w.write_all(shown(&now).as_bytes()))
}

/// A window in a few words.
pub fn text(name: &str, it: &MaintenanceWindowView) -> String {
    let length = units::duration(std::time::Duration::from_secs(u64::from(it.minutes) * 60));
    let MaintenanceWindowView { start, recurrence, clock, .. } = it;
    format!("{name}: {recurrence}, {length} from {start} on, {clock} time")
}
