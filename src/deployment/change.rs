//! `depot deployment change`: another time, collection, group, or way to carry it out.

use super::deploy::{ExperienceArgs, percent, time};
use super::{change_to, shown};
use crate::{
    exit::Failure,
    output::Out,
    transport::{Client, path},
};
use api::routes::deployments::{DeploymentChange, DeploymentView};
use clap::Args;

/// What is changed of a deployment.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot deployment change november-pilot --collection all --name november-all
  depot deployment change november-all --deadline '+3d 03:00'
  depot deployment change november-all --optional
  depot deployment change november-all --suppress-restart none

What is not told stays as it is. Times are as `depot deploy --help` says.")]
pub struct ChangeArgs {
    /// Its name or id
    deployment: String,
    /// What it is called
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// The group of updates
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// The collection of machines
    #[arg(long, value_name = "COLLECTION")]
    collection: Option<String>,
    /// From when updates may be installed
    #[arg(long, value_name = "TIME")]
    available: Option<String>,
    /// When they must be
    #[arg(long, value_name = "TIME")]
    deadline: Option<String>,
    /// They wait for the user of each machine
    #[arg(long, conflicts_with = "deadline")]
    optional: bool,
    /// The times told here are by the clock of each client
    #[arg(long)]
    local_time: bool,
    /// Warn if fewer machines comply once the deadline is over: 90%
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    alert_below: Option<u8>,
    /// Warn no more
    #[arg(long, conflicts_with = "alert_below")]
    no_alert: bool,
    /// How it is carried out.
    #[command(flatten)]
    experience: ExperienceArgs,
}

/// Changes a deployment.
pub async fn run(args: ChangeArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let time = |option: &str, text: Option<String>| {
        text.map(|text| time(option, &text, args.local_time)).transpose()
    };
    let deadline = time("deadline", args.deadline)?;
    let mut change = DeploymentChange {
        name: args.name,
        comment: args.comment,
        group: args.group,
        collection: args.collection,
        enabled: None,
        available: time("available", args.available)?,
        deadline: if args.optional { Some(None) } else { deadline.map(Some) },
        experience: None,
        alert_below: if args.no_alert { Some(None) } else { args.alert_below.map(Some) },
    };
    if change == DeploymentChange::default() && args.experience == ExperienceArgs::default() {
        return Err(Failure::usage(
            "nothing is to be changed: say what, as --deadline '+3d 03:00'; to tell clients of it or no more, use `depot \
             deployment enable` and `disable`",
        ));
    }
    let was: DeploymentView = client.get(&path(&["deployments", &args.deployment])).await?;
    let mut experience = was.experience.clone();
    args.experience.lay_on(&mut experience);
    if experience != was.experience {
        change.experience = Some(serde_json::to_value(&experience)?);
    }
    let now = change_to(&was.id, &change, client).await?;
    out.show(&now, |w| w.write_all(shown(&now).as_bytes()))
}
