//! `depot dp source …`: which points a point brings content from.

use crate::{
    exit::Failure,
    output::Out,
    transport::{Client, Request, path},
};
use api::routes::points::{NewSources, PointView};
use clap::Subcommand;
use http::Method;

/// Commands on sources.
#[derive(Debug, Subcommand)]
pub enum SourceCommand {
    /// Have a distribution point bring what it lacks from others before it asks the site
    #[command(after_help = "\
Examples:
  depot dp source set paris-7 --from paris-hub
  depot dp source set paris-7 --from paris-1,paris-2 --from lyon

Points named together are asked by turns; those of a further --from where they do not help, and the
site last. It waits for one that is just being brought the same version, so the site sends it once.
This takes the place of what was set before. No point may bring from itself, by whatever way.")]
    Set {
        /// The distribution point that brings, by name or id
        point: String,
        /// Distribution points to bring from, apart by commas
        #[arg(long, required = true, value_name = "POINT,…")]
        from: Vec<String>,
    },
    /// Have a distribution point bring what it lacks from the site alone
    #[command(after_help = "\
Examples:
  depot dp source clear paris-7")]
    Clear {
        /// The distribution point, by name or id
        point: String,
    },
}

/// Runs a command on sources.
pub async fn run(command: SourceCommand, client: &Client, out: Out) -> Result<(), Failure> {
    let (which, from) = match command {
        SourceCommand::Set { point, from } => {
            let from: Vec<Vec<String>> = from.iter().map(|list| names(list)).collect();
            if from.iter().any(Vec::is_empty) {
                let text = "--from names no distribution point; `depot dp source clear` has one \
                    bring from the site alone";
                return Err(Failure::usage(text));
            }
            (point, from)
        }
        SourceCommand::Clear { point } => (point, Vec::new()),
    };
    let address = format!("{}/sources", path(&["points", &which]));
    let request = Request::new(Method::PUT, &address).json(&NewSources { from })?;
    let point: PointView = client.ask(request).await?;
    out.show(&point, |w| writeln!(w, "{} brings what it lacks from {}", point.name, shown(&point)))
}

/// The names of a list that are apart by commas.
fn names(list: &str) -> Vec<String> {
    let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

/// `paris-1 and paris-2, then lyon, then the site`.
pub fn shown(point: &PointView) -> String {
    let ranks = point.sources.iter().map(|equals| equals.join(" and "));
    ranks.chain(["the site".to_owned()]).collect::<Vec<_>>().join(", then ")
}
