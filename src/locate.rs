//! `depot locate`: whom a client should ask for a package, and why.

use crate::{
    boundary_group::in_words,
    exit::Failure,
    output::{Out, facts, table},
    package::Selected,
    transport::{Client, with_query},
    units,
};
use api::routes::places::{DemandedView, LocatedSourceView, LocatedView};
use clap::Args;
use std::{
    io::{self, Write},
    time::Duration,
};

/// Say whom a client should ask for a package, and why
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot locate --address 10.7.3.4 docs
  depot locate --address 10.7.3.4 docs@stable --explain
  depot locate --address 10.7.3.4 docs --elapsed 30m --json | jq -r '.sources[] | select(.usable) | .url'

The list has the distribution points that hold the version now, by their last report: those of the
client's boundary groups first, then neighbours, the default group and the site. FROM is when the client
may turn to each, since it began to look. Nothing is brought on demand by this command; a client that
asks at /locate/PKG/VERSION, as `depot fetch --site` does, is told the same.")]
pub struct LocateArgs {
    /// NAME, NAME@VERSION or NAME@CHANNEL
    #[arg(value_name = "PKG[@VERSION]")]
    package: Selected,
    /// The client's address
    #[arg(long, value_name = "ADDRESS")]
    address: String,
    /// For how long it has been looking, for example 30m [default: it begins]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    elapsed: Option<Duration>,
    /// Tell also whom it is not sent to, and why
    #[arg(long)]
    explain: bool,
}

/// Prints the list.
pub async fn run(args: LocateArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let package = Some(&args.package);
    let located = ask(client, &args.address, package, args.elapsed, args.explain).await?;
    out.show(&located, |w| {
        if args.explain {
            write_place(w, &located, false)?;
            writeln!(w)?;
        }
        match located.sources[..] {
            [] => writeln!(w, "the client may ask nobody")?,
            _ => w.write_all(sources(&located).as_bytes())?,
        }
        if let Some(text) = located.on_demand.as_ref().and_then(on_demand) {
            writeln!(w, "{text}")?;
        }
        if args.explain && !located.passed_over.is_empty() {
            writeln!(w)?;
            w.write_all(passed_over(&located).as_bytes())?;
        }
        Ok(())
    })
}

/// Asks the site where a client is, and whom it should ask.
pub async fn ask(
    client: &Client,
    address: &str,
    package: Option<&Selected>,
    elapsed: Option<Duration>,
    explain: bool,
) -> Result<LocatedView, Failure> {
    let elapsed = elapsed.map(|elapsed| elapsed.as_secs().to_string());
    let query = [
        ("address", Some(address)),
        ("package", package.map(|package| package.name.as_str())),
        ("version", package.map(Selected::version_or_latest)),
        ("elapsed", elapsed.as_deref()),
        ("explain", explain.then_some("true")),
    ];
    client.get(&with_query("/locate".to_owned(), &query)).await
}

/// Which boundaries count for the client, which groups it belongs to, and, if `with_sources`, whom it
/// turns to for what all of them hold.
pub fn write_place(w: &mut dyn Write, located: &LocatedView, with_sources: bool) -> io::Result<()> {
    let of = |names: &[String], none: &str| match names {
        [] => none.to_owned(),
        names => names.join(", "),
    };
    let rows = [
        ("client", located.client.clone()),
        ("boundary", of(&located.boundaries, "none has this address")),
        (
            "boundary group",
            of(&located.groups, "none: it turns to the default group, then to the site"),
        ),
    ];
    w.write_all(facts(&rows).as_bytes())?;
    if with_sources {
        writeln!(w)?;
        w.write_all(sources(located).as_bytes())?;
        if !located.passed_over.is_empty() {
            writeln!(w)?;
            w.write_all(passed_over(located).as_bytes())?;
        }
    }
    Ok(())
}

fn sources(located: &LocatedView) -> String {
    let rows = located.sources.iter().zip(1..).map(|(source, n): (&LocatedSourceView, u32)| {
        [
            n.to_string(),
            source.point.clone().unwrap_or_else(|| "the site".to_owned()),
            source.url.clone().unwrap_or_default(),
            in_words(Some(source.after)),
            if source.usable { "yes" } else { "not yet" }.to_owned(),
            reason(&source.why, source.group.as_deref(), source.of.as_deref()),
        ]
    });
    table([">", "dp", "url", "from", "now", "because"], rows.collect())
}

fn passed_over(located: &LocatedView) -> String {
    let rows = located.passed_over.iter().map(|passed| {
        let of = passed.why.as_ref();
        [
            passed.point.clone().unwrap_or_else(|| "the site".to_owned()),
            of.map(|why| reason(why, passed.group.as_deref(), passed.of.as_deref()))
                .unwrap_or_default(),
            passed.because.clone(),
        ]
    });
    table(["not offered", "would be", "because it"], rows.collect())
}

/// `of its group paris`, `of lyon, a neighbour of paris`, `of the default group hub`, `last resort`.
fn reason(why: &str, group: Option<&str>, of: Option<&str>) -> String {
    let group = group.unwrap_or_default();
    match why {
        "group" => format!("of its group {group}"),
        "neighbour" => format!("of {group}, a neighbour of {}", of.unwrap_or_default()),
        "default" => format!("of the default group {group}"),
        _ => "the last resort".to_owned(),
    }
}

/// What is brought near to the client, if anything is.
fn on_demand(demanded: &DemandedView) -> Option<String> {
    let point = demanded.point.as_deref().unwrap_or_default();
    match demanded.state.as_str() {
        "coming" => Some(format!("{point}, near to the client, is to hold it and does not yet")),
        "asked" => Some(format!("on demand: {point} will bring it when the client asks")),
        "nobody" => Some(format!(
            "on demand: no distribution point of {} is there that could serve the client and has the \
             room",
            demanded.group.as_deref().unwrap_or_default()
        )),
        _ => None,
    }
}
