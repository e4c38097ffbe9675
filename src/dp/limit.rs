//! `depot dp limit`: how fast a distribution point may bring what it lacks.

use crate::exit::Failure;
use crate::output::Out;
use crate::transport::{Client, Request, path};
use crate::units;
use api::routes::points::{NewLimit, PointView};
use clap::Args;
use http::Method;

/// Show or set how fast a distribution point brings what it lacks
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot dp limit branch-7 --rate 20Mbit --burst 4MB
  depot dp limit branch-7 --rate 2.5MB/s
  depot dp limit branch-7
  depot dp limit branch-7 --none

Over any time no more comes than the burst and what the rate gives in that time. It holds within
seconds, also for what is on its way. Rates are in bits (kbit, Mbit, Gbit) or bytes (KB/s, MB/s).")]
pub struct LimitArgs {
    /// Its name or id
    point: String,
    /// How much comes in a second at most: 20Mbit, 256kbit, 2.5MB/s
    #[arg(long, value_name = "RATE", value_parser = units::parse_rate, conflicts_with = "none")]
    rate: Option<u64>,
    /// How much may come at once after a quiet time; without it, what comes in a second
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "rate")]
    burst: Option<u64>,
    /// No limit
    #[arg(long)]
    none: bool,
}

fn size(text: &str) -> Result<u64, String> {
    let size = api::config::ByteSize::parse(text).map(|size| size.0);
    size.ok_or_else(|| "want a size, for example 4MB or 512KiB".to_owned())
}

/// Shows or sets the limit.
pub async fn run(args: LimitArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let address = path(&["points", &args.point]);
    let limit = format!("{address}/limit");
    let point: PointView = match (args.rate, args.none) {
        (Some(rate), _) => client.put(&limit, &NewLimit { rate, burst: args.burst }).await?,
        (None, true) => client.ask(Request::new(Method::DELETE, &limit)).await?,
        (None, false) => client.get(&address).await?,
    };
    let told = said(&point);
    out.show(&point.limit, |w| writeln!(w, "{} {told}", point.name))
}

fn said(point: &PointView) -> String {
    match shown(point) {
        Some(limit) => format!("brings at most {limit}"),
        None => "brings what it lacks as fast as it can".to_owned(),
    }
}

/// `20 Mbit/s, burst 3.81 MiB`; nothing if there is no limit.
pub fn shown(point: &PointView) -> Option<String> {
    let limit = point.limit?;
    let rate = api::config::format_rate(limit.rate);
    Some(format!("{rate}, burst {}", units::bytes(limit.burst)))
}
