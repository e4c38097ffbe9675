//! `depot dp drain` and `resume`: a distribution point that is maintained.

use crate::exit::Failure;
use crate::output::Out;
use crate::transport::{Client, Request, path};
use crate::units;
use api::routes::points::PointView;
use clap::Args;
use http::Method;
use jiff::Timestamp;

/// Drain a distribution point: it gets nothing new and no clients, and keeps what it should hold
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot dp drain branch-7
  depot dp resume branch-7

Clients are not sent to it any more, other points ask the site before it, and it brings nothing new: what
is on its way pauses and keeps what came. What it holds it still serves to whoever asks it, checks and
mends; what is undistributed it lets go of. What is distributed to it meanwhile waits until it is
resumed.")]
pub struct DrainArgs {
    /// Its name or id
    point: String,
}

/// Resume a distribution point that was drained
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot dp resume branch-7

What was distributed to it meanwhile comes to it, and clients are sent to it again.")]
pub struct ResumeArgs {
    /// Its name or id
    point: String,
}

/// Drains it.
pub async fn drain(args: DrainArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let drain = path(&["points", &args.point, "drain"]);
    let point: PointView = client.ask(Request::new(Method::PUT, &drain)).await?;
    out.show(&point, |w| {
        writeln!(
            w,
            "{} is drained: it gets nothing new, and clients are not sent to it",
            point.name
        )
    })
}

/// Ends it.
pub async fn resume(args: ResumeArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let drain = path(&["points", &args.point, "drain"]);
    let point: PointView = client.ask(Request::new(Method::DELETE, &drain)).await?;
    out.show(&point, |w| writeln!(w, "{} gets content and clients again", point.name))
}

/// `2 h, by admin`; nothing if it is not drained.
pub fn shown(point: &PointView, now: Timestamp) -> Option<String> {
    let drained = point.drained.as_ref()?;
    Some(format!("for {}, by {}", units::since(drained.since, now), drained.by))
}
