//! `depot deployment …`: what is deployed to whom, and how it is changed.

mod change;
pub mod deploy;

use crate::{
    exit::Failure,
    output::{Out, confirm, facts, table},
    transport::{Client, Request, path},
    units,
};
use api::deployed::Content;
use api::routes::deployments::{DeploymentChange, DeploymentView};
use change::ChangeArgs;
use clap::Subcommand;
use http::Method;

/// Commands on deployments.
#[derive(Debug, Subcommand)]
pub enum DeploymentCommand {
    /// List deployments
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  depot deployment list
  depot deployment list --json | jq -r '.[] | select(.content == \"missing\") | .name'

A double arrow marks one with updates whose files are in no package."
    )]
    List,
    /// Show a deployment: its updates, its times, how it is carried out
    #[command(after_help = "\
Examples:
  depot deployment show november-pilot")]
    Show {
        /// Its name or id
        deployment: String,
    },
    /// Tell clients of a deployment
    #[command(after_help = "\
Examples:
  depot deployment enable november-pilot")]
    Enable {
        /// Its name or id
        deployment: String,
    },
    /// Tell clients of a deployment no more, for now; what is installed stays
    #[command(after_help = "\
Examples:
  depot deployment disable november-pilot")]
    Disable {
        /// Its name or id
        deployment: String,
    },
    /// Change a deployment: its times, its collection, its group, how it is carried out
    Change(Box<ChangeArgs>),
    /// Delete a deployment; what is installed stays
    #[command(after_help = "\
Examples:
  depot deployment delete november-pilot --yes")]
    Delete {
        /// Its name or id
        deployment: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Runs a command on deployments.
pub async fn run(command: DeploymentCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        DeploymentCommand::List => list(client, out).await,
        DeploymentCommand::Show { deployment } => {
            let found: DeploymentView = client.get(&path(&["deployments", &deployment])).await?;
            out.show(&found, |w| w.write_all(shown(&found).as_bytes()))
        }
        DeploymentCommand::Enable { deployment } => enable(&deployment, true, client, out).await,
        DeploymentCommand::Disable { deployment } => enable(&deployment, false, client, out).await,
        DeploymentCommand::Change(args) => change::run(*args, client, out).await,
        DeploymentCommand::Delete { deployment, yes } => {
            confirm(&format!("this deletes deployment {deployment}"), yes)?;
            let at = path(&["deployments", &deployment]);
            let gone: DeploymentView = client.ask(Request::new(Method::DELETE, &at)).await?;
            out.show(&gone, |w| writeln!(w, "deployment {} is deleted", gone.name))
        }
    }
}

async fn list(client: &Client, out: Out) -> Result<(), Failure> {
    let all: Vec<DeploymentView> = client.list("/deployments", &[], usize::MAX).await?;
    let rows = all.iter().map(|it| {
        [
            it.name.clone(),
            it.group.clone(),
            it.collection.clone(),
            units::count(it.targets),
            units::count(it.updates),
            content(it),
            if it.enabled { "enabled".into() } else { "disabled".into() },
            at(&it.available),
            it.deadline.as_deref().map_or_else(|| "optional".into(), at),
        ]
    });
    let columns = [
        "name",
        "group",
        "collection",
        ">targets",
        ">updates",
        "content",
        "state",
        "available",
        "deadline",
    ];
    out.show(&all, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
}

async fn enable(deployment: &str, enabled: bool, client: &Client, out: Out) -> Result<(), Failure> {
    let change = DeploymentChange { enabled: Some(enabled), ..DeploymentChange::default() };
    let now = change_to(deployment, &change, client).await?;
    let word = if enabled { "enabled" } else { "disabled" };
    out.show(&now, |w| writeln!(w, "deployment {} is {word}", now.name))
}

/// Changes a deployment; what it is after that.
async fn change_to(
    deployment: &str,
    change: &DeploymentChange,
    client: &Client,
) -> Result<DeploymentView, Failure> {
    let at = path(&["deployments", deployment]);
    client.ask(Request::new(Method::PATCH, &at).json(change)?).await
}

/// Whether its files are there, with the double arrow where they are not.
fn content(it: &DeploymentView) -> String {
    match it.content {
        Content::Missing => {
            format!("⇊ {} missing", units::counted(it.missing, "update", "updates"))
        }
        Content::Held | Content::None => "held".to_owned(),
    }
}

/// A moment: in UTC, or by the clock of each client.
pub fn at(text: &str) -> String {
    match text.strip_suffix('Z') {
        Some(utc) => format!("{} UTC", utc.replace('T', " ")),
        None => format!("{} local", text.replace('T', " ")),
    }
}

/// A deployment in facts.
pub fn shown(it: &DeploymentView) -> String {
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let word = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let experience = &it.experience;
    let mut suppressed = Vec::new();
    suppressed.extend(experience.suppress_restart.servers.then_some("servers"));
    suppressed.extend(experience.suppress_restart.workstations.then_some("workstations"));
    let mut outside = Vec::new();
    outside.extend(experience.outside_windows.install.then_some("install"));
    outside.extend(experience.outside_windows.restart.then_some("restart"));
    let mut rows = vec![
        ("deployment", it.name.clone()),
        ("id", it.id.clone()),
        (
            "update group",
            format!("{} ({})", it.group, units::counted(it.updates, "update", "updates")),
        ),
        (
            "collection",
            format!("{} ({})", it.collection, units::counted(it.targets, "client", "clients")),
        ),
        ("state", if it.enabled { "enabled".into() } else { "disabled".into() }),
        ("content", content(it)),
        ("available", at(&it.available)),
        (
            "deadline",
            it.deadline.as_deref().map_or_else(|| "none: it waits for the user".into(), at),
        ),
        ("made", units::when(it.created)),
        ("comment", it.comment.clone()),
    ];
    let left_out = it.left_out.iter().map(|(why, n)| format!("{} {why}", units::count(*n)));
    rows.push(("left out", left_out.collect::<Vec<_>>().join(", ")));
    rows.push(("problem", it.problem.clone().unwrap_or_default()));
    rows.push((
        "alert",
        it.alert_below.map(|x| format!("below {x} % after the deadline")).unwrap_or_default(),
    ));
    rows.push(("user sees", word(serde_json::to_value(experience.visibility).unwrap_or_default())));
    rows.push(("no restart of", suppressed.join(", ")));
    rows.push(("outside windows", outside.join(", ")));
    rows.push(("commit", yes(experience.commit)));
    rows.push(("pre-download", yes(experience.predownload)));
    rows.push(("grace period", yes(experience.grace)));
    let run_time = experience.max_run_time.map(|minutes| format!("{minutes} minutes"));
    rows.push(("max run time", run_time.unwrap_or_default()));
    rows.retain(|(_, value)| !value.is_empty());
    facts(&rows)
}
