//! `depot dp window`: when a distribution point may bring what it lacks.

use crate::exit::{Exit, Failure};
use crate::output::Out;
use crate::transport::{Client, Request, path};
use api::routes::points::{PointView, WindowView};
use api::week_file;
use clap::Args;
use dp::pace::{Hours, Level, Week, WeekTime};
use http::Method;
use jiff::Timestamp;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Show or set when a distribution point brings what it lacks
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot dp window branch-7 --timezone Europe/Paris --file week.toml
  depot dp window branch-7
  depot dp window branch-7 --always

A file for a line that is busy at work:
  otherwise = \"open\"

  [[hours]]
  days = \"mon-fri\"
  from = \"06:00\"
  to = \"20:00\"
  level = \"high\"       # closed, high, medium+ or open: what is brought, by its priority
  rate = \"2Mbit\"       # and how fast at most, if it is said

Times are those that a clock on the wall shows there, all year. What is on its way and may not be any
more pauses, and what came of it is kept.")]
pub struct WindowArgs {
    /// Its name or id
    point: String,
    /// The time zone of the hours, by its IANA name
    #[arg(long, value_name = "ZONE", requires = "file")]
    timezone: Option<String>,
    /// The hours
    #[arg(long, value_name = "FILE", requires = "timezone", conflicts_with = "always")]
    file: Option<PathBuf>,
    /// At any time
    #[arg(long)]
    always: bool,
}

/// Shows or sets the window.
pub async fn run(args: WindowArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let address = path(&["points", &args.point]);
    let window = format!("{address}/window");
    let point: PointView = match (&args.file, &args.timezone) {
        (Some(file), Some(timezone)) => {
            let week = read(file, timezone)?;
            client.put(&window, &WindowView::from(&week)).await?
        }
        _ if args.always => client.ask(Request::new(Method::DELETE, &window)).await?,
        _ => client.get(&address).await?,
    };
    let week = point.window.as_ref().map(|view| view.week()).transpose();
    let told = match &week {
        Ok(None) => format!("{} brings what it lacks at any time\n", point.name),
        Ok(Some(week)) => {
            let now = now(week, Timestamp::now());
            format!("{} by the clock of {}; {now}\n\n{}", point.name, week.timezone(), grid(week))
        }
        // Another machine may know more time zones than this.
        Err(problem) => format!("{}: {problem}\n", point.name),
    };
    out.show(&point.window, |w| w.write_all(told.as_bytes()))
}

fn read(file: &Path, timezone: &str) -> Result<Week, Failure> {
    let unusable = |why: String| Failure::new(Exit::Usage, format!("{}: {why}", file.display()));
    let opened = std::fs::File::open(file).map_err(|error| Failure::input(file, error))?;
    let mut text = String::new();
    // One byte more, so that a file that is too long is seen to be.
    let read = opened.take(week_file::MAX_FILE as u64 + 1).read_to_string(&mut text);
    read.map_err(|error| unusable(error.to_string()))?;
    week_file::parse(&text, timezone).map_err(|error| unusable(error.to_string()))
}

/// `Europe/Paris; now high, until Mon 20:00`; nothing if there is no window.
pub fn shown(point: &PointView, at: Timestamp) -> Option<String> {
    let view = point.window.as_ref()?;
    Some(match view.week() {
        Ok(week) => format!("{}; {}", week.timezone(), now(&week, at)),
        Err(_) => view.timezone.clone(),
    })
}

/// `now high at 2 Mbit/s, until Mon 20:00`.
fn now(week: &Week, now: Timestamp) -> String {
    let Ok(zone) = week.zone() else { return "its hours are not known here".to_owned() };
    let hours = week.at(now, &zone);
    let rate = hours.rate.map(api::config::format_rate);
    let rate = rate.map(|rate| format!(" at {rate}")).unwrap_or_default();
    let until = week.next(now, &zone, |next| next != hours);
    let until = until.map(|until| until.to_zoned(zone).strftime(", until %a %H:%M").to_string());
    format!("now {}{rate}{}", name(hours.level), until.unwrap_or_default())
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Closed => "closed",
        Level::High => "high",
        Level::Medium => "medium+",
        Level::Open => "open",
    }
}

/// The week, an hour a sign, and what the rates are.
fn grid(week: &Week) -> String {
    let mut grid = String::from("     0     3     6     9     12    15    18    21\n");
    for (day, called) in (0..).zip(DAYS) {
        let _ = write!(grid, "{called} ");
        for hour in 0..24 {
            let _ = write!(grid, " {}", sign(week, day, hour));
        }
        grid.push('\n');
    }
    grid.push_str(
        "\n  . closed   ! high   + medium and high   # open   ~ changes within the hour\n",
    );
    let mut limited: Vec<_> = week.changes().iter().filter(|c| c.hours.rate.is_some()).collect();
    limited.dedup_by_key(|change| change.at);
    for change in limited {
        let rate = change.hours.rate.map(api::config::format_rate).unwrap_or_default();
        let _ = writeln!(grid, "  from {} at most {rate}", change.at);
    }
    grid
}

fn sign(week: &Week, day: u8, hour: u8) -> char {
    let Some(begins) = WeekTime::new(day, hour, 0) else { return ' ' };
    let level = |minute: u16| -> Hours { week.at_wall(begins.plus(minute)) };
    let first = level(0).level;
    if (1..60).any(|minute| level(minute).level != first) {
        return '~';
    }
    match first {
        Level::Closed => '.',
        Level::High => '!',
        Level::Medium => '+',
        Level::Open => '#',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_is_drawn_by_the_hour() {
        let text = "[[hours]]\ndays = \"tue\"\nfrom = \"06:00\"\nto = \"19:30\"\nlevel = \"high\"\n\
            rate = \"2Mbit\"\n[[hours]]\ndays = \"sun\"\nlevel = \"closed\"\n";
        let drawn = grid(&week_file::parse(text, "Europe/Paris").expect("it is a week"));
        let lines: Vec<&str> = drawn.lines().collect();
        assert_eq!(lines[1].replace(' ', ""), format!("mon{}", "#".repeat(24)));
        let tuesday = format!("tue{}{}~{}", "#".repeat(6), "!".repeat(13), "#".repeat(4));
        assert_eq!(lines[2].replace(' ', ""), tuesday);
        assert_eq!(lines[7].replace(' ', ""), format!("sun{}", ".".repeat(24)));
        assert!(drawn.ends_with("from tue 06:00 at most 2 Mbit/s\n"), "{drawn}");
    }

    #[test]
    fn what_holds_now_is_told_with_its_end() {
        let text =
            "[[hours]]\ndays = \"mon\"\nfrom = \"06:00\"\nto = \"20:00\"\nlevel = \"closed\"\n";
        let week = week_file::parse(text, "Europe/Paris").expect("it is a week");
        let monday = "2026-07-13T10:00:00Z".parse().expect("a time");
        assert_eq!(now(&week, monday), "now closed, until Mon 20:00");
    }
}
